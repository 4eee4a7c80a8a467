import { describe, expect, it, jest } from '@jest/globals'
import fc from 'fast-check'
import { isCall } from '../../../src/call/call-options.ts'
import { refuseCall } from '../../../src/call/wrong-call.ts'
import type { CallOptions, ConfigurationError } from '../../../src/index.ts'
import { createFleet, failTimes, isSettled, ok, outcomeOf, unavailable } from '../../support/virtual-fleet.ts'

/** As a JavaScript user calls it. */
const options = (given: unknown): CallOptions<string, string> => given as CallOptions<string, string>

describe('options of a call that are wrong', () => {
  it.each([
    ['signal', new AbortController(), 'signal must be an AbortSignal, but is an object (call of "stripe")'],
    ['signal', 'abort', 'signal must be an AbortSignal, but is "abort" (call of "stripe")'],
    ['fallback', 'later', 'fallback must be a function, but is "later" (call of "stripe")'],
    [
      'timeout',
      0,
      'timeout must be a whole number of milliseconds from 1 to 2147483647, or false, but is 0 (call of "stripe")',
    ],
    ['timeout', '3s', 'or false, but is "3s" (call of "stripe")'],
    ['isBreakableError', 503, 'isBreakableError must be a function, but is 503 (call of "stripe")'],
    ['isBreakableResult', /5../, 'isBreakableResult must be a function, but is an object (call of "stripe")'],
    ['fallbak', ok, 'fallbak is not an option of a call; did you mean fallback? (call of "stripe")'],
    ['constructor', undefined, 'constructor is not an option of a call; there are timeout, signal, fallback, '],
  ])('reject the call, name %s and cost no permit', async (name, value, message) => {
    const breaker = createFleet({ maxConcurrent: 1 }).start()
    await breaker.load()
    const operation = jest.fn(ok)
    for (let call = 0; call < 3; call++) {
      const { error } = await outcomeOf(breaker.call('stripe', operation, options({ [name]: value })))
      expect(error).toMatchObject({ code: 'CIRCUIT_CONFIGURATION' })
      expect((error as Error).message).toContain(message)
    }
    expect(operation).not.toHaveBeenCalled()
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('are all named at once, also where the circuit is open', async () => {
    const breaker = createFleet().start()
    await breaker.forceOpen('stripe')
    const { error } = await outcomeOf(breaker.call('stripe', ok, options({ signal: {}, fallback: 1, timeout: -1 })))
    expect((error as Error).message).toMatch(/signal must.*fallback must.*timeout must/s)
  })

  it.each([null, {}, { signal: null, fallback: null, timeout: null }])('are none where they are %j', async (given) => {
    const breaker = createFleet().start()
    await breaker.load()
    expect(await breaker.call('stripe', ok, options(given))).toBe('ok')
    const { error } = await outcomeOf(breaker.call('stripe', unavailable, options(given)))
    expect(error).toMatchObject({ message: '503' })
  })
})

describe('a call that is none', () => {
  const problemOf = async (call: Promise<unknown>): Promise<unknown> => {
    const { error } = await outcomeOf(call)
    expect(error).toMatchObject({ code: 'CIRCUIT_CONFIGURATION', service: 'stripe' })
    return (error as ConfigurationError).problems[0]?.message
  }

  it.each<[string, unknown, string]>([
    ['undefined', undefined, 'is missing'],
    ['a value', 7, 'is 7'],
    ['a promise', Promise.resolve('ok'), 'is a promise: its work began before the circuit was asked'],
  ])('because its operation is %s, is refused and counts for nothing', async (_what, operation, words) => {
    const breaker = createFleet({ maxConcurrent: 1, failureThreshold: 1, isBreakableError: () => true }).start()
    await breaker.load()
    for (const options of [undefined, { timeout: 100 }, { fallback: ok }]) {
      expect(await problemOf(breaker.call('stripe', operation as never, options))).toBe(
        `operation must be a function that does the work, ({ signal }) => …, but ${words} (call of "stripe")`,
      )
    }
    expect(await problemOf(breaker.execute('stripe', operation as never))).toContain('operation must be a function')
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits['stripe']).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it.each([2_000, 'fast', ok])('because its options are %p, is refused, by every way to call', async (given) => {
    const breaker = createFleet().start()
    const message = expect.stringMatching(/^options must be an object such as \{ timeout: 2000 \}, but is .*"stripe"/)
    expect(await problemOf(breaker.call('stripe', ok, given as never))).toEqual(message)
    expect(await problemOf(breaker.execute('stripe', ok, given as never))).toEqual(message)
    expect(await problemOf(breaker.executeWithErrorClassification('stripe', ok, given as never))).toEqual(message)
    expect(await problemOf(breaker.executeWithTimeout('stripe', ok, 5, given as never))).toEqual(message)
  })

  it('because the time of executeWithTimeout is missing, is refused', async () => {
    const breaker = createFleet().start()
    expect(await problemOf(breaker.executeWithTimeout('stripe', ok, undefined as never))).toContain('timeout must be')
  })

  it('is refused exactly where something can be said against it', () => {
    const value = fc.oneof(
      fc.constantFrom(undefined, null, ok, false, new AbortController().signal, {}, 'x'),
      fc.integer({ min: -1, max: 2 ** 31 }),
    )
    const names = ['timeout', 'signal', 'fallback', 'isBreakableError', 'isBreakableResult', 'key', 'other']
    const given = fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 3 })
    fc.assert(
      fc.property(value, fc.oneof(given, value), fc.boolean(), (operation, callOptions, isKeyed) => {
        const isRight = isCall(operation, callOptions ?? {}, isKeyed)
        let error: unknown
        try {
          refuseCall({ service: 'stripe', key: isKeyed ? 'acme' : undefined }, operation, callOptions ?? {})
        } catch (thrown) {
          error = thrown
        }
        expect((error as ConfigurationError).problems.length === 0).toBe(isRight)
      }),
    )
  })
})

describe('what users bring along', () => {
  const unspeakable = Object.create(null)

  it.each([{}, { timeout: 100 }])('may be a classifier that throws what is no text: with %j', async (limits) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const isBreakable = (): boolean => {
      throw unspeakable
    }
    const breaker = createFleet({
      maxConcurrent: 1,
      isBreakableResult: isBreakable,
      isBreakableError: isBreakable,
    }).start()
    await breaker.load()
    const error = new Error('own')
    expect(await breaker.call('stripe', ok, limits)).toBe('ok')
    expect(await outcomeOf(breaker.call('stripe', () => Promise.reject(error), limits))).toEqual({ error })
    expect(await breaker.call('stripe', ok, limits)).toBe('ok')
    warn.mockRestore()
  })

  it.each([{}, { timeout: 100 }])('may be a promise with a then of its own: with %j', async (limits) => {
    const breaker = createFleet({ maxConcurrent: 1 }).start()
    await breaker.load()
    const promise = Object.assign(Promise.resolve('ok'), {
      // biome-ignore lint/suspicious/noThenProperty: that is what is tested
      then: () => {
        throw new Error('own then')
      },
    }) as unknown as Promise<string>
    expect(await breaker.call('stripe', () => promise, limits)).toBe('ok')
    expect(await breaker.call('stripe', ok, limits)).toBe('ok')
  })
})

