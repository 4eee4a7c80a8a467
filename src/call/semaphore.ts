/** A place in the queue of a {@link Semaphore}. */
export interface Waiter {
  /** Resolves when the permit is granted; rejects with what `rejectAll` was given. */
  readonly granted: Promise<void>
  /** Leaves the queue, or gives the permit back if it was granted in the meantime. */
  leave(): void
}

interface Entry {
  grant(): void
  reject(error: unknown): void
}

/** No process holds so many. V8 counts no further without an object for each number. */
const countless = 2 ** 30 - 1

/** A counted number of permits with a first-in, first-out queue. A permit that is released goes to the first waiter. */
export class Semaphore {
  #free: number
  readonly #maxQueue: number
  /** In order of arrival; a set, because those who leave do so from anywhere in it. */
  readonly #queue = new Set<Entry>()

  /**
   * @param permits how many may be held at once
   * @param maxQueue how many may wait; `false`: any number
   */
  constructor(permits: number, maxQueue: number | false) {
    this.#free = Math.min(permits, countless)
    this.#maxQueue = maxQueue === false ? Number.POSITIVE_INFINITY : maxQueue
  }

  /** How many wait. */
  get waiting(): number {
    return this.#queue.size
  }

  /** Takes a permit if one is free. */
  tryAcquire(): boolean {
    if (this.#free === 0) return false
    this.#free--
    return true
  }

  /** Joins the queue; `undefined` if it is full. Only after `tryAcquire` has failed. */
  join(): Waiter | undefined {
    if (this.#queue.size >= this.#maxQueue) return undefined
    let state: 'waiting' | 'granted' | 'left' = 'waiting'
    const { promise: granted, resolve, reject } = Promise.withResolvers<void>()
    const entry: Entry = {
      grant: () => {
        state = 'granted'
        resolve()
      },
      reject: (error) => {
        state = 'left'
        reject(error)
      },
    }
    this.#queue.add(entry)
    const leave = (): void => {
      if (state === 'waiting') this.#queue.delete(entry)
      else if (state === 'granted') this.release()
      state = 'left'
    }
    return { granted, leave }
  }

  /** Gives a permit back: to the first in the queue, if there is one. */
  release(): void {
    if (this.#queue.size === 0) {
      this.#free++
      return
    }
    const first = this.#queue.values().next().value as Entry
    this.#queue.delete(first)
    first.grant()
  }

  /** Sends everyone in the queue away with an error made for each. */
  rejectAll(error: () => unknown): void {
    for (const entry of this.#queue) entry.reject(error())
    this.#queue.clear()
  }
}
