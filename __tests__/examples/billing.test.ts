import { randomUUID } from 'node:crypto'
import { GetItemCommand } from '@aws-sdk/client-dynamodb'
import { unmarshall } from '@aws-sdk/util-dynamodb'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import type { Finding } from 'middy-circuit-breaker'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { waitFor } from '../support/time.ts'
import { warningsEmitted } from '../support/warning-texts.ts'
import { coldStart } from './cold-start.ts'
import { type ProviderAnswer, type ProviderRequest, type Reaction, startProvider } from './provider.ts'
import { type StoppedTime, stopTime } from './stopped-time.ts'

const secretKey = 'sk_test_example'
const clientSecret = 'pi_1_secret_example'
const card = { brand: 'visa', last4: '4242', fingerprint: 'fingerprint-example' }

/** What is wrong with Stripe, for each payment until it is well again. */
type Trouble = Reaction | ((request: ProviderRequest) => Reaction | undefined | Promise<Reaction | undefined>)

/**
 * Stripe, as far as it matters here: it makes a payment once for each idempotency key and answers a key that it knows with
 * what it answered first, even if that answer was never received; `forgetful`: it does not.
 */
async function startStripe({ forgetful = false } = {}) {
  const payments: Record<string, string>[] = []
  const answers = new Map<string, ProviderAnswer>()
  let trouble: Trouble | undefined
  const provider = await startProvider(async (request) => {
    const key = keyOf(request)
    const known = answers.get(key)
    if (known !== undefined && !forgetful)
      return { ...known, headers: { ...known.headers, 'idempotent-replayed': 'true' } }
    const reaction = typeof trouble === 'function' ? await trouble(request) : trouble
    if (typeof reaction === 'object') return reaction
    const payment = Object.fromEntries(new URLSearchParams(request.body))
    payments.push(payment)
    const { amount, currency } = payment
    const intent = {
      id: `pi_${payments.length}`,
      object: 'payment_intent',
      status: 'succeeded',
      amount: Number(amount),
    }
    answers.set(key, { body: { ...intent, currency, client_secret: clientSecret } })
    return reaction ?? answers.get(key) ?? {}
  })
  return {
    ...provider,
    /** What was made, as it was asked for. */
    payments,
    /** From now on, for payments that are not made yet. */
    is: (how: Trouble | 'well') => {
      trouble = how === 'well' ? undefined : how
    },
    /** Answers this to the key from now on, as Stripe does with what it has stored. */
    store: (key: string, stored: ProviderAnswer) => answers.set(key, stored),
    keys: () => provider.requests.map(keyOf),
    [Symbol.asyncDispose]: () => provider[Symbol.asyncDispose](),
  }
}

const keyOf = ({ headers }: ProviderRequest): string => String(headers['idempotency-key'])

const failure = (status: number, error: object, headers = {}): ProviderAnswer => ({ status, body: { error }, headers })
/** Said by Stripe of what is not worth another try. */
const once = { 'stripe-should-retry': 'false' }
const unavailable = failure(503, { type: 'api_error' }, { 'request-id': 'req_1' })
const declined = failure(402, {
  type: 'card_error',
  code: 'card_declined',
  decline_code: 'insufficient_funds',
  message: 'Your card has insufficient funds.',
  payment_method: { id: 'pm_secret', card },
  payment_intent: { id: 'pi_1', client_secret: clientSecret },
})

let database: DynamoDBServer
let tableName: string

beforeAll(async () => {
  database = await startDynamoDBLocal()
  tableName = await database.createTable()
})
afterAll(() => database?.stop())

/** The time that the function gives a payment. */
const timeout = 10_000
/** The pause of Stripe's SDK before it tries again. */
const pause = 500

let time: StoppedTime
let logged: jest.SpiedFunction<typeof console.error>
let told: jest.SpiedFunction<typeof console.warn>
beforeEach(() => {
  time = stopTime({ from: pause + 1 })
  logged = jest.spyOn(console, 'error').mockImplementation(() => {})
  told = jest.spyOn(console, 'warn').mockImplementation(() => {})
})
afterEach(() => {
  const text = JSON.stringify(logged.mock.calls, (_key, value) => (value instanceof Error ? { ...value } : value))
  for (const secret of [secretKey, clientSecret, card.last4, card.fingerprint, 'pm_'])
    expect(text).not.toContain(secret)
  logged.mockRestore()
  told.mockRestore()
  time[Symbol.dispose]()
})

