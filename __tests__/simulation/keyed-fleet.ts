/**
 * Fleets that call a keyed service: the real engine under a virtual clock, with invariants that hold for each key.
 *
 * @module
 */

import type { CircuitBreaker, KeyedOptions, StateChange } from '../../src/index.ts'
import type { TimerHandle } from '../../src/runtime.ts'
import type { CircuitRecord, ICircuitStorage, WriteResult } from '../../src/storage/contract.ts'
import { engine } from './engine.ts'
import { Unavailable } from './instance.ts'
import { type Appointment, World } from './world.ts'

type Breaker = CircuitBreaker<'hooks', { hooks: KeyedOptions }>

/** A fleet and its traffic. Times are milliseconds. */
export interface KeyedFleetOptions {
  readonly instances: number
  /** The calls of each instance in a second, at Poisson times. */
  readonly rate: number
  readonly keys: number
  readonly keyed: KeyedOptions
  readonly seed: number
  /** The part of the calls that is for key 0; the rest is spread evenly. Default: it is one like the others. */
  readonly shareOfFirst?: number
}

/** The median of the way to the store and of the way back. */
const wayToStore = 2
/** The service answers after so long, and fails after so long. */
const answerTime = 50
const failureTime = 10

export class KeyedFleet {
  readonly world: World
  /** Who is dead: none at first. */
  isDead: (key: number) => boolean = () => false
  calls = 0
  /** Calls that reached a dead key, with the time of the last. */
  reachedDead = 0
  lastReachedAt: number | undefined
  /** Calls that were refused: for dead keys, and for others. */
  refusedDead = 0
  refusedOthers = 0
  lastRefusedAt: number | undefined
  /** Requests, and the circuits in them. */
  reads = 0
  circuitsRead = 0
  writes = 0
  readonly events: StateChange[] = []
  readonly records = new Map<string, CircuitRecord>()
  /** The invariants that did not hold, in words. */
  readonly violations: string[] = []
  readonly #options: KeyedFleetOptions
  readonly #inner: ICircuitStorage = new engine.MemoryCircuitStorage()
  readonly #told = new Set<string>()

  constructor(options: KeyedFleetOptions) {
    this.#options = options
    this.world = new World(options.seed)
    for (let index = 0; index < options.instances; index++) this.#start(index)
  }

  #start(index: number): void {
    const { world } = this
    let ids = 0
    const breaker: Breaker = new engine.CircuitBreaker(
      {
        services: { hooks: { keyed: this.#options.keyed } },
        storage: this.#storage(),
        onStateChange: (change) => this.#hear(change),
        onStorageError: () => {},
      },
      {
        now: () => Math.floor(world.now),
        random: world.random,
        id: () => `i${index}-${++ids}`,
        setTimeout: (callback, delay) => world.after(delay, callback) as unknown as TimerHandle,
        clearTimeout: (timer) => {
          ;(timer as unknown as Appointment).isCancelled = true
        },
        env: {},
      },
    )
    const pause = 1_000 / this.#options.rate
    const come = (): void => {
      void this.#invoke(breaker)
      world.after(world.exponential(pause), come)
    }
    world.after(world.between(0, Math.max(5_000, pause)), come)
  }

  /** One invocation with one call, as the middleware does it. */
  async #invoke(breaker: Breaker): Promise<void> {
    const { world } = this
    const endsAt = world.now + 3_000
    const invocation = breaker.beginInvocation({ getRemainingTimeInMillis: () => endsAt - world.now })
    if (breaker.needsLoadAt(invocation.startedAt)) await breaker.load(invocation.timeLeft())
    const key = this.#pick()
    this.calls++
    try {
      await breaker.callExternalFor(invocation)('hooks', () => this.#ask(breaker, key), { key: nameOf(key) })
    } catch (error) {
      if (!(error instanceof Unavailable)) this.#refused(key, error)
    }
    await breaker.endInvocation(invocation, undefined)
  }

  #pick(): number {
    const { keys, shareOfFirst } = this.#options
    if (shareOfFirst === undefined) return this.world.whole(0, keys - 1)
    return this.world.chance(shareOfFirst) ? 0 : this.world.whole(1, keys - 1)
  }

