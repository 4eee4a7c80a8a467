/**
 * Makes `docs/evidence/mutation-testing.md` of Stryker's reports, and `mutation-survivors.json` beside it: each survivor with its
 * reason from `mutation-reasons.json`.
 *
 * A reason belongs to a mutant by its file, the line of code that it is in and what it puts there, not by a line number,
 * so that it stays with the code and goes with it.
 *
 * @module
 */

import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { type MutationTarget, mutationTargets, reportOf } from './mutation-targets.ts'

/** Every target has to reach it, in percent: the core more than the rest. */
const [coreThreshold, otherThreshold] = [92, 90] as const

interface Position {
  readonly line: number
  readonly column: number
}

interface Mutant {
  readonly mutatorName: string
  readonly replacement: string
  readonly status: 'Killed' | 'Timeout' | 'Survived' | 'NoCoverage' | string
  readonly statusReason?: string
  readonly location: { readonly start: Position; readonly end: Position }
}

interface Report {
  readonly files: Readonly<Record<string, { readonly source: string; readonly mutants: readonly Mutant[] }>>
}

interface Reason {
  /** The line of code, without its indentation. */
  readonly line: string
  /** `what → what it becomes`; absent: every mutant of the line. */
  readonly mutants?: readonly string[]
  readonly kind: string
  /** What is to be said beyond the kind. */
  readonly because?: string
}

interface Reasons {
  readonly kinds: Readonly<Record<string, { readonly title: string; readonly text: string }>>
  readonly files: Readonly<Record<string, readonly Reason[]>>
}

interface Survivor {
  readonly line: string
  readonly change: string
}

/** A survivor in `mutation-survivors.json`. */
interface Explained extends Survivor {
  readonly file: string
  /** Absent: nobody has given a reason. */
  readonly kind?: string
  readonly because?: string
}

/**
 * @returns what is not as it should be: scores that are too low, mutants that were not tested, survivors without a
 *   reason, reasons without a survivor
 */
export async function writeMutationPage(root: string): Promise<string[]> {
  const reasons: Reasons = JSON.parse(await readFile(new URL('mutation-reasons.json', import.meta.url), 'utf8'))
  const complaints: string[] = []
  const rows: Row[] = []
  const all: Explained[] = []
  const unmeasured: string[] = []
  for (const target of mutationTargets) {
    const report = await readReport(root, target)
    if (report === undefined) {
      unmeasured.push(target.file)
      continue
    }
    const { source, mutants } = report
    const count = (...statuses: string[]) => mutants.filter(({ status }) => statuses.includes(status)).length
    const row = {
      file: target.file,
      killed: count('Killed'),
      timedOut: count('Timeout'),
      survived: count('Survived'),
      uncovered: count('NoCoverage'),
    }
    rows.push(row)
    const threshold = target.file.startsWith('src/circuit/') ? coreThreshold : otherThreshold
    if (scoreOf(row) < threshold) complaints.push(`${target.file} scores ${percent(row)}, less than ${threshold} %.`)
    // Those that merely keep the file from being loaded are left out of account.
    const untested = mutants.filter(({ statusReason }) => statusReason?.startsWith('Test runner crashed')).length
    if (untested > 0) complaints.push(`${target.file}: ${untested} mutants could not be tested.`)
    const survivors = mutants
      .filter(({ status }) => status === 'Survived' || status === 'NoCoverage')
      .sort(
        (a, b) => a.location.start.line - b.location.start.line || a.location.start.column - b.location.start.column,
      )
      .map((mutant) => describe(source, mutant))
    const own = reasons.files[target.file] ?? []
    for (const reason of own) {
      const isUsed = survivors.some((survivor) => explains(reason, survivor))
      if (!isUsed) complaints.push(`${target.file}: this mutant is killed now, or its code has changed: ${reason.line}`)
    }
    const explained = survivors.map((survivor) => ({ ...survivor, reason: own.find((one) => explains(one, survivor)) }))
    for (const { line, change, reason } of explained) {
      if (reason === undefined) complaints.push(`${target.file}: no reason for ${change}\n    in ${line}`)
    }
    for (const { line, change, reason: { kind, because } = {} } of explained) {
      all.push({ file: target.file, line, change, ...(kind && { kind }), ...(because && { because }) })
    }
  }
  await writeFile(`${root}/docs/evidence/mutation-testing.md`, pageOf(rows, all, unmeasured, reasons))
  await writeFile(`${root}/docs/evidence/mutation-survivors.json`, `${JSON.stringify(all, undefined, 2)}\n`)
  return complaints
}

interface Row {
  readonly file: string
  readonly killed: number
  readonly timedOut: number
  readonly survived: number
  readonly uncovered: number
}

