/**
 * The guard of one service: admits a call, runs its operation within its limits, and tells the circuit how it ended.
 *
 * Nothing in here is `async` that need not be: each turn of a promise costs as much as all the rest.
 *
 * @module
 */

import type { Circuit, ProbeLease } from '../circuit/circuit.ts'
import type { Failure, Verdict } from '../circuit/state-machine.ts'
import { BreakableResultError, ConcurrencyLimitError } from '../errors.ts'
import { abortedByCaller, describeFailure } from '../failures/classification.ts'
import { retryAfterOf } from '../failures/retry-after.ts'
import type { Runtime } from '../runtime.ts'
import type { Synchronizer } from '../sync/synchronizer.ts'
import { warnOfFairTime, warnOfReserve } from '../warnings.ts'
import { CallLimits, type OperationContext, UnboundContext } from './call-limits.ts'
import { type CallOptions, checkCall, type Operation } from './call-options.ts'
import type { Invocation } from './invocation.ts'
import type { Semaphore } from './semaphore.ts'

/** How a call ended, as far as the circuit is concerned. */
type Outcome = 'success' | 'failure' | 'ignored'

/** The things that a call holds while it runs. */
interface Admission {
  /** The period of the circuit in which it was admitted; `undefined`: its outcome counts for nothing. */
  readonly period: number | undefined
  /** When it was admitted, in milliseconds since the epoch, if it had to wait for nothing. */
  readonly at: number | undefined
  readonly lease: ProbeLease | undefined
  readonly holdsPermit: boolean
}

const settled = Promise.resolve()
/** Attached like `await`: also to a promise that has a `then` of its own. */
const thenOf = Promise.prototype.then
const noOptions: object = Object.freeze({})
const passThrough: Admission = { period: undefined, at: undefined, lease: undefined, holdsPermit: false }

/** An abort this close to the call's deadline is the deadline, in milliseconds. */
const deadlineTolerance = 50
/** How long a probe's lease lasts where no Lambda deadline bounds it, in milliseconds. */
const defaultLease = 30_000
/** With `cacheTtl: 0` the state is read in every invocation, and in one that is longer than this also within it. */
const longInvocation = 1_000

export class Guard {
  readonly circuit: Circuit
  readonly sync: Synchronizer
  readonly permits: Semaphore
  readonly #runtime: Runtime
  readonly #load: (sync: Synchronizer) => Promise<void>

  /** @param load reads the circuit, together with others that are due; never rejects */
  constructor(
    circuit: Circuit,
    sync: Synchronizer,
    permits: Semaphore,
    runtime: Runtime,
    load: (sync: Synchronizer) => Promise<void>,
  ) {
    this.circuit = circuit
    this.sync = sync
    this.permits = permits
    this.#runtime = runtime
    this.#load = load
  }

  /** Runs an operation; see `CircuitBreaker.call`. */
  call<T, F>(
    operation: Operation<T>,
    given: CallOptions<T, F> | undefined,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    const options: CallOptions<T, F> = given ?? noOptions
    const { settings } = this.circuit
    const timeout = options.timeout ?? settings.timeout
    // As with fetch, null is none.
    const signal = options.signal ?? undefined
    const fallback = options.fallback ?? undefined
    const isPlain = timeout === settings.timeout && signal === undefined && fallback === undefined
    try {
      if (!isPlain) checkCall(timeout, signal, fallback)
    } catch (error) {
      return Promise.reject(error)
    }
    const now = this.#runtime.now()
    const deadlineAt =
      invocation === undefined ? Number.POSITIVE_INFINITY : invocation.endsAt - settings.deadlineReserve
    const isOver = deadlineAt <= now || signal?.aborted === true
    const admission = isOver ? undefined : this.#admitAtOnce(invocation, now)
    if (typeof admission === 'string') {
      // Reject one turn later: Node tracks rejections without a handler, which costs more than the refusal.
      const refused = settled.then((): never => {
        throw this.circuit.refusal(admission, now)
      })
      return fallback === undefined ? refused : refused.catch(fallback)
    }
    const isBound = timeout !== false || signal !== undefined || deadlineAt !== Number.POSITIVE_INFINITY
    if (admission !== undefined && !isBound && fallback === undefined) {
      return this.#run(operation, options, invocation, admission)
    }
    const limits = new CallLimits(
      this.circuit.service,
      this.#runtime,
      timeout,
      signal,
      invocation,
      settings.deadlineReserve,
      now,
    )
    limits.start()
    const attempt =
      admission === undefined
        ? this.#admit(invocation, limits).then((later) => this.#runBound(operation, options, invocation, later, limits))
        : this.#runBound(operation, options, invocation, admission, limits)
    return fallback === undefined ? attempt : this.#replace(attempt, fallback, limits)
  }

