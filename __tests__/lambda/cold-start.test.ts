import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedisUrl, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { type Clock, startClock } from './clock.ts'
import { startEnvironment } from './environment.ts'
import { proxyFor } from './proxy.ts'

let database: DynamoDBServer
let redis: RedisServer

beforeAll(async () => {
  ;[database, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
})

afterAll(() => Promise.all([database.stop(), redis.stop()]))

interface Table extends AsyncDisposable {
  readonly variables: Record<string, string>
  /** The operations that DynamoDB was asked for, in order. */
  readonly operations: string[]
  /** Resolves when there are so many of them. */
  asked(count: number): Promise<void>
}

/** A table in which the circuit is open, behind a counter of requests. */
async function tableWithOpenCircuit(): Promise<Table> {
  const tableName = await database.createTable()
  const storage = new DynamoDBCircuitStorage({ tableName, client: database.client(patientDynamoDB) })
  await new CircuitBreaker({ services: ['stripe'], storage, ...patientStore }).forceOpen('stripe')
  const operations: string[] = []
  const server: Server = createServer(async (request, response) => {
    operations.push(String(request.headers['x-amz-target']).split('.').at(-1) ?? '')
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { host: _, ...headers } = request.headers as Record<string, string>
    const answer = await fetch(database.endpoint, { method: 'POST', headers, body: Buffer.concat(chunks) })
    const { status } = answer
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' })
    response.end(Buffer.from(await answer.arrayBuffer()))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    variables: {
      CIRCUIT_BREAKER_TABLE_NAME: tableName,
      AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    },
    operations,
    asked: async (count) => {
      await waitFor(
        `DynamoDB was asked ${count} times`,
        () => operations,
        () => operations.length >= count,
      )
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('a cold start', () => {
  // It stands still, so that no store is too slow and nothing that was read gets stale.
  let clock: Clock

  beforeEach(() => {
    clock = startClock()
  })

  afterEach(() => clock[Symbol.dispose]())

  it('begins to load the client library as soon as the middleware is made, and asks for nothing', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: table.variables,
      clock,
      freezes: false,
    })
    expect(table.operations).toEqual([])
    const libraries = ['@aws-sdk\\/client-dynamodb', 'src\\/storage\\/dynamodb\\/storage']
    const { payload } = await environment.invoke({ waitsFor: 2 })
    expect(payload).toEqual({ state: 'OPEN', duringInit: libraries, now: libraries })
    expect(table.operations).toEqual(['BatchGetItem'])
  })

  it('begins to load ioredis so, and connects to nothing', async () => {
    await using proxy = await proxyFor(redis.port)
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(`redis://127.0.0.1:${proxy.port}`) },
      clock,
      freezes: false,
    })
    expect(proxy.connections()).toBe(0)
    const { payload } = await environment.invoke({ waitsFor: 2 })
    expect(payload).toMatchObject({ duringInit: ['\\/ioredis\\/', 'src\\/storage\\/redis\\/storage'] })
    expect(proxy.connections()).toBe(1)
  })

  it('loads ioredis in the first invocation where preload is false and the state is in Redis', async () => {
    await using proxy = await proxyFor(redis.port)
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: {
        CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(`redis://127.0.0.1:${proxy.port}`),
        CIRCUIT_BREAKER_PRELOAD: 'false',
      },
      clock,
      freezes: false,
    })
    expect(proxy.connections()).toBe(0)
    const { payload } = await environment.invoke({})
    expect(payload).toEqual({
      state: 'CLOSED',
      duringInit: [],
      now: ['\\/ioredis\\/', 'src\\/storage\\/redis\\/storage'],
    })
    expect(proxy.connections()).toBe(1)
  })

  it('asks for nothing and loads no client library before the first invocation where preload is false', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { ...table.variables, CIRCUIT_BREAKER_PRELOAD: 'false' },
      clock,
      freezes: false,
    })
    expect(table.operations).toEqual([])
    const { payload } = await environment.invoke({})
    expect(payload).toEqual({
      state: 'OPEN',
      duringInit: [],
      now: ['@aws-sdk\\/client-dynamodb', 'src\\/storage\\/dynamodb\\/storage'],
    })
    expect(table.operations).toEqual(['BatchGetItem'])
  })

  it('reads during init with prefetch, and the first invocation finds what was read', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { ...table.variables, CIRCUIT_BREAKER_PREFETCH: 'true' },
      clock,
      freezes: false,
    })
    await table.asked(1)
    const { payload } = await environment.invoke({})
    expect(payload).toMatchObject({ state: 'OPEN' })
    expect(table.operations).toEqual(['BatchGetItem'])
  })

  it('with prefetch waits in its first invocation for what a freeze after init has held up', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { ...table.variables, CIRCUIT_BREAKER_PREFETCH: 'true' },
      clock,
    })
    clock.pass(1_000)
    const { payload, logs } = await environment.invoke({})
    expect(payload).toMatchObject({ state: 'OPEN' })
    expect(logs).toEqual([])
  })
})
