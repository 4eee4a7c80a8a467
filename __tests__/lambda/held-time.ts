/**
 * Puts a process under a clock that stands still until a test moves it (`clock.ts`): `Date.now` and `setTimeout`. Loaded
 * before everything else. What Node itself keeps time of goes on, and so do intervals.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import timers from 'node:timers'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { lookEvery } from './clock.ts'

const file = process.env['CLOCK'] as string
const real = { setTimeout: timers.setTimeout, clearTimeout: timers.clearTimeout }
const pending = new Set<HeldTimer>()

let seen = 0
let now = 0
let isMoving = false

/** What `setTimeout` returns. */
class HeldTimer {
  readonly callback: () => void
  readonly delay: number
  at = 0

  constructor(callback: () => void, delay: number) {
    this.callback = callback
    this.delay = delay
    this.refresh()
  }

  refresh(): this {
    this.at = now + this.delay
    pending.add(this)
    return this
  }

  close(): this {
    pending.delete(this)
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  hasRef(): boolean {
    return false
  }
}

function setHeldTimeout(callback: (...args: unknown[]) => void, delay = 1, ...args: unknown[]): unknown {
  // This short a time means the next turn of the event loop.
  if (!(delay > 1)) return real.setTimeout(callback, delay, ...args)
  return new HeldTimer(() => callback(...args), delay)
}

function clearHeldTimeout(timer: unknown): void {
  if (timer instanceof HeldTimer) timer.close()
  else real.clearTimeout(timer as NodeJS.Timeout)
}

/** The timer that is due next, until then. */
function nextDue(until: number): HeldTimer | undefined {
  let next: HeldTimer | undefined
  for (const timer of pending) if (timer.at <= until && !(next && next.at <= timer.at)) next = timer
  return next
}

interface Move {
  readonly time: number
  readonly how: string
}

/** What the test has done to the clock since the last look; what it did during a freeze is one move. */
function unseenMoves(): Move[] {
  const lines = readFileSync(file, 'utf8').split('\n').slice(seen, -1)
  seen += lines.length
  const moves: Move[] = []
  for (const line of lines) {
    const [number, how = ''] = line.split(' ')
    if (how !== 'thaw') moves.push({ time: Number(number), how })
    else if (Number(number) === process.pid) {
      const time = moves.splice(0).reduce((sum, move) => sum + move.time, 0)
      moves.push({ time, how: 'freeze' })
    }
  }
  return moves
}

async function look(): Promise<void> {
  if (isMoving) return
  isMoving = true
  for (const { time, how } of unseenMoves()) {
    const until = now + time
    if (how === 'freeze') now = until
    while (how === 'due' && nextDue(until) === undefined) await nextTurn()
    for (let timer = nextDue(until); timer !== undefined; timer = nextDue(until)) {
      pending.delete(timer)
      now = Math.max(now, timer.at)
      timer.callback()
      // Those that are late fire one after the other, before anything that has arrived.
      await (how === 'freeze' ? undefined : nextTurn())
    }
    now = until
    await nextTurn()
  }
  isMoving = false
}

for (const { time } of unseenMoves()) now += time
Date.now = () => now
Object.assign(timers, { setTimeout: setHeldTimeout, clearTimeout: clearHeldTimeout })
Object.assign(globalThis, { setTimeout: setHeldTimeout, clearTimeout: clearHeldTimeout })
syncBuiltinESMExports()
// It keeps the process alive, as the timers do in whose place it is.
setInterval(() => void look(), lookEvery)
