import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { APIGatewayProxyEventV2 } from 'aws-lambda'
import { CircuitBreaker } from 'middy-circuit-breaker'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { patientVariables } from '../support/patience.ts'
import { waitFor } from '../support/time.ts'
import { type DataPoint, dataPointsOf, isRinging, ringsOf } from './cloudwatch.ts'
import { coldStart } from './cold-start.ts'
import { httpEvent } from './http-event.ts'
import { capturePrinted, type Printed, type PrintedLine } from './printed-lines.ts'
import { type ProviderAnswer, type Reaction, startProvider } from './provider.ts'
import { deployable } from './sam-template.ts'
import { type StoppedTime, stopTime } from './stopped-time.ts'

const minute = 60_000
const apiKey = 'sk_test_example'
const paid: ProviderAnswer = { body: { id: 'pay_1', status: 'paid' } }
const down: ProviderAnswer = { status: 503, body: '<html>Service Unavailable</html>' }
const topic = 'arn:aws:sns:eu-west-1:123456789012:on-call'
const template = deployable('examples/observability/alarms.yaml')({ AlarmTopic: topic, FunctionName: 'checkout' })
const alarms = {
  opened: template.alarm('CircuitOpened'),
  openForLong: template.alarm('CircuitOpenForLong'),
  flaps: template.alarm('CircuitFlaps'),
  forcedForLong: template.alarm('CircuitForcedForLong'),
  storeFails: template.alarm('CircuitStoreFails'),
}
const outageAlarm = alarms.opened
const storeAlarm = alarms.storeFails

let dynamodb: DynamoDBServer

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})

afterAll(async () => {
  await dynamodb.stop()
})

let time: StoppedTime

beforeEach(() => {
  time = stopTime()
})

afterEach(() => {
  time[Symbol.dispose]()
})

describe('a fleet whose payment service fails', () => {
  it('publishes one CircuitOpened and one log line, with the ids of the request that caused it', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const fleet = await startFleet(24, provider.url)

    const first = await Promise.all(fleet.map(({ pay }) => pay()))
    const reached = provider.requests.length
    // Failures at once join a second after the first of them: the next touch opens the circuit.
    await time.advance(5_000)
    const second = await Promise.all(fleet.map(({ pay }) => pay()))

    expect(reached).toBeLessThanOrEqual(24)
    expect(provider.requests).toHaveLength(reached)
    expect(sums(printed)).toEqual({
      CallsFailed: reached,
      CallsRefused: 48 - reached,
      'CallsRefused reason=open': 48 - reached,
      Fallbacks: 48,
      // Those of the second time, and whoever knew before.
      CircuitOpen: expect.any(Number),
      CircuitOpened: 1,
      'CircuitTransitions to=OPEN': 1,
    })
    expect(first.concat(second).map(({ statusCode }) => statusCode)).toEqual(Array(48).fill(202))
    const [line, ...others] = transitionLines(printed)
    expect(others).toEqual([])
    expect(line).toMatchObject({
      level: 'ERROR',
      service: 'checkout',
      message: 'The circuit of payments has opened',
      circuit: 'payments',
      from: 'CLOSED',
      to: 'OPEN',
      reason: 'failure-threshold',
      // As far as the instance knew that told of it.
      evidence: { failures: expect.any(Number), successes: 0, reporters: expect.any(Number) },
      failure: { name: 'BreakableResult', status: 503 },
      retry_at: new Date(Date.now() + 10_000).toISOString(),
    })
    // Refusals are counted, not logged.
    expect(logLines(printed)).toHaveLength(reached + 1)
    const cause = first.find(({ requestId }) => requestId === line?.['function_request_id'])
    expect(cause).toBeDefined()
    expect(line?.['correlation_id']).toBe(cause?.correlationId)
    expect(outageAlarmRings(printed)).toBe(1)
  })

  it('rings the alarm once per outage, however long it lasts and however often the circuit opens again', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const fleet = await startFleet(4, provider.url)
    const payAll = () => Promise.all(fleet.map(({ pay }) => pay()))

    await payAll()
    // Failures at once join a second after the first of them.
    await time.advance(1_000)
    await payAll()
    for (let probes = 0; probes < 5; probes++) {
      // The longest that a circuit stays open that opens again and again.
      await time.advance(6 * minute)
      await payAll()
    }
    expect(sums(printed)).toMatchObject({
      CircuitOpened: 1,
      'CircuitTransitions to=OPEN': 6,
      'CircuitTransitions to=HALF_OPEN': 5,
    })
    expect(outageAlarmRings(printed)).toBe(1)

    provider.react(paid)
    await time.advance(6 * minute)
    await payAll()
    expect(sums(printed)).toMatchObject({ CircuitOpened: 1, 'CircuitTransitions to=CLOSED': 1 })

    provider.react(down)
    await time.advance(2 * minute)
    await payAll()
    await payAll()
    expect(sums(printed)).toMatchObject({ CircuitOpened: 2, 'CircuitTransitions to=OPEN': 7 })
    expect(outageAlarmRings(printed)).toBe(2)
    expect([outageAlarm.actions, storeAlarm.actions]).toEqual([[topic], [topic]])
  })
})

