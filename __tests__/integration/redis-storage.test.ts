import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { Redis } from 'ioredis'
import { CircuitStorageError } from '../../src/errors.ts'
import type { CircuitRecord, Outcomes, WriteResult } from '../../src/storage/contract.ts'
import { emptyRecord, parseCircuitRecord } from '../../src/storage/record.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../src/storage/redis/index.ts'
import { circuitRecord, testCircuitStorage } from '../../src/testing/index.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { patientRedis } from '../support/patience.ts'
import { type RedisServer, startProxy, startRedis } from '../support/redis-server.ts'
import { outlast, patience, waitFor } from '../support/time.ts'

const at = 1_700_000_000_001
/** What the documentation says that a user must be allowed. */
const permissions = '~circuit:* +evalsha +eval +hgetall +hmget +hset +hdel +exists +pexpire +persist +del'
/** Patient, but without a time for silence: the timer of ioredis for that outlives a lost connection. */
const patient = { ...patientRedis, socketTimeout: undefined, disconnectTimeout: 200 }
/** Gives up soon, for tests that wait for that. */
const impatient = { ...patient, commandTimeout: 500, socketTimeout: 500 }

/** A record that is none is refused: unchecked, or where it cannot be decoded with an error. */
async function expectRefused(write: Promise<WriteResult>): Promise<void> {
  const { applied, corrupt } = (await write.catch((error: unknown) => error)) as {
    applied?: boolean
    corrupt?: boolean
  }
  expect(corrupt ?? !applied).toBe(true)
}

async function expectNoRecord(read: Promise<CircuitRecord | undefined>): Promise<void> {
  await expect(read.then((record) => record && parseCircuitRecord('any', record, 'getState'))).rejects.toMatchObject({
    corrupt: true,
  })
}

/** One failure of one instance. */
function outcomes(id: string = randomUUID()): Outcomes {
  return { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at: Date.now(), id }
}

/** Stores a circuit, under the version that the tests know. */
async function create(storage: RedisCircuitStorage, service: string): Promise<void> {
  await storage.compareAndSetState(service, undefined, circuitRecord({ version: 'v' }))
}

/** The effect of a write that failed. */
const failed = () => ({ applied: false, current: undefined })

function isRecord(seen: CircuitRecord | string | undefined): boolean {
  return typeof seen === 'object'
}

function errorOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  return promise.then(
    () => {
      throw new Error('it did not reject')
    },
    (error) => error,
  )
}

const opened: (() => void)[] = []

interface ClientModule {
  readonly Redis: new (
    port: number,
    host: string,
    options?: { keyPrefix?: string },
  ) => RedisClientLike & { disconnect(): void }
  readonly Command: ReplyTransformers
}

/** The class of a command, with the transformers of replies for all clients. */
interface ReplyTransformers {
  setReplyTransformer(name: string, transform: ((reply: unknown) => unknown) | undefined): void
}

async function optional<T>(name: string): Promise<T | undefined> {
  try {
    return await import(name)
  } catch {
    return undefined
  }
}

