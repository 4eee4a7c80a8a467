/**
 * The evidence of a failure of the protected service.
 *
 * Everything here looks at properties, never at `instanceof` or messages, so that it also holds for errors of another
 * realm or of a second copy of a library; none of it ever throws, whatever it is given.
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

/** The end of a call, as evidence. */
export type Outcome =
  /** The service is unwell. */
  | 'failure'
  /** The service works, also where it refused what it was asked. */
  | 'success'
  /** Neither: the call counts for nothing. */
  | 'ignore'

/**
 * The default classifier of errors: `true` if the error shows that the service is unwell.
 *
 * - **Counts:** any HTTP status from 500 to 599; connection, DNS and TLS failures; timeouts; a response that cannot be
 *   parsed; gRPC `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNKNOWN`; a database that says that it is down or out of
 *   connections.
 * - **Passes:** any HTTP status from 400 to 499 (408, 425, 429 and throttling with a 400 included); every other gRPC
 *   status; an abort, unless a timeout made it (the abort's `cause` or `reason`, or that of axios' signal); the refusal of a
 *   nested breaker, whose service was not even asked; and whatever carries no evidence: a `TypeError`, an
 *   `Error('HTTP 503')`, a value that is no error.
 *
 * A part of what passes is an answer, and so a success to the circuit: a status from 400 to 499 but 408, 425, 429 and throttling,
 * a gRPC status that an application chooses (`NOT_FOUND`, `INVALID_ARGUMENT` …), and a database's error of the statement.
 *
 * One object's evidence is weighed in this order: HTTP status (`status`, `statusCode`, those of `response`,
 * `$metadata.httpStatusCode`, `code` beside a `response`), `$fault`, gRPC `code`, `code`, `name` (or its class's, or
 * `type`). A status below 400 is none: a body can break off after a 200. The outermost error with evidence decides;
 * one without defers to its `errors`, of which any one that counts is enough, then to its `cause`, `parent`, `original` and
 * wherever else clients keep the error that theirs wraps. Data there, such as the body of an answer, is no evidence. A
 * `ConnectionError` without any code counts. At most 64 objects are looked at.
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
 * What an error says of the service by default. A `failure` is what {@link isBreakableError} counts. A `success` is an answer
 * of a service that works and refuses what it was asked: a status from 400 to 499 but 408, 425, 429 and throttling; a gRPC
 * status that an application chooses (`NOT_FOUND`, `INVALID_ARGUMENT` …); a SQLSTATE of an error of the statement (a duplicate).
 * All else is to be ignored. Of an error's `errors` a failure wins over an answer, and an answer over what is ignored.
 */
export function outcomeOfError(error: unknown): Outcome {
  return outcomes[verdictOf(error) ?? IGNORE] as Outcome
}

/**
 * The default classifier of results: `true` if the operation resolved with a response that has a 5xx status, for `fetch`
 * does not throw on a 503. Only numbers count, and the body is never read.
 *
 * - `statusCode`, `$metadata.httpStatusCode` and (stripe) `lastResponse.statusCode` from 500 to 599 count.
 * - `status` from 500 to 599 counts together with something else of a response (`ok`, `headers`, `body`, `data`, `json`
 *   or `text`), or as the only property: `{ status: 503 }` is what is left of a response.
 * - Everything else passes: `{ status: 'active' }`, and `{ id: 7, status: 503 }`, which can be a record of the domain.
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
 * What a result says of the service by default: a `failure` is what {@link isBreakableResult} counts, a response with 408, 425
 * or 429 is to be ignored, and all else is a `success`.
 */
export function outcomeOfResult(result: unknown): Outcome {
  const status = resultStatus(result)
  if (status === undefined) return 'success'
  return status >= 500 ? 'failure' : UNDECIDED_STATUSES.has(status) ? 'ignore' : 'success'
}

/**
 * Whether an error or a result has one of these HTTP statuses, wherever clients keep it: `status`, `statusCode`, those of
 * `response` and `lastResponse`, `$metadata.httpStatusCode`, a `code` beside a `response`. Like {@link hasCode} and {@link hasName} it also looks at the
 * `errors` of an error and at what it wraps, and never throws. A record of the domain that has such a `status` is not told
 * from a response.
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
 * Whether an error has one of these values as its `code`: a system's, a client's, a gRPC status or a business's own.
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
 * Whether an error has one of these names: as its `name`, as that of its class, or as its `type`.
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
 * The part of a failure that may be stored: its name, the first code and the first HTTP status (400 to 599) on the way along
 * what it wraps. Names and codes end at the first character that belongs in neither, and after 64: a message, a URL or an
 * address that was put there does not get out. A result, bare or in a `BreakableResultError`, is a `BreakableResult`.
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
 * `true` if the error is the caller's own doing, and so no evidence: `signal` is aborted for another reason than a timeout
 * (a `TimeoutError`; a `CircuitTimeoutError`, which a due deadline raises too), and the error, or a `cause` of it, is
 * that reason, an `AbortError` or axios' `ERR_CANCELED`. To be asked before {@link isBreakableError}.
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
/** By evidence, the weakest first. */
export const outcomes: readonly Outcome[] = ['ignore', 'success', 'failure']

