import { describe, expect, it } from '@jest/globals'
import { CachedRecord, holds } from '../../../src/circuit/cached-record.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const cacheTtl = 5_000

function cached(random = 0): CachedRecord {
  return new CachedRecord(cacheTtl, () => random)
}

const refused = { applied: false, current: undefined }

function replacing(version: string | undefined) {
  return { kind: 'replace', version } as const
}

describe('the condition of a write holds', () => {
  const born = circuitRecord({ version: 'e1', epoch: 'e1' })
  const replaced = circuitRecord({ version: 'v1', epoch: 'e1' })

  it.each([
    ['a replacement of nothing', 'replace', undefined, [true, false, false]],
    ['an addition to nothing', 'add', undefined, [true, true, false]],
    ['a replacement of a new record', 'replace', 'e1', [false, true, false]],
    ['an addition to a new record', 'add', 'e1', [false, true, false]],
    ['a replacement of a record that was replaced', 'replace', 'v1', [false, false, true]],
  ] as const)('of %s', (_name, kind, version, held) => {
    expect([undefined, born, replaced].map((record) => holds({ kind, version }, record))).toEqual(held)
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
  })

  it.each([
    ['counted more than the cache holds', 3, 'v1', true, false],
    ['counted as much', 2, 'v1', true, false],
    ['counted less: a read has seen more since', 1, 'v1', true, true],
    ['counted in a version that is gone', 9, 'v0', true, true],
    ['was refused, and the cache holds the version that it was conditional on', 0, 'v9', false, false],
  ])('to an addition that %s', (_name, failureCount, version, applied, isOvertaken) => {
    const record = cached()
    const exchange = record.begin(0)
    record.take(circuitRecord({ version: 'v1', failureCount: 2 }), 1)
    const reply = { applied, current: circuitRecord({ version, failureCount }) }
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
