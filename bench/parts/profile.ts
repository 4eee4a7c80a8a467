/** Where the time of a guarded call goes, as V8's sampling profiler sees it. */

import { type Profiler, Session } from 'node:inspector/promises'
import { basename } from 'node:path'
import middy from '@middy/core'
import { circuitBreaker } from '../../src/index.ts'
import type { Case } from '../rounds.ts'
import type { Effort, Section, Table } from '../section.ts'
import { operation, subjects } from '../subjects.ts'

const shown = 12

export async function run({ quick }: Effort): Promise<Section> {
  const span = quick ? 50 : 4_000
  const { 'callExternal, Lambda deadline': bound } = await subjects({ limit: 10 })
  const { 'callExternal, Lambda deadline': timed } = await subjects({ limit: 10, timeout: 1_000 })
  const handler = middy()
    .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
    .handler(operation)
  return {
    title: 'Where the time goes',
    blocks: [
      `V8's profiler took a sample every 100 µs, over ${span / 1_000} s of calls that resolve at once. A share is the time spent in the function itself. Inlined
and built-in code (promises, \`Date.now\`) counts for its caller. \`(anonymous)\` in \`subjects.ts\` is the operation and its caller.`,
      '`callExternal` with a Lambda deadline:',
      await profileOf(bound as Case, span),
      'The same with a timeout of its own, for which the clock is read:',
      await profileOf(timed as Case, span),
      'An invocation of a Middy handler that returns at once, with the middleware:',
      await profileOf(
        () => handler({}, { awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 } as never),
        span,
      ),
      `These measures made a call cheap:

- Calls that come close together share one reading of the clock in each turn of the event loop. They also share one check of the cache and of
  the deadline.
- A call without options takes a path that is short enough for the compiler to inline.
- Calls that nothing can cut share their two reactions. A call under a deadline makes its own only when it is cut.
- V8 makes an object of each number that is large or has a fraction. So instants are computed late or shared, and permits are small integers.
- The timer of a timeout is set at the end of a turn, if the call still runs: within a turn no timer can fire. The timer of an invocation is
  let go then.
- The calls of an invocation are in a list. A \`Set\` cost half of a call.
- An \`AbortController\` is made only if the operation reads \`signal\`.
- A refusal rejects one turn later, when a listener is there, so that Node does not register an unhandled rejection.

A stock of reactions for calls under a deadline was slower: V8 spends more on an old object that holds a new one than on a new function. The
rest of the cost is the caller's promise, the promise that \`then\` makes, one turn, the state of the circuit and a permit.`,
    ],
  }
}

async function profileOf(subject: Case, span: number): Promise<Table> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: 100 })
  await runFor(subject, span / 4)
  await session.post('Profiler.start')
  await runFor(subject, span)
  const { profile } = await session.post('Profiler.stop')
  session.disconnect()
  return { header: ['function', 'share'], rows: selfTimes(profile).slice(0, shown) }
}

async function runFor(subject: Case, span: number): Promise<void> {
  const end = performance.now() + span
  while (performance.now() < end) for (let n = 0; n < 1_000; n++) await subject()
}

function selfTimes({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): string[][] {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url } }) => {
      const file = url === '' ? '' : ` (${basename(url)})`
      return [id, `\`${functionName || '(anonymous)'}\`${file}`]
    }),
  )
  const spent = new Map<string, number>()
  let total = 0
  for (const [index, id] of samples.entries()) {
    const name = names.get(id) ?? ''
    if (/profile\.ts|node:inspector/.test(name)) continue
    const delta = timeDeltas[index] ?? 0
    spent.set(name, (spent.get(name) ?? 0) + delta)
    total += delta
  }
  return [...spent]
    .sort(([, a], [, b]) => b - a)
    .map(([name, time]) => [name, `${((100 * time) / total).toFixed(1)} %`])
}
