/**
 * Decides whether an error or a result is evidence of a failure of the protected service.
 *
 * All functions look at properties, never at `instanceof` or messages. So they also recognise errors of another realm or of a
 * second copy of a library. None of them throws, for any value.
 *
 * @module
 */

import type { FailureSummary } from '../storage/contract.ts'
import { causesOf, type Evidence, evidenceOf, isObject, read, someOf } from './causes.ts'
import {
  ANSWERING_GRPC,
  ANSWERING_PAIRS,
  ANSWERING_SQLSTATES,
  ANSWERS,
  BREAKABLE_GRPC,
  BREAKABLE_PAIRS,
  CONNECTION,
  isBreakable,
  NOT_ATTEMPTED,
  THROTTLING,
  UNDECIDED_STATUSES,
} from './codes.ts'

/** What the end of a call shows of the service. */
export type Outcome =
  /** The service fails. */
  | 'failure'
  /** The service works. It may have refused the request. */
  | 'success'
  /** The call shows neither, and is not counted. */
  | 'ignore'

/**
 * The default classifier of errors: `true` if the error shows that the service fails.
 *
 * - **Counts:** any HTTP status from 500 to 599; connection, DNS and TLS failures; timeouts; a response that cannot be
 *   parsed; gRPC `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNKNOWN`; a database that reports that it is down or out
 *   of connections.
 * - **Does not count:** any HTTP status from 400 to 499 (408, 425, 429 and throttling with a 400 included); every other gRPC
 *   status; an abort, unless a timeout caused it (as the `cause` or `reason` of the abort, or of axios' signal); the refusal of
 *   a nested breaker, which did not call its service; and every value without evidence: a `TypeError`, an
 *   `Error('HTTP 503')`, a value that is not an error.
 *
 * Some of the errors that do not count are answers, and the circuit counts these as successes: a status from 400 to 499 except
 * 408, 425, 429 and throttling; a gRPC status that an application chooses (`NOT_FOUND`, `INVALID_ARGUMENT` …); and a database's
 * error about the statement.
 *
 * The evidence of one object is weighed in this order: HTTP status (`status`, `statusCode`, the same of `response`,
 * `$metadata.httpStatusCode`, `code` beside a `response`), `$fault`, gRPC `code`, `code`, `name` (or the name of the class, or
 * `type`). A status below 400 is no evidence: a body can break off after a 200. The outermost error with evidence decides. An
 * error without evidence defers to its `errors`, of which a single one that counts is enough. Then it defers to its `cause`,
 * `parent`, `original` and the other properties in which clients keep the original error. Data in such a property, for instance
 * the body of a response, is no evidence. A `ConnectionError` without any code counts. At most 64 objects are examined.
 *
 * @example
 * // Count 429 as well; see also `hasCode` and `hasName`:
 * circuitBreaker({
 *   services: ['stripe'],
 *   isBreakableError: (error) => isBreakableError(error) || hasStatus(error, 429),
 * })
 */
export function isBreakableError(error: unknown): boolean {
  return verdictOf(error) === FAILURE
}

/**
 * Tells by default what an error shows of the service. A `failure` is an error that {@link isBreakableError} counts. A `success`
 * is an answer of a service that works and refuses the request: a status from 400 to 499 except 408, 425, 429 and throttling; a
 * gRPC status that an application chooses (`NOT_FOUND`, `INVALID_ARGUMENT` …); a SQLSTATE of an error about the statement (a
 * duplicate). Every other error is ignored. Among an error's `errors` a failure wins over an answer, and an answer wins over an
 * ignored error.
 */
export function outcomeOfError(error: unknown): Outcome {
  return outcomes[verdictOf(error) ?? IGNORE] as Outcome
}

/**
 * The default classifier of results: `true` if the operation resolved with a response that has a 5xx status, because `fetch`
 * does not throw on a 503. Only numbers count, and the body is never read.
 *
 * - `statusCode`, `$metadata.httpStatusCode` and (stripe) `lastResponse.statusCode` from 500 to 599 count.
 * - `status` from 500 to 599 counts together with another property of a response (`ok`, `headers`, `body`, `data`, `json`
 *   or `text`), or as the only property: `{ status: 503 }` can be the rest of a response.
 * - Every other result does not count: `{ status: 'active' }`, and `{ id: 7, status: 503 }`, which can be a record of the domain.
 *
 * @example
 * // An SDK that returns its errors:
 * circuitBreaker({
 *   services: ['crm'],
 *   isBreakableResult: (r) => isBreakableResult(r) || (r as CrmResult).error?.code === 'UNAVAILABLE',
 * })
 */
