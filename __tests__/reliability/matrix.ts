/**
 * What a broken store does to its users: every fault × everything that the breaker does with its store, over real
 * servers. Each cell is a small fleet with a circuit of its own, which lives through the fault in invocations as Middy
 * makes them: load, call, flush.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { isCircuitOpenError } from '../../src/errors.ts'
import type { StateChange, StorageErrorEvent } from '../../src/events.ts'
import type { CircuitRecord, ICircuitStorage } from '../../src/storage/circuit-storage.ts'
import type { Fault, Site } from './faults.ts'
import { Lag } from './lag.ts'

/** What the breaker does with its store. */
export const operations = ['load', 'count', 'trip', 'win a probe', 'settle a probe', 'flush'] as const
export type Operation = (typeof operations)[number]

/** What became of one cell. Times are milliseconds. */
export interface Cell {
  readonly operation: Operation
  /** The longest that the store delayed a load, a call or a flush. */
  readonly delay: number
  /** How long after the store was well the fleet agreed with it. */
  readonly agreedAfter: number
  readonly problems: readonly string[]
}

/** What became of one fault. */
export interface Row {
  readonly fault: Fault
  readonly cells: readonly Cell[]
}

export const settings = {
  failureThreshold: 3,
  resetTimeout: 1_000,
  cacheTtl: 2_000,
  storageTimeout: 200,
} as const

/** What a machine that does other things as well may add to a delay. */
const slack = 75
/** So long may a read take on the direct way to the server, in milliseconds. */
const ordinary = 25
/** Loaded caches are older than `cacheTtl`, and circuits that were opened before may be probed. */
const aged = Math.max(settings.cacheTtl, settings.resetTimeout * 1.05) + 50
/** A bound on the whole, so that a fleet that never agrees is a finding and not a test that hangs. */
const patience = 15_000

/** The machine was too busy for the store before there was any fault: this says nothing. */
class NotWell extends Error {}

/** Lives through one fault with all operations at once. */
export async function runRow(fault: Fault, chosen: readonly Operation[] = operations): Promise<Row> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryRow(fault, chosen)
    } catch (error) {
      if (!(error instanceof NotWell) || attempt === 8) throw error
      await sleep(500 * attempt)
    }
  }
}

async function tryRow(fault: Fault, chosen: readonly Operation[]): Promise<Row> {
  const services = new Map(chosen.map((operation) => [operation, `${operation.replaceAll(' ', '-')}-${randomUUID()}`]))
  const site = await fault.start([...services.values()])
  const runs = chosen.map((operation) => new Run(operation, services.get(operation) as string, fault, site))
  try {
    await Promise.all(runs.map((run) => run.arrange()))
    await site.inflict()
    await Promise.all(runs.map((run) => run.act()))
    await site.heal()
    await Promise.all(runs.map((run) => run.recover()))
    return { fault, cells: await Promise.all(runs.map((run) => run.judge())) }
  } finally {
    await Promise.all(runs.map((run) => run.stop()))
    await site.stop()
  }
}

/** One instance of a function. */
class Instance {
  readonly breaker: CircuitBreaker<string>
  readonly storage: ICircuitStorage
  readonly changes: StateChange[] = []
  readonly storageErrors: StorageErrorEvent[] = []

  constructor(service: string, site: Site) {
    this.storage = site.connect()
    this.breaker = new CircuitBreaker(
      {
        services: [service],
        storage: this.storage,
        ...settings,
        onStateChange: (change) => this.changes.push(change),
        onStorageError: (event) => this.storageErrors.push(event),
      },
      { env: {} },
    )
  }
}

class ServiceUnavailable extends Error {
  readonly status = 503
}

class Run {
  readonly operation: Operation
  readonly #service: string
  readonly #fault: Fault
  readonly #site: Site
  readonly #lag = Lag.start()
  readonly #first: Instance
  readonly #second: Instance
  readonly #more: Instance[] = []
  readonly #problems: string[] = []
  #delay = 0
  #agreedAfter = Number.NaN
  /** Ends the call that was begun before the fault. */
  #finish: ((error?: Error) => Promise<void>) | undefined
  #failures = 0

  constructor(operation: Operation, service: string, fault: Fault, site: Site) {
    this.operation = operation
    this.#service = service
    this.#fault = fault
    this.#site = site
    this.#first = new Instance(service, site)
    this.#second = new Instance(service, site)
  }

