import { describe, expect, it, jest } from '@jest/globals'
import {
  CircuitBreaker,
  isCircuitOpenError,
  isConfigurationError,
  type KeyedOptions,
  MemoryCircuitStorage,
} from '../../../src/index.ts'
import { resolveConfig } from '../../../src/settings/resolve.ts'
import * as texts from '../../../src/warning-texts.ts'
import { createKeyedFleet, failKey, type KeyedBreaker, storedKeys, tripKey } from '../../support/keyed-fleet.ts'
import type { RecordedRequest } from '../../support/recording-storage.ts'
import { waitFor } from '../../support/time.ts'
import { controlled, ok, outcomeOf } from '../../support/virtual-fleet.ts'

const keysRead = ({ args }: RecordedRequest): unknown => args[0]

/** How a call of a key ends. */
async function refusalOf(breaker: KeyedBreaker, key: string): Promise<unknown> {
  return (await outcomeOf(breaker.call('crm', ok, { key }))).error
}

describe('a circuit for each key', () => {
  it('opens for one key and leaves the others alone', async () => {
    const { start, events } = createKeyedFleet()
    const breaker = start()
    await tripKey(breaker, 'acme')
    expect(await refusalOf(breaker, 'acme')).toMatchObject({ code: 'CIRCUIT_OPEN', service: 'crm', key: 'acme' })
    expect(await breaker.call('crm', ok, { key: 'globex' })).toBe('ok')
    expect(breaker.circuits.crm.of('acme')).toMatchObject({ service: 'crm', key: 'acme', state: 'OPEN' })
    expect(breaker.circuits.crm.of('globex').state).toBe('CLOSED')
    expect(events).toMatchObject([{ service: 'crm', key: 'acme', to: 'OPEN' }])
  })

  it('leaves the key out of messages, which clients may see', async () => {
    const { start } = createKeyedFleet()
    const breaker = start()
    await tripKey(breaker, 'acme')
    expect(String(await refusalOf(breaker, 'acme'))).not.toContain('acme')
  })

  it('is shared with the fleet, and probed by it', async () => {
    const { start, runtime, storage } = createKeyedFleet()
    await tripKey(start(), 'acme')
    const other = start()
    expect(isCircuitOpenError(await refusalOf(other, 'acme'))).toBe(true)
    await runtime.advance(11_000)
    expect(await other.call('crm', ok, { key: 'acme' })).toBe('ok')
    await other.flush()
    expect((await storage.peek('#crm#acme'))?.state).toBe('CLOSED')
  })

  it('carries the key in every error of a call', async () => {
    const { start, runtime } = createKeyedFleet({}, { maxConcurrent: 1, maxQueue: 0 })
    const breaker = start()
    const first = controlled()
    const cut = outcomeOf(breaker.call('crm', first.operation, { key: 'acme', timeout: 100 }))
    await runtime.settle()
    expect(await refusalOf(breaker, 'acme')).toMatchObject({ code: 'CIRCUIT_CONCURRENCY_LIMIT', key: 'acme' })
    await runtime.advance(100)
    expect((await cut).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', key: 'acme' })
    let seen: unknown
    await breaker.call('crm', async () => 503, {
      key: 'acme',
      isBreakableResult: (status) => status === 503,
      fallback: (error) => {
        seen = error
      },
    })
    expect(seen).toMatchObject({ code: 'CIRCUIT_BREAKABLE_RESULT', key: 'acme' })
  })

  it('has permits for each key', async () => {
    const { start, runtime } = createKeyedFleet({}, { maxConcurrent: 1 })
    const breaker = start()
    const slow = controlled()
    const calls = ['acme', 'acme', 'globex'].map((key) => breaker.call('crm', slow.operation, { key }))
    await runtime.settle()
    expect(slow.started).toBe(2)
    slow.succeed('ok')
    await Promise.all(calls)
  })

  it('tells which keys the store failed for', async () => {
    const { start, storage, storageErrors } = createKeyedFleet()
    const breaker = start()
    storage.outage = 'fail'
    await Promise.all(['acme', 'globex'].map((key) => breaker.call('crm', ok, { key })))
    expect(storageErrors[0]).toMatchObject({ services: ['stripe', 'crm'], keys: ['acme', 'globex'] })
  })

  it.each([undefined, '', 'a\nb', '\ud800', 7])('refuses %j as a key', async (key) => {
    const breaker = createKeyedFleet().start()
    const { error } = await outcomeOf(breaker.call('crm', ok, { key: key as string }))
    expect(isConfigurationError(error)).toBe(true)
    expect(String(error)).toContain('key must be a non-empty string')
    expect(() => breaker.circuits.crm.of(key as string)).toThrow('key must be')
  })

  it('knows a long key by its hash', async () => {
    const { start, storage, events } = createKeyedFleet()
    const long = 'a'.repeat(5_000)
    const breaker = start()
    await tripKey(breaker, long)
    expect(isCircuitOpenError(await refusalOf(start(), long))).toBe(true)
    expect(await start().call('crm', ok, { key: `${long}b` })).toBe('ok')
    expect(events[0]?.key).toMatch(/^sha256-[\w-]{43}$/)
    // A key that is that very text is another one.
    expect(await start().call('crm', ok, { key: events[0]?.key ?? '' })).toBe('ok')
    expect((await storage.peek(`#crm#%${events[0]?.key}`))?.state).toBe('OPEN')
  })

  it('lets every call of a service that is off pass, and reads nothing', async () => {
    const { start, storage } = createKeyedFleet({}, { mode: 'off' })
    const breaker = start()
    await failKey(breaker, 'acme', 5)
    expect(await breaker.call('crm', ok, { key: 'acme' })).toBe('ok')
    await breaker.load()
    await breaker.flush()
    expect(storage.requests).toEqual([])
  })

  it('counts what it only observes, and refuses nobody', async () => {
    const { start, events } = createKeyedFleet({}, { mode: 'observe' })
    const breaker = start()
    await tripKey(breaker, 'acme')
    expect(await breaker.call('crm', ok, { key: 'acme' })).toBe('ok')
    expect(events).toMatchObject([{ key: 'acme', to: 'OPEN' }])
  })
})

describe('what is read', () => {
  it('is nothing before the first call of a key', async () => {
    const { start, storage } = createKeyedFleet()
    const breaker = start()
    await breaker.load()
    expect(storage.requests.map(keysRead)).toEqual([['stripe']])
    expect(breaker.circuits.crm.of('acme').state).toBe('CLOSED')
    await breaker.call('crm', ok, { key: 'acme' })
    expect(storage.requests.map(keysRead)).toEqual([['stripe'], ['#crm#acme']])
  })

  it('is one batch for the keys that are first called in one turn, with what is due', async () => {
    const { start, storage } = createKeyedFleet()
    const breaker = start()
    await Promise.all(['a', 'b', 'c'].map((key) => breaker.call('crm', ok, { key })))
    expect(storage.requests.map(keysRead)).toEqual([['stripe', '#crm#a', '#crm#b', '#crm#c']])
  })

  it('is, after cacheTtl, what was called since it was read, and nothing else', async () => {
    const { start, storage, runtime } = createKeyedFleet()
    const breaker = start()
    for (const key of ['once', 'twice', 'often']) await breaker.call('crm', ok, { key })
    for (const key of ['twice', 'often']) await breaker.call('crm', ok, { key })
    await runtime.advance(5_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keysRead)).toEqual([['stripe', '#crm#twice', '#crm#often']])
    await breaker.call('crm', ok, { key: 'often' })
    await runtime.advance(5_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keysRead)).toEqual([['stripe', '#crm#often']])
  })

  it('is waited for where a key was not called for long', async () => {
    const { start, runtime } = createKeyedFleet()
    const breaker = start()
    await breaker.call('crm', ok, { key: 'acme' })
    await runtime.advance(60_000)
    await tripKey(start(), 'acme')
    expect(isCircuitOpenError(await refusalOf(breaker, 'acme'))).toBe(true)
  })

  it('is read once in an invocation without a cache', async () => {
    const { start, storage, runtime } = createKeyedFleet({}, { cacheTtl: 0 })
    const breaker = start()
    const invoke = async (): Promise<unknown[]> => {
      storage.forget()
      const invocation = breaker.beginInvocation({})
      if (breaker.needsLoadAt(invocation.startedAt)) await breaker.load(10_000)
      const call = breaker.callExternalFor(invocation)
      await call('crm', ok, { key: 'acme' })
      await call('crm', ok, { key: 'acme' })
      await breaker.endInvocation(invocation, undefined)
      await runtime.advance(10)
      return storage.requests.flatMap(({ args }) => args[0] as string[]).filter((key) => key !== 'stripe')
    }
    expect(await invoke()).toEqual(['#crm#acme'])
    expect(await invoke()).toEqual(['#crm#acme'])
    expect(await invoke()).toEqual(['#crm#acme'])
  })

  it('is not waited for where the store is left alone', async () => {
    const { start, storage, runtime } = createKeyedFleet()
    const breaker = start()
    storage.outage = 'hang'
    for (const key of ['a', 'b']) {
      const call = breaker.call('crm', ok, { key })
      await runtime.advance(500)
      await call
    }
    expect(await breaker.call('crm', ok, { key: 'c' })).toBe('ok')
  })
})

