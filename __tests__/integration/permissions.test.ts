import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Redis } from 'ioredis'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import type { ICircuitStorage } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import {
  callOf,
  type DynamoDBCall,
  documentedRule,
  documentedStatements,
  type Statement,
} from '../support/documented-policy.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedis, patientStore } from '../support/patience.ts'
import { type RedisCluster, type RedisServer, startRedis, startRedisCluster } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { ok, outcomeOf, unavailable } from '../support/virtual-fleet.ts'

/** What functions do with their store, from the first failure to the recovery, twice, and what operators do. */
const duties = {
  functions: async (storage: ICircuitStorage, service: string): Promise<void> => {
    // A clock that stands still until it is moved.
    let now = Date.now()
    const errors: unknown[] = []
    const instance = (): CircuitBreaker<string> =>
      new CircuitBreaker(
        {
          services: [service],
          storage,
          cacheTtl: 0,
          ...patientStore,
          onStorageError: ({ error }) => errors.push(error),
        },
        { env: {}, now: () => now, random: () => 0 },
      )
    const [first, second] = [instance(), instance()]
    // What the store was refused is what a test wants to hear of, and not what followed from it.
    const expectState = async (state: string): Promise<void> => {
      const record = await storage.getState(service)
      if (errors.length > 0) throw errors[0]
      expect(record?.state).toBe(state)
    }
    for (let outage = 0; outage < 2; outage++) {
      await Promise.all([first.load(), second.load()])
      // Both at once, so that one is refused.
      for (let n = 0; n < 3; n++) {
        await Promise.all([first, second].map((one) => outcomeOf(one.call(service, unavailable))))
        await Promise.all([first.flush(), second.flush()])
      }
      await expectState('OPEN')
      now += 15_000
      await first.load()
      await outcomeOf(first.call(service, unavailable))
      await first.flush()
      now += 30_000
      expect(await first.call(service, ok)).toBe('ok')
      await first.flush()
      await expectState('CLOSED')
    }
  },
  operators: async (storage: ICircuitStorage, service: string, damage: () => Promise<unknown>): Promise<void> => {
    const breaker = new CircuitBreaker({ services: [service], storage, ...patientStore }, { env: {} })
    await breaker.forceOpen(service)
    await breaker.forceClosed(service, { until: Date.now() + 3_600_000 })
    await breaker.reset(service)
    await breaker.batchSetState({ [service]: 'OPEN' })
    await breaker.batchGetState()
    await breaker.journal(service)
    await storage.listCircuits?.()
    await damage()
    await breaker.reset(service)
    await breaker.batchClearState()
  },
}

