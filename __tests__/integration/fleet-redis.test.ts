import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis.ts'
import { circuitRecord } from '../../src/testing/index.ts'
import { Fleet, FleetProcess } from '../support/fleet.ts'
import type { FleetReport, FleetWorkerSetup } from '../support/fleet-worker.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'

let server: RedisServer
const running: { stop(): Promise<void> }[] = []

beforeAll(async () => {
  server = await startRedis()
})
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()))
})
afterAll(() => server.stop())

/** A fleet with keys of its own and a connection for each breaker, and a look at what it stores. */
async function startFleet(
  processes: number,
  breakers: number,
  options: FleetWorkerSetup['options'],
): Promise<{ fleet: Fleet; setup: FleetWorkerSetup; storage: RedisCircuitStorage }> {
  const { url } = server
  const keyPrefix = `circuit-${randomUUID()}:`
  const setup = { store: { type: 'redis', url, keyPrefix } as const, breakers, options }
  const fleet = await Fleet.start(processes, setup)
  const storage = new RedisCircuitStorage({ url, keyPrefix })
  running.push(fleet, { stop: () => storage.close() })
  await fleet.load()
  return { fleet, setup, storage }
}

/** Commands that were sent since an earlier report, by name. */
function since(before: FleetReport, after: FleetReport): Record<string, number> {
  const counts = Object.entries(after.requests).map(([name, count]) => [name, count - (before.requests[name] ?? 0)])
  return Object.fromEntries(counts.filter(([, count]) => count !== 0))
}

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0)

describe('a fleet of processes over one Redis', () => {
  it('opens once, with one event and about one command for each failing invocation, when 200 breakers fail at once', async () => {
    // As in production, where the server has known the scripts for long.
    const warm = new RedisCircuitStorage({ url: server.url })
    await warm.incrementFailures('warm', undefined, { count: 1, at: Date.now(), id: randomUUID() })
    await warm.compareAndSetState('warm', undefined, circuitRecord())
    await warm.close()
    const { fleet, storage } = await startFleet(4, 50, {
      resetTimeout: 60_000,
      cacheTtl: 60_000,
      storageTimeout: 20_000,
    })
    const loaded = await fleet.report()

    const { ran } = await fleet.call('fail')
    const failed = await fleet.report()
    const again = await fleet.call('fail')

    const record = await storage.getState('stripe')
    const refused = await fleet.report()
    const [atLoad, atFailure, atRefusal] = [loaded.requests, since(loaded, failed), since(failed, refused)]
    console.info(
      `200 breakers failing at once on Redis: ${JSON.stringify(atLoad)} to load, then ${JSON.stringify(atFailure)}: ` +
        `${sum(atFailure) / ran} commands per failing invocation; ${JSON.stringify(atRefusal)} for ${again.refused} refused ones`,
    )
    expect(refused.storageErrors).toEqual([])
    expect(refused.unexpected).toEqual([])
    expect(ran).toBe(200)
    expect(record).toMatchObject({ state: 'OPEN', generation: 1, trips: 1 })
    expect(record?.failureCount).toBeGreaterThanOrEqual(3)
    expect(refused.events).toHaveLength(1)
    expect(refused.events[0]).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', generation: 1 })
    expect(atLoad).toEqual({ hgetall: 200 })
    expect(sum(atFailure)).toBeLessThanOrEqual(ran + 20)
    // Whoever counted first was told of no more than its own failure: it learns of the others with its next one.
    expect(again.ran).toBeLessThanOrEqual(2)
    expect(again.refused).toBe(200 - again.ran)
    expect(sum(atRefusal)).toBe(again.ran)
  })

  it('counts every failure exactly once', async () => {
    const { fleet, storage } = await startFleet(4, 25, { failureThreshold: 10_000, storageTimeout: 20_000 })

    for (let round = 0; round < 5; round++) await fleet.call('fail')

    const { storageErrors, unexpected } = await fleet.report()
    expect([...storageErrors, ...unexpected]).toEqual([])
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 500 })
  })

  it('sends one probe, has one author for each transition, and serves everywhere after it', async () => {
    const { fleet, storage } = await startFleet(4, 50, { resetTimeout: 1_000, cacheTtl: 200, storageTimeout: 20_000 })
    await fleet.call('fail')
    // A spread of up to 5 % of the reset timeout is part of the protocol.
    await sleep(1_200)
    await fleet.load()

    const probing = await fleet.call('succeed', { holds: 1_200 })
    await fleet.load()
    const after = await fleet.call('succeed')

    const { events, storageErrors, unexpected } = await fleet.report()
    expect([...storageErrors, ...unexpected]).toEqual([])
    expect(probing).toEqual({ ran: 1, refused: 199 })
    expect(after).toEqual({ ran: 200, refused: 0 })
    expect(events.map(({ from, to, generation }) => [generation, from, to]).sort()).toEqual([
      [1, 'CLOSED', 'OPEN'],
      [2, 'OPEN', 'HALF_OPEN'],
      [3, 'HALF_OPEN', 'CLOSED'],
    ])
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 0, leases: [] })
  })

  it('replaces a prober that was killed, when its lease expires and not before', async () => {
    const options = { resetTimeout: 500, cacheTtl: 100, deadlineReserve: 0, storageTimeout: 20_000 }
    const { fleet, setup, storage } = await startFleet(2, 10, options)
    await fleet.call('fail')
    await sleep(700)
    await fleet.load()
    const prober = await FleetProcess.start({ ...setup, breakers: 1 })
    running.push({ stop: () => prober.kill() })
    const lease = 2_000
    const claimedAt = Date.now()
    void prober.call('succeed', { holds: 60_000, remaining: lease })
    await prober.operationStarted()
    await prober.kill()

    await fleet.load()
    const before = await fleet.call('succeed')
    const held = await storage.getState('stripe')
    await sleep(Math.max(0, claimedAt + lease + 500 - Date.now()))
    await fleet.load()
    const after = await fleet.call('succeed', { holds: 500 })

    expect(held).toMatchObject({ state: 'HALF_OPEN', leases: [{ id: expect.any(String) }] })
    expect(before).toEqual({ ran: 0, refused: 20 })
    expect(after).toEqual({ ran: 1, refused: 19 })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3 })
  })
})

