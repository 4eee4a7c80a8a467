/**
 * What log lines and metrics say alike: what an outage is, and who has forced a circuit.
 *
 * @module
 */

import type { StateChange } from '../../events.ts'

/** From HALF_OPEN a probe has failed: that is still the outage that was told when it began. An operator's word is none. */
export function isOutage({ from, to, reason }: StateChange): boolean {
  return from === 'CLOSED' && to === 'OPEN' && reason !== 'forced-open'
}

/** Who has forced or reset a circuit, why, and until when. */
export function operatorOf({ by, why, until }: Pick<StateChange, 'by' | 'why' | 'until'>): Record<string, string> {
  return {
    ...(by !== undefined && { operator: by }),
    ...(why !== undefined && { operator_why: why }),
    ...(until !== undefined && { operator_until: new Date(until).toISOString() }),
  }
}
