/**
 * Measures fleets in the simulator and writes `docs/fleet.md` with its charts: `npm run fleet-curves`. The same code
 * and seeds give the same files, byte for byte. `-- --quick --out <directory>`: a small run, written elsewhere.
 * `-- --figures <file>` keeps what was measured in a file, and where there is one measures nothing: to work on the page.
 *
 * @module
 */

import { existsSync, readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Chart, drawChart, type Line, powersOfTen } from '../__tests__/simulation/fleet-chart.ts'
import {
  type FleetOptions,
  meanCallsToStreak,
  measureOpening,
  measureOutage,
  measureTrips,
  type OutageFigures,
  type OutageTimes,
  type Peak,
  type TripFigures,
} from '../__tests__/simulation/fleet-measurements.ts'
import { inMacrotask } from '../__tests__/simulation/microtasks.ts'
import { hotKeyLimit } from '../__tests__/simulation/store.ts'

const {
  quick,
  out = fileURLToPath(new URL('../docs', import.meta.url)),
  figures,
} = parseArgs({
  options: { quick: { type: 'boolean', default: false }, out: { type: 'string' }, figures: { type: 'string' } },
}).values

const fleets = quick ? [1, 10, 100] : [1, 10, 100, 1_000, 10_000]
const largest = fleets.at(-1) as number
/** A fleet that asks too much of one item. */
const overload = 2 * largest
const times: OutageTimes = quick
  ? { rest: 20_000, outage: 20_000, recovery: 20_000 }
  : { rest: 20_000, outage: 60_000, recovery: 20_000 }
const outageSeconds = times.outage / 1_000
/** The fleet whose settings are varied. */
const middle = quick ? 50 : 1_000
const day = 86_400

/** Long enough for nearly every instance to have seen a success: after it has started, six mean pauses of its calls. */
function warmUpOf(rate: number): number {
  return 5_000 + 6_000 / rate
}

/** Large fleets average by themselves: fewer seeds. */
function seedsOf(instances: number): number {
  if (quick || instances >= 10_000) return 1
  return instances >= 1_000 ? 3 : 7
}

// ------------------------------------------------------------------------------------------------------ measurements

interface FleetOutage {
  readonly instances: number
  readonly seeds: number
  readonly shared: OutageFigures
  readonly own: OutageFigures
  readonly none: OutageFigures
}

function measureOutages(): FleetOutage[] {
  return fleets.map((instances) => {
    const seeds = seedsOf(instances)
    const measure = (circuit: 'shared' | 'own' | 'none') =>
      medianOutage(seeds, (seed) => measureOutage({ instances, rate: 1, seed, circuit }, times))
    const row = { instances, seeds, shared: measure('shared'), own: measure('own'), none: measure('none') }
    progress(`outage of ${instances} instances`)
    return row
  })
}

interface FalseTrip {
  readonly instances: number
  readonly rate: number
  readonly errorRate: number
  /** In milliseconds. */
  readonly horizon: number
  readonly seeds: number
  /** DESIGN 4.1: held back, ideal. */
  readonly designed: readonly [string, string]
}

const falseTripCases: readonly FalseTrip[] = [
  { instances: 10, rate: 10, errorRate: 0.01, horizon: 600_000, seeds: 7, designed: ['never in 600 s', '10 000 s'] },
  {
    instances: 1_000,
    rate: 10,
    errorRate: 0.001,
    horizon: 100_000,
    seeds: 3,
    designed: ['never in 100 s', '100 000 s'],
  },
  { instances: 1_000, rate: 10, errorRate: 0.01, horizon: 100_000, seeds: 7, designed: ['42 s', '101 s'] },
  {
    instances: 5_000,
    rate: 0.2,
    errorRate: 0.01,
    horizon: 600_000,
    seeds: 3,
    designed: ['never in 600 s', '1 000 s'],
  },
]

interface FalseTripRow extends FalseTrip {
  readonly ours: readonly TripFigures[]
}

function measureFalseTrips(): FalseTripRow[] {
  const cases = quick
    ? falseTripCases.slice(0, 1).map((one) => ({ ...one, horizon: 60_000, seeds: 2 }))
    : falseTripCases
  return cases.map((one) => {
    const { instances, rate, errorRate, horizon, seeds } = one
    const ours = range(seeds).map((seed) =>
      measureTrips({ instances, rate, errorRate, seed }, horizon, { isOnce: true, warmUp: warmUpOf(rate) }),
    )
    progress(`false trips of ${instances} × ${rate} at ${percent(errorRate)}`)
    return { ...one, ours }
  })
}

