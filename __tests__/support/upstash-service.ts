/**
 * Stands for Upstash: its REST interface in front of a Redis server, as far as the client of `@upstash/redis` uses it for a
 * circuit breaker. See https://upstash.com/docs/redis/features/restapi.
 *
 * @module
 */

import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { Redis } from 'ioredis'

/** A user of the Redis server, by the token that stands for it. */
export type Tokens = Readonly<Record<string, { readonly username: string; readonly password: string } | undefined>>

export interface UpstashService {
  readonly url: string
  stop(): Promise<void>
}

interface Answer {
  readonly result?: unknown
  readonly error?: string
}

/** Starts the service on a free port of the loopback interface. Where the Redis server is down, it hangs up. */
export async function startUpstash(redis: { readonly port: number }, tokens: Tokens): Promise<UpstashService> {
  const clients = new Map<string, Redis>()
  for (const [token, user] of Object.entries(tokens)) {
    const client = new Redis({ host: '127.0.0.1', port: redis.port, maxRetriesPerRequest: 0, protocol: 2, ...user })
    client.on('error', () => {})
    clients.set(`Bearer ${token}`, client)
  }
  const server = createServer(async (request, response) => {
    const reply = (status: number, body: unknown) => response.writeHead(status).end(JSON.stringify(body))
    const client = clients.get(request.headers.authorization ?? '')
    if (client === undefined) return reply(401, { error: 'WRONGPASS invalid or missing auth token' })
    const body = JSON.parse(await text(request))
    try {
      if (request.method !== 'POST') return reply(405, { error: 'ERR method not allowed' })
      if (request.url === '/pipeline') {
        return reply(200, await Promise.all(body.map((command: string[]) => answer(client, command, request))))
      }
      const one = await answer(client, body, request)
      return reply(one.error === undefined ? 200 : 400, one)
    } catch {
      return response.destroy()
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: async () => {
      for (const client of clients.values()) client.disconnect()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function answer(client: Redis, [name = '', ...args]: string[], request: IncomingMessage): Promise<Answer> {
  try {
    // In capitals, so that ioredis leaves the reply as it is.
    const result = await client.call(name.toUpperCase(), ...args)
    return { result: request.headers['upstash-encoding'] === 'base64' ? encoded(result) : result }
  } catch (error) {
    const { name, message } = error as Error
    if (name !== 'ReplyError') throw error
    return { error: message }
  }
}

/** All texts in base64, but `OK`. */
function encoded(result: unknown): unknown {
  if (Array.isArray(result)) return result.map(encoded)
  return typeof result === 'string' && result !== 'OK' ? Buffer.from(result).toString('base64') : result
}
