/** Handlers as users write them. `tsc` is the judge, here and, in `scripts/typecheck-users.ts`, where the package is installed. */

import middy from '@middy/core'
import type {
  APIGatewayProxyEventV2,
  APIGatewayProxyHandlerV2,
  APIGatewayProxyResultV2,
  Context,
  SQSBatchResponse,
  SQSEvent,
  SQSHandler,
} from 'aws-lambda'
import { CircuitBreaker, type CircuitBreakerContext, circuitBreaker, type LambdaContext } from 'middy-circuit-breaker'

type IsAny<T> = 0 extends 1 & T ? true : false
type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Fails to compile for another type. */
type Is<Type, Expected> = Equals<Type, Expected> extends true ? true : never

const breaker = new CircuitBreaker({ services: ['stripe'] })
const charge = async (): Promise<number> => 200

export const http: APIGatewayProxyHandlerV2 = middy<APIGatewayProxyEventV2>()
  .use(circuitBreaker(breaker))
  .handler(async (event, { callExternal, awsRequestId }): Promise<APIGatewayProxyResultV2> => {
    const typed: [Is<IsAny<typeof event>, false>, Is<typeof event.rawPath, string>] = [true, true]
    const statusCode = await callExternal('stripe', charge)
    const check: Is<typeof statusCode, number> = true
    return { statusCode, body: JSON.stringify([event.rawPath, awsRequestId, typed, check]) }
  })

export const queue: SQSHandler = middy<SQSEvent>()
  .use(circuitBreaker(breaker))
  .handler(async (event, { callExternal }): Promise<SQSBatchResponse> => {
    for (const _ of event.Records) await callExternal('stripe', charge)
    return { batchItemFailures: [] }
  })

export const silentQueue: SQSHandler = middy<SQSEvent>()
  .use(circuitBreaker({ services: ['stripe'] }))
  .handler(async (event, { callExternal }) => {
    for (const _ of event.Records) await callExternal('stripe', charge)
  })

async function apart(
  event: APIGatewayProxyEventV2,
  { callExternal }: CircuitBreakerContext<'stripe'>,
): Promise<APIGatewayProxyResultV2> {
  // @ts-expect-error this service is not configured
  await callExternal('paypal', charge)
  return { statusCode: await callExternal('stripe', charge), body: event.rawPath }
}

export const declaredApart: APIGatewayProxyHandlerV2 = middy<APIGatewayProxyEventV2>()
  .use(circuitBreaker(breaker))
  .handler(apart)

const withResult = middy<{ readonly amount: number }, { readonly status: number }>()
  .use(circuitBreaker(breaker))
  .handler(async ({ amount }, { callExternal }) => ({ status: (await callExternal('stripe', charge)) + amount }))

middy<{ readonly amount: number }, { readonly status: number }>()
  .use(circuitBreaker(breaker))
  // @ts-expect-error the status is a text
  .handler(async () => ({ status: '200' }))

/** Tests call a handler like this. */
export async function callThem(context: LambdaContext): Promise<unknown[]> {
  const result = await withResult({ amount: 1 }, {} as Context)
  const typed: Is<typeof result, { readonly status: number }> = true
  // @ts-expect-error the amount is missing
  await withResult({}, context)
  return [typed, await http({} as APIGatewayProxyEventV2, context, () => {}), await withResult({ amount: 1 }, context)]
}

const checked = middy<APIGatewayProxyEventV2, APIGatewayProxyResultV2>().use(circuitBreaker(breaker)).handler(apart)
export const checkedToo: APIGatewayProxyHandlerV2 = checked

// The types of handlers without circuits stay as they are.
interface Tenant {
  readonly tenant: string
}
const withoutCircuits = middy<{ readonly amount: number }, number, Error, Context & Tenant>().handler(
  async ({ amount }, { tenant }) => amount + tenant.length,
)
export const ownContext = (context: Context & Tenant): Promise<number> => withoutCircuits({ amount: 1 }, context)
export const tooLittle = (context: Context): unknown =>
  // @ts-expect-error the tenant is missing
  withoutCircuits({ amount: 1 }, context)
