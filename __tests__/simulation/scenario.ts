import type { Plan } from './instance.ts'
import type { ServiceCondition } from './service.ts'
import type { StoreCondition } from './store.ts'
import type { World } from './world.ts'

/** Which kinds of trouble a run has. */
export interface Troubles {
  /** Other than that the service fails, which it does in every storm. */
  readonly slowStore: boolean
  readonly lostRequests: boolean
  readonly throttling: boolean
  readonly partitions: boolean
  readonly storeOutages: boolean
  readonly deletions: boolean
  readonly kills: boolean
  readonly freezes: boolean
  readonly skewedClocks: boolean
  readonly steppingClocks: boolean
  readonly operators: boolean
}

export const troubleNames = [
  'slowStore',
  'lostRequests',
  'throttling',
  'partitions',
  'storeOutages',
  'deletions',
  'kills',
  'freezes',
  'skewedClocks',
  'steppingClocks',
  'operators',
] as const satisfies readonly (keyof Troubles)[]

/**
 * What a record is left with by a clock that is an hour wrong is looked at before each claim, and no look is answered in
 * time. Where a record is deleted, writes without an answer may count once more, and here no write has one.
 */
const tooMuchForLateStores: ReadonlySet<string> = new Set(['steppingClocks', 'deletions'])

/** The settings of a run; milliseconds. */
export interface SimulatedSettings {
  readonly failureThreshold: number
  readonly failureRateThreshold: number
  readonly resetTimeout: number
  readonly resetBackoff: number
  readonly maxResetTimeout: number
  readonly halfOpenSuccessThreshold: number
  readonly halfOpenMaxConcurrent: number
  readonly cacheTtl: number
  readonly window: number
  readonly maxConcurrent: number
  readonly storageTimeout: number
  readonly deadlineReserve: number
}

/**
 * What a run is made of. A `storm` is troubles of all kinds with calm in between; `late`: the same, and for the whole run the
 * store carries out every request and replies to none in time; `healthy`: nothing ever fails; `lone`: one instance, cut off
 * from the store, sees nothing but failures while the service is well for everyone else; `bad`: the same of one that
 * reaches the store.
 */
export interface Scenario {
  readonly kind: 'storm' | 'late' | 'healthy' | 'lone' | 'bad'
  readonly instances: number
  /** The mean distance of an instance's invocations, in milliseconds. */
  readonly interval: number
  readonly settings: SimulatedSettings
  readonly troubles: Troubles
  /** How long a storm lasts, in milliseconds … */
  readonly stormFor: number
  /** … and how many there are. */
  readonly storms: number
  readonly freezesBetween: boolean
}

/** Draws a scenario: about every fifth run has no trouble but the service's own and deaths. */
export function drawScenario(world: World): Scenario {
  const chance = world.random()
  const kind =
    chance < 0.05 ? 'healthy' : chance < 0.12 ? 'lone' : chance < 0.18 ? 'late' : chance < 0.3 ? 'bad' : 'storm'
  const isStormy = kind === 'storm' || kind === 'late'
  const isPlain = !isStormy || world.chance(0.2)
  const resetTimeout = world.pick(kind === 'bad' ? [500, 500, 1_000, 5_000] : [500, 1_000, 2_000, 5_000, 10_000])
  const settings: SimulatedSettings = {
    failureThreshold: kind === 'bad' ? world.pick([2, 3, 3, 5, 5]) : world.pick([1, 2, 3, 3, 3, 5]),
    failureRateThreshold: kind === 'bad' ? 50 : world.pick([50, 50, 50, 20, 80, 100]),
    resetTimeout,
    resetBackoff: world.pick([1, 2, 2, 3]),
    maxResetTimeout: Math.max(resetTimeout, 20_000),
    halfOpenSuccessThreshold: world.pick([1, 1, 2, 3]),
    halfOpenMaxConcurrent: world.pick([1, 1, 1, 2, 3]),
    cacheTtl: kind === 'bad' ? world.pick([2_000, 5_000]) : world.pick([0, 500, 2_000, 5_000]),
    window: world.pick([10_000, 60_000, 60_000]),
    maxConcurrent: world.pick([1, 3, 10]),
    storageTimeout: world.pick([100, 250, 500]),
    deadlineReserve: world.pick([200, 1_000]),
  }
  const troubles = Object.fromEntries(
    troubleNames.map((name) => {
      const isWanted = world.chance(0.4) && (!isPlain || (isStormy && name === 'kills'))
      if (kind === 'late' && tooMuchForLateStores.has(name)) return [name, false]
      return [name, isWanted || (kind === 'healthy' && name === 'freezes')]
    }),
  ) as unknown as Troubles
  return {
    kind,
    instances: kind === 'lone' || kind === 'bad' ? world.pick([3, 5, 8]) : world.pick([1, 2, 3, 3, 5, 8, 12]),
    interval: kind === 'bad' ? world.pick([100, 300]) : world.pick([100, 300, 1_000, 2_000]),
    settings,
    troubles,
    stormFor: world.between(20_000, 60_000),
    storms: world.whole(1, 2),
    freezesBetween: world.chance(0.5),
  }
}

