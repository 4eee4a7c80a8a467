import { afterEach, describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker, CircuitStorageError, type Finding, MemoryCircuitStorage } from '../../src/index.ts'
import type { ICircuitStorage, StorageInspection } from '../../src/storage/contract.ts'
import { createFleet, failTimes, isSettled, ok, outcomeOf } from '../support/virtual-fleet.ts'

/** The findings but for those about a store that is empty or tells nothing of itself. */
const codesOf = (findings: readonly Finding[]): string[] =>
  findings.map(({ code }) => code).filter((code) => code !== 'nothing-stored' && code !== 'not-checked')

const finding = (findings: readonly Finding[], code: string): Finding | undefined =>
  findings.find((one) => one.code === code)

const inspected = (inspection: Partial<StorageInspection>): Pick<ICircuitStorage, 'inspect'> => ({
  inspect: async () => ({ findings: [], ...inspection }),
})

afterEach(() => {
  jest.restoreAllMocks()
})

describe('a check of a breaker that is well', () => {
  it('finds nothing, sends each kind of request once and changes nothing', async () => {
    const { start, storage } = createFleet({ services: ['stripe', 'paypal'] })
    const breaker = start()
    await breaker.batchSetState({ stripe: 'CLOSED', paypal: 'OPEN' })
    const before = await Promise.all(['stripe', 'paypal'].map((service) => storage.peek(service)))
    storage.forget()
    Object.assign(storage, inspected({ clockOffset: 0 }))

    expect(await start().check({ context: { getRemainingTimeInMillis: () => 10_000 } })).toEqual([])
    expect([...storage.operations].sort()).toEqual(
      ['addOutcomes', 'batchGetState', 'batchSetState', 'compareAndSetState', 'getState'].sort(),
    )
    expect(await Promise.all(['stripe', 'paypal'].map((service) => storage.peek(service)))).toEqual(before)
  })

  it('creates nothing where nothing is stored, and says where it has looked', async () => {
    const { start, storage } = createFleet({ services: ['stripe', 'paypal'], namespace: 'prod' })
    Object.assign(storage, inspected({ place: 'the table "app"' }))

    expect(await start().check()).toEqual([
      expect.objectContaining({
        code: 'nothing-stored',
        severity: 'info',
        message: 'Nothing is stored under "prod#stripe" and "prod#paypal" in the table "app".',
      }),
    ])
    expect(await storage.peek('prod#stripe')).toBeUndefined()
    expect(await storage.peek('prod#paypal')).toBeUndefined()
  })

  it('makes no difference to the calls of the instance', async () => {
    const { start, events } = createFleet()
    const breaker = start()
    await failTimes(breaker, 2)
    await breaker.check()
    expect(await breaker.call('stripe', ok)).toBe('ok')
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
    expect(events).toEqual([])
  })

  it('says that a memory is nobody else’s, and nothing else', async () => {
    const breaker = new CircuitBreaker({ services: ['stripe'], storage: new MemoryCircuitStorage() }, { env: {} })
    expect((await breaker.check()).map(({ code, severity }) => [code, severity])).toEqual([['not-shared', 'info']])
  })

  it('says so of a store that tells nothing of itself', async () => {
    const { start } = createFleet()
    const { message } = finding(await start().check(), 'not-checked') as Finding
    expect(message).toContain('has no method inspect')
  })

  it('asks the store for a circuit of each keyed service, and does not miss what no key has needed', async () => {
    const { storage, runtime } = createFleet()
    const breaker = new CircuitBreaker(
      { services: { crm: { keyed: {} }, hooks: { keyed: {} } }, storage },
      { ...runtime, env: {} },
    )
    const findings = await breaker.check()
    expect(findings.filter(({ severity }) => severity !== 'info')).toEqual([])
    expect(findings.map(({ code }) => code)).not.toContain('nothing-stored')
    expect(storage.reads.flatMap(({ args }) => args[0])).toEqual(
      expect.arrayContaining(['#crm#%shared', '#hooks#%shared']),
    )
    expect(await storage.peek('#crm#%shared')).toBeUndefined()
  })

  it('sends nothing where every service is switched off', async () => {
    const { start, storage } = createFleet({ mode: 'off' })
    expect((await start().check()).map(({ code }) => code)).toEqual(['switched-off'])
    expect(storage.requests).toEqual([])
  })
})