const openings: readonly { readonly instances: number; readonly rate: number; readonly designed: string }[] = [
  { instances: 3, rate: 1, designed: '1.4 s, 4 calls' },
  { instances: 1_000, rate: 1, designed: '71 ms, 80 calls' },
  { instances: 1_000, rate: 10, designed: '5 ms, 48 calls' },
  { instances: 5_000, rate: 0.2, designed: '123 ms, 140 calls' },
]

interface OpeningRow {
  readonly instances: number
  readonly rate: number
  readonly designed: string
  readonly toOpen: number
  readonly failures: number
}

function measureOpenings(): OpeningRow[] {
  return (quick ? openings.slice(0, 1) : openings).map((one) => {
    const { instances, rate } = one
    const runs = range(quick ? 2 : 7).map((seed) => measureOpening({ instances, rate, seed }, warmUpOf(rate)))
    progress(`opening of ${instances} × ${rate}`)
    return {
      ...one,
      toOpen: median(runs.map(({ toOpen }) => toOpen)),
      failures: median(runs.map(({ failures }) => failures)),
    }
  })
}

const errorRates = [0.0001, 0.001, 0.005, 0.01, 0.02, 0.05]
const tripFleets = quick ? [1, 10] : [1, 10, 100, 1_000]

interface DailyTrips {
  readonly instances: number
  readonly errorRate: number
  readonly run: TripFigures
  /** What one counter would do by the formula, per day. */
  readonly expected: number
}

function measureDailyTrips(): DailyTrips[] {
  const invocations = quick ? 5_000 : 200_000
  return tripFleets.flatMap((instances) => {
    const cells = errorRates.map((errorRate) => {
      const run = measureTrips({ instances, rate: 1, errorRate, seed: 1 }, (1_000 * invocations) / instances, {
        warmUp: warmUpOf(1),
      })
      // It is open for 10 s after each trip, as ours is.
      return { instances, errorRate, run, expected: day / (meanCallsToStreak(errorRate, 3) / instances + 10) }
    })
    progress(`false trips of ${instances} instances`)
    return cells
  })
}

interface ColdStart {
  readonly instances: number
  readonly within: number
  readonly horizon: number
  readonly healthy: TripFigures
  readonly seeds: number
  readonly opened: number
  readonly idealOpened: number
}

function measureColdStarts(): ColdStart[] {
  const bursts = [1_000, 10_000].flatMap((instances) => [1_000, 100_000].map((within) => ({ instances, within })))
  return (quick ? [{ instances: 100, within: 1_000 }] : bursts).map(({ instances, within }) => {
    const horizon = Math.max(10_000, within)
    const options = { instances, rate: 1, startsWithin: within }
    const healthy = measureTrips({ ...options, seed: 1 }, horizon)
    const seeds = quick ? 2 : 10
    const runs = range(seeds).map((seed) =>
      measureTrips({ ...options, seed, errorRate: 0.01 }, horizon, { isOnce: true }),
    )
    progress(`cold start of ${instances} within ${within} ms`)
    return {
      instances,
      within,
      horizon,
      healthy,
      seeds,
      opened: runs.filter(({ trips }) => trips > 0).length,
      idealOpened: runs.filter(({ idealTrips }) => idealTrips > 0).length,
    }
  })
}

function measureSettings() {
  const base: Omit<FleetOptions, 'settings'> = { instances: middle, rate: 1, seed: 1 }
  const cacheTtls = [0, 1_000, 5_000, 30_000].map((cacheTtl) => ({
    cacheTtl,
    figures: measureOutage({ ...base, settings: { cacheTtl } }, { ...times, rest: 40_000, recovery: 45_000 }),
  }))
  progress('cacheTtl')
  const thresholds = [1, 2, 3, 5, 10].map((failureThreshold) => ({
    failureThreshold,
    figures: measureOutage({ ...base, settings: { failureThreshold } }, { ...times, outage: 30_000 }),
    trips: measureTrips({ ...base, settings: { failureThreshold }, errorRate: 0.01 }, quick ? 10_000 : 100_000, {
      warmUp: warmUpOf(1),
    }),
  }))
  progress('failureThreshold')
  const skews = [0, 1_000, 10_000, 30_000].map((skew) => ({
    skew,
    figures: measureOutage({ ...base, skew }, { ...times, recovery: 80_000 }),
  }))
  progress('clock skew')
  return { cacheTtls, thresholds, skews }
}

