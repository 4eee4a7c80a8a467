/**
 * What can end a call from outside: its own `timeout`, the deadline of the Lambda invocation, the caller's signal.
 *
 * @module
 */

import { longestTimer } from './config.ts'
import { CircuitTimeoutError, type TimeoutReason } from './errors.ts'
import { graceAfter, type Runtime, type TimerHandle } from './runtime.ts'

/** What an operation receives. */
export interface OperationContext {
  /**
   * Aborted when the call is cut, with the error that the caller gets as its reason. Pass it on to whatever does the
   * work: `fetch(url, { signal })`. It is created when it is first read, because it costs more than the rest of the
   * guard.
   */
  readonly signal: AbortSignal
}

/** The part of a Lambda context that tells how much time is left. */
export interface TimeSource {
  getRemainingTimeInMillis?: (() => number) | undefined
  /** Middy's durable contexts keep Lambda's own context here. */
  readonly lambdaContext?:
    | { getRemainingTimeInMillis?: (() => number) | undefined; readonly awsRequestId?: string | undefined }
    | undefined
  readonly awsRequestId?: string | undefined
}

/** What the operation of a call receives that nothing can cut: its signal is never aborted. */
export class UnboundContext implements OperationContext {
  #controller: AbortController | undefined

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    return this.#controller.signal
  }
}

/** One Lambda invocation: its request id and its deadline, with one timer for all of its calls. */
export class Invocation {
  readonly requestId: string | undefined
  readonly startedAt: number
  readonly #runtime: Runtime
  readonly #endsAt: number
  /** The calls that are under way, as a list that each of them can leave at once: a `Set` would cost half of a call. */
  #first: CallScope | undefined
  #hasEnded = false
  #timer: TimerHandle | undefined
  #timerAt = Number.POSITIVE_INFINITY
  /** Whether the timer was late and this is the time that it gives. */
  #isGrace = false

  constructor(context: TimeSource, runtime: Runtime) {
    this.requestId = context.awsRequestId ?? context.lambdaContext?.awsRequestId
    this.#runtime = runtime
    this.startedAt = runtime.now()
    this.#endsAt = this.startedAt + remainingTime(context)
  }

  /** What the invocation has left, in milliseconds; `Infinity` if it has no deadline. */
  timeLeft(): number {
    return this.#endsAt - this.#runtime.now()
  }

  /** When Lambda kills the process, in milliseconds since the epoch; `Infinity` if nobody knows. */
  get endsAt(): number {
    return this.#endsAt
  }

