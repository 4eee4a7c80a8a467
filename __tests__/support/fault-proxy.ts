/**
 * A TCP proxy in front of a server, which breaks as it is told: for all connections, those that are there and those that
 * are still to come, until it is healed.
 *
 * @module
 */

import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import { type Runtime, systemRuntime, type TimerHandle } from '../../src/runtime.ts'
import { waitFor } from './time.ts'

/** What happens to what passes. */
export type ProxyFault =
  /** Nobody listens any more, and what was connected is reset. */
  | { readonly kind: 'refuse' }
  /** What was connected is reset; new connections are accepted, and then nothing. */
  | { readonly kind: 'hang' }
  /** Half of the server's next reply arrives, then the connection is reset; for each connection. */
  | { readonly kind: 'reset-mid-reply' }
  /** The server carries out what it is asked, and the connection is closed in place of the reply. */
  | { readonly kind: 'cut-reply' }
  /** Replies come this much later, in milliseconds. */
  | { readonly kind: 'delay'; readonly by: number }
  /** Replies come a byte at a time, this many milliseconds apart. */
  | { readonly kind: 'trickle'; readonly every: number }
  /** Connections live, but nothing passes either way; what was sent arrives when it heals, as TCP has it. */
  | { readonly kind: 'black-hole' }
  /** The server is not asked: this is the reply to each request. */
  | { readonly kind: 'answer'; readonly reply: string }

export interface FaultProxy {
  readonly port: number
  /** How many connections were made through it. */
  readonly connections: number
  /** How many requests came through it, whatever became of them. */
  readonly requests: number
  /** Whether something that came keeps its sender waiting: it is late, or held, or nobody will ever answer it. */
  readonly holds: boolean
  inflict(fault: ProxyFault): Promise<void>
  heal(): Promise<void>
  /** Resolves when no connection is left. */
  stop(): Promise<void>
}

/** How requests are told apart: HTTP with a `content-length`, or Redis's lists of texts. */
export type Protocol = 'http' | 'redis'

/** A late reply is late by this time. */
export type ProxyTime = Pick<Runtime, 'now' | 'setTimeout' | 'clearTimeout'>

/**
 * Starts a proxy on a free port of the loopback interface.
 *
 * @param time default: the machine's
 */
export async function startFaultProxy(
  target: { readonly port: number },
  protocol: Protocol,
  time: ProxyTime = systemRuntime,
): Promise<FaultProxy> {
  let fault: ProxyFault | undefined
  let connections = 0
  let requests = 0
  const open = new Set<Passage>()

  const server = createServer((downstream) => {
    connections += 1
    const passage = new Passage(downstream, target.port, protocol, time, {
      fault: () => fault,
      requested: () => {
        requests += 1
      },
    })
    open.add(passage)
    downstream.on('close', () => open.delete(passage))
  })
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject)
        resolve()
      })
    })
  const resetAll = (): void => {
    for (const passage of open) passage.reset()
  }
  await listen(0)
  const { port } = server.address() as AddressInfo
  return {
    port,
    get connections() {
      return connections
    },
    get requests() {
      return requests
    },
    get holds() {
      return [...open].some((passage) => passage.holds)
    },
    inflict: async (next) => {
      fault = next
      const closed = next.kind === 'refuse' ? new Promise((resolve) => server.close(resolve)) : undefined
      if (next.kind === 'refuse' || next.kind === 'hang') resetAll()
      await closed
    },
    heal: async () => {
      const healed = fault
      fault = undefined
      // A connection of somebody else's may have got the port meanwhile.
      if (healed?.kind === 'refuse') {
        const outcome = () => listen(port).catch((error: unknown) => error)
        await waitFor('the port of the proxy is free', outcome, (error) => error === undefined, { every: 100 })
      }
      // Who was left hanging hangs on until somebody resets it: here the server that is back.
      if (healed?.kind === 'hang') resetAll()
      for (const passage of open) passage.release()
    },
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      resetAll()
      await closed
    },
  }
}

/** One client's connection, and the one to the server behind it. */
class Passage {
  readonly #downstream: Socket
  readonly #upstream: Socket
  readonly #fault: () => ProxyFault | undefined
  readonly #requests: Requests
  /** What a black hole holds. */
  readonly #held: (() => void)[] = []
  readonly #time: ProxyTime
  /** What is on its way, in its order. */
  readonly #late = new Map<TimerHandle, () => void>()
  /** Up to when bytes are on their way already, so that none overtakes another. */
  #busyUntil = 0
  /** Whether it has had a request that nobody will answer. */
  #hasSwallowed = false
  #resetting: NodeJS.Timeout | undefined

