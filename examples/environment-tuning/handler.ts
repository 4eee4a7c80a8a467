/**
 * Looks up a charge at Stripe, and the rate at which its currency is exchanged. `template.yaml` deploys this one file as two functions that differ in
 * nothing but variables: `Checkout`, with a customer in front of it, gives up soon; `NightlyReport` has time.
 *
 * While the circuit of Stripe is open, or when a call fails, the charge is not known (yet): the answer says why, and the
 * caller asks again. While the circuit of the rates is open, the answer has no rate.
 *
 * Each setting comes from the first of these that has it:
 *
 * | | for instance |
 * | --- | --- |
 * | the variable for one service | `CIRCUIT_BREAKER_FAILURE_THRESHOLD__STRIPE=2` |
 * | the option for one service | `services: { rates: { failureThreshold: 4 } }` |
 * | the variable | `CIRCUIT_BREAKER_FAILURE_THRESHOLD=10` |
 * | the option | `resetTimeout: 15_000` |
 * | the default | `failureThreshold` 3 |
 *
 * **What functions share.** Functions with the same table and the same `CIRCUIT_BREAKER_NAMESPACE`, or none, share the
 * circuits of the same name: a suspicion, the outcomes that are counted under it, the state, and until when it is open. A
 * single failure only raises the suspicion. Then the calls of all these functions are counted, and failures must outnumber
 * successes to open the circuit. Settings belong to each function:
 *
 * - Each function compares the common counts with its own `failureThreshold`. So the circuit opens for all of them when the
 *   lead of the failures reaches the lowest of these thresholds. Successes of the others still contradict.
 * - It is open for the `resetTimeout` of the function that opened it. No function waits for longer than its own
 *   `maxResetTimeout`.
 * - The function that calls decides what is a failure, and its failure counts for all: also a call that took longer than its
 *   own `timeout`.
 * - A function that only observes (`CIRCUIT_BREAKER_MODE=observe`) counts and opens like any other, for those that enforce.
 *
 * So share a circuit where all functions mean the same by a service that is down: then each learns from the others. Give a
 * function a namespace if it means something else. Here 800 ms are too long for one function, and 20 s are not for the other. A
 * namespace also keeps a function that is rolled out in `observe` mode from the circuits of the others.
 *
 * **The check.** Invoked with `{ "check": true }`, each function says what is wrong with its own role, variables and timeout,
 * before the first outage. The check changes nothing.
 *
 * Other variables: `STRIPE_URL`, `STRIPE_API_KEY`, `RATES_URL`.
 *
 * @module
 */

import middy from '@middy/core'
import {
  CircuitBreaker,
  circuitBreaker,
  type Finding,
  isBreakableResult,
  isCircuitOpenError,
  isCircuitTimeoutError,
} from 'middy-circuit-breaker'

export interface Query {
  readonly chargeId: string
}

export interface Check {
  readonly check: true
}

export interface Charge {
  readonly known: true
  /** In the smallest unit of the currency. */
  readonly amount: number
  readonly currency: string
  /** Euros for one unit of the currency; absent where it is not known. */
  readonly rate?: number
}

export interface Unknown {
  readonly known: false
  readonly why: 'refused' | 'too slow' | 'down' | 'no such charge'
}

interface Answer {
  readonly status: number
  /** The circuit breaker looks for Retry-After in here. */
  readonly headers: Headers
  /** What the JSON says; of anything else nothing. */
  readonly body: { readonly amount?: unknown; readonly currency?: unknown; readonly rate?: unknown }
}

const stripeUrl = variable('STRIPE_URL')
const stripeKey = variable('STRIPE_API_KEY').trim()
const ratesUrl = variable('RATES_URL')
// With a line break in it, `fetch` would put the key into the message of an error, and Lambda that into the log.
if (!/^[!-~]+$/.test(stripeKey)) throw new Error('STRIPE_API_KEY has to be a key of Stripe, in one line.')

const breaker = new CircuitBreaker({
  // Without a rate the answer is still of use, so the rates may fail once more before their circuit opens.
  services: { stripe: {}, rates: { failureThreshold: 4 } },
  timeout: 5_000,
  resetTimeout: 15_000,
  // In observe mode, this is what there is to see.
  onStateChange: ({ service, from, to, reason }) => {
    console.warn(JSON.stringify({ message: `The circuit of ${service} is ${to} now`, service, from, to, reason }))
  },
})

export const handler = middy<Query | Check, Charge | Unknown | Finding[]>()
  .use(circuitBreaker(breaker))
  .handler(async (event, context) => {
    if ('check' in event) return breaker.check({ context })
    const { chargeId } = event
    const { callExternal } = context
    if (!/^ch_\w+$/.test(chargeId)) throw new TypeError('chargeId must be the id of a charge: ch_ and letters')
    const charge = await callExternal(
      'stripe',
      ({ signal }) => get(`${stripeUrl}/v1/charges/${chargeId}`, { authorization: `Bearer ${stripeKey}` }, signal),
      { fallback: why, isBreakableResult: (answer) => isBreakableResult(answer) || isGarbage(answer, chargeOf) },
    )
    if (typeof charge === 'string') return { known: false, why: charge }
    if (charge.status === 404) return { known: false, why: 'no such charge' }
    const found = chargeOf(charge)
    // Our own mistake, a wrong key for instance: whoever looks after this function must know.
    if (found === undefined) throw new Error(`Stripe has refused the request with ${charge.status}`)

    const rate = await callExternal(
      'rates',
      ({ signal }) => get(`${ratesUrl}/latest?from=${encodeURIComponent(found.currency)}&to=eur`, {}, signal),
      { fallback: why, isBreakableResult: (answer) => isBreakableResult(answer) || isGarbage(answer, rateOf) },
    )
    return { ...found, ...(typeof rate === 'object' && rateOf(rate)) }
  })

/** One request: fetch does not retry. */
async function get(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<Answer> {
  const response = await fetch(url, { headers, signal })
  return { status: response.status, headers: response.headers, body: parsed(await response.text()) }
}

/** Tells why there is no answer. */
function why(error: unknown): 'refused' | 'too slow' | 'down' {
  if (isCircuitOpenError(error)) return 'refused'
  return isCircuitTimeoutError(error) ? 'too slow' : 'down'
}

/** A success with nothing of use in it, as a proxy's page is: the service is unwell. */
function isGarbage(answer: Answer, read: (answer: Answer) => object | undefined): boolean {
  return answer.status < 300 && read(answer) === undefined
}

function chargeOf({ status, body: { amount, currency } }: Answer): Charge | undefined {
  const isCharge = status < 300 && typeof amount === 'number' && typeof currency === 'string'
  return isCharge ? { known: true, amount, currency } : undefined
}

function rateOf({ status, body: { rate } }: Answer): { readonly rate: number } | undefined {
  return status < 300 && typeof rate === 'number' ? { rate } : undefined
}

function parsed(json: string): Answer['body'] {
  try {
    return Object(JSON.parse(json))
  } catch {
    return {}
  }
}

function variable(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`The variable ${name} must be set`)
  return value
}
