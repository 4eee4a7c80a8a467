/**
 * Reads journals, and makes of each entry one that can be trusted: a store hands out whatever somebody wrote.
 *
 * @module
 */

import { isCircuitStorageError } from '../errors.ts'
import { isObject } from '../settings/problems.ts'
import type { CircuitState, FailureSummary, ICircuitStorage, JournalEntry } from '../storage/contract.ts'

/** Reads the latest entries of a circuit, the oldest first. An entry that is none is left out. */
export async function readJournal(
  storage: ICircuitStorage,
  key: string,
  query: { readonly since: number; readonly limit: number },
): Promise<JournalEntry[]> {
  const entries = (await storage.readJournal?.(key, query)) ?? []
  return entries.flatMap((entry) => checkedEntry(entry) ?? []).sort((a, b) => a.at - b.at)
}

/** The same; `undefined`: the store keeps no journal, or it cannot be read. */
export async function tryJournal(
  storage: ICircuitStorage,
  key: string,
  query: { readonly since: number; readonly limit: number },
): Promise<JournalEntry[] | undefined> {
  if (storage.readJournal === undefined) return undefined
  try {
    return await readJournal(storage, key, query)
  } catch (error) {
    if (isCircuitStorageError(error)) return undefined
    throw error
  }
}

const states: readonly unknown[] = ['CLOSED', 'OPEN', 'HALF_OPEN'] satisfies CircuitState[]
const texts = ['id', 'service', 'functionName', 'logStream', 'requestId', 'traceId', 'by', 'why'] as const
const numbers = ['generation', 'retryAt', 'until'] as const

/** An entry with the fields that it should have, each of its type; `undefined`: it has no time or no states. */
export function checkedEntry(raw: unknown): JournalEntry | undefined {
  if (!isObject(raw)) return undefined
  const { at, from, to, reason, evidence, lastFailure } = raw
  if (!isInstant(at) || !states.includes(from) || !states.includes(to)) return undefined
  const entry: Record<string, unknown> = { at, from, to, reason: typeof reason === 'string' ? reason : 'unknown' }
  for (const name of texts) if (typeof raw[name] === 'string') entry[name] = raw[name]
  for (const name of numbers) if (Number.isFinite(raw[name])) entry[name] = raw[name]
  if (isObject(evidence)) {
    const count = (name: string): number => (Number.isFinite(evidence[name]) ? (evidence[name] as number) : 0)
    entry['evidence'] = { failures: count('failures'), successes: count('successes'), reporters: count('reporters') }
  }
  if (isObject(lastFailure)) entry['lastFailure'] = checkedFailure(lastFailure)
  return entry as unknown as JournalEntry
}

function checkedFailure({ at, name, code, status }: Readonly<Record<string, unknown>>): FailureSummary | undefined {
  if (!isInstant(at) || typeof name !== 'string') return undefined
  return {
    at,
    name,
    code: typeof code === 'string' ? code : undefined,
    status: Number.isInteger(status) ? (status as number) : undefined,
  }
}

/** The largest instant that a `Date` can hold, in milliseconds since the epoch. */
const latest = 8.64e15

function isInstant(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) <= latest
}