describe('the alarms', () => {
  it('are silent about a healthy fleet, whose invocations publish nothing of its circuits, and about no fleet at all', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(paid)
    const fleet = await startFleet(2, provider.url)
    expect(ringing(printed)).toEqual([])

    for (let minutes = 0; minutes < 20; minutes++) {
      await Promise.all(fleet.map(({ pay }) => pay()))
      await time.advance(minute)
    }

    expect(metricNames(printed)).toEqual(['CallLatency', 'CallsSucceeded'])
    expect(ringing(printed)).toEqual([])
  })

  it('ring when the circuit has been open for 15 minutes, although its opening is told once', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const [instance] = await startFleet(1, provider.url, { CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })
    const payFor = async (minutes: number) => {
      for (let passed = 0; passed < minutes; passed++) {
        await instance?.pay()
        await time.advance(minute)
      }
    }

    await payFor(14)
    expect(ringing(printed)).toEqual(['opened'])
    await instance?.pay()
    expect(ringing(printed)).toEqual(['opened', 'openForLong'])
    expect(isRinging(alarms.openForLong, dataPoints(printed), Date.now())).toBe(true)
    expect(sums(printed)).toMatchObject({ CircuitOpened: 1 })

    provider.react(paid)
    await time.advance(6 * minute)
    await payFor(2)
    expect(isRinging(alarms.openForLong, dataPoints(printed), Date.now())).toBe(false)
    expect(ringsOf(alarms.openForLong, dataPoints(printed), Date.now())).toBe(1)
  })

  it('ring when the circuit opens for the third time in an hour, across the hour of the clock', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const [instance] = await startFleet(1, provider.url, { CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })
    const hour = 60 * minute
    await time.advance(hour - (Date.now() % hour) - 10 * minute)
    const fail = async () => {
      provider.react(down)
      await instance?.pay()
    }
    const recover = async () => {
      provider.react(paid)
      await time.advance(6 * minute)
      await instance?.pay()
      await time.advance(2 * minute)
    }

    await fail()
    await recover()
    await fail()
    await recover()
    expect(sums(printed)).toMatchObject({ CircuitOpened: 2, 'CircuitTransitions to=CLOSED': 2 })
    expect(ringing(printed)).toEqual(['opened'])
    await fail()
    expect(sums(printed)).toMatchObject({ CircuitOpened: 3 })
    expect(ringing(printed)).toEqual(['opened', 'flaps'])
  })

  it.each(['OPEN', 'CLOSED'] as const)(
    'ring when an operator has forced it %s for more than an hour, and it is said who, why and until when',
    async (state) => {
      using printed = capturePrinted()
      await using provider = await startProvider(paid)
      const fleet = await startFleet(2, provider.url)
      const payAll = () => Promise.all(fleet.map(({ pay }) => pay()))
      const operator = new CircuitBreaker({ services: ['payments'], storage: 'dynamodb' })
      const until = Date.now() + 80 * minute
      const words = { until, by: 'on call', why: 'maintenance' }
      await (state === 'OPEN' ? operator.forceOpen('payments', words) : operator.forceClosed('payments', words))

      for (let minutes = 0; minutes < 60; minutes += 10) {
        await payAll()
        await time.advance(10 * minute)
      }
      expect(ringing(printed)).toEqual([])
      await payAll()

      expect(ringing(printed)).toEqual(['forcedForLong'])
      expect(printed.lines.findLast((line) => 'ForcedFor' in line)).toMatchObject({
        ForcedFor: 3_600,
        forced_state: state,
        operator: 'on call',
        operator_why: 'maintenance',
        operator_until: new Date(until).toISOString(),
      })
      // The operator has done it, and the service is well: nobody is told of an outage.
      expect(sums(printed)).not.toHaveProperty('CircuitOpened')
      expect(sums(printed)).not.toHaveProperty('CircuitOpen')

      await time.advance(40 * minute)
      await payAll()
      expect(isRinging(alarms.forcedForLong, dataPoints(printed), Date.now())).toBe(false)
      await operator.close()
    },
  )

  it('learn of what is forced from an invocation that fails, too', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(paid)
    const [instance] = await startFleet(1, provider.url, { PAYMENTS_API_KEY: 'a key\nof two lines' })
    const operator = new CircuitBreaker({ services: ['payments'], storage: 'dynamodb' })
    await operator.forceClosed('payments')

    // fetch refuses the key, so that the handler throws.
    const reply = await instance?.pay()

    expect(reply).toMatchObject({ statusCode: 500 })
    expect(sums(printed)).toMatchObject({ ForcedFor: 0 })
    await operator.close()
  })
})