  /** The invocation's timer cuts this call at its deadline. */
  watch(call: CallScope): void {
    const first = this.#first
    call.next = first
    if (first !== undefined) first.previous = call
    this.#first = call
    call.isWatched = true
    if (call.deadline < this.#timerAt) this.#schedule(call.deadline)
    else if (first === undefined) this.#timer?.ref?.()
  }

  /** The call has ended. */
  unwatch(call: CallScope): void {
    if (!call.isWatched) return
    call.isWatched = false
    const { previous, next } = call
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    call.previous = undefined
    call.next = undefined
    if (this.#first !== undefined) return
    // Kept for the next call, but not what holds the process.
    if (this.#hasEnded) this.#clear()
    else this.#timer?.unref?.()
  }

  /** Whether it has ended: from then on Lambda may freeze the process. */
  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** The invocation has ended; calls that nobody awaits are still cut at the deadline. */
  end(): void {
    this.#hasEnded = true
    if (this.#first === undefined) this.#clear()
  }

  #schedule(at: number, now: number = this.#runtime.now()): void {
    this.#clear()
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
      for (let call: CallScope | undefined = this.#first; call !== undefined; call = call.next) {
        if (call.deadline <= now) call.stall()
      }
      const left = this.#endsAt - now
      this.#schedule(now + (left > 0 ? Math.min(grace, left / 2) : grace), now)
      this.#isGrace = true
      return
    }
    // A call that is cut leaves the list, and what listens to its signal may begin and end others.
    const calls: CallScope[] = []
    for (let call = this.#first; call !== undefined; call = call.next) calls.push(call)
    for (const call of calls) if (call.deadline <= now) call.timeOut('deadline')
    let next = Number.POSITIVE_INFINITY
    for (let call = this.#first; call !== undefined; call = call.next) {
      if (call.deadline > now) next = Math.min(next, call.deadline)
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
    // What stands in for Lambda's context may be anything.
  }
  return typeof remaining === 'number' && !Number.isNaN(remaining) ? remaining : Number.POSITIVE_INFINITY
}

/** An operation that ran this long was given a fair time, where no timeout says so, in milliseconds. */
const fairTime = 1_000

/** One call, while it can be cut. It is what the operation receives. */
export class CallScope implements OperationContext {
  /** When the invocation's time for this call is over, in milliseconds since the epoch. */
  readonly deadline: number
  /** When the call began, in milliseconds since the epoch. */
  readonly startedAt: number
  /** How long it may take, in milliseconds. */
  readonly timeout: number | false
  /** Whether a fallback may answer in place of what the call came to. */
  isReplaceable = false
  /** Its place among the calls of its invocation, which alone writes this. */
  isWatched = false
  previous: CallScope | undefined
  next: CallScope | undefined
  readonly #service: string
  readonly #runtime: Runtime
  readonly #callerSignal: AbortSignal | undefined
  readonly #invocation: Invocation | undefined
  #timer: TimerHandle | undefined
  #controller: AbortController | undefined
  #cut: { readonly error: unknown; readonly by: TimeoutReason | 'caller' } | undefined
  #reject: ((error: unknown) => void) | undefined
  #operationStartedAt: number | undefined
  #onCallerAbort: (() => void) | undefined
  #hasHadGrace = false
  #wasFrozen = false

  constructor(
    service: string,
    runtime: Runtime,
    timeout: number | false,
    callerSignal: AbortSignal | undefined,
    invocation: Invocation | undefined,
    deadlineReserve: number,
    startedAt: number = runtime.now(),
  ) {
    this.#service = service
    this.#runtime = runtime
    this.startedAt = startedAt
    this.timeout = timeout
    this.#callerSignal = callerSignal
    this.deadline = invocation === undefined ? Number.POSITIVE_INFINITY : invocation.endsAt - deadlineReserve
    this.#invocation = this.deadline === Number.POSITIVE_INFINITY ? undefined : invocation
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#cut !== undefined) this.#controller.abort(this.#cut.error)
    }
    return this.#controller.signal
  }

  /** What cut the call, if anything did. */
  get cut(): { readonly error: unknown } | undefined {
    return this.#cut
  }

  /** Whether the call was cut by its timeout or by the invocation's deadline. */
  get hasTimedOut(): boolean {
    return this.#cut !== undefined && this.#cut.by !== 'caller'
  }

  /**
   * How long the operation must have run for a call that was cut to say something of the service, in milliseconds: half of
   * its timeout, or a second where it has none. The rest may have gone into waiting for a permit, or not have been there
   * before the invocation's deadline.
   */
  get fairTime(): number {
    return this.timeout === false ? fairTime : this.timeout / 2
  }

  /** Whether it ran for that long. Nobody knows how much of the time a process had that was frozen. */
  get hadFairTime(): boolean {
    if (this.#operationStartedAt === undefined || this.#wasFrozen) return false
    return this.#runtime.now() - this.#operationStartedAt >= this.fairTime
  }

  /** Starts to watch the clock and the caller's signal. May cut the call at once. */
  start(): void {
    const signal = this.#callerSignal
    if (signal !== undefined) {
      if (signal.aborted) {
        this.#cutBy('caller', signal.reason)
        return
      }
      this.#onCallerAbort = () => this.#cutBy('caller', signal.reason)
      signal.addEventListener('abort', this.#onCallerAbort, { once: true })
    }
    if (this.#invocation !== undefined) {
      if (this.deadline <= this.startedAt) {
        this.timeOut('deadline')
        return
      }
      this.#invocation.watch(this)
    }
    if (this.timeout !== false) {
      this.#timer = this.#runtime.setTimeout(() => this.#timeIsOver(), this.timeout)
    }
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
    const isCuttable = this.timeout !== false || this.#invocation !== undefined || this.#callerSignal !== undefined
    if (!isCuttable) return step
    return new Promise<T>((resolve, reject) => {
      Promise.resolve(step).then(resolve, reject)
      if (this.#cut !== undefined) reject(this.#cut.error)
      else this.#reject = reject
    })
  }

  /** Its timer was late. Lambda freezes the process between invocations; within one, the process was busy. */
  stall(): void {
    this.#wasFrozen ||= this.#invocation?.hasEnded === true
  }

  /** After a freeze the answer may lie in the socket: it is given the time to arrive. */
  #timeIsOver(): void {
    const grace = graceAfter(this.#runtime.now() - this.startedAt - (this.timeout || 0))
    if (grace > 0 && !this.#hasHadGrace) {
      this.#hasHadGrace = true
      this.stall()
      this.#timer = this.#runtime.setTimeout(() => this.timeOut('timeout'), grace)
    } else {
      this.timeOut('timeout')
    }
  }

  /** Calls `listener` with the error when the call is cut, at once if it has been. In place of whoever waited before. */
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
    else if (now >= this.deadline) this.timeOut('deadline')
    return this.#cut
  }

  /** Cuts the call with a {@link CircuitTimeoutError}. */
  timeOut(reason: TimeoutReason): void {
    const end = reason === 'timeout' ? this.startedAt + (this.timeout || 0) : this.deadline
    const attempted = this.#operationStartedAt !== undefined
    const timeout = Math.max(0, end - this.startedAt)
    this.#cutBy(reason, new CircuitTimeoutError({ service: this.#service, reason, timeout, attempted }))
  }

  /** The call has ended, however it did: lets go of timers and listeners. */
  dispose(): void {
    if (this.#timer !== undefined) this.#runtime.clearTimeout(this.#timer)
    this.#invocation?.unwatch(this)
    if (this.#onCallerAbort !== undefined) this.#callerSignal?.removeEventListener('abort', this.#onCallerAbort)
  }

  #cutBy(by: TimeoutReason | 'caller', error: unknown): void {
    if (this.#cut !== undefined) return
    this.#cut = { error, by }
    this.#controller?.abort(error)
    this.#reject?.(error)
  }
}
