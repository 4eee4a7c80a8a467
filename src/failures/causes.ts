/**
 * The walk over an error and over what it wraps. It never throws and it always ends, whatever it is given.
 *
 * @module
 */

/** A number that something says; the greatest of several counts. `undefined`: it says nothing. */
export type Evidence = number | undefined

const MAX_OBJECTS = 64
const MAX_CAUSES = 8

/**
 * Where clients keep the error that theirs was made of, the most usual first.
 * All but `cause` may as well hold anything else, such as the body of an answer.
 */
const WRAPPERS =
  'cause parent original originalError driverError networkError reason error meta innerError inner lastError chainedError socketError detail previous jse_cause'.split(
    ' ',
  )

/**
 * What `judge` says of the error or, where it says nothing, the most that it says of its `errors` and `innerErrors`, or else of
 * what it wraps: the first that says something. `isError` is `false` for plain data on the way, which may hold an error, and is
 * the answer of a service more often.
 */
export function evidenceOf(
  error: unknown,
  judge: (link: object, isError: boolean) => Evidence,
  isCause = true,
  seen: Set<object> = new Set(),
): Evidence {
  if (!isObject(error) || seen.has(error) || seen.size >= MAX_OBJECTS) return undefined
  seen.add(error)
  const isBelieved = isCause || isError(error)
  const own = judge(error, isBelieved)
  if (own !== undefined) return own
  const members = [...membersOf(read(error, 'errors')), ...membersOf(read(error, 'innerErrors'))]
  const said = members.map((member) => evidenceOf(member, judge, false, seen)).filter((each) => each !== undefined)
  if (said.length > 0) return Math.max(...said)
  for (const key of WRAPPERS) {
    const inner = evidenceOf(read(error, key), judge, isBelieved && key === 'cause', seen)
    if (inner !== undefined) return inner
  }
  return undefined
}

/** Whether it holds for the value, one of its `errors`, or anything that they wrap. */
export function someOf(value: unknown, holds: (link: object) => boolean): boolean {
  return evidenceOf(value, (link) => (holds(link) ? 1 : undefined)) !== undefined
}

/** The error and what it wraps, outermost first; the limit also ends a circle. */
export function* causesOf(error: unknown): Generator<unknown> {
  let link = error
  for (let depth = 0; depth <= MAX_CAUSES && link !== undefined; depth++) {
    yield link
    link = read(link, 'cause') ?? WRAPPERS.map((key) => read(link, key)).find(isError)
  }
}

/** Of a list, or by host as drivers of clusters have them. */
function membersOf(errors: unknown): unknown[] {
  try {
    return Array.isArray(errors)
      ? Array.from({ length: Math.min(errors.length, MAX_OBJECTS) }, (_, i) => read(errors, i))
      : Object.values(errors as object).slice(0, MAX_OBJECTS)
  } catch {
    return [] // none, or a revoked proxy
  }
}

/** By its stack: data from a service has none. Also one of another realm. */
export function isError(value: unknown): boolean {
  return typeof read(value, 'stack') === 'string'
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
