/** Runs the examples of `docs/understand/failures.md` and `classifiers.md`, as they stand there. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import type { CircuitBreaker, CircuitBreakerMiddleware } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { gaps } from '../clients/verdicts.ts'

interface Examples {
  readonly counting429: CircuitBreakerMiddleware<'stripe'>
  readonly without501: CircuitBreakerMiddleware<'legacy'>
  readonly countingThrottling: CircuitBreakerMiddleware<'ses' | 'inventory'>
  readonly countingDeclines: CircuitBreakerMiddleware<'stripe'>
  readonly knowingAnswers: CircuitBreakerMiddleware<'crm'>
  readonly countingMessages: CircuitBreakerMiddleware<'database'>
  readonly breaker: CircuitBreaker<'shop'>
  readonly read: (url: string) => Promise<{ readonly status: number; readonly body: string }>
  readonly files: CircuitBreaker<'files'>
  readonly open: (url: string) => Promise<Response>
  readonly crm: CircuitBreaker<'crm'>
  readonly find: (ask: () => Promise<object>) => Promise<unknown>
}

const root = join(import.meta.dirname, '..', '..')
const read = (page: string): Promise<string> => readFile(join(root, 'docs', 'understand', page), 'utf8')
let folder: string
let examples: Examples

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'circuit-examples-'))
  const pages = await Promise.all(['failures.md', 'classifiers.md'].map(read))
  const blocks = [...pages.join('').matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, block]) => block as string)
  const modules = await Promise.all(
    blocks.map(async (block, index) => {
      const file = join(folder, `example-${index}.ts`)
      await writeFile(file, block.replace("'middy-circuit-breaker'", JSON.stringify(join(root, 'src', 'index.ts'))))
      return import(pathToFileURL(file).href)
    }),
  )
  examples = Object.assign({}, ...modules)
  expect(Object.keys(examples)).toHaveLength(12)
})
afterAll(() => rm(folder, { recursive: true }))

const thrown = (properties: object) => () => Promise.reject(Object.assign(new Error('m'), properties))
const returned =
  (status: number, headers = {}) =>
  () =>
    Promise.resolve(new Response('', { status, headers }))

/** The states of a circuit after so many failures in a row as would open it: one state for each operation. */
async function learned<K extends string>(
  middleware: CircuitBreakerMiddleware<K>,
  service: K,
  operations: readonly (() => Promise<unknown>)[],
): Promise<string[]> {
  const handler = middy<() => Promise<unknown>, string>()
    .use(middleware)
    .handler(async (operation, context) => {
      const { callExternal, circuits } = context as unknown as {
        callExternal: (key: K, operation: () => Promise<unknown>) => Promise<unknown>
        circuits: Record<K, { readonly state: string }>
      }
      for (let attempt = 0; attempt < 3; attempt++) await callExternal(service, operation).catch(() => undefined)
      return circuits[service].state
    })
  const states: string[] = []
  for (const operation of operations) states.push(await handler(operation, createTestContext()))
  return states
}

describe('the examples of docs/understand/failures.md and classifiers.md', () => {
  it('count a 429, thrown or returned, and still a 503 and no 404', async () => {
    const { counting429 } = examples
    expect(await learned(counting429, 'stripe', [thrown({ status: 404 }), returned(404), returned(429)])).toEqual([
      'CLOSED',
      'CLOSED',
      'OPEN',
    ])
  })

  it('leave a 501 out, thrown or returned, and no other', async () => {
    const { without501 } = examples
    const operations = [thrown({ status: 501 }), returned(501), thrown({ response: { status: 502 } })]
    expect(await learned(without501, 'legacy', operations)).toEqual(['CLOSED', 'CLOSED', 'OPEN'])
  })

  it('count throttling by name and by code', async () => {
    const { countingThrottling } = examples
    const aws = (name: string) => thrown({ name, $fault: 'client', $metadata: { httpStatusCode: 400 } })
    const grpc = (code: number) => thrown({ code, details: '', metadata: {} })
    const ses = [aws('ValidationException'), aws('ThrottlingException')]
    expect(await learned(countingThrottling, 'ses', ses)).toEqual(['CLOSED', 'OPEN'])
    expect(await learned(countingThrottling, 'inventory', [grpc(3), grpc(8)])).toEqual(['CLOSED', 'OPEN'])
  })

  it('count a business error', async () => {
    const { countingDeclines } = examples
    const declined = (code: string) => thrown({ type: 'StripeCardError', statusCode: 402, code })
    const operations = [declined('card_declined'), declined('processing_error')]
    expect(await learned(countingDeclines, 'stripe', operations)).toEqual(['CLOSED', 'OPEN'])
  })

  it('say what an error without a status means', async () => {
    const { knowingAnswers } = examples
    const [known, offline, refused] = ['CUSTOMER_UNKNOWN', 'OFFLINE_MODE', 'ECONNREFUSED'].map((code) =>
      thrown({ code }),
    )
    const learnt = [known, offline, refused] as readonly (() => Promise<unknown>)[]
    expect(await learned(knowingAnswers, 'crm', learnt)).toEqual(['CLOSED', 'CLOSED', 'OPEN'])
  })

  it('count by message what the databases’ clients hide', async () => {
    const { countingMessages } = examples
    const plain = (message: string) => () => Promise.reject(new Error(message))
    const [other, hidden] = ['something else', 'Connection terminated unexpectedly']
    expect(await learned(countingMessages, 'database', [plain(other), plain(hidden)])).toEqual(['CLOSED', 'OPEN'])
  })

  it('name every message of a gap that is not an error of the protocol', async () => {
    const page = await read('classifiers.md')
    const named = [...page.matchAll(/^ {2}'(.+)',$/gm)].map(([, message]) => message as string)
    for (const [fault, message] of Object.values(gaps).flatMap((faults) => Object.entries(faults))) {
      // A cancellation has the same message as the timeout, and only the breaker's own timeout tells them apart.
      if (fault === 'malformed answer' || /aborted/.test(message.source)) continue
      expect({ fault, isNamed: named.some((name) => message.test(name)) }).toEqual({ fault, isNamed: true })
    }
  })

  it('see a body that breaks off, because they read it inside the guard, or watch it until it is consumed', async () => {
    const { breaker, read, files, open } = examples
    const server = createServer((_, response) => {
      response.writeHead(200, { 'content-length': 100 }).write('half', () => response.destroy())
    })
    const url = await listen(server)
    for (let attempt = 0; attempt < 3; attempt++) {
      await expect(read(url)).rejects.toThrow('terminated')
      await expect((await open(url)).text()).rejects.toThrow('terminated')
    }
    server.close()
    expect(breaker.circuits.shop.state).toBe('OPEN')
    expect(files.circuits.files.state).toBe('OPEN')
  })

  it('classify an SDK’s returned errors, and return them untouched', async () => {
    const { crm, find } = examples
    const results = [{ data: {} }, { error: { code: 'NOT_FOUND', status: 404 } }, { error: { status: 503 } }]
    const states: string[] = []
    for (const result of results) {
      for (let attempt = 0; attempt < 3; attempt++) expect(await find(async () => result)).toBe(result)
      states.push(crm.circuits.crm.state)
    }
    expect(states).toEqual(['CLOSED', 'CLOSED', 'OPEN'])
  })
})

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}
