/**
 * How a store can break: each fault with what it needs, how it is made and how it is healed.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { mockClient } from 'aws-sdk-client-mock'
import type { Redis, RedisOptions } from 'ioredis'
import type { StorageErrorKind as Kind } from '../../src/errors.ts'
import type { ICircuitStorage } from '../../src/storage/circuit-storage.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { RedisCircuitStorage } from '../../src/storage/redis.ts'
import { circuitRecord } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { dynamoDBError, type FaultProxy, type ProxyFault, startFaultProxy } from '../support/fault-proxy.ts'
import { startFullListener } from '../support/full-listener.ts'
import { createHostName } from '../support/host-names.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'

/** A way to break a store. */
export interface Fault {
  readonly store: 'DynamoDB' | 'Redis'
  readonly name: string
  /** How it has to be reported. */
  readonly kind: Kind
  /** How it may be reported as well. */
  readonly otherKinds?: readonly Kind[]
  /** What goes on as if there was no fault, so that there may be nothing to report. */
  readonly spares?: 'reads' | 'everything' | undefined
  /** Whether writes are carried out all the same, so that a trip can be the fleet's. */
  readonly writesLand?: boolean
  /** Whether it belongs to the slice that every test run goes through. */
  readonly isInSlice: boolean
  /** Prepares everything; the store is well. */
  start(services: readonly string[]): Promise<Site>
}

/** A store that can be broken. */
export interface Site {
  /** An instance's own adapter, on the way that breaks. */
  connect(): ICircuitStorage
  /** An adapter on a way of its own. */
  readonly truth: ICircuitStorage
  /** Whether what is stored does not survive. */
  readonly forgets?: boolean
  inflict(): Promise<void>
  heal(): Promise<void>
  stop(): Promise<void>
}

// The servers that faults share which do not harm the server itself.

let dynamoDB: Promise<{ readonly server: DynamoDBServer; readonly tableName: string }> | undefined
let redis: Promise<RedisServer> | undefined

function sharedDynamoDB() {
  dynamoDB ??= startDynamoDBLocal().then(async (server) => {
    const tableName = await server.createTable()
    // A new Java process takes its time for the first request of each kind.
    const storage = new DynamoDBCircuitStorage({ tableName, client: server.client() })
    const warm = async (service: string): Promise<void> => {
      for (let round = 0; round < 20; round++) {
        await storage.batchGetState([service])
        await storage.incrementFailures(service, undefined, { count: 1, at: Date.now(), id: randomUUID() })
      }
      await storage.compareAndSetState(service, undefined, circuitRecord())
      await storage.getState(service)
    }
    await Promise.all(Array.from({ length: 16 }, (_, index) => warm(`warm-${index}`)))
    return { server, tableName }
  })
  return dynamoDB
}

function sharedRedis() {
  redis ??= startRedis()
  return redis
}

/** Ends the servers that were shared. */
export async function stopServers(): Promise<void> {
  const [local, shared] = [await dynamoDB, await redis]
  dynamoDB = undefined
  redis = undefined
  await Promise.all([local?.server.stop(), shared?.stop()])
}

// ------------------------------------------------------------------------------------------------------- the network

const networkFaults: readonly [name: string, fault: ProxyFault, isInSlice: boolean, spares?: Fault['spares']][] = [
  ['connections are refused', { kind: 'refuse' }, true],
  ['connections are accepted, then silence', { kind: 'hang' }, true],
  ['the connection is reset in the middle of each reply', { kind: 'reset-mid-reply' }, false],
  ['the reply is cut off after the server has written', { kind: 'cut-reply' }, true],
  ['replies are 400 ms late', { kind: 'delay', by: 400 }, true],
  ['replies are 60 ms late', { kind: 'delay', by: 60 }, false, 'everything'],
  ['replies trickle in, a byte every 50 ms', { kind: 'trickle', every: 50 }, true, 'reads'],
  ['a black hole, which heals', { kind: 'black-hole' }, true],
]

/** Those of the network that let the server work. */
const landing: ReadonlySet<ProxyFault['kind']> = new Set(['reset-mid-reply', 'cut-reply', 'delay', 'trickle'])

async function dynamoDBAt(endpoint: string): Promise<Pick<Site, 'connect' | 'truth'>> {
  const { server, tableName } = await sharedDynamoDB()
  return {
    connect: () => new DynamoDBCircuitStorage({ tableName, clientConfig: { ...server.clientConfig, endpoint } }),
    truth: new DynamoDBCircuitStorage({ tableName, client: server.client() }),
  }
}

