import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from '@jest/globals'
import { type InvariantNumber, invariants } from './invariants.ts'
import { mutants, type Verdict } from './mutants.ts'
import { troubleNames } from './scenario.ts'
import { explain, simulate } from './simulation.ts'

const seeds = 300
const numbers = Object.keys(invariants).map(Number) as InvariantNumber[]

/** Runs a file on the Node that runs the tests; its sources need no transformation, so it is three times as fast. */
async function run(file: string, ...args: string[]): Promise<{ output: string; code: number }> {
  const path = fileURLToPath(new URL(file, import.meta.url))
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [path, ...args])
    return { output: stdout, code: 0 }
  } catch (error) {
    const { stdout, stderr, code } = error as { stdout: string; stderr: string; code: number }
    return { output: stdout + stderr, code }
  }
}

describe('a fleet of the real engine, under troubles of all kinds', () => {
  it(`violates no invariant in ${seeds} runs`, async () => {
    const { output, code } = await run('../../scripts/simulate.ts', '--seeds', String(seeds))
    expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining(`${seeds} runs, `) })
    expect(output).toContain(' 0 violations')
    // Nothing passes because nothing happens.
    for (const number of numbers) {
      const [, checked = ''] = new RegExp(`^ ?${number} .*?  +([0-9 ]+?)  +0$`, 'm').exec(output) ?? []
      const isChecked = Number(checked.replaceAll(' ', '')) >= 100
      expect({ number, checked, isChecked }).toEqual({ number, checked, isChecked: true })
    }
  })

  it('has all kinds of troubles, each often', async () => {
    const { drawScenario } = await import('./scenario.ts')
    const { World } = await import('./world.ts')
    const scenarios = Array.from({ length: seeds }, (_, index) => drawScenario(new World(index + 1)))
    for (const trouble of troubleNames) {
      const runs = scenarios.filter(({ troubles }) => troubles[trouble]).length
      expect({ trouble, isOften: runs >= 50 }).toEqual({ trouble, isOften: true })
    }
    for (const kind of ['storm', 'late', 'healthy', 'lone', 'bad']) {
      expect(scenarios.filter((scenario) => scenario.kind === kind).length).toBeGreaterThanOrEqual(5)
    }
  })

  it('is the same for the same seed, event by event', async () => {
    expect(await explain(7)).toBe(await explain(7))
    expect(await explain(7)).not.toBe(await explain(8))
  })

  it('trips, recovers and trips again', async () => {
    const { transitions, violation } = await simulate({ seed: 11 })
    expect(violation).toBeUndefined()
    expect(transitions).toBeGreaterThan(6)
  })

  it('is explained by how to replay it and by what happened', async () => {
    const story = await explain(11)
    expect(story).toContain('npm run simulate -- --seed 11')
    expect(story).toMatch(/troubles: [a-zA-Z, ]+\n/)
    expect(story).toMatch(/\d+\.\d{3} s i\d+: asks the service/)
  })

  it('refuses seeds that are none', async () => {
    const { output, code } = await run('../../scripts/simulate.ts', '--seeds', '0', '--from', 'x')
    expect(code).toBe(2)
    expect(output).toContain('--seeds must be a whole number from 1 to 2147483648, but is "0"')
    expect(output).toContain('--from must be a whole number from 1 to 2147483648, but is "x"')
    expect((await run('../../scripts/simulate.ts', '--sedes', '1')).output).toContain('--sedes')
  })
})

describe('the checker', () => {
  const verdicts: Verdict[] = []

  beforeAll(async () => {
    const shares = availableParallelism()
    const outputs = await Promise.all(
      Array.from({ length: shares }, (_, share) => run('hunt.ts', String(seeds), String(share), String(shares))),
    )
    for (const { output } of outputs) {
      for (const line of output.split('\n').filter((text) => text.startsWith('['))) {
        const [index, verdict] = JSON.parse(line) as [number, Verdict]
        verdicts[index] = verdict
      }
    }
  })

  it('has a mistake to find for every invariant', () => {
    expect(new Set(mutants.map(({ invariant }) => invariant))).toEqual(new Set(numbers))
  })

  it('is documented with every invariant and every mistake', () => {
    const page = readFileSync(new URL('../../docs/evidence/simulation.md', import.meta.url), 'utf8')
    for (const number of numbers) {
      const mistakes = mutants.filter(({ invariant }) => invariant === number).map(({ mistake }) => mistake)
      const row = new RegExp(`^\\| ${number} \\| (.*) \\| (.*) \\|$`, 'm').exec(page)
      expect(row?.[1]?.replaceAll('`', '')).toBe(invariants[number])
      expect(row?.[2]).toBe(mistakes.join('; '))
    }
  })

  it.each(mutants.map((mutant, index) => ({ ...mutant, index })))(
    'finds invariant $invariant violated where $mistake',
    ({ index }) => {
      expect(verdicts[index]).toEqual({
        seed: expect.any(Number),
        message: expect.stringMatching(/./),
        others: expect.any(Number),
      })
    },
  )
})
