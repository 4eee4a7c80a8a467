import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { afterEach, describe, expect, it, jest } from '@jest/globals'
import middy from '@middy/core'
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  CircuitBreakerStorageFactory,
  type CircuitOpenError,
  CircuitStorageError,
  circuitBreaker,
  isBreakableError,
  isBreakableResultError,
  isConcurrencyLimitError,
  type RefusalReason,
  type StorageErrorEvent,
} from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { startProvider } from '../examples/provider.ts'
import { patientStore } from '../support/patience.ts'
import type { RecordedRequest } from '../support/recording-storage.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  failTimes,
  isSettled,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../support/virtual-fleet.ts'
import { warningsEmitted } from '../support/warning-texts.ts'

const read = (name: string): string => readFileSync(join(import.meta.dirname, '../../docs/operate', name), 'utf8')
const page = read('troubleshooting.md')
const quotesIn = (text: string): string[] =>
  [...text.matchAll(/“([^”]+)”/g)].map(([, quote]) => (quote as string).replace(/\s+/g, ' '))

afterEach(() => {
  jest.restoreAllMocks()
})

describe('a message that the pages quote', () => {
  it('is one that somebody gets to see', async () => {
    const heard = await everythingThatIsSaid()

    for (const text of [page, read('error-messages.md')]) {
      // The first pair of quotation marks tells the reader what they mean.
      const [explanation, ...messages] = quotesIn(text)
      expect(explanation).toBe('quotation marks')
      expect(messages.length).toBeGreaterThan(10)
      for (const message of messages) expect(heard).toContainEqual(expect.stringContaining(message))
    }
  })
})

