/**
 * A stand-in for the provider that an example calls: a real HTTP server whose answers the test decides.
 *
 * @module
 */

import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { waitFor } from '../support/time.ts'

export interface ProviderRequest {
  readonly method: string
  /** Path and query. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface ProviderAnswer {
  /** Default: 200. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text, or anything else as JSON. */
  readonly body?: unknown
}

/** What the provider does with a request: answers, says nothing, or breaks the connection. */
export type Reaction = ProviderAnswer | 'hangs' | 'breaks'

export interface Provider extends AsyncDisposable {
  readonly url: string
  readonly host: string
  readonly port: number
  /** All that have arrived, in this order. */
  readonly requests: readonly ProviderRequest[]
  /** How many of them the client has given up before they were answered. */
  readonly abandoned: number
  /** Resolves when so many requests have arrived in all. */
  received(count: number): Promise<void>
  /** Resolves when the client has given up so many requests in all. */
  givenUp(count: number): Promise<void>
  /** Decides about requests that arrive from now on. */
  react(how: Reaction | ((request: ProviderRequest) => Reaction | Promise<Reaction>)): void
}

/**
 * Starts a provider on a free port of the loopback interface.
 *
 * @param healthy how it reacts until `react` says otherwise
 */
export async function startProvider(
  healthy: Reaction | ((request: ProviderRequest) => Reaction | Promise<Reaction>),
): Promise<Provider> {
  const requests: ProviderRequest[] = []
  let abandoned = 0
  let how = healthy
  const server = createServer(async (incoming, response) => {
    const request: ProviderRequest = {
      method: incoming.method ?? '',
      url: incoming.url ?? '',
      headers: incoming.headers,
      body: await bodyOf(incoming),
    }
    requests.push(request)
    const onClose = () => abandoned++
    response.once('close', onClose).once('finish', () => response.off('close', onClose))
    const reaction = typeof how === 'function' ? await how(request) : how
    if (reaction === 'breaks') {
      response.off('close', onClose)
      incoming.socket.destroy()
    }
    if (typeof reaction === 'string') return
    const { status = 200, headers = {}, body = '' } = reaction
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  // Node closes what was idle for 5 s, and a client that uses it at that moment is reset.
  server.keepAliveTimeout = 300_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    host: '127.0.0.1',
    port,
    requests,
    get abandoned() {
      return abandoned
    },
    received: async (count) => {
      await waitFor(
        `${count} requests have arrived`,
        () => requests.length,
        (number) => number >= count,
      )
    },
    givenUp: async (count) => {
      await waitFor(
        `${count} requests are given up`,
        () => abandoned,
        (number) => number >= count,
      )
    },
    react: (next) => {
      how = next
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of request.setEncoding('utf8')) body += chunk
  return body
}
