/**
 * Builds Lambda's runtime interface client for the tests: `node scripts/lambda-runtime-client.ts`. Does nothing if it
 * is there.
 *
 * It is the npm package `aws-lambda-ric`, the program that Lambda itself runs handlers with. It is no dev dependency,
 * because its native part is compiled while it is installed, and nobody should need a compiler for `npm install`. Only
 * Linux can build it.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

interface PinnedPackage {
  readonly name: string
  readonly version: string
  /** Of the package's tarball, as the registry states it: pinned here, because what it contains is executed. */
  readonly integrity: string
}

const client: PinnedPackage = {
  name: 'aws-lambda-ric',
  version: '4.0.2',
  integrity: 'sha512-FE5Vskx7mYNnqAnWWJXUOsLp2VGgdsJsCoRLFTa8L4Yk0QVtArqR8q58yPA++QC1a73ZWJXBQ2AH31nIAv7NOQ==',
}
/** The C++ headers that its native part is written against. */
const addonApi: PinnedPackage = {
  name: 'node-addon-api',
  version: '8.3.1',
  integrity: 'sha512-lytcDEdxKjGJPTLEfW4mYMigRezMlyJY8W4wxJK8zE533Jlb8L8dRuObJFWg2P+AuOIxoCgKF+2Oq4d4Zd0OUA==',
}

const install = 'apt-get update && apt-get install -y --no-install-recommends g++ make cmake xz-utils'

const root = fileURLToPath(new URL('..', import.meta.url))
const cache = join(root, '.cache', 'aws-lambda-ric')

const folder = join(cache, `${client.version}-${process.platform}-${process.arch}`)

/** Where the processes of the runtime client keep what Node has compiled (`NODE_COMPILE_CACHE`). */
export const compileCache: string = fileURLToPath(new URL('../.cache/compiled-handlers/', import.meta.url))

/** The program to run with `node`, once it is installed. */
export const lambdaRuntimeClient: string = join(folder, 'index.mjs')

/**
 * Downloads the runtime client, compiles its native part for the running Node and keeps it in `.cache/`.
 *
 * It may run in several processes at once: each builds in a folder of its own, and the first to rename it wins.
 *
 * @throws if the download is not what it should be, if the compiler is missing and cannot be installed from here, or on
 *   another system than Linux
 */
export async function installLambdaRuntimeClient(): Promise<void> {
  if (existsSync(lambdaRuntimeClient)) return
  if (process.platform !== 'linux')
    throw new Error(`${client.name} can be built on Linux only, not on ${process.platform}`)
  await requireBuildTools()
  const headers = await nodeHeaders()
  await mkdir(cache, { recursive: true })
  const building = await mkdtemp(join(cache, 'building-'))
  try {
    const [source, addonHeaders] = await Promise.all([download(client, building), download(addonApi, building)])
    await rename(await compile(source, [headers, addonHeaders]), folder).catch(keepTheOther)
  } finally {
    await rm(building, { recursive: true, force: true })
  }
}

/**
 * Compiles what handlers load while they run, adapters and their clients, so that first invocations are not slowed down by
 * it: the processes that serve them are killed before they would keep what they have compiled.
 */
export async function compileAdapters(): Promise<void> {
  const modules = [
    './src/storage/dynamodb/storage.ts',
    './src/storage/redis/storage.ts',
    '@aws-sdk/client-dynamodb',
    'ioredis',
  ]
  const program = modules.map((module) => `await import('${module}')`).join('\n')
  await run(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: root,
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
  })
}

/** Resolves to the folder of the unpacked package. */
async function download({ name, version, integrity }: PinnedPackage, building: string): Promise<string> {
  const target = join(building, name)
  await mkdir(target)
  await run('npm', ['pack', '--silent', `${name}@${version}`], { cwd: target })
  const tarball = (await readdir(target)).find((file) => file.endsWith('.tgz'))
  if (!tarball) throw new Error(`"npm pack ${name}@${version}" left no file`)
  const hash = createHash('sha512')
  await pipeline(createReadStream(join(target, tarball)), hash)
  const found = `sha512-${hash.digest('base64')}`
  if (found !== integrity)
    throw new Error(`${name}@${version} is not what was pinned: it has ${found}, not ${integrity}`)
  await run('tar', ['-xzf', tarball], { cwd: target })
  return join(target, 'package')
}

