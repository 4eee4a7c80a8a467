import type { CircuitRecord, ServiceSettings } from '../../src/index.ts'
import type { Message } from './messages.ts'
import type { Arrival, Call, DatabaseRequest, Fleet, Recording, StorageFailure, Transition } from './recording.ts'
import { type Failure, fleetSize, phaseAt, phases } from './scenario.ts'

/** Collects a recording. It is given instants in milliseconds since the epoch. */
export class Recorder {
  readonly calls: Call[] = []
  readonly #arrivals: Arrival[] = []
  readonly #transitions: Transition[] = []
  readonly #requests: DatabaseRequest[] = []
  readonly #storageFailures: StorageFailure[] = []
  /** Until the start is known, everything lies before it. */
  #startAt = Number.POSITIVE_INFINITY

  /** The clock of the scenario starts at this instant. */
  start(at: number): void {
    this.#startAt = at
  }

  /** Milliseconds since the start. */
  get now(): number {
    return Date.now() - this.#startAt
  }

  /** What the service received so far. */
  get arrivals(): readonly Arrival[] {
    return this.#arrivals
  }

  /** The start in milliseconds since the epoch. */
  get startAt(): number {
    return this.#startAt
  }

  /** How the service fails at the moment. */
  failure(): Failure | undefined {
    return phaseAt(phases, this.now).failure
  }

  arrival(arrival: Arrival): void {
    const { arrivedAt, sentAt } = arrival
    this.#arrivals.push({ ...arrival, arrivedAt: arrivedAt - this.#startAt, sentAt: sentAt - this.#startAt })
  }

  request({ at, operation }: DatabaseRequest): void {
    this.#requests.push({ at: at - this.#startAt, operation })
  }

  /** @returns the transition, if the message tells of one */
  message(fleet: Fleet, message: Message): Transition | undefined {
    const id = { fleet, number: 'number' in message ? message.number : 0 }
    switch (message.type) {
      case 'call':
        this.calls.push({ ...id, ...message.call, endedAt: message.call.endedAt - this.#startAt })
        return undefined
      case 'storageError':
        this.#storageFailures.push({ ...id, at: message.at - this.#startAt, message: message.message })
        return undefined
      case 'change': {
        const { from, to, generation, reason, at } = message.change
        const reportedAt = message.reportedAt - this.#startAt
        const transition = { ...id, from, to, generation, reason, at: at - this.#startAt, reportedAt }
        this.#transitions.push(transition)
        return transition
      }
      default:
        return undefined
    }
  }

  /** The recording so far. */
  recording(settings: ServiceSettings, record: CircuitRecord | undefined): Recording {
    return {
      phases,
      fleetSize,
      settings,
      calls: [...this.calls],
      arrivals: [...this.#arrivals],
      transitions: [...this.#transitions],
      requests: [...this.#requests],
      storageFailures: [...this.#storageFailures],
      record,
    }
  }
}
