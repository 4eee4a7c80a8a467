/**
 * Operators' work on many circuits at once, in as few requests as the store allows.
 *
 * @module
 */

import { type Circuit, maxOperatorConflicts, type OperatorDecision, type OperatorWrite } from './circuit.ts'
import { CircuitStorageError, type StorageOperation } from './errors.ts'
import { open, reset } from './state-machine.ts'
import type { BoundedStorage, OperatorRun } from './storage/bounded-storage.ts'
import type { CircuitRecord, ICircuitStorage, WriteResult } from './storage/circuit-storage.ts'
import { gravestOf } from './storage/failed-batch.ts'

/** What `batchSetState` can set. */
export type StateToSet = 'OPEN' | 'CLOSED'

/** What is stored, by service key. */
export async function readCircuits(
  store: BoundedStorage,
  circuits: readonly Circuit[],
): Promise<Map<string, CircuitRecord>> {
  const outcome = new BatchOutcome<CircuitRecord>('batchGetState')
  await readBatch(store, circuits, outcome)
  for (const circuit of circuits) {
    if (!outcome.hasFailed(circuit) && circuit.stored !== undefined) outcome.succeeded(circuit, circuit.stored)
  }
  return outcome.results()
}

/** Sets circuits, each on condition that nobody else has changed it; where somebody has, it is decided again. */
export async function setCircuits(
  store: BoundedStorage,
  wanted: ReadonlyMap<Circuit, StateToSet>,
): Promise<Map<string, CircuitRecord>> {
  const outcome = new BatchOutcome<CircuitRecord>('batchSetState')
  await readBatch(store, [...wanted.keys()], outcome)
  await Promise.all([...wanted].map(([circuit, state]) => state === 'CLOSED' && outcome.repair(circuit)))
  const attempts = new Map<Circuit, () => OperatorWrite>()
  for (const [circuit, state] of wanted) {
    const decide: OperatorDecision = (record, now, tokens) =>
      state === 'CLOSED' ? reset(record, now, tokens) : open(record, now, circuit.settings, tokens, undefined)
    if (!outcome.hasFailed(circuit)) attempts.set(circuit, circuit.beginOperation('set', decide))
  }
  for (let conflicts = 0; attempts.size > 0; conflicts++) {
    const writes = new Map([...attempts].map(([circuit, attempt]) => [circuit, attempt()]))
    const replies = await writeBatch(store, writes, outcome)
    for (const [circuit, { take }] of writes) {
      const reply = replies.get(circuit.storageKey)
      const isStored = reply !== undefined && take(reply)
      // What was deleted before its reply came is set again.
      if (isStored && circuit.stored !== undefined) outcome.succeeded(circuit, circuit.stored)
      else if (reply !== undefined && conflicts >= maxOperatorConflicts) outcome.failed(circuit, circuit.contended())
      else if (reply !== undefined) continue
      else if (!outcome.hasFailed(circuit)) outcome.failed(circuit, unanswered(circuit))
      attempts.delete(circuit)
    }
  }
  return outcome.results()
}

/** Deletes circuits. */
export async function clearCircuits(store: BoundedStorage, circuits: readonly Circuit[]): Promise<void> {
  if (circuits.length === 0) return
  const outcome = new BatchOutcome<true>('batchClearState')
  const keys = circuits.map((circuit) => circuit.storageKey)
  try {
    const clear = (storage: ICircuitStorage) => storage.batchClearState(keys)
    await store.run('batchClearState', namesOf(circuits), clear, undefined, roundsFor(circuits))
  } catch (error) {
    outcome.takeErrors(circuits, error as CircuitStorageError)
  }
  for (const circuit of circuits) {
    if (outcome.hasFailed(circuit)) continue
    circuit.cleared()
    outcome.succeeded(circuit, true)
  }
  outcome.results()
}

