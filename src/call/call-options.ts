import { longestTimer } from '../runtime.ts'
import type { IsBreakableError, IsBreakableResult } from '../settings/table.ts'
import type { OperationContext } from './operation-context.ts'

/**
 * The work that a call guards. Read a response's body in here, or set `until` of {@link CallOptions}: else the circuit does not see
 * what happens after it has settled.
 */
export type Operation<T> = (context: OperationContext) => PromiseLike<T> | T

/** Options of a call of a keyed service. */
export interface KeyedCallOptions<T = unknown, F = never> extends Omit<CallOptions<T, F>, 'key'> {
  /**
   * The tenant, host or region whose circuit guards the call: any text without control characters. One of more than 256
   * characters is known by its hash.
   */
  readonly key: string
}

/** Options of one call; an option given here wins over the service's settings. */
export interface CallOptions<T = unknown, F = never> {
  /** Only keyed services have one: {@link KeyedCallOptions}. */
  readonly key?: undefined
  /** The longest the call may take, in milliseconds, the wait for a permit included; `false`: no limit of its own. */
  readonly timeout?: number | false | undefined
  /**
   * Cuts the call: the operation's signal is aborted, and the call rejects with this signal's reason. One that has timed out
   * (`AbortSignal.timeout`) is a timeout, wherever it strikes: the fallback runs, and it counts if the operation had at least
   * half of the time of the call. Any other reason is a cancellation: no fallback runs, and it counts for nothing.
   */
  readonly signal?: AbortSignal | undefined
  /**
   * Answers instead when the circuit or the concurrency limit refused the call, when it timed out, or when it failed
   * in a way that counts (for a result that counts as a failure the error is a `BreakableResultError` that carries
   * it). Other errors are rethrown. An error of the fallback propagates.
   */
  readonly fallback?: ((error: unknown) => PromiseLike<F> | F) | undefined
  /**
   * `'consumed'`: the call lasts until the body of what the operation returns is over, and not only until that is there. Its permit,
   * its `timeout`, a probe and what it says of the service all wait for that. The caller gets the value at once, and reads.
   *
   * A body is a Node stream, a web stream, a `Response` or an async iterable: the value itself, or one of its properties (`body`,
   * `data`, `Body`, …). Read to the end it is a success; an error of it is judged like one of the operation; a reader that leaves it,
   * or never begins, says nothing of the service. A call that is cut fails the body with the error. The value stays the same
   * object; only in place of a bare web stream there is another one. The fallback answers only before the value is there.
   *
   * Default: the call ends when the operation does.
   */
  readonly until?: 'consumed' | undefined
  /** Which errors count as failures; see `IsBreakableError`. */
  readonly isBreakableError?: IsBreakableError | undefined
  /** Which results count as failures; see `IsBreakableResult`. */
  readonly isBreakableResult?: IsBreakableResult<T> | undefined
}

/**
 * Whether a call can be made of these. It is asked of each call with options, so that it says nothing of what is wrong:
 * `wrong-call.ts` does. A new option belongs into both; the compiler asks for it.
 *
 * @param isKeyed whether the service has a circuit for each key
 */
export function isCall(operation: unknown, options: object, isKeyed: boolean): boolean {
  if (typeof operation !== 'function' || typeof options !== 'object') return false
  for (const name in options) {
    const value: unknown = options[name as never]
    // As with fetch, null is none.
    const isGiven = value !== undefined && value !== null
    const option = name as keyof CallOptions
    switch (option) {
      case 'timeout':
        if (isGiven && value !== false && !isTimeout(value)) return false
        break
      case 'signal':
        if (isGiven && !isSignal(value)) return false
        break
      case 'fallback':
      case 'isBreakableError':
      case 'isBreakableResult':
        if (isGiven && typeof value !== 'function') return false
        break
      case 'until':
        if (isGiven && value !== 'consumed') return false
        break
      case 'key':
        // The service has looked at it.
        if (isGiven && !isKeyed) return false
        break
      default:
        option satisfies never
        return false
    }
  }
  return true
}

/** Whether it can be given to a timer, in milliseconds. */
export function isTimeout(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= longestTimer
}

export function isSignal(value: unknown): boolean {
  return typeof (value as AbortSignal).addEventListener === 'function'
}

/** Options that are none are left as they are, to be refused. */
export function withOption<T, F>(
  options: CallOptions<T, F> | KeyedCallOptions<T, F> | undefined,
  option: CallOptions<T, F>,
): CallOptions<T, F> | KeyedCallOptions<T, F> {
  return (typeof (options ?? {}) === 'object' ? { ...options, ...option } : options) as CallOptions<T, F>
}
