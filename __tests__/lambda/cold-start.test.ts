import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { startEnvironment } from './environment.ts'

let database: DynamoDBServer
let redis: RedisServer

beforeAll(async () => {
  ;[database, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
}, 60_000)

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
  const storage = new DynamoDBCircuitStorage({ tableName, client: database.client() })
  await new CircuitBreaker({ services: ['stripe'], storage }).forceOpen('stripe')
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
      while (operations.length < count) await new Promise((resolve) => setTimeout(resolve, 10))
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('a cold start', () => {
  it('loads ioredis in the first invocation where the state is in Redis', async () => {
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { CIRCUIT_BREAKER_REDIS_URL: redis.url },
      freezes: false,
    })
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect((await redis.client().info('clients')).match(/connected_clients:(\d+)/)?.[1]).toBe('1')
    const { payload } = await environment.invoke({})
    expect(payload).toEqual({ state: 'CLOSED', duringInit: [], now: ['\\/ioredis\\/', 'src\\/storage\\/redis\\.ts'] })
  })

  it('asks for nothing and loads no client library before the first invocation', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: table.variables,
      freezes: false,
    })
    // Longer than a request would take.
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(table.operations).toEqual([])
    const { payload } = await environment.invoke({})
    expect(payload).toEqual({
      state: 'OPEN',
      duringInit: [],
      now: ['@aws-sdk\\/client-dynamodb', 'src\\/storage\\/dynamodb'],
    })
    expect(table.operations).toEqual(['BatchGetItem'])
  })

  it('reads during init with prefetch, and the first invocation finds what was read', async () => {
    await using table = await tableWithOpenCircuit()
    await using environment = await startEnvironment({
      handler: 'cold-start.handler',
      variables: { ...table.variables, CIRCUIT_BREAKER_PREFETCH: 'true' },
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
    })
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    const { payload, logs } = await environment.invoke({})
    expect(payload).toMatchObject({ state: 'OPEN' })
    expect(logs).toEqual([])
  })
})
