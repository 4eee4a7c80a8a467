import { randomUUID } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import type { APIGatewayProxyEventV2 } from 'aws-lambda'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { httpEvent } from './http-event.ts'
import { type Provider, type Reaction, startProvider } from './provider.ts'
import { printed, useDynamoDB, useStoppedTime } from './set-up.ts'
import { answerAsSqs, sqsCalls } from './sqs.ts'

const dynamoDB = useDynamoDB()
const time = useStoppedTime('warn', 'error')

type ProviderName = 'ses' | 'resend' | 'sendgrid'

/** The times that the function gives each provider, and the queue. */
const timeout = 3_000
const queueTimeout = 2_000

const names: readonly ProviderName[] = ['ses', 'resend', 'sendgrid']
const page = { headers: { 'content-type': 'text/html' }, body: '<html>Something went wrong</html>' }
const unavailable: Reaction = { status: 503, ...page }

const bySes = (type: string, status: number, message = 'No.'): Reaction => ({
  status,
  headers: { 'x-amzn-errortype': type },
  body: { message },
})
const byResend = (name: string, statusCode: number): Reaction => ({
  status: statusCode,
  body: { name, statusCode, message: 'No.' },
})
const bySendGrid = (status: number): Reaction => ({ status, body: { errors: [{ message: 'No.' }] } })

/** What blames the message, and what the function makes of it. */
const refusals: Readonly<Record<ProviderName, readonly [status: number, Reaction][]>> = {
  ses: [
    [422, bySes('BadRequestException', 400)],
    [422, bySes('MessageRejected', 400)],
    [422, bySes('MessageRejected', 400, 'Email contains a virus.')],
  ],
  resend: [
    [422, byResend('validation_error', 400)],
    [422, byResend('validation_error', 422)],
    [409, byResend('invalid_idempotent_request', 409)],
    [409, byResend('concurrent_idempotent_requests', 409)],
  ],
  sendgrid: [
    [422, bySendGrid(400)],
    [422, bySendGrid(413)],
  ],
}

/** What does not. */
const failures: Readonly<Record<ProviderName | 'any', Readonly<Record<string, Reaction>>>> = {
  any: {
    'a broken connection': 'breaks',
    'a page with a 503': unavailable,
    'a page with a 200': page,
    'nothing with a 200': { body: {} },
    'null with a 500': { status: 500, body: null },
    'JSON with a 500': { status: 500, body: { message: 'Oh no.' } },
  },
  ses: {
    'a revoked key': bySes('UnrecognizedClientException', 403),
    'a missing permission': bySes('AccessDeniedException', 403),
    'the sending rate': bySes('TooManyRequestsException', 429),
    'a suspended account': bySes('AccountSuspendedException', 400),
    'sending paused': bySes('SendingPausedException', 400),
    'a sender that is not verified, or in the sandbox a recipient': bySes(
      'MessageRejected',
      400,
      'Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: shop@example.com',
    ),
  },
  resend: {
    'a revoked key': byResend('invalid_api_key', 403),
    'a restricted key': byResend('restricted_api_key', 401),
    'a spent quota': byResend('daily_quota_exceeded', 429),
    'a sender that is not ours': byResend('invalid_from_address', 422),
  },
  sendgrid: {
    'a revoked key': bySendGrid(401),
    'a sender that is not ours': bySendGrid(403),
    'the rate limit': bySendGrid(429),
    'a 202 that does not name the e-mail': { status: 202 },
  },
}

const email = { to: 'ada@example.com', subject: 'Your order', text: 'It is on its way.' }

