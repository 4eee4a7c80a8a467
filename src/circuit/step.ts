/**
 * The vocabulary between the core and its driver: what is to be done at the store, and why. `Outbox` and `ProbeClaims` make
 * steps, `sync/` carries them out and hands each write back with its reply. A step is never changed. A write always names
 * the version that it was decided on.
 *
 * @module
 */

import type { StateChange } from '../events.ts'
import type { CircuitRecord, ExpectedVersion, Outcomes } from '../storage/contract.ts'
import type { Failure, ProbeOutcome } from './state-machine.ts'

/** The next thing that this instance does at the store. Nothing in here waits: `sync/` carries steps out. */
export type Step = Read | Write

/** The record is read again. */
export interface Read {
  readonly kind: 'read'
}

/** One conditional write. */
export type Write = Addition | Replacement

/** Outcomes are added, unless the record is another one than `version` says. */
export interface Addition {
  readonly kind: 'add'
  readonly version: string
  readonly outcomes: Outcomes
  readonly cause: Report
  /** Whether it was sent before and not answered. */
  readonly isRepeated: boolean
  /** An addition replaces nothing, and no state changes. */
  readonly next?: undefined
  readonly change?: undefined
}

/** The record is replaced, unless it is another one than `version` says. */
export interface Replacement {
  readonly kind: 'replace'
  readonly version: ExpectedVersion
  readonly next: CircuitRecord
  /** The event of this write; absent where the state stays the same. */
  readonly change: StateChange | undefined
  readonly cause: Cause
  /** Whether it was sent before and not answered. */
  readonly isRepeated?: boolean
}

/** The reason for a replacement: something in the outbox, a verdict, a wish for a probe, or an operator. */
export type Cause = Settlement | Report | { readonly kind: 'verdict' | 'claim' | 'operation' }

/** Outcomes of a closed circuit. A report that may have been counted never grows. */
export interface Report {
  readonly kind: 'report'
  /** Identifies its addition. */
  readonly id: string
  /** The period in which it was made. */
  readonly period: number
  /** The version of the suspicion that the next four speak to; `undefined`: none was known. */
  readonly suspicion: string | undefined
  /** Calls that began under it, and were announced. */
  readonly started: number
  /** Failures of calls that began when this instance knew of the suspicion. */
  readonly failures: number
  /** Successes of such calls. */
  readonly successes: number
  /** Failures of other calls. */
  readonly early: number
  /** Failures in a row, with which this instance would raise a suspicion; 0: it would not. */
  readonly row: number
  /** Whether it waited while the store was away. */
  readonly isBacklog: boolean
  /** When the last outcome came, in milliseconds since the epoch. */
  readonly at: number
  readonly lastFailure: Failure | undefined
  /** The request of the last failure. */
  readonly requestId: string | undefined
}

/** The end of a probe. */
export interface Settlement {
  readonly kind: 'settlement'
  readonly leaseId: string
  readonly outcome: ProbeOutcome
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
  /** The epoch that begins if the state changes. */
  readonly epoch: string
  /** Whether another instance has opened the circuit, so that this probe is a second opinion. */
  readonly isSecondOpinion: boolean
}
