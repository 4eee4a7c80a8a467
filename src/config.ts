/**
 * Settings: defaults, environment variables, validation.
 *
 * The more specific wins, and at the same level the environment wins over code: per-service variable › per-service
 * option › variable › option › default.
 *
 * @module
 */

import {
  describe,
  type Environment,
  hint,
  isObject,
  isText,
  nearest,
  Problems,
  quote,
  textAllowed,
  textOf,
} from './configuration-problems.ts'
import { isBreakableError, isBreakableResult } from './error-classification.ts'
import type { StateChangeListener, StorageErrorListener } from './events.ts'
import type { ICircuitStorage } from './storage/circuit-storage.ts'
import { resolveStorage, type StorageConfig, type StorageOption, storageVariables } from './storage/factory.ts'

/** `enforce`: refuses calls. `observe`: counts, stores and reports, never refuses. `off`: calls pass straight through. */
export type Mode = 'enforce' | 'observe' | 'off'

/** Whether an error says that the service is unwell, and so counts as a failure. */
export type IsBreakableError = (error: unknown) => boolean

/** Whether a result says that the service is unwell, and so counts as a failure. */
export type IsBreakableResult = (result: unknown) => boolean

/** The settings of one service, complete. Times are milliseconds. */
export interface ServiceSettings {
  /** Consecutive failures, fleet-wide, that open the circuit. Default: 3. */
  readonly failureThreshold: number
  /** How long the circuit stays open before a probe is allowed, in milliseconds. Default: 10 000. */
  readonly resetTimeout: number
  /** Probe successes that close the circuit. Default: 1. */
  readonly halfOpenSuccessThreshold: number
  /** Probes in flight at once, fleet-wide, 1000 at most. Default: 1. */
  readonly halfOpenMaxConcurrent: number
  /** Calls in flight at once, per instance and service; the rest wait their turn. Default: 10. */
  readonly maxConcurrent: number
  /** How many calls may wait; beyond it a call is refused. Default: `false`, unlimited. */
  readonly maxQueue: number | false
  /** How long loaded state is trusted, in milliseconds; 0: it is read in every invocation. Default: 5000. */
  readonly cacheTtl: number
  /** The longest a call may take, in milliseconds. Default: `false`, bounded by the Lambda deadline only. */
  readonly timeout: number | false
  /** Kept back from the Lambda deadline to record a cut call and to answer, in milliseconds. Default: 1000. */
  readonly deadlineReserve: number
  /** Failures further apart than this are no streak, in milliseconds, a day at most. Default: 60 000. */
  readonly window: number
  /** No circuit stays open longer than this, whatever stored it or `Retry-After` asked for, in ms. Default: 300 000. */
  readonly maxResetTimeout: number
  /** Default: `enforce`. */
  readonly mode: Mode
  /** Which errors count as failures. Default: the exported `isBreakableError`. */
  readonly isBreakableError: IsBreakableError
  /** Which results count as failures. Default: the exported `isBreakableResult`. */
  readonly isBreakableResult: IsBreakableResult
}

/** What can be set for one service, and for all of them; what is `undefined` is not set. */
export type ServiceOptions = { readonly [Name in keyof ServiceSettings]?: ServiceSettings[Name] | undefined }

/**
 * The options of a breaker. A service's own settings win over those given here for all services, and at the same level
 * an environment variable wins over an option.
 *
 * @example
 * const options: CircuitBreakerOptions<'stripe' | 'paypal'> = {
 *   services: { stripe: { failureThreshold: 2 }, paypal: {} },
 *   resetTimeout: 30_000,
 * }
 */
export interface CircuitBreakerOptions<K extends string = string> extends ServiceOptions {
  /** The services to guard: a list of keys, or an object from key to that service's own settings. */
  readonly services: readonly K[] | { readonly [Key in K]: ServiceOptions | undefined }
  /** Where the state is kept. Default: what the environment variables name; outside Lambda, memory. */
  readonly storage?: StorageOption | undefined
  /** Prefix of the stored keys. Default: none. */
  readonly namespace?: string | undefined
  /** The longest a storage round trip may delay anyone, in milliseconds. Default: 500. */
  readonly storageTimeout?: number | undefined
  /**
   * Reads the circuits as soon as the breaker is made, during Lambda's init, instead of in the first invocation.
   * Default: `false`, nothing is read and no client library is loaded before the first invocation.
   */
  readonly prefetch?: boolean | undefined
  /** Called when a circuit changes its state. */
  readonly onStateChange?: StateChangeListener | undefined
  /** Called when the store fails. */
  readonly onStorageError?: StorageErrorListener | undefined
}

