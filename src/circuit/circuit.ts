/**
 * One service in this instance. Nothing in this folder waits: calls and answers come in, steps go out, and `sync/`
 * carries the steps out.
 *
 * Two records matter. The *cached record* is the store's last answer. The *view* is what calls are judged by. Normally the
 * two are equal. The view is ahead while a change of ours is on its way, and our own while the store is unreachable.
 *
 * Seven machines work together here. Each owns its fields; this class couples them, and no other does.
 *
 * | machine | knows | hears of |
 * | --- | --- | --- |
 * | `CachedRecord` | the store's last answer, its age, which answers come too late | each answer, each failure of the store |
 * | `View` | the record that calls are judged by, epochs and periods | each change of the view, each epoch of the fleet |
 * | `Outbox` | outcomes that are not stored, the verdict that is due | ended calls and probes, replies to its writes |
 * | `ProbeClaims` | when this instance probes, and its lease | wishes, records, the opening of the view |
 * | `Streak` | failures in a row of this instance's own calls; whether it refuses by itself | outcomes that count |
 * | `LoneDecision` | whether the view is a decision that this instance has made without the store | probes granted alone, records |
 * | `TransitionLog` | events that are due | writes that leave, records |
 *
 * The order inside taking an answer is fixed: cache, epoch, log, claims, observers, outbox, view, flag, events. The epoch
 * must be known before a lease is looked for; the log must prove our own transition before observers hear of the state;
 * the view and the flag `isQuiet` must be up to date before a listener looks at them.
 *
 * The file is longer than it should be: it is the one place that may touch more than one machine, and to cut it in two
 * would make two of them.
 *
 * @module
 */

import { type CircuitOpenError, type CircuitStorageError, isCircuitStorageError } from '../errors.ts'
import type { StateChange, StateChangeReason } from '../events.ts'
import type { Runtime } from '../runtime.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, OperatorWords, WriteResult } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { CachedRecord, type Exchange } from './cached-record.ts'
import { LoneDecision } from './lone-decision.ts'
import { Outbox } from './outbox.ts'
import { ProbeClaims } from './probe-claims.ts'
import { refusalOf } from './refusal.ts'
import { stateChange } from './state-change.ts'
import {
  admit,
  admittedPart,
  claim,
  type Failure,
  liveLeases,
  open,
  type ProbeOutcome,
  retryTime,
  settle,
  type Tokens,
  type Verdict,
} from './state-machine.ts'
import type { Replacement, Step, Write } from './step.ts'
import { Streak } from './streak.ts'
import { isContradictable, raisingChance, reportingChance, suspicion } from './suspicion.ts'
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
  /** Whether it is left alone because the store throttles. */
  readonly throttlesWrites: boolean
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

/** Where the store has too much to do, this part of the failures may raise a suspicion. */
const crowdedPart = 0.1

/** A probe that the store throttles is not waited for longer than this, in milliseconds. */
const longestPatience = 20_000

export class Circuit {
  readonly service: string
  readonly settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #cached: CachedRecord
  readonly #outbox: Outbox
  readonly #claims: ProbeClaims
  readonly #streak: Streak
  readonly #alone: LoneDecision
  readonly #log: TransitionLog
  readonly #view: View
  /** Whether a success changes nothing: the circuit is closed, and nobody suspects the service. Written after each change. */
  #isQuiet = true

  constructor(service: string, settings: ServiceSettings, world: CircuitWorld) {
    const { runtime } = world
    this.service = service
    this.settings = settings
    this.#world = world
    this.#cached = new CachedRecord(settings, runtime.random)
    this.#outbox = new Outbox(service, settings, runtime.id)
    this.#claims = new ProbeClaims(service, settings, runtime.id, world.isShared)
    this.#streak = new Streak(settings)
    this.#alone = new LoneDecision(settings.resetTimeout)
    this.#log = new TransitionLog(service)
    this.#view = new View(runtime.id())
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
    return this.#isQuiet
  }

