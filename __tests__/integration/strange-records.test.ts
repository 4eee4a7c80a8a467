/**
 * Random damage to what is stored. Whatever a store holds: either every part of the package sees a healthy record there,
 * the conditions of its writes too, or the record is reported as damaged and `reset` repairs it.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import { type AttributeValue, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import type { StorageErrorEvent } from '../../src/events.ts'
import type { CircuitRecord, ICircuitStorage, Outcomes, WriteResult } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { parseCircuitRecord, recordFields } from '../../src/storage/record.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedis, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'

/** The records that are damaged. */
const healthy = fc.constantFrom<Partial<CircuitRecord>>(
  { failureCount: 2, suspectedAt: Date.now(), lastFailureAt: Date.now(), reporterCount: 1 },
  { state: 'OPEN', openedAt: Date.now(), retryAt: Date.now() + 10_000, resetTimeout: 10_000, generation: 1 },
  { state: 'HALF_OPEN', openedAt: 1, retryAt: 2, resetTimeout: 1, leases: [{ id: 'l', expiresAt: 3 }], generation: 2 },
)

let reportedDamage = 0
let foundHealth = 0

/** @param damaged whether the parser has to find damage; `undefined`: either will do */
async function expectSeenAlike(storage: ICircuitStorage, service: string, damaged?: boolean): Promise<void> {
  const errors: StorageErrorEvent[] = []
  const breaker = new CircuitBreaker(
    { services: [service], storage, ...patientStore, onStorageError: (event) => errors.push(event) },
    { env: {} },
  )
  await breaker.load()
  // A suspicion that is over is dismissed behind the read.
  await breaker.flush()
  for (const { error } of errors) expect(error).toMatchObject({ corrupt: true })
  if (damaged !== undefined) expect(errors.length > 0).toBe(damaged)
  if (errors.length === 0) {
    foundHealth++
    const read = async (): Promise<CircuitRecord> =>
      parseCircuitRecord(service, await storage.getState(service), 'getState')
    const { version } = await read()
    // Both writes see the version that the parser sees, or find the damage that the parser overlooked.
    const outcomes: Outcomes = {
      failures: 1,
      successes: 1,
      started: 1,
      early: 1,
      reporters: 1,
      at: 1,
      id: randomUUID(),
    }
    await expectAppliedOrDamaged(service, storage.addOutcomes(service, version, outcomes))
    const next = circuitRecord()
    await expect(storage.compareAndSetState(service, version, next)).resolves.toEqual({ applied: true, current: next })
  } else {
    reportedDamage++
  }
  await breaker.reset(service)
  const { version, state } = parseCircuitRecord(service, await storage.getState(service), 'getState')
  expect(state).toBe('CLOSED')
  expect(await storage.compareAndSetState(service, version, circuitRecord())).toMatchObject({ applied: true })
}

async function expectAppliedOrDamaged(service: string, write: Promise<WriteResult>): Promise<void> {
  const { applied, current, corrupt } = await write.then(
    (result) => ({ ...result, corrupt: false }),
    (error) => ({ applied: false, current: undefined, corrupt: error.corrupt }),
  )
  if (applied || corrupt) return
  expect(() => parseCircuitRecord(service, current, 'addOutcomes')).toThrow('is damaged')
}

