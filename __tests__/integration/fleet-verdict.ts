/** The promises on who opens the circuit of a fleet: the same on every store. */

import { expect, it } from '@jest/globals'
import type { ICircuitStorage } from '../../src/index.ts'
import type { Fleet } from '../support/fleet.ts'
import type { FleetWorkerSetup } from '../support/fleet-worker.ts'

/** A fleet of four processes, and the store that they share. */
interface Equipped {
  readonly setup: FleetWorkerSetup
  readonly storage: ICircuitStorage
}

/** So many processes a fleet has. */
const processes = 4

/** Instances that have all seen the service work come to this many. */
const warm = 5 * processes

/**
 * Defines the tests.
 *
 * @param equip gives each process so many breakers, of which none knows anything yet
 */
export function testWhoOpens(
  fleet: () => Fleet,
  equip: (breakers: number, options?: FleetWorkerSetup['options']) => Promise<Equipped>,
): void {
  const stateIn = async (storage: ICircuitStorage): Promise<string> =>
    (await storage.getState('stripe'))?.state ?? 'CLOSED'

  it('opens at exactly the third failure of one instance, with one event that says why', async () => {
    const { storage } = await equip(1)
    const [process] = fleet().processes
    const states: string[] = []
    for (let failure = 0; failure < 3; failure++) {
      await process?.call('fail')
      states.push(await stateIn(storage))
    }
    expect(states).toEqual(['CLOSED', 'CLOSED', 'OPEN'])
    const { events, storageErrors } = await fleet().report()
    expect(storageErrors).toEqual([])
    const { retryAt } = (await storage.getState('stripe')) ?? {}
    expect(events).toMatchObject([
      {
        from: 'CLOSED',
        to: 'OPEN',
        reason: 'failure-threshold',
        evidence: { failures: 3, successes: 0, reporters: 1 },
        lastFailure: { name: 'ServiceError', status: 503 },
        retryAt,
      },
    ])
  })

  it('opens at exactly the third failure of three cold instances, one after another, and a fourth is refused', async () => {
    const { storage } = await equip(1)
    const states: string[] = []
    const results: object[] = []
    for (const process of fleet().processes) {
      results.push(await process.call('fail'))
      states.push(await stateIn(storage))
    }
    expect(states).toEqual(['CLOSED', 'CLOSED', 'OPEN', 'OPEN'])
    expect(results[3]).toEqual({ ran: 0, refused: 1 })
    const { events, storageErrors } = await fleet().report()
    expect(storageErrors).toEqual([])
    expect(events).toMatchObject([{ to: 'OPEN', evidence: { failures: 3, successes: 0, reporters: 3 } }])
  })

  it.each([2, 3, 5])(
    'opens at a threshold of %d when so many of 20 warm instances have failed in turn, one a second, or one more',
    async (failureThreshold) => {
      const { storage } = await equip(warm / processes, { failureThreshold })
      await fleet().call('succeed')
      let failures = 0
      for (; failures < warm && (await stateIn(storage)) === 'CLOSED'; failures++) {
        await fleet().advance(1_000)
        await fleet().processes[failures % processes]?.call('fail', { only: Math.floor(failures / processes) })
      }
      expect(failures).toBeGreaterThanOrEqual(failureThreshold)
      expect(failures).toBeLessThanOrEqual(failureThreshold + 1)
      const { events, storageErrors } = await fleet().report()
      expect(storageErrors).toEqual([])
      expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold' }])
    },
  )

  it('stays closed for the others where one instance alone fails, which refuses by itself', async () => {
    const { storage } = await equip(2, { cacheTtl: 0 })
    // The others are known: two of them have spoken under a suspicion that came to nothing.
    await fleet().call('succeed')
    await fleet().processes[0]?.call('fail', { only: 0 })
    for (let round = 0; round < 3; round++) {
      await fleet().load()
      await fleet().call('succeed')
    }
    for (let failure = 0; failure < 5; failure++) {
      await fleet().processes[0]?.call('fail', { only: 0 })
      await fleet().load()
      await fleet().processes[1]?.call('succeed')
    }
    expect(await stateIn(storage)).toBe('CLOSED')
    const { events, states, storageErrors } = await fleet().report()
    expect(storageErrors).toEqual([])
    expect(events).toEqual([])
    expect(states.filter((state) => state !== 'CLOSED')).toEqual(['OPEN'])
  })
}
