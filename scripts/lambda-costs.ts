/**
 * Measures in Lambda's runtime client what the package costs at a cold start: `npm run page -- lambda-costs`. Prints tables for
 * `docs/understand/cold-starts.md`: medians of environments that are started one after the other, without Node's compile cache. Small
 * functions are emulated: a process is stopped and continued in turn, so that it runs for a part of the time.
 *
 * Fails if a small function that waits for `load()` while it starts does not reach its healthy service each time, or takes more
 * than 1.5 times as long as with the state in memory. `-- --only processor`, `init` or `small` prints one of the tables.
 *
 * @module
 */

import { existsSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { type ExecutionEnvironment, startEnvironment } from '../__tests__/lambda/environment.ts'
import { type Kind, makeSmallFunctions } from '../__tests__/lambda/small-function.ts'
import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'
import { startHttpService } from '../__tests__/support/http-service.ts'
import { startRedis } from '../__tests__/support/redis-server.ts'

/** The memory of functions, in MB, and the part of a processor that it brings: 1,769 MB are a whole one. */
const sizes = { 128: 0.07, 256: 0.14, 512: 0.29, 1024: 0.58 } as const
/** The timeout of small functions: Lambda's default. */
const timeout = 3_000
/** How much longer than with the state in memory a first invocation may take. */
const mostTimes = 1.5

const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : undefined
const entry = fileURLToPath(new URL('../dist/index.js', import.meta.url))

if (!existsSync(entry)) {
  console.error('There is nothing to measure yet. Run: npm run build')
  process.exit(1)
}

const [database, redis, service] = await Promise.all([startDynamoDBLocal(), startRedis(), startHttpService('answers')])
const functions = await makeSmallFunctions(entry)
const table = await database.createTable()
const memory = { CIRCUIT_BREAKER_STORAGE: 'memory' }
const dynamodb = { CIRCUIT_BREAKER_TABLE_NAME: table }
const inRedis = { CIRCUIT_BREAKER_REDIS_URL: redis.url }
const common = {
  ENTRY: entry,
  SERVICE: service.url,
  TABLE: table,
  AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
  NODE_DISABLE_COMPILE_CACHE: '1',
}

const problems: string[] = []
try {
  console.log(`Node ${process.versions.node}, ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}`)
  if (only === undefined || only === 'processor') await wholeProcessor(15)
  if (only === undefined || only === 'init') await smallInit(5)
  if (only === undefined || only === 'small') await smallInvocations(5)
} finally {
  await Promise.all([database.stop(), redis.stop(), service.stop(), functions[Symbol.asyncDispose]()])
}
for (const problem of problems) console.error(problem)
process.exitCode = problems.length > 0 ? 1 : 0

/** What each step of a cold start takes where the function has a whole processor. */
async function wholeProcessor(runs: number): Promise<void> {
  const cases: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    'Middy alone': { ENTRY: '' },
    'state in memory': memory,
    'state in DynamoDB': { ...dynamodb, LOADS_IN_INIT: 'yes' },
    'state in DynamoDB, `load` not awaited': dynamodb,
    'state in DynamoDB, `preload: false`': { ...dynamodb, CIRCUIT_BREAKER_PRELOAD: 'false' },
    'state in Redis': { ...inRedis, LOADS_IN_INIT: 'yes' },
    'state in Redis, `load` not awaited': inRedis,
  }
  const samples = await sample(runs, Object.entries(cases), async ([, variables]) => {
    await using environment = await start('costs.handler', variables)
    // Lambda begins the first invocation as soon as init is over.
    const { payload, duration: first } = await environment.invoke({})
    const { duration: warm } = await environment.invoke({})
    const { imported, created } = payload as { imported: number; created: number }
    return [imported, created, environment.initDuration, first, warm]
  })
  print(
    ['', 'import', 'create', 'init', 'first invocation', 'warm invocation'],
    samples.map(([[name], columns]) => [name, ...columns.map((each) => time(median(each)))]),
  )
}

