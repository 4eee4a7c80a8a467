import { describe, expect, it } from '@jest/globals'
import { Cluster, Redis } from 'ioredis'
import { ConfigurationError } from '../../../../src/errors.ts'
import { refuseWrongOptions } from '../../../../src/settings/option-rules.ts'
import { type RedisClientLike, redisOptionRules } from '../../../../src/storage/redis/options.ts'

const clients =
  'a client of ioredis, iovalkey, node-redis, @valkey/valkey-glide or @upstash/redis, or an object with a method call'

describe('the options', () => {
  it('are all checked at once, each problem with the name and what is allowed', () => {
    const options = { keyPrefix: '', client: {}, url: 7, options: 'fast', keyprefix: 'x' }
    const error = thrownBy(() => refuseWrongOptions(redisOptionRules, options))
    expect(error).toBeInstanceOf(ConfigurationError)
    expect(new Set(error.problems.map(({ setting }) => setting))).toEqual(new Set(Object.keys(options)))
    expect(error.message).toContain('keyprefix is not an option of the Redis storage; did you mean keyPrefix? (option)')
    expect(error.message).toContain(
      'keyPrefix must be a non-empty string without control characters or outer blanks, but is ""',
    )
    expect(error.message).toContain('client excludes url and options')
  })

  it.each([undefined, null, 'redis://localhost', []])('must be an object, not %p', (options) => {
    const error = thrownBy(() => refuseWrongOptions(redisOptionRules, options))
    expect(error.problems).toMatchObject([{ setting: 'options' }])
  })

  it.each([
    ['options', undefined, 'an object with a client, a url or options'],
    ['client', {}, clients],
    ['client', null, clients],
    ['client', 'redis', clients],
    ['options', { options: 'fast' }, 'options of ioredis'],
  ])('say of %s what is allowed: %p is not', (setting, value, allowed) => {
    const options = setting === 'options' ? value : { [setting]: value }
    expect(thrownBy(() => refuseWrongOptions(redisOptionRules, options)).problems).toEqual([
      expect.objectContaining({
        setting,
        source: 'option',
        message: expect.stringContaining(`${setting} must be ${allowed}, but is `),
      }),
    ])
  })

  it.each([{ url: 'redis://localhost' }, { options: {} }])('exclude %j where there is a client', (other) => {
    const client: RedisClientLike = { call: async () => [] }
    expect(thrownBy(() => refuseWrongOptions(redisOptionRules, { client, ...other })).problems).toEqual([
      expect.objectContaining({ setting: 'client', source: 'option' }),
    ])
  })

  it('must say where Redis is', () => {
    const error = thrownBy(() => refuseWrongOptions(redisOptionRules, { keyPrefix: 'x' }))
    expect(error.problems).toEqual([
      {
        setting: 'url',
        source: 'option',
        value: undefined,
        message: 'url is missing; give a url, options or a client (option)',
      },
    ])
  })

  it.each([
    '',
    'SECRET',
    'localhost:6379/SECRET',
    'redis://',
    'redis:///0',
    'redis://user:SECRET@',
    'redis://user:SECRET@host:port',
    'redis://user:SECRET@host/database',
    'redis://user:SEC/RET@host',
    'redis://user:SEC#RET@host',
    'redis://user:SECRET%zz@host',
    'http://user:SECRET@host',
    'unix:///tmp/SECRET',
  ])('do not take %p for the URL of a Redis, and do not repeat it', (url) => {
    const error = thrownBy(() => refuseWrongOptions(redisOptionRules, { url }))
    expect(error.problems).toMatchObject([{ setting: 'url', source: 'option', value: undefined }])
    expect(`${error.stack} ${JSON.stringify(error)}`).not.toContain('SECRET')
    expect(error.message).toContain('url must be redis://[user:password@]host[:port][/database]')
  })

  it.each([
    { url: 'redis://localhost' },
    { url: 'REDISS://user:p%40ss@[::1]:6380/3?family=6', keyPrefix: 'app:' },
    { url: 'redis://:secret@cache.example.com', options: { tls: {} }, client: undefined },
    { options: { path: '/tmp/redis.sock' } },
  ])('may be %j', (options) => {
    expect(() => refuseWrongOptions(redisOptionRules, options)).not.toThrow()
  })

  it('may hold any client of ioredis', () => {
    const clients: RedisClientLike[] = [
      new Redis({ lazyConnect: true }),
      new Cluster([{ host: '127.0.0.1' }], { lazyConnect: true }),
    ]
    for (const client of clients) expect(() => refuseWrongOptions(redisOptionRules, { client })).not.toThrow()
  })
})

function thrownBy(action: () => unknown): ConfigurationError {
  try {
    action()
  } catch (error) {
    return error as ConfigurationError
  }
  throw new Error('nothing was thrown')
}
