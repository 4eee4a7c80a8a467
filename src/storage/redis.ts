/**
 * Circuits in Redis: one hash per circuit, one Lua script per primitive.
 *
 * The hash holds the fields of the {@link CircuitRecord}, lists and objects among them as JSON, and in `increments` the
 * ids of the latest 16 increments since the last replace. A script touches the one key that it is given, so that it
 * runs in a cluster as well.
 *
 * @module
 */

import { createHash } from 'node:crypto'
import type { Redis, RedisOptions } from 'ioredis'
import { hint, isObject, isText, Problems, textAllowed } from '../configuration-problems.ts'
import { CircuitStorageError, type StorageErrorKind, type StorageOperation } from '../errors.ts'
import {
  type CircuitRecord,
  type CompareAndSet,
  type ExpectedVersion,
  emptyRecord,
  expiryOf,
  type FailureIncrement,
  type ICircuitStorage,
  parseCircuitRecord,
  type WriteResult,
} from './circuit-storage.ts'
import { failedBatch } from './failed-batch.ts'
import { isRedisUrl, urlAllowed } from './redis-url.ts'

/**
 * What the storage needs of a client. `Redis` and `Cluster` of ioredis 5 and 6 and of iovalkey have it as they are; other
 * clients are adapted in a line, for instance node-redis:
 *
 * @example
 * ```ts
 * const client: RedisClientLike = { call: (...command) => nodeRedis.sendCommand(command) }
 * ```
 */
export interface RedisClientLike {
  /** Sends one command; resolves to its reply, rejects with the server's error, whose message is kept. */
  call(command: string, ...args: string[]): Promise<unknown>
  /**
   * Sends several commands at once; one error or reply for each, in their order. Without it, the commands of a batch are
   * sent by `call` in one go, which many clients pipeline by themselves.
   */
  pipeline?(commands: string[][]): { exec(): Promise<readonly (readonly [Error | null, unknown?])[] | null> }
  /** `true`: the client sends each command to the node that has its key, so that batches are not pipelined. */
  readonly isCluster?: boolean | undefined
}

/** A client, or how to make one. */
type ClientOptions =
  | {
      /** The client to use; it is neither configured nor closed by {@link RedisCircuitStorage}. */
      readonly client?: RedisClientLike | undefined
      readonly url?: never
      readonly options?: never
    }
  | {
      readonly client?: never
      /**
       * `redis://` or, with TLS, `rediss://[user:password@]host[:port][/database]`. What is special in a user or a
       * password is percent-encoded. It wins over `options`.
       */
      readonly url?: string | undefined
      /**
       * For the ioredis client that is made at the first operation. It wins over the defaults, which suit Lambda:
       * `commandTimeout` 2 000 ms, `connectTimeout` and `socketTimeout` 1 000 ms, `maxRetriesPerRequest` 1, a
       * `retryStrategy` that ends after three attempts (the next operation connects again), `keepAlive` 10 000 ms, a
       * reconnect on `READONLY`, and neither a ready check nor `CLIENT SETINFO`, which would cost a cold start a round trip.
       * With a `db` other than 0 no command is sent before that database is selected, `enableReadyCheck` or not.
       */
      readonly options?: RedisOptions | undefined
    }

/** What a {@link RedisCircuitStorage} is made of: a `client`, or a `url`, `options` or both. */
export type RedisCircuitStorageOptions = {
  /** The key of a circuit is this and the service key. Default: `circuit:`. */
  readonly keyPrefix?: string | undefined
} & ClientOptions

