import { afterEach, describe, expect, it, jest } from '@jest/globals'
import { CircuitStorageError, originalOf, type StorageErrorKind, type StorageOperation } from '../../../src/errors.ts'
import type { StorageErrorEvent } from '../../../src/events.ts'
import type { Runtime, TimerHandle } from '../../../src/runtime.ts'
import type { CircuitRecord, ICircuitStorage, WriteResult } from '../../../src/storage/contract.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'
import { emptyRecord } from '../../../src/storage/record.ts'
import { StoreAccess } from '../../../src/storage/store-access.ts'

const start = 1_800_000_000_000
const storageTimeout = 500
const record = emptyRecord('e-1', start)
const otherRecord = emptyRecord('e-2', start)

/** A clock that moves when it is told to, and its timers. */
class FakeRuntime implements Runtime {
  readonly env = {}
  time = start
  /** What `random` draws. */
  drawn = 0
  readonly #timers = new Map<TimerHandle, { at: number; callback: () => void }>()

  now = (): number => this.time
  random = (): number => this.drawn
  id = (): string => 'id'

  setTimeout = (callback: () => void, delay: number): TimerHandle => {
    const handle = {}
    this.#timers.set(handle, { at: this.time + delay, callback })
    return handle
  }

  clearTimeout = (timer: TimerHandle): void => {
    this.#timers.delete(timer)
  }

  get timers(): number {
    return this.#timers.size
  }

  advance(duration: number): void {
    this.time += duration
    for (const [handle, { at, callback }] of [...this.#timers]) {
      if (at > this.time || !this.#timers.delete(handle)) continue
      callback()
    }
  }
}

interface Parts {
  readonly runtime: FakeRuntime
  readonly store: StoreAccess
  readonly events: StorageErrorEvent[]
}

/** With a listener, so that nothing is printed. */
function arrange(storage: ICircuitStorage = new MemoryCircuitStorage()): Parts {
  const runtime = new FakeRuntime()
  const store = new StoreAccess(storage, runtime, storageTimeout)
  const events: StorageErrorEvent[] = []
  store.onError((event) => events.push(event))
  return { runtime, store, events }
}

function never(): Promise<never> {
  return new Promise(() => {})
}

function run<T>(store: StoreAccess, action: (storage: ICircuitStorage) => Promise<T>, late?: (reply: T) => void) {
  return store.run('getState', ['stripe'], action, late)
}

async function errorOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  try {
    await promise
  } catch (error) {
    return error as CircuitStorageError
  }
  throw new Error('Expected a rejection.')
}

async function failTimes(store: StoreAccess, times: number, error: unknown = new Error('down')): Promise<void> {
  for (let n = 0; n < times; n++) await errorOf(run(store, () => Promise.reject(error)))
}

function succeed(store: StoreAccess): Promise<CircuitRecord> {
  return run(store, () => Promise.resolve(record))
}

/** How long the store is not read from now on, to the millisecond. */
function pauseOf({ runtime, store }: Parts): number {
  const from = runtime.time
  const longest = 60_000
  while (!store.canRead && runtime.time - from <= longest) runtime.time++
  const pause = runtime.time - from
  runtime.time = from
  if (pause > longest) throw new Error(`Expected a pause of at most ${longest} ms.`)
  return pause
}

function damaged(): CircuitStorageError {
  return new CircuitStorageError('The record is damaged.', { operation: 'getState', service: 'stripe', corrupt: true })
}

async function untilRejectionsAreReported(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** Fails where nothing happens. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  const hangs = untilRejectionsAreReported().then(() => Promise.reject(new Error('Nothing happened.')))
  return Promise.race([promise, hangs])
}

/** A promise, but what its handlers throw gets lost and does not end the process as an unhandledRejection. */
function thenable(call: (resolve: (reply: unknown) => void, reject: (reason: unknown) => void) => void) {
  const then = (resolve: (reply: unknown) => void, reject: (reason: unknown) => void): void => {
    queueMicrotask(() => {
      try {
        call(resolve, reject)
      } catch {
        // Lost.
      }
    })
  }
  return { then } as unknown as Promise<unknown>
}

function rejecting(error: unknown): Promise<unknown> {
  return thenable((_, reject) => reject(error))
}

function answering(reply: unknown): Promise<unknown> {
  return thenable((resolve) => resolve(reply))
}

/** An error that throws where somebody reads this property. */
function unreadable(field: string): Error {
  const code = 'CIRCUIT_STORAGE'
  const error = Object.assign(new Error('unreadable'), { code })
  return Object.defineProperty(error, field, {
    get() {
      throw new Error(`${field} is unreadable`)
    },
  })
}

/** What was warned of, in place of printing it. */
function captureWarnings() {
  const spy = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  return () => spy.mock.calls.map(([message, options]) => ({ message, ...(options as object) }))
}

afterEach(() => {
  jest.restoreAllMocks()
})

describe('an operation', () => {
  it('gets the store and hands back its reply', async () => {
    const storage = new MemoryCircuitStorage()
    const { runtime, store, events } = arrange(storage)
    const given: ICircuitStorage[] = []

    const reply = await run(store, async (its) => {
      given.push(its)
      return record
    })

    expect(reply).toEqual(record)
    expect(given).toEqual([storage])
    expect([runtime.timers, events.length]).toEqual([0, 0])
  })

  it('that never answers is given up after storageTimeout', async () => {
    const { runtime, store, events } = arrange()
    let isOver = false
    const outcome = errorOf(run(store, never)).finally(() => {
      isOver = true
    })

    runtime.advance(storageTimeout - 1)
    await undefined
    expect(isOver).toBe(false)
    runtime.advance(1)

    const error = await outcome
    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error.message).toBe('The store did not answer getState within 500 ms.')
    expect(error.operation).toBe('getState')
    expect(events).toEqual([{ services: ['stripe'], operation: 'getState', error, willRetry: true }])
  })

  const circular: Record<string, unknown> = {}
  circular['self'] = circular

  it.each<[string, () => unknown, unknown]>([
    ['rejects with an error', () => Promise.reject(new RangeError('x')), expect.any(RangeError)],
    ['rejects with undefined', () => Promise.reject(undefined), undefined],
    ['rejects with null', () => Promise.reject(null), null],
    ['rejects with a string', () => Promise.reject('down'), 'down'],
    ['rejects with a symbol', () => Promise.reject(Symbol.iterator), Symbol.iterator],
    ['rejects with a circular object', () => Promise.reject(circular), circular],
    ['rejects with an object without prototype', () => Promise.reject(Object.create(null)), {}],
    [
      'throws synchronously',
      () => {
        throw new RangeError('x')
      },
      expect.any(RangeError),
    ],
    [
      'throws undefined synchronously',
      () => {
        throw undefined
      },
      undefined,
    ],
    ['returns no promise', () => 'reply', expect.any(TypeError)],
    ['returns nothing', () => undefined, expect.any(TypeError)],
    [
      'returns a thenable that throws',
      () => ({
        // biome-ignore lint/suspicious/noThenProperty: a thenable that is no promise.
        then: () => {
          throw new RangeError('x')
        },
      }),
      expect.any(RangeError),
    ],
  ])('whose adapter %s rejects with a CircuitStorageError with that as its cause', async (_what, action, cause) => {
    const { runtime, store, events } = arrange()

    const error = await errorOf(run(store, action as () => Promise<unknown>))

    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error.message).toBe('The store failed at getState.')
    expect(originalOf(error)).toEqual(cause)
    expect(events.map((event) => event.error)).toEqual([error])
    expect(runtime.timers).toBe(0)
  })

