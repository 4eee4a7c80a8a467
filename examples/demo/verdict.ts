/**
 * What a recording shows: the figures, and whether the shared circuit kept its promises.
 *
 * @module
 */

import type { Arrival, Call, Fleet, Recording, Transition } from './recording.ts'
import { percentile } from './recording.ts'
import { type Failure, outageOf } from './scenario.ts'

/**
 * A cache is as old as its `cacheTtl` when an invocation begins, and the request is sent in the same turn. This is for a
 * machine that is busy with other things, in milliseconds.
 */
const schedulingTolerance = 100

/** The figures of one fleet. */
export interface FleetFigures {
  /** Invocations that ended during the outage. */
  readonly asked: number
  /** Of these, calls that the service received. */
  readonly reached: number
  /** … by how it failed them. */
  readonly reachedBy: ReadonlyMap<Failure, number>
  /** … by what the callers saw. */
  readonly errors: ReadonlyMap<string, number>
  /** From the first failure to the first refusal of the last instance to refuse; `undefined`: one never did. */
  readonly untilAllRefuse: number | undefined
  /** From the recovery to the first answer of the last instance to be served; `undefined`: one never was. */
  readonly untilAllServe: number | undefined
  /** Calls answered by the fallback, in the whole run. */
  readonly fallbacks: number
  readonly refused: number
  /** Of the invocations that were refused, in milliseconds. */
  readonly refusalLatency: { readonly p50: number; readonly p99: number }
  /** Transitions to OPEN from CLOSED, and from HALF_OPEN. */
  readonly trips: number
  readonly reopened: number
  /** Of the calls that reached the failing service, those that were probes. */
  readonly failedProbes: number
}

/** What DynamoDB was asked for. */
export interface DatabaseFigures {
  readonly reads: ReadonlyMap<string, number>
  readonly writes: ReadonlyMap<string, number>
  readonly healthyWrites: number
}

/** The figures of one fleet. */
export function figuresOf(recording: Recording, fleet: Fleet): FleetFigures {
  const outage = outageOf(recording.phases)
  const calls = recording.calls.filter((call) => call.fleet === fleet)
  const arrivals = recording.arrivals.filter((arrival) => arrival.fleet === fleet)
  const transitions = recording.transitions.filter((transition) => transition.fleet === fleet)
  const failed = arrivals.filter(({ failure }) => failure !== undefined)
  const refusals = calls.filter(({ outcome }) => outcome === 'refused')
  const latencies = refusals.map(({ latency }) => latency)
  const openings = transitions.filter(({ to }) => to === 'OPEN')
  const firstFailureAt = Math.min(...failed.map(({ arrivedAt }) => arrivedAt))
  const instances = numbersOf(recording)
  return {
    asked: calls.filter(({ endedAt }) => endedAt >= outage.from && endedAt < outage.to).length,
    reached: failed.length,
    reachedBy: tally(failed.map(({ failure }) => failure as Failure)),
    errors: tally(calls.flatMap(({ error }) => error ?? [])),
    untilAllRefuse: lastOf(instances, firstFailureAt, (number) => {
      const isCall = ({ number: n, state }: Arrival): boolean => n === number && state === 'CLOSED'
      const lastCallAt = Math.max(firstFailureAt, ...failed.filter(isCall).map(({ arrivedAt }) => arrivedAt))
      return refusals.find((call) => call.number === number && call.endedAt >= lastCallAt)
    }),
    untilAllServe: lastOf(instances, outage.to, (number) =>
      calls.find((call) => call.number === number && call.outcome === 'served' && call.endedAt >= outage.to),
    ),
    fallbacks: calls.filter(({ outcome }) => outcome !== 'served').length,
    refused: refusals.length,
    refusalLatency: { p50: percentile(latencies), p99: percentile(latencies, 99) },
    trips: openings.filter(({ from }) => from === 'CLOSED').length,
    reopened: openings.filter(({ from }) => from === 'HALF_OPEN').length,
    failedProbes: failed.filter(({ state }) => state === 'HALF_OPEN').length,
  }
}

/** What DynamoDB was asked for, the warm-up included. */
export function databaseFiguresOf({ requests, phases }: Recording): DatabaseFigures {
  const isRead = (operation: string): boolean => operation.endsWith('GetItem')
  const writes = requests.filter(({ operation }) => !isRead(operation))
  const { from } = outageOf(phases)
  return {
    reads: tally(requests.flatMap(({ operation }) => (isRead(operation) ? operation : []))),
    writes: tally(writes.map(({ operation }) => operation)),
    healthyWrites: writes.filter(({ at }) => at < from).length,
  }
}

