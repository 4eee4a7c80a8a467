/**
 * Circuits in the memory of one process: the default outside Lambda, for tests, and for services where each instance
 * should decide for itself.
 *
 * @module
 */

import type {
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  FailureIncrement,
  ICircuitStorage,
  WriteResult,
} from './contract.ts'
import { emptyRecord } from './record.ts'

/**
 * A store that lives and dies with its process. It forgets nothing.
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

  async incrementFailures(
    serviceKey: string,
    version: ExpectedVersion,
    { count, at, id }: FailureIncrement,
  ): Promise<WriteResult> {
    const { record: current, increments = [] } = this.#circuits.get(serviceKey) ?? {}
    const isExpected = version === undefined ? current?.version === current?.epoch : current?.version === version
    if (!isExpected) return { applied: false, current }
    if (increments.includes(id)) return { applied: true, current }
    const record = current ?? emptyRecord(id, at)
    const failureCount = record.failureCount + count
    return this.#write(serviceKey, { ...record, failureCount, lastFailureAt: at, updatedAt: at }, [
      ...increments.slice(1 - rememberedIncrements),
      id,
    ])
  }

  async compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    return this.#replace({ serviceKey, version, next })
  }

  async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    return new Map(writes.map((write) => [write.serviceKey, this.#replace(write)]))
  }

  async clearState(serviceKey: string): Promise<void> {
    this.#circuits.delete(serviceKey)
  }

  async batchClearState(serviceKeys: readonly string[]): Promise<void> {
    for (const serviceKey of serviceKeys) this.#circuits.delete(serviceKey)
  }

  #replace({ serviceKey, version, next }: CompareAndSet): WriteResult {
    const current = this.#circuits.get(serviceKey)?.record
    // The new version refuses any increment of the old one that is sent again: its id need not be kept.
    return current?.version === version ? this.#write(serviceKey, next, []) : { applied: false, current }
  }

  #write(serviceKey: string, next: CircuitRecord, increments: readonly string[]): WriteResult {
    const record = frozenCopy(next)
    this.#circuits.set(serviceKey, { record, increments })
    return { applied: true, current: record }
  }
}

interface StoredCircuit {
  readonly record: CircuitRecord
  /** The ids of the latest increments of this version. */
  readonly increments: readonly string[]
}

/** The number of increment ids that a circuit keeps. A resend that comes after more increments than that counts again. */
const rememberedIncrements = 16

function frozenCopy<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  const copy = Array.isArray(value)
    ? value.map(frozenCopy)
    : Object.fromEntries(Object.entries(value).map(([field, inner]) => [field, frozenCopy(inner)]))
  return Object.freeze(copy) as T
}
