/**
 * For durable functions: a step that the circuit refuses waits out the outage, suspended.
 *
 * Nothing here needs `@aws/durable-execution-sdk-js`: its types are described by their shape.
 *
 * @module
 */

import { isCircuitOpenError, isCircuitTimeoutError, isConcurrencyLimitError } from './errors.ts'
import { causesOf, read } from './failures/causes.ts'
import { isBreakableError } from './failures/classification.ts'
import { retryAfterOf } from './failures/retry-after.ts'
import { completeRuntime, type Runtime } from './runtime.ts'
import { type OptionRules, refuseWrongOptions } from './settings/option-rules.ts'
import { callback, factor, whole } from './settings/rules.ts'

/** The answer of a `retryStrategy`, as the SDK of durable functions takes it. */
export interface RetryDecision {
  /** Whether there is another attempt. */
  readonly shouldRetry: boolean
  /** How long the function is suspended before it: whole seconds, at least 1. Absent where there is none. */
  readonly delay?: { readonly seconds: number }
}

/**
 * A `retryStrategy` of the SDK: takes the error of an attempt and the number of attempts made so far, that one included.
 * `Decision` is the SDK's own `RetryDecision`, or the one above.
 */
export type RetryStrategy<Decision> = (error: Error, attemptsMade: number) => Decision

/** The options of {@link untilRecovered}. */
export interface UntilRecoveredOptions<Decision = RetryDecision> {
  /**
   * Attempts in all, those that were refused included: the error of the last one fails the step. A whole number from 1, or
   * `Infinity`. Default: 100, which outlasts an outage of some hours.
   */
  readonly maxAttempts?: number
  /**
   * The longest wait for one attempt, before `jitter`, in milliseconds. It holds where a refusal asks for more, as with a
   * circuit that an operator opened for a day: the step asks again after so long. A whole number from 1 000. Default:
   * 300 000, as `maxResetTimeout`.
   */
  readonly maxWait?: number
  /**
   * The part of a wait that is added to it at random, so that functions that wait for the same service do not all come back
   * at once. A number from 0 to 1. Default: 0.25.
   */
  readonly jitter?: number
  /**
   * Decides about every error that is no refusal, for instance a strategy of the SDK's `createRetryStrategy`. The attempts
   * it is told include those that were refused.
   *
   * Default: a failure of the service (by {@link isBreakableError}), a `CircuitTimeoutError` and a `ConcurrencyLimitError`
   * are tried again, after the service's `Retry-After`, or else after 1 s, 2 s, 4 s … up to `maxWait`, each with `jitter`.
   * Everything else fails the step at once.
   */
  readonly otherErrors?: RetryStrategy<Decision>
}

/**
 * A `retryStrategy` for `context.step`: a step that the circuit refuses is tried again when the circuit may admit it. The
 * function is suspended meanwhile, so that an outage costs no computing time.
 *
 * A refusal waits for its `retryAfter`, at most `maxWait`, plus `jitter`, rounded up to whole seconds, at least 1. It is
 * recognised wherever {@link retryAfterFrom} finds it.
 *
 * @param runtime the randomness and the clock, for tests. Default: the machine's own
 * @throws {ConfigurationError} naming every option that is wrong
 * @example
 * const charge = await context.step('charge', () => context.callExternal('stripe', pay), {
 *   retryStrategy: untilRecovered({ maxAttempts: 50 }),
 * })
 */
export function untilRecovered<Decision = RetryDecision>(
  options: UntilRecoveredOptions<Decision> = {},
  runtime: Partial<Pick<Runtime, 'now' | 'random'>> = {},
): RetryStrategy<RetryDecision | Decision> {
  const { maxAttempts, maxWait, jitter, otherErrors } = checked(options)
  const { now, random } = completeRuntime(runtime)
  const after = (wait: number): RetryDecision => {
    const least = Math.min(Math.max(0, wait), maxWait)
    return { shouldRetry: true, delay: { seconds: Math.max(1, Math.ceil((least * (1 + jitter * random())) / 1_000)) } }
  }
  return (error, attemptsMade) => {
    if (attemptsMade >= maxAttempts) return { shouldRetry: false }
    const retryAfter = retryAfterFrom(error)
    if (retryAfter !== undefined) return after(retryAfter)
    if (otherErrors !== undefined) return otherErrors(error, attemptsMade)
    if (!mayPass(error)) return { shouldRetry: false }
    return after(retryAfterOf(error, now()) ?? 1_000 * 2 ** (attemptsMade - 1))
  }
}

/**
 * How long a refused call was asked to wait, in milliseconds; `undefined`: the error is no refusal of a circuit.
 *
 * The refusal may be the error itself or one of its causes. It may also be a copy: the SDK keeps nothing of an error but its
 * name and its message, and throws a `StepError` made of them where a step has failed for good, and where a function is
 * replayed. Then the time is that of the message, in whole seconds.
 *
 * @example
 * try {
 *   return await context.step('charge', () => context.callExternal('stripe', pay), { retryStrategy })
 * } catch (error) {
 *   if (retryAfterFrom(error) === undefined) throw error
 *   return { status: 'unpaid' }
 * }
 */
export function retryAfterFrom(error: unknown): number | undefined {
  for (const link of causesOf(error)) {
    const retryAfter = isCircuitOpenError(link) ? read(link, 'retryAfter') : undefined
    if (typeof retryAfter === 'number' && retryAfter >= 0) return retryAfter
    const message = read(link, 'message')
    const [, seconds] = (typeof message === 'string' && refusalMessage.exec(message)) || []
    if (seconds !== undefined) return 1_000 * Number(seconds)
  }
  return undefined
}

/** The message of a `CircuitOpenError`, which is all that the SDK keeps of it. */
const refusalMessage = /^The circuit of .+ is open\. Try again in (\d+) s\.$/s

/** Whether another attempt may succeed where this one has not. */
function mayPass(error: Error): boolean {
  return isCircuitTimeoutError(error) || isConcurrencyLimitError(error) || isBreakableError(error)
}

const rules: OptionRules = {
  of: 'untilRecovered',
  allowed: 'an object such as { maxAttempts: 50 }',
  options: {
    maxAttempts: {
      ...whole(100, 1),
      allowed: 'a whole number from 1 up, or Infinity',
      accepts: (value: unknown) =>
        value === Number.POSITIVE_INFINITY || (Number.isSafeInteger(value) && Number(value) >= 1),
    },
    maxWait: { ...whole(300_000, 1_000), allowed: 'a whole number of milliseconds from 1000 up' },
    jitter: factor(0.25, 0, 1),
    otherErrors: callback(),
  },
}

function checked<Decision>(options: UntilRecoveredOptions<Decision>): {
  readonly maxAttempts: number
  readonly maxWait: number
  readonly jitter: number
  readonly otherErrors: RetryStrategy<Decision> | undefined
} {
  refuseWrongOptions(rules, options)
  const { maxAttempts = 100, maxWait = 300_000, jitter = 0.25, otherErrors } = options
  return { maxAttempts, maxWait, jitter, otherErrors }
}
