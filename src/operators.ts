/**
 * The operations of operators: force, reset, read and set circuits. Each write is a compare-and-set, which is decided again after
 * every conflict, so that no write is lost. A batch takes as few requests as the store allows.
 *
 * @module
 */

import { named } from './check-words.ts'
import type { OperatorDecision } from './circuit/circuit.ts'
import type * as StateMachine from './circuit/state-machine.ts'
import type { Replacement } from './circuit/step.ts'
import {
  type CircuitName,
  CircuitStorageError,
  isCircuitStorageError,
  originalOf,
  type StorageOperation,
} from './errors.ts'
import type { StateChangeReason } from './events.ts'
import { nameOf, type StateToSet } from './named-circuits.ts'
import { checkOptions, type OptionRule, refuseWrongOptions } from './settings/option-rules.ts'
import { isObject, Problems } from './settings/problems.ts'
import type { CircuitRecord, ICircuitStorage, OperatorWords, WriteResult } from './storage/contract.ts'
import { gravestOf } from './storage/replies.ts'
import type { OperatorRun, StoreAccess } from './storage/store-access.ts'
import type { Synchronizer } from './sync/synchronizer.ts'
import type { CircuitBreakerWarningCode } from './warnings.ts'

export { checkBreaker, refuseWrongCheck } from './check.ts'
export { namedCircuits, type StateToSet, statesToSet } from './named-circuits.ts'
export { type JournalOptions, readJournal } from './read-journal.ts'

/** The states of `CircuitBreaker.batchSetState`, by service key. */
export type StatesToSet<K extends string = string> =
  | Iterable<readonly [K, StateToSet]>
  | { readonly [Key in K]?: StateToSet }

/** The decisions of the state machine for an operator. */
export type Transitions = Pick<typeof StateMachine, 'force' | 'open' | 'reset'>

/** The name and the reason of an operator. Everybody who looks at the circuit sees them. */
export interface OperatorOptions {
  /** The operator: a person or a program. At most 128 characters, without control characters. Default: no name. */
  readonly by?: string | undefined
  /** The operator's reason. At most 500 characters, without control characters. Default: no reason. */
  readonly why?: string | undefined
}

/** The options of an override. */
export interface ForceOptions extends OperatorOptions {
  /** When the override ends by itself: a `Date` or milliseconds since the epoch. Default: only by `reset`. */
  readonly until?: Date | number | undefined
}

/** The key of a service `S`, if it is among the keyed services `D`. */
export type KeyOption<S extends string, D extends string> = S extends D
  ? {
      /** The key of the circuit. Default: the service's own circuit, if there is one (`keyed: { parent: true }`). */
      readonly key?: string
    }
  : {
      /** Only keyed services have one. */
      readonly key?: never
    }

/** An operator's write gives up after this many conflicts in a row. */
const maxConflicts = 100

/** A request for one circuit. No invocation waits for it. */
const oneRound: OperatorRun = { rounds: 1 }

/** Forces a circuit open or closed for the whole fleet. */
export async function forceCircuit(
  sync: Synchronizer,
  state: StateToSet,
  options: ForceOptions,
  now: number,
  { force }: Transitions,
): Promise<void> {
  const until = checkedUntil(sync, state, options, now)
  const words = wordsIn(options)
  const { settings } = sync.circuit
  const decide: OperatorDecision = (record, at, tokens) => {
    if (until !== undefined && until <= at) throw overBefore(sync, until)
    return force(record, { state, at, until, ...words }, settings, tokens)
  }
  if (await operate(sync, state === 'OPEN' ? 'forced-open' : 'forced-closed', decide, words)) hintAtNew([sync])
}

/** Closes a circuit, ends an override and clears the counts. Repairs a damaged record. */
export async function resetCircuit(
  sync: Synchronizer,
  options: OperatorOptions,
  { reset }: Transitions,
): Promise<void> {
  const allowed = "an object such as { why: 'all is well again' }"
  refuseWrongOptions(
    { of: 'reset', allowed, options: { ...wordRules, ...keyOption(sync) } },
    options,
    `reset of ${JSON.stringify(sync.circuit.service)}`,
  )
  const words = wordsIn(options)
  try {
    if (await operate(sync, 'reset', reset, words)) hintAtNew([sync])
  } catch (error) {
    if (!isCircuitStorageError(error) || !error.corrupt) throw error
    await clearDamage(sync)
    await operate(sync, 'reset', reset, words)
  }
}

