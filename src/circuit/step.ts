/**
 * The vocabulary between the core and its driver: what is to be done at the store, and why. `Outbox` and `ProbeClaims` make
 * steps, `sync/` carries them out and hands each write back with its reply. A step is never changed. A write always names
 * the version that it was decided on.
 *
 * @module
 */

import type { StateChange } from '../events.ts'
import type { CircuitRecord, ExpectedVersion, FailureIncrement } from '../storage/contract.ts'
import type { Failure, ProbeOutcome } from './state-machine.ts'

/** The next thing that this instance does at the store. Nothing in here waits: `sync/` carries steps out. */
export type Step = Read | Write

/** The record is read again. */
export interface Read {
  readonly kind: 'read'
  /** The longest that the next step waits for it, in milliseconds; absent: as long as the store may take. */
  readonly longest?: number
}

/** One conditional write. */
export type Write = Addition | Replacement

/** Failures are added, unless the record is another one than `version` says. */
export interface Addition {
  readonly kind: 'add'
  readonly version: ExpectedVersion
  readonly increment: FailureIncrement
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

/** The reason for a replacement: something in the outbox, a wish for a probe, or an operator. */
export type Cause = Settlement | DueTrip | Report | { readonly kind: 'claim' } | { readonly kind: 'operation' }

/** Failures of a closed circuit, after a success if there was one. A report that may have been counted never grows. */
export interface Report {
  readonly kind: 'report'
  /** Identifies its addition. */
  readonly id: string
  /** The period in which it was made. */
  readonly period: number
  /** Whether there was a success, before the failures. */
  readonly success: boolean
  readonly failures: number
  /** How many of the failures waited while the store was away. */
  readonly backlog: number
  /** Whether the record is looked at before anything is written: the circuit may be open already. */
  readonly looksFirst: boolean
  /** When the last failure happened, in milliseconds since the epoch. */
  readonly at: number
  readonly lastFailure: Failure | undefined
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
}

/** A trip that is due because a failure of this instance has completed the count. */
export interface DueTrip {
  readonly kind: 'trip'
  readonly at: number
  readonly lastFailure: Failure | undefined
  readonly requestId: string | undefined
}
