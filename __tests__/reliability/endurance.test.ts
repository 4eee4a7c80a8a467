import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals'
import middy from '@middy/core'
import { CircuitBreaker } from '../../src/circuit-breaker.ts'
import { circuitBreaker } from '../../src/middleware.ts'
import type { ICircuitStorage } from '../../src/storage/contract.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord, createTestContext } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { dynamoDBError, type FaultProxy, type ProxyFault, startFaultProxy } from '../support/fault-proxy.ts'
import { patientDynamoDB, patientRedis } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { ok, outcomeOf, unavailable } from '../support/virtual-fleet.ts'
import { createClock } from './clock.ts'

let dynamoDB: DynamoDBServer
let redis: RedisServer
let tableName: string
const proxies: FaultProxy[] = []
const storages: ICircuitStorage[] = []

beforeAll(async () => {
  ;[dynamoDB, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
  tableName = await dynamoDB.createTable()
})
afterEach(() => {
  jest.restoreAllMocks()
})
afterAll(async () => {
  // A client says goodbye to its server, and waits for the answer.
  await Promise.all(proxies.map((proxy) => proxy.heal()))
  await Promise.all(storages.map((storage) => storage.close?.()))
  await Promise.all(proxies.map((proxy) => proxy.stop()))
  await Promise.all([dynamoDB?.stop(), redis?.stop()])
})

type Store = 'DynamoDB' | 'Redis'

interface Site {
  readonly proxy: FaultProxy
  /** @param limits those of the client */
  connect(limits?: 'patient' | 'default'): ICircuitStorage
}

async function siteOf(store: Store): Promise<Site> {
  const port = store === 'DynamoDB' ? Number(new URL(dynamoDB.endpoint).port) : redis.port
  const proxy = await startFaultProxy({ port }, store === 'DynamoDB' ? 'http' : 'redis')
  proxies.push(proxy)
  const storageOf = (isPatient: boolean): ICircuitStorage => {
    if (store === 'Redis') {
      const options = isPatient ? patientRedis : {}
      return new RedisCircuitStorage({ url: `redis://127.0.0.1:${proxy.port}`, options })
    }
    const endpoint = `http://127.0.0.1:${proxy.port}`
    const clientConfig = { ...dynamoDB.clientConfig, endpoint, ...(isPatient ? patientDynamoDB : {}) }
    return new DynamoDBCircuitStorage({ tableName, clientConfig })
  }
  const connect: Site['connect'] = (limits = 'patient') => {
    const storage = storageOf(limits === 'patient')
    storages.push(storage)
    return storage
  }
  return { proxy, connect }
}

/** A breaker whose clock stands still until the test moves it, so that it waits for every answer. */
function breakerAt(storage: ICircuitStorage, service: string, clock = createClock(), failureThreshold = 3) {
  const breaker = new CircuitBreaker({ services: [service], storage, failureThreshold }, { env: {}, ...clock })
  const invoke = async (): Promise<void> => {
    await breaker.load()
    await outcomeOf(breaker.call(service, unavailable))
    await breaker.flush()
  }
  /** Nothing that is under way is late. */
  const pass = async (duration: number): Promise<void> => {
    await waitFor('no timer of the breaker is set', () => clock.pending === 0)
    await clock.advance(duration)
  }
  return { breaker, storage, clock, invoke, pass }
}

describe('a store that refuses is asked no more often than one that is well: with', () => {
  const faults: readonly [store: Store, name: string, fault: ProxyFault][] = [
    [
      'DynamoDB',
      'ProvisionedThroughputExceededException',
      answer(dynamoDBError('ProvisionedThroughputExceededException', 'x')),
    ],
    ['DynamoDB', 'ThrottlingException', answer(dynamoDBError('ThrottlingException', 'x'))],
    ['DynamoDB', 'AccessDeniedException', answer(dynamoDBError('AccessDeniedException', 'x'))],
    ['Redis', 'BUSY', answer('-BUSY Redis is busy running a script.\r\n')],
    ['Redis', 'NOPERM', answer("-NOPERM this user has no permissions to run the 'hgetall' command\r\n")],
  ]

  it.each(faults)('%s, %s', async (store, name, fault) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const site = await siteOf(store)
    const { breaker, invoke, pass } = breakerAt(site.connect(), `storm-${store}`)
    await breaker.load()
    const before = site.proxy.requests
    await site.proxy.inflict(fault)

    // Five minutes of an invocation every second, each of which would read and write.
    for (let second = 0; second < 300; second++) {
      await invoke()
      await pass(1_000)
    }

    const requests = site.proxy.requests - before
    // With a pause of 2.5 to 5 s for reads; writes are asked for once in a resetTimeout of 10 s, or as often.
    expect(requests).toBeLessThanOrEqual(2 * (300 / 2.5 + 6))
    expect(requests).toBeGreaterThanOrEqual(300 / 5 + 300 / 10)
    // At most one a minute for each operation; of what is misconfigured one each for reading and writing.
    const said = warn.mock.calls.map(([message]) => String(message))
    const isFinal = /Denied|NOPERM/.test(name)
    if (isFinal) expect(said.length).toBeLessThanOrEqual(2)
    const byOperation = Map.groupBy(
      said,
      (message) => /\b(?:getState|batchGetState|\w+Outcomes|\w+SetState)\b/.exec(message)?.[0],
    )
    for (const messages of byOperation.values()) expect(messages.length).toBeLessThanOrEqual(5)
    expect(said.length).toBeGreaterThan(0)
  })
})

