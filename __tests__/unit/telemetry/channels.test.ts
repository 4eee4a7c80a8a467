import { describe, expect, it } from '@jest/globals'
import { type CallOptions, CircuitBreaker, type CircuitOpenError } from '../../../src/index.ts'
import { listenTo } from '../../support/channels.ts'
import {
  BadRequest,
  controlled,
  createFleet,
  type Fleet,
  never,
  ok,
  outcomeOf,
  trip,
  unavailable,
} from '../../support/virtual-fleet.ts'

const calls = 'middy-circuit-breaker:call'
const refusals = 'middy-circuit-breaker:refused'
const transitions = 'middy-circuit-breaker:state'
const storeOperations = 'middy-circuit-breaker:store'

const inLambda = (timeLeft: number) => ({ awsRequestId: 'a-request', getRemainingTimeInMillis: () => timeLeft })
const lasting = ({ runtime }: Fleet, milliseconds: number, end: () => Promise<unknown> = ok) => {
  return async () => {
    await runtime.sleep(milliseconds)
    return end()
  }
}
const common = { service: 'stripe', key: undefined, mode: 'enforce', fallback: false, requestId: undefined }

describe('a call that has ended', () => {
  const contexts = [
    ['outside an invocation', {}, undefined],
    ['in an invocation without a deadline', { awsRequestId: 'a-request' }, 'a-request'],
    ['in an invocation with a deadline', inLambda(60_000), 'a-request'],
  ] as const
  const ways = [
    ['that nothing else limits', undefined],
    ['with a timeout', { timeout: 5_000 }],
    ['with a fallback', { fallback: () => 'instead' }],
  ] as const
  it.each(
    contexts.flatMap(([where, context, requestId]) => ways.map((way) => [where, ...way, context, requestId] as const)),
  )('%s, %s, is told of once', async (_where, _way, options, context, requestId) => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    // The first ones take the long way.
    for (let n = 0; n < 3; n++) await breaker.call('stripe', ok)
    using heard = listenTo(calls)
    const callExternal = breaker.callExternalFor(context)
    const running = [
      callExternal('stripe', lasting(fleet, 250), options as CallOptions<unknown>),
      outcomeOf(callExternal('stripe', lasting(fleet, 40, unavailable), options as CallOptions<unknown>)),
    ]
    await fleet.runtime.advance(250)
    await Promise.all(running)

    const told = { ...common, requestId }
    const failure = { name: 'ServiceUnavailable', code: undefined, status: 503 }
    expect(heard.events).toEqual([
      { ...told, outcome: 'failure', failure, duration: 40, fallback: options !== undefined && 'fallback' in options },
      { ...told, outcome: 'success', failure: undefined, duration: 250 },
    ])
  })

  it('says what the circuit has learned, and not what the caller gets', async () => {
    const breaker = createFleet({ slowCallThreshold: 100 }).start()
    await breaker.load()
    using heard = listenTo(calls)
    const answers = [
      () => Promise.reject(new BadRequest('400')),
      () => Promise.reject(new TypeError('x is undefined')),
      ok,
    ]
    for (const answer of answers) await outcomeOf(breaker.call('stripe', answer))

    expect(heard.events.map(({ outcome, failure }) => [outcome, failure?.name])).toEqual([
      ['success', undefined],
      ['ignore', 'TypeError'],
      ['success', undefined],
    ])
  })

  it('is a failure where it was too slow', async () => {
    const fleet = createFleet({ slowCallThreshold: 100 })
    const breaker = fleet.start()
    await breaker.load()
    using heard = listenTo(calls)
    const slow = breaker.call('stripe', lasting(fleet, 101))
    await fleet.runtime.advance(101)
    await slow

    expect(heard.events).toEqual([{ ...common, outcome: 'failure', failure: { name: 'SlowCall' }, duration: 101 }])
  })

  it.each([
    ['its timeout', { timeout: 300 }, 60_000, 300],
    ['the deadline', undefined, 60_000, 59_000],
  ])('has the code of a timeout where %s has cut it', async (_what, options, timeLeft, duration) => {
    const { runtime, start } = createFleet()
    const breaker = start()
    await breaker.load()
    using heard = listenTo(calls)
    const cut = outcomeOf(breaker.callExternalFor(inLambda(timeLeft))('stripe', never, options))
    await runtime.advance(timeLeft)
    await cut

    const failure = { name: 'CircuitTimeoutError', code: 'CIRCUIT_TIMEOUT' }
    expect(heard.events).toEqual([
      { ...common, requestId: 'a-request', outcome: 'failure', failure: expect.objectContaining(failure), duration },
    ])
  })

  it('tells nothing of the text of an error, which may hold a secret', async () => {
    const breaker = createFleet().start()
    await breaker.load()
    using heard = listenTo(calls)
    const leak = Object.assign(new Error('key sk_live_1'), {
      code: 'E_LEAK',
      status: 503,
      response: { body: 'sk_live_1' },
    })
    await outcomeOf(breaker.call('stripe', () => Promise.reject(leak)))

    expect(heard.events).toHaveLength(1)
    expect(JSON.stringify(heard.events)).not.toContain('sk_live_1')
  })

  it('is not told of where the mode is off', async () => {
    const breaker = createFleet({ mode: 'off' }).start()
    using heard = listenTo(calls)
    await breaker.call('stripe', ok)
    await breaker.call('stripe', ok, { timeout: 1_000 })

    expect(heard.events).toEqual([])
  })

  it('has no duration where it began before anybody listened, and is not told of', async () => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    const early = controlled()
    // The first ones take the long way, on which the clock is read.
    for (let n = 0; n < 3; n++) await breaker.call('stripe', ok)
    const running = breaker.call('stripe', early.operation)
    using heard = listenTo(calls)
    early.succeed('early')
    await running
    await breaker.call('stripe', ok)

    expect(heard.events).toHaveLength(1)
  })
})

