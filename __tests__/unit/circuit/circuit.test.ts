import { describe, expect, it } from '@jest/globals'
import type { ProbeLease } from '../../../src/circuit/probe-claims.ts'
import { CircuitStorageError } from '../../../src/index.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import {
  circuitWith,
  closed,
  halfOpen,
  opened,
  replacement,
  type Surroundings,
  suspected,
  written,
} from '../../support/lone-circuit.ts'
import { corrupt } from '../../support/virtual-fleet.ts'

describe('a call is judged', () => {
  it.each([
    ['in a closed circuit', closed, 'pass'],
    ['in a closed circuit that is forced open', { ...closed, override: { state: 'OPEN', at: 0 } as const }, 'forced'],
    ['when retryAt comes, but not the delay', opened, 'open'],
    ['when the delay is over', { ...opened, retryAt: 9_500 }, 'claim'],
    ['one millisecond before that', { ...opened, retryAt: 9_501 }, 'open'],
    ['by a clock that is not believed, which knows no delay', { ...opened, retryAt: 1e9, openedAt: 1e9 }, 'claim'],
    ['in a half-open circuit, whose place is free', halfOpen(), 'claim'],
    ['in a half-open circuit, whose place is taken', halfOpen('theirs'), 'probing'],
  ])('%s', (_name, record, verdict) => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    world.random = 1
    read(record)
    expect(circuit.admit(10_000)).toBe(verdict)
  })
})

describe('a probe that is due is left to others', () => {
  function waiting({ isShared = true, settings = {} }: Surroundings = {}) {
    const surroundings = circuitWith({ isShared, settings, now: 9_999 })
    surroundings.read(opened)
    surroundings.world.now = 10_000
    return surroundings
  }

  it('by an instance that only knows of it, until it is time to look', () => {
    const { circuit, world, read } = circuitWith({ now: 9_999 })
    world.random = 0.5
    read(opened)
    world.random = 0
    expect([10_000, 10_499, 10_500].map((at) => circuit.admit(at))).toEqual(['open', 'open', 'claim'])
  })

  it('by an instance that opened it, for a second', () => {
    const { circuit, world, read, send, fail } = circuitWith({ settings: { failureThreshold: 1 } })
    read(closed)
    fail()
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    world.now = 11_000
    expect([circuit.admit(11_000), circuit.admit(11_999), circuit.admit(12_000)]).toEqual(['open', 'open', 'claim'])
    expect(circuit.refusal('open', 11_000).retryAfter).toBe(1_000)
  })

  it('by an instance that learnt that it had opened it from an answer that was overtaken', () => {
    const { circuit, world, read, send, fail, events } = circuitWith({ settings: { failureThreshold: 1 } })
    read(closed)
    fail()
    const write = replacement(circuit.next())
    send(write)
    const overtaken = circuit.begin()
    read(closed)
    circuit.readAnswered(overtaken, write.next)
    expect(events.at(-1)).toMatchObject({ to: 'OPEN', reason: 'failure-threshold' })
    read(write.next)
    world.now = 12_000
    expect([circuit.admit(11_999), circuit.admit(12_000)]).toEqual(['open', 'claim'])
  })

  it('by none that learns so late that it has closed again since', () => {
    const { circuit, read, send, fail, events } = circuitWith({ settings: { failureThreshold: 1 } })
    read(closed)
    fail()
    const write = replacement(circuit.next())
    send(write)
    const { transitions } = write.next
    read({ ...closed, version: 'v9', epoch: 'e9', generation: 3, transitions: [...transitions, 'e8', 'e9'] })
    expect(events).toMatchObject([{ to: 'OPEN', reason: 'failure-threshold' }, { to: 'CLOSED' }])
    read({ ...opened, version: 'v10', epoch: 'e10', generation: 4 })
    expect(circuit.admit(10_000)).toBe('claim')
  })

  it('not where nobody else uses the store', () => {
    expect(waiting({ isShared: false }).circuit.admit(10_000)).toBe('claim')
  })

  it('not where the store cannot be written', () => {
    const { circuit, world } = waiting()
    world.canWrite = false
    expect(circuit.admit(10_000)).toBe('claim')
  })
})

describe('a wish for a probe', () => {
  it.each([
    ['the record was read before it was due', 9_999, true, 'read'],
    ['the record was read when it was due', 10_000, true, 'replace'],
    ['nobody else uses the store', 9_999, false, 'replace'],
  ])('looks at the record first or not where %s', (_name, readAt, isShared, kind) => {
    const { circuit, world, read } = circuitWith({ isShared, now: readAt, settings: { cacheTtl: 6_000 } })
    read(opened)
    world.now = 10_000
    circuit.wish(30_000, 'r1')
    expect(circuit.next()?.kind).toBe(kind)
  })
})

