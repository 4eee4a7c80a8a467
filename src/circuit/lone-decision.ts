/**
 * What this instance has decided without the store, because nothing could be written: how a probe of its own ended.
 *
 * It stands as long as the store holds the record that it was made on: to read that record once more is no news. Calls are
 * judged by the view meanwhile. Where the view is closed, the store is asked for a probe once in a `resetTimeout`; no call
 * waits for that.
 *
 * `Circuit` alone writes it: `decide` with each change that it makes alone, `end` when the view follows the record. It must
 * never outlive a change of the record, nor be written to the store.
 *
 * @module
 */

export class LoneDecision {
  readonly #resetTimeout: number
  /** The version of the record that it was made on. Written by `decide`, ended by `end`. */
  #madeOn: { readonly version: string | undefined } | undefined
  /** From then on the store is asked again, in milliseconds since the epoch. Written by `decide` and `asked`. */
  #asksAt = 0

  constructor(resetTimeout: number) {
    this.#resetTimeout = resetTimeout
  }

  get isMade(): boolean {
    return this.#madeOn !== undefined
  }

  decide(version: string | undefined, now: number): void {
    this.#madeOn = { version }
    this.asked(now)
  }

  /** Whether it stands while the store holds a record of this version. */
  stands(version: string | undefined): boolean {
    return this.#madeOn !== undefined && this.#madeOn.version === version
  }

  /** Whether the store is to be asked again. A clock that has stepped back must not put it off. */
  isDue(now: number): boolean {
    return this.#madeOn !== undefined && (now >= this.#asksAt || now < this.#asksAt - this.#resetTimeout)
  }

  asked(now: number): void {
    this.#asksAt = now + this.#resetTimeout
  }

  end(): void {
    this.#madeOn = undefined
  }
}