/**
 * Keeps circuits in Redis 7 or later, or what is compatible with it, one hash per circuit.
 *
 * Without a `client` it needs `ioredis`, which is loaded at the first operation. Making one does no I/O. The user of the
 * connection must be allowed `~circuit:* +evalsha +eval +hgetall +hmget +hset +hdel +hincrby +exists +pttl +pexpire
 * +persist +del`, and `+select` if the database is another than 0. Reads must come from the primary: leave `scaleReads`
 * of a cluster client as it is.
 *
 * Every method rejects with a {@link CircuitStorageError}; its `cause` is a copy of the client's error without the
 * arguments of the command, which can be a password.
 *
 * @throws {ConfigurationError} naming every wrong option
 * @example
 * ```ts
 * const storage = new RedisCircuitStorage({ url: 'rediss://breaker:secret@cache.example.com:6379' })
 * ```
 */
export class RedisCircuitStorage implements ICircuitStorage {
  readonly fencesEpochs = true
  readonly #keyPrefix: string
  readonly #options: ClientOptions
  #connection: Promise<Connection> | undefined

  constructor(options: RedisCircuitStorageOptions) {
    check(options)
    this.#keyPrefix = options.keyPrefix ?? 'circuit:'
    this.#options = options
  }

  /** Loads the client library; connects with the first operation. */
  async prepare(): Promise<void> {
    await this.#open('getState')
  }

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    return this.#one('getState', this.#read(serviceKey))
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    const keys = [...new Set(serviceKeys)]
    return this.#all(
      'batchGetState',
      keys.map((key) => this.#read(key)),
    )
  }

  async incrementFailures(
    serviceKey: string,
    version: ExpectedVersion,
    { count, at, id, epoch }: FailureIncrement,
  ): Promise<WriteResult> {
    const created = emptyRecord(id, at)
    const added = [line(id), String(count), String(at), lifetime(created)]
    const args = [token(version), token(epoch), ...added, ...fieldsOf(created)]
    return this.#one('incrementFailures', this.#run(increment, serviceKey, args))
  }

  async compareAndSetState(
    serviceKey: string,
    version: ExpectedVersion,
    next: CircuitRecord,
    epoch?: string,
  ): Promise<WriteResult> {
    return this.#one('compareAndSetState', this.#compareAndSet({ serviceKey, version, next, epoch }))
  }

  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const operation = 'batchSetState'
    const seen = new Set<string>()
    for (const { serviceKey: service } of writes) {
      if (seen.has(service)) {
        const what = `${operation} was given ${JSON.stringify(service)} twice, and wrote nothing: give each circuit once.`
        throw new CircuitStorageError(what, { operation, service })
      }
      seen.add(service)
    }
    return this.#all(
      operation,
      writes.map((write) => this.#compareAndSet(write)),
    )
  }

  async clearState(serviceKey: string): Promise<void> {
    await this.#one('clearState', this.#delete(serviceKey))
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    const keys = [...new Set(serviceKeys)]
    await this.#all(
      'batchClearState',
      keys.map((key) => this.#delete(key)),
    )
  }

  /** Closes the client that was made here, never one that was injected. A later operation makes a new one. */
  async close(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    const opened = await connection?.catch(() => undefined)
    if (opened?.own) await hangUp(opened.own)
  }

  #read(service: string): Request<CircuitRecord | undefined> {
    return { service, command: ['hgetall', this.#keyOf(service)], decode: decodeRecord }
  }

  #compareAndSet({ serviceKey, version, next, epoch }: CompareAndSet): Request<WriteResult> {
    const absent = [...recordFields.filter((field) => next[field] === undefined), 'increments']
    const removed = [String(absent.length), ...absent]
    const args = [token(version), token(epoch), token(next.version), lifetime(next), ...removed, ...fieldsOf(next)]
    return this.#run(compareAndSet, serviceKey, args)
  }

  #delete(service: string): Request<true> {
    return { service, command: ['del', this.#keyOf(service)], decode: () => true }
  }

  #run(script: Script, service: string, args: readonly string[]): Request<WriteResult> {
    return {
      service,
      command: ['evalsha', script.sha, '1', this.#keyOf(service), ...args],
      script,
      decode: decodeWrite,
    }
  }

  #keyOf(serviceKey: string): string {
    return `${this.#keyPrefix}${serviceKey}`
  }

  async #one<T>(operation: StorageOperation, request: Request<T>): Promise<T> {
    const [outcome] = await this.#send(operation, [request])
    if (outcome?.error) throw outcome.error
    return outcome?.value as T
  }

  /** One result for each circuit about which there is something to tell. */
  async #all<T>(operation: StorageOperation, requests: readonly Request<T>[]): Promise<Map<string, NonNullable<T>>> {
    const results = new Map<string, NonNullable<T>>()
    const errors = new Map<string, CircuitStorageError>()
    for (const { service, value, error } of await this.#send(operation, requests)) {
      if (error) errors.set(service, error)
      else if (value !== undefined && value !== null) results.set(service, value)
    }
    if (errors.size > 0) throw failedBatch(operation, results, errors, requests.length)
    return results
  }

  /** Sends the requests together. Never rejects: each has its outcome. */
  async #send<T>(operation: StorageOperation, requests: readonly Request<T>[]): Promise<Outcome<T>[]> {
    if (requests.length === 0) return []
    let connection: Connection | undefined
    let replies: PromiseSettledResult<unknown>[]
    try {
      connection = await this.#open(operation)
      replies = await deliver(connection.client, requests)
    } catch (reason) {
      replies = requests.map(() => ({ status: 'rejected', reason }))
    }
    return requests.map(({ service, decode }, index) => {
      const context: Context = { operation, service }
      const reply = replies[index] as PromiseSettledResult<unknown>
      try {
        if (reply.status === 'rejected') throw reply.reason
        return { service, value: decode(reply.value, context) }
      } catch (reason) {
        return { service, error: storageError(reason, context, connection?.lastError?.()) }
      }
    })
  }

  /** The client, made at the first operation; a failure to make one is not remembered. */
  async #open(operation: StorageOperation): Promise<Connection> {
    if (!this.#connection) {
      const connection = connect(this.#options, operation)
      this.#connection = connection
      connection.catch(() => {
        if (this.#connection === connection) this.#connection = undefined
      })
    }
    const opened = await this.#connection
    opened.allowRetries?.()
    // It gave up reconnecting; whoever needs it connects it again.
    if (opened.own?.status === 'end') opened.own.connect().catch(() => {})
    return opened
  }
}

