/**
 * The store's last answer about one circuit.
 *
 * It knows the record, how old it is, and how many answers came before it. `Circuit` alone writes it, once for each
 * answer of the store. It knows nothing of what this instance decides: the view is `Circuit`'s.
 *
 * Answers overtake each other, because a request that has timed out may still be answered. Each request therefore takes
 * an {@link Exchange} along: what was known when it left. A read is believed only if no other answer came meanwhile. The
 * reply to a write is believed also where it is proven to be younger than the cached record, as `isOvertaken` says. No reply
 * is believed that left before a deletion.
 *
 * A record can be in doubt: the store has failed since it was read, or holds an addition of ours that the record may lack.
 * `isOutOfTouch` says so, until an answer comes whose request left after the doubt arose.
 *
 * The record of an open circuit is read again soon after `retryAt`, so that a recovery is noticed; then at growing intervals.
 * Where the fleet is large, only a part of it looks so soon.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, ExpectedVersion, WriteResult } from '../storage/contract.ts'
import { forgetOldest } from './forget-oldest.ts'
import { retryTime } from './state-machine.ts'
import { longestLifetime, Throttle } from './throttle.ts'

/** Times in milliseconds. */
type CacheSettings = Pick<ServiceSettings, 'cacheTtl' | 'resetTimeout' | 'maxResetTimeout'>

/** The state of knowledge when a request left. */
export interface Exchange {
  /** Milliseconds since the epoch. */
  readonly sentAt: number
  /** How many answers had come. */
  readonly answers: number
  /** How many doubts there had been. */
  readonly doubts: number
}

/** The condition of a write. */
export interface Condition {
  readonly kind: 'add' | 'replace'
  readonly version: ExpectedVersion
}

/** Whether the condition of a write holds of a record. */
export function holds({ version }: Pick<Condition, 'version'>, record: CircuitRecord | undefined): boolean {
  return record?.version === version
}

/** The instances of a fleet look at an open circuit within this time after `retryAt`, in milliseconds. */
export function lookTime(resetTimeout: number): number {
  return Math.min(1_000, resetTimeout / 10)
}

/** Where the store has more to do than it can, they look within this time, in milliseconds. */
const crowdedLook = 8_000
/** So many instances of a fleet look so soon, about. */
const lookers = 1_500

/** A read lags behind by less than this, in milliseconds. */
const longestLag = 60_000
/** So many versions that were replaced are remembered. */
const remembered = 16

/** The lifetime of a cached record is drawn from this part of `cacheTtl` up: a fleet does not read in step. */
const shortestLifetime = 0.8

export class CachedRecord {
  readonly #settings: CacheSettings
  readonly #random: () => number
  /** How hard it is to read. Written with each answer to a read, and each refusal. */
  readonly throttle: Throttle
  /** The record; `undefined`: nothing is stored, or nothing is known. Written with each answer. */
  #current: CircuitRecord | undefined
  /** When this instance learned that these versions were replaced, in milliseconds since the epoch. Written with each answer. */
  readonly #replaced = new Map<string, number>()
  /** When the request left whose answer this is, in milliseconds since the epoch. Written with each answer. */
  #readAt = Number.NEGATIVE_INFINITY
  /** From then on it is read again, in milliseconds since the epoch. Written with each answer. */
  #staleAt = Number.NEGATIVE_INFINITY
  /** Whether the store holds something that is no record. Written by `damaged`, ended by the next answer. */
  #isDamaged = false
  /** Counts the answers that were believed. */
  #answers = 0
  /** The count of answers at the last deletion. Written by `cleared`. */
  #clearedAt = 0
  /** Counts the doubts. Written by `doubt`. */
  #doubts = 0
  /** The count of doubts when the request left that a read has answered last. Written by `heard`. */
  #doubtsSettled = 0

  constructor(settings: CacheSettings, random: () => number) {
    this.#settings = settings
    this.#random = random
    this.throttle = new Throttle(settings.cacheTtl, random)
  }

  get current(): CircuitRecord | undefined {
    return this.#current
  }

  get readAt(): number {
    return this.#readAt
  }

  get staleAt(): number {
    return this.#staleAt
  }

  get isDamaged(): boolean {
    return this.#isDamaged
  }

  /** Whether the record is in doubt. */
  get isOutOfTouch(): boolean {
    return this.#doubtsSettled < this.#doubts
  }

  /** Whether it is to be read again: older than its lifetime, or from the future. */
  isStale(now: number): boolean {
    // A clock that was set back must not prolong its life.
    const isAhead = now < this.#readAt || this.#staleAt - now > Math.max(longestLifetime, this.#settings.cacheTtl)
    return now >= this.#staleAt || isAhead
  }

  /** Whether it is old enough to be read along with one that is stale. */
  isAging(now: number): boolean {
    return this.isStale(now) || now - this.#readAt >= shortestLifetime * this.throttle.lifetime
  }