const phases = ['rest', 'onset', 'outage', 'recovery'] as const
type Phase = (typeof phases)[number]

interface HotKey {
  readonly rate: number
  /** The largest fleet of the ladder that keeps within the limit, and the next one, which does not. */
  readonly sizes: Readonly<Record<Phase, { readonly holds: number | undefined; readonly fails: number | undefined }>>
}

const ladder = [
  250, 320, 400, 500, 630, 800, 1_000, 1_250, 1_600, 2_000, 2_500, 3_200, 4_000, 5_000, 6_300, 8_000, 10_000, 12_500,
  16_000, 20_000, 25_000, 32_000, 40_000, 50_000,
]
/** More calls a second than this take too long to simulate. */
const mostCalls = quick ? 400 : 12_500

function measureHotKey(): HotKey[] {
  return (quick ? [1] : [0.2, 1, 10]).map((rate) => {
    const sizes = ladder.filter((size) => size * rate <= mostCalls)
    const runs = new Map<number, OutageFigures>()
    const figures = (instances: number): OutageFigures => {
      const known = runs.get(instances)
      if (known !== undefined) return known
      // A rarely called instance takes longer to have been called at all.
      const rest = rate < 1 ? 24_000 : 12_000
      const run = measureOutage({ instances, rate, seed: 1 }, { rest, outage: 14_000, recovery: 14_000 })
      runs.set(instances, run)
      progress(`hot key, ${instances} × ${rate}`)
      return run
    }
    const largestOf = (phase: Phase) => {
      let low = -1
      let high = sizes.length
      while (high - low > 1) {
        const tried = (low + high) >> 1
        if (isWithinLimit(figures(sizes[tried] as number)[phase])) low = tried
        else high = tried
      }
      return { holds: sizes[low], fails: sizes[high] }
    }
    return {
      rate,
      sizes: {
        rest: largestOf('rest'),
        onset: largestOf('onset'),
        outage: largestOf('outage'),
        recovery: largestOf('recovery'),
      },
    }
  })
}

const measureAll = () => ({
  outages: measureOutages(),
  overloaded: measureOutage({ instances: overload, rate: 1, seed: 1 }, times),
  limited: measureOutage({ instances: overload, rate: 1, seed: 1, isLimited: true }, times),
  falseTrips: measureFalseTrips(),
  openings: measureOpenings(),
  daily: measureDailyTrips(),
  coldStarts: measureColdStarts(),
  settings: measureSettings(),
  hotKey: measureHotKey(),
})

const measured: ReturnType<typeof measureAll> =
  figures !== undefined && existsSync(figures)
    ? JSON.parse(readFileSync(figures, 'utf8'))
    : await inMacrotask(measureAll)
if (figures !== undefined) await writeFile(figures, JSON.stringify(measured))
await mkdir(join(out, 'fleet'), { recursive: true })
await writeFile(join(out, 'fleet.md'), page(measured))
for (const [name, chart] of Object.entries(charts(measured))) {
  await writeFile(join(out, 'fleet', `${name}.svg`), drawChart(chart))
}

// ------------------------------------------------------------------------------------------------------------ charts

