/** An error that is an answer proves that the service works, and still reaches the caller. */

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, jest } from '@jest/globals'
import type { CallOptions, CircuitBreaker, Outcome } from '../../../src/index.ts'
import { BadRequest, createFleet, failTimes, ok, outcomeOf, trip, unavailable } from '../../support/virtual-fleet.ts'

const refuse = (): Promise<never> => Promise.reject(new BadRequest('404'))
const bug = (): Promise<never> => Promise.reject(new TypeError('a bug'))

/** What an open circuit has become when a call of its own has probed it. */
async function stateAfterProbe(operation: () => Promise<unknown>, options: CallOptions = {}): Promise<unknown> {
  const { start, runtime, storage } = createFleet()
  const breaker = start()
  await trip(breaker)
  await runtime.advance(11_000)
  await outcomeOf(breaker.call('stripe', operation, options))
  await breaker.flush()
  return (await storage.peek('stripe'))?.state
}

/** Each way that a call can take through the guard. */
const ways: [way: string, call: (breaker: CircuitBreaker, operation: () => Promise<unknown>) => Promise<unknown>][] = [
  ['without options', (breaker, operation) => breaker.call('stripe', operation)],
  ['with a timeout', (breaker, operation) => breaker.call('stripe', operation, { timeout: 1_000 })],
  [
    'with a signal',
    (breaker, operation) => breaker.call('stripe', operation, { signal: new AbortController().signal }),
  ],
  [
    'until the deadline',
    (breaker, operation) => breaker.callExternalFor({ getRemainingTimeInMillis: () => 5_000 })('stripe', operation),
  ],
]

describe.each(ways)('an error with a 4xx status, in a call %s', (_, call) => {
  it('closes the circuit as a probe, and reaches the caller', async () => {
    const { start, runtime, storage } = createFleet()
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    const error = new BadRequest('404')
    expect(await outcomeOf(call(breaker, () => Promise.reject(error)))).toEqual({ error })
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
    expect(await call(breaker, ok)).toBe('ok')
  })

  it('ends failures in a row', async () => {
    const breaker = createFleet().start()
    await failTimes(breaker, 2)
    await outcomeOf(call(breaker, refuse))
    await failTimes(breaker, 2)
    expect(breaker.circuits.stripe?.state).toBe('CLOSED')
  })
})

describe('an error with a 4xx status', () => {
  it('does not run the fallback', async () => {
    const breaker = createFleet().start()
    const fallback = jest.fn(() => 'instead')
    const error = new BadRequest('404')
    expect(await outcomeOf(breaker.call('stripe', () => Promise.reject(error), { fallback }))).toEqual({ error })
    expect(fallback).not.toHaveBeenCalled()
  })

  it('closes the circuit also where it is only observed', async () => {
    const { start, runtime, storage } = createFleet({ mode: 'observe' })
    const breaker = start()
    await trip(breaker)
    await runtime.advance(11_000)
    await outcomeOf(breaker.call('stripe', refuse))
    await breaker.flush()
    expect((await storage.peek('stripe'))?.state).toBe('CLOSED')
  })

  it('speaks for the service under a suspicion', async () => {
    const { start, storage } = createFleet()
    const [one, other] = [start(), start()]
    await failTimes(one, 2)
    await one.flush()
    await other.load()
    await outcomeOf(other.call('stripe', refuse))
    await other.flush()
    expect((await storage.peek('stripe'))?.successCount).toBe(1)
  })

  it('is a slow success where it takes too long', async () => {
    const { start, runtime } = createFleet({ slowCallThreshold: 100, failureThreshold: 1 })
    const breaker = start()
    const error = new BadRequest('404')
    const call = outcomeOf(breaker.call('stripe', () => runtime.sleep(101).then(() => Promise.reject(error))))
    await runtime.advance(101)
    expect(await call).toEqual({ error })
    expect(breaker.circuits.stripe).toMatchObject({ state: 'OPEN', lastFailure: { name: 'SlowCall' } })
  })
})

describe('a classifier', () => {
  it.each<[Outcome, string]>([
    ['failure', 'OPEN'],
    ['success', 'CLOSED'],
    ['ignore', 'HALF_OPEN'],
  ])('that says %s of an error or a result leaves a probed circuit %s', async (word, state) => {
    const classify = () => word
    const options = { isBreakableError: classify, isBreakableResult: classify }
    expect([await stateAfterProbe(bug, options), await stateAfterProbe(ok, options)]).toEqual([state, state])
  })

  it('that says false leaves it to the default whether an error is an answer or nothing', async () => {
    const options = { isBreakableError: () => false }
    const states = await Promise.all([refuse, bug, unavailable].map((operation) => stateAfterProbe(operation, options)))
    expect(states).toEqual(['CLOSED', 'HALF_OPEN', 'HALF_OPEN'])
  })

  it.each([
    ['is truthy and not true', () => 'yes' as unknown as boolean],
    ['throws', (error: unknown) => (error as { response: { status: number } }).response.status >= 500],
    ['is asynchronous', (async () => true) as unknown as () => boolean],
  ])('that %s does not switch the circuit off: refused connections count', async (_, isBreakableError) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const breaker = createFleet({ isBreakableError }).start()
    const refused = () => Promise.reject(Object.assign(new Error('connect'), { code: 'ECONNREFUSED' }))
    for (let call = 0; call < 3; call++) await outcomeOf(breaker.call('stripe', refused))
    expect(breaker.circuits.stripe?.state).toBe('OPEN')
    warn.mockRestore()
  })

  it('that ignores a failure keeps the fallback from running', async () => {
    const breaker = createFleet().start()
    const options = { isBreakableError: () => 'ignore' as const, fallback: () => 'instead' }
    expect((await outcomeOf(breaker.call('stripe', unavailable, options))).error).toMatchObject({ message: '503' })
  })
})

describe('a 429, which proves nothing', () => {
  it.each([
    ['returned', async () => new Response('', { status: 429 })],
    ['thrown', () => Promise.reject(Object.assign(new Error('429'), { response: { status: 429 } }))],
  ])('leaves a probed circuit half open, %s', async (_, operation) => {
    expect(await stateAfterProbe(operation)).toBe('HALF_OPEN')
  })
})

describe('a cancellation of the operation’s own', () => {
  it('counts for nothing: the hedged requests that have lost', async () => {
    const server = createServer((request, response) => void (request.url === '/fast' && response.end('fast')))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const breaker = createFleet().start()
    for (let race = 0; race < 3; race++) {
      const loser = new AbortController()
      const slow = outcomeOf(breaker.call('stripe', () => fetch(`${url}/slow`, { signal: loser.signal })))
      expect(await (await fetch(`${url}/fast`)).text()).toBe('fast')
      loser.abort()
      expect((await slow).error).toMatchObject({ name: 'AbortError' })
    }
    server.closeAllConnections()
    server.close()
    expect(breaker.circuits.stripe).toMatchObject({ state: 'CLOSED', failureCount: 0 })
  })
})
