/**
 * Delivers webhooks to the hosts of customers, one for each record of a queue.
 *
 * Each host has a circuit of its own, because hosts of customers have nothing in common. A host that is dead takes no time from
 * the others: what is for it is moved to a second queue, with a delay until the circuit may be probed. This function reads that
 * queue, too, so that the first delivery that comes back is the probe. A record that is moved keeps its id, and takes none of the
 * receives that the redrive policy of the first queue counts.
 *
 * A host can be any text that a customer has entered. The number of circuits is bounded: beyond `maxKeys` that fail within a
 * `window`, hosts without a circuit share one.
 *
 * A delivery that fails is returned to its queue, and tried again after the visibility timeout. What a host answers with a 4xx
 * status, but 408 and 429, is the customer's own business: it is not tried again.
 *
 * Both event source mappings need `ReportBatchItemFailures`; the role `sqs:SendMessage` for the second queue. Configured by
 * `WAITING_QUEUE_URL`, `DELIVERY_TIMEOUT` (of one request, in milliseconds), `CIRCUIT_BREAKER_TABLE_NAME` and
 * `CIRCUIT_BREAKER_MAX_KEYS`.
 *
 * Packages: `middy-circuit-breaker`, `@middy/core`, and of the AWS SDK, which Lambda's runtimes bring, `client-sqs`,
 * `client-dynamodb` and `util-dynamodb`.
 *
 * @module
 */

import middy from '@middy/core'
import type { SQSBatchResponse, SQSEvent, SQSRecord } from 'aws-lambda'
import { type CallExternal, circuitBreaker, isCircuitOpenError } from 'middy-circuit-breaker'
import { type Delivery, deliver, deliveryOf } from './delivery.ts'
import { milliseconds } from './environment.ts'
import { moveToWaiting } from './queue.ts'

/** The longest that a host may take to answer, in milliseconds. */
const timeout = milliseconds('DELIVERY_TIMEOUT', 5_000)

export const handler = middy<SQSEvent, SQSBatchResponse>()
  .use(
    circuitBreaker({
      services: { hooks: { keyed: { maxKeys: 1_000 } } },
      timeout,
      // Nobody waits for an answer.
      resetTimeout: 60_000,
      onStateChange: ({ service, key, from, to, reason }) =>
        console.warn({ circuit: service, host: key, from, to, reason }),
    }),
  )
  .handler(async ({ Records }, { callExternal }) => {
    // Hosts do not wait for each other, and one host gets no more than `maxConcurrent` at once.
    const isDone = await Promise.all(Records.map((record) => isSettled(record, callExternal)))
    const returned = Records.filter((_, index) => !isDone[index])
    return { batchItemFailures: returned.map(({ messageId }) => ({ itemIdentifier: messageId })) }
  })

/** Whether nothing is left to do for a record here: it is delivered, hopeless or moved. */
async function isSettled(record: SQSRecord, callExternal: CallExternal<'hooks', 'hooks'>): Promise<boolean> {
  const { messageId } = record
  const delivery = deliveryOf(record)
  if (delivery === undefined) {
    console.warn({ messageId, outcome: 'no delivery' })
    return true
  }
  try {
    const { status } = await callExternal('hooks', ({ signal }) => deliver(delivery, signal), { key: delivery.host })
    if (status >= 400) console.warn({ messageId, host: delivery.host, status })
    return status < 500 && status !== 408 && status !== 429
  } catch (error) {
    if (isCircuitOpenError(error)) return isMoved(delivery, error.retryAfter)
    console.warn({ messageId, host: delivery.host, error })
    return false
  }
}

/** Where it cannot be moved, it is returned, and comes back after the visibility timeout. */
async function isMoved(delivery: Delivery, delay: number): Promise<boolean> {
  try {
    await moveToWaiting(delivery, delay)
    return true
  } catch (error) {
    console.warn('A delivery could not be moved.', error)
    return false
  }
}
