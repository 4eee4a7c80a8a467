/**
 * A record that was deleted (by expiry, `FLUSHALL`, a failover) and grew again has another version, also if nothing ever
 * replaced it: an outcome of a call that was admitted before counts for nothing.
 */

import { describe, expect, it } from '@jest/globals'
import type { CircuitBreaker } from '../../../src/index.ts'
import type { CircuitRecord, CompareAndSet } from '../../../src/storage/contract.ts'
import type { RecordedRequest } from '../../support/recording-storage.ts'
import {
  type Controlled,
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  ok,
  outcomeOf,
} from '../../support/virtual-fleet.ts'

interface Scene extends Fleet {
  readonly a: CircuitBreaker
  readonly b: CircuitBreaker
  /** The operation of `a` that is in flight when the record is deleted. */
  readonly operation: Controlled
  /** The record that was deleted. */
  readonly before: CircuitRecord
}

/** Instance A has reported failures and has another call in flight; then the record is deleted. */
async function deleted(reported = 1): Promise<Scene> {
  const fleet = createFleetOfTwo()
  const { a, b } = fleet
  await Promise.all([a.load(), b.load()])
  const operation = controlled()
  await failTimes(a, reported)
  await a.flush()
  void outcomeOf(a.call('stripe', operation.operation))
  await fleet.runtime.settle()
  const before = (await fleet.storage.peek('stripe')) as CircuitRecord
  expect(before).toMatchObject({ failureCount: reported, state: 'CLOSED' })
  await fleet.storage.remove('stripe')
  fleet.storage.forget()
  return { ...fleet, operation, before }
}

/** … and a failure of instance B makes it grow again. */
async function regrown(reported?: number): Promise<Scene & { readonly after: CircuitRecord }> {
  const scene = await deleted(reported)
  await failTimes(scene.b, 1)
  await scene.b.flush()
  const after = (await scene.storage.peek('stripe')) as CircuitRecord
  expect(after).toMatchObject({ failureCount: 1 })
  expect(after.epoch).not.toBe(scene.before.epoch)
  scene.storage.forget()
  return { ...scene, after }
}

/** The versions that writes are conditional on. */
function conditions(requests: readonly RecordedRequest[]): unknown[] {
  return requests.map(({ operation, args }) =>
    operation === 'batchSetState' ? (args[0] as CompareAndSet[])[0]?.version : args[1],
  )
}

describe('a failure of a call that was admitted before the record was deleted', () => {
  it('is not added to the record that grew again', async () => {
    const { a, operation, storage, before, after, runtime } = await regrown()

    operation.fail()
    await runtime.settle()
    await a.flush()

    expect(storage.operations).toEqual(['addOutcomes'])
    expect(conditions(storage.writes)).toEqual([before.version])
    expect(await storage.peek('stripe')).toEqual(after)
    expect(a.circuits.stripe).toMatchObject({ failureCount: 1, state: 'CLOSED', epoch: after.epoch })
    expect(a.needsFlush).toBe(false)
  })

  it('is not counted later either: it takes two more failures to open the circuit', async () => {
    const { a, b, operation, events, runtime } = await regrown()
    operation.fail()
    await runtime.settle()
    await a.flush()

    await failTimes(a, 1)
    await a.flush()
    expect(a.circuits.stripe).toMatchObject({ failureCount: 2, state: 'CLOSED' })
    expect(events).toEqual([])

    await b.load()
    await failTimes(b, 1)
    await b.flush()
    expect(events).toMatchObject([{ to: 'OPEN' }])
  })

  it('does not open the record that grew again', async () => {
    const { a, operation, storage, before, after, events, runtime } = await regrown(2)

    operation.fail()
    await runtime.settle()
    await a.flush()

    expect(storage.operations).toEqual(['addOutcomes'])
    expect(conditions(storage.writes)).toEqual([before.version])
    expect(await storage.peek('stripe')).toEqual(after)
    expect(events).toEqual([])
    expect(a.circuits.stripe).toMatchObject({ failureCount: 1, state: 'CLOSED', epoch: after.epoch })
    await expect(a.call('stripe', ok)).resolves.toBe('ok')
  })

  it('does not make a record where there is none', async () => {
    for (const reported of [1, 2]) {
      const { a, operation, storage, before, events, runtime } = await deleted(reported)

      operation.fail()
      await runtime.settle()
      await a.flush()

      expect(storage.operations).toEqual(['addOutcomes'])
      expect(conditions(storage.writes)).toEqual([before.version])
      expect(await storage.peek('stripe')).toBeUndefined()
      expect(events).toEqual([])
      expect(a.circuits.stripe).toMatchObject({ failureCount: 0, state: 'CLOSED' })
      expect(a.circuits.stripe?.epoch).not.toBe(before.epoch)
      expect(a.needsFlush).toBe(false)
    }
  })

  it('does not count in the record that follows it, once this instance has begun it itself', async () => {
    const { a, operation, storage, runtime } = await deleted()
    const late = controlled()
    void outcomeOf(a.call('stripe', late.operation))
    operation.fail()
    await runtime.settle()
    await a.flush()

    await failTimes(a, 1)
    await a.flush()
    const after = await storage.peek('stripe')
    expect(after).toMatchObject({ failureCount: 1 })
    late.fail()
    await runtime.settle()
    await a.flush()

    expect(await storage.peek('stripe')).toEqual(after)
    expect(a.circuits.stripe?.failureCount).toBe(1)
  })

  it('is not counted when its write was on its way all the time', async () => {
    const { a, b, storage, runtime } = createFleetOfTwo()
    await Promise.all([a.load(), b.load()])
    await failTimes(a, 1)
    await a.flush()
    const held = storage.holdRequest('addOutcomes')
    await failTimes(a, 1)
    await held.arrived
    await storage.remove('stripe')
    await failTimes(b, 1)
    await b.flush()
    const after = await storage.peek('stripe')

    held.release()
    await runtime.settle()

    expect(await storage.peek('stripe')).toEqual(after)
    expect(after?.failureCount).toBe(1)
    expect(a.circuits.stripe).toMatchObject({ failureCount: 1, epoch: after?.epoch })
  })
})

