import { createHash } from 'node:crypto'
import { describe, expect, it, jest } from '@jest/globals'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { type CircuitStorageError, ConfigurationError } from '../../../src/errors.ts'
import { type CircuitRecord, emptyRecord } from '../../../src/storage/circuit-storage.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../../src/storage/redis.ts'

const at = 1_700_000_000_001
/** A record matters for 60 s after its last write, and is kept for a day more. */
const lifetime = '86460000'

const open: CircuitRecord = {
  ...emptyRecord('epoch-1', at),
  version: 'v2',
  generation: 1,
  state: 'OPEN',
  failureCount: 3,
  lastFailureAt: at,
  openedAt: at,
  retryAt: at + 10_000,
  resetTimeout: 10_000,
  leases: [{ id: 'l1', expiresAt: at + 0.5 }],
  trips: 1,
  lastFailure: { at, name: 'TimeoutError', code: undefined, status: 503 },
  transitions: ['t1'],
}

/** The hash of {@link open}, as Redis sends it. */
const stored = Object.entries({
  schema: '1',
  version: 'v2',
  epoch: 'epoch-1',
  generation: '1',
  state: 'OPEN',
  failureCount: '3',
  lastFailureAt: '1700000000001',
  successCount: '0',
  openedAt: '1700000000001',
  retryAt: '1700000010001',
  resetTimeout: '10000',
  leases: '[{"id":"l1","expiresAt":1700000000001.5}]',
  trips: '1',
  lastFailure: '{"at":1700000000001,"name":"TimeoutError","status":503}',
  transitions: '["t1"]',
  updatedAt: '1700000000001',
}).flat()

type Reply = unknown | ((command: readonly string[]) => unknown)

/** A client that answers every command with the next reply, the last one again and again; an error is a rejection. */
function answering(...replies: Reply[]) {
  const commands: string[][] = []
  const answer = (command: string[]): unknown => {
    commands.push(command)
    const reply = replies.length > 1 ? replies.shift() : replies[0]
    return typeof reply === 'function' ? reply(command) : reply
  }
  const client: RedisClientLike = {
    call: async (...command) => {
      const reply = answer(command)
      if (reply instanceof Error) throw reply
      return reply
    },
  }
  return { client, commands, answer, storage: new RedisCircuitStorage({ client }) }
}

/** The same with pipelines, of which it notes the sizes. */
function pipelining(...replies: Reply[]) {
  const { client, commands, answer } = answering(...replies)
  const pipelines: number[] = []
  const pipeline = (batch: string[][]) => ({
    exec: async () => {
      pipelines.push(batch.length)
      return batch
        .map(answer)
        .map((reply): [Error | null, unknown] => (reply instanceof Error ? [reply, undefined] : [null, reply]))
    },
  })
  const both: RedisClientLike = { ...client, pipeline }
  return { client: both, commands, pipelines, storage: new RedisCircuitStorage({ client: both }) }
}

function thrownBy(action: () => unknown): ConfigurationError {
  try {
    action()
  } catch (error) {
    return error as ConfigurationError
  }
  throw new Error('nothing was thrown')
}

function rejectionOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  return promise.then(
    () => {
      throw new Error('it did not reject')
    },
    (error) => error,
  )
}

const noScript = new Error('NOSCRIPT No matching script. Please use EVAL.')

