/**
 * When this instance probes, and the lease that it holds for a probe.
 *
 * A claim starts with a wish of a call. `next` says what is to be done for it: look at the record where it may have
 * changed, then ask for a lease by one conditional write, decided anew after each conflict. The lease that the record
 * grants lies ready until a call takes it, or until it is given back. A reply may be lost: a record that lists the lease
 * grants it just as well, so that the id of a lease is kept over all attempts of an epoch.
 *
 * Claims are spread: each instance waits a small random fraction of `resetTimeout` after `retryAt`, and then until its cache
 * is stale. The instance that opened the circuit, or failed the last probe, may be the only one that cannot reach the
 * service: it lets the others probe first, for a `cacheTtl`. If no others are known it waits as long as it takes them to look.
 *
 * A store that leaves a second claim in a row unanswered must not keep the circuit open: then this instance probes alone.
 *
 * `Circuit` alone writes this. It must never hand out one lease twice, nor one that is gone from the record.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, Lease } from '../storage/contract.ts'
import { lookTime } from './cached-record.ts'
import { stateChange } from './state-change.ts'
import { admit, claim, liveLeases, maxLease, retryTime } from './state-machine.ts'
import type { Settlement, Step } from './step.ts'
import { knowsOthers } from './suspicion.ts'

/** The permission to run one probe. */
export interface ProbeLease {
  readonly id: string
  /** `true` if this instance granted it to itself while the store was away. */
  readonly isLocal: boolean
}

/** A call waits for a probe. */
export interface Wish {
  /** How long the lease lasts, in milliseconds. */
  readonly duration: number
  readonly requestId: string | undefined
  /** Whether the record is looked at first. Cleared by the look. */
  readonly looksFirst: boolean
}

/** Claims of a fleet are spread over this part of the reset timeout. */
const spread = 0.05
/** The longest that a claim is put off, in milliseconds. */
const longestDelay = 1_000

export class ProbeClaims {
  readonly #service: string
  readonly #settings: ServiceSettings
  readonly #id: () => string
  readonly #isShared: boolean
  /** How much later than `retryAt` this instance claims, in milliseconds. Drawn for each epoch of the view. */
  #delay = 0
  /** The claim that is under way. Written by `wish`, ended by `next` or `withdraw`. */
  #wish: Wish | undefined
  /** The ids of a claim that was sent, kept until it is granted or its epoch is over. */
  #tokens: { readonly leaseId: string; readonly epoch: string } | undefined
  /** A lease of this instance that no call uses. Written with each record. */
  #ready: Lease | undefined
  /** The lease that was asked for, and that a probe uses already which this instance granted itself. Written by `goesAlone`. */
  #alone: string | undefined
  /** How that probe ended. Written by `endedAlone`, ended by `arrived`. */
  #ended: Omit<Settlement, 'kind'> | undefined
  /** Claims in a row that the store left unanswered. */
  #unanswered = 0
  /** Whether the last claim was throttled. Written by `throttled`, ended by `answered`. */
  #wasThrottled = false
  /** Whether this instance opened the circuit, or failed the last probe. Written by `involve`, ended by `epochBegan`. */
  #isInvolved = false

  constructor(service: string, settings: ServiceSettings, id: () => string, isShared: boolean) {
    this.#service = service
    this.#settings = settings
    this.#id = id
    this.#isShared = isShared
  }

