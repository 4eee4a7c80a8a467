import type { StorageOperation } from '../../src/errors.ts'
import type { StateChange } from '../../src/index.ts'
import type { CircuitRecord } from '../../src/storage/contract.ts'
import type { Instance } from './instance.ts'

/** A request to the store, from the moment it is sent. */
export interface StoreRequest {
  readonly instance: Instance
  readonly operation: StorageOperation
  readonly key: string
  readonly sentAt: number
  /** Whether an operator asked for it. */
  readonly isOperators: boolean
  /** The id of an addition. */
  readonly additionId?: string
}

/** How a call was meant to be answered, and what came of it. */
export interface CallRecord {
  readonly instance: Instance
  readonly startedAt: number
  /** When its invocation began. */
  readonly invokedAt: number
  /** When Lambda kills it. */
  readonly endsAt: number
  /** How often the instance had been frozen. */
  readonly freezes: number
  /** When the operation started, if it did … */
  operationAt: number | undefined
  /** … the event of the world that it was in … */
  startedIn: number | undefined
  /** … the epoch that the instance was in … */
  epoch: string | undefined
  /** … and the state that it showed. */
  shownState: string | undefined
  /** When the operation ended, and with what. */
  endedAt: number | undefined
  outcome: CallOutcome | undefined
  /** What the operation was answered with: exactly this must reach the caller. */
  answer: unknown
  /** How many calls of this instance held a permit or waited for one when this one began. */
  readonly others: number
}

export type CallOutcome = 'success' | 'failure'

/** Sees everything that happens in a simulation. Each part is optional, so that a measurement pays for what it uses. */
export interface Observer {
  born?(instance: Instance): void
  killed?(instance: Instance): void
  /** A request goes on its way. */
  sent?(request: StoreRequest): void
  /** A request arrives at the store; `isRefused`: it was throttled or the store is out of order. */
  arrived?(request: StoreRequest, isRefused: boolean): void
  /** A write was carried out, or a record was deleted from outside (then without a request). */
  written?(
    before: CircuitRecord | undefined,
    after: CircuitRecord | undefined,
    request: StoreRequest | undefined,
    key: string,
  ): void
  /** An answer reached the instance. */
  answered?(request: StoreRequest, record: CircuitRecord | undefined, isError: boolean): void
  /** The service was asked. */
  operationStarted?(call: CallRecord): void
  /** The caller has its result: `value`, or `error` if `isError`. */
  callEnded?(call: CallRecord, isError: boolean, result: unknown): void
  stateChanged?(instance: Instance, change: StateChange): void
  /** A hook of the middleware came to its end. */
  hookEnded?(instance: Instance, hook: 'before' | 'after', took: number, wasFrozen: boolean): void
  invocationEnded?(instance: Instance): void
}
