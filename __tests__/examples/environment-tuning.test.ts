import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import type { Finding } from 'middy-circuit-breaker'
import { createTestContext } from 'middy-circuit-breaker/testing'
import type { Charge, Unknown } from '../../examples/environment-tuning/handler.ts'
import { devDependencies } from '../../scripts/packages.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { warningsEmitted } from '../support/warning-texts.ts'
import { type Resource, readTemplate } from './cloudformation-template.ts'
import { coldStart } from './cold-start.ts'
import { type Provider, type ProviderAnswer, startProvider } from './provider.ts'
import { buildAsSam } from './sam-build.ts'
import { deployable } from './sam-template.ts'
import { type StoppedTime, stopTime } from './stopped-time.ts'

type Service = 'stripe' | 'rates'
type FunctionName = 'Checkout' | 'NightlyReport'

const second = 1_000
const charge: ProviderAnswer = { body: { id: 'ch_1', amount: 1_250, currency: 'usd' } }
const rate: ProviderAnswer = { body: { rate: 0.9 } }
const down: ProviderAnswer = { status: 503, body: '<html>Service Unavailable</html>' }
const found = { known: true, amount: 1_250, currency: 'usd', rate: 0.9 }
const refused = { known: false, why: 'refused' }

const folder = 'examples/environment-tuning'
const deploy = deployable(`${folder}/template.yaml`)
const { Resources: resources } = readTemplate(`${folder}/template.yaml`)

let dynamodb: DynamoDBServer

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})

afterAll(async () => {
  await dynamodb.stop()
})

describe.each<[FunctionName, Record<Service, number>, number]>([
  ['Checkout', { stripe: 2, rates: 4 }, 10 * second],
  ['NightlyReport', { stripe: 10, rates: 4 }, 60 * second],
])('%s', (name, thresholds, resetTimeout) => {
  it('finds a charge and its rate', async () => {
    await using world = await createWorld()
    const { lookUp } = await world.start(name)

    expect(await lookUp()).toEqual(found)

    expect(world.stripe.requests).toEqual([expect.objectContaining({ method: 'GET', url: '/v1/charges/ch_1' })])
    expect(world.stripe.requests[0]?.headers).toMatchObject({ authorization: 'Bearer sk_test_example' })
    expect(world.rates.requests.map(({ url }) => url)).toEqual(['/latest?from=usd&to=eur'])
  })

  it(`opens a circuit after as many failures as it is deployed with, for a new instance too`, async () => {
    await using world = await createWorld()
    const instance = await world.start(name)

    expect(await callsUntilRefused(instance, world, 'rates')).toBe(thresholds.rates)
    expect(await instance.lookUp()).toEqual({ known: true, amount: 1_250, currency: 'usd' })
    expect(await callsUntilRefused(instance, world, 'stripe')).toBe(thresholds.stripe)

    const another = await world.start(name)
    expect(await another.lookUp()).toEqual(refused)
    expect(world.stripe.requests).toHaveLength(thresholds.rates + 2 + thresholds.stripe)
  })

  it('tries again after the time that it is deployed with, and recovers', async () => {
    await using world = await createWorld()
    const instance = await world.start(name)
    await callsUntilRefused(instance, world, 'stripe')
    world.stripe.react(charge)

    await world.time.advance(resetTimeout - 3 * second)
    expect(await instance.lookUp()).toEqual(refused)

    // Probes are spread over a twentieth of the time, and over a second at most.
    await world.time.advance(5 * second)
    expect(await instance.lookUp()).toEqual(found)
  })

  it('refuses nothing in observe mode, but tells of what it would', async () => {
    await using world = await createWorld()
    const instance = await world.start(name, { parameters: { CircuitBreakerMode: 'observe' } })

    expect(await callsUntilRefused(instance, world, 'stripe')).toBe(Number.POSITIVE_INFINITY)

    expect(world.told).toEqual([
      {
        message: 'The circuit of stripe is OPEN now',
        service: 'stripe',
        from: 'CLOSED',
        to: 'OPEN',
        reason: 'failure-threshold',
      },
    ])
  })
})

it('Checkout gives up on an answer that NightlyReport still waits for', async () => {
  await using world = await createWorld()
  const checkout = await world.start('Checkout')
  const report = await world.start('NightlyReport')
  const givenUp = Promise.withResolvers<void>()
  world.stripe.react(async () => {
    await givenUp.promise
    return charge
  })

  const patient = report.lookUp()
  await world.stripe.received(1)
  expect(world.time.timers).not.toContain(800)
  const impatient = checkout.lookUp()
  await world.stripe.received(2)
  expect(world.time.timers).toContain(800)
  await world.time.advance(800)

  expect(await impatient).toEqual({ known: false, why: 'too slow' })
  givenUp.resolve()
  expect(await patient).toEqual(found)
})

