import { describe, expect, it } from '@jest/globals'
import { ProbeClaims } from '../../../src/circuit/probe-claims.ts'
import type { Replacement, Step } from '../../../src/circuit/step.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

/** Claims whose ids are `id1`, `id2`, … */
function claimsWith(settings: Partial<ServiceSettings> = {}, isShared = true): ProbeClaims {
  let ids = 0
  return new ProbeClaims('stripe', { ...defaults, ...settings }, () => `id${++ids}`, isShared)
}

const due = circuitRecord({
  state: 'OPEN',
  version: 'v1',
  epoch: 'e1',
  openedAt: 0,
  retryAt: 10_000,
  resetTimeout: 10_000,
})

function halfOpen(...leases: string[]): CircuitRecord {
  return { ...due, state: 'HALF_OPEN', version: 'v2', leases: leases.map((id) => ({ id, expiresAt: 40_000 })) }
}

const wish = { duration: 30_000, requestId: 'r1', looksFirst: false }

function replacement(step: Step | undefined): Replacement {
  if (step?.kind !== 'replace') throw new Error(`This is no replacement: ${JSON.stringify(step)}`)
  return step
}

describe('a wish for a probe', () => {
  it('asks for a lease on condition that the record is still the one that is known', () => {
    const claims = claimsWith()
    claims.wish(wish)
    const write = replacement(claims.next(due, 10_000, true))
    expect(write).toMatchObject({ version: 'v1', cause: { kind: 'claim' } })
    expect(write.next).toMatchObject({ state: 'HALF_OPEN', leases: [{ id: 'id1', expiresAt: 40_000 }] })
    expect(write.change).toMatchObject({ from: 'OPEN', to: 'HALF_OPEN', reason: 'probe-started', requestId: 'r1' })
  })

  it.each([
    ['tells who opened the circuit that others exist', false, 10_000],
    ['of the one that opened it tells nothing', true, undefined],
  ])('%s', (_what, isInvolved, othersAt) => {
    const claims = claimsWith()
    if (isInvolved) claims.involve()
    claims.wish(wish)
    expect(replacement(claims.next(due, 10_000, true)).next.othersAt).toBe(othersAt)
  })

  it('looks at the record first, once, where it may have changed', () => {
    const claims = claimsWith()
    claims.wish({ ...wish, looksFirst: true })
    expect(claims.next(due, 10_000, true)).toEqual({ kind: 'read' })
    expect(claims.next(due, 10_000, true)?.kind).toBe('replace')
  })

  it('keeps the id of its lease and of its epoch over all attempts', () => {
    const claims = claimsWith()
    claims.wish(wish)
    const first = replacement(claims.next(due, 10_000, true))
    const second = replacement(claims.next({ ...due, version: 'v9' }, 10_001, true))
    expect(second.version).toBe('v9')
    expect([second.next.epoch, second.next.leases[0]?.id]).toEqual([first.next.epoch, first.next.leases[0]?.id])
    expect(second.next.version).not.toBe(first.next.version)
  })

  it.each([
    ['this instance would not probe', due, false],
    ['nothing is stored', undefined, true],
    ['the record says that others probe', halfOpen('theirs'), true],
    ['the record is closed', circuitRecord(), true],
  ])('is over where %s, and answered', (_name, record, mayClaim) => {
    const claims = claimsWith()
    claims.asked()
    claims.wish(wish)
    expect([claims.next(record, 10_000, mayClaim), claims.unanswered]).toEqual([undefined, 0])
    expect(claims.next(due, 10_000, true)).toBeUndefined()
  })

  it('is over when it is withdrawn, and not answered', () => {
    const claims = claimsWith()
    claims.asked()
    claims.wish(wish)
    claims.withdraw()
    expect([claims.next(due, 10_000, true), claims.unanswered]).toEqual([undefined, 1])
  })

  it('asks for a lease of 15 minutes at most', () => {
    expect(claimsWith().leaseUntil('id', 1_000, Number.POSITIVE_INFINITY)).toEqual({ id: 'id', expiresAt: 901_000 })
  })
})

