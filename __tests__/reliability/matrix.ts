/**
 * What a broken store does to its users: every fault × everything that the breaker does with its store, over real
 * servers. Each cell is a small fleet with a circuit of its own, which lives through the fault in invocations as Middy
 * makes them: load, call, flush.
 *
 * It has a clock of its own, which stands still while anything but time can go on, so that nothing is decided by how long
 * the machine takes. Where the store is silent it is moved, up to `storageTimeout`. Where the store answers, another fleet
 * lives through the same with a clock that is faster than any answer.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { isCircuitOpenError } from '../../src/errors.ts'
import type { StateChange, StorageErrorEvent } from '../../src/events.ts'
import type { CircuitRecord, ICircuitStorage } from '../../src/storage/contract.ts'
import { outlast, stopwatch, waitFor } from '../support/time.ts'
import { type Clock, consequences, createClock } from './clock.ts'
import type { Fault, Site, Way } from './faults.ts'

/** What the breaker does with its store. */
export const operations = ['load', 'count', 'trip', 'win a probe', 'settle a probe', 'flush'] as const
export type Operation = (typeof operations)[number]

/** What became of one cell. Times are milliseconds. */
export interface Cell {
  readonly operation: Operation
  /** The longest that the store delayed a load, a call or a flush: up to its answer, as measured, or to `storageTimeout`. */
  readonly delay: number
  /** How long after the store was well the fleet agreed with it, by the clock. */
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

/** Loaded caches are older than `cacheTtl`, and circuits that were opened before may be probed. */
const aged = Math.max(settings.cacheTtl, settings.resetTimeout * 1.05) + 50
/** The clock moves by so much while the store is silent, so that what is a little late arrives. */
const silence = settings.storageTimeout / 4
/** Between two looks at a fleet that recovers. */
const lookEvery = settings.cacheTtl / 8
/** A bound on the whole, so that a fleet that never agrees is a finding and not a test that hangs. */
const longestRecovery = 8 * settings.cacheTtl
/** So often the clients may find after the fault that the store is still broken. */
const mostRelapses = 3

/** A client gave up the store before there was any fault, because the machine stood still: this says nothing. */
class NotWell extends Error {}

/** Lives through one fault with all operations at once. */
export async function runRow(fault: Fault, chosen: readonly Operation[] = operations): Promise<Row> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryRow(fault, chosen)
    } catch (error) {
      if (error instanceof NotWell && attempt < 8) continue
      throw new Error(`${fault.store}: ${fault.name}: ${(error as Error).message}`, { cause: error })
    }
  }
}

async function tryRow(fault: Fault, chosen: readonly Operation[]): Promise<Row> {
  const fleets = chosen.flatMap((operation) =>
    (fault.isSilent === true ? [false] : [false, true]).map((isHasty) => {
      const service = `${operation.replaceAll(' ', '-')}-${randomUUID()}`
      return { operation, isHasty, service }
    }),
  )
  const site = await fault.start(fleets.map(({ service }) => service))
  const runs = await Promise.all(fleets.map((fleet) => Run.start(fleet, fault, site)))
  let isBroken = false
  try {
    await all(runs.map((run) => run.arrange()))
    isBroken = true
    await site.inflict()
    await all(runs.map((run) => run.act()))
    await site.heal()
    isBroken = false
    await all(runs.map((run) => run.recover()))
    const cells = await all(runs.map((run) => run.judge()))
    const byOperation = Map.groupBy(cells, ({ operation }) => operation)
    return { fault, cells: Array.from(byOperation.values(), merge) }
  } finally {
    // A client says goodbye to its server, and waits for the answer.
    if (isBroken) await site.heal().catch(() => {})
    await Promise.all(runs.map((run) => run.stop()))
    await site.stop()
  }
}

/** Rejects with the first reason when all have ended, so that nothing goes on of what is given up. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return Promise.all(promises)
}

/** The first is the one that waited for the answers. */
function merge([first, ...others]: readonly Cell[]): Cell {
  const { operation, delay, agreedAfter, problems } = first as Cell
  return {
    operation,
    delay,
    agreedAfter: Math.max(agreedAfter, ...others.map((cell) => cell.agreedAfter)),
    problems: [
      ...problems,
      ...others.flatMap((cell) => cell.problems.map((problem) => `without an answer: ${problem}`)),
    ],
  }
}

