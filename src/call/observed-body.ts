/**
 * Observes one body while its reader reads it.
 *
 * A Node stream is observed by its events, an async iterable by wrapped methods of its iterator. A web stream has no events, so its
 * reader gets a second stream that passes the chunks on. A `Response` stays the same object, and its methods read the second stream.
 *
 * This code keeps no body alive that its reader has dropped: timers and the invocation hold the call, and the call holds only weak
 * references to its body. A collected body counts as dropped.
 *
 * @module
 */

import { errorMonitor } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { read } from '../failures/causes.ts'
import { destroy, ignore, isBeingRead, keysOf, type WebStream } from './find-bodies.ts'

/** How a body ended: it was read to the end, its reader left it, or it failed. */
export type Ending = 'consumed' | 'dropped' | 'failed'

/** The bodies of one call. */
export interface Consumption {
  add(body: Body): void
  bodyEnded(body: Body, ending: Ending, error: unknown): void
}

/** One body, held by weak references only. */
export abstract class Body {
  readonly #consumption: Consumption

  constructor(consumption: Consumption) {
    this.#consumption = consumption
    consumption.add(this)
  }

  /** Whether the reader waits for data from the service. */
  abstract get isAwaited(): boolean

  /** Fails the body: its reader gets this error. */
  abstract cut(error: unknown): void

  /** The body was collected. */
  collected(): void {
    this.ended('dropped')
  }

  ended(ending: Ending, error?: unknown): void {
    this.#consumption.bodyEnded(this, ending, error)
  }
}

const registry = new FinalizationRegistry<Body>((body) => body.collected())

// --------------------------------------------------------------------------------------------------- Node streams

class NodeBody extends Body {
  readonly #stream: WeakRef<Readable>
  /** The streams that the body was piped into. */
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

  /** The stream tells why it was destroyed, but not who destroyed it. */
  closed(error: unknown): void {
    const request: unknown = read(this.#stream.deref(), 'req')
    const wasLeft =
      read(request, 'aborted') === true || [...this.#destinations].some((each) => each.deref()?.destroyed === true)
    this.ended(error && !wasLeft ? 'failed' : 'dropped', error)
  }
}

export function watchNodeStream(stream: Readable, consumption: Consumption): void {
  if (stream.readableEnded || (stream.destroyed && !stream.errored)) return
  const body = new NodeBody(consumption, stream)
  if (stream.errored) {
    body.closed(stream.errored)
    return
  }
  registry.register(stream, body)
  stream.once('end', () => body.ended('consumed'))
  stream.once('close', () => body.closed(stream.errored))
  // A listener of `error` would hide the error if there is no other listener.
  stream.once(errorMonitor, (error) => body.closed(error))
  const { pipe } = stream
  const observedPipe: Readable['pipe'] = (destination, options) => {
    body.pipedInto(destination as unknown as Writable)
    return pipe.call(stream, destination as unknown as Writable, options) as typeof destination
  }
  define(stream, 'pipe', { value: observedPipe })
}

// ---------------------------------------------------------------------------------------------------- web streams

type Controller = ReadableStreamDefaultController<unknown> | ReadableByteStreamController

export class WebBody extends Body {
  readonly #reader: ReadableStreamDefaultReader<unknown>
  readonly #type: 'bytes' | undefined
  #controller: WeakRef<Controller> | undefined
  /** Whether the reader's stream was asked for a chunk. Written by `#pull`. */
  isAwaited = false

  constructor(consumption: Consumption, source: WebStream) {
    super(consumption)
    this.#type = typeOf(source)
    this.#reader = source.getReader()
  }

  /** The stream for the reader. It reads from the source on demand and buffers nothing. */
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

/** Tells whether it is a stream of bytes. There is no other way to find out. */
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

/** Makes a response read from another stream. */
export function readFrom(stream: WebStream, response: Response, source: WebStream): void {
  const reading = new Response(stream as ReadableStream<Uint8Array>, { headers: response.headers })
  // A library's own method, such as ky's `json`, calls one of these.
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
  // Gaxios also keeps the stream as `data`.
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

  /** Observes an iterator. */
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

export function watchIterable(iterable: AsyncIterable<unknown>, consumption: Consumption): void {
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
