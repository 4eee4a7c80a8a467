import { inspect } from 'node:util'
import { afterEach, describe, expect, it, jest } from '@jest/globals'
import fc from 'fast-check'
import { ConfigurationError, type ConfigurationProblem, isConfigurationError } from '../../../src/errors.ts'
import { Problems } from '../../../src/settings/problems.ts'
import type { ICircuitStorage } from '../../../src/storage/contract.ts'
import { DynamoDBCircuitStorage, type DynamoDBCircuitStorageOptions } from '../../../src/storage/dynamodb/index.ts'
import {
  CircuitBreakerStorageFactory as Factory,
  type RedisStorageConfig,
  resolveStorage,
  type StorageConfig,
  type StorageOption,
} from '../../../src/storage/factory.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'
import { emptyRecord } from '../../../src/storage/record.ts'
import { RedisCircuitStorage, type RedisCircuitStorageOptions } from '../../../src/storage/redis/index.ts'
import { redisOptionRules } from '../../../src/storage/redis/options.ts'

type Env = Record<string, string | undefined>

const urlAllowed = redisOptionRules.options['url']?.allowed

const table = { CIRCUIT_BREAKER_TABLE_NAME: 'circuits' }
const redis = { CIRCUIT_BREAKER_REDIS_URL: 'redis://:hunter2@localhost' }
const lambda = { AWS_LAMBDA_FUNCTION_NAME: 'checkout' }

function problems(option: unknown, env: Env = {}): readonly ConfigurationProblem[] {
  try {
    Factory.create(option as StorageOption, env)
  } catch (error) {
    if (isConfigurationError(error)) return error.problems
    throw error
  }
  return []
}

function messages(option: unknown, env: Env = {}): string[] {
  return problems(option, env).map(({ message }) => message)
}

/** What the factory makes a store from. */
function resolved(option: unknown, env: Env = {}): unknown {
  const found = new Problems()
  const config = resolveStorage(option, env, found)
  found.throwIfAny()
  return config
}

/** A store of the given kind of its own, and what it was made from. */
function registerProbe(type: string): { made: [StorageConfig, Env][]; store: ICircuitStorage } {
  const made: [StorageConfig, Env][] = []
  const store = new MemoryCircuitStorage()
  Factory.register(type, (...given) => {
    made.push(given)
    return store
  })
  return { made, store }
}

afterEach(() => {
  for (const type of Factory.types()) Factory.unregister(type)
})

describe('the choice of a store', () => {
  it('returns a store that is passed in', () => {
    const store = new MemoryCircuitStorage()

    expect(Factory.create(store, { ...table, CIRCUIT_BREAKER_STORAGE: 'nonsense' })).toBe(store)
  })

  it('recognises a store by its methods, even when it has a type of its own', () => {
    const store = Object.assign(new MemoryCircuitStorage(), { type: 'mine' })

    expect(Factory.create(store, {})).toBe(store)
  })

  it.each<StorageOption>(['memory', { type: 'memory' }])('makes a memory store for %p, wherever it runs', (option) => {
    expect(Factory.create(option, { ...table, ...lambda })).toBeInstanceOf(MemoryCircuitStorage)
  })

  it('gives each breaker its own memory', async () => {
    const [one, other] = [Factory.create('memory', {}), Factory.create('memory', {})]
    await one.compareAndSetState('stripe', undefined, { ...emptyRecord('e', 1), version: 'v' })

    expect(await other.getState('stripe')).toBeUndefined()
  })

  it.each<[string, Env, string]>([
    ['memory outside Lambda', {}, 'memory'],
    ['memory when asked for inside Lambda', { ...lambda, CIRCUIT_BREAKER_STORAGE: 'memory' }, 'memory'],
    ['DynamoDB when a table is named', { ...lambda, ...table }, 'dynamodb'],
    ['DynamoDB before Redis', { ...lambda, ...table, ...redis }, 'dynamodb'],
    ['what is asked for before what is named', { ...lambda, ...table, CIRCUIT_BREAKER_STORAGE: ' memory ' }, 'memory'],
    ['DynamoDB when asked for', { ...table, ...redis, CIRCUIT_BREAKER_STORAGE: 'dynamodb' }, 'dynamodb'],
    ['Redis when its URL is given', { ...lambda, ...redis }, 'redis'],
    ['Redis when its URL is given outside Lambda', redis, 'redis'],
    [
      'Redis when asked for, although a table is named',
      { ...table, ...redis, CIRCUIT_BREAKER_STORAGE: 'redis' },
      'redis',
    ],
    ['Redis when the table is blank', { ...redis, CIRCUIT_BREAKER_TABLE_NAME: ' ' }, 'redis'],
    ['the same in any case', { ...table, ...redis, CIRCUIT_BREAKER_STORAGE: 'ReDiS' }, 'redis'],
    ['memory when everything is blank', { CIRCUIT_BREAKER_STORAGE: ' ', CIRCUIT_BREAKER_TABLE_NAME: '' }, 'memory'],
    ['memory when the name of the function is blank', { AWS_LAMBDA_FUNCTION_NAME: '' }, 'memory'],
  ])('by the environment is %s', (_, env, expected) => {
    expect(resolved(undefined, env)).toMatchObject({ type: expected })
    expect(Factory.create(undefined, env) instanceof MemoryCircuitStorage).toBe(expected === 'memory')
  })

  it('takes the environment of the process by default', () => {
    expect(Factory.create()).toBeInstanceOf(MemoryCircuitStorage)
  })

  it('insists on a choice inside Lambda, and says what to set', () => {
    expect(messages(undefined, lambda)).toEqual([
      "storage must be chosen inside Lambda: set CIRCUIT_BREAKER_TABLE_NAME or CIRCUIT_BREAKER_REDIS_URL, or the storage option. If each instance shall decide for itself, say so with storage: 'memory' (default)",
    ])
  })
})

