/** What an error wraps, as the default classifier sees it. */

import { describe, expect, it } from '@jest/globals'
import { describeFailure, hasCode, isBreakableError } from '../../../src/failures/classification.ts'

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