  /** The verdict on a call at `now`. */
  admit(now: number): Verdict {
    if (this.#isQuiet) return 'pass'
    // A suspicion may have come of age.
    if (this.#view.record.state === 'CLOSED' && this.#outbox.tripOf(this.#cached.current, now)) this.#followRecord()
    const view = this.#view.record
    if (view.state === 'CLOSED' && view.override === undefined) {
      const part = admittedPart(view, now, this.settings.rampUp)
      if (part < 1 && this.#world.runtime.random() >= part) return 'ramping'
      const verdict = this.#streak.admit(now)
      // The fleet's circuit may be open: where the store is too busy to tell, this instance waits for it.
      return verdict === 'claim' && this.#waitsForLook(now) && !this.#cached.throttle.isShut ? 'open' : verdict
    }
    const verdict = admit(view, now, this.settings)
    if (verdict === 'claim' && view.state === 'OPEN') {
      const late = now - retryTime(view, this.settings)
      return late >= 0 && (late < this.#claims.delayAt(view, now) || this.#leavesProbesToOthers(now)) ? 'open' : 'claim'
    }
    if (verdict === 'claim' && !this.isAlone && this.#claims.yields(view, this.#cached.current, now)) return 'probing'
    return verdict === 'probing' && this.#claims.isReady(this.#cached.current, now) ? 'claim' : verdict
  }

  /** Whether the record was not read since this instance refuses by itself, and will be, in a store that has too much to do. */
  #waitsForLook(now: number): boolean {
    const { openedAt } = this.#streak
    return (
      this.#cached.throttle.isCrowded && openedAt !== undefined && openedAt <= now && this.#cached.readAt < openedAt
    )
  }

  /** Whether others probe before this instance, which found by itself that the service works. */
  #leavesTurn(record: CircuitRecord | undefined, now: number): boolean {
    if (record === undefined || this.#claims.yields(record, record, now)) return true
    return record.state === 'OPEN' && now - retryTime(record, this.settings) < this.#claims.delayAt(record, now)
  }

  #leavesProbesToOthers(now: number): boolean {
    if (this.isAlone) return false
    const { readAt, throttle } = this.#cached
    const mayAsk = this.#cached.isStale(now) || throttle.goesOn || this.#isOverdue
    return this.#isCutOff || this.#claims.leavesToOthers(this.#view.record, readAt, mayAsk)
  }

  /** The error for a call that is refused. */
  refusal(verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
    const view = this.acting
    const delay = view === this.#view.record ? this.#claims.delayAt(view, now) : 0
    const { staleAt } = this.#cached
    const { storageTimeout } = this.#world
    const { service, settings } = this
    return refusalOf({ service, settings, view, delay, staleAt, storageTimeout }, verdict, now)
  }

  /** Nothing can be written for now. */
  get #isCutOff(): boolean {
    return this.#cached.isDamaged || !this.#world.store.canWrite
  }

  /**
   * This instance decides without the store: it is away, or what it holds for this service is damaged. One that throttles serves
   * others meanwhile, so that it counts as away only when the record has not moved for a long time.
   */
  get isAlone(): boolean {
    return this.#isCutOff && (this.#cached.isDamaged || !this.#world.store.throttlesWrites || this.#isOverdue)
  }

  /** Whether a probe has been due for so long that others would have ended it. */
  get #isOverdue(): boolean {
    const record = this.#view.record
    if (record.state === 'CLOSED') return false
    const now = this.#now()
    const isProbed = liveLeases(record, now).length > 0
    if (isProbed) return false
    const patience = Math.min(longestPatience, 3 * this.settings.resetTimeout)
    return this.#cached.isHeldBack(now)
      ? this.#cached.throttle.isShut
      : now - retryTime(record, this.settings) >= patience
  }

  // ------------------------------------------------------------------------------------------------------- probes

  /** A call wants to probe; `next` has the steps from here on. */
  wish(duration: number, requestId: string | undefined): void {
    const mayHaveChanged = this.#world.isShared && this.#cached.readAt < retryTime(this.#view.record, this.settings)
    // No call waits for a lease that is asked for in advance: a look would save nothing.
    const mayLook = this.#canRead && !this.#alone.isMade
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
      this.#followRecord()
    }
    this.probeEnded({ id, isLocal: false }, 'release', this.#now(), undefined, undefined)
  }

  /** Whether this instance should go on alone: it wants to probe, and the store has not answered. */
  get mayClaimAlone(): boolean {
    if (this.#claims.hasReady || this.admit(this.#now()) !== 'claim') return false
    const { unanswered, wasThrottled } = this.#claims
    return (unanswered > 0 && this.isAlone) || unanswered > 1 || (wasThrottled && this.#isOverdue)
  }

  /** Whether a probe needs nobody's consent: the store cannot be asked, or this instance alone refuses. */
  get probesAlone(): boolean {
    return this.isAlone || this.#view.record.state === 'CLOSED'
  }

  /**
   * Whether the round goes on though the store did not let it look at the record: what comes next is conditional anyway. A
   * store that throttles is spared, but now and then.
   */
  lookFailed(error: unknown): boolean {
    const wasThrottled = isThrottled(error)
    const goesOn = !wasThrottled || this.#cached.throttle.goesOn || this.#isOverdue
    const isLook = this.#claims.isReadyToAsk ? wasThrottled : this.#outbox.hasReport && !this.#outbox.needsFreshRecord
    return goesOn && isLook
  }

  /** Grants this instance a probe of its own. */
  claimAlone(duration: number): ProbeLease {
    const { runtime } = this.#world
    const now = runtime.now()
    if (this.#view.record.state === 'CLOSED') {
      const own = this.#claims.leaseUntil(runtime.id(), now, duration)
      this.#streak.claim(own, this.#view.period)
      return { id: own.id, isLocal: true }
    }
    const lease = this.#claims.goesAlone(now, duration)
    this.#decideAlone(claim(this.#view.record, now, lease, this.settings, this.#tokens()), now)
    this.#observeView(now)
    this.#changed()
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
    const own = this.#streak.probeEnded(lease.id, outcome === 'failure' ? lastFailure : undefined)
    if (own !== undefined) {
      if (outcome === 'success') {
        this.callSucceeded(own, at, requestId)
        // Observers may have heard that this instance had opened the circuit for itself.
        this.#log.observe(this.acting, at)
        this.#changed()
      }
      if (outcome === 'failure' && lastFailure !== undefined) this.callFailed(own, at, lastFailure, requestId)
      return
    }
    const tokens = this.#tokens()
    if (outcome === 'success') this.#streak.succeeded()
    const next = settle(this.#view.record, lease.id, outcome, at, this.settings, tokens, lastFailure)
    if (next !== undefined && lease.isLocal) this.#decideAlone(next, at)
    else if (next !== undefined) this.#setView(next)
    const isSecondOpinion = !this.#claims.isInvolved
    const { epoch } = tokens
    const settlement = { leaseId: lease.id, outcome, at, lastFailure, requestId, epoch, isSecondOpinion }
    // A probe that this instance granted itself may have been granted by the store since, or may be yet.
    if (lease.isLocal && !this.#cached.current?.leases.some(({ id }) => id === lease.id)) {
      this.#claims.endedAlone(settlement)
      if (next !== undefined) this.#observeView(at)
    } else {
      this.#outbox.addSettlement(settlement)
      this.#standAloneIfCutOff()
    }
    this.#changed()
  }

  // ----------------------------------------------------------------------------------------------------- outcomes

  /**
   * A call has been admitted at `now`: the period that it has to remember. Under a young suspicion it is announced, so that
   * the fleet does not take for granted that it fails.
   */
  callStarted(now: number, requestId: string | undefined): number {
    const { period, suspicion: version } = this.#view
    const record = this.#cached.current
    if (this.#view.knew(period) && record !== undefined && this.#outbox.announces(record, now)) {
      const announcement = { kind: 'started' as const, period, suspicion: version, row: 0, at: now }
      this.#outbox.add({ ...announcement, lastFailure: undefined, requestId })
    }
    return period
  }

  /** A call that was admitted in `period` succeeded. */
  callSucceeded(period: number, at: number, requestId: string | undefined): void {
    if (!this.#view.counts(period, at)) return
    if (this.#alone.isMade) this.#settleReady('success', at, undefined, requestId)
    this.#streak.succeeded()
    const outcome = { kind: 'success' as const, period, suspicion: this.#view.suspicion, row: 0, at }
    if (this.#view.knew(period)) this.#outbox.add({ ...outcome, lastFailure: undefined, requestId })
    else this.#outbox.endRow()
    this.#standAloneIfCutOff()
    this.#changed()
  }

  /**
   * A call that was admitted in `period` failed.
   *
   * @param startedAt when it began. A call of a quiet circuit may say any earlier time: no failure has come before it
   */
  callFailed(
    period: number,
    at: number,
    lastFailure: Failure,
    requestId: string | undefined,
    startedAt: number = at,
  ): void {
    if (!this.#view.counts(period, at)) return
    if (this.#alone.isMade) this.#settleReady('failure', at, lastFailure, requestId)
    this.#streak.failed(lastFailure, startedAt)
    const known = this.#view.knew(period) ? this.#view.suspicion : undefined
    const row = this.#raisesSuspicion(at) ? this.#streak.length : 0
    if (!this.#view.isSilent)
      this.#outbox.add({ kind: 'failure', period, suspicion: known, row, at, lastFailure, requestId })
    if (this.#streak.openedAt === at) {
      this.#cached.look(at)
      this.#refuseWaiting(at)
    }
    this.#standAloneIfCutOff()
    this.#changed()
  }

  /** The lease that was asked for in advance has come: a call of this instance was its probe. */
  #settleReady(
    outcome: ProbeOutcome,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
  ): void {
    const id = this.#claims.takeReady()
    if (id !== undefined) this.probeEnded({ id, isLocal: false }, outcome, at, lastFailure, requestId)
  }

  /**
   * An isolated failure of a service that works is not worth a write where many such suspicions have come to nothing. A
   * streak that opens the circuit by itself always is.
   */
  #raisesSuspicion(at: number): boolean {
    const { length, hasWorked } = this.#streak
    const record = this.#cached.current
    const isStreak = length >= this.settings.failureThreshold
    // A store that has too much to do has many instances, of which some are enough.
    if (this.#cached.throttle.isCrowded && !isStreak && this.#world.runtime.random() >= crowdedPart) return false
    const opens = isStreak && !isContradictable(record, at, this.settings)
    return !hasWorked || opens || this.#world.runtime.random() < raisingChance(record, length, at)
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

  /** Whether anything waits that can be written now. */
  get canWork(): boolean {
    // Others wait for the end of a probe: it is told as soon as a store that throttles lets it.
    const isUrgent = this.#outbox.hasSettlement && this.#world.store.throttlesWrites
    return this.hasWork && (!this.#isCutOff || isUrgent) && !this.#waitsForRead
  }

  /** The next thing to be done at the store; `undefined`: nothing, or nothing for now. */
  next(): Step | undefined {
    if (this.#cached.isDamaged) return undefined
    const now = this.#now()
    const mayFollow = this.#outbox.hasSettlement
    const { isOutOfTouch, current: record, readAt } = this.#cached
    const canRead = this.#canRead
    const { epoch, since } = this.#view
    const { lastFailure, length: row } = this.#streak
    const isHeldBack = this.#isHeldBack(now)
    const known = { record, epoch, since, now, readAt, isOutOfTouch, canRead, isHeldBack, row, lastFailure }
    const step = this.#outbox.next(known)
    // An outcome may have been dropped that the view waited for.
    if (mayFollow) this.#followRecord()
    const asksInAdvance = this.#alone.isMade && this.#view.record.state === 'CLOSED' && !this.#leavesTurn(record, now)
    const mayClaim = asksInAdvance || this.admit(now) === 'claim'
    const next = step ?? this.#claims.next(record, now, mayClaim)
    this.#changed()
    return next
  }

  /** Whether outcomes wait until a store that throttles has shown the record. */
  #isHeldBack(now: number): boolean {
    return (this.#waitsForLook(now) || this.#cached.isHeldBack(now)) && !this.#cached.throttle.goesOn
  }

  get #canRead(): boolean {
    return this.#world.store.canRead && !this.#cached.isHeldBack(this.#now())
  }

  /** A backlog comes next, which needs a read, and reading is left alone. */
  get #waitsForRead(): boolean {
    return !this.#canRead && this.#cached.isOutOfTouch && this.#outbox.needsFreshRecord
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
    this.#followRecord()
    return isStored
  }

  /** A request for this circuit has failed: what waits is a backlog now, and what this instance decided it decided alone. */
  storeFailed(error: unknown): void {
    if (isCircuitStorageError(error) && error.corrupt) this.#cached.damaged()
    if (isThrottled(error)) this.#claims.throttled()
    this.#standAlone()
  }

  /** A read of this circuit has failed. */
  readFailed(error: unknown): void {
    this.#cached.doubt()
    if (!isThrottled(error)) return
    this.#cached.throttled(this.#now())
    // An outcome that waits until the record can be read is no news then.
    this.#outbox.toBacklog()
  }

  /** An outcome that cannot be written now is a backlog from the start. */
  #standAloneIfCutOff(): void {
    if (this.#isCutOff || this.#waitsForRead || this.#cached.isHeldBack(this.#now())) this.#standAlone()
  }

  #standAlone(): void {
    this.#cached.doubt()
    this.#outbox.toBacklog()
    this.#log.observe(this.acting, this.#now())
    this.#changed()
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
    return !this.#isQuiet && this.#cached.throttle.triesWriting
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
    this.#followRecord()
  }

  /** The view follows the record, except while it is ahead of it. Then the events fire. */
  #followRecord(): void {
    if (!this.#isAhead()) {
      this.#alone.end()
      const now = this.#now()
      const record = this.#cached.current ?? emptyRecord(this.#view.epoch, this.#cached.readAt)
      const trip = this.#outbox.tripOf(record, now)
      const tokens = trip && { epoch: trip.epoch, version: record.version }
      this.#setView(tokens === undefined ? record : open(record, trip?.at ?? now, this.settings, tokens, undefined))
      const verdict = suspicion(record, now, this.settings)
      this.#view.suspect(verdict === 'open' ? record.version : undefined, () => {
        return this.#outbox.hasSpokenTo(record.version) || this.#world.runtime.random() < reportingChance(record)
      })
      const isWell = verdict !== 'open' && this.acting !== this.#view.record
      if (isWell && this.#streak.isAlone(this.#cached.readAt)) this.#log.unhealthy(this.acting, now)
    }
    this.#changed()
  }

  /** Whether the view shows the end of a probe that is still being written, or a decision that this instance made alone. */
  #isAhead(): boolean {
    const record = this.#cached.current
    const { record: view, epoch } = this.#view
    if (this.#alone.stands(record)) return true
    if (!this.#outbox.hasSettlement) return false
    return record?.state === 'HALF_OPEN' || (view.epoch === epoch && view.state === record?.state)
  }

  /** This instance goes on without the store. */
  #decideAlone(view: CircuitRecord, now: number): void {
    if (this.#cached.current !== undefined) this.#alone.decide(this.#cached.current, view, now)
    this.#setView(view)
  }

  #setView(view: CircuitRecord): void {
    if (!this.#view.show(view)) return
    const { runtime } = this.#world
    this.#claims.drawDelay(runtime.random)
    this.#changed()
    this.#refuseWaiting(runtime.now())
  }

  /** A call that waits for a permit is refused at once. */
  #refuseWaiting(now: number): void {
    const verdict = this.admit(now)
    if (verdict !== 'pass' && verdict !== 'claim') this.#world.onRefusing(() => this.refusal(verdict, now))
  }

  /** Ends a change: writes the flag, then fires the events, so that a listener finds the flag up to date. */
  #changed(): void {
    const { state, override } = this.#view.record
    const isClosed = state === 'CLOSED' && override === undefined && !this.#alone.isMade
    const isSuspected = this.#cached.current?.suspectedAt !== undefined
    const { rampUp } = this.settings
    const isRamping = rampUp !== false && admittedPart(this.#view.record, this.#now(), rampUp) < 1
    this.#isQuiet = isClosed && !isRamping && !isSuspected && this.#streak.isQuiet && !this.#outbox.hasReport
    for (const change of this.#log.takeDue()) {
      const { to, reason, generation } = change
      const isOwn = to === 'OPEN' && (reason === 'failure-threshold' || reason === 'probe-failed')
      const { current } = this.#cached
      // Its proof may come late, when the circuit has closed again; or with an answer that is not believed any more.
      if (isOwn && (current?.state !== 'CLOSED' || current.generation < generation)) this.#claims.involve()
      this.#world.emit(change)
    }
  }

  /** The record that this instance acts on: the view, or its own refusal. */
  get acting(): CircuitRecord {
    const view = this.#view.record
    const { openedAt, retryAt, lastFailure } = this.#streak
    if (openedAt === undefined || view.state !== 'CLOSED' || view.override !== undefined) return view
    const resetTimeout = retryAt - openedAt
    return { ...view, state: 'OPEN', openedAt, retryAt, resetTimeout, lastFailure: lastFailure ?? view.lastFailure }
  }

  #observeView(at: number): void {
    this.#log.observe(this.#view.record, at)
    this.#changed()
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
