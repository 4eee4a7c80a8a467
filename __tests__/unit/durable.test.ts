import { describe, expect, it } from '@jest/globals'
import {
  CircuitOpenError,
  CircuitTimeoutError,
  ConcurrencyLimitError,
  ConfigurationError,
  type RefusalReason,
} from 'middy-circuit-breaker'
import { type RetryStrategy, retryAfterFrom, untilRecovered } from 'middy-circuit-breaker/durable'
import { BadRequest, ServiceUnavailable } from '../support/virtual-fleet.ts'

function refusal(retryAfter: number, reason: RefusalReason = 'open'): CircuitOpenError {
  return new CircuitOpenError({ service: 'stripe', retryAfter, openedAt: 0, reason })
}

/** The rest of an error that the SDK of durable functions has stored: its name and its message. */
function copyOf({ name, message }: Error): Error {
  return new Error(message, { cause: Object.assign(new Error(message), { name }) })
}

const unlucky = { random: () => 1 - Number.EPSILON }
const plain = untilRecovered({ jitter: 0 })

describe('a step that is refused', () => {
  it.each([
    { retryAfter: 29_001, seconds: 30 },
    { retryAfter: 30_000, seconds: 30 },
    { retryAfter: 9_976.456, seconds: 10 },
    { retryAfter: 500, seconds: 1 },
    { retryAfter: 0, seconds: 1 },
  ])('sleeps $seconds s where the circuit asks for $retryAfter ms: whole seconds, and never too few', (example) => {
    const { retryAfter, seconds } = example
    expect(plain(refusal(retryAfter), 1)).toEqual({ shouldRetry: true, delay: { seconds } })
  })

  it('sleeps up to a quarter longer, at random', () => {
    expect(untilRecovered({}, { random: () => 0 })(refusal(30_000), 1).delay).toEqual({ seconds: 30 })
    expect(untilRecovered({}, unlucky)(refusal(30_000), 1).delay).toEqual({ seconds: 38 })
    expect(untilRecovered({ jitter: 1 }, unlucky)(refusal(30_000), 1).delay).toEqual({ seconds: 60 })
  })

  it('asks again after maxWait where it is to wait longer, still not at the same time as all others', () => {
    const day = refusal(86_400_000, 'forced')
    expect(plain(day, 1).delay).toEqual({ seconds: 300 })
    expect(untilRecovered({ maxWait: 60_000 }, unlucky)(day, 1).delay).toEqual({ seconds: 75 })
  })

  it('is given up after maxAttempts, or never', () => {
    expect(plain(refusal(1_000), 99)).toMatchObject({ shouldRetry: true })
    expect(plain(refusal(1_000), 100)).toEqual({ shouldRetry: false })
    const [few, endless] = [
      untilRecovered({ maxAttempts: 2 }),
      untilRecovered({ maxAttempts: Number.POSITIVE_INFINITY }),
    ]
    expect([few(refusal(1_000), 1).shouldRetry, few(refusal(1_000), 2).shouldRetry]).toEqual([true, false])
    expect(endless(refusal(1_000), 1_000_000).shouldRetry).toBe(true)
  })
})

describe('the time that a refusal asks for', () => {
  it('is found in the error, in a cause, and in what the SDK keeps of it', () => {
    const error = refusal(9_976.456)
    expect(retryAfterFrom(error)).toBe(9_976.456)
    expect(retryAfterFrom(new Error('not paid', { cause: error }))).toBe(9_976.456)
    // Of another copy of the package.
    expect(retryAfterFrom(Object.assign(new Error('open'), { code: 'CIRCUIT_OPEN', retryAfter: 70 }))).toBe(70)
    // The message has whole seconds only.
    expect(retryAfterFrom(copyOf(error))).toBe(10_000)
    expect(retryAfterFrom(copyOf(copyOf(error)))).toBe(10_000)
  })

  it.each([
    new ServiceUnavailable('503'),
    new Error('Try again in 5 s.'),
    Object.assign(new Error('open'), { code: 'CIRCUIT_OPEN', retryAfter: Number.NaN }),
    'The circuit of stripe is open. Try again in 10 s.',
    undefined,
    null,
  ])('is in nothing else: %p', (value) => {
    expect(retryAfterFrom(value)).toBeUndefined()
  })
})

describe('a step that fails', () => {
  const asked = Object.assign(new ServiceUnavailable('503'), { headers: { 'retry-after': '17' } })

  it('is tried again after a pause that doubles up to maxWait, where the service is unwell', () => {
    const waits = [1, 2, 3, 9, 10, 99].map((attempts) => plain(new ServiceUnavailable('503'), attempts).delay?.seconds)
    expect(waits).toEqual([1, 2, 4, 256, 300, 300])
    expect(plain(new ServiceUnavailable('503'), 100)).toEqual({ shouldRetry: false })
    expect(untilRecovered({}, unlucky)(new ServiceUnavailable('503'), 5).delay).toEqual({ seconds: 20 })
  })

  it('is tried again when the service has asked to be', () => {
    expect(plain(asked, 1).delay).toEqual({ seconds: 17 })
  })

  it.each([
    new CircuitTimeoutError({ service: 'stripe', reason: 'timeout', timeout: 50, attempted: true }),
    new ConcurrencyLimitError('stripe', 1, 0),
  ])('is tried again where another attempt may pass: $name', (error) => {
    expect(plain(error, 1)).toEqual({ shouldRetry: true, delay: { seconds: 1 } })
  })

  it.each([new BadRequest('400'), new TypeError('a mistake')])(
    'is final where it would fail again: $message',
    (error) => {
      expect(plain(error, 1)).toEqual({ shouldRetry: false })
    },
  )

  it('is decided about by otherErrors where they are given, which are asked about nothing else', () => {
    const seen: unknown[] = []
    const otherErrors: RetryStrategy<{ shouldRetry: boolean; delay: { minutes: number } }> = (error, attempts) => {
      seen.push([error.message, attempts])
      return { shouldRetry: true, delay: { minutes: 2 } }
    }
    const strategy = untilRecovered({ jitter: 0, otherErrors, maxAttempts: 5 })
    expect(strategy(new BadRequest('400'), 4)).toEqual({ shouldRetry: true, delay: { minutes: 2 } })
    expect(strategy(refusal(1_000), 1)).toEqual({ shouldRetry: true, delay: { seconds: 1 } })
    expect(strategy(new BadRequest('400'), 5)).toEqual({ shouldRetry: false })
    expect(seen).toEqual([['400', 4]])
  })
})

it('names every option that is wrong', () => {
  const options = { maxAttempts: 0, maxWait: { minutes: 5 }, jitter: 2, otherErrors: 'none', maxDelay: 1 }
  const create = () => untilRecovered(options as never)
  expect(create).toThrow(ConfigurationError)
  expect(create).toThrow(/maxAttempts must be a whole number from 1 up, or Infinity, but is 0 \(option\)/)
  expect(create).toThrow(/maxWait must be a whole number of milliseconds from 1000 up, but is an object \(option\)/)
  expect(create).toThrow(/jitter must be a number from 0 to 1, but is 2 \(option\)/)
  expect(create).toThrow(/otherErrors must be a function, but is "none" \(option\)/)
  expect(create).toThrow(/maxDelay is not an option of untilRecovered; there are maxAttempts, maxWait, jitter/)
})
