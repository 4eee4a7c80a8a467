import { describe, expect, it } from '@jest/globals'
import { isConfigurationError } from '../../../src/errors.ts'
import type { CircuitRecord } from '../../../src/storage/circuit-storage.ts'
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

  it('keeps the ids of 16 increments and no more', async () => {
    const storage = new MemoryCircuitStorage()
    const add = (id: string) => storage.incrementFailures('stripe', undefined, { count: 1, at: 1, id })
    for (let index = 0; index < 17; index += 1) await add(`id-${index}`)
    expect((await add('id-1')).current?.failureCount).toBe(17)
    expect((await add('id-0')).current?.failureCount).toBe(18)
  })

  describe('when it is full', () => {
    it('keeps 1000 circuits by default', async () => {
      const storage = new MemoryCircuitStorage()
      const keys = Array.from({ length: 1001 }, (_, index) => `service-${index}`)
      await fill(storage, Object.fromEntries(keys.map((key) => [key, {}])))
      expect([...(await storage.batchGetState(keys)).keys()]).toEqual(keys.slice(1))
    })

    it('forgets the closed circuit that was written least recently', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 3 })
      const { first } = await fill(storage, { first: {}, second: {}, third: {} })
      await storage.incrementFailures('first', first?.version, { count: 1, at: 1, id: 'id' })
      await storage.getState('second')
      await fill(storage, { fourth: {} })
      expect(await stored(storage)).toEqual(['first', 'third', 'fourth'])
    })

    it('keeps open, half-open and overridden circuits while there is a closed one', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 4 })
      await fill(storage, {
        first: { state: 'OPEN', retryAt: 1 },
        second: { state: 'HALF_OPEN' },
        third: { override: { state: 'CLOSED', at: 1 } },
        fourth: {},
      })
      await storage.incrementFailures('fifth', undefined, { count: 1, at: 1, id: 'id' })
      expect(await stored(storage)).toEqual(['first', 'second', 'third', 'fifth'])
    })

    it('may be told to keep a single circuit', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 1 })
      await fill(storage, { first: {}, second: {} })
      expect(await stored(storage)).toEqual(['second'])
    })

    it('forgets the oldest one when none is closed', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 2 })
      await fill(storage, { first: { state: 'OPEN', retryAt: 1 }, second: { state: 'HALF_OPEN' }, third: {} })
      expect(await stored(storage)).toEqual(['second', 'third'])
    })

    it('forgets nothing for a write to a circuit that it has, and nothing for a refused one', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 2 })
      const { second } = await fill(storage, { first: {}, second: {} })
      await storage.compareAndSetState('second', second?.version, circuitRecord())
      await storage.compareAndSetState('third', 'no such version', circuitRecord())
      expect(await stored(storage)).toEqual(['first', 'second'])
    })

    it('has room again after a circuit was cleared', async () => {
      const storage = new MemoryCircuitStorage({ maxCircuits: 2 })
      await fill(storage, { first: {}, second: {} })
      await storage.clearState('second')
      await fill(storage, { third: {} })
      expect(await stored(storage)).toEqual(['first', 'third'])
    })

    it.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '10', null])(
      'refuses maxCircuits: %p',
      (maxCircuits) => {
        const create = () => new MemoryCircuitStorage({ maxCircuits: maxCircuits as number })
        expect(create).toThrow(/maxCircuits must be a positive integer/)
        try {
          create()
        } catch (error) {
          expect(isConfigurationError(error) && error.problems[0]).toMatchObject({
            setting: 'maxCircuits',
            source: 'option',
            value: maxCircuits,
          })
        }
      },
    )
  })
})

async function fill<K extends string>(
  storage: MemoryCircuitStorage,
  circuits: Record<K, Partial<CircuitRecord>>,
): Promise<Partial<Record<K, CircuitRecord>>> {
  const records: Partial<Record<K, CircuitRecord>> = {}
  for (const key of Object.keys(circuits) as K[]) {
    const record = circuitRecord(circuits[key])
    await storage.compareAndSetState(key, undefined, record)
    records[key] = record
  }
  return records
}

async function stored(storage: MemoryCircuitStorage): Promise<string[]> {
  return [...(await storage.batchGetState(['first', 'second', 'third', 'fourth', 'fifth'])).keys()]
}
