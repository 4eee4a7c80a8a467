import { randomUUID } from 'node:crypto'
import { type AttributeValue, type DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import type { Redis } from 'ioredis'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { isCircuitOpenError } from '../../src/errors.ts'
import type { StorageErrorEvent } from '../../src/events.ts'
import type { CircuitRecord, ICircuitStorage } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { ok, ServiceUnavailable } from '../support/virtual-fleet.ts'

/** What can be stored by hand: any fields with any values. */
type Fields = Readonly<Record<string, unknown>>

interface Backend {
  readonly storage: ICircuitStorage
  /** Stores what no adapter would. */
  put(service: string, fields: Fields): Promise<unknown>
  /** What is stored, to the byte. */
  raw(service: string): Promise<unknown>
}

let dynamoDB: DynamoDBServer
let redis: RedisServer
const backends = new Map<string, Backend>()

beforeAll(async () => {
  ;[dynamoDB, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
  const client = dynamoDB.client(patientDynamoDB)
  backends.set('DynamoDB', dynamoDBBackend(client, await dynamoDB.createTable()))
  backends.set('Redis', redisBackend(redis.client()))
  backends.set('memory', memoryBackend())
})
afterAll(() => Promise.all([dynamoDB?.stop(), redis?.stop()]))

function dynamoDBBackend(client: DynamoDBClient, TableName: string): Backend {
  const keyOf = (service: string) => ({ PK: { S: `CIRCUIT#${service}` }, SK: { S: 'STATE' } })
  return {
    storage: new DynamoDBCircuitStorage({ tableName: TableName, client }),
    put: (service, fields) => {
      const attributes = Object.entries(fields).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, attributeOf(value)]],
      )
      return client.send(
        new PutItemCommand({ TableName, Item: { ...Object.fromEntries(attributes), ...keyOf(service) } }),
      )
    },
    raw: async (service) => (await client.send(new GetItemCommand({ TableName, Key: keyOf(service) }))).Item,
  }
}

/** As it is, without the checks of `marshall`. */
function attributeOf(value: unknown): AttributeValue {
  if (typeof value === 'number') return { N: String(value) }
  if (typeof value === 'string') return { S: value }
  if (value instanceof Uint8Array) return { B: value }
  if (Array.isArray(value)) return { L: value.map(attributeOf) }
  const members = Object.entries(value as object).filter(([, member]) => member !== undefined)
  return { M: Object.fromEntries(members.map(([name, member]) => [name, attributeOf(member)])) }
}

function redisBackend(client: Redis): Backend {
  return {
    storage: new RedisCircuitStorage({ client }),
    put: (service, fields) => {
      const texts = Object.entries(fields).flatMap(([name, value]) => {
        if (value === undefined) return []
        return [name, typeof value === 'object' ? JSON.stringify(value) : String(value)]
      })
      return client
        .multi()
        .del(`circuit:${service}`)
        .hset(`circuit:${service}`, ...texts)
        .exec()
    },
    raw: (service) => client.dumpBuffer(`circuit:${service}`),
  }
}

function memoryBackend(): Backend {
  const storage = new MemoryCircuitStorage()
  return {
    storage,
    put: (service, fields) => storage.compareAndSetState(service, undefined, fields as unknown as CircuitRecord),
    raw: (service) => storage.getState(service),
  }
}

const century = 100 * 365 * 86_400_000
const lastInstant = 8.64e15

/** A breaker whose clock stands still until it is moved by hand, over a store whose time is its own. */
function breakerOver({ storage }: Backend, services: readonly string[]) {
  let now = Date.now()
  const errors: StorageErrorEvent[] = []
  const breaker = new CircuitBreaker(
    { services: [...services], storage, ...patientStore, onStorageError: (event) => errors.push(event) },
    { env: {}, now: () => now, random: () => 0.5 },
  )
  const wait = (duration: number): void => {
    now += duration
  }
  const fail = async (service: string): Promise<unknown> => {
    const error = new ServiceUnavailable('503')
    const thrown = await breaker.call(service, () => Promise.reject(error)).catch((reason: unknown) => reason)
    return thrown === error ? 'ran' : thrown
  }
  return { breaker, errors, wait, fail }
}

function recordOf(fields: Partial<CircuitRecord>): Fields {
  return { ...emptyRecord(randomUUID(), Date.now()), version: randomUUID(), ...fields }
}

