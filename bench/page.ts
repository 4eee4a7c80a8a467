/**
 * `docs/evidence/benchmarks.md`: the targets, what was measured and on what.
 *
 * @module
 */

import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import { type Section, sectionText, tableText } from './section.ts'

const peers = ['opossum', 'cockatiel', '@middy/core', '@aws-sdk/client-dynamodb', 'ioredis', 'esbuild']

/** The machine and the versions. */
export async function machine(): Promise<string> {
  const versions = await Promise.all(peers.map(async (name) => `${name} ${await versionOf(name)}`))
  const processor = `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? 'unknown'}`
  const memory = `${Math.round(totalmem() / 2 ** 30)} GB`
  const node = `Node ${process.versions.node}, V8 ${process.versions.v8}`
  return `${processor}, ${memory}, ${type()} ${release().split('-')[0]}; ${node}; ${versions.join(', ')}`
}

export async function page(sections: readonly Section[]): Promise<string> {
  return `# Benchmarks

The costs of the package, beside those of the packages that people would use instead. \`npm run page -- bench\` measures and writes this page. \`npm test\`
runs a short version, which shows that the benchmarks work.

${await machine()}.

**How to read it.** Compare ratios, not times: another machine has other times, and so has a busy one.

- The cases of a table were measured in one process, in rounds. Each round runs each case for some milliseconds, and the order changes from
  round to round.
- A ratio is the median of the quotients within each round. A time is the shortest average of a round.
- Each part has a process of its own, and each case a loop of its own, so that V8 compiles no case for another.
- The other packages have their defaults, except where a table says otherwise.

A guard costs less than a microsecond, and a call over a network milliseconds. So these figures do not decide for or against a circuit
breaker. They show that it can stand around every call.

${targetsTable(sections)}

${sections.map(sectionText).join('\n\n')}
`
}

export function targetsTable(sections: readonly Section[]): string {
  const targets = sections.flatMap(({ targets: own = [] }) => own)
  return tableText({
    header: ['target', 'wanted', 'measured', ''],
    rows: targets.map(({ what, wanted, measured, isMet }) => [what, wanted, measured, isMet ? 'met' : '**missed**']),
  })
}

async function versionOf(name: string): Promise<string> {
  const manifest = await readFile(new URL(`../node_modules/${name}/package.json`, import.meta.url), 'utf8')
  return JSON.parse(manifest).version
}
