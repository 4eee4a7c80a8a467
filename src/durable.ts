/**
 * For durable functions: suspends the function until the circuit may admit a refused step.
 *
 * This file does not import `@aws/durable-execution-sdk-js`. It describes the SDK's types by their shape.
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

/** The answer of a `retryStrategy`, in the form that the SDK of durable functions expects. */
export interface RetryDecision {
  /** Whether there is another attempt. */
  readonly shouldRetry: boolean
  /** How long the function is suspended before the attempt: whole seconds, at least 1. Absent if there is no other attempt. */
  readonly delay?: { readonly seconds: number }
}

/**
 * A `retryStrategy` of the SDK: takes the error of an attempt and the number of attempts so far, including that attempt.
 * `Decision` is the SDK's own `RetryDecision`, or the {@link RetryDecision} of this package.
 */
export type RetryStrategy<Decision> = (error: Error, attemptsMade: number) => Decision

/** The options of {@link untilRecovered}. */
export interface UntilRecoveredOptions<Decision = RetryDecision> {
  /**
   * The number of attempts, including refused ones. The error of the last attempt fails the step. A whole number from 1, or
   * `Infinity`. Default: 100, which outlasts an outage of some hours.
   */
  readonly maxAttempts?: number
  /**
   * The longest wait before an attempt, without `jitter`, in milliseconds. It applies even if a refusal asks for more, as with a
   * circuit that an operator opened for a day: the step tries again after this time. A whole number from 1 000. Default:
   * 300 000, the same as `maxResetTimeout`.
   */
  readonly maxWait?: number
  /**
   * The largest random part that is added to a wait, so that functions that wait for the same service do not all resume at
   * once. A number from 0 to 1. Default: 0.25.
   */
  readonly jitter?: number
  /**
   * Decides about every error that is not a refusal, for instance a strategy of the SDK's `createRetryStrategy`. Its number of
   * attempts includes refused attempts.
   *
   * Default: a failure of the service (by {@link isBreakableError}), a `CircuitTimeoutError` and a `ConcurrencyLimitError`
   * are tried again, after the service's `Retry-After`, or else after 1 s, 2 s, 4 s … up to `maxWait`, each with `jitter`.
   * All other errors fail the step at once.
   */
  readonly otherErrors?: RetryStrategy<Decision>
}

/**
 * A `retryStrategy` for `context.step`. A step that the circuit refused is tried again when the circuit may admit it. The
 * function is suspended meanwhile, so an outage costs no computing time.
 *
 * The wait after a refusal is its `retryAfter`, at most `maxWait`, plus `jitter`, rounded up to whole seconds, at least 1. An
 * error is a refusal if {@link retryAfterFrom} finds one in it.
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
 * How long a refused call should wait, in milliseconds; `undefined`: the error is not a refusal of a circuit.
 *
 * The refusal may be the error itself or one of its causes. It may also be a copy: the SDK keeps only the name and the message of
 * an error. If a step has failed for good, or a function is replayed, the SDK throws a `StepError` that it makes of them. Then the
 * time comes from the message, in whole seconds.
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

/** The message of a `CircuitOpenError`. The SDK keeps only the message and the name. */
const refusalMessage = /^The circuit of .+ is open\. Try again in (\d+) s\.$/s

/** Whether another attempt may succeed. */
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
