import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { CircuitStorageError, isConfigurationError, isUnknownServiceError, type StateChange } from '../../src/index.ts'
import type { CircuitRecord, CompareAndSet } from '../../src/storage/contract.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import type { RecordedRequest, RecordingStorage } from '../support/recording-storage.ts'
import {
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  isSettled,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'

const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `service-${index}`)

const told = (events: readonly StateChange[]) =>
  events.map(({ service, from, to, reason }) => [service, from, to, reason].join(' '))

const keysOf = ({ args }: RecordedRequest): string[] =>
  (args[0] as (string | CompareAndSet)[]).map((one) => (typeof one === 'string' ? one : one.serviceKey))

/** What an adapter throws when some keys of a batch fail: it knows only the keys as they are stored. */
function partial(
  operation: 'batchGetState' | 'batchSetState' | 'batchClearState',
  results: ReadonlyMap<string, unknown>,
  failed: readonly string[],
  corrupt = false,
): CircuitStorageError {
  const errors = new Map(
    failed.map((service) => [service, new CircuitStorageError(`no ${service}`, { operation, service, corrupt })]),
  )
  return new CircuitStorageError('failed in part', { operation, results, errors, corrupt })
}

/** The store refuses some keys of the next batch of writes and carries out the others. */
function failInPart(storage: RecordingStorage, refused: readonly string[], times = 1): void {
  const inner = storage.compareAndSetState.bind(storage)
  const handle = async ({ args }: RecordedRequest): Promise<unknown> => {
    const results = new Map<string, unknown>()
    for (const { serviceKey, version, next } of args[0] as CompareAndSet[]) {
      if (!refused.includes(serviceKey)) results.set(serviceKey, await inner(serviceKey, version, next))
    }
    throw partial('batchSetState', results, refused)
  }
  storage.intercept('batchSetState', handle, times)
}

async function errorOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  const { error } = await outcomeOf(promise)
  expect(error).toBeInstanceOf(CircuitStorageError)
  return error as CircuitStorageError
}

describe('batchGetState', () => {
  it('reads 250 circuits in one request, past the cache, and leaves out what nothing is stored for', async () => {
    const services = names(250)
    const { start, storage } = createFleet({ services })
    const [breaker, operator] = [start(), start()]
    await breaker.load()
    await operator.batchSetState({ 'service-7': 'OPEN', 'service-249': 'CLOSED' })
    storage.forget()
    const states = await breaker.batchGetState(services)
    expect(storage.requests).toEqual([{ operation: 'batchGetState', args: [services] }])
    expect([...states].map(([service, { state }]) => [service, state])).toEqual([
      ['service-7', 'OPEN'],
      ['service-249', 'CLOSED'],
    ])
    expect(states.get('service-7')).toEqual(await storage.peek('service-7'))
  })

  it('reads all services by default', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b', 'c'] })
    await start().batchGetState()
    expect(storage.requests).toEqual([{ operation: 'batchGetState', args: [['a', 'b', 'c']] }])
  })

  it('takes any iterable and reads a key that is named twice once', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b', 'c'] })
    await start().batchGetState(['b', 'a', 'b', 'a'].values())
    expect(storage.requests).toEqual([{ operation: 'batchGetState', args: [['b', 'a']] }])
  })

  it('is what this instance goes by from then on', async () => {
    const { start } = createFleet()
    const [breaker, operator] = [start(), start()]
    await breaker.load()
    await operator.forceOpen('stripe')
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.batchGetState()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced' })
  })

  it('does not undo a change whose write is on its way', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 3)
    await held.arrived
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    held.release()
    await runtime.settle()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('returns the newer record when a write was answered while the read was under way', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const held = storage.holdReply('batchGetState')
    const reading = breaker.batchGetState()
    await held.arrived
    await breaker.forceOpen('stripe')
    held.release()
    expect((await reading).get('stripe')?.override?.state).toBe('OPEN')
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('tells of the transitions that it learns of only those who observe', async () => {
    const { start, events } = createFleet()
    const [breaker, operator] = [start(), start()]
    const observed: StateChange[] = []
    breaker.onStateChange((change) => observed.push(change), { observed: true })
    await operator.batchSetState({ stripe: 'OPEN' })
    await breaker.batchGetState()
    expect(told(events)).toEqual(['stripe CLOSED OPEN set'])
    expect(told(observed)).toEqual(['stripe CLOSED OPEN observed'])
  })

  it('reports partial failure by the key of the service, and adopts what arrived', async () => {
    const { start, storage, storageErrors } = createFleet({ services: ['a', 'b#c', 'd'], namespace: 'prod' })
    const operator = start()
    await operator.batchSetState({ a: 'OPEN', d: 'CLOSED' })
    const breaker = start()
    storage.intercept('batchGetState', async (_, apply) => {
      throw partial('batchGetState', (await apply()) as Map<string, unknown>, ['prod#b%23c'])
    })
    const error = await errorOf(breaker.batchGetState())
    expect(error).toMatchObject({ operation: 'batchGetState', message: expect.stringContaining('"b#c"') })
    expect([...(error.results?.keys() ?? [])]).toEqual(['a', 'd'])
    expect(error.results?.get('a')).toMatchObject({ state: 'OPEN' })
    expect([...(error.errors?.keys() ?? [])]).toEqual(['b#c'])
    expect(error.errors?.get('b#c')).toBeInstanceOf(CircuitStorageError)
    expect(breaker.circuits['a']?.state).toBe('OPEN')
    expect(storageErrors).toHaveLength(1)
    expect(storageErrors[0]?.services).toEqual(['b#c'])
  })

  it('leaves what it knows of a circuit that could not be read as it is', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.batchSetState({ a: 'OPEN' })
    storage.intercept('batchGetState', async () => {
      throw partial('batchGetState', new Map(), ['a'])
    })
    await errorOf(breaker.batchGetState())
    expect(breaker.circuits['a']?.state).toBe('OPEN')
  })

  it('names all that failed, with the first reason, and is damage only if all of it is', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const damage = partial('batchGetState', new Map(), ['a'], true)
    const errors = new Map([...(damage.errors ?? []), ...(partial('batchGetState', new Map(), ['b']).errors ?? [])])
    storage.intercept('batchGetState', async () => {
      throw new CircuitStorageError('failed', { operation: 'batchGetState', results: new Map(), errors })
    })
    expect(await errorOf(start().batchGetState())).toMatchObject({
      message: 'batchGetState failed for "a", "b": no a',
      corrupt: false,
    })
  })

  it('tells of a damaged record, which it leaves alone, apart from the others', async () => {
    const { start, storage } = createFleet({ services: ['good', 'bad'] })
    await start().batchSetState({ good: 'OPEN' })
    storage.forget()
    storage.intercept('batchGetState', async (_, apply) => {
      throw partial('batchGetState', (await apply()) as Map<string, unknown>, ['bad'], true)
    })
    const error = await errorOf(start().batchGetState())
    expect(error.results?.get('good')).toMatchObject({ state: 'OPEN' })
    expect(error.errors?.get('bad')).toMatchObject({ corrupt: true })
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it.each(['fail', 'hang', 'lose-with-error'] as const)('fails for all when the store does (%s)', async (fault) => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    storage.inject(fault)
    const reading = errorOf(start().batchGetState())
    await runtime.advance(500)
    const error = await reading
    expect(error.results).toEqual(new Map())
    expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
  })

  it('has storageTimeout for every 16 circuits, and is reported as what it is', async () => {
    const { start, storage, storageErrors, runtime } = createFleet({ services: names(33) })
    storage.inject('hang')
    const reading = outcomeOf(start().batchGetState())
    await runtime.advance(1_499)
    expect(await isSettled(reading, runtime)).toBe(false)
    await runtime.advance(1)
    expect((await reading).error).toBeInstanceOf(CircuitStorageError)
    expect(storageErrors).toEqual([expect.objectContaining({ operation: 'batchGetState', willRetry: false })])
  })
})

