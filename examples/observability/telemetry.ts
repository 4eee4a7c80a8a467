/**
 * What the function tells CloudWatch of its calls and its circuits: metrics in the embedded metric format, and log lines.
 *
 * Of an error only its name, code and status are told. Its message, its stack and its cause, and the body of an answer, may
 * hold keys, addresses with tokens in them and customers' data.
 *
 * @module
 */

import { Logger } from '@aws-lambda-powertools/logger'
import { Metrics, MetricUnit } from '@aws-lambda-powertools/metrics'
import type { MiddlewareObj } from '@middy/core'
import type { APIGatewayProxyEventV2 } from 'aws-lambda'
import {
  type CallExternal,
  type CallOptions,
  type CircuitBreaker,
  isBreakableResultError,
  isCircuitOpenError,
  isCircuitTimeoutError,
  isConcurrencyLimitError,
  type Operation,
  type StateChange,
  type StorageErrorEvent,
} from 'middy-circuit-breaker'

/** The metrics of all services that were called, for `logMetrics`, which publishes those that there are in the end. */
export const allMetrics: Metrics[] = []

const metricsByService = new Map<string, Metrics>()

/**
 * The metrics of a service. Their dimension `service` is what is called and not, as usual, who calls: which function tells of a
 * transition is a matter of chance, and an alarm must not depend on it. `alarms.yaml` and `alarms.ts` have the same names.
 */
export function metricsOf(service: string): Metrics {
  const known = metricsByService.get(service)
  if (known !== undefined) return known
  const metrics = new Metrics({ namespace: 'Shop', serviceName: service })
  metricsByService.set(service, metrics)
  allMetrics.push(metrics)
  return metrics
}

/** For what happens in an invocation: `injectLambdaContext` and {@link correlation} add whose lines they are. */
export const logger = new Logger()

/** For what may be known only after its invocation: it has no ids but those that it is given. */
const circuitLogger = new Logger()

/** API Gateway's request ids of the latest invocations, by Lambda's. */
const correlationIds = new Map<string, string>()
const keptCorrelationIds = 100

/** Takes the correlation id from API Gateway, for the invocation's own lines and for transitions that it causes. */
export const correlation: MiddlewareObj<APIGatewayProxyEventV2> = {
  before: ({ event, context }) => {
    const { requestId } = event.requestContext
    logger.setCorrelationId(requestId)
    correlationIds.set(context.awsRequestId, requestId)
    const [oldest] = correlationIds.keys()
    if (oldest !== undefined && correlationIds.size > keptCorrelationIds) correlationIds.delete(oldest)
  },
}

/**
 * Tells of a transition: a listener for `onStateChange`. Each transition reaches one instance of one function, so every
 * function that shares the circuit needs this listener.
 *
 * It is published at once and not with the metrics of an invocation. It may become known when `logMetrics` has published
 * those already, or in a later invocation, or in none: what is kept for the next one would then be late, or lost with the
 * process. Its time is that of telling, because an alarm does not look at minutes that are long over.
 */
export function tellStateChange(change: StateChange): void {
  const { service, from, to, reason, generation, at, requestId, evidence, lastFailure, retryAt } = change
  const metrics = metricsOf(service)
  metrics.singleMetric().addDimension('to', to).addMetric('CircuitTransitions', MetricUnit.Count, 1)
  // From HALF_OPEN a probe has failed: that is still the outage that was told when it began. An operator needs no alarm.
  const isOutage = from === 'CLOSED' && to === 'OPEN' && reason !== 'forced-open'
  if (isOutage) metrics.singleMetric().addMetric('CircuitOpened', MetricUnit.Count, 1)

  const line = {
    circuit: service,
    from,
    to,
    reason,
    generation,
    at: new Date(at).toISOString(),
    // Of the invocation whose call caused it, which need not be the one that is running.
    function_request_id: requestId,
    correlation_id: requestId && correlationIds.get(requestId),
    // Why it opened, and until when nobody is let through. An operator's word needs no evidence.
    ...(evidence !== undefined && { evidence }),
    ...operatorOf(change),
    ...(to === 'OPEN' && { failure: lastFailure, retry_at: retryAt && new Date(retryAt).toISOString() }),
  }
  if (isOutage) circuitLogger.error(`The circuit of ${service} has opened`, line)
  else circuitLogger.info(`The circuit of ${service} is ${to} now`, line)
}

/** Tells of a failure of the store, at once for the same reasons: a listener for `onStorageError`. */
export function tellStorageError({ services, operation, error, willRetry }: StorageErrorEvent): void {
  const { kind } = error
  // Twice: by kind, and for the alarm without, because an alarm does not add up dimensions.
  for (const service of services) {
    const metric = metricsOf(service).singleMetric()
    metric.addDimensions({ kind }).addDimensions({}).addMetric('StorageErrors', MetricUnit.Count, 1)
  }
  const line = { circuits: services, operation, kind, willRetry }
  // What is misconfigured stays so until somebody does something.
  if (kind === 'misconfigured') circuitLogger.error('The store of the circuits is misconfigured', line)
  else circuitLogger.warn('The store of the circuits has failed', line)
}

