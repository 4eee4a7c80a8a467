import { describe, expect, it } from '@jest/globals'
import { Circuit, type ProbeLease } from '../../../src/circuit/circuit.ts'
import type { Step, Write } from '../../../src/circuit/step.ts'
import { type CircuitOpenError, CircuitStorageError, type StateChange } from '../../../src/index.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import type { CircuitRecord, WriteResult } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'
import { corrupt } from '../../support/virtual-fleet.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

interface Surroundings {
  readonly settings?: Partial<ServiceSettings>
  readonly isShared?: boolean
  readonly now?: number
}

/** A circuit in a world without time: every answer of the store is the test's. */
function circuitWith({ settings = {}, isShared = true, now = 1_000 }: Surroundings = {}) {
  let ids = 0
  const world = { now, random: 0, canRead: true, canWrite: true }
  const events: StateChange[] = []
  const refusals: CircuitOpenError[] = []
  const circuit = new Circuit(
    'stripe',
    { ...defaults, ...settings },
    {
      runtime: { now: () => world.now, random: () => world.random, id: () => `id${++ids}` },
      store: world,
      isShared,
      storageTimeout: 500,
      emit: (change) => events.push(change),
      onRefusing: (error) => refusals.push(error()),
    },
  )
  const read = (record: CircuitRecord | undefined): void => circuit.readAnswered(circuit.begin(), record)
  const send = (write: Write): ((reply: WriteResult) => boolean) => {
    const exchange = circuit.begin()
    circuit.sent(write)
    return (reply) => circuit.answered(write, exchange, reply)
  }
  const fail = (at: number = world.now): void => circuit.callFailed(circuit.period, at, { at, name: 'Error' }, 'r1')
  return { circuit, world, events, refusals, read, send, fail }
}

const closed = circuitRecord({ version: 'v1', epoch: 'e1' })
const opened = circuitRecord({
  state: 'OPEN',
  version: 'v2',
  epoch: 'e2',
  generation: 1,
  openedAt: 0,
  retryAt: 10_000,
  resetTimeout: 10_000,
  failureCount: 3,
  lastFailureAt: 0,
  transitions: ['e2'],
})

function halfOpen(...leases: string[]): CircuitRecord {
  return {
    ...opened,
    state: 'HALF_OPEN',
    version: 'v3',
    epoch: 'e3',
    generation: 2,
    leases: leases.map((id) => ({ id, expiresAt: 40_000 })),
    transitions: ['e2', 'e3'],
  }
}

