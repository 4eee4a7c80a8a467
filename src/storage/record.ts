/**
 * A circuit's record: an empty one, its expiry, and the check of what a store returned.
 *
 * @module
 */

import { CircuitStorageError, type StorageOperation } from '../errors.ts'
import { isObject } from '../settings/problems.ts'
import type { CircuitOverride, CircuitRecord } from './contract.ts'

/** A record for a circuit that nothing is known of: CLOSED and empty, with the given epoch as its version too. */
export function emptyRecord(epoch: string, at: number): CircuitRecord {
  return {
    schema: 1,
    version: epoch,
    epoch,
    generation: 0,
    state: 'CLOSED',
    failureCount: 0,
    lastFailureAt: undefined,
    successCount: 0,
    openedAt: undefined,
    retryAt: undefined,
    resetTimeout: undefined,
    leases: [],
    trips: 0,
    lastFailure: undefined,
    override: undefined,
    transitions: [],
    updatedAt: at,
  }
}

/** The names of a record's fields. */
export const recordFields = Object.keys(emptyRecord('', 0)) as readonly (keyof CircuitRecord)[]

/** A record is kept for this long after the last instant in it, in milliseconds: two days. */
export const retention = 172_800_000

/** The window of a record's failures, in milliseconds: the default. The retention covers a longer one, a day at most. */
const window = 60_000

/**
 * When a store may forget a record, in milliseconds since the epoch: two days after the latest of its `retryAt`, its
 * leases and the end of its window. `undefined` (never) while an operator's override is set.
 *
 * A store sets this at a replace, and at the increment that creates the record. Other increments may leave it alone.
 */
export function expiryOf(record: CircuitRecord): number | undefined {
  if (record.override) return undefined
  const instants = [record.updatedAt + window, record.retryAt ?? 0, ...record.leases.map((lease) => lease.expiresAt)]
  return Math.max(...instants) + retention
}

/** A longer list of leases or transitions is damage, not data. */
const maxLength = 1_000

/** The longest id, version or epoch, in characters. */
const maxText = 256

/** The longest name or code of a failure that is kept, in characters. */
const maxSummary = 64

/** The largest instant that a `Date` can hold; no duration is longer. */
const maxInstant = 8.64e15

type Fields = Readonly<Record<string, unknown>>

/**
 * Checks a record that a store returned.
 *
 * @param raw the decoded record: a plain object, in which absent, `null` and `undefined` mean the same
 * @throws {CircuitStorageError} with `corrupt: true` if it is not a record of schema 1, naming the first wrong field
 */
export function parseCircuitRecord(serviceKey: string, raw: unknown, operation: StorageOperation): CircuitRecord {
  const fail = (field: string, value: unknown): never => {
    throw new CircuitStorageError(
      `The record stored for ${JSON.stringify(serviceKey)} is damaged: ${field} is ${describe(value)}. It is left ` +
        'as it is and this instance decides alone; reset() repairs it.',
      { operation, service: serviceKey, corrupt: true },
    )
  }
  if (!isObject(raw)) return fail('it', raw)
  const text = (field: string): string => {
    const value = raw[field]
    return isShortText(value) ? value : fail(field, value)
  }
  const optional = (owner: Fields, field: string, path = field): number | undefined => {
    const value = owner[field] ?? undefined
    return value === undefined || isMilliseconds(value) ? value : fail(path, value)
  }
  const required = (owner: Fields, field: string, path = field): number =>
    optional(owner, field, path) ?? fail(path, owner[field])
  const count = (field: string): number => {
    const value = raw[field]
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : fail(field, value)
  }
  const list = (field: string): readonly unknown[] => {
    const value = raw[field] ?? []
    return Array.isArray(value) && value.length <= maxLength ? value : fail(field, value)
  }
  const inner = (field: string): Fields | undefined => {
    const value = raw[field] ?? undefined
    return value === undefined || isObject(value) ? value : fail(field, value)
  }

  if (raw['schema'] !== 1) fail('schema', raw['schema'])
  const state = raw['state']
  if (state !== 'CLOSED' && state !== 'OPEN' && state !== 'HALF_OPEN') return fail('state', state)
  const retryAt = optional(raw, 'retryAt')
  if (state === 'OPEN' && retryAt === undefined) fail('retryAt', raw['retryAt'])
  const transitions = list('transitions')
  if (!transitions.every(isShortText)) return fail('transitions', transitions)
  const [lastFailure, override] = [inner('lastFailure'), inner('override')]

  return {
    schema: 1,
    version: text('version'),
    epoch: text('epoch'),
    generation: count('generation'),
    state,
    failureCount: count('failureCount'),
    lastFailureAt: optional(raw, 'lastFailureAt'),
    successCount: count('successCount'),
    openedAt: optional(raw, 'openedAt'),
    retryAt,
    resetTimeout: optional(raw, 'resetTimeout'),
    leases: list('leases').map((lease, index) => {
      if (!isObject(lease) || !isShortText(lease['id'])) return fail(`leases[${index}]`, lease)
      return { id: lease['id'], expiresAt: required(lease, 'expiresAt', `leases[${index}].expiresAt`) }
    }),
    trips: count('trips'),
    lastFailure: lastFailure && {
      at: required(lastFailure, 'at', 'lastFailure.at'),
      name: typeof lastFailure['name'] === 'string' ? lastFailure['name'].slice(0, maxSummary) : 'Error',
      code: typeof lastFailure['code'] === 'string' ? lastFailure['code'].slice(0, maxSummary) : undefined,
      status: typeof lastFailure['status'] === 'number' ? lastFailure['status'] : undefined,
    },
    override: override && {
      state: isForced(override['state']) ? override['state'] : fail('override.state', override['state']),
      at: required(override, 'at', 'override.at'),
      until: optional(override, 'until', 'override.until'),
    },
    transitions: transitions.slice(-8),
    updatedAt: required(raw, 'updatedAt'),
  }
}

function isShortText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxText
}

function isMilliseconds(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= maxInstant
}

function isForced(state: unknown): state is CircuitOverride['state'] {
  return state === 'CLOSED' || state === 'OPEN'
}

/** Names a wrong value without repeating it: anything can be stored. */
function describe(value: unknown): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'number') return `the number ${value}`
  return typeof value === 'string' ? `a string of ${value.length} characters` : `of type ${typeof value}`
}