const opened = (fields: Partial<CircuitRecord> = {}): Fields => {
  const now = Date.now()
  return recordOf({
    state: 'OPEN',
    openedAt: now,
    retryAt: now + 10_000,
    resetTimeout: 10_000,
    generation: 1,
    ...fields,
  })
}

const suspected = (fields: Partial<CircuitRecord> = {}): Fields => {
  const now = Date.now()
  return recordOf({ suspectedAt: now, failureCount: 1, reporterCount: 1, lastFailureAt: now, ...fields })
}

const probed = (fields: Partial<CircuitRecord> = {}): Fields => opened({ state: 'HALF_OPEN', generation: 2, ...fields })

const leases = (count: number, expiresAt: number) =>
  Array.from({ length: count }, (_, index) => ({ id: `lease-${index}`, expiresAt }))

/** Records that parse, of which no clock and no operator is the author. */
const hostile: readonly [name: string, fields: () => Fields][] = [
  ['a retryAt a century ahead', () => opened({ retryAt: Date.now() + century })],
  [
    'a retryAt, an openedAt and a resetTimeout of a century',
    () => opened({ openedAt: Date.now() + century, retryAt: Date.now() + 2 * century, resetTimeout: century }),
  ],
  [
    'the last instant of all as every time, open',
    () => opened({ ...everyTime(lastInstant), openedAt: lastInstant, retryAt: lastInstant, resetTimeout: lastInstant }),
  ],
  ['the last instant of all as every time, under suspicion', () => suspected(everyTime(lastInstant))],
  ['a retryAt as far ahead as a clock can be wrong', () => opened({ retryAt: Date.now() + 69_000 })],
  [
    'the first instant of all as every time, open',
    () => opened({ ...everyTime(0), openedAt: 0, retryAt: 0, resetTimeout: 0 }),
  ],
  ['the first instant of all as every time, under suspicion', () => suspected(everyTime(0))],
  ['an openedAt that is missing', () => opened({ openedAt: undefined, retryAt: Date.now() + century })],
  ['a lease that lasts for a century', () => probed({ leases: leases(1, Date.now() + century) })],
  ['a thousand leases that last for a century', () => probed({ leases: leases(1_000, Date.now() + century) })],
  [
    'a thousand leases that last as long as the longest invocation',
    () => probed({ leases: leases(1_000, Date.now() + 900_000) }),
  ],
  ['a thousand leases that have expired', () => probed({ leases: leases(1_000, 1) })],
  ['no lease although it is being probed', () => probed({ leases: [] })],
  ['the largest numbers as every count, under suspicion', () => suspected(largest())],
  ['a suspicion of the future', () => suspected({ suspectedAt: Date.now() + century })],
  ['others that were heard in the future', () => recordOf({ othersAt: Date.now() + century })],
  ['a pace that no fleet has', () => suspected({ pace: lastInstant, othersAt: Date.now() })],
  ...[0, 0.5, 0.9, 1].map((noise): [string, () => Fields] => [
    `a noise of ${noise} and a thousand dismissals`,
    () => suspected({ noise, dismissals: 1_000, dismissedAt: Date.now(), othersAt: Date.now() }),
  ]),
  ['the largest numbers as every count, closed', () => recordOf({ ...largest(), lastFailureAt: Date.now() })],
  ['the largest numbers as every count, open', () => opened({ ...largest(), retryAt: Date.now() })],
  ['the largest numbers as every count, being probed', () => probed({ ...largest(), leases: [] })],
  ['failures of the future', () => recordOf({ failureCount: 99, lastFailureAt: Date.now() + century })],
  [
    'a thousand transitions',
    () => opened({ retryAt: Date.now(), transitions: Array.from({ length: 1_000 }, () => randomUUID()) }),
  ],
]

function largest(): Partial<CircuitRecord> {
  const most = Number.MAX_SAFE_INTEGER
  // Room for what is added: beyond the largest number a count is damaged.
  const counts = { startedCount: most - 1_000, earlyCount: most - 1_000, reporterCount: most - 1_000 }
  const amounts = { dismissals: lastInstant, pace: lastInstant, dismissedAt: Date.now() }
  return {
    failureCount: most - 1_000,
    successCount: most - 1_000,
    ...counts,
    ...amounts,
    generation: most,
    trips: most,
  }
}

function everyTime(at: number): Partial<CircuitRecord> {
  return { suspectedAt: at, dismissedAt: at, othersAt: at, lastFailureAt: at, closedAt: at, updatedAt: at }
}

