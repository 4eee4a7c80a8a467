import { describe, expect, it } from '@jest/globals'
import { controlled, createFleet, failTimes, ok, outcomeOf, trip } from '../../support/virtual-fleet.ts'

describe('slowCallThreshold', () => {
  it.each([
    ['longer than it', 1_001, undefined, 'OPEN'],
    ['as long as it', 1_000, undefined, 'CLOSED'],
    ['longer than it, bound to a timeout', 1_001, 5_000, 'OPEN'],
    ['as long as it, bound to a timeout', 1_000, 5_000, 'CLOSED'],
  ])('counts a success that took %s: %p ms', async (_which, took, timeout, state) => {
    const { start, runtime } = createFleet({ slowCallThreshold: 1_000, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const operation = controlled()
    const call = breaker.call('stripe', operation.operation, timeout === undefined ? {} : { timeout })
    await runtime.advance(took)
    operation.succeed('slow')
    expect(await call).toBe('slow')
    expect(breaker.circuits.stripe?.state).toBe(state)
  })

  it('is told as the reason: a slow call, without a status', async () => {
    const { start, runtime, events } = createFleet({ slowCallThreshold: 1_000, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const operation = controlled()
    const call = breaker.call('stripe', operation.operation)
    await runtime.advance(1_500)
    operation.succeed('slow')
    await call
    await breaker.flush()
    const lastFailure = { at: runtime.now(), name: 'SlowCall' }
    expect(events.map((event) => event.lastFailure)).toEqual([lastFailure])
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ lastFailure })
  })

  it('counts from the start of the operation: the wait for a permit says nothing of the service', async () => {
    const { start, runtime } = createFleet({ slowCallThreshold: 1_000, failureThreshold: 1, maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const [first, second] = [controlled(), controlled()]
    const calls = [breaker.call('stripe', first.operation), breaker.call('stripe', second.operation)]
    await runtime.advance(900)
    first.succeed('first')
    await runtime.advance(900)
    second.succeed('second')
    expect(await Promise.all(calls)).toEqual(['first', 'second'])
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('lets no fallback answer: the service has', async () => {
    const { start, runtime } = createFleet({ slowCallThreshold: 1_000 })
    const breaker = start()
    await breaker.load()
    const operation = controlled()
    const call = breaker.call('stripe', operation.operation, { fallback: () => 'fallback' })
    await runtime.advance(2_000)
    operation.succeed('slow')
    expect(await call).toBe('slow')
  })

  it('does not let a slow probe close the circuit', async () => {
    const { start, storage, runtime } = createFleet({ slowCallThreshold: 1_000 })
    await trip(start())
    const breaker = start()
    await runtime.advance(10_000)
    const operation = controlled()
    const probe = breaker.call('stripe', operation.operation)
    await runtime.advance(1_500)
    operation.succeed('slow')
    expect(await probe).toBe('slow')
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', trips: 2, lastFailure: { name: 'SlowCall' } })
  })

  it('leaves what failed and what does not count as it is, however long it took', async () => {
    const { start, runtime } = createFleet({ slowCallThreshold: 1_000, failureThreshold: 2 })
    const breaker = start()
    await failTimes(breaker, 1)
    const operation = controlled()
    const call = outcomeOf(breaker.call('stripe', operation.operation))
    await runtime.advance(2_000)
    operation.fail(new RangeError('a bug'))
    await call
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })
})
