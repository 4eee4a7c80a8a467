import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Resource } from './cloudformation-template.ts'

const run = promisify(execFile)
const esbuild = join(import.meta.dirname, '..', '..', 'node_modules', '.bin', 'esbuild')

/** What `sam build` makes of a function. */
export interface SamBuild {
  /** The packages that the function's own files import. */
  readonly imported: readonly string[]
  /** The packages that are not bundled. */
  readonly external: readonly string[]
}

/**
 * Builds a function as SAM does with `BuildMethod: esbuild`: `nodejs_npm_esbuild` of
 * https://github.com/aws/aws-lambda-builders.
 *
 * @param folder of the template
 * @param out the folder for the bundle
 */
export async function buildAsSam(
  { Metadata = {}, Properties }: Resource,
  folder: string,
  out: string,
): Promise<SamBuild> {
  type Options = Record<string, boolean | string | string[]>
  const { EntryPoints, ...properties } = Metadata['BuildProperties'] as Options
  const options: Options = { Target: 'es2020', Format: 'cjs', Minify: true, ...properties }
  const given = Object.entries(options).flatMap(([name, value]) => {
    const option = `--${name.replace(/(?<=.)[A-Z]/g, '-$&').toLowerCase()}`
    if (typeof value === 'boolean') return value ? [option] : []
    return typeof value === 'string' ? [`${option}=${value}`] : value.map((each) => `${option}:${each}`)
  })
  const metafile = `${out}.json`
  const own = ['--bundle', '--platform=node', `--outdir=${out}`, `--metafile=${metafile}`]
  const cwd = join(folder, String(Properties?.['CodeUri']))
  await run(esbuild, [...(EntryPoints as string[]), ...given, ...own], { cwd })

  const { inputs, outputs }: Metafile = JSON.parse(readFileSync(metafile, 'utf8'))
  const imported = Object.entries(inputs)
    .filter(([file]) => !file.startsWith('..'))
    .flatMap(([, { imports }]) => imports.map(({ path, original = path }) => original))
    .filter((name) => !/^(\.|node:)/.test(name))
  const left = Object.values(outputs).flatMap(({ imports }) => imports.map(({ path }) => path))
  return { imported: unique(imported), external: unique(left.filter((name) => !isBuiltin(name))) }
}

interface Metafile {
  readonly inputs: Record<string, { readonly imports: { readonly path: string; readonly original?: string }[] }>
  readonly outputs: Record<string, { readonly imports: { readonly path: string }[] }>
}

const unique = (names: readonly string[]): string[] => [...new Set(names)].sort()
