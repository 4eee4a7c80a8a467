import { describe, expect, it } from '@jest/globals'
import { type CircuitBreaker, CircuitStorageError, isConfigurationError } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { corrupt, createFleet, ok, outcomeOf, trip } from '../support/virtual-fleet.ts'

describe('wrong arguments', () => {
  const problemsOf = async (promise: Promise<unknown>) => {
    const { error } = await outcomeOf(promise)
    if (!isConfigurationError(error)) throw new Error('Expected a ConfigurationError.')
    return error.problems
  }

  it.each([['OPEN'], [null], [7]])('batchSetState takes no %p for the states', async (states) => {
    const { start, storage } = createFleet()
    expect(await problemsOf(start().batchSetState(states as never))).toEqual([
      {
        setting: 'states',
        source: 'batchSetState',
        value: states,
        message: `states must be an object, a Map or pairs of service and state, but is ${JSON.stringify(states)} (batchSetState)`,
      },
    ])
    expect(storage.requests).toEqual([])
  })

  it('batchSetState takes the states as they are when it is called', async () => {
    const breaker = createFleet().start()
    const states = new Map([['stripe', 'OPEN' as const]])
    const set = breaker.batchSetState(states)
    states.clear()
    expect([...(await set).keys()]).toEqual(['stripe'])
  })

  it.each([
    [7, '7'],
    [null, 'null'],
    [{ secret: 'hunter2' }, 'an object'],
  ])('batchSetState shows of the wrong state %p no more than it has to', async (state, words) => {
    const [problem] = await problemsOf(
      createFleet()
        .start()
        .batchSetState({ stripe: state as never }),
    )
    expect(problem?.message).toContain(`but is ${words} (`)
  })

  it('batchSetState says which state is wrong and what it is', async () => {
    const breaker = createFleet().start()
    expect(await problemsOf(breaker.batchSetState({ stripe: 'AJAR' as never }))).toEqual([
      {
        setting: 'stripe',
        source: 'batchSetState',
        value: 'AJAR',
        message: 'The state of "stripe" must be OPEN or CLOSED, but is "AJAR" (batchSetState)',
      },
    ])
  })

  it('the timeout of a call goes from 1 ms to the longest that a timer can wait', async () => {
    const breaker = createFleet().start()
    for (const timeout of [1, 2 ** 31 - 1]) expect(await breaker.call('stripe', ok, { timeout })).toBe('ok')
    expect(await problemsOf(breaker.call('stripe', ok, { timeout: 0 }))).toEqual([
      {
        setting: 'timeout',
        source: 'call of "stripe"',
        value: 0,
        message: expect.stringMatching(
          /^timeout must be a whole number of milliseconds from 1 to 2147483647, .* is 0 /,
        ),
      },
    ])
  })

  it.each([
    [['stripe'], '"stripe" in a list'],
    [[7], '7 in a list'],
  ])('batchSetState takes no list of what are no pairs: %p', async (states, words) => {
    const problem = await problemsOf(
      createFleet()
        .start()
        .batchSetState(states as never),
    )
    expect(problem.map(({ message }) => message)).toEqual([
      `states must be pairs of service and state, but is ${words} (batchSetState)`,
    ])
  })

  it.each(['batchGetState', 'batchClearState'] as const)('%s takes a list of keys only', async (method) => {
    for (const services of ['stripe', 7, null, {}]) {
      expect(
        await problemsOf(
          createFleet()
            .start()
            [method](services as never),
        ),
      ).toEqual([
        expect.objectContaining({
          setting: 'services',
          message: expect.stringContaining('must be a list of service keys'),
        }),
      ])
    }
  })

  it.each([
    [{ reason: 'maintenance' }, 'reason is not an option of forceClosed; there are until, by, why'],
    [{ untill: 5 }, 'untill is not an option of forceClosed; did you mean until?'],
    [{ until: null }, 'until must be a time that is still to come, as a Date or in milliseconds, but is null'],
    [
      { until: 'tomorrow' },
      'until must be a time that is still to come, as a Date or in milliseconds, but is "tomorrow"',
    ],
    [new Date(8e15), 'options must be an object such as { until: new Date(…) }, but is an object'],
    [5, 'options must be an object such as { until: new Date(…) }, but is 5'],
  ])('forceClosed refuses %j and changes nothing', async (options, message) => {
    const { start, storage } = createFleet()
    expect(await problemsOf(start().forceClosed('stripe', options as never))).toEqual([
      expect.objectContaining({ message: `${message} (forceClosed of "stripe")` }),
    ])
    expect(storage.requests).toEqual([])
  })

  it.each([
    [{ contxt: {} }, 'contxt is not an option of check; did you mean context? (check)'],
    [{ context: 5 }, "context must be Lambda's context, but is 5 (check)"],
    [5, 'options must be an object such as { context }, but is 5 (check)'],
    [null, 'options must be an object such as { context }, but is null (check)'],
  ])('check refuses %j', async (options, message) => {
    expect(
      await problemsOf(
        createFleet()
          .start()
          .check(options as never),
      ),
    ).toEqual([expect.objectContaining({ message })])
  })

  it.each(['load', 'flush'] as const)('%s takes a number of milliseconds only', async (method) => {
    for (const timeLeft of [Number.NaN, '5', null, createTestContext()]) {
      expect(
        await problemsOf(
          createFleet()
            .start()
            [method](timeLeft as never),
        ),
      ).toEqual([
        expect.objectContaining({
          source: method,
          message: expect.stringContaining('timeLeft must be a number of milliseconds'),
        }),
      ])
    }
  })

  it.each<[string, (breaker: CircuitBreaker) => unknown, string]>([
    ['no listener', (breaker) => breaker.onStateChange('log' as never), 'listener must be a function, but is "log"'],
    [
      'a misspelt option',
      (breaker) => breaker.onStateChange(ok, { observd: true } as never),
      'observd is not an option of onStateChange; did you mean observed?',
    ],
    [
      'an option of the wrong type',
      (breaker) => breaker.onStateChange(ok, { observed: 'yes' } as never),
      'observed must be true or false, but is "yes"',
    ],
    ['no options', (breaker) => breaker.onStateChange(ok, null as never), 'options must be an object such as'],
    ['no context', (breaker) => breaker.callExternalFor(undefined as never), "context must be Lambda's context"],
    ['no listener of the store', (breaker) => breaker.onStorageError({} as never), 'listener must be a function, but'],
  ])('of methods that return at once are refused at once: %s', (_what, subscribe, message) => {
    expect(() => subscribe(createFleet().start())).toThrow(message)
  })

  it('until may be as late as a Date can be, and must be to come', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe', { until: 8.64e15 })
    const until = runtime.now()
    expect(await problemsOf(breaker.forceOpen('stripe', { until }))).toEqual([
      {
        setting: 'until',
        source: 'forceOpen of "stripe"',
        value: until,
        message: `until must be a time that is still to come, as a Date or in milliseconds, but is ${until} (forceOpen of "stripe")`,
      },
    ])
  })
})

