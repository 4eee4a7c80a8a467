import { randomUUID } from 'node:crypto'
import { type DynamoDBClient, ScanCommand, UpdateTimeToLiveCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import type { Redis } from 'ioredis'
import { CircuitBreaker, type Finding, type StorageOption } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../src/storage/redis/index.ts'
import { callOf, documentedRule, documentedStatements, isAllowed } from '../support/documented-policy.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientRedis, patientStore } from '../support/patience.ts'
import { type RedisCluster, type RedisServer, startRedis, startRedisCluster } from '../support/redis-server.ts'

// A store that refuses is warned of as well.
beforeAll(() => {
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
})

const breakerOver = (storage: StorageOption, namespace = 'prod'): CircuitBreaker<'stripe' | 'paypal'> =>
  new CircuitBreaker({ services: ['stripe', 'paypal'], storage, namespace, ...patientStore }, { env: {} })

const summary = (findings: readonly Finding[]): (readonly [string, string])[] =>
  findings.map(({ severity, code }) => [severity, code])

describe('check on DynamoDB', () => {
  let server: DynamoDBServer
  let tableName: string

  beforeAll(async () => {
    server = await startDynamoDBLocal()
    tableName = await server.createTable()
    await breakerOver(new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) })).batchSetState({
      stripe: 'OPEN',
      paypal: 'CLOSED',
    })
  })
  afterAll(() => server?.stop())

  const contentsOf = async (table: string): Promise<unknown> => {
    const { Items } = await server.client().send(new ScanCommand({ TableName: table }))
    return Items?.sort((a, b) => String(a['PK']?.S).localeCompare(String(b['PK']?.S)))
  }

  /** A client to which IAM refuses some actions. */
  const without = (...denied: readonly string[]): DynamoDBClient => {
    const client = server.client(patientDynamoDB)
    client.middlewareStack.add(
      (next, { commandName }) =>
        async (args) => {
          const action = String(commandName).replace('Command', '')
          if (!denied.includes(action)) return next(args)
          throw Object.assign(new Error(`not authorized to perform: dynamodb:${action}`), {
            name: 'AccessDeniedException',
            $fault: 'client',
            $metadata: { httpStatusCode: 400 },
          })
        },
      { step: 'initialize' },
    )
    return client
  }

  const checkAs = (client: DynamoDBClient, table = tableName): Promise<Finding[]> =>
    breakerOver(new DynamoDBCircuitStorage({ tableName: table, client })).check()

  it('changes no item and creates none, and finds nothing wrong', async () => {
    const before = await contentsOf(tableName)
    expect(before).toHaveLength(4)
    expect(summary(await checkAs(server.client(patientDynamoDB)))).toEqual([['warning', 'time-to-live']])
    expect(await contentsOf(tableName)).toEqual(before)
  })

  it('creates no item where there is none, and says where it has looked, through the factory as well', async () => {
    const table = await server.createTable()
    const client = server.client(patientDynamoDB)
    const breaker = breakerOver({ type: 'dynamodb', tableName: table, client }, 'staging')
    const findings = await breaker.check()
    expect(summary(findings)).toEqual([
      ['warning', 'time-to-live'],
      ['info', 'nothing-stored'],
    ])
    expect(findings[1]?.message).toBe(
      `Nothing is stored under "staging#stripe" and "staging#paypal" in the DynamoDB table "${table}".`,
    )
    expect(await contentsOf(table)).toEqual([])
  })

  it.each(['GetItem', 'BatchGetItem', 'UpdateItem'])('finds that %s is not permitted', async (action) => {
    const errors = (await checkAs(without(action))).filter(({ severity }) => severity === 'error')
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'store-misconfigured',
        message: expect.stringContaining(`this function's role may not do dynamodb:${action} on the table`),
      }),
    ])
  })

  it('says what only operators need, and what was not checked, and takes neither for an error', async () => {
    const findings = await checkAs(without('DeleteItem', 'BatchWriteItem', 'Query', 'DescribeTimeToLive'))
    expect(summary(findings)).toEqual([
      ['info', 'not-checked'],
      ['info', 'operator-permission-missing'],
    ])
    expect(findings[0]?.message).toContain('this role may not do dynamodb:DescribeTimeToLive')
    expect(findings[1]?.message).toContain(
      'may not do dynamodb:DeleteItem and dynamodb:BatchWriteItem and dynamodb:Query',
    )
  })

  it('sends nothing that the documented policies do not allow, and all that the one for checks does', async () => {
    const client = server.client(patientDynamoDB)
    const seen: { action: string; allowedBy: string | undefined }[] = []
    const statements = documentedStatements().map((one) => ({ ...one, Resource: `:table/${tableName}` }))
    client.middlewareStack.add(
      (next, { commandName }) =>
        (args) => {
          const action = String(commandName).replace('Command', '')
          const input = args.input as Record<string, unknown>
          const allowedBy = statements.find((one) => isAllowed(one, callOf(action, input)))?.Sid
          seen.push({ action, allowedBy })
          return next(args)
        },
      { step: 'initialize' },
    )
    await checkAs(client)
    const actionsBy = (sid: string | undefined) => seen.filter(({ allowedBy }) => allowedBy === sid)
    expect(actionsBy(undefined)).toEqual([])
    const own = documentedStatements().find(({ Sid }) => Sid === 'CircuitBreakerCheck')?.Action
    expect(actionsBy('CircuitBreakerCheck').map(({ action }) => `dynamodb:${action}`)).toEqual(own)
    expect(new Set(seen.map(({ action }) => action)).size).toBe(7)
  })

  it('finds that a condition on the keys leaves out the index of the journal', async () => {
    const client = server.client(patientDynamoDB)
    client.middlewareStack.add(
      (next) => async (args) => {
        const { Key } = args.input as { readonly Key?: { readonly PK?: { readonly S?: string } } }
        if (Key?.PK?.S !== 'CIRCUIT#') return next(args)
        throw Object.assign(new Error('not authorized'), {
          name: 'AccessDeniedException',
          $fault: 'client',
          $metadata: {},
        })
      },
      { step: 'initialize' },
    )
    const found = (await checkAs(client)).find(({ code }) => code === 'journal-permission-missing')
    expect(found).toMatchObject({
      severity: 'warning',
      setting: 'journal',
      remedy: expect.stringContaining('"CIRCUIT#"'),
    })
  })

  it.each([
    ['ttl', []],
    ['expires', [['warning', 'time-to-live']]],
  ])('of a table that deletes items by %s finds %j', async (AttributeName, expected) => {
    const table = await server.createTable()
    const client = server.client(patientDynamoDB)
    const TimeToLiveSpecification = { AttributeName, Enabled: true }
    await client.send(new UpdateTimeToLiveCommand({ TableName: table, TimeToLiveSpecification }))
    const findings = await checkAs(client, table)
    expect(summary(findings.filter(({ code }) => code !== 'nothing-stored'))).toEqual(expected)
  })

  it('finds a key schema that is another one, and a table that does not exist', async () => {
    const client = server.client(patientDynamoDB)
    const table = await server.createTable({ singleKey: true })
    const [wrongKeys, ...others] = await checkAs(client, table)
    expect(wrongKeys).toMatchObject({ severity: 'error', code: 'store-misconfigured' })
    expect(wrongKeys?.message).toContain('does not match partitionKeyName/sortKeyName')
    expect(others.filter(({ severity }) => severity === 'error')).toEqual([])

    const [noTable, ...rest] = await checkAs(client, 'absent')
    expect(noTable?.message).toMatch(/^getState, batchGetState, .* failed: the table "absent" does not exist/)
    expect(rest).toEqual([])
  })

  it.each([
    [120, ['error', 'clock-skew']],
    [-20, ['warning', 'clock-skew']],
  ])('finds a clock that is %p s off by the date of an answer', async (seconds, expected) => {
    const client = server.client(patientDynamoDB)
    const { requestHandler } = client.config
    const handle = requestHandler.handle.bind(requestHandler)
    requestHandler.handle = async (...args) => {
      const answer = await handle(...args)
      const { headers } = answer.response
      // Fails where the server sends no date.
      const date = Object.keys(headers).find((name) => name.toLowerCase() === 'date') as string
      headers[date] = new Date(Date.parse(headers[date] as string) + seconds * 1_000).toUTCString()
      return answer
    }
    const findings = await checkAs(client)
    expect(summary(findings.filter(({ code }) => code === 'clock-skew'))).toEqual([expected])
  })
})

