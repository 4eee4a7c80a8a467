/**
 * Writes one of the pages that are made from code or measurements: `npm run page -- NAME`. What follows the name goes to the
 * script that writes it. Without a name it lists them.
 *
 * @module
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')

interface PageCommand {
  readonly script: string
  /** Whether it measures the package as it is built, in `dist`. */
  readonly isBuilt?: boolean
  /** What it writes and, if that is more than seconds, how long it takes. */
  readonly about: string
}

/** The pages by the names that `npm run page` knows. */
export const pageCommands: Readonly<Record<string, PageCommand>> = {
  settings: {
    script: 'scripts/settings-page.ts',
    about: 'the tables of settings in the README and docs/use/settings.md',
  },
  reference: { script: 'scripts/reference.ts', about: 'docs/reference, from the doc comments' },
  bundling: { script: 'scripts/bundle-sizes.ts', about: 'the sizes in docs/use/bundling.md' },
  cost: { script: 'scripts/storage-cost.ts', about: 'the tables of docs/operate/cost.md' },
  classification: {
    script: 'scripts/classification-page.ts',
    about: 'the tables of docs/evidence/clients.md',
  },
  screenshots: { script: 'scripts/page-screenshots.ts', about: 'docs/operate/pictures, with a browser' },
  'many-keys': { script: 'scripts/many-keys.ts', about: 'the figures of docs/use/keys.md: some minutes' },
  'fleet-keys': {
    script: 'scripts/fleet-keys.ts',
    about: 'the section on keys of docs/evidence/fleet.md: some minutes',
  },
  fleet: { script: 'scripts/fleet-curves.ts', about: 'docs/evidence/fleet.md but for that section: ten minutes' },
  reliability: { script: 'scripts/reliability.ts', about: 'docs/evidence/reliability.md: some minutes' },
  bench: { script: 'bench/main.ts', isBuilt: true, about: 'docs/evidence/benchmarks.md: five minutes' },
  'lambda-costs': {
    script: 'scripts/lambda-costs.ts',
    isBuilt: true,
    about: 'prints the tables of docs/understand/cold-starts.md: ten minutes',
  },
  mutation: { script: 'scripts/mutation.ts', about: 'docs/evidence/mutation-testing.md: hours at first' },
}

if (import.meta.main) {
  const [name = '', ...given] = process.argv.slice(2)
  process.exitCode = Object.hasOwn(pageCommands, name)
    ? write(pageCommands[name] as PageCommand, given)
    : listPages(name)
}

/** @returns the exit code */
function write({ script, isBuilt = false }: PageCommand, given: readonly string[]): number {
  if (isBuilt) {
    const built = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' }).status ?? 1
    if (built !== 0) return built
  }
  return spawnSync(process.execPath, [script, ...given], { cwd: root, stdio: 'inherit' }).status ?? 1
}

function listPages(name: string): number {
  const width = Math.max(...Object.keys(pageCommands).map((each) => each.length))
  const lines = Object.entries(pageCommands).map(([each, { about }]) => `  ${each.padEnd(width)}  ${about}`)
  const problem = name === '' ? 'A name is missing.' : `There is no page ${JSON.stringify(name)}.`
  console.error([`${problem} Run: npm run page -- NAME, where NAME is one of`, ...lines].join('\n'))
  return 2
}
