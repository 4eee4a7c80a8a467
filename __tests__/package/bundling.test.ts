/**
 * Each build of `docs/use/bundling.md`: what is in it, and that it runs where nothing else is than what Lambda has.
 *
 * @module
 */

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { cellsOf, measureBundles, writtenSizes } from '../../scripts/bundle-sizes.ts'
import { node22 } from '../../scripts/node22.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedisUrl, patientVariables } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { patience, waitFor } from '../support/time.ts'
import { type Build, type Change, createProject, dependenciesOf, link, type Project, page } from './bundlers.ts'
import { codeBlocks, root } from './code-blocks.ts'

/** The rows of the first table of the page. */
const rows = [...readFileSync(join(root, page), 'utf8').matchAll(/^\| \[(.+)\]\(#(.+)\) \| (.+) \| (.+) \|$/gm)].map(
  ([, build = '', anchor = '', inside = '', outside = '']) => ({
    build,
    anchor,
    inside: inside.split(', '),
    outside: outside.split(', '),
  }),
)

/** What a row means by a name without quotes: packages of which nobody writes all names down. */
const closures: Readonly<Record<string, () => ReadonlySet<string>>> = {
  nothing: () => new Set(),
  'the AWS SDK': () => dependenciesOf('@aws-sdk/util-dynamodb', dependenciesOf('@aws-sdk/client-dynamodb')),
  // `debug` takes these two in where they are installed.
  ioredis: () => dependenciesOf('ioredis', new Set(['supports-color', 'has-flag'])),
}

/** Lambda runs nodejs22.x with these: https://docs.aws.amazon.com/lambda/latest/dg/lambda-nodejs.html */
const asOnNode22 = ['--no-experimental-require-module', '--no-experimental-detect-module']
const nodes: Readonly<Record<string, () => string>> = { '22.12': node22, '24': () => process.execPath }

let project: Project
let work: string
let dynamodb: DynamoDBServer
let redis: RedisServer

beforeAll(async () => {
  ;[dynamodb, redis, project] = await Promise.all([startDynamoDBLocal(), startRedis(), createProject()])
  work = await mkdtemp(join(tmpdir(), 'deployed-'))
})
afterAll(async () => {
  await project?.[Symbol.asyncDispose]()
  if (work) await rm(work, { recursive: true })
  await Promise.all([dynamodb?.stop(), redis?.stop()])
})

/** Each build is made once, one after the other. */
const made = new Map<string, Promise<Build>>()
let last: Promise<unknown> = Promise.resolve()
function built(name: string, change?: Change): Promise<Build> {
  const key = `${name} ${change}`
  const building = made.get(key) ?? last.then(() => project.build(name, change))
  made.set(key, building)
  last = building.catch(() => {})
  return building
}

describe.each(rows)('the build $build', ({ build, inside, outside }) => {
  it('holds the packages that the page names, and no others', async () => {
    const { packages } = await built(build)

    const named = inside.filter((name) => name.startsWith('`')).map(unquoted)
    const others = inside.filter((name) => !name.startsWith('`')).map((name) => (closures[name] as () => Set<string>)())
    const isNamed = (name: string) => named.includes(name) || others.some((closure) => closure.has(name))
    expect(packages.filter((name) => !isNamed(name))).toEqual([])
    expect(packages).toEqual(expect.arrayContaining(named))
    for (const closure of others) if (closure.size > 0) expect(packages.some((name) => closure.has(name))).toBe(true)
  })

  it('leaves outside what the page names, and nothing else', async () => {
    const { imports } = await built(build)

    const patterns = outside.map((name) => new RegExp(`^${unquoted(name).replace('*', '.*')}$`))
    const packages = imports.filter((name) => !isBuiltin(name))
    expect(packages.filter((name) => !patterns.some((pattern) => pattern.test(name)))).toEqual([])
    // An unbundled handler imports the SDK by way of the layer.
    const expected = patterns.filter((pattern) => packages.length > 2 || !pattern.test('@aws-sdk/client-dynamodb'))
    expect(expected.filter((pattern) => !packages.some((name) => pattern.test(name)))).toEqual([])
  })

  it.each(Object.keys(nodes))('runs on Node %s, and opens the circuit in the store', async (version) => {
    const { folder, file } = await built(build)
    const place = await deploy(folder, outside.map(unquoted))

    const { outcomes, errors } = await invoke(
      file.replace(folder, place.task),
      place,
      version,
      inside.includes('ioredis'),
    )

    expect(errors).toBe('')
    expect(outcomes).toEqual(['unavailable', 'unavailable', 'unavailable', 'CIRCUIT_OPEN'])
  })
})

describe('the page', () => {
  it('has a row for each build that it shows, and shows each build of the table', () => {
    const shown = codeBlocks(page).flatMap(({ heading, language }) =>
      ['sh', 'yaml', 'ts'].includes(language) && heading !== 'Bundling and deploying' ? [heading] : [],
    )
    expect(rows.map(({ build }) => build)).toEqual(shown)
    expect(rows.length).toBeGreaterThan(10)
  })

  it('tells sizes that are not out of date', async () => {
    const measured = (await measureBundles()).map(cellsOf)
    const written = await writtenSizes()

    expect(written.map(([what]) => what)).toEqual(measured.map(([what]) => what))
    for (const [index, cells] of measured.entries()) {
      for (const [column, cell] of cells.entries()) {
        const told = written[index]?.[column] ?? ''
        if (column === 0 || cell === '–') expect(told).toBe(cell)
        // Written anew when it has changed by a twentieth: `npm run page -- bundling`.
        else expect(Math.abs(Number.parseFloat(told) / Number.parseFloat(cell) - 1)).toBeLessThan(0.05)
      }
    }
  })

  it('says what a bundle imports at its start when its state is in memory', async () => {
    const { folder } = await built('esbuild, in several files')
    const files = [join(folder, 'handler.mjs')]
    const found = new Set<string>()
    for (const file of files) {
      for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(/(?:\bfrom|\bimport)\s*"([^"]+)"/g)) {
        if (isBuiltin(name)) found.add(name)
        else if (!files.includes(join(folder, name))) files.push(join(folder, name))
      }
    }
    const [, section = ''] = readFileSync(join(root, page), 'utf8').split('## LLRT\n')
    expect([...section.matchAll(/`(node:[\w/]+)`/g)].map(([, name]) => name)).toEqual([...found].sort())
  })
})

