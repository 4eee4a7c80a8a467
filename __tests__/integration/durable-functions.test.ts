/**
 * Durable functions in the SDK's own local runner, which replays them after each suspension: with Middy, and without.
 *
 * The runner waits in real time, so the waits are short: where it sets timers forward it also skips suspensions. The circuit
 * breakers have a clock of their own, which stands still but for what the tests let pass.
 *
 * @module
 */

import {
  createRetryStrategy,
  type DurableContext,
  StepError,
  withDurableExecution,
  withRetry,
} from '@aws/durable-execution-sdk-js'
import { LocalDurableTestRunner, type TestResult } from '@aws/durable-execution-sdk-js-testing'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import { executionModeDurableContext } from '@middy/core/DurableContext'
import type { Context } from 'aws-lambda'
import { type CallExternal, CircuitBreaker, type CircuitRecord, circuitBreaker } from 'middy-circuit-breaker'
import { retryAfterFrom, untilRecovered } from 'middy-circuit-breaker/durable'
import { createFakeRuntime, type FakeRuntime } from '../support/fake-runtime.ts'
import { RecordingStorage } from '../support/recording-storage.ts'
import { ServiceUnavailable } from '../support/virtual-fleet.ts'

beforeAll(() => LocalDurableTestRunner.setupTestEnvironment({ skipTime: false }))
afterAll(() => LocalDurableTestRunner.teardownTestEnvironment())

type Guarded = DurableContext & { readonly callExternal: CallExternal<'stripe'> }
type Body = (context: Guarded) => Promise<unknown>

/** A service, its circuit, and durable functions that call it. */
interface World {
  readonly breaker: CircuitBreaker<'stripe'>
  readonly runtime: FakeRuntime
  readonly storage: RecordingStorage
  /** How often the service was called. */
  readonly calls: number
  /** Whether the service works. */
  works: boolean
  /** The operation. */
  readonly pay: () => Promise<string>
  /** The record stored at the end of each invocation, and whether that was a suspension. */
  readonly ends: { readonly isSuspended: boolean; readonly stored: CircuitRecord | undefined }[]
  run(body: Body, wrap?: (breaker: CircuitBreaker<'stripe'>, body: Body) => unknown): Promise<TestResult>
}

function createWorld(): World {
  const runtime = createFakeRuntime({ random: () => 0 })
  const storage = new RecordingStorage(runtime)
  const breaker = new CircuitBreaker({ services: ['stripe'], storage }, runtime)
  let calls = 0
  const world: World = {
    breaker,
    runtime,
    storage,
    get calls() {
      return calls
    },
    works: true,
    pay: async () => {
      calls++
      if (!world.works) throw new ServiceUnavailable('503')
      return 'paid'
    },
    ends: [],
    run: async (body, wrap = withMiddy) => {
      const inner = wrap(breaker, body) as (event: unknown, context: Context) => Promise<{ readonly Status: string }>
      const handler = async (event: unknown, context: Context) => {
        const end = await inner(event, context)
        world.ends.push({ isSuspended: end.Status === 'PENDING', stored: await storage.peek('stripe') })
        return end
      }
      return new LocalDurableTestRunner({ handlerFunction: handler as never }).run({ payload: {} })
    },
  }
  return world
}

/** Middy's early timeout would outlive each suspension. */
function withMiddy(breaker: CircuitBreaker<'stripe'>, body: Body): unknown {
  return middy({ executionMode: executionModeDurableContext, timeoutEarlyInMillis: 0 })
    .use(circuitBreaker(breaker))
    .handler(((_event: unknown, context: Guarded) => body(context)) as never)
}

function withoutMiddy(breaker: CircuitBreaker<'stripe'>, body: Body): unknown {
  return withDurableExecution((_event, context) =>
    body(Object.assign(context, { callExternal: breaker.callExternalFor(context) })),
  )
}

const final = () => ({ shouldRetry: false })

/** Every write takes some turns, in which the SDK would have suspended the function. */
function makeSlow(storage: RecordingStorage): void {
  storage.intercept(
    ({ operation }) => operation === 'compareAndSetState' || operation === 'addOutcomes',
    async (_request, apply) => {
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate)
      return apply()
    },
    Number.POSITIVE_INFINITY,
  )
}