describe('the storage in Redis', () => {
  let server: RedisServer
  let client: Redis
  let storage: RedisCircuitStorage
  const own: RedisCircuitStorage[] = []

  beforeAll(async () => {
    server = await startRedis()
    client = server.client()
    storage = new RedisCircuitStorage({ client })
  })
  afterAll(async () => {
    await Promise.all(own.map((each) => each.close()))
    for (const close of opened) close()
    await server?.stop()
  })

  const proxyFor = async (target: RedisServer) => {
    const proxy = await startProxy(target)
    opened.push(() => proxy.stop())
    return proxy
  }
  const withOwnClient = (options: ConstructorParameters<typeof RedisCircuitStorage>[0]): RedisCircuitStorage => {
    const created = new RedisCircuitStorage(options)
    own.push(created)
    return created
  }
  testCircuitStorage(
    'fulfils the contract with the client that it makes:',
    () => own[0] ?? withOwnClient({ url: server.url, options: patient }),
    {
      runner: { describe, it },
      createPeer: () => withOwnClient({ url: server.url, options: patient }),
      createUnreachable: () =>
        withOwnClient({ url: 'redis://127.0.0.1:1', options: { ...patient, retryStrategy: () => null } }),
      damage: (service) => server.client().hset(`circuit:${service}`, { schema: '1', state: 'AJAR' }),
      expiresAt: async (service) => {
        const expiry = await server.client().pexpiretime(`circuit:${service}`)
        return expiry < 0 ? undefined : expiry
      },
    },
  )

  it('keeps a record that is written with an old clock as long as any other', async () => {
    const key = randomUUID()
    await storage.compareAndSetState(key, undefined, { ...emptyRecord('e', 1_000), version: 'v' })
    await storage.addOutcomes(key, 'v', { ...outcomes(), at: 2_000 })
    expect(await client.pttl(`circuit:${key}`)).toBeGreaterThan(172_800_000)
  })

  it('remembers the ids of 16 additions, whatever they are made of, until the record is replaced', async () => {
    const key = randomUUID()
    await create(storage, key)
    const ids = ['a', 'b\nc', 'c', '"', '\\', 'ä💳', ...Array.from({ length: 14 }, () => randomUUID())]
    for (const id of ids) await storage.addOutcomes(key, 'v', outcomes(id))
    for (const id of ids.slice(4)) await storage.addOutcomes(key, 'v', outcomes(id))
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 20 })
    await storage.addOutcomes(key, 'v', outcomes('a'))
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 21 })
    await storage.compareAndSetState(key, 'v', circuitRecord())
    expect(await client.hexists(`circuit:${key}`, 'additions')).toBe(0)
  })

  it('takes a replace that is sent again for what it is, also after others have counted', async () => {
    const key = randomUUID()
    const next = circuitRecord()
    await storage.compareAndSetState(key, undefined, next)
    await storage.addOutcomes(key, next.version, outcomes())
    await expect(storage.compareAndSetState(key, undefined, next)).resolves.toMatchObject({
      applied: true,
      current: { failureCount: 1, version: next.version },
    })
  })

  it.each([
    ['a hash of another application', (key: string) => client.hset(key, { mine: 'x' })],
    ['a record of a later format', (key: string) => client.hset(key, { schema: '2', state: 'CLOSED' })],
    ['a text', (key: string) => client.set(key, 'x')],
    ['a list', (key: string) => client.rpush(key, 'x')],
  ])('neither reads nor overwrites %s', async (_, put) => {
    const service = randomUUID()
    await put(`circuit:${service}`)
    const before = await client.dump(`circuit:${service}`)
    await expectNoRecord(storage.getState(service))
    await expectRefused(storage.addOutcomes(service, 'v1', outcomes()))
    for (const version of [undefined, 'v1']) {
      await expectRefused(storage.compareAndSetState(service, version, circuitRecord()))
    }
    expect(await client.dump(`circuit:${service}`)).toBe(before)
    await storage.clearState(service)
    await expect(storage.getState(service)).resolves.toBeUndefined()
  })

  it.each([
    ['is no number', 'many'],
    ['is no number yet', ''],
    ['is not whole', '1.5'],
    ['is negative', '-1'],
    ['is written as Redis does not', '01'],
    ['is too large for Redis', '9'.repeat(30)],
    ['is at its limit', String(2n ** 63n - 1n)],
    ['is missing', undefined],
  ])('adds nothing to any count where one %s, and hands it out', async (_, count) => {
    const key = randomUUID()
    await create(storage, key)
    // The last of the five: what comes before it must not be added either.
    if (count === undefined) await client.hdel(`circuit:${key}`, 'reporterCount')
    else await client.hset(`circuit:${key}`, 'reporterCount', count)
    const before = await client.dump(`circuit:${key}`)
    const { applied, current } = await storage.addOutcomes(key, 'v', outcomes())
    expect(applied).toBe(false)
    expect(() => parseCircuitRecord(key, current, 'addOutcomes')).toThrow(/damaged: reporterCount is/)
    expect(await client.dump(`circuit:${key}`)).toBe(before)
  })

  it('adds up 200 additions at once to 200', async () => {
    const key = randomUUID()
    await create(storage, key)
    const results = await Promise.all(Array.from({ length: 200 }, () => storage.addOutcomes(key, 'v', outcomes())))
    const counts = results.map(({ applied, current }) => (applied ? (current?.failureCount ?? 0) : 0))
    expect(counts.sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (__, index) => index + 1))
  })

  describe.each(['ioredis', 'ioredis5', 'iovalkey'])('with reply transformers of %s for all clients', (name) => {
    let module: ClientModule | undefined
    beforeAll(async () => {
      module = await optional<ClientModule>(name)
      // The example of ioredis itself, and two that make nothing of everything else.
      const { Command } = module ?? {}
      Command?.setReplyTransformer('hgetall', (reply) => {
        const list = reply as unknown[]
        return list.length === 0
          ? null
          : list.map((each, index) => [each, list[index + 1]]).filter((_, n) => n % 2 === 0)
      })
      for (const command of ['evalsha', 'eval', 'del']) Command?.setReplyTransformer(command, () => 'OK')
    })
    afterAll(() => {
      const transformers = (module?.Command as unknown as { _transformer: { reply: Record<string, unknown> } })
        ?._transformer
      for (const command of ['hgetall', 'evalsha', 'eval', 'del']) delete transformers?.reply[command]
    })

    const works = async (tested: RedisCircuitStorage, expectKey: (service: string) => string): Promise<void> => {
      const [first, second, none] = [randomUUID(), randomUUID(), randomUUID()]
      const record = circuitRecord()
      expect(await tested.getState(first)).toBeUndefined()
      expect(await tested.compareAndSetState(first, undefined, record)).toEqual({ applied: true, current: record })
      await tested.batchSetState([{ serviceKey: second, version: undefined, next: record }])
      expect(await tested.getState(first)).toEqual(record)
      expect(await tested.batchGetState([first, second, none])).toEqual(
        new Map([
          [first, record],
          [second, record],
        ]),
      )
      expect(await client.exists(expectKey(first), expectKey(second))).toBe(2)
    }

    it('is not misled', async () => {
      if (!module) return
      const transforming = new module.Redis(server.port, '127.0.0.1')
      opened.push(() => transforming.disconnect())
      await client.script('FLUSH')
      await works(new RedisCircuitStorage({ client: transforming }), (service) => `circuit:${service}`)
      if (name === 'ioredis')
        await works(withOwnClient({ url: server.url, options: patient }), (service) => `circuit:${service}`)
    })

    it('is not misled, and keeps to the keyPrefix of the client', async () => {
      // iovalkey finds no keys of commands in capitals.
      if (!module || name === 'iovalkey') return
      const transforming = new module.Redis(server.port, '127.0.0.1', { keyPrefix: 'app:' })
      opened.push(() => transforming.disconnect())
      await works(new RedisCircuitStorage({ client: transforming }), (service) => `app:circuit:${service}`)
      if (name === 'ioredis') {
        const options = { ...patient, keyPrefix: 'app:' }
        await works(withOwnClient({ url: server.url, options }), (service) => `app:circuit:${service}`)
      }
    })
  })

  it.each(['ioredis', 'ioredis5', 'iovalkey'])('keeps to the keyPrefix of a client of %s', async (name) => {
    const module = await optional<ClientModule>(name)
    if (!module) return
    const prefixed = new module.Redis(server.port, '127.0.0.1', { keyPrefix: 'app:' })
    opened.push(() => prefixed.disconnect())
    const service = randomUUID()
    await create(new RedisCircuitStorage({ client: prefixed }), service)
    expect(await client.exists(`app:circuit:${service}`)).toBe(1)
    await expect(new RedisCircuitStorage({ client: prefixed }).batchGetState([service, 'x'])).resolves.toMatchObject(
      new Map([[service, { version: 'v' }]]),
    )
  })

  it('is reached by a URL with times in its query', async () => {
    const times = Object.entries(patientRedis).map(([name, time]) => `${name}=${time}`)
    const addressed = withOwnClient({ url: `${server.url}/0?${times.join('&')}` })
    await expect(addressed.getState(randomUUID())).resolves.toBeUndefined()
  })

  it('does each primitive in one round trip, and a batch of 250 circuits as well', async () => {
    const counting = server.client()
    await counting.ping()
    const fresh = new RedisCircuitStorage({ client: counting })
    const keys = Array.from({ length: 250 }, () => randomUUID())
    const records = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))
    const stream = (counting as unknown as { stream: NodeJS.WritableStream }).stream
    const write = jest.spyOn(stream, 'write')
    const writes = async (action: () => Promise<unknown>) => {
      write.mockClear()
      await action()
      return write.mock.calls.length
    }
    await create(fresh, 'warm')
    await fresh.addOutcomes('warm', 'v', outcomes())

    await client.config('RESETSTAT')
    expect(await writes(() => fresh.batchSetState(records))).toBe(1)
    expect(await writes(() => fresh.batchGetState([...keys, ...keys]))).toBe(1)
    expect(await writes(() => fresh.batchClearState([...keys, ...keys]))).toBe(1)
    expect(await writes(() => fresh.batchGetState([]))).toBe(0)
    const statistics = await client.info('commandstats')
    expect(statistics).toContain('cmdstat_evalsha:calls=250,')
    expect(statistics).toContain('cmdstat_del:calls=250,')
    // 250 of them by the scripts.
    expect(statistics).toContain('cmdstat_hgetall:calls=500,')

    expect(await writes(() => fresh.getState('warm'))).toBe(1)
    expect(await writes(() => fresh.addOutcomes('warm', 'v', outcomes()))).toBe(1)
    expect(await writes(() => fresh.compareAndSetState('warm', 'x', circuitRecord()))).toBe(1)
    expect(await writes(() => fresh.clearState('warm'))).toBe(1)

    await client.script('FLUSH')
    expect(await writes(() => fresh.batchSetState(records))).toBe(2)
    await fresh.batchClearState(keys)
  })

  it('hands out the good records of a batch along with the error about the damaged one', async () => {
    const [good, bad] = [randomUUID(), randomUUID()]
    const record = circuitRecord()
    await storage.compareAndSetState(good, undefined, record)
    await client.set(`circuit:${bad}`, 'x')
    const error = await errorOf(storage.batchGetState([good, bad]))
    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error.results).toEqual(new Map([[good, record]]))
    expect([...(error.errors?.keys() ?? [])]).toEqual([bad])
  })

  it('counts every addition once while the scripts are flushed', async () => {
    const key = randomUUID()
    await create(storage, key)
    for (let round = 0; round < 20; round++) {
      const additions = Array.from({ length: 10 }, () => storage.addOutcomes(key, 'v', outcomes()))
      const flush = server.client().script('FLUSH')
      await Promise.all([flush, ...additions])
    }
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 200 })
  })

  it('begins anew after everything was deleted in the middle of the traffic, and refuses what is older', async () => {
    const key = randomUUID()
    await create(storage, key)
    const send = () => Array.from({ length: 20 }, () => storage.addOutcomes(key, 'v', outcomes()))
    const early = send()
    await setImmediate()
    const flush = client.flushall()
    await Promise.all([...early, flush, ...send()])
    await expect(storage.getState(key)).resolves.toBeUndefined()
    const refused = { applied: false, current: undefined }
    await expect(storage.addOutcomes(key, 'v', outcomes())).resolves.toEqual(refused)

    const next = circuitRecord()
    await storage.compareAndSetState(key, undefined, next)
    await expect(storage.addOutcomes(key, 'v', outcomes())).resolves.toEqual({ applied: false, current: next })
    await expect(storage.getState(key)).resolves.toEqual(next)
  })

  it('counts once what the client sends again because the reply was lost, and replaces once', async () => {
    const proxy = await proxyFor(server)
    const behind = withOwnClient({ url: `redis://127.0.0.1:${proxy.port}`, options: patient })
    const key = randomUUID()
    await create(behind, key)
    await behind.addOutcomes(key, 'v', outcomes())

    proxy.loseNextReply()
    await expect(behind.addOutcomes(key, 'v', outcomes())).resolves.toMatchObject({
      applied: true,
      current: { failureCount: 2 },
    })
    await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 2 })

    const next = circuitRecord()
    proxy.loseNextReply()
    const replaced = await behind.compareAndSetState(key, 'v', next)
    expect(replaced).toEqual({ applied: true, current: next })
    expect(proxy.connections()).toBe(3)
  })

  it('makes its own client of ioredis 5 as well', async () => {
    const proxy = await proxyFor(server)
    await jest.isolateModulesAsync(async () => {
      const name: string = 'ioredis5'
      jest.unstable_mockModule('ioredis', () => import(name))
      const fresh = await import('../../src/storage/redis/index.ts')
      const url = `redis://127.0.0.1:${proxy.port}`
      const user = new fresh.RedisCircuitStorage({ url, options: patient })
      const key = randomUUID()
      await expect(user.batchGetState([key, 'absent'])).resolves.toEqual(new Map())
      await create(user, key)
      await user.addOutcomes(key, 'v', outcomes())
      proxy.loseNextReply()
      const again = await user.addOutcomes(key, 'v', outcomes())
      expect(again).toMatchObject({ applied: true, current: { failureCount: 2 } })
      expect(proxy.connections()).toBe(2)
      await user.close()

      const hasty = new fresh.RedisCircuitStorage({ url, options: impatient })
      own.push(hasty)
      await waitFor('an answer', () => hasty.getState(key).catch(String), isRecord)
      const connections = proxy.connections()
      proxy.blackHole()
      // Its timers may hit a stalled connection again, as often as the machine stalls.
      await waitFor('an answer by another connection', () => hasty.getState(key).catch(String), isRecord)
      expect(proxy.connections()).toBeGreaterThan(connections)
      jest.unstable_unmockModule('ioredis')
    })
  })

  it('lets one request wait for a connection that is silent: the next one gives it up', async () => {
    const proxy = await proxyFor(server)
    const behind = withOwnClient({ url: `redis://127.0.0.1:${proxy.port}`, options: patient })
    await behind.getState('stripe')
    proxy.blackHole()
    const first = behind.getState('stripe')
    await setImmediate()
    const { now } = Date
    const later = jest.spyOn(Date, 'now').mockImplementation(() => now() + 400)
    const second = behind.getState('stripe')
    // The one that waits gets its answer by the new connection as well.
    await expect(Promise.all([first, second])).resolves.toEqual([undefined, undefined])
    expect(proxy.connections()).toBe(2)
    later.mockRestore()
  })

  it('gives up a connection whose other end has vanished, and asks again by another', async () => {
    const proxy = await proxyFor(server)
    const options = { ...patient, socketTimeout: 1_000 }
    const behind = withOwnClient({ url: `redis://127.0.0.1:${proxy.port}`, options })
    const ask = () => behind.getState('stripe').then(() => 'an answer', String)
    // Where the machine stalls for as long as that, the other connection is given up as well: then it is tried again.
    await waitFor(
      'one request has its answer by the second connection',
      async () => {
        await waitFor('the storage is connected', ask, (seen) => seen === 'an answer')
        const before = proxy.connections()
        proxy.blackHole()
        return [await ask(), proxy.connections() - before]
      },
      ([answer, connections]) => answer === 'an answer' && connections === 1,
    )
  })

  it('does not keep connecting to a server that hangs up at once, but does so when it is needed', async () => {
    const dead = await startRedis()
    const proxy = await proxyFor(dead)
    const behind = withOwnClient({ url: `redis://127.0.0.1:${proxy.port}`, options: patient })
    await behind.getState('stripe')
    const emit = jest.spyOn(Redis.prototype, 'emit')
    await dead.kill()
    await errorOf(behind.getState('stripe'))
    // After that event it connects no more.
    await waitFor(
      'the client has given up',
      () => emit.mock.calls.map(([event]) => event),
      (events) => events.includes('end'),
    )
    emit.mockRestore()
    expect(proxy.connections()).toBeLessThan(8)
    await dead.restart()
    await expect(behind.getState('stripe')).resolves.toBeUndefined()
    await dead.stop()
  })

  it('rejects when the server stalls, and works again when it goes on', async () => {
    const proxy = await startFaultProxy(server, 'redis')
    opened.push(() => proxy.stop())
    const options = { ...patient, commandTimeout: 500 }
    const waiting = withOwnClient({ url: `redis://127.0.0.1:${proxy.port}`, options })
    const ask = () => waiting.getState('stripe').then(() => 'an answer', String)
    await waitFor('the storage is connected', ask, (seen) => seen === 'an answer')
    await proxy.inflict({ kind: 'black-hole' })
    const error = await errorOf(waiting.getState('stripe'))
    expect(error.message).toBe('getState of "stripe" failed: Redis did not answer within commandTimeout.')
    await proxy.heal()
    await waitFor('an answer', ask, (seen) => seen === 'an answer')
    expect(proxy.connections).toBe(1)
  })

  it('says that a script of another client keeps the server busy', async () => {
    await client.config('SET', 'busy-reply-threshold', '10')
    const endless = server
      .client()
      .eval('while true do end', 0)
      .catch((error) => error)
    await waitFor(
      'the storage says that the server is busy',
      () => storage.getState('stripe').then(() => 'an answer', String),
      (seen) => seen.includes('keeps the server busy'),
    )
    await client.script('KILL')
    await endless
    await expect(storage.getState('stripe')).resolves.toBeUndefined()
    await client.config('SET', 'busy-reply-threshold', '5000')
  })

  it('changes nothing when the server has no memory left', async () => {
    const key = randomUUID()
    const record = circuitRecord()
    await storage.compareAndSetState(key, undefined, record)
    await client.config('SET', 'maxmemory', '1')
    const settled = await Promise.allSettled([
      storage.compareAndSetState(key, record.version, circuitRecord()),
      storage.addOutcomes(key, record.version, outcomes()),
      storage.compareAndSetState(`${key}2`, undefined, circuitRecord()),
    ])
    await client.config('SET', 'maxmemory', '0')
    for (const outcome of settled) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { message: expect.stringContaining('maxmemory') } })
    }
    await expect(storage.getState(key)).resolves.toEqual(record)
    await expect(storage.getState(`${key}2`)).resolves.toBeUndefined()
  })

  it('neither configures nor closes a client that was given', async () => {
    const given = server.client()
    const [before, listeners] = [{ ...given.options }, given.listenerCount('error')]
    const user = new RedisCircuitStorage({ client: given, keyPrefix: 'other:' })
    await user.compareAndSetState('stripe', undefined, circuitRecord())
    await user.close()
    expect({ ...given.options }).toEqual(before)
    expect(given.listenerCount('error')).toBe(listeners)
    expect(given.status).toBe('ready')
    expect(await given.exists('other:stripe')).toBe(1)
  })

  it('can be used with a client that has a prefix, and replies of its own', async () => {
    const given = server.client({ keyPrefix: 'mine:', protocol: 3, replyMapping: 'resp3', stringNumbers: true })
    const user = new RedisCircuitStorage({ client: given })
    const record = circuitRecord({ failureCount: 2 })
    await user.compareAndSetState('stripe', undefined, record)
    await expect(user.getState('stripe')).resolves.toEqual(record)
    await expect(user.batchGetState(['stripe', 'x'])).resolves.toEqual(new Map([['stripe', record]]))
    expect(await client.exists('mine:circuit:stripe')).toBe(1)
  })

  it('uses the database of the URL, and connects again after it was closed', async () => {
    const user = withOwnClient({ url: `${server.url}/3`, keyPrefix: 'breaker:', options: patient })
    await create(user, 'stripe')
    await user.close()
    await user.close()
    const found = await user.batchGetState(['stripe', 'absent'])
    expect([...found].map(([key, { version }]) => [key, version])).toEqual([['stripe', 'v']])
    expect(await server.client({ db: 3 }).exists('breaker:stripe')).toBe(1)
    expect(await client.exists('breaker:stripe')).toBe(0)
  })
})

