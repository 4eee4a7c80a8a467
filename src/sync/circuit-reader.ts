/**
 * Reads circuits together: one batch for all that are stale, with those that nearly are.
 *
 * @module
 */

import type { CircuitStorageError } from '../errors.ts'
import { isCircuitStorageError } from '../errors.ts'
import type { Runtime } from '../runtime.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import type { StoreAccess } from '../storage/store-access.ts'
import type { Synchronizer } from './synchronizer.ts'

type StorageErrors = ReadonlyMap<string, CircuitStorageError>

export class CircuitReader {
  readonly #circuits: readonly Synchronizer[]
  readonly #store: StoreAccess
  readonly #runtime: Runtime

  /** @param circuits all that may be read along with one that is due */
  constructor(circuits: readonly Synchronizer[], store: StoreAccess, runtime: Runtime) {
    this.#circuits = circuits
    this.#store = store
    this.#runtime = runtime
  }

  /** Reads circuits in one batch; waits for those that are being read. Never rejects. */
  load(circuits: readonly Synchronizer[]): Promise<void> {
    if (circuits.some(({ loading }) => loading === undefined)) {
      // Circuits that are nearly stale come along, so that they are read together from then on.
      const now = this.#runtime.now()
      const due = this.#circuits.filter(
        ({ loading, loadAttempted, circuit }) => loading === undefined && (!loadAttempted || circuit.isAging(now)),
      )
      const reading = this.#read(due)
      for (const sync of due) {
        sync.loading = reading
        sync.loadFailed = false
      }
    }
    return Promise.all(circuits.map(({ loading }) => loading)).then(noop)
  }

  async #read(circuits: readonly Synchronizer[]): Promise<void> {
    const exchanges = circuits.map(({ circuit }) => circuit.begin())
    const adopt = (records: ReadonlyMap<string, CircuitRecord>, errors?: StorageErrors): void => {
      for (const [index, { circuit, storageKey }] of circuits.entries()) {
        const exchange = exchanges[index]
        if (exchange !== undefined) circuit.readAnswered(exchange, errors?.get(storageKey) ?? records.get(storageKey))
      }
    }
    const keys = circuits.map(({ storageKey }) => storageKey)
    const services = new Map(circuits.map(({ storageKey, circuit }) => [storageKey, circuit.service]))
    try {
      // Go on one turn later: the callers note this read before it ends, also where the store is left alone.
      await undefined
      if (!this.#store.canRead) return
      adopt(await this.#store.run('batchGetState', services, (storage) => storage.batchGetState(keys), adopt))
    } catch (error) {
      // Use the records that arrived in a batch that failed in part.
      const { results, errors } = error as CircuitStorageError
      for (const sync of circuits) {
        sync.loadFailed = !(results instanceof Map) || errors?.has(sync.storageKey) === true
        if (sync.loadFailed) sync.circuit.readFailed(errors?.get(sync.storageKey) ?? error)
      }
      const [first] = exchanges
      if (results instanceof Map) adopt(results, errors)
      else if (circuits.length === 1 && first !== undefined && isCircuitStorageError(error)) {
        circuits[0]?.circuit.readAnswered(first, error)
      }
      const wanted = circuits.filter(({ circuit }) => circuit.readsByWriting)
      // A write that fails is reported like any other.
      await Promise.all(wanted.map((sync) => sync.readByWriting().catch(() => sync.circuit.refusedWriting())))
    } finally {
      for (const sync of circuits) {
        sync.loadAttempted = true
        sync.loading = undefined
        void sync.drain()
      }
    }
  }
}

function noop(): void {}
