import { describe, expect, it } from '@jest/globals'
import type { CircuitBreaker } from '../../../src/index.ts'
import { createFleet, type Fleet, failTimes, ok, outcomeOf, trip } from '../../support/virtual-fleet.ts'

const unavailable = (retryAfter: string): Response =>
  new Response('', { status: 503, headers: { 'retry-after': retryAfter } })

/** Fails twice without a word and then with `Retry-After`, returned as `fetch` does. */
async function openedWith(retryAfter: string, options = {}): Promise<{ fleet: Fleet; breaker: CircuitBreaker }> {
  const fleet = createFleet(options)
  const breaker = fleet.start()
  await breaker.load()
  await failTimes(breaker, 2)
  await breaker.call('stripe', async () => unavailable(retryAfter))
  await breaker.flush()
  return { fleet, breaker }
}

describe('Retry-After on the failure that opens the circuit', () => {
  it.each<[says: string, retryAfter: string, resetTimeout: number]>([
    ['asks for longer than resetTimeout', '30', 30_000],
    ['is a date', 'Thu, 01 Jan 2026 00:00:45 GMT', 45_000],
    ['asks for less', '2', 10_000],
    ['asks for more than maxResetTimeout', '3600', 300_000],
    ['asks for more than a day', '90000', 300_000],
    ['is absurd', '-30', 10_000],
    ['is no time', 'later', 10_000],
  ])('keeps it open as long as is right where it %s', async (_, retryAfter, resetTimeout) => {
    const { fleet } = await openedWith(retryAfter)
    const breaker = fleet.start()
    await breaker.load()
    const now = fleet.runtime.now()

    const record = await fleet.storage.peek('stripe')
    expect(record).toMatchObject({ state: 'OPEN', openedAt: now, retryAt: now + resetTimeout, resetTimeout })
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', retryAt: now + resetTimeout })
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ retryAfter: resetTimeout })

    await fleet.runtime.advance(resetTimeout - 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await fleet.runtime.advance(1)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('is heard where it is on an error that was thrown', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    const response = { status: 503, headers: { 'retry-after': '60' } }
    await outcomeOf(breaker.call('stripe', () => Promise.reject(Object.assign(new Error('503'), { response }))))
    expect(breaker.circuits.stripe?.retryAt).toBe(runtime.now() + 60_000)
  })

  it('is not stored with the failure, only what became of it', async () => {
    const { fleet } = await openedWith('30')
    expect((await fleet.storage.peek('stripe'))?.lastFailure).toEqual({
      at: fleet.runtime.now(),
      name: 'BreakableResult',
      status: 503,
    })
  })

  it('reaches the other instances, and an instance that allows less waits no longer than it allows', async () => {
    const { fleet } = await openedWith('120')
    const now = fleet.runtime.now()
    const [other, impatient] = [fleet.start(), fleet.start({ maxResetTimeout: 20_000 })]
    await Promise.all([other.load(), impatient.load()])
    expect(other.circuits.stripe?.retryAt).toBe(now + 120_000)
    expect(impatient.circuits.stripe?.retryAt).toBe(now + 20_000)
  })

  it('is not taken for the work of a broken clock', async () => {
    // Longer than resetTimeout and what clocks may be apart: without the record's own duration it would count as over.
    const { fleet, breaker } = await openedWith('200')
    await fleet.runtime.advance(199_999)
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await fleet.runtime.advance(1)
    expect(breaker.circuits.stripe?.state).toBe('HALF_OPEN')
  })

  it('does not matter on failures before it', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    await breaker.call('stripe', async () => unavailable('60'))
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.retryAt).toBe(runtime.now() + 10_000)
  })

  it('is heard by an instance on its own while the store is away', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    storage.outage = 'fail'
    const breaker = start()
    await breaker.load()
    await breaker.call('stripe', async () => unavailable('60'))
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', retryAt: runtime.now() + 60_000 })
  })
})

describe('Retry-After on a probe that fails', () => {
  it('keeps the circuit open for as long, and the next plain failure for resetTimeout again', async () => {
    const { start, storage, runtime } = createFleet({ resetBackoff: 1 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    await breaker.call('stripe', async () => unavailable('90'))
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({
      state: 'OPEN',
      retryAt: runtime.now() + 90_000,
      resetTimeout: 90_000,
    })

    await runtime.advance(96_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ retryAt: runtime.now() + 10_000, resetTimeout: 10_000 })
  })
})
