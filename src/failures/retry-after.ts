/**
 * When a service that failed wants to be asked again.
 *
 * @module
 */

import { type Evidence, evidenceOf, read } from './causes.ts'

/**
 * How long the service asked to be left alone with a `Retry-After` header, in milliseconds; `undefined`: it did not, or
 * its header is absurd. It is looked for on what was thrown or returned, on its `errors` and its causes, wherever clients keep
 * a response's headers. The outermost one that is not absurd counts; of several in `errors`, the longest.
 *
 * Seconds and dates are understood (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). Negative, zero, in the past, or
 * anything else: absurd. A time has no upper bound: how much of it is granted is decided by `maxResetTimeout`.
 *
 * @param now milliseconds since the epoch; a date is taken by this clock
 */
export function retryAfterOf(failure: unknown, now: number): number | undefined {
  return evidenceOf(failure, (link) => askedBy(link, now))
}

/** Where a response is kept: by nearly all clients, by the AWS SDK, by stripe, and by a `BreakableResultError`. */
const holders = ['response', '$response', 'lastResponse', 'result']

function askedBy(link: object, now: number): Evidence {
  for (const holder of [link, ...holders.map((key) => read(link, key))]) {
    const wait = parse(headerOf(read(holder, 'headers')), now)
    if (wait > 0) return wait
  }
  return undefined
}

/** The three formats of dates in HTTP, which are all in GMT; anything else `Date.parse` would have to guess. */
const date =
  /^[A-Z][a-z]+(, \d\d?[ -][A-Z][a-z]{2}[ -](\d\d){1,2} \d\d:\d\d:\d\d GMT| [A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d \d{4})$/

/** In milliseconds; `NaN`: neither seconds nor a date. */
function parse(header: string, now: number): number {
  if (/^\d+$/.test(header)) return Number(header) * 1_000
  // The oldest format names no time zone.
  return date.test(header) ? Date.parse(header.endsWith('GMT') ? header : `${header} GMT`) - now : Number.NaN
}

const name = 'retry-after'
/** So many names of a plain object are looked at. */
const maxNames = 256

/** From `Headers` and their like, or from a plain object; empty: it is not there. */
function headerOf(headers: unknown): string {
  const value = getFrom(headers) ?? valueIn(headers)
  const first: unknown = Array.isArray(value) ? read(value, 0) : value
  return typeof first === 'string' || typeof first === 'number' ? String(first).trim() : ''
}

/** Only `Headers` does not care how the name is spelled. */
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
