/** The engine alone. It must compile without Middy, the AWS SDK and ioredis, also where the compiler checks declarations. */

import { CircuitBreaker, type CircuitBreakerOptions, type CircuitSnapshot, circuitBreaker } from 'middy-circuit-breaker'
import { DynamoDBCircuitStorage } from 'middy-circuit-breaker/dynamodb'
import { RedisCircuitStorage } from 'middy-circuit-breaker/redis'
import { createTestContext } from 'middy-circuit-breaker/testing'

const options: CircuitBreakerOptions<'stripe'> = {
  services: ['stripe'],
  storage: { type: 'dynamodb', tableName: 'circuits' },
}
export const breaker = new CircuitBreaker(options)
export const result: Promise<number> = breaker.call('stripe', async ({ signal }) => (signal.aborted ? 0 : 200))
export const snapshot: CircuitSnapshot = breaker.circuits.stripe
// @ts-expect-error this service is not configured
void breaker.call('paypal', async () => 1)
// @ts-expect-error a misspelt setting
new CircuitBreaker({ services: ['stripe'], failureTreshold: 2 })

export const stores = [
  new DynamoDBCircuitStorage({ tableName: 'circuits' }),
  new RedisCircuitStorage({ url: 'redis://localhost' }),
]
export const middleware = circuitBreaker(breaker)
export const context = createTestContext()
