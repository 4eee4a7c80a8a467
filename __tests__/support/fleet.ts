import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type {
  CallOptions,
  CallResults,
  FleetCommand,
  FleetReport,
  FleetWorkerSetup,
  TrafficResults,
} from './fleet-worker.ts'
import { waitFor } from './time.ts'

/** One process with some breakers in it. */
export class FleetProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #lastId = 0
  #verdicts: string[] = []

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (message: { id?: number; result?: unknown; verdict?: string }) => {
      if (message.id !== undefined) {
        this.#waiting.get(message.id)?.resolve(message.result)
        this.#waiting.delete(message.id)
      }
      if (message.verdict !== undefined) this.#verdicts.push(message.verdict)
    })
    child.on('exit', (code, signal) => {
      // Nobody asks any more a process that was killed.
      if (signal === 'SIGKILL') return
      for (const { reject } of this.#waiting.values()) reject(new Error(`a process of the fleet ended with ${code}`))
    })
  }

  /** Starts a process, without breakers yet. */
  static async start(): Promise<FleetProcess> {
    const path = fileURLToPath(new URL('./fleet-worker.ts', import.meta.url))
    const child = fork(path, { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    const process = new FleetProcess(child)
    await once(child, 'message')
    return process
  }

  /** Gives it new breakers, whose clock is this much ahead. */
  equip(setup: FleetWorkerSetup, ahead: number): Promise<void> {
    return this.#send({ kind: 'equip', setup, ahead }) as Promise<void>
  }

  advance(by: number): Promise<void> {
    return this.#send({ kind: 'advance', by }) as Promise<void>
  }

  load(): Promise<void> {
    return this.#send({ kind: 'load' }) as Promise<void>
  }

  call(does: 'fail' | 'succeed', how: CallOptions = {}): Promise<CallResults> {
    this.#verdicts = []
    return this.#send({ kind: 'call', does, ...how }) as Promise<CallResults>
  }

  release(): Promise<void> {
    return this.#send({ kind: 'release' }) as Promise<void>
  }

  traffic(does: 'fail' | 'succeed'): Promise<TrafficResults> {
    return this.#send({ kind: 'traffic', does }) as Promise<TrafficResults>
  }

  turn(): Promise<void> {
    return this.#send({ kind: 'turn' }) as Promise<void>
  }

  stopTraffic(): Promise<void> {
    return this.#send({ kind: 'stop' }) as Promise<void>
  }

  report(): Promise<FleetReport> {
    return this.#send({ kind: 'report' }) as Promise<FleetReport>
  }

  /** The fate of the calls of the latest `call` that is held, as far as it is decided: `started` or `refused`. */
  get verdicts(): readonly string[] {
    return this.#verdicts
  }

  /** Kills the process as Lambda does, without a warning. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }

  #send(command: FleetCommand): Promise<unknown> {
    const id = ++this.#lastId
    const answer = Promise.withResolvers<unknown>()
    this.#waiting.set(id, answer)
    this.#child.send({ id, command })
    return answer.promise
  }
}

/** Starts processes and adds up what they say. */
export class Fleet {
  readonly processes: readonly FleetProcess[]
  #ahead = 0

  private constructor(processes: readonly FleetProcess[]) {
    this.processes = processes
  }

  static async start(processes: number): Promise<Fleet> {
    return new Fleet(await Promise.all(Array.from({ length: processes }, () => FleetProcess.start())))
  }

  /** Gives every process new breakers, which know nothing of those before. */
  async equip(setup: FleetWorkerSetup): Promise<void> {
    await Promise.all(this.processes.map((process) => process.equip(setup, this.#ahead)))
  }

  /** By how much the clock of the fleet is ahead. */
  get ahead(): number {
    return this.#ahead
  }

  /** The clock of the fleet. */
  readonly now = (): number => Date.now() + this.#ahead

  /** Sets the clock of every process forward. */
  async advance(by: number): Promise<void> {
    this.#ahead += by
    await Promise.all(this.processes.map((process) => process.advance(by)))
  }

  async load(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.load()))
  }

  async call(does: 'fail' | 'succeed'): Promise<CallResults> {
    return sumOf(await Promise.all(this.processes.map((process) => process.call(does))))
  }

  /** Opens the circuit by failures of all breakers at once: they join a second after the first of them. */
  async open(): Promise<void> {
    await this.call('fail')
    await this.advance(1_000)
    await this.call('fail')
  }

  /** As `call`, but those that run take until all the others are refused. */
  async callTogether(does: 'fail' | 'succeed', breakers: number): Promise<CallResults> {
    const calls = this.processes.map((process) => process.call(does, { isHeld: true }))
    await waitFor(
      `${breakers} calls are started or refused`,
      () => this.processes.flatMap(({ verdicts }) => verdicts),
      ({ length }) => length >= breakers,
    )
    await Promise.all(this.processes.map((process) => process.release()))
    return sumOf(await Promise.all(calls))
  }

  /** Lets invocations run until the function that it returns is called, which resolves to what they came to. */
  startTraffic(does: 'fail' | 'succeed'): () => Promise<TrafficResults> {
    const ended = Promise.all(this.processes.map((process) => process.traffic(does)))
    return async () => {
      await Promise.all(this.processes.map((process) => process.stopTraffic()))
      const results = await ended
      return { ...sumOf(results), slowest: Math.max(...results.map(({ slowest }) => slowest)) }
    }
  }

  /** Resolves when every breaker in traffic has had an invocation that began after this. */
  async turn(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.turn()))
  }

  async report(): Promise<FleetReport> {
    const reports = await Promise.all(this.processes.map((process) => process.report()))
    const requests: Record<string, number> = {}
    for (const [name, count] of reports.flatMap((report) => Object.entries(report.requests))) {
      requests[name] = (requests[name] ?? 0) + count
    }
    return {
      requests,
      events: reports.flatMap((report) => report.events),
      states: reports.flatMap((report) => report.states),
      storageErrors: reports.flatMap((report) => report.storageErrors),
      unexpected: reports.flatMap((report) => report.unexpected),
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.kill()))
  }
}

function sumOf(results: readonly CallResults[]): CallResults {
  return {
    ran: results.reduce((sum, { ran }) => sum + ran, 0),
    refused: results.reduce((sum, { refused }) => sum + refused, 0),
  }
}
