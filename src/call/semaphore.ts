/** Something that a call holds while it runs. */
export interface Permit {
  /** Gives it back: once. */
  release(): void
}

/** A place in the queue of a {@link Semaphore}. */
export interface Waiter {
  /** Resolves with the permit when it is granted; rejects with what `rejectAll` was given. */
  readonly granted: Promise<Permit>
  /** Takes a permit that comes from elsewhere, and leaves the queue; `false`: it waits no longer. */
  take(permit: Permit): boolean
  /** Leaves the queue, or gives the permit back if it was granted in the meantime. */
  leave(): void
}

/** No process holds so many. V8 counts no further without an object for each number. */
const countless = 2 ** 30 - 1

/**
 * A counted number of permits with a first-in, first-out queue. A permit that is released goes to the first waiter. It is itself
 * the permit that it grants.
 */
export class Semaphore implements Permit {
  readonly #permits: number
  #free: number
  readonly #maxQueue: number
  /** The ends of the queue, a list: a `Set` of which the first is taken again and again looks at all who were there before. */
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

  /** How many have had to wait until now, or have taken a permit that was not there. */
  get queued(): number {
    return this.#queued
  }

  /** Whether no permit is free. */
  get isExhausted(): boolean {
    return this.#free <= 0
  }

  /** Takes a permit if another one is left then. */
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

  /** Takes a permit, also one that is not there. Whether it was there. */
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

  /** Sends everyone in the queue away with an error made for each. */
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

/** A waiter, and its own node in the queue. */
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
