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

What the package costs, beside what people would use instead. \`npm run page -- bench\` has measured and written this page; a run
that only shows that it works is part of \`npm test\`.

${await machine()}.

**How to read it.** Compare ratios, not times: another machine has other times, and one that is busy too. What is compared
was measured in one run of one process, in rounds: every round runs each case for some milliseconds, in an order that moves
on from round to round. A ratio is the median of the quotients within each round, a time the shortest average of a round.
Every part has a process of its own, and every case a loop of its own, so that none is compiled for what another does. The
peers have their defaults but for what a table says. A guard costs less than a microsecond, a call over a network milliseconds:
none of this is a reason to choose or to leave a circuit breaker, only to know that it may stand around every call.

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