describe('the settings that the page warns of', () => {
  it('keep the AWS SDK from being loaded: an ES module that holds its CommonJS files', async () => {
    const { folder, file } = await built('esbuild, with the AWS SDK', (command) =>
      command.replace('--main-fields=module,main', ''),
    )

    const { errors } = await invoke(file, { task: folder, paths: [] }, '24', false)

    expect(errors).toMatch(/could not load @aws-sdk\/client-dynamodb: Dynamic require of "node:https" is not supported/)
  })

  it('keep ioredis from being loaded: an ES module without the line that makes require', async () => {
    const { folder, file } = await built('esbuild, with ioredis', (command) =>
      command.replace(/ \\\n *--banner.*$/m, ''),
    )

    const { errors } = await invoke(file, { task: folder, paths: [] }, '24', true)

    expect(errors).toMatch(/could not load ioredis: Dynamic require of "events" is not supported/)
  })

  it('do not build: CommonJS that waits', async () => {
    const waiting = built('esbuild, to CommonJS', (command) => command.replace('commonjs/handler.ts', 'handler.ts'))

    await expect(waiting).rejects.toThrow('Top-level await is currently not supported')
  })
})

describe('a client library that is not installed', () => {
  it('is left out without external', async () => {
    await using bare = await createProject(['ioredis'])
    const without = (code: string) => code.replace(/ --external:ioredis|, 'ioredis'/, '')
    const builds = [await bare.build('esbuild', without), await bare.build('rolldown', without)]
    const { warnings, ...webpack } = await bare.build('webpack', without)

    for (const { packages, imports } of [...builds, webpack]) {
      expect({ packages, imports }).toMatchObject({ packages: ['@middy/core', 'middy-circuit-breaker'] })
    }
    expect(builds.map((build) => build.warnings)).toEqual([[], []])
    expect(warnings).toEqual([expect.stringContaining("Can't resolve 'ioredis'")])
  })
})

