/**
 * The guard of one service: admits a call, runs its operation within its limits, and reports the outcome to the circuit.
 *
 * A function in this file is `async` only if it must be: each turn of a promise costs as much as the rest of a call.
 *
 * The file is longer than it should be, because it has three paths: for calls of a healthy circuit without limits, for calls
 * that only the deadline can end, and for all other calls. The paths share how calls end, so they stay in one file.
 *
 * @module
 */

import type { Circuit } from '../circuit/circuit.ts'
import type { Failure, Verdict } from '../circuit/state-machine.ts'
import { BreakableResultError } from '../errors.ts'
import { read } from '../failures/causes.ts'
import { abortedByCaller, describeFailure, type Outcome } from '../failures/classification.ts'
import { retryAfterOf } from '../failures/retry-after.ts'
import { hasOwnClock, type Runtime } from '../runtime.ts'
import { secondsOfCalls } from '../settings/table.ts'
import type { Synchronizer } from '../sync/synchronizer.ts'
import { callChannel, tellCall, tellRefusal } from '../telemetry/channels.ts'
import { warnOfFairTime, warnOfSeconds } from '../warnings.ts'
import { CallLimits } from './call-limits.ts'
import { type CallOptions, isCall, type Operation } from './call-options.ts'
import { DeadlineCall, type DeadlineHost } from './deadline-call.ts'
import { type Admission, Gate, passThrough } from './gate.ts'
import type { Invocation } from './invocation.ts'
import { judgeError, judgeResult } from './judgement.ts'
import type { Ending } from './observed-body.ts'
import { contextOf, type OperationContext, SharedContext } from './operation-context.ts'
import type { Semaphore } from './semaphore.ts'
import { SharedPermit } from './shared-permit.ts'
import { type TurnClock, turnClockOf } from './turn-clock.ts'
import { UnboundCalls } from './unbound-calls.ts'
import { bodies, letGo, loadBodies } from './unread.ts'

/** The reactions to the ends of operations. */
interface Reactions {
  readonly period: number
  /** The number of the clock's reading when the calls began; 0: no subscriber needs it. */
  readonly reading: number
  readonly invocation: Invocation | undefined
  readonly succeeded: (value: unknown) => unknown
  readonly failed: (error: unknown) => never
}

const settled = Promise.resolve()
const thenOf = Promise.prototype.then
const noOptions: object = Object.freeze({})

/** A success that took too long, as it is stored. */
const slow = { name: 'SlowCall' }

/** An abort this close to the call's deadline is the deadline, in milliseconds. */
const deadlineTolerance = 50

export class Guard implements DeadlineHost {
  readonly circuit: Circuit
  readonly sync: Synchronizer
  readonly permits: Semaphore
  /** For the guard of a key: the guard of the service as a whole. Every call passes both. */
  readonly parent: Guard | undefined
  /** As in the settings, in milliseconds. */
  readonly deadlineReserve: number
  readonly #runtime: Runtime
  readonly #clock: TurnClock
  /** Whether a call without options has no limit except permits, so that its success changes nothing. Ended by the gate. */
  #isPlain: boolean
  readonly #gate: Gate
  readonly #unbound: UnboundCalls
  /** The last reading of the clock, and the invocation, that need no work before a call. Written by `#isReady`. */
  #readyAt = -1
  #readyFor: Invocation | undefined
  /** The time of the last reading. It starts as undefined, so that V8 makes one object for all calls and not one for each. */
  #readySince!: number
  /** The host of calls that both circuits have admitted in one period of the service's own circuit. Written by `#hostWith`. */
  #both: (DeadlineHost & { readonly period: number }) | undefined
  /** The last reactions of calls without a limit. Written by `#runPlain`. */
  #reactions: Reactions | undefined
  /** The context of the next call without limits of its own. Written by `#contextFor`. */
  #context = new SharedContext(undefined)

