/**
 * The cases about writes that meet: additions and replaces, two instances, and any history.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CircuitRecord, CompareAndSet, ICircuitStorage, Outcomes, WriteResult } from '../../storage/contract.ts'
import {
  added,
  type Cases,
  circuitRecord,
  expectApplied,
  expectOneWinner,
  expectRefused,
  expectResult,
  expectSame,
  fullRecord,
  outcomes,
} from './bench.ts'

export const raceCases: Cases = {
  'refuses an addition to a version that was replaced, whether or not it was counted before': async (bench) => {
    const key = bench.key()
    const [first, second] = [circuitRecord(), circuitRecord()]
    const counted = outcomes()
    await bench.create(key, first)
    await bench.storage.addOutcomes(key, first.version, counted)
    await bench.storage.compareAndSetState(key, first.version, second)
    const late = await bench.storage.addOutcomes(key, first.version, outcomes())
    expectRefused(late, second, 'an addition to a version that was replaced')
    const again = await bench.storage.addOutcomes(key, first.version, counted)
    expectRefused(again, second, 'an addition that is sent again after a replace')
    await bench.expectStored(key, second, 'after late additions')
  },

  'lets no addition to the old version through to the new one': async (bench) => {
    for (let round = 0; round < 6; round += 1) {
      const key = bench.key()
      const { version } = await bench.create(key)
      const next = circuitRecord({ state: 'OPEN', retryAt: Date.now() + 10_000, resetTimeout: 10_000 })
      const add = () => bench.storage.addOutcomes(key, version, outcomes())
      const before = Array.from({ length: 2 * round }, add)
      const replace = bench.storage.compareAndSetState(key, version, next)
      const behind = Array.from({ length: bench.parallelWrites }, add)

      expectApplied(await replace, next, 'a replace that competes with additions only')
      for (const result of await Promise.all([...before, ...behind])) {
        if (!result.applied) expectRefused(result, next, 'an addition that came after the replace')
      }
      await bench.expectStored(key, next, 'outcomes were added to the version after the one that they named')
    }
  },

  'keeps the additions that come after a replace': async (bench) => {
    const key = bench.key()
    const next = await bench.create(key)
    const at = Date.now()
    const late = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
    const additions = Array.from({ length: bench.parallelWrites }, () => outcomes({ at }))
    await Promise.all([
      ...late.map((record) => bench.storage.compareAndSetState(key, undefined, record)),
      ...additions.map((each) => bench.storage.addOutcomes(key, next.version, each)),
    ])
    const sum = outcomes({ failures: additions.length, reporters: additions.length, at })
    await bench.expectStored(key, added(next, sum), 'additions among refused replaces')
  },
}

export function historyCases(seed: number = Math.floor(Math.random() * 2 ** 31)): Cases {
  return {
    'answers as the contract says, whatever happens in whatever order': async (bench) => {
      const random = randomNumbers(seed)
      const keys = [bench.key(), bench.key()]
      const model = new ContractModel()
      for (let step = 0; step < 100; step += 1) {
        const where = `step ${step} of the history with seed ${seed}`
        const serviceKey = keys[random(2)] as string
        const stored = model.get(serviceKey)
        // Three times out of four the version that is stored, else one of the wrong ones.
        const version = [stored?.version, stored?.version, stored?.version, randomUUID(), undefined][random(5)]
        const next = random(2) === 0 ? fullRecord() : circuitRecord({ failureCount: random(9) })
        const write: CompareAndSet = { serviceKey, version, next }
        const operation = random(8)
        if (operation < 3) {
          const expected = version ?? randomUUID()
          const more = outcomes({ failures: random(3), successes: random(3), started: random(3), early: random(3) })
          for (const time of operation === 0 ? ['', ', again'] : ['']) {
            const result = await bench.storage.addOutcomes(serviceKey, expected, more)
            expectResult(result, model.add(serviceKey, expected, more), where + time)
          }
        } else if (operation < 5) {
          const result = await bench.storage.compareAndSetState(serviceKey, version, next)
          expectResult(result, model.replace(write), where)
        } else if (operation < 7) {
          const other = keys.find((key) => key !== serviceKey) as string
          const writes = [write, { serviceKey: other, version: model.get(other)?.version, next: circuitRecord() }]
          const results = await bench.storage.batchSetState(writes)
          for (const each of writes) expectResult(results.get(each.serviceKey), model.replace(each), where)
        } else if (random(3) === 0) {
          await bench.storage.clearState(serviceKey)
          model.clear(serviceKey)
        }
        await bench.expectStored(serviceKey, model.get(serviceKey), where)
      }
    },
  }
}

export function peerCases(createPeer: () => ICircuitStorage | Promise<ICircuitStorage>): Cases {
  return {
    'does not call itself unshared': async ({ storage }) => {
      assert.notEqual(storage.shared, false, 'a store with peers is shared')
    },

    'reads what the other one wrote': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = fullRecord()
      await peer.compareAndSetState(key, undefined, record)
      await bench.expectStored(key, record, 'written by the other instance')
      const more = outcomes()
      await bench.storage.addOutcomes(key, record.version, more)
      expectSame(await peer.getState(key), added(record, more), 'read by the other instance')
      const found = await peer.batchGetState([key])
      expectSame(found.get(key), added(record, more), 'read in a batch by the other instance')
      await peer.clearState(key)
      await bench.expectStored(key, undefined, 'cleared by the other instance')
    },

    'adds up the outcomes of both': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const at = Date.now()
      const adapters = Array.from({ length: bench.parallelWrites }, () => [bench.storage, peer]).flat()
      await Promise.all(adapters.map((each) => each.addOutcomes(key, record.version, outcomes({ at }))))
      const sum = outcomes({ failures: adapters.length, reporters: adapters.length, at })
      await bench.expectStored(key, added(record, sum), 'parallel additions by two instances')
    },

    'lets one of both win': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const contenders = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
      const results = await Promise.all(
        contenders.map((next, index) =>
          (index % 2 === 0 ? bench.storage : peer).compareAndSetState(key, undefined, next),
        ),
      )
      await expectOneWinner(bench, key, contenders, results)
    },

    'counts outcomes that both send once': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const sent = outcomes()
      await bench.storage.addOutcomes(key, record.version, sent)
      const result = await peer.addOutcomes(key, record.version, sent)
      expectApplied(result, added(record, sent), 'an addition that the other instance sends again')
      await bench.expectStored(key, added(record, sent), 'after an addition that both instances sent')
    },
  }
}

/** A model of the contract: answers as a store that keeps it would. */
class ContractModel {
  readonly #records = new Map<string, CircuitRecord>()
  readonly #additions = new Set<string>()

  get(serviceKey: string): CircuitRecord | undefined {
    return this.#records.get(serviceKey)
  }

  add(serviceKey: string, version: string, outcomes: Outcomes): WriteResult {
    const current = this.#records.get(serviceKey)
    if (current?.version !== version) return { applied: false, current }
    if (this.#additions.has(outcomes.id)) return { applied: true, current }
    this.#additions.add(outcomes.id)
    return this.#store(serviceKey, added(current, outcomes))
  }

  replace({ serviceKey, version, next }: CompareAndSet): WriteResult {
    const current = this.#records.get(serviceKey)
    return current?.version === version ? this.#store(serviceKey, next) : { applied: false, current }
  }

  clear(serviceKey: string): void {
    this.#records.delete(serviceKey)
  }

  #store(serviceKey: string, current: CircuitRecord): WriteResult {
    this.#records.set(serviceKey, current)
    return { applied: true, current }
  }
}

/** Whole numbers below `limit`, the same for the same seed: mulberry32, https://github.com/bryc/code (PRNGs.md). */
function randomNumbers(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}
