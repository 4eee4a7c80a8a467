import { describe, expect, it } from '@jest/globals'
import { type Known, Outbox, type Outcome } from '../../../src/circuit/outbox.ts'
import type { Addition, Replacement, Step, Write } from '../../../src/circuit/step.ts'
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

const failure = { at: 1_000, name: 'Error' }

function known(record: CircuitRecord | undefined, more: Partial<Known> = {}): Known {
  const here = { readAt: 1_000, isOutOfTouch: false, canRead: true, isHeldBack: false, row: 1, lastFailure: failure }
  return { record, epoch: 'made-up', since: 0, now: 1_000, ...here, ...more }
}

/** The first failure in a row, of a call that knew of no suspicion. */
const first: Outcome = {
  kind: 'failure',
  period: 0,
  suspicion: undefined,
  row: 1,
  at: 1_000,
  lastFailure: failure,
  requestId: 'r1',
}

/** Outcomes of calls that knew of the suspicion `v1`. */
const failed: Outcome = { ...first, suspicion: 'v1' }
const succeeded: Outcome = { ...failed, kind: 'success', row: 0, lastFailure: undefined }
const started: Outcome = { ...succeeded, kind: 'started' }

function outboxOf(outcomes: readonly Outcome[], settings: Partial<ServiceSettings> = {}): Outbox {
  const outbox = outboxWith(settings)
  for (const outcome of outcomes) outbox.add(outcome)
  return outbox
}

function stored(fields: Partial<CircuitRecord> = {}): CircuitRecord {
  return circuitRecord({ version: 'v1', epoch: 'e1', updatedAt: 900, ...fields })
}

/** Under a suspicion that another instance has raised, in a fleet that is known. */
function suspected(fields: Partial<CircuitRecord> = {}): CircuitRecord {
  return stored({ suspectedAt: 900, earlyCount: 1, reporterCount: 1, othersAt: 900, ...fields })
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
  isSecondOpinion: false,
} as const

function addition(step: Step | undefined): Addition {
  if (step?.kind !== 'add') throw new Error(`This is no addition: ${JSON.stringify(step)}`)
  return step
}

function replacement(step: Step | undefined): Replacement {
  if (step?.kind !== 'replace') throw new Error(`This is no replacement: ${JSON.stringify(step)}`)
  return step
}

function answer(outbox: Outbox, write: Write, isStored = true): void {
  outbox.sent(write)
  outbox.answered(write, isStored)
}

/** An outbox whose instance has raised the suspicion that the record is under, alone. */
function author(settings: Partial<ServiceSettings> = {}): { outbox: Outbox; record: CircuitRecord } {
  const outbox = outboxOf([first], settings)
  const write = replacement(outbox.next(known(undefined)))
  answer(outbox, write)
  return { outbox, record: write.next }
}

describe('an empty outbox', () => {
  it('has nothing to tell', () => {
    const outbox = outboxWith()
    expect([outbox.isEmpty, outbox.liveFailures(1_000), outbox.next(known(undefined))]).toEqual([true, 0, undefined])
  })
})