export function isBreakableResult(result: unknown): boolean {
  return outcomeOfResult(result) === 'failure'
}

/**
 * Tells by default what a result shows of the service: a `failure` is a result that {@link isBreakableResult} counts, a response
 * with 408, 425 or 429 is ignored, and every other result is a `success`.
 */
export function outcomeOfResult(result: unknown): Outcome {
  const status = resultStatus(result)
  if (status === undefined) return 'success'
  return status >= 500 ? 'failure' : UNDECIDED_STATUSES.has(status) ? 'ignore' : 'success'
}

/**
 * Whether an error or a result has one of these HTTP statuses. Clients keep it in `status`, `statusCode`, the same of `response`
 * and `lastResponse`, `$metadata.httpStatusCode`, or a `code` beside a `response`. Like {@link hasCode} and {@link hasName} it
 * also looks at the `errors` of an error and at the errors that it wraps, and never throws. It cannot tell a record of the domain
 * with such a `status` from a response.
 *
 * @example
 * circuitBreaker({
 *   services: ['stripe'],
 *   isBreakableError: (error) => isBreakableError(error) || hasStatus(error, 429), // count 429 as well …
 *   isBreakableResult: (result) => isBreakableResult(result) && !hasStatus(result, 501), // … and leave 501 out
 * })
 */
export function hasStatus(value: unknown, ...statuses: readonly number[]): boolean {
  const isOneOf = (status: unknown) => statuses.includes(status as number)
  const holds = (link: object) =>
    statusesOf(link).some(isOneOf) || isOneOf(read(read(link, 'lastResponse'), 'statusCode'))
  return someOf(value, holds)
}

/**
 * Whether an error has one of these values as its `code`: a code of the system, of a client, of gRPC or of your own application.
 *
 * @example
 * // Count gRPC's RESOURCE_EXHAUSTED as well:
 * circuitBreaker({
 *   services: ['inventory'],
 *   isBreakableError: (error) => isBreakableError(error) || hasCode(error, 8),
 * })
 */
export function hasCode(value: unknown, ...codes: readonly (string | number)[]): boolean {
  return someOf(value, (link) => codes.includes(read(link, 'code') as string))
}

/**
 * Whether an error has one of these names: as its `name`, as the name of its class, or as its `type`.
 *
 * @example
 * // Count the throttling of the AWS SDK as well:
 * circuitBreaker({
 *   services: ['ses'],
 *   isBreakableError: (error) => isBreakableError(error) || hasName(error, 'ThrottlingException', 'TooManyRequestsException'),
 * })
 */
export function hasName(value: unknown, ...names: readonly string[]): boolean {
  return someOf(value, (link) => namesOf(link).some((name) => names.includes(name)))
}

/**
 * The part of a failure that may be stored: its name, and the first code and the first HTTP status (400 to 599) in the chain of
 * errors that it wraps. Names and codes end at the first character that belongs in neither, and after 64 characters. So a
 * message, a URL or an address in their place is not stored. A result, bare or in a `BreakableResultError`, gets the name
 * `BreakableResult`.
 */
export function describeFailure(failure: unknown): Omit<FailureSummary, 'at'> {
  const returned = read(failure, 'code') === 'CIRCUIT_BREAKABLE_RESULT'
  const value = returned ? read(failure, 'result') : failure
  const isError = typeof read(value, 'stack') === 'string'
  const result = resultStatus(value)
  if (returned || (!isError && result !== undefined)) {
    return { name: 'BreakableResult', ...(result !== undefined && { status: result }) }
  }

  const summary: { name: string; code?: string; status?: number } = { name: nameFor(value, isError) }
  for (const link of causesOf(value)) {
    const code = label(read(link, 'code'))
    const status = errorStatus(link)
    if (code !== undefined) summary.code ??= code
    if (status !== undefined) summary.status ??= status
  }
  return summary
}

/**
 * `true` if the caller aborted the call, so that the error is no evidence. That holds if two conditions are met. `signal` is
 * aborted, and not by a timeout (a `TimeoutError`, or a `CircuitTimeoutError`, which the deadline causes too). The error, or a
 * `cause` of it, is the reason of the abort, an `AbortError` or axios' `ERR_CANCELED`. Call it before {@link isBreakableError}.
 */