/** Brings about every error and warning that the pages quote, and tells their messages. */
async function everythingThatIsSaid(): Promise<string[]> {
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const messages: string[] = []
  const note = (error: unknown): void => {
    messages.push((error as Error).message)
  }
  const noteAll = async (...calls: readonly Promise<unknown>[]): Promise<void> => {
    for (const { error } of await Promise.all(calls.map(outcomeOf))) note(error)
  }

  // Calls that are refused or cut.
  const { start, runtime, storage } = createFleet({ maxQueue: 5 })
  const busy = start()
  await busy.load()
  const running = Array.from({ length: 15 }, () => busy.call('stripe', () => new Promise(() => {})))
  await noteAll(busy.call('stripe', ok), busy.call('paypal', ok))
  expect(running).toHaveLength(15)
  const crowded = createFleet()
  const crowd = crowded.start()
  const calls = Array.from({ length: 40 }, () =>
    outcomeOf(crowd.call('stripe', () => crowded.runtime.sleep(300), { timeout: 1_000 })),
  )
  await crowded.runtime.advance(1_000)
  note((await calls[39])?.error)
  void crowd.call('stripe', never)
  await crowded.runtime.advance(60_000)
  const late = busy.callExternalFor({ getRemainingTimeInMillis: () => 1_000 })
  await noteAll(late('stripe', ok))
  await trip(start())
  await noteAll(start().call('stripe', ok))

  // A journal that cannot be written.
  const speechless = new MemoryCircuitStorage()
  speechless.appendJournal = () => Promise.reject(new Error('not authorized'))
  await new CircuitBreaker({ services: ['stripe'], storage: speechless }, { env: {} }).forceOpen('stripe')

  // Keys.
  const keyed = new CircuitBreaker(
    { services: { crm: { keyed: { maxKeys: 1 } } }, storage: new MemoryCircuitStorage() },
    { env: {} },
  )
  await noteAll(keyed.call('crm', ok, { key: undefined as never }))
  for (const key of ['a', 'b', 'c']) await outcomeOf(keyed.call('crm', unavailable, { key }))

  // Operators.
  const operated = createFleet({ namespace: 'prod' })
  await operated.start().forceOpen('stripe')
  const read = operated.storage.holdReply('getState')
  const forced = operated.start().forceOpen('stripe', { until: operated.runtime.now() + 100 })
  await read.arrived
  operated.runtime.setClock(operated.runtime.now() + 178)
  read.release()
  await noteAll(forced)

  // A store that is silent, and one that is misconfigured.
  storage.outage = 'hang'
  const waiting = start()
  const noteEvent = ({ error }: StorageErrorEvent): void => note(error)
  waiting.onStorageError(noteEvent)
  const loading = waiting.load()
  await runtime.advance(500)
  await loading
  const failing = (name: string, message: string) =>
    ({
      send: () => Promise.reject(Object.assign(new Error(message), { name, $fault: 'client' })),
    }) as unknown as DynamoDBClient
  const errors = [
    ['AccessDeniedException', ''],
    ['ResourceNotFoundException', ''],
    ['ValidationException', 'The provided key element does not match the schema'],
    ['ValidationException', 'Type mismatch for Index Key updatedAt Expected: S Actual: N'],
    ['ThrottlingException', ''],
    ['UnrecognizedClientException', ''],
    ['ValidationException', 'Item size has exceeded the maximum allowed size'],
  ] as const
  const unprepared = (name: string, message: string) =>
    ({ send: () => Promise.reject(Object.assign(new Error(message), { name })) }) as unknown as DynamoDBClient
  for (const [name, message] of [
    ['Error', 'Region is missing'],
    ['CredentialsProviderError', ''],
  ] as const) {
    const table = new DynamoDBCircuitStorage({ tableName: 'app', client: unprepared(name, message) })
    await noteAll(table.getState('stripe'))
  }
  for (const [name, message] of errors) {
    const table = new DynamoDBCircuitStorage({ tableName: 'app', client: failing(name, message) })
    await noteAll(table.batchGetState(['stripe']), table.addOutcomes('stripe', 'v', outcomes))
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: table, ...patientStore }, { env: {} })
    await breaker.load()
  }
  for (const message of ['NOAUTH Authentication required.', 'MOVED 1234 10.0.0.1:6379']) {
    const client = { call: () => Promise.reject(new Error(message)) }
    await noteAll(new RedisCircuitStorage({ client }).getState('stripe'))
  }
  for (const code of ['ERR_SSL_WRONG_VERSION_NUMBER', 'DEPTH_ZERO_SELF_SIGNED_CERT']) {
    const client = { call: () => Promise.reject(Object.assign(new Error(), { code })) }
    await noteAll(new RedisCircuitStorage({ client }).getState('stripe'))
  }
  const damaged = { call: async () => ['schema', '1', 'state', 'abc'] }
  const reading = new CircuitBreaker(
    { services: ['stripe'], storage: new RedisCircuitStorage({ client: damaged }), onStorageError: noteEvent },
    { env: {} },
  )
  await reading.load()
  for (const error of await withoutLibraries()) note(error)

  // A configuration that is wrong.
  const inLambda = { AWS_LAMBDA_FUNCTION_NAME: 'pay' }
  await noteAll((async () => new CircuitBreaker({ services: ['stripe'] }, { env: inLambda }))())
  new CircuitBreaker({ services: ['stripe'] }, { env: { CIRCUIT_BREAKER_TIMEOUT_STRIPE: '100' } })

  await warningsEmitted()
  return [...messages, ...warn.mock.calls.map(([warning]) => String(warning))]
}

const outcomes = { started: 0, failures: 1, successes: 0, early: 0, reporters: 0, at: 1, id: 'id' }

/** What comes of stores whose client library, or whose own part of the bundle, is not there. */
async function withoutLibraries(): Promise<unknown[]> {
  const failed: unknown[] = []
  const without = async (
    module: string,
    operate: () => Promise<() => Promise<unknown>>,
    reason = `Cannot find module '${module}'`,
  ): Promise<void> => {
    await jest.isolateModulesAsync(async () => {
      jest.unstable_mockModule(module, () => {
        throw new Error(reason)
      })
      const operation = await operate()
      const { error } = await outcomeOf(operation())
      failed.push(error)
      jest.unstable_unmockModule(module)
    })
  }
  await without('@aws-sdk/client-dynamodb', async () => {
    const fresh = await import('../../src/storage/dynamodb/index.ts')
    return () => new fresh.DynamoDBCircuitStorage({ tableName: 'app' }).getState('stripe')
  })
  const inRedis = async () => {
    const fresh = await import('../../src/storage/redis/index.ts')
    return () => new fresh.RedisCircuitStorage({ url: 'redis://x' }).getState('stripe')
  }
  await without('ioredis', inRedis)
  await without('ioredis', inRedis, 'Dynamic require of "events" is not supported')
  await without('../../src/storage/dynamodb/storage.ts', async () => {
    const fresh = await import('../../src/storage/factory.ts')
    const storage = fresh.CircuitBreakerStorageFactory.create({ type: 'dynamodb', tableName: 'app' }, {})
    return () => storage.getState('stripe')
  })
  return failed
}

