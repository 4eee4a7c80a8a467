/** The machine's clock, which can be moved on. */
export interface MovingClock extends Disposable {
  /** Moves it on by so many milliseconds. */
  advance(by: number): void
}

/** Lets a test skip minutes: `Date.now` is ahead of the machine's clock, until it is disposed of. Timers are the machine's. */
export function startMovingClock(): MovingClock {
  const { now } = Date
  let ahead = 0
  Date.now = () => now() + ahead
  return {
    advance: (by) => {
      ahead += by
    },
    [Symbol.dispose]: () => {
      Date.now = now
    },
  }
}
