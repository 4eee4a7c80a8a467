/**
 * The Middy middleware: reads circuits before the handler, gives the handler `callExternal` and `circuits`, and stores outcomes after it.
 *
 * @module
 */

import type { Context } from 'aws-lambda'
import { brand } from './brand.ts'
import type { CallExternal } from './call/call-external.ts'
import type { Invocation } from './call/invocation.ts'
import type { Circuits } from './circuit/snapshot.ts'
import { CircuitBreaker } from './circuit-breaker.ts'
import { UnknownServiceError } from './errors.ts'
import type { MiddlewareObj, Request } from './middy.ts'
import { fromMiddy, keyByRules, type MiddyOptions } from './settings/middy-options.ts'
import { refuseWrongOptions } from './settings/option-rules.ts'
import { resolveConfig } from './settings/resolve.ts'
import type { CircuitBreakerOptions, KeyedServices, NoKeys } from './settings/table.ts'

/**
 * The Lambda context of the handler. Annotate a handler with it if the handler is declared apart from `middy()`.
 *
 * @example
 * const charge = async (event: Event, { callExternal }: CircuitBreakerContext<'stripe'>) => …
 */
export type CircuitBreakerContext<
  K extends string = string,
  D extends string = never,
  O extends string = never,
> = Context & CircuitBreakerProperties<K, D, O>

/**
 * The additions of the middleware to the context. `K` are the services, `D` the keyed services among them, and `O` the keyed
 * services whose calls need no key, because the middleware has `keyBy`.
 */
export interface CircuitBreakerProperties<
  K extends string = string,
  D extends string = never,
  O extends string = never,
> {
  /** Runs an operation under the circuit of a service. */
  readonly callExternal: CallExternal<K, D, O>
  /** The live snapshots of the circuits, by service key. A keyed service has `of(key)`. */
  readonly circuits: Circuits<K, D>
}

/**
 * The addition of the middleware to `request.internal`. Other middlewares find the circuits there, also with `getInternal` of
 * `@middy/util`.
 *
 * @example
 * const { state } = await getInternal({ state: 'circuits.stripe.state' }, request)
 */
export type Internal<K extends string = string, D extends string = never> = {
  /** The same as in the context of the handler. */
  readonly circuits: Circuits<K, D>
}

/** The middleware, for `middy().use(…)`. */
export interface CircuitBreakerMiddleware<K extends string = string, D extends string = never, O extends string = never>
  // biome-ignore lint/suspicious/noExplicitAny: Middy's own type of a result that a middleware does not touch.
  extends MiddlewareObj<unknown, any, Error, CircuitBreakerContext<K, D, O>, Internal<K, D>> {}

/** A `CircuitBreaker`, whose class may belong to another copy of this package. */
type AnyBreaker<K extends string, T, D extends string> = Pick<
  CircuitBreaker<K, T, D>,
  'call' | 'services' | 'circuits' | 'load' | 'flush'
>

/**
 * Finds the key for calls of keyed services that name no key. It runs at the first such call of an invocation, and gets the event
 * and the context. `'tenantId'` is Lambda's own tenant id, for functions with tenant isolation. If the result is not a text, the
 * call fails with a `ConfigurationError`. If the function throws, the call fails with its error.
 */
export type KeyBy =
  /** Lambda's own tenant id: `tenantId` of the context. */
  | 'tenantId'
  // biome-ignore lint/suspicious/noExplicitAny: The event has the type that the handler says.
  | ((event: any, context: Context) => string)

/** The options of the middleware that the breaker itself does not use. */
export interface KeyByOption {
  /** Default: each call of a keyed service names its key. */
  readonly keyBy: KeyBy
}

/** One breaker in an invocation. */
interface Member {
  readonly breaker: CircuitBreaker
  readonly call: CallExternal
  readonly invocation: Invocation
}

/**
 * The key under which `callExternal` keeps the breakers that share its context. A context may pass several breakers, also of
 * another copy of this package, and in tests the same breaker several times. A `WeakMap` by context would cost as much as the rest
 * of the middleware.
 */
const members: unique symbol = Symbol.for('middy-circuit-breaker members')

type SharedCall = CallExternal & { [members]?: readonly Member[] }

// The compiler reports a mistake for the last overload, so the last one takes the options.

