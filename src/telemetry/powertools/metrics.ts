/**
 * Metrics of circuits, published by the Metrics of Powertools.
 *
 * Calls are counted in memory and published when the invocation ends: a call costs an addition. Transitions and failures of the
 * store are published at once, because they may become known when the invocation is over, or in none.
 *
 * @module
 */

import type { CircuitSnapshot } from '../../circuit/snapshot.ts'
import type { StateChange } from '../../events.ts'
import type { CircuitBreakerWarningCode } from '../../warnings.ts'
import type { CallEvent, RefusedEvent, StoreEvent } from '../channels.ts'
import { listen, refuseWithout, refuseWrongSwitches } from '../subscription.ts'
import { TimeSaved } from '../time-saved.ts'
import { isOutage, operatorOf } from './outage.ts'

/** As much of Powertools' `Metrics` as is used. */
export interface PowertoolsMetrics {
  /** Stores one value of a metric. */
  addMetric(name: string, unit: 'Count' | 'Milliseconds' | 'Seconds', value: number): unknown
  /** Adds a text to the next line that is no dimension. */
  addMetadata(key: string, value: string): unknown
  /** Adds dimensions to the next line. */
  addDimensions(dimensions: Record<string, string>): unknown
  /** Adds dimensions to all lines. */
  setDefaultDimensions(dimensions: Record<string, string>): unknown
  /** Takes the dimensions of all lines away. */
  clearDefaultDimensions(): void
  /** Takes the dimensions of the next line away. */
  clearDimensions(): void
  /** Whether anything waits to be published. */
  hasStoredMetrics(): boolean
  /** Prints what waits as one line. */
  publishStoredMetrics(): unknown
  /** The line that would be printed, with the default dimensions. */
  serializeMetrics(): object
  /** Makes an instance whose metrics are printed at once. */
  singleMetric(): PowertoolsMetrics
}

/** The options of {@link measureCircuits}. */
export interface CircuitMetricsOptions {
  /**
   * A breaker whose circuits' states are published with each invocation: `CircuitOpen` and `ForcedFor`. Default: none. A
   * transition is told once in the fleet, so that it cannot say how long a state lasts.
   */
  readonly breaker?: { readonly circuits: Readonly<Record<string, object>> } | undefined
  /**
   * Whether the metrics of keyed services also have the dimension `key`. Each key is then a metric of its own, which costs as
   * one. Default: `false`, the keys of a service are counted together.
   */
  readonly keys?: boolean | undefined
}

/** A Middy middleware, which publishes the metrics of calls when an invocation ends. */
export interface CircuitMetrics {
  /** Publishes when the handler has answered. */
  after(): void
  /** Publishes when the handler has failed. */
  onError(): void
  /** Publishes the metrics of calls: for handlers without Middy. */
  publish(): void
  /** Publishes what there is, and ends the metrics. */
  stop(): void
}

/** So many latencies are published at once: the embedded metric format takes no more. */
const maxLatencies = 100

/** The calls of a service, or of one of its keys, since the last publishing. */
class Tally {
  readonly service: string
  readonly key: string | undefined
  succeeded = 0
  failed = 0
  timedOut = 0
  ignored = 0
  fallbacks = 0
  /** Milliseconds. */
  saved = 0
  /** Of the latest calls, in milliseconds. */
  readonly latencies: number[] = []
  /** By the name of the metric and the reason. */
  readonly refused = new Map<string, number>()
  /** The circuit, if its state is to be told. */
  circuit: CircuitSnapshot | undefined

  constructor(service: string, key: string | undefined) {
    this.service = service
    this.key = key
  }

  ended({ outcome, failure, duration, fallback }: CallEvent): void {
    const count = this.succeeded + this.failed + this.timedOut + this.ignored
    if (outcome === 'success') this.succeeded++
    else if (failure?.code === 'CIRCUIT_TIMEOUT') this.timedOut++
    else if (outcome === 'failure') this.failed++
    else this.ignored++
    this.latencies[count % maxLatencies] = duration
    if (fallback) this.fallbacks++
  }

  wasRefused({ reason, mode, fallback }: RefusedEvent, saved: number): void {
    const name = `${mode === 'observe' ? 'CallsToRefuse' : 'CallsRefused'} ${reason}`
    this.refused.set(name, (this.refused.get(name) ?? 0) + 1)
    if (fallback) this.fallbacks++
    this.saved += saved
  }
}

