/**
 * The decision of this instance without the store, because nothing could be written: how a probe of its own ended.
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

import type { CircuitRecord } from '../storage/contract.ts'

export class LoneDecision {
  readonly #resetTimeout: number
  /** The record that it was made on. Written by `decide`, ended by `end`. */
  #madeOn: Pick<CircuitRecord, 'version' | 'generation'> | undefined
  /** Whether it is that the service works. Written by `decide`. */
  #isClosed = false
  /** From then on the store is asked again, in milliseconds since the epoch. Written by `decide` and `asked`. */
  #asksAt = 0

  constructor(resetTimeout: number) {
    this.#resetTimeout = resetTimeout
  }

  get isMade(): boolean {
    return this.#madeOn !== undefined
  }

  /** @param view the record that calls are judged by from now on */
  decide(record: CircuitRecord, view: CircuitRecord, now: number): void {
    this.#madeOn = record
    this.#isClosed = view.state === 'CLOSED'
    this.asked(now)
  }

  /** Whether it stands while the store holds this record. That somebody probes is no news, where the service is known to work. */
  stands(record: CircuitRecord | undefined): boolean {
    if (this.#madeOn === undefined || record === undefined) return false
    const { version, generation } = this.#madeOn
    const isProbed = record.state === 'HALF_OPEN' && record.generation - generation <= 1
    return record.version === version || (this.#isClosed && isProbed)
  }

  /** Whether the store is to be asked again. A clock that has stepped back must not put it off. */
  isDue(now: number): boolean {
    return (
      this.#isClosed && this.#madeOn !== undefined && (now >= this.#asksAt || now < this.#asksAt - this.#resetTimeout)
    )
  }

  asked(now: number): void {
    this.#asksAt = now + this.#resetTimeout
  }

  end(): void {
    this.#madeOn = undefined
  }
}
