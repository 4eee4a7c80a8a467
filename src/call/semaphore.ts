/** A permit, which a call holds while it runs. */
export interface Permit {
  /** Gives it back: once. */
  release(): void
}

/** A place in the queue of a {@link Semaphore}. */
export interface Waiter {
  /** Resolves with the permit when it is granted. Rejects with the error of `rejectAll`. */
  readonly granted: Promise<Permit>
  /** Takes a permit from another source and leaves the queue; `false`: the call no longer waits. */
  take(permit: Permit): boolean
  /** Leaves the queue, or gives the permit back if it was granted in the meantime. */
  leave(): void
}

/** The number of permits without a limit. V8 needs an object for each larger number. */
const countless = 2 ** 30 - 1

/**
 * A number of permits with a first-in, first-out queue. A released permit goes to the first waiter. The semaphore itself is the
 * permit that it grants.
 */
export class Semaphore implements Permit {
  readonly #permits: number
  #free: number
  readonly #maxQueue: number
  /** The ends of the queue, a linked list. A `Set` gets slow if its first element is removed again and again. */
  #first: Entry | undefined
  #last: Entry | undefined
  #waiting = 0
  #queued = 0

  /**
   * @param permits how many may be held at once
   * @param maxQueue how many may wait; `false`: any number
   */
  constructor(permits: number, maxQueue: number | false) {
    this.#permits = Math.min(permits, countless)
    this.#free = this.#permits
    this.#maxQueue = maxQueue === false ? Number.POSITIVE_INFINITY : maxQueue
  }

  /** Whether nobody holds a permit, nor waits for one. */
  get isIdle(): boolean {
    return this.#free === this.#permits && this.#waiting === 0
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting
  }

  /** How many calls have waited so far, or have exceeded the permits. */
  get queued(): number {
    return this.#queued
  }

  /** Whether no permit is free. */
  get isExhausted(): boolean {
    return this.#free <= 0
  }

  /** Takes a permit if at least one other permit stays free. */
  takeSpare(): boolean {
    if (this.#free <= 1) return false
    this.#free--
    return true
  }

  /** Takes a permit if one is free. */
  tryAcquire(): boolean {
    if (this.#free <= 0) return false
    this.#free--
    return true
  }

  /** Takes a permit even if none is free. Returns whether one was free. */
  overdraw(): boolean {
    const isFree = this.#free > 0
    this.#free--
    if (!isFree) this.#queued++
    return isFree
  }

  /** Joins the queue; `undefined` if it is full. Only after `tryAcquire` has failed. */
  join(): Waiter | undefined {
    if (this.#waiting >= this.#maxQueue) return undefined
    const entry = new Entry((each) => this.#remove(each))
    const last = this.#last
    entry.previous = last
    if (last === undefined) this.#first = entry
    else last.next = entry
    this.#last = entry
    this.#waiting++
    this.#queued++
    return entry
  }

  /** Gives a permit back: to the first in the queue, if there is one. */
  release(): void {
    if (this.#first === undefined) this.#free++
    else this.#first.take(this)
  }

  /** Rejects all waiters, each with an error of its own. */
  rejectAll(error: () => unknown): void {
    while (this.#first !== undefined) this.#first.reject(error())
  }

  #remove({ previous, next }: Entry): void {
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next === undefined) this.#last = previous
    else next.previous = previous
    this.#waiting--
  }
}

/** A waiter. It is also its own node in the queue. */
class Entry implements Waiter {
  readonly granted: Promise<Permit>
  /** Its neighbours, which the semaphore alone writes. */
  previous: Entry | undefined
  next: Entry | undefined
  readonly #remove: (entry: Entry) => void
  readonly #resolve: (permit: Permit) => void
  readonly #reject: (error: unknown) => void
  #isWaiting = true
  /** Ended by `leave`. */
  #permit: Permit | undefined

  constructor(remove: (entry: Entry) => void) {
    const { promise, resolve, reject } = Promise.withResolvers<Permit>()
    this.granted = promise
    this.#remove = remove
    this.#resolve = resolve
    this.#reject = reject
  }

  take(permit: Permit): boolean {
    if (!this.#isWaiting) return false
    this.#end()
    this.#permit = permit
    this.#resolve(permit)
    return true
  }

  reject(error: unknown): void {
    this.#end()
    this.#reject(error)
  }

  leave(): void {
    if (this.#isWaiting) this.#end()
    this.#permit?.release()
    this.#permit = undefined
  }

  #end(): void {
    this.#isWaiting = false
    this.#remove(this)
  }
}
