/**
 * The types of a breaker's calls. They depend on the services and on which services are keyed.
 *
 * @module
 */

import type { CallOptions, KeyedCallOptions, Operation } from './call-options.ts'

/**
 * `CircuitBreaker.call`, bound to an invocation: to its deadline and its request id.
 *
 * `K` are the services, `D` the keyed services among them, and `O` the keyed services whose calls need no key.
 */
export type CallExternal<K extends string = string, D extends string = never, O extends string = never> = [D] extends [
  never,
]
  ? PlainCall<K>
  : PlainCall<Exclude<K, D>> & KeyedCall<Exclude<D, O>> & BoundCall<O>

// Typed as methods, whose parameters may be narrower: a call for some services also fits a type with all services.

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
  // Written out and not by its alias: the declarations of other packages must be able to name its parts.
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
