/**
 * The workbench of one test case: an adapter, service keys, records, and expectations.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import {
  type CircuitStorageError,
  isCircuitStorageError,
  type JournalOperation,
  type StorageOperation,
} from '../../errors.ts'
import type { CircuitRecord, ICircuitStorage, JournalEntry, Outcomes, WriteResult } from '../../storage/contract.ts'
import { emptyRecord } from '../../storage/record.ts'

/** The two functions of a test runner that the suite needs; those of jest, vitest and `node:test` fit as they are. */
export interface StorageSuiteRunner {
  /** Groups the cases under a name. */
  readonly describe: (name: string, define: () => void) => unknown
  /** Defines a case. */
  readonly it: (name: string, run: () => Promise<void>) => unknown
}

/** Options of `testCircuitStorage`. Without an optional capability of the adapter its cases are left out. */
export interface StorageSuiteOptions {
  /**
   * The test runner. Default: the global `describe` and `it`, as in jest. Runners without globals are passed in:
   * `import { describe, it } from 'node:test'`, then `runner: { describe, it }`.
   */
  readonly runner?: StorageSuiteRunner | undefined
  /**
   * For a shared store: another adapter over the same store, as a second instance of the function has. Adds the cases
   * in which two instances compete. Called once per case, like `createStorage`.
   */
  readonly createPeer?: (() => ICircuitStorage | Promise<ICircuitStorage>) | undefined
  /**
   * An adapter whose store cannot be reached. Adds the case in which every method must reject. Configure it to give up
   * soon: the case calls every method.
   */
  readonly createUnreachable?: (() => ICircuitStorage | Promise<ICircuitStorage>) | undefined
  /**
   * Puts something that is no circuit record where the adapter keeps this circuit. Adds the cases about damaged records:
   * reads and writes of it must hand out something that does not parse, or reject with `corrupt: true`.
   */
  readonly damage?: ((serviceKey: string) => unknown) | undefined
  /**
   * For a store that forgets: when it will forget this circuit, in milliseconds since the epoch; `undefined` if never.
   * Adds the cases about expiry.
   */
  readonly expiresAt?: ((serviceKey: string) => number | undefined | Promise<number | undefined>) | undefined
  /** How many circuits the largest batches have; default 250. Lower it where the store cannot hold so many. */
  readonly maxBatch?: number | undefined
  /** How many writes compete for one circuit; default 25. */
  readonly parallelWrites?: number | undefined
  /** The number of a circuit's latest additions whose ids the adapter knows; default 16, at least 1. */
  readonly rememberedAdditions?: number | undefined
  /** Repeats the random history that a failed run has named; default: a new one every time. */
  readonly seed?: number | undefined
}

/** Test cases by title. */
export type Cases = Record<string, (bench: Bench) => Promise<void>>

/** One case's adapter, its sizes and the service keys that it uses. */
export class Bench {
  readonly storage: ICircuitStorage
  readonly maxBatch: number
  readonly parallelWrites: number
  readonly rememberedAdditions: number
  readonly #keys = new Set<string>()

  constructor(storage: ICircuitStorage, sizes: Pick<Bench, 'maxBatch' | 'parallelWrites' | 'rememberedAdditions'>) {
    this.storage = storage
    this.maxBatch = sizes.maxBatch
    this.parallelWrites = sizes.parallelWrites
    this.rememberedAdditions = sizes.rememberedAdditions
  }

  /** A service key that nothing is stored for. */
  key(): string {
    return this.own(`suite-${randomUUID()}`)
  }

  /** Has a service key cleared at the end. */
  own(key: string): string {
    this.#keys.add(key)
    return key
  }

  async create(key: string, record: CircuitRecord = circuitRecord()): Promise<CircuitRecord> {
    const result = await this.storage.compareAndSetState(key, undefined, record)
    expectApplied(result, record, 'a create')
    return record
  }

  async expectRoundTrip(record: CircuitRecord, what: string): Promise<void> {
    const [key, batched] = [this.key(), this.key()]
    expectApplied(await this.storage.compareAndSetState(key, undefined, record), record, what)
    await this.expectStored(key, record, what)
    const refused = await this.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(refused, record, `${what}, returned by a refused write`)
    const results = await this.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
    expectApplied(results.get(batched), record, `${what}, written in a batch`)
    await this.expectStored(batched, record, `${what}, written in a batch`)
  }

  /** Reads one by one and in a batch. */
  async expectStored(key: string, expected: CircuitRecord | undefined, what: string): Promise<void> {
    expectSame(await this.storage.getState(key), expected, `${what}: getState`)
    const found = await this.storage.batchGetState([key])
    assert.equal(found.has(key), expected !== undefined, `${what}: is the circuit in the map of batchGetState?`)
    expectSame(found.get(key), expected, `${what}: batchGetState`)
  }

