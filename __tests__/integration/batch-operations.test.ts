import { randomUUID } from 'node:crypto'
import { PutItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  CircuitStorageError,
  type ICircuitStorage,
  type StateChange,
} from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientStore } from '../support/patience.ts'
import { startRedis } from '../support/redis-server.ts'
import { stopwatch } from '../support/time.ts'

const hour = 3_600_000
/** No stall of the machine outlasts this. */
const lasting = { resetTimeout: hour, maxResetTimeout: hour, cacheTtl: hour, window: hour } as const

interface Backend {
  /** What a breaker under test uses: its requests are counted. */
  readonly counted: ICircuitStorage
  /** What others use. */
  readonly other: ICircuitStorage
  /** Requests since the last time it was asked, by kind. */
  requests(): Record<string, number>
  /** Stores what is no record. */
  damage(serviceKey: string): Promise<unknown>
  stop(): Promise<void>
}

async function startDynamoDB(): Promise<Backend> {
  const server = await startDynamoDBLocal()
  const tableName = await server.createTable()
  const client = server.client(patientDynamoDB)
  let counts: Record<string, number> = {}
  client.middlewareStack.add(
    (next, context) => (args) => {
      const name = (context.commandName ?? 'unknown').replace('Command', '')
      counts[name] = (counts[name] ?? 0) + 1
      return next(args)
    },
    { step: 'initialize', name: 'countRequests' },
  )
  return {
    counted: new DynamoDBCircuitStorage({ tableName, client }),
    other: new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) }),
    requests: () => {
      const before = counts
      counts = {}
      return before
    },
    damage: (serviceKey) =>
      server.client().send(
        new PutItemCommand({
          TableName: tableName,
          Item: { PK: { S: `CIRCUIT#${serviceKey}` }, SK: { S: 'STATE' }, schema: { N: '1' }, state: { S: 'AJAR' } },
        }),
      ),
    stop: () => server.stop(),
  }
}

async function startOnRedis(): Promise<Backend> {
  const server = await startRedis()
  const client = server.client()
  await client.ping()
  // What is written at once is one pipeline.
  const write = jest.spyOn((client as unknown as { stream: NodeJS.WritableStream }).stream, 'write')
  const other = new RedisCircuitStorage({ client: server.client() })
  return {
    counted: new RedisCircuitStorage({ client }),
    other,
    requests: () => {
      const pipelines = write.mock.calls.length
      write.mockClear()
      return pipelines === 0 ? {} : { pipelines }
    },
    damage: (serviceKey) => server.client().hset(`circuit:${serviceKey}`, { schema: '1', state: 'AJAR' }),
    stop: () => server.stop(),
  }
}

