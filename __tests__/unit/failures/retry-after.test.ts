import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { describe, expect, it, jest } from '@jest/globals'
import { BreakableResultError } from '../../../src/errors.ts'
import { retryAfterOf } from '../../../src/failures/retry-after.ts'

const now = Date.parse('2026-01-01T00:00:00Z')
const error = (properties: object): Error => Object.assign(new Error('anything'), properties)
const headers = { 'retry-after': '30' }

const many = Array.from({ length: 256 }, (_, index) => [`x-${index}`, ''])
const asking = (value: string): Error => error({ headers: { 'retry-after': value } })

describe('retryAfterOf', () => {
  it.each<[where: string, failure: unknown]>([
    ['a Response of fetch', new Response('', { status: 503, headers })],
    ['a message of node:http', Object.assign(new IncomingMessage(new Socket()), { headers })],
    ['an answer for API Gateway', { statusCode: 503, headers: { 'Retry-After': '30' }, body: '' }],
    ['a list of values', { statusCode: 503, headers: { 'retry-after': ['30', '60'] } }],
    ['a number', { statusCode: 503, headers: { 'retry-after': 30 } }],
    ['a Map', { status: 503, headers: new Map([['retry-after', '30']]) }],
    ['an error with headers, as stripe and http-errors make', error({ statusCode: 503, headers })],
    ['an error with a response, as axios and got make', error({ response: { status: 503, headers } })],
    ['an error with a Response, as ky makes', error({ response: new Response('', { status: 503, headers }) })],
    ['an error of the AWS SDK', error({ $metadata: { httpStatusCode: 503 }, $response: { statusCode: 503, headers } })],
    ['a result of stripe', { lastResponse: { statusCode: 503, headers } }],
    ['a result handed to a fallback', new BreakableResultError('s', new Response('', { status: 503, headers }))],
    ['the cause of an error', error({ cause: error({ response: { headers } }) })],
    ['the first of two', error({ headers, cause: error({ headers: { 'retry-after': '60' } }) })],
    [
      'the cause of an error whose own is absurd',
      error({ headers: { 'retry-after': '-1' }, cause: error({ headers }) }),
    ],
    ['a plain object that spells it Retry-after', { status: 503, headers: { 'Retry-after': '30' } }],
    ['a plain object that spells it RETRY-AFTER', { status: 503, headers: { date: '', 'RETRY-AFTER': '30' } }],
    ['a Map that spells it Retry-After', { status: 503, headers: new Map([['Retry-After', '30']]) }],
    ['a member of an aggregate', new AggregateError([new Error('x'), error({ response: { headers } })])],
    ['the longest of an aggregate', new AggregateError(['10', '30', '20'].map((value) => asking(value)))],
    ['a member’s cause', error({ cause: new AggregateError([error({ cause: error({ headers }) })]) })],
  ])('finds it in %s', (_, failure) => {
    expect(retryAfterOf(failure, now)).toBe(30_000)
  })

  const of = (value: unknown) => retryAfterOf({ headers: { 'retry-after': value } }, now)

  it.each<[value: string, milliseconds: number]>([
    ['1', 1_000],
    [' 120 ', 120_000],
    ['007', 7_000],
    ['86400', 86_400_000],
    ['90000', 90_000_000],
    ['9'.repeat(400), Number.POSITIVE_INFINITY],
    ['Fri, 02 Jan 2026 01:00:00 GMT', 90_000_000],
    ['Thu, 01 Jan 2026 00:01:30 GMT', 90_000],
    ['Thursday, 01-Jan-26 00:01:30 GMT', 90_000],
    ['Thu Jan  1 00:01:30 2026', 90_000],
  ])('understands %s', (value, milliseconds) => {
    expect(of(value)).toBe(milliseconds)
  })

  it('takes a date that names no time zone for GMT, also where the clock on the wall shows another time', () => {
    const parse = Date.parse
    const spy = jest.spyOn(Date, 'parse').mockImplementation((text) => {
      const isLocal = !text.endsWith('GMT')
      return parse(text) - (isLocal ? 3_600_000 : 0)
    })
    expect(of('Thu Jan  1 00:01:30 2026')).toBe(90_000)
    spy.mockRestore()
  })

  it.each<[what: string, value: unknown]>([
    ['nothing', ''],
    ['zero', '0'],
    ['a negative number', '-30'],
    ['a fraction', '1.5'],
    ['an exponent', '1e3'],
    ['a number with a unit', '30s'],
    ['words', 'soon'],
    ['now', 'Thu, 01 Jan 2026 00:00:00 GMT'],
    ['a date in the past', 'Wed, 31 Dec 2025 23:59:59 GMT'],
    ['a date that is none', 'Thu, 99 Foo 2026 00:01:30 GMT'],
    ['a date in another format', '2026-01-01T00:01:30Z'],
    ['a date with another zone', 'Thu, 01 Jan 2026 02:01:30 +0200'],
    ['a date in a sentence', 'after Thu, 01 Jan 2026 00:01:30 GMT'],
    ['a number that is none', Number.NaN],
    ['an empty list', []],
    ['an object', {}],
    ['null', null],
  ])('ignores %s', (_, value) => {
    expect(of(value)).toBeUndefined()
  })

  it.each<[what: string, failure: unknown]>([
    ['an error without a response', error({ code: 'ECONNRESET' })],
    ['headers without it', new Response('', { status: 503 })],
    ['headers of another kind', { headers: 'retry-after: 30' }],
    ['a similar header', { headers: { 'x-retry-after': '30', retryafter: '30' } }],
    ['a header behind hundreds of others', { headers: { ...Object.fromEntries(many), 'Retry-after': '30' } }],
    ['undefined', undefined],
    ['null', null],
    ['a string', '30'],
    [
      'something hostile',
      new Proxy(
        {},
        {
          get() {
            throw new Error('hostile')
          },
        },
      ),
    ],
    [
      'hostile headers',
      {
        headers: {
          get() {
            throw new Error('hostile')
          },
        },
      },
    ],
  ])('finds none in %s', (_, failure) => {
    expect(retryAfterOf(failure, now)).toBeUndefined()
  })

  it('ends where causes go round in a circle', () => {
    const circle: { cause?: unknown } = error({})
    circle.cause = circle
    expect(retryAfterOf(circle, now)).toBeUndefined()
  })
})
