/**
 * Bodies of results: a call with `until: 'consumed'` lasts until they are over, and a body that nobody will read is cancelled.
 *
 * A Node stream is observed by its events. An async iterable is, too: its iterator gets methods that look on. A web stream shows
 * nothing of what becomes of it, so that its reader gets another one, which passes on what it is asked for; a `Response` stays the
 * same object, whose methods read that other stream.
 *
 * Nothing in here keeps a body alive that its reader has forgotten: the call, which timers and the invocation hold, knows it by
 * weak references only. When it is collected, it has been dropped.
 *
 * @module
 */

import { errorMonitor } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { read } from '../failures/causes.ts'
import type { CallLimits } from './call-limits.ts'
import type { HandedOut, Invocation } from './invocation.ts'

/** How a body came to its end: it was read to the end, its reader has left it, or it failed. */
export type Ending = 'consumed' | 'dropped' | 'failed'

/**
 * Watches what the operation of a call has returned, until all of its bodies are over; at once, if there are none.
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
  const consumption = new Consumption(invocation, ended)
  let watched: unknown = value
  try {
    watched = watchIn(value, consumption)
  } catch {
    // A result may be anything, and so refuse to be looked at.
  }
  if (consumption.start()) limits.onCut(consumption.cut)
  return watched as T
}

/** Cancels the bodies of a value that nobody has begun to read, but for those in `kept`. */
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
class Consumption implements HandedOut {
  readonly #invocation: Invocation | undefined
  readonly #ended: (ending: Ending, error: unknown) => void
  /** The bodies that are not over. */
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

