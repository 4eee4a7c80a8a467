/**
 * `docs/evidence/reliability.md`: what became of every fault, as it was measured.
 *
 * @module
 */

import type { Fault } from './faults.ts'
import { type Cell, operations, type Row, settings } from './matrix.ts'
import * as sustained from './sustained.ts'

/** A fault as the page names it. */
export function rowTitle({ store, name }: Pick<Fault, 'store' | 'name'>): string {
  return `${store}: ${name}`
}

/** The whole page. Several rows of one fault are one on the page, with the worst of each figure. */
export function reliabilityPage(rows: readonly Row[], half: readonly sustained.Result[], node: string): string {
  const byFault = Map.groupBy(rows, ({ fault }) => fault)
  const rounds = Math.max(...Array.from(byFault.values(), ({ length }) => length))
  const cells = rows.flatMap(({ cells: all }) => all)
  const failed = cells.filter(({ problems }) => problems.length > 0)
  const longestDelay = Math.max(...cells.map(({ delay }) => delay))
  const { storageTimeout, cacheTtl, resetTimeout, failureThreshold } = settings
  return `# Reliability

What a broken store does to the functions that use it. \`npm run page -- reliability\` has measured and written this page; a part
of it runs in \`npm test\`.

- **${byFault.size} faults × ${operations.length} operations, ${rounds} times: ${cells.length - failed.length} of ${cells.length} hold.** The longest that a
  load, a call or a flush was delayed is ${longestDelay} ms, with a \`storageTimeout\` of ${storageTimeout} ms. Node ${node}.
- The stores are AWS's DynamoDB Local and real Redis servers. The network breaks in a proxy in front of them
  (\`__tests__/support/fault-proxy.ts\`), the SDK by \`aws-sdk-client-mock\`, Redis by itself.
- Each cell is a fleet of two or three instances with a circuit of its own and the real clients of the adapters.
  \`cacheTtl\` is ${cacheTtl} ms, \`resetTimeout\` ${resetTimeout} ms, \`failureThreshold\` ${failureThreshold}, all else is the default. It is well, the store
  breaks, the instances are invoked as Middy does it (load, call, flush), and the store is well again.
- The instances live by a clock of the test's own, so that nothing is decided by how fast the machine is. While the store
  answers it stands still; where the store leaves them without an answer, it moves. Where the store answers all the same,
  be it that it refuses, a second fleet goes through everything with a clock that is faster than any answer. The clients
  wait for a minute, but for a connection no longer than by default where it is connections that are not made.

In every cell:

1. The caller gets **the same object** that the operation returned or threw. Only a circuit that is not closed may refuse.
2. No load, call or flush is **delayed** longer than \`storageTimeout\`: when so much time has passed on the clock, it ends
   without anything more of the store.
3. The instance **protects itself**: after three failures it refuses, and a service whose circuit was open is probed.
4. Every report names the service, the operation and whether it is tried again, and its **kind** is right.
5. Nothing is an unhandled rejection.
6. When the store is well and its clients have noticed, what was left over is **written within one \`cacheTtl\`**, and
   within one more the **fleet agrees** with what is stored. Failures are neither lost nor counted twice, a transition is told once, and what an instance
   decided alone has not opened the fleet's circuit. (Not one \`cacheTtl\` in all: an instance finds out that the store is well when
   it asks again, and what it then writes the others find out when they read.)

The first figure is the longest delay: up to the store's answer, as it was measured, or to \`storageTimeout\`, whichever is
sooner. The second is how long after its return the fleet agreed with the store, by a clock that was looked at every
${cacheTtl / 8} ms. Both are milliseconds and the worst of the rounds. A delay of a few milliseconds is a store that answers
with an error.

${table(byFault)}
${sustainedSection(half)}
## What the operations are

| operation | while the store is broken |
| --- | --- |
| load | instances with an old cache, and one that is new, are invoked |
| count | a call fails |
| trip | calls fail until the instance opens its circuit |
| win a probe | a circuit that was opened before may be probed |
| settle a probe | a probe that began before succeeds |
| flush | a call that began before fails, and the invocation ends |
`
}

function table(byFault: ReadonlyMap<Fault, readonly Row[]>): string {
  const lines = ['DynamoDB', 'Redis'].flatMap((store) => [
    `## ${store}`,
    '',
    `| fault | reported as | ${operations.join(' | ')} |`,
    `| --- | --- | ${operations.map(() => '---').join(' | ')} |`,
    ...[...byFault]
      .filter(([fault]) => fault.store === store)
      .map(([fault, rows]) => {
        const cells = operations.map((operation) => {
          const all = rows.flatMap((row) => row.cells.filter((cell) => cell.operation === operation))
          return describe(all)
        })
        return `| ${fault.name} | ${fault.kind} | ${cells.join(' | ')} |`
      }),
    '',
  ])
  return lines.join('\n')
}