/** One instance of a function. */
class Instance {
  readonly breaker: CircuitBreaker<string>
  readonly changes: StateChange[] = []
  readonly storageErrors: StorageErrorEvent[] = []
  readonly #way: Way
  #underWay = 0

  static async start(service: string, site: Site, clock: Clock): Promise<Instance> {
    const way = await site.connect(clock)
    // A library that is loaded is not the store's silence.
    await way.storage.prepare?.()
    return new Instance(service, way, clock)
  }

  private constructor(service: string, way: Way, clock: Clock) {
    this.#way = way
    this.breaker = new CircuitBreaker(
      {
        services: [service],
        storage: this.#watched(way.storage),
        ...settings,
        onStateChange: (change) => this.changes.push(change),
        onStorageError: (event) => this.storageErrors.push(event),
      },
      { env: {}, now: clock.now, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout },
    )
  }

  /** How many operations of the adapter have not come to an end, whether or not anybody waits for them. */
  get underWay(): number {
    return this.#underWay
  }

  isSilent(): boolean {
    return this.#underWay > 0 && this.#way.isSilent()
  }

  async stop(): Promise<void> {
    await this.#way.storage.close?.()
  }

  #watched(storage: ICircuitStorage): ICircuitStorage {
    return new Proxy(storage, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name)
        if (typeof member !== 'function') return member
        return (...args: unknown[]) => {
          this.#underWay += 1
          const end = (): void => {
            this.#underWay -= 1
          }
          const outcome: Promise<unknown> = Reflect.apply(member, target, args)
          outcome.then(end, end)
          return outcome
        }
      },
    })
  }
}

class ServiceUnavailable extends Error {
  readonly status = 503
}

interface Fleet {
  readonly operation: Operation
  readonly service: string
  /** Whether the time of the broken store is over before any answer comes, however soon that is. */
  readonly isHasty: boolean
}

class Run {
  readonly operation: Operation
  readonly #service: string
  readonly #isHasty: boolean
  readonly #fault: Fault
  readonly #site: Site
  readonly #clock: Clock
  readonly #first: Instance
  readonly #second: Instance
  readonly #more: Instance[] = []
  readonly #problems: string[] = []
  #delay = 0
  #agreedAfter = Number.NaN
  /** Ends the call that was begun before the fault. */
  #finish: ((error?: Error) => Promise<void>) | undefined
  #failures = 0

  static async start(fleet: Fleet, fault: Fault, site: Site): Promise<Run> {
    const clock = createClock()
    const start = () => Instance.start(fleet.service, site, clock)
    const [first, second] = await Promise.all([start(), start()])
    return new Run(fleet, fault, site, clock, first, second)
  }

  private constructor(fleet: Fleet, fault: Fault, site: Site, clock: Clock, first: Instance, second: Instance) {
    this.operation = fleet.operation
    this.#service = fleet.service
    this.#isHasty = fleet.isHasty
    this.#fault = fault
    this.#site = site
    this.#clock = clock
    this.#first = first
    this.#second = second
  }

