/** The middleware beside others of Middy: each row of the table in `docs/use/middy.md` names one of these tests. */

import { readFile } from 'node:fs/promises'
import { Readable, Writable } from 'node:stream'
import { afterEach, describe, expect, it } from '@jest/globals'
import middy, { type MiddlewareObj } from '@middy/core'
import { executionModeStreamifyResponse } from '@middy/core/StreamifyResponse'
import httpErrorHandler from '@middy/http-error-handler'
import httpRouter from '@middy/http-router'
import sqsPartialBatchFailure from '@middy/sqs-partial-batch-failure'
import { getInternal } from '@middy/util'
import validator from '@middy/validator'
import { transpileSchema } from '@middy/validator/transpile'
import type { Context } from 'aws-lambda'
import {
  CircuitBreaker,
  type CircuitBreakerContext,
  circuitBreaker,
  type Internal,
  MemoryCircuitStorage,
} from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'

type Run = (event: unknown, context: Context) => Promise<unknown>

const context = (): Context => createTestContext() as Context
const unavailable = async () => {
  throw Object.assign(new Error('down'), { statusCode: 502, expose: true })
}
const options = () => ({ services: ['stripe'], storage: new MemoryCircuitStorage(), failureThreshold: 1 }) as const
const newBreaker = () => new CircuitBreaker(options(), { env: {} })

/** A breaker whose circuit is open. */
async function opened(): Promise<CircuitBreaker<'stripe'>> {
  const breaker = newBreaker()
  await breaker.call('stripe', unavailable).catch(() => {})
  return breaker
}

describe('@middy/http-error-handler', () => {
  it('answers a refusal with 503 and Retry-After, and a failure of the service as the service says', async () => {
    const handler = middy()
      .use(httpErrorHandler({ logger: false }))
      .use(circuitBreaker(options()))
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable)) as unknown as Run
    expect(await handler({}, context())).toMatchObject({ statusCode: 502, body: 'down' })
    expect(await handler({}, context())).toMatchObject({ statusCode: 503, headers: { 'Retry-After': '10' } })
  })
})

describe('@middy/http-router', () => {
  const get = (path: string) => ({ httpMethod: 'GET', path })

  it('hands callExternal on to its routes where the circuit breaker is around it', async () => {
    const breaker = newBreaker()
    const charge = async (_event: unknown, given: unknown) =>
      (given as CircuitBreakerContext<'stripe'>).callExternal('stripe', async () => 'charged')
    const handler = middy()
      .use(httpErrorHandler({ logger: false }))
      .use(circuitBreaker(breaker))
      .handler(httpRouter([{ method: 'GET', path: '/charge', handler: charge as never }]) as never) as unknown as Run
    expect(await handler(get('/charge'), context())).toBe('charged')
    // A route that does not exist is no failure of a service.
    expect(await handler(get('/no'), context())).toMatchObject({ statusCode: 404 })
    expect(breaker.circuits.stripe.state).toBe('CLOSED')
  })

  it('runs routes with circuit breakers of their own, which may share one', async () => {
    const breaker = await opened()
    const route = (path: string, with_: CircuitBreaker<'stripe'>) => ({
      method: 'GET' as const,
      path,
      handler: middy()
        .use(circuitBreaker(with_))
        .handler(async (_event, { circuits }) => circuits.stripe.state) as never,
    })
    const handler = httpRouter([
      route('/a', breaker),
      route('/b', breaker),
      route('/c', newBreaker()),
    ]) as unknown as Run
    const states = await Promise.all(['/a', '/b', '/c'].map((path) => handler(get(path), context())))
    expect(states).toEqual(['OPEN', 'OPEN', 'CLOSED'])
  })
})

