/**
 * The outcomes that the store does not know yet, and the verdict that its record calls for.
 *
 * It holds how probes ended (settlements, in order) and outcomes of a closed circuit (a report on its way, and a report that
 * collects what comes meanwhile). `next` decides anew from the record that is known now how the first of them is
 * written. Nothing that was decided before a conflict is sent again; only an addition whose reply is missing is repeated as
 * it was, because its id makes it count once.
 *
 * A report speaks to the suspicion that its calls knew of. Where the record is under another one, or under none, its
 * successes say nothing, and its failures have merely run into what is going on: they count apart, once for each
 * suspicion. One instance contributes no more than its share of failures, unless it is alone.
 *
 * A record whose sample is complete calls for a verdict: whoever sees it writes it, before any report.
 *
 * A report counts in the epoch of the fleet in which it was made. `since` is the first period of the fleet's present
 * epoch, so that a report of an earlier period no longer counts. Failures that waited while the store was away are a backlog:
 * a backlog by itself never opens the fleet's circuit.
 *
 * `Circuit` alone writes the outbox: outcomes go in as calls end, `answered` takes each reply, `epochBegan` drops what no
 * longer counts. It must never send a write without the version that the decision was made on.
 *
 * @module
 */

import type { StateChangeReason } from '../events.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { holds } from './cached-record.ts'
import { emptyTally, Shares, speakingTo } from './shares.ts'
import { stateChange } from './state-change.ts'
import { activeOverride, type Failure, open, settle, type Tokens } from './state-machine.ts'
import type { Addition, Replacement, Report, Settlement, Step, Write } from './step.ts'
import {
  countDismissal,
  dismiss,
  lessonOf,
  raise,
  suspicion,
  wantsAnnouncements,
  wasDismissedSince,
} from './suspicion.ts'

/** The knowledge that a step is decided on. */
export interface Known {
  readonly record: CircuitRecord | undefined
  /** The fleet's epoch, made up while nothing is stored. */
  readonly epoch: string
  /** The first period of that epoch. */
  readonly since: number
  readonly now: number
  /** When the record was read, in milliseconds since the epoch. */
  readonly readAt: number
  /** Whether the store has failed since the record was read. */
  readonly isOutOfTouch: boolean
  readonly canRead: boolean
  /** Whether the store throttles reads, and it is left to others to raise a suspicion. */
  readonly isHeldBack: boolean
  /** Failures in a row of this instance. */
  readonly row: number
  /** This instance's last failure, if it belongs to the present streak. */
  readonly lastFailure: Failure | undefined
}

/** The beginning or the outcome of a call of a closed circuit. */
export interface Outcome {
  readonly kind: 'started' | 'success' | 'failure'
  readonly period: number
  /** The suspicion that the call knew of. */
  readonly suspicion: string | undefined
  /** See {@link Report.row}. */
  readonly row: number
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
}

/** The present trip: over all attempts to write it, it is one transition. */
interface Trip {
  /** The version of the suspicion that it ends. */
  readonly version: string
  readonly epoch: string
  readonly at: number
}

export class Outbox {
  readonly #service: string
  readonly #settings: ServiceSettings
  readonly #id: () => string
  /** Probes that have ended, in order. Each goes when its lease is gone. */
  #settlements: Settlement[] = []
  /** The report on its way. Taken from `second` by `next`, ended by `answered`. */
  #first: Report | undefined
  /** The write that was sent for `first` and is not answered. Written by `sent`, ended by `answered`. */
  #sent: Write | undefined
  /** The outcomes that the record held when that was decided. Written by `next`. */
  #sizeBefore = 0
  /** The report that collects outcomes. */
  #second: Report | undefined
  /** The Lambda request of the last failure. Written by `add`. */
  #requestId: string | undefined
  /** The trip that the latest record calls for. Written by `tripOf`. */
  #trip: Trip | undefined
  /** The words of this instance to suspicions. Written by `answered`, and by `next` with what it leaves out. */
  readonly #shares: Shares

  constructor(service: string, settings: ServiceSettings, id: () => string) {
    this.#service = service
    this.#settings = settings
    this.#id = id
    this.#shares = new Shares(settings)
  }

  // ------------------------------------------------------------------------------------------------- what waits

  get isEmpty(): boolean {
    return !this.hasReport && !this.hasSettlement
  }

  /** Whether outcomes of a closed circuit wait. */
  get hasReport(): boolean {
    return this.#first !== undefined || this.#second !== undefined
  }

