import { describe, expect, it } from '@jest/globals'
import { CircuitBreaker, isCircuitOpenError, MemoryCircuitStorage } from '../../../src/index.ts'
import { epochStart } from '../../support/fake-runtime.ts'
import { ok, outcomeOf, unavailable } from '../../support/virtual-fleet.ts'

const maxKeys = 1_000

/** A store that counts what is read and what is created. */
class CountingStorage extends MemoryCircuitStorage {
  readCircuits = 0
  readonly created = new Set<string>()

  override async batchGetState(keys: readonly string[]): ReturnType<MemoryCircuitStorage['batchGetState']> {
    this.readCircuits += keys.length
    return super.batchGetState(keys)
  }

  override async compareAndSetState(
    ...write: Parameters<MemoryCircuitStorage['compareAndSetState']>
  ): ReturnType<MemoryCircuitStorage['compareAndSetState']> {
    this.created.add(write[0])
    return super.compareAndSetState(...write)
  }
}

/** An instance with a clock that the test moves on. */
function start(times: { readonly resetTimeout?: number; readonly maxResetTimeout?: number } = {}) {
  const storage = new CountingStorage()
  const clock = { now: epochStart }
  const breaker = new CircuitBreaker(
    { services: { hooks: { keyed: { maxKeys } } }, storage, ...times },
    { now: () => clock.now, env: {} },
  )
  return { storage, clock, breaker }
}

describe('one instance with very many keys', () => {
  it('forgets no open circuit over 20,000 others, and reads each of those once', async () => {
    const day = 86_400_000
    const { storage, breaker } = start({ resetTimeout: day, maxResetTimeout: day })
    const open = Array.from({ length: 50 }, (_, index) => `open-${index}`)
    for (const key of open)
      for (let call = 0; call < 3; call++) await outcomeOf(breaker.call('hooks', unavailable, { key }))
    await breaker.flush()
    for (let index = 0; index < 20_000; index++) await breaker.call('hooks', ok, { key: `host-${index}` })
    expect(storage.readCircuits).toBe(20_050)
    storage.batchGetState = () => Promise.reject(new Error('down'))
    for (const key of open) {
      expect(isCircuitOpenError((await outcomeOf(breaker.call('hooks', ok, { key }))).error)).toBe(true)
    }
  })

  it('reads the keys in use and no others, however many it knows', async () => {
    const { storage, clock, breaker } = start()
    for (let index = 0; index < maxKeys; index++) await breaker.call('hooks', ok, { key: `host-${index}` })
    const inUse = ['host-1', 'host-2', 'host-3']
    for (const key of inUse) await breaker.call('hooks', ok, { key })
    const before = storage.readCircuits
    for (let minute = 0; minute < 10; minute++) {
      clock.now += 60_000
      expect(breaker.needsLoad).toBe(true)
      await breaker.load()
      expect(breaker.needsLoad).toBe(false)
      for (const key of inUse) await breaker.call('hooks', ok, { key })
    }
    expect(storage.readCircuits - before).toBe(30)
  })

  it('creates no more records for 30,000 hostile keys than documented', async () => {
    const { storage, clock, breaker } = start()
    const windows = 3
    for (let index = 0; index < 30_000; index++) {
      await outcomeOf(breaker.call('hooks', unavailable, { key: `host-${index}` }))
      clock.now += (windows * 60_000) / 30_000
      if (index % 100 === 0) await breaker.flush()
    }
    // And the circuit that the rest shares.
    expect(storage.created.size).toBeLessThanOrEqual(2 * maxKeys * (windows + 1) + 1)
    expect(storage.created.size).toBeGreaterThan(maxKeys)
  })
})