async function redisAt(url: string): Promise<Pick<Site, 'connect' | 'truth'>> {
  const server = await sharedRedis()
  return {
    connect: () => new RedisCircuitStorage({ url }),
    truth: new RedisCircuitStorage({ client: server.client() }),
  }
}

async function dynamoDBBehind(fault: ProxyFault): Promise<Site> {
  const { server } = await sharedDynamoDB()
  const proxy = await startFaultProxy({ port: Number(new URL(server.endpoint).port) }, 'http')
  return { ...(await dynamoDBAt(`http://127.0.0.1:${proxy.port}`)), ...broken(proxy, fault) }
}

async function redisBehind(fault: ProxyFault): Promise<Site> {
  const proxy = await startFaultProxy(await sharedRedis(), 'redis')
  return { ...(await redisAt(`redis://127.0.0.1:${proxy.port}`)), ...broken(proxy, fault) }
}

function broken(proxy: FaultProxy, fault: ProxyFault): Pick<Site, 'inflict' | 'heal' | 'stop'> {
  return { inflict: () => proxy.inflict(fault), heal: () => proxy.heal(), stop: () => proxy.stop() }
}

/** Where the name of the store leads to while it is broken: nowhere, or to a host that does not take connections. */
function behindName(store: Fault['store'], name: string, makeTarget: (port: number) => Promise<Target>): Fault {
  const start = async (): Promise<Site> => {
    const host = createHostName()
    const upstream =
      store === 'DynamoDB' ? Number(new URL((await sharedDynamoDB()).server.endpoint).port) : (await sharedRedis()).port
    const proxy = await startFaultProxy({ port: upstream }, store === 'DynamoDB' ? 'http' : 'redis')
    const target = await makeTarget(proxy.port)
    return {
      ...(store === 'DynamoDB'
        ? await dynamoDBAt(`http://${host.name}:${proxy.port}`)
        : await redisAt(`redis://${host.name}:${proxy.port}`)),
      inflict: async () => {
        host.leadTo(target.address)
        // Without its connections the name is needed again.
        await proxy.inflict({ kind: 'hang' })
        await proxy.heal()
      },
      heal: async () => host.leadTo('127.0.0.1'),
      stop: async () => void (await Promise.all([proxy.stop(), target.stop()])),
    }
  }
  return { store, name, kind: 'unavailable', isInSlice: true, start }
}

interface Target {
  readonly address: string | undefined
  stop(): Promise<void>
}

const nowhere = async (): Promise<Target> => ({ address: undefined, stop: async () => {} })

const deaf = async (port: number): Promise<Target> => {
  const address = '127.0.0.2'
  return { address, ...(await startFullListener(address, port)) }
}

const nameFaults = (['DynamoDB', 'Redis'] as const).flatMap((store) => [
  behindName(store, 'DNS does not answer', nowhere),
  behindName(store, 'connections are neither accepted nor refused', deaf),
])

// ------------------------------------------------------------------------------------------- what the servers answer

const throttled = ['ProvisionedThroughputExceededException', 'ThrottlingException', 'RequestLimitExceeded'] as const

const throttlingFaults = throttled.map(
  (name, index): Fault => ({
    store: 'DynamoDB',
    name: `\`${name}\``,
    kind: 'throttled',
    isInSlice: index === 0,
    start: () => dynamoDBBehind({ kind: 'answer', reply: dynamoDBError(name, 'Slow down.') }),
  }),
)

/** What the SDK rejects with. */
const sdkErrors: readonly [name: string, message: string, kind: Kind, isInSlice: boolean][] = [
  ['ThrottlingException', 'Rate exceeded', 'throttled', false],
  ['AccessDeniedException', 'User is not authorized to perform this', 'misconfigured', true],
  ['ResourceNotFoundException', 'Requested resource not found', 'misconfigured', true],
  ['ValidationException', 'The provided key element does not match the schema', 'misconfigured', true],
  ['UnrecognizedClientException', 'The security token included in the request is invalid.', 'misconfigured', false],
  ['CredentialsProviderError', 'Could not load credentials from any providers', 'misconfigured', false],
  ['InternalServerError', 'Internal server error', 'unavailable', false],
]

