import { describe, expect, it } from '@jest/globals'
import { CachedRecord, holds } from '../../../src/circuit/cached-record.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const settings = { cacheTtl: 5_000, resetTimeout: 10_000, maxResetTimeout: 300_000 }

function cached(random = 0, own: Partial<typeof settings> = {}): CachedRecord {
  return new CachedRecord({ ...settings, ...own }, () => random)
}

const refused = { applied: false, current: undefined }

function replacing(version: string | undefined) {
  return { kind: 'replace', version } as const
}

describe('the condition of a write holds', () => {
  it.each([
    ['of the version that it names', 'v1', [false, true]],
    ['of another version', 'v2', [false, false]],
    ['of nothing where it names none', undefined, [true, false]],
  ])('%s, or not', (_name, version, held) => {
    expect([undefined, circuitRecord({ version: 'v1' })].map((record) => holds({ version }, record))).toEqual(held)
  })
})

describe('a cached record is stale', () => {
  it('before anything was read', () => {
    expect([cached().isStale(0), cached().isAging(0), cached().current]).toEqual([true, true, undefined])
  })

  it.each([
    [0, 999, true],
    [0, 1_000, false],
    [0, 4_999, false],
    [0, 5_000, true],
    [1, 5_999, false],
    [1, 6_000, true],
  ])('from 0.8 to 1 cacheTtl after the read left; with %p at %p: %p', (random, now, isStale) => {
    const record = cached(random)
    record.take(circuitRecord(), 1_000)
    expect(record.isStale(now)).toBe(isStale)
  })

  it.each([
    [999, true],
    [1_000, false],
    [4_999, false],
    [5_000, true],
  ])('nearly, whatever was drawn, from 0.8 cacheTtl on; at %p: %p', (now, isAging) => {
    const record = cached(1)
    record.take(circuitRecord(), 1_000)
    expect(record.isAging(now)).toBe(isAging)
  })

  it('when its lifetime is over, also where it is damaged', () => {
    const record = cached()
    record.damaged(1_000)
    expect([record.isDamaged, record.isStale(4_999), record.isStale(5_000)]).toEqual([true, false, true])
  })

  it('as before, where a write has found the damage', () => {
    const record = cached()
    record.take(undefined, 1_000)
    record.damaged()
    expect([record.isDamaged, record.readAt]).toEqual([true, 1_000])
  })
})

describe('the record of an open circuit is looked at', () => {
  /** From when on a record is stale that was read at a time, in milliseconds after its `retryAt`. */
  function looksAt(
    readAt: number,
    { random = 0, pace = 0, ...own }: Partial<typeof settings> & { random?: number; pace?: number },
  ) {
    const record = cached(random, own)
    record.take(circuitRecord({ state: 'OPEN', openedAt: 0, retryAt: 10_000, pace }), 10_000 + readAt)
    return record.staleAt - 10_000
  }

  it.each([
    ['at retryAt, or up to a second later', -10, {}, 0],
    ['at retryAt, or up to a second later', -10, { random: 0.5 }, 500],
    ['within a tenth of a short resetTimeout', -10, { random: 0.5, resetTimeout: 2_000 }, 100],
    ['again half a second later', 0, { random: 1 }, 500],
    ['again half a second later', 400, { random: 1 }, 900],
    ['then at growing intervals', 2_000, { random: 1 }, 4_000],
    ['with jitter', 2_000, { random: 0 }, 3_600],
    ['after cacheTtl at the latest', -9_000, {}, -5_000],
    ['after cacheTtl at the latest', 20_000, { random: 1 }, 25_000],
    ['so soon by all of a fleet of 1,500', -10, { random: 0.999, pace: 300 }, 999],
    ['by a part of a larger one', -10, { random: 0.5, pace: 600 }, 4_490],
    ['by that part', -10, { random: 0.49, pace: 600 }, 490],
  ])('%s: read %p ms after it, with %p, %p ms after it', (_when, readAt, own, expected) => {
    expect(looksAt(readAt, own)).toBeCloseTo(expected, 6)
  })

  it('when maxResetTimeout is over, whatever is stored', () => {
    expect(looksAt(-10_000 + 4_000, { maxResetTimeout: 5_000 })).toBe(-5_000)
  })

  it.each([
    ['closed', { state: 'CLOSED', retryAt: 10_000 }],
    ['open without a retryAt', { state: 'OPEN' }],
  ] as const)('no sooner where it is %s', (_what, fields) => {
    const record = cached(1)
    record.take(circuitRecord(fields), 9_990)
    expect(record.staleAt).toBe(14_990)
  })
})

