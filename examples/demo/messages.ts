/**
 * What the processes tell each other.
 *
 * @module
 */

import type { StateChange } from '../../src/index.ts'
import type { Call, InstanceId } from './recording.ts'

/** From the demo to a process, for all of its instances. Instants are milliseconds since the epoch. */
export type Order =
  | { readonly type: 'warm' }
  | { readonly type: 'run'; readonly startAt: number; readonly interval: number; readonly invocations: number }

/** From a process to the demo; `number` is that of the instance. */
export type Message =
  /** The modules are loaded. */
  | { readonly type: 'loaded' }
  /** Service and store have answered. */
  | { readonly type: 'warm' }
  | { readonly type: 'call'; readonly number: number; readonly call: Omit<Call, keyof InstanceId> }
  | { readonly type: 'change'; readonly number: number; readonly change: StateChange; readonly reportedAt: number }
  | { readonly type: 'storageError'; readonly number: number; readonly at: number; readonly message: string }
  | { readonly type: 'done' }
  | { readonly type: 'failed'; readonly reason: string }

/** Sends a message to the demo. */
export function tell(message: Message): void {
  if (process.connected) process.send?.(message)
}