describe('on a Node that is too old', () => {
  const preload = (code: string) => ['--import', `data:text/javascript,${encodeURIComponent(code)}`]
  const isOld = preload(
    "delete Promise.withResolvers; Object.defineProperty(process, 'version', { value: 'v20.20.2' })",
  )
  const message =
    'Error: middy-circuit-breaker needs Node.js 22.12 or later, but runs on v20.20.2. Update it; in Lambda, choose nodejs22.x or nodejs24.x.'
  const entries = Object.keys(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).exports)
    .filter((entry) => entry !== './package.json')
    .map((entry) => entry.replace('.', 'middy-circuit-breaker'))

  it.each(entries)('an import of %s says so', async (entry) => {
    await link('@opentelemetry/api', join(project.folder, 'node_modules')).catch(() => {})
    const { output, errors } = await runNode([...isOld, '--input-type=module', '--eval', `import '${entry}'`])
    expect({ output, errors }).toEqual({ output: '', errors: expect.stringContaining(message) })
  })

  it('require says so', async () => {
    const { errors } = await runNode([...isOld, '--eval', "require('middy-circuit-breaker')"])
    expect(errors).toContain(message)
  })

  it.each(rows.map(({ build }) => build).filter((build) => build !== 'A layer'))(
    'so does the build %s',
    async (build) => {
      const { file } = await built(build)
      const { errors } = await runNode([...isOld, file])
      expect(errors).toContain(message)
    },
  )

  it('says so before anything else of the package runs', () => {
    const dist = join(project.installed, 'dist')
    const [, shared = ''] = /from"\.\/(shared-\w+\.js)"/.exec(readFileSync(join(dist, 'index.js'), 'utf8')) ?? []
    expect(readFileSync(join(dist, shared), 'utf8')).toMatch(/^if\(typeof Promise\.withResolvers/)
  })

  it.each([
    "Object.defineProperty(process, 'versions', { value: { node: '0.0.0' } })",
    "Object.defineProperty(process, 'version', { value: 'v18.0.0' })",
    'delete globalThis.process',
  ])('says nothing to a runtime that has what it needs: %s', async (code) => {
    const program = "import 'middy-circuit-breaker'; console.log('imported')"
    const { output, errors } = await runNode([...preload(code), '--input-type=module', '--eval', program])
    expect({ output, errors }).toEqual({ output: 'imported\n', errors: '' })
  })
})

describe('a CommonJS project', () => {
  const requires = (name: string) => `require('${name}'); console.log('loaded')`

  it.each([
    { name: 'middy-circuit-breaker', options: [], outcome: 'loaded' },
    { name: 'middy-circuit-breaker', options: asOnNode22, outcome: 'ERR_REQUIRE_ESM' },
    { name: '@middy/core', options: [], outcome: 'ERR_PACKAGE_PATH_NOT_EXPORTED' },
    { name: '@middy/core', options: asOnNode22, outcome: 'ERR_PACKAGE_PATH_NOT_EXPORTED' },
  ])('requires $name with the options $options: $outcome', async ({ name, options, outcome }) => {
    await writeFile(join(project.folder, 'requires.cjs'), requires(name))
    const { output, errors } = await runNode([...options, 'requires.cjs'])
    expect(output + errors).toContain(outcome)
  })

  it('imports both', async () => {
    const program =
      "Promise.all([import('middy-circuit-breaker'), import('@middy/core')]).then(() => console.log('loaded'))"
    await writeFile(join(project.folder, 'imports.cjs'), program)
    expect(await runNode([...asOnNode22, 'imports.cjs'])).toEqual({ output: 'loaded\n', errors: '' })
  })
})

/** Where a function runs. */
interface Place {
  readonly task: string
  /** The folders of packages that Lambda looks into besides those above the function. */
  readonly paths: readonly string[]
}

