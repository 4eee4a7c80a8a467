/**
 * Type-checks code of users against the package as they get it: packed, and installed by npm, pnpm and both yarns.
 *
 * With each package manager: the README's handler, which must not be `any`, and a library that exports what it makes of this
 * package, under what `tsc --init` writes and under the strictest settings, with three compilers. With each major of Middy: the
 * handlers and routes in `__tests__/types/users`. Without Middy, the AWS SDK and ioredis: the engine, declarations checked too.
 *
 * Reports one line per step; exits with 1 if any failed. `--keep` leaves the folder for inspection.
 *
 * @module
 */

import { execFile } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { failedSteps, step } from './steps.ts'

const root = join(import.meta.dirname, '..')
const workspace = await mkdtemp(join(tmpdir(), 'circuit-types-'))
let tarball = ''

/** The newest compiler is this repository's own. */
const compilers = ['5.9', '6.0', '7.0'] as const
type Compiler = (typeof compilers)[number]

/** How to run a compiler in a folder. */
type Compile = (folder: string, ...args: readonly string[]) => Promise<string>

/** How packages get into a folder. `compile`: how a compiler is run there, if another than ours has to. */
interface PackageManager {
  readonly name: string
  readonly files?: Readonly<Record<string, string>>
  readonly add: readonly string[]
  readonly compilers: readonly Compiler[]
  readonly compile?: Compile
}

const tool = (path: string): string => join(workspace, 'tools', 'node_modules', path)
const npmOptions = ['--prefer-offline', '--no-audit', '--no-fund', '--engine-strict', '--loglevel=error']
const npm: PackageManager = { name: 'npm', add: ['npm', 'install', ...npmOptions], compilers }

const berry = (linker: string): Record<string, string> => ({
  '.yarnrc.yml': `nodeLinker: ${linker}\nenableGlobalCache: false\nenableTelemetry: false\nenableImmutableInstalls: false\n`,
  'yarn.lock': '',
})
const yarn = (): readonly string[] => [process.execPath, tool('@yarnpkg/cli-dist/bin/yarn.js')]

const managers: readonly PackageManager[] = [
  npm,
  {
    name: 'pnpm',
    add: [process.execPath, tool('pnpm/bin/pnpm.mjs'), 'add', '--store-dir', join(workspace, 'pnpm-store')],
    // Each has its own way to name a type of a package that is not in reach.
    compilers,
  },
  {
    name: 'yarn 1',
    add: [process.execPath, tool('yarn/bin/yarn.js'), 'add', '--cache-folder', join(workspace, 'yarn-cache')],
    compilers: ['7.0'],
  },
  { name: 'yarn 4 with node_modules', files: berry('node-modules'), add: [...yarn(), 'add'], compilers: ['7.0'] },
]

/** Its files are in archives, which only the compiler that yarn has patched can read. Middy's declarations need the last package. */
const plugAndPlay: PackageManager = {
  name: 'yarn 4 with Plug’n’Play',
  files: berry('pnp'),
  add: [...yarn(), 'add', 'typescript@~5.9.0', '@types/aws-lambda'],
  compilers: ['5.9'],
  compile: (folder, ...args) => execute([...yarn(), 'tsc', ...args], folder),
}

/** Everything that a compiler can ask for. */
const strictest = {
  target: 'ES2023',
  lib: ['ES2023'],
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  noImplicitOverride: true,
  noImplicitReturns: true,
  noFallthroughCasesInSwitch: true,
  noUnusedLocals: true,
  noUnusedParameters: true,
  noUncheckedSideEffectImports: true,
  allowUnreachableCode: false,
  allowUnusedLabels: false,
  isolatedModules: true,
  verbatimModuleSyntax: true,
  erasableSyntaxOnly: true,
  declaration: true,
  skipLibCheck: false,
}
const resolutions = [
  { module: 'NodeNext' },
  { module: 'Node16' },
  { module: 'Preserve', moduleResolution: 'Bundler' },
] as const

/** The README's handler called as a test calls it: neither its context nor its result may be `any`. */
const newcomer = `
import type { LambdaContext } from 'middy-circuit-breaker'
import { handler } from './readme.js'

type IsAny<T> = 0 extends 1 & T ? true : false
export const call = async (context: LambdaContext) => {
  const result = await handler({ ip: '192.0.2.1' }, context)
  const checks: [IsAny<typeof result>, IsAny<Parameters<typeof handler>[1]>, IsAny<LambdaContext>] = [false, false, false]
  // @ts-expect-error an address is a text
  await handler({ ip: 4 }, context)
  return checks
}
`

async function main(): Promise<void> {
  if (!(await step('npm pack', pack))) return
  if (!(await step('the package managers and compilers', installTools))) return
  for (const manager of [...managers, plugAndPlay]) {
    const folder = join(workspace, manager.name.replaceAll(/\W+/g, '-'))
    const installs = await step(`${manager.name}: installs`, async () => {
      await install(folder, manager, [tarball, `@middy/core@${versionOf('@middy/core')}`, '@types/node@24'])
      writeFileSync(join(folder, 'readme.ts'), readmeHandler())
      writeFileSync(join(folder, 'newcomer.ts'), newcomer)
      copyFileSync(user('library'), join(folder, 'library.ts'))
      return undefined
    })
    if (!installs) continue
    for (const compiler of manager.compilers) {
      const compile = manager.compile ?? compileWith(compiler)
      await step(`${manager.name}, TypeScript ${compiler}: as \`tsc --init\` has it`, async () => {
        rmSync(join(folder, 'tsconfig.json'), { force: true })
        await compile(folder, '--init')
        return typeCheck(folder, compile)
      })
      await step(`${manager.name}, TypeScript ${compiler}: the strictest settings`, () =>
        typeCheckStrictly(folder, compile, compiler),
      )
    }
  }
  for (const major of [5, 6, 7]) {
    await step(`Middy ${major}: handlers, routes and a library`, async () => {
      const folder = join(workspace, `middy-${major}`)
      const middy = ['core', 'http-router'].map((name) => `@middy/${name}@${major}`)
      await install(folder, npm, [tarball, ...middy, '@types/node@24', '@types/aws-lambda'])
      for (const name of ['handlers', 'router', 'library']) copyFileSync(user(name), join(folder, `${name}.ts`))
      return typeCheckWithBoth(folder)
    })
  }
  await step('the engine without Middy, the AWS SDK and ioredis', async () => {
    const folder = join(workspace, 'engine')
    await install(folder, npm, [tarball, '@types/node@24'])
    copyFileSync(user('engine'), join(folder, 'engine.ts'))
    return typeCheckWithBoth(folder)
  })
}

