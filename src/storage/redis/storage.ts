/**
 * The work of the Redis storage: one hash per circuit, one Lua script per primitive.
 *
 * The factory and the public class check the options. A bundle keeps code that both the handler and an adapter need in a
 * file of its own, and each such file costs every handler some bytes.
 *
 * @module
 */

import { CircuitStorageError, type StorageOperation } from '../../errors.ts'
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
import { attributed, BatchOutcome } from '../replies.ts'
import { type Connection, connect, type Delivery, deliver, hangUp } from './client.ts'
import type { Context } from './errors.ts'
import { decodeRecord, decodeWrite } from './hash.ts'
import type { ClientOptions, RedisCircuitStorageOptions } from './options.ts'
import { additionOf, replacementOf, type ScriptCall } from './scripts.ts'

/** Keeps circuits in Redis, by options that were checked. */
export class UncheckedRedisStorage implements ICircuitStorage {
  readonly #keyPrefix: string
  readonly #options: ClientOptions
  /** Set by the first operation; unset by {@link close}, and where connecting failed. */
  #connection: Promise<Connection> | undefined

  constructor(options: RedisCircuitStorageOptions) {
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
    const reads = Array.from(new Set(serviceKeys), (key) => this.#read(key))
    return this.#all('batchGetState', reads)
  }

  async addOutcomes(serviceKey: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    return this.#one('addOutcomes', this.#run(serviceKey, additionOf(version, outcomes)))
  }

  async compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    return this.#one('compareAndSetState', this.#run(serviceKey, replacementOf({ serviceKey, version, next })))
  }

  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const operation = 'batchSetState'
    refuseRepetitions(operation, writes)
    return this.#all(
      operation,
      writes.map((write) => this.#run(write.serviceKey, replacementOf(write))),
    )
  }

  async clearState(serviceKey: string): Promise<void> {
    await this.#one('clearState', this.#delete(serviceKey))
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    const deletions = Array.from(new Set(serviceKeys), (key) => this.#delete(key))
    await this.#all('batchClearState', deletions)
  }

  // Like everything about the journal, this is in a file that is loaded when it is first used.
  async appendJournal(service: string, entry: JournalEntry): Promise<void> {
    const { appending } = await import('./journal.ts')
    await this.#one('appendJournal', { service, ...appending(this.#keyOf(service), entry), decode: () => true })
  }

  async readJournal(service: string, query: JournalQuery = {}): Promise<JournalEntry[]> {
    const { entriesIn, suffix } = await import('./journal.ts')
    const command = ['hgetall', this.#keyOf(service) + suffix] as const
    return this.#one('readJournal', { service, command, decode: (reply) => entriesIn(reply, query) })
  }

  async listCircuits(query: ListQuery = {}): Promise<CircuitPage> {
    const operation = 'listCircuits'
    try {
      const { listKeys } = await import('./journal.ts')
      return await listKeys(await this.#open(operation), this.#keyPrefix, query)
    } catch (reason) {
      throw await errorOf(reason, { operation, service: query.prefix ?? '' })
    }
  }

  // What `check` asks beyond the other methods is loaded when it is first used, and imports nothing of this file.
  async inspect(serviceKeys: readonly string[]): Promise<StorageInspection> {
    const [{ inspectServer }, { commandError }] = await Promise.all([import('./inspect.ts'), import('./errors.ts')])
    const connection = await this.#open('getState')
    const [service = ''] = serviceKeys
    let lastError: Error | undefined
    return inspectServer({
      keyPrefix: this.#keyPrefix,
      key: this.#keyOf(service),
      send: async (commands) => {
        const replies = await deliver(
          connection,
          commands.map((command) => ({ command })),
        )
        lastError = await connection.diagnose?.(replies)
        return replies
      },
      scriptOf: additionOf,
      errorOf: (reason) => commandError(reason, { operation: 'compareAndSetState', service }, lastError),
    })
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

  #delete(service: string): Request<true> {
    return { service, command: ['del', this.#keyOf(service)], decode: () => true }
  }

  #run(service: string, { script, args }: ScriptCall): Request<WriteResult> {
    const command = ['evalsha', script.sha, '1', this.#keyOf(service), ...args] as const
    return { service, command, script, decode: decodeWrite }
  }

  #keyOf(serviceKey: string): string {
    return `${this.#keyPrefix}${serviceKey}`
  }

  async #one<T>(operation: StorageOperation, request: Request<T>): Promise<T> {
    const [outcome] = await this.#send(operation, [request])
    if (outcome?.error) throw outcome.error
    return outcome?.value as T
  }

  /** Sends a batch. A circuit for which nothing is stored has no result. */
  async #all<T>(operation: StorageOperation, requests: readonly Request<T>[]): Promise<Map<string, NonNullable<T>>> {
    const batch = new BatchOutcome<NonNullable<T>>(operation, requests.length)
    for (const { service, value, error } of await this.#send(operation, requests)) {
      if (error) batch.failed(service, error)
      else if (value !== undefined && value !== null) batch.succeeded(service, value)
    }
    return batch.results()
  }

  /** Sends the requests together. Never rejects: each has its outcome. */
  async #send<T>(operation: StorageOperation, requests: readonly Request<T>[]): Promise<Outcome<T>[]> {
    if (requests.length === 0) return []
    let lastError: Error | undefined
    let replies: PromiseSettledResult<unknown>[]
    try {
      const connection = await this.#open(operation)
      replies = await deliver(connection, requests)
      lastError = await connection.diagnose?.(replies)
    } catch (reason) {
      replies = requests.map(() => ({ status: 'rejected', reason }))
    }
    return Promise.all(
      requests.map(async ({ service, decode }, index) => {
        const context: Context = { operation, service }
        const reply = replies[index] as PromiseSettledResult<unknown>
        try {
          if (reply.status === 'rejected') throw reply.reason
          return { service, value: decode(reply.value, context) }
        } catch (reason) {
          return { service, error: await errorOf(reason, context, lastError) }
        }
      }),
    )
  }

  /** Makes the client at the first operation. After a failure the next operation tries again. */
  async #open(operation: StorageOperation): Promise<Connection> {
    if (!this.#connection) {
      const connection = connect(this.#options, operation)
      this.#connection = connection
      connection.catch(() => {
        if (this.#connection === connection) this.#connection = undefined
      })
    }
    const opened = await this.#connection
    await opened.refresh?.()
    // The client has given up reconnecting. This operation connects it again.
    if (opened.own?.status === 'end') opened.own.connect().catch(() => {})
    return opened
  }
}

/** The error of a command that failed. All about it is loaded with the first one. */
async function errorOf(reason: unknown, context: Context, lastError?: Error): Promise<CircuitStorageError> {
  if (reason instanceof CircuitStorageError) return attributed(reason, context.operation, context.service)
  const { commandError } = await import('./errors.ts')
  return commandError(reason, context, lastError)
}

/** One command about one circuit. */
interface Request<T> extends Delivery {
  readonly service: string
  readonly decode: (reply: unknown, context: Context) => T
}

interface Outcome<T> {
  readonly service: string
  readonly value?: T
  readonly error?: CircuitStorageError
}
