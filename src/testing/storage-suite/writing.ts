/**
 * The cases about each write by itself.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CompareAndSet, ExpectedVersion } from '../../storage/contract.ts'
import { emptyRecord } from '../../storage/record.ts'
import {
  type Cases,
  circuitRecord,
  counted,
  expectApplied,
  expectOneWinner,
  expectRefused,
  fullRecord,
  increment,
} from './bench.ts'

export const incrementCases: Cases = {
  'creates a closed record with its id as version and epoch': async (bench) => {
    const key = bench.key()
    const first = increment({ count: 2 })
    const created = counted(emptyRecord(first.id, first.at), first)
    const result = await bench.storage.incrementFailures(key, undefined, first)
    expectApplied(result, created, 'the first increment')
    await bench.expectStored(key, created, 'after the first increment')
  },

  'adds to a record that was never replaced, whether or not its version was seen': async (bench) => {
    const { key, record } = await bench.counting()
    let sum = record
    for (const version of [undefined, record.version]) {
      const added = increment({ count: 3, at: sum.updatedAt + 1 })
      sum = counted(sum, added)
      expectApplied(await bench.storage.incrementFailures(key, version, added), sum, 'a further increment')
      await bench.expectStored(key, sum, 'after a further increment')
    }
  },

  'leaves the version and every other field alone': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const added = increment({ count: 4, at: record.updatedAt + 5 })
    const result = await bench.storage.incrementFailures(key, record.version, added)
    expectApplied(result, counted(record, added), 'an increment of a record with every field')
    await bench.expectStored(key, counted(record, added), 'after an increment of a record with every field')
  },

  'takes the time from the increment, not from its own clock': async (bench) => {
    const key = bench.key()
    const at = Date.now() + 40_000
    const { current } = await bench.storage.incrementFailures(key, undefined, increment({ at }))
    assert.deepEqual([current?.lastFailureAt, current?.updatedAt], [at, at], 'lastFailureAt and updatedAt must be at')
  },

  'adds up exactly when many arrive at once, whether or not the record exists': async (bench) => {
    for (const record of [undefined, circuitRecord({ failureCount: 5 })]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const at = Date.now()
      const increments = Array.from({ length: bench.parallelWrites }, (_, index) => increment({ count: index + 1, at }))
      const results = await Promise.all(
        increments.map((each) => bench.storage.incrementFailures(key, record?.version, each)),
      )
      const total = increments.reduce((sum, { count }) => sum + count, 0)
      const stored = await bench.storage.getState(key)
      for (const [index, { applied, current }] of results.entries()) {
        assert.equal(applied, true, 'increments of one version must never refuse each other')
        const least = index + 1 + (record?.failureCount ?? 0)
        assert.ok((current?.failureCount ?? 0) >= least, 'an increment must be part of what its result says is stored')
      }
      const epoch = record?.epoch ?? stored?.epoch ?? ''
      if (!record) assert.ok(increments.map(({ id }) => id).includes(epoch), 'the epoch must be an increment id')
      const sum = counted(record ?? emptyRecord(epoch, at), { count: total, at, id: '' })
      await bench.expectStored(key, sum, `${increments.length} parallel increments`)
    }
  },

  'refuses a version that is not the stored one': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.incrementFailures(key, randomUUID(), increment())
    expectRefused(result, record, 'an increment with another version')
    await bench.expectStored(key, record, 'after a refused increment')
  },

  'refuses no version where a record was replaced': async (bench) => {
    const created = bench.key()
    const record = await bench.create(created)
    const { key: replaced, record: first } = await bench.counting()
    const next = circuitRecord({ epoch: first.epoch })
    await bench.storage.compareAndSetState(replaced, first.version, next)
    for (const [key, stored] of [[created, record] as const, [replaced, next] as const]) {
      const result = await bench.storage.incrementFailures(key, undefined, increment())
      expectRefused(result, stored, 'an increment without a version')
      await bench.expectStored(key, stored, 'after a refused increment')
    }
  },

  'tells a replaced record from a new one by its version as text': async (bench) => {
    for (const [version, epoch] of alike) {
      const key = bench.key()
      const record = await bench.create(key, circuitRecord({ version, epoch }))
      const what = `the version ${JSON.stringify(version)} and the epoch ${JSON.stringify(epoch)} are stored`
      expectRefused(await bench.storage.incrementFailures(key, undefined, increment()), record, what)
    }
  },

  'refuses a version where another or none is stored': async (bench) => {
    const absent = bench.key()
    const missed = await bench.storage.incrementFailures(absent, randomUUID(), increment())
    expectRefused(missed, undefined, 'an increment of a circuit that does not exist')
    await bench.expectStored(absent, undefined, 'a refused increment must not create a record')

    const { key, record } = await bench.counting()
    const refused = await bench.storage.incrementFailures(key, randomUUID(), increment())
    expectRefused(refused, record, 'an increment with a version other than that of a new record')
    await bench.expectStored(key, record, 'after a refused increment')
  },

  'counts an increment that is sent twice once': async (bench) => {
    for (const record of [undefined, circuitRecord()]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const sent = increment({ count: 2 })
      await bench.storage.incrementFailures(key, record?.version, sent)
      const once = counted(record ?? emptyRecord(sent.id, sent.at), sent)
      const again = await bench.storage.incrementFailures(key, record?.version, sent)
      expectApplied(again, once, 'an increment that is sent again did happen')
      await bench.expectStored(key, once, 'after an increment that was sent twice')
    }
  },

  'counts an increment that is sent twice at once only once': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const sent = increment({ count: 2 })
    const results = await Promise.all(
      [sent, sent, sent].map((each) => bench.storage.incrementFailures(key, record.version, each)),
    )
    for (const result of results) expectApplied(result, counted(record, sent), 'one of three copies of an increment')
    await bench.expectStored(key, counted(record, sent), 'after three copies of one increment')
  },

  'recognises an increment among later ones': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const increments = Array.from({ length: bench.rememberedIncrements }, () => increment({ at: record.updatedAt }))
    for (const each of increments) await bench.storage.incrementFailures(key, record.version, each)
    const sum = counted(record, increment({ count: increments.length, at: record.updatedAt }))
    for (const each of increments) {
      expectApplied(await bench.storage.incrementFailures(key, record.version, each), sum, 'a late copy')
    }
    await bench.expectStored(key, sum, `after ${increments.length} increments that were sent twice`)
  },

  'counts equal increments with different ids': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const [first, second] = [increment({ at: record.updatedAt }), increment({ at: record.updatedAt })]
    await bench.storage.incrementFailures(key, record.version, first)
    await bench.storage.incrementFailures(key, record.version, second)
    await bench.expectStored(key, counted(counted(record, first), second), 'two increments that differ in their ids')
  },
}

export const replaceCases: Cases = {
  'creates a record where nothing is stored': async (bench) => {
    const key = bench.key()
    const next = fullRecord()
    expectApplied(await bench.storage.compareAndSetState(key, undefined, next), next, 'a create')
    await bench.expectStored(key, next, 'after a create')
  },

  'refuses a version where nothing is stored': async (bench) => {
    const key = bench.key()
    const result = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(result, undefined, 'a replace of a circuit that does not exist')
    await bench.expectStored(key, undefined, 'a refused replace must not create a record')
  },

  'replaces the stored version': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key)
    const next = fullRecord()
    expectApplied(await bench.storage.compareAndSetState(key, version, next), next, 'a replace')
    await bench.expectStored(key, next, 'after a replace')
  },

  'refuses a version that is not the stored one': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const result = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(result, record, 'a replace of another version')
    await bench.expectStored(key, record, 'after a refused replace')
  },

  'creates nothing where a record is stored': async (bench) => {
    const created = bench.key()
    const record = await bench.create(created)
    const { key: counting, record: first } = await bench.counting()
    for (const [key, stored] of [[created, record] as const, [counting, first] as const]) {
      const result = await bench.storage.compareAndSetState(key, undefined, circuitRecord())
      expectRefused(result, stored, 'a create where a record is stored')
      await bench.expectStored(key, stored, 'after a refused create')
    }
  },

  'replaces what increments have made, by its version': async (bench) => {
    const { key, record } = await bench.counting()
    const refused = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(refused, record, 'a replace with a version other than that of a new record')
    const next = circuitRecord()
    expectApplied(await bench.storage.compareAndSetState(key, record.version, next), next, 'the first replace')
    await bench.expectStored(key, next, 'after the first replace')
  },

  'refuses the version before the last': async (bench) => {
    const key = bench.key()
    const [first, second] = [circuitRecord(), circuitRecord()]
    await bench.create(key, first)
    await bench.storage.compareAndSetState(key, first.version, second)
    const late = await bench.storage.compareAndSetState(key, first.version, circuitRecord())
    expectRefused(late, second, 'a replace of a version that was replaced')
    const next = circuitRecord()
    const result = await bench.storage.compareAndSetState(key, second.version, next)
    expectApplied(result, next, 'a replace of the new version')
  },

  'compares versions as text, for equality only': async (bench) => {
    const versions = ['undefined', 'null', '0', '1', '1.0', 'false', 'v', 'V', 'v ', 'é', 'e\u0301', 'x'.repeat(256)]
    const key = bench.key()
    let current: ExpectedVersion
    for (const version of versions) {
      const record = circuitRecord({ version })
      expectApplied(await bench.storage.compareAndSetState(key, current, record), record, `version ${version}`)
      for (const other of [undefined, ...versions]) {
        if (other === version) continue
        const what = `${JSON.stringify(version)} is stored, ${JSON.stringify(other)} was expected`
        expectRefused(await bench.storage.compareAndSetState(key, other, circuitRecord()), record, what)
        expectRefused(await bench.storage.incrementFailures(key, other, increment()), record, what)
      }
      current = version
    }
  },

  'replaces the failure count, and later increments add to the new one': async (bench) => {
    const { key, record } = await bench.counting()
    const cleared = circuitRecord()
    const replaced = await bench.storage.compareAndSetState(key, record.version, cleared)
    expectApplied(replaced, cleared, 'a replace with count 0')
    await bench.expectStored(key, cleared, 'after a replace with count 0')

    await bench.storage.incrementFailures(key, cleared.version, increment({ count: 4 }))
    const counting = circuitRecord({ failureCount: 2 })
    await bench.storage.compareAndSetState(key, cleared.version, counting)
    const added = increment({ count: 3 })
    const result = await bench.storage.incrementFailures(key, counting.version, added)
    expectApplied(result, counted(counting, added), 'an increment after a replace with count 2')
    await bench.expectStored(key, counted(counting, added), 'an increment after a replace with count 2')
  },

  'forgets what the next record does not have': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key, fullRecord())
    const next = circuitRecord()
    expectApplied(await bench.storage.compareAndSetState(key, version, next), next, 'a replace by an emptier record')
    await bench.expectStored(key, next, 'after a replace by an emptier record')
  },

  'has exactly one winner when many compete': async (bench) => {
    for (const record of [undefined, circuitRecord()]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const contenders = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
      const results = await Promise.all(
        contenders.map((next) => bench.storage.compareAndSetState(key, record?.version, next)),
      )
      await expectOneWinner(bench, key, contenders, results)
    }
  },
}

export const batchCases: Cases = {
  'writes several circuits with one result each': async (bench) => {
    const [fresh, known] = [bench.key(), bench.key()]
    const { version } = await bench.create(known)
    const [first, second] = [fullRecord(), fullRecord()]
    const results = await bench.storage.batchSetState([
      { serviceKey: fresh, version: undefined, next: first },
      { serviceKey: known, version, next: second },
    ])
    assert.deepEqual([...results.keys()].sort(), [fresh, known].sort(), 'one result per circuit')
    expectApplied(results.get(fresh), first, 'a create in a batch')
    expectApplied(results.get(known), second, 'a replace in a batch')
    await bench.expectStored(fresh, first, 'after a create in a batch')
    await bench.expectStored(known, second, 'after a replace in a batch')
  },

  'checks the condition of each circuit by itself': async (bench) => {
    const [created, replaced, stale] = [bench.key(), bench.key(), bench.key()]
    const [unexpected, absent] = [bench.key(), bench.key()]
    const known = await bench.create(replaced)
    const staleRecord = await bench.create(stale, fullRecord())
    const unexpectedRecord = await bench.create(unexpected)
    const { key: counting, record: first } = await bench.counting()
    const write = (serviceKey: string, version: ExpectedVersion): CompareAndSet => ({
      serviceKey,
      version,
      next: circuitRecord(),
    })
    const writes = [
      write(stale, randomUUID()),
      write(created, undefined),
      write(unexpected, undefined),
      write(replaced, known.version),
      write(absent, randomUUID()),
      write(counting, undefined),
    ] as const

    const results = await bench.storage.batchSetState(writes)

    assert.equal(results.size, writes.length, 'one result per circuit, refused or not')
    expectApplied(results.get(created), writes[1].next, 'a create among refused writes')
    expectApplied(results.get(replaced), writes[3].next, 'a replace among refused writes')
    expectRefused(results.get(stale), staleRecord, 'a write with another version')
    expectRefused(results.get(unexpected), unexpectedRecord, 'a create where a record is stored')
    expectRefused(results.get(absent), undefined, 'a replace where nothing is stored')
    expectRefused(results.get(counting), first, 'a create where failures were counted')
    await bench.expectStored(created, writes[1].next, 'created by the batch')
    await bench.expectStored(replaced, writes[3].next, 'replaced by the batch')
    await bench.expectStored(stale, staleRecord, 'refused by the batch')
    await bench.expectStored(unexpected, unexpectedRecord, 'refused by the batch')
    await bench.expectStored(absent, undefined, 'refused by the batch')
    await bench.expectStored(counting, first, 'refused by the batch')
  },

  'replaces the whole record': async (bench) => {
    const full = bench.key()
    const { version } = await bench.create(full, fullRecord())
    const { key: counting, record } = await bench.counting()
    const [first, second] = [circuitRecord(), circuitRecord()]
    const results = await bench.storage.batchSetState([
      { serviceKey: full, version, next: first },
      { serviceKey: counting, version: record.version, next: second },
    ])
    expectApplied(results.get(full), first, 'a replace by an emptier record in a batch')
    expectApplied(results.get(counting), second, 'a replace of a count in a batch')
    await bench.expectStored(full, first, 'after a replace by an emptier record in a batch')
    await bench.expectStored(counting, second, 'after a replace of a count in a batch')
  },

  'has exactly one winner per circuit when batches compete': async (bench) => {
    const keys = [bench.key(), bench.key(), bench.key()]
    const batches = Array.from({ length: 8 }, () =>
      keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() })),
    )
    const results = await Promise.all(batches.map((batch) => bench.storage.batchSetState(batch)))
    for (const [index, key] of keys.entries()) {
      const contenders = batches.map((batch) => (batch[index] as CompareAndSet).next)
      await expectOneWinner(
        bench,
        key,
        contenders,
        results.map((result) => result.get(key)),
      )
    }
  },
}

/** Versions and epochs that are alike, and yet not the same. */
const alike: readonly (readonly [version: string, epoch: string])[] = [
  ['e', 'E'],
  ['1', '1.0'],
  ['e', 'e '],
  ['é', 'e\u0301'],
  ['undefined', 'null'],
  ['x'.repeat(256), 'x'.repeat(255)],
]
