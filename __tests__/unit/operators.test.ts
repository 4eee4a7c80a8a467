import { describe, expect, it, jest } from '@jest/globals'
import { CircuitStorageError, isConfigurationError, isUnknownServiceError } from '../../src/index.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import {
  controlled,
  createFleet,
  failTimes,
  observedBy,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'

describe('forceOpen', () => {
  it('opens the circuit for the whole fleet within cacheTtl, whatever the service does', async () => {
    const { start, runtime, events } = createFleet()
    const [operator, instance] = [start(), start()]
    await instance.load()
    await operator.forceOpen('stripe')
    expect(operator.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(5_000)
    await instance.load()
    const operation = jest.fn(ok)
    expect((await outcomeOf(instance.call('stripe', operation))).error).toMatchObject({
      reason: 'forced',
      retryAfter: 10_000,
    })
    expect(operation).not.toHaveBeenCalled()
    expect(events).toEqual([expect.objectContaining({ reason: 'forced-open', from: 'CLOSED', to: 'OPEN' })])
  })

  it('shows when the circuit may be probed: at until, or nobody knows', async () => {
    const { start, runtime } = createFleet({ maxResetTimeout: 60_000 })
    const breaker = start()
    const until = runtime.now() + 3_600_000
    await breaker.forceOpen('stripe', { until })
    expect(breaker.circuits.stripe?.retryAt).toBe(until)
    await breaker.forceOpen('stripe')
    expect(breaker.circuits.stripe?.retryAt).toBeUndefined()
    await breaker.forceClosed('stripe', { until })
    expect(breaker.circuits.stripe?.retryAt).toBeUndefined()
  })

  it('lets the first call after it read the state once, and the next ones send nothing', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await breaker.forceClosed('stripe')
    storage.forget()
    for (let index = 0; index < 5; index++) await breaker.call('stripe', ok)
    expect(storage.requests).toHaveLength(1)
    expect(storage.requests[0]).toMatchObject({ operation: 'batchGetState' })
  })

  it('holds longer than any reset timeout, and nobody probes', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe')
    const record = await storage.peek('stripe')
    await runtime.advance(86_400_000)
    await breaker.load()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced' })
    expect(await storage.peek('stripe')).toEqual(record)
  })

  it.each([
    ['a Date', (at: number) => new Date(at)],
    ['a number', (at: number) => at],
  ])('ends by itself at until, given as %s, and the circuit is probed then', async (_as, untilOf) => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe', { until: untilOf(runtime.now() + 3_600_000) })
    await runtime.advance(3_599_999)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced', retryAfter: 1 })
    await runtime.advance(1)
    expect(breaker.circuits.stripe?.state).toBe('HALF_OPEN')
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', override: undefined })
  })

  it.each([
    ['the past', -1],
    ['now', 0],
    ['NaN', Number.NaN],
    ['never', Number.POSITIVE_INFINITY],
    ['beyond all dates', 1e17],
  ])('refuses an until of %s', async (_what, offset) => {
    const { start, runtime, storage } = createFleet()
    const { error } = await outcomeOf(start().forceOpen('stripe', { until: runtime.now() + offset }))
    expect(isConfigurationError(error)).toBe(true)
    expect(storage.requests).toEqual([])
  })

  it.each(['forceOpen', 'forceClosed'] as const)(
    '%s is refused, and changes nothing, if until passes while the record is read',
    async (method) => {
      const { start, runtime, storage } = createFleet()
      const breaker = start()
      await breaker.reset('stripe')
      const before = await storage.peek('stripe')
      const read = storage.holdReply('getState')
      const forced = outcomeOf(breaker[method]('stripe', { until: runtime.now() + 100 }))
      await read.arrived
      runtime.setClock(runtime.now() + 178)
      read.release()
      expect((await forced).error).toMatchObject({
        code: 'CIRCUIT_STORAGE',
        service: 'stripe',
        message: expect.stringMatching(/until, 2026-01-01T00:00:00.100Z, is over. Nothing was changed. Try again/),
      })
      expect(await storage.peek('stripe')).toEqual(before)
    },
  )

  it('is refused if until passes while others keep writing, and leaves their record alone', async () => {
    const { start, runtime, storage } = createFleet()
    await start().reset('stripe')
    const conflict = async (): Promise<unknown> => {
      runtime.setClock(runtime.now() + 60)
      return { applied: false, current: await storage.peek('stripe') }
    }
    storage.intercept('compareAndSetState', conflict, 10)
    const { error } = await outcomeOf(start().forceOpen('stripe', { until: runtime.now() + 100 }))
    expect(error).toMatchObject({ message: expect.stringContaining('was not stored in time') })
    expect((await storage.peek('stripe'))?.override).toBeUndefined()
  })

  it('drops the outcome of a probe that was in flight', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(start())
    await runtime.advance(10_000)
    const probe = controlled()
    const call = breaker.call('stripe', probe.operation)
    await runtime.settle()
    await start().forceOpen('stripe')
    const record = await storage.peek('stripe')
    probe.succeed('ok')
    await call
    await breaker.flush()
    expect(await storage.peek('stripe')).toEqual(record)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('is not undone in this instance by the late reply to an earlier write', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    await breaker.forceOpen('stripe')
    held.release()
    await runtime.settle()
    expect((await storage.peek('stripe'))?.override?.state).toBe('OPEN')
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })
})

