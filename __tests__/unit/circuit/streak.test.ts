import { describe, expect, it } from '@jest/globals'
import { Streak } from '../../../src/circuit/streak.ts'

const window = 60_000

describe('a streak', () => {
  it('grows with each failure and ends with a success', () => {
    const streak = new Streak(window)
    streak.failed(1)
    streak.failed(2)
    expect([streak.length, streak.lastFailureAt]).toEqual([2, 2])
    streak.succeeded(3)
    expect(streak.length).toBe(0)
  })

  it.each([
    [window, 2],
    [window + 1, 1],
  ])('begins anew after a gap that is longer than the window: %p ms make %p', (gap, length) => {
    const streak = new Streak(window)
    streak.failed(0)
    streak.withhold()
    streak.failed(gap)
    expect([streak.length, streak.takeFailures()]).toEqual([length, length])
  })

  it.each([
    [window, 1],
    [window + 1, 0],
  ])('counts until the window is over: after %p ms %p', (later, length) => {
    const streak = new Streak(window)
    streak.failed(1)
    expect(streak.liveLength(1 + later)).toBe(length)
  })
})

describe('a failure that is withheld', () => {
  it('is reported with the next one, once', () => {
    const streak = new Streak(window)
    streak.failed(0)
    streak.withhold()
    expect([streak.isWithheld, streak.takeFailures(), streak.isWithheld, streak.takeFailures()]).toEqual([
      true,
      2,
      false,
      1,
    ])
  })

  it.each(['succeeded', 'end'] as const)('is forgotten when the streak %s', (ends) => {
    const streak = new Streak(window)
    streak.failed(0)
    streak.withhold()
    streak[ends](1)
    expect(streak.takeFailures()).toBe(1)
  })
})

describe('the service has worked', () => {
  it.each([
    [window, true],
    [window + 1, false],
  ])('within the window: %p ms ago is %p', (ago, hasSucceeded) => {
    const streak = new Streak(window)
    expect(streak.hasSucceeded(0)).toBe(false)
    streak.succeeded(1_000)
    expect(streak.hasSucceeded(1_000 + ago)).toBe(hasSucceeded)
  })

  it.each([
    ['later', 2_000_001, 2_000_001],
    ['earlier, because calls end in another order than they begin', 1_999_999, 2_000_000],
    ['as early as the longest call allows', 1_100_000, 2_000_000],
    ['before that, because the clock has stepped back', 1_099_999, 1_099_999],
  ])('at the latest of its successes; one that ends %s', (_name, second, last) => {
    const streak = new Streak(0)
    streak.noteSuccess(2_000_000)
    streak.noteSuccess(second)
    expect([streak.hasSucceeded(last), streak.hasSucceeded(last + 1)]).toEqual([true, false])
  })
})
