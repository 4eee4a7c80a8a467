/**
 * Takes payments through an HTTP API of API Gateway, and tells CloudWatch how the payment service is: `telemetry.ts` has the
 * metrics and the log lines, `alarms.yaml` the alarms on them and a dashboard, `alarms.ts` the same for the CDK.
 *
 * While the circuit is open, and whenever a call fails, the customer's browser is told to ask again: 202 with `Retry-After`.
 * The order is the idempotency key, so that nobody pays twice.
 *
 * | variable | |
 * | --- | --- |
 * | `PAYMENTS_URL`, `PAYMENTS_API_KEY` | the payment service |
 * | `POWERTOOLS_SERVICE_NAME` | the name of this function's service in the log lines |
 * | `CIRCUIT_BREAKER_TABLE_NAME` | the DynamoDB table with the circuits |
 * | `CIRCUIT_BREAKER_…` | settings, for instance `CIRCUIT_BREAKER_TIMEOUT` |
 *
 * @module
 */

import { injectLambdaContext } from '@aws-lambda-powertools/logger/middleware'
import { MetricUnit } from '@aws-lambda-powertools/metrics'
import middy from '@middy/core'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import { CircuitBreaker, circuitBreaker, isBreakableResult, isCircuitOpenError } from 'middy-circuit-breaker'
import { logCircuits, measureCircuits } from 'middy-circuit-breaker/powertools'
import { correlation, failureOf, logger, metrics } from './telemetry.ts'

const url = variable('PAYMENTS_URL')
const key = variable('PAYMENTS_API_KEY')
/** What is asked of the browser where the circuit does not know better, in milliseconds. */
const aMoment = 5_000

// An option and not one of the call, so that CIRCUIT_BREAKER_TIMEOUT can change it.
const breaker = new CircuitBreaker({ services: ['payments'], timeout: 3_000 })

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  .use(injectLambdaContext(logger, { resetKeys: true, logEvent: false }))
  .use(correlation)
  .use(logCircuits(logger))
  .use(measureCircuits(metrics, { breaker }))
  .use(circuitBreaker(breaker))
  .onError((request) => {
    // An error that leaves the handler is logged by Lambda, with all that is in it.
    logger.error('The payment could not be made', { failure: failureOf(request.error) })
    request.response = respond(500, { message: 'The payment could not be made.' })
  })
  .handler(async (event, { callExternal }) => {
    const order = orderOf(event)
    if (order === undefined) {
      metrics.singleMetric().addMetric('InvalidRequests', MetricUnit.Count, 1)
      return respond(400, { message: 'Send an orderId, and an amount in cents.' })
    }
    const { orderId } = order

    const answer = await callExternal('payments', ({ signal }) => charge(order, signal), {
      isBreakableResult: (answer) => isBreakableResult(answer) || isGarbage(answer),
      fallback: (error): Pending => ({ retryAfter: isCircuitOpenError(error) ? error.retryAfter : aMoment }),
    })
    if ('retryAfter' in answer) return askAgain(orderId, answer.retryAfter)
    if (answer.status === 429) return askAgain(orderId, aMoment)
    if (answer.status === 402) return respond(402, { orderId, status: 'declined' })
    const payment = paymentOf(answer)
    if (payment?.status === 'pending') return askAgain(orderId, aMoment)
    if (payment !== undefined) return respond(200, { orderId, status: 'paid', payment: payment.id })
    // Our own mistake, a wrong key for instance.
    logger.error('The payment service has refused the request', { circuit: 'payments', status: answer.status })
    return respond(502, { message: 'The payment could not be made.' })
  })

interface Order {
  readonly orderId: string
  /** In cents. */
  readonly amount: number
}

interface Answer {
  readonly status: number
  /** The circuit breaker looks for Retry-After in here. */
  readonly headers: Headers
  readonly body: string
}

interface Payment {
  readonly id: string
  readonly status: 'paid' | 'pending'
}

interface Pending {
  /** In milliseconds. */
  readonly retryAfter: number
}

/** One request: fetch does not retry. */
async function charge({ orderId, amount }: Order, signal: AbortSignal): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    signal,
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      'idempotency-key': orderId,
    },
    body: JSON.stringify({ amount, reference: orderId }),
  })
  return { status: response.status, headers: response.headers, body: await response.text() }
}

/** A success without a payment in it, as a proxy's page is, says nothing: the service is unwell. */
function isGarbage(answer: Answer): boolean {
  return answer.status < 300 && paymentOf(answer) === undefined
}

/** A payment that was made, or that the service is still at work on. */
function paymentOf(answer: Answer): Payment | undefined {
  const { id, status } = answer.status < 300 ? parsed(answer.body) : {}
  return typeof id === 'string' && (status === 'paid' || status === 'pending') ? { id, status } : undefined
}

function orderOf({ body = '', isBase64Encoded }: APIGatewayProxyEventV2): Order | undefined {
  const { orderId, amount } = parsed(isBase64Encoded ? Buffer.from(body, 'base64').toString() : body)
  const isOrder = typeof orderId === 'string' && /^[\w-]{1,64}$/.test(orderId)
  return isOrder && Number.isSafeInteger(amount) && Number(amount) > 0 ? { orderId, amount: Number(amount) } : undefined
}

/** An object from JSON; an empty one of anything else. */
function parsed(json: string): { readonly [name: string]: unknown } {
  try {
    return Object(JSON.parse(json))
  } catch {
    return {}
  }
}

function askAgain(orderId: string, after: number): APIGatewayProxyStructuredResultV2 {
  const seconds = Math.max(1, Math.ceil(after / 1_000))
  return respond(202, { orderId, status: 'pending' }, { 'retry-after': String(seconds) })
}

function respond(
  statusCode: number,
  body: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>> = {},
): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) }
}

function variable(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`The variable ${name} must be set`)
  return value
}
