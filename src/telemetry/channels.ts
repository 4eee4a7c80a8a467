/**
 * The diagnostics channels: every call, refusal, transition and operation at the store is published on one of them, for whoever
 * subscribes in this process. While nobody does, nothing is built.
 *
 * No event holds the message of an error, its stack or an answer: those may hold secrets.
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
  readonly service: string
  /** The key whose circuit it is; `undefined`: the circuit is the service's own. Keys may be many, and personal. */
  readonly key: string | undefined
  readonly mode: Mode
  /** Whether the call has a fallback, which answers in its place now. */
  readonly fallback: boolean
  /** Lambda's request id; `undefined` outside an invocation. */
  readonly requestId: string | undefined
}

/** Published on `middy-circuit-breaker:call` when a call has ended whose operation was started. */
export interface CallEvent extends EventOfCall {
  /** The lesson for the circuit. An answer such as a 404 is a `success`, whether it was thrown or returned. */
  readonly outcome: Outcome
  /** What the operation has failed of; `undefined` for a `success`. A call that took too long has the `code` `CIRCUIT_TIMEOUT`. */
  readonly failure: Omit<FailureSummary, 'at'> | undefined
  /** From the start of the operation to its end, in whole milliseconds. */
  readonly duration: number
}

/** Published on `middy-circuit-breaker:refused` for a call whose operation was not started. */
export interface RefusedEvent extends EventOfCall {
  /**
   * The `reason` of a `CircuitOpenError`; or `concurrency`: too many calls waited for a permit; `timeout`, `deadline`: the time was
   * over while it waited; `cancelled`: the caller's own signal was aborted.
   */
  readonly reason: RefusalReason | TimeoutReason | 'concurrency' | 'cancelled'
  /** After which time another try can succeed, in milliseconds; `undefined`: the circuit has not refused it. */
  readonly retryAfter: number | undefined
}

/** Published on `middy-circuit-breaker:store` after each operation at the store. */
export interface StoreEvent {
  readonly services: readonly string[]
  readonly operation: StorageOperation
  /** In whole milliseconds. */
  readonly duration: number
  /** Of which kind its failure is; `undefined`: it has succeeded. */
  readonly error: StorageErrorKind | undefined
}

/** The events by the name of their channel. */
export interface CircuitChannels {
  readonly 'middy-circuit-breaker:call': CallEvent
  readonly 'middy-circuit-breaker:refused': RefusedEvent
  /** Every transition that this instance makes or learns of: `observed` tells which. */
  readonly 'middy-circuit-breaker:state': StateChange
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
