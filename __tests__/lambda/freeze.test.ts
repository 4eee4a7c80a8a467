import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type Behaviour, type HttpService, startHttpService } from '../support/http-service.ts'
import { patientRedis, patientRedisUrl, patientStore, patientVariables } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { outlast, patience, stopwatch, waitFor } from '../support/time.ts'
import { type Clock, startClock } from './clock.ts'
import type { InvocationResult } from './environment.ts'
import type { PaymentResult } from './handlers/payment.ts'
import { deploy, type Platform } from './platform.ts'
import { proxyFor } from './proxy.ts'

let redis: RedisServer
let database: DynamoDBServer

beforeAll(async () => {
  ;[redis, database] = await Promise.all([startRedis(), startDynamoDBLocal()])
})

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
  /** Moves only as the test says; so a freeze takes no time but what is said here. */
  readonly clock: Clock
  /** An instance somewhere else, under the same clock. */
  readonly other: CircuitBreaker<'stripe'>
}

interface Options {
  readonly handler?: string
  readonly variables?: Readonly<Record<string, string>>
  /** The address of Redis. */
  readonly url?: string
  /** The function goes by the real clock, under which nothing is patient by itself. */
  readonly inRealTime?: true
}

let deployments = 0

async function deployPayment(behaviour: Behaviour, options: Options = {}): Promise<Deployment> {
  const { handler = 'guarded', variables, url = redis.url, inRealTime } = options
  const service = await startHttpService(behaviour)
  const clock = startClock()
  const namespace = `freeze-${++deployments}`
  const platform = deploy({
    handler: `payment.${handler}`,
    ...(!inRealTime && { timeout: 3_000, clock }),
    variables: {
      SERVICE: service.url,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      CIRCUIT_BREAKER_REDIS_URL: url,
      ...(inRealTime ? patientVariables : scaledDown),
      ...variables,
    },
  })
  const storage = new RedisCircuitStorage({ client: redis.client(patientRedis) })
  const settings = { namespace, failureThreshold: 1, resetTimeout: 1, ...patientStore }
  const other = new CircuitBreaker({ services: ['stripe'], storage, ...settings }, { env: {}, now: clock.now })
  return {
    service,
    platform,
    storage: scoped(storage, namespace),
    clock,
    other,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([service.stop(), platform.stop()])
      clock[Symbol.dispose]()
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

const messagesOf = ({ logs }: Pick<InvocationResult, 'logs'>): string[] => logs.map(({ message }) => message)

const timedOut = '{"detached":{"error":{"name":"CircuitTimeoutError","reason":"timeout","attempted":true}}}'

/** A circuit that does not open by the failures of a test. */
const patientCircuit = { CIRCUIT_BREAKER_FAILURE_THRESHOLD: '9' }

describe('an environment that was frozen for longer than every setting', () => {
  it('takes what it knew for stale, and refuses at once what others have found out', async () => {
    const variables = { CIRCUIT_BREAKER_RESET_TIMEOUT: '60000' }
    await using deployment = await deployPayment('answers', { variables })
    const { platform, other, service, clock } = deployment
    expect((await platform.invoke({})).payload).toMatchObject({ status: 200, state: 'CLOSED' })
    await other.forceOpen('stripe')
    clock.pass(freeze)
    const { payload, coldStart } = await platform.invoke({})
    expect([coldStart, of(payload).error]).toEqual([false, { name: 'CircuitOpenError', reason: 'forced' }])
    expect(service.requests).toHaveLength(1)
  })

  it('hears the answer that came while it was frozen, and takes nobody’s time for over', async () => {
    await using deployment = await deployPayment('hangs')
    const { platform, storage, service, clock } = deployment
    await platform.invoke({ detached: true })
    await service.release()
    clock.pass(freeze)
    expect(messagesOf(await platform.invoke({ skips: true, settles: true }))).toEqual(['{"detached":{"status":200}}'])
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('counts a failure that came while it was frozen, once', async () => {
    await using deployment = await deployPayment('hangs')
    const { platform, storage, service, clock } = deployment
    await platform.invoke({ detached: true })
    expect(await storage.getState('stripe')).toBeUndefined()
    await service.release(503)
    clock.pass(freeze)
    expect(await storage.getState('stripe')).toBeUndefined()
    await platform.invoke({ skips: true, settles: true })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
    await platform.invoke({ skips: true, settles: true })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('blames nobody where the time of a call was over in a freeze', async () => {
    // The only one of these in real time. On a machine so slow that the time is over before the freeze has begun, it takes
    // twice the time.
    for (let timeout = 1_000; ; timeout *= 2) {
      const variables = { CIRCUIT_BREAKER_TIMEOUT: String(timeout) }
      await using deployment = await deployPayment('hangs', { variables, inRealTime: true })
      const { platform, storage } = deployment
      await platform.invoke({ skips: true })
      const watch = stopwatch()
      await platform.invoke({ detached: true })
      if (watch() >= timeout) continue
      await outlast(timeout + 100)
      expect(messagesOf(await platform.invoke({ skips: true, settles: true }))).toEqual([timedOut])
      expect(await storage.getState('stripe')).toBeUndefined()
      return
    }
  })

  it('blames nobody, however soon after that time it was thawed', async () => {
    await using deployment = await deployPayment('hangs')
    const { platform, storage, service, clock } = deployment
    for (const late of [11, 60, 170]) {
      await platform.invoke({ detached: true })
      await service.release()
      clock.pass(400 + late)
      expect(messagesOf(await platform.invoke({ skips: true, settles: true }))).toEqual(['{"detached":{"status":200}}'])
    }
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('hears what the store answered while it was frozen', async () => {
    await using deployment = await deployPayment(
      { status: 503 },
      { handler: 'handledByOther', variables: patientCircuit },
    )
    const { platform, storage, clock } = deployment
    const administrator = redis.client(patientRedis)
    // Redis knows the scripts from now on: that of a suspicion, and that of an addition.
    await platform.invoke({})
    await platform.invoke({})
    // Writes wait, and another middleware ends the invocation before ours can wait for them.
    await administrator.call('CLIENT', 'PAUSE', String(10 * patience), 'WRITE')
    expect((await platform.invoke({ throws: 'at once' })).payload).toBe('handled by another')
    await administrator.call('CLIENT', 'UNPAUSE')
    await waitFor(
      'the store has written',
      () => storage.getState('stripe'),
      (record) => record?.failureCount === 3,
    )
    // Longer than storageTimeout, and far from the 2 s after which ioredis itself gives up.
    clock.pass(700)
    const { logs } = await platform.invoke({ skips: true })
    expect(logs).toEqual([])
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 3 })
  })

  it('sends again what the store’s client has given up by then, and it is counted once', async () => {
    // The client gives up its command, but not the connection: to connect anew takes time.
    const url = `${redis.url}?socketTimeout=${patience}`
    await using deployment = await deployPayment(
      { status: 503 },
      { handler: 'handledByOther', variables: patientCircuit, url },
    )
    const { platform, storage, clock } = deployment
    const administrator = redis.client(patientRedis)
    await platform.invoke({})
    await platform.invoke({})
    await administrator.call('CLIENT', 'PAUSE', String(10 * patience), 'WRITE')
    expect((await platform.invoke({ throws: 'at once' })).payload).toBe('handled by another')
    await administrator.call('CLIENT', 'UNPAUSE')
    await waitFor(
      'the store has written',
      () => storage.getState('stripe'),
      (record) => record?.failureCount === 3,
    )
    clock.pass(2_300)
    const messages = messagesOf(await platform.invoke({ skips: true }))
    expect(messages).toEqual([expect.stringContaining('did not answer within commandTimeout')])
    await platform.invoke({ skips: true })
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 3 })
  })

  it('credits an outcome to the generation in which its call began: after a trip and a recovery it is of none', async () => {
    await using deployment = await deployPayment('hangs')
    const { platform, storage, other, service, clock } = deployment
    await platform.invoke({ detached: true })
    await failOnce(other)
    await service.release(503)
    clock.pass(freeze)
    await other.call('stripe', async () => 'ok')
    await other.flush()
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3 })
    expect(messagesOf(await platform.invoke({ skips: true, settles: true }))).toContain('{"detached":{"status":503}}')
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3, failureCount: 0 })
  })
})

