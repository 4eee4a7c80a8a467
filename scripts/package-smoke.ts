/**
 * Uses the package as its users get it: packed, installed in an empty folder with nothing but `@middy/core`, then
 * imported, required, bundled and type-checked. Every run makes real guarded calls, on the oldest Node that is
 * supported and on the one that runs this script.
 *
 * Reports one line per step; exits with 1 if any failed. `--keep` leaves the folder for inspection.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { build, transform } from 'esbuild'
import { node22, oldestNode } from './node22.ts'
import { failedSteps, step } from './steps.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const workspace = await mkdtemp(join(tmpdir(), 'circuit-smoke-'))
const nodes = [
  { label: `Node ${oldestNode}`, path: node22() },
  { label: `Node ${process.versions.node}`, path: process.execPath },
]

/** Lambda's nodejs22.x switches `require()` of ES modules off: a bundle must not depend on it. */
const asOnLambda = '--no-experimental-require-module'

// What the two halves of the smoke test share: three failures pass through unchanged, the fourth call is refused.
const drive = `
const assert = require('node:assert/strict')

/** Calls a handler that is guarded by a fresh circuit and whose service always answers 503. */
exports.drive = async ({ handler, operations, isCircuitOpenError }) => {
  const context = () => ({
    awsRequestId: 'smoke', functionName: 'smoke', getRemainingTimeInMillis: () => 30_000, callbackWaitsForEmptyEventLoop: true,
  })
  for (let call = 1; call <= 3; call += 1) {
    await assert.rejects(async () => handler({}, context()), { message: 'the service answered 503', statusCode: 503 })
    assert.equal(operations(), call)
  }
  const refusal = await Promise.resolve(handler({}, context())).then(
    () => assert.fail('the fourth call was not refused'),
    (error) => error,
  )
  assert.equal(refusal.code, 'CIRCUIT_OPEN', 'instead of a refusal: ' + refusal.stack)
  assert.equal(refusal.statusCode, 503)
  assert.equal(operations(), 3, 'the refused call reached the service')
  if (isCircuitOpenError) assert.ok(isCircuitOpenError(refusal))
  console.log('refused')
}
`

const handler = `
import middy from '@middy/core'
import { circuitBreaker, isCircuitOpenError, MemoryCircuitStorage } from 'middy-circuit-breaker'

let count = 0
export const operations = () => count
export { isCircuitOpenError }
export const handler = middy()
  .use(circuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() }))
  .handler((event, { callExternal }) =>
    callExternal('stripe', async () => {
      count += 1
      throw Object.assign(new Error('the service answered 503'), { statusCode: 503 })
    }),
  )
`

/** Middy has no CommonJS entry, so that a program that requires this package imports Middy, or does without. */
const required = `
const { CircuitBreaker, MemoryCircuitStorage, isCircuitOpenError, ...rest } = require('middy-circuit-breaker')
const { drive } = require('./drive.cjs')
const assert = require('node:assert/strict')

assert.equal(rest.default, rest.circuitBreaker)
assert.deepEqual(Object.keys(require('middy-circuit-breaker/testing')).includes('createTestContext'), true)
assert.equal(typeof require('middy-circuit-breaker/dynamodb').DynamoDBCircuitStorage, 'function')
assert.equal(typeof require('middy-circuit-breaker/redis').RedisCircuitStorage, 'function')
assert.equal(typeof require('middy-circuit-breaker/durable').untilRecovered, 'function')
assert.equal(typeof require('middy-circuit-breaker/powertools').measureCircuits, 'function')
assert.equal(require('middy-circuit-breaker/package.json').name, 'middy-circuit-breaker')

const fail = (count) => async () => {
  count()
  throw Object.assign(new Error('the service answered 503'), { statusCode: 503 })
}

async function main() {
  let count = 0
  const breaker = new CircuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() })
  await drive({
    handler: () => breaker.call('stripe', fail(() => { count += 1 })),
    operations: () => count,
    isCircuitOpenError,
  })
  const { default: middy } = await import('@middy/core')
  let guarded = 0
  await drive({
    handler: middy()
      .use(rest.circuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() }))
      .handler((event, { callExternal }) => callExternal('stripe', fail(() => { guarded += 1 }))),
    operations: () => guarded,
    isCircuitOpenError,
  })
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
`

