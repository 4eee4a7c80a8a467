/** A library that exports what it makes of this package. With `declaration: true` the compiler must be able to name each type. */

import middy from '@middy/core'
import { CircuitBreaker, type CircuitBreakerContext, circuitBreaker, isCircuitOpenError } from 'middy-circuit-breaker'

export const breaker = new CircuitBreaker({ services: { stripe: {}, crm: { keyed: { maxKeys: 10 } } } })

export const guard = circuitBreaker(breaker)
export const tenantGuard = circuitBreaker({ services: { crm: { keyed: {} } }, keyBy: 'tenantId' })
export const guards = [circuitBreaker({ services: ['stripe'] })]

export const call = breaker.call
export const callFor = (context: { getRemainingTimeInMillis(): number }) => breaker.callExternalFor(context)
export const snapshots = () => breaker.circuits
export const stripe = () => breaker.snapshot('stripe')
export const findings = () => breaker.check()
export const history = () => breaker.journal('stripe')
export const listener = breaker.onStateChange
export const retryAfter = (error: unknown) => (isCircuitOpenError(error) ? error : undefined)

export const parts = ({ callExternal, circuits }: CircuitBreakerContext<'stripe'>) => ({ callExternal, circuits })
export const keyedParts = ({ callExternal, circuits }: CircuitBreakerContext<'stripe' | 'crm', 'crm'>) => ({
  callExternal,
  circuits,
})
export const lambda = (context: CircuitBreakerContext<'stripe'>) => [context]

export const handler = middy<{ readonly amount: number }>()
  .use(guard)
  .handler(async ({ amount }, { callExternal }) => callExternal('stripe', () => amount))
export const application = () => middy().use(tenantGuard)