  /** @returns whether there is anything to wait for */
  start(): boolean {
    if (this.#bodies.size === 0) this.#end('consumed', undefined)
    else if (!this.#isOver && this.#invocation !== undefined) {
      this.#invocation.bodies ??= new Set()
      this.#invocation.bodies.add(this)
    }
    return !this.#isOver
  }

  /** An abort that does not come from the call, which ends it before, is the reader's. */
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

  /** The call is cut. A service that nobody was waiting for is not to blame. */
  readonly cut = (error: unknown): void => {
    const isAwaited = this.#isAwaited
    const bodies = [...this.#bodies]
    this.#end(isAwaited ? 'failed' : 'dropped', error)
    for (const body of bodies) body.cut(error)
  }

  /** Nobody will read on, but for whoever gets a body with the response. */
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

/** One body, which it knows by weak references only. */
abstract class Body {
  readonly #consumption: Consumption

  constructor(consumption: Consumption) {
    this.#consumption = consumption
    consumption.add(this)
  }

  /** Whether its reader waits for the service. */
  abstract get isAwaited(): boolean

  /** Its reader gets this error. */
  abstract cut(error: unknown): void

  /** Nobody has it any more. */
  collected(): void {
    this.ended('dropped')
  }

  ended(ending: Ending, error?: unknown): void {
    this.#consumption.bodyEnded(this, ending, error)
  }
}

const registry = new FinalizationRegistry<Body>((body) => body.collected())

// --------------------------------------------------------------------------------------------------- what is one

type WebStream = ReadableStream<unknown>

type Found = Readable | WebStream | Response | AsyncIterable<unknown>

/** The value, if it is a body, or else those among its properties. */
function* bodiesOf(value: unknown): Generator<Found> {
  if (isBody(value)) yield value
  else for (const key of keysOf(value)) if (isBody(read(value, key))) yield read(value, key) as Found
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
  // One that the operation has begun to read is its own affair.
  else if (!stream.locked) {
    const observed = new WebBody(consumption, stream).stream()
    if (stream === body) return observed
    readFrom(observed, body as Response, stream)
  }
  return body
}

/** The names of its own data; an accessor is not asked. */
function keysOf(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.keys(value).filter((key) => Object.getOwnPropertyDescriptor(value, key)?.get === undefined)
}

function isBody(value: unknown): value is Found {
  return streamOf(value) !== undefined || (isIterable(value) && Object.isExtensible(value))
}

/**
 * The stream that is read: that of a response is a Node stream in node-fetch. The body of undici's `request` is one, though it
 * can be read like a response.
 */
function streamOf(value: unknown): Readable | WebStream | undefined {
  const isResponse = !isStream(value) && typeof read(value, 'arrayBuffer') === 'function'
  const stream = isResponse ? read(value, 'body') : value
  return isStream(stream) ? stream : undefined
}

function isStream(value: unknown): value is Readable | WebStream {
  return isNodeStream(value) || isWebStream(value)
}

/** Requests have a `pipe`, too, but no `read`. */
function isNodeStream(value: unknown): value is Readable {
  return ['pipe', 'on', 'read'].every((method) => typeof read(value, method) === 'function')
}

function isWebStream(value: unknown): value is WebStream {
  return ['getReader', 'cancel'].every((method) => typeof read(value, method) === 'function')
}

function isIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof read(value, Symbol.asyncIterator) === 'function'
}

// --------------------------------------------------------------------------------------------------- Node streams

class NodeBody extends Body {
  readonly #stream: WeakRef<Readable>
  /** The streams that it has been piped into. */
  readonly #destinations = new Set<WeakRef<Writable>>()

  constructor(consumption: Consumption, stream: Readable) {
    super(consumption)
    this.#stream = new WeakRef(stream)
  }

  get isAwaited(): boolean {
    const stream = this.#stream.deref()
    return stream !== undefined && isBeingRead(stream) && stream.readableLength === 0
  }

  cut(error: unknown): void {
    const stream = this.#stream.deref()
    if (stream !== undefined) destroy(stream, error as Error)
  }

  pipedInto(destination: Writable): void {
    this.#destinations.add(new WeakRef(destination))
  }

  /** The stream says why it was destroyed, but not by whom. */
  closed(error: unknown): void {
    const request: unknown = read(this.#stream.deref(), 'req')
    const wasLeft =
      read(request, 'aborted') === true || [...this.#destinations].some((each) => each.deref()?.destroyed === true)
    this.ended(error && !wasLeft ? 'failed' : 'dropped', error)
  }
}

function watchNodeStream(stream: Readable, consumption: Consumption): void {
  if (stream.readableEnded || (stream.destroyed && !stream.errored)) return
  const body = new NodeBody(consumption, stream)
  if (stream.errored) {
    body.closed(stream.errored)
    return
  }
  registry.register(stream, body)
  stream.once('end', () => body.ended('consumed'))
  stream.once('close', () => body.closed(stream.errored))
  // A listener of `error` would keep the process from ending where nobody else listens.
  stream.once(errorMonitor, (error) => body.closed(error))
  const { pipe } = stream
  const observedPipe: Readable['pipe'] = (destination, options) => {
    body.pipedInto(destination as unknown as Writable)
    return pipe.call(stream, destination as unknown as Writable, options) as typeof destination
  }
  define(stream, 'pipe', { value: observedPipe })
}

function isBeingRead(stream: Readable): boolean {
  return stream.readableFlowing === true || stream.readableDidRead || stream.listenerCount('readable') > 0
}

/** A stream that nobody listens to would end the process with the error. */
function destroy(stream: Readable, error?: Error): void {
  stream.once('error', ignore)
  stream.destroy(error)
}

// ---------------------------------------------------------------------------------------------------- web streams

type Controller = ReadableStreamDefaultController<unknown> | ReadableByteStreamController

class WebBody extends Body {
  readonly #reader: ReadableStreamDefaultReader<unknown>
  readonly #type: 'bytes' | undefined
  #controller: WeakRef<Controller> | undefined
  /** Whether the other stream was asked for a chunk. Written by `#pull`. */
  isAwaited = false

  constructor(consumption: Consumption, source: WebStream) {
    super(consumption)
    this.#type = typeOf(source)
    this.#reader = source.getReader()
  }

  /** The stream for the reader. It asks the source when it is asked, and keeps nothing. */
  stream(): WebStream {
    const source = {
      type: this.#type,
      start: (controller: Controller) => {
        this.#controller = new WeakRef(controller)
      },
      pull: (controller: Controller) => this.#pull(controller),
      cancel: (reason: unknown) => {
        this.ended('dropped')
        return this.#reader.cancel(reason)
      },
    }
    const stream = new ReadableStream(source as object, { highWaterMark: 0 })
    registry.register(stream, this)
    return stream
  }

  async #pull(controller: Controller): Promise<void> {
    this.isAwaited = true
    try {
      const { done, value } = await this.#reader.read()
      if (done) this.#close(controller)
      else controller.enqueue(value as ArrayBufferView<ArrayBuffer>)
    } catch (error) {
      controller.error(error)
      this.ended('failed', error)
    } finally {
      this.isAwaited = false
    }
  }

  #close(controller: Controller): void {
    controller.close()
    if ('byobRequest' in controller) controller.byobRequest?.respond(0)
    this.ended('consumed')
  }

  cut(error: unknown): void {
    this.#controller?.deref()?.error(error)
    this.#leave(error)
  }

  override collected(): void {
    this.#leave()
    super.collected()
  }

  #leave(reason?: unknown): void {
    this.#reader.cancel(reason).catch(ignore)
  }
}

/** Nothing else tells a stream of bytes. */
function typeOf(stream: WebStream): 'bytes' | undefined {
  try {
    stream.getReader({ mode: 'byob' }).releaseLock()
    return 'bytes'
  } catch {
    return undefined
  }
}

const readingMethods = ['arrayBuffer', 'blob', 'bytes', 'formData', 'json', 'text'] as const

const headProperties = ['ok', 'redirected', 'status', 'statusText', 'type', 'url'] as const

/** Makes a response read from another stream than its own. */
function readFrom(stream: WebStream, response: Response, source: WebStream): void {
  const reading = new Response(stream as ReadableStream<Uint8Array>, { headers: response.headers })
  // One of its own, as ky's `json`, reads by one of these.
  for (const name of readingMethods.filter((each) => !Object.hasOwn(response, each))) {
    define(response, name, { value: () => reading[name]() })
  }
  define(response, 'body', { get: () => reading.body })
  define(response, 'bodyUsed', { get: () => reading.bodyUsed })
  define(response, 'clone', {
    value: () => {
      const copy = reading.clone()
      for (const key of headProperties) define(copy, key, { value: response[key] })
      return copy
    },
  })
  // Gaxios keeps it as `data`, too.
  for (const key of keysOf(response)) if (read(response, key) === source) define(response, key, { value: stream })
}

function define(target: object, key: PropertyKey, how: PropertyDescriptor): void {
  Object.defineProperty(target, key, { configurable: true, ...how })
}

// ------------------------------------------------------------------------------------------------ async iterables

type Iterator = AsyncIterator<unknown>

class IterableBody extends Body {
  /** Ends the steps that are under way. */
  readonly #rejects = new Set<(error: unknown) => void>()
  #iterator: WeakRef<Iterator> | undefined
  #cut: { readonly error: unknown } | undefined

