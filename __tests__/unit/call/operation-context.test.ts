import { beforeEach, describe, expect, it } from '@jest/globals'
import type { CallExternal, OperationContext } from '../../../src/index.ts'
import { createFleet, outcomeOf } from '../../support/virtual-fleet.ts'

const { runtime, start } = createFleet({ failureThreshold: 100 })
const breaker = start()
await breaker.load()

const untilDeadline = (remaining: number): CallExternal =>
  breaker.callExternalFor({ getRemainingTimeInMillis: () => remaining })

/** The present invocation, in which a call may last 100 ms. */
let invocation: CallExternal
beforeEach(() => {
  invocation = untilDeadline(1_100)
})

/** Each way to run an operation, and how long its call lasts where something cuts it. */
const ways: readonly (readonly [string, CallExternal, number?])[] = [
  ['that nothing can cut', breaker.call.bind(breaker)],
  [
    'with a fallback',
    (service, operation, options) => breaker.call(service, operation, { ...options, fallback: fail }),
  ],
  ['with a timeout', (service, operation) => breaker.call(service, operation, { timeout: 100 }), 100],
  ['with a deadline', (service, operation) => invocation(service, operation), 100],
  ['with a deadline and options', (service, operation) => invocation(service, operation, {}), 100],
]

function fail(error: unknown): never {
  throw error
}

const unendingWith = (note: (context: OperationContext) => void) => (context: OperationContext) => {
  note(context)
  return new Promise<never>(() => {})
}

describe.each(ways)('what the operation of a call %s receives', (_kind, call, limit) => {
  it('is a plain object that has a signal and nothing else', async () => {
    const context = await call('stripe', async (given) => given)
    expect(Object.keys(context)).toEqual(['signal'])
    expect(Object.getPrototypeOf(context)).toBe(Object.prototype)
    expect(Reflect.ownKeys(context)).toEqual(['signal'])
    expect(String(context)).toBe('[object Object]')
    expect(() => Object.assign(context, { attempt: 1 })).toThrow(TypeError)
  })

  it('keeps its signal in a spread, and makes it once', async () => {
    const [context, copy] = await call('stripe', async (given) => [given, { ...given, url: '/' }] as const)
    expect(copy).toEqual({ signal: expect.any(AbortSignal), url: '/' })
    expect(copy.signal).toBe(context.signal)
  })

  it('makes no signal that is not read', async () => {
    let made = 0
    const { AbortController } = globalThis
    globalThis.AbortController = class extends AbortController {
      constructor() {
        super()
        made++
      }
    }
    await call('stripe', async (context) => 'signal' in context).finally(() => {
      globalThis.AbortController = AbortController
    })
    expect(made).toBe(0)
  })

  it('has a signal of its own where it is read when the call begins', async () => {
    const [one, other] = await Promise.all([1, 2].map(() => call('stripe', async ({ signal }) => signal)))
    expect(one).not.toBe(other)
  })

  if (limit === undefined) return

  it.each(['in a spread', 'late', 'after the cut'])(
    'aborts its signal with the error of the call: read %s',
    async (when) => {
      let signal: AbortSignal | undefined
      let given: OperationContext | undefined
      const read = (context: OperationContext) => {
        ;({ signal } = { ...context })
      }
      const isCut = outcomeOf(
        call(
          'stripe',
          unendingWith((context) => {
            given = context
            if (when === 'in a spread') read(context)
          }),
        ),
      )
      await runtime.settle()
      if (when === 'late') read(given as OperationContext)
      await runtime.advance(limit)
      if (when === 'after the cut') read(given as OperationContext)
      const { error } = await isCut
      expect(error).toMatchObject({ code: 'CIRCUIT_TIMEOUT' })
      expect(signal?.reason).toBe(error)
    },
  )
})

it('leaves calls of other invocations alone where one is cut', async () => {
  const signals: AbortSignal[] = []
  const operation = unendingWith(({ signal }) => void signals.push(signal))
  const calls = [untilDeadline(1_100), untilDeadline(5_000)].map((call) => outcomeOf(call('stripe', operation)))
  await runtime.advance(100)
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, false])
  await runtime.advance(5_000)
  await Promise.all(calls)
})
