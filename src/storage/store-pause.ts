import type { StorageErrorKind } from '../errors.ts'
import type { Runtime } from '../runtime.ts'

/** The first pause, after two failures in a row, in milliseconds. Each further failure doubles it. */
const firstPause = 250
/** The longest pause, unless the breaker looks at its store more often anyway, in milliseconds. */
export const longestPauseOfAll = 30_000
/** The least value of the longest pause, however short `cacheTtl` is, in milliseconds. */
const shortestLimit = 1_000
/** The longest pause where `cacheTtl` is 0 and every invocation reads, in milliseconds. */
const limitWithoutCache = 10_000

/**
 * The longest pause, in milliseconds. Instances ask a failing store as often as a healthy one, once in a `cacheTtl`. So
 * they find out soon that it is back.
 *
 * @param cacheTtls of the services that use it
 */
export function pauseLimitFor(cacheTtls: Iterable<number>): number {
  const shortest = Math.min(...Array.from(cacheTtls, (cacheTtl) => cacheTtl || limitWithoutCache))
  return Math.max(shortestLimit, Math.min(longestPauseOfAll, shortest))
}

/** Decides how long one kind of operation, reading or writing, is left alone because it keeps failing. */
export class StorePause {
  readonly #runtime: Runtime
  readonly #longest: number
  /** Failures in a row. {@link failed} counts them, {@link succeeded} sets them to 0. */
  #failures = 0
  /** When the last failure was counted: set by {@link failed}. */
  #failedAt = 0
  /** When the pause began: set by {@link failed}. */
  #since = 0
  /** When the pause ends; 0: there is none. Set by {@link failed}, set to 0 by {@link succeeded}. */
  #until = 0
  /** The kind of the last failure. Set by {@link failed}. */
  #kind: StorageErrorKind | undefined

  /** @param longest in milliseconds */
  constructor(runtime: Runtime, longest: number) {
    this.#runtime = runtime
    this.#longest = longest
  }

  get isOver(): boolean {
    if (this.#until === 0) return true
    const now = this.#runtime.now()
    // A clock that stepped back must not prolong the pause.
    return now >= this.#until || now < this.#since
  }

  /** Whether the pause, if there is one, is for being throttled. */
  get isThrottled(): boolean {
    return this.#kind === 'throttled'
  }

  succeeded(): void {
    this.#failures = 0
    this.#until = 0
  }

  /**
   * Counts a failure. The first one begins no pause: it may be a connection that died in a freeze. Where waiting does not help,
   * because the store is misconfigured, the pause is the longest from the first failure on.
   */
  failed(startedAt: number, kind: StorageErrorKind): void {
    this.#kind = kind
    const isFinal = kind === 'misconfigured'
    // An operation that was under way when the last failure was counted belongs to the same failure.
    if (this.#failures > 0 && startedAt < this.#failedAt && this.#failedAt <= this.#runtime.now()) return
    this.#failures++
    this.#failedAt = this.#runtime.now()
    if (this.#failures < 2 && !isFinal) return
    const pause = isFinal ? this.#longest : Math.min(this.#longest, firstPause * 2 ** (this.#failures - 2))
    this.#since = this.#failedAt
    this.#until = this.#since + pause * (0.5 + this.#runtime.random() / 2)
  }
}
