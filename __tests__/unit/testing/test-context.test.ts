import { afterEach, describe, expect, it, jest } from '@jest/globals'
import { createTestContext } from '../../../src/testing/index.ts'

describe('createTestContext', () => {
  afterEach(() => {
    jest.useRealTimers()
  })

  it('has 30 seconds left by default', () => {
    jest.useFakeTimers()
    expect(createTestContext().getRemainingTimeInMillis()).toBe(30_000)
  })

  it('counts down by the clock, also by a fake one, and stops at 0', () => {
    jest.useFakeTimers()
    const context = createTestContext({ remainingTime: 3_000 })
    expect(context.getRemainingTimeInMillis()).toBe(3_000)
    jest.advanceTimersByTime(1_200)
    expect(context.getRemainingTimeInMillis()).toBe(1_800)
    jest.advanceTimersByTime(60_000)
    expect(context.getRemainingTimeInMillis()).toBe(0)
  })

  it('gives every invocation its own request id', () => {
    const ids = Array.from({ length: 20 }, () => createTestContext().awsRequestId)
    expect(new Set(ids).size).toBe(20)
  })

  it('names the function and the request as it is told', () => {
    const context = createTestContext({ functionName: 'checkout', awsRequestId: 'request-1' })
    expect(context).toMatchObject({
      functionName: 'checkout',
      awsRequestId: 'request-1',
      logGroupName: '/aws/lambda/checkout',
      invokedFunctionArn: 'arn:aws:lambda:us-east-1:123456789012:function:checkout',
    })
  })

  it.each([
    [{ remainingTme: 5 }, 'remainingTme is not an option of createTestContext; did you mean remainingTime?'],
    [{ remainingTime: '5' }, 'remainingTime must be a number of milliseconds, but is "5"'],
    [{ functionName: 5, awsRequestId: 5 }, /functionName must be a string.*awsRequestId must be a string/s],
    [5, 'options must be an object such as { remainingTime: 3000 }, but is 5'],
  ])('refuses %j', (options, message) => {
    expect(() => createTestContext(options as never)).toThrow(message)
  })

  it('takes options that are undefined as absent', () => {
    const context = createTestContext({ remainingTime: undefined, functionName: undefined, awsRequestId: undefined })
    expect(context.functionName).toBe('test-function')
    expect(context.awsRequestId).toMatch(/^[\da-f-]{36}$/)
  })

  it('has what a Lambda context has and nothing else', () => {
    const context = createTestContext()
    expect(Object.keys(context).sort()).toEqual([
      'awsRequestId',
      'callbackWaitsForEmptyEventLoop',
      'done',
      'fail',
      'functionName',
      'functionVersion',
      'getRemainingTimeInMillis',
      'invokedFunctionArn',
      'logGroupName',
      'logStreamName',
      'memoryLimitInMB',
      'succeed',
    ])
    for (const settle of [context.done, context.fail, context.succeed] as (() => void)[])
      expect(settle()).toBe(undefined)
  })
})
