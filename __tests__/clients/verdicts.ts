/**
 * What is to count, decided beforehand: the code is tested against this table, never the other way round.
 */

import type { Client } from './client.ts'
import { type ClientName, clients } from './clients.ts'
import { type FaultName, faultNames, faults } from './faults.ts'

/** Whether it speaks against the service (a failure), for it (a success), or neither (it is ignored). */
export type Verdict = 'counts' | 'answers' | 'passes'

const rules: Readonly<Record<FaultName, Verdict>> = {
  'none: it answers': 'answers',
  'connection refused': 'counts',
  'host unreachable': 'counts',
  'unknown host (DNS)': 'counts',
  'expired certificate': 'counts',
  'certificate of another host': 'counts',
  'reset before the answer': 'counts',
  'closed before the answer': 'counts',
  'reset in the answer': 'counts',
  'reset in the answer, read after the guard': 'answers',
  'malformed answer': 'counts',
  'no answer: the client’s timeout': 'counts',
  'no answer: the breaker’s timeout': 'counts',
  'no answer: the caller aborts': 'passes',
  'no answer: the operation aborts': 'passes',
  'half an answer: the client’s timeout': 'counts',

  'HTTP 200 with a page instead of JSON': 'passes',
  'HTTP 500': 'counts',
  'HTTP 501': 'counts',
  'HTTP 502': 'counts',
  'HTTP 503': 'counts',
  'HTTP 503 with Retry-After in seconds': 'counts',
  'HTTP 503 with Retry-After as a date': 'counts',
  'HTTP 503 with a page instead of JSON': 'counts',
  'HTTP 504': 'counts',
  'HTTP 529': 'counts',
  'HTTP 400': 'answers',
  'HTTP 401': 'answers',
  'HTTP 403': 'answers',
  'HTTP 404': 'answers',
  'HTTP 404 with a page instead of JSON': 'answers',
  'HTTP 408': 'passes',
  'HTTP 409': 'answers',
  'HTTP 422': 'answers',
  'HTTP 425': 'passes',
  'HTTP 429': 'passes',

  'throttling with a 400': 'passes',
  'internal fault': 'counts',

  CANCELLED: 'passes',
  UNKNOWN: 'counts',
  INVALID_ARGUMENT: 'answers',
  DEADLINE_EXCEEDED: 'counts',
  NOT_FOUND: 'answers',
  PERMISSION_DENIED: 'answers',
  RESOURCE_EXHAUSTED: 'passes',
  ABORTED: 'answers',
  UNIMPLEMENTED: 'answers',
  INTERNAL: 'counts',
  UNAVAILABLE: 'counts',
  UNAUTHENTICATED: 'answers',

  'the server is starting up': 'counts',
  'the server is shutting down': 'counts',
  'a constraint is violated': 'answers',

  'a TypeError': 'passes',
  "a plain Error('HTTP 503')": 'passes',
  'a rejected string': 'passes',
  'a thrown undefined': 'passes',
}

/**
 * Where a client says of an answer that it cannot read, in a class or code of its own, that the service is to blame (stripe
 * then drops the status), or does not read it.
 */
const exceptions: Readonly<Partial<Record<ClientName, Readonly<Partial<Record<FaultName, Verdict>>>>>> = {
  axios: { 'HTTP 200 with a page instead of JSON': 'answers' },
  S3: { 'HTTP 200 with a page instead of JSON': 'answers' },
  superagent: { 'HTTP 200 with a page instead of JSON': 'answers' },
  gaxios: { 'HTTP 200 with a page instead of JSON': 'answers' },
  openai: { 'HTTP 200 with a page instead of JSON': 'answers' },
  Octokit: { 'HTTP 200 with a page instead of JSON': 'answers' },
  'Azure’s pipeline': { 'HTTP 200 with a page instead of JSON': 'answers' },
  got: { 'HTTP 200 with a page instead of JSON': 'counts' },
  stripe: { 'HTTP 200 with a page instead of JSON': 'counts', 'HTTP 404 with a page instead of JSON': 'counts' },
}

/**
 * Faults that ought to count and pass, because the client makes an error of them that could be anyone's: no status, no
 * code of a failure, no cause and no class of its own. Nothing is left but its message, which is what is listed here.
 */
