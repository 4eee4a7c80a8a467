/** Pages that repeat what the code or another page says: they name files that there are, and have the same figures. */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { dismiss, longestShare, raise, suspicion } from '../../src/circuit/suspicion.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { root } from './code-blocks.ts'

const read = (page: string): string => readFileSync(join(root, 'docs/understand', page), 'utf8')

describe('docs/understand/code.md', () => {
  it('names files and folders that there are', () => {
    const named = [...read('code.md').matchAll(/`([\w-]+\/(?:[\w-]+\/)*(?:[\w-]+\.ts)?|[\w-]+\.ts)`/g)].map(
      ([, file]) => file,
    )
    // Those of the command line and of the stores are named without their folder.
    const folders = ['.', 'src', 'src/cli', 'src/storage/dynamodb']
    const missing = named.filter((file) => !folders.some((folder) => existsSync(join(root, folder, file as string))))
    expect(missing).toEqual([])
    expect(named.length).toBeGreaterThan(50)
  })
})

describe('the example of docs/understand/verdict.md', () => {
  const settings = { failureThreshold: 3, failureRateThreshold: 50, window: 60_000, cacheTtl: 5_000 }
  const tokens = { epoch: 'an epoch', version: 'a version' }
  const now = 1_000_000
  const [, example = ''] = read('verdict.md').split('## An example in numbers\n')
  const samples = (example.split('\n## ')[0] as string)
    .split(/^\| report .*\n\| --- .*\n/m)
    .slice(1)
    .map((text) => [...text.matchAll(/^\| (\w): a (failure|success).* \| (\d+) \| (\d+) \| ([+−]?\d+) \| (.+) \|$/gm)])

  /** A suspicion that A has raised in a fleet whose instances are known. */
  const raised: CircuitRecord = raise(
    { ...emptyRecord('an epoch', now), othersAt: now },
    now,
    { failures: 1, at: now, lastFailure: undefined },
    settings,
    tokens,
  )

  it('begins with a failure that is no part of the sample, and a share of two for each instance', () => {
    expect(raised).toMatchObject({ failureCount: 0, earlyCount: 1 })
    expect(longestShare(raised, now, settings)).toBe(2)
  })

  it('is there, for three courses of events', () => {
    expect(samples.map(({ length }) => length)).toEqual([3, 7, 5])
  })

  it.each([0, 1, 2])('counts as the code does, and comes to the same verdict: %i', (index) => {
    let record = raised
    const reporters = new Set(['A'])
    for (const [row, instance = '', kind, failures, successes, sum = '', verdict] of samples[index] ?? []) {
      expect([row, suspicion(record, now + 900, settings)]).toEqual([row, 'open'])
      reporters.add(instance)
      record = {
        ...record,
        failureCount: record.failureCount + Number(kind === 'failure'),
        successCount: record.successCount + Number(kind === 'success'),
        reporterCount: reporters.size,
      }
      expect([row, failures, successes]).toEqual([row, String(record.failureCount), String(record.successCount)])
      expect([row, Number(sum.replace('−', '-'))]).toEqual([row, record.failureCount - record.successCount])
      const expected = { waits: 'open', opens: 'guilty', 'is dismissed': 'innocent' }[verdict as string]
      expect([row, suspicion(record, now + 900, settings)]).toEqual([row, expected])
    }
    if (suspicion(record, now + 900, settings) === 'innocent') {
      expect(dismiss(record, now, tokens)).toMatchObject({ dismissals: 1, suspectedAt: undefined })
    }
  })
})

describe('the summary of the evidence', () => {
  const evidence = join(root, 'docs/evidence')
  const rows = readFileSync(join(evidence, 'README.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && line.includes('**'))

  it('has figures for most promises', () => {
    expect(rows.length).toBeGreaterThanOrEqual(12)
  })

  it.each(rows)('has the figures of the page that it links to: %s', (row) => {
    const [, page = ''] = /\]\(([^)#]+)/.exec(row) ?? []
    const text = readFileSync(join(evidence, page), 'utf8')
    const figures = [...row.matchAll(/\*\*(.+?)\*\*/g)].map(([, figure]) => figure)
    expect(figures.filter((figure) => !text.includes(figure as string))).toEqual([])
  })
})
