/**
 * The `minimal.ts` of each example, against the stand-ins that the tests of the full handlers use.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Context } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { type ProviderAnswer, type Reaction, startProvider } from './provider.ts'
import { useStoppedTime } from './set-up.ts'
import { answerAsSqs, sqsCalls } from './sqs.ts'

type Handler = (event: never, context: Context) => Promise<unknown>

interface Example {
  readonly name: string
  readonly load: () => Promise<{ readonly handler: unknown }>
  /** The variables of the function, for a provider and a queue at these addresses. */
  readonly variables: (url: string, queueUrl: string) => Readonly<Record<string, string>>
  readonly event: object
  /** The answer of the provider while it is well, and the answer of the function then. */
  readonly healthy: ProviderAnswer
  readonly answer: object
  /** The calls that open the circuit. */
  readonly failureThreshold: number
  /** What the function answers after a failure, and while the circuit is open. */
  readonly failed: object
  readonly refused: object
  /** What says that the request is wrong, and not the provider. */
  readonly rejected: ProviderAnswer
  /** What the function makes of it. Without one it throws. */
  readonly onRejected?: object
}

const email = { id: 'order-1', to: 'ada@example.com', subject: 'Your order', text: 'It is on its way.' }
const queueOf = (url: string) => `${url}/123456789012/email`
const completion = (content: string, finish_reason = 'stop'): ProviderAnswer => ({
  body: {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: 'gpt-5.4-mini',
    choices: [{ index: 0, finish_reason, message: { role: 'assistant', content, refusal: null } }],
  },
})

const examples: readonly Example[] = [
  {
    name: 'geolocation',
    load: () => import('../../examples/geolocation/minimal.ts'),
    variables: (url) => ({ IPINFO_TOKEN: 'token', IPINFO_URL: url }),
    event: { ip: '8.8.8.8' },
    healthy: { body: { ip: '8.8.8.8', country: 'US' } },
    answer: { country: 'US' },
    failureThreshold: 5,
    failed: { country: 'unknown' },
    refused: { country: 'unknown' },
    rejected: { status: 404, body: { error: { title: 'Wrong ip' } } },
    onRejected: { country: 'unknown' },
  },
  {
    name: 'email',
    load: () => import('../../examples/email/minimal.ts'),
    variables: (url, queueUrl) => ({
      RESEND_API_KEY: 'key',
      RESEND_BASE_URL: url,
      EMAIL_FROM: 'shop@example.com',
      EMAIL_QUEUE_URL: queueUrl,
    }),
    event: email,
    healthy: { body: { id: 'resend-1' } },
    answer: { status: 'sent' },
    failureThreshold: 3,
    failed: { status: 'queued' },
    refused: { status: 'queued' },
    rejected: { status: 422, body: { name: 'validation_error', statusCode: 422, message: 'No.' } },
    onRejected: { status: 'refused' },
  },
  {
    name: 'billing',
    load: () => import('../../examples/billing/minimal.ts'),
    variables: (url) => ({ STRIPE_SECRET_KEY: 'sk_test_example', STRIPE_API_URL: url }),
    event: { id: 'order-1', amount: 1999, currency: 'eur', card: 'pm_card_visa' },
    healthy: { body: { id: 'pi_1', object: 'payment_intent', status: 'succeeded' } },
    answer: { status: 'succeeded' },
    failureThreshold: 2,
    failed: { status: 'unknown' },
    refused: { status: 'later' },
    rejected: { status: 402, body: { error: { type: 'card_error', code: 'card_declined', message: 'No.' } } },
  },
  {
    name: 'content-moderation',
    load: () => import('../../examples/content-moderation/minimal.ts'),
    variables: (url) => ({ AWS_ENDPOINT_URL_COMPREHEND: url }),
    event: { text: 'Good morning' },
    healthy: { body: { ResultList: [{ Labels: [], Toxicity: 0.03 }] } },
    answer: { decision: 'accepted' },
    failureThreshold: 3,
    failed: { decision: 'review' },
    refused: { decision: 'review' },
    rejected: { status: 400, body: { __type: 'InvalidRequestException', message: 'No.' } },
  },
  {
    name: 'translation',
    load: () => import('../../examples/translation/minimal.ts'),
    variables: (url) => ({ OPENAI_API_KEY: 'key', OPENAI_BASE_URL: `${url}/v1` }),
    event: { text: 'Good morning' },
    healthy: completion('Guten Morgen'),
    answer: { text: 'Guten Morgen', translated: true },
    failureThreshold: 3,
    failed: { text: 'Good morning', translated: false },
    refused: { text: 'Good morning', translated: false },
    rejected: { status: 400, body: { error: { type: 'invalid_request_error', message: 'No.' } } },
  },
]

