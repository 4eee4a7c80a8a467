/**
 * Half a store, for ten minutes: it can be read and not written, or the other way round; it is slow, stale or throttled.
 *
 * Each cell is a fleet of the real engine under a virtual clock, invoked once a second as Middy does it (load, calls, flush).
 * Beside it runs *the own breaker*: one instance with a store in its memory, with the same settings and the same calls. An
 * instance whose store is broken need not know more than that one, so it must not do much worse.
 *
 * @module
 */

import {
  type CircuitRecord,
  CircuitStorageError,
  type ICircuitStorage,
  type StorageErrorKind,
} from '../../src/index.ts'
import type { CircuitBreakerOptions } from '../../src/settings/table.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { type Engine, engine as source } from '../simulation/engine.ts'
import { Instance, type Plan, service } from '../simulation/instance.ts'
import { inMacrotask } from '../simulation/microtasks.ts'
import type { CallRecord, Observer } from '../simulation/observer.ts'
import { type Answer, SimulatedService } from '../simulation/service.ts'
import { SimulatedStore } from '../simulation/store.ts'
import { World, worldStart } from '../simulation/world.ts'

// ------------------------------------------------------------------------------------------------------- the matrix

/**
 * `fail`: refused at once as unavailable. `slow`: carried out, and answered after `storageTimeout`. `stale`: the record of
 * some seconds ago. `throttled`: nine of ten are refused as too many. `refused`: the store refuses writes as nothing that
 * passes by itself (no permission). `reply lost`: carried out, and never answered.
 */
export const readFaults = ['fine', 'fail', 'slow', 'stale', 'throttled'] as const
/** A write is never stale: where reads are stale, writes may be refused for good instead. */
export const writeFaults = ['fine', 'fail', 'refused', 'slow', 'throttled', 'reply lost'] as const
/** `alternating`: a minute dead, four minutes well, and the same again. */
export const services = ['dead', 'healthy', 'alternating'] as const

export type ReadFault = (typeof readFaults)[number]
export type WriteFault = (typeof writeFaults)[number]
export type ServiceKind = (typeof services)[number]

/** The record at first, and the instances of the fleet. */
export interface Start {
  readonly name: string
  readonly stored: 'nothing' | 'CLOSED' | 'OPEN'
  readonly instances: number
  /** How many of them have the broken store; the others have one that is well. */
  readonly cutOff: number
}

export const starts: readonly Start[] = [
  { name: 'nothing stored', stored: 'nothing', instances: 1, cutOff: 1 },
  { name: 'CLOSED', stored: 'CLOSED', instances: 1, cutOff: 1 },
  { name: 'OPEN and due', stored: 'OPEN', instances: 1, cutOff: 1 },
  { name: 'OPEN and due, a fleet of three', stored: 'OPEN', instances: 3, cutOff: 3 },
  { name: 'OPEN and due, two others whose store is well', stored: 'OPEN', instances: 3, cutOff: 1 },
]

/** One cell. Times are milliseconds. */
export interface Cell {
  readonly reads: ReadFault
  readonly writes: WriteFault
  readonly service: ServiceKind
  readonly cacheTtl: number
  readonly resetTimeout: number
  /** How many calls each invocation makes at once. */
  readonly calls: number
  readonly start: Start
}

export const cacheTtls = [0, 1_000, 5_000] as const
export const resetTimeouts = [2_000, 10_000, 60_000] as const
export const callsAtOnce = [1, 10] as const

/** All cells, in the order of the page. */
export const cells: readonly Cell[] = starts.flatMap((start) =>
  readFaults.flatMap((reads) =>
    writeFaults.flatMap((writes) =>
      services.flatMap((kind) =>
        cacheTtls.flatMap((cacheTtl) =>
          resetTimeouts.flatMap((resetTimeout) =>
            callsAtOnce.map((calls) => ({ reads, writes, service: kind, cacheTtl, resetTimeout, calls, start })),
          ),
        ),
      ),
    ),
  ),
)

/** A part of the cells for every test run: the worst that was ever found, and a sample that is always the same. */
export const slice: readonly Cell[] = cells.filter((cell) => {
  const { reads, writes, service: kind, cacheTtl, resetTimeout, calls, start } = cell
  if (start.stored === 'OPEN' && start.instances === 1 && reads === 'fine' && writes === 'refused') {
    if (kind === 'dead' && calls === 1) return true
    if (kind === 'healthy' && calls === 10) return resetTimeout === 10_000
  }
  if (reads === 'slow' && writes === 'fine' && kind === 'dead' && cacheTtl === 1_000) return start.instances === 3
  return numberOf(cellTitle(cell)) % 100 === 0
})