describe('a check of a store that fails', () => {
  const misconfigured = (operation: 'addOutcomes' | 'compareAndSetState') => async (): Promise<never> => {
    const message = `${operation} of "stripe" failed: this role may not do dynamodb:UpdateItem. Allow it.`
    throw new CircuitStorageError(message, {
      operation,
      service: 'stripe',
      kind: 'misconfigured',
      cause: new Error('no'),
    })
  }

  it('never rejects, and asks a store that is away once', async () => {
    const { start, storage, storageErrors } = createFleet()
    storage.outage = 'fail'
    const findings = await start().check()
    expect(findings).toEqual([
      expect.objectContaining({
        code: 'store-unavailable',
        severity: 'error',
        service: 'stripe',
        message: 'getState failed: The store failed at getState.',
        remedy: expect.stringContaining('Make sure that the store runs'),
      }),
    ])
    expect(findings[0]?.cause).toBe(storageErrors[0]?.error)
    expect(storage.operations).toEqual(['getState'])
  })

  it('takes the failure of a request for one circuit for that of all', async () => {
    const { start, storage } = createFleet({ services: ['stripe', 'paypal'] })
    storage.inject('fail', 'addOutcomes')
    const [found] = await start().check()
    expect(found).toMatchObject({ message: 'addOutcomes failed: The store failed at addOutcomes.', service: undefined })
  })

  it('gives a store that says nothing five seconds, or what the invocation has left', async () => {
    const { start, storage, runtime } = createFleet()
    storage.outage = 'hang'
    const patient = start().check()
    await runtime.advance(4_999)
    expect(await isSettled(patient, runtime)).toBe(false)
    await runtime.advance(1)
    expect(codesOf(await patient)).toEqual(['store-unavailable'])

    const hasty = start().check({ context: { getRemainingTimeInMillis: () => 2_100 } })
    await runtime.advance(2_000)
    expect(finding(await hasty, 'store-unavailable')?.message).toContain('did not answer within 2000 ms')
  })

  it('finds a store that can be read and not written, and tells one cause once', async () => {
    const { start, storage } = createFleet()
    storage.intercept('addOutcomes', misconfigured('addOutcomes'))
    storage.intercept('compareAndSetState', misconfigured('compareAndSetState'))
    const findings = await start().check()
    expect(findings.filter(({ severity }) => severity === 'error')).toEqual([
      expect.objectContaining({
        code: 'store-misconfigured',
        message: 'addOutcomes and compareAndSetState failed: this role may not do dynamodb:UpdateItem. Allow it.',
      }),
    ])
  })

  it('names the services of a batch that failed in part, the damaged ones apart', async () => {
    const { start, storage } = createFleet({ services: ['stripe', 'paypal', 'adyen'] })
    const breaker = start()
    await breaker.batchSetState({ stripe: 'CLOSED', paypal: 'CLOSED', adyen: 'CLOSED' })
    await storage.put('paypal', { ...(await storage.peek('paypal')), trips: -1 } as never)
    const found = (await start().check()).filter(({ severity }) => severity === 'error')
    expect(found).toEqual([
      expect.objectContaining({
        code: 'record-damaged',
        service: 'paypal',
        message: expect.stringContaining('trips is the number -1'),
        remedy: expect.stringContaining('reset()'),
      }),
    ])
  })

  it('does not print the error of the client with the finding: it can hold credentials', async () => {
    const { start, storage } = createFleet()
    storage.intercept('getState', async () => {
      throw Object.assign(new Error('the session token'), { token: 'secret' })
    })
    const [found] = (await start().check()) as [Finding]
    expect((found.cause as Error).cause).toMatchObject({ token: 'secret' })
    const { inspect } = await import('node:util')
    expect(inspect(found, { depth: 9 })).not.toContain('secret')
    expect(JSON.stringify(found)).not.toContain('secret')
  })

  it('finds an adapter that ignores conditions, and leaves what is stored as it was', async () => {
    const { start, storage } = createFleet()
    await start().batchSetState({ stripe: 'OPEN' })
    const before = await storage.peek('stripe')
    storage.intercept('compareAndSetState', async ({ args }) => {
      const [key, , next] = args as [string, string, NonNullable<typeof before>]
      await storage.put(key, next)
      return { applied: true, current: next }
    })
    expect(codesOf(await start().check())).toEqual(['condition-ignored'])
    expect(await storage.peek('stripe')).toEqual({ ...before, version: expect.any(String) })
  })

  it('finds a store that is slow beside storageTimeout', async () => {
    const { start, storage, runtime } = createFleet()
    storage.replyLatency = 251
    const checked = start().check()
    await runtime.advance(5_000)
    expect(finding(await checked, 'store-slow')).toMatchObject({
      severity: 'warning',
      message: 'A read took 251 ms, more than half of storageTimeout, 500 ms.',
    })
  })

  it.each([
    ['throws', async (): Promise<never> => Promise.reject(new Error('broken'))],
    ['hangs', (): Promise<never> => new Promise(() => {})],
  ])('goes on where the inspection %s', async (_how, inspect) => {
    const { start, storage, runtime } = createFleet()
    Object.assign(storage, { inspect })
    const checked = start().check()
    await runtime.advance(5_000)
    expect(finding(await checked, 'not-checked')).toMatchObject({ severity: 'info' })
  })
})

