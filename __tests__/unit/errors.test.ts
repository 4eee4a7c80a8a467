import { inspect } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import httpErrorHandler from '@middy/http-error-handler'
import type { CircuitTimeoutDetails } from '../../src/errors.ts'
import {
  BreakableResultError,
  CircuitBreakerError,
  type CircuitOpenDetails,
  type CircuitOpenError,
  CircuitStorageError,
  type CircuitTimeoutError,
  ConcurrencyLimitError,
  ConfigurationError,
  isBreakableResultError,
  isCircuitBreakerError,
  isCircuitOpenError,
  isCircuitStorageError,
  isCircuitTimeoutError,
  isConcurrencyLimitError,
  isConfigurationError,
  isUnknownServiceError,
  originalOf,
  UnknownServiceError,
} from '../../src/errors.ts'
import { emptyRecord } from '../../src/storage/record.ts'
import { createTestContext } from '../../src/testing/test-context.ts'

type Errors = typeof import('../../src/errors.ts')

const guards = {
  CIRCUIT_OPEN: isCircuitOpenError,
  CIRCUIT_TIMEOUT: isCircuitTimeoutError,
  CIRCUIT_CONCURRENCY_LIMIT: isConcurrencyLimitError,
  CIRCUIT_BREAKABLE_RESULT: isBreakableResultError,
  CIRCUIT_UNKNOWN_SERVICE: isUnknownServiceError,
  CIRCUIT_CONFIGURATION: isConfigurationError,
  CIRCUIT_STORAGE: isCircuitStorageError,
}

/** One error of each class, made by the given copy of the package. */
function oneOfEach(errors: Errors): [name: string, code: keyof typeof guards, error: Error][] {
  return [
    ['CircuitOpenError', 'CIRCUIT_OPEN', openError({}, errors)],
    ['CircuitTimeoutError', 'CIRCUIT_TIMEOUT', timeoutError({}, errors)],
    ['ConcurrencyLimitError', 'CIRCUIT_CONCURRENCY_LIMIT', new errors.ConcurrencyLimitError('stripe', 10, 5)],
    ['BreakableResultError', 'CIRCUIT_BREAKABLE_RESULT', new errors.BreakableResultError('stripe', { status: 503 })],
    ['UnknownServiceError', 'CIRCUIT_UNKNOWN_SERVICE', new errors.UnknownServiceError('strpe', ['stripe'])],
    ['ConfigurationError', 'CIRCUIT_CONFIGURATION', new errors.ConfigurationError([])],
    ['CircuitStorageError', 'CIRCUIT_STORAGE', new errors.CircuitStorageError('down', { operation: 'getState' })],
  ]
}

const own: Errors = await import('../../src/errors.ts')
/** The same source, loaded a second time: other classes, as with two copies of the package in one bundle. */
const copy: Errors = await import('../../src/errors.ts?copy' as string)

function openError(details: Partial<CircuitOpenDetails> = {}, errors: Errors = own): CircuitOpenError {
  return new errors.CircuitOpenError({
    service: 'stripe',
    retryAfter: 10_000,
    openedAt: 1_800_000_000_000,
    reason: 'open',
    ...details,
  })
}

function timeoutError(details: Partial<CircuitTimeoutDetails> = {}, errors: Errors = own): CircuitTimeoutError {
  return new errors.CircuitTimeoutError({
    service: 'stripe',
    reason: 'timeout',
    timeout: 2_000,
    attempted: true,
    ...details,
  })
}

/** What a handler answers that throws `error`. */
async function answerTo(error: unknown): Promise<{ statusCode: number; body: string; headers: object }> {
  const handler = middy()
    .use(httpErrorHandler({ logger: false }))
    .handler(async () => {
      throw error
    })
  return handler({}, createTestContext()) as Promise<{ statusCode: number; body: string; headers: object }>
}

describe.each(oneOfEach(own))('%s', (name, code, error) => {
  it('has its name and its code', () => {
    expect(error).toBeInstanceOf(CircuitBreakerError)
    expect(error).toMatchObject({ name, code })
    expect(String(error)).toMatch(new RegExp(`^${name}: `))
  })

  it('is recognised by its own guard and by that of all, and by no other', () => {
    expect(isCircuitBreakerError(error)).toBe(true)
    const recognisedBy = Object.entries(guards).filter(([, guard]) => guard(error))

    expect(recognisedBy.map(([of]) => of)).toEqual([code])
  })

  it('can be changed by those who pass it on', () => {
    expect(Object.isFrozen(error)).toBe(false)
    expect(Object.isExtensible(error)).toBe(true)
  })
})

