/**
 * The states that a circuit has had, from its journal.
 *
 * @module
 */

import type { CircuitState, JournalEntry } from '../storage/contract.ts'

/** A time during which a circuit had one state. Instants are milliseconds since the epoch. */
export interface Band {
  readonly from: number
  readonly to: number
  readonly state: CircuitState
  /** An operator had forced it. */
  readonly isForced: boolean
}

/**
 * The states from one instant to another, the oldest first. Before its first entry a circuit had the state that this entry
 * left; without any entry, the state that it has now.
 *
 * @param entries the oldest first
 * @param current the state that the circuit has now
 */
export function bandsOf(entries: readonly JournalEntry[], current: CircuitState, from: number, to: number): Band[] {
  const bands: Band[] = []
  let start = from
  let state = entries[0]?.from ?? current
  let isForced = false
  const end = (at: number): void => {
    const until = Math.min(Math.max(at, from), to)
    if (until > start) bands.push({ from: start, to: until, state, isForced })
    start = Math.max(start, until)
  }
  for (const [i, entry] of entries.entries()) {
    end(entry.at)
    state = entry.to
    isForced = entry.reason === 'forced-open' || entry.reason === 'forced-closed'
    const next = entries[i + 1]
    if (!isForced || entry.until === undefined || entry.until >= (next?.at ?? to)) continue
    // It ended by itself, which leaves no entry.
    end(entry.until)
    state = next?.from ?? current
    isForced = false
  }
  end(to)
  return bands
}

const blocks: Readonly<Record<CircuitState, string>> = { CLOSED: '▁', HALF_OPEN: '▄', OPEN: '█' }
const order: readonly CircuitState[] = ['CLOSED', 'HALF_OPEN', 'OPEN']

/** A line of blocks, each as high as the worst state in its part of the time: open is high, closed is low. */
export function sparkline(bands: readonly Band[], from: number, to: number, width: number): string {
  const step = (to - from) / width
  return Array.from({ length: width }, (_, i) => {
    const [begin, end] = [from + i * step, from + (i + 1) * step]
    const states = bands.filter((band) => band.from < end && band.to > begin).map((band) => order.indexOf(band.state))
    return blocks[order[Math.max(0, ...states)] as CircuitState]
  }).join('')
}
