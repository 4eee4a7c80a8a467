/**
 * The questions of a circuit, and nothing but questions: may this call pass, may this instance probe, may the store be
 * asked. Nothing in here changes anything: the machines are only asked, as their types say.
 *
 * A call is judged by the view. Where the view is closed, the failures in a row of this instance may still refuse it, or the
 * ramp after an outage. Where it is not, one more question decides whether this instance may probe now: others may come
 * first, its own delay may not be over, or the store may have to be looked at.
 *
 * Three states of the way to the store are told apart. It is *cut off* where nothing can be written for now. It is *held
 * back* where the store throttles reads, so that the record is not read for a while. It is *alone* where it must decide
 * without the store. A store that throttles serves others meanwhile: an instance that is throttled is alone only once a probe
 * is overdue, that is, has been due for so long that others would have ended it.
 *
 * @module
 */

import type { CircuitOpenError } from '../errors.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import type { CachedRecord } from './cached-record.ts'
import type { Outbox } from './outbox.ts'
import type { ProbeClaims } from './probe-claims.ts'
import { refusalOf } from './refusal.ts'
import { admit, admittedPart, liveLeases, retryTime, type Verdict } from './state-machine.ts'
import type { Streak } from './streak.ts'
import type { View } from './view.ts'
import type { CircuitWorld } from './world.ts'

/** The machines, as far as they are asked. */
export interface AskedMachines {
  readonly view: Pick<View, 'record'>
  readonly cached: Pick<
    CachedRecord,
    'current' | 'readAt' | 'staleAt' | 'isDamaged' | 'isOutOfTouch' | 'isStale' | 'isHeldBack'
  > & { readonly throttle: Pick<CachedRecord['throttle'], 'isCrowded' | 'isShut' | 'goesOn'> }
  readonly claims: Pick<ProbeClaims, 'delayAt' | 'yields' | 'isReady' | 'leavesToOthers'>
  readonly streak: Pick<Streak, 'admit' | 'openedAt' | 'retryAt' | 'lastFailure'>
  readonly outbox: Pick<Outbox, 'needsFreshRecord'>
}

/** A probe that the store throttles is not waited for longer than this, in milliseconds. */
const longestPatience = 20_000

export class Admission {
  readonly #service: string
  readonly #settings: ServiceSettings
  readonly #world: CircuitWorld
  readonly #view: AskedMachines['view']
  readonly #cached: AskedMachines['cached']
  readonly #claims: AskedMachines['claims']
  readonly #streak: AskedMachines['streak']
  readonly #outbox: AskedMachines['outbox']

  constructor(service: string, settings: ServiceSettings, world: CircuitWorld, machines: AskedMachines) {
    this.#service = service
    this.#settings = settings
    this.#world = world
    this.#view = machines.view
    this.#cached = machines.cached
    this.#claims = machines.claims
    this.#streak = machines.streak
    this.#outbox = machines.outbox
  }

  // ------------------------------------------------------------------------------------------------------- a call

