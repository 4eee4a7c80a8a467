import { describe, expect, it } from '@jest/globals'
import { type Known, Outbox } from '../../../src/circuit/outbox.ts'
import type { Addition, Replacement, Step } from '../../../src/circuit/step.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

/** An outbox whose ids are `id1`, `id2`, … */
function outboxWith(settings: Partial<ServiceSettings> = {}): Outbox {
  let ids = 0
  return new Outbox('stripe', { ...defaults, ...settings }, () => `id${++ids}`)
}

function known(record: CircuitRecord | undefined, more: Partial<Known> = {}): Known {
  return { record, epoch: 'made-up', since: 0, now: 1_000, isOutOfTouch: false, canRead: true, ...more }
}

const failure = { at: 1_000, name: 'Error' }
const outcome = { period: 0, at: 1_000, lastFailure: failure, requestId: 'r1', looksFirst: false }

function stored(fields: Partial<CircuitRecord> = {}): CircuitRecord {
  return circuitRecord({ version: 'v1', epoch: 'e1', ...fields })
}

function halfOpen(fields: Partial<CircuitRecord> = {}): CircuitRecord {
  return stored({ state: 'HALF_OPEN', openedAt: 0, retryAt: 1, leases: [{ id: 'mine', expiresAt: 9_000 }], ...fields })
}

const settlement = {
  leaseId: 'mine',
  outcome: 'success',
  at: 1_000,
  lastFailure: undefined,
  requestId: 'r1',
  epoch: 'e2',
} as const

function addition(step: Step | undefined): Addition {
  if (step?.kind !== 'add') throw new Error(`This is no addition: ${JSON.stringify(step)}`)
  return step
}

function replacement(step: Step | undefined): Replacement {
  if (step?.kind !== 'replace') throw new Error(`This is no replacement: ${JSON.stringify(step)}`)
  return step
}

describe('an empty outbox', () => {
  it('has nothing to tell', () => {
    const outbox = outboxWith()
    expect([outbox.isEmpty, outbox.next(known(undefined))]).toEqual([true, undefined])
  })
})

describe('failures', () => {
  it('are added to nothing, on condition that nothing is stored', () => {
    const outbox = outboxWith()
    outbox.addFailures(2, outcome)
    expect(outbox.next(known(undefined))).toMatchObject({
      kind: 'add',
      version: undefined,
      increment: { count: 2, at: 1_000, id: 'id1' },
      isRepeated: false,
    })
  })

  it('are added to the record that is known, on condition that it is still that version', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    expect(outbox.next(known(stored()))).toMatchObject({ kind: 'add', version: 'v1', increment: { count: 1 } })
  })

  it('that complete the count open the circuit instead, with one epoch over all attempts', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    const record = stored({ failureCount: 2, lastFailureAt: 900 })
    const first = replacement(outbox.next(known(record)))
    expect(first).toMatchObject({ version: 'v1', next: { state: 'OPEN', failureCount: 3, lastFailure: failure } })
    expect(first.change).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', requestId: 'r1' })
    outbox.sent(first)
    expect(outbox.answered(first, false)).toBe(false)
    const second = replacement(outbox.next(known({ ...record, version: 'v2' })))
    expect(second.version).toBe('v2')
    expect(second.next.epoch).toBe(first.next.epoch)
    expect(second.next.version).not.toBe(first.next.version)
    expect([outbox.answered(second, true), outbox.isEmpty]).toEqual([true, true])
  })

  it('that come while others are on their way wait for their reply, and then go on', () => {
    const outbox = outboxWith({ failureThreshold: 9 })
    outbox.addFailures(1, outcome)
    const first = addition(outbox.next(known(stored())))
    outbox.sent(first)
    outbox.addFailures(1, outcome)
    outbox.addFailures(1, outcome)
    expect(outbox.count(4)).toBe(7)
    expect(outbox.answered(first, true)).toBe(true)
    expect(addition(outbox.next(known(stored()))).increment).toMatchObject({ count: 2 })
  })

  it('that lost are merged with those that came since', () => {
    const outbox = outboxWith({ failureThreshold: 9 })
    outbox.addFailures(1, outcome)
    const first = addition(outbox.next(known(stored())))
    outbox.sent(first)
    outbox.addFailures(1, { ...outcome, at: 2_000 })
    expect(outbox.answered(first, false)).toBe(false)
    const second = addition(outbox.next(known(stored({ version: 'v2' }))))
    expect(second).toMatchObject({ version: 'v2', isRepeated: false, increment: { count: 2, at: 2_000 } })
  })

  it.each([
    [60_000, 2],
    [60_001, 1],
  ])('that lost are left out where those that came since are %p ms later: %p are added', (later, count) => {
    const outbox = outboxWith({ failureThreshold: 9 })
    outbox.addFailures(1, outcome)
    const first = addition(outbox.next(known(stored())))
    outbox.sent(first)
    outbox.answered(first, false)
    outbox.addFailures(1, { ...outcome, at: 1_000 + later })
    expect(addition(outbox.next(known(stored(), { now: 1_000 }))).increment.count).toBe(count)
  })

  it.each([
    ['of the present epoch', 0, 61_000, 'add'],
    ['that are older than the window', 0, 61_001, undefined],
    ['of an epoch before', 1, 1_000, undefined],
  ])('%s are told or not', (_name, since, now, kind) => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    expect(outbox.next(known(stored(), { since, now }))?.kind).toBe(kind)
    expect(outbox.isEmpty).toBe(kind === undefined)
  })

  it('are dropped when another epoch begins, unless they were made in it', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, { ...outcome, period: 3 })
    outbox.epochBegan(3)
    expect(outbox.hasReport).toBe(true)
    outbox.epochBegan(4)
    expect(outbox.isEmpty).toBe(true)
  })

  it('on their way are dropped when another epoch begins', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    const write = addition(outbox.next(known(stored())))
    outbox.sent(write)
    outbox.epochBegan(1)
    expect([outbox.isEmpty, outbox.answered(write, true)]).toEqual([true, false])
  })

  it('on their way stay when the epoch begins in which they were made', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, { ...outcome, period: 1 })
    const write = addition(outbox.next(known(stored())))
    outbox.sent(write)
    outbox.epochBegan(1)
    expect([outbox.isEmpty, outbox.answered(write, true)]).toEqual([false, true])
  })

  it('are told of nobody while the circuit is not closed', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    expect(outbox.next(known(halfOpen()))).toBeUndefined()
  })
})

