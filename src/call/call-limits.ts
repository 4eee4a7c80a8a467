/**
 * The limits that can end a call from outside: its own `timeout`, the deadline of the Lambda invocation, the caller's signal.
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
 * How long an operation must have run to be cut for a failure of the service, in milliseconds: half of its timeout, or a
 * second where it has none.
 */
export function fairTimeFor(timeout: number | false): number {
  return timeout === false ? 1_000 : timeout / 2
}

/**
 * One call, while it can be cut. It answers for what the operation receives.
 *
 * It has more fields than a class should have. It is made for each call that can be cut, so that each object less counts,
 * and it is its own node in the list of its invocation.
 */
export class CallLimits extends ContextHandler implements Watched, TurnListener {
  /** When the call began, in milliseconds since the epoch. */
  readonly startedAt: number
  /** How long it may take, in milliseconds. */
  readonly timeout: number | false
  /** Whether a fallback may answer in place of what the call came to. */
  fallbackApplies = false
  /** Whether what the operation comes to is ignored from now on. Set by `end`. */
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
  /** Set by the first thing that cuts the call. */
  #cut: { readonly error: unknown; readonly by: TimeoutReason | 'caller' } | undefined
  /** The listener of the present step, which hears of a cut. */
  #reject: ((error: unknown) => void) | undefined
  /** Milliseconds since the epoch. Set by `markOperationStart`. */
  #operationStartedAt: number | undefined
  /** Whether it is in the list of its invocation. Set by `start`, ended by `dispose`. */
  #isWatched = false
  /** Whether the timer was late once and has given its grace. Set by `timeIsOver`. */
  #hasHadGrace = false
  /** Whether the process may have been frozen during the call. Set by `stall`. */
  #wasFrozen = false
  /** Its wait for a permit, if it had to wait. Written by `waitFor` and `hasWaited`. */
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

  /** When the invocation's time for this call is over, in milliseconds since the epoch. A field would cost a number on the heap. */
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

  /** The cause of the cut, if the call was cut. */
  get cut(): { readonly error: unknown } | undefined {
    return this.#cut
  }

  /** Whether the call was cut by its timeout, by the invocation's deadline, or by a signal of the caller's that timed out. */
  get hasTimedOut(): boolean {
    return this.#cut !== undefined && (this.#cut.by !== 'caller' || isTimeout(this.#cut.error))
  }

  /** Whether anything can cut it. */
  get isCuttable(): boolean {
    const { timeout, deadlineAt } = this
    return timeout !== false || deadlineAt !== Number.POSITIVE_INFINITY || this.#callerSignal !== undefined
  }

  /**
   * How long the operation must have run for a call that was cut to say something of the service, in milliseconds: half of
   * its timeout, or a second where it has none. The rest may have gone into waiting for a permit, or not have been there
   * before the invocation's deadline. Of a timeout of the caller's only the time is known that has passed: half of that.
   */
  get fairTime(): number {
    if (this.#cut?.by === 'caller' && this.hasTimedOut) return (this.#runtime.now() - this.startedAt) / 2
    return fairTimeFor(this.timeout)
  }

  /** The time that it has left, in milliseconds; `Infinity`: nothing bounds it. */
  get timeLeft(): number {
    const timeoutAt = this.timeout === false ? Number.POSITIVE_INFINITY : this.startedAt + this.timeout
    return Math.min(timeoutAt, this.deadlineAt) - this.#runtime.now()
  }

  /** Whether it ran for that long. Nobody knows how much of the time a process had that was frozen. */
  get hadFairTime(): boolean {
    if (this.#operationStartedAt === undefined || this.#wasFrozen) return false
    return this.#runtime.now() - this.#operationStartedAt >= this.fairTime
  }

  /**
   * Starts to watch the clock and the caller's signal. May cut the call at once.
   *
   * @param clock tells when the turn is over: a timer costs more than the rest of a call, and until then none could fire
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

  /** The turn is over in which the call began: it needs a timer if it is under way. */
  turnEnded(now: number): void {
    if (this.isOver || this.timeout === false) return
    const left = this.startedAt + this.timeout - now
    this.#timer = this.#runtime.setTimeout(() => this.timeIsOver(), Math.min(this.timeout, Math.max(0, left)))
  }

  /** The operation starts: now, or at an instant that is as good as now. */
  markOperationStart(at: number = this.#runtime.now()): void {
    this.#operationStartedAt = at
  }

  /**
   * Waits for a step of the call, or rejects as soon as the call is cut. A step that is abandoned goes on alone: what
   * it comes to is ignored. One step at a time.
   */
  race<T>(step: PromiseLike<T> | T): PromiseLike<T> | T {
    if (!this.isCuttable) return step
    return new Promise<T>((resolve, reject) => {
      Promise.resolve(step).then(resolve, reject)
      if (this.#cut !== undefined) reject(this.#cut.error)
      else this.#reject = reject
    })
  }

  /** Its timer was late. Lambda freezes the process between invocations; within one, the process was busy. */
  stall(): void {
    this.#wasFrozen ||= this.deadlineAt !== Number.POSITIVE_INFINITY && this.#invocation?.hasEnded === true
  }

  /** After a freeze the answer may lie in the socket: it is given the time to arrive. */
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

  /** Calls `listener` with the error when the call is cut, at once if it has been. It takes the place of the listener before. */
  onCut(listener: (error: unknown) => void): void {
    this.#reject = listener
    if (this.#cut !== undefined) listener(this.#cut.error)
  }

  /**
   * Cuts the call if its time is over, though its timer has not fired yet.
   *
   * @returns what has cut it, if anything did
   */
  cutIfOver(): { readonly error: unknown } | undefined {
    const now = this.#runtime.now()
    if (this.timeout !== false && now - this.startedAt >= this.timeout) this.timeOut('timeout')
    else if (now >= this.deadlineAt) this.timeOut('deadline')
    return this.#cut
  }

  /** It waits for one of so many permits from now on. */
  waitFor(maxConcurrent: number): void {
    this.#wait = { maxConcurrent, from: this.#runtime.now(), to: undefined }
  }

  /** It has waited for a permit until now. */
  hasWaited(): void {
    if (this.#wait !== undefined) this.#wait.to = this.#runtime.now()
  }

  /** Cuts the call with a {@link CircuitTimeoutError}. */
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

  /** The call has ended, with this much left for a fallback. */
  end(fallbackApplies: boolean): void {
    this.isOver = true
    this.fallbackApplies = fallbackApplies
    this.dispose()
  }

  /** The call has ended, however it did: lets go of timers and listeners. */
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
