/**
 * The Middy middleware: loads before the handler, hands it `callExternal` and `circuits`, stores after it.
 *
 * @module
 */

import type { MiddlewareObj, Request } from '@middy/core'
import type { Context } from 'aws-lambda'
import type { Invocation } from './call-timeout.ts'
import { type CallExternal, CircuitBreaker, type Circuits } from './circuit-breaker.ts'
import type { CircuitBreakerOptions } from './config.ts'
import { UnknownServiceError } from './errors.ts'

/**
 * A Lambda context as the handler gets it; annotate handlers with it that are declared apart from `middy()`.
 *
 * @example
 * const charge = async (event: Event, { callExternal }: CircuitBreakerContext<'stripe'>) => …
 */
export type CircuitBreakerContext<K extends string = string> = Context & CircuitBreakerProperties<K>

/** What the middleware adds to the context. */
export interface CircuitBreakerProperties<K extends string = string> {
  /** Runs an operation under the circuit of a service. */
  readonly callExternal: CallExternal<K>
  /** The live snapshots of the circuits, by service key. */
  readonly circuits: Circuits<K>
}

/** The middleware, for `middy().use(…)`. */
export type CircuitBreakerMiddleware<K extends string = string> = MiddlewareObj<
  unknown,
  // biome-ignore lint/suspicious/noExplicitAny: Middy's own type of a result that a middleware does not touch.
  any,
  Error,
  CircuitBreakerContext<K>
>

/** The breakers of one context, with what each has begun for the current invocation. */
type Members = Map<CircuitBreaker, { readonly call: CallExternal; readonly invocation: Invocation }>

/** A context may pass several breakers, and in tests several times the same one. */
const membersOf = new WeakMap<object, Members>()

/**
 * Makes the middleware. Two of them on one handler merge: the services of both work, and for a key that both have the
 * later one counts.
 *
 * @param options the settings, or a `CircuitBreaker` to share with code outside the handler
 * @throws {ConfigurationError} naming every problem of the options and of the environment at once
 * @example
 * export const handler = middy()
 *   .use(circuitBreaker({ services: ['stripe'] }))
 *   .handler(async (event, { callExternal, circuits }) => …)
 */
export function circuitBreaker<const K extends string>(options: CircuitBreakerOptions<K>): CircuitBreakerMiddleware<K>
export function circuitBreaker<const K extends string>(breaker: CircuitBreaker<K>): CircuitBreakerMiddleware<K>
export function circuitBreaker<const K extends string>(
  options: CircuitBreakerOptions<K> | CircuitBreaker<K>,
): CircuitBreakerMiddleware<K> {
  const breaker = (options instanceof CircuitBreaker
    ? options
    : new CircuitBreaker(options)) as unknown as CircuitBreaker

  const circuitBreakerBefore = (request: MiddyRequest): Promise<void> | undefined => {
    const invocation = extend(request.context, breaker)
    return breaker.needsLoad ? breaker.load(invocation.timeLeft()) : undefined
  }
  const circuitBreakerAfter = (request: MiddyRequest): Promise<void> | undefined => {
    return breaker.endInvocation(membersOf.get(request.context)?.get(breaker)?.invocation)
  }
  const circuitBreakerOnError = circuitBreakerAfter
  return {
    before: circuitBreakerBefore,
    after: circuitBreakerAfter,
    onError: circuitBreakerOnError,
  } as unknown as CircuitBreakerMiddleware<K>
}

type MiddyRequest = Pick<Request, 'context'>

type Extended = { -readonly [Name in keyof CircuitBreakerProperties]: CircuitBreakerProperties[Name] }

function extend(context: object, breaker: CircuitBreaker): Invocation {
  const invocation = breaker.beginInvocation(context)
  const call = breaker.callExternalFor(invocation)
  let members = membersOf.get(context)
  if (members === undefined) {
    members = new Map()
    membersOf.set(context, members)
  }
  // A breaker that comes again comes last.
  members.delete(breaker)
  members.set(breaker, { call, invocation })
  Object.assign(context, members.size === 1 ? { callExternal: call, circuits: breaker.circuits } : merge(members))
  return invocation
}

function merge(members: Members): Extended {
  const circuits: Record<string, Circuits[string]> = Object.create(null)
  const calls = new Map<string, CallExternal>()
  for (const [breaker, { call }] of members) {
    Object.assign(circuits, breaker.circuits)
    for (const service of breaker.services) calls.set(service, call)
  }
  const callExternal: CallExternal = async (service, operation, options) => {
    const call = calls.get(service)
    if (call === undefined) throw new UnknownServiceError(service, calls.keys())
    return call(service, operation, options)
  }
  return { callExternal, circuits: Object.freeze(circuits) }
}
