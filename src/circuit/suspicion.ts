/**
 * The fleet's verdict on a service: pure functions of a closed circuit's record, a time and the settings.
 *
 * A failure only raises a suspicion. The outcomes that follow decide: everyone who knows of the suspicion reports the
 * outcomes of calls that began afterwards, successes as well as failures. They are an unbiased sample of the service as it
 * is now; the failures that raised the suspicion, and those that merely ran into it, are not. So the latter are counted
 * apart, once per instance, and join when the suspicion is a second old.
 *
 * It is a sequential test. Each failure weighs 1, each success −d. The circuit opens when the sum reaches the threshold T;
 * the suspicion is dismissed at −T. T grows with the suspicions that were dismissed, so that the number of false verdicts
 * is bounded, whatever the size of the fleet.
 *
 * As long as no second instance has been heard, nobody can contradict the first: then its own failures in a row count.
 *
 * @module
 */

import type { CircuitRecord } from '../storage/contract.ts'
import {
  activeOverride,
  changed,
  clockTolerance,
  type Failure,
  noSuspicion,
  summaryOf,
  type Tokens,
} from './state-machine.ts'

/** The settings that a verdict depends on. Times in milliseconds, `failureRateThreshold` in per cent. */
export interface VerdictSettings {
  readonly failureThreshold: number
  readonly failureRateThreshold: number
  readonly window: number
  readonly cacheTtl: number
}

/** The state of a suspicion: none; not decided; `guilty`: the circuit is to be opened; `innocent`: it is to be dismissed. */
export type Suspicion = 'none' | 'open' | 'guilty' | 'innocent'

/** In this time those for whom the service works can say so, in milliseconds. */
const youth = 1_000
/** Others are known for this long after one was heard, in milliseconds. */
const othersAreKnownFor = 600_000
/** Chances below this are left out of account. */
const impossible = 1e-5
/** Dismissals fade by a factor of e in this time, in milliseconds. */
const dismissalsFadeIn = 3_600_000

/** The suspicion against a service at `now`. One that has outlived its `window` has come to nothing. */
export function suspicion(record: CircuitRecord | undefined, now: number, settings: VerdictSettings): Suspicion {
  if (record?.suspectedAt === undefined || activeOverride(record, now) !== undefined) return 'none'
  const age = now - record.suspectedAt
  if (age > settings.window || age < -clockTolerance) return 'innocent'
  const { failureCount, successCount, earlyCount, startedCount } = record
  const isYoung = age < youth
  // In its first second calls that have not ended are taken for successes: those take longer than a refused connection.
  const pending = isYoung ? Math.max(0, startedCount - failureCount - successCount) : 0
  const early = joins(record, now, settings) ? earlyCount : 0
  const threshold = thresholdOf(record, now, settings)
  if (failureCount + early - weigh(successCount + pending, settings) >= threshold) return 'guilty'
  return failureCount - weigh(successCount, settings) <= -threshold ? 'innocent' : 'open'
}

/**
 * Whether failures that ran into a suspicion count: when the others have had time to contradict, unless the sample knows
 * better. Where others are known, one instance does not open the circuit by its share and its failure that ran into it.
 */
function joins(record: CircuitRecord, now: number, settings: VerdictSettings): boolean {
  const { suspectedAt = now, othersAt, reporterCount, successCount } = record
  const joinsAfter = othersAt === undefined ? youth : timeToRead(settings)
  if (successCount > 0 || now - suspectedAt < joinsAfter) return false
  return reporterCount > 1 || isAlone(record, now, settings)
}

/**
 * All instances that are at work have read the record in this time, in milliseconds. It is a part of the window: a suspicion
 * that ends before that would come to nothing for ever.
 */
function timeToRead({ cacheTtl, window }: VerdictSettings): number {
  return Math.max(youth, Math.min(cacheTtl, window / 4))
}

/** The weight of successes, in failures. */
function weigh(successes: number, { failureRateThreshold: rate }: VerdictSettings): number {
  return successes === 0 ? 0 : (rate / (100 - rate)) * successes
}

