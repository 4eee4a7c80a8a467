import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type HttpService, startHttpService } from '../support/http-service.ts'
import { patientRedisUrl, patientVariables } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { startEnvironment } from './environment.ts'
import { proxyFor } from './proxy.ts'
import { makeSmallFunctions, type SmallFunctions } from './small-function.ts'

let redis: RedisServer
let database: DynamoDBServer
let service: HttpService
let functions: SmallFunctions

beforeAll(async () => {
  const entry = fileURLToPath(new URL('../../src/index.ts', import.meta.url))
  ;[redis, database, service, functions] = await Promise.all([
    startRedis(),
    startDynamoDBLocal(),
    startHttpService('answers'),
    makeSmallFunctions(entry),
  ])
})

afterAll(() => Promise.all([redis.stop(), database.stop(), service.stop(), functions[Symbol.asyncDispose]()]))

const forms = [
  ['DynamoDB', 'unbundled'],
  ['DynamoDB', 'bundled'],
  ['Redis', 'unbundled'],
  ['Redis', 'bundled'],
  ['DynamoDB', 'CommonJS behind an ES module'],
] as const

describe('a function with a seventh of a processor, which waits for load() while it starts', () => {
  it.each(forms)('has connected to %s before the first event, and reaches the service: %s', async (store, form) => {
    const port = store === 'Redis' ? redis.port : Number(new URL(database.endpoint).port)
    await using proxy = await proxyFor(port)
    const variables = {
      ...patientVariables,
      ...(store === 'Redis'
        ? { CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(`redis://127.0.0.1:${proxy.port}`) }
        : {
            CIRCUIT_BREAKER_TABLE_NAME: await database.createTable(),
            AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${proxy.port}`,
          }),
    }
    await using environment = await startEnvironment({
      handler: 'elsewhere.handler',
      variables: {
        ...variables,
        SERVICE: service.url,
        HANDLER_FILE: form === 'unbundled' || form === 'bundled' ? functions.files.guarded[form] : functions.commonJs,
      },
      freezes: false,
    })
    expect(proxy.connections()).toBe(1)
    const { payload, logs } = await environment.invoke({}, { cpu: 0.14 })
    expect([payload, logs]).toEqual([200, []])
    expect(proxy.connections()).toBe(1)
  })
})

describe('a function with a seventh of a processor, which waits for nothing while it starts', () => {
  it.each(['unbundled', 'bundled'] as const)('reaches the service all the same: %s', async (form) => {
    await using environment = await startEnvironment({
      handler: 'elsewhere.handler',
      variables: {
        CIRCUIT_BREAKER_TABLE_NAME: await database.createTable(),
        AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
        SERVICE: service.url,
        HANDLER_FILE: functions.files['guarded, not awaited'][form],
      },
      freezes: false,
    })
    expect((await environment.invoke({}, { cpu: 0.14 })).payload).toBe(200)
  })
})
