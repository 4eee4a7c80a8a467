/**
 * Measures in Lambda's runtime client what the package costs at a cold start: `npm run lambda-costs`. Prints a table for
 * `docs/lambda.md`: medians of environments that are started one after the other, without Node's compile cache.
 *
 * @module
 */

import { existsSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { type EnvironmentOptions, startEnvironment } from '../__tests__/lambda/environment.ts'
import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'
import { startRedis } from '../__tests__/support/redis-server.ts'

const runs = 15
const entry = fileURLToPath(new URL('../dist/index.js', import.meta.url))

if (!existsSync(entry)) {
  console.error('There is nothing to measure yet. Run: npm run build')
  process.exit(1)
}

const [database, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
const ENTRY = entry
const dynamodb = {
  ENTRY,
  CIRCUIT_BREAKER_TABLE_NAME: await database.createTable(),
  AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
}
const cases: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'Middy alone': {},
  'state in memory': { ENTRY, CIRCUIT_BREAKER_STORAGE: 'memory' },
  'state in DynamoDB': dynamodb,
  'state in DynamoDB, `prefetch`': { ...dynamodb, CIRCUIT_BREAKER_PREFETCH: 'true' },
  'state in DynamoDB, `await breaker.load()` in the module': { ...dynamodb, LOADS_IN_INIT: 'yes' },
  'state in Redis': { ENTRY, CIRCUIT_BREAKER_REDIS_URL: redis.url },
}

// In turn, so that what else the machine does is spread over all of them.
const samplesOf = new Map<string, Sample[]>(Object.keys(cases).map((name) => [name, []]))
for (let run = 0; run < runs; run++) {
  for (const [name, variables] of Object.entries(cases)) {
    samplesOf.get(name)?.push(await measure({ ...variables, NODE_DISABLE_COMPILE_CACHE: '1' }))
  }
}
const rows: string[] = []
for (const [name, samples] of samplesOf) {
  const median = (kind: keyof Sample) => format(samples.map((sample) => sample[kind]).sort((a, b) => a - b))
  rows.push(
    `| ${[name, median('imported'), median('created'), median('init'), median('first'), median('warm')].join(' | ')} |`,
  )
}
await Promise.all([database.stop(), redis.stop()])

console.log(`Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, medians of ${runs}

| | import | create | init | first invocation | warm invocation |
| --- | --- | --- | --- | --- | --- |
${rows.join('\n')}`)

interface Sample {
  readonly imported: number
  readonly created: number
  readonly init: number
  readonly first: number
  readonly warm: number
}

async function measure(variables: Record<string, string>): Promise<Sample> {
  const options: EnvironmentOptions = { handler: 'costs.handler', variables, freezes: false }
  await using environment = await startEnvironment(options)
  // Lambda begins the first invocation as soon as init is over.
  const { payload, duration: first } = await environment.invoke({})
  const { duration: warm } = await environment.invoke({})
  const { imported, created } = payload as { imported: number; created: number }
  return { imported, created, init: environment.initDuration, first, warm }
}

function format(sorted: readonly number[]): string {
  const value = sorted[Math.floor(sorted.length / 2)] as number
  return value === 0 ? '–' : `${value.toFixed(value < 10 ? 1 : 0)} ms`
}
