/**
 * The errors that the breaker itself raises. An error of the protected service is never wrapped in one of these: it
 * reaches the caller as the same object.
 *
 * Each class has a guard (`isCircuitOpenError` …) that compares `code` and not the class, so that it also holds where
 * two copies of this package ended up in one bundle.
 *
 * The file is longer than it should be: users see each class, what it is made of and its guard, and look for them in one place.
 *
 * @module
 */

import { read } from './failures/causes.ts'

/** The `code` of every error of this package: stable, unlike messages. */
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

/** What Middy's packages give an error that no other error has caused: who threw it, and what it is about. */
export interface MiddyCause {
  /** The name of this package. */
  readonly package: 'middy-circuit-breaker'
  /** The facts, without those that can hold secrets. */
  readonly data: unknown
}

/**
 * The base of every error that the breaker raises; catch it to tell the breaker's errors from the service's.
 *
 * `cause` is the error that this one was made of, which only a {@link CircuitStorageError} has, or else a {@link MiddyCause}.
 */
export class CircuitBreakerError extends Error {
  /** The kind of error, for programs. */
  declare readonly code: CircuitBreakerErrorCode
  /** The service key that it happened to; `undefined` where the error concerns none or several. */
  declare readonly service: string | undefined
  /** The key of a keyed service that it happened to; absent where the service has none. Messages leave it out. */
  declare readonly key?: string

  /**
   * @param service the service key; `undefined`: the error concerns none or several
   * @param options the `cause`. Default: a {@link MiddyCause}
   * @param key the key of a keyed service
   * @param data the facts beside these, for the default `cause`
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
  /** The circuit is being probed, and every probe that it allows is in flight. */
  | 'probing'
  /** An operator forced the circuit open. */
  | 'forced'
  /** The circuit has closed just now, and admits more and more calls (`rampUp`). */
  | 'ramping'
  /** The probe could not be claimed in time because the store did not answer. */
  | 'unclaimed'

/** The failure that opened a circuit, without its message and its stack, which can hold secrets. */
export interface FailureSummary {
  /** Milliseconds since the epoch. */
  readonly at: number
  /** The error's `name`, at most 64 characters. */
  readonly name: string
  /** The error's `code`, at most 64 characters. */
  readonly code?: string | undefined
  /** The HTTP status that it carried. */
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
 * The circuit refused the call; the operation was not started.
 *
 * `statusCode`, `expose` and `headers` follow the http-errors convention: `@middy/http-error-handler` answers
 * `503` with `Retry-After` (whole seconds, rounded up, at least 1) by itself.
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
  /** The operator who forced the circuit open, if he has said so. It is no part of the message, which clients see. */
  declare readonly by: string | undefined
  /** The operator's reason. It is no part of the message either. */
  declare readonly why: string | undefined
  /** The HTTP status of an answer to the client: Service Unavailable. */
  readonly statusCode = 503
  /** The message may be shown to clients: it holds the service key and a time, and nothing else. */
  readonly expose = true
  /** For the answer to the client: `Retry-After`, in whole seconds. */
  declare readonly headers: Record<string, string>

