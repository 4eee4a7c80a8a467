/**
 * The answers of stores: the outcome of a batch, of which a part may fail, and the check of every reply. No reply is
 * checked anywhere else.
 *
 * Both are in one file so that adapters and operators, which are loaded later, share few files with the handler.
 *
 * @module
 */

import {
  CircuitStorageError,
  isCircuitStorageError,
  originalOf,
  type StorageErrorKind,
  type StorageOperation,
} from '../errors.ts'
import type { CircuitRecord, WriteResult } from './contract.ts'
import { parseCircuitRecord } from './record.ts'

/** Collects the outcome for each circuit of a batch, by service key. */
export class BatchOutcome<T> {
  readonly #operation: StorageOperation
  /** How many circuits the batch has. */
  readonly #size: number
  /** Results by service key. Written by {@link succeeded}. */
  readonly succeeding: Map<string, T> = new Map()
  /** Errors by service key. Written by {@link failed}. */
  readonly errors: Map<string, CircuitStorageError> = new Map()

  constructor(operation: StorageOperation, size: number) {
    this.#operation = operation
    this.#size = size
  }

  succeeded(service: string, result: T): void {
    this.succeeding.set(service, result)
  }

  /** Notes the failure of a circuit. The error of a request may concern several circuits: each gets a copy. */
  failed(service: string, error: CircuitStorageError): void {
    this.errors.set(service, attributed(error, this.#operation, service))
  }

  /**
   * Ends the batch.
   *
   * @throws {CircuitStorageError} if a circuit failed, with the `results` of the others
   */
  results(): Map<string, T> {
    if (this.errors.size === 0) return this.succeeding
    const [service, error] = [...this.errors][0] as [string, CircuitStorageError]
    const failed = `${this.#operation} failed for ${this.errors.size} of ${this.#size} circuits`
    throw new CircuitStorageError(`${failed}; ${JSON.stringify(service)}: ${error.message}`, {
      operation: this.#operation,
      service: this.#size === 1 ? service : undefined,
      results: this.succeeding,
      errors: this.errors,
      corrupt: [...this.errors.values()].every(({ corrupt }) => corrupt),
      kind: gravestOf(this.errors.values()),
      cause: originalOf(error) ?? error,
    })
  }
}

/** A copy of an error, attributed to one circuit. */
export function attributed(
  { message, corrupt, kind, cause }: CircuitStorageError,
  operation: StorageOperation,
  service: string,
): CircuitStorageError {
  return new CircuitStorageError(message, { operation, service, corrupt, kind, cause })
}

/** The kinds, the gravest first: somebody has to correct a misconfiguration. Damage comes last: the store is well. */
const byGravity: readonly StorageErrorKind[] = ['misconfigured', 'throttled', 'unavailable']

/** The gravest kind of several errors. An error without a kind is `unavailable`. */
export function gravestOf(errors: Iterable<CircuitStorageError>): StorageErrorKind {
  const kinds = new Set(Array.from(errors, ({ kind, corrupt }) => kind ?? (corrupt ? 'corrupt' : 'unavailable')))
  return byGravity.find((kind) => kinds.has(kind)) ?? 'corrupt'
}

/**
 * Parses the records in a reply.
 *
 * @param service the circuit, in messages; batches name each by its key
 * @throws {CircuitStorageError} with `corrupt: true` if a record does not parse; in a batch with the `results` of the
 *   others
 * @throws {TypeError} if the contract does not allow such a reply
 */
export function parseReply<T>(operation: StorageOperation, reply: T, service: string): T
export function parseReply(operation: StorageOperation, reply: unknown, service: string): unknown {
  switch (operation) {
    case 'getState':
      return parseStored(service, reply, operation)
    case 'addOutcomes':
    case 'compareAndSetState':
      return parseWriteResult(service, reply, operation)
    case 'batchGetState':
    case 'batchSetState':
      return parseBatch(operation, reply).results()
    default:
      return reply
  }
}

/**
 * Parses the records in the `results` of an error that an adapter rejected with. Returns `undefined` if the error is
 * none of ours, or if its parts are not as the contract says.
 */
export function parseError(operation: StorageOperation, error: unknown): CircuitStorageError | undefined {
  if (!isCircuitStorageError(error)) return undefined
  const { results, errors } = error
  const isAllowed = errors === undefined || (errors instanceof Map && [...errors.values()].every(isCircuitStorageError))
  if (!isAllowed) return undefined
  if (results === undefined || (operation !== 'batchGetState' && operation !== 'batchSetState')) return error
  try {
    return withParsedResults(operation, error)
  } catch {
    return undefined
  }
}

function withParsedResults(operation: StorageOperation, error: CircuitStorageError): CircuitStorageError {
  const { succeeding, errors } = parseBatch(operation, error.results)
  return new CircuitStorageError(error.message, {
    operation: error.operation,
    service: error.service,
    corrupt: error.corrupt,
    kind: error.kind,
    results: succeeding,
    errors: error.errors && new Map([...error.errors, ...errors]),
    cause: error.cause,
  })
}

/** A record that does not parse fails alone. */
function parseBatch(operation: StorageOperation, reply: unknown): BatchOutcome<unknown> {
  if (!(reply instanceof Map)) throw notAllowed(operation)
  const parse = operation === 'batchGetState' ? parseCircuitRecord : parseWriteResult
  const outcome = new BatchOutcome<unknown>(operation, reply.size)
  for (const [key, value] of reply) {
    try {
      outcome.succeeded(key, parse(key, value, operation))
    } catch (error) {
      if (!isCircuitStorageError(error)) throw error
      outcome.failed(key, error)
    }
  }
  return outcome
}

function parseWriteResult(service: string, value: unknown, operation: StorageOperation): WriteResult {
  const { applied, current } = (value ?? {}) as { applied?: unknown; current?: unknown }
  if (typeof applied !== 'boolean') throw notAllowed(operation)
  return { applied, current: parseStored(service, current, operation) }
}

function parseStored(service: string, value: unknown, operation: StorageOperation): CircuitRecord | undefined {
  return value === undefined ? undefined : parseCircuitRecord(service, value, operation)
}

function notAllowed(operation: StorageOperation): TypeError {
  return new TypeError(`The adapter answered ${operation} with something that the contract does not allow.`)
}
