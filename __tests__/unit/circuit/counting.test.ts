import { describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../../src/index.ts'
import type { Outcomes } from '../../../src/storage/contract.ts'
import {
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  never,
  observedBy,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

async function startLoaded(fleet: Fleet, instances: number): Promise<CircuitBreaker[]> {
  const breakers = Array.from({ length: instances }, () => fleet.start())
  await Promise.all(breakers.map((breaker) => breaker.load()))
  return breakers
}

/** The outcomes that were added to the store, in order. */
function additions({ storage }: Fleet): Outcomes[] {
  return storage.writes.filter(({ operation }) => operation === 'addOutcomes').map(({ args }) => args[2] as Outcomes)
}

/** Two instances of which each has heard of the other in a suspicion that came to nothing. */
async function startAcquainted(fleet: Fleet): Promise<[CircuitBreaker, CircuitBreaker]> {
  const [one, other] = (await startLoaded(fleet, 2)) as [CircuitBreaker, CircuitBreaker]
  await failTimes(one, 1)
  await one.flush()
  await other.load()
  await fleet.runtime.advance(5_000)
  await other.load()
  for (const breaker of [one, other, other, other, other]) {
    await breaker.call('stripe', ok)
    await breaker.flush()
  }
  await fleet.runtime.advance(5_000)
  await Promise.all([one.load(), other.load()])
  const record = await fleet.storage.peek('stripe')
  expect(record).toMatchObject({ suspectedAt: undefined, dismissals: 1 })
  expect(record?.othersAt).toBeDefined()
  fleet.storage.forget()
  return [one, other]
}

describe('failures in a row', () => {
  it('of one instance open the circuit with the third, and not before', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', scope: 'fleet' })
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await breaker.flush()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'fleet' })
    expect(await fleet.storage.peek('stripe')).toMatchObject({
      state: 'OPEN',
      failureCount: 3,
      trips: 1,
      generation: 1,
    })
    expect(fleet.storage.operations.slice(1)).toEqual([
      'compareAndSetState',
      'addOutcomes',
      'addOutcomes',
      'compareAndSetState',
    ])
  })

  it('of three cold instances open it with the third, by one event', async () => {
    const fleet = createFleet()
    for (let instance = 0; instance < 3; instance++) {
      const breaker = fleet.start()
      await failTimes(breaker, 1)
      await breaker.flush()
    }
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 3 })
    expect(fleet.events).toMatchObject([{ to: 'OPEN', evidence: { failures: 3, successes: 0, reporters: 3 } }])
  })

  it('of twenty instances at once open it exactly once', async () => {
    const fleet = createFleet()
    fleet.storage.requestLatency = 5
    fleet.storage.replyLatency = 5
    const breakers = Array.from({ length: 20 }, () => fleet.start())
    const loading = Promise.all(breakers.map((breaker) => breaker.load()))
    await fleet.runtime.advance(10)
    await loading
    await Promise.all(breakers.map((breaker) => failTimes(breaker, 1)))
    await fleet.runtime.advance(1_000)
    // The failures had run into the suspicion: they join when it is a second old.
    await Promise.all([fleet.start().load(), fleet.runtime.advance(10)])
    await fleet.runtime.advance(1_000)
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN', generation: 1, reporterCount: 20 })
    expect(fleet.events).toHaveLength(1)
  })

  it('are told of no success: the next one breaks them', async () => {
    const breaker = createFleet().start()
    await failTimes(breaker, 2)
    await breaker.call('stripe', ok)
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('are not broken and not prolonged by errors that are ignored', async () => {
    const breaker = createFleet().start()
    await failTimes(breaker, 2)
    await outcomeOf(breaker.call('stripe', () => Promise.reject(new TypeError('a bug'))))
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('end with an idle gap longer than the window: whoever reads of them dismisses what they raised', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await failTimes(breaker, 2)
    await breaker.flush()
    await fleet.runtime.advance(60_001)
    const cold = fleet.start()
    await cold.load()
    await cold.flush()
    expect(cold.circuits.stripe?.failureCount).toBe(0)
    await fleet.runtime.advance(1)
    await failTimes(cold, 1)
    await cold.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('are one at a threshold of 1, also right after a success', async () => {
    const breaker = createFleet({ failureThreshold: 1 }).start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'fleet', failureCount: 1 })
  })
})

describe('one instance alone', () => {
  it('does not open the circuit that others are known to use: it refuses by itself, and says so', async () => {
    const fleet = createFleet()
    const [failing, working] = await startAcquainted(fleet)
    const observed = observedBy(failing)
    await failTimes(failing, 3)
    await failing.flush()
    expect(failing.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'instance' })
    expect((await outcomeOf(failing.call('stripe', ok))).error).toMatchObject({ code: 'CIRCUIT_OPEN', reason: 'open' })
    await fleet.runtime.advance(4_000)
    await working.load()
    for (let call = 0; call < 6; call++) await working.call('stripe', ok)
    await working.flush()
    expect(working.circuits.stripe?.state).toBe('CLOSED')
    await fleet.runtime.advance(1_000)
    await failing.load()
    expect(observed).toMatchObject([{ reason: 'instance-unhealthy', to: 'OPEN', lastFailure: { status: 503 } }])
    expect(fleet.events).toEqual([])
  })

  it('probes by itself after resetTimeout, without asking the store', async () => {
    const fleet = createFleet()
    const [failing] = await startAcquainted(fleet)
    await failTimes(failing, 3)
    await failing.flush()
    await fleet.runtime.advance(10_000)
    await failing.load()
    fleet.storage.forget()
    expect(await failing.call('stripe', ok)).toBe('ok')
    expect(failing.circuits.stripe).toMatchObject({ state: 'CLOSED', scope: 'fleet' })
    await failing.flush()
    expect(fleet.storage.operations.filter((operation) => operation === 'compareAndSetState')).toEqual([])
  })
})

