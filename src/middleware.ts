/**
 * The Middy middleware: loads before the handler, hands it `callExternal` and `circuits`, stores after it.
 *
 * @module
 */

import type { MiddlewareObj, Request } from '@middy/core'
import type { Context } from 'aws-lambda'
import { brand } from './brand.ts'
import type { CallExternal } from './call/call-external.ts'
import type { Invocation } from './call/invocation.ts'
import type { Circuits } from './circuit/snapshot.ts'
import { CircuitBreaker } from './circuit-breaker.ts'
import { UnknownServiceError } from './errors.ts'
import type { CircuitBreakerOptions } from './settings/table.ts'

/**
 * A Lambda context as the handler gets it; annotate handlers with it that are declared apart from `middy()`.
 *
 * @example
 * const charge = async (event: Event, { callExternal }: CircuitBreakerContext<'stripe'>) => …
 */
export type CircuitBreakerContext<K extends string = string> = Context & CircuitBreakerProperties<K>

/** The additions of the middleware to the context. */
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

/** A `CircuitBreaker`, also one whose class is that of another copy of this package. */
type AnyBreaker<K extends string> = Pick<CircuitBreaker<K>, 'call' | 'services' | 'circuits' | 'load' | 'flush'>

/** The share of one breaker in an invocation. */
interface Member {
  readonly breaker: CircuitBreaker
  readonly call: CallExternal
  readonly invocation: Invocation
}

/**
 * The breakers that share a context are kept with the `callExternal` in it: a context may pass several breakers, also of another
 * copy of this package, and in tests several times the same one. A `WeakMap` by context would cost as much as the rest of the
 * middleware.
 */
const members: unique symbol = Symbol.for('middy-circuit-breaker members')

type SharedCall = CallExternal & { [members]?: readonly Member[] }

// The compiler reports a mistake for the last overload: the one with the options.

/** Makes the middleware of a `CircuitBreaker` that is shared with code outside the handler. */
export function circuitBreaker<const K extends string>(breaker: AnyBreaker<K>): CircuitBreakerMiddleware<K>
/**
 * Makes the middleware. Two of them on one handler merge: the services of both work, and for a key that both have the
 * later one counts.
 *
 * @param options the settings
 * @throws {ConfigurationError} naming every problem of the options and of the environment at once
 * @example
 * export const handler = middy()
 *   .use(circuitBreaker({ services: ['stripe'] }))
 *   .handler(async (event, { callExternal, circuits }) => …)
 */
export function circuitBreaker<const K extends string>(options: CircuitBreakerOptions<K>): CircuitBreakerMiddleware<K>
export function circuitBreaker<const K extends string>(
  options: CircuitBreakerOptions<K> | AnyBreaker<K>,
): CircuitBreakerMiddleware<K> {
  const breaker: CircuitBreaker = isCircuitBreaker(options) ? options : new CircuitBreaker(options)

  const circuitBreakerBefore = (request: MiddyRequest): Promise<void> | undefined => {
    const invocation = extend(request.context, breaker)
    return breaker.needsLoadAt(invocation.startedAt) ? breaker.load(invocation.timeLeft()) : undefined
  }
  const circuitBreakerAfter = (request: MiddyRequest): Promise<void> | undefined => {
    const member = membersOf(request.context).find((each) => each.breaker === breaker)
    return breaker.endInvocation(member?.invocation, request.response)
  }
  const circuitBreakerOnError = circuitBreakerAfter
  return {
    before: circuitBreakerBefore,
    after: circuitBreakerAfter,
    onError: circuitBreakerOnError,
  } as unknown as CircuitBreakerMiddleware<K>
}

function isCircuitBreaker<Other>(value: CircuitBreaker | Other): value is CircuitBreaker {
  return brand in Object(value)
}

type MiddyRequest = Pick<Request, 'context' | 'response'>

type Extended = { -readonly [Name in keyof CircuitBreakerProperties]: CircuitBreakerProperties[Name] }

const none: readonly Member[] = []

function membersOf(context: object): readonly Member[] {
  return (context as { readonly callExternal?: SharedCall | null }).callExternal?.[members] ?? none
}

function extend(context: object, breaker: CircuitBreaker): Invocation {
  const invocation = breaker.beginInvocation(context)
  const call: SharedCall = breaker.callExternalFor(invocation)
  const present = membersOf(context)
  const others = present === none ? none : present.filter((member) => member.breaker !== breaker)
  // A breaker that comes again comes last.
  const all = [...others, { breaker, call, invocation }]
  const extended = context as Extended
  if (others.length === 0) {
    call[members] = all
    extended.callExternal = call
    extended.circuits = breaker.circuits
  } else {
    Object.assign(extended, merge(all))
  }
  return invocation
}

function merge(all: readonly Member[]): Extended {
  const circuits: Record<string, Circuits[string]> = Object.create(null)
  const calls = new Map<string, CallExternal>()
  for (const { breaker, call } of all) {
    Object.assign(circuits, breaker.circuits)
    for (const service of breaker.services) calls.set(service, call)
  }
  const callExternal: SharedCall = async (service, operation, options) => {
    const call = calls.get(service)
    if (call === undefined) throw new UnknownServiceError(service, calls.keys())
    return call(service, operation, options)
  }
  callExternal[members] = all
  return { callExternal, circuits: Object.freeze(circuits) }
}