describe('a lease', () => {
  /** A circuit whose claim was granted. */
  function granted() {
    const surroundings = circuitWith({ now: 10_000 })
    const { circuit, read, send } = surroundings
    read(opened)
    circuit.wish(30_000, 'r1')
    const write = written(circuit.next())
    if (write.kind !== 'replace') throw new Error('A claim replaces the record.')
    expect(send(write)({ applied: true, current: write.next })).toBe(true)
    return { ...surroundings, claimed: write.next }
  }

  it('is handed out once', () => {
    const { circuit } = granted()
    expect(circuit.hasReadyLease).toBe(true)
    expect(circuit.takeLease()).toMatchObject({ isLocal: false })
    expect([circuit.hasReadyLease, circuit.takeLease()]).toEqual([false, undefined])
  })

  it('that lies ready lets a call probe where the places are taken, until it expires', () => {
    const { circuit, world } = granted()
    expect(circuit.admit(10_000)).toBe('claim')
    circuit.dropExpiredLease()
    expect(circuit.hasReadyLease).toBe(true)
    world.now = 40_000
    circuit.dropExpiredLease()
    expect(circuit.hasReadyLease).toBe(false)
  })

  it('is not handed out when another probe has ended the half-open state', () => {
    const { circuit, claimed } = granted()
    circuit.probeEnded({ id: claimed.leases[0]?.id as string, isLocal: false }, 'failure', 10_000, undefined, 'r1')
    expect([circuit.view.state, circuit.admit(10_000)]).toEqual(['OPEN', 'open'])
    expect([circuit.hasReadyLease, circuit.takeLease()]).toEqual([true, undefined])
  })

  it('that is given back is gone, counts for nothing and waits to be stored', () => {
    const { circuit } = granted()
    circuit.releaseReadyLease()
    expect([circuit.hasReadyLease, circuit.hasWork, circuit.view.leases]).toEqual([false, true, []])
    expect(circuit.next()).toMatchObject({ kind: 'replace', next: { state: 'HALF_OPEN', leases: [], successCount: 0 } })
    expect(circuit.view).toMatchObject({ state: 'HALF_OPEN', successCount: 0 })
  })

  it('is run, and not one alone, where it came after all', () => {
    const { circuit } = granted()
    circuit.asked()
    circuit.asked()
    expect(circuit.mayClaimAlone).toBe(false)
  })

  it('whose probe has ended while the store is away is told to observers', () => {
    const { circuit, world, events } = granted()
    const lease = circuit.takeLease() as ProbeLease
    world.canWrite = false
    circuit.probeEnded(lease, 'success', 10_100, undefined, 'r1')
    expect(events.at(-1)).toMatchObject({ from: 'HALF_OPEN', to: 'CLOSED', observed: true })
    expect([circuit.view.state, circuit.hasWork, circuit.canWork]).toEqual(['CLOSED', true, false])
  })

  it('that nobody has cannot be given back', () => {
    const { circuit, read } = circuitWith()
    read(halfOpen())
    circuit.releaseReadyLease()
    expect(circuit.hasWork).toBe(false)
  })
})

describe('a probe without the store', () => {
  it.each([
    ['the store has answered', 0, true, false],
    ['no claim was left unanswered, and the store cannot be written', 0, false, false],
    ['one claim was left unanswered', 1, true, false],
    ['two claims in a row were left unanswered', 2, true, true],
    ['one claim was left unanswered, and the store cannot be written', 1, false, true],
  ])('is allowed or not where %s', (_name, unanswered, canWrite, isAllowed) => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    read(opened)
    world.canWrite = canWrite
    for (let asked = 0; asked < unanswered; asked++) circuit.asked()
    expect(circuit.mayClaimAlone).toBe(isAllowed)
    world.now = 9_999
    expect(circuit.mayClaimAlone).toBe(false)
  })

  function alone() {
    const surroundings = circuitWith({ now: 10_000 })
    const { circuit, world, read } = surroundings
    read(opened)
    world.canWrite = false
    const lease = circuit.claimAlone(30_000)
    expect(lease.isLocal).toBe(true)
    expect(circuit.view).toMatchObject({ state: 'HALF_OPEN', leases: [{ id: lease.id, expiresAt: 40_000 }] })
    return { ...surroundings, lease }
  }

  it('is not ended by a look at what is to be done', () => {
    const { circuit, read } = circuitWith({ now: 10_000 })
    read(opened)
    circuit.claimAlone(30_000)
    expect([circuit.next(), circuit.view.state]).toEqual([undefined, 'HALF_OPEN'])
  })

  it('closes the view, and is told to observers alone', () => {
    const { circuit, lease, events } = alone()
    circuit.probeEnded(lease, 'success', 10_100, undefined, 'r1')
    expect([circuit.view.state, circuit.stored?.state, circuit.hasWork]).toEqual(['CLOSED', 'OPEN', false])
    expect(events.map(({ to, observed }) => [to, observed])).toEqual([
      ['OPEN', true],
      ['HALF_OPEN', true],
      ['CLOSED', true],
    ])
  })

  it('that fails opens the view again, until the store says otherwise', () => {
    const { circuit, lease, world, read } = alone()
    circuit.probeEnded(lease, 'failure', 10_100, { at: 10_100, name: 'Error' }, 'r1')
    expect(circuit.view).toMatchObject({ state: 'OPEN', openedAt: 10_100 })
    world.canWrite = true
    read(closed)
    expect([circuit.next(), circuit.view.state]).toEqual([undefined, 'CLOSED'])
  })

  it('that proves nothing gives its place back, and nothing waits', () => {
    const { circuit, lease } = alone()
    circuit.probeEnded(lease, 'release', 10_100, undefined, 'r1')
    expect([circuit.view.state, circuit.view.leases, circuit.hasWork]).toEqual(['HALF_OPEN', [], false])
  })

  it('of which the view has lost the lease counts for nothing', () => {
    const { circuit, lease, read } = alone()
    read(closed)
    const { view } = circuit
    circuit.probeEnded(lease, 'failure', 10_100, undefined, 'r1')
    expect([circuit.view, circuit.hasWork]).toEqual([view, false])
  })
})

