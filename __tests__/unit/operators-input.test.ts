import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError, isConfigurationError } from '../../src/index.ts'
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
        message: `batchSetState takes an object, a Map or pairs of service and state, but got ${states}`,
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
        source: 'call option',
        value: 0,
        message: expect.stringMatching(
          /^timeout must be a whole number of milliseconds from 1 to 2147483647, .* is 0 /,
        ),
      },
    ])
  })

  it('until may be as late as a Date can be, and must be to come', async () => {
    const { start, runtime } = createFleet()
    const breaker = start()
    await breaker.forceOpen('stripe', { until: 8.64e15 })
    const until = runtime.now()
    expect(await problemsOf(breaker.forceOpen('stripe', { until }))).toEqual([
      {
        setting: 'until',
        source: 'option',
        value: until,
        message: `until must be a time that is still to come, but is ${until} (option)`,
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
