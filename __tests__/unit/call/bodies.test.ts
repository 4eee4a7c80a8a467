import { PassThrough, pipeline, Readable } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import { type CallExternal, type CircuitBreaker, circuitBreaker, type OperationContext } from '../../../src/index.ts'
import { createTestContext } from '../../../src/testing/index.ts'
import type { FakeRuntime } from '../../support/fake-runtime.ts'
import { waitFor } from '../../support/time.ts'
import { createFleet, isSettled, ok, outcomeOf, ServiceUnavailable, trip } from '../../support/virtual-fleet.ts'

/** A service that has sent half of its answer. The test says how it goes on. */
interface Source {
  readonly chunks: () => AsyncGenerator<string>
  end(): void
  fail(error: unknown): void
}

function createSource(): Source {
  const rest = Promise.withResolvers<void>()
  rest.promise.catch(() => {})
  return {
    chunks: async function* () {
      yield 'half'
      await rest.promise
      yield ', and last'
    },
    end: rest.resolve,
    fail: rest.reject,
  }
}

const bytes = async function* (source: Source): AsyncGenerator<Uint8Array> {
  for await (const chunk of source.chunks()) yield new TextEncoder().encode(chunk)
}

interface Kind {
  /** The value that an operation returns. */
  readonly make: (source: Source) => unknown
  /** The body in it. */
  readonly bodyOf: (value: never) => AsyncIterable<unknown>
}

/** As a client makes it: it can be destroyed at any time. */
function nodeStream(source: Source): Readable {
  const stream = new PassThrough()
  const feed = async () => {
    for await (const chunk of source.chunks()) stream.write(chunk)
    stream.end()
  }
  feed().catch((error: Error) => stream.destroy(error))
  return stream
}

const itself = (value: never): AsyncIterable<unknown> => value
const iterable = (source: Source): AsyncIterable<string> => ({ [Symbol.asyncIterator]: () => source.chunks() })
const response = (source: Source): Response => new Response(ReadableStream.from(bytes(source)))

const kinds: Readonly<Record<string, Kind>> = {
  'a Response': { make: response, bodyOf: ({ body }: Response) => body as AsyncIterable<unknown> },
  'a web stream': { make: (source) => ReadableStream.from(source.chunks()), bodyOf: itself },
  'a Node stream': { make: nodeStream, bodyOf: itself },
  'an async generator': { make: (source) => source.chunks(), bodyOf: itself },
  'an async iterable': { make: iterable, bodyOf: itself },
  'an object with a Node stream': {
    make: (source) => ({ status: 200, data: nodeStream(source) }),
    bodyOf: ({ data }: { data: Readable }) => data,
  },
  'an object with a web stream': {
    make: (source) => ({ $metadata: {}, Body: ReadableStream.from(source.chunks()) }),
    bodyOf: ({ Body }: { Body: AsyncIterable<unknown> }) => Body,
  },
  'a response with a Node stream, as node-fetch makes it': {
    make: (source) => {
      const body = nodeStream(source)
      return Object.create({ body, arrayBuffer: async () => new ArrayBuffer(0) })
    },
    bodyOf: ({ body }: { body: Readable }) => body,
  },
  'a list of Responses': {
    make: (source) => [new Response(null), response(source)],
    bodyOf: ([, { body }]: [unknown, Response]) => body as AsyncIterable<unknown>,
  },
}

async function textOf(body: AsyncIterable<unknown>): Promise<string> {
  let text = ''
  for await (const chunk of body) text += chunk instanceof Uint8Array ? new TextDecoder().decode(chunk) : chunk
  return text
}

const watched = { until: 'consumed' } as const
const reset = Object.assign(new Error('reset'), { code: 'ECONNRESET' })

/** Whether a call that comes now gets a permit. */
async function hasPermit(breaker: CircuitBreaker, runtime: FakeRuntime): Promise<boolean> {
  const leaving = new AbortController()
  const call = outcomeOf(breaker.call('stripe', ok, { signal: leaving.signal }))
  await runtime.settle()
  leaving.abort()
  return (await call).error === undefined
}

const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

const leavings: Readonly<Record<string, (body: AsyncIterable<unknown>) => unknown>> = {
  'reads a part': async (body) => {
    for await (const _chunk of body) break
  },
  'does not begin': async (body) => {
    if (body instanceof Readable) body.destroy()
    else if (body instanceof ReadableStream) await body.cancel()
    else await body[Symbol.asyncIterator]().return?.()
  },
}

