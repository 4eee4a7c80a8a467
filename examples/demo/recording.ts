/**
 * What is recorded of a run. Times are milliseconds since the start of the scenario; what happened while the processes
 * were warmed up has negative ones.
 *
 * @module
 */

import type { CircuitRecord, CircuitState, ServiceSettings, StateChange } from '../../src/index.ts'
import type { Failure, Phase } from './scenario.ts'

/** `none`: no circuit. `alone`: a circuit in each instance, in memory. `shared`: one circuit for all, in DynamoDB. */
export type Fleet = 'none' | 'alone' | 'shared'

/** One instance: what Lambda makes of a function, with a handler of its own. */
export interface InstanceId {
  readonly fleet: Fleet
  /** From 1. */
  readonly number: number
}

/** One invocation, as the instance saw it. */
export interface Call extends InstanceId {
  readonly endedAt: number
  /** Of the whole invocation, reads of the shared state included. */
  readonly latency: number
  /** `served` by the service, `refused` by the circuit, or `failed`; the last two were answered by the fallback. */
  readonly outcome: 'served' | 'refused' | 'failed'
  /** What a failed call failed with, for instance `HTTP 503`. */
  readonly error?: string | undefined
  /** The state of the circuit in this instance after the call. */
  readonly state: CircuitState
}

/** One request, as the service saw it. */
export interface Arrival extends InstanceId {
  readonly arrivedAt: number
  /** When the instance sent it, … */
  readonly sentAt: number
  /** … and the circuit that let it pass: only a probe is sent by a circuit that is not closed. */
  readonly state: CircuitState
  readonly generation: number
  /** What the service did to it; `undefined`: it answered well. */
  readonly failure: Failure | undefined
}

/** A transition, with the instance whose write made it. */
export interface Transition extends InstanceId {
  readonly from: CircuitState
  readonly to: CircuitState
  readonly generation: number
  readonly reason: StateChange['reason']
  readonly at: number
  /** When the listener was called: the write had been acknowledged by then. */
  readonly reportedAt: number
}

/** One request to DynamoDB. */
export interface DatabaseRequest {
  readonly at: number
  /** For instance `UpdateItem`. */
  readonly operation: string
}

/** A failure of the store, as an instance reported it. */
export interface StorageFailure extends InstanceId {
  readonly at: number
  readonly message: string
}

/** Everything that is known of a run. */
export interface Recording {
  readonly phases: readonly Phase[]
  readonly fleetSize: number
  /** As the instances had them: options and environment. */
  readonly settings: ServiceSettings
  readonly calls: readonly Call[]
  readonly arrivals: readonly Arrival[]
  readonly transitions: readonly Transition[]
  readonly requests: readonly DatabaseRequest[]
  readonly storageFailures: readonly StorageFailure[]
  /** The shared circuit as it is stored at the end. */
  readonly record: CircuitRecord | undefined
}

/** The middle value, or another percentile; `NaN` of nothing. */
export function percentile(values: readonly number[], percent = 50): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? Number.NaN
}
