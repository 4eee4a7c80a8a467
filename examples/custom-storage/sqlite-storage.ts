/**
 * Circuits in a SQLite database file, shared by every process that opens it: the worked example of
 * `docs/use/custom-storage.md`. It uses nothing but what the package exports and `node:sqlite` (Node.js 22.16 or later).
 *
 * The whole job of an adapter is in `addOutcomes` and `compareAndSetState`: compare one token, write, and say what
 * is stored now, as one step that nobody can come between. Here a transaction makes it one step; elsewhere it is a
 * conditional update or a script on the server.
 *
 * @module
 */

import type { DatabaseSync } from 'node:sqlite'
import {
  type CircuitPage,
  type CircuitRecord,
  CircuitStorageError,
  type CompareAndSet,
  ConfigurationError,
  type ExpectedVersion,
  expiryOf,
  type ICircuitStorage,
  isCircuitStorageError,
  type JournalEntry,
  type JournalQuery,
  type ListQuery,
  type Outcomes,
  type StorageOperation,
  type WriteResult,
} from '../../src/index.ts'

/** Options of a {@link SqliteCircuitStorage}. */
export interface SqliteCircuitStorageOptions {
  /** The database file; it is created if there is none. */
  readonly path: string
  /**
   * How long a write waits for those of other processes, in milliseconds. `node:sqlite` blocks the whole process
   * meanwhile, so keep it below the breaker's `storageTimeout`, whose timer cannot fire. Default: 250.
   */
  readonly busyTimeout?: number | undefined
}

/**
 * One row per circuit. The record is one JSON text, because nothing in the database looks into it. Beside it is what the
 * contract wants but the record does not hold: the ids of the latest additions, and when the row may be deleted.
 */
const schema = `
  CREATE TABLE IF NOT EXISTS circuits (
    service_key TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    additions TEXT NOT NULL,
    expires_at REAL
  ) STRICT, WITHOUT ROWID`

/** One row per entry. They go after 30 days, whenever a process starts. */
const journalSchema = `
  CREATE TABLE IF NOT EXISTS journal (
    service_key TEXT,
    at REAL,
    id TEXT,
    entry TEXT NOT NULL,
    PRIMARY KEY (service_key, at, id)
  ) STRICT, WITHOUT ROWID`

/** The ids of so many additions are kept per circuit. A copy that comes after as many others counts again. */
const rememberedAdditions = 16

/** Keeps circuits in a SQLite database file. Making one does no I/O. */
export class SqliteCircuitStorage implements ICircuitStorage {
  /** Other processes use the same file, so the breaker spreads its claims and reads again before it probes. */
  readonly shared = true
  readonly #path: string
  readonly #busyTimeout: number
  #database: DatabaseSync | undefined

  /** @throws {ConfigurationError} naming every wrong option: what can be refused here cannot fail in production. */
  constructor({ path, busyTimeout = 250 }: SqliteCircuitStorageOptions) {
    const problems = []
    const source = 'option'
    if (typeof path !== 'string' || path === '') {
      problems.push({ setting: 'path', source, value: path, message: 'path must be the name of a file' })
    }
    if (!Number.isSafeInteger(busyTimeout) || busyTimeout < 0) {
      const message = 'busyTimeout must be a whole number of milliseconds'
      problems.push({ setting: 'busyTimeout', source, value: busyTimeout, message })
    }
    if (problems.length > 0) throw new ConfigurationError(problems)
    this.#path = path
    this.#busyTimeout = busyTimeout
  }

  // -------------------------------------------------------------------------------------------------------- reading

