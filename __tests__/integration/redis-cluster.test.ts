import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { type Cluster, Command } from 'ioredis'
import { CircuitStorageError } from '../../src/errors.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord } from '../../src/testing/index.ts'
import { type RedisCluster, type RedisServer, startRedisCluster } from '../support/redis-server.ts'
import { outlast, waitFor } from '../support/time.ts'

/** One failure of one instance. */
function outcomes() {
  return { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at: Date.now(), id: randomUUID() }
}

describe('the storage in a cluster of three masters', () => {
  let cluster: RedisCluster
  let client: Cluster
  let storage: RedisCircuitStorage

  beforeAll(async () => {
    cluster = await startRedisCluster()
    client = cluster.client()
    storage = new RedisCircuitStorage({ client })
  })
  afterAll(() => cluster?.stop())

  const slotOf = (service: string) => client.cluster('KEYSLOT', `circuit:${service}`)
  /** The node that has the slot of this circuit, as the nodes see it. */
  const ownerOf = async (service: string): Promise<RedisServer> => {
    const slot = await slotOf(service)
    const ranges = (await client.cluster('SLOTS')) as unknown as [number, number, [string, number]][]
    const port = ranges.find(([first, last]) => first <= slot && slot <= last)?.[2][1]
    return cluster.nodes.find((node) => node.port === port) as RedisServer
  }

  /** Stores circuits, under a version that the tests know. */
  const createAll = (services: readonly string[]) =>
    storage.batchSetState(
      services.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord({ version: 'v' }) })),
    )

  it('spreads circuits over the nodes, and writes, reads and deletes them in batches', async () => {
    const keys = Array.from({ length: 250 }, () => `${randomUUID()}{`)
    const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))
    const results = await storage.batchSetState(writes)
    expect([...results.values()].filter(({ applied }) => applied)).toHaveLength(250)
    await expect(storage.batchGetState(keys)).resolves.toEqual(
      new Map(writes.map(({ serviceKey, next }) => [serviceKey, next])),
    )
    expect(new Set(await Promise.all(keys.slice(0, 30).map(ownerOf))).size).toBe(3)
    await storage.batchClearState(keys)
    await expect(storage.batchGetState(keys)).resolves.toEqual(new Map())
  })

  it('reads past a reply transformer for all clients', async () => {
    Command.setReplyTransformer('hgetall', () => null)
    try {
      const [service, next] = [randomUUID(), circuitRecord()]
      const transforming = new RedisCircuitStorage({ client: cluster.client({ keyPrefix: 'app:' }) })
      await transforming.compareAndSetState(service, undefined, next)
      expect(await transforming.batchGetState([service, randomUUID()])).toEqual(new Map([[service, next]]))
      expect(await client.exists(`app:circuit:${service}`)).toBe(1)
    } finally {
      Command.setReplyTransformer('hgetall', undefined as never)
    }
  })

  it('tells who asks a single node that the server is part of a cluster', async () => {
    const service = randomUUID()
    const owner = await ownerOf(service)
    const other = cluster.nodes.find((node) => node !== owner) as RedisServer
    const mistaken = new RedisCircuitStorage({ client: other.client() })
    await expect(mistaken.getState(service)).rejects.toThrow('Pass a cluster client')
  })

  it('counts every addition once while slots move to nodes that do not know the scripts', async () => {
    const services = Array.from({ length: 6 }, () => randomUUID())
    const counting = new RedisCircuitStorage({ client: cluster.client() })
    await createAll(services)
    const sent = new Map(services.map((service) => [service, 0]))
    /** The one under way has been sent before: the second one counts. */
    const counted = async () => {
      const before = new Map(sent)
      await waitFor(
        'every circuit is counted in',
        () => services.map((service) => Number(sent.get(service)) - Number(before.get(service))),
        (counts) => Math.min(...counts) >= 2,
      )
    }
    let moving = true
    const traffic = services.map(async (service) => {
      while (moving) {
        const result = await counting.addOutcomes(service, 'v', outcomes())
        expect(result.applied).toBe(true)
        sent.set(service, (sent.get(service) ?? 0) + 1)
      }
    })
    const reading = (async () => {
      while (moving) await counting.batchGetState(services)
    })()
    for (const service of services) {
      const from = await ownerOf(service)
      const to = cluster.nodes.find((node) => node !== from) as RedisServer
      await to.client().script('FLUSH')
      await cluster.moveSlot(await slotOf(service), from, to, counted)
    }
    moving = false
    await Promise.all([...traffic, reading])
    expect(Math.min(...sent.values())).toBeGreaterThanOrEqual(24)
    const records = await storage.batchGetState(services)
    expect(new Map([...records].map(([service, { failureCount }]) => [service, failureCount]))).toEqual(sent)
    await cluster.settled()
  })

  it('serves the circuits of the other nodes while one is down, and all of them when it is back', async () => {
    const patient = cluster.client({ maxRedirections: 3, retryDelayOnFailover: 50, retryDelayOnClusterDown: 50 })
    const user = new RedisCircuitStorage({ client: patient })
    const services = Array.from({ length: 30 }, () => randomUUID())
    await createAll(services)
    await user.batchGetState(services)
    const dead = cluster.nodes[1] as RedisServer
    const owners = await Promise.all(services.map(ownerOf))
    const lost = services.filter((_, index) => owners[index] === dead)
    const alive = services.filter((_, index) => owners[index] !== dead)

    const reports = new Map(services.map((service) => [service, { applied: 0, errors: [] as unknown[] }]))
    let down = true
    const traffic = services.map(async (service) => {
      const outcome = reports.get(service) as { applied: number; errors: unknown[] }
      while (down) {
        await user.addOutcomes(service, 'v', outcomes()).then(
          () => outcome.applied++,
          (error) => outcome.errors.push(error),
        )
        await outlast(5)
      }
    })
    await dead.kill()
    await waitFor(
      'each circuit is counted in or fails',
      () => reports,
      () =>
        lost.every((service) => reports.get(service)?.errors.length) &&
        alive.every((service) => reports.get(service)?.applied),
    )
    const error = await user.batchGetState(services).catch((reason) => reason)
    down = false
    await Promise.all(traffic)

    for (const service of alive) expect(reports.get(service)?.errors).toEqual([])
    for (const { errors } of reports.values()) {
      for (const each of errors) expect(each).toBeInstanceOf(CircuitStorageError)
    }
    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(new Set(error.errors.keys())).toEqual(new Set(lost))
    expect(new Set(error.results.keys())).toEqual(new Set(alive))
    for (const service of alive) {
      expect(error.results.get(service).failureCount).toBeLessThanOrEqual(reports.get(service)?.applied ?? 0)
    }

    await dead.restart()
    await cluster.settled()
    for (const service of lost) {
      const next = circuitRecord({ version: 'v', failureCount: 1 })
      await waitFor(
        'a lost circuit is served again',
        () => user.compareAndSetState(service, undefined, next).catch((reason) => reason),
        ({ applied }) => applied === true,
      )
    }
    const records = await user.batchGetState(services)
    expect(records.size).toBe(30)
    for (const service of lost) expect(records.get(service)?.failureCount).toBe(1)
    for (const service of alive) expect(records.get(service)?.failureCount).toBe(reports.get(service)?.applied)
  })
})
