import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { RedisCircuitStorage } from '../../src/storage/redis.ts'
import { startHttpService } from '../support/http-service.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { startEnvironment } from './environment.ts'
import type { PaymentResult } from './handlers/payment.ts'

let redis: RedisServer

beforeAll(async () => {
  redis = await startRedis()
}, 60_000)

afterAll(() => redis.stop())

function variables(namespace: string, service: string): Record<string, string> {
  return { SERVICE: service, CIRCUIT_BREAKER_NAMESPACE: namespace, CIRCUIT_BREAKER_REDIS_URL: redis.url }
}

/** The most that were answered at the same time by a service that takes so many milliseconds for each. */
function mostAtOnce(arrivals: readonly number[], duration: number): number {
  return Math.max(...arrivals.map((at) => arrivals.filter((other) => other <= at && other > at - duration).length))
}

describe('invocations that run in one process at once', () => {
  it('have each its own deadline and its own request id', async () => {
    await using service = await startHttpService('hangs')
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 5,
      variables: variables('own-deadlines', service.url),
    })
    const timeouts = [2_100, 2_500, 2_900, 3_500]
    const results = await Promise.all(timeouts.map((timeout) => environment.invoke({}, { timeout })))
    const payloads = results.map(({ payload }) => payload as PaymentResult)
    for (const [index, { took, error, remaining }] of payloads.entries()) {
      // The third failure opens the circuit, and the last call goes on: it was admitted before.
      expect(error).toEqual({ name: 'CircuitTimeoutError', reason: 'deadline', attempted: true })
      expect(took).toBeGreaterThan((timeouts[index] as number) - 1_150)
      expect(remaining).toBeLessThanOrEqual(1_000)
      expect(remaining).toBeGreaterThan(600)
    }
    // Who opened the circuit says so, under its own id: the third whose time was over.
    const opened = environment.logs.filter(({ message }) => message.includes('"to":"OPEN"'))
    expect(opened.map(({ message }) => JSON.parse(message).requestId)).toEqual([results[2]?.requestId])
  })

  it('share the limit of calls that are in flight', async () => {
    await using service = await startHttpService({ after: 200 })
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 8,
      variables: { ...variables('limit', service.url), CIRCUIT_BREAKER_MAX_CONCURRENT: '2' },
    })
    const results = await Promise.all(Array.from({ length: 8 }, () => environment.invoke({}, { timeout: 5_000 })))
    for (const { payload } of results) expect(payload).toMatchObject({ status: 200 })
    const arrivals = service.requests.map(({ at }) => at)
    expect(arrivals).toHaveLength(8)
    expect(mostAtOnce(arrivals, 190)).toBe(2)
  })

  it('share what one of them learns, and store it once', async () => {
    await using service = await startHttpService({ status: 503, after: 100 })
    await using environment = await startEnvironment({
      handler: 'payment.guarded',
      maxConcurrency: 8,
      variables: variables('learning', service.url),
    })
    const first = await Promise.all(Array.from({ length: 5 }, () => environment.invoke({})))
    expect(first.map(({ payload }) => (payload as PaymentResult).status)).toEqual([503, 503, 503, 503, 503])
    const refused = await environment.invoke({})
    expect(refused.payload).toMatchObject({ error: { name: 'CircuitOpenError' } })
    const storage = new RedisCircuitStorage({ client: redis.client() })
    expect(await storage.getState('learning#stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(environment.logs.filter(({ message }) => message.includes('"to":"OPEN"'))).toHaveLength(1)
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
    const storage = new RedisCircuitStorage({ client: redis.client() })
    expect(await storage.getState('threads#stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(service.requests).toHaveLength(3)
    expect(environment.logs.filter(({ message }) => message.includes('"to":"OPEN"'))).toHaveLength(1)
  })
})