describe.each(Object.entries(kinds))('a call until its body is consumed, which is %s,', (_name, { make, bodyOf }) => {
  const beginning = async (settings = {}) => {
    const { start, runtime, storage } = createFleet({ maxConcurrent: 1, ...settings })
    const breaker = start()
    await breaker.load()
    const source = createSource()
    let context: OperationContext | undefined
    const operation = async (given: OperationContext) => {
      context = given
      return make(source)
    }
    const begin = async (call: CallExternal = breaker.call.bind(breaker), options = {}) =>
      bodyOf((await call('stripe', operation, { ...watched, ...options })) as never)
    return { breaker, runtime, storage, source, begin, signal: () => context?.signal }
  }

  it('keeps its permit until the last piece is read, and gives it back once', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    const reading = textOf(await begin())
    const second = breaker.call('stripe', ok)
    expect(await isSettled(second, runtime)).toBe(false)
    source.end()
    expect(await reading).toBe('half, and last')
    expect(await second).toBe('ok')

    const body = await begin()
    expect(await hasPermit(breaker, runtime)).toBe(false)
    expect(await textOf(body)).toBe('half, and last')
    expect(await hasPermit(breaker, runtime)).toBe(true)
    expect(breaker.circuits['stripe']).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it('counts as a failure where it breaks off, and its reader gets the error of the service', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    const reading = outcomeOf(textOf(await begin()))
    source.fail(reset)
    expect((await reading).error).toBe(reset)
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 1 })
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('is judged by its classifier where it breaks off', async () => {
    const { breaker, source, begin } = await beginning()
    const isBreakableError = (error: unknown) => error === 'odd'
    const reading = outcomeOf(textOf(await begin(undefined, { isBreakableError })))
    source.fail('odd')
    await reading
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 1 })
  })

  it.each(Object.entries(leavings))(
    'says nothing of the service where its reader leaves: it %s',
    async (_how, leave) => {
      const { breaker, runtime, storage, begin } = await beginning()
      await trip(breaker)
      await runtime.advance(12_000)
      const body = await begin()
      expect((await storage.peek('stripe'))?.leases).toHaveLength(1)
      await leave(body)
      await runtime.settle()
      expect(await storage.peek('stripe')).toMatchObject({ state: 'HALF_OPEN', leases: [], successCount: 0 })
      expect(await hasPermit(breaker, runtime)).toBe(true)
    },
  )

  it('closes a circuit that it probes only at its end', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    await trip(breaker)
    await runtime.advance(12_000)
    const reading = textOf(await begin())
    await runtime.settle()
    expect(breaker.circuits['stripe']?.state).toBe('HALF_OPEN')
    source.end()
    await reading
    expect(breaker.circuits['stripe']?.state).toBe('CLOSED')
  })

  it('is cut by its timeout while its reader waits for the service, which counts', async () => {
    const { breaker, runtime, begin, signal } = await beginning()
    const reading = outcomeOf(textOf(await begin(undefined, { timeout: 1_000 })))
    await runtime.advance(1_000)
    const { error } = await reading
    expect(error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', reason: 'timeout' })
    expect(signal()?.reason).toBe(error)
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 1 })
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('is cut by the deadline of its invocation', async () => {
    const { breaker, runtime, begin } = await beginning()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 5_000 })
    const reading = outcomeOf(textOf(await begin(callExternal)))
    await runtime.advance(4_000)
    expect((await reading).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT', reason: 'deadline' })
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 1 })
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('blames nobody where its time is over and nobody has read it, who then gets the error', async () => {
    const { breaker, runtime, begin } = await beginning()
    const body = await begin(undefined, { timeout: 1_000 })
    await runtime.advance(1_000)
    expect((await outcomeOf(textOf(body))).error).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 0 })
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('ends with the reason of its caller’s signal, and says nothing of the service', async () => {
    const { breaker, runtime, begin } = await beginning()
    const leaving = new AbortController()
    const reading = outcomeOf(textOf(await begin(undefined, { signal: leaving.signal })))
    await runtime.settle()
    leaving.abort(reset)
    expect((await reading).error).toBe(reset)
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 0 })
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('is over with the invocation where nobody is reading, and can be read all the same', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    let body: AsyncIterable<unknown> | undefined
    await middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event: unknown, { callExternal }) => {
        body = await begin(callExternal)
      })({}, createTestContext())
    expect(await hasPermit(breaker, runtime)).toBe(true)
    source.fail(reset)
    expect((await outcomeOf(textOf(body as AsyncIterable<unknown>))).error).toBe(reset)
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 0 })
  })

  it('goes on after the invocation where somebody is reading', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    let reading: Promise<unknown> | undefined
    await middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event: unknown, { callExternal }) => {
        reading = textOf(await begin(callExternal))
      })({}, createTestContext())
    expect(await hasPermit(breaker, runtime)).toBe(false)
    source.end()
    await reading
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })

  it('goes on after the invocation where the response hands a body on', async () => {
    const { breaker, runtime, source, begin } = await beginning()
    const handler = middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event: unknown, { callExternal }) => {
        return { statusCode: 200, body: Readable.from(await begin(callExternal)) }
      })
    const { body } = (await handler({}, createTestContext())) as { body: Readable }
    expect(await hasPermit(breaker, runtime)).toBe(false)
    source.end()
    expect(await textOf(body)).toBe('half, and last')
    expect(await hasPermit(breaker, runtime)).toBe(true)
  })
})

