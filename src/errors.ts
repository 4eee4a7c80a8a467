/**
 * The errors that the breaker itself raises. The breaker never wraps an error of the protected service: the caller gets the
 * same object.
 *
 * Each class has a guard (`isCircuitOpenError` …). The guard compares `code` and not the class, so it also works if one bundle
 * holds two copies of this package.
 *
 * The file is longer than it should be, because users look for each class, its details and its guard in one place.
 *
 * @module
 */

import { read } from './failures/causes.ts'

/** The `code` of every error of this package. Codes are stable, messages are not. */
export type CircuitBreakerErrorCode =
  /** A {@link CircuitOpenError}: the circuit refused the call. */
  | 'CIRCUIT_OPEN'
  /** A {@link CircuitTimeoutError}: the call took too long. */
  | 'CIRCUIT_TIMEOUT'
  /** A {@link ConcurrencyLimitError}: too many calls were in flight and waiting. */
  | 'CIRCUIT_CONCURRENCY_LIMIT'
  /** A {@link BreakableResultError}: the operation resolved with a value that counts as a failure. Fallbacks get it. */
  | 'CIRCUIT_BREAKABLE_RESULT'
  /** An {@link UnknownServiceError}: the service key is not configured. */
  | 'CIRCUIT_UNKNOWN_SERVICE'
  /** A {@link ConfigurationError}: a setting, or an argument of a method, is wrong. */
  | 'CIRCUIT_CONFIGURATION'
  /** A {@link CircuitStorageError}: the store failed. */
  | 'CIRCUIT_STORAGE'

const codes: ReadonlySet<string> = new Set<CircuitBreakerErrorCode>([
  'CIRCUIT_OPEN',
  'CIRCUIT_TIMEOUT',
  'CIRCUIT_CONCURRENCY_LIMIT',
  'CIRCUIT_BREAKABLE_RESULT',
  'CIRCUIT_UNKNOWN_SERVICE',
  'CIRCUIT_CONFIGURATION',
  'CIRCUIT_STORAGE',
])

const packageName = 'middy-circuit-breaker'

/** The `cause` that Middy's packages give an error without another cause: the package that threw it, and the facts. */
export interface MiddyCause {
  /** The name of this package. */
  readonly package: 'middy-circuit-breaker'
  /** The facts about the error. Facts that can hold secrets are left out. */
  readonly data: unknown
}

/**
 * The base of every error that the breaker raises. Catch it to tell the breaker's errors from the service's.
 *
 * The `cause` of a {@link CircuitStorageError} is the client's error, if there is one. In all other cases `cause` is a
 * {@link MiddyCause}.
 */
export class CircuitBreakerError extends Error {
  /** The kind of error, for programs. */
  declare readonly code: CircuitBreakerErrorCode
  /** The key of the service that the error concerns; `undefined`: it concerns none or several. */
  declare readonly service: string | undefined
  /** The key of a keyed service that the error concerns; absent if the service is not keyed. Messages leave it out. */
  declare readonly key?: string

  /**
   * @param service the service key; `undefined`: the error concerns none or several
   * @param options the `cause`. Default: a {@link MiddyCause}
   * @param key the key of a keyed service
   * @param data further facts for the default `cause`
   */
  constructor(
    code: CircuitBreakerErrorCode,
    message: string,
    service?: string,
    options?: ErrorOptions,
    key?: string,
    data?: object,
  ) {
    const own = { ...(service !== undefined && { service }), ...(key !== undefined && { key }), ...data }
    const original = originalOf(options)
    super(message, { cause: original === undefined ? { package: packageName, data: own } : original })
    this.name = new.target.name
    this.code = code
    this.service = service
    if (key !== undefined) this.key = key
  }
}

/** Why a call was refused. */
export type RefusalReason =
  /** The circuit is open and its reset timeout has not passed. */
  | 'open'
  /** The circuit is half-open, and all the probes that it allows are in flight. */
  | 'probing'
  /** An operator forced the circuit open. */
  | 'forced'
  /** The circuit closed a short time ago and still admits only a part of the calls (`rampUp`). */
  | 'ramping'
  /** The store did not answer in time, so this call could not claim the probe. */
  | 'unclaimed'

