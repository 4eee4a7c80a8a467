import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from '@jest/globals'
import {
  CircuitBreaker,
  type ConfigurationError,
  circuitBreaker,
  circuitBreakerValidateOptions,
  isConfigurationError,
  MemoryCircuitStorage,
} from '../../../src/index.ts'
import { fromMiddy } from '../../../src/settings/middy-options.ts'
import type { Environment } from '../../../src/settings/problems.ts'
import { resolveConfig } from '../../../src/settings/resolve.ts'
import { DynamoDBCircuitStorage } from '../../../src/storage/dynamodb/index.ts'

const table = { CIRCUIT_BREAKER_TABLE_NAME: 'circuits' }
const services = ['stripe'] as const
const credentials = { accessKeyId: 'a', secretAccessKey: 's' }

/** The settings that options come to. */
function settingsOf(options: object, env: Environment = table) {
  return fromMiddy({ services, ...options } as never, env).settings as Readonly<Record<string, unknown>>
}

/** What is wrong with options, without the source. */
function problemsOf(options: object, env: Environment = table): string[] {
  try {
    resolveConfig(fromMiddy({ services, ...options } as never, env).settings, env)
    return []
  } catch (error) {
    return (error as ConfigurationError).problems.map(({ message }) => message.replace(/ \(option\)$/, ''))
  }
}

/** The client that options come to, made as the storage makes it. */
function clientOf(options: object, env: Environment = table): unknown {
  const { client, clientConfig } = settingsOf(options, env)['storage'] as Readonly<Record<string, unknown>>
  return (client as (...given: unknown[]) => unknown)(DynamoDBClient, { region: 'eu-west-1', ...Object(clientConfig) })
}

describe("Middy's own names of options", () => {
  it('are those of the settings that they stand for', () => {
    expect(settingsOf({ cacheExpiry: 2_000, disablePrefetch: true })).toEqual({
      services,
      cacheTtl: 2_000,
      prefetch: false,
    })
    expect(settingsOf({ cacheExpiry: 0 })).toMatchObject({ cacheTtl: 0 })
  })

  it('leave prefetch to itself where prefetching is not disabled', () => {
    expect(settingsOf({ disablePrefetch: false })).toEqual({ services })
  })

  it('that are undefined are not given', () => {
    const names = ['AwsClient', 'awsClientOptions', 'awsClientAssumeRole', 'awsClientCapture', 'cacheExpiry', 'keyBy']
    const none = Object.fromEntries(names.map((name) => [name, undefined]))
    expect(settingsOf({ ...none, storage: 'memory', prefetch: true, cacheTtl: 1_000 })).toEqual({
      services,
      storage: 'memory',
      prefetch: true,
      cacheTtl: 1_000,
    })
  })

  it('make the client of a table: of their class, with their options over what the storage says, and captured', () => {
    class OwnClient extends DynamoDBClient {}
    expect(clientOf({ AwsClient: OwnClient })).toBeInstanceOf(OwnClient)
    const captured = clientOf({ awsClientCapture: (client: unknown) => ({ client }) }) as { client: unknown }
    expect(captured.client).toBeInstanceOf(DynamoDBClient)
    expect(settingsOf({ storage: 'dynamodb', AwsClient: OwnClient })['storage']).toEqual({
      type: 'dynamodb',
      client: expect.any(Function),
      clientConfig: {},
    })
    const { storage } = settingsOf({
      storage: { type: 'dynamodb', tableName: 'app', partitionKeyName: 'pk' },
      awsClientOptions: { region: 'eu-west-1' },
    })
    expect(storage).toMatchObject({
      type: 'dynamodb',
      tableName: 'app',
      partitionKeyName: 'pk',
      clientConfig: { region: 'eu-west-1' },
    })
  })

  it('may stand beside the configuration of the client in storage, which AwsClient and a role leave alone', async () => {
    const storage = { type: 'dynamodb', clientConfig: { region: 'eu-west-1' } }
    const { storage: complete } = settingsOf({ storage, AwsClient: DynamoDBClient, awsClientAssumeRole: 'admin' })
    expect(complete).toMatchObject({ clientConfig: { region: 'eu-west-1', credentials: expect.any(Function) } })
    expect(storage).toEqual({ type: 'dynamodb', clientConfig: { region: 'eu-west-1' } })
  })

  it('are unused where a variable, or being no Lambda function, chooses memory', () => {
    const options = { AwsClient: DynamoDBClient, awsClientAssumeRole: 'admin' }
    expect(settingsOf(options, { CIRCUIT_BREAKER_STORAGE: 'memory', ...table })).toEqual({ services })
    expect(settingsOf(options, {})).toEqual({ services })
    expect(problemsOf(options, {})).toEqual([])
  })

  it('do not choose a store: inside Lambda it must be chosen', () => {
    const env = { AWS_LAMBDA_FUNCTION_NAME: 'f' }
    expect(problemsOf({ AwsClient: DynamoDBClient }, env)).toEqual([expect.stringContaining('must be chosen')])
  })

  it('are options of the middleware, not of a breaker that is made already', () => {
    const breaker = new CircuitBreaker({ services, storage: 'memory' })
    const given = { keyBy: 'tenantId', AwsClient: DynamoDBClient, cacheExpiry: 0 } as never
    expect(() => circuitBreaker(breaker, given)).toThrow(/AwsClient is not an option.*cacheExpiry is not an option/s)
    expect(() => new CircuitBreaker({ services, storage: 'memory', cacheExpiry: 0 } as never)).toThrow(
      /cacheExpiry is not a setting/,
    )
  })

  it('are checked by circuitBreakerValidateOptions, and left as they are', () => {
    const options = Object.freeze({ services, storage: 'memory', cacheExpiry: 0, disablePrefetch: true })
    expect(circuitBreakerValidateOptions(options)).toBe(options)
    expect(() => circuitBreakerValidateOptions({ ...options, awsClientOptions: {} })).toThrow(
      'awsClientOptions and storage "memory" exclude each other',
    )
  })
})