describe('An e-mail', () => {
  it('is sent by SES, and by nobody else, while SES is well', async () => {
    await using mail = await startMail()
    const send = await mail.newInstance()

    expect(await send(email)).toEqual({
      status: 200,
      body: { status: 'sent', id: expect.any(String), provider: 'ses', messageId: 'ses-1' },
    })

    expect(mail.requests()).toEqual({ ses: 1, resend: 0, sendgrid: 0, sqs: 0 })
    expect(JSON.parse(mail.ses.requests[0]?.body ?? '')).toEqual({
      FromEmailAddress: 'shop@example.com',
      Destination: { ToAddresses: ['ada@example.com'] },
      Content: { Simple: { Subject: { Data: 'Your order' }, Body: { Text: { Data: 'It is on its way.' } } } },
    })
  })

  it('is read from a request that API Gateway has encoded, too', async () => {
    await using mail = await startMail()
    const send = await mail.newInstance()
    const encoded = Buffer.from(JSON.stringify({ ...email, text: 'Grüße' })).toString('base64')

    expect(await send(encoded, { isBase64Encoded: true })).toMatchObject({ status: 200 })

    expect(JSON.parse(mail.ses.requests[0]?.body ?? '')).toMatchObject({
      Content: { Simple: { Body: { Text: { Data: 'Grüße' } } } },
    })
  })

  it('goes to the next provider when one fails, and after three failures without asking that one any more', async () => {
    await using mail = await startMail()
    mail.ses.react(unavailable)
    const send = await mail.newInstance()

    for (let sent = 0; sent < 3; sent++) expect((await send(email)).body).toMatchObject({ provider: 'resend' })
    expect(mail.requests()).toEqual({ ses: 3, resend: 3, sendgrid: 0, sqs: 0 })

    mail.resend.react(unavailable)
    for (let sent = 0; sent < 3; sent++) expect((await send(email)).body).toMatchObject({ provider: 'sendgrid' })
    expect(mail.requests()).toEqual({ ses: 3, resend: 6, sendgrid: 3, sqs: 0 })

    expect((await send(email)).body).toMatchObject({ provider: 'sendgrid', messageId: 'sendgrid-4' })
    expect(mail.requests()).toEqual({ ses: 3, resend: 6, sendgrid: 4, sqs: 0 })
    expect(JSON.parse(mail.resend.requests[0]?.body ?? '')).toEqual({ from: 'shop@example.com', ...email })
    expect(JSON.parse(mail.sendgrid.requests[0]?.body ?? '')).toMatchObject({
      from: { email: 'shop@example.com' },
      personalizations: [{ to: [{ email: 'ada@example.com' }] }],
      subject: 'Your order',
      content: [{ type: 'text/plain', value: 'It is on its way.' }],
    })
  })

  it('is queued when no provider is able, and then at once when every circuit is open', async () => {
    await using mail = await startMail()
    mail.allProviders(unavailable)
    const send = await mail.newInstance()

    for (let sent = 0; sent < 4; sent++) {
      expect(await send(email, { headers: { 'idempotency-key': `order/${sent}` } })).toEqual({
        status: 202,
        body: { status: 'queued', id: `order/${sent}` },
      })
    }

    expect(mail.requests()).toEqual({ ses: 3, resend: 3, sendgrid: 3, sqs: 4 })
    expect(sqsCalls(mail.sqs)[3]).toEqual([
      'SendMessage',
      { QueueUrl: mail.queueUrl, MessageBody: JSON.stringify({ id: 'order/3', ...email }) },
    ])
  })

  it('is not sent to a dead provider by an instance that has never asked it', async () => {
    await using mail = await startMail()
    mail.ses.react(unavailable)
    const first = await mail.newInstance()
    for (let sent = 0; sent < 3; sent++) await first(email)

    const second = await mail.newInstance()

    expect((await second(email)).body).toMatchObject({ provider: 'resend' })
    expect(mail.requests()).toEqual({ ses: 3, resend: 4, sendgrid: 0, sqs: 0 })
  })

  it('is sent by SES again once SES is well again', async () => {
    await using mail = await startMail()
    mail.ses.react(unavailable)
    const send = await mail.newInstance()
    for (let sent = 0; sent < 3; sent++) await send(email)

    mail.heal('ses')
    await time.advance(9_999)
    expect((await send(email)).body).toMatchObject({ provider: 'resend' })
    // The circuit stays open for 10 s, and the instance that opened it lets others probe first, for a second.
    await time.advance(1_001)
    expect((await send(email)).body).toMatchObject({ provider: 'ses' })

    expect(mail.ses.requests).toHaveLength(4)
    expect((await send(email)).body).toMatchObject({ provider: 'ses' })
  })

  it('that takes a provider too long is sent by the next, and the slow one is passed over from then on', async () => {
    await using mail = await startMail()
    mail.ses.react(() => time.hang(timeout))
    const send = await mail.newInstance()
    for (let sent = 0; sent < 3; sent++) expect((await send(email)).body).toMatchObject({ provider: 'resend' })

    expect((await send(email)).body).toMatchObject({ provider: 'resend' })

    expect(mail.requests()).toEqual({ ses: 3, resend: 4, sendgrid: 0, sqs: 0 })
  })

  it('is queued within the invocation’s time when all three providers hang', async () => {
    await using mail = await startMail()
    mail.allProviders(() => time.hang(timeout))
    const send = await mail.newInstance()

    // As long as the function may run; all that is left is kept back for the queue.
    expect(await send(email, { remainingTime: 15_000 })).toMatchObject({ status: 202 })

    expect(mail.requests()).toEqual({ ses: 1, resend: 1, sendgrid: 1, sqs: 1 })
    await mail.ses.givenUp(1)
    await mail.resend.givenUp(1)
    // Its SDK cannot be told to stop: nobody waits for this request, but it goes on.
    expect(mail.sendgrid.abandoned).toBe(0)
  })

  it('is queued rather than lost when the invocation has no time for three providers', async () => {
    await using mail = await startMail()
    const send = await mail.newInstance()
    await send(email)
    mail.allProviders(() => time.hang(2_000))

    // Of which 3 s are kept back for the queue.
    expect(await send(email, { remainingTime: 5_000 })).toMatchObject({ status: 202 })

    expect(mail.requests()).toEqual({ ses: 2, resend: 0, sendgrid: 0, sqs: 1 })
  })

  it('is given up soon when all three providers hang, and then the queue, however long the function might run', async () => {
    await using mail = await startMail()
    const send = await mail.newInstance()
    await send(email)
    mail.allProviders(() => time.hang(timeout))
    mail.sqs.react(() => time.hang(queueTimeout))

    expect(await send(email, { remainingTime: 900_000 })).toMatchObject({ status: 503 })

    expect(mail.requests()).toEqual({ ses: 2, resend: 1, sendgrid: 1, sqs: 1 })
  })

  it('that can neither be sent nor queued is answered with a 503', async () => {
    await using mail = await startMail()
    mail.allProviders(unavailable)
    mail.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
    const send = await mail.newInstance()

    expect(await send(email)).toEqual({ status: 503, body: { error: expect.stringContaining('nor be queued') } })
  })
})

