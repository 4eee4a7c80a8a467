/**
 * The circuits of a store as they change, with at most one batch of reads a second.
 *
 * @module
 */

import type { JournalEntry } from '../storage/contract.ts'
import { tryJournal } from './journal.ts'
import type { Place } from './place.ts'
import { listKeys, readStored, type StoredCircuit } from './stored-circuits.ts'

/** So often the circuits are read, in milliseconds. */
export const interval = 1_000
/** So many reads are between two searches for new circuits. */
const readsPerList = 30
/** Of so many circuits the journals are read with each refresh at most: those that have changed. */
const journalsPerRead = 20

/** The circuits, their journals, and what has failed last. */
export interface Board {
  readonly circuits: readonly StoredCircuit[]
  /** By stored key, the oldest entry first. */
  readonly journals: ReadonlyMap<string, readonly JournalEntry[]>
  /** When they were read, in milliseconds since the epoch. */
  readonly at: number
  /** The store's last failure; `undefined` after a success. */
  readonly trouble: string | undefined
}

/** Reads the circuits again and again. */
export class BoardReader {
  readonly #place: Place
  readonly #now: () => number
  readonly #span: number
  /** The keys of the last search. Written by {@link refresh}. */
  #keys: readonly string[] = []
  #reads = 0
  readonly #journals = new Map<string, readonly JournalEntry[]>()
  /** The version of each circuit when its journal was read. */
  readonly #known = new Map<string, string | undefined>()
  #last: Board

  /** @param span how far back journals are read, in milliseconds */
  constructor(place: Place, now: () => number, span: number) {
    this.#place = place
    this.#now = now
    this.#span = span
    this.#last = { circuits: [], journals: this.#journals, at: now(), trouble: undefined }
  }

  /** Reads once: a search or a batch. Never rejects: the last board stays, with its trouble. */
  async refresh(): Promise<Board> {
    try {
      const { storage } = this.#place
      if (this.#reads % readsPerList === 0) this.#keys = await listKeys(this.#place)
      this.#reads++
      const circuits = await readStored(storage, this.#keys)
      await this.#readJournals(circuits)
      this.#last = { circuits, journals: this.#journals, at: this.#now(), trouble: undefined }
    } catch (error) {
      this.#last = { ...this.#last, trouble: (error as Error).message }
    }
    return this.#last
  }

  /** The next refresh searches for circuits, too: one was made just now. */
  searchNext(): void {
    this.#reads = 0
  }

  async #readJournals(circuits: readonly StoredCircuit[]): Promise<void> {
    if (this.#place.storage.readJournal === undefined) return
    const isNew = ({ key, record }: StoredCircuit) => !this.#known.has(key) || this.#known.get(key) !== record?.epoch
    const changed = circuits.filter(isNew).slice(0, journalsPerRead)
    const since = this.#now() - this.#span
    await Promise.all(
      changed.map(async ({ key, record }) => {
        const entries = await tryJournal(this.#place.storage, key, { since, limit: 500 })
        this.#known.set(key, record?.epoch)
        this.#journals.set(key, entries ?? [])
      }),
    )
  }
}