describe('an item of DynamoDB', () => {
  let server: DynamoDBServer
  let tableName: string
  beforeAll(async () => {
    server = await startDynamoDBLocal()
    tableName = await server.createTable()
  })
  afterAll(() => server?.stop())

  const number = fc.oneof(
    fc.double({ noDefaultInfinity: true, noNaN: true, min: 1e-100, max: 1e100 }).map((value) => value.toPrecision(5)),
    fc.integer().map(String),
    fc.constantFrom('0', '1', '9007199254740991', '9007199254740992', '0.1', '1e125', '-1', '1.5e-120', '3'),
  )
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('', '\ufffd', '\0', 'v'.repeat(300), 'CLOSED', '1'),
  )
  const { attribute } = fc.letrec<{ attribute: AttributeValue }>((tie) => ({
    attribute: fc.oneof(
      { maxDepth: 4 },
      fc.constant<AttributeValue>({ NULL: true }),
      fc.boolean().map((BOOL) => ({ BOOL })),
      number.map((N) => ({ N })),
      text.map((S) => ({ S: S.toWellFormed() })),
      fc.uint8Array({ maxLength: 8 }).map((B) => ({ B })),
      fc.uniqueArray(fc.integer(), { minLength: 1, maxLength: 3 }).map((NS) => ({ NS: NS.map(String) })),
      fc.constant<AttributeValue>({ SS: ['v'] }),
      fc.constant<AttributeValue>({ BS: [new Uint8Array([1])] }),
      fc.array(tie('attribute'), { maxLength: 3 }).map((L) => ({ L })),
      fc.dictionary(fc.constantFrom('id', 'expiresAt', 'at', 'state', 'x'), tie('attribute')).map((M) => ({ M })),
    ),
  }))
  const names = [...recordFields, 'inc0', 'inc1', 'inc15', 'ttl', 'mine']
  const changes = fc.dictionary(fc.constantFrom(...names), fc.option(attribute, { nil: undefined }), {
    minKeys: 1,
    maxKeys: 3,
  })

  const put = async (storage: ICircuitStorage, service: string, fields: Partial<CircuitRecord>, change: object) => {
    await storage.compareAndSetState(service, undefined, circuitRecord(fields))
    const [client, Key] = [server.client(patientDynamoDB), { PK: { S: `CIRCUIT#${service}` }, SK: { S: 'STATE' } }]
    const { Item } = await client.send(new GetItemCommand({ TableName: tableName, Key }))
    await client.send(new PutItemCommand({ TableName: tableName, Item: { ...Item, ...change } }))
  }

  it('is a record to all or damaged, whatever its attributes are', async () => {
    const storage = new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) })
    await fc.assert(
      fc.asyncProperty(healthy, changes, async (fields, change) => {
        const service = randomUUID()
        await put(storage, service, fields, change)
        await expectSeenAlike(storage, service)
      }),
      { numRuns: Number(process.env['STRANGE_RUNS'] ?? 100) },
    )
    expect(Math.min(reportedDamage, foundHealth)).toBeGreaterThan(0)
  })

  it.each<[string, AttributeValue | undefined]>([
    ['null', { NULL: true }],
    ['missing', undefined],
    ['a number', { N: '7' }],
    ['a set', { SS: ['v'] }],
    ['bytes', { B: new Uint8Array([0xff]) }],
  ])('is damaged where its version is %s', async (_, version) => {
    const storage = new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) })
    const service = randomUUID()
    await put(storage, service, { state: 'OPEN', openedAt: 1, retryAt: 2, resetTimeout: 1 }, { version })
    await expectSeenAlike(storage, service, true)
  })

  it('that others have filled up is reported as that, and is a circuit again when they have made room', async () => {
    const storage = new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) })
    const service = randomUUID()
    const full = { mine: { S: 'x'.repeat(408_500) } }
    await put(storage, service, {}, full)
    const errors: StorageErrorEvent[] = []
    const breaker = new CircuitBreaker(
      { services: [service], storage, ...patientStore, onStorageError: (event) => errors.push(event) },
      { env: {} },
    )
    const lastFailure = { at: 1, name: 'n'.repeat(64), code: 'c'.repeat(64), status: 503 }
    const { version } = (await storage.getState(service)) as CircuitRecord
    const leases = Array.from({ length: 100 }, () => ({ id: randomUUID(), expiresAt: Date.now() }))
    const write = storage.compareAndSetState(service, version, circuitRecord({ lastFailure, leases }))
    await expect(write).rejects.toMatchObject({
      kind: 'misconfigured',
      corrupt: false,
      message: expect.stringContaining('has no room left'),
    })
    await breaker.reset(service)
    expect(errors).toEqual([])
    expect(await storage.getState(service)).toMatchObject({ state: 'CLOSED' })
  })
})

