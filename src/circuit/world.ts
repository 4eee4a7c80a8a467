/**
 * The surroundings of a circuit: all that it is handed from outside. A circuit asks the clock, for chance and for ids, and how
 * the way to the store is doing. It says when its events are due, and when it begins to refuse.
 *
 * @module
 */

import type { CircuitOpenError } from '../errors.ts'
import type { StateChange } from '../events.ts'
import type { Runtime } from '../runtime.ts'

/** How the way to the store is doing. */
export interface Reachability {
  /** `false` while reading is left alone after failures. */
  readonly canRead: boolean
  /** `false` while writing is left alone after failures. */
  readonly canWrite: boolean
  /** Whether it is left alone because the store throttles. */
  readonly throttlesWrites: boolean
}

/** The surroundings that a circuit works with. */
export interface CircuitWorld {
  /** The key of a keyed service; absent: the circuit is the service's own. */
  readonly key?: string | undefined
  readonly runtime: Pick<Runtime, 'now' | 'random' | 'id'>
  readonly store: Reachability
  /** Whether other instances use the same store. */
  readonly isShared: boolean
  /** The longest that a round trip to the store may take, in milliseconds. */
  readonly storageTimeout: number
  /** Takes the events when the view is up to date. */
  readonly emit: (change: StateChange) => void
  /** Is called when the view begins to refuse calls, with what makes the error of each. */
  readonly onRefusing: (error: () => CircuitOpenError) => void
}
