import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { type Fault, faults, stopServers } from './faults.ts'
import { operations, type Row, runRow } from './matrix.ts'

/** So many faults at once: nearly all of the time is spent waiting. */
const parallel = 6
const slice = faults.filter(({ isInSlice }) => isInSlice)
const rows = new Map<Fault, PromiseSettledResult<Row>>()

// All of it in here: between tests Jest refuses to load what the adapters need. A rejection that nobody handles fails the
// suite.
beforeAll(async () => {
  // Each breaker says once what is misconfigured.
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const queue = slice.values()
  const work = async (): Promise<void> => {
    for (const fault of queue) {
      const [row] = await Promise.allSettled([runRow(fault)])
      rows.set(fault, row)
    }
  }
  await Promise.all(Array.from({ length: parallel }, work))
})
afterAll(async () => {
  jest.restoreAllMocks()
  await stopServers()
})

describe.each(['DynamoDB', 'Redis'] as const)('a store in %s of which', (store) => {
  const own = slice.filter((fault) => fault.store === store)

  it.each(own.map((fault) => [fault.name, fault] as const))(
    '%s harms no caller, and the fleet agrees again when it is well',
    (_name, fault) => {
      const row = rows.get(fault)
      if (row?.status !== 'fulfilled') throw row?.reason
      const { cells } = row.value
      expect(cells.map(({ operation, problems }) => [operation, problems])).toEqual(
        operations.map((operation) => [operation, []]),
      )
    },
  )
})

describe('docs/evidence/reliability.md', () => {
  const page = readFileSync(new URL('../../docs/evidence/reliability.md', import.meta.url), 'utf8')
  const lines = page.split('\n')

  it('has a line for each fault, and none has failed', () => {
    for (const { store, name, kind } of faults) {
      const section = lines.slice(lines.indexOf(`## ${store}`))
      const line = section.find((text) => text.startsWith(`| ${name} | ${kind} |`))
      expect([name, line?.match(/✓ \d+ \/ \d+/g)?.length]).toEqual([name, operations.length])
    }
    expect(lines.filter((line) => line.includes('✓'))).toHaveLength(faults.length)
    expect(page.slice(0, page.indexOf('## Half a store'))).not.toContain('✗')
  })

  it('is counted right by those who refer to it', () => {
    for (const path of ['README.md', 'docs/operate/storage.md']) {
      const text = readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
      expect([path, text.match(/broken in (\d+) ways/)?.[1]]).toEqual([path, String(faults.length)])
    }
  })
})
