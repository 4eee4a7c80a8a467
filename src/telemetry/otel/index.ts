/**
 * Tells OpenTelemetry of circuits: metrics, and events on the active span. Of OpenTelemetry it needs `@opentelemetry/api` alone.
 *
 * The names are those that are proposed to its conventions, https://github.com/open-telemetry/semantic-conventions/issues/2355:
 * `circuitbreaker.name` and `circuitbreaker.state`. The others continue them. Durations are seconds, and failures have an
 * `error.type`, as the stable conventions want it.
 *
 * @module
 */

import { type Attributes, type Meter, type MeterProvider, metrics, type Span, trace } from '@opentelemetry/api'
import type { CircuitState } from '../../storage/contract.ts'
import type { CallEvent } from '../channels.ts'
import { listen, refuseWrongSwitches } from '../subscription.ts'
import { TimeSaved } from '../time-saved.ts'

/** The options of {@link instrumentCircuits}. */
export interface InstrumentCircuitsOptions {
  /** Makes the instruments. Default: the global one. */
  readonly meterProvider?: MeterProvider | undefined
  /** A breaker whose circuits' states `circuitbreaker.state` shows. Default: there is no such metric. */
  readonly breaker?: { readonly circuits: Readonly<Record<string, object>> } | undefined
  /**
   * Whether the metrics of keyed services also have the attribute `circuitbreaker.key`. Each key is then a time series of its
   * own. Default: `false`. Events of spans have it always.
   */
  readonly keys?: boolean | undefined
  /** Whether the active span gets events. Default: `true`. */
  readonly spanEvents?: boolean | undefined
}

const states: readonly CircuitState[] = ['CLOSED', 'OPEN', 'HALF_OPEN']
/** In seconds: those of the conventions for HTTP clients. */
const boundaries = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

/**
 * Records what circuits of this process do.
 *
 * | instrument | kind, unit | attributes beside `circuitbreaker.name` |
 * | --- | --- | --- |
 * | `circuitbreaker.call.duration` | histogram, s | `circuitbreaker.outcome` (`success`, `failure`, `ignore`), `error.type` |
 * | `circuitbreaker.refusals` | counter, {call} | `circuitbreaker.refusal.reason`, `circuitbreaker.mode` |
 * | `circuitbreaker.fallbacks` | counter, {call} | |
 * | `circuitbreaker.time_saved` | counter, s: see `MillisecondsSaved` of `measureCircuits` | |
 * | `circuitbreaker.transitions` | counter, {transition}: once in the fleet | `circuitbreaker.state` and `circuitbreaker.previous_state`, `circuitbreaker.transition.reason` |
 * | `circuitbreaker.store.operation.duration` | histogram, s; without a name | `circuitbreaker.store.operation`, `error.type` |
 * | `circuitbreaker.state` | up-down counter, 1 for the state that a circuit is in, else 0; with `breaker` only | `circuitbreaker.state` |
 *
 * The active span gets an event `circuitbreaker.refused` for each refusal, `circuitbreaker.failed` for each failed call, and
 * `circuitbreaker.state_change` for a transition that its call has caused.
 *
 * @returns a function that ends it
 * @throws {ConfigurationError} if an option is wrong
 * @example
 * const breaker = new CircuitBreaker({ services: ['stripe'] })
 * instrumentCircuits({ breaker })
 */
