/**
 * Chooses and makes the store.
 *
 * @module
 */

import { CircuitStorageError, type StorageOperation } from '../errors.ts'
import { checkOptions, type OptionRules } from '../settings/option-rules.ts'
import {
  describe,
  type Environment,
  hint,
  isObject,
  isText,
  Problems,
  textAllowed,
  textOf,
  wordIn,
} from '../settings/problems.ts'
import type { ICircuitStorage } from './contract.ts'
import { type DynamoDBCircuitStorageOptions, dynamoDBOptionRules, withDefaults } from './dynamodb/options.ts'
import { MemoryCircuitStorage } from './memory.ts'
import { type RedisCircuitStorageOptions, redisOptionRules } from './redis/options.ts'

/** Where the state is kept: a store, the name of a kind of store, or the kind with its options. */
export type StorageOption =
  | ICircuitStorage
  /** A DynamoDB table, which `CIRCUIT_BREAKER_TABLE_NAME` names. */
  | 'dynamodb'
  /** Redis, at `CIRCUIT_BREAKER_REDIS_URL`. */
  | 'redis'
  /** The memory of this process. */
  | 'memory'
  | {
      /** The memory of this process. */
      readonly type: 'memory'
    }
  | DynamoDBStorageConfig
  | RedisStorageConfig
  | StorageConfig

/** Options without one of them, also where they are a union. */
type EachWithout<Options, Name extends string> = Options extends unknown ? Omit<Options, Name> : never

/** State in an existing DynamoDB table, with the options of `DynamoDBCircuitStorage`. */
export type DynamoDBStorageConfig = {
  /** The kind of store. */
  readonly type: 'dynamodb'
  /** The table's name or ARN. Default: `CIRCUIT_BREAKER_TABLE_NAME`. */
  readonly tableName?: string | undefined
} & EachWithout<DynamoDBCircuitStorageOptions, 'tableName'>

/** State in Redis, with the options of `RedisCircuitStorage`. `url` defaults to `CIRCUIT_BREAKER_REDIS_URL`. */
export type RedisStorageConfig = {
  /** The kind of store. */
  readonly type: 'redis'
} & RedisCircuitStorageOptions

/** A kind of store with its options; the kind is one of ours or registered with the factory. */
export interface StorageConfig {
  /** The kind of store: `dynamodb`, `redis`, `memory`, or a registered name. */
  readonly type: string
  /** The options of that kind. */
  readonly [option: string]: unknown
}

/** Makes a store of a registered kind: synchronously, and without connecting before the first operation. */
export type StorageFactory = (config: StorageConfig, env: Environment) => ICircuitStorage

/** The registered kinds by name. Written by `register` and `unregister`. */
const factories = new Map<string, StorageFactory>()

/**
 * Makes stores from configuration. The breaker itself does not use this class, so that bundles can do without it.
 *
 * @example
 * CircuitBreakerStorageFactory.register('postgres', ({ url }) => new PostgresCircuitStorage(String(url)))
 * circuitBreaker({ services: ['stripe'], storage: { type: 'postgres', url } })
 */
// biome-ignore lint/complexity/noStaticOnlyClass: one name for users to import, part of the public surface
export class CircuitBreakerStorageFactory {
  /**
   * Makes the store that the option names, or without an option the one that the environment names. Returns a store that
   * was passed in as it is. The first operation loads the chosen adapter and its client library, and no other.
   *
   * @param env for instance `process.env`, the default
   * @throws {ConfigurationError} with every problem, before anything was made
   */
  static create(option?: StorageOption | undefined, env: Environment = process.env): ICircuitStorage {
    const problems = new Problems()
    const config = resolveStorage(option, env, problems)
    problems.throwIfAny()
    return makeStorage(config as ICircuitStorage | StorageConfig, env)
  }

  /**
   * Makes a kind of store known, in place of one registered under the same name.
   *
   * @throws {ConfigurationError} if `type` is no name, or the name of one of ours
   */
  static register(type: string, factory: StorageFactory): void {
    const problems = new Problems()
    if (!isText(type)) problems.mustBe(textAllowed, 'type', 'register', type)
    else if (ours.has(type)) problems.add('type', 'register', type, `type "${type}" is reserved`)
    if (typeof factory !== 'function') problems.mustBe('a function', 'factory', 'register', factory)
    problems.throwIfAny()
    factories.set(type, factory)
  }