describe('a guard', () => {
  it.each(oneOfEach(copy))('recognises a %s of another copy of the package', (_name, code, error) => {
    expect(error).not.toBeInstanceOf(CircuitBreakerError)
    expect(isCircuitBreakerError(error)).toBe(true)
    expect(guards[code](error)).toBe(true)
  })

  it.each([
    undefined,
    null,
    'CIRCUIT_OPEN',
    503,
    Symbol('CIRCUIT_OPEN'),
    {},
    { code: 'CIRCUIT_OPEN' },
    new Error('CIRCUIT_OPEN'),
    Object.assign(new Error('network'), { code: 'ECONNREFUSED' }),
    Object.assign(new Error('number'), { code: 503 }),
    Object.assign(new Error('inherited'), { code: 'toString' }),
    Object.assign(new Error('longer'), { code: 'CIRCUIT_OPENED' }),
  ])('refuses what is no error of the breaker (%p)', (value) => {
    expect([isCircuitBreakerError, ...Object.values(guards)].map((guard) => guard(value))).not.toContain(true)
  })
})

describe('the base class', () => {
  it('takes the name of its subclass, its service and its cause', () => {
    class OwnError extends CircuitBreakerError {}
    const cause = new Error('cause')

    const error = new OwnError('CIRCUIT_STORAGE', 'text', 'stripe', { cause })

    expect(error).toMatchObject({ name: 'OwnError', message: 'text', service: 'stripe', cause })
  })

  it('has the cause of a package of Middy where none is given, also one of undefined', () => {
    const cause = { package: 'middy-circuit-breaker', data: {} }
    expect(new CircuitBreakerError('CIRCUIT_OPEN', 'text').cause).toEqual(cause)
    expect(new CircuitBreakerError('CIRCUIT_OPEN', 'text', undefined, { cause: undefined }).cause).toEqual(cause)
  })

  it.each([0, '', null, 'text', Object.create(null), { package: '@middy/ssm', data: 1 }])(
    'keeps the cause %p',
    (cause) => {
      expect(new CircuitBreakerError('CIRCUIT_OPEN', 'text', 'stripe', { cause }).cause).toBe(cause)
    },
  )

  it('keeps a cause whose properties throw', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const { cause } = new CircuitBreakerError('CIRCUIT_OPEN', 'text', 'stripe', { cause: proxy })
    expect(Object.is(cause, proxy)).toBe(true)
  })
})

describe('the cause of an error that no other has caused', () => {
  const problem = { setting: 'window', source: 'option', value: 0, message: 'window is 0' }
  it.each([
    [
      'CircuitOpenError',
      openError({ key: 'acme', by: 'Ann' }),
      { service: 'stripe', key: 'acme', reason: 'open', retryAfter: 10_000 },
    ],
    ['CircuitTimeoutError', timeoutError(), { service: 'stripe', reason: 'timeout', timeout: 2_000, attempted: true }],
    [
      'ConcurrencyLimitError',
      new ConcurrencyLimitError('stripe', 10, 5),
      { service: 'stripe', maxConcurrent: 10, maxQueue: 5 },
    ],
    [
      'BreakableResultError',
      new BreakableResultError('stripe', { secret: 1 }, 'acme'),
      { service: 'stripe', key: 'acme' },
    ],
    ['UnknownServiceError', new UnknownServiceError('strpe', ['stripe']), { service: 'strpe', services: ['stripe'] }],
    ['ConfigurationError', new ConfigurationError([problem]), { problems: [problem] }],
    [
      'CircuitStorageError',
      new CircuitStorageError('down', { operation: 'getState' }),
      { operation: 'getState', kind: 'unavailable' },
    ],
  ])('tells as packages of Middy do who threw a %s, and what it is about', (_name, error, data) => {
    expect(error.cause).toEqual({ package: 'middy-circuit-breaker', data })
  })

  it('is no original that was lost: a batch is caused by the first error in it', () => {
    const error = new CircuitStorageError('down', { operation: 'getState' })
    expect(originalOf(error)).toBeUndefined()
    expect(originalOf(new CircuitStorageError('down', { operation: 'getState', cause: error }))).toBe(error)
    expect(originalOf(undefined)).toBeUndefined()
  })

  it('is made anew where an error is a copy of another', () => {
    const { cause } = new CircuitStorageError('down', { operation: 'getState' })
    const copied = new CircuitStorageError('down', { operation: 'batchGetState', service: 'stripe', cause })
    expect(copied.cause).toMatchObject({ data: { operation: 'batchGetState', service: 'stripe' } })
  })

  it('takes a line or two where the error is printed', () => {
    expect(inspect(openError())).toContain("[cause]: {\n    package: 'middy-circuit-breaker',")
    expect(JSON.stringify(openError())).not.toContain('package')
  })
})