/** A number that a text determines. */
function numberOf(text: string): number {
  let number = 0
  for (const character of text) number = (31 * number + character.charCodeAt(0)) % 1_000_003
  return number
}

/** A cell in a line. */
export function cellTitle({ reads, writes, service: kind, cacheTtl, resetTimeout, calls, start }: Cell): string {
  const [ttl, reset] = [cacheTtl / 1_000, resetTimeout / 1_000]
  return `half a store: reads ${reads}, writes ${writes}, ${kind}, cacheTtl ${ttl} s, resetTimeout ${reset} s, ${calls} at once, ${start.name}`
}

// ------------------------------------------------------------------------------------------------------- its figures

/** The figures of one instance of a cell, beside its own breaker. */
export interface Figures {
  /** Calls that reached the dead service. */
  readonly reached: number
  readonly ownReached: number
  /** Calls of the service while it was well, in the time in which it is judged … */
  readonly judged: number
  /** … and those of them that were refused. */
  readonly refused: number
  readonly ownRefused: number
}

export interface Result {
  readonly cell: Cell
  /** Of each instance. */
  readonly figures: readonly Figures[]
  readonly problems: readonly string[]
}

const second = 1_000
const tenMinutes = 600 * second
/** A healthy service is judged after that. */
const settledAfter = 60 * second
const [deadFor, wellFor] = [60 * second, 240 * second]
const storageTimeout = 500
const interval = second

/** Whether the service is dead, at a time since the start. */
function isDead(kind: ServiceKind, at: number): boolean {
  return kind === 'dead' || (kind === 'alternating' && at % (deadFor + wellFor) < deadFor)
}

/** The longest that a circuit may still be open when the service is back: the backoff goes on while it is dead. */
function longestReset(resetTimeout: number): number {
  let longest = 0
  // A stored record begins with one trip.
  for (const trips of [0, 1]) {
    let reset = resetTimeout * 2 ** trips
    for (let opened = 0.9 * reset; opened < deadFor; opened += 0.9 * reset) reset *= 2
    longest = Math.max(longest, 1.1 * reset)
  }
  return longest
}

/** Whether a call that began then is judged. */
function isJudged({ service: kind, resetTimeout, cacheTtl }: Cell, at: number): boolean {
  if (kind === 'dead') return false
  if (kind === 'healthy') return at >= settledAfter
  // Those that lose their claim look again after a `cacheTtl`; claims are spread over a second.
  const settled = deadFor + longestReset(resetTimeout) + 2 * cacheTtl + 3 * second
  return at % (deadFor + wellFor) >= settled
}

class Tally implements Observer {
  readonly #cell: Cell
  readonly #world: World
  readonly reached: number[] = []
  readonly judged: number[] = []
  readonly refused: number[] = []
  readonly #pending = new Set<Instance>()
  /** The records that were stored, with the time at which they were. */
  readonly #history: { readonly at: number; readonly record: CircuitRecord | undefined }[] = []
  readonly #plan: Plan

  constructor(cell: Cell, world: World) {
    this.#cell = cell
    this.#world = world
    this.#plan = { calls: cell.calls, atOnce: true, timeout: false, deadline: 15 * second }
  }

