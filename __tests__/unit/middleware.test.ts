import { describe, expect, it, jest } from '@jest/globals'
import middy from '@middy/core'
import httpErrorHandler from '@middy/http-error-handler'
import defaultExport, {
  CircuitBreaker,
  type CircuitBreakerContext,
  circuitBreaker,
  circuitBreakerValidateOptions,
  isConfigurationError,
  isUnknownServiceError,
  MemoryCircuitStorage,
} from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  failTimes,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'

type Hook = (request: { context: object }) => Promise<void> | undefined

/** The hooks of the middleware, to be called without Middy. */
function hooksOf(breaker: CircuitBreaker): { before: Hook; after: Hook; onError: Hook } {
  return circuitBreaker(breaker) as unknown as { before: Hook; after: Hook; onError: Hook }
}

describe('circuitBreaker', () => {
  it('is the default export, too', () => {
    expect(defaultExport).toBe(circuitBreaker)
  })

  it('refuses wrong options when it is called, all at once', () => {
    let error: unknown
    try {
      circuitBreaker({ services: ['stripe', 'stripe'], failureThreshold: 0, cacheTtl: -1 })
    } catch (thrown) {
      error = thrown
    }
    expect(isConfigurationError(error)).toBe(true)
    expect((error as Error).message).toMatch(/stripe.*failureThreshold.*cacheTtl/s)
  })

  it('has its options checked without making anything', () => {
    const options = { services: ['stripe'], storage: 'memory', keyBy: 'tenantId' } as const
    expect(circuitBreakerValidateOptions(options)).toBe(options)
    expect(() => circuitBreakerValidateOptions({ services: [], cacheTtl: -1 })).toThrow(/services.*cacheTtl/s)
    expect(() => circuitBreakerValidateOptions({ services: ['stripe'], keyBy: 1 })).toThrow(/keyBy must be a function/)
  })

  it('awaits nothing and reads nothing when it is created', () => {
    const { storage } = createFleet()
    circuitBreaker({ services: ['stripe'], storage })
    expect(storage.requests).toEqual([])
  })

  it('names its hooks, as hooks of Middy report them', () => {
    const hooks = hooksOf(createFleet().start())
    expect([hooks.before.name, hooks.after.name, hooks.onError.name]).toEqual([
      'circuitBreakerBefore',
      'circuitBreakerAfter',
      expect.stringMatching(/^circuitBreaker/),
    ])
  })

  it('gives the handler callExternal and circuits, and leaves the result and the rest of the context alone', async () => {
    const result = { statusCode: 200 }
    const context = createTestContext()
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .handler(async (_event, { callExternal, circuits, awsRequestId }) => {
        expect(circuits.stripe.state).toBe('CLOSED')
        expect(awsRequestId).toBe(context.awsRequestId)
        expect(await callExternal('stripe', ok)).toBe('ok')
        return result
      })
    expect(await handler({}, context as never)).toBe(result)
  })

  it('loads before the handler starts, so that a cold instance knows of a dead service', async () => {
    const { start } = createFleet()
    await trip(start())
    const handler = middy()
      .use(circuitBreaker(start()))
      .handler(async (_event, { circuits }) => circuits['stripe']?.state)
    expect(await handler({}, createTestContext())).toBe('OPEN')
  })

  it('recovers through a handler that only branches on OPEN', async () => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    await trip(start())
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { circuits, callExternal }) =>
        circuits['stripe']?.state === 'OPEN' ? 'later' : callExternal('stripe', ok),
      )
    expect(await handler({}, {} as never)).toBe('later')
    await runtime.advance(10_000)
    expect(await handler({}, {} as never)).toBe('ok')
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
  })

  it('lets @middy/http-error-handler answer a refusal with 503 and Retry-After, and a timeout with 504', async () => {
    const { start } = createFleet()
    await trip(start())
    const breaker = start()
    const answerTo = (context: object) =>
      middy()
        .use(httpErrorHandler({ logger: false } as never))
        .use(circuitBreaker(breaker))
        .handler(async (_event, { callExternal }) => callExternal('stripe', ok))({}, context as never)
    expect(await answerTo({})).toMatchObject({ statusCode: 503, headers: { 'Retry-After': '10' } })
    expect(await answerTo({ getRemainingTimeInMillis: () => 900 })).toMatchObject({ statusCode: 504 })
  })

  it('binds calls to the deadline and the request id of the invocation', async () => {
    const { start, events, runtime } = createFleet({ failureThreshold: 1 })
    const handler = middy()
      .use(circuitBreaker(start()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', () => new Promise(() => {})))
    const context = { awsRequestId: 'request-9', getRemainingTimeInMillis: () => 3_000 }
    const invocation = outcomeOf(handler({}, context as never))
    await runtime.advance(2_000)
    expect((await invocation).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', reason: 'deadline' })
    expect(events).toEqual([expect.objectContaining({ requestId: 'request-9', to: 'OPEN' })])
  })

  it('takes listeners as options', async () => {
    const { storage } = createFleet()
    const [onStateChange, onStorageError] = [jest.fn(), jest.fn()]
    const options = { services: ['stripe'], storage, failureThreshold: 1, onStateChange, onStorageError }
    const handler = middy()
      .use(circuitBreaker(options))
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable))
    storage.inject('fail', 'batchGetState')
    await outcomeOf(handler({}, createTestContext()))
    expect(onStorageError).toHaveBeenCalledTimes(1)
    expect(onStateChange).toHaveBeenCalledTimes(1)
  })
})