/** Calls the handler of the README while its service answers 503: three calls reach it, the fourth is refused. */
const newcomer = `
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { handler } from './readme.mjs'

let requests = 0
const server = createServer((_, response) => {
  requests += 1
  response.writeHead(503).end('down')
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
process.env.GEOLOCATION_URL = 'http://127.0.0.1:' + server.address().port
for (let call = 1; call <= 4; call += 1) {
  const context = { awsRequestId: 'smoke', getRemainingTimeInMillis: () => 30_000 }
  assert.deepEqual(await handler({ ip: '192.0.2.1' }, context), { status: 200, body: 'unknown' })
}
assert.equal(requests, 3)
server.closeAllConnections()
server.close()
console.log('refused')
`

const consumer = `
import middy from '@middy/core'
import type { Context } from 'aws-lambda'
import defaultExport, { CircuitBreaker, type CircuitBreakerContext, circuitBreaker, MemoryCircuitStorage } from 'middy-circuit-breaker'

type IsAny<T> = 0 extends 1 & T ? true : false
type Is<T extends boolean, Expected extends T> = Expected

const storage = new MemoryCircuitStorage()
export const same: typeof circuitBreaker = defaultExport

export const list = middy<{ id: string }>()
  .use(circuitBreaker({ services: ['stripe'], storage }))
  .handler(async (event, context) => {
    type Checks = [
      Is<IsAny<typeof event.id>, false>,
      Is<IsAny<typeof context>, false>,
      Is<IsAny<typeof context.awsRequestId>, false>,
      Is<IsAny<typeof context.functionName>, false>,
      Is<IsAny<ReturnType<typeof context.getRemainingTimeInMillis>>, false>,
      Is<IsAny<typeof context.callExternal>, false>,
      Is<IsAny<typeof context.circuits>, false>,
      Is<IsAny<typeof context.circuits.stripe.state>, false>,
    ]
    const lambda: Context = context
    const id: string = context.awsRequestId
    const left: number = context.getRemainingTimeInMillis()
    // @ts-expect-error a request id is no number
    const wrong: number = context.awsRequestId
    // @ts-expect-error Lambda's context has no such field
    context.awsRequestIdd
    // @ts-expect-error no such state
    if (context.circuits.stripe.state === 'AJAR') return
    // @ts-expect-error no such circuit
    context.circuits.paypal
    // @ts-expect-error paypal is not configured
    await context.callExternal('paypal', async () => 1)
    const status: number = await context.callExternal('stripe', async ({ signal }) => (signal.aborted ? 0 : 200))
    // @ts-expect-error the operation resolves with a number
    const text: string = await context.callExternal('stripe', async () => 200)
    return [id, left, wrong, status, text, lambda, undefined as Checks | undefined]
  })

export const map = middy()
  .use(circuitBreaker({ services: { stripe: { failureThreshold: 2 }, sms: {} }, storage }))
  .handler(async (_event, context) => {
    // @ts-expect-error paypal is not configured
    await context.callExternal('paypal', async () => 1)
    return [await context.callExternal('stripe', async () => 1), await context.callExternal('sms', async () => 1)]
  })

// @ts-expect-error a misspelt setting
circuitBreaker({ services: ['stripe'], storage, failureTreshold: 2 })
// @ts-expect-error a misspelt setting of one service
circuitBreaker({ services: { stripe: { failureTreshold: 2 } }, storage })

export async function declaredApart(_event: unknown, context: CircuitBreakerContext<'stripe'>): Promise<number> {
  // @ts-expect-error paypal is not configured
  await context.callExternal('paypal', async () => 1)
  return context.callExternal('stripe', async () => 1)
}
middy().use(circuitBreaker({ services: ['stripe'], storage })).handler(declaredApart)

const breaker = new CircuitBreaker({ services: ['stripe'], storage })
// @ts-expect-error paypal is not configured
breaker.call('paypal', async () => 1)
export const called: Promise<number> = breaker.call('stripe', async () => 1)
`

const subpaths = `
import { DynamoDBCircuitStorage } from 'middy-circuit-breaker/dynamodb'
import { RedisCircuitStorage, type RedisClientLike } from 'middy-circuit-breaker/redis'
import { type RetryDecision, untilRecovered } from 'middy-circuit-breaker/durable'
import { logCircuits, measureCircuits } from 'middy-circuit-breaker/powertools'
import { createTestContext, testCircuitStorage } from 'middy-circuit-breaker/testing'
import { Cluster, Redis } from 'ioredis'

const clients: RedisClientLike[] = [new Redis(), new Cluster([])]
export const stores = clients.map((client) => new RedisCircuitStorage({ client }))
export const decided: RetryDecision = untilRecovered({ maxAttempts: 2 })(new Error('503'), 1)
export const made = new RedisCircuitStorage({ url: 'redis://localhost', options: { connectTimeout: 500 } })
// @ts-expect-error a client is used as it is
export const both = new RedisCircuitStorage({ client: new Redis(), url: 'redis://localhost' })
export const used = [DynamoDBCircuitStorage, createTestContext, testCircuitStorage, logCircuits, measureCircuits]
`

