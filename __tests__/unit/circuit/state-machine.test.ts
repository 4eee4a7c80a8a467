import { describe, expect, it } from '@jest/globals'
import {
  activeOverride,
  admit,
  admittedPart,
  claim,
  clockTolerance,
  close,
  effectiveState,
  force,
  liveLeases,
  type MachineSettings,
  maxLease,
  open,
  reset,
  retryTime,
  settle,
  type Tokens,
} from '../../../src/circuit/state-machine.ts'
import type { CircuitRecord, FailureSummary } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'

const now = 1_800_000_000_000

const defaults: MachineSettings = {
  resetTimeout: 10_000,
  halfOpenSuccessThreshold: 1,
  halfOpenMaxConcurrent: 1,
  maxResetTimeout: 300_000,
  resetBackoff: 2,
}

const tokens: Tokens = { version: 'v-next', epoch: 'e-next' }

const timedOut: FailureSummary = { at: now, name: 'TimeoutError', code: 'ETIMEDOUT' }

/** The largest count. */
const most = Number.MAX_SAFE_INTEGER

function settings(changes: Partial<MachineSettings> = {}): MachineSettings {
  return { ...defaults, ...changes }
}

function closed(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return { ...emptyRecord('e-1', now - 1_000), version: 'v-1', ...changes }
}

/** A closed circuit with this many failures, the last of them a second ago. */
function failing(failureCount: number, changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return closed({ failureCount, lastFailureAt: now - 1_000, ...changes })
}

function opened(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return closed({
    state: 'OPEN',
    generation: 1,
    failureCount: 3,
    lastFailureAt: now - 4_000,
    openedAt: now - 4_000,
    retryAt: now + 6_000,
    resetTimeout: 10_000,
    trips: 1,
    ...changes,
  })
}

function halfOpen(changes: Partial<CircuitRecord> = {}): CircuitRecord {
  return opened({
    state: 'HALF_OPEN',
    generation: 2,
    openedAt: now - 12_000,
    retryAt: now - 2_000,
    leases: [{ id: 'lease-1', expiresAt: now + 20_000 }],
    ...changes,
  })
}

describe('admission', () => {
  it('lets calls pass a closed circuit, however many failures it has counted', () => {
    expect(admit(failing(2), now, defaults)).toBe('pass')
    expect(admit(failing(99), now, defaults)).toBe('pass')
  })

  it.each([
    ['the last millisecond before retryAt', 1, 'open'],
    ['retryAt itself', 0, 'claim'],
    ['any time after retryAt', -86_400_000, 'claim'],
  ] as const)('answers an open circuit at %s', (_when, ahead, verdict) => {
    expect(admit(opened({ retryAt: now + ahead }), now, defaults)).toBe(verdict)
  })

  it('refuses while every probe that is allowed is in flight', () => {
    expect(admit(halfOpen(), now, defaults)).toBe('probing')
  })

  it('offers a probe while fewer than halfOpenMaxConcurrent are in flight', () => {
    expect(admit(halfOpen(), now, settings({ halfOpenMaxConcurrent: 2 }))).toBe('claim')
  })

  it('offers the probe of a prober whose lease has expired', () => {
    const record = halfOpen({ leases: [{ id: 'dead', expiresAt: now }] })

    expect(admit(record, now - 1, defaults)).toBe('probing')
    expect(admit(record, now, defaults)).toBe('claim')
  })

  it('offers a probe in a half-open circuit that nobody probes', () => {
    expect(admit(halfOpen({ leases: [] }), now, defaults)).toBe('claim')
  })

  it.each([opened(), opened({ retryAt: now }), halfOpen()])('does not change the record that it looks at', (record) => {
    const before = structuredClone(record)

    admit(record, now, defaults)

    expect(record).toEqual(before)
  })
})

