import { describe, expect, it } from '@jest/globals'
import { emptyTally, Shares, type Tally } from '../../../src/circuit/shares.ts'
import type { Addition, Replacement, Report } from '../../../src/circuit/step.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import type { Outcomes } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

/** Others are known: this instance contributes no more than two failures to this suspicion. */
const suspected = circuitRecord({ version: 'v1', suspectedAt: 900, othersAt: 900, reporterCount: 1 })
/** From then on an instance of which nobody else has heard is alone. */
const alone = 10_900

function tallyOf(counts: Partial<Tally>): Tally {
  return { ...emptyTally, suspicion: 'v1', ...counts }
}

const report: Report = {
  ...tallyOf({}),
  kind: 'report',
  id: 'id1',
  period: 0,
  row: 1,
  isBacklog: false,
  at: 1_000,
  lastFailure: undefined,
  requestId: undefined,
}

function added(outcomes: Partial<Outcomes>): Addition {
  const nothing = { started: 0, failures: 0, successes: 0, early: 0, reporters: 0 }
  return {
    kind: 'add',
    version: 'v1',
    outcomes: { ...nothing, at: 1_000, id: 'id1', ...outcomes },
    cause: report,
    isRepeated: false,
  }
}

function raised(row: number): Replacement {
  const next = { ...suspected, version: 'v2', earlyCount: 1 }
  return { kind: 'replace', version: 'v1', next, change: undefined, cause: { ...report, row } }
}

describe('the failures of a row that no suspicion has heard', () => {
  it.each([
    ['grows', 5, 2],
    ['is as long as what was told: it is another one', 3, 3],
    ['is shorter than what was told: it is another one', 2, 2],
  ])('are counted where the row %s', (_how, row, untold) => {
    const shares = new Shares(defaults)
    shares.offer(3)
    shares.note(added({ failures: 1 }))
    expect(shares.untold(row)).toBe(untold)
  })

  it('leave out those with which a suspicion was raised', () => {
    const shares = new Shares(defaults)
    shares.offer(3)
    shares.note(raised(3))
    expect(shares.untold(4)).toBe(1)
  })
})

describe('a failure that ran into a suspicion', () => {
  it('is contributed once, and counts beyond that when its instance turns out to be alone', () => {
    const shares = new Shares(defaults)
    shares.note(added({ early: 1, reporters: 1 }))
    shares.note(added({ started: 1 }))
    expect(shares.contribute(tallyOf({ early: 2 }), suspected, 1_000, false)).toBeUndefined()
    expect(shares.contribute(tallyOf({}), suspected, alone, false)).toMatchObject({ failures: 2, early: 0 })
  })

  it('is no excess once it was contributed', () => {
    const shares = new Shares(defaults)
    shares.note(added({ successes: 1, reporters: 1 }))
    expect(shares.contribute(tallyOf({ early: 1 }), suspected, 1_000, false)).toMatchObject({ early: 1, reporters: 0 })
    expect(shares.contribute(tallyOf({}), suspected, alone, false)).toBeUndefined()
  })

  it('is contributed beside a success', () => {
    const contribution = new Shares(defaults).contribute(tallyOf({ successes: 1, early: 1 }), suspected, 1_000, false)
    expect(contribution).toMatchObject({ successes: 1, early: 1, reporters: 1 })
  })

  it('is the one that raised it, for the author', () => {
    const shares = new Shares(defaults)
    shares.note(raised(1))
    const record = { ...suspected, version: 'v2' }
    expect(shares.contribute({ ...emptyTally, suspicion: 'v2', early: 1 }, record, 1_000, false)).toBeUndefined()
  })
})
