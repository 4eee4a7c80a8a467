/**
 * A process that has a part of a processor, as a small Lambda function has: it is stopped and continued in turn. That is
 * harsher than Lambda, which counts the time that a process computes, and not the time that it waits.
 *
 * @module
 */

import { performance } from 'node:perf_hooks'

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
  const from = performance.now()
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
    const startedAt = performance.now()
    timer = setTimeout(() => {
      signal('SIGSTOP')
      ran += performance.now() - startedAt
      // A timer that was late is made up for by a longer stop.
      timer = setTimeout(run, Math.max(1, ran / share - (performance.now() - from)))
    }, period * share)
  }
  run()
  return () => {
    clearTimeout(timer)
    signal('SIGCONT')
  }
}