  /** Loads the library and does not touch the file: this time does not count as the store's. */
  async prepare(): Promise<void> {
    await loadSqlite()
  }

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    const operation = 'getState'
    return this.#run(operation, serviceKey, (database) => read(database, operation, serviceKey)?.record)
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    return this.#batch('batchGetState', serviceKeys, (database, operation, serviceKey) => {
      return read(database, operation, serviceKey)?.record
    })
  }

  // -------------------------------------------------------------------------------------------------------- writing

  async addOutcomes(serviceKey: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    const operation = 'addOutcomes'
    return this.#transaction(operation, serviceKey, (database) => {
      const stored = read(database, operation, serviceKey)
      if (stored?.record.version !== version) return { applied: false, current: stored?.record }
      const { record, additions, expiresAt } = stored
      // Sent twice: it was counted the first time, so it is applied, and nothing is added.
      if (additions.includes(outcomes.id)) return { applied: true, current: record }
      // The version stays as it is: so any number of instances can report at once and none refuses another.
      const next = {
        ...record,
        failureCount: record.failureCount + outcomes.failures,
        successCount: record.successCount + outcomes.successes,
        startedCount: record.startedCount + outcomes.started,
        earlyCount: record.earlyCount + outcomes.early,
        reporterCount: record.reporterCount + outcomes.reporters,
        updatedAt: outcomes.at,
      }
      const latest = [outcomes.id, ...additions].slice(0, rememberedAdditions)
      // So does the time at which it may be deleted.
      return { applied: true, current: store(database, operation, serviceKey, next, latest, expiresAt) }
    })
  }

  async compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    const operation = 'compareAndSetState'
    return this.#transaction(operation, serviceKey, (database) => {
      return replace(database, operation, { serviceKey, version, next })
    })
  }

  /** All in one transaction, for speed alone: each write is applied or refused by itself. */
  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const byKey = new Map(writes.map((write) => [write.serviceKey, write]))
    return this.#batch('batchSetState', [...byKey.keys()], (database, operation, serviceKey) => {
      return replace(database, operation, byKey.get(serviceKey) as CompareAndSet)
    })
  }

  // -------------------------------------------------------------------------------- optional: journal and listing

  async appendJournal(serviceKey: string, entry: JournalEntry): Promise<void> {
    await this.#run('appendJournal', serviceKey, (database) => {
      database
        .prepare('INSERT OR IGNORE INTO journal VALUES (?, ?, ?, ?)')
        .run(serviceKey, entry.at, entry.id, JSON.stringify(entry))
    })
  }

  async readJournal(serviceKey: string, { since = 0, limit = 50 }: JournalQuery = {}): Promise<JournalEntry[]> {
    return this.#run('readJournal', serviceKey, (database) => {
      const rows = database
        .prepare('SELECT entry FROM journal WHERE service_key = ? AND at >= ? ORDER BY at DESC, id LIMIT ?')
        .all(serviceKey, since, limit)
      return rows.map(({ entry }) => JSON.parse(String(entry)) as JournalEntry)
    })
  }

  async listCircuits({ prefix = '', limit = 1_000, cursor = '' }: ListQuery = {}): Promise<CircuitPage> {
    return this.#run('listCircuits', undefined, (database) => {
      const rows = database
        .prepare(
          `SELECT service_key FROM (SELECT service_key FROM circuits UNION SELECT service_key FROM journal)
           WHERE service_key > ? AND substr(service_key, 1, length(?)) = ? ORDER BY service_key LIMIT ?`,
        )
        .all(cursor, prefix, prefix, limit)
      const keys = rows.map((row) => String(row['service_key']))
      const last = keys.at(-1)
      return last === undefined || keys.length < limit ? { keys } : { keys, cursor: last }
    })
  }

  // ------------------------------------------------------------------------------------------------------- clearing

  async clearState(serviceKey: string): Promise<void> {
    await this.#run('clearState', serviceKey, (database) => remove(database, serviceKey))
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    await this.#batch('batchClearState', serviceKeys, (database, _operation, serviceKey) => {
      remove(database, serviceKey)
    })
  }

  /** Closes the database that was opened here. A later operation opens it again. */
  async close(): Promise<void> {
    this.#database?.close()
    this.#database = undefined
  }

  // ----------------------------------------------------------------------------------- one step, and its one error

  /**
   * Runs an action on the database. Whatever goes wrong becomes a {@link CircuitStorageError} that names the operation,
   * with the original error as its cause: the breaker reports it and carries on without the store.
   */
  async #run<T>(
    operation: StorageOperation,
    service: string | undefined,
    action: (database: DatabaseSync) => T,
  ): Promise<T> {
    try {
      const { DatabaseSync } = await loadSqlite()
      // From here on nothing is awaited: no other operation of this process can come in between.
      this.#database ??= open(new DatabaseSync(this.#path), this.#busyTimeout)
      return action(this.#database)
    } catch (cause) {
      if (isCircuitStorageError(cause)) throw cause
      const message = `${operation} failed in the database ${JSON.stringify(this.#path)}: ${(cause as Error).message}`
      throw new CircuitStorageError(message, { operation, service, cause })
    }
  }

  /**
   * `IMMEDIATE` takes the only write lock before the first look. A transaction that looks first and asks for the lock
   * later can find that another process has written meanwhile, and then fails however long it is willing to wait.
   */
  #transaction<T>(
    operation: StorageOperation,
    service: string | undefined,
    action: (database: DatabaseSync) => T,
  ): Promise<T> {
    return this.#run(operation, service, (database) => {
      database.exec('BEGIN IMMEDIATE')
      try {
        const result = action(database)
        database.exec('COMMIT')
        return result
      } catch (error) {
        // Some errors have ended the transaction already.
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    })
  }

  /**
   * One result per service key; a key without one is left out. A damaged record fails alone: the others are done all the
   * same, and the error carries their `results` beside the `errors`.
   */
  async #batch<T>(
    operation: StorageOperation,
    serviceKeys: readonly string[],
    action: (database: DatabaseSync, operation: StorageOperation, serviceKey: string) => T | undefined,
  ): Promise<Map<string, T>> {
    const results = new Map<string, T>()
    const errors = new Map<string, CircuitStorageError>()
    const keys = new Set(serviceKeys)
    if (keys.size === 0) return results
    await this.#transaction(operation, undefined, (database) => {
      for (const serviceKey of keys) {
        try {
          const result = action(database, operation, serviceKey)
          if (result !== undefined) results.set(serviceKey, result)
        } catch (error) {
          // Anything but damage concerns the whole transaction.
          if (!isCircuitStorageError(error)) throw error
          errors.set(serviceKey, error)
        }
      }
    })
    // Only after the commit is it true that the others are stored.
    const [first] = errors.values()
    if (first === undefined) return results
    const message = `${operation} failed for ${errors.size} of ${keys.size} circuits: ${first.message}`
    throw new CircuitStorageError(message, { operation, results, errors, corrupt: true, cause: first })
  }
}