/** The failure that opened a circuit. Its message and its stack can hold secrets and are left out. */
export interface FailureSummary {
  /** Milliseconds since the epoch. */
  readonly at: number
  /** The error's `name`, at most 64 characters. */
  readonly name: string
  /** The error's `code`, at most 64 characters. */
  readonly code?: string | undefined
  /** The HTTP status of the error or response. */
  readonly status?: number | undefined
}

/** A circuit by its name: the service, and its key if the service is keyed. */
export interface CircuitName {
  /** The service key. */
  readonly service: string
  /** The key of a keyed service; `undefined`: the service's own circuit. */
  readonly key?: string | undefined
}

/** The details of a {@link CircuitOpenError}. */
export interface CircuitOpenDetails extends CircuitName {
  /** How long to wait before another try can succeed, in milliseconds, at least 0. */
  readonly retryAfter: number
  /** When the circuit opened, in milliseconds since the epoch; `undefined` if this instance cannot know. */
  readonly openedAt: number | undefined
  /** The failure that opened the circuit: its name, code and HTTP status, never its message. */
  readonly lastFailure?: FailureSummary | undefined
  /** Why the call was refused. */
  readonly reason: RefusalReason
  /** The operator who forced the circuit open. */
  readonly by?: string | undefined
  /** The operator's reason. */
  readonly why?: string | undefined
}

/**
 * The circuit refused the call. The operation was not started.
 *
 * `statusCode`, `expose` and `headers` follow the http-errors convention, so `@middy/http-error-handler` responds with
 * `503` and `Retry-After` (whole seconds, rounded up, at least 1).
 */
export class CircuitOpenError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_OPEN'
  declare readonly service: string
  /** How long to wait before another try can succeed, in milliseconds, at least 0. */
  declare readonly retryAfter: number
  /** When the circuit opened, in milliseconds since the epoch; `undefined` if this instance cannot know. */
  declare readonly openedAt: number | undefined
  /** The failure that opened the circuit; `undefined` if this instance does not know it. */
  declare readonly lastFailure: FailureSummary | undefined
  /** Why the call was refused. */
  declare readonly reason: RefusalReason
  /** The operator who forced the circuit open, if a name was given. The message leaves it out, because clients may see the message. */
  declare readonly by: string | undefined
  /** The operator's reason. The message leaves it out. */
  declare readonly why: string | undefined
  /** The HTTP status of the response to the client: Service Unavailable. */
  readonly statusCode = 503
  /** Clients may see the message: it holds only the service key and a time. */
  readonly expose = true
  /** Headers of the response to the client: `Retry-After`, in whole seconds. */
  declare readonly headers: Record<string, string>

  /** The breaker makes this error. Make one yourself to test a fallback. */
  constructor(details: CircuitOpenDetails) {
    const { service, key } = details
    const seconds = Math.max(1, Math.ceil(details.retryAfter / 1000))
    super('CIRCUIT_OPEN', `The circuit of ${service} is open. Try again in ${seconds} s.`, service, undefined, key, {
      reason: details.reason,
      retryAfter: details.retryAfter,
    })
    this.name = 'CircuitOpenError'
    Object.assign(this, details)
    this.headers = { 'Retry-After': String(seconds) }
  }
}

/** The limit that ended a call. */
export type TimeoutReason =
  /** The call's own `timeout` has passed. */
  | 'timeout'
  /** The invocation has no more time than `deadlineReserve`. */
  | 'deadline'

/** The details of a {@link CircuitTimeoutError}. */
export interface CircuitTimeoutDetails extends CircuitName {
  /** The limit that ended the call. */
  readonly reason: TimeoutReason
  /** How long the call was given, in milliseconds. */
  readonly timeout: number
  /** `false` if the time was over before the operation started: the call waited for a permit, or no time was left. */
  readonly attempted: boolean
  /** How long the call waited for a permit, in milliseconds. Default: 0. */
  readonly waited?: number | undefined
  /** How many permits there are, if the call waited for one. */
  readonly maxConcurrent?: number | undefined
}

