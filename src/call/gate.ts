/**
 * Admits calls to one service: asks the circuit, and makes calls wait for the store, a permit or a probe's lease.
 *
 * @module
 */

import type { Circuit } from '../circuit/circuit.ts'
import type { ProbeLease } from '../circuit/probe-claims.ts'
import type { Verdict } from '../circuit/state-machine.ts'
import { ConcurrencyLimitError } from '../errors.ts'
import type { Runtime } from '../runtime.ts'
import type { Synchronizer } from '../sync/synchronizer.ts'
import { refusalChannel, tellRefusal } from '../telemetry/channels.ts'
import { warnOfCrowd, warnOfReserve } from '../warnings.ts'
import type { CallLimits } from './call-limits.ts'
import type { Invocation } from './invocation.ts'
import type { Permit, Semaphore } from './semaphore.ts'
import { SharedPermit } from './shared-permit.ts'

export /** The things that a call holds while it runs. */
interface Admission {
  /** The period of the circuit that admitted the call; `undefined`: its outcome is not counted. */
  readonly period: number | undefined
  /** When the call was admitted, in milliseconds since the epoch. */
  readonly at: number
  readonly lease: ProbeLease | undefined
  readonly permit: Permit | undefined
  /** For a circuit of a key: the same call's admission by the service's own circuit. */
  readonly above?: Admission | undefined
}

/** The guard of the service as a whole, for the gates of its keys. */
export interface Above {
  admitBelow(invocation: Invocation | undefined, limits: CallLimits): Promise<Admission>
  releaseBelow(admission: Admission, invocation: Invocation | undefined): void
}

export const passThrough: Admission = { period: undefined, at: 0, lease: undefined, permit: undefined }

/** How long a probe's lease lasts without a timeout and a Lambda deadline, in milliseconds. */
const unboundedLease = 30_000
/** The extra time of a lease after the timeout of its call, to store the outcome of the probe, in milliseconds. */
const settlingTime = 5_000
/** With `cacheTtl: 0` every invocation reads the state. An invocation that is longer than this reads it again, in milliseconds. */
const longInvocation = 1_000

export class Gate {
  readonly #circuit: Circuit
  readonly #sync: Synchronizer
  readonly #permits: Semaphore
  readonly #runtime: Runtime
  readonly #load: (sync: Synchronizer) => Promise<void>
  readonly #onSharing: () => void
  readonly #above: Above | undefined
  /** The permit that can be lent while none is free. Written by `#lendable`. */
  #lender: SharedPermit | undefined
  /** Whether every call may lend its permit. Set by `#shareAll`. */
  #sharesAll = false
  /** Whether calls within other calls have occurred. Set when such a call borrows a permit. */
  #hasNested = false

  /**
   * @param load reads the circuit, together with others that are due; never rejects
   * @param above the guard of the whole service, which also admits each call
   * @param onSharing called when no further call may pass by `admitAtOnce`
   */
  constructor(
    circuit: Circuit,
    sync: Synchronizer,
    permits: Semaphore,
    runtime: Runtime,
    load: (sync: Synchronizer) => Promise<void>,
    onSharing: () => void,
    above: Above | undefined,
  ) {
    this.#above = above
    this.#circuit = circuit
    this.#sync = sync
    this.#permits = permits
    this.#runtime = runtime
    this.#load = load
    this.#onSharing = onSharing
  }

  /** The path of nearly every call, which has nothing to wait for. `undefined`: the call has to wait. A verdict: the call is refused. */
  admitAtOnce(invocation: Invocation | undefined, now: number): Admission | Exclude<Verdict, 'pass'> | undefined {
    const circuit = this.#circuit
    const sync = this.#sync
    const { mode } = circuit.settings
    if (!sync.loadAttempted) return undefined
    if (mode === 'off') return passThrough
    if (this.isStale(now, invocation)) void this.#load(sync)
    const verdict = circuit.admit(now)
    const enforces = mode === 'enforce'
    if (verdict !== 'pass') return enforces && verdict !== 'claim' ? verdict : undefined
    const permit = enforces ? this.#takePermit() : this.#overdraw()
    return permit && { period: this.#started(now, invocation), at: now, lease: undefined, permit }
  }

  /** Takes a permit if one is free. */
  #takePermit(): Permit | undefined {
    return this.#permits.tryAcquire() ? this.#lendable(this.#permits) : undefined
  }

