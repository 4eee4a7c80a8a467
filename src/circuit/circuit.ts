/**
 * One service in this instance. Nothing in this folder waits: calls and answers come in, steps go out, and `sync/`
 * carries the steps out.
 *
 * Two records matter. The *cached record* is the store's last answer. The *view* is what calls are judged by. Normally the
 * two are equal. The view is ahead while a change of ours is on its way, and our own while the store is unreachable.
 *
 * Six machines work together here. Each owns its fields; this class couples them, and no other does.
 *
 * | machine | knows | hears of |
 * | --- | --- | --- |
 * | `CachedRecord` | the store's last answer, its age, which answers come too late | each answer, each failure of the store |
 * | `View` | the record that calls are judged by, epochs and periods | each change of the view, each epoch of the fleet |
 * | `Outbox` | outcomes that are not stored | ended calls and probes, replies to its writes |
 * | `ProbeClaims` | when this instance probes, and its lease | wishes, records, each epoch of the view |
 * | `Streak` | failures in a row of this instance's own calls | outcomes that count |
 * | `TransitionLog` | events that are due | writes that leave, records |
 *
 * The order inside taking an answer is fixed: cache, epoch, log, claims, observers, outbox, view, flag, events. The epoch
 * must be known before a lease is looked for; the log must prove our own transition before observers hear of the state;
 * the view and the flag `isQuiet` must be up to date before a listener looks at them.
 *
 * The file is longer than it should be: it is the one place that may touch more than one machine, and to cut it in two
 * would make two of them.
 *
 * One thing is ugly: a decision made alone (`claimAlone`, a trip while the store is away) lives in the view only, so that
 * `#isAhead` has to tell from the outbox whether the view still waits for something.
 *
 * @module
 */

import { type CircuitOpenError, type CircuitStorageError, isCircuitStorageError } from '../errors.ts'
import type { StateChange, StateChangeReason } from '../events.ts'
import type { Runtime } from '../runtime.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, WriteResult } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { CachedRecord, type Exchange } from './cached-record.ts'
import { Outbox, reportsFailures, stateChange } from './outbox.ts'
import { ProbeClaims } from './probe-claims.ts'
import { refusalOf } from './refusal.ts'
import {
  admit,
  claim,
  type Failure,
  liveFailureCount,
  open,
  type ProbeOutcome,
  retryTime,
  setFailureCount,
  settle,
  type Tokens,
  type Verdict,
} from './state-machine.ts'
import type { Replacement, Report, Step, Write } from './step.ts'
import { Streak } from './streak.ts'
import { TransitionLog } from './transition-log.ts'
import { View } from './view.ts'

/** The permission to run one probe. */
export interface ProbeLease {
  readonly id: string
  /** `true` if this instance granted it to itself while the store was away. */
  readonly isLocal: boolean
}

/** How the way to the store is doing. */
export interface Reachability {
  /** `false` while reading is left alone after failures. */
  readonly canRead: boolean
  /** `false` while writing is left alone after failures. */
  readonly canWrite: boolean
}

/** The surroundings that a circuit works with. */
export interface CircuitWorld {
  readonly runtime: Pick<Runtime, 'now' | 'random' | 'id'>
  readonly store: Reachability
  /** Whether other instances use the same store. */
  readonly isShared: boolean
  /** The longest that a round trip to the store may take, in milliseconds. */
  readonly storageTimeout: number
  /** Takes the events when the view is up to date. */
  readonly emit: (change: StateChange) => void
  /** Is called when the view begins to refuse calls, with what makes the error of each. */
  readonly onRefusing: (error: () => CircuitOpenError) => void
}

/** The decision of an operator, made from the latest record. */
export type OperatorDecision = (record: CircuitRecord, now: number, tokens: Tokens) => CircuitRecord

/**
 * Of the instances whose record is older than their streak, this part looks at the record before it reports. When a service
 * dies under a large fleet, nearly all of them would write to a record that has long been open. The others tell the fleet
 * a round trip sooner.
 */
const lookingPart = 0.5

export class Circuit {
  readonly service: string
  readonly settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #cached: CachedRecord
  readonly #outbox: Outbox
  readonly #claims: ProbeClaims
  readonly #streak: Streak
  readonly #log: TransitionLog
  readonly #view: View
  /**
   * Whether a success changes nothing: the circuit is closed and no failure is known. Written by `#changed`. While it
   * is `false` without need, a success only takes the longer way.
   */
  #isQuiet = true

