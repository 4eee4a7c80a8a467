/**
 * One service in this instance: what is known of the stored record, what this instance acts on, and the outcomes that
 * are not stored yet.
 *
 * Two records matter. `#record` is the last authoritative answer of the store. `#view` is what calls are judged by: the
 * same record, or ahead of it while a change of this instance's own is still being written, or a life of its own while
 * the store is away.
 *
 * @module
 */

import type { ServiceSettings } from './config.ts'
import { CircuitOpenError, CircuitStorageError, isCircuitStorageError, type RefusalReason } from './errors.ts'
import type { StateChange, StateChangeReason } from './events.ts'
import type { Runtime } from './runtime.ts'
import { Semaphore } from './semaphore.ts'
import {
  activeOverride,
  admit,
  claim,
  decideCount,
  effectiveState,
  type Failure,
  keptTransitions,
  liveFailureCount,
  liveLeases,
  maxLease,
  open,
  type ProbeOutcome,
  retryTime,
  setFailureCount,
  settle,
  type Tokens,
  type Verdict,
} from './state-machine.ts'
import type { BoundedStorage } from './storage/bounded-storage.ts'
import {
  type CircuitRecord,
  type CircuitState,
  type CompareAndSet,
  type ExpectedVersion,
  emptyRecord,
  type ICircuitStorage,
  type Lease,
  type WriteResult,
} from './storage/circuit-storage.ts'

/** The permission to run one probe. */
export interface HeldLease {
  readonly id: string
  /** `true` if it was granted by this instance to itself while the store was away. */
  readonly local: boolean
}

/** Outcomes that wait to be written. Failures are never merged into a batch that may already have been counted. */
interface Batch {
  /** The epoch of the view that they were judged by … */
  readonly epoch: string
  /** … and the one that was stored at the time. They count in either. */
  readonly sharedEpoch: string
  /** Whether there was a success, before the failures. */
  readonly success: boolean
  readonly failures: number
  /** How many of the failures waited while the store was away. */
  readonly backlog: number
  /** Whether the record is read before anything is written: it may say that the circuit is open already. */
  readonly readsFirst: boolean
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
  /** Identifies the increment. */
  readonly id: string
  /** What was sent and not answered. */
  readonly sent?: SentWrite
}

/** What a write is conditional on: that the record which was seen is still the one that is stored. */
interface Condition {
  /** The record's version … */
  readonly version: ExpectedVersion
  /** … and where it had none its epoch: what is deleted and grows again has no version either. */
  readonly epoch: string | undefined
}

interface SentWrite {
  readonly condition: Condition
  /** The failures that it adds … */
  readonly count: number
  /** When the last of them happened. */
  readonly at: number
  /** … or the record that it sets instead. */
  readonly next?: CircuitRecord
}

/** A probe's outcome that waits to be written. */
interface Settlement {
  readonly leaseId: string
  readonly outcome: ProbeOutcome
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
  readonly epoch: string
  readonly transition: string
}

/** A trip that this instance found due: its own failure completed the count. */
interface DueTrip {
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
}

/** A transition that was sent: its event fires when it turns out to have been stored. */
interface UnconfirmedChange {
  readonly expected: ExpectedVersion
  readonly change: StateChange
}

/** What an operator wants, decided from the latest record. */
export type OperatorDecision = (record: CircuitRecord, now: number, tokens: Tokens) => CircuitRecord

/** One attempt at an operator's write. */
export interface OperatorWrite {
  readonly write: CompareAndSet
  /** Takes the reply; whether what was decided is stored. */
  take(reply: WriteResult): boolean
  takeLate(reply: WriteResult): void
}

/** The tokens of a transition, kept over all attempts to write it. */
type TransitionTokens = Pick<Tokens, 'epoch' | 'transition'>

/** Claims of a fleet are spread over this part of the reset timeout … */
const claimSpread = 0.05
/** … but over no more than this, in milliseconds. */
const maxClaimSpread = 1_000
/** The time to live is jittered from this part of it up, so that a fleet that started together does not read together. */
const minTtl = 0.8
/**
 * This part of the instances whose record is older than their streak reads before it reports. When a service dies under a
 * large fleet, nearly all of them would write to a record that has long been open: to an item of DynamoDB, which serves
 * a third as many writes as reads. The others tell the fleet a round trip sooner.
 */
const readsFirst = 0.5
/** … and for so long at most, in milliseconds. */
const longestLook = 100
/** After this many conflicts in a row the rest waits for the next opportunity. */
const maxConflicts = 20
/** So many transitions are kept in mind after their events; no more than a few writes are ever under way. */
const rememberedEvents = 16
/** An operator's write gives up after this many. */
export const maxOperatorConflicts = 100

export class Circuit {
  readonly service: string
  readonly storageKey: string
  readonly settings: ServiceSettings
  readonly permits: Semaphore
  /** Whether a load has come to an end, with whatever result. */
  loadAttempted = false
  /** The load that is under way. */
  loading: Promise<void> | undefined

  readonly #runtime: Runtime
  readonly #store: BoundedStorage
  readonly #storageTimeout: number
  readonly #emit: (change: StateChange) => void

  /** The last authoritative record; `undefined`: nothing is stored, or nothing is known. */
  #record: CircuitRecord | undefined
  /** Counts authoritative answers: a read that was issued before the latest of them is discarded. */
  #answers = 0
  /** The count of answers at which the record was last deleted: what was sent before is overtaken. */
  #clearedAt = 0
  #readAt = Number.NEGATIVE_INFINITY
  #ttl = 0
  /** What is stored does not parse: nothing is written until it does. */
  #damaged = false
  /** How often the store has failed this instance … */
  #setbacks = 0
  /** … and after how many of them it was read again. */
  #setbacksKnown = 0
  /** The shared epoch as far as this instance knows, made up while there is none … */
  #epoch: string
  /** … and the made-up one that a first record continued. */
  #epochBefore: string | undefined
  #view: CircuitRecord
  /** How much later than `retryAt` this instance claims. */
  #claimDelay = 0
  /** Whether this instance had a part in opening the circuit or has probed it since. */
  #isInvolved = false

