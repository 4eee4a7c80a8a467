/**
 * The contract between the breaker and a store. Adapters are dumb and atomic: they compare one token, add or replace,
 * and answer with the stored record. All policy lives in the state machine.
 *
 * @module
 */

import type { CircuitStorageError, FailureSummary } from '../errors.ts'

export type { FailureSummary }

/** The three states of a circuit. */
export type CircuitState =
  /** Calls pass. */
  | 'CLOSED'
  /** Calls are refused. */
  | 'OPEN'
  /** A probe may pass; all other calls are refused. */
  | 'HALF_OPEN'

/** The permission to send one probe to the service. */
export interface Lease {
  /** Random token; the outcome of a probe counts as long as its lease is in the record. */
  readonly id: string
  /** The instant from which another instance may take over, in milliseconds since the epoch. */
  readonly expiresAt: number
}

/** An operator's decision; while it holds nothing else changes the record. */
export interface CircuitOverride {
  /** The state that the operator forced. */
  readonly state: 'CLOSED' | 'OPEN'
  /** When it was set, in milliseconds since the epoch. */
  readonly at: number
  /** When it ends by itself, in milliseconds since the epoch; absent: only by `reset`. */
  readonly until?: number | undefined
  /** The operator, in his own words: at most 128 characters. */
  readonly by?: string | undefined
  /** The operator's reason, at most 500 characters. */
  readonly why?: string | undefined
}

/** The words with which an operator accounts for what he does. */
export type OperatorWords = Pick<CircuitOverride, 'by' | 'why'>