/** What init takes where a function has that part of a processor from its start. */
async function smallInit(runs: number): Promise<void> {
  const cases: readonly (readonly [name: string, kind: Kind, variables: Readonly<Record<string, string>>])[] = [
    ['no circuit breaker', 'without a breaker', {}],
    ['state in memory', 'guarded', memory],
    ['state in DynamoDB', 'guarded', dynamodb],
    ['state in Redis', 'guarded', inRedis],
    ['the function uses the SDK itself, no circuit breaker', 'AWS SDK', {}],
    ['the function uses the SDK itself, state in DynamoDB', 'AWS SDK and guarded', dynamodb],
  ]
  const forms = ['unbundled', 'bundled'] as const
  const columns = forms.flatMap((form) => cases.map((one) => ({ form, one })))
  const rows = new Map(columns.map(({ form, one: [name] }) => [`${name}, ${form}`, [] as string[]]))
  for (const cpu of Object.values(sizes)) {
    const samples = await sample(runs, columns, async ({ form, one: [, kind, variables] }) => {
      await using environment = await start(
        'elsewhere.handler',
        {
          ...variables,
          HANDLER_FILE: functions.files[kind][form],
        },
        cpu,
      )
      return [environment.initDuration]
    })
    for (const [
      {
        form,
        one: [name],
      },
      [durations = []],
    ] of samples) {
      rows.get(`${name}, ${form}`)?.push(time(median(durations)))
    }
  }
  print(
    ['init', ...Object.keys(sizes).map((size) => `${size} MB`)],
    Array.from(rows, ([name, times]) => [name, ...times]),
  )
}

/** What the first invocation takes where init had a whole processor, and the invocation has a part of one. */
async function smallInvocations(runs: number): Promise<void> {
  const cases: readonly (readonly [name: string, kind: Kind, variables: Readonly<Record<string, string>>])[] = [
    ['no circuit breaker', 'without a breaker', {}],
    ['state in memory', 'guarded', memory],
    ['state in DynamoDB', 'guarded', dynamodb],
    ['state in Redis', 'guarded', inRedis],
    ['state in DynamoDB, `load` not awaited', 'guarded, not awaited', dynamodb],
    ['state in Redis, `load` not awaited', 'guarded, not awaited', inRedis],
  ]
  const smallest = Object.entries(sizes).slice(0, 3)
  const rows = new Map<string, string[]>()
  for (const form of ['unbundled', 'bundled'] as const) {
    for (const [size, cpu] of smallest) {
      const samples = await sample(runs, cases, async ([name, kind, variables]) => {
        await using environment = await start('elsewhere.handler', {
          ...variables,
          HANDLER_FILE: functions.files[kind][form],
        })
        const { outcome, payload, duration } = await environment.invoke({}, { timeout, cpu })
        const isReached = payload === 200
        const isPromised = kind !== 'guarded, not awaited'
        if (!isReached && isPromised) problems.push(`${name}, ${form}, ${size} MB: service not reached: ${outcome}`)
        return [duration, Number(isReached)]
      })
      const inMemory = median(samples[1]?.[1][0] ?? [])
      for (const [[name, kind], [durations = [], reached = []]] of samples) {
        const row = rows.get(`${name}, ${form}`) ?? []
        rows.set(`${name}, ${form}`, row)
        const count = reached.filter((each) => each === 1).length
        row.push(`${time(median(durations))}${count < runs ? `, ${count} of ${runs} reached` : ''}`)
        if (kind === 'guarded' && median(durations) > mostTimes * inMemory) {
          problems.push(`${name}, ${form}, ${size} MB: ${time(median(durations))}, in memory ${time(inMemory)}`)
        }
      }
    }
  }
  print(
    ['first invocation', ...smallest.map(([size]) => `${size} MB`)],
    Array.from(rows, ([name, times]) => [name, ...times]),
  )
}

function start(
  handler: string,
  variables: Readonly<Record<string, string>>,
  initCpu?: number,
): Promise<ExecutionEnvironment> {
  return startEnvironment({
    handler,
    variables: { ...common, ...variables },
    freezes: false,
    ...(initCpu !== undefined && { initCpu }),
  })
}

/** Measures the cases in turn, so that what else the machine does is spread over all of them. The samples by column. */
async function sample<Case>(
  runs: number,
  cases: readonly Case[],
  measure: (one: Case) => Promise<readonly number[]>,
): Promise<readonly (readonly [Case, number[][]])[]> {
  const samples = cases.map((one) => [one, [] as number[][]] as const)
  for (let run = 0; run < runs; run++) {
    for (const [one, columns] of samples) {
      for (const [index, value] of (await measure(one)).entries()) {
        columns[index] ??= []
        columns[index].push(value)
      }
    }
  }
  return samples
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

function time(value: number): string {
  return value === 0 ? '–' : `${value.toFixed(value < 10 ? 1 : 0)} ms`
}

function print(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const lines = [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`)
  console.log(`\n${lines.join('\n')}`)
}