function written(step: Step | undefined): Write {
  if (step === undefined || step.kind === 'read') throw new Error(`This is no write: ${JSON.stringify(step)}`)
  return step
}

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
  const due = 15_000

  function waiting({ isShared = true, settings = {} }: Surroundings = {}) {
    const surroundings = circuitWith({ isShared, settings, now: 9_999 })
    surroundings.read(opened)
    surroundings.world.now = 10_000
    return surroundings
  }

  it('by an instance that had no part in the opening, until its record is stale', () => {
    const { circuit, world } = waiting()
    expect(circuit.admit(10_000)).toBe('open')
    world.now = due
    expect(circuit.admit(due)).toBe('claim')
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

  it('that fails opens the view again, and its failure is a backlog', () => {
    const { circuit, lease, world, read } = alone()
    circuit.probeEnded(lease, 'failure', 10_100, { at: 10_100, name: 'Error' }, 'r1')
    expect(circuit.view).toMatchObject({ state: 'OPEN', openedAt: 10_100 })
    expect(circuit.hasWork).toBe(true)
    world.canWrite = true
    read(closed)
    expect(circuit.next()).toBeUndefined()
    expect(circuit.view.state).toBe('CLOSED')
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
  it('changes nothing at first', () => {
    expect(circuitWith().circuit.isQuiet).toBe(true)
  })

  it.each([
    ['nothing is known', undefined, true],
    ['the circuit is closed and no failure is known', closed, true],
    ['a failure is stored', { ...closed, failureCount: 1, lastFailureAt: 900 }, false],
    ['the circuit is open', { ...opened, failureCount: 0 }, false],
    ['an operator holds the circuit', { ...closed, override: { state: 'CLOSED', at: 0 } as const }, false],
  ])('changes nothing or something where %s', (_name, record, isQuiet) => {
    const { circuit, read } = circuitWith()
    read(record)
    expect(circuit.isQuiet).toBe(isQuiet)
  })

  it('is no longer quiet after an own failure, and is again when the failure is ended', () => {
    const { circuit, read, send, fail } = circuitWith()
    read(closed)
    fail()
    expect(circuit.isQuiet).toBe(false)
    const write = written(circuit.next())
    const counted = { ...closed, failureCount: 1, lastFailureAt: 1_000 }
    send(write)({ applied: true, current: counted })
    expect([circuit.isQuiet, circuit.hasWork]).toEqual([false, false])
    circuit.callSucceeded(circuit.period, 1_100, 'r2')
    expect([circuit.isQuiet, circuit.failureCount]).toEqual([false, 0])
    const ending = written(circuit.next())
    if (ending.kind !== 'replace') throw new Error('A success replaces the count.')
    send(ending)({ applied: true, current: ending.next })
    expect([circuit.isQuiet, circuit.hasWork, circuit.view]).toEqual([true, false, ending.next])
  })

  it('ends a withheld failure, after which it is quiet again', () => {
    const { circuit, read, fail } = circuitWith()
    read(closed)
    circuit.callSucceededQuietly(900)
    fail()
    expect([circuit.isQuiet, circuit.hasWork]).toEqual([false, false])
    circuit.callSucceeded(circuit.period, 1_100, 'r2')
    expect([circuit.isQuiet, circuit.hasWork]).toEqual([true, false])
  })

  it('is not written where nothing is to be ended', () => {
    const { circuit, read } = circuitWith()
    read(closed)
    circuit.callSucceeded(circuit.period, 1_000, 'r1')
    expect(circuit.hasWork).toBe(false)
  })
})

describe('an outcome of another period', () => {
  it('counts for nothing', () => {
    const { circuit, read } = circuitWith()
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    const before = circuit.period - 1
    circuit.callFailed(before, 1_000, { at: 1_000, name: 'Error' }, 'r1')
    circuit.callSucceeded(before, 1_000, 'r1')
    expect([circuit.hasWork, circuit.failureCount]).toEqual([false, 1])
  })
})

describe('the failure that completes the count', () => {
  const nearly = { ...closed, failureCount: 2, lastFailureAt: 900 }

  it('makes this instance refuse at once, and the others when it is stored', () => {
    const { circuit, read, send, fail, events, refusals } = circuitWith()
    read(nearly)
    fail()
    expect(circuit.view).toMatchObject({ state: 'OPEN', failureCount: 3, openedAt: 1_000 })
    expect(refusals).toMatchObject([{ reason: 'open' }])
    expect(events).toEqual([])
    const write = written(circuit.next())
    if (write.kind !== 'replace') throw new Error('A trip replaces the record.')
    expect(write.next.epoch).toBe(circuit.view.epoch)
    send(write)({ applied: true, current: write.next })
    expect(events).toMatchObject([{ from: 'CLOSED', to: 'OPEN', observed: false, requestId: 'r1' }])
    expect([circuit.view, circuit.hasWork]).toEqual([write.next, false])
    expect(circuit.failureCount).toBe(3)
  })

  it('is decided again where another write was first, with the same epoch', () => {
    const { circuit, read, send, fail, events } = circuitWith()
    read(nearly)
    fail()
    const first = written(circuit.next())
    expect(send(first)({ applied: false, current: { ...nearly, version: 'v2' } })).toBe(false)
    expect(circuit.view.state).toBe('OPEN')
    const second = written(circuit.next())
    expect(second).toMatchObject({ version: 'v2', next: { epoch: circuit.view.epoch } })
    expect(events).toEqual([])
  })

  it('is ours where the reply was lost and a later one shows it', () => {
    const { circuit, read, send, fail, events } = circuitWith()
    read(nearly)
    fail()
    const write = written(circuit.next())
    if (write.kind !== 'replace') throw new Error('A trip replaces the record.')
    expect(send(write)({ applied: false, current: { ...write.next, version: 'v9' } })).toBe(true)
    expect(events).toMatchObject([{ to: 'OPEN', observed: false }])
    expect(circuit.hasWork).toBe(false)
  })

  it('is told of where a late refusal shows that it was stored, though the record was deleted since', () => {
    const { circuit, read, send, fail, events } = circuitWith()
    read(nearly)
    fail()
    const write = written(circuit.next())
    if (write.kind !== 'replace') throw new Error('A trip replaces the record.')
    const take = send(write)
    read(undefined)
    read({ ...closed, version: 'v5', epoch: 'e5' })
    expect(take({ applied: false, current: write.next })).toBe(true)
    expect(events.filter(({ observed }) => !observed)).toMatchObject([{ to: 'OPEN', requestId: 'r1' }])
  })

  it('opens the circuit by a trip of its own where its addition has completed the count', () => {
    const { circuit, read, send, fail, refusals } = circuitWith()
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    fail()
    const addition = written(circuit.next())
    expect([addition.kind, circuit.view.state]).toEqual(['add', 'CLOSED'])
    send(addition)({ applied: true, current: { ...closed, failureCount: 3, lastFailureAt: 1_000 } })
    expect([circuit.view.state, circuit.hasWork, refusals.length]).toEqual(['OPEN', true, 1])
    const trip = written(circuit.next())
    expect(trip).toMatchObject({ kind: 'replace', version: 'v1', cause: { kind: 'trip', requestId: 'r1' } })
    expect(trip).toMatchObject({ next: { state: 'OPEN', openedAt: 1_000, epoch: circuit.view.epoch } })
  })

  it('leaves the view alone that later failures have opened meanwhile', () => {
    const { circuit, read, send, fail } = circuitWith()
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    fail()
    const addition = written(circuit.next())
    circuit.sent(addition)
    fail(1_001)
    const { view } = circuit
    expect(view).toMatchObject({ state: 'OPEN', openedAt: 1_001, generation: 1 })
    send(addition)({ applied: true, current: { ...closed, failureCount: 3, lastFailureAt: 1_000 } })
    expect(circuit.view).toBe(view)
    expect(written(circuit.next()).cause.kind).toBe('trip')
  })

  it.each([
    ['completed it', 3, true],
    ['came after it was complete', 4, false],
  ])('is told by the count that began anew: ours %s', (_name, failureCount, isDue) => {
    const { circuit, read, send, fail } = circuitWith({ now: 100_000 })
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    fail()
    const write = written(circuit.next())
    if (write.kind !== 'replace') throw new Error('A streak that begins anew replaces the count.')
    expect(write.next).toMatchObject({ state: 'CLOSED', failureCount: 1 })
    // The first attempt was stored, and others have added to it since.
    expect(send(write)({ applied: false, current: { ...write.next, failureCount } })).toBe(true)
    expect([circuit.hasWork, circuit.view.state]).toEqual([isDue, 'OPEN'])
  })

  it('is not ours where our addition was refused: it is decided anew', () => {
    const { circuit, read, send, fail } = circuitWith()
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    fail()
    const complete = { ...closed, version: 'v2', failureCount: 3, lastFailureAt: 1_000 }
    expect(send(written(circuit.next()))({ applied: false, current: complete })).toBe(false)
    expect(circuit.view).toEqual(complete)
    expect(circuit.next()).toMatchObject({ version: 'v2', cause: { kind: 'report' }, next: { failureCount: 4 } })
  })

  it('is decided by the record that is known then, and the view follows that', () => {
    const { circuit, read, send, fail } = circuitWith()
    read(closed)
    fail()
    const more = { ...closed, version: 'v2', failureCount: 2, lastFailureAt: 1_000 }
    send(written(circuit.next()))({ applied: false, current: more })
    expect(circuit.next()).toMatchObject({ version: 'v2', next: { state: 'OPEN' } })
    const fewer = { ...closed, version: 'v3' }
    read(fewer)
    expect(circuit.view).toEqual(fewer)
  })

  it.each([
    ['for 1 s, in which its author opens the circuit', 999, 'OPEN'],
    ['no longer: its author is dead', 1_000, 'CLOSED'],
  ])('of another instance makes this one refuse %s', (_name, later, state) => {
    const { circuit, world, read, send, fail } = circuitWith()
    read({ ...closed, failureCount: 1, lastFailureAt: 900 })
    fail()
    const addition = written(circuit.next())
    const complete = { ...closed, failureCount: 4, lastFailureAt: 1_000 }
    send(addition)({ applied: true, current: complete })
    expect([circuit.view.state, circuit.hasWork]).toEqual(['OPEN', false])
    world.now += later
    read({ ...complete, version: 'v2', failureCount: 3 })
    expect(circuit.view.state).toBe(state)
  })

  it('of a backlog opens nothing', () => {
    const { circuit, read, send, fail, world } = circuitWith()
    world.canWrite = false
    fail()
    fail()
    world.canWrite = true
    read(closed)
    const addition = written(circuit.next())
    expect(addition).toMatchObject({ kind: 'add', increment: { count: 2 } })
    send(addition)({ applied: true, current: { ...closed, failureCount: 3, lastFailureAt: 1_000 } })
    expect([circuit.view.state, circuit.hasWork]).toEqual(['CLOSED', false])
  })
})

describe('while the store is away', () => {
  it('failures are a backlog, which waits for a record that can be read', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    world.canWrite = false
    fail()
    expect([circuit.isAlone, circuit.hasWork, circuit.canWork]).toEqual([true, true, false])
    world.canWrite = true
    world.canRead = false
    expect([circuit.canWork, circuit.next(), circuit.hasWork]).toEqual([false, undefined, true])
    world.canRead = true
    expect([circuit.canWork, circuit.next()]).toEqual([true, { kind: 'read' }])
    read(closed)
    expect(circuit.next()).toMatchObject({ kind: 'add', increment: { count: 1 } })
  })

  it('an instance opens for itself alone, and closes when the store says so', () => {
    const { circuit, world, read, fail, events } = circuitWith()
    read(closed)
    world.canWrite = false
    for (let failures = 0; failures < 3; failures++) fail()
    expect([circuit.view.state, circuit.stored?.state]).toEqual(['OPEN', 'CLOSED'])
    expect(events).toMatchObject([{ to: 'OPEN', observed: true }])
    world.canWrite = true
    expect(circuit.next()).toEqual({ kind: 'read' })
    expect(circuit.view.state).toBe('OPEN')
    read(closed)
    expect(circuit.next()).toMatchObject({ kind: 'add', increment: { count: 2 } })
  })

  it('an instance that opens for itself a second time does so in another epoch', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    world.canWrite = false
    for (let failures = 0; failures < 3; failures++) fail()
    const { epoch } = circuit.view
    world.now = 11_000
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 11_000, undefined, 'r1')
    expect(circuit.view.state).toBe('CLOSED')
    for (let failures = 0; failures < 3; failures++) fail()
    expect(circuit.view.state).toBe('OPEN')
    expect(circuit.view.epoch).not.toBe(epoch)
  })

  it('a record that is damaged is left alone until a later answer shows another', () => {
    const { circuit, read, fail } = circuitWith()
    read(closed)
    circuit.storeFailed(corrupt('compareAndSetState'))
    fail()
    expect([circuit.isAlone, circuit.canWork, circuit.next()]).toEqual([true, false, undefined])
    read(closed)
    expect([circuit.isAlone, circuit.canWork]).toEqual([false, true])
  })

  it.each([
    ['a read that finds it damaged', corrupt('getState'), true],
    ['a read that fails', new CircuitStorageError('down', { operation: 'getState' }), false],
  ])('%s is told from the other', (_name, error, isAlone) => {
    const { circuit } = circuitWith()
    circuit.readAnswered(circuit.begin(), error)
    expect([circuit.isAlone, circuit.isStale(1_000)]).toEqual([isAlone, !isAlone])
  })
})

describe('a record that was deleted', () => {
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
    const decide = circuit.beginOperation('forced-open', (record, _at, { epoch, version }) => ({
      ...record,
      epoch,
      version,
      state: 'OPEN',
      override: { state: 'OPEN', at: 0 },
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
