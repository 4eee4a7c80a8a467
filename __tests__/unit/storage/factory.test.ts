import { afterEach, describe, expect, it, jest } from '@jest/globals'
import fc from 'fast-check'
import { ConfigurationError, isConfigurationError } from '../../../src/errors.ts'
import { emptyRecord, type ICircuitStorage } from '../../../src/storage/circuit-storage.ts'
import { DynamoDBCircuitStorage, type DynamoDBCircuitStorageOptions } from '../../../src/storage/dynamodb.ts'
import {
  CircuitBreakerStorageFactory as Factory,
  type StorageConfig,
  type StorageOption,
} from '../../../src/storage/factory.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'

type Env = Record<string, string | undefined>

const table = { CIRCUIT_BREAKER_TABLE_NAME: 'circuits' }
const redis = { CIRCUIT_BREAKER_REDIS_URL: 'redis://:hunter2@localhost' }
const lambda = { AWS_LAMBDA_FUNCTION_NAME: 'checkout' }

function messages(option: unknown, env: Env = {}): string[] {
  try {
    Factory.create(option as StorageOption, env)
  } catch (error) {
    if (isConfigurationError(error)) return error.problems.map(({ message }) => message)
    throw error
  }
  return []
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
    ['DynamoDB when asked for', { ...table, CIRCUIT_BREAKER_STORAGE: 'dynamodb' }, 'dynamodb'],
    ['memory when everything is blank', { CIRCUIT_BREAKER_STORAGE: ' ', CIRCUIT_BREAKER_TABLE_NAME: '' }, 'memory'],
    ['memory when the name of the function is blank', { AWS_LAMBDA_FUNCTION_NAME: '' }, 'memory'],
  ])('by the environment is %s', (_, env, expected) => {
    expect(Factory.create(undefined, env) instanceof MemoryCircuitStorage).toBe(expected === 'memory')
  })

  it('takes the environment of the process by default', () => {
    expect(Factory.create()).toBeInstanceOf(MemoryCircuitStorage)
  })

  it('insists on a choice inside Lambda, and says what to set', () => {
    expect(messages(undefined, lambda)).toEqual([
      "storage must be chosen inside Lambda: set CIRCUIT_BREAKER_TABLE_NAME, or the storage option. If each instance shall decide for itself, say so with storage: 'memory' (default)",
    ])
  })
})

describe('refusing a wrong store', () => {
  const kinds = 'storage must be a store, a kind of store (dynamodb, memory) or an object with its type, but is'

  it.each<[unknown, string]>([
    [5, `${kinds} 5 (option)`],
    [null, `${kinds} null (option)`],
    [[], `${kinds} a list (option)`],
    [{}, `${kinds} an object (option)`],
    [{ type: 5 }, `${kinds} an object (option)`],
    [MemoryCircuitStorage, `${kinds} a function (option)`],
    ['dynamo', 'storage type "dynamo" is not known; did you mean dynamodb? (option)'],
    ['DynamoDB', 'storage type "DynamoDB" is not known; did you mean dynamodb? (option)'],
    ['', 'storage type "" is not known; there are dynamodb, memory (option)'],
    ['__proto__', 'storage type "__proto__" is not known; there are dynamodb, memory (option)'],
    [{ type: 'constructor' }, 'storage type "constructor" is not known; there are dynamodb, memory (option)'],
    [{ type: 'memory', maxCircuits: 5 }, 'storage.maxCircuits is not an option of memory (option)'],
    ['redis', 'storage type "redis" is not available in this version (option)'],
    [{ type: 'redis', url: 'redis://:hunter2@x' }, 'storage type "redis" is not available in this version (option)'],
    [
      { getState() {}, batchGetState() {}, clearState() {}, batchClearState() {}, batchSetState: true },
      'storage is a store without incrementFailures, compareAndSetState, batchSetState (option)',
    ],
  ])('%p', (option, message) => {
    expect(messages(option, table)).toEqual([message])
  })

  it('names the variable that it came from', () => {
    expect(messages(undefined, { CIRCUIT_BREAKER_STORAGE: 'memry' })).toEqual([
      'storage type "memry" is not known; did you mean memory? (CIRCUIT_BREAKER_STORAGE)',
    ])
    expect(messages(undefined, { ...lambda, ...redis })).toEqual([
      'storage type "redis" is not available in this version (CIRCUIT_BREAKER_REDIS_URL)',
    ])
    expect(messages(undefined, { CIRCUIT_BREAKER_STORAGE: 'dynamodb' })).toEqual([
      'storage.tableName is missing; set it, or CIRCUIT_BREAKER_TABLE_NAME (CIRCUIT_BREAKER_STORAGE)',
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
    })

    fc.assert(fc.property(fc.oneof(junk, config), (option) => void messages(option)))
  })
})

