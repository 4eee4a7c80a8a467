import { describe, expect, it } from '@jest/globals'
import { LoneDecision } from '../../../src/circuit/lone-decision.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const record = circuitRecord({ state: 'OPEN', version: 'v1', generation: 3 })
const closed = circuitRecord({ state: 'CLOSED', version: 'own', generation: 5 })
const open = circuitRecord({ state: 'OPEN', version: 'own', generation: 5 })

function decided(view = closed): LoneDecision {
  const decision = new LoneDecision(10_000)
  decision.decide(record, view, 1_000)
  return decision
}

describe('a decision made alone', () => {
  it('is none at first', () => {
    const decision = new LoneDecision(10_000)
    expect([decision.isMade, decision.stands(record), decision.isDue(1e12)]).toEqual([false, false, false])
  })

  it.each([
    ['the record is unchanged', record, true, true],
    ['nothing is stored any more', undefined, false, false],
    ['the record has changed', { ...record, version: 'v2' }, false, false],
    ['somebody probes', { ...record, version: 'v2', state: 'HALF_OPEN' as const, generation: 4 }, true, false],
    [
      'somebody probes, after more has happened',
      { ...record, version: 'v2', state: 'HALF_OPEN' as const, generation: 5 },
      false,
      false,
    ],
  ])('stands or not where %s: that the service works, and that it does not', (_where, stored, closes, opens) => {
    expect([decided(closed).stands(stored), decided(open).stands(stored)]).toEqual([closes, opens])
  })

  it('stands on the record that its first part was made on', () => {
    const decision = decided(open)
    decision.decide({ ...record }, closed, 2_000)
    expect(decision.stands(record)).toBe(true)
  })

  it('that the service works has the store asked once in a resetTimeout', () => {
    const decision = decided(closed)
    expect([decision.isDue(10_999), decision.isDue(11_000), decision.isDue(999)]).toEqual([false, true, true])
    decision.asked(11_000)
    expect([decision.isDue(20_999), decision.isDue(21_000)]).toEqual([false, true])
  })

  it('that it does not is followed by a probe in its time', () => {
    expect(decided(open).isDue(1e12)).toBe(false)
  })

  it('ends when the view follows the record', () => {
    const decision = decided()
    decision.end()
    expect([decision.isMade, decision.stands(record), decision.isDue(11_000)]).toEqual([false, false, false])
  })
})
