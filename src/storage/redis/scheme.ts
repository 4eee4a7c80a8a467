/**
 * Finds out whether a server that has never answered expects TLS where we send none, or the other way round. Then it
 * hangs up or stays silent, and says nothing. Loaded only where a client has never had a reply.
 *
 * @module
 */

import { connect } from 'node:net'
import { connect as connectSecurely } from 'node:tls'

/** The longest silence of the server, in milliseconds. */
const longestSilence = 500

/** The server, as the options of ioredis name it. */
interface Server {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | null | undefined
  readonly tls?: object | undefined
  readonly sentinels?: unknown
}

/** Whether the server answers to the other scheme. It is sent a `PING` or a handshake, and no secret. */
export function answersToOther({ host, port, path, tls, sentinels }: Server): Promise<boolean> {
  if (host === undefined || port === undefined || path || sentinels) return Promise.resolve(false)
  return new Promise((resolve) => {
    const socket = tls ? connect({ host, port }) : connectSecurely({ host, port, rejectUnauthorized: false })
    const end = (answers: boolean): void => {
      socket.destroy()
      resolve(answers)
    }
    socket.setTimeout(longestSilence, () => end(false))
    socket.on('error', () => end(false))
    socket.on('close', () => end(false))
    if (tls) {
      socket.on('connect', () => socket.write('PING\r\n'))
      // `+PONG`, or an error such as `-NOAUTH`.
      socket.on('data', (reply) => end(/^[+-][A-Z]/.test(String(reply))))
    } else socket.on('secureConnect', () => end(true))
  })
}
