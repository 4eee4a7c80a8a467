import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type Behaviour, type HttpService, startHttpService } from '../support/http-service.ts'
import type { PaymentResult } from './handlers/payment.ts'
import { deploy, type Platform } from './platform.ts'

let database: DynamoDBServer

beforeAll(async () => {
  database = await startDynamoDBLocal()
}, 60_000)

afterAll(() => database.stop())

interface Deployment extends AsyncDisposable {
  readonly service: HttpService
  readonly platform: Platform
  readonly storage: DynamoDBCircuitStorage
  /** Further functions on the same service and table. */
  also(handler: string, variables?: Readonly<Record<string, string>>): Platform
}

/** A function with a timeout of 3 s, whose circuits are in a DynamoDB table of its own. */
async function deployPayment(
  handler: string,
  behaviour: Behaviour,
  variables: Readonly<Record<string, string>> = {},
): Promise<Deployment> {
  const [service, tableName] = await Promise.all([startHttpService(behaviour), database.createTable()])
  const platforms: Platform[] = []
  const also: Deployment['also'] = (name, more = {}) => {
    const platform = deploy({
      handler: `payment.${name}`,
      timeout: 3_000,
      variables: {
        SERVICE: service.url,
        CIRCUIT_BREAKER_TABLE_NAME: tableName,
        AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
        ...variables,
        ...more,
      },
    })
    platforms.push(platform)
    return platform
  }
  return {
    service,
    platform: also(handler),
    storage: new DynamoDBCircuitStorage({ tableName, client: database.client() }),
    also,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([service.stop(), ...platforms.map((platform) => platform.stop())])
    },
  }
}

const of = (payload: unknown): PaymentResult => payload as PaymentResult

describe('a service that hangs under a function with a timeout of 3 s', () => {
  it('kills every invocation without a circuit breaker; with one, three of them open the circuit for all', async () => {
    await using deployment = await deployPayment('guarded', 'hangs')
    const { service, platform, storage } = deployment
    const bare = deployment.also('bare')

    const [killed, ...cut] = await Promise.all([
      bare.invokeCold(),
      platform.invokeCold({}),
      platform.invokeCold({}),
      platform.invokeCold({}),
    ])

    // Without: nothing is left of it, and whoever comes next learns nothing.
    expect([killed.outcome, bare.environments()]).toEqual(['killed', []])
    expect(killed.duration).toBeGreaterThanOrEqual(2_900)
    // With: cut a second earlier, told apart and stored.
    for (const { outcome, payload, duration } of cut) {
      expect([outcome, of(payload).error]).toEqual([
        'response',
        { name: 'CircuitTimeoutError', reason: 'deadline', attempted: true },
      ])
      expect(duration).toBeLessThan(2_900)
    }
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
    const opened = cut.flatMap(({ logs }) => logs.filter(({ message }) => message.includes('"to":"OPEN"')))
    expect(opened).toHaveLength(1)

    const requests = service.requests.length
    const refused = await platform.invokeCold({})
    expect(of(refused.payload)).toMatchObject({ error: { name: 'CircuitOpenError', reason: 'open' }, state: 'OPEN' })
    expect(of(refused.payload).took).toBeLessThan(20)
    expect(service.requests).toHaveLength(requests)
  })

  it('aborts the operation when the time is over', async () => {
    await using deployment = await deployPayment('guarded', 'hangs')
    const { requestId, payload } = await deployment.platform.invoke({}, { timeout: 2_500 })
    expect(of(payload).error).toMatchObject({ reason: 'deadline' })
    expect(requestId).toEqual(expect.any(String))
    const [request] = deployment.service.requests
    // The connection is closed in the turn in which the signal is aborted.
    for (let waits = 0; waits < 40 && request?.abandonedAt === undefined; waits++) await sleep(25)
    expect(request?.abandonedAt).toBeDefined()
  })
})