describe('the options of DynamoDB', () => {
  const client = { send: async () => ({}) }

  it.each<[object, string]>([
    [{ tableName: '' }, 'storage.tableName must be the name of a table'],
    [{ tabelName: 'circuits' }, 'storage.tabelName is not an option of dynamodb; did you mean tableName? (option)'],
    [{ partitionKeyName: 5 }, 'storage.partitionKeyName must be the name of an attribute'],
    [{ partitionKeyName: 'state' }, 'storage.partitionKeyName must be the name of an attribute'],
    [{ ttlAttributeName: 'inc3' }, 'storage.ttlAttributeName must be the name of an attribute'],
    [{ sortKeyName: '' }, 'storage.sortKeyName must be the name of an attribute'],
    [{ sortKeyName: 'é'.repeat(128) }, 'storage.sortKeyName must be the name of an attribute'],
    [{ sortKeyValue: 'a'.repeat(1025) }, 'storage.sortKeyValue must be a non-empty string'],
    [{ consistentRead: 'yes' }, 'storage.consistentRead must be true or false, but is "yes" (option)'],
    [{ client: {} }, 'storage.client must be a DynamoDBClient'],
    [{ clientConfig: 'eu-central-1' }, 'storage.clientConfig must be the configuration of a DynamoDBClient'],
    [{ client, clientConfig: {} }, 'storage.client and clientConfig exclude each other'],
    [{ partitionKeyName: 'SK' }, 'storage.partitionKeyName must differ from sortKeyName and ttlAttributeName'],
    [{ sortKeyName: 'ttl' }, 'storage.partitionKeyName must differ from sortKeyName and ttlAttributeName'],
  ])('refuse %p', (options, message) => {
    expect(messages({ type: 'dynamodb', ...options }, table)).toEqual([expect.stringContaining(message)])
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

describe('registered kinds of store', () => {
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

    expect(Factory.types()).toEqual(['dynamodb', 'memory', 'postgres'])
    expect([Factory.unregister('postgres'), Factory.unregister('postgres')]).toEqual([true, false])
    expect(Factory.types()).toEqual(['dynamodb', 'memory'])
    expect(messages('postgres')).toEqual(['storage type "postgres" is not known; there are dynamodb, memory (option)'])
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
    expect(Factory.types()).toEqual(['dynamodb', 'memory'])
  })

  it.each([undefined, {}, Promise.resolve(new MemoryCircuitStorage())])('must not make %p', (made) => {
    Factory.register('postgres', () => made as never)

    expect(messages({ type: 'postgres' })).toEqual([
      'the factory registered for "postgres" returned a store without getState, batchGetState, incrementFailures, compareAndSetState, batchSetState, clearState, batchClearState (option)',
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

describe('the DynamoDB adapter', () => {
  afterEach(() => {
    jest.unstable_unmockModule('../../../src/storage/dynamodb.ts')
    jest.resetModules()
  })

  /** Replaces the adapter's module, and imports the factory anew. */
  async function withAdapter(adapter: () => unknown) {
    jest.unstable_mockModule('../../../src/storage/dynamodb.ts', adapter as () => object)
    const { CircuitBreakerStorageFactory } = await import('../../../src/storage/factory.ts')
    return CircuitBreakerStorageFactory.create({ type: 'dynamodb', tableName: 'circuits', sortKeyName: null }, {})
  }

  it('is loaded at the first operation, once, and given the options without the type', async () => {
    const loaded = jest.fn()
    const made = jest.fn()
    const storage = await withAdapter(() => {
      loaded()
      return {
        DynamoDBCircuitStorage: class extends MemoryCircuitStorage {
          constructor(options: object) {
            super()
            made(options)
          }
        },
      }
    })
    await storage.close?.()

    expect(loaded).not.toHaveBeenCalled()
    await Promise.all([storage.getState('stripe'), storage.batchGetState(['stripe'])])
    expect(loaded).toHaveBeenCalledTimes(1)
    expect(made.mock.calls).toEqual([[{ tableName: 'circuits', sortKeyName: null }]])
  })

  it('is given every call as it is, and its answers come back', async () => {
    const calls: unknown[][] = []
    const answering =
      (name: string) =>
      async (...args: unknown[]) => {
        calls.push([name, ...args])
        return `answer of ${name}`
      }
    const names = [
      'getState',
      'batchGetState',
      'incrementFailures',
      'compareAndSetState',
      'batchSetState',
      'clearState',
    ]
    const all = [...names, 'batchClearState', 'close'] as const
    const storage = (await withAdapter(() => ({
      DynamoDBCircuitStorage: function Adapter() {
        return Object.fromEntries(all.map((name) => [name, answering(name)]))
      },
    }))) as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>

    for (const name of all) {
      const answer = await storage[name]?.('stripe', 'version', { id: 1 })
      expect(answer).toBe(`answer of ${name}`)
    }
    expect(calls).toEqual(all.map((name) => (name === 'close' ? [name] : [name, 'stripe', 'version', { id: 1 }])))
  })

  it('is tried again when it could not be loaded, and the failure is a storage error', async () => {
    const cause = new Error('no such module')
    let attempts = 0
    const storage = await withAdapter(() => ({
      DynamoDBCircuitStorage: function Adapter() {
        attempts++
        if (attempts === 1) throw cause
        return new MemoryCircuitStorage()
      },
    }))

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

  it('talks to the client that it was given', async () => {
    const client = { send: jest.fn(async () => ({})), config: {} }
    const storage = Factory.create({ type: 'dynamodb', tableName: 'circuits', client } as unknown as StorageOption, {})

    expect(client.send).not.toHaveBeenCalled()
    await storage.getState('stripe')
    expect(client.send).toHaveBeenCalled()
  })
})
