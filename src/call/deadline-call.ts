/**
 * A call that only the deadline of its invocation can end: nearly every call in Lambda. It costs less than a call with other
 * limits, because it makes its {@link CallLimits} only when the deadline ends it.
 *
 * @module
 */

import type { TimeoutReason } from '../errors.ts'
import type { CallLimits } from './call-limits.ts'
import type { Invocation, Watched } from './invocation.ts'
import type { SharedContext } from './operation-context.ts'
import { letGo } from './unread.ts'

/** The guard of the call. It gets the outcome of the call before the caller does. */
export interface DeadlineHost {
  /** The time reserved before an invocation's deadline, in milliseconds. */
  readonly deadlineReserve: number
  /** Makes the limits of a call that began at the given time. */
  limitsOf(invocation: Invocation, startedAt: number): CallLimits
  callSucceeded(call: DeadlineCall, value: unknown): void
  callFailed(call: DeadlineCall, error: unknown): void
  callWasCut(call: DeadlineCall, error: unknown, limits: CallLimits): void
}

/** One call. It is also its own node in the list of its invocation, which saves an object. */
export class DeadlineCall implements Watched {
  readonly invocation: Invocation
  /** The period of the circuit that admitted the call. */
  readonly period: number
  /** When the call began, in milliseconds since the epoch. */
  readonly startedAt: number
  readonly #host: DeadlineHost
  readonly #context: SharedContext
  /** Its neighbours in the list of its invocation, which alone writes them. */
  previous: Watched | undefined = undefined
  next: Watched | undefined = undefined
  /** Settles the caller's promise. Set by `start`, ended by the end of the call. */
  #resolve: ((value: never) => void) | undefined = undefined
  #reject: ((error: unknown) => void) | undefined = undefined
  /** Made when the deadline ends the call, or the timer is late. */
  #limits: CallLimits | undefined = undefined

  constructor(host: DeadlineHost, invocation: Invocation, period: number, startedAt: number, context: SharedContext) {
    this.#host = host
    this.#context = context
    this.invocation = invocation
    this.period = period
    this.startedAt = startedAt
  }

  get deadlineAt(): number {
    return this.invocation.endsAt - this.#host.deadlineReserve
  }

  /** The call is under way from now on. */
  start(resolve: (value: never) => void, reject: (error: unknown) => void): void {
    this.#resolve = resolve
    this.#reject = reject
    this.invocation.watch(this)
  }

  /** The operation has succeeded. A result after the deadline is ignored. */
  succeeded(value: unknown): void {
    const resolve = this.#resolve
    if (resolve === undefined) {
      letGo(value)
      return
    }
    this.end()
    this.#host.callSucceeded(this, value)
    resolve(value as never)
  }

  /** The operation has failed. */
  failed(error: unknown): void {
    const reject = this.#reject
    if (reject === undefined) return
    this.end()
    this.#host.callFailed(this, error)
    reject(error)
  }

  stall(): void {
    this.limits.stall()
  }

  timeOut(reason: TimeoutReason): void {
    const reject = this.#reject
    if (reject === undefined) return
    const { limits } = this
    limits.markOperationStart(this.startedAt)
    limits.timeOut(reason)
    const error = limits.cut?.error
    this.#context.abort(error)
    this.end()
    this.#host.callWasCut(this, error, limits)
    reject(error)
  }

  private get limits(): CallLimits {
    this.#limits ??= this.#host.limitsOf(this.invocation, this.startedAt)
    return this.#limits
  }

  private end(): void {
    this.#resolve = undefined
    this.#reject = undefined
    this.invocation.unwatch(this)
  }
}
