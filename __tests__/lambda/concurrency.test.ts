import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { startHttpService } from '../support/http-service.ts'
import { patientRedis, patientRedisUrl, patientVariables } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { startClock } from './clock.ts'
import { startEnvironment } from './environment.ts'
import type { PaymentResult } from './handlers/payment.ts'

let redis: RedisServer

beforeAll(async () => {
  redis = await startRedis()
})

afterAll(() => redis.stop())

function variables(namespace: string, service: string): Record<string, string> {
  return {
    SERVICE: service,
    CIRCUIT_BREAKER_NAMESPACE: namespace,
    CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(redis.url),
    // A circuit that is open stays so, however long the test takes.
    CIRCUIT_BREAKER_RESET_TIMEOUT: '300000',
    ...patientVariables,
  }
}

const openings = (logs: readonly { readonly message: string }[]): string[] =>
  logs.map(({ message }) => message).filter((message) => message.includes('"to":"OPEN"'))

describe('invocations that run in one process at once', () => {
  it('have each its own deadline and its own request id', async () => {
    using clock = startClock()
    await using service = await startHttpService('hangs')
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 5,
      clock,
      variables: variables('own-deadlines', service.url),
    })
    const timeouts = [2_100, 2_500, 2_900, 3_500]
    const invocations = timeouts.map((timeout) => environment.invoke({}, { timeout }))
    await service.received(4)
    const requestIds: string[] = []
    let passed = 0
    for (const [index, timeout] of timeouts.entries()) {
      clock.pass(timeout - 1_000 - passed)
      passed = timeout - 1_000
      const { payload, requestId } = await (invocations[index] as (typeof invocations)[number])
      requestIds.push(requestId)
      // The third failure opens the circuit, and the last call goes on: it was admitted before.
      expect(payload).toMatchObject({
        error: { name: 'CircuitTimeoutError', reason: 'deadline', attempted: true },
        took: passed,
        remaining: 1_000,
      })
    }
    // Who opened the circuit says so, under its own id: the third whose time was over.
    expect(openings(environment.logs).map((message) => JSON.parse(message).requestId)).toEqual([requestIds[2]])
  })

  it('share the limit of calls that are in flight', async () => {
    await using service = await startHttpService('hangs')
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 8,
      variables: { ...variables('limit', service.url), CIRCUIT_BREAKER_MAX_CONCURRENT: '2' },
    })
    const invocations = Array.from({ length: 8 }, () => environment.invoke({}))
    for (let received = 2; received <= 8; received += 2) {
      await service.received(received)
      await service.release()
    }
    const payloads = (await Promise.all(invocations)).map(({ payload }) => payload as PaymentResult)
    for (const payload of payloads) expect(payload).toMatchObject({ status: 200 })
    expect(service.requests).toHaveLength(8)
    expect(Math.max(...payloads.map(({ mostAtOnce }) => mostAtOnce))).toBe(2)
  })

  it('share what one of them learns, and store it once', async () => {
    await using service = await startHttpService('hangs')
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 8,
      variables: variables('learning', service.url),
    })
    const invocations = Array.from({ length: 5 }, () => environment.invoke({}))
    await service.received(5)
    await service.release(503)
    const first = await Promise.all(invocations)
    expect(first.map(({ payload }) => (payload as PaymentResult).status)).toEqual([503, 503, 503, 503, 503])
    const refused = await environment.invoke({})
    expect(refused.payload).toMatchObject({ error: { name: 'CircuitOpenError' } })
    const storage = new RedisCircuitStorage({ client: redis.client(patientRedis) })
    expect(await storage.getState('learning#stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(openings(environment.logs)).toHaveLength(1)
  })

  it('in several threads have an instance in each, which learn from each other by the store', async () => {
    await using service = await startHttpService({ status: 503 })
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 8,
      workers: 2,
      variables: { ...variables('threads', service.url), CIRCUIT_BREAKER_CACHE_TTL: '0' },
    })
    for (let call = 0; call < 12; call++) await environment.invoke({})
    const storage = new RedisCircuitStorage({ client: redis.client(patientRedis) })
    expect(await storage.getState('threads#stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(service.requests).toHaveLength(3)
    // The lines of a thread pass through the main one.
    const seen = await waitFor(
      'an instance has opened the circuit',
      () => openings(environment.logs),
      (messages) => messages.length > 0,
    )
    expect(seen).toHaveLength(1)
  })
})
