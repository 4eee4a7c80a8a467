/**
 * Runs the handlers of docs/use/durable-functions.md, as they stand there, in the local runner of the SDK.
 *
 * @module
 */

import { afterAll, afterEach, beforeEach, expect, it } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { coldStart } from '../examples/cold-start.ts'
import { type Provider, startProvider } from '../examples/provider.ts'
import { modulesUnder, writeModules } from './code-blocks.ts'

const [withMiddy, withoutMiddy] = modulesUnder('docs/use/durable-functions.md', 'Durable functions')
const modules = await writeModules({ withMiddy, withoutMiddy } as Record<string, string>)
afterAll(async () => {
  await modules[Symbol.asyncDispose]()
})

let service: Provider
beforeEach(async () => {
  service = await startProvider({ body: 'paid' })
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
})

/** The result of a handler of the page, and how often the handler was suspended meanwhile. */
async function run(
  name: string,
  payload: unknown,
): Promise<{ readonly result: unknown; readonly suspensions: number }> {
  // The runner has to be of the same copy of the SDK as the handler.
  const [{ handler }, { LocalDurableTestRunner }] = await coldStart(
    () => Promise.all([import(modules.path(name)), import('@aws/durable-execution-sdk-js-testing')]),
    { PAYMENTS_URL: service.url, CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1', CIRCUIT_BREAKER_RESET_TIMEOUT: '1000' },
  )
  await LocalDurableTestRunner.setupTestEnvironment()
  let suspensions = 0
  const handlerFunction = async (event: unknown, context: Context) => {
    const end = await handler(event, context)
    if (end.Status === 'PENDING') suspensions++
    return end
  }
  try {
    const runner = new LocalDurableTestRunner({ handlerFunction: handlerFunction as never })
    return { result: (await runner.run({ payload })).getResult(), suspensions }
  } finally {
    await LocalDurableTestRunner.teardownTestEnvironment()
  }
}

it('the handler with Middy sleeps until the service is back', async () => {
  service.react(() => (service.requests.length === 1 ? { status: 503 } : { body: 'paid' }))
  const { result, suspensions } = await run('withMiddy', { id: 'order-7' })
  expect(result).toBe('paid')
  expect(suspensions).toBeGreaterThan(0)
  expect(service.requests.map(({ url }) => url)).toEqual(['/order-7', '/order-7'])
})

it('the handler without Middy sleeps until the service is back', async () => {
  service.react(() => (service.requests.length === 1 ? { status: 503 } : {}))
  const { result, suspensions } = await run('withoutMiddy', { url: service.url })
  expect(result).toBe(200)
  expect(suspensions).toBeGreaterThan(0)
  expect(service.requests).toHaveLength(2)
})
