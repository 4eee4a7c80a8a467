import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError, isConfigurationError, type StateChange } from '../../src/index.ts'
import type { CircuitRecord, WriteResult } from '../../src/storage/contract.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import type { RecordedRequest } from '../support/recording-storage.ts'
import {
  controlled,
  createFleet,
  type Fleet,
  failTimes,
  isSettled,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'

const never = (): Promise<never> => new Promise(() => {})

const observedBy = (breaker: ReturnType<Fleet['start']>): StateChange[] => {
  const observed: StateChange[] = []
  breaker.onStateChange((change) => observed.push(change), { observed: true })
  return observed
}

/** The count that an increment adds. */
const countOf = ({ args }: RecordedRequest): number => (args[2] as { count: number }).count

/** What a claim is made of; a cache that is read again in the background is not. */
const isClaimOrRead = ({ operation }: RecordedRequest): boolean => operation !== 'batchGetState'

function corrupt(operation: 'getState' | 'batchGetState' | 'incrementFailures'): CircuitStorageError {
  return new CircuitStorageError('damaged', { operation, service: 'stripe', corrupt: true })
}

describe('a failure of the store is reported with its operation, its service and whether it is tried again', () => {
  it.each([
    ['incrementFailures', true, async ({ start }: Fleet) => failTimes(start(), 1)],
    ['compareAndSetState', true, async ({ start }: Fleet) => failTimes(start({ failureThreshold: 1 }), 1)],
    ['compareAndSetState', false, async ({ start }: Fleet) => outcomeOf(start().forceOpen('stripe'))],
    ['getState', false, async ({ start }: Fleet) => outcomeOf(start().reset('stripe'))],
  ] as const)('%s (tried again: %p)', async (operation, willRetry, run) => {
    const fleet = createFleet()
    fleet.storage.inject('fail', operation)
    await run(fleet)
    await fleet.runtime.settle()
    // What an operator reads first is read by the path that everyone uses.
    const expected = operation === 'getState' ? { operation } : { operation, willRetry }
    expect(fleet.storageErrors).toMatchObject([{ services: ['stripe'], ...expected }])
  })

  it('compareAndSetState that ends a streak', async () => {
    const { start, storage, storageErrors } = createFleet()
    const breaker = start()
    await failTimes(breaker, 1)
    await breaker.flush()
    storage.inject('fail', 'compareAndSetState')
    await breaker.call('stripe', ok)
    await breaker.flush()
    expect(storageErrors).toMatchObject([{ services: ['stripe'], operation: 'compareAndSetState', willRetry: true }])
  })

  it('clearState that repairs a damaged record', async () => {
    const { start, storage, storageErrors } = createFleet()
    storage.intercept('getState', async () => {
      throw corrupt('getState')
    })
    storage.inject('fail', 'clearState')
    await outcomeOf(start().reset('stripe'))
    expect(storageErrors[1]).toMatchObject({ services: ['stripe'], operation: 'clearState', willRetry: false })
  })
})

describe('the outcome of a call', () => {
  it('from an earlier closed period, a success, does not end the streak of a later one', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const early = controlled()
    const call = breaker.call('stripe', early.operation)
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 2)
    await breaker.flush()
    early.succeed('late')
    await call
    await breaker.flush()
    expect(breaker.circuits.stripe?.failureCount).toBe(2)
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('counts once after a success where one failure opens', async () => {
    const { start, storage } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 1 })
  })

  it('counts once after a probe that closed the circuit where one failure opens', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await failTimes(breaker, 1)
    await breaker.flush()
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 1 })
  })

  it('reports a failure that was held back with the second one, up to the last millisecond of the window', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 5 })
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('is held back, an isolated failure, up to the last millisecond of the window after a success', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await runtime.advance(60_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(storage.writes).toEqual([])
  })

  it('is held back, an isolated failure, after a probe that closed the circuit', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.call('stripe', ok)
    await breaker.flush()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('is reported at once where this instance has only seen a probe fail, and another one closed the circuit', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(10_000)
    await failTimes(breaker, 1)
    await breaker.flush()
    await runtime.advance(10_000)
    await other.call('stripe', ok)
    await other.flush()
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('finishes a trip that its author left undone, though this instance saw the service succeed', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    const orphaned = { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() }
    await storage.put('stripe', orphaned)
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 4 })
  })

  it('counts once where a success came after a failure that was held back', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.call('stripe', ok)
    const orphaned = { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() }
    await storage.put('stripe', orphaned)
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', failureCount: 4 })
  })

  it('that was stored though its reply was lost is not counted on top of itself', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 2 })
    const breaker = start()
    await breaker.load()
    storage.inject('lose-with-error', 'incrementFailures')
    await failTimes(breaker, 1)
    await runtime.settle()
    await breaker.batchGetState()
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })

  it('of a healthy service draws no random token', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const count = () => Number(runtime.id().split('-').at(-1))
    const before = count()
    for (let index = 0; index < 10; index++) await breaker.call('stripe', ok)
    expect(count()).toBe(before + 1)
  })

  it('a success, follows a failure that is still being written', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdRequest('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await breaker.call('stripe', ok)
    held.release()
    await runtime.settle()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('a success, is stored in the background where it ends a streak', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.flush()
    await breaker.call('stripe', ok)
    await runtime.settle()
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('does not open the circuit by failures that a success on its way to the store has ended', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await failTimes(other, 2)
    await other.flush()
    await breaker.load()
    const held = storage.holdRequest('compareAndSetState')
    await breaker.call('stripe', ok)
    await held.arrived
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
  })
})

