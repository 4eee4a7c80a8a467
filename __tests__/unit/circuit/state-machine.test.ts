import { describe, expect, it } from '@jest/globals'
import {
  activeOverride,
  admit,
  type CountDecision,
  claim,
  clockTolerance,
  close,
  decideCount,
  effectiveState,
  force,
  liveFailureCount,
  liveLeases,
  type MachineSettings,
  maxLease,
  type Outcomes,
  open,
  reset,
  retryTime,
  setFailureCount,
  settle,
  type Tokens,
} from '../../../src/circuit/state-machine.ts'
import type { CircuitRecord, FailureSummary } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'

const now = 1_800_000_000_000

const defaults: MachineSettings = {
  failureThreshold: 3,
  resetTimeout: 10_000,
  halfOpenSuccessThreshold: 1,
  halfOpenMaxConcurrent: 1,
  window: 60_000,
  maxResetTimeout: 300_000,
}

const tokens: Tokens = { version: 'v-next', epoch: 'e-next' }

const timedOut: FailureSummary = { at: now, name: 'TimeoutError', code: 'ETIMEDOUT' }

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

function failures(count: number, changes: Partial<Outcomes> = {}): Outcomes {
  return { success: false, failures: count, at: now, lastFailure: timedOut, ...changes }
}

const oneSuccess: Outcomes = { success: true, failures: 0, at: now, lastFailure: undefined }