describe('a transition that the store confirms after its invocation', () => {
  it.each(['no invocation', 'another invocation'])('is published at once while %s runs', async (what) => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const proxy = await startFaultProxy({ port: Number(new URL(dynamodb.endpoint).port) }, 'http')
    try {
      const [instance] = await startFleet(1, provider.url, {
        AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${proxy.port}`,
        CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1',
        // Shorter than what the store's client gives an answer.
        CIRCUIT_BREAKER_STORAGE_TIMEOUT: '1000',
      })
      const over = Promise.withResolvers<void>()
      provider.react(async () => {
        // Once: the other invocation must not undo the healing.
        provider.react(async () => {
          await over.promise
          return down
        })
        await proxy.inflict({ kind: 'black-hole' })
        return down
      })

      const paying = instance?.pay()
      await waitFor('the store is to be written', () => proxy.requests > 1)
      time.jump(1_000)
      const first = await paying
      expect(sums(printed)).toMatchObject({ CallsFailed: 1, Fallbacks: 1 })
      expect(sums(printed)).not.toHaveProperty('CircuitOpened')

      const second = what === 'another invocation' ? instance?.pay() : undefined
      await proxy.heal()
      await waitFor('the transition is published', () => sums(printed)['CircuitOpened'] === 1)
      over.resolve()
      await second

      expect(sums(printed)).toMatchObject({ CircuitOpened: 1, 'CircuitTransitions to=OPEN': 1 })
      expect(transitionLines(printed)).toEqual([
        expect.objectContaining({ function_request_id: first?.requestId, correlation_id: first?.correlationId }),
      ])
      // As every line of an invocation has it: this one is not of the invocation that runs.
      expect(transitionLines(printed)[0]).not.toHaveProperty('cold_start')
      // The journal is written, so that no failure of this store is told in a later test.
      await time.advance(0)
    } finally {
      await proxy.stop()
    }
  })
})

describe('the metrics of calls', () => {
  it('tell successes and how long they took', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(async () => {
      time.jump(50)
      return paid
    })
    const [instance] = await startFleet(1, provider.url)

    expect(await instance?.pay()).toMatchObject({ statusCode: 200, body: { status: 'paid', payment: 'pay_1' } })

    expect(provider.requests).toEqual([
      expect.objectContaining({
        method: 'POST',
        body: JSON.stringify({ amount: 1_250, reference: 'order-1' }),
        headers: expect.objectContaining({ authorization: `Bearer ${apiKey}`, 'idempotency-key': 'order-1' }),
      }),
    ])
    expect(sums(printed)).toEqual({ CallsSucceeded: 1 })
    expect(latencies(printed)).toEqual([50])
    expect(printed.lines).toHaveLength(1)
  })

  it.each<[string, Reaction, object, object]>([
    ['hangs', 'hangs', { CallsTimedOut: 1 }, { name: 'CircuitTimeoutError', code: 'CIRCUIT_TIMEOUT', status: 504 }],
    ['breaks the connection', 'breaks', { CallsFailed: 1 }, { name: 'TypeError', code: 'UND_ERR_SOCKET' }],
    ['answers 503 with a page', down, { CallsFailed: 1 }, { name: 'BreakableResult', status: 503 }],
    ['answers 200 with a page', { body: '<html>' }, { CallsFailed: 1 }, { name: 'Object' }],
    ['does not say what became of a payment', { body: { id: 'pay_1' } }, { CallsFailed: 1 }, { name: 'Object' }],
  ])('count a service that %s, and the customer is told to ask again', async (_, how, counted, failure) => {
    using printed = capturePrinted()
    await using provider = await startProvider(() => (how === 'hangs' ? time.hang(3_000) : how))
    const [instance] = await startFleet(1, provider.url)

    const reply = await instance?.pay()

    expect(reply).toMatchObject({ statusCode: 202, body: { status: 'pending' }, headers: { 'retry-after': '5' } })
    expect(sums(printed)).toEqual({ ...counted, Fallbacks: 1 })
    expect(latencies(printed)).toEqual([how === 'hangs' ? 3_000 : 0])
    expect(logLines(printed)).toEqual([
      expect.objectContaining({
        level: 'WARN',
        circuit: 'payments',
        failure,
        function_request_id: reply?.requestId,
        correlation_id: reply?.correlationId,
      }),
    ])
  })

  it('tell a success also of a payment that is pending, and the customer is told to ask again', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider({ status: 202, body: { id: 'pay_1', status: 'pending' } })
    const [instance] = await startFleet(1, provider.url)

    const reply = await instance?.pay()

    expect(reply).toMatchObject({ statusCode: 202, body: { status: 'pending' }, headers: { 'retry-after': '5' } })
    expect(sums(printed)).toEqual({ CallsSucceeded: 1 })
    provider.react(paid)
    expect(await instance?.pay()).toMatchObject({ statusCode: 200, body: { status: 'paid', payment: 'pay_1' } })
  })

  it('cut a call after 3 s where no variable says otherwise', async () => {
    using _printed = capturePrinted()
    await using provider = await startProvider(paid)
    const [instance] = await startFleet(1, provider.url)
    // So that the next one does not read the store, whose client has timers of its own.
    await instance?.pay()
    using timers = jest.spyOn(globalThis, 'setTimeout')

    await instance?.pay()

    expect(timers.mock.calls.map(([, delay]) => delay)).toContain(3_000)
  })

  it('do not count what is the customer’s or our own fault', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(paid)
    const [instance] = await startFleet(1, provider.url)
    const answering = async (status: number) => {
      provider.react({ status, body: { error: { message: 'No.' } } })
      return (await instance?.pay())?.statusCode
    }

    const replies: unknown[] = []
    for (const status of [402, 402, 401, 429]) replies.push(await answering(status))

    expect(replies).toEqual([402, 402, 502, 202])
    // With a 429 the service says that it is too much, and nothing else.
    expect(sums(printed)).toEqual({ CallsSucceeded: 3, CallsIgnored: 1 })
  })

  it('do not count bad requests', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(paid)
    const [instance] = await startFleet(1, provider.url)
    const bodies = [
      '',
      '[',
      'null',
      '[]',
      '{}',
      '{"orderId":"a b","amount":1}',
      '{"orderId":"a","amount":"1"}',
      undefined,
    ]

    for (const body of bodies) expect(await instance?.pay({ body })).toMatchObject({ statusCode: 400 })

    expect(provider.requests).toEqual([])
    expect(sums(printed, 'checkout')).toEqual({ InvalidRequests: bodies.length })
  })
})

describe('a store that fails', () => {
  it('is told by kind, and rings its own alarm when it goes on', async () => {
    using printed = capturePrinted()
    using warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await using provider = await startProvider(paid)
    const { pay } = await startInstance(provider.url, { CIRCUIT_BREAKER_TABLE_NAME: 'no-such-table' })

    for (let minutes = 0; minutes < 2; minutes++) {
      expect(await pay()).toMatchObject({ statusCode: 200 })
      await time.advance(minute)
    }
    expect(sums(printed)).toEqual({ CallsSucceeded: 2, StorageErrors: 2, 'StorageErrors kind=misconfigured': 2 })
    expect(ringsOf(storeAlarm, dataPoints(printed), Date.now())).toBe(0)

    expect(await pay()).toMatchObject({ statusCode: 200 })
    expect(ringsOf(storeAlarm, dataPoints(printed), Date.now())).toBe(1)
    expect(logLines(printed)[0]).toMatchObject({
      level: 'ERROR',
      message: 'The store of the circuits is misconfigured',
      circuits: ['payments'],
      operation: 'batchGetState',
    })
    expect(warning).toHaveBeenCalledTimes(1)
  })

  it('hides an outage from the first alarm, and so must ring the second', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const proxy = await startFaultProxy({ port: Number(new URL(dynamodb.endpoint).port) }, 'http')
    try {
      const [instance] = await startFleet(1, provider.url, {
        AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${proxy.port}`,
      })
      await proxy.inflict({ kind: 'refuse' })

      for (let minutes = 0; minutes < 5; minutes++) {
        for (let calls = 0; calls < 4; calls++) await instance?.pay()
        await time.advance(minute)
      }

      // The instance protects itself all the same.
      expect(sums(printed)['CallsRefused']).toBeGreaterThanOrEqual(5)
      expect(sums(printed)).toMatchObject({ 'StorageErrors kind=unavailable': expect.any(Number) })
      expect(outageAlarmRings(printed)).toBe(0)
      expect(ringsOf(storeAlarm, dataPoints(printed), Date.now())).toBe(1)
    } finally {
      await proxy.heal()
      await proxy.stop()
    }
  })
})