const order = { amount: 1999, currency: 'eur', paymentMethod: 'pm_card_visa', customer: 'cus_1' }

/** An event, by what matters of it. Default: `order`, with a key of its own. */
interface PaymentEvent {
  readonly key?: string | null
  readonly body?: unknown
  readonly isBase64Encoded?: boolean
  /** What is not as it should be. */
  readonly more?: object
  /** Of the invocation, in milliseconds. */
  readonly remainingTime?: number | undefined
}

type Pay = (event?: PaymentEvent) => Promise<Answer>

interface Answer extends APIGatewayProxyStructuredResultV2 {
  readonly json: Record<string, unknown>
}

interface Deployment {
  /** Starts an instance, cold; resolves to a way to invoke it. */
  start(): Promise<Pay>
  /** What the table holds of the circuit. */
  record(): Promise<{ readonly state?: string; readonly failureCount?: number } | undefined>
}

/** A deployment with a circuit of its own. */
function deploy(stripe: { readonly url: string }, variables: Readonly<Record<string, string>> = {}): Deployment {
  const namespace = randomUUID()
  const start = async (): Promise<Pay> => {
    const { handler } = await coldStart(() => import('../../examples/billing/handler.ts'), {
      STRIPE_SECRET_KEY: secretKey,
      STRIPE_API_URL: stripe.url,
      CIRCUIT_BREAKER_TABLE_NAME: tableName,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      ...database.variables,
      ...patientVariables,
      ...variables,
    })
    return async (payment = {}) => {
      const answer = await handler(eventOf(payment), createTestContext({ remainingTime: payment.remainingTime }))
      expect(answer.headers).toMatchObject({ 'Content-Type': 'application/json' })
      return { ...answer, json: JSON.parse(answer.body ?? '') }
    }
  }
  const record = async () => {
    const Key = { PK: { S: `CIRCUIT#${namespace}#stripe` }, SK: { S: 'STATE' } }
    const { Item } = await database
      .client()
      .send(new GetItemCommand({ TableName: tableName, Key, ConsistentRead: true }))
    return Item && unmarshall(Item)
  }
  return { start, record }
}

function eventOf({
  key = randomUUID(),
  body = order,
  isBase64Encoded = false,
  more,
}: PaymentEvent): APIGatewayProxyEventV2 {
  const headers = key === null ? {} : { 'idempotency-key': key }
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return { headers, body: text, isBase64Encoded, ...more } as APIGatewayProxyEventV2
}

describe('a payment', () => {
  it('is made once, with the key of the client, and nothing is stored', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()

    const answer = await pay({ key: 'order-1' })

    const made = { id: 'pi_1', status: 'succeeded', amount: 1999, currency: 'eur' }
    expect([answer.statusCode, answer.json]).toEqual([200, made])
    expect(stripe.payments).toEqual([
      {
        amount: '1999',
        currency: 'eur',
        payment_method: 'pm_card_visa',
        customer: 'cus_1',
        confirm: 'true',
        'automatic_payment_methods[enabled]': 'true',
        'automatic_payment_methods[allow_redirects]': 'never',
        'metadata[idempotency_key]': 'order-1',
      },
    ])
    expect(stripe.requests.map(({ method, url, headers }) => [method, url, headers.authorization])).toEqual([
      ['POST', '/v1/payment_intents', `Bearer ${secretKey}`],
    ])
    expect(stripe.keys()).toEqual(['order-1'])
    expect(await record()).toBeUndefined()
  })

  it('can be sent in Base64, and without a customer', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    const { customer: _, ...anonymous } = order

    const body = Buffer.from(JSON.stringify(anonymous)).toString('base64')

    expect(await pay({ body, isBase64Encoded: true })).toMatchObject({ statusCode: 200 })
    expect(stripe.payments).toEqual([expect.not.objectContaining({ customer: expect.anything() })])
  })

  it('that the bank wants confirmed is answered with what the client needs for that', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is({
      body: { id: 'pi_1', object: 'payment_intent', status: 'requires_action', client_secret: clientSecret },
    })

    expect(await pay()).toMatchObject({ statusCode: 202, json: { status: 'requires_action', clientSecret } })
  })

  it('that was canceled is a 402: it will not be paid', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is({ body: { id: 'pi_1', object: 'payment_intent', status: 'canceled', client_secret: clientSecret } })

    const { statusCode, json } = await pay()

    expect([statusCode, json]).toEqual([402, { code: 'payment_canceled', message: 'The payment was canceled.' }])
  })

  it('that meets a mistake in this code is a 500, which tells nothing of it', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()

    const { statusCode, json } = await pay({ more: { headers: undefined } })

    expect([statusCode, json]).toEqual([500, { code: 'internal_error' }])
    expect(logged.mock.calls).toEqual([[expect.any(TypeError)]])
  })

  it('that Stripe fails once is repeated with the same key, made once, and counted by nobody', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is(() => (stripe.requests.length === 1 ? unavailable : undefined))

    expect(await pay({ key: 'order-1' })).toMatchObject({ statusCode: 200 })

    expect(stripe.keys()).toEqual(['order-1', 'order-1'])
    expect(stripe.payments).toHaveLength(1)
    expect(await record()).toBeUndefined()
  })

  it('that was made although the connection broke is made once', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is('breaks')

    expect(await pay({ key: 'order-1' })).toMatchObject({ statusCode: 200, json: { id: 'pi_1' } })

    expect(stripe.keys()).toEqual(['order-1', 'order-1'])
    expect(stripe.payments).toHaveLength(1)
  })

  it('that is declined is a 402 with the decline code, and never a failure', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is(declined)

    for (let n = 0; n < 3; n++) {
      const { statusCode, json } = await pay()
      const message = 'Your card has insufficient funds.'
      expect([statusCode, json]).toEqual([402, { code: 'card_declined', declineCode: 'insufficient_funds', message }])
    }

    expect(stripe.requests).toHaveLength(3)
    expect(await record()).toBeUndefined()
    stripe.is('well')
    expect(await pay()).toMatchObject({ statusCode: 200 })
  })
})