  it('may be answered by what arrived while the process was frozen: sockets are read after timers', async () => {
    const { store, runtime, events } = arrange()
    const { promise, resolve } = Promise.withResolvers<CircuitRecord>()
    const reply = run(store, () => promise)
    runtime.advance(3_600_000)
    expect(runtime.timers).toBe(1)
    resolve(record)
    expect(await reply).toEqual(record)
    expect(runtime.timers).toBe(0)
    expect(events).toEqual([])
  })

  it('is given up 200 ms after a freeze, once', async () => {
    const { store, runtime, events } = arrange()
    const error = errorOf(run(store, never))
    runtime.advance(storageTimeout + 3_600_000)
    runtime.advance(199)
    await untilRejectionsAreReported()
    expect(events).toHaveLength(0)
    runtime.advance(1)
    expect((await error).message).toBe('The store did not answer getState within 500 ms.')
    expect(events).toHaveLength(1)
    expect(runtime.timers).toBe(0)
  })

  it('is given up soon where the process was only busy: twice as late as the timer was', async () => {
    const { store, runtime } = arrange()
    const error = errorOf(run(store, never))
    runtime.advance(storageTimeout + 11)
    runtime.advance(21)
    expect(runtime.timers).toBe(1)
    runtime.advance(1)
    expect(runtime.timers).toBe(0)
    await error
  })

  it('is given up at once where the timer is no more than a hundredth of a second late', async () => {
    const { store, runtime } = arrange()
    const error = errorOf(run(store, never))
    runtime.advance(storageTimeout + 10)
    expect(runtime.timers).toBe(0)
    await error
  })

  it('has one outcome, whatever an adapter’s thenable calls', async () => {
    const { store, events } = arrange()
    const late: unknown[] = []
    const thenable = {
      // biome-ignore lint/suspicious/noThenProperty: a thenable that is no promise.
      then: (resolve: (value: CircuitRecord) => void, reject: (error: unknown) => void) => {
        resolve(record)
        reject(new Error('as well'))
      },
    }

    const reply = await run(
      store,
      () => thenable as unknown as Promise<CircuitRecord>,
      (value) => late.push(value),
    )

    expect(reply).toEqual(record)
    expect([events, late]).toEqual([[], []])
  })

  it('that rejects with a CircuitStorageError rejects with the same object', async () => {
    const { store } = arrange()
    const error = new CircuitStorageError('throttled', { operation: 'getState' })

    expect(await errorOf(run(store, () => Promise.reject(error)))).toBe(error)
  })

  it('that an operator asked for gets storageTimeout for each of its rounds', async () => {
    const { runtime, store } = arrange()
    let isOver = false
    const outcome = errorOf(store.run('batchSetState', ['stripe'], never, undefined, { rounds: 3 })).finally(() => {
      isOver = true
    })

    runtime.advance(3 * storageTimeout - 1)
    await untilRejectionsAreReported()
    expect(isOver).toBe(false)
    runtime.advance(1)

    expect((await outcome).message).toBe('The store did not answer batchSetState within 1500 ms.')
  })

  it.each<[StorageOperation, string, unknown]>([
    ['batchSetState', 'none', undefined],
    ['batchClearState', 'any, because nobody looks at them', new Set(['stripe'])],
  ])('%s that rejects with results, %s, rejects with the same object', async (operation, _what, results) => {
    const { store } = arrange()
    const error = Object.assign(new Error('partial'), { code: 'CIRCUIT_STORAGE', results })

    expect(await errorOf(store.run(operation, ['stripe'], () => Promise.reject(error)))).toBe(error)
  })

