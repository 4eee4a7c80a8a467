/**
 * The clients that the Redis storage takes as they are. The tests run for each of them, and the table in
 * `docs/operate/storage-clients.md` lists them.
 *
 * @module
 */

import { Redis as Upstash } from '@upstash/redis'
import { GlideClient, GlideClusterClient, Logger } from '@valkey/valkey-glide'
import * as ioredis from 'ioredis'
import * as ioredis5 from 'ioredis5'
import * as iovalkey from 'iovalkey'
import * as redis from 'redis'
import * as redis4 from 'redis4'
import type { RedisClient } from '../../src/storage/redis/index.ts'
import { startSentinel } from './redis-server.ts'
import { patience } from './time.ts'
import { startUpstash } from './upstash-service.ts'

export interface TestedClient {
  /** The library, with its major version where there are several. */
  readonly name: string
  /** The classes and functions that make it. */
  readonly made: readonly string[]
  /** Its commands wait while the server is down, whatever it is told. */
  readonly waits?: true
  readonly open: (port: number, how?: Opening) => Promise<OpenClient>
  /** Its client for a cluster, if it has one. */
  readonly openCluster?: (ports: readonly number[]) => Promise<OpenClient>
}

export interface Opening {
  readonly user?: { readonly username: string; readonly password: string }
  /** It does not wait long for a server that is down. */
  readonly impatient?: boolean
}

export interface OpenClient {
  readonly client: RedisClient
  close(): Promise<unknown> | unknown
}

// It writes a warning of each error to the console.
Logger.setLoggerConfig('off')

const host = '127.0.0.1'

/** The part of ioredis and of iovalkey that opens clients. */
interface Ioredis {
  readonly Redis: new (port: number, host: string, options: object) => IoredisClient
  readonly Cluster: new (nodes: object[], options: object) => IoredisClient
}

type IoredisClient = RedisClient & {
  on(event: 'error', listener: () => void): unknown
  disconnect(): void
}

function likeIoredis(name: string, library: unknown): TestedClient {
  const { Redis, Cluster } = library as Ioredis
  const opened = (client: IoredisClient): OpenClient => {
    client.on('error', () => {})
    return { client, close: () => client.disconnect() }
  }
  return {
    name,
    made: ['Redis', 'Cluster'],
    open: async (port, { user, impatient } = {}) =>
      opened(
        new Redis(port, host, { connectTimeout: patience, ...user, ...(impatient ? { maxRetriesPerRequest: 0 } : {}) }),
      ),
    openCluster: async (ports) =>
      opened(
        new Cluster(
          ports.map((port) => ({ host, port })),
          { slotsRefreshTimeout: patience, redisOptions: { connectTimeout: patience } },
        ),
      ),
  }
}

/** The part of node-redis that opens clients. */
interface NodeRedis {
  createClient(options: object): NodeRedisClient
  createClientPool?(options: object): NodeRedisClient
  createSentinel?(options: object): NodeRedisClient
  createCluster(options: object): NodeRedisClient
}

type NodeRedisClient = RedisClient & {
  on(event: 'error', listener: () => void): unknown
  connect(): Promise<unknown>
  destroy?(): unknown
  disconnect?(): Promise<unknown>
}

async function connected(client: NodeRedisClient): Promise<OpenClient> {
  client.on('error', () => {})
  await client.connect()
  return { client, close: () => (client.destroy ? client.destroy() : client.disconnect?.()) }
}

function nodeRedis(name: string, library: unknown): TestedClient {
  const { createClient, createCluster } = library as NodeRedis
  return {
    name,
    made: ['createClient', 'createCluster'],
    open: (port, { user, impatient } = {}) =>
      connected(
        createClient({ ...user, url: `redis://${host}:${port}`, ...(impatient ? { disableOfflineQueue: true } : {}) }),
      ),
    openCluster: (ports) =>
      connected(createCluster({ rootNodes: ports.map((port) => ({ url: `redis://${host}:${port}` })) })),
  }
}

export const testedClients: readonly TestedClient[] = [
  likeIoredis('ioredis 6', ioredis),
  likeIoredis('ioredis 5', ioredis5),
  likeIoredis('iovalkey', iovalkey),
  nodeRedis('node-redis 5', redis),
  {
    name: 'node-redis 5, pool',
    made: ['createClientPool'],
    open: (port, { user, impatient } = {}) =>
      connected(
        (redis as unknown as Required<NodeRedis>).createClientPool({
          ...user,
          url: `redis://${host}:${port}`,
          ...(impatient ? { disableOfflineQueue: true } : {}),
        }),
      ),
  },
  {
    name: 'node-redis 5, sentinels',
    made: ['createSentinel'],
    waits: true,
    open: async (port, { user, impatient } = {}) => {
      const sentinel = await startSentinel(port)
      const { client, close } = await connected(
        (redis as unknown as Required<NodeRedis>).createSentinel({
          name: 'circuits',
          sentinelRootNodes: [{ host, port: sentinel.port }],
          nodeClientOptions: { ...user, ...(impatient ? { disableOfflineQueue: true } : {}) },
        }),
      )
      return {
        client,
        close: async () => {
          await close()
          await sentinel.stop()
        },
      }
    },
  },
  nodeRedis('node-redis 4', redis4),
  {
    name: '@valkey/valkey-glide',
    made: ['GlideClient', 'GlideClusterClient'],
    open: async (port, { user, impatient } = {}) => {
      const client = await GlideClient.createClient({
        addresses: [{ host, port }],
        requestTimeout: impatient ? 500 : patience,
        lazyConnect: true,
        ...(user ? { credentials: user } : {}),
      })
      return { client, close: () => client.close() }
    },
    openCluster: async (ports) => {
      const addresses = ports.map((port) => ({ host, port }))
      const client = await GlideClusterClient.createClient({ addresses, requestTimeout: patience })
      return { client, close: () => client.close() }
    },
  },
  {
    name: '@upstash/redis',
    made: ['Redis'],
    open: async (port, { user } = {}) => {
      const service = await startUpstash({ port }, { token: user })
      const client = new Upstash({ url: service.url, token: 'token', retry: false, enableTelemetry: false })
      return { client, close: () => service.stop() }
    },
  },
]
