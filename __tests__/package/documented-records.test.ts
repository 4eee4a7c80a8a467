/**
 * The samples of a record, of the journal and of what `mcb` prints: they belong to one outage, and are what the code makes of
 * it. And the sample of a finding.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { entryText, explain } from '../../src/cli/words.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import { parseJournal } from '../../src/storage/journal.ts'
import { expiryOf, parseCircuitRecord, recordFields } from '../../src/storage/record.ts'
import { codeBlocks, root } from './code-blocks.ts'

const page = 'docs/understand/records.md'
const [item] = blocksUnder(page, 'The record').map((code) => JSON.parse(code))
const [entry] = blocksUnder(page, 'The journal')
  .filter((code) => code.startsWith('{'))
  .map((code) => JSON.parse(code))
const record = parseCircuitRecord('stripe', item, 'getState')

describe('the record in the documentation', () => {
  it('is one that a store may hold, with the expiry that it would have', () => {
    const { PK, SK, ttl, ...stored } = item
    expect([PK, SK]).toEqual(['CIRCUIT#stripe', 'STATE'])
    expect(ttl).toBe(Math.ceil((expiryOf(record) ?? Number.NaN) / 1_000))
    expect(Object.keys(stored).toSorted()).toEqual(definedIn(record))
  })

  it('is explained field by field', () => {
    const text = readFileSync(join(root, page), 'utf8')
    const rows = [...text.matchAll(/^\| (`\w+`(?:, `\w+`)*) \| .* \|$/gm)].flatMap(([, names = '']) =>
      [...names.matchAll(/`(\w+)`/g)].map(([, name]) => name),
    )
    expect(rows.filter((name) => recordFields.includes(name as keyof CircuitRecord)).toSorted()).toEqual(
      recordFields.toSorted(),
    )
  })

  it('has the journal that belongs to it', () => {
    const [parsed] = parseJournal([entry])
    expect(definedIn(parsed)).toEqual(Object.keys(entry).toSorted())
    const { openedAt, generation, retryAt, lastFailure } = record
    expect(parsed).toMatchObject({ at: openedAt, to: record.state, generation, retryAt, lastFailure })
    expect(parsed?.evidence?.reporters).toBe(record.reporterCount)
  })
})

describe('the output of mcb in the documentation', () => {
  const now = (record.openedAt ?? Number.NaN) + 3_000

  it('explains this record', () => {
    const [printed = ''] = blocksUnder('docs/operate/operating.md', 'Why is it open?')
    const circuit = { key: 'stripe', record, damage: undefined }
    const { headline, facts, advice } = explain(circuit, parseJournal([entry]), now)
    const labelled = facts.map((fact) => fact.join(' '))
    const words = [
      '$ mcb explain stripe --table app',
      headline,
      ...labelled,
      'What to do',
      ...advice.map((text) => text.replaceAll('KEY', 'stripe')),
    ]
    expect(printed.replaceAll(/\s+/g, ' ').trim()).toBe(words.join(' '))
  })

  it('tells how it opened', () => {
    const [printed = ''] = blocksUnder('docs/operate/operating.md', 'What happened, and who did it?')
    const [parsed] = parseJournal([entry])
    expect(parsed).toBeDefined()
    if (parsed) expect(printed.split('\n')[1]).toBe(entryText(parsed, now, false, 'stripe'))
  })
})

describe('the finding in the documentation', () => {
  it('is what a check answers', async () => {
    const [block = ''] = blocksUnder('docs/operate/check.md', 'What does it answer?')
    const options = { services: { stripe: { timeout: 3_000 } }, storage: 'memory' } as const
    const breaker = new CircuitBreaker(options, { env: {}, now: () => Date.UTC(2026, 0) })
    const findings = await breaker.check({ context: { getRemainingTimeInMillis: () => 3_000 } })
    const told = findings.filter(({ code }) => code !== 'not-shared')
    expect(JSON.parse(JSON.stringify(told))).toEqual(JSON.parse(block))
  })
})

function blocksUnder(file: string, heading: string): string[] {
  return codeBlocks(file).flatMap((block) => (block.heading === heading ? [block.code] : []))
}

/** The names of what is not `undefined`, sorted. */
function definedIn(value: object | undefined): string[] {
  return Object.entries(value ?? {})
    .flatMap(([name, one]) => (one === undefined ? [] : [name]))
    .toSorted()
}
