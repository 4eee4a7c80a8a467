/**
 * The state machine of one circuit: pure functions of a record, a time and the settings. Nothing here waits, draws a
 * random number or talks to anyone; the tokens that a transition needs are handed in.
 *
 * Records come from other machines with other clocks, so every instant in them is doubted: see {@link clockTolerance}.
 *
 * @module
 */

import type { CircuitOverride, CircuitRecord, CircuitState, FailureSummary, Lease } from '../storage/contract.ts'

/** The settings that the state machine reads; durations in milliseconds. */
export interface MachineSettings {
  readonly resetTimeout: number
  readonly halfOpenSuccessThreshold: number
  readonly halfOpenMaxConcurrent: number
  readonly maxResetTimeout: number
  readonly resetBackoff: number
}

/** A failure as it reaches the state machine: what is stored of it, and what the service asked for. */
export interface Failure extends FailureSummary {
  /** How long the service asked to be left alone (`Retry-After`), in milliseconds. */
  readonly retryAfter?: number | undefined
}

/** The random tokens of one decision. */
export interface Tokens {
  /** The version of the record to be written. */
  readonly version: string
  /** The epoch that begins if the state changes; it identifies the transition over all attempts to write it. */
  readonly epoch: string
}

/**
 * The verdict on a call: `pass`; `claim` a probe first; or be refused because the circuit is `open`, because its probes
 * are in flight (`probing`), because an operator `forced` it open, or because it is `ramping` up after it has closed.
 */
export type Verdict = 'pass' | 'claim' | 'open' | 'probing' | 'forced' | 'ramping'

/** How a probe ended. `release`: it proved nothing (an ignored error, a cancelled call). */
export type ProbeOutcome = 'success' | 'failure' | 'release'

/**
 * How far two honest clocks may be apart, in milliseconds. An instant that is further ahead than its own duration plus
 * this was written by a broken clock and counts as reached.
 */
export const clockTolerance = 60_000

/** The longest a lease can last, in milliseconds: the longest Lambda invocation, 15 minutes. */
export const maxLease = 900_000

/** A count does not grow beyond this: one more would be no number that a record can hold. */
const largestCount = Number.MAX_SAFE_INTEGER

/** How many of its transitions a record keeps. */
export const keptTransitions = 8

/** The verdict on a call at `now`. */
export function admit(record: CircuitRecord, now: number, settings: MachineSettings): Verdict {
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.state === 'OPEN' ? 'forced' : 'pass'
  if (record.state === 'CLOSED') return 'pass'
  if (record.state === 'OPEN') return isRetryDue(record, now, settings) ? 'claim' : 'open'
  return liveLeases(record, now).length < settings.halfOpenMaxConcurrent ? 'claim' : 'probing'
}

/**
 * The part of the calls that is admitted at `now`: it rises from a tenth, from the instant in which a probe closed the
 * circuit; from 1 on, all are.
 */
export function admittedPart({ closedAt }: CircuitRecord, now: number, rampUp: number | false): number {
  if (rampUp === false || closedAt === undefined) return 1
  const elapsed = now - closedAt
  return elapsed < 0 ? 1 : 0.1 + (0.9 * elapsed) / rampUp
}

/** The state that callers should act on: an open circuit reads HALF_OPEN once it may be probed. */
export function effectiveState(record: CircuitRecord, now: number, settings: MachineSettings): CircuitState {
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.state
  return record.state === 'OPEN' && isRetryDue(record, now, settings) ? 'HALF_OPEN' : record.state
}

/** The operator's override, while it holds. */
export function activeOverride(record: Pick<CircuitRecord, 'override'>, now: number): CircuitOverride | undefined {
  const { override } = record
  return override === undefined || (override.until !== undefined && now >= override.until) ? undefined : override
}

/** When an open circuit may be probed: as stored, but never later than `maxResetTimeout` after it opened. */
export function retryTime(record: CircuitRecord, settings: Pick<MachineSettings, 'maxResetTimeout'>): number {
  const { retryAt = 0, openedAt } = record
  return openedAt === undefined ? retryAt : Math.min(retryAt, openedAt + settings.maxResetTimeout)
}

function isRetryDue(record: CircuitRecord, now: number, settings: MachineSettings): boolean {
  const ahead = retryTime(record, settings) - now
  const longest = Math.min(record.resetTimeout ?? settings.resetTimeout, settings.maxResetTimeout)
  // An instant that is no number is reached as well: a circuit must not be open for ever.
  return ahead <= 0 || ahead > longest + clockTolerance || Number.isNaN(ahead - longest)
}

/** The leases that have not expired. */
export function liveLeases(record: CircuitRecord, now: number): readonly Lease[] {
  return record.leases.filter((lease) => isLive(lease, now))
}

/** Whether a lease has not expired. */
export function isLive(lease: Lease, now: number): boolean {
  const ahead = lease.expiresAt - now
  return ahead > 0 && ahead <= maxLease + clockTolerance
}

/**
 * Opens the circuit: too many failures, or a probe that failed. It stays open for `resetTimeout`, or for as long as the
 * service asked for if that is longer, but then no longer than `maxResetTimeout`.
 */
export function open(
  record: CircuitRecord,
  now: number,
  settings: MachineSettings,
  tokens: Tokens,
  failure: Failure | undefined,
): CircuitRecord {
  const resetTimeout = resetTimeoutAfter(failure, settings, record.trips, tokens.epoch)
  const lastFailure = failure && summaryOf(failure)
  return {
    ...changeState(record, 'OPEN', now, tokens),
    openedAt: now,
    closedAt: undefined,
    retryAt: now + resetTimeout,
    resetTimeout,
    trips: Math.min(record.trips + 1, largestCount),
    lastFailure: lastFailure ?? record.lastFailure,
  }
}