describe('a check by hand', () => {
  it('finds nothing that would fail in an outage, and asks Stripe nothing', async () => {
    await using stripe = await startStripe()
    const deployment = deploy(stripe)
    const pay = await deployment.start()

    const { json } = await pay({ more: { check: true }, remainingTime: 15_000 })

    const findings = json['findings'] as readonly Finding[]
    expect(findings.filter(({ severity }) => severity === 'error')).toEqual([])
    expect(findings.map(({ code }) => code)).toContain('nothing-stored')
    expect(await deployment.record()).toBeUndefined()
    expect(stripe.requests).toEqual([])
  })
})

describe('an outage of Stripe', () => {
  it('opens the circuit after two payments, each tried twice with its key; then nobody asks until it is over', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    const payElsewhere = await start()
    stripe.is(unavailable)

    const unknown = { code: 'outcome_unknown', message: expect.stringContaining('with the same Idempotency-Key again') }
    expect(await pay({ key: 'order-1' })).toMatchObject({ statusCode: 502, json: unknown })
    expect(await record()).toMatchObject({ state: 'CLOSED', failureCount: 1 })
    expect(await pay({ key: 'order-2' })).toMatchObject({ statusCode: 502, json: unknown })

    expect(await record()).toMatchObject({ state: 'OPEN', failureCount: 2 })
    expect(stripe.keys()).toEqual(['order-1', 'order-1', 'order-2', 'order-2'])
    expect(logged.mock.calls).toEqual([
      ['{"error":"StripeAPIError","statusCode":503,"requestId":"req_1","idempotencyKey":"order-1"}'],
      ['{"error":"StripeAPIError","statusCode":503,"requestId":"req_1","idempotencyKey":"order-2"}'],
    ])

    const refused = await pay({ key: 'order-3' })
    const message = expect.stringMatching(/^The circuit of stripe is open\. Try again in 3[01] s\.$/)
    expect([refused.statusCode, refused.json]).toEqual([503, { code: 'circuit_open', message }])
    expect(told.mock.calls).toEqual([['{"service":"stripe","from":"CLOSED","to":"OPEN","reason":"failure-threshold"}']])
    // Instances wait a small random time more, so that they do not all probe at once.
    expect(['30', '31']).toContain(refused.headers?.['Retry-After'])
    expect(logged).toHaveBeenLastCalledWith(expect.stringMatching(/^{"error":"CircuitOpenError","message":"[^"]*"}$/))
    expect(await payElsewhere({ key: 'order-3' })).toMatchObject({ statusCode: 503 })
    expect(stripe.requests).toHaveLength(4)

    stripe.is('well')
    await time.advance(29_999)
    expect(await pay({ key: 'order-3' })).toMatchObject({ statusCode: 503 })
    await time.advance(1_001)
    expect(await payElsewhere({ key: 'order-3' })).toMatchObject({ statusCode: 200 })
    expect(stripe.keys().slice(4)).toEqual(['order-3'])
    expect(await record()).toMatchObject({ state: 'CLOSED' })
    // What was refused and what failed was not made; the client has the keys to make up for it.
    for (const key of ['order-1', 'order-2', 'order-2']) expect(await pay({ key })).toMatchObject({ statusCode: 200 })
    expect(stripe.payments).toHaveLength(3)
  })

  it('refuses the third payment, whichever warm instances the first two met', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const warm = [await start(), await start(), await start()] as const
    for (const pay of warm) expect((await pay()).statusCode).toBe(200)
    stripe.is(unavailable)
    const requests = stripe.requests.length

    // Two payments, a second apart, each tried twice.
    expect((await warm[0]()).statusCode).toBe(502)
    await time.advance(1_000)
    expect((await warm[1]()).statusCode).toBe(502)
    expect(stripe.requests).toHaveLength(requests + 4)
    expect(await record()).toMatchObject({ state: 'OPEN', generation: 1 })

    expect((await warm[1]()).json).toMatchObject({ code: 'circuit_open' })
    expect((await (await start())()).json).toMatchObject({ code: 'circuit_open' })
    // The others learn of it when they read again.
    await time.advance(5_000)
    for (const pay of warm) expect((await pay()).json).toMatchObject({ code: 'circuit_open' })
    expect(stripe.requests).toHaveLength(requests + 4)
    expect(told.mock.calls).toEqual([['{"service":"stripe","from":"CLOSED","to":"OPEN","reason":"failure-threshold"}']])
  })

  it('opens the circuit also where the second attempt is answered with the stored failure of the first', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    const failed = failure(500, { type: 'api_error' })
    stripe.is((request) => {
      stripe.store(keyOf(request), failed)
      return failed
    })

    const answers = await Promise.all([pay({ key: 'order-1' }), pay({ key: 'order-2' })])

    expect(answers.map(({ statusCode }) => statusCode)).toEqual([502, 502])
    // Asked again, Stripe would answer with it for ever.
    for (const { json } of answers) expect(json['message']).toContain('Find out in Stripe')
    expect(stripe.keys().sort()).toEqual(['order-1', 'order-1', 'order-2', 'order-2'])
    expect(await record()).toMatchObject({ state: 'OPEN', failureCount: 2 })
    expect(await pay()).toMatchObject({ statusCode: 503 })
  })

  it('is told of in observe mode, and nothing is refused', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe, { CIRCUIT_BREAKER_MODE: 'observe' }).start()
    stripe.is({ ...unavailable, headers: once })

    const statuses: unknown[] = []
    for (let n = 0; n < 4; n++) statuses.push((await pay()).statusCode)

    expect(statuses).toEqual([502, 502, 502, 502])
    expect(stripe.requests).toHaveLength(4)
    expect(told.mock.calls).toEqual([['{"service":"stripe","from":"CLOSED","to":"OPEN","reason":"failure-threshold"}']])
  })

  it('lasts as long as Stripe says with Retry-After', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is({ ...unavailable, headers: { ...once, 'retry-after': '120' } })

    await Promise.all([pay(), pay()])

    const { statusCode, headers } = await pay()
    expect(statusCode).toBe(503)
    expect(['120', '121']).toContain(headers?.['Retry-After'])
  })

  const page = { headers: { ...once, 'content-type': 'text/html' }, body: '<h1>Sorry</h1>' }
  it.each<[string, Trouble]>([
    ['breaks connections', () => 'breaks'],
    ['answers 503 with a page', { ...page, status: 503 }],
    ['answers 200 with a page', page],
    ['answers 503 with JSON that tells nothing', { status: 503, body: {}, headers: once }],
    ['answers 200 with JSON that tells nothing', { body: {} }],
  ])('is noticed where Stripe %s', async (_, trouble) => {
    await using stripe = await startStripe({ forgetful: true })
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is(trouble)

    const answers = await Promise.all([pay(), pay()])

    expect(answers.map(({ statusCode, json }) => [statusCode, json['code']])).toEqual([
      [502, 'outcome_unknown'],
      [502, 'outcome_unknown'],
    ])
    expect(await record()).toMatchObject({ state: 'OPEN' })
  })
})

