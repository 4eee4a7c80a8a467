/**
 * The service as this instance has seen it by its own calls: how often it failed in a row, and when it last worked.
 *
 * It knows nothing of the fleet. `Circuit` alone writes it, with the outcome of each call that counts. Its couplings: the
 * first failure of a service that has worked within `window` is withheld until a second one follows, and is then reported
 * with it; and a success ends what is withheld.
 *
 * @module
 */

/** A success cannot lie further back than the longest call: otherwise the clock has stepped back. In milliseconds. */
const longestCall = 900_000

export class Streak {
  readonly #window: number
  /** Failures in a row. Written with each outcome. */
  #length = 0
  /** When the last of them happened, in milliseconds since the epoch. Written with each failure. */
  #lastFailureAt = 0
  /** Whether the first one is withheld. Written with each outcome. */
  #isWithheld = false
  /** When the service last worked, in milliseconds since the epoch. Written with each success. */
  #lastSuccessAt = Number.NEGATIVE_INFINITY

  constructor(window: number) {
    this.#window = window
  }

  get length(): number {
    return this.#length
  }

  get lastFailureAt(): number {
    return this.#lastFailureAt
  }

  get isWithheld(): boolean {
    return this.#isWithheld
  }

  /** The failures in a row that still count at `now`. */
  liveLength(now: number): number {
    return now - this.#lastFailureAt <= this.#window ? this.#length : 0
  }

  succeeded(at: number): void {
    this.#lastSuccessAt = at
    this.end()
  }

  /** The same where there is no failure to end. Calls end in another order than they begin. */
  noteSuccess(at: number): void {
    const last = this.#lastSuccessAt
    if (at > last || last - at > longestCall) this.#lastSuccessAt = at
  }

  /** One more failure; after a gap that is longer than the window it is the first. */
  failed(at: number): void {
    if (at - this.#lastFailureAt > this.#window) this.end()
    this.#length++
    this.#lastFailureAt = at
  }

  /** Whether the service has worked within the window before `at`. */
  hasSucceeded(at: number): boolean {
    return at - this.#lastSuccessAt <= this.#window
  }

  withhold(): void {
    this.#isWithheld = true
  }

  /** The failures to report with the present one: itself, and the one that was withheld. */
  takeFailures(): number {
    const failures = this.#isWithheld ? 2 : 1
    this.#isWithheld = false
    return failures
  }

  /** A new epoch begins, or the service works. */
  end(): void {
    this.#length = 0
    this.#isWithheld = false
  }
}
