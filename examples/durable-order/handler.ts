/**
 * Carries out an order in a durable function of Lambda: takes the money, waits until the warehouse has packed, and has the
 * parcel fetched. Each call is a step, whose result the SDK keeps: when the function is suspended and replayed, no step that
 * has ended is carried out again.
 *
 * While the circuit of a service is open, or the service fails, the function sleeps until another attempt can succeed, and
 * costs no computing time meanwhile: an outage delays an order and loses none. Money is not taken for ever: an order that
 * could not be paid in `PAYING_ATTEMPTS` is given up. A card that is declined is an answer, which no waiting changes.
 *
 * A step is carried out **at least once**: if Lambda dies between the answer of the service and the SDK's note of it, it is
 * carried out again. So each request carries a key by which the service recognises it.
 *
 * - `PAYMENTS_URL`, `PARCELS_URL`: the services. Each is asked with `POST` and an `Idempotency-Key`; payments answer 402
 *   where the card is declined.
 * - `PAYING_ATTEMPTS`: default 50, which outlasts an outage of some hours. `PACKING_SECONDS`: default 3 600.
 * - `CIRCUIT_BREAKER_TABLE_NAME`: the table of the circuits.
 *
 * The function needs the managed policy `AWSLambdaBasicDurableExecutionRolePolicy`, and an execution timeout that is longer
 * than the outages that an order is to survive.
 *
 * @module
 */

import type { DurableContext } from '@aws/durable-execution-sdk-js'
import middy from '@middy/core'
import { executionModeDurableContext } from '@middy/core/DurableContext'
import { circuitBreaker } from 'middy-circuit-breaker'
import { retryAfterFrom, untilRecovered } from 'middy-circuit-breaker/durable'

export interface Order {
  readonly id: string
  /** In the smallest unit of the currency. */
  readonly amount: number
}

export interface Result {
  readonly status: 'sent' | 'declined' | 'given up'
}

const { PAYMENTS_URL = '', PARCELS_URL = '', PAYING_ATTEMPTS = '50', PACKING_SECONDS = '3600' } = process.env

const untilPaid = untilRecovered({ maxAttempts: Number(PAYING_ATTEMPTS) })
// A paid order is sent, however long it takes.
const untilSent = untilRecovered({ maxAttempts: Number.POSITIVE_INFINITY })

export const handler = middy<Order, Result, Error, DurableContext>({
  executionMode: executionModeDurableContext,
  // When a durable function is suspended, Middy's timer goes on, and would end a later invocation's wait.
  timeoutEarlyInMillis: 0,
})
  .use(
    circuitBreaker({
      services: { payments: { timeout: 5_000 }, parcels: { timeout: 5_000 } },
      onStateChange: ({ service, from, to, reason }) => console.warn(JSON.stringify({ service, from, to, reason })),
    }),
  )
  .handler(async (order, context) => {
    const { callExternal } = context
    let isPaid: boolean
    try {
      isPaid = await context.step(
        'pay',
        () => callExternal('payments', ({ signal }) => post(PAYMENTS_URL, order, signal)),
        { retryStrategy: untilPaid },
      )
    } catch (error) {
      if (retryAfterFrom(error) === undefined) throw error
      return { status: 'given up' }
    }
    if (!isPaid) return { status: 'declined' }
    await context.wait('packing', { seconds: Number(PACKING_SECONDS) })
    await context.step('send', () => callExternal('parcels', ({ signal }) => post(PARCELS_URL, order, signal)), {
      retryStrategy: untilSent,
    })
    return { status: 'sent' }
  })

/** Whether the service has accepted the order. Throws what is no answer to that, so that the step is tried again or fails. */
async function post(url: string, order: Order, signal: AbortSignal): Promise<boolean> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': order.id },
    body: JSON.stringify(order),
    signal,
  })
  await response.body?.cancel()
  if (response.ok) return true
  if (response.status === 402) return false
  throw new UnexpectedAnswer(response)
}

/** The circuit and the strategy look for the status, and for `Retry-After`, in here. */
class UnexpectedAnswer extends Error {
  override readonly name = 'UnexpectedAnswer'
  readonly status: number
  readonly headers: Headers

  constructor({ status, headers }: Response) {
    super(`The service answered ${status}.`)
    this.status = status
    this.headers = headers
  }
}