/**
 * Tells of circuits that are not closed, and of those that an operator has forced, with each invocation.
 *
 * A transition is told once, by one instance, or by the operator's command, whose events no function gets. So it cannot
 * say how long a state lasts. Each invocation can: `CircuitOpen` is 1 unless the circuit is closed, and `ForcedFor` is the
 * age of the operator's decision. While all is well neither is published, and costs nothing.
 */
export function states({ circuits }: Pick<CircuitBreaker, 'circuits'>): MiddlewareObj {
  const tell = (): void => {
    for (const { service, state, override } of Object.values(circuits)) {
      const metrics = metricsOf(service)
      const now = Date.now()
      if (override === undefined || (override.until !== undefined && override.until <= now)) {
        if (state !== 'CLOSED') metrics.addMetric('CircuitOpen', MetricUnit.Count, 1)
        continue
      }
      metrics.addMetric('ForcedFor', MetricUnit.Seconds, Math.floor((now - override.at) / 1_000))
      metrics.addMetadata('forced_state', override.state)
      for (const [name, value] of Object.entries(operatorOf(override))) metrics.addMetadata(name, value)
    }
  }
  return { after: tell, onError: tell }
}

/** Who has forced or reset a circuit, why, and until when. */
function operatorOf({ by, why, until }: Pick<StateChange, 'by' | 'why' | 'until'>): Readonly<Record<string, string>> {
  return {
    ...(by !== undefined && { operator: by }),
    ...(why !== undefined && { operator_why: why }),
    ...(until !== undefined && { operator_until: new Date(until).toISOString() }),
  }
}

/** How a call ended. A fallback comes on top. */
type Outcome = 'CallsSucceeded' | 'CallsFailed' | 'CallsTimedOut' | 'CallsRefused'

/** `callExternal`, with each call counted by its outcome and timed. It changes nothing of what the caller gets. */
export function measured<K extends string>(callExternal: CallExternal<K>): CallExternal<K> {
  return async <T, F = never>(service: K, operation: Operation<T>, options: CallOptions<T, F> = {}): Promise<T | F> => {
    const { fallback } = options
    const metrics = metricsOf(service)
    const startedAt = performance.now()
    let isCounted = false
    const count = (outcome: Outcome, error?: unknown): void => {
      isCounted = true
      metrics.addMetric(outcome, MetricUnit.Count, 1)
      // A refusal takes no time: it would make a dead service look fast, and fill the log.
      if (outcome === 'CallsRefused') return
      const latency = Math.round(performance.now() - startedAt)
      metrics.addMetric('CallLatency', MetricUnit.Milliseconds, latency)
      if (outcome === 'CallsSucceeded') return
      logger.warn(`A call to ${service} has failed`, { circuit: service, outcome, latency, failure: failureOf(error) })
    }
    // There always is a fallback, so that a result that counts as a failure is not taken for a success.
    const instead = (error: unknown): PromiseLike<T | F> | T | F => {
      count(outcomeOf(error), error)
      if (fallback === undefined) {
        if (isBreakableResultError(error)) return error.result as T
        throw error
      }
      metrics.addMetric('Fallbacks', MetricUnit.Count, 1)
      return fallback(error)
    }
    try {
      const value = await callExternal(service, operation, { ...options, fallback: instead })
      if (!isCounted) count('CallsSucceeded')
      return value
    } catch (error) {
      if (!isCounted) count(outcomeOf(error), error)
      throw error
    }
  }
}

function outcomeOf(error: unknown): Outcome {
  if (isCircuitOpenError(error) || isConcurrencyLimitError(error)) return 'CallsRefused'
  return isCircuitTimeoutError(error) ? 'CallsTimedOut' : 'CallsFailed'
}

/** What may be told of a failure. */
export function failureOf(error: unknown): Fields {
  if (isBreakableResultError(error)) {
    const { status }: Fields = Object(error.result)
    return { name: 'BreakableResult', status: word(status) }
  }
  const { name, code, cause }: Fields = Object(error)
  // fetch has the code in the cause.
  const { code: causeCode }: Fields = Object(cause)
  return { name: word(name), code: word(code ?? causeCode) }
}

interface Fields {
  readonly name?: unknown
  readonly code?: unknown
  readonly cause?: unknown
  readonly status?: unknown
}

/** A name, a code or a status is one word; anything else could be anything. */
function word(value: unknown): string | number | undefined {
  const isWord = typeof value === 'number' || (typeof value === 'string' && /^\w{1,64}$/.test(value))
  return isWord ? value : undefined
}
