/**
 * Detects breakers that a handler makes again in each invocation.
 *
 * @module
 */

import { forgetOldest } from './circuit/forget-oldest.ts'
import type { Synchronizer } from './sync/synchronizer.ts'
import { warnOnce } from './warnings.ts'

/** The circuits of the last breaker, by their stored keys. Written by {@link warnIfRemade}. */
const made = new Map<string, WeakRef<readonly Synchronizer[]>>()
const remembered = 100

/**
 * Warns if an earlier breaker of this process has the same services. Two breakers in memory share no state. Two breakers over a
 * shared store may be intended, in two handlers of one bundle, but not if the earlier one was used before.
 *
 * @param circuits the circuits of a breaker that has made its store itself
 */
export function warnIfRemade(circuits: readonly Synchronizer[], isShared: boolean): void {
  const keys = circuits.map(({ storageKey }) => storageKey)
  const id = JSON.stringify([isShared, ...keys])
  const earlier = made.get(id)
  made.set(id, new WeakRef(circuits))
  forgetOldest(made, remembered)
  // A collected breaker was dropped, as a handler drops the breaker that it makes.
  const wasUsed = earlier?.deref()?.some(({ loadAttempted }) => loadAttempted) ?? true
  if (earlier === undefined || (isShared && !wasUsed)) return
  // One circuit of a key stands for all keys of its service.
  const names = circuits.map(({ storageKey, circuit }) => (circuit.key === undefined ? storageKey : circuit.service))
  void warnOnce((texts) => texts.remade([...new Set(names)], isShared), 'CIRCUIT_REMADE')
}
