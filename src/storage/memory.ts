/**
 * Circuits in the memory of one process: the default outside Lambda, for tests, and for services where each instance
 * should decide for itself.
 *
 * @module
 */

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
} from './contract.ts'
import { plus } from './record.ts'

/**
 * A store that lives and dies with its process. It forgets nothing that is open or forced, and of the rest the 10 000 circuits that
 * were written last stay: keys may be chosen by an attacker.
 *
 * Every method does its work before it returns its promise, so each is atomic. The records that it hands out are
 * frozen.
 *
 * @example
 * circuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() })
 */
export class MemoryCircuitStorage implements ICircuitStorage {
  readonly shared = false
  /** Circuits by service key. Written by each write that applies, and by `clearState` and `batchClearState`. */
  readonly #circuits = new Map<string, StoredCircuit>()
  /** The last 50 entries of each circuit, the latest first. Written by `appendJournal`. */
  readonly #journal = new Map<string, readonly JournalEntry[]>()

  async getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    return this.#circuits.get(serviceKey)?.record
  }

  async batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    const found = new Map<string, CircuitRecord>()
    for (const serviceKey of serviceKeys) {
      const circuit = this.#circuits.get(serviceKey)
      if (circuit) found.set(serviceKey, circuit.record)
    }
    return found
  }

  async addOutcomes(serviceKey: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    const { record: current, additions = [] } = this.#circuits.get(serviceKey) ?? {}
    if (current?.version !== version) return { applied: false, current }
    if (additions.includes(outcomes.id)) return { applied: true, current }
    return this.#write(serviceKey, plus(current, outcomes), [...additions.slice(1 - rememberedAdditions), outcomes.id])
  }

  async compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    return this.#replace({ serviceKey, version, next })
  }

  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    return new Map(writes.map((write) => [write.serviceKey, this.#replace(write)]))
  }

  async appendJournal(serviceKey: string, entry: JournalEntry): Promise<void> {
    this.#journal.set(serviceKey, [frozenCopy(entry), ...(this.#journal.get(serviceKey) ?? []).slice(0, 49)])
  }

  async readJournal(serviceKey: string, { since = 0, limit = 50 }: JournalQuery = {}): Promise<JournalEntry[]> {
    return (this.#journal.get(serviceKey) ?? []).filter(({ at }) => at >= since).slice(0, limit)
  }

  async listCircuits({ prefix = '' }: ListQuery = {}): Promise<CircuitPage> {
    const keys = [...this.#circuits.keys(), ...this.#journal.keys()]
    return { keys: [...new Set(keys)].filter((key) => key.startsWith(prefix)) }
  }

  async clearState(serviceKey: string): Promise<void> {
    this.#circuits.delete(serviceKey)
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    for (const serviceKey of serviceKeys) this.#circuits.delete(serviceKey)
  }

  #replace({ serviceKey, version, next }: CompareAndSet): WriteResult {
    const current = this.#circuits.get(serviceKey)?.record
    // The new version refuses any addition to the old one that is sent again: its id need not be kept.
    return current?.version === version ? this.#write(serviceKey, next, []) : { applied: false, current }
  }

  #write(serviceKey: string, next: CircuitRecord, additions: readonly string[]): WriteResult {
    const record = frozenCopy(next)
    // The one that was written last is the last in the map.
    this.#circuits.delete(serviceKey)
    this.#circuits.set(serviceKey, { record, additions })
    if (this.#circuits.size > maxCircuits) this.#forgetOne()
    return { applied: true, current: record }
  }

  /** Forgets the closed one among the oldest; those that are not go to the end, so that the next look finds others. */
  #forgetOne(): void {
    let left = looks
    for (const [serviceKey, circuit] of this.#circuits) {
      this.#circuits.delete(serviceKey)
      const { state, override } = circuit.record
      if (state === 'CLOSED' && override === undefined) return
      this.#circuits.set(serviceKey, circuit)
      if (--left === 0) return
    }
  }
}

/** So many circuits are kept, and beyond it those that are open or forced. */
const maxCircuits = 10_000
/** So many of the oldest are looked at. */
const looks = 16

interface StoredCircuit {
  readonly record: CircuitRecord
  /** The ids of the latest additions to this version. */
  readonly additions: readonly string[]
}

/** So many ids of additions are kept per circuit; a resend that comes after more additions than that counts again. */
const rememberedAdditions = 16

function frozenCopy<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  const copy = Array.isArray(value)
    ? value.map(frozenCopy)
    : Object.fromEntries(Object.entries(value).map(([field, inner]) => [field, frozenCopy(inner)]))
  return Object.freeze(copy) as T
}
