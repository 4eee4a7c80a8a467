import { randomUUID } from 'node:crypto'
import { ScanCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker, type JournalEntry } from '../../src/index.ts'
import type { ICircuitStorage } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord, testCircuitStorage } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedis, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'

const month = 30 * 86_400_000

const breakerOver = (storage: ICircuitStorage, service = 'stripe', namespace = 'prod'): CircuitBreaker =>
  new CircuitBreaker({ services: [service], storage, namespace, ...patientStore }, { env: {} })

const entry = (at: number): JournalEntry => ({
  id: randomUUID(),
  at,
  service: 'stripe',
  from: 'CLOSED',
  to: 'OPEN',
  generation: 1,
  reason: 'failure-threshold',
})

/** Everything that a store lists under a prefix, and how many pages that was. */
async function listed(storage: ICircuitStorage, prefix: string): Promise<{ keys: Set<string>; pages: number }> {
  const keys = new Set<string>()
  let cursor: string | undefined
  let pages = 0
  do {
    const page = await storage.listCircuits?.({ prefix, cursor })
    for (const key of page?.keys ?? []) keys.add(key)
    cursor = page?.cursor
    pages++
  } while (cursor !== undefined)
  return { keys, pages }
}

describe('the journal in DynamoDB', () => {
  let server: DynamoDBServer
  let tableName: string
  let withoutSortKey: string
  const sent: string[] = []
  const storageIn = (table: string, sortKeyName?: null): DynamoDBCircuitStorage => {
    const client = server.client(patientDynamoDB)
    client.middlewareStack.add(
      (next, { commandName }) =>
        (args) => {
          sent.push(String(commandName).replace('Command', ''))
          return next(args)
        },
      { step: 'initialize' },
    )
    return new DynamoDBCircuitStorage({ tableName: table, client, ...(sortKeyName === null ? { sortKeyName } : {}) })
  }
  const itemsIn = async (table: string) =>
    (await server.client().send(new ScanCommand({ TableName: table }))).Items ?? []

  beforeAll(async () => {
    server = await startDynamoDBLocal()
    tableName = await server.createTable()
    withoutSortKey = await server.createTable({ singleKey: true })
  })
  afterAll(() => server?.stop())

  it('is an item for each entry beside the record, for 30 days, and one in the index for each circuit', async () => {
    const table = await server.createTable()
    const breaker = breakerOver(storageIn(table))
    await breaker.forceOpen('stripe', { until: Date.now() + 60_000, by: 'ada', why: 'a drill' })
    const [entry] = await breaker.journal('stripe')
    const items = await itemsIn(table)
    const time = new Date(entry?.at ?? 0).toISOString()
    const ttl = { N: String(Math.ceil(((entry?.at ?? 0) + month) / 1_000)) }
    expect(items.map(({ PK, SK }) => [PK?.S, SK?.S]).sort()).toEqual([
      ['CIRCUIT#', 'INDEX#prod#stripe'],
      ['CIRCUIT#prod#stripe', `EVENT#${time}#${entry?.id}`],
      ['CIRCUIT#prod#stripe', 'STATE'],
    ])
    for (const item of items) if (item['SK']?.S !== 'STATE') expect(item['ttl']).toEqual(ttl)
    expect(entry).toMatchObject({ reason: 'forced-open', by: 'ada', why: 'a drill' })
  })

  it('lists a circuit for as long as it is forced, and 30 days after that', async () => {
    const table = await server.createTable()
    const breaker = breakerOver(storageIn(table))
    const indexed = async () => (await itemsIn(table)).find(({ SK }) => SK?.S === 'INDEX#prod#stripe')?.['ttl']
    await breaker.forceOpen('stripe')
    expect(await indexed()).toBeUndefined()
    await breaker.reset('stripe')
    expect(await indexed()).toBeDefined()
  })

  it('lists a thousand circuits in one query, whatever else is in the table', async () => {
    const storage = storageIn(tableName)
    const prefix = `${randomUUID()}#`
    const keys = Array.from({ length: 1_000 }, (_, index) => `${prefix}${index}`)
    for (let from = 0; from < keys.length; from += 25) {
      await Promise.all(keys.slice(from, from + 25).map((key) => storage.appendJournal(key, entry(Date.now()))))
    }
    sent.length = 0
    expect(await listed(storage, prefix)).toEqual({ keys: new Set(keys), pages: 2 })
    expect(sent).toEqual(['Query', 'Query'])
  })

  it('is read in pages where it is long', async () => {
    const storage = storageIn(tableName)
    const key = randomUUID()
    const entries = Array.from({ length: 120 }, (_, index) => entry(1_000 + index))
    await Promise.all(entries.map((one) => storage.appendJournal(key, one)))
    const ids = (await storage.readJournal(key, { limit: 100 })).map(({ id }) => id)
    expect(ids).toEqual(
      entries
        .slice(-100)
        .map(({ id }) => id)
        .reverse(),
    )
  })

  it('leaves out what it cannot decode', async () => {
    const { PutItemCommand } = await import('@aws-sdk/client-dynamodb')
    const key = randomUUID()
    const put = (id: string, event: Record<string, unknown>) =>
      server.client().send(
        new PutItemCommand({
          TableName: tableName,
          Item: { PK: { S: `CIRCUIT#${key}` }, SK: { S: `EVENT#2026-01-01T00:00:00.000Z#${id}` }, ...event } as never,
        }),
      )
    await put('a', { event: { S: 'text' } })
    await put('b', { event: { M: { at: { N: '99999999999999999999999999' } } } })
    await put('c', {})
    expect(await breakerOver(storageIn(tableName), key).journal(key)).toEqual([])
  })

  describe('in a table without a sort key', () => {
    testCircuitStorage('fulfils the contract:', () => storageIn(withoutSortKey, null), {
      runner: { describe: (name, define) => (/contract|journal/.test(name) ? describe(name, define) : undefined), it },
    })

    it('is one item for each circuit, with the last 50 entries, for 30 days', async () => {
      const table = await server.createTable({ singleKey: true })
      const storage = storageIn(table, null)
      await storage.compareAndSetState('stripe', undefined, circuitRecord())
      const entries = Array.from({ length: 60 }, (_, index) => entry(1_000 + index))
      for (const one of entries) await storage.appendJournal('stripe', one)
      const items = await itemsIn(table)
      expect(items.map(({ PK }) => PK?.S).sort()).toEqual(['CIRCUIT#stripe', 'CIRCUIT#stripe##EVENTS'])
      const journal = items.find(({ PK }) => PK?.S?.endsWith('EVENTS'))
      expect(Object.keys(journal ?? {}).filter((name) => name.startsWith('event'))).toHaveLength(50)
      expect(journal?.['ttl']).toEqual({ N: String(Math.ceil((1_059 + month) / 1_000)) })
      const [latest] = await storage.readJournal('stripe', { limit: 1 })
      expect(latest).toMatchObject({ id: entries.at(-1)?.id })
      expect(await listed(storage, '')).toEqual({ keys: new Set(['stripe']), pages: 1 })
    })

    it('lists circuits by scans of a thousand items, of which one listing does ten at most', async () => {
      const table = await server.createTable({ singleKey: true })
      const storage = storageIn(table, null)
      await storage.compareAndSetState('stripe', undefined, circuitRecord())
      sent.length = 0
      expect(await storage.listCircuits({ limit: 1 })).toEqual({ keys: ['stripe'] })
      expect(sent).toEqual(['Scan'])
    })
  })
})