describe('a database other than 0', () => {
  let server: RedisServer
  let admin: Redis
  const closing: (() => Promise<void>)[] = []

  beforeAll(async () => {
    const users = [
      `confined on >SECRET ${permissions}`,
      `breaker on >SECRET ${permissions} +select`,
      `changing on >SECRET ${permissions} +select`,
    ]
    server = await startRedis({ users })
    admin = server.client()
  })
  afterAll(async () => {
    await Promise.all(closing.map((close) => close()))
    await server?.stop()
  })
  const open = (path: string, options = {}, Storage = RedisCircuitStorage, port = server.port) => {
    const [user, database] = path.split('/')
    const url = `redis://${user}:SECRET@127.0.0.1:${port}/${database}`
    const storage = new Storage({ url, options: { ...patient, ...options } })
    closing.push(() => storage.close())
    return storage
  }
  const connectionsOf = async (user: string) => {
    const list = String(await admin.client('LIST')).split('\n')
    const fields = list.map((text) => Object.fromEntries(text.split(' ').map((field) => field.split('='))))
    return fields.filter((connection) => connection.user === user)
  }
  const kill = async (user: string) => {
    for (const { id = '' } of await connectionsOf(user)) await admin.client('KILL', 'ID', id)
  }
  const commandStatistics = async () => {
    const lines = (await admin.info('commandstats')).matchAll(/cmdstat_([a-z]+):calls=(\d+)/g)
    return Object.fromEntries(Array.from(lines, ([, name, calls]) => [name, Number(calls)]))
  }

  describe.each(['ioredis 6', 'ioredis 5'])('with %s', (version) => {
    const withStorage = async (run: (Storage: typeof RedisCircuitStorage) => Promise<void>) => {
      if (version === 'ioredis 6') return run(RedisCircuitStorage)
      await jest.isolateModulesAsync(async () => {
        const name: string = 'ioredis5'
        jest.unstable_mockModule('ioredis', () => import(name))
        const fresh = await import('../../src/storage/redis/index.ts')
        await run(fresh.RedisCircuitStorage)
        jest.unstable_unmockModule('ioredis')
      })
    }

    it('is used from the first command on, also by connections that follow one that was lost', () =>
      withStorage(async (Storage) => {
        await admin.flushall()
        const storage = open('breaker/3', {}, Storage)
        const key = randomUUID()
        await create(storage, key)
        const count = () => storage.addOutcomes(key, 'v', outcomes())
        await Promise.all([count(), count(), storage.batchGetState([key, 'absent'])])
        for (let round = 0; round < 5; round++) {
          const flying = [count(), count()]
          await kill('breaker')
          await Promise.all([...flying, count()])
        }
        await expect(storage.getState(key)).resolves.toMatchObject({ failureCount: 17 })
        expect(await connectionsOf('breaker')).toMatchObject([{ db: '3' }])
        expect(await server.client({ db: 3 }).keys('*')).toEqual([`circuit:${key}`])
        expect(await admin.dbsize()).toBe(0)
        await storage.close()
      }))

    it.each([
      [
        'confined/3',
        {},
        'Database 3 could not be selected: the Redis user lacks a permission. Grant +select',
        'NOPERM',
      ],
      ['breaker/99', {}, 'Database 99 could not be selected: the server does not have it. Correct it', 'ERR DB index'],
      ['breaker/', { db: Number.NaN }, 'Database NaN could not be selected', 'ERR'],
    ])('that cannot be selected is not replaced by database 0: %s %j', (path, options, what, reply) =>
      withStorage(async (Storage) => {
        await admin.flushall()
        const storage = open(path, options, Storage)
        const [next, key] = [circuitRecord(), 'stripe']
        for (let round = 0; round < 3; round++) {
          for (const operation of [
            storage.getState(key),
            storage.addOutcomes(key, 'v', outcomes()),
            storage.compareAndSetState(key, undefined, next),
            storage.clearState(key),
            storage.batchGetState([key, 'b']),
            storage.batchSetState([key, 'b'].map((serviceKey) => ({ serviceKey, version: undefined, next }))),
          ]) {
            const error = await errorOf(operation)
            expect([error.name, error.kind]).toEqual(['CircuitStorageError', 'misconfigured'])
            expect(error.message).toContain(what)
            expect((error.cause as Error).message).toContain(reply)
            expect(`${error.stack} ${(error.cause as Error).stack}`).not.toContain('SECRET')
          }
          // So that the next round begins with a client that has given up.
          await outlast(100)
        }
        expect(await admin.dbsize()).toBe(0)
        await storage.close()
      }),
    )

    it('is not replaced either when the permission is gone at a reconnect, and found again when it is back', () =>
      withStorage(async (Storage) => {
        await admin.flushall()
        const proxy = await startProxy(server)
        closing.push(() => proxy.stop())
        await admin.acl('SETUSER', 'changing', '+select')
        const storage = open('changing/3', {}, Storage, proxy.port)
        await create(storage, 'stripe')
        const count = () => storage.addOutcomes('stripe', 'v', outcomes())
        await count()
        await admin.acl('SETUSER', 'changing', '-select')
        const connections = proxy.connections()
        await kill('changing')
        await waitFor(
          'it is connected again',
          () => proxy.connections(),
          (now) => now > connections,
        )
        for (let round = 0; round < 3; round++) expect((await errorOf(count())).message).toContain('Grant +select')
        await admin.acl('SETUSER', 'changing', '+select')
        const { current } = await waitFor(
          'it counts',
          () => count().catch(failed),
          ({ applied }) => applied,
        )
        expect(current).toMatchObject({ failureCount: 2 })
        await storage.close()

        // A command on its way waits for its reply until commandTimeout, and a timer of ioredis 5 may hit the next.
        const hasty = open('changing/3', impatient, Storage, proxy.port)
        await waitFor('an answer', () => hasty.getState('stripe').catch(String), isRecord)
        await admin.acl('SETUSER', 'changing', '-select')
        proxy.loseNextReply()
        await waitFor(
          'it says what is missing',
          () => errorOf(hasty.getState('stripe')),
          ({ name, message }) => {
            expect(name).toBe('CircuitStorageError')
            expect(message).toContain('Grant +select')
          },
        )
        expect(await admin.dbsize()).toBe(0)
        await hasty.close()
      }))

    it('costs one SELECT for each connection and needs no INFO; database 0 costs nothing', () =>
      withStorage(async (Storage) => {
        for (const [path, selects] of [
          ['breaker/3', { select: 1 }],
          ['breaker/0', {}],
        ] as const) {
          const storage = open(path, {}, Storage)
          await admin.config('RESETSTAT')
          for (let round = 0; round < 3; round++) await storage.getState('stripe')
          const { info, config, ...commands } = await commandStatistics()
          expect(commands).toEqual({ auth: 1, hgetall: 3, ...selects })
          expect(info).toBeUndefined()
          await storage.close()
        }
      }))

    it('is selected before a ready check that was asked for', () =>
      withStorage(async (Storage) => {
        await admin.acl('SETUSER', 'breaker', '+info')
        const storage = open('breaker/3', { enableReadyCheck: true }, Storage)
        await admin.config('RESETSTAT')
        await storage.getState('stripe')
        expect(await commandStatistics()).toMatchObject({ select: 1, info: 1, hgetall: 1 })
        await storage.close()
      }))

    it('does not hide that the password is wrong', () =>
      withStorage(async (Storage) => {
        const storage = open('nobody/3', {}, Storage)
        for (let round = 0; round < 6; round++) {
          const { message } = await errorOf(storage.getState('stripe'))
          expect(message).toContain('does not accept the user or the password')
        }
        await storage.close()
      }))
  })
})

