import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { type Fault, faults, stopServers } from './faults.ts'
import { operations, type Row, runRow } from './matrix.ts'

/** So many faults at once: nearly all of the time is spent waiting. */
const parallel = 6
const slice = faults.filter(({ isInSlice }) => isInSlice)
const rows = new Map<Fault, PromiseWithResolvers<Row>>(slice.map((fault) => [fault, Promise.withResolvers()]))
const unhandled: unknown[] = []
const note = (reason: unknown) => unhandled.push(reason)

beforeAll(() => {
  // Each breaker says once what is misconfigured.
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  process.on('unhandledRejection', note)
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
  process.off('unhandledRejection', note)
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

it('no rejection was left unhandled', () => {
  expect(unhandled).toEqual([])
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
})
