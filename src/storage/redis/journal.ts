/**
 * The journal of circuits in Redis, and the list of circuits. It is loaded when it is first used.
 *
 * A journal is a hash of its own, at the key of its circuit and `##EVENTS`: in a stored key only a namespace is ever empty, which
 * comes first, so that no circuit is kept there. Fields `0` to `49` are entries as JSON, by turns, and `next` is the number of the next one. Its script
 * takes no command that the circuits do not need as well, so that a user's permissions suffice. The key expires 30 days
 * after the last entry.
 *
 * The storage hands over what it shares with this file, so that the storage itself stays one file in a bundle.
 *
 * @module
 */

import { createHash } from 'node:crypto'
import type { CircuitPage, JournalEntry, JournalQuery, ListQuery } from '../contract.ts'
import type { Connection, Delivery } from './client.ts'
import type { RedisClientLike } from './options.ts'

/** Follows the key of a circuit in that of its journal. */
export const suffix = '##EVENTS'

/** How long the server keeps a journal after its last entry, in milliseconds: 30 days. */
const retention = 2_592_000_000

/** ARGV: the entry, the time to live. */
const source = `
local number = redis.call('HMGET', KEYS[1], 'next')[1] or '0'
number = string.find(number, '^%d+$') and #number < 16 and tonumber(number) or 0
redis.call('HSET', KEYS[1], string.format('%d', number % 50), ARGV[1], 'next', string.format('%d', number + 1))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`
const script = { source, sha: createHash('sha1').update(source).digest('hex') }

/** The command that adds an entry. */
export function appending(circuitKey: string, entry: JournalEntry): Delivery {
  const args = [JSON.stringify(entry), String(retention)]
  return { script, command: ['evalsha', script.sha, '1', circuitKey + suffix, ...args] }
}

/** The entries in a reply to `HGETALL`, a list of names and values by turns or what a client has made of it. */
export function entriesIn(reply: unknown, { since = 0, limit = 50 }: JournalQuery): JournalEntry[] {
  const pairs = Array.isArray(reply) || reply instanceof Map ? [...reply].flat() : Object.entries(Object(reply)).flat()
  const hash = new Map<string, string>()
  for (let index = 0; index < pairs.length; index += 2) hash.set(String(pairs[index]), String(pairs[index + 1]))
  const next = Number(hash.get('next'))
  const entries: JournalEntry[] = []
  for (let number = next - 1; number >= Math.max(0, next - 50); number--) {
    const entry = parsed(hash.get(String(number % 50)))
    if (entry !== undefined && entry.at >= since && entries.length < limit) entries.push(entry)
  }
  return entries
}

/** A longer text is no entry, in characters. */
const longestEntry = 16_384

function parsed(text: string | undefined): JournalEntry | undefined {
  if (text === undefined || text.length > longestEntry) return undefined
  try {
    return Object(JSON.parse(text)) as JournalEntry
  } catch {
    return undefined
  }
}

/** So many keys the server looks at in one step. */
const stepSize = 1_000
/** A page is no more steps than this: a server that others use as well may hold millions of keys. */
const maxSteps = 100

/** The parts of the clients of ioredis that a listing needs. Those of others are adapted to have them. */
interface Scannable extends RedisClientLike {
  readonly options?: { readonly keyPrefix?: string; readonly host?: string; readonly port?: number }
  /** Of a node of a cluster: its address. ioredis has it in the options. */
  readonly name?: string
  /** The nodes of a cluster. */
  nodes?(role: 'master'): readonly Scannable[] | Promise<readonly Scannable[]>
}

/**
 * Lists circuits by `SCAN`, on one server after the other.
 *
 * @throws {TypeError} if the client of a cluster does not tell its nodes
 */
export async function listKeys(
  { client, inCapitals }: Connection,
  keyPrefix: string,
  { prefix = '', limit = 1_000, cursor = '' }: ListQuery,
): Promise<CircuitPage> {
  // The client of a cluster knows its nodes when it has had a reply.
  if (client.isCluster) await client.call('exists', keyPrefix)
  const servers = await serversOf(client)
  const names = [...servers.keys()].sort()
  const ours = `${(client as Scannable).options?.keyPrefix ?? ''}${keyPrefix}`
  const pattern = `${(ours + prefix).replace(/[*?[\]\\]/g, '\\$&')}*`
  const keys = new Set<string>()
  let [place = '0', name = names[0] ?? ''] = split(cursor)
  for (let step = 0; step < maxSteps && keys.size < limit; step++) {
    // A server that has left the cluster since the last page: the next one goes on.
    const server = servers.get(name)
    if (server !== undefined) {
      const command = ['scan', place, 'MATCH', pattern, 'COUNT', String(stepSize)] as const
      const [first, ...args] = inCapitals ? ['SCAN', ...command.slice(1)] : command
      const [next, found] = (await server.call(first as string, ...args)) as [unknown, unknown[]]
      for (const key of found) keys.add(serviceKeyIn(String(key), ours))
      place = String(next)
    } else place = '0'
    if (place !== '0') continue
    const following = names.find((each) => each > name)
    if (following === undefined) return { keys: [...keys] }
    name = following
  }
  return { keys: [...keys], cursor: `${place} ${name}` }
}

function split(cursor: string): string[] {
  const at = cursor.indexOf(' ')
  return at < 0 ? [] : [cursor.slice(0, at), cursor.slice(at + 1)]
}

function serviceKeyIn(key: string, ours: string): string {
  const own = key.slice(ours.length)
  return own.endsWith(suffix) ? own.slice(0, -suffix.length) : own
}

/** The servers by name. A server by itself has an empty one. */
async function serversOf(client: Scannable): Promise<ReadonlyMap<string, Scannable>> {
  if (!client.isCluster) return new Map([['', client]])
  if (typeof client.nodes !== 'function') {
    throw new TypeError(
      'the client of a cluster does not tell its nodes; it needs a method nodes, as Cluster of ioredis has',
    )
  }
  const nodes = await client.nodes('master')
  return new Map(nodes.map((node) => [node.name ?? `${node.options?.host}:${node.options?.port}`, node]))
}