describe('the hooks', () => {
  it('are synchronous when there is nothing to do: before and after return undefined, not a promise', async () => {
    const breaker = createFleet().start()
    const hooks = hooksOf(breaker)
    const request = { context: {} as CircuitBreakerContext }
    await hooks.before(request)
    await request.context.callExternal('stripe', ok)
    expect(hooks.before(request)).toBeUndefined()
    expect(hooks.after(request)).toBeUndefined()
    expect(hooks.onError(request)).toBeUndefined()
  })

  it('resolve to undefined when there is something to do', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const hooks = hooksOf(breaker)
    const request = { context: {} }
    const loading = hooks.before(request)
    expect(loading).toBeInstanceOf(Promise)
    expect(await loading).toBeUndefined()
    const held = storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    const flushing = hooks.after(request)
    expect(flushing).toBeInstanceOf(Promise)
    held.release()
    expect(await flushing).toBeUndefined()
  })

  it('send nothing at all in 1 000 invocations within cacheTtl', async () => {
    const { start, storage } = createFleet()
    const handler = middy()
      .use(circuitBreaker(start()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', ok))
    await handler({}, createTestContext())
    storage.forget()
    for (let index = 0; index < 1_000; index++) await handler({}, createTestContext())
    expect(storage.requests).toEqual([])
  })

  it.each(['after', 'onError'] as const)('%s waits until what happened is stored', async (hook) => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.requestLatency = 100
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => {
        for (let index = 0; index < 3; index++) {
          const { error } = await outcomeOf(callExternal('stripe', unavailable))
          if (hook === 'onError' && index === 2) throw error
        }
        return 'done'
      })
    const invocation = outcomeOf(handler({}, {} as never))
    await runtime.advance(400)
    await invocation
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })

  it.each([
    [3_000, 500],
    [400, 300],
    [150, 50],
    [90, 0],
  ])('with %d ms left wait for a store that hangs no longer than %d ms', async (left, wait) => {
    const { start, storage, runtime } = createFleet({ deadlineReserve: 0 })
    const breaker = start()
    const hooks = hooksOf(breaker)
    const request = { context: { getRemainingTimeInMillis: () => left } }
    await hooks.before(request)
    storage.outage = 'hang'
    await failTimes(breaker, 1)
    const started = runtime.now()
    let ended: number | undefined
    void hooks.after(request)?.then(() => {
      ended = runtime.now()
    })
    await runtime.advance(1_000)
    expect(ended === undefined ? undefined : ended - started).toBe(wait)
  })

  it('onError works although before never ran', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await breaker.load()
    const hooks = hooksOf(breaker)
    expect(hooks.onError({ context: {} })).toBeUndefined()
    await failTimes(breaker, 1)
    await hooks.onError({ context: {} })
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('survive that a middleware before them fails', async () => {
    const broken = {
      before: () => {
        throw new Error('first')
      },
    }
    const handler = middy()
      .use(broken)
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .handler(async () => 1)
    expect((await outcomeOf(handler({}, createTestContext()))).error).toMatchObject({ message: 'first' })
  })

  it('onError flushes although only the before of another breaker ran', async () => {
    const { start, storage } = createFleet({ services: ['paypal'] })
    const breaker = start()
    await breaker.load()
    const context = {}
    await hooksOf(createFleet().start()).before({ context })
    await outcomeOf(breaker.call('paypal', unavailable))

    await hooksOf(breaker).onError({ context })

    expect((await storage.peek('paypal'))?.failureCount).toBe(1)
  })

  it('survive that another middleware answers early: what was left over is written by the next invocation', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    let isEarly = true
    const early = {
      before: async () => {
        if (!isEarly) return undefined
        await failTimes(breaker, 1)
        return 'early'
      },
    }
    const handler = middy()
      .use(circuitBreaker(breaker))
      .use(early)
      .handler(async () => 'late')
    storage.inject('fail', 'compareAndSetState')
    expect(await handler({}, createTestContext())).toBe('early')
    isEarly = false
    expect(await handler({}, createTestContext())).toBe('late')
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it("flush through Middy's own requestEnd where after is not the end", async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const handler = middy({ requestEnd: () => breaker.flush() })
      .use(circuitBreaker(breaker))
      .use({ onError: () => 'handled' })
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable))
    await outcomeOf(handler({}, createTestContext()))
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('keep concurrent invocations apart', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const ended: string[] = []
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal, awsRequestId }) => {
        const { error } = await outcomeOf(callExternal('stripe', () => new Promise(() => {})))
        ended.push(awsRequestId)
        return error
      })
    const invocations = [5_000, 3_000, 4_000].map((left) =>
      handler({}, { awsRequestId: `${left}`, getRemainingTimeInMillis: () => left } as never),
    )
    await runtime.advance(4_000)
    for (const error of await Promise.all(invocations)) expect(error).toMatchObject({ reason: 'deadline' })
    expect(ended).toEqual(['3000', '4000', '5000'])
  })

  it('may meet the same context object in many invocations, which does not grow', async () => {
    const breaker = createFleet().start()
    const context = createTestContext()
    const handler = middy()
      .use(circuitBreaker(breaker))
      .use(circuitBreaker({ services: ['paypal'], storage: 'memory' }))
      .handler(async (_event, { callExternal, circuits }) => {
        await callExternal('stripe', ok)
        await callExternal('paypal', ok)
        return Object.keys(circuits).sort().join()
      })
    await handler({}, context as never)
    const keys = Object.keys(context)
    for (let index = 0; index < 100; index++) expect(await handler({}, context as never)).toBe('paypal,stripe')
    expect(Object.keys(context)).toEqual(keys)
    const { callExternal } = context as unknown as { callExternal: Record<symbol, readonly unknown[]> }
    const kept = Object.getOwnPropertySymbols(callExternal).map((symbol) => callExternal[symbol]?.length)
    expect(kept).toEqual([2])
  })

  it('end each its own invocation where two breakers share a context', async () => {
    const fleets = [createFleet(), createFleet({ services: ['paypal'] })]
    const [first, second] = fleets.map(({ start }) => start())
    const handler = middy()
      .use(circuitBreaker(first as CircuitBreaker))
      .use(circuitBreaker(second as CircuitBreaker))
      .handler(async (_event, { callExternal }) => [await callExternal('stripe', ok), await callExternal('paypal', ok)])
    expect(await handler({}, createTestContext() as never)).toEqual(['ok', 'ok'])
    for (const { runtime } of fleets) {
      expect(runtime.delays.length).toBeGreaterThan(0)
      expect(runtime.pendingTimers).toEqual([])
    }
  })

  it('end the timer of the invocation', async () => {
    const { start, runtime } = createFleet()
    const handler = middy()
      .use(circuitBreaker(start()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', ok))
    for (let index = 0; index < 5; index++) {
      await handler({}, { getRemainingTimeInMillis: () => 9_000 } as never)
      expect(runtime.pendingTimers).toEqual([])
    }
  })

  it('leave a call that nobody awaits to the deadline', async () => {
    const { start, runtime } = createFleet()
    let forgotten: Promise<unknown> | undefined
    const handler = middy()
      .use(circuitBreaker(start()))
      .handler(async (_event, { callExternal }) => {
        forgotten = outcomeOf(callExternal('stripe', () => new Promise(() => {})))
        return 'done'
      })
    expect(await handler({}, { getRemainingTimeInMillis: () => 9_000 } as never)).toBe('done')
    await runtime.advance(8_000)
    expect(await forgotten).toMatchObject({ error: { reason: 'deadline' } })
    expect(runtime.pendingTimers).toEqual([])
  })
})

