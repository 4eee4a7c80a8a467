/**
 * A Lambda function whose circuits are in the SQLite database of `sqlite-storage.ts`. All that is different from the other
 * stores is one registration and the name of the kind.
 *
 * @module
 */

import middy from '@middy/core'
import { CircuitBreakerStorageFactory, circuitBreaker } from '../../src/index.ts'
import { SqliteCircuitStorage } from './sqlite-storage.ts'

CircuitBreakerStorageFactory.register('sqlite', ({ path }, env) => {
  return new SqliteCircuitStorage({ path: String(path ?? env['CIRCUITS_DATABASE'] ?? 'circuits.db') })
})

export const handler = middy<{ url: string }, { statusCode: number; body: string }>()
  // Or no `storage` here, and CIRCUIT_BREAKER_STORAGE=sqlite in the environment.
  .use(circuitBreaker({ services: ['shop'], storage: { type: 'sqlite' }, resetTimeout: 5_000 }))
  .handler(async ({ url }, { callExternal, circuits }) => {
    const fetchShop = async ({ signal }: { signal: AbortSignal }) => {
      const response = await fetch(url, { signal })
      return { statusCode: response.status, body: await response.text() }
    }
    return callExternal('shop', fetchShop, {
      timeout: 1_000,
      fallback: (error) => ({ statusCode: 503, body: `${circuits.shop.state}: ${(error as Error).name}` }),
    })
  })
