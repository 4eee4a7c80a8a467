/**
 * Notices breakers that are made again and again: inside a handler instead of beside it.
 *
 * @module
 */

import { forgetOldest } from './circuit/forget-oldest.ts'
import type { Synchronizer } from './sync/synchronizer.ts'
import { warnOnce } from './warnings.ts'

/** The circuits of the last breaker, by its stored keys. Written by {@link warnIfRemade}. */
const made = new Map<string, WeakRef<readonly Synchronizer[]>>()
const remembered = 100

/**
 * Warns of a breaker that begins anew where an earlier one of this process has the same services. In memory, the two never
 * share anything. In a shared store two may be meant, in two handlers of one bundle; not so once the earlier one was used.
 *
 * @param circuits those of a breaker that has made its store itself
 */
export function warnIfRemade(circuits: readonly Synchronizer[], isShared: boolean): void {
  const keys = circuits.map(({ storageKey }) => storageKey)
  const id = JSON.stringify([isShared, ...keys])
  const earlier = made.get(id)
  made.set(id, new WeakRef(circuits))
  forgetOldest(made, remembered)
  // One that is gone was dropped, as those are that a handler makes.
  const wasUsed = earlier?.deref()?.some(({ loadAttempted }) => loadAttempted) ?? true
  if (earlier === undefined || (isShared && !wasUsed)) return
  // A circuit of a key stands for those of its service.
  const names = circuits.map(({ storageKey, circuit }) => (circuit.key === undefined ? storageKey : circuit.service))
  void warnOnce((texts) => texts.remade([...new Set(names)], isShared), 'CIRCUIT_REMADE')
}
