import { describe, expect, it } from '@jest/globals'
import {
  dismiss,
  dismissalsAt,
  isAlone,
  knowsOthers,
  longestShare,
  raise,
  raisingChance,
  reportingChance,
  suspicion,
  type VerdictSettings,
  wantsAnnouncements,
  wasDismissedSince,
} from '../../../src/circuit/suspicion.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'

const now = 1_800_000_000_000
const hour = 3_600_000

const defaults: VerdictSettings = { failureThreshold: 3, failureRateThreshold: 50, window: 60_000, cacheTtl: 5_000 }

const tokens = { version: 'v-next', epoch: 'e-next' }

function settings(changes: Partial<VerdictSettings> = {}): VerdictSettings {
  return { ...defaults, ...changes }
}

function closed(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return { ...emptyRecord('e-1', now), version: 'v-1', ...changes }
}

/** A service that came under suspicion a moment ago, in a fleet of which several instances have reported. */
function suspected(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return closed({ suspectedAt: now, reporterCount: 2, ...changes })
}

/** … of which only the author of the suspicion has, though others are known. */
function accused(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return suspected({ reporterCount: 1, othersAt: now, ...changes })
}

/** So many failures in a row open the circuit. */
function failuresToOpen(record: CircuitRecord, at = now, of = defaults): number {
  for (let failureCount = 1; ; failureCount++) {
    if (suspicion({ ...record, failureCount }, at, of) === 'guilty') return failureCount
  }
}

describe('a suspicion', () => {
  it.each([
    ['nothing is stored', undefined, 'none'],
    ['nobody has raised one', closed({ failureCount: 99 }), 'none'],
    ['an operator holds the circuit', suspected({ override: { state: 'CLOSED', at: now } }), 'none'],
    ['an operator held it', suspected({ override: { state: 'CLOSED', at: now - 9, until: now } }), 'open'],
    ['one was raised', suspected(), 'open'],
  ])('where %s', (_where, record, expected) => {
    expect(suspicion(record, now, defaults)).toBe(expected)
  })

  it.each([
    ['in the last millisecond of its window', 60_000, 'guilty'],
    ['after that', 60_001, 'innocent'],
    ['raised by a clock that is an honest minute ahead', -60_000, 'guilty'],
    ['raised by a clock that is further ahead', -60_001, 'innocent'],
  ])('always ends: %s', (_when, age, expected) => {
    expect(suspicion(suspected({ failureCount: 3 }), now + age, defaults)).toBe(expected)
  })

  it.each([
    [50, 2, 0, 'open'],
    [50, 3, 0, 'guilty'],
    [50, 3, 1, 'open'],
    [50, 9, 6, 'guilty'],
    [50, 0, 2, 'open'],
    [50, 0, 3, 'innocent'],
    [50, 6, 9, 'innocent'],
    // A success weighs a quarter of a failure …
    [20, 4, 4, 'guilty'],
    [20, 4, 5, 'open'],
    [20, 0, 11, 'open'],
    [20, 0, 12, 'innocent'],
    // … or more than all of them.
    [100, 3, 0, 'guilty'],
    [100, 0, 0, 'open'],
    [100, 99, 1, 'innocent'],
  ])(
    'at a rate of %p %%: %p failures and %p successes are %p',
    (failureRateThreshold, failures, successes, expected) => {
      const record = suspected({ failureCount: failures, successCount: successes })
      expect(suspicion(record, now, settings({ failureRateThreshold }))).toBe(expected)
    },
  )

  describe('takes calls that have begun and not ended', () => {
    it.each([
      ['for successes in its first second', 4, 0, 999, 'open'],
      ['for nothing from then on', 4, 0, 1_000, 'guilty'],
      ['for nothing where all have ended', 3, 0, 0, 'guilty'],
      ['for nothing where more have ended than were announced', 1, 0, 0, 'guilty'],
      ['for no acquittal', 99, 0, 0, 'open'],
      ['for a success once where they have succeeded', 5, 1, 0, 'guilty'],
    ])('%s', (_what, startedCount, successCount, age, expected) => {
      const record = suspected({ failureCount: 3 + successCount, successCount, startedCount })
      expect(suspicion(record, now + age, defaults)).toBe(expected)
    })

    it('for no number that is none, at a rate of 100 %', () => {
      const record = suspected({ failureCount: 3, startedCount: 4 })
      expect(suspicion(record, now, settings({ failureRateThreshold: 100 }))).toBe('open')
    })
  })

  describe('counts failures that have run into it', () => {
    it.each([
      ['after a second', {}, {}, 999, 'open'],
      ['after a second', {}, {}, 1_000, 'guilty'],
      ['after cacheTtl where others were known before', { othersAt: now }, {}, 4_999, 'open'],
      ['after cacheTtl where others were known before', { othersAt: now }, {}, 5_000, 'guilty'],
      ['after a second where others read more often', { othersAt: now }, { cacheTtl: 0 }, 999, 'open'],
      ['after a second where others read more often', { othersAt: now }, { cacheTtl: 0 }, 1_000, 'guilty'],
      ['not by their author alone where others are known', { othersAt: now, reporterCount: 1 }, {}, 9_999, 'open'],
      ['by their author alone where nobody else was heard', { othersAt: now, reporterCount: 1 }, {}, 10_000, 'guilty'],
      ['never where a success was sampled', { successCount: 1, earlyCount: 9 }, {}, 30_000, 'open'],
      ['together with the sample', { failureCount: 1, earlyCount: 2 }, {}, 1_000, 'guilty'],
      ['and not for an acquittal', { failureCount: 0, earlyCount: 1, successCount: 3 }, {}, 1_000, 'innocent'],
    ])('%s: %p, %p, at %p ms it is %p', (_when, changes, own, age, expected) => {
      expect(suspicion(suspected({ earlyCount: 3, ...changes }), now + age, settings(own))).toBe(expected)
    })
  })
})

