/**
 * The contributions of this instance to the suspicions of late, and the next one.
 *
 * While others are known one instance contributes no more than its share of failures, and one failure that ran into the
 * suspicion. The rest is its excess: it counts if the instance turns out to be alone. The failures in a row with which it
 * raised a suspicion are excess from the start: otherwise an instance whose own refusal lets few calls through could not fill
 * the sample within the window.
 *
 * `Outbox` alone writes it: `contribute` when it decides on a report, `note` when a write is stored, or may be.
 *
 * @module
 */

import type { ServiceSettings } from '../settings/table.ts'
import type { CircuitRecord, Outcomes } from '../storage/contract.ts'
import { forgetOldest } from './forget-oldest.ts'
import type { Addition, Replacement, Report, Write } from './step.ts'
import { isAlone, longestShare } from './suspicion.ts'

/** The share of this instance in a suspicion. */
interface Share {
  /** Failures that were contributed. */
  readonly failures: number
  /** Failures beyond its share. They count if it turns out to be alone. */
  readonly excess: number
  /** Whether a failure that ran into the suspicion was contributed. */
  readonly hasEarly: boolean
  /** Whether an outcome was contributed. */
  readonly hasReported: boolean
}

/** No reply comes later than after so many suspicions. */
const remembered = 4

export class Shares {
  readonly #settings: ServiceSettings
  /** By the version of the suspicion: a late reply may belong to an earlier one. Written by `contribute` and `note`. */
  readonly #shares = new Map<string, Share>()

  /** Failures in a row when the last contribution left. Written by `offer`. */
  #offered = 0
  /** … and when the last one was stored. Written by `note`. */
  #told = 0

  constructor(settings: ServiceSettings) {
    this.#settings = settings
  }

  /** Whether this instance has spoken to a suspicion. */
  has(version: string): boolean {
    return this.#shares.has(version)
  }

  /** Whether nobody but this instance speaks to the suspicion that the record is under. */
  isSole(record: CircuitRecord, now: number): boolean {
    return this.has(record.version) && isAlone(record, now, this.#settings)
  }

  /** The outcomes to add to the record for what was seen; `undefined`: none. */
  contribute(
    tally: Tally,
    record: CircuitRecord,
    now: number,
    isBacklog: boolean,
  ): Omit<Outcomes, 'at' | 'id'> | undefined {
    const { version } = record
    const said = this.#shares.get(version)
    const { failures: given = 0, excess = 0, hasEarly = false, hasReported = false } = said ?? {}
    // A backlog does not complete the count: it says how the service was while the store was away.
    const { failureThreshold } = this.#settings
    const left = isBacklog ? Math.max(0, failureThreshold - 1 - record.failureCount - record.earlyCount) : Infinity
    let { started, failures, successes, early } = tally
    if (this.isSole(record, now)) {
      // Nobody else is heard: all that this instance has seen counts.
      failures = Math.min(tally.failures + tally.early + excess, left)
      started = 0
      early = 0
      this.#shares.set(version, { failures: given, excess: 0, hasEarly, hasReported })
    } else {
      const share = Math.max(0, longestShare(record, now, this.#settings) - given)
      failures = Math.min(tally.failures, share, left)
      early = Number(!isBacklog && tally.early > 0 && !hasEarly && record.successCount === 0)
      const over = excess + tally.failures - failures + tally.early - early
      if (said !== undefined) this.#shares.set(version, { ...said, excess: over })
    }
    if (failures + successes + early + started === 0) return undefined
    // A call that has begun says nothing of the service yet.
    const reporters = Number(!hasReported && failures + successes + early > 0)
    return { started, failures, successes, early, reporters }
  }

  /** A contribution or a new suspicion leaves, after so many failures in a row. */
  offer(row: number): void {
    this.#offered = row
  }

  /** How many failures of a row were not told to any suspicion. */
  untold(row: number): number {
    return row > this.#told ? row - this.#told : row
  }

  /** A write of this instance is stored, or may be. */
  note(write: Write): void {
    this.#told = this.#offered
    const { version, failures, early, reporters, row } = write.kind === 'add' ? addedBy(write) : raisedBy(write)
    const before = this.#shares.get(version)
    this.#shares.set(version, {
      failures: (before?.failures ?? 0) + failures,
      excess: before?.excess ?? Math.max(0, row - failures - early),
      hasEarly: before?.hasEarly === true || early > 0,
      hasReported: before?.hasReported === true || reporters > 0,
    })
    forgetOldest(this.#shares, remembered)
  }
}

/** The words of a write to the suspicion of this version. `row`: failures in a row that its author has told to no other. */
type Words = Pick<Outcomes, 'failures' | 'early' | 'reporters'> & { readonly version: string; readonly row: number }

function addedBy({ version, outcomes }: Addition): Words {
  return { ...outcomes, version, row: 0 }
}

function raisedBy({ next, cause }: Replacement): Words {
  const { version, failureCount: failures, earlyCount: early } = next
  return { version, failures, early, reporters: 1, row: cause.kind === 'report' ? cause.row : 0 }
}

/** The outcomes that speak to a suspicion. */
export type Tally = Pick<Report, 'suspicion' | 'started' | 'failures' | 'successes' | 'early'>

export const emptyTally: Tally = { suspicion: undefined, started: 0, failures: 0, successes: 0, early: 0 }

/** The part of a report that speaks to a suspicion. To another one than its own: only that it has run into it. */
export function speakingTo(version: string | undefined, report: Tally | undefined): Tally {
  if (report === undefined) return { ...emptyTally, suspicion: version }
  const { suspicion: own, started, failures, successes, early } = report
  if (own === version) return { suspicion: own, started, failures, successes, early }
  return { ...emptyTally, suspicion: version, early: failures + early }
}
