/**
 * A project that has installed the package, and the builds that `docs/use/bundling.md` shows, each made with the
 * command or the settings on that page.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { type BuildOptions, build as esbuild, type Metafile } from 'esbuild'
import { parse } from 'yaml'
import { bundlePackage } from '../../scripts/build.ts'
import type { Resource } from '../examples/cloudformation-template.ts'
import { buildAsSam } from '../examples/sam-build.ts'
import { codeBlocks, root } from './code-blocks.ts'

const run = promisify(execFile)
export const page = 'docs/use/bundling.md'

/** What a build has made. */
export interface Build {
  /** The folder that is deployed. */
  readonly folder: string
  /** The module in it that Lambda loads. */
  readonly file: string
  /** The names of the packages that are in it. */
  readonly packages: readonly string[]
  /** What it imports from outside. */
  readonly imports: readonly string[]
  readonly warnings: readonly string[]
}

/** Makes another command, or other settings, of those on the page. */
export type Change = (code: string) => string

export interface Project extends AsyncDisposable {
  readonly folder: string
  /** The built package, as npm would install it. */
  readonly installed: string
  /**
   * Makes the build that stands under a heading of the page. Only one may run at a time: all of them write into `dist`.
   *
   * @param change makes another command, or other settings, of those on the page
   */
  build(heading: string, change?: Change): Promise<Build>
}

/**
 * Makes a project with a handler and all packages that the package can use. It lies outside of this repository, so that
 * nothing else is found.
 *
 * @param missing packages that are not installed
 */