async function readReport(root: string, target: MutationTarget) {
  const path = `${root}/${reportOf(target)}`
  if (!existsSync(path)) return undefined
  const text = await readFile(path, 'utf8')
  const report = (JSON.parse(text) as Report).files[target.file]
  if (report === undefined) throw new Error(`${reportOf(target)} is not about ${target.file}.`)
  return report
}

function describe(source: string, { location: { start, end }, replacement }: Mutant): Survivor {
  const lines = source.split('\n')
  const first = lines[start.line - 1] ?? ''
  const from =
    start.line === end.line ? first.slice(start.column - 1, end.column - 1) : `${first.slice(start.column - 1)} …`
  return { line: first.trim(), change: `${oneLine(from)} → ${oneLine(replacement)}` }
}

function oneLine(code: string): string {
  const joined = code.replace(/\s+/g, ' ').trim()
  return joined.length > 90 ? `${joined.slice(0, 88)} …` : joined
}

function explains({ line, mutants }: Reason, survivor: Survivor): boolean {
  return line === survivor.line && (mutants === undefined || mutants.includes(survivor.change))
}

function scoreOf({ killed, timedOut, survived, uncovered }: Row): number {
  return (100 * (killed + timedOut)) / (killed + timedOut + survived + uncovered)
}

function percent(row: Row): string {
  return `${(Math.floor(scoreOf(row) * 10) / 10).toFixed(1)} %`
}

function pageOf(
  rows: readonly Row[],
  survivors: readonly Explained[],
  unmeasured: readonly string[],
  { kinds }: Reasons,
): string {
  const sum = (field: Exclude<keyof Row, 'file'>) => rows.reduce((total, row) => total + row[field], 0)
  const total = {
    file: '**all**',
    killed: sum('killed'),
    timedOut: sum('timedOut'),
    survived: sum('survived'),
    uncovered: sum('uncovered'),
  }
  const line = (row: Row) => {
    const mutants = row.killed + row.timedOut + row.survived + row.uncovered
    const cells = [row.file, mutants, row.killed, row.timedOut, row.survived, row.uncovered, percent(row)]
    return `| ${cells.join(' | ')} |`
  }
  const ofKind = (kind: string | undefined) => String(survivors.filter((one) => one.kind === kind).length)
  const reasonless = survivors.some(({ kind }) => kind === undefined)
  return `<!-- Made by \`npm run page -- mutation\`; changes by hand are lost. -->

# Mutation testing

[Stryker](https://stryker-mutator.io) changes the code in one place at a time and runs the tests. It turns a \`<\` into a \`<=\`, a condition
into \`true\`, or leaves a call out. A change that no test notices is a survivor: a test is missing, or the change makes no difference. The
tests must notice at least ${coreThreshold} % of the changes in each file of \`src/circuit\`, and ${otherThreshold} % in every other file.

| file | mutants | killed | timed out | survived | not covered | score |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
${[...rows, total].map(line).join('\n')}

A mutant that timed out made the code run for ever; it counts as killed. No test reaches a mutant that is *not covered*.
${
  unmeasured.length === 0
    ? ''
    : `The table has the files that were measured, each at the time of its run. [The list of
targets](../../scripts/mutation-targets.ts) has ${unmeasured.length} more.\n`
}
## Why mutants survive

Each survivor needs a reason. [The list](mutation-survivors.json) has the line, the change and the reason of each.

| kind | survivors | meaning |
| --- | ---: | --- |
${Object.entries(kinds)
  .map(([kind, { title, text }]) => `| ${title} | ${ofKind(kind)} | ${capital(text)} |`)
  .join('\n')}${reasonless ? `\n| Without a reason | ${ofKind(undefined)} | The run has failed. |` : ''}

## How to run it

\`\`\`sh
npm run page -- mutation                     # all files: hours at first, later only what has changed
npm run page -- mutation circuit redis    # some of them
npm run page -- mutation --page           # this page alone, from the reports of the last run
\`\`\`

The run fails if a file scores too low, if a survivor has no reason in \`scripts/mutation-reasons.json\`, or if a reason has no survivor. Nothing
is excluded: the texts of errors are mutated, too.

- \`scripts/mutation-targets.ts\` names the files and the unit tests for each of them, so that a mutant costs a fraction of a second. The
  score is that of these tests. Property tests and simulations are left out, because they take seconds for each mutant. So are tests that
  start servers or wait for real time.
- The DynamoDB and Redis adapters also run against DynamoDB Local and a Redis server, one of each for the whole run. A unit test with a test
  double in the place of the client runs first.
- \`scripts/mutation-runner.js\` wraps Stryker's Jest runner. It runs the test files that reach the mutant, first the one that is likely to fail
  soonest, and stops at the first test that fails. Stryker's own runner runs all files to the end.
`
}

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}