export const gaps: Readonly<Partial<Record<ClientName, Readonly<Partial<Record<FaultName, RegExp>>>>>> = {
  pg: {
    'closed before the answer': /^Connection terminated unexpectedly$/,
    'malformed answer': /^Connection terminated unexpectedly$/,
    'no answer: the client’s timeout': /^timeout expired$/,
    'half an answer: the client’s timeout': /^Query read timeout$/,
  },
  'node-fetch': {
    'no answer: the client’s timeout': /^The operation was aborted\.$/,
    'half an answer: the client’s timeout': /^The operation was aborted\.$/,
  },
  'Azure’s pipeline': { 'no answer: the client’s timeout': /^The operation was aborted\./ },
  mysql2: { 'malformed answer': /^The value of "offset" is out of range/ },
  'knex, mysql2': { 'malformed answer': /^The value of "offset" is out of range/ },
  'Sequelize, pg': { 'half an answer: the client’s timeout': /^Query read timeout$/ },
  amqplib: {
    'closed before the answer': /^Socket closed abruptly during opening handshake$/,
    'malformed answer': /^Frame size \d+ exceeds/,
    'no answer: the client’s timeout': /^connect ETIMEDOUT$/,
  },
  ioredis: {
    'malformed answer': /^Unknown RESP type/,
    'no answer: the client’s timeout': /^Command timed out$/,
    'half an answer: the client’s timeout': /^Command timed out$/,
  },
  'ioredis, no reconnection': {
    'connection refused': /^Connection is closed\.$/,
    'host unreachable': /^Connection is closed\.$/,
    'unknown host (DNS)': /^Connection is closed\.$/,
    'expired certificate': /^Connection is closed\.$/,
    'certificate of another host': /^Connection is closed\.$/,
    'reset before the answer': /^Connection is closed\.$/,
    'closed before the answer': /^Connection is closed\.$/,
    'reset in the answer': /^Connection is closed\.$/,
    'malformed answer': /^Unknown RESP type/,
    'no answer: the client’s timeout': /^Command timed out$/,
    'half an answer: the client’s timeout': /^Command timed out$/,
  },
}

/** Faults of which a client says nothing: it resolves with what has come. */
export const unnoticed: Readonly<Partial<Record<ClientName, readonly FaultName[]>>> = {
  Octokit: ['reset in the answer'],
}

/** Faults that a client does not survive, because it throws to nobody, or that race with another one. */
const untried: Readonly<Partial<Record<ClientName, readonly FaultName[]>>> = {
  mariadb: ['malformed answer'],
  // It hides a body that does not end, but not a head that does not come.
  Octokit: ['half an answer: the client’s timeout'],
  // Of a body it may say that the call was aborted, or that it could not read it.
  'Azure’s pipeline': ['half an answer: the client’s timeout'],
}

/** Clients that try again and tell of their patience rather than of the last failure. */
export const hidingCauses: readonly ClientName[] = ['ioredis', 'ioredis, no reconnection', 'mongodb']

export function verdictOn(client: ClientName, fault: FaultName): Verdict {
  if (unnoticed[client]?.includes(fault)) return 'answers'
  if (gaps[client]?.[fault] !== undefined) return 'passes'
  return exceptions[client]?.[fault] ?? rules[fault]
}

const groups: Readonly<Record<Client['kind'], readonly string[]>> = {
  http: ['transport', 'status'],
  sdk: ['transport', 'status', 'sdk'],
  api: ['transport', 'status'],
  grpc: ['transport', 'grpc'],
  database: ['transport'],
  broker: ['transport'],
  code: ['code'],
}

/** The clients that a signal can cancel. */
const takingSignals: ReadonlySet<ClientName> = new Set([
  ...(['fetch', 'undici', 'node:http', 'axios', 'got', 'ky'] as const),
  ...(['DynamoDB', 'SESv2', 'Comprehend', 'S3', 'grpc-js'] as const),
  ...(['node-fetch', 'gaxios', 'Elasticsearch', 'openai', 'Octokit', 'graphql-request', 'Azure’s pipeline'] as const),
])

/** The faults that a client can meet. */
export function faultsOf(client: ClientName): FaultName[] {
  const { kind, readLater, isMute } = clients[client]
  return faultNames.filter((fault) => {
    if (untried[client]?.includes(fault)) return false
    if (isMute && /^(none|half|reset in)/.test(fault)) return false
    if (fault.endsWith('read after the guard')) return readLater !== undefined
    if (faults[fault].limit === 'operation') return takingSignals.has(client)
    if (fault === 'internal fault' || fault === 'throttling with a 400') return kind === 'sdk' && client !== 'stripe'
    if (faults[fault].group === 'database') return client === 'pg'
    return groups[kind].includes(faults[fault].group)
  })
}
