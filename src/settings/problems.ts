/**
 * Collects and words all problems of a configuration, so that one error reports them.
 *
 * @module
 */

import { ConfigurationError, type ConfigurationProblem } from '../errors.ts'

/** Environment variables by name, for instance `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>

/** The problems found so far. A problem that occurs for several services is kept once. */
export class Problems {
  /** Written by {@link add}. */
  readonly #byMessage = new Map<string, ConfigurationProblem>()

  /** Adds `what (source)`. */
  add(setting: string, source: string, value: unknown, what: string): void {
    const message = `${what} (${source})`
    this.#byMessage.set(message, { setting, source, value: harmless(value), message })
  }

  /** Adds `setting must be allowed, but is value (source)`. */
  mustBe(allowed: string, setting: string, source: string, value: unknown, words: string = describe(value)): void {
    this.add(setting, source, value, `${setting} must be ${allowed}, but is ${words}`)
  }

  /** Whether there is a problem. */
  get any(): boolean {
    return this.#byMessage.size > 0
  }

  /** @throws {ConfigurationError} with every problem, if there is one */
  throwIfAny(service?: string): void {
    if (this.any) throw this.error(service)
  }

  /** The error with every problem. If `service` is given, all problems concern it. */
  error(service?: string): ConfigurationError {
    return new ConfigurationError([...this.#byMessage.values()], undefined, service)
  }
}

/** A value in words: short, on one line, and without the contents of objects and URLs. */
export function describe(value: unknown): string {
  if (value === undefined) return 'missing'
  return typeof value === 'string' && harmless(value) === value ? quote(value) : String(harmless(value))
}

/** A text between double quotes, escaped and shortened. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
}

/** Replaces a client, its configuration or a URL by a word: errors are logged, and these values can hold credentials. */
function harmless(value: unknown): unknown {
  if (typeof value === 'string') return value.includes('://') ? 'a URL' : value
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'an object'
  return /^(function|symbol|bigint)$/.test(typeof value) ? `a ${typeof value}` : value
}

/** `; did you mean …?`, or a list of the known names. */
export function hint(name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  if (near !== undefined) return `; did you mean ${near}?`
  return known.length > 0 ? `; there ${known.length > 1 ? 'are' : 'is'} ${known.join(', ')}` : ''
}

/** Finds the known name that is most like `name`. Ignores case and separators, and allows one typing error in three letters. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const given = bare(name)
  let best: string | undefined
  let fewest = Math.min(3, Math.floor(given.length / 3)) + 1
  for (const candidate of known) {
    const target = bare(candidate)
    if (Math.abs(target.length - given.length) >= fewest) continue
    const edits = editDistance(given, target)
    if (edits < fewest) [best, fewest] = [candidate, edits]
  }
  return best
}

function bare(name: string): string {
  return name.toLowerCase().replace(/[\s_-]/g, '')
}

/** The Levenshtein distance: how many letters to insert, delete or replace. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      const [inserted, deleted, kept] = [next[j], row[j + 1], row[j]] as [number, number, number]
      next.push(Math.min(inserted + 1, deleted + 1, a[i] === b[j] ? kept : kept + 1))
    }
    row = next
  }
  return row[b.length] as number
}

/** Whether a value is an object, but not a list. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The texts that {@link isText} accepts, in words. */
export const textAllowed = 'a non-empty string without control characters or outer blanks'

/** Whether a value is a text: not empty, well-formed Unicode (no lone surrogates), no control characters, no outer blank or zero-width space. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && /^(?![\s\u200b])[^\p{Cc}\p{Cs}]+(?<![\s\u200b])$/u.test(value)
}

/** The text of a variable without outer blanks; `undefined`: the variable is unset or empty. */
export function textOf(env: Environment, name: string): string | undefined {
  return env[name]?.trim() || undefined
}

/** The word that a variable's text means. Case does not matter. */
export function wordIn(words: readonly string[], text: string): string | undefined {
  return words.includes(text) ? text : words.find((word) => word.toLowerCase() === text.toLowerCase())
}
