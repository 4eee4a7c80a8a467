/**
 * Reads from a failure when the service wants the next call.
 *
 * @module
 */

import { type Evidence, evidenceOf, read } from './causes.ts'

/**
 * How long the service asks callers to wait, by its `Retry-After` header, in milliseconds. `undefined`: there is no header, or its
 * value is invalid. The header is looked for on the thrown error or the result, on its `errors` and on its causes, in every place
 * where clients keep a response's headers. The outermost valid value counts. Among several `errors` the longest time counts.
 *
 * The value is a number of seconds or a date (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). Zero, a negative number,
 * a time in the past and any other text are invalid. The time has no upper bound here: `maxResetTimeout` limits it.
 *
 * @param now milliseconds since the epoch; a date is compared with it
 */
export function retryAfterOf(failure: unknown, now: number): number | undefined {
  return evidenceOf(failure, (link) => askedBy(link, now))
}

/** The properties that hold a response: of nearly all clients, of the AWS SDK, of stripe, and of a `BreakableResultError`. */
const holders = ['response', '$response', 'lastResponse', 'result']

function askedBy(link: object, now: number): Evidence {
  for (const holder of [link, ...holders.map((key) => read(link, key))]) {
    const wait = parse(headerOf(read(holder, 'headers')), now)
    if (wait > 0) return wait
  }
  return undefined
}

/** The three formats of dates in HTTP, all in GMT. `Date.parse` would guess the meaning of any other text. */
const date =
  /^[A-Z][a-z]+(, \d\d?[ -][A-Z][a-z]{2}[ -](\d\d){1,2} \d\d:\d\d:\d\d GMT| [A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d \d{4})$/

/** The time in milliseconds; `NaN`: the text is neither seconds nor a date. */
function parse(header: string, now: number): number {
  if (/^\d+$/.test(header)) return Number(header) * 1_000
  // The oldest format names no time zone.
  return date.test(header) ? Date.parse(header.endsWith('GMT') ? header : `${header} GMT`) - now : Number.NaN
}

const name = 'retry-after'
/** The number of names in a plain object that are examined. */
const maxNames = 256

/** The header's value, from a `Headers` or a similar object, or from a plain object; empty: there is no such header. */
function headerOf(headers: unknown): string {
  const value = getFrom(headers) ?? valueIn(headers)
  const first: unknown = Array.isArray(value) ? read(value, 0) : value
  return typeof first === 'string' || typeof first === 'number' ? String(first).trim() : ''
}

/** Tries two spellings, because only a real `Headers` ignores the case of the name. */
function getFrom(headers: unknown): unknown {
  try {
    const { get } = headers as Headers
    return get.call(headers, name) ?? get.call(headers, 'Retry-After')
  } catch {
    return undefined
  }
}

function valueIn(headers: unknown): unknown {
  try {
    const names = Object.keys(headers as object).slice(0, maxNames)
    return read(headers, names.find((each) => each.toLowerCase() === name) ?? name)
  } catch {
    return undefined
  }
}