/**
 * Publishes metrics of the circuits of this process, with the dimension `service`: the service that is called.
 *
 * | metric | unit | of |
 * | --- | --- | --- |
 * | `CallsSucceeded`, `CallsFailed`, `CallsTimedOut`, `CallsIgnored` | Count | calls, by how they ended; an ignored one says nothing of the service |
 * | `CallLatency` | Milliseconds | each of the latest 100 calls since the last publishing |
 * | `CallsRefused` | Count | calls whose operation was not started; also by `reason` |
 * | `CallsToRefuse` | Count | calls that `mode: 'observe'` let through; also by `reason` |
 * | `Fallbacks` | Count | calls that a fallback has answered |
 * | `MillisecondsSaved` | Milliseconds | refusals, taken to have cost the median of the last 25 failed calls that this process has seen |
 * | `CircuitTransitions` | Count | transitions, by `to`; once in the fleet |
 * | `CircuitOpened` | Count | outages: once in the fleet when a circuit opens that was closed, unless an operator has forced it |
 * | `StorageErrors` | Count | operations at the store that have failed; also by `kind` |
 * | `CircuitOpen` | Count | 1 for each invocation in which the circuit was not closed; with `breaker` |
 * | `ForcedFor` | Seconds | the age of what an operator has forced, for each invocation in which it held; with `breaker` |
 *
 * @param metrics a `Metrics` of Powertools, best one of its own: what it has stored is published with each publishing. Its
 *   namespace and its default dimensions count, but for `service`
 * @throws {ConfigurationError} if it is none, or an option is wrong
 * @example
 * export const handler = middy()
 *   .use(measureCircuits(new Metrics({ namespace: 'Shop' })))
 *   .use(circuitBreaker({ services: ['stripe'] }))
 *   .handler(…)
 */
export function measureCircuits(metrics: PowertoolsMetrics, options: CircuitMetricsOptions = {}): CircuitMetrics {
  refuseWithout('measureCircuits', 'metrics', metrics, methods)
  const { breaker, ...switches } = options
  refuseWrongSwitches('measureCircuits', switches, ['keys'])
  const timeSaved = new TimeSaved()
  /** By service and key. Written by `tallyOf`, emptied by `publish`. */
  const tallies = new Map<string, Tally>()
  let last: Tally | undefined
  const tallyOf = (service: string, given: string | undefined): Tally => {
    const key = options.keys === true ? given : undefined
    if (last?.service === service && last.key === key) return last
    const id = key === undefined ? service : `${service}\0${key}`
    last = tallies.get(id) ?? new Tally(service, key)
    tallies.set(id, last)
    return last
  }
  const publish = (): void => {
    for (const circuit of statesOf(breaker?.circuits ?? {})) {
      if (isTold(circuit)) tallyOf(circuit.service, undefined).circuit = circuit
    }
    if (tallies.size === 0) return
    const all = [...tallies.values()]
    tallies.clear()
    last = undefined
    if (metrics.hasStoredMetrics()) metrics.publishStoredMetrics()
    metrics.clearDimensions()
    const dimensions = defaultsOf(metrics)
    for (const tally of all) publishTally(metrics, dimensions, tally)
    replaceDefaults(metrics, dimensions)
  }
  const publishSafely = (): void => {
    try {
      publish()
    } catch (error) {
      const { name } = Object(error) as { readonly name?: unknown }
      const text = `The metrics of circuits could not be published: ${String(name)}.`
      process.emitWarning(text, {
        type: 'CircuitBreakerWarning',
        code: 'CIRCUIT_TELEMETRY' satisfies CircuitBreakerWarningCode,
      })
    }
  }
  const unsubscribe = listen('measureCircuits', {
    'middy-circuit-breaker:call': (event) => {
      timeSaved.ended(event)
      tallyOf(event.service, event.key).ended(event)
    },
    'middy-circuit-breaker:refused': (event) => {
      tallyOf(event.service, event.key).wasRefused(event, timeSaved.by(event) ?? 0)
    },
    'middy-circuit-breaker:state': (change) => publishTransition(metrics, change, options),
    'middy-circuit-breaker:store': (event) => publishStoreError(metrics, event),
  })
  return {
    after: publishSafely,
    onError: publishSafely,
    publish: publishSafely,
    stop: () => {
      unsubscribe()
      publishSafely()
    },
  }
}

const methods: readonly (keyof PowertoolsMetrics)[] = [
  'addMetric',
  'addMetadata',
  'addDimensions',
  'setDefaultDimensions',
  'clearDefaultDimensions',
  'clearDimensions',
  'hasStoredMetrics',
  'publishStoredMetrics',
  'serializeMetrics',
  'singleMetric',
]

type Dimensions = Readonly<Record<string, string>>