describe('batchSetState', () => {
  it.each([
    ['an object', { a: 'OPEN', b: 'CLOSED' } as const],
    [
      'a Map',
      new Map([
        ['a', 'OPEN'],
        ['b', 'CLOSED'],
      ] as const),
    ],
    [
      'pairs',
      [
        ['a', 'OPEN'],
        ['b', 'CLOSED'],
      ] as const,
    ],
    ['a generator of pairs', Object.entries({ a: 'OPEN', b: 'CLOSED' } as const).values()],
  ])('takes %s, and reads and writes all in one request each', async (_form, states) => {
    const { start, storage, events } = createFleet({ services: ['a', 'b', 'c'] })
    const stored = await start().batchSetState(states)
    expect(storage.operations).toEqual(['batchGetState', 'batchSetState'])
    expect(storage.requests.map(keysOf)).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ])
    expect(stored).toEqual(
      new Map([
        ['a', await storage.peek('a')],
        ['b', await storage.peek('b')],
      ]),
    )
    expect([...stored.values()].map(({ state }) => state)).toEqual(['OPEN', 'CLOSED'])
    expect(told(events)).toEqual(['a CLOSED OPEN set'])
  })

  it('sets 250 circuits in two requests', async () => {
    const services = names(250)
    const { start, storage, events } = createFleet({ services })
    const stored = await start().batchSetState(services.map((service) => [service, 'OPEN'] as const))
    expect(storage.operations).toEqual(['batchGetState', 'batchSetState'])
    expect([...stored.keys()]).toEqual(services)
    expect(events).toHaveLength(250)
  })

  it('sets a key that is named twice once, as it is named last', async () => {
    const { start, storage, events } = createFleet()
    await start().batchSetState([
      ['stripe', 'CLOSED'],
      ['stripe', 'OPEN'],
    ])
    expect(storage.requests.map(keysOf)).toEqual([['stripe'], ['stripe']])
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(events).toHaveLength(1)
  })

  it('OPEN refuses calls everywhere, and recovers by itself through a probe', async () => {
    const { start, storage, runtime, events } = createFleet({ resetTimeout: 20_000 })
    const [operator, instance] = [start(), start()]
    await operator.batchSetState({ stripe: 'OPEN' })
    expect(await storage.peek('stripe')).toMatchObject({
      state: 'OPEN',
      generation: 1,
      openedAt: runtime.now(),
      retryAt: runtime.now() + 20_000,
      resetTimeout: 20_000,
      override: undefined,
      leases: [],
    })
    await instance.load()
    for (const breaker of [operator, instance]) {
      expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open', retryAfter: 20_000 })
    }
    await runtime.advance(20_000)
    expect(await instance.call('stripe', ok)).toBe('ok')
    await instance.flush()
    expect(told(events)).toEqual([
      'stripe CLOSED OPEN set',
      'stripe OPEN HALF_OPEN probe-started',
      'stripe HALF_OPEN CLOSED probe-succeeded',
    ])
    await runtime.advance(5_000)
    await operator.load()
    expect(await operator.call('stripe', ok)).toBe('ok')
  })

  it('CLOSED stores what reset stores', async () => {
    const [viaBatch, viaReset] = [createFleet(), createFleet()]
    for (const { start, runtime } of [viaBatch, viaReset]) {
      await trip(start())
      await runtime.advance(1_000)
    }
    await viaBatch.start().batchSetState({ stripe: 'CLOSED' })
    await viaReset.start().reset('stripe')
    const tokens = { version: expect.any(String), epoch: expect.any(String), transitions: expect.any(Array) }
    const expected = (await viaReset.storage.peek('stripe')) as CircuitRecord
    expect(await viaBatch.storage.peek('stripe')).toEqual({ ...expected, ...tokens })
    expect(expected).toMatchObject({ state: 'CLOSED', failureCount: 0, trips: 0, lastFailure: undefined })
    expect(told(viaBatch.events)).toEqual(['stripe CLOSED OPEN failure-threshold', 'stripe OPEN CLOSED set'])
  })

  it.each([
    ['forceOpen', 'OPEN'],
    ['forceOpen', 'CLOSED'],
    ['forceClosed', 'OPEN'],
    ['forceClosed', 'CLOSED'],
  ] as const)('ends an override: %s, then %s', async (override, state) => {
    const { start, storage, runtime, events } = createFleet()
    const [operator, instance] = [start(), start()]
    await operator[override]('stripe', { until: runtime.now() + 3_600_000 })
    await instance.load()
    events.length = 0
    await operator.batchSetState({ stripe: state })
    expect(await storage.peek('stripe')).toMatchObject({ state, override: undefined })
    const before = override === 'forceOpen' ? 'OPEN' : 'CLOSED'
    expect(told(events)).toEqual([`stripe ${before} ${state} set`])
    await runtime.advance(5_000)
    await instance.load()
    for (const breaker of [operator, instance]) {
      const { error } = await outcomeOf(breaker.call('stripe', ok))
      if (state === 'CLOSED') expect(error).toBeUndefined()
      else expect(error).toMatchObject({ reason: 'open' })
    }
    // Whatever was set, from now on the service decides.
    await runtime.advance(10_000)
    expect(await instance.call('stripe', ok)).toBe('ok')
  })

  it('OPEN on an open circuit lets it wait anew; that is no transition', async () => {
    const { start, storage, runtime, events } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(6_000)
    await breaker.batchSetState({ stripe: 'OPEN' })
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', retryAt: runtime.now() + 10_000 })
    expect(told(events)).toEqual(['stripe CLOSED OPEN failure-threshold'])
  })

  it.each(['OPEN', 'CLOSED'] as const)('%s drops the outcome of a probe that was in flight', async (state) => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(start())
    await runtime.advance(10_000)
    const probe = controlled()
    const call = outcomeOf(breaker.call('stripe', probe.operation))
    await runtime.settle()
    await start().batchSetState({ stripe: state })
    const record = await storage.peek('stripe')
    if (state === 'OPEN') probe.succeed('ok')
    else probe.fail()
    await call
    await breaker.flush()
    expect(record).toMatchObject({ state, leases: [] })
    expect(await storage.peek('stripe')).toEqual(record)
    expect(breaker.circuits.stripe?.state).toBe(state)
  })

  it('CLOSED ends what this instance decided alone while the store was away', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 3)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    storage.heal()
    await breaker.batchSetState({ stripe: 'CLOSED' })
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    await runtime.advance(60_000)
    await breaker.load()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0, generation: 1 })
  })

  it('refuses at once whoever waits for a permit of a circuit that it opens', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const running = controlled()
    const first = breaker.call('stripe', running.operation)
    const waiting = outcomeOf(breaker.call('stripe', ok))
    await runtime.settle()
    await breaker.batchSetState({ stripe: 'OPEN' })
    expect((await waiting).error).toMatchObject({ reason: 'open' })
    running.succeed('ok')
    expect(await first).toBe('ok')
  })

  describe('against other writers', () => {
    it('decides again for the keys that lost, and for these only', async () => {
      const { start, storage, events } = createFleet({ services: ['a', 'b', 'c'] })
      const [operator, rival] = [start(), start()]
      await rival.load()
      storage.intercept('batchSetState', async (_, apply) => {
        await rival.forceOpen('b')
        return apply()
      })
      await operator.batchSetState({ a: 'OPEN', b: 'OPEN', c: 'CLOSED' })
      expect(storage.requests.filter(({ operation }) => operation === 'batchSetState').map(keysOf)).toEqual([
        ['a', 'b', 'c'],
        ['b'],
      ])
      expect(await storage.peek('b')).toMatchObject({ state: 'OPEN', override: undefined, generation: 2 })
      expect(told(events)).toEqual(['b CLOSED OPEN forced-open', 'a CLOSED OPEN set', 'b OPEN OPEN set'])
    })

    it('gets every key through, however often each of them loses', async () => {
      const services = ['a', 'b', 'c']
      const { start, storage, events } = createFleet({ services })
      await start().batchSetState({ a: 'CLOSED', b: 'CLOSED', c: 'CLOSED' })
      let rivals = 0
      const rival = async (request: RecordedRequest, apply: () => Promise<unknown>): Promise<unknown> => {
        const spared = request.args[0] as CompareAndSet[]
        for (const { serviceKey } of spared.slice(0, rivals % (spared.length + 1))) {
          const record = (await storage.peek(serviceKey)) as CircuitRecord
          await storage.put(serviceKey, { ...record, version: `rival-${++rivals}` })
        }
        rivals++
        return apply()
      }
      storage.intercept('batchSetState', rival, 30)
      const stored = await start().batchSetState({ a: 'OPEN', b: 'OPEN', c: 'OPEN' })
      for (const service of services) {
        expect(stored.get(service)).toEqual(await storage.peek(service))
        expect(stored.get(service)).toMatchObject({ state: 'OPEN', generation: 2 })
      }
      expect(told(events).sort()).toEqual(services.map((service) => `${service} CLOSED OPEN set`))
    })

    it('gives up at last on the key that never wins, and says so; the others are stored', async () => {
      const { start, storage } = createFleet({ services: ['busy', 'calm'] })
      let conflicts = 0
      const conflict = async ({ args }: RecordedRequest): Promise<unknown> => {
        conflicts++
        const replies = new Map<string, unknown>()
        for (const { serviceKey, version, next } of args[0] as CompareAndSet[]) {
          if (serviceKey === 'busy') replies.set(serviceKey, { applied: false, current: undefined })
          else replies.set(serviceKey, await storage.compareAndSetState(serviceKey, version, next))
        }
        return replies
      }
      storage.intercept('batchSetState', conflict, 1_000)
      const error = await errorOf(start().batchSetState({ busy: 'OPEN', calm: 'OPEN' }))
      expect([...(error.errors?.keys() ?? [])]).toEqual(['busy'])
      expect(error.errors?.get('busy')).toMatchObject({ service: 'busy' })
      expect(error.results?.get('calm')).toMatchObject({ state: 'OPEN' })
      expect(conflicts).toBeGreaterThanOrEqual(100)
      expect(conflicts).toBeLessThanOrEqual(101)
    })

    it('sets again what was deleted before its reply came, and tells of the one decision once', async () => {
      const { start, storage, events } = createFleet()
      const breaker = start()
      await breaker.reset('stripe')
      const held = storage.holdReply('batchSetState')
      const setting = breaker.batchSetState({ stripe: 'OPEN' })
      await held.arrived
      await storage.remove('stripe')
      await breaker.batchGetState()
      held.release()
      await setting
      expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
      expect(told(events)).toEqual(['stripe CLOSED OPEN set'])
    })

    it('two operators at once: both are carried out, one after the other', async () => {
      const { start, storage, events } = createFleet({ services: ['a', 'b'] })
      const [one, other] = [start(), start()]
      await Promise.all([
        one.batchSetState({ a: 'OPEN', b: 'CLOSED' }),
        other.batchSetState({ a: 'CLOSED', b: 'OPEN' }),
      ])
      expect(await storage.peek('a')).toMatchObject({ state: 'CLOSED', generation: 2 })
      expect(await storage.peek('b')).toMatchObject({ state: 'OPEN', generation: 2 })
      expect(told(events)).toEqual(['a CLOSED OPEN set', 'a OPEN CLOSED set', 'b CLOSED OPEN set'])
    })

    it('of one instance, too', async () => {
      const { start, storage, events } = createFleet({ services: ['a', 'b'] })
      const breaker = start()
      await Promise.all([
        breaker.batchSetState({ a: 'OPEN', b: 'CLOSED' }),
        breaker.batchSetState({ a: 'CLOSED', b: 'OPEN' }),
      ])
      expect(await storage.peek('a')).toMatchObject({ state: 'CLOSED', generation: 2 })
      expect(await storage.peek('b')).toMatchObject({ state: 'OPEN', generation: 2 })
      expect(told(events)).toEqual(['a CLOSED OPEN set', 'a OPEN CLOSED set', 'b CLOSED OPEN set'])
      expect([breaker.circuits['a']?.state, breaker.circuits['b']?.state]).toEqual(['CLOSED', 'OPEN'])
    })
  })

  describe('when the store fails', () => {
    it('reports partial failure by the key of the service; what succeeded is adopted and told', async () => {
      const { start, storage, events } = createFleet({ services: ['a', 'b#c', 'd'], namespace: 'prod' })
      const breaker = start()
      failInPart(storage, ['prod#b%23c'])
      const error = await errorOf(breaker.batchSetState({ a: 'OPEN', 'b#c': 'OPEN', d: 'OPEN' }))
      expect(error).toMatchObject({ operation: 'batchSetState', message: expect.stringContaining('"b#c"') })
      expect([...(error.results?.keys() ?? [])]).toEqual(['a', 'd'])
      expect(error.results?.get('a')).toEqual(await storage.peek('prod#a'))
      expect([...(error.errors?.keys() ?? [])]).toEqual(['b#c'])
      expect(error.errors?.get('b#c')).toMatchObject({ message: 'no prod#b%23c', operation: 'batchSetState' })
      expect(breaker.circuits['a']?.state).toBe('OPEN')
      expect(breaker.circuits['b#c']?.state).toBe('CLOSED')
      expect(told(events)).toEqual(['a CLOSED OPEN set', 'd CLOSED OPEN set'])
      // Done again, it changes what is missing.
      await breaker.batchSetState({ 'b#c': 'OPEN' })
      expect(told(events).slice(2)).toEqual(['b#c CLOSED OPEN set'])
    })

    it('does not write the keys that it could not read, and writes the others', async () => {
      const { start, storage } = createFleet({ services: ['a', 'b'], namespace: 'prod' })
      storage.intercept('batchGetState', async (_, apply) => {
        throw partial('batchGetState', (await apply()) as Map<string, unknown>, ['prod#a'])
      })
      const error = await errorOf(start().batchSetState({ a: 'OPEN', b: 'OPEN' }))
      expect(storage.writes.map(keysOf)).toEqual([['prod#b']])
      expect([...(error.errors?.keys() ?? [])]).toEqual(['a'])
      expect(error.results?.get('b')).toMatchObject({ state: 'OPEN' })
    })

    it('writes nothing when nothing can be read', async () => {
      const { start, storage } = createFleet({ services: ['a', 'b'] })
      storage.inject('fail')
      const error = await errorOf(start().batchSetState({ a: 'OPEN', b: 'OPEN' }))
      expect(storage.operations).toEqual(['batchGetState'])
      expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
      expect(error.results?.size).toBe(0)
    })

    it('leaves a damaged record alone when it opens, and opens the others', async () => {
      const { start, storage } = createFleet({ services: ['good', 'bad'] })
      storage.intercept('batchGetState', async (_, apply) => {
        throw partial('batchGetState', (await apply()) as Map<string, unknown>, ['bad'], true)
      })
      const error = await errorOf(start().batchSetState({ good: 'OPEN', bad: 'OPEN' }))
      expect(error.errors?.get('bad')).toMatchObject({ corrupt: true })
      expect(storage.writes.map(keysOf)).toEqual([['good']])
      expect((await storage.peek('good'))?.state).toBe('OPEN')
    })

    it.each(['lose', 'lose-with-error'] as const)(
      'tells of a transition whose reply was lost once, when it learns of it (%s)',
      async (fault) => {
        const { start, storage, runtime, events } = createFleet()
        const breaker = start()
        storage.inject(fault, 'batchSetState')
        const setting = errorOf(breaker.batchSetState({ stripe: 'OPEN' }))
        await runtime.advance(500)
        await setting
        expect(events).toEqual([])
        await runtime.advance(5_000)
        await breaker.load()
        expect(told(events)).toEqual(['stripe CLOSED OPEN set'])
        expect(breaker.circuits.stripe?.state).toBe('OPEN')
        await breaker.batchSetState({ stripe: 'OPEN' })
        await breaker.batchGetState()
        expect(told(events)).toEqual(['stripe CLOSED OPEN set'])
      },
    )

    it('adopts a reply that comes too late, and tells of the transition', async () => {
      const { start, storage, runtime, events } = createFleet({ services: ['a', 'b'] })
      const breaker = start()
      const held = storage.holdReply('batchSetState')
      const setting = errorOf(breaker.batchSetState({ a: 'OPEN', b: 'OPEN' }))
      await held.arrived
      await runtime.advance(500)
      expect([...((await setting).errors?.keys() ?? [])]).toEqual(['a', 'b'])
      held.release()
      await runtime.settle()
      expect([breaker.circuits['a']?.state, breaker.circuits['b']?.state]).toEqual(['OPEN', 'OPEN'])
      expect(told(events)).toEqual(['a CLOSED OPEN set', 'b CLOSED OPEN set'])
    })

    it('adopts of a reply that comes too late what it says, though it leaves a key out', async () => {
      const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
      const breaker = start()
      const gate = Promise.withResolvers<void>()
      storage.intercept('batchSetState', async (_, apply) => {
        const replies = (await apply()) as Map<string, unknown>
        replies.delete('a')
        await gate.promise
        return replies
      })
      const setting = errorOf(breaker.batchSetState({ a: 'OPEN', b: 'OPEN' }))
      await runtime.advance(500)
      await setting
      gate.resolve()
      await runtime.settle()
      expect(breaker.circuits['b']?.state).toBe('OPEN')
    })

    it('takes a reply that leaves a key out for no success', async () => {
      const { start, storage } = createFleet({ services: ['a', 'b'] })
      storage.intercept('batchSetState', async (_, apply) => {
        const replies = (await apply()) as Map<string, unknown>
        replies.delete('b')
        return replies
      })
      const error = await errorOf(start().batchSetState({ a: 'OPEN', b: 'OPEN' }))
      expect([...(error.results?.keys() ?? [])]).toEqual(['a'])
      expect([...(error.errors?.keys() ?? [])]).toEqual(['b'])
      expect(error.errors?.get('b')?.message).toBe(`The store's answer to batchSetState does not contain "b".`)
    })

    it.each([
      ['no map', {}],
      ['nothing', undefined],
      ['no result', new Map([['stripe', null]])],
      ['an empty result', new Map([['stripe', {}]])],
      ['a result without a record', new Map([['stripe', { applied: true, current: {} }]])],
    ])('answers %s with an error of the store and not with an exception', async (_what, reply) => {
      const { start, storage } = createFleet()
      storage.intercept('batchSetState', async () => reply)
      const error = await errorOf(start().batchSetState({ stripe: 'OPEN' }))
      expect([...(error.errors?.keys() ?? [])]).toEqual(['stripe'])
    })
  })
})