describe('while the store is away', () => {
  /** An instance that knows it. */
  async function alone(options = {}): Promise<Fleet & { readonly breaker: ReturnType<Fleet['start']> }> {
    const fleet = createFleet({ failureThreshold: 9, ...options })
    const breaker = fleet.start()
    await breaker.load()
    fleet.storage.outage = 'fail'
    await failTimes(breaker, 1)
    await fleet.runtime.advance(1)
    await failTimes(breaker, 1)
    await fleet.runtime.advance(1)
    fleet.storage.forget()
    await failTimes(breaker, 1)
    expect(fleet.storage.requests).toEqual([])
    return { ...fleet, breaker }
  }

  const back = async ({ storage, runtime }: Fleet, breaker: ReturnType<Fleet['start']>): Promise<void> => {
    storage.heal()
    await runtime.advance(30_000)
    await breaker.load()
    await breaker.flush()
  }

  it('a success ends the failures that wait: they are not reported when it is back', async () => {
    const fleet = await alone()
    await fleet.breaker.call('stripe', ok)
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount ?? 0).toBe(0)
  })

  it('failures wait, and are reported when it is back', async () => {
    const fleet = await alone()
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(3)
  })

  it('a failure takes the place of those that are further back than the window', async () => {
    const fleet = await alone()
    fleet.storage.outage = undefined
    fleet.storage.inject('fail', 'incrementFailures', 100)
    await fleet.runtime.advance(60_001)
    await failTimes(fleet.breaker, 1)
    await fleet.runtime.settle()
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('a failure is added to those that are as far back as the window', async () => {
    const fleet = await alone()
    fleet.storage.outage = undefined
    fleet.storage.inject('fail', 'incrementFailures', 100)
    await fleet.runtime.advance(60_000)
    await failTimes(fleet.breaker, 1)
    await fleet.runtime.settle()
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(3)
  })

  it('a success ends a failure that was never sent', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 1, 'a')
    await runtime.advance(1)
    await failTimes(breaker, 1, 'a')
    await runtime.advance(1)
    await failTimes(breaker, 1, 'b')
    await breaker.call('b', ok)
    storage.heal()
    await runtime.advance(30_000)
    await breaker.load()
    await breaker.flush()
    expect((await storage.peek('b'))?.failureCount ?? 0).toBe(0)
  })

  it('a failure that was never sent does not take the streak of the others back in time', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'], failureThreshold: 9 })
    const [breaker, other] = [start(), start()]
    await breaker.load()
    storage.outage = 'fail'
    await failTimes(breaker, 1, 'a')
    await runtime.advance(1)
    await failTimes(breaker, 1, 'a')
    await runtime.advance(1)
    await failTimes(breaker, 1, 'b')
    storage.heal()
    await runtime.advance(30_000)
    await failTimes(other, 1, 'b')
    await other.flush()
    const { lastFailureAt } = (await storage.peek('b')) as CircuitRecord
    await breaker.batchGetState()
    await breaker.flush()
    expect(await storage.peek('b')).toMatchObject({ failureCount: 2, lastFailureAt })
  })

  it('a probe that fails renews the failures that wait', async () => {
    const fleet = await alone({ failureThreshold: 4 })
    const { breaker, runtime, storage } = fleet
    await failTimes(breaker, 1)
    await runtime.advance(50_000)
    await failTimes(breaker, 1)
    await back(fleet, breaker)
    expect((await storage.peek('stripe'))?.failureCount).toBe(3)
  })

  it('observers are told at once that this instance has opened the circuit for itself', async () => {
    const { breaker } = await alone({ failureThreshold: 4 })
    const observed = observedBy(breaker)
    await failTimes(breaker, 1)
    expect(observed).toMatchObject([{ from: 'CLOSED', to: 'OPEN', reason: 'observed', observed: true }])
  })

  it('a failure that completes the fleet’s count only as one that waited opens nothing', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    storage.inject('fail', 'incrementFailures')
    await failTimes(breaker, 1)
    await runtime.settle()
    await failTimes(other, 2)
    await other.flush()
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 3 })
  })

  it('a probe that fails counts toward the circuit that others have closed', async () => {
    const { breaker, runtime } = await alone({ failureThreshold: 4 })
    const observed = observedBy(breaker)
    await failTimes(breaker, 1)
    await runtime.advance(10_000)
    expect((await outcomeOf(breaker.call('stripe', unavailable))).error).toMatchObject({ message: '503' })
    expect(observed.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN', 'OPEN'])
  })

  it('a probe that succeeds closes the circuit here, and what is stored is adopted when it is back', async () => {
    const fleet = await alone({ failureThreshold: 4 })
    const { breaker, runtime, storage } = fleet
    const observed = observedBy(breaker)
    await failTimes(breaker, 1)
    await runtime.advance(10_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(observed.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN', 'CLOSED'])
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    await back(fleet, breaker)
    expect((await storage.peek('stripe'))?.failureCount ?? 0).toBe(0)
  })
})

describe('a record that is found damaged by a write', () => {
  it('is not written again before it has been read', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 5 })
    const breaker = start()
    await breaker.load()
    storage.intercept('incrementFailures', async () => {
      throw corrupt('incrementFailures')
    })
    await failTimes(breaker, 1)
    await runtime.settle()
    storage.forget()
    await failTimes(breaker, 2)
    await breaker.flush()
    expect(storage.writes).toEqual([])
    await breaker.batchGetState()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(4)
  })
})

