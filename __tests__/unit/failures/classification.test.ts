import { createServer as createHttpServer, get, type IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:net'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  BreakableResultError,
  CircuitOpenError,
  CircuitStorageError,
  CircuitTimeoutError,
  ConcurrencyLimitError,
  ConfigurationError,
  UnknownServiceError,
} from '../../../src/errors.ts'
import {
  abortedByCaller,
  describeFailure,
  hasCode,
  hasName,
  hasStatus,
  isBreakableError,
  isBreakableResult,
  outcomeOfError,
  outcomeOfResult,
} from '../../../src/failures/classification.ts'
import { refusingPort } from '../../support/refusing-port.ts'

// Shapes recorded from, or read in the source of, axios 1.21, got 14.6, ky 1.14, undici 7.30, stripe 23.1, AWS SDK 3, grpc-js 1.14, pg 8.23,
// mysql2 3.24, ioredis 6.0, redis 6, mongodb 7, openai 6, tedious 19, node-fetch 2.7 and 3.3.

const error = (properties: object, message = 'anything'): Error => Object.assign(new Error(message), properties)
const withCause = (cause: unknown): Error => new TypeError('fetch failed', { cause })
const axiosError = (status: number | undefined, code: string) =>
  error({ name: 'AxiosError', code, status, response: status && { status, headers: {}, data: {} }, config: {} })
const gotHttpError = (statusCode: number) =>
  Object.defineProperty(error({ name: 'HTTPError', code: 'ERR_NON_2XX_3XX_RESPONSE', cause: {} }), 'response', {
    value: { statusCode },
  })
const kyHttpError = (status: number) => error({ name: 'HTTPError', response: new Response('', { status }) })
const awsError = (name: string, httpStatusCode: number | undefined, fault: 'server' | 'client') =>
  error({ name, $fault: fault, $metadata: { httpStatusCode, attempts: 1 }, $service: 'SESv2' })
const grpcError = (code: number) => error({ code, details: 'No connection established', metadata: { options: {} } })
const stripeError = (type: string, properties: object = {}) => error({ type, raw: {}, ...properties })
const circuitOpen = () => new CircuitOpenError({ service: 's', retryAfter: 1, openedAt: 1, reason: 'open' })
const circuitTimeout = (attempted: boolean, reason: 'timeout' | 'deadline' = 'timeout') =>
  new CircuitTimeoutError({ service: 's', reason, timeout: 1, attempted })

const timeoutError = () => new DOMException('timed out', 'TimeoutError')

/** The ways in which clients say that a signal without a timeout has cancelled them. */
function aborts(): [string, unknown][] {
  const reason = new DOMException('aborted', 'AbortError')
  return [
    ["fetch's abort", reason],
    ["undici's abort", error({ name: 'AbortError', code: 'UND_ERR_ABORTED' })],
    ["node:http's abort", error({ name: 'AbortError', code: 'ABORT_ERR', cause: reason })],
    ["got's abort", error({ name: 'AbortError', code: 'ERR_ABORTED' })],
    ["got 11's abort", error({ name: 'CancelError', cause: error({ code: 'ECONNRESET' }) })],
    ["the AWS SDK's abort", error({ name: 'AbortError', cause: reason }, 'Request aborted')],
    ["openai's abort", new APIUserAbortError()],
    ['an abort because another call failed', error({ name: 'AbortError', cause: error({ status: 503 }) })],
    ['a body that was aborted', withCause(reason)],
    ['a race that was aborted', new AggregateError([reason, new DOMException('aborted', 'AbortError')])],
  ]
}

class APIUserAbortError extends Error {}
class APIConnectionTimeoutError extends Error {}
class SocketClosedUnexpectedlyError extends Error {}
class MaxRetriesPerRequestError extends Error {
  override get name() {
    return this.constructor.name
  }
}

const serverStatuses = [500, 501, 502, 503, 504, 507, 511, 529, 599]
const clientStatuses = [400, 401, 402, 403, 404, 408, 409, 418, 422, 425, 429, 451, 499]

