import { CircuitStorageError, type StorageOperation } from '../errors.ts'

/** The error of an adapter's batch in which something failed. */
export function failedBatch(
  operation: StorageOperation,
  results: ReadonlyMap<string, unknown>,
  errors: ReadonlyMap<string, CircuitStorageError>,
  size: number = results.size + errors.size,
): CircuitStorageError {
  const [service, error] = [...errors][0] as [string, CircuitStorageError]
  return new CircuitStorageError(
    `${operation} failed for ${errors.size} of ${size} circuits; ${JSON.stringify(service)}: ${error.message}`,
    {
      operation,
      service: size === 1 ? service : undefined,
      results,
      errors,
      corrupt: [...errors.values()].every(({ corrupt }) => corrupt),
      cause: error.cause ?? error,
    },
  )
}