  async #replace<T, F>(
    attempt: Promise<T>,
    fallback: (error: unknown) => PromiseLike<F> | F,
    limits: CallLimits,
  ): Promise<T | F> {
    let value: T
    try {
      value = await attempt
    } catch (error) {
      if (!limits.fallbackApplies) throw error
      return fallback(error)
    }
    return limits.fallbackApplies ? fallback(new BreakableResultError(this.circuit.service, value)) : value
  }

  /** Runs the operation of a call that nothing can cut. */
  #run<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
  ): Promise<T> {
    const succeeded = (value: T): T => {
      this.#settle(admission, this.#judgeValue(options, value), value, invocation, admission.at)
      return value
    }
    const failed = (error: unknown): never => {
      this.#settle(admission, this.#judgeError(options, error), error, invocation)
      throw error
    }
    return thenOf.call(begin(operation, new UnboundContext()), succeeded, failed) as Promise<T>
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
    if (limits.cut !== undefined) {
      limits.fallbackApplies = limits.hasTimedOut
      limits.dispose()
      this.#settle(admission, 'ignored', undefined, invocation)
      return Promise.reject(limits.cut.error)
    }
    return new Promise<T>((resolve, reject) => {
      let isOver = false
      const succeeded = (value: T): void => {
        if (isOver) return
        isOver = true
        const outcome = this.#judgeValue(options, value)
        limits.fallbackApplies = outcome === 'failure'
        limits.dispose()
        this.#settle(admission, outcome, value, invocation)
        resolve(value)
      }
      const failed = (error: unknown): void => {
        if (isOver) return
        isOver = true
        const outcome = this.#judgeBoundError(options, error, limits, invocation)
        limits.fallbackApplies = outcome === 'failure' || limits.hasTimedOut
        limits.dispose()
        this.#settle(admission, outcome, error, invocation)
        reject(error)
      }
      limits.markOperationStart(admission.at)
      thenOf.call(begin(operation, limits), succeeded as (value: unknown) => void, failed)
      limits.onCut(failed)
    })
  }

  // ---------------------------------------------------------------------------------------------------- admission

  /** The way of nearly every call: nothing to wait for. `undefined`: there is. A verdict: it is refused. */
  #admitAtOnce(invocation: Invocation | undefined, now: number): Admission | Exclude<Verdict, 'pass'> | undefined {
    const { circuit, sync } = this
    const { mode } = circuit.settings
    if (!sync.loadAttempted) return undefined
    if (mode === 'off') return passThrough
    if (this.#isStale(now, invocation)) void this.#load(sync)
    const verdict = circuit.admit(now)
    const takesPermit = mode === 'enforce'
    if (verdict !== 'pass') return takesPermit && verdict !== 'claim' ? verdict : undefined
    if (takesPermit && !this.permits.tryAcquire()) return undefined
    return { period: circuit.period, at: now, lease: undefined, holdsPermit: takesPermit }
  }

  /** Within an invocation `before` has read the circuits that were stale; later only those that have become so. */
  #isStale(now: number, invocation: Invocation | undefined): boolean {
    const { circuit, sync } = this
    if (!circuit.isStale(now) || sync.loading !== undefined) return false
    return circuit.settings.cacheTtl > 0 || invocation === undefined || now - invocation.startedAt > longInvocation
  }

  async #admit(invocation: Invocation | undefined, limits: CallLimits): Promise<Admission> {
    const { circuit, sync, permits } = this
    const enforces = circuit.settings.mode === 'enforce'
    let holdsPermit = false
    try {
      if (limits.cut !== undefined) {
        if (invocation !== undefined && limits.deadlineAt <= invocation.startedAt) warnOfReserve(circuit.settings)
        throw limits.cut.error
      }
      if (circuit.settings.mode === 'off') return passThrough
      if (!sync.loadAttempted) await limits.race(this.#load(sync))
      if (enforces) {
        const now = this.#runtime.now()
        const verdict = circuit.admit(now)
        // A refusal never queues.
        if (verdict !== 'pass' && verdict !== 'claim') throw circuit.refusal(verdict, now)
        if (!permits.tryAcquire()) await this.#waitForPermit(limits)
        holdsPermit = true
        // The permit may come from a call that was cut in this turn, in which this one's time is over too.
        const cut = limits.cutIfOver()
        if (cut !== undefined) throw cut.error
      }
      // A permit may have been waited for: the circuit of this moment decides.
      let verdict = circuit.admit(this.#runtime.now())
      let lease: ProbeLease | undefined
      if (verdict === 'claim') {
        lease = await this.#claim(invocation, limits)
        if (lease === undefined) verdict = circuit.admit(this.#runtime.now())
      }
      const isAdmitted = lease !== undefined || verdict === 'pass'
      if (!isAdmitted && enforces) throw circuit.refusal(verdict as Exclude<Verdict, 'pass'>, this.#runtime.now())
      return { period: isAdmitted ? circuit.period : undefined, at: undefined, lease, holdsPermit }
    } catch (error) {
      if (holdsPermit) permits.release()
      limits.fallbackApplies = limits.cut === undefined || limits.hasTimedOut
      limits.dispose()
      throw error
    }
  }

  async #waitForPermit(limits: CallLimits): Promise<void> {
    const { service, settings } = this.circuit
    const waiter = this.permits.join()
    if (waiter === undefined) throw new ConcurrencyLimitError(service, settings.maxConcurrent, settings.maxQueue || 0)
    try {
      await limits.race(waiter.granted)
    } catch (error) {
      waiter.leave()
      throw error
    }
  }

  async #claim(invocation: Invocation | undefined, limits: CallLimits): Promise<ProbeLease | undefined> {
    const timeLeft = invocation?.timeLeft() ?? Number.POSITIVE_INFINITY
    const duration = Number.isFinite(timeLeft) ? timeLeft : Math.max(defaultLease, limits.timeout || 0)
    const claiming = this.sync.claim(duration, invocation?.requestId)
    try {
      return await limits.race(claiming)
    } catch (error) {
      // The call was cut while it waited: the lease, if it comes, is given back.
      claiming.then((lease) => {
        if (lease !== undefined) this.#probeEnded(lease, 'release', this.#runtime.now(), undefined, undefined)
      })
      throw error
    }
  }

  // ----------------------------------------------------------------------------------------------------- outcomes

  #judgeValue<T, F>(options: CallOptions<T, F>, value: T): Outcome {
    return judge(options.isBreakableResult ?? this.circuit.settings.isBreakableResult, value) ? 'failure' : 'success'
  }

  /** The judgement of an error. */
  #judgeError<T, F>(options: CallOptions<T, F>, error: unknown): Outcome {
    return judge(options.isBreakableError ?? this.circuit.settings.isBreakableError, error) ? 'failure' : 'ignored'
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
      return 'ignored'
    }
    // A signal of the caller's that aborts when the deadline is due, as Middy's early timeout does, means the deadline.
    const isDeadlineDue = limits.deadlineAt - this.#runtime.now() <= deadlineTolerance
    if (abortedByCaller(error, options.signal)) return isDeadlineDue && limits.hadFairTime ? 'failure' : 'ignored'
    return this.#judgeError(options, error)
  }

  /** Gives everything back once, and lets the circuit learn. */
  #settle(
    { period, lease, holdsPermit }: Admission,
    outcome: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
    endedAt?: number | undefined,
  ): void {
    const { circuit } = this
    if (holdsPermit) this.permits.release()
    if (lease === undefined && (period === undefined || outcome === 'ignored')) return
    const isSuccess = outcome === 'success' && lease === undefined
    if (isSuccess && circuit.isQuiet && period === circuit.period) {
      // To read the clock again would cost as much as the rest: where nothing bounds a call, its beginning will do.
      circuit.callSucceededQuietly(endedAt ?? this.#runtime.now())
      return
    }
    const now = this.#runtime.now()
    const requestId = invocation?.requestId
    const failure: Failure | undefined =
      outcome === 'failure'
        ? { at: now, ...describeFailure(evidence), retryAfter: retryAfterOf(evidence, now) }
        : undefined
    if (lease !== undefined) {
      this.#probeEnded(lease, outcome === 'ignored' ? 'release' : outcome, now, failure, requestId)
    } else if (period !== undefined) {
      if (failure === undefined) circuit.callSucceeded(period, now, requestId)
      else circuit.callFailed(period, now, failure, requestId)
      void this.sync.drain()
    }
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

/** A classifier that throws has no opinion: the service's own answer reaches the caller. */
function judge<V>(counts: (value: V) => boolean, value: V): boolean {
  try {
    return counts(value) === true
  } catch (error) {
    process.emitWarning(`A circuit breaker classifier threw: ${textOf(error)}`, { code: 'CIRCUIT_CLASSIFIER' })
    return false
  }
}

/** A thrown value may be anything, and so refuse to be text. */
function textOf(error: unknown): string {
  try {
    return String(error)
  } catch {
    return 'something without a text'
  }
}
