import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Runtime } from '../../src/runtime.ts'
import { seededRandom } from './seeded-random.ts'

/** A virtual clock with its timers, seeded random numbers and countable ids: what a breaker under test lives in. */
export interface FakeRuntime extends Runtime {
  /** Lets the time pass: due timers run in order, and after each everything that is settled is delivered. */
  advance(milliseconds: number): Promise<void>
  /** Resolves when so much time has passed, which `advance` lets happen. */
  sleep(milliseconds: number): Promise<void>
  /** Delivers everything that is settled, while the clock stands still. */
  settle(): Promise<void>
  /** What a frozen or corrected clock does: the time is another one, and no timer has run. */
  setClock(now: number): void
  /** The timers that are set, by the time that is left until they are due. */
  readonly pendingTimers: readonly number[]
  /** The delays of all timers that were ever set. */
  readonly delays: readonly number[]
}

export interface FakeRuntimeOptions {
  readonly seed?: number
  /** Where the clock starts, in milliseconds since the epoch. */
  readonly startAt?: number
  /** Replaces the seeded random numbers. */
  readonly random?: () => number
}

interface FakeTimer {
  at: number
  readonly order: number
  readonly callback: () => void
}

/** An arbitrary but round instant: 2026-01-01T00:00:00Z. */
export const epochStart = 1_767_225_600_000

export function createFakeRuntime(options: FakeRuntimeOptions = {}): FakeRuntime {
  const { seed = 1, startAt = epochStart, random = seededRandom(seed) } = options
  let now = startAt
  let order = 0
  let ids = 0
  const timers = new Map<object, FakeTimer>()
  const delays: number[] = []

  const nextDue = (until: number): [object, FakeTimer] | undefined => {
    let next: [object, FakeTimer] | undefined
    for (const entry of timers) {
      const [, timer] = entry
      if (timer.at > until) continue
      const isEarlier = next === undefined || timer.at < next[1].at
      if (isEarlier || (timer.at === next?.[1].at && timer.order < next[1].order)) next = entry
    }
    return next
  }

  const runtime: FakeRuntime = {
    env: {},
    now: () => now,
    random,
    id: () => `id-${seed}-${++ids}`,
    setTimeout: (callback, delay) => {
      const handle = { ref: () => handle, unref: () => handle }
      delays.push(delay)
      timers.set(handle, { at: now + delay, order: ++order, callback })
      return handle
    },
    sleep: async (milliseconds) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      runtime.setTimeout(resolve, milliseconds)
      await promise
    },
    clearTimeout: (timer) => {
      timers.delete(timer)
    },
    advance: async (milliseconds) => {
      const until = now + milliseconds
      await settle()
      for (let due = nextDue(until); due !== undefined; due = nextDue(until)) {
        const [handle, timer] = due
        timers.delete(handle)
        now = Math.max(now, timer.at)
        timer.callback()
        await settle()
      }
      now = until
      await settle()
    },
    settle,
    setClock: (instant) => {
      // A timer runs down by itself, whatever the clock on the wall says.
      for (const timer of timers.values()) timer.at += instant - now
      now = instant
    },
    get pendingTimers() {
      return [...timers.values()].map((timer) => timer.at - now).sort((a, b) => a - b)
    },
    delays,
  }
  return runtime
}

/** One turn of the event loop empties the microtask queue; the second is for what `process.nextTick` put in between. */
async function settle(): Promise<void> {
  await nextTurn()
  await nextTurn()
}
