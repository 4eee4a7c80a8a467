/**
 * The client: sending commands together, and the client of ioredis that is made here.
 *
 * @module
 */

import type { Socket } from 'node:net'
import type { Redis, RedisOptions } from 'ioredis'
import { CircuitStorageError, type StorageOperation } from '../../errors.ts'
import type { ClientOptions, RedisClient, RedisClientLike } from './options.ts'
import type { Script } from './scripts.ts'

/** A connection to the server, or what stands for it. */
export interface Connection {
  readonly client: RedisClientLike
  /** Whether the names of commands are sent in capitals, past reply transformers. */
  readonly inCapitals: boolean
  /** The same client, if it was made here. */
  readonly own?: Redis
  /** Lets the client try anew to connect, and gives up a connection that is silent. Each operation calls it. */
  readonly refresh?: () => Promise<void> | undefined
  /** Counts the commands that wait for replies. */
  readonly owe?: (change: 1 | -1) => void
  /** Takes note of replies; resolves to the reason why the client is not connected. */
  readonly diagnose?: (replies: readonly PromiseSettledResult<unknown>[]) => Promise<Error | undefined>
}

type Command = readonly [name: string, ...args: string[]]

/** One command to be sent. */
export interface Delivery {
  readonly command: Command
  /** The script that the command evaluates by its digest. */
  readonly script?: Script
}

export async function connect(
  { client: given, url, options }: ClientOptions,
  operation: StorageOperation,
): Promise<Connection> {
  if (given) {
    const client = await adapted(given)
    return { client, inCapitals: takesCapitals(client) }
  }
  const Client = await loadIoredis(operation)
  // ioredis begins its own count anew with every connection, even one that is closed as soon as it is made. This count
  // goes up with each attempt, and back to 0 with each operation.
  let attempts = 0
  const retryStrategy = () => (++attempts < maxConnectAttempts ? Math.random() * 50 * 2 ** attempts : null)
  // The type of the settings decides on the types of the commands, of which none is used.
  const settings = { ...defaultsFor(options), retryStrategy, ...options } as RedisOptions & { replyMapping?: 'legacy' }
  const own = url === undefined ? new Client(settings) : new Client(...addressOf(url, settings))
  awaitDatabase(own)
  // Set by each error of the connection, unset when it is ready.
  let lastError: Error | undefined
  // Without a listener ioredis writes to the console.
  own.on('error', (error: Error) => {
    lastError = error
  })
  own.on('ready', () => {
    lastError = undefined
  })
  // ioredis goes on to wait for a reply on a connection that is lost.
  own.on('close', () => clearTimeout((own as unknown as Insides).socketTimeoutTimer))
  let owed = 0
  let silence = { since: 0, received: 0 }
  const isSilent = (): boolean => {
    const [now, received] = [Date.now(), (own as unknown as Insides).stream?.bytesRead ?? 0]
    if (owed === 0 || received !== silence.received) silence = { since: now, received }
    return own.status === 'ready' && now - silence.since >= suspectSilence
  }
  const giveUpSilent = async () => {
    // After a freeze the reply may lie in the socket: it is let in first.
    for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate)
    if (isSilent()) (own as unknown as Insides).stream?.destroy(new Error('The connection is silent.'))
  }
  const refresh = () => {
    attempts = 0
    return isSilent() ? giveUpSilent() : undefined
  }
  const owe = (change: 1 | -1) => {
    owed += change
  }
  // Set by the first reply of the server.
  let hasAnswered = false
  const diagnose = async (replies: readonly PromiseSettledResult<unknown>[]): Promise<Error | undefined> => {
    hasAnswered ||= replies.some((reply) => reply.status === 'fulfilled' || codeOf(reply.reason) !== undefined)
    if (hasAnswered) return lastError
    const [{ answersToOther }, { SchemeError }] = await Promise.all([import('./scheme.ts'), import('./errors.ts')])
    return (await answersToOther(own.options)) ? new SchemeError(own.options.tls !== undefined, lastError) : lastError
  }
  return { client: own, inCapitals: takesCapitals(own), own, refresh, owe, diagnose }
}