describe('a payment that takes too long', () => {
  it('is a 504 that asks for the same key, under which Stripe answers what it came to: it is made once', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is(() => time.hang(timeout))

    const cut = await pay({ key: 'order-1' })

    expect(cut).toMatchObject({ statusCode: 504, json: { code: 'outcome_unknown' } })
    expect(cut.json['message']).toBe(
      'The payment may have been made. ' +
        'Send the same request with the same Idempotency-Key again: the payment is made once at most.',
    )
    stripe.is('well')
    expect(await pay({ key: 'order-1' })).toMatchObject({ statusCode: 200, json: { id: 'pi_1' } })
    expect(stripe.payments).toHaveLength(1)
  })

  it('is over: nothing of it is sent later, when the client has been answered', async () => {
    await using stripe = await startStripe()
    using pauses = stopTime()
    const pay = await deploy(stripe, { CIRCUIT_BREAKER_TIMEOUT__STRIPE: '300' }).start()
    stripe.is(unavailable)

    const paying = pay({ key: 'order-1' })
    await waitFor(
      'the SDK waits before it tries again',
      () => pauses.timers,
      (timers) => timers.includes(pause),
    )
    await pauses.advance(300)
    expect(await paying).toMatchObject({ statusCode: 504 })

    await pauses.advance(pause)
    stripe.is('well')
    // By then a second attempt would have arrived.
    expect(await pay({ key: 'order-2' })).toMatchObject({ statusCode: 200 })
    expect(stripe.keys()).toEqual(['order-1', 'order-2'])
  })

  it('is not begun where no time is left, which a 504 says', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()

    // Of which 1 s is kept back: the breaker warns of a timeout that is not longer than that.
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    expect(await pay({ remainingTime: 900 })).toMatchObject({
      statusCode: 504,
      json: { code: 'circuit_timeout', message: expect.stringContaining('was not started') },
    })

    expect(stripe.requests).toEqual([])
    await warningsEmitted()
    expect(warned).toHaveBeenCalledTimes(1)
    warned.mockRestore()
  })

  it('opens the circuit as a failure does', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is('hangs')

    const paying = Promise.all([pay(), pay()])
    await stripe.received(2)
    await time.advance(timeout)
    expect((await paying).map(({ statusCode }) => statusCode)).toEqual([504, 504])

    expect(await record()).toMatchObject({ state: 'OPEN' })
    const { statusCode, headers } = await pay()
    expect(statusCode).toBe(503)
    expect(['30', '31']).toContain(headers?.['Retry-After'])
  })
})

