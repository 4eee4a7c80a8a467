/** What an error wraps, as the default classifier sees it. */

import { describe, expect, it } from '@jest/globals'
import {
  CircuitOpenError,
  CircuitStorageError,
  CircuitTimeoutError,
  ConcurrencyLimitError,
  ConfigurationError,
  UnknownServiceError,
} from '../../../src/errors.ts'
import { causesOf } from '../../../src/failures/causes.ts'
import {
  describeFailure,
  hasCode,
  hasStatus,
  isBreakableError,
  outcomeOfError,
} from '../../../src/failures/classification.ts'

const error = (properties: object = {}, name = 'Error'): Error =>
  Object.assign(new Error('anything'), { name }, properties)
const refused = () => error({ code: 'ECONNREFUSED' })

/** Where clients keep the error that theirs was made of. */
const wrappers = [
  ...['cause', 'parent', 'original', 'originalError', 'driverError', 'networkError', 'reason', 'error', 'meta'],
  ...['innerError', 'inner', 'lastError', 'chainedError', 'socketError', 'detail', 'previous', 'jse_cause'],
]

describe('what an error wraps', () => {
  it.each(wrappers)('is found in %s, also behind another wrapper', (key) => {
    expect(isBreakableError(error({ [key]: refused() }))).toBe(true)
    expect(isBreakableError(error({ [key]: error({ [key]: refused() }) }))).toBe(true)
    expect(isBreakableError(error({ [key]: error({ status: 404, cause: refused() }) }))).toBe(false)
    expect(hasCode(error({ [key]: refused() }), 'ECONNREFUSED')).toBe(true)
  })

  it('is found among data, as one error for each host', () => {
    expect(isBreakableError(error({ innerErrors: { '10.0.0.1:9042': error(), '10.0.0.2:9042': refused() } }))).toBe(
      true,
    )
    expect(isBreakableError(error({ meta: { driverAdapterError: { error: refused() }, error: refused() } }))).toBe(true)
    expect(isBreakableError(error({ errors: [{ status: 'rejected', reason: refused() }] }))).toBe(true)
  })

  it.each<[string, object]>([
    [
      'a validation error of Sequelize',
      { name: 'SequelizeValidationError', errors: [{ type: 'Validation error', original: undefined }] },
    ],
    ['a unique constraint of Sequelize', { parent: error({ code: '23505' }), original: error({ code: '23505' }) }],
    ['a reason in words', { reason: 'ECONNREFUSED' }],
    ['the parsed body of a 404', { status: 404, error: { code: 'ECONNREFUSED', status: 503 } }],
    ['a body without a status', { error: { code: 'ECONNREFUSED', status: 503, name: 'TimeoutError' } }],
    [
      'errors of GraphQL in a 200',
      { errors: [{ message: 'm', status: 503, extensions: { code: 'INTERNAL_SERVER_ERROR' } }] },
    ],
    ['a cause in a body', { error: { message: 'm', cause: { code: 'ECONNREFUSED' } } }],
    ['what a client knows of its request', { meta: { statusCode: 503, timeout: 'TimeoutError' } }],
    ['a 404 around noise', { statusCode: 404, original: refused(), cause: refused(), errors: [refused()] }],
  ])('is no failure of the service: %s', (_, properties) => {
    expect(isBreakableError(error(properties))).toBe(false)
  })

  it('is looked at within a bound, whatever it is made of', () => {
    let looks = 0
    const get = (_: object, key: PropertyKey): unknown => {
      looks++
      return key === 'stack' ? 'at' : endless()
    }
    const endless = (): object => new Proxy({}, { get, ownKeys: () => ['a'] })
    expect(isBreakableError(endless())).toBe(false)
    expect(looks).toBeLessThan(64 * 64)

    const circle = error()
    for (const key of wrappers) Object.assign(circle, { [key]: circle })
    expect(isBreakableError(circle)).toBe(false)
    expect(describeFailure(circle)).toEqual({ name: 'Error' })

    let deep = refused()
    for (let depth = 0; depth < 100; depth++) deep = error({ original: deep })
    expect(isBreakableError(deep)).toBe(false)
  })

  it('survives what throws on the way', () => {
    const hostile = new Proxy(new Error('x'), {
      get: () => {
        throw new Error('hostile')
      },
      ownKeys: () => {
        throw new Error('hostile')
      },
    })
    const surrounded = error({ parent: hostile, innerErrors: hostile, original: refused() })
    expect(isBreakableError(Object.defineProperty(surrounded, 'cause', { get: () => hostile.message }))).toBe(true)
  })

  it('gives the code to be stored', () => {
    expect(describeFailure(error({ parent: refused() }, 'SequelizeConnectionRefusedError'))).toEqual({
      name: 'SequelizeConnectionRefusedError',
      code: 'ECONNREFUSED',
    })
    expect(describeFailure(error({ error: { code: 'of-a-body' } }))).toEqual({ name: 'Error' })
  })
})

describe('the cause of a package of Middy, which says who threw and what was wrong with what it was given', () => {
  const down = Object.assign(new Error('down'), { status: 503, code: 'ECONNREFUSED', name: 'TimeoutError' })
  const data = [
    undefined,
    'ETIMEDOUT',
    503,
    { status: 503 },
    { code: 'ECONNRESET', $fault: 'server' },
    down,
    [down],
    { errors: [down] },
  ]

  it.each(data)('is no failure, whatever it is about: %p', (what) => {
    for (const from of ['@middy/ssm', 'middy-circuit-breaker']) {
      const error = new Error('Failed to resolve internal values', { cause: { package: from, data: what } })
      expect(isBreakableError(error)).toBe(false)
      expect(outcomeOfError(error)).toBe('ignore')
      expect([hasStatus(error, 503), hasCode(error, 'ECONNRESET', 'ECONNREFUSED', 'ETIMEDOUT')]).toEqual([false, false])
      expect(describeFailure(error)).toEqual({ name: 'Error' })
    }
  })

  it('leaves the verdict to the error that has it', () => {
    const cause = { package: '@middy/http-router', data: { path: '/' } }
    expect(isBreakableError(Object.assign(new Error('no'), { statusCode: 404, cause }))).toBe(false)
    expect(isBreakableError(Object.assign(new Error('down'), { statusCode: 502, cause }))).toBe(true)
  })

  it('changes nothing of what the errors of this package mean', () => {
    const verdicts = [
      new CircuitOpenError({ service: 'stripe', retryAfter: 1, openedAt: 1, reason: 'open' }),
      new CircuitTimeoutError({ service: 'stripe', reason: 'timeout', timeout: 1, attempted: true }),
      new CircuitTimeoutError({ service: 'stripe', reason: 'timeout', timeout: 1, attempted: false }),
      new ConcurrencyLimitError('stripe', 1, 1),
      new UnknownServiceError('stripe', []),
      new ConfigurationError([{ setting: 'timeout', source: 'option', value: 503, message: 'ECONNRESET' }]),
      new CircuitStorageError('down', { operation: 'getState' }),
    ].map((error) => outcomeOfError(error))
    expect(verdicts).toEqual(['ignore', 'failure', 'ignore', 'ignore', 'ignore', 'ignore', 'ignore'])
  })

  it('has no failure hidden behind the error that it stands for: a storage error keeps that one as its cause', () => {
    const error = new Error('wrapped', { cause: down })
    expect(isBreakableError(error)).toBe(true)
    const links = [...causesOf(new CircuitStorageError('no', { operation: 'getState', cause: down }))]
    expect(links).toContain(down)
  })
})