describe('forceClosed', () => {
  it('keeps the circuit closed whatever the service does; nothing is counted or written', async () => {
    const { start, storage, events } = createFleet()
    const breaker = start()
    await trip(breaker)
    await breaker.forceClosed('stripe')
    storage.forget()
    await failTimes(breaker, 20)
    await breaker.flush()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0, override: { state: 'CLOSED' } })
    expect(storage.requests).toEqual([])
    expect(events.map(({ reason }) => reason)).toEqual(['failure-threshold', 'forced-closed'])
  })

  it('ends by itself at until: failures count again', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.forceClosed('stripe', { until: runtime.now() + 1_000 })
    await failTimes(breaker, 2)
    await runtime.advance(1_000)
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  // An override that is over is still in the record.
  it('that is over does not keep concurrent failures from opening the circuit', async () => {
    const { start, storage, runtime } = createFleet()
    await start().forceClosed('stripe', { until: runtime.now() + 1_000 })
    await runtime.advance(1_001)
    const breakers = [start(), start(), start()]
    await Promise.all(breakers.map((breaker) => breaker.load()))
    await Promise.all(breakers.map((breaker) => failTimes(breaker, 1)))
    await Promise.all(breakers.map((breaker) => breaker.flush()))
    await runtime.advance(1_000)
    await breakers[2]?.load()
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1, earlyCount: 0, state: 'OPEN' })
  })
})

describe('reset', () => {
  it('closes the circuit, ends the override and forgets what was counted; it replaces and never deletes', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await trip(breaker)
    await breaker.forceOpen('stripe')
    storage.forget()
    await breaker.reset('stripe')
    expect(await storage.peek('stripe')).toMatchObject({
      state: 'CLOSED',
      override: undefined,
      failureCount: 0,
      trips: 0,
      lastFailure: undefined,
      generation: 3,
    })
    expect(storage.operations).toEqual(['getState', 'compareAndSetState'])
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('repairs a damaged record', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const damaged = async (): Promise<never> => {
      throw new CircuitStorageError('damaged', { operation: 'getState', service: 'stripe', corrupt: true })
    }
    storage.intercept('batchGetState', damaged)
    storage.intercept('getState', damaged)
    await breaker.load()
    await failTimes(breaker, 3)
    await breaker.reset('stripe')
    expect(storage.operations).toEqual(['batchGetState', 'getState', 'clearState', 'getState', 'compareAndSetState'])
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    await trip(breaker)
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })

  it('repairs a record of an override that had ended before it was stored', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe')
    await storage.put('stripe', { ...((await storage.peek('stripe')) as CircuitRecord), resetTimeout: -78 })
    await breaker.reset('stripe')
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', override: undefined })
  })

  it('makes the circuit of a service that nobody has called yet', async () => {
    const { start, storage } = createFleet()
    await start().reset('stripe')
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', generation: 1 })
  })
})

