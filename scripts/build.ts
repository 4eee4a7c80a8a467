/**
 * Bundles the package: one file for each entry, which loads faster than a file for each module, with a source map beside
 * it. Peers stay outside. `npm run build` runs it after `tsc` has written the declarations.
 *
 * The code that entries share is in one file of its own: an error must be of the same class wherever it was thrown. By
 * itself, esbuild would make a file for each group of entries that share something, seven of them; see {@link oneShared}.
 *
 * @module
 */

import { cp, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { build, type Plugin } from 'esbuild'

const root = join(import.meta.dirname, '..')

/** The source of each file that `package.json` exports or runs, by the file's name. */
export const entryPoints: Readonly<Record<string, string>> = {
  index: 'src/index.ts',
  dynamodb: 'src/storage/dynamodb/index.ts',
  redis: 'src/storage/redis/index.ts',
  durable: 'src/durable.ts',
  powertools: 'src/telemetry/powertools/index.ts',
  otel: 'src/telemetry/otel/index.ts',
  testing: 'src/testing/index.ts',
  cli: 'src/cli/main.ts',
}

/** What is loaded when it is first used. */
const loadedLater = [
  'src/operators.ts',
  'src/call/wrong-call.ts',
  'src/call/bodies.ts',
  'src/storage/dynamodb/storage.ts',
  'src/storage/redis/storage.ts',
  'src/storage/redis/errors.ts',
  'src/cli/doctor.ts',
  'src/cli/watch.ts',
  'src/cli/serve.ts',
]

/**
 * Lets every file that begins a bundle import the main entry. What belongs to the main entry is then shared by all of
 * them, so that esbuild puts it into one file: a handler loads that file and the few lines of its entry.
 */
const oneShared: Plugin = {
  name: 'one shared file',
  setup({ onLoad, onResolve }) {
    const main = resolve(root, entryPoints['index'] as string)
    const others = [...Object.values(entryPoints), ...loadedLater].map((file) => resolve(root, file))
    onResolve({ filter: /^main entry$/ }, () => ({ path: main }))
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      if (path === main || !others.includes(path)) return undefined
      return { contents: `${await readFile(path, 'utf8')}\nimport 'main entry'\n`, loader: 'ts' }
    })
  },
}

/** Bundles the package into a folder. */
export async function bundlePackage(outdir: string): Promise<void> {
  await build({
    absWorkingDir: root,
    plugins: [oneShared],
    entryPoints: { ...entryPoints },
    outdir,
    bundle: true,
    splitting: true,
    chunkNames: 'shared-[hash]',
    format: 'esm',
    platform: 'node',
    target: 'node22.12',
    packages: 'external',
    // Without comments and blanks, but with every name: stack traces stay readable.
    minifyWhitespace: true,
    minifySyntax: true,
    // Node prints the line of an error that ends a process.
    lineLimit: 160,
    legalComments: 'none',
    sourcemap: 'linked',
    // The sources are in the package.
    sourcesContent: false,
    logLevel: 'warning',
    // The import of the main entry is left out after it has done its work: nothing of it is used.
    logOverride: { 'ignored-bare-import': 'silent' },
  })
  await cp(join(root, 'src/cli/page'), join(resolve(root, outdir), 'page'), { recursive: true })
}

if (import.meta.main) await bundlePackage('dist')