describe('an operator’s override', () => {
  it('refuses every call while the circuit is forced open', () => {
    const record = closed({ override: { state: 'OPEN', at: now } })

    expect(admit(record, now + 365 * 86_400_000, defaults)).toBe('forced')
    expect(effectiveState(record, now, defaults)).toBe('OPEN')
  })

  it('lets every call pass while the circuit is forced closed', () => {
    const record = opened({ override: { state: 'CLOSED', at: now } })

    expect(admit(record, now, defaults)).toBe('pass')
    expect(effectiveState(record, now, defaults)).toBe('CLOSED')
  })

  it('ends at its own until', () => {
    const record = opened({ override: { state: 'CLOSED', at: now - 5_000, until: now } })

    expect(activeOverride(record, now - 1)).toEqual(record.override)
    expect(activeOverride(record, now)).toBeUndefined()
    expect(admit(record, now, defaults)).toBe('open')
    expect(effectiveState(record, now, defaults)).toBe('OPEN')
  })

  it.each(['OPEN', 'CLOSED'] as const)('keeps the outcome of a probe from being written while it is %s', (state) => {
    const override = { state, at: now - 1, until: now + 1 }

    expect(settle(halfOpen({ override }), 'lease-1', 'failure', now, defaults, tokens, timedOut)).toBeUndefined()
  })

  it('begins a new epoch, so that calls from before it count for nothing', () => {
    const forced = force(halfOpen(), { state: 'OPEN', at: now }, defaults, tokens)

    expect(forced).toMatchObject({ state: 'OPEN', epoch: 'e-next', generation: 3, leases: [] })
  })

  it('that opens until a given time goes on as an open circuit that is due', () => {
    const until = now + 3_600_000

    const forced = force(closed(), { state: 'OPEN', at: now, until }, defaults, tokens)

    expect(forced).toMatchObject({ openedAt: now, retryAt: until, resetTimeout: 3_600_000 })
    expect(admit(forced, until - 1, defaults)).toBe('forced')
    expect(admit(forced, until, defaults)).toBe('claim')
  })

  it('that opens without an end stays, whatever the reset timeout', () => {
    const forced = force(closed(), { state: 'OPEN', at: now }, defaults, tokens)

    expect(forced).toMatchObject({ openedAt: now, retryAt: now + 10_000, resetTimeout: 10_000, failureCount: 0 })
    expect(admit(forced, now + 3_600_000, defaults)).toBe('forced')
  })

  it('that closes until a given time goes on as a closed and empty circuit', () => {
    const forced = force(opened(), { state: 'CLOSED', at: now, until: now + 5_000 }, defaults, tokens)

    expect(admit(forced, now + 5_000, defaults)).toBe('pass')
    expect(forced).toMatchObject({ state: 'CLOSED', failureCount: 0, retryAt: undefined, openedAt: undefined })
  })

  it('is ended by a reset, which leaves no past', () => {
    const forced = force(opened({ lastFailure: timedOut }), { state: 'OPEN', at: now }, defaults, tokens)

    const fresh = reset(forced, now + 1, { version: 'v-3', epoch: 'e-3' })

    expect(fresh).toEqual({
      ...emptyRecord('e-3', now + 1),
      version: 'v-3',
      generation: 3,
      transitions: ['e-next', 'e-3'],
    })
  })
})

describe('the effective state', () => {
  it('of an open circuit reads HALF_OPEN from retryAt on', () => {
    const record = opened({ retryAt: now })

    expect(effectiveState(record, now - 1, defaults)).toBe('OPEN')
    expect(effectiveState(record, now, defaults)).toBe('HALF_OPEN')
  })

  it('of any other circuit is the stored one', () => {
    expect(effectiveState(closed(), now, defaults)).toBe('CLOSED')
    expect(effectiveState(halfOpen(), now, defaults)).toBe('HALF_OPEN')
  })
})