/** What went wrong, one sentence each; empty if the shared circuit did what it is for. */
export function problemsOf(recording: Recording): string[] {
  return [
    ...sequenceProblems(recording),
    ...recordProblems(recording),
    ...leakProblems(recording),
    ...probeProblems(recording),
    ...instanceProblems(recording),
    ...healthyProblems(recording),
    ...comparisonProblems(recording),
  ]
}

/** The transitions of the shared circuit, in order. */
export function sharedTransitions({ transitions }: Recording): Transition[] {
  return transitions
    .filter(({ fleet }) => fleet === 'shared')
    .sort((a, b) => a.generation - b.generation || a.reportedAt - b.reportedAt)
}

/** The way of the shared circuit, for people: `CLOSED → OPEN → …`. */
export function pathOf(recording: Recording): string {
  return ['CLOSED', ...sharedTransitions(recording).map(({ to }) => to)].join(' → ')
}

/** CLOSED → OPEN → HALF_OPEN (→ OPEN → HALF_OPEN …) → CLOSED, every generation made by exactly one instance. */
function sequenceProblems(recording: Recording): string[] {
  const transitions = sharedTransitions(recording)
  const path = pathOf(recording)
  if (!transitions.some(({ from, to }) => from === 'CLOSED' && to === 'OPEN')) {
    return ['The shared circuit never opened: no instance made the transition CLOSED → OPEN.']
  }
  const problems: string[] = []
  const trips = transitions.filter(({ from }) => from === 'CLOSED')
  if (trips.length > 1)
    problems.push(`The shared circuit opened ${trips.length} times from CLOSED in one outage: ${path}.`)
  const { from: firstFailure } = outageOf(recording.phases)
  if (trips.some(({ at }) => at < firstFailure)) problems.push('The shared circuit opened before the service failed.')
  if (!transitions.some(({ to }) => to === 'HALF_OPEN')) problems.push(`The shared circuit never probed: ${path}.`)
  else if (transitions.at(-1)?.to !== 'CLOSED') problems.push(`The shared circuit did not close again: ${path}.`)
  const byGeneration = Map.groupBy(transitions, ({ generation }) => generation)
  for (const [generation, made] of byGeneration) {
    if (made.length === 1) continue
    const authors = made.map(({ number }) => number).join(' and ')
    problems.push(`Generation ${generation} was reported by instances ${authors}: a transition has one author.`)
  }
  let state = 'CLOSED'
  for (const [index, [generation, [made]]] of [...byGeneration].entries()) {
    if (generation !== index + 1 || made?.from !== state) {
      problems.push(`A transition was made by nobody: generation ${generation} (${made?.from} → ${made?.to}) follows`)
      problems[problems.length - 1] += ` generation ${index}, which left the circuit ${state}.`
      break
    }
    state = made.to
  }
  return problems
}

/** What is stored at the end agrees with what was reported, and is clean. */
function recordProblems(recording: Recording): string[] {
  const { record } = recording
  const last = sharedTransitions(recording).at(-1)
  if (last === undefined) return []
  const { state, generation, failureCount, leases } = record ?? {}
  if (state !== last.to || generation !== last.generation) {
    const stored = record === undefined ? 'nothing' : `${state}, generation ${generation}`
    return [
      `DynamoDB holds ${stored}, but the last transition reported was to ${last.to}, generation ${last.generation}.`,
    ]
  }
  const isDirty = state === 'CLOSED' && (failureCount !== 0 || leases?.length !== 0)
  return isDirty ? [`The closed record still counts ${failureCount} failures and ${leases?.length} leases.`] : []
}

/** Each half-open period was claimed by one instance, when it was due, and sent no more probes than permitted. */
function probeProblems(recording: Recording): string[] {
  const { halfOpenMaxConcurrent, halfOpenSuccessThreshold, resetTimeout } = recording.settings
  // All but the last success leave the period open for another probe; nothing else does, as no probe is cancelled here.
  const permitted = halfOpenMaxConcurrent + halfOpenSuccessThreshold - 1
  const transitions = sharedTransitions(recording)
  const claims = transitions.filter(({ to }) => to === 'HALF_OPEN')
  const probes = recording.arrivals.filter(({ fleet, state }) => fleet === 'shared' && state === 'HALF_OPEN')
  const problems: string[] = []
  for (const [generation, sent] of Map.groupBy(probes, (probe) => probe.generation)) {
    const isClaimed = claims.some((claim) => claim.generation === generation)
    if (isClaimed && sent.length <= permitted) continue
    const allowed = isClaimed ? `${permitted} permitted` : 'no instance claimed one'
    problems.push(`${count(sent.length, 'probe')} reached the service in generation ${generation}, but ${allowed}.`)
  }
  for (const claim of claims) {
    const opened = transitions.find(({ generation }) => generation === claim.generation - 1)
    const waited = claim.at - (opened?.at ?? Number.NEGATIVE_INFINITY)
    if (waited >= resetTimeout) continue
    problems.push(
      `Generation ${claim.generation} probed ${waited} ms after the circuit had opened, not ${resetTimeout}.`,
    )
  }
  return problems
}

