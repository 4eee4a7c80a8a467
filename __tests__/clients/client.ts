/** One client library, and what the matrix asks of it. */

import type { Endpoint } from './endpoint.ts'
import type { FaultName } from './faults.ts'
import { httpService, type Service } from './servers.ts'

/** One call of a service. */
export interface Attempt {
  readonly endpoint: Endpoint
  /** The client's own timeout, in milliseconds, where that is what ends the call. */
  readonly timeout: number | undefined
  /** The operation's. */
  readonly signal: AbortSignal
  /** Whether the operation reads the body, or returns before. */
  readonly readsBody: boolean
  /** Where the certificates are. */
  readonly folder: string
}

export interface Client {
  readonly kind: 'http' | 'sdk' | 'api' | 'grpc' | 'database' | 'broker' | 'code'
  readonly serve: Service
  /** Whether its server here can do no more than to fail before it has answered: its protocol is too large. */
  readonly isMute?: boolean
  readonly call: (attempt: Attempt, fault: FaultName) => Promise<unknown>
  /** Reads the body of what {@link call} returned without reading it. */
  readonly readLater?: (returned: never) => Promise<unknown>
}

export const plain = httpService(() => ({ body: '{"answer":42}', headers: { 'content-type': 'application/json' } }))

export const url = ({ host, port, secure }: Endpoint): string => `${secure ? 'https' : 'http'}://${host}:${port}/`

/** The signal that ends the call, the client having no other timeout. */
export const within = ({ signal, timeout }: Attempt): AbortSignal =>
  timeout === undefined ? signal : AbortSignal.any([signal, AbortSignal.timeout(timeout)])

/** An answer is JSON, an error page need not be. */
export function parse(status: number | undefined, body: string): void {
  if (status === 200) JSON.parse(body)
}
