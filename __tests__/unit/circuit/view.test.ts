import { describe, expect, it } from '@jest/globals'
import { View } from '../../../src/circuit/view.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const reports = () => true
const isSilent = () => false

describe('the first record of a circuit that nothing was stored of', () => {
  it('continues the period: calls before it count', () => {
    const view = new View('made-up')
    view.epochBegan('e1', true)
    expect(view.show(circuitRecord({ epoch: 'e1' }))).toBe(false)
    expect([view.epoch, view.period, view.since, view.counts(0, 1)]).toEqual(['e1', 0, 0, true])
  })

  it('leaves a view alone that is ahead of it', () => {
    const view = new View('made-up')
    view.show(circuitRecord({ state: 'OPEN', epoch: 'mine' }))
    view.epochBegan('e1', true)
    expect([view.epoch, view.record.epoch, view.period]).toEqual(['e1', 'mine', 1])
  })
})

describe('another epoch of the fleet', () => {
  it('ends the periods before it', () => {
    const view = new View('made-up')
    view.epochBegan('e1', false)
    expect(view.since).toBe(1)
    view.show(circuitRecord({ epoch: 'e1' }))
    expect([view.counts(0, 1), view.counts(1, 1)]).toEqual([false, true])
  })

  it('is the period of a view that was ahead and was right', () => {
    const view = new View('made-up')
    view.show(circuitRecord({ state: 'OPEN', epoch: 'mine' }))
    view.epochBegan('mine', false)
    expect([view.period, view.since]).toEqual([1, 1])
  })

  it('began where the view began to show it, though suspicions have come since', () => {
    const view = new View('made-up')
    view.show(circuitRecord({ epoch: 'mine' }))
    view.suspect('v1', reports)
    view.epochBegan('mine', false)
    expect([view.period, view.since]).toEqual([2, 1])
  })
})

describe('an outcome', () => {
  it.each([
    ['a closed circuit', circuitRecord(), true],
    ['an open circuit', circuitRecord({ state: 'OPEN' }), false],
    ['a circuit that an operator holds', circuitRecord({ override: { state: 'CLOSED', at: 0, until: 2 } }), false],
    ['a circuit that an operator held', circuitRecord({ override: { state: 'CLOSED', at: 0, until: 1 } }), true],
  ])('of a call of the present period in %s counts or not', (_name, record, counts) => {
    const view = new View('made-up')
    view.show(record)
    expect([view.counts(view.period, 1), view.counts(view.period - 1, 1)]).toEqual([counts, false])
  })

  it('counts over all suspicions of its epoch', () => {
    const view = new View('made-up')
    view.show(circuitRecord({ epoch: 'e1' }))
    const { period } = view
    view.suspect('v1', reports)
    view.suspect(undefined, reports)
    expect([view.counts(period - 1, 1), view.counts(period, 1), view.counts(view.period, 1)]).toEqual([
      false,
      true,
      true,
    ])
  })
})

describe('a suspicion', () => {
  it('is spoken to by calls that began when it was known, and by no others', () => {
    const view = new View('made-up')
    view.suspect('v1', reports)
    expect([view.suspicion, view.knew(0), view.knew(1), view.isSilent]).toEqual(['v1', false, true, false])
    view.suspect('v2', reports)
    expect([view.suspicion, view.knew(1), view.knew(2)]).toEqual(['v2', false, true])
    view.suspect(undefined, reports)
    expect([view.suspicion, view.knew(3), view.isSilent]).toEqual([undefined, false, false])
  })

  it('that is known already changes nothing: whether this instance reports is drawn once', () => {
    const view = new View('made-up')
    view.suspect('v1', reports)
    view.suspect('v1', isSilent)
    expect([view.period, view.knew(1), view.isSilent]).toEqual([1, true, false])
  })

  it('may be left to others', () => {
    const view = new View('made-up')
    view.suspect('v1', isSilent)
    expect([view.knew(1), view.isSilent]).toEqual([false, true])
  })
})