/** @returns whether nothing was stored before */
async function operate(
  sync: Synchronizer,
  reason: StateChangeReason,
  decide: OperatorDecision,
  words: OperatorWords,
): Promise<boolean> {
  const decideAgain = sync.circuit.beginOperation(reason, decide, words)
  await sync.read()
  const isNew = sync.circuit.stored === undefined
  for (let conflicts = 0; conflicts < maxConflicts; conflicts++) {
    if (await sync.send(decideAgain(), oneRound)) return isNew && conflicts === 0
  }
  throw contended(sync)
}

/** The stored keys that a warning has named. Written by {@link hintAtNew}. */
const hinted = new Set<string>()

/** Warns once that nothing was stored before: with a wrong namespace, service key or store the operation succeeds without effect. */
function hintAtNew(circuits: readonly Synchronizer[]): void {
  const keys = circuits
    .filter(({ store, storageKey }) => store.storage.shared !== false && !hinted.has(storageKey))
    .map(({ storageKey }) => storageKey)
  if (keys.length === 0) return
  for (const key of keys) hinted.add(key)
  const text =
    `Nothing was stored under ${named(keys)} before this operation. A fleet that has seen no failure for two ` +
    'days has nothing stored. If your fleet has seen one, compare its namespace, its service keys, and its table or key ' +
    'prefix with those of this process. If they differ, the operation changes nothing for the fleet.'
  process.emitWarning(text, {
    type: 'CircuitBreakerWarning',
    code: 'CIRCUIT_NOTHING_STORED' satisfies CircuitBreakerWarningCode,
  })
}

/** Deletes a damaged record, so that it can be replaced. */
async function clearDamage({ store, circuit, storageKey }: Synchronizer): Promise<void> {
  const clear = (storage: ICircuitStorage) => storage.clearState(storageKey)
  await store.run('clearState', [circuit], clear, undefined, oneRound)
  circuit.cleared()
}

/** The records that are stored, by service key. */
export async function readCircuits(
  store: StoreAccess,
  circuits: readonly Synchronizer[],
): Promise<Map<string, CircuitRecord>> {
  const outcome = new BatchOutcome<CircuitRecord>('batchGetState')
  await readBatch(store, circuits, outcome)
  for (const sync of circuits) {
    const { stored } = sync.circuit
    if (!outcome.hasFailed(sync) && stored !== undefined) outcome.succeeded(sync, stored)
  }
  return outcome.results()
}

/** Sets circuits, each on condition that nobody else has changed it. After a conflict it decides again. */
export async function setCircuits(
  store: StoreAccess,
  wanted: ReadonlyMap<Synchronizer, StateToSet>,
  { open, reset }: Transitions,
): Promise<Map<string, CircuitRecord>> {
  const outcome = new BatchOutcome<CircuitRecord>('batchSetState')
  await readBatch(store, [...wanted.keys()], outcome)
  const created = [...wanted.keys()].filter((sync) => !outcome.hasFailed(sync) && sync.circuit.stored === undefined)
  await Promise.all([...wanted].map(([sync, state]) => state === 'CLOSED' && outcome.repair(sync)))
  const decisions = new Map<Synchronizer, () => Replacement>()
  for (const [sync, state] of wanted) {
    const { circuit } = sync
    // An operator's change does not count as another trip in a row.
    const settings = { ...circuit.settings, resetBackoff: 1 }
    const decide: OperatorDecision = (record, now, tokens) =>
      state === 'CLOSED' ? reset(record, now, tokens) : open(record, now, settings, tokens, undefined)
    if (!outcome.hasFailed(sync)) decisions.set(sync, circuit.beginOperation('set', decide))
  }
  for (let conflicts = 0; decisions.size > 0; conflicts++) {
    const writes = Array.from(decisions, ([sync, decide]): PreparedWrite => {
      const write = decide()
      return { sync, write, take: sync.beginWrite(write) }
    })
    const replies = await writeBatch(store, writes, outcome)
    for (const { sync, take } of writes) {
      const reply = replies.get(sync.storageKey)
      const isStored = reply !== undefined && take(reply)
      const { stored } = sync.circuit
      // A record that was deleted before the reply arrived is set again.
      if (isStored && stored !== undefined) outcome.succeeded(sync, stored)
      else if (reply !== undefined && conflicts >= maxConflicts) outcome.failed(sync, contended(sync))
      else if (reply !== undefined) continue
      else if (!outcome.hasFailed(sync)) outcome.failed(sync, unanswered(sync))
      decisions.delete(sync)
    }
  }
  hintAtNew(created.filter((sync) => !outcome.hasFailed(sync)))
  return outcome.results()
}

