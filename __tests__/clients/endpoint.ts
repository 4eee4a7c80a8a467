import type { AddressInfo, Server } from 'node:net'
import { refusingPort } from '../support/refusing-port.ts'

/** Where a client finds the service. */
export interface Endpoint extends AsyncDisposable {
  readonly host: string
  readonly port: number
  readonly secure: boolean
}

interface Listening extends Pick<Server, 'listen' | 'address' | 'close' | 'on'> {}

/** Starts a server on a free port; disposing of the endpoint ends it with all its connections. */
export async function listen(server: Listening, secure = false): Promise<Endpoint> {
  const sockets = new Set<{ destroy(): unknown }>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    // By name, as a certificate has it and as a client would be told.
    host: 'localhost',
    port,
    secure,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** A place where no server is. */
export function nowhere(host: string, port: number): Endpoint {
  return { host, port, secure: false, [Symbol.asyncDispose]: async () => {} }
}

/** A place where connections are refused. */
export async function refusing(): Promise<Endpoint> {
  const refused = await refusingPort()
  return { ...nowhere('127.0.0.1', refused.port), [Symbol.asyncDispose]: () => refused[Symbol.asyncDispose]() }
}
