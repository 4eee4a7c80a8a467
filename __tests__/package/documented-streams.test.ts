/**
 * Runs the handler of docs/understand/streams.md that passes a streamed body on, as it stands there, in Middy's streaming mode.
 *
 * @module
 */

import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough } from 'node:stream'
import { afterAll, beforeEach, describe, expect, it } from '@jest/globals'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { coldStart } from '../examples/cold-start.ts'
import { modulesUnder, writeModules } from './code-blocks.ts'

type Reaction = 'whole' | 'breaks off' | 'fails' | 'breaks'

interface Head {
  readonly statusCode: number
  readonly headers?: Readonly<Record<string, string>>
}

/** The part of Lambda's global that Middy uses. */
Object.assign(globalThis, {
  awslambda: {
    streamifyResponse: (handler: unknown) => handler,
    HttpResponseStream: { from: (stream: object, head: Head) => Object.assign(stream, { head }) },
  },
})

let reaction: Reaction = 'whole'
let requests = 0
const server: Server = createServer((_request, response) => {
  requests++
  if (reaction === 'breaks') return void response.destroy()
  response.writeHead(reaction === 'fails' ? 503 : 200, { 'content-length': '20' })
  if (reaction === 'breaks off') response.write('first half', () => response.destroy())
  else response.end('first half, and last')
})
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
const [block] = modulesUnder('docs/understand/streams.md', 'Pass a body on')
const modules = await writeModules({ report: block as string })
afterAll(async () => {
  server.closeAllConnections()
  await Promise.all([modules[Symbol.asyncDispose](), new Promise((resolve) => server.close(resolve))])
})

interface Answer extends Partial<Head> {
  readonly body: string
}

let ask: () => Promise<Answer>
beforeEach(async () => {
  const variables = { REPORTS_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  const { handler } = await coldStart(() => import(modules.path('report')), variables)
  requests = 0
  ask = async () => {
    const stream = new PassThrough() as PassThrough & { head?: Head }
    let body = ''
    stream.on('data', (chunk) => {
      body += chunk
    })
    await handler({}, stream, createTestContext())
    return { body, ...stream.head }
  }
})

describe('a streamed body that is passed on', () => {
  it('is passed on as it comes', async () => {
    reaction = 'whole'
    expect(await ask()).toMatchObject({ statusCode: 200, body: 'first half, and last' })
  })

  it('ends with a word of it where the service breaks it off, which counts: the next is refused with a 503', async () => {
    reaction = 'breaks off'
    for (let call = 0; call < 3; call++) {
      expect(await ask()).toEqual({
        statusCode: 200,
        headers: { 'content-type': 'application/jsonl' },
        body: 'first half\n{"error":"incomplete"}\n',
      })
    }
    expect(await ask()).toMatchObject({ statusCode: 503, headers: { 'Retry-After': '10' } })
    expect(requests).toBe(3)
  })

  it.each(['fails', 'breaks'] as const)('is answered with a 502 where the service %s before it', async (how) => {
    reaction = how
    expect(await ask()).toMatchObject({ statusCode: 502, body: 'The report is not available.' })
  })
})