/** Deletes circuits. */
export async function clearCircuits(store: StoreAccess, circuits: readonly Synchronizer[]): Promise<void> {
  if (circuits.length === 0) return
  const outcome = new BatchOutcome<true>('batchClearState')
  const keys = circuits.map(({ storageKey }) => storageKey)
  try {
    const clear = (storage: ICircuitStorage) => storage.batchClearState(keys)
    await store.run('batchClearState', namesOf(circuits), clear, undefined, roundsFor(circuits))
  } catch (error) {
    outcome.takeErrors(circuits, error as CircuitStorageError)
  }
  for (const sync of circuits) {
    if (outcome.hasFailed(sync)) continue
    sync.circuit.cleared()
    outcome.succeeded(sync, true)
  }
  outcome.results()
}

/** A write of a batch before it is sent. */
interface PreparedWrite {
  readonly sync: Synchronizer
  readonly write: Replacement
  readonly take: (reply: WriteResult) => boolean
}

async function readBatch(
  store: StoreAccess,
  circuits: readonly Synchronizer[],
  outcome: BatchOutcome<unknown>,
): Promise<void> {
  if (circuits.length === 0) return
  const exchanges = new Map(circuits.map((sync) => [sync, sync.circuit.begin()]))
  const keys = circuits.map(({ storageKey }) => storageKey)
  let records: ReadonlyMap<string, CircuitRecord> = new Map()
  try {
    const read = (storage: ICircuitStorage) => storage.batchGetState(keys)
    records = await store.run('batchGetState', namesOf(circuits), read, undefined, roundsFor(circuits))
  } catch (error) {
    records = outcome.takeErrors(circuits, error as CircuitStorageError)
  }
  for (const [sync, exchange] of exchanges) {
    if (!outcome.hasFailed(sync)) sync.circuit.readAnswered(exchange, records.get(sync.storageKey))
  }
}

async function writeBatch(
  store: StoreAccess,
  writes: readonly PreparedWrite[],
  outcome: BatchOutcome<unknown>,
): Promise<ReadonlyMap<string, WriteResult>> {
  const circuits = writes.map(({ sync }) => sync)
  const sets = writes.map(({ sync, write }) => sync.setOf(write))
  const takeLate = (replies: ReadonlyMap<string, WriteResult>): void => {
    for (const { sync, take } of writes) {
      const reply = replies.get(sync.storageKey)
      if (reply !== undefined) take(reply)
    }
  }
  try {
    const set = (storage: ICircuitStorage) => storage.batchSetState(sets)
    return await store.run('batchSetState', namesOf(circuits), set, takeLate, roundsFor(circuits))
  } catch (error) {
    return outcome.takeErrors(circuits, error as CircuitStorageError)
  }
}

/** The result of a batch for each of its circuits. */
class BatchOutcome<T> {
  readonly #operation: StorageOperation
  readonly #results = new Map<string, T>()
  readonly #errors = new Map<string, CircuitStorageError>()

  constructor(operation: StorageOperation) {
    this.#operation = operation
  }

  succeeded({ circuit }: Synchronizer, result: T): void {
    this.#results.set(nameOf(circuit), result)
  }