  it.each<[StorageOperation, string, unknown]>([
    ['batchSetState', 'no map', { stripe: { applied: true, current: record } }],
    ['batchSetState', 'a map of something else', new Map([['stripe', record]])],
    ['batchGetState', 'no map', [record]],
  ])('%s that rejects with results that are %s rejects with an error of ours', async (operation, _what, results) => {
    const { store } = arrange()
    const error = Object.assign(new Error('partial'), { code: 'CIRCUIT_STORAGE', results })

    expect(await errorOf(store.run(operation, ['stripe'], () => Promise.reject(error)))).toMatchObject({
      message: `The store failed at ${operation}.`,
      operation,
      cause: error,
    })
  })

  // Errors of an adapter that is written in plain JavaScript, or of another version of this package.
  it.each<[string, unknown]>([
    ['a plain object', { stripe: damaged() }],
    ['null', null],
    ['a number', 1],
    ['an array', [damaged()]],
    ['a map of nothing', new Map([['stripe', undefined]])],
    [
      'a map that holds one error and something else',
      new Map<string, unknown>([
        ['stripe', damaged()],
        ['paypal', 'fine'],
      ]),
    ],
  ])('that rejects with a CIRCUIT_STORAGE error whose errors are %s still rejects', async (_what, errors) => {
    const { store, events } = arrange()
    const error = Object.assign(new Error('partial'), { code: 'CIRCUIT_STORAGE', errors })

    const outcome = await soon(errorOf(run(store, () => rejecting(error))))

    expect(outcome).toMatchObject({ code: 'CIRCUIT_STORAGE', cause: error })
    expect(events).toHaveLength(1)
    await failTimes(store, 1, error)
    expect(store.canRead).toBe(false)
  })

  it.each(['code', 'errors', 'corrupt', 'cause'])(
    'that rejects with an error whose %s throws still rejects',
    async (field) => {
      const { runtime, store } = arrange()

      const outcome = await soon(errorOf(run(store, () => rejecting(unreadable(field)))))

      expect(outcome).toBeInstanceOf(Error)
      expect(outcome).toMatchObject({ message: expect.stringMatching(/^(The store failed at getState\.|unreadable)$/) })
      if (outcome instanceof CircuitStorageError) expect(outcome.operation).toBe('getState')
      expect(runtime.timers).toBe(0)
    },
  )

  // "Every failure is reported", and "a store that keeps failing is left alone": the error that stands in for one that
  // cannot be looked at is neither reported nor counted.
  it('that rejects with an error that cannot be looked at is reported and counted like any other', async () => {
    const { store, events } = arrange()

    await failTimes(store, 2, unreadable('code'))

    expect(events).toHaveLength(2)
    expect(store.canRead).toBe(false)
  })

  it.each<[StorageOperation, string, unknown]>([
    ['batchGetState', 'nothing', undefined],
    ['batchGetState', 'a plain object', { stripe: record }],
    ['addOutcomes', 'nothing', undefined],
    ['addOutcomes', 'true', true],
    ['addOutcomes', 'no word on whether it was applied', { current: record }],
    ['compareAndSetState', 'null', null],
    ['compareAndSetState', 'a record', record],
    ['compareAndSetState', 'a number for whether it was applied', { applied: 1, current: record }],
    ['batchSetState', 'nothing', undefined],
    ['batchSetState', 'a plain object', {}],
    [
      'batchSetState',
      'nothing for one circuit',
      new Map<string, unknown>([
        ['paypal', { applied: true, current: record }],
        ['stripe', undefined],
      ]),
    ],
    ['batchSetState', 'true for one circuit', new Map<string, unknown>([['stripe', true]])],
  ])('%s that is answered with %s has failed', async (operation, _what, reply) => {
    const { runtime, store, events } = arrange()
    const late: unknown[] = []
    const fail = () =>
      store.run(
        operation,
        ['stripe'],
        () => Promise.resolve(reply),
        (value) => late.push(value),
      )

    const error = await errorOf(fail())
    await errorOf(fail())

    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error.cause).toEqual(
      new TypeError(`The adapter answered ${operation} with something that the contract does not allow.`),
    )
    expect([events.length, late.length, runtime.timers]).toEqual([2, 0, 0])
    expect(store.canRead && store.canWrite).toBe(false)
  })

  it.each<[StorageOperation, unknown]>([
    ['getState', record],
    ['getState', undefined],
    ['batchGetState', new Map([['stripe', record]])],
    ['batchGetState', new Map()],
    ['addOutcomes', { applied: true, current: record }],
    ['compareAndSetState', { applied: false, current: undefined }],
    ['batchSetState', new Map([['stripe', { applied: true, current: record }]])],
    ['clearState', undefined],
    ['batchClearState', 'anything'],
  ])('%s hands back every answer that the contract allows', async (operation, reply) => {
    const { store, events } = arrange()

    expect(await store.run(operation, ['stripe'], () => Promise.resolve(reply))).toEqual(reply)
    expect(events).toEqual([])
  })

  // Thrown outside of a promise it would be an unhandledRejection, which ends the process.
  it('that is answered with what cannot be looked at has failed', async () => {
    const { store } = arrange()
    const reply = Object.defineProperty({}, 'state', {
      get() {
        throw new Error('unreadable')
      },
    })

    expect(await soon(errorOf(run(store, () => answering(reply))))).toBeInstanceOf(CircuitStorageError)
  })
})

