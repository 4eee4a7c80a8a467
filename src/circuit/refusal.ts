/**
 * The error of a call that is refused, with the time after which another try can succeed. It is computed from what is
 * known at that moment and changes nothing.
 *
 * @module
 */

import { type CircuitName, CircuitOpenError, type RefusalReason } from '../errors.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import { liveLeases, retryTime, type Verdict } from './state-machine.ts'

/** A circuit that refuses a call, as far as it is known. Times are milliseconds, instants since the epoch. */
export interface Refusal extends CircuitName {
  readonly settings: ServiceSettings
  readonly view: CircuitRecord
  /** How much later than `retryAt` this instance probes. */
  readonly delay: number
  /** When the record is read again. */
  readonly staleAt: number
  readonly storageTimeout: number
}

/** The error for a call that is refused at `now`. */
export function refusalOf(refusal: Refusal, verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
  const { service, key, view } = refusal
  const reason: RefusalReason = verdict === 'claim' ? 'unclaimed' : verdict
  // Whole milliseconds, and never too early: instances spread their claims out by fractions of one.
  const retryAfter = Math.ceil(Math.max(0, waitFor(refusal, verdict, now)))
  const { openedAt, lastFailure } = view
  const { by, why } = (verdict === 'forced' && view.override) || {}
  const name = key === undefined ? { service } : { service, key }
  return new CircuitOpenError({ ...name, retryAfter, openedAt, lastFailure, reason, by, why })
}

/** How long it takes until another try can succeed. */
function waitFor(refusal: Refusal, verdict: Exclude<Verdict, 'pass'>, now: number): number {
  const { view, settings, delay, staleAt, storageTimeout } = refusal
  const { resetTimeout, cacheTtl } = settings
  if (verdict === 'open') {
    const due = retryTime(view, settings) + delay
    return (now >= due ? staleAt : due) - now
  }
  if (verdict === 'forced') {
    const { until = now + resetTimeout } = view.override ?? {}
    return until - now
  }
  if (verdict === 'claim') return storageTimeout
  if (verdict === 'ramping') return (view.closedAt ?? now) + (settings.rampUp || 0) - now
  const expiries = liveLeases(view, now).map((lease) => lease.expiresAt - now)
  return Math.min(resetTimeout, Math.max(cacheTtl, 1_000), ...expiries)
}
