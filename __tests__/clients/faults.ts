/** What can go wrong with a service. How each client's service does it is up to its server. */

/** The time at which a service is asked that names a date: a whole second, as dates are in HTTP. */
export const askedAt = 1_000 * Math.floor(Date.now() / 1_000)

export type FaultName = keyof typeof faults

export interface Fault {
  readonly group: 'transport' | 'status' | 'sdk' | 'grpc' | 'database' | 'code'
  /** The HTTP status that the service answers with … */
  readonly status?: number
  /** … and its `Retry-After`: seconds, or a date so many seconds ahead. */
  readonly retryAfter?: { readonly seconds: number; readonly as: 'seconds' | 'date' }
  /** The gRPC status that it answers with. */
  readonly grpcStatus?: number
  /** Who gives up on a service that says nothing. */
  readonly limit?: 'client' | 'breaker' | 'caller' | 'operation'
  /** Where the machine stands still, the client may give up before the half has come, with other words. */
  readonly isRaced?: boolean
  /** What an error has to show somewhere, unless its client hides it, if this is what went wrong. */
  readonly trace?: RegExp
}

const faultsByName = {
  'none: it answers': { group: 'transport' },
  'connection refused': { group: 'transport', trace: /ECONNREFUSED/ },
  'host unreachable': { group: 'transport', trace: /ENETUNREACH/ },
  'unknown host (DNS)': { group: 'transport', trace: /ENOTFOUND|Name resolution failed/ },
  'expired certificate': { group: 'transport', trace: /CERT_HAS_EXPIRED|certificate has expired/ },
  'certificate of another host': { group: 'transport', trace: /ALTNAME|altnames/ },
  'reset before the answer': { group: 'transport' },
  'closed before the answer': { group: 'transport' },
  'reset in the answer': { group: 'transport' },
  'reset in the answer, read after the guard': { group: 'transport' },
  'malformed answer': { group: 'transport' },
  'no answer: the client’s timeout': { group: 'transport', limit: 'client' },
  'no answer: the breaker’s timeout': { group: 'transport', limit: 'breaker' },
  'no answer: the caller aborts': { group: 'transport', limit: 'caller' },
  'no answer: the operation aborts': { group: 'transport', limit: 'operation' },
  'half an answer: the client’s timeout': { group: 'transport', limit: 'client', isRaced: true },

  'HTTP 200 with a page instead of JSON': { group: 'status', status: 200 },
  'HTTP 500': { group: 'status', status: 500 },
  'HTTP 501': { group: 'status', status: 501 },
  'HTTP 502': { group: 'status', status: 502 },
  'HTTP 503': { group: 'status', status: 503 },
  'HTTP 503 with Retry-After in seconds': { group: 'status', status: 503, retryAfter: { seconds: 30, as: 'seconds' } },
  'HTTP 503 with Retry-After as a date': { group: 'status', status: 503, retryAfter: { seconds: 60, as: 'date' } },
  'HTTP 503 with a page instead of JSON': { group: 'status', status: 503 },
  'HTTP 504': { group: 'status', status: 504 },
  'HTTP 529': { group: 'status', status: 529 },
  'HTTP 400': { group: 'status', status: 400 },
  'HTTP 401': { group: 'status', status: 401 },
  'HTTP 403': { group: 'status', status: 403 },
  'HTTP 404': { group: 'status', status: 404 },
  'HTTP 404 with a page instead of JSON': { group: 'status', status: 404 },
  'HTTP 408': { group: 'status', status: 408 },
  'HTTP 409': { group: 'status', status: 409 },
  'HTTP 422': { group: 'status', status: 422 },
  'HTTP 425': { group: 'status', status: 425 },
  'HTTP 429': { group: 'status', status: 429 },

  'throttling with a 400': { group: 'sdk', status: 400 },
  'internal fault': { group: 'sdk', status: 500 },

  CANCELLED: { group: 'grpc', grpcStatus: 1 },
  UNKNOWN: { group: 'grpc', grpcStatus: 2 },
  INVALID_ARGUMENT: { group: 'grpc', grpcStatus: 3 },
  DEADLINE_EXCEEDED: { group: 'grpc', grpcStatus: 4 },
  NOT_FOUND: { group: 'grpc', grpcStatus: 5 },
  PERMISSION_DENIED: { group: 'grpc', grpcStatus: 7 },
  RESOURCE_EXHAUSTED: { group: 'grpc', grpcStatus: 8 },
  ABORTED: { group: 'grpc', grpcStatus: 10 },
  UNIMPLEMENTED: { group: 'grpc', grpcStatus: 12 },
  INTERNAL: { group: 'grpc', grpcStatus: 13 },
  UNAVAILABLE: { group: 'grpc', grpcStatus: 14 },
  UNAUTHENTICATED: { group: 'grpc', grpcStatus: 16 },

  'the server is starting up': { group: 'database' },
  'the server is shutting down': { group: 'database' },
  'a constraint is violated': { group: 'database' },

  'a TypeError': { group: 'code' },
  "a plain Error('HTTP 503')": { group: 'code' },
  'a rejected string': { group: 'code' },
  'a thrown undefined': { group: 'code' },
} as const satisfies Record<string, Fault>

export const faults: { readonly [Name in keyof typeof faultsByName]: Fault } = faultsByName

export const faultNames = Object.keys(faults) as readonly FaultName[]