  /** Forgets a registered kind. Returns whether there was one. */
  static unregister(type: string): boolean {
    return factories.delete(type)
  }

  /** The kinds of store that there are: ours and the registered ones. */
  static types(): string[] {
    return knownTypes()
  }
}

function knownTypes(): string[] {
  return [...ours.keys(), ...factories.keys()]
}

/** The variables that choose the store. */
export const storageVariables = [
  'CIRCUIT_BREAKER_STORAGE',
  'CIRCUIT_BREAKER_TABLE_NAME',
  'CIRCUIT_BREAKER_REDIS_URL',
] as const
const [typeVariable, tableVariable, redisVariable] = storageVariables

/** One of our own kinds of store. Its rules refuse everything that its adapter would refuse once it is loaded. */
interface Backend {
  readonly rules: OptionRules
  /** The variables that stand in for options, by option. */
  readonly variables?: Readonly<Record<string, string>>
  /** The option that takes the place of the variables. */
  readonly insteadOfVariables?: string
  readonly make: (config: StorageConfig) => ICircuitStorage
}

const dynamodb: Backend = {
  rules: dynamoDBOptionRules,
  variables: { tableName: tableVariable },
  make: ({ type: _, ...options }) =>
    loadedLater(async () => {
      const { UncheckedDynamoDBStorage } = await import('./dynamodb/storage.ts')
      return new UncheckedDynamoDBStorage(withDefaults(options as unknown as DynamoDBCircuitStorageOptions))
    }),
}

const memory: Backend = {
  rules: { of: 'the memory storage', allowed: 'nothing', options: {} },
  make: () => new MemoryCircuitStorage(),
}

const redis: Backend = {
  rules: redisOptionRules,
  variables: { url: redisVariable },
  insteadOfVariables: 'client',
  make: ({ type: _, ...options }) =>
    loadedLater(async () => {
      const { UncheckedRedisStorage } = await import('./redis/storage.ts')
      return new UncheckedRedisStorage(options as RedisCircuitStorageOptions)
    }),
}

const ours: ReadonlyMap<string, Backend> = new Map(Object.entries({ dynamodb, memory, redis }))

/**
 * Finds the store that the option or the environment asks for. Returns a store that was given, or else the kind of store
 * with checked, complete options; `undefined` only if it added a problem. Makes and loads nothing.
 */
export function resolveStorage(
  option: unknown,
  env: Environment,
  problems: Problems,
): ICircuitStorage | StorageConfig | undefined {
  if (option === undefined) return fromEnvironment(env, problems)
  if (typeof option === 'string') return completed({ type: option }, 'option', env, problems)
  const missing = missingMethods(option)
  if (missing.length === 0) return option as ICircuitStorage
  if (missing.length < operations.length) {
    problems.add('storage', 'option', option, `storage is a store without ${missing.join(', ')}`)
  } else if (isObject(option) && typeof option.type === 'string') {
    return completed(option as StorageConfig, 'option', env, problems)
  } else {
    const kinds = knownTypes().join(', ')
    problems.mustBe(`a store, a kind of store (${kinds}) or an object with its type`, 'storage', 'option', option)
  }
  return undefined
}

function fromEnvironment(env: Environment, problems: Problems): StorageConfig | undefined {
  const text = textOf(env, typeVariable)
  if (text !== undefined) return completed({ type: wordIn(knownTypes(), text) ?? text }, typeVariable, env, problems)
  if (textOf(env, tableVariable)) return completed({ type: 'dynamodb' }, tableVariable, env, problems)
  if (textOf(env, redisVariable)) return completed({ type: 'redis' }, redisVariable, env, problems)
  if (!textOf(env, 'AWS_LAMBDA_FUNCTION_NAME')) return { type: 'memory' }
  const what =
    `storage must be chosen inside Lambda: set ${tableVariable} or ${redisVariable}, or the storage option. ` +
    "If each instance shall decide for itself, say so with storage: 'memory'"
  problems.add('storage', 'default', undefined, what)
  return undefined
}

