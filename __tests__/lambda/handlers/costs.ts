/** A function that tells what importing the package and creating the middleware took, in milliseconds. */

import middy from '@middy/core'

const entry = process.env['ENTRY']

let imported = 0
let created = 0

const guarded = middy()
if (entry) {
  const startedAt = performance.now()
  const { CircuitBreaker, circuitBreaker } = await import(entry)
  const importedAt = performance.now()
  const breaker = new CircuitBreaker({ services: ['stripe'] })
  guarded.use(circuitBreaker(breaker))
  if (process.env['LOADS_IN_INIT'] !== undefined) await breaker.load()
  imported = importedAt - startedAt
  created = performance.now() - importedAt
}

export const handler = guarded.handler(async () => ({ imported, created }))