describe('a record', () => {
  const nulls = { ...record, version: 'v', override: null, lastFailure: null, mine: 'x' } as unknown as CircuitRecord
  const parsed = { ...record, version: 'v' }
  const ajar = { ...record, state: 'AJAR' } as unknown as CircuitRecord
  const answer = <T>(store: StoreAccess, operation: StorageOperation, reply: T): Promise<T> =>
    store.run(operation, ['stripe'], () => Promise.resolve(reply))

  it.each<[StorageOperation, unknown, unknown]>([
    ['getState', nulls, parsed],
    ['addOutcomes', { applied: true, current: nulls }, { applied: true, current: parsed }],
    ['compareAndSetState', { applied: false, current: nulls, more: 1 }, { applied: false, current: parsed }],
    ['batchGetState', new Map([['stripe', nulls]]), new Map([['stripe', parsed]])],
    [
      'batchSetState',
      new Map([['stripe', { applied: true, current: nulls }]]),
      new Map([['stripe', { applied: true, current: parsed }]]),
    ],
  ])('that %s is answered with is handed on parsed', async (operation, reply, expected) => {
    const { store, events } = arrange()

    expect(await answer(store, operation, reply)).toStrictEqual(expected)
    expect(events).toEqual([])
  })

  it.each<[StorageOperation, string, unknown]>([
    ['getState', 'a record with a state that is none', ajar],
    ['getState', 'null', null],
    ['getState', 'a string', 'fine'],
    ['getState', 'an empty object', {}],
    ['getState', 'a record whose transitions are no list', { ...record, transitions: {} }],
    ['getState', 'a record with a lease that is none', { ...record, leases: [null] }],
    ['getState', 'a record without a version', { ...record, version: undefined }],
    ['getState', 'a record with a count that is a text', { ...record, failureCount: '3' }],
    ['addOutcomes', 'no record', { applied: false, current: 'fine' }],
    ['compareAndSetState', 'a record that is none', { applied: false, current: ajar }],
  ])('that does not parse is damage: %s, %s', async (operation, _what, reply) => {
    const { store, events } = arrange()

    const error = await errorOf(answer(store, operation, reply))

    expect(error).toMatchObject({ corrupt: true, kind: 'corrupt', operation, service: 'stripe' })
    expect(error.message).toContain('The record stored for "stripe" is damaged')
    expect(events).toMatchObject([{ services: ['stripe'], operation, error }])
  })

  it('that does not parse says nothing against the store, which answers', async () => {
    const { store } = arrange()
    await failTimes(store, 2)
    expect(store.canRead).toBe(false)

    await errorOf(answer(store, 'getState', ajar))

    expect(store.canRead).toBe(true)
  })

  it('that does not parse fails alone in a batch', async () => {
    const services = new Map([
      ['prod#stripe', 'stripe'],
      ['prod#paypal', 'paypal'],
    ])
    for (const [operation, reply] of [
      ['batchGetState', (current: CircuitRecord) => current],
      ['batchSetState', (current: CircuitRecord) => ({ applied: true, current })],
    ] as const) {
      const { store, events } = arrange()
      const replies = new Map<string, unknown>([
        ['prod#stripe', reply(ajar)],
        ['prod#paypal', reply(nulls)],
      ])

      const error = await errorOf(store.run(operation, services, () => Promise.resolve(replies)))

      expect(error).toMatchObject({ operation, corrupt: true })
      expect([...(error.errors ?? [])]).toMatchObject([['prod#stripe', { corrupt: true, service: 'prod#stripe' }]])
      expect(error.results).toStrictEqual(new Map([['prod#paypal', reply(parsed)]]))
      expect(events).toMatchObject([{ services: ['stripe'] }])
    }
  })

  it('in the results of a batch that failed in part is parsed as well, and fails where it does not parse', async () => {
    const { store, events } = arrange()
    const throttled = new CircuitStorageError('Too much.', { operation: 'batchGetState', kind: 'throttled' })
    const results = new Map([
      ['stripe', ajar],
      ['paypal', nulls],
    ])
    const cause = new Error('down')
    const partial = (errors?: ReadonlyMap<string, CircuitStorageError>) =>
      new CircuitStorageError('partial', {
        operation: 'batchGetState',
        results,
        kind: 'throttled',
        cause,
        ...(errors && { errors }),
      })
    const fail = (error: CircuitStorageError) =>
      errorOf(store.run('batchGetState', ['stripe', 'paypal', 'adyen'], () => Promise.reject(error)))

    const error = await fail(partial(new Map([['adyen', throttled]])))

    expect(error).toMatchObject({
      message: 'partial',
      operation: 'batchGetState',
      kind: 'throttled',
      corrupt: false,
      cause,
    })
    expect(error.results).toStrictEqual(new Map([['paypal', parsed]]))
    expect([...(error.errors ?? [])]).toMatchObject([
      ['adyen', { kind: 'throttled' }],
      ['stripe', { corrupt: true }],
    ])
    expect(events).toHaveLength(1)
    // Where an adapter does not say what failed, everything did.
    expect((await fail(partial())).errors).toBeUndefined()
  })
})