describe('what waits to be stored', () => {
  it('is stored at the end of the invocation', async () => {
    const { start, storage } = createKeyedFleet()
    const breaker = start()
    expect(breaker.needsFlush).toBe(false)
    const held = storage.holdRequest('compareAndSetState')
    await failKey(breaker, 'acme', 1)
    await held.arrived
    expect(breaker.needsFlush).toBe(true)
    const flushed = breaker.flush()
    held.release()
    await flushed
    expect((await storage.peek('#crm#acme'))?.suspectedAt).toBeDefined()
    expect(breaker.needsFlush).toBe(false)
  })

  it('is stored by a later invocation where the store was away', async () => {
    const { start, storage, runtime } = createKeyedFleet()
    const breaker = start()
    await breaker.call('crm', ok, { key: 'acme' })
    storage.outage = 'fail'
    await failKey(breaker, 'acme')
    await breaker.flush()
    storage.outage = undefined
    await runtime.advance(6_000)
    expect(breaker.needsLoad).toBe(true)
    await breaker.load()
    expect((await storage.peek('#crm#acme'))?.failureCount).toBe(2)
  })
})

describe('the number of keys', () => {
  /** The keys that are read anew, which this instance has therefore forgotten. */
  async function forgottenBy(fleet: ReturnType<typeof createKeyedFleet>, breaker: KeyedBreaker, keys: string[]) {
    fleet.storage.forget()
    for (const key of keys) await outcomeOf(breaker.call('crm', ok, { key }))
    const read = fleet.storage.reads.flatMap(({ args }) => args[0] as string[])
    return [...new Set(read)].map((key) => key.replace('#crm#', ''))
  }

  async function touch(breaker: KeyedBreaker, ...keys: string[]): Promise<void> {
    for (const key of keys) await breaker.call('crm', ok, { key })
  }

  it('is at most maxKeys: those that were not called for the longest time go', async () => {
    const fleet = createKeyedFleet({ maxKeys: 3 })
    const breaker = fleet.start()
    await touch(breaker, 'a', 'b', 'c', 'a', 'd')
    expect(await forgottenBy(fleet, breaker, ['a', 'c', 'd'])).toEqual([])
    expect(await forgottenBy(fleet, breaker, ['b'])).toEqual(['b'])
  })

  it('never leaves out one that is open', async () => {
    const fleet = createKeyedFleet({ maxKeys: 3 })
    const breaker = fleet.start()
    await tripKey(breaker, 'dead')
    await touch(breaker, 'b', 'c', 'd', 'e', 'f')
    fleet.storage.outage = 'fail'
    expect(isCircuitOpenError(await refusalOf(breaker, 'dead'))).toBe(true)
  })

  it('never leaves out one with a call in flight, whatever the mode', async () => {
    for (const mode of ['enforce', 'observe'] as const) {
      const fleet = createKeyedFleet({ maxKeys: 2 }, { mode })
      const breaker = fleet.start()
      const slow = controlled()
      const call = breaker.call('crm', slow.operation, { key: 'slow' })
      await fleet.runtime.settle()
      await touch(breaker, 'b', 'c', 'd')
      expect(await forgottenBy(fleet, breaker, ['slow'])).toEqual([])
      slow.succeed('ok')
      await call
    }
  })

  it('never leaves out one that has something to write', async () => {
    const fleet = createKeyedFleet({ maxKeys: 2 })
    const breaker = fleet.start()
    await touch(breaker, 'busy')
    const held = fleet.storage.holdRequest('compareAndSetState')
    await failKey(breaker, 'busy', 2)
    await held.arrived
    await touch(breaker, 'b', 'c', 'd')
    expect(await forgottenBy(fleet, breaker, ['busy'])).toEqual([])
    held.release()
  })

  it('leaves out an open one that nobody has called for a window after its retryAt', async () => {
    const fleet = createKeyedFleet({ maxKeys: 2 })
    const breaker = fleet.start()
    await tripKey(breaker, 'dead')
    await fleet.runtime.advance(10_000 + 60_000)
    await touch(breaker, 'b', 'c')
    expect(await forgottenBy(fleet, breaker, ['c'])).toEqual([])
    await fleet.runtime.advance(2_000)
    await touch(breaker, 'd', 'e')
    expect(await forgottenBy(fleet, breaker, ['dead'])).toEqual(['dead'])
    expect((await fleet.storage.peek('#crm#dead'))?.state).toBe('CLOSED')
  })

  it('is the same for all where none may be left out: the rest shares a circuit', async () => {
    const fleet = createKeyedFleet({ maxKeys: 2 })
    const breaker = fleet.start()
    const slow = controlled()
    const calls = ['a', 'b'].map((key) => breaker.call('crm', slow.operation, { key }))
    await fleet.runtime.settle()
    expect(await forgottenBy(fleet, breaker, ['c', 'd'])).toEqual(['%shared'])
    slow.succeed('ok')
    await Promise.all(calls)
    await fleet.runtime.advance(1_000)
    expect(await forgottenBy(fleet, breaker, ['c'])).toEqual(['c'])
  })
})

