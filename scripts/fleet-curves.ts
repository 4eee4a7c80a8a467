/**
 * Measures fleets in the simulator and writes `docs/evidence/fleet.md` with its charts: `npm run page -- fleet`. The same code
 * and seeds give the same files, byte for byte. `--quick --out <directory>`: a small run, written elsewhere.
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
  measureOutage,
  measureTrips,
  type OutageFigures,
  type OutageTimes,
  type Peak,
} from '../__tests__/simulation/fleet-measurements.ts'
import { inMacrotask } from '../__tests__/simulation/microtasks.ts'
import { hotKeyLimit } from '../__tests__/simulation/store.ts'
import { keysIn } from './fleet-keys.ts'
import { measureVerdicts, type Verdicts, verdictCharts, verdictSection } from './fleet-verdict.ts'
import { count, duration, median, range, rateText, significant, table } from './fleet-words.ts'

const {
  quick,
  out = fileURLToPath(new URL('../docs/evidence', import.meta.url)),
  figures,
} = parseArgs({
  options: { quick: { type: 'boolean', default: false }, out: { type: 'string' }, figures: { type: 'string' } },
}).values

const fleets = quick ? [1, 10, 100] : [1, 10, 100, 1_000, 10_000]
const largest = fleets.at(-1) as number
/** A fleet that asks too much of one item. */
const overload = 2 * largest
/** … and one that asks far too much. */
const crowd = 5 * largest
const times: OutageTimes = quick
  ? { rest: 20_000, outage: 20_000, recovery: 20_000 }
  : { rest: 20_000, outage: 60_000, recovery: 20_000 }
const outageSeconds = times.outage / 1_000
/** Where reads are throttled, the last instance learns of the recovery later. */
const throttledTimes: OutageTimes = { ...times, recovery: 60_000 }
/** The fleet whose settings are varied. */
const middle = quick ? 50 : 1_000

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
  limited: measureOutage({ instances: overload, rate: 1, seed: 1, isLimited: true }, throttledTimes),
  crowd: measureOutage({ instances: crowd, rate: 1, seed: 1, isLimited: true }, throttledTimes),
  verdicts: measureVerdicts(quick, progress),
  settings: measureSettings(),
  hotKey: measureHotKey(),
})

/** The figures of the shared counter. */
const counter: Partial<Verdicts> = JSON.parse(
  readFileSync(new URL('fleet-shared-counter.json', import.meta.url), 'utf8'),
)

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

function charts({ outages, verdicts }: ReturnType<typeof measureAll>): Record<string, Chart> {
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
    ...verdictCharts(verdicts, counter),
  }
}

// -------------------------------------------------------------------------------------------------------------- page

