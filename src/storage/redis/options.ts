/**
 * The options of the Redis storage, and what they may be.
 *
 * @module
 */

// biome-ignore lint/suspicious/noTsIgnore: An optional peer. Without it these are `any`, also for a compiler that checks declarations.
/** @ts-ignore */
import type { RedisOptions } from 'ioredis'
import type { OptionRules } from '../../settings/option-rules.ts'
import { isObject, isText, textAllowed } from '../../settings/problems.ts'

/**
 * The part of a client that the storage needs. `Redis` and `Cluster` of ioredis 5 and 6 and of iovalkey have it as they
 * are. A client that is not among the {@link RedisClient}s is adapted in a line:
 *
 * @example
 * ```ts
 * const client: RedisClientLike = { call: (...command) => other.send(command) }
 * ```
 */
export interface RedisClientLike {
  /** Sends one command; resolves to its reply, rejects with the server's error, whose message is kept. */
  call(command: string, ...args: string[]): Promise<unknown>
  /**
   * Sends several commands at once; one error or reply for each, in their order. Without it, the commands of a batch are
   * sent by `call` in one go, which many clients pipeline by themselves.
   */
  pipeline?(commands: string[][]): { exec(): Promise<readonly (readonly [Error | null, unknown?])[] | null> }
  /** `true`: the client sends each command to the node that has its key. Batches are then not pipelined. */
  readonly isCluster?: boolean | undefined
}

/** A client of node-redis 4 or 5: of `createClient`, `createClientPool`, `createSentinel` or `createCluster`. */
export interface NodeRedisClient {
  /** By which the storage recognises such a client. */
  sendCommand(...args: never[]): Promise<unknown>
}

/** A client of `@valkey/valkey-glide`: `GlideClient` or `GlideClusterClient`. */
export interface GlideRedisClient {
  /** By which the storage recognises such a client. */
  customCommand(...args: never[]): Promise<unknown>
}

/** A client of `@upstash/redis`, which speaks to Redis by HTTP. */
export interface UpstashRedisClient {
  /** By which the storage recognises such a client. */
  createScript(...args: never[]): unknown
}

/** Every client that the storage takes as it is. */
export type RedisClient = RedisClientLike | NodeRedisClient | GlideRedisClient | UpstashRedisClient

/** A client, or how to make one. */
export type ClientOptions =
  | {
      /** The client to use. `RedisCircuitStorage` neither configures nor closes it. */
      readonly client?: RedisClient | undefined
      readonly url?: never
      readonly options?: never
    }
  | {
      readonly client?: never
      /**
       * `redis://` or, with TLS, `rediss://[user:password@]host[:port][/database]`. Percent-encode special characters in
       * the user and the password. It wins over `options`.
       */
      readonly url?: string | undefined
      /**
       * For the ioredis client that is made at the first operation. It wins over the defaults, which suit Lambda:
       *
       * - `commandTimeout` 2 000 ms, `connectTimeout` and `socketTimeout` 1 000 ms, `keepAlive` 10 000 ms;
       * - `maxRetriesPerRequest` 1, and a `retryStrategy` that ends after three attempts: the next operation connects;
       * - a reconnect on `READONLY`;
       * - neither a ready check nor `CLIENT SETINFO`, which would cost a cold start a round trip.
       *
       * With a `db` other than 0 no command is sent before that database is selected, `enableReadyCheck` or not.
       */
      readonly options?: RedisOptions | undefined
    }

/** The options of a `RedisCircuitStorage`: a `client`, or a `url`, `options` or both. */
export type RedisCircuitStorageOptions = {
  /** Precedes the service key in the key of a circuit. Default: `circuit:`. */
  readonly keyPrefix?: string | undefined
} & ClientOptions

/** By one of these methods a client is known. */
const clientMethods = ['call', 'sendCommand', 'customCommand', 'createScript']

export const redisOptionRules: OptionRules = {
  of: 'the Redis storage',
  allowed: 'an object with a client, a url or options',
  options: {
    keyPrefix: { allowed: textAllowed, accepts: isText },
    client: {
      allowed:
        'a client of ioredis, iovalkey, node-redis, @valkey/valkey-glide or @upstash/redis, or an object with a method call',
      accepts: (value) => isObject(value) && clientMethods.some((method) => typeof value[method] === 'function'),
    },
    url: {
      allowed:
        'redis://[user:password@]host[:port][/database], or rediss:// for TLS, with what is special in the user and the ' +
        'password percent-encoded',
      accepts: isRedisUrl,
      // A URL can hold a password, and so can anything that was given in place of one.
      isSecret: true,
    },
    options: { allowed: 'options of ioredis', accepts: isObject },
  },
  check: ({ client, url, options }, refuse) => {
    if (client !== undefined && (url !== undefined || options !== undefined)) {
      refuse('client', 'excludes url and options: a client is used as it is')
    }
    if (client === undefined && url === undefined && options === undefined) {
      refuse('url', 'is missing; give a url, options or a client')
    }
  },
}

/** A URL that ioredis understands as it is meant. */
function isRedisUrl(value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, hostname, pathname, hash, username, password } = new URL(value)
  return (
    /^rediss?:$/.test(protocol) &&
    hostname !== '' &&
    /^(\/\d*)?$/.test(pathname) &&
    hash === '' &&
    isPercentEncoded(username + password)
  )
}

function isPercentEncoded(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