describe('the options', () => {
  it('are all checked at once, each problem with the name and what is allowed', () => {
    const options = { keyPrefix: '', client: {}, url: 7, options: 'fast', keyprefix: 'x' }
    const error = thrownBy(() => new RedisCircuitStorage(options as never))
    expect(error).toBeInstanceOf(ConfigurationError)
    expect(new Set(error.problems.map(({ setting }) => setting))).toEqual(new Set(Object.keys(options)))
    expect(error.message).toContain('keyprefix is not an option of the Redis storage; did you mean keyPrefix? (option)')
    expect(error.message).toContain('keyPrefix must be a non-empty string without control characters, but is ""')
    expect(error.message).toContain('client excludes url and options')
  })

  it.each([undefined, null, 'redis://localhost', []])('must be an object, not %p', (options) => {
    const error = thrownBy(() => new RedisCircuitStorage(options as never))
    expect(error.problems).toMatchObject([{ setting: 'options' }])
  })

  it.each([
    ['options', undefined, 'an object with a client, a url or options'],
    ['client', {}, 'a client of ioredis, or an object with its method call'],
    ['client', 'redis', 'a client of ioredis, or an object with its method call'],
    ['options', { options: 'fast' }, 'options of ioredis'],
  ])('say of %s what is allowed: %p is not', (setting, value, allowed) => {
    const options = setting === 'options' ? value : { [setting]: value }
    expect(thrownBy(() => new RedisCircuitStorage(options as never)).problems).toEqual([
      expect.objectContaining({
        setting,
        source: 'option',
        message: expect.stringContaining(`${setting} must be ${allowed}, but is `),
      }),
    ])
  })

  it.each([{ url: 'redis://localhost' }, { options: {} }])('exclude %j where there is a client', (other) => {
    const { client } = answering([])
    expect(thrownBy(() => new RedisCircuitStorage({ client, ...other } as never)).problems).toEqual([
      expect.objectContaining({ setting: 'client', source: 'option' }),
    ])
  })

  it('must say where Redis is', () => {
    const error = thrownBy(() => new RedisCircuitStorage({ keyPrefix: 'x' }))
    expect(error.problems).toEqual([
      {
        setting: 'url',
        source: 'option',
        value: undefined,
        message: 'url is missing; the Redis storage needs a url, options or a client (option)',
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
    const error = thrownBy(() => new RedisCircuitStorage({ url }))
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
    expect(() => new RedisCircuitStorage(options as never)).not.toThrow()
  })

  it('may hold any client of ioredis', () => {
    const clients: RedisClientLike[] = [
      new Redis({ lazyConnect: true }),
      new Cluster([{ host: '127.0.0.1' }], { lazyConnect: true }),
    ]
    for (const client of clients) expect(() => new RedisCircuitStorage({ client })).not.toThrow()
  })
})

describe('the commands', () => {
  it('read one hash', async () => {
    const { storage, commands } = answering(stored)
    await expect(storage.getState('stripe')).resolves.toEqual(open)
    expect(commands).toEqual([['hgetall', 'circuit:stripe']])
  })

  it('use the prefix that is given, and the service key as it is', async () => {
    const { client, commands } = answering([])
    const storage = new RedisCircuitStorage({ client, keyPrefix: 'app:{x}:' })
    await expect(storage.getState('a}{b #%')).resolves.toBeUndefined()
    await storage.clearState('a}{b #%')
    expect(commands).toEqual([
      ['hgetall', 'app:{x}:a}{b #%'],
      ['del', 'app:{x}:a}{b #%'],
    ])
  })

  it.each([
    ['a list of names and values', stored],
    ['an object', Object.fromEntries(pairs(stored))],
    ['a map', new Map(pairs(stored))],
    ['buffers', stored.map((text) => Buffer.from(text))],
  ])('understand a hash that comes as %s', async (_, reply) => {
    await expect(answering(reply).storage.getState('stripe')).resolves.toEqual(open)
  })

  it('increment by a script, with all that a new record needs', async () => {
    const { storage, commands } = answering([1, stored])
    const result = await storage.incrementFailures('stripe', undefined, { count: 2, at, id: 'i"1\n' })
    expect(result).toEqual({ applied: true, current: open })
    const [[name, sha, keys, key, ...args] = []] = commands
    expect([name, sha, keys, key]).toEqual(['evalsha', expect.stringMatching(/^[0-9a-f]{40}$/), '1', 'circuit:stripe'])
    const created =
      `schema 1 epoch i"1\n generation 0 state CLOSED failureCount 0 successCount 0 leases [] trips 0 transitions [] ` +
      `updatedAt ${at}`
    expect(args).toEqual(['', '', 'i\\"1\\n', '2', String(at), expect.any(String), ...created.split(' ')])
    expect(Number(args[5])).toBeGreaterThanOrEqual(Number(lifetime))
  })

  it('replace by a script, with the version before and after, what to remove and what to set', async () => {
    const { storage, commands } = answering([0, []])
    const result = await storage.compareAndSetState('stripe', 'v1', { ...open, leases: [] })
    expect(result).toEqual({ applied: false, current: undefined })
    const [[name, , keys, key, ...args] = []] = commands
    expect([name, keys, key]).toEqual(['evalsha', '1', 'circuit:stripe'])
    expect(args.slice(0, 3)).toEqual(['=v1', '', '=v2'])
    expect(args.slice(4, 7)).toEqual(['2', 'override', 'increments'])
    expect(args.slice(7)).toEqual(stored.map((text) => (text.startsWith('[{') ? '[]' : text)))
  })

  it('keep a record for as long as it matters, by whichever clock is behind, and an override for ever', async () => {
    jest.useFakeTimers({ now: at + 1_000 })
    try {
      const { storage, commands } = answering([1, stored])
      const lived = async (record: Partial<CircuitRecord>): Promise<string | undefined> => {
        await storage.compareAndSetState('stripe', undefined, { ...open, ...record })
        return commands.at(-1)?.[7]
      }
      await expect(lived({})).resolves.toBe(lifetime)
      await expect(lived({ updatedAt: at + 1_500 })).resolves.toBe(String(Number(lifetime) + 500))
      await expect(lived({ updatedAt: 0, retryAt: 90_000.5, leases: [] })).resolves.toBe('86490001')
      await expect(lived({ override: { state: 'OPEN', at } })).resolves.toBe('')
    } finally {
      jest.useRealTimers()
    }
  })

  it('tell a lost version from one that is empty', async () => {
    const { storage, commands } = answering([0, []])
    await storage.compareAndSetState('stripe', '', { ...open, version: undefined })
    expect(commands[0]?.slice(4, 6)).toEqual(['=', ''])
  })

  it('carry the script itself where the server does not know it', async () => {
    const { storage, commands } = answering(noScript, [1, stored])
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: true, current: open })
    const [first = [], second = []] = commands
    expect(commands).toHaveLength(2)
    expect(second[0]).toBe('eval')
    expect(createHash('sha1').update(String(second[1])).digest('hex')).toBe(first[1])
    expect(second.slice(2)).toEqual(first.slice(2))
  })

  it('are scripts of less than two kilobytes, which touch nothing but the key that they are given', async () => {
    const { storage, commands } = answering(noScript, [1, stored], noScript, [1, stored])
    await storage.compareAndSetState('stripe', 'v1', open)
    await storage.incrementFailures('stripe', 'v1', { count: 1, at, id: 'i' })
    for (const [, source = ''] of [commands[1] ?? [], commands[3] ?? []]) {
      expect(source.length).toBeLessThan(2_000)
      expect(source).not.toMatch(/KEYS\[2\]|TIME|RANDOM/)
      for (const [, key] of source.matchAll(/redis\.call\('\w+', (\w+)/g)) expect(key).toBe('key')
    }
  })
})

describe('a batch', () => {
  const [first, second] = [
    { serviceKey: 'a', version: undefined, next: open },
    { serviceKey: 'b', version: 'v1', next: open },
  ] as const

  it('is one pipeline, with one command for each circuit', async () => {
    const { storage, commands, pipelines } = pipelining((command: readonly string[]) =>
      command[0] === 'hgetall' ? (command[1] === 'circuit:b' ? [] : stored) : [1, stored],
    )
    await expect(storage.batchGetState(['a', 'b', 'a'])).resolves.toEqual(new Map([['a', open]]))
    await storage.batchSetState([first, second])
    await storage.batchClearState(['a', 'b', 'b'])
    expect(pipelines).toEqual([2, 2, 2])
    expect(commands.map(([name]) => name)).toEqual(['hgetall', 'hgetall', 'evalsha', 'evalsha', 'del', 'del'])
  })

  it('of nothing asks for nothing, and of one circuit is no pipeline', async () => {
    const { storage, commands, pipelines } = pipelining(stored)
    await expect(storage.batchGetState([])).resolves.toEqual(new Map())
    await expect(storage.batchSetState([])).resolves.toEqual(new Map())
    await storage.batchClearState([])
    expect(commands).toEqual([])
    await storage.batchGetState(['a', 'a'])
    expect(pipelines).toEqual([])
  })

  it('is sent once more, with the scripts, for the circuits whose server did not know them', async () => {
    const { storage, commands, pipelines } = pipelining([1, stored], noScript, noScript, [0, []], [1, stored])
    const third = { serviceKey: 'c', version: undefined, next: open }
    await expect(storage.batchSetState([first, second, third])).resolves.toEqual(
      new Map([
        ['a', { applied: true, current: open }],
        ['b', { applied: false, current: undefined }],
        ['c', { applied: true, current: open }],
      ]),
    )
    expect(pipelines).toEqual([3, 2])
    expect(commands.slice(3).map((command) => [command[0], command[3]])).toEqual([
      ['eval', 'circuit:b'],
      ['eval', 'circuit:c'],
    ])
  })

  it.each([
    ['to a client without pipelines', () => answering(stored)],
    [
      'to a cluster',
      () => {
        const cluster = pipelining(stored)
        return { ...cluster, storage: new RedisCircuitStorage({ client: { ...cluster.client, isCluster: true } }) }
      },
    ],
  ])('is sent as single commands at once %s', async (_, make) => {
    const { storage, commands } = make()
    const reading = storage.batchGetState(['a', 'b', 'c'])
    await Promise.resolve().then(() => {})
    await new Promise(setImmediate)
    expect(commands).toHaveLength(3)
    await expect(reading).resolves.toEqual(new Map(['a', 'b', 'c'].map((key) => [key, open])))
  })

  it('that fails in part says what failed and hands out the rest', async () => {
    const { storage } = pipelining(stored, new Error('CLUSTERDOWN Hash slot not served'), ['schema', '2'])
    const error = await rejectionOf(storage.batchGetState(['a', 'b', 'c']))
    expect(error).toMatchObject({ name: 'CircuitStorageError', operation: 'batchGetState', corrupt: false })
    expect(error.message).toMatch(/^batchGetState failed for 2 of 3 circuits; "b": batchGetState of "b" failed:/)
    expect(error.results).toEqual(new Map([['a', open]]))
    expect(error.errors?.get('b')).toMatchObject({ service: 'b', corrupt: false })
    expect(error.errors?.get('c')).toMatchObject({ service: 'c', corrupt: true })
  })

  it('that holds nothing but damage is corrupt', async () => {
    const error = await rejectionOf(pipelining(['schema', '2']).storage.batchGetState(['a']))
    expect(error).toMatchObject({ corrupt: true, service: 'a', cause: { corrupt: true } })
  })

  it('fails for every circuit that the client leaves without a reply', async () => {
    const silent = { ...answering([]).client, pipeline: () => ({ exec: async () => null }) }
    const error = await rejectionOf(new RedisCircuitStorage({ client: silent }).batchClearState(['a', 'b']))
    expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
    expect(error).toMatchObject({
      operation: 'batchClearState',
      errors: new Map([
        ['a', expect.anything()],
        ['b', expect.anything()],
      ]),
    })
    expect(error.message).toContain('left the command without a reply')
  })

  it('fails for every circuit when the client throws', async () => {
    const pipeline = () => {
      throw new Error('closed')
    }
    const broken = { ...answering([]).client, pipeline }
    const error = await rejectionOf(new RedisCircuitStorage({ client: broken }).batchGetState(['a', 'b']))
    expect([...(error.errors?.keys() ?? [])]).toEqual(['a', 'b'])
  })

  it('refuses to write one circuit twice, and writes nothing', async () => {
    const { storage, commands } = pipelining([1, stored])
    const error = await rejectionOf(storage.batchSetState([first, second, first]))
    expect(error.message).toBe('batchSetState was given "a" twice, and wrote nothing: give each circuit once.')
    expect(error).toMatchObject({ operation: 'batchSetState', service: 'a' })
    expect(commands).toEqual([])
  })
})

describe('an error', () => {
  it.each([
    ['NOAUTH Authentication required.', 'Redis wants a password'],
    ['ERR Protocol error: unauthenticated multibulk length', 'Redis wants a password'],
    ['WRONGPASS invalid username-password pair', 'does not accept the user or the password'],
    ["NOPERM this user has no permissions to run the 'evalsha' command", '+evalsha +eval +hgetall'],
    ["ERR The user executing the script can't run this command or subcommand script: 0", '+evalsha +eval +hgetall'],
    ["READONLY You can't write against a read only replica.", 'Connect to the primary'],
    ['LOADING Redis is loading the dataset in memory', 'recovers by itself'],
    ['BUSY Redis is busy running a script.', 'SCRIPT KILL'],
    ['MOVED 3999 127.0.0.1:6381', 'Pass a cluster client'],
    ['ASK 3999 127.0.0.1:6381', 'Pass a cluster client'],
    ['CLUSTERDOWN The cluster is down', 'CLUSTER INFO'],
    ['TRYAGAIN Multiple keys request during rehashing of slot', 'recovers by itself'],
    ["OOM command not allowed when used memory > 'maxmemory'.", 'maxmemory-policy'],
    ['MISCONF Redis is configured to save RDB snapshots', 'cannot save'],
    ['NOREPLICAS Not enough good replicas to write.', 'min-replicas-to-write'],
    ['MASTERDOWN Link with MASTER is down', 'Connect to the primary'],
    ["ERR unknown command 'EVALSHA'", 'It has to be Redis 7 or later'],
    ['ERR something else', 'Redis refused it: ERR something else'],
    ['Command timed out', 'did not answer within commandTimeout'],
    ['connect ECONNREFUSED 127.0.0.1:6379', 'Redis could not be asked: connect ECONNREFUSED 127.0.0.1:6379'],
  ])('%p says what to do', async (message, advice) => {
    const error = await rejectionOf(answering(new Error(message)).storage.getState('stripe'))
    expect(error).toMatchObject({ operation: 'getState', service: 'stripe', corrupt: false, cause: { message } })
    expect(error.message).toContain('getState of "stripe" failed: ')
    expect(error.message).toContain(advice)
  })

  it.each([
    ...['BUSY', 'CLUSTERDOWN', 'LOADING', 'MASTERDOWN', 'MISCONF', 'NOREPLICAS', 'OOM', 'READONLY', 'TRYAGAIN'].map(
      (word) => [`${word} for a while`, 'throttled'],
    ),
    ['ERR max number of clients reached', 'throttled'],
    ...['ASK', 'DENIED', 'MOVED', 'NOAUTH', 'NOPERM', 'WRONGPASS'].map((word) => [`${word} for ever`, 'misconfigured']),
    ['ERR Protocol error: unauthenticated multibulk length', 'misconfigured'],
    [
      "ERR The user executing the script can't run this command or subcommand script: 0, on @user_script:3.",
      'misconfigured',
    ],
    ['WRONGTYPE Operation against a key holding the wrong kind of value', 'misconfigured'],
    ["ERR unknown command 'EVALSHA'", 'misconfigured'],
    ['ERR no upstream host', 'unavailable'],
    ['UNKILLABLE Sorry', 'unavailable'],
    ['Command timed out', 'unavailable'],
    ['connect ECONNREFUSED 127.0.0.1:6379', 'unavailable'],
  ])('%p tells whether waiting helps', async (message, kind) => {
    expect(await rejectionOf(answering(new Error(message)).storage.getState('stripe'))).toMatchObject({ kind })
  })

  it('about too many connections says what to do', async () => {
    const error = await rejectionOf(
      answering(new Error('ERR max number of clients reached')).storage.getState('stripe'),
    )
    expect(error.message).toContain('Raise maxclients')
  })

  it('of a batch is as grave as the gravest of its parts', async () => {
    const reply = (word: string) => [new Error(`${word} x`), undefined] as const
    const kindOf = async (...replies: (readonly [Error | null, unknown?])[]) => {
      const client = { call: async () => [], pipeline: () => ({ exec: async () => replies }) }
      const keys = replies.map((_, index) => `service-${index}`)
      const error = await rejectionOf(new RedisCircuitStorage({ client }).batchGetState(keys))
      return error.kind
    }
    const damaged = [null, ['schema', '2']] as const
    expect(await kindOf(damaged, damaged)).toBe('corrupt')
    expect(await kindOf(damaged, reply('ODD'))).toBe('unavailable')
    expect(await kindOf(reply('ODD'), reply('BUSY'), damaged)).toBe('throttled')
    expect(await kindOf(reply('BUSY'), reply('NOPERM'))).toBe('misconfigured')
  })

  it('at a deletion names what it was asked', async () => {
    const { storage } = answering(new Error('ERR something else'))
    await expect(storage.clearState('stripe')).rejects.toThrow(
      'clearState of "stripe" failed: Redis refused it: ERR something else',
    )
  })

  it('about a value that is no hash is about damage', async () => {
    const wrong = new Error('WRONGTYPE Operation against a key holding the wrong kind of value')
    const error = await rejectionOf(answering(wrong).storage.getState('stripe'))
    expect(error).toMatchObject({ corrupt: true, service: 'stripe', cause: { message: wrong.message } })
    expect(error.message).toContain('The record stored for "stripe" is damaged: its key holds a value that is no hash.')
    expect(error.message).toContain('choose another keyPrefix')
  })

  it('keeps what a connection failed with, but not the command and its arguments', async () => {
    const failure = Object.assign(new Error('connect ECONNREFUSED'), {
      name: 'SocketError',
      code: 'ECONNREFUSED',
      port: 6379,
      command: { name: 'auth', args: ['breaker', 'SECRET'] },
      lastNodeError: new Error('SECRET'),
    })
    const { cause } = await rejectionOf(answering(failure).storage.getState('stripe'))
    expect(cause).toMatchObject({ name: 'SocketError', code: 'ECONNREFUSED', port: 6379 })
    expect(Object.keys(cause as object).sort()).toEqual(['code', 'name', 'port'])
  })

  it('does not repeat what an old server repeats of a command that it does not know', async () => {
    const unknown = new Error(
      'ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `breaker`, `SECRET`, ',
    )
    const error = await rejectionOf(answering(unknown).storage.getState('stripe'))
    expect(`${error.stack} ${(error.cause as Error).stack}`).not.toContain('SECRET')
    expect(error.message).toContain('ERR unknown command `HELLO`')
  })

  it.each([
    ['nothing', { code: 'ETIMEDOUT' }, 'Redis could not be asked: [object Object]'],
    ['no text', Object.assign(new Error(''), { code: 'ETIMEDOUT' }), 'Redis could not be asked: ETIMEDOUT'],
    ['no text and no code', new Error(''), 'Redis could not be asked: Error'],
    ['what is no error', undefined, 'Redis could not be asked: undefined'],
  ])('that says %s is reported all the same', async (_, reason, message) => {
    const client: RedisClientLike = { call: () => Promise.reject(reason) }
    const error = await rejectionOf(new RedisCircuitStorage({ client }).getState('stripe'))
    expect(error.message).toContain(message)
  })

  it.each([
    ['hgetall', undefined],
    ['hgetall', 'OK'],
    ['evalsha', 'OK'],
    ['evalsha', [1, 'OK']],
    ['evalsha', null],
  ])('tells of a client whose reply to %s is %p', async (command, reply) => {
    const { storage } = answering(reply)
    const operation =
      command === 'hgetall' ? storage.getState('stripe') : storage.compareAndSetState('stripe', undefined, open)
    const name = command === 'hgetall' ? 'getState' : 'compareAndSetState'
    await expect(operation).rejects.toMatchObject({
      corrupt: false,
      operation: name,
      service: 'stripe',
      message: `${name} of "stripe" failed: the client's reply is not what Redis sent. Its call must resolve to the reply as it is: lists as arrays, texts as strings.`,
    })
  })

  it.each([
    ['failureCount', 'three'],
    ['failureCount', '0x3'],
    ['failureCount', '1e3'],
    ['failureCount', ''],
    ['retryAt', ' 1'],
    ['leases', '[{'],
    ['transitions', '{}'],
    ['lastFailure', '"x"'],
    ['state', 'AJAR'],
  ])('names the field of a damaged record: %s is %p', async (field, text) => {
    const damaged = Object.entries({ ...Object.fromEntries(pairs(stored)), [field]: text }).flat()
    const { storage } = answering(damaged)
    await expect(storage.getState('stripe')).rejects.toMatchObject({
      corrupt: true,
      message: expect.stringContaining(`is damaged: ${field} is`),
    })
  })
})

describe('a client of its own', () => {
  /** Runs with a class in the place of the `Redis` of ioredis; nothing is connected. */
  async function withFakeIoredis(
    run: (
      make: (options: ConstructorParameters<typeof RedisCircuitStorage>[0]) => RedisCircuitStorage,
      made: FakeRedis[],
    ) => Promise<void>,
  ): Promise<void> {
    const made: FakeRedis[] = []
    await jest.isolateModulesAsync(async () => {
      jest.unstable_mockModule('ioredis', async () => ({
        Redis: class extends FakeRedis {
          constructor(...args: unknown[]) {
            super(...args)
            made.push(this)
          }
        },
      }))
      const fresh = await import('../../../src/storage/redis.ts')
      await run((options) => new fresh.RedisCircuitStorage(options), made)
      jest.unstable_unmockModule('ioredis')
    })
  }

  it('is made at the first operation, of the URL and the options, and once', () =>
    withFakeIoredis(async (make, made) => {
      const storage = make({
        url: 'REDISS://u:p%40@Host:1/2',
        options: { commandTimeout: 7, tls: { servername: 'x' } },
      })
      expect(made).toEqual([])
      await Promise.all([storage.getState('a'), storage.getState('b')])
      expect(made).toHaveLength(1)
      const [url, options] = (made[0] as FakeRedis).args as [string, RedisOptions]
      expect(url).toMatch(/^rediss:\/\/u:p%40@host:1\/2$/i)
      expect(url.startsWith('rediss://')).toBe(true)
      expect(options).toMatchObject({
        lazyConnect: true,
        maxRetriesPerRequest: 1,
        connectTimeout: 1_000,
        socketTimeout: 1_000,
        commandTimeout: 7,
        enableReadyCheck: false,
        tls: { servername: 'x' },
      })
      expect(made[0]?.listeners.has('error')).toBe(true)
    }))

  it('retries a few times with growing pauses, and leaves a server that became a replica', () =>
    withFakeIoredis(async (make, made) => {
      const storage = make({ options: { host: 'x' } })
      await storage.getState('a')
      const [{ retryStrategy, reconnectOnError }] = (made[0] as FakeRedis).args as [RedisOptions]
      // ioredis begins to count anew after each connection; what is closed at once must not be tried for ever.
      const pauses = () => [1, 1, 1].map((attempt) => retryStrategy?.(attempt))
      const bounds = [expect.closeTo(50, -2), expect.closeTo(100, -2.5), null]
      expect(pauses()).toEqual(bounds)
      expect(pauses()).toEqual([null, null, null])
      await storage.getState('a')
      expect(pauses()).toEqual(bounds)
      expect(reconnectOnError?.(new Error('READONLY You can not'))).toBe(true)
      expect(reconnectOnError?.(new Error('ERR READONLY'))).toBe(false)
    }))

  it('checks that the server is the primary where sentinels name it', () =>
    withFakeIoredis(async (make, made) => {
      await make({ options: { sentinels: [{ host: 'x' }], name: 'main' } }).getState('a')
      expect(made[0]?.args).toMatchObject([{ enableReadyCheck: true }])
    }))

  it('is connected again by the operation after it gave up', () =>
    withFakeIoredis(async (make, made) => {
      const storage = make({ url: 'redis://x' })
      await storage.getState('a')
      const [client] = made as [FakeRedis]
      client.status = 'end'
      await storage.getState('a')
      expect(client.connections).toBe(1)
      client.refuses = true
      client.status = 'end'
      await storage.getState('a')
      expect(client.connections).toBe(2)
      expect(made).toHaveLength(1)
    }))

  it('tells why it is not connected, not that it gave up', () =>
    withFakeIoredis(async (make, made) => {
      const storage = make({ url: 'redis://x' })
      await storage.getState('a')
      const [client] = made as [FakeRedis]
      client.reply = new Error('Reached the max retries per request limit (which is 1).')
      await expect(storage.getState('a')).rejects.toThrow('Reached the max retries')
      client.listeners.get('error')?.(new Error('connect ECONNREFUSED 10.0.0.1:6379'))
      await expect(storage.getState('a')).rejects.toThrow('connect ECONNREFUSED 10.0.0.1:6379')
      client.reply = new Error('NOAUTH Authentication required.')
      await expect(storage.getState('a')).rejects.toThrow('Redis wants a password')
      client.listeners.get('ready')?.()
      client.reply = new Error('Connection is closed.')
      await expect(storage.getState('a')).rejects.toThrow('Connection is closed')
    }))

  it('is closed politely, by force where that fails, and not at all where it ended or was never made', () =>
    withFakeIoredis(async (make, made) => {
      const storage = make({ url: 'redis://x' })
      await storage.close()
      expect(made).toEqual([])
      await storage.getState('a')
      await storage.close()
      await storage.close()
      expect(made[0]?.closed).toEqual(['quit'])

      await storage.getState('a')
      const second = made[1] as FakeRedis
      second.refuses = true
      await storage.close()
      expect(second.closed).toEqual(['quit', 'disconnect'])

      await storage.getState('a')
      const third = made[2] as FakeRedis
      third.status = 'end'
      await storage.close()
      expect(third.closed).toEqual([])

      await storage.getState('a')
      const fourth = made[3] as FakeRedis
      fourth.refuses = true
      fourth.endsOnQuit = true
      await storage.close()
      expect(fourth.closed).toEqual(['quit'])
    }))

  it('needs ioredis: where it is missing it is named, and looked for again', async () => {
    const cause = Object.assign(new Error("Cannot find package 'ioredis'"), { code: 'ERR_MODULE_NOT_FOUND' })
    await jest.isolateModulesAsync(async () => {
      let missing = true
      jest.unstable_mockModule('ioredis', async () => {
        if (missing) throw cause
        return { Redis: FakeRedis }
      })
      const fresh = await import('../../../src/storage/redis.ts')
      const given = new fresh.RedisCircuitStorage({ client: answering(stored).client })
      await expect(given.getState('stripe')).resolves.toEqual(open)

      const storage = new fresh.RedisCircuitStorage({ url: 'redis://user:SECRET@x' })
      const message = expect.stringContaining('npm install ioredis')
      const missed = { name: 'CircuitStorageError', kind: 'misconfigured', message, cause }
      await expect(storage.getState('stripe')).rejects.toMatchObject({ ...missed, service: 'stripe' })
      await expect(storage.batchGetState(['a', 'b'])).rejects.toMatchObject({ operation: 'batchGetState', cause })
      await storage.close()
      const neverClosed = new fresh.RedisCircuitStorage({ url: 'redis://x' })
      await expect(neverClosed.getState('stripe')).rejects.toMatchObject(missed)
      missing = false
      await expect(storage.getState('stripe')).resolves.toEqual(open)
      await expect(neverClosed.getState('stripe')).resolves.toEqual(open)
      jest.unstable_unmockModule('ioredis')
    })
  })
})

class FakeRedis {
  readonly args: readonly unknown[]
  readonly listeners = new Map<string, (error?: Error) => void>()
  readonly closed: string[] = []
  readonly options = {}
  status = 'ready'
  reply: unknown = stored
  refuses = false
  endsOnQuit = false
  connections = 0

  constructor(...args: unknown[]) {
    this.args = args
  }

  on(event: string, listener: () => void): void {
    this.listeners.set(event, listener)
  }

  async call(): Promise<unknown> {
    if (this.reply instanceof Error) throw this.reply
    return this.reply
  }

  async connect(): Promise<void> {
    this.connections += 1
    this.status = 'ready'
    if (this.refuses) throw new Error('connect ECONNREFUSED')
  }

  async quit(): Promise<void> {
    this.closed.push('quit')
    if (this.endsOnQuit) this.status = 'end'
    if (this.refuses) throw new Error('Connection is closed.')
  }

  disconnect(): void {
    this.closed.push('disconnect')
  }
}

function pairs(list: readonly string[]): [string, string][] {
  return Array.from({ length: list.length / 2 }, (_, index) => [String(list[2 * index]), String(list[2 * index + 1])])
}
