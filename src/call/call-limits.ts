/**
 * The limits that can end a call early: its own `timeout`, the deadline of the Lambda invocation, the caller's signal.
 *
 * @module
 */

import { type CircuitName, CircuitTimeoutError, type TimeoutReason } from '../errors.ts'
import { isTimeout } from '../failures/classification.ts'
import { graceAfter, type Runtime, type TimerHandle } from '../runtime.ts'
import { leave, listen } from './caller-signal.ts'
import type { Invocation, Watched } from './invocation.ts'
import { ContextHandler } from './operation-context.ts'
import type { TurnClock, TurnListener } from './turn-clock.ts'

/** The wait of a call for a permit: milliseconds since the epoch. */
interface PermitWait {
  readonly maxConcurrent: number
  readonly from: number
  to: number | undefined
}

/**
 * How long an operation must have run before its end by a limit counts as a failure, in milliseconds: half of its timeout, or a
 * second without a timeout.
 */
export function fairTimeFor(timeout: number | false): number {
  return timeout === false ? 1_000 : timeout / 2
}

/**
 * One call that a limit can end. It is also the source of the operation's context.
 *
 * It has many fields because each call with limits makes one, and every further object would cost time. It is also its own node in
 * the list of its invocation.
 */
export class CallLimits extends ContextHandler implements Watched, TurnListener {
  /** When the call began, in milliseconds since the epoch. */
  readonly startedAt: number
  /** How long the call may take, in milliseconds. */
  readonly timeout: number | false
  /** Whether the call has a fallback for its failure. */
  fallbackApplies = false
  /** Whether the outcome of the operation is ignored from now on. Set by `end`. */
  isOver = false
  /** Its neighbours in the list of its invocation, which alone writes them. */
  previous: Watched | undefined
  next: Watched | undefined
  readonly #circuit: CircuitName
  readonly #runtime: Runtime
  readonly #callerSignal: AbortSignal | undefined
  readonly #deadlineReserve: number
  readonly #invocation: Invocation | undefined
  /** The timer of the call's own timeout. Set by `start`, ended by `dispose`. */
  #timer: TimerHandle | undefined
  /** Made when the operation reads `signal`. */
  #controller: AbortController | undefined
  /** The error of the first limit that ended the call. */
  #cut: { readonly error: unknown; readonly by: TimeoutReason | 'caller' } | undefined
  /** The listener of the present step. It is called when a limit ends the call. */
  #reject: ((error: unknown) => void) | undefined
  /** Milliseconds since the epoch. Set by `markOperationStart`. */
  #operationStartedAt: number | undefined
  /** Whether the call is in the list of its invocation. Set by `start`, ended by `dispose`. */
  #isWatched = false
  /** Whether the timer was late once and has granted extra time. Set by `timeIsOver`. */
  #hasHadGrace = false
  /** Whether the process may have been frozen during the call. Set by `stall`. */
  #wasFrozen = false
  /** The wait for a permit, if the call had to wait. Written by `waitFor` and `hasWaited`. */
  #wait: PermitWait | undefined

  constructor(
    circuit: CircuitName,
    runtime: Runtime,
    timeout: number | false,
    callerSignal: AbortSignal | undefined,
    invocation: Invocation | undefined,
    deadlineReserve: number,
    startedAt?: number,
  ) {
    super()
    this.#circuit = circuit
    this.#runtime = runtime
    this.startedAt = startedAt ?? runtime.now()
    this.timeout = timeout
    this.#callerSignal = callerSignal
    this.#invocation = invocation
    this.#deadlineReserve = deadlineReserve
  }

