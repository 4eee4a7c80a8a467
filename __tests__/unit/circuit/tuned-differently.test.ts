/** Functions that share a circuit and are tuned differently: the parts that no example shows. */

import { describe, expect, it } from '@jest/globals'
import { controlled, createFleet, ok, outcomeOf, trip } from '../../support/virtual-fleet.ts'

describe('of two functions that share a circuit', () => {
  it.each([
    ['closes it by one success', 1, 'CLOSED'],
    ['leaves it half open', 2, 'HALF_OPEN'],
  ])('the one whose probe succeeds %s where its own halfOpenSuccessThreshold is %i', async (_, threshold, state) => {
    const { start, storage, runtime } = createFleet({ resetTimeout: 10_000 })
    await trip(start({ halfOpenSuccessThreshold: 3 - threshold }))
    const prober = start({ halfOpenSuccessThreshold: threshold })
    await runtime.advance(15_000)
    await prober.load()
    expect(await prober.call('stripe', ok)).toBe('ok')
    await prober.flush()
    expect((await storage.peek('stripe'))?.state).toBe(state)
  })

  it('each asks for as many probes at once as its own halfOpenMaxConcurrent', async () => {
    const { start, runtime } = createFleet({ resetTimeout: 10_000, cacheTtl: 0 })
    await trip(start())
    const [strict, lax] = [start({ halfOpenMaxConcurrent: 1 }), start({ halfOpenMaxConcurrent: 2 })]
    await runtime.advance(15_000)
    await Promise.all([strict.load(), lax.load()])
    const probe = controlled()
    const probing = strict.call('stripe', probe.operation)
    await runtime.settle()
    expect(probe.started).toBe(1)
    await strict.load()
    expect(await outcomeOf(strict.call('stripe', ok))).toMatchObject({ error: { reason: 'probing' } })
    await lax.load()
    expect(await lax.call('stripe', ok)).toBe('ok')
    probe.succeed('ok')
    await probing
  })
})
