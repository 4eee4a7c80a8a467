/**
 * Charges a card with Stripe. While Stripe is down, nothing is charged, and the answer says at once: `later`.
 *
 * Variables: `STRIPE_SECRET_KEY`, `STRIPE_API_URL` (for a stand-in), `CIRCUIT_BREAKER_TABLE_NAME`.
 *
 * @module
 */

import middy from '@middy/core'
import { circuitBreaker, isCircuitOpenError } from 'middy-circuit-breaker'
import Stripe from 'stripe'

interface Payment {
  /** The same for each attempt to make the same payment: Stripe charges once. */
  readonly id: string
  readonly amount: number
  readonly currency: string
  readonly card: string
}

const { STRIPE_SECRET_KEY = '', STRIPE_API_URL = 'https://api.stripe.com' } = process.env
const { protocol, hostname: host, port } = new URL(STRIPE_API_URL)
const http = protocol === 'http:'
const stripe = new Stripe(STRIPE_SECRET_KEY, {
  host,
  port: port || (http ? 80 : 443),
  protocol: http ? 'http' : 'https',
})

export const handler = middy<Payment, { readonly status: string }>()
  .use(circuitBreaker({ services: { stripe: { failureThreshold: 2, resetTimeout: 30_000, timeout: 10_000 } } }))
  .handler(async ({ id, amount, currency, card }, { callExternal }) => {
    const payment = { amount, currency, payment_method: card, confirm: true }
    const options = { idempotencyKey: id, maxNetworkRetries: 0 }
    const { status } = await callExternal('stripe', () => stripe.paymentIntents.create(payment, options), {
      // After a failure nobody knows whether the card was charged. Send the same payment with the same `id` again.
      fallback: (error) => ({ status: isCircuitOpenError(error) ? 'later' : 'unknown' }),
    })
    return { status }
  })