/** The evidence that a verdict needs. */
function thresholdOf(record: CircuitRecord, now: number, settings: VerdictSettings): number {
  const { failureThreshold } = settings
  if (failureThreshold === 1 || isAlone(record, now, settings)) return failureThreshold
  return failureThreshold + Math.ceil(caution(noiseOf(record)) * Math.log2(1 + dismissalsAt(record, now)) - 1e-9)
}

/**
 * The part of a failure that one doubling of the dismissals adds to the threshold. Where dismissed samples were nearly free
 * of failures, each failure says more: a false verdict needs T of them in a row, whose chance is (p / (1 − p))ᵀ.
 */
function caution(noise: number): number {
  return Math.min(1, 0.85 / Math.log((1 - noise) / noise))
}

/**
 * Whether calls are announced when they begin: the suspicion is young, and the noise by itself could bring the failures that
 * are missing before the first success can be heard.
 */
export function wantsAnnouncements(record: CircuitRecord, now: number, settings: VerdictSettings): boolean {
  const { suspectedAt = 0, failureCount } = record
  const missing = thresholdOf(record, now, settings) - failureCount
  return now - suspectedAt < youth && noiseOf(record) ** missing > impossible
}

/** How many failures one instance may contribute to a suspicion while others are known: half of what is needed. */
export function longestShare(record: CircuitRecord, now: number, settings: VerdictSettings): number {
  return Math.ceil(thresholdOf(record, now, settings) / 2)
}

/**
 * Whether nobody can contradict the instance that raised the suspicion: no second one is known, or none has been heard in
 * the time in which all of them have read the record, and reported.
 */
export function isAlone(record: CircuitRecord, now: number, settings: VerdictSettings): boolean {
  const { reporterCount, suspectedAt = now } = record
  return !knowsOthers(record, now) || (reporterCount <= 1 && now - suspectedAt >= 2 * timeToRead(settings))
}

/** Whether others may see it differently, and are asked: a threshold of 1 means what it says. */
export function isContradictable(
  record: CircuitRecord | undefined,
  now: number,
  { failureThreshold }: Pick<VerdictSettings, 'failureThreshold'>,
): boolean {
  return failureThreshold > 1 && knowsOthers(record, now)
}

/** Whether a second instance has been heard, in this suspicion or lately. */
export function knowsOthers(record: CircuitRecord | undefined, now: number): boolean {
  const { reporterCount = 0, othersAt } = record ?? {}
  return reporterCount > 1 || (othersAt !== undefined && Math.abs(now - othersAt) < othersAreKnownFor)
}

/** The part of the calls that fails while nothing is wrong, before anything is known of it. */
const priorNoise = 0.3
/** The noise is never taken for less or more. With more than half, failures in a row would say less than one. */
const [leastNoise, mostNoise] = [0.005, 0.45] as const
/** It is measured over about so many calls of dismissed samples. */
const noiseMemory = 40
/** So many outcomes in a second are reported under a suspicion. */
const longestPace = 50
/** No fleet has more outcomes in a second, nor more dismissals: a record that says so is not believed. */
const [highestPace, mostDismissals] = [1_000_000, 1_000] as const

function noiseOf(record: CircuitRecord | undefined): number {
  return Math.min(mostNoise, Math.max(leastNoise, record?.noise ?? priorNoise))
}

/** The noise with the sample of a dismissed suspicion. */
function noiseWith(record: CircuitRecord): number {
  const { failureCount, successCount } = record
  const measured = (noiseOf(record) * noiseMemory + failureCount) / (noiseMemory + failureCount + successCount)
  return Math.round(10_000 * noiseOf({ ...record, noise: measured })) / 10_000
}

/** The suspicions that were dismissed, of which old ones have faded. */
export function dismissalsAt(record: CircuitRecord | undefined, now: number): number {
  const { dismissals = 0, dismissedAt = now } = record ?? {}
  return Math.min(mostDismissals, dismissals) * Math.exp(-Math.max(0, now - dismissedAt) / dismissalsFadeIn)
}

