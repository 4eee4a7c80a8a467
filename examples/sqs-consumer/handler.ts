/**
 * Orders a shipment from a warehouse's HTTP API for each record of a queue.
 *
 * When the circuit opens in the middle of a batch, the rest of it is returned at once, without a request; so is a batch that
 * comes while it is open. What is returned would come back after the queue's visibility timeout, again and again until its
 * `maxReceiveCount` is used up. So it is postponed until the probe is due: that takes one receive for each `resetTimeout`.
 * An outage of 100 minutes takes a `maxReceiveCount` of 100 with the minute that is set here, or of 20 with five.
 *
 * A record that is itself bad (no JSON, or the warehouse says 400) never counts, and is not returned. With a `maxReceiveCount`
 * that outlives outages it would be tried just as often, and take with it what waits behind it in a FIFO queue. The
 * function moves it to the dead-letter queue itself; the redrive policy remains for what cannot be moved.
 *
 * A 409 never counts either, but is returned: the warehouse is at work on the same shipment, from a request that was cut.
 *
 * Records are taken one after the other. One failed record does not open the circuit: it raises a suspicion, and the next
 * records of all instances are counted. A dead warehouse sees no more requests than that takes. The first record after the
 * outage is the probe: if it succeeds, the batch goes on, whereas records beside it would be refused. Lambda runs several
 * batches at once. A record for which there is no time is returned instead of being cut off, and in a
 * FIFO queue so is what comes after a returned one in its group.
 *
 * `template.yaml` deploys it with its queues: the event source mapping has `ReportBatchItemFailures`, and the role `sqs:ChangeMessageVisibility` for the queue and
 * `sqs:SendMessage` for the dead-letter queue. Configured by `WAREHOUSE_URL`, `WAREHOUSE_TIMEOUT` (of one
 * request, in milliseconds), `SHIPMENTS_QUEUE_URL`, `SHIPMENTS_DEAD_LETTER_QUEUE_URL`, `CIRCUIT_BREAKER_TABLE_NAME` and
 * `CIRCUIT_BREAKER_RESET_TIMEOUT`.
 *
 * Packages: `middy-circuit-breaker`, `@middy/core`, and of the AWS SDK, which Lambda's runtimes bring, `client-sqs`,
 * `client-dynamodb` and `util-dynamodb`.
 *
 * @module
 */

import middy from '@middy/core'
import type { SQSBatchResponse, SQSEvent, SQSRecord } from 'aws-lambda'
import {
  type CallExternal,
  type CircuitOpenError,
  type CircuitSnapshot,
  circuitBreaker,
  isCircuitOpenError,
} from 'middy-circuit-breaker'
import { milliseconds } from './environment.ts'
import { orderedGroupOf, postpone, putAside } from './queue.ts'
import { orderShipment, outcomeOf, shipmentOf } from './warehouse.ts'

/** The longest that a request may take, in milliseconds. It is given with each call, where it wins over every setting. */
const timeout = milliseconds('WAREHOUSE_TIMEOUT', 5_000)
/** Kept back for the queue: to move a record, or to postpone many. In milliseconds. */
const reserve = 3_000

export const handler = middy<SQSEvent, SQSBatchResponse>()
  .use(
    circuitBreaker({
      services: ['warehouse'],
      // Nobody waits for an answer, and every try costs each record one of its receives.
      resetTimeout: 60_000,
      onStateChange: ({ service, from, to, reason }) => console.warn({ circuit: service, from, to, reason }),
    }),
  )
  .handler(async ({ Records }, context) => {
    const hasTime = () => context.getRemainingTimeInMillis() >= timeout + reserve
    if (!hasTime()) throw new Error(`The function's timeout must be longer than ${timeout + reserve} ms.`)

    const returned: SQSRecord[] = []
    const blockedGroups = new Set<string>()
    let refusal: CircuitOpenError | undefined
    for (const record of Records) {
      const group = orderedGroupOf(record)
      const isHeldUp = refusal !== undefined || (group !== undefined && blockedGroups.has(group)) || !hasTime()
      const outcome = isHeldUp ? 'not done' : await ship(record, context.callExternal)
      if (outcome === 'done') continue
      returned.push(record)
      if (group !== undefined) blockedGroups.add(group)
      if (isCircuitOpenError(outcome)) refusal = outcome
    }
    // All of them: also what opened the circuit, even if nothing came after it that was refused, would only find it open.
    const delay = refusal?.retryAfter ?? timeUntilProbe(context.circuits.warehouse)
    if (delay !== undefined) await postpone(returned, delay)
    return { batchItemFailures: returned.map(({ messageId }) => ({ itemIdentifier: messageId })) }
  })

/** In milliseconds; `undefined`: the circuit is not open. Instances probe up to a second later than it says. */
function timeUntilProbe({ mode, state, retryAt }: CircuitSnapshot): number | undefined {
  const isOpen = mode === 'enforce' && state === 'OPEN' && retryAt !== undefined
  return isOpen ? retryAt - Date.now() + 1_000 : undefined
}

/** A `CircuitOpenError` says that nothing has been tried; any other error is a reason to try again. */
async function ship(
  record: SQSRecord,
  callExternal: CallExternal<'warehouse'>,
): Promise<'done' | 'not done' | CircuitOpenError> {
  const { messageId } = record
  try {
    const shipment = shipmentOf(record)
    const answer =
      shipment &&
      (await callExternal('warehouse', ({ signal }) => orderShipment(shipment, signal), {
        timeout,
        isBreakableResult: (result) => outcomeOf(result) === 'failed',
      }))
    const outcome = answer === undefined ? 'rejected' : outcomeOf(answer)
    if (outcome !== 'ordered') console.warn({ messageId, outcome, status: answer?.status })
    if (outcome === 'rejected') await putAside(record)
    return outcome === 'ordered' || outcome === 'rejected' ? 'done' : 'not done'
  } catch (error) {
    if (isCircuitOpenError(error)) return error
    console.warn({ messageId, error })
    return 'not done'
  }
}