/**
 * Does what the package's own install scripts do, but for node-gyp: that would want Python, and Node's headers from a
 * host of its own. Resolves to a folder with what is needed to run it.
 */
async function compile(source: string, headers: readonly string[]): Promise<string> {
  await build('sh', ['scripts/preinstall.sh'], source)
  const artifacts = join(source, 'deps', 'artifacts')
  const libraries = ['libaws-lambda-runtime.a', 'libcurl.a'].map((library) => join(artifacts, 'lib', library))
  const includes = [...headers, join(artifacts, 'include')].flatMap((directory) => ['-I', directory])
  const options = ['-shared', '-fPIC', '-O2', '-std=gnu++20', '-pthread', '-DNAPI_CPP_EXCEPTIONS']
  const names = ['-DNODE_GYP_MODULE_NAME=rapid_client', '-DBUILDING_NODE_EXTENSION']
  const input = join('src', 'native', 'rapid-client.cc')
  const result = join(source, 'built')
  await mkdir(result)
  const output = join(result, 'rapid-client.node')
  await build('g++', [...options, ...names, ...includes, input, ...libraries, '-o', output], source)
  for (const file of ['index.mjs', 'package.json', 'LICENSE', 'NOTICE', 'THIRD-PARTY-LICENSES']) {
    await copyFile(join(source, file), join(result, file))
  }
  return result
}

async function build(command: string, args: readonly string[], cwd: string): Promise<void> {
  try {
    await run(command, args, { cwd, maxBuffer: 2 ** 26 })
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string }
    const output = `${stdout.slice(-1_000)}\n${stderr.slice(-3_000)}`
    throw new Error(`${client.name} ${client.version} could not be built, "${command}" failed: ${output}`)
  }
}

/**
 * The npm package `node` brings them along, as an installation of Node does. It installs them itself, where npm does not know of
 * them: the second `npm install` removes them, and to rebuild the package brings them back.
 */
async function nodeHeaders(): Promise<string> {
  if (findHeaders() === undefined) await run('npm', ['rebuild', 'node'], { cwd: root })
  const found = findHeaders()
  if (found === undefined)
    throw new Error(`There are no headers of Node beside ${process.execPath}. Run: npm rebuild node`)
  return found
}

function findHeaders(): string | undefined {
  const prefix = dirname(dirname(process.execPath))
  const own = join('node_modules', `node-${process.platform}-${process.arch}`)
  const candidates = [prefix, join(prefix, own), join(prefix, '..', '..', own)]
  return candidates.map((path) => join(path, 'include', 'node')).find((path) => existsSync(join(path, 'node.h')))
}

async function requireBuildTools(): Promise<void> {
  if (await haveBuildTools()) return
  if (process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    await run('sh', ['-c', install], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, maxBuffer: 2 ** 26 })
    if (await haveBuildTools()) return
  }
  throw new Error(`The tests build Lambda’s runtime client with g++, make, cmake and xz. Run: sudo sh -c '${install}'`)
}

async function haveBuildTools(): Promise<boolean> {
  try {
    await Promise.all(['g++', 'make', 'cmake', 'xz'].map((tool) => run(tool, ['--version'])))
    return true
  } catch {
    return false
  }
}

/** Another process was faster, and what it built had the same source. */
function keepTheOther(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.platform !== 'linux') {
    console.error('The tests in __tests__/lambda are left out: Lambda’s runtime client can be built on Linux only.')
  } else {
    if (!existsSync(lambdaRuntimeClient)) console.error('Building Lambda’s runtime client, once: about a minute …')
    await Promise.all([installLambdaRuntimeClient(), compileAdapters()]).catch((error: Error) => {
      console.error(error.message)
      process.exitCode = 1
    })
  }
}