describe('keys that somebody else chooses', () => {
  it('share one circuit when maxKeys of them have failed within a window', async () => {
    const { start, storage, runtime, events } = createKeyedFleet({ maxKeys: 10 })
    const breaker = start()
    for (let index = 0; index < 100; index++) await failKey(breaker, `attack-${index}`, 1)
    await breaker.flush()
    expect((await storedKeys(storage)).filter((key) => key.startsWith('#crm#'))).toHaveLength(11)
    expect(events).toMatchObject([{ service: 'crm', key: '(shared)', to: 'OPEN' }])
    expect(breaker.circuits.crm.of('new').state).toBe('OPEN')
    expect(await refusalOf(breaker, 'new')).toMatchObject({ code: 'CIRCUIT_OPEN', key: '(shared)' })
    await runtime.advance(60_001)
    expect(await breaker.call('crm', ok, { key: 'new' })).toBe('ok')
  })

  it('are let through again by an operator who resets the circuit that they share', async () => {
    const { start, storage } = createKeyedFleet({ maxKeys: 1 })
    const breaker = start()
    for (const key of ['a', 'b', 'c', 'd']) await failKey(breaker, key, 1)
    await breaker.flush()
    expect(breaker.snapshot('crm', '(shared)').state).toBe('OPEN')
    expect(await refusalOf(breaker, '(shared)')).toMatchObject({ key: '(shared)' })
    await breaker.reset('crm', { key: '(shared)' })
    expect(await refusalOf(breaker, 'new')).toBeUndefined()
    expect((await storage.peek('#crm#%shared'))?.state).toBe('CLOSED')
    expect(await storage.peek('#crm#(shared)')).toBeUndefined()
  })

  it('leave those alone that have a circuit already', async () => {
    const { start } = createKeyedFleet({ maxKeys: 10 })
    const breaker = start()
    await breaker.call('crm', ok, { key: 'known' })
    for (let index = 0; index < 100; index++) {
      await failKey(breaker, `attack-${index}`, 1)
      expect(await breaker.call('crm', ok, { key: 'known' })).toBe('ok')
    }
  })

  it('create no more than twice maxKeys records in a window', async () => {
    const { start, storage, runtime } = createKeyedFleet({ maxKeys: 10 })
    const breaker = start()
    // An attacker who prepares: the keys work at first, so that they have circuits when the limit is reached.
    for (let round = 0; round < 3; round++) {
      for (let index = 0; index < 10; index++) await breaker.call('crm', ok, { key: `sleeper-${round}-${index}` })
      for (let index = 0; index < 20; index++) await failKey(breaker, `attack-${round}-${index}`, 1)
      for (let index = 0; index < 10; index++) await failKey(breaker, `sleeper-${round}-${index}`, 1)
      await breaker.flush()
      expect((await storedKeys(storage)).filter((key) => key.startsWith('#crm#')).length).toBeLessThanOrEqual(
        20 * (round + 1) + 1,
      )
      await runtime.advance(400_000)
    }
  })

  it('are warned of once', async () => {
    const emitted = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start } = createKeyedFleet({ maxKeys: 7 })
    const breaker = start()
    for (let index = 0; index < 20; index++) await failKey(breaker, `attack-${index}`, 1)
    await waitFor('the warning', () => emitted.mock.calls.length > 0)
    expect(emitted.mock.calls.map(([text]) => String(text))).toEqual([
      expect.stringContaining('share one circuit: 7 keys'),
    ])
    emitted.mockRestore()
  })
})

