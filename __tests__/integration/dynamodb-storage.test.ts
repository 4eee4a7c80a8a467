import { randomUUID } from 'node:crypto'
import { type AttributeValue, type DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitStorageError } from '../../src/errors.ts'
import type { CircuitRecord, WriteResult } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { emptyRecord, parseCircuitRecord } from '../../src/storage/record.ts'
import { testCircuitStorage } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynalite, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB } from '../support/patience.ts'

const at = 1_700_000_000_001

/** A record of which every field is set. */
function fullRecord(): CircuitRecord {
  return {
    schema: 1,
    version: randomUUID(),
    epoch: randomUUID(),
    generation: 12,
    state: 'HALF_OPEN',
    failureCount: 3,
    lastFailureAt: at - 5,
    successCount: 1,
    openedAt: at - 4,
    retryAt: at + 10_000,
    resetTimeout: 10_000,
    leases: [{ id: randomUUID(), expiresAt: at + 30_000.5 }],
    trips: 2,
    lastFailure: { at: at - 5, name: 'TimeoutError', code: 'ETIMEDOUT', status: 504 },
    override: { state: 'OPEN', at, until: at + 60_000 },
    transitions: Array.from({ length: 8 }, () => randomUUID()),
    updatedAt: at,
  }
}

function closedRecord(): CircuitRecord {
  return { ...emptyRecord(randomUUID(), at), version: randomUUID() }
}

/** A record that is none is refused: unchecked, or where it cannot be decoded with an error. */
async function expectRefused(write: Promise<WriteResult>): Promise<void> {
  const { applied, corrupt } = (await write.catch((error: unknown) => error)) as {
    applied?: boolean
    corrupt?: boolean
  }
  expect(corrupt ?? !applied).toBe(true)
}

async function expectNoRecord(read: Promise<CircuitRecord | undefined>): Promise<void> {
  await expect(read.then((record) => record && parseCircuitRecord('any', record, 'getState'))).rejects.toMatchObject({
    corrupt: true,
  })
}

function increment(count = 1, id: string = randomUUID()) {
  return { count, at, id }
}

