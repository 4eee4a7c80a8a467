/**
 * Keeps a process on this machine: names are resolved here, connections go to loopback addresses only.
 *
 * Clients ask `dns.lookup` and open sockets with `net.Socket.connect`, whatever they are built on.
 */

import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
import net from 'node:net'

/** A name that does not exist: https://www.rfc-editor.org/rfc/rfc6761#section-6.4 */
export const unknownHost = 'service.invalid'

/** The broadcast address of the loopback network: the kernel itself refuses to connect to it. Nothing is sent. */
export const unreachableHost = '127.255.255.255'

/** The sockets that were connected. */
const connected = new Set<net.Socket>()

/** Whether this process has received at the other end all that was written to the socket. */
export function isReceived({ remotePort, bytesWritten }: net.Socket): boolean {
  const other = [...connected].find(({ localPort }) => localPort === remotePort)
  return other !== undefined && other.bytesRead >= bytesWritten
}

export function stayOnLoopback(): void {
  const resolve = (hostname: string, family: unknown): dns.LookupAddress => {
    if (hostname !== 'localhost' && !hostname.startsWith('127.')) throw notFound(hostname)
    if (family === 6) throw notFound(hostname)
    return { address: hostname === 'localhost' ? '127.0.0.1' : hostname, family: 4 }
  }
  const lookup = (hostname: string, options: unknown, callback?: (...results: unknown[]) => void): void => {
    const { family, all } = typeof options === 'object' ? (options as dns.LookupOptions) : {}
    const done = (callback ?? options) as (...results: unknown[]) => void
    process.nextTick(() => {
      let found: dns.LookupAddress
      try {
        found = resolve(hostname, family)
      } catch (error) {
        done(error)
        return
      }
      if (all) done(null, [found])
      else done(null, found.address, found.family)
    })
  }
  const lookupPromise = async (hostname: string, options: dns.LookupOptions = {}) => {
    const found = resolve(hostname, options.family)
    return options.all ? [found] : found
  }
  Object.assign(dns, { lookup })
  Object.assign(dns.promises, { lookup: lookupPromise })
  // nodemailer asks servers of names before it asks the system.
  const resolveNothing = (hostname: string, callback: (error: Error) => void) =>
    void process.nextTick(() => callback(notFound(hostname)))
  Object.assign(dns.Resolver.prototype, { resolve4: resolveNothing, resolve6: resolveNothing })
  syncBuiltinESMExports()

  const { connect } = net.Socket.prototype
  net.Socket.prototype.connect = function (this: net.Socket, ...args: unknown[]) {
    // Node's own functions hand on what they have normalised: an array of options and callback.
    const [options] = (Array.isArray(args[0]) ? args[0] : args) as [unknown, unknown]
    const host = typeof options === 'object' ? (options as net.TcpNetConnectOpts).host : args[1]
    const isLocal = typeof host !== 'string' || /^(localhost|127\.[\d.]+|::1|.*\.invalid)$/.test(host)
    if (!isLocal) throw new Error(`A client under test wanted to connect to ${host}.`)
    connected.add(this)
    this.once('close', () => connected.delete(this))
    return (connect as (...args: unknown[]) => net.Socket).apply(this, args)
  } as typeof connect
}

/** The error of `getaddrinfo`, as Node makes it. */
function notFound(hostname: string): Error {
  const error = new Error(`getaddrinfo ENOTFOUND ${hostname}`)
  return Object.assign(error, { errno: -3008, code: 'ENOTFOUND', syscall: 'getaddrinfo', hostname })
}
