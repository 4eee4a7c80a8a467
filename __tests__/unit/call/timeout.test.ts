import { describe, expect, it, jest } from '@jest/globals'
import type { CircuitTimeoutError } from '../../../src/index.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  isSettled,
  never,
  ok,
  outcomeOf,
  ServiceUnavailable,
  unavailable,
} from '../../support/virtual-fleet.ts'
import { warningsEmitted } from '../../support/warning-texts.ts'

/** Runs a test's part and tells which rejections nobody handled meanwhile. */
async function unhandledDuring(run: () => Promise<void>): Promise<unknown[]> {
  const unhandled: unknown[] = []
  const note = (reason: unknown) => void unhandled.push(reason)
  process.on('unhandledRejection', note)
  await run()
  // Node reports them when the microtasks are done.
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  process.off('unhandledRejection', note)
  return unhandled
}

describe('a timeout', () => {
  it('of another call lets on one that waited, unless the deadline of that one is due as well', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, deadlineReserve: 0 })
    const breaker = start()
    await breaker.load()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 200 })
    const operation = jest.fn(never)
    const first = outcomeOf(breaker.call('stripe', never, { timeout: 200 }))
    const second = outcomeOf(callExternal('stripe', operation, { timeout: 5_000 }))
    await runtime.advance(200)
    expect((await first).error).toMatchObject({ reason: 'timeout', attempted: true })
    expect((await second).error).toMatchObject({ reason: 'deadline', attempted: false })
    expect(operation).not.toHaveBeenCalled()
  })

  it.each(['timeout', 'deadline'] as const)(
    'that is over for a call which waited for a permit keeps its operation from starting: %s',
    async (reason) => {
      const { start, runtime } = createFleet({ maxConcurrent: 1, failureThreshold: 9, deadlineReserve: 0 })
      const breaker = start()
      await breaker.load()
      const operation = jest.fn(never)
      const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 200 })
      const options = reason === 'timeout' ? { timeout: 200 } : {}
      const call = reason === 'timeout' ? breaker.call.bind(breaker) : callExternal
      const results = [1, 2, 3, 4].map(() => outcomeOf(call('stripe', operation, options)))
      await runtime.advance(200)
      const errors = (await Promise.all(results)).map(({ error }) => error as CircuitTimeoutError)
      expect(errors.map(({ attempted }) => attempted)).toEqual([true, false, false, false])
      expect(errors.map((error) => error.reason)).toEqual([reason, reason, reason, reason])
      expect(operation).toHaveBeenCalledTimes(1)
      const next = breaker.call('stripe', ok)
      expect(await isSettled(next, runtime)).toBe(true)
    },
  )

  it('rejects although the operation ignores it, and aborts its signal with the same error', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const call = controlled()
    const result = outcomeOf(breaker.call('stripe', call.operation, { timeout: 250 }))
    await runtime.advance(249)
    expect(call.signal?.aborted).toBe(false)
    await runtime.advance(1)
    const error = (await result).error as CircuitTimeoutError
    expect(error).toMatchObject({
      name: 'CircuitTimeoutError',
      code: 'CIRCUIT_TIMEOUT',
      service: 'stripe',
      reason: 'timeout',
      timeout: 250,
      attempted: true,
      statusCode: 504,
      expose: true,
    })
    expect(call.signal?.reason).toBe(error)
  })

  it('counts as a failure', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1, timeout: 100 })
    const breaker = start()
    const call = outcomeOf(breaker.call('stripe', never))
    await runtime.advance(100)
    await call
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', lastFailure: { code: 'CIRCUIT_TIMEOUT' } })
  })

  it('counts as a failure whatever the classifier says, for the operation had its time', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1, isBreakableError: () => false })
    const breaker = start()
    const call = outcomeOf(breaker.call('stripe', never, { timeout: 100 }))
    await runtime.advance(100)
    await call
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('is switched off for one call with false', async () => {
    const { start, runtime } = createFleet({ timeout: 100 })
    const breaker = start()
    await breaker.load()
    const call = breaker.call('stripe', never, { timeout: false })
    // It is warned of after a minute, and not cut.
    expect(runtime.pendingTimers).toEqual([60_000])
    await runtime.advance(1_000)
    expect(await isSettled(call, runtime)).toBe(false)
  })

  it.each([
    ['resolves', (call: ReturnType<typeof controlled>) => call.succeed('late')],
    ['rejects', (call: ReturnType<typeof controlled>) => call.fail()],
  ])('swallows what comes when the abandoned operation %s at last', async (_how, end) => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    const unhandled = await unhandledDuring(async () => {
      const call = controlled()
      const result = outcomeOf(breaker.call('stripe', call.operation, { timeout: 10 }))
      await runtime.advance(10)
      await result
      await breaker.flush()
      storage.forget()
      end(call)
      await runtime.settle()
    })
    expect(unhandled).toEqual([])
    expect(storage.requests).toEqual([])
    expect(breaker.circuits.stripe?.failureCount).toBe(1)
  })

  it('gives the permit back at once', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, timeout: 100 })
    const breaker = start()
    const first = outcomeOf(breaker.call('stripe', never))
    await runtime.advance(100)
    await first
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('leaves no timer behind, however the call ends', async () => {
    const { start, runtime } = createFleet({ timeout: 100 })
    const breaker = start()
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 5_000 })
    await invoke('stripe', ok)
    await outcomeOf(invoke('stripe', () => Promise.reject(new BadRequest('400'))))
    const cancelled = AbortSignal.abort(new Error('no'))
    await outcomeOf(invoke('stripe', ok, { signal: cancelled }))
    await breaker.forceOpen('stripe')
    await outcomeOf(invoke('stripe', ok))
    // What remains is the invocation's own.
    expect(runtime.pendingTimers).toEqual([4_000])
  })
})

