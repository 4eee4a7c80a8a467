/**
 * Breaks the stores in every way, while the breaker does everything that it does with them, and writes what it measured to
 * `docs/evidence/reliability.md`.
 *
 *     npm run page -- reliability                    all faults, three times, and half a store for ten minutes: some minutes
 *     npm run page -- reliability --rounds 1         once, and the page is left alone
 *     npm run page -- reliability --only 'READONLY' faults whose names match, and the page is left alone
 *     npm run page -- reliability --only 'half a store: reads fine, writes fail, dead'
 *     npm run page -- reliability --only 'half a store' --reset-backoff 1
 */

import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { faults, stopServers } from '../__tests__/reliability/faults.ts'
import { type Row, runRow } from '../__tests__/reliability/matrix.ts'
import { reliabilityPage, rowTitle } from '../__tests__/reliability/page.ts'
import { cellTitle, cells as halfCells, type Result } from '../__tests__/reliability/sustained.ts'
import { runCells } from './sustained.ts'

/** So many faults at once: nearly all of the time is spent waiting. */
const parallel = 6
const roundsOfThePage = 3

const string = { type: 'string' } as const
const {
  only,
  rounds: wanted,
  'reset-backoff': backoff,
} = parseArgs({ options: { only: string, rounds: string, 'reset-backoff': string } }).values
const rounds = Number(wanted ?? roundsOfThePage)
if (!Number.isInteger(rounds) || rounds < 1) {
  console.error(`--rounds must be a whole number from 1 on, but is ${JSON.stringify(wanted)}`)
  process.exit(2)
}
const pattern = new RegExp(only ?? '')
const chosen = faults.filter((fault) => pattern.test(rowTitle(fault)))
const unhandled: unknown[] = []
process.on('unhandledRejection', (reason) => unhandled.push(reason))
// Every breaker says once what is misconfigured.
process.removeAllListeners('warning')

const rows: Row[] = []
const queue = Array.from({ length: rounds }, () => chosen)
  .flat()
  .values()
const startedAt = Date.now()
await Promise.all(
  Array.from({ length: parallel }, async () => {
    for (const fault of queue) {
      const row = await runRow(fault)
      rows.push(row)
      const figures = row.cells.map(({ operation, delay, agreedAfter }) => `${operation} ${delay}/${agreedAfter}`)
      console.log(`${rowTitle(fault)}: ${figures.join(', ')}`)
      for (const { operation, problems } of row.cells) {
        for (const problem of new Set(problems)) console.log(`  ✗ ${operation}: ${problem}`)
      }
    }
  }),
)
await stopServers()

const failed = rows.flatMap(({ cells }) => cells).filter(({ problems }) => problems.length > 0).length
const total = rows.flatMap(({ cells }) => cells).length
for (const reason of unhandled) console.error('Unhandled rejection:', reason)
console.log(
  `${total - failed} of ${total} cells hold, ${unhandled.length} unhandled rejections, ${Math.round((Date.now() - startedAt) / 1000)} s`,
)

const halves: Result[] = []
const halvesStartedAt = Date.now()
const chosenHalves = [...halfCells.keys()].filter((index) =>
  pattern.test(cellTitle(halfCells[index] as Result['cell'])),
)
const settings = backoff === undefined ? {} : { resetBackoff: Number(backoff) }
await runCells(chosenHalves, (result) => void halves.push(result), settings)
const broken = halves.filter(({ problems }) => problems.length > 0)
for (const { cell, problems } of broken) {
  console.log(`✗ ${cellTitle(cell)}`)
  for (const problem of problems) console.log(`    ${problem}`)
}
console.log(
  `half a store: ${halves.length - broken.length} of ${halves.length} cells hold, ${Math.round((Date.now() - halvesStartedAt) / 1000)} s`,
)

const isWhole = only === undefined && backoff === undefined && rounds >= roundsOfThePage
if (isWhole) {
  const inOrder = rows.sort((a, b) => faults.indexOf(a.fault) - faults.indexOf(b.fault))
  const page = new URL('../docs/evidence/reliability.md', import.meta.url)
  await writeFile(page, reliabilityPage(inOrder, halves, process.versions.node.split('.')[0] as string))
}
if (failed + unhandled.length + broken.length > 0) process.exitCode = 1
