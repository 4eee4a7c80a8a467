import { describe, expect, it } from '@jest/globals'
import { operate, partsOf } from '../../../src/cli/operate.ts'
import type { Place } from '../../../src/cli/place.ts'
import { MemoryCircuitStorage } from '../../../src/index.ts'

describe('a stored key', () => {
  it.each([
    ['stripe', undefined, 'stripe', undefined],
    ['prod#stripe', 'prod', 'stripe', undefined],
    ['a%23b#c%25d', 'a#b', 'c%d', undefined],
    ['#crm#acme', undefined, 'crm', 'acme'],
    ['prod#crm#a%23b', 'prod', 'crm', 'a#b'],
    ['prod#crm#%shared', 'prod', 'crm', '(shared)'],
  ])('%s tells its parts', (key, namespace, service, ofService) => {
    expect(partsOf(key)).toEqual({ namespace, service, key: ofService })
  })

  it.each(['', '#', '#stripe', 'prod#', '##', '#crm#', 'a#b#c#d', 'prod##acme'])('%j is none', (key) => {
    expect(() => partsOf(key)).toThrow('is no key of a circuit')
  })

  it('that is a hash tells nothing of the key', () => {
    expect(() => partsOf(`#crm#%sha256-${'a'.repeat(43)}`)).toThrow('is stored only as a hash')
  })
})

it.each(['stripe', 'prod#stripe', '#crm#acme', 'prod#crm#a%23b', 'prod#crm#%shared'])(
  'the circuit under %s is forced, and reset, where it is stored',
  async (key) => {
    const storage = new MemoryCircuitStorage()
    const place = { storage, config: { type: 'memory' }, name: 'memory', namespace: undefined } as unknown as Place
    const words = { by: 'ops', why: 'maintenance', until: undefined }
    await operate(place, key, 'open', words)
    expect(await storage.listCircuits()).toEqual({ keys: [key] })
    expect(await storage.getState(key)).toMatchObject({ state: 'OPEN', override: { by: 'ops', why: 'maintenance' } })
    await operate(place, key, 'reset', words)
    expect((await storage.getState(key))?.state).toBe('CLOSED')
  },
)
