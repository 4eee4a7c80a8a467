/** A function that says which modules were loaded when. */

import { registerHooks } from 'node:module'
import middy from '@middy/core'
import type { Context } from 'aws-lambda'

const loaded: string[] = []
registerHooks({
  load: (url, context, nextLoad) => {
    loaded.push(url)
    return nextLoad(url, context)
  },
})

const { circuitBreaker } = await import('../../../src/index.ts')

const guarded = middy()
  .use(circuitBreaker({ services: ['stripe'] }))
  .handler(async (_: unknown, { circuits }: { circuits: { stripe: { state: string } } }) => circuits.stripe.state)

/** Which client libraries, and adapters for them, have been loaded. */
function clientLibraries(): string[] {
  const patterns = [
    /@aws-sdk\/client-dynamodb/,
    /\/ioredis\//,
    /src\/storage\/dynamodb\/storage/,
    /src\/storage\/redis\/storage/,
  ]
  return patterns.filter((pattern) => loaded.some((url) => pattern.test(url))).map((pattern) => pattern.source)
}

/** The orders to the function. */
interface Start {
  /** Waits first until init has loaded so many client libraries and adapters. */
  readonly waitsFor?: number
}

export async function handler(event: Start, context: Context): Promise<unknown> {
  // Only now: what init has begun to load without waiting for it is here before what is loaded only after it.
  await import('../log-line.ts')
  while (clientLibraries().length < (event.waitsFor ?? 0)) await new Promise(setImmediate)
  const duringInit = clientLibraries()
  const state = await guarded(event, context as never)
  return { state, duringInit, now: clientLibraries() }
}
