/**
 * The cases about writes that meet: increments and replaces, two instances, and any history.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type {
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  FailureIncrement,
  ICircuitStorage,
  WriteResult,
} from '../../storage/contract.ts'
import { emptyRecord } from '../../storage/record.ts'
import {
  type Cases,
  circuitRecord,
  counted,
  expectApplied,
  expectOneWinner,
  expectRefused,
  expectResult,
  expectSame,
  fullRecord,
  increment,
} from './bench.ts'

export const raceCases: Cases = {
  'refuses an increment of a version that was replaced': async (bench) => {
    const key = bench.key()
    const [first, second] = [circuitRecord(), circuitRecord()]
    await bench.create(key, first)
    await bench.storage.compareAndSetState(key, first.version, second)
    const result = await bench.storage.incrementFailures(key, first.version, increment())
    expectRefused(result, second, 'an increment of a version that was replaced')
    await bench.expectStored(key, second, 'after a late increment')
  },

  'does not count an increment that is sent again after a replace': async (bench) => {
    for (const version of [undefined, randomUUID()]) {
      const key = bench.key()
      if (version) await bench.create(key, circuitRecord({ version }))
      const sent = increment()
      const next = circuitRecord()
      await bench.storage.incrementFailures(key, version, sent)
      await bench.storage.compareAndSetState(key, version ?? sent.id, next)
      const result = await bench.storage.incrementFailures(key, version, sent)
      expectRefused(result, next, 'an increment that is sent again after a replace')
      await bench.expectStored(key, next, 'after an increment that was sent again')
    }
  },

  'lets no increment of the old version through to the new one': async (bench) => {
    for (let round = 0; round < 6; round += 1) {
      const { key, record } = await bench.counting()
      const next = circuitRecord({ state: 'OPEN', retryAt: Date.now() + 10_000, resetTimeout: 10_000 })
      const seen = round % 2 === 0 ? undefined : record.version
      const add = () => bench.storage.incrementFailures(key, seen, increment())
      const before = Array.from({ length: 2 * round }, add)
      const replace = bench.storage.compareAndSetState(key, record.version, next)
      const behind = Array.from({ length: bench.parallelWrites }, add)

      expectApplied(await replace, next, 'a replace that competes with increments only')
      for (const result of await Promise.all([...before, ...behind])) {
        if (!result.applied) expectRefused(result, next, 'an increment that came after the replace')
      }
      await bench.expectStored(key, next, 'an increment was added to the version after the one that it named')
    }
  },

  'keeps the increments that come after a replace': async (bench) => {
    const key = bench.key()
    const next = circuitRecord()
    await bench.storage.compareAndSetState(key, undefined, next)
    const at = Date.now()
    const late = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
    const added = Array.from({ length: bench.parallelWrites }, () => increment({ at }))
    await Promise.all([
      ...late.map((record) => bench.storage.compareAndSetState(key, undefined, record)),
      ...added.map((each) => bench.storage.incrementFailures(key, next.version, each)),
    ])
    const sum = counted(next, increment({ count: added.length, at }))
    await bench.expectStored(key, sum, 'increments among refused replaces')
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
          const added = increment({ count: 1 + random(3) })
          const expected = model.increment(serviceKey, version, added)
          expectResult(await bench.storage.incrementFailures(serviceKey, version, added), expected, where)
          if (operation === 0) {
            const again = model.increment(serviceKey, version, added)
            expectResult(await bench.storage.incrementFailures(serviceKey, version, added), again, `${where}, again`)
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
      const added = increment()
      await bench.storage.incrementFailures(key, record.version, added)
      expectSame(await peer.getState(key), counted(record, added), 'read by the other instance')
      const found = await peer.batchGetState([key])
      expectSame(found.get(key), counted(record, added), 'read in a batch by the other instance')
      await peer.clearState(key)
      await bench.expectStored(key, undefined, 'cleared by the other instance')
    },

    'adds up the increments of both': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const at = Date.now()
      const adapters = Array.from({ length: bench.parallelWrites }, () => [bench.storage, peer]).flat()
      await Promise.all(adapters.map((each) => each.incrementFailures(key, record.version, increment({ at }))))
      const sum = counted(record, increment({ count: adapters.length, at }))
      await bench.expectStored(key, sum, 'parallel increments by two instances')
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

    'counts an increment that both send once': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const sent = increment()
      await bench.storage.incrementFailures(key, record.version, sent)
      const result = await peer.incrementFailures(key, record.version, sent)
      expectApplied(result, counted(record, sent), 'an increment that the other instance sends again')
      await bench.expectStored(key, counted(record, sent), 'after an increment that both instances sent')
    },
  }
}

/** A model of the contract: answers as a store that keeps it would. */
class ContractModel {
  readonly #records = new Map<string, CircuitRecord>()
  readonly #increments = new Set<string>()

  get(serviceKey: string): CircuitRecord | undefined {
    return this.#records.get(serviceKey)
  }

  increment(serviceKey: string, version: ExpectedVersion, added: FailureIncrement): WriteResult {
    const current = this.#records.get(serviceKey)
    const isUnreplaced = version === undefined && current?.version === current?.epoch
    if (current?.version !== version && !isUnreplaced) return { applied: false, current }
    if (this.#increments.has(added.id)) return { applied: true, current }
    this.#increments.add(added.id)
    return this.#store(serviceKey, counted(current ?? emptyRecord(added.id, added.at), added))
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