  get isAwaited(): boolean {
    return this.#rejects.size > 0
  }

  cut(error: unknown): void {
    this.#cut = { error }
    for (const reject of this.#rejects) reject(error)
    const iterator = this.#iterator?.deref()
    if (iterator !== undefined) void leave(iterator)
  }

  /** Looks on while the iterator is used. */
  observe(iterator: Iterator): Iterator {
    this.#iterator = new WeakRef(iterator)
    const { next } = iterator
    define(iterator, 'next', { value: (...given: [] | [unknown]) => this.#step(() => next.apply(iterator, given)) })
    for (const name of ['return', 'throw'] as const) {
      const method = iterator[name]
      if (method === undefined) continue
      define(iterator, name, {
        value: (given: unknown) => {
          this.ended('dropped')
          return method.call(iterator, given)
        },
      })
    }
    return iterator
  }

  #step(next: () => Promise<IteratorResult<unknown>>): Promise<IteratorResult<unknown>> {
    return new Promise((resolve, reject) => {
      if (this.#cut !== undefined) return reject(this.#cut.error)
      this.#rejects.add(reject)
      begin(next).then(
        (result) => {
          this.#rejects.delete(reject)
          if (result.done) this.ended('consumed')
          resolve(result)
        },
        (error) => {
          this.#rejects.delete(reject)
          this.ended('failed', error)
          reject(error)
        },
      )
    })
  }
}

/** An iterable lives as long as its iterator. */
const iterableOf = new WeakMap<Iterator, unknown>()

function watchIterable(iterable: AsyncIterable<unknown>, consumption: Consumption): void {
  const body = new IterableBody(consumption)
  registry.register(iterable, body)
  if (typeof read(iterable, 'next') === 'function') {
    body.observe(iterable as unknown as Iterator)
    return
  }
  const iterate = iterable[Symbol.asyncIterator]
  const observed = (): Iterator => {
    const iterator = iterate.call(iterable)
    iterableOf.set(iterator, iterable)
    return body.observe(iterator)
  }
  define(iterable, Symbol.asyncIterator, { value: observed })
}

async function begin<T>(step: () => PromiseLike<T> | T): Promise<T> {
  return await step()
}

async function leave(iterator: Iterator): Promise<void> {
  await begin(() => iterator.return?.()).catch(ignore)
}

function ignore(): void {}
