/**
 * Circuits as a bad day leaves them behind, for the pictures of the page and its tests: one of each kind.
 *
 * @module
 */

import type { Place } from '../src/cli/place.ts'
import type { CircuitRecord, ICircuitStorage, JournalEntry } from '../src/storage/contract.ts'
import { MemoryCircuitStorage } from '../src/storage/memory.ts'
import { emptyRecord } from '../src/storage/record.ts'

const second = 1_000
const minute = 60 * second
const hour = 60 * minute

/** A store as the command line sees it. */
export function placeIn(storage: ICircuitStorage, name = 'table circuits', namespace?: string): Place {
  return { storage, config: { type: 'custom' } as never, name, namespace, env: {}, functions: [] }
}

/** Stores a record in place of whatever is there. */
export async function put(
  storage: ICircuitStorage,
  key: string,
  given: Partial<CircuitRecord>,
  now: number,
): Promise<void> {
  await storage.clearState(key)
  await storage.compareAndSetState(key, undefined, { ...emptyRecord(`${key}-${now}`, now), ...given })
}

let entries = 0

/** Appends an entry to the journal of a circuit. */
export async function note(
  storage: ICircuitStorage,
  key: string,
  at: number,
  change: Pick<JournalEntry, 'from' | 'to' | 'reason'> & Partial<JournalEntry>,
): Promise<void> {
  entries++
  await storage.appendJournal?.(key, { id: `entry-${entries}`, at, service: key, generation: entries, ...change })
}

const author = {
  functionName: 'checkout-prod',
  logStream: '2030/01/31/[$LATEST]5d3f0c6e',
  requestId: '8f5ab0f2-3c1d-4e0f-9a55-0d6f7c2b1a90',
}

/** Fills a store with the circuits of a shop. */
export async function badDay(now: number): Promise<MemoryCircuitStorage> {
  const storage = new MemoryCircuitStorage()
  /** An opening, its probes and its end; `to` undefined: it is still open. */
  const outage = async (key: string, from: number, to: number | undefined, failures: number) => {
    await note(storage, key, from, {
      from: 'CLOSED',
      to: 'OPEN',
      reason: 'failure-threshold',
      evidence: { failures, successes: 1, reporters: Math.ceil(failures / 2) },
      lastFailure: { name: 'TimeoutError', code: 'ETIMEDOUT', at: from },
      ...author,
    })
    const end = to ?? now
    let wait = minute
    for (let at = from + wait; at < end - minute; at += wait) {
      await note(storage, key, at, { from: 'OPEN', to: 'HALF_OPEN', reason: 'probe-started', ...author })
      await note(storage, key, at + 4 * second, { from: 'HALF_OPEN', to: 'OPEN', reason: 'probe-failed', ...author })
      wait = Math.min(2 * wait, 10 * minute)
    }
    if (to === undefined) return
    await note(storage, key, to, { from: 'OPEN', to: 'HALF_OPEN', reason: 'probe-started', ...author })
    await note(storage, key, to + 20 * second, {
      from: 'HALF_OPEN',
      to: 'CLOSED',
      reason: 'probe-succeeded',
      ...author,
    })
  }

  await outage('payments', now - 15 * hour, now - 14.6 * hour, 5)
  await outage('payments', now - 23 * minute, undefined, 14)
  await put(
    storage,
    'payments',
    {
      state: 'OPEN',
      generation: 9,
      trips: 6,
      failureCount: 14,
      openedAt: now - 23 * minute,
      retryAt: now + 47 * second,
      resetTimeout: 10 * second,
      lastFailure: { name: 'TimeoutError', code: 'ETIMEDOUT', at: now - 2 * minute },
    },
    now,
  )
  await outage('search', now - 6.2 * hour, now - 5.9 * hour, 6)
  await outage('search', now - 2.2 * hour, now - 1.8 * hour, 9)
  await put(
    storage,
    'search',
    {
      suspectedAt: now - 3 * second,
      failureCount: 2,
      successCount: 3,
      reporterCount: 3,
      lastFailure: { name: 'HTTPError', status: 503, at: now - 3 * second },
    },
    now,
  )
  await outage('email', now - 4 * minute, undefined, 4)
  await put(
    storage,
    'email',
    {
      state: 'HALF_OPEN',
      trips: 3,
      failureCount: 4,
      openedAt: now - 4 * minute,
      leases: [{ id: 'lease', claimedAt: now - second, expiresAt: now + 9 * second }] as never,
      lastFailure: { name: 'FetchError', code: 'ECONNRESET', at: now - 4 * minute },
    },
    now,
  )
  const by = 'assumed-role/on-call'
  const why = 'The provider loses every other message: incident 4711.'
  await note(storage, 'sms', now - 3.4 * hour, { from: 'CLOSED', to: 'OPEN', reason: 'forced-open', by, why })
  await put(storage, 'sms', { override: { state: 'OPEN', at: now - 3.4 * hour, until: now + 2 * hour, by, why } }, now)
  await outage('geolocation', now - 10.5 * hour, now - 10 * hour, 7)
  await put(storage, 'geolocation', { closedAt: now - 10 * hour }, now)
  await put(storage, 'shipping', { closedAt: now - 30 * hour }, now)
  return storage
}
