/**
 * Divides the time of an invocation between calls and the store.
 *
 * @module
 */

import { type Synchronizer, storeShareOf } from '../sync/synchronizer.ts'
import { warnOfStoreShare } from '../warnings.ts'
import { fairTimeFor } from './call-limits.ts'

/** The time of an invocation without the longest `deadlineReserve` of these services, in milliseconds. */
export function roomForCalls(circuits: readonly Synchronizer[], timeLeft: number): number {
  return timeLeft - Math.max(0, ...circuits.map(({ circuit }) => circuit.settings.deadlineReserve))
}

/** Warns if a store that does not answer leaves too little time for a service's calls. */
export function warnOfLittleRoom(circuits: readonly Synchronizer[], timeLeft: number, storageTimeout: number): void {
  for (const { circuit, store } of circuits) {
    if (store.storage.shared === false) return
    const { service, settings } = circuit
    const fairTime = fairTimeFor(settings.timeout)
    const room = timeLeft - settings.deadlineReserve
    const share = storeShareOf(room, storageTimeout)
    if (share > 0 && room - share < fairTime) {
      warnOfStoreShare(service, settings, fairTime, timeLeft, share)
      return
    }
  }
}