describe('a server that dies', () => {
  it('is found again when it is back, by a client that had given up', async () => {
    const server = await startRedis()
    const storage = new RedisCircuitStorage({ url: server.url, options: patient })
    await create(storage, 'stripe')
    await server.kill()
    const keys = Array.from({ length: 20 }, (_, index) => `service-${index}`)
    const errors = await Promise.all(keys.map((key) => errorOf(storage.addOutcomes(key, 'v', outcomes()))))
    for (const error of errors) {
      expect(error).toBeInstanceOf(CircuitStorageError)
      expect(error.message).toMatch(/ECONNREFUSED|ECONNRESET/)
    }
    const batch = await errorOf(storage.batchGetState(keys))
    expect(batch.errors?.size).toBe(20)

    await server.restart()
    const next = circuitRecord()
    const store = () => storage.compareAndSetState('stripe', undefined, next).catch(failed)
    await waitFor('it writes', store, ({ applied }) => applied)
    // Its memory is lost, and so is whatever waited to be sent.
    await expect(storage.getState('stripe')).resolves.toEqual(next)
    await expect(storage.batchGetState(keys)).resolves.toEqual(new Map())
    await storage.close()
    await server.stop()
  })

  it('leaves nothing behind in a process that only wrote to it: close resolves while it is away', async () => {
    const server = await startRedis()
    const storage = new RedisCircuitStorage({ url: server.url, options: patient })
    await storage.getState('stripe')
    await server.kill()
    await storage.close()
    await server.stop()
  })

  it('leaves no timer behind where the storage is closed while it is away', async () => {
    const server = await startRedis()
    const proxy = await startProxy(server)
    const timers = liveTimers()
    try {
      const waiting = { disconnectTimeout: patience, retryStrategy: () => patience, maxRetriesPerRequest: 0 }
      const options = { ...patientRedis, ...waiting }
      const storage = new RedisCircuitStorage({ url: `redis://127.0.0.1:${proxy.port}`, options })
      await storage.getState('stripe')
      proxy.loseNextReply()
      await errorOf(storage.getState('stripe'))
      await storage.close()
      expect(timers.delays()).toEqual([])
    } finally {
      timers.restore()
      await Promise.all([proxy.stop(), server.stop()])
    }
  })
})