  constructor(
    downstream: Socket,
    port: number,
    protocol: Protocol,
    time: ProxyTime,
    { fault, requested }: { fault(): ProxyFault | undefined; requested(): void },
  ) {
    this.#downstream = downstream
    this.#upstream = createConnection(port, '127.0.0.1')
    this.#fault = fault
    this.#time = time
    this.#requests = new Requests(protocol)
    downstream.setNoDelay(true)
    this.#upstream.setNoDelay(true)
    for (const socket of [downstream, this.#upstream]) {
      socket.on('error', () => {})
      socket.on('close', () => this.#end())
    }
    downstream.on('data', (data: Buffer) => {
      const complete = this.#requests.take(data)
      for (let request = 0; request < complete; request++) requested()
      this.#forward(data, complete)
    })
    this.#upstream.on('data', (data: Buffer) => this.#back(data))
  }

  get holds(): boolean {
    return this.#hasSwallowed || this.#held.length > 0 || this.#late.size > 0
  }

  /** Lets everything arrive that was held up. */
  release(): void {
    if (this.#resetting !== undefined) this.reset()
    const late = [...this.#late.values()]
    this.#forgetLate()
    for (const pass of [...late, ...this.#held.splice(0)]) pass()
  }

  reset(): void {
    this.#downstream.resetAndDestroy()
    this.#end()
  }

  #forward(data: Buffer, complete: number): void {
    const fault = this.#fault()
    if (fault?.kind === 'hang') this.#hasSwallowed = true
    else if (fault?.kind === 'black-hole') this.#held.push(() => this.#upstream.write(data))
    else if (fault?.kind === 'answer') this.#downstream.write(fault.reply.repeat(complete))
    else this.#upstream.write(data)
  }

  #back(data: Buffer): void {
    const fault = this.#fault()
    switch (fault?.kind) {
      case 'cut-reply':
        this.#downstream.destroy()
        return
      case 'reset-mid-reply':
        // The half has to be read before the reset, which would overtake it.
        this.#downstream.write(data.subarray(0, data.length >> 1))
        this.#resetting ??= setTimeout(() => this.reset(), 10)
        return
      case 'delay':
        this.#after(fault.by, () => this.#downstream.write(data))
        return
      case 'trickle':
        for (const byte of data) this.#after(fault.every, () => this.#downstream.write(Buffer.of(byte)), true)
        return
      case 'black-hole':
        this.#held.push(() => this.#downstream.write(data))
        return
      default:
        // What is on its way already comes first.
        if (this.#late.size > 0) this.#after(0, () => this.#downstream.write(data))
        else this.#downstream.write(data)
    }
  }

  #after(delay: number, act: () => void, isQueued = false): void {
    const now = this.#time.now()
    const due = Math.max(this.#busyUntil + (isQueued ? delay : 0), now + delay)
    this.#busyUntil = due
    const timer = this.#time.setTimeout(() => {
      // Timers that are due at the same time need not fire in their order.
      for (const [other, pass] of this.#late) {
        this.#time.clearTimeout(other)
        this.#late.delete(other)
        pass()
        if (other === timer) break
      }
    }, due - now)
    this.#late.set(timer, act)
  }

  #forgetLate(): void {
    for (const timer of this.#late.keys()) this.#time.clearTimeout(timer)
    this.#late.clear()
    this.#busyUntil = 0
  }

  #end(): void {
    clearTimeout(this.#resetting)
    this.#forgetLate()
    this.#held.length = 0
    this.#downstream.destroy()
    this.#upstream.destroy()
  }
}

/** Finds where requests end, in whatever pieces they come. */
class Requests {
  readonly #protocol: Protocol
  #rest = Buffer.alloc(0)

  constructor(protocol: Protocol) {
    this.#protocol = protocol
  }

  /** How many requests are complete with these bytes. */
  take(data: Buffer): number {
    this.#rest = Buffer.concat([this.#rest, data])
    let complete = 0
    for (;;) {
      const length = this.#protocol === 'http' ? lengthOfHttp(this.#rest) : lengthOfRedis(this.#rest)
      if (length === undefined || length > this.#rest.length) return complete
      this.#rest = this.#rest.subarray(length)
      complete += 1
    }
  }
}

function lengthOfHttp(data: Buffer): number | undefined {
  const head = data.indexOf('\r\n\r\n')
  if (head < 0) return undefined
  const [, length = '0'] = /^content-length: *(\d+)/im.exec(data.toString('latin1', 0, head)) ?? []
  return head + 4 + Number(length)
}

function lengthOfRedis(data: Buffer): number | undefined {
  let at = 0
  const number = (): number | undefined => {
    const end = data.indexOf('\r\n', at)
    if (end < 0) return undefined
    const value = Number(data.toString('latin1', at + 1, end))
    at = end + 2
    return value
  }
  const parts = number()
  if (parts === undefined) return undefined
  for (let part = 0; part < parts; part++) {
    const length = number()
    if (length === undefined) return undefined
    at += length + 2
  }
  return at
}

/** A reply of DynamoDB's that refuses a request. */
export function dynamoDBError(name: string, message: string, status = 400): string {
  const body = JSON.stringify({ __type: `com.amazonaws.dynamodb.v20120810#${name}`, message })
  const head = [
    `HTTP/1.1 ${status} Error`,
    'content-type: application/x-amz-json-1.0',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: keep-alive',
  ]
  return `${head.join('\r\n')}\r\n\r\n${body}`
}
