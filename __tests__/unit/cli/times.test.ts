import { describe, expect, it } from '@jest/globals'
import { duration, instant, parseDuration, relative } from '../../../src/cli/times.ts'

describe('durations', () => {
  it.each([
    ['90s', 90_000],
    ['10m', 600_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
    ['0.5h', 1_800_000],
  ])('reads %s', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds)
  })

  it.each(['', '10', 'm', '-5m', '10 m', '5x', '1e3s', '0s', `${'9'.repeat(400)}d`])('refuses %j', (text) => {
    expect(parseDuration(text)).toBeUndefined()
  })

  it.each([
    [0, '0 s'],
    [59_400, '59 s'],
    [59_600, '1 min'],
    [200_000, '3 min 20 s'],
    [3_600_000, '1 h'],
    [90_000_000, '1 d 1 h'],
  ])('says %d ms in its two largest units', (milliseconds, text) => {
    expect(duration(milliseconds)).toBe(text)
  })
})

describe('instants', () => {
  const now = Date.UTC(2030, 0, 31, 12)

  it('leaves out the date of today', () => {
    expect(instant(now - 1_000, now)).toBe('11:59:59 UTC')
    expect(instant(now - 86_400_000, now)).toBe('2030-01-30 12:00:00 UTC')
  })

  it('survives an instant that no clock shows', () => {
    expect(instant(9e15, now)).toBe('at an impossible time')
  })

  it.each([
    [-200_000, '3 min 20 s ago'],
    [7_000, 'in 7 s'],
    [300, 'now'],
  ])('says an instant %d ms from now', (ahead, text) => {
    expect(relative(now + ahead, now)).toBe(text)
  })
})
