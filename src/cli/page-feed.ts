/**
 * What the page is told, and when: about once a second, as long as somebody looks.
 *
 * @module
 */

import type { ServerResponse } from 'node:http'
import type { Runtime, TimerHandle } from '../runtime.ts'
import type { Evidence, JournalEntry } from '../storage/contract.ts'
import { type Board, BoardReader, interval } from './board.ts'
import { type Band, bandsOf } from './history.ts'
import type { Place } from './place.ts'
import { type StoredCircuit, standingOf } from './stored-circuits.ts'
import { duration } from './times.ts'
import { entryText, explain, nextOf, titles } from './words.ts'

/** The clock and the timers of the page. */
export type Clock = Pick<Runtime, 'now' | 'setTimeout' | 'clearTimeout'>

/** Fleets that meet the same outage, to be seen side by side. */
export interface Comparison {
  readonly title: string
  /** What happens at the moment. */
  readonly text: string
  /** What is shown, in milliseconds since the epoch. */
  readonly from: number
  readonly to: number
  readonly fleets: readonly ComparedFleet[]
}

/** One of them. */
export interface ComparedFleet {
  readonly title: string
  /** The number that is compared, and its noun. */
  readonly figure: number
  readonly unit: string
  /** Calls in parts of the time: those that failed and those that a circuit refused. */
  readonly counts: readonly { readonly at: number; readonly failed: number; readonly refused: number }[]
  /** The states of each instance. */
  readonly lanes: readonly { readonly name: string; readonly bands: readonly Band[] }[]
}

/** How a feed works. */
export interface FeedOptions {
  readonly clock: Clock
  readonly canWrite: boolean
  readonly span?: number
  readonly comparison?: () => Comparison
}

const day = 86_400_000
/** The most entries of a journal that the page shows. */
const mostEntries = 50

/** Sends the circuits to all pages that are open. Reads only while there is one, and never more than once a second. */
export class Feed {
  readonly #place: Place
  readonly #options: FeedOptions
  readonly #span: number
  readonly #reader: BoardReader
  readonly #pages = new Set<ServerResponse>()
  /** The timer of the next read. Unset while nobody looks. Written by {@link #later} and {@link #read}. */
  #timer: TimerHandle | undefined
  /** A read is under way. Written by {@link #read}. */
  #isReading = false
  /** When the last read began. Written by {@link #read}. */
  #readAt = Number.NEGATIVE_INFINITY
  /** The last event that was sent. Written by {@link #read}. */
  #latest: string | undefined

  constructor(place: Place, options: FeedOptions) {
    this.#place = place
    this.#options = options
    this.#span = options.span ?? day
    this.#reader = new BoardReader(place, options.clock.now, this.#span)
  }

  /** Answers a page that wants to be told. */
  subscribe(response: ServerResponse): void {
    response.write('retry: 2000\n\n')
    this.#pages.add(response)
    response.on('close', () => this.#leave(response))
    if (this.#latest !== undefined) response.write(this.#latest)
    this.#later()
  }

  /** Something has changed: the next read searches for new circuits, too. */
  soon(): void {
    this.#reader.searchNext()
  }

  close(): void {
    if (this.#timer !== undefined) this.#options.clock.clearTimeout(this.#timer)
    // A page that lost its server would try to find it again for ever.
    for (const page of this.#pages) page.end('event: end\ndata:\n\n')
    this.#pages.clear()
  }

  #leave(response: ServerResponse): void {
    this.#pages.delete(response)
    if (this.#pages.size > 0 || this.#timer === undefined) return
    this.#options.clock.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #later(): void {
    if (this.#timer !== undefined || this.#isReading || this.#pages.size === 0) return
    const { clock } = this.#options
    const wait = Math.min(interval, Math.max(0, this.#readAt + interval - clock.now()))
    this.#timer = clock.setTimeout(() => void this.#read(), wait)
  }

  async #read(): Promise<void> {
    this.#timer = undefined
    this.#isReading = true
    this.#readAt = this.#options.clock.now()
    const board = await this.#reader.refresh()
    this.#isReading = false
    this.#latest = `data: ${JSON.stringify(this.#message(board))}\n\n`
    for (const page of this.#pages) {
      // A page that is behind gets the next one.
      if (!page.writableNeedDrain) page.write(this.#latest)
    }
    this.#later()
  }

  /** Everything in words comes from here, so that terminal and page say the same. */
  #message({ circuits, journals, trouble }: Board): object {
    const at = this.#options.clock.now()
    const from = at - this.#span
    return {
      place: this.#place.name,
      namespace: this.#place.namespace ?? null,
      at,
      from,
      span: duration(this.#span).replace('1 d', '24 hours'),
      canWrite: this.#options.canWrite,
      trouble: trouble ?? null,
      comparison: this.#options.comparison?.() ?? null,
      circuits: circuits.map((circuit) => cardOf(circuit, journals.get(circuit.key) ?? [], from, at)),
    }
  }
}

function cardOf(circuit: StoredCircuit, entries: readonly JournalEntry[], from: number, now: number): object {
  const { key, record } = circuit
  const standing = standingOf(circuit, now)
  const { facts, advice } = explain(circuit, entries, now)
  return {
    key,
    standing,
    title: titles[standing],
    next: nextOf(circuit, standing, now),
    facts,
    advice,
    bands: bandsOf(entries, record?.state ?? 'CLOSED', from, now),
    failures: entries.flatMap(failuresOf),
    journal: entries
      .toReversed()
      .slice(0, mostEntries)
      .map((entry) => entryText(entry, now, false, key)),
  }
}

/** The failures that an entry tells of: those that opened the circuit, or its probe. */
function failuresOf({ at, to, reason, evidence }: JournalEntry): ({ at: number } & Evidence)[] {
  if (to !== 'OPEN') return []
  if (evidence !== undefined) return [{ at, ...evidence }]
  return reason === 'probe-failed' ? [{ at, failures: 1, successes: 0, reporters: 1 }] : []
}