const unavailable: Reaction = { status: 503, headers: { 'content-type': 'text/html' }, body: '<h1>Unavailable</h1>' }

let dynamodb: DynamoDBServer

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})
afterAll(() => dynamodb?.stop())

useStoppedTime()

/** Starts the provider, the queue and a table; each `start` is a new instance of the function. */
async function deploy({ load, variables, event, healthy }: Example) {
  const provider = await startProvider(healthy)
  const sqs = await startProvider(answerAsSqs)
  const table = await dynamodb.createTable()
  return {
    provider,
    sqs,
    start: async () => {
      const { handler } = await coldStart(load, {
        ...variables(provider.url, queueOf(sqs.url)),
        ...dynamodb.variables,
        ...patientVariables,
        CIRCUIT_BREAKER_TABLE_NAME: table,
      })
      return () => (handler as Handler)(event as never, createTestContext())
    },
    async [Symbol.asyncDispose]() {
      await provider[Symbol.asyncDispose]()
      await sqs[Symbol.asyncDispose]()
    },
  }
}

describe.each(examples)('the minimal handler of $name', (example) => {
  it('has 20 to 40 lines', () => {
    const file = join(import.meta.dirname, '..', '..', 'examples', example.name, 'minimal.ts')
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n').length

    expect(lines).toBeGreaterThanOrEqual(20)
    expect(lines).toBeLessThanOrEqual(40)
  })

  it('answers with what the provider says', async () => {
    await using deployed = await deploy(example)
    const invoke = await deployed.start()

    expect(await invoke()).toEqual(example.answer)
  })

  it('falls back when the provider fails, and when the circuit is open also in an instance that has never asked', async () => {
    await using deployed = await deploy(example)
    deployed.provider.react(unavailable)
    const invoke = await deployed.start()

    for (let call = 0; call < example.failureThreshold; call++) expect(await invoke()).toEqual(example.failed)
    expect(await invoke()).toEqual(example.refused)
    expect(await (await deployed.start())()).toEqual(example.refused)
    expect(deployed.provider.requests).toHaveLength(example.failureThreshold)
  })

  it('does not count what says that the request is wrong', async () => {
    await using deployed = await deploy(example)
    deployed.provider.react(example.rejected)
    const invoke = await deployed.start()

    for (let call = 0; call < 6; call++) {
      const outcome = await invoke().catch((error: unknown) => error)
      if (example.onRejected === undefined) expect(outcome).toBeInstanceOf(Error)
      else expect(outcome).toEqual(example.onRejected)
    }
    expect(deployed.provider.requests).toHaveLength(6)
  })
})

describe('the minimal handler of email', () => {
  const example = examples.find(({ name }) => name === 'email') as Example

  it('queues the whole e-mail, with its id', async () => {
    await using deployed = await deploy(example)
    deployed.provider.react(unavailable)
    await (await deployed.start())()

    expect(sqsCalls(deployed.sqs)).toEqual([
      ['SendMessage', { QueueUrl: queueOf(deployed.sqs.url), MessageBody: JSON.stringify(email) }],
    ])
  })
})
