/**
 * Runs the blocks of the README and of the pages that stand for themselves, as they stand there, against a service that fails.
 *
 * @module
 */

import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { CircuitBreaker, type CircuitBreakerMiddleware } from 'middy-circuit-breaker'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { coldStart } from '../examples/cold-start.ts'
import { type Provider, startProvider } from '../examples/provider.ts'
import { useStoppedTime } from '../examples/set-up.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { codeBlocks, modulesUnder, type WrittenModules, writeModules } from './code-blocks.ts'

interface Answer {
  readonly status: number
  readonly body: string
}
interface Deployed<Event> {
  readonly handler: (event: Event, context: Context) => Promise<Answer>
}

let dynamodb: DynamoDBServer
let modules: WrittenModules
let service: Provider

beforeAll(async () => {
  ;[dynamodb, modules, service] = await Promise.all([
    startDynamoDBLocal(),
    writeModules({
      protectedCall: only('README.md', 'A protected call'),
      locate: only('README.md', 'A protected call'),
      trying: only('docs/use/getting-started.md', 'See its circuit open'),
      withoutMiddy: only('docs/use/getting-started.md', 'Without Middy'),
      watching: only('docs/operate/rollout.md', '1. Watch'),
      undoing: only('docs/operate/rollout.md', '3. Roll back'),
      opening: only('docs/use/testing.md', 'Try a fallback in production'),
      settings: only('docs/use/settings.md', 'Settings'),
      loading: only('docs/understand/cold-starts.md', 'Load the library while the function starts'),
      pay: 'export const pay = async (_event: unknown, { circuits }: any) => circuits.stripe.state',
    }),
    startProvider({ body: 'well' }),
  ])
})
afterAll(async () => {
  await Promise.all([dynamodb.stop(), modules[Symbol.asyncDispose](), service[Symbol.asyncDispose]()])
})

const time = useStoppedTime()

/** What a function in Lambda has in its environment, with a table of its own. */
async function environment(): Promise<Record<string, string>> {
  return {
    CIRCUIT_BREAKER_TABLE_NAME: await dynamodb.createTable(),
    ...dynamodb.variables,
    ...patientVariables,
    GEOLOCATION_URL: service.url,
  }
}

function deployed<Event = { ip: string }>(
  name: string,
  variables: Readonly<Record<string, string>>,
): Promise<Deployed<Event>> {
  return coldStart(() => import(modules.path(name)), variables)
}

describe('the protected call of the README', () => {
  it('works as it is outside Lambda, and falls back', async () => {
    const { handler } = await deployed('protectedCall', { GEOLOCATION_URL: service.url })
    service.react(({ url }) => ({ body: `${url} is in Ghent` }))
    const ask = () => handler({ ip: '192.0.2.1' }, createTestContext())
    expect(await ask()).toEqual({ status: 200, body: '/192.0.2.1 is in Ghent' })
    service.react({ status: 503 })
    expect(await ask()).toEqual({ status: 200, body: 'unknown' })
    service.react({ status: 404, body: 'nobody knows' })
    expect(await ask()).toEqual({ status: 404, body: 'nobody knows' })
  })

  it('is refused, also in a new instance, once three calls have failed with an existing table', async () => {
    const variables = await environment()
    service.react('breaks')
    const before = service.requests.length
    const ask = async ({ handler }: Deployed<{ ip: string }>) => {
      expect(await handler({ ip: '192.0.2.1' }, createTestContext())).toEqual({ status: 200, body: 'unknown' })
    }
    const first = await deployed('protectedCall', variables)
    await ask(first)
    await ask(await deployed('protectedCall', variables))
    await ask(first)
    await ask(first)
    // It has never called the service.
    await ask(await deployed('protectedCall', variables))
    expect(service.requests.length - before).toBe(3)
  })

  it('opens the circuit of a service that hangs, with the 3 s that Lambda gives by default', async () => {
    const { handler } = await deployed('protectedCall', { GEOLOCATION_URL: service.url })
    service.react('hangs')
    const before = service.requests.length
    const ask = () => handler({ ip: '192.0.2.1' }, createTestContext({ remainingTime: 2_990 }))
    // The deadline less its reserve cuts them, before the timeout of 2 s.
    const asking = Promise.all([ask(), ask(), ask()])
    await service.received(before + 3)
    await time.advance(1_990)
    await asking
    expect(await ask()).toEqual({ status: 200, body: 'unknown' })
    expect(service.requests.length - before).toBe(3)
  })

  it('is told inside Lambda that a store has to be chosen', async () => {
    const inLambda = { AWS_LAMBDA_FUNCTION_NAME: 'locate', GEOLOCATION_URL: service.url }
    await expect(deployed('protectedCall', inLambda)).rejects.toThrow('CIRCUIT_BREAKER_TABLE_NAME')
  })
})