describe('Functions with one table', () => {
  it('have circuits of their own where one has a namespace', async () => {
    await using world = await createWorld()
    const checkout = await world.start('Checkout')
    const report = await world.start('NightlyReport')

    await callsUntilRefused(checkout, world, 'stripe')
    world.stripe.react(charge)

    expect(await report.lookUp()).toEqual(found)
    expect(await checkout.lookUp()).toEqual(refused)
  })

  it('share a circuit where none has: the one that is less patient opens it, for as long as it says', async () => {
    await using world = await createWorld()
    const shared = { parameters: { ReportNamespace: '' } }
    const checkout = await world.start('Checkout', shared)

    await callsUntilRefused(checkout, world, 'stripe')
    const report = await world.start('NightlyReport', shared)
    expect(await report.lookUp()).toEqual(refused)

    // Not for the minute that the report would have it open.
    world.stripe.react(charge)
    await world.time.advance(12 * second)
    expect(await report.lookUp()).toEqual(found)
  })

  it('wait for no longer than their own maxResetTimeout, whoever opened the circuit', async () => {
    await using world = await createWorld()
    const shared = { parameters: { ReportNamespace: '' } }
    const report = await world.start('NightlyReport', shared)

    expect(await callsUntilRefused(report, world, 'stripe')).toBe(10)
    const checkout = await world.start('Checkout', shared)
    await world.time.advance(16 * second)
    expect([await checkout.lookUp(), await report.lookUp()]).toEqual([refused, refused])

    world.stripe.react(charge)
    await world.time.advance(7 * second)
    expect(await report.lookUp()).toEqual(refused)
    expect(await checkout.lookUp()).toEqual(found)
  })

  it('open a shared circuit also in observe mode, and those that enforce it refuse', async () => {
    await using world = await createWorld()
    const observing = { parameters: { ReportNamespace: '', CircuitBreakerMode: 'observe' } }
    const report = await world.start('NightlyReport', observing)

    expect(await callsUntilRefused(report, world, 'stripe')).toBe(Number.POSITIVE_INFINITY)

    expect(await (await world.start('Checkout')).lookUp()).toEqual(refused)
  })
})

describe('Each function', () => {
  it.each(['Checkout', 'NightlyReport'] as const)(
    '%s finds nothing wrong with itself, and asks nobody',
    async (name) => {
      await using world = await createWorld()
      // The store of these tests is more patient than either function.
      const variables = { CIRCUIT_BREAKER_STORAGE_TIMEOUT: '500' }

      const findings = await (await world.start(name, { variables })).check()

      expect(findings.filter(({ severity }) => severity === 'error')).toEqual([])
      expect(findings.map(({ code }) => code)).not.toContain('timeout-beyond-deadline')
      expect([...world.stripe.requests, ...world.rates.requests]).toEqual([])
    },
  )
})

