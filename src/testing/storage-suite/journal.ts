/**
 * The cases about the journal of circuits and about their list. An adapter that has no such methods passes them.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CircuitPage, ICircuitStorage, JournalEntry, ListQuery } from '../../storage/contract.ts'
import { parseJournal } from '../../storage/journal.ts'
import { type Bench, type Cases, circuitRecord, expectSame, journalEntry } from './bench.ts'

/** At least so many of a circuit's entries are kept. */
const keptEntries = 50

/** The adapter's methods for the journal. */
type Journal = Required<Pick<ICircuitStorage, 'appendJournal' | 'readJournal'>>

/** A case for adapters that keep a journal. */
function withJournal(run: (bench: Bench, journal: Journal) => Promise<void>): (bench: Bench) => Promise<void> {
  return async (bench) => {
    const { appendJournal, readJournal } = bench.storage
    if (appendJournal !== undefined || readJournal !== undefined) await run(bench, bound(bench))
  }
}

/** A case for adapters that list circuits. */
function withList(run: (bench: Bench, list: (query: ListQuery) => Promise<CircuitPage>) => Promise<void>) {
  return async (bench: Bench): Promise<void> => {
    const { storage } = bench
    if (storage.listCircuits !== undefined) await run(bench, storage.listCircuits.bind(storage))
  }
}

async function expectEntries(
  { readJournal }: Journal,
  key: string,
  expected: readonly JournalEntry[],
  what: string,
): Promise<void> {
  expectSame(await readJournal(key, { limit: 100 }), expected, what)
}

export const journalCases: Cases = {
  'has both methods of a journal or neither': async ({ storage: { appendJournal, readJournal } }) => {
    assert.equal(typeof appendJournal, typeof readJournal, 'one of appendJournal and readJournal is missing')
  },

  'keeps every field of an entry': withJournal(async (bench, journal) => {
    const [full, bare, empty] = [bench.key(), bench.key(), bench.key()]
    const now = Date.now()
    const entry = journalEntry({
      at: now,
      evidence: { failures: 4, successes: 1, reporters: 3 },
      lastFailure: { at: now - 1, name: 'TimeoutError', code: 'ETIMEDOUT', status: 503 },
      retryAt: now + 10_000,
      until: now + 60_000,
      functionName: 'pay',
      logStream: '2026/01/02/[$LATEST]58419525dade4d17a495dceeeed44708',
      requestId: randomUUID(),
      traceId: '1-5759e988-bd862e3fe1be46a994272793',
      by: 'Zoë 🚒',
      why: 'a "quoted" reason, with # and \\ in it',
    })
    await journal.appendJournal(full, entry)
    await expectEntries(journal, full, [entry], 'an entry with every field')
    const least = journalEntry()
    await journal.appendJournal(bare, least)
    await expectEntries(journal, bare, [least], 'an entry without optional fields')
    await expectEntries(journal, empty, [], 'a circuit without a journal')
  }),

  'reads the latest entries first, no more than it is asked for, and none before': withJournal(
    async (bench, journal) => {
      const key = bench.key()
      const now = Date.now()
      const entries = Array.from({ length: 5 }, (_, index) => journalEntry({ at: now - 5_000 + 1_000 * index }))
      for (const entry of entries) await journal.appendJournal(key, entry)
      const latest = entries.toReversed()
      await expectEntries(journal, key, latest, 'five entries')
      expectSame(await journal.readJournal(key, { limit: 2 }), latest.slice(0, 2), 'limit: 2')
      expectSame(await journal.readJournal(key, { since: now - 3_000 }), latest.slice(0, 3), 'since the third')
      expectSame(await journal.readJournal(key), latest, 'everything, by default')
    },
  ),

  'keeps the last 50 entries': withJournal(async (bench, journal) => {
    const key = bench.key()
    const now = Date.now()
    const entries = Array.from({ length: keptEntries + 3 }, (_, index) => journalEntry({ at: now + index }))
    for (const entry of entries) await journal.appendJournal(key, entry)
    const latest = entries.toReversed().slice(0, keptEntries)
    expectSame((await journal.readJournal(key, { limit: keptEntries })).slice(0, keptEntries), latest, 'the last 50')
  }),

  'loses no entry that comes at the same time as others': withJournal(async (bench, journal) => {
    const key = bench.key()
    const entries = Array.from({ length: bench.parallelWrites }, () => journalEntry())
    await Promise.all(entries.map((entry) => journal.appendJournal(key, entry)))
    const ids = (await journal.readJournal(key, { limit: 100 })).map(({ id }) => id)
    assert.deepEqual(new Set(ids), new Set(entries.map(({ id }) => id)), 'parallel entries')
  }),

  'keeps journals apart from each other and from records': withJournal(async (bench, journal) => {
    const [first, second] = [bench.key(), bench.key()]
    const record = await bench.create(first)
    const entry = journalEntry()
    await journal.appendJournal(first, entry)
    await bench.expectStored(first, record, 'a record whose journal was written')
    await bench.storage.compareAndSetState(first, record.version, circuitRecord({ failureCount: 1 }))
    await expectEntries(journal, first, [entry], 'the journal of a record that was replaced')
    await expectEntries(journal, second, [], 'the journal of another circuit')
    await journal.appendJournal(second, journalEntry())
    await bench.expectStored(second, undefined, 'a circuit that has a journal alone')
    await bench.storage.clearState(first)
    await expectEntries(journal, first, [entry], 'the journal of a record that was deleted')
  }),

  'lists circuits page by page, each that has an entry': withList(async (bench, list) => {
    const journal = bound(bench)
    const prefix = `suite-${randomUUID()}#`
    const keys = Array.from({ length: 7 }, (_, index) => bench.own(`${prefix}${index}`))
    const others = [bench.own(`other-${prefix}1`), bench.own(`${prefix.slice(0, -1)}[*]`)]
    for (const key of [...keys, ...others]) {
      await bench.create(key)
      await journal.appendJournal?.(key, journalEntry())
    }
    for (const limit of [2, 1_000]) {
      assert.deepEqual(await listed(list, { prefix, limit }), keys, `the circuits of one namespace, limit ${limit}`)
    }
    const all = await listed(list, {})
    for (const key of [...keys, ...others]) assert.ok(all.includes(key), `${key} is not in the list of all circuits`)
    assert.deepEqual(await listed(list, { prefix: `suite-${randomUUID()}#` }), [], 'a namespace without circuits')
  }),
}

function bound({ storage }: Bench): Journal {
  return {
    appendJournal: async (key, entry) => storage.appendJournal?.(key, entry),
    // As the breaker reads it: what is no entry is left out, and so are repetitions.
    readJournal: async (key, query) => parseJournal(await storage.readJournal?.(key, query)),
  }
}

/** Everything that is listed, in order. */
async function listed(list: (query: ListQuery) => Promise<CircuitPage>, query: ListQuery): Promise<string[]> {
  const keys = new Set<string>()
  let cursor: string | undefined
  do {
    const page: CircuitPage = await list({ ...query, ...(cursor === undefined ? {} : { cursor }) })
    for (const key of page.keys) keys.add(key)
    cursor = page.cursor
  } while (cursor !== undefined)
  return [...keys].sort()
}