describe('batchClearState', () => {
  it('deletes in one request, each key once, and the circuits begin anew', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b', 'c'] })
    const breaker = start()
    await breaker.batchSetState({ a: 'OPEN', b: 'OPEN', c: 'OPEN' })
    await breaker.forceOpen('b')
    storage.forget()
    await breaker.batchClearState(['b', 'a', 'b'])
    expect(storage.requests).toEqual([{ operation: 'batchClearState', args: [['b', 'a']] }])
    expect([await storage.peek('a'), await storage.peek('b')]).toEqual([undefined, undefined])
    expect((await storage.peek('c'))?.state).toBe('OPEN')
    expect(breaker.circuits['a']).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    expect(breaker.circuits['b']).toMatchObject({ state: 'CLOSED', override: undefined })
    expect(breaker.circuits['c']?.state).toBe('OPEN')
    expect(await breaker.call('b', ok)).toBe('ok')
    await failTimes(breaker, 3, 'a')
    await breaker.flush()
    await runtime.settle()
    expect(await storage.peek('a')).toMatchObject({ state: 'OPEN', generation: 1 })
  })

  it('deletes all services by default', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'], namespace: 'prod' })
    await start().batchClearState()
    expect(storage.requests).toEqual([{ operation: 'batchClearState', args: [['prod#a', 'prod#b']] }])
  })

  it('drops the outcome of a call that began before', async () => {
    const { start, storage } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await trip(breaker)
    await breaker.batchSetState({ stripe: 'CLOSED' })
    const running = controlled()
    const call = outcomeOf(breaker.call('stripe', running.operation))
    await breaker.batchClearState()
    running.fail()
    await call
    await breaker.flush()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(await storage.peek('stripe')).toBeUndefined()
  })

  it('reports partial failure by the key of the service', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b#c'], namespace: 'prod' })
    const breaker = start()
    await breaker.batchSetState({ a: 'OPEN', 'b#c': 'OPEN' })
    storage.intercept('batchClearState', async () => {
      await storage.remove('prod#a')
      throw partial('batchClearState', new Map([['prod#a', true]]), ['prod#b%23c'])
    })
    const error = await errorOf(breaker.batchClearState())
    expect([...(error.errors?.keys() ?? [])]).toEqual(['b#c'])
    expect(error).toMatchObject({ operation: 'batchClearState', results: new Map([['a', true]]) })
    expect([breaker.circuits['a']?.state, breaker.circuits['b#c']?.state]).toEqual(['CLOSED', 'OPEN'])
  })

  it('changes nothing when the store fails', async () => {
    const { start, storage, storageErrors } = createFleet()
    const breaker = start()
    await breaker.batchSetState({ stripe: 'OPEN' })
    storage.inject('fail')
    const error = await errorOf(breaker.batchClearState())
    expect([...(error.errors?.keys() ?? [])]).toEqual(['stripe'])
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect(storageErrors).toEqual([expect.objectContaining({ operation: 'batchClearState', willRetry: false })])
  })

  it('deletes a damaged record, which is used again from then on', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      throw partial('batchGetState', new Map(), ['stripe'], true)
    })
    await breaker.load()
    await breaker.batchClearState()
    await trip(breaker)
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })
})