describe('a durable function that is suspended', () => {
  it.each([
    ['with Middy', withMiddy],
    ['without Middy', withoutMiddy],
  ])(
    'has stored before what its calls came to: before a wait, and before a step is tried again, %s',
    async (_, wrap) => {
      const world = createWorld()
      makeSlow(world.storage)
      world.works = false
      const again = (_error: Error, attempts: number) => ({ shouldRetry: attempts < 2, delay: { seconds: 1 } })
      await world.run(async (context) => {
        const pay = () => context.callExternal('stripe', world.pay)
        await context.step('first', pay, { retryStrategy: final }).catch(() => undefined)
        await context.wait({ seconds: 1 })
        await context.step('second', pay, { retryStrategy: again }).catch(() => undefined)
        await context.wait({ seconds: 1 })
        // It is refused, and nothing is to be stored.
        await context.step('third', pay, { retryStrategy: final }).catch(() => undefined)
      }, wrap)
      expect(world.ends).toMatchObject([
        { isSuspended: true, stored: { state: 'CLOSED', failureCount: 1 } },
        { isSuspended: true, stored: { state: 'CLOSED', failureCount: 2 } },
        { isSuspended: true, stored: { state: 'OPEN', failureCount: 3 } },
        { isSuspended: false, stored: { state: 'OPEN', failureCount: 3 } },
      ])
    },
  )

  it('is replayed without a second call of a step that has ended, and nothing counts twice', async () => {
    const world = createWorld()
    const result = await world.run(async (context) => {
      const pay = () => context.callExternal('stripe', world.pay)
      const paid = await context.step('works', pay)
      world.works = false
      await context.step('fails', pay, { retryStrategy: final }).catch(() => undefined)
      await context.wait({ seconds: 1 })
      await context.wait({ seconds: 1 })
      return paid
    })
    expect(result.getResult()).toBe('paid')
    expect(world.ends).toHaveLength(3)
    expect(world.calls).toBe(2)
    expect(world.ends.at(-1)?.stored).toMatchObject({ state: 'CLOSED', failureCount: 1 })
  })
})

describe('a durable function', () => {
  it('fails where a replay takes another way, as by a look at the circuit outside of a step', async () => {
    const world = createWorld()
    const result = await world.run(async (context) => {
      await context.step(world.breaker.circuits.stripe.state, async () => world.breaker.forceOpen('stripe'))
      await context.wait({ seconds: 1 })
    })
    expect(result.getStatus()).toBe('FAILED')
    expect(result.getError().errorMessage).toMatch(/[Nn]on-deterministic/)
  })
})

describe('a step of a durable function that is refused', () => {
  it('is not tried again where its fallback has answered', async () => {
    const world = createWorld()
    await world.breaker.forceOpen('stripe')
    const charge = (context: Guarded) =>
      context.step('charge', () => context.callExternal('stripe', world.pay, { fallback: () => 'unpaid' }), {
        retryStrategy: untilRecovered(),
      })
    expect((await world.run(charge)).getResult()).toBe('unpaid')
    expect(world.ends).toMatchObject([{ isSuspended: false }])
  })

  it('sleeps until the circuit may admit it, and is carried out then', async () => {
    const world = createWorld()
    world.works = false
    const strategy = untilRecovered({}, world.runtime)
    const waits: unknown[] = []
    const result = await world.run((context) =>
      context.step('charge', () => context.callExternal('stripe', world.pay), {
        retryStrategy: (error, attempts) => {
          const decision = strategy(error, attempts)
          const seconds = decision.delay?.seconds ?? 0
          waits.push([error.name, seconds])
          // The service recovers while the function sleeps.
          world.runtime.setClock(world.runtime.now() + 1_000 * seconds)
          if (error.name === 'CircuitOpenError') world.works = true
          return { ...decision, delay: { seconds: 1 } }
        },
      }),
    )
    expect(result.getResult()).toBe('paid')
    expect(waits).toEqual([
      ['Error', 1],
      ['Error', 2],
      ['Error', 4],
      ['CircuitOpenError', 7],
    ])
    // Three failures and the probe: while it was refused it called nothing.
    expect(world.calls).toBe(4)
    expect(world.ends.at(-1)?.stored).toMatchObject({ state: 'CLOSED' })
  })

  it('fails, after its last attempt, with an error that still tells when to ask again', async () => {
    const world = createWorld()
    await world.breaker.forceOpen('stripe')
    let caught: unknown
    await world.run(async (context) => {
      const retryStrategy = untilRecovered({ maxAttempts: 1, otherErrors: createRetryStrategy() })
      const charge = context.step('charge', () => context.callExternal('stripe', world.pay), { retryStrategy })
      caught = await charge.catch((error: unknown) => error)
      await context.wait({ seconds: 1 })
    })
    // The replayed one.
    expect(caught).toBeInstanceOf(StepError)
    expect(retryAfterFrom(caught)).toBe(10_000)
    expect(world.calls).toBe(0)
  })

  it('is recognised by its copy where several steps are tried again together', async () => {
    const world = createWorld()
    await world.breaker.forceOpen('stripe')
    const strategy = untilRecovered({}, world.runtime)
    const waits: unknown[] = []
    const result = await world.run((context) =>
      withRetry(
        context,
        'order',
        (child) => child.step('charge', () => context.callExternal('stripe', world.pay), { retryStrategy: final }),
        {
          retryStrategy: (error, attempts) => {
            const decision = strategy(error, attempts)
            waits.push(decision.delay?.seconds)
            void world.breaker.reset('stripe')
            return { ...decision, delay: { seconds: 1 } }
          },
          wrapWithRunInChildContext: false,
        },
      ),
    )
    // The first time, and replayed.
    expect(waits).toEqual([10, 10])
    expect(result.getStatus()).toBe('SUCCEEDED')
  })
})