describe('a service that works, as this instance has found without the store', () => {
  /** The store can be written again, and still holds the open record. */
  function back() {
    const surroundings = circuitWith({ now: 10_000 })
    const { circuit, world, read, send, events } = surroundings
    read(opened)
    world.canWrite = false
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 10_100, undefined, 'r1')
    expect([circuit.isQuiet, circuit.admit(10_100), circuit.asksAgain]).toEqual([false, 'pass', false])
    world.canWrite = true
    world.now = 20_100
    /** Asks for a lease in advance, and is granted it. */
    const grant = (): void => {
      circuit.wish(30_000, undefined)
      const claim = replacement(circuit.next())
      send(claim)({ applied: true, current: claim.next })
    }
    events.splice(0)
    return { ...surroundings, grant }
  }

  it('has the store asked for a probe again, once in a resetTimeout, which no call waits for', () => {
    const { circuit, world } = back()
    expect(circuit.asksAgain).toBe(true)
    circuit.asked()
    expect(circuit.asksAgain).toBe(false)
    circuit.wish(30_000, undefined)
    // It does not look first.
    expect(replacement(circuit.next())).toMatchObject({ version: 'v2', next: { state: 'HALF_OPEN' } })
    world.now = 30_100
    world.canWrite = false
    expect(circuit.asksAgain).toBe(false)
  })

  it.each([
    ['success', 'CLOSED'],
    ['failure', 'OPEN'],
  ] as const)('is proven to the fleet, or not, by the next call: %s', (outcome, state) => {
    const { circuit, fail, grant } = back()
    grant()
    expect([circuit.view.state, circuit.hasReadyLease]).toEqual(['CLOSED', true])
    if (outcome === 'success') circuit.callSucceeded(circuit.period, 20_100, 'r2')
    else fail()
    expect(circuit.hasReadyLease).toBe(false)
    expect(replacement(circuit.next())).toMatchObject({
      cause: { kind: 'settlement', outcome, at: 20_100, requestId: outcome === 'success' ? 'r2' : 'r1' },
      next: { state, leases: [] },
    })
  })

  it('is left to the fleet where no call has used the lease: it is given back', () => {
    const { circuit, grant } = back()
    grant()
    circuit.releaseReadyLease()
    expect([circuit.view.state, circuit.hasReadyLease]).toEqual(['HALF_OPEN', false])
    expect(replacement(circuit.next())).toMatchObject({ cause: { outcome: 'release' }, next: { leases: [] } })
  })

  it('is not asked for in advance where others probe', () => {
    const { circuit, read } = back()
    read({ ...halfOpen('theirs'), version: 'v4' })
    circuit.wish(30_000, undefined)
    expect(circuit.next()).toBeUndefined()
  })
})

describe('claims that the store leaves unanswered', () => {
  it('are forgotten when one is refused', () => {
    const { circuit, read, send } = circuitWith({ now: 10_000 })
    read(opened)
    circuit.asked()
    circuit.asked()
    circuit.wish(30_000, 'r1')
    expect(send(written(circuit.next()))({ applied: false, current: { ...opened, version: 'v9' } })).toBe(false)
    expect([circuit.admit(10_000), circuit.mayClaimAlone]).toEqual(['claim', false])
  })

  it('are not forgotten when another write is answered', () => {
    const { circuit, world, read, send } = circuitWith({ now: 10_000, settings: { halfOpenMaxConcurrent: 2 } })
    read(halfOpen('mine'))
    circuit.probeEnded({ id: 'mine', isLocal: false }, 'release', world.now, undefined, undefined)
    const write = written(circuit.next())
    circuit.asked()
    circuit.asked()
    circuit.wish(30_000, 'r1')
    send(write)({ applied: true, current: write.next })
    expect([circuit.admit(10_000), circuit.mayClaimAlone]).toEqual(['claim', true])
  })

  it('are followed by none where the delay is not over', () => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    world.random = 1
    read(opened)
    circuit.wish(30_000, 'r1')
    expect(circuit.next()).toBeUndefined()
  })
})