  /** The breaker makes it; make one yourself to test a fallback. */
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

/** The cause of a cut. */
export type TimeoutReason =
  /** The call's own `timeout` has passed. */
  | 'timeout'
  /** The invocation has no more time than `deadlineReserve`. */
  | 'deadline'

/** The details of a {@link CircuitTimeoutError}. */
export interface CircuitTimeoutDetails extends CircuitName {
  /** The cause of the cut. */
  readonly reason: TimeoutReason
  /** How long the call was given, in milliseconds. */
  readonly timeout: number
  /** `false` if the time was over before the operation was started (it waited for a permit, or no time was left). */
  readonly attempted: boolean
  /** How long it waited for a permit, in milliseconds. Default: 0. */
  readonly waited?: number | undefined
  /** How many permits there are, where it waited for one. */
  readonly maxConcurrent?: number | undefined
}

/** The call took too long and was cut; the operation's `signal` is aborted with this error as its reason. */
export class CircuitTimeoutError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_TIMEOUT'
  declare readonly service: string
  /** The cause of the cut. */
  declare readonly reason: TimeoutReason
  /** How long the call was given, in milliseconds. */
  declare readonly timeout: number
  /** `false` if the time was over before the operation was started. */
  declare readonly attempted: boolean
  /** How long it waited for one of the permits of `maxConcurrent`, in milliseconds; 0: it did not. */
  declare readonly waited: number
  /** The HTTP status of an answer to the client: Gateway Timeout. */
  readonly statusCode = 504
  /** The message may be shown to clients: it holds the service key and times, and nothing else. */
  readonly expose = true

  /** The breaker makes it; make one yourself to test a fallback. */
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

/** `maxConcurrent` calls are in flight and `maxQueue` more are waiting: this one was turned away, not started. */
export class ConcurrencyLimitError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_CONCURRENCY_LIMIT'
  declare readonly service: string
  /** The HTTP status of an answer to the client: Service Unavailable. */
  readonly statusCode = 503
  /** The message may be shown to clients: it holds the service key and two settings, and nothing else. */
  readonly expose = true

  /**
   * The breaker makes it; make one yourself to test a fallback.
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

/** Handed to a `fallback`, never thrown: the operation resolved with a value that counts as a failure. */
export class BreakableResultError<T = unknown> extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_BREAKABLE_RESULT'
  declare readonly service: string
  /** The result of the operation, for instance a `Response` with status 503. */
  declare readonly result: T

  /**
   * The breaker makes it; make one yourself to test a fallback.
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
  /** The mistake and the allowed values, as a sentence. */
  readonly message: string
}

/** Thrown when a breaker is created, or a method is given what it cannot take: every problem at once. */
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

/** The operations that a store need not have. None of them is about the state of a circuit. */
export type JournalOperation =
  /** An entry is added to the journal of a circuit. */
  | 'appendJournal'
  /** The journal of a circuit is read. */
  | 'readJournal'
  /** Circuits are listed. */
  | 'listCircuits'

/** The trouble with the store, which decides what helps. */
export type StorageErrorKind =
  /** It does not answer, or not in time, or with an error of its own: it is tried again. */
  | 'unavailable'
  /** It answers that it cannot now: too many requests, no memory left, a failover, a long script. It is left in peace. */
  | 'throttled'
  /** It will never do what it is asked, until somebody changes the configuration: the message says what. */
  | 'misconfigured'
  /** It is well, but what it holds for this service is no circuit record. */
  | 'corrupt'

/** The details of a {@link CircuitStorageError}. */
export interface CircuitStorageErrorDetails extends ErrorOptions {
  /** The operation that failed. */
  readonly operation: StorageOperation
  /** The service key, where one alone is concerned. */
  readonly service?: string | undefined
  /** The key of a keyed service, where one alone is concerned. */
  readonly key?: string | undefined
  /** In a batch: what succeeded all the same, by service key. */
  readonly results?: ReadonlyMap<string, unknown> | undefined
  /** In a batch: what failed, by service key. */
  readonly errors?: ReadonlyMap<string, CircuitStorageError> | undefined
  /** `true` if the store answered, but with something that is no circuit record. */
  readonly corrupt?: boolean
  /** Default: `corrupt` if `corrupt` is `true`, else `unavailable`. */
  readonly kind?: StorageErrorKind | undefined
}

/**
 * The store failed or holds something that is no circuit record. Reported through `onStorageError`; thrown only by
 * adapters and by the engine's operator methods, never into a handler.
 */
export class CircuitStorageError extends CircuitBreakerError {
  declare readonly code: 'CIRCUIT_STORAGE'
  /** The operation that failed. */
  declare readonly operation: StorageOperation
  /** In a batch: what succeeded all the same, by service key; else `undefined`. */
  declare readonly results: ReadonlyMap<string, unknown> | undefined
  /** In a batch: what failed, by service key; else `undefined`. */
  declare readonly errors: ReadonlyMap<string, CircuitStorageError> | undefined
  /** `true` if the store answered, but with something that is no circuit record. */
  declare readonly corrupt: boolean
  /** The trouble: whether it passes by itself, and whether somebody has to do something. */
  declare readonly kind: StorageErrorKind

