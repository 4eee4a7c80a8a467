/**
 * Settings: options and environment, validated and merged.
 *
 * The more specific wins, and at the same level the environment wins over code: per-service variable › per-service
 * option › variable › option › default.
 *
 * @module
 */

import type { StateChangeListener, StorageErrorListener } from '../events.ts'
import type { ICircuitStorage } from '../storage/contract.ts'
import { resolveStorage, type StorageConfig } from '../storage/factory.ts'
import type { Warning } from '../warnings.ts'
import { readVariables } from './environment.ts'
import { checkSetting, type Found, type Layer, pathOf } from './layers.ts'
import { describe, type Environment, hint, isObject, isText, Problems, quote, textAllowed } from './problems.ts'
import {
  breakerOptions,
  breakerSettings,
  type CircuitBreakerOptions,
  type ServiceSettings,
  serviceSettings,
  settings,
} from './table.ts'

/** Options and environment, validated and merged. */
export interface ResolvedConfig<K extends string = string> {
  readonly services: ReadonlyMap<K, ServiceSettings>
  readonly namespace: string | undefined
  readonly storageTimeout: number
  readonly preload: boolean
  readonly prefetch: boolean
  readonly journal: boolean
  /** For `CircuitBreakerStorageFactory.create`. */
  readonly storage: ICircuitStorage | StorageConfig
  readonly onStateChange: StateChangeListener | undefined
  readonly onStorageError: StorageErrorListener | undefined
  /** Variables that look like ours and name nothing known. */
  readonly warnings: readonly Warning[]
  /** Times that were probably meant in seconds: of interest where they are those of a real clock. */
  readonly doubts: readonly Warning[]
}

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
  const doubts = doubtsAbout(breaker, '')
  for (const [key, serviceOptions] of services) {
    const own: Layer = { ...readOptions(serviceOptions, pathOf(key), problems), ...variables.services.get(key) }
    const merged: Layer = { ...breaker, ...own }
    checkTogether(key, own, merged, problems)
    doubts.push(...doubtsAbout(own, pathOf(key)))
    resolved.set(key, valuesOf(merged, Object.keys(serviceSettings)) as unknown as ServiceSettings)
  }
  problems.throwIfAny()
  return {
    ...(valuesOf(breaker, Object.keys(breakerSettings)) as Pick<ResolvedConfig, keyof typeof breakerSettings>),
    services: resolved as ReadonlyMap<string, ServiceSettings> as ReadonlyMap<K, ServiceSettings>,
    storage: storage as ICircuitStorage | StorageConfig,
    warnings: variables.warnings,
    doubts,
  }
}

function doubtsAbout(layer: Layer, path: string): Warning[] {
  const isInSeconds = ([name, { value }]: [string, Found]) =>
    typeof value === 'number' && value > 0 && value <= (settings[name]?.seconds ?? 0)
  return Object.entries(layer)
    .filter(isInSeconds)
    .map(
      ([name, { value, source }]) =>
        ({ meantInSeconds }) =>
          meantInSeconds(path + name, Number(value), source),
    )
}

/** A copy without a prototype, so that `constructor` is found only where somebody set it. */
function ownProperties(object: object): Record<string, unknown> {
  return Object.assign(Object.create(null), object)
}

function valuesOf(layer: Layer, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, layer[name]?.value]))
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
      if (value !== undefined) layer[name] = checkSetting(name, path, 'option', value, problems)
    } else {
      const where = path + (/^\w{1,64}$/.test(name) ? name : quote(name))
      const what = breakerOptions.includes(name)
        ? 'cannot be set per service, only for the whole breaker'
        : `is not a setting${hint(name, path === '' ? [...breakerOptions.slice(0, 2), ...known] : known)}`
      // Leave the value out: under a wrong name it may be anything, a password too.
      problems.add(where, 'option', undefined, `${where} ${what}`)
    }
  }
  return layer
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

/** Checks settings that are right one by one against each other. A setting that was refused already is `undefined`. */
function checkTogether(key: string, own: Layer, merged: Layer, problems: Problems): void {
  const { namespace, resetTimeout: reset, maxResetTimeout: max } = merged
  const bytes = Buffer.byteLength(storedKey(namespace?.value as string | undefined, key))
  if (bytes > longestKey) {
    const together = namespace?.value === undefined ? '' : `, stored with the namespace (${namespace.source}),`
    const what = `${quote(key)}${together} takes ${bytes} bytes, but ${longestKey} are allowed`
    problems.add('services', 'option', key, `services: the key ${what}`)
  }
  if (Number(reset?.value) > Number(max?.value)) {
    // Leave the path out where neither is the service's own: then it is one problem, not one for each service.
    const setting = `${own.resetTimeout || own.maxResetTimeout ? pathOf(key) : ''}resetTimeout`
    const limit = `at most maxResetTimeout, ${max?.value} (${max?.source})`
    problems.mustBe(limit, setting, String(reset?.source), reset?.value)
  }
}