describe('a key that Stripe knows', () => {
  it('with a failure stored for it fails each time, and opens no circuit for others', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.store('order-1', failure(500, { type: 'api_error' }, once))

    for (let n = 0; n < 3; n++) {
      const { statusCode, json } = await pay({ key: 'order-1' })
      expect([statusCode, json['message']]).toEqual([502, expect.stringContaining('Find out in Stripe')])
    }

    expect(stripe.requests).toHaveLength(3)
    expect(await record()).toBeUndefined()
    expect(await pay({ key: 'order-2' })).toMatchObject({ statusCode: 200 })
  })

  it('with a failure stored for it is a sign of an outage where the connection breaks now', async () => {
    await using stripe = await startStripe({ forgetful: true })
    const { start, record } = deploy(stripe)
    const pay = await start()
    const replay = failure(500, { type: 'api_error' }, { 'idempotent-replayed': 'true' })
    stripe.is(() => (stripe.requests.length === 1 ? replay : 'breaks'))

    expect(await pay()).toMatchObject({ statusCode: 502 })

    expect(stripe.requests).toHaveLength(2)
    expect(await record()).toMatchObject({ failureCount: 1 })
  })

  it('and is still at work on is a 409: ask again soon', async () => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is(failure(409, { type: 'idempotency_error', message: 'In use.' }))

    expect(await pay()).toMatchObject({
      statusCode: 409,
      headers: { 'Retry-After': '1' },
      json: { code: 'in_progress', message: 'In use.' },
    })

    // Stripe's SDK has waited for it once.
    expect(stripe.requests).toHaveLength(2)
    expect(await record()).toBeUndefined()
  })

  it('with another payment is a 422', async () => {
    await using stripe = await startStripe()
    const pay = await deploy(stripe).start()
    stripe.is(failure(400, { type: 'idempotency_error', message: 'Used with other parameters.' }))

    expect(await pay()).toMatchObject({ statusCode: 422, json: { code: 'idempotency_key_reused' } })
  })
})