function charts({ outages, daily }: ReturnType<typeof measureAll>): Record<string, Chart> {
  const instances = {
    label: 'instances, each called once a second',
    isLogarithmic: true,
    ticks: powersOfTen(0, Math.log10(largest), count),
  }
  const line = (
    name: string,
    colour: number,
    value: (row: FleetOutage) => number | undefined,
    isDashed = false,
  ): Line => ({
    name,
    colour,
    isDashed,
    points: outages.map((row) => [row.instances, value(row)]),
  })
  const limit = (name: string, colour: number, value: number): Line => ({
    name,
    colour,
    isLimit: true,
    points: [
      [1, value],
      [largest, value],
    ],
  })
  const seconds = (value: number | undefined) => (value === undefined ? undefined : value / 1_000)
  return {
    calls: {
      title: `Calls that reach a dead service in ${outageSeconds} s`,
      x: instances,
      y: { label: 'calls', isLogarithmic: true, ticks: powersOfTen(0, 6, count) },
      lines: [
        line('one circuit for the fleet', 0, ({ shared }) => shared.reached + shared.probes),
        line('a circuit in each instance', 1, ({ own }) => own.reached + own.probes),
        line('no circuit', 2, ({ none }) => none.reached),
      ],
    },
    protection: {
      title: 'How long until the whole fleet knows',
      x: instances,
      y: { label: 'seconds', isLogarithmic: true, ticks: powersOfTen(-2, 2, String) },
      lines: [
        line('failure to stored as open', 0, ({ shared }) => seconds(shared.toOpen)),
        line('failure to whole fleet protected', 0, ({ shared }) => seconds(shared.toProtection), true),
        line('recovery to stored as closed', 1, ({ shared }) => seconds(shared.toClosed)),
        line('recovery to whole fleet served', 1, ({ shared }) => seconds(shared.toService), true),
        line('protected, a circuit in each', 3, ({ own }) => seconds(own.toProtection), true),
        line('served, a circuit in each', 2, ({ own }) => seconds(own.toService), true),
      ],
    },
    load: {
      title: 'Requests to the store in the busiest second',
      x: instances,
      y: { label: 'requests per second', isLogarithmic: true, ticks: powersOfTen(0, 4, count) },
      lines: [
        line('reads at rest', 0, ({ shared }) => shared.rest.reads),
        line('reads in the outage', 2, ({ shared }) => Math.max(shared.onset.reads, shared.outage.reads)),
        line('reads after the recovery', 3, ({ shared }) => shared.recovery.reads),
        line('writes at the onset', 1, ({ shared }) => shared.onset.writes),
        limit('limit of reads', 4, hotKeyLimit.reads),
        limit('limit of writes', 1, hotKeyLimit.writes),
      ],
    },
    'false-trips': {
      title: 'False trips a day of a service with errors',
      x: {
        label: 'error rate of the service',
        isLogarithmic: true,
        ticks: powersOfTen(-4, -1, percent),
      },
      y: { label: 'trips a day', isLogarithmic: true, ticks: powersOfTen(-3, 4, (value) => String(value)) },
      lines: tripFleets
        .filter((size) => size !== 10 || quick)
        .flatMap((size, colour) => {
          const cells = daily.filter((cell) => cell.instances === size)
          return [
            {
              name: `${plural(size, 'instance')}, measured`,
              colour,
              points: cells.map(({ errorRate, run }): [number, number] => [errorRate, perDay(run.trips, run.duration)]),
            },
            {
              name: `${plural(size, 'instance')}, ideal counter`,
              colour,
              isDashed: true,
              points: cells.map(({ errorRate, expected }): [number, number | undefined] => [
                errorRate,
                expected < 0.001 ? undefined : expected,
              ]),
            },
          ]
        }),
    },
  }
}

// -------------------------------------------------------------------------------------------------------------- page