describe('the threshold', () => {
  it.each([
    [0, undefined, 3],
    [1, undefined, 4],
    [2, undefined, 5],
    [3, undefined, 5],
    [7, undefined, 6],
    // The dismissed samples were nearly free of failures: each of them says more.
    [7, 0.05, 4],
    [7, 0.45, 6],
    // Figures that no fleet has are not believed.
    [1e9, 0.45, 13],
    [7, 0, 4],
    [7, 1, 6],
  ])('grows with what was dismissed: %p with a noise of %p make %p', (dismissals, noise, failures) => {
    expect(failuresToOpen(suspected({ dismissals, dismissedAt: now, noise }))).toBe(failures)
  })

  it('is asked of an acquittal, too', () => {
    const acquitted = (successCount: number) => suspicion(suspected({ dismissals: 1, successCount }), now, defaults)
    expect([acquitted(3), acquitted(4)]).toEqual(['open', 'innocent'])
  })

  it.each([
    ['it is 1', suspected({ dismissals: 7 }), now, { failureThreshold: 1 }, 1],
    ['nobody else is known', suspected({ dismissals: 7, reporterCount: 1 }), now, {}, 3],
    ['others are known', accused({ dismissals: 7 }), now, {}, 6],
    ['others are known, and all have read of it in vain', accused({ dismissals: 7 }), now + 10_000, {}, 3],
  ])('is failureThreshold or more where %s', (_where, record, at, own, failures) => {
    expect(failuresToOpen(record, at, settings(own))).toBe(failures)
  })

  it.each([
    [1, {}, 1],
    [2, {}, 1],
    [3, {}, 2],
    [3, { dismissals: 1 }, 2],
    [3, { dismissals: 3 }, 3],
  ])('is met by one instance to the half, rounded up: of %p, %p, are %p', (failureThreshold, changes, share) => {
    expect(longestShare(accused(changes), now, settings({ failureThreshold }))).toBe(share)
  })
})

describe('suspicions that were dismissed', () => {
  it.each([
    ['as they were', 0, 3],
    ['by a factor of e in an hour', hour, 3 / Math.E],
    ['by no clock that steps back', -hour, 3],
  ])('fade %s', (_how, later, dismissals) => {
    expect(dismissalsAt(closed({ dismissals: 3, dismissedAt: now }), now + later)).toBeCloseTo(dismissals, 9)
  })

  it('are none where nothing is stored', () => {
    expect(dismissalsAt(undefined, now)).toBe(0)
  })

  it.each([
    ['none was', undefined, false],
    ['one was before it', now - 6, false],
    ['one was at that time', now - 5, true],
    ['one was by a clock that is a minute ahead', now + 60_000, true],
    ['one was by a clock that is further ahead', now + 60_001, false],
  ])('answer a failure or not where %s', (_where, dismissedAt, expected) => {
    expect(wasDismissedSince(closed({ dismissedAt }), now - 5, now)).toBe(expected)
  })
})

