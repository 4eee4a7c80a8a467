/** Bodies that real clients hand out, from a server that breaks them off, keeps them waiting or answers a 503. */

import { createServer, get, Agent as HttpAgent, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, describe, expect, it } from '@jest/globals'
import axios from 'axios'
import ky from 'ky'
import OpenAI from 'openai'
import { Agent, request, fetch as undiciFetch } from 'undici'
import { CircuitBreaker, type OperationContext } from '../../src/index.ts'
import { waitFor } from '../support/time.ts'

const half = '{"half": "of it'
const event = 'data: {"choices":[{"delta":{"content":"half"}}]}\n\n'

/** The path says how it answers: `whole`, `cut`, `held` or `busy`. */
const server = createServer((incoming, response) => {
  const how = /whole|cut|held|busy/.exec(incoming.url ?? '')?.[0]
  const isStream = incoming.url?.endsWith('completions')
  const body = isStream ? event : half
  incoming.resume()
  response.writeHead(how === 'busy' ? 503 : 200, {
    'content-type': isStream ? 'text/event-stream' : 'application/json',
    'content-length': how === 'whole' ? body.length + 2 : body.length + 100,
  })
  if (how === 'whole') response.end(`${body}${isStream ? '\n\n' : '"}'}`)
  else response.write(body, () => how === 'cut' && response.destroy())
})
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }
const s3 = new S3Client({ endpoint: url, region: 'eu-west-1', credentials, forcePathStyle: true, maxAttempts: 1 })
const openai = (how: string) => new OpenAI({ baseURL: `${url}/${how}`, apiKey: 'test', maxRetries: 0 })
const overHttp = (path: string, { signal }: OperationContext, agent?: HttpAgent) =>
  new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}/${path}`, { signal, ...(agent && { agent }) }, resolve).on('error', reject)
  })

async function last(chunks: AsyncIterable<unknown> | null | undefined): Promise<unknown> {
  let seen: unknown
  for await (const chunk of chunks ?? []) seen = chunk
  return seen
}

/** Each client asks, and its caller reads. */
const clients: Readonly<Record<string, (call: Watched, how: string) => Promise<unknown>>> = {
  'fetch, text()': async (call, how) => (await call((context) => fetch(`${url}/${how}`, context))).text(),
  'fetch, json()': async (call, how) => (await call((context) => fetch(`${url}/${how}`, context))).json(),
  'fetch, its body': async (call, how) => last((await call((context) => fetch(`${url}/${how}`, context))).body),
  'fetch, a clone': async (call, how) => (await call((context) => fetch(`${url}/${how}`, context))).clone().text(),
  'fetch, its bare body': async (call, how) =>
    last(await call(async (context) => (await fetch(`${url}/${how}`, context)).body)),
  'undici fetch': async (call, how) => (await call(({ signal }) => undiciFetch(`${url}/${how}`, { signal }))).text(),
  'undici request': async (call, how) => (await call(({ signal }) => request(`${url}/${how}`, { signal }))).body.text(),
  'node:http': async (call, how) => text(await call((context) => overHttp(how, context))),
  'axios, a stream': async (call, how) =>
    text((await call(({ signal }) => axios.get(`${url}/${how}`, { signal, responseType: 'stream' }))).data),
  ky: async (call, how) => (await call(({ signal }) => ky(`${url}/${how}`, { signal, retry: 0 }))).text(),
  S3: async (call, how) => {
    const command = new GetObjectCommand({ Bucket: how, Key: 'key' })
    return (await call(({ signal }) => s3.send(command, { abortSignal: signal }))).Body?.transformToString()
  },
  'openai, a stream': async (call, how) =>
    last(
      await call(({ signal }) =>
        openai(how).chat.completions.create({ model: 'any', messages: [], stream: true }, { signal }),
      ),
    ),
}

type Watched = <T>(operation: (context: OperationContext) => PromiseLike<T>) => Promise<T>

function start(settings = {}) {
  const breaker = new CircuitBreaker(
    { services: ['shop'], storage: 'memory', maxConcurrent: 1, ...settings },
    { env: {} },
  )
  const call: Watched = (operation) => breaker.call('shop', operation, { until: 'consumed' })
  return { breaker, call }
}

describe.each(Object.entries(clients))('a body that its caller reads after the call: %s', (_name, ask) => {
  it('opens the circuit where it breaks off half-way, three times', async () => {
    const { breaker, call } = start()
    for (let attempt = 0; attempt < 3; attempt++) await expect(ask(call, 'cut')).rejects.toBeTruthy()
    await waitFor('the circuit is open', () => breaker.circuits.shop.state === 'OPEN')
    await expect(ask(call, 'whole')).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
  })

  it('is a success where it is whole, and gives its permit back', async () => {
    const { breaker, call } = start()
    for (let attempt = 0; attempt < 3; attempt++) expect(await ask(call, 'whole')).toBeTruthy()
    expect(breaker.circuits.shop).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it('is cut by the timeout where the service keeps it waiting', async () => {
    const { breaker } = start({ failureThreshold: 1 })
    const timed: Watched = (operation) => breaker.call('shop', operation, { until: 'consumed', timeout: 300 })
    await expect(ask(timed, 'held')).rejects.toBeTruthy()
    await waitFor('the circuit is open', () => breaker.circuits.shop.state === 'OPEN')
  })
})

describe('a 503 that nobody reads, in a pool of two connections,', () => {
  const dispatcher = new Agent({ connections: 2, pipelining: 1 })
  const agent = new HttpAgent({ maxSockets: 2, keepAlive: true })
  afterAll(async () => {
    agent.destroy()
    await dispatcher.destroy()
  })
  const pooled: Readonly<Record<string, (context: OperationContext) => PromiseLike<unknown>>> = {
    'fetch of undici': ({ signal }) => undiciFetch(`${url}/busy`, { signal, dispatcher }),
    'request of undici': ({ signal }) => request(`${url}/busy`, { signal, dispatcher }),
    'node:http': (context) => overHttp('busy', context, agent),
    'axios, which throws it': ({ signal }) =>
      axios.get(`${url}/busy`, { signal, httpAgent: agent, responseType: 'stream' }),
  }
  const busy = () => new CircuitBreaker({ services: ['shop'], storage: 'memory', failureThreshold: 100 }, { env: {} })

  it.each(Object.entries(pooled))('gives its connection back when a fallback has answered: %s', async (_name, ask) => {
    const breaker = busy()
    for (let call = 0; call < 5; call++) {
      expect(await breaker.call('shop', ask, { fallback: (_error) => 'instead' })).toBe('instead')
    }
  })

  it('gives it back before a fallback runs that takes nothing, and may need it', async () => {
    const breaker = busy()
    const fallback = async () => (await undiciFetch(`${url}/whole`, { dispatcher })).text()
    const calls = [1, 2, 3, 4].map(() =>
      breaker.call('shop', pooled['fetch of undici'] as typeof fallback, { fallback }),
    )
    for (const answer of await Promise.all(calls)) expect(answer).toContain('half')
  })

  it('gives it back where the answer comes after the call was cut', async () => {
    const breaker = busy()
    for (let call = 0; call < 5; call++) {
      const answered = Promise.withResolvers<void>()
      const operation = async () => {
        await answered.promise
        return undiciFetch(`${url}/busy`, { dispatcher })
      }
      const cut = breaker.call('shop', operation, { timeout: 5 })
      await expect(cut).rejects.toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
      answered.resolve()
    }
    const { status } = await undiciFetch(`${url}/whole`, { dispatcher })
    expect(status).toBe(200)
  })
})