describe('a view that opens', () => {
  it.each([
    ['and refuses', 9_999, opened, ['open']],
    ['and is forced open', 9_999, { ...opened, override: { state: 'OPEN', at: 0 } as const }, ['forced']],
    ['and may be probed', 10_000, opened, []],
    ['and is half-open, without a place', 10_000, halfOpen('theirs'), ['probing']],
    ['and closes', 10_000, closed, []],
  ])('%s tells those who wait, or not', (_name, now, record, reasons) => {
    const { read, refusals } = circuitWith({ now })
    read({ ...record, generation: 1 })
    expect(refusals.map(({ reason }) => reason)).toEqual(reasons)
  })
})

describe('a success', () => {
  /** A circuit whose instance has seen the service work. */
  function working() {
    const surroundings = circuitWith()
    surroundings.read(closed)
    surroundings.circuit.callSucceeded(surroundings.circuit.period, 1_000, 'r0')
    return surroundings
  }

  it('is told from a failure once the service has worked, and not before', () => {
    expect([circuitWith().circuit.isQuiet, working().circuit.isQuiet]).toEqual([true, true])
    const { circuit, read } = circuitWith()
    read(closed)
    expect(circuit.isQuiet).toBe(false)
  })

  it.each([
    ['nothing is known', undefined, true],
    ['the circuit is closed, and nobody suspects the service', closed, true],
    ['the service is under suspicion', { ...closed, suspectedAt: 900 }, false],
    ['the circuit is open', opened, false],
    ['an operator holds the circuit', { ...closed, override: { state: 'CLOSED', at: 0 } as const }, false],
  ])('changes nothing or something where %s', (_name, record, isQuiet) => {
    const { circuit, read } = working()
    read(record)
    expect(circuit.isQuiet).toBe(isQuiet)
  })

  it('changes something while the circuit is ramped up', () => {
    const { circuit, world, read } = circuitWith({ settings: { rampUp: 1_000 } })
    circuit.callSucceeded(circuit.period, 1_000, 'r0')
    read({ ...closed, closedAt: 1_000 })
    expect([circuit.isQuiet, circuit.admit(1_000)]).toEqual([false, 'pass'])
    world.random = 0.1
    expect([circuit.admit(1_000), circuit.admit(1_100)]).toEqual(['ramping', 'pass'])
    expect(circuit.refusal('ramping', 1_000)).toMatchObject({ reason: 'ramping', retryAfter: 1_000 })
    world.now = 2_000
    read({ ...closed, closedAt: 1_000 })
    expect(circuit.isQuiet).toBe(true)
  })

  it('is no longer quiet after an own failure, until that is told, and a success has ended the streak', () => {
    const { circuit, send, fail } = working()
    fail()
    expect(circuit.isQuiet).toBe(false)
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    circuit.callSucceeded(circuit.period, 1_100, 'r2')
    // Under its suspicion it speaks for the service.
    expect([circuit.isQuiet, circuit.next()]).toMatchObject([false, { kind: 'add', outcomes: { successes: 1 } }])
  })

  it('is not written where nobody suspects the service', () => {
    const { circuit } = working()
    expect(circuit.hasWork).toBe(false)
  })

  it('of a call that began before this instance knew of the suspicion says nothing', () => {
    const { circuit, read } = working()
    const { period } = circuit
    read(suspected)
    circuit.callSucceeded(period, 1_000, 'r1')
    expect(circuit.hasWork).toBe(false)
    circuit.callSucceeded(circuit.period, 1_000, 'r1')
    expect(circuit.next()).toMatchObject({ kind: 'add', outcomes: { successes: 1, reporters: 1 } })
  })

  it('and a failure are left to others by an instance that drew silence, which counts for its streak all the same', () => {
    const { circuit, world, read, fail } = working()
    world.random = 0.5
    read({ ...suspected, pace: 1_000 })
    circuit.callSucceeded(circuit.period, 1_000, 'r1')
    fail()
    expect([circuit.hasWork, circuit.failureCount]).toEqual([false, 1])
  })
})

describe('a call that begins', () => {
  it('is announced under a young suspicion that this instance did not raise alone', () => {
    const { circuit, read } = circuitWith()
    read(suspected)
    expect(circuit.callStarted(1_000, 'r1')).toBe(circuit.period)
    expect(circuit.next()).toMatchObject({ kind: 'add', outcomes: { started: 1, failures: 0, reporters: 0 } })
  })

  it.each([
    ['it is older than a second', { ...suspected, suspectedAt: 0 }, 0],
    ['there is none', closed, 0],
    ['this instance leaves the report to others', { ...suspected, pace: 1_000 }, 0.5],
  ])('is not announced where %s', (_where, record, random) => {
    const { circuit, world, read } = circuitWith()
    world.random = random
    read(record)
    circuit.callStarted(1_000, 'r1')
    expect(circuit.hasWork).toBe(false)
  })
})

