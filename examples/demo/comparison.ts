/**
 * The run as the page shows it: the three fleets side by side.
 *
 * @module
 */

import type { ComparedFleet, Comparison } from '../../src/cli/page-feed.ts'
import { fleets } from './display.ts'
import type { Recorder } from './recorder.ts'
import type { Call, Fleet } from './recording.ts'
import { durationOf, fleetSize, phaseAt, phases } from './scenario.ts'

/** A bar of the picture, in milliseconds. */
const part = 500

const titles: Readonly<Record<Fleet, string>> = {
  none: 'No breaker',
  alone: 'A breaker in each instance',
  shared: 'The shared circuit',
}

/** The picture at this moment. */
export function comparisonOf(recorder: Recorder): Comparison {
  const duration = durationOf(phases)
  // Until the start is known, it is to come.
  const hasBegun = Number.isFinite(recorder.startAt)
  const now = hasBegun ? Math.min(Math.max(0, recorder.now), duration) : 0
  const from = hasBegun ? recorder.startAt : Date.now()
  const { name } = phaseAt(phases, now)
  return {
    title: `${fleetSize} instances each, one outage`,
    text: hasBegun
      ? `The payment service: ${name}. ${(now / 1_000).toFixed(0)} of ${duration / 1_000} s.`
      : 'The instances are being started.',
    from,
    to: from + duration,
    fleets: fleets.map((fleet) => comparedFleet(fleet, recorder, from, now)),
  }
}

function comparedFleet(fleet: Fleet, recorder: Recorder, from: number, now: number): ComparedFleet {
  const calls = recorder.calls.filter((call) => call.fleet === fleet)
  const reached = recorder.arrivals.filter((arrival) => arrival.fleet === fleet && arrival.failure !== undefined)
  const counts = Array.from({ length: Math.ceil(now / part) }, (_, i) => ({
    at: from + i * part,
    failed: 0,
    refused: 0,
  }))
  for (const { outcome, endedAt } of calls) {
    const count = counts[Math.floor(endedAt / part)]
    if (count !== undefined && outcome !== 'served') count[outcome]++
  }
  const byNumber = Map.groupBy(calls, ({ number }) => number)
  return {
    title: titles[fleet],
    figure: reached.length,
    unit: 'calls reached the dead service',
    counts,
    lanes: Array.from({ length: fleetSize }, (_, i) => ({
      name: `instance ${i + 1}`,
      bands: fleet === 'none' ? [] : bandsOf(byNumber.get(i + 1) ?? [], from, now),
    })),
  }
}

function bandsOf(calls: readonly Call[], from: number, now: number): ComparedFleet['lanes'][number]['bands'] {
  const changes = [{ at: 0, state: 'CLOSED' as Call['state'] }]
  for (const { endedAt, state } of calls) {
    if (state !== changes.at(-1)?.state) changes.push({ at: Math.max(0, endedAt), state })
  }
  return changes.map(({ at, state }, i) => ({
    from: from + at,
    to: from + Math.max(at, changes[i + 1]?.at ?? now),
    state,
    isForced: false,
  }))
}