describe('A message that is wrong', () => {
  it.each(names)('is refused if %s says so: nobody else is asked, and it never counts', async (name) => {
    await using mail = await startMail()
    const send = await mail.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1' })
    await mail.openBefore(name, send)
    const asked = mail.requests()

    for (const [index, [status, refusal]] of refusals[name].entries()) {
      mail[name].react(refusal)
      expect(await send(email)).toEqual({ status, body: { error: `${name} refused the message.` } })
      expect(mail.requests()).toEqual({ ...asked, [name]: asked[name] + index + 1 })
    }
  })
})

describe('A provider', () => {
  it.each(names)('is passed over however it fails, and all of it counts: %s', async (name) => {
    const given = Object.entries({ ...failures.any, ...failures[name] })
    await using mail = await startMail()
    const threshold = `CIRCUIT_BREAKER_FAILURE_THRESHOLD__${name.toUpperCase()}`
    const send = await mail.newInstance({ CIRCUIT_BREAKER_FAILURE_THRESHOLD: '1', [threshold]: `${given.length}` })
    await mail.openBefore(name, send)
    const asked = mail[name].requests.length
    const next = { ses: { provider: 'resend' }, resend: { provider: 'sendgrid' }, sendgrid: { status: 'queued' } }[name]

    for (const [what, failure] of given) {
      mail[name].react(failure)
      expect({ what, ...(await send(email)).body }).toMatchObject({ what, ...next })
    }
    expect(mail[name].requests).toHaveLength(asked + given.length)

    expect((await send(email)).body).toMatchObject(next)
    expect(mail[name].requests).toHaveLength(asked + given.length)
  })

  it('is left alone for as long as it asks for with a 429', async () => {
    await using mail = await startMail()
    mail.resend.react({
      status: 429,
      headers: { 'retry-after': '100' },
      body: { statusCode: 429, name: 'rate_limit_exceeded' },
    })
    mail.ses.react(unavailable)
    const environment = { CIRCUIT_BREAKER_RESET_TIMEOUT__RESEND: '1' }
    const send = await mail.newInstance(environment)
    for (let sent = 0; sent < 3; sent++) await send(email)

    const second = await mail.newInstance(environment)
    await time.advance(99_999)

    expect((await second(email)).body).toMatchObject({ provider: 'sendgrid' })
    expect(mail.resend.requests).toHaveLength(3)
  })
})

