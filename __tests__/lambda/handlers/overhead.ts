/** Handlers for the benchmark of what the middleware adds to an invocation: they do nothing but one call that resolves. */

import middy from '@middy/core'
import { circuitBreaker } from '../../../src/index.ts'

const operation = async (): Promise<number> => 1

export const bare = async (): Promise<unknown> => ({ answer: await operation() })

export const alone: unknown = middy().handler(bare)

export const noop: unknown = middy()
  .use({ before: () => {}, after: () => {}, onError: () => {} })
  .handler(bare)

export const guarded: unknown = middy()
  .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
  .handler(async (_event, { callExternal }) => ({ answer: await callExternal('stripe', operation) }))
