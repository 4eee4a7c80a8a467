import { Logger } from '@aws-lambda-powertools/logger'
import { injectLambdaContext } from '@aws-lambda-powertools/logger/middleware'
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics'
import { logMetrics } from '@aws-lambda-powertools/metrics/middleware'
import { afterEach, describe, expect, it, jest } from '@jest/globals'
import middy from '@middy/core'
import { CircuitBreaker, circuitBreaker, MemoryCircuitStorage } from 'middy-circuit-breaker'
import {
  type CircuitLogs,
  type CircuitMetrics,
  logCircuits,
  measureCircuits,
  type PowertoolsLogger,
} from 'middy-circuit-breaker/powertools'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { dataPointsOf } from '../../examples/cloudwatch.ts'
import { capturePrinted } from '../../examples/printed-lines.ts'
import {
  createFleet,
  type Fleet,
  failTimes,
  never,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

const running: (CircuitMetrics | CircuitLogs)[] = []

afterEach(() => {
  for (const each of running.splice(0)) each.stop()
})

function started<T extends CircuitMetrics | CircuitLogs>(telemetry: T): T {
  running.push(telemetry)
  return telemetry
}

type Printed = ReturnType<typeof capturePrinted>

/** Of each metric, by its name and its dimensions but for the service. */
function sums({ lines }: Printed): Record<string, number> {
  const all: Record<string, number> = {}
  for (const { name, dimensions, values } of lines.filter((line) => '_aws' in line).flatMap(dataPointsOf)) {
    const { service, ...others } = dimensions
    expect(service).toBe('stripe')
    const id = [name, ...Object.entries(others).map((pair) => pair.join('='))].join(' ')
    all[id] = values.reduce((sum, value) => sum + value, all[id] ?? 0)
  }
  return all
}

async function lasting({ runtime }: Fleet, milliseconds: number, call: Promise<unknown>): Promise<void> {
  const ended = outcomeOf(call)
  await runtime.advance(milliseconds)
  await ended
}

describe('the metrics of circuits', () => {
  it('are those of the calls of an invocation, published when it ends', async () => {
    using printed = capturePrinted()
    const fleet = createFleet({ maxConcurrent: 1, maxQueue: 0, failureThreshold: 10 })
    const breaker = fleet.start()
    const handler = middy<unknown, unknown>()
      .use(started(measureCircuits(new Metrics({ namespace: 'Shop', serviceName: 'checkout' }))))
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => {
        await lasting(
          fleet,
          30,
          callExternal('stripe', () => fleet.runtime.sleep(30)),
        )
        await outcomeOf(callExternal('stripe', unavailable, { fallback: () => 'instead' }))
        await outcomeOf(callExternal('stripe', () => Promise.reject(new TypeError('a bug'))))
        const cut = lasting(fleet, 500, callExternal('stripe', never, { timeout: 500 }))
        await outcomeOf(callExternal('stripe', ok, { fallback: () => 'instead' }))
        await cut
        expect(printed.lines).toEqual([])
      })
    await handler({}, createTestContext())

    expect(printed.lines).toHaveLength(2)
    expect(sums(printed)).toEqual({
      CallsSucceeded: 1,
      CallsFailed: 1,
      CallsTimedOut: 1,
      CallsIgnored: 1,
      CallLatency: 530,
      Fallbacks: 2,
      CallsRefused: 1,
      'CallsRefused reason=concurrency': 1,
    })
    printed.clear()
    await handler({}, createTestContext())
    expect(sums(printed)).toMatchObject({ CallsSucceeded: 1, CallsFailed: 1 })
  })

  it('keep the default dimensions of the instance, and what a handler has stored there', async () => {
    using printed = capturePrinted()
    const metrics = new Metrics({ namespace: 'Shop', serviceName: 'checkout', defaultDimensions: { stage: 'prod' } })
    const breaker = createFleet().start()
    const handler = middy<unknown, unknown>()
      .use(logMetrics(metrics))
      .use(started(measureCircuits(metrics)))
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => {
        await callExternal('stripe', ok)
        metrics.addDimension('page', 'basket').addMetric('Orders', MetricUnit.Count, 1)
      })
    using warn = jest.spyOn(console, 'warn').mockImplementation(() => {})
    await handler({}, createTestContext())
    metrics.addMetric('Later', MetricUnit.Count, 1)
    metrics.publishStoredMetrics()

    const points = printed.lines.flatMap(dataPointsOf).map(({ name, dimensions }) => [name, dimensions])
    expect(points).toEqual([
      ['Orders', { service: 'checkout', stage: 'prod', page: 'basket' }],
      ['CallsSucceeded', { service: 'stripe', stage: 'prod' }],
      ['CallLatency', { service: 'stripe', stage: 'prod' }],
      ['Later', { service: 'checkout', stage: 'prod' }],
    ])
    metrics.setThrowOnEmptyMetrics(true)
    await outcomeOf(handler({}, createTestContext()))
    expect(printed.lines.flatMap(dataPointsOf).at(-1)?.dimensions).toEqual({ service: 'stripe', stage: 'prod' })
    expect(warn.mock.calls.filter(([text]) => String(text).startsWith('Dimension'))).toEqual([])
  })

  it('tell of transitions and of the store at once', async () => {
    using printed = capturePrinted()
    const { start, runtime, storage } = createFleet({ resetTimeout: 10_000 })
    const [breaker, other] = [start(), start()]
    await Promise.all([breaker.load(), other.load()])
    started(measureCircuits(new Metrics({ namespace: 'Shop' })))
    await trip(breaker)
    await other.batchGetState()
    expect(sums(printed)).toEqual({ CircuitOpened: 1, 'CircuitTransitions to=OPEN': 1 })

    await runtime.advance(11_000)
    await outcomeOf(breaker.call('stripe', unavailable))
    await breaker.flush()
    storage.outage = 'fail'
    await runtime.advance(10_000)
    await other.load()
    expect(sums(printed)).toEqual({
      CircuitOpened: 1,
      'CircuitTransitions to=OPEN': 2,
      'CircuitTransitions to=HALF_OPEN': 1,
      StorageErrors: 1,
      'StorageErrors kind=unavailable': 1,
    })
  })

  it('count what refusals save: each the median of the failed calls that were seen, and nothing where none was', async () => {
    using printed = capturePrinted()
    const fleet = createFleet()
    const [breaker, newcomer] = [fleet.start(), fleet.start()]
    const telemetry = started(measureCircuits(new Metrics({ namespace: 'Shop' })))
    await breaker.forceOpen('stripe')
    await newcomer.load()
    await outcomeOf(newcomer.call('stripe', ok))
    telemetry.publish()
    expect(sums(printed)).toMatchObject({ CallsRefused: 1, 'CallsRefused reason=forced': 1 })
    expect(sums(printed)).not.toHaveProperty('MillisecondsSaved')

    await breaker.reset('stripe')
    for (const duration of [3_000, 10, 2_000]) {
      await lasting(
        fleet,
        duration,
        breaker.call('stripe', () => fleet.runtime.sleep(duration).then(unavailable)),
      )
    }
    await breaker.forceOpen('stripe')
    for (let calls = 0; calls < 2; calls++) await outcomeOf(breaker.call('stripe', ok))
    await outcomeOf(breaker.call('stripe', ok, { signal: AbortSignal.abort() }))
    telemetry.publish()

    expect(sums(printed)).toMatchObject({ MillisecondsSaved: 4_000, CallsFailed: 3, CallLatency: 5_010 })
  })

  it('tell what enforcing would refuse, where the mode is observe', async () => {
    using printed = capturePrinted()
    const breaker = createFleet({ mode: 'observe' }).start()
    await breaker.load()
    await trip(breaker)
    const telemetry = started(measureCircuits(new Metrics({ namespace: 'Shop' })))
    await breaker.call('stripe', ok)
    telemetry.publish()

    expect(sums(printed)).toMatchObject({ CallsSucceeded: 1, CallsToRefuse: 1, 'CallsToRefuse reason=open': 1 })
    expect(sums(printed)).not.toHaveProperty('MillisecondsSaved')
  })

  it('tell with each publishing that a circuit is open, or how long ago an operator has forced it', async () => {
    using printed = capturePrinted()
    const breaker = new CircuitBreaker({ services: ['stripe', 'paypal'], storage: new MemoryCircuitStorage() })
    const telemetry = started(measureCircuits(new Metrics({ namespace: 'Shop' }), { breaker }))
    telemetry.publish()
    expect(printed.lines).toEqual([])

    await breaker.batchSetState({ stripe: 'OPEN' })
    printed.clear()
    telemetry.publish()
    expect(sums(printed)).toEqual({ CircuitOpen: 1 })

    await breaker.forceClosed('stripe', { by: 'ada', why: 'maintenance', until: Date.now() + 3_600_000 })
    printed.clear()
    telemetry.publish()
    expect(sums(printed)).toEqual({ ForcedFor: expect.any(Number) })
    expect(printed.lines[0]).toMatchObject({ forced_state: 'CLOSED', operator: 'ada', operator_why: 'maintenance' })
  })

  it.each([undefined, true])(
    'have the key of a keyed service as a dimension only where that is asked for (keys: %s)',
    async (keys) => {
      using printed = capturePrinted()
      const { runtime, storage } = createFleet()
      const services = { stripe: { keyed: {} } }
      const breaker = new CircuitBreaker({ services, storage }, { ...runtime, env: {} })
      const telemetry = started(measureCircuits(new Metrics({ namespace: 'Shop' }), { keys, breaker }))
      await breaker.call('stripe', ok, { key: 'a.example' })
      await breaker.forceOpen('stripe', { key: 'b.example' })
      await outcomeOf(breaker.call('stripe', ok, { key: 'b.example' }))
      telemetry.publish()

      expect(sums(printed)).toMatchObject({ CallsSucceeded: 1, CallsRefused: 1 })
      if (keys)
        expect(sums(printed)).toMatchObject({ 'CallsSucceeded key=a.example': 1, 'CallsRefused key=b.example': 1 })
      else expect(JSON.stringify(printed.lines)).not.toContain('.example')
    },
  )

  it('count more calls than the format has room for, with the latencies of the latest hundred', async () => {
    using printed = capturePrinted()
    const breaker = createFleet({ maxConcurrent: 1_000 }).start()
    await breaker.load()
    const telemetry = started(measureCircuits(new Metrics({ namespace: 'Shop' })))
    for (let calls = 0; calls < 250; calls++) await breaker.call('stripe', ok)
    telemetry.publish()

    const latencies = printed.lines.flatMap(dataPointsOf).filter(({ name }) => name === 'CallLatency')
    expect(sums(printed)).toMatchObject({ CallsSucceeded: 250 })
    expect(latencies.map(({ values }) => values.length)).toEqual([100])
  })

  it('hurt nobody where Powertools fails, and say so', async () => {
    using warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = createFleet().start()
    const metrics = new Metrics({ namespace: 'Shop' })
    const telemetry = started(measureCircuits(metrics))
    using _mute = jest.spyOn(metrics, 'setDefaultDimensions').mockImplementation(() => {
      throw new TypeError('secret')
    })
    using _broken = jest.spyOn(metrics, 'singleMetric').mockImplementation(() => {
      throw new TypeError('secret')
    })
    await breaker.forceOpen('stripe')
    await outcomeOf(breaker.call('stripe', ok))
    telemetry.after()

    const texts = warning.mock.calls.map(([text]) => text)
    expect(texts).toEqual([
      expect.stringMatching(/^measureCircuits has failed with TypeError/),
      'The metrics of circuits could not be published: TypeError.',
    ])
  })

  it('refuse what is no Metrics of Powertools, and options that they do not have', () => {
    const metrics = new Metrics({ namespace: 'Shop' })
    expect(() => measureCircuits(console as never)).toThrow(
      /metrics must be an object with addMetric, .*but is an object/,
    )
    expect(() => measureCircuits(metrics, { key: true } as never)).toThrow(/did you mean keys/)
  })
})