describe('a reset', () => {
  it('is told with its reason, also where it has to repair the record first', async () => {
    const { start, storage, events } = createFleet()
    const breaker = start()
    await trip(breaker)
    await breaker.reset('stripe')
    await trip(breaker)
    storage.intercept('getState', async () => {
      throw corrupt('getState')
    })
    await breaker.reset('stripe')
    expect(events.filter(({ to }) => to === 'CLOSED').map(({ reason }) => reason)[0]).toBe('reset')
    expect(await storage.peek('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })

  it('deletes nothing where the store is merely down', async () => {
    const { start, storage } = createFleet()
    const breaker = start()
    await trip(breaker)
    storage.inject('fail', 'getState')
    storage.forget()
    expect((await outcomeOf(breaker.reset('stripe'))).error).toBeInstanceOf(CircuitStorageError)
    expect(storage.operations).toEqual(['getState'])
  })

  it('that never wins says that others kept writing', async () => {
    const { start, storage } = createFleet()
    const conflict = async () => ({ applied: false, current: undefined })
    storage.intercept('compareAndSetState', conflict, 1_000)
    expect((await outcomeOf(start().reset('stripe'))).error).toMatchObject({
      message: 'Other writers kept changing the circuit of stripe. Try again.',
      operation: 'compareAndSetState',
      service: 'stripe',
    })
    expect(storage.writes).toHaveLength(100)
  })
})