function describe(cells: readonly Cell[]): string {
  const delay = Math.max(...cells.map((cell) => cell.delay))
  const agreedAfter = Math.max(...cells.map((cell) => cell.agreedAfter))
  const problems = cells.flatMap((cell) => cell.problems)
  return problems.length === 0 ? `✓ ${delay} / ${agreedAfter}` : `✗ ${problems[0]}`
}

/** The section about half a store. */
export function sustainedSection(results: readonly sustained.Result[]): string {
  const { readFaults, writeFaults, starts, cacheTtls, resetTimeouts, callsAtOnce, services } = sustained
  const failed = results.filter(({ problems }) => problems.length > 0)
  const inSeconds = (times: readonly number[]): string => times.map((time) => time / 1_000).join(', ')
  const rows = readFaults.map((reads) => {
    const columns = writeFaults.map((writes) =>
      worstOf(results.filter(({ cell }) => cell.reads === reads && cell.writes === writes)),
    )
    return `| ${reads} | ${columns.join(' | ')} |`
  })
  return `## Half a store, for ten minutes

A store that is away altogether is one thing. Here it can be read and not written, or the other way round; it is slow, stale
or throttled, and stays so for ten minutes of a virtual clock.

**${count(results.length)} cells: ${count(results.length - failed.length)} hold.** They are every pair of ${readFaults.length} ways of reads and ${writeFaults.length} of writes, × a
service that is ${list(services)} (a minute dead, four minutes well, and again) × \`cacheTtl\` ${inSeconds(cacheTtls)} s ×
\`resetTimeout\` ${inSeconds(resetTimeouts)} s × ${list(callsAtOnce)} calls at once in an invocation a second × ${starts.length} beginnings, of what is stored and
who is there. All else is the default. The beginnings:

${starts.map(({ name }) => `- ${name}`).join('\n')}

| fault | the store |
| --- | --- |
| fail | refuses at once |
| refused | refuses writes as nothing that passes by itself (no permission) |
| slow | does what it is asked, and answers 0.9 to 1.5 s later; \`storageTimeout\` is 0.5 s |
| stale | answers with the record of 1 to 3 s ago, as \`consistentRead: false\` may |
| throttled | refuses nine of ten requests as too many |
| reply lost | does what it is asked, and never answers |

${failed.length === 0 ? '' : `These do not hold:\n\n${failed.map(({ cell, problems }) => `- ${sustained.cellTitle(cell)}\n  ${problems[0]}`).join('\n')}\n\n`}Beside each instance runs *its own breaker*: the same settings and calls, with a store in its memory. What holds:

1. A **dead service** gets at most twice the calls that the own breaker lets through, and ten more.
2. A **healthy service** loses at most 1 % of its calls after the first minute. Where it alternates, the same holds after each
   return, and after the longest \`resetTimeout\` that the backoff has reached: at most 1 % more than the own breaker loses.

Each figure is the worst of its cells: calls that reached a dead service, of so many that rule 1 allows; then the part of the
calls that a healthy one lost, without what the own breaker lost.

| reads ↓ writes → | ${writeFaults.join(' | ')} |
| --- | ${writeFaults.map(() => '---').join(' | ')} |
${rows.join('\n')}
`
}

function worstOf(results: readonly sustained.Result[]): string {
  const figures = results.flatMap((result) => result.figures)
  const share = ({ reached, ownReached }: sustained.Figures): number => reached / sustained.mostReached(ownReached)
  const worst = figures.reduce((one, other) => (share(other) > share(one) ? other : one))
  const lost = Math.max(
    ...figures.map(({ judged, refused, ownRefused }) => (judged === 0 ? 0 : (refused - ownRefused) / judged)),
  )
  const isWell = results.every(({ problems }) => problems.length === 0)
  const loss = `${(100 * Math.max(0, lost)).toFixed(1)} %`
  return `${isWell ? '' : '✗ '}${worst.reached} of ${sustained.mostReached(worst.ownReached)}, ${loss}`
}

function list(words: readonly (string | number)[]): string {
  return `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}

function count(number: number): string {
  return number.toLocaleString('en-US')
}
