import { describe, expect, it } from '@jest/globals'
import { emptyRecord } from '../../../src/storage/record.ts'
import {
  controlled,
  createFleet,
  failTimes,
  isClaimOrRead,
  isSettled,
  never,
  ok,
  outcomeOf,
  trip,
} from '../../support/virtual-fleet.ts'

describe('those who wait for a permit', () => {
  it('go on waiting where the circuit turns out to be half-open and free: they may probe', async () => {
    const { start, storage, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const calls = [breaker.call('stripe', first.operation), breaker.call('stripe', ok)]
    const record = emptyRecord('e', runtime.now())
    await storage.put('stripe', { ...record, version: 'v', state: 'HALF_OPEN', resetTimeout: 10_000, retryAt: 1 })
    await breaker.batchGetState()
    first.succeed('first')
    expect(await Promise.all(calls)).toEqual(['first', 'ok'])
  })
})

describe('a refusal', () => {
  it('never queues, also where every permit is taken', async () => {
    const { start } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    void breaker.call('stripe', never)
    await breaker.forceOpen('stripe')
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced' })
    expect(breaker.needsFlush).toBe(false)
  })

  it('gives back the permit that was taken before the probe went to another instance', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const [breaker, other] = [start(), start()]
    await trip(start())
    await runtime.advance(10_000)
    await breaker.load()
    const probe = controlled()
    const probing = other.call('stripe', probe.operation)
    await runtime.settle()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'probing' })
    probe.succeed('ok')
    await probing
    await other.flush()
    await breaker.batchGetState()
    expect(await isSettled(breaker.call('stripe', ok), runtime)).toBe(true)
  })
})

describe('a call that is cut', () => {
  it.each([
    ['by the deadline before it had a fair time', undefined],
    ['by its caller', new AbortController()],
  ])('%s is no success either: a streak goes on', async (_how, controller) => {
    const { start, runtime, storage } = createFleet({ failureThreshold: 9 })
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.flush()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 1_500 })
    const call = outcomeOf(callExternal('stripe', never, { signal: controller?.signal }))
    controller?.abort()
    await runtime.advance(500)
    expect((await call).error).toBeDefined()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it.each([
    ['long before the deadline, though it ran for long', 60_000, 5_000, false],
    ['51 ms before the deadline', 6_051, 5_000, false],
    ['50 ms before the deadline', 6_050, 5_000, true],
    ['at the deadline, but had no fair time', 1_949, 900, false],
  ])('by its caller %s: is it a failure?', async (_when, remaining, ran, counts) => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const controller = new AbortController()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
    const call = outcomeOf(callExternal('stripe', never, { signal: controller.signal }))
    await runtime.advance(ran)
    controller.abort()
    await call
    expect(breaker.circuits.stripe?.state).toBe(counts ? 'OPEN' : 'CLOSED')
  })

  it('while it claims a probe that goes to another instance has nothing to give back', async () => {
    const { start, runtime, storage } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(start())
    await runtime.advance(10_000)
    const held = storage.holdRequest(isClaimOrRead)
    const controller = new AbortController()
    const call = outcomeOf(breaker.call('stripe', ok, { signal: controller.signal }))
    await held.arrived
    void other.call('stripe', never)
    await runtime.settle()
    controller.abort()
    await call
    held.release()
    await runtime.settle()
    expect((await storage.peek('stripe'))?.leases).toHaveLength(1)
    expect(breaker.needsFlush).toBe(false)
  })
})