/** The client with the method `call`. What another client needs for that is loaded only for one like it. */
async function adapted(client: RedisClient): Promise<RedisClientLike> {
  if ('call' in client) return client
  const adapter: { adapted(client: never): RedisClientLike } =
    'sendCommand' in client
      ? await import('./clients/node-redis.ts')
      : await ('customCommand' in client ? import('./clients/glide.ts') : import('./clients/upstash.ts'))
  return adapter.adapted(client as never)
}

/**
 * The address in a URL, and the settings with those in its query, which win. ioredis would take these for texts: it throws
 * at a time that is one, and takes `false` for true.
 */
function addressOf<Settings>(url: string, settings: Settings): [address: string, settings: Settings] {
  // The normalised URL: ioredis recognises TLS by a scheme in small letters.
  const address = new URL(url)
  const given = Object.fromEntries(Array.from(address.searchParams, ([name, text]) => [name, queried(name, text)]))
  address.search = ''
  return [address.href, { ...settings, ...given }]
}

function queried(name: string, text: string): unknown {
  const isText = /(name|word|prefix|host|path|tag)$/i.test(name)
  return !isText && /^(0|[1-9]\d*|true|false|null)$/.test(text) ? JSON.parse(text) : text
}

/** The part of the clients of ioredis by which they are known, and a command of theirs. */
interface Commander extends RedisClientLike {
  readonly options?: { readonly keyPrefix?: unknown }
  getBuiltinCommands?(): readonly string[]
}

interface SentCommand {
  getKeys(): readonly unknown[]
}

/**
 * Whether a client takes the names of commands in capitals, as servers do. ioredis and iovalkey then hand out replies as
 * they came: their reply transformers, which are global, go by small letters. Older versions do not know where a command
 * in capitals has its keys, so that they neither add the `keyPrefix` of the client nor find the node in a cluster.
 */
function takesCapitals(client: Commander): boolean {
  if (typeof client.getBuiltinCommands !== 'function') return false
  if (!client.isCluster && !client.options?.keyPrefix) return true
  // Sends nothing: hands out the command.
  const sendCommand = (command: SentCommand) => command
  const probe: Commander = Object.create(client, { options: { value: {} }, sendCommand: { value: sendCommand } })
  return (probe.call('HGETALL', 'key') as unknown as SentCommand).getKeys().length === 1
}

/**
 * Lets no command through before its database is selected: ioredis by itself goes on in database 0 when `SELECT` fails.
 * But ioredis waits for the ready check on every connection. So the ready check becomes the reply to the `SELECT` that
 * ioredis has sent already.
 */
function awaitDatabase(client: Redis): void {
  const { db, enableReadyCheck } = client.options
  const database = db ?? 0
  if (database === 0) return
  const [select, info] = [client.select.bind(client), client.info.bind(client)]
  let selected: Promise<unknown> | undefined
  client.options.enableReadyCheck = true
  Object.assign(client, {
    select: (index: number) => {
      selected = select(index)
      return selected
    },
    info: async (callback: (error?: Error | null, info?: string) => void) => {
      const reply = selected ?? select(database)
      selected = undefined
      try {
        await reply
      } catch (cause) {
        const { DatabaseError } = await import('./errors.ts')
        // A connection that is gone has nothing to wait for; the next one selects again.
        return client.status === 'connect' ? callback(new DatabaseError(database, cause)) : undefined
      }
      if (enableReadyCheck) await info(callback)
      else callback(null, '')
    },
  })
}

/** Closes a client when the replies on their way have arrived. A client that has ended would only start a timer. */
export async function hangUp(client: Redis): Promise<void> {
  if (client.status === 'end') return
  const { stream } = client as unknown as Insides
  const isGone = stream?.destroyed
  await client.quit().catch(() => {
    if (client.status !== 'end') client.disconnect()
  })
  // ioredis has begun to wait for the end of a connection that had ended before.
  if (isGone) stream?.emit('close')
}

/** The parts that ioredis keeps to itself. */
interface Insides {
  readonly stream?: Socket
  readonly socketTimeoutTimer?: NodeJS.Timeout
}

/** Loads ioredis. The import is inside `try`, so that bundlers only warn of a package that is not installed. */
async function loadIoredis(operation: StorageOperation): Promise<typeof Redis> {
  try {
    const ioredis = await import('ioredis')
    // The first 5.x have the class as their default export alone.
    return ioredis.Redis ?? ioredis.default
  } catch (cause) {
    const { whyNotLoaded } = await import('../load-failures.ts')
    const message = `The Redis storage could not load ${whyNotLoaded('ioredis', cause)}`
    throw new CircuitStorageError(message, { operation, kind: 'misconfigured', cause })
  }
}