const weathers = [
  'healthy',
  'noise',
  'noise',
  'partial outage',
  'bad instance',
  'rejections',
  'brown-out',
  'outage',
  'outage',
  'slow outage',
  'silence',
  'overload',
] as const

/**
 * Draws how the service does during a storm.
 *
 * @param fleet the indexes of the instances
 */
export function drawService(world: World, fleet: readonly number[]): ServiceCondition {
  const latency = world.pick([5, 50, 300])
  const rejectionRate = world.pick([0, 0, 0.1])
  switch (world.pick(weathers)) {
    case 'noise':
      return { errorRate: world.pick([0.01, 0.02, 0.05, 0.1, 0.2]), rejectionRate, latency }
    case 'partial outage':
      return { errorRate: 0.6, rejectionRate, latency }
    case 'bad instance': {
      const bad = world.pick(fleet)
      return { errorRate: world.pick([1, 1, 0.6]), latency, affects: (index) => index === bad }
    }
    case 'rejections':
      return { errorRate: world.pick([0, 0.05]), rejectionRate: 1, latency }
    case 'brown-out':
      return { errorRate: world.pick([0.3, 0.6]), rejectionRate, latency: 1_500, silenceRate: 0.1 }
    case 'outage':
      return { errorRate: 1, latency: 10 }
    case 'slow outage':
      return { errorRate: 1, latency: 2_500 }
    case 'silence':
      return { errorRate: 0, silenceRate: 1, latency }
    case 'overload':
      return { errorRate: 0, latency, capacity: world.whole(1, 10) }
    default:
      return { errorRate: 0, rejectionRate, latency }
  }
}

/** Draws how the way to the store does during a storm. */
export function drawStore(world: World, troubles: Troubles, storageTimeout: number): StoreCondition {
  const isSlow = troubles.slowStore && world.chance(0.5)
  const loss = troubles.lostRequests ? world.pick([0, 0.02, 0.2]) : 0
  const outage = troubles.storeOutages && world.chance(0.3) ? world.pick(['refuse', 'silence'] as const) : undefined
  return {
    request: isSlow ? world.pick([20, storageTimeout / 2]) : 2,
    reply: isSlow ? world.pick([20, storageTimeout / 2]) : 2,
    spread: isSlow ? 1 : 0.4,
    lostRequests: loss / 2,
    lostReplies: loss,
    refused: loss / 2,
    falseErrors: loss / 2,
    throttled: troubles.throttling ? world.pick([0, 0.3, 0.9]) : 0,
    ...(outage && { outage }),
  }
}

/** Draws how a store is late: the way there takes long, or the way back, and no reply comes within `storageTimeout`. */
export function drawLateStore(world: World, storageTimeout: number): StoreCondition {
  const request = world.pick([2, storageTimeout / 2, 3 * storageTimeout])
  const reply = world.pick([2, storageTimeout, 3 * storageTimeout])
  return { request, reply, spread: 0.4, replyAfter: storageTimeout + 1 }
}

/** Draws what an invocation does. */
export function drawPlan(world: World, settings: SimulatedSettings): Plan {
  const calls = world.pick([1, 1, 1, 2, 3])
  const timeout = world.pick([false, 200, 1_000, 5_000] as const)
  return {
    calls,
    atOnce: calls > 1 && world.chance(0.5),
    timeout,
    abortAfter: world.chance(0.05) ? world.between(0, 500) : undefined,
    deadline: settings.deadlineReserve + world.pick([1_000, 3_000, 10_000]),
    forgets: world.chance(0.03),
  }
}
