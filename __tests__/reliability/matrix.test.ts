import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { type Fault, faults, stopServers } from './faults.ts'
import { operations, type Row, runRow } from './matrix.ts'

/** So many faults at once: nearly all of the time is spent waiting. */
const parallel = 6
const slice = faults.filter(({ isInSlice }) => isInSlice)
const rows = new Map<Fault, PromiseWithResolvers<Row>>(slice.map((fault) => [fault, Promise.withResolvers()]))

// A rejection that nobody handles fails the test during which it happens: Jest sees to that.
beforeAll(() => {
  // Each breaker says once what is misconfigured.
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const queue = rows.entries()
  const work = async (): Promise<void> => {
    for (const [fault, { promise, resolve, reject }] of queue) {
      promise.catch(() => {})
      await runRow(fault).then(resolve, reject)
    }
  }
  for (let n = 0; n < parallel; n++) void work()
})
afterAll(async () => {
  jest.restoreAllMocks()
  await stopServers()
})

describe.each(['DynamoDB', 'Redis'] as const)('a store in %s of which', (store) => {
  const own = slice.filter((fault) => fault.store === store)

  it.each(own.map((fault) => [fault.name, fault] as const))(
    '%s harms no caller, and the fleet agrees again when it is well',
    async (_name, fault) => {
      const { cells } = await (rows.get(fault) as PromiseWithResolvers<Row>).promise
      expect(cells.map(({ operation, problems }) => [operation, problems])).toEqual(
        operations.map((operation) => [operation, []]),
      )
    },
    120_000,
  )
})

describe('docs/reliability.md', () => {
  const page = readFileSync(new URL('../../docs/reliability.md', import.meta.url), 'utf8')
  const lines = page.split('\n')

  it('has a line for each fault, and none has failed', () => {
    for (const { store, name, kind } of faults) {
      const section = lines.slice(lines.indexOf(`## ${store}`))
      const line = section.find((text) => text.startsWith(`| ${name} | ${kind} |`))
      expect([name, line?.match(/✓ \d+ \/ \d+/g)?.length]).toEqual([name, operations.length])
    }
    expect(lines.filter((line) => line.includes('✓'))).toHaveLength(faults.length)
    expect(page).not.toContain('✗')
  })

  it('is counted right by those who refer to it', () => {
    for (const path of ['README.md', 'docs/storage.md']) {
      const text = readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
      expect([path, text.match(/broken in (\d+) ways/)?.[1]]).toEqual([path, String(faults.length)])
    }
  })
})
