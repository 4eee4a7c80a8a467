/**
 * Walks over an error, its list of errors and the errors that it wraps. The walk never throws and always ends, for any value.
 *
 * @module
 */

/** The verdict on an object as a number. The greatest of several verdicts counts. `undefined`: the object is no evidence. */
export type Evidence = number | undefined

const MAX_OBJECTS = 64
const MAX_CAUSES = 8

/**
 * The properties in which clients keep the original error, the most common first.
 * Any of them except `cause` may also hold other data, such as the body of a response.
 */
const WRAPPERS =
  'cause parent original originalError driverError networkError reason error meta innerError inner lastError chainedError socketError detail previous jse_cause'.split(
    ' ',
  )

/**
 * Returns the verdict of `judge` on the error. If there is none, returns the greatest verdict on its `errors` and `innerErrors`.
 * If there is none either, returns the first verdict on an error that it wraps. `judge` gets `isError: false` for plain data on
 * the way: such data may contain an error, but more often it is the response of a service.
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

/** Whether the predicate holds for the value, for one of its `errors`, or for an error that they wrap. */
export function someOf(value: unknown, holds: (link: object) => boolean): boolean {
  return evidenceOf(value, (link) => (holds(link) ? 1 : undefined)) !== undefined
}

/** Yields the error and the errors that it wraps, outermost first. The limit also ends a cycle. */
export function* causesOf(error: unknown): Generator<unknown> {
  let link = error
  for (let depth = 0; depth <= MAX_CAUSES && link !== undefined; depth++) {
    yield link
    link = read(link, 'cause') ?? WRAPPERS.map((key) => read(link, key)).find(isError)
  }
}

/** The members of a list of errors. Drivers of clusters have an object in place of the list, with an error for each host. */
function membersOf(errors: unknown): unknown[] {
  try {
    return Array.isArray(errors)
      ? Array.from({ length: Math.min(errors.length, MAX_OBJECTS) }, (_, i) => read(errors, i))
      : Object.values(errors as object).slice(0, MAX_OBJECTS)
  } catch {
    return [] // no list, or a revoked proxy
  }
}

/** Whether the value is an error, also of another realm. Data from a service has no stack. */
export function isError(value: unknown): boolean {
  return typeof read(value, 'stack') === 'string'
}

/** Reads a property of any value. Returns `undefined` if a getter or a proxy throws. */
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
