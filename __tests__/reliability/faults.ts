/**
 * How a store can break: each fault with what it needs, how it is made and how it is healed.
 *
 * @module
 */

import { randomUUID } from 'node:crypto'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { mockClient } from 'aws-sdk-client-mock'
import type { Redis, RedisOptions } from 'ioredis'
import type { StorageErrorKind as Kind } from '../../src/errors.ts'
import type { ICircuitStorage } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import {
  dynamoDBError,
  type FaultProxy,
  type Protocol,
  type ProxyFault,
  startFaultProxy,
} from '../support/fault-proxy.ts'
import { startFullListener } from '../support/full-listener.ts'
import { createHostName } from '../support/host-names.ts'
import { patientDynamoDB, patientRedis } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { patience, waitFor } from '../support/time.ts'
import type { Clock } from './clock.ts'

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
  /** Whether what is asked gets no answer, for some time or for ever. */
  readonly isSilent?: boolean
  /** Whether it belongs to the slice that every test run goes through. */
  readonly isInSlice: boolean
  /** Prepares everything; the store is well. */
  start(services: readonly string[]): Promise<Site>
}

/** An instance's own adapter, on the way that breaks. */
export interface Way {
  readonly storage: ICircuitStorage
  /** Whether something that the adapter has sent gets no answer now: nothing but time will bring one, if anything does. */
  isSilent(): boolean
}

