/**
 * Checks the arguments of a breaker's methods that must be checked before the code of the method is loaded.
 *
 * @module
 */

import { type OptionRules, refuseWrongOptions } from './option-rules.ts'
import { isObject, Problems } from './problems.ts'

const stateChangeRules: OptionRules = {
  of: 'onStateChange',
  allowed: 'an object such as { observed: true }',
  options: { observed: { allowed: 'true or false', accepts: (value) => typeof value === 'boolean' } },
}

/** @throws {ConfigurationError} if a listener is not a function, or its options are wrong */
export function refuseWrongListener(method: string, listener: unknown, options: unknown = {}): void {
  if (typeof listener !== 'function') refuse(method, 'listener', 'a function', listener)
  refuseWrongOptions(stateChangeRules, options, method)
}

/** @throws {ConfigurationError} if the remaining time of an invocation is not a number */
export function refuseWrongTime(method: string, timeLeft: unknown): void {
  if (typeof timeLeft !== 'number' || Number.isNaN(timeLeft)) {
    refuse(method, 'timeLeft', 'a number of milliseconds', timeLeft)
  }
}

/** @throws {ConfigurationError} if the context of an invocation is not an object */
export function refuseWrongContext(method: string, context: unknown): void {
  if (!isObject(context)) refuse(method, 'context', "Lambda's context", context)
}

/** A copy of the entries: the caller may change the object while the code of the operators is loaded. */
export function entriesOf(given: unknown): readonly unknown[] | undefined {
  return listOf(given) ?? (isObject(given) ? Object.entries(given) : undefined)
}

/** A copy of the elements of a list or another iterable object. */
export function listOf(given: unknown): readonly unknown[] | undefined {
  const isList = typeof given === 'object' && given !== null && Symbol.iterator in given
  return isList ? [...(given as Iterable<unknown>)] : undefined
}

function refuse(method: string, argument: string, allowed: string, value: unknown): void {
  const problems = new Problems()
  problems.mustBe(allowed, argument, method, value)
  problems.throwIfAny()
}