describe('conflicts', () => {
  /** Somebody else wins every time, and never the same. */
  const losing = (stored: () => Partial<CircuitRecord>) => {
    let version = 0
    return async (): Promise<WriteResult> => {
      const current = { ...emptyRecord('e', 0), version: `v-${++version}`, ...stored() } as CircuitRecord
      return { applied: false, current }
    }
  }

  it('are given up for now after 20 in a row, and what waits is written at the next opportunity', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    const counted = () => ({ failureCount: 2, lastFailureAt: runtime.now(), updatedAt: runtime.now() })
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), version: 'v-0', ...counted() })
    await breaker.load()
    storage.intercept('compareAndSetState', losing(counted), 1_000)
    storage.forget()
    await failTimes(breaker, 1)
    await runtime.settle()
    expect(storage.writes).toHaveLength(20)
    storage.heal()
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), version: 'v-20', ...counted() })
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })

  it('keep a claim from being made for ever: after 20 the call is refused', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    const opened = (await storage.peek('stripe')) as CircuitRecord
    await runtime.advance(10_000)
    storage.intercept(
      'compareAndSetState',
      losing(() => ({ ...opened, version: undefined as never })),
      0,
    )
    storage.heal()
    let version = 0
    const conflict = async () => ({ applied: false, current: { ...opened, version: `w-${++version}` } })
    storage.intercept('compareAndSetState', conflict, 1_000)
    storage.forget()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'unclaimed', retryAfter: 500 })
    expect(storage.writes).toHaveLength(20)
  })

  it('let a failure that lost be reported together with the one that followed it', async () => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 9 })
    const [breaker, other] = [start(), start()]
    await failTimes(other, 1)
    await other.flush()
    await breaker.load()
    const held = storage.holdRequest('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await other.call('stripe', ok)
    await other.flush()
    await failTimes(breaker, 1)
    storage.forget()
    held.release()
    await runtime.settle()
    expect(storage.writes.map(countOf)).toEqual([2])
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it.each([
    ['forgotten where the one that followed it came after the window', 60_001, 1],
    ['reported where the one that followed it came at the end of the window', 60_000, 2],
  ])('let a failure that lost be %s', async (_what, wait, count) => {
    const { start, storage, runtime } = createFleet({ failureThreshold: 9, storageTimeout: 100_000 })
    const [breaker, other] = [start(), start()]
    await failTimes(other, 1)
    await other.flush()
    await breaker.load()
    const held = storage.holdRequest('incrementFailures')
    await failTimes(breaker, 1)
    await held.arrived
    await other.call('stripe', ok)
    await other.flush()
    await runtime.advance(wait)
    await failTimes(breaker, 1)
    storage.forget()
    held.release()
    await runtime.settle()
    expect(storage.writes.map(countOf)).toEqual([count])
  })

  it('let an instance that would open the circuit leave it where a success has ended the streak meanwhile', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other, third] = [start(), start(), start()]
    await breaker.load()
    await failTimes(other, 1)
    await other.flush()
    await failTimes(third, 1)
    await third.flush()
    const held = storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await other.call('stripe', ok)
    await other.flush()
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('the failure that completes the count of the fleet', () => {
  it('opens the circuit, with what failed and in which request, though this instance knew of none before', async () => {
    const { start, storage, events } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    await failTimes(other, 2)
    await other.flush()
    const callExternal = breaker.callExternalFor({ awsRequestId: 'request-1' })
    await outcomeOf(callExternal('stripe', unavailable))
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'OPEN', lastFailure: { status: 503 } })
    expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold', requestId: 'request-1' }])
  })

  it('is followed by others who leave the opening to its author, and refuse meanwhile', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), failureCount: 3, lastFailureAt: runtime.now() })
    storage.forget()
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(storage.operations).toEqual(['incrementFailures'])
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await runtime.advance(999)
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    // Nobody has opened it: its author died.
    await runtime.advance(1)
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })
})

