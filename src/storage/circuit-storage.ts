/**
 * The contract between the breaker and a store. Adapters are dumb and atomic: they compare one token, add or replace,
 * and say what is stored now. All policy lives in the state machine.
 *
 * @module
 */

import { CircuitStorageError, type StorageOperation } from '../errors.ts'

/** The three states of a circuit. */
export type CircuitState = 'CLOSED' | 'OPEN' | 'HALF_OPEN'

/** The permission to send one probe to the service. */
export interface Lease {
  /** Random token; the outcome of a probe counts as long as its lease is in the record. */
  readonly id: string
  /** From then on another instance may take over, in milliseconds since the epoch. */
  readonly expiresAt: number
}

/** What is kept of the failure that opened a circuit: never a message or a stack, which can hold secrets. */
export interface FailureSummary {
  /** Milliseconds since the epoch. */
  readonly at: number
  /** The error's `name`, at most 64 characters. */
  readonly name: string
  /** The error's `code`, at most 64 characters. */
  readonly code?: string | undefined
  /** The HTTP status that it carried. */
  readonly status?: number | undefined
}

/** An operator's decision; while it holds nothing else changes the record. */
export interface CircuitOverride {
  /** The state that the operator forced. */
  readonly state: 'CLOSED' | 'OPEN'
  /** When it was set, in milliseconds since the epoch. */
  readonly at: number
  /** When it ends by itself, in milliseconds since the epoch; absent: only by `reset`. */
  readonly until?: number | undefined
}

/** One circuit as it is stored. Instants are milliseconds since the epoch, durations milliseconds. */
export interface CircuitRecord {
  /** The version of this format. */
  readonly schema: 1
  /** Random token, new on every replace, compared for equality only; `undefined` until the first replace. */
  readonly version: string | undefined
  /** Random token, new on every change of state: an outcome from another epoch does not count. */
  readonly epoch: string
  /** Counts the changes of state, for people to read. */
  readonly generation: number
  readonly state: CircuitState
  /** Failures in a row, fleet-wide. */
  readonly failureCount: number
  readonly lastFailureAt: number | undefined
  /** Successful probes of the current half-open period. */
  readonly successCount: number
  readonly openedAt: number | undefined
  /** When an open circuit lets a probe through. */
  readonly retryAt: number | undefined
  /** How long the circuit stays open, as the function that opened it has set or the service has asked for. */
  readonly resetTimeout: number | undefined
  /** The probes in flight. */
  readonly leases: readonly Lease[]
  /** Consecutive trips; 0 again after a failure-free `window`. */
  readonly trips: number
  /** The failure that opened the circuit last. */
  readonly lastFailure?: FailureSummary | undefined
  readonly override?: CircuitOverride | undefined
  /** The ids of the last 8 transitions: by its id an author whose reply was lost recognises its own. */
  readonly transitions: readonly string[]
  /** The last write. */
  readonly updatedAt: number
}

/** What a conditional write did. */
export interface WriteResult {
  /** Whether the condition held, so that the write happened. */
  readonly applied: boolean
  /** What is stored now, either way; `undefined`: nothing. */
  readonly current: CircuitRecord | undefined
}

/** Failures to add to a circuit's count. */
export interface FailureIncrement {
  /** How many, a positive integer. */
  readonly count: number
  /** When the last of them happened, in milliseconds since the epoch. */
  readonly at: number
  /** Random token: the same increment sent twice counts once. */
  readonly id: string
  /**
   * The epoch of the record that the writer has seen; given only where that record had no version. If given, the write
   * applies only if a record is stored and its epoch equals it: one that was deleted and grew again has no version
   * either, and would be taken for the one before.
   */
  readonly epoch?: string | undefined
}

/** The condition of a write: the stored version must equal this; `undefined`: no version is stored. */
export type ExpectedVersion = string | undefined

/** One write of a batch. */
export interface CompareAndSet {
  readonly serviceKey: string
  readonly version: ExpectedVersion
  readonly next: CircuitRecord
  /** As for a {@link FailureIncrement}. */
  readonly epoch?: string | undefined
}

