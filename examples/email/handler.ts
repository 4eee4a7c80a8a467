/**
 * Sends an e-mail (`POST` with `{ "to", "subject", "text" }`) over the first of three providers that takes it.
 *
 * Each provider has its own circuit. One that is open is passed over at once, without a request, and so is a provider that
 * fails or is too slow. What it says of the message (no address, too large) is the answer: nobody else is bothered with
 * it, and it never counts. Every other failure counts, also a 401, 403 or 429: a revoked key or a spent quota is no reason
 * not to send the e-mail with another provider, nor for every later one to find it out again.
 *
 * | answer | when |
 * | --- | --- |
 * | 200 `sent` | a provider has accepted it |
 * | 202 `queued` | none could: it waits in SQS for a worker, which sends it with the same id |
 * | 400 | the request is no e-mail |
 * | 409 | its id is that of another e-mail, or it is being sent at this moment |
 * | 422 | a provider refused the message |
 * | 503 | it could not even be queued |
 *
 * An e-mail is sent at least once, not exactly once: a provider that was too slow may have sent it all the same, and then
 * the next one sends it again. Only Resend can be told that it is the same one: for 24 hours it sends one e-mail for each
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
import { type CallExternal, circuitBreaker, hasStatus, isBreakableResultError } from 'middy-circuit-breaker'
import { type Email, emailOf } from './email.ts'
import { required } from './environment.ts'
import { type Answer, type Provider, providers } from './providers.ts'

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

type Outcome =
  | { readonly provider: string; readonly messageId: string }
  /** The message is wrong: what the provider said. */
  | { readonly provider: string; readonly refusal: unknown }
  /** No provider was able, or none could be asked. */
  | undefined

async function sendEmail(email: Email, callExternal: CallExternal<Provider['name']>): Promise<Outcome> {
  for (const { name, send, blamesMessage } of providers) {
    try {
      const sent = await callExternal(name, ({ signal }) => send(email, signal), {
        isBreakableError: (error) => !blamesMessage(error),
        isBreakableResult: ({ id, error }) => id === undefined && !blamesMessage(error),
        // The circuit refused or cut the call, or it failed in a way that counts: the next provider's turn.
        fallback: (error) => report(email, name, error),
      })
      if (sent?.id !== undefined) return { provider: name, messageId: sent.id }
      if (sent !== undefined) return { provider: name, refusal: sent.error }
    } catch (error) {
      if (!blamesMessage(error)) throw error
      return { provider: name, refusal: error }
    }
  }
  return undefined
}

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

/** Names, codes and statuses only: messages can hold addresses, and the errors of axios hold the API key. */
function report(email: Email, provider: string, failure: unknown): undefined {
  const reason = isBreakableResultError(failure) ? (failure.result as Answer).error : failure
  const { name, code, statusCode } = (reason ?? {}) as { name?: unknown; code?: unknown; statusCode?: unknown }
  console.warn({ email: email.id, provider, name, code, statusCode })
}

function answer(statusCode: number, body: object): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
}
