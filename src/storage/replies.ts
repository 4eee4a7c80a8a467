/**
 * The check of an adapter's replies, the only one that there is: their shape, and the records in them.
 *
 * @module
 */

import { CircuitStorageError, isCircuitStorageError, type StorageOperation } from '../errors.ts'
import { BatchOutcome } from './batch-outcome.ts'
import type { CircuitRecord, WriteResult } from './contract.ts'
import { parseCircuitRecord } from './record.ts'

/**
 * The reply with its records parsed.
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
      return parseStored(operation, reply, service)
    case 'incrementFailures':
    case 'compareAndSetState':
      return parseWriteResult(operation, reply, service)
    case 'batchGetState':
    case 'batchSetState':
      return parseBatch(operation, reply).results()
    default:
      return reply
  }
}

/**
 * The error that an adapter rejected with, with the records in its `results` parsed; `undefined` if it is none of ours, or
 * if its parts are not as the contract says.
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
  const { message, service, corrupt, kind, cause, errors } = error
  const outcome = parseBatch(operation, error.results)
  const all = errors && new Map([...errors, ...outcome.errors])
  const details = { operation: error.operation, service, corrupt, kind, results: outcome.succeeding }
  return new CircuitStorageError(message, {
    ...details,
    ...(all && { errors: all }),
    ...(cause === undefined ? {} : { cause }),
  })
}

/** A record that does not parse fails alone. */
function parseBatch(operation: StorageOperation, reply: unknown): BatchOutcome<unknown> {
  if (!(reply instanceof Map)) throw notAllowed(operation)
  const parse = operation === 'batchGetState' ? parseRecord : parseWriteResult
  const outcome = new BatchOutcome<unknown>(operation, reply.size)
  for (const [key, value] of reply) {
    try {
      outcome.succeeded(key, parse(operation, value, key))
    } catch (error) {
      if (!isCircuitStorageError(error)) throw error
      outcome.failed(key, error)
    }
  }
  return outcome
}

function parseWriteResult(operation: StorageOperation, value: unknown, service: string): WriteResult {
  const { applied, current } = (value ?? {}) as { applied?: unknown; current?: unknown }
  if (typeof applied !== 'boolean') throw notAllowed(operation)
  return { applied, current: parseStored(operation, current, service) }
}

function parseStored(operation: StorageOperation, value: unknown, service: string): CircuitRecord | undefined {
  return value === undefined ? undefined : parseRecord(operation, value, service)
}

function parseRecord(operation: StorageOperation, value: unknown, service: string): CircuitRecord {
  return parseCircuitRecord(service, value, operation)
}

function notAllowed(operation: StorageOperation): TypeError {
  return new TypeError(`The adapter answered ${operation} with something that the contract does not allow.`)
}