  /** Adapters make it: see {@link ICircuitStorage}. */
  constructor(message: string, details: CircuitStorageErrorDetails) {
    const { service, key, operation, corrupt = false, kind = corrupt ? 'corrupt' : 'unavailable' } = details
    super('CIRCUIT_STORAGE', message, service, details, key, { operation, kind })
    this.name = 'CircuitStorageError'
    this.operation = operation
    // Neither is printed with the error: each circuit's would take a dozen lines. The message names what failed.
    for (const part of ['results', 'errors'] as const) Object.defineProperty(this, part, { value: details[part] })
    this.corrupt = corrupt
    this.kind = kind
  }
}

/** The error that one of this package was made of; `undefined`: none. What Middy's packages have in its place is none. */
export function originalOf(error: unknown): unknown {
  const cause = read(error, 'cause')
  return read(cause, 'package') === packageName ? undefined : cause
}

/** Whether it is an error of this package, by its `code`. */
export function isCircuitBreakerError(error: unknown): error is CircuitBreakerError {
  return codes.has(codeOf(error) ?? '')
}

/** Whether it is a {@link CircuitOpenError}: the circuit refused the call. By its `code`. */
export function isCircuitOpenError(error: unknown): error is CircuitOpenError {
  return codeOf(error) === 'CIRCUIT_OPEN'
}

/** Whether it is a {@link CircuitTimeoutError}: the call was cut by its timeout or by the invocation's deadline. By its `code`. */
export function isCircuitTimeoutError(error: unknown): error is CircuitTimeoutError {
  return codeOf(error) === 'CIRCUIT_TIMEOUT'
}

/** Whether it is a {@link ConcurrencyLimitError}: too many calls are in flight and waiting. By its `code`. */
export function isConcurrencyLimitError(error: unknown): error is ConcurrencyLimitError {
  return codeOf(error) === 'CIRCUIT_CONCURRENCY_LIMIT'
}

/**
 * Whether it is a {@link BreakableResultError}: the fallback runs because of a result, not of an error. By its `code`.
 *
 * @example
 * const fallback = (error: unknown) => (isBreakableResultError(error) ? error.result : 'unknown')
 */
export function isBreakableResultError(error: unknown): error is BreakableResultError {
  return codeOf(error) === 'CIRCUIT_BREAKABLE_RESULT'
}

/** Whether it is an {@link UnknownServiceError}: the service key was not configured. By its `code`. */
export function isUnknownServiceError(error: unknown): error is UnknownServiceError {
  return codeOf(error) === 'CIRCUIT_UNKNOWN_SERVICE'
}

/** Whether it is a {@link ConfigurationError}: a setting or an argument is wrong. By its `code`. */
export function isConfigurationError(error: unknown): error is ConfigurationError {
  return codeOf(error) === 'CIRCUIT_CONFIGURATION'
}

/** Whether it is a {@link CircuitStorageError}: the store failed. By its `code`. */
export function isCircuitStorageError(error: unknown): error is CircuitStorageError {
  return codeOf(error) === 'CIRCUIT_STORAGE'
}

function codeOf(error: unknown): string | undefined {
  try {
    if (!(error instanceof Error)) return undefined
    const { code } = error as { code?: unknown }
    return typeof code === 'string' ? code : undefined
  } catch {
    // Anything can be thrown, also an object whose properties throw.
    return undefined
  }
}