/** Runs an operation that returns this value, whose body is watched. */
async function watching<T>(value: T, options = {}) {
  const { start, runtime } = createFleet({ maxConcurrent: 1 })
  const breaker = start()
  const handedOut = await breaker.call('stripe', async () => value, { ...watched, ...options })
  const failureCount = () => breaker.circuits['stripe']?.failureCount
  return { breaker, runtime, handedOut, failureCount, hasPermit: () => hasPermit(breaker, runtime) }
}

describe('a value that is handed out until its body is consumed', () => {
  it.each<[string, () => unknown]>([
    ['a Response', () => new Response('whole')],
    ['a web stream', () => ReadableStream.from(['whole'])],
    ['a Node stream', () => new PassThrough()],
    ['an async generator', () => createSource().chunks()],
    ['an object with an async iterable', () => ({ stream: iterable(createSource()) })],
  ])('is over when nobody has it any more: %s', async (_what, make) => {
    const { start, runtime } = createFleet({ maxConcurrent: 1 })
    const breaker = start()
    const callExternal = breaker.callExternalFor({ getRemainingTimeInMillis: () => 900_000 })
    await callExternal('stripe', async () => make(), { ...watched, timeout: 500_000 })
    expect(await hasPermit(breaker, runtime)).toBe(false)
    await waitFor('the body is collected', async () => {
      collectGarbage()
      return hasPermit(breaker, runtime)
    })
    expect(breaker.circuits['stripe']).toMatchObject({ failureCount: 0 })
  })

  it.each([
    ['no object', 'text'],
    ['nothing', null],
    ['an object without a body', { status: 200, items: [1] }],
    ['a Response without a body', new Response(null, { status: 204 })],
    ['a frozen object with a web stream', Object.freeze({ body: ReadableStream.from([]) })],
    ['a frozen generator', Object.freeze(createSource().chunks())],
    ['a stream that was destroyed', new PassThrough().destroy()],
    ['a revoked proxy', revoked()],
  ])('ends the call at once, as it is: %s', async (_what, value) => {
    const { handedOut, hasPermit: isOver } = await watching({ value })
    expect(handedOut.value).toBe(value)
    expect(await isOver()).toBe(true)
  })

  it('is none of the call’s business where the operation has begun to read it', async () => {
    const body = new Response('whole')
    const reading = body.text()
    const { hasPermit: isOver } = await watching(body)
    expect(await isOver()).toBe(true)
    expect(await reading).toBe('whole')
  })

  it('does not ask accessors', async () => {
    const value = {
      get lazy(): never {
        throw new Error('was asked')
      },
    }
    expect((await watching(value)).handedOut).toBe(value)
  })

  it('is judged at once where it counts as a failure', async () => {
    const busy = new Response('busy', { status: 503 })
    const { failureCount, hasPermit: isOver } = await watching(busy)
    expect(failureCount()).toBe(1)
    expect(await isOver()).toBe(true)
    expect(await busy.text()).toBe('busy')
  })

  it('counts where a Node stream has failed before it is handed out', async () => {
    const stream = new PassThrough()
    stream.once('error', () => {}).destroy(reset)
    expect((await watching(stream)).failureCount()).toBe(1)
  })

  it('may be an error that its stream only tells, as those of gRPC are', async () => {
    const stream = new PassThrough()
    const { failureCount } = await watching(stream)
    stream.once('error', () => {}).emit('error', reset)
    expect(failureCount()).toBe(1)
  })

  it.each([
    ['fails', reset],
    ['closes', undefined],
  ])('is left where the stream that it is piped into %s', async (_how, error) => {
    const stream = new PassThrough()
    const { failureCount, hasPermit: isOver } = await watching(stream)
    const destination = new PassThrough()
    const done = Promise.withResolvers<void>()
    pipeline(stream, destination, () => done.resolve())
    destination.destroy(error)
    await done.promise
    expect(failureCount()).toBe(0)
    expect(await isOver()).toBe(true)
  })

  it('does not end the process where its stream is cut and nobody listens', async () => {
    const stream = new PassThrough()
    const { runtime } = await watching(stream, { timeout: 100 })
    await runtime.advance(100)
    expect(stream.errored).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
  })

  it('blames nobody where its time is over while its reader lets what has come lie', async () => {
    const stream = new PassThrough()
    const { runtime, failureCount } = await watching(stream, { timeout: 100 })
    stream.on('data', () => stream.pause())
    stream.write('one')
    await runtime.settle()
    stream.write('two')
    await runtime.advance(100)
    expect(failureCount()).toBe(0)
  })
})

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