describe('operators', () => {
  it('force the circuit of a key, and reset it', async () => {
    const { start } = createKeyedFleet()
    const breaker = start()
    await breaker.call('crm', ok, { key: 'acme' })
    await breaker.forceOpen('crm', { key: 'acme' })
    expect(breaker.snapshot('crm', 'acme').state).toBe('OPEN')
    expect(await refusalOf(breaker, 'acme')).toMatchObject({ reason: 'forced', key: 'acme' })
    expect(await refusalOf(breaker, 'globex')).toBeUndefined()
    await breaker.reset('crm', { key: 'acme' })
    expect(await refusalOf(breaker, 'acme')).toBeUndefined()
    await breaker.forceClosed('crm', { key: 'acme' })
    await failKey(breaker, 'acme', 5)
    expect(await refusalOf(breaker, 'acme')).toBeUndefined()
  })

  it('reach an instance that has not called the key yet', async () => {
    const { start } = createKeyedFleet()
    await start().forceOpen('crm', { key: 'acme' })
    expect(await refusalOf(start(), 'acme')).toMatchObject({ reason: 'forced' })
  })

  it('read, set and clear many keys, by key', async () => {
    const { start, storage } = createKeyedFleet()
    const breaker = start()
    const set = await breaker.batchSetState('crm', { a: 'OPEN', b: 'CLOSED' })
    expect([...set].map(([key, { state }]) => [key, state])).toEqual([
      ['a', 'OPEN'],
      ['b', 'CLOSED'],
    ])
    expect([...(await breaker.batchGetState('crm', ['a', 'b', 'c', 'a'])).keys()]).toEqual(['a', 'b'])
    await breaker.batchClearState('crm', ['a'])
    expect(await storedKeys(storage)).toEqual(['#crm#b'])
    expect((await breaker.batchGetState()).size).toBe(0)
  })

  it('account for what they do to a key, in its journal; what keys do by themselves is in none', async () => {
    const storage = new MemoryCircuitStorage()
    const { runtime } = createKeyedFleet()
    const breaker: KeyedBreaker = new CircuitBreaker(
      { services: { crm: { keyed: {} }, stripe: {} }, storage },
      { ...runtime, env: {} },
    )
    await tripKey(breaker, 'acme')
    expect(await breaker.journal('crm', { key: 'acme' })).toEqual([])
    await breaker.forceOpen('crm', { key: 'acme', by: 'ops', why: 'does not pay' })
    await breaker.reset('crm', { key: 'acme', why: 'has paid' })
    expect(await breaker.journal('crm', { key: 'acme' })).toMatchObject([
      { service: 'crm', key: 'acme', reason: 'reset', why: 'has paid' },
      { service: 'crm', key: 'acme', reason: 'forced-open', by: 'ops', why: 'does not pay' },
    ])
    expect(await breaker.journal('crm', { key: 'globex' })).toEqual([])
  })

  it('are told the key where a batch fails', async () => {
    const { start, storage } = createKeyedFleet()
    storage.outage = 'fail'
    const { error } = await outcomeOf(start().batchGetState('crm', ['a', 'b']))
    expect([...((error as { errors: Map<string, object> }).errors ?? [])]).toMatchObject([
      ['a', { service: 'crm', key: 'a' }],
      ['b', { service: 'crm', key: 'b' }],
    ])
  })

  it('are told to name a key, or not to', async () => {
    const breaker = createKeyedFleet().start() as unknown as CircuitBreaker
    await expect(breaker.forceOpen('crm')).rejects.toThrow('crm is keyed')
    await expect(breaker.forceOpen('stripe', { key: 'acme' } as object)).rejects.toThrow('stripe is not keyed')
    await expect(breaker.batchGetState(['crm'])).rejects.toThrow('crm is keyed')
  })
})

