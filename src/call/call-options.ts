import { longestTimer } from '../runtime.ts'
import type { IsBreakableError, IsBreakableResult } from '../settings/table.ts'
import type { OperationContext } from './operation-context.ts'

/**
 * The work that a call guards. Read a response's body inside the operation, or set `until` of {@link CallOptions}. Otherwise the
 * circuit does not see failures after the operation has settled.
 */
export type Operation<T> = (context: OperationContext) => PromiseLike<T> | T

/** Options of a call of a keyed service. */
export interface KeyedCallOptions<T = unknown, F = never> extends Omit<CallOptions<T, F>, 'key'> {
  /**
   * The tenant, host or region whose circuit guards the call: any text without control characters. A key of more than 256
   * characters is stored as its hash.
   */
  readonly key: string
}

/** Options of one call. An option of the call overrides the service's setting. */
export interface CallOptions<T = unknown, F = never> {
  /** Only calls of keyed services have a key: {@link KeyedCallOptions}. */
  readonly key?: undefined
  /** The longest the call may take, in milliseconds, including the wait for a permit; `false`: the call has no timeout of its own. */
  readonly timeout?: number | false | undefined
  /**
   * Ends the call when it is aborted: the breaker aborts the operation's signal, and the call rejects with this signal's reason. A
   * signal that has timed out (`AbortSignal.timeout`) is a timeout: the fallback runs, and the call counts as a failure if the
   * operation had at least half of the call's time. Any other reason is a cancellation: no fallback runs, and nothing is counted.
   */
  readonly signal?: AbortSignal | undefined
  /**
   * Provides the result if the circuit or the concurrency limit refused the call, if the call timed out, or if it failed in a way
   * that counts. For a result that counts as a failure the fallback gets a `BreakableResultError` with that result. The caller gets
   * all other errors, and also an error of the fallback.
   */
  readonly fallback?: ((error: unknown) => PromiseLike<F> | F) | undefined
  /**
   * `'consumed'`: the call lasts until the body of the operation's result has ended, and not only until the operation has returned.
   * Its permit, its `timeout`, a probe and its outcome all last until then. The caller gets the result at once, and reads the body.
   *
   * A body is a Node stream, a web stream, a `Response` or an async iterable: the result itself, or one of its properties (`body`,
   * `data`, `Body`, …). A body that is read to the end is a success. An error of the body is classified like an error of the
   * operation. If the reader leaves the body or never reads it, nothing is counted. If a limit ends the call, the body fails with
   * that error. The caller gets the operation's own object; only a bare web stream is replaced by another one. The fallback runs
   * only before the operation has returned.
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
 * Whether the operation and the options of a call are valid. It runs for each call with options, so it only says yes or no:
 * `wrong-call.ts` names the mistakes. A new option belongs into both files; the compiler demands it.
 *
 * @param isKeyed whether the service has a circuit for each key
 */
export function isCall(operation: unknown, options: object, isKeyed: boolean): boolean {
  if (typeof operation !== 'function' || typeof options !== 'object') return false
  for (const name in options) {
    const value: unknown = options[name as never]
    // As with fetch, null means no signal.
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
        // The service has already checked the key.
        if (isGiven && !isKeyed) return false
        break
      default:
        option satisfies never
        return false
    }
  }
  return true
}

/** Whether a timer accepts the time, in milliseconds. */
export function isTimeout(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= longestTimer
}

export function isSignal(value: unknown): boolean {
  return typeof (value as AbortSignal).addEventListener === 'function'
}

/** Invalid options stay as they are, so that the call refuses them. */
export function withOption<T, F>(
  options: CallOptions<T, F> | KeyedCallOptions<T, F> | undefined,
  option: CallOptions<T, F>,
): CallOptions<T, F> | KeyedCallOptions<T, F> {
  return (typeof (options ?? {}) === 'object' ? { ...options, ...option } : options) as CallOptions<T, F>
}
