/**
 * How much time refusals save.
 *
 * The estimate for a refused call is the median duration of the last 25 failed calls of its service in this process. Without a
 * failed call, for instance because the circuit was open when the process started, there is no estimate. If a service hangs, a
 * refusal saves the timeout. If a service answers 503 at once, a refusal saves almost nothing.
 *
 * @module
 */

import type { CallEvent, RefusedEvent } from './channels.ts'

/** So many failed calls of a service are remembered. */
const remembered = 25
/** The refusals that are none of a circuit: the call had waited for something else. */
const otherReasons: readonly string[] = ['concurrency', 'timeout', 'deadline', 'cancelled']

export class TimeSaved {
  /** By service. Written by {@link ended}. */
  readonly #durations = new Map<string, number[]>()

  /** A call has ended. Those that have failed tell what others would have taken. */
  ended({ service, outcome, duration }: CallEvent): void {
    if (outcome !== 'failure') return
    const durations = this.#durations.get(service) ?? []
    this.#durations.set(service, durations)
    durations.push(duration)
    if (durations.length > remembered) durations.shift()
  }

  /** The time that a refusal has saved, in milliseconds; `undefined`: this process cannot know, or the circuit has saved nothing. */
  by({ service, reason, mode }: RefusedEvent): number | undefined {
    if (mode !== 'enforce' || otherReasons.includes(reason)) return undefined
    const sorted = this.#durations.get(service)?.toSorted((a, b) => a - b)
    return sorted?.[sorted.length >> 1]
  }
}
