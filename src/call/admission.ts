/**
 * The admission of calls to one service: whether the circuit lets a call pass, and what the call has to wait for.
 *
 * @module
 */

import type { Circuit, ProbeLease } from '../circuit/circuit.ts'
import type { Verdict } from '../circuit/state-machine.ts'
import { ConcurrencyLimitError } from '../errors.ts'
import type { Runtime } from '../runtime.ts'
import type { Synchronizer } from '../sync/synchronizer.ts'
import { warnOfReserve } from '../warnings.ts'
import type { CallLimits } from './call-limits.ts'
import type { Invocation } from './invocation.ts'
import type { Semaphore } from './semaphore.ts'

export /** The things that a call holds while it runs. */
interface Admission {
  /** The period of the circuit in which it was admitted; `undefined`: its outcome counts for nothing. */
  readonly period: number | undefined
  /** When it was admitted, in milliseconds since the epoch. */
  readonly at: number
  readonly lease: ProbeLease | undefined
  readonly holdsPermit: boolean
}

export const passThrough: Admission = { period: undefined, at: 0, lease: undefined, holdsPermit: false }

/** How long a probe's lease lasts where neither a timeout nor a Lambda deadline bounds it, in milliseconds. */
const unboundedLease = 30_000
/** The time to store how a probe ended, after the timeout of its call, in milliseconds. */
const settlingTime = 5_000
/** With `cacheTtl: 0` the state is read in every invocation, and in one that is longer than this also within it. */
const longInvocation = 1_000

export class Gate {
  readonly #circuit: Circuit
  readonly #sync: Synchronizer
  readonly #permits: Semaphore
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
    this.#circuit = circuit
    this.#sync = sync
    this.#permits = permits
    this.#runtime = runtime
    this.#load = load
  }

  /** The way of nearly every call: nothing to wait for. `undefined`: there is. A verdict: it is refused. */
  admitAtOnce(invocation: Invocation | undefined, now: number): Admission | Exclude<Verdict, 'pass'> | undefined {
    const circuit = this.#circuit
    const sync = this.#sync
    const { mode } = circuit.settings
    if (!sync.loadAttempted) return undefined
    if (mode === 'off') return passThrough
    if (this.isStale(now, invocation)) void this.#load(sync)
    const verdict = circuit.admit(now)
    const takesPermit = mode === 'enforce'
    if (verdict !== 'pass') return takesPermit && verdict !== 'claim' ? verdict : undefined
    if (takesPermit && !this.#permits.tryAcquire()) return undefined
    return { period: this.#started(now, invocation), at: now, lease: undefined, holdsPermit: takesPermit }
  }

  /** A call begins: the period that it has to remember. */
  #started(now: number, invocation: Invocation | undefined): number {
    const circuit = this.#circuit
    const sync = this.#sync
    if (circuit.isQuiet) return circuit.period
    const period = circuit.callStarted(now, invocation?.requestId)
    void sync.drain()
    return period
  }

  /** Within an invocation `before` has read the circuits that were stale; later only those that have become so. */
  isStale(now: number, invocation: Invocation | undefined): boolean {
    const circuit = this.#circuit
    const sync = this.#sync
    if (!circuit.isStale(now) || sync.loading !== undefined) return false
    return circuit.settings.cacheTtl > 0 || invocation === undefined || now - invocation.startedAt > longInvocation
  }

  /** The way of a call that has to wait for something. */
  async admit(invocation: Invocation | undefined, limits: CallLimits): Promise<Admission> {
    const circuit = this.#circuit
    const sync = this.#sync
    const permits = this.#permits
    const enforces = circuit.settings.mode === 'enforce'
    let holdsPermit = false
    try {
      if (limits.cut !== undefined) {
        if (invocation !== undefined && limits.deadlineAt <= invocation.startedAt) warnOfReserve(circuit.settings)
        throw limits.cut.error
      }
      if (circuit.settings.mode === 'off') return passThrough
      // The lot of a ramp is drawn once: where the state was known, `admitAtOnce` has done so.
      const hasDrawn = sync.loadAttempted
      if (!hasDrawn) await limits.race(sync.waitForRead(this.#load(sync), limits.timeLeft))
      if (enforces) {
        const now = this.#runtime.now()
        const verdict = circuit.admit(now)
        const isAdmitted = verdict === 'pass' || verdict === 'claim' || (verdict === 'ramping' && hasDrawn)
        // A refusal never queues.
        if (!isAdmitted) throw circuit.refusal(verdict, now)
        if (!permits.tryAcquire()) await this.#waitForPermit(limits)
        holdsPermit = true
        // The permit may come from a call that was cut in this turn, in which this one's time is over too.
        const cut = limits.cutIfOver()
        if (cut !== undefined) throw cut.error
      }
      // A permit may have been waited for: the circuit of this moment decides.
      let verdict = circuit.admit(this.#runtime.now())
      if (verdict === 'ramping') verdict = 'pass'
      let lease: ProbeLease | undefined
      if (verdict === 'claim') {
        lease = await this.#claim(invocation, limits)
        if (lease === undefined) verdict = circuit.admit(this.#runtime.now())
      }
      const isAdmitted = lease !== undefined || verdict === 'pass'
      if (!isAdmitted && enforces) throw circuit.refusal(verdict as Exclude<Verdict, 'pass'>, this.#runtime.now())
      const at = this.#runtime.now()
      const period = isAdmitted ? this.#started(at, invocation) : undefined
      return { period, at, lease, holdsPermit }
    } catch (error) {
      if (holdsPermit) permits.release()
      limits.end(limits.cut === undefined || limits.hasTimedOut)
      throw error
    }
  }

  async #waitForPermit(limits: CallLimits): Promise<void> {
    const { service, settings } = this.#circuit
    const waiter = this.#permits.join()
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
    const callTime = limits.timeout === false ? Number.POSITIVE_INFINITY : limits.timeout + settlingTime
    const longest = Math.min(timeLeft, callTime)
    const duration = Number.isFinite(longest) ? longest : unboundedLease
    // Half of its time: a lease that is never granted in time would keep the circuit open for ever.
    const claiming = this.#sync.claim(duration, invocation?.requestId, limits.timeLeft / 2)
    try {
      return await limits.race(claiming)
    } catch (error) {
      // The call was cut while it waited: the lease, if it comes, is given back.
      claiming.then((lease) => {
        if (lease === undefined) return
        this.#circuit.probeEnded(lease, 'release', this.#runtime.now(), undefined, undefined)
        void this.#sync.drain()
      })
      throw error
    }
  }
}