  /** @param load reads the circuit, together with others that are due; never rejects */
  constructor(
    circuit: Circuit,
    sync: Synchronizer,
    permits: Semaphore,
    runtime: Runtime,
    load: (sync: Synchronizer) => Promise<void>,
    parent?: Guard,
  ) {
    this.parent = parent
    this.circuit = circuit
    this.sync = sync
    this.permits = permits
    this.#runtime = runtime
    this.#clock = turnClockOf(runtime)
    const onSharing = (): void => {
      this.#isPlain = false
    }
    this.#gate = new Gate(circuit, sync, permits, runtime, load, onSharing, parent)
    this.#unbound = new UnboundCalls(circuit.service, runtime)
    const { mode, timeout, slowCallThreshold, deadlineReserve } = circuit.settings
    this.deadlineReserve = deadlineReserve
    this.#isPlain = mode === 'enforce' && timeout === false && slowCallThreshold === false
  }

  /** Runs an operation; see `CircuitBreaker.call`. */
  call<T, F>(
    operation: Operation<T>,
    given: CallOptions<T, F> | undefined,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    const { circuit } = this
    // The path of nearly every call. It is short so that V8 can inline it.
    if (given === undefined && this.#isPlain && circuit.isQuiet && typeof operation === 'function') {
      const reading = this.#clock.reading()
      const isKnown = reading === this.#readyAt && invocation === this.#readyFor
      if ((isKnown || this.#isReady(reading, invocation)) && this.permits.takeSpare()) {
        return invocation === undefined || !invocation.hasDeadline
          ? this.#runPlain(operation, invocation)
          : this.#runUntilDeadline(operation, invocation, this)
      }
    }
    return this.#callWith(operation, given ?? noOptions, invocation)
  }

  /** The same for a key whose service also has a circuit: nearly every call finds both circuits closed and without a suspicion. */
  callBoth<T, F>(
    parent: Guard,
    operation: Operation<T>,
    given: CallOptions<T, F> | undefined,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    const isPlain = given === undefined && this.#isPlain && typeof operation === 'function'
    if (isPlain && this.circuit.isQuiet && parent.circuit.isQuiet && invocation?.hasDeadline === true) {
      const reading = this.#clock.reading()
      const isKnown = reading === this.#readyAt && invocation === this.#readyFor
      const isReady = isKnown || (parent.#isReady(reading, invocation) && this.#isReady(reading, invocation))
      if (isReady && this.permits.takeSpare()) {
        parent.permits.overdraw()
        return this.#runUntilDeadline(operation, invocation, this.#hostWith(parent))
      }
    }
    return this.#callWith(operation, given ?? noOptions, invocation)
  }

  /** A call without a limit. Calls of one period and invocation end in the same way, so they share their reactions. */
  #runPlain<T>(operation: Operation<T>, invocation: Invocation | undefined): Promise<T> {
    const { period } = this.circuit
    // If a subscriber needs their durations, they must also begin in the same turn.
    const reading = callChannel.hasSubscribers ? this.#readyAt : 0
    let reactions = this.#reactions
    if (reactions?.period !== period || reactions.invocation !== invocation || reactions.reading !== reading) {
      const at = reading === 0 ? 0 : this.#readySince
      const admission: Admission = { period, at, lease: undefined, permit: this.permits }
      reactions = { period, invocation, reading, ...this.#reactionsTo(noOptions, invocation, admission) }
      this.#reactions = reactions
    }
    return react(begin(operation, this.#contextFor(invocation).context), reactions.succeeded, reactions.failed)
  }

  /** A call that only its invocation's deadline can end. */
  #runUntilDeadline<T>(operation: Operation<T>, invocation: Invocation, host: DeadlineHost): Promise<T> {
    const shared = this.#contextFor(invocation)
    const call = new DeadlineCall(host, invocation, this.circuit.period, this.#readySince, shared)
    const answer = new Promise<T>((resolve, reject) => call.start(resolve, reject))
    react(
      begin(operation, shared.context),
      (value) => call.succeeded(value),
      (error) => call.failed(error),
    )
    return answer
  }

  #contextFor(invocation: Invocation | undefined): SharedContext {
    if (this.#context.isUsed || this.#context.invocation !== invocation) this.#context = new SharedContext(invocation)
    return this.#context
  }

  #callWith<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    const { circuit } = this
    const { settings } = circuit
    if (!isCall(operation, options, circuit.key !== undefined)) return this.#refuseCall(operation, options)
    const timeout = options.timeout ?? settings.timeout
    if (timeout !== false && timeout <= secondsOfCalls && timeout !== settings.timeout) this.#doubt(timeout)
    const signal = options.signal ?? undefined
    const fallback = options.fallback ?? undefined
    const until = options.until ?? undefined
    // Loads the code before the operation begins: a stream may fail in the turn in which the operation returns it.
    if (until !== undefined && bodies === undefined) {
      return loadBodies().then(() => this.#callWith(operation, options, invocation))
    }
    // A duration is measured from an instant, not from the beginning of the turn.
    const needsInstant =
      timeout !== false || !circuit.isQuiet || settings.slowCallThreshold !== false || callChannel.hasSubscribers
    const now = needsInstant ? this.#clock.instant() : this.#clock.now()
    const endsAt = invocation === undefined ? Number.POSITIVE_INFINITY : invocation.endsAt
    const isOver = endsAt - settings.deadlineReserve <= now || signal?.aborted === true
    let admission = isOver ? undefined : this.#gate.admitAtOnce(invocation, now)
    if (typeof admission === 'string') return this.#refuse(admission, now, fallback, invocation)
    if (this.parent !== undefined && admission !== undefined) {
      const both = this.#admitAbove(this.parent, admission, invocation, now)
      if (typeof both === 'string') return this.parent.#refuse(both, now, fallback, invocation)
      admission = both
    }
    const isBound =
      timeout !== false || signal !== undefined || endsAt !== Number.POSITIVE_INFINITY || until !== undefined
    if (admission !== undefined && !isBound && fallback === undefined) {
      return this.#runUnbound(operation, options, invocation, admission)
    }
    const limits = new CallLimits(circuit, this.#runtime, timeout, signal, invocation, settings.deadlineReserve, now)
    limits.start(this.#clock)
    const attempt =
      admission === undefined
        ? this.#gate.admit(invocation, limits, this.sync.loadAttempted).then(
            (later) => this.#runBound(operation, options, invocation, later, limits),
            (error) => this.#refuseLate(error, invocation, fallback !== undefined && limits.fallbackApplies),
          )
        : this.#runBound(operation, options, invocation, admission, limits)
    return fallback === undefined ? attempt : this.#replace(attempt, fallback, limits)
  }

  #doubt(timeout: number): void {
    if (hasOwnClock(this.#runtime)) warnOfSeconds(this.circuit.service, timeout)
  }

  /** Refuses an invalid call. The mistake does not count against the service, and no fallback hides it. */
  async #refuseCall(operation: unknown, options: unknown): Promise<never> {
    const { refuseCall } = await import('./wrong-call.ts')
    return refuseCall(this.circuit, operation, options)
  }

  /** Asks the service as a whole to admit a call that the key has admitted. If it refuses, the key gets its permit and lease back. */
  #admitAbove(
    parent: Guard,
    admission: Admission,
    invocation: Invocation | undefined,
    now: number,
  ): ReturnType<Gate['admitAtOnce']> {
    if (admission === passThrough) return admission
    const above = parent.#gate.admitAtOnce(invocation, now)
    if (typeof above === 'object') return { ...admission, above }
    this.#settle(admission, 'ignore', undefined, invocation)
    return above
  }

  /** Admits a call of one of its keys. */
  admitBelow(invocation: Invocation | undefined, limits: CallLimits): Promise<Admission> {
    return this.#gate.admit(invocation, limits, false)
  }

  /** A call of one of its keys was refused later. */
  releaseBelow(admission: Admission, invocation: Invocation | undefined): void {
    this.#settle(admission, 'ignore', undefined, invocation)
  }

  /** Refuses a call, or runs its fallback. */
  #refuse<F>(
    verdict: Exclude<Verdict, 'pass'>,
    now: number,
    fallback: ((error: unknown) => PromiseLike<F> | F) | undefined,
    invocation: Invocation | undefined,
  ): Promise<F> {
    // Reject one turn later: Node tracks rejections without a handler, and tracking costs more than the refusal.
    const refused = settled.then((): never => {
      const error = this.circuit.refusal(verdict, now)
      tellRefusal(this.circuit, error, invocation?.requestId, fallback !== undefined)
      throw error
    })
    return fallback === undefined ? refused : refused.catch(fallback)
  }

  /** A call that waited to be admitted has ended. */
  #refuseLate(error: unknown, invocation: Invocation | undefined, isReplaced: boolean): never {
    tellRefusal(this.circuit, error, invocation?.requestId, isReplaced)
    throw error
  }

  async #replace<T, F>(
    attempt: Promise<T>,
    fallback: (error: unknown) => PromiseLike<F> | F,
    limits: CallLimits,
  ): Promise<T | F> {
    let error: unknown
    let replaced: unknown
    try {
      replaced = await attempt
      if (!limits.fallbackApplies) return replaced as T
      error = new BreakableResultError(this.circuit.service, replaced, this.circuit.key)
    } catch (thrown) {
      if (!limits.fallbackApplies) throw thrown
      error = thrown
      replaced = read(thrown, 'response')
    }
    // A fallback without parameters cannot read the body, and may need its connection.
    if (fallback.length === 0) letGo(replaced)
    let answer: F | undefined
    try {
      answer = await fallback(error)
      return answer
    } finally {
      letGo(replaced, answer)
    }
  }

  #runUnbound<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
  ): Promise<T> {
    const { succeeded, failed } = this.#reactionsTo(options, invocation, admission)
    return react(this.#begin(operation, this.#contextFor(invocation).context, admission, false), succeeded, failed)
  }

  /** The reactions to the end of an operation without a limit. */
  #reactionsTo<T, F>(
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
  ): Pick<Reactions, 'succeeded' | 'failed'> {
    return {
      succeeded: (value) => {
        this.#finish(admission, this.#judgeValue(options, value as T), value, invocation)
        return value
      },
      failed: (error) => {
        this.#finish(admission, this.judgeError(options, error), error, invocation)
        throw error
      },
    }
  }