describe('A setting', () => {
  const threshold = 'CIRCUIT_BREAKER_FAILURE_THRESHOLD'

  it.each<[string, Record<string, string>, Service, number]>([
    ['has its default where nothing else is said', {}, 'stripe', 3],
    ['is the service’s option rather than the default', {}, 'rates', 4],
    ['is the variable rather than the default', { [threshold]: '2' }, 'stripe', 2],
    ['is the service’s option rather than the variable', { [threshold]: '2' }, 'rates', 4],
    ['is the service’s variable rather than the service’s option', { [`${threshold}__RATES`]: '1' }, 'rates', 1],
    [
      'is the service’s variable rather than the variable',
      { [threshold]: '2', [`${threshold}__STRIPE`]: '5' },
      'stripe',
      5,
    ],
    ['has its default where the variable is empty', { [threshold]: '' }, 'stripe', 3],
  ])('%s', async (_, variables, service, calls) => {
    await using world = await createWorld()
    const instance = await world.start(undefined, { variables })

    expect(await callsUntilRefused(instance, world, service)).toBe(calls)
  })

  const reset = 'CIRCUIT_BREAKER_RESET_TIMEOUT'

  it.each<[string, Record<string, string>, number]>([
    ['is the option rather than the default', {}, 15],
    ['is the variable rather than the option', { [reset]: '7000' }, 7],
    ['is the service’s variable rather than any', { [reset]: '7000', [`${reset}__STRIPE`]: '30000' }, 30],
  ])('%s', async (_, variables, seconds) => {
    await using world = await createWorld()
    const instance = await world.start(undefined, { variables })
    await callsUntilRefused(instance, world, 'stripe')
    world.stripe.react(charge)

    await world.time.advance((seconds - 3) * second)
    expect(await instance.lookUp()).toEqual(refused)
    await world.time.advance(5 * second)
    expect(await instance.lookUp()).toEqual(found)
  })

  it.each<[string, Record<string, string>, number]>([
    ['of 5 s is the longest that a call takes where nothing else is said', {}, 5 * second],
    ['is the variable rather than that', { CIRCUIT_BREAKER_TIMEOUT: '7000' }, 7 * second],
  ])('%s', async (_, variables, limit) => {
    await using world = await createWorld()
    const { lookUp } = await world.start(undefined, { variables })
    using timers = jest.spyOn(globalThis, 'setTimeout')

    await lookUp()

    expect(timers.mock.calls.map(([, delay]) => delay)).toContain(limit)
  })

  it('whose variable is misspelt is left alone, with a warning that says what was meant', async () => {
    await using world = await createWorld()
    using warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})

    const instance = await world.start('Checkout', {
      variables: { CIRCUIT_BREAKER_FAILURE_TRESHOLD__RATES: '1', CIRCUIT_BREAKER_RESET_TIMEOUT__STRIP: '1' },
    })

    await warningsEmitted()
    expect(warn.mock.calls.map(([message]) => message)).toEqual([
      expect.stringContaining('did you mean CIRCUIT_BREAKER_FAILURE_THRESHOLD__RATES?'),
      expect.stringContaining('did you mean CIRCUIT_BREAKER_RESET_TIMEOUT__STRIPE?'),
    ])
    expect(await callsUntilRefused(instance, world, 'rates')).toBe(4)
  })

  it('whose variable makes no sense ends the start of the function, with all that is wrong', async () => {
    await using world = await createWorld()
    const variables = { CIRCUIT_BREAKER_TIMEOUT: '0.8s', [threshold]: '0', CIRCUIT_BREAKER_MODE__STRIPE: 'observed' }

    const starting = world.start('Checkout', { variables })

    await expect(starting).rejects.toMatchObject({
      name: 'ConfigurationError',
      problems: Object.keys(variables).map((source) => expect.objectContaining({ source })),
    })
  })
})

describe('The function', () => {
  it.each<[string, ProviderAnswer | 'hangs' | 'breaks', Partial<Unknown>]>([
    ['breaks the connection', 'breaks', { why: 'down' }],
    ['answers with a page', { body: '<html>' }, { why: 'down' }],
    ['hangs', 'hangs', { why: 'too slow' }],
  ])('does not know a charge, and opens the circuit, when Stripe %s', async (_, how, answer) => {
    await using world = await createWorld()
    const { lookUp } = await world.start('Checkout')
    world.stripe.react(() => (how === 'hangs' ? world.time.hang(800) : how))

    expect([await lookUp(), await lookUp(), await lookUp()]).toEqual([
      { known: false, ...answer },
      { known: false, ...answer },
      refused,
    ])
  })

  it.each(['sk_test_\nexample', 'sk_test_examplé', ' '])(
    'does not start with the key %j, and does not tell it',
    async (key) => {
      await using world = await createWorld()

      const starting = world.start('Checkout', { variables: { STRIPE_API_KEY: key } })

      await expect(starting).rejects.toThrow(/^STRIPE_API_KEY has to be a key of Stripe, in one line\.$/)
    },
  )

  it('starts with a key that was read from a file, with a line break at its end', async () => {
    await using world = await createWorld()
    const { lookUp } = await world.start('Checkout', { variables: { STRIPE_API_KEY: 'sk_test_example\n' } })

    expect(await lookUp()).toEqual(found)
  })

  it('does not hold its own mistakes against Stripe', async () => {
    await using world = await createWorld()
    const { lookUp } = await world.start('Checkout')

    world.stripe.react({ status: 404 })
    for (let calls = 0; calls < 3; calls++) expect(await lookUp()).toEqual({ known: false, why: 'no such charge' })
    world.stripe.react({ status: 401 })
    for (let calls = 0; calls < 3; calls++)
      await expect(lookUp()).rejects.toThrow('Stripe has refused the request with 401')
    await expect(lookUp('../v1/customers')).rejects.toThrow('chargeId must be the id of a charge')

    world.stripe.react(charge)
    expect(await lookUp()).toEqual(found)
    expect(world.stripe.requests).toHaveLength(7)
  })
})