describe('a circuit never opens', () => {
  /** Five calls in a row, and whether the circuit is open then. */
  async function opens(operation: () => Promise<unknown>, options: Partial<CircuitBreakerOptions> = {}) {
    const breaker = createFleet(options).start()
    await breaker.load()
    for (let call = 0; call < 5; call++) await outcomeOf(breaker.call('stripe', operation))
    await breaker.flush()
    return breaker.snapshot('stripe').state === 'OPEN'
  }
  const throwing = (error: unknown) => () => Promise.reject(error)
  const withStatus = (status: number) => Object.assign(new Error(`HTTP ${status}`), { status })

  it('of a 400, a 429, a bug or an error without a status, but it does of a 503', async () => {
    expect(await opens(throwing(withStatus(503)))).toBe(true)
    expect(await opens(throwing(withStatus(400)))).toBe(false)
    expect(await opens(throwing(withStatus(429)))).toBe(false)
    expect(await opens(throwing(new TypeError('x is undefined')))).toBe(false)
    expect(await opens(throwing(new Error('HTTP 503')))).toBe(false)
  })

  it('of a page that comes with a 200, or of a body that is returned without its status', async () => {
    await using provider = await startProvider({ status: 503, body: '<html>' })
    const ask = () => fetch(provider.url)

    expect(await opens(ask)).toBe(true)
    expect(await opens(async () => ({ body: await (await ask()).text() }))).toBe(false)
    expect(await opens(async () => ({ status: 503, body: await (await ask()).text() }))).toBe(true)
    expect(await opens(async () => (await ask()).json())).toBe(false)
    provider.react({ status: 200, body: '<html>' })
    expect(await opens(ask)).toBe(false)
    expect(await opens(ask, { isBreakableResult: () => true })).toBe(true)
  })

  it('where the operation swallows the failure', async () => {
    expect(await opens(() => Promise.allSettled([unavailable()]))).toBe(false)
    expect(await opens(() => unavailable().catch(() => undefined))).toBe(false)
  })

  it('where every second call succeeds', async () => {
    let calls = 0
    const breaker = createFleet().start()
    await breaker.load()
    for (let call = 0; call < 100; call++) {
      await outcomeOf(breaker.call('stripe', () => (++calls % 2 === 0 ? ok() : unavailable())))
    }
    expect(calls).toBe(100)
  })

  it('where the failures are further apart than the window, until that is longer', async () => {
    const failEveryFiveMinutes = async (window: number) => {
      const { start, storage, runtime } = createFleet({ window })
      const breaker = start()
      for (let call = 0; call < 4; call++) {
        await breaker.load()
        await failTimes(breaker, 1)
        await breaker.flush()
        await runtime.advance(300_000)
      }
      return (await storage.peek('stripe'))?.openedAt !== undefined
    }

    expect(await failEveryFiveMinutes(60_000)).toBe(false)
    expect(await failEveryFiveMinutes(900_000)).toBe(true)
  })

  it('so that a call is refused, where it only observes', async () => {
    const { start } = createFleet({ mode: 'observe' })
    const breaker = start()
    await trip(breaker)

    expect(breaker.snapshot('stripe')).toMatchObject({ state: 'OPEN', mode: 'observe' })
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('where calls are cut at the deadline before they had a second', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.load()
    const cut = async (remaining: number) => {
      const call = breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })
      const outcome = outcomeOf(call('stripe', () => new Promise(() => {})))
      await runtime.advance(remaining)
      return outcome
    }
    for (let call = 0; call < 4; call++) expect((await cut(1_900)).error).toMatchObject({ reason: 'deadline' })
    expect(breaker.snapshot('stripe').failureCount).toBe(0)
    for (let call = 0; call < 3; call++) await cut(2_100)
    expect(breaker.snapshot('stripe').state).toBe('OPEN')
  })

  it('of what the caller aborts', async () => {
    const abort = new AbortController()
    const breaker = createFleet().start()
    await breaker.load()
    const calls = Array.from({ length: 5 }, () =>
      outcomeOf(
        breaker.call('stripe', () => new Promise(() => {}), { signal: abort.signal, fallback: () => 'fallback' }),
      ),
    )
    abort.abort(new Error('gone'))

    for (const { error } of await Promise.all(calls)) expect(error).toEqual(new Error('gone'))
    expect(breaker.snapshot('stripe').failureCount).toBe(0)
  })

  it('while an operator has forced it closed', async () => {
    const breaker = createFleet().start()
    await breaker.forceClosed('stripe')
    await failTimes(breaker, 5)

    expect(breaker.snapshot('stripe')).toMatchObject({ state: 'CLOSED', override: { state: 'CLOSED' } })
    await breaker.reset('stripe')
    expect(breaker.snapshot('stripe').override).toBeUndefined()
  })
})