it('What is logged of an e-mail is its id and how each provider failed: no address, no text and no key', async () => {
  await using mail = await startMail()
  mail.ses.react(bySes('ThrottlingException', 429, 'No: ada@example.com'))
  mail.resend.react({
    status: 429,
    body: { name: 'daily_quota_exceeded', statusCode: 429, message: 'ada@example.com' },
  })
  mail.sendgrid.react('breaks')
  mail.sqs.react({ status: 400, body: { __type: 'com.amazonaws.sqs#QueueDoesNotExist', message: 'No such queue.' } })
  const send = await mail.newInstance()

  expect(await send(email, { headers: { 'idempotency-key': 'order/7' } })).toMatchObject({ status: 503 })
  mail.ses.react(bySes('MessageRejected', 400, 'No: ada@example.com'))
  expect(await send(email, { headers: { 'idempotency-key': 'order/8' } })).toMatchObject({ status: 422 })

  const logged = printed()
  expect(logged).toMatch(/order\/7.* 'ses'.*ThrottlingException/s)
  expect(logged).toMatch(/order\/7.* 'resend'.*daily_quota_exceeded.* 429/s)
  expect(logged).toMatch(/order\/7.* 'sendgrid'.*ECONNRESET/s)
  expect(logged).toMatch(/order\/8.* 'ses'.*MessageRejected/s)
  for (const secret of ['ada@', email.subject, email.text, 're_example', 'SG.example']) {
    expect(logged).not.toContain(secret)
  }
})

describe('The id of an e-mail', () => {
  it('is the caller’s Idempotency-Key, and Resend is told', async () => {
    await using mail = await startMail()
    mail.ses.react('breaks')
    const send = await mail.newInstance()

    const { body } = await send(email, { headers: { 'idempotency-key': 'order/7' } })

    expect(body).toMatchObject({ id: 'order/7', provider: 'resend' })
    expect(mail.resend.requests[0]?.headers['idempotency-key']).toBe('order/7')
  })

  it('is that of the request where the caller gives none', async () => {
    await using mail = await startMail()
    mail.ses.react('breaks')
    const send = await mail.newInstance()

    const { body } = await send(email)

    expect(mail.resend.requests[0]?.headers['idempotency-key']).toBe(body['id'])
    expect((await send(email)).body['id']).not.toBe(body['id'])
  })
})

it('A request that is no e-mail is answered with a 400 that says why, and nobody is asked', async () => {
  await using mail = await startMail()
  const send = await mail.newInstance()
  const refused = async (body: unknown, headers = {}) => {
    const answer = await send(body, { headers })
    expect(answer.status).toBe(400)
    return answer.body['error']
  }

  expect(await refused('{')).toMatch('"to" must be')
  expect(await refused('null')).toMatch('"to" must be')
  expect(await refused('')).toMatch('"to" must be')
  expect(await refused({ ...email, to: ['ada@example.com'] })).toMatch('"to" must be')
  expect(await refused({ ...email, to: 'ada@example.com, bob@example.com' })).toMatch('"to" must be')
  expect(await refused({ ...email, to: 'ada@example.com\r\nbcc: bob@example.com' })).toMatch('"to" must be')
  expect(await refused({ ...email, subject: 'Hello\nBcc: bob@example.com' })).toMatch('"subject" must be')
  expect(await refused({ ...email, subject: undefined })).toMatch('"subject" must be')
  expect(await refused({ ...email, text: '' })).toMatch('"text" must be')
  expect(await refused({ ...email, text: 'x'.repeat(200_001) })).toMatch('longer than 200000 bytes')
  for (const id of ['', 'k'.repeat(257), 'order 7', 'order/7\u0000', 'größe', 'Ω7', '📦']) {
    expect(await refused(email, { 'idempotency-key': id })).toMatch('Idempotency-Key')
  }
  expect(mail.requests()).toEqual({ ses: 0, resend: 0, sendgrid: 0, sqs: 0 })
})

