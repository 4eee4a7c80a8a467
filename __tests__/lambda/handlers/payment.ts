/** A function that calls a payment service over HTTP: without a circuit breaker, and behind one in several kinds of Middy. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import middy from '@middy/core'
import type { Context } from 'aws-lambda'
import { CircuitBreaker, type CircuitBreakerContext, circuitBreaker } from '../../../src/index.ts'
import { patientDynamoDB } from '../../support/patience.ts'

/** What a payment is told to do. All times are milliseconds. */
export interface Payment {
  /** Writes `waiting` and waits, before the call. */
  readonly waitsFirst?: number
  /** Waits until the calls that earlier invocations left behind have come to an end. */
  readonly settles?: true
  /** The timeout of the call. */
  readonly timeout?: number
  /** Does not call the service at all. */
  readonly skips?: true
  /** Ends without waiting for the call, as soon as its request has been sent. */
  readonly detached?: true
  /** The operation blocks the process for ever. */
  readonly blocks?: true
  /** Waits after the call, whatever it came to. */
  readonly waitsLast?: number
  /** Throws this at the end. */
  readonly throws?: string
}

/** What it came to. */
export interface PaymentResult {
  /** The status that the service answered, if it did. */
  readonly status?: number
  readonly error?: { readonly name: string; readonly reason?: string; readonly attempted?: boolean }
  /** How long the call took. */
  readonly took: number
  readonly state: string
  readonly failureCount: number
  readonly remaining: number
  /** How many listen for the end of the environment. */
  readonly listeners: number
  /** The most operations that have run at once in this process. */
  readonly mostAtOnce: number
}

type GuardedContext = CircuitBreakerContext<'stripe'>

const service = process.env['SERVICE'] as string

const isInDynamoDB = process.env['CIRCUIT_BREAKER_TABLE_NAME'] !== undefined
const breaker = new CircuitBreaker({
  services: ['stripe'],
  ...(isInDynamoDB && { storage: { type: 'dynamodb', clientConfig: patientDynamoDB } }),
})
breaker.onStateChange(({ from, to, reason, requestId }) => console.log(JSON.stringify({ from, to, reason, requestId })))
breaker.onStorageError(({ operation, error }) => console.log(JSON.stringify({ operation, error: error.message })))

/** The same function without a breaker. */
export async function bare(): Promise<number> {
  return (await fetch(service)).status
}

const leftBehind = new Set<Promise<unknown>>()
let running = 0
let mostAtOnce = 0

async function pay(payment: Payment, context: GuardedContext): Promise<PaymentResult> {
  const { callExternal } = context
  const { waitsFirst = 0, waitsLast = 0, timeout, settles, skips, detached, blocks, throws } = payment
  if (waitsFirst > 0) await wait(waitsFirst)
  if (settles) await Promise.all(leftBehind)
  if (skips) return resultOf({}, 0, context)
  const startedAt = Date.now()
  const sent = requestSent()
  const call = callExternal(
    'stripe',
    async ({ signal }) => {
      while (blocks);
      running += 1
      mostAtOnce = Math.max(mostAtOnce, running)
      try {
        const response = await fetch(service, { signal })
        await response.arrayBuffer()
        return response
      } finally {
        running -= 1
      }
    },
    { ...(timeout !== undefined && { timeout }) },
  ).then(
    ({ status }) => ({ status }),
    ({ name, reason, attempted }) => ({ error: { name, reason, attempted } }),
  )
  if (detached) leftBehind.add(call.then((outcome) => console.log(JSON.stringify({ detached: outcome }))))
  // Connecting takes turns of the event loop, and there are none after the end.
  const outcome = detached ? await sent.then(() => ({})) : await call
  const took = Date.now() - startedAt
  if (waitsLast > 0) await wait(waitsLast)
  if (throws !== undefined) throw new RangeError(throws)
  return resultOf(outcome, took, context)
}

async function wait(time: number): Promise<void> {
  // A reader of that line may rely on the timer.
  const waited = new Promise((resolve) => setTimeout(resolve, time))
  console.log('waiting')
  await waited
}

/** Resolves when a request of `fetch` has been written to its connection. */
function requestSent(): Promise<void> {
  return new Promise((resolve) => {
    const listener = (): void => {
      unsubscribe('undici:request:bodySent', listener)
      resolve()
    }
    subscribe('undici:request:bodySent', listener)
  })
}

function resultOf(
  outcome: Pick<PaymentResult, 'status' | 'error'>,
  took: number,
  { circuits, getRemainingTimeInMillis = () => Number.NaN }: GuardedContext,
): PaymentResult {
  const { state, failureCount } = circuits.stripe
  const listeners = process.listenerCount('SIGTERM')
  return { ...outcome, took, state, failureCount, remaining: getRemainingTimeInMillis(), listeners, mostAtOnce }
}

export const guarded = middy<Payment, PaymentResult>().use(circuitBreaker(breaker)).handler(pay)

/** Middy does not answer in its place just before Lambda kills it. */
export const untilKilled = middy<Payment, PaymentResult>({ timeoutEarlyInMillis: 0 })
  .use(circuitBreaker(breaker))
  .handler(pay)

/** As in a container: nobody knows how much time is left. */
export const withoutDeadline = (payment: Payment): Promise<unknown> => guarded(payment, {} as GuardedContext)

/** As in a durable function of Middy: Lambda's own context is inside another one. */
export const durable = (payment: Payment, lambdaContext: Context): Promise<unknown> =>
  guarded(payment, { lambdaContext } as unknown as GuardedContext)

const answersEarly = {
  before: ({ event }: { event: unknown }) => ((event as { early?: true }).early ? 'answered early' : undefined),
}

/** Another middleware answers before ours is asked … */
export const earlyBefore = middy<Payment>().use(answersEarly).use(circuitBreaker(breaker)).handler(pay)

/** … or after ours has begun. */
export const earlyAfter = middy<Payment>().use(circuitBreaker(breaker)).use(answersEarly).handler(pay)

/** The error handler of another middleware answers, and ours is not asked. */
export const handledByOther = middy<Payment>()
  .use(circuitBreaker(breaker))
  .use({ onError: () => 'handled by another' })
  .handler(pay)

/** Middlewares that throw: before ours has begun, or after the handler. */
export const failingMiddlewares = middy<Payment & { failsIn?: string }>()
  .use({
    before: ({ event }) => failIn('before', event),
    after: ({ event }) => failIn('after', event),
  })
  .use(circuitBreaker(breaker))
  .handler(pay)

function failIn(hook: string, event: { failsIn?: string }): undefined {
  if (event.failsIn === hook) throw Object.assign(new Error(`failed in ${hook}`), { statusCode: 503 })
  return undefined
}

/** Middy answers when 2.5 s are left, while the handler goes on. */
export const earlyTimeout = middy<Payment>({
  timeoutEarlyInMillis: 2_500,
  timeoutEarlyResponse: () => 'early timeout',
})
  .use(circuitBreaker(breaker))
  .handler(pay)

/** The same, and the call listens to Middy's signal. */
export const earlyTimeoutWithSignal = middy<Payment>({
  timeoutEarlyInMillis: 2_500,
  timeoutEarlyResponse: () => 'early timeout',
})
  .use(circuitBreaker(breaker))
  .handler(async (_: Payment, { callExternal }: GuardedContext, { signal }) =>
    callExternal('stripe', (call) => fetch(service, { signal: call.signal }), { signal }),
  )