/** One circuit as it is stored. Instants are milliseconds since the epoch, durations milliseconds. */
export interface CircuitRecord {
  /** The version of this format. */
  readonly schema: 1
  /** Random token, new on every replace, compared for equality only. */
  readonly version: string
  /** Random token, new on every change of state: an outcome from another epoch does not count. */
  readonly epoch: string
  /** Counts the changes of state, for people to read. */
  readonly generation: number
  /** The state as it is stored: an open circuit stays `OPEN` when `retryAt` is over, until a probe is claimed. */
  readonly state: CircuitState
  /** When the service of a closed circuit came under suspicion; `undefined`: it is under none. */
  readonly suspectedAt: number | undefined
  /** Closed: the failures that count against the service. Else: those that opened the circuit, and failed probes. */
  readonly failureCount: number
  /** Closed: the successes that speak for the service under suspicion. Half-open: successful probes. */
  readonly successCount: number
  /** Calls that began under the suspicion: in its first second those that have not ended are taken for successes. */
  readonly startedCount: number
  /** Failures of calls that had begun before their instance knew of the suspicion, one for each instance. */
  readonly earlyCount: number
  /** The instances that have reported under the suspicion. */
  readonly reporterCount: number
  /** How many suspicions came to nothing, as of `dismissedAt`. The number fades with time, so that it need not be whole. */
  readonly dismissals: number
  /** When a suspicion last came to nothing; `undefined`: none has. */
  readonly dismissedAt: number | undefined
  /** The part of the calls that fails while nothing is wrong, from 0 to 1, by the samples of dismissed suspicions. */
  readonly noise: number | undefined
  /** The outcomes that the whole fleet would report in a second, by the last dismissed suspicion. */
  readonly pace: number | undefined
  /** When a second instance was last heard. */
  readonly othersAt: number | undefined
  /** When a failure was last reported; `undefined`: none was. */
  readonly lastFailureAt: number | undefined
  /** When the circuit opened; `undefined`: it is closed. */
  readonly openedAt: number | undefined
  /** When a probe closed the circuit last; `undefined`: it is open, or no probe has. */
  readonly closedAt: number | undefined
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
  /** An operator's decision; absent: there is none. */
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

/** Outcomes to add to a circuit's counts: integers that are not negative. */
export interface Outcomes {
  /** Is added to `failureCount`. */
  readonly failures: number
  /** Is added to `successCount`. */
  readonly successes: number
  /** Is added to `startedCount`. */
  readonly started: number
  /** Is added to `earlyCount`. */
  readonly early: number
  /** Is added to `reporterCount`. */
  readonly reporters: number
  /** When the last of them happened, in milliseconds since the epoch. */
  readonly at: number
  /** Random token: the same outcomes sent twice count once. */
  readonly id: string
}

/** The condition of a write: the version that its author has seen; `undefined`: it has seen that nothing is stored. */
export type ExpectedVersion = string | undefined

/** One write of a batch. */
export interface CompareAndSet {
  /** The circuit. */
  readonly serviceKey: string
  /** The condition: the version that must be stored. */
  readonly version: ExpectedVersion
  /** The record to store, which carries a new version. */
  readonly next: CircuitRecord
}

/** Why a circuit changed its state. */
export type StateChangeReason =
  /** The sample that followed a suspicion spoke against the service. */
  | 'failure-threshold'
  /** `resetTimeout` has passed and a probe was claimed. */
  | 'probe-started'
  /** `halfOpenSuccessThreshold` probes succeeded. */
  | 'probe-succeeded'
  /** A probe failed. */
  | 'probe-failed'
  /** An operator's `forceOpen`. */
  | 'forced-open'
  /** An operator's `forceClosed`. */
  | 'forced-closed'
  /** An operator's `reset`. */
  | 'reset'
  /** An operator's `batchSetState`. */
  | 'set'
  /** Another instance changed it; this one learned of it by reading. A forced state is told by its own reason. */
  | 'observed'
  /** This instance refuses by itself while the service works for the fleet. */
  | 'instance-unhealthy'

/** The sample that opened a circuit. */
export interface Evidence {
  /** The calls of the sample that failed. */
  readonly failures: number
  /** The calls of the sample that succeeded. */
  readonly successes: number
  /** How many instances it comes from. */
  readonly reporters: number
}

/**
 * One entry of a circuit's journal: a transition, an override or a reset, told by its author. Names and codes only, and the
 * operator's words: messages of errors can hold secrets. An absent field was not known, or does not apply.
 */
export interface JournalEntry {
  /** Random token: the same entry appended twice is kept once. */
  readonly id: string
  /** When, in milliseconds since the epoch. */
  readonly at: number
  /** The service key, without the namespace. */
  readonly service: string
  /** The key of a keyed service. */
  readonly key?: string | undefined
  /** The state before. */
  readonly from: CircuitState
  /** The state from then on: the same one where an operator left it as it was. */
  readonly to: CircuitState
  /** The generation that began with it. */
  readonly generation: number
  /** Why the circuit changed. */
  readonly reason: StateChangeReason
  /** The sample that opened the circuit. */
  readonly evidence?: Evidence | undefined
  /** The failure that opened the circuit last. */
  readonly lastFailure?: FailureSummary | undefined
  /** When the open circuit lets a probe through, in milliseconds since the epoch. */
  readonly retryAt?: number | undefined
  /** When the override ends by itself, in milliseconds since the epoch. */
  readonly until?: number | undefined
  /** The Lambda function of the author. */
  readonly functionName?: string | undefined
  /** The author's log stream in CloudWatch. */
  readonly logStream?: string | undefined
  /** The Lambda request whose call caused it. */
  readonly requestId?: string | undefined
  /** The X-Ray trace of the invocation in which it was stored: its root, for instance `1-5759e988-bd862e3fe1be46a994272793`. */
  readonly traceId?: string | undefined
  /** The operator, in his own words. */
  readonly by?: string | undefined
  /** The operator's reason. */
  readonly why?: string | undefined
}

/** The part of a journal that is read. */
export interface JournalQuery {
  /** No entry before this instant, in milliseconds since the epoch. Default: as far back as there are entries. */
  readonly since?: number | undefined
  /** At most so many entries, the latest ones. Default: 50. */
  readonly limit?: number | undefined
}

/** The circuits that are listed. */
export interface ListQuery {
  /** Circuits whose stored key begins with it: `eu#` are those of the namespace `eu`. Default: all of them. */
  readonly prefix?: string | undefined
  /** About so many keys in a page: there may be more, or fewer, or none though others follow. Default: 1 000. */
  readonly limit?: number | undefined
  /** The `cursor` of the page before. Default: the first page. */
  readonly cursor?: string | undefined
}

/** A page of circuits. */
export interface CircuitPage {
  /** Their keys as they are stored, with the namespace. A key may come in several pages. */
  readonly keys: readonly string[]
  /** Given where there may be more: hand it in for the next page. */
  readonly cursor?: string | undefined
}

/** The `code` of a {@link Finding}: stable, unlike messages. */
export type FindingCode =
  /** Error: the store will never do what it is asked, until somebody changes the configuration. */
  | 'store-misconfigured'
  /** Error: the store answers that it cannot now: too many requests, no memory left, a failover. */
  | 'store-throttled'
  /** Error: the store does not answer, or not in time. */
  | 'store-unavailable'
  /** Error: what is stored for this service is no record. */
  | 'record-damaged'
  /** Error: the storage adapter writes although the version is another one. */
  | 'condition-ignored'
  /** Error: the function has no more time than `deadlineReserve`: no call is made. */
  | 'no-time-for-calls'
  /** Error: the function has so little time that a call which hangs can never count as a failure. */
  | 'no-fair-time'
  /** Warning: the function's timeout is shorter than `timeout` needs. */
  | 'timeout-beyond-deadline'
  /** Warning: the function's timeout is shorter than a call needs when the store does not answer. */
  | 'no-time-beside-store'
  /** Warning: `deadlineReserve` is 100 ms or less. */
  | 'reserve-too-short'
  /** Warning: `cacheTtl` is not shorter than `resetTimeout`. */
  | 'cache-outlives-reset'
  /** Warning: the clocks of this machine and of the store are 5 s apart. Error: they are a minute apart. */
  | 'clock-skew'
  /** Warning: a read took more than half of `storageTimeout`. */
  | 'store-slow'
  /** Warning: Redis may evict overrides. */
  | 'eviction'
  /** Warning: the table expires items by another attribute, or by none. */
  | 'time-to-live'
  /** Warning: the keys of the journal may not be written. */
  | 'journal-permission-missing'
  /** Info: operators need a permission that is missing; functions do not. */
  | 'operator-permission-missing'
  /** Info: there is no record under this namespace and key. */
  | 'nothing-stored'
  /** Info: the state is in the memory of this process. */
  | 'not-shared'
  /** Info: `mode` is `off` for every service. */
  | 'switched-off'
  /** Info: the store would not tell, or the check was given no `context`. */
  | 'not-checked'
  /** Error, of `mcb doctor`: the breaker refuses the settings of a function. */
  | 'settings-refused'
  /** Warning, of `mcb doctor`: functions that share circuits differ in a setting. */
  | 'settings-differ'
  /** Error, of `mcb doctor`: functions that should share circuits have different stores. */
  | 'stores-differ'

/** One thing that a check of the breaker has found. */
export interface Finding {
  /** Stable, for programs. A storage adapter of your own may have others. */
  readonly code: FindingCode | (string & {})
  /** `error`: in an outage the breaker would not do its work. `warning`: it would do it worse. `info`: good to know. */
  readonly severity: 'error' | 'warning' | 'info'
  /** The service key, if the finding concerns one alone. */
  readonly service?: string | undefined
  /** The setting that it concerns, for instance `deadlineReserve`. */
  readonly setting?: string | undefined
  /** What is wrong, in sentences. */
  readonly message: string
  /** What to do about it. */
  readonly remedy: string
  /** The error that told it. */
  readonly cause?: unknown
}

/** What an adapter has found out about its store, beyond what the other methods tell. */
export interface StorageInspection {
  /** What somebody has to know or to correct; empty: all is well. */
  readonly findings: readonly Finding[]
  /** Where the circuits are, for people, for instance `the DynamoDB table "app"`. */
  readonly place?: string | undefined
  /** How far the store's clock is surely ahead of this machine's, in milliseconds; negative: behind. Absent: unknown. */
  readonly clockOffset?: number | undefined
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
   * calls it before the first operation, and in Lambda as soon as it is made. `storageTimeout` starts after it.
   */
  prepare?(): Promise<void>
  /** Reads one circuit; `undefined` if nothing is stored. Sees every write that was acknowledged before. */
  getState(serviceKey: string): Promise<CircuitRecord | undefined>
  /** Reads several circuits in as few round trips as possible. A key without a record is absent from the map. */
  batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>>
  /**
   * Adds outcomes to the counts and sets `updatedAt` to `at`, if the stored version equals `version`. Creates nothing, and
   * leaves everything else alone, `version` as well: so additions never conflict with each other.
   */
  addOutcomes(serviceKey: string, version: string, outcomes: Outcomes): Promise<WriteResult>
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
  /**
   * Finds out what only an outage would show otherwise: permissions that the other methods need in some cases only, the
   * clock, the expiry of records. Changes nothing in the store, and asks for no permission that is not needed anyway: what it
   * may not ask for is an `info`. The breaker calls it for `check()`.
   *
   * @param serviceKeys the circuits, as they are stored; at least one
   */
  inspect?(serviceKeys: readonly string[]): Promise<StorageInspection>
  /**
   * Adds an entry to the journal of a circuit, and changes no record. Keeps at least the last 50 entries of a circuit, for 30
   * days. The breaker calls it behind the calls, once for each transition: losing an entry loses nothing else.
   */
  appendJournal?(serviceKey: string, entry: JournalEntry): Promise<void>
  /** Reads the journal of a circuit, the latest entry first. Hands out entries as they were decoded, unchecked. */
  readJournal?(serviceKey: string, query?: JournalQuery): Promise<JournalEntry[]>
  /**
   * Lists circuits without naming them, at a cost that is bounded for each page. Finds every circuit with an entry in the
   * journal, and may find others that are stored.
   */
  listCircuits?(query?: ListQuery): Promise<CircuitPage>
  /** Closes the client that the adapter made, never one that was injected. */
  close?(): Promise<void>
}
