/**
 * The outcomes that the store does not know yet.
 *
 * It holds three kinds: how probes ended (settlements, in order), a trip that an own failure has made due, and failures
 * and successes of a closed circuit (a report on its way, and a report that collects what comes meanwhile). `next` decides
 * anew from the record that is known now how the first of them is written. Nothing that was decided before a
 * conflict is sent again; only an addition whose reply is missing is repeated as it was, because its id makes it count
 * once.
 *
 * A report counts in the epoch of the fleet in which it was made. Periods number the epochs of this instance's view; `since`
 * is the first period of the fleet's present epoch, so that a report of an earlier period no longer counts. Failures that
 * waited while the store was away are a backlog: a backlog by itself never opens the fleet's circuit.
 *
 * `Circuit` alone writes the outbox: outcomes go in as calls end, `answered` takes the reply to a report, `next` and
 * `epochBegan` drop what is stored or no longer counts. It must never send a write without the version that the decision
 * was made on.
 *
 * @module
 */

import type { StateChange, StateChangeReason } from '../events.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { holds } from './cached-record.ts'
import { activeOverride, decideCount, liveFailureCount, open, settle, type Tokens } from './state-machine.ts'
import type { DueTrip, Replacement, Report, Settlement, Step, Write } from './step.ts'

/** The knowledge that a step is decided on. */
export interface Known {
  readonly record: CircuitRecord | undefined
  /** The fleet's epoch, made up while nothing is stored. */
  readonly epoch: string
  /** The first period of that epoch. */
  readonly since: number
  readonly now: number
  /** Whether the store has failed since the record was read. */
  readonly isOutOfTouch: boolean
  readonly canRead: boolean
}

/** The longest look at the record before failures are reported, in milliseconds. */
const longestLook = 100

export class Outbox {
  readonly #service: string
  readonly #settings: ServiceSettings
  readonly #id: () => string
  /** Probes that have ended, in order. Each goes when its lease is gone. */
  #settlements: Settlement[] = []
  /** Written by `tripIsDue`; goes when another epoch begins or it is no longer due. */
  #dueTrip: DueTrip | undefined
  /** The report on its way. Taken from `second` by `next`, ended by `answered`. */
  #first: Report | undefined
  /** The write that was sent for `first` and is not answered. Written by `sent`, ended by `answered`. */
  #sent: Write | undefined
  /** The report that collects outcomes. */
  #second: Report | undefined
  /** The epoch of the trip that the view shows and the store may not, over all attempts to write it. */
  #tripEpoch: string | undefined

  constructor(service: string, settings: ServiceSettings, id: () => string) {
    this.#service = service
    this.#settings = settings
    this.#id = id
  }

  // ------------------------------------------------------------------------------------------------- what waits

  get isEmpty(): boolean {
    return this.#second === undefined && this.#first === undefined && !this.hasTransition
  }

  /** Whether failures or a success of a closed circuit wait. */
  get hasReport(): boolean {
    return this.#first !== undefined || this.#second !== undefined
  }

  get hasSettlement(): boolean {
    return this.#settlements.length > 0
  }

  get hasTransition(): boolean {
    return this.#settlements.length > 0 || this.#dueTrip !== undefined
  }

  /** Whether a trip or failures wait that may open the circuit. */
  get mayTrip(): boolean {
    return this.#dueTrip !== undefined || (this.#first?.failures ?? 0) + (this.#second?.failures ?? 0) > 0
  }

