/** The middleware on each major version of Middy that the manifest allows. `tsc` judges the types of each. */

import { describe, expect, it } from '@jest/globals'
import middy7 from '@middy/core'
import type { Context } from 'aws-lambda'
import middy5 from 'middy5'
import middy6 from 'middy6'
import { circuitBreaker, MemoryCircuitStorage } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'

const unavailable = () => Promise.reject(Object.assign(new Error('unavailable'), { statusCode: 503 }))

const options = () => ({ services: ['stripe'], storage: new MemoryCircuitStorage(), failureThreshold: 1 }) as const

/** The same handler, typed by each version's own declarations. */
const handlers = {
  5: () =>
    middy5()
      .use(circuitBreaker(options()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable)),
  6: () =>
    middy6()
      .use(circuitBreaker(options()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable)),
  7: () =>
    middy7()
      .use(circuitBreaker(options()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable)),
}

const makers = { 5: middy5, 6: middy6, 7: middy7 } as const

describe.each([5, 6, 7] as const)('Middy %i', (version) => {
  it('opens the circuit by what a handler throws, and refuses the next invocation', async () => {
    const handler = handlers[version]() as unknown as (event: unknown, context: Context) => Promise<unknown>
    await expect(handler({}, createTestContext() as Context)).rejects.toThrow('unavailable')
    await expect(handler({}, createTestContext() as Context)).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
  })

  it('lets another middleware answer early', async () => {
    const middy = makers[version] as typeof middy7
    const handler = middy()
      .use(circuitBreaker(options()))
      .use({ before: () => 'early' })
      .handler(async () => 'late') as unknown as (event: unknown, context: Context) => Promise<unknown>
    expect(await handler({}, createTestContext() as Context)).toBe('early')
  })
})