describe('an answer', () => {
  it('to a read is late where another one was believed since the read left', () => {
    const record = cached()
    const [first, second] = [record.begin(0), record.begin(1)]
    expect(record.isLate(first)).toBe(false)
    record.take(undefined, 0)
    expect([record.isLate(first), record.isLate(second), record.isLate(record.begin(2))]).toEqual([true, true, false])
  })

  it('to a replacement is believed where nothing came since, or the cache holds the version that it was conditional on', () => {
    const record = cached()
    record.take(circuitRecord({ version: 'v1' }), 0)
    const exchange = record.begin(1)
    expect(record.isOvertaken(exchange, replacing('v0'), refused)).toBe(false)
    record.take(circuitRecord({ version: 'v1', failureCount: 2 }), 1)
    const overtaken = ['v1', 'v0'].map((version) => record.isOvertaken(exchange, replacing(version), refused))
    expect(overtaken).toEqual([false, true])
    const reply = { applied: true, current: circuitRecord({ version: 'v2' }) }
    expect(record.isOvertaken(exchange, replacing('v1'), reply)).toBe(false)
  })

  it.each([
    ['counted more than the cache holds', { failureCount: 3 }, 'v1', true, false],
    ['counted as much', {}, 'v1', true, false],
    ['counted less: a read has seen more failures since', { failureCount: 1 }, 'v1', true, true],
    ['counted less: a read has seen more successes since', { successCount: 1 }, 'v1', true, true],
    ['counted less: a read has seen more beginnings since', { startedCount: 1 }, 'v1', true, true],
    ['counted less: a read has seen more who ran into it', { earlyCount: 1 }, 'v1', true, true],
    ['counted less: a read has seen more reporters', { reporterCount: 1 }, 'v1', true, true],
    ['counted in a version that is gone', { failureCount: 9 }, 'v0', true, true],
    ['was refused, and the cache holds the version that it was conditional on', {}, 'v9', false, false],
  ])('to an addition that %s', (_name, counts, version, applied, isOvertaken) => {
    const record = cached()
    const exchange = record.begin(0)
    const sample = { failureCount: 2, successCount: 2, startedCount: 2, earlyCount: 2, reporterCount: 2 }
    record.take(circuitRecord({ version: 'v1', ...sample }), 1)
    const reply = { applied, current: circuitRecord({ version, ...sample, ...counts }) }
    expect(record.isOvertaken(exchange, { kind: 'add', version: 'v1' }, reply)).toBe(isOvertaken)
  })

  it('to an addition does not bring back a record that was seen to be gone', () => {
    const record = cached()
    record.take(circuitRecord({ version: 'v1' }), 0)
    const exchange = record.begin(1)
    record.take(undefined, 2)
    const reply = { applied: true, current: circuitRecord({ version: 'v1', failureCount: 1 }) }
    expect(record.isOvertaken(exchange, { kind: 'add', version: 'v1' }, reply)).toBe(true)
  })

  it('to anything that left before a deletion is void, though nothing is stored again', () => {
    const record = cached()
    const before = record.begin(0)
    record.take(undefined, 1)
    record.cleared()
    expect([
      record.isOvertaken(before, replacing(undefined), refused),
      record.isOvertaken(record.begin(2), replacing(undefined), refused),
    ]).toEqual([true, false])
  })

  it('ends the damage', () => {
    const record = cached()
    record.damaged()
    record.take(undefined, 0)
    expect(record.isDamaged).toBe(false)
  })
})

describe('an instance is out of touch', () => {
  it('from a doubt until a read that left after it is answered', () => {
    const record = cached()
    const before = record.begin(0)
    expect(record.isOutOfTouch).toBe(false)
    record.doubt()
    record.heard(before)
    expect(record.isOutOfTouch).toBe(true)
    record.heard(record.begin(1))
    expect(record.isOutOfTouch).toBe(false)
    record.heard(before)
    expect(record.isOutOfTouch).toBe(false)
  })
})