  /** Leaves nothing behind. Never throws: a case that failed has thrown already. */
  async clear(): Promise<void> {
    try {
      await this.storage.batchClearState([...this.#keys])
    } catch {}
  }
}

/** The operations that every adapter has. */
export type RequiredOperation = Exclude<StorageOperation, JournalOperation>

export const operations: readonly RequiredOperation[] = [
  'getState',
  'batchGetState',
  'addOutcomes',
  'compareAndSetState',
  'batchSetState',
  'clearState',
  'batchClearState',
]

/**
 * A valid record for tests: an empty, closed circuit with a new version and epoch, written now.
 *
 * @example
 * await storage.compareAndSetState('stripe', undefined, circuitRecord({ failureCount: 2 }))
 */
export function circuitRecord(overrides: Partial<CircuitRecord> = {}): CircuitRecord {
  return { ...emptyRecord(randomUUID(), Date.now()), version: randomUUID(), ...overrides }
}

/** One failure of one instance, unless told otherwise. */
export function outcomes(overrides: Partial<Outcomes> = {}): Outcomes {
  const counts = { failures: 1, successes: 0, started: 0, early: 0, reporters: 1 }
  return { ...counts, at: Date.now(), id: randomUUID(), ...overrides }
}

/** An entry of a journal: a circuit has opened just now. */
export function journalEntry(overrides: Partial<JournalEntry> = {}): JournalEntry {
  const change = { from: 'CLOSED', to: 'OPEN', generation: 1, reason: 'failure-threshold' } as const
  return { id: randomUUID(), at: Date.now(), service: 'suite', ...change, ...overrides }
}

/** The record after an addition. */
export function added(record: CircuitRecord, more: Omit<Outcomes, 'id'>): CircuitRecord {
  return {
    ...record,
    failureCount: record.failureCount + more.failures,
    successCount: record.successCount + more.successes,
    startedCount: record.startedCount + more.started,
    earlyCount: record.earlyCount + more.early,
    reporterCount: record.reporterCount + more.reporters,
    updatedAt: more.at,
  }
}

/** A record with every field, and no two counts alike. */
export function fullRecord(): CircuitRecord {
  const now = Date.now()
  return circuitRecord({
    state: 'HALF_OPEN',
    generation: 7,
    suspectedAt: now - 22_000,
    failureCount: 5,
    successCount: 2,
    startedCount: 11,
    earlyCount: 4,
    reporterCount: 6,
    dismissals: 2 / 3,
    dismissedAt: now - 3_600_000,
    noise: 0.1 + 0.2,
    pace: 1e-7,
    othersAt: now - 21_000,
    lastFailureAt: now - 1_000,
    openedAt: now - 20_000,
    closedAt: now - 90_000,
    retryAt: now - 10_000,
    resetTimeout: 10_000,
    leases: [
      { id: randomUUID(), expiresAt: now + 30_000 },
      { id: randomUUID(), expiresAt: now + 31_000 },
    ],
    trips: 3,
    lastFailure: { at: now - 1_000, name: 'TimeoutError', code: 'ETIMEDOUT', status: 503 },
    override: { state: 'OPEN', at: now - 500, until: now + 60_000 },
    transitions: Array.from({ length: 8 }, () => randomUUID()),
    updatedAt: now,
  })
}

export async function expectOneWinner(
  bench: Bench,
  key: string,
  contenders: readonly CircuitRecord[],
  results: readonly (WriteResult | undefined)[],
): Promise<void> {
  const winners = contenders.filter((_, index) => results[index]?.applied)
  assert.equal(winners.length, 1, `${winners.length} of ${contenders.length} parallel replaces of one version won`)
  const [winner] = winners
  await bench.expectStored(key, winner, 'the winner of parallel replaces')
  for (const [index, result] of results.entries()) {
    if (contenders[index] === winner) expectApplied(result, winner, 'the winner of parallel replaces')
    else expectRefused(result, winner, 'a loser of parallel replaces')
  }
}

export function expectApplied(result: WriteResult | undefined, stored: CircuitRecord | undefined, what: string): void {
  expectResult(result, { applied: true, current: stored }, what)
}

export function expectRefused(result: WriteResult | undefined, stored: CircuitRecord | undefined, what: string): void {
  expectResult(result, { applied: false, current: stored }, what)
}

export function expectResult(result: WriteResult | undefined, expected: WriteResult, what: string): void {
  assert.ok(result, `${what}: there is no result`)
  assert.equal(result.applied, expected.applied, `${what}: must ${expected.applied ? '' : 'not '}be applied`)
  expectSame(result.current, expected.current, `${what}: current must be what is stored`)
}

/** Compares records as their readers see them, to whom an absent field and an undefined one are the same. */
export function expectSame(actual: unknown, expected: unknown, what: string): void {
  const [found, wanted] = [plain(actual), plain(expected)]
  try {
    assert.deepEqual(found, wanted)
  } catch (error) {
    const message = `${what}\n${(error as Error).message}`
    throw new assert.AssertionError({ message, actual: found, expected: wanted, operator: 'deepStrictEqual' })
  }
}

/** A copy without undefined fields, made of this realm's objects: in jest `structuredClone` makes foreign ones. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return Array.from(value, plain)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.fromEntries(fields.map(([field, inner]) => [field, plain(inner)]))
}

export function expectStorageError(error: unknown, operation: StorageOperation): asserts error is CircuitStorageError {
  assert.ok(isCircuitStorageError(error), `${operation} must reject with a CircuitStorageError, not with ${error}`)
  assert.equal(error.operation, operation, 'the error must name the operation')
}