describe('a hash of Redis', () => {
  let server: RedisServer
  let client: Redis
  beforeAll(async () => {
    server = await startRedis()
    client = server.client()
  })
  afterAll(() => server?.stop())

  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 12 }).map((array) => Buffer.from(array)),
    fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
    fc
      .constantFrom(
        '',
        '0',
        '-0',
        '1',
        '01',
        '1e3',
        '0x10',
        ' 1',
        '9007199254740991',
        '9007199254740992',
        '1e400',
        'NaN',
      )
      .map((text) => Buffer.from(text)),
    fc
      .constantFrom(
        'null',
        '[]',
        '{}',
        '[null]',
        '[{}]',
        '["a"]',
        '"x"',
        '[{"id":"l","expiresAt":1}]',
        '[[[[[]]]]]',
        'CLOSED',
      )
      .map((text) => Buffer.from(text)),
    fc.constantFrom(300, 100_000).map((length) => Buffer.alloc(length, 'v')),
    fc.constantFrom([0xff], [0x76, 0xc0], [0xed, 0xa0, 0x80], [0xf8, 0x76]).map((list) => Buffer.from(list)),
  )
  const names = [...recordFields, 'version', 'version', 'additions', 'mine']
  const changes = fc.dictionary(fc.constantFrom(...names), fc.option(bytes, { nil: undefined }), {
    minKeys: 1,
    maxKeys: 3,
  })

  type Change = Readonly<Record<string, Buffer | undefined>>
  const put = async (storage: ICircuitStorage, service: string, fields: Partial<CircuitRecord>, change: Change) => {
    await storage.compareAndSetState(service, undefined, circuitRecord(fields))
    const writes = client.pipeline()
    for (const [name, value] of Object.entries(change)) {
      if (value === undefined) writes.hdel(`circuit:${service}`, name)
      else writes.hset(`circuit:${service}`, name, value)
    }
    await writes.exec()
  }
  const ownStorage = () => new RedisCircuitStorage({ client: server.client(patientRedis) })

  it('is a record to all or damaged, whatever its fields are', async () => {
    ;[reportedDamage, foundHealth] = [0, 0]
    const storage = ownStorage()
    await fc.assert(
      fc.asyncProperty(healthy, changes, async (fields, change) => {
        const service = randomUUID()
        await put(storage, service, fields, change)
        await expectSeenAlike(storage, service)
      }),
      { numRuns: Number(process.env['STRANGE_RUNS'] ?? 300) },
    )
    expect(Math.min(reportedDamage, foundHealth)).toBeGreaterThan(0)
  })

  it.each(['version', 'epoch'])('is damaged where its %s is no UTF-8', async (field) => {
    const storage = ownStorage()
    const service = randomUUID()
    await put(
      storage,
      service,
      { state: 'OPEN', openedAt: 1, retryAt: 2, resetTimeout: 1 },
      { [field]: Buffer.from([0x76, 0xff]) },
    )
    await expectSeenAlike(storage, service, true)
  })

  it.each<[string, Change]>([
    ['a value of 16 MB', { leases: Buffer.alloc(16_000_000, '[') }],
    ['another value of 16 MB', { additions: Buffer.alloc(16_000_000, 'x') }],
    [
      '100 000 fields of others',
      Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`f${n}`, Buffer.from('x')])),
    ],
  ])('is repaired where it has %s', async (_, change) => {
    const storage = ownStorage()
    const service = randomUUID()
    await put(storage, service, { state: 'OPEN', openedAt: 1, retryAt: 2, resetTimeout: 1 }, change)
    await expectSeenAlike(storage, service)
  })

  it.each<[string, (key: string) => Promise<unknown>]>([
    ['a text', (key) => client.set(key, Buffer.from([0xff]))],
    ['a list', (key) => client.rpush(key, 'x')],
    ['a set', (key) => client.sadd(key, 'x')],
    ['a stream', (key) => client.xadd(key, '*', 'a', 'b')],
  ])('is damaged where there is %s in its place', async (_, store) => {
    const service = randomUUID()
    await store(`circuit:${service}`)
    await expectSeenAlike(ownStorage(), service, true)
  })
})