/**
 * What the error, or what it wraps, says. A connection that failed counts by its name alone if nobody says why: no code, and no
 * name of a refusal such as `AuthenticationError`.
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
  // A fault of the client without a status may have been found before anything was sent.
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
  // axios and gaxios hide what `fetch` would have thrown: the reason of the signal.
  if (counts || isTimeout(read(read(read(error, 'config'), 'signal'), 'reason'))) return FAILURE
  if (isAbort(code, names)) return [...causesOf(error)].some(isTimeout) ? FAILURE : IGNORE
  return isAnswerOfDatabase(error, code, pairs) ? SUCCESS : undefined
}

/** Whether a service that answers with this status from 400 to 499 works. */
function isAnswer(status: number, error: object, code: unknown): boolean {
  const isThrottled = [code, ...namesOf(error)].some((word) => typeof word === 'string' && THROTTLING.test(word))
  return !UNDECIDED_STATUSES.has(status) && !isThrottled && read(read(error, '$retryable'), 'throttling') !== true
}

/** Whether a database's server refused a statement: pg and mysql2 keep what only a server says, its severity or its message. */
function isAnswerOfDatabase(error: object, code: unknown, pairs: readonly string[]): boolean {
  const isOfServer = (key: string) => typeof read(error, key) === 'string'
  const state = isOfServer('severity') ? code : isOfServer('sqlMessage') && read(error, 'sqlState')
  const isRefusal = typeof state === 'string' && ANSWERING_SQLSTATES.test(state)
  return isRefusal || ANSWERS.has(code) || pairs.some((pair) => ANSWERING_PAIRS.test(pair))
}

/** Whether this is how a client says that it was cancelled: `AbortError`, axios' `CanceledError`, `CancelError` of older got. */
function isAbort(code: unknown, names: readonly string[]): boolean {
  return code === 'ERR_CANCELED' || names.some((name) => /(Abort(ed)?|Cancel(l?ed)?)Error$/.test(name))
}

/** Where an error keeps a code besides `code`: Prisma, Nodemailer, drivers of MySQL and others, MongoDB. */
const CODES = ['code', 'errorCode', 'originalCode', 'sqlState', 'codeName']

/** A number alone can be anything: grpc-js adds `details` and `metadata`, Connect and google-gax `metadata`. */
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

/** The values where clients keep the HTTP status, outermost first; some keep it as text. */
function statusesOf(value: unknown): unknown[] {
  const response = read(value, 'response')
  const isOfResponse = isObject(response) || isObject(read(value, 'headers'))
  const statuses = [
    read(value, 'status'),
    read(value, 'statusCode'),
    read(response, 'status'),
    read(response, 'statusCode'),
    read(read(value, '$metadata'), 'httpStatusCode'),
    // @sendgrid/client and @azure/cosmos have it in there; gRPC's codes come without a response, and are smaller.
    isOfResponse && read(value, 'code'),
  ]
  return statuses.map((status) => (typeof status === 'string' && /^\d{3}$/.test(status) ? Number(status) : status))
}

/** The status from 400 to 599 of a result that looks like a response. Runs on every success, so the numbers come first. */
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

/** Its name; its class, because many do not set `name`; and its `type` (stripe, node-fetch 2). */
function namesOf(error: unknown): string[] {
  const names = [read(error, 'name'), read(read(error, 'constructor'), 'name'), read(error, 'type')]
  return names.filter((name) => typeof name === 'string')
}

/** The name to store. That of a value which is no error may be a person's. */
function nameFor(value: unknown, isError: boolean): string {
  if (!isObject(value)) return value === null ? 'null' : typeof value
  const name = isError ? label(read(value, 'name')) : undefined
  return name !== undefined && name !== 'Error' ? name : (label(read(read(value, 'constructor'), 'name')) ?? 'Error')
}

function label(value: unknown): string | undefined {
  const text = typeof value === 'number' ? String(value) : value
  return typeof text === 'string' ? /^[\p{L}\p{N}_$.-]{1,64}/u.exec(text)?.[0] : undefined
}
