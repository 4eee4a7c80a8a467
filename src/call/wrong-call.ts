/**
 * Names the mistakes of an invalid call. The breaker loads this file with the first such call.
 *
 * @module
 */

import type { CircuitName } from '../errors.ts'
import { longestTimer } from '../runtime.ts'
import { checkOptions, type OptionRule } from '../settings/option-rules.ts'
import { describe, Problems, quote } from '../settings/problems.ts'
import { type CallOptions, isSignal, isTimeout } from './call-options.ts'

const aFunction: OptionRule = { allowed: 'a function', accepts: (value) => typeof value === 'function' }

const rules: Readonly<Record<keyof CallOptions, OptionRule>> = {
  timeout: {
    allowed: `a whole number of milliseconds from 1 to ${longestTimer}, or false`,
    accepts: (value) => value === false || isTimeout(value),
  },
  signal: { allowed: 'an AbortSignal', accepts: isSignal },
  fallback: aFunction,
  until: { allowed: "'consumed'", accepts: (value) => value === 'consumed' },
  isBreakableError: aFunction,
  isBreakableResult: aFunction,
  key: { allowed: 'left out, because the service is not keyed', accepts: () => false },
}

const optionRules = { of: 'a call', allowed: 'an object such as { timeout: 2000 }', options: rules }

/** @throws {ConfigurationError} naming everything that is wrong with a call for which `isCall` is `false` */
export function refuseCall({ service, key }: CircuitName, operation: unknown, options: unknown): never {
  const problems = new Problems()
  const source = `call of ${quote(service)}`
  if (typeof operation !== 'function') {
    const isPromise = typeof (operation as Partial<Promise<unknown>> | null | undefined)?.then === 'function'
    const what = isPromise ? 'a promise: its work began before the circuit was asked' : describe(operation)
    problems.mustBe(`a function that does the work, ({ signal }) => …`, 'operation', source, operation, what)
  }
  if (typeof options === 'object' && options !== null) {
    // An inherited option counts, and null means not given.
    const given: Record<string, unknown> = {}
    for (const name in options) given[name] = options[name as never] ?? undefined
    // A keyed service has already checked its key.
    if (key !== undefined) delete given['key']
    checkOptions(optionRules, given, problems, { source })
  } else {
    problems.mustBe(optionRules.allowed, 'options', source, options)
  }
  throw problems.error(service)
}
