/**
 * Circuits in Redis.
 *
 * @module
 */

import { refuseWrongOptions } from '../../settings/option-rules.ts'
import { type RedisCircuitStorageOptions, redisOptionRules } from './options.ts'
import { UncheckedRedisStorage } from './storage.ts'

export type {
  GlideRedisClient,
  NodeRedisClient,
  RedisCircuitStorageOptions,
  RedisClient,
  RedisClientLike,
  UpstashRedisClient,
} from './options.ts'

/**
 * Keeps circuits in Redis 7 or later, or what is compatible with it, one hash per circuit.
 *
 * Without a `client` it needs `ioredis`, which is loaded at the first operation. Making one does no I/O. The user of the
 * connection must be allowed `~circuit:* +evalsha +eval +hgetall +hmget +hset +hdel +exists +pexpire +persist
 * +del +scan`, and `+select` if the database is another than 0. Reads must come from the primary: leave `scaleReads` of a
 * cluster client as it is.
 *
 * Every method rejects with a {@link CircuitStorageError}; its `cause` is a copy of the client's error without the
 * arguments of the command, which can be a password.
 *
 * @throws {ConfigurationError} naming every wrong option
 * @example
 * ```ts
 * const storage = new RedisCircuitStorage({ url: 'rediss://breaker:secret@cache.example.com:6379' })
 * ```
 */
export class RedisCircuitStorage extends UncheckedRedisStorage {
  /** @throws {ConfigurationError} naming every wrong option */
  constructor(options: RedisCircuitStorageOptions) {
    refuseWrongOptions(redisOptionRules, options)
    super(options)
  }
}
