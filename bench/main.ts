/**
 * Measures what the package costs, beside what people would use instead, and writes `docs/evidence/benchmarks.md`:
 *
 *     npm run page -- bench                       everything
 *     npm run page -- bench --only calls,store    these parts, and the page is left alone
 *     npm run page -- bench --quick               shows that everything works; the figures say nothing and are not kept
 */

import { fork } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { machine, page, targetsTable } from './page.ts'
import { type Section, sectionText } from './section.ts'

const collectable = ['--expose-gc']
/** So large that nothing is collected while bytes are counted: V8's young generation, in MB. */
const roomy = [...collectable, '--min-semi-space-size=64', '--max-semi-space-size=64']

/** The parts in the order of the page, with the flags of the process that each runs in. */
const parts: Readonly<Record<string, readonly string[]>> = {
  calls: [],
  allocations: roomy,
  profile: [],
  invocations: [],
  'warm-up': [],
  telemetry: [],
  runtime: [],
  store: [],
  contention: [],
  'cold-start': [],
  bundle: [],
  endurance: collectable,
}

const { only, quick } = parseArgs({
  options: { only: { type: 'string' }, quick: { type: 'boolean', default: false } },
}).values
const names = only === undefined ? Object.keys(parts) : only.split(',')
const unknown = names.filter((name) => !Object.hasOwn(parts, name))
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`)
  process.exit(2)
}

const startedAt = Date.now()
const sections: Section[] = []
console.log(`${await machine()}\n`)
// Where the figures say nothing, nothing disturbs them.
const together = quick ? names.map((name) => measured(name)) : undefined
for (const [index, name] of names.entries()) {
  const partStartedAt = Date.now()
  const section = await (together?.[index] ?? measured(name))
  sections.push(section)
  console.log(`${sectionText(section)}\n\n(${name}: ${seconds(partStartedAt)})\n`)
}
console.log(`${targetsTable(sections)}\n\n${seconds(startedAt)} in all`)
if (only === undefined && !quick) {
  await writeFile(new URL('../docs/evidence/benchmarks.md', import.meta.url), await page(sections))
  console.log('Written to docs/evidence/benchmarks.md')
}

function measured(name: string): Promise<Section> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL('run-part.ts', import.meta.url)), [name, ...(quick ? ['--quick'] : [])], {
      execArgv: ['--disable-warning=ExperimentalWarning', ...(parts[name] ?? [])],
      serialization: 'advanced',
    })
    let section: Section | undefined
    child.once('message', (message) => {
      section = message as Section
    })
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      if (section !== undefined && code === 0) resolve(section)
      else reject(new Error(`The part ${name} ended with ${signal ?? code}`))
    })
  })
}

function seconds(since: number): string {
  return `${((Date.now() - since) / 1_000).toFixed(1)} s`
}
