/**
 * Lets an inner call, which runs within the operation of an outer call, borrow the permit of the outer call if no permit is free.
 * Otherwise inner calls would wait for permits that their outer calls hold: a deadlock.
 *
 * To track which call is inside which (`AsyncLocalStorage`) costs more than the call itself. So while no permit is free, one holder
 * is tracked: the call that takes the last permit, and after its end the next call that gets one. One is enough: it lends its
 * permit, its inner call ends, and then the permit goes to the next waiter. Once inner calls have occurred, or one has waited in
 * vain, all calls of the service are tracked.
 *
 * A permit is lent to one call at a time, and that call can lend it on. So no more calls than permits do work at once.
 *
 * @module
 */

import { AsyncLocalStorage } from 'node:async_hooks'
import type { Permit, Waiter } from './semaphore.ts'

/** The permit of the call whose operation runs the present code. */
const current = new AsyncLocalStorage<SharedPermit>()

/** A permit that its call lends to calls within its operation. */
export class SharedPermit implements Permit {
  readonly #owner: Permit
  readonly #onLend: () => void
  /** Whether the permit is lent. Written by `#lend` and `#giveBack`. */
  #isLent = false
  /** Whether its own call has ended. Set by `release`. */
  #isOver = false
  /** The calls that wait until this permit comes back or another one is free. Some may have left. */
  readonly #waiting: Waiter[] = []

  /**
   * @param owner gets the permit back
   * @param onLend called when an inner call borrows the permit
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

  /** Whether inner calls have waited for this permit in vain. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0
  }

  /** Begins the operation of the call. */
  run<T, A extends unknown[]>(begin: (...given: A) => T, ...given: A): T {
    return current.run(this, begin, ...given)
  }

  /** Lends the permit; `undefined`: another call has it. */
  borrow(): SharedPermit | undefined {
    if (this.#isLent || this.#isOver) return undefined
    this.#onLend()
    return this.#lend()
  }

  #lend(): SharedPermit {
    this.#isLent = true
    return new SharedPermit({ release: () => this.#giveBack() }, this.#onLend)
  }

  /** Lends the permit to the waiter when it comes back. */
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
    // The last waiter first. This need not be fair, because all of them also wait in the queue.
    for (let waiter = this.#waiting.pop(); waiter !== undefined; waiter = this.#waiting.pop()) {
      if (waiter.take(this.#lend())) return
      this.#isLent = false
    }
  }
}
