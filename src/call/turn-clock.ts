/**
 * A clock with one reading for many calls, because a reading costs as much as the rest of a call.
 *
 * Calls that come one by one read the clock each. If calls come close together, one reading serves all calls of the same turn of
 * the event loop: no timer fires and no data arrives within a turn. So a reading is never older than the time for which the process
 * has been busy, as with Node's own timers. In a turn with many calls the clock is read again.
 *
 * @module
 */

import { type Runtime, systemRuntime } from '../runtime.ts'

/** Readings less than this apart are close together, in milliseconds. */
const closeness = 10
/** The most calls that share a reading. */
const callsPerReading = 64
/** The most listeners that await the end of a turn: a turn may never end. */
const maxListeners = 64

/** A test may replace these functions, to control turns and timers. */
const { setImmediate: ownSetImmediate, setTimeout: ownSetTimeout } = globalThis

/** Called at the end of a turn. */
export interface TurnListener {
  /** @param now milliseconds since the epoch */
  turnEnded(now: number): void
}

export class TurnClock {
  readonly #read: () => number
  /** Whether the event loop's turns tell that time passes. */
  readonly #hasTurns: boolean
  /** The last reading, in milliseconds since the epoch. Written by `#look`. */
  #at = Number.NEGATIVE_INFINITY
  /** How many readings there were. Written by `#look`. */
  #reading = 0
  /** How many more calls the reading serves. Written by each call and at the end of the turn. */
  #left = 0
  /** The listeners of this turn's end; `undefined`: nobody awaits it. Written by `#look`, ended by the end of the turn. */
  #listeners: TurnListener[] | undefined

  constructor(runtime: Pick<Runtime, 'now' | 'setTimeout'>) {
    this.#read = runtime.now
    // If timers are replaced, time may also pass within a turn.
    this.#hasTurns = runtime.setTimeout === systemRuntime.setTimeout
  }

  /** The time, or an earlier time of this turn of the event loop, in milliseconds since the epoch. */
  now(): number {
    this.reading()
    return this.#at
  }

  /** The number of the reading, which is faster to compare than a time. The time is {@link at}. */
  reading(): number {
    if (this.#left === 0) this.#look()
    else this.#left--
    return this.#reading
  }

  /** The time of the last reading, in milliseconds since the epoch. */
  get at(): number {
    return this.#at
  }

  /** Reads the clock now. The next calls share the reading. In milliseconds since the epoch. */
  instant(): number {
    this.#look()
    return this.#at
  }

  /** Calls the listener at the end of the turn or sooner. Calls it at once if calls are rare. */
  whenOver(listener: TurnListener): void {
    if (this.#listeners === undefined) listener.turnEnded(this.#at)
    else if (this.#listeners.push(listener) === maxListeners) this.#tellListeners([])
  }

  #look(): void {
    const now = this.#read()
    const isClose = now - this.#at < closeness && now >= this.#at
    this.#at = now
    this.#reading++
    const isReplaced = setImmediate !== ownSetImmediate || setTimeout !== ownSetTimeout
    if (!isClose || !this.#hasTurns || isReplaced) {
      // In a long turn the listeners do not wait for its end.
      if (this.#listeners !== undefined) this.#endTurn()
      return
    }
    this.#left = callsPerReading - 1
    if (this.#listeners === undefined) {
      this.#listeners = []
      setImmediate(() => this.#endTurn())
    }
  }

  #endTurn(): void {
    this.#left = 0
    this.#tellListeners(undefined)
  }

  /** @param next the listeners from now on */
  #tellListeners(next: TurnListener[] | undefined): void {
    const listeners = this.#listeners ?? []
    this.#listeners = next
    if (listeners.length === 0) return
    const now = this.#read()
    for (const listener of listeners) listener.turnEnded(now)
  }
}

const clocks = new WeakMap<object, TurnClock>()

/** The clock of all breakers that share a runtime. */
export function turnClockOf(runtime: Pick<Runtime, 'now' | 'setTimeout'>): TurnClock {
  let clock = clocks.get(runtime)
  if (clock === undefined) {
    clock = new TurnClock(runtime)
    clocks.set(runtime, clock)
  }
  return clock
}