export function abortedByCaller(error: unknown, signal: AbortSignal | undefined): boolean {
  if (read(signal, 'aborted') !== true) return false
  const reason = read(signal, 'reason')
  if (isTimeout(reason)) return false
  let aborted = false
  for (const link of causesOf(error)) {
    if (Object.is(link, reason)) return true
    if (isTimeout(link)) return false // the abort came from another signal
    aborted ||= isAbort(read(link, 'code'), namesOf(link))
  }
  return aborted
}

const IGNORE = 0
const SUCCESS = 1
const FAILURE = 2
/** The outcomes by the strength of their evidence, the weakest first. */
export const outcomes: readonly Outcome[] = ['ignore', 'success', 'failure']

/**
 * The verdict on the error or on an error that it wraps. The name of a failed connection counts by itself if no error in the chain
 * gives a reason: a code, or the name of a refusal such as `AuthenticationError`.
 */
function verdictOf(error: unknown): Evidence {
  let isLost: Evidence
  let isExplained = false
  const verdict = evidenceOf(error, (link, isError) => {
    const own = isError ? verdictOn(link) : undefined
    if (own !== undefined || !isError) return own
    const names = namesOf(link)
    isLost ||= names.some((name) => CONNECTION.test(name)) ? FAILURE : undefined
    isExplained ||= label(read(link, 'code')) !== undefined || names.some((name) => /Auth|Access|Credential/.test(name))
    return undefined
  })
  return verdict ?? (isExplained ? undefined : isLost)
}

function verdictOn(error: object): Evidence {
  const code = read(error, 'code')
  if (NOT_ATTEMPTED.has(code) || (code === 'CIRCUIT_TIMEOUT' && read(error, 'attempted') === false)) return IGNORE

  const names = namesOf(error)
  const status = errorStatus(error)
  // Octokit makes up a 500 for an abort.
  if (status !== undefined && !isAbort(code, names))
    return status >= 500 ? FAILURE : isAnswer(status, error, code) ? SUCCESS : IGNORE

  const fault = read(error, '$fault')
  // The SDK may have found a fault of the client without a status before it sent anything.
  if (fault === 'server' || fault === 'client') return fault === 'server' ? FAILURE : IGNORE

  if (isGrpcStatus(error, code)) return BREAKABLE_GRPC.has(code) ? FAILURE : ANSWERING_GRPC.has(code) ? SUCCESS : IGNORE
  const number = read(error, 'number') ?? read(error, 'responseCode')
  const pairs = [
    ...names.flatMap((name) => [
      [name, code],
      [name, read(error, 'message')],
    ]),
    [code, number],
  ].map((pair) => pair.map(label).join(':'))
  const counts =
    [...names, ...CODES.map((key) => read(error, key))].some(isBreakable) ||
    pairs.some((pair) => BREAKABLE_PAIRS.test(pair)) ||
    (names.includes('RetryError') && Array.isArray(read(error, 'stackTrace'))) // algoliasearch: no host has answered
  // axios and gaxios hide the reason of the signal, which `fetch` would have thrown.
  if (counts || isTimeout(read(read(read(error, 'config'), 'signal'), 'reason'))) return FAILURE
  if (isAbort(code, names)) return [...causesOf(error)].some(isTimeout) ? FAILURE : IGNORE
  return isAnswerOfDatabase(error, code, pairs) ? SUCCESS : undefined
}

/** Whether this status from 400 to 499 shows that the service works. */
function isAnswer(status: number, error: object, code: unknown): boolean {
  const isThrottled = [code, ...namesOf(error)].some((word) => typeof word === 'string' && THROTTLING.test(word))
  return !UNDECIDED_STATUSES.has(status) && !isThrottled && read(read(error, '$retryable'), 'throttling') !== true
}

/** Whether a database's server refused a statement. Errors of pg and mysql2 then have the server's severity or its message. */
function isAnswerOfDatabase(error: object, code: unknown, pairs: readonly string[]): boolean {
  const isOfServer = (key: string) => typeof read(error, key) === 'string'
  const state = isOfServer('severity') ? code : isOfServer('sqlMessage') && read(error, 'sqlState')
  const isRefusal = typeof state === 'string' && ANSWERING_SQLSTATES.test(state)
  return isRefusal || ANSWERS.has(code) || pairs.some((pair) => ANSWERING_PAIRS.test(pair))
}