/** The call took too long, and the breaker ended it. The breaker aborts the operation's `signal` with this error as the reason. */
export class CircuitTimeoutError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_TIMEOUT'
  declare readonly service: string
  /** The limit that ended the call. */
  declare readonly reason: TimeoutReason
  /** How long the call was given, in milliseconds. */
  declare readonly timeout: number
  /** `false` if the time was over before the operation started. */
  declare readonly attempted: boolean
  /** How long the call waited for one of the permits of `maxConcurrent`, in milliseconds; 0: it did not wait. */
  declare readonly waited: number
  /** The HTTP status of the response to the client: Gateway Timeout. */
  readonly statusCode = 504
  /** Clients may see the message: it holds only the service key and times. */
  readonly expose = true

  /** The breaker makes this error. Make one yourself to test a fallback. */
  constructor(details: CircuitTimeoutDetails) {
    const { service, key, reason, timeout, attempted, waited = 0, maxConcurrent } = details
    const limit = reason === 'timeout' ? `${Math.round(timeout)} ms` : 'the time that the invocation had left'
    const what = attempted ? `did not finish within ${limit}` : `was not started: ${limit} passed before it could be`
    const wait = `; it waited ${Math.round(waited)} ms for one of ${maxConcurrent} permits (maxConcurrent)`
    const message = `The call to ${service} ${what}${maxConcurrent === undefined ? '' : wait}.`
    super('CIRCUIT_TIMEOUT', message, service, undefined, key, { reason, timeout, attempted })
    this.name = 'CircuitTimeoutError'
    this.reason = reason
    this.timeout = timeout
    this.attempted = attempted
    this.waited = waited
  }
}

/** `maxConcurrent` calls are in flight and `maxQueue` more are waiting. The breaker refused this call and did not start its operation. */
export class ConcurrencyLimitError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_CONCURRENCY_LIMIT'
  declare readonly service: string
  /** The HTTP status of the response to the client: Service Unavailable. */
  readonly statusCode = 503
  /** Clients may see the message: it holds only the service key and two settings. */
  readonly expose = true

  /**
   * The breaker makes this error. Make one yourself to test a fallback.
   *
   * @param maxConcurrent how many calls are in flight
   * @param maxQueue how many calls wait
   * @param key the key of a keyed service
   */
  constructor(service: string, maxConcurrent: number, maxQueue: number, key?: string) {
    super(
      'CIRCUIT_CONCURRENCY_LIMIT',
      `Too many calls to ${service}: ${maxConcurrent} in flight (maxConcurrent) and ${maxQueue} waiting (maxQueue).`,
      service,
      undefined,
      key,
      { maxConcurrent, maxQueue },
    )
    this.name = 'ConcurrencyLimitError'
  }
}

/** The operation resolved with a value that counts as a failure. The breaker passes this error to a `fallback` and never throws it. */
export class BreakableResultError<T = unknown> extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_BREAKABLE_RESULT'
  declare readonly service: string
  /** The result of the operation, for instance a `Response` with status 503. */
  declare readonly result: T

  /**
   * The breaker makes this error. Make one yourself to test a fallback.
   *
   * @param result the result of the operation
   * @param key the key of a keyed service
   */
  constructor(service: string, result: T, key?: string) {
    const message = `${service} answered with a result that counts as a failure.`
    super('CIRCUIT_BREAKABLE_RESULT', message, service, undefined, key)
    this.name = 'BreakableResultError'
    this.result = result
  }
}

/** The service key was not configured. */
export class UnknownServiceError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_UNKNOWN_SERVICE'
  declare readonly service: string

  /** @param configured the keys of the configured services, for the message */
  constructor(service: string, configured: Iterable<string>) {
    const services = [...configured]
    const known = services.map((key) => JSON.stringify(key)).join(', ')
    super(
      'CIRCUIT_UNKNOWN_SERVICE',
      `No circuit is configured for ${describeKey(service)}. Add it to "services"; configured: ${known || 'none'}.`,
      String(service),
      undefined,
      undefined,
      { services },
    )
    this.name = 'UnknownServiceError'
  }
}