describe('a record with hostile numbers', () => {
  const largest = { failureCount: most, successCount: most, generation: most, trips: most }
  const countsOf = ({ failureCount, successCount, generation, trips }: CircuitRecord) => [
    failureCount,
    successCount,
    generation,
    trips,
  ]

  it('reopens with counts that stay so', () => {
    const reopened = settle(halfOpen(largest), 'lease-1', 'failure', now, defaults, tokens, timedOut)

    expect(countsOf(reopened as CircuitRecord)).toEqual([most, 0, most, most])
  })

  it('counts a probe’s success with a count that stays so', () => {
    const demanding = settings({ halfOpenSuccessThreshold: most + 1 })
    const settled = settle(halfOpen(largest), 'lease-1', 'success', now, demanding, tokens, undefined)

    expect(countsOf(settled as CircuitRecord)).toEqual([most, most, most, most])
  })

  it('counts up to the last number, and by one at a time below it', () => {
    expect(open(closed({ generation: most - 1, trips: most - 2 }), now, defaults, tokens, timedOut)).toMatchObject({
      generation: most,
      trips: most - 1,
    })
  })

  it.each<[string, Partial<CircuitRecord>]>([
    ['retryAt', { retryAt: Number.NaN }],
    ['openedAt', { openedAt: Number.NaN }],
    ['resetTimeout', { resetTimeout: Number.NaN }],
  ])('is not open for ever where its %s is no number', (_what, changes) => {
    expect(admit(opened(changes), now, defaults)).toBe('claim')
    expect(effectiveState(opened(changes), now, defaults)).toBe('HALF_OPEN')
  })

  it('is not half-open for ever where the end of a lease is no number', () => {
    expect(admit(halfOpen({ leases: [{ id: 'l', expiresAt: Number.NaN }] }), now, defaults)).toBe('claim')
  })
})

describe('a record from a broken clock', () => {
  it('counts a retryAt as reached that is further ahead than its own reset timeout and the tolerance', () => {
    const ahead = 10_000 + clockTolerance
    const at = (retryAt: number) => opened({ openedAt: undefined, retryAt })

    expect(admit(at(now + ahead), now, defaults)).toBe('open')
    expect(admit(at(now + ahead + 1), now, defaults)).toBe('claim')
    expect(admit(at(8.64e15), now, defaults)).toBe('claim')
  })

  it('measures retryAt by the reset timeout of whoever opened the circuit', () => {
    const record = opened({ openedAt: now, retryAt: now + 120_000, resetTimeout: 120_000 })

    expect(admit(record, now, defaults)).toBe('open')
  })

  it('measures retryAt by its own reset timeout where none is stored', () => {
    const record = opened({ openedAt: undefined, retryAt: now + 10_000 + clockTolerance + 1, resetTimeout: undefined })

    expect(admit(record, now, defaults)).toBe('claim')
  })

  it('does not stay open for longer than maxResetTimeout, whatever reset timeout is stored', () => {
    const record = opened({ openedAt: now, retryAt: now + 3_600_000, resetTimeout: 3_600_000 })

    expect(retryTime(record, defaults)).toBe(now + 300_000)
    expect(admit(record, now + 299_999, defaults)).toBe('open')
    expect(admit(record, now + 300_000, defaults)).toBe('claim')
  })

  it('may be probed at once if it is open without a retryAt', () => {
    expect(admit(opened({ retryAt: undefined }), now, defaults)).toBe('claim')
  })

  it('counts a lease as expired that is further ahead than the longest lease and the tolerance', () => {
    const held = (ahead: number) => halfOpen({ leases: [{ id: 'x', expiresAt: now + ahead }] })

    expect(liveLeases(held(maxLease + clockTolerance), now)).toHaveLength(1)
    expect(liveLeases(held(maxLease + clockTolerance + 1), now)).toHaveLength(0)
    expect(admit(held(8.64e15), now, defaults)).toBe('claim')
  })
})

describe('the count of consecutive trips', () => {
  it('grows with each trip', () => {
    expect(open(halfOpen({ trips: 4 }), now, defaults, tokens, timedOut).trips).toBe(5)
  })

  it('survives a close', () => {
    expect(close(halfOpen({ trips: 4 }), now, tokens).trips).toBe(4)
  })
})