  get #isThrottled(): boolean {
    return this.#fault.kind === 'throttled'
  }

  get #fleet(): readonly Instance[] {
    return [this.#first, this.#second, ...this.#more]
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
    await this.#clock.advance(aged)
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
        const cold = await Instance.start(this.#service, this.#site, this.#clock)
        this.#more.push(cold)
        for (const instance of [first, second, cold]) await this.#invoke(instance, () => this.#succeed(instance))
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
        // A store that throttles serves others: they are given their time.
        this.#expect(isProbed || this.#isThrottled, 'nobody could probe the service')
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
    const [clock, fleet] = [this.#clock, this.#fleet]
    // The clients find out in their own time that the store is well.
    await waitFor(
      `what was under way for "${this.operation}" has come to an end`,
      () => fleet.map(({ underWay }) => underWay),
      (counts) => counts.every((count) => count === 0),
    )
    let wellAt = clock.now()
    let [lastWrite, writtenAt] = ['', wellAt]
    let [relapses, reports] = [0, this.#reports.length]
    for (;;) {
      await Promise.all(fleet.map(({ breaker }) => breaker.load().then(() => breaker.flush())))
      const stored = await this.#stored()
      const now = clock.now()
      if (this.#reports.length > reports) {
        // Until now the store was not well: a client gave it up that did not get a connection, or lost its own.
        wellAt = now
        reports = this.#reports.length
        relapses += 1
      }
      const write = `${stored?.version} ${stored?.failureCount}`
      if (write !== lastWrite) [lastWrite, writtenAt] = [write, now]
      if (fleet.every(({ breaker }) => !breaker.needsFlush && agrees(breaker, this.#service, stored))) break
      if (now - wellAt >= longestRecovery || relapses > mostRelapses) {
        const views = fleet.map(({ breaker }) => JSON.stringify(breaker.circuits[this.#service]))
        const errors = this.#reports.map(({ error }) => error.message)
        this.#problems.push(
          `the fleet never agreed: ${views.join(', ')} with ${JSON.stringify(stored)} after ${errors.join(', ')}`,
        )
        break
      }
      await clock.advance(lookEvery)
    }
    this.#agreedAfter = clock.now() - wellAt
    // What was left over is written when the store is tried again; from then on it is everybody's next look.
    const [writing, learning] = [writtenAt - wellAt, clock.now() - Math.max(writtenAt, wellAt)]
    // A decision made alone stands for a resetTimeout; a read that was throttled is tried again after 3 s.
    const longest = settings.cacheTtl + Math.max(settings.resetTimeout, this.#isThrottled ? 3_000 : 0)
    this.#expect(writing <= longest, `what was left over was written ${writing} ms after the store was well`)
    this.#expect(learning <= longest, `the fleet agreed ${learning} ms after the last write`)
  }

  async judge(): Promise<Cell> {
    const stored = await this.#stored()
    const fleet = this.#fleet
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
        // Where the store throttles, it is left to some of many to raise a suspicion.
        const mayBeLess = this.#site.forgets === true || this.#isThrottled
        const isRight = count === this.#failures || (mayBeLess && count < this.#failures)
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
    this.#judgeReports(this.#reports)
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
    await Promise.all(this.#fleet.map((instance) => instance.stop()))
  }

  #judgeReports(events: readonly StorageErrorEvent[]): void {
    const isSpared = this.operation === 'load' && this.#fault.spares === 'reads'
    if (this.#fault.spares !== 'everything' && !isSpared) this.#expect(events.length > 0, 'nothing was reported')
    for (const { services, operation, error, willRetry } of events) {
      // An entry of the journal that is lost stays lost.
      const isKept = willRetry === (operation !== 'appendJournal')
      const isComplete = services.join() === this.#service && operation.length > 0 && isKept
      this.#expect(isComplete, `a report lacks something: ${services.join()} ${operation} ${willRetry}`)
      const isTimeOut = this.#isHasty && / did not answer /.test(error.message)
      const allowed = isTimeOut ? ['unavailable'] : [this.#fault.kind, ...(this.#fault.otherKinds ?? [])]
      this.#expect(allowed.includes(error.kind), `reported as ${error.kind}: ${error.message}`)
    }
  }

  get #reports(): readonly StorageErrorEvent[] {
    return this.#fleet.flatMap(({ storageErrors }) => storageErrors)
  }

  async #stored(): Promise<CircuitRecord | undefined> {
    return this.#site.truth.getState(this.#service)
  }

  /** One invocation, as the middleware makes it. */
  async #invoke(instance: Instance, handler: () => Promise<unknown>): Promise<void> {
    const { breaker } = instance
    await this.#within('load', instance, () => breaker.load())
    await this.#within('call', instance, handler)
    await this.#within('flush', instance, () => breaker.flush())
  }

  /**
   * The store delays nobody longer than `storageTimeout`: what is left without an answer until then ends with the timers
   * that fire then, and waits for nothing else.
   */
  async #within(what: string, instance: Instance, run: () => Promise<unknown>): Promise<void> {
    const clock = this.#clock
    const [took, startedAt] = [stopwatch(), clock.now()]
    let hasEnded = false
    const end = (): void => {
      hasEnded = true
    }
    const outcome = run()
    outcome.then(end, end)
    await consequences()
    while (!hasEnded && clock.now() - startedAt < settings.storageTimeout) {
      if (!this.#isHasty) {
        await waitFor(`the ${what} ends, or the store leaves it waiting`, () => hasEnded || instance.isSilent())
        // A reply that is only a little late may be there by now.
        if (clock.now() > startedAt) await outlast(5)
      }
      if (!hasEnded) await clock.advance(silence)
    }
    const delay = clock.now() - startedAt
    // It may be without an end, and so is everything after it.
    if (!hasEnded) throw new Error(`In "${this.operation}" a ${what} waits for the store longer than ${delay} ms.`)
    this.#delay = Math.max(this.#delay, delay > 0 ? delay : Math.min(took(), settings.storageTimeout))
    await outcome
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