  /** Runs the operation of a call with limits. When a limit ends the call, the operation may still go on. */
  #runBound<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
    limits: CallLimits,
  ): Promise<T> {
    // A limit may have ended the call in the turn in which its wait ended.
    if (limits.cut !== undefined) return this.#giveUp(limits.cut.error, options, invocation, admission, limits)
    return new Promise<T>((resolve, reject) => {
      const succeeded = (value: T): void => {
        if (limits.isOver) {
          letGo(value)
          return
        }
        const outcome = this.#judgeValue(options, value)
        if (options.until === 'consumed' && bodies !== undefined && outcome === 'success') {
          resolve(
            bodies.watchBodies(value, limits, invocation, this.#bodyEnded(options, invocation, admission, limits)),
          )
          return
        }
        limits.end(outcome === 'failure')
        this.#finish(admission, outcome, value, invocation, options, limits)
        resolve(value)
      }
      const failed = (error: unknown): void => {
        if (limits.isOver) return
        const isHeldUp = limits.hasTimedOut && this.#gate.isHeldUp(admission.permit)
        const outcome = isHeldUp ? 'ignore' : this.#judgeBoundError(options, error, limits, invocation)
        limits.end(outcome === 'failure' || limits.hasTimedOut)
        this.#finish(admission, outcome, error, invocation, options, limits)
        reject(error)
      }
      limits.markOperationStart(admission === passThrough ? undefined : admission.at)
      const running = this.#begin(operation, contextOf(limits), admission, limits.isCuttable)
      react(running, succeeded as (value: unknown) => void, failed)
      limits.onCut(failed)
    })
  }

  /** The reaction to the end of a body. Its separate scope keeps no reference to the body. */
  #bodyEnded<T, F>(
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
    limits: CallLimits,
  ): (ending: Ending, error: unknown) => void {
    return (ending, error) => {
      const ended: Outcome = ending === 'consumed' ? 'success' : 'ignore'
      const outcome = ending === 'failed' ? this.#judgeBoundError(options, error, limits, invocation) : ended
      limits.end(false)
      this.#finish(admission, outcome, error, invocation)
    }
  }

  /** Starts the operation of a call that may lend its permit. A call without a limit is watched. */
  #begin<T>(operation: Operation<T>, context: OperationContext, admission: Admission, isBound: boolean): Promise<T> {
    const { permit } = admission
    const running = permit instanceof SharedPermit ? permit.run(begin, operation, context) : begin(operation, context)
    if (!isBound && admission !== passThrough) this.#unbound.watch(running)
    return running
  }

  #giveUp<T, F>(
    error: unknown,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
    limits: CallLimits,
  ): Promise<never> {
    limits.end(limits.hasTimedOut)
    tellRefusal(this.circuit, error, invocation?.requestId, limits.fallbackApplies && options.fallback != null)
    this.#settle(admission, 'ignore', undefined, invocation)
    return Promise.reject(error)
  }

  // ------------------------------------------------------------------------------------- calls until the deadline

  /** Called by {@link DeadlineCall}, as the next three are. */
  limitsOf(invocation: Invocation, startedAt: number): CallLimits {
    const { circuit } = this
    const { deadlineReserve } = circuit.settings
    return new CallLimits(circuit, this.#runtime, false, undefined, invocation, deadlineReserve, startedAt)
  }

  callSucceeded(call: DeadlineCall, value: unknown): void {
    this.#ended(call, this.#judgeValue(noOptions, value), value)
  }

  callFailed(call: DeadlineCall, error: unknown): void {
    this.#ended(call, this.judgeError(noOptions, error), error)
  }

  callWasCut(call: DeadlineCall, error: unknown, limits: CallLimits): void {
    this.#ended(call, this.#judgeCut(call, error, limits), error)
  }

  #judgeCut(call: DeadlineCall, error: unknown, limits: CallLimits): Outcome {
    const isHeldUp = this.#gate.isHeldUp(this.permits)
    return isHeldUp ? 'ignore' : this.#judgeBoundError(noOptions, error, limits, call.invocation)
  }

  /** The host of calls that both circuits have admitted in their present periods. */
  #hostWith(parent: Guard): DeadlineHost {
    const { period } = parent.circuit
    if (this.#both?.period === period) return this.#both
    const ended = (call: DeadlineCall, outcome: Outcome, evidence: unknown): void =>
      this.#endedBoth(parent, period, call, outcome, evidence)
    this.#both = {
      period,
      deadlineReserve: this.deadlineReserve,
      limitsOf: (invocation, startedAt) => this.limitsOf(invocation, startedAt),
      callSucceeded: (call, value) => ended(call, this.#judgeValue(noOptions, value), value),
      callFailed: (call, error) => ended(call, this.judgeError(noOptions, error), error),
      callWasCut: (call, error, limits) => ended(call, this.#judgeCut(call, error, limits), error),
    }
    return this.#both
  }

  #endedBoth(parent: Guard, periodAbove: number, call: DeadlineCall, outcome: Outcome, evidence: unknown): void {
    const { period, startedAt, invocation } = call
    if (callChannel.hasSubscribers) this.#tell(startedAt, outcome, evidence, invocation, false)
    if (outcome === 'success' && this.#isStillQuiet(period) && parent.#isStillQuiet(periodAbove)) {
      this.permits.release()
      parent.permits.release()
      return
    }
    const above: Admission = { period: periodAbove, at: startedAt, lease: undefined, permit: parent.permits }
    this.#settle(
      { period, at: startedAt, lease: undefined, permit: this.permits, above },
      outcome,
      evidence,
      invocation,
    )
  }

  #isStillQuiet(period: number): boolean {
    return this.circuit.isQuiet && period === this.circuit.period
  }

  #ended({ period, startedAt, invocation }: DeadlineCall, outcome: Outcome, evidence: unknown): void {
    if (callChannel.hasSubscribers) this.#tell(startedAt, outcome, evidence, invocation, false)
    if (outcome === 'success' && this.circuit.isQuiet && period === this.circuit.period) this.permits.release()
    else this.#settle({ period, at: startedAt, lease: undefined, permit: this.permits }, outcome, evidence, invocation)
  }

  /** Whether the circuit needs no read, the deadline has not passed, and no sample is due. */
  #isReady(reading: number, invocation: Invocation | undefined): boolean {
    const now = this.#clock.at
    if (invocation !== undefined && invocation.endsAt - this.deadlineReserve <= now) return false
    if (!this.sync.loadAttempted || this.#gate.isStale(now, invocation)) return false
    if (invocation?.hasDeadline !== true && this.#unbound.takesSample(now)) return false
    this.#readyAt = reading
    this.#readySince = now
    this.#readyFor = invocation
    return true
  }

  // ----------------------------------------------------------------------------------------------------- outcomes

  #judgeValue<T, F>(options: CallOptions<T, F>, value: T): Outcome {
    const { service, settings } = this.circuit
    return judgeResult(service, options.isBreakableResult ?? settings.isBreakableResult, value)
  }

  /** The judgement of an error. */
  judgeError<T, F>(options: CallOptions<T, F>, error: unknown): Outcome {
    const { service, settings } = this.circuit
    return judgeError(service, options.isBreakableError ?? settings.isBreakableError, error)
  }

  /** The judgement of an error of a call that a limit may have ended. */
  #judgeBoundError<T, F>(
    options: CallOptions<T, F>,
    error: unknown,
    limits: CallLimits,
    invocation: Invocation | undefined,
  ): Outcome {
    if (limits.hasTimedOut && limits.cut?.error === error) {
      if (limits.hadFairTime) return 'failure'
      if (invocation !== undefined && limits.deadlineAt - invocation.startedAt < limits.fairTime) {
        warnOfFairTime(this.circuit.service, this.circuit.settings, limits.fairTime)
      }
      return 'ignore'
    }
    // If the caller's signal aborts at the deadline, as Middy's early timeout does, the deadline has ended the call.
    const isDeadlineDue = limits.deadlineAt - this.#runtime.now() <= deadlineTolerance
    if (abortedByCaller(error, options.signal)) return isDeadlineDue && limits.hadFairTime ? 'failure' : 'ignore'
    return this.judgeError(options, error)
  }

  /** A call has ended whose operation was started. */
  #finish<T, F>(
    admission: Admission,
    outcome: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
    options?: CallOptions<T, F>,
    limits?: CallLimits,
  ): void {
    // The start is unknown for a call that began before the first subscription, or that `mode: 'off'` let through.
    if (admission.at !== 0 && callChannel.hasSubscribers) {
      const isReplaced = limits?.fallbackApplies === true && options?.fallback != null
      this.#tell(admission.at, outcome, evidence, invocation, isReplaced)
    }
    this.#settle(admission, outcome, evidence, invocation)
  }

  #tell(
    startedAt: number,
    outcome: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
    isReplaced: boolean,
  ): void {
    const duration = Math.max(0, this.#clock.now() - startedAt)
    const isSlow = outcome === 'success' && this.#isSlow(duration)
    const failure = isSlow ? slow : outcome === 'success' ? undefined : describeFailure(evidence)
    tellCall(this.circuit, isSlow ? 'failure' : outcome, failure, duration, invocation?.requestId, isReplaced)
  }

  /** Gives permits and leases back once, and reports the outcome to the circuit. */
  #settle(admission: Admission, outcome: Outcome, evidence: unknown, invocation: Invocation | undefined): void {
    admission.permit?.release()
    if (this.parent !== undefined) this.#settleAbove(this.parent, admission, outcome, evidence, invocation)
    if (outcome === 'success' && this.#changesNothing(admission)) return
    this.#learn(admission, outcome, evidence, invocation)
  }

  #settleAbove(
    parent: Guard,
    admission: Admission,
    outcome: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
  ): void {
    const { above } = admission
    if (above === undefined) return
    const isSlowOne = outcome === 'success' && this.#isSlow(this.#runtime.now() - admission.at)
    const isNews = !(outcome === 'failure' || isSlowOne) || this.#isNews(admission, above)
    parent.#settle(above, isNews ? outcome : 'ignore', evidence, invocation)
  }

  /**
   * Whether a failure counts for the service as a whole. Further failures of a failing key do not count: one dead tenant would open
   * the circuit of all. The failure of a probe of the service's own circuit always counts.
   */
  #isNews({ lease }: Admission, above: Admission): boolean {
    return above.lease !== undefined || (lease === undefined && !this.circuit.isFailingAt(this.#runtime.now()))
  }

  /** Whether a success changes nothing for the circuit. */
  #changesNothing({ period, lease }: Admission): boolean {
    const { isQuiet, settings } = this.circuit
    return isQuiet && lease === undefined && period === this.circuit.period && settings.slowCallThreshold === false
  }

  /** Reports the outcome of the call to the circuit. */
  #learn(
    { period, at, lease }: Admission,
    given: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
  ): void {
    if (lease === undefined && (period === undefined || given === 'ignore')) return
    const { circuit } = this
    const now = this.#runtime.now()
    const isSlow = given === 'success' && this.#isSlow(now - at)
    const outcome = isSlow ? 'failure' : given
    if (outcome === 'success' && lease === undefined && circuit.isQuiet && period === circuit.period) return
    const requestId = invocation?.requestId
    const failure: Failure | undefined =
      outcome === 'failure'
        ? { at: now, ...(isSlow ? slow : describeFailure(evidence)), retryAfter: retryAfterOf(evidence, now) }
        : undefined
    if (lease !== undefined) {
      this.#probeEnded(lease, outcome === 'ignore' ? 'release' : outcome, now, failure, requestId)
    } else if (period !== undefined) {
      if (failure === undefined) circuit.callSucceeded(period, now, requestId)
      else circuit.callFailed(period, now, failure, requestId, at)
      void this.sync.drain()
    }
  }

  /** Whether a success took so long that it counts as a failure. */
  #isSlow(duration: number): boolean {
    const { slowCallThreshold } = this.circuit.settings
    return slowCallThreshold !== false && duration > slowCallThreshold
  }

  #probeEnded(...ended: Parameters<Circuit['probeEnded']>): void {
    this.circuit.probeEnded(...ended)
    void this.sync.drain()
  }
}

/** Starts the operation; an error that it throws is a rejection. */
function begin<T>(operation: Operation<T>, context: OperationContext): Promise<T> {
  try {
    return Promise.resolve(operation(context))
  } catch (error) {
    return Promise.reject(error)
  }
}

/** Attaches reactions like `await`, also to a promise with a `then` of its own. V8 optimises a plain `.then`. */
function react<T>(
  promise: Promise<unknown>,
  succeeded: (value: unknown) => unknown,
  failed: (error: unknown) => unknown,
) {
  const attached = promise.then === thenOf ? promise.then(succeeded, failed) : thenOf.call(promise, succeeded, failed)
  return attached as Promise<T>
}
