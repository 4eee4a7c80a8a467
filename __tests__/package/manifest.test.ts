import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { missingForPublishing } from '../../scripts/before-publishing.ts'
import { entryPoints } from '../../scripts/build.ts'
import { changedManifests, devDependencies, missingPackages, workspaces } from '../../scripts/packages.ts'

const root = join(import.meta.dirname, '..', '..')
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

describe('package.json', () => {
  test('exports and runs only what is built from a source file', () => {
    const targets = Object.values<{ types: string; default: string } | string>(manifest.exports).filter(
      (target) => typeof target !== 'string',
    )

    const { cli, ...exported } = entryPoints
    expect(targets).toHaveLength(Object.keys(exported).length)
    expect(manifest.bin).toEqual({ mcb: 'dist/cli.js', 'middy-circuit-breaker': 'dist/cli.js' })
    expect(existsSync(join(root, cli as string))).toBe(true)
    for (const target of targets) {
      const source = entryPoints[target.default.replace(/^\.\/dist\/|\.js$/g, '')] as string
      expect({ source, exists: existsSync(join(root, source)) }).toEqual({ source, exists: true })
      expect(target.types).toBe(source.replace('src/', './dist/').replace(/\.ts$/, '.d.ts'))
    }
  })

  test('says where the package is developed either wholly or not at all', () => {
    expect([0, 3]).toContain(missingForPublishing(manifest).length)
    expect(manifest).not.toHaveProperty('funding')
    expect(manifest.publishConfig).toEqual({ access: 'public', provenance: true })
    const url = 'https://example.org/a'
    const complete = { repository: { type: 'git', url: `git+${url}.git` }, homepage: url, bugs: { url } }
    expect(missingForPublishing(complete)).toEqual([])
  })

  test('makes nothing but types a dependency', () => {
    expect(Object.keys(manifest.dependencies)).toEqual(['@types/aws-lambda'])
  })
})

describe('the manifests of tests, examples and scripts', () => {
  const read = (file: string) => JSON.parse(readFileSync(join(root, file), 'utf8'))
  const lockfile = read('package-lock.json')

  test('name no package twice, so that each exists once', () => {
    const named = ['.', ...workspaces].flatMap((folder) =>
      Object.keys(read(join(folder, 'package.json')).devDependencies),
    )
    expect(named.sort()).toEqual(Object.keys(devDependencies()).sort())

    const apart = Object.keys(lockfile.packages).filter((path) =>
      workspaces.some((folder) => path.startsWith(`${folder}/`)),
    )
    expect(apart).toEqual([])
  })

  test('are not installed with the root', () => {
    expect(readFileSync(join(root, '.npmrc'), 'utf8')).toMatch(/^workspaces=false$/m)
  })

  test('leave to the root what the sources, the build and the demo import', () => {
    const files = ['src', 'examples/demo', 'scripts/build.ts', 'jest.config.js'].flatMap((path) =>
      statSync(join(root, path)).isDirectory()
        ? readdirSync(join(root, path), { recursive: true, encoding: 'utf8' }).map((file) => join(path, file))
        : path,
    )
    const sources = files.filter((file) => /\.[jt]s$/.test(file)).map((file) => readFileSync(join(root, file), 'utf8'))
    const pattern =
      /(?:^(?:import|\})[^'\n]*from|\bimport\(|\bcreateRequire\(import\.meta\.url\)\()\s*'((?:@[^/']+\/)?[^./'][^/':]*)(?:\/[^':]*)?'/gm
    const imported = new Set(
      sources.flatMap((source) => [...source.matchAll(pattern)].map(([, name]) => name as string)),
    )
    imported.delete('aws-lambda')

    expect([...imported]).toEqual(
      expect.arrayContaining(['@middy/core', '@aws-sdk/client-dynamodb', 'dynalite', 'esbuild']),
    )
    expect([...imported].filter((name) => !Object.hasOwn(manifest.devDependencies, name))).toEqual([])
  })

  test('have packages that are installed', () => {
    expect({ missing: missingPackages(), changed: changedManifests() }).toEqual({ missing: [], changed: [] })
  })

  test('have packages that count as missing where npm has another version, or none', () => {
    const wanted = {
      packages: {
        '': { version: '0.1.0' },
        examples: {},
        'node_modules/examples': { link: true },
        'node_modules/here': { version: '1.0.0' },
        'node_modules/old': { version: '1.0.1' },
        'node_modules/@scope/absent': { version: '1.0.0' },
        'node_modules/of-another-system': { version: '1.0.0', optional: true },
      },
    }
    const installed = {
      packages: { 'node_modules/here': { version: '1.0.0' }, 'node_modules/old': { version: '1.0.0' } },
    }

    expect(missingPackages(wanted, installed, () => true)).toEqual(['old', '@scope/absent'])
    expect(missingPackages(wanted, installed, () => false)).toContain('here')
  })

  test('count as changed where the lockfile says something else', () => {
    const { 'examples/packages': examples, ...others } = lockfile.packages
    expect(changedManifests({ packages: others })).toEqual(['examples/packages'])
    const { stripe, ...rest } = examples.devDependencies
    expect(changedManifests({ packages: { ...others, 'examples/packages': { devDependencies: rest } } })).toEqual([
      'examples/packages',
    ])
    expect(stripe).toEqual(expect.any(String))
  })
})

/** Entries that are of no use without a peer: it is imported at once. */
const peers: Readonly<Record<string, string>> = { 'telemetry/otel/index.ts': '@opentelemetry/api' }

describe('the sources', () => {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => ({ file, imports: staticImports(readFileSync(join(root, 'src', file), 'utf8')) }))

  test.each(sources)('$file imports nothing at run time but Node and its neighbours', ({ file, imports }) => {
    for (const specifier of imports) {
      if (specifier.startsWith('node:') || peers[file] === specifier) continue
      expect(specifier).toMatch(/^\.\.?\/.*\.ts$/)
      expect(existsSync(join(root, 'src', normalize(join(dirname(file), specifier))))).toBe(true)
    }
  })
})

/** The specifiers of the static imports and re-exports that are left when the types are stripped. */
function staticImports(source: string): string[] {
  const declarations = source.matchAll(/^(?:import|export)\s(?!type\b)(?:[^'"`;=()]*?\sfrom\s)?['"]([^'"]+)['"]/gm)
  return [...declarations].map(([, specifier]) => specifier as string)
}