describe('a write that was not answered', () => {
  for (const fault of ['fail', 'lose-with-error'] as const) {
    it(`is looked for first, and not sent again once the record is another one (${fault})`, async () => {
      const { a, b, storage } = createFleetOfTwo()
      await Promise.all([a.load(), b.load()])
      await failTimes(a, 1)
      await a.flush()
      const before = await storage.peek('stripe')
      storage.inject(fault, 'addOutcomes')
      storage.forget()
      await failTimes(a, 1)
      await a.flush()
      await storage.remove('stripe')
      await failTimes(b, 1)
      await b.flush()
      const after = await storage.peek('stripe')

      await a.flush()

      const ofA = storage.writes.filter(({ args }) => args[1] === before?.version)
      expect(ofA).toHaveLength(1)
      expect(storage.operations.at(-1)).toBe('getState')
      expect(await storage.peek('stripe')).toEqual(after)
      expect(a.circuits.stripe).toMatchObject({ failureCount: 1, epoch: after?.epoch })
      expect(a.needsFlush).toBe(false)
    })
  }

  it('counts once where the record is still there', async () => {
    const { a, storage } = createFleetOfTwo()
    await a.load()
    await failTimes(a, 1)
    await a.flush()
    storage.inject('lose-with-error', 'addOutcomes')
    await failTimes(a, 1)
    await a.flush()
    await a.flush()

    expect(conditions(storage.writes.slice(1))).toEqual([expect.any(String), expect.any(String)])
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 2 })
    expect(a.circuits.stripe).toMatchObject({ failureCount: 2, state: 'CLOSED' })
  })

  it('does not bring a deleted record back when its reply comes after a newer answer', async () => {
    const { a, storage, runtime } = createFleetOfTwo()
    await a.load()
    await failTimes(a, 1)
    await a.flush()
    const held = storage.holdReply('addOutcomes')
    await failTimes(a, 1)
    await held.arrived
    const before = await storage.peek('stripe')
    expect(before?.failureCount).toBe(2)
    await storage.remove('stripe')
    expect(await a.batchGetState()).toEqual(new Map())
    const epoch = a.circuits.stripe?.epoch

    held.release()
    await runtime.settle()

    expect(epoch).not.toBe(before?.epoch)
    expect(a.circuits.stripe).toMatchObject({ failureCount: 0, epoch })
  })
})

describe('an operator', () => {
  it('decides again when the record is another one', async () => {
    for (const operate of [
      (breaker: CircuitBreaker) => breaker.forceOpen('stripe'),
      (breaker: CircuitBreaker) => breaker.batchSetState({ stripe: 'OPEN' }),
    ]) {
      const { a, b, storage } = createFleetOfTwo()
      await failTimes(b, 1)
      await b.flush()
      const before = await storage.peek('stripe')
      storage.forget()
      const isWrite = ({ operation }: RecordedRequest) => /Set/.test(operation)
      const held = storage.holdRequest(isWrite)
      const operated = operate(a)
      await held.arrived
      await storage.remove('stripe')

      held.release()
      await operated

      expect(conditions(storage.writes)).toEqual([before?.version, undefined])
      expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    }
  })
})

function createFleetOfTwo(
  ...options: Parameters<typeof createFleet>
): Fleet & { readonly a: CircuitBreaker; readonly b: CircuitBreaker } {
  const fleet = createFleet(...options)
  return { ...fleet, a: fleet.start(), b: fleet.start() }
}
