/**
 * IP addresses, as callers give them.
 *
 * @module
 */

import { BlockList, isIPv4, isIPv6, SocketAddress } from 'node:net'

export interface Address {
  /** In its canonical form, so that one address is one cached item: `2001:DB8:0::1` is `2001:db8::1`. */
  readonly ip: string
  /** Whether it can be anywhere: an address of a private network, or one that is reserved, cannot. */
  readonly isPublic: boolean
}

/** `undefined`: this is no IP address. */
export function parseAddress(text: string): Address | undefined {
  if (isIPv4(text)) return { ip: text, isPublic: !reserved.check(text, 'ipv4') }
  // With a zone (`fe80::1%eth0`) it means something on one machine only.
  if (!isIPv6(text) || text.includes('%')) return undefined
  const { address } = new SocketAddress({ address: text, family: 'ipv6' })
  const mapped = /^::ffff:([\d.]+)$/.exec(address)?.[1]
  if (mapped !== undefined) return parseAddress(mapped)
  return { ip: address, isPublic: unicast.check(address, 'ipv6') && !reserved.check(address, 'ipv6') }
}

/** All that is given out of IPv6. */
const unicast = new BlockList()
unicast.addSubnet('2000::', 3, 'ipv6')

/** What nobody on the internet has: https://www.iana.org/assignments/iana-ipv4-special-registry and …ipv6… */
const reserved = new BlockList()
for (const subnet of [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10', // behind a carrier's NAT
  '127.0.0.0/8',
  '169.254.0.0/16', // link-local: Lambda's own, too
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24', // documentation
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24', // documentation
  '203.0.113.0/24', // documentation
  '224.0.0.0/3', // multicast, and what was never given out
]) {
  const [net = '', bits] = subnet.split('/')
  reserved.addSubnet(net, Number(bits), 'ipv4')
}
reserved.addSubnet('2001:db8::', 32, 'ipv6') // documentation
reserved.addSubnet('3fff::', 20, 'ipv6') // documentation