/** One command about one circuit. */
interface Request<T> {
  readonly service: string
  readonly command: readonly [name: string, ...args: string[]]
  /** What the command evaluates by its digest. */
  readonly script?: Script
  readonly decode: (reply: unknown, context: Context) => T
}

interface Outcome<T> {
  readonly service: string
  readonly value?: T
  readonly error?: CircuitStorageError
}

/** What an error is to be attributed to. */
interface Context {
  readonly operation: StorageOperation
  readonly service: string
}

interface Connection {
  readonly client: RedisClientLike
  /** The same, if it was made here. */
  readonly own?: Redis
  /** An operation needs it: it may be connected anew. */
  readonly allowRetries?: () => void
  /** Why it is not connected. */
  readonly lastError?: () => Error | undefined
}

interface Script {
  readonly source: string
  /** By which servers remember it. */
  readonly sha: string
}

const recordFields = Object.keys(emptyRecord('', 0)) as readonly (keyof CircuitRecord)[]

/**
 * What both scripts begin with. Version and epoch are compared with a `=` before them, so that none differs from an empty
 * one; without an expected epoch any will do, and none. What is stored but is no record of ours is refused; whoever reads
 * the answer finds that it is none.
 */
const condition = `
local key = KEYS[1]
local stored = redis.call('HMGET', key, 'version', 'schema', 'failureCount', 'increments', 'epoch')
local version = stored[1] and '=' .. stored[1] or ''
local epoch = stored[5] and '=' .. stored[5] or ''
local ours = stored[2] == '1'
local absent = not ours and redis.call('EXISTS', key) == 0
local expected = version == ARGV[1] and (ARGV[2] == '' or epoch == ARGV[2]) and (ours or absent)
local function answer(applied) return { applied, redis.call('HGETALL', key) } end
`

