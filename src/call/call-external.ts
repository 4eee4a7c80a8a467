import type { CallOptions, Operation } from './call-options.ts'

/**
 * `CircuitBreaker.call`, bound to an invocation: to its deadline and its request id. One for some services also fits where a
 * plain `CallExternal` is asked for: it is typed as a method, whose parameters may be narrower.
 */
export type CallExternal<K extends string = string> = {
  call<T, F = never>(service: K, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F>
}['call']
