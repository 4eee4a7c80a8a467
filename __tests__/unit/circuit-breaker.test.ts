import { describe, expect, it, jest } from '@jest/globals'
import {
  CircuitBreaker,
  type CircuitOpenError,
  isBreakableError,
  isConfigurationError,
  isUnknownServiceError,
  MemoryCircuitStorage,
  type Outcome,
  type StateChange,
} from '../../src/index.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { createFakeRuntime, epochStart } from '../support/fake-runtime.ts'
import {
  BadRequest,
  createFleet,
  failTimes,
  isSettled,
  observedBy,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'
import { warningsEmitted } from '../support/warning-texts.ts'

describe('a call', () => {
  it('resolves with what the operation returns, be it a promise or not', async () => {
    const breaker = createFleet().start()
    const result = { id: 7 }
    expect(await breaker.call('stripe', () => result)).toBe(result)
    expect(await breaker.call('stripe', async () => result)).toBe(result)
  })

  it('accepts any thenable from the operation', async () => {
    const breaker = createFleet().start()
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    const thenable = { then: (resolve: (value: string) => void) => resolve('done') } as unknown as PromiseLike<string>
    expect(await breaker.call('stripe', () => thenable)).toBe('done')
    expect(await breaker.call('stripe', () => thenable, { timeout: 1_000 })).toBe('done')
  })

  it.each([
    ['breakable', Object.assign(new Error('503'), { status: 503 })],
    ['not breakable', new BadRequest('400')],
    ['no error at all', 'just a string'],
    ['undefined', undefined],
  ])('rejects with the very object that the operation threw: %s', async (_kind, thrown) => {
    const breaker = createFleet().start()
    const fail = async () => {
      throw thrown
    }
    expect((await outcomeOf(breaker.call('stripe', fail))).error).toBe(thrown)
    expect((await outcomeOf(breaker.call('stripe', fail, { timeout: 1_000 }))).error).toBe(thrown)
  })

  it('treats what an operation throws before it returns a promise in the same way', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    const error = Object.assign(new Error('503'), { status: 503 })
    const call = breaker.call('stripe', () => {
      throw error
    })
    expect((await outcomeOf(call)).error).toBe(error)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('rejects, and does not throw, for a service that is not configured', async () => {
    const breaker = createFleet().start()
    const call = breaker.call('paypal', ok)
    expect((await outcomeOf(call)).error).toMatchObject({ code: 'CIRCUIT_UNKNOWN_SERVICE', service: 'paypal' })
  })

  it.each(['toString', 'hasOwnProperty', '__proto__', 'constructor'])(
    'does not take %s for a configured service',
    async (service) => {
      const { error } = await outcomeOf(createFleet().start().call(service, ok))
      expect(isUnknownServiceError(error)).toBe(true)
    },
  )

  it('loads what was never loaded before the first operation starts', async () => {
    const { start, storage } = createFleet()
    await trip(start())
    const cold = start()
    const operation = jest.fn(ok)
    const { error } = await outcomeOf(cold.call('stripe', operation))
    expect(error).toMatchObject({ code: 'CIRCUIT_OPEN', reason: 'open' })
    expect(operation).not.toHaveBeenCalled()
    expect(storage.reads).toHaveLength(2)
  })

  it('reads once for many calls that all find nothing loaded', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await Promise.all(Array.from({ length: 9 }, () => breaker.call('stripe', ok)))
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it('waits for a load that another call has begun', async () => {
    const { start } = createFleet()
    await trip(start())
    const cold = start()
    const operation = jest.fn(ok)
    await Promise.all([1, 2, 3].map(() => outcomeOf(cold.call('stripe', operation))))
    expect(operation).not.toHaveBeenCalled()
  })

  it('refreshes a stale cache in the background and does not wait for it', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    await runtime.advance(5_001)
    const held = storage.holdRequest('batchGetState')
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await held.arrived
    await breaker.call('stripe', ok)
    expect(storage.reads).toHaveLength(2)
    held.release()
  })

  it('is refused with how long to wait, when and why it opened, and headers for HTTP', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(start())
    await breaker.load()
    await runtime.advance(2_500)
    const error = (await outcomeOf(breaker.call('stripe', ok))).error as CircuitOpenError
    expect(error).toMatchObject({
      name: 'CircuitOpenError',
      code: 'CIRCUIT_OPEN',
      service: 'stripe',
      reason: 'open',
      retryAfter: 7_500,
      openedAt: epochStart,
      lastFailure: { at: epochStart, name: 'ServiceUnavailable', status: 503 },
      statusCode: 503,
      expose: true,
      headers: { 'Retry-After': '8' },
    })
  })

  it.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '1000', 2 ** 31])(
    'rejects a timeout of %p as a configuration error, and counts nothing',
    async (timeout) => {
      const { start, storage } = createFleet({ failureThreshold: 1 })
      const breaker = start()
      const operation = jest.fn(ok)
      const { error } = await outcomeOf(breaker.call('stripe', operation, { timeout: timeout as number }))
      expect(isConfigurationError(error)).toBe(true)
      expect(operation).not.toHaveBeenCalled()
      expect(storage.writes).toEqual([])
    },
  )

  it('takes options that are undefined for absent ones', async () => {
    const breaker = createFleet({ timeout: 50 }).start()
    const options = {
      timeout: undefined,
      signal: undefined,
      fallback: undefined,
      isBreakableError: undefined,
      isBreakableResult: undefined,
    }
    expect(await breaker.call('stripe', ok, options)).toBe('ok')
  })
})

