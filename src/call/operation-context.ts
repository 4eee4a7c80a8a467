/**
 * The argument of an operation: an object with one property, which a spread copies.
 *
 * A property of its own with a getter costs V8 as much as the rest of a call. A proxy costs a tenth of that, and nothing where
 * the next call may have the same one.
 *
 * @module
 */

import type { Invocation } from './invocation.ts'

/** The argument of an operation. */
export interface OperationContext {
  /**
   * Aborted when the call is cut, with the error that the caller gets as its reason. Pass it on to whatever does the
   * work: `fetch(url, { signal })`. It is created when it is first read, because it costs more than the rest of the
   * guard. A spread reads it: `request({ ...context, url })`.
   */
  readonly signal: AbortSignal
}

/** The shape of every context: frozen, for it is shared. Its getter is never asked, because the proxy answers. */
const shape = Object.freeze({
  get signal(): AbortSignal {
    return AbortSignal.any([])
  },
})

/** Answers for a context: by the signal of its source, which is the handler itself. */
export abstract class ContextHandler implements ProxyHandler<OperationContext> {
  abstract get signal(): AbortSignal

  get(target: OperationContext, key: PropertyKey): unknown {
    return key === 'signal' ? this.signal : Reflect.get(target, key)
  }
}

/** What the operation sees of a call. */
export function contextOf(handler: ContextHandler): OperationContext {
  return new Proxy(shape, handler)
}

/**
 * The context of calls of one invocation without limits of their own. The invocation's deadline cuts all of them at once, so
 * that they share a context until one has read its signal: nearly every operation reads it when it begins, or never.
 */
export class SharedContext extends ContextHandler {
  readonly invocation: Invocation | undefined
  /** What the operations see. */
  readonly context: OperationContext = contextOf(this)
  /** Made when the signal is read, and when a call is cut. From then on no other call gets this context. */
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