describe('every operator', () => {
  it.each(['forceOpen', 'forceClosed', 'reset'] as const)('%s rejects when the store fails', async (method) => {
    const { start, storage } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    expect((await outcomeOf(breaker[method]('stripe'))).error).toMatchObject({ code: 'CIRCUIT_STORAGE' })
  })

  it.each(['forceOpen', 'forceClosed', 'reset'] as const)('%s rejects for an unknown service', async (method) => {
    const { error } = await outcomeOf(createFleet().start()[method]('paypal'))
    expect(isUnknownServiceError(error)).toBe(true)
  })

  it.each(['forceOpen', 'forceClosed'] as const)(
    '%s rejects for a damaged record, which it leaves alone',
    async (method) => {
      const { start, storage } = createFleet()
      storage.intercept('getState', async () => {
        throw new CircuitStorageError('damaged', { operation: 'getState', corrupt: true })
      })
      expect((await outcomeOf(start()[method]('stripe'))).error).toMatchObject({ corrupt: true })
      expect(storage.operations).toEqual(['getState'])
    },
  )

  it('prevails over others who keep writing', async () => {
    const { start, storage } = createFleet()
    const operator = start()
    await failTimes(start(), 1)
    let rivals = 0
    const rival = async (_request: unknown, apply: () => Promise<unknown>): Promise<unknown> => {
      const record = (await storage.peek('stripe')) as CircuitRecord
      await storage.put('stripe', { ...record, version: `rival-${++rivals}` })
      return apply()
    }
    storage.intercept('compareAndSetState', rival, 30)
    await operator.forceOpen('stripe')
    expect(rivals).toBe(30)
    expect((await storage.peek('stripe'))?.override?.state).toBe('OPEN')
  })

  it('gives up at last and says so', async () => {
    const { start, storage } = createFleet()
    let rivals = 0
    const conflict = async (): Promise<unknown> => {
      rivals++
      return { applied: false, current: await storage.peek('stripe') }
    }
    storage.intercept('compareAndSetState', conflict, 1_000)
    const { error } = await outcomeOf(start().forceOpen('stripe'))
    expect(error).toMatchObject({ code: 'CIRCUIT_STORAGE', service: 'stripe' })
    expect(rivals).toBe(100)
  })

  it('is never lost to a fleet that fails and probes meanwhile', async () => {
    const { start, storage, runtime } = createFleet({ resetTimeout: 100 })
    storage.requestLatency = 3
    storage.replyLatency = 7
    const fleet = Array.from({ length: 5 }, () => start())
    const ended: Promise<unknown>[] = []
    for (let elapsed = 0; elapsed < 500; elapsed += 10) {
      runtime.setTimeout(() => {
        for (const breaker of fleet)
          ended.push(outcomeOf(breaker.call('stripe', elapsed % 30 === 0 ? ok : unavailable)))
      }, elapsed)
    }
    const forced = (async () => {
      const due = Promise.withResolvers<void>()
      runtime.setTimeout(due.resolve, 250)
      await due.promise
      await start().forceClosed('stripe')
      return storage.peek('stripe')
    })()
    await runtime.advance(10_000)
    await Promise.all(ended)
    expect(await storage.peek('stripe')).toEqual(await forced)
    expect((await forced)?.override).toMatchObject({ state: 'CLOSED' })
  })

  it('wins against the later one only until that one writes', async () => {
    const { start, storage } = createFleet()
    const [one, other] = [start(), start()]
    await Promise.all([one.forceOpen('stripe'), other.forceClosed('stripe')])
    expect((await storage.peek('stripe'))?.override?.state).toBe('CLOSED')
    expect((await storage.peek('stripe'))?.generation).toBe(2)
  })
})