/** No more than this passes until a service is tried again, whatever is stored: the longest lease and a wrong clock. */
const longest = 900_000 + 60_000
/** No more than this passes after an outage: `maxResetTimeout`, and what it takes to look. */
const longestPause = 300_000 + 20_000
/**
 * After this time an instance that no other one contradicts is believed, however many suspicions came to nothing: ten minutes,
 * and then the next probes of its own.
 */
const longestDoubt = 600_000 + 2 * longestPause

describe.each(['DynamoDB', 'Redis', 'memory'])('a hostile record in %s', (name) => {
  it.each(hostile)('with %s holds nobody up for ever, and is outlived', async (_name, fields) => {
    const backend = backends.get(name) as Backend
    const service = randomUUID()
    await backend.put(service, fields())
    const { breaker, errors, wait, fail } = breakerOver(backend, [service])
    await breaker.load()
    const recover = async (): Promise<number> => {
      let waited = 0
      for (; breaker.circuits[service]?.state !== 'CLOSED'; wait(10_000), waited += 10_000) {
        expect(waited).toBeLessThanOrEqual(longest + 20_000)
        await breaker.load()
        const outcome = await breaker.call(service, ok).catch((error: unknown) => error)
        if (outcome !== 'ok') expect(isCircuitOpenError(outcome)).toBe(true)
        await breaker.flush()
      }
      return waited
    }

    await recover()
    // Two more outages, as ever: they open and close it again, and all that is stored can be read by anyone.
    for (let outage = 0; outage < 2; outage++) {
      for (let n = 0; n < 4; n++) await fail(service)
      await breaker.flush()
      // Where others are known they could contradict; nobody does.
      for (let doubt = 0; (await backend.storage.getState(service))?.state !== 'OPEN'; wait(5_000), doubt += 5_000) {
        expect(doubt).toBeLessThanOrEqual(longestDoubt)
        await breaker.load()
        await fail(service)
        await breaker.flush()
      }
      wait(10_000)
      expect(await recover()).toBeLessThanOrEqual(longestPause)
      expect(await backend.storage.getState(service)).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    }
    expect(errors).toEqual([])
  })
})

/** What is no record. */
const damaged: readonly [name: string, fields: () => Fields, backends?: readonly string[]][] = [
  ['of another application', () => ({ mine: 'x' })],
  ['that is cut off', () => ({ schema: 1, state: 'OPEN' })],
  ['of a later version of this package', () => opened({ schema: 2 as 1 })],
  ['of no version at all', () => ({ ...opened(), schema: undefined })],
  ['with a state that nobody knows', () => opened({ state: 'AJAR' as 'OPEN' })],
  ['with a count that is a text', () => ({ ...opened(), failureCount: 'many' })],
  ['with a count that is huge', () => opened({ failureCount: 1e100 })],
  ['with a count that is negative', () => opened({ failureCount: -1 })],
  ['with a count that is a fraction', () => opened({ successCount: 0.5 })],
  ['with a count that is missing', () => ({ ...opened(), startedCount: undefined })],
  ['with dismissals that are negative', () => opened({ dismissals: -0.5 })],
  ['with a noise above 1', () => opened({ noise: 1.5 })],
  ['with a pace that is a text', () => ({ ...opened(), pace: 'fast' })],
  ['with a suspicion that is no time', () => ({ ...recordOf({}), suspectedAt: 'now' })],
  ['with a time that is negative', () => opened({ retryAt: -1 })],
  ['with a time that is huge', () => opened({ retryAt: 1e100 })],
  ['with a time that is no number', () => ({ ...opened(), retryAt: 'NaN' })],
  ['that is open and never to be tried again', () => opened({ retryAt: undefined })],
  ['with thousands of leases', () => probed({ leases: leases(5_000, Date.now() + 10_000) })],
  ['with leases that are no list', () => ({ ...probed(), leases: { id: 'x' } })],
  ['with a lease that never ends', () => ({ ...probed(), leases: [{ id: 'x' }] })],
  ['with thousands of transitions', () => opened({ transitions: Array.from({ length: 5_000 }, () => 'x') })],
  ['with a version of 100 000 characters', () => opened({ version: 'v'.repeat(100_000) })],
  ['with an override that is none', () => ({ ...opened(), override: { state: 'AJAR', at: 0 } })],
  ['with bytes in place of a state', () => ({ ...opened(), state: new Uint8Array([1, 2, 3]) }), ['DynamoDB']],
  ['with leases that are no JSON', () => ({ ...probed(), leases: '[{"id":' }), ['Redis']],
  [
    'with leases in leases in leases',
    () => ({ ...probed(), leases: '['.repeat(100_000) + ']'.repeat(100_000) }),
    ['Redis'],
  ],
]

