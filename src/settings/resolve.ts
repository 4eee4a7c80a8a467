/**
 * Settings: options and environment, validated and merged.
 *
 * The more specific source wins. At the same level the environment wins over code. The order is: per-service variable ›
 * per-service option › variable › option › default.
 *
 * @module
 */

import { createHash } from 'node:crypto'
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
  type KeyedSettings,
  keyedSettings,
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
  /** Variables with the prefix of this package that name nothing known. */
  readonly warnings: readonly Warning[]
  /** Times that were probably meant in seconds. They matter only under a real clock. */
  readonly doubts: readonly Warning[]
}

/**
 * Validates the options and the environment and merges them.
 *
 * @param options the user's options. Only own properties count, and none is changed
 * @param env for instance `process.env`
 * @param problems the problems that were found before
 * @throws {ConfigurationError} with every problem at once
 */
export function resolveConfig<K extends string>(
  options: CircuitBreakerOptions<K, unknown>,
  env: Environment,
  problems: Problems = new Problems(),
): ResolvedConfig<K> {
  if (!isObject(options)) {
    problems.mustBe("an object such as { services: ['stripe'] }", 'options', 'option', options)
    throw problems.error()
  }

  const { services: givenServices, storage: givenStorage, ...given }: Record<string, unknown> = ownProperties(options)
  const services = readServices(givenServices, problems)
  const variables = readVariables(env, [...services.keys()], problems)
  const defaults = Object.entries({ ...settings, ...keyedSettings }).map(([name, setting]) => [
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
  const warnings = [...variables.warnings]
  for (const [key, { keyed: givenKeyed, ...serviceOptions }] of services) {
    const path = pathOf(key)
    const ofKeys = readKeyed(givenKeyed, `${path}keyed`, problems)
    const own: Layer = { ...readOptions(serviceOptions, path, problems), ...ofKeys, ...variables.services.get(key) }
    const merged: Layer = { ...breaker, ...own }
    checkTogether(key, own, merged, givenKeyed !== undefined, problems)
    doubts.push(...doubtsAbout(own, path))
    const { source = '' } = (ofKeys === undefined && own.maxKeys) || {}
    if (source !== '') warnings.push(({ notKeyed }) => notKeyed(source, key))
    const keyed = ofKeys && (valuesOf(merged, Object.keys(keyedSettings)) as unknown as KeyedSettings)
    resolved.set(key, { ...valuesOf(merged, Object.keys(serviceSettings)), keyed } as unknown as ServiceSettings)
  }
  problems.throwIfAny()
  return {
    ...(valuesOf(breaker, Object.keys(breakerSettings)) as Pick<ResolvedConfig, keyof typeof breakerSettings>),
    services: resolved as ReadonlyMap<string, ServiceSettings> as ReadonlyMap<K, ServiceSettings>,
    storage: storage as ICircuitStorage | StorageConfig,
    warnings,
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

/** A copy without a prototype, so that `constructor` exists only if the user set it. */
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

/** Reads the settings of the keys of a service; `undefined`: the service is not keyed. */
function readKeyed(given: unknown, path: string, problems: Problems): Layer | undefined {
  if (given === undefined) return undefined
  if (isObject(given)) return readNamed(given, `${path}.`, Object.keys(keyedSettings), problems)
  problems.mustBe('an object such as { maxKeys: 1000 }', path, 'option', given)
  return {}
}

/** Reads the options of the breaker (`path` is empty) or of one service. */
function readOptions(given: Readonly<Record<string, unknown>>, path: string, problems: Problems): Layer {
  return readNamed(given, path, Object.keys(path === '' ? settings : serviceSettings), problems)
}

function readNamed(
  given: Readonly<Record<string, unknown>>,
  path: string,
  known: readonly string[],
  problems: Problems,
): Layer {
  const layer: Layer = {}
  for (const [name, value] of Object.entries(given)) {
    if (known.includes(name)) {
      if (value !== undefined) layer[name] = checkSetting(name, path, 'option', value, problems)
    } else {
      const where = path + (/^\w{1,64}$/.test(name) ? name : quote(name))
      const what = breakerOptions.includes(name)
        ? 'cannot be set per service, only for the whole breaker'
        : `is not a setting${hint(name, path === '' ? [...breakerOptions.slice(0, 2), ...known] : known)}`
      // Leave the value out: a value with an unknown name may be a password.
      problems.add(where, 'option', undefined, `${where} ${what}`)
    }
  }
  return layer
}

/** The longest key that every store accepts, in bytes. */
const longestKey = 256

/**
 * The key under which a service is stored: `namespace#key`. In both parts `#` and `%` are escaped as in a URL, so that two
 * different pairs never get the same stored key.
 */
export function storedKey(namespace: string | undefined, key: string): string {
  const parts = namespace === undefined ? [key] : [namespace, key]
  return parts.map(escaped).join('#')
}

/**
 * The prefix of the key under which a key's circuit is stored: `namespace#service#`, also without a namespace. The stored key
 * of a service that is not keyed has one `#` or none, so the two never collide.
 */
export function storedPrefix(namespace: string | undefined, service: string): string {
  return `${[namespace ?? '', service].map(escaped).join('#')}#`
}

/**
 * The key under which a key's circuit is stored: {@link storedPrefix}, and then the key with `#` and `%` escaped. If that takes
 * more bytes than every store allows, the key is hashed. A `%` that escapes nothing marks the hash: no other stored key has one.
 */
export function storedKeyOf(prefix: string, key: string): string {
  const stored = prefix + escaped(key)
  return Buffer.byteLength(stored) > longestKey ? `${prefix}%${hashOf(key)}` : stored
}

/** The stored key of the circuit that keys without a circuit of their own share. No other key is stored like this. */
export const sharedKey = '%shared'

/** The hash that replaces a long text. */
export function hashOf(key: string): string {
  return `sha256-${createHash('sha256').update(key).digest('base64url')}`
}

/** The length of a hashed key, in bytes: `%sha256-` and 32 bytes in base64url. */
const hashedBytes = 8 + 43

function escaped(part: string): string {
  return part.replace(/[#%]/g, encodeURIComponent)
}

/** Checks that settings fit each other. A setting that was refused already is `undefined`. */
function checkTogether(key: string, own: Layer, merged: Layer, isKeyed: boolean, problems: Problems): void {
  const { namespace, resetTimeout: reset, maxResetTimeout: max } = merged
  const prefix = namespace?.value as string | undefined
  const bytes = isKeyed
    ? Buffer.byteLength(storedPrefix(prefix, key)) + hashedBytes
    : Buffer.byteLength(storedKey(prefix, key))
  if (bytes > longestKey) {
    const together = namespace?.value === undefined ? '' : `, stored with the namespace (${namespace.source}),`
    const keys = isKeyed ? ' and a key of its own' : ''
    const what = `${quote(key)}${together}${keys} takes ${bytes} bytes, but ${longestKey} are allowed`
    problems.add('services', 'option', key, `services: the key ${what}`)
  }
  if (Number(reset?.value) > Number(max?.value)) {
    // Leave the path out if neither setting is the service's own, so that the problem is reported once and not for each service.
    const setting = `${own.resetTimeout || own.maxResetTimeout ? pathOf(key) : ''}resetTimeout`
    const limit = `at most maxResetTimeout, ${max?.value} (${max?.source})`
    problems.mustBe(limit, setting, String(reset?.source), reset?.value)
  }
}
