/**
 * The guard of one service: has a call admitted, runs its operation within its limits, and tells the circuit how it ended.
 *
 * Nothing in here is `async` that need not be: each turn of a promise costs as much as all the rest.
 *
 * The file is longer than it should be. It has a short way for the calls of a healthy circuit, one for those that only the
 * deadline can cut, and one for all others. They end alike, so that they stay together.
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
  /** The number of the clock's reading when they began; 0: nobody wants to know. */
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
  /** The guard of the service as a whole, where this is the guard of a key; every call passes both. */
  readonly parent: Guard | undefined
  /** As in the settings, in milliseconds. */
  readonly deadlineReserve: number
  readonly #runtime: Runtime
  readonly #clock: TurnClock
  /** Whether a call without options has no limits but permits, so that a success teaches nothing. Ended by the gate. */
  #isPlain: boolean
  readonly #gate: Gate
  readonly #unbound: UnboundCalls
  /** The last reading of the clock, and the invocation, for which nothing is to be done before a call. Written by `#isReady`. */
  #readyAt = -1
  #readyFor: Invocation | undefined
  /** The time of that reading. It is undefined at first, so that V8 makes one object of it for all calls, and not one for each. */
  #readySince!: number
  /** What hears how calls end that both circuits have admitted in a period of the service's own. Written by `#hostWith`. */
  #both: (DeadlineHost & { readonly period: number }) | undefined
  /** The last reactions of calls that nothing could cut. Written by `#runPlain`. */
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
    // The way of nearly every call. It is kept short, so that the compiler makes one piece of it.
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

  /** The same for a key whose service is guarded as a whole, too: nearly every call finds both circuits quiet. */
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

  /** A call that nothing can cut. Calls of one period and invocation end alike: they share their reactions. */
  #runPlain<T>(operation: Operation<T>, invocation: Invocation | undefined): Promise<T> {
    const { period } = this.circuit
    // Where somebody wants to know how long they took, they also have to begin in the same turn.
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

  /** A call that its invocation's deadline can cut, and nothing else. */
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
    // The code is there before the operation begins: a stream may fail in the turn in which it is handed out.
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

  /** The answer to what is no call: the mistake is not the service's, and no fallback hides it. */
  async #refuseCall(operation: unknown, options: unknown): Promise<never> {
    const { refuseCall } = await import('./wrong-call.ts')
    return refuseCall(this.circuit, operation, options)
  }

  /** The service as a whole admits a call that the key has admitted; else the key gets back what the call holds. */
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

  /** A call of one of its keys was not admitted after all. */
  releaseBelow(admission: Admission, invocation: Invocation | undefined): void {
    this.#settle(admission, 'ignore', undefined, invocation)
  }

  /** The answer to a call that the circuit refuses. */
  #refuse<F>(
    verdict: Exclude<Verdict, 'pass'>,
    now: number,
    fallback: ((error: unknown) => PromiseLike<F> | F) | undefined,
    invocation: Invocation | undefined,
  ): Promise<F> {
    // Reject one turn later: Node tracks rejections without a handler, which costs more than the refusal.
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
    // A fallback that takes nothing cannot read the body, and may need its connection.
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

  /** The reactions to the end of an operation that nothing can cut. */
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

  /** Runs the operation of a call that ends when it is cut, whatever the operation does then. */
  #runBound<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
    limits: CallLimits,
  ): Promise<T> {
    // It may have been cut in the turn in which it got what it waited for.
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

  /** The reaction to the end of a body. It has a scope of its own, in which nothing keeps the body alive. */
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

  /** Starts the operation of a call that may lend its permit, and may run for ever. */
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

  /** Hears how calls end that both circuits have admitted in their present periods. */
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

  /** Whether the circuit was read and need not be read again, the deadline has not come, and no sample is to be taken. */
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

  /** The same for a call that may have been cut. */
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
    // A signal of the caller's that aborts when the deadline is due, as Middy's early timeout does, means the deadline.
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
    // Nobody has read the clock for a call that began before anybody subscribed, nor for one that passes straight through.
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

  /** Gives everything back once, and lets the circuit learn. */
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
   * Whether a failure says something of the service as a whole. That a key goes on failing does not: one dead tenant would open
   * the circuit of all. The failure of a probe of that circuit always does.
   */
  #isNews({ lease }: Admission, above: Admission): boolean {
    return above.lease !== undefined || (lease === undefined && !this.circuit.isFailingAt(this.#runtime.now()))
  }

  /** Whether a success leaves nothing to learn. */
  #changesNothing({ period, lease }: Admission): boolean {
    const { isQuiet, settings } = this.circuit
    return isQuiet && lease === undefined && period === this.circuit.period && settings.slowCallThreshold === false
  }

  /** Tells the circuit how the call ended. */
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

/** Attaches like `await`: also to a promise that has a `then` of its own. The compiler makes its own code of a plain `.then`. */
function react<T>(
  promise: Promise<unknown>,
  succeeded: (value: unknown) => unknown,
  failed: (error: unknown) => unknown,
) {
  const attached = promise.then === thenOf ? promise.then(succeeded, failed) : thenOf.call(promise, succeeded, failed)
  return attached as Promise<T>
}