describe('a probe', () => {
  it('of an instance is joined by a second one where two are allowed', async () => {
    const { start, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const probe = controlled()
    const calls = Array.from({ length: 3 }, () => outcomeOf(breaker.call('stripe', probe.operation)))
    await runtime.settle()
    expect(probe.started).toBe(2)
    probe.succeed('ok')
    const outcomes = await Promise.all(calls)
    expect(outcomes.map(({ value }) => value)).toEqual(['ok', 'ok', undefined])
    expect(outcomes[2]?.error).toMatchObject({ reason: 'probing' })
  })

  it('is waited for no longer than storageTimeout by a call that comes while it is claimed', async () => {
    const { start, storage, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.inject('hang', isClaimOrRead)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(300)
    const second = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(200)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    await runtime.advance(500)
    expect(await isSettled(second, runtime)).toBe(true)
  })

  it('is not claimed once more by a call whose time ended with that of the claim it waited for', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.forget()
    storage.inject('hang', 'compareAndSetState', 10)
    const calls = [1, 2].map(() => outcomeOf(breaker.call('stripe', ok)))
    await runtime.advance(500)
    for (const { error } of await Promise.all(calls)) expect(error).toMatchObject({ reason: 'unclaimed' })
    expect(storage.writes).toHaveLength(1)
  })

  it('is not run alone by a call that had less than its time, because it waited for the claim of another', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.inject('hang', 'compareAndSetState', 10)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(300)
    const second = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    expect((await second).error).toMatchObject({ reason: 'unclaimed' })
  })

  it('that was granted while another one of this instance failed is not run', async () => {
    const { start, storage, runtime } = createFleet({ halfOpenMaxConcurrent: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const probe = controlled()
    const probing = outcomeOf(breaker.call('stripe', probe.operation))
    await runtime.settle()
    const held = storage.holdReply('compareAndSetState')
    const second = controlled()
    const call = outcomeOf(breaker.call('stripe', second.operation))
    await held.arrived
    probe.fail()
    await probing
    held.release()
    expect((await call).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect(second.started).toBe(0)
  })

  it('is run alone where the store leaves a second claim in a row unanswered, and not before', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    const observed = observedBy(breaker)
    await trip(breaker)
    await runtime.advance(10_000)
    storage.inject('hang', 'compareAndSetState', 2)
    const first = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect((await first).error).toMatchObject({ reason: 'unclaimed' })
    const probe = controlled()
    const second = breaker.call('stripe', probe.operation)
    await runtime.advance(500)
    expect(probe.started).toBe(1)
    expect(observed.map(({ to }) => to)).toEqual(['OPEN', 'HALF_OPEN'])
    probe.succeed('ok')
    expect(await second).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('is run alone at once where the look at the store finds the record damaged', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.intercept('getState', async () => {
      throw corrupt('getState')
    })
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('needs no look at a store that was read at retryAt itself, and leaves no timer behind', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    await breaker.batchGetState()
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.operations).toEqual(['compareAndSetState', 'compareAndSetState'])
    expect(runtime.pendingTimers).toEqual([])
  })

  it('needs no look at a store that no other instance uses', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 60_000 })
    storage.shared = false
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.operations).toEqual(['compareAndSetState', 'compareAndSetState'])
  })

  it('waits a random fraction from the very retryAt on', async () => {
    const { start, runtime } = createFleet({}, { random: () => 0.5 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'open', retryAfter: 250 })
    await runtime.advance(250)
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('waits for no random fraction in a store that no other instance uses', async () => {
    const { start, storage, runtime } = createFleet({}, { random: () => 0.5 })
    storage.shared = false
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it.each([
    ['cacheTtl', {}, 30_000, 5_000],
    ['a second at least', { cacheTtl: 0 }, 30_000, 1_000],
    ['what its lease has left', { deadlineReserve: 0 }, 300, 300],
    ['resetTimeout', { resetTimeout: 700 }, 30_000, 700],
  ])('lets those whom it keeps out wait for %s', async (_what, options, left, retryAfter) => {
    const { start, runtime } = createFleet(options)
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => left + 1_000 })
    void callExternal('stripe', never)
    await runtime.settle()
    await runtime.advance(1_000)
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'probing', retryAfter })
  })

  it.each([
    ['for longer than the window changes nothing any more', 60_001, 'HALF_OPEN', 1],
    ['for as long as the window still counts', 60_000, 'CLOSED', 0],
  ])('whose outcome could not be stored %s', async (_what, wait, state, leases) => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const probe = controlled()
    const call = breaker.call('stripe', probe.operation)
    await runtime.settle()
    storage.outage = 'fail'
    probe.succeed('ok')
    await call
    await runtime.advance(wait)
    storage.heal()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe(state)
    expect((await storage.peek('stripe'))?.leases).toHaveLength(leases)
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('at retryAt', () => {
  /** Ten seconds after the circuit opened; what is known of it is two seconds old. */
  async function untilRetryAt({ runtime }: Fleet, ...instances: ReturnType<Fleet['start']>[]): Promise<void> {
    await runtime.advance(8_000)
    for (const instance of instances) await instance.batchGetState()
    await runtime.advance(2_000)
  }

  const claims = async (breaker: ReturnType<Fleet['start']>): Promise<boolean> => {
    const { value } = await outcomeOf(breaker.call('stripe', ok))
    return value === 'ok'
  }

  it('an instance that had no part in opening the circuit leaves the probe to others until it reads again', async () => {
    const fleet = createFleet()
    const [breaker, other] = [fleet.start(), fleet.start()]
    await other.load()
    await trip(breaker)
    await untilRetryAt(fleet, breaker, other)
    const { error } = await outcomeOf(other.call('stripe', ok))
    expect(error).toMatchObject({ reason: 'open', retryAfter: 2_000 })
    await fleet.runtime.advance(2_000)
    await other.load()
    expect(await claims(other)).toBe(true)
  })

  it('an instance whose failure opened the circuit probes at once, be it by a single one', async () => {
    const fleet = createFleet({ failureThreshold: 1 })
    const breaker = fleet.start()
    await failTimes(breaker, 1)
    await breaker.flush()
    await untilRetryAt(fleet, breaker)
    expect(await claims(breaker)).toBe(true)
  })

  it('an instance probes at once whose store no other instance uses', async () => {
    const fleet = createFleet()
    fleet.storage.shared = false
    const [breaker, other] = [fleet.start(), fleet.start()]
    await other.load()
    await trip(breaker)
    await untilRetryAt(fleet, other)
    expect(await claims(other)).toBe(true)
  })

  it('an instance leaves the probe to others that had a part only in an opening before', async () => {
    const fleet = createFleet()
    const [breaker, other] = [fleet.start(), fleet.start()]
    await trip(breaker)
    await untilRetryAt(fleet, breaker)
    expect(await claims(breaker)).toBe(true)
    await breaker.flush()
    await other.load()
    await trip(other)
    await untilRetryAt(fleet, breaker)
    expect(await claims(breaker)).toBe(false)
    expect(await claims(other)).toBe(true)
  })

  it('an instance leaves the probe to others that has only ended a streak', async () => {
    const fleet = createFleet()
    const [breaker, other, third] = [fleet.start(), fleet.start(), fleet.start()]
    await failTimes(breaker, 1)
    await breaker.flush()
    await other.load()
    await other.call('stripe', ok)
    await other.flush()
    await trip(third)
    await untilRetryAt(fleet, other)
    expect(await claims(other)).toBe(false)
  })

  it('an instance probes at once whose own probe has failed before', async () => {
    const fleet = createFleet()
    const [breaker, other] = [fleet.start(), fleet.start()]
    await trip(breaker)
    await fleet.runtime.advance(10_000)
    await other.load()
    await failTimes(other, 1)
    await other.flush()
    await untilRetryAt(fleet, other)
    expect(await claims(other)).toBe(true)
  })
})

describe('a lease that is granted too late for the call that claimed it', () => {
  /** An instance that holds one. */
  async function withSpare(options = {}) {
    const fleet = createFleet(options)
    const breaker = fleet.start()
    await trip(breaker)
    await fleet.runtime.advance(10_000)
    const held = fleet.storage.holdReply('compareAndSetState')
    const call = outcomeOf(breaker.call('stripe', ok))
    await fleet.runtime.advance(500)
    expect((await call).error).toMatchObject({ reason: 'unclaimed' })
    held.release()
    await fleet.runtime.settle()
    expect(breaker.needsFlush).toBe(true)
    return { ...fleet, breaker }
  }

  it.each([
    ['is gone', (record: CircuitRecord) => ({ ...record, leases: [], version: 'v' })],
    [
      'is gone, though there is another',
      (record: CircuitRecord) => ({ ...record, leases: [{ id: 'other', expiresAt: 9e12 }], version: 'v' }),
    ],
  ])('is forgotten where it %s from the record', async (_how, change) => {
    const { breaker, storage } = await withSpare()
    await storage.put('stripe', change((await storage.peek('stripe')) as CircuitRecord))
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(false)
  })

  it('is forgotten with the record', async () => {
    const { breaker, storage } = await withSpare()
    await storage.remove('stripe')
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(false)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })

  it('is kept while it is in the record', async () => {
    const { breaker } = await withSpare()
    await breaker.batchGetState()
    expect(breaker.needsFlush).toBe(true)
  })

  it('is not used when it has expired: another one is claimed', async () => {
    const { breaker, storage, runtime } = await withSpare({ halfOpenMaxConcurrent: 2, cacheTtl: 60_000 })
    await runtime.advance(29_000)
    const record = (await storage.peek('stripe')) as CircuitRecord
    const other = { id: 'other', expiresAt: runtime.now() + 30_000 }
    await storage.put('stripe', { ...record, leases: [...record.leases, other] })
    await breaker.batchGetState()
    await runtime.advance(1_000)
    storage.forget()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    await breaker.flush()
    expect(storage.writes).toHaveLength(2)
  })
})

describe('a change that is still being written', () => {
  /** A probe has succeeded, and that is on its way to the store. */
  async function settling(options = {}) {
    const fleet = createFleet(options)
    const breaker = fleet.start()
    await trip(breaker)
    await fleet.runtime.advance(10_000)
    const probe = controlled()
    const call = breaker.call('stripe', probe.operation)
    await fleet.runtime.settle()
    const held = fleet.storage.holdRequest('compareAndSetState')
    probe.succeed('ok')
    await call
    await held.arrived
    return { ...fleet, breaker, held }
  }

  it('is not undone here by a read: calls pass the circuit that a probe has closed', async () => {
    const { breaker } = await settling()
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('is not undone here by a read: the lease of a probe that has ended is free', async () => {
    const { breaker, runtime } = await settling({ halfOpenSuccessThreshold: 2 })
    await breaker.batchGetState()
    const call = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect(await call).toEqual({ value: 'ok' })
  })

  it('gives way to what an operator wrote meanwhile', async () => {
    const { breaker, start } = await settling()
    await start().forceOpen('stripe')
    await breaker.batchGetState()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced' })
  })

  it('gives way to a record that was deleted', async () => {
    const { breaker, storage, held, runtime } = await settling()
    await storage.remove('stripe')
    await breaker.batchGetState()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', generation: 0 })
    held.release()
    await runtime.settle()
    expect(breaker.needsFlush).toBe(false)
  })

  it('carries the failures that follow it: they are stored, and the third in a row opens the circuit', async () => {
    const { breaker, storage, held, runtime } = await settling()
    await failTimes(breaker, 2)
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2 })
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
  })

  it('gives way to the trip of another instance that was faster', async () => {
    const { start, storage, runtime } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    await other.load()
    storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 3)
    await runtime.advance(100)
    await other.batchSetState({ stripe: 'OPEN' })
    await breaker.batchGetState()
    expect(breaker.circuits.stripe?.openedAt).toBe((await storage.peek('stripe'))?.openedAt)
  })
})

describe('a reply that comes too late', () => {
  it('to an increment is taken for what it is: nothing is sent again', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdReply('incrementFailures')
    await failTimes(breaker, 1)
    await runtime.advance(500)
    storage.forget()
    held.release()
    await runtime.settle()
    expect(breaker.needsFlush).toBe(false)
    await breaker.flush()
    expect(storage.requests).toEqual([])
  })

  it('to an increment that completed the count opens the circuit', async () => {
    const { start, storage, runtime, events } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    await failTimes(other, 2)
    await other.flush()
    const held = storage.holdReply('incrementFailures')
    await failTimes(breaker, 1)
    await runtime.advance(500)
    held.release()
    await runtime.settle()
    expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold' }])
    expect((await storage.peek('stripe'))?.state).toBe('OPEN')
  })

  it.each([
    ['in time', 0],
    ['too late', 500],
  ])('after a read of a record that was restored still tells of the transition (%s)', async (_when, wait) => {
    const { start, storage, runtime, events } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const held = storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    await storage.put('stripe', { ...emptyRecord('restored', runtime.now()), version: 'restored' })
    await breaker.batchGetState()
    await runtime.advance(wait)
    held.release()
    await runtime.settle()
    expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold' }])
  })

  it('is not waited for by a second claim longer than storageTimeout, whatever is written and read before', async () => {
    const { start, storage, runtime } = createFleet({ halfOpenSuccessThreshold: 2 })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(10_000)
    const probe = controlled()
    const call = breaker.call('stripe', probe.operation)
    await runtime.settle()
    storage.inject('hang', 'compareAndSetState')
    storage.inject('hang', 'getState')
    probe.succeed('ok')
    await call
    await runtime.advance(100)
    const next = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(500)
    expect(await isSettled(next, runtime)).toBe(true)
  })

  it('to an increment, lost, is not asked for where the version has changed since', async () => {
    const { start, storage } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    storage.inject('lose-with-error', 'incrementFailures')
    await failTimes(breaker, 1)
    await outcomeOf(breaker.flush())
    await other.load()
    await other.call('stripe', ok)
    await other.flush()
    await breaker.batchGetState()
    storage.forget()
    await breaker.flush()
    expect(storage.writes).toEqual([])
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('or never, to an increment that is as old as the window, lets it be sent again', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'incrementFailures')
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })
})