interface Stored {
  readonly record: CircuitRecord
  /** The ids of the latest additions since the last replace, the last one first. */
  readonly additions: readonly string[]
  /** From then on the row may be deleted; `undefined`: never. */
  readonly expiresAt: number | undefined
}

/** The row as it is now. Decoded anew each time, so that nobody can change it through a record that was handed out. */
function read(database: DatabaseSync, operation: StorageOperation, serviceKey: string): Stored | undefined {
  const row = database
    .prepare('SELECT record, additions, expires_at FROM circuits WHERE service_key = ?')
    .get(serviceKey)
  return row && decode(row, operation, serviceKey)
}

function replace(
  database: DatabaseSync,
  operation: StorageOperation,
  { serviceKey, version, next }: CompareAndSet,
): WriteResult {
  const current = read(database, operation, serviceKey)?.record
  if (current?.version !== version) return { applied: false, current }
  // The whole record, and no addition ids: one to the old version that is sent again is refused by the new version.
  return { applied: true, current: store(database, operation, serviceKey, next, [], expiryOf(next)) }
}

/** Writes, and returns what is stored then: not the record that was passed in, which is its owner's. */
function store(
  database: DatabaseSync,
  operation: StorageOperation,
  serviceKey: string,
  record: CircuitRecord,
  additions: readonly string[],
  expiresAt: number | undefined,
): CircuitRecord {
  const row = database
    .prepare('REPLACE INTO circuits VALUES (?, ?, ?, ?) RETURNING record, additions, expires_at')
    .get(serviceKey, JSON.stringify(record), JSON.stringify(additions), expiresAt ?? null)
  return decode(row ?? {}, operation, serviceKey).record
}

function remove(database: DatabaseSync, serviceKey: string): void {
  database.prepare('DELETE FROM circuits WHERE service_key = ?').run(serviceKey)
}

/**
 * Hands out the record as it is stored. The breaker checks every record, so only what the conditions above need is checked
 * here: JSON with a version. With `corrupt` the breaker knows that the store is well and this one circuit is not. It leaves
 * the record alone until somebody calls `reset`, which clears it first.
 */
function decode(row: Record<string, unknown>, operation: StorageOperation, service: string): Stored {
  try {
    const [record, additions] = [JSON.parse(String(row['record'])), JSON.parse(String(row['additions']))]
    if (typeof record.version !== 'string') throw new TypeError('it has no version')
    return { record, additions, expiresAt: (row['expires_at'] as number | null) ?? undefined }
  } catch (cause) {
    const message = `The record stored for ${JSON.stringify(service)} is damaged: ${(cause as Error).message}`
    throw new CircuitStorageError(message, { operation, service, corrupt: true, cause })
  }
}

function open(database: DatabaseSync, busyTimeout: number): DatabaseSync {
  try {
    // First, so that what follows waits for other processes too.
    database.exec(`PRAGMA busy_timeout = ${busyTimeout}`)
    // Readers do not wait for writers. After a power failure the last writes may be gone, which a circuit can bear.
    database.exec('PRAGMA journal_mode = WAL')
    database.exec('PRAGMA synchronous = NORMAL')
    database.exec(schema)
    database.exec(journalSchema)
    // Rows that are due go whenever a process starts; that is all the tidying up that a few circuits need.
    database.prepare('DELETE FROM circuits WHERE expires_at < ?').run(Date.now())
    database.prepare('DELETE FROM journal WHERE at < ?').run(Date.now() - 30 * 86_400_000)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** Node.js remembers it, and so does its failure. */
function loadSqlite(): Promise<typeof import('node:sqlite')> {
  return import('node:sqlite')
}