describe('a check of the clock', () => {
  it.each([
    [4_999, undefined, ''],
    [-4_999, undefined, ''],
    [5_000, 'warning', '5 s behind'],
    [-59_999, 'warning', '60 s ahead of'],
    [60_000, 'error', '60 s behind'],
  ])('that is %p ms off is told as %p', async (clockOffset, severity, words) => {
    const { start, storage } = createFleet()
    Object.assign(storage, inspected({ clockOffset }))
    const found = finding(await start().check(), 'clock-skew')
    expect(found?.severity).toBe(severity)
    if (found !== undefined) expect(found.message).toContain(words)
  })
})

describe('a check of the settings', () => {
  const check = async (options: Parameters<typeof createFleet>[0], remaining?: number): Promise<Finding[]> => {
    const context = remaining === undefined ? {} : { getRemainingTimeInMillis: () => remaining }
    return createFleet(options).start().check({ context })
  }

  it.each([
    ['no-time-for-calls', 'error', 1_000, {}, '1000 ms, and deadlineReserve reserves 1000 ms: its calls are refused'],
    ['no-fair-time', 'error', 1_999, {}, '999 ms for calls: 1999 ms less deadlineReserve, 1000 ms. A call'],
    ['no-fair-time', 'error', 3_499, { timeout: 5_000 }, 'only after 2500 ms'],
    ['timeout-beyond-deadline', 'warning', 3_500, { timeout: 5_000 }, 'The timeout of a call is 5000 ms'],
    [
      'no-time-beside-store',
      'warning',
      2_332,
      {},
      'takes up to 333 ms of it (storageTimeout, 500 ms, but at most a quarter)',
    ],
  ])('finds %s', async (code, severity, remaining, options, words) => {
    const findings = await check(options, remaining)
    expect(codesOf(findings)).toEqual([code])
    expect(finding(findings, code)).toMatchObject({ severity, message: expect.stringContaining(words) })
  })

  it.each([
    [2_500, {}],
    [6_000, { timeout: 5_000 }],
    [undefined, { timeout: 900_000 }],
  ])('finds nothing in a function that has %p ms, with %p', async (remaining, options) => {
    expect(codesOf(await check(options, remaining))).toEqual([])
  })

  it('finds a reserve that is too short and a cache that is too old, for the services that have them', async () => {
    const services = { stripe: { deadlineReserve: 100 }, paypal: { cacheTtl: 10_000 }, adyen: { cacheTtl: 10_000 } }
    const findings = await check({ services })
    expect(codesOf(findings)).toEqual(['reserve-too-short', 'cache-outlives-reset'])
    expect(finding(findings, 'reserve-too-short')).toMatchObject({ service: 'stripe', setting: 'deadlineReserve' })
    const { service, message } = finding(findings, 'cache-outlives-reset') as Finding
    expect(service).toBeUndefined()
    expect(message).toMatch(/^"paypal" and "adyen": cacheTtl, 10000 ms, is not shorter than resetTimeout, 10000 ms/)
  })

  it('names three services of many', async () => {
    const names = Array.from({ length: 5 }, (_, index) => [`service-${index}`, { cacheTtl: 10_000 }] as const)
    const findings = await check({ services: { ...Object.fromEntries(names), fine: {} } })
    expect(finding(findings, 'cache-outlives-reset')?.message).toMatch(
      /^"service-0", "service-1", "service-2" and 2 others: /,
    )
  })

  it('asks for a context in Lambda', async () => {
    const storage = new MemoryCircuitStorage()
    const env = { AWS_LAMBDA_FUNCTION_NAME: 'pay' }
    const breaker = new CircuitBreaker({ services: ['stripe'], storage }, { env })
    expect((await breaker.check()).map(({ code }) => code)).toEqual(['not-checked', 'not-shared'])
    const context = { getRemainingTimeInMillis: () => 30_000 }
    expect((await breaker.check({ context })).map(({ code }) => code)).toEqual(['not-shared'])
  })
})

