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
  it.each(['dead', 'healthy', 'alternating'] as const)(
    'a service that is %s is protected and used as with a breaker of its own',
    (kind) => {
      const own = results.filter(({ cell }) => cell.service === kind)
      expect(own.length).toBeGreaterThan(10)
      const failed = own.filter(({ problems }) => problems.length > 0)
      expect(failed.map(({ cell, problems }) => [cellTitle(cell), problems])).toEqual([])
    },
  )
})

describe('ten instances whose reads are answered too late, in an outage of 75 s', () => {
  it.each([0, 1_000, 5_000])('share what they write: with cacheTtl %i', async (cacheTtl) => {
    const start = { name: 'ten instances', stored: 'CLOSED', instances: 10, cutOff: 10 } as const
    const cell = {
      reads: 'slow',
      writes: 'fine',
      service: 'dead',
      cacheTtl,
      resetTimeout: 10_000,
      calls: 1,
      start,
    } as const
    const { figures } = await runCell(cell, { duration: 75_000, settings: { resetBackoff: 1 } })
    const reached = figures.reduce((sum, one) => sum + one.reached, 0)
    // Each learns of the others by its writes only: three failures of its own at most, then half as many probes.
    const own = figures.reduce((sum, { ownReached }) => sum + ownReached, 0)
    expect(reached).toBeLessThanOrEqual((2 / 3) * own)
  })
})

describe('docs/evidence/reliability.md', () => {
  const page = readFileSync(new URL('../../docs/evidence/reliability.md', import.meta.url), 'utf8')

  it('has the number of the cells, of which nearly all hold, and names the others', () => {
    const number = cells.length.toLocaleString('en-US')
    const [, holding = ''] = /\*\*8,100 cells: ([\d,]+) hold\.\*\*/.exec(page) ?? []
    const failed = cells.length - Number(holding.replaceAll(',', ''))
    expect(page).toContain(`**${number} cells: ${holding} hold.**`)
    expect(failed / cells.length).toBeLessThan(0.002)
    expect(page.match(/^- half a store: reads .*\n {2}.+ (service|calls).*$/gm) ?? []).toHaveLength(failed)
  })
})
