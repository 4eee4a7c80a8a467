import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError } from '../../../src/index.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { circuitWith, closed, halfOpen, opened, replacement, suspected } from '../../support/lone-circuit.ts'

const throttled = new CircuitStorageError('It is busy.', { operation: 'getState', kind: 'throttled' })

describe('a success', () => {
  it('of a call that was admitted in another period counts for nothing', () => {
    const { circuit, read, fail } = circuitWith({ settings: { failureThreshold: 2 } })
    const before = circuit.period
    read({ ...closed, generation: 2, epoch: 'another' })
    fail()
    circuit.callSucceeded(before, 1_000, 'r1')
    fail()
    expect(circuit.admit(1_000)).toBe('open')
  })

  it('that cannot be told is a backlog: it needs a record that was read since', () => {
    const { circuit, world, read } = circuitWith()
    read(suspected)
    world.canWrite = false
    circuit.callSucceeded(circuit.period, 1_000, 'r1')
    world.canWrite = true
    expect(circuit.next()).toEqual({ kind: 'read' })
  })
})

describe('in a store that has too much to do', () => {
  /** A read was throttled, and another one was answered. */
  function crowded(random: number, settings = {}) {
    const surroundings = circuitWith({ settings })
    const { circuit, world, read } = surroundings
    circuit.readFailed(throttled)
    read(closed)
    world.random = random
    return surroundings
  }

  it.each([
    [0.0999, 'replace'],
    [0.1, undefined],
  ])('a tenth of the failures raises a suspicion: %p', (random, kind) => {
    const { circuit, fail } = crowded(random)
    fail()
    expect(circuit.next()?.kind).toBe(kind)
  })

  it('a streak always does', () => {
    const { circuit, fail } = crowded(0.5, { failureThreshold: 1 })
    fail()
    expect(circuit.next()?.kind).toBe('replace')
  })

  it('an instance that refuses by itself looks soon, and not before', () => {
    const { circuit, fail } = crowded(0)
    fail()
    fail()
    expect(circuit.isStale(1_000)).toBe(false)
    fail()
    expect(circuit.isStale(1_000)).toBe(true)
  })
})

describe('a probe that this instance grants itself', () => {
  it('in a circuit that the fleet keeps closed needs no lease', () => {
    const { circuit, world, read, fail } = circuitWith()
    read(closed)
    for (let failures = 0; failures < 3; failures++) fail()
    world.now = 11_000
    expect(circuit.claimAlone(30_000)).toEqual({ id: expect.any(String), isLocal: true })
    expect(circuit.view.state).toBe('CLOSED')
  })

  /** A claim that is not answered, and a probe without it, with the lease that was asked for. */
  function unanswered() {
    const surroundings = circuitWith({ now: 10_000 })
    const { circuit, read, send } = surroundings
    read(opened)
    read(opened)
    circuit.wish(30_000, 'r1')
    const step = circuit.next()
    const claim = replacement(step?.kind === 'read' ? circuit.next() : step)
    const answer = send(claim)
    const lease = circuit.claimAlone(30_000)
    expect(claim.next.leases).toMatchObject([{ id: lease.id }])
    const grant = (): boolean => answer({ applied: true, current: claim.next })
    return { ...surroundings, lease, grant }
  }

  it('and the store grants while it runs is settled there', () => {
    const { circuit, lease, grant } = unanswered()
    grant()
    circuit.probeEnded(lease, 'success', 10_100, undefined, 'r1')
    expect(replacement(circuit.next())).toMatchObject({ cause: { leaseId: lease.id }, next: { state: 'CLOSED' } })
  })

  it('is not settled with the lease of another', () => {
    const { circuit, world, read } = circuitWith({ now: 10_000 })
    read(halfOpen('theirs'))
    world.canWrite = false
    circuit.probeEnded(circuit.claimAlone(30_000), 'success', 10_100, undefined, 'r1')
    expect(circuit.hasWork).toBe(false)
  })

  it('and the store grants when it has ended is settled there', () => {
    const { circuit, lease, grant } = unanswered()
    circuit.probeEnded(lease, 'success', 10_100, undefined, 'r1')
    expect(circuit.hasWork).toBe(false)
    grant()
    expect(replacement(circuit.next())).toMatchObject({ cause: { leaseId: lease.id }, next: { state: 'CLOSED' } })
  })
})

describe('a probe that the store has granted', () => {
  it.each<[string, 'success' | 'failure', boolean]>([
    ['that the service works', 'success', true],
    ['nothing of the kind', 'failure', false],
  ])('teaches this instance %s', (_what, outcome, isQuiet) => {
    const { circuit, read } = circuitWith({ now: 10_000 })
    read(halfOpen('mine'))
    const failure = outcome === 'failure' ? { at: 10_000, name: 'Error' } : undefined
    circuit.probeEnded({ id: 'mine', isLocal: false }, outcome, 10_000, failure, 'r1')
    const after: CircuitRecord = { ...closed, version: 'v9', epoch: 'e9', generation: 9 }
    read(after)
    circuit.next()
    expect(circuit.isQuiet).toBe(isQuiet)
  })
})