/**
 * A store for circuits.
 *
 * - Every method rejects with a {@link CircuitStorageError} when the store fails, and when what it holds is no
 *   {@link CircuitRecord} (then with `corrupt: true`). A batch that fails in part rejects with one that carries
 *   `results` and `errors` by service key.
 * - Records that are handed out or taken in are never mutated by either side.
 * - Service keys are any non-empty strings of at most 256 bytes, already prefixed with the namespace.
 */
export interface ICircuitStorage {
  /**
   * `false` for a store that each instance has to itself (the memory adapter): no other instance competes, so the
   * breaker neither spreads its claims out over time nor reads again before them. Default: `true`.
   */
  readonly shared?: boolean
  /**
   * `true` for a store that honours the `epoch` condition. Without it, a circuit that has never changed state, is
   * deleted and grows again, may count a failure from before. Default: `false`.
   */
  readonly fencesEpochs?: boolean
  /**
   * Loads what the first operation needs, for instance a client library, without talking to the store. It is called
   * before the first operation, and its time is not the store's: `storageTimeout` starts after it.
   */
  prepare?(): Promise<void>
  /** One circuit; `undefined` if nothing is stored. Sees every write that was acknowledged before. */
  getState(serviceKey: string): Promise<CircuitRecord | undefined>
  /** Several circuits in as few round trips as possible; a key that nothing is stored for is absent from the map. */
  batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>>
  /**
   * Adds `count` to `failureCount` and sets `lastFailureAt` and `updatedAt` to `at`, if the stored version equals
   * `version`. Leaves `version` alone, so that increments never conflict with each other. Where nothing is stored and
   * `version` is `undefined` it creates a CLOSED record without a version, with `id` as its epoch, unless the increment
   * names an `epoch`: then it was meant for a record that is gone.
   */
  incrementFailures(serviceKey: string, version: ExpectedVersion, increment: FailureIncrement): Promise<WriteResult>
  /**
   * Replaces the record if the stored version equals `version`. `next` carries a new version.
   *
   * @param epoch a further condition, as in a {@link FailureIncrement}
   */
  compareAndSetState(
    serviceKey: string,
    version: ExpectedVersion,
    next: CircuitRecord,
    epoch?: string,
  ): Promise<WriteResult>
  /**
   * Many compare-and-sets, in as few round trips as the backend allows without giving up the conditions; one result
   * per service key. A key may occur once.
   */
  batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>>
  /** Deletes one circuit: for tests and decommissioning only. */
  clearState(serviceKey: string): Promise<void>
  /** Deletes several circuits: for tests and decommissioning only. */
  batchClearState(serviceKeys: readonly string[]): Promise<void>
  /** Releases what the adapter itself opened (not what was injected). */
  close?(): Promise<void>
}