/** Makes the middleware of a `CircuitBreaker` that code outside the handler shares. `keyBy` finds the keys of its calls. */
export function circuitBreaker<const K extends string, T, D extends string>(
  breaker: AnyBreaker<K, T, D>,
  options: KeyByOption,
): CircuitBreakerMiddleware<K, D, D>
/** Makes the middleware of a `CircuitBreaker` that code outside the handler shares. */
export function circuitBreaker<const K extends string, T, D extends string>(
  breaker: AnyBreaker<K, T, D>,
): CircuitBreakerMiddleware<K, D>
/** Makes the middleware. `keyBy` finds the keys of its calls. */
export function circuitBreaker<const K extends string, T = NoKeys>(
  options: CircuitBreakerOptions<K, T> & MiddyOptions & KeyByOption,
): CircuitBreakerMiddleware<K, KeyedServices<K, T>, KeyedServices<K, T>>
/**
 * Makes the middleware. Two middlewares on one handler merge: the services of both work. If both have the same service key, the
 * later middleware wins.
 *
 * @param options the settings
 * @throws {ConfigurationError} naming every problem of the options and of the environment at once
 * @example
 * export const handler = middy()
 *   .use(circuitBreaker({ services: ['stripe'] }))
 *   .handler(async (event, { callExternal, circuits }) => …)
 */
export function circuitBreaker<const K extends string, T = NoKeys>(
  options: CircuitBreakerOptions<K, T> & MiddyOptions,
): CircuitBreakerMiddleware<K, KeyedServices<K, T>>
export function circuitBreaker(
  // biome-ignore lint/suspicious/noExplicitAny: The overloads say what it is.
  options: any,
  given: Partial<KeyByOption> = {},
  // biome-ignore lint/suspicious/noExplicitAny: The overloads say what it is.
): any {
  const isBreaker = isCircuitBreaker(options)
  if (isBreaker) refuseWrongOptions(keyByRules, given)
  const { keyBy } = (isBreaker ? given : Object(options)) as Partial<KeyByOption>
  const { settings, role } = isBreaker ? {} : fromMiddy(options, process.env)
  const breaker: CircuitBreaker = isBreaker ? (options as CircuitBreaker) : new CircuitBreaker(settings)

  const circuitBreakerBefore = (request: MiddyRequest): Promise<void> | undefined => {
    if (role !== undefined) role.internal = request.internal
    const invocation = extend(request, breaker, keyBy)
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
  }
}

/**
 * Checks the options of the middleware and the settings in the environment, without making a breaker. Returns the options. Every
 * package of Middy has such a function; this function throws the error of this package.
 *
 * @throws {ConfigurationError} naming every problem at once
 */
export function circuitBreakerValidateOptions<const O>(options: O): O {
  const { settings } = fromMiddy(options as CircuitBreakerOptions, process.env)
  resolveConfig(settings, process.env)
  return options
}

function isCircuitBreaker<Other>(value: CircuitBreaker | Other): value is CircuitBreaker {
  return brand in Object(value)
}

type MiddyRequest = Pick<Request, 'event' | 'context' | 'response'> & { internal?: Record<string, unknown> }

type Extended = { -readonly [Name in keyof CircuitBreakerProperties]: CircuitBreakerProperties[Name] }

const none: readonly Member[] = []

function membersOf(context: object): readonly Member[] {
  return (context as { readonly callExternal?: SharedCall | null }).callExternal?.[members] ?? none
}

function keyOf(keyBy: KeyBy, { event, context }: MiddyRequest): unknown {
  return keyBy === 'tenantId' ? (context as Context).tenantId : keyBy(event, context as Context)
}

function extend(request: MiddyRequest, breaker: CircuitBreaker, keyBy: KeyBy | undefined): Invocation {
  const { context } = request
  const invocation = breaker.beginInvocation(context, keyBy && (() => keyOf(keyBy, request)))
  const call: SharedCall = breaker.callExternalFor(invocation)
  const present = membersOf(context)
  const others = present === none ? none : present.filter((member) => member.breaker !== breaker)
  // A breaker that comes again moves to the end.
  const all = [...others, { breaker, call, invocation }]
  const extended = context as unknown as Extended
  if (others.length === 0) {
    call[members] = all
    extended.callExternal = call
    extended.circuits = breaker.circuits
  } else {
    Object.assign(extended, merge(all))
  }
  // Absent if the hook is called without Middy.
  if (request.internal) request.internal.circuits = extended.circuits
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
