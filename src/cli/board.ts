/**
 * The circuits of a store as they change, with at most one batch of reads a second.
 *
 * @module
 */

import type { JournalEntry } from '../storage/contract.ts'
import { tryJournal } from './journal.ts'
import type { Place } from './place.ts'
import { listKeys, readStored, type StoredCircuit } from './stored-circuits.ts'

/** The pause between two reads of the circuits, in milliseconds. */
export const interval = 1_000
/** The number of reads between two searches for new circuits. */
const readsPerList = 30
/** So often the journal of a circuit that has changed is read: its entry is written after the record. */
const readsPerChange = 3
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
  /** How each circuit was when its journal was read, and how often the journal is still to be read. */
  readonly #known = new Map<string, { readonly mark: string; readonly left: number }>()
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
    const changed = circuits.filter((circuit) => this.#isToRead(circuit)).slice(0, journalsPerRead)
    const since = this.#now() - this.#span
    await Promise.all(
      changed.map(async (circuit) => {
        const { key } = circuit
        const mark = markOf(circuit)
        const known = this.#known.get(key)
        const entries = (await tryJournal(this.#place.storage, key, { since, limit: 500 })) ?? []
        const isNews = entries.at(-1)?.id !== this.#journals.get(key)?.at(-1)?.id
        const before = known?.mark === mark ? known.left : readsPerChange
        this.#known.set(key, { mark, left: isNews ? 0 : before - 1 })
        this.#journals.set(key, entries)
      }),
    )
  }

  #isToRead(circuit: StoredCircuit): boolean {
    const known = this.#known.get(circuit.key)
    return known?.mark !== markOf(circuit) || known.left > 0
  }
}

/** Differs after each change that leaves an entry. */
function markOf({ record }: StoredCircuit): string {
  return JSON.stringify([record?.epoch, record?.override])
}