/** A record for a circuit that nothing is known of: CLOSED and empty, with the given epoch. */
export function emptyRecord(epoch: string, at: number): CircuitRecord {
  return {
    schema: 1,
    version: undefined,
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

/** A stored record is kept this long after the last instant that matters, in milliseconds: a day. */
export const retention = 86_400_000

/**
 * After its last write a record matters for this long, in milliseconds: the default `window`. A longer one, which may
 * last a day at most, is covered by the retention.
 */
const matters = 60_000

/**
 * When a store may forget a record, in milliseconds since the epoch: a day after the latest of its `retryAt`, its
 * leases and the end of its window. `undefined` (never) while an operator's override is set.
 */
export function expiryOf(record: CircuitRecord): number | undefined {
  if (record.override) return undefined
  const instants = [record.updatedAt + matters, record.retryAt ?? 0, ...record.leases.map((lease) => lease.expiresAt)]
  return Math.max(...instants) + retention
}

/** A record can hold no more leases than this; a longer list is damage, not data. */
const maxLeases = 1_000

/**
 * Checks what a store returned.
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
  const text = (field: string, maxLength: number): string => {
    const value = raw[field]
    return typeof value === 'string' && value.length <= maxLength ? value : fail(field, value)
  }
  const optionalInstant = (owner: Record<string, unknown>, field: string, path = field): number | undefined => {
    const value = owner[field] ?? undefined
    return value === undefined || isInstant(value) ? value : fail(path, value)
  }
  const instant = (owner: Record<string, unknown>, field: string, path = field): number =>
    optionalInstant(owner, field, path) ?? fail(path, owner[field])
  const count = (field: string): number => {
    const value = raw[field]
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : fail(field, value)
  }

  if (raw['schema'] !== 1) fail('schema', raw['schema'])
  const state = raw['state']
  if (state !== 'CLOSED' && state !== 'OPEN' && state !== 'HALF_OPEN') return fail('state', state)
  const resetTimeout = raw['resetTimeout'] ?? undefined
  if (resetTimeout !== undefined && !isDuration(resetTimeout)) return fail('resetTimeout', resetTimeout)
  const retryAt = optionalInstant(raw, 'retryAt')
  if (state === 'OPEN' && retryAt === undefined) fail('retryAt', raw['retryAt'])

  const leases = raw['leases'] ?? []
  if (!Array.isArray(leases) || leases.length > maxLeases) return fail('leases', leases)
  const transitions = raw['transitions'] ?? []
  if (!Array.isArray(transitions) || transitions.length > maxLeases) return fail('transitions', transitions)
  if (!transitions.every((id) => typeof id === 'string' && id.length <= 256)) fail('transitions', transitions)

  const lastFailure = raw['lastFailure'] ?? undefined
  if (lastFailure !== undefined && !isObject(lastFailure)) return fail('lastFailure', lastFailure)
  const override = raw['override'] ?? undefined
  if (override !== undefined && !isObject(override)) return fail('override', override)

  return {
    schema: 1,
    version: (raw['version'] ?? undefined) === undefined ? undefined : text('version', 256),
    epoch: text('epoch', 256),
    generation: count('generation'),
    state,
    failureCount: count('failureCount'),
    lastFailureAt: optionalInstant(raw, 'lastFailureAt'),
    successCount: count('successCount'),
    openedAt: optionalInstant(raw, 'openedAt'),
    retryAt,
    resetTimeout,
    leases: leases.map((lease: unknown, index) => {
      if (!isObject(lease) || typeof lease['id'] !== 'string' || lease['id'].length > 256)
        return fail(`leases[${index}]`, lease)
      return { id: lease['id'], expiresAt: instant(lease, 'expiresAt', `leases[${index}].expiresAt`) }
    }),
    trips: count('trips'),
    lastFailure: lastFailure && {
      at: instant(lastFailure, 'at', 'lastFailure.at'),
      name: typeof lastFailure['name'] === 'string' ? lastFailure['name'].slice(0, 64) : 'Error',
      code: typeof lastFailure['code'] === 'string' ? lastFailure['code'].slice(0, 64) : undefined,
      status: typeof lastFailure['status'] === 'number' ? lastFailure['status'] : undefined,
    },
    override: override && parseOverride(override, instant, optionalInstant, fail),
    transitions: transitions.slice(-8),
    updatedAt: instant(raw, 'updatedAt'),
  }
}

function parseOverride(
  override: Record<string, unknown>,
  instant: (owner: Record<string, unknown>, field: string, path: string) => number,
  optionalInstant: (owner: Record<string, unknown>, field: string, path: string) => number | undefined,
  fail: (field: string, value: unknown) => never,
): CircuitOverride {
  const { state } = override
  if (state !== 'CLOSED' && state !== 'OPEN') return fail('override.state', state)
  return {
    state,
    at: instant(override, 'at', 'override.at'),
    until: optionalInstant(override, 'until', 'override.until'),
  }
}

/** The largest instant that a `Date` can hold. */
const maxInstant = 8.64e15

function isInstant(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= maxInstant
}

function isDuration(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= maxInstant
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Names a wrong value without repeating it: what is stored can be anything. */
function describe(value: unknown): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'number') return `the number ${value}`
  return typeof value === 'string' ? `a string of ${value.length} characters` : `of type ${typeof value}`
}
