import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, it } from '@jest/globals'
import { answersToOther } from '../../../../src/storage/redis/scheme.ts'

/** What a server does with a connection, and whether a client that speaks TLS should rather not. */
it.each<[string, (socket: Socket) => void, boolean]>([
  ['answers a PING', (socket) => void socket.end('+PONG\r\n'), true],
  ['wants a password', (socket) => void socket.end('-NOAUTH Authentication required.\r\n'), true],
  ['is none of Redis', (socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'), false],
  ['hangs up', (socket) => void socket.end(), false],
  ['resets the connection', (socket) => void socket.resetAndDestroy(), false],
  ['says nothing', () => {}, false],
])('of a server that %s a client with TLS learns whether to do without', async (_, act, answers) => {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    socket.once('data', () => act(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  expect(await answersToOther({ host: '127.0.0.1', port, tls: {} })).toBe(answers)
  // None of them speaks TLS.
  expect(await answersToOther({ host: '127.0.0.1', port })).toBe(false)

  for (const socket of sockets) socket.destroy()
  await new Promise((resolve) => server.close(resolve))
})

it.each([
  ['nobody', { host: '127.0.0.1', port: 1 }],
  ['a socket file', { host: 'localhost', port: 6_379, path: '/tmp/redis.sock' }],
  ['sentinels', { host: 'localhost', port: 6_379, sentinels: [] }],
  ['no host', { port: 6_379 }],
])('finds out nothing of %s', async (_, server) => {
  expect(await answersToOther(server)).toBe(false)
})
