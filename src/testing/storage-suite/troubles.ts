/**
 * The cases about damaged records, a store that is down, and expiry.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { JournalOperation, StorageOperation } from '../../errors.ts'
import type { CircuitRecord, ICircuitStorage, WriteResult } from '../../storage/contract.ts'
import { expiryOf } from '../../storage/record.ts'
import { parseError, parseReply } from '../../storage/replies.ts'
import {
  type Cases,
  circuitRecord,
  expectApplied,
  expectSame,
  expectStorageError,
  journalEntry,
  outcomes,
  type RequiredOperation,
  type StorageSuiteOptions,
} from './bench.ts'

/** A record that does not parse may be handed out as it is: the breaker checks every record, and so do these cases. */
export function damageCases(damage: (serviceKey: string) => unknown): Cases {
  const isCorrupt = (operation: StorageOperation) => (error: unknown) => {
    expectStorageError(error, operation)
    assert.equal(error.corrupt, true, 'a record that does not parse must be reported as corrupt')
    return true
  }
  return {
    'is noticed by a read': async (bench) => {
      const key = bench.key()
      await damage(key)
      await assert.rejects(parsed(bench.storage).getState(key), isCorrupt('getState'))
    },

    'is noticed by a write, and left as it is': async (bench) => {
      const storage = parsed(bench.storage)
      const key = bench.key()
      await damage(key)
      for (const version of [randomUUID(), undefined]) {
        const replace = storage.compareAndSetState(key, version, circuitRecord())
        await assert.rejects(replace, isCorrupt('compareAndSetState'))
        await assert.rejects(storage.getState(key), isCorrupt('getState'), 'the damaged record was overwritten')
      }
      const add = storage.addOutcomes(key, randomUUID(), outcomes())
      await assert.rejects(add, isCorrupt('addOutcomes'))
      await assert.rejects(storage.getState(key), isCorrupt('getState'), 'the damaged record was overwritten')
    },

    'fails alone in a batch': async (bench) => {
      const storage = parsed(bench.storage)
      const [healthy, damaged, absent] = [bench.key(), bench.key(), bench.key()]
      const record = await bench.create(healthy)
      await damage(damaged)
      const read = storage.batchGetState([damaged, healthy, absent])
      await assert.rejects(read, (error) => {
        expectStorageError(error, 'batchGetState')
        assert.deepEqual([...(error.errors?.keys() ?? [])], [damaged], 'errors must hold what failed')
        assert.equal(error.results?.size, 1, 'results must hold what was read, and nothing else')
        expectSame(error.results?.get(healthy), record, 'read in a batch that failed in part')
        return isCorrupt('batchGetState')(error.errors?.get(damaged))
      })

      const next = circuitRecord()
      const write = storage.batchSetState([
        { serviceKey: damaged, version: randomUUID(), next: circuitRecord() },
        { serviceKey: healthy, version: record.version, next },
      ])
      await assert.rejects(write, (error) => {
        expectStorageError(error, 'batchSetState')
        assert.deepEqual([...(error.errors?.keys() ?? [])], [damaged], 'errors must hold what failed')
        expectApplied(error.results?.get(healthy) as WriteResult, next, 'written in a batch that failed in part')
        return isCorrupt('batchSetState')(error.errors?.get(damaged))
      })
    },

    'can be cleared': async (bench) => {
      const [first, second] = [bench.key(), bench.key()]
      await damage(first)
      await damage(second)
      await bench.storage.clearState(first)
      await bench.storage.batchClearState([second])
      await bench.expectStored(first, undefined, 'after clearState of a damaged record')
      await bench.expectStored(second, undefined, 'after batchClearState of a damaged record')
    },
  }
}

type Parsed = Pick<
  ICircuitStorage,
  'getState' | 'batchGetState' | 'addOutcomes' | 'compareAndSetState' | 'batchSetState'
>

/** The adapter as the breaker sees it, which parses all its records. */
function parsed(storage: ICircuitStorage): Parsed {
  const check = async <T>(operation: StorageOperation, reply: Promise<T>): Promise<T> => {
    const raw = await reply.catch((error: unknown) => {
      throw parseError(operation, error) ?? error
    })
    return parseReply(operation, raw, 'the circuit')
  }
  return {
    getState: (...given) => check('getState', storage.getState(...given)),
    batchGetState: (...given) => check('batchGetState', storage.batchGetState(...given)),
    addOutcomes: (...given) => check('addOutcomes', storage.addOutcomes(...given)),
    compareAndSetState: (...given) => check('compareAndSetState', storage.compareAndSetState(...given)),
    batchSetState: (...given) => check('batchSetState', storage.batchSetState(...given)),
  }
}