describe('two breakers on one handler', () => {
  it('merge: the services of both work', async () => {
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .use(circuitBreaker({ services: ['paypal'], storage: 'memory' }))
      .handler(async (_event, { callExternal, circuits }) => [
        await callExternal('stripe', ok),
        await callExternal('paypal', ok),
        circuits.stripe.service,
        circuits.paypal.service,
        Object.getPrototypeOf(circuits),
      ])
    expect(await handler({}, createTestContext())).toEqual(['ok', 'ok', 'stripe', 'paypal', null])
  })

  it('reject a service of neither, naming the services of both', async () => {
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .use(circuitBreaker({ services: ['paypal'], storage: 'memory' }))
      .handler(async (_event, { callExternal }) => callExternal('adyen' as 'paypal', ok))
    const { error } = await outcomeOf(handler({}, createTestContext()))
    expect(isUnknownServiceError(error)).toBe(true)
    expect((error as Error).message).toMatch(/"stripe".*"paypal"/)
  })

  it('with the same key: the later one counts', async () => {
    const storage = new MemoryCircuitStorage()
    const earlier = new CircuitBreaker({ services: ['stripe'], storage, failureThreshold: 9 }, { env: {} })
    const later = new CircuitBreaker({ services: ['stripe'], storage: 'memory', failureThreshold: 1 }, { env: {} })
    const handler = middy()
      .use(circuitBreaker(earlier))
      .use(circuitBreaker(later))
      .handler(async (_event, { callExternal, circuits }) => {
        await outcomeOf(callExternal('stripe', unavailable))
        return circuits.stripe.state
      })
    expect(await handler({}, createTestContext())).toBe('OPEN')
    expect(earlier.circuits.stripe.failureCount).toBe(0)
  })

  it('with the same key, and the first of them once more at the end: the first counts', async () => {
    const first = new CircuitBreaker({ services: ['stripe'], storage: 'memory', failureThreshold: 1 }, { env: {} })
    const second = new CircuitBreaker({ services: ['stripe'], storage: 'memory', failureThreshold: 9 }, { env: {} })
    const handler = middy()
      .use(circuitBreaker(first))
      .use(circuitBreaker(second))
      .use(circuitBreaker(first))
      .handler(async (_event, { callExternal, circuits }) => {
        await outcomeOf(callExternal('stripe', unavailable))
        return circuits.stripe.state
      })
    expect(await handler({}, createTestContext())).toBe('OPEN')
    expect(second.circuits.stripe.failureCount).toBe(0)
  })

  it('keep a service named __proto__', async () => {
    const handler = middy()
      .use(circuitBreaker({ services: ['__proto__'], storage: 'memory' }))
      .use(circuitBreaker({ services: ['constructor'], storage: 'memory' }))
      .handler(async (_event, { callExternal, circuits }) => {
        await callExternal('__proto__', ok)
        await callExternal('constructor', ok)
        return Object.keys(circuits)
      })
    expect(await handler({}, createTestContext())).toEqual(['__proto__', 'constructor'])
  })

  it('both store what happened', async () => {
    const [one, other] = [createFleet(), createFleet({ services: ['paypal'] })]
    const handler = middy()
      .use(circuitBreaker(one.start()))
      .use(circuitBreaker(other.start()))
      .handler(async (_event, { callExternal }) => {
        for (const service of ['stripe', 'paypal']) await outcomeOf(callExternal(service, unavailable))
        throw new BadRequest('400')
      })
    await outcomeOf(handler({}, createTestContext()))
    expect((await one.storage.peek('stripe'))?.failureCount).toBe(1)
    expect((await other.storage.peek('paypal'))?.failureCount).toBe(1)
  })

  it('may be the same breaker twice', async () => {
    const breaker = createFleet().start()
    const handler = middy()
      .use(circuitBreaker(breaker))
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => callExternal('stripe', ok))
    expect(await handler({}, createTestContext())).toBe('ok')
  })
})