  /** Whether the first thing to be written needs a fresh record. */
  get needsFreshRecord(): boolean {
    if (this.hasTransition || this.#sent !== undefined) return false
    return (this.#first?.backlog ?? 0) + (this.#second?.backlog ?? 0) > 0
  }

  get tripEpoch(): string | undefined {
    return this.#tripEpoch
  }

  /** The failures in a row, of which `stored` are known to be stored, with those that wait. */
  count(stored: number): number {
    let count = stored
    for (const report of [this.#first, this.#second]) {
      if (report?.success) count = 0
      count += report?.failures ?? 0
    }
    return count
  }

  // --------------------------------------------------------------------------------------------- what comes in

  addSuccess(period: number, at: number, requestId: string | undefined): void {
    const empty = { failures: 0, backlog: 0, looksFirst: false, lastFailure: undefined }
    this.#second = { kind: 'report', id: this.#id(), period, success: true, at, requestId, ...empty }
  }

  addFailures(
    failures: number,
    outcome: Pick<Report, 'period' | 'at' | 'lastFailure' | 'requestId' | 'looksFirst'>,
  ): void {
    const isOver = this.#second !== undefined && outcome.at - this.#second.at > this.#settings.window
    const {
      success = false,
      failures: before = 0,
      backlog = 0,
      id = this.#id(),
    } = (isOver ? undefined : this.#second) ?? {}
    this.#second = { kind: 'report', id, success, failures: before + failures, backlog, ...outcome }
  }

  addSettlement(settlement: Omit<Settlement, 'kind'>): void {
    this.#settlements.push({ kind: 'settlement', ...settlement })
  }

  /** The view opens: its epoch is the one that the trip will be written with. */
  beginTrip(): string {
    this.#tripEpoch ??= this.#id()
    return this.#tripEpoch
  }

  /** The view has left the epoch of the trip. */
  endTrip(): void {
    this.#tripEpoch = undefined
  }

  /** The store is away: the failures that wait are a backlog from now on. */
  toBacklog(): void {
    this.#first = this.#first && { ...this.#first, backlog: this.#first.failures }
    this.#second = this.#second && { ...this.#second, backlog: this.#second.failures }
  }

  /** The fleet's circuit is in another epoch: earlier outcomes no longer count. */
  epochBegan(since: number): void {
    this.#dueTrip = undefined
    if (this.#second !== undefined && this.#second.period < since) this.#second = undefined
    if (this.#first !== undefined && this.#first.period < since) this.#endFirst()
  }

  /** The record was deleted. */
  clear(): void {
    this.#settlements = []
    this.#dueTrip = undefined
    this.#endFirst()
    this.#second = undefined
    this.#tripEpoch = undefined
  }

  // -------------------------------------------------------------------------------------------- what is written

  /** The next step for the first outcome that still counts; `undefined`: nothing waits. */
  next(known: Known): Step | undefined {
    for (;;) {
      const [settlement] = this.#settlements
      if (settlement !== undefined) {
        const write = this.#settle(settlement, known)
        if (write !== undefined) return write
        this.#settlements.shift()
      } else if (this.#dueTrip !== undefined) {
        const write = this.#trip(this.#dueTrip, known)
        if (write !== undefined) return write
        this.#dueTrip = undefined
      } else {
        this.#first = this.#nextReport()
        if (this.#first === undefined) return undefined
        // It waits for a read, and reading is left alone.
        if (known.isOutOfTouch && !known.canRead && this.needsFreshRecord) return undefined
        const step = this.#decide(this.#first, known)
        if (step !== undefined) return step
        this.#endFirst()
      }
    }
  }

  #settle(settlement: Settlement, { record, now }: Known): Replacement | undefined {
    const { leaseId, outcome, at, lastFailure } = settlement
    if (record === undefined || now - at > this.#settings.window) return undefined
    const next = settle(record, leaseId, outcome, at, this.#settings, this.#tokens(settlement.epoch), lastFailure)
    if (next === undefined) return undefined
    const reason = outcome === 'failure' ? 'probe-failed' : 'probe-succeeded'
    return this.#replace(record, next, settlement, this.#change(record, next, reason, settlement))
  }

  #trip(due: DueTrip, { record, now }: Known): Replacement | undefined {
    const { failureThreshold, window } = this.#settings
    if (record === undefined || record.state !== 'CLOSED' || activeOverride(record, now) !== undefined) return undefined
    if (liveFailureCount(record, now, window) < failureThreshold) return undefined
    const next = open(record, due.at, this.#settings, this.#tokens(this.beginTrip()), due.lastFailure)
    return this.#replace(record, next, due, this.#change(record, next, 'failure-threshold', due))
  }

  /** A report that was sent and not answered goes first and alone. Otherwise what is left over is merged with the rest. */
  #nextReport(): Report | undefined {
    const [first, second] = [this.#first, this.#second]
    if (this.#sent !== undefined) return first
    this.#second = undefined
    if (first === undefined || second === undefined || second.success) return second ?? first
    if (second.at - first.at > this.#settings.window) return second
    const failures = first.failures + second.failures
    return { ...second, success: first.success, failures, backlog: first.backlog + second.backlog }
  }

  #decide(report: Report, known: Known): Step | undefined {
    const { record, now } = known
    const { window, failureThreshold } = this.#settings
    if (now - report.at > window || report.period < known.since) return undefined
    if (this.#sent !== undefined) return this.#repeat(this.#sent, report, record)
    if (report.looksFirst && known.canRead) {
      this.#first = { ...report, looksFirst: false }
      return { kind: 'read', longest: longestLook }
    }
    // A backlog is measured by the record as it is now: the cached one is from before the store failed.
    if (report.backlog > 0 && known.isOutOfTouch) return { kind: 'read' }

    const base = record ?? emptyRecord(known.epoch, report.at)
    const live = report.success ? 0 : liveFailureCount(base, now, window)
    const backlog = Math.min(report.backlog, Math.max(0, failureThreshold - 1 - live))
    const failures = backlog + report.failures - report.backlog
    const epoch = this.#tripEpoch ?? this.#id()
    const decision = decideCount(base, { ...report, failures }, now, this.#settings, this.#tokens(epoch))
    if (decision.kind === 'nothing') return undefined
    if (decision.kind === 'increment') {
      const increment = { count: failures, at: decision.at, id: report.id }
      return { kind: 'add', version: record?.version, increment, cause: report, isRepeated: false }
    }
    if (decision.kind === 'trip') this.#tripEpoch = epoch
    const change = this.#change(base, decision.next, 'failure-threshold', report)
    return this.#replace(record, decision.next, report, change)
  }

  /** A record of another version shows what became of the write, or can no longer tell: it is not repeated. */
  #repeat(sent: Write, report: Report, record: CircuitRecord | undefined): Write | undefined {
    return holds(sent, record) ? { ...sent, cause: report, isRepeated: true } : undefined
  }

  #replace(
    record: CircuitRecord | undefined,
    next: CircuitRecord,
    cause: Replacement['cause'],
    change: StateChange | undefined,
  ): Replacement {
    return { kind: 'replace', version: record?.version, next, cause, change }
  }

  #tokens(epoch: string): Tokens {
    return { epoch, version: this.#id() }
  }

  #change(
    from: CircuitRecord,
    next: CircuitRecord,
    reason: StateChangeReason,
    { at, requestId }: Pick<Report, 'at' | 'requestId'>,
  ): StateChange | undefined {
    return stateChange(this.#service, from, next, reason, at, requestId)
  }

  // ---------------------------------------------------------------------------------------------- what came of it

  /** A write leaves. Only additions and replaced counts are repeated when their replies are missing. */
  sent(write: Write): void {
    const { cause } = write
    if (cause.kind === 'report' && write.change === undefined) this.#sent = write
  }

  /**
   * The reply to a write, in time or late. A settlement that is stored has lost its lease, and a trip that is stored has
   * begun an epoch: they go with the record.
   *
   * @param isStored whether the write is stored, by this attempt or by an earlier one
   * @returns whether a report has been stored
   */
  answered(write: Write, isStored: boolean): boolean {
    const { cause, isRepeated = false } = write
    if (cause.kind !== 'report' || this.#first?.id !== cause.id) return false
    // A refusal says nothing of the repetition that is on its way.
    if (!isStored && this.#sent !== write) return false
    this.#sent = undefined
    // Refused on a repetition, the first attempt may have been counted before the version changed: not again.
    if (isStored || isRepeated) this.#first = undefined
    return isStored
  }

  /** The failure of this instance has completed the count: the trip is due. */
  tripIsDue({ at, lastFailure, requestId }: Report): void {
    this.#dueTrip = { kind: 'trip', at, lastFailure, requestId }
  }

  #endFirst(): void {
    this.#first = undefined
    this.#sent = undefined
  }
}

/** The event of a write; `undefined` where the state stays the same. */
export function stateChange(
  service: string,
  from: CircuitRecord,
  next: CircuitRecord,
  reason: StateChangeReason,
  at: number,
  requestId: string | undefined,
): StateChange | undefined {
  if (from.state === next.state) return undefined
  const { state: to, generation } = next
  return { service, from: from.state, to, generation, at, reason, requestId, observed: false }
}

/** Whether a write reports failures of this instance. */
export function reportsFailures({ cause }: Write): boolean {
  return cause.kind === 'report' && cause.failures > 0
}