describe('an outcome of another period', () => {
  it('counts for nothing', () => {
    const { circuit, read } = circuitWith()
    read({ ...closed, generation: 1 })
    const before = circuit.period - 1
    circuit.callFailed(before, 1_000, { at: 1_000, name: 'Error' }, 'r1')
    circuit.callSucceeded(before, 1_000, 'r1')
    expect([circuit.hasWork, circuit.failureCount]).toEqual([false, 0])
  })
})

describe('a failure', () => {
  it.each<[string, boolean, number, number, number, Partial<CircuitRecord>?]>([
    ['of a service that this instance has not seen work, always', false, 0.999, 1, 1],
    ['of one that has worked, by chance where suspicions have come to nothing', true, 0.21, 1, 0],
    ['of one that has worked, by chance where suspicions have come to nothing', true, 0.19, 1, 1],
    ['that completes the streak of an instance that nobody can contradict, always', true, 0.999, 3, 1],
    ['that completes it where others are known, by chance', true, 0.999, 3, 0, { othersAt: 900 }],
  ])('raises a suspicion: %s', (_what, hasWorked, random, failures, writes, more = {}) => {
    const { circuit, world, read, fail } = circuitWith()
    read({ ...closed, dismissals: 4, dismissedAt: 900, noise: 0.45, ...more })
    if (hasWorked) circuit.callSucceeded(circuit.period, 1_000, 'r0')
    world.random = random
    for (let failure = 0; failure < failures; failure++) fail()
    expect(circuit.next() === undefined ? 0 : 1).toBe(writes)
  })

  it('that has raised a suspicion lets its instance speak to it, whatever is drawn', () => {
    const { circuit, world, read, send, fail } = circuitWith()
    read({ ...closed, pace: 1_000 })
    fail()
    world.random = 0.999
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    circuit.callSucceeded(circuit.period, 1_000, 'r2')
    expect(circuit.next()).toMatchObject({ kind: 'add', outcomes: { successes: 1 } })
  })

  it('opens the circuit where its instance alone has seen enough of them', () => {
    const { circuit, read, send, fail, events, refusals } = circuitWith()
    read(closed)
    for (let failures = 0; failures < 3; failures++) fail()
    // It refuses by itself at once, for the fleet when that is stored.
    expect([circuit.admit(1_000), circuit.view.state, circuit.acting.state]).toEqual(['open', 'CLOSED', 'OPEN'])
    expect(refusals).toMatchObject([{ reason: 'open', openedAt: 1_000 }])
    expect(events).toEqual([])
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    expect(events).toMatchObject([{ from: 'CLOSED', to: 'OPEN', observed: false, requestId: 'r1' }])
    expect([circuit.view, circuit.hasWork, circuit.failureCount]).toEqual([write.next, false, 3])
  })

  it('makes this instance refuse by itself while the fleet is well, and that is said once', () => {
    const { circuit, world, read, send, fail, events } = circuitWith()
    read({ ...closed, othersAt: 900 })
    for (let failures = 0; failures < 3; failures++) fail()
    const raised = replacement(circuit.next())
    expect(raised.next).toMatchObject({ state: 'CLOSED', earlyCount: 1 })
    send(raised)({ applied: true, current: raised.next })
    expect([circuit.acting.state, events]).toEqual(['OPEN', []])
    world.now = 2_000
    const well = { ...closed, version: 'v9', othersAt: 2_000 }
    read(well)
    read(well)
    expect(events).toMatchObject([{ reason: 'instance-unhealthy', to: 'OPEN', observed: true, retryAt: 11_000 }])
    world.now = 11_000
    expect([circuit.admit(11_000), circuit.probesAlone]).toEqual(['claim', true])
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 11_000, undefined, 'r1')
    expect([circuit.admit(11_000), circuit.acting.state]).toEqual(['pass', 'CLOSED'])
  })

  it('of its own probe makes this instance refuse anew, and is told to the fleet', () => {
    const { circuit, world, read, fail } = circuitWith()
    read({ ...closed, othersAt: 900 })
    circuit.callSucceeded(circuit.period, 900, 'r0')
    world.random = 0.999
    read({ ...closed, othersAt: 900, dismissals: 9, dismissedAt: 900, noise: 0.45 })
    for (let failures = 0; failures < 3; failures++) fail()
    expect(circuit.next()).toBeUndefined()
    world.now = 11_000
    world.random = 0
    const lease = circuit.claimAlone(30_000)
    expect(circuit.admit(11_000)).toBe('probing')
    circuit.probeEnded(lease, 'failure', 11_000, { at: 11_000, name: 'Error' }, 'r1')
    expect([circuit.admit(11_000), circuit.acting.openedAt]).toEqual(['open', 11_000])
    read({ ...closed, othersAt: 900 })
    expect(circuit.next()).toMatchObject({ kind: 'replace', next: { suspectedAt: 11_000 } })
  })
})

