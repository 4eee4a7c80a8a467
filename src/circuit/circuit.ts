/**
 * One service in this instance. Nothing in this folder waits: calls and answers come in, steps go out, and `sync/`
 * carries the steps out.
 *
 * Two records matter. The *cached record* is the store's last answer. The *view* is what calls are judged by. Normally the
 * two are equal. The view is ahead while a change of ours is on its way, and our own while the store is unreachable.
 *
 * Seven machines know something, and each alone writes its fields. Four classes work with them. `Circuit` is told what
 * happens at the store, and asked what comes next. `OwnCalls` is told how calls and probes end. `Stance` lets the view follow
 * and fires the events. `Admission` asks, and changes nothing.
 *
 * | machine | knows | hears of |
 * | --- | --- | --- |
 * | `CachedRecord` | the store's last answer, its age, which answers come too late | each answer, each failure of the store |
 * | `View` | the record that calls are judged by, epochs and periods | each change of the view (`Stance`), each epoch of the fleet |
 * | `Outbox` | outcomes that are not stored, the verdict that is due | ended calls and probes (`OwnCalls`), replies to its writes |
 * | `ProbeClaims` | when this instance probes, and its lease | wishes, records, the opening of the view (`Stance`) |
 * | `Streak` | failures in a row of this instance's own calls; whether it refuses by itself | outcomes that count (`OwnCalls`), epochs |
 * | `LoneDecision` | whether the view is a decision that this instance has made without the store | probes granted alone, records (`Stance`) |
 * | `TransitionLog` | events that are due | writes that leave, records, what this instance acts on (`Stance`) |
 *
 * The order inside taking an answer is fixed: cache, epoch, log, claims, observers, outbox, view, flag, events. The epoch
 * must be known before a lease is looked for; the log must prove our own transition before observers hear of the state;
 * the view and the flag `isQuiet` must be up to date before a listener looks at them.
 *
 * @module
 */

import { type CircuitOpenError, type CircuitStorageError, isCircuitStorageError } from '../errors.ts'
import type { StateChangeReason } from '../events.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, OperatorWords, WriteResult } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { Admission } from './admission.ts'
import { CachedRecord, type Exchange } from './cached-record.ts'
import { LoneDecision } from './lone-decision.ts'
import { Outbox } from './outbox.ts'
import { OwnCalls } from './own-calls.ts'
import { ProbeClaims, type ProbeLease } from './probe-claims.ts'
import { Stance } from './stance.ts'
import { stateChange } from './state-change.ts'
import { type Failure, type ProbeOutcome, retryTime, type Tokens, type Verdict } from './state-machine.ts'
import type { Replacement, Step, Write } from './step.ts'
import { Streak } from './streak.ts'
import { suspicion } from './suspicion.ts'
import { TransitionLog } from './transition-log.ts'
import { View } from './view.ts'
import type { CircuitWorld } from './world.ts'

/** The decision of an operator, made from the latest record. */
export type OperatorDecision = (record: CircuitRecord, now: number, tokens: Tokens) => CircuitRecord

export class Circuit {
  readonly service: string
  readonly key: string | undefined
  readonly settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #cached: CachedRecord
  readonly #outbox: Outbox
  readonly #claims: ProbeClaims
  readonly #streak: Streak
  readonly #alone: LoneDecision
  readonly #log: TransitionLog
  readonly #view: View
  readonly #admission: Admission
  readonly #stance: Stance
  readonly #calls: OwnCalls

  constructor(service: string, settings: ServiceSettings, world: CircuitWorld) {
    const { runtime } = world
    this.service = service
    this.key = world.key
    this.settings = settings
    this.#world = world
    const cached = new CachedRecord(settings, runtime.random)
    const outbox = new Outbox(service, settings, runtime.id)
    const claims = new ProbeClaims(service, settings, runtime.id, world.isShared)
    const streak = new Streak(settings)
    const alone = new LoneDecision(settings.resetTimeout)
    const log = new TransitionLog(service)
    const view = new View(runtime.id())
    const machines = { cached, outbox, claims, streak, alone, log, view }
    this.#cached = cached
    this.#outbox = outbox
    this.#claims = claims
    this.#streak = streak
    this.#alone = alone
    this.#log = log
    this.#view = view
    this.#admission = new Admission(service, settings, world, machines)
    this.#stance = new Stance(settings, world, this.#admission, machines)
    this.#calls = new OwnCalls(settings, world, this.#admission, this.#stance, machines)
  }

