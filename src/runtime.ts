import { randomBytes } from 'node:crypto'

/** A timer that holds the process, or lets it end. */
export interface TimerHandle {
  /** Lets the timer hold the process again. */
  ref?(): unknown
  /** Lets the process end although the timer has not fired. */
  unref?(): unknown
}

/**
 * The clock, randomness, timers and environment of a breaker. Tests and simulations replace them, so that the same code runs under
 * a virtual clock. The default is the machine's own.
 */
export interface Runtime {
  /** The time in milliseconds since the epoch. */
  now(): number
  /** A random number from 0 up to, but not including, 1. */
  random(): number
  /** A random token that is unique in the fleet. */
  id(): string
  /** Calls back once, after `delay` milliseconds. */
  setTimeout(callback: () => void, delay: number): TimerHandle
  /** Ends a timer that `setTimeout` has made. */
  clearTimeout(timer: TimerHandle): void
  /** The environment variables. */
  readonly env: Readonly<Record<string, string | undefined>>
}

/** The longest delay of Node's timers. With a longer delay they fire at once, https://nodejs.org/api/timers.html#settimeoutcallback-delay-args */
export const longestTimer = 2_147_483_647

/** A timer that fires later than this, in milliseconds, was delayed: Lambda froze the process, or the process was busy. */
const stallTolerance = 10
/** The longest extra time for answers that arrived meanwhile, in milliseconds: a small Lambda has a tenth of a processor. */
const longestGrace = 200

/**
 * The extra time for answers that arrived while the process stood still, in milliseconds: in Node's loop timers come before
 * sockets. The time is twice the delay of the timer, so that a busy process waits only a little.
 *
 * @param late the delay of the timer, in milliseconds
 * @returns 0 if the timer was in time
 */
export function graceAfter(late: number): number {
  return late > stallTolerance ? Math.min(longestGrace, 2 * late) : 0
}

/**
 * Waits for a promise, but not longer than the given milliseconds. Never rejects.
 *
 * @returns whether the promise settled in time
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
 * The machine's own clock, timers, randomness and environment. Each use looks them up again, so that fake timers in users' tests
 * work.
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

/** Whether the clock is the machine's own: under a virtual clock, short times are not mistakes. */
export function hasOwnClock(runtime: Runtime): boolean {
  return runtime.now === systemRuntime.now
}

/** A runtime with some parts replaced. Methods are bound, because the replacement may be an instance of a class. */
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