  /** A request leaves. */
  begin(now: number): Exchange {
    return { sentAt: now, answers: this.#answers, doubts: this.#doubts }
  }

  /** Whether another answer was believed since the request left: a read's answer is then discarded. */
  isLate({ answers }: Exchange): boolean {
    return answers !== this.#answers
  }

  /**
   * The same of a write. Where other answers came meanwhile, its reply is still the younger one if the cache holds the
   * version that the write was conditional on and that is gone now. An addition that was applied keeps the version, so that
   * the greater sum of its counts is the younger one.
   */
  isOvertaken(exchange: Exchange, write: Condition, { applied, current }: WriteResult): boolean {
    if (exchange.answers < this.#clearedAt) return true
    if (!this.isLate(exchange)) return false
    const cached = this.#current
    if (write.kind === 'replace' || !applied) return !holds(write, cached)
    return cached === undefined || cached.version !== current?.version || sumOf(cached) > sumOf(current)
  }

  /** Believes an answer to a request that left at `sentAt`. */
  take(record: CircuitRecord | undefined, sentAt: number): void {
    this.#answers++
    this.#isDamaged = false
    if (this.#current !== undefined && isLater(record, this.#current)) {
      this.#replaced.set(this.#current.version, sentAt)
      forgetOldest(this.#replaced, remembered)
    }
    this.#current = record
    this.#date(sentAt)
  }

  /** The store throttles: the record is read again after a longer time. */
  throttled(now: number): void {
    this.throttle.refused(now)
    this.#staleAt = now + this.throttle.retry * this.#lifetime()
  }

  /** Whether it is not read for now, because the store has throttled the last read. */
  isHeldBack(now: number): boolean {
    return this.throttle.isRefused && !this.isStale(now)
  }

  /**
   * Whether a read has shown what is known to have been replaced: where the store does not read consistently. What is shown
   * for longer than such a read can lag behind is believed all the same.
   */
  isOutdated(record: CircuitRecord | undefined, now: number): boolean {
    if (record === undefined) return false
    const replacedAt = this.#replaced.get(record.version) ?? Number.NEGATIVE_INFINITY
    if (Math.abs(now - replacedAt) < longestLag) return true
    const current = this.#current
    if (current === undefined || current.epoch === record.epoch) return false
    // An operator's decision that is made anew keeps its id, so the same epoch can come again, in a later generation.
    return record.generation <= current.generation && current.transitions.includes(record.epoch)
  }

  /** This instance refuses by itself from now on: the record may be out of date, however long it lives. */
  look(now: number): void {
    if (this.throttle.isCrowded) this.#staleAt = Math.min(this.#staleAt, now + crowdedLook * this.#random())
  }

  /** The circuit was read after the doubts that there were when the request left. */
  heard({ doubts }: Exchange): void {
    this.throttle.answered()
    this.#doubtsSettled = Math.max(this.#doubtsSettled, doubts)
  }

  /** The store holds something that is no record. `sentAt`: a read has found that; the next one is due after a lifetime. */
  damaged(sentAt?: number): void {
    this.#isDamaged = true
    if (sentAt !== undefined) this.#date(sentAt)
  }

  /** The answer that was believed last is a deletion: replies to everything that left before are void. */
  cleared(): void {
    this.#clearedAt = this.#answers
  }

  /** The store failed, or holds something of ours that the record may lack. */
  doubt(): void {
    this.#doubts++
  }

  #date(sentAt: number): void {
    this.#readAt = sentAt
    const lifetime = this.#lifetime()
    this.#staleAt = Math.min(sentAt + this.throttle.lifetime * lifetime, this.#looksAt(sentAt, lifetime))
  }

  /** A part of a lifetime. */
  #lifetime(): number {
    return shortestLifetime + (1 - shortestLifetime) * this.#random()
  }

  /** When the record of an open circuit is looked at, whatever `cacheTtl` says. */
  #looksAt(sentAt: number, lifetime: number): number {
    const record = this.#current
    if (record === undefined || record.state === 'CLOSED') return Number.POSITIVE_INFINITY
    const dueAt = retryTime(record, this.#settings)
    if (this.throttle.isCrowded)
      return Math.max(sentAt, dueAt) + Math.max(crowdedLook, this.throttle.lifetime / 2) * lifetime
    const window = lookTime(this.#settings.resetTimeout)
    if (sentAt >= dueAt) return sentAt + Math.max(window / 2, sentAt - dueAt) * lifetime
    // As many outcomes as were reported in a second, as many records are read: each instance reads once in `cacheTtl`.
    const instances = ((record.pace ?? 0) * this.#settings.cacheTtl) / 1_000
    return this.#random() * instances < lookers ? dueAt + window * this.#random() : Number.POSITIVE_INFINITY
  }
}

/** Whether a record has taken the place of another, and not the other way round. */
function isLater(record: CircuitRecord | undefined, other: CircuitRecord): boolean {
  if (record === undefined || record.version === other.version) return false
  const since = record.generation - other.generation
  return since > 0 || (since === 0 && record.updatedAt >= other.updatedAt)
}

/** Everything that was added to a record since it was replaced. */
function sumOf({ failureCount, successCount, startedCount, earlyCount, reporterCount }: CircuitRecord): number {
  return failureCount + successCount + startedCount + earlyCount + reporterCount
}
