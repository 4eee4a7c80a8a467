/**
 * Makes a payment with Stripe: `POST /payments` of an API Gateway HTTP API.
 *
 * - **Stripe fails:** the first failed payment only raises a suspicion. When the fleet's next payments fail as well, the circuit opens for
 *   30 s. An instance that is alone opens it after two failures in a row.
 * - **Open:** Stripe is not asked, and nothing is charged: `503` with `Retry-After`.
 * - **Not known whether it was paid** (`504` for a timeout, `502` for a failure): the client sends the same request with
 *   the same `Idempotency-Key` again. Stripe then answers with what the first one came to, and charges nobody twice.
 * - **Declined:** `402` with the decline code. That is an answer, so the circuit does not count it.
 * - **Invoked with `{ "check": true }`**, which no request of the API is: the findings of the circuit breaker's check.
 *
 * Variables: `STRIPE_SECRET_KEY`; `CIRCUIT_BREAKER_TABLE_NAME` and the other variables of the circuit breaker; for tests
 * `STRIPE_API_URL`, a stand-in such as `http://127.0.0.1:12111`.
 *
 * @module
 */

import { AsyncLocalStorage } from 'node:async_hooks'
import middy from '@middy/core'
import httpErrorHandler from '@middy/http-error-handler'
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda'
import {
  CircuitBreaker,
  circuitBreaker,
  isBreakableError,
  isCircuitBreakerError,
  isCircuitTimeoutError,
} from 'middy-circuit-breaker'
import Stripe from 'stripe'
import { type PaymentRequest, readPaymentRequest } from './payment-request.ts'

const { STRIPE_SECRET_KEY = '', STRIPE_API_URL = 'https://api.stripe.com' } = process.env

/** The SDK takes no signal for a call. Its requests find here the call that they belong to. */
const calls = new AsyncLocalStorage<Call>()

interface Call {
  signal?: AbortSignal
  requests: number
  /** Whether Stripe answered the first of them with what it had stored for the key, before this call. */
  beganWithReplay: boolean
}

const { protocol, hostname, port } = new URL(STRIPE_API_URL)
const stripe = new Stripe(STRIPE_SECRET_KEY, {
  protocol: protocol === 'http:' ? 'http' : 'https',
  host: hostname,
  port: port || (protocol === 'http:' ? 80 : 443),
  // With it a call that was cut ends here, too: it is not tried again in a later invocation, when nobody waits for it.
  httpClient: Stripe.createFetchHttpClient(async (url, init) => {
    const call = calls.getStore() ?? newCall()
    const isFirst = ++call.requests === 1
    const given = [init?.signal, call.signal].filter((signal) => signal instanceof AbortSignal)
    const response = await fetch(url, { ...init, signal: AbortSignal.any(given) })
    if (isFirst) call.beganWithReplay = response.headers.get('idempotent-replayed') === 'true'
    return response
  }),
  // One repetition, under the same key, by the SDK and not by a second `callExternal`: it knows from Stripe which answers
  // are worth one, and a payment stays one call, so that `failureThreshold` counts payments.
  maxNetworkRetries: 1,
})

const { StripeError, StripeAPIError, StripeCardError, StripeConnectionError, StripeIdempotencyError } = Stripe.errors
const { StripeInvalidRequestError, StripeRateLimitError } = Stripe.errors

const breaker = new CircuitBreaker({
  services: {
    stripe: {
      failureThreshold: 2,
      resetTimeout: 30_000,
      // For both attempts together, below the function's timeout less `deadlineReserve`. A hang is not tried again.
      timeout: 10_000,
    },
  },
  onStateChange: ({ service, from, to, reason }) => console.warn(JSON.stringify({ service, from, to, reason })),
})

export const handler = middy<APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2>()
  // These two first, and so outermost: `onError` runs from the last to the first, and the answer is made when all is stored.
  .onError((request) => {
    request.response = inJson(request.response, request.error)
  })
  .use(httpErrorHandler({ logger: (error) => logFailure(error) }))
  .use(circuitBreaker(breaker))
  .handler(async (event, context) => {
    const { callExternal } = context
    if ('check' in event) return answer(200, { findings: await breaker.check({ context }) })
    const request = readPaymentRequest(event)
    if ('problems' in request) return answer(400, { code: 'invalid_request', problems: request.problems })
    const call = newCall()
    try {
      const intent = await callExternal(
        'stripe',
        ({ signal }) => calls.run(Object.assign(call, { signal }), pay, request),
        // Stripe repeats its failure of a payment to each request with that key; that says nothing about now. Unless it is
        // this call's own failure: a repetition by the SDK is answered with that.
        { isBreakableError: (error) => isBreakableError(error) && !(call.beganWithReplay && isReplay(error)) },
      )
      const { id, status, amount, currency, client_secret: clientSecret } = intent
      if (status === 'succeeded') return answer(200, { id, status, amount, currency })
      if (status === 'canceled') return answer(402, { code: 'payment_canceled', message: 'The payment was canceled.' })
      // For instance `requires_action`: the customer has to confirm with the bank, for which the client needs the secret.
      return answer(202, { id, status, amount, currency, clientSecret })
    } catch (error) {
      return answerTo(error, request.idempotencyKey)
    }
  })