  /** The verdict on a call at `now`. */
  admit(now: number): Verdict {
    const view = this.#view.record
    if (view.state === 'CLOSED' && view.override === undefined) {
      const part = admittedPart(view, now, this.#settings.rampUp)
      if (part < 1 && this.#world.runtime.random() >= part) return 'ramping'
      const verdict = this.#streak.admit(now)
      // The fleet's circuit may be open: where the store is too busy to tell, this instance waits for it.
      return verdict === 'claim' && this.#waitsForLook(now) && !this.#cached.throttle.isShut ? 'open' : verdict
    }
    const verdict = admit(view, now, this.#settings)
    if (verdict === 'claim' && view.state === 'OPEN') {
      const late = now - retryTime(view, this.#settings)
      return late >= 0 && (late < this.#claims.delayAt(view, now) || this.#leavesProbesToOthers(now)) ? 'open' : 'claim'
    }
    if (verdict === 'claim' && !this.isAlone && this.#claims.yields(view, this.#cached.current, now)) return 'probing'
    return verdict === 'probing' && this.#claims.isReady(this.#cached.current, now) ? 'claim' : verdict
  }

  /** The error for a call that is refused. */
  refusal(verdict: Exclude<Verdict, 'pass'>, now: number): CircuitOpenError {
    const view = this.acting
    const delay = view === this.#view.record ? this.#claims.delayAt(view, now) : 0
    const { staleAt } = this.#cached
    const { storageTimeout } = this.#world
    const name = { service: this.#service, key: this.#world.key }
    const context = { ...name, settings: this.#settings, view, delay, staleAt, storageTimeout }
    return refusalOf(context, verdict, now)
  }

  /** The record that this instance acts on: the view, or its own refusal. */
  get acting(): CircuitRecord {
    const view = this.#view.record
    const { openedAt, retryAt, lastFailure } = this.#streak
    if (openedAt === undefined || view.state !== 'CLOSED' || view.override !== undefined) return view
    const resetTimeout = retryAt - openedAt
    return { ...view, state: 'OPEN', openedAt, retryAt, resetTimeout, lastFailure: lastFailure ?? view.lastFailure }
  }

  // ------------------------------------------------------------------------------------------------------- others

  #leavesProbesToOthers(now: number): boolean {
    if (this.isAlone) return false
    const { readAt, throttle } = this.#cached
    const mayAsk = this.#cached.isStale(now) || throttle.goesOn || this.isOverdue
    return this.isCutOff || this.#claims.leavesToOthers(this.#view.record, readAt, mayAsk)
  }

  /** Whether others probe before this instance, which found by itself that the service works. */
  leavesTurn(record: CircuitRecord | undefined, now: number): boolean {
    if (record === undefined || this.#claims.yields(record, record, now)) return true
    return record.state === 'OPEN' && now - retryTime(record, this.#settings) < this.#claims.delayAt(record, now)
  }

  // ---------------------------------------------------------------------------------------------------- the store

  /** Whether nothing can be written for now. */
  get isCutOff(): boolean {
    return this.#cached.isDamaged || !this.#world.store.canWrite
  }

  /**
   * Whether this instance decides without the store: it is away, or what it holds for this service is damaged. One that throttles serves
   * others meanwhile, so that it counts as away only when the record has not moved for a long time.
   */
  get isAlone(): boolean {
    return this.isCutOff && (this.#cached.isDamaged || !this.#world.store.throttlesWrites || this.isOverdue)
  }

  /** Whether a probe has been due for so long that others would have ended it. */
  get isOverdue(): boolean {
    const record = this.#view.record
    if (record.state === 'CLOSED') return false
    const now = this.#world.runtime.now()
    const isProbed = liveLeases(record, now).length > 0
    if (isProbed) return false
    const patience = Math.min(longestPatience, 3 * this.#settings.resetTimeout)
    return this.#cached.isHeldBack(now)
      ? this.#cached.throttle.isShut
      : now - retryTime(record, this.#settings) >= patience
  }

  get canRead(): boolean {
    return this.#world.store.canRead && !this.#cached.isHeldBack(this.#world.runtime.now())
  }

  /** Whether a backlog comes next, which needs a read, and reading is left alone. */
  get waitsForRead(): boolean {
    return !this.canRead && this.#cached.isOutOfTouch && this.#outbox.needsFreshRecord
  }

  /** Whether outcomes wait until a store that throttles has shown the record. */
  isHeldBack(now: number): boolean {
    return (this.#waitsForLook(now) || this.#cached.isHeldBack(now)) && !this.#cached.throttle.goesOn
  }

  /** Whether the record was not read since this instance refuses by itself, and will be, in a store that has too much to do. */
  #waitsForLook(now: number): boolean {
    const { openedAt } = this.#streak
    return (
      this.#cached.throttle.isCrowded && openedAt !== undefined && openedAt <= now && this.#cached.readAt < openedAt
    )
  }
}