describe('those who wait for a permit', () => {
  it('go on waiting where the circuit turns out to be half-open and free: they may probe', async () => {
    const { start, storage, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const first = controlled()
    const calls = [breaker.call('stripe', first.operation), breaker.call('stripe', ok)]
    const record = emptyRecord('e', runtime.now())
    await storage.put('stripe', { ...record, version: 'v', state: 'HALF_OPEN', resetTimeout: 10_000, retryAt: 1 })
    await breaker.batchGetState()
    first.succeed('first')
    expect(await Promise.all(calls)).toEqual(['first', 'ok'])
  })
})

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

describe('a refusal', () => {
  it('never queues, also where every permit is taken', async () => {
    const { start } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    void breaker.call('stripe', never)
    await breaker.forceOpen('stripe')
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'forced' })
    expect(breaker.needsFlush).toBe(false)
  })

  it('gives back the permit that was taken before the probe went to another instance', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(10_000)
    const probe = controlled()
    const probing = other.call('stripe', probe.operation)
    await runtime.settle()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'probing' })
    probe.succeed('ok')
    await probing
    await other.flush()
    await breaker.batchGetState()
    expect(await isSettled(breaker.call('stripe', ok), runtime)).toBe(true)
  })
})

describe('a call that is cut', () => {
  it.each([
    ['by the deadline before it had a fair time', undefined],
    ['by its caller', new AbortController()],
  ])('%s is no success either: a streak goes on', async (_how, controller) => {
    const { start, runtime, storage } = createFleet({ failureThreshold: 9 })
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.flush()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 1_500 })
    const call = outcomeOf(callExternal('stripe', never, { signal: controller?.signal }))
    controller?.abort()
    await runtime.advance(500)
    expect((await call).error).toBeDefined()
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it.each([
    ['long before the deadline, though it ran for long', 60_000, 5_000, false],
    ['51 ms before the deadline', 6_051, 5_000, false],
    ['50 ms before the deadline', 6_050, 5_000, true],
    ['at the deadline, but had no fair time', 1_949, 900, false],
  ])('by its caller %s: is it a failure?', async (_when, remaining, ran, counts) => {
    const { start, runtime } = createFleet({ failureThreshold: 1 })
    const breaker = start()
    await breaker.load()
    const controller = new AbortController()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
    const call = outcomeOf(callExternal('stripe', never, { signal: controller.signal }))
    await runtime.advance(ran)
    controller.abort()
    await call
    expect(breaker.circuits.stripe?.state).toBe(counts ? 'OPEN' : 'CLOSED')
  })

  it('while it claims a probe that goes to another instance has nothing to give back', async () => {
    const { start, runtime, storage } = createFleet()
    const [breaker, other] = [start(), start()]
    await trip(breaker)
    await runtime.advance(10_000)
    const held = storage.holdRequest(isClaimOrRead)
    const controller = new AbortController()
    const call = outcomeOf(breaker.call('stripe', ok, { signal: controller.signal }))
    await held.arrived
    void other.call('stripe', never)
    await runtime.settle()
    controller.abort()
    await call
    held.release()
    await runtime.settle()
    expect((await storage.peek('stripe'))?.leases).toHaveLength(1)
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('reading', () => {
  const keys = ({ args }: RecordedRequest): unknown => args[0]

  it('leaves out the circuits that were read not long ago', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(2_000)
    await breaker.batchGetState(['b'])
    await runtime.advance(3_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a']])
  })

  it('takes along those that are nearly stale, and those whose clock has stepped back', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b', 'c'] }, { random: () => 1 })
    const breaker = start()
    await breaker.load()
    await runtime.advance(1_000)
    await breaker.batchGetState(['b'])
    await runtime.advance(1)
    await breaker.batchGetState(['c'])
    await runtime.advance(3_999)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a', 'b']])
    runtime.setClock(runtime.now() - 3_600_000)
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a', 'b', 'c']])
  })

  it('does not ask again for a circuit that is being read', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(300)
    await breaker.batchGetState(['b'])
    await runtime.advance(3_700)
    storage.forget()
    const held = storage.holdRequest('batchGetState')
    await breaker.call('a', ok)
    await held.arrived
    await runtime.advance(300)
    await breaker.call('b', ok)
    await breaker.call('a', ok)
    expect(storage.requests.map(keys)).toEqual([['a'], ['b']])
    held.release()
  })

  it('leaves out the circuits that were read in this very millisecond', async () => {
    const { start, storage, runtime } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    await runtime.advance(5_000)
    await breaker.batchGetState(['b'])
    storage.forget()
    await breaker.load()
    expect(storage.requests.map(keys)).toEqual([['a']])
  })

  it('of several circuits of which some could not be read marks none as damaged', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      const errors = new Map([['a', new CircuitStorageError('throttled', { operation: 'batchGetState' })]])
      throw new CircuitStorageError('in part', { operation: 'batchGetState', results: new Map(), errors })
    })
    await breaker.load()
    await failTimes(breaker, 1, 'a')
    await breaker.flush()
    expect((await storage.peek('a'))?.failureCount).toBe(1)
  })

  it('is due within an invocation for what has become stale since it began', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 500 })
    const breaker = start()
    await breaker.load()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 30_000 })
    await runtime.advance(500)
    storage.forget()
    await callExternal('stripe', ok)
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it('with a cacheTtl of 0 is not due within an invocation of a second, and is after it', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 0 })
    const breaker = start()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 30_000 })
    await breaker.load()
    await runtime.advance(1_000)
    storage.forget()
    await callExternal('stripe', ok)
    expect(storage.requests).toEqual([])
    await runtime.advance(1)
    await callExternal('stripe', ok)
    expect(storage.operations).toEqual(['batchGetState'])
  })

  it('of several circuits that fails without saying which are damaged marks none as damaged', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    storage.intercept('batchGetState', async () => {
      throw new CircuitStorageError('damaged', { operation: 'batchGetState', corrupt: true })
    })
    await breaker.load()
    await failTimes(breaker, 1, 'a')
    await breaker.flush()
    expect((await storage.peek('a'))?.failureCount).toBe(1)
  })
})