export function unreachableCases(createUnreachable: () => ICircuitStorage | Promise<ICircuitStorage>): Cases {
  return {
    'makes every method reject with a CircuitStorageError that names it': async (bench) => {
      const storage = await createUnreachable()
      const [serviceKey, version, next] = [bench.key(), undefined, circuitRecord()]
      const calls: Record<RequiredOperation, () => Promise<unknown>> = {
        getState: () => storage.getState(serviceKey),
        batchGetState: () => storage.batchGetState([serviceKey]),
        addOutcomes: () => storage.addOutcomes(serviceKey, next.version, outcomes()),
        compareAndSetState: () => storage.compareAndSetState(serviceKey, version, next),
        batchSetState: () => storage.batchSetState([{ serviceKey, version, next }]),
        clearState: () => storage.clearState(serviceKey),
        batchClearState: () => storage.batchClearState([serviceKey]),
      }
      const optional: (readonly [JournalOperation, () => Promise<unknown> | undefined])[] = [
        ['appendJournal', () => storage.appendJournal?.(serviceKey, journalEntry())],
        ['readJournal', () => storage.readJournal?.(serviceKey)],
        ['listCircuits', () => storage.listCircuits?.()],
      ]
      const present = optional.filter(([operation]) => storage[operation] !== undefined)
      for (const [operation, call] of [...(Object.entries(calls) as typeof present), ...present]) {
        await assert.rejects(
          async () => call(),
          (error) => {
            expectStorageError(error, operation)
            assert.equal(error.corrupt, false, 'a store that does not answer is not corrupt')
            return true
          },
          `${operation} must reject`,
        )
      }
    },
  }
}

export function expiryCases(readExpiry: NonNullable<StorageSuiteOptions['expiresAt']>): Cases {
  /** Stores count in whole seconds and have clocks of their own. */
  const tolerance = 2_000
  /** @param record as it was at the last replace */
  const expectKept = async (key: string, record: CircuitRecord, what: string) => {
    const needed = expiryOf(record)
    const expiry = await readExpiry(key)
    if (needed === undefined) return assert.equal(expiry, undefined, `${what}: must never expire`)
    if (expiry !== undefined)
      assert.ok(expiry >= needed - tolerance, `${what}: expires ${needed - expiry} ms too early`)
  }
  return {
    'keeps a record for two days after the last instant in it': async (bench) => {
      const now = Date.now()
      const lasting = {
        'a record': circuitRecord(),
        'a record with a far retryAt': circuitRecord({ state: 'OPEN', retryAt: now + 3_600_000 }),
        'a record with a long lease': circuitRecord({ leases: [{ id: 'lease', expiresAt: now + 900_000 }] }),
      }
      for (const [what, record] of Object.entries(lasting)) {
        const [key, replaced, batched] = [bench.key(), bench.key(), bench.key()]
        await bench.create(key, record)
        await expectKept(key, record, what)
        await bench.storage.addOutcomes(key, record.version, outcomes({ at: now + 30_000 }))
        await expectKept(key, record, `${what}, after an addition`)
        await bench.storage.addOutcomes(key, record.version, outcomes({ at: 0 }))
        await expectKept(key, record, `${what}, after an addition of the past`)
        const { version } = await bench.create(replaced)
        await bench.storage.compareAndSetState(replaced, version, record)
        await expectKept(replaced, record, `${what}, after a replace`)
        await bench.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
        await expectKept(batched, record, `${what}, written in a batch`)
      }
    },

    'never forgets an override': async (bench) => {
      const [key, batched] = [bench.key(), bench.key()]
      const record = circuitRecord({ override: { state: 'OPEN', at: Date.now() } })
      const { version } = await bench.create(key)
      await bench.storage.compareAndSetState(key, version, record)
      await expectKept(key, record, 'a record with an override')
      await bench.storage.addOutcomes(key, record.version, outcomes())
      await expectKept(key, record, 'a record with an override, after an addition')
      await bench.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
      await expectKept(batched, record, 'a record with an override, written in a batch')
    },
  }
}
