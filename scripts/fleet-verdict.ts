/**
 * The part of `docs/evidence/fleet.md` that says who opens the circuit: measured by `npm run page -- fleet`.
 *
 * `fleet-shared-counter.json` holds the same figures of another rule, which an earlier engine had: the third failure in a row of
 * any instance opened the circuit, and two failures in a row of one instance counted for two.
 *
 * @module
 */

import type { Chart } from '../__tests__/simulation/fleet-chart.ts'
import { powersOfTen } from '../__tests__/simulation/fleet-chart.ts'
import {
  type BadInstance,
  measureAtOnce,
  measureBadInstance,
  measureColdBurst,
  measureColdOnes,
  measureInTurn,
  measureNoise,
  measureOutageAfter,
  measureTail,
  measureWindows,
  type Noise,
  type Outage,
  type Tail,
} from '../__tests__/simulation/verdict-measurements.ts'
import { count, duration, median, percent, range, significant, table } from './fleet-words.ts'

/** Instances, and the calls of each in a second. */
type Size = readonly [instances: number, rate: number]

/** More calls than this take too long to simulate. */
const mostCalls = 400_000

/** An hour, or as much of it as can be simulated, in milliseconds. */
function hourOf([instances, rate]: Size, calls: number): number {
  return 1_000 * Math.min(3_600, Math.round(calls / (instances * rate)))
}

const badSizes: readonly Size[] = [
  [3, 1],
  [10, 2],
  [20, 2],
  [100, 1],
]
const noiseSizes: readonly Size[] = [
  [1, 1],
  [3, 1],
  [10, 1],
  [100, 1],
  [1_000, 1],
  [1_000, 10],
  [5_000, 0.2],
  [10_000, 1],
]
const noiseRates = [0.01, 0.05, 0.1, 0.2]
const outageSizes: readonly Size[] = [
  [1, 1],
  [10, 1],
  [100, 1],
  [1_000, 1],
  [1_000, 10],
  [10_000, 1],
]
const sparseSizes: readonly Size[] = [
  [10, 0.1],
  [40, 0.2],
  [100, 0.2],
]
const tailSizes: readonly Size[] = [
  [1, 1],
  [10, 2],
  [100, 1],
  [1_000, 1],
  [10_000, 1],
]

export interface Verdicts {
  readonly bad: readonly { readonly size: Size; readonly runs: readonly BadInstance[] }[]
  readonly noise: readonly { readonly size: Size; readonly errorRate: number; readonly runs: readonly Noise[] }[]
  readonly cold: readonly {
    readonly errorRate: number
    readonly seeds: number
    readonly opens: number
    readonly ideal: number
  }[]
  readonly outages: readonly {
    readonly size: Size
    readonly rate: number
    readonly quiet: readonly Outage[]
    readonly noisy: readonly Outage[]
    readonly noiseTime: number
    readonly window: Outage | undefined
  }[]
  readonly inTurn: readonly { readonly threshold: number; readonly failures: readonly (number | undefined)[] }[]
  readonly atOnce: readonly ReturnType<typeof measureAtOnce>[]
  readonly coldOnes: readonly { readonly pause: number; readonly runs: readonly ReturnType<typeof measureColdOnes>[] }[]
  readonly sparse: readonly {
    readonly size: Size
    readonly quiet: readonly Outage[]
    readonly noisy: readonly Outage[]
  }[]
  readonly thirty: readonly { readonly failureRateThreshold: number; readonly opened: number; readonly seeds: number }[]
  readonly tails: readonly { readonly size: Size; readonly runs: readonly Tail[] }[]
}

