/**
 * The service as this instance has seen it by its own calls, and whether this instance refuses by itself.
 *
 * It knows nothing of the fleet. `failureThreshold` failures in a row make this instance refuse its calls at once, whatever
 * the fleet's circuit says: it is *tripped*. After `resetTimeout` it lets one call through at a time, until one succeeds.
 *
 * `Circuit` alone writes it, with the outcome of each call that counts. Its couplings: a trip that the fleet does not
 * confirm is reported as the instance's own trouble; a new epoch of the fleet's circuit ends everything but the memory that
 * the service has worked.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { Lease } from '../storage/contract.ts'
import { clockTolerance, type Failure, isLive, resetTimeoutAfter, type Verdict } from './state-machine.ts'

export class Streak {
  readonly #settings: ServiceSettings
  /** Failures in a row. Written with each outcome. */
  #length = 0
  /** The last of them. Written with each failure. */
  #lastFailure: Failure | undefined
  /** Whether a call of this instance has ever succeeded. Written by `succeeded`. */
  #hasWorked = false
  /** When this instance began to refuse. Written by `failed` and `probeEnded`, ended by `end`. */
  #openedAt: number | undefined
  /** From then on one call is let through. Written with `#openedAt`. */
  #retryAt = 0
  /** How often in a row it has begun to. Written with `#openedAt`, ended by `end`. */
  #trips = 0
  /** Whether it was reported that this instance alone refuses. Written by `isAlone`, ended by `end`. */
  #isReported = false
  /** The call that is let through. Written by `claim`, ended by its outcome. */
  #probe: (Lease & { readonly period: number }) | undefined

  constructor(settings: ServiceSettings) {
    this.#settings = settings
  }

  get length(): number {
    return this.#length
  }

  /** The last failure of the present streak. */
  get lastFailure(): Failure | undefined {
    return this.#length === 0 ? undefined : this.#lastFailure
  }

  get hasWorked(): boolean {
    return this.#hasWorked
  }

  /** When this instance began to refuse; `undefined`: it does not. In milliseconds since the epoch. */
  get openedAt(): number | undefined {
    return this.#openedAt
  }

  get retryAt(): number {
    return this.#retryAt
  }

  /** Whether a success changes nothing. */
  get isQuiet(): boolean {
    return this.#length === 0 && this.#hasWorked
  }

  /** Whether this instance refuses although a record that was read at `readAt` says that the service works: said once. */
  isAlone(readAt: number): boolean {
    if (this.#openedAt === undefined || this.#isReported || readAt < this.#openedAt) return false
    this.#isReported = true
    return true
  }

  /** The failures in a row that still count at `now`. */
  liveLength(now: number): number {
    return now - (this.#lastFailure?.at ?? 0) <= this.#settings.window ? this.#length : 0
  }

  /** The verdict on a call of a circuit that the fleet keeps closed. */
  admit(now: number): Exclude<Verdict, 'forced' | 'ramping'> {
    if (this.#openedAt === undefined) return 'pass'
    const ahead = this.#retryAt - now
    // Where the clock has stepped back by more, the instant counts as reached.
    if (ahead > 0 && ahead <= this.#retryAt - this.#openedAt + clockTolerance) return 'open'
    return this.#probe !== undefined && isLive(this.#probe, now) ? 'probing' : 'claim'
  }

  /** A call is let through although this instance refuses. */
  claim(lease: Lease, period: number): void {
    this.#probe = { ...lease, period }
  }

  /**
   * Ends the call that was let through. Where it failed, this instance refuses anew, however long ago the last failure was.
   *
   * @returns the period in which it was let through; `undefined`: it was another call
   */
  probeEnded(id: string, failure: Failure | undefined): number | undefined {
    if (this.#probe?.id !== id) return undefined
    const { period } = this.#probe
    this.#probe = undefined
    if (failure !== undefined) this.#refuse(failure)
    return period
  }

  succeeded(): void {
    this.#hasWorked = true
    this.end()
  }

  /**
   * One more failure; after a gap that is longer than the window it is the first. The gap ends where the call began: calls
   * that hang for longer than the window are a streak.
   *
   * @param startedAt when the call began, in milliseconds since the epoch
   */
  failed(failure: Failure, startedAt: number = failure.at): void {
    if (this.#openedAt === undefined && this.liveLength(startedAt) === 0) this.end()
    this.#length++
    this.#lastFailure = failure
    if (this.#length >= this.#settings.failureThreshold && this.#openedAt === undefined) this.#refuse(failure)
  }

  #refuse(failure: Failure): void {
    this.#openedAt = failure.at
    this.#retryAt = failure.at + resetTimeoutAfter(failure, this.#settings, this.#trips, String(failure.at))
    this.#trips++
  }

  /** A new epoch begins, or the service works. */
  end(): void {
    this.#length = 0
    this.#openedAt = undefined
    this.#trips = 0
    this.#probe = undefined
    this.#isReported = false
  }
}
