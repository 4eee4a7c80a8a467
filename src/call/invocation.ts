/**
 * One Lambda invocation: its request id, and its deadline with one timer for all of its calls.
 *
 * @module
 */

import type { TimeoutReason } from '../errors.ts'
import { graceAfter, longestTimer, type Runtime, type TimerHandle } from '../runtime.ts'
import { type TurnClock, type TurnListener, turnClockOf } from './turn-clock.ts'

/** The part of a Lambda context that tells how much time is left. */
export interface TimeSource {
  /** Returns the remaining time, in milliseconds. Absent: there is no deadline. */
  getRemainingTimeInMillis?: (() => number) | undefined
  /** The contexts of durable functions, also Middy's, keep Lambda's own context here. */
  readonly lambdaContext?:
    | { getRemainingTimeInMillis?: (() => number) | undefined; readonly awsRequestId?: string | undefined }
    | undefined
  /** Lambda's request id, for events. */
  readonly awsRequestId?: string | undefined
}

/** A call in the list of its invocation, which alone writes its place there. */
export interface Watched {
  /** When the invocation's time for this call ends, in milliseconds since the epoch. */
  readonly deadlineAt: number
  previous: Watched | undefined
  next: Watched | undefined
  /** The timer was late. */
  stall(): void
  /** The time is over. */
  timeOut(reason: TimeoutReason): void
}

/** The bodies that a call has returned and that have not ended. */
export interface HandedOut {
  /** @param response the handler's response, which may contain a body */
  invocationEnded(response: unknown): void
}

/** @internal One Lambda invocation: its request id and its deadline, with one timer for all of its calls. */
export class Invocation implements TurnListener {
  readonly requestId: string | undefined
  /** Whether the invocation belongs to a durable function. It may be suspended after any call, and then no code of the breaker runs. */
  readonly isDurable: boolean
  readonly startedAt: number
  /** Whether the deadline is known. */
  readonly hasDeadline: boolean
  /** The bodies that its calls have returned. Made by the first such call, written by all. */
  bodies: Set<HandedOut> | undefined
  readonly #runtime: Runtime
  readonly #endsAt: number
  /** The calls that are under way, as a linked list. A `Set` would cost half of a call. */
  #first: Watched | undefined
  #hasEnded = false
  /** Finds the key of calls that name none. Set by the middleware. */
  #keyBy: (() => unknown) | undefined
  #timer: TimerHandle | undefined
  #timerAt = Number.POSITIVE_INFINITY
  /** Looked up when the timer is set. */
  #clock: TurnClock | undefined
  /** Whether the timer stops holding the process when the turn ends. Written by `unwatch`, ended by `turnEnded`. */
  #rests = false
  /** Whether the timer was late and now grants extra time. */
  #isGrace = false

  constructor(context: TimeSource, runtime: Runtime, keyBy?: () => unknown) {
    this.#keyBy = keyBy
    this.requestId = context.awsRequestId ?? context.lambdaContext?.awsRequestId
    this.isDurable = context.lambdaContext !== undefined
    this.#runtime = runtime
    this.startedAt = runtime.now()
    this.#endsAt = this.startedAt + remainingTime(context)
    this.hasDeadline = this.#endsAt !== Number.POSITIVE_INFINITY
  }

  /** The key of calls of keyed services that name none; found when it is first needed. */
  get key(): unknown {
    const key = this.#keyBy?.()
    this.#keyBy &&= () => key
    return key
  }

  /** The time that is left, in milliseconds; `Infinity` if there is no deadline. */
  timeLeft(): number {
    // If the clock has stepped back, the remaining time is at most the time at the beginning.
    return this.#endsAt - Math.max(this.startedAt, this.#runtime.now())
  }

  /** When Lambda kills the process, in milliseconds since the epoch; `Infinity`: unknown. */
  get endsAt(): number {
    return this.#endsAt
  }

  /** Lets the invocation's timer end this call at its deadline. */
  watch(call: Watched): void {
    const first = this.#first
    call.next = first
    if (first !== undefined) first.previous = call
    this.#first = call
    if (call.deadlineAt < this.#timerAt) this.#schedule(call.deadlineAt)
    else if (first === undefined && !this.#rests) this.#timer?.ref?.()
  }

  /** A call that was watched has ended. */
  unwatch(call: Watched): void {
    const { previous, next } = call
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    call.previous = undefined
    call.next = undefined
    if (this.#first !== undefined) return
    if (this.#hasEnded) this.#clear()
    else if (!this.#rests && this.#clock !== undefined) {
      // To release a timer and to hold it again costs a tenth of a call: once in a turn is enough.
      this.#rests = true
      this.#clock.whenOver(this)
    }
  }

  /** Keeps the timer for the next call, but lets the process end. */
  turnEnded(): void {
    this.#rests = false
    if (this.#first === undefined) this.#timer?.unref?.()
  }

  /** Whether the invocation has ended. From then on Lambda may freeze the process. */
  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** The invocation has ended with this response. The deadline still ends calls that nobody awaits. */
  end(response?: unknown): void {
    this.#hasEnded = true
    for (const body of this.bodies ?? []) body.invocationEnded(response)
    if (this.#first === undefined) this.#clear()
  }

  #schedule(at: number, now: number = this.#runtime.now()): void {
    this.#clear()
    this.#clock ??= turnClockOf(this.#runtime)
    this.#timerAt = Math.min(at, now + longestTimer)
    this.#timer = this.#runtime.setTimeout(() => this.#cutDue(), Math.max(0, this.#timerAt - now))
  }

  #clear(): void {
    if (this.#timer !== undefined) this.#runtime.clearTimeout(this.#timer)
    this.#timer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
    this.#isGrace = false
  }

  #cutDue(): void {
    // The clock may have stepped back. Timers run by a monotonic clock.
    const now = Math.max(this.#timerAt, this.#runtime.now())
    const grace = this.#isGrace ? 0 : graceAfter(now - this.#timerAt)
    this.#clear()
    if (grace > 0 && this.#first !== undefined) {
      for (let call: Watched | undefined = this.#first; call !== undefined; call = call.next) {
        if (call.deadlineAt <= now) call.stall()
      }
      const left = this.#endsAt - now
      this.#schedule(now + (left > 0 ? Math.min(grace, left / 2) : grace), now)
      this.#isGrace = true
      return
    }
    // A call that ends leaves the list, and a listener of its signal may begin and end other calls.
    const calls: Watched[] = []
    for (let call = this.#first; call !== undefined; call = call.next) calls.push(call)
    for (const call of calls) if (call.deadlineAt <= now) call.timeOut('deadline')
    let next = Number.POSITIVE_INFINITY
    for (let call = this.#first; call !== undefined; call = call.next) {
      if (call.deadlineAt > now) next = Math.min(next, call.deadlineAt)
    }
    if (next < this.#timerAt) this.#schedule(next, now)
  }
}

/** The remaining time; `Infinity` without a usable answer, as in tests and containers. */
function remainingTime(context: TimeSource): number {
  const source = typeof context.getRemainingTimeInMillis === 'function' ? context : context.lambdaContext
  let remaining: unknown
  try {
    remaining = source?.getRemainingTimeInMillis?.()
  } catch {
    // A replacement of Lambda's context may throw.
  }
  return typeof remaining === 'number' && !Number.isNaN(remaining) ? remaining : Number.POSITIVE_INFINITY
}