describe('every batch operation', () => {
  type Run = (fleet: Fleet, keys: string[]) => Promise<unknown>
  const everyOperation: [string, Run][] = [
    ['batchGetState', ({ start }, keys) => start().batchGetState(keys)],
    ['batchSetState', ({ start }, keys) => start().batchSetState(keys.map((key) => [key, 'OPEN'] as const))],
    ['batchClearState', ({ start }, keys) => start().batchClearState(keys)],
  ]

  it.each(everyOperation)('%s of nothing sends nothing', async (_name, run) => {
    const fleet = createFleet()
    const result = await run(fleet, [])
    if (result !== undefined) expect(result).toEqual(new Map())
    expect(await fleet.start().batchSetState({})).toEqual(new Map())
    expect(fleet.storage.requests).toEqual([])
  })

  it.each(everyOperation)('%s refuses an unknown service before anything is sent', async (_name, run) => {
    const fleet = createFleet()
    for (const unknown of ['paypal', '__proto__', 'constructor', '']) {
      const { error } = await outcomeOf(run(fleet, ['stripe', unknown]))
      expect(isUnknownServiceError(error)).toBe(true)
    }
    expect(fleet.storage.requests).toEqual([])
  })

  it.each(everyOperation)('%s serves services of any name', async (_name, run) => {
    const services = ['__proto__', 'constructor', 'a b', 'ü#%', 'x'.repeat(200)]
    const fleet = createFleet({ services, namespace: 'n' })
    await run(fleet, services)
    for (const request of fleet.storage.requests) {
      expect(keysOf(request)).toEqual(['n#__proto__', 'n#constructor', 'n#a b', 'n#ü%23%25', `n#${'x'.repeat(200)}`])
    }
  })

  it.each([['HALF_OPEN'], ['open'], [undefined], [null], [1], [Symbol('OPEN')], [{ state: 'OPEN' }]])(
    'batchSetState refuses the state %p before anything is sent, and names every problem',
    async (state) => {
      const { start, storage } = createFleet({ services: ['a', 'b', 'c'] })
      const { error } = await outcomeOf(start().batchSetState({ a: state, b: 'OPEN', c: state } as never))
      expect(isConfigurationError(error)).toBe(true)
      expect((error as { problems: { setting: string }[] }).problems.map(({ setting }) => setting)).toEqual(['a', 'c'])
      expect(storage.requests).toEqual([])
    },
  )
})

