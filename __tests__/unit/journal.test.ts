import { afterEach, describe, expect, it, jest } from '@jest/globals'
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  CircuitStorageError,
  isConfigurationError,
  type JournalEntry,
  MemoryCircuitStorage,
} from '../../src/index.ts'
import type { ICircuitStorage } from '../../src/storage/contract.ts'
import { createFleet, failTimes, isSettled, ok, outcomeOf, trip } from '../support/virtual-fleet.ts'

type Journal = Required<Pick<ICircuitStorage, 'appendJournal' | 'readJournal'>>

/** A fleet whose store keeps a journal. */
function journalingFleet(options: Partial<CircuitBreakerOptions> = {}, own: Partial<Journal> = {}) {
  const fleet = createFleet(options)
  const memory = new MemoryCircuitStorage()
  const appended: (readonly [key: string, entry: JournalEntry])[] = []
  const journal: Journal = {
    appendJournal: async (key, entry) => {
      appended.push([key, entry])
      await memory.appendJournal(key, entry)
    },
    readJournal: (key, query) => memory.readJournal(key, query),
    ...own,
  }
  Object.assign(fleet.storage, journal)
  return { ...fleet, appended }
}

const never = (): Promise<never> => new Promise(() => {})

afterEach(() => {
  jest.restoreAllMocks()
})

describe('the journal', () => {
  it('tells each transition once, by its author, with what is known of it', async () => {
    const { start, storage, runtime, appended } = journalingFleet({ namespace: 'prod' })
    const env = {
      AWS_LAMBDA_FUNCTION_NAME: 'pay',
      AWS_LAMBDA_LOG_STREAM_NAME: '2026/01/01/[$LATEST]5841',
      _X_AMZN_TRACE_ID: 'Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1',
    }
    const author = new CircuitBreaker({ services: ['stripe'], storage, namespace: 'prod' }, { ...runtime, env })
    const observer = start()
    const call = author.callExternalFor({ awsRequestId: 'request-1' })
    await author.load()
    for (let n = 0; n < 3; n++)
      await outcomeOf(
        call('stripe', async () =>
          Promise.reject(Object.assign(new Error('secret'), { name: 'TimeoutError', code: 'ETIMEDOUT' })),
        ),
      )
    await author.flush()
    const now = runtime.now()
    await runtime.advance(10_000)
    await observer.call('stripe', ok)
    await observer.flush()

    expect(appended.map(([key]) => key)).toEqual(Array(3).fill('prod#stripe'))
    const [opened, ...others] = appended.map(([, entry]) => entry)
    expect(opened).toEqual({
      id: expect.any(String),
      at: now,
      service: 'stripe',
      from: 'CLOSED',
      to: 'OPEN',
      generation: expect.any(Number),
      reason: 'failure-threshold',
      evidence: { failures: 3, successes: 0, reporters: 1 },
      lastFailure: { at: now, name: 'TimeoutError', code: 'ETIMEDOUT', status: undefined },
      retryAt: now + 10_000,
      functionName: 'pay',
      logStream: '2026/01/01/[$LATEST]5841',
      requestId: 'request-1',
      traceId: '1-5759e988-bd862e3fe1be46a994272793',
    })
    expect(others.map(({ from, to, reason }) => [from, to, reason])).toEqual([
      ['OPEN', 'HALF_OPEN', 'probe-started'],
      ['HALF_OPEN', 'CLOSED', 'probe-succeeded'],
    ])
    expect(JSON.stringify(appended)).not.toContain('secret')
    expect(await author.journal('stripe', { limit: 1 })).toEqual([others[1]])
  })

  it('has an entry of each override and each reset that ends one, though the state stays the same', async () => {
    const { start, runtime } = journalingFleet()
    const breaker = start()
    const until = runtime.now() + 60_000
    await trip(breaker)
    await breaker.forceOpen('stripe', { until, by: 'ada', why: 'the provider asked for it' })
    await breaker.forceClosed('stripe', { by: 'ada', why: 'a test call went well' })
    await breaker.reset('stripe', { by: 'bob', why: 'all is well again' })
    await breaker.reset('stripe', { by: 'bob', why: 'nothing to do' })

    const entries = (await breaker.journal('stripe')).toReversed()
    expect(entries.map(({ from, to, reason, by, why, until }) => [from, to, reason, by, why, until])).toEqual([
      ['CLOSED', 'OPEN', 'failure-threshold', undefined, undefined, undefined],
      ['OPEN', 'OPEN', 'forced-open', 'ada', 'the provider asked for it', until],
      ['OPEN', 'CLOSED', 'forced-closed', 'ada', 'a test call went well', undefined],
      ['CLOSED', 'CLOSED', 'reset', 'bob', 'all is well again', undefined],
    ])
  })

  it('is not written by an instance whose circuits stay closed', async () => {
    const { start, appended } = journalingFleet()
    const breaker = start()
    await breaker.load()
    for (let n = 0; n < 5; n++) await breaker.call('stripe', ok)
    await failTimes(breaker, 1)
    await breaker.flush()
    expect(appended).toEqual([])
  })

  it.each([
    ['option', { journal: false }, {}],
    ['variable', {}, { CIRCUIT_BREAKER_JOURNAL: 'false' }],
  ])('is switched off by the %s', async (_what, options, env) => {
    const { storage, runtime, appended } = journalingFleet()
    const breaker = new CircuitBreaker({ services: ['stripe'], storage, ...options }, { ...runtime, env })
    await breaker.forceOpen('stripe')
    await breaker.flush()
    expect(appended).toEqual([])
  })

  it('is waited for by a flush, and by nothing else', async () => {
    const held = Promise.withResolvers<void>()
    const { start, runtime } = journalingFleet({}, { appendJournal: () => held.promise })
    const breaker = start()
    await breaker.load()
    await failTimes(breaker, 3)
    await runtime.settle()
    expect((await outcomeOf(breaker.call('stripe', ok))).error).toMatchObject({ code: 'CIRCUIT_OPEN' })
    expect(breaker.needsFlush).toBe(true)
    const flushed = breaker.flush()
    expect(await isSettled(flushed, runtime)).toBe(false)
    held.resolve()
    await flushed
    expect(breaker.needsFlush).toBe(false)
  })

  it('holds nobody longer than storageTimeout', async () => {
    const { start, runtime, storageErrors } = journalingFleet({}, { appendJournal: jest.fn(never) })
    const breaker = start()
    await breaker.load()
    await failTimes(breaker, 3)
    const flushed = breaker.flush()
    expect(await isSettled(flushed, runtime)).toBe(false)
    await runtime.advance(500)
    await flushed
    await runtime.advance(500)
    expect(breaker.needsFlush).toBe(false)
    expect(storageErrors).toEqual([])
  })

  it('of many circuits at once is written some at a time, and given up together where the store says nothing', async () => {
    const services = Array.from({ length: 30 }, (_, index) => `service-${index}`)
    const states = services.map((service) => [service, 'OPEN'] as const)
    let [underWay, most] = [0, 0]
    const appendJournal = jest.fn(async () => {
      most = Math.max(most, ++underWay)
      await new Promise(setImmediate)
      underWay--
    })
    const { start, runtime, storage } = journalingFleet({ services }, { appendJournal })
    await start().batchSetState(states)
    expect([appendJournal.mock.calls.length, most]).toEqual([30, 8])

    const silent = jest.fn(never)
    Object.assign(storage, { appendJournal: silent })
    const breaker = start()
    const setting = breaker.batchSetState(services.map((service) => [service, 'CLOSED'] as const))
    while (silent.mock.calls.length < 8) await new Promise(setImmediate)
    expect(await isSettled(setting, runtime)).toBe(false)
    await runtime.advance(500)
    await setting
    expect(silent).toHaveBeenCalledTimes(8)
  })

  it('that fails is reported once, and is no failure of the store', async () => {
    const error = new CircuitStorageError('appendJournal of "stripe" failed: not allowed', {
      operation: 'appendJournal',
      service: 'stripe',
      kind: 'misconfigured',
    })
    const { start, storageErrors, storage } = journalingFleet({}, { appendJournal: () => Promise.reject(error) })
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = start()
    for (let n = 0; n < 3; n++) await breaker.forceOpen('stripe')
    await breaker.flush()
    expect(storageErrors).toEqual([{ services: ['stripe'], operation: 'appendJournal', error, willRetry: false }])
    expect(warned).not.toHaveBeenCalledWith(expect.stringContaining('journal'), expect.anything())
    storage.forget()
    await breaker.reset('stripe')
    expect(storage.operations).toEqual(['getState', 'compareAndSetState'])
  })

  it('that fails is warned of where nobody listens, whatever it fails with', async () => {
    const { storage, runtime } = journalingFleet(
      {},
      {
        appendJournal: () => {
          throw new Error('no such table: journal')
        },
      },
    )
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = new CircuitBreaker({ services: ['stripe'], storage }, { ...runtime, env: {} })
    for (let n = 0; n < 3; n++) await breaker.forceOpen('stripe')
    const texts = warned.mock.calls.map(([text]) => String(text)).filter((text) => text.includes('journal'))
    expect(texts).toEqual([
      expect.stringContaining('The circuits work without a journal; journal: false switches it off.'),
    ])
  })

  it('of a store that keeps none is missed only by who reads it', async () => {
    const { start, storageErrors } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe')
    expect(storageErrors).toEqual([])
    await expect(breaker.journal('stripe')).rejects.toMatchObject({
      code: 'CIRCUIT_STORAGE',
      kind: 'misconfigured',
      operation: 'readJournal',
      message: expect.stringContaining('keeps no journal'),
    })
  })
})