describe('an adapter that has something to prepare', () => {
  class Preparing extends MemoryCircuitStorage {
    calls = 0
    readonly #prepare: () => Promise<void>

    constructor(prepare: () => Promise<void>) {
      super()
      this.#prepare = prepare
    }

    prepare(): Promise<void> {
      this.calls++
      return this.#prepare()
    }
  }

  it('is given the time for it that the first operation then has to itself', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { runtime, store, events } = arrange(new Preparing(() => promise))
    let hasStarted = false
    const outcome = errorOf(
      run(store, () => {
        hasStarted = true
        return never()
      }),
    )

    runtime.advance(4_999)
    await untilRejectionsAreReported()
    expect([hasStarted, events.length]).toEqual([false, 0])
    resolve()
    await untilRejectionsAreReported()
    expect(hasStarted).toBe(true)
    runtime.advance(storageTimeout - 1)
    expect(events).toHaveLength(0)
    runtime.advance(1)

    expect((await outcome).message).toBe('The store did not answer getState within 500 ms.')
    expect(runtime.timers).toBe(0)
  })

  it('prepares once for operations that begin together, and never again', async () => {
    const storage = new Preparing(() => Promise.resolve())
    const { runtime, store } = arrange(storage)

    await Promise.all([succeed(store), succeed(store), store.prepare()])
    await succeed(store)

    expect(storage.calls).toBe(1)
    expect(store.prepare()).toBeUndefined()
    expect(runtime.timers).toBe(0)
  })

  it('is not waited for longer than 5 s', async () => {
    const { runtime, store } = arrange(new Preparing(never))
    const reply = succeed(store)

    runtime.advance(5_000)

    expect(await soon(reply)).toEqual(record)
    expect(store.prepare()).toBeUndefined()
    expect(runtime.timers).toBe(0)
  })

  it('may fail at it: the operation runs, nothing is counted, and the next one lets it try again', async () => {
    const storage = new Preparing(() => Promise.reject(new Error('no such module')))
    const { runtime, store, events } = arrange(storage)

    expect(await succeed(store)).toEqual(record)
    await store.prepare()

    expect(storage.calls).toBe(2)
    expect([events.length, runtime.timers, store.canRead, store.canWrite]).toEqual([0, 0, true, true])
  })

  it.each<[string, () => Promise<void>]>([
    [
      'throws',
      () => {
        throw new Error('no such module')
      },
    ],
    ['returns no promise', () => 'ready' as unknown as Promise<void>],
  ])('may do it wrong: the operation runs where it %s', async (_what, prepare) => {
    const { runtime, store, events } = arrange(new Preparing(prepare))

    expect(await soon(succeed(store))).toEqual(record)
    expect([events.length, runtime.timers]).toEqual([0, 0])
  })

  // `this.#preparing = undefined` runs inside the executor, before `??=` assigns the promise: that stays for ever.
  it('is let try again where it threw, as where it rejected', async () => {
    const storage = new Preparing(() => {
      throw new Error('no such module')
    })
    const { store } = arrange(storage)

    await succeed(store)
    await succeed(store)

    expect(storage.calls).toBe(2)
  })

  it('has nothing to do where it has no such method', () => {
    expect(arrange().store.prepare()).toBeUndefined()
  })
})

describe('an answer that comes late', () => {
  it('is handed over, once, and makes the store available again', async () => {
    const { runtime, store } = arrange()
    await failTimes(store, 1)
    const { promise, resolve } = Promise.withResolvers<CircuitRecord>()
    const replies: CircuitRecord[] = []
    const outcome = errorOf(
      run(
        store,
        () => promise,
        (reply) => replies.push(reply),
      ),
    )
    runtime.advance(storageTimeout)
    await outcome
    expect(store.canRead).toBe(false)

    resolve(otherRecord)
    await promise

    expect(replies).toEqual([otherRecord])
    expect(store.canRead).toBe(true)
  })

  it('is not handed over where it came in time', async () => {
    const { store } = arrange()
    const replies: CircuitRecord[] = []

    await run(
      store,
      () => Promise.resolve(record),
      (reply) => replies.push(reply),
    )

    expect(replies).toEqual([])
  })

  it('may be of no interest', async () => {
    const { runtime, store } = arrange()
    const { promise, resolve } = Promise.withResolvers<CircuitRecord>()
    const outcome = errorOf(run(store, () => promise))
    runtime.advance(storageTimeout)
    await outcome

    resolve(otherRecord)
    await untilRejectionsAreReported()

    expect(store.canRead).toBe(true)
  })

  it('is not handed over, and changes nothing, where the contract does not allow it', async () => {
    const { runtime, store, events } = arrange()
    await failTimes(store, 1)
    const { promise, resolve } = Promise.withResolvers<unknown>()
    const replies: unknown[] = []
    const outcome = errorOf(
      run(
        store,
        () => promise,
        (reply) => replies.push(reply),
      ),
    )
    runtime.advance(storageTimeout)
    await outcome

    resolve('late')
    await untilRejectionsAreReported()

    expect([replies.length, events.length, store.canRead]).toEqual([0, 2, false])
  })

  it('is ignored if it is a failure: neither reported nor counted again, nor unhandled', async () => {
    const { runtime, store, events } = arrange()
    const { promise, reject } = Promise.withResolvers<CircuitRecord>()
    const outcome = errorOf(run(store, () => promise))
    runtime.advance(storageTimeout)
    await outcome

    reject(new Error('late'))
    await untilRejectionsAreReported()

    expect(events).toHaveLength(1)
    expect(store.canRead).toBe(true)
  })

  it('is reported if it says that waiting does not help', async () => {
    const { runtime, store, events } = arrange()
    const { promise, reject } = Promise.withResolvers<CircuitRecord>()
    const outcome = errorOf(run(store, () => promise))
    runtime.advance(storageTimeout)
    await outcome
    const error = new CircuitStorageError('No.', { operation: 'getState', kind: 'misconfigured' })

    reject(error)
    await untilRejectionsAreReported()

    expect(events.slice(1)).toEqual([{ operation: 'getState', services: ['stripe'], error, willRetry: true }])
  })
})