/** Notes the timers of everything that runs in this file, until `restore`. */
function liveTimers() {
  const live = new Map<unknown, number | undefined>()
  const { setTimeout: set, clearTimeout: clear } = globalThis
  globalThis.setTimeout = ((callback: (...args: unknown[]) => void, delay?: number, ...args: unknown[]) => {
    const run = (...given: unknown[]): void => {
      live.delete(timer)
      callback(...given)
    }
    const timer = set(run, delay, ...args)
    live.set(timer, delay)
    return timer
  }) as typeof setTimeout
  globalThis.clearTimeout = ((timer: NodeJS.Timeout | undefined) => {
    live.delete(timer)
    clear(timer)
  }) as typeof clearTimeout
  const restore = (): void => {
    globalThis.setTimeout = set
    globalThis.clearTimeout = clear
  }
  return { delays: () => [...live.values()], restore }
}

describe('a replica', () => {
  it('is no place to write to, and is left for another connection', async () => {
    // It does not begin to send its data, which a replica has to load, before this time is over, in seconds.
    const primary = await startRedis({ settings: { 'repl-diskless-sync-delay': '3600' } })
    const replica = await startRedis({ settings: { replicaof: `127.0.0.1 ${primary.port}` } })
    const storage = new RedisCircuitStorage({ url: replica.url, options: patient })
    const write = () => storage.compareAndSetState('stripe', undefined, circuitRecord())
    const error = await errorOf(write())
    expect(error.message).toContain('the server is a replica. Connect to the primary (Redis: READONLY')
    await replica.client().replicaof('NO', 'ONE')
    await expect(write()).resolves.toMatchObject({ applied: true })
    await storage.close()
    await Promise.all([primary.stop(), replica.stop()])
  })
})