/** Must run where `inMacrotask` runs it. */
export function measureVerdicts(quick: boolean, progress: (what: string) => void): Verdicts {
  const some = <T>(all: readonly T[]): readonly T[] => (quick ? all.slice(0, 2) : all)
  const seeds = (many: number) => range(quick ? 2 : many)
  const calls = quick ? 20_000 : mostCalls
  const fleet = ([instances, rate]: Size, seed: number) => ({ instances, rate, seed })
  const bad = some(badSizes).map((size) => {
    const runs = seeds(size[0] > 50 ? 3 : 7).map((seed) => measureBadInstance(fleet(size, seed), 300_000))
    progress(`one bad instance of ${size[0]}`)
    return { size, runs }
  })
  const noise = some(noiseSizes).flatMap((size) =>
    noiseRates.map((errorRate) => {
      const time = hourOf(size, calls)
      const many = size[0] * size[1] > 500 ? 1 : 3
      const runs = seeds(many).map((seed) => measureNoise({ ...fleet(size, seed), errorRate }, time))
      progress(`${size.join(' × ')} at ${percent(errorRate)}`)
      return { size, errorRate, runs }
    }),
  )
  const cold = [0.01, 0.05].map((errorRate) => {
    const all = seeds(40).map((seed) =>
      measureColdBurst({ instances: quick ? 100 : 5_000, rate: 0.2, seed, errorRate }, 10_000),
    )
    progress(`cold burst at ${percent(errorRate)}`)
    return {
      errorRate,
      seeds: all.length,
      opens: all.filter(({ opens }) => opens).length,
      ideal: all.filter(({ ideal }) => ideal).length,
    }
  })
  const outages = some(outageSizes).flatMap((size) =>
    [1, 0.6].map((rate) => {
      const noiseTime = hourOf(size, calls)
      const many = size[0] >= 1_000 ? 3 : 7
      const quiet = seeds(many).map((seed) => measureOutageAfter(fleet(size, seed), { noise: 0, noiseTime: 0, rate }))
      const noisy = seeds(size[0] * size[1] > 50 ? 1 : many).map((seed) =>
        measureOutageAfter(fleet(size, seed), { noise: 0.02, noiseTime, rate }),
      )
      const window = size[0] * size[1] > 1_000 ? undefined : measureWindows(fleet(size, 1), rate)
      progress(`outage of ${size.join(' × ')}, ${percent(rate)} fail`)
      return { size, rate, quiet, noisy, noiseTime, window }
    }),
  )
  const sparse = some(sparseSizes).map((size) => {
    const noiseTime = quick ? 100_000 : 3_600_000
    const measure = (noise: number) =>
      seeds(7).map((seed) =>
        measureOutageAfter(fleet(size, seed), {
          noise,
          noiseTime: noise === 0 ? 60_000 : noiseTime,
          rate: 1,
          patience: 600_000,
        }),
      )
    const row = { size, quiet: measure(0), noisy: measure(0.01) }
    progress(`sparse ${size.join(' × ')}`)
    return row
  })
  const thirty = [50, 20].map((failureRateThreshold) => {
    const runs = seeds(7).map((seed) =>
      measureOutageAfter(
        { instances: 100, rate: 1, seed, settings: { failureRateThreshold } },
        { noise: 0, noiseTime: 0, rate: 0.3, patience: 60_000 },
      ),
    )
    return {
      failureRateThreshold,
      opened: runs.filter(({ toOpen }) => toOpen !== undefined).length,
      seeds: runs.length,
    }
  })
  const tails = some(tailSizes).map((size) => {
    const runs = seeds(size[0] >= 1_000 ? 3 : 7).map((seed) => measureTail(fleet(size, seed), 12_000 + 1_000 * seed))
    progress(`tail of ${size.join(' × ')}`)
    return { size, runs }
  })
  return {
    bad,
    noise,
    cold,
    outages,
    inTurn: [2, 3, 5].map((threshold) => ({
      threshold,
      failures: seeds(7).map((seed) => measureInTurn(seed, threshold)),
    })),
    atOnce: seeds(7).map((seed) => measureAtOnce(seed)),
    coldOnes: [200, 1_000].map((pause) => ({ pause, runs: seeds(7).map((seed) => measureColdOnes(seed, pause)) })),
    sparse,
    thirty,
    tails,
  }
}

// ------------------------------------------------------------------------------------------------------------ charts

export function verdictCharts(now: Verdicts, counter: Partial<Verdicts>): Record<string, Chart> {
  const sizes = (rate: number) => now.outages.filter((row) => row.rate === rate && row.size[1] === 1)
  const line = (
    name: string,
    colour: number,
    rows: Verdicts['outages'],
    value: (row: Verdicts['outages'][number]) => number | undefined,
    isDashed = false,
  ) => ({
    name,
    colour,
    isDashed,
    points: rows.map((row): [number, number | undefined] => {
      const ms = value(row)
      return [row.size[0], ms === undefined ? undefined : ms / 1_000]
    }),
  })
  const old = (rate: number) => counter.outages?.filter((row) => row.rate === rate && row.size[1] === 1) ?? []
  const opening = (runs: readonly Outage[]) => median(runs.map(({ toOpen = Number.POSITIVE_INFINITY }) => toOpen))
  return {
    verdict: {
      title: 'From the outage to an open circuit',
      x: { label: 'instances, each called once a second', isLogarithmic: true, ticks: powersOfTen(0, 4, count) },
      y: { label: 'seconds', isLogarithmic: true, ticks: powersOfTen(-2, 2, String) },
      lines: [
        line('every call fails', 0, sizes(1), ({ quiet }) => opening(quiet)),
        line('every call fails, after 2 % errors', 0, sizes(1), ({ noisy }) => opening(noisy), true),
        line('60 % fail', 1, sizes(0.6), ({ quiet }) => opening(quiet)),
        line('every call fails, shared counter', 3, old(1), ({ quiet }) => opening(quiet), true),
        line('half of the windows of 100 calls', 2, sizes(1), ({ window }) => window?.toOpen, true),
      ],
    },
    bad: {
      title: 'One instance cannot reach the service: calls of the others that are refused',
      x: { label: 'instances', isLogarithmic: true, ticks: powersOfTen(0, 2, count) },
      y: { label: 'per cent', isLogarithmic: true, ticks: powersOfTen(-1, 2, String) },
      lines: [
        {
          name: 'the verdict, worst seed',
          colour: 0,
          points: now.bad.map(({ size, runs }): [number, number] => [
            size[0],
            100 * Math.max(...runs.map(({ refused }) => refused)),
          ]),
        },
        ...(counter === undefined
          ? []
          : [
              {
                name: 'shared counter, median',
                colour: 1,
                points: (counter.bad ?? []).map(({ size, runs }): [number, number] => [
                  size[0],
                  100 * median(runs.map(({ refused }) => refused)),
                ]),
              },
            ]),
      ],
    },
  }
}