describe('a success of a service that nobody suspects', () => {
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
    // The first call after these takes the short way: one of them was watched.
    for (let index = 0; index < 2; index++) await breaker.call('stripe', ok)
    const looksAtTheClock = async (operation: () => Promise<unknown>): Promise<number> => {
      looks = 0
      await outcomeOf(breaker.call('stripe', operation))
      return looks
    }
    return { breaker, looksAtTheClock }
  }
  const ignored = () => Promise.reject(new TypeError('a bug'))

  it('is nothing at all: no write, and not even another look at the clock', async () => {
    const fleet = createFleet()
    const { looksAtTheClock } = await startCounting(fleet)
    expect(await looksAtTheClock(ok)).toBe(await looksAtTheClock(ignored))
    expect(fleet.storage.writes).toEqual([])
  })

  it('is nothing either where a record is stored', async () => {
    const fleet = createFleet()
    const { breaker, looksAtTheClock } = await startCounting(fleet)
    await failTimes(breaker, 1)
    await breaker.flush()
    for (let call = 0; call < 4; call++) await breaker.call('stripe', ok)
    await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({ suspectedAt: undefined, dismissals: 1 })
    expect(await looksAtTheClock(ok)).toBe(await looksAtTheClock(ignored))
  })
})

describe('outcomes that wait to be written', () => {
  it('are coalesced behind the write that is under way', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    const held = fleet.storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    await failTimes(breaker, 40)
    held.release()
    await breaker.flush()
    expect(additions(fleet).map(({ failures }) => failures)).toEqual([40])
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(41)
  })

  it('say nothing for the service where they began before the suspicion was known', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    const held = fleet.storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    await breaker.call('stripe', ok)
    held.release()
    await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({ failureCount: 1, successCount: 0 })
  })

  it.each(['compareAndSetState', 'addOutcomes'] as const)(
    'are counted once when the reply to %s was lost',
    async (operation) => {
      const fleet = createFleet({ failureThreshold: 100 })
      const breaker = fleet.start()
      await breaker.load()
      fleet.storage.inject('lose-with-error', operation)
      await failTimes(breaker, 2)
      await breaker.flush()
      await failTimes(breaker, 1)
      await breaker.flush()
      expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(3)
    },
  )

  it('are dropped when they are older than the window', async () => {
    const fleet = createFleet({ failureThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    fleet.storage.inject('fail', 'compareAndSetState')
    await failTimes(breaker, 5)
    await fleet.runtime.settle()
    fleet.runtime.setClock(fleet.runtime.now() + 3_600_000)
    await breaker.load()
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount ?? 0).toBe(0)
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
      if (when !== 'OPEN') await fleet.runtime.advance(11_000)
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

  it('is none where the first record continues what this instance made up: it counts', async () => {
    const fleet = createFleet({ failureThreshold: 5 })
    const [breaker] = (await startLoaded(fleet, 1)) as [CircuitBreaker]
    const slow = controlled()
    const call = outcomeOf(breaker.call('stripe', slow.operation))
    await failTimes(breaker, 1)
    await breaker.flush()
    slow.fail()
    await call
    await breaker.flush()
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(2)
  })
})

describe('calls that hang for longer than the window', () => {
  /** Calls until the deadline of an invocation, which comes after the window is over. */
  async function hang({ runtime }: Fleet, breakers: readonly CircuitBreaker[]): Promise<void> {
    const context = { getRemainingTimeInMillis: () => 71_000 }
    const calls = breakers.map(async (breaker) => {
      await breaker.load()
      await outcomeOf(breaker.callExternalFor(context)('stripe', never))
      await breaker.flush()
    })
    await runtime.advance(70_000)
    await Promise.all(calls)
  }

  it('one after the other open the circuit', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.call('stripe', ok)
    for (let time = 0; time < 2; time++) await hang(fleet, [breaker])
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    await hang(fleet, [breaker])
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'fleet' })
    expect(fleet.events).toHaveLength(1)
  })

  it('are a streak, too, where they end by themselves', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    for (let time = 0; time < 3; time++) {
      const call = outcomeOf(breaker.call('stripe', () => runtime.sleep(70_000).then(unavailable)))
      await runtime.advance(70_000)
      await call
    }
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('open it where others are known, by the failures of several that run into one suspicion', async () => {
    const fleet = createFleet()
    const acquainted = await startAcquainted(fleet)
    const breakers = [...acquainted, ...(await startLoaded(fleet, 2))]
    await hang(fleet, breakers)
    for (const breaker of breakers) expect(breaker.circuits.stripe?.scope).toBe('fleet')
    await fleet.runtime.advance(5_000)
    await Promise.all(breakers.map((breaker) => breaker.load()))
    for (const breaker of breakers) await breaker.flush()
    expect(await fleet.storage.peek('stripe')).toMatchObject({ state: 'OPEN' })
  })
})
