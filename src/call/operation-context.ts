/**
 * The argument of an operation: an object with one property, which a spread copies.
 *
 * An own property with a getter costs V8 as much as the rest of a call. A proxy costs a tenth of that, and nothing if the next call
 * can reuse it.
 *
 * @module
 */

import type { Invocation } from './invocation.ts'

/** The argument of an operation. */
export interface OperationContext {
  /**
   * Aborted when a limit ends the call. Its reason is the error that the caller gets. Pass the signal on to the code that does the
   * work: `fetch(url, { signal })`. The breaker creates the signal when it is first read, because it costs more than the rest of
   * the guard. A spread reads it: `request({ ...context, url })`.
   */
  readonly signal: AbortSignal
}

/** The shape of every context, shared and frozen. Its getter is never called, because the proxy answers. */
const shape = Object.freeze({
  get signal(): AbortSignal {
    return AbortSignal.any([])
  },
})

/** The handler of a context's proxy. It returns its own signal. */
export abstract class ContextHandler implements ProxyHandler<OperationContext> {
  abstract get signal(): AbortSignal

  get(target: OperationContext, key: PropertyKey): unknown {
    return key === 'signal' ? this.signal : Reflect.get(target, key)
  }
}

/** The context of a call, for the operation. */
export function contextOf(handler: ContextHandler): OperationContext {
  return new Proxy(shape, handler)
}

/**
 * The context of calls of one invocation without limits of their own. The invocation's deadline ends all of them at once, so they
 * share a context until one reads its signal. Nearly every operation reads the signal when it begins, or never.
 */
export class SharedContext extends ContextHandler {
  readonly invocation: Invocation | undefined
  /** The context for the operations. */
  readonly context: OperationContext = contextOf(this)
  /** Made when the signal is read, or when a limit ends a call. After that no other call gets this context. */
  #controller: AbortController | undefined

  constructor(invocation: Invocation | undefined) {
    super()
    this.invocation = invocation
  }

  get isUsed(): boolean {
    return this.#controller !== undefined
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    return this.#controller.signal
  }

  abort(error: unknown): void {
    this.#controller ??= new AbortController()
    this.#controller.abort(error)
  }
}
