/**
 * Subscriptions to the channels of circuits, for the entries of this package that tell of circuits elsewhere.
 *
 * @module
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { isObject, Problems } from '../settings/problems.ts'
import type { CircuitChannels } from './channels.ts'

/** Hears the events of these channels. */
export type Listeners = { readonly [Name in keyof CircuitChannels]?: (event: CircuitChannels[Name]) => void }

/**
 * Subscribes to channels. A listener that throws hurts nobody: its first error is warned of, by its name.
 *
 * @param of the function that subscribes, for the warning
 * @returns what unsubscribes
 */
export function listen(of: string, listeners: Listeners): () => void {
  let hasWarned = false
  const guarded = Object.entries(listeners).map(([name, listener]) => {
    const safely = (event: unknown): void => {
      try {
        listener(event as never)
      } catch (error) {
        if (hasWarned) return
        hasWarned = true
        const { name: thrown } = Object(error) as { readonly name?: unknown }
        const text = `${of} has failed with ${typeof thrown === 'string' ? thrown : 'an error'}. Its later failures are not reported.`
        process.emitWarning(text, { type: 'CircuitBreakerWarning', code: 'CIRCUIT_TELEMETRY' })
      }
    }
    subscribe(name, safely)
    return [name, safely] as const
  })
  return () => {
    for (const [name, safely] of guarded) unsubscribe(name, safely)
  }
}

/**
 * @param methods that `value` must have
 * @throws {ConfigurationError} naming what is missing
 */
export function refuseWithout(of: string, name: string, value: unknown, methods: readonly string[]): void {
  const problems = new Problems()
  const missing = methods.filter((method) => typeof (isObject(value) ? value[method] : undefined) !== 'function')
  if (missing.length > 0) problems.mustBe(`an object with ${methods.join(', ')}`, name, of, value)
  problems.throwIfAny()
}

/** As many failed calls are remembered for {@link TimeSaved}, by service. */
const remembered = 25
/** So many services are: without keys there are no more than a handler has. */
const maxServices = 1_000

/**
 * How much time refusals save.
 *
 * A refused call is taken to have cost as much as failed ones did: the median of the last 25 calls of the service that this
 * process has seen fail. Where it has seen none, because the circuit was open when it started, nothing is saved that could
 * be told. A service that hangs makes refusals save its timeout, one that answers 503 at once next to nothing.
 */
export class TimeSaved {
  readonly #durations = new Map<string, number[]>()

  /** A call has failed that took so many milliseconds. */
  failed(service: string, duration: number): void {
    let durations = this.#durations.get(service)
    if (durations === undefined) {
      if (this.#durations.size >= maxServices) return
      durations = []
      this.#durations.set(service, durations)
    }
    durations.push(duration)
    if (durations.length > remembered) durations.shift()
  }

  /** What a refusal saves, in milliseconds; `undefined`: this process cannot know. */
  byRefusal(service: string): number | undefined {
    const sorted = this.#durations.get(service)?.toSorted((a, b) => a - b)
    return sorted?.[Math.floor(sorted.length / 2)]
  }
}

/** The refusals of a circuit. The others are no work of it: the caller's own limits, time and signal. */
export const byCircuit: ReadonlySet<string> = new Set(['open', 'probing', 'forced', 'ramping', 'unclaimed'])
