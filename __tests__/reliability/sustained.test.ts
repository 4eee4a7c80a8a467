import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { cells, cellTitle, type Result, runCell, slice } from './sustained.ts'

const results: Result[] = []

beforeAll(async () => {
  // Each breaker says once what is misconfigured.
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  for (const cell of slice) results.push(await runCell(cell))
})
afterAll(() => {
  jest.restoreAllMocks()
})

describe('with half a store for ten minutes', () => {
  it.failing.each(['dead', 'healthy', 'alternating'] as const)(
    'a service that is %s is protected and used as with a breaker of its own',
    (kind) => {
      const own = results.filter(({ cell }) => cell.service === kind)
      expect(own.length).toBeGreaterThan(10)
      const failed = own.filter(({ problems }) => problems.length > 0)
      expect(failed.map(({ cell, problems }) => [cellTitle(cell), problems])).toEqual([])
    },
  )
})

describe('docs/reliability.md', () => {
  const page = readFileSync(new URL('../../docs/reliability.md', import.meta.url), 'utf8')

  it.failing('has the number of the cells, all of which hold', () => {
    const number = cells.length.toLocaleString('en-US')
    expect(page).toContain(`**${number} cells: ${number} hold.**`)
  })
})
