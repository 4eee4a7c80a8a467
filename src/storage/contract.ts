/**
 * The contract between the breaker and a store. Adapters are dumb and atomic: they compare one token, add or replace,
 * and answer with the stored record. All policy lives in the state machine.
 *
 * @module
 */

import type { CircuitStorageError } from '../errors.ts'

/** The three states of a circuit. */
export type CircuitState = 'CLOSED' | 'OPEN' | 'HALF_OPEN'

/** The permission to send one probe to the service. */
export interface Lease {
  /** Random token; the outcome of a probe counts as long as its lease is in the record. */
  readonly id: string
  /** The instant from which another instance may take over, in milliseconds since the epoch. */
  readonly expiresAt: number
}

/** The failure that opened a circuit, without its message and its stack, which can hold secrets. */
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

/** An operator's decision. While it holds, nothing else changes the record. */
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
  /** Random token, new on every replace, compared for equality only. Until the first replace it is the epoch. */
  readonly version: string
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
  /** The epochs of the last 8 transitions. An author whose reply was lost recognises its transition by the epoch. */
  readonly transitions: readonly string[]
  /** The last write. */
  readonly updatedAt: number
}

/** The outcome of a conditional write. */
export interface WriteResult {
  /** Whether the condition was met, so that the write happened. */
  readonly applied: boolean
  /** The record as it is stored now, either way; `undefined`: none. */
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
}

/** The condition of a write: the version that its author has seen; `undefined`: it has seen that nothing is stored. */
export type ExpectedVersion = string | undefined

/** One write of a batch. */
export interface CompareAndSet {
  readonly serviceKey: string
  readonly version: ExpectedVersion
  readonly next: CircuitRecord
}

/**
 * A store for circuits.
 *
 * - Every method rejects with a {@link CircuitStorageError} when the store fails. A batch that fails in part rejects
 *   with one that carries `results` and `errors` by service key.
 * - Adapters hand out records as they decoded them, unchecked, whatever the type says. The breaker parses each record
 *   once, and treats one that does not parse as damaged. In a decoded record, a field that is absent, `null` or
 *   `undefined` is not set. Parse with `parseCircuitRecord` what a direct call of an adapter returns. An adapter itself
 *   rejects with `corrupt: true` only where it cannot decode at all, for instance text that is no JSON.
 * - Neither side mutates a record that was handed out or taken in.
 * - Service keys are any non-empty strings of at most 256 bytes, already prefixed with the namespace.
 */
export interface ICircuitStorage {
  /**
   * `false` for a store that each instance has to itself, as the memory adapter is. No other instance competes, so the
   * breaker neither spreads its claims out over time nor reads again before them. Default: `true`.
   */
  readonly shared?: boolean
  /**
   * Loads what the first operation needs, for instance a client library, without talking to the store. The breaker
   * calls it before the first operation. `storageTimeout` starts after it.
   */
  prepare?(): Promise<void>
  /** Reads one circuit; `undefined` if nothing is stored. Sees every write that was acknowledged before. */
  getState(serviceKey: string): Promise<CircuitRecord | undefined>
  /** Reads several circuits in as few round trips as possible. A key without a record is absent from the map. */
  batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>>
  /**
   * Adds `count` to `failureCount` and sets `lastFailureAt` and `updatedAt` to `at`, if the stored version equals
   * `version`. Leaves `version` alone, so that increments never conflict with each other.
   *
   * With `version: undefined` it applies where nothing is stored, and while the stored version equals the stored epoch:
   * that is, until the first replace. Where nothing is stored it first creates a CLOSED record, with `id` as its version
   * and as its epoch.
   */
  incrementFailures(serviceKey: string, version: ExpectedVersion, increment: FailureIncrement): Promise<WriteResult>
  /**
   * Replaces the record if the stored version equals `version`; with `version: undefined` creates it where nothing is
   * stored. `next` carries a new version.
   */
  compareAndSetState(serviceKey: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult>
  /**
   * Does many compare-and-sets, in as few round trips as the backend allows without giving up the conditions. A service
   * key may occur once, and has one result.
   */
  batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>>
  /** Deletes one circuit: for tests and decommissioning only. */
  clearState(serviceKey: string): Promise<void>
  /** Deletes several circuits: for tests and decommissioning only. */
  batchClearState(serviceKeys: readonly string[]): Promise<void>
  /** Closes the client that the adapter made, never one that was injected. */
  close?(): Promise<void>
}
