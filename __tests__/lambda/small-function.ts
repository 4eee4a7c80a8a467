/**
 * Functions as the README has them, in files of their own, with and without a bundler: for what a small one costs.
 *
 * @module
 */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

/** Inside the repository, where its dependencies are found. */
const cache = join(import.meta.dirname, '../../.cache')

/** The kinds of functions; each calls the service at `SERVICE` once in an invocation and answers with its status. */
export const kinds = ['without a breaker', 'guarded', 'guarded, not awaited', 'AWS SDK', 'AWS SDK and guarded'] as const
export type Kind = (typeof kinds)[number]

export interface SmallFunctions extends AsyncDisposable {
  /** The file to run, for the variable `HANDLER_FILE`. */
  readonly files: Readonly<Record<Kind, { readonly unbundled: string; readonly bundled: string }>>
  /** A bundle to CommonJS, which an ES module waits for. */
  readonly commonJs: string
}

/** @param entry the file of the package that they import */
export async function makeSmallFunctions(entry: string): Promise<SmallFunctions> {
  await mkdir(cache, { recursive: true })
  const folder = await mkdtemp(join(cache, 'small-functions-'))
  const files = await Promise.all(
    kinds.map(async (kind, index) => {
      const unbundled = join(folder, `${index}.mjs`)
      const bundled = join(folder, `${index}-bundled.mjs`)
      await writeFile(unbundled, sourceOf(kind, entry))
      await build({
        entryPoints: [unbundled],
        outfile: bundled,
        bundle: true,
        minify: true,
        format: 'esm',
        platform: 'node',
        target: 'node22.12',
        // The SDK and ioredis are CommonJS, and load parts of Node with `require`.
        banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
        logLevel: 'error',
      })
      return [kind, { unbundled, bundled }] as const
    }),
  )
  const commonJs = join(folder, 'commonjs.mjs')
  await build({
    stdin: {
      contents: sourceOf('guarded', entry).replace('await breaker', 'export const ready = breaker'),
      resolveDir: folder,
    },
    outfile: join(folder, 'bundle.cjs'),
    bundle: true,
    minify: true,
    format: 'cjs',
    platform: 'node',
    target: 'node22.12',
    logLevel: 'error',
  })
  await writeFile(
    commonJs,
    `import bundle from './bundle.cjs'\nawait bundle.ready\nexport const handler = bundle.handler\n`,
  )
  return {
    commonJs,
    files: Object.fromEntries(files) as Record<Kind, { unbundled: string; bundled: string }>,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

function sourceOf(kind: Kind, entry: string): string {
  const usesSdk = kind.startsWith('AWS SDK')
  const isGuarded = kind.endsWith('guarded') || kind.endsWith('not awaited')
  const sdk = `
import { DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb'
const client = new DynamoDBClient({})
await client.send(new GetItemCommand({ TableName: process.env.TABLE, Key: { PK: { S: 'a' }, SK: { S: 'a' } } }))
`
  const guarded = `
import { CircuitBreaker, circuitBreaker } from ${JSON.stringify(entry)}
const breaker = new CircuitBreaker({ services: ['stripe'] })
${kind.endsWith('not awaited') ? '' : 'await breaker.load()'}
export const handler = middy().use(circuitBreaker(breaker)).handler((event, { callExternal }) => {
  return callExternal('stripe', call, { timeout: 2_000 })
})
`
  return `
import middy from '@middy/core'
${usesSdk ? sdk : ''}
const call = async ({ signal }) => {
  const response = await fetch(process.env.SERVICE, { signal })
  await response.text()
  return response.status
}
${isGuarded ? guarded : 'export const handler = middy().handler(() => call({}))'}
`
}