describe('the pause', () => {
  it('does not grow with how many operations were in flight when the store failed once', async () => {
    const parts = arrange()
    const outcomes = Array.from({ length: 9 }, () => errorOf(run(parts.store, never)))

    parts.runtime.advance(storageTimeout)
    await Promise.all(outcomes)

    expect(pauseOf(parts)).toBeLessThanOrEqual(250)
  })

  it('is no longer than it may be', async () => {
    const runtime = new FakeRuntime()
    runtime.drawn = 1
    const store = new StoreAccess(new MemoryCircuitStorage(), runtime, storageTimeout, 2_000)
    store.onError(() => {})

    await failTimes(store, 1, new CircuitStorageError('No.', { operation: 'getState', kind: 'misconfigured' }))

    expect(pauseOf({ runtime, store, events: [] })).toBe(2_000)
  })

  it('is over after a success, for reads and writes each by itself', async () => {
    const { store } = arrange()
    await failTimes(store, 5)

    await succeed(store)

    expect(store.canRead).toBe(true)
  })

  it('begins after timeouts as after errors', async () => {
    const { runtime, store } = arrange()
    for (let n = 0; n < 2; n++) {
      const outcome = errorOf(run(store, never))
      runtime.advance(storageTimeout)
      await outcome
    }

    expect(store.canRead).toBe(false)
  })

  it('does not begin for damaged records: the store itself answers', async () => {
    const { store, events } = arrange()

    await failTimes(store, 20, damaged())

    expect(store.canRead).toBe(true)
    expect(events).toHaveLength(20)
  })

  it('does not begin for a batch in which only damaged records failed', async () => {
    const { store } = arrange()
    const errors = new Map([
      ['stripe', damaged()],
      ['paypal', damaged()],
    ])

    await failTimes(store, 5, new CircuitStorageError('partial', { operation: 'batchGetState', errors }))

    expect(store.canRead).toBe(true)
  })

  it('is over with a damaged record: whoever answers is well', async () => {
    const { runtime, store } = arrange()
    await failTimes(store, 8)
    expect(store.canRead).toBe(false)

    runtime.time += 30_000
    await failTimes(store, 1, damaged())
    await failTimes(store, 1)

    expect(store.canRead).toBe(true)
  })

  it('begins for a batch in which anything failed that is no damage', async () => {
    const { store } = arrange()
    const throttled = new CircuitStorageError('throttled', { operation: 'batchGetState' })
    const errors = new Map([
      ['stripe', damaged()],
      ['paypal', throttled],
    ])

    await failTimes(store, 2, new CircuitStorageError('partial', { operation: 'batchGetState', errors }))

    expect(store.canRead).toBe(false)
  })

  it('begins for a batch that failed without saying where', async () => {
    const { store } = arrange()

    await failTimes(store, 5, new CircuitStorageError('down', { operation: 'batchGetState', errors: new Map() }))

    expect(store.canRead).toBe(false)
  })
})

describe('a store that is misconfigured', () => {
  const refused = (name = 'AccessDeniedException', operation: StorageOperation = 'getState') => {
    const cause = Object.assign(new Error('no'), { name })
    return new CircuitStorageError('Allow it in the policy.', { operation, kind: 'misconfigured', cause })
  }

  it('is left alone for the longest time from its first failure on: waiting does not help', async () => {
    const parts = arrange()
    captureWarnings()
    parts.runtime.drawn = 0.5

    await failTimes(parts.store, 1, refused())

    expect(pauseOf(parts)).toBe(22_500)
    expect(parts.store.canWrite).toBe(true)
  })

  it('is warned of once, with what to do, whether or not somebody listens', async () => {
    const warnings = captureWarnings()
    const { runtime, store, events } = arrange()

    for (let n = 0; n < 5; n++) {
      await failTimes(store, 2, refused())
      runtime.time += 3_600_000
    }

    expect(events).toHaveLength(10)
    expect(warnings()).toEqual([
      {
        message:
          "The circuit breaker's store is misconfigured; until that is corrected, each instance decides alone. " +
          'Allow it in the policy.',
        type: 'CircuitStorageWarning',
        code: 'CIRCUIT_STORAGE',
      },
    ])
  })

  it('is warned of again for another cause, and when what had failed was well in between', async () => {
    const warnings = captureWarnings()
    const { store } = arrange()
    const write = (error: CircuitStorageError) =>
      errorOf(store.run('addOutcomes', ['stripe'], () => Promise.reject(error)))
    const said = (word: string) =>
      new CircuitStorageError('x', { operation: 'getState', kind: 'misconfigured', cause: new Error(`${word} x`) })

    await failTimes(store, 2, refused())
    await failTimes(store, 2, refused('ResourceNotFoundException'))
    // What is wrong with reading is wrong with writing, too.
    await write(refused())
    expect(warnings()).toHaveLength(2)
    await failTimes(store, 2, said('NOAUTH'))
    await failTimes(store, 2, said('NOPERM'))
    expect(warnings()).toHaveLength(4)
    await failTimes(
      store,
      2,
      new CircuitStorageError('x', { operation: 'getState', kind: 'misconfigured', cause: 'text' }),
    )
    expect(warnings()).toHaveLength(5)

    await succeed(store)
    await failTimes(store, 2, refused())
    await write(refused())
    expect(warnings()).toHaveLength(6)
  })

  it('is not warned of again because something else is well: another operation, or another service', async () => {
    const warnings = captureWarnings()
    const { store } = arrange()
    const add = (services: string[], action: () => Promise<WriteResult>) => store.run('addOutcomes', services, action)
    const isWell = async (): Promise<WriteResult> => ({ applied: true, current: record })
    const isRefused = () => Promise.reject(refused())

    await errorOf(add(['stripe', 'paypal'], isRefused))
    expect(warnings()).toHaveLength(1)
    for (let round = 0; round < 3; round++) {
      await store.run('compareAndSetState', ['stripe', 'paypal'], isWell)
      await add(['paypal'], isWell)
      await succeed(store)
      await errorOf(add(['stripe', 'paypal'], isRefused))
    }
    expect(warnings()).toHaveLength(1)
    await add(['paypal', 'stripe', 'adyen'], isWell)
    await errorOf(add(['stripe', 'paypal'], isRefused))
    expect(warnings()).toHaveLength(2)
  })

  it('for some services only is no reason to leave it alone: it is warned of once for each', async () => {
    const warnings = captureWarnings()
    const { store } = arrange()
    const wrongType = (service: string) =>
      new CircuitStorageError('No hash.', { operation: 'getState', service, corrupt: true, kind: 'misconfigured' })

    for (const service of ['stripe', 'paypal', 'stripe']) {
      await errorOf(store.run('getState', [service], () => Promise.reject(wrongType(service))))
    }

    expect(store.canRead).toBe(true)
    expect(warnings()).toHaveLength(2)
  })
})

