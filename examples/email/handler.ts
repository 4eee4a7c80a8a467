/**
 * Sends an e-mail (`POST` with `{ "to", "subject", "text" }`) over the first of three providers that takes it.
 *
 * Each provider has its own circuit. The function passes over a provider whose circuit is open, without a request, and goes
 * on to the next one when a provider fails or is too slow. A provider may refuse the message itself (no such address, too
 * large). That refusal is the answer: it never counts as a failure, and no other provider is asked. Every other failure
 * counts, also a 401, 403 or 429: with a revoked key or a spent quota a provider cannot send the next e-mail either.
 *
 * | answer | when |
 * | --- | --- |
 * | 200 `sent` | a provider has accepted it |
 * | 202 `queued` | none could: it waits in SQS, and `worker.ts` sends it later with the same id |
 * | 400 | the request is no e-mail |
 * | 409 | its id is that of another e-mail, or it is being sent at this moment |
 * | 422 | a provider refused the message |
 * | 503 | it could not even be queued |
 *
 * An e-mail is sent at least once, not exactly once: a provider that was too slow may have sent it all the same, and then
 * the next one sends it again. Only Resend recognises it: for 24 hours it sends one e-mail for each
 * id (`Idempotency-Key`, else API Gateway's request id). SES and SendGrid have nothing like it.
 *
 * Configured by `EMAIL_FROM`, `EMAIL_QUEUE_URL`, `RESEND_API_KEY`, `SENDGRID_API_KEY` and `CIRCUIT_BREAKER_TABLE_NAME`, and for
 * other endpoints by `AWS_ENDPOINT_URL_SESV2`, `AWS_ENDPOINT_URL_SQS`, `RESEND_BASE_URL` and `SENDGRID_BASE_URL`. Let the
 * function run for 15 s: three providers of 3 s each (`CIRCUIT_BREAKER_TIMEOUT`), and what is reserved for the queue.
 *
 * Packages: `middy-circuit-breaker`, `@middy/core`, `resend`, `@sendgrid/client`, `@sendgrid/mail`, and of the AWS SDK, which
 * Lambda's runtimes bring, `client-sesv2`, `client-sqs`, `client-dynamodb` and `util-dynamodb`.
 *
 * @module
 */

import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs'
import middy from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { circuitBreaker, hasStatus } from 'middy-circuit-breaker'
import { type Email, emailOf } from './email.ts'
import { required } from './environment.ts'
import { report, sendEmail } from './sending.ts'

const queueUrl = required('EMAIL_QUEUE_URL')
// With the SDK's own retries: nothing comes after the queue, and an e-mail that is queued twice has the same id twice.
const sqs = new SQSClient()

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  .use(
    circuitBreaker({
      services: ['ses', 'resend', 'sendgrid'],
      timeout: 3_000,
      // However slow the providers are: what it takes to queue the e-mail and to answer is kept back.
      deadlineReserve: 3_000,
      onStateChange: ({ service, from, to, reason }) => console.warn({ circuit: service, from, to, reason }),
    }),
  )
  .handler(async (event, { callExternal }) => {
    const email = emailOf(event)
    if (typeof email === 'string') return answer(400, { error: email })
    const outcome = await sendEmail(email, callExternal)
    if (outcome === undefined) return enqueue(email)
    if ('messageId' in outcome) return answer(200, { status: 'sent', id: email.id, ...outcome })
    const { provider, refusal } = outcome
    report(email, provider, refusal)
    return answer(hasStatus(refusal, 409) ? 409 : 422, { error: `${provider} refused the message.` })
  })

async function enqueue(email: Email): Promise<APIGatewayProxyStructuredResultV2> {
  const message = new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: JSON.stringify(email) })
  try {
    await sqs.send(message, { abortSignal: AbortSignal.timeout(2_000) })
  } catch (error) {
    console.error(error)
    return answer(503, { error: 'The e-mail could neither be sent nor be queued. Try again later.' })
  }
  return answer(202, { status: 'queued', id: email.id })
}

function answer(statusCode: number, body: object): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
}
