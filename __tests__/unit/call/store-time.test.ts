import { describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker, circuitBreaker } from '../../../src/index.ts'
import { createFleet, type Fleet, never, ok, outcomeOf, trip, unavailable } from '../../support/virtual-fleet.ts'
import { warningsEmitted } from '../../support/warning-texts.ts'

interface Hooks {
  before(request: { context: object }): Promise<void> | undefined
  after(request: { context: object }): Promise<void> | undefined
}

/** A service that answers after 50 ms. */
const serviceOf = ({ runtime }: Fleet) =>
  jest.fn(
    () =>
      new Promise<string>((resolve) => {
        runtime.setTimeout(() => resolve('ok'), 50)
      }),
  )

/** Invokes a function with this timeout so often, one invocation after the other. What each came to. */
async function invoke(fleet: Fleet, breaker: CircuitBreaker, timeout: number, times: number): Promise<string[]> {
  const { runtime } = fleet
  const hooks = circuitBreaker(breaker) as unknown as Hooks
  const service = serviceOf(fleet)
  const results: string[] = []
  for (let invocation = 0; invocation < times; invocation++) {
    const endsAt = runtime.now() + timeout
    const request = { context: { getRemainingTimeInMillis: () => endsAt - runtime.now() } }
    const handled = (async () => {
      await hooks.before(request)
      const { callExternal } = request.context as unknown as { callExternal: CircuitBreaker['call'] }
      const { value, error } = await outcomeOf(callExternal('stripe', service))
      await hooks.after(request)
      return value ?? (error as Error).name
    })()
    let isOver = false
    handled.finally(() => {
      isOver = true
    })
    await runtime.settle()
    while (!isOver && runtime.now() < endsAt) await runtime.advance(1)
    results.push(isOver ? await handled : 'killed')
    await runtime.advance(100)
  }
  return results
}

const timeouts = Array.from({ length: 50 }, (_, index) => 1_100 + 100 * index)

describe('a store that does not answer', () => {
  it.each(timeouts)('leaves calls their time where the function has %p ms', async (timeout) => {
    const fleet = createFleet()
    fleet.storage.outage = 'hang'
    expect(await invoke(fleet, fleet.start(), timeout, 6)).toEqual(Array(6).fill('ok'))
  })

  it('leaves a call the time of its own timeout', async () => {
    const fleet = createFleet({ timeout: 200 })
    fleet.storage.outage = 'hang'
    const call = outcomeOf(fleet.start().call('stripe', serviceOf(fleet)))
    await fleet.runtime.advance(50)
    await fleet.runtime.advance(50)
    expect(await call).toEqual({ value: 'ok' })
  })

  it('delays the first of several calls only', async () => {
    const fleet = createFleet()
    const { runtime } = fleet
    fleet.storage.outage = 'hang'
    const callExternal = fleet.start().callExternalFor({ getRemainingTimeInMillis: () => 1_400 })
    const first = callExternal('stripe', ok)
    await runtime.advance(100)
    expect(await first).toBe('ok')
    const operation = jest.fn(ok)
    void callExternal('stripe', operation)
    expect(operation).toHaveBeenCalledTimes(1)
  })

  it('leaves time for an answer of the circuit to a call that wants to probe', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.outage = 'hang'
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 1_400 })
    const call = outcomeOf(callExternal('stripe', ok))
    await runtime.advance(200)
    expect((await call).error).toMatchObject({ code: 'CIRCUIT_OPEN', reason: 'unclaimed' })
  })
})

describe('a library of the store that is not loaded', () => {
  it.each([1_100, 1_500, 3_000])('leaves calls their time where the function has %p ms', async (timeout) => {
    const fleet = createFleet()
    Object.assign(fleet.storage, { prepare: never })
    expect(await invoke(fleet, fleet.start(), timeout, 6)).toEqual(Array(6).fill('ok'))
  })

  it('is loaded, and the circuit read, behind calls that did not wait for it', async () => {
    const fleet = createFleet()
    await trip(fleet.start())
    fleet.storage.forget()
    const library = Promise.withResolvers<void>()
    Object.assign(fleet.storage, { prepare: () => library.promise })
    const breaker = fleet.start()
    expect(await invoke(fleet, breaker, 3_000, 1)).toEqual(['ok'])
    library.resolve()
    await fleet.runtime.settle()
    expect(fleet.storage.operations).toEqual(['batchGetState'])
    expect(await invoke(fleet, breaker, 3_000, 1)).toEqual(['CircuitOpenError'])
  })

  it('is waited for where there is no deadline, and the store then has its own time', async () => {
    const { start, storage, runtime } = createFleet()
    await trip(start())
    const library = Promise.withResolvers<void>()
    Object.assign(storage, { prepare: () => library.promise })
    const breaker = start()
    const loading = breaker.load()
    await runtime.advance(4_000)
    storage.replyLatency = 400
    library.resolve()
    await runtime.advance(400)
    await loading
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })
})