/** Whether a suspicion has come to nothing since a failure at `at`. A clock that is not believed does not say so. */
export function wasDismissedSince({ dismissedAt }: CircuitRecord, at: number, now: number): boolean {
  return dismissedAt !== undefined && dismissedAt >= at && dismissedAt <= now + clockTolerance
}

/** One more suspicion has come to nothing. */
export function countDismissal(record: CircuitRecord, now: number): Pick<CircuitRecord, 'dismissals' | 'dismissedAt'> {
  return { dismissals: Math.round(1_000 * dismissalsAt(record, now)) / 1_000 + 1, dismissedAt: now }
}

/**
 * How likely failures in a row are to raise a suspicion: the more suspicions have come to nothing, the more it takes. Every
 * suspicion costs the fleet some ten writes.
 */
export function raisingChance(record: CircuitRecord | undefined, failures: number, now: number): number {
  const { dismissedAt = now } = record ?? {}
  const recent = dismissalsAt(record, now) * Math.exp(-Math.max(0, now - dismissedAt) / 60_000)
  return (0.5 / noiseOf(record)) ** (failures - 1) / (1 + recent)
}

/**
 * How likely an instance that learns of a suspicion is to report: so that a large fleet sends no more outcomes than one
 * item can take. More are wanted where those that are known lean to an outage. It is drawn before the first outcome of this
 * instance is known, so that the sample stays as it is.
 */
export function reportingChance({ pace = 0, failureCount, successCount }: CircuitRecord): number {
  const wanted = failureCount >= successCount + 2 ? 4 * longestPace : longestPace
  return Math.min(1, wanted / Math.min(highestPace, pace))
}

/** The outcomes in a second that instances would report if all of them did, as the last dismissed sample shows. */
function paceOf(record: CircuitRecord, now: number): number | undefined {
  const { failureCount, successCount, startedCount, suspectedAt = now } = record
  // Clocks are apart.
  if (now < suspectedAt) return record.pace
  const seconds = Math.max(50, now - suspectedAt) / 1_000
  const pace = Math.max(failureCount + successCount, startedCount) / seconds / reportingChance(record)
  return Math.min(highestPace, Math.round(pace))
}

/** The failures that raise a suspicion. */
export interface Cause {
  /** How many in a row this instance has seen. */
  readonly failures: number
  /** When the last of them happened, in milliseconds since the epoch. */
  readonly at: number
  readonly lastFailure: Failure | undefined
}

/** Raises a suspicion against the service of a closed circuit. */
export function raise(
  record: CircuitRecord,
  now: number,
  { failures, at, lastFailure }: Cause,
  settings: VerdictSettings,
  tokens: Tokens,
): CircuitRecord {
  const runsIntoIt = isContradictable(record, now, settings)
  const rested = Math.max(record.lastFailureAt ?? 0, record.updatedAt) + settings.window < at
  return {
    ...changed(record, now, tokens),
    suspectedAt: at,
    failureCount: runsIntoIt ? 0 : failures,
    successCount: 0,
    startedCount: runsIntoIt ? 0 : failures,
    earlyCount: runsIntoIt ? 1 : 0,
    reporterCount: 1,
    lastFailureAt: at,
    lastFailure: lastFailure === undefined ? record.lastFailure : summaryOf(lastFailure),
    trips: rested ? 0 : record.trips,
  }
}

/** Dismisses a suspicion: the sample has spoken for the service. */
export function dismiss(record: CircuitRecord, now: number, tokens: Tokens): CircuitRecord {
  return {
    ...changed(record, now, tokens),
    // One that has ended with its window, and with more failures than successes, was no false alarm.
    ...(record.failureCount <= record.successCount && { ...countDismissal(record, now), noise: noiseWith(record) }),
    ...lessonOf(record, now),
    ...noSuspicion,
    failureCount: 0,
    reporterCount: 0,
  }
}

/** The knowledge of the fleet that outlives a suspicion. */
export function lessonOf(record: CircuitRecord, now: number): Pick<CircuitRecord, 'othersAt' | 'pace'> {
  return { othersAt: record.reporterCount > 1 ? now : record.othersAt, pace: paceOf(record, now) }
}
