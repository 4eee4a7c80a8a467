import { randomBytes } from 'node:crypto'

/** A timer that may be kept from holding the process. */
export interface TimerHandle {
  /** Lets the timer hold the process again. */
  ref?(): unknown
  /** Lets the process end although the timer has not fired. */
  unref?(): unknown
}

/**
 * The world around the breaker: clock, randomness, timers, environment. Tests and simulations replace it, so that the same
 * code runs under a virtual clock. The default is the machine's own.
 */
export interface Runtime {
  /** The time in milliseconds since the epoch. */
  now(): number
  /** A number from 0 up to, not including, 1. */
  random(): number
  /** A token that no other instance draws. */
  id(): string
  /** Calls back once, after `delay` milliseconds. */
  setTimeout(callback: () => void, delay: number): TimerHandle
  /** Ends a timer that `setTimeout` has made. */
  clearTimeout(timer: TimerHandle): void
  /** The environment variables. */
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Node's timers fire at once when they are given more, https://nodejs.org/api/timers.html#settimeoutcallback-delay-args */
export const longestTimer = 2_147_483_647

/** A timer that fires later than this, in milliseconds, was delayed: Lambda froze the process, or something kept it busy. */
const stallTolerance = 10
/** The longest that is then given to what arrived meanwhile, in milliseconds: a small Lambda has a tenth of a processor. */
const longestGrace = 200

/**
 * How long what arrived while the process stood still is given to be delivered, in milliseconds: timers come before sockets
 * in Node's loop. Twice as long as the timer was late, so that a process which is merely busy waits little.
 *
 * @param late by how much the timer was late, in milliseconds
 * @returns 0 if it was in time
 */
export function graceAfter(late: number): number {
  return late > stallTolerance ? Math.min(longestGrace, 2 * late) : 0
}

/**
 * Waits for a promise no longer than so many milliseconds. Never rejects.
 *
 * @returns whether it settled in time
 */
export function within(runtime: Runtime, promise: Promise<unknown>, limit: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (isInTime: boolean): void => {
      runtime.clearTimeout(timer)
      resolve(isInTime)
    }
    const timer = runtime.setTimeout(() => end(false), Math.min(Math.max(0, limit), longestTimer))
    promise.then(
      () => end(true),
      () => end(true),
    )
    if (limit <= 0) end(false)
  })
}

/**
 * The machine's own clock, timers, randomness and environment. Looked up at each use, so that fake timers in users' tests
 * take hold.
 */
export const systemRuntime: Runtime = {
  now: () => Date.now(),
  random: () => Math.random(),
  id: () => randomBytes(12).toString('base64url'),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
  get env() {
    return process.env
  },
}

/** Whether time passes by the machine's own clock: under a virtual one a second may be any number. */
export function hasOwnClock(runtime: Runtime): boolean {
  return runtime.now === systemRuntime.now
}

/** A runtime of which some parts are replaced. Methods are bound, because the replacement may be an instance of a class. */
export function completeRuntime(given: Partial<Runtime>): Runtime {
  return {
    now: given.now?.bind(given) ?? systemRuntime.now,
    random: given.random?.bind(given) ?? systemRuntime.random,
    id: given.id?.bind(given) ?? systemRuntime.id,
    setTimeout: given.setTimeout?.bind(given) ?? systemRuntime.setTimeout,
    clearTimeout: given.clearTimeout?.bind(given) ?? systemRuntime.clearTimeout,
    env: given.env ?? systemRuntime.env,
  }
}