describe('the four ways to call', () => {
  it('execute counts every error that is thrown', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    const error = new BadRequest('400')
    expect((await outcomeOf(breaker.execute('stripe', () => Promise.reject(error)))).error).toBe(error)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('execute keeps its promise although the options say otherwise, and takes the others', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    const call = breaker.execute('stripe', () => Promise.reject(new BadRequest('400')), {
      isBreakableError: () => false,
      fallback: () => 'instead',
    })
    expect(await call).toBe('instead')
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('executeWithErrorClassification counts breakable errors only', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    await outcomeOf(breaker.executeWithErrorClassification('stripe', () => Promise.reject(new BadRequest('400'))))
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await outcomeOf(breaker.executeWithErrorClassification('stripe', unavailable))
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('executeWithTimeout adds the timeout', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const call = outcomeOf(breaker.executeWithTimeout('stripe', () => new Promise(() => {}), 30))
    await runtime.advance(30)
    expect((await call).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', timeout: 30 })
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('isBreakableError answers by the settings of the service, without one by the default', () => {
    const breaker = new CircuitBreaker(
      { services: { stripe: { isBreakableError: () => true }, paypal: {} }, storage: 'memory' },
      { env: {} },
    )
    const error = new BadRequest('400')
    expect(breaker.isBreakableError(error)).toBe(false)
    expect(breaker.isBreakableError(error, 'paypal')).toBe(false)
    expect(breaker.isBreakableError(error, 'stripe')).toBe(true)
    expect(() => breaker.isBreakableError(error, 'other' as 'stripe')).toThrow(
      expect.objectContaining({ code: 'CIRCUIT_UNKNOWN_SERVICE' }),
    )
  })

  it('isBreakableError is true or false whatever the classifier says', () => {
    const answer = jest.fn<() => Outcome>()
    const services = { stripe: { isBreakableError: answer } }
    const breaker = new CircuitBreaker({ services, storage: 'memory' }, { env: {} })
    const answers = (['failure', 'success', 'ignore'] as const).map((outcome) => {
      answer.mockReturnValueOnce(outcome)
      return breaker.isBreakableError(new Error('x'), 'stripe')
    })
    expect(answers).toEqual([true, false, false])
  })

  it.each(['batchGetState', 'batchSetState', 'batchClearState'])('offers %s', (method) => {
    expect(createFleet().start()).toHaveProperty(method, expect.any(Function))
  })
})

describe('classification', () => {
  it('lets a call override the service and the service override the default', async () => {
    const { start } = createFleet({ failureThreshold: 1 })
    const breaker = start({ isBreakableError: () => false })
    await outcomeOf(breaker.call('stripe', unavailable))
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await outcomeOf(breaker.call('stripe', unavailable, { isBreakableError }))
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('counts a result that says so, and still returns it', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    const response = new Response('busy', { status: 503 })
    expect(await breaker.call('stripe', async () => response)).toBe(response)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect(breaker.circuits.stripe?.lastFailure).toMatchObject({ name: 'BreakableResult', status: 503 })
  })

  it('hands the result to the classifier of the call', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    await breaker.call('stripe', async () => ({ busy: true }), { isBreakableResult: (result) => result.busy })
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })
})

describe('the snapshots', () => {
  it('have no prototype, so that __proto__ and constructor are services like any other', async () => {
    const services = ['__proto__', 'constructor', 'toString'] as const
    const breaker = new CircuitBreaker({ services, storage: 'memory', failureThreshold: 1 }, { env: {} })
    expect(Object.getPrototypeOf(breaker.circuits)).toBeNull()
    expect(Object.keys(breaker.circuits)).toEqual(services)
    for (const service of services) {
      expect(breaker.circuits[service].state).toBe('CLOSED')
      await outcomeOf(breaker.call(service, unavailable))
      expect(breaker.circuits[service].state).toBe('OPEN')
      expect(breaker.snapshot(service).service).toBe(service)
    }
  })

  it('keeps the settings of a service named __proto__', async () => {
    const services = JSON.parse('{"__proto__": {"failureThreshold": 1}, "constructor": {}}')
    const breaker = new CircuitBreaker<string>({ services, storage: 'memory' }, { env: {} })
    await outcomeOf(breaker.call('__proto__', unavailable))
    await outcomeOf(breaker.call('constructor', unavailable))
    expect(breaker.snapshot('__proto__').state).toBe('OPEN')
    expect(breaker.snapshot('constructor').state).toBe('CLOSED')
  })

  it('are live, read-only and can be written as JSON', async () => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    const snapshot = breaker.snapshot('stripe')
    await trip(breaker)
    expect(snapshot).toBe(breaker.circuits.stripe)
    expect(Object.isFrozen(snapshot) && Object.isFrozen(breaker.circuits)).toBe(true)
    expect(() => Object.assign(snapshot, { state: 'CLOSED' })).toThrow(TypeError)
    expect(() => Object.assign(breaker.circuits, { other: snapshot })).toThrow(TypeError)
    expect(JSON.parse(JSON.stringify(breaker.snapshot()))).toEqual({
      stripe: {
        service: 'stripe',
        mode: 'enforce',
        state: 'OPEN',
        scope: 'fleet',
        failureCount: 3,
        successCount: 0,
        openedAt: runtime.now(),
        retryAt: runtime.now() + 10_000,
        lastFailureAt: runtime.now(),
        lastFailure: { at: runtime.now(), name: 'ServiceUnavailable', status: 503 },
        generation: 1,
        epoch: (await storage.peek('stripe'))?.epoch,
        queued: 0,
      },
    })
  })

  it('read HALF_OPEN from retryAt on, so that a handler that only asks for OPEN lets the probe through', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(start())
    await breaker.load()
    await runtime.advance(9_999)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(1)
    expect(breaker.circuits.stripe?.state).toBe('HALF_OPEN')
    if (breaker.circuits.stripe?.state !== 'OPEN') await breaker.call('stripe', ok)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('show the failures in a row until the window has passed', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.failureCount).toBe(1)
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    await runtime.advance(60_001)
    expect(breaker.circuits.stripe?.failureCount).toBe(0)
  })

  it('are empty again after the circuit has closed, and trip and recovery repeat for ever', async () => {
    const { start, runtime, storage } = createFleet({ resetBackoff: 1 })
    const breaker = start()
    for (let round = 1; round <= 5; round++) {
      await trip(breaker)
      expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', generation: 3 * round - 2 })
      await runtime.advance(11_000)
      await breaker.call('stripe', ok)
      await breaker.flush()
      expect(breaker.circuits.stripe).toMatchObject({
        state: 'CLOSED',
        failureCount: 0,
        successCount: 0,
        openedAt: undefined,
        retryAt: undefined,
        generation: 3 * round,
      })
    }
    expect((await storage.peek('stripe'))?.transitions).toHaveLength(8)
  })

  it('show no retryAt that is further ahead than maxResetTimeout', async () => {
    const { start, runtime } = createFleet()
    await trip(start({ resetTimeout: 3_600_000, maxResetTimeout: 3_600_000 }))
    const breaker = start()
    await breaker.load()
    expect(breaker.circuits.stripe?.retryAt).toBe(runtime.now() + 300_000)
  })
})

describe('why a circuit opened', () => {
  it('is told by the event, with the function, the request, the evidence and the time of the next try', async () => {
    const { storage, runtime } = createFleet()
    const events: StateChange[] = []
    const breaker = new CircuitBreaker(
      { services: ['stripe'], storage, onStateChange: (change) => events.push(change) },
      { ...runtime, env: { AWS_LAMBDA_FUNCTION_NAME: 'checkout' } },
    )
    await breaker.load()
    for (const awsRequestId of ['first', 'second', 'third']) {
      await outcomeOf(breaker.callExternalFor({ awsRequestId })('stripe', unavailable))
    }
    await breaker.flush()
    await runtime.advance(11_000)
    await breaker.callExternalFor({ awsRequestId: 'probe' })('stripe', ok)
    await breaker.flush()
    const lastFailure = { at: epochStart, name: 'ServiceUnavailable', status: 503 }
    const common = { service: 'stripe', functionName: 'checkout', observed: false, lastFailure }
    expect(events).toEqual([
      {
        ...common,
        ...{
          from: 'CLOSED',
          to: 'OPEN',
          generation: 1,
          at: epochStart,
          reason: 'failure-threshold',
          requestId: 'third',
        },
        evidence: { failures: 3, successes: 0, reporters: 1 },
        retryAt: epochStart + 10_000,
      },
      expect.objectContaining({ ...common, to: 'HALF_OPEN', requestId: 'probe', evidence: undefined }),
      expect.objectContaining({ ...common, to: 'CLOSED', evidence: undefined, retryAt: undefined }),
    ])
  })

  it('is this instance alone where the others contradict: it says so once, and refuses by itself', async () => {
    const { start, storage, runtime, events } = createFleet({ cacheTtl: 0 })
    const [bad, well] = [start(), start()]
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), version: 'v', othersAt: runtime.now() })
    const observed = observedBy(bad)
    await bad.load()
    await failTimes(bad, 3)
    await bad.flush()
    expect(bad.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'instance', retryAt: runtime.now() + 10_000 })
    expect((await outcomeOf(bad.call('stripe', ok))).error).toMatchObject({
      reason: 'open',
      lastFailure: { name: 'ServiceUnavailable', status: 503 },
    })
    await well.load()
    for (let call = 0; call < 6; call++) await well.call('stripe', ok)
    await well.flush()
    for (let round = 0; round < 3; round++) {
      await runtime.advance(100)
      await bad.load()
    }
    expect(observed).toMatchObject([{ to: 'OPEN', reason: 'instance-unhealthy', observed: true, evidence: undefined }])
    expect(events).toEqual([])
    expect(well.circuits.stripe).toMatchObject({ state: 'CLOSED', scope: 'fleet' })

    await runtime.advance(10_000)
    expect(bad.circuits.stripe).toMatchObject({ state: 'HALF_OPEN', scope: 'instance' })
    expect(await bad.call('stripe', ok)).toBe('ok')
    expect(bad.circuits.stripe).toMatchObject({ state: 'CLOSED', scope: 'fleet' })
  })
})

