import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { CircuitRecord } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type Behaviour, type HttpService, startHttpService } from '../support/http-service.ts'
import { patientRedis, patientRedisUrl, patientVariables } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { type Clock, startClock } from './clock.ts'
import type { ExecutionEnvironment } from './environment.ts'
import { deploy, type Platform } from './platform.ts'
import type { Exit } from './runtime-process.ts'

let redis: RedisServer

beforeAll(async () => {
  redis = await startRedis()
})

afterAll(() => redis.stop())

interface Deployment extends AsyncDisposable {
  readonly service: HttpService
  readonly platform: Platform
  /** Moves only as the test says. */
  readonly clock: Clock
  record(): Promise<CircuitRecord | undefined>
}

let deployments = 0

interface Options {
  /** The function goes by the real clock, under which nothing is patient by itself. */
  readonly inRealTime?: true
}

async function deployHandler(handler: string, behaviour: Behaviour, { inRealTime }: Options = {}): Promise<Deployment> {
  const service = await startHttpService(behaviour)
  const clock = startClock()
  const namespace = `exits-${++deployments}`
  const platform = deploy({
    handler,
    ...(!inRealTime && { timeout: 3_000, clock }),
    variables: {
      SERVICE: service.url,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(redis.url),
      ...(inRealTime && patientVariables),
    },
  })
  const storage = new RedisCircuitStorage({ client: redis.client(patientRedis) })
  return {
    service,
    platform,
    clock,
    record: () => storage.getState(`${namespace}#stripe`),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([service.stop(), platform.stop()])
      clock[Symbol.dispose]()
    },
  }
}

/** Ends the environment under a clock that stands still, so that it is never killed; resolves when it has ended by itself. */
async function endOf(environment: ExecutionEnvironment): Promise<Exit> {
  const ended = environment.shutdown({ grace: 500 })
  await waitFor('the process ends by itself', () => environment.exit())
  const { code, signal } = await ended
  return { code, signal }
}

/** Stores nothing but what is left over. */
const idle = { skips: true, settles: true }