describe('an instance whose last probe has failed', () => {
  it.each([
    ['probes that others have begun', { othersAt: 9_000, updatedAt: 10_000 }, 'probing'],
    ['nothing where the clock has stepped back', { othersAt: 9_000, updatedAt: 10_001 }, 'claim'],
    ['probes until a cacheTtl is over', { othersAt: 9_000, updatedAt: 5_000 }, 'claim'],
    ['nothing where nobody is known', { updatedAt: 10_000 }, 'claim'],
  ])('leaves to others %s', (_what, fields, verdict) => {
    const { circuit, read, send } = circuitWith({ now: 10_000 })
    read(halfOpen('mine'))
    circuit.probeEnded({ id: 'mine', isLocal: false }, 'failure', 10_000, { at: 10_000, name: 'Error' }, 'r1')
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    expect(circuit.next()).toBeUndefined()
    read({ ...write.next, version: 'v9', epoch: 'e9', state: 'HALF_OPEN', ...fields })
    expect(circuit.admit(10_000)).toBe(verdict)
  })
})

describe('the verdict on a service', () => {
  const guilty = { ...suspected, failureCount: 3, reporterCount: 2 }

  it('is acted upon at once by whoever reads of it, and written with the epoch that is shown', () => {
    const { circuit, read, send, events, refusals } = circuitWith()
    read(guilty)
    expect(circuit.view).toMatchObject({ state: 'OPEN', failureCount: 3, openedAt: 1_000 })
    expect([refusals.length, events.length]).toEqual([1, 0])
    const write = replacement(circuit.next())
    expect(write.next.epoch).toBe(circuit.view.epoch)
    send(write)({ applied: true, current: write.next })
    expect(events).toMatchObject([{ to: 'OPEN', evidence: { failures: 3, successes: 0, reporters: 2 } }])
    expect([circuit.view, circuit.hasWork]).toEqual([write.next, false])
  })

  it('is acted upon when the suspicion has come of age', () => {
    const { circuit, world, read } = circuitWith()
    read({ ...suspected, failureCount: 3, reporterCount: 2, startedCount: 4 })
    expect([circuit.admit(1_000), circuit.hasWork]).toEqual(['pass', false])
    world.now = 1_900
    expect([circuit.admit(1_900), circuit.view.state, circuit.hasWork]).toEqual(['open', 'OPEN', true])
  })

  it('is no longer acted upon where the record is another one: it is decided anew', () => {
    const { circuit, read, send, events } = circuitWith()
    read(guilty)
    const write = replacement(circuit.next())
    const dismissed = { ...closed, version: 'v9' }
    expect(send(write)({ applied: false, current: dismissed })).toBe(false)
    expect([circuit.view, circuit.next(), events]).toEqual([dismissed, undefined, []])
  })

  it('is ours where the reply was lost and a later one shows it', () => {
    const { circuit, read, send, events } = circuitWith()
    read(guilty)
    const write = replacement(circuit.next())
    expect(send(write)({ applied: false, current: { ...write.next, version: 'v9' } })).toBe(true)
    expect(events).toMatchObject([{ to: 'OPEN', observed: false }])
    expect(circuit.hasWork).toBe(false)
  })

  it('is told of where a late refusal shows that it was stored, though the record was deleted since', () => {
    const { circuit, read, send, events } = circuitWith()
    read(guilty)
    const write = replacement(circuit.next())
    const take = send(write)
    read(undefined)
    read({ ...closed, version: 'v5', epoch: 'e5' })
    expect(take({ applied: false, current: write.next })).toBe(true)
    expect(events.filter(({ observed }) => !observed)).toMatchObject([{ to: 'OPEN' }])
  })

  it('may be that there is nothing to it: that is work as well', () => {
    const { circuit, read, send } = circuitWith()
    read({ ...suspected, successCount: 3 })
    expect([circuit.hasWork, circuit.view.state]).toEqual([true, 'CLOSED'])
    const write = replacement(circuit.next())
    send(write)({ applied: true, current: write.next })
    expect(circuit.hasWork).toBe(false)
    expect(circuit.stored).toMatchObject({ suspectedAt: undefined, dismissals: 1 })
  })
})

