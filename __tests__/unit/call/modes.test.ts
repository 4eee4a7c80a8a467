import { describe, expect, it, jest } from '@jest/globals'
import { controlled, createFleet, failTimes, ok, outcomeOf, trip } from '../../support/virtual-fleet.ts'
import { warningsEmitted } from '../../support/warning-texts.ts'

describe('mode observe', () => {
  it('never refuses, but counts, stores and reports', async () => {
    const { start, storage, events } = createFleet({ mode: 'observe' })
    const breaker = start()
    await trip(breaker)
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', mode: 'observe' })
    expect(events).toHaveLength(1)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    const error = new Error('503')
    expect((await outcomeOf(breaker.call('stripe', () => Promise.reject(error)))).error).toBe(error)
    expect((await storage.peek('stripe'))?.generation).toBe(1)
  })

  it('probes and closes by itself, and lets the others pass meanwhile', async () => {
    const { start, storage, runtime, events } = createFleet({ mode: 'observe' })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const probe = controlled()
    const calls = [1, 2, 3].map(() => breaker.call('stripe', probe.operation))
    await runtime.settle()
    expect(probe.started).toBe(3)
    expect((await storage.peek('stripe'))?.leases).toHaveLength(1)
    probe.succeed('ok')
    await Promise.all(calls)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
    expect(events.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN', 'CLOSED'])
  })

  it('has no concurrency limit and refuses nobody whom an operator would', async () => {
    const { start, runtime } = createFleet({ mode: 'observe', maxConcurrent: 1, maxQueue: 0 })
    const breaker = start()
    await breaker.forceOpen('stripe')
    const call = controlled()
    const calls = [1, 2, 3].map(() => breaker.call('stripe', call.operation))
    await runtime.settle()
    expect(call.started).toBe(3)
    call.succeed('ok')
    await Promise.all(calls)
  })

  it('counts the calls that enforcing would let wait, and warns of them once', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockReturnValue(undefined)
    const { start } = createFleet({ services: ['crowded'], mode: 'observe', maxConcurrent: 2 })
    const breaker = start()
    await breaker.load()
    for (let round = 1; round <= 2; round++) {
      const call = controlled()
      const calls = [1, 2, 3, 4, 5].map(() => breaker.call('crowded', call.operation))
      call.succeed('ok')
      await Promise.all(calls)
      expect(breaker.circuits.crowded?.queued).toBe(3 * round)
    }
    await warningsEmitted()
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(/^More calls of "crowded" .+ maxConcurrent allows, 2\..+CIRCUIT_BREAKER_MAX_CONCURRENT/),
        expect.anything(),
      ],
    ])
    warn.mockRestore()
  })

  it('opens the circuit for instances that enforce it', async () => {
    const { start } = createFleet()
    await trip(start({ mode: 'observe' }))
    expect((await outcomeOf(start().call('stripe', ok))).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
  })

  it('lets calls pass while the store hangs', async () => {
    const { start, storage, runtime } = createFleet({ mode: 'observe' })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.outage = 'hang'
    const call = breaker.call('stripe', ok)
    await runtime.advance(500)
    expect(await call).toBe('ok')
  })
})

describe('mode off', () => {
  it('lets calls pass straight through, reads nothing and writes nothing', async () => {
    const { start, storage, events } = createFleet({ mode: 'off' })
    const breaker = start()
    expect(breaker.needsLoad).toBe(false)
    await breaker.load()
    await failTimes(breaker, 20)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.requests).toEqual([])
    expect(events).toEqual([])
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', mode: 'off', failureCount: 0 })
  })

  it('has no concurrency limit', async () => {
    const { start, runtime } = createFleet({ mode: 'off', maxConcurrent: 1, maxQueue: 0 })
    const breaker = start()
    const call = controlled()
    const calls = [1, 2, 3].map(() => breaker.call('stripe', call.operation))
    await runtime.settle()
    expect(call.started).toBe(3)
    call.succeed('ok')
    await Promise.all(calls)
  })

  it('for one service does not switch off the others', async () => {
    const { start, storage } = createFleet({ services: { stripe: { mode: 'off' }, paypal: {} } })
    const breaker = start()
    await breaker.load()
    expect(storage.requests.map(({ args }) => args)).toEqual([[['paypal']]])
    await failTimes(breaker, 3)
    await failTimes(breaker, 3, 'paypal')
    const operation = jest.fn(ok)
    await breaker.call('stripe', operation)
    expect(operation).toHaveBeenCalledTimes(1)
    expect((await outcomeOf(breaker.call('paypal', operation))).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
  })

  it('still cuts calls at their timeout', async () => {
    const { start, runtime } = createFleet({ mode: 'off', timeout: 100 })
    const call = outcomeOf(start().call('stripe', () => new Promise(() => {})))
    await runtime.advance(100)
    expect((await call).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
  })
})