/** Runs a program; what it wrote to standard error is an error of the step unless the step expects it. */
async function execute(file: string, args: readonly string[], cwd: string): Promise<string> {
  const { stdout, stderr } = await run(file, args, { cwd, env: cleanEnvironment() })
  if (stderr.trim() !== '') throw Object.assign(new Error('It wrote to standard error:'), { stderr })
  return stdout
}

/** Without what `npm run` tells its children about this repository, and without the machine's AWS and breaker settings. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const strange =
    /^(npm_(package|lifecycle)_|npm_config_(local_)?prefix$|AWS_|CIRCUIT_BREAKER_|NODE_OPTIONS$|INIT_CWD$)/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !strange.test(name)))
}

/** Installs into a new folder, from npm's cache where possible: the tarball and the named packages as this repository has them. */
async function install(folder: string, tarball: string, packages: readonly string[]): Promise<void> {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'commonjs' }))
  const specs = packages.map((name) => {
    const { version } = JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8'))
    return `${name}@${version}`
  })
  const options = [
    '--prefer-offline',
    '--no-package-lock',
    '--no-audit',
    '--no-fund',
    '--engine-strict',
    '--loglevel=error',
  ]
  await run('npm', ['install', '--prefix', folder, ...options, tarball, ...specs], {
    cwd: folder,
    env: cleanEnvironment(),
  })
}

function installed(folder: string): string[] {
  const modules = join(folder, 'node_modules')
  return readdirSync(modules).flatMap((name) =>
    name.startsWith('@')
      ? readdirSync(join(modules, name)).map((inner) => `${name}/${inner}`)
      : name.startsWith('.')
        ? []
        : name,
  )
}

/** Compiles one file of the folder; errors are those in the file itself and in this package's declarations. */
async function typeCheck(folder: string, file: string, skipLibCheck: boolean): Promise<string | undefined> {
  const config = {
    compilerOptions: {
      target: 'ES2023',
      lib: ['ES2023'],
      module: 'NodeNext',
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck,
      // As `tsc --init` has it: the type of a handler must have a name that can be written.
      declaration: true,
      noEmit: true,
      types: ['node'],
    },
    files: [file],
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { stdout } = await run(process.execPath, [compiler, '-p', folder, '--pretty', 'false'], { cwd: folder }).catch(
    (error: { stdout?: string }) => ({ stdout: error.stdout || String(error) }),
  )
  const problems = stdout.split('\n').filter((line) => /error/.test(line))
  const foreign = problems.filter((line) => /^node_modules\/(?!middy-circuit-breaker\/)/.test(line))
  if (problems.length > foreign.length) throw new Error(stdout)
  return foreign.length > 0 ? `none of ours; ${foreign.length} in the declarations of others` : undefined
}

const bare = join(workspace, 'bare')
const typed = join(workspace, 'typed')
let tarball = ''

async function pack(): Promise<string> {
  const { stdout } = await run('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', workspace], {
    cwd: root,
  })
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf('[\n'))) as {
    filename: string
    size: number
    files: { path: string }[]
  }[]
  if (!packed) throw new Error(`npm pack printed: ${stdout}`)
  tarball = join(workspace, packed.filename)
  const stray = packed.files.filter(
    ({ path }) => !/^(dist|src)\/|^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/.test(path),
  )
  if (stray.length > 0) throw new Error(`it holds ${stray.map(({ path }) => path).join(', ')}`)
  for (const wanted of ['README.md', 'LICENSE', 'CHANGELOG.md', 'dist/index.js', 'dist/index.d.ts', 'src/index.ts']) {
    if (!packed.files.some(({ path }) => path === wanted)) throw new Error(`${wanted} is not in it`)
  }
  return `${packed.files.length} files, ${Math.round(packed.size / 1024)} kB packed`
}

async function installBare(): Promise<string> {
  await install(bare, tarball, ['@middy/core'])
  const packages = installed(bare)
  const unwanted = packages.filter((name) => /^(ioredis|@aws-sdk\/|@smithy\/)/.test(name))
  if (unwanted.length > 0) throw new Error(`it brought ${unwanted.join(', ')}`)
  writeFileSync(join(bare, 'drive.cjs'), drive)
  writeFileSync(join(bare, 'handler.mjs'), handler)
  writeFileSync(
    join(bare, 'import.mjs'),
    "import { drive } from './drive.cjs'\nawait drive(await import('./handler.mjs'))\n",
  )
  writeFileSync(join(bare, 'require.cjs'), required)
  return packages.join(', ')
}

