import { connect, createServer, type Socket } from 'node:net'

/** A port on which connections are refused. */
export interface RefusingPort extends AsyncDisposable {
  readonly port: number
}

/**
 * Finds a port where nobody listens, and keeps others from it: it is the near end of a connection. A port that was merely
 * closed may be the next one that the machine gives to a server.
 */
export async function refusingPort(): Promise<RefusingPort> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const held = connect((server.address() as { readonly port: number }).port, '127.0.0.1')
  const other = await accepted
  const { remotePort: port } = other
  for (const socket of [held, other]) socket.on('error', () => {})
  return {
    port: port as number,
    async [Symbol.asyncDispose]() {
      held.destroy()
      other.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
