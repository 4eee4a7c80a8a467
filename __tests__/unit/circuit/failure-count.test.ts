import { describe, expect, it } from '@jest/globals'
import { createFleet, failTimes, ok, trip } from '../../support/virtual-fleet.ts'

describe('the snapshot', () => {
  it('shows the failures in a row of its own instance up to the last millisecond of the window', async () => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    storage.outage = 'fail'
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    expect(breaker.circuits.stripe?.failureCount).toBe(1)
    await runtime.advance(1)
    expect(breaker.circuits.stripe?.failureCount).toBe(0)
  })

  it('shows those of others that are known, and its own, until they are over', async () => {
    const { start, runtime } = createFleet({ failureThreshold: 9 })
    const [breaker, other] = [start(), start()]
    await failTimes(other, 2)
    await other.flush()
    await breaker.load()
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.failureCount).toBe(3)
    await runtime.advance(60_001)
    expect(breaker.circuits.stripe?.failureCount).toBe(0)
  })

  it('of a circuit that others have opened shows how many failures opened it', async () => {
    const { start } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(other)
    await breaker.load()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', failureCount: 3 })
  })
})