describe('opening', () => {
  it('keeps what is known of the last failure when it is told of none', () => {
    const record = failing(3, { lastFailure: timedOut, lastFailureAt: now - 7 })

    expect(open(record, now, defaults, tokens, undefined)).toMatchObject({
      lastFailure: timedOut,
      lastFailureAt: now - 7,
    })
  })

  it('ends what is known of the last close, which would ramp up the next one', () => {
    expect(open(closed({ closedAt: 1 }), now, defaults, tokens, timedOut).closedAt).toBeUndefined()
    expect(close(closed({ closedAt: 1 }), now, tokens).closedAt).toBeUndefined()
  })

  it('empties what a half-open period counted', () => {
    const record = halfOpen({ successCount: 1 })

    expect(open(record, now, defaults, tokens, timedOut)).toMatchObject({ successCount: 0, leases: [] })
  })
})

describe('opening when the service says how long to wait', () => {
  const asking = (retryAfter: number) => ({ ...timedOut, retryAfter })

  it.each([
    ['less than resetTimeout', 9_999, 10_000],
    ['more', 10_001, 10_001],
    ['as much as maxResetTimeout', 300_000, 300_000],
    ['more than that', 300_001, 300_000],
    ['no time', 0, 10_000],
  ])('stays open for the right time where that is %s', (_, asked, resetTimeout) => {
    const record = open(failing(3), now, defaults, tokens, asking(asked))

    expect(record).toMatchObject({ openedAt: now, retryAt: now + resetTimeout, resetTimeout })
    expect(admit(record, now + resetTimeout - 1, defaults)).toBe('open')
    expect(admit(record, now + resetTimeout, defaults)).toBe('claim')
  })

  it('never opens for less than resetTimeout, even if that is more than maxResetTimeout', () => {
    const record = open(failing(3), now, settings({ maxResetTimeout: 1_000 }), tokens, asking(5_000))

    expect(record).toMatchObject({ retryAt: now + 10_000, resetTimeout: 10_000 })
  })

  it('stores the failure without it', () => {
    expect(open(failing(3), now, defaults, tokens, asking(60_000)).lastFailure).toStrictEqual(timedOut)
  })

  it('forgets the time of the trip before', () => {
    const before = open(failing(3), now, defaults, tokens, asking(60_000))
    const again = open(before, now + 60_000, settings({ resetBackoff: 1 }), tokens, undefined)

    expect(again).toMatchObject({ retryAt: now + 70_000, resetTimeout: 10_000, lastFailure: timedOut })
  })
})

describe('opening for the second time in a row', () => {
  /** The token that makes this part of the 10 % that times differ by, up or down. */
  const epochOf = (part: number) => String.fromCharCode(1_000 * (1 + part))

  it.each([
    [0, 2, 0, 10_000],
    [1, 2, 0, 20_000],
    [2, 2, 0, 40_000],
    [2, 2, -1, 36_000],
    [2, 2, 1, 44_000],
    [2, 1.5, 0, 22_500],
    [4, 2, 1, 176_000],
    // No longer than maxResetTimeout …
    [5, 2, 0, 300_000],
    [most, 2, 0, 300_000],
    // … and not at all.
    [5, 1, 1, 10_000],
  ])(
    'stays open for longer: after %p trips, times %p, with %p of the jitter for %p ms',
    (trips, resetBackoff, part, lasts) => {
      const next = open(
        failing(3, { trips }),
        now,
        settings({ resetBackoff }),
        { version: 'v', epoch: epochOf(part) },
        timedOut,
      )

      expect(next).toMatchObject({ retryAt: now + lasts, resetTimeout: lasts })
    },
  )

  it('stays open for as long as the service asks where that is longer', () => {
    const next = open(failing(3, { trips: 1 }), now, defaults, tokens, { ...timedOut, retryAfter: 60_000 })

    expect(next.resetTimeout).toBe(60_000)
  })
})

