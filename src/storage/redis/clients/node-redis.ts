/**
 * The clients of node-redis 4 and 5: `createClient`, `createClientPool`, `createSentinel` and `createCluster`. Loaded only for one of them.
 *
 * @module
 */

import type { RedisClientLike } from '../options.ts'

interface Single {
  sendCommand(command: readonly string[]): Promise<unknown>
}

interface Cluster {
  readonly masters: readonly { readonly address: string }[]
  nodeClient(node: unknown): Single | Promise<Single>
  sendCommand(key: string | undefined, isReadonly: boolean, command: readonly string[]): Promise<unknown>
}

interface Sentinel {
  getMasterNode(): unknown
  sendCommand(isReadonly: boolean, command: readonly string[]): Promise<unknown>
}

/** Commands of one moment go out together: the client pipelines them by itself. */
export function adapted(client: Single | Sentinel | Cluster): RedisClientLike {
  // A command that is not called read-only goes to the master.
  if ('getMasterNode' in client) return { call: (...command) => client.sendCommand(false, command) }
  if (!('masters' in client)) return { call: (...command) => client.sendCommand(command) }
  return {
    isCluster: true,
    // The third argument of EVAL and EVALSHA is the key, the first one of all others.
    call: (...command) => client.sendCommand(command[/^eval/i.test(command[0]) ? 3 : 1], false, command),
    nodes: () =>
      client.masters.map((master) => ({
        name: master.address,
        call: async (...command: string[]) => (await client.nodeClient(master)).sendCommand(command),
      })),
  } as RedisClientLike
}