describe('reading the journal', () => {
  it('goes back to since, and no further', async () => {
    const { start, runtime } = journalingFleet()
    const breaker = start()
    await breaker.forceOpen('stripe')
    await runtime.advance(1_000)
    const since = runtime.now()
    await breaker.forceClosed('stripe')
    for (const given of [since, new Date(since)]) {
      expect((await breaker.journal('stripe', { since: given })).map(({ reason }) => reason)).toEqual(['forced-closed'])
    }
  })

  it.each([{ limit: 0 }, { limit: 1.5 }, { limit: 1_001 }, { since: Number.NaN }, { since: -1 }])(
    'refuses %j',
    async (options) => {
      const { start } = journalingFleet()
      const { error } = await outcomeOf(start().journal('stripe', options))
      expect(isConfigurationError(error)).toBe(true)
    },
  )

  it('rejects when the store fails or says nothing, and pauses nothing', async () => {
    let read: () => Promise<JournalEntry[]> = async () => Promise.reject(new Error('away'))
    const { start, runtime, storage } = journalingFleet({}, { readJournal: () => read() })
    const breaker = start()
    await expect(breaker.journal('stripe')).rejects.toMatchObject({ code: 'CIRCUIT_STORAGE', operation: 'readJournal' })
    read = never
    const reading = outcomeOf(breaker.journal('stripe'))
    await isSettled(reading, runtime)
    await new Promise(setImmediate)
    await runtime.advance(500)
    expect((await reading).error).toMatchObject({ message: 'The store did not answer readJournal within 500 ms.' })
    await breaker.load()
    expect(storage.operations).toEqual(['batchGetState'])
  })
})