describe('the part of the calls that is admitted after a close', () => {
  it.each([
    ['all of them where no probe has closed the circuit', undefined, 10_000, 0, 1],
    ['all of them where it is not to be ramped up', now, false, 0, 1],
    ['a tenth at once', now, 10_000, 0, 0.1],
    ['rising', now, 10_000, 5_000, 0.55],
    ['all of them in the end', now, 10_000, 10_000, 1],
    ['all of them where the clock has stepped back', now, 10_000, -1, 1],
  ] as const)('is %s', (_what, closedAt, rampUp, later, part) => {
    expect(admittedPart(closed({ closedAt }), now + later, rampUp)).toBeCloseTo(part, 9)
  })
})

describe('claiming a probe', () => {
  it('makes an open circuit half-open, with the claimant’s lease alone', () => {
    const record = opened({ retryAt: now, leases: [{ id: 'left over', expiresAt: now + 5 }], successCount: 7 })
    const lease = { id: 'mine', expiresAt: now + 30_000 }

    expect(claim(record, now, lease, defaults, tokens)).toMatchObject({
      state: 'HALF_OPEN',
      leases: [lease],
      successCount: 0,
      epoch: 'e-next',
      generation: 2,
      transitions: ['e-next'],
    })
  })

  it('adds a lease to a half-open circuit without a new epoch', () => {
    const record = halfOpen()
    const lease = { id: 'mine', expiresAt: now + 30_000 }

    const next = claim(record, now, lease, settings({ halfOpenMaxConcurrent: 2 }), tokens)

    expect(next).toEqual({ ...record, version: 'v-next', leases: [...record.leases, lease], updatedAt: now })
  })

  it('takes the place of those whose leases have expired', () => {
    const record = halfOpen({ leases: [{ id: 'dead', expiresAt: now }] })
    const lease = { id: 'mine', expiresAt: now + 30_000 }

    expect(claim(record, now, lease, defaults, tokens).leases).toEqual([lease])
  })

  // Whose lease is still in the record, its outcome counts: a slow prober is not given up without need.
  it('leaves those whose leases have expired alone while there is room', () => {
    const slow = { id: 'slow', expiresAt: now - 600_000 }
    const lease = { id: 'mine', expiresAt: now + 30_000 }
    const two = settings({ halfOpenMaxConcurrent: 2 })

    const next = claim(halfOpen({ leases: [slow] }), now, lease, two, tokens)

    expect(next.leases).toEqual([slow, lease])
    expect(settle(next, 'slow', 'success', now, two, tokens, undefined)?.state).toBe('CLOSED')
  })

  it('takes the place of the expired ones alone where there is no room', () => {
    const live = { id: 'live', expiresAt: now + 1 }
    const dead = { id: 'dead', expiresAt: now }
    const lease = { id: 'mine', expiresAt: now + 30_000 }
    const two = settings({ halfOpenMaxConcurrent: 2 })

    expect(claim(halfOpen({ leases: [dead, live] }), now, lease, two, tokens).leases).toEqual([live, lease])
  })
})

