/**
 * A TCP proxy that counts what passes: bytes each way, and round trips, each of which is a request (or several sent
 * together) and what comes back for it.
 *
 * @module
 */

import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

export interface Traffic {
  readonly roundTrips: number
  readonly sent: number
  readonly received: number
}

export interface WireTap {
  readonly port: number
  /** What has passed since it was asked last. */
  take(): Traffic
  stop(): Promise<void>
}

export async function tapWire(targetPort: number): Promise<WireTap> {
  let [roundTrips, sent, received] = [0, 0, 0]
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const target = createConnection(targetPort, '127.0.0.1')
    let isAsking = false
    client.on('data', (chunk) => {
      if (!isAsking) roundTrips += 1
      isAsking = true
      sent += chunk.length
    })
    target.on('data', (chunk) => {
      isAsking = false
      received += chunk.length
    })
    for (const socket of [client, target]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => sockets.delete(socket))
    }
    client.pipe(target).pipe(client)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    take: () => {
      const traffic = { roundTrips, sent, received }
      roundTrips = sent = received = 0
      return traffic
    },
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
