import { describe, expect, it } from '@jest/globals'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import {
  controlled,
  corrupt,
  createFleet,
  type Fleet,
  failTimes,
  isClaimOrRead,
  isSettled,
  never,
  observedBy,
  ok,
  outcomeOf,
  trip,
} from '../../support/virtual-fleet.ts'

describe('a probe', () => {
  it('of an instance is joined by a second one where two are allowed', async () => {
    const { start, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const probe = controlled()
    const calls = Array.from({ length: 3 }, () => outcomeOf(breaker.call('stripe', probe.operation)))
    await runtime.settle()
    expect(probe.started).toBe(2)
    probe.succeed('ok')
    const outcomes = await Promise.all(calls)
    expect(outcomes.map(({ value }) => value)).toEqual(['ok', 'ok', undefined])
    expect(outcomes[2]?.error).toMatchObject({ reason: 'probing' })
  })

  it('is waited for no longer than storageTimeout by a call that comes while it is claimed', async () => {
    const { start, storage, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.inject('hang', isClaimOrRead)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(300)
    const second = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(200)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    await runtime.advance(500)
    expect(await isSettled(second, runtime)).toBe(true)
  })

  it('is not claimed once more by a call whose time ended with that of the claim it waited for', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.forget()
    storage.inject('hang', 'compareAndSetState', 10)
    const calls = [1, 2].map(() => outcomeOf(breaker.call('stripe', ok)))
    await runtime.advance(500)
    for (const { error } of await Promise.all(calls)) expect(error).toMatchObject({ reason: 'unclaimed' })
    expect(storage.writes).toHaveLength(1)
  })

  it('is not run alone by a call that had less than its time, because it waited for the claim of another', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.inject('hang', 'compareAndSetState', 10)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(300)
    const second = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    expect((await second).error).toMatchObject({ reason: 'unclaimed' })
  })

  it('that was granted while another one of this instance failed is not run', async () => {
    const { start, storage, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const probe = controlled()
    const probing = outcomeOf(breaker.call('stripe', probe.operation))
    await runtime.settle()
    const held = storage.holdReply('compareAndSetState')
    const second = controlled()
    const call = outcomeOf(breaker.call('stripe', second.operation))
    await held.arrived
    probe.fail()
    await probing
    held.release()
    expect((await call).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect(second.started).toBe(0)
  })

  it('is run alone where the store leaves a second claim in a row unanswered, and not before', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    const observed = observedBy(breaker)
    await trip(breaker)
    await runtime.advance(11_000)
    storage.inject('hang', 'compareAndSetState', 2)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    const probe = controlled()
    const second = breaker.call('stripe', probe.operation)
    await runtime.advance(500)
    expect(probe.started).toBe(1)
    expect(observed.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN'])
    probe.succeed('ok')
    expect(await second).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('is run alone at once where the look at the store finds the record damaged', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.intercept('getState', async () => {
      throw corrupt('getState')
    })
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('needs no look at a store that was read at retryAt itself, and leaves no timer behind', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    await breaker.batchGetState()
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.operations).toEqual(['compareAndSetState', 'compareAndSetState'])
    expect(runtime.pendingTimers).toEqual([])
  })

  it('needs no look at a store that no other instance uses', async () => {
    const { start, storage, runtime } = createFleet()
    storage.shared = false
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.load()
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.operations).toEqual(['compareAndSetState', 'compareAndSetState'])
  })

  it('of an instance that has opened the circuit waits a second from the very retryAt on, so that others can come first', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open', retryAfter: 1_000 })
    await runtime.advance(1_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('waits for nobody in a store that no other instance uses', async () => {
    const { start, storage, runtime } = createFleet({}, { random: () => 0.5 })
    storage.shared = false
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it.each([
    ['cacheTtl', {}, 30_000, 5_000],
    ['a second at least', { cacheTtl: 0 }, 30_000, 1_000],
    ['what its lease has left', { deadlineReserve: 0 }, 300, 300],
    ['resetTimeout', { resetTimeout: 700 }, 30_000, 700],
  ])('lets those whom it keeps out wait for %s', async (_what, options, left, retryAfter) => {
    const { start, runtime } = createFleet(options)
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => left + 1_000 })
    void callExternal('stripe', never)
    await runtime.settle()
    await runtime.advance(1_000)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'probing', retryAfter })
  })

  it.each([
    ['for longer than the window changes nothing any more', 60_001, 'HALF_OPEN', 1],
    ['for as long as the window still counts', 60_000, 'CLOSED', 0],
  ])('whose outcome could not be stored %s', async (_what, wait, state, leases) => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const probe = controlled()
    const call = breaker.call('stripe', probe.operation)
    await runtime.settle()
    storage.outage = 'fail'
    probe.succeed('ok')
    await call
    await runtime.advance(wait)
    storage.heal()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe(state)
    expect((await storage.peek('stripe'))?.leases).toHaveLength(leases)
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('at retryAt', () => {
  const claims = async (breaker: ReturnType<Fleet['start']>): Promise<boolean> => {
    const { value } = await outcomeOf(breaker.call('stripe', ok))
    await breaker.flush()
    return value === 'ok'
  }

  it('an instance that had no part in opening the circuit comes first: whoever opened it waits', async () => {
    const { start, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await other.load()
    await runtime.advance(10_000)
    expect(await claims(breaker)).toBe(false)
    await other.load()
    expect(await claims(other)).toBe(true)
    // The record says so: there is nothing left to probe.
    await runtime.advance(1_000)
    await breaker.load()
    expect(await claims(breaker)).toBe(true)
    expect(breaker.circuits.stripe?.generation).toBe(3)
  })

  it('an instance that reads its own store probes at once', async () => {
    const { start, storage, runtime } = createFleet()
    storage.shared = false
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    expect(await claims(breaker)).toBe(true)
  })

  it('an instance whose probe has failed leaves the next one to others, for a cacheTtl where they are known', async () => {
    const { start, runtime, storage } = createFleet({ resetBackoff: 1 })
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(10_000)
    await other.load()
    await failTimes(other, 1)
    await other.flush()
    const record = (await storage.peek('stripe')) as CircuitRecord
    await storage.put('stripe', { ...record, version: 'v', othersAt: runtime.now() })
    await runtime.advance(10_000)
    await other.load()
    expect((await outcomeOf(other.call('stripe', ok))).error).toMatchObject({ reason: 'open', retryAfter: 5_000 })
    await runtime.advance(5_000)
    expect(await claims(other)).toBe(true)
  })

  it('an instance leaves nothing to others any more when the circuit has closed since', async () => {
    const { start, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(11_000)
    expect(await claims(breaker)).toBe(true)
    await runtime.advance(60_000)
    await trip(other)
    await breaker.load()
    await runtime.advance(30_000)
    await breaker.load()
    expect(await claims(breaker)).toBe(true)
  })
})

describe('a lease that is granted too late for the call that claimed it', () => {
  /** An instance that holds one. */
  async function withSpare(options = {}) {
    const fleet = createFleet(options)
    const breaker = fleet.start()
    await trip(breaker)
    await fleet.runtime.advance(11_000)
    const held = fleet.storage.holdReply('compareAndSetState')
    const call = outcomeOf(breaker.call('stripe', ok))
    await fleet.runtime.advance(500)
    expect((await call).error).toMatchObject({ reason: 'unclaimed' })
    held.release()
    await fleet.runtime.settle()
    expect(breaker.needsFlush).toBe(true)
    return { ...fleet, breaker }
  }

  it.each([
    ['is gone', (record: CircuitRecord) => ({ ...record, leases: [], version: 'v' })],
    [
      'is gone, though there is another',
      (record: CircuitRecord) => ({ ...record, leases: [{ id: 'other', expiresAt: 9e12 }], version: 'v' }),
    ],
  ])('is forgotten where it %s from the record', async (_how, change) => {
    const { breaker, storage } = await withSpare()
    await storage.put('stripe', change((await storage.peek('stripe')) as CircuitRecord))
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(false)
  })

  it('is forgotten with the record', async () => {
    const { breaker, storage } = await withSpare()
    await storage.remove('stripe')
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(false)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('is kept while it is in the record', async () => {
    const { breaker } = await withSpare()
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(true)
  })

  it('is not used when it has expired: another one is claimed', async () => {
    const { breaker, storage, runtime } = await withSpare({ halfOpenMaxConcurrent: 2, cacheTtl: 60_000 })
    await runtime.advance(29_000)
    const record = (await storage.peek('stripe')) as CircuitRecord
    const other = { id: 'other', expiresAt: runtime.now() + 30_000 }
    await storage.put('stripe', { ...record, leases: [...record.leases, other] })
    await breaker.batchGetState()
    await runtime.advance(1_000)
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.writes).toHaveLength(2)
  })
})
