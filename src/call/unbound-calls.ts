/**
 * Warns of operations without a limit: no timeout, no deadline and no signal. Such an operation may hang. Then it keeps its permit
 * for ever, and is never counted as a failure.
 *
 * @module
 */

import type { Runtime } from '../runtime.ts'
import { warnOfUnboundCall } from '../warnings.ts'

/** The breaker warns of an operation that runs longer than this, in milliseconds. */
const longTime = 60_000
/** One call on the short path is watched in this time, in milliseconds. */
const samplingTime = 1_000

/**
 * The operations without a limit of one service. One operation at a time is watched: a sample of those on the short path, or any of
 * the others. If such operations hold all permits, one of them is watched, because the call that takes the last permit or waits for
 * a permit is on the long path.
 */
export class UnboundCalls {
  readonly #service: string
  readonly #runtime: Runtime
  /** Written by `watch`, ended by the end of the operation. */
  #isWatching = false
  /** When the next sample may be taken, in milliseconds since the epoch. Written by `takesSample`. */
  #sampleAt = 0

  constructor(service: string, runtime: Runtime) {
    this.#service = service
    this.#runtime = runtime
  }

  /** Whether to watch the next call: then it takes the long path instead of the short one. */
  takesSample(now: number): boolean {
    if (this.#isWatching || now < this.#sampleAt) return false
    this.#sampleAt = now + samplingTime
    return true
  }

  /** Warns if the operation is still under way in a minute, unless another one is watched. */
  watch(running: Promise<unknown>): void {
    if (this.#isWatching) return
    this.#isWatching = true
    const timer = this.#runtime.setTimeout(() => warnOfUnboundCall(this.#service), longTime)
    timer.unref?.()
    const end = (): void => {
      this.#runtime.clearTimeout(timer)
      this.#isWatching = false
    }
    Promise.prototype.then.call(running, end, end)
  }
}