const codesThatCount = [
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'EPROTO', 'ETIMEDOUT', 'ESOCKETTIMEDOUT', 'EHOSTUNREACH'],
  ...['EHOSTDOWN', 'ENETUNREACH', 'ENETDOWN', 'ENETRESET', 'EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL'],
  ...['ESERVFAIL', 'ETIMEOUT', 'EREFUSED', 'HPE_INVALID_CONSTANT', 'HPE_HEADER_OVERFLOW'],
  ...[
    'ERR_SOCKET_CONNECTION_TIMEOUT',
    'ERR_STREAM_PREMATURE_CLOSE',
    'ERR_HTTP2_STREAM_ERROR',
    'ERR_HTTP2_SESSION_ERROR',
  ],
  ...['ERR_HTTP2_GOAWAY_SESSION', 'ERR_HTTP2_STREAM_CANCEL', 'ERR_PROXY_TUNNEL'],
  ...['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'UND_ERR_SOCKET', 'UND_ERR_INFO'],
  ...['UND_ERR_PRX_TLS', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'UND_ERR_SOCKS5'],
  ...['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID', 'CERT_REVOKED', 'CRL_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT'],
  ...['SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_GET_ISSUER_CERT', 'HOSTNAME_MISMATCH'],
  ...['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'ERR_TLS_CERT_ALTNAME_INVALID', 'ERR_TLS_HANDSHAKE_TIMEOUT'],
  ...['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'ERROR_IN_CERT_NOT_AFTER_FIELD'],
  ...['ERR_NETWORK', 'ERR_READING_RESPONSE_STREAM', 'PROTOCOL_CONNECTION_LOST', 'HANDSHAKE_SSL_ERROR', 'ESOCKET'],
  ...['08000', '08006', '08P01', '53300', '57P01', '57P02', '57P03'],
]
const codesThatPass = [
  ...['UND_ERR_INVALID_ARG', 'UND_ERR_DESTROYED', 'UND_ERR_CLOSED', 'UND_ERR_NOT_SUPPORTED', 'UND_ERR'],
  ...['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_URL', 'ERR_HTTP2_HEADERS_SENT', 'ERR_HTTP2_INVALID_HEADER_VALUE'],
  ...['ERR_TLS_INVALID_PROTOCOL_VERSION', 'ERR_TLS_REQUIRED_SERVER_NAME', 'ENOENT', 'EACCES', 'EMFILE', 'ECANCELED'],
  ...['ERR_CANCELED', 'ERR_BAD_REQUEST', 'ERR_FR_TOO_MANY_REDIRECTS', 'ERR_BAD_OPTION', 'UNABLE_TO_DECLINE'],
  ...['23505', '42P01', '40001', '57014', '57P04', '080', '0800600', 'ER_DUP_ENTRY', 'P2002', 'ABORTED'],
]

describe('isBreakableError', () => {
  it.each(serverStatuses)('counts HTTP %i wherever a client puts it', (status) => {
    const carriers = [
      error({ status }),
      error({ statusCode: status }),
      error({ status, statusCode: status, expose: false }), // http-errors
      error({ status: String(status) }), // JSON:API
      axiosError(status, 'ERR_BAD_RESPONSE'),
      gotHttpError(status),
      kyHttpError(status),
      error({ name: 'ResponseError', code: 'UND_ERR_RESPONSE', statusCode: status }),
      awsError('InternalFailure', status, 'server'),
      stripeError('StripeAPIError', { statusCode: status }),
      { status },
      new Response('', { status }),
    ]
    expect(carriers.map(isBreakableError)).toEqual(carriers.map(() => true))
  })

  it.each(clientStatuses)('passes HTTP %i wherever a client puts it', (status) => {
    const carriers = [
      error({ status }),
      error({ statusCode: status }),
      error({ status: String(status) }),
      axiosError(status, 'ERR_BAD_REQUEST'),
      gotHttpError(status),
      kyHttpError(status),
      error({ name: 'ResponseError', code: 'UND_ERR_RESPONSE', statusCode: status }),
      awsError('ThrottlingException', status, 'client'),
      stripeError('StripeInvalidRequestError', { statusCode: status }),
    ]
    expect(carriers.map(isBreakableError)).toEqual(carriers.map(() => false))
  })

  it.each(codesThatCount)('counts the code %s, on the error and on its cause', (code) => {
    expect(isBreakableError(error({ code }))).toBe(true)
    expect(isBreakableError(withCause(error({ code })))).toBe(true)
  })

  it.each(codesThatPass)('passes the code %s', (code) => {
    expect(isBreakableError(error({ code }))).toBe(false)
  })

  it.each<[string, unknown]>([
    ['an AbortSignal.timeout()', new DOMException('timed out', 'TimeoutError')],
    ["node:http's abort by a timeout", error({ name: 'AbortError', code: 'ABORT_ERR', cause: timeoutError() })],
    ["the AWS SDK's abort by a timeout", error({ name: 'AbortError', cause: timeoutError() }, 'Request aborted')],
    ['an abort whose reason is a timeout', error({ name: 'AbortError', reason: timeoutError() })],
    ['an abort whose reason is a nested breaker’s timeout', error({ name: 'AbortError', cause: circuitTimeout(true) })],
    ["got's timeout", error({ name: 'TimeoutError', code: 'ETIMEDOUT' })],
    ["ky's timeout", error({ name: 'TimeoutError' })],
    ["axios' timeout", axiosError(undefined, 'ECONNABORTED')],
    ['axios, reset in the middle of a 200', axiosError(200, 'ERR_BAD_RESPONSE')],
    [
      'got, reset in the middle of a 200',
      error({ name: 'ReadError', code: 'ECONNRESET', response: { statusCode: 200 } }),
    ],
    [
      "got 16's own count of a body that broke off",
      error({ name: 'ReadError', code: 'ERR_HTTP_CONTENT_LENGTH_MISMATCH' }),
    ],
    [
      'got, a page instead of JSON',
      error({ name: 'ParseError', code: 'ERR_BODY_PARSE_FAILURE', cause: new SyntaxError('x') }),
    ],
    ['AWS SDK, reset in the middle of a 200', error({ code: 'ECONNRESET', $metadata: { httpStatusCode: 200 } })],
    ['AWS SDK, timeout', error({ name: 'TimeoutError', $metadata: { attempts: 3 } })],
    ['AWS SDK, server fault without a status', awsError('InternalServerException', undefined, 'server')],
    ['undici, malformed response', withCause(error({ name: 'HTTPParserError', code: undefined }))],
    ['node-fetch 2, timeout', error({ name: 'FetchError', type: 'request-timeout' })],
    ['stripe, connection', stripeError('StripeConnectionError', { detail: error({ code: 'ECONNREFUSED' }) })],
    ['stripe, a page instead of JSON', stripeError('StripeAPIError')],
    ['ioredis, retries used up', new MaxRetriesPerRequestError()],
    ['redis, socket closed', new SocketClosedUnexpectedlyError()],
    ['openai, timeout', new APIConnectionTimeoutError()],
    ['mongodb, no server', error({ name: 'MongoServerSelectionError' })],
    [
      'Connect, unavailable',
      error({ name: 'ConnectError', code: 14, rawMessage: '', details: [], metadata: new Headers() }),
    ],
    [
      "axios' cancel by a timed out signal",
      error({ code: 'ERR_CANCELED', config: { signal: AbortSignal.abort(circuitTimeout(true)) } }),
    ],
    ["a nested breaker's timeout", circuitTimeout(true)],
    ["a nested breaker's deadline", circuitTimeout(true, 'deadline')],
    ["a nested breaker's breakable result", new BreakableResultError('s', { status: 503 })],
  ])('counts %s', (_, failure) => {
    expect(isBreakableError(failure)).toBe(true)
  })

  it.each<[string, unknown]>([
    ['an Error with a status in its message', new Error('HTTP 503')],
    ['a TypeError from a bug', new TypeError("Cannot read properties of undefined (reading 'id')")],
    ["axios' cancel", axiosError(undefined, 'ERR_CANCELED')],
    ...aborts(),
    ["axios' cancel by its signal", error({ code: 'ERR_CANCELED', config: { signal: AbortSignal.abort() } })],
    ['axios, redirect refused', error({ code: 'ERR_FR_TOO_MANY_REDIRECTS', response: { status: 302 } })],
    ['AWS SDK, client fault without a status', awsError('ThrottlingException', undefined, 'client')],
    ['AWS SDK, client fault around a reset', error({ $fault: 'client', cause: error({ code: 'ECONNRESET' }) })],
    ['a status outside HTTP', error({ status: 999, statusCode: 600 })],
    ['a fractional status', error({ status: 503.5 })],
    ['a status in words', error({ status: 'UNAVAILABLE', statusCode: '503 Service Unavailable' })],
    ['a number that is no gRPC status', error({ code: 14 })],
    ["a DOMException's number", new DOMException('bad', 'DataCloneError')],
    ['a number beyond gRPC', error({ code: 17, details: 'x', metadata: {} })],
    ["a nested breaker's refusal", circuitOpen()],
    ["a nested breaker's refusal as a cause", withCause(circuitOpen())],
    ["a nested breaker's concurrency limit", new ConcurrencyLimitError('s', 1, 0)],
    ["a nested breaker's timeout before the attempt", circuitTimeout(false)],
    ["a nested breaker's misuse", new UnknownServiceError('x', [])],
    ["a nested breaker's configuration", new ConfigurationError([])],
    [
      "a nested breaker's store",
      new CircuitStorageError('down', { operation: 'getState', cause: error({ code: 'ECONNREFUSED' }) }),
    ],
    ['undefined', undefined],
    ['null', null],
    ['a string', '503'],
    ['a number', 503],
    ['a function', () => 503],
    ['an empty object', {}],
  ])('passes %s', (_, failure) => {
    expect(isBreakableError(failure)).toBe(false)
  })

  it('judges each gRPC status', () => {
    const counted = Array.from({ length: 17 }, (_, code) => code).filter((code) => isBreakableError(grpcError(code)))
    expect(counted).toEqual([2, 4, 13, 14])
  })

  it('lets the outermost evidence decide', () => {
    const reset = error({ code: 'ECONNRESET' })
    expect(isBreakableError(error({ status: 404, code: 'ECONNRESET' }))).toBe(false)
    expect(isBreakableError(error({ status: 404, cause: reset }))).toBe(false)
    expect(isBreakableError(error({ status: 502, cause: error({ status: 404 }) }))).toBe(true)
    expect(isBreakableError(withCause(error({ status: 429, cause: reset })))).toBe(false)
    expect(isBreakableError(withCause(withCause(withCause(reset))))).toBe(true)
  })

  it('counts an aggregate if any member counts', () => {
    const refused = error({ code: 'ECONNREFUSED' })
    expect(isBreakableError(new AggregateError([new Error('a'), error({ status: 404 }), withCause(refused)]))).toBe(
      true,
    )
    expect(isBreakableError(new AggregateError([error({ status: 404 })], 'x', { cause: refused }))).toBe(false)
    expect(isBreakableError(new AggregateError([new Error('a')], 'x', { cause: refused }))).toBe(true)
    expect(isBreakableError(new AggregateError([]))).toBe(false)
    expect(isBreakableError(error({ errors: 'none', cause: refused }))).toBe(true)
  })

  it('recognises errors of another realm, frozen ones and objects without a prototype', () => {
    const foreign: unknown = runInNewContext("Object.assign(new Error('x'), { cause: { code: 'ECONNRESET' } })")
    expect(foreign instanceof Error).toBe(false)
    expect(isBreakableError(foreign)).toBe(true)
    expect(isBreakableError(Object.freeze(error({ code: 'EPIPE' })))).toBe(true)
    expect(isBreakableError(Object.assign(Object.create(null), { statusCode: 503 }))).toBe(true)
  })

  it('finds a status that is the code beside a response, as SendGrid’s client has it, and nowhere else', () => {
    const response = { headers: {}, body: '' }
    const sendgrid = (code: unknown) => Object.assign(new Error('sendgrid'), { code, response })
    expect([503, 599, '503', 413, 200].map((code) => isBreakableError(sendgrid(code)))).toEqual([
      true,
      true,
      true,
      false,
      false,
    ])
    expect(isBreakableError(Object.assign(new Error('a code of its own'), { code: 503 }))).toBe(false)
    expect(isBreakableError(Object.assign(new Error('no response'), { code: 503, response: null }))).toBe(false)
    expect(describeFailure(sendgrid(503))).toMatchObject({ code: '503', status: 503 })
    expect(hasStatus(sendgrid(429), 429)).toBe(true)
  })

  it('composes with rules of one’s own', () => {
    const counting429 = (e: unknown) => isBreakableError(e) || (e as { status?: number }).status === 429
    expect([error({ status: 429 }), error({ status: 503 }), error({ status: 400 })].map(counting429)).toEqual([
      true,
      true,
      false,
    ])
  })
})

describe('outcomeOfError', () => {
  const undecided = [408, 425, 429]

  it.each(clientStatuses)('says what HTTP %i says of the service, wherever a client puts it', (status) => {
    const carriers = [
      error({ status }),
      error({ statusCode: status }),
      error({ status: String(status) }),
      axiosError(status, 'ERR_BAD_REQUEST'),
      gotHttpError(status),
      kyHttpError(status),
      awsError('ValidationException', status, 'client'),
      stripeError('StripeInvalidRequestError', { statusCode: status }),
      new Error('could not load the user', { cause: axiosError(status, 'ERR_BAD_REQUEST') }),
      new Response('', { status }),
    ]
    const outcome = undecided.includes(status) ? 'ignore' : 'success'
    expect(carriers.map(outcomeOfError)).toEqual(carriers.map(() => outcome))
  })

  it('says of each gRPC status whether the application chose it', () => {
    const outcomes = Array.from({ length: 17 }, (_, code) => outcomeOfError(grpcError(code)))
    const having = (wanted: string) => outcomes.flatMap((outcome, code) => (outcome === wanted ? [code] : []))
    expect(having('success')).toEqual([3, 5, 6, 7, 9, 10, 11, 12, 16])
    expect(having('ignore')).toEqual([0, 1, 8, 15])
  })

  it.each<[string, unknown]>([
    ['pg, a duplicate', error({ name: 'error', severity: 'ERROR', code: '23505', routine: '_bt_check_unique' })],
    ['pg, a syntax error', error({ severity: 'ERROR', code: '42601' })],
    ['pg, a deadlock', error({ severity: 'ERROR', code: '40P01' })],
    ['pg, a wrong password', error({ severity: 'FATAL', code: '28P01' })],
    ['pg, RAISE', error({ severity: 'ERROR', code: 'P0001' })],
    ['mysql2, a duplicate', error({ code: 'ER_DUP_ENTRY', errno: 1062, sqlState: '23000', sqlMessage: 'Duplicate' })],
    ['an ORM around pg', error({ name: 'QueryError', cause: error({ severity: 'ERROR', code: '23503' }) })],
    ['mongodb, a duplicate', error({ name: 'MongoServerError', code: 11_000 })],
    ['mssql, a duplicate', error({ name: 'RequestError', code: 'EREQUEST', number: 2627 })],
    ['oracledb, a duplicate', error({ code: 'ORA-00001', errorNum: 1 })],
    ['ioredis, another type', error({ name: 'ReplyError' }, 'WRONGTYPE Operation against a key')],
    ['redis, no such script', error({ name: 'SimpleError' }, 'NOSCRIPT No matching script.')],
    ['Sequelize, a wrong password', error({ name: 'X', parent: error({ severity: 'FATAL', code: '28P01' }) })],
    ['Prisma, a duplicate', error({ name: 'PrismaClientKnownRequestError', code: 'P2002' })],
  ])('takes the refusal of a database for an answer: %s', (_, failure) => {
    expect(outcomeOfError(failure)).toBe('success')
    expect(isBreakableError(failure)).toBe(false)
  })

  it.each<[string, unknown]>([
    ['throttling of the AWS SDK with a 400', awsError('ThrottlingException', 400, 'client')],
    ['throttling of DynamoDB', awsError('ProvisionedThroughputExceededException', 400, 'client')],
    ['throttling of AWS SDK 2', error({ code: 'Throttling', statusCode: 400 })],
    ['throttling by its trait', error({ $retryable: { throttling: true }, $metadata: { httpStatusCode: 400 } })],
    ['a timeout of S3', awsError('RequestTimeout', 400, 'client')],
    ['a fault of the client before anything was sent', awsError('ValidationException', undefined, 'client')],
    ['a SQLSTATE that no server sent', error({ code: '23505' })],
    ['a state of a client’s own', error({ sqlState: '23000' })],
    ['pg, a statement that was cancelled', error({ severity: 'ERROR', code: '57014' })],
    ['pg, an aborted transaction', error({ severity: 'ERROR', code: '25P02' })],
    ['mysql2, a full table', error({ code: 'ER_RECORD_FILE_FULL', sqlState: 'HY000', sqlMessage: 'full' })],
    ['another 11000', error({ code: 11_000 })],
    ['mssql, a full log', error({ code: 'EREQUEST', number: 9_002 })],
    ['redis, any error', error({ name: 'ReplyError' }, 'ERR max number of clients reached')],
    ['a bug', new TypeError('x')],
    ['a string', '404'],
    ['a nested breaker’s refusal', circuitOpen()],
    ['a nested breaker’s refusal of a wrapped 404', error({ code: 'CIRCUIT_OPEN', cause: error({ status: 404 }) })],
    ...aborts(),
  ])('ignores %s', (_, failure) => {
    expect(outcomeOfError(failure)).toBe('ignore')
  })

  it('takes the strongest of several: a failure before an answer, an answer before what is ignored', () => {
    const [refused, missing, bug] = [error({ code: 'ECONNREFUSED' }), error({ status: 404 }), new TypeError('x')]
    const open = circuitOpen()
    const of = (...errors: unknown[]) => outcomeOfError(new AggregateError(errors))
    expect([of(missing, refused), of(refused, missing), of(open, missing), of(missing, bug), of(open, bug)]).toEqual([
      'failure',
      'failure',
      'success',
      'success',
      'ignore',
    ])
  })

  it.each([...codesThatCount, ...codesThatPass])('agrees with isBreakableError on the code %s', (code) => {
    expect(outcomeOfError(error({ code })) === 'failure').toBe(isBreakableError(error({ code })))
  })
})

describe('isBreakableError on real failures', () => {
  it('counts a fetch to a closed port, by address and by name', async () => {
    await using refusing = await refusingPort()
    const { port } = refusing
    expect(isBreakableError(await rejection(fetch(`http://127.0.0.1:${port}/`)))).toBe(true)
    expect(isBreakableError(await rejection(fetch(`http://localhost:${port}/`)))).toBe(true)
  })

  it('counts node:http to a closed port', async () => {
    await using refusing = await refusingPort()
    expect(isBreakableError(await rejection(request(`http://localhost:${refusing.port}/`)))).toBe(true)
  })

  it.each([
    ['a reset before the headers', undefined],
    ['a reset in the body', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'],
    ['a malformed response', 'garbage\r\n\r\n'],
  ])('counts %s', async (_, answer) => {
    await using server = await listening(
      createServer((socket) => {
        socket.on('error', () => {})
        socket.once('data', () => (answer === undefined ? socket.resetAndDestroy() : socket.end(answer)))
      }),
    )
    const failure = await rejection(fetch(server.url).then((response) => response.text()))
    expect(isBreakableError(failure)).toBe(true)
  })

  it('counts AbortSignal.timeout(), and no plain abort', async () => {
    await using server = await listening(createServer((socket) => socket.on('error', () => {})))
    const timeout = AbortSignal.timeout(20)
    const timedOut = await rejection(fetch(server.url, { signal: timeout }))
    expect([isBreakableError(timedOut), abortedByCaller(timedOut, timeout)]).toEqual([true, false])

    const caller = new AbortController()
    const pending = rejection(fetch(server.url, { signal: caller.signal }))
    caller.abort()
    const aborted = await pending
    expect([isBreakableError(aborted), abortedByCaller(aborted, caller.signal)]).toEqual([false, true])
  })

  it('counts the 503 that fetch and node:http resolve with, and leaves the body unread', async () => {
    await using server = await listening(createHttpServer((_, response) => response.writeHead(503).end('body')))
    const response = await fetch(server.url)
    expect(isBreakableResult(response)).toBe(true)
    expect(isBreakableResult(await request(server.url))).toBe(true)
    expect(isBreakableResult({ status: response.status, body: await response.text() })).toBe(true)
  })
})

describe('isBreakableResult', () => {
  it.each<[string, unknown]>([
    ['a fetch Response', new Response('no', { status: 503 })],
    ['an undici response', { statusCode: 500, headers: {}, body: {}, trailers: {} }],
    ['an axios response', { status: 529, statusText: '', headers: {}, data: '', config: {} }],
    ["the README's shape", { status: 501, body: {} }],
    ['an answer of an HTTP handler', { statusCode: 502, body: '' }],
    ['an AWS output', { $metadata: { httpStatusCode: 500 } }],
    ['a stripe result without an error', Object.defineProperty({}, 'lastResponse', { value: { statusCode: 503 } })],
    ['nothing but a status', { status: 503 }],
    ['nothing but a statusCode', { statusCode: 599 }],
    ['no prototype', Object.assign(Object.create(null), { status: 503, ok: false })],
  ])('counts %s', (_, result) => {
    expect(isBreakableResult(result)).toBe(true)
  })

  it.each<[string, unknown]>([
    ['a 200', new Response('yes')],
    ['a 404', new Response('no', { status: 404 })],
    ['a 429', { status: 429, body: '' }],
    ['a state in words', { status: 'active', body: '' }],
    ['a status as text', { status: '503', body: '' }],
    ['a record of the domain', { id: 7, status: 503 }],
    ['a status outside HTTP', { status: 600, body: '' }],
    ['a settled promise', { status: 'rejected', reason: new Error() }],
    ['an error that was returned', error({ code: 'ECONNRESET' })],
    ['an array', [503]],
    ['undefined', undefined],
    ['null', null],
    ['a string', 'status 503'],
    ['a number', 503],
  ])('passes %s', (_, result) => {
    expect(isBreakableResult(result)).toBe(false)
  })

  it('passes a result whose properties cannot be listed', () => {
    const has = () => {
      throw new Error('hostile')
    }
    expect(isBreakableResult(new Proxy({ status: 503 }, { has }))).toBe(false)
  })

  it('never touches the body', () => {
    const untouchable = () => {
      throw new Error('read')
    }
    const result = Object.defineProperties({ status: 503 }, { body: { get: untouchable }, data: { get: untouchable } })
    expect(isBreakableResult(result)).toBe(true)
  })
})

describe('outcomeOfResult', () => {
  const statuses = [...serverStatuses, ...clientStatuses, 200, 302]

  it.each(statuses)('says of a response with %i what an error with it says', (status) => {
    const responses = [
      ...(status >= 200 ? [new Response(null, { status })] : []),
      { status, body: '' },
      { statusCode: status, headers: {} },
      { $metadata: { httpStatusCode: status } },
      { lastResponse: { statusCode: status } },
    ]
    const outcome = status < 400 ? 'success' : outcomeOfError({ status })
    expect(responses.map(outcomeOfResult)).toEqual(responses.map(() => outcome))
    expect(responses.map(isBreakableResult)).toEqual(responses.map(() => status >= 500))
  })

  it.each([undefined, null, 429, 'text', { id: 7, status: 429 }, { status: '429', body: '' }])(
    'takes %p for a success',
    (result) => {
      expect(outcomeOfResult(result)).toBe('success')
    },
  )
})

describe('hasStatus', () => {
  it('finds a status wherever a client puts it, thrown or returned', () => {
    const carriers = [
      error({ status: 429 }),
      error({ statusCode: 429 }),
      error({ status: '429' }),
      axiosError(429, 'ERR_BAD_REQUEST'),
      gotHttpError(429),
      kyHttpError(429),
      awsError('TooManyRequestsException', 429, 'client'),
      withCause(error({ status: 429 })),
      new AggregateError([new Error('a'), error({ status: 429 })]),
      new Response('', { status: 429 }),
      { statusCode: 429, body: '' },
      { error: {}, response: new Response('', { status: 429 }) }, // openapi-fetch
      { lastResponse: { statusCode: 429 } },
    ]
    expect(carriers.map((carrier) => hasStatus(carrier, 425, 429))).toEqual(carriers.map(() => true))
    expect(carriers.map((carrier) => hasStatus(carrier, 428))).toEqual(carriers.map(() => false))
  })

  it('composes with the default classifiers', () => {
    const counting429 = (e: unknown) => isBreakableError(e) || hasStatus(e, 429)
    const without501 = (e: unknown) => isBreakableError(e) && !hasStatus(e, 501)
    const failures = [429, 503, 501, 400].map((status) => error({ status }))
    expect(failures.map(counting429)).toEqual([true, true, true, false])
    expect(failures.map(without501)).toEqual([false, true, false, false])
  })
})

describe('hasCode', () => {
  it('finds a code, of whatever kind, on the error and on what it carries', () => {
    expect(hasCode(error({ code: 'card_processor_down' }), 'x', 'card_processor_down')).toBe(true)
    expect(hasCode(grpcError(8), 8)).toBe(true)
    expect(hasCode(withCause(error({ code: 'ECONNRESET' })), 'ECONNRESET')).toBe(true)
    expect(hasCode(error({ code: '8' }), 8)).toBe(false)
    expect(hasCode(error({}), 'ECONNRESET')).toBe(false)
  })
})

describe('hasName', () => {
  it('finds a name, a class or a type', () => {
    expect(hasName(awsError('ThrottlingException', 400, 'client'), 'ThrottlingException')).toBe(true)
    expect(hasName(new APIConnectionTimeoutError(), 'APIConnectionTimeoutError')).toBe(true)
    expect(hasName(stripeError('StripeCardError'), 'StripeCardError')).toBe(true)
    expect(hasName(withCause(new DOMException('x', 'TimeoutError')), 'TimeoutError')).toBe(true)
    expect(hasName(new TypeError('x'), 'RangeError')).toBe(false)
  })
})

describe.each(Object.entries({ hasStatus, hasCode, hasName }))('%s', (_, has) => {
  it.each([undefined, null, 'text', 503, () => 503, {}, []])('says no to %p', (value) => {
    expect((has as (value: unknown, ...wanted: unknown[]) => boolean)(value, 503, 'text')).toBe(false)
  })

  it('says no where nothing is asked for', () => {
    expect(has({ status: undefined, code: undefined })).toBe(false)
  })
})

describe('describeFailure', () => {
  it.each<[string, unknown, object]>([
    ['fetch', withCause(error({ code: 'ECONNREFUSED' })), { name: 'TypeError', code: 'ECONNREFUSED' }],
    [
      'an HTTP error',
      axiosError(503, 'ERR_BAD_RESPONSE'),
      { name: 'AxiosError', code: 'ERR_BAD_RESPONSE', status: 503 },
    ],
    ['a class without a name', new APIConnectionTimeoutError(), { name: 'APIConnectionTimeoutError' }],
    ['a plain Error', new Error('secret'), { name: 'Error' }],
    ['a number as code', grpcError(14), { name: 'Error', code: '14' }],
    [
      'evidence on two levels',
      error({ status: 502, code: 'A', cause: error({ status: 503, code: 'B' }) }),
      { name: 'Error', code: 'A', status: 502 },
    ],
    ['a response', new Response('', { status: 503 }), { name: 'BreakableResult', status: 503 }],
    [
      'the result in its error',
      new BreakableResultError('s', { status: 500, body: '' }),
      { name: 'BreakableResult', status: 500 },
    ],
    ['a result of another kind', new BreakableResultError('s', { error: 'down' }), { name: 'BreakableResult' }],
    ['a record with a name', { name: 'Ada Lovelace', code: 'x' }, { name: 'Object', code: 'x' }],
    ['an error whose name is a message', error({ name: 'Failed: https://x.test/?key=1' }), { name: 'Failed' }],
    ['a code that is a URL', error({ code: 'https://x.test/?key=1' }), { name: 'Error', code: 'https' }],
    ['unprintable text', error({ name: '\u0000\u001b[31m', code: '\n' }), { name: 'Error' }],
    ['undefined', undefined, { name: 'undefined' }],
    ['null', null, { name: 'null' }],
    ['a string', 'secret', { name: 'string' }],
    ['an object without a prototype', Object.create(null), { name: 'Error' }],
  ])('describes %s', (_, failure, expected) => {
    expect(describeFailure(failure)).toStrictEqual(expected)
  })

  it('keeps at most 64 characters', () => {
    const { name, code } = describeFailure(error({ name: 'N'.repeat(100), code: 'C'.repeat(100) }))
    expect([name.length, code?.length]).toEqual([64, 64])
  })
})

describe('abortedByCaller', () => {
  const abortError = () => new DOMException('aborted', 'AbortError')

  it('recognises the reason itself, also a primitive and as a cause', () => {
    const reason = new Error('user left')
    expect(abortedByCaller(reason, AbortSignal.abort(reason))).toBe(true)
    expect(abortedByCaller('user left', AbortSignal.abort('user left'))).toBe(true)
    expect(abortedByCaller(null, AbortSignal.abort(null))).toBe(true)
    expect(abortedByCaller(withCause(reason), AbortSignal.abort(reason))).toBe(true)
  })

  it('recognises how clients say that they were aborted', () => {
    const signal = AbortSignal.abort(new Error('user left'))
    const errors = [
      abortError(),
      error({ name: 'AbortError', code: 'ABORT_ERR', cause: signal.reason }), // node:http
      error({ name: 'AbortError', code: 'ERR_ABORTED', cause: {} }), // got
      error({ name: 'AbortError', code: 'UND_ERR_ABORTED' }),
      error({ name: 'CanceledError', code: 'ERR_CANCELED' }), // axios
      error({ name: 'AbortError' }, 'Request aborted'), // AWS SDK
      error({ name: 'CancelError' }), // got 11
      withCause(abortError()),
    ]
    expect(errors.map((e) => abortedByCaller(e, signal))).toEqual(errors.map(() => true))
  })

  it.each<[string, unknown, AbortSignal | undefined]>([
    ['there is no signal', abortError(), undefined],
    ['the signal is not aborted', abortError(), new AbortController().signal],
    ['the signal timed out', abortError(), AbortSignal.abort(new DOMException('x', 'TimeoutError'))],
    ['the breaker timed out', circuitTimeout(true), AbortSignal.abort(circuitTimeout(true))],
    ['the deadline was due', abortError(), AbortSignal.abort(circuitTimeout(true, 'deadline'))],
    ['the error is another one', error({ code: 'ECONNRESET' }), AbortSignal.abort()],
    ['the error is a timeout', new DOMException('x', 'TimeoutError'), AbortSignal.abort()],
    [
      'the abort was a timeout',
      error({ name: 'AbortError', cause: error({ name: 'TimeoutError' }) }),
      AbortSignal.abort(),
    ],
    ['nothing was thrown', undefined, AbortSignal.abort()],
  ])('says no when %s', (_, failure, signal) => {
    expect(abortedByCaller(failure, signal)).toBe(false)
  })
})

describe('hostile values', () => {
  const judgeAll = (value: unknown) => {
    const summary = describeFailure(value)
    return [
      isBreakableError(value),
      isBreakableResult(value),
      hasStatus(value, 504),
      hasCode(value, 'none') || hasName(value, 'none'),
      abortedByCaller(value, AbortSignal.abort()),
      summary.name.length > 0,
    ]
  }
  const throwing = () => {
    throw new Error('hostile')
  }
  const everyTrap = new Proxy({}, { get: throwing, has: throwing, ownKeys: throwing, getPrototypeOf: throwing })
  const revoked = () => {
    const { proxy, revoke } = Proxy.revocable([], {})
    revoke()
    return proxy
  }
  const endless = (): object =>
    new Proxy({}, { get: (_, key) => (key === 'cause' || key === 'errors' ? [endless()] : undefined) })

  it.each<[string, unknown]>([
    ['a proxy whose traps throw', everyTrap],
    ['a revoked proxy', revoked()],
    ['an error with revoked members', error({ errors: revoked() })],
    ['hostile properties', error({ status: everyTrap, response: everyTrap, cause: everyTrap, errors: [everyTrap] })],
    ['a result whose properties cannot be listed', new Proxy({ id: 7 }, { ownKeys: throwing })],
    ['members without end', endless()],
    ['a sparse array of members', error({ errors: new Array(4_000_000_000) })],
    [
      'conversions that throw',
      error({ status: { valueOf: throwing }, code: { toString: throwing }, name: Symbol('x') }),
    ],
  ])('do no harm: %s', (_, value) => {
    expect(judgeAll(value)).toEqual([false, false, false, false, false, true])
  })

  it('do not hide other evidence: a getter that throws', () => {
    const failure = Object.defineProperty(error({ code: 'ECONNRESET' }), 'status', { get: throwing })
    expect(isBreakableError(failure)).toBe(true)
  })

  it('do not trap it in circles', () => {
    const a = error({})
    const b = error({ cause: a, errors: [a] })
    Object.assign(a, { cause: b, errors: [a, b] })
    expect(judgeAll(a)).toEqual([false, false, false, false, false, true])
    Object.assign(b, { errors: [b, error({ code: 'EPIPE' })] })
    expect(isBreakableError(a)).toBe(true)
  })

  it('cost a bounded look: wide and deep trees', () => {
    let visits = 0
    const tree = (): object => ({
      get errors() {
        visits++
        return Array.from({ length: 100 }, tree)
      },
    })
    expect(isBreakableError(tree())).toBe(false)
    expect(visits).toBeLessThanOrEqual(64)
  })

  it('never make it throw, whatever the shape (property)', () => {
    const key = fc.constantFrom(
      'name',
      'code',
      'status',
      'statusCode',
      'response',
      '$metadata',
      '$fault',
      'cause',
      'errors',
      'config',
      'type',
      'stack',
      'details',
      'metadata',
      'body',
      'constructor',
    )
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 5 },
        fc.anything({
          withBigInt: true,
          withDate: true,
          withNullPrototype: true,
          withSparseArray: true,
          withTypedArray: true,
        }),
        fc.constantFrom<unknown>('ECONNRESET', 503, '503', 404, 14, Symbol('s'), 'hostile'),
        fc.array(tie('value'), { maxLength: 4 }),
        fc.dictionary(key, tie('value'), { maxKeys: 6 }),
        fc.dictionary(key, tie('value'), { maxKeys: 6 }).map((properties) => {
          const failure = new Error('x')
          for (const [name, own] of Object.entries(properties))
            Object.defineProperty(failure, name, own === 'hostile' ? { get: throwing } : { value: own })
          return failure
        }),
      ),
    }))
    fc.assert(
      fc.property(value, (failure) => {
        expect(judgeAll(failure).every((verdict) => typeof verdict === 'boolean')).toBe(true)
        const { name, code, status } = describeFailure(failure)
        expect(name).toMatch(/^[\p{L}\p{N}_$.-]{1,64}$/u)
        if (code !== undefined) expect(code).toMatch(/^[\p{L}\p{N}_$.-]{1,64}$/u)
        if (status !== undefined) expect(status >= 400 && status <= 599).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })
})

async function listening(server: Server) {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const sockets = new Set<{ destroy(): void }>()
  server.on('connection', (socket) => sockets.add(socket))
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}/`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function request(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    get(url, (response) => resolve(response.resume())).on('error', reject)
  })
}

function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error('it did not fail')
    },
    (reason: unknown) => reason,
  )
}