/**
 * Adds to the count, or creates the record first. A count that is no number is refused, for the reader of the answer to
 * find. Only ever prolongs the time to live: the record may have one that reaches further, or none.
 *
 * ARGV: expected version, expected epoch, id, count, instant, time to live, then the fields and values of a new record.
 */
const increment = script(`${condition}
if not expected then return answer(0) end
if ours and not string.find(stored[3] or '', '^%d+$') then return answer(0) end
local ids = stored[4] or ''
if string.find('\\n' .. ids, '\\n' .. ARGV[3] .. '\\n', 1, true) then return answer(1) end
if absent then redis.call('HSET', key, unpack(ARGV, 7)) end
redis.call('HINCRBY', key, 'failureCount', ARGV[4])
ids = ARGV[3] .. '\\n' .. ids
ids = string.match(ids, '^' .. string.rep('[^\\n]*\\n', 16)) or ids
redis.call('HSET', key, 'lastFailureAt', ARGV[5], 'updatedAt', ARGV[5], 'increments', ids)
local left = redis.call('PTTL', key)
if absent or (left >= 0 and left < tonumber(ARGV[6])) then redis.call('PEXPIRE', key, ARGV[6]) end
return answer(1)`)

/**
 * Replaces the record. When the client sent it again because a reply was lost, what is stored is `next` already: that is
 * told as applied. What can be refused (by the memory limit, by the user's permissions) comes first.
 *
 * ARGV: expected version, expected epoch, next version, time to live or nothing, how many fields to remove, these, then
 * those to set.
 */
const compareAndSet = script(`${condition}
if version ~= ARGV[1] then return answer(version ~= '' and version == ARGV[3] and 1 or 0) end
if not expected then return answer(0) end
local set = 6 + ARGV[5]
redis.call('HSET', key, unpack(ARGV, set))
redis.call('HDEL', key, unpack(ARGV, 6, set - 1))
if ARGV[4] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[4]) end
return answer(1)`)

function script(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') }
}

/** A version or an epoch as the scripts compare it. */
function token(expected: string | undefined): string {
  return expected === undefined ? '' : `=${expected}`
}

/** An id without line breaks, which separate ids; random tokens are left as they are. */
function line(id: string): string {
  return JSON.stringify(id).slice(1, -1)
}

/**
 * How long the server shall keep the record, in milliseconds; empty: until it is replaced. A duration and not an
 * instant, because the server's clock may differ from ours. It is counted from the record's own time or from now,
 * whichever is earlier, so that neither a clock that runs ahead nor a record that is written late shortens it.
 */
function lifetime(record: CircuitRecord): string {
  const expiry = expiryOf(record)
  return expiry === undefined ? '' : String(Math.ceil(expiry - Math.min(record.updatedAt, Date.now())))
}

/** Names and values by turns. */
function fieldsOf(record: CircuitRecord): string[] {
  return recordFields.flatMap((field) => {
    const value = record[field]
    if (value === undefined) return []
    return [field, typeof value === 'object' ? JSON.stringify(value) : String(value)]
  })
}

function decodeRecord(reply: unknown, { operation, service }: Context): CircuitRecord | undefined {
  const stored = hashIn(reply)
  if (!stored) throw unintelligible(operation, service)
  if (stored.size === 0) return undefined
  const raw: Partial<Record<keyof CircuitRecord, unknown>> = {}
  for (const field of recordFields) {
    const text = stored.get(field)
    if (text !== undefined) raw[field] = decodeField(field, text)
  }
  return parseCircuitRecord(service, raw, operation)
}