function nextOf(decision: CountDecision): CircuitRecord {
  if (decision.kind === 'replace' || decision.kind === 'trip') return decision.next
  throw new Error(`Expected a record to be written, but the decision is "${decision.kind}".`)
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

  it.each(['OPEN', 'CLOSED'] as const)('keeps outcomes from being written while it is %s', (state) => {
    const override = { state, at: now - 1, until: now + 1 }

    expect(decideCount(failing(2, { override }), failures(5), now, defaults, tokens)).toEqual({ kind: 'nothing' })
    expect(decideCount(failing(2, { override }), oneSuccess, now, defaults, tokens)).toEqual({ kind: 'nothing' })
    expect(settle(halfOpen({ override }), 'lease-1', 'failure', now, defaults, tokens, timedOut)).toBeUndefined()
  })

  it('keeps an outcome from being written that is older than it', () => {
    const override = { state: 'CLOSED', at: now - 10, until: now + 1 } as const
    const late = failures(5, { at: now - 20 })

    expect(decideCount(failing(2, { override }), late, now, defaults, tokens)).toEqual({ kind: 'nothing' })
  })

  it('lets an outcome that waited for its end be written', () => {
    const override = { state: 'CLOSED', at: now - 10, until: now } as const
    const late = failures(1, { at: now - 5 })

    expect(decideCount(failing(2, { override }), late, now, defaults, tokens).kind).toBe('trip')
  })

  it('lets outcomes be written again when it has ended', () => {
    const override = { state: 'CLOSED', at: now - 5, until: now } as const

    expect(nextOf(decideCount(failing(2, { override }), failures(1), now, defaults, tokens))).toMatchObject({
      state: 'OPEN',
      override: undefined,
    })
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
  const most = Number.MAX_SAFE_INTEGER
  const largest = { failureCount: most, successCount: most, generation: most, trips: most }
  const countsOf = ({ failureCount, successCount, generation, trips }: CircuitRecord) => [
    failureCount,
    successCount,
    generation,
    trips,
  ]

  it('trips with counts that stay numbers which a record can hold', () => {
    const tripped = nextOf(decideCount(failing(most, largest), failures(2), now, defaults, tokens))

    expect(countsOf(tripped)).toEqual([most, 0, most, most])
  })

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

  it('has no streak if its last failure lies further ahead than clocks may be apart', () => {
    const at = (lastFailureAt: number) => closed({ failureCount: 2, lastFailureAt })

    expect(liveFailureCount(at(now + clockTolerance), now, 60_000)).toBe(2)
    expect(liveFailureCount(at(now + clockTolerance + 1), now, 60_000)).toBe(0)
  })
})

describe('counting failures', () => {
  it('adds a failure to a streak that still holds', () => {
    expect(decideCount(failing(1), failures(1), now, defaults, tokens)).toEqual({ kind: 'increment', at: now })
  })

  it('adds the first failure of a circuit that nothing is stored for', () => {
    expect(decideCount(emptyRecord('e-1', now), failures(1), now, defaults, tokens)).toEqual({
      kind: 'increment',
      at: now,
    })
  })

  it.each([
    ['exactly the threshold', failing(2), failures(1)],
    ['more than the threshold, after concurrent increments', failing(2), failures(7)],
    ['the failures of one instance alone', closed(), failures(3)],
    ['a streak whose author died before tripping', failing(3), failures(1)],
    ['the failures that followed a success', failing(1), failures(3, { success: true })],
  ])('opens the circuit at %s', (_what, record, outcomes) => {
    const decision = decideCount(record, outcomes, now, defaults, tokens)

    expect(decision.kind).toBe('trip')
    expect(nextOf(decision)).toMatchObject({
      state: 'OPEN',
      epoch: 'e-next',
      version: 'v-next',
      openedAt: now,
      retryAt: now + 10_000,
      resetTimeout: 10_000,
      trips: 1,
      lastFailure: timedOut,
      lastFailureAt: now,
      transitions: ['e-next'],
    })
  })

  it('keeps the whole count in the record that it opens', () => {
    expect(nextOf(decideCount(failing(2), failures(7), now, defaults, tokens)).failureCount).toBe(9)
  })

  it('opens at the first failure with a threshold of 1', () => {
    expect(decideCount(closed(), failures(1), now, settings({ failureThreshold: 1 }), tokens).kind).toBe('trip')
  })

  it('counts a streak up to the last millisecond of the window', () => {
    expect(decideCount(failing(2, { lastFailureAt: now - 60_000 }), failures(1), now, defaults, tokens).kind).toBe(
      'trip',
    )
  })

  it('begins a new streak after an idle gap longer than the window', () => {
    const decision = decideCount(failing(2, { lastFailureAt: now - 60_001 }), failures(1), now, defaults, tokens)

    expect(decision.kind).toBe('replace')
    expect(nextOf(decision)).toMatchObject({ state: 'CLOSED', failureCount: 1, lastFailureAt: now, epoch: 'e-1' })
  })

  it('treats a count without an instant as no streak', () => {
    expect(
      nextOf(decideCount(failing(2, { lastFailureAt: undefined }), failures(1), now, defaults, tokens)),
    ).toMatchObject({
      failureCount: 1,
    })
  })

  it('counts anew the failures that followed a success', () => {
    const decision = decideCount(failing(2), failures(2, { success: true }), now, defaults, tokens)

    expect(decision.kind).toBe('replace')
    expect(nextOf(decision)).toMatchObject({ state: 'CLOSED', failureCount: 2 })
  })

  it('adds failures after a success where there was nothing to end', () => {
    expect(decideCount(closed(), failures(2, { success: true }), now, defaults, tokens)).toEqual({
      kind: 'increment',
      at: now,
    })
  })

  it.each([opened(), halfOpen()])('writes nothing for a circuit that is not closed', (record) => {
    expect(decideCount(record, failures(9), now, defaults, tokens)).toEqual({ kind: 'nothing' })
    expect(decideCount(record, oneSuccess, now, defaults, tokens)).toEqual({ kind: 'nothing' })
  })

  // A batch keeps the time of its failures; while it waited for the store, others may have failed.
  it('adds failures that waited to a streak that others have renewed since', () => {
    const tenMinutes = 600_000
    const wide = settings({ failureThreshold: 10, window: 3_600_000 })
    const record = failing(8, { lastFailureAt: now })

    expect(decideCount(record, failures(1, { at: now - tenMinutes }), now, wide, tokens)).toEqual({
      kind: 'increment',
      at: now,
    })
  })
  it.each([
    ['is added', failing(1), failures(1, { at: now - 30_000 })],
    ['ends the streak', failing(1), { ...oneSuccess, at: now - 30_000 }],
    ['begins it anew', failing(1), failures(2, { at: now - 30_000, success: true })],
    ['trips without saying what failed', failing(2), failures(1, { at: now - 30_000, lastFailure: undefined })],
  ])('never takes a streak back in time: a late outcome that %s', (_what, record, outcomes) => {
    const decision = decideCount(record, outcomes, now, defaults, tokens)

    if (decision.kind === 'increment') expect(decision.at).toBe(record.lastFailureAt)
    else expect(nextOf(decision)).toMatchObject({ lastFailureAt: now - 1_000 })
  })

  it('never takes a streak back in time: a late outcome that trips and says what failed', () => {
    const at = now - 30_000

    const decision = decideCount(
      failing(2),
      failures(1, { at, lastFailure: { ...timedOut, at } }),
      now,
      defaults,
      tokens,
    )

    expect(nextOf(decision).lastFailureAt).toBe(now - 1_000)
  })

  it('keeps the time of a failure that waited where there is no streak', () => {
    const late = failures(1, { at: now - 30_000 })

    expect(decideCount(closed(), late, now, defaults, tokens)).toEqual({ kind: 'increment', at: now - 30_000 })
  })

  it('gives a new streak its own time, whatever a broken clock wrote of the one before', () => {
    const record = failing(2, { lastFailureAt: now + 3_600_000 })

    expect(nextOf(decideCount(record, failures(1), now, defaults, tokens))).toMatchObject({
      failureCount: 1,
      lastFailureAt: now,
    })
  })

  it('judges at the time of the decision, not of the outcome, whether a streak still holds', () => {
    const late = failures(1, { at: now - 30_000 })

    const decision = decideCount(failing(2, { lastFailureAt: now - 60_001 }), late, now, defaults, tokens)

    expect(decision.kind).toBe('replace')
    expect(nextOf(decision)).toMatchObject({ state: 'CLOSED', failureCount: 1, lastFailureAt: now - 30_000 })
  })
})

describe('counting successes', () => {
  it('ends a streak', () => {
    const decision = decideCount(failing(2), oneSuccess, now, defaults, tokens)

    expect(decision.kind).toBe('replace')
    expect(nextOf(decision)).toMatchObject({ failureCount: 0, version: 'v-next', epoch: 'e-1', generation: 0 })
  })

  it('leaves the time of the last failure as it is', () => {
    expect(nextOf(decideCount(failing(2), oneSuccess, now, defaults, tokens)).lastFailureAt).toBe(now - 1_000)
  })

  it('writes nothing for a healthy circuit', () => {
    expect(decideCount(closed(), oneSuccess, now, defaults, tokens)).toEqual({ kind: 'nothing' })
  })

  it('writes nothing for a streak that ended by itself', () => {
    expect(decideCount(failing(2, { lastFailureAt: now - 60_001 }), oneSuccess, now, defaults, tokens).kind).toBe(
      'nothing',
    )
  })

  it('writes nothing where nothing happened', () => {
    expect(decideCount(failing(2), { ...oneSuccess, success: false }, now, defaults, tokens).kind).toBe('nothing')
  })
})

describe('the count of consecutive trips', () => {
  it('grows with each trip', () => {
    expect(open(halfOpen({ trips: 4 }), now, defaults, tokens, timedOut).trips).toBe(5)
  })

  it('survives a close', () => {
    expect(close(halfOpen({ trips: 4 }), now, tokens).trips).toBe(4)
  })

  it('grows on a trip within a window of the last', () => {
    expect(nextOf(decideCount(failing(2, { trips: 4 }), failures(1), now, defaults, tokens)).trips).toBe(5)
  })

  it('begins anew on a trip after a failure-free window', () => {
    const quiet = { trips: 4, lastFailureAt: now - 60_001, updatedAt: now - 60_001 }

    expect(nextOf(decideCount(failing(0, quiet), failures(3), now, defaults, tokens)).trips).toBe(1)
  })

  it('is ended by the first failure after a failure-free window', () => {
    const quiet = { trips: 4, lastFailureAt: now - 60_001, updatedAt: now - 60_001 }

    const decision = decideCount(failing(0, quiet), failures(1), now, defaults, tokens)

    expect(decision.kind).toBe('replace')
    expect(nextOf(decision)).toMatchObject({ trips: 0, failureCount: 1 })
  })

  it('is kept at a first failure within the window, which is added without replacing the record', () => {
    const record = closed({ trips: 1 })

    expect(decideCount(record, failures(1), now, defaults, tokens)).toEqual({ kind: 'increment', at: now })
  })

  it('is no reason to replace the record after a failure-free window where there was no trip', () => {
    const record = closed({ updatedAt: now - 3_600_000 })

    expect(decideCount(record, failures(1), now, defaults, tokens)).toEqual({ kind: 'increment', at: now })
  })

  it('is kept when a streak is ended within the window', () => {
    expect(setFailureCount(failing(2, { trips: 4 }), 0, now, defaults, tokens).trips).toBe(4)
  })

  it('is kept while the last failure is recent, however old the last write', () => {
    const record = failing(1, { trips: 4, updatedAt: now - 60_001 })

    expect(setFailureCount(record, 2, now, defaults, tokens).trips).toBe(4)
  })

  it('is ended where no failure was ever recorded and the last write is old', () => {
    const record = closed({ trips: 4, updatedAt: now - 60_001 })

    expect(setFailureCount(record, 1, now, defaults, tokens).trips).toBe(0)
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
    const again = open(before, now + 60_000, defaults, tokens, undefined)

    expect(again).toMatchObject({ retryAt: now + 70_000, resetTimeout: 10_000, lastFailure: timedOut })
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
    const next = settle(halfOpen(), 'lease-1', 'failure', now, defaults, tokens, timedOut)

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
  it('keeps the epochs of the last 8 transitions', () => {
    const transitions = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']

    expect(close(halfOpen({ transitions }), now, tokens).transitions).toEqual([...transitions.slice(1), 'e-next'])
  })
})
