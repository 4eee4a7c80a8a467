/**
 * The event of a write that changes the state, and of an operator's write that leaves it as it is.
 *
 * @module
 */

import type { Evidence, StateChange, StateChangeReason } from '../events.ts'
import type { CircuitRecord, OperatorWords } from '../storage/contract.ts'

/** The event of a write; `undefined` where the state stays the same and no override begins or ends. */
export function stateChange(
  service: string,
  from: CircuitRecord,
  next: CircuitRecord,
  reason: StateChangeReason,
  at: number,
  requestId: string | undefined,
  { by, why }: OperatorWords = {},
): StateChange | undefined {
  // An override that is over ends with any write. That is nobody's word.
  const endsOverride = from.override !== undefined && /^(re)?set$/.test(reason)
  if (from.state === next.state && next.override === undefined && !endsOverride) return undefined
  const { state: to, generation, lastFailure, retryAt, override } = next
  const evidence = reason === 'failure-threshold' ? evidenceOf(from) : undefined
  return {
    service,
    from: from.state,
    to,
    generation,
    at,
    reason,
    requestId,
    observed: false,
    evidence,
    lastFailure,
    retryAt,
    by,
    why,
    until: override?.until,
  }
}

/** The sample that has opened a circuit. */
function evidenceOf({ failureCount, earlyCount, successCount, reporterCount }: CircuitRecord): Evidence {
  return { failures: failureCount + earlyCount, successes: successCount, reporters: reporterCount }
}
