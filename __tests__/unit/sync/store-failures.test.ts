import { describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker, CircuitStorageError } from '../../../src/index.ts'
import {
  controlled,
  createFleet,
  failTimes,
  isSettled,
  ok,
  outcomeOf,
  ServiceUnavailable,
  trip,
} from '../../support/virtual-fleet.ts'

const damage = (service = 'stripe') =>
  new CircuitStorageError('damaged', { operation: 'batchGetState', service, corrupt: true })

describe.each(['fail', 'hang'] as const)('a store that is down (%s)', (outage) => {
  it('changes no result and delays a call by storageTimeout at most', async () => {
    const { start, storage, runtime } = createFleet()
    storage.outage = outage
    const breaker = start()
    const first = breaker.call('stripe', ok)
    await runtime.advance(outage === 'hang' ? 499 : 0)
    expect(await isSettled(first, runtime)).toBe(outage === 'fail')
    await runtime.advance(1)
    expect(await first).toBe('ok')
    const error = new ServiceUnavailable('503')
    expect((await outcomeOf(breaker.call('stripe', () => Promise.reject(error)))).error).toBe(error)
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('is reported, with what is kept to be tried again', async () => {
    const { start, storage, runtime, storageErrors } = createFleet()
    storage.outage = outage
    const breaker = start()
    const loading = breaker.load()
    await runtime.advance(500)
    await loading
    expect(storageErrors).toEqual([
      { services: ['stripe'], operation: 'batchGetState', error: expect.any(CircuitStorageError), willRetry: true },
    ])
  })

  it('leaves the instance to protect itself: it opens, probes and recovers alone', async () => {
    const { start, storage, runtime, events } = createFleet()
    const breaker = start()
    const observed: string[] = []
    breaker.onStateChange(({ to, observed: isObserved }) => observed.push(`${to} ${isObserved}`), { observed: true })
    await breaker.load()
    storage.outage = outage
    await failTimes(breaker, 3)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(9_999)
    const operation = jest.fn(ok)
    expect((await outcomeOf(breaker.call('stripe', operation))).error).toMatchObject({ reason: 'open' })
    expect(operation).not.toHaveBeenCalled()
    const refreshes = [1, 2, 3, 4].map(() => breaker.load())
    await runtime.advance(1_000)
    await Promise.all(refreshes)
    const again = breaker.load()
    await runtime.advance(600)
    await again
    const probe = controlled()
    const probing = breaker.call('stripe', probe.operation)
    await runtime.advance(600)
    if (probe.started === 0) await outcomeOf(probing)
    const local = probe.started === 0 ? breaker.call('stripe', probe.operation) : probing
    await runtime.settle()
    expect(probe.started).toBe(1)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'probing' })
    probe.succeed('recovered')
    expect(await local).toBe('recovered')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(observed).toEqual(['OPEN true', 'CLOSED true'])
    expect(events).toEqual([])
  })

  it('does not set an instance that recovered alone back to what was stored before', async () => {
    const { start, storage, runtime } = createFleet()
    await trip(start())
    const breaker = start()
    await breaker.load()
    storage.outage = outage
    await runtime.advance(10_000)
    for (let call = 0; call < 3; call++) {
      const result = outcomeOf(breaker.call('stripe', ok))
      await runtime.advance(1_000)
      await result
    }
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await runtime.advance(30_000)
    await failTimes(breaker, 2)
    const flushed = breaker.flush()
    await runtime.advance(500)
    await flushed
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('leaves it protected for all of resetTimeout, although what it has to report is older than window by then', async () => {
    const { start, storage, runtime } = createFleet({ window: 60_000, resetTimeout: 120_000 })
    const breaker = start()
    await breaker.load()
    storage.outage = outage
    await failTimes(breaker, 3)
    const load = async (): Promise<void> => {
      const loading = breaker.load()
      await runtime.advance(1_000)
      await loading
    }
    for (let times = 0; times < 23; times++) {
      await load()
      await runtime.advance(4_000)
      expect([times, breaker.circuits.stripe?.state]).toEqual([times, 'OPEN'])
    }
    await runtime.advance(6_000)
    await load()
    expect(breaker.circuits.stripe?.state).toBe('HALF_OPEN')

    storage.outage = undefined
    await runtime.advance(30_000)
    await load()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'HALF_OPEN', scope: 'instance' })
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', scope: 'fleet' })
    expect(await storage.peek('stripe')).toBeUndefined()
  })

  it('opens again alone when the local probe fails', async () => {
    const { start, storage, runtime } = createFleet({ storageTimeout: 10, resetTimeout: 1_000 })
    const breaker = start()
    storage.outage = outage
    const opening = failTimes(breaker, 3)
    await runtime.advance(100)
    await opening
    await runtime.advance(1_000)
    for (let index = 0; index < 3; index++) {
      const refresh = breaker.load()
      await runtime.advance(20)
      await refresh
    }
    const probing = failTimes(breaker, 1)
    await runtime.advance(100)
    await probing
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('is left alone for a growing time instead of being asked by every call', async () => {
    const { start, storage, runtime } = createFleet({ storageTimeout: 10, cacheTtl: 0 })
    storage.outage = outage
    const breaker = start()
    for (let elapsed = 0; elapsed < 60_000; elapsed += 100) {
      const loading = breaker.load()
      await runtime.advance(20)
      await loading
      await breaker.call('stripe', ok)
      await runtime.advance(80)
    }
    expect(storage.requests.length).toBeLessThan(20)
    expect(storage.requests.length).toBeGreaterThan(5)
  })

  it('holds a flush no longer than storageTimeout, nor than the time left less 100 ms', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.outage = 'hang'
    await failTimes(breaker, 1)
    const [all, some, none] = [breaker.flush(), breaker.flush(350), breaker.flush(100)]
    expect(await isSettled(none, runtime)).toBe(true)
    await runtime.advance(249)
    expect(await isSettled(some, runtime)).toBe(false)
    await runtime.advance(1)
    expect(await isSettled(some, runtime)).toBe(true)
    await runtime.advance(249)
    expect(await isSettled(all, runtime)).toBe(false)
    await runtime.advance(1)
    expect(await isSettled(all, runtime)).toBe(true)
  })

  it('that returns gets the failures it missed, and its state is adopted', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.outage = outage
    await failTimes(breaker, 4)
    await runtime.advance(500)
    storage.heal()
    await runtime.advance(5_000)
    await breaker.load()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(4)
    expect(breaker.needsFlush).toBe(false)
  })

  it('that returns does not get failures older than the window', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 4)
    await runtime.advance(60_001)
    storage.heal()
    await breaker.load()
    await breaker.flush()
    expect(await storage.peek('stripe')).toBeUndefined()
  })

  // Invariant 9; what was sent without an answer and what came after it are two batches of one backlog.
  it('that returns is not told of a state that the instance reached alone: a healthy fleet stays closed', async () => {
    const { start, storage, runtime, events } = createFleet()
    const [lone, healthy] = [start(), start()]
    await Promise.all([lone.load(), healthy.load()])
    storage.outage = outage
    await failTimes(lone, 3)
    await runtime.advance(1_000)
    expect(lone.circuits.stripe?.state).toBe('OPEN')
    storage.heal()
    await runtime.advance(5_000)
    await lone.load()
    await lone.flush()
    await healthy.load()
    expect(healthy.circuits.stripe?.state).toBe('CLOSED')
    expect(lone.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'instance' })
    expect(events).toEqual([])
  })

  it('that returns gets no more of what it missed than leaves the count incomplete, as others have counted', async () => {
    const { start, storage, runtime, events } = createFleet({ services: ['paypal', 'stripe'] })
    const [lone, other] = [start(), start()]
    await Promise.all([lone.load(), other.load()])
    storage.outage = outage
    // From then on the store is left alone: nothing of the other service is even sent.
    for (let n = 0; n < 2; n++) {
      await failTimes(lone, 1, 'paypal')
      await runtime.advance(outage === 'hang' ? 500 : 0)
    }
    await failTimes(lone, 2)
    storage.heal()
    await failTimes(other, 2)
    await other.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
    await runtime.advance(5_000)
    await lone.load()
    await lone.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    expect([lone.needsFlush, events]).toEqual([false, []])
  })

  it('that returns makes its state known to an instance that was alone', async () => {
    const { start, storage, runtime } = createFleet()
    const [lone, other] = [start(), start()]
    await Promise.all([lone.load(), other.load()])
    await trip(other)
    storage.outage = outage
    const alone = lone.load()
    await runtime.advance(500)
    await alone
    expect(await lone.call('stripe', ok)).toBe('ok')
    storage.heal()
    await runtime.advance(5_000)
    await lone.load()
    expect(lone.circuits.stripe?.state).toBe('OPEN')
  })
})

