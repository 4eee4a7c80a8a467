/**
 * The table of sizes in `docs/use/bundling.md`: `npm run page -- bundling` writes it, and a test compares it with the code.
 *
 * @module
 */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { bundle, type Size } from '../bench/bundle.ts'
import { bundlePackage } from './build.ts'

const root = join(import.meta.dirname, '..')
const page = join(root, 'docs/use/bundling.md')
const begin = '<!-- sizes: `npm run page -- bundling` writes what is between these lines. -->'
const end = '<!-- the end of the sizes. -->'

export interface MeasuredBundle {
  readonly what: string
  readonly minified: Size
  /** As a template with `Minify: false` builds it. */
  readonly plain?: Size
}

/** Measures one call behind each guard, bundled for Node 22 into one ES module. */
export async function measureBundles(): Promise<MeasuredBundle[]> {
  const folder = await mkdtemp(join(tmpdir(), 'sizes-'))
  try {
    await bundlePackage(folder)
    const ours = join(folder, 'index.js')
    const split = (await bundle('dynamodb')) as { start: Size; adapter: Size }
    return [
      {
        what: 'this package, in one file',
        ...(await sizesOf(
          `import { circuitBreaker } from '${ours}'\nexport const guard = circuitBreaker({ services: ['stripe'] })`,
        )),
      },
      { what: 'this package, in several files: read at the start', minified: split.start },
      { what: 'this package, in several files: read with DynamoDB as store', minified: split.adapter },
      { what: '`@middy/core`', ...(await sizesOf("export { default } from '@middy/core'")) },
      {
        what: 'opossum',
        ...(await sizesOf("import Breaker from 'opossum'\nexport const guard = new Breaker(async () => 1)")),
      },
      {
        what: 'cockatiel',
        ...(await sizesOf(
          "import { circuitBreaker, ConsecutiveBreaker, handleAll } from 'cockatiel'\nexport const guard = circuitBreaker(handleAll, { halfOpenAfter: 10_000, breaker: new ConsecutiveBreaker(3) })",
        )),
      },
    ]
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function sizesOf(contents: string): Promise<{ minified: Size; plain: Size }> {
  const [minified, plain] = await Promise.all([true, false].map((minify) => sizeOf(contents, minify)))
  return { minified: minified as Size, plain: plain as Size }
}

async function sizeOf(contents: string, minify: boolean): Promise<Size> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root },
    bundle: true,
    write: false,
    minify,
    format: 'esm',
    platform: 'node',
    target: 'node22',
    mainFields: ['module', 'main'],
    external: ['@aws-sdk/*', 'ioredis'],
    logLevel: 'silent',
  })
  const { contents: bytes } = outputFiles[0] as { contents: Uint8Array }
  return { minified: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length }
}

/** The rows of the table as the page has them: the text of each cell. */
export async function writtenSizes(): Promise<string[][]> {
  const [, table = ''] = (await readFile(page, 'utf8')).split(begin)
  const rows = (table.split(end)[0] as string).trim().split('\n').slice(2)
  return rows.map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
}

/** The cells of a row. */
export function cellsOf({ what, minified, plain }: MeasuredBundle): string[] {
  return [what, ...[minified, plain].flatMap((size) => [kilobytes(size?.minified), kilobytes(size?.gzipped)])]
}

function kilobytes(bytes: number | undefined): string {
  return bytes === undefined ? '–' : `${(bytes / 1024).toPrecision(3)} KB`
}

if (import.meta.main) {
  const rows = (await measureBundles()).map((each) => `| ${cellsOf(each).join(' | ')} |`)
  const head = ['|  | minified | gzipped | not minified | gzipped |', '| --- | ---: | ---: | ---: | ---: |']
  const [before, rest] = (await readFile(page, 'utf8')).split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`${page} has no place for the sizes.`)
  await writeFile(page, `${before}${begin}\n\n${[...head, ...rows].join('\n')}\n\n${end}${after}`)
  console.log('The sizes are in docs/use/bundling.md.')
}
