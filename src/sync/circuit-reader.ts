/**
 * Reads circuits together: one batch for all that are stale, with those that nearly are, and with all that are asked for in
 * the same turn.
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
  readonly #circuits: Iterable<Synchronizer>
  readonly #store: StoreAccess
  readonly #runtime: Runtime
  /** The batch that has not left yet. Written by `load`, ended by `#read`. */
  #gathering: { readonly circuits: Synchronizer[]; readonly reading: Promise<void> } | undefined

  /** @param circuits all that may be read along with one that is due */
  constructor(circuits: Iterable<Synchronizer>, store: StoreAccess, runtime: Runtime) {
    this.#circuits = circuits
    this.#store = store
    this.#runtime = runtime
  }

  /** Reads circuits in one batch; waits for those that are being read. Never rejects. */
  load(circuits: readonly Synchronizer[]): Promise<void> {
    if (circuits.some(({ loading }) => loading === undefined)) {
      // Circuits that are nearly stale come along, so that they are read together from then on.
      const now = this.#runtime.now()
      const batch = this.#gathered()
      // To be read takes a key out of those that may come along.
      for (const sync of new Set([...this.#circuits, ...circuits])) {
        const { loading, loadAttempted, circuit } = sync
        if (loading !== undefined || (loadAttempted && !circuit.isAging(now))) continue
        batch.circuits.push(sync)
        sync.readBegins(batch.reading)
      }
    }
    return Promise.all(circuits.map(({ loading }) => loading)).then(noop)
  }

  /** The batch that leaves at the end of the turn. */
  #gathered(): { readonly circuits: Synchronizer[]; readonly reading: Promise<void> } {
    if (this.#gathering === undefined) {
      const circuits: Synchronizer[] = []
      // The callers note this read before it ends, also where the store is left alone.
      const reading = settled.then(() => {
        this.#gathering = undefined
        return this.#read(circuits)
      })
      this.#gathering = { circuits, reading }
    }
    return this.#gathering
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
    const names = new Map(circuits.map(({ storageKey, circuit }) => [storageKey, circuit]))
    try {
      if (!this.#store.canRead) return
      adopt(await this.#store.run('batchGetState', names, (storage) => storage.batchGetState(keys), adopt))
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

const settled = Promise.resolve()

function noop(): void {}
