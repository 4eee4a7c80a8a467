/**
 * What the methods of a breaker are given, as far as it has to be looked at before the rest of their work is loaded.
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

/** @throws {ConfigurationError} if a listener is no function, or its options are wrong */
export function refuseWrongListener(method: string, listener: unknown, options: unknown = {}): void {
  if (typeof listener !== 'function') refuse(method, 'listener', 'a function', listener)
  refuseWrongOptions(stateChangeRules, options, method)
}

/** @throws {ConfigurationError} if what an invocation has left is no time */
export function refuseWrongTime(method: string, timeLeft: unknown): void {
  if (typeof timeLeft !== 'number' || Number.isNaN(timeLeft)) {
    refuse(method, 'timeLeft', 'a number of milliseconds', timeLeft)
  }
}

/** @throws {ConfigurationError} if what stands for an invocation is no object */
export function refuseWrongContext(method: string, context: unknown): void {
  if (!isObject(context)) refuse(method, 'context', "Lambda's context", context)
}

/** The entries as they are now: the caller may change the object while the operators are loaded. */
export function entriesOf(given: unknown): readonly unknown[] | undefined {
  return listOf(given) ?? (isObject(given) ? Object.entries(given) : undefined)
}

/** What a list or another iterable object holds now. */
export function listOf(given: unknown): readonly unknown[] | undefined {
  const isList = typeof given === 'object' && given !== null && Symbol.iterator in given
  return isList ? [...(given as Iterable<unknown>)] : undefined
}

function refuse(method: string, argument: string, allowed: string, value: unknown): void {
  const problems = new Problems()
  problems.mustBe(allowed, argument, method, value)
  problems.throwIfAny()
}
