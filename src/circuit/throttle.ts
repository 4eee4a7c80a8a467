/**
 * How hard it is to reach the record of one circuit in a store that throttles.
 *
 * A throttled store is not a dead one: it serves others meanwhile. So this instance asks less often, and more often again
 * with each answer; and it goes on with what it knows only now and then, so that not all of a fleet do.
 *
 * `Circuit` alone writes it, with each answer and each refusal of the store.
 *
 * @module
 */

/** A record is read no more seldom than this, for being throttled, in milliseconds. */
const longestLifetime = 30_000
/** The least time between two reads of a store that throttles, in milliseconds. */
const shortestLifetime = 250

export class Throttle {
  readonly #cacheTtl: number
  readonly #random: () => number
  /** The lifetime of the record is so many times as long. Written with each answer and each refusal. */
  #stretch = 1
  /** Whether the next claim starts without a look. Drawn with each refusal. */
  #goesOn = false

  constructor(cacheTtl: number, random: () => number) {
    this.#cacheTtl = cacheTtl
    this.#random = random
  }

  /** How long a record lives, in milliseconds. */
  get lifetime(): number {
    if (this.#stretch === 1) return this.#cacheTtl
    return Math.min(
      Math.max(longestLifetime, this.#cacheTtl),
      Math.max(shortestLifetime, this.#cacheTtl) * this.#stretch,
    )
  }

  /** Whether a claim may start from the record that is known, though it could not be looked at. */
  get goesOn(): boolean {
    return this.#goesOn
  }

  /** The lifetime of a record that is stretched. */
  get #unit(): number {
    return Math.max(shortestLifetime, this.#cacheTtl)
  }

  refused(): void {
    this.#stretch = Math.min(2 * this.#stretch, Math.max(1, longestLifetime / this.#unit))
    this.#goesOn = this.#random() < 1 / this.#stretch
  }

  answered(): void {
    this.#stretch = Math.max(1, 0.9 * this.#stretch)
    this.#goesOn = false
  }
}
