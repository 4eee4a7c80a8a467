/**
 * The walk over an error and over what it wraps. It never throws and it always ends, whatever it is given.
 *
 * @module
 */

/** `undefined`: no evidence. */
export type Evidence = boolean | undefined

const MAX_OBJECTS = 64
const MAX_CAUSES = 8

/** What `judge` says of the error or, where it says nothing, of its `errors` and its `cause`. */
export function evidenceOf(error: unknown, judge: (link: object) => Evidence, seen: Set<object> = new Set()): Evidence {
  if (!isObject(error) || seen.has(error) || seen.size >= MAX_OBJECTS) return undefined
  seen.add(error)
  const own = judge(error)
  if (own !== undefined) return own
  const verdicts = membersOf(error).map((member) => evidenceOf(member, judge, seen))
  if (verdicts.includes(true)) return true
  return verdicts.includes(false) ? false : evidenceOf(read(error, 'cause'), judge, seen)
}

/** Whether it holds for the value, one of its `errors`, or their causes. */
export function someOf(value: unknown, holds: (link: object) => boolean): boolean {
  return evidenceOf(value, (link) => holds(link) || undefined) === true
}

/** The error and its causes, outermost first; the limit also ends a circle. */
export function* causesOf(error: unknown): Generator<unknown> {
  for (let link = error, depth = 0; depth <= MAX_CAUSES && link !== undefined; link = read(link, 'cause'), depth++)
    yield link
}

function membersOf(error: object): unknown[] {
  const errors = read(error, 'errors')
  try {
    return Array.isArray(errors)
      ? Array.from({ length: Math.min(errors.length, MAX_OBJECTS) }, (_, i) => read(errors, i))
      : []
  } catch {
    return [] // a revoked proxy
  }
}

/** A property of anything; a getter or a proxy that throws has none. */
export function read(value: unknown, key: PropertyKey): unknown {
  try {
    return (value as Record<PropertyKey, unknown> | null | undefined)?.[key]
  } catch {
    return undefined
  }
}

export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
