import { CircuitStorageError, type StorageErrorKind, type StorageOperation } from '../errors.ts'

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
      kind: gravestOf(errors.values()),
      cause: error.cause ?? error,
    },
  )
}

/** What somebody has to do something about comes first; damage, which the store itself has no part in, last. */
const byGravity: readonly StorageErrorKind[] = ['misconfigured', 'throttled', 'unavailable']

/** The gravest kind of several errors; those of adapters that do not tell a kind are `unavailable`. */
export function gravestOf(errors: Iterable<CircuitStorageError>): StorageErrorKind {
  const kinds = new Set(Array.from(errors, ({ kind, corrupt }) => kind ?? (corrupt ? 'corrupt' : 'unavailable')))
  return byGravity.find((kind) => kinds.has(kind)) ?? 'corrupt'
}
