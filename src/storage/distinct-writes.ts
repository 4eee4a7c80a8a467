import { CircuitStorageError, type StorageOperation } from '../errors.ts'
import type { CompareAndSet } from './contract.ts'

/**
 * Refuses a batch that does not say clearly what to write.
 *
 * @throws {CircuitStorageError} if it names a circuit twice
 */
export function refuseRepetitions(operation: StorageOperation, writes: readonly CompareAndSet[]): void {
  const seen = new Set<string>()
  for (const { serviceKey: service } of writes) {
    if (seen.has(service)) {
      const what = `${operation} was given ${JSON.stringify(service)} twice, and wrote nothing: give each circuit once.`
      throw new CircuitStorageError(what, { operation, service })
    }
    seen.add(service)
  }
}