const sdkFaults = sdkErrors.map(
  ([name, message, kind, isInSlice]): Fault => ({
    store: 'DynamoDB',
    name: `the SDK rejects with \`${name}\``,
    kind,
    isInSlice,
    start: async () => {
      const { server, tableName } = await sharedDynamoDB()
      const clients = new Map<DynamoDBClient, { restore(): void } | undefined>()
      let isBroken = false
      const breakOne = (client: DynamoDBClient): void => {
        const mock = mockClient(client)
        mock.rejects(Object.assign(new Error(message), { name, $fault: 'client', $metadata: {} }))
        clients.set(client, mock)
      }
      return {
        connect: () => {
          const client = server.client()
          clients.set(client, undefined)
          if (isBroken) breakOne(client)
          return new DynamoDBCircuitStorage({ tableName, client })
        },
        truth: new DynamoDBCircuitStorage({ tableName, client: server.client() }),
        inflict: async () => {
          isBroken = true
          for (const client of clients.keys()) breakOne(client)
        },
        heal: async () => {
          for (const mock of clients.values()) mock?.restore()
        },
        stop: async () => {},
      }
    },
  }),
)

const redisReplies: readonly [word: string, message: string, kind: Kind, isInSlice: boolean][] = [
  ['LOADING', 'Redis is loading the dataset in memory', 'throttled', true],
  ['MOVED', '866 127.0.0.1:1', 'misconfigured', true],
  ['TRYAGAIN', 'Multiple keys request during rehashing of slot', 'throttled', false],
  ['CLUSTERDOWN', 'The cluster is down', 'throttled', false],
  ['MASTERDOWN', "Link with MASTER is down and replica-serve-stale-data is set to 'no'.", 'throttled', false],
]

const redisReplyFaults = redisReplies.map(
  ([word, message, kind, isInSlice]): Fault => ({
    store: 'Redis',
    name: `it answers \`${word}\``,
    kind,
    isInSlice,
    start: () => redisBehind({ kind: 'answer', reply: `-${word} ${message}\r\n` }),
  }),
)

// --------------------------------------------------------------------------------------------------- what Redis does

/** Connects an administrator. */
type Admin = (options?: RedisOptions) => Redis

interface RedisCondition {
  readonly forgets?: boolean
  readonly settings?: Readonly<Record<string, string>>
  /** Default: nothing. */
  readonly spares?: 'reads'
  inflict(server: RedisServer, admin: Admin, services: readonly string[]): Promise<unknown>
  heal(server: RedisServer, admin: Admin, services: readonly string[]): Promise<unknown>
}

const breakerRules =
  '~circuit:* +evalsha +eval +hgetall +hmget +hset +hdel +hincrby +exists +pttl +pexpire +persist +del'