function newCall(): Call {
  return { requests: 0, beganWithReplay: false }
}

async function pay({ idempotencyKey, customer, ...payment }: PaymentRequest): Promise<Stripe.PaymentIntent> {
  const intent = await stripe.paymentIntents.create(
    {
      amount: payment.amount,
      currency: payment.currency,
      payment_method: payment.paymentMethod,
      ...(customer !== undefined && { customer }),
      confirm: true,
      automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
      // To find it again where it is not known what became of it.
      metadata: { idempotency_key: idempotencyKey },
    },
    { idempotencyKey },
  )
  if (intent.object === 'payment_intent') return intent
  // JSON of something in between, with any status: the SDK takes what has no `error` in it for the intent.
  throw new StripeAPIError({ message: 'Not a payment intent.', statusCode: intent.lastResponse.statusCode })
}

function isReplay(error: unknown): boolean {
  return error instanceof StripeError && error.headers?.['idempotent-replayed'] === 'true'
}

/** Throws what is left to the error handler: what the circuit refused or did not begin, a mistake in this code. */
function answerTo(error: unknown, idempotencyKey: string): APIGatewayProxyStructuredResultV2 {
  if (isCircuitTimeoutError(error) && error.attempted) return outcomeUnknown(504, error, idempotencyKey)
  if (!(error instanceof StripeError)) throw error
  const { message, code, param } = error
  if (error instanceof StripeCardError) return answer(402, { code, declineCode: error.decline_code, message })
  if (error instanceof StripeIdempotencyError) return answer(422, { code: 'idempotency_key_reused', message })
  if (error instanceof StripeInvalidRequestError) return answer(400, { code, param, message })
  // Stripe is still at work on an earlier request with this key.
  if (error.statusCode === 409) return answer(409, { code: 'in_progress', message }, { 'Retry-After': '1' })
  if (error instanceof StripeRateLimitError) return answer(503, { code: 'busy', message }, { 'Retry-After': '1' })
  if (error instanceof StripeConnectionError || error instanceof StripeAPIError) {
    return outcomeUnknown(502, error, idempotencyKey)
  }
  // The secret key is wrong or may not do this. Not thrown: its status and message would be shown to the client.
  logFailure(error)
  return answer(500, { code: 'internal_error' })
}

function outcomeUnknown(
  statusCode: 502 | 504,
  error: Error,
  idempotencyKey: string,
): APIGatewayProxyStructuredResultV2 {
  logFailure(error, { idempotencyKey })
  // A failure that Stripe has stored for the key is all that it will ever answer.
  const advice = isReplay(error)
    ? 'Find out in Stripe, by metadata.idempotency_key, before you try another one.'
    : 'Send the same request with the same Idempotency-Key again: the payment is made once at most.'
  return answer(statusCode, { code: 'outcome_unknown', message: `The payment may have been made. ${advice}` })
}

function answer(
  statusCode: number,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>> = {},
): APIGatewayProxyStructuredResultV2 {
  return { statusCode, headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(body) }
}

/** The error handler answers in plain text; a client that parses JSON must not break in the outage. */
function inJson(
  text: APIGatewayProxyStructuredResultV2 | null | undefined,
  error: unknown,
): APIGatewayProxyStructuredResultV2 {
  const { statusCode = 500, headers } = text ?? {}
  const body = isCircuitBreakerError(error)
    ? { code: error.code.toLowerCase(), message: error.message }
    : { code: 'internal_error' }
  return answer(statusCode, body, { ...headers, 'Content-Type': 'application/json' })
}

/** Stripe's errors hold the payment intent, its secret and the payment method: only what identifies them is logged. */
function logFailure(error: Error, more: Readonly<Record<string, string>> = {}): void {
  if (error instanceof StripeError) {
    const { type, code, statusCode, requestId } = error
    console.error(JSON.stringify({ error: type, code, statusCode, requestId, ...more }))
  } else if (isCircuitBreakerError(error)) {
    console.error(JSON.stringify({ error: error.name, message: error.message, ...more }))
  } else {
    console.error(error)
  }
}
