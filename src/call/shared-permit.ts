/**
 * Calls within the operations of others. One that finds no permit free uses the permit of the call that it is part of:
 * were it to wait for one, and all who hold them for it, none would ever come.
 *
 * To know which call is part of which costs more than the call itself (`AsyncLocalStorage`). So it is known of one that holds
 * a permit, whenever none is free: of the one that takes the last, and, when that has ended, of the next that gets one. That
 * is enough: it can lend its permit, so that its part goes on and ends, and its permit goes to the next. Once calls are known
 * to be parts of others, or one has waited in vain, all calls of that service are known.
 *
 * A permit is lent to one call at a time, which can lend it on. So no more calls than permits are at work.
 *
 * @module
 */

import { AsyncLocalStorage } from 'node:async_hooks'
import type { Permit, Waiter } from './semaphore.ts'

/** The permit of the call within whose operation the code runs. */
const current = new AsyncLocalStorage<SharedPermit>()

/** A permit that its call lends to calls within its operation. */
export class SharedPermit implements Permit {
  readonly #owner: Permit
  readonly #onLend: () => void
  /** Whether a call has it. Written by `#lend` and `#giveBack`. */
  #isLent = false
  /** Whether its own call has ended. Set by `release`. */
  #isOver = false
  /** The calls that wait until it comes back, or another permit is free. Some have gone since. */
  readonly #waiting: Waiter[] = []

  /**
   * @param owner gets it back
   * @param onLend is told that the call has others within it
   */
  constructor(owner: Permit, onLend: () => void) {
    this.#owner = owner
    this.#onLend = onLend
  }

  /** The permit of the call of which the code that runs now is a part, if it is known. */
  static get current(): SharedPermit | undefined {
    return current.getStore()
  }

  /** Whether its call has ended. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** Whether calls within this one have waited for its permit in vain until now. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0
  }

  /** Begins the operation of the call. */
  run<T, A extends unknown[]>(begin: (...given: A) => T, ...given: A): T {
    return current.run(this, begin, ...given)
  }

  /** Lends it, unless another call has it; `undefined`: it does. */
  borrow(): SharedPermit | undefined {
    if (this.#isLent || this.#isOver) return undefined
    this.#onLend()
    return this.#lend()
  }

  #lend(): SharedPermit {
    this.#isLent = true
    return new SharedPermit({ release: () => this.#giveBack() }, this.#onLend)
  }

  /** Lends it to the waiter when it comes back. */
  whenBack(waiter: Waiter): void {
    this.#waiting.push(waiter)
  }

  /** The call has ended. A call that still has the permit keeps it. */
  release(): void {
    this.#isOver = true
    if (!this.#isLent) this.#owner.release()
  }

  #giveBack(): void {
    this.#isLent = false
    if (this.#isOver) {
      this.#owner.release()
      return
    }
    // The last first: it need not be fair, for all of them wait in line, too.
    for (let waiter = this.#waiting.pop(); waiter !== undefined; waiter = this.#waiting.pop()) {
      if (waiter.take(this.#lend())) return
      this.#isLent = false
    }
  }
}
