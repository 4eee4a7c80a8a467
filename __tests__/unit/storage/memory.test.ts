import { describe, expect, it } from '@jest/globals'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'
import { circuitRecord, testCircuitStorage } from '../../../src/testing/index.ts'

testCircuitStorage('MemoryCircuitStorage', () => new MemoryCircuitStorage())

describe('MemoryCircuitStorage', () => {
  it('is not shared', () => {
    expect(new MemoryCircuitStorage().shared).toBe(false)
  })

  it('keeps the circuits of each instance apart', async () => {
    await fill(new MemoryCircuitStorage(), { stripe: {} })
    expect(await new MemoryCircuitStorage().getState('stripe')).toBeUndefined()
  })

  it('has written before its promise resolves, so that each primitive is atomic', async () => {
    const storage = new MemoryCircuitStorage()
    const write = storage.compareAndSetState('stripe', undefined, circuitRecord())
    const read = storage.getState('stripe')
    expect(await read).toEqual((await write).current)
  })

  it('hands out frozen records', async () => {
    const storage = new MemoryCircuitStorage()
    await fill(storage, { stripe: { leases: [{ id: 'lease', expiresAt: 1 }] } })
    const record = await storage.getState('stripe')
    expect(Object.isFrozen(record)).toBe(true)
    expect(Object.isFrozen(record?.leases)).toBe(true)
    expect(Object.isFrozen(record?.leases[0])).toBe(true)
  })

  it('does not freeze what it is given', async () => {
    const next = circuitRecord()
    await new MemoryCircuitStorage().compareAndSetState('stripe', undefined, next)
    expect(Object.isFrozen(next)).toBe(false)
    expect(Object.isFrozen(next.leases)).toBe(false)
  })

  it('keeps a null that an adapter or a test in plain JavaScript wrote for what is not set', async () => {
    const storage = new MemoryCircuitStorage()
    const next = { ...circuitRecord(), lastFailure: null } as unknown as CircuitRecord
    expect(await storage.compareAndSetState('stripe', undefined, next)).toEqual({ applied: true, current: next })
  })

  it('keeps the ids of 16 additions and no more', async () => {
    const storage = new MemoryCircuitStorage()
    await fill(storage, { stripe: { version: 'v' } })
    const outcomes = { failures: 1, successes: 0, started: 0, early: 0, reporters: 0, at: 1 }
    const add = (id: string) => storage.addOutcomes('stripe', 'v', { ...outcomes, id })
    for (let index = 0; index < 17; index += 1) await add(`id-${index}`)
    expect((await add('id-1')).current?.failureCount).toBe(17)
    expect((await add('id-0')).current?.failureCount).toBe(18)
  })

  it('forgets the closed circuit that was written longest ago where there are more than 10 000, and none that is open', async () => {
    const storage = new MemoryCircuitStorage()
    const open = Array.from({ length: 40 }, (_, index) => `open-${index}`)
    const forced = { override: { state: 'CLOSED' as const, at: 1 } }
    await fill(storage, {
      ...Object.fromEntries(open.map((key) => [key, { state: 'OPEN' }])),
      forced,
      first: {},
      second: {},
    })
    const others = Array.from({ length: 10_000 }, (_, index) => `other-${index}`)
    await fill(storage, Object.fromEntries(others.map((key) => [key, {}])))
    expect((await storage.batchGetState([...open, 'forced'])).size).toBe(41)
    expect((await storage.batchGetState(['first', 'second', ...others])).size).toBeLessThanOrEqual(10_000)
    expect(await storage.getState('first')).toBeUndefined()
    expect(await storage.getState('other-9999')).toBeDefined()
  })

  it('forgets nothing where there are thousands of circuits', async () => {
    const storage = new MemoryCircuitStorage()
    const keys = Array.from({ length: 5_000 }, (_, index) => `service-${index}`)
    await fill(storage, Object.fromEntries(keys.map((key) => [key, {}])))
    expect([...(await storage.batchGetState(keys)).keys()]).toEqual(keys)
  })
})

async function fill(storage: MemoryCircuitStorage, circuits: Record<string, Partial<CircuitRecord>>): Promise<void> {
  for (const [key, fields] of Object.entries(circuits)) {
    await storage.compareAndSetState(key, undefined, circuitRecord(fields))
  }
}
