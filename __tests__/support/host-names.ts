import { randomUUID } from 'node:crypto'
import dns from 'node:dns'

/** A host name that leads where a test wants it. */
export interface HostName {
  readonly name: string
  /** An address of the loopback network, or nothing: then whoever asks for it is never answered. */
  leadTo(address: string | undefined): void
}

const addresses = new Map<string, string | undefined>()
let isReplaced = false

/** Makes a new host name for this process. Other names are looked up as ever. */
export function createHostName(): HostName {
  if (!isReplaced) replaceLookup()
  const name = `${randomUUID()}.circuits.test`
  addresses.set(name, '127.0.0.1')
  return { name, leadTo: (address) => void addresses.set(name, address) }
}

type Done = (error: Error | null, address: unknown, family?: number) => void

function replaceLookup(): void {
  isReplaced = true
  const original = dns.lookup
  const lookup = (host: string, ...rest: [unknown, Done?]): unknown => {
    if (!addresses.has(host)) return Reflect.apply(original, dns, [host, ...rest])
    const address = addresses.get(host)
    if (address === undefined) return undefined
    const done = rest.at(-1) as Done
    const wantsAll = (rest[0] as { all?: boolean } | undefined)?.all === true
    process.nextTick(() => (wantsAll ? done(null, [{ address, family: 4 }]) : done(null, address, 4)))
    return undefined
  }
  dns.lookup = lookup as typeof dns.lookup
}
