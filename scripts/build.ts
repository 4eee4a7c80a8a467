/**
 * Bundles the package: one file for each entry, which loads faster than a file for each module, with a source map beside
 * it. Peers stay outside. `npm run build` runs it after `tsc` has written the declarations.
 *
 * The code that entries share is in files of its own: an error must be of the same class wherever it was thrown.
 *
 * @module
 */

import { join } from 'node:path'
import { build } from 'esbuild'

/** The source of each file that `package.json` exports, by the file's name. */
export const entryPoints: Readonly<Record<string, string>> = {
  index: 'src/index.ts',
  dynamodb: 'src/storage/dynamodb/index.ts',
  redis: 'src/storage/redis/index.ts',
  testing: 'src/testing/index.ts',
}

/** Bundles the package into a folder. */
export async function bundlePackage(outdir: string): Promise<void> {
  await build({
    absWorkingDir: join(import.meta.dirname, '..'),
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
    legalComments: 'none',
    sourcemap: 'linked',
    // The sources are in the package.
    sourcesContent: false,
    logLevel: 'warning',
  })
}

if (import.meta.main) await bundlePackage('dist')
