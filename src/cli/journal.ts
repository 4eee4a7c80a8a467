/**
 * Reads journals. A store hands out whatever somebody wrote, so that each entry is checked.
 *
 * @module
 */

import { isCircuitStorageError } from '../errors.ts'
import type { ICircuitStorage, JournalEntry, JournalQuery } from '../storage/contract.ts'
import { parseJournal } from '../storage/journal.ts'

/** Reads the latest entries of a circuit, the oldest first. */
export async function readJournal(storage: ICircuitStorage, key: string, query: JournalQuery): Promise<JournalEntry[]> {
  return parseJournal(await storage.readJournal?.(key, query)).reverse()
}

/** The same; `undefined`: the store keeps no journal, or it cannot be read. */
export async function tryJournal(
  storage: ICircuitStorage,
  key: string,
  query: JournalQuery,
): Promise<JournalEntry[] | undefined> {
  if (storage.readJournal === undefined) return undefined
  try {
    return await readJournal(storage, key, query)
  } catch (error) {
    if (isCircuitStorageError(error)) return undefined
    throw error
  }
}