describe('the healthy path', () => {
  it('sends nothing at all in 1 000 invocations within cacheTtl, and writes never', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.forget()
    for (let index = 0; index < 1_000; index++) {
      expect(breaker.needsLoad).toBe(false)
      await breaker.call('stripe', ok)
      expect(breaker.needsFlush).toBe(false)
      await runtime.advance(3)
    }
    expect(storage.requests).toEqual([])
  })

  it('reads at most once per cacheTtl, and all services in one batch', async () => {
    const { start, storage, runtime } = createFleet({ services: ['stripe', 'paypal', 'adyen'] })
    const breaker = start()
    for (let elapsed = 0; elapsed < 60_000; elapsed += 100) {
      await breaker.load()
      await breaker.call('stripe', ok)
      await runtime.advance(100)
    }
    expect(storage.writes).toEqual([])
    expect(storage.reads.every(({ args }) => (args[0] as string[]).length === 3)).toBe(true)
    // A ttl is at least 0.8 of 5 s.
    expect(storage.reads.length).toBeLessThanOrEqual(15)
    expect(storage.reads.length).toBeGreaterThanOrEqual(12)
  })

  it.each([
    [0, 4_000],
    [0.999_999, 5_000],
  ])('jitters the time to live: with a draw of %d it ends after %d ms', async (draw, ttl) => {
    const { start, runtime } = createFleet({}, { random: () => draw })
    const breaker = start()
    await breaker.load()
    await runtime.advance(ttl - 1)
    expect(breaker.needsLoad).toBe(false)
    await runtime.advance(1)
    expect(breaker.needsLoad).toBe(true)
  })

  it('reads in every invocation with a cacheTtl of 0, but not again within a short one', async () => {
    const { start, storage } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    for (let index = 0; index < 3; index++) {
      expect(breaker.needsLoad).toBe(true)
      await breaker.load()
      const call = breaker.callExternalFor({})
      await call('stripe', ok)
      await call('stripe', ok)
    }
    expect(storage.operations).toEqual(['batchGetState', 'batchGetState', 'batchGetState'])
  })

  it('reads again within a long invocation with a cacheTtl of 0', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    await breaker.load()
    const call = breaker.callExternalFor({})
    await runtime.advance(1_001)
    await call('stripe', ok)
    await runtime.settle()
    expect(storage.reads).toHaveLength(2)
  })

  it('reads again after the clock has stepped back', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    runtime.setClock(runtime.now() - 3_600_000)
    expect(breaker.needsLoad).toBe(true)
  })

  it('creates no AbortController for an operation that does not read the signal', async () => {
    const breaker = createFleet().start()
    await breaker.load()
    const original = globalThis.AbortController
    let created = 0
    globalThis.AbortController = class extends original {
      constructor() {
        super()
        created++
      }
    }
    try {
      await breaker.call('stripe', ok)
      await breaker.call('stripe', ok, { timeout: 1_000 })
      expect(created).toBe(0)
      await breaker.call('stripe', async ({ signal }) => signal.aborted)
      expect(created).toBe(1)
    } finally {
      globalThis.AbortController = original
    }
  })
})

