import { describe, expect, it } from '@jest/globals'
import type { Circuit } from '../../../src/circuit/circuit.ts'
import type { CircuitRecord, Outcomes, WriteResult } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'
import type { StoreAccess } from '../../../src/storage/store-access.ts'
import { Synchronizer } from '../../../src/sync/synchronizer.ts'
import {
  controlled,
  corrupt,
  createFleet,
  type Fleet,
  failTimes,
  isSettled,
  observedBy,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

describe('a failure of the store is reported with its operation, its service and whether it is tried again', () => {
  it.each([
    ['addOutcomes', true, async ({ start }: Fleet) => failTimes(start(), 2)],
    ['compareAndSetState', true, async ({ start }: Fleet) => failTimes(start({ failureThreshold: 1 }), 1)],
    ['compareAndSetState', false, async ({ start }: Fleet) => outcomeOf(start().forceOpen('stripe'))],
    ['getState', false, async ({ start }: Fleet) => outcomeOf(start().reset('stripe'))],
  ] as const)('%s (tried again: %p)', async (operation, willRetry, run) => {
    const fleet = createFleet()
    fleet.storage.inject('fail', operation)
    await run(fleet)
    await fleet.runtime.settle()
    // An operator's first read goes the way that everyone uses.
    const expected = operation === 'getState' ? { operation } : { operation, willRetry }
    expect(fleet.storageErrors).toMatchObject([{ services: ['stripe'], ...expected }])
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
    fleet.storage.inject('fail', 'compareAndSetState', 100)
    await fleet.runtime.advance(60_001)
    await failTimes(fleet.breaker, 1)
    await fleet.runtime.settle()
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(1)
  })

  it('a failure is added to those that are as far back as the window', async () => {
    const fleet = await alone()
    fleet.storage.outage = undefined
    fleet.storage.inject('fail', 'compareAndSetState', 100)
    await fleet.runtime.advance(60_000)
    await failTimes(fleet.breaker, 1)
    await fleet.runtime.settle()
    await back(fleet, fleet.breaker)
    expect((await fleet.storage.peek('stripe'))?.failureCount).toBe(4)
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

  it('a failure that was never sent adds nothing to the suspicion that others have raised meanwhile', async () => {
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
    const raised = await storage.peek('b')
    await breaker.batchGetState()
    await breaker.flush()
    expect([await storage.peek('b'), breaker.needsFlush]).toEqual([raised, false])
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

  it('failures of instances that were cut off do not add up to a verdict when it is back', async () => {
    const { start, storage, runtime, events } = createFleet()
    const fleet = [start(), start(), start(), start()]
    await Promise.all(fleet.map((breaker) => breaker.load()))
    storage.outage = 'fail'
    for (const breaker of fleet) await failTimes(breaker, 2)
    storage.heal()
    await runtime.advance(30_000)
    for (let round = 0; round < 3; round++) {
      for (const breaker of fleet) await breaker.load()
      for (const breaker of fleet) await breaker.flush()
      await runtime.advance(5_000)
    }
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 2, earlyCount: 0 })
    expect([events, fleet.map(({ needsFlush }) => needsFlush)]).toEqual([[], [false, false, false, false]])
  })

  it('a probe that fails keeps the circuit open here for another resetTimeout', async () => {
    const { breaker, runtime } = await alone({ failureThreshold: 4, resetBackoff: 1 })
    const observed = observedBy(breaker)
    await failTimes(breaker, 1)
    await runtime.advance(10_000)
    expect((await outcomeOf(breaker.call('stripe', unavailable))).error).toMatchObject({ message: '503' })
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', retryAt: runtime.now() + 10_000 })
    expect(observed.map(({ to }) => to)).toEqual(['OPEN'])
  })

  it('a probe that succeeds closes the circuit here, and what is stored is adopted when it is back', async () => {
    const fleet = await alone({ failureThreshold: 4 })
    const { breaker, runtime, storage } = fleet
    const observed = observedBy(breaker)
    await failTimes(breaker, 1)
    await runtime.advance(10_000)
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(observed.map(({ to }) => to)).toEqual(['OPEN', 'CLOSED'])
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
    storage.intercept('compareAndSetState', async () => {
      throw corrupt('compareAndSetState')
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
  const losing = (stored: Partial<CircuitRecord> = {}) => {
    let version = 0
    return async (): Promise<WriteResult> => {
      return { applied: false, current: { ...emptyRecord('e', 0), ...stored, version: `v-${++version}` } }
    }
  }

  it('are given up for now after 20 in a row, and what waits is written at the next opportunity', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), version: 'v-0' })
    await breaker.load()
    storage.intercept('compareAndSetState', losing(), 1_000)
    storage.forget()
    await failTimes(breaker, 1)
    await runtime.settle()
    expect(storage.writes).toHaveLength(20)
    storage.heal()
    await storage.put('stripe', { ...emptyRecord('e', runtime.now()), version: 'v-20' })
    await breaker.flush()
    expect(await storage.peek('stripe')).toMatchObject({ suspectedAt: runtime.now(), failureCount: 1 })
  })

  it('keep a claim from being made for ever: after 20 the call is refused', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.intercept('compareAndSetState', losing(await storage.peek('stripe')), 1_000)
    storage.forget()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ reason: 'unclaimed', retryAfter: 500 })
    expect(storage.writes).toHaveLength(20)
  })

  it('let an instance that would open the circuit leave it where an operator has reset it meanwhile', async () => {
    const { start, storage, runtime, events } = createFleet()
    const breaker = start()
    await breaker.load()
    await failTimes(breaker, 2)
    await breaker.flush()
    const held = storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1)
    await held.arrived
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    await start().reset('stripe')
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect([breaker.needsFlush, events.filter(({ to }) => to === 'OPEN')]).toEqual([false, []])
  })
})

