import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { sizeOf } from '../cost/items.ts'
import { type Figures, measure, sectionsOf, withSections } from '../cost/page.ts'
import { onDemand } from '../cost/prices.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'

const million = 1_000_000
let server: DynamoDBServer
let figures: Figures

beforeAll(async () => {
  server = await startDynamoDBLocal()
  figures = await measure(server)
})
afterAll(() => server?.stop())

describe('the page about costs', () => {
  it('says what is measured now; `npm run page -- cost` writes it', async () => {
    const page = await readFile(join(import.meta.dirname, '../../docs/operate/cost.md'), 'utf8')

    expect(withSections(page, sectionsOf(figures))).toBe(page)
    expect(page).not.toMatch(/NaN|Infinity|undefined/)
  })

  it('says in words what its tables say', async () => {
    const text = await readFile(join(import.meta.dirname, '../../docs/operate/cost.md'), 'utf8')
    const page = text.replaceAll(/\s+/g, ' ')
    const { healthy, outages } = figures
    const priceOf = (reads: number, services: number) => (reads * services * onDemand.millionReadUnits) / million

    expect(page).toContain('$3.75 at most')
    expect(30 * priceOf(million, 1)).toBe(3.75)
    const monthOf = (wanted: number): number => {
      const one = healthy.find(({ instances, services }) => instances === wanted && services === 1)?.measured
      return 30 * priceOf((million * (one?.batchGetItem ?? 0)) / (one?.invocations ?? 0), 1)
    }
    expect(page).toContain('**$0.61 a month with 10 busy instances, and $2.50 with 100**')
    expect([monthOf(10).toPrecision(2), monthOf(100).toPrecision(2)]).toEqual(['0.61', '2.5'])
    expect(page).toContain(
      'some 20 writes**, and about as many for the journal: together some three thousandths of a cent',
    )
    expect((100 * (20 + 24) * onDemand.millionWriteUnits) / million).toBeCloseTo(0.003, 3)
    for (const { measured } of outages) {
      expect(Math.abs(measured.during.updateItem - 20)).toBeLessThan(8)
      // An instance that has not read for a while looks before it raises a suspicion.
      expect(measured.during.getItem).toBeLessThanOrEqual(10)
    }
  })

  it('is right that an outage that one instance sees takes four writes to open the circuit', () => {
    const { measured } = figures.outages.find(({ instances }) => instances === 1) ?? {}
    expect(measured?.onset.updateItem).toBe(4)
  })

  it('is right that a working service is never written, nor read more than once in an invocation', () => {
    const all = [
      ...figures.healthy,
      ...figures.byTtl.flatMap(({ measured }) => measured.map((one) => ({ measured: one }))),
    ]
    for (const { measured } of all) {
      expect(measured.updateItem).toBe(0)
      expect(measured.getItem).toBe(0)
      expect(measured.batchGetItem).toBeLessThanOrEqual(measured.invocations)
    }
    expect(figures.everyInvocation.batchGetItem).toBe(figures.everyInvocation.invocations)
  })

  it('is right about its formula, within a twentieth', () => {
    const rate = million / 86_400
    for (const { instances, services, measured } of figures.healthy) {
      const pause = instances / rate
      const ttl = 5 * (0.8 + 0.2 / (services + 1))
      const expected = (instances / (ttl + pause)) * (measured.invocations / rate)
      expect(Math.abs(measured.batchGetItem / expected - 1)).toBeLessThan(0.05)
    }
  })

  it('is right that every item takes one unit to write and one to read, and the longest key a second one to write', () => {
    const longest = figures.items.at(-1)
    for (const item of figures.items) {
      expect([item.writeUnits, item.readUnits]).toEqual([item === longest ? 2 : 1, 1])
      expect(item.bytes).toBeLessThan(item === longest ? 1_200 : 1_024)
    }
  })

  it('takes for the size of an item what DynamoDB takes for it', async () => {
    const client = server.client()
    const TableName = await server.createTable()
    const units = async (bytes: number) => {
      const item = { PK: { S: 'p' }, SK: { S: 's' }, count: { N: '1795464964617' }, none: { L: [] } }
      const nested = { ...item, one: { M: { at: { N: '10' }, name: { S: 'TimeoutError' } } }, pad: { S: '' } }
      const Item = { ...nested, pad: { S: 'x'.repeat(bytes - sizeOf(nested)) } }
      expect(sizeOf(Item)).toBe(bytes)
      const command = new PutItemCommand({ TableName, Item, ReturnConsumedCapacity: 'TOTAL' })
      return (await client.send(command)).ConsumedCapacity?.CapacityUnits
    }

    expect(await units(1_024)).toBe(1)
    expect(await units(1_025)).toBe(2)
  })
})
