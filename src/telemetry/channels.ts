/**
 * The diagnostics channels. Each call, refusal, transition and operation at the store is published on a channel for subscribers in
 * this process. Without a subscriber no event is built.
 *
 * No event holds an error's message or stack, or a response: they may hold secrets.
 *
 * @module
 */

import { type Channel, channel } from 'node:diagnostics_channel'
import {
  isCircuitOpenError,
  isCircuitTimeoutError,
  isConcurrencyLimitError,
  type RefusalReason,
  type StorageErrorKind,
  type StorageOperation,
  type TimeoutReason,
} from '../errors.ts'
import type { StateChange } from '../events.ts'
import type { Outcome } from '../failures/classification.ts'
import type { Mode } from '../settings/table.ts'
import type { FailureSummary } from '../storage/contract.ts'

/** The members that the events of calls share. */
interface EventOfCall {
  /** The service key. */
  readonly service: string
  /** The key of the circuit; `undefined`: the service's own circuit. Keys may be many, and personal data. */
  readonly key: string | undefined
  /** The setting `mode` of the service. */
  readonly mode: Mode
  /** Whether the call has a fallback, which answers in its place now. */
  readonly fallback: boolean
  /** Lambda's request id; `undefined` outside an invocation. */
  readonly requestId: string | undefined
}

/** Published on `middy-circuit-breaker:call` when a call has ended whose operation was started. */
export interface CallEvent extends EventOfCall {
  /** The outcome for the circuit. An answer such as a 404 is a `success`, whether it was thrown or returned. */
  readonly outcome: Outcome
  /** Why the operation failed; `undefined` for a `success`. A call that took too long has the `code` `CIRCUIT_TIMEOUT`. */
  readonly failure: Omit<FailureSummary, 'at'> | undefined
  /** From the start of the operation to its end, in whole milliseconds. */
  readonly duration: number
}

/** Published on `middy-circuit-breaker:refused` for a call whose operation was not started. */
export interface RefusedEvent extends EventOfCall {
  /** Why the operation was not started. */
  readonly reason: /** The circuit refused the call: the `reason` of a `CircuitOpenError`. */
    | RefusalReason
    /** The time was over while the call waited for a permit: the `reason` of a `CircuitTimeoutError`. */
    | TimeoutReason
    /** Too many calls waited for a permit. */
    | 'concurrency'
    /** The caller's own signal was aborted. */
    | 'cancelled'
  /** How long to wait before another try can succeed, in milliseconds; `undefined`: another reason than the circuit. */
  readonly retryAfter: number | undefined
}

/** Published on `middy-circuit-breaker:store` after each operation at the store. */
export interface StoreEvent {
  /** The services that the operation was for. */
  readonly services: readonly string[]
  /** The operation, by its name in the storage contract. */
  readonly operation: StorageOperation
  /** From the request to the answer, in whole milliseconds. */
  readonly duration: number
  /** The kind of its failure; `undefined`: it succeeded. */
  readonly error: StorageErrorKind | undefined
}

/** The events by the name of their channel. */
export interface CircuitChannels {
  /** Every call that has ended and whose operation was started. */
  readonly 'middy-circuit-breaker:call': CallEvent
  /** Every call whose operation was not started. */
  readonly 'middy-circuit-breaker:refused': RefusedEvent
  /** Every transition that this instance makes or learns of: `observed` tells which. */
  readonly 'middy-circuit-breaker:state': StateChange
  /** Every operation at the store. */
  readonly 'middy-circuit-breaker:store': StoreEvent
}

export const callChannel: Channel = channel('middy-circuit-breaker:call')
export const refusalChannel: Channel = channel('middy-circuit-breaker:refused')
export const transitionChannel: Channel = channel('middy-circuit-breaker:state')
export const storeChannel: Channel = channel('middy-circuit-breaker:store')

/** A circuit, as far as events name it. */
interface Named {
  readonly service: string
  readonly key?: string | undefined
  readonly settings: { readonly mode: Mode }
}

/** Tells of a call that has ended. */
export function tellCall(
  { service, key, settings: { mode } }: Named,
  outcome: Outcome,
  failure: CallEvent['failure'],
  duration: number,
  requestId: string | undefined,
  fallback: boolean,
): void {
  const event: CallEvent = { service, key, mode, outcome, failure, duration, fallback, requestId }
  callChannel.publish(event)
}

/** Tells of a call that was not started, by the error that it ends with. */
export function tellRefusal(
  { service, key, settings: { mode } }: Named,
  error: unknown,
  requestId: string | undefined,
  fallback: boolean,
): void {
  if (!refusalChannel.hasSubscribers) return
  const isOpen = isCircuitOpenError(error)
  const reason = isOpen || isCircuitTimeoutError(error) ? error.reason : undefined
  const event: RefusedEvent = {
    service,
    // The service as a whole may have refused it.
    key: isOpen ? error.key : key,
    mode,
    reason: reason ?? (isConcurrencyLimitError(error) ? 'concurrency' : 'cancelled'),
    retryAfter: isOpen ? error.retryAfter : undefined,
    fallback,
    requestId,
  }
  refusalChannel.publish(event)
}