describe('the edges of batch operations', () => {
  it('batchSetState CLOSED does what reset does with a damaged record: it repairs it', async () => {
    const { start, storage } = createFleet()
    storage.intercept('batchGetState', async () => {
      throw partial('batchGetState', new Map(), ['stripe'], true)
    })
    await start().batchSetState({ stripe: 'CLOSED' })
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
  })

  it('batchSetState CLOSED of a damaged record that cannot be repaired either fails for it, and sets the others', async () => {
    const { start, storage } = createFleet({ services: ['good', 'bad'] })
    storage.intercept('batchGetState', async (_, apply) => {
      throw partial('batchGetState', (await apply()) as Map<string, unknown>, ['bad'], true)
    })
    storage.inject('fail', 'clearState')
    const error = await errorOf(start().batchSetState({ good: 'CLOSED', bad: 'CLOSED' }))
    expect(error.errors?.get('bad')).toMatchObject({ message: 'The store failed at clearState.', corrupt: false })
    expect(storage.writes.map(({ operation }) => operation)).toEqual(['clearState', 'batchSetState'])
    expect(error.results?.get('good')).toMatchObject({ state: 'CLOSED' })
  })

  it('batchClearState ends what this instance decided alone where nothing was stored before', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 3)
    storage.heal()
    await breaker.batchClearState()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('batchClearState in the middle of a batchSetState is followed by the set: this instance shows what is stored', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const held = storage.holdReply('batchSetState')
    const setting = outcomeOf(breaker.batchSetState({ stripe: 'OPEN' }))
    await held.arrived
    await breaker.batchClearState()
    held.release()
    await setting
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('the report of a batch that an operator has to repeat does not promise a repetition', async () => {
    const { start, storage, storageErrors } = createFleet()
    storage.inject('fail', 'batchSetState')
    await errorOf(start().batchSetState({ stripe: 'OPEN' }))
    expect(storageErrors[0]?.willRetry).toBe(false)
  })

  it('the errors of a batch name the service, not the key that it is stored under', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'], namespace: 'prod' })
    failInPart(storage, ['prod#b'])
    const error = await errorOf(start().batchSetState({ a: 'OPEN', b: 'OPEN' }))
    expect(error.errors?.get('b')?.service).toBe('b')
  })

  it('a batch of which all is damaged says so, as the single operators do', async () => {
    const { start, storage } = createFleet()
    storage.intercept('batchGetState', async () => {
      throw partial('batchGetState', new Map(), ['stripe'], true)
    })
    expect(await errorOf(start().batchGetState())).toMatchObject({ corrupt: true })
  })

  it('a state that cannot even be printed is a ConfigurationError, too', async () => {
    const { error } = await outcomeOf(
      createFleet()
        .start()
        .batchSetState({ stripe: Object.create(null) }),
    )
    expect(isConfigurationError(error)).toBe(true)
  })

  it.each([
    ['a result that is no record', { results: new Map([['stripe', {}]]), errors: new Map() }],
    ['errors that are no map', { results: new Map(), errors: {} }],
    ['an error that is not ours', { results: new Map(), errors: new Map([['stripe', new Error('no')]]) }],
  ])('a batch that fails in part with %s does not make load and call throw', async (_what, details) => {
    const { start, storage } = createFleet()
    storage.intercept('batchGetState', async () => {
      throw new CircuitStorageError('in part', { operation: 'batchGetState', ...(details as object) })
    })
    const breaker = start()
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })
})

