import { describe, expect, it } from '@jest/globals'
import type { CircuitBreaker } from '../../../src/index.ts'
import { controlled, createFleet, type Fleet, ok, outcomeOf, trip, unavailable } from '../../support/virtual-fleet.ts'

/** A circuit that a probe has just closed; the lots of its calls are drawn by `draw`. */
async function recovered(draw: () => number, options = {}): Promise<Fleet & { readonly breaker: CircuitBreaker }> {
  let isOver = false
  const fleet = createFleet({ rampUp: 10_000, ...options }, { random: () => (isOver ? draw() : 0) })
  const breaker = fleet.start()
  await trip(breaker)
  await fleet.runtime.advance(11_000)
  await breaker.call('stripe', ok)
  await breaker.flush()
  isOver = true
  return { ...fleet, breaker }
}

/** The part of evenly spread lots that is admitted. */
async function admitted(breaker: CircuitBreaker, set: (lot: number) => void): Promise<number> {
  let count = 0
  for (let lot = 0; lot < 100; lot++) {
    set((lot + 0.5) / 100)
    if ((await outcomeOf(breaker.call('stripe', ok))).error === undefined) count++
  }
  return count
}

describe('rampUp', () => {
  it('admits a tenth of the calls when the circuit has closed, then more and more, and all of them in the end', async () => {
    let lot = 0
    const { breaker, runtime } = await recovered(() => lot)
    const parts: number[] = []
    for (let step = 0; step <= 4; step++) {
      parts.push(
        await admitted(breaker, (next) => {
          lot = next
        }),
      )
      await runtime.advance(2_500)
    }
    expect(parts).toEqual([10, 32, 55, 77, 100])
  })

  it('refuses with the reason and the time that it takes', async () => {
    const { breaker, runtime } = await recovered(() => 0.99)
    await runtime.advance(4_000)
    const { error } = await outcomeOf(breaker.call('stripe', ok))
    expect(error).toMatchObject({ code: 'CIRCUIT_OPEN', reason: 'ramping', retryAfter: 6_000 })
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('holds for every instance that reads the record', async () => {
    const { start, runtime } = await recovered(() => 0.99)
    const other = start()
    await other.load()
    expect((await outcomeOf(other.call('stripe', ok))).error).toMatchObject({ reason: 'ramping' })
    await runtime.advance(10_000)
    expect(await other.call('stripe', ok)).toBe('ok')
  })

  it('draws one lot for a call, also where it has to wait for a permit', async () => {
    const lots = [0.05, 0.05]
    const { breaker, runtime } = await recovered(() => lots.shift() ?? 0.99, { maxConcurrent: 1 })
    const first = controlled()
    const calls = [breaker.call('stripe', first.operation), breaker.call('stripe', ok)]
    await runtime.settle()
    first.succeed('first')
    expect(await Promise.all(calls)).toEqual(['first', 'ok'])
  })

  it('counts the failures of the calls that it admits', async () => {
    const { breaker, runtime, storage } = await recovered(() => 0)
    for (let call = 0; call < 3; call++) await outcomeOf(breaker.call('stripe', unavailable))
    await runtime.advance(0)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN' })
  })

  it('refuses nobody in mode observe, nor after a reset', async () => {
    const observing = await recovered(() => 0.99, { mode: 'observe' })
    expect(await observing.breaker.call('stripe', ok)).toBe('ok')
    const { breaker } = await recovered(() => 0.99)
    await breaker.reset('stripe')
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })
})
