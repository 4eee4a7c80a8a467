/**
 * The run as one picture, for the README: `npm run demo -- --picture FILE`.
 *
 * @module
 */

import type { Fleet, Recording } from './recording.ts'
import { durationOf, outageOf } from './scenario.ts'

/** A bar, in milliseconds. */
const part = 400
const width = 900
const left = 20
/** The bars end here; the totals stand to the right of them. */
const right = 690
const laneHeight = 62
const laneGap = 34
const top = 58

const lanes: readonly { readonly fleet: Fleet; readonly title: string }[] = [
  { fleet: 'none', title: 'No breaker' },
  { fleet: 'alone', title: 'A breaker in the memory of each instance' },
  { fleet: 'shared', title: 'middy-circuit-breaker: one circuit, shared' },
]

/** @returns an SVG: for each fleet the calls that reached the dead service, and those that the circuit refused, over time */
export function pictureOf(recording: Recording): string {
  const { phases, fleetSize } = recording
  const duration = durationOf(phases)
  const outage = outageOf(phases)
  const x = (time: number): number => left + (time / duration) * (right - left)
  const bars = lanes.map(({ fleet }) => barsOf(recording, fleet, duration))
  const highest = Math.max(...bars.flat().map(({ reached, refused }) => reached + refused))
  const height = top + lanes.length * (laneHeight + laneGap) + 14
  const total = (fleet: Fleet): number =>
    recording.arrivals.filter((arrival) => arrival.fleet === fleet && arrival.failure !== undefined).length

  const drawn = lanes.map(({ fleet, title }, lane) => {
    const base = top + lane * (laneHeight + laneGap) + laneGap - 12 + laneHeight
    const y = (count: number): number => (count / highest) * laneHeight
    const shapes = (bars[lane] ?? []).flatMap(({ at, reached, refused }) => {
      const bar = (name: string, from: number, count: number): string =>
        `<rect class="${name}" x="${round(x(at) + 1)}" y="${round(base - y(from + count))}" width="${round(x(part) - left - 2)}" height="${round(y(count))}"/>`
      return [
        ...(reached > 0 ? [bar('reached', 0, reached)] : []),
        ...(refused > 0 ? [bar('refused', reached, refused)] : []),
      ]
    })
    return `<text class="title" x="${left}" y="${base - laneHeight - 8}">${title}</text>
<g>${shapes.join('')}</g>
<line class="axis" x1="${left}" x2="${right}" y1="${base}" y2="${base}"/>
<text class="total" x="${right + 20}" y="${base - 24}">${total(fleet).toLocaleString('en')}</text>
<text class="note" x="${right + 20}" y="${base - 6}">calls to the dead service</text>`
  })

  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="t">
<title id="t">${titleOf(recording, total)}</title>
<style>
text { font: 14px system-ui, sans-serif; fill: #3d444d }
.title { font-weight: 600; fill: #1f2328 }
.total { font-size: 30px; font-weight: 600; fill: #1f2328 }
.reached { fill: #c4382f }
.refused { fill: #8fb4e0 }
.outage { fill: #f3e9e4 }
.axis { stroke: #9aa4af }
@media (prefers-color-scheme: dark) {
text { fill: #b7bdc8 }
.title, .total { fill: #f0f6fc }
.reached { fill: #f2705f }
.refused { fill: #3d6ea8 }
.outage { fill: #2b2320 }
.axis { stroke: #656c76 }
}
</style>
<rect class="outage" x="${round(x(outage.from))}" y="${top - 22}" width="${round(x(outage.to) - x(outage.from))}" height="${height - top + 8}"/>
<rect class="reached" x="${left}" y="10" width="12" height="12"/>
<text class="note" x="${left + 18}" y="21">reached the service and failed</text>
<rect class="refused" x="${left + 240}" y="10" width="12" height="12"/>
<text class="note" x="${left + 258}" y="21">answered at once by the fallback</text>
<text class="note" x="${round(x(outage.from) + 6)}" y="${top - 6}">the service is down for ${(outage.to - outage.from) / 1_000} s</text>
${drawn.join('\n')}
<text class="note" x="${right + 20}" y="${top - 6}">${fleetSize} instances each</text>
</svg>
`
}

function titleOf({ phases, fleetSize }: Recording, total: (fleet: Fleet) => number): string {
  const { from, to } = outageOf(phases)
  const [none, alone, shared] = lanes.map(({ fleet }) => total(fleet).toLocaleString('en'))
  return `${fleetSize} instances each way, a service that is down for ${(to - from) / 1_000} seconds: ${none} calls reach it without a breaker, ${alone} with a breaker in the memory of each instance, ${shared} with one shared circuit.`
}

function barsOf(
  { arrivals, calls }: Recording,
  fleet: Fleet,
  duration: number,
): { readonly at: number; reached: number; refused: number }[] {
  const bars = Array.from({ length: Math.ceil(duration / part) }, (_, i) => ({ at: i * part, reached: 0, refused: 0 }))
  for (const { fleet: from, failure, arrivedAt } of arrivals) {
    const bar = bars[Math.floor(arrivedAt / part)]
    if (from === fleet && failure !== undefined && bar !== undefined) bar.reached++
  }
  for (const { fleet: of, outcome, endedAt } of calls) {
    const bar = bars[Math.floor(endedAt / part)]
    if (of === fleet && outcome === 'refused' && bar !== undefined) bar.refused++
  }
  return bars
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