describe('others are known', () => {
  it.each([
    ['nothing is stored', undefined, false],
    ['one has reported', suspected({ reporterCount: 1 }), false],
    ['two have reported', suspected(), true],
    ['one was heard in the last ten minutes', closed({ othersAt: now - 599_999 }), true],
    ['one was heard before that', closed({ othersAt: now - 600_000 }), false],
    ['one was heard by a clock that is ahead', closed({ othersAt: now + 599_999 }), true],
    ['one was heard by a broken clock', closed({ othersAt: now + 600_000 }), false],
  ])('or not where %s', (_where, record, expected) => {
    expect(knowsOthers(record, now)).toBe(expected)
  })

  it.each([
    ['is the only one known', suspected({ reporterCount: 1 }), 0, true],
    ['may still be contradicted', accused(), 9_999, false],
    ['was not contradicted in two cacheTtls', accused(), 10_000, true],
    ['was joined by another', accused({ reporterCount: 2 }), 10_000, false],
  ])('and the author of a suspicion is alone or not where it %s', (_where, record, age, expected) => {
    expect(isAlone(record, now + age, defaults)).toBe(expected)
  })

  it.each([
    ['two seconds, however often they read', { cacheTtl: 0 }, 2_000],
    ['half of the window, however seldom they read', { cacheTtl: 600_000 }, 30_000],
  ])('and have %s to contradict', (_what, own, time) => {
    const alone = [time - 1, time].map((age) => isAlone(accused(), now + age, settings(own)))
    expect(alone).toEqual([false, true])
  })
})

describe('calls are announced', () => {
  it.each([
    ['in the first second', {}, 999, true],
    ['not later', {}, 1_000, false],
    ['where noise may bring the failures that are missing', { noise: 0.022 }, 0, true],
    ['not where it hardly can', { noise: 0.021 }, 0, false],
    ['where fewer are missing', { noise: 0.021, failureCount: 1 }, 0, true],
  ])('%s', (_when, changes, age, expected) => {
    const record = suspected({ failureCount: 0, ...changes })
    expect(wantsAnnouncements(record, now + age, defaults)).toBe(expected)
  })
})

describe('raising a suspicion', () => {
  const lastFailure = { at: now - 5, name: 'Error', retryAfter: 9 }
  const cause = { failures: 2, at: now - 5, lastFailure }

  it('counts the failures in a row of an instance that nobody can contradict', () => {
    const record = closed({ failureCount: 9, successCount: 9, startedCount: 9, earlyCount: 9 })
    expect(raise(record, now, cause, defaults, tokens)).toEqual({
      ...record,
      version: 'v-next',
      suspectedAt: now - 5,
      failureCount: 2,
      successCount: 0,
      startedCount: 2,
      earlyCount: 0,
      reporterCount: 1,
      lastFailureAt: now - 5,
      lastFailure: { at: now - 5, name: 'Error' },
      updatedAt: now,
    })
  })

  it('counts one failure that has run into it where others are known', () => {
    expect(raise(closed({ othersAt: now }), now, cause, defaults, tokens)).toMatchObject({
      failureCount: 0,
      startedCount: 0,
      earlyCount: 1,
      reporterCount: 1,
    })
  })

  it('opens the circuit with the first failure at a threshold of 1, without a second opinion', () => {
    const own = settings({ failureThreshold: 1 })
    expect(suspicion(raise(closed({ othersAt: now }), now, { ...cause, failures: 1 }, own, tokens), now, own)).toBe(
      'guilty',
    )
  })

  it('keeps the failure that is known where it is told of none, and ends an override that is over', () => {
    const override = { state: 'CLOSED', at: 0, until: 1 } as const
    const known = { at: 1, name: 'Known' }
    const raised = raise(
      closed({ override, lastFailure: known }),
      now,
      { ...cause, lastFailure: undefined },
      defaults,
      tokens,
    )
    expect([raised.lastFailure, raised.override]).toEqual([known, undefined])
  })

  it.each([
    ['within a window of the last write', { updatedAt: now - 60_005 }, 4],
    ['after it', { updatedAt: now - 60_006 }, 0],
    ['within a window of the last failure', { updatedAt: 0, lastFailureAt: now - 60_005 }, 4],
  ])('keeps the count of trips in a row %s, or ends it', (_when, changes, trips) => {
    expect(raise(closed({ trips: 4, ...changes }), now, cause, defaults, tokens).trips).toBe(trips)
  })

  it.each([
    ['the first failure while nothing was dismissed', undefined, 1, 1],
    ['the first failure right after a dismissal', { dismissals: 1, dismissedAt: now }, 1, 1 / 2],
    ['the first failure a minute later', { dismissals: 1, dismissedAt: now - 60_000 }, 1, 0.734],
    [
      'the first failure after a dismissal by a clock that is ahead',
      { dismissals: 1, dismissedAt: now + hour },
      1,
      1 / 2,
    ],
    ['the second in a row', { dismissals: 5, dismissedAt: now }, 2, 0.278],
    ['the second in a row of a service that hardly fails', { dismissals: 5, dismissedAt: now, noise: 0.05 }, 2, 10 / 6],
  ])('is as likely as that: %s', (_what, changes, failures, chance) => {
    expect(raisingChance(changes && closed(changes), failures, now)).toBeCloseTo(chance, 3)
  })
})

