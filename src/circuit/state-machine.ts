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
  readonly failureThreshold: number
  readonly resetTimeout: number
  readonly halfOpenSuccessThreshold: number
  readonly halfOpenMaxConcurrent: number
  readonly window: number
  readonly maxResetTimeout: number
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
 * are in flight (`probing`) or because an operator `forced` it open.
 */
export type Verdict = 'pass' | 'claim' | 'open' | 'probing' | 'forced'

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
  if (record.override !== undefined) {
    const forced = activeOverride(record, now)
    if (forced !== undefined) return forced.state === 'OPEN' ? 'forced' : 'pass'
  }
  if (record.state === 'CLOSED') return 'pass'
  if (record.state === 'OPEN') return isRetryDue(record, now, settings) ? 'claim' : 'open'
  return liveLeases(record, now).length < settings.halfOpenMaxConcurrent ? 'claim' : 'probing'
}

/** The state that callers should act on: an open circuit reads HALF_OPEN once it may be probed. */
export function effectiveState(record: CircuitRecord, now: number, settings: MachineSettings): CircuitState {
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.state
  return record.state === 'OPEN' && isRetryDue(record, now, settings) ? 'HALF_OPEN' : record.state
}

/** The operator's override, while it holds. */
export function activeOverride(record: CircuitRecord, now: number): CircuitOverride | undefined {
  const { override } = record
  return override === undefined || (override.until !== undefined && now >= override.until) ? undefined : override
}

/** When an open circuit may be probed: as stored, but never later than `maxResetTimeout` after it opened. */
export function retryTime(record: CircuitRecord, settings: MachineSettings): number {
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

function isLive(lease: Lease, now: number): boolean {
  const ahead = lease.expiresAt - now
  return ahead > 0 && ahead <= maxLease + clockTolerance
}

/** The failures in a row that still count at `now`: none after a gap longer than `window`. */
export function liveFailureCount(record: CircuitRecord, now: number, window: number): number {
  return record.failureCount > 0 && isRecent(record.lastFailureAt, now, window) ? record.failureCount : 0
}

function isRecent(at: number | undefined, now: number, window: number): boolean {
  return at !== undefined && now - at <= window && at - now <= clockTolerance
}

/**
 * The streak begins anew with these failures, or ends with none of them: the count is set instead of added to.
 * The count of consecutive trips ends with it when a whole `window` has passed without a failure.
 */
export function setFailureCount(
  record: CircuitRecord,
  count: number,
  at: number,
  settings: MachineSettings,
  tokens: Tokens,
): CircuitRecord {
  return {
    ...record,
    version: tokens.version,
    failureCount: count,
    lastFailureAt: count > 0 ? at : record.lastFailureAt,
    trips: hasBeenIdle(record, at, settings.window) ? 0 : record.trips,
    override: undefined,
    updatedAt: at,
  }
}

/** Whether a whole `window` has passed since the circuit last failed or changed, so that old trips no longer count. */
function hasBeenIdle(record: CircuitRecord, at: number, window: number): boolean {
  return !isRecent(Math.max(record.lastFailureAt ?? 0, record.updatedAt), at, window)
}

/** The write for failures (after a success, if there was one) of a CLOSED circuit. */
export type CountDecision =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'increment'; readonly at: number }
  | { readonly kind: 'replace'; readonly next: CircuitRecord }
  | { readonly kind: 'trip'; readonly next: CircuitRecord }

/** Outcomes of a CLOSED circuit that wait to be written: never a sum, because a success ends what was before it. */
export interface Outcomes {
  /** Whether there was a success, before the failures. */
  readonly success: boolean
  /** How many failures followed. */
  readonly failures: number
  /** When the last of them happened. */
  readonly at: number
  readonly lastFailure: Failure | undefined
}

/** Decides at `now` how outcomes reach the record. They may have waited: a streak is never taken back in time. */
export function decideCount(
  record: CircuitRecord,
  outcomes: Outcomes,
  now: number,
  settings: MachineSettings,
  tokens: Tokens,
): CountDecision {
  const { success, failures, lastFailure } = outcomes
  if (record.state !== 'CLOSED' || activeOverride(record, now) !== undefined) return { kind: 'nothing' }
  const live = liveFailureCount(record, now, settings.window)
  const at = live > 0 ? Math.max(outcomes.at, record.lastFailureAt ?? 0) : outcomes.at
  if (failures === 0) {
    return success && live > 0
      ? { kind: 'replace', next: setFailureCount(record, 0, at, settings, tokens) }
      : { kind: 'nothing' }
  }
  const total = Math.min((success ? 0 : live) + failures, largestCount)
  if (total >= settings.failureThreshold) {
    const counted = setFailureCount(record, total, at, settings, tokens)
    return { kind: 'trip', next: open(counted, outcomes.at, settings, tokens, lastFailure) }
  }
  const startsAnew = record.failureCount > 0 && (success || live === 0)
  const endsTrips = record.trips > 0 && hasBeenIdle(record, at, settings.window)
  return startsAnew || endsTrips
    ? { kind: 'replace', next: setFailureCount(record, failures, at, settings, tokens) }
    : { kind: 'increment', at }
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
  const asked = Math.min(failure?.retryAfter ?? 0, settings.maxResetTimeout)
  const resetTimeout = Math.max(settings.resetTimeout, asked)
  const lastFailure = failure && summaryOf(failure)
  return {
    ...changeState(record, 'OPEN', now, tokens),
    openedAt: now,
    retryAt: now + resetTimeout,
    resetTimeout,
    trips: Math.min(record.trips + 1, largestCount),
    lastFailure: lastFailure ?? record.lastFailure,
  }
}

function summaryOf({ retryAfter: _, ...summary }: Failure): FailureSummary {
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
    ? close(record, now, tokens)
    : { ...record, version: tokens.version, leases, successCount, updatedAt: now }
}

/** Closes the circuit: the counters start empty. */
export function close(record: CircuitRecord, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...changeState(record, 'CLOSED', now, tokens),
    failureCount: 0,
    openedAt: undefined,
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
    resetTimeout: until === undefined ? settings.resetTimeout : until - at,
  }
  return { ...opened, override }
}

/** An operator's `reset`: closed and empty, with no override and no past. */
export function reset(record: CircuitRecord, now: number, tokens: Tokens): CircuitRecord {
  return { ...close(record, now, tokens), lastFailureAt: undefined, trips: 0, lastFailure: undefined }
}

/** A new state is a new epoch: outcomes of calls that were admitted before no longer count. */
function changeState(record: CircuitRecord, state: CircuitState, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...record,
    version: tokens.version,
    epoch: tokens.epoch,
    generation: Math.min(record.generation + 1, largestCount),
    state,
    successCount: 0,
    leases: [],
    override: undefined,
    transitions: [...record.transitions, tokens.epoch].slice(-keptTransitions),
    updatedAt: now,
  }
}