describe('who and why', () => {
  const words = { by: 'ada', why: 'the provider has announced an outage' }

  it('are stored with an override, and shown to every instance and every caller that is refused', async () => {
    const { start, runtime, storage, events } = createFleet()
    const [operator, instance] = [start(), start()]
    const until = runtime.now() + 60_000
    await operator.forceOpen('stripe', { ...words, until })
    expect(await storage.peek('stripe')).toMatchObject({ override: { state: 'OPEN', until, ...words } })
    expect(events).toEqual([expect.objectContaining({ reason: 'forced-open', until, ...words })])
    const seen = observedBy(instance)
    await instance.load()
    expect(instance.circuits.stripe?.override).toMatchObject(words)
    expect(seen).toEqual([expect.objectContaining({ reason: 'forced-open', observed: true, until, ...words })])
    const { error } = await outcomeOf(instance.call('stripe', ok))
    expect(error).toMatchObject({ reason: 'forced', ...words })
    // The message reaches clients.
    expect((error as Error).message).not.toContain('outage')
    await runtime.advance(60_000)
    const other = await outcomeOf(instance.call('stripe', unavailable))
    expect(other.error).not.toMatchObject(words)
    const refused = await outcomeOf(instance.call('stripe', ok))
    expect(refused.error).toMatchObject({ code: 'CIRCUIT_OPEN', by: undefined, why: undefined })
  })

  it('of a circuit that is forced closed are told to observers as well', async () => {
    const { start, runtime } = createFleet()
    const [operator, instance] = [start(), start()]
    await trip(operator)
    await instance.load()
    const seen = observedBy(instance)
    await operator.forceClosed('stripe', words)
    await runtime.advance(5_000)
    await instance.load()
    expect(seen).toEqual([expect.objectContaining({ from: 'OPEN', to: 'CLOSED', reason: 'forced-closed', ...words })])
  })

  it('of a reset are told in its event', async () => {
    const { start, events } = createFleet()
    const breaker = start()
    await trip(breaker)
    await breaker.reset('stripe', words)
    expect(events.at(-1)).toMatchObject({ from: 'OPEN', to: 'CLOSED', reason: 'reset', ...words })
  })

  it('of an override that is over are told to no observer', async () => {
    const { start, runtime } = createFleet()
    await start().forceOpen('stripe', { ...words, until: runtime.now() + 1_000 })
    await runtime.advance(1_000)
    const instance = start()
    const seen = observedBy(instance)
    await instance.load()
    expect(seen).toEqual([expect.objectContaining({ to: 'OPEN', reason: 'observed', by: undefined })])
  })

  it.each([
    ['an empty by', { by: ' ' }],
    ['a by that is too long', { by: 'x'.repeat(129) }],
    ['a why that is too long', { why: 'x'.repeat(501) }],
    ['a line break', { why: 'one\ntwo' }],
    ['a terminal escape', { by: '\u001b[2J' }],
    ['a text that runs the other way', { why: 'a\u202eb' }],
    ['half of a character', { why: '\ud83d' }],
    ['no text', { why: 7 as never }],
  ])('are refused with %s, and nothing is read or written', async (_what, options) => {
    const { start, storage } = createFleet()
    const breaker = start()
    for (const method of ['forceOpen', 'forceClosed', 'reset'] as const) {
      const { error } = await outcomeOf(breaker[method]('stripe', options))
      expect(isConfigurationError(error)).toBe(true)
    }
    expect(storage.requests).toEqual([])
  })

  it('may be as long as they are allowed to be', async () => {
    const { start, storage } = createFleet()
    const longest = { by: 'x'.repeat(128), why: '🚒'.repeat(250) }
    await start().forceOpen('stripe', longest)
    expect((await storage.peek('stripe'))?.override).toMatchObject(longest)
  })
})