describe('what is printed', () => {
  it('holds no secret, whatever the payment service and the client say', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider({
      status: 500,
      headers: { 'set-cookie': 'session=secret-cookie', 'x-debug': 'secret-header' },
      body: { error: { message: 'secret-body of 4242424242424242', stack: 'Error: secret-stack' } },
    })
    const unreachable = await startProvider(paid)
    await unreachable[Symbol.asyncDispose]()

    const failing = await startInstance(`${provider.url}/?token=secret-token`)
    for (let calls = 0; calls < 4; calls++) await failing.pay()
    provider.react({ status: 400, body: 'secret-refusal' })
    await (await startInstance(provider.url)).pay()
    const alone = await startInstance(`${unreachable.url}/?token=secret-token`)
    for (let calls = 0; calls < 4; calls++) await alone.pay()
    // fetch refuses it with an error whose message has the key in it.
    const broken = await startInstance(provider.url, { PAYMENTS_API_KEY: 'secret-key\nof two lines' })
    expect(await broken.pay()).toMatchObject({ statusCode: 500, body: { message: 'The payment could not be made.' } })

    expect(logLines(printed).map((line) => Object(line['failure']))).toEqual(
      expect.arrayContaining([
        { name: 'BreakableResult', status: 500 },
        { name: 'TypeError', code: 'ECONNREFUSED' },
        { name: 'TypeError' },
      ]),
    )
    expect(printed.text).not.toMatch(/secret|4242|sk_test/)
  })

  it('is JSON with the ids of its request, or data points that CloudWatch takes', async () => {
    using printed = capturePrinted()
    await using provider = await startProvider(down)
    const [instance] = await startFleet(1, provider.url)

    const replies = [await instance?.pay(), await instance?.pay(), await instance?.pay()]

    const ids = replies.map((reply) => [reply?.requestId, reply?.correlationId])
    const lines = logLines(printed).map((line) => [line['function_request_id'], line['correlation_id']])
    expect(lines).toEqual([...ids, ids[2]])
    expect(printed.lines.filter(isEmf).flatMap(dataPointsOf).length).toBeGreaterThan(0)
    expect(printed.text.trim().split('\n')).toHaveLength(printed.lines.length)
  })
})