describe('a server that asks who is there', () => {
  const secret = 'p@ss/wörd#1'
  const escaped = encodeURIComponent(secret)
  let server: RedisServer
  const opened: RedisCircuitStorage[] = []

  beforeAll(async () => {
    server = await startRedis({
      password: secret,
      users: [`breaker on >${secret} ${permissions}`, `reader on >${secret} ~circuit:* +hgetall`],
      tls: true,
    })
  })
  afterAll(async () => {
    await Promise.all(opened.map((storage) => storage.close()))
    await server?.stop()
  })
  const storageAs = (user: string, ca = server.certificate): RedisCircuitStorage => {
    const url = `rediss://${user}127.0.0.1:${server.port}`
    const storage = new RedisCircuitStorage({ url, options: { ...patient, tls: ca ? { ca } : {} } })
    opened.push(storage)
    return storage
  }
  const everything = async (storage: RedisCircuitStorage) => {
    const key = randomUUID()
    const [forced, next] = [circuitRecord({ override: { state: 'OPEN', at } }), circuitRecord()]
    await create(storage, key)
    await storage.addOutcomes(key, 'v', outcomes())
    await storage.getState(key)
    await storage.compareAndSetState(key, 'v', forced)
    await storage.batchSetState([{ serviceKey: key, version: forced.version, next }])
    await expect(storage.batchGetState([key])).resolves.toEqual(new Map([[key, next]]))
    await storage.clearState(key)
    await storage.batchClearState([key])
    await expect(storage.getState(key)).resolves.toBeUndefined()
  }

  it('lets in the password alone, over TLS', () => everything(storageAs(`:${escaped}@`)))

  it('lets in a user who has no more than the documented permissions', () =>
    everything(storageAs(`breaker:${escaped}@`)))

  it.each([
    ['no password', '', 'Redis wants a password'],
    ['a wrong password', 'breaker:SECRET-1@', 'Redis does not accept the user or the password'],
    ['a user that may only read', `reader:${escaped}@`, 'the Redis user lacks a permission'],
  ])('says what is wrong with %s, and repeats no secret', async (_, user, what) => {
    const storage = storageAs(user)
    const error = await errorOf(storage.addOutcomes('stripe', 'v', outcomes()))
    expect(error.message).toContain(what)
    const shown = `${error.stack} ${JSON.stringify(error.cause)} ${(error.cause as Error).stack}`
    for (const word of ['SECRET', secret, escaped]) expect(shown).not.toContain(word)
    expect(error.cause).not.toHaveProperty('command')
  })

  it('is not trusted without its certificate, which does not pass by itself', async () => {
    const error = await errorOf(storageAs(`:${escaped}@`, '').getState('stripe'))
    expect(error.kind).toBe('misconfigured')
    expect(error.message).toContain('the certificate of the server is not accepted (DEPTH_ZERO_SELF_SIGNED_CERT).')
    expect(error.message).toContain('put its authority into tls.ca of the options')
  })

  it.each([
    ['', ''],
    [`:${escaped}@`, ''],
    ['', '/2'],
  ])('says that it speaks TLS to a client that does not: %p, %p', async (user, database) => {
    const storage = withOptions(`redis://${user}127.0.0.1:${server.port}${database}`)
    await expectMisconfigured(storage, 'the server speaks TLS on this port. Use rediss:// in place of redis://')
  })

  it.each(['', `:${escaped}@`])('says that it speaks no TLS to a client that does: %p', async (user) => {
    const plain = await startRedis(user ? { password: secret } : {})
    const storage = withOptions(`rediss://${user}127.0.0.1:${plain.port}`)
    await expectMisconfigured(storage, 'the server speaks no TLS on this port. Use redis:// in place of rediss://')
    await plain.stop()
  })

  it.each(['redis', 'rediss'])('says nothing of TLS to a client that finds nobody there: %s', async (scheme) => {
    const { message } = await errorOf(withOptions(`${scheme}://127.0.0.1:1`).getState('stripe'))
    expect(message).toContain('ECONNREFUSED')
  })

  const withOptions = (url: string): RedisCircuitStorage => {
    // A server without TLS is silent to a handshake: only the end of this time ends it.
    const options = { commandTimeout: 500, connectTimeout: 250, socketTimeout: 250 }
    const storage = new RedisCircuitStorage({ url, options })
    opened.push(storage)
    return storage
  }
  /** On a busy machine the server may not be asked in time at first. */
  const expectMisconfigured = async (storage: RedisCircuitStorage, message: string): Promise<void> => {
    const ask = () => errorOf(storage.batchGetState(['stripe', 'paypal']))
    const error = await waitFor('it is explained', ask, ({ kind }) => kind === 'misconfigured')
    expect(error.message).toContain(message)
    expect(error.message).not.toContain(escaped)
  }
})