  /** Adapters name a circuit by its stored key; the operator names the service. */
  failed({ circuit }: Synchronizer, { message, corrupt, kind, cause }: CircuitStorageError): void {
    const { service, key } = circuit
    const details = { operation: this.#operation, service, key, corrupt, kind, cause }
    this.#errors.set(nameOf(circuit), new CircuitStorageError(message, details))
  }

  hasFailed({ circuit }: Synchronizer): boolean {
    return this.#errors.has(nameOf(circuit))
  }

  /** Deletes a damaged record, as `reset` does. */
  async repair(sync: Synchronizer): Promise<void> {
    const name = nameOf(sync.circuit)
    if (this.#errors.get(name)?.corrupt !== true) return
    try {
      await clearDamage(sync)
      this.#errors.delete(name)
    } catch (error) {
      this.failed(sync, error as CircuitStorageError)
    }
  }

  /** Records the errors of a failed batch. Returns the replies that arrived, by storage key. */
  takeErrors<R>(circuits: readonly Synchronizer[], error: CircuitStorageError): ReadonlyMap<string, R> {
    const { results, errors } = error
    const arrived = (results instanceof Map ? results : new Map()) as ReadonlyMap<string, R>
    for (const sync of circuits) {
      const own = errors instanceof Map ? errors.get(sync.storageKey) : error
      if (own !== undefined) this.failed(sync, own)
    }
    return arrived
  }

  results(): Map<string, T> {
    if (this.#errors.size === 0) return this.#results
    const failed = [...this.#errors.keys()].map((name) => JSON.stringify(name)).join(', ')
    const [first] = this.#errors.values()
    throw new CircuitStorageError(`${this.#operation} failed for ${failed}: ${first?.message}`, {
      operation: this.#operation,
      cause: originalOf(first) ?? first,
      results: this.#results,
      errors: this.#errors,
      corrupt: [...this.#errors.values()].every((error) => error.corrupt),
      kind: gravestOf(this.#errors.values()),
    })
  }
}

/** The error after too many conflicts. */
function contended({ circuit: { service, key } }: Synchronizer): CircuitStorageError {
  const message = `Other writers kept changing the circuit of ${service}. Try again.`
  return new CircuitStorageError(message, { operation: 'compareAndSetState', service, key })
}

/** The error if an override ends before it is stored: the store was slow, there were conflicts, or Lambda froze the process. */
function overBefore({ circuit: { service, key } }: Synchronizer, until: number): CircuitStorageError {
  const message =
    `The override of ${service} was not stored in time: its until, ${new Date(until).toISOString()}, is over. ` +
    'Nothing was changed. Try again with a later until.'
  return new CircuitStorageError(message, { operation: 'compareAndSetState', service, key })
}

function unanswered({ circuit }: Synchronizer): CircuitStorageError {
  const { service, key } = circuit
  const message = `The store's answer to batchSetState does not contain ${JSON.stringify(nameOf(circuit))}.`
  return new CircuitStorageError(message, { operation: 'batchSetState', service, key })
}

/** Adapters send a limited number of conditional writes at once. */
function roundsFor(circuits: readonly Synchronizer[]): OperatorRun {
  return { rounds: Math.ceil(circuits.length / 16) }
}

function namesOf(circuits: readonly Synchronizer[]): Map<string, CircuitName> {
  return new Map(circuits.map(({ storageKey, circuit }) => [storageKey, circuit]))
}

/** Characters that move a terminal's cursor or reverse its text. */
const controls = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u

function wordsOf(longest: number): OptionRule {
  return {
    allowed: `a text of 1 to ${longest} characters, without control characters and line breaks`,
    accepts: (value) =>
      typeof value === 'string' && value.trim() !== '' && value.length <= longest && !controls.test(value),
  }
}

const wordRules = { by: wordsOf(128), why: wordsOf(500) } as const

function wordsIn({ by, why }: OperatorOptions): OperatorWords {
  return { by, why }
}

/** The latest instant that a `Date` can hold, in milliseconds since the epoch. */
const latestInstant = 8.64e15

/** The breaker has already checked the key that names a circuit. */
function keyOption({ circuit }: Synchronizer): { readonly key?: OptionRule } {
  return circuit.key === undefined ? {} : { key: { allowed: 'a key of the service', accepts: () => true } }
}

/** @throws {ConfigurationError} naming everything that is wrong with the options */
function checkedUntil(sync: Synchronizer, state: StateToSet, options: ForceOptions, now: number): number | undefined {
  const { service } = sync.circuit
  const method = state === 'OPEN' ? 'forceOpen' : 'forceClosed'
  const source = `${method} of ${JSON.stringify(service)}`
  const problems = new Problems()
  const allowed = 'an object such as { until: new Date(…) }'
  const isStillToCome = (until: unknown): boolean => Number(until) > now && Number(until) <= latestInstant
  const rule: OptionRule = {
    allowed: 'a time that is still to come, as a Date or in milliseconds',
    accepts: isStillToCome,
  }
  // A Date in place of the options would force the circuit without an end.
  if (!isObject(options) || options instanceof Date) problems.mustBe(allowed, 'options', source, options)
  else {
    const rules = { until: rule, ...wordRules, ...keyOption(sync) }
    checkOptions({ of: method, allowed, options: rules }, options, problems, { source })
  }
  problems.throwIfAny(service)
  return options.until === undefined ? undefined : Number(options.until)
}