describe('CircuitOpenError', () => {
  it('tells what a caller needs to decide', () => {
    expect(openError()).toMatchObject({
      service: 'stripe',
      retryAfter: 10_000,
      openedAt: 1_800_000_000_000,
      reason: 'open',
      statusCode: 503,
      expose: true,
      headers: { 'Retry-After': '10' },
      message: 'The circuit of stripe is open. Try again in 10 s.',
    })
  })

  it('carries the failure that opened the circuit, where that is known', () => {
    const lastFailure = { at: 1_800_000_000_000, name: 'TypeError', code: 'ECONNREFUSED' }
    expect(openError({ lastFailure }).lastFailure).toEqual(lastFailure)
    expect(openError().lastFailure).toBeUndefined()
  })

  it.each([
    [0, '1'],
    [1, '1'],
    [999, '1'],
    [1_000, '1'],
    [1_001, '2'],
    [9_999.5, '10'],
    [300_000, '300'],
    [-5, '1'],
  ])('rounds Retry-After up to whole seconds, at least 1 (%d ms)', (retryAfter, seconds) => {
    expect(openError({ retryAfter }).headers).toEqual({ 'Retry-After': seconds })
  })

  it('is answered with 503 and Retry-After by @middy/http-error-handler', async () => {
    expect(await answerTo(openError({ retryAfter: 2_500 }))).toMatchObject({
      statusCode: 503,
      headers: { 'Retry-After': '3', 'Content-Type': 'text/plain' },
      body: 'The circuit of stripe is open. Try again in 3 s.',
    })
  })

  it('gives each error headers of its own', () => {
    expect(openError().headers).not.toBe(openError().headers)
  })
})

describe('CircuitTimeoutError', () => {
  it.each([
    [{ reason: 'timeout', attempted: true }, 'The call to stripe did not finish within 2000 ms.'],
    [{ reason: 'timeout', attempted: false }, 'The call to stripe was not started: 2000 ms passed before it could be.'],
    [
      { reason: 'deadline', attempted: true },
      'The call to stripe did not finish within the time that the invocation had left.',
    ],
    [
      { reason: 'deadline', attempted: false },
      'The call to stripe was not started: the time that the invocation had left passed before it could be.',
    ],
  ] as const)('says what happened (%p)', (details, message) => {
    expect(timeoutError(details)).toMatchObject({ ...details, message, timeout: 2_000, statusCode: 504, expose: true })
  })

  it('names whole milliseconds', () => {
    expect(timeoutError({ timeout: 1_234.567 }).message).toContain('within 1235 ms')
  })

  it('says how long the call waited for a permit, and which setting grants more', () => {
    const { message, waited } = timeoutError({ attempted: false, waited: 1_999.6, maxConcurrent: 10 })
    expect(message).toBe(
      'The call to stripe was not started: 2000 ms passed before it could be; it waited 2000 ms for one of 10 permits (maxConcurrent).',
    )
    expect([waited, timeoutError().waited]).toEqual([1_999.6, 0])
  })

  it('is answered with 504 by @middy/http-error-handler', async () => {
    const answer = await answerTo(timeoutError())

    expect(answer).toMatchObject({ statusCode: 504, body: 'The call to stripe did not finish within 2000 ms.' })
    expect(answer.headers).not.toHaveProperty('Retry-After')
  })
})

describe('ConcurrencyLimitError', () => {
  it('says how many are in flight and waiting', () => {
    expect(new ConcurrencyLimitError('stripe', 10, 5)).toMatchObject({
      service: 'stripe',
      statusCode: 503,
      expose: true,
      message: 'Too many calls to stripe: 10 in flight (maxConcurrent) and 5 waiting (maxQueue).',
    })
  })

  it('is answered with 503 by @middy/http-error-handler', async () => {
    expect(await answerTo(new ConcurrencyLimitError('stripe', 10, 5))).toMatchObject({ statusCode: 503 })
  })
})