describe('a failure of a service that nobody suspects', () => {
  it('raises a suspicion, on condition that nothing is stored', () => {
    const write = outboxOf([first]).next(known(undefined))
    expect(write).toMatchObject({ kind: 'replace', version: undefined, change: undefined, cause: { kind: 'report' } })
    expect(write).toMatchObject({
      next: { epoch: 'made-up', state: 'CLOSED', suspectedAt: 1_000, failureCount: 1, reporterCount: 1 },
    })
  })

  it('raises it in the record that is known, on condition that it is still that version', () => {
    const write = outboxOf([first]).next(known(stored({ othersAt: 900 })))
    expect(write).toMatchObject({ version: 'v1', next: { suspectedAt: 1_000, failureCount: 0, earlyCount: 1 } })
  })

  it('is one of the failures in a row that waited with it', () => {
    const outbox = outboxOf([first, { ...first, row: 2 }])
    expect([outbox.liveFailures(61_000), outbox.liveFailures(61_001)]).toEqual([2, 0])
    expect(outbox.next(known(undefined))).toMatchObject({ next: { state: 'CLOSED', failureCount: 2 } })
  })

  it('opens the circuit at once where the failures in a row are enough', () => {
    const outbox = outboxOf([{ ...first, row: 3 }])
    const write = replacement(outbox.next(known(stored())))
    expect(write).toMatchObject({ version: 'v1', next: { state: 'OPEN', failureCount: 3, lastFailure: failure } })
    expect(write.change).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', requestId: 'r1' })
    expect(write.change?.evidence).toEqual({ failures: 3, successes: 0, reporters: 1 })
  })

  it.each([
    ['it is not worth a write', { row: 0 }, stored()],
    ['somebody else has raised a suspicion since, and it came to nothing', {}, stored({ dismissedAt: 1_000 })],
    ['the circuit is not closed', {}, halfOpen()],
    ['an operator holds the circuit', {}, stored({ override: { state: 'CLOSED', at: 1 } })],
  ])('is dropped where %s', (_where, changes, record) => {
    const outbox = outboxOf([{ ...first, ...changes }])
    expect([outbox.next(known(record)), outbox.isEmpty]).toEqual([undefined, true])
  })

  it.each([
    ['looks first where others may have raised one since the last read', { readAt: -501 }, 'read'],
    ['looks no more where the record is young', { readAt: -500 }, 'replace'],
    ['looks no more where nothing can be read', { readAt: -501, canRead: false }, 'replace'],
  ])('%s', (_what, changes, kind) => {
    expect(outboxOf([first]).next({ ...known(stored()), ...changes })?.kind).toBe(kind)
  })

  it('is not looked for where it is not worth a write', () => {
    expect(outboxOf([{ ...first, row: 0 }]).next({ ...known(stored()), readAt: -501 })).toBeUndefined()
  })

  it('is not dropped where a suspicion came to nothing before it', () => {
    expect(outboxOf([first]).next(known(stored({ dismissedAt: 999 })))?.kind).toBe('replace')
  })

  it('is decided anew where another instance was first: it has run into a suspicion', () => {
    const outbox = outboxOf([first])
    answer(outbox, replacement(outbox.next(known(undefined))), false)
    expect(addition(outbox.next(known(suspected()))).outcomes).toMatchObject({ failures: 0, early: 1, reporters: 1 })
  })
})

describe('failures in a row', () => {
  it('are not interrupted by a call that begins', () => {
    const outbox = outboxOf([
      { ...first, row: 3 },
      { ...started, suspicion: undefined, requestId: 'r2' },
    ])
    const write = replacement(outbox.next(known(stored())))
    expect(write).toMatchObject({ next: { state: 'OPEN', failureCount: 3 }, change: { requestId: 'r1' } })
  })

  it.each([
    ['has come to nothing since, no more', { dismissedAt: 950 }, 2],
    ['has come to nothing long ago', { dismissedAt: -60_000 }, 5],
    ['has ended otherwise', {}, 5],
  ])('that were told to a suspicion that %s, count: %p', (_which, fields, counted) => {
    const outbox = outboxOf([failed], { failureThreshold: 9 })
    const raised = suspected({ othersAt: undefined })
    answer(outbox, addition(outbox.next(known(raised, { row: 3 }))))
    outbox.add({ ...first, row: 5 })
    const write = replacement(outbox.next(known(stored({ version: 'v2', ...fields }))))
    expect(write.next.failureCount).toBe(counted)
  })

  it('that open the circuit are decided anew after a lost reply, and not repeated', () => {
    const outbox = outboxOf([{ ...first, row: 3 }])
    const write = replacement(outbox.next(known(stored())))
    outbox.sent(write)
    const again = replacement(outbox.next(known(stored())))
    expect([again.isRepeated, again.next.version === write.next.version]).toEqual([undefined, false])
  })

  it('wait where it is left to others to raise a suspicion, but for one that was sent', () => {
    const outbox = outboxOf([first])
    expect([outbox.next(known(stored(), { isHeldBack: true })), outbox.isEmpty]).toEqual([undefined, false])
    const write = replacement(outbox.next(known(stored())))
    outbox.sent(write)
    expect(outbox.next(known(stored({ failureCount: 99 }), { isHeldBack: true }))).toEqual({
      ...write,
      isRepeated: true,
    })
  })

  it('are not looked for where the clock was set back since', () => {
    expect(outboxOf([first]).next(known(stored(), { now: 900, readAt: -501 }))?.kind).toBe('replace')
  })
})

