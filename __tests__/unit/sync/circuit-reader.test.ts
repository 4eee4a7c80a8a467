import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError } from '../../../src/index.ts'
import type { RecordedRequest } from '../../support/recording-storage.ts'
import { createFleet, failTimes, ok } from '../../support/virtual-fleet.ts'

describe('reading', () => {
  const keys = ({ args }: RecordedRequest): unknown => args[0]

  it('leaves out the circuits that were read not long ago', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(2_000)
    await breaker.batchGetState(['b'])
    await runtime.advance(3_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a']])
  })

  it('takes along those that are nearly stale, and those whose clock has stepped back', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b', 'c'] }, { random: () => 1 })
    const breaker = start()
    await breaker.load()
    await runtime.advance(1_000)
    await breaker.batchGetState(['b'])
    await runtime.advance(1)
    await breaker.batchGetState(['c'])
    await runtime.advance(3_999)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a', 'b']])
    runtime.setClock(runtime.now() - 3_600_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a', 'b', 'c']])
  })

  it('does not ask again for a circuit that is being read', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(300)
    await breaker.batchGetState(['b'])
    await runtime.advance(3_700)
    storage.forget()
    const held = storage.holdRequest('batchGetState')
    await breaker.call('a', ok)
    await held.arrived
    await runtime.advance(300)
    await breaker.call('b', ok)
    await breaker.call('a', ok)
    expect(storage.requests.map(keys)).toEqual([['a'], ['b']])
    held.release()
  })

  it('leaves out the circuits that were read in this very millisecond', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(5_000)
    await breaker.batchGetState(['b'])
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a']])
  })

  it('of several circuits of which some could not be read marks none as damaged', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      const errors = new Map([['a', new CircuitStorageError('throttled', { operation: 'batchGetState' })]])
      throw new CircuitStorageError('in part', { operation: 'batchGetState', results: new Map(), errors })
    })
    await breaker.load()
    await failTimes(breaker, 1, 'a')
    await breaker.flush()
    expect((await storage.peek('a'))?.failureCount).toBe(1)
  })

  it('is due within an invocation for what has become stale since it began', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 500 })
    const breaker = start()
    await breaker.load()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 30_000 })
    await runtime.advance(500)
    storage.forget()
    await callExternal('stripe', ok)
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it('with a cacheTtl of 0 is not due within an invocation of a second, and is after it', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 30_000 })
    await breaker.load()
    await runtime.advance(1_000)
    storage.forget()
    await callExternal('stripe', ok)
    expect(storage.requests).toEqual([])
    await runtime.advance(1)
    await callExternal('stripe', ok)
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it('of several circuits that fails without saying which are damaged marks none as damaged', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      throw new CircuitStorageError('damaged', { operation: 'batchGetState', corrupt: true })
    })
    await breaker.load()
    await failTimes(breaker, 1, 'a')
    await breaker.flush()
    expect((await storage.peek('a'))?.failureCount).toBe(1)
  })
})
