/**
 * The package as a handler's bundler leaves it. Also used by the test of its size.
 *
 * @module
 */

import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * The longest that the main entry with the memory adapter may be, gzipped, in bytes: what it was when it was last
 * looked at, and 2 %.
 */
export const sizeLimit: number = Math.floor(43_111 * 1.02)

export interface Bundle {
  /** What is loaded with the handler, in bytes. */
  readonly start: Size
  /** What is loaded when the adapter is used first, if anything. */
  readonly adapter: Size | undefined
  /** Minified bytes of what is loaded with the handler, by source file, the largest first. */
  readonly modules: readonly (readonly [file: string, bytes: number])[]
}

export interface Size {
  readonly minified: number
  readonly gzipped: number
}

/** What a client library is by itself, in bytes, as far as the adapter uses it. */
export async function librarySize(library: keyof typeof used): Promise<Size> {
  const { outputFiles } = await build({
    ...bundling,
    stdin: { resolveDir: root, contents: `export { ${used[library]} } from '${library}'` },
  })
  const { contents } = outputFiles[0] as { contents: Uint8Array }
  return { minified: contents.length, gzipped: gzipSync(contents, { level: 9 }).length }
}

/** What a handler with one service is in a single file, as most bundlers leave it: every adapter is in it. */
export async function oneFile(adapter: Adapter, minify: boolean): Promise<Size> {
  const { outputFiles } = await build({
    ...bundling,
    minify,
    stdin: { resolveDir: root, contents: handlerWith(adapter) },
    external: notBundled,
  })
  const { contents } = outputFiles[0] as { contents: Uint8Array }
  return { minified: contents.length, gzipped: gzipSync(contents, { level: 9 }).length }
}

const used = {
  '@aws-sdk/client-dynamodb':
    'DynamoDBClient, GetItemCommand, BatchGetItemCommand, UpdateItemCommand, DeleteItemCommand, BatchWriteItemCommand',
  ioredis: 'Redis',
  '@middy/core': 'default',
  opossum: 'default',
  cockatiel: 'circuitBreaker, ConsecutiveBreaker, handleAll, timeout, bulkhead, wrap, TimeoutStrategy',
} as const

type Adapter = 'memory' | 'dynamodb' | 'redis'

const notBundled = ['@middy/core', '@aws-sdk/*', 'ioredis']

function handlerWith(adapter: Adapter): string {
  return `
import middy from '@middy/core'
import { circuitBreaker } from './src/index.ts'
export const handler = middy().use(circuitBreaker({ services: ['stripe'], storage: '${adapter}' })).handler(async () => 1)`
}

const bundling = {
  absWorkingDir: root,
  write: false,
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'node',
  target: 'node22',
  logLevel: 'silent',
} as const

/**
 * A handler with one service, minified for Node 22 as ES modules with splitting, without Middy, the AWS SDK and ioredis.
 *
 * @param adapter the module of the adapter that is chosen, for instance `dynamodb`
 */
export async function bundle(adapter: Adapter): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    ...bundling,
    stdin: { resolveDir: root, contents: handlerWith(adapter) },
    outdir: 'bundled',
    splitting: true,
    external: notBundled,
    metafile: true,
  })
  const contentsOf = new Map(
    Object.keys(metafile.outputs).map((path) => [
      path,
      outputFiles.find((file) => file.path.endsWith(path))?.contents ?? new Uint8Array(),
    ]),
  )
  const reach = (path: string, found: Set<string> = new Set()): Set<string> => {
    found.add(path)
    for (const { path: next, kind, external } of metafile.outputs[path]?.imports ?? []) {
      if (kind === 'import-statement' && !external && !found.has(next)) reach(next, found)
    }
    return found
  }
  const sizeOf = (paths: Iterable<string>): Size => {
    const files = Array.from(paths, (path) => contentsOf.get(path) as Uint8Array)
    const sum = (sizes: readonly number[]) => sizes.reduce((total, bytes) => total + bytes, 0)
    return {
      minified: sum(files.map(({ length }) => length)),
      gzipped: sum(files.map((contents) => gzipSync(contents, { level: 9 }).length)),
    }
  }
  const entryOf = (end: string) =>
    Object.keys(metafile.outputs).find((path) => metafile.outputs[path]?.entryPoint?.endsWith(end))
  const start = reach(entryOf('<stdin>') as string)
  const chosen = entryOf(`storage/${adapter}/storage.ts`)
  const later = chosen === undefined ? undefined : reach(chosen).difference(start)
  const modules = [...start]
    .flatMap((path) => Object.entries(metafile.outputs[path]?.inputs ?? {}))
    .map(([file, { bytesInOutput }]) => [file, bytesInOutput] as const)
    .sort(([, a], [, b]) => b - a)
  return { start: sizeOf(start), adapter: later && sizeOf(later), modules }
}