describe('the journal in Redis', () => {
  let server: RedisServer
  beforeAll(async () => {
    server = await startRedis()
  })
  afterAll(() => server?.stop())

  it('is a hash beside the record, with the last 50 entries, for 30 days', async () => {
    const storage = new RedisCircuitStorage({ url: server.url, options: patientRedis })
    const breaker = breakerOver(storage)
    for (let n = 0; n < 30; n++) {
      await breaker.forceOpen('stripe', { by: 'ada' })
      await breaker.forceClosed('stripe', { why: `drill ${n}` })
    }
    const admin = server.client()
    const key = 'circuit:prod#stripe##EVENTS'
    const hash = await admin.hgetall(key)
    expect(Object.keys(hash)).toHaveLength(51)
    expect(hash['next']).toBe('60')
    const left = await admin.pttl(key)
    expect(left).toBeGreaterThan(month - 3_600_000)
    expect(left).toBeLessThanOrEqual(month)
    const entries = await breaker.journal('stripe', { limit: 1_000 })
    expect(entries).toHaveLength(50)
    expect(entries.slice(0, 2)).toMatchObject([
      { reason: 'forced-closed', why: 'drill 29' },
      { reason: 'forced-open', by: 'ada' },
    ])
    // Where somebody has written into it, it begins anew.
    await admin.hset(key, { next: 'x', '49': 'no JSON' })
    await breaker.reset('stripe', { why: 'the end' })
    expect((await breaker.journal('stripe')).map(({ why }) => why)).toEqual(['the end'])
    await storage.close()
  })

  it('is left out of the list of circuits, and of their keys the client may add a part', async () => {
    const options = { ...patientRedis, keyPrefix: 'mine[*]:' }
    const storage = new RedisCircuitStorage({ client: server.client(options), keyPrefix: 'c?' })
    const others = new RedisCircuitStorage({ client: server.client(), keyPrefix: 'cx' })
    await storage.compareAndSetState('a#1', undefined, circuitRecord())
    await storage.appendJournal('a#1', entry(1))
    await storage.appendJournal('b', entry(1))
    await others.compareAndSetState('a#2', undefined, circuitRecord())
    expect(await listed(storage, '')).toEqual({ keys: new Set(['a#1', 'b']), pages: 1 })
    expect((await listed(storage, 'a#')).keys).toEqual(new Set(['a#1']))
  })

  it('lists a thousand circuits among many other keys, in steps that are bounded', async () => {
    const admin = server.client()
    const other = Array.from({ length: 20_000 }, (_, index) => [`other:${index}`, 'x']).flat()
    await admin.mset(...other)
    const storage = new RedisCircuitStorage({ client: admin })
    const prefix = `${randomUUID()}#`
    const keys = Array.from({ length: 1_000 }, (_, index) => `${prefix}${index}`)
    await storage.batchSetState(keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() })))
    expect((await listed(storage, prefix)).keys).toEqual(new Set(keys))
  })

  it('says so where the client of a cluster does not tell its nodes', async () => {
    const client = { isCluster: true, call: async () => 0 }
    await expect(new RedisCircuitStorage({ client }).listCircuits()).rejects.toMatchObject({
      operation: 'listCircuits',
      message: expect.stringContaining('needs a method nodes'),
    })
  })
})