describe('a circuit opens too easily', () => {
  it('of a bug, by execute, and of a 400, by a rule that replaces the default', async () => {
    const [byBug, byRule] = [createFleet().start(), createFleet({ isBreakableError: () => true }).start()]
    for (let call = 0; call < 3; call++) {
      await outcomeOf(byBug.execute('stripe', () => Promise.reject(new TypeError('x is undefined'))))
      await outcomeOf(byRule.call('stripe', () => Promise.reject(new BadRequest('400'))))
    }

    expect([byBug, byRule].map((breaker) => breaker.snapshot('stripe').state)).toEqual(['OPEN', 'OPEN'])
  })

  it('by a timeout only if the operation itself had half of it', async () => {
    const { start, runtime } = createFleet({ maxConcurrent: 1, timeout: 1_000 })
    const breaker = start()
    await breaker.load()
    const countAfterWaiting = async (waiting: number) => {
      const first = controlled()
      const [holding, second] = [breaker.call('stripe', first.operation), outcomeOf(breaker.call('stripe', never))]
      await runtime.advance(waiting)
      first.succeed('ok')
      await holding
      await runtime.advance(1_000 - waiting)
      expect((await second).error).toMatchObject({ name: 'CircuitTimeoutError' })
      return breaker.snapshot('stripe').failureCount
    }

    expect(await countAfterWaiting(600)).toBe(0)
    expect(await countAfterWaiting(400)).toBe(1)
  })
})

const never = (): Promise<never> => new Promise(() => {})