describe('an outcome under a suspicion', () => {
  it('is told from one that ran into it', () => {
    const { outcomes } = addition(outboxOf([failed, first]).next(known(suspected({ earlyCount: 0 }))))
    expect(outcomes).toMatchObject({ failures: 1, early: 1 })
  })

  it('is added to the record that is known, on condition that it is still that version', () => {
    const write = outboxOf([failed]).next(known(suspected()))
    expect(write).toMatchObject({
      kind: 'add',
      version: 'v1',
      isRepeated: false,
      outcomes: { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at: 1_000, id: 'id1' },
    })
  })

  it('is added with those that waited with it', () => {
    const write = addition(outboxOf([started, started, succeeded, failed]).next(known(suspected())))
    expect(write.outcomes).toMatchObject({ failures: 1, successes: 1, started: 2, early: 0 })
  })

  it('counts its instance as a reporter once', () => {
    const outbox = outboxOf([succeeded])
    answer(outbox, addition(outbox.next(known(suspected()))))
    outbox.add(succeeded)
    expect(addition(outbox.next(known(suspected()))).outcomes).toMatchObject({ successes: 1, reporters: 0 })
    expect([outbox.hasSpokenTo('v1'), outbox.hasSpokenTo('v2')]).toEqual([true, false])
  })

  it('of a call that knew of another one says nothing but that its failure ran into this one', () => {
    const before = { suspicion: 'v0' }
    const outbox = outboxOf([
      { ...succeeded, ...before },
      { ...started, ...before },
      { ...failed, ...before },
    ])
    expect(addition(outbox.next(known(suspected()))).outcomes).toMatchObject({
      failures: 0,
      successes: 0,
      started: 0,
      early: 1,
    })
  })

  it.each([
    ['once for each instance', [first, first], suspected(), 1],
    ['not where a success was sampled', [first], suspected({ successCount: 1 }), undefined],
  ])('of a call that knew of none counts as having run into it: %s', (_how, outcomes, record, early) => {
    const outbox = outboxOf(outcomes)
    const step = outbox.next(known(record))
    expect(step?.kind === 'add' ? step.outcomes.early : undefined).toBe(early)
    if (step?.kind === 'add') answer(outbox, step)
    outbox.add(first)
    expect([outbox.next(known(record)), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('is no more than half of what is needed by one instance, while others are known', () => {
    const outbox = outboxOf([failed, failed, failed])
    const write = addition(outbox.next(known(suspected())))
    expect(write.outcomes.failures).toBe(2)
    answer(outbox, write)
    outbox.add(failed)
    expect([outbox.next(known(suspected({ failureCount: 2 }))), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('counts beyond that when the instance turns out to be alone', () => {
    const record = (failureCount: number) => suspected({ failureCount, earlyCount: 0 })
    const outbox = outboxOf([failed, failed])
    answer(outbox, addition(outbox.next(known(record(0)))))
    outbox.add(failed)
    outbox.next(known(record(2)))
    const alone = { now: 10_900 }
    outbox.add({ ...failed, at: 10_900 })
    const write = addition(outbox.next(known(record(2), alone)))
    expect(write.outcomes).toMatchObject({ failures: 2, early: 0, reporters: 0 })
    answer(outbox, write)
    outbox.add({ ...failed, at: 10_900 })
    expect(addition(outbox.next(known(record(2), alone))).outcomes.failures).toBe(1)
  })

  it.each([
    ['those that raised the suspicion', false, 4],
    ['those that a backlog may raise one with', true, 2],
  ])('counts with %s where their instance turns out to be alone', (_which, isBacklog, added) => {
    const outbox = outboxOf([{ ...first, row: 4 }])
    if (isBacklog) outbox.toBacklog()
    const write = replacement(outbox.next(known(stored({ othersAt: 900 }))))
    expect(write.next).toMatchObject({ state: 'CLOSED', failureCount: 0, earlyCount: 1 })
    answer(outbox, write)
    outbox.add({ ...failed, suspicion: write.next.version, at: 11_000 })
    const { outcomes } = addition(outbox.next(known(write.next, { now: 11_000 })))
    expect(outcomes).toMatchObject({ failures: added, early: 0, reporters: 0 })
  })

  it('counts without those that an earlier suspicion has heard where its instance turns out to be alone', () => {
    const outbox = outboxOf([failed])
    answer(outbox, addition(outbox.next(known(suspected(), { row: 3 }))))
    outbox.add({ ...first, row: 5 })
    const write = replacement(outbox.next(known(stored({ version: 'v2', othersAt: 900, dismissedAt: 950 }))))
    answer(outbox, write)
    outbox.add({ ...failed, suspicion: write.next.version, at: 11_000 })
    expect(addition(outbox.next(known(write.next, { now: 11_000 }))).outcomes.failures).toBe(2)
  })

  it('counts in full while nobody else is known, whether its call knew of the suspicion or not', () => {
    const { outbox, record } = author({ failureThreshold: 9 })
    expect(outbox.announces(record, 1_000)).toBe(false)
    for (const outcome of [first, { ...failed, suspicion: record.version }, { ...failed, suspicion: record.version }]) {
      outbox.add(outcome)
    }
    expect(addition(outbox.next(known(record))).outcomes).toMatchObject({ failures: 3, early: 0, reporters: 0 })
  })

  it('is left to the others by an instance that has only heard of it', () => {
    expect(outboxWith().announces(suspected({ othersAt: undefined }), 1_000)).toBe(true)
  })

  it.each([
    ['the suspicion is young', 1_000, true],
    ['the suspicion is older', 1_900, false],
  ])('is announced or not where %s', (_where, now, expected) => {
    expect(outboxWith().announces(suspected(), now)).toBe(expected)
  })

  it('is not announced by an instance that is alone with its suspicion', () => {
    const { outbox, record } = author()
    expect(outbox.announces(record, 1_000)).toBe(false)
  })
})

describe('reports', () => {
  const more = { ...failed, at: 2_000 }

  it('that come while one is on its way wait for its reply, and then go on', () => {
    const outbox = outboxOf([failed])
    const write = addition(outbox.next(known(suspected())))
    outbox.sent(write)
    outbox.add(succeeded)
    outbox.add(succeeded)
    outbox.answered(write, true)
    expect(addition(outbox.next(known(suspected()))).outcomes).toMatchObject({ failures: 0, successes: 2 })
  })

  it('that lost are merged with those that came since', () => {
    const outbox = outboxOf([
      { ...failed, suspicion: 'v2' },
      { ...started, suspicion: 'v2' },
    ])
    answer(outbox, addition(outbox.next(known(suspected()))), false)
    outbox.add({ ...more, suspicion: 'v2' })
    const write = addition(outbox.next(known(suspected({ version: 'v2' }))))
    expect(write).toMatchObject({ version: 'v2', isRepeated: false })
    expect(write.outcomes).toMatchObject({ failures: 2, started: 1, at: 2_000 })
  })

  it('that lost are merged count by count', () => {
    const all = [failed, started, succeeded, first]
    const outbox = outboxOf(all)
    answer(outbox, addition(outbox.next(known(suspected()))), false)
    for (const outcome of all) outbox.add(outcome)
    const { outcomes } = addition(outbox.next(known(suspected())))
    expect(outcomes).toMatchObject({ failures: 2, started: 2, successes: 2, early: 1 })
  })

  it('that lost are not given up when the service works', () => {
    const outbox = outboxOf([failed])
    answer(outbox, addition(outbox.next(known(suspected()))), false)
    outbox.endRow()
    expect(outbox.isEmpty).toBe(false)
  })

  it.each([
    [60_000, 2],
    [60_001, 1],
  ])('that lost are left out where those that came since are %p ms later: %p failures are added', (later, failures) => {
    const outbox = outboxOf([failed])
    answer(outbox, addition(outbox.next(known(suspected()))), false)
    outbox.add({ ...failed, at: 1_000 + later })
    expect(addition(outbox.next(known(suspected()))).outcomes.failures).toBe(failures)
  })

  it.each([
    [60_000, 2],
    [60_001, 1],
  ])('that wait for longer than the window begin anew: after %p ms %p failures', (later, failures) => {
    expect(outboxOf([failed, { ...failed, at: 1_000 + later }]).liveFailures(1_000)).toBe(failures)
  })

  it('are no longer in a row when the service has worked since', () => {
    const outbox = outboxOf([{ ...first, row: 3 }])
    outbox.endRow()
    expect(outbox.next(known(stored()))).toMatchObject({ next: { state: 'CLOSED', failureCount: 1 } })
  })

  it.each([
    ['of the present epoch', 0, 61_000, 'replace'],
    ['that are older than the window', 0, 61_001, undefined],
    ['of an epoch before', 1, 1_000, undefined],
  ])('%s are told or not', (_name, since, now, kind) => {
    const outbox = outboxOf([first])
    expect(outbox.next(known(stored(), { since, now }))?.kind).toBe(kind)
    expect(outbox.isEmpty).toBe(kind === undefined)
  })

  it.each([
    ['waiting', false],
    ['on their way', true],
  ])('that are %s are dropped when another epoch begins, unless they were made in it', (_where, isSent) => {
    const outbox = outboxOf([{ ...failed, period: 3 }])
    if (isSent) outbox.sent(addition(outbox.next(known(suspected()))))
    outbox.epochBegan(3)
    expect(outbox.hasReport).toBe(true)
    outbox.epochBegan(4)
    expect(outbox.isEmpty).toBe(true)
  })
})

describe('an addition without a reply', () => {
  function unanswered() {
    const outbox = outboxOf([failed])
    const write = addition(outbox.next(known(suspected())))
    outbox.sent(write)
    return { outbox, write }
  }

  it('is repeated as it was, before and apart from what came since', () => {
    const { outbox, write } = unanswered()
    outbox.add(failed)
    expect(outbox.next(known(suspected({ failureCount: 1 })))).toEqual({ ...write, isRepeated: true })
  })

  it.each([
    ['is another version', suspected({ version: 'v2' })],
    ['is gone', undefined],
  ])('is not repeated where the record %s: it may have been counted', (_name, record) => {
    const { outbox } = unanswered()
    expect([outbox.next(known(record)), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('that is refused on its repetition may have been counted: it is not decided anew', () => {
    const { outbox } = unanswered()
    answer(outbox, addition(outbox.next(known(suspected()))), false)
    expect(outbox.isEmpty).toBe(true)
  })

  it('is not forgotten when its first attempt is refused late, while its repetition is on its way', () => {
    const { outbox, write } = unanswered()
    outbox.sent(addition(outbox.next(known(suspected()))))
    outbox.answered(write, false)
    expect([outbox.next(known(suspected({ version: 'v2' }))), outbox.isEmpty]).toEqual([undefined, true])
  })

  it('counts as this instance’s share once it is answered, however late', () => {
    const { outbox, write } = unanswered()
    outbox.clear()
    outbox.answered(write, true)
    outbox.add(failed)
    outbox.add(failed)
    expect(addition(outbox.next(known(suspected()))).outcomes).toMatchObject({ failures: 1, reporters: 0 })
  })

  it('is told where its first attempt is answered late, while its repetition is on its way', () => {
    const { outbox, write } = unanswered()
    outbox.sent(addition(outbox.next(known(suspected()))))
    outbox.answered(write, true)
    expect(outbox.isEmpty).toBe(true)
  })

  it.each([
    [{ startedCount: 8 }, true],
    [{ startedCount: 9 }, false],
    [{ failureCount: 5, successCount: 5 }, false],
    [{ earlyCount: 10 }, false],
  ])('is not repeated where the store may have forgotten it: after %p of others, %p', (others, isRepeated) => {
    const { outbox } = unanswered()
    const record = suspected(others)
    expect(outbox.next(known(record)) !== undefined).toBe(isRepeated)
    // It is taken for told.
    expect([outbox.isEmpty, outbox.hasSpokenTo('v1')]).toEqual([!isRepeated, !isRepeated])
  })

  it('that is given up because its outcomes are too old is taken for told', () => {
    const { outbox } = unanswered()
    outbox.add({ ...failed, at: 61_001 })
    const { outcomes } = addition(outbox.next(known(suspected({ suspectedAt: 30_000 }), { now: 61_001 })))
    expect(outcomes).toMatchObject({ failures: 1, reporters: 0 })
  })

  it('is known by a read to have raised the suspicion', () => {
    const outbox = outboxOf([first])
    const write = replacement(outbox.next(known(stored())))
    outbox.sent(write)
    expect([outbox.next(known(write.next)), outbox.hasSpokenTo(write.next.version)]).toEqual([undefined, true])
  })

  it('that belongs to an earlier suspicion leaves the share in the present one as it is', () => {
    const { outbox, write } = unanswered()
    outbox.next(known(suspected({ version: 'v2' })))
    outbox.add({ ...failed, suspicion: 'v2' })
    answer(outbox, addition(outbox.next(known(suspected({ version: 'v2' })))))
    outbox.answered(write, true)
    expect([outbox.hasSpokenTo('v1'), outbox.hasSpokenTo('v2')]).toEqual([true, true])
    // Nor does a record of another epoch, which may be one from before.
    outbox.epochBegan(9)
    expect(outbox.hasSpokenTo('v2')).toBe(true)
  })

  it('is known of the last four suspicions', () => {
    const outbox = outboxWith()
    for (const version of ['v1', 'v2', 'v3', 'v4', 'v5']) {
      outbox.add({ ...failed, suspicion: version })
      answer(outbox, addition(outbox.next(known(suspected({ version })))))
    }
    expect(['v1', 'v2', 'v5'].map((version) => outbox.hasSpokenTo(version))).toEqual([false, true, true])
  })

  it('may be a suspicion, which is repeated as it was, too', () => {
    const outbox = outboxOf([first])
    const write = replacement(outbox.next(known(stored())))
    outbox.sent(write)
    outbox.add(first)
    expect(outbox.next(known(stored()))).toEqual({ ...write, isRepeated: true })
  })
})

describe('a backlog', () => {
  function backlog(outcomes: readonly Outcome[], settings: Partial<ServiceSettings> = {}): Outbox {
    const outbox = outboxOf(outcomes, settings)
    outbox.toBacklog()
    return outbox
  }

  it('needs a record that was read after the store failed', () => {
    const outbox = backlog([first])
    expect(outbox.needsFreshRecord).toBe(true)
    expect(outbox.next(known(stored(), { isOutOfTouch: true }))).toEqual({ kind: 'read' })
    expect(outbox.next(known(stored()))?.kind).toBe('replace')
  })

  it.each([
    [3, 3, 2],
    [3, 1, 1],
  ])(
    'by itself leaves the count incomplete: at a threshold of %p, %p in a row raise %p',
    (failureThreshold, row, raised) => {
      const write = replacement(backlog([{ ...first, row }], { failureThreshold }).next(known(stored())))
      expect(write).toMatchObject({ next: { state: 'CLOSED', failureCount: raised }, change: undefined })
    },
  )

  it('raises no suspicion where one failure is enough to open the circuit', () => {
    const outbox = backlog([first], { failureThreshold: 1 })
    expect([outbox.next(known(stored())), outbox.isEmpty]).toEqual([undefined, true])
  })

  it.each([
    [0, 0, 2],
    [1, 0, 1],
    [0, 1, 1],
    [2, 0, undefined],
  ])(
    'by itself does not complete the count of a suspicion that others share: to %p failures and %p that ran into it, it adds %p',
    (failureCount, earlyCount, added) => {
      const outbox = backlog([first, failed, failed, failed])
      const step = outbox.next(known(suspected({ failureCount, earlyCount })))
      expect(step?.kind === 'add' ? step.outcomes : undefined).toEqual(
        added && expect.objectContaining({ failures: added, early: 0 }),
      )
    },
  )

  it.each([
    ['waits', false],
    ['was to be written', true],
  ])('that %s is over when the service works', (_where, isFirst) => {
    const outbox = backlog([first])
    if (isFirst) outbox.next(known(stored(), { isOutOfTouch: true }))
    outbox.endRow()
    expect(outbox.isEmpty).toBe(true)
  })

  it('by itself does not complete the count of an instance that is alone with its suspicion', () => {
    const { outbox, record } = author()
    outbox.add(first)
    outbox.add(first)
    outbox.toBacklog()
    const write = addition(outbox.next(known(record)))
    expect(write.outcomes.failures).toBe(1)
    answer(outbox, write)
    outbox.add(first)
    outbox.toBacklog()
    expect([outbox.next(known({ ...record, failureCount: 2 })), outbox.isEmpty]).toEqual([undefined, true])
  })

  it.each([
    ['waits', false],
    ['was to be written', true],
  ])('that %s is one until another failure comes, which opens the circuit', (_where, isFirst) => {
    const outbox = backlog([first])
    if (isFirst) outbox.next(known(stored(), { isOutOfTouch: true }))
    outbox.add({ ...first, kind: 'success', row: 0 })
    expect(outbox.needsFreshRecord).toBe(true)
    outbox.add({ ...first, row: 3 })
    expect(outbox.next(known(stored()))).toMatchObject({ next: { state: 'OPEN', failureCount: 3 } })
  })

  it('waits, and is not dropped, where the record cannot be read', () => {
    const outbox = backlog([first])
    const cutOff = { isOutOfTouch: true, canRead: false }
    expect([outbox.next(known(stored(), cutOff)), outbox.isEmpty]).toEqual([undefined, false])
  })

  it('raises no suspicion that is not worth a write', () => {
    expect(backlog([{ ...first, row: 0 }]).next(known(stored()))).toBeUndefined()
  })

  it.each([
    ['a success', succeeded, 'read'],
    ['a failure', failed, 'add'],
    ['a failure that ran into the suspicion', first, 'add'],
  ])('is one with %s that came since, or none', (_what, outcome, kind) => {
    const outbox = backlog([first])
    outbox.next(known(suspected(), { isOutOfTouch: true }))
    outbox.add(outcome)
    expect(outbox.next(known(suspected(), { isOutOfTouch: true }))?.kind).toBe(kind)
  })

  it('waits for nothing once its suspicion was sent: its version tells whether it was raised', () => {
    const outbox = backlog([first])
    outbox.sent(replacement(outbox.next(known(stored()))))
    expect(outbox.needsFreshRecord).toBe(false)
    expect(outbox.next(known(stored(), { isOutOfTouch: true }))?.kind).toBe('replace')
  })

  it('that was added is looked for first, because the store may have forgotten its id', () => {
    const outbox = backlog([failed])
    const write = addition(outbox.next(known(suspected({ earlyCount: 0 }))))
    outbox.sent(write)
    expect(outbox.needsFreshRecord).toBe(true)
    expect(outbox.next(known(suspected(), { isOutOfTouch: true }))).toEqual({ kind: 'read' })
    expect(outbox.next(known(suspected()))).toEqual({ ...write, isRepeated: true })
  })
})

describe('a verdict', () => {
  const guilty = suspected({ failureCount: 3, earlyCount: 1, reporterCount: 2 })

  it('opens the circuit, by whoever sees it, with the evidence and its own last failure', () => {
    const write = replacement(outboxWith().next(known(guilty)))
    expect(write).toMatchObject({
      version: 'v1',
      cause: { kind: 'verdict' },
      next: { state: 'OPEN', openedAt: 1_000, lastFailure: failure, othersAt: 1_000 },
      change: { to: 'OPEN', reason: 'failure-threshold', at: 1_000, lastFailure: failure, retryAt: 11_000 },
    })
    expect(write.change?.evidence).toEqual({ failures: 4, successes: 0, reporters: 2 })
  })

  it('is told with the request of the last failure of this instance, where it is in its present streak', () => {
    const outbox = outboxOf([failed, { ...succeeded, requestId: 'r2' }])
    answer(outbox, addition(outbox.next(known(suspected()))))
    expect(replacement(outbox.next(known(guilty))).change?.requestId).toBe('r1')
    // It was long ago: the service has worked for this instance since.
    expect(replacement(outbox.next(known(guilty, { lastFailure: undefined }))).change?.requestId).toBeUndefined()
  })

  it('comes before what waits to be reported', () => {
    expect(replacement(outboxOf([failed]).next(known(guilty))).cause.kind).toBe('verdict')
  })

  it('is the same transition over all attempts, as long as the suspicion is the same', () => {
    const outbox = outboxWith()
    const trip = outbox.tripOf(guilty, 1_000)
    const attempts = [1_000, 1_100].map((now) => replacement(outbox.next(known(guilty, { now }))).next)
    expect(attempts.map(({ epoch, openedAt }) => [epoch, openedAt])).toEqual(Array(2).fill([trip?.epoch, 1_000]))
    expect(attempts[1]?.version).not.toBe(attempts[0]?.version)
    expect(outbox.tripOf({ ...guilty, version: 'v2' }, 1_200)).toMatchObject({ version: 'v2', at: 1_200 })
    expect(outbox.tripOf({ ...guilty, version: 'v2' }, 1_200)?.epoch).not.toBe(trip?.epoch)
  })

  it.each([
    ['nothing is stored', undefined, 1_000],
    ['it is not decided', suspected({ failureCount: 2 }), 1_000],
    ['its window is over', guilty, 60_901],
    ['an operator holds the circuit', { ...guilty, override: { state: 'CLOSED', at: 1 } as const }, 1_000],
    ['the circuit is open', halfOpen({ failureCount: 3 }), 1_000],
  ])('is no trip where %s', (_name, record, now) => {
    expect(outboxWith().tripOf(record, now)).toBeUndefined()
  })

  it.each([
    ['they may have contradicted since the record was read', 900, true, { kind: 'read' }],
    ['they may have, and reading is left alone', 900, false, undefined],
    ['the record was read since time has decided', 5_900, true, { kind: 'replace' }],
  ])('by time alone is looked up first or not where others are known and %s', (_where, readAt, canRead, step) => {
    const record = suspected({ earlyCount: 3, reporterCount: 3 })
    const next = outboxWith().next(known(record, { now: 5_900, readAt, canRead }))
    expect(next).toEqual(step && expect.objectContaining(step))
  })

  it('by time alone is not looked up where nobody is known to contradict', () => {
    const record = suspected({ earlyCount: 3, reporterCount: 3, othersAt: undefined })
    expect(outboxWith().next(known(record, { now: 1_900, readAt: 900 }))?.kind).toBe('replace')
  })

  it('may be that the suspicion came to nothing: it is dismissed, and no event tells of it', () => {
    const write = replacement(outboxWith().next(known(suspected({ successCount: 3 }))))
    expect(write).toMatchObject({ version: 'v1', change: undefined, cause: { kind: 'verdict' } })
    expect(write.next).toMatchObject({ state: 'CLOSED', epoch: 'e1', suspectedAt: undefined, dismissals: 1 })
  })

  it('is spoken by whoever reads of a suspicion that has outlived its window', () => {
    expect(replacement(outboxWith().next(known(suspected(), { now: 60_901 }))).next.suspectedAt).toBeUndefined()
  })
})

describe('the end of a probe', () => {
  it('is told before everything else, in order', () => {
    const outbox = outboxOf([first], { halfOpenSuccessThreshold: 2 })
    outbox.addSettlement(settlement)
    outbox.addSettlement({ ...settlement, leaseId: 'second', epoch: 'e3' })
    const leases = ['mine', 'second'].map((id) => ({ id, expiresAt: 9_000 }))
    const one = replacement(outbox.next(known(halfOpen({ leases }))))
    expect([one.cause, one.next.leases, one.change]).toMatchObject([
      { kind: 'settlement', leaseId: 'mine' },
      [leases[1]],
      undefined,
    ])
    answer(outbox, one)
    expect(outbox.hasSpokenTo(one.next.version)).toBe(false)
    const two = replacement(outbox.next(known(halfOpen({ leases: [leases[1] as never], successCount: 1 }))))
    expect(two.next).toMatchObject({ state: 'CLOSED', epoch: 'e3', closedAt: 1_000 })
    expect(two.change).toMatchObject({ from: 'HALF_OPEN', to: 'CLOSED', reason: 'probe-succeeded', requestId: 'r1' })
  })

  it('is decided again after a conflict, with the same epoch', () => {
    const outbox = outboxWith()
    outbox.addSettlement({ ...settlement, outcome: 'failure', lastFailure: failure })
    answer(outbox, replacement(outbox.next(known(halfOpen()))), false)
    const again = replacement(outbox.next(known(halfOpen({ version: 'v2' }))))
    expect([again.version, again.next.epoch, again.change?.reason]).toEqual(['v2', 'e2', 'probe-failed'])
    expect(again.change?.evidence).toBeUndefined()
  })

  it.each([
    ['closes the circuit that another instance opened', 'success', true, 1, [1, 1_000]],
    ['closes the circuit that its own instance opened', 'success', false, 1, [0, undefined]],
    ['is one success of several', 'success', true, 2, [0, 1_000]],
    ['fails', 'failure', true, 1, [0, undefined]],
  ] as const)(
    'is a second opinion or not where it %s',
    (_where, outcome, isSecondOpinion, halfOpenSuccessThreshold, lesson) => {
      const outbox = outboxWith({ halfOpenSuccessThreshold })
      outbox.addSettlement({ ...settlement, outcome, isSecondOpinion })
      const { next } = replacement(outbox.next(known(halfOpen())))
      expect([next.dismissals, next.othersAt]).toEqual(lesson)
    },
  )

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

describe('a record that was deleted', () => {
  it('takes everything that waits with it', () => {
    const outbox = outboxOf([failed])
    outbox.sent(addition(outbox.next(known(suspected()))))
    outbox.add(failed)
    outbox.addSettlement(settlement)
    outbox.clear()
    expect(outbox.isEmpty).toBe(true)
  })
})
