/**
 * A clock that stands still until a test moves it, for execution environments: what happens in them then depends on no
 * machine's speed. Several environments may share one. A process reads it from a file (`held-time.ts`), because nobody can
 * speak to a process that is frozen.
 *
 * Times are milliseconds.
 *
 * @module
 */

import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { outlast } from '../support/time.ts'

export interface Clock extends Disposable {
  /** Where processes read it. */
  readonly file: string
  /** Since the epoch. Bound, for the surroundings of a breaker. */
  readonly now: () => number
  /**
   * Lets so much time pass. A process fires each of its timers when it is due; one that is frozen finds all of them late when
   * it is thawed, and fires them before it reads what has arrived.
   */
  pass(time: number): void
  /** The same, but a process lets it pass only when one of its timers is due within that time. */
  passOnceDue(time: number): void
  /** Tells a process that it was frozen until now; resolves when it may be thawed. */
  endFreeze(pid: number): Promise<void>
  /** Calls back when so much time has passed; returns how to call that off. */
  after(time: number, callback: () => void): () => void
}

/** How often processes look at the clock, in real time. */
export const lookEvery = 3

/** Starts at the present time. */
export function startClock(): Clock {
  const folder = mkdtempSync(join(tmpdir(), 'clock-'))
  const file = join(folder, 'moves')
  let now = Date.now()
  const waiting = new Set<{ readonly at: number; readonly callback: () => void }>()
  writeFileSync(file, `${now} start\n`)

  function move(time: number, how: 'pass' | 'due'): void {
    appendFileSync(file, `${time} ${how}\n`)
    now += time
    for (const timer of waiting) {
      if (timer.at > now) continue
      waiting.delete(timer)
      timer.callback()
    }
  }

  return {
    file,
    now: () => now,
    pass: (time) => move(time, 'pass'),
    passOnceDue: (time) => move(time, 'due'),
    endFreeze: async (pid) => {
      appendFileSync(file, `${pid} thaw\n`)
      // Then its look at the clock is overdue, and comes before what has arrived.
      await outlast(3 * lookEvery)
    },
    after: (time, callback) => {
      const timer = { at: now + time, callback }
      waiting.add(timer)
      return () => void waiting.delete(timer)
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}