describe('a Response that is watched', () => {
  const answer = () => {
    const given = new Response('{"price":5}', { status: 201, statusText: 'Made', headers: { 'x-id': '7' } })
    return Object.defineProperties(given, { url: { value: 'https://shop.example/' }, redirected: { value: true } })
  }

  it('is the same object, and can be read in every way', async () => {
    const given = answer()
    const { handedOut } = await watching(given)
    expect(handedOut).toBe(given)
    expect(handedOut.bodyUsed).toBe(false)
    expect(await handedOut.json()).toEqual({ price: 5 })
    expect(handedOut.bodyUsed).toBe(true)
    await expect(handedOut.text()).rejects.toMatchObject({ name: 'TypeError' })
    const readers = {
      text: (text: string) => text,
      bytes: (read: Uint8Array) => new TextDecoder().decode(read),
      arrayBuffer: (buffer: ArrayBuffer) => new TextDecoder().decode(buffer),
      blob: (blob: Blob) => blob.text(),
    }
    for (const [name, toText] of Object.entries(readers)) {
      const { handedOut: next, hasPermit: isOver } = await watching(answer())
      const read: unknown = await next[name as keyof typeof readers]()
      expect(await toText(read as never)).toBe('{"price":5}')
      expect(await isOver()).toBe(true)
    }
  })

  it('can be cloned: one that is read to the end will do, and only who leaves both has left it', async () => {
    const { handedOut, hasPermit: isOver } = await watching(answer())
    const copy = handedOut.clone()
    expect(copy).toMatchObject({ status: 201, statusText: 'Made', ok: true, redirected: true, url: handedOut.url })
    expect(copy.headers.get('x-id')).toBe('7')
    void copy.body?.cancel()
    expect(await isOver()).toBe(false)
    expect(await handedOut.text()).toBe('{"price":5}')
    expect(await isOver()).toBe(true)
  })

  it('keeps a method of its own, and where its stream is kept beside it, that is the same', async () => {
    const given = answer()
    Object.assign(given, { data: given.body, json: async () => 'mine' })
    const { handedOut, hasPermit: isOver } = await watching(given as Response & { data: ReadableStream })
    expect(await handedOut.json()).toBe('mine')
    expect(await textOf(handedOut.data)).toBe('{"price":5}')
    expect(await isOver()).toBe(true)
  })

  it('can be read into a buffer of the reader’s own', async () => {
    const { handedOut, hasPermit: isOver } = await watching(answer())
    const reader = (handedOut.body as ReadableStream).getReader({ mode: 'byob' })
    const { value } = await reader.read(new Uint8Array(100))
    expect(new TextDecoder().decode(value)).toBe('{"price":5}')
    expect(await reader.read(new Uint8Array(100))).toMatchObject({ done: true })
    expect(await isOver()).toBe(true)
  })
})

it('refuses another word for `until`', async () => {
  const breaker = createFleet().start()
  const call = breaker.call('stripe', ok, { until: 'the end' as 'consumed' })
  await expect(call).rejects.toMatchObject({ code: 'CIRCUIT_CONFIGURATION', message: expect.stringContaining('until') })
})

it('runs the fallback of a call until its body is consumed only before there is one', async () => {
  const breaker = createFleet().start()
  const source = createSource()
  const options = { ...watched, fallback: () => 'instead' }
  expect(await breaker.call('stripe', () => Promise.reject(new ServiceUnavailable('503')), options)).toBe('instead')
  const body = await breaker.call('stripe', async () => source.chunks(), options)
  source.fail(reset)
  expect((await outcomeOf(textOf(body as AsyncIterable<unknown>))).error).toBe(reset)
})