/**
 * Nothing but probes reached the service while the fleet's circuit was open. Allowed are calls that were under way when
 * the trip was stored, and those of instances that had not learned of it: until their cache was `cacheTtl` old, and no
 * more per instance than it takes to trip it alone.
 */
function leakProblems(recording: Recording): string[] {
  const { cacheTtl, failureThreshold } = recording.settings
  const transitions = sharedTransitions(recording)
  const arrivals = recording.arrivals.filter(({ fleet }) => fleet === 'shared')
  const problems: string[] = []
  const whileOpen = arrivals.filter(({ state }) => state === 'OPEN')
  if (whileOpen.length > 0) {
    problems.push(`${count(whileOpen.length, 'call')} passed an open circuit and reached the service.`)
  }
  const late = arrivals.filter(({ state, generation, sentAt }) => {
    const trip = transitions.find((transition) => transition.generation === generation + 1)
    return state === 'CLOSED' && trip !== undefined && sentAt > trip.reportedAt + cacheTtl + schedulingTolerance
  })
  if (late.length > 0) {
    const allowance = `the ${cacheTtl} ms of cacheTtl that an instance has to learn of it`
    problems.push(`${count(late.length, 'call')} reached the service after the trip and ${allowance}.`)
  }
  const failed = arrivals.filter(({ state, failure }) => state === 'CLOSED' && failure !== undefined)
  for (const [number, sent] of Map.groupBy(failed, (arrival) => arrival.number)) {
    if (sent.length <= failureThreshold) continue
    problems.push(
      `Instance ${number} sent ${sent.length} calls to the failing service; it refuses after ${failureThreshold}.`,
    )
  }
  return problems
}

/** Every instance took part: it refused in the outage and is served in the end. */
function instanceProblems(recording: Recording): string[] {
  const { to } = outageOf(recording.phases)
  const shared = recording.calls.filter(({ fleet }) => fleet === 'shared')
  const [neverRefused, notServed]: [number[], number[]] = [[], []]
  for (const number of numbersOf(recording)) {
    const own = shared.filter((call) => call.number === number)
    if (!own.some(({ outcome }) => outcome === 'refused')) neverRefused.push(number)
    const last = own.at(-1)
    if (last === undefined || last.endedAt < to || last.outcome !== 'served') notServed.push(number)
  }
  const problems: string[] = []
  if (neverRefused.length > 0) problems.push(`Never refused a call: ${instances(neverRefused)}.`)
  if (notServed.length > 0) problems.push(`Not served after the recovery: ${instances(notServed)}.`)
  return problems
}

/** A healthy circuit is never written. */
function healthyProblems(recording: Recording): string[] {
  const { healthyWrites } = databaseFiguresOf(recording)
  if (healthyWrites === 0) return []
  const { from } = outageOf(recording.phases)
  const isEarly = ({ fleet, outcome, endedAt }: Call): boolean =>
    fleet === 'shared' && outcome === 'failed' && endedAt < from
  const failed = recording.calls.filter(isEarly).length
  const reason =
    failed > 0 ? `${count(failed, 'call')} failed then, so this machine was too busy` : 'there must be none'
  return [`${count(healthyWrites, 'write')} went to DynamoDB while the service was healthy: ${reason}.`]
}

/** A breaker spares the dead service calls, and the shared one spares it more. */
function comparisonProblems(recording: Recording): string[] {
  const { none, alone, shared } = reachedBy(recording)
  if (shared < alone && alone < none) return []
  return [
    `The dead service was reached ${none} times without a breaker, ${alone} with one each, ${shared} with one for all.`,
  ]
}

/** The calls of each fleet that reached the failing service. */
function reachedBy({ arrivals }: Recording): Record<Fleet, number> {
  const reached = { none: 0, alone: 0, shared: 0 }
  for (const { fleet, failure } of arrivals) if (failure !== undefined) reached[fleet]++
  return reached
}

function numbersOf({ fleetSize }: Recording): number[] {
  return Array.from({ length: fleetSize }, (_, index) => index + 1)
}

/** How long the slowest instance took; `undefined` if one has no such call. */
function lastOf(
  instances: readonly number[],
  since: number,
  find: (number: number) => Call | undefined,
): number | undefined {
  const ends = instances.map((number) => find(number)?.endedAt)
  return ends.includes(undefined) ? undefined : Math.max(...(ends as number[])) - since
}

function tally<T>(values: readonly T[]): Map<T, number> {
  const counts = new Map<T, number>()
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
  return counts
}

function instances(numbers: readonly number[]): string {
  return `instance${numbers.length === 1 ? '' : 's'} ${numbers.join(', ')}`
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}