// ------------------------------------------------------------------------------------------------- interleavings

type Step =
  | {
      readonly kind: 'call'
      readonly instance: number
      readonly service: number
      readonly fails: boolean
      takes: number
    }
  | { readonly kind: 'set'; readonly instance: number; readonly states: readonly ('OPEN' | 'CLOSED' | undefined)[] }
  | { readonly kind: 'get'; readonly instance: number }
  | { readonly kind: 'clear'; readonly instance: number }
  | { readonly kind: 'operate'; readonly instance: number; readonly does: 'forceOpen' | 'forceClosed' | 'reset' }
  | { readonly kind: 'load'; readonly instance: number }
  | { readonly kind: 'flush'; readonly instance: number }
  | { readonly kind: 'wait'; readonly milliseconds: number }
  | { readonly kind: 'latency'; readonly request: number; readonly reply: number }
  | { readonly kind: 'fault'; readonly fault: 'fail' | 'hang' | 'lose' | 'lose-with-error' }

const instances = 3
const services = ['a', 'b']

interface Disturbances {
  /** Requests to the store are refused, lost or never answered. */
  readonly faults?: boolean
  /** Records are deleted. */
  readonly clears?: boolean
}

function stepsWith({ faults = false, clears = false }: Disturbances): fc.Arbitrary<Step[]> {
  const instance = fc.nat(instances - 1)
  const latency = fc.constantFrom(0, 2, 10, 100)
  const state = fc.constantFrom('OPEN' as const, 'CLOSED' as const, undefined)
  const call = fc.record({
    kind: fc.constant('call' as const),
    instance,
    service: fc.nat(services.length - 1),
    fails: fc.constantFrom(true, true, false),
    takes: fc.constantFrom(0, 0, 5, 50, 400),
  })
  return fc.array<Step>(
    fc.oneof(
      { weight: 10, arbitrary: call },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant('set' as const), instance, states: fc.tuple(state, state) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom('load' as const, 'flush' as const), instance }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('get' as const), instance }) },
      { weight: clears ? 2 : 0, arbitrary: fc.record({ kind: fc.constant('clear' as const), instance }) },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('operate' as const),
          instance,
          does: fc.constantFrom('forceOpen' as const, 'forceClosed' as const, 'reset' as const),
        }),
      },
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant('wait' as const),
          milliseconds: fc.constantFrom(0, 1, 5, 20, 100, 600, 1_000, 5_000),
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('latency' as const), request: latency, reply: latency }) },
      {
        weight: faults ? 1 : 0,
        arbitrary: fc.record({
          kind: fc.constant('fault' as const),
          fault: fc.constantFrom('fail' as const, 'hang' as const, 'lose' as const, 'lose-with-error' as const),
        }),
      },
    ),
    { minLength: 5, maxLength: 40 },
  )
}

