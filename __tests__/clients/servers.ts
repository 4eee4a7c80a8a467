/** Services that misbehave: over HTTP, gRPC, and the protocols of databases. */

import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttp2Server, type Http2Session } from 'node:http2'
import { createServer, type Server, type Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createServer as createTlsServer, TLSSocket } from 'node:tls'
import grpc from '@grpc/grpc-js'
import { waitFor } from '../support/time.ts'
import { type Certificate, readCertificate } from './certificates.ts'
import { type Endpoint, listen, nowhere, refusing } from './endpoint.ts'
import { askedAt, type Fault, type FaultName, faults } from './faults.ts'
import { isReceived, unknownHost, unreachableHost } from './loopback.ts'

/** How a service words its answers. */
export type Wording = (fault: FaultName) => {
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Makes a service fail in one way. `folder` holds the certificates. */
export type Service = (fault: FaultName, folder: string) => Promise<Endpoint>

const certificateOf: Partial<Record<FaultName, Certificate>> = {
  'expired certificate': 'expired',
  'certificate of another host': 'wrong-host',
}

/** The faults that need no service. */
async function absence(fault: FaultName): Promise<Endpoint | undefined> {
  if (fault === 'unknown host (DNS)') return nowhere(unknownHost, 20_000)
  if (fault === 'host unreachable') return nowhere(unreachableHost, 20_000)
  return fault === 'connection refused' ? refusing() : undefined
}

/** What the fault does to a connection on which a request has come. */
function interrupt(fault: FaultName, socket: Socket): void {
  if (fault === 'reset before the answer') socket.resetAndDestroy()
  if (fault === 'closed before the answer') socket.end()
  if (fault === 'malformed answer') socket.end('This is no answer.\r\n\r\n')
}

/** Turns of the event loop in which a client does all that it does with what it has received. */
const turns = 20

/** Resets a connection after the client has received what was written, and has had time for it. */
async function resetWhenReceived(socket: Socket): Promise<void> {
  await waitFor('the client has received half of the answer', () => socket.destroyed || isReceived(socket))
  for (let turn = 0; turn < turns; turn++) await nextTurn()
  socket.resetAndDestroy()
}

const htmlPage = { body: '<html>Welcome!</html>', headers: { 'content-type': 'text/html' } }

export function httpService(wording: Wording): Service {
  return async (fault, folder) => {
    const absent = await absence(fault)
    if (absent !== undefined) return absent
    const certificate = certificateOf[fault]
    if (certificate !== undefined) return listen(createTlsServer(readCertificate(folder, certificate)), true)
    const { status = 200, retryAfter } = faults[fault] as Fault
    const isWhole = faults[fault].status !== undefined || fault === 'none: it answers'
    if (isWhole) {
      const { body, headers } = fault.endsWith('with a page instead of JSON') ? htmlPage : wording(fault)
      return listen(
        createHttpServer((request, response) => {
          if (retryAfter !== undefined) response.setHeader('retry-after', formatted(retryAfter))
          request.resume().on('end', () => response.writeHead(status, headers).end(body))
        }),
      )
    }
    const { body, headers = {} } = wording('none: it answers')
    const head = Object.entries({ ...headers, 'content-length': body.length + 100 })
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('')
    return listen(
      createServer((socket) => {
        socket.on('error', () => {})
        socket.once('data', () => {
          interrupt(fault, socket)
          if (!fault.startsWith('reset in') && !fault.startsWith('half')) return
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n${body.slice(0, -1)}`)
          if (fault.startsWith('reset in')) void resetWhenReceived(socket)
        })
      }),
    )
  }
}

function formatted({ seconds, as }: { readonly seconds: number; readonly as: 'seconds' | 'date' }): string {
  return as === 'seconds' ? String(seconds) : new Date(askedAt + seconds * 1_000).toUTCString()
}

export const grpcPath = '/test.Service/Call'

export const grpcService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  if (certificate !== undefined) {
    return listen(createTlsServer({ ...readCertificate(folder, certificate), ALPNProtocols: ['h2'] }), true)
  }
  if (fault === 'reset in the answer') return listen(halfGrpcServer() as unknown as Server)
  if (faults[fault].group === 'grpc' || fault === 'none: it answers' || faults[fault].limit !== undefined) {
    return serveGrpc(fault)
  }
  return muteService(fault, folder)
}

/** Begins an answer and resets the connection. */
function halfGrpcServer() {
  const connections: Socket[] = []
  return createHttp2Server()
    .on('connection', (socket: Socket) => connections.push(socket))
    .on('session', (session: Http2Session) => session.on('error', () => {}))
    .on('stream', (stream) => {
      stream.on('error', () => {})
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' })
      stream.write(Buffer.from([0, 0, 0, 0, 9, 1, 2]))
      for (const socket of connections) void resetWhenReceived(socket)
    })
}

async function serveGrpc(fault: FaultName): Promise<Endpoint> {
  const asIs = (bytes: Buffer): Buffer => bytes
  const server = new grpc.Server()
  const call = {
    path: grpcPath,
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  } as const
  const answer: grpc.handleUnaryCall<Buffer, Buffer> = (request, reply) => {
    const { grpcStatus: code, limit } = faults[fault]
    if (fault.startsWith('half')) request.sendMetadata(new grpc.Metadata())
    if (limit !== undefined) return
    if (code === undefined) reply(null, Buffer.from('ok'))
    else reply({ code, details: 'as asked' })
  }
  server.addService({ call }, { call: answer })
  const credentials = grpc.ServerCredentials.createInsecure()
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  )
  return { host: 'localhost', port, secure: false, [Symbol.asyncDispose]: async () => server.forceShutdown() }
}

/** As much of PostgreSQL as a client needs to log in and to send one query. */
export const postgresService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  const inQuery = fault.startsWith('reset in') || fault.startsWith('half') || faults[fault].group === 'database'
  const server = createServer((socket) => {
    socket.on('error', () => {})
    let isLoggedIn = false
    socket.on('data', (data) => {
      if (data.length === 8 && data.readInt32BE(4) === sslRequest) {
        socket.write(certificate === undefined ? 'N' : 'S')
        if (certificate !== undefined) secure(socket, readCertificate(folder, certificate))
      } else if (!isLoggedIn) {
        if (!inQuery && fault !== 'none: it answers') return interrupt(fault, socket)
        if (fault === 'the server is starting up') return void socket.end(postgresError('57P03'))
        isLoggedIn = true
        socket.write(Buffer.concat([authenticated, readyForQuery]))
      } else {
        if (fault === 'reset in the answer') socket.resetAndDestroy()
        if (fault === 'the server is shutting down') socket.end(postgresError('57P01'))
        if (fault === 'a constraint is violated') socket.write(Buffer.concat([postgresError('23505'), readyForQuery]))
        if (fault === 'none: it answers') socket.write(Buffer.concat([complete, readyForQuery]))
      }
    })
  })
  return listen(server, certificate !== undefined)
}

// https://www.postgresql.org/docs/current/protocol-message-formats.html
const sslRequest = 80877103
const authenticated = message('R', '\0\0\0\0')
const readyForQuery = message('Z', 'I')
const complete = message('C', 'SELECT 0\0')

function postgresError(code: string): Buffer {
  return message('E', `SERROR\0VERROR\0C${code}\0Mas asked\0\0`)
}

function message(type: string, content: string): Buffer {
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeInt32BE(content.length + 4, 1)
  return Buffer.concat([head, Buffer.from(content)])
}

/** As much of MySQL as a client needs to log in and to send one query. */
export const mysqlService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  const greets = certificate !== undefined || /^(reset in|half|none)/.test(fault)
  return listen(
    createServer((socket) => {
      socket.on('error', () => {})
      if (fault === 'malformed answer') socket.write(mysqlPacket(0, Buffer.from('This is no greeting.')))
      else if (greets) socket.write(mysqlPacket(0, mysqlGreeting(certificate !== undefined)))
      else interrupt(fault, socket)
      let packets = 0
      socket.on('data', (data) => {
        packets++
        if (certificate !== undefined)
          secure(socket, readCertificate(folder, certificate), data.subarray(sslRequestLength))
        else if (packets === 1) socket.write(mysqlPacket(2, mysqlOk))
        else if (fault === 'none: it answers') socket.write(mysqlPacket(1, mysqlOk))
        else if (fault === 'reset in the answer') socket.resetAndDestroy()
      })
    }),
    certificate !== undefined,
  )
}

/** Goes on over TLS, which is all that these connections are for. */
function secure(socket: Socket, credentials: { readonly key: Buffer; readonly cert: Buffer }, early?: Buffer): void {
  socket.removeAllListeners('data').pause()
  if (early !== undefined && early.length > 0) socket.unshift(early)
  new TLSSocket(socket, { isServer: true, ...credentials }).on('error', () => {})
}

// https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
const sslRequestLength = 36
const mysqlOk = Buffer.from([0, 0, 0, 2, 0, 0, 0])

function mysqlGreeting(offersTls: boolean): Buffer {
  return Buffer.concat([
    Buffer.from('\n8.0.0\0'),
    Buffer.from([1, 0, 0, 0]),
    Buffer.from('12345678\0'),
    // Capabilities: all of the older ones, with or without CLIENT_SSL.
    Buffer.from([0xff, offersTls ? 0xff : 0xf7, 33, 2, 0, 0xff, 0x00, 21]),
    Buffer.alloc(10),
    Buffer.from('123456789012\0mysql_native_password\0'),
  ])
}

function mysqlPacket(sequence: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from([payload.length, 0, 0, sequence]), payload])
}

/** Answers each command with OK, whatever it is. */
export const redisService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  if (certificate !== undefined) return listen(createTlsServer(readCertificate(folder, certificate)), true)
  const server = createServer((socket) => {
    socket.on('error', () => {})
    let received = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      received += chunk
      for (;;) {
        const [command] = /^\*\d+\r\n(?:\$\d+\r\n[^\r]*\r\n)+?(?=\*|$)/.exec(received) ?? []
        if (command === undefined) return
        received = received.slice(command.length)
        const isGet = /\r\nget\r\n/i.test(command)
        if (fault === 'none: it answers' || (/^(reset in|half)/.test(fault) && !isGet)) socket.write('+OK\r\n')
        else if (fault.startsWith('reset in')) {
          socket.write('$100\r\nhalf')
          // It stays away: ioredis would ask a server that is back again and again.
          server.close()
          void resetWhenReceived(socket)
        } else interrupt(fault, socket)
      }
    })
  })
  return listen(server)
}

/** Fails before it has said anything. */
export const muteService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  if (certificate !== undefined) return listen(createTlsServer(readCertificate(folder, certificate)), true)
  return listen(createServer((socket) => socket.on('error', () => {}).once('data', () => interrupt(fault, socket))))
}

/** As much of SMTP as it takes to send a mail. */
export const smtpService: Service = async (fault, folder) => {
  const absent = await absence(fault)
  if (absent !== undefined) return absent
  const certificate = certificateOf[fault]
  if (certificate !== undefined) return listen(createTlsServer(readCertificate(folder, certificate)), true)
  const greets = /^(reset in|half|none)/.test(fault)
  return listen(
    createServer((socket) => {
      socket.on('error', () => {})
      if (greets) socket.write('220 mail.invalid ESMTP\r\n')
      else interrupt(fault, socket)
      socket.setEncoding('latin1').on('data', (command: string) => {
        if (fault === 'none: it answers') socket.write(command === 'DATA\r\n' ? '354 go on\r\n' : '250 ok\r\n')
        else if (fault === 'reset in the answer') {
          socket.write('250')
          void resetWhenReceived(socket)
        }
      })
    }),
  )
}
