/**
 * Which client library a handler loads, and when: the package, compiled from the sources, is put beside different sets
 * of installed clients, and handlers run in processes that record what they load.
 */

import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { marshall } from '@aws-sdk/util-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { build, type Format } from 'esbuild'
import { bundlePackage } from '../../scripts/build.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { patientVariables } from '../support/patience.ts'

const execute = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')

const redis = ['ioredis'] as const
const dynamodb = ['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb'] as const
/** Folders with a handler, by what is installed beside Middy and the package. */
const apps = { all: [...redis, ...dynamodb], redis, dynamodb, half: [dynamodb[0]], none: [] } as const
type App = keyof typeof apps
type Kind = 'memory' | 'redis' | 'dynamodb'

/** The one handler file; nothing in it names a backend. */
const handler = `
import middy from '@middy/core'
import { circuitBreaker } from 'middy-circuit-breaker'

export const storageErrors = []
export const handler = middy()
  .use(circuitBreaker({ services: ['stripe'], onStorageError: ({ error }) => storageErrors.push(error) }))
  .handler(async (event, { callExternal, circuits }) => {
    const { state } = circuits.stripe
    const answer = await callExternal('stripe', async () => 'charged', { fallback: () => 'queued' })
    return state + ' ' + answer
  })
`

/** Notes the packages that anything asks for, Node's modules that ours ask for, and what Node opens. */
const recorder = `
import { createHook } from 'node:async_hooks'
import { isBuiltin, registerHooks } from 'node:module'
import { Socket } from 'node:net'

const [packages, builtins, opened] = [new Set(), new Set(), new Set()]
registerHooks({
  resolve(specifier, context, next) {
    if (isBuiltin(specifier)) {
      if (context.parentURL?.includes('middy-circuit-breaker/')) builtins.add(specifier)
    } else {
      const name = /^(@[^/]+\\/)?[^./:@][^/:]*(?=\\/|$)/.exec(specifier)?.[0]
      if (name) packages.add(name)
    }
    return next(specifier, context)
  },
})
// Node opens these when they are looked at.
const standard = [process.stdout, process.stderr]
createHook({ init: (id, type) => void opened.add(type) }).enable()

// The clients' timeouts, which no variable changes, are no subject here: no stall of the machine reaches them.
const patient = (delay) => (delay < 500 ? delay : 60 * delay)
const { setTimeout } = globalThis
globalThis.setTimeout = (callback, delay, ...values) => setTimeout(callback, patient(delay), ...values)
const { setTimeout: setSilence } = Socket.prototype
Socket.prototype.setTimeout = function (silence, callback) {
  return setSilence.call(this, patient(silence), callback)
}

globalThis.recorded = () => ({
  packages: [...packages].sort(),
  builtins: [...builtins].sort(),
  opened: [...opened].filter((type) => /TCP|UDP|TLS|PIPE|ADDRINFO|NAMEINFO|QUERY|HTTP|PROCESS|Timeout/.test(type)),
})
`

/** Imports the handler, calls it twice, and tells what was recorded after each step. */
const driver = `
import { pathToFileURL } from 'node:url'

const chain = (error) => error && [{ name: error.name, code: error.code, message: error.message }, ...(chain(error.cause) ?? [])]
const { handler, storageErrors } = await import(pathToFileURL(process.argv[2]))
const created = recorded()
const invoke = () => handler({}, { awsRequestId: '1', functionName: 'f', getRemainingTimeInMillis: () => 900_000 })
const results = [await invoke(), await invoke()]
console.log(JSON.stringify({ created, results, used: recorded(), errors: storageErrors.map(chain) }))
process.exit()
`

interface Recorded {
  readonly packages: readonly string[]
  readonly builtins: readonly string[]
  readonly opened: readonly string[]
}

interface Run {
  readonly created: Recorded
  readonly results: readonly string[]
  readonly used: Recorded
  readonly errors: readonly { readonly name: string; readonly code?: string; readonly message: string }[][]
}