describe('a flush', () => {
  it('is needed where one of several services has something to store', async () => {
    const { start, storage } = createFleet({ services: ['a', 'b'] })
    const breaker = start()
    await breaker.load()
    storage.holdRequest('incrementFailures')
    await failTimes(breaker, 1, 'b')
    expect(breaker.needsFlush).toBe(true)
  })

  it('with nothing to store sets no timer', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const before = runtime.delays.length
    await breaker.flush()
    expect(runtime.delays).toHaveLength(before)
  })
})

describe('wrong arguments', () => {
  const problemsOf = async (promise: Promise<unknown>) => {
    const { error } = await outcomeOf(promise)
    if (!isConfigurationError(error)) throw new Error('Expected a ConfigurationError.')
    return error.problems
  }

  it.each([['OPEN'], [null], [7]])('batchSetState takes no %p for the states', async (states) => {
    const { start, storage } = createFleet()
    expect(await problemsOf(start().batchSetState(states as never))).toEqual([
      {
        setting: 'states',
        source: 'batchSetState',
        value: states,
        message: `batchSetState takes an object, a Map or pairs of service and state, but got ${states}`,
      },
    ])
    expect(storage.requests).toEqual([])
  })

  it('batchSetState says which state is wrong and what it is', async () => {
    const breaker = createFleet().start()
    expect(await problemsOf(breaker.batchSetState({ stripe: 'AJAR' as never }))).toEqual([
      {
        setting: 'stripe',
        source: 'batchSetState',
        value: 'AJAR',
        message: 'The state of "stripe" must be OPEN or CLOSED, but is "AJAR" (batchSetState)',
      },
    ])
  })

  it('the timeout of a call goes from 1 ms to the longest that a timer can wait', async () => {
    const breaker = createFleet().start()
    for (const timeout of [1, 2 ** 31 - 1]) expect(await breaker.call('stripe', ok, { timeout })).toBe('ok')
    expect(await problemsOf(breaker.call('stripe', ok, { timeout: 0 }))).toEqual([
      {
        setting: 'timeout',
        source: 'call option',
        value: 0,
        message: expect.stringMatching(
          /^timeout must be a whole number of milliseconds from 1 to 2147483647, .* is 0 /,
        ),
      },
    ])
  })

  it('until may be as late as a Date can be, and must be to come', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe', { until: 8.64e15 })
    const until = runtime.now()
    expect(await problemsOf(breaker.forceOpen('stripe', { until }))).toEqual([
      {
        setting: 'until',
        source: 'option',
        value: until,
        message: `until must be a time that is still to come, but is ${until} (option)`,
      },
    ])
  })
})

