import { describe, expect, it } from '@jest/globals'
import { createKeyedFleet, failKey, type KeyedBreaker, tripKey } from '../../support/keyed-fleet.ts'
import { BadRequest, controlled, ok, outcomeOf, unavailable } from '../../support/virtual-fleet.ts'

async function refusalOf(breaker: KeyedBreaker, key: string): Promise<unknown> {
  return (await outcomeOf(breaker.call('crm', ok, { key }))).error
}

/** Instances whose calls are guarded by the key's circuit and by the service's own. */
function createParentFleet(settings: Parameters<typeof createKeyedFleet>[1] = {}) {
  return createKeyedFleet({ parent: true }, settings)
}

describe('a service that is guarded as a whole, too', () => {
  it('has a circuit of its own, which is read up front', async () => {
    const { start, storage } = createParentFleet()
    const breaker = start()
    await breaker.load()
    expect(storage.requests.map(({ args }) => args[0])).toEqual([['crm', 'stripe']])
    expect(breaker.circuits.crm.parent).toMatchObject({ service: 'crm', state: 'CLOSED' })
    expect(breaker.circuits.crm.parent).not.toHaveProperty('key')
  })

  it('opens when the calls of many keys fail, before any key does', async () => {
    const { start, events } = createParentFleet()
    const breaker = start()
    for (const key of ['a', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    expect(events).toMatchObject([{ service: 'crm', to: 'OPEN' }])
    expect(events[0]).not.toHaveProperty('key')
    const refusal = await refusalOf(breaker, 'new')
    expect(refusal).toMatchObject({ code: 'CIRCUIT_OPEN', service: 'crm' })
    expect(refusal).not.toHaveProperty('key')
  })

  it('stays closed where one key fails, also where nobody else calls', async () => {
    const { start, events, runtime } = createParentFleet()
    const breaker = start()
    await tripKey(breaker, 'dead')
    for (let probe = 0; probe < 5; probe++) {
      await runtime.advance(20_000)
      await failKey(breaker, 'dead', 2)
      await breaker.flush()
    }
    expect(events.filter(({ key }) => key === undefined)).toEqual([])
    expect(events.filter(({ key, to }) => key === 'dead' && to === 'OPEN').length).toBeGreaterThan(1)
    expect(await refusalOf(breaker, 'fine')).toBeUndefined()
  })

  it('stays closed where one key is slow', async () => {
    const { start, events, runtime } = createParentFleet({ slowCallThreshold: 1_000 })
    const breaker = start()
    for (let call = 0; call < 3; call++) {
      const slow = controlled()
      const called = breaker.call('crm', slow.operation, { key: 'slow' })
      await runtime.advance(2_000)
      slow.succeed('ok')
      await called
    }
    await breaker.flush()
    expect(events).toMatchObject([{ key: 'slow', to: 'OPEN' }])
    expect(await refusalOf(breaker, 'fine')).toBeUndefined()
  })

  it('opens again when its probe fails, whichever key that is', async () => {
    const { start, runtime, events } = createParentFleet()
    const breaker = start()
    for (const key of ['a', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    await runtime.advance(12_000)
    await failKey(breaker, 'a', 1)
    await breaker.flush()
    expect(events.map(({ key, to }) => [key, to])).toEqual([
      [undefined, 'OPEN'],
      [undefined, 'HALF_OPEN'],
      [undefined, 'OPEN'],
    ])
  })

  it('stays closed where one key fails and others work', async () => {
    const { start, events } = createParentFleet()
    const breaker = start()
    for (let round = 0; round < 20; round++) {
      await breaker.call('crm', ok, { key: `works-${round}` })
      await failKey(breaker, 'dead', 1)
    }
    await breaker.flush()
    expect(events).toMatchObject([{ service: 'crm', key: 'dead', to: 'OPEN' }])
    expect(await refusalOf(breaker, 'dead')).toMatchObject({ key: 'dead' })
    expect(await refusalOf(breaker, 'works')).toBeUndefined()
  })

  it('probes once for all keys, and closes', async () => {
    const { start, runtime, storage } = createParentFleet()
    const breaker = start()
    for (const key of ['a', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    await runtime.advance(12_000)
    const probe = controlled()
    const calls = ['a', 'd', 'e'].map((key) => outcomeOf(breaker.call('crm', probe.operation, { key })))
    await runtime.settle()
    expect(probe.started).toBe(1)
    probe.succeed('ok')
    const outcomes = await Promise.all(calls)
    expect(outcomes.filter(({ error }) => error === undefined)).toHaveLength(1)
    await breaker.flush()
    expect((await storage.peek('crm'))?.state).toBe('CLOSED')
    expect(await refusalOf(breaker, 'd')).toBeUndefined()
  })

  it('gives its probe back where the key refuses', async () => {
    const { start, runtime, storage } = createParentFleet()
    const breaker = start()
    for (const key of ['dead', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    await breaker.forceOpen('crm', { key: 'dead' })
    await runtime.advance(12_000)
    expect(await refusalOf(breaker, 'dead')).toMatchObject({ key: 'dead', reason: 'forced' })
    await breaker.flush()
    expect((await storage.peek('crm'))?.leases ?? []).toEqual([])
    expect(await refusalOf(breaker, 'fine')).toBeUndefined()
  })

  it('gives the permit of the key back where the service refuses', async () => {
    const { start } = createParentFleet({ maxConcurrent: 1, maxQueue: 0 })
    const breaker = start()
    await breaker.call('crm', ok, { key: 'a' })
    await breaker.forceOpen('crm')
    for (let call = 0; call < 3; call++) expect(await refusalOf(breaker, 'a')).toMatchObject({ code: 'CIRCUIT_OPEN' })
    await breaker.reset('crm')
    expect(await refusalOf(breaker, 'a')).toBeUndefined()
  })

  it('lets more calls run at once than a key', async () => {
    const { start, runtime } = createParentFleet({ maxConcurrent: 1 })
    const breaker = start()
    const slow = controlled()
    const calls = ['a', 'b', 'c', 'c'].map((key) => breaker.call('crm', slow.operation, { key }))
    await runtime.settle()
    expect(slow.started).toBe(3)
    slow.succeed('ok')
    await Promise.all(calls)
  })

  it('refuses a call that has waited for the permit of its key while the service failed', async () => {
    const { start, runtime } = createParentFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.call('crm', ok, { key: 'a' })
    const slow = controlled()
    const first = breaker.call('crm', slow.operation, { key: 'a' })
    const second = outcomeOf(breaker.call('crm', ok, { key: 'a' }))
    await runtime.settle()
    await breaker.forceOpen('crm')
    slow.succeed('ok')
    await first
    expect((await second).error).toMatchObject({ reason: 'forced' })
  })

  it('counts a call that ran out of time in both, and an answer that is none of its faults in neither', async () => {
    const { start, runtime, storage } = createParentFleet({ timeout: 1_000 })
    const breaker = start()
    for (let call = 0; call < 3; call++) {
      const bad = Promise.reject(new BadRequest('400'))
      await outcomeOf(breaker.call('crm', () => bad, { key: 'a' }))
    }
    await breaker.flush()
    expect([await storage.peek('crm'), await storage.peek('#crm#a')]).toEqual([undefined, undefined])
    const hung = outcomeOf(breaker.call('crm', () => new Promise(() => {}), { key: 'a' }))
    await runtime.advance(1_000)
    await hung
    await breaker.flush()
    expect(await storage.peek('crm')).toMatchObject({ failureCount: 1 })
    expect(await storage.peek('#crm#a')).toMatchObject({ failureCount: 1 })
  })

  it('answers with the fallback whichever of the two refuses', async () => {
    const { start } = createParentFleet()
    const breaker = start()
    await tripKey(breaker, 'dead')
    const later = (key: string) => breaker.call('crm', ok, { key, fallback: () => 'later' })
    expect(await later('dead')).toBe('later')
    await breaker.forceOpen('crm')
    expect(await later('fine')).toBe('later')
  })

  it('only observes both where that is the mode', async () => {
    const { start, events } = createParentFleet({ mode: 'observe' })
    const breaker = start()
    for (const key of ['a', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    expect(events).toMatchObject([{ service: 'crm', to: 'OPEN' }])
    expect(await refusalOf(breaker, 'a')).toBeUndefined()
  })

  it('passes all calls through where it is off', async () => {
    const { start, storage } = createParentFleet({ mode: 'off' })
    const breaker = start()
    await failKey(breaker, 'a', 5)
    expect(await refusalOf(breaker, 'a')).toBeUndefined()
    expect(storage.requests).toEqual([])
  })

  it('ramps up with one lot for each of the two', async () => {
    const { start, runtime } = createParentFleet({ rampUp: 60_000 })
    const breaker = start()
    for (const key of ['a', 'b', 'c']) await failKey(breaker, key, 1)
    await breaker.flush()
    await runtime.advance(12_000)
    await breaker.call('crm', ok, { key: 'd' })
    await breaker.flush()
    // `random` is 0 in this fleet: every lot admits.
    expect(await refusalOf(breaker, 'd')).toBeUndefined()
    expect(await outcomeOf(breaker.call('crm', unavailable, { key: 'd' }))).toHaveProperty('error.message', '503')
  })

  describe('in an invocation with a deadline, where both circuits are quiet', () => {
    /** An instance whose keys have worked, and its calls. */
    async function startWarm(keys: readonly string[], settings: Parameters<typeof createKeyedFleet>[1] = {}) {
      const fleet = createParentFleet(settings)
      const breaker = fleet.start()
      const endsAt = fleet.runtime.now() + 30_000
      const call = breaker.callExternalFor({ getRemainingTimeInMillis: () => endsAt - fleet.runtime.now() })
      for (const key of keys) await call('crm', ok, { key })
      return { ...fleet, breaker, call }
    }

    it('counts the failures of different keys for the service, and those of one key once', async () => {
      const { breaker, call, events } = await startWarm(['a', 'b', 'c', 'd'])
      for (let index = 0; index < 3; index++) await outcomeOf(call('crm', unavailable, { key: 'a' }))
      await breaker.flush()
      expect(events).toMatchObject([{ key: 'a', to: 'OPEN' }])
      for (const key of ['b', 'c']) await outcomeOf(call('crm', unavailable, { key }))
      await breaker.flush()
      expect(events.at(-1)).toMatchObject({ service: 'crm', to: 'OPEN' })
      expect(events.at(-1)).not.toHaveProperty('key')
      expect((await outcomeOf(call('crm', ok, { key: 'd' }))).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    })

    it('counts a call that the deadline cuts in both', async () => {
      const { breaker, call, runtime, storage } = await startWarm(['a'])
      const hung = outcomeOf(call('crm', () => new Promise(() => {}), { key: 'a' }))
      await runtime.advance(29_000)
      expect((await hung).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', key: 'a' })
      await breaker.flush()
      expect(await storage.peek('crm')).toMatchObject({ failureCount: 1 })
      expect(await storage.peek('#crm#a')).toMatchObject({ failureCount: 1 })
    })

    it('lets an outcome count for nothing where the circuit of the service has opened and closed meanwhile', async () => {
      const { breaker, call, runtime, storage } = await startWarm(['a'])
      const slow = controlled()
      const called = outcomeOf(call('crm', slow.operation, { key: 'a' }))
      await runtime.settle()
      await breaker.forceOpen('crm')
      await breaker.reset('crm')
      slow.fail()
      await called
      await breaker.flush()
      expect(await storage.peek('crm')).toMatchObject({ failureCount: 0, suspectedAt: undefined })
      expect(await storage.peek('#crm#a')).toMatchObject({ failureCount: 1 })
    })

    it('gives the permits back, however the call ends', async () => {
      const { call, runtime } = await startWarm(['a'], { maxConcurrent: 2, maxQueue: 0 })
      for (let index = 0; index < 5; index++) {
        await call('crm', ok, { key: 'a' })
        await outcomeOf(call('crm', () => Promise.reject(new BadRequest('400')), { key: 'a' }))
      }
      const both = controlled()
      const calls = [1, 2].map(() => call('crm', both.operation, { key: 'a' }))
      await runtime.settle()
      expect(both.started).toBe(2)
      expect((await outcomeOf(call('crm', ok, { key: 'a' }))).error).toMatchObject({
        code: 'CIRCUIT_CONCURRENCY_LIMIT',
      })
      both.succeed('ok')
      await Promise.all(calls)
      expect(await call('crm', ok, { key: 'a' })).toBe('ok')
    })

    it('refuses what the service forces open', async () => {
      const { breaker, call } = await startWarm(['a'])
      await breaker.forceOpen('crm')
      expect((await outcomeOf(call('crm', ok, { key: 'a' }))).error).toMatchObject({ reason: 'forced' })
    })
  })
})
