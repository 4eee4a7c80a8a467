/**
 * The Middy middleware: loads before the handler, hands it `callExternal` and `circuits`, stores after it.
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
 * A Lambda context as the handler gets it; annotate handlers with it that are declared apart from `middy()`.
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
 * The additions of the middleware to the context. `K` are the services, `D` those among them that are keyed, and `O` the keyed
 * ones whose calls need not name a key, because the middleware was given `keyBy`.
 */
export interface CircuitBreakerProperties<
  K extends string = string,
  D extends string = never,
  O extends string = never,
> {
  /** Runs an operation under the circuit of a service. */
  readonly callExternal: CallExternal<K, D, O>
  /** The live snapshots of the circuits, by service key; of a keyed service, `of(key)`. */
  readonly circuits: Circuits<K, D>
}

/**
 * The addition of the middleware to `request.internal`: other middlewares find the circuits there, also with `getInternal` of
 * `@middy/util`.
 *
 * @example
 * const { state } = await getInternal({ state: 'circuits.stripe.state' }, request)
 */
export type Internal<K extends string = string, D extends string = never> = {
  /** The same as in the context of the handler. */
  readonly circuits: Circuits<K, D>
}

/** The middleware, for `middy().use(…)`. An interface, so that the declarations of other packages can name it. */
export interface CircuitBreakerMiddleware<K extends string = string, D extends string = never, O extends string = never>
  // biome-ignore lint/suspicious/noExplicitAny: Middy's own type of a result that a middleware does not touch.
  extends MiddlewareObj<unknown, any, Error, CircuitBreakerContext<K, D, O>, Internal<K, D>> {}

/** A `CircuitBreaker`, also one whose class is that of another copy of this package. */
type AnyBreaker<K extends string, T, D extends string> = Pick<
  CircuitBreaker<K, T, D>,
  'call' | 'services' | 'circuits' | 'load' | 'flush'
>

/**
 * Finds the key of the calls of keyed services that name none: by the event and the context, at the first such call of an
 * invocation. `'tenantId'` is Lambda's own tenant id, of functions with tenant isolation. A call fails with a
 * `ConfigurationError` where it finds no text, and with the error that it throws.
 */
export type KeyBy =
  /** Lambda's own tenant id: `tenantId` of the context. */
  | 'tenantId'
  // biome-ignore lint/suspicious/noExplicitAny: The event has the type that the handler says.
  | ((event: any, context: Context) => string)

/** The options of the middleware that the breaker has no use of. */
export interface KeyByOption {
  /** Default: each call of a keyed service names its key. */
  readonly keyBy: KeyBy
}

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

/** Makes the middleware of a `CircuitBreaker` that is shared with code outside the handler, with keys found by `keyBy`. */
export function circuitBreaker<const K extends string, T, D extends string>(
  breaker: AnyBreaker<K, T, D>,
  options: KeyByOption,
): CircuitBreakerMiddleware<K, D, D>
/** Makes the middleware of a `CircuitBreaker` that is shared with code outside the handler. */
export function circuitBreaker<const K extends string, T, D extends string>(
  breaker: AnyBreaker<K, T, D>,
): CircuitBreakerMiddleware<K, D>
/** Makes the middleware, with keys found by `keyBy`. */
export function circuitBreaker<const K extends string, T = NoKeys>(
  options: CircuitBreakerOptions<K, T> & MiddyOptions & KeyByOption,
): CircuitBreakerMiddleware<K, KeyedServices<K, T>, KeyedServices<K, T>>
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
 * Checks the options of the middleware, and the environment's settings, without making anything. Every package of Middy has
 * such a function; this one throws this package's own error. Returns the options.
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
  // A breaker that comes again comes last.
  const all = [...others, { breaker, call, invocation }]
  const extended = context as unknown as Extended
  if (others.length === 0) {
    call[members] = all
    extended.callExternal = call
    extended.circuits = breaker.circuits
  } else {
    Object.assign(extended, merge(all))
  }
  // Absent where somebody calls the hook without Middy.
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
