/**
 * What counts as a failure, on the clients that people use: each against a service that fails in each way, under the real
 * engine. What is expected is in `verdicts.ts`.
 */

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from '@jest/globals'
import { devDependencies } from '../../scripts/packages.ts'
import { clientNames } from './clients.ts'
import { type FaultName, faultNames, faults } from './faults.ts'
import { observeMatrix } from './matrix.ts'
import type { Matrix, Observation } from './observe.ts'
import { withMatrix } from './page.ts'
import { faultsOf, gaps, hidingCauses, unnoticed, verdictOn } from './verdicts.ts'

let matrix: Matrix
beforeAll(async () => {
  matrix = await observeMatrix()
})

function observed(client: string, fault: FaultName): Observation {
  const failure = matrix.failures.find(({ cell }) => cell.client === client && cell.fault === fault)
  if (failure !== undefined) throw new Error(failure.message)
  return matrix.observations.find((each) => each.client === client && each.fault === fault) as Observation
}

describe.each(clientNames)('%s', (client) => {
  it.each(faultsOf(client).map((fault) => [verdictOn(client, fault), fault] as const))('%s: %s', (verdict, fault) => {
    const seen = observed(client, fault)
    const { limit, group, retryAfter, status, grpcStatus, trace } = faults[fault]
    const gap = gaps[client]?.[fault]

    if (limit === 'breaker') expect(seen).toMatchObject({ reached: 'CircuitTimeoutError', judged: true })
    else if (limit === 'caller') expect(seen.reached).toBe('abort reason')
    else expect(seen).toMatchObject({ untouched: true, judged: verdict === 'counts' })

    expect(seen.probed).toBe({ counts: 'OPEN', answers: 'CLOSED', passes: 'HALF_OPEN' }[verdict])
    if (verdict !== 'counts') {
      expect(seen).toMatchObject({ state: 'CLOSED', failureCount: 0 })
      expect(seen.stored).toBeUndefined()
    } else {
      expect(seen).toMatchObject({
        state: 'OPEN',
        failureCount: 1,
        stored: { name: expect.stringMatching(/^[\w$]+$/) },
      })
      // stripe does not keep the status of what it cannot read.
      const keepsStatus = status !== undefined && !fault.endsWith('with a page instead of JSON')
      if (keepsStatus) expect(seen.stored?.status).toBe(status)
      if (grpcStatus !== undefined) expect(seen.stored?.code).toBe(String(grpcStatus))
      if (retryAfter === undefined) expect(seen.opensFor).toBe(10_000)
      else expect(seen.opensFor).toBe(retryAfter.seconds * 1_000)
    }

    const isUnnoticed = unnoticed[client]?.includes(fault) === true
    const succeeds = isUnnoticed || fault === 'none: it answers' || fault.endsWith('read after the guard')
    if (succeeds) expect(seen.reached).toBe('value')
    else if (group === 'transport') expect(seen.reached).not.toBe('value')
    if (trace !== undefined && gap === undefined && !hidingCauses.includes(client)) expect(seen.shown).toMatch(trace)
    if (gap !== undefined) expect(seen.message).toMatch(gap)
    if (fault.endsWith('read after the guard')) expect(seen.readLater).toBe('error')
  })
})

describe('the matrix', () => {
  it('has no cell that nobody asked for, and every fault', () => {
    const { observations, failures } = matrix
    const all = [...observations, ...failures.map(({ cell }) => cell)]
    const cells = all.map(({ client, fault }) => `${client} × ${fault}`).sort()
    expect(cells).toEqual(
      clientNames.flatMap((client) => faultsOf(client).map((fault) => `${client} × ${fault}`)).sort(),
    )
    expect(new Set(all.map(({ fault }) => fault))).toEqual(new Set(faultNames))
  })

  it('is what docs/evidence/clients.md shows; where it is not, npm run page -- classification writes it', async () => {
    const page = await readFile(join(import.meta.dirname, '..', '..', 'docs', 'evidence', 'clients.md'), 'utf8')
    // A cell that could not be observed has failed already.
    if (matrix.failures.length === 0) expect(withMatrix(page, matrix.observations)).toBe(page)
  })

  it('lets no error of a client go uncaught', () => {
    expect(matrix.uncaught).toEqual([])
  })

  it('needs no package at run time', async () => {
    const { dependencies } = JSON.parse(await readFile(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8'))
    const files = (await readdir(import.meta.dirname)).filter((file) => !file.endsWith('.test.ts'))
    const sources = await Promise.all(files.map((file) => readFile(join(import.meta.dirname, file), 'utf8')))
    const packages = [...sources.join('').matchAll(/ from '((?:@[^/']+\/)?[^./'][^/':]*)(?:\/[^']*)?'/g)].map(
      ([, name]) => name,
    )
    expect(packages).toContain('axios')
    for (const name of packages) {
      expect(devDependencies()).toHaveProperty([name as string])
      expect(dependencies).not.toHaveProperty([name as string])
    }
  })
})
