/**
 * The record that this instance stands by, and all that follows from a change of it.
 *
 * The view follows the cached record, except while it is ahead: while the end of a probe of ours is being written, and while
 * a decision stands that this instance made alone. It is also ahead of a record that calls for a trip, because whoever sees
 * that refuses at once.
 *
 * The flag `isQuiet` and the events come last, by `changed`, which ends each change of any machine: a listener
 * may look at the circuit, and must find it up to date.
 *
 * `Stance` alone shows the view another record, makes and ends a lone decision, and takes events out of the log. It reads
 * the other machines. It never sends anything.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import type { Admission } from './admission.ts'
import type { CachedRecord } from './cached-record.ts'
import type { LoneDecision } from './lone-decision.ts'
import type { Outbox } from './outbox.ts'
import type { ProbeClaims } from './probe-claims.ts'
import { admittedPart, open, type Verdict } from './state-machine.ts'
import type { Streak } from './streak.ts'
import { reportingChance, suspicion } from './suspicion.ts'
import type { TransitionLog } from './transition-log.ts'
import type { View } from './view.ts'
import type { CircuitWorld } from './world.ts'

/** The machines, as far as the stance needs them. */
export interface FollowedMachines {
  readonly view: View
  readonly alone: LoneDecision
  readonly log: Pick<TransitionLog, 'observe' | 'unhealthy' | 'takeDue'>
  readonly cached: Pick<CachedRecord, 'current' | 'readAt'>
  readonly outbox: Pick<Outbox, 'tripOf' | 'hasSpokenTo' | 'hasSettlement' | 'hasReport'>
  readonly claims: Pick<ProbeClaims, 'drawDelay' | 'involve'>
  readonly streak: Pick<Streak, 'isAlone' | 'isQuiet'>
}

export class Stance {
  readonly #settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #admission: Admission
  readonly #view: View
  readonly #alone: LoneDecision
  readonly #log: FollowedMachines['log']
  readonly #cached: FollowedMachines['cached']
  readonly #outbox: FollowedMachines['outbox']
  readonly #claims: FollowedMachines['claims']
  readonly #streak: FollowedMachines['streak']
  /** Whether a success changes nothing: the circuit is closed, and nobody suspects the service. Written by `changed`. */
  isQuiet = true

  constructor(settings: ServiceSettings, world: CircuitWorld, admission: Admission, machines: FollowedMachines) {
    this.#settings = settings
    this.#world = world
    this.#admission = admission
    this.#view = machines.view
    this.#alone = machines.alone
    this.#log = machines.log
    this.#cached = machines.cached
    this.#outbox = machines.outbox
    this.#claims = machines.claims
    this.#streak = machines.streak
  }

  /** The verdict on a call at `now`. */
  admit(now: number): Verdict {
    if (this.isQuiet) return 'pass'
    // A suspicion may have come of age.
    if (this.#view.record.state === 'CLOSED' && this.#outbox.tripOf(this.#cached.current, now)) this.followRecord()
    return this.#admission.admit(now)
  }

  /** The view follows the record, except while it is ahead of it. Then the events fire. */
  followRecord(): void {
    if (!this.#isAhead()) {
      this.#alone.end()
      const { runtime } = this.#world
      const now = runtime.now()
      const record = this.#cached.current ?? emptyRecord(this.#view.epoch, this.#cached.readAt)
      const trip = this.#outbox.tripOf(record, now)
      const { version } = record
      if (trip === undefined) this.show(record)
      else this.show(open(record, trip.at, this.#settings, { epoch: trip.epoch, version }, undefined))
      const verdict = suspicion(record, now, this.#settings)
      this.#view.suspect(verdict === 'open' ? version : undefined, () => {
        return this.#outbox.hasSpokenTo(version) || runtime.random() < reportingChance(record)
      })
      const { acting } = this.#admission
      const isWell = verdict !== 'open' && acting !== this.#view.record
      if (isWell && this.#streak.isAlone(this.#cached.readAt)) this.#log.unhealthy(acting, now)
    }
    this.changed()
  }

  /** Whether the view shows the end of a probe that is still being written, or a decision that this instance made alone. */
  #isAhead(): boolean {
    const record = this.#cached.current
    return this.#alone.stands(record) || (this.#outbox.hasSettlement && record?.state === 'HALF_OPEN')
  }

  /** This instance goes on without the store. */
  decideAlone(view: CircuitRecord, now: number): void {
    if (this.#cached.current !== undefined) this.#alone.decide(this.#cached.current, view, now)
    this.show(view)
  }

  /** Calls are judged by another record from now on. */
  show(view: CircuitRecord): void {
    if (!this.#view.show(view)) return
    const { runtime } = this.#world
    this.#claims.drawDelay(runtime.random)
    this.changed()
    this.refuseWaiting(runtime.now())
  }

  /** A call that waits for a permit is refused at once. */
  refuseWaiting(now: number): void {
    const verdict = this.admit(now)
    if (verdict !== 'pass' && verdict !== 'claim') this.#world.onRefusing(() => this.#admission.refusal(verdict, now))
  }

  /** Observers hear of the state that this instance acts on. */
  announce(at: number): void {
    this.#log.observe(this.#admission.acting, at)
    this.changed()
  }

  /** Ends a change: writes the flag, then fires the events, so that a listener finds the flag up to date. */
  changed(): void {
    const { state, override } = this.#view.record
    const isClosed = state === 'CLOSED' && override === undefined && !this.#alone.isMade
    const isSuspected = this.#cached.current?.suspectedAt !== undefined
    const { rampUp } = this.#settings
    const isRamping = rampUp !== false && admittedPart(this.#view.record, this.#world.runtime.now(), rampUp) < 1
    this.isQuiet = isClosed && !isRamping && !isSuspected && this.#streak.isQuiet && !this.#outbox.hasReport
    for (const change of this.#log.takeDue()) {
      const { to, reason, generation } = change
      const isOwn = to === 'OPEN' && (reason === 'failure-threshold' || reason === 'probe-failed')
      const { current } = this.#cached
      // Its proof may come late, when the circuit has closed again; or with an answer that is not believed any more.
      if (isOwn && (current?.state !== 'CLOSED' || current.generation < generation)) this.#claims.involve()
      this.#world.emit(change)
    }
  }
}
