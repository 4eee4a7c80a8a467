/**
 * Finds the bodies in a result: Node streams, web streams, responses, async iterables.
 *
 * @module
 */

import type { Readable } from 'node:stream'
import { read } from '../failures/causes.ts'

export type WebStream = ReadableStream<unknown>

export type Found = Readable | WebStream | Response | AsyncIterable<unknown>

/** The value, if it is a body; otherwise the bodies among its properties. */
export function* bodiesOf(value: unknown): Generator<Found> {
  if (isBody(value)) yield value
  else for (const key of keysOf(value)) if (isBody(read(value, key))) yield read(value, key) as Found
}

/** The names of own data properties. Accessors are not called. */
export function keysOf(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.keys(value).filter((key) => Object.getOwnPropertyDescriptor(value, key)?.get === undefined)
}

export function isBody(value: unknown): value is Found {
  return streamOf(value) !== undefined || (isIterable(value) && Object.isExtensible(value))
}

/**
 * The stream to watch. In node-fetch the body of a response is a Node stream. The body of undici's `request` is also a Node stream,
 * although it has the methods of a response.
 */
export function streamOf(value: unknown): Readable | WebStream | undefined {
  const isResponse = !isStream(value) && typeof read(value, 'arrayBuffer') === 'function'
  const stream = isResponse ? read(value, 'body') : value
  return isStream(stream) ? stream : undefined
}

function isStream(value: unknown): value is Readable | WebStream {
  return isNodeStream(value) || isWebStream(value)
}

/** Requests also have a `pipe`, but no `read`. */
export function isNodeStream(value: unknown): value is Readable {
  return ['pipe', 'on', 'read'].every((method) => typeof read(value, method) === 'function')
}

export function isWebStream(value: unknown): value is WebStream {
  return ['getReader', 'cancel'].every((method) => typeof read(value, method) === 'function')
}

function isIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof read(value, Symbol.asyncIterator) === 'function'
}

export function isBeingRead(stream: Readable): boolean {
  return stream.readableFlowing === true || stream.readableDidRead || stream.listenerCount('readable') > 0
}

/** Adds a listener: an error of a stream without one would end the process. */
export function destroy(stream: Readable, error?: Error): void {
  stream.once('error', ignore)
  stream.destroy(error)
}

export function ignore(): void {}