describe('a circuit does not close', () => {
  it('while nobody calls: from retryAt on it reads half-open, and the next call is the probe', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(3_600_000)

    expect(breaker.snapshot('stripe').state).toBe('HALF_OPEN')
    await breaker.call('stripe', ok)
    expect(breaker.snapshot('stripe').state).toBe('CLOSED')
  })

  it('where the handler waits for it to be closed, but where it asks whether it is open', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(breaker)
    const handlerOf = (asks: (state: string) => boolean) =>
      middy()
        .use(circuitBreaker(breaker))
        .handler(async (_event, { callExternal, circuits }) =>
          asks(String(circuits.stripe?.state)) ? 'skipped' : callExternal('stripe', ok),
        )
    const [waiting, asking] = [handlerOf((state) => state !== 'CLOSED'), handlerOf((state) => state === 'OPEN')]
    await runtime.advance(60_000)

    expect(await waiting({}, createTestContext())).toBe('skipped')
    expect(await waiting({}, createTestContext())).toBe('skipped')
    expect(await asking({}, createTestContext())).toBe('ok')
  })

  it('by a probe that throws a bug or a 429, or is aborted, nor does it open again; by a thrown 404 it does', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await trip(start())
    await runtime.advance(10_000)
    await breaker.load()
    const held = controlled()
    const probe = outcomeOf(breaker.call('stripe', held.operation))
    await runtime.settle()
    const meanwhile = await outcomeOf(breaker.call('stripe', ok))
    held.fail(new TypeError('a bug'))
    await probe
    const tooMany = Object.assign(new Error('429'), { status: 429 })
    await outcomeOf(breaker.call('stripe', () => Promise.reject(tooMany)))
    await breaker.flush()

    expect(meanwhile.error).toMatchObject({ reason: 'probing' })
    expect(breaker.snapshot('stripe').state).toBe('HALF_OPEN')
    const abort = new AbortController()
    const aborted = controlled()
    const second = outcomeOf(breaker.call('stripe', aborted.operation, { signal: abort.signal }))
    await runtime.settle()
    expect(aborted.started).toBe(1)
    abort.abort(new Error('gone'))
    await second
    await breaker.flush()
    expect(breaker.snapshot('stripe').state).toBe('HALF_OPEN')
    const missing = Object.assign(new Error('404'), { status: 404 })
    expect((await outcomeOf(breaker.call('stripe', () => Promise.reject(missing)))).error).toBe(missing)
    expect(breaker.snapshot('stripe').state).toBe('CLOSED')
  })

  it('before as many probes as it takes have succeeded', async () => {
    const { start, runtime } = createFleet({ halfOpenSuccessThreshold: 3 })
    const breaker = start()
    await trip(start())
    await runtime.advance(10_000)
    const states: string[] = []
    for (let probe = 0; probe < 3; probe++) {
      await breaker.call('stripe', ok)
      states.push(breaker.snapshot('stripe').state)
    }

    expect(states).toEqual(['HALF_OPEN', 'HALF_OPEN', 'CLOSED'])
  })

  it('where the prober died, before its lease is over: as long as its invocation could last', async () => {
    const { start, runtime, storage } = createFleet()
    const other = start()
    await trip(other)
    // Its timers never fire.
    const dying = { ...runtime, setTimeout: () => ({}), env: {} }
    const prober = new CircuitBreaker({ services: ['stripe'], storage }, dying)
    await prober.load()
    await runtime.advance(10_000)
    void prober.callExternalFor({ getRemainingTimeInMillis: () => 120_000 })('stripe', never)
    await runtime.settle()
    const ask = async () => {
      await other.load()
      return outcomeOf(other.call('stripe', ok))
    }
    await runtime.advance(100_000)

    expect((await ask()).error).toMatchObject({ reason: 'probing' })
    await runtime.advance(20_000)
    expect(await ask()).toEqual({ value: 'ok' })
  })
})

describe('calls', () => {
  it('wait for each other beyond ten at once, or are turned away where the queue is bounded', async () => {
    for (const [maxQueue, isTurnedAway] of [
      [false, false],
      [0, true],
    ] as const) {
      const { start, runtime } = createFleet({ maxQueue })
      const breaker = start()
      await breaker.load()
      for (let call = 0; call < 10; call++) void breaker.call('stripe', never)
      const eleventh = breaker.call('stripe', ok)

      expect(await isSettled(eleventh, runtime)).toBe(isTurnedAway)
      if (isTurnedAway) expect(isConcurrencyLimitError((await outcomeOf(eleventh)).error)).toBe(true)
    }
  })

  it('end in time and give their permits back although the operation ignores its signal', async () => {
    const { start, runtime } = createFleet({ timeout: 100, maxConcurrent: 1 })
    const breaker = start()
    await breaker.load()
    const hanging = outcomeOf(breaker.call('stripe', never))
    await runtime.advance(100)

    expect((await hanging).error).toMatchObject({ name: 'CircuitTimeoutError' })
    expect(await breaker.call('stripe', ok)).toBe('ok')
  })

  it('are refused for four reasons, all of which the page explains', async () => {
    const explained = [...page.matchAll(/^\| `(\w+)` \| .* \| .* \|$/gm)].map(([, reason]) => reason)
    const reasons: Record<RefusalReason, true> = {
      open: true,
      probing: true,
      forced: true,
      ramping: true,
      unclaimed: true,
    }

    expect(explained).toEqual(['reason', ...Object.keys(reasons)])
  })

  it('that cannot claim a probe are let through alone at the second attempt', async () => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    await trip(start())
    await breaker.load()
    await runtime.advance(10_000)
    storage.inject('hang', 'compareAndSetState', 10)
    const probe = async () => {
      const outcome = outcomeOf(breaker.call('stripe', ok))
      await runtime.advance(500)
      return outcome
    }

    expect(((await probe()).error as CircuitOpenError).reason).toBe('unclaimed')
    expect(await probe()).toEqual({ value: 'ok' })
  })
})

