/**
 * How late this process is with everything: what a noisy machine, a garbage collection or another test takes, is told
 * apart from what is waited for.
 */
export class Lag {
  /** So often the clock is looked at, in milliseconds. */
  static readonly #interval = 5
  /** When it was late, and by how much. */
  readonly #late: { readonly at: number; readonly by: number }[] = []
  readonly #timer: NodeJS.Timeout

  static start(): Lag {
    return new Lag()
  }

  private constructor() {
    let last = performance.now()
    this.#timer = setInterval(() => {
      const now = performance.now()
      const by = now - last - Lag.#interval
      if (by > 2) this.#late.push({ at: now, by })
      last = now
    }, Lag.#interval)
    this.#timer.unref()
  }

  /** By how much it was late from an instant of `performance.now()` on, in milliseconds. */
  since(instant: number): number {
    return this.#late.reduce((sum, { at, by }) => (at > instant ? sum + Math.min(by, at - instant) : sum), 0)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