describe('the surroundings', () => {
  it('default to the machine, also one by one', async () => {
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: 'memory', failureThreshold: 1 }, { env: {} })
    const before = Date.now()
    await outcomeOf(breaker.call('stripe', unavailable, { timeout: 1_000 }))
    await breaker.flush()
    expect(breaker.circuits.stripe.openedAt).toBeGreaterThanOrEqual(before)
  })

  it('take the environment of the process where none is given', () => {
    process.env['CIRCUIT_BREAKER_MODE'] = 'observe'
    try {
      expect(new CircuitBreaker({ services: ['stripe'] }).circuits.stripe.mode).toBe('observe')
    } finally {
      delete process.env['CIRCUIT_BREAKER_MODE']
    }
  })

  // `{ ...systemRuntime, ...surroundings }` copies own properties only: methods of a class fall silently back to the
  // machine's clock, although the type allows them.
  it('may be an instance of a class', async () => {
    class Clock {
      now(): number {
        return 5_000_000
      }
    }
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: 'memory', failureThreshold: 1 }, new Clock())
    await outcomeOf(breaker.call('stripe', unavailable))
    expect(breaker.circuits.stripe.openedAt).toBe(5_000_000)
  })

  it('warn about a variable that names nothing known once, however many breakers are made', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const env = { CIRCUIT_BREAKER_FAILURE_TRESHOLD: '5' }
    const make = () => new CircuitBreaker({ services: ['stripe'], storage: 'memory' }, { env })
    make()
    make()
    await warningsEmitted()
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(/CIRCUIT_BREAKER_FAILURE_TRESHOLD .*CIRCUIT_BREAKER_FAILURE_THRESHOLD\?/),
        { type: 'CircuitBreakerWarning', code: 'CIRCUIT_CONFIGURATION' },
      ],
    ])
    warn.mockRestore()
  })

  it('let it read at once with prefetch, and the first invocation waits for what is on its way', async () => {
    const { start, storage, runtime } = createFleet()
    await trip(start())
    storage.forget()
    const reply = storage.holdReply('batchGetState')
    const breaker = start({ prefetch: true })
    await reply.arrived
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    const loading = breaker.load()
    expect(await isSettled(loading, runtime)).toBe(false)
    reply.release()
    await loading
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect(storage.operations).toEqual(['batchGetState'])
    expect(breaker.needsLoad).toBe(false)
  })

  it('survive a store that fails at the prefetch: the first invocation reads again', async () => {
    const { start, storage, runtime, storageErrors } = createFleet()
    storage.inject('fail')
    const breaker = start({ prefetch: true })
    await runtime.settle()
    expect(storageErrors).toHaveLength(1)
    await breaker.load()
    expect(storage.operations).toEqual(['batchGetState', 'batchGetState'])
  })

  it('prefetch nothing where every service is off', async () => {
    const { start, storage, runtime } = createFleet()
    start({ prefetch: true, mode: 'off' })
    await runtime.settle()
    expect(storage.requests).toEqual([])
    expect(runtime.delays).toEqual([])
  })

  it('keep the circuits of two namespaces apart in one store', async () => {
    const { start } = createFleet()
    await trip(start({ namespace: 'eu' }))
    const other = start({ namespace: 'us' })
    await other.load()
    expect(other.circuits.stripe?.state).toBe('CLOSED')
  })

  it('make a store for each breaker where memory is chosen by name, and share an instance that is given', async () => {
    const runtime = createFakeRuntime()
    const make = (storage: 'memory' | MemoryCircuitStorage) =>
      new CircuitBreaker({ services: ['stripe'], storage, failureThreshold: 1 }, { ...runtime, env: {} })
    const shared = new MemoryCircuitStorage()
    for (const [storage, state] of [
      ['memory', 'CLOSED'],
      [shared, 'OPEN'],
    ] as const) {
      const [one, other] = [make(storage), make(storage)]
      await outcomeOf(one.call('stripe', unavailable))
      await one.flush()
      await other.load()
      expect(other.circuits.stripe.state).toBe(state)
    }
  })
})
