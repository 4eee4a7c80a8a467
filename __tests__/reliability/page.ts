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

A store can fail in many ways. This page shows what each of them does to the functions that use it. \`npm run page -- reliability\` measures and writes the
page. \`npm test\` runs a part of it.

- **${byFault.size} faults × ${operations.length} operations, ${rounds} times: ${cells.length - failed.length} of ${cells.length} hold.** The longest
  delay of a load, a call or a flush is ${longestDelay} ms, with a \`storageTimeout\` of ${storageTimeout} ms. Node ${node}.
- The stores are AWS's DynamoDB Local and real Redis servers. A proxy in front of them breaks the network
  (\`__tests__/support/fault-proxy.ts\`), \`aws-sdk-client-mock\` breaks the SDK, and Redis is told to fail by itself.
- Each cell of the tables is a fleet of two or three instances with the real clients of the adapters and a circuit of its own.
  \`cacheTtl\` is ${cacheTtl} ms, \`resetTimeout\` ${resetTimeout} ms, \`failureThreshold\` ${failureThreshold}, and the other settings have their defaults. The store works,
  then it breaks, the instances are invoked as Middy does it (load, call, flush), and then the store works again.
- The instances use a clock of the test, so that the speed of the machine decides nothing. The clock stands still while the store answers,
  and moves when the store gives no answer. If a broken store answers, even with a refusal, a second fleet goes through the same with a clock
  that is faster than any answer. The clients wait for a minute. If connections cannot be made, they wait for one as long as by default.

In every cell:

1. The caller gets **the same object** that the operation returned or threw. Only a circuit that is not closed may refuse.
2. No load, call or flush is **delayed** longer than \`storageTimeout\`. When that time has passed on the clock, it ends without the store.
3. The instance **protects itself**: it refuses after three failures, and it probes a service whose circuit was open.
4. Every report names the service, the operation and whether there will be another try, and its **kind** is right.
5. There is no unhandled rejection.
6. When the store works again and its clients have noticed, the outcomes that were left over are **written within one \`cacheTtl\`**. Within one
   more the **fleet agrees** with the record. No failure is lost or counted twice, each transition fires one event, and the lone decision of
   an instance has not opened the fleet's circuit. (It takes two \`cacheTtl\`s, because one instance has to ask the store again and write, and
   then the others have to read.)

The first figure of a cell is the longest delay: until the store's answer, or until \`storageTimeout\` if that is sooner. The second is the time
after the store's return until the fleet agreed with the record, by a clock that was read every
${cacheTtl / 8} ms. Both are milliseconds, and the worst of all rounds. A delay of a few milliseconds means that the store answered
with an error.

${table(byFault)}
${sustainedSection(half)}
## The operations

| operation | while the store is broken |
| --- | --- |
| load | instances with an old copy of the record, and a new instance, are invoked |
| count | a call fails |
| trip | calls fail until the instance opens its circuit |
| win a probe | a probe is due in a circuit that opened before |
| settle a probe | a probe that began before the fault succeeds |
| flush | a call that began before the fault fails, and the invocation ends |
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

Here the store can be read but not written, or the other way round. It is slow, stale or throttled, and stays so for ten minutes of a virtual
clock.

**${count(results.length)} cells: ${count(results.length - failed.length)} hold.** They are all combinations of:

- ${readFaults.length} faults of reads and ${writeFaults.length} of writes, see the table
- services: ${list(services)} (a minute dead, four minutes healthy, and again)
- \`cacheTtl\` ${inSeconds(cacheTtls)} s, and \`resetTimeout\` ${inSeconds(resetTimeouts)} s
- ${list(callsAtOnce)} calls at once, in one invocation a second
- ${starts.length} beginnings:
${starts.map(({ name }) => `  - ${name}`).join('\n')}

| fault | the store |
| --- | --- |
| fail | refuses at once |
| refused | refuses writes for a reason that does not pass by itself (no permission) |
| slow | carries the request out, and answers 0.9 to 1.5 s later; \`storageTimeout\` is 0.5 s |
| stale | answers with the record of 1 to 3 s ago, as \`consistentRead: false\` may |
| throttled | refuses nine of ten requests as too many |
| reply lost | carries the request out, and never answers |

Each instance is compared with *its own breaker*, which has the same settings and calls, and a store in its memory. Two rules must hold:

1. A **dead service** gets at most twice the calls that the own breaker lets through, and ten more.
2. A **healthy service** loses at most 1 % of its calls after the first minute. An alternating service loses at most 1 % more than with the own
   breaker, after each return and after the longest \`resetTimeout\` that the backoff has reached.

Each cell has the worst figures of its combinations: the calls that reached a dead service, of those that rule 1 allows; then the part of the
calls that a healthy service lost, without those that the own breaker lost. ✗: at least one combination does not hold.

| reads ↓ writes → | ${writeFaults.join(' | ')} |
| --- | ${writeFaults.map(() => '---').join(' | ')} |
${rows.join('\n')}
${failed.length === 0 ? '' : `\nThese combinations do not hold:\n\n${failed.map(({ cell, problems }) => `- ${sustained.cellTitle(cell)}\n  ${problems[0]}`).join('\n')}\n`}`
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
