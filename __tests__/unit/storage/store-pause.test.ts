import { describe, expect, it } from '@jest/globals'
import type { StorageErrorKind } from '../../../src/errors.ts'
import { systemRuntime } from '../../../src/runtime.ts'
import { pauseLimitFor, StorePause } from '../../../src/storage/store-pause.ts'

const start = 1_800_000_000_000

/** A pause, and the clock and the random number that it sees. */
function arrange({ drawn = 0, longest = 30_000 } = {}) {
  const clock = { now: start }
  const pause = new StorePause({ ...systemRuntime, now: () => clock.now, random: () => drawn }, longest)
  /** An operation fails that began this long ago. */
  const fail = (
    times = 1,
    { took = 0, kind = 'unavailable' }: { took?: number; kind?: StorageErrorKind } = {},
  ): void => {
    for (let n = 0; n < times; n++) pause.failed(clock.now - took, kind)
  }
  /** How long it lasts from now on, to the millisecond. */
  const length = (): number => {
    const from = clock.now
    while (!pause.isOver && clock.now - from <= 60_000) clock.now++
    const lasted = clock.now - from
    clock.now = from
    return lasted
  }
  return { clock, pause, fail, length }
}

describe('the pause', () => {
  it('does not begin at the first failure, which may be a connection that died in a freeze', () => {
    const { pause, fail } = arrange()

    fail()

    expect(pause.isOver).toBe(true)
  })

  it('begins at the first failure that waiting does not help against, and is the longest', () => {
    const { fail, length } = arrange({ drawn: 0.5 })

    fail(1, { kind: 'misconfigured' })

    expect(length()).toBe(22_500)
  })

  it.each([
    [0, [125, 250, 500, 1_000]],
    [0.5, [188, 375, 750, 1_500]],
  ])('doubles from the second failure on, from a half to the whole of 250 ms (random: %d)', (drawn, expected) => {
    const { clock, fail, length } = arrange({ drawn })
    fail()

    const pauses = expected.map(() => {
      fail()
      const lasted = length()
      clock.now += lasted
      return lasted
    })

    expect(pauses).toEqual(expected)
  })

  it('never gets longer than its limit, after however many failures', () => {
    const { clock, fail, length } = arrange({ drawn: 0.999_999 })
    fail()

    for (let n = 0; n < 1_200; n++) {
      fail()
      clock.now += 30_000
    }
    fail()

    expect(length()).toBeGreaterThan(29_000)
    expect(length()).toBeLessThanOrEqual(30_000)
  })

  it('grows up to its limit', () => {
    const { clock, fail, length } = arrange({ drawn: 1, longest: 2_000 })
    fail(2)
    const pauses = [length()]

    for (let n = 0; n < 5; n++) {
      clock.now += 10_000
      fail()
      pauses.push(length())
    }

    expect(pauses).toEqual([250, 500, 1_000, 2_000, 2_000, 2_000])
  })

  it('is over after a success, which also forgets the failures before', () => {
    const { pause, fail } = arrange()
    fail(5)

    pause.succeeded()
    expect(pause.isOver).toBe(true)

    fail()
    expect(pause.isOver).toBe(true)
  })

  it('is not prolonged by a clock that steps back', () => {
    const { clock, pause, fail } = arrange()
    fail(3)
    expect(pause.isOver).toBe(false)

    clock.now -= 3_600_000

    expect(pause.isOver).toBe(true)
  })

  it('is over after a freeze', () => {
    const { clock, pause, fail } = arrange()
    fail(10)

    clock.now += 86_400_000

    expect(pause.isOver).toBe(true)
  })

  it('does not grow with operations that had begun before the last failure was counted, whenever they fail', () => {
    const { clock, fail, length } = arrange()
    fail(3)
    const before = length()

    clock.now++
    fail(1, { took: 2 })

    expect(length()).toBe(before - 1)
  })

  it('grows with an operation that began after the last failure', () => {
    const { clock, fail, length } = arrange()
    fail(2)
    clock.now++

    fail()

    expect(length()).toBe(250)
  })

  it('counts a failure after a success, however long before that its operation began', () => {
    const { clock, pause, fail } = arrange()
    fail()
    pause.succeeded()
    clock.now++

    fail(1, { took: 60_000 })
    clock.now++
    fail()

    expect(pause.isOver).toBe(false)
  })

  it('counts a failure after the clock stepped back', () => {
    const { clock, fail, length } = arrange()
    fail()

    clock.now -= 3_600_000
    fail()

    expect(length()).toBe(125)
  })
})

describe('the longest pause', () => {
  it.each([
    ['the cacheTtl', [5_000], 5_000],
    ['the shortest cacheTtl of several', [20_000, 2_500, 9_000], 2_500],
    ['never less than a second', [1, 9_000], 1_000],
    ['never more than 30 s', [3_600_000], 30_000],
    ['10 s where every invocation reads', [0], 10_000],
    ['the cacheTtl of the others where one reads in every invocation', [0, 5_000], 5_000],
    ['30 s where there is no service', [], 30_000],
  ])('is %s: %j', (_what, cacheTtls, limit) => {
    expect(pauseLimitFor(cacheTtls)).toBe(limit)
  })
})
