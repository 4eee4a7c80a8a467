/**
 * All settings with their types, defaults and rules.
 *
 * @module
 */

import type { StateChangeListener, StorageErrorListener } from '../events.ts'
import { isBreakableError, isBreakableResult, type Outcome } from '../failures/classification.ts'
import type { StorageOption } from '../storage/factory.ts'
import { isText, textAllowed } from './problems.ts'
import { callback, factor, flag, milliseconds, oneOf, type Setting, whole } from './rules.ts'

/** How a breaker treats the calls of a service. */
export type Mode =
  /** Refuses calls while the circuit is open. */
  | 'enforce'
  /** Counts, stores and reports, but never refuses. */
  | 'observe'
  /** Lets all calls pass straight through. */
  | 'off'

/**
 * Classifies an error of an operation.
 *
 * - `true`, `'failure'`: the error counts as a failure of the service.
 * - `'success'`: the service works, and the error is its answer. A probe succeeds, and failures in a row end. The caller still
 *   gets the error.
 * - `'ignore'`: the error counts neither as a failure nor as a success.
 * - `false`: the error is not a failure. The default classifier decides between a success (a 404) and `'ignore'` (a bug, an
 *   abort). An error that the default would count as a failure is ignored.
 *
 * Any other truthy value counts as `true`, any other falsy value as `false`. If the classifier throws or returns a promise, the
 * default classifier decides. A warning says so once for each service.
 */
export type IsBreakableError = (error: unknown) => boolean | Outcome

/**
 * Classifies a result of an operation, like {@link IsBreakableError}. One value differs: `false` is a success, but a response with
 * the status 408, 425 or 429 is ignored.
 */
export type IsBreakableResult<T = unknown> = (result: T) => boolean | Outcome

/** The settings of a service that has a circuit for each key. */
export interface KeyedSettings {
  /**
   * How many keys an instance keeps at once, and how many may fail within a `window` before all further keys share one circuit.
   * Default: 1000.
   */
  readonly maxKeys: number
  /** Whether a circuit for the whole service guards the calls of its keys as well. Default: `false`. */
  readonly parent: boolean
}

/**
 * The complete settings of one service. Times are milliseconds. `docs/use/settings.md` lists the variable and the allowed values
 * of each setting.
 */
export interface ServiceSettings {
  /**
   * An instance refuses its own calls after this many failures in a row. The fleet opens the circuit when failures outnumber
   * successes by this many, weighed by `failureRateThreshold`. Default: 3.
   */
  readonly failureThreshold: number
  /** The share of calls that must fail, in per cent, counted from the first failure on; 100: all calls. Default: 50. */
  readonly failureRateThreshold: number
  /** How long a circuit stays open before it allows a probe, in milliseconds. At most `maxResetTimeout`. Default: 10 000. */
  readonly resetTimeout: number
  /** How many probes must succeed before the circuit closes. Default: 1. */
  readonly halfOpenSuccessThreshold: number
  /** How many probes the fleet may have in flight at once, 1000 at most. Default: 1. */
  readonly halfOpenMaxConcurrent: number
  /** Calls in flight at once, for each instance and service. Further calls wait. Default: 10. */
  readonly maxConcurrent: number
  /** How many calls may wait. Further ones get a `ConcurrencyLimitError`. Default: `false`, no limit. */
  readonly maxQueue: number | false
  /** How long an instance trusts the state that it has read, in milliseconds; 0: every invocation reads. Default: 5000. */
  readonly cacheTtl: number
  /** The longest a call may take, in milliseconds. The Lambda deadline bounds every call as well. Default: `false`, only the deadline does. */
  readonly timeout: number | false
  /** Time reserved before the Lambda deadline to record a timed-out call and to respond, in milliseconds. Default: 1000. */
  readonly deadlineReserve: number
  /**
   * Failures that are further apart than this, in milliseconds, are not counted together. The distance runs from the end of one
   * call to the beginning of the next. A suspicion lasts no longer than this. A day at most. Default: 60 000.
   */
  readonly window: number
  /**
   * The longest a circuit may stay open before a probe, in milliseconds, even if `Retry-After` asks for more. Default: 300 000.
   */
  readonly maxResetTimeout: number
  /**
   * Each time the circuit opens again, `resetTimeout` is multiplied by this, give or take 10 %, up to `maxResetTimeout`; 1:
   * `resetTimeout` stays the same. Default: 2.
   */
  readonly resetBackoff: number
  /** A success that took longer than this, in milliseconds, counts as a failure. The call goes on. Default: `false`, no limit. */
  readonly slowCallThreshold: number | false
  /**
   * How long after closing a circuit admits only a part of the calls, in milliseconds: 10 % at first, 100 % at the end.
   * Default: `false`, all calls at once.
   */
  readonly rampUp: number | false
  /** Whether calls are refused, only counted, or neither. Default: `enforce`. */
  readonly mode: Mode
  /** A circuit for each key, for keys that are not known up front. Default: the service has one circuit. */
  readonly keyed: KeyedSettings | undefined
  /** Says which errors count as failures. Default: the exported `isBreakableError`. */
  readonly isBreakableError: IsBreakableError
  /** Says which results count as failures. Default: the exported `isBreakableResult`. */
  readonly isBreakableResult: IsBreakableResult
}

/** The settings for all services together or for a single service. `undefined` counts as not set. */
export type SharedOptions = {
  readonly [Name in Exclude<keyof ServiceSettings, 'keyed'>]?: ServiceSettings[Name] | undefined
}

/** The settings of the keys of a service. */
export type KeyedOptions = { readonly [Name in keyof KeyedSettings]?: KeyedSettings[Name] | undefined }