/** A hash is a list of names and values by turns, or what clients make of it. */
function hashIn(reply: unknown): Map<string, string> | undefined {
  if (Array.isArray(reply)) {
    const hash = new Map<string, string>()
    for (let index = 0; index < reply.length; index += 2) hash.set(String(reply[index]), String(reply[index + 1]))
    return hash
  }
  if (reply instanceof Map) return hashIn([...reply].flat())
  return isObject(reply) ? hashIn(Object.entries(reply).flat()) : undefined
}

/** What is no number or no JSON stays a text, for {@link parseCircuitRecord} to complain about. */
function decodeField(field: keyof CircuitRecord, text: string): unknown {
  switch (field) {
    case 'version':
    case 'epoch':
    case 'state':
      return text
    case 'leases':
    case 'transitions':
    case 'lastFailure':
    case 'override':
      try {
        return JSON.parse(text)
      } catch {
        return text
      }
    default:
      return String(Number(text)) === text ? Number(text) : text
  }
}

function decodeWrite(reply: unknown, context: Context): WriteResult {
  if (!Array.isArray(reply)) throw unintelligible(context.operation, context.service)
  const [applied, stored] = reply
  return { applied: Number(applied) === 1, current: decodeRecord(stored, context) }
}

function unintelligible(operation: StorageOperation, service: string): CircuitStorageError {
  return new CircuitStorageError(
    `${operation} of ${JSON.stringify(service)} failed: the client's reply is not what Redis sent. Its call must resolve ` +
      'to the reply as it is: lists as arrays, texts as strings.',
    { operation, service },
  )
}

/** Sends the commands together, and once more with their source those whose scripts the server does not know. */
async function deliver(
  client: RedisClientLike,
  requests: readonly Request<unknown>[],
): Promise<PromiseSettledResult<unknown>[]> {
  const replies = await sendAll(
    client,
    requests.map(({ command }) => command),
  )
  const unknown = [...replies.keys()].filter((index) => isNoScript(replies[index]))
  if (unknown.length === 0) return replies
  const sources = unknown.map((index): Request<unknown>['command'] => {
    const { command, script } = requests[index] as Request<unknown>
    return ['eval', script?.source ?? '', ...command.slice(2)]
  })
  const again = await sendAll(client, sources)
  for (const [position, index] of unknown.entries()) replies[index] = again[position] as PromiseSettledResult<unknown>
  return replies
}

function isNoScript(reply: PromiseSettledResult<unknown> | undefined): boolean {
  return reply?.status === 'rejected' && codeOf(reply.reason) === 'NOSCRIPT'
}

/**
 * As one pipeline. In a cluster as single commands, all at once: their keys belong to different nodes, and only for
 * single commands does the client follow slots that move, one by one. It is one round trip for each node all the same.
 */
async function sendAll(
  client: RedisClientLike,
  commands: readonly Request<unknown>['command'][],
): Promise<PromiseSettledResult<unknown>[]> {
  if (commands.length === 1 || client.isCluster || !client.pipeline) {
    return Promise.allSettled(commands.map(async (command) => client.call(...command)))
  }
  const replies = await client.pipeline(commands.map((command) => [...command])).exec()
  return commands.map((_, index) => {
    const [reason, value] = replies?.[index] ?? [new Error('The client left the command without a reply.')]
    return reason ? { status: 'rejected', reason } : { status: 'fulfilled', value }
  })
}

async function connect({ client, url, options }: ClientOptions, operation: StorageOperation): Promise<Connection> {
  if (client) return { client }
  const Client = await loadIoredis(operation)
  // Not those that ioredis counts, which begin anew with every connection, be it closed as soon as it is made.
  let attempts = 0
  const retryStrategy = () => (++attempts < maxConnectAttempts ? Math.random() * 50 * 2 ** attempts : null)
  // Its type decides on those of the commands, of which none is used.
  const settings = { ...defaultsFor(options), retryStrategy, ...options } as RedisOptions & { replyMapping?: 'legacy' }
  // The URL as it is normalised: ioredis tells TLS by a scheme in small letters.
  const own = url === undefined ? new Client(settings) : new Client(new URL(url).href, settings)
  awaitDatabase(own)
  let lastError: Error | undefined
  // Without a listener ioredis writes to the console.
  own.on('error', (error: Error) => {
    lastError = error
  })
  own.on('ready', () => {
    lastError = undefined
  })
  const allowRetries = () => {
    attempts = 0
  }
  return { client: own, own, allowRetries, lastError: () => lastError }
}

