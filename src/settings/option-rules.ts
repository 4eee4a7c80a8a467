/**
 * Checks the options that an adapter, a method or a function of this package is given.
 *
 * @module
 */

import { describe, hint, isObject, Problems } from './problems.ts'

/** The values that one option may have. */
export interface OptionRule {
  /** In messages: `must be`, and then this. */
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** Whether the value is never shown. Default: `false`. */
  readonly isSecret?: boolean
}

/** The options that something takes. */
export interface OptionRules {
  /** Whose options they are, in messages. */
  readonly of: string
  /** All of them, in messages: `must be`, and then this. */
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

/** Adds every problem of the options. */
export function checkOptions(
  { of, options: rules, check }: OptionRules,
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
      add(name, `is not an option of ${of}${hint(name, Object.keys(rules))}`)
    } else if (value !== undefined && !rule.accepts(value)) {
      add(name, `must be ${rule.allowed}, but is ${rule.isSecret ? 'something else' : describe(value)}`)
    }
  }
  check?.(given, (name, what) => {
    const variable = given[name] === undefined ? variables[name] : undefined
    add(name, variable === undefined ? what : `${what}, or set ${variable}`)
  })
}

/**
 * @param source where the options were given
 * @throws {ConfigurationError} with every problem of them
 */
export function refuseWrongOptions(rules: OptionRules, given: unknown, source = 'option'): void {
  const problems = new Problems()
  if (isObject(given)) checkOptions(rules, given, problems, { source })
  else problems.mustBe(rules.allowed, 'options', source, given)
  problems.throwIfAny()
}