interface Instance {
  /** Invokes it with a payment, or with another body. */
  pay(request?: { readonly body: string | undefined }): Promise<Reply>
}

interface Reply {
  readonly statusCode: number | undefined
  readonly headers: unknown
  readonly body: unknown
  readonly requestId: string
  readonly correlationId: string
}

/** Instances that share a table of their own. */
async function startFleet(size: number, url: string, variables: Record<string, string> = {}): Promise<Instance[]> {
  const table = { CIRCUIT_BREAKER_TABLE_NAME: await dynamodb.createTable() }
  const fleet: Instance[] = []
  for (let instance = 0; instance < size; instance++) fleet.push(await startInstance(url, { ...table, ...variables }))
  return fleet
}

async function startInstance(url: string, variables: Record<string, string> = {}): Promise<Instance> {
  const { handler } = await coldStart(() => import('../../examples/observability/handler.ts'), {
    ...dynamodb.variables,
    ...patientVariables,
    POWERTOOLS_SERVICE_NAME: 'checkout',
    PAYMENTS_URL: url,
    PAYMENTS_API_KEY: apiKey,
    ...variables,
  })
  return {
    pay: async ({ body } = { body: JSON.stringify({ orderId: 'order-1', amount: 1_250 }) }) => {
      const correlationId = `api-${++requests}`
      const context = createTestContext<Parameters<typeof handler>[1]>()
      const { statusCode, headers, body: answer } = await handler(request(body, correlationId), context)
      return { statusCode, headers, body: JSON.parse(answer ?? ''), requestId: context.awsRequestId, correlationId }
    },
  }
}

