import { seededRandom } from '../support/seeded-random.ts'
import { drainMicrotasks } from './microtasks.ts'

/** An arbitrary but round instant: 2026-01-01T00:00:00Z. */
export const worldStart = 1_767_225_600_000

/** Something that is to happen. */
export interface Appointment {
  readonly at: number
  isCancelled: boolean
}

interface Entry extends Appointment {
  /** Of two at the same time, the one that was arranged first comes first. */
  readonly order: number
  readonly happen: () => void
}

/**
 * A virtual clock, an event queue and the dice: everything in a simulation that happens is an event of this world, so one
 * seed gives one run. The time is in milliseconds, with fractions; what an instance reads off its clock is whole.
 */
export class World {
  now = worldStart
  /** How many events have happened. */
  events = 0
  /** Is called after each event, when everything that it caused at once has been done. */
  afterEvent: (() => void) | undefined
  /** Is told what happens, if anyone listens. */
  trace: ((at: number, who: string, what: string) => void) | undefined
  readonly random: () => number
  #order = 0
  #isStopped = false
  readonly #queue: Entry[] = []

  constructor(seed: number) {
    this.random = seededRandom(seed)
  }

  /** The time since the start, in milliseconds. */
  get elapsed(): number {
    return this.now - worldStart
  }

  /** Lets something happen in `delay` milliseconds. */
  after(delay: number, happen: () => void): Appointment {
    const entry: Entry = { at: this.now + Math.max(0, delay), order: ++this.#order, happen, isCancelled: false }
    this.#push(entry)
    return entry
  }

  /** Lets `duration` milliseconds pass. Only outside of promise reactions. */
  run(duration: number): void {
    if (this.#isStopped) return
    const until = this.now + duration
    drainMicrotasks()
    for (let next = this.#queue[0]; next !== undefined && next.at <= until; next = this.#queue[0]) {
      this.#pop()
      if (next.isCancelled) continue
      this.now = next.at
      this.events++
      next.happen()
      drainMicrotasks()
      this.afterEvent?.()
      if (this.#isStopped) return
    }
    this.now = until
  }

  /** Nothing more happens. */
  stop(): void {
    this.#isStopped = true
    this.#queue.length = 0
  }

  get isStopped(): boolean {
    return this.#isStopped
  }

  /** `true` with the given probability. */
  chance(probability: number): boolean {
    return probability > 0 && this.random() < probability
  }

  /** A number from `low` up to `high`. */
  between(low: number, high: number): number {
    return low + (high - low) * this.random()
  }

  /** A whole number from `low` to `high`, both included. */
  whole(low: number, high: number): number {
    return low + Math.floor((high - low + 1) * this.random())
  }

  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.random() * choices.length)] as T
  }

  /** The time to the next of many independent events that come at this mean distance. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.random())
  }

  /** A latency: most are near the median, a few many times as long. */
  latency(median: number, spread: number = 0.4): number {
    const normal = Math.sqrt(-2 * Math.log(1 - this.random())) * Math.cos(2 * Math.PI * this.random())
    return median * Math.exp(spread * normal)
  }

  #push(entry: Entry): void {
    const queue = this.#queue
    let at = queue.length
    queue.push(entry)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = queue[parent] as Entry
      if (!isBefore(entry, above)) break
      queue[at] = above
      at = parent
    }
    queue[at] = entry
  }

  #pop(): void {
    const queue = this.#queue
    const last = queue.pop() as Entry
    if (queue.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= queue.length) break
      if (child + 1 < queue.length && isBefore(queue[child + 1] as Entry, queue[child] as Entry)) child++
      const below = queue[child] as Entry
      if (!isBefore(below, last)) break
      queue[at] = below
      at = child
    }
    queue[at] = last
  }
}

function isBefore(one: Entry, other: Entry): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order)
}