// -------------------------------------------------------------------------------------------------------------- page

export function verdictSection(now: Verdicts, counter: Partial<Verdicts>): string {
  const sizeText = ([instances, rate]: Size) => `${count(instances)} × ${rate}`
  const refused = ({ refused: part }: BadInstance) => `${significant(100 * part)} %`
  const opens = (runs: readonly Outage[]) => {
    const middle = median(runs.map(({ toOpen = Number.POSITIVE_INFINITY }) => toOpen))
    return middle === Number.POSITIVE_INFINITY ? 'not within a minute' : duration(middle)
  }
  const failures = (runs: readonly Outage[]) => count(median(runs.map((run) => run.failures)))
  const counterOf = <Row extends { readonly size: Size }>(
    rows: readonly Row[] | undefined,
    row: { readonly size: Size; readonly rate?: number; readonly errorRate?: number },
  ) =>
    rows?.find((one) => {
      const { rate, errorRate } = one as { rate?: number; errorRate?: number }
      return String(one.size) === String(row.size) && rate === row.rate && errorRate === row.errorRate
    })
  return `## Who opens the circuit

A failure raises a suspicion, and the outcomes of the calls that follow decide ([the rule](../understand/verdict.md)). "Shared counter" is another
rule, for comparison: the third failure in a row, of any instance, opens the circuit. An earlier engine had it. Its figures are kept in
\`scripts/fleet-shared-counter.json\`. "n × r" means n instances with r calls a second each.

### One instance cannot reach a service that works

Calls of the healthy instances that were refused in 300 s, for each seed, and when the circuit opened. The bound is 7 %, and no opening after 15 s.

![Refused calls of the healthy instances](fleet/bad.svg)

${table(
  ['fleet', 'refused, each seed', 'opened after', 'shared counter: refused, median'],
  now.bad.map((row) => {
    const old = counterOf(counter.bad, row)
    const all = row.runs.flatMap(({ openings }) => openings)
    return [
      sizeText(row.size),
      row.runs.map(refused).join(', '),
      all.length === 0 ? 'never' : all.map(duration).join(', '),
      old === undefined ? '' : `${significant(100 * median(old.runs.map((run) => run.refused)))} %`,
    ]
  }),
)}

### A service that fails now and then

The table counts openings of a circuit whose service works, over all seeds. It compares them with two other rules. The ideal counter sees every
call and opens at three failures in a row. The windows are those of the last 100 calls of each instance; one opens when half of at least 10
calls have failed. Writes are those of the whole fleet to the item, in a second on average.

${table(
  [
    'fleet',
    'errors',
    'watched, seeds',
    'false trips',
    'ideal counter',
    'windows',
    'writes a second',
    'shared counter: false trips',
  ],
  now.noise.map((row) => {
    const old = counterOf(counter.noise, row)
    const sum = (figure: (run: Noise) => number) => row.runs.reduce((total, run) => total + figure(run), 0)
    return [
      sizeText(row.size),
      percent(row.errorRate),
      `${duration(row.runs[0]?.time)}, ${row.runs.length}`,
      count(sum(({ trips }) => trips)),
      count(sum(({ idealTrips }) => idealTrips)),
      count(sum(({ windowTrips }) => windowTrips)),
      significant(sum(({ writes }) => writes) / row.runs.length),
      old === undefined ? '' : `${count(old.runs.reduce((total, run) => total + run.trips, 0))} in ${old.runs.length}`,
    ]
  }),
)}

The writes are most at the beginning, when the fleet does not know how noisy the service is. Then the first failure of each instance raises a
suspicion. Suspicions become rarer with time: 1 000 × 10 at 1 % writes some 20 times a second after two minutes, and ever less;
10 000 × 1 at 20 % some 150 times.

### Bursts of cold starts

5 000 instances start within a second, each with 0.2 calls a second, and nothing is stored. The table counts runs in which the circuit opened within 10 s.

${table(
  ['errors', 'opened falsely', 'ideal counter', 'shared counter'],
  now.cold.map((row) => {
    const old = counter.cold?.find(({ errorRate }) => errorRate === row.errorRate)
    return [
      percent(row.errorRate),
      `${row.opens} of ${row.seeds}`,
      `${row.ideal} of ${row.seeds}`,
      old === undefined ? '' : `${old.opens} of ${old.seeds}`,
    ]
  }),
)}

### Outages

The time from the beginning of the outage until the circuit is stored as open, and the failed calls until then, as medians. "After errors":
the service had 2 % errors before, for the time in brackets. Windows: when half of the instances' windows of 100 calls would have
opened.

![From the outage to an open circuit](fleet/verdict.svg)

${table(
  ['fleet', 'fail', 'opens after', 'failed calls', 'after errors', 'shared counter', 'windows'],
  now.outages.map((row) => {
    const old = counterOf(counter.outages, row)
    return [
      sizeText(row.size),
      percent(row.rate),
      opens(row.quiet),
      failures(row.quiet),
      `${opens(row.noisy)} (${duration(row.noiseTime)})`,
      old === undefined ? '' : opens(old.quiet),
      row.window === undefined ? '' : `${duration(row.window.toOpen)}, ${count(row.window.failures)} failed calls`,
    ]
  }),
)}

Failed calls until the circuit opens, in fleets whose instances are called seldom, for each seed:

${table(
  ['fleet', 'quiet before', 'after an hour of 1 % errors', 'shared counter, quiet before'],
  now.sparse.map((row) => {
    const old = counterOf(counter.sparse, row)
    const list = (runs: readonly Outage[]) =>
      runs.map((run) => (run.toOpen === undefined ? 'not' : String(run.failures))).join(', ')
    return [sizeText(row.size), list(row.quiet), list(row.noisy), old === undefined ? '' : list(old.quiet)]
  }),
)}

20 warm instances are called in turn, one a second, when the service dies. Failed calls until the circuit opens, for each seed:

${table(
  ['`failureThreshold`', 'failed calls', 'shared counter'],
  now.inTurn.map(({ threshold, failures: all }) => {
    const old = counter.inTurn?.find((row) => row.threshold === threshold)
    const list = (values: readonly (number | undefined)[]) => values.map((value) => value ?? 'not in 40').join(', ')
    return [String(threshold), list(all), old === undefined ? '' : list(old.failures)]
  }),
)}

- 100 warm instances fail once each, all at once. The circuit opens after ${now.atOnce.map(({ toOpen }) => duration(toOpen)).join(', ')}, with the next call. A
  new instance that is called after 1.5 s is refused in ${now.atOnce.filter(({ isRefused }) => isRefused).length} of ${now.atOnce.length} seeds.
- Three new instances fail one after another: ${now.coldOnes
    .map(
      ({ pause, runs }) =>
        `${duration(pause)} apart, the circuit opened at failure ${[...new Set(runs.map((run) => run.failures))].join(' or ')} with ${[...new Set(runs.map((run) => run.openings))].join(' or ')} event`,
    )
    .join('; ')} (${now.coldOnes[0]?.runs.length} seeds).
- 30 % of the calls of 100 × 1 fail for a minute: ${now.thirty.map(({ failureRateThreshold, opened, seeds }) => `with \`failureRateThreshold\` ${failureRateThreshold} the circuit opened in ${opened} of ${seeds} seeds`).join('; ')}.

### After the recovery

The time from the first success until the last refusal, for each seed, with the limits of one item in force. The bounds are 1.5 s for 10 × 2, and 3 s for 1 000 × 1.

${table(
  ['fleet', 'goes on refusing for', 'reads in the busiest second', 'reads throttled', 'shared counter'],
  now.tails.map((row) => {
    const old = counterOf(counter.tails, row)
    return [
      sizeText(row.size),
      row.runs.map(({ tail }) => duration(tail)).join(', '),
      count(Math.max(...row.runs.map(({ peakReads }) => peakReads))),
      count(Math.max(...row.runs.map(({ throttledReads }) => throttledReads))),
      old === undefined ? '' : old.runs.map(({ tail }) => duration(tail)).join(', '),
    ]
  }),
)}
`
}
