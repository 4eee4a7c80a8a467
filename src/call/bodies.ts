/**
 * Handles the bodies of results: a call with `until: 'consumed'` lasts until its bodies end, and a body without a reader is cancelled.
 *
 * @module
 */

import { read } from '../failures/causes.ts'
import type { CallLimits } from './call-limits.ts'
import {
  bodiesOf,
  destroy,
  type Found,
  ignore,
  isBeingRead,
  isBody,
  isNodeStream,
  isWebStream,
  keysOf,
  streamOf,
} from './find-bodies.ts'
import type { HandedOut, Invocation } from './invocation.ts'
import {
  type Body,
  type Consumption,
  type Ending,
  readFrom,
  WebBody,
  watchIterable,
  watchNodeStream,
} from './observed-body.ts'

/**
 * Watches the result of a call's operation until all of its bodies have ended. Without a body it ends at once.
 *
 * @param ended is called once, at the latest when the call is cut; with the error if a body failed
 * @returns the value, or in place of a web stream another one
 */
export function watchBodies<T>(
  value: T,
  limits: CallLimits,
  invocation: Invocation | undefined,
  ended: (ending: Ending, error: unknown) => void,
): T {
  const consumption = new CallBodies(invocation, ended)
  let watched: unknown = value
  try {
    watched = watchIn(value, consumption)
  } catch {
    // A result may be an object whose properties throw.
  }
  if (consumption.start()) limits.onCut(consumption.cut)
  return watched as T
}

/** Cancels the bodies of a value that nobody has begun to read, except the bodies in `kept`. */
export function cancelBodies(value: object, kept: unknown): void {
  const others = new Set(Array.from(bodiesOf(kept), streamOf))
  for (const body of bodiesOf(value)) {
    const stream = streamOf(body)
    if (stream === undefined || others.has(stream)) continue
    if (isNodeStream(stream)) isBeingRead(stream) || destroy(stream)
    else if (!stream.locked) stream.cancel().catch(ignore)
  }
}

// ------------------------------------------------------------------------------------------------------- the call

/** The bodies of one call. */
class CallBodies implements Consumption, HandedOut {
  readonly #invocation: Invocation | undefined
  readonly #ended: (ending: Ending, error: unknown) => void
  /** The bodies that have not ended. */
  readonly #bodies = new Set<Body>()
  #wasConsumed = true
  #isOver = false

  constructor(invocation: Invocation | undefined, ended: (ending: Ending, error: unknown) => void) {
    this.#invocation = invocation
    this.#ended = ended
  }

  add(body: Body): void {
    this.#bodies.add(body)
  }

  /** @returns whether there is a body to wait for */
  start(): boolean {
    if (this.#bodies.size === 0) this.#end('consumed', undefined)
    else if (!this.#isOver && this.#invocation !== undefined) {
      this.#invocation.bodies ??= new Set()
      this.#invocation.bodies.add(this)
    }
    return !this.#isOver
  }

  /** An abort that the call did not cause comes from the reader. */
  bodyEnded(body: Body, ending: Ending, error: unknown): void {
    if (ending === 'failed' && read(error, 'name') !== 'AbortError') {
      this.#end(ending, error)
      return
    }
    this.#wasConsumed &&= ending === 'consumed'
    if (this.#bodies.delete(body) && this.#bodies.size === 0) {
      this.#end(this.#wasConsumed ? 'consumed' : 'dropped', undefined)
    }
  }

  /** The call was ended early. It counts against the service only if a reader was waiting for data. */
  readonly cut = (error: unknown): void => {
    const isAwaited = this.#isAwaited
    const bodies = [...this.#bodies]
    this.#end(isAwaited ? 'failed' : 'dropped', error)
    for (const body of bodies) body.cut(error)
  }

  /** Nobody reads the bodies any longer, except those that the response hands on. */
  invocationEnded(response: unknown): void {
    if (!this.#isAwaited && bodiesOf(response).next().done) this.#end('dropped', undefined)
  }

  get #isAwaited(): boolean {
    return [...this.#bodies].some(({ isAwaited }) => isAwaited)
  }

  #end(ending: Ending, error: unknown): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#invocation?.bodies?.delete(this)
    this.#ended(ending, error)
  }
}

function watchIn(value: unknown, consumption: Consumption): unknown {
  if (isBody(value)) return watch(value, consumption)
  for (const key of keysOf(value)) {
    const part = read(value, key)
    if (!isBody(part)) continue
    const { writable } = Object.getOwnPropertyDescriptor(value, key) as PropertyDescriptor
    if (isWebStream(part) && !writable) continue
    const watched = watch(part, consumption)
    if (watched !== part) (value as Record<string, unknown>)[key] = watched
  }
  return value
}

function watch(body: Found, consumption: Consumption): Found {
  const stream = streamOf(body)
  if (stream === undefined) watchIterable(body as AsyncIterable<unknown>, consumption)
  else if (isNodeStream(stream)) watchNodeStream(stream, consumption)
  // The operation itself handles a body that it has begun to read.
  else if (!stream.locked) {
    const observed = new WebBody(consumption, stream).stream()
    if (stream === body) return observed
    readFrom(observed, body as Response, stream)
  }
  return body
}