/** Options and environment, validated and merged. */
export interface ResolvedConfig<K extends string = string> {
  readonly services: ReadonlyMap<K, ServiceSettings>
  readonly namespace: string | undefined
  readonly storageTimeout: number
  readonly prefetch: boolean
  /** For `CircuitBreakerStorageFactory.create`. */
  readonly storage: ICircuitStorage | StorageConfig
  readonly onStateChange: StateChangeListener | undefined
  readonly onStorageError: StorageErrorListener | undefined
  /** Variables that look like ours and name nothing known, one sentence each. */
  readonly warnings: readonly string[]
}

interface Setting {
  readonly default: unknown
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
  /** The value that a variable's text stands for; absent: there is no variable. */
  readonly fromText?: (text: string) => unknown
}

/** Node's timers fire at once when they are given more, https://nodejs.org/api/timers.html#settimeoutcallback-delay-args */
export const longestTimer = 2_147_483_647

const serviceSettings = {
  failureThreshold: whole(3, 1),
  resetTimeout: milliseconds(10_000, 1),
  halfOpenSuccessThreshold: whole(1, 1),
  // A stored record with more leases than that is taken for damaged.
  halfOpenMaxConcurrent: whole(1, 1, 1_000),
  maxConcurrent: whole(10, 1),
  maxQueue: whole(false, 0),
  cacheTtl: milliseconds(5_000, 0),
  timeout: milliseconds(false, 1),
  deadlineReserve: milliseconds(1_000, 0),
  // Stores keep a record for a day after it was last of use.
  window: milliseconds(60_000, 1, 86_400_000),
  maxResetTimeout: milliseconds(300_000, 1),
  mode: oneOf('enforce', 'observe', 'off'),
  isBreakableError: callback(isBreakableError),
  isBreakableResult: callback(isBreakableResult),
} satisfies Record<keyof ServiceSettings, Setting>

const breakerSettings = {
  namespace: { default: undefined, allowed: textAllowed, accepts: isText, fromText: (text: string) => text },
  storageTimeout: milliseconds(500, 1),
  prefetch: flag(),
  onStateChange: callback(),
  onStorageError: callback(),
} satisfies Record<string, Setting>

const settings: Readonly<Record<string, Setting>> = { ...serviceSettings, ...breakerSettings }

const breakerOptions = ['services', 'storage', ...Object.keys(breakerSettings)]

function whole(fallback: number | false, min: number, max: number = Number.MAX_SAFE_INTEGER, unit = ''): Setting {
  const range = `from ${min} ${max === Number.MAX_SAFE_INTEGER ? 'up' : `to ${max}`}`
  const orFalse = fallback === false
  return {
    default: fallback,
    allowed: `a whole number ${unit}${range}${orFalse ? ', or false' : ''}`,
    accepts: (value) =>
      (orFalse && value === false) || (Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max),
    fromText: (text) => (/^\d+$/.test(text) ? Number(text) : orFalse && text === 'false' ? false : text),
  }
}

function milliseconds(fallback: number | false, min: number, max: number = longestTimer): Setting {
  return whole(fallback, min, max, 'of milliseconds ')
}

function flag(): Setting {
  return {
    default: false,
    allowed: 'true or false',
    accepts: (value) => typeof value === 'boolean',
    fromText: (text) => (text === 'true' ? true : text === 'false' ? false : text),
  }
}

function oneOf(...values: readonly string[]): Setting {
  return {
    default: values[0],
    allowed: `one of ${values.join(', ')}`,
    accepts: (value) => values.some((known) => known === value),
    fromText: (text) => text,
  }
}

function callback(fallback?: (value: unknown) => boolean): Setting {
  return { default: fallback, allowed: 'a function', accepts: (value) => typeof value === 'function' }
}

/** A value and where it came from: `option`, `default` or a variable's name. One that was refused is `undefined`. */
interface Found {
  readonly value: unknown
  readonly source: string
}

/** The settings that one source gives, by name. */
type Layer = Record<string, Found>

/**
 * Validates the options and the environment and merges them.
 *
 * @param options as the user gave them; never mutated, own properties only
 * @param env for instance `process.env`
 * @throws {ConfigurationError} with every problem at once
 */
