import { Readable } from 'node:stream'
import { describe, expect, it, jest } from '@jest/globals'
import { type BreakableResultError, isBreakableResultError } from '../../../src/index.ts'
import { waitFor } from '../../support/time.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  ok,
  outcomeOf,
  ServiceUnavailable,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

describe('a fallback', () => {
  it('answers when the circuit refuses the call', async () => {
    const breaker = createFleet().start()
    await trip(breaker)
    const fallback = jest.fn((_error: unknown) => 'instead')
    expect(await breaker.call('stripe', ok, { fallback })).toBe('instead')
    expect(fallback.mock.calls).toEqual([[expect.objectContaining({ code: 'CIRCUIT_OPEN', reason: 'open' })]])
  })

  it('answers when the call times out', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    const fallback = jest.fn(async (_error: unknown) => 'instead')
    const call = breaker.call('stripe', () => new Promise<string>(() => {}), { timeout: 100, fallback })
    await runtime.advance(100)
    expect(await call).toBe('instead')
    expect(fallback.mock.calls).toEqual([[expect.objectContaining({ code: 'CIRCUIT_TIMEOUT', attempted: true })]])
  })

  it('answers when the time is over before the operation could start', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    const call = breaker.call('stripe', ok, { timeout: 100, fallback: (error) => error })
    await runtime.advance(100)
    expect(await call).toMatchObject({ code: 'CIRCUIT_TIMEOUT', attempted: false })
    first.succeed('ok')
    await running
  })

  it('answers when the deadline is over', async () => {
    const breaker = createFleet().start()
    const call = breaker.callExternalFor({ getRemainingTimeInMillis: () => 900 })
    expect(await call('stripe', ok, { fallback: (error) => error })).toMatchObject({ reason: 'deadline' })
  })

  it('answers when the concurrency limit refuses the call', async () => {
    const breaker = createFleet({ maxConcurrent: 1, maxQueue: 0 }).start()
    await breaker.load()
    const first = controlled()
    const running = breaker.call('stripe', first.operation)
    expect(await breaker.call('stripe', ok, { fallback: (error) => error })).toMatchObject({
      code: 'CIRCUIT_CONCURRENCY_LIMIT',
    })
    first.succeed('ok')
    await running
  })

  it.each([
    ['like those of axios', Object.assign(new Error('Request failed'), { response: { status: 503 } })],
    ['of a connection', Object.assign(new Error('reset'), { code: 'ECONNRESET' })],
    [
      'wrapped by fetch',
      new TypeError('fetch failed', { cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) }),
    ],
    ['that timed out by itself', new DOMException('late', 'TimeoutError')],
  ])('answers for a breakable error: %s', async (_kind, error) => {
    const breaker = createFleet().start()
    const fallback = jest.fn((_error: unknown) => 'instead')
    expect(await breaker.call('stripe', () => Promise.reject(error), { fallback })).toBe('instead')
    expect(fallback.mock.calls[0]?.[0]).toBe(error)
  })

  it('answers for a breakable result, with an error that carries it', async () => {
    const breaker = createFleet().start()
    const response = new Response('busy', { status: 503 })
    const fallback = jest.fn((_error: unknown) => 'instead')
    expect(await breaker.call('stripe', async () => response, { fallback })).toBe('instead')
    const [error] = fallback.mock.calls[0] ?? []
    expect(isBreakableResultError(error) && error.result).toBe(response)
    expect(error).toMatchObject({ name: 'BreakableResultError', service: 'stripe' })
  })

  it('does not answer for a 400, whose error is rethrown as it is', async () => {
    const breaker = createFleet().start()
    const error = new BadRequest('400')
    const fallback = jest.fn(ok)
    expect((await outcomeOf(breaker.call('stripe', () => Promise.reject(error), { fallback }))).error).toBe(error)
    expect(fallback).not.toHaveBeenCalled()
  })

  it('does not answer for a result that is well', async () => {
    const breaker = createFleet().start()
    const fallback = jest.fn(() => 'instead')
    expect(await breaker.call('stripe', async () => ({ status: 404, body: '' }), { fallback })).toMatchObject({
      status: 404,
    })
    expect(fallback).not.toHaveBeenCalled()
  })

  it('does not answer for a service that is not configured, nor for a wrong option', async () => {
    const breaker = createFleet().start()
    const fallback = jest.fn(ok)
    await outcomeOf(breaker.call('paypal', ok, { fallback }))
    await outcomeOf(breaker.call('stripe', ok, { fallback, timeout: -1 }))
    expect(fallback).not.toHaveBeenCalled()
  })

  it('does not answer when the caller cancels the call, running or waiting', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const fallback = jest.fn(ok)
    const reason = new Error('the user left')
    const controller = new AbortController()
    const options = { signal: controller.signal, fallback }
    const calls = [1, 2].map(() => outcomeOf(breaker.call('stripe', () => new Promise<string>(() => {}), options)))
    await runtime.settle()
    controller.abort(reason)
    expect(await Promise.all(calls)).toEqual([{ error: reason }, { error: reason }])
    expect((await outcomeOf(breaker.call('stripe', ok, options))).error).toBe(reason)
    expect(fallback).not.toHaveBeenCalled()
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('also dead')
      },
    ],
    [
      'rejects with',
      async () => {
        throw new Error('also dead')
      },
    ],
  ])('hands on what it %s', async (_how, fallback) => {
    const breaker = createFleet().start()
    await expect(breaker.call('stripe', unavailable, { fallback })).rejects.toThrow('also dead')
    await expect(breaker.call('stripe', async () => new Response('', { status: 500 }), { fallback })).rejects.toThrow(
      'also dead',
    )
  })

  it('does not run twice when it throws after a breakable result', async () => {
    const breaker = createFleet().start()
    const fallback = jest.fn(async (_error: unknown) => {
      throw new ServiceUnavailable('fallback')
    })
    await outcomeOf(breaker.call('stripe', async () => new Response('', { status: 500 }), { fallback }))
    expect(fallback).toHaveBeenCalledTimes(1)
  })

  it('holds neither a permit nor a probe while it runs', async () => {
    const { start, storage, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const slow = controlled()
    const call = breaker.call('stripe', unavailable, {
      fallback: () => slow.operation({ signal: AbortSignal.any([]) }),
    })
    await runtime.settle()
    expect((await storage.peek('stripe'))?.leases).toEqual([])
    await runtime.advance(10_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    slow.succeed('instead')
    expect(await call).toBe('instead')
  })

  it('may use the same circuit', async () => {
    const breaker = createFleet({ maxConcurrent: 1 }).start()
    const call = breaker.call('stripe', unavailable, { fallback: () => breaker.call('stripe', ok) })
    expect(await call).toBe('ok')
  })
})