/** After an outage of a second and a half an instance leaves the store alone for no longer than this, in milliseconds. */
const longestPause = 2_000
/** What polling, the invocations' own pauses and a busy machine may add, in milliseconds. */
const slack = 1_500

/** How long it takes until all breakers are in this state, in milliseconds. */
async function untilAllAre(fleet: Fleet, state: string, giveUpAfter: number): Promise<number> {
  const startedAt = Date.now()
  for (;;) {
    const { states } = await fleet.report()
    const elapsed = Date.now() - startedAt
    if (states.every((one) => one === state)) return elapsed
    if (elapsed > giveUpAfter) throw new Error(`after ${elapsed} ms not all are ${state}: ${states}`)
    await sleep(20)
  }
}

describe('a Redis that is killed and comes back empty', () => {
  it('costs callers nothing but time, and an operator reaches everyone again within one cacheTtl', async () => {
    const cacheTtl = 500
    const { fleet, storage } = await startFleet(4, 10, { cacheTtl, resetTimeout: 60_000 })
    const operator = new CircuitBreaker({ services: ['stripe'], storage, storageTimeout: 5_000 }, { env: {} })
    const stop = fleet.startTraffic('succeed')
    await operator.batchSetState({ stripe: 'OPEN' })
    await untilAllAre(fleet, 'OPEN', cacheTtl + slack)

    await server.kill()
    await sleep(1_500)
    const during = await fleet.report()
    await server.restart()
    // What was stored is gone: nothing is known to be wrong.
    const forgotten = await untilAllAre(fleet, 'CLOSED', longestPause + cacheTtl + slack)
    await operator.batchSetState({ stripe: 'OPEN' })
    const opened = await untilAllAre(fleet, 'OPEN', cacheTtl + slack)
    await operator.batchSetState({ stripe: 'CLOSED' })
    const closed = await untilAllAre(fleet, 'CLOSED', cacheTtl + slack)

    const { ran, refused, slowest } = await stop()
    const { unexpected, events, storageErrors } = await fleet.report()
    console.info(
      `Redis killed for 1.5 s: ${ran} calls ran, ${refused} were refused, the slowest invocation took ${Math.round(slowest)} ms, ` +
        `${storageErrors.length} storage errors; the empty store was adopted by all after ${forgotten} ms, then OPEN after ` +
        `${opened} ms and CLOSED after ${closed} ms (cacheTtl ${cacheTtl} ms)`,
    )
    expect(unexpected).toEqual([])
    // Away or not, an open circuit is respected.
    expect(new Set(during.states)).toEqual(new Set(['OPEN']))
    expect(storageErrors.length).toBeGreaterThan(0)
    expect(ran).toBeGreaterThan(0)
    expect(refused).toBeGreaterThan(0)
    expect(slowest).toBeLessThan(3 * 500 + slack)
    expect(events).toEqual([])
  })

  it('leaves each instance to protect itself against a dead service, and lets all of them recover together', async () => {
    const cacheTtl = 500
    const { fleet, storage } = await startFleet(4, 10, { cacheTtl, resetTimeout: 1_000 })
    const stopHealthy = fleet.startTraffic('succeed')
    await sleep(300)
    await stopHealthy()

    await server.kill()
    const stopAlone = fleet.startTraffic('fail')
    await sleep(2_000)
    const alone = await stopAlone()
    const during = await fleet.report()
    await server.restart()
    const stopBack = fleet.startTraffic('succeed')
    const recovered = await untilAllAre(fleet, 'CLOSED', longestPause + 1_000 + cacheTtl + slack)
    // The restored store is in use: failures open the circuit for all, with one event.
    await sleep(1_000)
    await stopBack()
    const { length: before } = (await fleet.report()).events
    const stopAgain = fleet.startTraffic('fail')
    await untilAllAre(fleet, 'OPEN', cacheTtl + slack)
    await stopAgain()
    await fleet.load()
    const { events, unexpected, states } = await fleet.report()
    const record = await storage.getState('stripe')
    console.info(
      `service and Redis down together for 2 s: ${alone.ran} calls ran and ${alone.refused} were refused; all closed again ` +
        `${recovered} ms after both were back`,
    )
    expect(unexpected).toEqual([])
    // Three failures open it, then one probe a second.
    expect(new Set(during.states)).not.toContain('CLOSED')
    expect(alone.ran).toBeLessThanOrEqual(40 * 6)
    expect(alone.refused).toBeGreaterThan(alone.ran)
    // What an instance decided alone is not pushed onto the fleet.
    expect(before).toBe(0)
    expect(events.map(({ from, to, reason }) => [from, to, reason])).toEqual([['CLOSED', 'OPEN', 'failure-threshold']])
    expect(record).toMatchObject({ state: 'OPEN' })
    expect(new Set(states)).toEqual(new Set(['OPEN']))
  })
})