let requests = 0

function request(body: string | undefined, requestId: string): APIGatewayProxyEventV2 {
  return httpEvent({ route: 'POST /payments', requestId, ...(body !== undefined && { body, base64: true }) })
}

function isEmf(line: PrintedLine): boolean {
  return '_aws' in line
}

function dataPoints({ lines }: Printed): DataPoint[] {
  return lines.filter(isEmf).flatMap(dataPointsOf)
}

/** The sums of the metrics of namespace Shop and a service, but for latencies, by name and further dimensions. */
function sums(printed: Printed, of = 'payments'): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const { namespace, name, dimensions, values } of dataPoints(printed)) {
    const { service, ...others } = dimensions
    expect([namespace, service]).toEqual(['Shop', expect.stringMatching(/^(payments|checkout)$/)])
    if (name === 'CallLatency' || service !== of) continue
    const key = [name, ...Object.entries(others).map((entry) => entry.join('='))].join(' ')
    sums[key] = values.reduce((sum, value) => sum + value, sums[key] ?? 0)
  }
  return sums
}

function latencies(printed: Printed): number[] {
  return dataPoints(printed).flatMap(({ name, values }) => (name === 'CallLatency' ? values : []))
}

/** The alarms that have rung until now. */
function ringing(printed: Printed): string[] {
  const points = dataPoints(printed)
  return Object.entries(alarms).flatMap(([name, alarm]) => (ringsOf(alarm, points, Date.now()) > 0 ? [name] : []))
}

function metricNames(printed: Printed): string[] {
  return [...new Set(dataPoints(printed).map(({ name }) => name))].sort()
}

function outageAlarmRings(printed: Printed): number {
  return ringsOf(outageAlarm, dataPoints(printed), Date.now() + 10 * minute)
}

function logLines({ lines }: Printed): PrintedLine[] {
  return lines.filter((line) => !isEmf(line))
}

function transitionLines(printed: Printed): PrintedLine[] {
  return logLines(printed).filter((line) => 'reason' in line)
}