describe('what Stripe refuses', () => {
  it.each<[string, ProviderAnswer, number, object]>([
    [
      'a request that it does not understand',
      failure(400, { type: 'invalid_request_error', code: 'resource_missing', param: 'customer', message: 'None.' }),
      400,
      { code: 'resource_missing', param: 'customer', message: 'None.' },
    ],
    ['too many requests', failure(429, { type: 'rate_limit_error', message: 'Slow.' }), 503, { code: 'busy' }],
    ['a wrong secret key', failure(401, { message: `Invalid: ${secretKey}` }), 500, { code: 'internal_error' }],
    ['a secret key that may not pay', failure(403, { message: 'No.' }), 500, { code: 'internal_error' }],
  ])('is told of %s, and never counts', async (_, refusal, status, json) => {
    await using stripe = await startStripe()
    const { start, record } = deploy(stripe)
    const pay = await start()
    stripe.is(refusal)

    for (let n = 0; n < 3; n++) {
      const answer = await pay()
      expect(answer).toMatchObject({ statusCode: status, json })
      expect(JSON.stringify(answer)).not.toContain(secretKey)
    }

    expect(stripe.requests).toHaveLength(3)
    expect(await record()).toBeUndefined()
  })
})

describe('a request that is wrong', () => {
  let stripe: Awaited<ReturnType<typeof startStripe>>
  let pay: Pay
  beforeAll(async () => {
    stripe = await startStripe()
    pay = await deploy(stripe).start()
  })
  afterAll(async () => stripe?.[Symbol.asyncDispose]())

  const aKey =
    'The header Idempotency-Key must be one for each payment and the same for each repetition, ' +
    '1 to 255 letters, digits and any of _ - . :'
  it.each<[string, PaymentEvent, string[]]>([
    ['without a key', { key: null }, [`${aKey}, but is missing.`]],
    ['with two keys', { key: 'a,b' }, [`${aKey}, but is another string.`]],
    ['with an empty key', { key: '' }, [`${aKey}, but is another string.`]],
    ['with a key that is too long', { key: 'k'.repeat(256) }, [`${aKey}, but is another string.`]],
    ['without a body', { body: '' }, ['The body must be a JSON object.']],
    ['with half a body', { body: '{"amount": 19' }, ['The body must be a JSON object.']],
    ['with a list', { body: [] }, ['The body must be a JSON object.']],
    ['with null', { body: 'null' }, ['The body must be a JSON object.']],
    ...[0, -1, 19.99, '1999', 100_000_000, null, true, [1], {}].map((amount): [string, PaymentEvent, string[]] => [
      `with the amount ${JSON.stringify(amount)}`,
      { body: { ...order, amount } },
      [
        expect.stringMatching(
          /^amount must be a whole number from 1 to 99999999, in the smallest unit of the currency .*, but is (another (number|string|boolean)|null|a list|an object)\.$/,
        ) as unknown as string,
      ],
    ]),
    [
      'with the currency EUR',
      { body: { ...order, currency: 'EUR' } },
      ['currency must be three lower-case letters such as "eur", but is another string.'],
    ],
    [
      'with a card in place of a payment method',
      { body: { ...order, paymentMethod: '4242424242424242' } },
      ['paymentMethod must be the id of a Stripe payment method (pm_…), but is another string.'],
    ],
    [
      'with a customer that is none of Stripe’s',
      { body: { ...order, customer: 42 } },
      ['customer must be the id of a Stripe customer (cus_…) or left out, but is another number.'],
    ],
    [
      'with fields that are not known',
      { body: { ...order, card: {}, '4242424242424242': 1 } },
      [
        'card is unknown; allowed are amount, currency, paymentMethod and customer.',
        'A field is unknown; allowed are amount, currency, paymentMethod and customer.',
      ],
    ],
    [
      'in every way',
      { key: null, body: {} },
      [
        `${aKey}, but is missing.`,
        expect.stringMatching(/^amount .* but is missing\.$/) as unknown as string,
        expect.stringMatching(/^currency .* but is missing\.$/) as unknown as string,
        expect.stringMatching(/^paymentMethod .* but is missing\.$/) as unknown as string,
      ],
    ],
  ])('%s is a 400 that says so, and Stripe is not asked', async (_, event, problems) => {
    const { statusCode, json, body } = await pay(event)

    expect([statusCode, json]).toEqual([400, { code: 'invalid_request', problems }])
    expect(body).not.toContain('4242')
    expect(stripe.requests).toEqual([])
  })
})
