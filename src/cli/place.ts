/**
 * Finds the store that a command works on: by its options, by a deployed function, or by the product's own variables.
 *
 * @module
 */

import { isConfigurationError } from '../errors.ts'
import type { Environment } from '../settings/problems.ts'
import { textOf } from '../settings/problems.ts'
import type { ICircuitStorage } from '../storage/contract.ts'
import { CircuitBreakerStorageFactory, type StorageConfig } from '../storage/factory.ts'
import { textOption, UsageError, type Values } from './arguments.ts'
import { type DeployedFunction, readFunction } from './deployed-function.ts'

/** A store, and the circuits in it that are meant. */
export interface Place {
  readonly storage: ICircuitStorage
  /** The options or the kind of the store, for a breaker of one's own. */
  readonly config: StorageConfig
  /** Where the store is, in words. */
  readonly name: string
  readonly namespace: string | undefined
  /** The environment that tunes a breaker: the deployed function's, if one was named. */
  readonly env: Environment
  readonly functions: readonly DeployedFunction[]
}

/** @throws {UsageError} if no store is named, or one that cannot be */
export async function placeOf(values: Values, env: Environment): Promise<Place> {
  const names =
    textOption(values, 'function')
      ?.split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '') ?? []
  const functions = await Promise.all(names.map((name) => readFunction(name)))
  const own = functions[0] === undefined ? productVariables(env) : functions[0].env
  const config = configOf(values, own)
  const namespace = textOption(values, 'namespace') ?? textOf(own, 'CIRCUIT_BREAKER_NAMESPACE')
  try {
    const storage = CircuitBreakerStorageFactory.create(config, own)
    return { storage, config, name: nameOf(config, own), namespace, env: own, functions }
  } catch (error) {
    if (isConfigurationError(error)) throw new UsageError(error.message)
    throw error
  }
}

/** The variables that tune a breaker. In a shell that of a function in Lambda may be set as well: it is left out. */
function productVariables(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith('CIRCUIT_BREAKER_')))
}

function configOf(values: Values, env: Environment): StorageConfig {
  const [table, redis] = [textOption(values, 'table'), textOption(values, 'redis')]
  if (table !== undefined && redis !== undefined)
    throw new UsageError('--table and --redis exclude each other: name one store.')
  const kind = kindOf(table, redis, env)
  for (const [option, belongs] of [
    ['partition-key', 'dynamodb'],
    ['sort-key', 'dynamodb'],
    ['key-prefix', 'redis'],
  ] as const) {
    if (values[option] !== undefined && belongs !== kind) {
      throw new UsageError(
        `--${option} belongs to ${belongs === 'redis' ? 'Redis' : 'DynamoDB'}, but the store is ${kind}.`,
      )
    }
  }
  if (kind === 'redis') return withoutUndefined({ type: kind, url: redis, keyPrefix: textOption(values, 'key-prefix') })
  const sortKey = textOption(values, 'sort-key')
  return withoutUndefined({
    type: kind,
    tableName: table,
    partitionKeyName: textOption(values, 'partition-key'),
    sortKeyName: sortKey === 'none' ? null : sortKey,
  })
}

function kindOf(table: string | undefined, redis: string | undefined, env: Environment): string {
  if (table !== undefined) return 'dynamodb'
  if (redis !== undefined) return 'redis'
  const kind = textOf(env, 'CIRCUIT_BREAKER_STORAGE')
  if (kind !== undefined && kind.toLowerCase() !== 'memory') return kind.toLowerCase()
  if (kind === undefined && textOf(env, 'CIRCUIT_BREAKER_TABLE_NAME')) return 'dynamodb'
  if (kind === undefined && textOf(env, 'CIRCUIT_BREAKER_REDIS_URL')) return 'redis'
  throw new UsageError(
    kind === undefined
      ? 'No store is named. Use --table NAME, --redis URL or --function NAME, or set CIRCUIT_BREAKER_TABLE_NAME or CIRCUIT_BREAKER_REDIS_URL.'
      : 'CIRCUIT_BREAKER_STORAGE is memory: no other process can see such circuits. Name a store with --table or --redis.',
  )
}

function withoutUndefined(config: Readonly<Record<string, unknown>>): StorageConfig {
  return Object.fromEntries(
    Object.entries(config).filter(([, value]) => value !== undefined),
  ) as unknown as StorageConfig
}

/** Leaves out what may be a password. */
function nameOf({ type, tableName, url }: StorageConfig, env: Environment): string {
  if (type === 'dynamodb') return `table ${tableName ?? textOf(env, 'CIRCUIT_BREAKER_TABLE_NAME')}`
  const text = String(url ?? textOf(env, 'CIRCUIT_BREAKER_REDIS_URL') ?? '')
  return type === 'redis' ? `Redis ${URL.parse(text)?.host ?? ''}`.trim() : `store ${type}`
}
