/**
 * The errors of Redis and of its clients: what kind each is, and what to do about it. Loaded with the first error: most of
 * it is text, which a function without one need not load.
 *
 * @module
 */

import { CircuitStorageError, type StorageErrorKind, type StorageOperation } from '../../errors.ts'

/** The operation and the circuit that an error is attributed to. */
export interface Context {
  readonly operation: StorageOperation
  readonly service: string
}

/** A database was not selected. `NOPERM` stays in the cause: ioredis lets a ready check pass that fails with this word. */
export class DatabaseError extends Error {
  constructor(database: number, cause: unknown) {
    super(`Database ${database} could not be selected`, { cause })
  }
}

/** The server speaks TLS where we do not, or the other way round. */
export class SchemeError extends Error {
  constructor(isSecure: boolean, cause: unknown) {
    super(
      isSecure
        ? 'the server speaks no TLS on this port. Use redis:// in place of rediss://, or the port that does'
        : 'the server speaks TLS on this port. Use rediss:// in place of redis://, or the option tls of ioredis',
      { cause },
    )
  }
}

/** The word with which an error of Redis begins, such as `WRONGTYPE`; `undefined` for other errors. */
function codeOf(error: unknown): string | undefined {
  return /^-?([A-Z]{2,})\b/.exec(messageOf(error))?.[1]
}

/** The message without arguments: a server repeats those of a command that it does not know, a password of `HELLO` too. */
function messageOf(error: unknown): string {
  const message = String((error as Partial<Error> | undefined)?.message ?? error)
  return message.replace(/,? with args beginning with[\s\S]*/, '')
}

/**
 * The error of a command that failed.
 *
 * @param lastError why there is no connection, if that is known
 */
export function commandError(reason: unknown, context: Context, lastError: Error | undefined): CircuitStorageError {
  const { operation, service } = context
  if (codeOf(reason) === 'WRONGTYPE') {
    return new CircuitStorageError(
      `The record stored for ${JSON.stringify(service)} is damaged: its key holds a value that is no hash. It is ` +
        'left as it is and this instance decides alone. If another application uses the key, choose another keyPrefix.',
      { ...context, corrupt: true, kind: 'misconfigured', cause: withoutCommand(reason) },
    )
  }
  // A command that was given up with its connection does not tell why there was none.
  const givenUp = /Connection is closed|max retries per request|^Command timed out/.test(messageOf(reason))
  const isExplained = lastError instanceof SchemeError || (givenUp && lastError !== undefined)
  const error = isExplained ? lastError : reason
  const cause = withoutCommand(
    error instanceof DatabaseError || error instanceof SchemeError ? (error.cause ?? reason) : error,
  )
  return new CircuitStorageError(`${operation} of ${JSON.stringify(service)} failed: ${adviceOn(error)}`, {
    ...context,
    kind: kindOf(error),
    cause,
  })
}

const notOfCluster = 'the server is a node of a cluster. Pass a cluster client: client: new Cluster([…]) of ioredis'

/** The advice, by the word with which the error begins. */
const advice: ReadonlyMap<string, string> = new Map([
  ['NOAUTH', 'Redis wants a password. Put user and password into the URL or the options'],
  ['WRONGPASS', 'Redis does not accept the user or the password. Correct them'],
  [
    'NOPERM',
    'the Redis user lacks a permission. Grant ~{keyPrefix}* +evalsha +eval +hgetall +hmget +hset +hdel +exists ' +
      '+pexpire +persist +del +scan, and +select for a database other than 0',
  ],
  ['READONLY', 'the server is a replica. Connect to the primary'],
  ['LOADING', 'the server is loading its data. It recovers by itself'],
  ['BUSY', 'a script of another client keeps the server busy. It can be ended by SCRIPT KILL or FUNCTION KILL'],
  ['MOVED', notOfCluster],
  ['ASK', notOfCluster],
  ['CLUSTERDOWN', 'the cluster does not serve the slot of this key. See CLUSTER INFO on one of its nodes'],
  ['TRYAGAIN', 'the cluster is moving the slot of this key. It recovers by itself'],
  [
    'OOM',
    'the server has reached maxmemory. Raise it, or let it evict: maxmemory-policy volatile-lru spares overrides',
  ],
  ['QUOTA', 'the plan at Upstash allows no more. Wait for the next period, or choose a larger plan'],
  ['MAXCLIENTS', 'the server has as many connections as it takes. Raise maxclients, or close some'],
  ['UNKNOWN', 'the server lacks a command. It has to be Redis 7 or later, or compatible with it, and may rename none'],
  ['MISCONF', 'the server refuses writes because it cannot save. See its log'],
  ['NOREPLICAS', 'the server refuses writes because it has too few replicas. See min-replicas-to-write'],
  ['MASTERDOWN', 'the server is a replica without its primary. Connect to the primary'],
])