describe('a slow store', () => {
  it('does not hold up a call: outcomes are written behind', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.requestLatency = 300
    await failTimes(breaker, 3)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open' })
    await runtime.advance(1_000)
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })

  it('whose answer comes after the time is over is believed all the same', async () => {
    const { start, storage, runtime } = createFleet()
    await trip(start())
    const breaker = start()
    storage.replyLatency = 800
    const call = breaker.call('stripe', ok)
    await runtime.advance(500)
    expect(await call).toBe('ok')
    await runtime.advance(300)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('whose read was overtaken by a newer answer is not believed', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    await runtime.advance(5_000)
    const held = storage.holdReply('batchGetState')
    const loading = breaker.load()
    await held.arrived
    await failTimes(breaker, 1)
    await runtime.settle()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    held.release()
    await loading
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })
})

describe('a backlog', () => {
  const requestsOf = (storage: { readonly requests: readonly { readonly operation: string }[] }) =>
    storage.requests.map(({ operation }) => operation)

  it('is measured by one read of the circuit, and then written', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 4)
    await runtime.settle()
    storage.heal()
    await runtime.advance(1_000)
    storage.requests.splice(0)
    await breaker.flush()
    await breaker.flush()
    // What was sent goes first, as it was: it may have been counted.
    expect(requestsOf(storage)).toEqual(['compareAndSetState', 'getState', 'addOutcomes'])
    expect((await storage.peek('stripe'))?.failureCount).toBe(4)
  })

  it('needs no read where the circuit was loaded since the store failed', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10, cacheTtl: 0 })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState', 2)
    await failTimes(breaker, 4)
    await runtime.settle()
    await breaker.load()
    await runtime.advance(1_000)
    storage.requests.splice(0)
    await breaker.flush()
    expect(requestsOf(storage)).toEqual(['compareAndSetState', 'addOutcomes'])
  })

  it('stays one while the read fails', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 4)
    await runtime.settle()
    storage.heal()
    storage.inject('fail', 'getState')
    await runtime.advance(1_000)
    await breaker.flush()
    expect([breaker.needsFlush, (await storage.peek('stripe'))?.failureCount]).toEqual([true, 1])
    await breaker.flush()
    expect([breaker.needsFlush, (await storage.peek('stripe'))?.failureCount]).toEqual([false, 4])
  })

  it('that cannot be measured waits for reading, which is left alone, and asks for nothing meanwhile', async () => {
    const { start, storage, runtime, events } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState', 1)
    storage.inject('fail', 'getState', 1_000)
    storage.inject('fail', 'batchGetState', 1_000)
    await failTimes(breaker, 2)
    await runtime.advance(1_000)
    storage.requests.splice(0)
    for (let second = 0; second < 30; second++) {
      await breaker.flush()
      await runtime.advance(1_000)
    }
    // The first of them is the one that was sent before; then it is read in ever longer pauses.
    expect(requestsOf(storage).filter((operation) => operation === 'compareAndSetState')).toHaveLength(1)
    expect(requestsOf(storage).length).toBeLessThan(20)
    storage.heal()
    await runtime.advance(5_000)
    await breaker.load()
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    expect([breaker.needsFlush, events]).toEqual([false, []])
  })

  it('waits for reading only with what has to be measured: what was sent before goes first', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState', 1)
    storage.inject('fail', 'getState', 2)
    await failTimes(breaker, 2)
    await runtime.settle()
    for (let n = 0; n < 2; n++) await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
    storage.requests.splice(0)
    await breaker.flush()
    expect([requestsOf(storage), breaker.needsFlush]).toEqual([[], true])
    await runtime.advance(1_000)
    await breaker.flush()
    expect([requestsOf(storage), breaker.needsFlush]).toEqual([['getState', 'addOutcomes'], false])
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('that was sent is sent again while reading is left alone: it needs no measuring', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10, cacheTtl: 0 })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'batchGetState', 2)
    for (let n = 0; n < 2; n++) await breaker.load()
    storage.inject('fail', 'compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.settle()
    storage.forget()
    await breaker.flush()
    expect([requestsOf(storage), breaker.needsFlush]).toEqual([['compareAndSetState'], false])
  })

  it('once written is over: what fails after it is reported at once, though reading is left alone', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10, cacheTtl: 0 })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.settle()
    await breaker.flush()
    storage.inject('fail', 'batchGetState', 2)
    for (let n = 0; n < 2; n++) await breaker.load()
    storage.forget()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect([requestsOf(storage), breaker.needsFlush]).toEqual([['addOutcomes'], false])
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('that was never sent waits while reading is left alone, although writing is not', async () => {
    const { start, storage, runtime } = createFleet({
      services: ['paypal', 'stripe'],
      failureThreshold: 10,
      cacheTtl: 0,
    })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState', 2)
    await failTimes(breaker, 1, 'paypal')
    await runtime.settle()
    await breaker.flush()
    await failTimes(breaker, 1)
    await runtime.advance(100)
    storage.inject('fail', 'batchGetState', 2)
    for (let n = 0; n < 2; n++) await breaker.load()
    await runtime.advance(100)
    storage.forget()
    await breaker.flush()
    expect([requestsOf(storage), breaker.needsFlush]).toEqual([['compareAndSetState'], true])
    await runtime.advance(1_000)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
  })

  // The read was asked before the first failure was counted and answered after it: what it says is out of date.
  it('is not measured by a read that was on its way when the store failed', async () => {
    const { start, storage, runtime, events } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    await breaker.load()
    storage.replyLatency = 800
    void breaker.load()
    await failTimes(breaker, 3)
    await runtime.advance(2_000)
    storage.heal()
    storage.replyLatency = 0
    await runtime.advance(5_000)
    await breaker.load()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBeLessThan(3)
    expect(events).toEqual([])
  })
})