function page({
  outages,
  limited,
  crowd: crowded,
  overloaded,
  verdicts,
  settings,
  hotKey,
}: ReturnType<typeof measureAll>): string {
  const last = outages.at(-1) as FleetOutage
  const of = (phase: Phase, { shared }: FleetOutage) => `${count(shared[phase].reads)} / ${count(shared[phase].writes)}`
  return `<!-- made by npm run page -- fleet; do not edit -->

# Fleets of 1 to ${count(largest)} instances

All figures come from the simulator in \`__tests__/simulation\`. It runs the real engine and middleware with a virtual clock. The same seed
gives the same figures. \`npm run page -- fleet\` measures them and writes this page.

Unless a table says otherwise:

- The settings are the defaults (\`failureThreshold\` 3, \`resetTimeout\` 10 s, \`cacheTtl\` 5 s). Lambda's timeout is 3 s.
- Each instance is called once a second, at random (Poisson) times. It handles one invocation at a time, with one call in each, and is
  frozen in between.
- The service answers in about 50 ms and fails in about 10 ms. The way to the store and the way back take about 2 ms each. Latencies vary
  log-normally (σ = 0.4). Clocks agree.
- The instances start over one \`cacheTtl\`, so that their reads are spread as in a fleet that has been running for long.
- Figures are medians over the seeds 1, 2, 3, …: 7 seeds up to 100 instances, 3 at 1 000, 1 at 10 000.

## An outage of ${outageSeconds} s

The fleet is at rest for ${times.rest / 1_000} s. Then every call fails for ${outageSeconds} s. Then the service works again.

![Calls that reach a dead service](fleet/calls.svg)

Calls that reached the dead service. Brackets: probes, which come on top.

${table(
  ['instances', 'one circuit for the fleet', 'a circuit in each instance', 'no circuit'],
  outages.map(({ instances, shared, own, none }) => [
    count(instances),
    `${count(shared.reached)} (+ ${count(shared.probes)})`,
    `${count(own.reached)} (+ ${count(own.probes)})`,
    count(none.reached),
  ]),
)}

"A circuit in each instance" is the same engine with a store of its own in each process. It needs \`failureThreshold\` failures and probes in
every instance. With one circuit, an instance learns of the outage from its next read of the record, at most one \`cacheTtl\` later, or
when it wants to raise a suspicion itself.

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

- Protected: the last call except probes has reached the service. Served: the last call has been refused.
- A small fleet opens its circuit as fast as its calls come, because three have to fail.
- The time to close depends on when the service recovers within the 10 s in which the circuit is open. After that each instance has to look at
  the record, which takes about a second in a fleet that one item can serve, and to receive a call.

## Load on the store

![Requests in the busiest second](fleet/load.svg)

Reads / writes in the busiest second. One DynamoDB item serves ${count(hotKeyLimit.reads)} reads and ${count(hotKeyLimit.writes)} writes a second; this table does not enforce that. A
strongly consistent read of an item up to 4 KB counts as one. Rest: the last ${times.rest / 2_000} s before the outage. Onset: its first 2 s. Recovery: the
${times.recovery / 1_000} s after it.

${table(
  ['instances', ...phases],
  outages.map((row) => [count(row.instances), ...phases.map((phase) => of(phase, row))]),
)}

${limitVerdict(last)}

With the limit in force (seed 1):

${table(
  ['', `${count(overload)} instances, not throttled`, `${count(overload)}, throttled`, `${count(crowd)}, throttled`],
  [
    [
      'requests refused: reads / writes',
      '0 / 0',
      `${count(limited.throttled.reads)} / ${count(limited.throttled.writes)}`,
      `${count(crowded.throttled.reads)} / ${count(crowded.throttled.writes)}`,
    ],
    ...(
      [
        ['calls that reached the dead service', ({ reached }) => count(reached)],
        ['probes', ({ probes }) => count(probes)],
        ['first failure → stored as open', ({ toOpen }) => duration(toOpen)],
        ['first failure → whole fleet protected', ({ toProtection }) => duration(toProtection)],
        ['recovery → stored as closed', ({ toClosed }) => duration(toClosed)],
        ['recovery → whole fleet served', ({ toService }) => duration(toService)],
        ...phases.map(
          (phase) =>
            [
              `${phase}: reads / writes sent in the busiest second`,
              (row: OutageFigures) => `${count(row[phase].reads)} / ${count(row[phase].writes)}`,
            ] as const,
        ),
      ] satisfies readonly (readonly [string, (row: OutageFigures) => string])[]
    ).map(([name, figure]) => [name, figure(overloaded), figure(limited), figure(crowded)]),
  ],
)}

An instance whose read is throttled keeps its copy of the record for longer. Each answer makes that time shorter again. So a fleet comes
to read as often as the item can serve. An instance that is throttled also claims probes less often, and leaves them to others: a store that
throttles is not dead. Most refusals fall into the first ${times.rest / 1_000} s, in which the new fleet learns this. After that, a look of all instances takes at
least ${Math.ceil(crowd / hotKeyLimit.reads)} s in the largest of these fleets.

A fleet that is too large for one item should read less: with a longer \`cacheTtl\`, with \`consistentRead: false\`, which costs half as
much, or with the state in Redis.

### Up to which fleet size the limit holds

Each phase was run with fleets of ${count(ladder[0] as number)} to ${count(ladder.at(-1) as number)} instances, in steps of about 25 %, up to ${count(mostCalls)} calls a second, seed 1. A cell has the largest
fleet in which no second exceeds the limit. Brackets: the next larger fleet, in which one second does. "All" is the smallest of the four.
Here the outage lasts 14 s and the recovery 14 s, with one round of probes in each.

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

${verdictSection(verdicts, counter)}
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

At a threshold of 1 there is no second opinion, and the circuit is open most of the time. The ideal counter sees every call, and goes on counting
while our circuit is open. In the formula it is open for 10 s after each trip. Here the outage lasts 30 s; in the other tables ${outageSeconds} s.

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

An instance whose clock is ahead probes sooner, because it finds \`retryAt\` passed. The instants that it stores are ahead for all others.

${keysIn(readFileSync(new URL('../docs/evidence/fleet.md', import.meta.url), 'utf8'))}
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

// ----------------------------------------------------------------------------------------------------------- wording

function isWithinLimit({ reads, writes }: Peak): boolean {
  return reads <= hotKeyLimit.reads && writes <= hotKeyLimit.writes
}

function holding({ holds, fails }: { readonly holds: number | undefined; readonly fails: number | undefined }): string {
  if (fails === undefined) return `${count(holds ?? 0)} or more`
  return holds === undefined ? `below ${count(fails)}` : `${count(holds)} (not ${count(fails)})`
}

// -------------------------------------------------------------------------------------------------------- arithmetic

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