  /** What happens while all is well. */
  async arrange(): Promise<void> {
    const { operation } = this
    const [first, second] = [this.#first, this.#second]
    await Promise.all([first.breaker.load(), second.breaker.load()])
    const isProbing = operation === 'win a probe' || operation === 'settle a probe'
    if (isProbing) {
      for (let n = 0; n < settings.failureThreshold; n++) await this.#fail(first)
      await first.breaker.flush()
    }
    await sleep(aged)
    if (isProbing) await Promise.all([first.breaker.load(), second.breaker.load()])
    if (operation === 'settle a probe' || operation === 'flush') await this.#begin(first)
    for (const instance of [first, second]) {
      const [failure] = instance.storageErrors
      if (failure !== undefined) throw new NotWell('The store failed while all was well.', { cause: failure.error })
    }
  }

  /** What happens while the store is broken. */
  async act(): Promise<void> {
    const [first, second] = [this.#first, this.#second]
    switch (this.operation) {
      case 'load': {
        // An instance that is new, without a connection, and those that have one.
        const cold = new Instance(this.#service, this.#site)
        this.#more.push(cold)
        await Promise.all(
          [first, second, cold].map((instance) => this.#invoke(instance, () => this.#succeed(instance))),
        )
        return
      }
      case 'count':
        await this.#invoke(first, () => this.#fail(first))
        await this.#invoke(second, async () => {})
        return
      case 'trip': {
        for (let n = 0; n < settings.failureThreshold; n++) await this.#invoke(first, () => this.#fail(first))
        await this.#invoke(first, async () => {
          const { state } = first.breaker.circuits[this.#service] ?? {}
          this.#expect(state !== 'CLOSED', `after ${settings.failureThreshold} failures the instance is ${state}`)
        })
        return
      }
      case 'win a probe': {
        let isProbed = false
        for (let n = 0; n < 4 && !isProbed; n++) {
          await this.#invoke(first, async () => {
            isProbed = await this.#succeed(first, true)
          })
        }
        this.#expect(isProbed, 'nobody could probe the service')
        return
      }
      case 'settle a probe':
        await this.#invoke(first, async () => this.#finish?.())
        await this.#invoke(second, () => this.#succeed(second, true).then(() => {}))
        return
      case 'flush':
        await this.#invoke(first, async () => this.#finish?.(new ServiceUnavailable()))
        for (let n = 0; n < 2; n++) await this.#invoke(first, async () => {})
    }
  }

  /** The fleet goes on being invoked until it agrees. */
  async recover(): Promise<void> {
    const healedAt = performance.now()
    let [lastWrite, writtenAt] = ['', healedAt]
    let slowness = 0
    const fleet = [this.#first, this.#second, ...this.#more]
    for (;;) {
      await Promise.all(fleet.map(({ breaker }) => breaker.load().then(() => breaker.flush())))
      const askedAt = performance.now()
      const stored = await this.#stored()
      const now = performance.now()
      slowness += Math.max(0, now - askedAt - ordinary)
      const write = `${stored?.version} ${stored?.failureCount}`
      if (write !== lastWrite) [lastWrite, writtenAt] = [write, now]
      if (fleet.every(({ breaker }) => !breaker.needsFlush && agrees(breaker, this.#service, stored))) {
        this.#agreedAfter = now - healedAt
        break
      }
      if (now - healedAt > patience) {
        const views = fleet.map(({ breaker }) => JSON.stringify(breaker.circuits[this.#service]))
        this.#problems.push(`the fleet never agreed: ${views.join(', ')} with ${JSON.stringify(stored)}`)
        break
      }
      await sleep(20)
    }
    // A server that has too little of the machine is no fault of ours either.
    const lag = this.#lag.since(healedAt) + slowness
    // What was left over is written when the store is tried again; from then on it is everybody's next look.
    const bound = settings.cacheTtl + slack + lag
    const writing = writtenAt - healedAt
    const learning = healedAt + this.#agreedAfter - writtenAt
    this.#expect(
      !(writing > bound),
      `what was left over was written ${Math.round(writing)} ms after the store was well`,
    )
    this.#expect(!(learning > bound), `the fleet agreed ${Math.round(learning)} ms after the last write`)
  }

  async judge(): Promise<Cell> {
    const stored = await this.#stored()
    const fleet = [this.#first, this.#second, ...this.#more]
    const events = fleet.flatMap(({ changes }) => changes)
    const transitions = events.map(({ generation, to }) => `${generation} ${to}`)
    this.#expect(new Set(transitions).size === transitions.length, `a transition was told twice: ${transitions.join()}`)
    const opened = events.filter(({ to }) => to === 'OPEN').length
    switch (this.operation) {
      case 'load':
        this.#expect((stored?.failureCount ?? 0) === 0, `${stored?.failureCount} failures are stored, of none`)
        break
      case 'count':
      case 'flush': {
        const count = stored?.failureCount ?? 0
        const isRight = count === this.#failures || (this.#site.forgets === true && count < this.#failures)
        this.#expect(isRight, `${count} failures are stored, of ${this.#failures}`)
        break
      }
      case 'trip': {
        // Either the trip was stored and told once, or it was made alone and kept from the fleet. Failures that were counted
        // at once, though nobody heard of it, may complete the count: then the next failure of anyone opens the circuit.
        const most = this.#fault.writesLand === true ? this.#failures : settings.failureThreshold - 1
        const isStored = this.#fault.writesLand === true && opened === 1 && stored?.state === 'OPEN'
        const isAlone = opened === 0 && (stored?.state ?? 'CLOSED') === 'CLOSED' && (stored?.failureCount ?? 0) <= most
        const isForgotten = this.#site.forgets === true && stored === undefined
        this.#expect(
          isStored || isAlone || isForgotten,
          `${opened} trips were told; stored is ${JSON.stringify(stored)}`,
        )
        break
      }
      case 'settle a probe':
        this.#expect(
          (stored?.state ?? 'CLOSED') === 'CLOSED',
          `the probe succeeded, but stored is ${JSON.stringify(stored)}`,
        )
        break
      case 'win a probe':
        this.#expect(stored?.state !== 'HALF_OPEN' || stored.leases.length <= 1, 'more than one lease was granted')
    }
    this.#judgeReports(fleet.flatMap(({ storageErrors }) => storageErrors))
    // And from here on all is as ever.
    for (const instance of fleet) await this.#succeed(instance, true)
    await Promise.all(fleet.map(({ breaker }) => breaker.flush()))
    return {
      operation: this.operation,
      delay: Math.round(this.#delay),
      agreedAfter: Math.round(this.#agreedAfter),
      problems: this.#problems,
    }
  }

  async stop(): Promise<void> {
    this.#lag.stop()
    await Promise.all([this.#first, this.#second, ...this.#more].map(({ storage }) => storage.close?.()))
  }

  #judgeReports(events: readonly StorageErrorEvent[]): void {
    const isSpared = this.operation === 'load' && this.#fault.spares === 'reads'
    if (this.#fault.spares !== 'everything' && !isSpared) this.#expect(events.length > 0, 'nothing was reported')
    for (const { services, operation, error, willRetry } of events) {
      const isComplete = services.join() === this.#service && operation.length > 0 && willRetry
      this.#expect(isComplete, `a report lacks something: ${services.join()} ${operation} ${willRetry}`)
      const allowed = [this.#fault.kind, ...(this.#fault.otherKinds ?? [])]
      this.#expect(allowed.includes(error.kind), `reported as ${error.kind}: ${error.message}`)
    }
  }

  async #stored(): Promise<CircuitRecord | undefined> {
    return this.#site.truth.getState(this.#service)
  }

  /** One invocation, as the middleware makes it. */
  async #invoke({ breaker }: Instance, handler: () => Promise<unknown>): Promise<void> {
    await this.#timed('load', () => breaker.load())
    await this.#timed('call', handler)
    await this.#timed('flush', () => breaker.flush())
  }

  /** The store may take `storageTimeout`; what the machine itself was late by is not its doing. */
  async #timed(what: string, run: () => Promise<unknown>): Promise<void> {
    const startedAt = performance.now()
    await run()
    const delay = performance.now() - startedAt - this.#lag.since(startedAt)
    this.#delay = Math.max(this.#delay, delay)
    this.#expect(delay <= settings.storageTimeout + slack, `a ${what} took ${Math.round(delay)} ms`)
  }

  async #fail({ breaker }: Instance): Promise<void> {
    const error = new ServiceUnavailable()
    this.#failures += 1
    const thrown = await breaker
      .call(this.#service, () => Promise.reject(error))
      .then(
        () => undefined,
        (reason: unknown) => reason,
      )
    this.#expect(thrown === error, `the caller got ${String(thrown)} in place of its error`)
  }

  /** @returns whether the operation was run; a circuit that is open may refuse it */
  async #succeed({ breaker }: Instance, mayRefuse = false): Promise<boolean> {
    const value = {}
    try {
      this.#expect((await breaker.call(this.#service, async () => value)) === value, 'the caller got another value')
      return true
    } catch (error) {
      this.#expect(mayRefuse && isCircuitOpenError(error), `the caller got ${String(error)}`)
      return false
    }
  }

  /** Begins a call that ends when `#finish` is called. */
  async #begin({ breaker }: Instance): Promise<void> {
    const value = {}
    const started = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<object>()
    const call = breaker.call(this.#service, () => {
      started.resolve()
      return ended.promise
    })
    const outcome = call.catch((error: unknown) => error)
    this.#finish = async (error) => {
      if (error === undefined) ended.resolve(value)
      else ended.reject(error)
      if (error !== undefined) this.#failures += 1
      this.#expect((await outcome) === (error ?? value), `the caller got ${String(await outcome)}`)
    }
    await Promise.race([started.promise, call])
  }

  #expect(holds: boolean, problem: string): void {
    if (!holds) this.#problems.push(problem)
  }
}

function agrees(breaker: CircuitBreaker<string>, service: string, stored: CircuitRecord | undefined): boolean {
  const view = breaker.circuits[service]
  if (view === undefined) return false
  if (stored === undefined) return view.generation === 0
  return view.epoch === stored.epoch && view.generation === stored.generation
}