describe('a throttled store', () => {
  it('is read on, for each circuit reads it as often as it can bear, and is warned of once a minute', async () => {
    const warnings = captureWarnings()
    const runtime = new FakeRuntime()
    const store = new StoreAccess(new MemoryCircuitStorage(), runtime, storageTimeout)
    const throttled = new CircuitStorageError('Too much.', { operation: 'getState', kind: 'throttled' })

    await failTimes(store, 3, throttled)
    expect(store.canRead).toBe(true)
    await failTimes(store, 1, new CircuitStorageError('Away.', { operation: 'getState' }))

    expect(warnings().map(({ message }) => message)).toEqual(['Too much.', 'Away.'])
  })

  it('is written no more for a while, which says that it throttles', async () => {
    captureWarnings()
    const store = new StoreAccess(new MemoryCircuitStorage(), new FakeRuntime(), storageTimeout)
    const write = (kind: StorageErrorKind) => {
      const error = new CircuitStorageError('No.', { operation: 'addOutcomes', kind })
      return errorOf(store.run('addOutcomes', ['stripe'], () => Promise.reject(error)))
    }
    await write('throttled')
    await write('throttled')
    expect([store.canWrite, store.throttlesWrites]).toEqual([false, true])
    await write('unavailable')
    expect([store.canWrite, store.throttlesWrites]).toEqual([false, false])
  })
})

describe('a batch', () => {
  const services = new Map([
    ['prod#stripe', 'stripe'],
    ['prod#paypal', 'paypal'],
  ])
  const servicesOf = async (error: unknown): Promise<readonly string[] | undefined> => {
    const { store, events } = arrange()
    await errorOf(store.run('batchGetState', services, () => Promise.reject(error)))
    return events[0]?.services
  }
  const failed = (...keys: string[]) =>
    new CircuitStorageError('partial', {
      operation: 'batchGetState',
      errors: new Map(keys.map((key) => [key, damaged()])),
    })

  it('that fails in part is reported for the services that failed, by their names', async () => {
    expect(await servicesOf(failed('prod#paypal'))).toEqual(['paypal'])
  })

  it.each<[string, unknown]>([
    ['as a whole', new Error('down')],
    ['without saying where', failed()],
    ['at keys that nobody asked for', failed('other')],
  ])('that fails %s is reported for all services', async (_what, error) => {
    expect(await servicesOf(error)).toEqual(['stripe', 'paypal'])
  })
})

describe('reading and writing', () => {
  const operations: StorageOperation[] = [
    'getState',
    'batchGetState',
    'addOutcomes',
    'compareAndSetState',
    'batchSetState',
    'clearState',
    'batchClearState',
  ]

  function failAt(store: StoreAccess, operation: StorageOperation): Promise<CircuitStorageError> {
    return errorOf(store.run(operation, ['stripe'], () => Promise.reject(new Error('down'))))
  }

  it.each(operations)('are left alone each by itself: after failures at %s', async (operation) => {
    const { store } = arrange()
    const isRead = operation === 'getState' || operation === 'batchGetState'

    for (let n = 0; n < 2; n++) await failAt(store, operation)

    expect([store.canRead, store.canWrite]).toEqual(isRead ? [false, true] : [true, false])
  })

  it('are left alone both where both fail', async () => {
    const { store } = arrange()

    for (let n = 0; n < 2; n++) {
      await failAt(store, 'batchGetState')
      await failAt(store, 'addOutcomes')
    }

    expect([store.canRead, store.canWrite]).toEqual([false, false])
  })

  it('do not answer for each other: a table that can be read and not written stays so', async () => {
    const { store } = arrange()
    for (let n = 0; n < 2; n++) await failAt(store, 'addOutcomes')

    await succeed(store)
    expect([store.canRead, store.canWrite]).toEqual([true, false])

    await store.run('compareAndSetState', ['stripe'], () => Promise.resolve({ applied: false, current: undefined }))
    expect([store.canRead, store.canWrite]).toEqual([true, true])
  })

  it('do not add up: a failure at each is the first for each', async () => {
    const { store } = arrange()

    await failAt(store, 'getState')
    await failAt(store, 'addOutcomes')

    expect([store.canRead, store.canWrite]).toEqual([true, true])
  })

  it('share the failures among the operations of their kind', async () => {
    const { store } = arrange()

    await failAt(store, 'compareAndSetState')
    await failAt(store, 'addOutcomes')

    expect([store.canRead, store.canWrite]).toEqual([true, false])
  })
})