  /** Invokes it now, or when it has ended what it does. */
  invoke(instance: Instance): void {
    if (instance.isBusy) this.#pending.add(instance)
    else instance.invoke(this.#plan)
  }

  invocationEnded(instance: Instance): void {
    if (this.#pending.delete(instance)) this.#world.after(0, () => this.invoke(instance))
  }

  operationStarted({ instance }: CallRecord): void {
    if (isDead(this.#cell.service, this.#world.elapsed)) add(this.reached, instance.index)
  }

  callEnded({ instance, startedAt, outcome }: CallRecord): void {
    if (!isJudged(this.#cell, startedAt - worldStart)) return
    add(this.judged, instance.index)
    if (outcome === undefined) add(this.refused, instance.index)
  }

  written(_before: CircuitRecord | undefined, record: CircuitRecord | undefined): void {
    // The first one was there long before.
    const isFirst = this.#history.length === 0 && this.#cell.start.stored !== 'nothing'
    this.#history.push({ at: isFirst ? Number.NEGATIVE_INFINITY : this.#world.now, record })
  }

  /** The record that was stored then. */
  storedAt(at: number): CircuitRecord | undefined {
    return this.#history.findLast((entry) => entry.at <= at)?.record
  }
}

function add(counts: number[], index: number): void {
  counts[index] = (counts[index] ?? 0) + 1
}

/** It answers in the same time whenever it is asked, and says nothing of when to come back. */
class SteadyService extends SimulatedService {
  readonly #kind: ServiceKind
  readonly #steadyWorld: World

  constructor(world: World, kind: ServiceKind) {
    super(world)
    this.#kind = kind
    this.#steadyWorld = world
  }

  override ask(): Answer {
    this.calls++
    return isDead(this.#kind, this.#steadyWorld.elapsed)
      ? { kind: 'unavailable', after: 10 }
      : { kind: 'ok', after: 50 }
  }
}

// ---------------------------------------------------------------------------------------------------- half a store

/** Whether a request that is throttled passes all the same. */
const passes = 0.1
/** A slow answer takes so long, in milliseconds: longer than `storageTimeout`, and once in a while longer than a pause. */
const slowness = [900, 1_500] as const
/** A stale record is so old, in milliseconds. */
const staleness = [1_000, 3_000] as const

class HalfStore extends SimulatedStore {
  readonly #world: World
  readonly #cell: Cell
  readonly #tally: Tally

  constructor(world: World, engine: Engine, tally: Tally, cell: Cell) {
    super(world, engine, tally)
    this.#world = world
    this.#cell = cell
    this.#tally = tally
  }

  override storageFor(instance: Instance, isOperators = false): ICircuitStorage {
    const whole = super.storageFor(instance, isOperators)
    if (isOperators || instance.index >= this.#cell.start.cutOff) return whole
    const { reads, writes } = this.#cell
    const read = <T>(operation: 'getState' | 'batchGetState', through: () => Promise<T>, stale: () => T) =>
      reads === 'stale'
        ? this.#later(instance, 4, async () => stale())
        : this.#suffer(instance, operation, reads, through)
    const storedBefore = () => this.#tally.storedAt(this.#world.now - this.#world.between(...staleness))
    return {
      ...whole,
      getState: (key) => read('getState', () => whole.getState(key), storedBefore),
      batchGetState: (keys) =>
        read(
          'batchGetState',
          () => whole.batchGetState(keys),
          () => {
            const record = storedBefore()
            return new Map(record === undefined ? [] : [[keys[0] as string, record]])
          },
        ),
      addOutcomes: (key, version, outcomes) =>
        this.#suffer(instance, 'addOutcomes', writes, () => whole.addOutcomes(key, version, outcomes)),
      compareAndSetState: (key, version, next) =>
        this.#suffer(instance, 'compareAndSetState', writes, () => whole.compareAndSetState(key, version, next)),
    }
  }

  #suffer<T>(
    instance: Instance,
    operation: CircuitStorageError['operation'],
    fault: Exclude<ReadFault | WriteFault, 'stale'>,
    through: () => Promise<T>,
  ): Promise<T> {
    const fail = (kind: StorageErrorKind): Promise<T> =>
      this.#later(instance, 4, () => Promise.reject(new CircuitStorageError(`It is ${fault}.`, { operation, kind })))
    switch (fault) {
      case 'fine':
        return through()
      case 'fail':
        return fail('unavailable')
      case 'refused':
        return fail('misconfigured')
      case 'throttled':
        return this.#world.chance(passes) ? through() : fail('throttled')
      case 'slow': {
        const half = this.#world.between(...slowness) / 2
        return this.#later(undefined, half, through).then((reply) => this.#later(instance, half, async () => reply))
      }
      case 'reply lost':
        return through().then(() => new Promise<never>(() => {}))
    }
  }

  /** A request on its way lives on its own; an answer reaches only who is there. */
  #later<T>(instance: Instance | undefined, delay: number, happen: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const arrive = (): void => void happen().then(resolve, reject)
      if (instance === undefined) this.#world.after(delay, arrive)
      else instance.deliver(delay, arrive)
    })
  }
}

// --------------------------------------------------------------------------------------------------------- one cell

export interface RunOptions {
  readonly engine?: Engine
  readonly settings?: Partial<CircuitBreakerOptions>
  /** In milliseconds; default: ten minutes. */
  readonly duration?: number
  /** Is told what happens. */
  readonly trace?: (line: string) => void
}

/** Lets a cell live for ten minutes, and judges it. */
export function runCell(cell: Cell, options: RunOptions = {}): Promise<Result> {
  return inMacrotask(() => {
    const { start } = cell
    const own = ownTally(cell, options)
    const tally = live(cell, options)
    const figures = Array.from({ length: start.instances }, (_, index) => ({
      reached: tally.reached[index] ?? 0,
      ownReached: own.reached[0] ?? 0,
      judged: tally.judged[index] ?? 0,
      refused: tally.refused[index] ?? 0,
      ownRefused: own.refused[0] ?? 0,
    }))
    return { cell, figures, problems: figures.flatMap((one) => judge(one)) }
  })
}

/** The most calls that may reach a dead service. */
export function mostReached(ownReached: number): number {
  return 2 * ownReached + 10
}

function judge({ reached, ownReached, judged, refused, ownRefused }: Figures): string[] {
  const problems: string[] = []
  if (reached > mostReached(ownReached)) {
    problems.push(`${reached} calls reached the dead service; its own breaker lets ${ownReached} through`)
  }
  if (refused > ownRefused + judged / 100) {
    problems.push(
      `${refused} of ${judged} calls of a healthy service were refused; its own breaker refuses ${ownRefused}`,
    )
  }
  return problems
}

function settingsOf({ cacheTtl, resetTimeout }: Cell, { settings }: RunOptions): Partial<CircuitBreakerOptions> {
  return { cacheTtl, resetTimeout, storageTimeout, ...settings }
}

/** The fleet of the cell. */
function live(cell: Cell, options: RunOptions): Tally {
  const { engine = source, trace } = options
  const world = new World(1)
  const tally = new Tally(cell, world)
  if (trace !== undefined) {
    world.trace = (at, who, what) => trace(`${((at - worldStart) / 1_000).toFixed(3)} s ${who}: ${what}`)
  }
  const store = new HalfStore(world, engine, tally, cell)
  const steady = new SteadyService(world, cell.service)
  const surroundings = [world, engine, store, steady, tally] as const
  const record = recordOf(cell)
  if (record !== undefined) {
    const operator = new Instance(99, ...surroundings, { settings: settingsOf(cell, options), isOperators: true })
    void store.storageFor(operator, true).compareAndSetState(service, undefined, record)
  }
  for (let index = 0; index < cell.start.instances; index++) {
    const instance = new Instance(index, ...surroundings, { settings: settingsOf(cell, options), freezesBetween: true })
    invokeEverySecond(world, tally, instance)
  }
  world.run(options.duration ?? tenMinutes)
  return tally
}

/** The results of own breakers, by all that makes a difference to them. Many cells have the same. */
const ownTallies = new Map<string, Tally>()

function ownTally(cell: Cell, options: RunOptions): Tally {
  const { service: kind, cacheTtl, resetTimeout, calls, start } = cell
  const key = JSON.stringify([kind, cacheTtl, resetTimeout, calls, start.stored, options.settings, options.duration])
  const tally = ownTallies.get(key) ?? liveAlone(cell, options)
  ownTallies.set(key, tally)
  return tally
}

/** The same calls with a breaker that shares nothing. It has seen the same record. */
function liveAlone(cell: Cell, options: RunOptions): Tally {
  const { engine = source } = options
  const world = new World(1)
  const tally = new Tally(cell, world)
  const storage = new engine.MemoryCircuitStorage()
  const record = recordOf(cell)
  if (record !== undefined) void storage.compareAndSetState(service, undefined, record)
  const instance = new Instance(
    0,
    world,
    engine,
    new SimulatedStore(world, engine, tally),
    new SteadyService(world, cell.service),
    tally,
    { settings: { ...settingsOf(cell, options), storage }, freezesBetween: true },
  )
  invokeEverySecond(world, tally, instance)
  world.run(options.duration ?? tenMinutes)
  return tally
}

/** At the same time for all instances, which is the worst for the store. */
function invokeEverySecond(world: World, tally: Tally, instance: Instance): void {
  const next = (): void => {
    tally.invoke(instance)
    world.after(interval, next)
  }
  world.after(100, next)
}

function recordOf({ start, resetTimeout }: Cell): CircuitRecord | undefined {
  if (start.stored === 'nothing') return undefined
  const openedAt = worldStart - resetTimeout
  const empty = { ...emptyRecord('epoch-0', openedAt), version: 'version-0' }
  if (start.stored === 'CLOSED') return empty
  const opened = { failureCount: 3, lastFailureAt: openedAt, openedAt, retryAt: worldStart, resetTimeout, trips: 1 }
  return { ...empty, generation: 1, state: 'OPEN', transitions: ['epoch-0'], ...opened }
}