describe('check on Redis', () => {
  const rule = documentedRule().split(/\s+/)
  let server: RedisServer
  let admin: Redis
  /** It takes seconds to start: the tests before the last go on meanwhile. */
  let cluster: Promise<RedisCluster>

  beforeAll(async () => {
    cluster = startRedisCluster()
    cluster.catch(() => {})
    server = await startRedis({ users: ['admin on >admin ~* &* +@all'] })
    admin = server.client({ username: 'admin', password: 'admin' })
    const breaker = breakerOver(new RedisCircuitStorage({ client: admin }))
    await breaker.batchSetState({ stripe: 'OPEN', paypal: 'CLOSED' })
  })
  afterAll(() => Promise.all([server?.stop(), cluster?.then((started) => started.stop())]))

  const contents = async (): Promise<unknown> => {
    const keys = (await admin.keys('*')).sort()
    return Promise.all(keys.map(async (key) => [key, await admin.hgetall(key), await admin.pexpiretime(key)]))
  }

  const checkAs = async (rules: readonly string[]): Promise<Finding[]> => {
    const user = `user-${randomUUID()}`
    await admin.acl('SETUSER', user, 'on', '>secret', ...rules)
    const storage = new RedisCircuitStorage({
      url: `redis://${user}:secret@127.0.0.1:${server.port}`,
      options: patientRedis,
    })
    try {
      return await breakerOver(storage).check()
    } finally {
      await storage.close()
    }
  }

  const checkWith = (client: RedisClientLike, namespace?: string): Promise<Finding[]> =>
    breakerOver(new RedisCircuitStorage({ client }), namespace).check()

  it('changes no key and creates none, and finds nothing', async () => {
    const before = await contents()
    expect(before).toHaveLength(3)
    expect(await checkWith(admin)).toEqual([])
    expect(await contents()).toEqual(before)
  })

  it('creates no key where there is none, and says where it has looked, through the factory as well', async () => {
    const before = await contents()
    const [found, ...others] = await breakerOver({ type: 'redis', client: admin }, 'staging').check()
    expect(found?.message).toBe(
      'Nothing is stored under "staging#stripe" and "staging#paypal" in Redis, with the keys "circuit:…".',
    )
    expect(others).toEqual([])
    expect(await contents()).toEqual(before)
  })

  it('needs no permission beyond the documented ones', async () => {
    const findings = await checkAs(rule)
    expect(findings).toEqual([
      expect.objectContaining({
        code: 'not-checked',
        message: 'The clock and the eviction of keys of the Redis server was not checked: it refused TIME and INFO.',
      }),
    ])
  })

  it('finds that a user may use the keys of circuits, and not those of their journals', async () => {
    const keys = ['~circuit:prod#stripe', '~circuit:prod#paypal']
    const commands = rule.filter((part) => part.startsWith('+'))
    const codes = (findings: readonly Finding[]) =>
      findings.map(({ code }) => code).filter((code) => code !== 'not-checked')
    expect(codes(await checkAs([...keys, ...commands]))).toEqual(['journal-permission-missing'])
    expect(codes(await checkAs([...keys, '~circuit:prod#stripe##EVENTS', ...commands]))).toEqual([])
  })

  it('does not look at the journal where none is wanted', async () => {
    const user = `user-${randomUUID()}`
    await admin.acl(
      'SETUSER',
      user,
      'on',
      '>secret',
      '~circuit:prod#stripe',
      ...rule.filter((part) => part.startsWith('+')),
    )
    const url = `redis://${user}:secret@127.0.0.1:${server.port}`
    const storage = new RedisCircuitStorage({ url, options: patientRedis })
    const options = { services: ['stripe'], storage, namespace: 'prod', journal: false, ...patientStore } as const
    const findings = await new CircuitBreaker(options, { env: {} }).check().finally(() => storage.close())
    expect(findings.map(({ code }) => code)).toEqual(['not-checked'])
  })

  it.each(['hgetall', 'evalsha', 'eval', 'hmget', 'hset', 'hdel', 'exists', 'pexpire'])(
    'finds that a function may not do %s',
    async (command) => {
      // Whether the server knows the scripts already makes no difference.
      if (command !== 'evalsha') await admin.script('FLUSH')
      const findings = await checkAs(rule.filter((part) => part !== `+${command}`))
      const errors = findings.filter(({ severity }) => severity === 'error')
      expect(errors.length).toBeGreaterThan(0)
      for (const { code } of errors) expect(code).toBe('store-misconfigured')
      expect(errors.map(({ message, remedy }) => message + remedy).join()).toContain(`+${command}`)
    },
  )

  it('finds a server that knows the scripts now, and is not to be told them', async () => {
    await checkAs(rule)
    const errors = (await checkAs(rule.filter((part) => part !== '+eval'))).filter(
      ({ severity }) => severity === 'error',
    )
    expect(errors).toEqual([expect.objectContaining({ remedy: expect.stringMatching(/^Grant \+eval\. /) })])
  })

  it.each([
    ['persist', 'forceOpen() and forceClosed() fail'],
    ['del', 'reset() of a damaged record and batchClearState() fail'],
  ])('says that operators need %s', async (command, words) => {
    const findings = await checkAs([...rule.filter((part) => part !== `+${command}`), '+time', '+info'])
    expect(findings).toEqual([
      expect.objectContaining({
        code: 'operator-permission-missing',
        severity: 'info',
        message: expect.stringContaining(words),
      }),
    ])
  })

  it.each([
    ['READONLY', (own: Redis) => own.replicaof('127.0.0.1', 1)],
    ['OOM', (own: Redis) => own.config('SET', 'maxmemory', '1')],
    ['NOREPLICAS', (own: Redis) => own.config('SET', 'min-replicas-to-write', '1')],
  ])('finds a server that can be read and not written: %s', async (word, breakIt) => {
    const broken = await startRedis({ settings: { 'replica-serve-stale-data': 'yes' } })
    try {
      const client = broken.client()
      await breakerOver(new RedisCircuitStorage({ client })).batchSetState({ stripe: 'OPEN', paypal: 'CLOSED' })
      await breakIt(client)
      const findings = await checkWith(client)
      expect(summary(findings)).toEqual([['error', 'store-throttled']])
      expect(findings[0]?.message).toContain(`(Redis: ${word} `)
    } finally {
      await broken.stop()
    }
  })

  it.each([
    ['allkeys-lru', '100mb', [['warning', 'eviction']]],
    ['allkeys-lru', '0', []],
    ['volatile-lru', '100mb', []],
    ['noeviction', '100mb', []],
  ])('of a server with the policy %s and the limit %s finds %j', async (policy, maxmemory, expected) => {
    const own = await startRedis({ settings: { maxmemory, 'maxmemory-policy': policy } })
    try {
      const findings = await checkWith(own.client())
      expect(summary(findings.filter(({ code }) => code !== 'nothing-stored'))).toEqual(expected)
    } finally {
      await own.stop()
    }
  })

  it.each([
    [120, ['error', 'clock-skew']],
    [-20, ['warning', 'clock-skew']],
  ])('finds a clock that is %p s off', async (seconds, expected) => {
    const client: RedisClientLike = {
      call: async (command, ...args) => {
        const reply = await admin.call(command, ...args)
        return command === 'time' ? [String(Number((reply as string[])[0]) + seconds), '0'] : reply
      },
    }
    expect(summary(await checkWith(client))).toEqual([expected])
  })

  it('finds nothing wrong with a cluster', async () => {
    const { client } = await cluster
    const findings = await checkWith(client())
    expect(summary(findings)).toEqual([['info', 'nothing-stored']])
  })
})