describe('an addition without a reply', () => {
  function unanswered(record: CircuitRecord | undefined) {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    const write = addition(outbox.next(known(record)))
    outbox.sent(write)
    return { outbox, write }
  }

  it('is repeated as it was, before and apart from what came since', () => {
    const { outbox, write } = unanswered(stored())
    outbox.addFailures(1, outcome)
    expect(outbox.next(known(stored({ failureCount: 1, lastFailureAt: 1 })))).toEqual({ ...write, isRepeated: true })
  })

  it.each([
    ['nothing is stored', undefined, true],
    ['the record has not been replaced since its birth', stored({ version: 'e1' }), true],
    ['the record has been replaced', stored(), false],
  ])('that expected nothing is repeated only where %s', (_name, record, isRepeated) => {
    const { outbox } = unanswered(undefined)
    expect(outbox.next(known(record)) !== undefined).toBe(isRepeated)
  })

  it.each([
    ['is another version', stored({ version: 'v2' })],
    ['is gone', undefined],
  ])('is not repeated where the record %s: it may have been counted', (_name, record) => {
    const { outbox } = unanswered(stored())
    expect([outbox.next(known(record)), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('that is refused on its repetition may have been counted: it is not decided anew', () => {
    const { outbox } = unanswered(stored())
    const repeated = addition(outbox.next(known(stored())))
    outbox.sent(repeated)
    expect([outbox.answered(repeated, false), outbox.isEmpty]).toEqual([false, true])
  })

  it('is not forgotten when its first attempt is refused late, while its repetition is on its way', () => {
    const { outbox, write } = unanswered(stored())
    const repeated = addition(outbox.next(known(stored())))
    outbox.sent(repeated)
    expect(outbox.answered(write, false)).toBe(false)
    expect([outbox.next(known(stored({ version: 'v2' }))), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('may be answered late, and again', () => {
    const { outbox, write } = unanswered(stored())
    expect([outbox.answered(write, true), outbox.answered(write, true)]).toEqual([true, false])
  })
})

describe('a backlog', () => {
  function backlog(failures: number, settings: Partial<ServiceSettings> = {}): Outbox {
    const outbox = outboxWith(settings)
    outbox.addFailures(failures, outcome)
    outbox.toBacklog()
    return outbox
  }

  it('needs a record that was read after the store failed', () => {
    const outbox = backlog(1)
    expect(outbox.needsFreshRecord).toBe(true)
    expect(outbox.next(known(stored(), { isOutOfTouch: true }))).toEqual({ kind: 'read' })
    expect(outbox.next(known(stored()))?.kind).toBe('add')
  })

  it.each([
    [3, 0, 2],
    [3, 1, 1],
    [9, 0, 2],
  ])('by itself leaves the count incomplete: %p failures on top of %p are %p', (failures, count, added) => {
    const record = stored({ failureCount: count, lastFailureAt: 900 })
    expect(addition(backlog(failures).next(known(record))).increment.count).toBe(added)
  })

  it('waits, and is not dropped, where the record cannot be read', () => {
    const outbox = backlog(1)
    const cutOff = { isOutOfTouch: true, canRead: false }
    expect([outbox.next(known(stored(), cutOff)), outbox.isEmpty]).toEqual([undefined, false])
  })

  it('that cannot add anything is dropped', () => {
    const outbox = backlog(3)
    expect(outbox.next(known(stored({ failureCount: 2, lastFailureAt: 900 })))).toBeUndefined()
    expect(outbox.isEmpty).toBe(true)
  })

  it('and one failure more open the circuit', () => {
    const outbox = backlog(3)
    outbox.addFailures(1, outcome)
    expect(replacement(outbox.next(known(stored()))).next).toMatchObject({ state: 'OPEN', failureCount: 3 })
  })

  it('waits for nothing once it was sent: its id makes it count once', () => {
    const outbox = backlog(1)
    outbox.sent(addition(outbox.next(known(stored()))))
    expect(outbox.needsFreshRecord).toBe(false)
    expect(outbox.next(known(stored(), { isOutOfTouch: true }))?.kind).toBe('add')
  })
})

describe('a success', () => {
  it('ends the failures that are stored, and drops those that wait', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    outbox.addSuccess(0, 1_100, 'r2')
    expect(outbox.count(2)).toBe(0)
    const write = replacement(outbox.next(known(stored({ failureCount: 2, lastFailureAt: 900 }))))
    expect([write.version, write.next.failureCount, write.change]).toEqual(['v1', 0, undefined])
    expect(outbox.tripEpoch).toBeUndefined()
    expect([outbox.answered(write, true), outbox.isEmpty]).toEqual([true, true])
  })

  it('that is not answered is repeated as it was, apart from what came since', () => {
    const outbox = outboxWith()
    const record = stored({ failureCount: 2, lastFailureAt: 900 })
    outbox.addSuccess(0, 1_000, undefined)
    const write = replacement(outbox.next(known(record)))
    outbox.sent(write)
    outbox.addFailures(1, outcome)
    expect(outbox.next(known(record))).toEqual({ ...write, isRepeated: true })
  })

  it('is written only where there is something to end', () => {
    const outbox = outboxWith()
    outbox.addSuccess(0, 1_000, undefined)
    expect([outbox.next(known(stored())), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('is followed by the failures that come after it', () => {
    const outbox = outboxWith()
    outbox.addSuccess(0, 1_000, undefined)
    outbox.addFailures(1, outcome)
    expect(outbox.count(2)).toBe(1)
    const write = replacement(outbox.next(known(stored({ failureCount: 2, lastFailureAt: 900 }))))
    expect(write.next.failureCount).toBe(1)
  })
})

describe('a look before the report', () => {
  it('comes once, and only where the store can be read', () => {
    const looking = outboxWith()
    looking.addFailures(1, { ...outcome, looksFirst: true })
    expect(looking.next(known(stored()))).toEqual({ kind: 'read', longest: 100 })
    expect(looking.next(known(stored()))?.kind).toBe('add')
    const blind = outboxWith()
    blind.addFailures(1, { ...outcome, looksFirst: true })
    expect(blind.next(known(stored(), { canRead: false }))?.kind).toBe('add')
  })
})

describe('the end of a probe', () => {
  it('is told before everything else, in order', () => {
    const outbox = outboxWith({ halfOpenSuccessThreshold: 2 })
    outbox.addFailures(1, outcome)
    outbox.addSettlement(settlement)
    outbox.addSettlement({ ...settlement, leaseId: 'second', epoch: 'e3' })
    const leases = ['mine', 'second'].map((id) => ({ id, expiresAt: 9_000 }))
    const first = replacement(outbox.next(known(halfOpen({ leases }))))
    expect([first.cause, first.next.leases, first.change]).toMatchObject([
      { kind: 'settlement', leaseId: 'mine' },
      [leases[1]],
      undefined,
    ])
    outbox.answered(first, true)
    const second = replacement(outbox.next(known(halfOpen({ leases: [leases[1] as never], successCount: 1 }))))
    expect(second.next).toMatchObject({ state: 'CLOSED', epoch: 'e3' })
    expect(second.change).toMatchObject({ from: 'HALF_OPEN', to: 'CLOSED', reason: 'probe-succeeded', requestId: 'r1' })
  })

  it('is decided again after a conflict, with the same epoch', () => {
    const outbox = outboxWith()
    outbox.addSettlement({ ...settlement, outcome: 'failure', lastFailure: failure })
    const first = replacement(outbox.next(known(halfOpen())))
    expect(outbox.answered(first, false)).toBe(false)
    const second = replacement(outbox.next(known(halfOpen({ version: 'v2' }))))
    expect([second.version, second.next.epoch, second.change?.reason]).toEqual(['v2', 'e2', 'probe-failed'])
  })

  it.each([
    ['its lease is gone from the record', halfOpen({ leases: [] }), 1_000],
    ['the circuit is no longer half-open', stored(), 1_000],
    ['nothing is stored', undefined, 1_000],
    ['it is older than the window', halfOpen(), 61_001],
  ])('counts for nothing where %s', (_name, record, now) => {
    const outbox = outboxWith()
    outbox.addSettlement(settlement)
    expect([outbox.next(known(record, { now })), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('counts up to the last millisecond of the window', () => {
    const outbox = outboxWith()
    outbox.addSettlement(settlement)
    expect(outbox.next(known(halfOpen(), { now: 61_000 }))?.kind).toBe('replace')
  })
})

describe('a trip that is due', () => {
  function due(settings: Partial<ServiceSettings> = {}): Outbox {
    const outbox = outboxWith(settings)
    outbox.addFailures(1, outcome)
    const write = addition(outbox.next(known(stored())))
    outbox.sent(write)
    outbox.answered(write, true)
    outbox.tripIsDue(write.cause)
    return outbox
  }
  const complete = stored({ failureCount: 3, lastFailureAt: 1_000 })

  it('is written with the epoch that the view shows already', () => {
    const outbox = due()
    const epoch = outbox.beginTrip()
    expect([outbox.beginTrip(), outbox.hasTransition, outbox.mayTrip]).toEqual([epoch, true, true])
    const write = replacement(outbox.next(known(complete)))
    expect(write).toMatchObject({ version: 'v1', next: { state: 'OPEN', epoch, lastFailure: failure } })
    expect(write.change).toMatchObject({ reason: 'failure-threshold', requestId: 'r1' })
    expect([outbox.answered(write, false), outbox.hasTransition]).toEqual([false, true])
    expect(replacement(outbox.next(known({ ...complete, version: 'v2' }))).next.epoch).toBe(epoch)
    expect([outbox.answered(write, true), outbox.next(known(write.next)), outbox.isEmpty]).toEqual([
      false,
      undefined,
      true,
    ])
  })

  it('of another time has an epoch of its own', () => {
    const outbox = due()
    const epoch = outbox.beginTrip()
    outbox.endTrip()
    expect(outbox.tripEpoch).toBeUndefined()
    expect(outbox.beginTrip()).not.toBe(epoch)
  })

  it.each([
    ['the count is no longer complete', stored({ failureCount: 2, lastFailureAt: 1_000 }), 1_000],
    ['the failures are older than the window', complete, 61_001],
    ['the circuit is open already', stored({ state: 'OPEN', retryAt: 9, failureCount: 3, lastFailureAt: 1 }), 1_000],
    ['an operator holds the circuit', { ...complete, override: { state: 'CLOSED', at: 1 } as const }, 1_000],
    ['nothing is stored', undefined, 1_000],
  ])('is no longer due where %s', (_name, record, now) => {
    const outbox = due()
    expect([outbox.next(known(record, { now })), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('is dropped when another epoch begins', () => {
    const outbox = due()
    outbox.epochBegan(0)
    expect(outbox.isEmpty).toBe(true)
  })
})

describe('a record that was deleted', () => {
  it('takes everything that waits with it', () => {
    const outbox = outboxWith()
    outbox.addFailures(1, outcome)
    outbox.sent(addition(outbox.next(known(stored()))))
    outbox.addFailures(1, outcome)
    outbox.addSettlement(settlement)
    outbox.beginTrip()
    outbox.clear()
    expect([outbox.isEmpty, outbox.tripEpoch]).toEqual([true, undefined])
  })
})
