/**
 * The cases about each write by itself.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CompareAndSet, ExpectedVersion } from '../../storage/contract.ts'
import {
  added,
  type Cases,
  circuitRecord,
  expectApplied,
  expectOneWinner,
  expectRefused,
  fullRecord,
  outcomes,
} from './bench.ts'

export const additionCases: Cases = {
  'adds to each count, and leaves the version and every other field alone': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const counts = { failures: 6, successes: 20, started: 300, early: 4_000, reporters: 50_000 }
    const more = outcomes({ ...counts, at: record.updatedAt + 5 })
    const result = await bench.storage.addOutcomes(key, record.version, more)
    expectApplied(result, added(record, more), 'an addition to a record with every field')
    await bench.expectStored(key, added(record, more), 'after an addition to a record with every field')
  },

  'adds nothing where it is given 0': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const more = outcomes({ failures: 0, started: 1, reporters: 0, at: record.updatedAt + 5 })
    const result = await bench.storage.addOutcomes(key, record.version, more)
    expectApplied(result, added(record, more), 'an addition to one count of five')
    await bench.expectStored(key, added(record, more), 'after an addition to one count of five')
  },

  'takes the time from the outcomes, not from its own clock': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key)
    const at = Date.now() + 40_000
    const { current } = await bench.storage.addOutcomes(key, version, outcomes({ at }))
    assert.equal(current?.updatedAt, at, 'updatedAt must be at')
  },

  'adds up exactly when many arrive at once': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, circuitRecord({ failureCount: 5, successCount: 7 }))
    const at = Date.now()
    const size = bench.parallelWrites
    const additions = Array.from({ length: size }, (_, index) => outcomes({ failures: index, successes: 1, at }))
    const results = await Promise.all(additions.map((each) => bench.storage.addOutcomes(key, record.version, each)))
    for (const [index, { applied, current }] of results.entries()) {
      assert.equal(applied, true, 'additions to one version must never refuse each other')
      const least = index + record.failureCount
      assert.ok((current?.failureCount ?? 0) >= least, 'an addition must be part of what its result says is stored')
    }
    const sum = outcomes({ failures: (size * (size - 1)) / 2, successes: size, reporters: size, at })
    await bench.expectStored(key, added(record, sum), `${size} parallel additions`)
  },

  'refuses a version that is not the stored one': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.addOutcomes(key, randomUUID(), outcomes())
    expectRefused(result, record, 'an addition to another version')
    await bench.expectStored(key, record, 'after a refused addition')
  },

  'creates nothing': async (bench) => {
    const key = bench.key()
    const result = await bench.storage.addOutcomes(key, randomUUID(), outcomes())
    expectRefused(result, undefined, 'an addition where nothing is stored')
    await bench.expectStored(key, undefined, 'a refused addition must not create a record')
  },

  'counts outcomes that are sent twice once': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const sent = outcomes({ failures: 2 })
    await bench.storage.addOutcomes(key, record.version, sent)
    const again = await bench.storage.addOutcomes(key, record.version, sent)
    expectApplied(again, added(record, sent), 'an addition that is sent again did happen')
    await bench.expectStored(key, added(record, sent), 'after an addition that was sent twice')
  },

  'counts outcomes that are sent twice at once only once': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const sent = outcomes({ failures: 2 })
    const results = await Promise.all(
      [sent, sent, sent].map((each) => bench.storage.addOutcomes(key, record.version, each)),
    )
    for (const result of results) expectApplied(result, added(record, sent), 'one of three copies of an addition')
    await bench.expectStored(key, added(record, sent), 'after three copies of one addition')
  },

  'recognises an addition among later ones': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const { updatedAt: at } = record
    const additions = Array.from({ length: bench.rememberedAdditions }, () => outcomes({ at }))
    for (const each of additions) await bench.storage.addOutcomes(key, record.version, each)
    const sum = added(record, outcomes({ failures: additions.length, reporters: additions.length, at }))
    for (const each of additions) {
      expectApplied(await bench.storage.addOutcomes(key, record.version, each), sum, 'a late copy')
    }
    await bench.expectStored(key, sum, `after ${additions.length} additions that were sent twice`)
  },

  'counts equal outcomes with different ids': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const [first, second] = [outcomes({ at: record.updatedAt }), outcomes({ at: record.updatedAt })]
    await bench.storage.addOutcomes(key, record.version, first)
    await bench.storage.addOutcomes(key, record.version, second)
    await bench.expectStored(key, added(added(record, first), second), 'two additions that differ in their ids')
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
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.compareAndSetState(key, undefined, circuitRecord())
    expectRefused(result, record, 'a create where a record is stored')
    await bench.expectStored(key, record, 'after a refused create')
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
        if (other === undefined) continue
        expectRefused(await bench.storage.addOutcomes(key, other, outcomes()), record, what)
      }
      current = version
    }
  },

  'replaces the counts, and later additions add to the new ones': async (bench) => {
    const key = bench.key()
    const first = await bench.create(key)
    await bench.storage.addOutcomes(key, first.version, outcomes({ failures: 4, early: 5 }))
    const next = circuitRecord({ failureCount: 2 })
    const replaced = await bench.storage.compareAndSetState(key, first.version, next)
    expectApplied(replaced, next, 'a replace of what additions have made, by its version')
    await bench.expectStored(key, next, 'after a replace of what additions have made')
    const more = outcomes({ failures: 3 })
    const result = await bench.storage.addOutcomes(key, next.version, more)
    expectApplied(result, added(next, more), 'an addition after a replace')
    await bench.expectStored(key, added(next, more), 'after an addition after a replace')
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
    ] as const

    const results = await bench.storage.batchSetState(writes)

    assert.equal(results.size, writes.length, 'one result per circuit, refused or not')
    expectApplied(results.get(created), writes[1].next, 'a create among refused writes')
    expectApplied(results.get(replaced), writes[3].next, 'a replace among refused writes')
    expectRefused(results.get(stale), staleRecord, 'a write with another version')
    expectRefused(results.get(unexpected), unexpectedRecord, 'a create where a record is stored')
    expectRefused(results.get(absent), undefined, 'a replace where nothing is stored')
    await bench.expectStored(created, writes[1].next, 'created by the batch')
    await bench.expectStored(replaced, writes[3].next, 'replaced by the batch')
    await bench.expectStored(stale, staleRecord, 'refused by the batch')
    await bench.expectStored(unexpected, unexpectedRecord, 'refused by the batch')
    await bench.expectStored(absent, undefined, 'refused by the batch')
  },

  'replaces the whole record': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key, fullRecord())
    const next = circuitRecord()
    const results = await bench.storage.batchSetState([{ serviceKey: key, version, next }])
    expectApplied(results.get(key), next, 'a replace by an emptier record in a batch')
    await bench.expectStored(key, next, 'after a replace by an emptier record in a batch')
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
