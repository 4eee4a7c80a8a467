/**
 * The work of the DynamoDB storage: one item per circuit, one conditional `UpdateItem` per primitive.
 *
 * The factory and the public class check the options. A bundle keeps code that both the handler and an adapter need in a
 * file of its own, and each such file costs every handler some bytes.
 *
 * @module
 */

import type { AttributeValue, ConditionalCheckFailedException, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { CircuitStorageError, type JournalOperation, type StorageOperation } from '../../errors.ts'
import type {
  CircuitPage,
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  ICircuitStorage,
  JournalEntry,
  JournalQuery,
  ListQuery,
  Outcomes,
  StorageInspection,
  WriteResult,
} from '../contract.ts'
import { refuseRepetitions } from '../distinct-writes.ts'
import { parseCircuitRecord, recordFields } from '../record.ts'
import { BatchOutcome } from '../replies.ts'
import { concurrently, sendInChunks } from './chunks.ts'
import { type Connection, connect, type Sdk, withoutRetries } from './client.ts'
import { type Action, type Context, type KeyContext, requestError, undecodableError } from './errors.ts'
import { additionOf, replacementOf, slots, type Update } from './expressions.ts'
import type { ClientOptions, Table } from './options.ts'

/** Keeps circuits in a DynamoDB table, by options that were checked. */
export class UncheckedDynamoDBStorage implements ICircuitStorage {
  readonly #table: Table
  readonly #options: ClientOptions
  /** Set by the first operation; unset by {@link close}, and where connecting failed. */
  #connection: Promise<Connection> | undefined

  constructor(options: Table & ClientOptions) {
    this.#table = options
    this.#options = options
  }

  /** Loads the AWS SDK and makes the client. */
  async prepare(): Promise<void> {
    await this.#open({ operation: 'getState' })
  }

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    const { current } = await this.#read({ operation: 'getState', service: serviceKey }, this.#table.consistentRead)
    return current
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    const operation = 'batchGetState'
    const keys = [...new Set(serviceKeys)]
    const outcome = new BatchOutcome<CircuitRecord>(operation, keys.length)
    const send = (pending: readonly string[]) =>
      this.#send({ operation }, 'BatchGetItem', async ({ client, sdk }) => {
        const request = { Keys: pending.map((key) => this.#keyOf(key)), ConsistentRead: this.#table.consistentRead }
        const { Responses, UnprocessedKeys } = await client.send(
          new sdk.BatchGetItemCommand({ RequestItems: { [this.#table.tableName]: request } }),
        )
        // By value and not by name: the table may have been given as an ARN.
        for (const item of Object.values(Responses ?? {}).flat()) {
          const service = this.#serviceOf(item)
          try {
            outcome.succeeded(service, decodeItem(sdk, item, { operation, service }))
          } catch (error) {
            outcome.failed(service, error as CircuitStorageError)
          }
        }
        return Object.values(UnprocessedKeys ?? {}).flatMap(({ Keys }) =>
          (Keys as Item[]).map((key) => this.#serviceOf(key)),
        )
      })
    await sendInChunks(operation, keys, maxKeysPerBatchGet, send, outcome.failed.bind(outcome))
    return outcome.results()
  }

  async addOutcomes(serviceKey: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    const context: KeyContext = { operation: 'addOutcomes', service: serviceKey }
    const { applied, current, item } = await this.#update(context, additionOf(version, outcomes), withoutRetries)
    // Sent before: the first one counted, and only its reply was lost. A replace would have removed its id.
    const wasCounted = slots.some((slot) => item?.[slot]?.S === outcomes.id)
    return { applied: applied || wasCounted, current }
  }

  async compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    return this.#compareAndSet('compareAndSetState', { serviceKey, version, next })
  }

  /** Parallel `UpdateItem`s, 16 at a time: DynamoDB has no batch of conditional writes that fail one by one. */
  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const operation = 'batchSetState'
    const outcome = new BatchOutcome<WriteResult>(operation, writes.length)
    refuseRepetitions(operation, writes)
    await concurrently(writes, maxParallelWrites, async (write) => {
      try {
        outcome.succeeded(write.serviceKey, await this.#compareAndSet(operation, write))
      } catch (error) {
        outcome.failed(write.serviceKey, error as CircuitStorageError)
      }
    })
    return outcome.results()
  }

  async clearState(serviceKey: string): Promise<void> {
    await this.#send({ operation: 'clearState', service: serviceKey }, 'DeleteItem', ({ client, sdk }) =>
      client.send(new sdk.DeleteItemCommand({ TableName: this.#table.tableName, Key: this.#keyOf(serviceKey) })),
    )
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    const operation = 'batchClearState'
    const keys = [...new Set(serviceKeys)]
    const outcome = new BatchOutcome<true>(operation, keys.length)
    const send = (pending: readonly string[]) =>
      this.#send({ operation }, 'BatchWriteItem', async ({ client, sdk }) => {
        const requests = pending.map((key) => ({ DeleteRequest: { Key: this.#keyOf(key) } }))
        const { UnprocessedItems } = await client.send(
          new sdk.BatchWriteItemCommand({ RequestItems: { [this.#table.tableName]: requests } }),
        )
        const left = Object.values(UnprocessedItems ?? {}).flat()
        const unprocessed = left.map(({ DeleteRequest }) => this.#serviceOf(DeleteRequest?.Key as Item))
        for (const key of pending) if (!unprocessed.includes(key)) outcome.succeeded(key, true)
        return unprocessed
      })
    await sendInChunks(operation, keys, maxWritesPerBatchWrite, send, outcome.failed.bind(outcome))
    outcome.results()
  }

  // Like everything about the journal, this is in a file that is loaded when it is first used.
  async appendJournal(serviceKey: string, entry: JournalEntry): Promise<void> {
    await this.#withJournal('appendJournal', serviceKey, 'UpdateItem', ({ appendEvent }, connection) =>
      appendEvent(connection, this.#table, serviceKey, entry),
    )
  }

  async readJournal(serviceKey: string, query: JournalQuery = {}): Promise<JournalEntry[]> {
    const action = this.#table.sortKeyName === null ? 'GetItem' : 'Query'
    return this.#withJournal('readJournal', serviceKey, action, ({ readEvents }, connection) =>
      readEvents(connection, this.#table, serviceKey, query),
    )
  }

  async listCircuits(query: ListQuery = {}): Promise<CircuitPage> {
    const action = this.#table.sortKeyName === null ? 'Scan' : 'Query'
    return this.#withJournal('listCircuits', undefined, action, ({ listKeys }, connection) =>
      listKeys(connection, this.#table, query),
    )
  }

  #withJournal<T>(
    operation: JournalOperation,
    service: string | undefined,
    action: Action,
    send: (journal: typeof import('./journal.ts'), connection: Connection) => Promise<T>,
  ): Promise<T> {
    return this.#send({ operation, ...(service === undefined ? {} : { service }) }, action, async (connection) =>
      send(await import('./journal.ts'), connection),
    )
  }

  // What `check` asks beyond the other methods is loaded when it is first used, and imports nothing of this file.
  async inspect(serviceKeys: readonly string[]): Promise<StorageInspection> {
    const { inspectTable } = await import('./inspect.ts')
    const [key = ''] = serviceKeys
    return inspectTable(await this.#open({ operation: 'getState' }), this.#table, key, (each) => this.#keyOf(each))
  }

  /** Closes the client that was made here, never one that was injected. A later operation makes a new one. */
  async close(): Promise<void> {
    const connection = this.#connection
    this.#connection = undefined
    const opened = await connection?.catch(() => undefined)
    if (typeof this.#options.client !== 'object') opened?.client.destroy()
  }

  async #compareAndSet(operation: StorageOperation, write: CompareAndSet): Promise<WriteResult> {
    const { serviceKey: service, next } = write
    const update = replacementOf(this.#table, write)
    const { applied, current, attempts } = await this.#update({ operation, service }, update)
    // The SDK sent it again because a reply was lost, and it is our own first attempt that refused the second.
    const wasApplied = attempts > 1 && current?.version === next.version
    return { applied: applied || wasApplied, current }
  }

  /** Sends one conditional write. */
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
            TableName: this.#table.tableName,
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
      const cause = (error as Error).cause as ConditionalCheckFailedException | { name?: unknown } | undefined
      if (cause?.name === 'ValidationException') await this.#refuseDamaged(context, cause)
      if (cause?.name !== 'ConditionalCheckFailedException') throw error
      const { Item, $metadata } = cause as ConditionalCheckFailedException
      // The refusal has no item where nothing is stored, or where the service does not return it (dynalite).
      const stored = Item ? storedAs((await this.#open(context)).sdk, Item, context) : await this.#read(context, true)
      return { applied: false, ...stored, attempts: $metadata?.attempts ?? 1 }
    }
  }

  /** Rejects if the record is damaged: an attribute of the wrong type makes an update fail as if it were malformed. */
  async #refuseDamaged(context: KeyContext, cause: unknown): Promise<void> {
    try {
      const { current } = await this.#read(context, true)
      if (current !== undefined) parseCircuitRecord(context.service, current, context.operation)
    } catch (error) {
      const { corrupt, message } = error as CircuitStorageError
      if (corrupt) throw new CircuitStorageError(message, { ...context, corrupt, cause })
    }
  }

  #read(context: KeyContext, consistent: boolean): Promise<Stored> {
    return this.#send(context, 'GetItem', async ({ client, sdk }) => {
      const { Item } = await client.send(
        new sdk.GetItemCommand({
          TableName: this.#table.tableName,
          Key: this.#keyOf(context.service),
          ConsistentRead: consistent,
        }),
      )
      return storedAs(sdk, Item, context)
    })
  }

  /** Does one request. Every error becomes a {@link CircuitStorageError} that says what to do. */
  async #send<T>(context: Context, action: Action, send: (connection: Connection) => Promise<T>): Promise<T> {
    try {
      return await send(await this.#open(context))
    } catch (cause) {
      throw cause instanceof CircuitStorageError ? cause : requestError(cause, context, action, this.#table)
    }
  }

  /** Loads the SDK and makes the client at the first operation. After a failure the next operation tries again. */
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

type Item = Record<string, AttributeValue>

/** The item under a key, and the record that it holds, unchecked. */
interface Stored {
  readonly item: Item | undefined
  readonly current: CircuitRecord | undefined
}

/** The item after an update, whether it was applied or not. */
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

function storedAs(sdk: Sdk, item: Item | undefined, context: KeyContext): Stored {
  return { item, current: item && decodeItem(sdk, item, context) }
}

/** Decodes our attributes only. The others in the item may be of types that JavaScript cannot hold. */
function decodeItem({ unmarshall }: Sdk, item: Item, context: KeyContext): CircuitRecord {
  const ours: Item = {}
  for (const field of recordFields) if (item[field]) ours[field] = item[field]
  try {
    return unmarshall(ours) as CircuitRecord
  } catch (cause) {
    throw undecodableError(context, cause)
  }
}
