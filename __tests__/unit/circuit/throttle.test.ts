import { describe, expect, it } from '@jest/globals'
import { Throttle } from '../../../src/circuit/throttle.ts'

/** Reads are refused, so many seconds apart. */
function refuse(throttle: Throttle, times: number, apart = 10, from = 0): void {
  for (let n = 0; n < times; n++) throttle.refused(1_000 * (from + n * apart))
}

function answer(throttle: Throttle, times: number): void {
  for (let n = 0; n < times; n++) throttle.answered()
}

describe('a record', () => {
  it('lives for cacheTtl while nothing is refused', () => {
    const throttle = new Throttle(5_000, () => 0)
    answer(throttle, 3)
    expect([throttle.lifetime, throttle.isCrowded, throttle.isRefused]).toEqual([5_000, false, false])
  })

  it('is not written to be read, nor done without, before anything was refused', () => {
    const throttle = new Throttle(5_000, () => 0)
    expect([throttle.triesWriting, throttle.goesOn]).toEqual([false, false])
  })

  it.each([
    [5_000, [10_000, 20_000, 30_000, 30_000]],
    [1_000, [2_000, 4_000, 8_000, 16_000]],
    [0, [500, 1_000, 2_000, 4_000]],
    [40_000, [40_000, 40_000]],
  ])('lives twice as long for each refusal, up to 30 s: cacheTtl %i', (cacheTtl, lifetimes) => {
    const throttle = new Throttle(cacheTtl, () => 0)
    const seen = lifetimes.map((_, n) => {
      throttle.refused(10_000 * n)
      return throttle.lifetime
    })
    expect(seen).toEqual(lifetimes)
  })

  it('lives longer once for a burst, unless every second read of it is refused', () => {
    const throttle = new Throttle(1_000, () => 0)
    throttle.refused(10_000)
    throttle.answered()
    throttle.refused(14_999)
    expect(Math.round(throttle.lifetime)).toBe(1_940)
    throttle.refused(14_999)
    expect(Math.round(throttle.lifetime)).toBe(3_880)
  })

  it('lives a little shorter again with each answer, down to cacheTtl', () => {
    const throttle = new Throttle(5_000, () => 0)
    refuse(throttle, 1)
    answer(throttle, 1)
    expect([throttle.lifetime, throttle.isRefused]).toEqual([9_700, false])
    answer(throttle, 22)
    expect([throttle.lifetime, throttle.isCrowded]).toEqual([5_000, false])
  })

  it.each([
    [5_000, 3_000],
    [1_000, 2_000],
    [0, 500],
  ])('is read again 3 s after a refusal, or a lifetime if that is shorter: cacheTtl %i', (cacheTtl, retry) => {
    const throttle = new Throttle(cacheTtl, () => 0)
    refuse(throttle, 1)
    expect(throttle.retry).toBe(retry)
  })
})

describe('after a refusal an instance', () => {
  it('goes on without a look the less often, the more is refused', () => {
    let drawn = 0
    const throttle = new Throttle(1_000, () => drawn)
    drawn = 0.2499
    throttle.refused(0)
    expect(throttle.goesOn).toBe(true)
    drawn = 0.25
    throttle.refused(1)
    expect(throttle.goesOn).toBe(false)
    drawn = 0
    throttle.refused(2)
    expect(throttle.goesOn).toBe(true)
    throttle.answered()
    expect(throttle.goesOn).toBe(false)
  })

  it('tries a write in its place from the third in a row on, one time of four, and from the tenth on each time', () => {
    let drawn = 0.2499
    const throttle = new Throttle(1_000, () => drawn)
    refuse(throttle, 2)
    expect(throttle.triesWriting).toBe(false)
    refuse(throttle, 1)
    expect(throttle.triesWriting).toBe(true)
    drawn = 0.25
    refuse(throttle, 6)
    expect(throttle.triesWriting).toBe(false)
    refuse(throttle, 1)
    expect(throttle.triesWriting).toBe(true)
    throttle.answered()
    expect(throttle.triesWriting).toBe(false)
  })

  it('takes the store for shut where ten reads in a row and a write were refused', () => {
    const throttle = new Throttle(1_000, () => 0.999)
    refuse(throttle, 9)
    throttle.refusedWriting()
    expect([throttle.isShut, throttle.goesOn]).toEqual([false, false])
    refuse(throttle, 1)
    expect(throttle.isShut).toBe(false)
    throttle.refusedWriting()
    expect([throttle.isShut, throttle.goesOn]).toEqual([true, true])
    throttle.answered()
    expect([throttle.isShut, throttle.goesOn]).toEqual([false, false])
  })
})