function page({
  outages,
  limited,
  overloaded,
  falseTrips,
  openings,
  daily,
  coldStarts,
  settings,
  hotKey,
}: ReturnType<typeof measureAll>): string {
  const last = outages.at(-1) as FleetOutage
  const of = (phase: Phase, { shared }: FleetOutage) => `${count(shared[phase].reads)} / ${count(shared[phase].writes)}`
  return `<!-- made by npm run fleet-curves; do not edit -->

# Fleets of 1 to ${count(largest)} instances

Every figure here comes from the simulator in \`__tests__/simulation\`: the real engine and middleware, with a virtual
clock in place of the real one. The same seed gives the same figures.

Unless a table says otherwise: default settings (\`failureThreshold\` 3, \`resetTimeout\` 10 s, \`cacheTtl\` 5 s); each
instance is called once a second at random (Poisson) times, does one invocation at a time and is frozen in between; one
call per invocation; Lambda's timeout is 3 s. The service answers in about 50 ms and fails in about 10 ms. The way to the
store and the way back take about 2 ms each. Latencies vary log-normally (σ = 0.4). Clocks agree.
A fleet starts over one \`cacheTtl\`, so that its reads are spread as those of a fleet that has been running for long.
Medians over the seeds 1, 2, 3, …: 7 seeds up to 100 instances, 3 at 1 000, 1 at 10 000.

## An outage of ${outageSeconds} s

The fleet is at rest for ${times.rest / 1_000} s, then every call fails for ${outageSeconds} s, then the service is well again.

![Calls that reach a dead service](fleet/calls.svg)

Calls that reached the dead service, and in brackets how many more did as probes:

${table(
  ['instances', 'one circuit for the fleet', 'a circuit in each instance', 'no circuit'],
  outages.map(({ instances, shared, own, none }) => [
    count(instances),
    `${count(shared.reached)} (+ ${count(shared.probes)})`,
    `${count(own.reached)} (+ ${count(own.probes)})`,
    count(none.reached),
  ]),
)}

"A circuit in each instance" is the same engine with a store of its own in each process. It needs \`failureThreshold\`
failures in every instance, and probes from every instance. With a shared circuit an instance learns of the outage when it
next reads the record, at most one \`cacheTtl\` later, or as soon as it reports failures of its own: its second in a row.

![Time to protection and to service](fleet/protection.svg)

${table(
  [
    'instances',
    'first failure → stored as open',
    '→ whole fleet protected',
    'the same, circuit in each',
    'recovery → stored as closed',
    '→ whole fleet served',
    'the same, circuit in each',
  ],
  outages.map(({ instances, shared, own }) => [
    count(instances),
    duration(shared.toOpen),
    duration(shared.toProtection),
    duration(own.toProtection),
    duration(shared.toClosed),
    duration(shared.toService),
    duration(own.toService),
  ]),
)}

Protected: the last call has reached the service other than as a probe. Served: the last call has been refused. The times to open in a small
fleet are those of its calls: three have to fail. How long the circuit takes to close depends on when in its 10 s of
waiting the service recovers.
From then on it takes up to one \`cacheTtl\` and one pause between calls until every instance knows.

## Load on the store

![Requests in the busiest second](fleet/load.svg)

Reads / writes in the busiest second. One DynamoDB item serves ${count(hotKeyLimit.reads)} reads and ${count(hotKeyLimit.writes)} writes a second; here it is not throttled.
At rest: the last ${times.rest / 2_000} s before the outage. Onset: its first 2 s. Recovery: the ${times.recovery / 1_000} s after it.
Strongly consistent reads of an item up to 4 KB count one each.

${table(
  ['instances', ...phases],
  outages.map((row) => [count(row.instances), ...phases.map((phase) => of(phase, row))]),
)}

${limitVerdict(last)}

With the limit in force, at ${count(overload)} instances (seed 1):

${table(
  ['', 'not throttled', 'throttled'],
  [
    [
      'requests refused: reads / writes',
      '0 / 0',
      `${count(limited.throttled.reads)} / ${count(limited.throttled.writes)}`,
    ],
    ['calls that reached the dead service', count(overloaded.reached), count(limited.reached)],
    ['probes', count(overloaded.probes), count(limited.probes)],
    ['first failure → stored as open', duration(overloaded.toOpen), duration(limited.toOpen)],
    ['first failure → whole fleet protected', duration(overloaded.toProtection), duration(limited.toProtection)],
    ['recovery → stored as closed', duration(overloaded.toClosed), duration(limited.toClosed)],
    ['recovery → whole fleet served', duration(overloaded.toService), duration(limited.toService)],
    ...phases.map((phase) => [
      `${phase}: reads / writes sent in the busiest second`,
      `${count(overloaded[phase].reads)} / ${count(overloaded[phase].writes)}`,
      `${count(limited[phase].reads)} / ${count(limited[phase].writes)}`,
    ]),
  ],
)}

${
  limited.probes > 2 * overloaded.probes
    ? `An instance whose claims the store throttles twice in a row takes the store for dead and probes alone. That is where
the ${count(limited.probes)} probes come from: no more than if every instance had a circuit of its own.`
    : 'Throttling does not multiply the probes.'
}

Who has more instances than one item can serve should read less: with a longer \`cacheTtl\`, or with
\`consistentRead: false\`, which costs half as much, or keep the state in Redis.

### Up to which fleet size the limit holds

Every phase was run at sizes of a ladder (${count(ladder[0] as number)} to ${count(ladder.at(-1) as number)}, about 25 % apart), up to ${count(mostCalls)} calls a second, seed 1: the
largest fleet of which no second exceeds the limit, and in brackets the next one, of which one does. "All" is the smallest.
Here the outage lasts 14 s, and 14 s after it are counted: one round of probes in each.

${table(
  ['calls a second of each instance', ...phases, 'all'],
  hotKey.map(({ rate, sizes }) => [
    String(rate),
    ...phases.map((phase) => holding(sizes[phase])),
    holding(
      phases
        .map((phase) => sizes[phase])
        .reduce((least, one) => ((one.fails ?? Infinity) < (least.fails ?? Infinity) ? one : least)),
    ),
  ]),
)}

## False trips

A working service fails a call now and then. The ideal counter is one counter that sees the outcome of every call in the
order in which they end. It was fed with the same calls in the same runs.
In k calls in a row all failing with probability p it trips after (1 − pᵏ) / (pᵏ (1 − p)) calls on average.

### The table of DESIGN 4.1

Time until the circuit opened falsely, median of the seeds, from a warm fleet: before, the service worked without an error
for 5 s and six times the mean pause between an instance's calls. (What a cold fleet does is a section of its own.) "Ideal, by the formula" is the mean; half of all runs end before 0.69 of it. –: did not open.

${table(
  [
    'fleet',
    'error rate',
    'seeds',
    'opens after',
    'each seed',
    'DESIGN 4.1',
    'ideal, same runs',
    'ideal, by the formula',
    'ideal in DESIGN 4.1',
  ],
  falseTrips.map(({ instances, rate, errorRate, horizon, seeds, ours, designed }) => {
    const first = ours.map(({ firstTripAt = Infinity }) => firstTripAt)
    const tripped = ours.filter(({ idealTrips }) => idealTrips > 0).length
    return [
      `${count(instances)} × ${rate}`,
      percent(errorRate),
      String(seeds),
      never(median(first), horizon),
      first.map((at) => (at === Infinity ? '–' : duration(at))).join(', '),
      designed[0],
      tripped === 0 ? `in none of ${seeds}` : `in ${tripped} of ${seeds}, before ours ended the run`,
      duration((1_000 * meanCallsToStreak(errorRate, 3)) / (instances * rate)),
      designed[1],
    ]
  }),
)}

A run ends at the first false trip, so the ideal counter had no longer than ours.

A real outage, from a fleet that is as warm, median of ${quick ? 2 : 7} seeds:

${table(
  ['fleet', 'first failure → stored as open', 'failed calls until then', 'DESIGN 4.1'],
  openings.map(({ instances, rate, toOpen, failures, designed }) => [
    `${count(instances)} × ${rate}`,
    duration(toOpen),
    count(failures),
    designed,
  ]),
)}

An ideal counter opens at the third failed call. Ours is later: an instance that has seen a success holds its first failure
back, so two calls in a row have to fail in one instance, and the count travels to the store. That is the price of the table above it.

The design's own figures came from another model with other latencies, and are medians of 7 exponentially distributed times: expect
differences of a factor of two from that alone. Here a call takes about 50 ms, a failure about 10 ms, an increment and the
trip after it about 4 ms each. Calls that were under way when the service died still succeed.
The busier the fleet, the more calls fail in those milliseconds: they are under way already.

### A day at other error rates

Each cell: one run, seed 1, from a warm fleet, ${quick ? '5 000' : '200 000'} calls (so ${tripFleets.map((size) => `${duration(((quick ? 5_000 : 200_000) * 1_000) / size)} of ${plural(size, 'instance')}`).join(', ')}).
First our false trips per day (in brackets how many were seen), then the ideal counter's in the same run, then by the formula λ' = 1 / (calls to a streak / calls a second + 10 s), because the
circuit is open for 10 s after each.

![False trips a day](fleet/false-trips.svg)

${table(
  ['instances', ...errorRates.map(percent)],
  tripFleets.map((size) => [
    count(size),
    ...daily
      .filter(({ instances }) => instances === size)
      .map(
        ({ run, expected }) =>
          `${trips(run.trips, run.duration)}; ideal ${trips(run.idealTrips, run.duration)}; formula ${rateText(expected)}`,
      ),
  ]),
)}

### Where ours is worse

${worseThanIdeal(daily, falseTrips)}

## Bursts of cold starts

All instances start within the given time, each with its first call, then one call a second.
A cold instance has no success to go by: it reports its first failure at once.

${table(
  [
    'instances',
    'start within',
    'reads in the busiest second',
    'writes of a healthy fleet',
    'opens falsely at 1 % errors',
    'ideal in the same runs',
    'watched for',
  ],
  coldStarts.map(({ instances, within, horizon, healthy, seeds, opened, idealOpened }) => [
    count(instances),
    duration(within),
    count(healthy.peak.reads),
    count(healthy.peak.writes),
    `${opened} of ${seeds} seeds`,
    `${idealOpened} of ${seeds}`,
    duration(horizon),
  ]),
)}

Lambda adds up to 1 000 environments per function every 10 s, so ${count(10_000)} start in no less than 90 s: the rows with 10 000 within
1 s are what several functions could do together; their first reads are more than one item serves in that second, and those that
are throttled do without until they have waited a moment. The longer a fleet is watched, the more of its false trips are those of the sections above.

## What settings change

${count(middle)} instances, seed 1.

${table(
  [
    '`cacheTtl`',
    'calls that reached the dead service',
    'first failure → whole fleet protected',
    'recovery → whole fleet served',
    'reads a second at rest',
  ],
  settings.cacheTtls.map(({ cacheTtl, figures }) => [
    duration(cacheTtl),
    count(figures.reached),
    duration(figures.toProtection),
    duration(figures.toService),
    count(figures.rest.reads),
  ]),
)}

${table(
  [
    '`failureThreshold`',
    'calls that reached the dead service',
    'first failure → stored as open',
    `false trips at 1 % in ${quick ? 10 : 100} s`,
    'ideal in the same run',
    'ideal, by the formula',
  ],
  settings.thresholds.map(({ failureThreshold, figures, trips: seen }) => [
    String(failureThreshold),
    count(figures.reached),
    duration(figures.toOpen),
    count(seen.trips),
    count(seen.idealTrips),
    rateText(seen.duration / 1_000 / (meanCallsToStreak(0.01, failureThreshold) / middle + 10)),
  ]),
)}

At a threshold of 1 nothing is held back, and the circuit is open most of the time. The ideal counter goes on counting while ours is
open or probes; in the formula it is open for 10 s after each trip. Here the outage lasts 30 s; in the other tables ${outageSeconds} s.

${table(
  [
    'clocks differ by up to',
    'probes in the outage',
    'calls that reached it otherwise',
    'recovery → stored as closed',
    '→ whole fleet served',
  ],
  settings.skews.map(({ skew, figures }) => [
    skew === 0 ? '0' : `± ${duration(skew)}`,
    count(figures.probes),
    count(figures.reached),
    duration(figures.toClosed),
    duration(figures.toService),
  ]),
)}

An instance whose clock is ahead finds \`retryAt\` passed sooner and probes sooner.
What it stores is ahead by as much for everyone else.
`
}