  /** The permit that was taken. If calls within calls occur, it can be lent: see {@link SharedPermit}. */
  #lendable(permit: Permit): Permit {
    const isCalledFor = this.#permits.isExhausted && this.#lender?.isOver !== false
    if (!isCalledFor && !this.#sharesAll) return permit
    this.#lender = new SharedPermit(permit, () => {
      this.#hasNested = true
      this.#shareAll()
    })
    return this.#lender
  }

  /** Takes a permit without waiting. Warns if the call would have had to wait. */
  #overdraw(): Permit {
    const { service, settings } = this.#circuit
    if (!this.#permits.overdraw()) warnOfCrowd(service, settings.maxConcurrent)
    return this.#permits
  }

  #shareAll(): void {
    this.#sharesAll = true
    this.#onSharing()
  }

  /** Whether calls within a call may have delayed it by waiting for permits. Such a delay is not a failure of the service. */
  isHeldUp(permit: Permit | undefined): boolean {
    return permit instanceof SharedPermit ? permit.isAwaited : this.#hasNested && this.#permits.waiting > 0
  }

  /** Begins a call. Returns the period of the circuit. */
  #started(now: number, invocation: Invocation | undefined): number {
    const circuit = this.#circuit
    const sync = this.#sync
    if (circuit.isQuiet) return circuit.period
    const period = circuit.callStarted(now, invocation?.requestId)
    void sync.drain()
    return period
  }

  /** In an invocation `before` has read the stale circuits. Later only circuits that have become stale are read. */
  isStale(now: number, invocation: Invocation | undefined): boolean {
    const circuit = this.#circuit
    const sync = this.#sync
    if (!circuit.isStale(now) || sync.loading !== undefined) return false
    return circuit.settings.cacheTtl > 0 || invocation === undefined || now - invocation.startedAt > longInvocation
  }

  /**
   * The path of a call that has to wait.
   *
   * @param hasDrawn whether the random draw of a ramp is done: `admitAtOnce` does it once if the state is known
   */
  async admit(invocation: Invocation | undefined, limits: CallLimits, hasDrawn: boolean): Promise<Admission> {
    const circuit = this.#circuit
    const sync = this.#sync
    const enforces = circuit.settings.mode === 'enforce'
    let permit: Permit | undefined
    let above: Admission | undefined
    try {
      if (limits.cut !== undefined) {
        if (invocation !== undefined && limits.deadlineAt <= invocation.startedAt) warnOfReserve(circuit.settings)
        throw limits.cut.error
      }
      if (circuit.settings.mode === 'off') return passThrough
      if (!sync.loadAttempted) await limits.race(sync.waitForRead(this.#load(sync), limits.timeLeft))
      if (enforces) {
        const now = this.#runtime.now()
        const verdict = circuit.admit(now)
        const isAdmitted = verdict === 'pass' || verdict === 'claim' || (verdict === 'ramping' && hasDrawn)
        // A refused call does not wait for a permit.
        if (!isAdmitted) throw circuit.refusal(verdict, now)
        permit = this.#takePermit() ?? (await this.#waitForPermit(limits))
        // The permit may come from a call that a limit has ended in this turn. The time of this call may end in the same turn.
        const cut = limits.cutIfOver()
        if (cut !== undefined) throw cut.error
      }
      above = await this.#above?.admitBelow(invocation, limits)
      // The call may have waited for a permit, so the present state of the circuit decides.
      let verdict = circuit.admit(this.#runtime.now())
      if (verdict === 'ramping') verdict = 'pass'
      let lease: ProbeLease | undefined
      if (verdict === 'claim') {
        lease = await this.#claim(invocation, limits)
        if (lease === undefined) verdict = circuit.admit(this.#runtime.now())
      }
      const isAdmitted = lease !== undefined || verdict === 'pass'
      if (!isAdmitted && (enforces || refusalChannel.hasSubscribers)) {
        const refusal = circuit.refusal(verdict as Exclude<Verdict, 'pass'>, this.#runtime.now())
        if (enforces) throw refusal
        tellRefusal(circuit, refusal, invocation?.requestId, false)
      }
      const at = this.#runtime.now()
      const period = isAdmitted ? this.#started(at, invocation) : undefined
      if (isAdmitted && !enforces) permit = this.#overdraw()
      return { period, at, lease, permit, above }
    } catch (error) {
      permit?.release()
      if (above !== undefined) this.#above?.releaseBelow(above, invocation)
      limits.end(limits.cut === undefined || limits.hasTimedOut)
      throw error
    }
  }

  async #waitForPermit(limits: CallLimits): Promise<Permit> {
    const { service, key, settings } = this.#circuit
    const { maxConcurrent, maxQueue } = settings
    const outer = SharedPermit.current
    const lent = outer?.borrow()
    if (lent !== undefined) return lent
    const waiter = this.#permits.join()
    if (waiter === undefined) throw new ConcurrencyLimitError(service, maxConcurrent, maxQueue || 0, key)
    outer?.whenBack(waiter)
    limits.waitFor(maxConcurrent)
    try {
      const permit = await limits.race(waiter.granted)
      limits.hasWaited()
      return permit === this.#permits ? this.#lendable(permit) : permit
    } catch (error) {
      waiter.leave()
      if (limits.cut !== undefined) this.#shareAll()
      throw error
    }
  }

  async #claim(invocation: Invocation | undefined, limits: CallLimits): Promise<ProbeLease | undefined> {
    const timeLeft = invocation?.timeLeft() ?? Number.POSITIVE_INFINITY
    const callTime = limits.timeout === false ? Number.POSITIVE_INFINITY : limits.timeout + settlingTime
    const longest = Math.min(timeLeft, callTime)
    const duration = Number.isFinite(longest) ? longest : unboundedLease
    // Half of its time: if no lease were granted in time, the circuit would stay open for ever.
    const claiming = this.#sync.claim(duration, invocation?.requestId, limits.timeLeft / 2)
    try {
      return await limits.race(claiming)
    } catch (error) {
      // A limit ended the call while it waited. If the lease still arrives, it is given back.
      claiming.then((lease) => {
        if (lease === undefined) return
        this.#circuit.probeEnded(lease, 'release', this.#runtime.now(), undefined, undefined)
        void this.#sync.drain()
      })
      throw error
    }
  }
}