/** Whether a client reports that it was cancelled: `AbortError`, axios' `CanceledError`, `CancelError` of older got. */
function isAbort(code: unknown, names: readonly string[]): boolean {
  return code === 'ERR_CANCELED' || names.some((name) => /(Abort(ed)?|Cancel(l?ed)?)Error$/.test(name))
}

/** The properties in which errors keep a code: `code`, then those of Prisma, Nodemailer, drivers of MySQL and others, MongoDB. */
const CODES = ['code', 'errorCode', 'originalCode', 'sqlState', 'codeName']

/** A small number alone is no proof of a gRPC status. grpc-js adds `details` and `metadata`, Connect and google-gax `metadata`. */
function isGrpcStatus(error: object, code: unknown): boolean {
  const isStatus = typeof code === 'number' && Number.isInteger(code) && code >= 0 && code <= 16
  return isStatus && (typeof read(error, 'details') === 'string' || isObject(read(error, 'metadata')))
}

export function isTimeout(value: unknown): boolean {
  const code = read(value, 'code')
  return (
    code === 'CIRCUIT_TIMEOUT' || code === 'ETIMEDOUT' || namesOf(value).some((name) => name.endsWith('TimeoutError'))
  )
}

/** The first HTTP status from 400 to 599. */
function errorStatus(error: unknown): number | undefined {
  return statusesOf(error).find(isRefusal)
}

/** The values of the properties in which clients keep the HTTP status, outermost first. Some clients keep it as text. */
function statusesOf(value: unknown): unknown[] {
  const response = read(value, 'response')
  const isOfResponse = isObject(response) || isObject(read(value, 'headers'))
  const statuses = [
    read(value, 'status'),
    read(value, 'statusCode'),
    read(response, 'status'),
    read(response, 'statusCode'),
    read(read(value, '$metadata'), 'httpStatusCode'),
    // @sendgrid/client and @azure/cosmos keep the status in `code`. The codes of gRPC come without a response, and are smaller.
    isOfResponse && read(value, 'code'),
  ]
  return statuses.map((status) => (typeof status === 'string' && /^\d{3}$/.test(status) ? Number(status) : status))
}

/** The status from 400 to 599 of a result that looks like a response. It runs on every success, so it checks the numbers first. */
function resultStatus(result: unknown): number | undefined {
  if (typeof result !== 'object' && typeof result !== 'function') return undefined
  const own = read(result, 'statusCode')
  if (isRefusal(own)) return own
  const ofSdk = read(read(result, '$metadata'), 'httpStatusCode')
  if (isRefusal(ofSdk)) return ofSdk
  const ofStripe = read(read(result, 'lastResponse'), 'statusCode')
  if (isRefusal(ofStripe)) return ofStripe
  const status = read(result, 'status')
  return isRefusal(status) && looksLikeResponse(result) ? status : undefined
}

function looksLikeResponse(result: unknown): boolean {
  const has = (key: string) => key in (result as object)
  try {
    return ['ok', 'headers', 'body', 'data', 'json', 'text'].some(has) || Object.keys(result as object).length === 1
  } catch {
    return false
  }
}

function isRefusal(status: unknown): status is number {
  return typeof status === 'number' && Number.isInteger(status) && status >= 400 && status <= 599
}

/** The `name` of an error; the name of its class, because many classes do not set `name`; and its `type` (stripe, node-fetch 2). */
function namesOf(error: unknown): string[] {
  const names = [read(error, 'name'), read(read(error, 'constructor'), 'name'), read(error, 'type')]
  return names.filter((name) => typeof name === 'string')
}

/** The name to store. If the value is not an error, its `name` may be the name of a person, and is not used. */
function nameFor(value: unknown, isError: boolean): string {
  if (!isObject(value)) return value === null ? 'null' : typeof value
  const name = isError ? label(read(value, 'name')) : undefined
  return name !== undefined && name !== 'Error' ? name : (label(read(read(value, 'constructor'), 'name')) ?? 'Error')
}

function label(value: unknown): string | undefined {
  const text = typeof value === 'number' ? String(value) : value
  return typeof text === 'string' ? /^[\p{L}\p{N}_$.-]{1,64}/u.exec(text)?.[0] : undefined
}
