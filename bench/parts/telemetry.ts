/** What it costs to be told of calls, and what it costs that one could be. */

import { channel } from 'node:diagnostics_channel'
import { Logger } from '@aws-lambda-powertools/logger'
import { Metrics } from '@aws-lambda-powertools/metrics'
import middy from '@middy/core'
import { InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { CircuitBreaker, type CircuitBreakerContext, circuitBreaker, MemoryCircuitStorage } from '../../src/index.ts'
import { instrumentCircuits } from '../../src/telemetry/otel/index.ts'
import { logCircuits, measureCircuits } from '../../src/telemetry/powertools/index.ts'
import { type Case, type RoundsOptions, type Timing, timeInRounds } from '../rounds.ts'
import { duration, type Effort, type Section, type Table, type Target, times } from '../section.ts'
import { operation } from '../subjects.ts'

const lambdaContext = { awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 }
const withMetrics = 'Powertools’ metrics'
const inLambda = 'callExternal, Lambda deadline'
const elsewhere = 'call'

export async function run({ quick }: Effort): Promise<Section> {
  const options: RoundsOptions = quick ? { rounds: 2, slice: 1 } : { rounds: 41, slice: 12 }
  // First, while nobody has ever subscribed.
  const looks = await timeInRounds(lookCases(), options)
  const timed = await timeSubscribers(options)
  const invocations = await timeInvocations(options)
  const ratioOf = (subscriber: string, call: string) => timed.get(subscriber)?.get(call)?.ratio ?? Number.NaN
  const ratio = (subscriber: string, call: string) => ratioOf(subscriber, call) / ratioOf('nobody', call)
  const target = (what: string, wanted: string, measured: number, limit: number): Target => ({
    what,
    wanted,
    measured: times(measured),
    isMet: measured <= limit,
  })
  return {
    title: 'Telemetry',
    blocks: [
      `A call looks once at the channel on which it would be published. Without a subscriber it does nothing more:`,
      table(looks, 'what is done'),
      'The same call with different subscribers, as a multiple of its cost without one:',
      {
        header: ['subscriber', inLambda, elsewhere],
        rows: Object.keys(subscribers).map((name) => [
          name,
          ...[inLambda, elsewhere].map((call) => {
            const { best = Number.NaN } = timed.get(name)?.get(call) ?? {}
            return `${times(ratio(name, call))} (${duration(best)})`
          }),
        ]),
      },
      `Metrics are published when an invocation ends, in one line for each service. Most of the time is Powertools’ own. The time to write to
the standard output is left out. A handler in Middy with one call:`,
      table(invocations, 'invocation'),
    ],
    targets: [
      target(
        'A channel without subscribers',
        'at most 1.05 × the bare call',
        looks.get(lookedAt)?.ratio ?? Number.NaN,
        1.05,
      ),
      target(`${withMetrics}: ${inLambda}`, 'at most 1.50 × the same without', ratio(withMetrics, inLambda), 1.5),
    ],
  }
}

const lookedAt = 'bare call, and a look at the channel'

function lookCases(): Record<string, Case> {
  const calls = channel('middy-circuit-breaker:call')
  return {
    'bare call': () => operation(),
    [lookedAt]: () => {
      if (calls.hasSubscribers) throw new Error('Somebody has subscribed')
      return operation()
    },
  }
}

/** One after the other, each beside the bare call: who has subscribed once makes V8 look at the channel in another way. */
async function timeSubscribers(options: RoundsOptions): Promise<ReadonlyMap<string, ReadonlyMap<string, Timing>>> {
  const breaker = new CircuitBreaker({ services: ['stripe'], storage: 'memory' }, { env: {} })
  await breaker.load()
  const callExternal = breaker.callExternalFor(lambdaContext)
  const cases: Record<string, Case> = {
    'bare call': () => operation(),
    [inLambda]: () => callExternal('stripe', operation),
    [elsewhere]: () => breaker.call('stripe', operation),
  }
  const timed = new Map<string, ReadonlyMap<string, Timing>>()
  for (const [name, begin] of Object.entries(subscribers)) {
    const end = begin()
    timed.set(name, await timeInRounds(cases, options))
    quietly(end)
  }
  return timed
}

const subscribers: Readonly<Record<string, () => () => void>> = {
  nobody: () => () => {},
  [withMetrics]: () => measureCircuits(new Metrics({ namespace: 'Bench', serviceName: 'bench' })).stop,
  'Powertools’ log lines': () => logCircuits(new Logger()).stop,
  'OpenTelemetry’s metrics': () => {
    const exporter = new InMemoryMetricExporter(1)
    const readers = [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })]
    return instrumentCircuits({ meterProvider: new MeterProvider({ readers }) })
  },
}

/** What an invocation with one call costs in Middy, and what Powertools' own work is of it. */
async function timeInvocations(options: RoundsOptions): Promise<ReadonlyMap<string, Timing>> {
  const { write } = process.stdout
  const own = new Metrics({ namespace: 'Bench', serviceName: 'bench' })
  const telemetry = measureCircuits(new Metrics({ namespace: 'Bench', serviceName: 'bench' }))
  const measured = middy()
    .use(telemetry)
    .use(circuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() }))
    .handler(async (_event: unknown, { callExternal }: CircuitBreakerContext<'stripe'>) =>
      callExternal('stripe', operation),
    )
  try {
    process.stdout.write = () => true
    return await timeInRounds(
      {
        'two metrics added and published by Powertools': () => {
          own.addMetric('One', 'Count', 1)
          own.addMetric('Two', 'Milliseconds', 1)
          own.publishStoredMetrics()
        },
        'Middy, ours, with Powertools’ metrics': () => measured({}, { ...lambdaContext } as never),
      },
      options,
    )
  } finally {
    telemetry.stop()
    process.stdout.write = write
  }
}

/** Runs it while nothing is printed. */
function quietly(run: () => void): void {
  const { write } = process.stdout
  process.stdout.write = () => true
  run()
  process.stdout.write = write
}

function table(timings: ReadonlyMap<string, Timing>, what: string): Table {
  return {
    header: [what, 'ratio', 'time'],
    rows: Array.from(timings, ([name, { ratio, best }]) => [name, times(ratio), duration(best)]),
  }
}
