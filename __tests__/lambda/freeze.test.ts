import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type Behaviour, type HttpService, startHttpService } from '../support/http-service.ts'
import { type RedisServer, startProxy, startRedis } from '../support/redis-server.ts'
import type { PaymentResult } from './handlers/payment.ts'
import { deploy, type Platform } from './platform.ts'

let redis: RedisServer
let database: DynamoDBServer

beforeAll(async () => {
  ;[redis, database] = await Promise.all([startRedis(), startDynamoDBLocal()])
}, 60_000)

afterAll(() => Promise.all([redis.stop(), database.stop()]))

/** Short enough for a freeze to outlast them all, but for the time in which failures count. */
const scaledDown = {
  CIRCUIT_BREAKER_CACHE_TTL: '200',
  CIRCUIT_BREAKER_RESET_TIMEOUT: '200',
  CIRCUIT_BREAKER_STORAGE_TIMEOUT: '400',
  CIRCUIT_BREAKER_TIMEOUT: '400',
}
const freeze = 1_000

interface Deployment extends AsyncDisposable {
  readonly service: HttpService
  readonly platform: Platform
  readonly storage: RedisCircuitStorage
  /** An instance somewhere else. */
  readonly other: CircuitBreaker<'stripe'>
}

let deployments = 0

async function deployPayment(
  behaviour: Behaviour,
  variables: Readonly<Record<string, string>> = {},
  port = redis.port,
  handler = 'guarded',
): Promise<Deployment> {
  const service = await startHttpService(behaviour)
  const namespace = `freeze-${++deployments}`
  const platform = deploy({
    handler: `payment.${handler}`,
    timeout: 3_000,
    variables: {
      SERVICE: service.url,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      CIRCUIT_BREAKER_REDIS_URL: `redis://127.0.0.1:${port}`,
      ...scaledDown,
      ...variables,
    },
  })
  const storage = new RedisCircuitStorage({ client: redis.client() })
  const other = new CircuitBreaker({ services: ['stripe'], storage, namespace, failureThreshold: 1, resetTimeout: 1 })
  return {
    service,
    platform,
    storage: scoped(storage, namespace),
    other,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([service.stop(), platform.stop()])
    },
  }
}

/** The records of one namespace. */
function scoped(storage: RedisCircuitStorage, namespace: string): RedisCircuitStorage {
  return Object.assign(Object.create(storage) as RedisCircuitStorage, {
    getState: (key: string) => storage.getState(`${namespace}#${key}`),
  })
}

const of = (payload: unknown): PaymentResult => payload as PaymentResult

async function failOnce(breaker: CircuitBreaker<'stripe'>): Promise<void> {
  const unavailable = Object.assign(new Error('503'), { status: 503 })
  await breaker.call('stripe', () => Promise.reject(unavailable)).catch(() => {})
  await breaker.flush()
}

