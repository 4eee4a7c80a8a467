import type { Runtime } from '../runtime.ts'

/** After repeated failures the store is left alone for this long at first, in milliseconds; it doubles each time. */
const firstPause = 250
/** The longest pause, unless the breaker looks at its store more often anyway, in milliseconds. */
export const longestPauseOfAll = 30_000
/** No store is asked more often than this when it fails, in milliseconds. */
const shortestLimit = 1_000
/** Where every invocation reads, the pause has no other measure than this, in milliseconds. */
const limitWithoutCache = 10_000

/**
 * The longest pause, in milliseconds. A store that fails need not be asked less often than one that is well: after one
 * `cacheTtl` everybody would look again, and so they find out that it is back.
 *
 * @param cacheTtls of the services that use it
 */
export function pauseLimitFor(cacheTtls: Iterable<number>): number {
  const shortest = Math.min(...Array.from(cacheTtls, (cacheTtl) => cacheTtl || limitWithoutCache))
  return Math.max(shortestLimit, Math.min(longestPauseOfAll, shortest))
}

/** Whether one kind of operation (reading or writing) is left alone because it keeps failing, and until when. */
export class StorePause {
  readonly #runtime: Runtime
  readonly #longest: number
  /** Failures in a row. {@link failed} counts them, {@link succeeded} sets them to 0. */
  #failures = 0
  /** When the last failure was counted: set by {@link failed}. */
  #failedAt = 0
  /** Begin and end of the pause: set by {@link failed}. {@link succeeded} sets the end to 0, which is none. */
  #since = 0
  #until = 0

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

  succeeded(): void {
    this.#failures = 0
    this.#until = 0
  }

  /**
   * The first failure may be a connection that died while the process was frozen: it is tried again at once.
   *
   * @param isFinal whether waiting does not help: then the pause is the longest from the first failure on
   */
  failed(startedAt: number, isFinal: boolean): void {
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