function answer(reply: string): ProxyFault {
  return { kind: 'answer', reply }
}

describe('a thousand rounds with a store that refuses connections leave nothing behind: in', () => {
  it.each(['DynamoDB', 'Redis'] as const)('%s', async (store) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    // The pauses of the clients before they connect again are random: here none takes any time.
    jest.spyOn(Math, 'random').mockReturnValue(0)
    const warnings: Error[] = []
    const note = (warning: Error) => warnings.push(warning)
    process.on('warning', note)
    const site = await siteOf(store)
    const listeners = listenerCounts()
    const resources = resourceCounts()
    const instances = Array.from({ length: 50 }, (_, index) =>
      breakerAt(site.connect('default'), `leak-${store}-${index}`),
    )
    await Promise.all(instances.map(({ breaker }) => breaker.load()))
    await site.proxy.inflict({ kind: 'refuse' })

    await Promise.all(
      instances.map(async ({ invoke, pass }) => {
        for (let round = 0; round < 20; round++) {
          await invoke()
          // So that the store is asked again in every round.
          await pass(30_000)
        }
      }),
    )

    for (const { clock } of instances) expect(clock.pending).toBe(0)
    expect(listenerCounts()).toEqual(listeners)
    // Attempts to connect end in their own time, and what was begun is closed as well as what was not.
    const surplus = () => surplusOf(resources)
    await waitFor('the clients have given up', surplus, (left) => left.length === 0)
    await site.proxy.heal()
    await Promise.all(instances.map(({ storage }) => storage.close?.()))
    await waitFor('no more is left than there was before', surplus, (left) => left.length === 0)
    expect(warnings.map(({ name }) => name)).toEqual([])
    process.off('warning', note)
  })
})

function listenerCounts(): Record<string, number> {
  return Object.fromEntries(process.eventNames().map((name) => [String(name), process.listenerCount(name)]))
}

function resourceCounts(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1)
  return counts
}

/** The resources of which there are more than before. */
function surplusOf(before: ReadonlyMap<string, number>): string[] {
  return [...resourceCounts()]
    .filter(([type, count]) => count > (before.get(type) ?? 0))
    .map(([type, count]) => `${type}: ${count} instead of ${before.get(type) ?? 0}`)
}

describe('a transition whose reply was lost: in', () => {
  it.each(['DynamoDB', 'Redis'] as const)('%s is told once, by its author, also after others wrote', async (store) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const [broken, direct] = await Promise.all([siteOf(store), siteOf(store)])
    const service = `lost-${store}`
    const clock = createClock()
    // The first failure is the trip.
    const author = breakerAt(broken.connect(), service, clock, 1)
    const other = breakerAt(direct.connect(), service, clock, 1)
    const told: string[] = []
    author.breaker.onStateChange(({ from, to }) => told.push(`author ${from} ${to}`))
    other.breaker.onStateChange(({ from, to }) => told.push(`other ${from} ${to}`))
    await Promise.all([author.breaker.load(), other.breaker.load()])
    // Else Redis would be asked for a script that it does not know, and that reply would be lost.
    await other.storage.compareAndSetState(`warm-${store}`, undefined, circuitRecord())
    await broken.proxy.inflict({ kind: 'cut-reply' })
    await author.invoke()
    // The circuit is open for everyone, and another instance probes it and closes it.
    await other.pass(12_000)
    await other.breaker.load()
    expect(await other.breaker.call(service, ok)).toBe('ok')
    await other.breaker.flush()
    expect(told.filter((line) => line.startsWith('other'))).toEqual(['other OPEN HALF_OPEN', 'other HALF_OPEN CLOSED'])

    await broken.proxy.heal()
    await author.pass(12_000)
    await author.breaker.load()
    await author.breaker.flush()

    expect(told.sort()).toEqual(['author CLOSED OPEN', 'other HALF_OPEN CLOSED', 'other OPEN HALF_OPEN'])
    expect(author.breaker.circuits[service]?.state).toBe('CLOSED')
  })
})

describe('a handler whose store is silent', () => {
  it.each(['DynamoDB', 'Redis'] as const)('answers as ever, and not much later: %s', async (store) => {
    jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const site = await siteOf(store)
    const answered = { statusCode: 200 }
    const start = () => {
      const [storage, clock] = [site.connect(), createClock()]
      const options = { services: ['stripe'], storage, storageTimeout: 200 } as const
      const handler = middy()
        .use(circuitBreaker(new CircuitBreaker(options, { env: {}, ...clock })))
        .handler(async (_event, { callExternal }) => callExternal('stripe', async () => answered))
      return { handler, storage, clock }
    }
    const [warm, cold] = [start(), start()]
    await warm.handler({}, createTestContext())
    // A library that is loaded is not the store's silence.
    await cold.storage.prepare?.()
    await site.proxy.inflict({ kind: 'hang' })
    // The record that the warm one knows is to be read again.
    await warm.clock.advance(5_000)

    for (const { handler, clock } of [warm, cold]) {
      let answer: unknown
      const outcome = handler({}, createTestContext()).then((value: unknown) => {
        answer = value
      })
      await clock.advance(199)
      expect(answer).toBeUndefined()
      await clock.advance(1)
      expect(answer).toBe(answered)
      await outcome
    }
  })
})