describe.each([
  ['DynamoDB Local', startDynamoDBLocal, {}, false],
  // It is slow: still more than fit into one request. To it two attributes that are absent are equal.
  [
    'dynalite, which never returns the item that refused a write',
    startDynalite,
    { maxBatch: 110, parallelWrites: 10 },
    true,
  ],
])('the storage in %s', (_, start, sizes, takesAbsentForEqual) => {
  let server: DynamoDBServer
  let client: DynamoDBClient
  let tableName: string
  let storage: DynamoDBCircuitStorage

  beforeAll(async () => {
    server = await start()
    client = server.client(patientDynamoDB)
    tableName = await server.createTable()
    storage = new DynamoDBCircuitStorage({ tableName, client })
  })
  afterAll(() => server?.stop())

  const itemOf = async (service: string): Promise<Record<string, AttributeValue> | undefined> => {
    const Key = { PK: { S: `CIRCUIT#${service}` }, SK: { S: 'STATE' } }
    const { Item } = await client.send(new GetItemCommand({ TableName: tableName, Key, ConsistentRead: true }))
    return Item
  }
  const put = (service: string, attributes: Record<string, AttributeValue>) =>
    client.send(
      new PutItemCommand({
        TableName: tableName,
        Item: { PK: { S: `CIRCUIT#${service}` }, SK: { S: 'STATE' }, ...attributes },
      }),
    )

  testCircuitStorage('fulfils the contract:', () => storage, {
    runner: { describe, it },
    ...sizes,
    createPeer: () => new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) }),
    createUnreachable: () =>
      new DynamoDBCircuitStorage({
        tableName,
        clientConfig: { ...server.clientConfig, endpoint: 'http://127.0.0.1:1', maxAttempts: 1 },
      }),
    damage: (service) => put(service, { schema: { N: '1' }, state: { S: 'AJAR' } }),
    expiresAt: async (service) => {
      const ttl = (await itemOf(service))?.ttl?.N
      return ttl === undefined ? undefined : Number(ttl) * 1000
    },
  })

  it('gives back every field as it was written, and removes those that a later record lacks', async () => {
    const key = randomUUID()
    const full = fullRecord()
    await expect(storage.compareAndSetState(key, undefined, full)).resolves.toEqual({ applied: true, current: full })
    await expect(storage.getState(key)).resolves.toEqual(full)
    expect(await itemOf(key)).not.toHaveProperty('ttl')

    const closed = closedRecord()
    await expect(storage.compareAndSetState(key, full.version, closed)).resolves.toEqual({
      applied: true,
      current: closed,
    })
    await expect(storage.getState(key)).resolves.toEqual(closed)
    expect(await itemOf(key)).toMatchObject({ ttl: { N: '1700172861' } })
    expect(await itemOf(key)).not.toHaveProperty('override')
  })

  it('forgets the increments with the record that they counted in', async () => {
    const key = randomUUID()
    const first = increment()
    await storage.incrementFailures(key, undefined, first)
    await Promise.all(Array.from({ length: 64 }, () => storage.incrementFailures(key, undefined, increment())))
    expect(Object.keys((await itemOf(key)) ?? {}).filter((name) => name.startsWith('inc'))).toHaveLength(16)
    await storage.compareAndSetState(key, first.id, closedRecord())
    expect(Object.keys((await itemOf(key)) ?? {}).filter((name) => name.startsWith('inc'))).toEqual([])
  })

  it('counts also under an override, without letting it expire', async () => {
    const key = randomUUID()
    const forced: CircuitRecord = { ...closedRecord(), override: { state: 'CLOSED', at } }
    await storage.compareAndSetState(key, undefined, forced)
    await expect(storage.incrementFailures(key, forced.version, increment())).resolves.toMatchObject({
      applied: true,
      current: { failureCount: 1, override: { state: 'CLOSED' } },
    })
    expect(await itemOf(key)).not.toHaveProperty('ttl')
  })

  it('leaves attributes that are not its own alone', async () => {
    const key = randomUUID()
    const first = increment()
    await storage.incrementFailures(key, undefined, first)
    await put(key, { ...(await itemOf(key)), owner: { S: 'payments' }, huge: { N: '1e100' } })
    const record = closedRecord()
    await storage.compareAndSetState(key, first.id, record)
    await storage.incrementFailures(key, record.version, increment())
    expect(await itemOf(key)).toMatchObject({ owner: { S: 'payments' } })
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 1 })
  })

  it.each([
    ['no record', { mine: { S: 'x' } }],
    ['a record of a later format', { schema: { N: '2' }, state: { S: 'CLOSED' } }],
  ])('neither reads nor overwrites %s', async (__, attributes) => {
    const key = randomUUID()
    await put(key, attributes)
    const before = await itemOf(key)
    await expectNoRecord(storage.getState(key))
    if (!takesAbsentForEqual) await expectRefused(storage.incrementFailures(key, undefined, increment()))
    await expectRefused(storage.incrementFailures(key, 'v1', increment()))
    await expectRefused(storage.compareAndSetState(key, undefined, closedRecord()))
    await expectRefused(storage.compareAndSetState(key, 'v1', closedRecord()))
    expect(await itemOf(key)).toEqual(before)
    await storage.clearState(key)
    await expect(storage.getState(key)).resolves.toBeUndefined()
  })

  it('tells a count that is no number from an outage', async () => {
    const key = randomUUID()
    await storage.incrementFailures(key, undefined, increment())
    await put(key, { ...(await itemOf(key)), failureCount: { S: '1' } })
    await expect(storage.incrementFailures(key, undefined, increment())).rejects.toMatchObject({
      corrupt: true,
      message: expect.stringContaining('failureCount is a string'),
      cause: { name: 'ValidationException' },
    })
  })

  it('adds up 200 increments at once to 200', async () => {
    const key = randomUUID()
    const results = await Promise.all(
      Array.from({ length: 200 }, () => storage.incrementFailures(key, undefined, increment())),
    )
    const counts = results.map(({ applied, current }) => (applied ? (current?.failureCount ?? 0) : 0))
    expect(counts.sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (__, index) => index + 1))
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 200, generation: 0 })
  })

  it('lets one of 50 compare-and-sets at once win, and tells the others who', async () => {
    const key = randomUUID()
    const writes = Array.from({ length: 50 }, closedRecord)
    const results = await Promise.all(writes.map((next) => storage.compareAndSetState(key, undefined, next)))
    const winners = writes.filter((__, index) => results[index]?.applied)
    expect(winners).toHaveLength(1)
    for (const { current } of results) expect(current).toEqual(winners[0])
  })

  it('never loses an increment that races a replacement: it is replaced or refused', async () => {
    for (let round = 0; round < 10; round++) {
      const key = randomUUID()
      const before = closedRecord()
      const after = closedRecord()
      await storage.compareAndSetState(key, undefined, before)
      const send = () => storage.incrementFailures(key, before.version, increment())
      const early = Array.from({ length: 10 }, send)
      const replacing = storage.compareAndSetState(key, before.version, after)
      const late = Array.from({ length: 10 }, send)

      expect((await replacing).applied).toBe(true)
      const results = await Promise.all([...early, ...late])
      const applied = results.filter((result) => result.applied)
      const counts = applied.map(({ current }) => current?.failureCount ?? 0).sort((a, b) => a - b)
      expect(counts).toEqual(applied.map((__, index) => index + 1))
      for (const { current } of results.filter((result) => !result.applied)) expect(current).toEqual(after)
      await expect(storage.getState(key)).resolves.toEqual(after)
    }
  })

  it('reads and deletes more circuits than fit into one request', async () => {
    const keys = Array.from({ length: 205 }, () => randomUUID())
    const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: closedRecord() }))
    const results = await storage.batchSetState(writes)
    expect([...results.values()].every(({ applied }) => applied)).toBe(true)
    await expect(storage.batchGetState([...keys, ...keys, 'absent'])).resolves.toEqual(
      new Map(writes.map(({ serviceKey, next }) => [serviceKey, next])),
    )
    await storage.batchClearState(keys)
    await expect(storage.batchGetState(keys)).resolves.toEqual(new Map())
  })

  it('hands out the good records of a batch along with the error about one that cannot be decoded', async () => {
    const [good, bad] = [randomUUID(), randomUUID()]
    const record = closedRecord()
    await storage.compareAndSetState(good, undefined, record)
    await put(bad, { schema: { N: '1' }, trips: { N: '12345678901234567890.5' } })
    const error = await storage.batchGetState([good, bad]).catch((reason) => reason)
    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error.results).toEqual(new Map([[good, record]]))
    expect([...error.errors.keys()]).toEqual([bad])
  })

  it('works in a table without a sort key, under other names, and with a client of its own', async () => {
    const own = new DynamoDBCircuitStorage({
      tableName: await server.createTable({ singleKey: true }),
      sortKeyName: null,
      ttlAttributeName: 'expires',
      consistentRead: false,
      clientConfig: { ...server.clientConfig, ...patientDynamoDB },
    })
    const record = closedRecord()
    await own.compareAndSetState('stripe', undefined, record)
    await own.incrementFailures('stripe', record.version, increment())
    const counted = { ...record, failureCount: 1, lastFailureAt: at }
    await expect(own.getState('stripe')).resolves.toEqual(counted)
    await expect(own.batchGetState(['stripe'])).resolves.toEqual(new Map([['stripe', counted]]))
    await own.batchClearState(['stripe'])
    await expect(own.getState('stripe')).resolves.toBeUndefined()
    await own.close()
    await expect(own.getState('stripe')).resolves.toBeUndefined()
    await own.close()
  })

  it('says which table is missing, and what does not match its keys', async () => {
    const missing = new DynamoDBCircuitStorage({ tableName: 'no-such-table', client })
    await expect(missing.getState('stripe')).rejects.toThrow('the table "no-such-table" does not exist')
    for (const names of [{ sortKeyName: null }, { partitionKeyName: 'id' }, { sortKeyName: 'sort' }]) {
      const mistaken = new DynamoDBCircuitStorage({ tableName, client, ...names })
      const operations = [
        () => mistaken.getState('stripe'),
        () => mistaken.batchGetState(['stripe']),
        () => mistaken.incrementFailures('stripe', undefined, increment()),
        () => mistaken.compareAndSetState('stripe', undefined, closedRecord()),
        () => mistaken.clearState('stripe'),
      ]
      for (const operation of operations) {
        await expect(operation()).rejects.toThrow('does not match partitionKeyName/sortKeyName')
      }
    }
  })

  it('fits a circuit into one kilobyte, the unit that DynamoDB charges writes by', async () => {
    const key = 'payments#stripe'
    const { override: _override, ...record } = fullRecord()
    const version = record.version
    await storage.compareAndSetState(key, undefined, record)
    expect(sizeOf(await itemOf(key))).toBeLessThan(800)
    for (let count = 0; count < 5; count++) await storage.incrementFailures(key, version, increment())
    expect(sizeOf(await itemOf(key))).toBeLessThan(1024)
  })
})

/**
 * The size of an item as DynamoDB counts it, or a little more:
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
 */
function sizeOf(item: Record<string, AttributeValue> = {}): number {
  const sizeOfValue = (value: AttributeValue): number => {
    if (value.S !== undefined) return Buffer.byteLength(value.S)
    if (value.N !== undefined) return Math.ceil(value.N.replace(/\D/g, '').length / 2) + 1
    if (value.L) return 3 + value.L.reduce((sum, element) => sum + 1 + sizeOfValue(element), 0)
    if (value.M) return 3 + Object.keys(value.M).length + sizeOf(value.M)
    return 1
  }
  return Object.entries(item).reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + sizeOfValue(value), 0)
}