describe('a reset', () => {
  it('is told with its reason, also where it has to repair the record first', async () => {
    const { start, storage, events } = createFleet()
    const breaker = start()
    await trip(breaker)
    await breaker.reset('stripe')
    await trip(breaker)
    storage.intercept('getState', async () => {
      throw corrupt('getState')
    })
    await breaker.reset('stripe')
    expect(events.filter(({ to }) => to === 'CLOSED').map(({ reason }) => reason)[0]).toBe('reset')
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it('deletes nothing where the store is merely down', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await trip(breaker)
    storage.inject('fail', 'getState')
    storage.forget()
    expect((await outcomeOf(breaker.reset('stripe'))).error).toBeInstanceOf(CircuitStorageError)
    expect(storage.operations).toEqual(['getState'])
  })

  it('that never wins says that others kept writing', async () => {
    const { start, storage } = createFleet()
    const conflict = async () => ({ applied: false, current: undefined })
    storage.intercept('compareAndSetState', conflict, 1_000)
    expect((await outcomeOf(start().reset('stripe'))).error).toMatchObject({
      message: 'Other writers kept changing the circuit of stripe. Try again.',
      operation: 'compareAndSetState',
      service: 'stripe',
    })
    expect(storage.writes).toHaveLength(100)
  })
})