export function resolveConfig<K extends string>(
  options: CircuitBreakerOptions<K>,
  env: Environment,
): ResolvedConfig<K> {
  const problems = new Problems()
  if (!isObject(options)) problems.mustBe("an object such as { services: ['stripe'] }", 'options', 'option', options)
  problems.throwIfAny()

  const { services: givenServices, storage: givenStorage, ...given }: Record<string, unknown> = ownProperties(options)
  const services = readServices(givenServices, problems)
  const variables = readVariables(env, [...services.keys()], problems)
  const defaults = Object.entries(settings).map(([name, setting]) => [
    name,
    { value: setting.default, source: 'default' },
  ])
  const breaker: Layer = {
    ...Object.fromEntries(defaults),
    ...readOptions(given, '', problems),
    ...variables.breaker,
  }
  const storage = resolveStorage(givenStorage, env, problems)
  const resolved = new Map<string, ServiceSettings>()
  for (const [key, serviceOptions] of services) {
    const own: Layer = { ...readOptions(serviceOptions, pathOf(key), problems), ...variables.services.get(key) }
    const merged: Layer = { ...breaker, ...own }
    checkTogether(key, own, merged, problems)
    resolved.set(key, valuesOf(merged, Object.keys(serviceSettings)) as unknown as ServiceSettings)
  }
  problems.throwIfAny()
  return {
    ...(valuesOf(breaker, Object.keys(breakerSettings)) as Pick<ResolvedConfig, keyof typeof breakerSettings>),
    services: resolved as ReadonlyMap<string, ServiceSettings> as ReadonlyMap<K, ServiceSettings>,
    storage: storage as ICircuitStorage | StorageConfig,
    warnings: variables.warnings,
  }
}

/** A copy without a prototype, so that `constructor` is found only where somebody set it. */
function ownProperties(object: object): Record<string, unknown> {
  return Object.assign(Object.create(null), object)
}

function valuesOf(layer: Layer, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, layer[name]?.value]))
}

/** `services.stripe.`, or `services["my svc"].` */
function pathOf(key: string): string {
  return /^[\w$-]{1,64}$/.test(key) ? `services.${key}.` : `services[${quote(key)}].`
}

function readServices(given: unknown, problems: Problems): Map<string, Readonly<Record<string, unknown>>> {
  const services = new Map<string, Readonly<Record<string, unknown>>>()
  const refuse = (what: string, value: unknown) => problems.add('services', 'option', value, `services ${what}`)
  const entries = Array.isArray(given)
    ? Array.from(given, (key: unknown) => [key, undefined] as const)
    : isObject(given)
      ? Object.entries(given)
      : undefined
  if (!entries?.length) {
    const what = entries ? 'empty' : describe(given)
    refuse(`must be a list of keys, or an object from key to settings, with at least one key, but is ${what}`, given)
  }
  for (const [key, own = {}] of entries ?? []) {
    if (!isText(key)) {
      refuse(`must have keys each of which is ${textAllowed}, but one is ${describe(key)}`, key)
    } else if (services.has(key)) {
      refuse(`must not name a key twice, but has ${quote(key)} twice`, key)
    } else {
      if (!isObject(own)) problems.mustBe('an object with settings', pathOf(key).slice(0, -1), 'option', own)
      services.set(key, isObject(own) ? own : {})
    }
  }
  return services
}

/** Reads the options of the breaker (`path` is empty) or those of one service. */
function readOptions(given: Readonly<Record<string, unknown>>, path: string, problems: Problems): Layer {
  const layer: Layer = {}
  const known = Object.keys(path === '' ? settings : serviceSettings)
  for (const [name, value] of Object.entries(given)) {
    if (known.includes(name)) {
      if (value !== undefined) layer[name] = check(name, path, 'option', value, problems)
    } else {
      const where = path + (/^\w{1,64}$/.test(name) ? name : quote(name))
      const what = breakerOptions.includes(name)
        ? 'cannot be set per service, only for the whole breaker'
        : `is not a setting${hint(name, path === '' ? [...breakerOptions.slice(0, 2), ...known] : known)}`
      // Without the value: what was given under a wrong name may be anything, a password too.
      problems.add(where, 'option', undefined, `${where} ${what}`)
    }
  }
  return layer
}