describe('wrong values of them', () => {
  it.each([
    [{ cacheExpiry: -1 }, /^cacheExpiry must be a whole number of milliseconds from 0 to 86400000, but is -1$/],
    // To Middy an instant.
    [{ cacheExpiry: 1_800_000_000_000 }, /^cacheExpiry must be .* to 86400000, but is 1800000000000$/],
    [{ cacheExpiry: '5' }, /^cacheExpiry must be a whole number/],
    [{ disablePrefetch: 1 }, /^disablePrefetch must be true or false, but is 1$/],
    [{ AwsClient: new DynamoDBClient({ region: 'eu-west-1' }) }, /^AwsClient must be a function, but is an object$/],
    [{ awsClientOptions: 'eu-west-1' }, /^awsClientOptions must be an object/],
    [{ awsClientAssumeRole: '' }, /^awsClientAssumeRole must be a non-empty string/],
    [{ awsClientCapture: true }, /^awsClientCapture must be a function, but is true$/],
    [{ keyBy: 1 }, /^keyBy must be a function, or 'tenantId', but is 1$/],
  ])('are refused, number %#', (options, message) => {
    expect(problemsOf(options)).toEqual([expect.stringMatching(message)])
  })
})

/** Options that contradict each other, and the two names that the problem has. */
const contradictions: [string, string, object, Environment?][] = [
  ['cacheExpiry', 'cacheTtl', { cacheExpiry: 5_000, cacheTtl: 5_000 }],
  ['disablePrefetch', 'prefetch', { disablePrefetch: true, prefetch: true }],
  ['disablePrefetch', 'prefetch', { disablePrefetch: false, prefetch: false }],
  ['cacheExpiry', 'prefetch: true', { cacheExpiry: 0, prefetch: true }],
  ['awsClientAssumeRole', 'prefetch: true', { awsClientAssumeRole: 'admin', prefetch: true }],
  ['awsClientCapture', 'prefetch: true', { awsClientCapture: (client: unknown) => client, prefetch: true }],
  [
    'awsClientAssumeRole',
    'CIRCUIT_BREAKER_PREFETCH',
    { awsClientAssumeRole: 'admin', prefetch: false },
    { ...table, CIRCUIT_BREAKER_PREFETCH: 'True' },
  ],
  ['awsClientAssumeRole', 'credentials', { awsClientAssumeRole: 'admin', awsClientOptions: { credentials } }],
  [
    'awsClientAssumeRole',
    'credentials',
    { awsClientAssumeRole: 'admin', storage: { type: 'dynamodb', clientConfig: { credentials } } },
  ],
  [
    'awsClientOptions',
    'storage.clientConfig',
    { awsClientOptions: { region: 'a' }, storage: { type: 'dynamodb', clientConfig: { region: 'a' } } },
  ],
  [
    'AwsClient',
    'storage.client',
    { AwsClient: DynamoDBClient, storage: { type: 'dynamodb', client: new DynamoDBClient({ region: 'a' }) } },
  ],
  ['AwsClient', 'storage "memory"', { AwsClient: DynamoDBClient, storage: 'memory' }],
  ['awsClientOptions', 'storage "redis"', { awsClientOptions: {}, storage: { type: 'redis', url: 'redis://h' } }],
  ['awsClientAssumeRole', 'storage an object', { awsClientAssumeRole: 'a', storage: new MemoryCircuitStorage() }],
  [
    'awsClientCapture',
    'storage an object',
    { awsClientCapture: () => {}, storage: new DynamoDBCircuitStorage({ tableName: 'app' }) },
  ],
  ['AwsClient', 'storage "redis"', { AwsClient: DynamoDBClient }, { CIRCUIT_BREAKER_REDIS_URL: 'redis://h' }],
]