  constructor(service: string, settings: ServiceSettings, world: CircuitWorld) {
    const { runtime } = world
    this.service = service
    this.settings = settings
    this.#world = world
    this.#cached = new CachedRecord(settings.cacheTtl, runtime.random)
    this.#outbox = new Outbox(service, settings, runtime.id)
    this.#claims = new ProbeClaims(service, settings, runtime.id)
    this.#streak = new Streak(settings.window)
    this.#log = new TransitionLog(service)
    this.#view = new View(runtime.id())
  }

  // ---------------------------------------------------------------------------------------------------- admission

  /** The record that calls are judged by. */
  get view(): CircuitRecord {
    return this.#view.record
  }

  /** The number of the view's epoch: an outcome counts in the period in which its call was admitted. */
  get period(): number {
    return this.#view.period
  }

  /** Whether a success of a call of this period changes nothing. */
  get isQuiet(): boolean {
    return this.#isQuiet
  }

  /** The verdict on a call at `now`. */
  admit(now: number): Verdict {
    const view = this.#view.record
    const verdict = admit(view, now, this.settings)
    if (verdict === 'claim' && view.state === 'OPEN') {
      const late = now - retryTime(view, this.settings)
      return late >= 0 && (late < this.#claims.delay || this.#leavesProbesToOthers(now)) ? 'open' : 'claim'
    }
    return verdict === 'probing' && this.#claims.isReady(this.#cached.current, now) ? 'claim' : verdict
  }

  #leavesProbesToOthers(now: number): boolean {
    if (!this.#world.isShared || this.isAlone || this.#cached.isStale(now)) return false
    return this.#claims.leavesToOthers(this.#view.record, this.#cached.readAt)
  }

  /** The error for a call that is refused. */
  refusal(verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
    const { delay } = this.#claims
    const { staleAt } = this.#cached
    const { storageTimeout } = this.#world
    return refusalOf(
      { service: this.service, settings: this.settings, view: this.#view.record, delay, staleAt, storageTimeout },
      verdict,
      now,
    )
  }

  /** The store is away, or what it holds for this service is damaged. */
  get isAlone(): boolean {
    return this.#cached.isDamaged || !this.#world.store.canWrite
  }

  // ------------------------------------------------------------------------------------------------------- probes

  /** A call wants to probe; `next` has the steps from here on. */
  wish(duration: number, requestId: string | undefined): void {
    const mayHaveChanged = this.#world.isShared && this.#cached.readAt < retryTime(this.#view.record, this.settings)
    this.#claims.wish({ duration, requestId, looksFirst: mayHaveChanged || this.#view.record !== this.#cached.current })
  }

  /** Nobody waits for the wish any more. */
  withdraw(): void {
    this.#claims.withdraw()
  }

  /** A call that waits for nobody else's claim asks the store for a probe. */
  asked(): void {
    this.#claims.asked()
  }

  /** Whether a lease lies ready that no call uses. */
  get hasReadyLease(): boolean {
    return this.#claims.hasReady
  }

  /** Forgets a lease that lies ready and has expired. */
  dropExpiredLease(): void {
    if (!this.#claims.isReady(this.#cached.current, this.#now())) this.#claims.dropReady()
  }

  /** Hands out the lease that lies ready; `undefined` if there is none, or another probe has ended the half-open state. */
  takeLease(): ProbeLease | undefined {
    if (!this.#claims.hasReady || this.#view.record.state !== 'HALF_OPEN') return undefined
    return { id: this.#claims.takeReady() as string, isLocal: false }
  }

  /** Gives back a lease that was granted too late for the call that claimed it: others may probe sooner. */
  releaseReadyLease(): void {
    const id = this.#claims.takeReady()
    if (id !== undefined) this.probeEnded({ id, isLocal: false }, 'release', this.#now(), undefined, undefined)
  }

  /** Whether this instance should go on alone: it wants to probe, and the store has not answered. */
  get mayClaimAlone(): boolean {
    if (this.#claims.unanswered === 0 || this.#claims.hasReady || this.admit(this.#now()) !== 'claim') return false
    return this.isAlone || this.#claims.unanswered > 1
  }

  /** Grants this instance a probe of its own. */
  claimAlone(duration: number): ProbeLease {
    const { runtime } = this.#world
    const now = runtime.now()
    const lease = this.#claims.leaseUntil(runtime.id(), now, duration)
    this.#setView(claim(this.#view.record, now, lease, this.settings, this.#tokens()))
    this.#observeView(now)
    return { id: lease.id, isLocal: true }
  }

  /** A probe ended. */
  probeEnded(
    lease: ProbeLease,
    outcome: ProbeOutcome,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
  ): void {
    const tokens = this.#tokens()
    if (outcome === 'success') this.#streak.succeeded(at)
    const next = settle(this.#view.record, lease.id, outcome, at, this.settings, tokens, lastFailure)
    if (next !== undefined) this.#setView(next)
    if (!lease.isLocal) {
      this.#outbox.addSettlement({ leaseId: lease.id, outcome, at, lastFailure, requestId, epoch: tokens.epoch })
      this.#standAloneIfCutOff()
    } else if (next !== undefined) {
      if (outcome === 'failure') {
        this.#outbox.addFailures(1, { period: this.#view.period, at, lastFailure, requestId, looksFirst: false })
        this.#outbox.toBacklog()
      }
      if (outcome === 'success') this.#addSuccess(at, requestId)
      this.#observeView(at)
    }
  }

  // ----------------------------------------------------------------------------------------------------- outcomes

  /** A call of `period` succeeded, and {@link isQuiet} says that nothing hangs on it. */
  callSucceededQuietly(at: number): void {
    this.#streak.noteSuccess(at)
  }

  /** A call that was admitted in `period` succeeded. */
  callSucceeded(period: number, at: number, requestId: string | undefined): void {
    if (!this.#view.counts(period, at)) return
    this.#streak.succeeded(at)
    this.#addSuccess(at, requestId)
    this.#changed()
  }

  /** A call that was admitted in `period` failed. */
  callFailed(period: number, at: number, lastFailure: Failure, requestId: string | undefined): void {
    if (!this.#view.counts(period, at)) return
    this.#takeFailure(at, lastFailure, requestId)
    this.#changed()
  }

  #takeFailure(at: number, lastFailure: Failure, requestId: string | undefined): void {
    const { runtime, isShared } = this.#world
    const { failureThreshold } = this.settings
    const streak = this.#streak
    const isOlderThanStreak = this.#cached.readAt < streak.lastFailureAt
    streak.failed(at)
    const mayHaveChanged = streak.isWithheld && isOlderThanStreak && isShared
    const looksFirst = mayHaveChanged && streak.length < failureThreshold && runtime.random() < lookingPart
    const stored = this.#storedCount(at)
    // An isolated failure of a service that works is withheld until a second one follows. A count that is complete although
    // nobody opened the circuit needs no second one.
    if (streak.length === 1 && failureThreshold > 1 && streak.hasSucceeded(at) && stored < failureThreshold) {
      streak.withhold()
      return
    }
    this.#outbox.addFailures(streak.takeFailures(), {
      period: this.#view.period,
      at,
      lastFailure,
      requestId,
      looksFirst,
    })
    const count = Math.max(streak.length, this.#outbox.count(stored))
    if (count >= failureThreshold) this.#tripView(count, at, lastFailure)
    this.#standAloneIfCutOff()
  }

  /** A success is written only if there is something to end. */
  #addSuccess(at: number, requestId: string | undefined): void {
    if (this.#storedCount(at) === 0 && !this.#outbox.hasReport) return
    this.#outbox.addSuccess(this.#view.period, at, requestId)
  }

  /** The fleet's failures in a row that are stored. */
  #storedCount(at: number): number {
    const record = this.#cached.current
    return record?.state === 'CLOSED' ? liveFailureCount(record, at, this.settings.window) : 0
  }

  /** This instance refuses from now on. The write that is on its way decides whether the fleet does. */
  #tripView(count: number, at: number, lastFailure: Failure | undefined): void {
    const tokens = this.#tokens(this.#outbox.beginTrip())
    const counted = setFailureCount(this.#view.record, count, at, this.settings, tokens)
    this.#setView(open(counted, at, this.settings, tokens, lastFailure))
  }

  // -------------------------------------------------------------------------------------------------------- steps

  /** Whether anything waits to be stored. */
  get hasWork(): boolean {
    return !this.#outbox.isEmpty
  }

  /** Whether anything waits that can be written now. */
  get canWork(): boolean {
    return this.hasWork && !this.isAlone && !this.#waitsForRead
  }

  /** The next thing to be done at the store; `undefined`: nothing, or nothing for now. */
  next(): Step | undefined {
    if (this.#cached.isDamaged) return undefined
    const now = this.#now()
    const mayFollow = this.#outbox.hasSettlement || this.#outbox.tripEpoch !== undefined
    const { isOutOfTouch, current: record } = this.#cached
    const { canRead } = this.#world.store
    const { epoch, since } = this.#view
    const step = this.#outbox.next({ record, epoch, since, now, isOutOfTouch, canRead })
    // An outcome may have been dropped that the view waited for. Keep a decision made alone until the store answers.
    if (mayFollow && !isOutOfTouch) this.#followRecord()
    return step ?? this.#claims.next(record, now, this.admit(now) === 'claim')
  }

  /** A backlog comes next, which needs a read, and reading is left alone. */
  get #waitsForRead(): boolean {
    return !this.#world.store.canRead && this.#cached.isOutOfTouch && this.#outbox.needsFreshRecord
  }

  /** A request leaves. */
  begin(): Exchange {
    return this.#cached.begin(this.#now())
  }

  /** A write leaves. */
  sent(write: Write): void {
    this.#outbox.sent(write)
    if (write.change !== undefined) this.#log.sent(write.next.epoch, write.version, write.change)
  }

  /**
   * The reply to a write, in time or late.
   *
   * @returns whether it is stored, by this attempt or by an earlier one
   */
  answered(write: Write, exchange: Exchange, reply: WriteResult): boolean {
    const { applied, current } = reply
    const isOwn = write.next !== undefined && current?.version === write.next.version
    const isProven = write.change !== undefined && current?.transitions.includes(write.next.epoch) === true
    const isStored = applied || isOwn || isProven
    // A read that has overtaken this reply may have ruled the transition out.
    if (isStored && write.change !== undefined) this.#log.sent(write.next.epoch, write.version, write.change)
    const isOvertaken = this.#cached.isOvertaken(exchange, write, reply)
    if (isOvertaken) this.#log.proven(current)
    else this.#take(current ?? (applied ? write.next : undefined), exchange.sentAt)
    // The cached record may lack this addition: a backlog is measured by a fresh one.
    if (isOvertaken && isStored && write.kind === 'add') this.#cached.doubt()
    const { cause } = write
    if (cause.kind === 'claim') this.#claims.answered()
    const hasReported = this.#outbox.answered(write, isStored)
    if (isStored && reportsFailures(write)) this.#claims.involve()
    if (hasReported && cause.kind === 'report') this.#afterCounting(cause, write)
    // Keep a decision made alone until the store answers: a reply that was overtaken is no news.
    if (isOvertaken && this.#cached.isOutOfTouch) this.#changed()
    else this.#followRecord()
    return isStored
  }

  /** The failure that completes the count opens the circuit. If a mere backlog completed it, the next failure of anyone does. */
  #afterCounting(report: Report, write: Write): void {
    const { failureThreshold } = this.settings
    const total = this.#storedCount(report.at)
    if (total < failureThreshold || report.failures === report.backlog) return
    const added = write.kind === 'add' ? write.increment.count : write.next.failureCount
    if (total - added < failureThreshold) this.#outbox.tripIsDue(report)
    if (this.#view.record.state === 'CLOSED') this.#tripView(total, report.at, report.lastFailure)
  }

  /** A request for this circuit has failed: what waits is a backlog now, and what this instance decided it decided alone. */
  storeFailed(error: unknown): void {
    if (isCircuitStorageError(error) && error.corrupt) this.#cached.damaged()
    this.#standAlone()
  }

  /** An outcome that cannot be written now is a backlog from the start. */
  #standAloneIfCutOff(): void {
    if (this.isAlone || this.#waitsForRead) this.#standAlone()
  }

  #standAlone(): void {
    this.#cached.doubt()
    this.#outbox.toBacklog()
    this.#observeView(this.#now())
  }

  // ------------------------------------------------------------------------------------------------------ answers

  isStale(now: number): boolean {
    return this.#cached.isStale(now)
  }

  isAging(now: number): boolean {
    return this.#cached.isAging(now)
  }

  /** The record as it is stored, as far as this instance knows. */
  get stored(): CircuitRecord | undefined {
    return this.#cached.current
  }

  /** The answer to a read, in time or late. A read that was overtaken by another answer is discarded. */
  readAnswered(exchange: Exchange, reply: CircuitRecord | CircuitStorageError | undefined): void {
    if (isCircuitStorageError(reply)) {
      if (reply.corrupt) this.#cached.damaged(exchange.sentAt)
      return
    }
    this.#cached.heard(exchange)
    if (this.#cached.isLate(exchange)) {
      this.#log.proven(reply)
      this.#changed()
    } else {
      this.#take(reply, exchange.sentAt)
      this.#followRecord()
    }
  }

  /** Takes an answer that is the latest: cache, epoch, log, claims, observers. */
  #take(record: CircuitRecord | undefined, sentAt: number): void {
    const before = this.#cached.current
    this.#cached.take(record, sentAt)
    const epoch = record?.epoch ?? (before === undefined ? this.#view.epoch : this.#world.runtime.id())
    if (epoch !== this.#view.epoch) this.#beginEpoch(epoch, record, before === undefined && record?.generation === 0)
    this.#log.arrived(record)
    this.#claims.arrived(record)
    this.#log.observe(record ?? emptyRecord(epoch, sentAt), sentAt)
  }

  #beginEpoch(epoch: string, record: CircuitRecord | undefined, isContinued: boolean): void {
    this.#claims.epochBegan(record, isContinued)
    const isViewed = this.#view.record.epoch === epoch
    this.#view.epochBegan(epoch, isContinued)
    if (isContinued) return
    this.#outbox.epochBegan(this.#view.since)
    if (!isViewed) this.#streak.end()
  }

  /** The record was deleted. */
  cleared(): void {
    this.#outbox.clear()
    this.#take(undefined, this.#now())
    this.#cached.cleared()
    this.#followRecord()
  }

  /** The view follows the record, except while it is ahead of it. Then the events fire. */
  #followRecord(): void {
    if (!this.#isAhead()) this.#setView(this.#cached.current ?? emptyRecord(this.#view.epoch, this.#cached.readAt))
    this.#changed()
  }

  /** Whether the view shows a change that is still being written. */
  #isAhead(): boolean {
    const record = this.#cached.current
    const view = this.#view.record
    const outbox = this.#outbox
    if (outbox.hasSettlement) return record?.state === 'HALF_OPEN'
    if (view.epoch !== outbox.tripEpoch) return false
    if (outbox.mayTrip) return true
    // The count is complete, so that another instance is about to open the circuit; if it dies, the next failure does.
    const now = this.#now()
    const isComplete = this.#storedCount(now) >= this.settings.failureThreshold
    return isComplete && now - (view.openedAt ?? now) < 2 * this.#world.storageTimeout
  }

  #setView(view: CircuitRecord): void {
    if (!this.#view.show(view)) return
    if (this.#outbox.tripEpoch !== view.epoch) this.#outbox.endTrip()
    const { isShared, runtime, onRefusing } = this.#world
    this.#claims.drawDelay(isShared, runtime.random)
    const now = runtime.now()
    const verdict = this.admit(now)
    // A call that waits for a permit is refused at once.
    if (verdict !== 'pass' && verdict !== 'claim') onRefusing(() => this.refusal(verdict, now))
  }

  #observeView(at: number): void {
    this.#log.observe(this.#view.record, at)
    this.#changed()
  }

  /** Ends a change: writes the flag, then fires the events, so that a listener finds the flag up to date. */
  #changed(): void {
    const { state, override } = this.#view.record
    const hasFailures = (this.#cached.current?.failureCount ?? 0) > 0 || this.#streak.length > 0
    this.#isQuiet = state === 'CLOSED' && override === undefined && !hasFailures && !this.#outbox.hasReport
    for (const change of this.#log.takeDue()) this.#world.emit(change)
  }

  // ----------------------------------------------------------------------------------------------------- operators

  /** Prepares an operator's work: each call decides again, from the latest record, what to write. */
  beginOperation(reason: StateChangeReason, decide: OperatorDecision): () => Replacement {
    const { epoch } = this.#tokens()
    return () => {
      const now = this.#now()
      const record = this.#cached.current
      const from = record ?? emptyRecord(this.#view.epoch, now)
      const next = decide(from, now, this.#tokens(epoch))
      const change = stateChange(this.service, from, next, reason, now, undefined)
      return { kind: 'replace', version: record?.version, next, change, cause: { kind: 'operation' } }
    }
  }

  // ------------------------------------------------------------------------------------------------------ snapshot

  /** Failures in a row, as far as this instance knows. */
  get failureCount(): number {
    if (this.#view.record.state !== 'CLOSED') return this.#view.record.failureCount
    const now = this.#now()
    return Math.max(this.#streak.liveLength(now), this.#outbox.count(this.#storedCount(now)))
  }

  #now(): number {
    return this.#world.runtime.now()
  }

  #tokens(epoch: string = this.#world.runtime.id()): Tokens {
    return { epoch, version: this.#world.runtime.id() }
  }
}
