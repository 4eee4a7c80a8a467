import { describe, expect, it } from '@jest/globals'
import { createFleet, isSettled, ok, outcomeOf, ServiceUnavailable, unavailable } from '../support/virtual-fleet.ts'

/** As the SDK of durable functions makes it: Lambda's own context is in it. */
const durable = { lambdaContext: { getRemainingTimeInMillis: () => 900_000, awsRequestId: 'request-1' } }
const standard = durable.lambdaContext

describe('a call in a durable function', () => {
  it('settles when what it came to is stored: the function may be suspended right after it', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const write = storage.holdRequest('compareAndSetState')
    const call = outcomeOf(breaker.callExternalFor(durable)('stripe', unavailable))
    await write.arrived
    expect(await isSettled(call, runtime)).toBe(false)
    write.release()
    expect(await call).toEqual({ error: expect.any(ServiceUnavailable) })
    expect(await storage.peek('stripe')).toMatchObject({ failureCount: 1 })
    expect(breaker.needsFlush).toBe(false)
  })

  it('waits for the store no longer than storageTimeout', async () => {
    const { start, storage, runtime } = createFleet({ storageTimeout: 300 })
    const breaker = start()
    await breaker.load()
    storage.outage = 'hang'
    const call = outcomeOf(breaker.callExternalFor(durable)('stripe', unavailable))
    await runtime.advance(299)
    expect(await isSettled(call, runtime)).toBe(false)
    await runtime.advance(1)
    expect(await call).toEqual({ error: expect.any(ServiceUnavailable) })
  })

  it('waits for no store where there is nothing to be stored', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.forget()
    expect(await breaker.callExternalFor(durable)('stripe', ok)).toBe('ok')
    expect(storage.operations).toEqual([])
    expect(runtime.pendingTimers.filter((left) => left < 800_000)).toEqual([])
  })
})

describe('a call in any other function', () => {
  it('does not wait for what its invocation stores at its end', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const write = storage.holdRequest('compareAndSetState')
    const call = outcomeOf(breaker.callExternalFor(standard)('stripe', unavailable))
    await write.arrived
    expect(await isSettled(call, runtime)).toBe(true)
  })
})
