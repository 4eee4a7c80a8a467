import { describe, expect, it, jest } from '@jest/globals'
import { createFleet, failTimes, isSettled, never } from '../support/virtual-fleet.ts'
import { warningsEmitted } from '../support/warning-texts.ts'

describe('a flush', () => {
  it('is needed where one of several services has something to store', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1, 'b')
    expect(breaker.needsFlush).toBe(true)
  })

  it('with nothing to store sets no timer', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const before = runtime.delays.length
    await breaker.flush()
    expect(runtime.delays).toHaveLength(before)
  })
})

describe('a flush waits for listeners', () => {
  it('and warns of none where it is the store that it has waited for in vain', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1)
    const flushed = breaker.flush()
    await runtime.advance(500)
    await flushed
    await warningsEmitted()
    expect(warn).not.toHaveBeenCalled()
    warn.mockRestore()
  })

  const publishing = () => {
    const { promise: published, resolve: publish } = Promise.withResolvers<void>()
    return { listener: () => published, publish }
  }

  it('again where it had no time for it, and warns once of a promise that it has waited for in vain', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, storage, runtime } = createFleet({ onStorageError: never })
    const breaker = start()
    storage.outage = 'fail'
    await breaker.load()
    await breaker.flush(50)
    expect(breaker.needsFlush).toBe(true)
    const flushed = breaker.flush(150)
    await runtime.advance(50)
    await flushed
    expect(breaker.needsFlush).toBe(false)
    await warningsEmitted()
    expect(warn.mock.calls).toEqual([
      [
        expect.stringContaining('waits at most storageTimeout'),
        { type: 'CircuitBreakerWarning', code: 'CIRCUIT_LISTENER' },
      ],
    ])
    warn.mockRestore()
  })

  it('of a transition that it stores, until their promises have settled', async () => {
    const { listener, publish } = publishing()
    const { start, runtime } = createFleet({ failureThreshold: 1, onStateChange: listener })
    const breaker = start()
    await breaker.load()
    await failTimes(breaker, 1)
    const flushed = breaker.flush()
    await runtime.advance(400)
    expect(await isSettled(flushed, runtime)).toBe(false)
    expect(breaker.needsFlush).toBe(true)

    publish()

    expect(await isSettled(flushed, runtime)).toBe(true)
    expect(breaker.needsFlush).toBe(false)
  })

  it('of a failing store', async () => {
    const { listener, publish } = publishing()
    const { start, storage, runtime } = createFleet({ onStorageError: listener })
    const breaker = start()
    storage.outage = 'fail'
    await breaker.load()
    expect(breaker.needsFlush).toBe(true)
    const flushed = breaker.flush()
    expect(await isSettled(flushed, runtime)).toBe(false)

    publish()

    expect(await isSettled(flushed, runtime)).toBe(true)
  })

  it.each([
    [Number.POSITIVE_INFINITY, 500],
    [300, 200],
  ])('no longer than for the store: with %d ms left, %d ms', async (timeLeft, limit) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, storage, runtime } = createFleet({ onStorageError: never })
    const breaker = start()
    storage.outage = 'fail'
    await breaker.load()
    const flushed = breaker.flush(timeLeft)
    await runtime.advance(limit - 1)
    expect(await isSettled(flushed, runtime)).toBe(false)
    await runtime.advance(1)
    expect(await isSettled(flushed, runtime)).toBe(true)
    // The next invocation does not wait for it once more.
    expect(breaker.needsFlush).toBe(false)
    warn.mockRestore()
  })
})