describe('package.example.json', () => {
  const manifest = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'))
  const { dependencies } = manifest(folder, 'package.example.json')

  it.each(['Checkout', 'NightlyReport'] as const)(
    'names what %s imports, and esbuild, by which SAM builds',
    async (name) => {
      const out = mkdtempSync(join(tmpdir(), 'sam-'))
      try {
        const { imported, external } = await buildAsSam(resources[name] as Resource, folder, join(out, name))

        expect(Object.keys(dependencies).sort()).toEqual([...imported, 'esbuild'].sort())
        // The runtime has these, but for ioredis, which is not loaded.
        expect(external).toEqual(['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb', 'ioredis'])
      } finally {
        rmSync(out, { recursive: true })
      }
    },
  )

  it('asks for the versions that are tested here', () => {
    const { version } = manifest('package.json')
    const tested = devDependencies()
    const [major, minor] = version.split('.')
    const { 'middy-circuit-breaker': ours, ...others } = dependencies
    expect(ours).toMatch(new RegExp(`^\\^${major}\\.${minor}\\.\\d+$`))
    for (const [name, range] of Object.entries(others)) expect([name, range]).toEqual([name, tested[name]])
  })
})

/** A table, and the services that the functions call. */
interface World extends AsyncDisposable, Readonly<Record<Service, Provider>> {
  readonly time: StoppedTime
  /** The log lines of transitions. */
  readonly told: readonly unknown[]
  /**
   * Starts an instance of a function of the template, or of one that is deployed without any settings.
   */
  start(name: FunctionName | undefined, deployment?: Deployment): Promise<Instance>
}

interface Deployment {
  /** Of the template. */
  readonly parameters?: Readonly<Record<string, string>>
  /** On top of those in the template. */
  readonly variables?: Readonly<Record<string, string>>
}

interface Instance {
  lookUp(chargeId?: string): Promise<Charge | Unknown>
  check(): Promise<Finding[]>
}

async function createWorld(): Promise<World> {
  const stripe = await startProvider(charge)
  const rates = await startProvider(rate)
  const time = stopTime()
  const told: unknown[] = []
  const warn = jest.spyOn(console, 'warn').mockImplementation((line) => void told.push(JSON.parse(line)))
  const own = {
    CircuitTable: await dynamodb.createTable(),
    StripeUrl: stripe.url,
    StripeApiKey: 'sk_test_example',
    RatesUrl: rates.url,
  }
  return {
    stripe,
    rates,
    time,
    told,
    start: async (name, { parameters = {}, variables = {} } = {}) => {
      const deployed = deploy({ ...own, ...parameters }).function(name ?? 'Checkout')
      const isOurs = ([variable]: [string, string]) => /^(?!CIRCUIT_BREAKER_)|_TABLE_NAME$/.test(variable)
      const inTemplate = Object.entries(deployed.variables).filter((entry) => name !== undefined || isOurs(entry))
      const [file, exported] = deployed.handler.split('.')
      expect([file, exported]).toEqual(['handler', 'handler'])
      const { handler } = await coldStart(() => import('../../examples/environment-tuning/handler.ts'), {
        ...dynamodb.variables,
        ...patientVariables,
        ...Object.fromEntries(inTemplate),
        ...variables,
      })
      const newContext = () =>
        createTestContext<Parameters<typeof handler>[1]>({ remainingTime: deployed.timeout * second })
      return {
        lookUp: (chargeId = 'ch_1') => handler({ chargeId }, newContext()) as Promise<Charge | Unknown>,
        check: () => handler({ check: true }, newContext()) as Promise<Finding[]>,
      }
    },
    async [Symbol.asyncDispose]() {
      warn.mockRestore()
      time[Symbol.dispose]()
      await stripe[Symbol.asyncDispose]()
      await rates[Symbol.asyncDispose]()
    },
  }
}

/** How many calls reach a service that is down until one does not; infinity if thirty do. */
async function callsUntilRefused({ lookUp }: Instance, world: World, service: Service): Promise<number> {
  const { requests, react } = world[service]
  react(down)
  for (let calls = 0; calls < 30; calls++) {
    const before = requests.length
    await lookUp()
    if (requests.length === before) return calls
  }
  return Number.POSITIVE_INFINITY
}