/**
 * Lets no command through before its database is selected: ioredis by itself goes on in database 0 when `SELECT` fails.
 * What it does wait for on every connection is the ready check, and that is made to be the reply to the `SELECT` that it
 * has sent already.
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
        // What went down with its connection is for the next one to do.
        return client.status === 'connect' ? callback(new DatabaseError(database, cause)) : undefined
      }
      if (enableReadyCheck) await info(callback)
      else callback(null, '')
    },
  })
}

/** The word `NOPERM` stays in the cause: a ready check that fails with it ioredis takes for passed. */
class DatabaseError extends Error {
  constructor(database: number, cause: unknown) {
    super(`Database ${database} could not be selected`, { cause })
  }
}

/** Lets the replies that are on their way arrive. What has ended needs nothing, and would only keep a timer. */
async function hangUp(client: Redis): Promise<void> {
  if (client.status === 'end') return
  await client.quit().catch(() => {
    if (client.status !== 'end') client.disconnect()
  })
}

/** Imported inside `try`, so that bundlers only warn of a package that is not installed. */
async function loadIoredis(operation: StorageOperation): Promise<typeof Redis> {
  try {
    const ioredis = await import('ioredis')
    // The first 5.x have the class as their default export alone.
    return ioredis.Redis ?? ioredis.default
  } catch (cause) {
    throw new CircuitStorageError(
      'The Redis storage could not load ioredis. Install it (npm install ioredis), let your bundler include it, or pass ' +
        'a client.',
      { operation, kind: 'misconfigured', cause },
    )
  }
}

/** The longest that a reply may take, in milliseconds. */
const longestReply = 2_000
/**
 * The longest that a connection may take, and the longest silence of a server that owes a reply, in milliseconds: less,
 * so that there is time to ask again, and what waits for a host that is gone is not waited for when it is back.
 */
const longestSilence = 1_000
/** So many connections are tried for an operation; without another one the client then ends, and with it its timers. */
const maxConnectAttempts = 3

/**
 * For a process that is frozen between invocations: what it finds when it is thawed is often a dead connection, and
 * nobody waits for long.
 */
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
    // After a failover the name leads to the new primary, but an old connection to what is a replica now.
    reconnectOnError: (error) => codeOf(error) === 'READONLY',
    // With sentinels it is the ready check that tells whether the server is the primary.
    enableReadyCheck: options !== undefined && 'sentinels' in options,
    disableClientInfo: true,
    protocol: 2,
  }
}

/** What Redis says in a word, such as `WRONGTYPE`; `undefined` if it was not Redis that said it. */
function codeOf(error: unknown): string | undefined {
  return /^-?([A-Z]{2,})\b/.exec(messageOf(error))?.[1]
}

/** A server can repeat the arguments of a command that it does not know, and in `HELLO` there is a password. */
function messageOf(error: unknown): string {
  const message = String((error as Partial<Error> | undefined)?.message ?? error)
  return message.replace(/,? with args beginning with[\s\S]*/, '')
}

