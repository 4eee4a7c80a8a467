import { inspect } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import type { Circuit } from '../../../src/circuit/circuit.ts'
import { snapshotOf } from '../../../src/circuit/snapshot.ts'
import { CircuitBreaker } from '../../../src/index.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

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

describe('a snapshot shows', () => {
  const settings = { mode: 'enforce', resetTimeout: 10_000, maxResetTimeout: 60_000 }
  const closed = circuitRecord({ generation: 4, epoch: 'e4', successCount: 2, lastFailureAt: 700 })
  const lastFailure = { at: 800, name: 'Error' }
  const open = {
    ...closed,
    state: 'OPEN' as const,
    openedAt: 1_000,
    retryAt: 11_000,
    resetTimeout: 10_000,
    lastFailure,
  }

  function shown(view: CircuitRecord, acting = view, now = 2_000) {
    const circuit = { service: 'stripe', settings, view, acting, failureCount: 3 } as unknown as Circuit
    return snapshotOf(() => ({ circuit, permits: { queued: 5 } }), { now: () => now }, circuit)
  }

  it('the view, and what is known of the failures', () => {
    expect({ ...shown(closed) }).toEqual({
      service: 'stripe',
      mode: 'enforce',
      state: 'CLOSED',
      scope: 'fleet',
      failureCount: 3,
      successCount: 2,
      openedAt: undefined,
      retryAt: undefined,
      lastFailureAt: 700,
      lastFailure: undefined,
      generation: 4,
      epoch: 'e4',
      override: undefined,
      queued: 5,
    })
  })

  it('a circuit that is open, until it may be probed', () => {
    expect(shown(open)).toMatchObject({ state: 'OPEN', scope: 'fleet', openedAt: 1_000, retryAt: 11_000, lastFailure })
    expect(shown(open, open, 11_000).state).toBe('HALF_OPEN')
    expect(shown({ ...open, retryAt: 1e9 }).retryAt).toBe(61_000)
  })

  it('the refusal of this instance as its own', () => {
    expect(shown(closed, open)).toMatchObject({ state: 'OPEN', scope: 'instance', openedAt: 1_000, lastFailure })
  })

  it.each([
    ['open, until it ends', { state: 'OPEN' as const, at: 1, until: 5_000 }, 'OPEN', 5_000],
    ['open without an end', { state: 'OPEN' as const, at: 1 }, 'OPEN', undefined],
    ['closed', { state: 'CLOSED' as const, at: 1, until: 5_000 }, 'CLOSED', undefined],
    ['open, which has ended', { state: 'OPEN' as const, at: 1, until: 2_000 }, 'OPEN', 11_000],
  ])('a circuit that an operator holds %s', (_how, override, state, retryAt) => {
    expect(shown({ ...open, override })).toMatchObject({ state, retryAt, override })
  })
})