/** The block of the README that a newcomer copies. */
function protectedCall(): string {
  const [, block] = /^## A protected call$[\s\S]*?^```ts\n([\s\S]*?)^```$/m.exec(
    readFileSync(join(root, 'README.md'), 'utf8'),
  ) ?? [undefined, undefined]
  if (block === undefined) throw new Error('The README has no TypeScript under "A protected call".')
  return block
}

/** Bundles the handler as for Lambda; what esbuild warns about is reported, what it refuses fails the step. */
async function bundle(format: 'esm' | 'cjs', extension: 'mjs' | 'cjs'): Promise<string> {
  const outfile = join(workspace, 'bundled', `handler.${extension}`)
  const { warnings, metafile } = await build({
    absWorkingDir: bare,
    entryPoints: ['handler.mjs'],
    outfile,
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node22',
    format,
    metafile: true,
    logLevel: 'silent',
  })
  const directory = join(workspace, 'bundled')
  writeFileSync(join(directory, 'drive.cjs'), drive)
  const start = format === 'cjs' ? "drive(require('./handler.cjs'))" : "import('./handler.mjs').then(drive)"
  const end = '.catch((error) => { console.error(error); process.exitCode = 1 })'
  writeFileSync(join(directory, `run-${format}.cjs`), `const { drive } = require('./drive.cjs')\n${start}${end}\n`)
  const size = Object.values(metafile.outputs).reduce((sum, { bytes }) => sum + bytes, 0)
  return `${Math.round(size / 1024)} kB minified, ${warnings.length} warnings${warnings.map(({ text }) => `\n      ${text}`).join('')}`
}

async function expectRefusals(count: number, node: string, args: readonly string[], cwd: string): Promise<undefined> {
  const output = await execute(node, args, cwd)
  if (output !== 'refused\n'.repeat(count)) throw new Error(`It printed ${JSON.stringify(output)}`)
}

async function main(): Promise<void> {
  if (!(await step('npm pack', pack))) return
  if (!(await step('installs beside @middy/core alone', installBare))) return

  for (const { label, path } of nodes) {
    // Node 22.12 warns that require() of ES modules is experimental; 22.13 no longer does for installed packages.
    const quiet = '--disable-warning=ExperimentalWarning'
    await step(`${label}: import`, () => expectRefusals(1, path, ['import.mjs'], bare))
    await step(`${label}: require`, () => expectRefusals(2, path, [quiet, 'require.cjs'], bare))
  }

  await step('the README’s protected call, copied', async () => {
    const { code } = await transform(protectedCall(), { loader: 'ts', format: 'esm' })
    writeFileSync(join(bare, 'readme.mjs'), code)
    writeFileSync(join(bare, 'newcomer.mjs'), newcomer)
    for (const { path } of nodes) await expectRefusals(1, path, ['newcomer.mjs'], bare)
    return undefined
  })

  for (const [format, extension] of [
    ['esm', 'mjs'],
    ['cjs', 'cjs'],
  ] as const) {
    if (!(await step(`esbuild to ${format}`, () => bundle(format, extension)))) continue
    for (const { label, path } of nodes) {
      const args = [asOnLambda, `run-${format}.cjs`]
      await step(`${label}: bundled to ${format}`, () => expectRefusals(1, path, args, join(workspace, 'bundled')))
    }
  }

  await step('types, without the optional peers', async () => {
    await install(typed, tarball, ['@middy/core', '@types/node'])
    if (existsSync(join(typed, 'node_modules', '@aws-sdk'))) throw new Error('the AWS SDK is there')
    writeFileSync(join(typed, 'readme.mts'), protectedCall())
    writeFileSync(join(typed, 'consumer.mts'), `${consumer}export * from './readme.mjs'\n`)
    return typeCheck(typed, 'consumer.mts', true)
  })
  await step('types, with the optional peers, declarations checked too', async () => {
    const peers = ['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb', 'ioredis']
    await install(typed, tarball, ['@middy/core', '@types/node', ...peers])
    writeFileSync(join(typed, 'consumer.mts'), consumer)
    writeFileSync(join(typed, 'subpaths.mts'), `${subpaths}export * from './consumer.mjs'\n`)
    return typeCheck(typed, 'subpaths.mts', false)
  })
}

await main()
if (process.argv.includes('--keep')) console.log(`kept ${workspace}`)
else rmSync(workspace, { recursive: true, force: true })
console.log(
  failedSteps() === 0
    ? 'The package works as installed.'
    : `The package does not work as installed: ${failedSteps()} steps failed.`,
)
process.exitCode = failedSteps() === 0 ? 0 : 1
