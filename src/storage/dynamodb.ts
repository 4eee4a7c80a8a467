/**
 * Circuits in a DynamoDB table: one item per circuit, one conditional `UpdateItem` per primitive.
 *
 * The item holds the fields of the {@link CircuitRecord} as top-level attributes, the time to live, and in `inc0` …
 * `inc15` the ids of the latest 16 increments since the last replace. Attributes of other names are the user's and are
 * left alone.
 *
 * @module
 */

import type * as DynamoDB from '@aws-sdk/client-dynamodb'
import type { AttributeValue, DynamoDBClient, DynamoDBClientConfig } from '@aws-sdk/client-dynamodb'
import type * as Marshalling from '@aws-sdk/util-dynamodb'
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

/** The table, and how its keys are called. */
interface TableOptions {
  /** The table's name or ARN. */
  readonly tableName: string
  /** The attribute that is the partition key, of type string. Its value is `CIRCUIT#{serviceKey}`. Default: `PK`. */
  readonly partitionKeyName?: string | undefined
  /** The attribute that is the sort key, of type string; `null` for a table without one. Default: `SK`. */
  readonly sortKeyName?: string | null | undefined
  /** What the sort key of every circuit holds. Default: `STATE`. */
  readonly sortKeyValue?: string | undefined
  /** The attribute that the table's time to live is set to, in epoch seconds. Default: `ttl`. */
  readonly ttlAttributeName?: string | undefined
  /**
   * Whether reads are strongly consistent, so that they see every write that was acknowledged before, as the storage
   * contract wants it. `false` halves their price; then an instance can learn of an open circuit some time later, and
   * a probe can be claimed late, but no write is decided on an old record, because writes are conditional.
   * Default: `true`.
   */
  readonly consistentRead?: boolean | undefined
}

/** A client, or how to make one. */
type ClientOptions =
  | {
      /** The client to use; it is not closed by {@link DynamoDBCircuitStorage.close}. */
      readonly client?: DynamoDBClient | undefined
      readonly clientConfig?: never
    }
  | {
      readonly client?: never
      /**
       * For the client that is made at the first operation. It wins over the defaults: two attempts, but one where the
       * table is throttled, and for the HTTP handler `connectionTimeout` 1 000 ms, `requestTimeout` 2 000 ms and
       * `throwOnRequestTimeout`.
       */
      readonly clientConfig?: DynamoDBClientConfig | undefined
    }

/** What a {@link DynamoDBCircuitStorage} is made of. */
export type DynamoDBCircuitStorageOptions = TableOptions & ClientOptions

/**
 * Keeps circuits in a DynamoDB table, one item per circuit.
 *
 * It needs `@aws-sdk/client-dynamodb` and `@aws-sdk/util-dynamodb`, which are loaded at the first operation, and the
 * permissions `dynamodb:GetItem`, `BatchGetItem` and `UpdateItem` on the table (`DeleteItem` and `BatchWriteItem` for
 * `clearState` and `batchClearState`). Making one does no I/O.
 *
 * Every method rejects with a {@link CircuitStorageError} whose `cause` is the SDK's error.
 *
 * @throws {ConfigurationError} naming every wrong option
 * @example
 * ```ts
 * const storage = new DynamoDBCircuitStorage({ tableName: 'app', partitionKeyName: 'pk', sortKeyName: 'sk' })
 * ```
 */
export class DynamoDBCircuitStorage implements ICircuitStorage {
  readonly fencesEpochs = true
  readonly #table: Table
  readonly #options: ClientOptions
  #connection: Promise<Connection> | undefined

