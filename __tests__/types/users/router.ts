/** Routes of `@middy/http-router`, some of them with circuits. */

import middy from '@middy/core'
import httpRouter from '@middy/http-router'
import type { APIGatewayProxyEventV2, APIGatewayProxyHandlerV2, APIGatewayProxyResultV2 } from 'aws-lambda'
import { type CircuitBreakerContext, circuitBreaker } from 'middy-circuit-breaker'

const charge = async (
  event: APIGatewayProxyEventV2,
  { callExternal }: CircuitBreakerContext<'stripe'>,
): Promise<APIGatewayProxyResultV2> => ({
  statusCode: await callExternal('stripe', async () => 200),
  body: event.rawPath,
})

const guarded: APIGatewayProxyHandlerV2 = middy<APIGatewayProxyEventV2>()
  .use(circuitBreaker({ services: ['stripe'] }))
  .handler(charge)

const withResult = middy<APIGatewayProxyEventV2, APIGatewayProxyResultV2>()
  .use(circuitBreaker({ services: ['stripe'] }))
  .handler(charge)

export const handler = middy<APIGatewayProxyEventV2>().handler(
  httpRouter<APIGatewayProxyEventV2, APIGatewayProxyResultV2>([
    { method: 'GET', path: '/health', handler: async () => ({ statusCode: 204 }) },
    { method: 'POST', path: '/charges', handler: guarded },
    { method: 'PUT', path: '/charges', handler: withResult },
    {
      method: 'DELETE',
      path: '/charges',
      handler: middy<APIGatewayProxyEventV2>()
        .use(circuitBreaker({ services: ['stripe'] }))
        .handler(charge),
    },
  ]),
)
