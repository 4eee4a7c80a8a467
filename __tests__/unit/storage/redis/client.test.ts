import { describe, expect, it, jest } from '@jest/globals'
import type { RedisOptions } from 'ioredis'
import type { RedisCircuitStorage } from '../../../../src/storage/redis/index.ts'
import { answering, open, stored } from './answering-client.ts'

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
      const fresh = await import('../../../../src/storage/redis/index.ts')
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

  it('takes numbers and switches out of the query of a URL, which wins over the options', () =>
    withFakeIoredis(async (make, made) => {
      const query = 'connectTimeout=7&enableReadyCheck=false&maxRetriesPerRequest=null&keyPrefix=12&username=true'
      await make({ url: `redis://x:1?${query}`, options: { connectTimeout: 8, commandTimeout: 9 } }).getState('a')
      expect(made[0]?.args).toEqual([
        expect.stringMatching(/^redis:\/\/x:1\/?$/),
        expect.objectContaining({
          connectTimeout: 7,
          commandTimeout: 9,
          enableReadyCheck: false,
          maxRetriesPerRequest: null,
          keyPrefix: '12',
          username: 'true',
        }),
      ])
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
      const fresh = await import('../../../../src/storage/redis/index.ts')
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