/** What the handler answers when it learns from the store that the circuit is open, and when it learns nothing. */
const informed = ['OPEN queued', 'OPEN queued']
const alone = ['CLOSED charged', 'CLOSED charged']

/** It has opened just now, however long the tests have been running. */
function openRecord() {
  const now = Date.now()
  const reset = { openedAt: now, retryAt: now + 120_000, resetTimeout: 120_000 }
  return { ...emptyRecord('epoch', now), version: 'v1', state: 'OPEN', failureCount: 3, ...reset } as const
}

let workspace = ''
let environment: NodeJS.ProcessEnv = {}
const servers: Server[] = []

beforeAll(async () => {
  workspace = await mkdtemp(join(tmpdir(), 'circuit-clients-'))
  const [redisPort, dynamodbPort] = [await listen(redisServer()), await listen(dynamodbServer())]
  environment = {
    PATH: process.env['PATH'],
    HOME: workspace,
    AWS_LAMBDA_FUNCTION_NAME: 'checkout',
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${dynamodbPort}`,
    CIRCUIT_BREAKER_TABLE_NAME: 'circuits',
    CIRCUIT_BREAKER_REDIS_URL: `redis://127.0.0.1:${redisPort}`,
    ...patientVariables,
  }
  await writeFile(join(workspace, 'record.mjs'), recorder)
  await writeFile(join(workspace, 'drive.mjs'), driver)
  const compiled = join(workspace, 'dist')
  await bundlePackage(compiled)
  await Promise.all(Object.entries(apps).map(([app, clients]) => install(join(workspace, app), compiled, clients)))
})

afterAll(async () => {
  for (const server of servers) server.close()
  await rm(workspace, { recursive: true, force: true })
})

async function install(app: string, compiled: string, clients: readonly string[]): Promise<void> {
  const own = join(app, 'node_modules', 'middy-circuit-breaker')
  await mkdir(own, { recursive: true })
  await cp(compiled, join(own, 'dist'), { recursive: true })
  await cp(join(root, 'package.json'), join(own, 'package.json'))
  for (const name of ['@middy/core', ...clients]) {
    const link = join(app, 'node_modules', name)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(root, 'node_modules', name), link, 'junction')
  }
  await writeFile(join(app, 'handler.mjs'), handler)
}

