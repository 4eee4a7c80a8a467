/**
 * The clients of `@valkey/valkey-glide`: `GlideClient` and `GlideClusterClient`. Loaded only for one of them.
 *
 * @module
 */

import type { RedisClientLike } from '../options.ts'

interface Glide {
  customCommand(command: readonly string[], options: object): Promise<unknown>
}

/** Replies with text: `Decoder.String`, which is an enum. The client may have another one for its own commands. */
const asText = { decoder: 1 }

/** Commands of one moment go out together, each to the node that has its key: the client sees to it by itself. */
export function adapted(client: Glide): RedisClientLike {
  const send = async (command: readonly string[], route?: object | string): Promise<unknown> => {
    try {
      return listed(await client.customCommand(command, route === undefined ? asText : { ...asText, route }))
    } catch (reason) {
      throw asRedisSaid(reason)
    }
  }
  if (!isCluster(client)) return { call: (...command) => send(command) }
  return {
    isCluster: true,
    call: (...command) => send(command),
    nodes: async () => {
      const slots = (await send(['cluster', 'slots'], 'randomNode')) as [unknown, unknown, [string, number]][]
      const masters = new Map(slots.map(([, , [host, port]]) => [`${host}:${port}`, { host, port }]))
      return Array.from(masters, ([name, { host, port }]) => ({
        name,
        call: (...command: string[]) => send(command, { type: 'routeByAddress', host, port }),
      }))
    },
  } as RedisClientLike
}

/** Only the client of a cluster has a command for the channels of one shard. */
function isCluster(client: object): boolean {
  return 'pubsubShardChannels' in client
}

/** A hash comes as a list of pairs with names: as Redis sends it, names and values go by turns. */
function listed(reply: unknown): unknown {
  if (!Array.isArray(reply)) return reply
  return reply.flatMap((each) => (isPair(each) ? [each.key, each.value] : [each]))
}

function isPair(value: unknown): value is { readonly key: unknown; readonly value: unknown } {
  return typeof value === 'object' && value !== null && 'key' in value && 'value' in value
}

/** The words of Redis for which the client has others than the same in other letters. */
const words: Readonly<Record<string, string>> = {
  BusyLoadingError: 'LOADING',
  NoScriptError: 'NOSCRIPT',
  PermissionDenied: 'NOPERM',
  ResponseError: 'ERR',
}

/**
 * The error with the words of Redis. The client writes `OOM: …` for `OOM …`, and for the words that it knows
 * `An error was signalled by the server: - ReadOnly: …`. Of an attempt to connect it tells the address first.
 */
function asRedisSaid(reason: unknown): unknown {
  const { message = '' } = Object(reason) as Partial<Error>
  const found =
    /^An error was signalled by the server: - (\w+): (.*)/s.exec(message) ?? /(?:^|`: )([A-Z]{3,}): (.*)/s.exec(message)
  if (found === null) return reason
  const [, word = '', text = ''] = found
  return new Error(`${words[word] ?? word.toUpperCase()} ${text.trimEnd()}`)
}
