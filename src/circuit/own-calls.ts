/**
 * The calls and the probes of this instance: how they end, and what that means here. The outbox tells the fleet of it.
 *
 * An outcome counts in the period in which its call was admitted. A failure goes into the streak, which may make this
 * instance refuse by itself; it raises a suspicion, or speaks to the one that is known. A success ends the streak, and
 * speaks to a suspicion only if its call knew of it.
 *
 * A probe is one of three. The store has granted its lease: its end is a settlement. This instance has granted it to itself,
 * because it is alone: its end is a decision made alone, and a settlement if the store grants the lease after all. Or the
 * fleet's circuit is closed and this instance alone refuses: then it ends as any call does.
 *
 * Where nothing can be written, all that waits is a backlog from the start.
 *
 * `OwnCalls` alone writes the streak, but that a new epoch ends it, and alone adds to the outbox, but for a probe whose lease
 * comes late. It must never count an outcome twice: each ends in one of the ways above.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { Admission } from './admission.ts'
import type { CachedRecord } from './cached-record.ts'
import type { Outbox } from './outbox.ts'
import type { ProbeClaims, ProbeLease } from './probe-claims.ts'
import type { Stance } from './stance.ts'
import { claim, type Failure, type ProbeOutcome, settle, type Tokens } from './state-machine.ts'
import type { Streak } from './streak.ts'
import { isContradictable, raisingChance } from './suspicion.ts'
import type { View } from './view.ts'
import type { CircuitWorld } from './world.ts'

/** The machines, as far as outcomes concern them. */
export interface TouchedMachines {
  readonly streak: Streak
  readonly outbox: Pick<Outbox, 'add' | 'endRow' | 'addSettlement' | 'announces' | 'toBacklog'>
  readonly claims: Pick<ProbeClaims, 'leaseUntil' | 'goesAlone' | 'endedAlone' | 'isInvolved' | 'takeReady'>
  readonly cached: Pick<CachedRecord, 'current' | 'look' | 'doubt' | 'isHeldBack' | 'throttle'>
  readonly view: Pick<View, 'record' | 'period' | 'suspicion' | 'isSilent' | 'knew' | 'counts'>
}

/** Where the store has too much to do, this part of the failures may raise a suspicion. */
const crowdedPart = 0.1

export class OwnCalls {
  readonly #settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #admission: Admission
  readonly #stance: Stance
  readonly #streak: Streak
  readonly #outbox: TouchedMachines['outbox']
  readonly #claims: TouchedMachines['claims']
  readonly #cached: TouchedMachines['cached']
  readonly #view: TouchedMachines['view']

  constructor(
    settings: ServiceSettings,
    world: CircuitWorld,
    admission: Admission,
    stance: Stance,
    { streak, outbox, claims, cached, view }: TouchedMachines,
  ) {
    this.#settings = settings
    this.#world = world
    this.#admission = admission
    this.#stance = stance
    this.#streak = streak
    this.#outbox = outbox
    this.#claims = claims
    this.#cached = cached
    this.#view = view
  }

  /**
   * A call has been admitted at `now`: the period that it has to remember. Under a young suspicion it is announced, so that
   * the fleet does not take for granted that it fails.
   */
  callStarted(now: number, requestId: string | undefined): number {
    const { period, suspicion: version } = this.#view
    const record = this.#cached.current
    if (this.#view.knew(period) && record !== undefined && this.#outbox.announces(record, now)) {
      const announcement = { kind: 'started' as const, period, suspicion: version, row: 0, at: now }
      this.#outbox.add({ ...announcement, lastFailure: undefined, requestId })
    }
    return period
  }