export async function createProject(missing: readonly string[] = []): Promise<Project> {
  const folder = await mkdtemp(join(tmpdir(), 'bundled-'))
  const modules = join(folder, 'node_modules')
  const installed = join(modules, 'middy-circuit-breaker')
  await bundlePackage(join(installed, 'dist'))
  await cp(join(root, 'package.json'), join(installed, 'package.json'))
  const linked = ['@middy/core', '@aws-sdk', 'ioredis', 'webpack', 'rolldown', 'aws-cdk-lib', 'constructs', 'esbuild']
  await Promise.all([...linked, '.bin'].filter((name) => !missing.includes(name)).map((name) => link(name, modules)))
  const [handler = ''] = codeBlocks(page).map(({ code }) => code)
  const files = {
    'package.json': JSON.stringify({ type: 'module' }),
    // Where the CDK looks for the root of the project.
    'package-lock.json': '{}',
    'handler.ts': handler,
    'handler.js': handler,
    'commonjs/handler.ts': withoutWaiting(handler).replace('./pay.js', '../pay.js'),
    'pay.js': `export const pay = (_event, { callExternal }) =>
      callExternal('stripe', async () => { throw Object.assign(new Error('unavailable'), { statusCode: 503 }) })`,
  }
  await mkdir(join(folder, 'commonjs'))
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
  return {
    folder,
    installed,
    build: async (heading, change = (code) => code) => {
      const { language, make } = builds[heading] ?? {}
      if (make === undefined) throw new Error(`Nobody knows how to build what stands under "${heading}".`)
      await rm(join(folder, 'dist'), { recursive: true, force: true })
      const code = language === undefined ? '' : block(heading, language)
      const built = await make(folder, change(code))
      const kept = join(await mkdtemp(join(folder, 'build-')), 'dist')
      await rename(built.folder, kept)
      return { ...built, folder: kept, file: join(kept, built.file) }
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}

/** Links a package, or a scope of packages, of this repository into another `node_modules`. */
export async function link(name: string, modules: string): Promise<void> {
  const path = join(modules, name)
  await mkdir(dirname(path), { recursive: true })
  await symlink(join(root, 'node_modules', name), path)
}

/** The same handler for CommonJS, which has no top-level `await`. */
function withoutWaiting(handler: string): string {
  const changed = handler.replace('await breaker.load()\n', '')
  if (changed === handler) throw new Error('The handler does not wait for the store.')
  return changed
}

interface Builder {
  readonly language?: string
  /** The code is what stands on the page. */
  readonly make: (folder: string, code: string) => Promise<Build>
}

const builds: Readonly<Record<string, Builder>> = {
  esbuild: { language: 'sh', make: runEsbuild },
  'esbuild, with the AWS SDK': { language: 'sh', make: runEsbuild },
  'esbuild, in several files': { language: 'sh', make: runEsbuild },
  'esbuild, with ioredis': { language: 'sh', make: runEsbuild },
  'esbuild, to CommonJS': { language: 'sh', make: runEsbuild },
  SAM: { language: 'yaml', make: runSam },
  CDK: { language: 'ts', make: runCdk },
  'Serverless Framework': { language: 'yaml', make: runServerless },
  webpack: { language: 'ts', make: runWebpack },
  rolldown: { language: 'ts', make: runRolldown },
  'A layer': { make: withoutBundler },
}

/** The code under a heading of the page. */
function block(heading: string, language: string): string {
  const found = codeBlocks(page).filter((each) => each.heading === heading && each.language === language)
  if (found.length !== 1) throw new Error(`${page} has ${found.length} blocks of ${language} under "${heading}".`)
  return (found[0] as { code: string }).code
}

/** Runs esbuild's own command line. */
async function runEsbuild(folder: string, command: string): Promise<Build> {
  const metafile = join(folder, 'metafile.json')
  const program = join(root, 'node_modules', '.bin', 'esbuild')
  const line = `${command.trim().replace(/^npx esbuild/, program)} --metafile=${metafile} --log-level=warning`
  const { stderr } = await run('/bin/sh', ['-c', line], { cwd: folder })
  return esbuilt(JSON.parse(await readFile(metafile, 'utf8')), join(folder, 'dist'), stderr === '' ? [] : [stderr])
}

function esbuilt({ outputs }: Metafile, folder: string, warnings: readonly string[] = []): Build {
  const all = Object.entries(outputs)
  const [entry] =
    all.find(([, { entryPoint }]) => entryPoint !== undefined && !entryPoint.includes('node_modules')) ?? []
  if (entry === undefined) throw new Error('esbuild has built nothing of the project itself.')
  return {
    folder,
    file: entry.split('/').at(-1) as string,
    packages: packagesOf(
      all.flatMap(([, { inputs }]) =>
        Object.entries(inputs).flatMap(([path, { bytesInOutput }]) => (bytesInOutput > 0 ? [path] : [])),
      ),
    ),
    imports: unique(
      all.flatMap(([, { imports }]) => imports.flatMap(({ path, external }) => (external === true ? [path] : []))),
    ),
    warnings,
  }
}

async function runSam(folder: string, code: string): Promise<Build> {
  const [resource] = Object.values(parse(code) as Record<string, Resource>)
  const out = join(folder, 'dist')
  await buildAsSam(resource as Resource, folder, out)
  return esbuilt(JSON.parse(await readFile(`${out}.json`, 'utf8')), out)
}

async function runCdk(folder: string, code: string): Promise<Build> {
  const stack = code.replace('bundling: {', 'bundling: { metafile: true,')
  const app = `
import { App } from 'aws-cdk-lib'
const app = new App()
new Payments(app, 'Payments')
app.synth()`
  await writeFile(join(folder, 'stack.ts'), stack + app)
  const out = join(folder, 'cdk.out')
  const env = { ...process.env, CDK_OUTDIR: out, CDK_VALIDATION: 'false' }
  await run(process.execPath, ['stack.ts'], { cwd: folder, env })
  const asset = join(out, readdirSync(out).find((name) => name.startsWith('asset.')) as string)
  return esbuilt(JSON.parse(await readFile(join(asset, 'index.meta.json'), 'utf8')), asset)
}

/** With what version 4 makes of the settings: `packages/serverless/lib/plugins/esbuild` of https://github.com/serverless/serverless. */
async function runServerless(folder: string, code: string): Promise<Build> {
  const { exclude: _, ...settings } = parse(code).build.esbuild as BuildOptions & {
    exclude: string[]
  }
  const out = join(folder, 'dist')
  const { metafile } = await esbuild({
    absWorkingDir: folder,
    sourcemap: true,
    format: 'esm',
    ...settings,
    platform: 'node',
    entryPoints: [join(folder, 'handler.ts')],
    outfile: join(out, 'handler.js'),
    logLevel: 'silent',
    metafile: true,
  })
  // It is in the zip file, too.
  await cp(join(folder, 'package.json'), join(out, 'package.json'))
  return esbuilt(metafile as Metafile, out)
}

/** In a process of its own: jest's modules are not Node's. */
async function runWebpack(folder: string, code: string): Promise<Build> {
  await writeFile(join(folder, 'webpack.config.ts'), code)
  const program = `
import webpack from 'webpack'
import config from './webpack.config.ts'
webpack(config, (error, stats) => {
  if (error) throw error
  const { errors, warnings, modules } = stats.toJson({ all: false, errors: true, warnings: true, modules: true, nestedModules: true, modulesSpace: Infinity })
  const names = modules.flatMap((module) => [module, ...(module.modules ?? [])]).map(({ name, identifier }) => name ?? identifier ?? '')
  if (errors.length > 0) throw new Error(errors.map(({ message }) => message).join())
  console.log(JSON.stringify({ warnings: warnings.map(({ message }) => message), names }))
})`
  const { warnings, names } = await runProgram(folder, program)
  return {
    folder: join(folder, 'dist'),
    file: 'handler.mjs',
    packages: packagesOf(names.filter((name: string) => !name.startsWith('external '))),
    imports: names.flatMap((name: string) => /^external (?:\w+ )?"(.+)"$/.exec(name)?.[1] ?? []),
    warnings,
  }
}

async function runRolldown(folder: string, code: string): Promise<Build> {
  await writeFile(join(folder, 'rolldown.config.ts'), code)
  const program = `
import { build } from 'rolldown'
import config from './rolldown.config.ts'
const warnings = []
const { output } = await build({ ...config, onLog: (_level, { message }) => warnings.push(message) })
const chunks = output.filter(({ type }) => type === 'chunk')
const files = new Set(output.map(({ fileName }) => fileName))
const imports = chunks.flatMap(({ imports, dynamicImports }) => [...imports, ...dynamicImports]).filter((name) => !files.has(name))
console.log(JSON.stringify({ names: chunks.flatMap(({ moduleIds }) => moduleIds), imports, warnings }))`
  const { names, imports, warnings } = await runProgram(folder, program)
  const packages = packagesOf(names)
  return { folder: join(folder, 'dist'), file: 'handler.mjs', packages, imports: unique(imports), warnings }
}

// biome-ignore lint/suspicious/noExplicitAny: each program prints what its caller reads.
async function runProgram(folder: string, program: string): Promise<any> {
  const file = join(folder, 'program.mjs')
  await writeFile(file, program)
  const { stdout } = await run(process.execPath, [file], { cwd: folder, maxBuffer: 2 ** 26 })
  return JSON.parse(stdout)
}

async function withoutBundler(folder: string): Promise<Build> {
  const out = join(folder, 'dist')
  for (const file of ['handler.js', 'pay.js', 'package.json']) await cp(join(folder, file), join(out, file))
  const imports = ['middy-circuit-breaker', '@middy/core']
  return { folder: out, file: 'handler.js', packages: [], imports, warnings: [] }
}

/** The names of the packages that files belong to. */
export function packagesOf(files: readonly string[]): string[] {
  return unique(
    files.flatMap((file) => {
      const [, name] = /^.*\bnode_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file) ?? []
      return name === undefined ? [] : [name]
    }),
  )
}

/** The packages that a package needs, directly or not. */
export function dependenciesOf(name: string, found: Set<string> = new Set()): Set<string> {
  const file = join(root, 'node_modules', name, 'package.json')
  if (found.has(name) || !existsSync(file)) return found
  found.add(name)
  for (const each of Object.keys(JSON.parse(readFileSync(file, 'utf8')).dependencies ?? {})) dependenciesOf(each, found)
  return found
}

const unique = (names: readonly string[]): string[] => [...new Set(names)].sort()