  #ask(breaker: Breaker, key: number): Promise<string> {
    const { parent } = breaker.circuits.hooks
    const own = breaker.circuits.hooks.of(nameOf(key))
    if (own.state === 'OPEN') this.#violate(`the operation of ${nameOf(key)} ran while its circuit was open (7)`)
    if (parent?.state === 'OPEN') this.#violate(`an operation ran while the circuit of the service was open (7)`)
    const isDead = this.isDead(key)
    if (isDead) {
      this.reachedDead++
      this.lastReachedAt = this.world.elapsed
    }
    return new Promise((resolve, reject) => {
      this.world.after(this.world.latency(isDead ? failureTime : answerTime), () => {
        if (isDead) reject(new Unavailable())
        else resolve('ok')
      })
    })
  }

  #refused(key: number, error: unknown): void {
    const { code } = error as { code?: string }
    if (code !== 'CIRCUIT_OPEN') this.#violate(`a call ended with ${String(error)}`)
    if (this.isDead(key)) this.refusedDead++
    else this.refusedOthers++
    this.lastRefusedAt = this.world.elapsed
  }

  #hear(change: StateChange): void {
    this.events.push(change)
    const { key, to, generation, at } = change
    const transition = `${key ?? 'the service'} ${to} ${generation}`
    if (this.#told.has(transition)) this.#violate(`${transition} was told twice, at ${at} again (4)`)
    this.#told.add(transition)
  }

  #violate(what: string): void {
    this.violations.push(`at ${Math.round(this.world.elapsed)} ms: ${what}`)
  }

  // --------------------------------------------------------------------------------------------------------- store

  #storage(): ICircuitStorage {
    const inner = this.#inner
    const read = <T>(circuits: number, apply: () => Promise<T>): Promise<T> => {
      this.reads++
      this.circuitsRead += circuits
      return this.#send(apply)
    }
    const write = (key: string, apply: () => Promise<WriteResult>): Promise<WriteResult> => {
      this.writes++
      return this.#send(async () => {
        const result = await apply()
        if (result.applied && result.current !== undefined) this.#written(key, result.current)
        return result
      })
    }
    return {
      shared: true,
      getState: (key) => read(1, () => inner.getState(key)),
      batchGetState: (keys) => read(keys.length, () => inner.batchGetState(keys)),
      addOutcomes: (key, version, outcomes) => write(key, () => inner.addOutcomes(key, version, outcomes)),
      compareAndSetState: (key, version, next) => write(key, () => inner.compareAndSetState(key, version, next)),
      batchSetState: (writes) => this.#send(() => inner.batchSetState(writes)),
      clearState: (key) => this.#send(() => inner.clearState(key)),
      batchClearState: (keys) => this.#send(() => inner.batchClearState(keys)),
    }
  }

  #send<T>(apply: () => Promise<T>): Promise<T> {
    const { world } = this
    return new Promise((resolve, reject) => {
      world.after(world.latency(wayToStore), () => {
        apply().then(
          (reply) => world.after(world.latency(wayToStore), () => resolve(reply)),
          (error) => world.after(world.latency(wayToStore), () => reject(error)),
        )
      })
    })
  }

  #written(key: string, record: CircuitRecord): void {
    this.records.set(key, record)
    const live = record.leases.filter(({ expiresAt }) => expiresAt > this.world.now)
    if (live.length > 1) this.#violate(`${key} has ${live.length} leases (1)`)
  }
}

export function nameOf(key: number): string {
  return `host-${key}`
}

/** The figures of a fleet whose keys die. */
export interface KeyedFigures {
  /** Calls that reached a dead key. */
  readonly reached: number
  /** From the death until the last call that reached it, while the death lasted, other than by a probe. */
  readonly refusedOthers: number
  readonly calls: number
  readonly openings: { readonly keys: number; readonly service: number }
  /** Circuits with a record. */
  readonly records: number
  /** From the recovery until the last refusal, in milliseconds. */
  readonly toService: number
  /** Requests a second: at rest, and while keys were dead. */
  readonly rest: { readonly reads: number; readonly circuits: number; readonly writes: number }
  readonly outage: { readonly reads: number; readonly circuits: number; readonly writes: number }
  readonly violations: readonly string[]
}

export interface KeyedTimes {
  readonly rest: number
  readonly outage: number
  readonly recovery: number
}

/** A fleet at rest loses some keys and gets them back. Must run where `inMacrotask` runs it. */
export function measureKeys(
  options: KeyedFleetOptions,
  dies: (key: number) => boolean,
  { rest, outage, recovery }: KeyedTimes,
): KeyedFigures {
  const fleet = new KeyedFleet(options)
  const { world } = fleet
  const count = () => ({ reads: fleet.reads, circuits: fleet.circuitsRead, writes: fleet.writes })
  const perSecond = (before: ReturnType<typeof count>, duration: number) => {
    const now = count()
    const of = (kind: keyof typeof now) => ((now[kind] - before[kind]) * 1_000) / duration
    return { reads: of('reads'), circuits: of('circuits'), writes: of('writes') }
  }
  world.run(rest / 2)
  const middle = count()
  world.run(rest / 2)
  const atRest = perSecond(middle, rest / 2)
  if (fleet.writes > 0) fleet.violations.push('something was written while nothing failed (10)')

  const atDeath = count()
  const callsBefore = fleet.calls
  fleet.isDead = dies
  world.run(outage)
  const inOutage = perSecond(atDeath, outage)
  const calls = fleet.calls - callsBefore
  const { reachedDead, refusedOthers } = fleet
  fleet.isDead = () => false
  const recoveredAt = world.elapsed
  fleet.lastRefusedAt = undefined
  world.run(recovery)

  const opened = fleet.events.filter(({ from, to }) => from === 'CLOSED' && to === 'OPEN')
  for (const { key } of opened) {
    const number = Number(key?.slice(nameOf(0).length - 1))
    if (key !== undefined && key !== '(shared)' && !dies(number)) {
      fleet.violations.push(`the circuit of ${key} opened, which has always worked`)
    }
  }
  return {
    reached: reachedDead,
    refusedOthers,
    calls,
    openings: {
      keys: new Set(opened.flatMap(({ key }) => key ?? [])).size,
      service: opened.filter(({ key }) => key === undefined).length,
    },
    records: fleet.records.size,
    toService: (fleet.lastRefusedAt ?? recoveredAt) - recoveredAt,
    rest: atRest,
    outage: inOutage,
    violations: fleet.violations,
  }
}

/** What a fleet whose keys all work asks of its store. Must run where `inMacrotask` runs it. */
export function measureKeysAtRest(
  options: KeyedFleetOptions,
  warmUp: number,
  duration: number,
): { readonly calls: number; readonly reads: number; readonly circuits: number; readonly writes: number } {
  const fleet = new KeyedFleet(options)
  fleet.world.run(warmUp)
  const { calls, reads, circuitsRead } = fleet
  fleet.world.run(duration)
  if (fleet.violations.length > 0) throw new Error(fleet.violations.join('\n'))
  return {
    calls: fleet.calls - calls,
    reads: fleet.reads - reads,
    circuits: fleet.circuitsRead - circuitsRead,
    writes: fleet.writes,
  }
}
