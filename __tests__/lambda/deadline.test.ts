import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { type Behaviour, type HttpService, startHttpService } from '../support/http-service.ts'
import { patientDynamoDB, patientVariables } from '../support/patience.ts'
import { expectAtLeast, patience, waitFor } from '../support/time.ts'
import { type Clock, startClock } from './clock.ts'
import type { PaymentResult } from './handlers/payment.ts'
import { deploy, type Platform } from './platform.ts'

let database: DynamoDBServer

beforeAll(async () => {
  database = await startDynamoDBLocal()
})

afterAll(() => database.stop())

interface Deployment extends AsyncDisposable {
  readonly service: HttpService
  readonly platform: Platform
  readonly storage: DynamoDBCircuitStorage
  /** Moves only as the test says. */
  readonly clock: Clock
  /** Further functions on the same service and table. */
  also(handler: string, options?: Options): Platform
}

interface Options {
  readonly variables?: Readonly<Record<string, string>>
  /** Default: 3 000. */
  readonly timeout?: number
  /** The function goes by the real clock, under which nothing is patient by itself. */
  readonly inRealTime?: true
}

/** A function whose circuits are in a DynamoDB table of its own. */
async function deployPayment(handler: string, behaviour: Behaviour, options: Options = {}): Promise<Deployment> {
  const [service, tableName] = await Promise.all([startHttpService(behaviour), database.createTable()])
  const clock = startClock()
  const platforms: Platform[] = []
  const also: Deployment['also'] = (name, { variables, timeout = 3_000, inRealTime } = {}) => {
    const platform = deploy({
      handler: `payment.${name}`,
      timeout,
      ...(!inRealTime && { clock }),
      variables: {
        SERVICE: service.url,
        CIRCUIT_BREAKER_TABLE_NAME: tableName,
        AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
        ...(inRealTime && patientVariables),
        ...variables,
      },
    })
    platforms.push(platform)
    return platform
  }
  return {
    service,
    platform: also(handler, options),
    storage: new DynamoDBCircuitStorage({ tableName, client: database.client(patientDynamoDB) }),
    clock,
    also,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([service.stop(), ...platforms.map((platform) => platform.stop())])
      clock[Symbol.dispose]()
    },
  }
}

/** Resolves when a handler of the function has begun to wait. */
async function waiting(platform: Platform): Promise<void> {
  await waitFor(
    'the handler waits',
    () => platform.environments().flatMap(({ logs }) => logs.map(({ message }) => message)),
    (messages) => messages.includes('waiting'),
  )
}

const of = (payload: unknown): PaymentResult => payload as PaymentResult

describe('a service that hangs under a function with a timeout of 3 s', () => {
  it('kills every invocation without a circuit breaker; with one, three of them open the circuit for all', async () => {
    await using deployment = await deployPayment('guarded', 'hangs')
    const { service, platform, storage, clock } = deployment
    const bare = deployment.also('bare')

    const doomed = bare.invokeCold()
    const guarded = [platform.invokeCold({}), platform.invokeCold({}), platform.invokeCold({})]
    await service.received(4)
    clock.pass(2_000)
    const cut = await Promise.all(guarded)
    expect(bare.environments()).toHaveLength(1)
    clock.pass(1_000)
    const killed = await doomed

    // Without: nothing is left of it, and whoever comes next learns nothing.
    expect([killed.outcome, bare.environments()]).toEqual(['killed', []])
    // With: cut a second earlier, told apart and stored.
    for (const { outcome, payload } of cut) {
      expect([outcome, of(payload)]).toMatchObject([
        'response',
        {
          error: { name: 'CircuitTimeoutError', reason: 'deadline', attempted: true },
          took: 2_000,
          remaining: 1_000,
        },
      ])
    }
    // Failures at once have run into the suspicion that the first of them raised. A second after it they join.
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 1, earlyCount: 2, reporterCount: 3 })

    const requests = service.requests.length
    const refused = await platform.invokeCold({})
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    const logs = [...cut, refused].flatMap((invocation) => invocation.logs)
    expect(logs.filter(({ message }) => message.includes('"to":"OPEN"'))).toHaveLength(1)
    expect(of(refused.payload)).toMatchObject({ error: { name: 'CircuitOpenError', reason: 'open' }, state: 'OPEN' })
    expect(of(refused.payload).took).toBe(0)
    expect(service.requests).toHaveLength(requests)
  })

  it('aborts the operation when the time is over', async () => {
    // The only one of these in real time: the call is cut after 2.5 s, almost a minute before the function is killed.
    const inTime = 2_500
    const reserve = patience - inTime
    await using deployment = await deployPayment('guarded', 'hangs', {
      inRealTime: true,
      timeout: patience,
      variables: { CIRCUIT_BREAKER_DEADLINE_RESERVE: String(reserve), CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1000' },
    })
    const { platform, service } = deployment
    await platform.invoke({ skips: true })
    // On a machine that stalls the time may be over before the service has been asked.
    const result = await waitFor(
      'the service was asked in time',
      () => platform.invoke({}),
      () => service.requests.length > 0,
    )
    expect(of(result.payload).error).toMatchObject({ reason: 'deadline', attempted: true })
    expectAtLeast(result.duration, inTime)
    const [request] = service.requests
    await waitFor('the connection is closed', () => request?.abandonedAt)
  })
})