const redisConditions: readonly [
  name: string,
  kind: Kind,
  isInSlice: boolean,
  condition: RedisCondition,
  otherKinds?: readonly Kind[],
][] = [
  [
    'the server is restarted, and has lost everything',
    'unavailable',
    true,
    { forgets: true, inflict: (server) => server.kill(), heal: (server) => server.restart() },
  ],
  [
    'the server becomes a replica (`READONLY`)',
    'throttled',
    true,
    {
      spares: 'reads',
      inflict: (_, admin) => admin().replicaof('127.0.0.1', 1),
      heal: (_, admin) => admin().replicaof('NO', 'ONE'),
    },
    ['unavailable'],
  ],
  [
    'the server has no memory left (`OOM`)',
    'throttled',
    true,
    {
      spares: 'reads',
      inflict: (_, admin) => admin().config('SET', 'maxmemory', '1'),
      heal: (_, admin) => admin().config('SET', 'maxmemory', '0'),
    },
  ],
  [
    'a script keeps the server busy (`BUSY`)',
    'throttled',
    true,
    {
      settings: { 'busy-reply-threshold': '10' },
      inflict: async (_, admin) => {
        const [client, busy] = [admin(), admin()]
        await Promise.all([client.ping(), busy.ping()])
        busy.eval('while true do end', 0).catch(() => {})
        while (
          !(await client.ping().then(
            () => false,
            (error: Error) => /^BUSY/.test(error.message),
          ))
        )
          await sleep(5)
      },
      heal: async (_, admin) => {
        const client = admin({ enableReadyCheck: false, disableClientInfo: true })
        await client.call('script', 'kill')
        // It is dead a little later than it is killed.
        while (!(await client.ping().then(isTrue, isFalse))) await sleep(5)
      },
    },
    ['unavailable'],
  ],
  [
    'the server loads its data (`LOADING`), for some seconds',
    'throttled',
    false,
    {
      settings: { 'enable-debug-command': 'yes', 'loading-process-events-interval-bytes': '1024' },
      inflict: async (_, admin) => {
        const client = admin()
        const filler = Array.from({ length: 1_500 }, (__, index) => [`filler:${index}`, randomUUID().repeat(8)])
        await client.mset(Object.fromEntries(filler))
        await client.config('SET', 'key-load-delay', '2000')
        admin()
          .call('debug', 'reload')
          .catch(() => {})
        const other = admin()
        while (
          !(await other.ping().then(
            () => false,
            (error: Error) => /^LOADING/.test(error.message),
          ))
        )
          await sleep(5)
      },
      heal: async (_, admin) => {
        const client = admin()
        while (
          await client.ping().then(
            () => false,
            () => true,
          )
        )
          await sleep(20)
      },
    },
    ['unavailable'],
  ],
  [
    'the keys hold something else (`WRONGTYPE`)',
    'misconfigured',
    true,
    {
      forgets: true,
      inflict: (_, admin, services) =>
        Promise.all(
          services.map((service) => admin().multi().del(`circuit:${service}`).set(`circuit:${service}`, 'x').exec()),
        ),
      heal: (_, admin, services) => admin().del(services.map((service) => `circuit:${service}`)),
    },
  ],
  [
    'the server wants a password (`NOAUTH`)',
    'misconfigured',
    true,
    {
      inflict: async (_, admin) => {
        const client = admin()
        await client.ping()
        await client.acl('SETUSER', 'default', 'resetpass', '>secret')
        await client.call('client', 'kill', 'USER', 'default', 'SKIPME', 'yes')
      },
      heal: (_, admin) => admin().acl('SETUSER', 'default', 'nopass'),
    },
    ['unavailable'],
  ],
  [
    'the user may only read (`NOPERM`)',
    'misconfigured',
    true,
    {
      spares: 'reads',
      inflict: (_, admin) => admin().acl('SETUSER', 'default', 'resetkeys', 'nocommands', '~circuit:*', '+hgetall'),
      heal: (_, admin) => admin().acl('SETUSER', 'default', 'resetkeys', ...breakerRules.split(' ')),
    },
  ],
  [
    'the user may do nothing (`NOPERM`)',
    'misconfigured',
    false,
    {
      inflict: (_, admin) => admin().acl('SETUSER', 'default', 'resetkeys', 'nocommands'),
      heal: (_, admin) => admin().acl('SETUSER', 'default', 'resetkeys', ...breakerRules.split(' ')),
    },
  ],
]

function isTrue(): boolean {
  return true
}

function isFalse(): boolean {
  return false
}

/** A server of its own, with an administrator whom nothing of it concerns. */
const redisServerFaults = redisConditions.map(
  ([name, kind, isInSlice, { forgets = false, settings = {}, spares, inflict, heal }, otherKinds = []]): Fault => ({
    store: 'Redis',
    name,
    kind,
    otherKinds,
    spares,
    isInSlice,
    start: async (services) => {
      const server = await startRedis({ users: ['admin on >admin ~* &* +@all'], settings })
      const admin: Admin = (options) => server.client({ username: 'admin', password: 'admin', ...options })
      const truth = new RedisCircuitStorage({ client: admin() })
      return {
        connect: () => new RedisCircuitStorage({ url: server.url }),
        truth,
        forgets,
        inflict: async () => void (await inflict(server, admin, services)),
        heal: async () => void (await heal(server, admin, services)),
        stop: () => server.stop(),
      }
    },
  }),
)

export const faults: readonly Fault[] = [
  ...networkFaults.map(
    ([name, fault, isInSlice, spares]): Fault => ({
      store: 'DynamoDB',
      name,
      kind: 'unavailable',
      isInSlice,
      spares,
      writesLand: landing.has(fault.kind),
      start: () => dynamoDBBehind(fault),
    }),
  ),
  ...nameFaults.filter(({ store }) => store === 'DynamoDB'),
  ...throttlingFaults,
  ...sdkFaults,
  ...networkFaults.map(
    ([name, fault, isInSlice, spares]): Fault => ({
      store: 'Redis',
      name,
      kind: 'unavailable',
      isInSlice,
      spares,
      writesLand: landing.has(fault.kind),
      start: () => redisBehind(fault),
    }),
  ),
  ...nameFaults.filter(({ store }) => store === 'Redis'),
  ...redisReplyFaults,
  ...redisServerFaults,
]
