import { describe, expect, it } from '@jest/globals'
import type { StoredCircuit } from '../../../src/cli/stored-circuits.ts'
import { isOpen, standingOf } from '../../../src/cli/stored-circuits.ts'
import { entryText, explain, nextOf } from '../../../src/cli/words.ts'
import type { CircuitRecord, JournalEntry } from '../../../src/storage/contract.ts'
import { emptyRecord } from '../../../src/storage/record.ts'

const now = Date.UTC(2030, 0, 31, 12)

const stored = (given: Partial<CircuitRecord> | undefined, damage?: string): StoredCircuit => ({
  key: 'shop#stripe',
  record: given === undefined ? undefined : { ...emptyRecord('e', now), ...given },
  damage,
})

const opened = {
  state: 'OPEN',
  openedAt: now - 3_000,
  retryAt: now + 7_000,
  resetTimeout: 10_000,
  failureCount: 9,
  trips: 2,
} as const
const lease = { id: 'l', expiresAt: now + 4_000 }

const cases = {
  closed: stored({}),
  suspected: stored({ suspectedAt: now - 500, failureCount: 2, successCount: 1, reporterCount: 2 }),
  open: stored(opened),
  due: stored({ ...opened, retryAt: now - 1 }),
  probing: stored({ ...opened, state: 'HALF_OPEN', leases: [lease] }),
  'forced-open': stored({
    override: { state: 'OPEN', at: now - 60_000, until: now + 60_000, by: 'user/ann', why: 'maintenance' },
  }),
  'forced-closed': stored({ override: { state: 'CLOSED', at: now - 60_000 } }),
  damaged: stored(undefined, 'The record of stripe is damaged.'),
  'not-stored': stored(undefined),
} as const

describe('how a circuit stands', () => {
  it.each(Object.entries(cases))('%s', (standing, circuit) => {
    expect(standingOf(circuit, now)).toBe(standing)
  })

  it.each([
    ['an override that is over', { ...opened, override: { state: 'CLOSED', at: 0, until: now } }, 'open'],
    ['a probe that died', { ...opened, state: 'HALF_OPEN', leases: [{ id: 'l', expiresAt: now - 1 }] }, 'due'],
  ] as const)('of %s', (_name, record, standing) => {
    expect(standingOf(stored(record as Partial<CircuitRecord>), now)).toBe(standing)
  })

  it('is open where calls are refused', () => {
    const open = Object.entries(cases).filter(([, circuit]) => isOpen(standingOf(circuit, now)))
    expect(open.map(([standing]) => standing)).toEqual(['open', 'due', 'probing', 'forced-open'])
  })
})

describe('an explanation', () => {
  const factsOf = (circuit: StoredCircuit, journal?: readonly JournalEntry[]) =>
    Object.fromEntries(explain(circuit, journal, now).facts)

  it('says of each state what it is, what a call would get and what to do', () => {
    for (const [standing, circuit] of Object.entries(cases)) {
      const { headline, advice } = explain(circuit, undefined, now)
      expect(headline).toMatch(/^shop#stripe: .+\.$/)
      if (!['closed', 'not-stored'].includes(standing)) expect(advice.length).toBeGreaterThan(0)
    }
  })

  it('says since when, why, in which function and request, the last failure, and the next probe', () => {
    const lastFailure = { at: now - 3_100, name: 'TimeoutError', code: 'ETIMEDOUT', status: 504 }
    const entry = {
      at: now - 3_000,
      from: 'CLOSED',
      to: 'OPEN',
      reason: 'failure-threshold',
      evidence: { failures: 9, successes: 1, reporters: 3 },
      functionName: 'checkout',
      requestId: 'r-1',
      logStream: '2030/01/31/[1]abc',
    } as JournalEntry
    expect(factsOf(stored({ ...opened, lastFailure }), [entry])).toEqual({
      Since: '11:59:57 UTC, 3 s ago, trip 2 in a row',
      Evidence: '9 failures and 1 success, reported by 3 instances',
      'Opened in': 'function checkout, request r-1, log stream 2030/01/31/[1]abc',
      'Last failure': 'TimeoutError, code ETIMEDOUT, HTTP 504, 11:59:56 UTC, 3 s ago',
      'Next probe': '12:00:07 UTC, in 7 s, by the first call of any instance from then on',
      'A call now': 'gets its fallback, or CircuitOpenError with status 503 and Retry-After',
    })
  })

  it('does without a journal', () => {
    expect(factsOf(stored(opened))).toMatchObject({ Evidence: '9 failures (the journal has no more details)' })
  })

  it('does not take an operator for the one who opened it', () => {
    const forced = { at: now, from: 'CLOSED', to: 'OPEN', reason: 'forced-open', by: 'ann' } as JournalEntry
    expect(factsOf(stored(opened), [forced])).not.toHaveProperty('Opened in')
  })

  it('says who has forced it, why, and until when', () => {
    expect(factsOf(cases['forced-open'])).toMatchObject({
      'Forced by': 'user/ann: maintenance',
      Ends: '12:01:00 UTC, in 1 min',
    })
    expect(factsOf(cases['forced-closed'])).toMatchObject({
      'Forced by': 'an unnamed operator',
      Ends: 'only by mcb reset',
    })
  })

  it('says how far the sample of a suspicion is', () => {
    expect(factsOf(cases.suspected)).toMatchObject({
      Evidence: 'so far 2 failures and 1 success, reported by 2 instances',
    })
  })

  it('says when another instance takes over a probe', () => {
    expect(factsOf(cases.probing)).toMatchObject({
      Probe: 'under way; its lease ends 12:00:04 UTC, in 4 s, then another instance may probe',
    })
  })
})

it.each([
  ['open', 'probe in 7 s'],
  ['due', 'the next call probes'],
  ['probing', 'lease ends in 4 s'],
  ['forced-open', 'ends in 1 min'],
  ['forced-closed', 'until reset'],
  ['damaged', 'mcb reset repairs it'],
  ['closed', ''],
] as const)('says briefly what comes next: %s', (standing, text) => {
  expect(nextOf(cases[standing], standing, now)).toBe(text)
})

it('prints an entry of the journal on one line, whatever is in it', () => {
  const entry = {
    at: now,
    from: 'CLOSED',
    to: 'OPEN',
    reason: 'forced-open',
    by: 'ann\u001b[2J',
    why: 'a\nb',
  } as JournalEntry
  expect(entryText(entry, now, true, 'stripe')).toBe(
    '12:00:00 UTC stripe CLOSED → OPEN: an operator forced it open; by ann\u{FFFD}[2J: a\u{FFFD}b',
  )
})
