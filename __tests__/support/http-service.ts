/**
 * A service that handlers call over HTTP, which behaves as badly as a test wants.
 *
 * @module
 */

import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { waitFor } from './time.ts'

/**
 * What the service does with a request: answers 200, answers another status, never answers, or breaks the connection.
 * `after`: it waits so many milliseconds first.
 */
export type Behaviour = 'answers' | 'hangs' | 'breaks' | { readonly status?: number; readonly after?: number }

export interface ServedRequest {
  readonly path: string
  /** When it arrived, in milliseconds since the epoch. */
  readonly at: number
  /** When the connection was closed before it had been answered, in milliseconds since the epoch. */
  abandonedAt?: number
}

export interface HttpService extends AsyncDisposable {
  readonly url: string
  /** All that have arrived, in this order. */
  readonly requests: readonly ServedRequest[]
  /** Changes what happens to requests that arrive from now on. */
  behave(behaviour: Behaviour): void
  /** Resolves when so many requests have arrived in all. */
  received(count: number): Promise<void>
  /** Answers all that hang; resolves when the answers are on their way, also to a process that is frozen. */
  release(status?: number): Promise<void>
  stop(): Promise<void>
}

/** Starts the service on a free port of the loopback interface. */
export async function startHttpService(initially: Behaviour = 'answers'): Promise<HttpService> {
  const requests: ServedRequest[] = []
  const hanging = new Set<ServerResponse>()
  let behaviour = initially

  const server = createServer(async (request, response) => {
    const served: ServedRequest = { path: request.url ?? '', at: Date.now() }
    requests.push(served)
    response.once('close', () => {
      hanging.delete(response)
      if (!response.writableFinished) served.abandonedAt = Date.now()
    })
    request.resume()
    if (behaviour === 'hangs') hanging.add(response)
    else if (behaviour === 'breaks') request.socket.destroy()
    else {
      const { status = 200, after = 0 } = behaviour === 'answers' ? {} : behaviour
      if (after > 0) await sleep(after)
      answer(response, status)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  async function stop(): Promise<void> {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    behave: (next) => {
      behaviour = next
    },
    received: async (count) => {
      await waitFor(
        `the service received ${count} requests`,
        () => requests,
        () => requests.length >= count,
        { every: 2 },
      )
    },
    release: async (status = 200) => {
      const released = [...hanging]
      hanging.clear()
      await Promise.all(
        released.map(async (response) => {
          const closed = once(response, 'close')
          answer(response, status)
          await closed
        }),
      )
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function answer(response: ServerResponse, status: number): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify({ status }))
}