describe('an invocation in which the settings do not fit together', () => {
  const warned = async (timeout: number, settings: Parameters<typeof createFleet>[0], times = 1): Promise<string[]> => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const fleet = createFleet(settings)
    await invoke(fleet, fleet.start(), timeout, times)
    await warningsEmitted()
    const texts = warn.mock.calls.map(([text]) => String(text))
    warn.mockRestore()
    return texts
  }

  it('is warned of once, with the numbers', async () => {
    expect(await warned(2_332, {}, 3)).toEqual([
      'An invocation had 2332 ms: 1000 reserved (deadlineReserve), and of the rest up to 333 for a store that does not answer ' +
        '(storageTimeout, at most a quarter). That leaves a call of "stripe" less than the 1000 ms it needs before it counts ' +
        'as a failure. Give the function a longer timeout, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT lower.',
    ])
  })

  it.each([
    ['they fit', 2_334, {}],
    ['the store is the memory of the process', 2_331, { storage: 'memory' }],
    ['every service is off', 2_330, { mode: 'off' }],
  ] as const)('is not warned of where %s', async (_, timeout, settings) => {
    expect(await warned(timeout, settings)).toEqual([])
  })
})

describe('the library of the store', () => {
  const making = (env: Record<string, string>, options: object = {}) => {
    const { storage, runtime } = createFleet()
    const prepare = jest.fn(async () => {})
    Object.assign(storage, { prepare })
    const breaker = new CircuitBreaker({ services: ['stripe'], storage, ...options }, { ...runtime, env })
    return { storage, prepare, runtime, breaker }
  }
  const inLambda = { AWS_LAMBDA_FUNCTION_NAME: 'tested' }

  it('is loaded in Lambda as soon as the breaker is made, without a request', async () => {
    const { prepare, storage, runtime } = making(inLambda)
    await runtime.settle()
    expect(prepare).toHaveBeenCalledTimes(1)
    expect(storage.requests).toEqual([])
  })

  it.each([
    ['outside Lambda', {}, {}],
    ['where preload is false', inLambda, { preload: false }],
    ['where the environment says so', { ...inLambda, CIRCUIT_BREAKER_PRELOAD: 'false' }, {}],
    ['where every service is off', inLambda, { mode: 'off' }],
  ])('is left to the first operation %s', async (_, env, options) => {
    const { prepare, runtime, breaker } = making(env, options)
    await runtime.settle()
    expect(prepare).not.toHaveBeenCalled()
    await breaker.load()
    expect(prepare).toHaveBeenCalledTimes(1)
  })

  it('that cannot be loaded is no unhandled rejection, and is told of when it is first needed', async () => {
    const unhandled = jest.fn()
    process.on('unhandledRejection', unhandled)
    const { storage, runtime } = createFleet()
    const failure = new Error('no such module')
    Object.assign(storage, { prepare: () => Promise.reject(failure), batchGetState: () => Promise.reject(failure) })
    const errors: unknown[] = []
    const onStorageError = ({ error }: { error: Error }) => errors.push(error.cause)
    const breaker = new CircuitBreaker({ services: ['stripe'], storage, onStorageError }, { ...runtime, env: inLambda })
    await new Promise(setImmediate)
    expect(errors).toEqual([])
    await breaker.load()
    expect(errors).toEqual([failure])
    await new Promise(setImmediate)
    process.off('unhandledRejection', unhandled)
    expect(unhandled).not.toHaveBeenCalled()
    expect((await outcomeOf(breaker.call('stripe', unavailable))).error).toMatchObject({ message: '503' })
  })
})