/** Listens on a free port; the tests end without waiting for the connections to it. */
async function listen(server: Server): Promise<number> {
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** Knows that the circuit is open, and of commands no more than it needs for that. */
function redisServer(): Server {
  const hash = (): string => {
    const fields = Object.entries(openRecord()).filter(([, value]) => value !== undefined)
    const bulks = fields.flatMap(([name, value]) => [
      name,
      typeof value === 'object' ? JSON.stringify(value) : `${value}`,
    ])
    return `*${bulks.length}\r\n${bulks.map((bulk) => `$${Buffer.byteLength(bulk)}\r\n${bulk}\r\n`).join('')}`
  }
  return createServer((socket) => {
    let received = ''
    socket.on('error', () => {})
    socket.setEncoding('latin1').on('data', (chunk) => {
      received += chunk
      for (;;) {
        const [command, words = ''] = /^\*\d+\r\n((?:\$\d+\r\n[^\r]*\r\n)+?)(?=\*|$)/.exec(received) ?? []
        if (command === undefined) return
        received = received.slice(command.length)
        socket.write(/^\$7\r\nhgetall\r\n\$14\r\ncircuit:stripe\r\n$/i.test(words) ? hash() : '+OK\r\n')
      }
    })
  })
}

function dynamodbServer(): Server {
  return createHttpServer((request, response) => {
    request.resume().on('end', () => {
      const item = marshall({ PK: 'CIRCUIT#stripe', SK: 'STATE', ...openRecord() }, { removeUndefinedValues: true })
      const isBatch = String(request.headers['x-amz-target']).endsWith('.BatchGetItem')
      response.setHeader('content-type', 'application/x-amz-json-1.0')
      response.end(JSON.stringify(isBatch ? { Responses: { circuits: [item] } } : { Item: item }))
    })
  })
}

let running = 0
const waiting: (() => void)[] = []

/** Runs a file in a process of its own, not more of them at once than the machine has processors for. */
async function node(args: readonly string[], env: NodeJS.ProcessEnv): Promise<string> {
  if (running >= Math.max(2, availableParallelism())) await new Promise<void>((resolve) => waiting.push(resolve))
  running++
  try {
    const recording = ['--import', './record.mjs']
    const { stdout, stderr } = await execute(process.execPath, [...recording, ...args], { cwd: workspace, env })
    if (stderr !== '') throw new Error(`It wrote to standard error: ${stderr}`)
    return stdout
  } finally {
    running--
    waiting.shift()?.()
  }
}

/** Runs a handler; only what is given in `env`, next to the kind, differs from run to run. */
async function run(file: string, kind: Kind, env: NodeJS.ProcessEnv = {}, flags: readonly string[] = []): Promise<Run> {
  const output = await node([...flags, 'drive.mjs', file], { ...environment, ...env, CIRCUIT_BREAKER_STORAGE: kind })
  return JSON.parse(output) as Run
}

const installed = (app: App): string => join(app, 'handler.mjs')

/** Of the packages, those that come with a client library. */
function clientsIn({ packages }: Recorded): string[] {
  return packages.filter((name) => !name.startsWith('@middy/') && name !== 'middy-circuit-breaker')
}

/** Every failure that was reported is about the missing package, and neither invocation has suffered. */
function expectMissing({ results, errors }: Run, name: string): void {
  expect(results).toEqual(alone)
  expect(errors.length).toBeGreaterThan(0)
  for (const [error, cause] of errors) {
    expect(error).toMatchObject({ name: 'CircuitStorageError', code: 'CIRCUIT_STORAGE' })
    expect(error?.message).toMatch(new RegExp(`could not load ${name}\\. Install it \\(npm install ${name}\\)`))
    expect(cause).toMatchObject({ code: 'ERR_MODULE_NOT_FOUND', message: expect.stringContaining(`'${name}'`) })
  }
}

describe('an installed handler', () => {
  const kinds = ['memory', 'redis', 'dynamodb'] as const

  it('opens no connection until it is called', async () => {
    for (const { created } of await Promise.all(kinds.map((kind) => run(installed('all'), kind)))) {
      expect(created.opened.filter((type) => type !== 'Timeout')).toEqual([])
    }
  })

  it('loads no client library and opens nothing until it is called where preload is false', async () => {
    const env = { CIRCUIT_BREAKER_PRELOAD: 'false' }
    for (const { created } of await Promise.all(kinds.map((kind) => run(installed('all'), kind, env)))) {
      expect(created.packages).toContain('middy-circuit-breaker')
      expect(clientsIn(created)).toEqual([])
      expect(created.builtins).toEqual(['node:async_hooks', 'node:crypto', 'node:diagnostics_channel'])
      expect(created.opened).toEqual([])
    }
  })

  it('changes its store by one variable', async () => {
    const [inMemory, inRedis, inDynamoDB] = await Promise.all(kinds.map((kind) => run(installed('all'), kind)))

    expect(inMemory).toMatchObject({ results: alone, errors: [] })
    expect(inRedis).toMatchObject({ results: informed, errors: [] })
    expect(inDynamoDB).toMatchObject({ results: informed, errors: [] })
  })

  it('loads the library of the chosen store and no other', async () => {
    const closed = { CIRCUIT_BREAKER_REDIS_URL: 'redis://127.0.0.1:1', AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:1' }
    for (const env of [{}, closed]) {
      const [inMemory, inRedis, inDynamoDB] = (await Promise.all(
        kinds.map((kind) => run(installed('all'), kind, env)),
      )) as [Run, Run, Run]

      expect(clientsIn(inMemory.used)).toEqual([])
      expect(inMemory.used.opened).not.toContainEqual(expect.stringContaining('TCP'))
      expect(clientsIn(inRedis.used)).toContain('ioredis')
      expect(clientsIn(inRedis.used).filter((name) => /^@(aws-sdk|aws-crypto|smithy)\//.test(name))).toEqual([])
      expect(clientsIn(inDynamoDB.used)).toEqual(expect.arrayContaining([...dynamodb]))
      expect(clientsIn(inDynamoDB.used).filter((name) => /redis/.test(name))).toEqual([])
      for (const { used } of [inRedis, inDynamoDB]) expect(used.opened).toContain('TCPCONNECTWRAP')
      if (env !== closed) continue
      for (const { results, errors } of [inRedis, inDynamoDB]) {
        expect(results).toEqual(alone)
        expect(JSON.stringify(errors[0])).toContain('ECONNREFUSED')
      }
    }
  })

  it('is told which package is missing, and goes on without it', async () => {
    const [withoutRedis, withoutSdk, withoutUtil, inMemory] = await Promise.all([
      run(installed('dynamodb'), 'redis'),
      run(installed('redis'), 'dynamodb'),
      run(installed('half'), 'dynamodb'),
      run(installed('none'), 'memory'),
    ])

    expectMissing(withoutRedis, 'ioredis')
    expectMissing(withoutSdk, '@aws-sdk/client-dynamodb')
    expectMissing(withoutUtil, '@aws-sdk/util-dynamodb')
    expect(inMemory).toMatchObject({ results: alone, errors: [] })
  })
})

describe('the adapters', () => {
  it('can be imported, made and used with a client of one’s own without ioredis', async () => {
    await writeFile(
      join(workspace, 'none', 'adapters.mjs'),
      `
        import { RedisCircuitStorage } from 'middy-circuit-breaker/redis'
        import { DynamoDBCircuitStorage } from 'middy-circuit-breaker/dynamodb'
        import 'middy-circuit-breaker/testing'

        new DynamoDBCircuitStorage({ tableName: 'circuits' })
        new RedisCircuitStorage({ url: 'redis://localhost' })
        const { packages, opened } = recorded()
        const storage = new RedisCircuitStorage({ client: { call: async () => [] } })
        const found = await storage.batchGetState(['stripe', 'paypal'])
        console.log(JSON.stringify({ packages, opened, found: found.size, after: recorded().packages }))
      `,
    )
    const packages = ['middy-circuit-breaker']
    const output = await node([join('none', 'adapters.mjs')], environment)

    expect(JSON.parse(output)).toEqual({ packages, opened: [], found: 0, after: packages })
  })
})

describe.each<[format: Format, extension: string]>([
  ['esm', 'mjs'],
  ['cjs', 'cjs'],
])('a handler that is bundled to %s', (format, extension) => {
  /** Libraries in CommonJS need a `require`, which a bundle in ESM does not have by itself. */
  const requireForEsm = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);"
  /** Lambda's nodejs22.x switches `require()` of ES modules off. */
  const asOnLambda = ['--no-experimental-require-module']

  interface Bundle {
    readonly contains: string[]
    readonly warnings: string[]
    readonly run: (kind: Kind) => Promise<Run>
  }

  /** Bundles the handler with what one app has installed, and runs it beside what another one has. */
  async function bundle(from: App, to: App, external: string[] = [], banner = requireForEsm): Promise<Bundle> {
    const file = join(to, `from-${from}-${external.length}-${banner.length}.${extension}`)
    const { warnings, metafile } = await build({
      absWorkingDir: join(workspace, from),
      entryPoints: ['handler.mjs'],
      outfile: join(workspace, file),
      bundle: true,
      minify: true,
      platform: 'node',
      target: 'node22',
      format,
      external,
      metafile: true,
      logLevel: 'silent',
      ...(format === 'esm' && { banner: { js: banner } }),
    })
    const outputs = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs))
    const contains = [...redis, ...dynamodb].filter((name) => outputs.some((input) => input.includes(`/${name}/`)))
    return {
      contains,
      warnings: warnings.map(({ text }) => text),
      run: (kind) => run(file, kind, {}, asOnLambda),
    }
  }

  it('runs with the clients in the bundle', async () => {
    const { contains, warnings, run } = await bundle('all', 'none')
    const [inMemory, inRedis, inDynamoDB] = await Promise.all([run('memory'), run('redis'), run('dynamodb')])

    expect([contains, warnings]).toEqual([[...redis, ...dynamodb], []])
    expect(inMemory).toMatchObject({ results: alone, errors: [] })
    expect(inRedis).toMatchObject({ results: informed, errors: [] })
    expect(inDynamoDB).toMatchObject({ results: informed, errors: [] })
    for (const { used } of [inMemory, inRedis, inDynamoDB]) expect(clientsIn(used)).toEqual([])
  })

  it('runs with the clients installed beside the bundle, and loads the chosen one only', async () => {
    const { contains, warnings, run } = await bundle('none', 'all', [...redis, '@aws-sdk/*'])
    const [inMemory, inRedis, inDynamoDB] = await Promise.all([run('memory'), run('redis'), run('dynamodb')])

    expect([contains, warnings]).toEqual([[], []])
    expect(inMemory).toMatchObject({ results: alone, errors: [] })
    expect(clientsIn(inMemory.used)).toEqual([])
    expect(inRedis).toMatchObject({ results: informed, errors: [] })
    expect(clientsIn(inRedis.used).filter((name) => /^@/.test(name) && !/^@ioredis\//.test(name))).toEqual([])
    expect(inDynamoDB).toMatchObject({ results: informed, errors: [] })
    expect(clientsIn(inDynamoDB.used)).not.toContainEqual(expect.stringContaining('redis'))
  })

  it.each<[Kind & App, contained: readonly string[], other: Kind, missing: string]>([
    ['redis', redis, 'dynamodb', dynamodb[0]],
    ['dynamodb', dynamodb, 'redis', redis[0]],
  ])('needs for %s no other client, neither to be bundled nor to run', async (kind, contained, other, missing) => {
    const { contains, warnings, run } = await bundle(kind, 'none')
    const [chosen, wrong] = await Promise.all([run(kind), run(other)])

    expect([contains, warnings]).toEqual([contained, []])
    expect(chosen).toMatchObject({ results: informed, errors: [] })
    expectMissing(wrong, missing)
  })

  it('tells which package is missing where there is none, and goes on', async () => {
    const bundles = await Promise.all([bundle('none', 'none'), bundle('all', 'none', [...redis, '@aws-sdk/*'])])
    for (const { contains, run } of bundles) {
      const [inMemory, inRedis, inDynamoDB] = await Promise.all([run('memory'), run('redis'), run('dynamodb')])

      expect(contains).toEqual([])
      expect(inMemory).toMatchObject({ results: alone, errors: [] })
      expectMissing(inRedis, 'ioredis')
      expectMissing(inDynamoDB, '@aws-sdk/client-dynamodb')
    }
  })

  if (format === 'esm') {
    it.each([
      ['redis', 'ioredis'],
      ['dynamodb', '@aws-sdk/client-dynamodb'],
    ] as const)(
      'tells why the client for %s in it cannot be loaded without a require, and goes on',
      async (kind, name) => {
        const { run } = await bundle('all', 'none', [], '')
        const { results, errors } = await run(kind)

        expect(results).toEqual(alone)
        const [error, cause] = errors[0] ?? []
        expect(cause?.message).toMatch(/^Dynamic require of "[\w:]+" is not supported$/)
        expect(error?.message).toContain(`could not load ${name}: ${cause?.message}.`)
        // The remedy, to be copied.
        expect(error?.message).toContain(requireForEsm)
        expect(error?.message).not.toContain('npm install')
      },
    )
  }
})
