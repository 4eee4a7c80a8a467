/**
 * Sends the e-mails that `handler.ts` has queued because no provider could take them.
 *
 * The worker has the table and the service names of the handler, so both share the circuits. While all circuits are open,
 * the worker returns every record at once, without a request. When a circuit allows its probe, the next e-mail is the probe,
 * and if it is accepted, the rest of the batch follows.
 *
 * | outcome | the record |
 * | --- | --- |
 * | a provider has accepted the e-mail | is done |
 * | a provider refuses the message | is done, and the log has its id: no later attempt can succeed |
 * | Resend says 409: the e-mail is being sent at this moment | is returned |
 * | no provider could take it | is returned |
 * | it is no e-mail | is returned, so that the redrive policy moves it to the dead-letter queue |
 * | no time is left for three providers | is returned |
 *
 * A returned record comes back after the queue's visibility timeout, and costs one receive of its `maxReceiveCount`. With
 * six minutes and a `maxReceiveCount` of 100, an e-mail outlasts an outage of all three providers of ten hours.
 *
 * The event source mapping needs `ReportBatchItemFailures`: without it, Lambda deletes returned records, too. Let the function
 * run for 60 s; AWS recommends a visibility timeout of six times that.
 *
 * Variables: those of `handler.ts`, without `EMAIL_QUEUE_URL`. The packages are the same, without `client-sqs`.
 *
 * @module
 */

import middy from '@middy/core'
import type { SQSBatchResponse, SQSEvent, SQSRecord } from 'aws-lambda'
import { type CallExternal, circuitBreaker, hasStatus } from 'middy-circuit-breaker'
import { queuedEmailOf } from './email.ts'
import type { Provider } from './providers.ts'
import { report, sendEmail } from './sending.ts'

/** What one e-mail can take: three providers of 3 s, and the second that the circuits reserve. In milliseconds. */
const longestSending = 10_000

export const handler = middy<SQSEvent, SQSBatchResponse>()
  .use(
    circuitBreaker({
      services: ['ses', 'resend', 'sendgrid'],
      timeout: 3_000,
      onStateChange: ({ service, from, to, reason }) => console.warn({ circuit: service, from, to, reason }),
    }),
  )
  .handler(async ({ Records }, context) => {
    const hasTime = () => context.getRemainingTimeInMillis() >= longestSending
    if (!hasTime()) throw new Error(`The function's timeout must be longer than ${longestSending} ms.`)

    const batchItemFailures: SQSBatchResponse['batchItemFailures'] = []
    // One after the other: the first e-mail after an outage is the probe, and e-mails beside it would be refused.
    for (const record of Records) {
      const isDone = hasTime() && (await send(record, context.callExternal))
      if (!isDone) batchItemFailures.push({ itemIdentifier: record.messageId })
    }
    return { batchItemFailures }
  })

/** Whether the record is done. It is not if another attempt can succeed. */
async function send({ messageId, body }: SQSRecord, callExternal: CallExternal<Provider['name']>): Promise<boolean> {
  const email = queuedEmailOf(body)
  if (email === undefined) {
    console.error({ messageId, message: 'The record is no e-mail.' })
    return false
  }
  try {
    const outcome = await sendEmail(email, callExternal)
    if (outcome === undefined) return false
    if ('messageId' in outcome) return true
    report(email, outcome.provider, outcome.refusal)
    return !hasStatus(outcome.refusal, 409)
  } catch (error) {
    // A bug, for instance: the other records of the batch go on. Messages of errors can hold addresses.
    console.error({ email: email.id, error: error instanceof Error ? error.name : typeof error })
    return false
  }
}