function limitVerdict({ instances, shared }: FleetOutage): string {
  const kinds = ['reads', 'writes'] as const
  const beyond = phases.flatMap((phase) =>
    kinds.flatMap((kind) => {
      const factor = shared[phase][kind] / hotKeyLimit[kind]
      return factor > 1
        ? [`${kind} (${phase}): ${count(shared[phase][kind])}, ${significant(factor)} times the limit`]
        : []
    }),
  )
  if (beyond.length === 0) return `At ${count(instances)} instances no second of any phase exceeds the limit.`
  return `At ${count(instances)} instances the limit is exceeded:\n\n${beyond.map((one) => `- ${one}`).join('\n')}`
}

function worseThanIdeal(daily: readonly DailyTrips[], falseTrips: readonly FalseTripRow[]): string {
  const often = daily.flatMap(({ instances, errorRate, run, expected }) => {
    const factor = perDay(run.trips, run.duration) / expected
    const isWorse = run.trips >= 3 && factor > 1.25
    return isWorse
      ? [
          `- ${plural(instances, 'instance')}, one call a second each, at ${percent(errorRate)}: ${significant(factor)} times as many trips a day (${run.trips} seen)`,
        ]
      : []
  })
  const early = falseTrips.flatMap(({ instances, rate, errorRate, ours }) => {
    // Over all seeds: the time that was watched for each trip.
    const seen = ours.reduce((sum, { trips }) => sum + trips, 0)
    const watched = ours.reduce((sum, run) => sum + run.duration, 0)
    const expected = (1_000 * meanCallsToStreak(errorRate, 3)) / (instances * rate)
    return seen >= 3 && watched / seen < expected / 1.25
      ? [
          `- ${plural(instances, 'instance')}, ${rate} calls a second each, at ${percent(errorRate)}: a trip every ${duration(watched / seen)} on average, where the formula says ${duration(expected)} (${seen} seen)`,
        ]
      : []
  })
  const worse = [...often, ...early]
  return `${
    worse.length === 0
      ? 'Nowhere above did ours trip a quarter more often than the formula says, where at least 3 trips were seen.'
      : `Ours trips at least a quarter more often than the formula says (where at least 3 trips were seen):\n\n${worse.join('\n')}`
  }

Why it can be worse: two failures in a row in one instance are reported, and count for two of three whatever the rest of
the fleet did in between. They stay counted until an instance that has learned of them sees a success and has written the
reset: about one call and two round trips. If a second pair of failures is reported in that time, the circuit opens. Pairs come λp² times a second, so the rate of
false trips grows with the square of λ, and the ideal counter's only with λ. So it is large, busy fleets with a high error
rate that trip too often; the slower the service, the more so. They want a higher \`failureThreshold\`.

Why it can be better: failures that follow each other in different instances are held back, and the ideal counter counts them.

`
}

