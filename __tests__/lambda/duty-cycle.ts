/**
 * A process that has a part of a processor, as a small Lambda function has: it is stopped and continued in turn. That is
 * harsher than Lambda, which counts the time that a process computes, and not the time that it waits.
 *
 * @module
 */

import { stopwatch } from '../support/time.ts'

/** Of one turn, in milliseconds. Shorter ones would be blurred by this process's own timers. */
const period = 50

/**
 * Lets a process run for so much of the time, from 0 to 1.
 *
 * @returns what ends that, and lets the process run
 */
export function throttle(pid: number, share: number): () => void {
  let timer: NodeJS.Timeout | undefined
  let ran = 0
  const passed = stopwatch()
  const signal = (name: 'SIGSTOP' | 'SIGCONT'): boolean => {
    try {
      return process.kill(pid, name)
    } catch {
      // It has ended.
      return false
    }
  }
  const run = (): void => {
    if (!signal('SIGCONT')) return
    const runs = stopwatch()
    timer = setTimeout(() => {
      signal('SIGSTOP')
      ran += runs()
      // A timer that was late is made up for by a longer stop.
      timer = setTimeout(run, Math.max(1, ran / share - passed()))
    }, period * share)
  }
  run()
  return () => {
    clearTimeout(timer)
    signal('SIGCONT')
  }
}
