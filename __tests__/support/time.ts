/**
 * How tests deal with real time. A test never decides by how long something took: it waits for a state, and a slow
 * machine is not a fault of the product. `scripts/test-timing.ts`, a part of `npm run lint`, refuses other ways.
 *
 * Times are milliseconds.
 *
 * @module
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'

/** The longest that a test waits for a state. Only a state that never comes takes so long. */
export const patience = 60_000

export interface Waiting {
  /** How often the state is looked at. Default: 10. */
  readonly every?: number
  /** Default: a minute. */
  readonly limit?: number
}

/**
 * Looks until the check is content with what it sees; resolves to that. The check returns `false` or throws, as an
 * assertion does, while the state is not there yet. Without a check any truthy value will do.
 *
 * @param what the state in words, for the error: `the circuit is OPEN`
 * @throws after a minute, with what was seen last
 * @example
 * await waitFor('the circuit is open', () => storage.getState('stripe'), (record) => record?.state === 'OPEN')
 */
export async function waitFor<T>(
  what: string,
  look: () => T | Promise<T>,
  check: (seen: Awaited<T>) => unknown = Boolean,
  { every = 10, limit = patience }: Waiting = {},
): Promise<Awaited<T>> {
  const startedAt = performance.now()
  for (;;) {
    const seen = await look()
    let problem: unknown
    try {
      if (check(seen) !== false) return seen
    } catch (error) {
      problem = error
    }
    if (performance.now() - startedAt > limit) {
      const text = inspect(seen, { depth: 4, breakLength: 120 })
      throw new Error(`Waited ${limit / 1_000} s in vain: ${what}. Seen last: ${text}`, { cause: problem })
    }
    await sleep(every)
  }
}

/**
 * Lets at least so much time pass. For a time that has to be outlasted, such as a freeze, a lease or `resetTimeout`: the
 * test must pass just as well when it takes ten times as long. To await a state there is `waitFor`.
 */
export async function outlast(milliseconds: number): Promise<void> {
  await sleep(milliseconds)
}

/** Starts a watch; what it returns tells the milliseconds since then. */
export function stopwatch(): () => number {
  const startedAt = performance.now()
  return () => performance.now() - startedAt
}

/**
 * Fails where something took ten times longer than on a quiet machine: it waited for what it should not wait for.
 *
 * @param took what a stopwatch says
 * @param quiet what a quiet machine needs; at least 100, since any machine stalls for a second now and then
 */
export function expectUnhurried(took: number, quiet: number): void {
  if (quiet < 100) throw new RangeError(`${quiet} ms is less than what a stall of the machine takes: say 100 or more.`)
  if (took > 10 * quiet) {
    throw new Error(`It took ${Math.round(took)} ms, more than ten times the ${quiet} ms of a quiet machine.`)
  }
}

/**
 * Fails where something was over before the time that the product promises. Node's timers and clocks may differ by a
 * millisecond or two.
 */
export function expectAtLeast(took: number, promised: number): void {
  if (took < promised - 2) throw new Error(`It took ${Math.round(took)} ms; promised are at least ${promised} ms.`)
}