describe('@middy/validator', () => {
  const eventSchema = transpileSchema({
    type: 'object',
    properties: { id: { type: 'number' } },
    required: ['id'],
  })

  it('refuses an event before the circuits are read, and a response after, which count for nothing', async () => {
    const breaker = newBreaker()
    const responseSchema = transpileSchema({ type: 'object' })
    const handler = middy()
      .use(httpErrorHandler({ logger: false }))
      .use(validator({ eventSchema, responseSchema }))
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => callExternal('stripe', async () => 'no object')) as unknown as Run
    expect(await handler({}, context())).toMatchObject({ statusCode: 400 })
    expect(breaker.needsLoad).toBe(true)
    expect(await handler({ id: 1 }, context())).toMatchObject({ statusCode: 500 })
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it('throws errors whose cause is no failure where a call is around it', async () => {
    const breaker = newBreaker()
    const inner = middy()
      .use(validator({ eventSchema }))
      .handler(async () => 1) as unknown as Run
    const call = breaker.call('stripe', () => inner({}, context()))
    await expect(call).rejects.toMatchObject({ statusCode: 400, cause: { package: '@middy/validator' } })
    expect(breaker.circuits.stripe.state).toBe('CLOSED')
  })
})

describe('@middy/sqs-partial-batch-failure', () => {
  it('returns the messages whose calls were refused to the queue', async () => {
    const breaker = newBreaker()
    const Records = [1, 2, 3].map((id) => ({ messageId: `m${id}`, body: id === 1 ? 'fine' : 'bad' }))
    const reasons: unknown[] = []
    const handler = middy<{ Records: typeof Records }>()
      .use(
        sqsPartialBatchFailure({ logger: (reason: Error) => void reasons.push(reason.name) } as never) as MiddlewareObj,
      )
      .use(circuitBreaker(breaker))
      .handler(async ({ Records: records }, { callExternal }) => {
        const outcomes: PromiseSettledResult<unknown>[] = []
        for (const { body } of records) {
          const call = () => (body === 'fine' ? Promise.resolve('sent') : unavailable())
          outcomes.push(...(await Promise.allSettled([callExternal('stripe', call)])))
        }
        return outcomes
      }) as unknown as Run
    expect(await handler({ Records }, context())).toEqual({
      batchItemFailures: [{ itemIdentifier: 'm2' }, { itemIdentifier: 'm3' }],
    })
    expect(reasons).toEqual(['Error', 'CircuitOpenError'])
  })
})

describe('@middy/util', () => {
  it('finds the circuits in request.internal, whole or in part, as they are at that moment', async () => {
    const found: unknown[] = []
    const reader: MiddlewareObj<unknown, unknown, Error, Context, Internal<'stripe'>> = {
      before: async (request) => {
        const all = await getInternal('circuits', request)
        const { state } = await getInternal({ state: 'circuits.stripe.state' }, request)
        found.push(all.circuits.stripe.service, state, Object.keys(await getInternal(true, request)))
      },
      onError: async (request) => {
        found.push(await getInternal(['circuits.stripe.state', 'circuits.paypal.state'], request))
      },
    }
    const handler = middy()
      .use(circuitBreaker(options()))
      .use(reader)
      .handler(async (_event, { callExternal }) => callExternal('stripe', unavailable)) as unknown as Run
    await expect(handler({}, context())).rejects.toThrow('down')
    const late = { circuits_stripe_state: 'OPEN', circuits_paypal_state: undefined }
    expect(found).toEqual(['stripe', 'CLOSED', ['circuits'], expect.objectContaining(late)])
  })

  it('finds the circuits of two circuit breakers on one handler, the later one first', async () => {
    const found: unknown[] = []
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe', 'paypal'], storage: 'memory', mode: 'off' }))
      .use(circuitBreaker({ services: ['stripe'], storage: 'memory' }))
      .use({ before: async (request) => void found.push(await getInternal(true, request)) })
      .handler(async (_event, { circuits }) => circuits) as unknown as Run
    const circuits = await handler({}, context())
    expect(found).toEqual([expect.objectContaining({ circuits })])
    expect(circuits).toMatchObject({ stripe: { mode: 'enforce' }, paypal: { mode: 'off' } })
  })
})

describe('streamed responses', () => {
  const globals = globalThis as { awslambda?: unknown }
  afterEach(() => {
    delete globals.awslambda
  })

  it('guards the calls that are made while the response is written', async () => {
    const breaker = newBreaker()
    const written: string[] = []
    const sink = new Writable({
      write: (chunk, _encoding, done) => {
        written.push(String(chunk))
        done()
      },
    })
    globals.awslambda = {
      streamifyResponse: (handler: unknown) => handler,
      HttpResponseStream: { from: (stream: unknown) => stream },
    }
    const handler = middy({
      executionMode: executionModeStreamifyResponse,
      requestEnd: () => breaker.flush(),
    } as never)
      .use(circuitBreaker(breaker))
      .handler((async (_event: unknown, { callExternal }: CircuitBreakerContext<'stripe'>) => {
        const name = () => callExternal('stripe', unavailable).catch((error: Error) => error.name)
        return Readable.from(
          (async function* () {
            yield `${await name()} `
            yield await name()
          })(),
        )
      }) as never) as unknown as (event: unknown, stream: Writable, context: Context) => Promise<unknown>
    await handler({}, sink, context())
    expect(written.join('')).toBe('Error CircuitOpenError')
    expect(breaker.needsFlush).toBe(false)
  })
})

describe('the tables of docs/use/middy.md', () => {
  it('name in each row the test that shows it', async () => {
    const page = await readFile(new URL('../../docs/use/middy.md', import.meta.url), 'utf8')
    const rows = page
      .split('\n')
      .filter((line) => line.startsWith('| ') && !/^\| (---|Middy's name|beside) /.test(line))
    expect(rows.length).toBeGreaterThan(12)
    for (const row of rows) {
      const [, file, name] = /\| `([\w/.-]+)`: ([^|]+) \|$/.exec(row) ?? [row]
      const source = await readFile(new URL(`../${file}.test.ts`, import.meta.url), 'utf8')
      const isThere = source.replaceAll("\\'", "'").includes(name as string)
      expect({ row, isThere }).toEqual({ row, isThere: true })
    }
  })
})
