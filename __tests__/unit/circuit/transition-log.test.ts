import { describe, expect, it } from '@jest/globals'
import { type Observed, TransitionLog } from '../../../src/circuit/transition-log.ts'
import type { StateChange } from '../../../src/events.ts'
import type { CircuitState } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const lastFailure = { at: 5, name: 'Error' }

/** The state that is seen. */
function seen(state: CircuitState, generation: number, retryAt?: number): Observed {
  return { state, generation, lastFailure, retryAt }
}

function opening(generation = 1): StateChange {
  return {
    service: 'stripe',
    from: 'CLOSED',
    to: 'OPEN',
    generation,
    at: 5,
    reason: 'failure-threshold',
    requestId: 'r',
    observed: false,
    evidence: { failures: 3, successes: 0, reporters: 2 },
    lastFailure,
    retryAt: 10_005,
  }
}

/** A log in which a transition of epoch `e1` left. */
function logOf(change = opening()): TransitionLog {
  const log = new TransitionLog('stripe')
  log.sent('e1', change)
  return log
}

const stored = circuitRecord({ state: 'OPEN', version: 'v1', epoch: 'e1', generation: 1, transitions: ['e1'] })

describe('the event of a transition is due', () => {
  it('when a record proves that it was stored, once', () => {
    const log = logOf()
    expect(log.takeDue()).toEqual([])
    log.arrived(stored)
    expect(log.takeDue()).toEqual([opening()])
    log.arrived(stored)
    log.sent('e1', opening())
    log.arrived(stored)
    expect(log.takeDue()).toEqual([])
  })

  it('when a record that is out of date proves it', () => {
    const log = logOf()
    log.proven(stored)
    expect(log.takeDue()).toEqual([opening()])
  })

  it('when others have changed the circuit since, as long as the record lists it', () => {
    const log = logOf()
    log.arrived(circuitRecord({ version: 'v9', generation: 7, transitions: ['e1', 'e2', 'e3'] }))
    expect(log.takeDue()).toContainEqual(opening())
  })

  it('not when others have made another one in its place, whatever comes later', () => {
    const log = logOf()
    log.arrived(circuitRecord({ version: 'other', generation: 1, transitions: ['e9'] }))
    log.arrived(stored)
    expect(log.takeDue().filter(({ observed }) => !observed)).toEqual([])
  })

  it('all the same when the record may have forgotten it: a late reply still proves it', () => {
    const log = logOf()
    log.arrived(circuitRecord({ version: 'v9', generation: 9, transitions: ['e9'] }))
    log.proven(stored)
    expect(log.takeDue()).toContainEqual(opening())
  })

  it('not where the record can no longer have forgotten it', () => {
    const log = logOf()
    log.arrived(circuitRecord({ version: 'v9', generation: 8, transitions: ['e9'] }))
    log.proven(stored)
    expect(log.takeDue()).toEqual([])
  })

  it.each([
    ['nothing', undefined],
    ['a record of before', circuitRecord({ version: 'v-1', transitions: [] })],
  ])('all the same when a stale read has shown %s', (_what, stale) => {
    const log = logOf()
    log.arrived(stale)
    log.arrived(stored)
    expect(log.takeDue()).toEqual([opening()])
  })

  it('for no more than 16 that are on their way', () => {
    const log = new TransitionLog('stripe')
    for (let n = 0; n <= 16; n++) log.sent(`e${n}`, opening(n))
    log.proven(circuitRecord({ transitions: ['e0', 'e1'] }))
    expect(log.takeDue()).toEqual([opening(1)])
  })

  it('once for each of the 16 that were due last', () => {
    const log = new TransitionLog('stripe')
    const proof = (n: number) => {
      log.sent(`e${n}`, opening(n))
      log.proven(circuitRecord({ transitions: [`e${n}`] }))
      return log.takeDue()
    }
    for (let n = 0; n < 16; n++) expect(proof(n)).toEqual([opening(n)])
    expect(proof(0)).toEqual([])
    expect(proof(16)).toEqual([opening(16)])
    // So long ago that no reply to it is on its way.
    expect(proof(0)).toEqual([opening(0)])
  })
})

describe('observers are told', () => {
  it('of a state that this instance did not make, and of no state twice', () => {
    const log = new TransitionLog('stripe')
    log.observe(seen('CLOSED', 0), 1)
    log.observe(seen('OPEN', 3, 9), 2)
    log.observe(seen('OPEN', 4), 3)
    const change = { from: 'CLOSED', to: 'OPEN', generation: 3, at: 2, lastFailure, retryAt: 9 }
    const observed = {
      service: 'stripe',
      reason: 'observed',
      requestId: undefined,
      observed: true,
      evidence: undefined,
    }
    expect(log.takeDue()).toEqual([{ ...change, ...observed }])
  })

  it('not of a state that its own event has told', () => {
    const log = logOf()
    log.arrived(stored)
    log.observe(seen('OPEN', 1), 6)
    expect(log.takeDue()).toEqual([opening()])
  })

  it('of an instance that refuses by itself, which leaves what they know of the fleet as it is', () => {
    const log = new TransitionLog('stripe')
    log.unhealthy(seen('OPEN', 0, 9), 2)
    log.observe(seen('OPEN', 1), 3)
    const told = log.takeDue().map(({ from, to, reason, observed, retryAt }) => [from, to, reason, observed, retryAt])
    expect(told).toEqual([
      ['CLOSED', 'OPEN', 'instance-unhealthy', true, 9],
      ['CLOSED', 'OPEN', 'observed', true, undefined],
    ])
  })
})

describe('a decision of an operator that is made again, under the same epoch, on the record that has won', () => {
  function twice(): TransitionLog {
    const log = logOf(opening(2))
    log.sent('e1', opening(4))
    return log
  }

  it.each([
    ['the first', 2, ['e1'], 2],
    ['the second', 4, ['e1'], 4],
    ['the first, with two transitions since', 4, ['e0', 'e1', 'e2', 'e3'], 2],
    ['the second, with one since', 5, ['e0', 'e1', 'e2'], 4],
    ['the last one that was sent, where the record lists neither', 3, ['e1'], 4],
  ])('is told of as what the record shows: %s', (_which, generation, transitions, told) => {
    const log = twice()
    log.proven(circuitRecord({ state: 'OPEN', generation, transitions }))
    expect(log.takeDue()).toEqual([opening(told)])
  })

  it.each([
    ['one', [4], [opening(2)]],
    ['both', [4, 2], []],
  ])('is forgotten as far as it was refused: %s', (_which, refused, due) => {
    const log = twice()
    for (const generation of refused) log.refused('e1', opening(generation))
    log.proven(circuitRecord({ state: 'OPEN', generation: 4, transitions: ['e1'] }))
    expect(log.takeDue()).toEqual(due)
  })

  it('is not ruled out by a record from before the last of them', () => {
    const log = twice()
    log.arrived(circuitRecord({ generation: 3, transitions: ['e8', 'e9'] }))
    log.proven(circuitRecord({ state: 'OPEN', generation: 4, transitions: ['e1'] }))
    expect(log.takeDue()).toEqual([opening(4)])
  })
})
