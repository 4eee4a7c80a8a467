import type { Runtime, TimerHandle } from '../../src/runtime.ts'

/**
 * The time of an instance: it stands still until the test moves it, so that nothing which the machine takes its time for
 * is late. Instants begin with the machine's, because servers let records expire by theirs.
 */
export interface Clock extends Pick<Runtime, 'now' | 'setTimeout' | 'clearTimeout'> {
  /** How many timers are set. */
  readonly pending: number
  /**
   * Lets the time pass: due timers fire in order, and what follows from each happens before the next. Nothing that comes
   * from a socket happens meanwhile.
   */
  advance(milliseconds: number): Promise<void>
}

interface Timer extends TimerHandle {
  readonly at: number
  readonly callback: () => void
}

export function createClock(): Clock {
  let now = Date.now()
  const timers = new Set<Timer>()

  return {
    now: () => now,
    setTimeout: (callback, delay) => {
      const timer: Timer = { at: now + delay, callback }
      timers.add(timer)
      return timer
    },
    clearTimeout: (timer) => void timers.delete(timer as Timer),
    get pending() {
      return timers.size
    },
    advance: async (milliseconds) => {
      const until = now + milliseconds
      await consequences()
      for (;;) {
        const next = firstOf(timers)
        if (next === undefined || next.at > until) break
        timers.delete(next)
        now = Math.max(now, next.at)
        next.callback()
        await consequences()
      }
      now = until
      await consequences()
    },
  }
}

/** Of those that are due at the same time it is the one that was set first. */
function firstOf(timers: Iterable<Timer>): Timer | undefined {
  let first: Timer | undefined
  for (const timer of timers) if (first === undefined || timer.at < first.at) first = timer
  return first
}

/** Lets everything happen that follows from what has happened, and nothing that comes from outside. */
export async function consequences(): Promise<void> {
  // Ticks come before promises, but not before those that a promise has led to.
  await undefined
  await new Promise<void>((resolve) => process.nextTick(resolve))
}
