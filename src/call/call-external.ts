/**
 * The types of a breaker's calls, by its services and by which of them are keyed.
 *
 * @module
 */

import type { CallOptions, KeyedCallOptions, Operation } from './call-options.ts'

/**
 * `CircuitBreaker.call`, bound to an invocation: to its deadline and its request id.
 *
 * `K` are the services, `D` those among them that are keyed, and `O` the keyed ones whose calls need not name a key.
 */
export type CallExternal<K extends string = string, D extends string = never, O extends string = never> = [D] extends [
  never,
]
  ? PlainCall<K>
  : PlainCall<Exclude<K, D>> & KeyedCall<Exclude<D, O>> & BoundCall<O>

// Typed as methods, whose parameters may be narrower: a call for some services also fits where one for any is asked for.

/** A call of a service without keys. */
type PlainCall<K extends string> = {
  /** Runs an operation under the circuit of a service, as `CircuitBreaker.call` does. */
  call<T, F = never>(service: K, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F>
}['call']

/** A call of a keyed service, which names its key. */
type KeyedCall<K extends string> = {
  /** Runs an operation under the circuit of a service, as `CircuitBreaker.call` does. */
  call<T, F = never>(service: K, operation: Operation<T>, options: KeyedCallOptions<T, F>): Promise<T | F>
}['call']

/** A call of a keyed service that may leave its key to the `keyBy` of the middleware. */
type BoundCall<K extends string> = {
  /** Runs an operation under the circuit of a service, as `CircuitBreaker.call` does. */
  // Not by its alias: the declarations of other packages must be able to name what is in it.
  call<T, F = never>(
    service: K,
    operation: Operation<T>,
    options?: CallOptions<T, F> | KeyedCallOptions<T, F>,
  ): Promise<T | F>
}['call']

/** The options of any call. */
export type AnyOptions<T, F> = CallOptions<T, F> | KeyedCallOptions<T, F>

/** The services without keys. */
export type Plain<K extends string, D extends string> = [D] extends [never] ? K : Exclude<K, D>
