import type { CircuitBreakerOptions } from '../../src/settings/table.ts'
import { engine } from './engine.ts'
import { Instance, type Plan } from './instance.ts'
import type { CallRecord } from './observer.ts'
import { healthy, type ServiceCondition, SimulatedService } from './service.ts'
import { hotKeyLimit, quiet, SimulatedStore } from './store.ts'
import { World } from './world.ts'

/** A fleet whose figures are taken. Times are milliseconds. */
export interface FleetOptions {
  readonly instances: number
  /** The calls of each instance in a second, at Poisson times. */
  readonly rate: number
  readonly seed: number
  /** What differs from the defaults. */
  readonly settings?: Partial<CircuitBreakerOptions>
  /** One circuit for the fleet (the default), one for each instance, or none at all. */
  readonly circuit?: 'shared' | 'own' | 'none'
  /** Clocks are ahead or behind by up to this. */
  readonly skew?: number
  /** The store throttles like one item of a DynamoDB table. */
  readonly isLimited?: boolean
  /** The probability that a call of a working service fails. */
  readonly errorRate?: number
  /**
   * Every instance has its first call at some time within this. Default: the longer of `cacheTtl` and the mean pause
   * between its calls, so that the fleet reads as evenly as one that has long been running.
   */
  readonly startsWithin?: number
}

/** The service fails at once: it is down, not slow. */
const down: ServiceCondition = { errorRate: 1, latency: healthy.latency, failureLatency: 10 }
const plan: Plan = { calls: 1, atOnce: false, timeout: false, deadline: 3_000 }
/** Where every instance has a circuit of its own, it is kept in the process: no network. */
const inProcess = { request: 0, reply: 0 }

/** One counter that sees the outcome of every call of the fleet, in the order in which they end. */
class IdealCounter {
  trips = 0
  firstTripAt: number | undefined
  #streak = 0
  readonly #threshold: number

  constructor(threshold: number) {
    this.#threshold = threshold
  }

  count(isFailure: boolean, at: number): void {
    this.#streak = isFailure ? this.#streak + 1 : 0
    if (this.#streak < this.#threshold) return
    this.#streak = 0
    this.trips++
    this.firstTripAt ??= at
  }
}

/** For each instance a window of its own last calls, as many breakers have it: opens at half of them failed. */
class RateWindows {
  openings = 0
  /** When each instance first refused, by index. */
  readonly openedAt: number[] = []
  readonly #windows: boolean[][] = []

  count(index: number, isFailure: boolean, at: number): void {
    this.#windows[index] ??= []
    const calls = this.#windows[index] as boolean[]
    calls.push(isFailure)
    if (calls.length > windowSize) calls.shift()
    if (calls.length < leastCalls || calls.filter(Boolean).length * 2 < calls.length) return
    this.openings++
    this.openedAt[index] ??= at
    calls.length = 0
  }
}

const windowSize = 100
/** A window says nothing before it has so many calls. */
const leastCalls = 10

/** The most requests in a second. */
export interface Peak {
  readonly reads: number
  readonly writes: number
}

/** A fleet of the real engine, with its traffic. */
export class Fleet {
  readonly world: World
  readonly service: SimulatedService
  readonly store: SimulatedStore
  readonly ideal: IdealCounter
  readonly windows = new RateWindows()
  /** Calls that the service failed. */
  failures = 0
  /** Calls that reached the service while it was down: as probes, and otherwise. */
  probes = 0
  reached = 0
  opened = 0
  isDown = false
  firstFailureAt: number | undefined
  openedAt: number | undefined
  failuresUntilOpen: number | undefined
  lastReachedAt: number | undefined
  closedAt: number | undefined
  lastRefusedAt: number | undefined
  /** By instance. */
  readonly calls: number[] = []
  readonly refused: number[] = []
  /** When the fleet's circuit opened. */
  readonly openings: number[] = []
  readonly instances: Instance[] = []
  stopsWhenOpened = false
  readonly #options: FleetOptions
  /** How many invocations wait for their instance, which does one at a time. */
  readonly #waiting: number[] = []

  constructor(options: FleetOptions) {
    this.#options = options
    const { seed, errorRate = 0, isLimited = false, settings = {} } = options
    const world = new World(seed)
    this.world = world
    this.ideal = new IdealCounter(settings.failureThreshold ?? 3)
    this.service = new SimulatedService(world)
    this.service.condition = { ...down, errorRate }
    this.store = new SimulatedStore(world, engine, this, { countsLoad: true })
    if (isLimited) this.store.limit = hotKeyLimit
    this.#populate()
  }

