/**
 * What the function tells CloudWatch of its calls and its circuits: metrics in the embedded metric format, and log lines.
 *
 * Of an error only its name, code and status are told. Its message, its stack and its cause, and the body of an answer, may
 * hold keys, addresses with tokens in them and customers' data.
 *
 * @module
 */

import { Logger } from '@aws-lambda-powertools/logger'
import { Metrics } from '@aws-lambda-powertools/metrics'
import type { MiddlewareObj } from '@middy/core'
import type { APIGatewayProxyEventV2 } from 'aws-lambda'

/**
 * The metrics of circuits have the dimension `service` for what is called and not, as this function's own have, for who calls: which
 * function tells of a transition is a matter of chance, and an alarm must not depend on it. `alarms.yaml` and `alarms.ts` have the
 * same namespace.
 */
export const metrics = new Metrics({ namespace: 'Shop' })

/** `injectLambdaContext` and {@link correlation} add whose lines they are. */
export const logger = new Logger()

/** Takes the correlation id from API Gateway. */
export const correlation: MiddlewareObj<APIGatewayProxyEventV2> = {
  before: ({ event }) => logger.setCorrelationId(event.requestContext.requestId),
}

/** The parts of an error that may be told. */
export function failureOf(error: unknown): Fields {
  const { name, code, cause }: Fields = Object(error)
  // fetch has the code in the cause.
  const { code: causeCode }: Fields = Object(cause)
  return { name: word(name), code: word(code ?? causeCode) }
}

interface Fields {
  readonly name?: unknown
  readonly code?: unknown
  readonly cause?: unknown
}

/** A name or a code is one word; anything else could be anything. */
function word(value: unknown): string | number | undefined {
  const isWord = typeof value === 'number' || (typeof value === 'string' && /^\w{1,64}$/.test(value))
  return isWord ? value : undefined
}
