import { describe, expect, it, jest } from '@jest/globals'
import { createFleet, never, ok, outcomeOf } from '../../support/virtual-fleet.ts'

const late = new DOMException('The operation was aborted due to timeout', 'TimeoutError')
const cancelled = new DOMException('This operation was aborted', 'AbortError')

/** A call with a fallback that the caller's signal cuts with `reason`: at once, or after 100 ms. */
async function cutBy(reason: unknown, when: 'queued' | 'running' | 'over') {
  const { start, runtime } = createFleet({ maxConcurrent: 1, failureThreshold: 1 })
  const breaker = start()
  await breaker.load()
  const controller = new AbortController()
  const { signal } = controller
  if (when === 'over') controller.abort(reason)
  if (when === 'queued') void breaker.call('stripe', never)
  const fallback = jest.fn((_error: unknown) => 'instead')
  const call = outcomeOf(breaker.call('stripe', never, { signal, fallback }))
  await runtime.advance(100)
  controller.abort(reason)
  return { outcome: await call, fallback, state: breaker.circuits.stripe?.state }
}

describe("a timeout of the caller's signal", () => {
  it.each([
    ['queued', 'CLOSED'],
    ['running', 'OPEN'],
    ['over', 'CLOSED'],
  ] as const)('has the fallback answer, and counts if the operation had its time: %s', async (when, counted) => {
    const { outcome, fallback, state } = await cutBy(late, when)
    expect(outcome).toEqual({ value: 'instead' })
    expect(fallback.mock.calls).toEqual([[late]])
    expect(state).toBe(counted)
  })

  it.each([
    [150, 'OPEN'],
    [149, 'CLOSED'],
  ])('counts if the operation had half of the time that the call had: %p of 300 ms', async (ran, counted) => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const controller = new AbortController()
    const first = breaker.call('stripe', () => runtime.sleep(300 - ran))
    const call = outcomeOf(breaker.call('stripe', never, { signal: controller.signal }))
    await runtime.advance(300)
    controller.abort(late)
    await first
    expect(await call).toEqual({ error: late })
    expect(breaker.circuits.stripe?.state).toBe(counted)
  })

  it('counts whatever the classifier says, as one of the breaker does', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 1, isBreakableError: () => false })
    const breaker = start()
    const controller = new AbortController()
    const call = outcomeOf(breaker.call('stripe', never, { signal: controller.signal }))
    await runtime.advance(100)
    controller.abort(late)
    expect(await call).toEqual({ error: late })
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })
})

describe("a cancellation by the caller's signal", () => {
  it.each(['queued', 'running', 'over'] as const)(
    'never has the fallback answer, and counts for nothing: %s',
    async (when) => {
      const { outcome, fallback, state } = await cutBy(cancelled, when)
      expect(outcome).toEqual({ error: cancelled })
      expect(fallback).not.toHaveBeenCalled()
      expect(state).toBe('CLOSED')
    },
  )
})

describe("a caller's signal that many calls share", () => {
  it('has one listener, which goes with the last of them', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 2 })
    const breaker = start()
    const { signal } = new AbortController()
    const added = jest.spyOn(signal, 'addEventListener')
    const removed = jest.spyOn(signal, 'removeEventListener')
    for (let time = 1; time <= 2; time++) {
      const calls = Array.from({ length: 10 }, () => breaker.call('stripe', () => runtime.sleep(10), { signal }))
      await runtime.advance(40)
      expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([time, time - 1])
      await runtime.advance(10)
      await Promise.all(calls)
      expect(removed).toHaveBeenCalledTimes(time)
    }
  })

  it('cuts them all, those that wait as well as those that run, and one that a listener begins', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 2 })
    const breaker = start()
    await breaker.load()
    const controller = new AbortController()
    const { signal } = controller
    const begun: Promise<unknown>[] = []
    const operation = (context: { readonly signal: AbortSignal }) => {
      context.signal.addEventListener('abort', () => begun.push(outcomeOf(breaker.call('stripe', ok, { signal }))))
      return never()
    }
    const calls = Array.from({ length: 5 }, () => outcomeOf(breaker.call('stripe', operation, { signal })))
    await runtime.settle()
    controller.abort(cancelled)
    const outcomes = await Promise.all(calls)
    expect(outcomes).toEqual(Array(5).fill({ error: cancelled }))
    expect(await Promise.all(begun)).toEqual(Array(2).fill({ error: cancelled }))
  })
})
