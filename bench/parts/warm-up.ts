/** What an invocation costs before the compiler has warmed to it: processes that are new, from their first invocation on. */

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { median } from '../rounds.ts'
import { duration, type Effort, type Section } from '../section.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const entry = new URL('../../dist/index.js', import.meta.url).href

/** Invocations are counted together up to these. */
const stages = [1, 10, 100, 1_000, 10_000] as const

const operation = 'const operation = async () => 1'
/** Handlers with one call, the deadline known. */
const handlers: Readonly<Record<string, string>> = {
  'Middy, bare call': 'middy().handler(async () => operation())',
  'Middy, ours in memory, `callExternal`': `
    middy()
      .use((await import(${JSON.stringify(entry)})).circuitBreaker({ services: ["stripe"], storage: "memory" }))
      .handler(async (_event, { callExternal }) => callExternal("stripe", operation, { timeout: 1_000 }))`,
}

export async function run({ quick }: Effort): Promise<Section> {
  if (!existsSync(fileURLToPath(entry))) throw new Error('There is nothing to measure yet. Run: npm run build')
  const rounds = quick ? 1 : 15
  const samplesOf = new Map<string, number[][]>(Object.keys(handlers).map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [name, handler] of Object.entries(handlers)) samplesOf.get(name)?.push(await start(handler))
  }
  return {
    title: 'The first invocations of a process',
    blocks: [
      `V8 compiles code that runs often, and interprets it until then. So the first thousand invocations of an instance cost more than the
tables above say. One invocation on average, of ${rounds} new processes each, with one call of an operation that resolves at once and a timeout:
medians.`,
      {
        header: ['handler', ...stages.map((stage, index) => nameOf(stage, stages[index - 1]))],
        rows: Array.from(samplesOf, ([name, samples]) => [
          name,
          ...stages.map((_, index) => duration(median(samples.map((sample) => sample[index] ?? Number.NaN)))),
        ]),
      },
    ],
  }
}

function nameOf(stage: number, before: number | undefined): string {
  const text = (number: number) => number.toLocaleString('en')
  return before === undefined ? 'the first' : `${text(before + 1)} to ${text(stage)}`
}

/** Nanoseconds for an invocation in each stage. */
async function start(handler: string): Promise<number[]> {
  const script = `
    const { default: middy } = await import("@middy/core")
    ${operation}
    const handler = ${handler}
    const took = []
    let count = 0
    for (const stage of ${JSON.stringify(stages)}) {
      const from = process.hrtime.bigint()
      const before = count
      for (; count < stage; count++) await handler({}, { awsRequestId: "a-request", getRemainingTimeInMillis: () => 900_000 })
      took.push(Number(process.hrtime.bigint() - from) / (stage - before))
    }
    console.log(JSON.stringify(took))
    process.exit(0)`
  const env = { NODE_DISABLE_COMPILE_CACHE: '1', PATH: process.env['PATH'] }
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: root,
    env,
  })
  return JSON.parse(stdout)
}
