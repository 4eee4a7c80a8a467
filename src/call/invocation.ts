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
  /** How much time is left, in milliseconds. Absent: there is no deadline. */
  getRemainingTimeInMillis?: (() => number) | undefined
  /** The contexts of durable functions keep Lambda's own context here, Middy's too. */
  readonly lambdaContext?:
    | { getRemainingTimeInMillis?: (() => number) | undefined; readonly awsRequestId?: string | undefined }
    | undefined
  /** Lambda's request id, for events. */
  readonly awsRequestId?: string | undefined
}

/** A call in the list of its invocation, which alone writes its place there. */
export interface Watched {
  /** When the invocation's time for this call is over, in milliseconds since the epoch. */
  readonly deadlineAt: number
  previous: Watched | undefined
  next: Watched | undefined
  /** The timer was late. */
  stall(): void
  /** The time is over. */
  timeOut(reason: TimeoutReason): void
}

/** The bodies that a call has handed out, and that are not over. */
export interface HandedOut {
  /** @param response the handler's, which may hand a body on */
  invocationEnded(response: unknown): void
}

/** @internal One Lambda invocation: its request id and its deadline, with one timer for all of its calls. */
export class Invocation implements TurnListener {
  readonly requestId: string | undefined
  /** Whether it is one of a durable function, which may be suspended after any call: nothing of ours runs then. */
  readonly isDurable: boolean
  readonly startedAt: number
  /** Whether anybody knows when Lambda kills the process. */
  readonly hasDeadline: boolean
  /** The bodies that its calls have handed out. Made by the first, written by them. */
  bodies: Set<HandedOut> | undefined
  readonly #runtime: Runtime
  readonly #endsAt: number
  /** The calls that are under way, as a list that each of them can leave at once: a `Set` would cost half of a call. */
  #first: Watched | undefined
  #hasEnded = false
  /** Finds the key of calls that name none. Given by the middleware. */
  #keyBy: (() => unknown) | undefined
  #timer: TimerHandle | undefined
  #timerAt = Number.POSITIVE_INFINITY
  /** Looked up when the timer is set. */
  #clock: TurnClock | undefined
  /** Whether the timer is let go of when the turn ends. Written by `unwatch`, ended by `turnEnded`. */
  #rests = false
  /** Whether the timer was late and this is the time that it gives. */
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
    // A clock that has stepped back gives no more time than there was at first.
    return this.#endsAt - Math.max(this.startedAt, this.#runtime.now())
  }

  /** When Lambda kills the process, in milliseconds since the epoch; `Infinity` if nobody knows. */
  get endsAt(): number {
    return this.#endsAt
  }

  /** The invocation's timer cuts this call at its deadline. */
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
      // To let a timer go and to take it again costs a tenth of a call: once in a turn is enough.
      this.#rests = true
      this.#clock.whenOver(this)
    }
  }

  /** The timer is kept for the next call, but is not what holds the process. */
  turnEnded(): void {
    this.#rests = false
    if (this.#first === undefined) this.#timer?.unref?.()
  }

  /** Whether it has ended: from then on Lambda may freeze the process. */
  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** The invocation has ended with this response; calls that nobody awaits are still cut at the deadline. */
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
    // The clock may have stepped back; timers run by one that does not.
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
    // A call that is cut leaves the list, and what listens to its signal may begin and end others.
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

/** `Infinity` without a usable answer, as in tests and containers. */
function remainingTime(context: TimeSource): number {
  const source = typeof context.getRemainingTimeInMillis === 'function' ? context : context.lambdaContext
  let remaining: unknown
  try {
    remaining = source?.getRemainingTimeInMillis?.()
  } catch {
    // A stand-in for Lambda's context may be anything.
  }
  return typeof remaining === 'number' && !Number.isNaN(remaining) ? remaining : Number.POSITIVE_INFINITY
}
