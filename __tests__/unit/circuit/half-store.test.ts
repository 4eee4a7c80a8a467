import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError, type StorageErrorKind } from '../../../src/index.ts'
import type { RecordedRequest } from '../../support/recording-storage.ts'
import {
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  grantLate,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

const isWrite = ({ operation }: RecordedRequest): boolean => !/getState/i.test(operation)
const isRead = (request: RecordedRequest): boolean => !isWrite(request)

/** From now on the store refuses every write. */
function refuseWrites({ storage }: Fleet, kind: StorageErrorKind = 'unavailable'): void {
  const refuse = ({ operation }: RecordedRequest) =>
    Promise.reject(new CircuitStorageError('No write.', { operation, kind }))
  storage.intercept(isWrite, refuse, Number.POSITIVE_INFINITY)
}

/** A circuit that another instance has opened and whose `retryAt` has come, in a store that refuses writes. */
async function dueAndReadOnly(options: Parameters<typeof createFleet>[0], kind?: StorageErrorKind) {
  const fleet = createFleet({ resetBackoff: 1, ...options })
  await trip(fleet.start())
  const breaker = fleet.start()
  await fleet.runtime.advance(11_000)
  refuseWrites(fleet, kind)
  return { ...fleet, breaker }
}

describe('in a store that can be read and not written, an instance alone', () => {
  it('keeps the circuit open after a probe that failed, although it reads the unchanged record', async () => {
    const { breaker, runtime } = await dueAndReadOnly({ cacheTtl: 0 })
    const probe = async () => {
      await breaker.load()
      const { error } = await outcomeOf(breaker.call('stripe', unavailable))
      await breaker.flush()
      return error
    }
    while ((await probe()) instanceof Error && breaker.circuits.stripe?.state !== 'OPEN') await runtime.advance(1_000)
    await runtime.advance(1_000)
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open' })
  })

  it('keeps the circuit closed after a probe that succeeded, although it reads the unchanged record', async () => {
    const { breaker, runtime } = await dueAndReadOnly({ cacheTtl: 0 })
    for (let second = 0; second < 4; second++) {
      await breaker.load()
      await outcomeOf(breaker.call('stripe', ok))
      await breaker.flush()
      await runtime.advance(1_000)
    }
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    const calls = Array.from({ length: 10 }, () => outcomeOf(breaker.call('stripe', ok)))
    expect((await Promise.all(calls)).filter(({ value }) => value === 'ok')).toHaveLength(10)
  })

  it('follows the record as soon as it is another one', async () => {
    const { breaker, runtime, storage } = await dueAndReadOnly({ cacheTtl: 0 })
    for (let second = 0; second < 4; second++) {
      await breaker.load()
      await outcomeOf(breaker.call('stripe', unavailable))
      await breaker.flush()
      await runtime.advance(1_000)
    }
    storage.heal()
    await breaker.reset('stripe')
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it.each([
    [10_000, 19],
    [2_000, 0],
  ])(
    'gives others time where the store throttles: with a resetTimeout of %i ms for %i s more',
    async (resetTimeout, wait) => {
      const { breaker, runtime } = await dueAndReadOnly({ cacheTtl: 1_000, resetTimeout }, 'throttled')
      const outcomes: boolean[] = []
      for (let second = 0; second < 24; second++) {
        await breaker.load()
        outcomes.push((await outcomeOf(breaker.call('stripe', ok))).value === 'ok')
        await breaker.flush()
        await runtime.advance(1_000)
      }
      expect(outcomes.map((isAdmitted, second) => isAdmitted || second < wait)).not.toContain(false)
      expect(outcomes.indexOf(true)).toBe(wait)
    },
  )

  it('keeps a verdict open that it could not store, after a probe that failed', async () => {
    const fleet = createFleet({ cacheTtl: 0, resetBackoff: 1 })
    const { runtime, storage } = fleet
    const breaker = fleet.start()
    await breaker.load()
    // The suspicion is stored, and two failures more; the verdict is not.
    for (let second = 0; second < 3; second++) {
      if (second === 2) {
        storage.intercept(
          'compareAndSetState',
          ({ operation }) => Promise.reject(new CircuitStorageError('READONLY', { operation, kind: 'throttled' })),
          Number.POSITIVE_INFINITY,
        )
      }
      await failTimes(breaker, 1)
      await breaker.flush()
      await runtime.advance(1_000)
      await breaker.load()
    }
    let reached = 0
    for (let second = 0; second < 60; second++) {
      await breaker.load()
      const count = async (): Promise<never> => {
        reached++
        return unavailable()
      }
      await outcomeOf(breaker.call('stripe', count))
      await breaker.flush()
      await runtime.advance(1_000)
    }
    expect(reached).toBeLessThanOrEqual(2 * (60 / 10))
  })
})

describe('a claim that was left unanswered', () => {
  it('is forgotten with the probe that it brought late, and does not count in the next outage', async () => {
    const fleet = createFleet({ cacheTtl: 1_000 })
    const { start, storage, runtime } = fleet
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    expect(await grantLate(fleet, breaker)).toMatchObject({ reason: 'unclaimed' })
    // The lease lay ready.
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    for (let minute = 0; minute < 60; minute++) {
      await breaker.load()
      await breaker.call('stripe', ok)
      await runtime.advance(60_000)
    }
    // The next outage.
    await breaker.load()
    await failTimes(breaker, 6)
    await breaker.flush()
    await runtime.advance(2_000)
    await breaker.load()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(21_000)
    const held = storage.holdReply('compareAndSetState')
    const probe = controlled()
    const claim = outcomeOf(breaker.call('stripe', probe.operation))
    await runtime.advance(500)
    expect(probe.started).toBe(0)
    expect((await claim).error).toMatchObject({ reason: 'unclaimed' })
    held.release()
  })

  it('is none where the store throttled the read before it', async () => {
    const fleet = createFleet({ cacheTtl: 5_000 })
    const { storage, runtime } = fleet
    await trip(fleet.start())
    const breaker = fleet.start()
    await breaker.load()
    await runtime.advance(11_000)
    const throttle = ({ operation }: RecordedRequest) =>
      Promise.reject(new CircuitStorageError('too many', { operation, kind: 'throttled' }))
    storage.intercept(isRead, throttle, Number.POSITIVE_INFINITY)
    for (let second = 0; second < 5; second++) {
      await breaker.load()
      await outcomeOf(breaker.call('stripe', unavailable))
      await breaker.flush()
      await runtime.advance(1_000)
    }
    // The write is conditional anyway: it may start from what is known.
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', trips: 2 })
  })
})

describe('the lease of a prober with a timeout of its own', () => {
  it('is about its call, however much time the invocation has left', async () => {
    const { start, storage, runtime } = createFleet()
    const [dying, next] = [start(), start()]
    await trip(next)
    await runtime.advance(11_000)
    const call = dying.callExternalFor({ getRemainingTimeInMillis: () => 900_000 })
    void outcomeOf(call('stripe', () => new Promise(() => {}), { timeout: 2_000 }))
    await runtime.settle()
    const lease = (await storage.peek('stripe'))?.leases[0]
    expect((lease?.expiresAt ?? 0) - runtime.now()).toBeLessThanOrEqual(10_000)
  })
})

describe('a read that is older than what is known', () => {
  /** The circuit is open. `readsBefore` has the next read show what was before the trip, and the one after it all. */
  async function opened() {
    const fleet = createFleet({ cacheTtl: 0 })
    const { start, storage } = fleet
    const breaker = start()
    await breaker.load()
    await failTimes(breaker, 1)
    await breaker.flush()
    const before = await storage.peek('stripe')
    await failTimes(breaker, 5)
    await breaker.flush()
    const readsBefore = () => storage.intercept(isRead, async () => new Map(before && [['stripe', before]]))
    return { ...fleet, breaker, readsBefore }
  }

  /** A claim was carried out and its reply lost; the next read is outdated. */
  async function staleAfterClaim() {
    const fleet = await opened()
    const { breaker, storage, runtime } = fleet
    await runtime.advance(11_000)
    await breaker.load()
    storage.inject('lose', 'compareAndSetState')
    const claim = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    await claim
    fleet.readsBefore()
    await breaker.load()
    await runtime.advance(1_000)
    await breaker.load()
    return fleet
  }

  it('rules out no transition of which the reply was lost: its event comes with its proof', async () => {
    const { events } = await staleAfterClaim()
    expect(events.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN'])
  })

  it('loses no lease of which the reply was lost: it lies ready', async () => {
    const { breaker } = await staleAfterClaim()
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('lets nobody through whom the circuit that was read before refuses', async () => {
    const { breaker, runtime, readsBefore } = await opened()
    await runtime.advance(1_000)
    readsBefore()
    await breaker.load()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open' })
  })
})
