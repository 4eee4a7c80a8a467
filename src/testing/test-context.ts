import { randomUUID } from 'node:crypto'
import type { Context } from 'aws-lambda'
import { type OptionRule, type OptionRules, refuseWrongOptions } from '../settings/option-rules.ts'

/** Options of {@link createTestContext}. */
export interface TestContextOptions {
  /** How much time the invocation has left when the context is created, in milliseconds. Default: 30 000. */
  readonly remainingTime?: number | undefined
  /** The name of the function. Default: `test-function`. */
  readonly functionName?: string | undefined
  /** Lambda's request id. Default: a new random UUID. */
  readonly awsRequestId?: string | undefined
}

/**
 * A Lambda context for testing your own handlers: one per invocation, as in Lambda.
 *
 * `getRemainingTimeInMillis` counts down from `remainingTime` to 0 by `Date.now()`, so it follows real time, and a
 * test's fake clock where one is installed. It has the type that the handler asks for, so that a handler with the
 * circuit breaker takes it: the middleware adds what is missing.
 *
 * @throws {ConfigurationError} naming every option that is wrong
 * @example
 * const result = await handler(event, createTestContext({ remainingTime: 3_000 }))
 */
export function createTestContext<C extends Context = Context>(options: TestContextOptions = {}): C {
  refuseWrongOptions(rules, options, 'createTestContext')
  const { remainingTime = 30_000, functionName = 'test-function', awsRequestId = randomUUID() } = options
  const deadline = Date.now() + remainingTime
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName,
    functionVersion: '$LATEST',
    invokedFunctionArn: `arn:aws:lambda:us-east-1:123456789012:function:${functionName}`,
    memoryLimitInMB: '128',
    awsRequestId,
    logGroupName: `/aws/lambda/${functionName}`,
    logStreamName: `2026/01/01/[$LATEST]${awsRequestId.replaceAll('-', '')}`,
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
    done: () => {},
    fail: () => {},
    succeed: () => {},
  } satisfies Context as unknown as C
}

const text: OptionRule = { allowed: 'a string', accepts: (value) => typeof value === 'string' }

const rules: OptionRules = {
  of: 'createTestContext',
  allowed: 'an object such as { remainingTime: 3000 }',
  options: {
    remainingTime: {
      allowed: 'a number of milliseconds',
      accepts: (value) => typeof value === 'number' && !Number.isNaN(value),
    },
    functionName: text,
    awsRequestId: text,
  },
}
