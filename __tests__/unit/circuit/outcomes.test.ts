import { describe, expect, it } from '@jest/globals'
import { emptyRecord } from '../../../src/storage/record.ts'
import { controlled, createFleet, failTimes, ok, outcomeOf, trip, unavailable } from '../../support/virtual-fleet.ts'

describe('the outcome of a call', () => {
  it('from an earlier closed period, a success, does not end the streak of a later one', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const early = controlled()
    const call = breaker.call('stripe', early.operation)
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 2)
    await breaker.flush()
    early.succeed('late')
    await call
    await breaker.flush()
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('counts once after a success where one failure opens', async () => {
    const { start, storage } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 1 })
  })

  it('counts once after a probe that closed the circuit where one failure opens', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await failTimes(breaker, 1)
    await breaker.flush()
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 1 })
  })

  it('reports a failure that was held back with the second one, up to the last millisecond of the window', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 5 })
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('is held back, an isolated failure, up to the last millisecond of the window after a success', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await runtime.advance(60_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(storage.writes).toEqual([])
  })

  it('is held back, an isolated failure, after a probe that closed the circuit', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('is reported at once where this instance has only seen a probe fail, and another one closed the circuit', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(10_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    await runtime.advance(10_000)
    await other.call('stripe', ok)
    await other.flush()
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('finishes a trip that its author left undone, though this instance saw the service succeed', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    const orphaned = { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() }
    await storage.put('stripe', orphaned)
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 4 })
  })

  it('counts once where a success came after a failure that was held back', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.call('stripe', ok)
    const orphaned = { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() }
    await storage.put('stripe', orphaned)
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 4 })
  })

  it('that was stored though its reply was lost is not counted on top of itself', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 2 })
    const breaker = start()
    await breaker.load()
    storage.inject('lose-with-error', 'incrementFailures')
    await failTimes(breaker, 1)
    await runtime.settle()
    await breaker.batchGetState()
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('of a healthy service draws no random token', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const count = () => Number(runtime.id().split('-').at(-1))
    const before = count()
    for (let index = 0; index < 10; index++) await breaker.call('stripe', ok)
    expect(count()).toBe(before + 1)
  })

  it('a success, follows a failure that is still being written', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdRequest('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await breaker.call('stripe', ok)
    held.release()
    await runtime.settle()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('a success, is stored in the background where it ends a streak', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.flush()
    await breaker.call('stripe', ok)
    await runtime.settle()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('does not open the circuit by failures that a success on its way to the store has ended', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await failTimes(other, 2)
    await other.flush()
    await breaker.load()
    const held = storage.holdRequest('compareAndSetState')
    await breaker.call('stripe', ok)
    await held.arrived
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
  })
})

describe('the failure that completes the count of the fleet', () => {
  it('opens the circuit, with what failed and in which request, though this instance knew of none before', async () => {
    const { start, storage, events } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    await failTimes(other, 2)
    await other.flush()
    const callExternal = breaker.callExternalFor({ awsRequestId: 'request-1' })
    await outcomeOf(callExternal('stripe', unavailable))
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', lastFailure: { status: 503 } })
    expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold', requestId: 'request-1' }])
  })

  it('is followed by others who leave the opening to its author, and refuse meanwhile', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() })
    storage.forget()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(storage.operations).toEqual(['incrementFailures'])
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(999)
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    // Nobody has opened it: its author died.
    await runtime.advance(1)
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })
})