function storageError(reason: unknown, context: Context, lastError: Error | undefined): CircuitStorageError {
  const subject = `${context.operation} of ${JSON.stringify(context.service)}`
  if (reason instanceof CircuitStorageError) {
    const { message, corrupt, kind, cause } = reason
    return new CircuitStorageError(message, { ...context, corrupt, kind, ...(cause === undefined ? {} : { cause }) })
  }
  if (codeOf(reason) === 'WRONGTYPE') {
    return new CircuitStorageError(
      `The record stored for ${JSON.stringify(context.service)} is damaged: its key holds a value that is no hash. It is ` +
        'left as it is and this instance decides alone. If another application uses the key, choose another keyPrefix.',
      { ...context, corrupt: true, kind: 'misconfigured', cause: withoutCommand(reason) },
    )
  }
  // A command that was given up with its connection does not tell why there was none.
  const givenUp = /Connection is closed|max retries per request/.test(messageOf(reason))
  const error = givenUp ? (lastError ?? reason) : reason
  const cause = withoutCommand(error instanceof DatabaseError ? error.cause : error)
  return new CircuitStorageError(`${subject} failed: ${adviceOn(error)}`, { ...context, kind: kindOf(error), cause })
}

/** What to do, by the first word of what Redis says. */
const advice: ReadonlyMap<string, string> = new Map([
  ['NOAUTH', 'Redis wants a password. Put user and password into the URL or the options'],
  ['WRONGPASS', 'Redis does not accept the user or the password. Correct them'],
  [
    'NOPERM',
    'the Redis user lacks a permission. Grant ~{keyPrefix}* +evalsha +eval +hgetall +hmget +hset +hdel +hincrby +exists ' +
      '+pttl +pexpire +persist +del, and +select for a database other than 0',
  ],
  ['READONLY', 'the server is a replica. Connect to the primary'],
  ['LOADING', 'the server is loading its data. It recovers by itself'],
  ['BUSY', 'a script of another client keeps the server busy. It can be ended by SCRIPT KILL or FUNCTION KILL'],
  ['MOVED', 'the server is a node of a cluster. Pass a cluster client: client: new Cluster([…]) of ioredis'],
  ['ASK', 'the server is a node of a cluster. Pass a cluster client: client: new Cluster([…]) of ioredis'],
  ['CLUSTERDOWN', 'the cluster does not serve the slot of this key. See CLUSTER INFO on one of its nodes'],
  ['TRYAGAIN', 'the cluster is moving the slot of this key. It recovers by itself'],
  [
    'OOM',
    'the server has reached maxmemory. Raise it, or let it evict: maxmemory-policy volatile-lru spares overrides',
  ],
  ['MAXCLIENTS', 'the server has as many connections as it takes. Raise maxclients, or close some'],
  ['UNKNOWN', 'the server lacks a command. It has to be Redis 7 or later, or compatible with it, and may rename none'],
  ['MISCONF', 'the server refuses writes because it cannot save. See its log'],
  ['NOREPLICAS', 'the server refuses writes because it has too few replicas. See min-replicas-to-write'],
  ['MASTERDOWN', 'the server is a replica without its primary. Connect to the primary'],
])

/** By the first word of what Redis says: what passes by itself, or when somebody makes room … */
const throttled: ReadonlySet<string> = new Set([
  'BUSY',
  'CLUSTERDOWN',
  'LOADING',
  'MASTERDOWN',
  'MAXCLIENTS',
  'MISCONF',
  'NOREPLICAS',
  'OOM',
  'READONLY',
  'TRYAGAIN',
])
/** … and what does not. A mere `ERR` can be anything: proxies say it of servers that they do not reach. */
const misconfigured: ReadonlySet<string> = new Set([
  'ASK',
  'DENIED',
  'MOVED',
  'NOAUTH',
  'NOPERM',
  'UNKNOWN',
  'WRONGPASS',
])

function kindOf(error: unknown): StorageErrorKind {
  const isOfDatabase = error instanceof DatabaseError
  const word = wordOf(isOfDatabase ? error.cause : error)
  if (throttled.has(word)) return 'throttled'
  return isOfDatabase || misconfigured.has(word) ? 'misconfigured' : 'unavailable'
}

