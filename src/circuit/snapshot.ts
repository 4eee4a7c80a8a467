/**
 * The live, read-only face of a circuit for handlers. It keeps nothing: every property asks the circuit when it is read.
 *
 * @module
 */

import type { Runtime } from '../runtime.ts'
import type { Mode } from '../settings/table.ts'
import type { CircuitOverride, CircuitState, FailureSummary } from '../storage/contract.ts'
import type { Circuit } from './circuit.ts'
import { activeOverride, effectiveState, retryTime } from './state-machine.ts'

/** The circuits of a keyed service. */
export interface KeyedCircuits {
  /**
   * The live snapshot of a key's circuit. One that has had no call in this instance, or none for long, is not known: it reads
   * `CLOSED`.
   *
   * @throws {ConfigurationError} if it is no key
   */
  of(key: string): CircuitSnapshot
  /** The live snapshot of the service's own circuit; `undefined` without `keyed: { parent: true }`. */
  readonly parent: CircuitSnapshot | undefined
}

/**
 * The live snapshots of all services, by service key; for those that are keyed, what finds the snapshot of a key. It has no
 * prototype, so that a service may have any name.
 */
export type Circuits<K extends string = string, D extends string = never> = {
  readonly [Key in K]: Key extends D ? KeyedCircuits : CircuitSnapshot
}

/**
 * A circuit as this instance knows it, read-only and live: each property is computed when it is read. Instants are
 * milliseconds since the epoch.
 */
export interface CircuitSnapshot {
  /** The service key. */
  readonly service: string
  /** The key of a keyed service; absent: the circuit is the service's own. */
  readonly key?: string
  /**
   * The state to act on. `OPEN` only until `retryAt`; from then on it reads `HALF_OPEN`, so that a handler that only
   * asks for `OPEN` lets the probe through. In `mode: 'observe'` it is what would hold; calls pass all the same. With
   * `mode: 'off'` nothing is read, so that it is `CLOSED` unless this breaker itself has forced it open.
   */
  readonly state: CircuitState
  /** The setting `mode` of the service. */
  readonly mode: Mode
  /**
   * Whose state it is: the fleet's; or the `instance`'s own, which refuses by itself after `failureThreshold` failures in a row
   * although the fleet's circuit is closed.
   */
  readonly scope: 'fleet' | 'instance'
  /** Failures in a row, fleet-wide as far as known here. */
  readonly failureCount: number
  /** Successful probes of the current half-open period. */
  readonly successCount: number
  /** When the circuit opened; `undefined` if it is closed. */
  readonly openedAt: number | undefined
  /** When the open circuit lets a probe through; `undefined` if it is closed, or forced open without an end. */
  readonly retryAt: number | undefined
  /** When a call failed last, as far as known here; `undefined`: none has. */
  readonly lastFailureAt: number | undefined
  /** The failure that opened the circuit last: its name, code and HTTP status, never its message. */
  readonly lastFailure: FailureSummary | undefined
  /** Counts the changes of state. */
  readonly generation: number
  /**
   * Random token of the current period: new with every change of state. An outcome counts only if the epoch is still the one
   * in which its call was admitted, without another in between.
   */
  readonly epoch: string
  /** An operator's override, if one is set. */
  readonly override: CircuitOverride | undefined
  /**
   * How many calls of this instance have had to wait for one of the permits of `maxConcurrent` until now. In `mode: 'observe'`,
   * where none waits: how many would have had to.
   */
  readonly queued: number
}

/** A circuit, and the permits of its calls. */
interface Guarded {
  readonly circuit: Circuit
  readonly permits: { readonly queued: number }
}

/** Node's name of the method that says how an object is printed. */
const inspect = Symbol.for('nodejs.util.inspect.custom')

/**
 * The live snapshot of a circuit. Its properties are its own and enumerable, so that it can be copied; printed by
 * `console.log` it shows its values instead of getters.
 *
 * @param guardOf the circuit and its permits, asked for at each reading: a key's circuit may be made later, and be forgotten
 */
export function snapshotOf(
  guardOf: () => Guarded,
  { now }: Pick<Runtime, 'now'>,
  { service, settings }: Pick<Circuit, 'service' | 'settings'>,
  key?: string,
): CircuitSnapshot {
  const circuitOf = (): Circuit => guardOf().circuit
  const snapshot: CircuitSnapshot = {
    service,
    ...(key !== undefined && { key }),
    mode: settings.mode,
    get state() {
      return effectiveState(circuitOf().acting, now(), settings)
    },
    get failureCount() {
      return circuitOf().failureCount
    },
    get successCount() {
      return circuitOf().view.successCount
    },
    get scope() {
      const circuit = circuitOf()
      return circuit.acting === circuit.view ? 'fleet' : 'instance'
    },
    get openedAt() {
      return circuitOf().acting.openedAt
    },
    get retryAt() {
      const forced = activeOverride(circuitOf().view, now())
      if (forced !== undefined) return forced.state === 'OPEN' ? forced.until : undefined
      const { acting } = circuitOf()
      return acting.retryAt === undefined ? undefined : retryTime(acting, settings)
    },
    get lastFailureAt() {
      return circuitOf().view.lastFailureAt
    },
    get lastFailure() {
      return circuitOf().acting.lastFailure
    },
    get generation() {
      return circuitOf().view.generation
    },
    get epoch() {
      return circuitOf().view.epoch
    },
    get override() {
      return circuitOf().view.override
    },
    get queued() {
      return guardOf().permits.queued
    },
  }
  return Object.freeze(Object.defineProperty(snapshot, inspect, { value: () => ({ ...snapshot }) }))
}