// ----------------------------------------------------------------------------------------------------------- wording

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

function isWithinLimit({ reads, writes }: Peak): boolean {
  return reads <= hotKeyLimit.reads && writes <= hotKeyLimit.writes
}

function holding({ holds, fails }: { readonly holds: number | undefined; readonly fails: number | undefined }): string {
  if (fails === undefined) return `${count(holds ?? 0)} or more`
  return holds === undefined ? `below ${count(fails)}` : `${count(holds)} (not ${count(fails)})`
}

function count(value: number): string {
  return String(Math.round(value)).replaceAll(/\B(?=(\d{3})+$)/g, ' ')
}

function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`
}

/** With two significant digits, more where the number has more before the point. */
function significant(value: number): string {
  return value >= 100 ? count(Number(value.toPrecision(3))) : String(Number(value.toPrecision(2)))
}

function duration(ms: number | undefined): string {
  if (ms === undefined) return 'never'
  if (ms === 0) return '0'
  if (ms < 1_000) return `${significant(ms)} ms`
  const seconds = ms / 1_000
  if (seconds < 7_200) return `${significant(seconds)} s`
  return seconds < 100 * day ? `${significant(seconds / 3_600)} h` : `${significant(seconds / day)} days`
}

function never(ms: number, horizon: number): string {
  return ms === Infinity ? `never in ${duration(horizon)}` : duration(ms)
}

function percent(rate: number): string {
  return `${Number((rate * 100).toPrecision(3))} %`
}

function perDay(trips: number, ms: number): number {
  return (trips * day * 1_000) / ms
}

function trips(seen: number, ms: number): string {
  return seen === 0 ? `none in ${duration(ms)}` : `${rateText(perDay(seen, ms))} (${count(seen)})`
}

function rateText(value: number): string {
  return value < 0.001 ? '< 0.001' : significant(value)
}

// -------------------------------------------------------------------------------------------------------- arithmetic

function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index + 1)
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other)
  return sorted[Math.floor(sorted.length / 2)] as number
}

/** The median of each figure by itself. */
function medianOutage(seeds: number, measure: (seed: number) => OutageFigures): OutageFigures {
  const runs = range(seeds).map(measure)
  const number = (figure: (run: OutageFigures) => number) => median(runs.map(figure))
  const optional = (figure: (run: OutageFigures) => number | undefined) => {
    const middleOne = median(runs.map((run) => figure(run) ?? Infinity))
    return middleOne === Infinity ? undefined : middleOne
  }
  const peak = (phase: Phase | 'throttled') => ({
    reads: number((run) => run[phase].reads),
    writes: number((run) => run[phase].writes),
  })
  return {
    reached: number(({ reached }) => reached),
    probes: number(({ probes }) => probes),
    toOpen: optional(({ toOpen }) => toOpen),
    failuresUntilOpen: optional(({ failuresUntilOpen }) => failuresUntilOpen),
    toProtection: number(({ toProtection }) => toProtection),
    toClosed: optional(({ toClosed }) => toClosed),
    toService: number(({ toService }) => toService),
    rest: peak('rest'),
    onset: peak('onset'),
    outage: peak('outage'),
    recovery: peak('recovery'),
    throttled: peak('throttled'),
  }
}

function progress(what: string): void {
  process.stderr.write(`${(performance.now() / 1_000).toFixed(0)} s: ${what}\n`)
}