  #streak = 0
  #streakAt = 0
  #held = false
  #lastSuccessAt = Number.NEGATIVE_INFINITY

  #pending: Batch | undefined
  #inFlight: Batch | undefined
  #settlements: Settlement[] = []
  #dueTrip: DueTrip | undefined
  #tripTokens: TransitionTokens | undefined
  #draining: Promise<void> | undefined
  readonly #unconfirmed = new Map<string, UnconfirmedChange>()
  /** The transitions whose events have fired last: a reply may come late and twice. */
  readonly #told = new Set<string>()

  #claimTokens: (TransitionTokens & { readonly leaseId: string }) | undefined
  #acquiring: Promise<void> | undefined
  /** Claims in a row that the store left unanswered. */
  #unansweredClaims = 0
  /** A lease that was granted to this instance and that no call uses. */
  #spare: Lease | undefined

  readonly #events: StateChange[] = []
  /** The state that observers were told last. */
  #announced: CircuitState = 'CLOSED'

  constructor(
    service: string,
    storageKey: string,
    settings: ServiceSettings,
    store: BoundedStorage,
    storageTimeout: number,
    runtime: Runtime,
    emit: (change: StateChange) => void,
  ) {
    this.service = service
    this.storageKey = storageKey
    this.settings = settings
    this.permits = new Semaphore(settings.maxConcurrent, settings.maxQueue)
    this.#store = store
    this.#storageTimeout = storageTimeout
    this.#runtime = runtime
    this.#emit = emit
    this.#epoch = runtime.id()
    this.#view = emptyRecord(this.#epoch, 0)
  }

  // ---------------------------------------------------------------------------------------------------- admission

  /** The record that calls are judged by. */
  get view(): CircuitRecord {
    return this.#view
  }

