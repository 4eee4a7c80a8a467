import { afterEach, describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker, CircuitBreakerStorageFactory, MemoryCircuitStorage } from '../../src/index.ts'

class ClosableStorage extends MemoryCircuitStorage {
  readonly close = jest.fn(async () => {})
}

afterEach(() => {
  CircuitBreakerStorageFactory.unregister('closable')
})

describe('close', () => {
  it('stores what waits, and then closes the store that was made here', async () => {
    const storage = new ClosableStorage()
    CircuitBreakerStorageFactory.register('closable', () => storage)
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: { type: 'closable' } }, { env: {} })
    const write = jest.spyOn(storage, 'compareAndSetState')
    await breaker.execute('stripe', () => Promise.reject(new Error('down'))).catch(() => {})
    await breaker.close()
    expect(storage.close).toHaveBeenCalledTimes(1)
    expect(write.mock.invocationCallOrder[0]).toBeLessThan(storage.close.mock.invocationCallOrder[0] as number)
    expect(await storage.getState('stripe')).toMatchObject({ failureCount: 1 })
  })

  it('leaves a store open that was passed in', async () => {
    const storage = new ClosableStorage()
    const breaker = new CircuitBreaker({ services: ['stripe'], storage }, { env: {} })
    await breaker.close()
    expect(storage.close).not.toHaveBeenCalled()
  })

  it('is nothing to a store without connections', async () => {
    const breaker = new CircuitBreaker({ services: ['stripe'] }, { env: {} })
    await breaker.close()
    expect(await breaker.call('stripe', () => 'ok')).toBe('ok')
  })
})
