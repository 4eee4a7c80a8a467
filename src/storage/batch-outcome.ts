/**
 * The outcome of a batch of which a part may fail.
 *
 * @module
 */

import { CircuitStorageError, type StorageErrorKind, type StorageOperation } from '../errors.ts'

/** Collects the outcome for each circuit of a batch, by service key. */
export class BatchOutcome<T> {
  readonly #operation: StorageOperation
  /** How many circuits the batch has. */
  readonly #size: number
  readonly succeeding: Map<string, T> = new Map()
  readonly errors: Map<string, CircuitStorageError> = new Map()

  constructor(operation: StorageOperation, size: number) {
    this.#operation = operation
    this.#size = size
  }

  succeeded(service: string, result: T): void {
    this.succeeding.set(service, result)
  }

  /** The error may concern several circuits, as that of a request does: each gets its own. */
  failed(service: string, error: CircuitStorageError): void {
    this.errors.set(service, attributed(error, this.#operation, service))
  }

  /**
   * The results.
   *
   * @throws {CircuitStorageError} if a circuit failed, with the `results` of the others
   */
  results(): Map<string, T> {
    if (this.errors.size === 0) return this.succeeding
    throw failedBatch(this.#operation, this.succeeding, this.errors, this.#size)
  }
}

/** The same error, of one circuit. */
export function attributed(
  { message, corrupt, kind, cause }: CircuitStorageError,
  operation: StorageOperation,
  service: string,
): CircuitStorageError {
  const details = { operation, service, corrupt, kind }
  return new CircuitStorageError(message, cause === undefined ? details : { ...details, cause })
}

/** The error of a batch in which something failed. */
export function failedBatch(
  operation: StorageOperation,
  results: ReadonlyMap<string, unknown>,
  errors: ReadonlyMap<string, CircuitStorageError>,
  size: number,
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

/** By gravity: somebody has to correct a misconfiguration; the store itself has no part in damage, which comes last. */
const byGravity: readonly StorageErrorKind[] = ['misconfigured', 'throttled', 'unavailable']

/** The gravest kind of several errors. Errors of adapters that do not tell a kind are `unavailable`. */
export function gravestOf(errors: Iterable<CircuitStorageError>): StorageErrorKind {
  const kinds = new Set(Array.from(errors, ({ kind, corrupt }) => kind ?? (corrupt ? 'corrupt' : 'unavailable')))
  return byGravity.find((kind) => kinds.has(kind)) ?? 'corrupt'
}