describe('dismissing a suspicion', () => {
  it('empties the sample, and counts', () => {
    const record = suspected({
      failureCount: 2,
      successCount: 5,
      startedCount: 1,
      earlyCount: 1,
      dismissals: 3,
      dismissedAt: now,
    })
    expect(dismiss(record, now + hour, tokens)).toMatchObject({
      version: 'v-next',
      epoch: 'e-1',
      state: 'CLOSED',
      generation: 0,
      suspectedAt: undefined,
      failureCount: 0,
      successCount: 0,
      startedCount: 0,
      earlyCount: 0,
      reporterCount: 0,
      dismissals: 2.104,
      dismissedAt: now + hour,
      updatedAt: now + hour,
    })
  })

  it('is no false alarm where more failures than successes were sampled: nothing is learnt of it', () => {
    const record = suspected({ failureCount: 2, successCount: 1, noise: 0.1, dismissals: 3, dismissedAt: 5 })
    expect(dismiss(record, now, tokens)).toMatchObject({ noise: 0.1, dismissals: 3, dismissedAt: 5, failureCount: 0 })
  })

  it.each([
    ['a second instance where it was heard', 2, undefined, now + 50],
    ['none where it was not', 1, undefined, undefined],
    ['when one was heard before', 1, now - 9, now - 9],
  ])('remembers %s', (_what, reporterCount, othersAt, expected) => {
    expect(dismiss(suspected({ reporterCount, othersAt }), now + 50, tokens).othersAt).toBe(expected)
  })

  it.each([
    ['as much as nothing where nothing was sampled', undefined, 0, 0, 0.3],
    ['some of forty calls', undefined, 0, 10, 0.24],
    ['some of forty calls of which half failed', 0.1, 10, 10, 0.2333],
    ['never to nothing', 0.005, 0, 99, 0.005],
    ['never to the half', 0.45, 99, 99, 0.45],
  ])('learns of the noise: %s', (_how, noise, failureCount, successCount, expected) => {
    expect(dismiss(suspected({ noise, failureCount, successCount }), now, tokens).noise).toBe(expected)
  })

  it.each([
    ['by the outcomes', { failureCount: 1, successCount: 9 }, 1_000, 10],
    ['by the calls that have begun where they are more', { successCount: 9, startedCount: 30 }, 1_000, 30],
    ['of those who were silent as well', { successCount: 50, pace: 200 }, 1_000, 200],
    ['over 50 ms at least', { successCount: 5 }, 0, 100],
    ['not by clocks that are apart', { successCount: 9, pace: 7 }, -1, 7],
    ['up to what a fleet can have', { successCount: 1e9 }, 1_000, 1_000_000],
  ])('learns of the pace %s', (_how, changes, age, pace) => {
    expect(dismiss(suspected(changes), now + age, tokens).pace).toBe(pace)
  })
})

describe('an instance reports', () => {
  it.each([
    [undefined, 1],
    [50, 1],
    [400, 1 / 8],
    [1e15, 5e-5],
  ])('so that a fleet with a pace of %p sends what one item can take: %p', (pace, chance) => {
    expect(reportingChance(closed({ pace }))).toBe(chance)
  })

  it.each([
    [1, 0, 1 / 20],
    [2, 0, 1 / 5],
    [5, 4, 1 / 20],
    [6, 4, 1 / 5],
  ])('and more where %p failures stand against %p successes: %p', (failureCount, successCount, chance) => {
    expect(reportingChance(suspected({ pace: 1_000, failureCount, successCount }))).toBe(chance)
  })
})