describe("the caller's signal", () => {
  it('that aborts in any of the turns in which a permit arrives lets no operation begin after it', async () => {
    const begun: boolean[] = []
    for (let turns = 0; turns < 12; turns++) {
      const { start } = createFleet({ maxConcurrent: 1 })
      const breaker = start()
      await breaker.load()
      const before = controlled()
      const first = breaker.call('stripe', before.operation)
      const controller = new AbortController()
      const hadAborted: boolean[] = []
      const waiting = breaker.call(
        'stripe',
        () => {
          hadAborted.push(controller.signal.aborted)
          return never()
        },
        { signal: controller.signal },
      )
      const result = outcomeOf(waiting)
      before.succeed('ok')
      for (let turn = 0; turn < turns; turn++) await undefined
      controller.abort(new Error('no longer'))
      expect((await result).error).toMatchObject({ message: 'no longer' })
      expect(hadAborted).not.toContain(true)
      begun.push(hadAborted.length > 0)
      await first
      expect(await breaker.call('stripe', ok)).toBe('ok')
    }
    // The turns reach from before the permit to after the beginning.
    expect([begun.at(0), begun.at(-1)]).toEqual([false, true])
  })

  it('cancels the call with its own reason, and counts for nothing', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const [call, controller, reason] = [controlled(), new AbortController(), new Error('the user left')]
    const result = outcomeOf(breaker.call('stripe', call.operation, { signal: controller.signal }))
    await runtime.settle()
    controller.abort(reason)
    expect((await result).error).toBe(reason)
    expect(call.signal?.reason).toBe(reason)
    expect(breaker.circuits.stripe?.failureCount).toBe(0)
  })

  it('that is aborted already keeps the operation from starting', async () => {
    const breaker = createFleet().start()
    const operation = jest.fn(ok)
    const reason = new Error('too late')
    const result = await outcomeOf(breaker.call('stripe', operation, { signal: AbortSignal.abort(reason) }))
    expect(result.error).toBe(reason)
    expect(operation).not.toHaveBeenCalled()
  })

  it('counts for nothing also in execute, which counts every error', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    const controller = new AbortController()
    const result = outcomeOf(breaker.execute('stripe', never, { signal: controller.signal }))
    await runtime.settle()
    controller.abort()
    expect((await result).error).toMatchObject({ name: 'AbortError' })
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('counts as a failure if its reason is a timeout', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    const controller = new AbortController()
    const result = outcomeOf(breaker.call('stripe', never, { signal: controller.signal }))
    await runtime.settle()
    controller.abort(new DOMException('5 s are over', 'TimeoutError'))
    await result
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('that aborts when the deadline is due, as Middy does early, counts as the deadline', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 4_000 })
    const controller = new AbortController()
    const result = outcomeOf(invoke('stripe', never, { signal: controller.signal }))
    await runtime.advance(2_960)
    controller.abort()
    await result
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('gets no listener that outlives the call', async () => {
    const breaker = createFleet().start()
    const { signal } = new AbortController()
    const add = jest.spyOn(signal, 'addEventListener')
    const remove = jest.spyOn(signal, 'removeEventListener')
    for (let index = 0; index < 20; index++) await breaker.call('stripe', ok, { signal })
    await outcomeOf(breaker.call('stripe', unavailable, { signal }))
    expect(add).toHaveBeenCalledTimes(21)
    expect(remove).toHaveBeenCalledTimes(21)
    await breaker.forceOpen('stripe')
    await outcomeOf(breaker.call('stripe', ok, { signal }))
    expect(add).toHaveBeenCalledTimes(21)
  })

  it('that cancels while the first load is under way does not start the operation', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const held = storage.holdRequest('batchGetState')
    const [controller, operation] = [new AbortController(), jest.fn(ok)]
    const result = outcomeOf(breaker.call('stripe', operation, { signal: controller.signal }))
    await held.arrived
    controller.abort(new Error('enough'))
    expect((await result).error).toMatchObject({ message: 'enough' })
    held.release()
    expect(operation).not.toHaveBeenCalled()
  })

  it('that cancels a probe gives the lease back', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await outcomeOf(breaker.call('stripe', () => Promise.reject(new ServiceUnavailable('503'))))
    await breaker.flush()
    await runtime.advance(11_000)
    const controller = new AbortController()
    const probe = outcomeOf(breaker.call('stripe', never, { signal: controller.signal }))
    await runtime.settle()
    controller.abort()
    await probe
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'HALF_OPEN', leases: [], successCount: 0 })
  })
})