describe('the first run of docs/use/getting-started.md', () => {
  it('prints what the page shows', async () => {
    const lines: string[] = []
    jest.spyOn(console, 'log').mockImplementation((line) => void lines.push(line))
    await using nobody = await startProvider('breaks')
    await coldStart(() => import(modules.path('trying')), { GEOLOCATION_URL: nobody.url })
    const [, shown] = codeBlocks('docs/use/getting-started.md').filter(
      ({ heading, language }) => heading === 'See its circuit open' && language !== 'ts',
    )
    expect(`${lines.join('\n')}\n`).toBe(shown?.code)
  })
})

describe('the call without Middy of docs/use/getting-started.md', () => {
  it('calls, tells the state and ends', async () => {
    const log = jest.spyOn(console, 'log').mockImplementation(() => {})
    const fetch = jest.spyOn(globalThis, 'fetch').mockResolvedValue(new Response(''))
    await coldStart(() => import(modules.path('withoutMiddy')), {})
    expect(fetch).toHaveBeenCalledTimes(1)
    expect(log).toHaveBeenCalledWith(200, 'CLOSED')
  })
})

describe('the roll-out of docs/operate/rollout.md', () => {
  it('refuses nothing while it observes, and logs what it would have refused', async () => {
    const log = jest.spyOn(console, 'log').mockImplementation(() => {})
    const { handler } = await deployed<{ url: string }>('watching', { CIRCUIT_BREAKER_MODE: 'observe' })
    const ask = () => handler({ url: service.url }, createTestContext())
    service.react({ status: 503, body: 'down' })
    const before = service.requests.length
    for (let call = 0; call < 4; call++) expect(await ask()).toEqual({ status: 503, body: 'down' })
    service.react({ body: 'well' })
    expect(await ask()).toEqual({ status: 200, body: 'well' })
    expect(service.requests.length - before).toBe(5)
    const lines = log.mock.calls.map(([line]) => JSON.parse(line as string))
    expect(lines).toEqual([
      expect.objectContaining({ message: 'circuit', service: 'shop', from: 'CLOSED', to: 'OPEN' }),
      { message: 'would be refused', status: 503 },
      { message: 'would be refused', status: 200 },
    ])
  })

  it('refuses once it enforces, without a change of code', async () => {
    jest.spyOn(console, 'log').mockImplementation(() => {})
    const variables = { CIRCUIT_BREAKER_MODE: 'observe', CIRCUIT_BREAKER_MODE__SHOP: 'enforce' }
    const { handler } = await deployed<{ url: string }>('watching', variables)
    service.react({ status: 503 })
    for (let call = 0; call < 3; call++) await handler({ url: service.url }, createTestContext())
    const refused = handler({ url: service.url }, createTestContext())
    await expect(refused).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
  })

  it('is undone for the whole fleet by an operator, as a circuit is opened on purpose', async () => {
    const log = jest.spyOn(console, 'log').mockImplementation(() => {})
    const variables = await environment()
    await coldStart(() => import(modules.path('opening')), variables)
    expect(log.mock.calls[0]?.[0]).toMatchObject(new Map([['shop', { override: { state: 'OPEN' } }]]))
    const { handler } = await deployed<{ url: string }>('watching', variables)
    const refused = handler({ url: service.url }, createTestContext())
    await expect(refused).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })

    await coldStart(() => import(modules.path('undoing')), variables)
    const next = await deployed<{ url: string }>('watching', variables)
    service.react({ status: 503, body: 'down' })
    for (let call = 0; call < 5; call++) {
      expect(await next.handler({ url: service.url }, createTestContext())).toEqual({ status: 503, body: 'down' })
    }
  })
})

describe('the other blocks that stand for themselves', () => {
  it('make the middleware of docs/use/settings.md', async () => {
    const { middleware } = await coldStart<{ middleware: CircuitBreakerMiddleware }>(
      () => import(modules.path('settings')),
      {},
    )
    expect(middleware).toMatchObject({ before: expect.any(Function), after: expect.any(Function) })
  })

  it('are refused in the words that docs/use/settings.md quotes', () => {
    const services = JSON.parse('{ "stripe": { "failureTreshold": 2 }, "paypal": { "timeout": 0 } }')
    const [quoted] = codeBlocks('docs/use/settings.md').filter(({ language }) => language === '')
    const create = () => new CircuitBreaker({ services }, { env: { CIRCUIT_BREAKER_RESET_TIMEOUT: '30s' } })
    expect(create).toThrow(
      expect.objectContaining({
        name: 'ConfigurationError',
        message: quoted?.code.trimEnd().replace('ConfigurationError: ', ''),
      }),
    )
  })

  it('read the circuits before the first invocation, as docs/understand/cold-starts.md has it', async () => {
    const { handler } = await deployed<object>('loading', await environment())
    expect(await handler({}, createTestContext())).toBe('CLOSED')
  })
})

function only(page: string, heading: string): string {
  const [module, ...others] = modulesUnder(page, heading)
  if (others.length > 0) throw new Error(`${page} has more than one block under "${heading}"`)
  return module as string
}