/** Checks the options of a kind of store, and adds those that are left to variables. */
function completed(
  given: StorageConfig,
  source: string,
  env: Environment,
  problems: Problems,
): StorageConfig | undefined {
  const { type, ...options }: { type: string; [option: string]: unknown } = given
  if (factories.has(type)) return given
  const backend = ours.get(type)
  if (backend === undefined) {
    problems.add('storage', source, type, `storage type ${describe(type)} is not known${hint(type, knownTypes())}`)
    return undefined
  }
  const { rules, variables = {}, insteadOfVariables = '' } = backend
  const sources: Record<string, string> = {}
  if (options[insteadOfVariables] === undefined) {
    for (const [name, variable] of Object.entries(variables)) {
      const value = textOf(env, variable)
      if (options[name] !== undefined || value === undefined) continue
      options[name] = value
      sources[name] = variable
    }
  }
  checkOptions(rules, options, problems, { prefix: 'storage.', source, sources, variables })
  const present = Object.entries(options).filter(([, value]) => value !== undefined)
  return { ...Object.fromEntries(present), type }
}

const operations = [
  'getState',
  'batchGetState',
  'addOutcomes',
  'compareAndSetState',
  'batchSetState',
  'clearState',
  'batchClearState',
] as const satisfies readonly StorageOperation[]

const journalOperations = [
  'appendJournal',
  'readJournal',
  'listCircuits',
] as const satisfies readonly StorageOperation[]

/** The methods of the contract that a value lacks. */
function missingMethods(value: unknown): StorageOperation[] {
  const methods: Readonly<Record<string, unknown>> = isObject(value) ? value : {}
  return operations.filter((operation) => typeof methods[operation] !== 'function')
}

/**
 * Makes the store of a resolved configuration.
 *
 * @throws {ConfigurationError} if a factory that was registered returned no store
 */
export function makeStorage(config: ICircuitStorage | StorageConfig, env: Environment): ICircuitStorage {
  if (!('type' in config) || missingMethods(config).length === 0) return config as ICircuitStorage
  const factory = factories.get(config.type) ?? ours.get(config.type)?.make
  const storage = factory?.(config, env)
  const missing = missingMethods(storage)
  if (missing.length > 0) {
    const problems = new Problems()
    const what = `the factory registered for ${describe(config.type)} returned a store without ${missing.join(', ')}`
    problems.add('storage', 'option', storage, what)
    problems.throwIfAny()
  }
  return storage as ICircuitStorage
}

/** Makes a store whose adapter is loaded at the first operation. When loading failed, the next operation tries again. */
function loadedLater(load: () => Promise<ICircuitStorage>): ICircuitStorage {
  // Set by each operation that finds none; unset when loading failed.
  let loading: Promise<ICircuitStorage> | undefined
  const adapter = (operation: StorageOperation): Promise<ICircuitStorage> => {
    loading ??= load().catch((cause: unknown) => {
      loading = undefined
      throw cause
    })
    return loading.catch((cause: unknown) => {
      const message = `The storage adapter could not be loaded: is the bundle deployed whole? ${(cause as Partial<Error>).message}`
      throw new CircuitStorageError(message, { operation, kind: 'misconfigured', cause })
    })
  }
  const forwarded = [...operations, ...journalOperations].map((operation) => {
    const forward = async (...args: never[]) =>
      ((await adapter(operation)) as unknown as Operations)[operation](...args)
    return [operation, forward] as const
  })
  return {
    ...(Object.fromEntries(forwarded) as unknown as ICircuitStorage),
    prepare: async () => (await adapter('getState')).prepare?.(),
    inspect: async (keys) => (await adapter('getState')).inspect?.(keys) ?? { findings: [] },
    close: async () => (await loading?.catch(() => undefined))?.close?.(),
  }
}

type Operations = Readonly<Record<StorageOperation, (...args: never[]) => unknown>>