/** A store that can be broken. */
export interface Site {
  /** @param clock the instance's: by it the answers are late that are late */
  connect(clock: Clock): Promise<Way>
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

/** Those that leave what is asked without an answer, for some time or for ever. */
const silencing: ReadonlySet<ProxyFault['kind']> = new Set(['hang', 'delay', 'trickle', 'black-hole'])

/** A store without the faults: its server, and how adapters reach it. */
interface Store {
  readonly protocol: Protocol
  readonly port: number
  /** @param limits those of the client: no stall of the machine shall reach them where they are not the subject */
  adapterAt(host: string, port: number, limits?: Limits): ICircuitStorage
  readonly truth: ICircuitStorage
}

type Limits = 'patient' | 'own connectTimeout'

async function dynamoDBStore(): Promise<Store> {
  const { server, tableName } = await sharedDynamoDB()
  return {
    protocol: 'http',
    port: Number(new URL(server.endpoint).port),
    adapterAt: (host, port, limits = 'patient') => {
      const requestHandler =
        limits === 'patient' ? patientDynamoDB.requestHandler : { requestTimeout: patience, socketTimeout: patience }
      const clientConfig = { ...server.clientConfig, endpoint: `http://${host}:${port}`, requestHandler }
      return new DynamoDBCircuitStorage({ tableName, clientConfig })
    },
    truth: new DynamoDBCircuitStorage({ tableName, client: server.client() }),
  }
}

async function redisStore(): Promise<Store> {
  const server = await sharedRedis()
  return {
    protocol: 'redis',
    port: server.port,
    adapterAt: (host, port, limits = 'patient') => {
      const options = limits === 'patient' ? patientRedis : { commandTimeout: patience, socketTimeout: patience }
      return new RedisCircuitStorage({ url: `redis://${host}:${port}`, options })
    },
    truth: new RedisCircuitStorage({ client: server.client() }),
  }
}

const stores = { DynamoDB: dynamoDBStore, Redis: redisStore }

/** A silent store is silent to each instance by its own clock, and hence behind a proxy of its own. */
async function behindProxies({ protocol, port, adapterAt, truth }: Store, fault: ProxyFault): Promise<Site> {
  const isSilencing = silencing.has(fault.kind)
  const proxies: FaultProxy[] = []
  let isBroken = false
  const startProxy = async (clock?: Clock): Promise<FaultProxy> => {
    const proxy = await startFaultProxy({ port }, protocol, clock)
    proxies.push(proxy)
    if (isBroken) await proxy.inflict(fault)
    return proxy
  }
  const shared = isSilencing ? undefined : await startProxy()
  return {
    connect: async (clock) => {
      const proxy = shared ?? (await startProxy(clock))
      return { storage: adapterAt('127.0.0.1', proxy.port), isSilent: () => isSilencing && proxy.holds }
    },
    truth,
    inflict: async () => {
      isBroken = true
      await Promise.all(proxies.map((proxy) => proxy.inflict(fault)))
    },
    heal: async () => void (await Promise.all(proxies.map((proxy) => proxy.heal()))),
    stop: async () => void (await Promise.all(proxies.map((proxy) => proxy.stop()))),
  }
}

/** Where the name of the store leads to while it is broken: nowhere, or to a host that does not take connections. */
function behindName(store: Fault['store'], name: string, makeTarget: (port: number) => Promise<Target>): Fault {
  const start = async (): Promise<Site> => {
    const host = createHostName()
    const { protocol, port, adapterAt, truth } = await stores[store]()
    const proxy = await startFaultProxy({ port }, protocol)
    const target = await makeTarget(proxy.port)
    let isBroken = false
    return {
      connect: async () => ({
        // A command that waits for its connection is given up by the client alone.
        storage: adapterAt(host.name, proxy.port, 'own connectTimeout'),
        isSilent: () => isBroken,
      }),
      truth,
      inflict: async () => {
        isBroken = true
        host.leadTo(target.address)
        // Without its connections the name is needed again.
        await proxy.inflict({ kind: 'hang' })
        await proxy.heal()
      },
      heal: async () => {
        isBroken = false
        host.leadTo('127.0.0.1')
      },
      stop: async () => void (await Promise.all([proxy.stop(), target.stop()])),
    }
  }
  return { store, name, kind: 'unavailable', isInSlice: true, isSilent: true, start }
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
    start: async () =>
      behindProxies(await dynamoDBStore(), { kind: 'answer', reply: dynamoDBError(name, 'Slow down.') }),
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
        // Where there are no credentials nothing is sent: it is no answer of the service.
        const answer = name.endsWith('ProviderError') ? {} : { $fault: 'client', $metadata: {} }
        mock.rejects(Object.assign(new Error(message), { name, ...answer }))
        clients.set(client, mock)
      }
      return {
        connect: async () => {
          const client = server.client(patientDynamoDB)
          clients.set(client, undefined)
          if (isBroken) breakOne(client)
          return { storage: new DynamoDBCircuitStorage({ tableName, client }), isSilent: isFalse }
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
    start: async () => behindProxies(await redisStore(), { kind: 'answer', reply: `-${word} ${message}\r\n` }),
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

const breakerRules = '~circuit:* +evalsha +eval +hgetall +hmget +hset +hdel +exists +pexpire +persist +del'

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
        await waitFor('the script keeps the server busy', () => answerOf(client), isRefusal('BUSY'))
      },
      heal: async (_, admin) => {
        const client = admin({ enableReadyCheck: false, disableClientInfo: true })
        await client.call('script', 'kill')
        // It is dead a little later than it is killed.
        await waitFor('the server answers again', () => answerOf(client), isPong)
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
        const filler = Array.from({ length: 15_000 }, (__, index) => [`filler:${index}`, randomUUID().repeat(8)])
        await client.mset(Object.fromEntries(filler))
        // In microseconds, for each key: longer than anybody asks.
        await client.config('SET', 'key-load-delay', '2000')
        admin()
          .call('debug', 'reload')
          .catch(() => {})
        await waitFor('the server loads its data', () => answerOf(client), isRefusal('LOADING'))
      },
      heal: async (_, admin) => {
        const client = admin({ enableReadyCheck: false, disableClientInfo: true })
        await client.config('SET', 'key-load-delay', '0')
        await waitFor('the server has loaded its data', () => answerOf(client), isPong)
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

/** Its answer to a `PING`, be it a refusal. */
function answerOf(client: Redis): Promise<string> {
  return client.ping().catch((error: Error) => error.message)
}

function isPong(answer: string): boolean {
  return answer === 'PONG'
}

function isRefusal(word: string): (answer: string) => boolean {
  return (answer) => answer.startsWith(word)
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
        connect: async () => ({
          storage: new RedisCircuitStorage({ url: server.url, options: patientRedis }),
          isSilent: isFalse,
        }),
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
      isSilent: silencing.has(fault.kind),
      start: async () => behindProxies(await dynamoDBStore(), fault),
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
      isSilent: silencing.has(fault.kind),
      start: async () => behindProxies(await redisStore(), fault),
    }),
  ),
  ...nameFaults.filter(({ store }) => store === 'Redis'),
  ...redisReplyFaults,
  ...redisServerFaults,
]
