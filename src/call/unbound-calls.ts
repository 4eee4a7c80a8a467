/**
 * Operations that nothing ends: without a timeout, a deadline or a signal. One that hangs keeps its permit for ever, and
 * counts for nothing, because it never fails. So it is warned of.
 *
 * @module
 */

import type { Runtime } from '../runtime.ts'
import { warnOfUnboundCall } from '../warnings.ts'

/** An operation that runs for longer is warned of, in milliseconds. */
const longTime = 60_000
/** Of the calls on the short way one in so many milliseconds is taken out of it to be watched. */
const samplingTime = 1_000

/**
 * The operations of one service that nothing ends. One at a time is watched: of those on the short way a sample, of the others
 * any. Where such operations hold all permits, one of them is watched: the last permit is taken on the long way, and so is one
 * that was waited for.
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

  /** Whether a call that would take the short way is to take the long one, and to be watched. */
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