describe('a handler declared apart', () => {
  it('gets the same context', async () => {
    const charge = async (_event: unknown, { callExternal, circuits }: CircuitBreakerContext<'stripe'>) =>
      `${await callExternal('stripe', ok)} ${circuits.stripe.state}`
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .handler(charge)
    expect(await handler({}, createTestContext())).toBe('ok CLOSED')
  })

  it('may share the breaker with code outside', async () => {
    const breaker = createFleet().start()
    const probe = controlled()
    const outside = breaker.call('stripe', probe.operation)
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { circuits }) => circuits === breaker.circuits)
    expect(await handler({}, createTestContext())).toBe(true)
    probe.succeed('ok')
    await outside
  })
})

describe('another copy of the package', () => {
  async function anotherCopy(): Promise<typeof import('../../src/index.ts')> {
    jest.resetModules()
    const copy = await import('../../src/index.ts')
    expect(copy.CircuitBreaker).not.toBe(CircuitBreaker)
    return copy
  }

  it('may have made the breaker and its store', async () => {
    const copy = await anotherCopy()
    const storage = new copy.MemoryCircuitStorage()
    const breaker = new copy.CircuitBreaker({ services: ['stripe'], storage, cacheTtl: 0 })
    const load = jest.spyOn(breaker, 'load')
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal, circuits }) => {
        expect(circuits.stripe.state).toBe('CLOSED')
        return callExternal('stripe', ok)
      })
    expect(await handler({}, createTestContext())).toBe('ok')
    expect(load).toHaveBeenCalledTimes(1)
    expect(await new CircuitBreaker({ services: ['stripe'], storage }).call('stripe', ok)).toBe('ok')
  })

  it('merges with this one on one handler', async () => {
    const copy = await anotherCopy()
    const handler = middy()
      .use(copy.circuitBreaker({ services: ['stripe'], storage: new copy.MemoryCircuitStorage() }))
      .use(circuitBreaker({ services: ['paypal'], storage: new MemoryCircuitStorage() }))
      .handler(async (_event, { callExternal }) => [await callExternal('stripe', ok), await callExternal('paypal', ok)])
    expect(await handler({}, createTestContext())).toEqual(['ok', 'ok'])
  })
})
