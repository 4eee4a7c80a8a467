/**
 * The check of a journal that a store returned. Anybody may have written into it: a text is cut and made harmless to a
 * terminal, and an entry that is none is left out.
 *
 * @module
 */

import type { CircuitState, FailureSummary, JournalEntry, StateChangeReason } from './contract.ts'

/** The longest id, key or name of something in AWS, in characters: a log stream has up to 512. */
const longestName = 512
/** The longest name or code of a failure, in characters. */
const longestSummary = 64
/** The largest instant that a `Date` can hold. */
const largestInstant = 8.64e15

type Fields = Readonly<Record<string, unknown>>

/** @returns the entries among them, without repetitions, the latest first */
export function parseJournal(raw: unknown): JournalEntry[] {
  const entries = new Map<string, JournalEntry>()
  for (const one of Array.isArray(raw) ? raw : []) {
    const entry = parseEntry(one)
    if (entry !== undefined) entries.set(entry.id, entry)
  }
  return [...entries.values()].sort((a, b) => b.at - a.at || b.generation - a.generation)
}

function parseEntry(raw: unknown): JournalEntry | undefined {
  if (!isObject(raw)) return undefined
  const { evidence, lastFailure } = raw
  const [id, service, reason] = [text(raw['id']), text(raw['service']), text(raw['reason'], longestSummary)]
  const [at, generation] = [amount(raw['at']), amount(raw['generation'])]
  const [from, to] = [stateIn(raw['from']), stateIn(raw['to'])]
  if (id === undefined || service === undefined || reason === undefined || at === undefined) return undefined
  if (generation === undefined || from === undefined || to === undefined) return undefined
  return {
    id,
    at,
    service,
    key: text(raw['key']),
    from,
    to,
    generation,
    // A later version may have other reasons: they are shown as they are.
    reason: reason as StateChangeReason,
    evidence: isObject(evidence)
      ? {
          failures: amount(evidence['failures']) ?? 0,
          successes: amount(evidence['successes']) ?? 0,
          reporters: amount(evidence['reporters']) ?? 0,
        }
      : undefined,
    lastFailure: isObject(lastFailure) ? failureIn(lastFailure) : undefined,
    retryAt: amount(raw['retryAt']),
    until: amount(raw['until']),
    functionName: text(raw['functionName']),
    logStream: text(raw['logStream']),
    requestId: text(raw['requestId']),
    traceId: text(raw['traceId']),
    by: text(raw['by'], 128),
    why: text(raw['why'], 500),
  }
}

function failureIn(raw: Fields): FailureSummary {
  return {
    at: amount(raw['at']) ?? 0,
    name: text(raw['name'], longestSummary) ?? 'Error',
    code: text(raw['code'], longestSummary),
    status: amount(raw['status']),
  }
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function text(value: unknown, longest: number = longestName): string | undefined {
  return typeof value === 'string' && value !== ''
    ? value.slice(0, longest).replace(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu, '\ufffd')
    : undefined
}

function amount(value: unknown): number | undefined {
  return typeof value === 'number' && value >= 0 && value <= largestInstant ? value : undefined
}

function stateIn(value: unknown): CircuitState | undefined {
  return value === 'CLOSED' || value === 'OPEN' || value === 'HALF_OPEN' ? value : undefined
}
