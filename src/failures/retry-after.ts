/**
 * When a service that failed wants to be asked again.
 *
 * @module
 */

import { causesOf, read } from './causes.ts'

/**
 * How long the service asked to be left alone with a `Retry-After` header, in milliseconds; `undefined`: it did not, or
 * its header is absurd. It is looked for on what was thrown or returned and on its causes, wherever clients keep a
 * response's headers.
 *
 * Seconds and dates are understood (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). Negative, in the past,
 * further ahead than a day, or anything else: absurd. How much of it is granted is decided by `maxResetTimeout`.
 *
 * @param now milliseconds since the epoch; a date is taken by this clock
 */
export function retryAfterOf(failure: unknown, now: number): number | undefined {
  for (const link of causesOf(failure)) {
    for (const holder of [link, ...holders.map((key) => read(link, key))]) {
      const header = headerOf(read(holder, 'headers'))
      if (header !== undefined) return parse(header, now)
    }
  }
  return undefined
}

/** Where a response is kept: by nearly all clients, by the AWS SDK, by stripe, and by a `BreakableResultError`. */
const holders = ['response', '$response', 'lastResponse', 'result']

const longest = 86_400_000

/** The three formats of dates in HTTP, which are all in GMT; anything else `Date.parse` would have to guess. */
const date =
  /^[A-Z][a-z]+(, \d\d?[ -][A-Z][a-z]{2}[ -](\d\d){1,2} \d\d:\d\d:\d\d GMT| [A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d \d{4})$/

function parse(header: string, now: number): number | undefined {
  const seconds = /^\d+$/.test(header) ? Number(header) * 1_000 : Number.NaN
  // The oldest format names no time zone.
  const at = date.test(header) ? Date.parse(header.endsWith('GMT') ? header : `${header} GMT`) : Number.NaN
  const wait = Number.isNaN(seconds) ? at - now : seconds
  return wait > 0 && wait <= longest ? wait : undefined
}

/** From `Headers` and their like, or from a plain object. */
function headerOf(headers: unknown): string | undefined {
  const value = read(headers, 'retry-after') ?? read(headers, 'Retry-After') ?? getFrom(headers)
  const first: unknown = Array.isArray(value) ? read(value, 0) : value
  return typeof first === 'string' || typeof first === 'number' ? String(first).trim() : undefined
}

function getFrom(headers: unknown): unknown {
  try {
    return (headers as Headers | undefined)?.get('retry-after')
  } catch {
    return undefined
  }
}