  warmUp(duration: number): void {
    this.service.condition = healthy
    this.world.run(duration)
    this.recover()
  }

  breakDown(): void {
    this.service.condition = down
    this.isDown = true
  }

  recover(): void {
    this.service.condition = { ...down, errorRate: this.#options.errorRate ?? 0 }
    this.isDown = false
    this.closedAt = undefined
    this.lastRefusedAt = undefined
  }

  /** The busiest seconds of a time, which begins and ends with a whole second. */
  peak(from: number, until: number): Peak {
    const loads = this.store.loads?.slice(from / 1_000, until / 1_000) ?? []
    const most = (kind: keyof Peak) => loads.reduce((highest, load) => Math.max(highest, load?.[kind] ?? 0), 0)
    return { reads: most('reads'), writes: most('writes') }
  }

  throttled(): Peak {
    const loads = this.store.loads ?? []
    const sum = (kind: 'throttledReads' | 'throttledWrites') =>
      loads.reduce((total, load) => total + (load?.[kind] ?? 0), 0)
    return { reads: sum('throttledReads'), writes: sum('throttledWrites') }
  }

  // ------------------------------------------------------------------------------------------- what it is told of

  operationStarted = (call: CallRecord): void => {
    if (!this.isDown) return
    if (call.shownState === 'HALF_OPEN') this.probes++
    else {
      this.reached++
      this.lastReachedAt = this.world.elapsed
    }
  }

  callEnded = (call: CallRecord): void => {
    const { elapsed } = this.world
    const { index } = call.instance
    this.calls[index] = (this.calls[index] ?? 0) + 1
    if (call.outcome === undefined) {
      this.refused[index] = (this.refused[index] ?? 0) + 1
      this.lastRefusedAt = elapsed
      return
    }
    const isFailure = call.outcome === 'failure'
    if (isFailure) {
      this.failures++
      if (this.isDown) this.firstFailureAt ??= elapsed
    }
    this.ideal.count(isFailure, elapsed)
    this.windows.count(index, isFailure, elapsed)
  }

  written = (before: { readonly state: string } | undefined, after: { readonly state: string } | undefined): void => {
    if (before?.state === after?.state) return
    if (after?.state === 'OPEN' && (before?.state ?? 'CLOSED') === 'CLOSED') {
      this.opened++
      this.openings.push(this.world.elapsed)
      this.openedAt ??= this.world.elapsed
      this.failuresUntilOpen ??= this.failures
      if (this.stopsWhenOpened) this.world.stop()
    }
    if (after?.state === 'CLOSED') this.closedAt ??= this.world.elapsed
  }

  invocationEnded = (instance: Instance): void => {
    const { index } = instance
    if ((this.#waiting[index] as number) === 0) return
    this.#waiting[index] = (this.#waiting[index] as number) - 1
    this.world.after(0, () => this.#invoke(instance))
  }

  // -------------------------------------------------------------------------------------------------- its traffic

  #populate(): void {
    const { instances, rate, settings = {}, circuit = 'shared', skew = 0 } = this.#options
    const { world } = this
    const interval = 1_000 / rate
    const { startsWithin = Math.max(settings.cacheTtl ?? 5_000, interval) } = this.#options
    for (let index = 0; index < instances; index++) {
      const store = circuit === 'own' ? new SimulatedStore(world, engine, this) : this.store
      store.condition = circuit === 'own' ? inProcess : quiet
      const instance = new Instance(index, world, engine, store, this.service, this, {
        settings: circuit === 'none' ? { ...settings, mode: 'off' } : settings,
        clockOffset: skew === 0 ? 0 : world.between(-skew, skew),
        freezesBetween: true,
      })
      this.#waiting[index] = 0
      this.instances.push(instance)
      if (rate === 0) continue
      const come = (): void => {
        this.#invoke(instance)
        world.after(world.exponential(interval), come)
      }
      world.after(world.between(0, startsWithin), come)
    }
  }

  /** One invocation of an instance, beside its traffic. */
  invoke(index: number): void {
    this.#invoke(this.instances[index] as Instance)
  }

  #invoke(instance: Instance): void {
    if (instance.isBusy) this.#waiting[instance.index] = (this.#waiting[instance.index] as number) + 1
    else instance.invoke(plan)
  }
}

// ---------------------------------------------------------------------------------------------------------- outages

/** How long a fleet is watched, in milliseconds; whole seconds. */
export interface OutageTimes {
  readonly rest: number
  readonly outage: number
  readonly recovery: number
}

export interface OutageFigures {
  /** Calls that reached the dead service other than as a probe. */
  readonly reached: number
  readonly probes: number
  /** From the first failed call until the circuit was stored as open … */
  readonly toOpen: number | undefined
  /** … and the failed calls until then. */
  readonly failuresUntilOpen: number | undefined
  /** From the first failed call until the last that reached the service other than as a probe. */
  readonly toProtection: number
  /** From the recovery of the service until the circuit was stored as closed … */
  readonly toClosed: number | undefined
  /** … and until the last call was refused. */
  readonly toService: number
  readonly rest: Peak
  /** The first two seconds of the outage. */
  readonly onset: Peak
  /** The rest of it. */
  readonly outage: Peak
  readonly recovery: Peak
  readonly throttled: Peak
}

/** A fleet at rest loses the service and gets it back. Must run where `inMacrotask` runs it. */
export function measureOutage(options: FleetOptions, { rest, outage, recovery }: OutageTimes): OutageFigures {
  const fleet = new Fleet(options)
  const { world } = fleet
  world.run(rest)
  fleet.breakDown()
  world.run(outage)
  const recoveredAt = rest + outage
  fleet.recover()
  world.run(recovery)
  const { firstFailureAt = rest, openedAt, lastReachedAt = firstFailureAt, closedAt, lastRefusedAt } = fleet
  return {
    reached: fleet.reached,
    probes: fleet.probes,
    toOpen: openedAt === undefined ? undefined : openedAt - firstFailureAt,
    failuresUntilOpen: fleet.failuresUntilOpen,
    toProtection: Math.max(0, lastReachedAt - firstFailureAt),
    toClosed: closedAt === undefined ? undefined : closedAt - recoveredAt,
    toService: (lastRefusedAt ?? recoveredAt) - recoveredAt,
    rest: fleet.peak(rest / 2, rest),
    onset: fleet.peak(rest, rest + 2_000),
    outage: fleet.peak(rest + 2_000, recoveredAt),
    recovery: fleet.peak(recoveredAt, recoveredAt + recovery),
    throttled: fleet.throttled(),
  }
}

/** How long after the first failure of a real outage the circuit is stored as open, and how many calls fail until then. */
export function measureOpening(
  options: FleetOptions,
  rest: number,
): { readonly toOpen: number; readonly failures: number } {
  const fleet = new Fleet(options)
  fleet.world.run(rest)
  fleet.breakDown()
  fleet.stopsWhenOpened = true
  fleet.world.run(120_000)
  const { openedAt, firstFailureAt, failuresUntilOpen } = fleet
  if (openedAt === undefined || firstFailureAt === undefined || failuresUntilOpen === undefined) {
    throw new Error(`The circuit of ${options.instances} instances did not open in 120 s of an outage.`)
  }
  return { toOpen: openedAt - firstFailureAt, failures: failuresUntilOpen }
}

// ------------------------------------------------------------------------------------------------------ false trips

export interface TripFigures {
  /** How long the fleet was watched, in milliseconds. */
  readonly duration: number
  readonly trips: number
  readonly idealTrips: number
  readonly firstTripAt: number | undefined
  readonly idealFirstTripAt: number | undefined
  readonly peak: Peak
}

export interface TripOptions {
  /** Only up to the first trip. */
  readonly isOnce?: boolean
  /** The service has no errors for so long before the fleet is watched, so that instances have seen successes. */
  readonly warmUp?: number
}

/** Watches a fleet whose service works, but for its `errorRate`. Times count from the end of the warm-up. */
export function measureTrips(
  options: FleetOptions,
  duration: number,
  { isOnce = false, warmUp = 0 }: TripOptions = {},
): TripFigures {
  const fleet = new Fleet(options)
  if (warmUp > 0) fleet.warmUp(warmUp)
  fleet.stopsWhenOpened = isOnce
  fleet.world.run(duration)
  const since = (at: number | undefined) => (at === undefined ? undefined : at - warmUp)
  return {
    duration: fleet.world.elapsed - warmUp,
    trips: fleet.opened,
    idealTrips: fleet.ideal.trips,
    firstTripAt: since(fleet.openedAt),
    idealFirstTripAt: since(fleet.ideal.firstTripAt),
    peak: fleet.peak(warmUp, warmUp + duration),
  }
}

/**
 * How many calls one counter sees on average until `threshold` in a row have failed, each with `errorRate`:
 * (1 − pᵏ) / (pᵏ (1 − p)). https://en.wikipedia.org/wiki/Geometric_distribution gives k = 1; the rest follows by
 * waiting for one more failure after k − 1.
 */
export function meanCallsToStreak(errorRate: number, threshold: number): number {
  const power = errorRate ** threshold
  return (1 - power) / (power * (1 - errorRate))
}