describe('the policies in docs/operate/permissions.md for DynamoDB', () => {
  let server: DynamoDBServer
  let tableName: string
  const calls: Record<'functions' | 'operators', DynamoDBCall[]> = { functions: [], operators: [] }

  beforeAll(async () => {
    server = await startDynamoDBLocal()
    tableName = await server.createTable()
    const [functions, operators] = [server.client(patientDynamoDB), server.client(patientDynamoDB)]
    record(functions, calls.functions)
    record(operators, calls.operators)
    const damage = async (): Promise<void> => {
      const { PutItemCommand } = await import('@aws-sdk/client-dynamodb')
      const Item = { PK: { S: 'CIRCUIT#prod-b' }, SK: { S: 'STATE' }, mine: { S: 'x' } }
      await server.client().send(new PutItemCommand({ TableName: tableName, Item }))
    }
    await duties.functions(new DynamoDBCircuitStorage({ tableName, client: functions }), 'prod-a')
    await duties.operators(new DynamoDBCircuitStorage({ tableName, client: operators }), 'prod-b', damage)
  })
  afterAll(() => server?.stop())

  function record(client: DynamoDBClient, into: DynamoDBCall[]): void {
    client.middlewareStack.add(
      (next, { commandName }) =>
        (args) => {
          into.push(callOf(String(commandName).replace('Command', ''), args.input as Record<string, unknown>))
          return next(args)
        },
      { step: 'initialize' },
    )
  }

  const statements = documentedStatements()
  const statementOf = (who: string): Statement => statements.find(({ Sid }) => Sid === who) as Statement

  it.each([
    ['functions', 'CircuitBreaker'],
    ['operators', 'CircuitBreakerOperators'],
  ] as const)('allows %s exactly what they were seen to do', (who, sid) => {
    const own = statementOf(sid)
    const needed = new Set(calls[who].map(({ action }) => action))
    // What functions may do need not be repeated for operators.
    const inherited = who === 'operators' ? statementOf('CircuitBreaker').Action : []
    expect([...own.Action].sort()).toEqual([...needed].filter((action) => !inherited.includes(action)).sort())
  })

  it('names one table, and the keys of circuits alone', () => {
    for (const { Action, Effect, Resource, Condition } of statements) {
      expect([Effect, Resource]).toEqual(['Allow', expect.stringMatching(/^arn:aws:dynamodb:[^*]*:table\/app$/)])
      const hasKeys = Action.join() !== 'dynamodb:DescribeTimeToLive'
      const condition = { 'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['CIRCUIT#*'] } }
      expect(Condition).toEqual(hasKeys ? condition : undefined)
    }
    const all = [...calls.functions, ...calls.operators]
    expect(new Set(all.map(({ table }) => table))).toEqual(new Set([tableName]))
    // An action without a key would not be covered by the condition.
    for (const { action, keys } of all) expect([action, keys.length]).toEqual([action, Math.max(1, keys.length)])
    for (const key of all.flatMap(({ keys }) => keys)) expect(key).toMatch(/^CIRCUIT#/)
  })

  it('is what the README and the code say in words', () => {
    const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
    const source = readFileSync(new URL('../../src/storage/dynamodb/index.ts', import.meta.url), 'utf8')
    const [first, ...others] = statementOf('CircuitBreaker').Action.map((action, index) =>
      index === 0 ? action : action.replace('dynamodb:', ''),
    )
    for (const text of [readme, source]) for (const name of [first, ...others]) expect(text).toContain(`\`${name}\``)
  })
})

describe('the rule in docs/operate/permissions.md for Redis', () => {
  const rule = documentedRule()
  const commands = rule.split(/\s+/).filter((part) => part.startsWith('+'))
  let server: RedisServer
  let admin: Redis
  /** It takes seconds to start: the tests before the last go on meanwhile. */
  let cluster: Promise<RedisCluster>

  beforeAll(async () => {
    cluster = startRedisCluster()
    cluster.catch(() => {})
    server = await startRedis({ users: ['admin on >admin ~* &* +@all'] })
    admin = server.client({ username: 'admin', password: 'admin' })
  })
  afterAll(() => Promise.all([server?.stop(), cluster?.then((started) => started.stop())]))

  /** Everything, as a user who may do what the rule says. */
  const everythingAs = async (rules: string): Promise<void> => {
    const user = `user-${randomUUID()}`
    await admin.acl('SETUSER', user, 'on', '>secret', ...rules.split(/\s+/))
    const storage = new RedisCircuitStorage({
      url: `redis://${user}:secret@127.0.0.1:${server.port}`,
      options: patientRedis,
    })
    const service = randomUUID()
    try {
      // So that the scripts have to be sent, too.
      await admin.script('FLUSH')
      await duties.functions(storage, `f-${service}`)
      await duties.operators(storage, `o-${service}`, () => admin.hset(`circuit:o-${service}`, { mine: 'x' }))
    } finally {
      await storage.close()
    }
  }

  it('suffices for everything that functions and operators do', () => everythingAs(rule))

  it.each(commands)('holds nothing that is not needed: without %s something fails', async (command) => {
    const others = rule.split(/\s+/).filter((part) => part !== command)
    await expect(everythingAs(others.join(' '))).rejects.toThrow('the Redis user lacks a permission. Grant')
  })

  it('is more than functions need that leave operating to others: they delete nothing and override nothing', async () => {
    await admin.acl('SETUSER', 'modest', 'on', '>secret', ...rule.split(/\s+/), '-persist', '-del', '-scan')
    const storage = new RedisCircuitStorage({
      url: `redis://modest:secret@127.0.0.1:${server.port}`,
      options: patientRedis,
    })
    await duties.functions(storage, randomUUID()).finally(() => storage.close())
  })

  it('opens no other key', async () => {
    expect(rule.split(/\s+/).filter((part) => !part.startsWith('+'))).toEqual(['~circuit:*'])
    await admin.acl('SETUSER', 'confined', 'on', '>secret', ...rule.split(/\s+/))
    const confined = server.client({ username: 'confined', password: 'secret' })
    await expect(confined.hgetall('other:key')).rejects.toThrow('NOPERM')
    await expect(confined.eval("return redis.call('HSET', 'other:key', 'a', 'b')", 0)).rejects.toThrow("can't access")
  })

  it('is what the server was seen to be asked for, by scripts as well', async () => {
    const asked = new Set<string>()
    const monitor = await server.client({ username: 'admin', password: 'admin' }).monitor()
    monitor.on('monitor', (_time: string, [name = '']: string[], _source: string, _database: string) => {
      asked.add(name.toLowerCase())
    })
    const storage = new RedisCircuitStorage({ url: server.url, options: patientRedis })
    const service = randomUUID()
    await admin.script('FLUSH')
    await duties.functions(storage, `f-${service}`)
    await duties.operators(storage, `o-${service}`, () => storage.getState('o').then(() => damageAs(server, service)))
    await storage.close()
    // Commands come in their order: when this one was seen, so were all before it.
    await admin.echo('the end')
    await waitFor('the end is seen', () => asked.has('echo'))
    monitor.disconnect()
    for (const own of ['echo', 'monitor', 'auth', 'acl', 'script', 'quit', 'info', 'hello', 'client']) asked.delete(own)
    expect([...asked].map((name) => `+${name}`).sort()).toEqual([...commands].sort())
  })

  it('is what the code says', () => {
    const sources = ['index.ts', 'errors.ts'].map((file) =>
      readFileSync(new URL(`../../src/storage/redis/${file}`, import.meta.url), 'utf8'),
    )
    const words = sources
      .join('')
      .replace(/' \+\n\s*'/g, '')
      .replace(/\n \* /g, ' ')
    expect(words.split(commands.join(' ')).length - 1).toBe(2)
  })

  it('suffices in a cluster as well, for the commands about circuits', async () => {
    const { nodes, client: connect } = await cluster
    const user = 'breaker'
    // The client itself needs these to find the nodes.
    const rules = ['on', '>secret', ...rule.split(/\s+/), '+cluster|slots', '+cluster|info', '+info']
    await Promise.all(nodes.map((node) => node.client().acl('SETUSER', user, ...rules)))
    const storage = new RedisCircuitStorage({ client: connect({}, { username: user, password: 'secret' }) })
    for (let n = 0; n < 6; n++) await duties.functions(storage, `f-${randomUUID()}`)
  })
})

async function damageAs(server: RedisServer, service: string): Promise<void> {
  const client = server.client()
  await client.hset(`circuit:o-${service}`, { mine: 'x' })
}
