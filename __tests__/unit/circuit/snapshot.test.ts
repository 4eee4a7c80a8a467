import { inspect } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../../src/index.ts'

describe('a snapshot', () => {
  it('is printed with its values, as they are then', async () => {
    const { circuits, forceOpen } = await openCircuit()
    expect(inspect(circuits.stripe)).toContain("state: 'CLOSED'")
    await forceOpen()
    expect(inspect(circuits)).toContain("state: 'OPEN'")
    expect(inspect(circuits)).not.toContain('Getter')
  })

  it('is copied and made JSON without what prints it', async () => {
    const { circuits } = await openCircuit()
    expect(Reflect.ownKeys({ ...circuits.stripe })).toEqual(Object.keys(circuits.stripe))
    expect(JSON.parse(JSON.stringify(circuits.stripe))).toMatchObject({ service: 'stripe', state: 'CLOSED' })
  })

  it('cannot be changed', async () => {
    const { circuits } = await openCircuit()
    expect(() => Object.assign(circuits.stripe, { state: 'OPEN' })).toThrow(TypeError)
    expect(() => Object.assign(circuits.stripe, { note: 'mine' })).toThrow(TypeError)
  })
})

async function openCircuit() {
  const breaker = new CircuitBreaker({ services: ['stripe'] }, { env: {} })
  return { circuits: breaker.circuits, forceOpen: () => breaker.forceOpen('stripe') }
}
