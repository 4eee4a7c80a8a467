import { longestTimer } from '../runtime.ts'
import { Problems } from '../settings/problems.ts'
import type { OperationContext } from './call-limits.ts'

/** The work that a call guards. Read a response's body in here: what happens after it has settled is not seen. */
export type Operation<T> = (context: OperationContext) => PromiseLike<T> | T

/** Options of one call; an option given here wins over the service's settings. */
export interface CallOptions<T = unknown, F = never> {
  /** The longest the call may take, in milliseconds, the wait for a permit included; `false`: no limit of its own. */
  readonly timeout?: number | false | undefined
  /** Cancels the call: the operation's signal is aborted, and the call rejects with this signal's reason. */
  readonly signal?: AbortSignal | undefined
  /**
   * Answers instead when the circuit or the concurrency limit refused the call, when it timed out, or when it failed
   * in a way that counts (for a result that counts as a failure the error is a `BreakableResultError` that carries
   * it). Other errors are rethrown. An error of the fallback propagates.
   */
  readonly fallback?: ((error: unknown) => PromiseLike<F> | F) | undefined
  /** Which errors count as failures. */
  readonly isBreakableError?: ((error: unknown) => boolean) | undefined
  /** Which results count as failures. */
  readonly isBreakableResult?: ((result: T) => boolean) | undefined
}

/** @throws {ConfigurationError} naming everything that is wrong with the options of one call */
export function checkCall(timeout: unknown, signal: unknown, fallback: unknown): void {
  const { addEventListener } = (signal ?? {}) as Partial<AbortSignal>
  const isSignal = signal === undefined || typeof addEventListener === 'function'
  const isFallback = fallback === undefined || typeof fallback === 'function'
  const isTime = Number.isInteger(timeout) && Number(timeout) >= 1 && Number(timeout) <= longestTimer
  const isTimeout = timeout === false || isTime
  if (isSignal && isFallback && isTimeout) return
  const problems = new Problems()
  const refuse = (setting: string, allowed: string, value: unknown) =>
    problems.mustBe(allowed, setting, 'call option', value)
  if (!isSignal) refuse('signal', 'an AbortSignal', signal)
  if (!isFallback) refuse('fallback', 'a function', fallback)
  if (!isTimeout) refuse('timeout', `a whole number of milliseconds from 1 to ${longestTimer}, or false`, timeout)
  problems.throwIfAny()
}