describe('an environment that was frozen for longer than every setting', () => {
  it('takes what it knew for stale, and refuses at once what others have found out', async () => {
    await using deployment = await deployPayment('answers', { CIRCUIT_BREAKER_RESET_TIMEOUT: '60000' })
    const { platform, other, service } = deployment
    expect((await platform.invoke({})).payload).toMatchObject({ status: 200, state: 'CLOSED' })
    await other.forceOpen('stripe')
    await sleep(freeze)
    const { payload, coldStart } = await platform.invoke({})
    expect([coldStart, of(payload).error]).toEqual([false, { name: 'CircuitOpenError', reason: 'forced' }])
    expect(service.requests).toHaveLength(1)
  })

  it('hears the answer that came while it was frozen, and takes nobody’s time for over', async () => {
    await using deployment = await deployPayment({ after: 200 })
    const { platform, storage } = deployment
    await platform.invoke({})
    await platform.invoke({ detached: true })
    await sleep(freeze)
    const { logs } = await platform.invoke({ waitsFirst: 100 })
    expect(logs.map(({ message }) => message)).toContain('{"detached":{"status":200}}')
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('counts a failure that came while it was frozen, once', async () => {
    await using deployment = await deployPayment({ status: 503, after: 200 })
    const { platform, storage } = deployment
    await platform.invoke({ detached: true })
    expect(await storage.getState('stripe')).toBeUndefined()
    await sleep(freeze)
    expect(await storage.getState('stripe')).toBeUndefined()
    await platform.invoke({ skips: true, waitsFirst: 100 })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
    await platform.invoke({ skips: true, waitsFirst: 100 })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('blames nobody where the time of a call was over in a freeze', async () => {
    await using deployment = await deployPayment('hangs')
    const { platform, storage } = deployment
    await platform.invoke({ detached: true })
    await sleep(freeze)
    const { logs } = await platform.invoke({ skips: true, waitsFirst: 400 })
    expect(logs.map(({ message }) => message)).toContain(
      '{"detached":{"error":{"name":"CircuitTimeoutError","reason":"timeout","attempted":true}}}',
    )
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('blames nobody, however soon after that time it was thawed', async () => {
    await using deployment = await deployPayment({ after: 150 })
    const { platform, storage } = deployment
    for (let round = 0; round < 3; round++) {
      const startedAt = Date.now()
      await platform.invoke({ detached: true })
      await sleep(startedAt + 450 + 60 * round - Date.now())
      const { logs } = await platform.invoke({ skips: true, waitsFirst: 100 })
      expect(logs.map(({ message }) => message)).toContain('{"detached":{"status":200}}')
    }
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('hears what the store answered while it was frozen', async () => {
    await using deployment = await deployPayment({ status: 503 }, {}, redis.port, 'handledByOther')
    const { platform, storage } = deployment
    await platform.invoke({ skips: true })
    // Writes wait for 600 ms, and another middleware ends the invocation before ours can wait for them.
    await redis.client().call('CLIENT', 'PAUSE', '600', 'WRITE')
    expect((await platform.invoke({ throws: 'at once' })).payload).toBe('handled by another')
    // Longer than that and than storageTimeout, and far from the 2 s after which ioredis itself gives up.
    await sleep(700)
    const { logs } = await platform.invoke({ skips: true, waitsFirst: 100 })
    expect(logs).toEqual([])
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 1 })
  })

  it('sends again what the store’s client has given up by then, and it is counted once', async () => {
    await using deployment = await deployPayment({ status: 503 }, {}, redis.port, 'handledByOther')
    const { platform, storage } = deployment
    await platform.invoke({ skips: true })
    await redis.client().call('CLIENT', 'PAUSE', '600', 'WRITE')
    expect((await platform.invoke({ throws: 'at once' })).payload).toBe('handled by another')
    await sleep(2_300)
    for (let invocation = 0; invocation < 2; invocation++) await platform.invoke({ skips: true, waitsFirst: 100 })
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 1 })
  })

  it('credits an outcome to the generation in which its call began: after a trip and a recovery it is of none', async () => {
    await using deployment = await deployPayment({ status: 503, after: 200 })
    const { platform, storage, other } = deployment
    await platform.invoke({ detached: true })
    await failOnce(other)
    await sleep(freeze)
    await other.call('stripe', async () => 'ok')
    await other.flush()
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3 })
    const { logs } = await platform.invoke({ skips: true, waitsFirst: 100 })
    expect(logs.map(({ message }) => message)).toContain('{"detached":{"status":503}}')
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3, failureCount: 0 })
  })
})

describe('a connection to the store that died in a freeze', () => {
  it('is made anew: Redis closed it', async () => {
    await using deployment = await deployPayment({ status: 503 })
    const { platform, storage } = deployment
    await platform.invoke({})
    expect(await redis.client().call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')).toBeGreaterThan(0)
    await sleep(freeze)
    const { outcome, payload, duration } = await platform.invoke({})
    expect([outcome, of(payload).status]).toEqual(['response', 503])
    expect(duration).toBeLessThan(600)
    await platform.invoke({})
    await platform.invoke({})
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN' })
  })

  it.each(['Redis', 'DynamoDB'])(
    'delays by no more than storageTimeout where %s says nothing any more',
    async (store) => {
      const target = store === 'Redis' ? redis.port : Number(new URL(database.endpoint).port)
      const proxy = await startProxy({ port: target })
      const dynamodb = store === 'DynamoDB' && {
        CIRCUIT_BREAKER_STORAGE: 'dynamodb',
        CIRCUIT_BREAKER_TABLE_NAME: await database.createTable(),
        AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${proxy.port}`,
      }
      await using deployment = await deployPayment('answers', { ...dynamodb }, proxy.port)
      const { platform } = deployment
      await platform.invoke({})
      proxy.blackHole()
      await sleep(freeze)
      const { outcome, payload, duration } = await platform.invoke({})
      expect([outcome, of(payload).status]).toEqual(['response', 200])
      // The one read; there is nothing to write.
      expect(duration).toBeGreaterThan(350)
      expect(duration).toBeLessThan(900)
      await proxy.stop()
    },
  )
})
