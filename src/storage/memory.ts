/**
 * Circuits in the memory of one process: the default outside Lambda, for tests, and for services where each instance
 * should decide for itself.
 *
 * @module
 */

import { ConfigurationError } from '../errors.ts'
import {
  type CircuitRecord,
  type CompareAndSet,
  type ExpectedVersion,
  emptyRecord,
  type FailureIncrement,
  type ICircuitStorage,
  type WriteResult,
} from './circuit-storage.ts'

/** What a {@link MemoryCircuitStorage} can be told. */
export interface MemoryCircuitStorageOptions {
  /** How many circuits are kept at most; default 1000. */
  readonly maxCircuits?: number | undefined
}

/**
 * A store that lives and dies with its process. Nothing in it expires; when it is full the least recently written
 * circuit that is closed and not overridden makes room, and any other only when there is no such circuit.
 *
 * Every method does its work before it returns its promise, so each is atomic. The records that it hands out are
 * frozen.
 *
 * @example
 * circuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() })
 */
export class MemoryCircuitStorage implements ICircuitStorage {
  readonly shared = false
  readonly fencesEpochs = true
  readonly #maxCircuits: number
  /** The least recently written circuit comes first. */
  readonly #circuits = new Map<string, StoredCircuit>()

  /** @throws {ConfigurationError} if `maxCircuits` is not a positive integer */
  constructor({ maxCircuits = 1000 }: MemoryCircuitStorageOptions = {}) {
    if (!Number.isSafeInteger(maxCircuits) || maxCircuits < 1) {
      const message = 'maxCircuits must be a positive integer.'
      throw new ConfigurationError([{ setting: 'maxCircuits', source: 'option', value: maxCircuits, message }])
    }
    this.#maxCircuits = maxCircuits
  }

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
    { count, at, id, epoch }: FailureIncrement,
  ): Promise<WriteResult> {
    const { record: current, increments = [] } = this.#circuits.get(serviceKey) ?? {}
    if (!isExpected(current, version, epoch)) return { applied: false, current }
    if (increments.includes(id)) return { applied: true, current }
    const record = current ?? emptyRecord(id, at)
    const failureCount = record.failureCount + count
    return this.#write(serviceKey, { ...record, failureCount, lastFailureAt: at, updatedAt: at }, [
      ...increments.slice(1 - rememberedIncrements),
      id,
    ])
  }

  async compareAndSetState(
    serviceKey: string,
    version: ExpectedVersion,
    next: CircuitRecord,
    epoch?: string,
  ): Promise<WriteResult> {
    return this.#replace({ serviceKey, version, next, epoch })
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

  #replace({ serviceKey, version, next, epoch }: CompareAndSet): WriteResult {
    const current = this.#circuits.get(serviceKey)?.record
    // The new version refuses whatever increment of the old one is sent again: its id need not be kept.
    return isExpected(current, version, epoch) ? this.#write(serviceKey, next, []) : { applied: false, current }
  }

  #write(serviceKey: string, next: CircuitRecord, increments: readonly string[]): WriteResult {
    if (!this.#circuits.delete(serviceKey) && this.#circuits.size >= this.#maxCircuits) this.#evict()
    const record = frozenCopy(next)
    this.#circuits.set(serviceKey, { record, increments })
    return { applied: true, current: record }
  }

  #evict(): void {
    let oldest: string | undefined
    for (const [serviceKey, { record }] of this.#circuits) {
      if (record.state === 'CLOSED' && !record.override) {
        this.#circuits.delete(serviceKey)
        return
      }
      oldest ??= serviceKey
    }
    this.#circuits.delete(oldest as string)
  }
}

interface StoredCircuit {
  readonly record: CircuitRecord
  /** The ids of the latest increments of this version. */
  readonly increments: readonly string[]
}

/** So many increment ids are kept per circuit; a resend that comes after more increments than that counts again. */
const rememberedIncrements = 16

function isExpected(current: CircuitRecord | undefined, version: ExpectedVersion, epoch: string | undefined): boolean {
  return current?.version === version && (epoch === undefined || current?.epoch === epoch)
}

function frozenCopy<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  const copy = Array.isArray(value)
    ? value.map(frozenCopy)
    : Object.fromEntries(Object.entries(value).map(([field, inner]) => [field, frozenCopy(inner)]))
  return Object.freeze(copy) as T
}