  /** A call that was admitted in `period` succeeded. */
  callSucceeded(period: number, at: number, requestId: string | undefined): void {
    if (!this.#view.counts(period, at)) return
    this.#settleReady('success', at, undefined, requestId)
    this.#streak.succeeded()
    const outcome = { kind: 'success' as const, period, suspicion: this.#view.suspicion, row: 0, at }
    if (this.#view.knew(period)) this.#outbox.add({ ...outcome, lastFailure: undefined, requestId })
    else this.#outbox.endRow()
    this.#standAloneIfCutOff()
    this.#stance.changed()
  }

  /** A call that was admitted in `period`, and began at `startedAt`, failed. */
  callFailed(
    period: number,
    at: number,
    lastFailure: Failure,
    requestId: string | undefined,
    startedAt: number = at,
  ): void {
    if (!this.#view.counts(period, at)) return
    this.#settleReady('failure', at, lastFailure, requestId)
    this.#streak.failed(lastFailure, startedAt)
    const known = this.#view.knew(period) ? this.#view.suspicion : undefined
    const row = this.#raisesSuspicion(at) ? this.#streak.length : 0
    if (!this.#view.isSilent)
      this.#outbox.add({ kind: 'failure', period, suspicion: known, row, at, lastFailure, requestId })
    if (this.#streak.openedAt === at) {
      this.#cached.look(at)
      this.#stance.refuseWaiting(at)
    }
    this.#standAloneIfCutOff()
    this.#stance.changed()
  }

  /** If the lease that was asked for in advance has come, a call of this instance was its probe. */
  #settleReady(
    outcome: ProbeOutcome,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
  ): void {
    const id = this.#claims.takeReady()
    if (id !== undefined) this.probeEnded({ id, isLocal: false }, outcome, at, lastFailure, requestId)
  }

  /**
   * An isolated failure of a service that works is not worth a write where many such suspicions have come to nothing. A
   * streak that opens the circuit by itself always is.
   */
  #raisesSuspicion(at: number): boolean {
    const { length, hasWorked } = this.#streak
    const record = this.#cached.current
    const isStreak = length >= this.#settings.failureThreshold
    // A store that has too much to do has many instances, of which some are enough.
    if (this.#cached.throttle.isCrowded && !isStreak && this.#world.runtime.random() >= crowdedPart) return false
    const opens = isStreak && !isContradictable(record, at, this.#settings)
    return !hasWorked || opens || this.#world.runtime.random() < raisingChance(record, length, at)
  }

  /** Grants this instance a probe of its own. */
  claimAlone(duration: number): ProbeLease {
    const { runtime } = this.#world
    const now = runtime.now()
    if (this.#view.record.state === 'CLOSED') {
      const own = this.#claims.leaseUntil(runtime.id(), now, duration)
      this.#streak.claim(own, this.#view.period)
      return { id: own.id, isLocal: true }
    }
    const lease = this.#claims.goesAlone(now, duration)
    this.#stance.decideAlone(claim(this.#view.record, now, lease, this.#settings, this.#tokens()), now)
    this.#stance.announce(now)
    return { id: lease.id, isLocal: true }
  }

  /** A probe ended. */
  probeEnded(
    lease: ProbeLease,
    outcome: ProbeOutcome,
    at: number,
    lastFailure: Failure | undefined,
    requestId: string | undefined,
  ): void {
    const own = this.#streak.probeEnded(lease.id, lastFailure)
    if (own !== undefined) {
      if (outcome === 'success') {
        this.callSucceeded(own, at, requestId)
        // Observers may have heard that this instance had opened the circuit for itself.
        this.#stance.announce(at)
      }
      if (lastFailure !== undefined) this.callFailed(own, at, lastFailure, requestId)
      return
    }
    const tokens = this.#tokens()
    if (outcome === 'success') this.#streak.succeeded()
    const next = settle(this.#view.record, lease.id, outcome, at, this.#settings, tokens, lastFailure)
    if (next !== undefined && lease.isLocal) this.#stance.decideAlone(next, at)
    else if (next !== undefined) this.#stance.show(next)
    const isSecondOpinion = !this.#claims.isInvolved
    const { epoch } = tokens
    const settlement = { leaseId: lease.id, outcome, at, lastFailure, requestId, epoch, isSecondOpinion }
    // A probe that this instance granted itself may have been granted by the store since, or may be yet.
    if (lease.isLocal && !this.#cached.current?.leases.some(({ id }) => id === lease.id)) {
      this.#claims.endedAlone(settlement)
      this.#stance.announce(at)
    } else {
      this.#outbox.addSettlement(settlement)
      this.#standAloneIfCutOff()
    }
  }

  /** An outcome that cannot be written now is a backlog from the start. */
  #standAloneIfCutOff(): void {
    if (this.#admission.isCutOff || this.#admission.waitsForRead || this.#cached.isHeldBack(this.#world.runtime.now()))
      this.standAlone()
  }

  /** The store does not answer: what waits is a backlog now, and what this instance decided it decided alone. */
  standAlone(): void {
    this.#cached.doubt()
    this.#outbox.toBacklog()
    this.#stance.announce(this.#world.runtime.now())
  }

  #tokens(): Tokens {
    const { runtime } = this.#world
    return { epoch: runtime.id(), version: runtime.id() }
  }
}