describe('the deadline of the invocation', () => {
  it('cuts a call deadlineReserve before Lambda would kill it', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 3_000 })
    const call = controlled()
    const result = outcomeOf(invoke('stripe', call.operation, { timeout: 60_000 }))
    await runtime.advance(1_999)
    expect(await isSettled(result, runtime)).toBe(false)
    await runtime.advance(1)
    expect((await result).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', reason: 'deadline', timeout: 2_000 })
    expect(call.signal?.aborted).toBe(true)
  })

  it('counts as a failure if the operation had a second, or half of its timeout', async () => {
    const cut = async (remaining: number, timeout: number | false) => {
      const { start, runtime } = createFleet({ failureThreshold: 1 })
      const breaker = start()
      await breaker.load()
      const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
      const result = outcomeOf(invoke('stripe', never, { timeout }))
      await runtime.advance(remaining)
      await result
      return breaker.circuits.stripe?.state
    }
    expect(await cut(2_000, false)).toBe('OPEN')
    expect(await cut(1_999, false)).toBe('CLOSED')
    expect(await cut(4_000, 6_000)).toBe('OPEN')
    expect(await cut(3_999, 6_000)).toBe('CLOSED')
    expect(await cut(1_500, 400)).toBe('OPEN')
  })

  it('that has passed keeps the operation from starting, and counts for nothing', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    await breaker.load()
    const operation = jest.fn(ok)
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 1_000 })
    const { error } = await outcomeOf(invoke('stripe', operation))
    expect(error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', reason: 'deadline', attempted: false })
    expect(operation).not.toHaveBeenCalled()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('that comes before half of the timeout even in a fresh invocation is warned of, once', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, runtime } = createFleet({ deadlineReserve: 900, timeout: 4_200 })
    const breaker = start()
    await breaker.load()
    const cut = async (remaining: number, workedBefore: number): Promise<void> => {
      const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
      await runtime.advance(workedBefore)
      const result = outcomeOf(invoke('stripe', never))
      await runtime.advance(remaining)
      expect((await result).error).toMatchObject({ reason: 'deadline' })
    }
    // There was time enough; the handler has spent it before.
    await cut(3_000, 500)
    await warningsEmitted()
    expect(warn).not.toHaveBeenCalled()
    for (const remaining of [2_999, 2_000]) await cut(remaining, 0)
    await warningsEmitted()
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(/"stripe".*900 reserved \(deadlineReserve\) plus the 2100.*CIRCUIT_BREAKER_TIMEOUT/),
        { type: 'CircuitBreakerWarning', code: 'CIRCUIT_CONFIGURATION' },
      ],
    ])
    warn.mockRestore()
  })

  it('that is nearer than deadlineReserve from the start is warned of, once', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = createFleet({ deadlineReserve: 987 }).start()
    for (const remaining of [987, 600]) {
      const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
      expect((await outcomeOf(invoke('stripe', ok))).error).toMatchObject({ reason: 'deadline', attempted: false })
    }
    await warningsEmitted()
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(/deadlineReserve reserves 987 ms.*CIRCUIT_BREAKER_DEADLINE_RESERVE/),
        { type: 'CircuitBreakerWarning', code: 'CIRCUIT_CONFIGURATION' },
      ],
    ])
    warn.mockRestore()
  })

  it('that comes near in the course of an invocation is no reason for a warning', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, runtime } = createFleet({ deadlineReserve: 986 })
    const invoke = start().callExternalFor({ getRemainingTimeInMillis: () => 987 })
    await runtime.advance(1)
    expect((await outcomeOf(invoke('stripe', ok))).error).toMatchObject({ reason: 'deadline', attempted: false })
    await warningsEmitted()
    expect(warn).not.toHaveBeenCalled()
    warn.mockRestore()
  })

  it('needs one timer for all calls of the invocation', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const before = runtime.delays.length
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 10_000 })
    for (let index = 0; index < 20; index++) await invoke('stripe', ok)
    await Promise.all(Array.from({ length: 20 }, () => invoke('stripe', ok)))
    expect(runtime.delays.slice(before)).toEqual([9_000])
    const timed = invoke('stripe', ok, { timeout: 500 })
    expect(runtime.delays.slice(before)).toEqual([9_000, 500])
    await timed
  })

  it('cuts all calls that are under way', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => 3_000 })
    const calls = Array.from({ length: 12 }, () => outcomeOf(invoke('stripe', never)))
    await runtime.advance(2_000)
    for (const { error } of await Promise.all(calls)) expect(error).toMatchObject({ reason: 'deadline' })
  })

  it.each([
    ['no function', {}],
    ['one that answers NaN', { getRemainingTimeInMillis: () => Number.NaN }],
    ['one that answers text', { getRemainingTimeInMillis: () => '3000' as unknown as number }],
  ])('is unknown with %s: nothing is cut', async (_what, context) => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    expect(
      await isSettled(
        breaker.callExternalFor(context)('stripe', () => runtime.sleep(40_000)),
        runtime,
      ),
    ).toBe(false)
    // It is warned of after a minute.
    expect(runtime.pendingTimers).toEqual([40_000, 60_000])
  })

  it("is found in the context of Middy's durable functions", async () => {
    const breaker = createFleet().start()
    const invoke = breaker.callExternalFor({ lambdaContext: { getRemainingTimeInMillis: () => 500 } })
    expect((await outcomeOf(invoke('stripe', ok))).error).toMatchObject({ reason: 'deadline' })
  })

  // Node's timers fire after 1 ms when they are given more than 2^31 - 1. Emulators and tests do say such numbers.
  it('may be further away than a timer can wait', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    const invoke = breaker.callExternalFor({ getRemainingTimeInMillis: () => Number.MAX_SAFE_INTEGER })
    await invoke('stripe', ok)
    expect(Math.max(...runtime.delays)).toBeLessThan(2 ** 31)
  })
})