describe('while the store is away', () => {
  it('failures are a backlog, which waits for a record that can be read', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    world.canWrite = false
    fail()
    expect([circuit.hasWork, circuit.canWork]).toEqual([true, false])
    world.canWrite = true
    world.canRead = false
    expect([circuit.canWork, circuit.next(), circuit.hasWork]).toEqual([false, undefined, true])
    world.canRead = true
    expect([circuit.canWork, circuit.next()]).toEqual([true, { kind: 'read' }])
    read(closed)
    expect(circuit.next()).toMatchObject({ kind: 'replace', next: { suspectedAt: 1_000, failureCount: 1 } })
  })

  it('an instance refuses by itself, which observers are told, and opens nothing when the store is back', () => {
    const { circuit, world, read, send, fail, events } = circuitWith()
    read(closed)
    world.canWrite = false
    for (let failures = 0; failures < 3; failures++) fail()
    expect([circuit.admit(1_000), circuit.acting.state, circuit.stored?.state]).toEqual(['open', 'OPEN', 'CLOSED'])
    expect(events).toMatchObject([{ to: 'OPEN', observed: true, reason: 'observed' }])
    world.canWrite = true
    expect(circuit.next()).toEqual({ kind: 'read' })
    read(closed)
    const write = replacement(circuit.next())
    expect(write).toMatchObject({ next: { state: 'CLOSED', failureCount: 2 } })
    send(write)({ applied: true, current: write.next })
    expect([circuit.admit(1_000), circuit.view.state, circuit.hasWork]).toEqual(['open', 'CLOSED', false])
  })

  it('an instance that refused by itself tells observers when its own probe has succeeded', () => {
    const { circuit, world, read, fail, events } = circuitWith()
    read(closed)
    world.canWrite = false
    for (let failures = 0; failures < 3; failures++) fail()
    world.now = 11_000
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 11_000, undefined, 'r1')
    expect(events.map(({ to, observed }) => [to, observed])).toEqual([
      ['OPEN', true],
      ['CLOSED', true],
    ])
  })

  it('a record that is damaged is left alone until a later answer shows another', () => {
    const { circuit, read, fail } = circuitWith()
    read(closed)
    circuit.storeFailed(corrupt('compareAndSetState'))
    fail()
    expect([circuit.canWork, circuit.next()]).toEqual([false, undefined])
    read(closed)
    expect(circuit.canWork).toBe(true)
  })

  it.each([
    ['a read that finds it damaged', corrupt('getState'), true],
    ['a read that fails', new CircuitStorageError('down', { operation: 'getState' }), false],
  ])('%s is told from the other', (_name, error, isDamaged) => {
    const { circuit, fail } = circuitWith()
    circuit.readAnswered(circuit.begin(), error)
    fail()
    expect([circuit.canWork, circuit.isStale(1_000)]).toEqual([!isDamaged, !isDamaged])
  })
})

describe('a record that was deleted', () => {
  it('ends what this instance refuses by itself', () => {
    const { circuit, read, fail } = circuitWith()
    read({ ...closed, othersAt: 900 })
    for (let failures = 0; failures < 3; failures++) fail()
    expect(circuit.admit(1_000)).toBe('open')
    circuit.cleared()
    expect(circuit.admit(1_000)).toBe('pass')
  })

  it('closes the circuit, and ends what waits', () => {
    const { circuit, read, events } = circuitWith()
    read(opened)
    circuit.cleared()
    expect(circuit.view).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    expect([circuit.stored, circuit.hasWork]).toEqual([undefined, false])
    expect(events.map(({ to }) => to)).toEqual(['OPEN', 'CLOSED'])
  })

  it('is a new period where there was one, and none where nothing was stored', () => {
    const { circuit, read } = circuitWith()
    read(undefined)
    const { period } = circuit
    read(undefined)
    expect(circuit.period).toBe(period)
    read(closed)
    expect(circuit.period).toBe(period)
    read(undefined)
    expect(circuit.period).toBe(period + 1)
  })

  it('is followed by a period of its own where the record of another generation was read first', () => {
    const { circuit, read } = circuitWith()
    const { period } = circuit
    read({ ...closed, generation: 2 })
    expect(circuit.period).toBe(period + 1)
  })
})

describe('the work of an operator', () => {
  it('is decided on the record that is known, with one epoch over all attempts', () => {
    const { circuit, read } = circuitWith()
    const decide = circuit.beginOperation('forced-open', (record, at, tokens) => ({
      ...record,
      ...tokens,
      state: 'OPEN',
      updatedAt: at,
    }))
    const first = decide()
    expect(first).toMatchObject({ kind: 'replace', version: undefined, cause: { kind: 'operation' } })
    expect(first.change).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'forced-open', requestId: undefined })
    read(closed)
    const second = decide()
    expect([second.version, second.next.epoch]).toEqual(['v1', first.next.epoch])
    expect(second.next.version).not.toBe(first.next.version)
    read(opened)
    expect(decide()).toMatchObject({ version: 'v2', change: undefined })
  })

  it('is told of as what was stored, and not as what was refused before', () => {
    const { circuit, read, send, events } = circuitWith()
    const decide = circuit.beginOperation('set', (record, _at, { epoch, version }) => ({
      ...record,
      epoch,
      version,
      state: 'OPEN',
      transitions: [...record.transitions, epoch],
    }))
    read(halfOpen('mine'))
    const refused = decide()
    const take = send(refused)
    const current = { ...opened, version: 'v4', epoch: 'e4', generation: 3 }
    read(current)
    take({ applied: false, current })
    const stored = decide()
    expect([stored.next.epoch, stored.change]).toEqual([refused.next.epoch, undefined])
    send(stored)({ applied: true, current: stored.next })
    expect(events.filter(({ observed }) => !observed)).toEqual([])
  })
})