describe('what is left over', () => {
  it('from an interrupted invocation is written by the next load', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 10 })
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.settle()
    expect(breaker.needsLoad).toBe(true)
    await breaker.load()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })
})

describe('a damaged record', () => {
  it('leaves the instance alone with this service, is reported, and is not overwritten', async () => {
    const { start, storage, storageErrors } = createFleet({ services: ['stripe', 'paypal'] })
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      throw new CircuitStorageError('damaged', {
        operation: 'batchGetState',
        results: new Map(),
        errors: new Map([['stripe', damage()]]),
      })
    })
    await breaker.load()
    await failTimes(breaker, 3)
    await failTimes(breaker, 3, 'paypal')
    await breaker.flush()
    expect(breaker.circuits).toMatchObject({ stripe: { state: 'OPEN' }, paypal: { state: 'OPEN' } })
    expect(await storage.peek('stripe')).toBeUndefined()
    expect((await storage.peek('paypal'))?.state).toBe('OPEN')
    expect(storageErrors).toHaveLength(1)
  })

  it('of the only service is recognised as well, and adopted when it has been repaired', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      throw damage()
    })
    await breaker.load()
    await failTimes(breaker, 3)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect(storage.writes).toEqual([])
    await runtime.advance(10_000)
    storage.intercept('batchGetState', async () => {
      throw damage()
    })
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await runtime.advance(5_000)
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  // `reply instanceof CircuitStorageError`: the error of an adapter that brings its own copy of the package is taken for
  // a record. `load` rejects, `circuit.loading` stays set for ever, and every later invocation fails in `before`.
  it('is recognised also by an error from another copy of the package', async () => {
    const { start, storage } = createFleet({ services: ['stripe', 'paypal'] })
    const breaker = start()
    const copy = (details: object) =>
      Object.assign(new Error('copy'), { code: 'CIRCUIT_STORAGE', corrupt: false }, details)
    storage.intercept('batchGetState', async () => {
      throw copy({ results: new Map(), errors: new Map([['stripe', copy({ corrupt: true })]]) })
    })
    expect(await outcomeOf(breaker.load())).toEqual({ value: undefined })
    expect(await outcomeOf(breaker.load())).toEqual({ value: undefined })
    expect(await outcomeOf(breaker.call('stripe', ok))).toEqual({ value: 'ok' })
  })
})

describe('an adapter that misbehaves', () => {
  it.each([
    [
      'throws instead of rejecting',
      () => {
        throw new Error('sync')
      },
    ],
    ['returns no promise', () => 7 as never],
    ['resolves with no map', async () => undefined],
  ])('and %s harms no call', async (_what, batchGetState) => {
    const { start, storage } = createFleet()
    Object.assign(storage, { batchGetState })
    const breaker = start()
    expect(await outcomeOf(breaker.load())).toEqual({ value: undefined })
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })
})

describe('without a listener', () => {
  it('a failing store is warned about once a minute per cause', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { storage, runtime } = createFleet()
    const options = { services: ['stripe'], storage, cacheTtl: 0 } as const
    const breaker = new CircuitBreaker(options, { ...runtime, env: {} })
    storage.outage = 'fail'
    for (let elapsed = 0; elapsed < 100_000; elapsed += 10_000) {
      await breaker.load()
      await runtime.advance(10_000)
    }
    expect(warn).toHaveBeenCalledTimes(2)
    warn.mockRestore()
  })
})
