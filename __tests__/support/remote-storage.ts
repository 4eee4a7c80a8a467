/**
 * A storage adapter made to be broken: a store outside of the adapter that several adapters share, that can be down,
 * damaged and forget; and an adapter in small steps, each of which a test replaces by a wrong one.
 */

import { CircuitStorageError, type StorageOperation } from '../../src/errors.ts'
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
  WriteResult,
} from '../../src/storage/contract.ts'
import { expiryOf, plus } from '../../src/storage/record.ts'

/** What is behind the adapters. */
export class RemoteStore {
  readonly records = new Map<string, CircuitRecord>()
  readonly additions = new Map<string, readonly string[]>()
  readonly expiries = new Map<string, number | undefined>()
  readonly damaged = new Set<string>()
  readonly journals = new Map<string, readonly JournalEntry[]>()
  down = false
}

/** Keeps the whole contract. */
export class RemoteStorage implements ICircuitStorage {
  readonly shared: boolean = true
  protected readonly store: RemoteStore

  constructor(store: RemoteStore) {
    this.store = store
  }

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    this.check('getState', serviceKey)
    return this.handOut(this.store.records.get(this.nameOf(serviceKey)))
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    const found = await this.each('batchGetState', serviceKeys, async (key) => {
      this.check('batchGetState', key)
      return this.handOut(this.store.records.get(this.nameOf(key)))
    })
    return new Map([...found].filter((entry): entry is [string, CircuitRecord] => entry[1] !== undefined))
  }

  async addOutcomes(key: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    this.check('addOutcomes', key)
    const current = this.store.records.get(this.nameOf(key))
    if (!current || !this.matches(current, version)) return this.refuse(current)
    if (this.isKnown(key, outcomes)) return { applied: true, current: this.handOut(current) }
    return this.add(key, current, outcomes)
  }

  async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    return this.replace('compareAndSetState', { serviceKey: key, version, next })
  }

  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    const byKey = new Map(writes.map((write) => [write.serviceKey, write]))
    return this.each('batchSetState', [...byKey.keys()], async (key) => {
      return this.replace('batchSetState', byKey.get(key) as CompareAndSet)
    })
  }

  async clearState(key: string): Promise<void> {
    this.check('clearState')
    this.forget(key)
  }

  async batchClearState(keys: readonly string[]): Promise<void> {
    this.check('batchClearState')
    for (const key of keys) this.forget(key)
  }

  async appendJournal(key: string, entry: JournalEntry): Promise<void> {
    this.check('appendJournal')
    this.keep(key, [{ ...entry }, ...this.entriesOf(key)].slice(0, 50))
  }

  async readJournal(key: string, { since = 0, limit = 50 }: JournalQuery = {}): Promise<JournalEntry[]> {
    this.check('readJournal')
    return this.entriesOf(key)
      .filter(({ at }) => at >= since)
      .slice(0, limit)
  }

  async listCircuits({ prefix = '', limit = 1_000, cursor = '' }: ListQuery = {}): Promise<CircuitPage> {
    this.check('listCircuits')
    const keys = [...this.store.journals.keys()].filter((key) => key.startsWith(prefix) && key > cursor).sort()
    const page = keys.slice(0, limit)
    return { keys: page, cursor: keys.length > limit ? page.at(-1) : undefined }
  }

  protected entriesOf(key: string): readonly JournalEntry[] {
    return this.store.journals.get(this.nameOf(key)) ?? []
  }

  protected keep(key: string, entries: readonly JournalEntry[]): void {
    this.store.journals.set(this.nameOf(key), entries)
  }

  protected async replace(operation: StorageOperation, write: CompareAndSet): Promise<WriteResult> {
    const { serviceKey: key, version, next } = write
    this.check(operation, key)
    const current = this.store.records.get(this.nameOf(key))
    if (!this.matches(current, version)) return this.refuse(current)
    this.store.additions.delete(key)
    return this.write(key, this.merged(current, next))
  }

  /** Adds outcomes to what was read. */
  protected add(key: string, current: CircuitRecord, outcomes: Outcomes): WriteResult {
    this.store.additions.set(key, [...(this.store.additions.get(key) ?? []).slice(-15), outcomes.id])
    const expiry = this.store.expiries.get(key)
    const result = this.write(key, this.plus(current, outcomes))
    this.store.expiries.set(key, expiry)
    return result
  }

  protected write(key: string, next: CircuitRecord): WriteResult {
    const record = this.takeIn(next)
    this.store.records.set(this.nameOf(key), record)
    this.store.expiries.set(key, this.expiryOf(record))
    return { applied: true, current: this.handOut(record) }
  }

  protected refuse(current: CircuitRecord | undefined): WriteResult {
    return { applied: false, current: this.handOut(current) }
  }

  protected forget(key: string): void {
    this.store.records.delete(this.nameOf(key))
    this.store.additions.delete(key)
    this.store.expiries.delete(key)
    this.store.damaged.delete(key)
  }

  protected matches(current: CircuitRecord | undefined, version: ExpectedVersion): boolean {
    return current?.version === version
  }

  protected isKnown(key: string, { id }: Outcomes): boolean {
    return this.store.additions.get(key)?.includes(id) ?? false
  }

  protected plus(record: CircuitRecord, outcomes: Outcomes): CircuitRecord {
    return plus(record, outcomes)
  }

  /** What a replace stores. */
  protected merged(_current: CircuitRecord | undefined, next: CircuitRecord): CircuitRecord {
    return next
  }

  protected takeIn(record: CircuitRecord): CircuitRecord {
    return structuredClone(record)
  }

  protected handOut(record: CircuitRecord | undefined): CircuitRecord | undefined {
    return record && structuredClone(record)
  }

  /** What a circuit is stored under. */
  protected nameOf(serviceKey: string): string {
    return serviceKey
  }

  protected expiryOf(record: CircuitRecord): number | undefined {
    return expiryOf(record)
  }

  protected check(operation: StorageOperation, service?: string): void {
    if (this.store.down) throw new CircuitStorageError('The store is down.', { operation, service })
    if (service !== undefined && this.store.damaged.has(service)) {
      throw new CircuitStorageError(`The record of ${service} is damaged.`, { operation, service, corrupt: true })
    }
  }

  protected async each<T>(
    operation: StorageOperation,
    keys: readonly string[],
    run: (key: string) => Promise<T>,
  ): Promise<Map<string, T>> {
    const results = new Map<string, T>()
    const errors = new Map<string, CircuitStorageError>()
    const settled = await Promise.allSettled([...new Set(keys)].map(async (key) => results.set(key, await run(key))))
    for (const [index, outcome] of settled.entries()) {
      if (outcome.status === 'rejected') errors.set([...new Set(keys)][index] as string, outcome.reason)
    }
    if (errors.size === 0) return results
    const found = [...results].filter(([, result]) => result !== undefined)
    throw new CircuitStorageError('Some failed.', { operation, results: new Map(found), errors })
  }
}
