/**
 * A circuit's record: an empty one, its expiry, and the check of what a store returned.
 *
 * @module
 */

import { CircuitStorageError, type StorageOperation } from '../errors.ts'
import type { CircuitOverride, CircuitRecord, Outcomes } from './contract.ts'

/** An empty, CLOSED record, for a circuit of which nothing is known. The epoch is its version, too. */
export function emptyRecord(epoch: string, at: number): CircuitRecord {
  return {
    schema: 1,
    version: epoch,
    epoch,
    generation: 0,
    state: 'CLOSED',
    suspectedAt: undefined,
    failureCount: 0,
    successCount: 0,
    startedCount: 0,
    earlyCount: 0,
    reporterCount: 0,
    dismissals: 0,
    dismissedAt: undefined,
    noise: undefined,
    pace: undefined,
    othersAt: undefined,
    lastFailureAt: undefined,
    openedAt: undefined,
    closedAt: undefined,
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

/** The counts of a record that outcomes add to, and the outcomes that each is of. */
export const counts = {
  failureCount: 'failures',
  successCount: 'successes',
  startedCount: 'started',
  earlyCount: 'early',
  reporterCount: 'reporters',
} as const

type Count = keyof typeof counts

/** A record with outcomes added to its counts. */
export function plus(record: CircuitRecord, outcomes: Outcomes): CircuitRecord {
  const sums: Partial<Record<Count, number>> = {}
  for (const count of Object.keys(counts) as Count[]) sums[count] = record[count] + outcomes[counts[count]]
  return { ...record, ...sums, updatedAt: outcomes.at }
}

/** Outcomes that add nothing. */
export const noOutcomes = { failures: 0, successes: 0, started: 0, early: 0, reporters: 0 } as const

/** The names of a record's fields. */
export const recordFields = Object.keys(emptyRecord('', 0)) as readonly (keyof CircuitRecord)[]

/** How long a store keeps a record after the last instant in it, in milliseconds: two days. */
export const retention = 172_800_000

/** The default `window`, in milliseconds. The retention covers a longer one, which is a day at most. */
const window = 60_000

/**
 * When a store may forget a record, in milliseconds since the epoch: two days after the latest of its `retryAt`, its
 * leases and the end of its window. `undefined` (never) while an operator's override is set.
 *
 * A store sets this at a replace. Additions may leave it alone.
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
    const later =
      field === 'schema' && typeof value === 'number' && value > 1 ? ', of a later version: update this package' : ''
    throw new CircuitStorageError(
      `The record stored for ${JSON.stringify(serviceKey)} is damaged: ${field} is ${describe(value)}${later}. It is left ` +
        'as it is and this instance decides alone; reset() repairs it.',
      { operation, service: serviceKey, corrupt: true },
    )
  }
  if (!isObject(raw)) return fail('it', raw)
  const checked = <T>(accepts: Check<T>, field: string, owner: Fields = raw, path = field): T => {
    const value = owner[field]
    return accepts(value) ? value : fail(path, value)
  }
  /** A field that may be absent. */
  const optional = <T>(accepts: Check<T>, field: string, owner: Fields = raw, path = field): T | undefined =>
    (owner[field] ?? undefined) === undefined ? undefined : checked(accepts, field, owner, path)

  checked(isSchema, 'schema')
  const state = checked(isState, 'state')
  const retryAt = state === 'OPEN' ? checked(isAmount, 'retryAt') : optional(isAmount, 'retryAt')
  const lastFailure = optional(isObject, 'lastFailure')
  const override = optional(isObject, 'override')

  return {
    schema: 1,
    version: checked(isShortText, 'version'),
    epoch: checked(isShortText, 'epoch'),
    generation: checked(isCount, 'generation'),
    state,
    suspectedAt: optional(isAmount, 'suspectedAt'),
    failureCount: checked(isCount, 'failureCount'),
    successCount: checked(isCount, 'successCount'),
    startedCount: checked(isCount, 'startedCount'),
    earlyCount: checked(isCount, 'earlyCount'),
    reporterCount: checked(isCount, 'reporterCount'),
    dismissals: checked(isAmount, 'dismissals'),
    dismissedAt: optional(isAmount, 'dismissedAt'),
    noise: optional(isShare, 'noise'),
    pace: optional(isAmount, 'pace'),
    othersAt: optional(isAmount, 'othersAt'),
    lastFailureAt: optional(isAmount, 'lastFailureAt'),
    openedAt: optional(isAmount, 'openedAt'),
    closedAt: optional(isAmount, 'closedAt'),
    retryAt,
    resetTimeout: optional(isAmount, 'resetTimeout'),
    leases: (optional(isList, 'leases') ?? []).map((lease, index) => {
      if (!isObject(lease) || !isShortText(lease['id'])) return fail(`leases[${index}]`, lease)
      const expiresAt = checked(isAmount, 'expiresAt', lease, `leases[${index}].expiresAt`)
      return { id: lease['id'], expiresAt }
    }),
    trips: checked(isCount, 'trips'),
    lastFailure: lastFailure && {
      at: checked(isAmount, 'at', lastFailure, 'lastFailure.at'),
      name: summaryOf(lastFailure['name']) ?? 'Error',
      code: summaryOf(lastFailure['code']),
      status: typeof lastFailure['status'] === 'number' ? lastFailure['status'] : undefined,
    },
    override: override && {
      state: checked(isForced, 'state', override, 'override.state'),
      at: checked(isAmount, 'at', override, 'override.at'),
      until: optional(isAmount, 'until', override, 'override.until'),
      by: summaryOf(override['by'], 128),
      why: summaryOf(override['why'], 500),
    },
    transitions: (optional(isListOfTexts, 'transitions') ?? []).slice(-8),
    updatedAt: checked(isAmount, 'updatedAt'),
  }
}

type Check<T> = (value: unknown) => value is T

/** The same as in `settings/problems.ts`. If this file imported that one, adapters would share it with every handler. */
function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSchema(value: unknown): value is 1 {
  return value === 1
}

function isShortText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxText
}

function isShare(value: unknown): value is number {
  return isAmount(value) && value <= 1
}

/** An instant, a duration, or a count that need not be whole. */
function isAmount(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= maxInstant
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) && value.length <= maxLength
}

function isListOfTexts(value: unknown): value is readonly string[] {
  return isList(value) && value.every(isShortText)
}

function isForced(state: unknown): state is CircuitOverride['state'] {
  return state === 'CLOSED' || state === 'OPEN'
}

function isState(state: unknown): state is CircuitRecord['state'] {
  return isForced(state) || state === 'HALF_OPEN'
}

/** A text for people, cut, and harmless to a terminal: anybody may have stored it. */
function summaryOf(value: unknown, length = maxSummary): string | undefined {
  return typeof value === 'string' ? value.slice(0, length).replace(/\p{Cc}/gu, '\ufffd') : undefined
}

/** Names a wrong value without repeating it: anything can be stored. */
function describe(value: unknown): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'number') return `the number ${value}`
  return typeof value === 'string' ? `a string of ${value.length} characters` : `of type ${typeof value}`
}
