/**
 * How hard it is to read the record of one circuit in a store that throttles.
 *
 * A throttled store is not a dead one: it serves others meanwhile. So the record lives longer for each time that reading it
 * was refused, and a little shorter again with each answer: a large fleet comes to ask as often as the store can bear.
 * A read that was refused is tried again sooner than that, because the next one of many may be served.
 *
 * An instance goes on with what it knows only now and then, so that not all of a fleet do; and when so many reads in a row
 * were refused that it is no longer chance.
 *
 * `CachedRecord` alone writes it, with each answer to a read and each refusal; `Circuit` tells it of a write in place of a read.
 *
 * @module
 */

/** A record lives no longer than this, for being hard to read, in milliseconds. */
export const longestLifetime = 30_000
/** A read that was refused is tried again after this time, or a lifetime if that is shorter, in milliseconds. */
const retryAfter = 3_000
/** The lifetime that is stretched where `cacheTtl` is shorter, in milliseconds. */
const shortestLifetime = 250
/** Refusals within this time are one burst, in milliseconds. */
const growsAfter = 5_000
/** So many refusals in a row are no chance. */
const mostRefusals = 10

export class Throttle {
  readonly #unit: number
  readonly #cacheTtl: number
  readonly #random: () => number
  /** The lifetime of the record is so many times as long. Written with each answer and each refusal. */
  #stretch = 1
  /** When that grew last, in milliseconds since the epoch. Written by `refused`. */
  #grownAt = Number.NEGATIVE_INFINITY
  /** Refusals in a row. Written with each answer and each refusal. */
  #refusals = 0
  /** Whether it is tried to read by a write. Drawn with each refusal. */
  #triesWriting = false
  /** Whether a write was refused, too. Written by `refusedWriting`, ended by an answer. */
  #isShut = false
  /** Whether the next claim starts without a look. Drawn with each refusal. */
  #goesOn = false

  constructor(cacheTtl: number, random: () => number) {
    this.#cacheTtl = cacheTtl
    this.#unit = Math.max(shortestLifetime, cacheTtl)
    this.#random = random
  }

  /** How long a record lives, in milliseconds. */
  get lifetime(): number {
    return this.isCrowded ? this.#unit * this.#stretch : this.#cacheTtl
  }

  /** When a read that was refused is tried again, in milliseconds from then. */
  get retry(): number {
    return Math.min(retryAfter, this.lifetime)
  }

  /** Whether the store is known to have more to do than it can. */
  get isCrowded(): boolean {
    return this.#stretch > 1
  }

  /** Whether the last read was refused. */
  get isRefused(): boolean {
    return this.#refusals > 0
  }

  /** Whether it goes on with the record that is known, though it could not be looked at. */
  get goesOn(): boolean {
    return this.#goesOn || this.#isShut
  }

  refused(now: number): void {
    this.#refusals++
    // One burst, as at the beginning of an outage, makes it grow once, unless the next read is refused, too.
    if (Math.abs(now - this.#grownAt) >= growsAfter || this.#refusals % 2 === 0) {
      this.#grownAt = now
      this.#stretch = Math.min(2 * this.#stretch, Math.max(1, longestLifetime / this.#unit))
    }
    this.#triesWriting = this.#refusals >= 3 && (this.#random() < 0.25 || this.#refusals >= mostRefusals)
    this.#goesOn = this.#random() < 1 / this.#stretch ** 2
  }

  /** Whether a write is to be tried in place of a read: its reply shows the record, too, and writes are counted apart. */
  get triesWriting(): boolean {
    return this.#triesWriting
  }

  answered(): void {
    this.#triesWriting = false
    this.#isShut = false
    this.#stretch = Math.max(1, 0.97 * this.#stretch)
    this.#refusals = 0
    this.#goesOn = false
  }

  /** The write that was tried in place of a read was refused, too. */
  refusedWriting(): void {
    this.#isShut = this.#refusals >= mostRefusals
  }

  /** Whether so many reads were refused in a row, and a write with them, that others cannot be served either. */
  get isShut(): boolean {
    return this.#isShut
  }
}
