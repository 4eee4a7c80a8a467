/**
 * Log lines of circuits, written by the Logger of Powertools.
 *
 * @module
 */

import type { StateChange } from '../../events.ts'
import type { CallEvent, StoreEvent } from '../channels.ts'
import { listen, refuseWithout, refuseWrongSwitches } from '../subscription.ts'
import { isOutage, operatorOf } from './outage.ts'

/** As much of Powertools' `Logger` as is used. */
export interface PowertoolsLogger {
  /** Makes the logger that writes the lines. */
  createChild(): PowertoolsLogger
  /** The correlation id of the running invocation. */
  getCorrelationId(): unknown
  /** Writes a transition that is no outage. */
  info(message: string, line: Record<string, unknown>): void
  /** Writes a failed call, or a failure of the store. */
  warn(message: string, line: Record<string, unknown>): void
  /** Writes an outage, or that the store is misconfigured. */
  error(message: string, line: Record<string, unknown>): void
}

/** The options of {@link logCircuits}. */
export interface CircuitLogsOptions {
  /** Whether each failed call has a line. Default: `true`. */
  readonly calls?: boolean | undefined
}

/** A Middy middleware, which links lines with the correlation ids of their invocations. */
export interface CircuitLogs {
  /** Takes note of the invocation's correlation id. */
  // biome-ignore lint/suspicious/noExplicitAny: Middy infers the handler's context from it, and this is any.
  before(request: any): void
  /** Ends the log lines. */
  stop(): void
}

/** The correlation ids of so many invocations are kept: what becomes known late has those of its cause. */
const keptIds = 100

/**
 * Logs what circuits of this process do: transitions that this instance has made for the fleet, failures of the store, and calls
 * that have failed. An outage is an `error`, as is a store that is misconfigured; failed calls and a failing store are warnings.
 *
 * Each line has the `function_request_id` of the invocation that it belongs to, which need not be the one that is running. As a
 * middleware after `injectLambdaContext`, it adds the `correlation_id` that the logger had in that invocation.
 *
 * Of an error a line has its name, code and status, never its message.
 *
 * @param logger a `Logger` of Powertools: a child of it writes the lines, with the persistent keys that it has now
 * @throws {ConfigurationError} if it is none, or an option is wrong
 * @example
 * export const handler = middy()
 *   .use(injectLambdaContext(logger, { correlationIdPath: correlationPaths.API_GATEWAY_HTTP }))
 *   .use(logCircuits(logger))
 *   .use(circuitBreaker({ services: ['stripe'] }))
 *   .handler(…)
 */
export function logCircuits(logger: PowertoolsLogger, options: CircuitLogsOptions = {}): CircuitLogs {
  refuseWithout('logCircuits', 'logger', logger, ['createChild', 'getCorrelationId', 'info', 'warn', 'error'])
  refuseWrongSwitches('logCircuits', options, ['calls'])
  const correlationIds = new Map<string, unknown>()
  const idsOf = (requestId: string | undefined): object => ({
    function_request_id: requestId,
    correlation_id: requestId === undefined ? undefined : correlationIds.get(requestId),
  })
  // Its lines may belong to another invocation than the one whose ids the logger has.
  const own = logger.createChild()
  const stop = listen('logCircuits', {
    'middy-circuit-breaker:state': (change) => logTransition(own, change, idsOf(change.requestId)),
    'middy-circuit-breaker:store': (event) => logStoreError(own, event),
    ...(options.calls !== false && {
      'middy-circuit-breaker:call': (event: CallEvent) => logFailedCall(own, event, idsOf),
    }),
  })
  return {
    before({ context }: { readonly context: { readonly awsRequestId?: string } }) {
      const { awsRequestId } = context
      const id = logger.getCorrelationId()
      if (awsRequestId === undefined || id === undefined) return
      correlationIds.set(awsRequestId, id)
      const [oldest] = correlationIds.keys()
      if (oldest !== undefined && correlationIds.size > keptIds) correlationIds.delete(oldest)
    },
    stop,
  }
}

function logTransition(logger: PowertoolsLogger, change: StateChange, ids: object): void {
  const { service, from, to, reason, generation, at, evidence, lastFailure, retryAt, observed } = change
  if (observed) return
  const line = {
    circuit: service,
    ...keyOf(change),
    from,
    to,
    reason,
    generation,
    at: new Date(at).toISOString(),
    ...ids,
    // Why it opened, and until when nobody is let through. An operator's word needs no evidence.
    ...(evidence !== undefined && { evidence }),
    ...operatorOf(change),
    ...(to === 'OPEN' && { failure: lastFailure, retry_at: retryAt && new Date(retryAt).toISOString() }),
  }
  if (isOutage(change)) logger.error(`The circuit of ${service} has opened`, line)
  else logger.info(`The circuit of ${service} is ${to} now`, line)
}

function logStoreError(logger: PowertoolsLogger, { services, operation, duration, error: kind }: StoreEvent): void {
  if (kind === undefined) return
  const line = { circuits: services, operation, kind, latency: duration }
  // What is misconfigured stays so until somebody does something.
  if (kind === 'misconfigured') logger.error('The store of the circuits is misconfigured', line)
  else logger.warn('The store of the circuits has failed', line)
}

function logFailedCall(
  logger: PowertoolsLogger,
  event: CallEvent,
  idsOf: (requestId: string | undefined) => object,
): void {
  const { service, outcome, failure, duration, fallback, requestId } = event
  if (outcome !== 'failure' && failure?.code !== 'CIRCUIT_TIMEOUT') return
  const line = { circuit: service, ...keyOf(event), outcome, failure, latency: duration, fallback, ...idsOf(requestId) }
  logger.warn(`A call to ${service} has failed`, line)
}

function keyOf(event: object): { readonly key?: string } {
  const { key } = event as { readonly key?: string | undefined }
  return key === undefined ? {} : { key }
}
