import { describe, expect, it } from '@jest/globals'
import { type KeyedFigures, type KeyedFleetOptions, measureKeys } from './keyed-fleet.ts'
import { inMacrotask } from './microtasks.ts'

const times = { rest: 20_000, outage: 30_000, recovery: 60_000 }
const base: KeyedFleetOptions = { instances: 20, rate: 10, keys: 100, keyed: {}, seed: 1 }

function measure(options: Partial<KeyedFleetOptions>, dies: (key: number) => boolean): Promise<KeyedFigures> {
  return inMacrotask(() => measureKeys({ ...base, ...options }, dies, times))
}

describe.each([false, true])('a keyed fleet (parent: %s)', (parent) => {
  const keyed = { parent }

  it('opens the circuit of one dead key, and no other', async () => {
    const figures = await measure({ keyed, shareOfFirst: 0.1 }, (key) => key === 0)
    expect(figures).toMatchObject({ violations: [], refusedOthers: 0, openings: { keys: 1, service: 0 } })
    expect(figures.reached).toBeLessThan(60)
  })

  it('is protected when all keys are dead, and serves again when they are back', async () => {
    const figures = await measure({ keyed }, () => true)
    expect(figures.violations).toEqual([])
    expect(figures.openings.service > 0).toBe(parent)
    if (!parent) expect(figures.openings.keys).toBe(100)
    // Without a circuit, all of them.
    expect(figures.reached).toBeLessThan(figures.calls / 4)
    expect(figures.toService).toBeLessThan(times.recovery)
  })
})

it('with a circuit for the service as a whole too, fewer calls reach a dead provider', async () => {
  const [alone, both] = [
    await measure({ keys: 300 }, () => true),
    await measure({ keys: 300, keyed: { parent: true } }, () => true),
  ]
  expect(both.reached).toBeLessThan(alone.reached / 4)
  expect(both.records).toBeLessThan(alone.records / 4)
})