describe('two options that contradict each other', () => {
  it.each(contradictions)('%s and %s are refused', (...row) => {
    const [one, other, options, env] = row
    expect(problemsOf(options, env)).toEqual([`${one} and ${other} exclude each other`])
  })

  it.each([
    { cacheExpiry: 5_000, prefetch: true },
    { disablePrefetch: true, cacheExpiry: 0 },
    { awsClientAssumeRole: 'admin', disablePrefetch: true, awsClientOptions: { region: 'eu-west-1' } },
    { awsClientAssumeRole: 'admin', disablePrefetch: false },
    { awsClientCapture: (client: unknown) => client, prefetch: false },
    { AwsClient: DynamoDBClient, awsClientOptions: {}, prefetch: true, storage: 'dynamodb' },
    { services: { stripe: { cacheTtl: 0 } }, cacheExpiry: 5_000 },
  ])('are not these, number %#', (options) => {
    expect(problemsOf(options)).toEqual([])
  })

  it('are reported together with every other problem of the options', () => {
    const problems = problemsOf({
      services: [],
      storage: 'memory',
      AwsClient: DynamoDBClient,
      cacheExpiry: -1,
      cacheTtl: 1,
      keyBy: 1,
      failureThreshold: 0,
      cacheExpire: 1,
    })
    expect(problems).toHaveLength(7)
    for (const name of [
      'AwsClient and',
      'cacheExpiry must',
      'cacheExpiry and cacheTtl',
      'keyBy',
      'services',
      'failureThreshold',
      'cacheExpire is',
    ]) {
      expect(problems).toContainEqual(expect.stringContaining(name))
    }
  })

  it('throw a ConfigurationError from circuitBreaker', () => {
    let thrown: unknown
    try {
      circuitBreaker({ services, storage: 'memory', cacheExpiry: 0, cacheTtl: 0 })
    } catch (error) {
      thrown = error
    }
    expect(isConfigurationError(thrown)).toBe(true)
    expect(thrown).toMatchObject({
      problems: [{ setting: 'cacheExpiry', source: 'option', value: 0 }],
      cause: { package: 'middy-circuit-breaker' },
    })
  })
})