describe('a store that throttles', () => {
  const busy = new CircuitStorageError('It is busy.', { operation: 'getState', kind: 'throttled' })
  const down = new CircuitStorageError('It is down.', { operation: 'getState' })

  it('has outcomes that wait for a read measured by the record as it is then', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    fail()
    circuit.readFailed(busy)
    world.now = 11_000
    expect(circuit.next()).toEqual({ kind: 'read' })
  })

  it('is asked by a write for a record that is wanted, after three reads in a row', () => {
    const { circuit, read, fail } = circuitWith()
    read(closed)
    circuit.callSucceeded(circuit.period, 1_000, 'r1')
    for (let reads = 0; reads < 3; reads++) circuit.readFailed(busy)
    expect([circuit.isQuiet, circuit.readsByWriting]).toEqual([true, false])
    fail()
    expect(circuit.readsByWriting).toBe(true)
  })

  it.each<[string, number, boolean, boolean, boolean]>([
    ['has refused one read, and chance says that it goes on', 1, false, true, true],
    ['has refused one read, and chance does not', 1, false, false, false],
    ['has refused ten reads', 10, false, false, false],
    ['has refused ten reads and a write', 10, true, false, true],
  ])('lets a claim go on without a look or not where it %s', (_where, reads, refusesWrite, goesOn, expected) => {
    const { circuit, world, read } = circuitWith({ now: 9_000 })
    read(opened)
    world.now = 10_000
    circuit.wish(30_000, 'r1')
    if (circuit.next()?.kind !== 'read') throw new Error('There was no look.')
    world.random = goesOn ? 0 : 0.99
    for (let read = 0; read < reads; read++) circuit.readFailed(busy)
    if (refusesWrite) circuit.refusedWriting()
    expect([circuit.lookFailed(busy), circuit.lookFailed(down)]).toEqual([expected, false])
  })

  it('lets a report go on without a look, but for one that was throttled', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    expect(circuit.lookFailed(down)).toBe(false)
    fail()
    expect(circuit.lookFailed(down)).toBe(true)
    world.random = 0.99
    circuit.readFailed(down)
    expect(circuit.lookFailed(busy)).toBe(false)
  })

  it('is told of the end of a probe, for which others wait, as soon as it lets that', () => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    read(halfOpen('mine'))
    world.canWrite = false
    circuit.probeEnded({ id: 'mine', isLocal: false }, 'success', 10_000, undefined, 'r1')
    expect(circuit.canWork).toBe(false)
    world.throttlesWrites = true
    expect(circuit.canWork).toBe(true)
  })
})

describe('a deletion of which nothing was known before', () => {
  it('takes what waits with it, and what this instance refuses by itself', () => {
    const { circuit, fail } = circuitWith()
    for (let failures = 0; failures < 3; failures++) fail()
    circuit.cleared()
    expect([circuit.hasWork, circuit.admit(1_000)]).toEqual([false, 'pass'])
  })

  it('makes replies void to what left before', () => {
    const { circuit, read, send, fail } = circuitWith()
    read(undefined)
    fail()
    const write = replacement(circuit.next())
    const answer = send(write)
    circuit.cleared()
    answer({ applied: true, current: write.next })
    expect(circuit.stored).toBeUndefined()
  })
})

describe('a transition that a read has ruled out', () => {
  it('is told of where its reply says that it was stored', () => {
    const { circuit, read, send, fail, events } = circuitWith()
    read(closed)
    for (let failures = 0; failures < 3; failures++) fail()
    const write = replacement(circuit.next())
    const answer = send(write)
    read({ ...closed, version: 'v7', epoch: 'e7', generation: 3, transitions: ['e6', 'e7'] })
    answer({ applied: true, current: write.next })
    expect(events).toContainEqual(expect.objectContaining({ to: 'OPEN', reason: 'failure-threshold', observed: false }))
  })
})

describe('the failures that are known', () => {
  it.each([
    ['in a suspicion, to the last millisecond of its window', { suspectedAt: 0, failureCount: 2 }, 60_000, 2],
    ['in a suspicion whose window is over', { suspectedAt: 0, failureCount: 2 }, 60_001, 0],
  ])('are those that are stored %s', (_where, fields, now, failures) => {
    const { circuit, world, read } = circuitWith()
    read({ ...closed, ...fields })
    world.now = now
    expect(circuit.failureCount).toBe(failures)
  })
})

describe('a decision made alone that the service works', () => {
  it('ends with another record: a success changes nothing from then on', () => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    read(opened)
    world.canWrite = false
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 10_100, undefined, 'r1')
    read({ ...closed, version: 'v9', epoch: 'e9', generation: 9 })
    expect(circuit.isQuiet).toBe(true)
  })
})
