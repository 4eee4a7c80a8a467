import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { type InstrumentCircuitsOptions, instrumentCircuits } from 'middy-circuit-breaker/otel'
import { BadRequest, createFleet, type Fleet, never, ok, outcomeOf, unavailable } from '../../support/virtual-fleet.ts'

const spans = new InMemorySpanExporter()

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }))
})

afterAll(() => {
  context.disable()
  trace.disable()
})

/** Circuits that are instrumented until they are disposed of. */
function instrumented(options: InstrumentCircuitsOptions = {}) {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
  const meterProvider = new MeterProvider({ readers: [reader] })
  const stop = instrumentCircuits({ meterProvider, ...options })
  return {
    stop,
    /** The values by instrument and attributes: a number, or of a histogram its sum and count. */
    collect: async (): Promise<Record<string, unknown>> => {
      exporter.reset()
      await reader.forceFlush()
      const metrics = exporter
        .getMetrics()
        .flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
      const points = metrics.flatMap(({ descriptor, dataPoints }) =>
        dataPoints.map(({ attributes, value }) => {
          const labels = Object.entries(attributes).map(
            ([name, label]) => `${name.replace('circuitbreaker.', '')}=${label}`,
          )
          const { sum, count } = Object(value)
          const id = [descriptor.name.replace('circuitbreaker.', ''), descriptor.unit, ...labels].join(' ')
          return [id, typeof value === 'number' ? value : { sum, count }]
        }),
      )
      return Object.fromEntries(points)
    },
    [Symbol.asyncDispose]: async () => {
      stop()
      await meterProvider.shutdown()
    },
  }
}

async function failAfter({ runtime }: Fleet, breaker: ReturnType<Fleet['start']>, milliseconds: number): Promise<void> {
  const call = outcomeOf(breaker.call('stripe', () => runtime.sleep(milliseconds).then(unavailable)))
  await runtime.advance(milliseconds)
  await call
}

describe('the instruments of circuits', () => {
  it('record calls, refusals, fallbacks, transitions and the store', async () => {
    const fleet = createFleet()
    const [breaker, other] = [fleet.start(), fleet.start()]
    await Promise.all([breaker.load(), other.load()])
    await using telemetry = instrumented()
    await breaker.call('stripe', ok)
    await outcomeOf(breaker.call('stripe', () => Promise.reject(new BadRequest('400'))))
    for (let failures = 0; failures < 3; failures++) await failAfter(fleet, breaker, 2_000)
    await breaker.flush()
    await fleet.runtime.advance(1_000)
    const cut = outcomeOf(other.call('stripe', never, { timeout: 100 }))
    await fleet.runtime.advance(100)
    await cut
    await outcomeOf(breaker.call('stripe', ok, { fallback: () => 'instead' }))
    await breaker.flush()
    await other.batchGetState()

    expect(await telemetry.collect()).toMatchObject({
      'call.duration s name=stripe outcome=success': { sum: 0, count: 2 },
      'call.duration s name=stripe outcome=failure error.type=503': { sum: 6, count: 3 },
      'call.duration s name=stripe outcome=failure error.type=timeout': { sum: 0.1, count: 1 },
      'refusals {call} name=stripe refusal.reason=open mode=enforce': 1,
      'fallbacks {call} name=stripe': 1,
      'time_saved s name=stripe': 2,
      'transitions {transition} name=stripe state=open previous_state=closed transition.reason=failure-threshold': 1,
      'store.operation.duration s store.operation=batchGetState': { sum: 0, count: 2 },
    })
  })

  it('show the state of each circuit', async () => {
    const { start } = createFleet({ services: ['stripe', 'paypal'] })
    const breaker = start()
    await using telemetry = instrumented({ breaker })
    await breaker.forceOpen('stripe')

    expect(await telemetry.collect()).toMatchObject({
      'state 1 name=stripe state=closed': 0,
      'state 1 name=stripe state=open': 1,
      'state 1 name=stripe state=half_open': 0,
      'state 1 name=paypal state=closed': 1,
      'state 1 name=paypal state=open': 0,
    })
  })

  it('end', async () => {
    const breaker = createFleet().start()
    await using telemetry = instrumented({ breaker })
    telemetry.stop()
    await breaker.call('stripe', ok)

    expect(await telemetry.collect()).toEqual({})
  })

  it('can be scraped by Prometheus', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    const exporter = new PrometheusExporter({ preventServerStart: true })
    const meterProvider = new MeterProvider({ readers: [exporter] })
    const stop = instrumentCircuits({ meterProvider, breaker })
    try {
      await failAfter(fleet, breaker, 300)
      const { resourceMetrics, errors } = await exporter.collect()
      const lines = new PrometheusSerializer().serialize(resourceMetrics).split('\n')

      expect(errors).toEqual([])
      expect(lines.filter((line) => /^circuitbreaker_(state|call_duration_sum)\{/.test(line))).toEqual([
        expect.stringMatching(/^circuitbreaker_call_duration_sum\{circuitbreaker_name="stripe".*\} 0.3\b/),
        expect.stringMatching(
          /^circuitbreaker_state\{circuitbreaker_name="stripe",circuitbreaker_state="closed".*\} 1\b/,
        ),
        expect.stringMatching(
          /^circuitbreaker_state\{circuitbreaker_name="stripe",circuitbreaker_state="open".*\} 0\b/,
        ),
        expect.stringMatching(
          /^circuitbreaker_state\{circuitbreaker_name="stripe",circuitbreaker_state="half_open".*\} 0\b/,
        ),
      ])
    } finally {
      stop()
      await meterProvider.shutdown()
    }
  })

  it('refuse options that they do not have', () => {
    expect(() => instrumentCircuits({ spanEvent: false } as never)).toThrow(/did you mean spanEvents/)
    expect(() => instrumentCircuits({ keys: 'yes' } as never)).toThrow(/keys must be true or false, but is "yes"/)
  })
})

describe('the active span', () => {
  it.each([true, false])('gets events of its own calls, with spanEvents: %s', async (spanEvents) => {
    const breaker = createFleet().start()
    await breaker.load()
    await using _telemetry = instrumented({ spanEvents })
    spans.reset()
    const tracer = trace.getTracer('a-test')
    await tracer.startActiveSpan('handler', async (span) => {
      await outcomeOf(breaker.call('stripe', unavailable))
      await breaker.forceOpen('stripe')
      await outcomeOf(breaker.call('stripe', ok))
      span.end()
    })
    await outcomeOf(breaker.call('stripe', ok))

    const [span] = spans.getFinishedSpans()
    expect(span?.events.map(({ name, attributes }) => [name, attributes])).toEqual(
      spanEvents
        ? [
            [
              'circuitbreaker.failed',
              { 'circuitbreaker.name': 'stripe', 'circuitbreaker.outcome': 'failure', 'error.type': '503' },
            ],
            [
              'circuitbreaker.state_change',
              {
                'circuitbreaker.name': 'stripe',
                'circuitbreaker.state': 'open',
                'circuitbreaker.previous_state': 'closed',
                'circuitbreaker.transition.reason': 'forced-open',
              },
            ],
            [
              'circuitbreaker.refused',
              {
                'circuitbreaker.name': 'stripe',
                'circuitbreaker.refusal.reason': 'forced',
                'circuitbreaker.mode': 'enforce',
                'circuitbreaker.refusal.retry_after': 10,
              },
            ],
          ]
        : [],
    )
  })
})