/** The first TypeScript of the README: what a newcomer copies. */
function readmeHandler(): string {
  return firstBlock('README.md', /^```ts\n([\s\S]*?)^```$/m)
}

/** What the page on TypeScript has for the declarations of Middy 7, which need a package that few functions have. */
function durableFunctions(): string {
  return firstBlock('docs/use/typescript.md', /^```\n(declare module [\s\S]*?)^```$/m)
}

function firstBlock(page: string, block: RegExp): string {
  const code = block.exec(readFileSync(join(root, page), 'utf8'))?.[1]
  if (code === undefined) throw new Error(`${page} has no such block.`)
  return code
}

function user(name: string): string {
  return join(root, '__tests__', 'types', 'users', `${name}.ts`)
}

function versionOf(name: string): string {
  return JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')).version
}

async function pack(): Promise<undefined> {
  const output = await execute(['npm', 'pack', '--json', '--loglevel=error', '--pack-destination', workspace], root)
  const [packed] = JSON.parse(output.slice(output.indexOf('[\n'))) as { filename: string }[]
  if (!packed) throw new Error(`npm pack printed: ${output}`)
  tarball = join(workspace, packed.filename)
}

async function installTools(): Promise<undefined> {
  const packages = ['pnpm@12', 'yarn@1', '@yarnpkg/cli-dist@4']
  const old = ['5.9', '6.0'].map((version) => `typescript-${version}@npm:typescript@~${version}.0`)
  await install(join(workspace, 'tools'), npm, [...packages, ...old])
}

/** Installs into a new folder. */
async function install(folder: string, manager: PackageManager, packages: readonly string[]): Promise<void> {
  mkdirSync(folder, { recursive: true })
  const manifest = { name: 'consumer', version: '1.0.0', private: true, type: 'module' }
  for (const [name, text] of Object.entries({ 'package.json': JSON.stringify(manifest), ...manager.files })) {
    writeFileSync(join(folder, name), text)
  }
  // yarn 4 takes a file only with the name of its package.
  const named = packages.map((name) => (name === tarball ? `middy-circuit-breaker@file:${tarball}` : name))
  await execute([...manager.add, ...named], folder)
}

function compileWith(compiler: Compiler): Compile {
  const path = compiler === '7.0' ? join(root, 'node_modules', 'typescript') : tool(`typescript-${compiler}`)
  return (folder, ...args) => execute([process.execPath, join(path, 'bin', 'tsc'), ...args], folder)
}

/** With the newest compiler under each resolution of modules, with the others, which are slow, under one. */
async function typeCheckStrictly(folder: string, compile: Compile, compiler: Compiler): Promise<undefined> {
  writeFileSync(join(folder, 'durable.d.ts'), durableFunctions())
  for (const resolution of compiler === '7.0' ? resolutions : resolutions.slice(0, 1)) {
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...strictest, ...resolution } }))
    await typeCheck(folder, compile)
  }
}

async function typeCheckWithBoth(folder: string): Promise<undefined> {
  for (const compiler of ['5.9', '7.0'] as const) await typeCheckStrictly(folder, compileWith(compiler), compiler)
}

/** Compiles the folder, in which nothing may be wrong, nor in the declarations of any package where those are checked. */
async function typeCheck(folder: string, compile: Compile): Promise<undefined> {
  const output = await compile(folder, '--noEmit', '--pretty', 'false')
  if (output.includes('error')) throw new Error(output)
}

async function execute([file, ...args]: readonly string[], cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)(file as string, args, { cwd, env: await environment() })
  return stdout
}

/** Without what `npm run` tells its children about this repository; yarn 4 is told of npm's registry. */
async function environment(): Promise<NodeJS.ProcessEnv> {
  const strange = /^(npm_(package|lifecycle|config_(local_)?prefix$|config_user_agent$)|NODE_OPTIONS$|INIT_CWD$)/
  const kept = Object.entries(process.env).filter(([name]) => !strange.test(name))
  return { ...Object.fromEntries(kept), YARN_NPM_REGISTRY_SERVER: await registry }
}

const registry = promisify(execFile)('npm', ['config', 'get', 'registry'], { cwd: root }).then(({ stdout }) =>
  stdout.trim().replace(/\/$/, ''),
)

await main()
if (process.argv.includes('--keep')) console.log(`kept ${workspace}`)
else rmSync(workspace, { recursive: true, force: true })
console.log(
  failedSteps() === 0 ? 'Users’ code type-checks.' : `Users’ code does not type-check: ${failedSteps()} steps failed.`,
)
process.exitCode = failedSteps() === 0 ? 0 : 1
