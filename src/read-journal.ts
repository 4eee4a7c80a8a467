/**
 * Reads a circuit's journal for an operator.
 *
 * @module
 */

import { CircuitStorageError, ConfigurationError, type ConfigurationProblem } from './errors.ts'
import type { Runtime } from './runtime.ts'
import type { JournalEntry } from './storage/contract.ts'
import { parseJournal } from './storage/journal.ts'
import type { Synchronizer } from './sync/synchronizer.ts'

/** The part of a journal that is read. */
export interface JournalOptions {
  /** No entry before this instant: a `Date` or milliseconds since the epoch. Default: as far back as there are entries. */
  readonly since?: Date | number | undefined
  /** The most entries to read, from 1 to 1 000. The latest ones are read. Default: 50. */
  readonly limit?: number | undefined
}

/**
 * The latest entries of a circuit's journal. A failure does not affect calls, because the journal is not part of the state.
 *
 * @param timeout the longest that the read may take, in milliseconds
 */
export async function readJournal(
  { store, storageKey, circuit: { service } }: Synchronizer,
  options: JournalOptions,
  runtime: Runtime,
  timeout: number,
): Promise<JournalEntry[]> {
  const { limit, since } = checked(options)
  const { storage } = store
  const operation = 'readJournal'
  if (storage.readJournal === undefined) {
    const message = 'The storage adapter keeps no journal: it has no method readJournal.'
    throw new CircuitStorageError(message, { operation, service, kind: 'misconfigured' })
  }
  await store.prepare()
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = runtime.setTimeout(() => {
    const message = `The store did not answer ${operation} within ${timeout} ms.`
    reject(new CircuitStorageError(message, { operation, service }))
  }, timeout)
  try {
    const raw = await Promise.race([storage.readJournal(storageKey, { since, limit }), late])
    return parseJournal(raw)
      .filter(({ at }) => at >= (since ?? 0))
      .slice(0, limit)
  } catch (cause) {
    throw store.errorOf(operation, cause)
  } finally {
    runtime.clearTimeout(timer)
  }
}

function checked({ since, limit = 50 }: JournalOptions): {
  readonly since: number | undefined
  readonly limit: number
} {
  const problems: ConfigurationProblem[] = []
  const instant = since === undefined ? undefined : Number(since)
  const refuse = (setting: string, value: unknown, allowed: string): void => {
    problems.push({
      setting,
      source: 'option',
      value,
      message: `${setting} must be ${allowed}, but is ${String(value)} (option)`,
    })
  }
  if (instant !== undefined && !(instant >= 0 && instant <= 8.64e15)) refuse('since', since, 'a time since 1970')
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > 1_000)
    refuse('limit', limit, 'a whole number from 1 to 1000')
  if (problems.length > 0) throw new ConfigurationError(problems)
  return { since: instant, limit }
}