function publishTally(metrics: PowertoolsMetrics, dimensions: Dimensions, tally: Tally): void {
  replaceDefaults(metrics, { ...dimensions, service: tally.service })
  const byKey: Dimensions = tally.key === undefined ? {} : { key: tally.key }
  const counts = {
    CallsSucceeded: tally.succeeded,
    CallsFailed: tally.failed,
    CallsTimedOut: tally.timedOut,
    CallsIgnored: tally.ignored,
    Fallbacks: tally.fallbacks,
  }
  for (const [name, count] of Object.entries(counts)) if (count > 0) metrics.addMetric(name, 'Count', count)
  if (tally.circuit !== undefined) addState(metrics, tally.circuit)
  if (tally.saved > 0) metrics.addMetric('MillisecondsSaved', 'Milliseconds', tally.saved)
  if (metrics.hasStoredMetrics() || tally.latencies.length > 0) {
    alsoBy(metrics, byKey)
    for (const latency of tally.latencies) metrics.addMetric('CallLatency', 'Milliseconds', latency)
    // At a hundred values they have been published.
    if (metrics.hasStoredMetrics()) metrics.publishStoredMetrics()
  }
  for (const [name, count] of tally.refused) {
    const [metric, reason] = name.split(' ') as [string, string]
    alsoBy(metrics, byKey, { reason })
    metrics.addMetric(metric, 'Count', count)
    metrics.publishStoredMetrics()
  }
}

function publishTransition(
  metrics: PowertoolsMetrics,
  change: StateChange & { readonly key?: string | undefined },
  { keys }: CircuitMetricsOptions,
): void {
  const { service, key, to, observed } = change
  if (observed) return
  const byKey: Dimensions = keys === true && key !== undefined ? { key } : {}
  const single = singleMetric(metrics, { service })
  single.addDimensions({ to })
  if (byKey['key'] !== undefined) single.addDimensions({ to, ...byKey })
  single.addMetric('CircuitTransitions', 'Count', 1)
  if (!isOutage(change)) return
  const outage = singleMetric(metrics, { service })
  alsoBy(outage, byKey)
  outage.addMetric('CircuitOpened', 'Count', 1)
}

function publishStoreError(metrics: PowertoolsMetrics, { services, error: kind }: StoreEvent): void {
  if (kind === undefined) return
  for (const service of services) {
    const single = singleMetric(metrics, { service })
    alsoBy(single, { kind })
    single.addMetric('StorageErrors', 'Count', 1)
  }
}

/** The circuits of services. A keyed service has one if it has a circuit of its own. */
function statesOf(circuits: Readonly<Record<string, object>>): CircuitSnapshot[] {
  return Object.values(circuits).flatMap((circuit) => {
    const own = 'state' in circuit ? circuit : (circuit as { readonly parent?: object | undefined }).parent
    return own === undefined ? [] : [own as CircuitSnapshot]
  })
}

/** While all is well nothing is published, and costs nothing. */
function isTold(circuit: CircuitSnapshot): boolean {
  return circuit.state !== 'CLOSED' || forcedBy(circuit) !== undefined
}

function addState(metrics: PowertoolsMetrics, circuit: CircuitSnapshot): void {
  const override = forcedBy(circuit)
  if (override === undefined) {
    metrics.addMetric('CircuitOpen', 'Count', 1)
    return
  }
  metrics.addMetric('ForcedFor', 'Seconds', Math.max(0, Math.floor((Date.now() - override.at) / 1_000)))
  metrics.addMetadata('forced_state', override.state)
  for (const [name, value] of Object.entries(operatorOf(override))) metrics.addMetadata(name, value)
}

/** What an operator has forced, while it holds. */
function forcedBy({ override }: CircuitSnapshot): CircuitSnapshot['override'] {
  return override?.until !== undefined && override.until <= Date.now() ? undefined : override
}

/** The metric has its default dimensions alone and, because an alarm adds up no dimensions, with these as well. */
function alsoBy(metrics: PowertoolsMetrics, ...sets: readonly Dimensions[]): void {
  const used = sets.filter((set) => Object.keys(set).length > 0)
  if (used.length === 0) return
  for (const set of used) metrics.addDimensions({ ...set })
  metrics.addDimensions({})
}

/** Publishes its metric at once, and leaves alone what is stored. */
function singleMetric(metrics: PowertoolsMetrics, { service }: { readonly service: string }): PowertoolsMetrics {
  const single = metrics.singleMetric()
  replaceDefaults(single, { ...defaultsOf(single), service })
  return single
}

/** The default dimensions of an instance that has stored nothing. */
function defaultsOf(metrics: PowertoolsMetrics): Dimensions {
  const { _aws, ...values } = serialized(metrics) as { readonly _aws: unknown; readonly [name: string]: unknown }
  return values as Dimensions
}

function serialized(metrics: PowertoolsMetrics): object {
  try {
    return metrics.serializeMetrics()
  } catch {
    // With throwOnEmptyMetrics. One for a single metric has the same dimensions, but takes long to make.
    return metrics.singleMetric().serializeMetrics()
  }
}

/** Powertools warns where one is overwritten, so that they are cleared first. */
function replaceDefaults(metrics: PowertoolsMetrics, dimensions: Dimensions): void {
  metrics.clearDefaultDimensions()
  metrics.setDefaultDimensions({ ...dimensions })
}
