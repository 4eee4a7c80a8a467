/**
 * A call that only the deadline of its invocation can cut: nearly every call in Lambda. It costs less than a call with limits of
 * its own, because it keeps what it needs when it succeeds, and makes {@link CallLimits} when it is cut.
 *
 * @module
 */

import type { TimeoutReason } from '../errors.ts'
import type { CallLimits, OperationContext } from './call-limits.ts'
import type { Invocation, Watched } from './invocation.ts'

/** The side of the guard: hears how the call ended, before the caller does. */
export interface DeadlineHost {
  /** The part of an invocation's time that is kept back, in milliseconds. */
  readonly deadlineReserve: number
  /** The limits of a call that began then. */
  limitsOf(invocation: Invocation, startedAt: number): CallLimits
  callSucceeded(call: DeadlineCall, value: unknown): void
  callFailed(call: DeadlineCall, error: unknown): void
  callWasCut(call: DeadlineCall, error: unknown, limits: CallLimits): void
}

/** It is what the operation receives, and its own node in the list of its invocation: each object less counts. */
export class DeadlineCall implements OperationContext, Watched {
  readonly invocation: Invocation
  /** The period of the circuit in which it was admitted. */
  readonly period: number
  /** When it began, in milliseconds since the epoch. */
  readonly startedAt: number
  readonly #host: DeadlineHost
  /** Whether it is in the list of its invocation. The invocation alone writes this and the next two. */
  isWatched = false
  previous: Watched | undefined = undefined
  next: Watched | undefined = undefined
  /** The ways to the caller. Set by `start`, ended by the end of the call. */
  #resolve: ((value: never) => void) | undefined = undefined
  #reject: ((error: unknown) => void) | undefined = undefined
  /** Made when the operation reads `signal`. */
  #controller: AbortController | undefined = undefined
  /** Set when the call is cut. */
  #cut: CallLimits | undefined = undefined
  /** Whether the process may have been frozen during the call. Set by `stall`. */
  #wasFrozen = false

  constructor(host: DeadlineHost, invocation: Invocation, period: number, startedAt: number) {
    this.#host = host
    this.invocation = invocation
    this.period = period
    this.startedAt = startedAt
  }

  get signal(): AbortSignal {
    if (this.#controller !== undefined) return this.#controller.signal
    if (this.#cut !== undefined) return this.#cut.signal
    this.#controller = new AbortController()
    return this.#controller.signal
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

  /** The operation has succeeded. What it comes to after the cut is ignored. */
  succeeded(value: unknown): void {
    const resolve = this.#resolve
    if (resolve === undefined) return
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
    this.#wasFrozen ||= this.invocation.hasEnded
  }

  timeOut(reason: TimeoutReason): void {
    const reject = this.#reject
    if (reject === undefined) return
    const limits = this.#host.limitsOf(this.invocation, this.startedAt)
    limits.markOperationStart(this.startedAt)
    if (this.#wasFrozen) limits.stall()
    limits.timeOut(reason)
    this.#cut = limits
    const error = limits.cut?.error
    this.#controller?.abort(error)
    this.end()
    this.#host.callWasCut(this, error, limits)
    reject(error)
  }

  private end(): void {
    this.#resolve = undefined
    this.#reject = undefined
    this.invocation.unwatch(this)
  }
}

/** Reactions to the end of the operation of one call. */
export function reactionsFor(call: DeadlineCall): Reactions {
  const reactions = spare.pop() ?? new Reactions()
  reactions.call = call
  return reactions
}

/** The two ends of an operation. They are used again for another call once the operation has come to one of them. */
class Reactions {
  /** The call whose operation it is. */
  call: DeadlineCall | undefined = undefined
  readonly succeeded = (value: unknown): void => this.#take()?.succeeded(value)
  readonly failed = (error: unknown): void => this.#take()?.failed(error)

  #take(): DeadlineCall | undefined {
    const { call } = this
    this.call = undefined
    if (spare.length < maxSpare) spare.push(this)
    return call
  }
}

const maxSpare = 100
const spare: Reactions[] = []
