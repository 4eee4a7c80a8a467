/**
 * The cases about reading, about what is stored, and about who owns a record.
 *
 * @module
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CircuitRecord } from '../../storage/contract.ts'
import {
  added,
  type Bench,
  type Cases,
  circuitRecord,
  expectApplied,
  expectSame,
  fullRecord,
  operations,
  outcomes,
} from './bench.ts'

export const shapeCases: Cases = {
  'has every method of the contract': async ({ storage }) => {
    for (const method of operations) assert.equal(typeof storage[method], 'function', `${method} is no function`)
    if (storage.close !== undefined) assert.equal(typeof storage.close, 'function', 'close is no function')
    if (storage.shared !== undefined) assert.equal(typeof storage.shared, 'boolean', 'shared is no boolean')
  },
}

export const readingCases: Cases = {
  'knows nothing of a circuit that was never written': async (bench) => {
    await bench.expectStored(bench.key(), undefined, 'nothing was written')
  },

  'reads what was written, one by one and in a batch': async (bench) => {
    const [first, second] = [bench.key(), bench.key()]
    const records = [await bench.create(first), await bench.create(second)]
    await bench.expectStored(first, records[0], 'the first circuit')
    await bench.expectStored(second, records[1], 'the second circuit')
  },

  'leaves absent circuits out of a batch': async (bench) => {
    const [stored, absent] = [bench.key(), bench.key()]
    const record = await bench.create(stored)
    const found = await bench.storage.batchGetState([absent, stored])
    assert.deepEqual([...found.keys()], [stored], 'a batch must hold exactly the circuits that are stored')
    expectSame(found.get(stored), record, 'the circuit that is stored')
  },

  'reads a circuit that is asked for twice once': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const record = await bench.create(key)
    const found = await bench.storage.batchGetState([key, other, key, other, key])
    assert.deepEqual([...found.keys()], [key], 'a batch that names one circuit three times')
    expectSame(found.get(key), record, 'the circuit that was named three times')
  },

  'does nothing when it is given nothing': async ({ storage }) => {
    assert.equal((await storage.batchGetState([])).size, 0, 'batchGetState([]) must resolve to an empty map')
    assert.equal((await storage.batchSetState([])).size, 0, 'batchSetState([]) must resolve to an empty map')
    await storage.batchClearState([])
  },

  'takes batches beyond the limits of its backend': async (bench) => {
    const keys = Array.from({ length: bench.maxBatch }, () => bench.key())
    const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))

    const results = await bench.storage.batchSetState(writes)
    assert.equal(results.size, keys.length, 'batchSetState must answer for every circuit')
    for (const { serviceKey, next } of writes) expectApplied(results.get(serviceKey), next, 'a create in a large batch')

    const found = await bench.storage.batchGetState(keys)
    assert.equal(found.size, keys.length, 'batchGetState must find every circuit')
    for (const { serviceKey, next } of writes) expectSame(found.get(serviceKey), next, 'a read in a large batch')

    await bench.storage.batchClearState(keys)
    assert.equal((await bench.storage.batchGetState(keys)).size, 0, 'batchClearState must delete every circuit')
  },

  'sees every write as soon as it is acknowledged': async (bench) => {
    const key = bench.key()
    let { version } = await bench.create(key)
    for (let round = 0; round < 10; round += 1) {
      const { current } = await bench.storage.addOutcomes(key, version, outcomes())
      await bench.expectStored(key, current, 'right after an addition')
      const next = circuitRecord({ generation: round })
      await bench.storage.compareAndSetState(key, version, next)
      await bench.expectStored(key, next, 'right after a replace')
      version = next.version
    }
  },
}

export const roundTripCases: Cases = {
  'keeps every field': async (bench) => {
    await bench.expectRoundTrip(fullRecord(), 'a record with every field')
  },

  'keeps a record that has only what it must': async (bench) => {
    await bench.expectRoundTrip(circuitRecord(), 'a record without optional fields')
  },

  'keeps what is optional inside a record absent': async (bench) => {
    const now = Date.now()
    const inside = { lastFailure: { at: now, name: 'Error' }, override: { state: 'CLOSED', at: now } } as const
    await bench.expectRoundTrip(circuitRecord(inside), 'a failure and an override without optional fields')
  },

  'tells zero and the empty text from nothing': async (bench) => {
    const instants = { suspectedAt: 0, dismissedAt: 0, othersAt: 0, lastFailureAt: 0, openedAt: 0, closedAt: 0 }
    const zeros = { ...instants, retryAt: 0, resetTimeout: 0, noise: 0, pace: 0 }
    const lastFailure = { at: 0, name: 'Error', code: '', status: 0 }
    await bench.expectRoundTrip(circuitRecord({ ...zeros, lastFailure }), 'a record full of zeros')
  },

  'keeps large numbers exact': async (bench) => {
    const key = bench.key()
    const largest = 8.64e15
    const record = circuitRecord({
      state: 'OPEN',
      generation: Number.MAX_SAFE_INTEGER,
      trips: Number.MAX_SAFE_INTEGER - 1,
      successCount: 2 ** 31,
      failureCount: Number.MAX_SAFE_INTEGER - 10,
      retryAt: largest,
      openedAt: largest - 1,
      resetTimeout: 1_234_567_890_123_457,
    })
    await bench.storage.compareAndSetState(key, undefined, record)
    await bench.expectStored(key, record, 'a record of large numbers')
    const more = outcomes({ failures: 7 })
    const result = await bench.storage.addOutcomes(key, record.version, more)
    expectApplied(result, added(record, more), 'an addition to a large count')
  },

  'keeps fractions exact': async (bench) => {
    const fractions = [0.1 + 0.2, 1 / 3, 1e-7, 5e-100, 0.9999999999999999]
    for (const fraction of fractions) {
      const record = circuitRecord({ dismissals: 7 + fraction, noise: fraction, pace: 1_000 * fraction })
      await bench.expectRoundTrip(record, `a record with the fraction ${fraction}`)
    }
  },

  'keeps any text': async (bench) => {
    const texts = ['ünïcödé', '💳🔥', '"quoted" \\back\\', 'line\nbreak\ttab', 'null', '{"a":[1]}', '  ', '-1e3']
    const lastFailure = { at: Date.now(), name: texts.slice(0, 4).join(''), code: texts.slice(4).join('') }
    const leases = texts.map((id) => ({ id, expiresAt: Date.now() + 1_000 }))
    await bench.expectRoundTrip(circuitRecord({ transitions: texts, leases, lastFailure }), 'a record of odd texts')
    for (const text of texts) {
      await bench.expectRoundTrip(circuitRecord({ epoch: text, version: `${text}v` }), `the epoch ${text}`)
    }
  },

  'keeps circuits with similar keys apart': async (bench) => {
    const token = randomUUID()
    const keys = oddKeys.map((key) => bench.own(`${token}${key}`))
    keys.push(bench.own(`#${token}`), bench.own(` ${token}`), bench.own(`${token}${'k'.repeat(256 - token.length)}`))
    await expectApart(bench, keys)
  },

  'takes service keys that name members of Object.prototype': async (bench) => {
    const keys = ['__proto__', 'constructor', 'toString'].map((key) => bench.own(key))
    await bench.storage.batchClearState(keys)
    for (const key of keys) await bench.expectStored(key, undefined, 'a key that nothing is stored for')
    await expectApart(bench, keys)
  },
}

export const ownershipCases: Cases = {
  'is not changed through the records that it returns': async (bench) => {
    const key = bench.key()
    const { storage } = bench
    const record = fullRecord()
    const created = await storage.compareAndSetState(key, undefined, record)
    const refused = await storage.compareAndSetState(key, undefined, fullRecord())
    const refusedAddition = await storage.addOutcomes(key, randomUUID(), outcomes())
    const batch = await storage.batchSetState([{ serviceKey: key, version: undefined, next: fullRecord() }])
    const found = await storage.batchGetState([key])
    vandalise(created)
    vandalise(refused)
    vandalise(refusedAddition)
    vandalise(batch.get(key))
    vandalise(found.get(key))
    vandalise(await storage.getState(key))
    found.clear()
    await bench.expectStored(key, record, 'a record was changed through a reference to it')

    const more = outcomes({ at: record.updatedAt })
    vandalise(await storage.addOutcomes(key, record.version, more))
    await bench.expectStored(key, added(record, more), 'the result of an addition was changed by its receiver')
  },

  'is not changed through the records that it was given': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [given, batched] = [fullRecord(), fullRecord()]
    const [original, otherOriginal] = [structuredClone(given), structuredClone(batched)]
    await bench.storage.compareAndSetState(key, undefined, given)
    await bench.storage.batchSetState([{ serviceKey: other, version: undefined, next: batched }])
    vandalise(given)
    vandalise(batched)
    await bench.expectStored(key, original, 'compareAndSetState kept a reference to its argument')
    await bench.expectStored(other, otherOriginal, 'batchSetState kept a reference to its argument')
  },

  'does not change what it is given': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [next, batched, more] = [fullRecord(), fullRecord(), outcomes()]
    const writes = [{ serviceKey: other, version: undefined, next: batched }]
    const keys = [other, key, other]
    const given = structuredClone({ next, writes, more, keys })
    await bench.storage.compareAndSetState(key, undefined, next)
    await bench.storage.batchSetState(writes)
    await bench.storage.addOutcomes(key, next.version, more)
    await bench.storage.addOutcomes(other, batched.version, more)
    await bench.storage.batchGetState(keys)
    await bench.storage.batchClearState(keys)
    expectSame({ next, writes, more, keys }, given, 'an argument was changed')
  },

  'takes frozen arguments': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [next, batched] = [deepFreeze(fullRecord()), deepFreeze(fullRecord())]
    const keys = Object.freeze([other, key])
    await bench.storage.compareAndSetState(key, undefined, next)
    await bench.storage.batchSetState(deepFreeze([{ serviceKey: other, version: undefined, next: batched }]))
    await bench.storage.addOutcomes(key, next.version, deepFreeze(outcomes()))
    assert.equal((await bench.storage.batchGetState(keys)).size, 2)
    await bench.storage.batchClearState(keys)
  },

  'does not change a record that it has returned': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const snapshot = await bench.storage.getState(key)
    const batch = (await bench.storage.batchGetState([key])).get(key)
    const { current } = await bench.storage.compareAndSetState(key, undefined, circuitRecord())
    await bench.storage.addOutcomes(key, record.version, outcomes())
    await bench.storage.compareAndSetState(key, record.version, circuitRecord())
    for (const returned of [snapshot, batch, current])
      expectSame(returned, record, 'a record that was read before a write')
  },
}

/** Each is appended to one token, so that those which an adapter wrongly takes for the same collide. */
const oddKeys = [
  '',
  ' ',
  '#b',
  '##b',
  '%23b',
  '\\#b',
  ':b',
  '/b',
  '{b}',
  'b*',
  'B',
  'b',
  'é',
  'e\u0301',
  '💳',
  '__proto__',
  'a b',
  "'b'",
  '"b"',
]

async function expectApart(bench: Bench, keys: readonly string[]): Promise<void> {
  const records = new Map<string, CircuitRecord>()
  for (const key of keys) records.set(key, await bench.create(key))
  const found = await bench.storage.batchGetState(keys)
  assert.equal(found.size, keys.length, 'batchGetState must find every circuit under its own key')
  for (const [key, record] of records) {
    const what = `the circuit ${JSON.stringify(key)}`
    expectSame(found.get(key), record, what)
    const more = outcomes()
    expectApplied(await bench.storage.addOutcomes(key, record.version, more), added(record, more), what)
    await bench.expectStored(key, added(record, more), what)
  }
  const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))
  assert.deepEqual([...(await bench.storage.batchSetState(writes)).keys()].sort(), [...keys].sort())
}

/** Changes everything that can be changed, at any depth. */
function vandalise(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  for (const inner of Object.values(value)) vandalise(inner)
  for (const field of Object.keys(value)) Reflect.set(value, field, 'vandalised')
  if (Array.isArray(value) && !Object.isFrozen(value)) value.push('vandalised')
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const inner of Object.values(value)) deepFreeze(inner)
  return Object.freeze(value)
}