/** The settings of a single service. `undefined` counts as not set. */
export interface ServiceOptions extends SharedOptions {
  /** A circuit for each key, for keys that are not known up front. Default: the service has one circuit. */
  readonly keyed?: KeyedOptions | undefined
}

/** No service is keyed. */
export type NoKeys = Record<never, never>

/** Infers which services of a map are keyed: `T` has the `keyed` of each. */
type KeyedIn<T> = {
  readonly [Key in keyof T]:
    | {
        readonly keyed?: (T[Key] & { readonly [Name in Exclude<keyof T[Key], keyof KeyedOptions>]: never }) | undefined
      }
    | undefined
}

/** The keyed services among `K`. `T` has the `keyed` of each. */
export type KeyedServices<K extends string, T> = [keyof T] extends [never]
  ? never
  : T extends readonly unknown[]
    ? never
    : { [Key in K]: Key extends keyof T ? (T[Key] extends object ? Key : never) : never }[K]

/**
 * The options of a breaker. A service's own setting overrides the setting for all services. At the same level an environment
 * variable overrides an option. The compiler infers `T`, the `keyed` of each service.
 *
 * @example
 * const options: CircuitBreakerOptions<'stripe' | 'paypal'> = {
 *   services: { stripe: { failureThreshold: 2 }, paypal: {} },
 *   resetTimeout: 30_000,
 * }
 */
export interface CircuitBreakerOptions<K extends string = string, T = NoKeys> extends SharedOptions {
  /** The services to guard: a list of keys, or an object from key to that service's own settings. */
  readonly services: readonly K[] | ({ readonly [Key in K]: ServiceOptions | undefined } & KeyedIn<T>)
  /**
   * The store of the state. Default: the store that `CIRCUIT_BREAKER_STORAGE`, `CIRCUIT_BREAKER_TABLE_NAME` or
   * `CIRCUIT_BREAKER_REDIS_URL` names; without these variables, memory. In Lambda, memory is not a default: choose `'memory'`.
   */
  readonly storage?: StorageOption | undefined
  /** A prefix of the stored keys: breakers with the same namespace, service key and store share a circuit. Default: none. */
  readonly namespace?: string | undefined
  /** The longest that one request to the store may delay a call, in milliseconds. Default: 500. */
  readonly storageTimeout?: number | undefined
  /**
   * In Lambda, the client library of the store begins to load as soon as the breaker is made. At that time the function starts
   * and has a whole processor. No request is sent. `false`: the first invocation loads the library. Default: `true`.
   */
  readonly preload?: boolean | undefined
  /**
   * The breaker reads the circuits as soon as it is made. Lambda does not wait for this read. To read the circuits before the
   * first invocation, use `await breaker.load()`. Default: `false`.
   */
  readonly prefetch?: boolean | undefined
  /**
   * Whether each transition is also written to a journal in the store. No call waits for the journal. A store of your own may
   * have no journal. Default: `true`.
   */
  readonly journal?: boolean | undefined
  /** Called when a circuit changes its state. */
  readonly onStateChange?: StateChangeListener | undefined
  /** Called when the store fails. */
  readonly onStorageError?: StorageErrorListener | undefined
}

/** A limit of a call up to this many milliseconds was probably meant in seconds. */
export const secondsOfCalls = 30

/** The settings that a single service can have. */
export const serviceSettings: Readonly<Record<keyof SharedOptions, Setting>> = {
  failureThreshold: whole(3, 1),
  failureRateThreshold: whole(50, 1, 100, 'of per cent '),
  resetTimeout: milliseconds(10_000, 1, 120),
  halfOpenSuccessThreshold: whole(1, 1),
  // A stored record with more leases counts as damaged.
  halfOpenMaxConcurrent: whole(1, 1, 1_000),
  maxConcurrent: whole(10, 1),
  maxQueue: whole(false, 0),
  cacheTtl: milliseconds(5_000, 0, 60),
  timeout: milliseconds(false, 1, secondsOfCalls),
  deadlineReserve: milliseconds(1_000, 0, 10),
  // A store keeps a record for two days after it was last replaced.
  window: milliseconds(60_000, 1, 900, 86_400_000),
  maxResetTimeout: milliseconds(300_000, 1, 900),
  resetBackoff: factor(2, 1, 10),
  slowCallThreshold: milliseconds(false, 1, secondsOfCalls),
  rampUp: milliseconds(false, 1, 120),
  mode: oneOf('enforce', 'observe', 'off'),
  isBreakableError: callback(isBreakableError),
  isBreakableResult: callback(isBreakableResult),
}

/** The settings that the keys of a service can have. */
export const keyedSettings: Readonly<Record<keyof KeyedSettings, Setting>> = {
  maxKeys: whole(1_000, 1, 1_000_000),
  // No variable: whether all keys have the same provider does not depend on the deployment.
  parent: { default: false, allowed: 'true or false', accepts: (value) => typeof value === 'boolean' },
}

/** The names of the settings of the whole breaker. */
export type BreakerSetting =
  | 'namespace'
  | 'storageTimeout'
  | 'preload'
  | 'prefetch'
  | 'journal'
  | 'onStateChange'
  | 'onStorageError'

/** The settings of the whole breaker. */
export const breakerSettings: Readonly<Record<BreakerSetting, Setting>> = {
  namespace: { default: undefined, allowed: textAllowed, accepts: isText, fromText: (text: string) => text },
  storageTimeout: milliseconds(500, 1, 10),
  preload: flag(true),
  prefetch: flag(false),
  journal: flag(true),
  onStateChange: callback(),
  onStorageError: callback(),
}

/** All settings by name, except the settings of keys. */
export const settings: Readonly<Record<string, Setting>> = { ...serviceSettings, ...breakerSettings }

/** The options that cannot be set for a single service. */
export const breakerOptions: readonly string[] = ['services', 'storage', ...Object.keys(breakerSettings)]