/**
 * How long the service is left alone after a failure, in milliseconds: longer with each trip in a row, or as the service asks.
 *
 * @param trips how many trips in a row there were before
 * @param epoch where trips are in a row, it makes the times differ by up to 10 %, so that circuits do not retry in step
 */
export function resetTimeoutAfter(
  failure: Failure | undefined,
  { resetTimeout, resetBackoff, maxResetTimeout }: MachineSettings,
  trips: number,
  epoch: string,
): number {
  const longer = Math.round(resetTimeout * resetBackoff ** trips * (trips === 0 ? 1 : jitter(epoch)))
  const asked = Math.min(failure?.retryAfter ?? 0, maxResetTimeout)
  return Math.max(resetBackoff === 1 ? resetTimeout : Math.min(longer, Math.max(resetTimeout, maxResetTimeout)), asked)
}

/** A number from 0.9 to 1.1 that a random token determines. */
function jitter(token: string): number {
  let sum = 0
  for (const character of token) sum = (31 * sum + character.charCodeAt(0)) % 2_001
  return 0.9 + sum / 10_000
}

/** The part of a failure that is stored. */
export function summaryOf({ retryAfter: _, ...summary }: Failure): FailureSummary {
  return summary
}

/**
 * Takes a lease for one probe; those that have expired make room for it where there is none. Only after {@link admit}
 * said `claim`.
 */
export function claim(
  record: CircuitRecord,
  now: number,
  lease: Lease,
  settings: MachineSettings,
  tokens: Tokens,
): CircuitRecord {
  if (record.state !== 'OPEN') {
    const hasRoom = record.leases.length < settings.halfOpenMaxConcurrent
    const others = hasRoom ? record.leases : liveLeases(record, now)
    return { ...record, version: tokens.version, leases: [...others, lease], updatedAt: now }
  }
  return { ...changeState(record, 'HALF_OPEN', now, tokens), leases: [lease] }
}

/**
 * Ends a probe: gives its lease back, counts it and changes the state if that is due, all in one write.
 *
 * @returns `undefined` if the lease is no longer in the record: then the outcome counts for nothing
 */
export function settle(
  record: CircuitRecord,
  leaseId: string,
  outcome: ProbeOutcome,
  now: number,
  settings: MachineSettings,
  tokens: Tokens,
  lastFailure: Failure | undefined,
): CircuitRecord | undefined {
  if (record.state !== 'HALF_OPEN' || activeOverride(record, now) !== undefined) return undefined
  const leases = record.leases.filter((lease) => lease.id !== leaseId)
  if (leases.length === record.leases.length) return undefined
  if (outcome === 'failure') {
    const counted = { ...record, failureCount: Math.min(record.failureCount + 1, largestCount), lastFailureAt: now }
    return open(counted, now, settings, tokens, lastFailure)
  }
  const successCount = Math.min(record.successCount + (outcome === 'success' ? 1 : 0), largestCount)
  return outcome === 'success' && successCount >= settings.halfOpenSuccessThreshold
    ? { ...close(record, now, tokens), closedAt: now }
    : { ...record, version: tokens.version, leases, successCount, updatedAt: now }
}

/** Closes the circuit: the counters start empty. */
export function close(record: CircuitRecord, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...changeState(record, 'CLOSED', now, tokens),
    failureCount: 0,
    reporterCount: 0,
    openedAt: undefined,
    closedAt: undefined,
    retryAt: undefined,
    resetTimeout: undefined,
  }
}

/** An operator's `forceOpen` or `forceClosed`; when it ends by itself, the circuit goes on from the forced state. */
export function force(
  record: CircuitRecord,
  override: CircuitOverride,
  settings: MachineSettings,
  tokens: Tokens,
): CircuitRecord {
  const { at, until } = override
  if (override.state === 'CLOSED') return { ...close(record, at, tokens), override }
  const opened = {
    ...changeState(record, 'OPEN', at, tokens),
    failureCount: 0,
    openedAt: at,
    retryAt: until ?? at + settings.resetTimeout,
    // An override that is over when it is set has lasted no time.
    resetTimeout: until === undefined ? settings.resetTimeout : Math.max(0, until - at),
  }
  return { ...opened, override }
}

/** An operator's `reset`: closed and empty, with no override and no past. */
export function reset(record: CircuitRecord, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...close(record, now, tokens),
    lastFailureAt: undefined,
    trips: 0,
    lastFailure: undefined,
    dismissals: 0,
    dismissedAt: undefined,
    noise: undefined,
    pace: undefined,
  }
}

/** The fields of a record under no suspicion, but for the failures and reporters, which an open circuit keeps as evidence. */
export const noSuspicion = { suspectedAt: undefined, successCount: 0, startedCount: 0, earlyCount: 0 } as const

/** A new state is a new epoch: outcomes of calls that were admitted before no longer count. */
function changeState(record: CircuitRecord, state: CircuitState, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...changed(record, now, tokens),
    epoch: tokens.epoch,
    generation: Math.min(record.generation + 1, largestCount),
    state,
    ...noSuspicion,
    leases: [],
    transitions: [...record.transitions, tokens.epoch].slice(-keptTransitions),
  }
}

/** The record with a new version, without an override that is over. */
export function changed(record: CircuitRecord, now: number, { version }: Tokens): CircuitRecord {
  return { ...record, version, override: undefined, updatedAt: now }
}
