/**
 * The cases about deleting records.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { type Cases, circuitRecord, expectRefused, fullRecord, outcomes } from './bench.ts'

export const clearCases: Cases = {
  'deletes one circuit and no other': async (bench) => {
    const [cleared, kept] = [bench.key(), bench.key()]
    await bench.create(cleared, fullRecord())
    const record = await bench.create(kept)
    await bench.storage.clearState(cleared)
    await bench.expectStored(cleared, undefined, 'after clearState')
    await bench.expectStored(kept, record, 'clearState of another circuit')
  },

  'deletes several circuits and no other': async (bench) => {
    const [first, second, absent, kept] = [bench.key(), bench.key(), bench.key(), bench.key()]
    await bench.create(first)
    await bench.create(second)
    const record = await bench.create(kept)
    await bench.storage.batchClearState([first, absent, second, first])
    for (const key of [first, second, absent]) await bench.expectStored(key, undefined, 'after batchClearState')
    await bench.expectStored(kept, record, 'batchClearState of other circuits')
  },

  'takes a circuit that does not exist': async (bench) => {
    const key = bench.key()
    await bench.storage.clearState(key)
    await bench.expectStored(key, undefined, 'after clearState of nothing')
  },

  'leaves no version behind': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key, fullRecord())
    await bench.storage.clearState(key)
    const late = await bench.storage.addOutcomes(key, version, outcomes())
    expectRefused(late, undefined, 'an addition to a version that was deleted')
    const replace = await bench.storage.compareAndSetState(key, version, circuitRecord())
    expectRefused(replace, undefined, 'a replace of a version that was deleted')
    await bench.expectStored(key, undefined, 'refused writes must not bring a deleted record back')

    const record = await bench.create(key)
    const added = await bench.storage.addOutcomes(key, version, outcomes())
    expectRefused(added, record, 'an addition to a record that was deleted and created again')
    const replaced = await bench.storage.compareAndSetState(key, version, circuitRecord())
    expectRefused(replaced, record, 'a replace of a record that was deleted and created again')
    await bench.expectStored(key, record, 'after writes to the record before')
  },

  'lets no write of a deleted record through to the one that follows': async (bench) => {
    for (let round = 0; round < 6; round += 1) {
      const key = bench.key()
      const record = await bench.create(key)
      const { version } = record
      const write = (index: number) =>
        (index + round) % 4 === 0
          ? bench.storage.compareAndSetState(key, version, { ...record, failureCount: index })
          : bench.storage.addOutcomes(key, version, outcomes())
      const before = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))
      await bench.storage.clearState(key)
      const between = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))
      const next = await bench.create(key)
      const behind = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))

      for (const result of await Promise.all([...before, ...between, ...behind])) {
        const isSeen = result.current?.version === version
        assert.equal(result.applied, isSeen, 'applied to the record that was seen, and no other')
      }
      await bench.expectStored(key, next, 'a write of a deleted record was applied to the one that followed')
    }
  },
}