describe('refusing a wrong store', () => {
  const kinds = 'storage must be a store, a kind of store (dynamodb, memory, redis) or an object with its type, but is'

  it.each<[unknown, string]>([
    [5, `${kinds} 5 (option)`],
    [null, `${kinds} null (option)`],
    [[], `${kinds} a list (option)`],
    [{}, `${kinds} an object (option)`],
    [{ type: 5 }, `${kinds} an object (option)`],
    [MemoryCircuitStorage, `${kinds} a function (option)`],
    ['dynamo', 'storage type "dynamo" is not known; did you mean dynamodb? (option)'],
    ['DynamoDB', 'storage type "DynamoDB" is not known; did you mean dynamodb? (option)'],
    ['', 'storage type "" is not known; there are dynamodb, memory, redis (option)'],
    ['__proto__', 'storage type "__proto__" is not known; there are dynamodb, memory, redis (option)'],
    [{ type: 'constructor' }, 'storage type "constructor" is not known; there are dynamodb, memory, redis (option)'],
    [{ type: 'memory', maxCircuits: 5 }, 'storage.maxCircuits is not an option of the memory storage (option)'],
    ['redis', 'storage.url is missing; give a url, options or a client, or set CIRCUIT_BREAKER_REDIS_URL (option)'],
    ['Redis', 'storage type "Redis" is not known; did you mean redis? (option)'],
    ['redis://:hunter2@x', 'storage type a URL is not known; there are dynamodb, memory, redis (option)'],
    [
      { getState() {}, batchGetState() {}, clearState() {}, batchClearState() {}, batchSetState: true },
      'storage is a store without addOutcomes, compareAndSetState, batchSetState (option)',
    ],
  ])('%p', (option, message) => {
    expect(messages(option, table)).toEqual([message])
  })

  it('names the variable that it came from', () => {
    expect(messages(undefined, { CIRCUIT_BREAKER_STORAGE: 'memry' })).toEqual([
      'storage type "memry" is not known; did you mean memory? (CIRCUIT_BREAKER_STORAGE)',
    ])
    expect(messages(undefined, { CIRCUIT_BREAKER_STORAGE: 'redis' })).toEqual([
      'storage.url is missing; give a url, options or a client, or set CIRCUIT_BREAKER_REDIS_URL (CIRCUIT_BREAKER_STORAGE)',
    ])
    expect(messages('redis', { CIRCUIT_BREAKER_REDIS_URL: 'hunter2' })).toEqual([
      `storage.url must be ${urlAllowed}, but is something else (CIRCUIT_BREAKER_REDIS_URL)`,
    ])
    expect(messages(undefined, { CIRCUIT_BREAKER_STORAGE: 'dynamodb' })).toEqual([
      'storage.tableName is missing; give it, or set CIRCUIT_BREAKER_TABLE_NAME (CIRCUIT_BREAKER_STORAGE)',
    ])
    expect(messages('dynamodb', { CIRCUIT_BREAKER_TABLE_NAME: 'a table' })).toEqual([
      'storage.tableName must be the name of a table (3 to 255 letters, digits, "_", "-", ".") or its ARN, but is "a table" (CIRCUIT_BREAKER_TABLE_NAME)',
    ])
  })

  it('throws nothing but a ConfigurationError, whatever it is given', () => {
    const junk = fc.anything({ withBigInt: true, withNullPrototype: true, withObjectString: true })
    const config = fc.record({
      type: fc.constantFrom('dynamodb', 'memory', 'redis', 'x'),
      client: junk,
      tableName: junk,
      url: junk,
      options: junk,
      keyPrefix: junk,
    })

    fc.assert(fc.property(fc.oneof(junk, config), (option) => void messages(option)))
  })
})