export function instrumentCircuits(options: InstrumentCircuitsOptions = {}): () => void {
  const { meterProvider = metrics.getMeterProvider(), breaker, keys = false, spanEvents = true, ...others } = options
  refuseWrongSwitches('instrumentCircuits', { keys, spanEvents, ...others }, ['keys', 'spanEvents'])
  const meter = meterProvider.getMeter('middy-circuit-breaker')
  const durations = meter.createHistogram('circuitbreaker.call.duration', {
    description: 'Duration of calls that a circuit breaker let through',
    unit: 's',
    advice: { explicitBucketBoundaries: boundaries },
  })
  const refusals = meter.createCounter('circuitbreaker.refusals', {
    description: 'Calls whose operation was not started',
    unit: '{call}',
  })
  const fallbacks = meter.createCounter('circuitbreaker.fallbacks', {
    description: 'Calls that a fallback has answered',
    unit: '{call}',
  })
  const saved = meter.createCounter('circuitbreaker.time_saved', {
    description: 'What refused calls would have taken, were they as slow as the failed ones',
    unit: 's',
  })
  const transitions = meter.createCounter('circuitbreaker.transitions', {
    description: 'Changes of state, counted by the instance that has made them',
    unit: '{transition}',
  })
  const storeDurations = meter.createHistogram('circuitbreaker.store.operation.duration', {
    description: 'Duration of operations at the store of the circuits',
    unit: 's',
    advice: { explicitBucketBoundaries: boundaries },
  })
  const timeSaved = new TimeSaved()
  const nameOf = (event: Named): Attributes => attributesOf(event, keys)
  const tellSpan = (name: string, event: Named, attributes: Attributes): void => {
    const span = spanEvents ? activeSpan() : undefined
    span?.addEvent(name, defined({ ...attributesOf(event, true), ...attributes }))
  }
  const unsubscribe = listen('instrumentCircuits', {
    'middy-circuit-breaker:call': (event) => {
      const { outcome, duration, fallback } = event
      const attributes = defined({ 'circuitbreaker.outcome': outcome, 'error.type': errorType(event) })
      const name = nameOf(event)
      durations.record(duration / 1_000, { ...name, ...attributes })
      if (fallback) fallbacks.add(1, name)
      timeSaved.ended(event)
      if (outcome === 'failure') tellSpan('circuitbreaker.failed', event, attributes)
    },
    'middy-circuit-breaker:refused': (event) => {
      const { reason, mode, retryAfter, fallback } = event
      const name = nameOf(event)
      refusals.add(1, { ...name, 'circuitbreaker.refusal.reason': reason, 'circuitbreaker.mode': mode })
      if (fallback) fallbacks.add(1, name)
      const time = timeSaved.by(event)
      if (time !== undefined) saved.add(time / 1_000, name)
      tellSpan('circuitbreaker.refused', event, {
        'circuitbreaker.refusal.reason': reason,
        'circuitbreaker.mode': mode,
        'circuitbreaker.refusal.retry_after': retryAfter === undefined ? undefined : retryAfter / 1_000,
      })
    },
    'middy-circuit-breaker:state': (change) => {
      if (change.observed) return
      const attributes = {
        'circuitbreaker.state': textOf(change.to),
        'circuitbreaker.previous_state': textOf(change.from),
        'circuitbreaker.transition.reason': change.reason,
      }
      transitions.add(1, { ...nameOf(change), ...attributes })
      tellSpan('circuitbreaker.state_change', change, attributes)
    },
    'middy-circuit-breaker:store': ({ operation, duration, error }) => {
      storeDurations.record(
        duration / 1_000,
        defined({ 'circuitbreaker.store.operation': operation, 'error.type': error }),
      )
    },
  })
  const unobserve = breaker === undefined ? undefined : observeStates(meter, breaker.circuits)
  return () => {
    unsubscribe()
    unobserve?.()
  }
}

interface Named {
  readonly service: string
  readonly key?: string | undefined
}

function attributesOf({ service, key }: Named, withKey: boolean): Attributes {
  return withKey && key !== undefined
    ? { 'circuitbreaker.name': service, 'circuitbreaker.key': key }
    : { 'circuitbreaker.name': service }
}

/** The states of circuits as they are when they are collected. A keyed service shows its own circuit, if it has one. */
function observeStates(meter: Meter, circuits: Readonly<Record<string, object>>): () => void {
  const gauge = meter.createObservableUpDownCounter('circuitbreaker.state', {
    description: 'The state that a circuit is in: 1 for this one, 0 for the others',
    unit: '1',
  })
  const observe: Parameters<typeof gauge.addCallback>[0] = (result) => {
    for (const [service, circuit] of Object.entries(circuits)) {
      const { state, parent } = circuit as { readonly state?: unknown; readonly parent?: { readonly state: unknown } }
      const current = state ?? parent?.state
      if (current === undefined) continue
      for (const each of states) {
        result.observe(each === current ? 1 : 0, {
          'circuitbreaker.name': service,
          'circuitbreaker.state': textOf(each),
        })
      }
    }
  }
  gauge.addCallback(observe)
  return () => gauge.removeCallback(observe)
}

/** Attributes have lower-case values, as all conventions have them. */
function textOf(state: CircuitState): string {
  return state.toLowerCase()
}

function errorType({ failure }: CallEvent): string | undefined {
  if (failure === undefined) return undefined
  const { code, status, name } = failure
  // Its own status is the answer to a client, and none of the service's.
  if (code === 'CIRCUIT_TIMEOUT') return 'timeout'
  return status === undefined ? (code ?? name) : String(status)
}

function activeSpan(): Span | undefined {
  const span = trace.getActiveSpan()
  return span?.isRecording() ? span : undefined
}

/** Without those that have no value: an attribute that is undefined is a label of Prometheus all the same. */
function defined(attributes: Attributes): Attributes {
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined))
}
