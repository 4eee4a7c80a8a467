/**
 * Puts a process under a clock that stands still until a test moves it (`clock.ts`): `Date.now` and `setTimeout`. Loaded
 * before everything else. What Node itself keeps time of goes on, and so do intervals.
 *
 * @module
 */

import { fstatSync, openSync, readSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import timers from 'node:timers'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { lookEvery } from './clock.ts'

const file = openSync(process.env['CLOCK'] as string, 'r')
const real = { setTimeout: timers.setTimeout, clearTimeout: timers.clearTimeout }
const pending = new Set<HeldTimer>()

const moves: Move[] = []
/** How many bytes of the file. */
let seen = 0
let now = 0
/** Where the clock is being moved to. */
let goal = 0
let isMoving = false

/** The result of `setTimeout`. */
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
    this.at = presentTime() + this.delay
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

/**
 * Reads what the test has done to the clock. What it did in a freeze is one move that has been made already: whoever looks at
 * the clock after it sees that. Only the timers are still to come.
 */
function readMoves(): void {
  const { size } = fstatSync(file)
  if (size === seen) return
  const unseen = Buffer.alloc(size - seen)
  readSync(file, unseen, 0, unseen.length, seen)
  const text = unseen.toString()
  const end = text.lastIndexOf('\n') + 1
  seen += end
  for (const line of text.slice(0, end).split('\n').slice(0, -1)) {
    const [number, how = ''] = line.split(' ')
    if (how !== 'thaw') moves.push({ time: Number(number), how })
    else if (Number(number) === process.pid) {
      const passed = moves.splice(0).reduce((sum, { time }) => sum + time, 0)
      now += passed
      goal += passed
      moves.push({ time: 0, how: 'freeze' })
    }
  }
}

function presentTime(): number {
  readMoves()
  return now
}

async function look(): Promise<void> {
  if (isMoving) return
  isMoving = true
  readMoves()
  for (let move = moves.shift(); move !== undefined; move = moves.shift()) {
    const { time, how } = move
    goal = now + time
    while (how === 'due' && nextDue(goal) === undefined) await nextTurn()
    for (let timer = nextDue(goal); timer !== undefined; timer = nextDue(goal)) {
      pending.delete(timer)
      now = Math.max(now, timer.at)
      timer.callback()
      // Those that are late fire one after the other, before anything that has arrived.
      await (how === 'freeze' ? undefined : nextTurn())
    }
    now = goal
    await nextTurn()
  }
  isMoving = false
}

readMoves()
for (const { time } of moves.splice(0)) now += time
Date.now = presentTime
Object.assign(timers, { setTimeout: setHeldTimeout, clearTimeout: clearHeldTimeout })
Object.assign(globalThis, { setTimeout: setHeldTimeout, clearTimeout: clearHeldTimeout })
syncBuiltinESMExports()
// It keeps the process alive, as the timers do in whose place it is.
setInterval(() => void look(), lookEvery)