describe('a call of a key', () => {
  it.each([true, false])(
    'is told of once, with its key, also where its service is guarded as a whole (%s)',
    async (parent) => {
      const { runtime, storage } = createFleet()
      const services = { hosts: { keyed: { parent } } }
      const breaker = new CircuitBreaker({ services, storage }, { ...runtime, env: {} })
      const callExternal = breaker.callExternalFor(inLambda(60_000))
      for (let n = 0; n < 3; n++) await callExternal('hosts', ok, { key: 'a.example' })
      using heard = listenTo(calls)
      await callExternal('hosts', ok, { key: 'a.example' })
      await outcomeOf(callExternal('hosts', unavailable, { key: 'a.example', timeout: 1_000 }))

      expect(heard.events.map(({ service, key, outcome }) => [service, key, outcome])).toEqual([
        ['hosts', 'a.example', 'success'],
        ['hosts', 'a.example', 'failure'],
      ])
    },
  )
})

describe('a call that was not started', () => {
  it.each([
    ['the circuit is open', 'open'],
    ['an operator has opened it', 'forced'],
    ['it is being probed', 'probing'],
  ])('is told of where %s', async (_why, reason) => {
    const fleet = createFleet()
    const breaker = fleet.start()
    await breaker.load()
    if (reason === 'forced') await breaker.forceOpen('stripe')
    else await trip(breaker)
    await fleet.runtime.advance(reason === 'probing' ? 11_000 : 1_000)
    if (reason === 'probing') void breaker.call('stripe', never)
    await fleet.runtime.settle()
    using heard = listenTo(refusals)
    const { error } = await outcomeOf(breaker.callExternalFor(inLambda(60_000))('stripe', ok))
    const { retryAfter } = error as CircuitOpenError
    await breaker.call('stripe', ok, { fallback: () => 'instead' })

    expect(heard.events).toEqual([
      { ...common, requestId: 'a-request', reason, retryAfter },
      { ...common, fallback: true, reason, retryAfter },
    ])
  })

  it('is told of where it waited for a permit in vain', async () => {
    const { runtime, start } = createFleet({ maxConcurrent: 1, maxQueue: 2 })
    const breaker = start()
    await breaker.load()
    void breaker.call('stripe', never)
    using heard = listenTo(refusals)
    using ended = listenTo(calls)
    const waiting = [
      breaker.call('stripe', ok, { timeout: 200, fallback: () => 'instead' }),
      outcomeOf(breaker.call('stripe', ok, { signal: AbortSignal.abort(), fallback: () => 'instead' })),
      outcomeOf(breaker.callExternalFor(inLambda(1_500))('stripe', ok)),
      outcomeOf(breaker.call('stripe', ok)),
    ]
    await runtime.advance(1_500)
    await Promise.all(waiting)

    expect(heard.events.map(({ reason, retryAfter, fallback }) => [reason, retryAfter, fallback])).toEqual([
      ['cancelled', undefined, false],
      ['concurrency', undefined, false],
      ['timeout', undefined, true],
      ['deadline', undefined, false],
    ])
    expect(ended.events).toEqual([])
  })

  it('runs with mode: observe, where it is told that enforcing would have refused it', async () => {
    const breaker = createFleet({ mode: 'observe' }).start()
    await breaker.load()
    await trip(breaker)
    using heard = listenTo(refusals)
    using ended = listenTo(calls)
    expect(await breaker.call('stripe', ok)).toBe('ok')

    expect(heard.events).toEqual([{ ...common, mode: 'observe', reason: 'open', retryAfter: 11_000 }])
    expect(ended.events).toMatchObject([{ mode: 'observe', outcome: 'success' }])
  })
})

describe('a transition', () => {
  it('is told of by each instance: by the one that made it, and as observed by the others', async () => {
    const { start, events } = createFleet()
    const [breaker, other] = [start(), start()]
    await Promise.all([breaker.load(), other.load()])
    using heard = listenTo(transitions)
    await trip(breaker)
    await other.batchGetState()

    expect(heard.events).toEqual([events[0], expect.objectContaining({ from: 'CLOSED', to: 'OPEN', observed: true })])
  })
})

describe('an operation at the store', () => {
  it('is told of with how long it took', async () => {
    const { start, storage, runtime } = createFleet()
    const breaker = start()
    storage.replyLatency = 30
    using heard = listenTo(storeOperations)
    const loading = breaker.load()
    await runtime.advance(30)
    await loading

    expect(heard.events).toEqual([{ services: ['stripe'], operation: 'batchGetState', duration: 30, error: undefined }])
  })
})