describe('an invocation that ends otherwise than by its handler', () => {
  it('because a middleware before ours answers: what was left over waits for the next, and is counted once', async () => {
    await using deployment = await deployHandler('payment.earlyBefore', 'hangs')
    const { platform, record, service } = deployment
    await platform.invoke({ detached: true })
    await service.release(503)
    expect((await platform.invoke({ early: true })).payload).toBe('answered early')
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
    await platform.invoke({ early: true })
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
  })

  it('because a middleware after ours answers: what was left over was stored before', async () => {
    await using deployment = await deployHandler('payment.earlyAfter', 'hangs')
    const { platform, record, service } = deployment
    await platform.invoke({ detached: true })
    await service.release(503)
    expect((await platform.invoke({ early: true })).payload).toBe('answered early')
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
  })

  it('because the error handler of another middleware answers: the failure is stored by then or by the next', async () => {
    await using deployment = await deployHandler('payment.handledByOther', { status: 503 })
    const { platform, record } = deployment
    expect((await platform.invoke({ throws: 'refused' })).payload).toBe('handled by another')
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
  })

  it('because the handler throws: the error is its own, and the failure of its call is stored', async () => {
    await using deployment = await deployHandler('payment.guarded', { status: 503 })
    const { outcome, error } = await deployment.platform.invoke({ throws: 'out of range' })
    expect([outcome, error]).toMatchObject(['error', { errorType: 'RangeError', errorMessage: 'out of range' }])
    expect(await deployment.record()).toMatchObject({ failureCount: 1 })
  })

  it('because other middlewares throw, although with a 503: nothing is masked, and nothing of it counts', async () => {
    await using deployment = await deployHandler('payment.failingMiddlewares', 'answers')
    const { platform, record, service } = deployment
    // Ours has an onError then, whose before never ran.
    const before = await platform.invoke({ failsIn: 'before' })
    const after = await platform.invoke({ failsIn: 'after' })
    expect([before.error?.errorMessage, after.error?.errorMessage]).toEqual(['failed in before', 'failed in after'])
    expect(service.requests).toHaveLength(1)
    expect(await record()).toBeUndefined()
    service.behave({ status: 503 })
    await platform.invoke({ failsIn: 'after' })
    await platform.invoke({ failsIn: 'after' })
    // Two in a row: the first of a working service is held back.
    expect(await record()).toMatchObject({ failureCount: 2 })
  })

  it('because Middy answers early, while the handler goes on: what its call came to is counted once', async () => {
    await using deployment = await deployHandler('payment.earlyTimeout', 'hangs')
    const { platform, record, service, clock } = deployment
    const invocation = platform.invoke({})
    await service.received(1)
    clock.pass(500)
    expect((await invocation).payload).toBe('early timeout')
    await service.release(503)
    expect(await record()).toBeUndefined()
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
    await platform.invoke(idle)
    expect(await record()).toMatchObject({ failureCount: 1 })
  })

  it('because Middy answers early and aborts the call by its signal: that is no failure of the service', async () => {
    await using deployment = await deployHandler('payment.earlyTimeoutWithSignal', 'hangs')
    const { platform, record, service, clock } = deployment
    for (let invocation = 1; invocation <= 2; invocation++) {
      const cut = platform.invoke({})
      await service.received(invocation)
      clock.pass(500)
      expect((await cut).payload).toBe('early timeout')
    }
    expect(await record()).toBeUndefined()
    await waitFor(
      'both connections are closed',
      () => service.requests,
      (requests) => requests.length === 2 && requests.every(({ abandonedAt }) => abandonedAt !== undefined),
    )
  })

  it('because it does not wait for its call: the outcome goes out with the next opportunity, once', async () => {
    await using deployment = await deployHandler('payment.guarded', 'hangs')
    const { platform, record, service } = deployment
    await Promise.all([platform.invoke({ detached: true }), platform.invoke({ detached: true })])
    await service.release(503)
    expect(await record()).toBeUndefined()
    await Promise.all([platform.invoke(idle), platform.invoke(idle)])
    expect(platform.coldStarts()).toBe(2)
    expect(await record()).toMatchObject({ failureCount: 1, earlyCount: 1, reporterCount: 2 })
    await Promise.all([platform.invoke(idle), platform.invoke(idle)])
    expect(await record()).toMatchObject({ failureCount: 1, earlyCount: 1, reporterCount: 2 })
  })
})

describe('a streamed response', () => {
  it('is written by guarded calls, whose outcomes are stored at its end', async () => {
    await using deployment = await deployHandler('streaming.flushed', { status: 503 })
    const { platform, record, service } = deployment
    const { outcome, body } = await platform.invoke({ calls: 5 })
    expect(outcome).toBe('response')
    expect(body).toContain(['503 CLOSED', '503 CLOSED', '503 OPEN', 'CircuitOpenError OPEN'].join('\n'))
    expect(service.requests).toHaveLength(3)
    expect(await record()).toMatchObject({ state: 'OPEN', failureCount: 3 })
  })

  it('leaves them to the next invocation where nobody flushes at its end', async () => {
    await using deployment = await deployHandler('streaming.unflushed', { status: 503 })
    const { platform, record } = deployment
    await platform.invoke({ calls: 2 })
    await platform.invoke({ calls: 0 })
    expect(await record()).toMatchObject({ state: 'CLOSED', failureCount: 2 })
  })

  it('ends its process where its body fails: what was flushed before is stored', async () => {
    await using deployment = await deployHandler('streaming.failing', { status: 503 })
    const { outcome, body } = await deployment.platform.invoke({})
    expect(outcome).toBe('exited')
    expect(body).toMatch(/"statusCode":200.*the first half$/s)
    expect(await deployment.record()).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })
})

describe('the end of an environment', () => {
  it('is as it would be without us: nothing listens for it, whatever waits to be stored', async () => {
    await using deployment = await deployHandler('payment.guarded', 'hangs')
    const { platform, service } = deployment
    await platform.invoke({ detached: true })
    const { environment, payload } = await platform.invoke({ skips: true })
    expect(payload).toMatchObject({ listeners: 0 })
    await service.release(503)
    expect(await endOf(environment)).toEqual({ code: null, signal: 'SIGTERM' })
  })
})