describe('instances do not know of each other', () => {
  it('under other names or keys, but they do within cacheTtl under the same', async () => {
    const { start, runtime } = createFleet({ services: ['stripe', 'Stripe'] })
    const [one, sameName, otherNamespace] = [start(), start(), start({ namespace: 'staging' })]
    for (const breaker of [sameName, otherNamespace]) await breaker.load()
    await trip(one)
    await runtime.advance(5_000)
    for (const breaker of [sameName, otherNamespace]) await breaker.load()

    expect(sameName.circuits).toMatchObject({ stripe: { state: 'OPEN' }, Stripe: { state: 'CLOSED' } })
    expect(otherNamespace.snapshot('stripe').state).toBe('CLOSED')
  })

  it('where nothing is configured outside Lambda, and where the option says so whatever the variable does', () => {
    const create = CircuitBreakerStorageFactory.create

    expect(create(undefined, {})).toBeInstanceOf(MemoryCircuitStorage)
    expect(create('memory', { CIRCUIT_BREAKER_TABLE_NAME: 'app' })).toBeInstanceOf(MemoryCircuitStorage)
  })
})

describe('a damaged record', () => {
  it('leaves each instance to decide alone, until reset', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    const damage = new CircuitStorageError('damaged', { operation: 'getState', corrupt: true })
    const isCleared = ({ operation }: RecordedRequest) => operation === 'clearState'
    storage.intercept(
      (request) => !isCleared(request),
      () => Promise.reject(damage),
      Number.POSITIVE_INFINITY,
    )
    storage.intercept(isCleared, (_request, clear) => {
      storage.heal()
      return clear()
    })
    await breaker.load()
    await failTimes(breaker, 3)
    await breaker.flush()

    expect(breaker.snapshot('stripe').state).toBe('OPEN')
    expect(storage.writes).toEqual([])
    await breaker.reset('stripe')
    expect(breaker.snapshot('stripe').state).toBe('CLOSED')
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED' })
  })
})

describe('events', () => {
  it('fire in one instance, and in all where they ask for it; what a listener throws changes nothing', async () => {
    const { start, runtime, events } = createFleet({
      onStateChange: () => {
        throw new Error('of the listener')
      },
    })
    expect(events).toEqual([])
    const [one, other] = [start(), start()]
    const heard: string[] = []
    one.onStateChange(({ to }) => heard.push(`one: ${to}`))
    other.onStateChange(({ to }) => heard.push(`other: ${to}`))
    other.onStateChange(({ to }) => heard.push(`other, observing: ${to}`), { observed: true })
    await other.load()
    await trip(one)
    await runtime.advance(5_000)
    await other.load()

    expect(heard).toEqual(['one: OPEN', 'other, observing: OPEN'])
  })
})

describe('a fallback', () => {
  it('answers for a failure that counts, thrown or returned, and not for a 400', async () => {
    const breaker = createFleet().start()
    await breaker.load()
    const fallback = (error: unknown) => (isBreakableResultError(error) ? error.result : 'fallback')

    expect(await breaker.call('stripe', unavailable, { fallback })).toBe('fallback')
    expect(await breaker.call('stripe', async () => ({ status: 503 }), { fallback })).toEqual({ status: 503 })
    const wrong = new BadRequest('400')
    await expect(breaker.call('stripe', () => Promise.reject(wrong), { fallback })).rejects.toBe(wrong)
  })
})

describe('the diagnosis', () => {
  it('prints the values of a snapshot only once it is copied', () => {
    const { start } = createFleet()
    const snapshot = start().snapshot('stripe')

    expect({ ...snapshot }).toMatchObject({ state: 'CLOSED', failureCount: 0 })
    expect(Object.getOwnPropertyDescriptor(snapshot, 'state')?.get).toBeDefined()
    expect(Object.getOwnPropertyDescriptor({ ...snapshot }, 'state')?.get).toBeUndefined()
  })

  it('tells whether an error counts', () => {
    const breaker = createFleet({ services: { stripe: { isBreakableError: () => true } } }).start()

    expect(breaker.isBreakableError(new BadRequest('400'), 'stripe')).toBe(true)
    expect(isBreakableError(new BadRequest('400'))).toBe(false)
  })
})