describe('the log lines of circuits', () => {
  const logLines = ({ lines }: Printed) => lines.filter((line) => 'level' in line)

  it('have the ids of the invocation that they belong to, also when it is over', async () => {
    using printed = capturePrinted()
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    const logger = new Logger({ serviceName: 'checkout' })
    const handler = middy<unknown, unknown>()
      .use(injectLambdaContext(logger, { resetKeys: true }))
      .use({ before: () => logger.setCorrelationId('a-correlation') })
      .use(started(logCircuits(logger)))
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => {
        await outcomeOf(callExternal('stripe', unavailable))
      })
    const context = createTestContext({ awsRequestId: 'a-request' })
    storage.requestLatency = 100
    const ending = handler({}, context as never)
    await runtime.advance(5_000)
    await ending
    await breaker.flush()

    const ids = {
      function_request_id: 'a-request',
      correlation_id: 'a-correlation',
      service: 'checkout',
      circuit: 'stripe',
    }
    const failure = { name: 'ServiceUnavailable', status: 503 }
    expect(logLines(printed)).toMatchObject([
      { ...ids, level: 'WARN', message: 'A call to stripe has failed', failure, outcome: 'failure', fallback: false },
      { ...ids, level: 'ERROR', message: 'The circuit of stripe has opened', from: 'CLOSED', to: 'OPEN', failure },
    ])
  })

  it('tell of a store that fails, and of calls only where that is wanted', async () => {
    using printed = capturePrinted()
    using warning = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, storage, runtime } = createFleet({ onStorageError: undefined })
    started(logCircuits(new Logger(), { calls: false }))
    storage.outage = 'fail'
    const breaker = start()
    const loading = breaker.load()
    await runtime.advance(1_000)
    await loading
    storage.outage = undefined
    await failTimes(breaker, 1)

    expect(logLines(printed)).toMatchObject([
      { level: 'WARN', message: 'The store of the circuits has failed', circuits: ['stripe'], kind: 'unavailable' },
    ])
    expect(warning).not.toHaveBeenCalled()
  })

  it('tell who has forced a circuit, and why', async () => {
    using printed = capturePrinted()
    const breaker = createFleet().start()
    started(logCircuits(new Logger()))
    await breaker.forceOpen('stripe', { by: 'ada', why: 'maintenance' })

    expect(logLines(printed)).toMatchObject([
      { level: 'INFO', reason: 'forced-open', operator: 'ada', operator_why: 'maintenance' },
    ])
  })

  it('end', async () => {
    using printed = capturePrinted()
    const breaker = createFleet().start()
    logCircuits(new Logger()).stop()
    await breaker.forceOpen('stripe')

    expect(printed.lines).toEqual([])
  })

  it('refuse what is no Logger of Powertools', () => {
    expect(() => logCircuits(console as unknown as PowertoolsLogger)).toThrow(
      /logger must be an object with createChild/,
    )
  })
})
