/**
 * Checks an adapter's options, for its constructor and for the factory.
 *
 * @module
 */

import { describe, hint, isObject, Problems } from '../settings/problems.ts'

/** The values that one option may have. */
export interface OptionRule {
  /** In messages: `must be`, and then this. */
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** Whether the value is never shown. Default: `false`. */
  readonly isSecret?: boolean
}

/** The options that one adapter takes. */
export interface OptionRules {
  /** The adapter, in messages. */
  readonly adapter: string
  /** The argument of its constructor, in messages: `must be`, and then this. */
  readonly allowed: string
  readonly options: Readonly<Record<string, OptionRule>>
  /** Refuses options that are right one by one and wrong together. `what` continues the name of the option. */
  readonly check?: (options: GivenOptions, refuse: (option: string, what: string) => void) => void
}

/** Options by name. One that is `undefined` is not given. */
export type GivenOptions = Readonly<Record<string, unknown>>

/** How messages name the options, and where the options came from. */
interface Naming {
  /** Precedes the name of each option. Default: nothing. */
  readonly prefix?: string
  /** Where the options were given. Default: `option`. */
  readonly source?: string
  /** The sources of the options that were given elsewhere, by option. */
  readonly sources?: Readonly<Record<string, string>>
  /** The variables that stand in for options, by option. */
  readonly variables?: Readonly<Record<string, string>>
}

/** Adds every problem of an adapter's options. */
export function checkOptions(
  { adapter, options: rules, check }: OptionRules,
  given: GivenOptions,
  problems: Problems,
  { prefix = '', source = 'option', sources = {}, variables = {} }: Naming = {},
): void {
  const ruleOf = (name: string): OptionRule | undefined => (Object.hasOwn(rules, name) ? rules[name] : undefined)
  const add = (name: string, what: string): void => {
    const rule = ruleOf(name)
    // The value of an unknown option may be a secret, too.
    const value = rule && !rule.isSecret ? given[name] : undefined
    problems.add(prefix + name, sources[name] ?? source, value, `${prefix}${name} ${what}`)
  }
  for (const [name, value] of Object.entries(given)) {
    const rule = ruleOf(name)
    if (rule === undefined) {
      add(name, `is not an option of ${adapter}${hint(name, Object.keys(rules))}`)
    } else if (value !== undefined && !rule.accepts(value)) {
      add(name, `must be ${rule.allowed}, but is ${rule.isSecret ? 'something else' : describe(value)}`)
    }
  }
  check?.(given, (name, what) => {
    const variable = given[name] === undefined ? variables[name] : undefined
    add(name, variable === undefined ? what : `${what}, or set ${variable}`)
  })
}

/** @throws {ConfigurationError} with every problem of what a constructor was given */
export function refuseWrongOptions(rules: OptionRules, given: unknown): void {
  const problems = new Problems()
  if (isObject(given)) checkOptions(rules, given, problems)
  else problems.mustBe(rules.allowed, 'options', 'option', given)
  problems.throwIfAny()
}