describe('an operator who changes a circuit of which nothing is stored', () => {
  const hints = (): string[] => {
    const calls = (process.emitWarning as jest.MockedFunction<typeof process.emitWarning>).mock.calls
    return calls.map(([text]) => String(text)).filter((text) => text.startsWith('Nothing was stored'))
  }

  it.each(['forceOpen', 'forceClosed', 'reset'] as const)(
    'by %s is told once to compare the namespace',
    async (method) => {
      jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const { start, storage } = createFleet({ namespace: method })
      await start()[method]('stripe')
      await storage.remove(`${method}#stripe`)
      await start()[method]('stripe')
      expect(hints()).toEqual([expect.stringMatching(`^Nothing was stored under "${method}#stripe" .* its namespace`)])
    },
  )

  it('by batchSetState is told in one warning of all that are new', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start } = createFleet({ namespace: 'batch', services: ['a', 'b', 'c'] })
    await start().batchSetState({ a: 'OPEN' })
    await start().batchSetState({ a: 'OPEN', b: 'OPEN', c: 'CLOSED' })
    expect(hints()).toEqual([expect.stringContaining('"batch#a"'), expect.stringContaining('"batch#b" and "batch#c"')])
  })

  it('is told nothing if it is stored, or if it could not be changed', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { start, storage } = createFleet({ namespace: 'known' })
    await failTimes(start(), 3)
    await start().load()
    await start().forceOpen('stripe')
    storage.inject('fail', 'compareAndSetState')
    await outcomeOf(createFleet({ namespace: 'failing' }).start({ storage }).forceOpen('stripe'))
    expect(hints()).toEqual([])
  })

  it('is told nothing of a memory', async () => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = new CircuitBreaker({ services: ['mine'], storage: new MemoryCircuitStorage() }, { env: {} })
    await breaker.forceOpen('mine')
    expect(hints()).toEqual([])
  })
})
