/**
 * The service that everyone depends on: healthy, failing or hanging, as the scenario wants it at the time of a request.
 *
 * @module
 */

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { CircuitState } from '../../src/index.ts'
import type { Arrival, Fleet } from './recording.ts'
import type { Failure } from './scenario.ts'

/** How long the healthy service takes, in milliseconds. */
const serviceTime = 15

export interface PaymentService {
  readonly url: string
  close(): Promise<void>
}

/**
 * Starts the service on a free port of this machine.
 *
 * @param failureNow how the service fails at the moment, if it does
 * @param onArrival told of every payment that is asked for, with instants in milliseconds since the epoch
 */
export async function startPaymentService(
  failureNow: () => Failure | undefined,
  onArrival: (arrival: Arrival) => void,
): Promise<PaymentService> {
  const server = createServer((request, response) => {
    if (request.method !== 'POST') return void response.end()
    const failure = failureNow()
    onArrival(arrivalOf(request, failure))
    request.resume()
    answer(request, response, failure)
  })
  // Longer than the demo: a connection that is closed while a request is on its way is a failure of its own.
  server.keepAliveTimeout = 60_000
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/payments`,
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

function answer(request: IncomingMessage, response: ServerResponse, failure: Failure | undefined): void {
  switch (failure) {
    case '503':
      response.writeHead(503).end('{"error":"unavailable"}')
      return
    case 'reset':
      request.socket.resetAndDestroy()
      return
    case 'hang':
      return
    default:
      setTimeout(() => response.end('{"status":"charged"}'), serviceTime)
  }
}

function arrivalOf({ headers }: IncomingMessage, failure: Failure | undefined): Arrival {
  const [fleet, number] = String(headers['x-instance']).split('-')
  return {
    fleet: fleet as Fleet,
    number: Number(number),
    arrivedAt: Date.now(),
    sentAt: Number(headers['x-sent-at']),
    // Without a breaker there is no circuit that could be anything else.
    state: (headers['x-circuit-state'] ?? 'CLOSED') as CircuitState,
    generation: Number(headers['x-circuit-generation'] ?? 0),
    failure,
  }
}