describe('a connection to the store that died in a freeze', () => {
  it('is made anew: Redis closed it', async () => {
    // In real time, because to connect anew takes time. What was read is stale at once.
    const variables = { CIRCUIT_BREAKER_CACHE_TTL: '1' }
    const url = patientRedisUrl(redis.url)
    await using deployment = await deployPayment({ status: 503 }, { variables, url, inRealTime: true })
    const { platform, storage } = deployment
    await platform.invoke({})
    const administrator = redis.client(patientRedis)
    expect(await administrator.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')).toBeGreaterThan(0)
    await outlast(100)
    const { outcome, payload, logs } = await platform.invoke({})
    expect([outcome, of(payload).status]).toEqual(['response', 503])
    // Nothing was waited for until a time was over: each of these times is a minute.
    expect(logs).toEqual([])
    await platform.invoke({})
    expect((await platform.invoke({})).payload).toMatchObject({ error: { name: 'CircuitOpenError' } })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN' })
  })

  it.each(['Redis', 'DynamoDB'])(
    'delays by no more than storageTimeout where %s says nothing any more',
    async (store) => {
      const target = store === 'Redis' ? redis.port : Number(new URL(database.endpoint).port)
      await using proxy = await proxyFor(target)
      const dynamodb = store === 'DynamoDB' && {
        CIRCUIT_BREAKER_TABLE_NAME: await database.createTable(),
        AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${proxy.port}`,
      }
      const url = patientRedisUrl(`redis://127.0.0.1:${proxy.port}`)
      await using deployment = await deployPayment('answers', { variables: { ...dynamodb }, url })
      const { platform, clock } = deployment
      expect((await platform.invoke({})).logs).toEqual([])
      proxy.blackHole()
      clock.pass(freeze)
      const invocation = platform.invoke({})
      clock.passOnceDue(400)
      const { outcome, payload, logs } = await invocation
      expect([outcome, payload]).toMatchObject(['response', { status: 200, remaining: 2_600 }])
      // The one read; there is nothing to write.
      expect(messagesOf({ logs })).toEqual([
        '{"operation":"batchGetState","error":"The store did not answer batchGetState within 400 ms."}',
      ])
    },
  )
})