function describeKey(service: unknown): string {
  return typeof service === 'string' ? JSON.stringify(service) : `a key of type ${typeof service}`
}

/** One wrong setting. */
export interface ConfigurationProblem {
  /** The setting, for instance `failureThreshold` or `services.stripe.timeout`. */
  readonly setting: string
  /** Where the value came from: `option`, the name of the environment variable, or the call that it was given to. */
  readonly source: string
  /** The value as it was given. */
  readonly value: unknown
  /** A sentence that names the mistake and the allowed values. */
  readonly message: string
}

/** The settings of a new breaker, or the arguments of a method, are wrong. The error lists every problem at once. */
export class ConfigurationError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_CONFIGURATION'
  /** Every problem that was found, at least one. */
  declare readonly problems: readonly ConfigurationProblem[]

  /**
   * @param options the `cause`
   * @param service the service that all problems concern; `undefined`: they concern none or several
   */
  constructor(problems: readonly ConfigurationProblem[], options?: ErrorOptions, service?: string) {
    const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`
    const lines = problems.map((problem) => `  - ${problem.message}`)
    super(
      'CIRCUIT_CONFIGURATION',
      [`The circuit breaker's configuration has ${count}:`, ...lines].join('\n'),
      service,
      options,
      undefined,
      { problems },
    )
    this.name = 'ConfigurationError'
    this.problems = problems
  }
}

/** The storage operations that can fail, by their names in the storage contract. */
export type StorageOperation =
  /** One circuit is read. */
  | 'getState'
  /** Several circuits are read. */
  | 'batchGetState'
  /** Outcomes are added to the counts of a circuit. */
  | 'addOutcomes'
  /** A circuit changes its state, or a probe is claimed. */
  | 'compareAndSetState'
  /** An operator sets several circuits. */
  | 'batchSetState'
  /** One circuit is deleted. */
  | 'clearState'
  /** Several circuits are deleted. */
  | 'batchClearState'
  | JournalOperation

/** The optional operations of a store. None of them reads or changes the state of a circuit. */
export type JournalOperation =
  /** An entry is added to the journal of a circuit. */
  | 'appendJournal'
  /** The journal of a circuit is read. */
  | 'readJournal'
  /** Circuits are listed. */
  | 'listCircuits'

/** What is wrong with the store, and so what helps. */
export type StorageErrorKind =
  /** The store does not answer, answers too late, or fails with an error of its own. The breaker tries again. */
  | 'unavailable'
  /**
   * The store answers that it cannot serve the request now: too many requests, no memory left, a failover, a long script. The
   * breaker sends fewer requests.
   */
  | 'throttled'
  /** The store will refuse the request until the configuration is changed. The message says what to change. */
  | 'misconfigured'
  /** The store works, but the data stored for this service is not a circuit record. */
  | 'corrupt'

/** The details of a {@link CircuitStorageError}. */
export interface CircuitStorageErrorDetails extends ErrorOptions {
  /** The operation that failed. */
  readonly operation: StorageOperation
  /** The service key, if the error concerns a single service. */
  readonly service?: string | undefined
  /** The key of a keyed service, if the error concerns a single key. */
  readonly key?: string | undefined
  /** In a batch: the results that succeeded, by service key. */
  readonly results?: ReadonlyMap<string, unknown> | undefined
  /** In a batch: the errors, by service key. */
  readonly errors?: ReadonlyMap<string, CircuitStorageError> | undefined
  /** `true` if the store answered, but its answer is not a circuit record. */
  readonly corrupt?: boolean
  /** Default: `corrupt` if `corrupt` is `true`, else `unavailable`. */
  readonly kind?: StorageErrorKind | undefined
}

/**
 * The store failed, or the stored data is not a circuit record. The breaker reports this error through `onStorageError`. Only
 * adapters and the operator methods of the breaker throw it; a protected call never does.
 */
