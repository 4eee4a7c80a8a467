/**
 * Measures fleets that call a keyed service, for `docs/evidence/fleet.md`: `npm run page -- fleet-keys` writes that section alone, in some
 * minutes. `--quick` shows that it works, and writes nothing.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type KeyedFigures, measureKeys } from '../__tests__/simulation/keyed-fleet.ts'
import { inMacrotask } from '../__tests__/simulation/microtasks.ts'
import { count, duration, significant, table } from './fleet-words.ts'

interface Row {
  readonly instances: number
  readonly keys: number
  readonly parent: boolean
  readonly dead: 'one' | 'all'
  readonly figures: KeyedFigures
}

/** The calls of each instance in a second. */
const rate = 10
const times = { rest: 20_000, outage: 60_000, recovery: 60_000 }
const begin = '<!-- keys: npm run page -- fleet-keys writes what is between these lines. -->'
const end = '<!-- the end of keys. -->'

/** @throws {Error} naming the invariants that did not hold */
function measure(quick: boolean): Row[] {
  const fleets = quick
    ? [[5, 50] as const]
    : ([
        [1, 1_000],
        [10, 1_000],
        [100, 1_000],
        [100, 10_000],
      ] as const)
  const rows: Row[] = []
  for (const [instances, keys] of fleets) {
    for (const dead of ['one', 'all'] as const) {
      for (const parent of [false, true]) {
        const options = { instances, rate, keys, keyed: { maxKeys: 10_000, parent }, seed: 1 }
        const figures =
          dead === 'one'
            ? measureKeys({ ...options, shareOfFirst: 0.1 }, (key) => key === 0, times)
            : measureKeys(options, () => true, times)
        if (figures.violations.length > 0) throw new Error(figures.violations.join('\n'))
        rows.push({ instances, keys, parent, dead, figures })
        console.log(`${instances} × ${rate}, ${keys} keys, ${dead} dead, parent ${parent}: done`)
      }
    }
  }
  return rows
}

function section(rows: readonly Row[]): string {
  const of = (dead: Row['dead'], parent: boolean, { instances, keys }: Row): KeyedFigures =>
    (
      rows.find(
        (row) => row.dead === dead && row.parent === parent && row.instances === instances && row.keys === keys,
      ) as Row
    ).figures
  const fleets = rows.filter(({ dead, parent }) => dead === 'one' && !parent)
  const load = ({ reads, writes }: KeyedFigures['rest']) => `${significant(reads)} / ${significant(writes)}`
  return `## A circuit for each key

[Keyed services](../use/keys.md): each instance has ${rate} calls a second, one in an invocation, each for one of many keys. After ${times.rest / 1_000} s keys die for
${times.outage / 1_000} s: every call to them fails. With \`parent\`, the service as a whole has a circuit, too. \`maxKeys\` is 10 000, seed 1.

In all of these runs no key ever had two probes at once, no operation ran under an open circuit, and no transition fired two events. Only the
circuits of dead keys opened and, where all keys were dead, that of the service.

One dead key gets every tenth call. The other keys share the rest:

${table(
  [
    'fleet',
    'keys',
    'calls of the dead key that reached it',
    '… with `parent`',
    'calls of other keys that were refused',
  ],
  fleets.map((row) => [
    `${count(row.instances)} × ${rate}`,
    count(row.keys),
    count(of('one', false, row).reached),
    count(of('one', true, row).reached),
    `${of('one', false, row).refusedOthers}, ${of('one', true, row).refusedOthers}`,
  ]),
)}

All keys dead:

${table(
  [
    'fleet',
    'keys',
    'calls that reached the dead service, of',
    '… with `parent`',
    'records',
    '… with `parent`',
    'recovery → all served',
    '… with `parent`',
  ],
  fleets.map((row) => {
    const [alone, both] = [of('all', false, row), of('all', true, row)]
    return [
      `${count(row.instances)} × ${rate}`,
      count(row.keys),
      `${count(alone.reached)} of ${count(alone.calls)}`,
      count(both.reached),
      count(alone.records),
      count(both.records),
      duration(alone.toService),
      duration(both.toService),
    ]
  }),
)}

Without \`parent\` each key has to fail three times. A fleet that calls many keys, each of them rarely, then sends nearly all of its calls to the
dead service. With \`parent\` the circuit of the service opens after a handful.

Reads / writes a second, of the whole fleet:

${table(
  ['fleet', 'keys', 'at rest', '… with `parent`', 'all dead', '… with `parent`'],
  fleets.map((row) => [
    `${count(row.instances)} × ${rate}`,
    count(row.keys),
    load(of('all', false, row).rest),
    load(of('all', true, row).rest),
    load(of('all', false, row).outage),
    load(of('all', true, row).outage),
  ]),
)}

An instance reads a key that it calls for the first time in a \`cacheTtl\`. If calls rarely meet the same key again, that is a read for each call.`
}

/** The page with the section replaced. */
export function withKeys(page: string, text: string): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error('docs/evidence/fleet.md has no place for keys.')
  return `${before}${begin}\n\n${text}\n\n${end}${after}`
}

/** The section as a page has it, with its lines around it: for a page that is written anew. */
export function keysIn(page: string): string {
  return `${begin}${page.split(begin)[1]?.split(end)[0] ?? '\n\n'}${end}`
}

if (process.argv[1] === import.meta.filename) {
  const { quick } = parseArgs({ options: { quick: { type: 'boolean', default: false } } }).values
  const text = section(await inMacrotask(() => measure(quick)))
  const file = fileURLToPath(new URL('../docs/evidence/fleet.md', import.meta.url))
  if (quick) console.log(text)
  else await writeFile(file, withKeys(await readFile(file, 'utf8'), text))
}