describe('a read is outdated', () => {
  const [first, second] = [
    circuitRecord({ version: 'v1', epoch: 'e1', generation: 1, transitions: ['e1'], updatedAt: 100 }),
    circuitRecord({ version: 'v2', epoch: 'e1', generation: 1, transitions: ['e1'], updatedAt: 200 }),
  ]
  const third = circuitRecord({ version: 'v3', epoch: 'e3', generation: 3, transitions: ['e1', 'e2', 'e3'] })

  function seen(...records: (typeof first)[]): CachedRecord {
    const record = cached()
    for (const one of records) record.take(one, 1_000)
    return record
  }

  it('where it shows a version that was replaced, for a minute', () => {
    const record = seen(first, second)
    expect([record.isOutdated(first, 60_999), record.isOutdated(first, 61_000)]).toEqual([true, false])
    expect([record.isOutdated(second, 1_000), record.isOutdated(undefined, 1_000)]).toEqual([false, false])
  })

  it('where it shows an epoch that is over, however long', () => {
    const older = circuitRecord({ version: 'v0', epoch: 'e2', generation: 2, transitions: ['e1', 'e2'] })
    expect(seen(third).isOutdated(older, 1e9)).toBe(true)
    expect(seen(third).isOutdated({ ...third, version: 'v4' }, 1_000)).toBe(false)
    expect(seen().isOutdated(older, 1_000)).toBe(false)
  })

  it('never where its epoch comes again in a later generation, as when an operator decides anew', () => {
    const lost = circuitRecord({ version: 'v1', epoch: 'other', generation: 2, transitions: ['mine', 'other'] })
    const anew = circuitRecord({ version: 'v2', epoch: 'mine', generation: 3, transitions: ['mine', 'other', 'mine'] })
    expect(seen(lost).isOutdated(anew, 1_000)).toBe(false)
    expect(seen(anew).isOutdated(lost, 1_000)).toBe(true)
  })

  it.each([
    ['an earlier generation', third, { ...third, version: 'v9', epoch: 'e0', generation: 0, transitions: [] }],
    ['an earlier time', second, { ...first, version: 'v9' }],
  ])('never where it is what an older record, of %s, has taken the place of', (_what, current, older) => {
    expect(seen(current, older).isOutdated(current, 1_000)).toBe(false)
  })

  it('where it was replaced in the same millisecond', () => {
    expect(seen(first, { ...second, updatedAt: 100 }).isOutdated(first, 1_000)).toBe(true)
  })

  it('no more than 16 versions back', () => {
    const versions = Array.from({ length: 18 }, (_, n) => circuitRecord({ version: `v${n}`, generation: n }))
    const record = seen(...versions)
    expect(versions.slice(0, 3).map((one) => record.isOutdated(one, 1_000))).toEqual([false, true, true])
  })
})

describe('where the store throttles, a record', () => {
  const open = circuitRecord({ state: 'OPEN', openedAt: 0, retryAt: 10_000, resetTimeout: 10_000 })
  const exchange = { sentAt: 0, answers: 0, doubts: 0 }

  it('is not read for 3 s after a refusal, and held back meanwhile', () => {
    const record = cached(1)
    record.take(circuitRecord(), 0)
    record.throttled(6_000)
    expect([record.isStale(8_999), record.isHeldBack(8_999)]).toEqual([false, true])
    expect([record.isStale(9_000), record.isHeldBack(9_000)]).toEqual([true, false])
  })

  it('lives longer from then on', () => {
    const record = cached(1)
    record.throttled(0)
    record.heard(exchange)
    record.take(circuitRecord(), 1_000)
    expect([record.isStale(10_699), record.isStale(10_700), record.isHeldBack(1_000)]).toEqual([false, true, false])
  })

  it('of an open circuit is looked at within 8 s after retryAt', () => {
    const record = cached(1, { cacheTtl: 30_000 })
    record.throttled(0)
    expect(record.throttle.isCrowded).toBe(false)
    const short = cached(1)
    for (const at of [0, 5_000, 10_000]) short.throttled(at)
    short.take(open, 9_000)
    expect([short.isStale(24_999), short.isStale(25_000)]).toEqual([false, true])
  })

  it('is read again the sooner, the less is drawn', () => {
    const record = cached(0)
    record.throttled(6_000)
    expect([record.isHeldBack(8_399), record.isHeldBack(8_400)]).toEqual([true, false])
    const circuit = cached(0)
    for (const at of [0, 5_000, 10_000]) circuit.throttled(at)
    circuit.take(open, 9_000)
    expect([circuit.isStale(21_999), circuit.isStale(22_000)]).toEqual([false, true])
  })

  it('is not looked at sooner where the store has time', () => {
    const record = cached(0)
    record.take(circuitRecord(), 1_000)
    record.look(2_000)
    expect(record.isStale(2_000)).toBe(false)
  })

  it('is looked at within 8 s once this instance refuses by itself', () => {
    const record = cached(0.5)
    for (const at of [0, 5_000]) record.throttled(at)
    record.take(circuitRecord(), 6_000)
    record.look(7_000)
    expect([record.isStale(10_999), record.isStale(11_000)]).toEqual([false, true])
  })

  it('is stale where the clock was set back by more than it can live', () => {
    const record = cached(1)
    record.throttled(3_600_000)
    expect([record.isStale(3_573_000), record.isStale(3_572_999)]).toEqual([false, true])
  })
})