  /** What a call may do at `now`. */
  admit(now: number): Verdict {
    const view = this.#view
    if (view.state === 'CLOSED' && view.override === undefined) return 'pass'
    const verdict = admit(view, now, this.settings)
    if (verdict === 'claim' && view.state === 'OPEN') {
      const late = now - retryTime(view, this.settings)
      return late >= 0 && (late < this.#claimDelay || this.#leavesProbesToOthers(now)) ? 'open' : 'claim'
    }
    const hasSpare = verdict === 'probing' && this.#spare !== undefined && this.#isLive(this.#spare)
    return hasSpare ? 'claim' : verdict
  }

  /**
   * A claim begins with a read that is newer than `retryAt`. Those whose failures opened the circuit, or who have probed
   * it, read at once: in a large fleet they are few. Everyone else claims when its cache is to be read again anyway.
   */
  #leavesProbesToOthers(now: number): boolean {
    const { cacheTtl, resetTimeout } = this.settings
    if (this.#isInvolved || 2 * cacheTtl > resetTimeout || this.#store.storage.shared === false) return false
    return !this.#isAlone && !this.isStale(now) && this.#readAt < retryTime(this.#view, this.settings)
  }

  /** The error for a call that is refused. */
  refusal(verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
    const view = this.#view
    const reason: RefusalReason = verdict === 'claim' ? 'unclaimed' : verdict
    return new CircuitOpenError({
      service: this.service,
      retryAfter: Math.max(0, this.#retryAfter(verdict, now)),
      openedAt: view.openedAt,
      reason,
    })
  }

  #retryAfter(verdict: Exclude<Verdict, 'pass'>, now: number): number {
    const view = this.#view
    const { resetTimeout, cacheTtl } = this.settings
    if (verdict === 'open') {
      const due = retryTime(view, this.settings) + this.#claimDelay
      return (now >= due ? this.#readAt + this.#ttl : due) - now
    }
    if (verdict === 'forced') return view.override?.until === undefined ? resetTimeout : view.override.until - now
    if (verdict === 'claim') return this.#storageTimeout
    const expiries = liveLeases(view, now).map((lease) => lease.expiresAt - now)
    return Math.min(resetTimeout, Math.max(cacheTtl, 1_000), ...expiries)
  }

  /**
   * Claims the probe that {@link admit} offered. Waits for the store no longer than `storageTimeout`; a lease that is
   * granted after that is kept for the next call. Where the store leaves a second claim in a row unanswered, this
   * instance goes on alone: a store that cannot be written must not keep a circuit open.
   *
   * @param duration how long the lease lasts, in milliseconds
   * @returns `undefined` if it was not granted; ask {@link admit} again for the reason
   */
  async claim(duration: number, requestId: string | undefined): Promise<HeldLease | undefined> {
    const giveUpAt = this.#runtime.now() + this.#storageTimeout
    const isFirst = this.#acquiring === undefined
    while (this.#acquiring !== undefined) {
      const isOver = !(await this.#within(this.#acquiring, giveUpAt)) || this.#runtime.now() >= giveUpAt
      if (isOver) return undefined
      if (this.admit(this.#runtime.now()) !== 'claim') return undefined
    }
    if (this.#spare === undefined || !this.#isLive(this.#spare)) {
      this.#spare = undefined
      if (this.#isAlone) return this.#claimAlone(duration)
      // One that waited for another's has less than its time: that it is not answered says nothing of the store.
      if (isFirst) this.#unansweredClaims++
      this.#acquiring = this.#acquireLease(duration, requestId).finally(() => {
        this.#acquiring = undefined
      })
      await this.#within(this.#acquiring, giveUpAt)
      const isUnanswered = this.#unansweredClaims > 0 && this.admit(this.#runtime.now()) === 'claim'
      const isAlone = this.#isAlone || this.#unansweredClaims > 1
      if (isUnanswered && isAlone && this.#spare === undefined) return this.#claimAlone(duration)
    }
    // While the claim was under way another probe of this instance may have failed.
    if (this.#spare === undefined || this.#view.state !== 'HALF_OPEN') return undefined
    const { id } = this.#spare
    this.#spare = undefined
    return { id, local: false }
  }

  /** Whether a lease lies ready that no call uses. */
  get hasSpare(): boolean {
    return this.#spare !== undefined
  }

  /** Gives back a lease that was granted too late for the call that claimed it: others may probe sooner. */
  releaseSpare(): void {
    if (this.#spare === undefined || this.#acquiring !== undefined) return
    const { id } = this.#spare
    this.#spare = undefined
    this.settled({ id, local: false }, 'release', this.#runtime.now(), undefined, undefined)
  }

  /** The store is away, or what it holds for this service is damaged. */
  get #isAlone(): boolean {
    return this.#damaged || !this.#store.canWrite
  }

  #claimAlone(duration: number): HeldLease {
    const now = this.#runtime.now()
    const lease = { id: this.#runtime.id(), expiresAt: this.#leaseEnd(now, duration) }
    this.#setView(claim(this.#view, now, lease, this.settings, this.#tokens()))
    this.#announce(this.#view, now)
    this.#fireEvents()
    return { id: lease.id, local: true }
  }

  async #acquireLease(duration: number, requestId: string | undefined): Promise<void> {
    await this.drain()
    // A read that is under way need not be repeated.
    if (this.loading !== undefined) await this.loading
    try {
      const retryAt = retryTime(this.#view, this.settings)
      const mayHaveChanged = this.#store.storage.shared !== false && this.#readAt < retryAt
      if (mayHaveChanged || this.#view !== this.#record) await this.#read()
      for (let attempt = 0; attempt < maxConflicts; attempt++) {
        const now = this.#runtime.now()
        const record = this.#record
        // An earlier claim whose reply was lost may have been granted.
        const isClaimable =
          this.#spare === undefined &&
          this.admit(now) === 'claim' &&
          record !== undefined &&
          admit(record, now, this.settings) === 'claim'
        if (!isClaimable) {
          this.#unansweredClaims = 0
          return
        }
        this.#claimTokens ??= { leaseId: this.#runtime.id(), ...this.#transitionTokens() }
        const { leaseId } = this.#claimTokens
        const lease = { id: leaseId, expiresAt: this.#leaseEnd(now, duration) }
        const next = claim(record, now, lease, this.settings, this.#tokens(this.#claimTokens))
        const change = this.#change(record, next, 'probe-started', now, requestId)
        await this.#compareAndSet(conditionOf(record), next, this.#claimTokens.transition, change)
        this.#unansweredClaims = 0
        this.#refreshView()
      }
    } catch (error) {
      this.#afterFailure(error)
    }
  }

  #leaseEnd(now: number, duration: number): number {
    return now + Math.min(maxLease, duration)
  }

  /** Whether `promise` settled in time. */
  #within(promise: Promise<unknown>, giveUpAt: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = this.#runtime.setTimeout(() => resolve(false), Math.max(0, giveUpAt - this.#runtime.now()))
      const settled = (): void => {
        this.#runtime.clearTimeout(timer)
        resolve(true)
      }
      promise.then(settled, settled)
    })
  }

  // ----------------------------------------------------------------------------------------------------- outcomes

  /** A call that was admitted in `epoch` succeeded. */
  succeeded(epoch: string, at: number, requestId: string | undefined): void {
    if (!this.#counts(epoch, at)) return
    this.#lastSuccessAt = at
    this.#streak = 0
    this.#held = false
    this.#enqueueSuccess(at, requestId)
  }

  /**
   * {@link succeeded}, if nothing hangs on it: there is no failure that it would end, and so nothing to write.
   *
   * @param at when it ended; for a call that no deadline and no timeout bounds when it began: to read the clock again would
   *   cost as much as the rest, and outside Lambda nobody waits for a minute without a timeout
   * @returns whether that was all
   */
  succeededQuietly(epoch: string | undefined, at: number): boolean {
    const view = this.#view
    const isQuiet =
      epoch === view.epoch &&
      view.state === 'CLOSED' &&
      view.override === undefined &&
      this.#streak === 0 &&
      this.#pending === undefined &&
      this.#inFlight === undefined &&
      (this.#record === undefined || this.#record.failureCount === 0)
    // Calls end in another order than they began. No call is longer than a lease: then the clock has stepped back.
    const last = this.#lastSuccessAt
    if (isQuiet && (at > last || last - at > maxLease)) this.#lastSuccessAt = at
    return isQuiet
  }

  /** A call that was admitted in `epoch` failed. */
  failed(epoch: string, at: number, lastFailure: Failure, requestId: string | undefined): void {
    if (!this.#counts(epoch, at)) return
    const { failureThreshold, window } = this.settings
    if (at - this.#streakAt > window) {
      this.#streak = 0
      this.#held = false
    }
    const mayBeNews = this.#held && this.#readAt < this.#streakAt && this.#store.storage.shared !== false
    this.#streak++
    const readsFirstNow = mayBeNews && this.#streak < failureThreshold && this.#runtime.random() < readsFirst
    this.#streakAt = at
    const hasSucceeded = at - this.#lastSuccessAt <= window
    const isOrphaned = this.#storedCount(at) >= failureThreshold
    if (this.#streak === 1 && hasSucceeded && failureThreshold > 1 && !isOrphaned) {
      // An isolated failure of a service that works: held back until a second one follows. A count that is complete
      // although nobody opened the circuit needs no second one.
      this.#held = true
      return
    }
    this.#enqueueFailures(this.#held ? 2 : 1, at, lastFailure, requestId, readsFirstNow)
    this.#held = false
    const count = Math.max(this.#streak, this.#sharedCount(at))
    if (count >= failureThreshold) this.#tripView(count, at, lastFailure)
    this.#drainInBackground()
  }

  /** A probe ended. */
  settled(
    lease: HeldLease,
    outcome: ProbeOutcome,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
  ): void {
    const tokens = this.#tokens()
    if (outcome === 'success') {
      this.#lastSuccessAt = at
      this.#streak = 0
      this.#held = false
    }
    const next = settle(this.#view, lease.id, outcome, at, this.settings, tokens, lastFailure)
    if (next !== undefined) this.#setView(next)
    if (!lease.local) {
      const { epoch, transition } = tokens
      this.#settlements.push({ leaseId: lease.id, outcome, at, lastFailure, requestId, epoch, transition })
      this.#drainInBackground()
    } else if (next !== undefined) {
      if (outcome === 'failure') {
        this.#enqueueFailures(1, at, lastFailure, requestId)
        this.#pending = toBacklog(this.#pending)
      }
      if (outcome === 'success') this.#enqueueSuccess(at, requestId)
      this.#announce(this.#view, at)
      this.#fireEvents()
    }
  }

  /** Whether the outcome of a call that was admitted in `epoch` counts: only in a closed circuit of the same epoch. */
  #counts(epoch: string, at: number): boolean {
    const view = this.#view
    const isCurrent = epoch === view.epoch || (epoch === this.#epochBefore && view.epoch === this.#epoch)
    return isCurrent && view.state === 'CLOSED' && activeOverride(view, at) === undefined
  }

  /** A success ends the streak: it is written only if there is something to end. */
  #enqueueSuccess(at: number, requestId: string | undefined): void {
    if (this.#storedCount(at) === 0 && this.#inFlight === undefined && this.#pending === undefined) return
    this.#pending = {
      epoch: this.#view.epoch,
      sharedEpoch: this.#epoch,
      success: true,
      failures: 0,
      backlog: 0,
      readsFirst: false,
      at,
      lastFailure: undefined,
      requestId,
      id: this.#runtime.id(),
    }
    this.#drainInBackground()
  }

  #enqueueFailures(
    failures: number,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
    readsFirst = false,
  ): void {
    if (this.#pending !== undefined && at - this.#pending.at > this.settings.window) this.#pending = undefined
    const { success = false, failures: before = 0, backlog = 0 } = this.#pending ?? {}
    this.#pending = {
      epoch: this.#view.epoch,
      sharedEpoch: this.#epoch,
      success,
      failures: before + failures,
      backlog,
      readsFirst,
      at,
      lastFailure,
      requestId,
      id: this.#pending?.id ?? this.#runtime.id(),
    }
  }

  /** The fleet's failures in a row as far as this instance knows, with those that it is reporting. */
  #sharedCount(at: number): number {
    let count = this.#storedCount(at)
    for (const batch of [this.#inFlight, this.#pending]) {
      if (batch?.success) count = 0
      count += batch?.failures ?? 0
    }
    return count
  }

  /** The fleet's failures in a row that are stored. */
  #storedCount(at: number): number {
    const record = this.#record
    return record?.state === 'CLOSED' ? liveFailureCount(record, at, this.settings.window) : 0
  }

  /** This instance refuses from now on; whether the fleet does is decided by the write that is on its way. */
  #tripView(count: number, at: number, lastFailure: Failure | undefined): void {
    this.#tripTokens ??= this.#transitionTokens()
    const tokens = this.#tokens(this.#tripTokens)
    const counted = setFailureCount(this.#view, count, at, this.settings, tokens)
    this.#setView(open(counted, at, this.settings, tokens, lastFailure))
  }

  // ------------------------------------------------------------------------------------------------- write-behind

  /** Whether anything waits to be stored. */
  get hasWork(): boolean {
    return (
      this.#pending !== undefined ||
      this.#inFlight !== undefined ||
      this.#settlements.length > 0 ||
      this.#dueTrip !== undefined
    )
  }

  /**
   * Writes what waits, one write at a time; what comes while one is under way is coalesced into the next.
   *
   * @returns when everything is stored or the store failed; never rejects; `undefined` if there is nothing to wait for
   */
  drain(): Promise<void> | undefined {
    if (this.#draining === undefined && this.hasWork && !this.#isAlone && !this.#waitsForRead) {
      this.#draining = this.#drain()
    }
    return this.#draining
  }

  #drainInBackground(): void {
    if (this.#isAlone || this.#waitsForRead) this.#standAlone()
    else void this.drain()
  }

  async #drain(): Promise<void> {
    try {
      for (let conflicts = 0; conflicts < maxConflicts && this.hasWork && !this.#damaged && !this.#waitsForRead; ) {
        const answers = this.#answers
        const isProvisional = this.#settlements.length > 0 || this.#tripTokens !== undefined
        const stored = await this.#writeNext()
        // Without news a view with a life of its own is not set back to what was known before; nor, while the store is away,
        // what this instance decided alone, although what it had to report of that is no news any more.
        if (answers !== this.#answers || (isProvisional && !this.#isOutOfTouch)) this.#refreshView()
        if (!stored) conflicts++
      }
    } catch (error) {
      this.#afterFailure(error)
    } finally {
      // In the same turn as the last look at what waits, so that nothing slips in between.
      this.#draining = undefined
    }
  }

  /** The store has failed this instance since the circuit was read last. */
  get #isOutOfTouch(): boolean {
    return this.#setbacksKnown < this.#setbacks
  }

  /** A backlog comes next, which needs a read, and reading is left alone. */
  get #waitsForRead(): boolean {
    if (this.#store.canRead || !this.#isOutOfTouch || this.#settlements.length > 0) return false
    const isBacklog = (this.#inFlight?.backlog ?? 0) + (this.#pending?.backlog ?? 0) > 0
    return isBacklog && this.#dueTrip === undefined && this.#inFlight?.sent === undefined
  }

  /** The store failed: what waits is a backlog now, and what this instance decided it decided alone. */
  #afterFailure(error: unknown): void {
    if (isCircuitStorageError(error) && error.corrupt) this.#damaged = true
    this.#standAlone()
  }

  #standAlone(): void {
    this.#setbacks++
    this.#pending = toBacklog(this.#pending)
    this.#inFlight = toBacklog(this.#inFlight)
    this.#announce(this.#view, this.#runtime.now())
    this.#fireEvents()
  }

  /** @returns `false` after a conflict: what waits is decided again from the record that won */
  async #writeNext(): Promise<boolean> {
    const [settlement] = this.#settlements
    if (settlement !== undefined) return this.#writeSettlement(settlement)
    if (this.#dueTrip !== undefined) return this.#writeTrip(this.#dueTrip)
    this.#inFlight = this.#nextBatch()
    return this.#inFlight === undefined || this.#writeBatch(this.#inFlight)
  }

  async #writeSettlement(settlement: Settlement): Promise<boolean> {
    const { leaseId, outcome, at, lastFailure, requestId, transition } = settlement
    const record = this.#record
    const next =
      record !== undefined && this.#runtime.now() - at <= this.settings.window
        ? settle(record, leaseId, outcome, at, this.settings, this.#tokens(settlement), lastFailure)
        : undefined
    if (record === undefined || next === undefined) {
      this.#settlements.shift()
      return true
    }
    const reason = outcome === 'failure' ? 'probe-failed' : 'probe-succeeded'
    const change = this.#change(record, next, reason, at, requestId)
    const stored = await this.#compareAndSet(conditionOf(record), next, transition, change)
    if (stored) this.#settlements.shift()
    return stored
  }

  async #writeTrip(due: DueTrip): Promise<boolean> {
    const { at, lastFailure, requestId } = due
    const record = this.#record
    const now = this.#runtime.now()
    const isDue =
      record !== undefined &&
      activeOverride(record, now) === undefined &&
      this.#storedCount(now) >= this.settings.failureThreshold
    if (!isDue) {
      this.#dueTrip = undefined
      return true
    }
    this.#tripTokens ??= this.#transitionTokens()
    const next = open(record, at, this.settings, this.#tokens(this.#tripTokens), lastFailure)
    const change = this.#change(record, next, 'failure-threshold', at, requestId)
    const stored = await this.#compareAndSet(conditionOf(record), next, this.#tripTokens.transition, change)
    if (stored) this.#dueTrip = undefined
    this.#isInvolved ||= stored
    return stored
  }

  /** What was sent and not answered goes first and alone; other leftovers are merged with what came since. */
  #nextBatch(): Batch | undefined {
    const [first, second] = [this.#inFlight, this.#pending]
    if (first?.sent !== undefined) return first
    this.#pending = undefined
    if (first === undefined || second === undefined || second.success) return second ?? first
    if (second.at - first.at > this.settings.window) return second
    return {
      ...second,
      success: first.success,
      failures: first.failures + second.failures,
      backlog: first.backlog + second.backlog,
    }
  }

  async #writeBatch(batch: Batch): Promise<boolean> {
    const { at, requestId, sent } = batch
    const isCurrent = batch.epoch === this.#epoch || batch.sharedEpoch === this.#epoch
    const now = this.#runtime.now()
    const isOver = now - at > this.settings.window || !isCurrent
    const record = this.#record ?? emptyRecord(this.#epoch, at)
    const condition = conditionOf(this.#record)
    if (isOver || isAnswered(sent, record)) {
      this.#inFlight = undefined
      return true
    }
    if (sent !== undefined) return this.#send(batch, sent)
    if (batch.readsFirst && this.#store.canRead) {
      this.#inFlight = { ...batch, readsFirst: false }
      // Only a look: whatever becomes of it, the batch is written as if there had been none.
      await this.#within(this.loading ?? this.#read(), now + longestLook)
      return true
    }
    // A backlog is measured by what is stored now: what this instance knows is from before the store failed it.
    if (batch.backlog > 0 && this.#isOutOfTouch) {
      await (this.loading ?? this.#read())
      return false
    }

    // A state that was reached alone is not pushed onto the fleet: the backlog by itself cannot open the circuit.
    const live = batch.success ? 0 : liveFailureCount(record, now, this.settings.window)
    const backlog = Math.min(batch.backlog, Math.max(0, this.settings.failureThreshold - 1 - live))
    const failures = backlog + batch.failures - batch.backlog
    const tripTokens = this.#tripTokens ?? this.#transitionTokens()
    const tokens = this.#tokens(tripTokens)
    const decision = decideCount(record, { ...batch, failures }, now, this.settings, tokens)
    switch (decision.kind) {
      case 'nothing':
        this.#inFlight = undefined
        return true
      case 'increment':
        return this.#send(batch, { condition, count: failures, at: decision.at })
      case 'replace':
        return this.#send(batch, { condition, count: failures, at, next: decision.next })
      case 'trip': {
        this.#tripTokens = tripTokens
        const change = this.#change(record, decision.next, 'failure-threshold', at, requestId)
        const stored = await this.#compareAndSet(condition, decision.next, tripTokens.transition, change)
        if (stored) this.#inFlight = undefined
        this.#isInvolved ||= stored
        return stored
      }
    }
  }

  /** Sends a batch whose repetition is recognised: by its id if it adds, by its version if it replaces. */
  async #send(batch: Batch, sent: SentWrite): Promise<boolean> {
    const { condition, count, next } = sent
    const { version, epoch } = condition
    this.#inFlight = { ...batch, sent }
    const at = this.#runtime.now()
    const answers = this.#answers
    const { applied, current } = await this.#store.run<WriteResult>(
      next === undefined ? 'incrementFailures' : 'compareAndSetState',
      [this.service],
      (storage) =>
        next === undefined
          ? storage.incrementFailures(this.storageKey, version, { count, at: sent.at, id: batch.id, epoch })
          : storage.compareAndSetState(this.storageKey, version, next, epoch),
      (reply) => {
        this.#adoptLate(reply.current, at, answers)
        if (this.#inFlight?.id !== batch.id || !hasStored(reply, next)) return
        // It need not be sent again, nor can it be counted again where the record was deleted meanwhile.
        this.#inFlight = undefined
        this.#afterCounting(batch, count)
        this.#drainInBackground()
      },
    )
    const isStored = hasStored({ applied, current }, next)
    // Refused on a repetition, the first attempt may have been counted before the version changed: not again.
    const isDone = isStored || batch.sent !== undefined || this.#inFlight === undefined
    this.#inFlight = isDone ? undefined : withoutSent(this.#inFlight as Batch)
    if (!this.#isOvertaken(answers, condition)) this.#adopt(current ?? (applied ? next : undefined), at)
    if (isStored) {
      this.#isInvolved ||= count > 0
      this.#afterCounting(batch, count)
    }
    return isStored
  }

  /**
   * Whose failures completed the count opens the circuit; the others know that somebody is about to. If a mere backlog
   * completed it, the next failure of anyone does.
   */
  #afterCounting({ at, lastFailure, requestId, failures, backlog }: Batch, count: number): void {
    const { failureThreshold } = this.settings
    const total = this.#storedCount(at)
    if (total < failureThreshold || failures === backlog) return
    if (total - count < failureThreshold) this.#dueTrip = { at, lastFailure, requestId }
    if (this.#view.state === 'CLOSED') this.#tripView(total, at, lastFailure)
  }

  /** @returns whether `next` is what was stored, by this attempt or by an earlier one */
  async #compareAndSet(
    condition: Condition,
    next: CircuitRecord,
    transition: string,
    change: StateChange | undefined,
  ): Promise<boolean> {
    const { version, epoch } = condition
    const { take, takeLate } = this.#beginWrite(condition, next, transition, change)
    return take(
      await this.#store.run(
        'compareAndSetState',
        [this.service],
        (storage) => storage.compareAndSetState(this.storageKey, version, next, epoch),
        takeLate,
      ),
    )
  }

  /** Prepares a compare-and-set; the functions that it returns take the reply. */
  #beginWrite(
    condition: Condition,
    next: CircuitRecord,
    transition: string,
    change: StateChange | undefined,
  ): { take(reply: WriteResult): boolean; takeLate(reply: WriteResult): void } {
    const expect = (): void => {
      if (change === undefined || this.#told.has(transition)) return
      this.#unconfirmed.set(transition, { expected: condition.version, change })
      const [oldest] = this.#unconfirmed.keys()
      if (this.#unconfirmed.size > rememberedEvents) this.#unconfirmed.delete(oldest as string)
    }
    expect()
    const at = this.#runtime.now()
    const answers = this.#answers
    return {
      take: ({ applied, current }) => {
        // A read that overtook this reply may have taken the transition for impossible.
        if (applied) expect()
        if (this.#isOvertaken(answers, condition)) this.#tellStored(current)
        else this.#adopt(current ?? (applied ? next : undefined), at)
        return applied || (change !== undefined && current?.transitions.includes(transition) === true)
      },
      takeLate: ({ applied, current }) => {
        if (applied) expect()
        this.#adoptLate(current, at, answers)
      },
    }
  }

  /** Whether a newer answer than this write's reply was taken while it was on its way. */
  #isOvertaken(answers: number, { version, epoch }: Condition): boolean {
    if (answers < this.#clearedAt) return true
    const record = this.#record
    const isOther = record?.version !== version || (epoch !== undefined && record?.epoch !== epoch)
    return answers !== this.#answers && isOther
  }

  #tokens(transition: TransitionTokens = this.#transitionTokens()): Tokens {
    return { epoch: transition.epoch, transition: transition.transition, version: this.#runtime.id() }
  }

  #transitionTokens(): TransitionTokens {
    return { epoch: this.#runtime.id(), transition: this.#runtime.id() }
  }

  #change(
    record: CircuitRecord,
    next: CircuitRecord,
    reason: StateChangeReason,
    at: number,
    requestId: string | undefined,
  ): StateChange | undefined {
    if (record.state === next.state) return undefined
    const { service } = this
    const { generation } = next
    return { service, from: record.state, to: next.state, generation, at, reason, requestId, observed: false }
  }

  // ------------------------------------------------------------------------------------------- what the store says

  /** Whether the cached record is to be read again: older than its time to live, or from the future. */
  isStale(now: number): boolean {
    const age = now - this.#readAt
    return age >= this.#ttl || age < 0
  }

  /** Whether the cached record is old enough to be read again along with one that has to be. */
  isAging(now: number): boolean {
    const age = now - this.#readAt
    return age >= minTtl * this.settings.cacheTtl || age < 0
  }

  /** Prepares a read; the function that it returns takes the reply. */
  beginRead(): (reply: CircuitRecord | CircuitStorageError | undefined) => void {
    const at = this.#runtime.now()
    const answers = this.#answers
    const setbacks = this.#setbacks
    return (reply) => {
      if (!isCircuitStorageError(reply)) {
        this.#setbacksKnown = Math.max(this.#setbacksKnown, setbacks)
        this.#adoptLate(reply, at, answers)
      } else if (reply.corrupt) {
        this.#damaged = true
        this.#touch(at)
      }
    }
  }

  async #read(): Promise<void> {
    const at = this.#runtime.now()
    const answers = this.#answers
    const setbacks = this.#setbacks
    const adopt = (record: CircuitRecord | undefined): void => {
      this.#setbacksKnown = Math.max(this.#setbacksKnown, setbacks)
      this.#adoptLate(record, at, answers)
    }
    adopt(await this.#store.run('getState', [this.service], (storage) => storage.getState(this.storageKey), adopt))
  }

  /** Adopts a reply unless a newer one was adopted while it was on its way. */
  #adoptLate(record: CircuitRecord | undefined, at: number, answers: number): void {
    if (answers === this.#answers) {
      this.#adopt(record, at)
      this.#refreshView()
    } else {
      this.#tellStored(record)
      this.#fireEvents()
    }
  }

  #touch(at: number): void {
    this.#readAt = at
    this.#ttl = this.settings.cacheTtl * (minTtl + (1 - minTtl) * this.#runtime.random())
  }

  /** Takes what the store said, as of `at`. */
  #adopt(record: CircuitRecord | undefined, at: number): void {
    const before = this.#record
    this.#answers++
    this.#damaged = false
    this.#touch(at)
    this.#record = record
    const epoch = record?.epoch ?? (before === undefined ? this.#epoch : this.#runtime.id())
    if (epoch !== this.#epoch) {
      const continues = before === undefined && record?.generation === 0
      const isClaimed = record?.leases.some((lease) => lease.id === this.#claimTokens?.leaseId)
      if (!isClaimed) this.#claimTokens = undefined
      if (!continues && (record?.state ?? 'CLOSED') === 'CLOSED') this.#isInvolved = false
      this.#beginEpoch(epoch, continues)
    }
    this.#confirm(record)
    this.#adoptLease(record)
    if ((record?.state ?? 'CLOSED') !== this.#announced) this.#announce(record ?? emptyRecord(epoch, at), at)
  }

  /** Finds the lease of a claim whose reply may have been lost. */
  #adoptLease(record: CircuitRecord | undefined): void {
    const granted = record?.leases.find((lease) => lease.id === this.#claimTokens?.leaseId)
    if (granted !== undefined) {
      this.#spare = granted
      this.#claimTokens = undefined
      this.#isInvolved = true
    }
    if (this.#spare !== undefined && !record?.leases.some((lease) => lease.id === this.#spare?.id)) {
      this.#spare = undefined
    }
  }

  /** Whether a lease is still in the record and has not expired. */
  #isLive({ id }: Lease): boolean {
    const record = this.#record
    return record !== undefined && liveLeases(record, this.#runtime.now()).some((lease) => lease.id === id)
  }

  /** Outcomes of the epoch before no longer count, unless this is its continuation. */
  #beginEpoch(epoch: string, continues: boolean): void {
    if (continues) {
      const before = this.#epoch
      this.#epochBefore = before
      if (this.#pending?.sharedEpoch === before) this.#pending = { ...this.#pending, sharedEpoch: epoch }
      if (this.#inFlight?.sharedEpoch === before) this.#inFlight = { ...this.#inFlight, sharedEpoch: epoch }
    } else {
      this.#epochBefore = undefined
      this.#dueTrip = undefined
      if (this.#pending?.epoch !== epoch) this.#pending = undefined
      if (this.#inFlight?.epoch !== epoch) this.#inFlight = undefined
      if (this.#view.epoch !== epoch) {
        this.#streak = 0
        this.#held = false
      }
    }
    this.#epoch = epoch
  }

  /** Fires the events of transitions that turn out to be stored, and forgets those that no longer can be. */
  #confirm(record: CircuitRecord | undefined): void {
    this.#tellStored(record)
    for (const [transition, { expected, change }] of this.#unconfirmed) {
      // Others may have changed the state so often since that the record no longer names it: a late reply still may.
      const isForgotten = record !== undefined && record.generation - change.generation >= keptTransitions
      if (record?.version !== expected && !isForgotten) this.#unconfirmed.delete(transition)
    }
  }

  /** What is out of date as a state still proves that the transitions which led to it were stored. */
  #tellStored(record: CircuitRecord | undefined): void {
    for (const [transition, { change }] of this.#unconfirmed) {
      if (record?.transitions.includes(transition) !== true) continue
      this.#unconfirmed.delete(transition)
      this.#told.add(transition)
      const [oldest] = this.#told
      if (this.#told.size > rememberedEvents) this.#told.delete(oldest as string)
      this.#announced = change.to
      this.#events.push(change)
    }
  }

  /** Tells observers of a state that this instance did not make for the fleet. */
  #announce(record: CircuitRecord, at: number): void {
    if (record.state === this.#announced) return
    const from = this.#announced
    this.#announced = record.state
    const { service } = this
    const { generation } = record
    const reason = 'observed'
    this.#events.push({
      service,
      from,
      to: record.state,
      generation,
      at,
      reason,
      requestId: undefined,
      observed: true,
    })
  }

  /** Only when the view is up to date, because listeners may look at it. */
  #fireEvents(): void {
    for (const change of this.#events.splice(0)) this.#emit(change)
  }

  /** The view follows the record, except while it is ahead of it. */
  #refreshView(): void {
    if (!this.#isAhead()) {
      this.#tripTokens = undefined
      this.#setView(this.#record ?? emptyRecord(this.#epoch, this.#readAt))
    }
    this.#fireEvents()
  }

  /** Whether the view shows a change that is still being written. */
  #isAhead(): boolean {
    const record = this.#record
    const view = this.#view
    if (view.epoch === this.#epoch && view.state === record?.state) return this.#settlements.length > 0
    if (this.#settlements.length > 0) return record?.state === 'HALF_OPEN'
    if (this.#tripTokens === undefined || view.epoch !== this.#tripTokens.epoch) return false
    if (record !== undefined && record.state !== 'CLOSED') return false
    if (this.#dueTrip !== undefined || (this.#inFlight?.failures ?? 0) + (this.#pending?.failures ?? 0) > 0) return true
    // The count is complete, so another instance is about to open the circuit; if it dies, the next failure does.
    const now = this.#runtime.now()
    const isComplete = this.#storedCount(now) >= this.settings.failureThreshold
    return isComplete && now - (view.openedAt ?? now) < 2 * this.#storageTimeout
  }

  #setView(view: CircuitRecord): void {
    const isNewEpoch = view.epoch !== this.#view.epoch
    this.#view = view
    if (isNewEpoch && this.#tripTokens?.epoch !== view.epoch) this.#tripTokens = undefined
    if (view.state === 'CLOSED' || !isNewEpoch) return
    const spread = Math.min(maxClaimSpread, claimSpread * this.settings.resetTimeout)
    this.#claimDelay = this.#store.storage.shared === false ? 0 : spread * this.#runtime.random()
    const now = this.#runtime.now()
    const verdict = this.admit(now)
    // Whoever waits for a permit is refused at once.
    if (verdict !== 'pass' && verdict !== 'claim') this.permits.rejectAll(() => this.refusal(verdict, now))
  }

  // ----------------------------------------------------------------------------------------------------- operators

  /** What is stored, as far as this instance knows. */
  get stored(): CircuitRecord | undefined {
    return this.#record
  }

  /**
   * Writes what an operator decided, however often others write in between.
   *
   * @throws {CircuitStorageError} if the store fails
   */
  async operate(reason: StateChangeReason, decide: OperatorDecision): Promise<void> {
    const attempt = this.beginOperation(reason, decide)
    await this.#read()
    for (let conflicts = 0; conflicts < maxOperatorConflicts; conflicts++) {
      const { write, take, takeLate } = attempt()
      const { serviceKey, version, next, epoch } = write
      const services = [this.service]
      const run = (storage: ICircuitStorage) => storage.compareAndSetState(serviceKey, version, next, epoch)
      if (take(await this.#store.run('compareAndSetState', services, run, takeLate, { rounds: 1 }))) return
    }
    throw this.contended()
  }

  /** Prepares what an operator decided: each call decides again, from the latest record, what to write. */
  beginOperation(reason: StateChangeReason, decide: OperatorDecision): () => OperatorWrite {
    const transition = this.#transitionTokens()
    return () => {
      const now = this.#runtime.now()
      const record = this.#record ?? emptyRecord(this.#epoch, now)
      const condition = conditionOf(this.#record)
      const next = decide(record, now, this.#tokens(transition))
      const change = this.#change(record, next, reason, now, undefined)
      const { take, takeLate } = this.#beginWrite(condition, next, transition.transition, change)
      return {
        write: { serviceKey: this.storageKey, ...condition, next },
        take: (reply) => {
          const isStored = take(reply)
          this.#refreshView()
          return isStored
        },
        takeLate,
      }
    }
  }

  /** The error when others kept winning. */
  contended(): CircuitStorageError {
    const message = `Other writers kept changing the circuit of ${this.service}. Try again.`
    return new CircuitStorageError(message, { operation: 'compareAndSetState', service: this.service })
  }

  /** The record was deleted. */
  cleared(): void {
    this.#pending = undefined
    this.#inFlight = undefined
    this.#dueTrip = undefined
    this.#tripTokens = undefined
    this.#settlements = []
    this.#adopt(undefined, this.#runtime.now())
    this.#clearedAt = this.#answers
    this.#refreshView()
  }

  /** Deletes a record that does not parse, so that it can be replaced. */
  async clearDamage(): Promise<void> {
    const clear = (storage: ICircuitStorage) => storage.clearState(this.storageKey)
    await this.#store.run('clearState', [this.service], clear, undefined, { rounds: 1 })
    this.cleared()
  }

  // ------------------------------------------------------------------------------------------------------ snapshot

  /** When the circuit may be probed, if it is not closed, nor forced open without an end. */
  get retryAt(): number | undefined {
    const forced = activeOverride(this.#view, this.#runtime.now())
    if (forced !== undefined) return forced.state === 'OPEN' ? forced.until : undefined
    return this.#view.retryAt === undefined ? undefined : retryTime(this.#view, this.settings)
  }

  /** The state that callers should act on now. */
  get state(): CircuitState {
    return effectiveState(this.#view, this.#runtime.now(), this.settings)
  }

  /** Failures in a row, as far as this instance knows. */
  get failureCount(): number {
    if (this.#view.state !== 'CLOSED') return this.#view.failureCount
    const now = this.#runtime.now()
    const own = now - this.#streakAt <= this.settings.window ? this.#streak : 0
    return Math.max(own, this.#sharedCount(now))
  }
}

function toBacklog(batch: Batch | undefined): Batch | undefined {
  return batch === undefined || batch.backlog === batch.failures ? batch : { ...batch, backlog: batch.failures }
}

function withoutSent({ sent: _, ...batch }: Batch): Batch {
  return batch
}

function conditionOf(record: CircuitRecord | undefined): Condition {
  return { version: record?.version, epoch: record?.version === undefined ? record?.epoch : undefined }
}

/** Whether a reply says that `next`, or where there is none an increment, is stored. */
function hasStored({ applied, current }: WriteResult, next: CircuitRecord | undefined): boolean {
  return applied || (next !== undefined && current?.version === next.version)
}

/** Whether the record shows what became of a write whose reply was lost; if it cannot be told, it is not repeated. */
function isAnswered(sent: SentWrite | undefined, record: CircuitRecord): boolean {
  return sent !== undefined && record.version !== sent.condition.version
}
