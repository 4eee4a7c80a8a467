import type { World } from './world.ts'

/** How the simulated service is doing. Rates are probabilities, times milliseconds. */
export interface ServiceCondition {
  /** Calls that fail in a way that counts: a 503. */
  readonly errorRate: number
  /** Calls that the service rejects as wrong, which does not count: a 400. */
  readonly rejectionRate?: number
  /** Calls that are never answered. */
  readonly silenceRate?: number
  /** The median of the time to answer … */
  readonly latency: number
  /** … and to fail. Default: `latency`. */
  readonly failureLatency?: number
  /** How much both vary. Default: 0.4. */
  readonly spread?: number
  /** Calls that it can answer in a second; those beyond it fail. */
  readonly capacity?: number
  /** Whom it fails; default: everyone. The others find it well. */
  readonly affects?: (instance: number) => boolean
}

export const healthy: ServiceCondition = { errorRate: 0, latency: 50 }

export interface Answer {
  readonly kind: 'ok' | 'unavailable' | 'rejected' | 'silence'
  readonly after: number
  /** What a failure says of when to come back; with some it says so, and with some of those it is nonsense. */
  readonly retryAfter?: string
}

/** What the circuit protects, and what it is protected from. */
export class SimulatedService {
  condition: ServiceCondition = healthy
  /** How often it was called. */
  calls = 0
  #second = -1
  #callsInSecond = 0
  readonly #world: World

  constructor(world: World) {
    this.#world = world
  }

  ask(instance: number): Answer {
    const world = this.#world
    const isAffected = this.condition.affects?.(instance) ?? true
    const {
      errorRate,
      rejectionRate = 0,
      silenceRate = 0,
      latency,
      failureLatency,
      spread,
      capacity,
    } = isAffected ? this.condition : healthy
    this.calls++
    if (world.chance(silenceRate)) return { kind: 'silence', after: Number.POSITIVE_INFINITY }
    const isOverloaded = capacity !== undefined && this.#load() > capacity
    if (isOverloaded || world.chance(errorRate)) {
      const after = world.latency(failureLatency ?? latency, spread)
      // Drawn from no random number, so that every seed lives through the same as without.
      const retryAfter = this.calls % 5 === 0 ? { retryAfter: String((this.calls % 13) - 2) } : {}
      return { kind: 'unavailable', after, ...retryAfter }
    }
    return { kind: world.chance(rejectionRate) ? 'rejected' : 'ok', after: world.latency(latency, spread) }
  }

  /** The calls in this second, with this one. */
  #load(): number {
    const second = Math.floor(this.#world.now / 1_000)
    if (second !== this.#second) {
      this.#second = second
      this.#callsInSecond = 0
    }
    return ++this.#callsInSecond
  }
}
