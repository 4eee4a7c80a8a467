import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals'
import middy from '@middy/core'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { circuitBreaker } from '../../src/middleware.ts'
import type { ICircuitStorage } from '../../src/storage/circuit-storage.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { RedisCircuitStorage } from '../../src/storage/redis.ts'
import { circuitRecord, createTestContext } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { dynamoDBError, type FaultProxy, type ProxyFault, startFaultProxy } from '../support/fault-proxy.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { ok, outcomeOf, unavailable } from '../support/virtual-fleet.ts'

let dynamoDB: DynamoDBServer
let redis: RedisServer
let tableName: string
const proxies: FaultProxy[] = []

beforeAll(async () => {
  ;[dynamoDB, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
  tableName = await dynamoDB.createTable()
})
afterEach(() => {
  jest.restoreAllMocks()
})
afterAll(async () => {
  await Promise.all(proxies.map((proxy) => proxy.stop()))
  await Promise.all([dynamoDB?.stop(), redis?.stop()])
})

type Store = 'DynamoDB' | 'Redis'

interface Site {
  readonly proxy: FaultProxy
  connect(): ICircuitStorage
}

async function siteOf(store: Store): Promise<Site> {
  const port = store === 'DynamoDB' ? Number(new URL(dynamoDB.endpoint).port) : redis.port
  const proxy = await startFaultProxy({ port }, store === 'DynamoDB' ? 'http' : 'redis')
  proxies.push(proxy)
  const connect = (): ICircuitStorage => {
    if (store === 'Redis') return new RedisCircuitStorage({ url: `redis://127.0.0.1:${proxy.port}` })
    const endpoint = `http://127.0.0.1:${proxy.port}`
    return new DynamoDBCircuitStorage({ tableName, clientConfig: { ...dynamoDB.clientConfig, endpoint } })
  }
  return { proxy, connect }
}

/** A breaker whose clock the test moves on; the store's time is its own. */
function breakerAt({ connect }: Site, service: string) {
  let ahead = 0
  const timers = new Set<unknown>()
  const storage = connect()
  const breaker = new CircuitBreaker(
    { services: [service], storage },
    {
      env: {},
      now: () => Date.now() + ahead,
      setTimeout: (callback, delay) => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          callback()
        }, delay)
        timers.add(timer)
        return timer
      },
      clearTimeout: (timer) => {
        timers.delete(timer)
        clearTimeout(timer as NodeJS.Timeout)
      },
    },
  )
  const wait = (duration: number): void => {
    ahead += duration
  }
  const invoke = async (): Promise<void> => {
    await breaker.load()
    await outcomeOf(breaker.call(service, unavailable))
    await breaker.flush()
  }
  return { breaker, storage, wait, invoke, timers }
}

describe('a store that refuses is asked no more often than one that is well: with', () => {
  const faults: readonly [store: Store, name: string, fault: ProxyFault, warnings: number][] = [
    [
      'DynamoDB',
      'ProvisionedThroughputExceededException',
      answer(dynamoDBError('ProvisionedThroughputExceededException', 'x')),
      2,
    ],
    ['DynamoDB', 'ThrottlingException', answer(dynamoDBError('ThrottlingException', 'x')), 2],
    ['DynamoDB', 'AccessDeniedException', answer(dynamoDBError('AccessDeniedException', 'x')), 2],
    ['Redis', 'BUSY', answer('-BUSY Redis is busy running a script.\r\n'), 2],
    ['Redis', 'NOPERM', answer("-NOPERM this user has no permissions to run the 'hgetall' command\r\n"), 2],
  ]

  it.each(faults)('%s, %s', async (store, _name, fault, warnings) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const site = await siteOf(store)
    const { breaker, storage, wait, invoke } = breakerAt(site, `storm-${store}`)
    await breaker.load()
    const before = site.proxy.requests
    await site.proxy.inflict(fault)

    // Five minutes of an invocation every second, each of which would read and write.
    for (let second = 0; second < 300; second++) {
      await invoke()
      wait(1_000)
    }

    const requests = site.proxy.requests - before
    // With a pause of 2.5 to 5 s, for reads and for writes; before that it grows.
    expect(requests).toBeLessThanOrEqual(2 * (300 / 2.5 + 6))
    expect(requests).toBeGreaterThanOrEqual(2 * (300 / 5))
    // At most one a minute for reading and one for writing; of what is misconfigured one each.
    const isFinal = /Denied|NOPERM/.test(_name)
    expect(warn.mock.calls.length).toBeLessThanOrEqual(isFinal ? warnings : 5 * warnings)
    expect(warn.mock.calls.length).toBeGreaterThan(0)
    await storage.close?.()
  })
})

function answer(reply: string): ProxyFault {
  return { kind: 'answer', reply }
}

