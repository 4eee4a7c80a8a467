import { randomUUID } from 'node:crypto'
import { type AttributeValue, type DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitStorageError } from '../../src/errors.ts'
import type { CircuitRecord, Outcomes, WriteResult } from '../../src/storage/contract.ts'
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
    suspectedAt: at - 9,
    failureCount: 3,
    successCount: 1,
    startedCount: 8,
    earlyCount: 2,
    reporterCount: 4,
    dismissals: 1.142,
    dismissedAt: at - 8,
    noise: 0.0317,
    pace: 12,
    othersAt: at - 7,
    lastFailureAt: at - 5,
    openedAt: at - 4,
    closedAt: at - 6,
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

/** One failure of one instance. */
function outcomes(): Outcomes {
  return { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at, id: randomUUID() }
}

describe.each([
  ['DynamoDB Local', startDynamoDBLocal, {}],
  // It is slow: still more than fit into one request.
  ['dynalite, which never returns the item that refused a write', startDynalite, { maxBatch: 110, parallelWrites: 10 }],
])('the storage in %s', (_, start, sizes) => {
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

  const create = async (service: string, fields: Partial<CircuitRecord> = {}): Promise<CircuitRecord> => {
    const record = { ...closedRecord(), ...fields }
    await storage.compareAndSetState(service, undefined, record)
    return record
  }

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

  it('forgets the additions with the record that they counted in', async () => {
    const key = randomUUID()
    const { version } = await create(key)
    const slots = async () => Object.keys((await itemOf(key)) ?? {}).filter((name) => name.startsWith('inc'))
    for (let count = 0; count < 20; count++) await storage.addOutcomes(key, version, outcomes())
    expect(await slots()).toHaveLength(16)
    await storage.compareAndSetState(key, version, closedRecord())
    expect(await slots()).toEqual([])
  })

  it('adds also under an override, without letting it expire', async () => {
    const key = randomUUID()
    const { version } = await create(key, { override: { state: 'CLOSED', at } })
    await expect(storage.addOutcomes(key, version, outcomes())).resolves.toMatchObject({
      applied: true,
      current: { failureCount: 1, override: { state: 'CLOSED' } },
    })
    expect(await itemOf(key)).not.toHaveProperty('ttl')
  })

  it('leaves attributes that are not its own alone', async () => {
    const key = randomUUID()
    const { version } = await create(key)
    await put(key, { ...(await itemOf(key)), owner: { S: 'payments' }, huge: { N: '1e100' } })
    const record = closedRecord()
    await storage.compareAndSetState(key, version, record)
    await storage.addOutcomes(key, record.version, outcomes())
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
    await expectRefused(storage.addOutcomes(key, 'v1', outcomes()))
    await expectRefused(storage.compareAndSetState(key, undefined, closedRecord()))
    await expectRefused(storage.compareAndSetState(key, 'v1', closedRecord()))
    expect(await itemOf(key)).toEqual(before)
    await storage.clearState(key)
    await expect(storage.getState(key)).resolves.toBeUndefined()
  })

  it.each([
    ['is no number', { earlyCount: { S: '1' } }, 'earlyCount is a string'],
    ['is missing', { earlyCount: undefined }, 'earlyCount is missing'],
  ])('tells a count that %s from an outage, and adds nothing to the others', async (__, change, what) => {
    const key = randomUUID()
    const { version } = await create(key)
    const item = Object.entries({ ...(await itemOf(key)), ...change }).filter(([, value]) => value !== undefined)
    await put(key, Object.fromEntries(item) as Record<string, AttributeValue>)
    const before = await itemOf(key)
    await expect(storage.addOutcomes(key, version, outcomes())).rejects.toMatchObject({
      corrupt: true,
      message: expect.stringContaining(what),
      cause: { name: 'ValidationException' },
    })
    expect(await itemOf(key)).toEqual(before)
  })

  it('adds up 200 additions at once to 200', async () => {
    const key = randomUUID()
    const { version } = await create(key)
    const results = await Promise.all(Array.from({ length: 200 }, () => storage.addOutcomes(key, version, outcomes())))
    const counts = results.map(({ applied, current }) => (applied ? (current?.failureCount ?? 0) : 0))
    expect(counts.sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (__, index) => index + 1))
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 200, reporterCount: 200, version })
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
    await own.addOutcomes('stripe', record.version, outcomes())
    const counted = { ...record, failureCount: 1, reporterCount: 1 }
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
        () => mistaken.addOutcomes('stripe', 'v', outcomes()),
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
    /** As long as those that the engine draws. */
    const id = () => randomUUID().slice(0, 16)
    const full = { ...fullRecord(), override: undefined, leases: [{ id: id(), expiresAt: at }] }
    const record = { ...full, version: id(), epoch: id(), transitions: Array.from({ length: 8 }, id) }
    await storage.compareAndSetState(key, undefined, record)
    expect(sizeOf(await itemOf(key))).toBeLessThan(700)
    for (let count = 0; count < 16; count++) {
      await storage.addOutcomes(key, record.version, { ...outcomes(), id: id() })
    }
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
