import { randomUUID } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import type { SQSEvent, SQSRecord } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { httpEvent } from './http-event.ts'
import { type Reaction, startProvider } from './provider.ts'
import { printed, useDynamoDB, useStoppedTime } from './set-up.ts'
import { answerAsSqs, sqsCalls } from './sqs.ts'

const dynamoDB = useDynamoDB()
const time = useStoppedTime('warn', 'error')

/** The time that the worker gives each provider. */
const timeout = 3_000
/** How long a circuit stays open, until every instance may probe it. */
const untilProbe = 11_000
const unavailable: Reaction = { status: 503, body: 'Unavailable' }
const email = { to: 'ada@example.com', subject: 'Your order', text: 'It is on its way.' }

describe('A queued e-mail', () => {
  it('is sent with its id by the worker as soon as a provider works again', async () => {
    await using mail = await startMail()
    mail.allProviders(unavailable)
    const accept = await mail.newHandler()
    for (const id of ['order/1', 'order/2', 'order/3']) expect(await accept(id)).toBe(202)
    const work = await mail.newWorker()

    // The handler has opened all three circuits: the worker asks nobody.
    expect(await work(mail.queued())).toEqual(['message-0', 'message-1', 'message-2'])
    expect(mail.requests()).toEqual({ ses: 3, resend: 3, sendgrid: 3 })

    mail.resend.react({ body: { id: 'accepted' } })
    await time.advance(untilProbe)
    expect(await work(mail.queued())).toEqual([])

    const sent = mail.resend.requests.slice(3)
    expect(sent.map(({ headers }) => headers['idempotency-key'])).toEqual(['order/1', 'order/2', 'order/3'])
    expect(JSON.parse(sent[0]?.body ?? '')).toEqual({ from: 'shop@example.com', ...email })
    // SES is probed once, and SendGrid is not needed.
    expect(mail.requests()).toEqual({ ses: 4, resend: 6, sendgrid: 3 })
  })

  it('opens the circuits of the handler, too, when the worker finds the providers down', async () => {
    await using mail = await startMail()
    mail.allProviders(unavailable)
    const work = await mail.newWorker()

    expect(await work(batchOf(4))).toEqual(['message-0', 'message-1', 'message-2', 'message-3'])
    expect(mail.requests()).toEqual({ ses: 3, resend: 3, sendgrid: 3 })

    const accept = await mail.newHandler()
    expect(await accept('order/9')).toBe(202)
    expect(mail.requests()).toEqual({ ses: 3, resend: 3, sendgrid: 3 })
  })

  it('is returned alone, and the rest of its batch is sent', async () => {
    await using mail = await startMail()
    mail.ses.react(({ body }) => (body.includes('Two') ? 'breaks' : { body: { MessageId: 'accepted' } }))
    mail.resend.react(unavailable)
    mail.sendgrid.react(unavailable)
    const work = await mail.newWorker()
    const bodies = ['One', 'Two', 'Three'].map((subject) => JSON.stringify({ id: subject, ...email, subject }))

    expect(await work(bodies)).toEqual(['message-1'])

    expect(mail.requests()).toEqual({ ses: 3, resend: 1, sendgrid: 1 })
  })

  it('that a provider refuses is done, and the log has its id, but no address', async () => {
    await using mail = await startMail()
    const refusal = { message: 'No: ada@example.com' }
    mail.ses.react({ status: 400, headers: { 'x-amzn-errortype': 'MessageRejected' }, body: refusal })
    const work = await mail.newWorker()

    expect(await work(batchOf(4))).toEqual([])

    // A refusal never counts: the fourth is asked for, too, and nobody else is.
    expect(mail.requests()).toEqual({ ses: 4, resend: 0, sendgrid: 0 })
    expect(printed()).toMatch(/order\/3.*MessageRejected/s)
    expect(printed()).not.toContain('ada@')
  })

  it('that Resend is sending at this moment is returned', async () => {
    await using mail = await startMail()
    mail.ses.react(unavailable)
    mail.resend.react({
      status: 409,
      body: { name: 'concurrent_idempotent_requests', statusCode: 409, message: 'No.' },
    })
    const work = await mail.newWorker()

    expect(await work(batchOf(1))).toEqual(['message-0'])
    expect(mail.requests()).toEqual({ ses: 1, resend: 1, sendgrid: 0 })
  })
})

