import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals'
import { type CircuitBreakerOptions, CircuitBreaker as Engine } from '../../src/index.ts'
import { circuitBreaker } from '../../src/middleware.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { createFakeRuntime } from '../support/fake-runtime.ts'
import { RecordingStorage } from '../support/recording-storage.ts'
import { controlled, failTimes, outcomeOf, unavailable } from '../support/virtual-fleet.ts'

type Hook = (request: { context: object }) => Promise<void> | undefined

const runtime = createFakeRuntime()

function start(options: Partial<CircuitBreakerOptions> = {}, env: Record<string, string> = {}) {
  const storage = new RecordingStorage(runtime)
  const breaker = new Engine(
    { services: ['stripe'], storage, onStorageError: () => {}, ...options },
    { ...runtime, env: { AWS_LAMBDA_FUNCTION_NAME: 'billing', ...env } },
  )
  const { before, after } = circuitBreaker(breaker) as unknown as { before: Hook; after: Hook }
  const context = createTestContext({ remainingTime: 30_000 })
  return { storage, breaker, begin: () => before({ context }), end: () => after({ context }), context }
}

/** One failed call is left over, because the store did not take it. */
async function startOwing() {
  const owing = start()
  await owing.begin()
  owing.storage.inject('fail')
  await failTimes(owing.breaker, 1)
  await owing.end()
  expect(owing.breaker.needsFlush).toBe(true)
  return owing
}

function listeners(): number {
  return process.listenerCount('SIGTERM')
}

async function terminate(): Promise<void> {
  process.emit('SIGTERM')
  await runtime.settle()
  await runtime.settle()
}

describe('the end of a Lambda environment', () => {
  const kill = jest.spyOn(process, 'kill')
  beforeEach(() => {
    kill.mockReset().mockReturnValue(true)
  })
  afterEach(() => {
    process.removeAllListeners('SIGTERM')
  })

  it('is not listened for while nothing waits to be stored', async () => {
    const { begin, end, breaker } = start()
    await begin()
    await breaker.call('stripe', async () => 'ok')
    await end()
    await begin()
    await failTimes(breaker, 1)
    await end()
    expect(listeners()).toBe(0)
  })

  it('stores what the store did not take before, and then lets the signal end the process', async () => {
    const { storage } = await startOwing()
    expect(listeners()).toBe(1)
    await terminate()
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
    expect(kill.mock.calls).toEqual([[process.pid, 'SIGTERM']])
    expect(listeners()).toBe(0)
  })

  it('is no longer listened for when the next invocation has stored it', async () => {
    const { begin, end, storage } = await startOwing()
    await begin()
    await end()
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
    expect(listeners()).toBe(0)
  })

  it('waits for a store that hangs no longer than 400 ms', async () => {
    const { storage, begin, end } = await startOwing()
    storage.outage = 'hang'
    await terminate()
    await runtime.advance(399)
    expect(kill).not.toHaveBeenCalled()
    await runtime.advance(1)
    expect(kill).toHaveBeenCalledTimes(1)
    expect(listeners()).toBe(0)
    storage.heal()
    await runtime.advance(1_000)
    await begin()
    await end()
  })

  it('is left to others who listen, who are told as if we were not there', async () => {
    const { storage } = await startOwing()
    let seen: number | undefined
    process.on('SIGTERM', () => {
      seen = listeners()
    })
    await terminate()
    expect(seen).toBe(1)
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
    expect(kill).not.toHaveBeenCalled()
  })

  it('may not be the end: where others keep the process, it is listened for again', async () => {
    const { begin, end, storage, breaker } = await startOwing()
    process.on('SIGTERM', () => {})
    await terminate()
    await begin()
    storage.inject('fail')
    await outcomeOf(breaker.call('stripe', unavailable))
    await end()
    expect(listeners()).toBe(2)
    await terminate()
  })

  it('stores what a call that nobody awaited came to', async () => {
    const { begin, end, storage, context } = start()
    const order: string[] = []
    storage.onWrite = () => order.push('stored')
    kill.mockImplementation(() => {
      order.push('killed')
      return true
    })
    await begin()
    const call = controlled()
    const callExternal = (context as unknown as { callExternal: Engine['call'] }).callExternal
    const outcome = outcomeOf(callExternal('stripe', call.operation))
    await runtime.settle()
    await end()
    expect(listeners()).toBe(1)
    process.emit('SIGTERM')
    call.fail()
    await outcome
    await runtime.settle()
    await runtime.settle()
    expect(order).toEqual(['stored', 'killed'])
  })

  it('is listened for while a call goes on, whatever other invocations come to their end', async () => {
    const { begin, end, breaker } = start()
    await begin()
    const call = controlled()
    const outcome = outcomeOf(breaker.call('stripe', call.operation))
    await runtime.settle()
    await end()
    expect(listeners()).toBe(1)
    await begin()
    await end()
    await breaker.flush()
    expect(listeners()).toBe(1)
    call.succeed('ok')
    await outcome
    await breaker.flush()
    expect(listeners()).toBe(0)
  })

  it('stores also where the same invocation left other outcomes', async () => {
    const { begin, end, storage, breaker, context } = start()
    await begin()
    const call = controlled()
    const callExternal = (context as unknown as { callExternal: Engine['call'] }).callExternal
    const outcome = outcomeOf(callExternal('stripe', call.operation))
    await runtime.settle()
    const held = storage.holdReply()
    await failTimes(breaker, 1)
    const ending = end()
    held.release()
    await ending
    expect(breaker.needsFlush).toBe(false)
    expect(listeners()).toBe(1)
    call.succeed('ok')
    await outcome
    await begin()
    await end()
    expect(listeners()).toBe(0)
  })

  it('is one listener for all breakers', async () => {
    const both = [await startOwing(), await startOwing()]
    expect(listeners()).toBe(1)
    await terminate()
    for (const { storage } of both) expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
    expect(kill).toHaveBeenCalledTimes(1)
  })

  it('is nobody’s business outside Lambda', async () => {
    const { begin, end, breaker, storage } = start({}, { AWS_LAMBDA_FUNCTION_NAME: '' })
    await begin()
    storage.outage = 'fail'
    await failTimes(breaker, 1)
    await end()
    expect(breaker.needsFlush).toBe(true)
    expect(listeners()).toBe(0)
  })
})
