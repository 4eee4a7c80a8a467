import { describe, expect, it } from '@jest/globals'
import type { Failure } from '../../../src/circuit/state-machine.ts'
import { Streak } from '../../../src/circuit/streak.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

const window = defaults.window

function failure(at: number, more: Partial<Failure> = {}): Failure {
  return { at, name: 'Error', ...more }
}

/** A streak of failures at these instants. */
function streakOf(instants: readonly number[], settings: Partial<ServiceSettings> = {}): Streak {
  const streak = new Streak({ ...defaults, ...settings })
  for (const at of instants) streak.failed(failure(at))
  return streak
}

/** An instance that has refused since 3 and may probe from 10 003 on. */
function refusing(settings: Partial<ServiceSettings> = {}): Streak {
  return streakOf([1, 2, 3], settings)
}

const lease = { id: 'own', expiresAt: 40_000 }

describe('a streak', () => {
  it('grows with each failure and ends with a success', () => {
    const streak = streakOf([1, 2])
    expect([streak.length, streak.lastFailure, streak.isQuiet]).toEqual([2, failure(2), false])
    streak.succeeded()
    expect([streak.length, streak.lastFailure, streak.isQuiet]).toEqual([0, undefined, true])
  })

  it.each([
    [window, 2],
    [window + 1, 1],
  ])('begins anew after a gap that is longer than the window: %p ms make %p', (gap, length) => {
    expect(streakOf([0, gap]).length).toBe(length)
  })

  it.each([
    [window, 2],
    [window + 1, 1],
  ])(
    'goes on with a call that began soon after the last failure, however long it takes: %p ms make %p',
    (gap, length) => {
      const streak = streakOf([0])
      streak.failed(failure(gap + 5 * window), gap)
      expect(streak.length).toBe(length)
    },
  )

  it.each([
    [window, 1],
    [window + 1, 0],
  ])('counts until the window is over: after %p ms %p', (later, length) => {
    expect(streakOf([1]).liveLength(1 + later)).toBe(length)
  })

  it('of an epoch that is over is forgotten, but not that the service has worked', () => {
    const streak = refusing()
    expect(streak.hasWorked).toBe(false)
    streak.succeeded()
    for (const at of [1, 2, 3]) streak.failed(failure(at))
    streak.claim(lease, 0)
    streak.end()
    expect([streak.length, streak.openedAt, streak.hasWorked]).toEqual([0, undefined, true])
    expect([streak.probeEnded('own', undefined), streak.admit(4)]).toEqual([undefined, 'pass'])
  })
})

describe('an instance refuses', () => {
  it('from failureThreshold failures in a row on, until resetTimeout is over', () => {
    const streak = streakOf([1, 2])
    expect([streak.openedAt, streak.admit(2)]).toEqual([undefined, 'pass'])
    streak.failed(failure(3))
    expect([streak.openedAt, streak.retryAt]).toEqual([3, 10_003])
    expect([streak.admit(3), streak.admit(10_002), streak.admit(10_003)]).toEqual(['open', 'open', 'claim'])
  })

  it.each([
    ['not for less', 9_999, 10_000],
    ['for more', 20_000, 20_000],
    ['for maxResetTimeout at most', 300_001, 300_000],
  ])('for as long as the service asks: %s', (_how, retryAfter, lasts) => {
    const streak = streakOf([1, 2])
    streak.failed(failure(3, { retryAfter }))
    expect(streak.retryAt).toBe(3 + lasts)
  })

  it.each([
    ['soon after', {}, 4],
    ['after the window', { window: 5 }, 9],
  ])('no longer and no shorter because a call in flight fails %s', (_when, settings, at) => {
    const streak = refusing(settings)
    streak.failed(failure(at))
    expect([streak.openedAt, streak.retryAt]).toEqual([3, 10_003])
  })

  it('no longer after a success', () => {
    const streak = refusing()
    streak.succeeded()
    expect([streak.openedAt, streak.admit(3)]).toEqual([undefined, 'pass'])
  })

  it('not for ever where its clock has stepped back', () => {
    const streak = streakOf([1e9, 1e9, 1e9])
    const doubted = 1e9 + 10_000 - 70_001
    expect([streak.admit(doubted + 1), streak.admit(doubted)]).toEqual(['open', 'claim'])
  })
})

describe('a call that is let through by an instance that refuses', () => {
  it('is the only one, until its lease expires', () => {
    const streak = refusing()
    streak.claim(lease, 0)
    expect([streak.admit(10_003), streak.admit(39_999), streak.admit(40_000)]).toEqual(['probing', 'probing', 'claim'])
  })

  it('is told from another one by its lease', () => {
    const streak = refusing()
    streak.claim(lease, 7)
    expect([streak.probeEnded('other', failure(9)), streak.admit(10_003)]).toEqual([undefined, 'probing'])
    expect([streak.probeEnded('own', undefined), streak.probeEnded('own', undefined)]).toEqual([7, undefined])
    expect(streak.admit(10_003)).toBe('claim')
  })

  it('makes it refuse twice as long each time, by up to a tenth more or less, until one succeeds', () => {
    const streak = refusing()
    const refusals = [0, 1, 2].map((round) => {
      const at = 1_000_000 * (round + 1)
      streak.claim(lease, 0)
      streak.probeEnded('own', failure(at))
      return (streak.retryAt - at) / 10_000
    })
    expect(refusals.map((times, round) => Math.abs(times / 2 ** (round + 1) - 1) <= 0.1)).toEqual([true, true, true])
    streak.succeeded()
    for (let n = 0; n < 3; n++) streak.failed(failure(9_000_000))
    expect(streak.retryAt).toBe(9_010_000)
  })

  it.each([
    ['within the window', 10_003],
    ['after it', 100_000],
  ])('makes the instance refuse anew where it fails %s', (_when, at) => {
    const streak = refusing()
    streak.claim(lease, 0)
    streak.probeEnded('own', failure(at, { retryAfter: 30_000 }))
    streak.failed(failure(at))
    expect([streak.length, streak.openedAt, streak.retryAt]).toEqual([4, at, at + 30_000])
  })
})

describe('an instance is alone with its failures', () => {
  it('where a record that was read since it refuses says that the service works: said once', () => {
    const streak = streakOf([1, 2])
    expect(streak.isAlone(2)).toBe(false)
    streak.failed(failure(3))
    expect([streak.isAlone(2), streak.isAlone(3), streak.isAlone(4)]).toEqual([false, true, false])
  })

  it('and says so again when it has worked in between', () => {
    const streak = refusing()
    streak.isAlone(3)
    streak.succeeded()
    for (const at of [4, 5, 6]) streak.failed(failure(at))
    expect(streak.isAlone(6)).toBe(true)
  })
})
