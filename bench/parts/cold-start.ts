/** What importing the package and creating the middleware takes, in time and memory, beside importing what it uses. */

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { median } from '../rounds.ts'
import { duration, type Effort, type Section, size } from '../section.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const entry = new URL('../../dist/index.js', import.meta.url).href

/** What a process does; each begins where `@middy/core` is imported already, but the first. */
const cases: Readonly<Record<string, string>> = {
  '`@middy/core`': 'await import("@middy/core")',
  'ours in memory': create({ type: 'memory' }),
  'ours in memory, by `require()`': create(
    { type: 'memory' },
    `(await import("node:module")).createRequire(${JSON.stringify(entry)})`,
  ),
  'ours in DynamoDB, before the first operation': create({ type: 'dynamodb', tableName: 'circuits' }),
  'ours in DynamoDB, with the client': `${create({ type: 'dynamodb', tableName: 'circuits' })}; await storage.prepare()`,
  '`@aws-sdk/client-dynamodb` alone': 'await import("@aws-sdk/client-dynamodb")',
  '`@aws-sdk/client-dynamodb` and a client': `
    const { DynamoDBClient } = await import("@aws-sdk/client-dynamodb"); new DynamoDBClient({ region: "eu-central-1" })`,
  'ours in Redis, before the first operation': create({ type: 'redis', url: 'redis://localhost' }),
  'ours in Redis, with the client': `${create({ type: 'redis', url: 'redis://localhost' })}; await storage.prepare()`,
  '`ioredis` alone': 'await import("ioredis")',
}

interface Sample {
  /** Milliseconds. */
  readonly took: number
  /** Bytes. */
  readonly heap: number
  readonly rss: number
}

export async function run({ quick }: Effort): Promise<Section> {
  if (!existsSync(fileURLToPath(entry))) throw new Error('There is nothing to measure yet. Run: npm run build')
  const rounds = quick ? 1 : 21
  const samplesOf = new Map<string, Sample[]>(Object.keys(cases).map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [name, code] of Object.entries(cases)) samplesOf.get(name)?.push(await start(code))
  }
  return {
    title: 'Cold start',
    blocks: [
      `${rounds} processes of each kind, started in turn, without Node's compile cache; nothing is bundled. The table has medians: the time, the growth of
the heap after a collection, and the growth of the process. "Ours" imports \`middy-circuit-breaker\` after Middy (whose import also warms the
module loader), and creates a store and the middleware. "With the client" also loads the adapter and the client library, as the first
operation does, and connects to nothing. [Cold starts](../understand/cold-starts.md) has figures of Lambda's runtime client.`,
      {
        header: ['', 'time', 'heap', 'resident memory'],
        rows: Array.from(samplesOf, ([name, samples]) => {
          const of = (kind: keyof Sample) => median(samples.map((sample) => sample[kind]))
          return [name, duration(of('took') * 1e6), size(of('heap')), size(of('rss'))]
        }),
      },
    ],
  }
}

function create(config: object, load = 'import'): string {
  const path = load === 'import' ? entry : fileURLToPath(entry)
  return `
    const { circuitBreaker, CircuitBreakerStorageFactory } = await ${load}(${JSON.stringify(path)})
    const storage = CircuitBreakerStorageFactory.create(${JSON.stringify(config)})
    circuitBreaker({ services: ["stripe"], storage })`
}

async function start(code: string): Promise<Sample> {
  const isMiddy = code === cases['`@middy/core`']
  const script = `
    ${isMiddy ? '' : 'await import("@middy/core")'}
    gc()
    const before = process.memoryUsage()
    const startedAt = performance.now()
    ${code}
    const took = performance.now() - startedAt
    const { rss } = process.memoryUsage()
    gc()
    const { heapUsed } = process.memoryUsage()
    console.log(JSON.stringify({ took, heap: heapUsed - before.heapUsed, rss: rss - before.rss }))
    process.exit(0)`
  const env = { NODE_DISABLE_COMPILE_CACHE: '1', PATH: process.env['PATH'] }
  const args = ['--expose-gc', '--input-type=module', '--eval', script]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env })
  return JSON.parse(stdout)
}
