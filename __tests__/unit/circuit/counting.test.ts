import { describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../../src/index.ts'
import { emptyRecord } from '../../../src/storage/record.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  ok,
  outcomeOf,
  trip,
} from '../../support/virtual-fleet.ts'

async function startLoaded(fleet: Fleet, instances: number): Promise<CircuitBreaker[]> {
  const breakers = Array.from({ length: instances }, () => fleet.start())
  await Promise.all(breakers.map((breaker) => breaker.load()))
  return breakers
}

describe('the streak of failures', () => {
  it('opens the circuit with the third in a row, and not before', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({
      state: 'OPEN',
      failureCount: 3,
      trips: 1,
      generation: 1,
    })
  })

  it('is counted over all instances, cold ones reporting at once', async () => {
    const fleet = createFleet()
    const breakers = await startLoaded(fleet, 3)
    for (const breaker of breakers) {
      await failTimes(breaker, 1)
      await breaker.flush()
    }
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
    expect(fleet.events).toHaveLength(1)
  })

  it('opens also when concurrent increments overshoot the threshold, and exactly once', async () => {
    const fleet = createFleet()
    fleet.storage.requestLatency = 5
    fleet.storage.replyLatency = 5
    const breakers = Array.from({ length: 20 }, () => fleet.start())
    const loading = Promise.all(breakers.map((breaker) => breaker.load()))
    await fleet.runtime.advance(10)
    await loading
    await Promise.all(breakers.map((breaker) => failTimes(breaker, 1)))
    await fleet.runtime.advance(1_000)
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', generation: 1 })
    expect(fleet.events).toHaveLength(1)
    expect(fleet.storage.operations.filter((name) => name === 'incrementFailures').length).toBeLessThanOrEqual(20)
  })

  it('that is complete although its author died is finished by the next failure of anybody', async () => {
    const fleet = createFleet()
    const now = fleet.runtime.now()
    await fleet.storage.put('stripe', { ...emptyRecord('e', now), version: 'v', failureCount: 3, lastFailureAt: now })
    const breaker = fleet.start()
    expect(
      await breaker
        .call(
          'stripe',
          async () => {
            throw new BadRequest('400')
          },
          {},
        )
        .catch(() => 'passed'),
    ).toBe('passed')
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.state).toBe('OPEN')
    expect(fleet.events).toHaveLength(1)
  })

  it('is ended by a success of any instance that knows of it, with one write', async () => {
    const fleet = createFleet()
    const [failing, working] = await startLoaded(fleet, 2)
    await failTimes(failing as CircuitBreaker, 2)
    await failing?.flush()
    await fleet.runtime.advance(5_000)
    await working?.load()
    fleet.storage.forget()
    await working?.call('stripe', ok)
    await working?.call('stripe', ok)
    await working?.flush()
    expect(fleet.storage.operations).toEqual(['compareAndSetState'])
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('ends with an idle gap longer than the window, without a write; the next failure replaces the count', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await failTimes(breaker, 2)
    await breaker.flush()
    await fleet.runtime.advance(60_001)
    const cold = fleet.start()
    await cold.load()
    expect(cold.circuits.stripe?.failureCount).toBe(0)
    fleet.storage.forget()
    await failTimes(cold, 1)
    await cold.flush()
    expect(fleet.storage.operations).toEqual(['compareAndSetState'])
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('is not broken and not prolonged by errors that are ignored', async () => {
    const breaker = createFleet().start()
    await failTimes(breaker, 2)
    await outcomeOf(breaker.call('stripe', () => Promise.reject(new BadRequest('400'))))
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('opens at a threshold of 1 with the first failure, also right after a success', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  // The count is the fleet's: a success of another instance has broken the streak. The instance refuses by its own
  // streak only until the store has answered.
  it('opens only provisionally in an instance whose own streak is complete, but was broken by another', async () => {
    const fleet = createFleet()
    const [failing, working] = await startLoaded(fleet, 2)
    await failTimes(failing as CircuitBreaker, 2)
    await failing?.flush()
    await fleet.runtime.advance(5_000)
    await working?.load()
    await working?.call('stripe', ok)
    await working?.flush()
    await failTimes(failing as CircuitBreaker, 1)
    expect(failing?.circuits.stripe?.state).toBe('OPEN')
    await failing?.flush()
    expect(failing?.circuits.stripe?.state).toBe('CLOSED')
  })
})

describe('an isolated failure of a service that works', () => {
  it('is held back: nothing is sent', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    fleet.storage.forget()
    await failTimes(breaker, 1)
    expect(breaker.needsFlush).toBe(false)
    expect(fleet.storage.requests).toEqual([])
  })

  it('is reported together with the second', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 2)
    await breaker.flush()
    const increments = fleet.storage.writes.map(({ args }) => (args[2] as { count: number }).count)
    expect(increments).toEqual([2])
  })

  it.each([
    [
      'a success in between',
      async (fleet: Fleet, breaker: CircuitBreaker) => {
        await breaker.call('stripe', ok)
        void fleet
      },
    ],
    ['the window', async (fleet: Fleet) => fleet.runtime.advance(60_001)],
  ])('is dropped by %s', async (_by, pass) => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await pass(fleet, breaker)
    await failTimes(breaker, 1)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('is dropped by a new epoch', async () => {
    const fleet = createFleet()
    const [breaker, operator] = await startLoaded(fleet, 2)
    await breaker?.call('stripe', ok)
    await failTimes(breaker as CircuitBreaker, 1)
    await operator?.forceOpen('stripe')
    await operator?.reset('stripe')
    await fleet.runtime.advance(5_000)
    await breaker?.load()
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBeLessThanOrEqual(1)
    expect(breaker?.circuits.stripe?.failureCount).toBe(1)
  })

  it('is not in the sum that opens the circuit together with what others reported', async () => {
    const fleet = createFleet()
    const [breaker, other] = await startLoaded(fleet, 2)
    await breaker?.call('stripe', ok)
    await failTimes(other as CircuitBreaker, 2)
    await other?.flush()
    await fleet.runtime.advance(5_000)
    await breaker?.load()
    await failTimes(breaker as CircuitBreaker, 1)
    expect(breaker?.circuits.stripe?.state).toBe('CLOSED')
    await failTimes(breaker as CircuitBreaker, 1)
    expect(breaker?.circuits.stripe?.state).toBe('OPEN')
  })

  it('is reported at once where the last success is longer ago than the window', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    await fleet.runtime.advance(60_001)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('is told by the latest success, in whatever order the calls end', async () => {
    const fleet = createFleet({ timeout: 120_000 })
    const breaker = fleet.start()
    await breaker.load()
    const slow = controlled()
    const call = breaker.call('stripe', slow.operation)
    await fleet.runtime.advance(50_000)
    await breaker.call('stripe', ok)
    await fleet.runtime.advance(5_000)
    slow.succeed('ok')
    await call
    await fleet.runtime.advance(15_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(fleet.storage.writes).toEqual([])
  })

  it('is told by the successes since the clock stepped back, not by those of a time that never came', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    fleet.runtime.setClock(fleet.runtime.now() - 3_600_000)
    await breaker.call('stripe', ok)
    await fleet.runtime.advance(60_001)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('is not told by a success that does not count: from before the circuit was reset', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    const slow = controlled()
    const call = breaker.call('stripe', slow.operation)
    await breaker.forceOpen('stripe')
    await breaker.reset('stripe')
    slow.succeed('from another time')
    await call
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('is not told by a success that does not count: under an override', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    await breaker.forceClosed('stripe')
    await breaker.call('stripe', ok)
    await breaker.reset('stripe')
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('does not change when a single instance opens: with the third in a row', async () => {
    const breaker = createFleet().start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('keeps a fleet closed in which each instance fails now and then', async () => {
    const fleet = createFleet()
    const breakers = await startLoaded(fleet, 10)
    for (let round = 0; round < 5; round++) {
      for (const breaker of breakers) {
        await breaker.call('stripe', ok)
        await failTimes(breaker, 1)
      }
    }
    expect(fleet.storage.writes).toEqual([])
    for (const breaker of breakers) expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  describe('and whose record is older than its streak', () => {
    /** Has seen a success and then fails once, a second after it read the record. */
    async function startHolding(fleet: Fleet, options: { now?: boolean } = {}): Promise<CircuitBreaker> {
      const breaker = fleet.start()
      await breaker.load()
      await breaker.call('stripe', ok)
      if (options.now !== true) await fleet.runtime.advance(1_000)
      await failTimes(breaker, 1)
      fleet.storage.forget()
      return breaker
    }

    it('is reported after a look at the record', async () => {
      const fleet = createFleet({}, { random: () => 0.49 })
      const breaker = await startHolding(fleet)
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['getState', 'incrementFailures'])
      expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
      expect(fleet.storage.operations).toEqual(['getState', 'incrementFailures', 'compareAndSetState'])
    })

    it('is not written where others have opened the circuit already', async () => {
      const fleet = createFleet({}, { random: () => 0.49 })
      const breaker = await startHolding(fleet)
      await trip(fleet.start())
      fleet.storage.forget()
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['getState'])
      expect(breaker.circuits.stripe?.state).toBe('OPEN')
      expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
      expect(fleet.events).toHaveLength(1)
    })

    it('is reported without one by the other half of the fleet, which is faster', async () => {
      const fleet = createFleet({}, { random: () => 0.5 })
      const breaker = await startHolding(fleet)
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['incrementFailures'])
    })

    it('is reported without one where the record was read since the streak began', async () => {
      const fleet = createFleet()
      const breaker = await startHolding(fleet, { now: true })
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['incrementFailures'])
    })

    it('is reported without one where no other instance uses the store', async () => {
      const fleet = createFleet()
      fleet.storage.shared = false
      const breaker = await startHolding(fleet)
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['incrementFailures'])
    })

    it('is reported all the same where the look fails: the next failure opens the circuit', async () => {
      const fleet = createFleet()
      const breaker = await startHolding(fleet)
      fleet.storage.inject('fail', 'getState')
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['getState', 'incrementFailures'])
      expect(await fleet.storage.peek('stripe')).toMatchObject({ failureCount: 2 })
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
      expect(fleet.events).toHaveLength(1)
    })

    it('waits for the look no longer than 100 ms, and takes what it says later all the same', async () => {
      const fleet = createFleet()
      const breaker = await startHolding(fleet)
      const look = fleet.storage.holdReply('getState')
      await failTimes(breaker, 2)
      await fleet.runtime.advance(99)
      expect(fleet.storage.operations).toEqual(['getState'])
      await fleet.runtime.advance(1)
      expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
      expect(breaker.circuits.stripe?.state).toBe('OPEN')
      look.release()
      await fleet.runtime.settle()
      expect(breaker.circuits.stripe?.state).toBe('OPEN')
      expect(fleet.storageErrors).toEqual([])
    })

    it('is reported without one where it is enough to open the circuit', async () => {
      const fleet = createFleet({ failureThreshold: 2 })
      const breaker = await startHolding(fleet)
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['compareAndSetState'])
      expect(fleet.events).toHaveLength(1)
    })

    it('is reported without one while the store is not to be read', async () => {
      const fleet = createFleet()
      const breaker = await startHolding(fleet)
      fleet.storage.inject('fail', 'batchGetState', 2)
      await fleet.runtime.advance(5_000)
      await breaker.load()
      await breaker.load()
      fleet.storage.forget()
      await failTimes(breaker, 1)
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['incrementFailures'])
    })

    it('is dropped when a success comes while it looks', async () => {
      const fleet = createFleet()
      const breaker = await startHolding(fleet)
      const look = fleet.storage.holdRequest('getState')
      await failTimes(breaker, 1)
      await look.arrived
      await breaker.call('stripe', ok)
      look.release()
      await breaker.flush()
      expect(fleet.storage.operations).toEqual(['getState'])
      expect(await fleet.storage.peek('stripe')).toBeUndefined()
    })
  })
})

describe('a success of a service that works', () => {
  async function startCounting(fleet: Fleet) {
    let looks = 0
    const { now } = fleet.runtime
    const runtime = {
      ...fleet.runtime,
      env: {},
      now: () => {
        looks++
        return now()
      },
    }
    const breaker = new CircuitBreaker<string>(
      { services: ['stripe'], storage: fleet.storage, cacheTtl: 60_000 },
      runtime,
    )
    await breaker.load()
    const looksAtTheClock = async (operation: () => Promise<unknown>): Promise<number> => {
      looks = 0
      await outcomeOf(breaker.call('stripe', operation))
      return looks
    }
    return { breaker, looksAtTheClock }
  }
  const ignored = () => Promise.reject(new BadRequest('400'))

  it('costs no more than an error that says nothing of the service: not even another look at the clock', async () => {
    const { looksAtTheClock } = await startCounting(createFleet())
    expect(await looksAtTheClock(ok)).toBe(await looksAtTheClock(ignored))
  })

  it('costs no more either where a record is stored', async () => {
    const fleet = createFleet()
    const { breaker, looksAtTheClock } = await startCounting(fleet)
    await failTimes(breaker, 1)
    await breaker.call('stripe', ok)
    await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({ failureCount: 0 })
    expect(await looksAtTheClock(ok)).toBe(await looksAtTheClock(ignored))
  })
})

describe('outcomes that wait to be written', () => {
  it('are coalesced behind the write that is under way', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    const held = fleet.storage.holdReply('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await failTimes(breaker, 40)
    held.release()
    await breaker.flush()
    expect(fleet.storage.writes.map(({ args }) => (args[2] as { count: number }).count)).toEqual([1, 40])
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(41)
  })

  it('never become a sum: a success among them ends what was before it', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    const held = fleet.storage.holdReply('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await failTimes(breaker, 10)
    await breaker.call('stripe', ok)
    await failTimes(breaker, 3)
    held.release()
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(3)
  })

  it('are decided again from the latest record after a conflict', async () => {
    const fleet = createFleet()
    const [breaker, other] = await startLoaded(fleet, 2)
    await failTimes(other as CircuitBreaker, 2)
    await other?.flush()
    await other?.call('stripe', ok)
    await other?.flush()
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('are counted once when the reply to an increment was lost', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    fleet.storage.inject('lose-with-error', 'incrementFailures')
    await failTimes(breaker, 1)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('are dropped when they are older than the window', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    fleet.storage.inject('fail', 'incrementFailures')
    await failTimes(breaker, 5)
    await fleet.runtime.settle()
    fleet.runtime.setClock(fleet.runtime.now() + 3_600_000)
    fleet.storage.forget()
    await breaker.load()
    await breaker.flush()
    expect(fleet.storage.writes.length).toBeLessThanOrEqual(1)
    expect((await fleet.storage.peek('stripe'))?.failureCount ?? 0).toBeLessThanOrEqual(5)
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('an outcome of another epoch', () => {
  it('is dropped: a success from before the trip leaves the circuit open', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    const slow = controlled()
    const call = breaker.call('stripe', slow.operation)
    await trip(breaker)
    const record = await fleet.storage.peek('stripe')
    slow.succeed('from another time')
    expect(await call).toBe('from another time')
    await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toEqual(record)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it.each(['OPEN', 'HALF_OPEN', 'CLOSED again'])(
    'is dropped: a failure from before the trip does nothing when it is %s',
    async (when) => {
      const fleet = createFleet({ failureThreshold: 2 })
      const breaker = fleet.start()
      await breaker.load()
      const slow = controlled()
      const call = outcomeOf(breaker.call('stripe', slow.operation))
      await failTimes(breaker, 2)
      await breaker.flush()
      if (when !== 'OPEN') await fleet.runtime.advance(10_000)
      const probe = controlled()
      const probing = when === 'OPEN' ? undefined : breaker.call('stripe', probe.operation)
      await fleet.runtime.settle()
      if (when === 'CLOSED again') {
        probe.succeed('ok')
        await probing
        await breaker.flush()
      }
      const record = await fleet.storage.peek('stripe')
      slow.fail()
      await call
      await breaker.flush()
      expect(await fleet.storage.peek('stripe')).toEqual(record)
      probe.succeed('ok')
      await probing
    },
  )

  it('is dropped also after the record was deleted and grew again', async () => {
    const fleet = createFleet({ failureThreshold: 5, cacheTtl: 1_000 })
    const [breaker, other] = await startLoaded(fleet, 2)
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    const slow = controlled()
    const call = outcomeOf((breaker as CircuitBreaker).call('stripe', slow.operation))
    await fleet.storage.remove('stripe')
    await fleet.runtime.advance(1_000)
    await other?.load()
    await failTimes(other as CircuitBreaker, 1)
    await other?.flush()
    await breaker?.load()
    const record = await fleet.storage.peek('stripe')
    slow.fail()
    await call
    await breaker?.flush()
    expect(await fleet.storage.peek('stripe')).toEqual(record)
  })

  it('is dropped when the deletion was seen before the record grew again', async () => {
    const fleet = createFleet({ failureThreshold: 5, cacheTtl: 1_000 })
    const [breaker] = await startLoaded(fleet, 1)
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    const slow = controlled()
    const call = outcomeOf((breaker as CircuitBreaker).call('stripe', slow.operation))
    await fleet.storage.remove('stripe')
    await fleet.runtime.advance(1_000)
    await breaker?.load()
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    slow.fail()
    await call
    await breaker?.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('is none where the first record continues what this instance made up: it counts', async () => {
    const fleet = createFleet({ failureThreshold: 5 })
    const [breaker] = await startLoaded(fleet, 1)
    const slow = controlled()
    const call = outcomeOf((breaker as CircuitBreaker).call('stripe', slow.operation))
    await failTimes(breaker as CircuitBreaker, 1)
    await breaker?.flush()
    slow.fail()
    await call
    await breaker?.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(2)
  })
})
