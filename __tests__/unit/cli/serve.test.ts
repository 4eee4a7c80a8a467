import { request } from 'node:http'
import { afterEach, describe, expect, it } from '@jest/globals'
import { placeIn, put } from '../../../scripts/scripted-circuits.ts'
import { type ServedPage, servePage } from '../../../src/cli/serve.ts'
import { systemRuntime } from '../../../src/runtime.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'
import { waitFor } from '../../support/time.ts'

let served: ServedPage | undefined

afterEach(async () => {
  await served?.close()
  served = undefined
})

interface Sent {
  readonly path?: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

interface Received {
  readonly status: number | undefined
  readonly headers: NodeJS.Dict<string | string[]>
  readonly body: string
}

async function start(allowWrites: boolean): Promise<{ storage: MemoryCircuitStorage; origin: string; token: string }> {
  const storage = new MemoryCircuitStorage()
  await put(storage, 'stripe', {}, Date.now())
  served = await servePage(placeIn(storage), { port: 0, allowWrites, clock: systemRuntime })
  const { origin, hash } = new URL(served.address)
  return { storage, origin, token: hash.replace('#token=', '') }
}

function ask(origin: string, { path = '/', method = 'GET', headers = {}, body = '' }: Sent): Promise<Received> {
  const { promise, resolve, reject } = Promise.withResolvers<Received>()
  const sent = request(`${origin}${path}`, { method, headers }, (response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', (chunk) => {
      text += chunk
    })
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: text }))
  })
  sent.on('error', reject)
  sent.end(body)
  return promise
}

const deed = (origin: string, token: string, changes: Sent = {}): Promise<Received> => {
  const { headers, ...rest } = changes
  return ask(origin, {
    path: '/deeds',
    method: 'POST',
    headers: { Origin: origin, Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify({ deed: 'open', key: 'stripe', why: 'maintenance', duration: '10m' }),
    ...rest,
  })
}

const overrideIn = async (storage: MemoryCircuitStorage) => (await storage.getState('stripe'))?.override

describe('the server of the page', () => {
  it('forces a circuit for its own page', async () => {
    const { storage, origin, token } = await start(true)
    expect(await deed(origin, token)).toMatchObject({ status: 200 })
    expect(await overrideIn(storage)).toMatchObject({ state: 'OPEN', why: 'maintenance', until: expect.any(Number) })
  })

  it.each<[string, number, Sent]>([
    ['from another origin', 403, { headers: { Origin: 'http://evil.example' } }],
    ['from a page of the same machine on another port', 403, { headers: { Origin: 'http://127.0.0.1:1' } }],
    ['without an origin', 403, { headers: { Origin: '' } }],
    ['that the browser calls cross-site', 403, { headers: { 'Sec-Fetch-Site': 'cross-site' } }],
    ['without the token', 401, { headers: { Authorization: '' } }],
    ['with another token', 401, { headers: { Authorization: `Bearer ${'x'.repeat(32)}` } }],
    ['of a form', 415, { headers: { 'Content-Type': 'text/plain' } }],
    ['under another name of the host', 421, { headers: { Host: 'rebound.example' } }],
    ['by GET', 405, { method: 'GET', body: '' }],
    ['that is no JSON', 400, { body: '{' }],
    ['that is null', 400, { body: 'null' }],
    ['that is too long', 413, { body: JSON.stringify({ deed: 'open', key: 'stripe', why: 'x'.repeat(20_000) }) }],
    ['for another deed', 400, { body: JSON.stringify({ deed: 'delete', key: 'stripe', why: 'x' }) }],
    ['for no circuit', 400, { body: JSON.stringify({ deed: 'open', key: '', why: 'x' }) }],
    ['without a reason', 400, { body: JSON.stringify({ deed: 'open', key: 'stripe', why: ' ' }) }],
    [
      'for a time that is none',
      400,
      { body: JSON.stringify({ deed: 'open', key: 'stripe', why: 'x', duration: '9' }) },
    ],
  ])('changes nothing at a request %s', async (_what, status, sent) => {
    const { storage, origin, token } = await start(true)
    expect(await deed(origin, token, sent)).toMatchObject({ status })
    expect(await overrideIn(storage)).toBeUndefined()
  })

  it('changes nothing where it may only look', async () => {
    const { storage, origin } = await start(false)
    expect(await deed(origin, 'x')).toMatchObject({ status: 403 })
    expect(await overrideIn(storage)).toBeUndefined()
  })

  it.each(['/', '/page.css', '/page.js', '/nothing'])(
    'sends %s with a policy that lets nothing else in',
    async (path) => {
      const { origin } = await start(false)
      const { headers, status } = await ask(origin, { path })
      expect(status).toBe(path === '/nothing' ? 404 : 200)
      expect(headers['content-security-policy']).toMatch(/default-src 'none'.*frame-ancestors 'none'/)
      expect(headers['x-content-type-options']).toBe('nosniff')
      expect(headers).not.toHaveProperty('access-control-allow-origin')
    },
  )

  it('is read under no other name of the host', async () => {
    const { origin } = await start(false)
    for (const path of ['/', '/events']) {
      expect(await ask(origin, { path, headers: { Host: 'rebound.example' } })).toMatchObject({ status: 421 })
    }
  })

  it('reads nothing while nobody looks', async () => {
    const { storage, origin } = await start(false)
    let reads = 0
    const { batchGetState } = storage
    storage.batchGetState = (keys) => {
      reads++
      return batchGetState.call(storage, keys)
    }
    await ask(origin, {})
    expect(reads).toBe(0)
    const looking = request(`${origin}/events`)
    looking.on('error', () => {})
    looking.end()
    await waitFor('the circuits are read', () => reads > 0)
    looking.destroy()
  })
})