describe('settling a probe', () => {
  it('closes the circuit at the last success that was needed, with empty counters', () => {
    const record = halfOpen({ successCount: 1, trips: 2 })

    const next = settle(record, 'lease-1', 'success', now, settings({ halfOpenSuccessThreshold: 2 }), tokens, undefined)

    expect(next).toMatchObject({
      state: 'CLOSED',
      failureCount: 0,
      successCount: 0,
      leases: [],
      openedAt: undefined,
      retryAt: undefined,
      resetTimeout: undefined,
      closedAt: now,
      epoch: 'e-next',
      generation: 3,
    })
  })

  it('closes the circuit also when more successes were counted than are needed', () => {
    const next = settle(halfOpen({ successCount: 5 }), 'lease-1', 'success', now, defaults, tokens, undefined)

    expect(next?.state).toBe('CLOSED')
  })

  it('counts a success and gives the lease back while more are needed', () => {
    const next = settle(
      halfOpen(),
      'lease-1',
      'success',
      now,
      settings({ halfOpenSuccessThreshold: 2 }),
      tokens,
      undefined,
    )

    expect(next).toMatchObject({ state: 'HALF_OPEN', successCount: 1, leases: [], epoch: 'e-1', version: 'v-next' })
  })

  it('opens the circuit again on a failure, with a new retryAt', () => {
    const next = settle(halfOpen(), 'lease-1', 'failure', now, settings({ resetBackoff: 1 }), tokens, timedOut)

    expect(next).toMatchObject({
      state: 'OPEN',
      openedAt: now,
      retryAt: now + 10_000,
      trips: 2,
      failureCount: 4,
      lastFailureAt: now,
      lastFailure: timedOut,
      leases: [],
      epoch: 'e-next',
    })
  })

  it('gives the lease back and counts nothing on a release', () => {
    const next = settle(halfOpen(), 'lease-1', 'release', now, defaults, tokens, undefined)

    expect(next).toEqual({ ...halfOpen(), version: 'v-next', leases: [], updatedAt: now })
  })

  it('leaves the circuit half-open on a release, however many successes others have counted', () => {
    const record = halfOpen({ successCount: 5 })

    expect(settle(record, 'lease-1', 'release', now, defaults, tokens, undefined)).toMatchObject({
      state: 'HALF_OPEN',
      successCount: 5,
      leases: [],
    })
  })

  it('leaves the leases of other probes alone', () => {
    const other = { id: 'lease-2', expiresAt: now + 1_000 }
    const record = halfOpen({ leases: [...halfOpen().leases, other] })

    expect(settle(record, 'lease-1', 'release', now, defaults, tokens, undefined)?.leases).toEqual([other])
  })

  it('counts a probe that took longer than its lease, as long as nobody took its place', () => {
    const record = halfOpen({ leases: [{ id: 'slow', expiresAt: now - 600_000 }] })

    expect(settle(record, 'slow', 'success', now, defaults, tokens, undefined)?.state).toBe('CLOSED')
  })

  it.each(['success', 'failure', 'release'] as const)('ignores a %s whose lease is not in the record', (outcome) => {
    expect(settle(halfOpen(), 'taken over', outcome, now, defaults, tokens, timedOut)).toBeUndefined()
  })

  it.each([closed, opened])('ignores a probe of a circuit that is no longer half-open', (record) => {
    const stale = record({ leases: halfOpen().leases })

    expect(settle(stale, 'lease-1', 'success', now, defaults, tokens, undefined)).toBeUndefined()
  })
})

describe('a change of state', () => {
  it.each([
    ['a trip', (record: CircuitRecord) => open(record, now, defaults, tokens, timedOut)],
    ['a close', (record: CircuitRecord) => close(record, now, tokens)],
    ['an override', (record: CircuitRecord) => force(record, { state: 'OPEN', at: now }, defaults, tokens)],
  ])('that is %s ends the suspicion and its sample', (_what, change) => {
    const sample = { suspectedAt: now, successCount: 1, startedCount: 4, earlyCount: 2 }

    expect(change(closed(sample))).toMatchObject({
      suspectedAt: undefined,
      successCount: 0,
      startedCount: 0,
      earlyCount: 0,
    })
  })

  it('leaves what the fleet has learnt, until a reset', () => {
    const lesson = { dismissals: 2.5, dismissedAt: 1, noise: 0.1, pace: 9 }
    const next = open(closed({ ...lesson, othersAt: 2 }), now, defaults, tokens, timedOut)

    expect(next).toMatchObject({ ...lesson, othersAt: 2 })
    expect(reset(next, now, tokens)).toMatchObject({
      dismissals: 0,
      dismissedAt: undefined,
      noise: undefined,
      pace: undefined,
    })
  })

  it('keeps the epochs of the last 8 transitions', () => {
    const transitions = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']

    expect(close(halfOpen({ transitions }), now, tokens).transitions).toEqual([...transitions.slice(1), 'e-next'])
  })
})
