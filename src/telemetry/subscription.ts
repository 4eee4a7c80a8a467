/**
 * Subscriptions to the channels of circuits, for the entries of this package that tell of circuits elsewhere.
 *
 * @module
 */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type OptionRule, refuseWrongOptions } from '../settings/option-rules.ts'
import { isObject, Problems } from '../settings/problems.ts'
import type { CircuitBreakerWarningCode } from '../warnings.ts'
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
        process.emitWarning(text, {
          type: 'CircuitBreakerWarning',
          code: 'CIRCUIT_TELEMETRY' satisfies CircuitBreakerWarningCode,
        })
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

/**
 * @param names the options, each a switch
 * @throws {ConfigurationError} naming what is wrong
 */
export function refuseWrongSwitches(of: string, given: unknown, names: readonly string[]): void {
  const rule: OptionRule = { allowed: 'true or false', accepts: (value) => typeof value === 'boolean' }
  const options = Object.fromEntries(names.map((name) => [name, rule]))
  refuseWrongOptions({ of, allowed: `an object such as { ${names[0]}: true }`, options }, given)
}