describe('a call that the deadline cuts', () => {
  it('counts only where the operation was given a fair time', async () => {
    const cases = {
      'has run for a second': [{ waitsFirst: 1_000 }, 'deadline', 1],
      'has not run for a second': [{ waitsFirst: 1_001 }, 'deadline', 0],
      'has had half of its own timeout': [{ waitsFirst: 500, timeout: 3_000 }, 'deadline', 1],
      'has had the smaller part of it': [{ waitsFirst: 501, timeout: 3_000 }, 'deadline', 0],
      'was cut by its own timeout before that': [{ waitsFirst: 1_100, timeout: 300 }, 'timeout', 1],
    } as const
    const found = await Promise.all(
      Object.entries(cases).map(async ([name, [payment]]) => {
        await using deployment = await deployPayment('guarded', 'hangs')
        const { platform, service, clock, storage } = deployment
        const invocation = platform.invoke(payment)
        await waiting(platform)
        clock.pass(payment.waitsFirst)
        await service.received(1)
        clock.pass(2_000 - payment.waitsFirst)
        const { payload } = await invocation
        const record = await storage.getState('stripe')
        expect(of(payload).error).toMatchObject({ name: 'CircuitTimeoutError', attempted: true })
        return [name, [payment, of(payload).error?.reason, record?.failureCount ?? 0]]
      }),
    )
    expect(Object.fromEntries(found)).toEqual(cases)
  })

  it('is not even attempted when no time is left, and counts for nothing', async () => {
    await using deployment = await deployPayment('guarded', 'hangs')
    const { platform, service, clock, storage } = deployment
    const invocation = platform.invoke({ waitsFirst: 2_000 })
    await waiting(platform)
    clock.pass(2_000)
    const { payload } = await invocation
    expect(of(payload).error).toEqual({ name: 'CircuitTimeoutError', reason: 'deadline', attempted: false })
    expect(of(payload).took).toBe(0)
    expect(service.requests).toHaveLength(0)
    expect(await storage.getState('stripe')).toBeUndefined()
  })

  it('leaves as much time as it is told to', async () => {
    const variables = { CIRCUIT_BREAKER_DEADLINE_RESERVE: '400' }
    await using deployment = await deployPayment('guarded', 'hangs', { variables })
    const { platform, service, clock } = deployment
    const invocation = platform.invoke({})
    await service.received(1)
    clock.pass(2_600)
    expect(of((await invocation).payload).remaining).toBe(400)
  })

  it('is warned of where the function has no more time than is kept back', async () => {
    await using deployment = await deployPayment('guarded', 'answers', { timeout: 950 })
    const texts: string[] = []
    for (let invocation = 0; invocation < 3; invocation++) {
      const { payload, logs } = await deployment.platform.invoke({})
      expect(of(payload).error).toMatchObject({ reason: 'deadline', attempted: false })
      texts.push(...logs.map(({ text }) => text))
    }
    expect(texts.filter((text) => text.includes('CIRCUIT_BREAKER_DEADLINE_RESERVE'))).toHaveLength(1)
  })

  it('is none where nobody knows the deadline, and in a durable function it is that of Lambda’s own context', async () => {
    await using deployment = await deployPayment('withoutDeadline', 'hangs')
    const { platform, service, clock } = deployment
    const invocations = [platform.invoke({}), deployment.also('durable').invoke({})] as const
    await service.received(2)
    clock.pass(2_000)
    const bounded = await invocations[1]
    await service.release()
    const unbounded = await invocations[0]
    expect(unbounded.payload).toMatchObject({ status: 200 })
    expect(bounded.payload).toMatchObject({ error: { reason: 'deadline' } })
  })
})

describe('an invocation that Lambda kills', () => {
  it('leaves what was stored: a failure before the handler hung elsewhere', async () => {
    await using deployment = await deployPayment('untilKilled', { status: 503 })
    const { platform, clock, storage } = deployment
    const invocation = platform.invoke({ waitsLast: 60_000 })
    const stored = await waitFor('the failure is stored', () => storage.getState('stripe'))
    clock.pass(3_000)
    expect((await invocation).outcome).toBe('killed')
    expect(stored).toMatchObject({ failureCount: 1 })
    expect(await storage.getState('stripe')).toEqual(stored)
  })

  it('in the middle of a probe leaves a lease that expires: the next environment takes over and recovers', async () => {
    await using deployment = await deployPayment(
      'guarded',
      { status: 503 },
      {
        variables: {
          CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
          CIRCUIT_BREAKER_RESET_TIMEOUT: '200',
          CIRCUIT_BREAKER_CACHE_TTL: '100',
        },
      },
    )
    const { platform, service, clock, storage } = deployment
    await platform.invoke({})
    expect(await storage.getState('stripe')).toMatchObject({ state: 'OPEN' })
    service.behave('answers')
    clock.pass(300)

    const probing = platform.invokeCold({ blocks: true })
    const probed = await waitFor(
      'the circuit is HALF_OPEN',
      () => storage.getState('stripe'),
      (record) => record?.state === 'HALF_OPEN',
    )
    const expiry = probed?.leases[0]?.expiresAt ?? 0
    const meanwhile = await platform.invokeCold({})
    expect(of(meanwhile.payload).error).toEqual({ name: 'CircuitOpenError', reason: 'probing' })
    expect(expiry).toBe(clock.now() + 3_000)
    clock.pass(2_999)
    const still = await platform.invoke({})
    expect(of(still.payload).error).toEqual({ name: 'CircuitOpenError', reason: 'probing' })
    clock.pass(1)
    expect((await probing).outcome).toBe('killed')

    // An instance that knows of the lease looks again after cacheTtl.
    clock.pass(100)
    const next = await platform.invoke({})
    expect(next.payload).toMatchObject({ status: 200, state: 'CLOSED' })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0, leases: [] })
  })
})