  /** When the invocation's time for this call ends, in milliseconds since the epoch. A field would cost a number on the heap. */
  get deadlineAt(): number {
    return this.#invocation === undefined ? Number.POSITIVE_INFINITY : this.#invocation.endsAt - this.#deadlineReserve
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#cut !== undefined) this.#controller.abort(this.#cut.error)
    }
    return this.#controller.signal
  }

  /** The limit that ended the call, if one did. */
  get cut(): { readonly error: unknown } | undefined {
    return this.#cut
  }

  /** Whether its timeout, the invocation's deadline, or a timed-out signal of the caller ended the call. */
  get hasTimedOut(): boolean {
    return this.#cut !== undefined && (this.#cut.by !== 'caller' || isTimeout(this.#cut.error))
  }

  /** Whether the call has a limit. */
  get isCuttable(): boolean {
    const { timeout, deadlineAt } = this
    return timeout !== false || deadlineAt !== Number.POSITIVE_INFINITY || this.#callerSignal !== undefined
  }

  /**
   * How long the operation must have run before a call that a limit ends counts as a failure, in milliseconds: half of its timeout,
   * or a second without a timeout. The call may have spent the rest on waiting for a permit, or the invocation's deadline may have
   * come first. For a timeout of the caller's signal only the elapsed time is known, and half of that counts.
   */
  get fairTime(): number {
    if (this.#cut?.by === 'caller' && this.hasTimedOut) return (this.#runtime.now() - this.startedAt) / 2
    return fairTimeFor(this.timeout)
  }

  /** The remaining time of the call, in milliseconds; `Infinity`: no limit. */
  get timeLeft(): number {
    const timeoutAt = this.timeout === false ? Number.POSITIVE_INFINITY : this.startedAt + this.timeout
    return Math.min(timeoutAt, this.deadlineAt) - this.#runtime.now()
  }

  /** Whether the operation ran long enough. If the process was frozen, its running time is unknown. */
  get hadFairTime(): boolean {
    if (this.#operationStartedAt === undefined || this.#wasFrozen) return false
    return this.#runtime.now() - this.#operationStartedAt >= this.fairTime
  }

  /**
   * Starts to watch the clock and the caller's signal. May end the call at once.
   *
   * @param clock tells when the turn ends. A timer costs more than the rest of a call, and cannot fire before the turn ends
   */
  start(clock?: TurnClock): void {
    const signal = this.#callerSignal
    if (signal !== undefined) {
      if (signal.aborted) {
        this.cutBy('caller', signal.reason)
        return
      }
      listen(signal, this)
    }
    if (this.#invocation?.hasDeadline) {
      if (this.deadlineAt <= this.startedAt) {
        this.timeOut('deadline')
        return
      }
      this.#isWatched = true
      this.#invocation.watch(this)
    }
    if (this.timeout === false) return
    if (clock === undefined) this.turnEnded(this.startedAt)
    else clock.whenOver(this)
  }

  /** The turn in which the call began has ended. A call that is still under way needs a timer. */
  turnEnded(now: number): void {
    if (this.isOver || this.timeout === false) return
    const left = this.startedAt + this.timeout - now
    this.#timer = this.#runtime.setTimeout(() => this.timeIsOver(), Math.min(this.timeout, Math.max(0, left)))
  }

  /** The operation starts, now or at the given instant. */
  markOperationStart(at: number = this.#runtime.now()): void {
    this.#operationStartedAt = at
  }

  /**
   * Waits for a step of the call, or rejects as soon as a limit ends the call. An abandoned step goes on, and its result is
   * ignored. One step at a time.
   */
  race<T>(step: PromiseLike<T> | T): PromiseLike<T> | T {
    if (!this.isCuttable) return step
    return new Promise<T>((resolve, reject) => {
      Promise.resolve(step).then(resolve, reject)
      if (this.#cut !== undefined) reject(this.#cut.error)
      else this.#reject = reject
    })
  }

  /** The timer was late: between invocations Lambda froze the process; within one, the process was busy. */
  stall(): void {
    this.#wasFrozen ||= this.deadlineAt !== Number.POSITIVE_INFINITY && this.#invocation?.hasEnded === true
  }

  /** After a freeze the answer may wait in the socket, so the call gets extra time. */
  timeIsOver(): void {
    const grace = graceAfter(this.#runtime.now() - this.startedAt - (this.timeout || 0))
    if (grace > 0 && !this.#hasHadGrace) {
      this.#hasHadGrace = true
      this.stall()
      this.#timer = this.#runtime.setTimeout(() => this.timeOut('timeout'), grace)
    } else {
      this.timeOut('timeout')
    }
  }

  /** Calls `listener` with the error when a limit ends the call, or at once if one has. Replaces the previous listener. */
  onCut(listener: (error: unknown) => void): void {
    this.#reject = listener
    if (this.#cut !== undefined) listener(this.#cut.error)
  }

  /**
   * Ends the call if its time is over, even if its timer has not fired yet.
   *
   * @returns the error of the limit that ended the call, if one did
   */
  cutIfOver(): { readonly error: unknown } | undefined {
    const now = this.#runtime.now()
    if (this.timeout !== false && now - this.startedAt >= this.timeout) this.timeOut('timeout')
    else if (now >= this.deadlineAt) this.timeOut('deadline')
    return this.#cut
  }

  /** The call begins to wait for one of `maxConcurrent` permits. */
  waitFor(maxConcurrent: number): void {
    this.#wait = { maxConcurrent, from: this.#runtime.now(), to: undefined }
  }

  /** The call no longer waits for a permit. */
  hasWaited(): void {
    if (this.#wait !== undefined) this.#wait.to = this.#runtime.now()
  }

  /** Ends the call with a {@link CircuitTimeoutError}. */
  timeOut(reason: TimeoutReason): void {
    const end = reason === 'timeout' ? this.startedAt + (this.timeout || 0) : this.deadlineAt
    const attempted = this.#operationStartedAt !== undefined
    const timeout = Math.max(0, end - this.startedAt)
    const wait = this.#wait
    const waited = wait === undefined ? 0 : Math.max(0, (wait.to ?? this.#runtime.now()) - wait.from)
    const maxConcurrent = wait?.maxConcurrent
    const { service, key } = this.#circuit
    const details = { service, key, reason, timeout, attempted, waited, maxConcurrent }
    this.cutBy(reason, new CircuitTimeoutError(details))
  }

  /** The call has ended. */
  end(fallbackApplies: boolean): void {
    this.isOver = true
    this.fallbackApplies = fallbackApplies
    this.dispose()
  }

  /** The call has ended: removes its timers and listeners. */
  dispose(): void {
    if (this.#timer !== undefined) this.#runtime.clearTimeout(this.#timer)
    if (this.#isWatched) this.#invocation?.unwatch(this)
    this.#isWatched = false
    if (this.#callerSignal !== undefined) leave(this.#callerSignal, this)
  }

  cutBy(by: TimeoutReason | 'caller', error: unknown): void {
    if (this.#cut !== undefined) return
    this.#cut = { error, by }
    this.#controller?.abort(error)
    this.#reject?.(error)
  }
}