describe.each(['DynamoDB', 'Redis'])('a record in %s', (name) => {
  const own = damaged.filter(([, , only]) => only === undefined || only.includes(name))

  it.each(own)('%s harms its own service only, is left as it is, and is repaired by reset', async (_name, fields) => {
    const backend = backends.get(name) as Backend
    const [bad, good] = [`bad-${randomUUID()}`, `good-${randomUUID()}`]
    await backend.put(bad, fields())
    const before = await backend.raw(bad)
    const { breaker, errors, wait, fail } = breakerOver(backend, [bad, good])

    await breaker.load()
    expect(errors.map(({ services, error }) => [services, error.kind, error.corrupt])).toEqual([
      [[bad], 'corrupt', true],
    ])
    expect(errors[0]?.error.message).toContain('reset() repairs it')
    // The service that it belongs to is protected alone: it opens, is probed and recovers.
    for (let n = 0; n < 3; n++) expect(await fail(bad)).toBe('ran')
    expect(isCircuitOpenError(await fail(bad))).toBe(true)
    wait(11_000)
    await breaker.load()
    expect(await breaker.call(bad, ok)).toBe('ok')
    expect(breaker.circuits[bad]?.state).toBe('CLOSED')
    // The other one is the fleet's, as ever.
    for (let n = 0; n < 3; n++) await fail(good)
    await breaker.flush()
    expect(await backend.storage.getState(good)).toMatchObject({ state: 'OPEN', generation: 1 })

    expect(await backend.raw(bad)).toEqual(before)
    expect(errors.every(({ services }) => services.join() === bad)).toBe(true)
    await breaker.reset(bad)
    expect(await backend.storage.getState(bad)).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    errors.length = 0
    wait(10_000)
    await breaker.load()
    for (let n = 0; n < 3; n++) await fail(bad)
    await breaker.flush()
    expect(await backend.storage.getState(bad)).toMatchObject({ state: 'OPEN' })
    expect(errors).toEqual([])
  })
})

describe.each(['DynamoDB', 'Redis'])('a record in %s that is damaged under the hands of an instance', (name) => {
  it.each<[string, Fields]>([
    ['a count that is a text', { failureCount: 'many' }],
    ['a count that is missing', { earlyCount: undefined }],
    ['a count that has no end', { failureCount: 1e30, version: 'by hand' }],
    ['the next version of the format', { schema: 2, version: 'later' }],
  ])('with %s does not hold up another service', async (_name, change) => {
    const backend = backends.get(name) as Backend
    const [bad, good] = [`bad-${randomUUID()}`, `good-${randomUUID()}`]
    // Failures are added to it: a replace would not look at its counts.
    const healthy = suspected()
    await backend.put(bad, healthy)
    const { breaker, errors, fail } = breakerOver(backend, [bad, good])
    await breaker.load()
    await backend.put(bad, { ...healthy, ...change })
    const before = await backend.raw(bad)

    for (let n = 0; n < 3; n++) {
      await fail(bad)
      await breaker.flush()
    }
    for (let n = 0; n < 3; n++) await fail(good)
    await breaker.flush()

    expect(await backend.storage.getState(good)).toMatchObject({ state: 'OPEN' })
    expect(errors.map(({ services, error }) => [services.join(), error.kind])).toEqual(
      errors.map(() => [bad, 'corrupt']),
    )
    expect(errors.length).toBeGreaterThan(0)
    expect(await backend.raw(bad)).toEqual(before)
  })
})

it('one that holds something else is warned of once, with what to do', async () => {
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const service = randomUUID()
  await redis.client().set(`circuit:${service}`, 'x')
  const { breaker, wait } = breakerOver(backends.get('Redis') as Backend, [service])
  for (let n = 0; n < 5; n++) {
    await breaker.load()
    wait(100_000)
  }
  expect(warn.mock.calls.map(([message]) => message)).toEqual([expect.stringContaining('choose another keyPrefix')])
  warn.mockRestore()
})
