import { randomBytes } from 'node:crypto'

/** A timer that may be kept from holding the process. */
export interface TimerHandle {
  ref?(): unknown
  unref?(): unknown
}

/**
 * What the breaker takes from its surroundings. Injected, so that the same code runs in a simulation under a virtual
 * clock; the default is the machine's own.
 */
export interface Runtime {
  /** The time in milliseconds since the epoch. */
  now(): number
  /** A number from 0 up to, not including, 1. */
  random(): number
  /** A token that no other instance draws. */
  id(): string
  setTimeout(callback: () => void, delay: number): TimerHandle
  clearTimeout(timer: TimerHandle): void
}

/** A timer that fires later than this, in milliseconds, was held up: Lambda froze the process, or something kept it busy … */
export const stallTolerance = 10
/**
 * … and what arrived meanwhile is delivered within this, in milliseconds: timers come before sockets in Node's loop, and a small
 * Lambda has a tenth of a processor.
 */
export const stallGrace = 200

/** The machine's clock, timers and randomness. Looked up at each use, so that fake timers in users' tests take hold. */
export const systemRuntime: Runtime = {
  now: () => Date.now(),
  random: () => Math.random(),
  id: () => randomBytes(12).toString('base64url'),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
}