function check(name: string, path: string, source: string, value: unknown, problems: Problems): Found {
  const setting = settings[name] as Setting
  if (setting.accepts(value)) return { value, source }
  problems.mustBe(setting.allowed, path + name, source, value)
  return { value: undefined, source }
}

const prefix = 'CIRCUIT_BREAKER_'

/** `failureThreshold` → `CIRCUIT_BREAKER_FAILURE_THRESHOLD` */
function variableOf(setting: string): string {
  return prefix + setting.replace(/[A-Z]/g, '_$&').toUpperCase()
}

/** `my-svc` → `__MY_SVC` */
function suffixOf(key: string): string {
  return `__${key.toUpperCase().replace(/[^A-Z0-9]/gu, '_')}`
}

/** `…_TIMEOUT__STRIPE` → `['…_TIMEOUT', '__STRIPE']` */
function splitSuffix(variable: string): [base: string, suffix: string] {
  const at = variable.indexOf('__')
  return at < 0 ? [variable, ''] : [variable.slice(0, at), variable.slice(at)]
}

interface Variables {
  readonly breaker: Layer
  readonly services: ReadonlyMap<string, Layer>
  readonly warnings: readonly string[]
}

function readVariables(env: Environment, keys: readonly string[], problems: Problems): Variables {
  const breaker: Layer = {}
  const services = new Map<string, Layer>(keys.map((key) => [key, {}]))
  const warnings: string[] = []
  const names = new Map(
    Object.keys(settings).flatMap((name) => (settings[name]?.fromText ? [[variableOf(name), name] as const] : [])),
  )
  const keysBySuffix = new Map<string, string[]>()
  for (const key of keys) keysBySuffix.set(suffixOf(key), [...(keysBySuffix.get(suffixOf(key)) ?? []), key])

  for (const variable of Object.keys(env)) {
    const text = textOf(env, variable)
    if (!variable.startsWith(prefix) || text === undefined) continue
    const [base, suffix] = splitSuffix(variable)
    const name = names.get(base)
    const isStorage = storageVariables.some((each) => each === base)
    if (name === undefined && !isStorage) {
      warnings.push(unknownVariable(variable, [...names.keys(), ...storageVariables], [...keysBySuffix.keys()]))
    } else if (suffix === '') {
      if (name !== undefined) breaker[name] = checkText(name, '', variable, text, problems)
    } else if (name === undefined || !Object.hasOwn(serviceSettings, name)) {
      problems.add(
        name ?? 'storage',
        variable,
        undefined,
        `${base} cannot be set per service, only for the whole breaker`,
      )
    } else {
      const [key, ...others] = keysBySuffix.get(suffix) ?? []
      if (key === undefined) {
        warnings.push(unknownSuffix(variable, suffix, keysBySuffix))
      } else if (others.length > 0) {
        const fitting = [key, ...others].map(quote).join(' and ')
        problems.add(name, variable, text, `${variable} fits more than one service: ${fitting}; rename all but one`)
      } else {
        ;(services.get(key) as Layer)[name] = checkText(name, pathOf(key), variable, text, problems)
      }
    }
  }
  return { breaker, services, warnings }
}

function checkText(name: string, path: string, variable: string, text: string, problems: Problems): Found {
  return check(name, path, variable, settings[name]?.fromText?.(text), problems)
}

function unknownVariable(variable: string, known: readonly string[], suffixes: readonly string[]): string {
  const [base, suffix] = splitSuffix(variable.slice(prefix.length))
  const names = known.map((name) => name.slice(prefix.length))
  // TIMEOUT_STRIPE, with one underscore, means TIMEOUT__STRIPE.
  const candidates = suffix === '' ? [...names, ...names.flatMap((name) => suffixes.map((each) => name + each))] : names
  const near = nearest(base, candidates)
  const suggestion = near === undefined ? '' : `; did you mean ${prefix}${near}${suffix}?`
  return `${variable} names no setting of the circuit breaker and changes nothing${suggestion}`
}

/** Careful: the suffix may be meant for another breaker of the same process. */
function unknownSuffix(variable: string, suffix: string, keysBySuffix: ReadonlyMap<string, readonly string[]>): string {
  const near = nearest(suffix, [...keysBySuffix.keys()])
  const suggestion = near === undefined ? '' : ` did you mean ${variable.slice(0, -suffix.length)}${near}?`
  const keys = [...keysBySuffix.values()].flat().map(quote).join(', ')
  return (
    `${variable} fits no service of this circuit breaker, which has ${keys}, and changes nothing here; ` +
    `unless it is meant for another breaker,${suggestion || ' remove it'}`
  )
}

