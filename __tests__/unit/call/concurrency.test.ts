import { describe, expect, it, jest } from '@jest/globals'
import fc from 'fast-check'
import {
  BadRequest,
  controlled,
  createFleet,
  failTimes,
  isSettled,
  ok,
  outcomeOf,
  ServiceUnavailable,
} from '../../support/virtual-fleet.ts'

describe('the concurrency limit', () => {
  it('lets 10 calls run at once, and the rest wait their turn in the order they came', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const started: number[] = []
    const calls = Array.from({ length: 13 }, (_, index) => {
      const call = controlled()
      const operation = (context: { signal: AbortSignal }) => {
        started.push(index)
        return call.operation(context)
      }
      return { ...call, succeed: call.succeed, result: breaker.call('stripe', operation) }
    })
    await runtime.settle()
    expect(started).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    for (const index of [7, 2, 10]) {
      calls[index]?.succeed('ok')
      await runtime.settle()
    }
    expect(started.slice(10)).toEqual([10, 11, 12])
    for (const call of calls) call.succeed('ok')
    await Promise.all(calls.map(({ result }) => result))
  })

  it('lets nobody who comes later overtake those who wait', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const order: string[] = []
    const note = (name: string) => async () => void order.push(name)
    const running = breaker.call('stripe', first.operation)
    const waiting = breaker.call('stripe', note('waiting'))
    await runtime.settle()
    const late = running.then(() => breaker.call('stripe', note('late')))
    first.succeed('ok')
    await Promise.all([waiting, late])
    expect(order).toEqual(['waiting', 'late'])
  })

  it('turns away whoever finds the queue full, and counts that for nothing', async () => {
    const { start, runtime, storage } = createFleet({ maxConcurrent: 1, maxQueue: 1, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    const waiting = breaker.call('stripe', ok)
    await runtime.settle()
    const operation = jest.fn(ok)
    const { error } = await outcomeOf(breaker.call('stripe', operation))
    expect(error).toMatchObject({
      name: 'ConcurrencyLimitError',
      code: 'CIRCUIT_CONCURRENCY_LIMIT',
      message: 'Too many calls to stripe: 1 in flight (maxConcurrent) and 1 waiting (maxQueue).',
      statusCode: 503,
      expose: true,
    })
    expect(operation).not.toHaveBeenCalled()
    first.succeed('ok')
    expect(await Promise.all([running, waiting])).toEqual(['ok', 'ok'])
    expect(storage.writes).toEqual([])
  })

  it('says how long a call waited, and for which setting, in the error of a call that is cut', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const call = () => outcomeOf(breaker.call('stripe', () => runtime.sleep(300), { timeout: 1_000 }))
    const calls = Array.from({ length: 50 }, call)
    await runtime.advance(1_000)
    const errors = (await Promise.all(calls)).flatMap(({ error }) => (error as Error | undefined) ?? [])
    const texts = new Set(errors.map(({ message }) => message))
    expect(errors).toHaveLength(20)
    expect([...texts]).toEqual([
      'The call to stripe did not finish within 1000 ms; it waited 900 ms for one of 10 permits (maxConcurrent).',
      'The call to stripe was not started: 1000 ms passed before it could be; it waited 1000 ms for one of 10 permits (maxConcurrent).',
    ])
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0, queued: 40 })
  })

  it('counts the wait toward the timeout, and not against the service', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    const operation = jest.fn(ok)
    const waiting = outcomeOf(breaker.call('stripe', operation, { timeout: 200 }))
    await runtime.advance(200)
    expect((await waiting).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', attempted: false })
    first.succeed('ok')
    await running
    expect(operation).not.toHaveBeenCalled()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('gives a call that had to wait only what is left of its timeout', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    const second = outcomeOf(breaker.call('stripe', () => new Promise(() => {}), { timeout: 200 }))
    await runtime.advance(150)
    first.succeed('ok')
    await running
    await runtime.advance(49)
    expect(await isSettled(second, runtime)).toBe(false)
    await runtime.advance(1)
    expect((await second).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', timeout: 200, attempted: true })
  })

  it('refuses those who wait at once when the circuit opens', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = outcomeOf(breaker.call('stripe', first.operation))
    const operation = jest.fn(ok)
    const waiting = [1, 2, 3].map(() => outcomeOf(breaker.call('stripe', operation)))
    await runtime.settle()
    first.fail()
    await running
    for (const { error } of await Promise.all(waiting))
      expect(error).toMatchObject({ code: 'CIRCUIT_OPEN', reason: 'open' })
    expect(operation).not.toHaveBeenCalled()
  })

  it('refuses those who wait at once when it learns that the circuit is open, though nothing has ended here', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const [breaker, other] = [start(), start()]
    await breaker.load()
    const first = controlled()
    const running = outcomeOf(breaker.call('stripe', first.operation))
    const waiting = outcomeOf(breaker.call('stripe', ok))
    await runtime.settle()
    await other.forceOpen('stripe')
    await runtime.advance(5_000)
    await breaker.load()
    expect((await waiting).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    first.succeed('ok')
    await running
  })

  // `#setView` sends the queue away only where the new state is OPEN. Learned as HALF_OPEN, because a prober of another
  // instance was faster than `cacheTtl`, those who wait stay until a call here ends, and are refused then.
  it('refuses those who wait at once when it learns that the circuit is being probed elsewhere', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, resetTimeout: 1_000 })
    const [breaker, other] = [start(), start()]
    await Promise.all([breaker.load(), other.load()])
    const [first, probe] = [controlled(), controlled()]
    const running = outcomeOf(breaker.call('stripe', first.operation))
    const waiting = outcomeOf(breaker.call('stripe', ok))
    await failTimes(other, 3)
    await runtime.advance(1_100)
    const probing = other.call('stripe', probe.operation)
    await runtime.advance(4_000)
    expect(probe.started).toBe(1)
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('HALF_OPEN')
    const isRefused = await isSettled(waiting, runtime)
    first.succeed('ok')
    probe.succeed('ok')
    await Promise.all([running, probing])
    expect(isRefused).toBe(true)
  })

  it('lets a caller that aborts leave the queue, and keeps no listener on its signal', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const [first, controller, reason] = [controlled(), new AbortController(), new Error('enough')]
    const remove = jest.spyOn(controller.signal, 'removeEventListener')
    const add = jest.spyOn(controller.signal, 'addEventListener')
    const running = breaker.call('stripe', first.operation)
    const operation = jest.fn(ok)
    const waiting = outcomeOf(breaker.call('stripe', operation, { signal: controller.signal }))
    const next = breaker.call('stripe', async () => 'next')
    await runtime.settle()
    controller.abort(reason)
    expect((await waiting).error).toBe(reason)
    expect(remove).toHaveBeenCalledTimes(add.mock.calls.length)
    first.succeed('ok')
    expect(await Promise.all([running, next])).toEqual(['ok', 'next'])
    expect(operation).not.toHaveBeenCalled()
  })

  it('holds for each service and each instance by itself', async () => {
    const { start, runtime } = createFleet({ services: ['stripe', 'paypal'], maxConcurrent: 1 })
    const [one, other] = [start(), start()]
    const blocker = controlled()
    const running = one.call('stripe', blocker.operation)
    await runtime.settle()
    expect(await one.call('paypal', ok)).toBe('ok')
    expect(await other.call('stripe', ok)).toBe('ok')
    blocker.succeed('ok')
    await running
  })

  it('decides again by what holds when a permit is granted', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    const operation = jest.fn(ok)
    await runtime.settle()
    const opening = breaker.forceOpen('stripe')
    const waiting = outcomeOf(breaker.call('stripe', operation))
    first.succeed('ok')
    await Promise.all([running, opening])
    const { error } = await waiting
    if (error === undefined) expect(operation).toHaveBeenCalledTimes(1)
    else expect(error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect((await outcomeOf(breaker.call('stripe', operation))).error).toMatchObject({ reason: 'forced' })
  })

  it('never leaks a permit nor runs too many, whatever calls come to, in whatever order', async () => {
    const call = fc.record({
      at: fc.nat(60),
      takes: fc.nat(40),
      comesTo: fc.constantFrom('ok', 'failure', 'ignored', 'throws at once', 'nothing'),
      timeout: fc.option(fc.integer({ min: 1, max: 60 }), { nil: false as const }),
      abortAt: fc.option(fc.nat(80), { nil: undefined }),
    })
    await fc.assert(
      fc.asyncProperty(
        fc.array(call, { maxLength: 25 }),
        fc.integer({ min: 1, max: 3 }),
        async (calls, maxConcurrent) => {
          const { start, runtime } = createFleet({ maxConcurrent, maxQueue: 4, failureThreshold: 4, resetTimeout: 20 })
          const breaker = start()
          await breaker.load()
          const ended: Promise<unknown>[] = []
          let guarded = 0
          for (const { at, takes, comesTo, timeout, abortAt } of calls) {
            const controller = new AbortController()
            if (abortAt !== undefined) runtime.setTimeout(() => controller.abort(new Error('caller')), abortAt)
            runtime.setTimeout(() => {
              let isRunning = false
              const end = (): void => {
                if (isRunning) guarded--
                isRunning = false
              }
              const operation = ({ signal }: { signal: AbortSignal }): Promise<string> => {
                isRunning = true
                guarded++
                // A call that is cut gives its permit back though the operation goes on.
                signal.addEventListener('abort', end)
                expect(guarded).toBeLessThanOrEqual(maxConcurrent)
                if (comesTo === 'throws at once') {
                  end()
                  throw new ServiceUnavailable('503')
                }
                return new Promise((resolve, reject) => {
                  if (comesTo === 'nothing') return
                  runtime.setTimeout(() => {
                    end()
                    if (comesTo === 'ok') resolve('ok')
                    else reject(comesTo === 'failure' ? new ServiceUnavailable('503') : new BadRequest('400'))
                  }, takes)
                })
              }
              const limit = comesTo === 'nothing' ? timeout || 50 : timeout
              const options = { timeout: limit, signal: controller.signal, isBreakableResult: () => false }
              ended.push(outcomeOf(breaker.call('stripe', operation, options)))
            }, at)
          }
          await runtime.advance(40_000)
          await Promise.all(ended)
          await breaker.reset('stripe')
          const probes = Array.from({ length: maxConcurrent + 1 }, () => controlled())
          const results = probes.map(({ operation }) => breaker.call('stripe', operation))
          await runtime.settle()
          const running = probes.filter(({ started }) => started === 1).length
          for (const { succeed } of probes) succeed('ok')
          await Promise.all(results)
          expect(running).toBe(maxConcurrent)
          expect(runtime.pendingTimers).toEqual([])
        },
      ),
      { numRuns: 150 },
    )
  })
})