describe('errors that are not for clients', () => {
  it.each([
    new UnknownServiceError('strpe', ['stripe']),
    new ConfigurationError([]),
    new CircuitStorageError('table circuits is throttled', { operation: 'getState' }),
    new BreakableResultError('stripe', { secret: 'hunter2' }),
  ])('are answered with a bare 500 by @middy/http-error-handler ($name)', async (error) => {
    const answer = await answerTo(error)

    expect(answer.statusCode).toBe(500)
    expect(JSON.stringify(answer)).not.toMatch(/stripe|hunter2|throttled|configuration/)
  })
})

describe('BreakableResultError', () => {
  it('carries the result, as the same object', () => {
    const result = { status: 503 }

    const error = new BreakableResultError('stripe', result)

    expect(error.result).toBe(result)
    expect(error.service).toBe('stripe')
  })
})

describe('UnknownServiceError', () => {
  it.each([
    [
      'strpe',
      ['stripe', 'paypal'],
      'No circuit is configured for "strpe". Add it to "services"; configured: "stripe", "paypal".',
    ],
    ['x', [], 'No circuit is configured for "x". Add it to "services"; configured: none.'],
    [
      undefined,
      ['stripe'],
      'No circuit is configured for a key of type undefined. Add it to "services"; configured: "stripe".',
    ],
    [
      Symbol('key'),
      ['stripe'],
      'No circuit is configured for a key of type symbol. Add it to "services"; configured: "stripe".',
    ],
    [
      'a\n"b"',
      ['__proto__'],
      'No circuit is configured for "a\\n\\"b\\"". Add it to "services"; configured: "__proto__".',
    ],
  ])('names the key and those that are configured (%p)', (key, configured, message) => {
    expect(new UnknownServiceError(key as string, configured).message).toBe(message)
  })

  it('takes any iterable of keys', () => {
    expect(new UnknownServiceError('x', new Map([['stripe', 1]]).keys()).message).toContain('"stripe"')
  })
})

describe('ConfigurationError', () => {
  const problem = (setting: string) => ({ setting, source: 'option', value: -1, message: `${setting} is wrong.` })

  it('lists every problem in one message', () => {
    const problems = [problem('failureThreshold'), problem('window')]

    const error = new ConfigurationError(problems)

    expect(error.problems).toBe(problems)
    expect(error.service).toBeUndefined()
    expect(error.message).toBe(
      "The circuit breaker's configuration has 2 problems:\n  - failureThreshold is wrong.\n  - window is wrong.",
    )
  })

  it('speaks of one problem in the singular, and keeps a cause', () => {
    const cause = new Error('cause')

    const error = new ConfigurationError([problem('window')], { cause })

    expect(error.message).toMatch(/has a problem:\n {2}- window is wrong\.$/)
    expect(error.cause).toBe(cause)
  })
})

describe('CircuitStorageError', () => {
  it('of a batch of 50 services is printed on one screen, its parts left to who asks for them', () => {
    const partOf = (service: string) => new CircuitStorageError('No.', { operation: 'batchGetState', service })
    const keys = Array.from({ length: 50 }, (_, index) => `service-${index}`)
    const errors = new Map(keys.map((key) => [key, partOf(key)]))
    const results = new Map(keys.map((key) => [`other-${key}`, emptyRecord('e', 1)]))
    const cause = partOf('service-0')
    const error = new CircuitStorageError('Failed.', { operation: 'batchGetState', errors, results, cause })

    expect(inspect(error).split('\n').length).toBeLessThanOrEqual(40)
    expect([error.errors, error.results]).toEqual([errors, results])
  })

  it('has neither a service, batch results nor damage unless it is told of them', () => {
    const error = new CircuitStorageError('down', { operation: 'getState' })

    expect(error).toMatchObject({ operation: 'getState', corrupt: false, kind: 'unavailable' })
    expect([error.service, error.results, error.errors]).toEqual([undefined, undefined, undefined])
  })

  it('keeps what it is told', () => {
    const results = new Map([['paypal', 1]])
    const errors = new Map([['stripe', new CircuitStorageError('down', { operation: 'getState' })]])

    const error = new CircuitStorageError('partial', {
      operation: 'batchGetState',
      service: 'stripe',
      results,
      errors,
      corrupt: true,
    })

    expect(error).toMatchObject({ operation: 'batchGetState', service: 'stripe', corrupt: true, kind: 'corrupt' })
    const wrongType = new CircuitStorageError('x', { operation: 'getState', corrupt: true, kind: 'misconfigured' })
    expect(wrongType).toMatchObject({ corrupt: true, kind: 'misconfigured' })
    expect(error.results).toBe(results)
    expect(error.errors).toBe(errors)
  })
})