describe('a call that is cut in the turn in which what it waited for comes', () => {
  it('does not start its operation: the first of two wins, and the other is called off', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const stop = new AbortController()
    const sent: string[] = []
    const send = (id: string) =>
      breaker.call(
        'stripe',
        async () => {
          sent.push(id)
          return id
        },
        { signal: stop.signal },
      )
    const both = [send('one'), send('two')]
    const second = outcomeOf(both[1] as Promise<string>)
    expect(await Promise.any(both)).toBe('one')
    stop.abort(new Error('enough'))
    expect((await second).error).toMatchObject({ message: 'enough' })
    await runtime.settle()
    expect(sent).toEqual(['one'])
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it.each(Array.from({ length: 16 }, (_, ticks) => ticks))(
    'gives the lease of its probe back, %d turns after it was granted or before',
    async (ticks) => {
      const { start, storage, runtime } = createFleet({ failureThreshold: 1, maxConcurrent: 1 })
      const breaker = start()
      await breaker.load()
      await failTimes(breaker, 1)
      await breaker.flush()
      await runtime.advance(11_000)
      const stop = new AbortController()
      let hasStarted = false
      let wasAborted = false
      const probe = outcomeOf(
        breaker.call(
          'stripe',
          async () => {
            hasStarted = true
            expect(wasAborted).toBe(false)
            return 'ok'
          },
          { signal: stop.signal },
        ),
      )
      const claimed = storage.holdReply('compareAndSetState')
      await claimed.arrived
      claimed.release()
      for (let tick = 0; tick < ticks; tick++) await undefined
      wasAborted = true
      stop.abort(new Error('enough'))
      const { error } = await probe
      await runtime.settle()
      await breaker.flush()
      if (!hasStarted) expect(error).toMatchObject({ message: 'enough' })
      expect((await storage.peek('stripe'))?.leases).toEqual([])
      expect(await breaker.call('stripe', ok)).toBe('ok')
    },
  )
})

describe('an adapter that does not get ready', () => {
  it('holds an invocation up no longer than a quarter of what its reserve leaves', async () => {
    const { start, storage, runtime } = createFleet({ deadlineReserve: 600 })
    Object.assign(storage, { prepare: () => new Promise<void>(() => {}) })
    const loading = start().load(1_000)
    await runtime.advance(99)
    expect(await isSettled(loading, runtime)).toBe(false)
    await runtime.advance(1)
    expect(await isSettled(loading, runtime)).toBe(true)
  })

  it('is not asked again at each invocation while the store is left alone', async () => {
    const { start, storage, runtime } = createFleet()
    let asked = 0
    Object.assign(storage, {
      prepare: async () => {
        asked++
        throw new Error('no library')
      },
    })
    storage.outage = 'fail'
    const breaker = start()
    for (let invocation = 0; invocation < 20; invocation++) {
      await breaker.load(30_000)
      await runtime.advance(10)
    }
    expect(asked).toBeLessThan(8)
  })
})