/** The body of what comes after the call was cut is nobody's. */
describe('the body of a result that a fallback replaces, or that comes too late,', () => {
  /** A 503 whose connection is held until its body is read or cancelled. */
  const heldResponse = () => {
    const cancel = jest.fn(() => {})
    const pull = (controller: ReadableStreamDefaultController) => controller.enqueue(new TextEncoder().encode('busy'))
    return { response: new Response(new ReadableStream({ pull, cancel }), { status: 503 }), cancel }
  }
  const breaker = createFleet({ failureThreshold: 100 }).start()

  it.each([
    ['returns something else', async (_error: unknown) => 'instead'],
    ['returns another response', async (_error: unknown) => new Response('instead')],
    ['takes nothing', () => 'instead'],
    [
      'throws',
      (error: unknown) => {
        throw error
      },
    ],
  ])('is cancelled where it %s', async (_how, fallback) => {
    const { response, cancel } = heldResponse()
    await outcomeOf(breaker.call('stripe', async () => response, { fallback: fallback as () => unknown }))
    await waitFor('the body is cancelled', () => cancel.mock.calls.length === 1)
  })

  it('is cancelled also where it came with an error, as those of axios', async () => {
    const { response, cancel } = heldResponse()
    const error = Object.assign(new Error('503'), { response })
    await breaker.call('stripe', () => Promise.reject(error), { fallback: () => 'instead' })
    await waitFor('the body is cancelled', () => cancel.mock.calls.length === 1)
  })

  it.each([{ timeout: 100 }, undefined])('is cancelled where its call was cut before: %p', async (options) => {
    const { start, runtime } = createFleet()
    const { response, cancel } = heldResponse()
    const late = controlled<Response>()
    const callExternal = start().callExternalFor({ getRemainingTimeInMillis: () => 1_100 })
    const isCut = outcomeOf(callExternal('stripe', late.operation, options))
    await runtime.advance(100)
    expect((await isCut).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', attempted: true })
    late.succeed(response)
    await waitFor('the body is cancelled', () => cancel.mock.calls.length === 1)
  })

  it('is cancelled before it runs, if it takes nothing, and else it may read it', async () => {
    const { response, cancel } = heldResponse()
    const fallback = () => waitFor('the body is cancelled', () => cancel.mock.calls.length === 1)
    await breaker.call('stripe', async () => response, { fallback })

    const read = async (error: unknown) => {
      await new Promise((resolve) => setImmediate(resolve))
      return (isBreakableResultError(error) ? (error.result as Response) : new Response()).text()
    }
    const busy = async () => new Response('busy', { status: 503 })
    expect(await breaker.call('stripe', busy, { fallback: read })).toBe('busy')
  })

  it.each([
    ['the result', (result: Response) => result],
    ['a response with its body', ({ body }: Response) => new Response(body)],
    ['an object with its body', ({ body }: Response) => ({ statusCode: 502, body })],
    ['a stream that reads it', ({ body }: Response) => Readable.fromWeb(body as never)],
  ])('is left alone where it returns %s', async (_what, answer) => {
    const { response, cancel } = heldResponse()
    const fallback = (error: unknown) => answer((error as BreakableResultError).result as Response)
    await breaker.call('stripe', async () => response, { fallback: fallback as () => unknown })
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(cancel).not.toHaveBeenCalled()
  })
})
