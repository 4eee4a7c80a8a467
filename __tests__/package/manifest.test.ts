import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { entryPoints } from '../../scripts/build.ts'

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

  test('makes nothing but types a dependency', () => {
    expect(Object.keys(manifest.dependencies)).toEqual(['@types/aws-lambda'])
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