describe('a thousand rounds with a store that refuses connections leave nothing behind: in', () => {
  it.each(['DynamoDB', 'Redis'] as const)(
    '%s',
    async (store) => {
      jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const warnings: Error[] = []
      const note = (warning: Error) => warnings.push(warning)
      process.on('warning', note)
      const site = await siteOf(store)
      const listeners = listenerCounts()
      const resources = resourceCounts()
      const instances = Array.from({ length: 50 }, (_, index) => breakerAt(site, `leak-${store}-${index}`))
      await Promise.all(instances.map(({ breaker }) => breaker.load()))
      await site.proxy.inflict({ kind: 'refuse' })

      await Promise.all(
        instances.map(async ({ invoke, wait }) => {
          for (let round = 0; round < 20; round++) {
            await invoke()
            // So that the store is asked again in every round.
            wait(30_000)
          }
        }),
      )

      for (const { timers } of instances) expect(timers.size).toBe(0)
      expect(listenerCounts()).toEqual(listeners)
      await site.proxy.heal()
      await Promise.all(instances.map(({ storage }) => storage.close?.()))
      // What was given up may still be on its way for as long as the clients' own limits.
      let left = surplus(resources)
      for (let n = 0; n < 100 && left.length > 0; n++) {
        await sleep(50)
        left = surplus(resources)
      }
      expect(left).toEqual([])
      expect(warnings.map(({ name }) => name)).toEqual([])
      process.off('warning', note)
    },
    60_000,
  )
})

function listenerCounts(): Record<string, number> {
  return Object.fromEntries(process.eventNames().map((name) => [String(name), process.listenerCount(name)]))
}

function resourceCounts(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1)
  return counts
}

/** What there is more of than before, other than timers of the test itself. */
function surplus(before: ReadonlyMap<string, number>): string[] {
  return [...resourceCounts()]
    .filter(([type, count]) => count > (before.get(type) ?? 0) + (type === 'Timeout' ? 1 : 0))
    .map(([type, count]) => `${type}: ${count} instead of ${before.get(type) ?? 0}`)
}

describe('a transition whose reply was lost: in', () => {
  it.each(['DynamoDB', 'Redis'] as const)('%s is told once, by its author, also after others wrote', async (store) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const [broken, direct] = await Promise.all([siteOf(store), siteOf(store)])
    const service = `lost-${store}`
    const [author, other] = [breakerAt(broken, service), breakerAt(direct, service)]
    const told: string[] = []
    author.breaker.onStateChange(({ from, to }) => told.push(`author ${from} ${to}`))
    other.breaker.onStateChange(({ from, to }) => told.push(`other ${from} ${to}`))
    await Promise.all([author.breaker.load(), other.breaker.load()])
    for (let n = 0; n < 2; n++) await author.invoke()
    // Else Redis would be asked for a script that it does not know, and that reply would be lost.
    await other.storage.compareAndSetState(`warm-${store}`, undefined, circuitRecord())
    await broken.proxy.inflict({ kind: 'cut-reply' })
    await author.invoke()
    // The circuit is open for everyone, and another instance probes it and closes it.
    other.wait(12_000)
    await other.breaker.load()
    expect(await other.breaker.call(service, ok)).toBe('ok')
    await other.breaker.flush()
    expect(told.filter((line) => line.startsWith('other'))).toEqual(['other OPEN HALF_OPEN', 'other HALF_OPEN CLOSED'])

    await broken.proxy.heal()
    author.wait(12_000)
    await author.breaker.load()
    await author.breaker.flush()

    expect(told.sort()).toEqual(['author CLOSED OPEN', 'other HALF_OPEN CLOSED', 'other OPEN HALF_OPEN'])
    expect(author.breaker.circuits[service]?.state).toBe('CLOSED')
    await Promise.all([author.storage.close?.(), other.storage.close?.()])
  })
})

describe('a handler whose store is silent', () => {
  it.each(['DynamoDB', 'Redis'] as const)('answers as ever, and not much later: %s', async (store) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const site = await siteOf(store)
    const storage = site.connect()
    const answered = { statusCode: 200 }
    const handler = middy()
      .use(circuitBreaker({ services: ['stripe'], storage, storageTimeout: 200 }))
      .handler(async (_event, { callExternal }) => callExternal('stripe', async () => answered))
    await handler({}, createTestContext())
    await site.proxy.inflict({ kind: 'hang' })
    const cold = middy()
      .use(circuitBreaker({ services: ['stripe'], storage: site.connect(), storageTimeout: 200 }))
      .handler(async (_event, { callExternal }) => callExternal('stripe', async () => answered))

    for (const each of [handler, cold]) {
      const startedAt = Date.now()
      expect(await each({}, createTestContext())).toBe(answered)
      expect(Date.now() - startedAt).toBeLessThan(1_000)
    }
    await site.proxy.heal()
    await storage.close?.()
  })
})