/** The words of errors that pass by themselves, or when somebody makes room. */
const throttled: ReadonlySet<string> = new Set([
  'BUSY',
  'CLUSTERDOWN',
  'LOADING',
  'MASTERDOWN',
  'MAXCLIENTS',
  'MISCONF',
  'NOREPLICAS',
  'OOM',
  'QUOTA',
  'READONLY',
  'TRYAGAIN',
])
/** The words of errors that do not pass. `ERR` alone is none: proxies answer it for servers that they do not reach. */
const misconfigured: ReadonlySet<string> = new Set([
  'ASK',
  'DENIED',
  'MOVED',
  'NOAUTH',
  'NOPERM',
  'UNKNOWN',
  'WRONGPASS',
])

function kindOf(error: unknown): StorageErrorKind {
  if (error instanceof SchemeError || isAboutTls(error) || isAboutCertificate(error)) return 'misconfigured'
  const isOfDatabase = error instanceof DatabaseError
  const word = wordOf(isOfDatabase ? error.cause : error)
  if (throttled.has(word)) return 'throttled'
  return isOfDatabase || misconfigured.has(word) ? 'misconfigured' : 'unavailable'
}

/** The word of {@link codeOf}, or one of ours where that of Redis is only `ERR`. */
function wordOf(error: unknown): string {
  const message = messageOf(error)
  // Redis does not parse a command with more than ten arguments from a client that has not authenticated.
  if (message.includes('unauthenticated')) return 'NOAUTH'
  // A command of a script was refused.
  if (message.includes("user executing the script can't")) return 'NOPERM'
  if (message.includes('unknown command')) return 'UNKNOWN'
  // https://upstash.com/docs/redis/troubleshooting/max_requests_limit and its neighbours.
  if (/(requests? limit|concurrent connections|capacity quota) exceeded/.test(message)) return 'QUOTA'
  return message.includes('max number of clients') ? 'MAXCLIENTS' : (codeOf(error) ?? '')
}

/** Whether a server that speaks no TLS answered a handshake. */
function isAboutTls(error: unknown): boolean {
  return /^ERR_SSL_(WRONG_VERSION|PACKET_LENGTH)/.test(errorCodeOf(error))
}

/** Whether the certificate of the server is not accepted: https://nodejs.org/api/tls.html#x509-certificate-error-codes */
function isAboutCertificate(error: unknown): boolean {
  return /^(CERT_|DEPTH_ZERO_|ERR_TLS_CERT_|SELF_SIGNED_|UNABLE_TO_(GET_ISSUER|VERIFY_LEAF))/.test(errorCodeOf(error))
}

function errorCodeOf(error: unknown): string {
  return String((error as { readonly code?: unknown } | undefined)?.code)
}

/** Says what happened and what to do about it. */
function adviceOn(error: unknown): string {
  if (error instanceof SchemeError) return `${error.message}.`
  if (isAboutTls(error)) return `${new SchemeError(true, undefined).message}.`
  if (isAboutCertificate(error)) {
    return (
      `the certificate of the server is not accepted (${errorCodeOf(error)}). Connect to the name that it is for, and ` +
      'put its authority into tls.ca of the options.'
    )
  }
  if (error instanceof DatabaseError) return `${error.message}: ${adviceOnDatabase(error.cause)}`
  const message = messageOf(error)
  const known = advice.get(wordOf(error))
  if (known) return `${known} (Redis: ${message}).`
  if (codeOf(error)) return `Redis refused it: ${message}`
  if (message === 'Command timed out') return 'Redis did not answer within commandTimeout.'
  const { name = 'Error', code } = (error ?? {}) as { name?: unknown; code?: unknown }
  return `Redis could not be asked: ${message || code || name}`
}

function adviceOnDatabase(error: unknown): string {
  switch (codeOf(error)) {
    case 'NOPERM':
      return `the Redis user lacks a permission. Grant +select, or use database 0 (Redis: ${messageOf(error)}).`
    case 'ERR':
      return `the server does not have it. Correct it in the URL or the options (Redis: ${messageOf(error)}).`
    default:
      return adviceOn(error)
  }
}

/** The properties of an error that its copy has. Clients add the command and its arguments, those of `AUTH` too. */
const harmlessProperties = ['code', 'errno', 'syscall', 'hostname', 'address', 'port'] as const

function withoutCommand(error: unknown): Error {
  const copy = new Error(messageOf(error))
  if (error instanceof Error) {
    copy.name = error.name
    for (const property of harmlessProperties) {
      const value = (error as Error & Record<string, unknown>)[property]
      if (value !== undefined) Object.assign(copy, { [property]: value })
    }
  }
  return copy
}