/** The longest that a reply may take, in milliseconds. */
const longestReply = 2_000
/**
 * The longest that a connection may take, and the longest silence of a server that owes a reply, in milliseconds. It is
 * less than {@link longestReply}, so that there is time to ask again.
 */
const longestSilence = 1_000
/**
 * A connection that owes a reply for so long is given up when the next command is to be sent, in milliseconds. By default
 * nobody waits longer for the store: whoever comes next must not wait as long again.
 */
const suspectSilence = 400
/** The number of connections that are tried for an operation. Then the client ends, and with it its timers. */
const maxConnectAttempts = 3

/** Defaults for a process that is frozen between invocations: it often wakes up with a dead connection. */
function defaultsFor(options: RedisOptions | undefined): RedisOptions {
  return {
    lazyConnect: true,
    connectTimeout: longestSilence,
    commandTimeout: longestReply,
    // A connection whose other end has vanished is given up, not written to for as long as TCP repeats itself.
    socketTimeout: longestSilence,
    keepAlive: 10_000,
    // Commands wait for a connection, but for two attempts at most: then all that wait are rejected.
    maxRetriesPerRequest: 1,
    // After a failover the name leads to the new primary, but an old connection leads to a replica.
    reconnectOnError: (error) => codeOf(error) === 'READONLY',
    // With sentinels it is the ready check that tells whether the server is the primary.
    enableReadyCheck: options !== undefined && 'sentinels' in options,
    disableClientInfo: true,
    protocol: 2,
  }
}

/** Sends the commands together. Where the server does not know a script, sends its source. */
export async function deliver(
  connection: Connection,
  requests: readonly Delivery[],
): Promise<PromiseSettledResult<unknown>[]> {
  connection.owe?.(1)
  try {
    return await deliverAll(connection, requests)
  } finally {
    connection.owe?.(-1)
  }
}

async function deliverAll(
  connection: Connection,
  requests: readonly Delivery[],
): Promise<PromiseSettledResult<unknown>[]> {
  const replies = await sendAll(
    connection,
    requests.map(({ command }) => command),
  )
  const unknown = [...replies.keys()].filter((index) => isNoScript(replies[index]))
  if (unknown.length === 0) return replies
  const sources = unknown.map((index): Command => {
    const { command, script } = requests[index] as Delivery
    return ['eval', script?.source ?? '', ...command.slice(2)]
  })
  const again = await sendAll(connection, sources)
  for (const [position, index] of unknown.entries()) replies[index] = again[position] as PromiseSettledResult<unknown>
  return replies
}

/** The word with which an error of Redis begins, such as `NOSCRIPT`; `undefined` for other errors. */
function codeOf(error: unknown): string | undefined {
  return /^-?([A-Z]{2,})\b/.exec(String((error as Partial<Error> | undefined)?.message ?? error))?.[1]
}

function isNoScript(reply: PromiseSettledResult<unknown> | undefined): boolean {
  return reply?.status === 'rejected' && codeOf(reply.reason) === 'NOSCRIPT'
}

/**
 * Sends the commands as one pipeline, or in a cluster as single commands, all at once. Its keys belong to different
 * nodes, and the client follows slots that move for single commands only. Each node still has one round trip.
 */
async function sendAll(
  { client, inCapitals }: Connection,
  given: readonly Command[],
): Promise<PromiseSettledResult<unknown>[]> {
  const commands = inCapitals ? given.map(([name, ...args]): Command => [name.toUpperCase(), ...args]) : given
  if (commands.length === 1 || client.isCluster || !client.pipeline) {
    return Promise.allSettled(commands.map(async (command) => client.call(...command)))
  }
  const replies = await client
    .pipeline(commands.map((command) => (inCapitals ? ['call', ...command] : [...command])))
    .exec()
  return commands.map((_, index) => {
    const [reason, value] = replies?.[index] ?? [new Error('The client left the command without a reply.')]
    return reason ? { status: 'rejected', reason } : { status: 'fulfilled', value }
  })
}