/** The longest key that every store takes, in bytes. */
const longestKey = 256

/**
 * The key under which a service is stored: `namespace#key`, `#` and `%` in either of them escaped as in a URL, so that
 * two different pairs are never stored under one key.
 */
export function storedKey(namespace: string | undefined, key: string): string {
  const parts = namespace === undefined ? [key] : [namespace, key]
  return parts.map((part) => part.replace(/[#%]/g, encodeURIComponent)).join('#')
}

/** Checks what can be wrong although each setting alone is right. One that was refused already is `undefined` here. */
function checkTogether(key: string, own: Layer, merged: Layer, problems: Problems): void {
  const { namespace, resetTimeout: reset, maxResetTimeout: max } = merged
  const bytes = Buffer.byteLength(storedKey(namespace?.value as string | undefined, key))
  if (bytes > longestKey) {
    const together = namespace?.value === undefined ? '' : `, stored with the namespace (${namespace.source}),`
    const what = `${quote(key)}${together} takes ${bytes} bytes, but ${longestKey} are allowed`
    problems.add('services', 'option', key, `services: the key ${what}`)
  }
  if (Number(reset?.value) > Number(max?.value)) {
    // Without the path where neither is the service's own: then it is one problem, not one for each service.
    const setting = `${own.resetTimeout || own.maxResetTimeout ? pathOf(key) : ''}resetTimeout`
    const limit = `at most maxResetTimeout, ${max?.value} (${max?.source})`
    problems.mustBe(limit, setting, String(reset?.source), reset?.value)
  }
}

/** One row of the settings table. */
export interface SettingDescription {
  readonly name: string
  /** The environment variable; `undefined`: there is none. */
  readonly variable: string | undefined
  readonly default: unknown
  readonly unit: string
  readonly allowed: string
  readonly meaning: string
  /** Whether a service can have its own. */
  readonly perService: boolean
}

/** Every setting, for documentation. Not part of what a bundle of the middleware contains. */
export const settingsTable: readonly SettingDescription[] = /* @__PURE__ */ describeSettings()

function describeSettings(): SettingDescription[] {
  const meanings: Record<
    keyof typeof serviceSettings | keyof typeof breakerSettings,
    readonly [unit: string, meaning: string]
  > = {
    failureThreshold: ['failures', 'consecutive failures, fleet-wide, that open the circuit'],
    resetTimeout: ['ms', 'how long it stays open before a probe is allowed; at most `maxResetTimeout`'],
    halfOpenSuccessThreshold: ['successes', 'probe successes that close it'],
    halfOpenMaxConcurrent: ['calls', 'probes in flight at once, fleet-wide'],
    maxConcurrent: ['calls', 'calls in flight at once, per instance and service; the rest wait their turn'],
    maxQueue: ['calls', 'how many may wait; beyond it `ConcurrencyLimitError`; `false`: unlimited'],
    cacheTtl: ['ms', 'how long loaded state is trusted before it is read again; 0: every invocation'],
    timeout: ['ms', 'per call; always also bounded by the Lambda deadline; `false`: by that only'],
    deadlineReserve: ['ms', 'kept back from the Lambda deadline to record a cut call and to answer'],
    window: ['ms', 'failures further apart than this are no streak'],
    maxResetTimeout: [
      'ms',
      'no `retryAt` is ever further ahead than this, whatever stored it or `Retry-After` asked for',
    ],
    mode: ['', '`observe`: counts, stores and reports, never refuses; `off`: calls pass straight through'],
    isBreakableError: ['', 'which errors count as failures'],
    isBreakableResult: ['', 'which results count as failures'],
    namespace: ['', 'prefix of the stored keys'],
    storageTimeout: ['ms', 'longest a storage round trip may delay anyone'],
    prefetch: ['', 'reads the circuits during Lambda’s init, instead of in the first invocation'],
    onStateChange: ['', 'called when a circuit changes its state'],
    onStorageError: ['', 'called when the store fails'],
  }
  return Object.entries(meanings).map(([name, [unit, meaning]]) => {
    const { default: fallback, allowed, fromText } = settings[name] as Setting
    const variable = fromText && variableOf(name)
    return { name, variable, default: fallback, unit, allowed, meaning, perService: name in serviceSettings }
  })
}