/** The replaces that took place, in order: each names the version that it replaced. */
async function historyOf(storage: RecordingStorage, service: string): Promise<(CompareAndSet & { isSet: boolean })[]> {
  const sent = new Map<string, CompareAndSet & { isSet: boolean }>()
  for (const { operation, args } of storage.requests) {
    if (operation === 'compareAndSetState') {
      const [serviceKey, version, next] = args as [string, string | undefined, CircuitRecord]
      if (serviceKey === service) sent.set(next.version, { serviceKey, version, next, isSet: false })
    } else if (operation === 'batchSetState') {
      for (const write of args[0] as CompareAndSet[]) {
        if (write.serviceKey === service) sent.set(write.next.version, { ...write, isSet: true })
      }
    }
  }
  const history: (CompareAndSet & { isSet: boolean })[] = []
  let version = (await storage.peek(service))?.version
  while (version !== undefined) {
    const write = sent.get(version)
    if (write === undefined) throw new Error(`nobody wrote ${version}`)
    history.unshift(write)
    version = write.version
  }
  return history
}

/** Lets a fleet live through the steps; returns what was lost or told wrongly. */
async function violations(steps: readonly Step[], { faults = false, clears = false }: Disturbances): Promise<string[]> {
  const { start, storage, runtime, events } = createFleet({
    services,
    failureThreshold: 2,
    resetTimeout: 1_000,
    cacheTtl: 500,
  })
  const found: string[] = []
  const fleet = Array.from({ length: instances }, () => start())
  await Promise.all(fleet.map((breaker) => breaker.load()))
  const ended: Promise<unknown>[] = []
  const set = Object.fromEntries(services.map((service) => [service, [] as string[]]))
  for (const step of steps) {
    if (step.kind === 'wait') await runtime.advance(step.milliseconds)
    else if (step.kind === 'latency') Object.assign(storage, { requestLatency: step.request, replyLatency: step.reply })
    else if (step.kind === 'fault') storage.inject(step.fault)
    else {
      const breaker = fleet[step.instance] ?? start()
      if (step.kind === 'load' || step.kind === 'flush') ended.push(breaker[step.kind]())
      else if (step.kind === 'call') {
        const operation = async (): Promise<string> => {
          if (step.takes > 0) await runtime.sleep(step.takes)
          return step.fails ? unavailable() : 'ok'
        }
        ended.push(outcomeOf(breaker.call(services[step.service] as string, operation)))
        await Promise.resolve()
      } else if (step.kind === 'get') {
        ended.push(outcomeOf(breaker.batchGetState()))
      } else if (step.kind === 'clear') {
        ended.push(outcomeOf(breaker.batchClearState()))
      } else if (step.kind === 'operate') {
        for (const service of services) ended.push(outcomeOf(breaker[step.does](service)))
      } else {
        const wanted = new Map(
          services.flatMap((service, index) => {
            const state = step.states[index]
            return state === undefined ? [] : [[service, state] as const]
          }),
        )
        const note = (results: ReadonlyMap<string, unknown>, errors?: ReadonlyMap<string, unknown>): void => {
          for (const [service, state] of wanted) {
            if (results.has(service) === (errors?.has(service) === true)) found.push(`${service}: not one of two`)
            if (results.has(service)) set[service]?.push(state)
          }
        }
        const setting = outcomeOf(breaker.batchSetState(wanted)).then(({ value, error }) => {
          if (value !== undefined) note(value)
          else if (!(error instanceof CircuitStorageError && faults)) found.push(`threw ${String(error)}`)
          else note(error.results ?? new Map(), error.errors)
        })
        ended.push(setting)
      }
    }
  }
  storage.heal()
  await runtime.advance(2_000)
  await Promise.all(ended)
  for (let round = 0; round < 3; round++) {
    await Promise.all(fleet.map((breaker) => breaker.flush()))
    await runtime.advance(61_000)
    await Promise.all(fleet.map((breaker) => breaker.load()))
  }
  for (const service of services) {
    for (const breaker of fleet) {
      const { state } = (await storage.peek(service)) ?? { state: 'CLOSED' }
      const { state: local, scope } = breaker.snapshot(service)
      // An instance refuses by itself until a call of its own succeeds.
      if (scope === 'instance') continue
      if (local !== state && !(state === 'OPEN' && local === 'HALF_OPEN')) found.push(`${local} is not ${state}`)
      if (breaker.needsFlush) found.push('something waits for ever')
    }
    if (clears) continue
    const history = await historyOf(storage, service)
    let before = emptyRecord('', 0)
    const changes: string[] = []
    for (const { next, isSet } of history) {
      if (isSet && next.override !== undefined) found.push('an override is left')
      if (next.generation - before.generation > 1 || next.generation < before.generation) found.push('generations')
      const isForced = next.override !== undefined || before.override !== undefined
      const isWord = isForced && next.generation > before.generation
      if (next.state !== before.state || isWord)
        changes.push(`${next.generation} ${before.state} ${next.state} ${isSet}`)
      before = next
    }
    const stored = history.filter(({ isSet }) => isSet).map(({ next }) => next.state)
    const answered = set[service] ?? []
    // What was answered is stored: once for each time, and without faults nothing else is.
    for (const state of ['OPEN', 'CLOSED']) {
      const [done, said] = [stored, answered].map((states) => states.filter((one) => one === state).length)
      if (faults ? (done ?? 0) < (said ?? 0) : done !== said)
        found.push(`${service} ${state}: ${said} said, ${done} done`)
    }
    const heard = events
      .filter((event) => event.service === service)
      .map(({ generation, from, to, reason }) => `${generation} ${from} ${to} ${reason === 'set'}`)
    if (new Set(heard).size < heard.length) found.push(`told twice: ${heard}`)
    if (heard.some((event) => !changes.includes(event))) found.push(`told of what was not: ${heard} of ${changes}`)
    if (!faults && heard.length < changes.length) found.push(`not told: ${heard} of ${changes}`)
  }
  return found
}

