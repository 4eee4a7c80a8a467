/**
 * Translates the options that Middy's packages have in common into the settings of this package.
 *
 * @module
 */

// biome-ignore lint/suspicious/noTsIgnore: An optional peer. Without it these are `any`, also for a compiler that checks declarations.
/** @ts-ignore */
import type { DynamoDBClient, DynamoDBClientConfig } from '@aws-sdk/client-dynamodb'
import type { MakeClient } from '../storage/dynamodb/options.ts'
import { type DynamoDBStorageConfig, resolveStorage, type StorageConfig } from '../storage/factory.ts'
import { checkOptions, type OptionRules } from './option-rules.ts'
import { describe, type Environment, isObject, isText, Problems, textAllowed, textOf, wordIn } from './problems.ts'
import { resolveConfig } from './resolve.ts'
import { callback, flag, milliseconds } from './rules.ts'
import type { CircuitBreakerOptions } from './table.ts'

/**
 * The options that Middy's packages for AWS have in common, for the client of the DynamoDB table. The middleware refuses an option
 * that contradicts another one or a setting of the breaker.
 */
export interface MiddyOptions {
  /** The class of the client, called with `awsClientOptions`. Default: `DynamoDBClient`. */
  readonly AwsClient?: (new (config: DynamoDBClientConfig) => DynamoDBClient) | undefined
  /** The configuration of the client. It overrides the defaults of the storage. */
  readonly awsClientOptions?: DynamoDBClientConfig | undefined
  /** The name in `request.internal` of the client's credentials, as `@middy/sts` stores them. */
  readonly awsClientAssumeRole?: string | undefined
  /** Called with the client before its first request. The breaker uses the client that it returns. For X-Ray: `captureAWSv3Client`. */
  readonly awsClientCapture?: ((client: DynamoDBClient) => DynamoDBClient) | undefined
  /** `true`: the same as `prefetch: false`. `false`: `prefetch` decides. */
  readonly disablePrefetch?: boolean | undefined
  /** The same as `cacheTtl`, in milliseconds. 0: every invocation reads. Middy's -1 (for ever) is refused. */
  readonly cacheExpiry?: number | undefined
}

/** Holds `request.internal` of the latest request, which has the credentials of the role. */
export interface AssumedRole {
  /** Written by the middleware at each request. */
  internal: Readonly<Record<string, unknown>> | undefined
}

/** The options of the middleware that are its own. */
export const keyByRules: OptionRules = {
  of: 'the middleware',
  allowed: 'an object',
  options: {
    keyBy: {
      allowed: "a function, or 'tenantId'",
      accepts: (value) => value === 'tenantId' || typeof value === 'function',
    },
  },
}

const rules: OptionRules['options'] = {
  ...keyByRules.options,
  AwsClient: callback(),
  awsClientOptions: { allowed: 'an object', accepts: isObject },
  awsClientAssumeRole: { allowed: textAllowed, accepts: isText },
  awsClientCapture: callback(),
  disablePrefetch: flag(false),
  // Middy reads a longer time as an instant. With -1 (for ever) an instance would never learn what others find.
  cacheExpiry: milliseconds(0, 0, 0, 86_400_000),
}

/** The options for a client that the storage makes. The first two do not work before the first invocation. */
const clientNames = ['awsClientAssumeRole', 'awsClientCapture', 'AwsClient', 'awsClientOptions']

/**
 * Separates Middy's options from the breaker's settings. Does not change the given object.
 *
 * @throws {ConfigurationError} if Middy's options or `keyBy` have a problem. The error also lists the problems of the settings
 */
export function fromMiddy<Options extends CircuitBreakerOptions>(
  options: Options & MiddyOptions,
  env: Environment,
): { readonly settings: Options; readonly role?: AssumedRole | undefined } {
  if (!isObject(options)) return { settings: options }
  const given: Record<string, unknown> = {}
  const settings: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, name)) settings[name] = value
    else if (value !== undefined) given[name] = value
  }
  const { AwsClient, awsClientOptions, awsClientAssumeRole, awsClientCapture, disablePrefetch, cacheExpiry } =
    given as MiddyOptions
  const role: AssumedRole | undefined = awsClientAssumeRole === undefined ? undefined : { internal: undefined }
  const { storage: option, prefetch } = settings
  const isOurs = clientNames.some((name) => name in given)
  const chosen = (
    isOurs && option === undefined ? resolveStorage(option, env, new Problems()) : option
  ) as StorageConfig
  const type = typeof chosen === 'string' ? chosen : chosen?.type
  const storage = (type === 'dynamodb' ? (isObject(option) ? option : { type }) : {}) as DynamoDBStorageConfig
  const clientConfig = { ...storage.clientConfig, ...awsClientOptions }

  const check: OptionRules['check'] = (_, refuse) => {
    const exclude = (isGiven: unknown, other: string, names: readonly string[]): void => {
      if (isGiven) for (const name of names) if (name in given) refuse(name, `and ${other} exclude each other`)
    }
    const variable = 'CIRCUIT_BREAKER_PREFETCH'
    const text = textOf(env, variable)
    const early = text === undefined ? prefetch === true : wordIn(['true'], text)
    exclude(settings['cacheTtl'] !== undefined, 'cacheTtl', ['cacheExpiry'])
    exclude(prefetch !== undefined, 'prefetch', ['disablePrefetch'])
    exclude(early, text === undefined ? 'prefetch: true' : variable, [
      ...clientNames.slice(0, 2),
      ...(cacheExpiry === 0 ? ['cacheExpiry'] : []),
    ])
    exclude(storage.clientConfig, 'storage.clientConfig', ['awsClientOptions'])
    exclude(clientConfig.credentials, 'credentials', ['awsClientAssumeRole'])
    exclude(storage.client, 'storage.client', clientNames)
    // Without the option, tests may choose memory by a variable, or get it because they run outside Lambda.
    const isOther = type !== 'dynamodb' && (option !== undefined || (type !== undefined && type !== 'memory'))
    exclude(isOther, `storage ${describe(type ?? chosen)}`, clientNames)
  }
  const problems = new Problems()
  checkOptions({ of: '', allowed: '', options: rules, check }, given, problems)
  if (problems.any) resolveConfig(settings as unknown as CircuitBreakerOptions, env, problems)

  if (cacheExpiry !== undefined) settings['cacheTtl'] = cacheExpiry
  if (disablePrefetch) settings['prefetch'] = false
  if (isOurs && storage.type) {
    const client: MakeClient = (Default, config) => {
      const made = new (AwsClient ?? Default)(config)
      return awsClientCapture ? awsClientCapture(made) : made
    }
    const credentials = async () =>
      (await import('../assumed-role.ts')).credentialsOf(String(awsClientAssumeRole), role?.internal)
    settings['storage'] = { ...storage, client, clientConfig: { ...clientConfig, ...(role && { credentials }) } }
  }
  return { settings: settings as unknown as Options, role }
}
