import { expect, it } from '@jest/globals'
import { bandsOf, sparkline } from '../../../src/cli/history.ts'
import type { JournalEntry } from '../../../src/storage/contract.ts'

const entry = (at: number, from: JournalEntry['from'], to: JournalEntry['to'], reason = 'set'): JournalEntry =>
  ({ at, from, to, reason }) as JournalEntry

it('makes bands of the entries, beginning with the state that the first one left', () => {
  const entries = [entry(10, 'CLOSED', 'OPEN'), entry(20, 'OPEN', 'HALF_OPEN'), entry(25, 'HALF_OPEN', 'CLOSED')]
  expect(bandsOf(entries, 'CLOSED', 0, 100)).toEqual([
    { from: 0, to: 10, state: 'CLOSED', isForced: false },
    { from: 10, to: 20, state: 'OPEN', isForced: false },
    { from: 20, to: 25, state: 'HALF_OPEN', isForced: false },
    { from: 25, to: 100, state: 'CLOSED', isForced: false },
  ])
})

it('has the state of now throughout where there is no entry', () => {
  expect(bandsOf([], 'OPEN', 0, 100)).toEqual([{ from: 0, to: 100, state: 'OPEN', isForced: false }])
})

it('cuts what lies before and after', () => {
  const entries = [entry(-5, 'CLOSED', 'OPEN'), entry(150, 'OPEN', 'CLOSED')]
  expect(bandsOf(entries, 'CLOSED', 0, 100)).toEqual([{ from: 0, to: 100, state: 'OPEN', isForced: false }])
})

it('marks what an operator has forced', () => {
  const bands = bandsOf(
    [entry(10, 'CLOSED', 'OPEN', 'forced-open'), entry(50, 'OPEN', 'CLOSED', 'reset')],
    'CLOSED',
    0,
    100,
  )
  expect(bands.map(({ isForced }) => isForced)).toEqual([false, true, false])
})

it('draws the worst state of each part of the time', () => {
  const entries = [entry(41, 'CLOSED', 'OPEN'), entry(45, 'OPEN', 'HALF_OPEN'), entry(65, 'HALF_OPEN', 'CLOSED')]
  expect(sparkline(bandsOf(entries, 'CLOSED', 0, 100), 0, 100, 10)).toBe('▁▁▁▁█▄▄▁▁▁')
})
