/**
 * Runs the tests that `docs/use/testing.md` shows to users, on the handler that it shows them with, and what it says of errors.
 *
 * @module
 */

import { afterAll, describe, expect, it } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { startProvider } from '../examples/provider.ts'
import { stopTime } from '../examples/stopped-time.ts'
import { modulesUnder, writeModules } from './code-blocks.ts'

const [handler, test] = modulesUnder('docs/use/testing.md', 'A handler under test')
const [answering] = modulesUnder('docs/use/fallbacks.md', 'Tell the client')
const modules = await writeModules({ handler, test, answering } as Record<string, string>)
afterAll(async () => {
  await modules[Symbol.asyncDispose]()
})

// The tests in it become tests of this file.
await import(modules.path('test'))

describe('the handler that tells the client', () => {
  it('answers 502, 504 and 503 with Retry-After', async () => {
    const { handler } = (await import(modules.path('answering'))) as {
      handler: (event: { url: string }, context: Context) => Promise<Answer>
    }
    using time = stopTime()
    await using shop = await startProvider({ body: 'a book' })
    const ask = () => handler({ url: shop.url }, createTestContext())
    expect(await ask()).toEqual({ statusCode: 200, body: 'a book' })
    shop.react({ status: 503 })
    expect(await ask()).toEqual({ statusCode: 502, body: 'Bad gateway' })
    // Two seconds is what the page gives it.
    shop.react(() => time.hang(2_000))
    expect(await ask()).toMatchObject({ statusCode: 504 })
    expect(await ask()).toMatchObject({ statusCode: 504 })
    expect(await ask()).toMatchObject({ statusCode: 503, headers: { 'Retry-After': '10' } })
    expect(shop.requests).toHaveLength(4)
  })
})

interface Answer {
  readonly statusCode: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}