  constructor(options: DynamoDBCircuitStorageOptions) {
    check(options)
    this.#table = tableOf(options)
    this.#options = options
  }

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    const { current } = await this.#read({ operation: 'getState', service: serviceKey }, this.#table.consistentRead)
    return current
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    const operation = 'batchGetState'
    const batch = new Batch<CircuitRecord>(operation)
    await sendInChunks(batch, serviceKeys, maxKeysPerBatchGet, (pending) =>
      this.#send({ operation }, 'BatchGetItem', async ({ client, sdk }) => {
        const request = { Keys: pending.map((key) => this.#keyOf(key)), ConsistentRead: this.#table.consistentRead }
        const { Responses, UnprocessedKeys } = await client.send(
          new sdk.BatchGetItemCommand({ RequestItems: { [this.#table.name]: request } }),
        )
        // By value and not by name: the table may have been given as an ARN.
        for (const item of Object.values(Responses ?? {}).flat()) {
          const service = this.#serviceOf(item)
          await batch.settle(service, async () => decodeItem(sdk, item, { operation, service }))
        }
        return Object.values(UnprocessedKeys ?? {}).flatMap(({ Keys }) =>
          (Keys as Item[]).map((key) => this.#serviceOf(key)),
        )
      }),
    )
    return batch.outcome()
  }

  async incrementFailures(
    serviceKey: string,
    version: ExpectedVersion,
    increment: FailureIncrement,
  ): Promise<WriteResult> {
    const context: KeyContext = { operation: 'incrementFailures', service: serviceKey }
    const attempt = async (expiry: 'renew' | 'keep') => {
      const update = incrementOf(this.#table, version, increment, expiry)
      const { applied, current, item } = await this.#update(context, update, withoutRetries)
      const sameVersion = current !== undefined && current.version === version
      // Sent before: the first one counted, and only its reply was lost.
      const counted = sameVersion && slots.some((slot) => item?.[slot]?.S === increment.id)
      return { result: { applied: applied || counted, current }, sameVersion }
    }
    const { result, sameVersion } = await attempt('renew')
    if (result.applied || !sameVersion || version === undefined) return result
    // What refused it is the time to live: the record has a later one, or none because an operator decided. It keeps it.
    return (await attempt('keep')).result
  }

  async compareAndSetState(
    serviceKey: string,
    version: ExpectedVersion,
    next: CircuitRecord,
    epoch?: string,
  ): Promise<WriteResult> {
    return this.#compareAndSet('compareAndSetState', { serviceKey, version, next, epoch })
  }

  /** Parallel `UpdateItem`s, 16 at a time: DynamoDB has no batch of conditional writes that fail one by one. */
  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const operation = 'batchSetState'
    const twice = writes.find((write, index) => writes.findIndex((w) => w.serviceKey === write.serviceKey) < index)
    if (twice) {
      throw new CircuitStorageError(
        `${operation} was given ${JSON.stringify(twice.serviceKey)} twice, and wrote nothing: give each circuit once.`,
        { operation, service: twice.serviceKey },
      )
    }
    const batch = new Batch<WriteResult>(operation)
    await concurrently(writes, maxParallelWrites, (write) =>
      batch.settle(write.serviceKey, () => this.#compareAndSet(operation, write)),
    )
    return batch.outcome()
  }

  /** Loads the AWS SDK and makes the client. */
  async prepare(): Promise<void> {
    await this.#open({ operation: 'getState' })
  }

  async clearState(serviceKey: string): Promise<void> {
    await this.#send({ operation: 'clearState', service: serviceKey }, 'DeleteItem', ({ client, sdk }) =>
      client.send(new sdk.DeleteItemCommand({ TableName: this.#table.name, Key: this.#keyOf(serviceKey) })),
    )
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    const operation = 'batchClearState'
    const batch = new Batch<true>(operation)
    await sendInChunks(batch, serviceKeys, maxWritesPerBatchWrite, (pending) =>
      this.#send({ operation }, 'BatchWriteItem', async ({ client, sdk }) => {
        const requests = pending.map((key) => ({ DeleteRequest: { Key: this.#keyOf(key) } }))
        const { UnprocessedItems } = await client.send(
          new sdk.BatchWriteItemCommand({ RequestItems: { [this.#table.name]: requests } }),
        )
        const left = Object.values(UnprocessedItems ?? {}).flat()
        const unprocessed = left.map(({ DeleteRequest }) => this.#serviceOf(DeleteRequest?.Key as Item))
        for (const key of pending) if (!unprocessed.includes(key)) await batch.settle(key, async () => true)
        return unprocessed
      }),
    )
    batch.outcome()
  }

  /** Closes the client that was made here, never one that was injected. A later operation makes a new one. */
  async close(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    const opened = await connection?.catch(() => undefined)
    if (!this.#options.client) opened?.client.destroy()
  }

  async #compareAndSet(operation: StorageOperation, write: CompareAndSet): Promise<WriteResult> {
    const { serviceKey: service, next } = write
    const update = replacementOf(this.#table, write)
    const { applied, current, attempts } = await this.#update({ operation, service }, update)
    // The SDK sent it again because a reply was lost, and it is our own first attempt that refused the second.
    const appliedBefore = attempts > 1 && next.version !== undefined && current?.version === next.version
    return { applied: applied || appliedBefore, current }
  }

  /** One conditional write. */
  async #update(
    context: KeyContext,
    { updateExpression, conditionExpression, names, values }: Update,
    through: (connection: Connection) => DynamoDBClient = ({ client }) => client,
  ): Promise<UpdateOutcome> {
    try {
      return await this.#send(context, 'UpdateItem', async (connection) => {
        const { sdk } = connection
        const { Attributes, $metadata } = await through(connection).send(
          new sdk.UpdateItemCommand({
            TableName: this.#table.name,
            Key: this.#keyOf(context.service),
            UpdateExpression: updateExpression,
            ConditionExpression: conditionExpression,
            ExpressionAttributeNames: names,
            ExpressionAttributeValues: sdk.marshall(values, { removeUndefinedValues: true }),
            ReturnValues: 'ALL_NEW',
            ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
          }),
        )
        return { applied: true, ...storedAs(sdk, Attributes, context), attempts: $metadata?.attempts ?? 1 }
      })
    } catch (error) {
      const cause = (error as Error).cause as DynamoDB.ConditionalCheckFailedException | { name?: unknown } | undefined
      if (cause?.name === 'ValidationException') await this.#refuseDamaged(context, cause)
      if (cause?.name !== 'ConditionalCheckFailedException') throw error
      const { Item, $metadata } = cause as DynamoDB.ConditionalCheckFailedException
      // Without an item there is none, or the service does not return it (dynalite).
      const stored = Item ? storedAs((await this.#open(context)).sdk, Item, context) : await this.#read(context, true)
      return { applied: false, ...stored, attempts: $metadata?.attempts ?? 1 }
    }
  }

  /** An attribute of the wrong type, like a count that is a string, makes an update fail as if it were malformed. */
  async #refuseDamaged(context: KeyContext, cause: unknown): Promise<void> {
    try {
      await this.#read(context, true)
    } catch (error) {
      const { corrupt, message } = error as CircuitStorageError
      if (corrupt) throw new CircuitStorageError(message, { ...context, corrupt, cause })
    }
  }

  #read(context: KeyContext, consistent: boolean): Promise<Stored> {
    return this.#send(context, 'GetItem', async ({ client, sdk }) => {
      const { Item } = await client.send(
        new sdk.GetItemCommand({
          TableName: this.#table.name,
          Key: this.#keyOf(context.service),
          ConsistentRead: consistent,
        }),
      )
      return storedAs(sdk, Item, context)
    })
  }

  /** Does one request; whatever goes wrong becomes a {@link CircuitStorageError} that says what to do. */
  async #send<T>(context: Context, action: Action, send: (connection: Connection) => Promise<T>): Promise<T> {
    try {
      return await send(await this.#open(context))
    } catch (cause) {
      if (cause instanceof CircuitStorageError) throw cause
      const subject = context.service === undefined ? '' : ` of ${JSON.stringify(context.service)}`
      const message = `${context.operation}${subject} failed: ${adviceOn(cause, action, this.#table)}`
      throw new CircuitStorageError(message, { ...context, kind: kindOf(cause), cause })
    }
  }

  /** The SDK and the client, loaded and made at the first operation; a failure is not remembered. */
  #open(context: Context): Promise<Connection> {
    if (!this.#connection) {
      const connection = connect(this.#options, context)
      this.#connection = connection
      connection.catch(() => {
        if (this.#connection === connection) this.#connection = undefined
      })
    }
    return this.#connection
  }

  #keyOf(serviceKey: string): Item {
    const { partitionKeyName, sortKeyName, sortKeyValue } = this.#table
    const key: Item = { [partitionKeyName]: { S: `${partitionKeyPrefix}${serviceKey}` } }
    if (sortKeyName !== null) key[sortKeyName] = { S: sortKeyValue }
    return key
  }

  #serviceOf(item: Item): string {
    return (item[this.#table.partitionKeyName] as AttributeValue.SMember).S.slice(partitionKeyPrefix.length)
  }
}

type Sdk = typeof DynamoDB & Pick<typeof Marshalling, 'marshall' | 'unmarshall'>
interface Connection {
  readonly sdk: Sdk
  readonly client: DynamoDBClient
}

type Item = Record<string, AttributeValue>
type Action = 'GetItem' | 'BatchGetItem' | 'UpdateItem' | 'DeleteItem' | 'BatchWriteItem'

/** What an error is to be attributed to. */
interface Context {
  readonly operation: StorageOperation
  readonly service?: string
}

interface KeyContext extends Context {
  readonly service: string
}

/** {@link TableOptions} with the defaults filled in. */
interface Table {
  readonly name: string
  readonly partitionKeyName: string
  readonly sortKeyName: string | null
  readonly sortKeyValue: string
  readonly ttlAttributeName: string
  readonly consistentRead: boolean
}

/** The variable part of an `UpdateItem`. */
interface Update {
  readonly updateExpression: string
  readonly conditionExpression: string
  readonly names: Record<string, string>
  readonly values: Record<string, unknown>
}

/** What is stored under a key: the item and the record that it holds. */
interface Stored {
  readonly item: Item | undefined
  readonly current: CircuitRecord | undefined
}

/** What is stored afterwards, whether the update was applied or not. */
interface UpdateOutcome extends Stored {
  readonly applied: boolean
  /** How many times the SDK sent it. */
  readonly attempts: number
}

const partitionKeyPrefix = 'CIRCUIT#'

/** The service's limit: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html */
const maxKeysPerBatchGet = 100
/** The service's limit: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html */
const maxWritesPerBatchWrite = 25
/** A third of the 50 sockets of the SDK's HTTP agent: an operator's batch leaves room for the function's own calls. */
const maxParallelWrites = 16
const maxBatchAttempts = 4
/** Before the second attempt of a batch, in milliseconds; it doubles with each further one. */
const firstPause = 25

/** The ids of the latest increments, the last one first: as many as the Redis adapter remembers. */
const slots: readonly string[] = Array.from({ length: 16 }, (_, index) => `inc${index}`)
const recordFields = Object.keys(emptyRecord('', 0)) as readonly (keyof CircuitRecord)[]

/**
 * Replaces the record: every field of `next` is set, every field that it lacks is removed, and so are the ids of
 * increments, which the old version fenced. Attributes that are not ours stay.
 */
function replacementOf(table: Table, { version, next, epoch }: CompareAndSet): Update {
  const { name, value, names, values } = placeholders()
  const expiry = expiryOf(next)

  const present = recordFields.filter((field) => next[field] !== undefined)
  const absent = recordFields.filter((field) => next[field] === undefined)

  const set = present.map((field) => `${name(field)} = ${value(field, next[field])}`)
  const remove = [...absent, ...slots].map((field) => name(field))
  if (expiry === undefined) remove.push(name('ttl', table.ttlAttributeName))
  else set.push(`${name('ttl', table.ttlAttributeName)} = ${value('ttl', epochSeconds(expiry))}`)

  return {
    updateExpression: `SET ${set.join(', ')} REMOVE ${remove.join(', ')}`,
    conditionExpression: storedIs(version, epoch, table, { name, value }),
    names,
    values,
  }
}

/**
 * Adds to the count of a record, or creates it. It leaves the version alone, so that any number of increments can
 * follow one another; what makes a resent one count once are the ids of the latest ones.
 *
 * @param expiry `renew` moves the time to live forward, and refuses where that would move it back or set one that was
 *   left out on purpose; `keep` leaves it as it is
 */
function incrementOf(
  table: Table,
  version: ExpectedVersion,
  { count, at, id, epoch }: FailureIncrement,
  expiry: 'renew' | 'keep',
): Update {
  const { name, value, names, values } = placeholders()
  const ids = slots.map((slot) => name(slot))

  const add = [`${name('failureCount')} ${value('count', count)}`]
  const set = [`${name('lastFailureAt')} = ${value('at', at)}`, `${name('updatedAt')} = ${value('at', at)}`]
  // Every id moves on by one, and the oldest falls out. The right-hand sides are the values before the update.
  for (const [index, slot] of ids.entries()) {
    const before = ids[index - 1]
    set.push(`${slot} = ${before === undefined ? value('id', id) : `if_not_exists(${before}, ${value('none', '')})`}`)
  }
  const conditions = [
    storedIs(version, epoch, table, { name, value }),
    // * This increment was not counted before. What is absent differs from everything.
    ids.map((slot) => `${slot} <> ${value('id', id)}`).join(' AND '),
  ]

  const created = emptyRecord(id, at)
  // A record that was replaced exists and is complete; without a version it may have to be created.
  if (version === undefined) {
    const setAbove: readonly (keyof CircuitRecord)[] = ['failureCount', 'lastFailureAt', 'updatedAt']
    for (const field of recordFields) {
      if (created[field] === undefined || setAbove.includes(field)) continue
      set.push(`${name(field)} = if_not_exists(${name(field)}, ${value(field, created[field])})`)
    }
  }
  if (expiry === 'renew') {
    const ttl = name('ttl', table.ttlAttributeName)
    const renewed = value('ttl', epochSeconds(expiryOf(created) as number))
    set.push(`${ttl} = ${renewed}`)
    // * The time to live does not shrink. Without a version there is nothing that could reach further.
    if (version !== undefined) conditions.push(`${ttl} <= ${renewed}`)
  }

  return {
    updateExpression: `SET ${set.join(', ')} ADD ${add.join(', ')}`,
    conditionExpression: conditions.join(' AND '),
    names,
    values,
  }
}

/** The condition of both primitives. */
function storedIs(
  version: ExpectedVersion,
  epoch: string | undefined,
  table: Table,
  { name, value }: Pick<Placeholders, 'name' | 'value'>,
): string {
  const hasVersion = storedVersionIs(version, table, { name, value })
  // * It is the record that the writer has seen. Where there is none, this does not hold either.
  return epoch === undefined ? hasVersion : `${hasVersion} AND ${name('epoch')} = ${value('expectedEpoch', epoch)}`
}

function storedVersionIs(
  version: ExpectedVersion,
  table: Table,
  { name, value }: Pick<Placeholders, 'name' | 'value'>,
): string {
  if (version !== undefined) return `${name('version')} = ${value('expected', version)}`
  // * The record was never replaced.
  const noVersion = `attribute_not_exists(${name('version')})`
  // * There is none, or it is one of ours: what is no circuit record is never overwritten.
  const noItem = `attribute_not_exists(${name('pk', table.partitionKeyName)})`
  const ours = `${name('schema')} = ${value('schema', 1)}`
  return `${noVersion} AND (${noItem} OR ${ours})`
}

interface Placeholders {
  /** Refers to an attribute, whose name may be a reserved word: `#alias`. */
  name(alias: string, attribute?: string): string
  /** Refers to a value: `:alias`. */
  value(alias: string, value: unknown): string
  readonly names: Record<string, string>
  readonly values: Record<string, unknown>
}

/** Collects what the parts of an expression refer to. */
function placeholders(): Placeholders {
  const names: Record<string, string> = {}
  const values: Record<string, unknown> = {}
  return {
    name: (alias, attribute = alias) => {
      names[`#${alias}`] = attribute
      return `#${alias}`
    },
    value: (alias, value) => {
      values[`:${alias}`] = value
      return `:${alias}`
    },
    names,
    values,
  }
}

function epochSeconds(instant: number): number {
  return Math.ceil(instant / 1000)
}

function storedAs(sdk: Sdk, item: Item | undefined, context: KeyContext): Stored {
  return { item, current: item && decodeItem(sdk, item, context) }
}

/** Our attributes only: what else is in the item may be of types that JavaScript cannot hold. */
function decodeItem({ unmarshall }: Sdk, item: Item, { operation, service }: KeyContext): CircuitRecord {
  const ours: Item = {}
  for (const field of recordFields) if (item[field]) ours[field] = item[field]
  let raw: unknown
  try {
    raw = unmarshall(ours)
  } catch (cause) {
    throw new CircuitStorageError(
      `The record stored for ${JSON.stringify(service)} is damaged: it cannot be decoded. It is left as it is and ` +
        'this instance decides alone; reset() repairs it.',
      { operation, service, corrupt: true, cause },
    )
  }
  return parseCircuitRecord(service, raw, operation)
}

/** Collects the outcomes of a batch by service key. */
class Batch<T> {
  readonly operation: StorageOperation
  readonly #results = new Map<string, T>()
  readonly #errors = new Map<string, CircuitStorageError>()

  constructor(operation: StorageOperation) {
    this.operation = operation
  }

  async settle(service: string, outcome: () => Promise<T>): Promise<void> {
    try {
      this.#results.set(service, await outcome())
    } catch (error) {
      const { message, corrupt, kind, cause } = error as CircuitStorageError
      const details = { operation: this.operation, service, corrupt, kind }
      this.#errors.set(service, new CircuitStorageError(message, cause === undefined ? details : { ...details, cause }))
    }
  }

  /** The results, if nothing failed. */
  outcome(): Map<string, T> {
    if (this.#errors.size === 0) return this.#results
    throw failedBatch(this.operation, this.#results, this.#errors)
  }
}

/**
 * Sends the distinct keys in chunks, all at once, and what a chunk left unprocessed again after a pause. What fails is
 * settled here, what succeeds by `send`.
 *
 * @param send sends one chunk and returns the keys that were not processed
 */
async function sendInChunks<T>(
  batch: Batch<T>,
  serviceKeys: readonly string[],
  size: number,
  send: (pending: readonly string[]) => Promise<readonly string[]>,
): Promise<void> {
  const keys = [...new Set(serviceKeys)]
  const chunks = Array.from({ length: Math.ceil(keys.length / size) }, (_, i) => keys.slice(i * size, (i + 1) * size))
  await Promise.all(
    chunks.map(async (chunk) => {
      let pending: readonly string[] = chunk
      try {
        for (let attempt = 1; pending.length > 0; attempt++) {
          if (attempt > maxBatchAttempts) throw unprocessed(batch.operation)
          if (attempt > 1) await pauseBefore(attempt)
          pending = await send(pending)
        }
      } catch (error) {
        for (const service of pending) await batch.settle(service, () => Promise.reject(error))
      }
    }),
  )
}

function unprocessed(operation: StorageOperation): CircuitStorageError {
  return new CircuitStorageError(
    `${operation} failed: the table is throttled and left circuits unprocessed ${maxBatchAttempts} times. Give it more ` +
      'capacity, or make it on-demand.',
    { operation, kind: 'throttled' },
  )
}

async function concurrently<T>(inputs: readonly T[], limit: number, run: (input: T) => Promise<void>): Promise<void> {
  const queue = inputs.values()
  const worker = async () => {
    for (const input of queue) await run(input)
  }
  await Promise.all(Array.from({ length: Math.min(limit, inputs.length) }, worker))
}

/** Exponential, with half of it random, so that instances that were throttled together do not come back together. */
function pauseBefore(attempt: number): Promise<void> {
  const longest = firstPause * 2 ** (attempt - 1)
  return new Promise((resolve) => setTimeout(resolve, (longest * (1 + Math.random())) / 2))
}

async function connect({ client, clientConfig }: ClientOptions, context: Context): Promise<Connection> {
  const sdk = await loadSdk(context)
  return { sdk, client: client ?? new sdk.DynamoDBClient(withDefaults(clientConfig)) }
}

/** Imported inside `try`, so that bundlers only warn of a package that is not installed. */
async function loadSdk(context: Context): Promise<Sdk> {
  let name = '@aws-sdk/client-dynamodb'
  try {
    const commands = await import('@aws-sdk/client-dynamodb')
    name = '@aws-sdk/util-dynamodb'
    const { marshall, unmarshall } = await import('@aws-sdk/util-dynamodb')
    return { ...commands, marshall, unmarshall }
  } catch (cause) {
    throw new CircuitStorageError(
      `The DynamoDB storage could not load ${name}. Install it (npm install ${name}), or let your bundler include it.`,
      { ...context, kind: 'misconfigured', cause },
    )
  }
}

/** The name that every version of the SDK gives to the middleware that retries. */
const retryMiddleware = 'retryMiddleware'

/**
 * The same client, but each request is sent once: an increment that the SDK sent twice could count twice.
 *
 * It is the given object in all but its middleware stack, so that what the user attached to the client (tracing, test
 * doubles) works on. The retry middleware is not just removed but replaced by one that does nothing, because others,
 * like the one that signs, are placed relative to it.
 */
function withoutRetries({ client, sdk }: Connection): DynamoDBClient {
  const stack = client.middlewareStack?.clone()
  // What is no client of the SDK (a test double that only sends) does not retry.
  if (!stack) return client
  if (!stack.remove(retryMiddleware)) {
    // Shares the HTTP handler of the given client, so there is nothing of it to close.
    const { retryStrategy: _, ...config } = client.config as unknown as DynamoDBClientConfig
    return new sdk.DynamoDBClient({ ...config, maxAttempts: 1 })
  }
  stack.add((next) => next, {
    name: retryMiddleware,
    step: 'finalizeRequest',
    priority: 'high',
    tags: ['RETRY'],
  })
  return Object.create(client, {
    middlewareStack: { value: stack },
    // Where the client caches resolved handlers (cacheMiddleware), those that retry must not be found.
    handlers: { value: undefined, writable: true, configurable: true },
  })
}

function withDefaults(config: DynamoDBClientConfig | undefined): DynamoDBClientConfig {
  const requestHandler = config?.requestHandler
  const timeouts = { connectionTimeout: 1_000, requestTimeout: 2_000, throwOnRequestTimeout: true }
  // A handler, or a function that provides its options, is taken as it is; plain options keep our timeouts.
  const isPlain = requestHandler === undefined || (typeof requestHandler === 'object' && !('handle' in requestHandler))
  const { maxAttempts, retryMode, retryStrategy } = config ?? {}
  const leavesRetriesToUs = maxAttempts === undefined && retryMode === undefined && retryStrategy === undefined
  return {
    ...(leavesRetriesToUs ? { maxAttempts: 2, retryStrategy: oneRetry } : { maxAttempts: 2 }),
    ...config,
    requestHandler: isPlain ? { ...timeouts, ...requestHandler } : requestHandler,
  }
}

/**
 * Another attempt at once where a connection broke or the service failed, and none where a table is throttled: the SDK
 * would wait for longer than anybody waits for the store, and send one more request to a table that has too many.
 */
const oneRetry = {
  mode: 'standard',
  acquireInitialRetryToken: async () => retryToken(0),
  refreshRetryTokenForRetry: async (token: RetryToken, { errorType }: { readonly errorType: string }) => {
    const isWorthIt = errorType === 'TRANSIENT' || errorType === 'SERVER_ERROR'
    if (!isWorthIt || token.getRetryCount() > 0) throw new Error('There is no other attempt.')
    return retryToken(1)
  },
  recordSuccess: () => {},
} as unknown as NonNullable<DynamoDBClientConfig['retryStrategy']>

interface RetryToken {
  getRetryCount(): number
  /** Milliseconds. */
  getRetryDelay(): number
}

function retryToken(retries: number): RetryToken {
  return { getRetryCount: () => retries, getRetryDelay: () => 0 }
}

const throttling: ReadonlySet<string> = new Set([
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'ThrottlingException',
])

const wrongCredentials: ReadonlySet<string> = new Set([
  'CredentialsProviderError',
  'ExpiredTokenException',
  'IncompleteSignatureException',
  'InvalidSignatureException',
  'MissingAuthenticationTokenException',
  'UnrecognizedClientException',
])

/** What waiting does not help against. */
const misconfigured: ReadonlySet<string> = new Set([
  ...wrongCredentials,
  'AccessDeniedException',
  'ResourceNotFoundException',
])

function kindOf(error: unknown): StorageErrorKind {
  const { name, $metadata } = error as Partial<DynamoDB.DynamoDBServiceException>
  if (throttling.has(String(name)) || $metadata?.httpStatusCode === 429) return 'throttled'
  return misconfigured.has(String(name)) || isAboutKeys(error) ? 'misconfigured' : 'unavailable'
}

/** Whether the table has another key schema than it was said to have, or an index one that our attributes do not fit. */
function isAboutKeys(error: unknown): boolean {
  const { name, message } = error as Partial<Error>
  return name === 'ValidationException' && /\bkeys?\b/i.test(String(message))
}

/**
 * What happened and what to do about it. The service's own words are left to `cause`, except where they are about the
 * request: those about signatures can repeat the session token.
 */
function adviceOn(error: unknown, action: Action, table: Table): string {
  const { name, message, code, $fault, $metadata } = error as Partial<DynamoDB.DynamoDBServiceException> & {
    code?: string
  }
  const tableName = JSON.stringify(table.name)
  if (name === 'ResourceNotFoundException') {
    return `the table ${tableName} does not exist in the client's account and region. Create it, or correct tableName or the region.`
  }
  if (name === 'AccessDeniedException') {
    return `this function's role may not do dynamodb:${action} on the table ${tableName}. Allow it in the role's policy.`
  }
  if (isAboutKeys(error) && /index key/i.test(String(message))) {
    return (
      `an index of the table ${tableName} has a key with the name of an attribute of a circuit's item, but of another type. ` +
      `Use another table for the circuits, or name that key otherwise. DynamoDB: ${message}`
    )
  }
  if (isAboutKeys(error)) {
    const sortKey = table.sortKeyName === null ? 'no sort key' : `the sort key ${JSON.stringify(table.sortKeyName)}`
    return (
      `the key schema of the table ${tableName} does not match partitionKeyName/sortKeyName, which say that it has the ` +
      `partition key ${JSON.stringify(table.partitionKeyName)} and ${sortKey}, strings. DynamoDB: ${message}`
    )
  }
  if (name === 'ValidationException') return `DynamoDB refused the ${action} on the table ${tableName}: ${message}`
  if (throttling.has(String(name))) {
    return `the table ${tableName} is throttled (${name}). Give it more capacity, or make it on-demand.`
  }
  if (wrongCredentials.has(String(name))) {
    return `the credentials of the client are missing or not accepted (${name}). See the cause.`
  }
  if ($fault) return `DynamoDB answered the ${action} with ${name} (HTTP ${$metadata?.httpStatusCode ?? 'unknown'}).`
  return `the ${action} did not succeed: ${name ?? 'Error'}: ${message || code || 'no message'}`
}

function tableOf(options: TableOptions): Table {
  return {
    name: options.tableName,
    partitionKeyName: options.partitionKeyName ?? 'PK',
    sortKeyName: options.sortKeyName === undefined ? 'SK' : options.sortKeyName,
    sortKeyValue: options.sortKeyValue ?? 'STATE',
    ttlAttributeName: options.ttlAttributeName ?? 'ttl',
    consistentRead: options.consistentRead ?? true,
  }
}

const optionNames = [
  'tableName',
  'partitionKeyName',
  'sortKeyName',
  'sortKeyValue',
  'ttlAttributeName',
  'consistentRead',
  'client',
  'clientConfig',
] as const

/** The names of the attributes that the adapter itself writes. */
const ownAttributes: ReadonlySet<unknown> = new Set([...recordFields, ...slots])

/** @throws {ConfigurationError} with every problem at once */
function check(options: unknown): asserts options is DynamoDBCircuitStorageOptions {
  const problems = new Problems()
  const mustBe = (allowed: string, setting: string, value: unknown) =>
    problems.mustBe(allowed, setting, 'option', value)
  if (!isObject(options)) {
    mustBe('an object with at least tableName', 'options', options)
    return problems.throwIfAny()
  }
  for (const name of Object.keys(options)) {
    if ((optionNames as readonly string[]).includes(name)) continue
    problems.add(
      name,
      'option',
      undefined,
      `${name} is not an option of the DynamoDB storage${hint(name, optionNames)}`,
    )
  }

  const { tableName, sortKeyValue, consistentRead, client, clientConfig } = options
  if (typeof tableName !== 'string' || !/^([\w.-]{3,255}|arn:[\w.:/-]{1,1020})$/.test(tableName)) {
    mustBe('the name of a table (3 to 255 letters, digits, "_", "-", ".") or its ARN', 'tableName', tableName)
  }
  const { partitionKeyName, sortKeyName, ttlAttributeName } = tableOf(options as unknown as TableOptions)
  const attributes = Object.entries({ partitionKeyName, sortKeyName, ttlAttributeName })
  for (const [setting, name] of attributes) {
    if (setting === 'sortKeyName' && name === null) continue
    if (!isText(name) || Buffer.byteLength(name) > 255 || ownAttributes.has(name)) {
      mustBe('the name of an attribute, at most 255 bytes, that no field of a circuit record has', setting, name)
    } else if (attributes.some(([other, otherName]) => other !== setting && otherName === name)) {
      mustBe('different from the names of the other two attributes', setting, name)
    }
  }
  if (sortKeyValue !== undefined && !(isText(sortKeyValue) && Buffer.byteLength(sortKeyValue) <= 1024)) {
    mustBe(`${textAllowed}, at most 1024 bytes`, 'sortKeyValue', sortKeyValue)
  }
  if (consistentRead !== undefined && typeof consistentRead !== 'boolean') {
    mustBe('true or false', 'consistentRead', consistentRead)
  }
  if (client !== undefined && !(isObject(client) && typeof client.send === 'function')) {
    mustBe('a DynamoDBClient of @aws-sdk/client-dynamodb', 'client', client)
  }
  if (clientConfig !== undefined && !isObject(clientConfig)) {
    mustBe('the configuration of a DynamoDBClient', 'clientConfig', clientConfig)
  }
  if (client !== undefined && clientConfig !== undefined) {
    const what = 'client and clientConfig exclude each other: a client is used as it is'
    problems.add('client', 'option', client, what)
  }
  problems.throwIfAny()
}