describe('a lease', () => {
  function asking(): ProbeClaims {
    const claims = claimsWith()
    claims.wish(wish)
    claims.next(due, 10_000, true)
    return claims
  }

  it('is granted by the record that lists it, and handed out once', () => {
    const claims = asking()
    claims.arrived(halfOpen('id1'))
    expect([claims.hasReady, claims.isReady(halfOpen('id1'), 10_000)]).toEqual([true, true])
    expect([claims.takeReady(), claims.takeReady()]).toEqual(['id1', undefined])
    claims.arrived(halfOpen('id1'))
    expect(claims.hasReady).toBe(false)
  })

  it('ends the wish', () => {
    const claims = asking()
    claims.arrived(halfOpen('id1'))
    expect(claims.next(halfOpen('id1'), 10_000, true)).toBeUndefined()
    claims.takeReady()
    expect(claims.next(due, 10_000, true)).toBeUndefined()
  })

  it('is not ready when it has expired, or is gone from the record', () => {
    const claims = asking()
    claims.arrived(halfOpen('id1'))
    expect([claims.isReady(halfOpen('id1'), 40_000), claims.isReady(halfOpen(), 10_000)]).toEqual([false, false])
    expect(claims.isReady(undefined, 10_000)).toBe(false)
    claims.dropReady()
    expect(claims.hasReady).toBe(false)
  })

  it.each([
    ['a record that has lost it', halfOpen('theirs')],
    ['a record that was deleted', undefined],
  ])('is forgotten with %s', (_name, record) => {
    const claims = asking()
    claims.arrived(halfOpen('id1'))
    claims.arrived(record)
    expect(claims.hasReady).toBe(false)
  })

  it.each([
    ['lists it', ['id1'], true],
    ['lists another', ['theirs'], false],
    ['lists none', [], false],
  ])(
    'that is granted in the next epoch is found there, in a later one it is not: the first record %s',
    (_name, leases, isGranted) => {
      const claims = asking()
      claims.epochBegan(halfOpen(...leases), false)
      claims.arrived(halfOpen('id1'))
      expect(claims.hasReady).toBe(isGranted)
    },
  )
})

describe('claims are spread', () => {
  it.each([
    [10_000, 1, true, 500],
    [10_000, 0.5, true, 250],
    [60_000, 1, true, 1_000],
    [60_000, 1, false, 0],
  ])(
    'with a resetTimeout of %p and a random number of %p, shared: %p, by %p ms',
    (resetTimeout, random, isShared, delay) => {
      const claims = claimsWith({ resetTimeout }, isShared)
      claims.drawDelay(() => random)
      expect(claims.delayAt(due, 10_000)).toBe(delay)
    },
  )

  it.each([
    ['knows of it', {}, true, false, 9_999, false, true],
    ['opened it', {}, true, true, 9_999, false, false],
    ['has read the record since it is due', {}, true, false, 10_000, false, false],
    ['is to read the record again', {}, true, false, 9_999, true, false],
    ['reads so seldom that the circuit would stay open', { cacheTtl: 5_001 }, true, false, 9_999, false, false],
    ['has its store to itself', {}, false, false, 9_999, false, false],
  ])(
    'an instance that %s leaves them to others or not',
    (_name, settings, isShared, isInvolved, readAt, isStale, leaves) => {
      const claims = claimsWith(settings, isShared)
      if (isInvolved) claims.involve()
      expect(claims.leavesToOthers(due, readAt, isStale)).toBe(leaves)
    },
  )
})

describe('an instance that opened the circuit, or failed the last probe, lets others probe first', () => {
  it.each([
    ['for a cacheTtl where others are known', {}, true, { othersAt: 0 }, 5_000],
    ['for as long as others take to look where none is', {}, true, {}, 1_000],
    ['for a tenth of a short resetTimeout', { resetTimeout: 2_000 }, true, {}, 200],
    ['not where it has its store to itself', {}, false, { othersAt: 0 }, 0],
  ])('%s', (_how, settings, isShared, fields, delay) => {
    const claims = claimsWith(settings, isShared)
    claims.involve()
    claims.drawDelay(() => 1)
    expect(claims.delayAt({ ...due, ...fields }, 10_000)).toBe(delay)
  })

  it.each([
    ['closed again', circuitRecord(), false, false],
    ['deleted', undefined, false, false],
    ['open again', due, false, true],
    ['the same as before its first record', circuitRecord(), true, true],
  ])('until the circuit has closed; where it is %s', (_name, record, isContinued, isInvolved) => {
    const claims = claimsWith()
    expect(claims.isInvolved).toBe(false)
    claims.involve()
    claims.epochBegan(record, isContinued)
    expect(claims.isInvolved).toBe(isInvolved)
  })
})

