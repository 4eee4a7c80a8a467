import { describe, expect, it } from '@jest/globals'
import { controlled, createFleet, failTimes, ok, trip } from '../../support/virtual-fleet.ts'

describe('the outcome of a call', () => {
  it('from an earlier closed period, a success, does not end the streak of a later one', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const early = controlled()
    const call = breaker.call('stripe', early.operation)
    await trip(breaker)
    await runtime.advance(11_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 2)
    await breaker.flush()
    early.succeed('late')
    await call
    await breaker.flush()
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 2, successCount: 0 })
  })

  it('counts once after a probe that closed the circuit where one failure opens', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await failTimes(breaker, 1)
    await breaker.flush()
    await runtime.advance(11_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 1 })
  })

  it('of a healthy service draws no random token', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    const count = () => Number(runtime.id().split('-').at(-1))
    const before = count()
    for (let index = 0; index < 10; index++) await breaker.call('stripe', ok)
    expect(count()).toBe(before + 1)
  })

  it('speaks for the service as soon as it is stored, while its call goes on', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.flush()
    await breaker.call('stripe', ok)
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 2, successCount: 1 })
  })
})

describe('a sample that is complete', () => {
  it('opens the circuit by whoever reads it, where the instance that completed it has died', async () => {
    const { start, storage, runtime, events } = createFleet()
    const [author, reader] = [start(), start()]
    await failTimes(author, 1)
    await author.flush()
    const record = await storage.peek('stripe')
    await storage.addOutcomes('stripe', record?.version as string, {
      failures: 2,
      successes: 0,
      started: 2,
      early: 0,
      reporters: 1,
      at: runtime.now(),
      id: 'of the dead',
    })
    await reader.load()
    expect(reader.circuits.stripe?.state).toBe('OPEN')
    await reader.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
    expect(events).toMatchObject([{ evidence: { failures: 3, successes: 0, reporters: 2 } }])
  })
})
