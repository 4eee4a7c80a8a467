/** Functions that call a service while their response is being written. */

import { Readable } from 'node:stream'
import middy from '@middy/core'
import { executionModeStreamifyResponse } from '@middy/core/StreamifyResponse'
import { CircuitBreaker, type CircuitBreakerContext, circuitBreaker } from '../../../src/index.ts'

const service = process.env['SERVICE'] as string

const breaker = new CircuitBreaker({ services: ['stripe'] })

/** One line for each call. */
async function* report(calls: number, { callExternal, circuits }: CircuitBreakerContext<'stripe'>) {
  for (let call = 0; call < calls; call++) {
    const outcome = await callExternal('stripe', ({ signal }) => fetch(service, { signal })).then(
      ({ status }) => status,
      (error: Error) => error.name,
    )
    yield `${outcome} ${circuits.stripe.state}\n`
  }
}

const handler = async ({ calls }: { readonly calls: number }, context: CircuitBreakerContext<'stripe'>) => ({
  statusCode: 200,
  headers: { 'Content-Type': 'text/plain' },
  body: Readable.from(report(calls, context)),
})

/** Stores what the calls came to when the response has been written. */
export const flushed: unknown = middy({
  executionMode: executionModeStreamifyResponse,
  requestEnd: () => breaker.flush(),
})
  .use(circuitBreaker(breaker))
  .handler(handler as never)

/** Does not. */
export const unflushed: unknown = middy({ executionMode: executionModeStreamifyResponse })
  .use(circuitBreaker(breaker))
  .handler(handler as never)

/** Its body fails after a guarded call, when what the call came to is stored. */
export const failing: unknown = middy({ executionMode: executionModeStreamifyResponse })
  .use(circuitBreaker(breaker))
  .handler((async (_event: unknown, { callExternal }: CircuitBreakerContext<'stripe'>) => ({
    statusCode: 200,
    body: Readable.from(
      (async function* () {
        yield 'the first half'
        await callExternal('stripe', ({ signal }) => fetch(service, { signal }))
        await breaker.flush()
        throw new RangeError('the second half is not to be had')
      })(),
    ),
  })) as never)