  // ---------------------------------------------------------------------------------------------------- admission

  /** The record that calls are judged by. */
  get view(): CircuitRecord {
    return this.#view.record
  }

  /** The present period: an outcome is judged by the period in which its call was admitted. */
  get period(): number {
    return this.#view.period
  }

  /** Whether a success of a call of this period changes nothing. */
  get isQuiet(): boolean {
    return this.#stance.isQuiet
  }

  /** The verdict on a call at `now`. */
  admit(now: number): Verdict {
    return this.#stance.admit(now)
  }

  /** The error for a call that is refused. */
  refusal(verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
    return this.#admission.refusal(verdict, now)
  }

  /** The record that this instance acts on: the view, or its own refusal. */
  get acting(): CircuitRecord {
    return this.#admission.acting
  }

  // ------------------------------------------------------------------------------------------------------- probes

  /** A call wants to probe; `next` has the steps from here on. */
  wish(duration: number, requestId: string | undefined): void {
    const mayHaveChanged = this.#world.isShared && this.#cached.readAt < retryTime(this.#view.record, this.settings)
    // No call waits for a lease that is asked for in advance: a look would save nothing.
    const mayLook = this.#admission.canRead && !this.#alone.isMade
    const looksFirst = mayLook && (mayHaveChanged || this.#view.record !== this.#cached.current)
    this.#claims.wish({ duration, requestId, looksFirst })
  }

  /** Nobody waits for the wish any more. */
  withdraw(): void {
    this.#claims.withdraw()
  }

  /** A call that waits for nobody else's claim asks the store for a probe. */
  asked(): void {
    this.#claims.asked()
    this.#alone.asked(this.#now())
  }

  /** Whether the store is to be asked again for a probe, though this instance has found by itself that the service works. */
  get asksAgain(): boolean {
    return this.#alone.isDue(this.#now()) && this.#world.store.canWrite
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
    if (id === undefined) return
    // The store can be written again, and no call has used the lease that was asked for in advance.
    if (this.#alone.isMade) {
      this.#alone.end()
      this.#stance.followRecord()
    }
    this.probeEnded({ id, isLocal: false }, 'release', this.#now())
  }

  /** Whether this instance should go on alone: it wants to probe, and the store has not answered. */
  get mayClaimAlone(): boolean {
    if (this.#claims.hasReady || this.admit(this.#now()) !== 'claim') return false
    const { unanswered, wasThrottled } = this.#claims
    return (unanswered > 0 && this.#admission.isAlone) || unanswered > 1 || (wasThrottled && this.#admission.isOverdue)
  }

  /** Whether a probe needs nobody's consent: the store cannot be asked, or this instance alone refuses. */
  get probesAlone(): boolean {
    return this.#admission.isAlone || this.#view.record.state === 'CLOSED'
  }

  /**
   * Whether the round goes on though the store did not let it look at the record: what comes next is conditional anyway. A
   * store that throttles is spared, but now and then.
   */
  lookFailed(error: unknown): boolean {
    const wasThrottled = isThrottled(error)
    const goesOn = !wasThrottled || this.#cached.throttle.goesOn || this.#admission.isOverdue
    const isLook = this.#claims.isReadyToAsk ? wasThrottled : this.#outbox.hasReport && !this.#outbox.needsFreshRecord
    return goesOn && isLook
  }

  /** Grants this instance a probe of its own. */
  claimAlone(duration: number): ProbeLease {
    return this.#calls.claimAlone(duration)
  }

  /** A probe ended. */
  probeEnded(lease: ProbeLease, outcome: ProbeOutcome, at: number, failure?: Failure, requestId?: string): void {
    this.#calls.probeEnded(lease, outcome, at, failure, requestId)
  }

  // -------------------------------------------------------------------------------------------------------- calls

  /** A call has been admitted at `now`: the period that it has to remember. */
  callStarted(now: number, requestId: string | undefined): number {
    return this.#calls.callStarted(now, requestId)
  }

  /** A call that was admitted in `period` succeeded. */
  callSucceeded(period: number, at: number, requestId: string | undefined): void {
    this.#calls.callSucceeded(period, at, requestId)
  }

  /**
   * A call that was admitted in `period` failed.
   *
   * @param startedAt when it began. A call of a quiet circuit may say any earlier time: no failure has come before it
   */
  callFailed(period: number, at: number, failure: Failure, requestId?: string, startedAt: number = at): void {
    this.#calls.callFailed(period, at, failure, requestId, startedAt)
  }

  /** Whether the last call of this instance that counted has failed, not longer than a `window` ago. */
  isFailingAt(now: number): boolean {
    return this.#streak.liveLength(now) > 0
  }

  // -------------------------------------------------------------------------------------------------------- steps

  /** Whether anything waits to be stored. */
  get hasWork(): boolean {
    return !this.#outbox.isEmpty || this.#isVerdictDue
  }

  get #isVerdictDue(): boolean {
    if (this.#cached.current?.suspectedAt === undefined) return false
    return suspicion(this.#cached.current, this.#now(), this.settings) !== 'open'
  }

  /** Whether it has nothing to do at the store, and time alone brings nothing about. */
  get isAtRest(): boolean {
    return !(this.hasWork || this.hasReadyLease || this.#alone.isMade) && this.stored?.suspectedAt === undefined
  }

  /** Whether anything waits that can be written now. */
  get canWork(): boolean {
    // Others wait for the end of a probe: it is told as soon as a store that throttles lets it.
    const isUrgent = this.#outbox.hasSettlement && this.#world.store.throttlesWrites
    return this.hasWork && (!this.#admission.isCutOff || isUrgent) && !this.#admission.waitsForRead
  }

  /** The next thing to be done at the store; `undefined`: nothing, or nothing for now. */
  next(): Step | undefined {
    if (this.#cached.isDamaged) return undefined
    const now = this.#now()
    const mayFollow = this.#outbox.hasSettlement
    const { isOutOfTouch, current: record, readAt } = this.#cached
    const canRead = this.#admission.canRead
    const { epoch, since } = this.#view
    const { lastFailure, length: row } = this.#streak
    const isHeldBack = this.#admission.isHeldBack(now)
    const known = { record, epoch, since, now, readAt, isOutOfTouch, canRead, isHeldBack, row, lastFailure }
    const step = this.#outbox.next(known)
    // An outcome may have been dropped that the view waited for.
    if (mayFollow) this.#stance.followRecord()
    const asksInAdvance =
      this.#alone.isMade && this.#view.record.state === 'CLOSED' && !this.#admission.leavesTurn(record, now)
    const mayClaim = asksInAdvance || this.admit(now) === 'claim'
    const next = step ?? this.#claims.next(record, now, mayClaim)
    this.#stance.changed()
    return next
  }

  /** A request leaves. */
  begin(): Exchange {
    return this.#cached.begin(this.#now())
  }

  /** A write leaves. */
  sent(write: Write): void {
    this.#outbox.sent(write)
    if (write.change !== undefined) this.#log.sent(write.next.epoch, write.change)
  }

  /**
   * The reply to a write, in time or late.
   *
   * @returns whether it is stored, by this attempt or by an earlier one
   */
  answered(write: Write, exchange: Exchange, reply: WriteResult): boolean {
    const { applied, current } = reply
    const { next, change } = write
    const isOwn = next !== undefined && current?.version === next.version
    const isProven = change !== undefined && current?.transitions.includes(write.next.epoch) === true
    const isStored = applied || isOwn || isProven
    // A read that has overtaken this reply may have ruled the transition out.
    if (change !== undefined && isStored) this.#log.sent(write.next.epoch, change)
    else if (change !== undefined) this.#log.refused(write.next.epoch, change)
    const isOvertaken = this.#cached.isOvertaken(exchange, write, reply)
    if (isOvertaken) this.#log.proven(current)
    else this.#take(current ?? (applied ? next : undefined), exchange.sentAt)
    // The cached record may lack this addition: a backlog is measured by a fresh one.
    if (isOvertaken && isStored && write.kind === 'add') this.#cached.doubt()
    const { cause } = write
    if (cause.kind === 'claim') this.#claims.answered()
    this.#outbox.answered(write, isStored)
    this.#stance.followRecord()
    return isStored
  }

  /** A request for this circuit has failed: what waits is a backlog now, and what this instance decided it decided alone. */
  storeFailed(error: unknown): void {
    if (isCircuitStorageError(error) && error.corrupt) this.#cached.damaged()
    if (isThrottled(error)) this.#claims.throttled()
    this.#calls.standAlone()
  }

  /** A read of this circuit has failed. */
  readFailed(error: unknown): void {
    this.#cached.doubt()
    if (!isThrottled(error)) return
    this.#cached.throttled(this.#now())
    // An outcome that waits until the record can be read is no news then.
    this.#outbox.toBacklog()
  }

  // ------------------------------------------------------------------------------------------------------ answers

  isStale(now: number): boolean {
    return this.#cached.isStale(now)
  }

  isAging(now: number): boolean {
    return this.#cached.isAging(now)
  }

  /** Whether the record, which the store does not let it read, is wanted so much that it is asked for by a write. */
  get readsByWriting(): boolean {
    return !this.#stance.isQuiet && this.#cached.throttle.triesWriting
  }

  /** That write was refused, too. */
  refusedWriting(): void {
    this.#cached.throttle.refusedWriting()
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
    const isOutdated = this.#cached.isOutdated(reply, this.#now())
    if (!isOutdated) this.#cached.heard(exchange)
    if (isOutdated || this.#cached.isLate(exchange)) {
      this.#log.proven(reply)
      this.#stance.changed()
    } else {
      this.#take(reply, exchange.sentAt)
      this.#stance.followRecord()
    }
  }

  /** Takes an answer that is the latest: cache, epoch, log, claims, observers. */
  #take(record: CircuitRecord | undefined, sentAt: number): void {
    const before = this.#cached.current
    this.#cached.take(record, sentAt)
    const epoch = record?.epoch ?? (before === undefined ? this.#view.epoch : this.#world.runtime.id())
    if (epoch !== this.#view.epoch) this.#beginEpoch(epoch, record, before === undefined && record?.generation === 0)
    this.#log.arrived(record)
    const ended = this.#claims.arrived(record)
    if (ended !== undefined) this.#outbox.addSettlement(ended)
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
    this.#streak.end()
    this.#stance.followRecord()
  }

  // ----------------------------------------------------------------------------------------------------- operators

  /** Prepares an operator's work: each call decides again, from the latest record, what to write. */
  beginOperation(reason: StateChangeReason, decide: OperatorDecision, words?: OperatorWords): () => Replacement {
    const { epoch } = this.#tokens()
    return () => {
      const now = this.#now()
      const record = this.#cached.current
      const from = record ?? emptyRecord(this.#view.epoch, now)
      const next = decide(from, now, this.#tokens(epoch))
      const change = stateChange(this.service, from, next, reason, now, undefined, words)
      return { kind: 'replace', version: record?.version, next, change, cause: { kind: 'operation' } }
    }
  }

  // ------------------------------------------------------------------------------------------------------ snapshot

  /** Failures in a row, as far as this instance knows. */
  get failureCount(): number {
    if (this.#view.record.state !== 'CLOSED') return this.#view.record.failureCount
    const now = this.#now()
    const { state, suspectedAt = now, failureCount = 0 } = this.#cached.current ?? {}
    const stored = state === 'CLOSED' && now - suspectedAt <= this.settings.window ? failureCount : 0
    return Math.max(this.#streak.liveLength(now), stored + this.#outbox.liveFailures(now))
  }

  #now(): number {
    return this.#world.runtime.now()
  }

  #tokens(epoch: string = this.#world.runtime.id()): Tokens {
    return { epoch, version: this.#world.runtime.id() }
  }
}

function isThrottled(error: unknown): boolean {
  return isCircuitStorageError(error) && error.kind === 'throttled'
}
