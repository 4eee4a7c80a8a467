import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker, CircuitBreakerStorageFactory, MemoryCircuitStorage } from '../../src/index.ts'
import { createFakeRuntime } from '../support/fake-runtime.ts'
import { ok } from '../support/virtual-fleet.ts'
import { warningsEmitted } from '../support/warning-texts.ts'

const emitted = jest.spyOn(process, 'emitWarning')

beforeEach(() => {
  emitted.mockReset().mockImplementation(() => {})
})

afterEach(() => {
  CircuitBreakerStorageFactory.unregister('shared')
})

async function warnings(): Promise<unknown[][]> {
  await warningsEmitted()
  return emitted.mock.calls
}

describe('a time that was probably meant in seconds', () => {
  const storage = new MemoryCircuitStorage()

  it('is warned of once', async () => {
    for (let made = 0; made < 3; made++) new CircuitBreaker({ services: ['stripe'], storage, window: 60 }, { env: {} })
    expect(await warnings()).toEqual([
      [
        expect.stringMatching(/^window is 60 ms \(option\)/),
        { type: 'CircuitBreakerWarning', code: 'CIRCUIT_SECONDS' },
      ],
    ])
  })

  it('is nothing under a virtual clock', async () => {
    const breaker = new CircuitBreaker({ services: ['stripe'], storage, window: 61 }, createFakeRuntime())
    await breaker.call('stripe', ok, { timeout: 3 })
    expect(await warnings()).toEqual([])
  })

  it('is warned of once where it is the timeout of a call', async () => {
    const breaker = new CircuitBreaker({ services: ['stripe'], storage, timeout: 1_000 }, { env: {} })
    for (let call = 0; call < 3; call++) await breaker.call('stripe', () => 'ok', { timeout: 30 })
    await breaker.call('stripe', () => 'ok', { timeout: false })
    await breaker.call('stripe', () => 'ok', { timeout: 31 })
    expect(await warnings()).toEqual([
      [
        expect.stringMatching(/^timeout is 30 ms \(call of "stripe"\)/),
        expect.objectContaining({ code: 'CIRCUIT_SECONDS' }),
      ],
    ])
  })
})

describe('a breaker that is made again', () => {
  const made = (services: string[], storage?: string): CircuitBreaker =>
    new CircuitBreaker({ services, ...(storage !== undefined && { storage: { type: storage } }) }, { env: {} })
  const aboutRemade = [
    expect.stringMatching(/^A second circuit breaker for .* was made.*outside of the handler/),
    { type: 'CircuitBreakerWarning', code: 'CIRCUIT_REMADE' },
  ]

  it('with its state in memory is warned of once', async () => {
    for (let invocation = 0; invocation < 4; invocation++) made(['a', 'b', 'c', 'd'])
    expect(await warnings()).toEqual([aboutRemade])
  })

  it('is none with other services', async () => {
    made(['e'])
    made(['f'])
    made(['e', 'f'])
    expect(await warnings()).toEqual([])
  })

  it('with a store that it was given, or under a virtual clock, is meant so', async () => {
    for (let test = 0; test < 2; test++) {
      new CircuitBreaker({ services: ['g'], storage: new MemoryCircuitStorage() }, { env: {} })
      new CircuitBreaker({ services: ['g'] }, createFakeRuntime())
    }
    expect(await warnings()).toEqual([])
  })

  it('is forgotten after a hundred others', async () => {
    for (let index = 0; index <= 100; index++) made([`service ${index}`])
    made(['service 0'])
    expect(await warnings()).toEqual([])
    made(['service 0'])
    expect(await warnings()).toEqual([aboutRemade])
  })

  it('with a shared store may belong to another handler, until the first one was used', async () => {
    CircuitBreakerStorageFactory.register('shared', () => Object.assign(new MemoryCircuitStorage(), { shared: true }))
    made(['h'])
    const first = made(['h'], 'shared')
    const second = made(['h'], 'shared')
    expect(await warnings()).toEqual([])
    await second.call('h', ok)
    made(['h'], 'shared')
    expect(await warnings()).toEqual([aboutRemade])
    expect(first.services).toEqual(['h'])
  })
})