  /** How much later than `retryAt` this instance may claim, in milliseconds. */
  delayAt(view: CircuitRecord, now: number): number {
    if (!this.#isShared || !this.#isInvolved) return this.#delay
    const { cacheTtl, resetTimeout } = this.#settings
    if (knowsOthers(view, now)) return cacheTtl
    // The more of its probes have failed, the longer others may take to show themselves.
    return view.trips > 1 ? Math.min(cacheTtl, (view.resetTimeout ?? resetTimeout) / 10) : lookTime(resetTimeout)
  }

  /** Whether this instance, whose last probe failed, lets the others go on with theirs. */
  yields({ state, updatedAt }: CircuitRecord, record: CircuitRecord | undefined, now: number): boolean {
    if (!this.#isShared || !this.#isInvolved || state !== 'HALF_OPEN' || this.#ready !== undefined) return false
    return knowsOthers(record, now) && now >= updatedAt && now - updatedAt < this.#settings.cacheTtl
  }

  get unanswered(): number {
    return this.#unanswered
  }

  get hasReady(): boolean {
    return this.#ready !== undefined
  }

  /** The view is in another epoch. */
  drawDelay(random: () => number): void {
    this.#delay = this.#isShared ? Math.min(longestDelay, spread * this.#settings.resetTimeout) * random() : 0
  }

  /** This instance has opened the circuit, or failed a probe. */
  involve(): void {
    this.#isInvolved = true
  }

  /** Whether this instance opened the circuit, or failed the last probe. */
  get isInvolved(): boolean {
    return this.#isInvolved
  }

  wish(wish: Wish): void {
    this.#wish = wish
    // Should the lease that was asked for come now, it is for this call.
    this.#alone = undefined
    this.#ended = undefined
  }

  withdraw(): void {
    this.#wish = undefined
  }

  /** A call asks the store for a probe; until the store answers, that is one more unanswered claim. */
  asked(): void {
    this.#unanswered++
  }

  /** Whether a claim is under way that needs no look any more. */
  get isReadyToAsk(): boolean {
    return this.#wish?.looksFirst === false
  }

  /** The store has answered. */
  answered(): void {
    this.#unanswered = 0
    this.#wasThrottled = false
  }

  /** The store has too much to do: that is an answer, but no lease. */
  throttled(): void {
    this.#unanswered = 0
    this.#wasThrottled = true
  }

  get wasThrottled(): boolean {
    return this.#wasThrottled
  }

  /** Whether the lease that lies ready has not expired. */
  isReady(record: CircuitRecord | undefined, now: number): boolean {
    const { id } = this.#ready ?? {}
    return record !== undefined && liveLeases(record, now).some((lease) => lease.id === id)
  }

  /** Hands out the lease that lies ready; `undefined` if there is none. */
  takeReady(): string | undefined {
    const id = this.#ready?.id
    this.#ready = undefined
    return id
  }

  /** This instance grants itself a probe: with the lease that it has asked for, which may be granted yet. */
  goesAlone(now: number, duration: number): Lease {
    this.#alone = this.#tokens?.leaseId ?? this.#id()
    return this.leaseUntil(this.#alone, now, duration)
  }

  /** A probe that this instance granted itself has ended: if its lease is granted yet, that is its settlement. */
  endedAlone(settlement: Omit<Settlement, 'kind'>): void {
    this.#ended = settlement
  }

  /** A lease that expires this long after `now`, or earlier. */
  leaseUntil(id: string, now: number, duration: number): Lease {
    return { id, expiresAt: now + Math.min(maxLease, duration) }
  }

  /**
   * The next step for the wish; `undefined`: there is none, and the wish is over.
   *
   * @param mayClaim whether this instance would let a call probe now
   */
  next(record: CircuitRecord | undefined, now: number, mayClaim: boolean): Step | undefined {
    const wish = this.#wish
    if (wish === undefined) return undefined
    if (wish.looksFirst) {
      this.#wish = { ...wish, looksFirst: false }
      return { kind: 'read' }
    }
    const isFree = record !== undefined && admit(record, now, this.#settings) === 'claim'
    if (this.#ready !== undefined || !mayClaim || !isFree) {
      this.answered()
      this.#wish = undefined
      return undefined
    }
    this.#tokens ??= { leaseId: this.#id(), epoch: this.#id() }
    const { leaseId, epoch } = this.#tokens
    const lease = this.leaseUntil(leaseId, now, wish.duration)
    const claimed = claim(record, now, lease, this.#settings, { epoch, version: this.#id() })
    // The instance that opened the circuit learns that it is not alone before the probe has ended, and lets it end.
    const next = this.#isInvolved ? claimed : { ...claimed, othersAt: now }
    const change = stateChange(this.#service, record, next, 'probe-started', now, wish.requestId)
    return { kind: 'replace', version: record.version, next, change, cause: { kind: 'claim' } }
  }

  /**
   * Whether others should claim first, for all that this instance knows.
   *
   * @param mayAsk whether the record is due to be read again, or cannot be
   */
  leavesToOthers(view: CircuitRecord, readAt: number, mayAsk: boolean): boolean {
    const { cacheTtl, resetTimeout } = this.#settings
    if (!this.#isShared || this.#isInvolved || mayAsk) return false
    return 2 * cacheTtl <= resetTimeout && readAt < retryTime(view, this.#settings)
  }

  /** The fleet's circuit is in another epoch, of which `record` is the first that is known. */
  epochBegan(record: CircuitRecord | undefined, isContinued: boolean): void {
    this.answered()
    if (!record?.leases.some(({ id }) => id === this.#tokens?.leaseId)) this.#tokens = undefined
    if (!isContinued && (record?.state ?? 'CLOSED') === 'CLOSED') this.#isInvolved = false
  }

  /**
   * A record grants the lease that was asked for, or has lost the one that lies ready.
   *
   * @returns the settlement of a lease whose probe has ended before it was granted
   */
  arrived(record: CircuitRecord | undefined): Omit<Settlement, 'kind'> | undefined {
    const granted = record?.leases.find(({ id }) => id === this.#tokens?.leaseId)
    const ended = this.#ended
    if (granted !== undefined) {
      this.#tokens = undefined
      this.#ended = undefined
      if (granted.id === ended?.leaseId) return ended
      if (granted.id !== this.#alone) this.#ready = granted
    }
    const ready = this.#ready
    if (ready !== undefined && !record?.leases.some(({ id }) => id === ready.id)) this.#ready = undefined
    return undefined
  }

  /** Forgets a lease that has expired. */
  dropReady(): void {
    this.#ready = undefined
  }
}