describe('the options of DynamoDB', () => {
  const client = { send: async () => ({}) }

  it('are refused under the name of the setting', () => {
    expect(messages({ type: 'dynamodb', tabelName: 'circuits' }, table)).toEqual([
      'storage.tabelName is not an option of the DynamoDB storage; did you mean tableName? (option)',
    ])
    expect(messages({ type: 'dynamodb', sortKeyName: 'ttl' }, table)).toEqual([
      expect.stringMatching(/^storage\.partitionKeyName must differ .*\(option\)$/),
    ])
  })

  it('are all reported at once, without what they hold', () => {
    const found = messages({ type: 'dynamodb', client: { secret: 'hunter2' }, clientConfig: [], consistentRead: 0 }, {})

    expect(found).toHaveLength(5)
    expect(found.join()).not.toContain('hunter2')
  })

  it('are accepted without a sort key, with an ARN, and with undefined for not set', () => {
    const tableName = 'arn:aws:dynamodb:eu-central-1:123456789012:table/circuits'

    expect(messages({ type: 'dynamodb', tableName, sortKeyName: null, client: undefined, clientConfig: {} })).toEqual(
      [],
    )
    expect(messages({ type: 'dynamodb', tableName: undefined, sortKeyName: undefined, client }, table)).toEqual([])
  })

  it('are never refused later by the adapter, when they were accepted here', () => {
    const name = fc.oneof(
      fc.constantFrom('PK', 'SK', 'ttl', 'state', 'leases', 'inc1', 'inc99', 'toString', ''),
      fc.string(),
    )
    const options = fc.record(
      {
        tableName: fc.oneof(fc.constantFrom('circuits', 'ab', 'arn:aws:x', 'a b'), fc.string()),
        partitionKeyName: name,
        sortKeyName: fc.option(name),
        sortKeyValue: name,
        ttlAttributeName: name,
        consistentRead: fc.oneof(fc.boolean(), fc.constant(1)),
        client: fc.constantFrom(client, {}, undefined),
        clientConfig: fc.constantFrom({}, [], undefined),
      },
      { requiredKeys: ['tableName'] },
    )

    fc.assert(
      fc.property(options, (given) => {
        if (messages({ type: 'dynamodb', ...given }).length > 0) return
        expect(() => new DynamoDBCircuitStorage(given as unknown as DynamoDBCircuitStorageOptions)).not.toThrow()
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('the options of Redis', () => {
  const client = { call: async () => [] }
  const url = 'rediss://breaker:hunter2@cache.example.com:6380/1'

  it.each<[string, unknown, Env, object]>([
    ['the URL as an option', { type: 'redis', url }, {}, { url }],
    ['the URL as an option before the variable', { type: 'redis', url }, redis, { url }],
    ['the URL of the variable', 'redis', { CIRCUIT_BREAKER_REDIS_URL: ` ${url}\n` }, { url }],
    [
      'the URL of the variable where the option is undefined',
      { type: 'redis', url: undefined, client: undefined },
      { CIRCUIT_BREAKER_REDIS_URL: url },
      { url },
    ],
    ['options', { type: 'redis', options: { host: 'cache' } }, {}, { options: { host: 'cache' } }],
    [
      'options together with the URL of the variable',
      { type: 'redis', options: { tls: {} } },
      { CIRCUIT_BREAKER_REDIS_URL: url },
      { url, options: { tls: {} } },
    ],
    ['a key prefix', { type: 'redis', url, keyPrefix: 'app:' }, {}, { url, keyPrefix: 'app:' }],
    ['a client', { type: 'redis', client, keyPrefix: 'app:' }, {}, { client, keyPrefix: 'app:' }],
    ['a client and not the variable', { type: 'redis', client }, redis, { client }],
    [
      'a client and not the variable, be it wrong',
      { type: 'redis', client },
      { CIRCUIT_BREAKER_REDIS_URL: '!' },
      { client },
    ],
    [
      'a client, with undefined for not set',
      { type: 'redis', client, url: undefined, options: undefined },
      redis,
      { client },
    ],
  ])('may be %s', (_, option, env, expected) => {
    expect(resolved(option, env)).toStrictEqual({ type: 'redis', ...expected })
    expect(messages(option, env)).toEqual([])
  })

  it('keep the client as it is', () => {
    expect((resolved({ type: 'redis', client }) as StorageConfig)['client']).toBe(client)
  })

  it('are refused under the name of the setting', () => {
    expect(messages({ type: 'redis', uri: url }, redis)).toEqual([
      'storage.uri is not an option of the Redis storage; did you mean url? (option)',
    ])
    expect(messages({ type: 'redis', client, url }, redis)).toEqual([
      'storage.client excludes url and options: a client is used as it is (option)',
    ])
  })

  it('are all reported at once', () => {
    const wrong = { type: 'redis', keyPrefix: '', client: {}, url: 'hunter2', options: 5, prefix: 'x' }

    expect(problems(wrong).map(({ setting }) => setting)).toEqual([
      'storage.keyPrefix',
      'storage.client',
      'storage.url',
      'storage.options',
      'storage.prefix',
      'storage.client',
    ])
  })

  it.each([
    5,
    null,
    { href: 'redis://:hunter2@host' },
    new URL('redis://:hunter2@host'),
    '',
    'hunter2',
    'breaker:hunter2@host:6379',
    'http://:hunter2@host',
    'redis:/hunter2',
    'redis://',
    'redis://:hunter2@',
    'redis://:hunter2@host:port',
    'redis://:hunter2@host/database',
    'redis://:hunter2@host/0/1',
    'redis://:hunter2@host#0',
    'redis://:hunter2%zz@host',
    'redis://:hun/ter2@host',
    'redis://:hunter2 @ho st',
  ])('refuse %p for the URL, and show neither it nor a password in it', (wrong) => {
    const asOption = problems({ type: 'redis', url: wrong }, {})
    const asVariable = typeof wrong === 'string' ? problems('redis', { CIRCUIT_BREAKER_REDIS_URL: wrong }) : []
    const withClient = problems({ type: 'redis', url: wrong, client, options: {} }, {})

    expect(asOption).toEqual([
      {
        setting: 'storage.url',
        source: 'option',
        value: undefined,
        message: `storage.url must be ${urlAllowed}, but is something else (option)`,
      },
    ])
    expect(asVariable).toHaveLength(typeof wrong === 'string' ? 1 : 0)
    expect(withClient).toHaveLength(2)
    for (const found of [asOption, asVariable, withClient]) {
      const error = new ConfigurationError(found)
      const shown = inspect(error, { depth: 9, showHidden: true }) + JSON.stringify([error, found]) + error.stack
      expect(shown).not.toMatch(/hunter2|ter2@/)
    }
  })

  it('do not show a right URL either, whatever else is wrong', () => {
    const wrong = { type: 'redis', url, keyPrefix: url, client: url, options: url, [url]: url, uri: url }
    const found = [
      ...problems(wrong, {}),
      ...problems({ ...wrong, url: undefined }, { CIRCUIT_BREAKER_REDIS_URL: url }),
    ]
    const shown = found.map(({ value, message }) => `${value} ${message.replace(url, 'the name of the option')}`)

    expect(found.length).toBeGreaterThan(8)
    expect(shown.join()).not.toContain('hunter2')
  })

  it('are never refused later by the adapter, when they were accepted here', () => {
    const some = fc.oneof(
      fc.string(),
      fc.webUrl(),
      fc.constant(url),
      fc.stringMatching(/^rediss?:\/\/[:@/a0%.#?[\]]+$/),
    )
    const options = fc.record(
      {
        keyPrefix: fc.oneof(fc.string(), fc.constantFrom(undefined, 5)),
        url: fc.option(some, { nil: undefined }),
        options: fc.constantFrom({}, [], undefined, { host: 'cache' }),
        client: fc.constantFrom(undefined, undefined, client, {}, null),
      },
      { requiredKeys: [] },
    )
    const accepted = (given: object): boolean => messages({ type: 'redis', ...given }).length === 0

    fc.assert(
      fc.property(options, (given) => {
        const make = () => new RedisCircuitStorage(given as RedisCircuitStorageOptions)
        if (accepted(given)) expect(make).not.toThrow()
        else expect(make).toThrow(ConfigurationError)
      }),
      { numRuns: 1_000 },
    )
  })
})

describe('registered kinds of store', () => {
  it('are named by a variable in any case', () => {
    const { store } = registerProbe('myPostgres')
    expect(Factory.create(undefined, { CIRCUIT_BREAKER_STORAGE: 'MYPOSTGRES' })).toBe(store)
  })

  it('are made from their options and the environment, by name, by configuration or by variable', () => {
    const { made, store } = registerProbe('postgres')
    const config = { type: 'postgres', url: 'postgres://localhost', anything: 5 }
    const env = { CIRCUIT_BREAKER_STORAGE: 'postgres' }

    expect(Factory.create(config, table)).toBe(store)
    expect(Factory.create(undefined, env)).toBe(store)
    expect(Factory.create('postgres' as StorageOption, {})).toBe(store)
    expect(made).toEqual([
      [config, table],
      [{ type: 'postgres' }, env],
      [{ type: 'postgres' }, {}],
    ])
  })

  it('are listed until they are unregistered', () => {
    registerProbe('postgres')

    expect(Factory.types()).toEqual(['dynamodb', 'memory', 'redis', 'postgres'])
    expect([Factory.unregister('postgres'), Factory.unregister('postgres')]).toEqual([true, false])
    expect(Factory.types()).toEqual(['dynamodb', 'memory', 'redis'])
    expect(messages('postgres')).toEqual([
      'storage type "postgres" is not known; there are dynamodb, memory, redis (option)',
    ])
  })

  it('are suggested when the name is misspelt', () => {
    registerProbe('postgres')

    expect(messages('postgre')).toEqual(['storage type "postgre" is not known; did you mean postgres? (option)'])
  })

  it('replace an earlier one of the same name', () => {
    registerProbe('postgres')
    const { store } = registerProbe('postgres')

    expect(Factory.create({ type: 'postgres' }, {})).toBe(store)
  })

  it('cannot take the place of ours, nor be without a name or a factory', () => {
    const factory = () => new MemoryCircuitStorage()

    for (const type of ['dynamodb', 'memory', 'redis', '', 5 as never]) {
      expect(() => Factory.register(type, factory)).toThrow(ConfigurationError)
    }
    expect(() => Factory.register('postgres', undefined as never)).toThrow(ConfigurationError)
    expect(Factory.types()).toEqual(['dynamodb', 'memory', 'redis'])
  })

  it.each([undefined, {}, Promise.resolve(new MemoryCircuitStorage())])('must not make %p', (made) => {
    Factory.register('postgres', () => made as never)

    expect(messages({ type: 'postgres' })).toEqual([
      'the factory registered for "postgres" returned a store without getState, batchGetState, addOutcomes, compareAndSetState, batchSetState, clearState, batchClearState (option)',
    ])
  })

  it('let through what their factory throws', () => {
    const error = new Error('no url')
    Factory.register('postgres', () => {
      throw error
    })

    expect(() => Factory.create({ type: 'postgres' }, {})).toThrow(error)
  })
})

describe.each([
  {
    type: 'dynamodb',
    module: '../../../src/storage/dynamodb/storage.ts',
    name: 'UncheckedDynamoDBStorage',
    options: { tableName: 'circuits', sortKeyName: null },
  },
  {
    type: 'redis',
    module: '../../../src/storage/redis/storage.ts',
    name: 'UncheckedRedisStorage',
    options: { url: 'redis://localhost', keyPrefix: 'app:' },
  },
])('the adapter of $type', ({ type, module, name, options }) => {
  afterEach(() => {
    jest.unstable_unmockModule(module)
    jest.resetModules()
  })

  /** Replaces the adapter, and imports the factory anew. */
  async function withAdapter(adapter: () => unknown) {
    jest.unstable_mockModule(module, () => ({ [name]: adapter() }))
    const { CircuitBreakerStorageFactory } = await import('../../../src/storage/factory.ts')
    return CircuitBreakerStorageFactory.create({ type, ...options }, {})
  }

  it('is loaded at the first operation, once, and given the options without the type', async () => {
    const loaded = jest.fn()
    const made = jest.fn()
    const storage = await withAdapter(() => {
      loaded()
      return class extends MemoryCircuitStorage {
        constructor(...given: object[]) {
          super()
          made(Object.assign({}, ...given))
        }
      }
    })
    await storage.close?.()

    expect(loaded).not.toHaveBeenCalled()
    await Promise.all([storage.getState('stripe'), storage.batchGetState(['stripe'])])
    expect(loaded).toHaveBeenCalledTimes(1)
    expect(made.mock.calls).toEqual([[expect.objectContaining(options)]])
    expect(made.mock.calls[0]).not.toHaveProperty('0.type')
  })

  it('is given every call as it is, and its answers come back', async () => {
    const calls: unknown[][] = []
    const answering =
      (name: string) =>
      async (...args: unknown[]) => {
        calls.push([name, ...args])
        return `answer of ${name}`
      }
    const names = ['getState', 'batchGetState', 'addOutcomes', 'compareAndSetState', 'batchSetState', 'clearState']
    const all = [...names, 'batchClearState', 'prepare', 'close'] as const
    const adapter = Object.fromEntries(all.map((each) => [each, answering(each)]))
    const storage = (await withAdapter(
      () =>
        function Adapter() {
          return adapter
        },
    )) as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>

    for (const each of all) {
      const answer = await storage[each]?.('stripe', 'version', { id: 1 })
      expect(answer).toBe(each === 'prepare' ? answer : `answer of ${each}`)
    }
    expect(calls).toEqual(
      all.map((each) => (['prepare', 'close'].includes(each) ? [each] : [each, 'stripe', 'version', { id: 1 }])),
    )
  })

  it('is tried again when it could not be loaded, and the failure is a storage error', async () => {
    const cause = new Error('no such module')
    let attempts = 0
    const storage = await withAdapter(
      () =>
        function Adapter() {
          attempts++
          if (attempts === 1) throw cause
          return new MemoryCircuitStorage()
        },
    )

    const [first, second] = await Promise.allSettled([
      storage.getState('a'),
      storage.batchGetState(['a']),
      storage.close?.(),
    ])
    expect(first).toMatchObject({ reason: { name: 'CircuitStorageError', operation: 'getState', cause } })
    expect(second).toMatchObject({ reason: { code: 'CIRCUIT_STORAGE', operation: 'batchGetState', cause } })
    expect(attempts).toBe(1)
    expect(await storage.getState('a')).toBeUndefined()
  })

  it('has nothing to prepare if the adapter has not, and nothing to close before it was loaded', async () => {
    const adapter = jest.fn(() => class extends MemoryCircuitStorage {})
    const storage = await withAdapter(adapter)

    await storage.close?.()
    expect(adapter).not.toHaveBeenCalled()
    await storage.prepare?.()
    await storage.close?.()
    expect(adapter).toHaveBeenCalledTimes(1)
  })
})

describe('a client that is passed in', () => {
  it('of DynamoDB is talked to', async () => {
    const client = { send: jest.fn(async () => ({})), config: {} }
    const storage = Factory.create({ type: 'dynamodb', tableName: 'circuits', client } as unknown as StorageOption, {})

    expect(client.send).not.toHaveBeenCalled()
    await storage.getState('stripe')
    expect(client.send).toHaveBeenCalled()
  })

  it('of Redis is talked to, under the given prefix, and not closed', async () => {
    const client = { call: jest.fn(async (..._command: string[]) => []), quit: jest.fn(), disconnect: jest.fn() }
    const storage = Factory.create({ type: 'redis', client, keyPrefix: 'app:' }, redis)

    expect(client.call).not.toHaveBeenCalled()
    expect(await storage.getState('stripe')).toBeUndefined()
    expect(client.call.mock.calls).toEqual([['hgetall', 'app:stripe']])
    await storage.close?.()
    expect([client.quit.mock.calls, client.disconnect.mock.calls]).toEqual([[], []])
  })
})

describe('types', () => {
  it('exclude what excludes each other', () => {
    const client = { call: async () => [] }
    const right: RedisStorageConfig[] = [
      { type: 'redis' },
      { type: 'redis', url: 'redis://localhost', options: { tls: {} }, keyPrefix: 'app:' },
      { type: 'redis', client },
    ]
    // @ts-expect-error a client is used as it is
    const wrong: RedisStorageConfig = { type: 'redis', client, url: 'redis://localhost' }

    expect(right.map((option) => messages(option, redis))).toEqual([[], [], []])
    expect(messages(wrong)).toHaveLength(1)
  })
})