/** As {@link codeOf}, and a word of ours where that of Redis is only `ERR`. */
function wordOf(error: unknown): string {
  const message = messageOf(error)
  // Before it knows who is there, Redis does not even parse a command with more than ten arguments.
  if (message.includes('unauthenticated')) return 'NOAUTH'
  // In a script.
  if (message.includes("user executing the script can't")) return 'NOPERM'
  if (message.includes('unknown command')) return 'UNKNOWN'
  return message.includes('max number of clients') ? 'MAXCLIENTS' : (codeOf(error) ?? '')
}

/** What happened and what to do about it. */
function adviceOn(error: unknown): string {
  if (error instanceof DatabaseError) return `${error.message}: ${adviceOnDatabase(error.cause)}`
  const message = messageOf(error)
  const known = advice.get(wordOf(error))
  if (known) return `${known} (Redis: ${message}).`
  if (codeOf(error)) return `Redis refused it: ${message}`
  if (message === 'Command timed out') return 'Redis did not answer within commandTimeout.'
  const { name = 'Error', code } = (error ?? {}) as { name?: unknown; code?: unknown }
  return `Redis could not be asked: ${message || code || name}`
}

function adviceOnDatabase(error: unknown): string {
  switch (codeOf(error)) {
    case 'NOPERM':
      return `the Redis user lacks a permission. Grant +select, or use database 0 (Redis: ${messageOf(error)}).`
    case 'ERR':
      return `the server does not have it. Correct it in the URL or the options (Redis: ${messageOf(error)}).`
    default:
      return adviceOn(error)
  }
}

/** What is kept of an error. Clients hang the command and its arguments on it, those of `AUTH` too. */
const harmlessProperties = ['code', 'errno', 'syscall', 'hostname', 'address', 'port'] as const

function withoutCommand(error: unknown): Error {
  const copy = new Error(messageOf(error))
  if (error instanceof Error) {
    copy.name = error.name
    for (const property of harmlessProperties) {
      const value = (error as Error & Record<string, unknown>)[property]
      if (value !== undefined) Object.assign(copy, { [property]: value })
    }
  }
  return copy
}

const optionNames = ['keyPrefix', 'client', 'url', 'options'] as const

/** @throws {ConfigurationError} with every problem at once */
function check(options: unknown): asserts options is RedisCircuitStorageOptions {
  const problems = new Problems()
  const mustBe = (allowed: string, setting: string, value: unknown) =>
    problems.mustBe(allowed, setting, 'option', value)
  if (!isObject(options)) {
    mustBe('an object with a client, a url or options', 'options', options)
    return problems.throwIfAny()
  }
  for (const name of Object.keys(options)) {
    if ((optionNames as readonly string[]).includes(name)) continue
    problems.add(name, 'option', undefined, `${name} is not an option of the Redis storage${hint(name, optionNames)}`)
  }

  const { keyPrefix, client, url, options: clientOptions } = options
  if (keyPrefix !== undefined && !isText(keyPrefix)) mustBe(textAllowed, 'keyPrefix', keyPrefix)
  if (client !== undefined && !(isObject(client) && typeof client.call === 'function')) {
    mustBe('a client of ioredis, or an object with its method call', 'client', client)
  }
  // The value is not named: a URL can hold a password, and so can what should have been one.
  if (url !== undefined && !isRedisUrl(url)) problems.add('url', 'option', undefined, `url must be ${urlAllowed}`)
  if (clientOptions !== undefined && !isObject(clientOptions)) mustBe('options of ioredis', 'options', clientOptions)
  if (client !== undefined && (url !== undefined || clientOptions !== undefined)) {
    const what = 'client excludes url and options: a client is used as it is'
    problems.add('client', 'option', client, what)
  }
  if (client === undefined && url === undefined && clientOptions === undefined) {
    problems.add('url', 'option', undefined, 'url is missing; the Redis storage needs a url, options or a client')
  }
  problems.throwIfAny()
}