describe('a change that is still being written', () => {
  /** A probe has succeeded, and that is on its way to the store. */
  async function settling(options = {}) {
    const fleet = createFleet(options)
    const breaker = fleet.start()
    await trip(fleet.start())
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

  it('carries the failures that follow it: they raise a suspicion, and the third in a row is refused here', async () => {
    const { breaker, storage, held, runtime } = await settling()
    await runtime.advance(1)
    await failTimes(breaker, 2)
    held.release()
    await runtime.settle()
    expect(await storage.peek('stripe')).toMatchObject({
      state: 'CLOSED',
      suspectedAt: runtime.now(),
      reporterCount: 1,
    })
    await failTimes(breaker, 1)
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', scope: 'instance' })
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

describe('a store that answers, but always after storageTimeout', () => {
  it('does not keep the circuit open: the second claim in a row is run alone', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    storage.replyLatency = 700
    const outcomes: unknown[] = []
    for (let call = 0; call < 3; call++) {
      const outcome = outcomeOf(breaker.call('stripe', ok))
      await runtime.advance(40_000)
      outcomes.push((await outcome).value)
    }
    expect(outcomes).toEqual([undefined, 'ok', 'ok'])
  })
})

describe('a reply that was overtaken', () => {
  it('to a suspicion makes a backlog look at the record again: it never completes the count by itself', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const first = storage.holdRequest('compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.advance(600)
    storage.outage = 'fail'
    await failTimes(breaker, 2)
    await runtime.advance(100)
    storage.heal()
    // The record is read before the first addition arrives there.
    await breaker.batchGetState()
    first.release()
    await runtime.settle()
    await runtime.advance(5_000)
    const flushed = breaker.flush()
    await runtime.advance(1_000)
    await flushed
    expect((await storage.peek('stripe'))?.failureCount).toBe(2)
  })

  it('does not set back what this instance decided alone since', async () => {
    const { start, storage, runtime } = createFleet({ cacheTtl: 1_000, resetBackoff: 1 })
    const [breaker, other] = [start(), start()]
    await trip(start())
    await Promise.all([breaker.load(), other.load()])
    await runtime.advance(10_500)
    const claim = storage.holdRequest('compareAndSetState')
    const refused = outcomeOf(breaker.call('stripe', ok))
    await runtime.advance(600)
    await refused
    await outcomeOf(other.call('stripe', unavailable))
    await other.flush()
    await runtime.advance(2_000)
    await breaker.load()
    await runtime.advance(9_000)
    storage.outage = 'fail'
    for (let call = 0; call < 4; call++) {
      const alone = outcomeOf(breaker.call('stripe', ok))
      await runtime.advance(600)
      await alone
    }
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    claim.release()
    await runtime.settle()
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })
})

describe('a reply that comes too late', () => {
  it('to a suspicion is taken for what it is: nothing is sent again', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const held = storage.holdReply('compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.advance(500)
    storage.forget()
    held.release()
    await runtime.settle()
    expect(breaker.needsFlush).toBe(false)
    await breaker.flush()
    expect(storage.requests).toEqual([])
  })

  it('to an addition that completed the count opens the circuit', async () => {
    const { start, storage, runtime, events } = createFleet()
    const [breaker, other] = [start(), start()]
    await failTimes(other, 2)
    await other.flush()
    await breaker.load()
    const held = storage.holdReply(({ args }) => (args[2] as Outcomes).failures > 0)
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
    await trip(start())
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

  it('to a suspicion, lost, is not asked for where the version has changed since', async () => {
    const { start, storage } = createFleet()
    const [breaker, other] = [start(), start()]
    await breaker.load()
    storage.inject('lose-with-error', 'compareAndSetState')
    await failTimes(breaker, 1)
    await outcomeOf(breaker.flush())
    await other.reset('stripe')
    await breaker.batchGetState()
    storage.forget()
    await breaker.flush()
    expect(storage.writes).toEqual([])
    expect((await storage.peek('stripe'))?.failureCount).toBe(0)
  })

  it('or never, to a suspicion that is as old as the window, lets it be sent again', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    storage.inject('fail', 'compareAndSetState')
    await failTimes(breaker, 1)
    await runtime.advance(60_000)
    await breaker.flush()
    expect((await storage.peek('stripe'))?.failureCount).toBe(1)
  })
})

describe('a round that waits for a read of several circuits', () => {
  /** A circuit that wants to look at the record, and then nothing. */
  async function afterRead(loadFailed: boolean): Promise<string[]> {
    const heard: string[] = []
    const steps = [{ kind: 'read' }]
    const circuit = {
      canWork: true,
      next: () => {
        heard.push('asked')
        return steps.shift()
      },
      lookFailed: () => false,
      storeFailed: () => heard.push('failed'),
    }
    const { runtime } = createFleet()
    const sync = new Synchronizer(circuit as unknown as Circuit, 'stripe', {} as StoreAccess, runtime, 500)
    sync.loading = Promise.resolve()
    sync.loadFailed = loadFailed
    await sync.drain()
    return heard
  }

  it('goes on when it has been answered', async () => {
    expect(await afterRead(false)).toEqual(['asked', 'asked'])
  })

  it('ends when it has failed: what came meanwhile came while the store was away', async () => {
    expect(await afterRead(true)).toEqual(['asked', 'failed'])
  })
})