/** Puts a build where nothing else is than what a runtime and a layer have, as far as it leaves these packages outside. */
async function deploy(folder: string, outside: readonly string[]): Promise<Place> {
  const place = await mkdtemp(join(work, 'function-'))
  const [task, runtime, layer] = [join(place, 'task'), join(place, 'runtime'), join(place, 'opt', 'nodejs')]
  await cp(folder, task, { recursive: true })
  const modules = join(layer, 'node_modules')
  if (outside.includes('@aws-sdk/*')) await link('@aws-sdk', join(runtime, 'node_modules'))
  if (outside.includes('@middy/core')) await link('@middy/core', modules)
  if (outside.includes('middy-circuit-breaker')) {
    await cp(project.installed, join(modules, 'middy-circuit-breaker'), { recursive: true })
  }
  return { task, paths: [layer, runtime] }
}

/**
 * Imports a handler as Lambda does and invokes it four times; resolves when the circuit is open in the store, or when
 * something was written to standard error.
 */
async function invoke(file: string, { task, paths }: Place, version: string, inRedis: boolean) {
  const tableName = await dynamodb.createTable()
  const variables = inRedis
    ? { CIRCUIT_BREAKER_REDIS_URL: patientRedisUrl(redis.url), CIRCUIT_BREAKER_NAMESPACE: tableName }
    : { CIRCUIT_BREAKER_TABLE_NAME: tableName, ...dynamodb.variables }
  const node = (nodes[version] as () => string)()
  const options = [...asOnNode22, '--input-type=module', '--eval', invoker(paths), '--', file]
  const child = spawn(node, options, { cwd: task, env: { ...variables, ...patientVariables } })
  const ended = once(child, 'close')
  let [output, errors] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  const client = dynamodb.client(patientDynamoDB)
  await using store = inRedis
    ? disposable(new RedisCircuitStorage({ url: patientRedisUrl(redis.url) }), `${tableName}#stripe`)
    : disposable(new DynamoDBCircuitStorage({ client, tableName }), 'stripe')
  try {
    const isOver = (state: unknown) => errors !== '' || (state === 'OPEN' && output.endsWith('\n'))
    await waitFor('the circuit is open in the store', store.state, isOver)
  } finally {
    child.kill()
    await ended
  }
  return { outcomes: JSON.parse(output || '[]') as string[], errors }
}

/** Looks for packages in further folders, as Lambda's own runtimes do from nodejs18.x on. */
function invoker(paths: readonly string[]): string {
  const resolver = `
export async function resolve(specifier, context, next) {
  const parents = ${JSON.stringify(paths.map((path) => pathToFileURL(join(path, 'index.js'))))}
  for (const parentURL of [context.parentURL, ...parents]) {
    try {
      return await next(specifier, { ...context, parentURL })
    } catch (error) {
      if (error.code !== 'ERR_MODULE_NOT_FOUND' || parentURL === parents.at(-1) || parents.length === 0) throw error
    }
  }
}`
  return `
import { register } from 'node:module'
register('data:text/javascript,' + encodeURIComponent(${JSON.stringify(resolver)}))
const loaded = await import(process.argv[1])
const { handler } = loaded.handler === undefined ? loaded.default : loaded
const outcomes = []
for (let call = 0; call < 4; call++) {
  const context = { awsRequestId: String(call), getRemainingTimeInMillis: () => ${10 * patience} }
  outcomes.push(await handler({}, context).then(() => 'succeeded', ({ code, message }) => code ?? message))
}
console.log(JSON.stringify(outcomes))
setInterval(() => {}, ${patience})`
}

function disposable(storage: DynamoDBCircuitStorage | RedisCircuitStorage, key: string) {
  return {
    state: async () => (await storage.getState(key))?.state,
    [Symbol.asyncDispose]: async () => storage.close(),
  }
}

async function runNode(args: readonly string[]): Promise<{ output: string; errors: string }> {
  const env = { PATH: process.env['PATH'] }
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [...args], { cwd: project.folder, env }).catch(
    (error: { stdout: string; stderr: string }) => error,
  )
  return { output: stdout, errors: stderr }
}

function unquoted(name: string): string {
  return name.replaceAll('`', '')
}