describe('claims that the store leaves unanswered', () => {
  it.each([
    ['one is answered', (claims: ProbeClaims) => claims.answered()],
    ['the fleet is in another epoch', (claims: ProbeClaims) => claims.epochBegan(undefined, false)],
  ])('are counted until %s', (_what, happens) => {
    const claims = claimsWith()
    claims.asked()
    claims.asked()
    expect(claims.unanswered).toBe(2)
    happens(claims)
    expect(claims.unanswered).toBe(0)
  })
})

describe('an instance that opened the circuit, and knows no others, waits', () => {
  it.each([
    ['for a look after its first trip', 1, 20_000, 1_000],
    ['for a tenth of the time that its trips have made longer', 2, 20_000, 2_000],
    ['for a tenth of resetTimeout where none is stored', 2, undefined, 3_000],
    ['for cacheTtl at most', 2, 100_000, 5_000],
  ])('%s', (_how, trips, resetTimeout, delay) => {
    const claims = claimsWith({ resetTimeout: 30_000 })
    claims.involve()
    expect(claims.delayAt({ ...due, trips, resetTimeout }, 10_000)).toBe(delay)
  })
})

describe('an instance whose probe has failed lets others go on', () => {
  const others = { ...halfOpen('id1'), othersAt: 10_000, updatedAt: 10_000 }

  function involved(): ProbeClaims {
    const claims = claimsWith()
    claims.involve()
    return claims
  }

  it('in a half-open circuit alone', () => {
    expect(involved().yields(others, others, 10_000)).toBe(true)
    expect(involved().yields({ ...others, state: 'OPEN' }, others, 10_000)).toBe(false)
  })

  it('not with a lease that lies ready', () => {
    const claims = involved()
    claims.wish(wish)
    claims.next(due, 10_000, true)
    claims.arrived(others)
    expect([claims.hasReady, claims.yields(others, others, 10_000)]).toEqual([true, false])
  })
})

describe('a claim', () => {
  it('needs a look until it has had one', () => {
    const claims = claimsWith()
    expect(claims.isReadyToAsk).toBe(false)
    claims.wish({ ...wish, looksFirst: true })
    expect(claims.isReadyToAsk).toBe(false)
    claims.next(due, 10_000, true)
    expect(claims.isReadyToAsk).toBe(true)
    expect(replacement(claims.next(due, 10_000, true)).next.leases[0]?.expiresAt).toBe(40_000)
  })

  it('that was throttled is no unanswered one, until the store answers', () => {
    const claims = claimsWith()
    expect(claims.wasThrottled).toBe(false)
    claims.asked()
    claims.throttled()
    expect([claims.unanswered, claims.wasThrottled]).toEqual([0, true])
    claims.answered()
    expect(claims.wasThrottled).toBe(false)
  })

  it('that is granted late belongs to the probe that was run without it, and to its end', () => {
    const claims = claimsWith()
    claims.wish(wish)
    claims.next(due, 10_000, true)
    const lease = claims.goesAlone(10_000, 30_000)
    expect(lease).toEqual({ id: 'id1', expiresAt: 40_000 })
    const settlement = { leaseId: 'id1', outcome: 'success', at: 10_100, lastFailure: undefined } as const
    const ended = { ...settlement, requestId: 'r1', epoch: 'e9', isSecondOpinion: true }
    claims.endedAlone(ended)
    expect(claims.arrived(halfOpen('id1'))).toEqual(ended)
    expect([claims.arrived(halfOpen('id1')), claims.hasReady]).toEqual([undefined, false])
  })

  it('that is granted while the probe without it runs does not lie ready', () => {
    const claims = claimsWith()
    claims.wish(wish)
    claims.next(due, 10_000, true)
    claims.goesAlone(10_000, 30_000)
    expect([claims.arrived(halfOpen('id1')), claims.hasReady]).toEqual([undefined, false])
  })
})