  get hasSettlement(): boolean {
    return this.#settlements.length > 0
  }

  /** Whether the first thing to be written needs a fresh record. */
  get needsFreshRecord(): boolean {
    if (this.hasSettlement || this.#sent?.kind === 'replace') return false
    return this.#first?.isBacklog === true || this.#second?.isBacklog === true
  }

  /** The failures that wait and still count at `now`. */
  liveFailures(now: number): number {
    let sum = 0
    for (const report of [this.#first, this.#second]) {
      if (report !== undefined && now - report.at <= this.#settings.window) sum += report.failures + report.early
    }
    return sum
  }

  // --------------------------------------------------------------------------------------------- what comes in

  /** A call of a closed circuit has begun under a suspicion, or has ended. */
  add({ kind, period, suspicion: version, row, at, lastFailure, requestId }: Outcome): void {
    if (kind === 'failure') this.#requestId = requestId
    const before = this.#second
    const isOver = before !== undefined && at - before.at > this.#settings.window
    const tally = isOver ? emptyTally : speakingTo(version ?? before?.suspicion, before)
    const knew = version !== undefined
    this.#second = {
      kind: 'report',
      id: before?.id ?? this.#id(),
      period,
      // With a failure more, it is none.
      isBacklog: kind !== 'failure' && before?.isBacklog === true,
      lastFailure: lastFailure ?? before?.lastFailure,
      requestId: kind === 'failure' ? requestId : before?.requestId,
      at,
      ...tally,
      started: tally.started + Number(kind === 'started'),
      failures: tally.failures + Number(kind === 'failure' && knew),
      early: tally.early + Number(!knew),
      successes: tally.successes + Number(kind === 'success'),
      row: kind === 'started' ? (before?.row ?? 0) : row,
    }
  }

  /** The service works, and no suspicion is known: the failures that wait are no longer in a row, and a backlog is over. */
  endRow(): void {
    if (this.#first?.isBacklog === true) this.#endFirst()
    if (this.#second === undefined) return
    const { isBacklog, row } = this.#second
    this.#second = isBacklog ? undefined : { ...this.#second, row: Math.min(row, 1) }
  }

  addSettlement(settlement: Omit<Settlement, 'kind'>): void {
    this.#settlements.push({ kind: 'settlement', ...settlement })
  }

  /** The store is away: the outcomes that wait are a backlog from now on. */
  toBacklog(): void {
    this.#first = this.#first && { ...this.#first, isBacklog: true }
    this.#second = this.#second && { ...this.#second, isBacklog: true }
  }

  /** The fleet's circuit is in another epoch: earlier outcomes no longer count. */
  epochBegan(since: number): void {
    // After a deletion the same suspicion may be written again: it is another one.
    this.#trip = undefined
    if (this.#second !== undefined && this.#second.period < since) this.#second = undefined
    if (this.#first !== undefined && this.#first.period < since) this.#endFirst()
  }

  /** The record was deleted. */
  clear(): void {
    this.#settlements = []
    this.#endFirst()
    this.#second = undefined
  }

  // -------------------------------------------------------------------------------------------- what is written

  /** The trip that a record calls for, if it does: the same one as long as the record is the same. */
  tripOf(record: CircuitRecord | undefined, now: number): Trip | undefined {
    if (record === undefined || suspicion(record, now, this.#settings) !== 'guilty') return undefined
    if (this.#trip?.version !== record.version) this.#trip = { version: record.version, epoch: this.#id(), at: now }
    return this.#trip
  }

  /** Whether a call that begins now is announced. */
  announces(record: CircuitRecord, now: number): boolean {
    return wantsAnnouncements(record, now, this.#settings) && !this.#shares.isSole(record, now)
  }

  /** Whether this instance has spoken to a suspicion. */
  hasSpokenTo(version: string): boolean {
    return this.#shares.has(version)
  }

  /** The next step for the first thing that still counts; `undefined`: nothing waits. */
  next(known: Known): Step | undefined {
    for (;;) {
      const [settlement] = this.#settlements
      if (settlement !== undefined) {
        const write = this.#settle(settlement, known)
        if (write !== undefined) return write
        this.#settlements.shift()
        continue
      }
      const verdict = this.#verdict(known)
      if (verdict !== undefined) return verdict
      if (this.#waitsForLook(known)) return known.canRead ? { kind: 'read' } : undefined
      this.#first = this.#nextReport()
      if (this.#first === undefined) return undefined
      // It waits for a read, and reading is left alone.
      if (known.isHeldBack && this.#sent === undefined) return undefined
      if (known.isOutOfTouch && !known.canRead && this.needsFreshRecord) return undefined
      const step = this.#decide(this.#first, known)
      if (step !== undefined) return step
      this.#endFirst()
    }
  }

  #settle(settlement: Settlement, { record, now }: Known): Replacement | undefined {
    const { leaseId, outcome, at, lastFailure, isSecondOpinion } = settlement
    if (record === undefined || now - at > this.#settings.window) return undefined
    const settled = settle(record, leaseId, outcome, at, this.#settings, this.#tokens(settlement.epoch), lastFailure)
    if (settled === undefined) return undefined
    // The service works for another instance than the one that opened the circuit.
    const isHeard = isSecondOpinion && outcome === 'success'
    const isContradicted = isHeard && settled.state === 'CLOSED'
    const next = { ...settled, ...(isContradicted && countDismissal(record, at)), ...(isHeard && { othersAt: at }) }
    const reason = outcome === 'failure' ? 'probe-failed' : 'probe-succeeded'
    return this.#replace(record, next, settlement, reason, settlement)
  }

  /**
   * Whether others, who are known, may have contradicted since the record was read: it calls for a trip only because time has
   * passed, and what they add does not change its version.
   */
  #waitsForLook({ record, now, readAt }: Known): boolean {
    if (record?.othersAt === undefined || this.tripOf(record, now) === undefined) return false
    return suspicion(record, readAt, this.#settings) !== 'guilty'
  }

  /** The verdict that the record calls for. */
  #verdict(known: Known): Replacement | undefined {
    const { record, now, lastFailure } = known
    if (record === undefined || this.#waitsForLook(known)) return undefined
    const cause = { kind: 'verdict' } as const
    const trip = this.tripOf(record, now)
    if (trip !== undefined) {
      const { at, epoch } = trip
      const opened = open(record, at, this.#settings, this.#tokens(epoch), lastFailure)
      const next = { ...opened, ...lessonOf(record, at) }
      return this.#replace(record, next, cause, 'failure-threshold', { at, requestId: lastFailure && this.#requestId })
    }
    if (suspicion(record, now, this.#settings) !== 'innocent') return undefined
    const next = dismiss(record, now, this.#tokens(record.epoch))
    return { kind: 'replace', version: record.version, next, change: undefined, cause }
  }

  /** A report that was sent and not answered goes first and alone. Otherwise what is left over is merged with the rest. */
  #nextReport(): Report | undefined {
    const [first, second] = [this.#first, this.#second]
    if (this.#sent !== undefined) return first
    this.#second = undefined
    if (first === undefined || second === undefined) return second ?? first
    if (second.at - first.at > this.#settings.window) return second
    const { started, failures, successes, early } = speakingTo(second.suspicion, first)
    const isOnlyBacklog = second.failures + second.early === 0
    return {
      ...second,
      started: started + second.started,
      failures: failures + second.failures,
      successes: successes + second.successes,
      early: early + second.early,
      isBacklog: second.isBacklog || (first.isBacklog && isOnlyBacklog),
    }
  }

  #decide(report: Report, known: Known): Step | undefined {
    const { record, now, epoch } = known
    if (now - report.at > this.#settings.window || report.period < known.since) return undefined
    if (this.#sent?.kind === 'replace') return this.#repeat(this.#sent, record)
    // A backlog is measured by the record as it is now: the cached one is from before the store failed.
    if (report.isBacklog && known.isOutOfTouch) return { kind: 'read' }
    if (this.#sent !== undefined) return this.#repeat(this.#sent, record)
    if (record !== undefined && (record.state !== 'CLOSED' || activeOverride(record, now) !== undefined))
      return undefined
    if (record?.suspectedAt !== undefined) return this.#contribute(report, record, known)
    // In an outage most find that others have raised the suspicion already: an item takes more reads than writes.
    const isOld = report.at <= now && known.readAt < report.at - looksAfter * this.#settings.cacheTtl
    const looksFirst = known.canRead && !known.isOutOfTouch && isOld
    return looksFirst && report.row > 0 ? { kind: 'read' } : this.#raise(report, record, epoch, now)
  }

  /** This instance is the first to suspect the service. Its failures alone may already open the circuit. */
  #raise(report: Report, record: CircuitRecord | undefined, epoch: string, now: number): Replacement | undefined {
    const { at, isBacklog, lastFailure } = report
    // Meanwhile somebody else has raised one, and it has come to nothing.
    const isAnswered = record !== undefined && wasDismissedSince(record, at, now)
    const most = isBacklog ? this.#settings.failureThreshold - 1 : report.row
    if (report.row === 0 || most === 0 || isAnswered) return undefined
    // A failure that was told to a suspicion that came to nothing has had its say.
    const hasSpoken = record !== undefined && wasDismissedSince(record, at - this.#settings.window, now)
    const untold = Math.min(this.#shares.untold(report.row), most)
    const failures = hasSpoken ? untold : Math.min(report.row, most)
    const cause = { ...report, row: untold }
    this.#shares.offer(report.row)
    const base = record ?? emptyRecord(epoch, at)
    const raised = raise(base, now, { failures, at, lastFailure }, this.#settings, this.#tokens(base.epoch))
    if (isBacklog || suspicion(raised, now, this.#settings) !== 'guilty') {
      return { kind: 'replace', version: record?.version, next: raised, change: undefined, cause }
    }
    const next = open(raised, at, this.#settings, this.#tokens(this.#id()), lastFailure)
    return { ...this.#replace(raised, next, cause, 'failure-threshold', report), version: record?.version }
  }

  /** This instance speaks to the suspicion that the record is under. */
  #contribute(report: Report, record: CircuitRecord, { now, row }: Known): Addition | undefined {
    const { version } = record
    const { at, id, isBacklog } = report
    const contribution = this.#shares.contribute(speakingTo(version, report), record, now, isBacklog)
    if (contribution === undefined) return undefined
    this.#shares.offer(row)
    this.#sizeBefore = sizeOf(record)
    return { kind: 'add', version, outcomes: { ...contribution, at, id }, cause: report, isRepeated: false }
  }

  /** A record of another version shows what became of the write, or can no longer tell: it is not repeated. */
  #repeat(sent: Write, record: CircuitRecord | undefined): Write | undefined {
    // The store knows the last additions only: after many others this one might count twice. Better not at all.
    const mayBeForgotten = sent.kind === 'add' && sizeOf(record) - this.#sizeBefore > mostBetween
    return holds(sent, record) && !mayBeForgotten ? { ...sent, isRepeated: true } : undefined
  }

  #replace(
    from: CircuitRecord,
    next: CircuitRecord,
    cause: Replacement['cause'],
    reason: StateChangeReason,
    { at, requestId }: Pick<Report, 'at' | 'requestId'>,
  ): Replacement {
    const change = stateChange(this.#service, from, next, reason, at, requestId)
    return { kind: 'replace', version: from.version, next, cause, change }
  }

  #tokens(epoch: string): Tokens {
    return { epoch, version: this.#id() }
  }

  // ---------------------------------------------------------------------------------------------- what came of it

  /** A write leaves. Only additions and suspicions are repeated when their replies are missing. */
  sent(write: Write): void {
    const { cause } = write
    if (cause.kind === 'report' && write.change === undefined) this.#sent = write
  }

  /**
   * The reply to a write, in time or late. A settlement that is stored has lost its lease: it goes with the record.
   *
   * @param isStored whether the write is stored, by this attempt or by an earlier one
   */
  answered(write: Write, isStored: boolean): void {
    const { cause, isRepeated = false } = write
    // Where the report has ended without a reply, it was taken for told.
    if (cause.kind !== 'report' || this.#first?.id !== cause.id) return
    // A refusal says nothing of the repetition that is on its way.
    if (!isStored && this.#sent !== write) return
    this.#sent = undefined
    if (!isStored && !isRepeated) return
    // Refused on a repetition, the first attempt may have been counted before the version changed: not again.
    this.#shares.note(write)
    this.#first = undefined
  }

  /** Its write may be stored, though nobody has said so: then this instance has spoken. */
  #endFirst(): void {
    if (this.#sent !== undefined) this.#shares.note(this.#sent)
    this.#first = undefined
    this.#sent = undefined
  }
}

/** An instance that has not read for this part of `cacheTtl` looks before it raises a suspicion. */
const looksAfter = 0.3

/** An addition is repeated after no more outcomes of others than this: a store knows the ids of the last 16. */
const mostBetween = 8

/** The outcomes that a record holds; each addition adds at least one. */
function sizeOf(record: CircuitRecord | undefined): number {
  if (record === undefined) return 0
  return record.failureCount + record.successCount + record.startedCount + record.earlyCount
}
