import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { CallResults, FleetCommand, FleetReport, FleetWorkerSetup, TrafficResults } from './fleet-worker.ts'

/** One process with some breakers in it. */
export class FleetProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (result: unknown) => void>()
  #lastId = 0
  #started = 0
  #onStarted: (() => void) | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (message: { id?: number; result?: unknown; started?: true }) => {
      if (message.id !== undefined) this.#waiting.get(message.id)?.(message.result)
      if (message.started === true) {
        this.#started++
        this.#onStarted?.()
      }
    })
  }

  static async start(setup: FleetWorkerSetup): Promise<FleetProcess> {
    const path = fileURLToPath(new URL('./fleet-worker.ts', import.meta.url))
    const child = fork(path, [JSON.stringify(setup)], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    const process = new FleetProcess(child)
    await once(child, 'message')
    return process
  }

  load(): Promise<void> {
    return this.#send({ kind: 'load' }) as Promise<void>
  }

  call(does: 'fail' | 'succeed', how: { holds?: number; remaining?: number } = {}): Promise<CallResults> {
    return this.#send({ kind: 'call', does, ...how }) as Promise<CallResults>
  }

  traffic(does: 'fail' | 'succeed'): Promise<TrafficResults> {
    return this.#send({ kind: 'traffic', does }) as Promise<TrafficResults>
  }

  stopTraffic(): Promise<void> {
    return this.#send({ kind: 'stop' }) as Promise<void>
  }

  report(): Promise<FleetReport> {
    return this.#send({ kind: 'report' }) as Promise<FleetReport>
  }

  /** Resolves when an operation has been started in this process. */
  async operationStarted(): Promise<void> {
    if (this.#started > 0) return
    await new Promise<void>((resolve) => {
      this.#onStarted = resolve
    })
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
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#child.send({ id, command })
    })
  }
}

/** Starts processes and adds up what they say. */
export class Fleet {
  readonly processes: readonly FleetProcess[]

  private constructor(processes: readonly FleetProcess[]) {
    this.processes = processes
  }

  static async start(processes: number, setup: FleetWorkerSetup): Promise<Fleet> {
    return new Fleet(await Promise.all(Array.from({ length: processes }, () => FleetProcess.start(setup))))
  }

  async load(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.load()))
  }

  async call(does: 'fail' | 'succeed', how: { holds?: number; remaining?: number } = {}): Promise<CallResults> {
    return sumOf(await Promise.all(this.processes.map((process) => process.call(does, how))))
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