it.each(['{', 'null', '{}', JSON.stringify({ id: 1, ...email })])(
  'A record that is no e-mail is returned for the dead-letter queue, and the next one is sent: %s',
  async (body) => {
    await using mail = await startMail()
    const work = await mail.newWorker()

    expect(await work([body, ...batchOf(1)])).toEqual(['message-0'])

    expect(mail.requests()).toEqual({ ses: 1, resend: 0, sendgrid: 0 })
    expect(printed()).toContain('message-0')
  },
)

describe('The time of the invocation', () => {
  it('ends a batch: records for which it does not last are returned, and no call is cut off', async () => {
    await using mail = await startMail()
    mail.allProviders(() => time.hang(timeout))
    const work = await mail.newWorker()

    // The first record takes 9 s, after which less than 10 s are left.
    expect(await work(batchOf(3), 18_000)).toEqual(['message-0', 'message-1', 'message-2'])

    expect(mail.requests()).toEqual({ ses: 1, resend: 1, sendgrid: 1 })
  })

  it('must be long enough for one e-mail', async () => {
    await using mail = await startMail()
    const work = await mail.newWorker()

    await expect(work(batchOf(1), 9_000)).rejects.toThrow("The function's timeout must be longer than 10000 ms.")
  })
})

function batchOf(size: number): string[] {
  return Array.from({ length: size }, (_, index) => JSON.stringify({ id: `order/${index}`, ...email }))
}

/** Three providers that are well, a queue, and circuits that nothing has happened to. */
async function startMail() {
  await using started = new AsyncDisposableStack()
  const ses = started.use(await startProvider({ body: { MessageId: 'accepted' } }))
  const resend = started.use(await startProvider({ body: { id: 'accepted' } }))
  const sendgrid = started.use(await startProvider({ status: 202, headers: { 'x-message-id': 'accepted' } }))
  const sqs = started.use(await startProvider(answerAsSqs))
  const servers = started.move()
  const variables = {
    ...dynamoDB.variables,
    ...patientVariables,
    AWS_ENDPOINT_URL_SESV2: ses.url,
    RESEND_API_KEY: 're_example',
    RESEND_BASE_URL: resend.url,
    SENDGRID_API_KEY: 'SG.example',
    SENDGRID_BASE_URL: sendgrid.url,
    EMAIL_FROM: 'shop@example.com',
    CIRCUIT_BREAKER_TABLE_NAME: dynamoDB.tableName,
    CIRCUIT_BREAKER_NAMESPACE: randomUUID(),
  }
  return {
    ses,
    resend,
    sendgrid,
    allProviders: (reaction: Reaction | (() => Promise<Reaction>)) => {
      for (const provider of [ses, resend, sendgrid]) provider.react(reaction)
    },
    requests: () => ({
      ses: ses.requests.length,
      resend: resend.requests.length,
      sendgrid: sendgrid.requests.length,
    }),
    /** The messages that the handler has queued. */
    queued: () => sqsCalls(sqs).map(([, { MessageBody }]) => String(MessageBody)),
    newHandler: async () => {
      const { handler } = await coldStart(() => import('../../examples/email/handler.ts'), {
        ...variables,
        AWS_ENDPOINT_URL_SQS: sqs.url,
        EMAIL_QUEUE_URL: `${sqs.url}/123456789012/email`,
      })
      return async (id: string) => {
        const event = httpEvent({ route: 'POST /emails', headers: { 'idempotency-key': id }, body: email })
        return (await handler(event, createTestContext({ remainingTime: 15_000 }))).statusCode
      }
    },
    /** Starts an instance of the worker, which answers with the ids of the records that it returns. */
    newWorker: async () => {
      const { handler } = await coldStart(() => import('../../examples/email/worker.ts'), variables)
      return async (bodies: readonly string[], remainingTime = 60_000) => {
        const records = bodies.map((body, index) => ({ messageId: `message-${index}`, body }) as SQSRecord)
        const event: SQSEvent = { Records: records }
        const { batchItemFailures } = await handler(event, createTestContext({ remainingTime }))
        return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier)
      }
    },
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  }
}