async function readBatch(
  store: BoundedStorage,
  circuits: readonly Circuit[],
  outcome: BatchOutcome<unknown>,
): Promise<void> {
  if (circuits.length === 0) return
  const takers = new Map(circuits.map((circuit) => [circuit, circuit.beginRead()]))
  const keys = circuits.map((circuit) => circuit.storageKey)
  let records: ReadonlyMap<string, CircuitRecord> = new Map()
  try {
    const read = (storage: ICircuitStorage) => storage.batchGetState(keys)
    records = await store.run('batchGetState', namesOf(circuits), read, undefined, roundsFor(circuits))
  } catch (error) {
    records = outcome.takeErrors(circuits, error as CircuitStorageError)
  }
  for (const [circuit, take] of takers) {
    if (!outcome.hasFailed(circuit)) take(records.get(circuit.storageKey))
  }
}

async function writeBatch(
  store: BoundedStorage,
  writes: ReadonlyMap<Circuit, OperatorWrite>,
  outcome: BatchOutcome<unknown>,
): Promise<ReadonlyMap<string, WriteResult>> {
  const circuits = [...writes.keys()]
  const sets = Array.from(writes.values(), ({ write }) => write)
  const takeLate = (replies: ReadonlyMap<string, WriteResult>): void => {
    for (const [circuit, { takeLate: take }] of writes) {
      const reply = replies.get(circuit.storageKey)
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

/** What became of each circuit of a batch. */
class BatchOutcome<T> {
  readonly #operation: StorageOperation
  readonly #results = new Map<string, T>()
  readonly #errors = new Map<string, CircuitStorageError>()

  constructor(operation: StorageOperation) {
    this.#operation = operation
  }

  succeeded({ service }: Circuit, result: T): void {
    this.#results.set(service, result)
  }

  /** Adapters know a circuit by the key that it is stored under; who asked knows the service. */
  failed({ service }: Circuit, { message, corrupt, kind, cause }: CircuitStorageError): void {
    const details = { operation: this.#operation, service, corrupt, kind, cause }
    this.#errors.set(service, new CircuitStorageError(message, details))
  }

  hasFailed({ service }: Circuit): boolean {
    return this.#errors.has(service)
  }

  /** Deletes a record that does not parse, as `reset` does. */
  async repair(circuit: Circuit): Promise<void> {
    if (this.#errors.get(circuit.service)?.corrupt !== true) return
    try {
      await circuit.clearDamage()
      this.#errors.delete(circuit.service)
    } catch (error) {
      this.failed(circuit, error as CircuitStorageError)
    }
  }

  /** Takes the error of a batch; returns what arrived all the same, by storage key. */
  takeErrors<R>(circuits: readonly Circuit[], error: CircuitStorageError): ReadonlyMap<string, R> {
    const { results, errors } = error
    const arrived = (results instanceof Map ? results : new Map()) as ReadonlyMap<string, R>
    for (const circuit of circuits) {
      const own = errors instanceof Map ? errors.get(circuit.storageKey) : error
      if (own !== undefined) this.failed(circuit, own)
    }
    return arrived
  }

  results(): Map<string, T> {
    if (this.#errors.size === 0) return this.#results
    const failed = [...this.#errors.keys()].map((service) => JSON.stringify(service)).join(', ')
    const [first] = this.#errors.values()
    throw new CircuitStorageError(`${this.#operation} failed for ${failed}: ${first?.message}`, {
      operation: this.#operation,
      cause: first,
      results: this.#results,
      errors: this.#errors,
      corrupt: [...this.#errors.values()].every((error) => error.corrupt),
      kind: gravestOf(this.#errors.values()),
    })
  }
}

function unanswered({ service }: Circuit): CircuitStorageError {
  const message = `The store's answer to batchSetState says nothing of ${JSON.stringify(service)}.`
  return new CircuitStorageError(message, { operation: 'batchSetState', service })
}

/** Adapters send conditional writes side by side, but no more than some at once. */
function roundsFor(circuits: readonly Circuit[]): OperatorRun {
  return { rounds: Math.ceil(circuits.length / 16) }
}

function namesOf(circuits: readonly Circuit[]): Map<string, string> {
  return new Map(circuits.map(({ storageKey, service }) => [storageKey, service]))
}
