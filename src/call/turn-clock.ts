/**
 * A clock that is read once for many calls, because a reading costs as much as the rest of a call.
 *
 * Calls that come one by one read the clock each. Where they come close together, one reading serves the calls of the same
 * turn of the event loop: no timer fires within a turn, and nothing arrives. So a reading is no older than the time for
 * which the process has been busy, as it is with Node's own timers. A turn that goes on for many calls reads the clock again.
 *
 * @module
 */

import { type Runtime, systemRuntime } from '../runtime.ts'

/** Readings less than this apart are close together, in milliseconds. */
const closeness = 10
/** So many calls share a reading. */
const callsPerReading = 64
/** So many listeners await the end of a turn at most: a turn may go on for ever. */
const maxListeners = 64

/** Where a test has replaced them, it says when a turn is over and which timers there are. */
const { setImmediate: ownSetImmediate, setTimeout: ownSetTimeout } = globalThis

/** Is told of the end of a turn. */
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
  /** How many more calls it serves. Written by each call and at the end of the turn. */
  #left = 0
  /** The listeners of this turn's end; `undefined`: nobody awaits it. Written by `#look`, ended by the end of the turn. */
  #listeners: TurnListener[] | undefined

  constructor(runtime: Pick<Runtime, 'now' | 'setTimeout'>) {
    this.#read = runtime.now
    // Where timers are replaced, time passes as it pleases: also within a turn.
    this.#hasTurns = runtime.setTimeout === systemRuntime.setTimeout
  }

  /** The time, or what it was earlier in this turn of the event loop, in milliseconds since the epoch. */
  now(): number {
    this.reading()
    return this.#at
  }

  /** The same by its number, which is compared sooner than a time; the time is {@link at}. */
  reading(): number {
    if (this.#left === 0) this.#look()
    else this.#left--
    return this.#reading
  }

  /** The time of the last reading, in milliseconds since the epoch. */
  get at(): number {
    return this.#at
  }

  /** The time of this very instant, which the calls after it share, in milliseconds since the epoch. */
  instant(): number {
    this.#look()
    return this.#at
  }

  /** Tells the listener of the end of the turn, or sooner; at once where calls are rare. */
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
      // A turn that goes on for so long keeps nobody waiting.
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

  /** @param next those who come from now on */
  #tellListeners(next: TurnListener[] | undefined): void {
    const listeners = this.#listeners ?? []
    this.#listeners = next
    if (listeners.length === 0) return
    const now = this.#read()
    for (const listener of listeners) listener.turnEnded(now)
  }
}

const clocks = new WeakMap<object, TurnClock>()

/** The clock of all that share a runtime. */
export function turnClockOf(runtime: Pick<Runtime, 'now' | 'setTimeout'>): TurnClock {
  let clock = clocks.get(runtime)
  if (clock === undefined) {
    clock = new TurnClock(runtime)
    clocks.set(runtime, clock)
  }
  return clock
}
