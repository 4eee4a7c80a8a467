/**
 * Checks the options of an adapter, a method or a function of this package.
 *
 * @module
 */

import { describe, hint, isObject, Problems } from './problems.ts'

/** The allowed values of one option. */
export interface OptionRule {
  /** The allowed values in words. Messages put `must be` before it. */
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** Whether messages hide the value. Default: `false`. */
  readonly isSecret?: boolean
}

/** The rules for all options of an adapter, a method or a function. */
export interface OptionRules {
  /** The owner of the options, for messages. */
  readonly of: string
  /** The allowed options object in words. Messages put `must be` before it. */
  readonly allowed: string
  readonly options: Readonly<Record<string, OptionRule>>
  /** Refuses options that are valid alone but not together. In the message, `what` follows the name of the option. */
  readonly check?: (options: GivenOptions, refuse: (option: string, what: string) => void) => void
}

/** Options by name. `undefined` counts as not given. */
export type GivenOptions = Readonly<Record<string, unknown>>

/** How messages name the options and their source. */
interface Naming {
  /** Precedes the name of each option. Default: nothing. */
  readonly prefix?: string
  /** The source of the options. Default: `option`. */
  readonly source?: string
  /** The source of each option that has another one, by option. */
  readonly sources?: Readonly<Record<string, string>>
  /** The variable that can replace an option, by option. */
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
 * @throws {ConfigurationError} with every problem of the options
 */
export function refuseWrongOptions(rules: OptionRules, given: unknown, source = 'option'): void {
  const problems = new Problems()
  if (isObject(given)) checkOptions(rules, given, problems, { source })
  else problems.mustBe(rules.allowed, 'options', source, given)
  problems.throwIfAny()
}
