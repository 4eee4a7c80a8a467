import { expect, it } from '@jest/globals'
import { observeCells } from './cells.ts'

const never = new Promise<string>(() => {})

it('tells a cell that hangs and one that fails from those that were observed', async () => {
  const observe = async (cell: string): Promise<string> => {
    if (cell === 'hangs') return never
    if (cell === 'fails') throw new Error('no server')
    return `${cell} observed`
  }
  const { observations, failures } = await observeCells(['hangs', 'a', 'fails', 'b'], observe, {
    atOnce: 2,
    patience: 20,
  })

  expect(observations).toEqual(['a observed', 'b observed'])
  expect(failures).toEqual([
    { cell: 'fails', message: expect.stringContaining('no server') },
    { cell: 'hangs', message: 'It hangs: nothing has ended for 20 ms.' },
  ])
})

it('tells which cells were not begun because all places hang', async () => {
  const { observations, failures } = await observeCells(['a', 'b', 'c'], () => never, { atOnce: 2, patience: 20 })

  expect(observations).toEqual([])
  expect(failures.map(({ cell, message }) => [cell, message.slice(0, 8)])).toEqual([
    ['a', 'It hangs'],
    ['b', 'It hangs'],
    ['c', 'It was n'],
  ])
})