describe.each([
  [
    'DynamoDB Local',
    startDynamoDB,
    { get: { BatchGetItem: 3 }, set: { BatchGetItem: 3, UpdateItem: 250 }, clear: { BatchWriteItem: 10 } },
  ],
  ['Redis', startOnRedis, { get: { pipelines: 1 }, set: { pipelines: 2 }, clear: { pipelines: 1 } }],
])('250 circuits on %s', (_name, startBackend, requests) => {
  const services = Array.from({ length: 250 }, (_, index) => `service-${index}`)
  let backend: Backend

  beforeAll(async () => {
    backend = await startBackend()
  })
  afterAll(() => backend?.stop())

  /** A breaker on keys of a test's own, which is patient, and does not probe what it opens. */
  const start = (namespace: string, storage: ICircuitStorage, options: Partial<CircuitBreakerOptions> = {}) => {
    const events: StateChange[] = []
    const breaker: CircuitBreaker = new CircuitBreaker(
      {
        services,
        storage,
        namespace,
        ...patientStore,
        ...lasting,
        // It has requests of its own.
        journal: false,
        onStateChange: (change) => events.push(change),
        onStorageError: () => {},
        ...options,
      },
      { env: {} },
    )
    return { breaker, events }
  }
  const stateOf = (index: number): 'OPEN' | 'CLOSED' => (index % 5 === 0 ? 'CLOSED' : 'OPEN')
  const wanted = services.map((service, index) => [service, stateOf(index)] as const)
  /** So that no request is for a script or a connection. */
  const warmUp = async (breaker: CircuitBreaker): Promise<void> => {
    await breaker.batchSetState({ 'service-0': 'CLOSED' })
    backend.requests()
  }

  it('are read, set and deleted in as few requests as there can be', async () => {
    const namespace = randomUUID()
    const { breaker, events } = start(namespace, backend.counted)
    await warmUp(start(randomUUID(), backend.counted).breaker)

    const setting = stopwatch()
    const stored = await breaker.batchSetState(wanted)
    const setIn = setting()
    expect(backend.requests()).toEqual(requests.set)
    const reading = stopwatch()
    const read = await breaker.batchGetState([...services, ...services])
    const readIn = reading()
    expect(backend.requests()).toEqual(requests.get)
    expect(read).toEqual(stored)
    expect([...read].map(([service, { state }]) => [service, state])).toEqual(wanted)
    expect(events).toHaveLength(200)

    const { breaker: reader } = start(namespace, backend.other)
    await reader.load()
    expect(services.map((service) => reader.circuits[service]?.state)).toEqual(wanted.map(([, state]) => state))

    await breaker.batchClearState()
    expect(backend.requests()).toEqual(requests.clear)
    expect(await breaker.batchGetState()).toEqual(new Map())
    expect(backend.requests()).toEqual(requests.get)
    await breaker.batchGetState([])
    await breaker.batchSetState({})
    await breaker.batchClearState([])
    expect(backend.requests()).toEqual({})
    console.info(`250 circuits on ${_name}: set in ${Math.round(setIn)} ms, read in ${Math.round(readIn)} ms`)
  })

  it('are set against 3 operators and failures at the same time; each transition is told once', async () => {
    const namespace = randomUUID()
    const operators = [backend.counted, backend.other, backend.other].map((storage) => start(namespace, storage))
    const victims = services.slice(0, 40)
    const { breaker: caller, events } = start(namespace, backend.other, { failureThreshold: 2 })
    const fails = async (): Promise<never> => {
      throw Object.assign(new Error('down'), { status: 503 })
    }

    await Promise.all([
      ...operators.map(({ breaker }) => breaker.batchSetState(services.map((service) => [service, 'OPEN']))),
      ...victims.map(async (service) => {
        await caller.call(service, fails).catch(() => {})
        await caller.call(service, fails).catch(() => {})
      }),
    ])
    await caller.flush()
    await caller.batchGetState()

    const records = await operators[0]?.breaker.batchGetState()
    expect(records?.size).toBe(250)
    expect(new Set(Array.from(records?.values() ?? [], ({ state }) => state))).toEqual(new Set(['OPEN']))
    const told = [...operators.flatMap((operator) => operator.events), ...events]
    expect(told.map(({ service }) => service).sort()).toEqual([...services].sort())
    expect(new Set(told.map(({ generation }) => generation))).toEqual(new Set([1]))
    // Every operator wrote each circuit, one after the other.
    for (const [service, { generation }] of records ?? []) {
      expect([service, generation]).toEqual([service, victims.includes(service) ? expect.any(Number) : 3])
      expect(generation).toBeGreaterThanOrEqual(3)
      expect(generation).toBeLessThanOrEqual(4)
    }
    await caller.batchClearState()
  })

  it('are told apart where some are damaged: those are not opened, the others are read and set', async () => {
    const namespace = randomUUID()
    const { breaker } = start(namespace, backend.counted)
    const bad = ['service-3', 'service-130']
    for (const service of bad) await backend.damage(`${namespace}#${service}`)

    // To close a damaged one would repair it.
    const opened = {
      ...Object.fromEntries(wanted),
      ...Object.fromEntries(bad.map((service) => [service, 'OPEN' as const])),
    }
    for (const run of [() => breaker.batchGetState(), () => breaker.batchSetState(opened)]) {
      const error = await run().then(
        () => expect('no error').toBe('an error'),
        (reason: unknown) => reason,
      )
      expect(error).toBeInstanceOf(CircuitStorageError)
      const { results, errors } = error as CircuitStorageError
      expect([...(errors?.keys() ?? [])].sort()).toEqual([...bad].sort())
      for (const one of errors?.values() ?? []) expect(one.corrupt).toBe(true)
      expect(results?.size ?? 0).toBe(run.toString().includes('Set') ? 248 : 0)
    }
    await breaker.batchClearState()
    expect(await breaker.batchSetState(wanted)).toHaveProperty('size', 250)
    await breaker.batchClearState()
  })
})