it('A function that lacks a variable does not start', async () => {
  await using mail = await startMail()
  await expect(mail.newInstance({ EMAIL_QUEUE_URL: '' })).rejects.toThrow('EMAIL_QUEUE_URL is not set')
})

interface Reply {
  readonly status: number | undefined
  readonly body: Record<string, unknown>
}

interface SendOptions {
  readonly headers?: Readonly<Record<string, string>>
  readonly isBase64Encoded?: boolean
  readonly remainingTime?: number
}

/** Three providers that are well, a queue, and circuits that nothing has happened to. */
async function startMail() {
  const counts = new Map<string, number>()
  const counting = (name: string, answer: (messageId: string) => Reaction) => () => {
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    return answer(`${name}-${count}`)
  }
  const well = {
    ses: counting('ses', (MessageId) => ({ body: { MessageId } })),
    resend: counting('resend', (id) => ({ body: { id } })),
    sendgrid: counting('sendgrid', (id) => ({ status: 202, headers: { 'x-message-id': id } })),
  }
  await using started = new AsyncDisposableStack()
  const ses = started.use(await startProvider(well.ses))
  const resend = started.use(await startProvider(well.resend))
  const sendgrid = started.use(await startProvider(well.sendgrid))
  const sqs = started.use(await startProvider(answerAsSqs))
  const queueUrl = `${sqs.url}/123456789012/email`
  const namespace = randomUUID()
  const servers = started.move()

  const newInstance = async (variables: Readonly<Record<string, string>> = {}) => {
    const { handler } = await coldStart(() => import('../../examples/email/handler.ts'), {
      ...dynamoDB.variables,
      ...patientVariables,
      AWS_ENDPOINT_URL_SESV2: ses.url,
      AWS_ENDPOINT_URL_SQS: sqs.url,
      RESEND_API_KEY: 're_example',
      RESEND_BASE_URL: resend.url,
      SENDGRID_API_KEY: 'SG.example',
      SENDGRID_BASE_URL: sendgrid.url,
      EMAIL_FROM: 'shop@example.com',
      EMAIL_QUEUE_URL: queueUrl,
      CIRCUIT_BREAKER_TABLE_NAME: dynamoDB.tableName,
      CIRCUIT_BREAKER_NAMESPACE: namespace,
      ...variables,
    })
    return async (body: unknown, options: SendOptions = {}): Promise<Reply> => {
      const { headers = {}, isBase64Encoded = false, remainingTime = 15_000 } = options
      const event = { ...post(body, headers), isBase64Encoded }
      const answer = await handler(event, createTestContext({ remainingTime }))
      return { status: answer.statusCode, body: JSON.parse(answer.body ?? '') }
    }
  }

  return {
    ses,
    resend,
    sendgrid,
    sqs,
    queueUrl,
    newInstance,
    heal: (name: ProviderName) => ({ ses, resend, sendgrid })[name].react(well[name]),
    /** Opens the circuits of those that come before, where one failure is enough. */
    openBefore: async (name: ProviderName, send: (body: unknown) => Promise<Reply>) => {
      for (const before of names.slice(0, names.indexOf(name))) ({ ses, resend, sendgrid })[before].react(unavailable)
      if (name !== 'ses') expect((await send(email)).body).toMatchObject({ provider: name })
    },
    allProviders: (reaction: Reaction | (() => Promise<Reaction>)) => {
      for (const provider of [ses, resend, sendgrid]) provider.react(reaction)
    },
    requests: () => {
      const numberOf = ({ requests }: Provider) => requests.length
      return { ses: numberOf(ses), resend: numberOf(resend), sendgrid: numberOf(sendgrid), sqs: numberOf(sqs) }
    },
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  }
}

function post(body: unknown, headers: Readonly<Record<string, string>>): APIGatewayProxyEventV2 {
  const event = httpEvent({ route: 'POST /emails', headers, body })
  return { ...event, requestContext: { ...event.requestContext, requestId: randomUUID() } }
}