describe('the settings of keys', () => {
  const make = (keyed: unknown, env: Record<string, string> = {}) =>
    new CircuitBreaker({ services: { crm: { keyed: keyed as KeyedOptions } } }, { env })

  it('are checked', () => {
    expect(() => make({ maxKeys: 0 })).toThrow('services.crm.keyed.maxKeys must be a whole number from 1 to 1000000')
    expect(() => make({ maxKyes: 1 })).toThrow('did you mean maxKeys?')
    expect(() => make({ parent: 'yes' })).toThrow('services.crm.keyed.parent must be true or false')
    expect(() => make(true)).toThrow('services.crm.keyed must be an object')
    const long = 'a'.repeat(250)
    expect(() => new CircuitBreaker({ services: { [long]: { keyed: {} } } }, { env: {} })).toThrow('256 are allowed')
  })

  it('are warned of where a variable gives them to a service without keys', () => {
    const { warnings } = resolveConfig(
      { services: { crm: { keyed: {} }, stripe: {} }, storage: 'memory' },
      { CIRCUIT_BREAKER_MAX_KEYS: '10', CIRCUIT_BREAKER_MAX_KEYS__CRM: '5', CIRCUIT_BREAKER_MAX_KEYS__STRIPE: '5' },
    )
    expect(warnings.map((warning) => warning(texts))).toEqual([
      'CIRCUIT_BREAKER_MAX_KEYS__STRIPE changes nothing: the service "stripe" is not keyed',
    ])
  })

  it('follow the environment', () => {
    const { services } = resolveConfig(
      { services: { crm: { keyed: { maxKeys: 3 } }, hooks: { keyed: {} } }, storage: 'memory' },
      { CIRCUIT_BREAKER_MAX_KEYS: '10', CIRCUIT_BREAKER_MAX_KEYS__CRM: '5' },
    )
    expect([services.get('crm')?.keyed?.maxKeys, services.get('hooks')?.keyed?.maxKeys]).toEqual([5, 10])
    for (const variable of ['CIRCUIT_BREAKER_MAX_KEYS', 'CIRCUIT_BREAKER_MAX_KEYS__CRM']) {
      expect(() => make({}, { [variable]: 'many' })).toThrow('maxKeys must be')
    }
  })
})
