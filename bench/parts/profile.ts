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
      `V8's sampling profiler, every 100 µs, over ${span / 1_000} s of calls that resolve at once: the share of the time spent in
each function itself. What the compiler has inlined and what is built in (promises, \`Date.now\`) counts for its caller;
\`(anonymous)\` in \`subjects.ts\` is the operation and what calls it.`,
      '`callExternal` with a Lambda deadline:',
      await profileOf(bound as Case, span),
      'The same with a timeout of its own, for which the clock is read:',
      await profileOf(timed as Case, span),
      'An invocation of a Middy handler that returns at once, with the middleware:',
      await profileOf(
        () => handler({}, { awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 } as never),
        span,
      ),
      `What was tried and kept: calls that come close together share one reading of the clock in each turn of the event loop,
and one look at whether the circuit is to be read and the deadline has come; a call without options goes a way that is short
enough for the compiler to make one piece of it; calls that nothing can cut share their two reactions; \`then\` is called where
the compiler sees that it is the promise's own; a call under a deadline makes what it needs for a cut when it is cut; instants are
computed where they are needed, or are one object for many calls, and permits are counted in small numbers, because V8 makes an
object of every number that is large or has a fraction; the invocation's timer is let go of at the end of a turn, and the timer of a
timeout is set there, if the call is under way by then: within a turn none could fire; the calls of an invocation are in a list that each leaves at once,
where a \`Set\` cost half of a call; an \`AbortController\` is made only when an operation reads \`signal\`; a refusal rejects a
turn later, when somebody listens, so that Node keeps no books of unhandled rejections. A stock of reactions for calls under a
deadline was given up again: V8 spends more on noting that an old object holds a new one than on a new function. What is left is
the promise that the caller gets, the one that \`then\` makes, one turn, the state of the circuit and a permit.`,
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