describe('whatever fails, trips, probes and sets at the same time', () => {
  const expectNone = (disturbances: Disturbances): Promise<void> =>
    fc.assert(
      fc.asyncProperty(stepsWith(disturbances), async (steps) => {
        expect(await violations(steps, disturbances)).toEqual([])
      }),
      { numRuns: 300 },
    )

  it('no batchSetState is lost, and every transition is told once', async () => {
    await expectNone({})
  })

  it('what it said is stored though requests are refused, lost or never answered, and nothing is told twice', async () => {
    await expectNone({ faults: true })
  })

  it('all agree again though records are deleted in between', async () => {
    await expectNone({ clears: true })
    await expectNone({ clears: true, faults: true })
  })

  it('all agree on a decision that was made anew, after another that it had lost to', async () => {
    const steps: Step[] = [
      { kind: 'operate', instance: 0, does: 'forceOpen' },
      { kind: 'latency', request: 100, reply: 0 },
      { kind: 'clear', instance: 0 },
      { kind: 'set', instance: 0, states: ['OPEN', 'CLOSED'] },
      { kind: 'call', instance: 0, service: 1, fails: true, takes: 0 },
      { kind: 'call', instance: 0, service: 0, fails: true, takes: 0 },
      { kind: 'call', instance: 1, service: 1, fails: true, takes: 400 },
      { kind: 'clear', instance: 0 },
      { kind: 'wait', milliseconds: 600 },
    ]
    expect(await violations(steps, { clears: true })).toEqual([])
  })
})
