/**
 * What must compile and what must not: `npx tsc` is the judge, for an `@ts-expect-error` without an error is one. At run
 * time nothing of it is executed except the last test, which keeps jest content.
 */

import { describe, expect, it } from '@jest/globals'
import middy from '@middy/core'
import type { Context } from 'aws-lambda'
import {
  type CallExternal,
  type CallOptions,
  CircuitBreaker,
  type CircuitBreakerContext,
  type CircuitBreakerMiddleware,
  type CircuitBreakerOptions,
  type CircuitSnapshot,
  type CircuitState,
  type Circuits,
  circuitBreaker,
  type Evidence,
  type FailureSummary,
  isCircuitOpenError,
} from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'

type IsAny<T> = 0 extends 1 & T ? true : false
type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

/** Compiles only for the very type. */
function assertType<Expected>() {
  return <Actual>(_value: Actual, ..._proof: Equals<Actual, Expected> extends true ? [] : [never]): void => {}
}

interface Charge {
  readonly id: string
  readonly busy?: boolean
}

declare const fetchCharge: () => Promise<Charge>
declare const snapshot: CircuitSnapshot

const claims = {
  'services as a list': () => {
    middy()
      .use(circuitBreaker({ services: ['stripe', 'paypal'], failureThreshold: 5 }))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('stripe', fetchCharge))
        assertType<CircuitState>()(circuits.paypal.state)
        // @ts-expect-error this service is not configured
        await callExternal('paypall', fetchCharge)
        // @ts-expect-error this service is not configured
        circuits.adyen
      })
    // @ts-expect-error a misspelt setting
    circuitBreaker({ services: ['stripe'], failureTreshold: 5 })
    // @ts-expect-error a setting of the wrong type
    circuitBreaker({ services: ['stripe'], failureThreshold: '5' })
    // @ts-expect-error a mode that there is not
    circuitBreaker({ services: ['stripe'], mode: 'enforced' })
    // @ts-expect-error services are needed
    circuitBreaker({ failureThreshold: 5 })
  },

  'services as a map': () => {
    middy()
      .use(circuitBreaker({ services: { stripe: { failureThreshold: 2 }, paypal: {}, adyen: undefined } }))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('adyen', fetchCharge))
        assertType<CircuitSnapshot>()(circuits.stripe)
        // @ts-expect-error this service is not configured
        await callExternal('paypall', fetchCharge)
        // @ts-expect-error this service is not configured
        circuits.other
      })
    // @ts-expect-error a misspelt setting of one service
    circuitBreaker({ services: { stripe: { failureTreshold: 2 } } })
    // @ts-expect-error a misspelt setting of one service among several
    circuitBreaker({ services: { paypal: {}, stripe: { resetTimeuot: 2 } } })
    // @ts-expect-error what holds for the whole breaker only
    circuitBreaker({ services: { stripe: { namespace: 'eu' } } })
    // @ts-expect-error a misspelt setting beside the map
    circuitBreaker({ services: { stripe: {} }, cacheTTL: 5 })
  },

  'a handler declared apart': () => {
    const apart = async (_event: { readonly amount: number }, context: CircuitBreakerContext<'stripe'>) => {
      // @ts-expect-error this service is not configured
      await context.callExternal('paypal', fetchCharge)
      // @ts-expect-error this service is not configured
      context.circuits.paypal
      // @ts-expect-error snapshots are read-only
      context.circuits.stripe.state = 'OPEN'
      // @ts-expect-error and so is what holds them
      context.circuits.stripe = snapshot
      return context.callExternal('stripe', fetchCharge)
    }
    middy<{ readonly amount: number }>()
      .use(circuitBreaker({ services: ['stripe'] }))
      .handler(apart)
    middy<{ readonly amount: number }>()
      .use(circuitBreaker({ services: ['stripe', 'paypal'] }))
      .handler(apart)
    middy<{ readonly amount: number }>()
      .use(circuitBreaker({ services: ['paypal'] }))
      // @ts-expect-error the handler calls a service that this breaker does not have
      .handler(apart)
  },

  'the context keeps the types of Lambda': () => {
    middy()
      .use(circuitBreaker({ services: ['stripe'] }))
      .handler(async (_event, context) => {
        assertType<string>()(context.awsRequestId)
        assertType<number>()(context.getRemainingTimeInMillis())
        assertType<false>()(false as IsAny<typeof context>)
        assertType<false>()(false as IsAny<typeof context.callExternal>)
        assertType<false>()(false as IsAny<typeof context.circuits>)
        // @ts-expect-error no such field
        context.awsRequestID
        const lambda: Context = context
        return lambda.functionName
      })
  },

  "the fallback's type joins that of the result": () => {
    const guarded = async (callExternal: CallExternal<'stripe'>) => {
      assertType<Charge | 'later'>()(await callExternal('stripe', fetchCharge, { fallback: () => 'later' as const }))
      assertType<Charge | undefined>()(await callExternal('stripe', fetchCharge, { fallback: async () => undefined }))
      assertType<Charge>()(await callExternal('stripe', fetchCharge, { timeout: 5 }))
      assertType<Charge>()(
        await callExternal('stripe', fetchCharge, {
          fallback: (error): never => {
            throw error
          },
        }),
      )
      assertType<number>()(await callExternal('stripe', () => 7))
      await callExternal('stripe', fetchCharge, {
        fallback: (error) => {
          // @ts-expect-error what was thrown is unknown until a guard has looked at it
          error.message
        },
      })
    }
    return guarded
  },

  'isBreakableResult gets the type of the result': () => {
    const guarded = async (callExternal: CallExternal<'stripe'>) => {
      await callExternal('stripe', fetchCharge, {
        isBreakableResult: (result) => {
          assertType<Charge>()(result)
          return result.busy === true
        },
      })
      await callExternal('stripe', fetchCharge, {
        // @ts-expect-error the result has no such property
        isBreakableResult: (result) => result.status === 503,
      })
    }
    return guarded
  },

  'a classifier returns a boolean or one of three words': () => {
    const guarded = async (callExternal: CallExternal<'stripe'>) => {
      await callExternal('stripe', fetchCharge, {
        isBreakableError: (error) => (error instanceof RangeError ? 'ignore' : false),
        isBreakableResult: (result) => (result.busy ? 'failure' : 'success'),
      })
      // @ts-expect-error no such word
      await callExternal('stripe', fetchCharge, { isBreakableError: () => 'ignored' })
      // @ts-expect-error nobody waits for it
      await callExternal('stripe', fetchCharge, { isBreakableError: async () => true })
    }
    return guarded
  },

  'the options of a call': () => {
    const guarded = async (callExternal: CallExternal<'stripe'>) => {
      // @ts-expect-error a misspelt option
      await callExternal('stripe', fetchCharge, { timeoutMs: 5 })
      // @ts-expect-error numbers only, or false
      await callExternal('stripe', fetchCharge, { timeout: true })
      await callExternal('stripe', ({ signal }) => fetch('https://example.com', { signal }), { timeout: false })
    }
    const options: CallOptions<Charge, string> = { fallback: () => 'later' }
    return [guarded, options]
  },

  'two breakers on one handler merge': () => {
    middy()
      .use(circuitBreaker({ services: ['stripe'] }))
      .use(circuitBreaker({ services: { paypal: {} } }))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('stripe', fetchCharge))
        assertType<Charge>()(await callExternal('paypal', fetchCharge))
        assertType<CircuitState>()(circuits.stripe.state)
        assertType<CircuitState>()(circuits.paypal.state)
        // @ts-expect-error neither has it
        await callExternal('adyen', fetchCharge)
        // @ts-expect-error neither has it
        circuits.adyen
      })
  },

  'a keyed service': () => {
    middy()
      .use(circuitBreaker({ services: { stripe: {}, crm: { keyed: { maxKeys: 10 } }, adyen: undefined } }))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('crm', fetchCharge, { key: 'acme' }))
        assertType<Charge>()(await callExternal('stripe', fetchCharge, { timeout: 5 }))
        assertType<Charge | 'later'>()(
          await callExternal('crm', fetchCharge, { key: 'acme', fallback: () => 'later' as const }),
        )
        // @ts-expect-error a call of a keyed service names a key
        await callExternal('crm', fetchCharge)
        // @ts-expect-error a call of a keyed service names a key
        await callExternal('crm', fetchCharge, { timeout: 5 })
        // @ts-expect-error a service without keys has none
        await callExternal('stripe', fetchCharge, { key: 'acme' })
        // @ts-expect-error this service is not configured
        await callExternal('cmr', fetchCharge, { key: 'acme' })
        assertType<CircuitState>()(circuits.crm.of('acme').state)
        assertType<CircuitSnapshot | undefined>()(circuits.crm.parent)
        assertType<CircuitSnapshot>()(circuits.stripe)
        // @ts-expect-error each key has a state
        circuits.crm.state
        // @ts-expect-error a service without keys has one circuit
        circuits.stripe.of('acme')
      })
    // @ts-expect-error a misspelt setting of keys
    circuitBreaker({ services: { stripe: {}, crm: { keyed: { maxKyes: 10 } } } })
    // @ts-expect-error a setting of the wrong type
    circuitBreaker({ services: { crm: { keyed: { maxKeys: '10' } } } })
    // @ts-expect-error a misspelt setting beside keyed
    circuitBreaker({ services: { crm: { keyed: {}, resetTimeuot: 5 } } })
    // @ts-expect-error each service says for itself whether it is keyed
    circuitBreaker({ services: ['crm'], keyed: {} })
  },

  'a key that is found for each invocation': () => {
    const services = { stripe: {}, crm: { keyed: {} } } as const
    middy<{ readonly customer: string }>()
      .use(circuitBreaker({ services, keyBy: (event: { readonly customer: string }) => event.customer }))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('crm', fetchCharge))
        assertType<Charge>()(await callExternal('crm', fetchCharge, { key: 'acme' }))
        assertType<Charge>()(await callExternal('crm', fetchCharge, { timeout: 5 }))
        assertType<CircuitState>()(circuits.crm.of('acme').state)
        // @ts-expect-error a service without keys has none
        await callExternal('stripe', fetchCharge, { key: 'acme' })
      })
    circuitBreaker({ services, keyBy: 'tenantId' })
    circuitBreaker(new CircuitBreaker({ services }), { keyBy: (_event, context) => context.awsRequestId })
    // @ts-expect-error Lambda has another name for it
    circuitBreaker({ services, keyBy: 'tenant' })
    // @ts-expect-error a misspelt setting beside keyBy
    circuitBreaker({ services, keyBy: 'tenantId', cacheTTL: 5 })
  },

  'handlers of keyed services that are declared apart': () => {
    const apart = async (_event: unknown, context: CircuitBreakerContext<'stripe' | 'crm', 'crm'>) =>
      context.callExternal('crm', fetchCharge, { key: context.circuits.crm.of('acme').key ?? '' })
    middy()
      .use(circuitBreaker({ services: { stripe: {}, crm: { keyed: {} } } }))
      .handler(apart)
    middy()
      .use(circuitBreaker({ services: ['stripe', 'crm'] }))
      // @ts-expect-error the service is not keyed here
      .handler(apart)
  },

  'the engine with a keyed service': () => {
    const breaker = new CircuitBreaker({ services: { stripe: {}, crm: { keyed: { parent: true } } } })
    void breaker.call('crm', fetchCharge, { key: 'acme' })
    void breaker.execute('crm', fetchCharge, { key: 'acme' })
    void breaker.executeWithErrorClassification('crm', fetchCharge, { key: 'acme' })
    void breaker.executeWithTimeout('crm', fetchCharge, 5, { key: 'acme' })
    // @ts-expect-error a call of a keyed service names a key
    void breaker.call('crm', fetchCharge)
    // @ts-expect-error a call of a keyed service names a key
    void breaker.executeWithTimeout('crm', fetchCharge, 5)
    assertType<CircuitSnapshot>()(breaker.snapshot('crm', 'acme'))
    // @ts-expect-error the snapshot of which key?
    breaker.snapshot('crm')
    void breaker.forceOpen('crm', { key: 'acme', until: 5 })
    void breaker.reset('crm', { key: 'acme' })
    // @ts-expect-error a service without keys has none
    void breaker.forceOpen('stripe', { key: 'acme' })
    // @ts-expect-error a service without keys has none
    void breaker.reset('stripe', { key: 'acme' })
    void breaker.batchGetState('crm', ['acme'])
    void breaker.batchSetState('crm', { acme: 'OPEN' })
    void breaker.batchClearState('crm', ['acme'])
    // @ts-expect-error a service without keys has none
    void breaker.batchGetState('stripe', ['acme'])
    breaker.onStateChange(({ key }) => assertType<string | undefined>()(key))
    middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal, circuits }) => {
        assertType<Charge>()(await callExternal('crm', fetchCharge, { key: 'acme' }))
        // @ts-expect-error a call of a keyed service names a key
        await callExternal('crm', fetchCharge)
        return circuits.crm.of('acme').state
      })
  },

  'why a circuit is open': () => {
    assertType<'fleet' | 'instance'>()(snapshot.scope)
    const breaker = new CircuitBreaker({ services: ['stripe'] })
    breaker.onStateChange(({ evidence, lastFailure, retryAt, functionName }) => {
      assertType<Evidence | undefined>()(evidence)
      assertType<FailureSummary | undefined>()(lastFailure)
      assertType<number | undefined>()(retryAt)
      assertType<string | undefined>()(functionName)
    })
    const error: unknown = undefined
    if (isCircuitOpenError(error)) assertType<FailureSummary | undefined>()(error.lastFailure)
    // @ts-expect-error a chance in words
    circuitBreaker({ services: ['stripe'], rampUp: 'slowly' })
  },

  'the engine': () => {
    const breaker = new CircuitBreaker({ services: ['stripe'] })
    assertType<CircuitBreaker<'stripe'>>()(breaker)
    assertType<CircuitSnapshot>()(breaker.snapshot('stripe'))
    // @ts-expect-error this service is not configured
    void breaker.call('paypal', fetchCharge)
    // @ts-expect-error this service is not configured
    void breaker.forceOpen('paypal')
    // @ts-expect-error an instant, not a text
    void breaker.forceOpen('stripe', { until: 'tomorrow' })
    // @ts-expect-error a misspelt setting
    new CircuitBreaker({ services: ['stripe'], halfOpenMaxConcurent: 2 })
    middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, { callExternal }) => {
        // @ts-expect-error this service is not configured
        await callExternal('paypal', fetchCharge)
        return callExternal('stripe', fetchCharge)
      })
  },

  'a breaker of some services fits where one of any services is asked for': () => {
    const breaker = new CircuitBreaker({ services: ['stripe'] })
    const takeBreaker = (_breaker: CircuitBreaker) => {}
    const takeContext = (_context: CircuitBreakerContext, _callExternal: CallExternal, _circuits: Circuits) => {}
    takeBreaker(breaker)
    const middleware: CircuitBreakerMiddleware = circuitBreaker(breaker)
    middy()
      .use(circuitBreaker(breaker))
      .handler(async (_event, context) => takeContext(context, context.callExternal, context.circuits))
    const generic = <K extends string>(own: CircuitBreaker<K>, key: K, callExternal: CallExternal<K>) => {
      const wrapped: CallExternal<K> = (service, operation, options) => callExternal(service, operation, options)
      takeBreaker(own)
      return [own.call(key, fetchCharge), wrapped(key, fetchCharge)]
    }
    // @ts-expect-error another service
    const ofPaypal: CircuitBreaker<'paypal'> = breaker
    // @ts-expect-error one service more
    const ofBoth: CircuitBreaker<'stripe' | 'paypal'> = breaker
    const guarded = (callExternal: CallExternal<'stripe'>, context: CircuitBreakerContext<'stripe'>) => {
      // @ts-expect-error another service
      const callsPaypal: CallExternal<'paypal'> = callExternal
      // @ts-expect-error one service more
      const contextOfBoth: CircuitBreakerContext<'stripe' | 'paypal'> = context
      // @ts-expect-error a misspelt key
      void callExternal('stripee', fetchCharge)
      return [callsPaypal, contextOfBoth]
    }
    return [middleware, generic, ofPaypal, ofBoth, guarded]
  },

  'the breaker of another copy of the package': () => {
    // The types of its private fields are others.
    type OfAnotherCopy = { [Name in keyof CircuitBreaker<'stripe'>]: CircuitBreaker<'stripe'>[Name] }
    const use = (breaker: OfAnotherCopy) =>
      middy()
        .use(circuitBreaker(breaker))
        .handler(async (_event, { callExternal }) => {
          // @ts-expect-error this service is not configured
          await callExternal('paypal', fetchCharge)
          return callExternal('stripe', fetchCharge)
        })
    return use
  },

  'a test of a handler': () => {
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'] }))
      .handler(async (_event, { callExternal }) => callExternal('stripe', fetchCharge))
    return handler({}, createTestContext())
  },

  'options that are declared apart': () => {
    const options: CircuitBreakerOptions<'stripe'> = { services: ['stripe'], resetTimeout: undefined }
    const services: readonly string[] = ['stripe']
    assertType<CircuitBreaker<string>>()(new CircuitBreaker({ services }))
    return new CircuitBreaker(options)
  },
}

describe('the types', () => {
  it.each(Object.keys(claims))('are checked by tsc: %s', (claim) => {
    expect(claims).toHaveProperty([claim])
  })
})
