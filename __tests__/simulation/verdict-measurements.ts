import { Fleet, type FleetOptions } from './fleet-measurements.ts'
import type { ServiceCondition } from './service.ts'

/** The measurements of the fleet's verdict: who opens the circuit, how soon, and at what price. Times are milliseconds. */

/** An instance that starts has read, and has been called a few times, before anything happens. */
const rest = 20_000

function failing(errorRate: number, affects?: (instance: number) => boolean): ServiceCondition {
  return { errorRate, latency: 50, failureLatency: 10, ...(affects && { affects }) }
}

/** A fleet that has been well for a while. */
function restedFleet(options: FleetOptions, time: number = rest): Fleet {
  const fleet = new Fleet(options)
  fleet.warmUp(time)
  return fleet
}

export interface BadInstance {
  /** The part of the healthy instances' calls that is refused. */
  readonly refused: number
  /** When the circuit opened, from the beginning of the trouble. */
  readonly openings: readonly number[]
}

/** One instance fails every call, the service is well for the others. */
export function measureBadInstance(options: FleetOptions, time: number): BadInstance {
  const fleet = restedFleet(options)
  const startedAt = fleet.world.elapsed
  fleet.service.condition = failing(1, (index) => index === 0)
  fleet.calls.length = 0
  fleet.refused.length = 0
  fleet.world.run(time)
  const sum = (counts: readonly number[]) => counts.slice(1).reduce((total, one) => total + (one ?? 0), 0)
  return {
    refused: sum(fleet.refused) / sum(fleet.calls),
    openings: fleet.openings.map((at) => at - startedAt),
  }
}

export interface Noise {
  readonly time: number
  readonly trips: number
  readonly idealTrips: number
  /** How often a window of one instance's own calls would have opened. */
  readonly windowTrips: number
  /** In a second: on average, and in the busiest. */
  readonly writes: number
  readonly peakWrites: number
}

/** The service works, but for an error rate. */
export function measureNoise(options: FleetOptions, time: number): Noise {
  const fleet = restedFleet(options)
  const startedAt = fleet.world.elapsed
  fleet.world.run(time)
  const loads = (fleet.store.loads ?? []).slice(startedAt / 1_000)
  const writes = loads.map((load) => load?.writes ?? 0)
  return {
    time,
    trips: fleet.opened,
    idealTrips: fleet.ideal.trips,
    windowTrips: fleet.windows.openings,
    writes: (1_000 * writes.reduce((sum, one) => sum + (one ?? 0), 0)) / time,
    peakWrites: Math.max(0, ...writes.map((one) => one ?? 0)),
  }
}

/** All instances start within a second, with nothing stored: whether the circuit opens falsely. */
export function measureColdBurst(
  options: FleetOptions,
  time: number,
): { readonly opens: boolean; readonly ideal: boolean } {
  const fleet = new Fleet({ ...options, startsWithin: 1_000 })
  fleet.stopsWhenOpened = true
  fleet.world.run(time)
  return { opens: fleet.opened > 0, ideal: fleet.ideal.trips > 0 }
}

export interface Outage {
  /** From the beginning of the outage until the circuit was stored as open; `undefined`: it did not open in time. */
  readonly toOpen: number | undefined
  /** The failed calls until then. */
  readonly failures: number
}

/** The service begins to fail, after a time with some errors. */
export function measureOutageAfter(
  options: FleetOptions,
  { noise, noiseTime, rate, patience = 60_000 }: { noise: number; noiseTime: number; rate: number; patience?: number },
): Outage {
  const fleet = restedFleet({ ...options, errorRate: noise })
  fleet.world.run(noiseTime)
  const startedAt = fleet.world.elapsed
  const { failures } = fleet
  fleet.service.condition = failing(rate)
  fleet.openedAt = undefined
  fleet.stopsWhenOpened = true
  fleet.world.run(patience)
  return {
    toOpen: fleet.openedAt === undefined ? undefined : fleet.openedAt - startedAt,
    failures: fleet.failures - failures,
  }
}

