import { describe, expect, it } from '@jest/globals'
import type { JournalEntry } from '../../../src/storage/contract.ts'
import { parseJournal } from '../../../src/storage/journal.ts'

const entry: JournalEntry = {
  id: 'a',
  at: 1_000,
  service: 'stripe',
  from: 'CLOSED',
  to: 'OPEN',
  generation: 1,
  reason: 'forced-open',
}

describe('parseJournal', () => {
  it('hands out the latest first, and a repetition once', () => {
    const later = { ...entry, id: 'b', at: 2_000 }
    const sameTime = { ...entry, id: 'c', at: 2_000, generation: 2 }
    expect(parseJournal([entry, later, entry, sameTime]).map(({ id }) => id)).toEqual(['c', 'b', 'a'])
  })

  it.each([
    ['no list', 'entry'],
    ['nothing', undefined],
    ['no object', [null, 'x', 1, [entry]]],
    ['no id', [{ ...entry, id: '' }]],
    ['no time', [{ ...entry, at: 'now' }]],
    ['a time beyond all dates', [{ ...entry, at: 1e17 }]],
    ['no service', [{ ...entry, service: 1 }]],
    ['no reason', [{ ...entry, reason: undefined }]],
    ['no generation', [{ ...entry, generation: -1 }]],
    ['a state that there is not', [{ ...entry, from: 'AJAR' }]],
    ['no state', [{ ...entry, to: undefined }]],
  ])('leaves out what is none: %s', (_what, raw) => {
    expect(parseJournal(raw)).toEqual([])
  })

  it('cuts texts, and makes them harmless to a terminal', () => {
    const hostile = '\u001b[2J\u202e\u2028<script>'
    const [parsed] = parseJournal([
      {
        ...entry,
        by: hostile.repeat(100),
        why: hostile.repeat(100),
        functionName: hostile.repeat(100),
        lastFailure: { at: 'x', name: hostile.repeat(100), code: 7, status: 'x' },
        evidence: { failures: 'many' },
      },
    ])
    expect(parsed).toMatchObject({
      lastFailure: { at: 0, code: undefined, status: undefined },
      evidence: { failures: 0, successes: 0, reporters: 0 },
    })
    const lengths = [parsed?.by, parsed?.why, parsed?.functionName, parsed?.lastFailure?.name].map(
      (text) => text?.length,
    )
    expect(lengths).toEqual([128, 500, 512, 64])
    expect(JSON.stringify(parsed)).not.toMatch(/\\u001b|\u202e|\u2028/)
    expect(parsed?.by).toMatch(/^\ufffd\[2J\ufffd\ufffd<script>/)
  })
})