describe('a call that the deadline cuts', () => {
  it('counts only where the operation was given a fair time', async () => {
    const cases = {
      'has run for a second': [{ waitsFirst: 200 }, 'deadline', 1],
      'has not run for a second': [{ waitsFirst: 1_400 }, 'deadline', 0],
      'has had most of its own timeout': [{ waitsFirst: 500, timeout: 1_600 }, 'deadline', 1],
      'has had the smaller part of it': [{ waitsFirst: 600, timeout: 3_600 }, 'deadline', 0],
      'was cut by its own timeout before that': [{ waitsFirst: 1_100, timeout: 300 }, 'timeout', 1],
    } as const
    const found = await Promise.all(
      Object.entries(cases).map(async ([name, [payment]]) => {
        await using deployment = await deployPayment('guarded', 'hangs')
        const { payload } = await deployment.platform.invoke(payment)
        const record = await deployment.storage.getState('stripe')
        expect(of(payload).error).toMatchObject({ name: 'CircuitTimeoutError', attempted: true })
        return [name, [payment, of(payload).error?.reason, record?.failureCount ?? 0]]
      }),
    )
    expect(Object.fromEntries(found)).toEqual(cases)
  })

  it('is not even attempted when no time is left, and counts for nothing', async () => {
    await using deployment = await deployPayment('guarded', 'hangs')
    const { payload } = await deployment.platform.invoke({ waitsFirst: 1_100 }, { timeout: 2_000 })
    expect(of(payload).error).toEqual({ name: 'CircuitTimeoutError', reason: 'deadline', attempted: false })
    expect(of(payload).took).toBeLessThan(100)
    expect(deployment.service.requests).toHaveLength(0)
    expect(await deployment.storage.getState('stripe')).toBeUndefined()
  })

  it('leaves as much time as it is told to', async () => {
    await using deployment = await deployPayment('guarded', 'hangs', { CIRCUIT_BREAKER_DEADLINE_RESERVE: '400' })
    const { payload } = await deployment.platform.invoke({}, { timeout: 1_600 })
    expect(of(payload).remaining).toBeGreaterThan(150)
    expect(of(payload).remaining).toBeLessThanOrEqual(410)
  })

  it('is warned of where the function has no more time than is kept back', async () => {
    await using deployment = await deployPayment('guarded', 'answers')
    const texts: string[] = []
    for (let invocation = 0; invocation < 3; invocation++) {
      const { payload, logs } = await deployment.platform.invoke({}, { timeout: 950 })
      expect(of(payload).error).toMatchObject({ reason: 'deadline', attempted: false })
      texts.push(...logs.map(({ text }) => text))
    }
    expect(texts.filter((text) => text.includes('CIRCUIT_BREAKER_DEADLINE_RESERVE'))).toHaveLength(1)
  })

  it('is none where nobody knows the deadline, and in a durable function it is that of Lambda’s own context', async () => {
    await using deployment = await deployPayment('withoutDeadline', { after: 1_200 })
    const durable = deployment.also('durable')
    const [unbounded, bounded] = await Promise.all([
      deployment.platform.invoke({}, { timeout: 2_000 }),
      durable.invoke({}, { timeout: 2_000 }),
    ])
    expect(unbounded.payload).toMatchObject({ status: 200 })
    expect(bounded.payload).toMatchObject({ error: { reason: 'deadline' } })
  })
})

describe('an invocation that Lambda kills', () => {
  it('leaves what was stored: a failure before the handler hung elsewhere', async () => {
    await using deployment = await deployPayment('untilKilled', { status: 503 })
    const { outcome } = await deployment.platform.invoke({ waitsLast: 60_000 }, { timeout: 1_500 })
    expect(outcome).toBe('killed')
    expect(await deployment.storage.getState('stripe')).toMatchObject({ failureCount: 1 })
  })

  it('in the middle of a probe leaves a lease that expires: the next environment takes over and recovers', async () => {
    await using deployment = await deployPayment(
      'guarded',
      { status: 503 },
      {
        CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
        CIRCUIT_BREAKER_RESET_TIMEOUT: '200',
        CIRCUIT_BREAKER_CACHE_TTL: '100',
        CIRCUIT_BREAKER_DEADLINE_RESERVE: '200',
        CIRCUIT_BREAKER_STORAGE_TIMEOUT: '1500',
      },
    )
    const { platform, service, storage } = deployment
    await platform.invoke({})
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN' })
    service.behave('answers')
    await sleep(300)

    const probing = platform.invokeCold({ blocks: true }, { timeout: 2_500 })
    let isOver = false
    void probing.then(() => {
      isOver = true
    })
    const probedAt = Date.now()
    while (!isOver && (await storage.getState('stripe'))?.state !== 'HALF_OPEN') await sleep(20)
    const meanwhile = await platform.invokeCold({})
    expect(of(meanwhile.payload).error).toEqual({ name: 'CircuitOpenError', reason: 'probing' })
    expect((await probing).outcome).toBe('killed')

    const lease = (await storage.getState('stripe'))?.leases[0]
    expect((lease?.expiresAt ?? 0) - probedAt).toBeGreaterThan(2_000)
    expect((lease?.expiresAt ?? 0) - probedAt).toBeLessThan(4_000)
    await sleep(Math.max(0, (lease?.expiresAt ?? 0) - Date.now()) + 150)
    const next = await platform.invoke({})
    expect(next.payload).toMatchObject({ status: 200, state: 'CLOSED' })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0, leases: [] })
  })
})