/** The same without a circuit: when half of the instances' own windows would have opened, and the failed calls until then. */
export function measureWindows(options: FleetOptions, rate: number): Outage {
  const fleet = restedFleet({ ...options, circuit: 'none' }, 110_000 / options.rate)
  const startedAt = fleet.world.elapsed
  fleet.windows.openedAt.length = 0
  const { failures } = fleet
  fleet.service.condition = failing(rate)
  const step = 100
  for (let time = step; time <= 300_000; time += step) {
    fleet.world.run(step)
    const opened = fleet.windows.openedAt.filter((at) => at > startedAt).length
    if (2 * opened >= options.instances) return { toOpen: time, failures: fleet.failures - failures }
  }
  return { toOpen: undefined, failures: fleet.failures - failures }
}

/** Warm instances are called in turn, one a second, when the service dies: the failed calls until the circuit opens. */
export function measureInTurn(seed: number, failureThreshold: number, instances = 20): number | undefined {
  const fleet = new Fleet({ instances, rate: 0, seed, settings: { failureThreshold } })
  const callInTurn = (calls: number): void => {
    for (let call = 0; call < calls; call++) fleet.world.after(1_000 * call, () => fleet.invoke(call % instances))
  }
  callInTurn(2 * instances)
  fleet.world.run(2_000 * instances)
  fleet.service.condition = failing(1)
  fleet.stopsWhenOpened = true
  const { failures } = fleet
  callInTurn(2 * instances)
  fleet.world.run(2_000 * instances)
  return fleet.openedAt === undefined ? undefined : fleet.failures - failures
}

/** Warm instances fail once each, at once; then a new instance is called: after how long the circuit is open. */
export function measureAtOnce(
  seed: number,
  instances = 100,
): { readonly toOpen: number | undefined; readonly isRefused: boolean } {
  const fleet = new Fleet({ instances: instances + 1, rate: 0, seed })
  for (let index = 0; index < instances; index++) fleet.world.after(index, () => fleet.invoke(index))
  fleet.world.run(10_000)
  fleet.service.condition = failing(1)
  for (let index = 0; index < instances; index++) fleet.invoke(index)
  fleet.world.after(1_500, () => fleet.invoke(instances))
  fleet.world.run(10_000)
  return {
    toOpen: fleet.openedAt === undefined ? undefined : fleet.openedAt - 10_000,
    isRefused: fleet.refused[instances] === 1,
  }
}

/** Cold instances are called one after another, every call fails: the failed calls until the circuit opens, and its events. */
export function measureColdOnes(
  seed: number,
  pause: number,
  instances = 3,
): { readonly failures: number; readonly openings: number } {
  const fleet = new Fleet({ instances, rate: 0, seed })
  fleet.service.condition = failing(1)
  for (let index = 0; index < instances; index++) fleet.world.after(pause * index, () => fleet.invoke(index))
  fleet.world.after(pause * instances + 1_000, () => fleet.invoke(0))
  fleet.world.run(pause * instances + 2_000)
  return { failures: fleet.failuresUntilOpen ?? fleet.failures, openings: fleet.openings.length }
}

export interface Tail {
  /** From the first success after the outage until the last refusal; 0 if there was none. */
  readonly tail: number
  readonly probes: number
  readonly peakReads: number
  readonly throttledReads: number
}

/** The service recovers: how long the fleet goes on refusing after the first success. One item's limits hold. */
export function measureTail(options: FleetOptions, outage: number): Tail {
  const fleet = restedFleet({ ...options, isLimited: true })
  fleet.breakDown()
  fleet.world.run(outage)
  const recoveredAt = fleet.world.elapsed
  fleet.recover()
  const heard = fleet.callEnded
  let succeededAt: number | undefined
  fleet.callEnded = (call) => {
    if (call.outcome === 'success') succeededAt ??= fleet.world.elapsed
    heard(call)
  }
  fleet.world.run(40_000)
  const seconds = (time: number) => 1_000 * Math.floor(time / 1_000)
  return {
    tail: Math.max(0, (fleet.lastRefusedAt ?? 0) - (succeededAt ?? recoveredAt)),
    probes: fleet.probes,
    peakReads: fleet.peak(seconds(recoveredAt - outage), seconds(fleet.world.elapsed)).reads,
    throttledReads: fleet.throttled().reads,
  }
}