describe('listeners', () => {
  it('are told of every failure, with what is kept for later', async () => {
    const { store, events } = arrange()
    const operations: StorageOperation[] = [
      'addOutcomes',
      'compareAndSetState',
      'batchSetState',
      'clearState',
      'batchClearState',
    ]

    for (const operation of operations) {
      const operator = operation === 'addOutcomes' ? undefined : { rounds: 1 }
      await errorOf(
        store.run(operation, ['stripe', 'paypal'], () => Promise.reject(new Error('down')), undefined, operator),
      )
    }

    // What an operator asked for is repeated by the operator.
    expect(events.map(({ operation, willRetry }) => [operation, willRetry])).toEqual([
      ['addOutcomes', true],
      ['compareAndSetState', false],
      ['batchSetState', false],
      ['clearState', false],
      ['batchClearState', false],
    ])
    expect(events[0]?.services).toEqual(['stripe', 'paypal'])
  })

  it('cannot hurt: what one throws or rejects with changes nothing for the others', async () => {
    const { store, events } = arrange()
    const more: StorageErrorEvent[] = []
    store.onError(() => {
      throw new Error('listener')
    })
    store.onError(async () => {
      throw new Error('async listener')
    })
    store.onError((event) => more.push(event))

    const error = await errorOf(run(store, () => Promise.reject(new Error('down'))))
    await untilRejectionsAreReported()

    expect(error.message).toBe('The store failed at getState.')
    expect([events.length, more.length]).toEqual([1, 1])
  })

  it('can unsubscribe', async () => {
    const { store } = arrange()
    const events: StorageErrorEvent[] = []
    const unsubscribe = store.onError((event) => events.push(event))

    unsubscribe()
    unsubscribe()
    await failTimes(store, 1)

    expect(events).toEqual([])
  })

  it('take the place of the warning', async () => {
    const warnings = captureWarnings()
    const { store } = arrange()

    await failTimes(store, 3)

    expect(warnings()).toEqual([])
  })
})

describe('without a listener', () => {
  function arrangeAlone(): { runtime: FakeRuntime; store: StoreAccess } {
    const runtime = new FakeRuntime()
    return { runtime, store: new StoreAccess(new MemoryCircuitStorage(), runtime, storageTimeout) }
  }

  it('a failure is warned of, with a type and a code to filter by', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()

    await failTimes(store, 1)

    expect(warnings()).toEqual([
      { message: 'The store failed at getState.', type: 'CircuitStorageWarning', code: 'CIRCUIT_STORAGE' },
    ])
  })

  it('the same cause is warned of once a minute', async () => {
    const warnings = captureWarnings()
    const { runtime, store } = arrangeAlone()

    await failTimes(store, 10)
    runtime.time += 59_999
    await failTimes(store, 1)
    expect(warnings()).toHaveLength(1)

    runtime.time += 1
    await failTimes(store, 10)
    expect(warnings()).toHaveLength(2)
  })

  it('another operation or another kind of cause is warned of by itself', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()
    const reject = (error: unknown) => () => Promise.reject(error)

    for (let n = 0; n < 3; n++) {
      await errorOf(store.run('getState', ['stripe'], reject(new Error('down'))))
      await errorOf(store.run('getState', ['stripe'], reject(new RangeError('down'))))
      await errorOf(store.run('addOutcomes', ['stripe'], reject(new Error('down'))))
      await errorOf(store.run('addOutcomes', ['stripe'], reject('down')))
    }

    expect(warnings()).toHaveLength(4)
  })

  it('causes are told apart by the word that Redis begins with, not by the ids that a message holds', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()

    for (const id of ['AB', 'CD', 'EF']) await failTimes(store, 1, new Error(`The request ${id} timed out.`))
    expect(warnings()).toHaveLength(1)
    for (const word of ['OOM', 'LOADING', 'OOM']) await failTimes(store, 1, new Error(`${word} The request failed.`))
    expect(warnings()).toHaveLength(3)
  })

  it('the damage of each service is warned of by itself', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()

    for (const service of ['stripe', 'paypal', 'stripe']) {
      await errorOf(store.run('getState', [service], () => Promise.reject(damaged())))
    }

    expect(warnings()).toHaveLength(2)
  })

  it('a clock that stepped back silences nothing for long', async () => {
    const warnings = captureWarnings()
    const { runtime, store } = arrangeAlone()
    await failTimes(store, 1)

    runtime.time -= 3_600_000
    await failTimes(store, 1)

    expect(warnings()).toHaveLength(2)
  })

  it('nothing of what the store’s error says is printed: it can hold secrets', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()
    const leaky = Object.assign(new Error('connect redis://admin:hunter2@10.0.0.1'), { name: 'hunter2' })

    await failTimes(store, 1, leaky)
    await failTimes(store, 1, 'hunter2')

    expect(warnings()).not.toEqual([])
    expect(JSON.stringify(warnings())).not.toContain('hunter2')
  })

  it('a timeout is warned of, with the limit that it exceeded', async () => {
    const warnings = captureWarnings()
    const { runtime, store } = arrangeAlone()
    const outcome = errorOf(run(store, never))

    runtime.advance(storageTimeout)
    await outcome

    expect(warnings()).toMatchObject([{ message: 'The store did not answer getState within 500 ms.' }])
  })

  it('the errors of an adapter whose messages differ in a request id are warned of once a minute', async () => {
    const warnings = captureWarnings()
    const { store } = arrangeAlone()

    for (let n = 0; n < 100; n++) {
      const message = `Throttled (request ${n}).`
      await failTimes(store, 1, new CircuitStorageError(message, { operation: 'getState' }))
    }

    expect(warnings()).toHaveLength(1)
  })
})

describe('the store itself', () => {
  it('can be reached directly, for its properties', () => {
    const storage = new MemoryCircuitStorage()

    expect(arrange(storage).store.storage).toBe(storage)
  })

  it('answers through it with what is stored', async () => {
    const { store } = arrange()

    expect(await run<CircuitRecord | undefined>(store, (storage) => storage.getState('stripe'))).toBeUndefined()
  })
})
