import { describe, expect, it } from '@jest/globals'
import { createFleet, failTimes, ok, trip } from '../../support/virtual-fleet.ts'

describe('the snapshot', () => {
  it('shows a failure that was held back up to the last millisecond of the window', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    expect(breaker.circuits.stripe?.failureCount).toBe(1)
    await runtime.advance(1)
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