export class CircuitStorageError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_STORAGE'
  /** The operation that failed. */
  declare readonly operation: StorageOperation
  /** In a batch: the results that succeeded, by service key; else `undefined`. */
  declare readonly results: ReadonlyMap<string, unknown> | undefined
  /** In a batch: the errors, by service key; else `undefined`. */
  declare readonly errors: ReadonlyMap<string, CircuitStorageError> | undefined
  /** `true` if the store answered, but its answer is not a circuit record. */
  declare readonly corrupt: boolean
  /** What is wrong with the store: whether it passes by itself or needs a correction. */
  declare readonly kind: StorageErrorKind

  /** Storage adapters make this error: see {@link ICircuitStorage}. */
  constructor(message: string, details: CircuitStorageErrorDetails) {
    const { service, key, operation, corrupt = false, kind = corrupt ? 'corrupt' : 'unavailable' } = details
    super('CIRCUIT_STORAGE', message, service, details, key, { operation, kind })
    this.name = 'CircuitStorageError'
    this.operation = operation
    // Node does not print these properties with the error: each circuit would take a dozen lines. The message names what failed.
    for (const part of ['results', 'errors'] as const) Object.defineProperty(this, part, { value: details[part] })
    this.corrupt = corrupt
    this.kind = kind
  }
}

/** The original error behind an error of this package; `undefined`: there is none. A {@link MiddyCause} is not an original error. */
export function originalOf(error: unknown): unknown {
  const cause = read(error, 'cause')
  return read(cause, 'package') === packageName ? undefined : cause
}

/** Whether a value is an error of this package, by its `code`. */
export function isCircuitBreakerError(error: unknown): error is CircuitBreakerError {
  return codes.has(codeOf(error) ?? '')
}

/** Whether a value is a {@link CircuitOpenError}, by its `code`: the circuit refused the call. */
export function isCircuitOpenError(error: unknown): error is CircuitOpenError {
  return codeOf(error) === 'CIRCUIT_OPEN'
}

/** Whether a value is a {@link CircuitTimeoutError}, by its `code`: its timeout or the invocation's deadline ended the call. */
export function isCircuitTimeoutError(error: unknown): error is CircuitTimeoutError {
  return codeOf(error) === 'CIRCUIT_TIMEOUT'
}

/** Whether a value is a {@link ConcurrencyLimitError}, by its `code`: too many calls are in flight and waiting. */
export function isConcurrencyLimitError(error: unknown): error is ConcurrencyLimitError {
  return codeOf(error) === 'CIRCUIT_CONCURRENCY_LIMIT'
}

/**
 * Whether a value is a {@link BreakableResultError}, by its `code`: the fallback runs because of a result, not of an error.
 *
 * @example
 * const fallback = (error: unknown) => (isBreakableResultError(error) ? error.result : 'unknown')
 */
export function isBreakableResultError(error: unknown): error is BreakableResultError {
  return codeOf(error) === 'CIRCUIT_BREAKABLE_RESULT'
}

/** Whether a value is an {@link UnknownServiceError}, by its `code`: the service key was not configured. */
export function isUnknownServiceError(error: unknown): error is UnknownServiceError {
  return codeOf(error) === 'CIRCUIT_UNKNOWN_SERVICE'
}

/** Whether a value is a {@link ConfigurationError}, by its `code`: a setting or an argument is wrong. */
export function isConfigurationError(error: unknown): error is ConfigurationError {
  return codeOf(error) === 'CIRCUIT_CONFIGURATION'
}

/** Whether a value is a {@link CircuitStorageError}, by its `code`: the store failed. */
export function isCircuitStorageError(error: unknown): error is CircuitStorageError {
  return codeOf(error) === 'CIRCUIT_STORAGE'
}

function codeOf(error: unknown): string | undefined {
  try {
    if (!(error instanceof Error)) return undefined
    const { code } = error as { code?: unknown }
    return typeof code === 'string' ? code : undefined
  } catch {
    // A thrown value may be an object whose properties throw.
    return undefined
  }
}
