import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { CircuitBreaker } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord } from '../../src/testing/index.ts'
import { Fleet, FleetProcess } from '../support/fleet.ts'
import type { FleetReport, FleetWorkerSetup } from '../support/fleet-worker.ts'
import { patientRedis, patientStore } from '../support/patience.ts'
import { type RedisServer, startRedis } from '../support/redis-server.ts'
import { expectUnhurried, waitFor } from '../support/time.ts'
import { testWhoOpens } from './fleet-verdict.ts'

const minute = 60_000
const hour = 60 * minute
/** No stall of the machine lasts so long; the clock of a fleet is set forward. */
const times = { resetTimeout: 10 * minute, cacheTtl: 2 * minute, window: 24 * hour, maxResetTimeout: hour } as const
/** Claims are spread over this time, in milliseconds. */
const spread = 1_000
/** Patient, but without a time for silence: the timer of ioredis for that outlives a killed server. */
const clientOptions = { ...patientRedis, socketTimeout: undefined }

let server: RedisServer
/** Of four processes: a test gives it its own breakers. */
let fleet: Fleet
const running: { stop(): Promise<void> }[] = []

beforeAll(async () => {
  ;[server, fleet] = await Promise.all([startRedis(), Fleet.start(4)])
})
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()))
})
afterAll(() => Promise.all([server?.stop(), fleet?.stop()]))

/** Gives each process so many breakers, which are cold, with keys of their own and a connection for each. */
async function equipCold(
  breakers: number,
  options: FleetWorkerSetup['options'] = {},
): Promise<{ setup: FleetWorkerSetup; storage: RedisCircuitStorage }> {
  const { url } = server
  const keyPrefix = `circuit-${randomUUID()}:`
  const setup = { store: { type: 'redis', url, keyPrefix } as const, breakers, options: { ...times, ...options } }
  await fleet.equip(setup)
  const storage = new RedisCircuitStorage({ url, keyPrefix, options: clientOptions })
  running.push({ stop: () => storage.close() })
  return { setup, storage }
}

/** The same, and all of them have read that nothing is stored. */
async function equip(...given: Parameters<typeof equipCold>): ReturnType<typeof equipCold> {
  const equipped = await equipCold(...given)
  await fleet.load()
  return equipped
}

/** Commands that were sent since an earlier report, by name. */
function since(before: FleetReport, after: FleetReport): Record<string, number> {
  const counts = Object.entries(after.requests).map(([name, count]) => [name, count - (before.requests[name] ?? 0)])
  return Object.fromEntries(counts.filter(([, count]) => count !== 0))
}

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0)

describe('a fleet of processes over one Redis', () => {
  testWhoOpens(() => fleet, equipCold)

  it('opens once, with one event and at most two commands for each failing invocation, when 200 breakers fail at once', async () => {
    // As in production, where the server has known the scripts for long.
    const warm = new RedisCircuitStorage({ url: server.url, options: clientOptions })
    const record = circuitRecord()
    await warm.compareAndSetState('warm', undefined, record)
    const outcomes = { started: 0, failures: 1, successes: 0, early: 0, reporters: 0, at: Date.now(), id: randomUUID() }
    await warm.addOutcomes('warm', record.version, outcomes)
    await warm.close()
    const { storage } = await equip(50)
    const loaded = await fleet.report()

    const { ran } = await fleet.call('fail')
    const failed = await fleet.report()
    await fleet.advance(1_000)
    const again = await fleet.call('fail')

    const stored = await storage.getState('stripe')
    const refused = await fleet.report()
    const [atLoad, atFailure, atRefusal] = [loaded.requests, since(loaded, failed), since(failed, refused)]
    console.info(
      `200 breakers failing at once on Redis: ${JSON.stringify(atLoad)} to load, then ${JSON.stringify(atFailure)}: ` +
        `${sum(atFailure) / ran} commands per failing invocation; ${JSON.stringify(atRefusal)} for ${again.refused} refused ones`,
    )
    expect(refused.storageErrors).toEqual([])
    expect(refused.unexpected).toEqual([])
    expect(ran).toBe(200)
    expect(stored).toMatchObject({ state: 'OPEN', generation: 1, trips: 1 })
    expect(refused.events).toHaveLength(1)
    expect(refused.events[0]?.evidence?.failures).toBeGreaterThanOrEqual(3)
    expect(refused.events[0]).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', generation: 1 })
    expect(atLoad).toEqual({ HGETALL: 200 })
    expect(sum(atFailure)).toBeLessThanOrEqual(2 * ran + 20)
    // Whoever counted first was told of no more than its own failure: it learns of the others with its next one.
    expect(again.ran).toBeLessThanOrEqual(2)
    expect(again.refused).toBe(200 - again.ran)
    // All who see that the failures have joined write the verdict and are refused; one of them is the first, and writes an
    // entry of the journal, for which the server asks for the script.
    expect(sum(atRefusal)).toBeLessThanOrEqual(200 + again.ran + 2)
  })

  it('counts every failure exactly once', async () => {
    const { storage } = await equip(25, { failureThreshold: 10_000 })

    for (let round = 0; round < 5; round++) await fleet.call('fail')

    const { storageErrors, unexpected } = await fleet.report()
    expect([...storageErrors, ...unexpected]).toEqual([])
    expect(await storage.getState('stripe')).toMatchObject({
      state: 'CLOSED',
      // The one that raised the suspicion, and all of them from their second call on.
      failureCount: 1 + 4 * 100,
      // The first failures of the others had merely run into it.
      earlyCount: 99,
      reporterCount: 100,
    })
  })

  it('sends one probe, has one author for each transition, and serves everywhere after it', async () => {
    const { storage } = await equip(50)
    await fleet.open()
    await fleet.advance(times.resetTimeout + spread)
    await fleet.load()

    const probing = await fleet.callTogether('succeed', 200)
    await fleet.advance(times.cacheTtl)
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
    const { setup, storage } = await equip(5, { deadlineReserve: 0 })
    await fleet.open()
    await fleet.advance(times.resetTimeout + spread)
    await fleet.load()
    const prober = await FleetProcess.start()
    running.push({ stop: () => prober.kill() })
    await prober.equip({ ...setup, breakers: 1 }, fleet.ahead)
    await prober.load()
    const lease = 12 * minute
    const claimedAfter = fleet.now()
    void prober.call('succeed', { isHeld: true, remaining: lease })
    await waitFor(
      'the probe is under way',
      () => prober.verdicts,
      (verdicts) => verdicts.includes('started'),
    )
    const claimedBefore = fleet.now()
    await prober.kill()

    await fleet.load()
    const before = await fleet.call('succeed')
    const held = await storage.getState('stripe')
    const expiresAt = held?.leases[0]?.expiresAt ?? Number.NaN
    await fleet.advance(expiresAt - fleet.now() - minute)
    await fleet.load()
    const shortBefore = await fleet.call('succeed')
    await fleet.advance(minute + spread)
    await fleet.load()
    const after = await fleet.callTogether('succeed', 20)

    expect(held).toMatchObject({ state: 'HALF_OPEN', leases: [{ id: expect.any(String) }] })
    expect(expiresAt).toBeGreaterThanOrEqual(claimedAfter + lease)
    expect(expiresAt).toBeLessThanOrEqual(claimedBefore + lease)
    expect(before).toEqual({ ran: 0, refused: 20 })
    expect(shortBefore).toEqual({ ran: 0, refused: 20 })
    expect(after).toEqual({ ran: 1, refused: 19 })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3 })
  })
})

/** An instance leaves a store that fails alone for no longer than this, in milliseconds. */
const longestPause = 30_000

/** Fails unless all breakers have had an invocation and are in this state. */
async function expectAllToBe(state: string): Promise<void> {
  await fleet.turn()
  expect(new Set((await fleet.report()).states)).toEqual(new Set([state]))
}

describe('a Redis that is killed and comes back empty', () => {
  it('costs callers nothing but time, and an operator reaches everyone again within one cacheTtl', async () => {
    const { storage } = await equip(10, { resetTimeout: hour })
    const settings = {
      services: ['stripe'],
      storage,
      resetTimeout: hour,
      maxResetTimeout: hour,
      ...patientStore,
    } as const
    const operator = new CircuitBreaker(settings, { env: {}, now: fleet.now })
    const stop = fleet.startTraffic('succeed')
    await operator.batchSetState({ stripe: 'OPEN' })
    await fleet.advance(times.cacheTtl)
    await expectAllToBe('OPEN')

    await server.kill()
    // All of them want to read it again, so often that they leave it alone for as long as they ever do.
    for (let round = 0; round < 10; round++) {
      await fleet.advance(times.cacheTtl)
      await fleet.turn()
    }
    const during = await fleet.report()
    await server.restart()
    // A call that had begun before fails all the same.
    await fleet.turn()
    await fleet.advance(longestPause)
    // What was stored is gone: nothing is known to be wrong.
    await expectAllToBe('CLOSED')
    await operator.batchSetState({ stripe: 'OPEN' })
    await fleet.advance(times.cacheTtl)
    await expectAllToBe('OPEN')
    await operator.batchSetState({ stripe: 'CLOSED' })
    await fleet.advance(times.cacheTtl)
    await expectAllToBe('CLOSED')

    const { ran, refused, slowest } = await stop()
    const { unexpected, events, storageErrors } = await fleet.report()
    console.info(
      `Redis killed: ${ran} calls ran, ${refused} were refused, the slowest invocation took ${Math.round(slowest)} ms, ` +
        `${storageErrors.length} storage errors`,
    )
    expect(unexpected).toEqual([])
    // Away or not, an open circuit is respected.
    expect(new Set(during.states)).toEqual(new Set(['OPEN']))
    expect(during.storageErrors.length).toBeGreaterThanOrEqual(40)
    expect(ran).toBeGreaterThan(0)
    expect(refused).toBeGreaterThan(0)
    // A dead server refuses connections: nobody waits until storageTimeout.
    expectUnhurried(slowest, 1_500)
    expect(events).toEqual([])
  })

  it('leaves each instance to protect itself against a dead service, and lets all of them recover together', async () => {
    const { storage } = await equip(10, { maxResetTimeout: times.resetTimeout })
    const stopHealthy = fleet.startTraffic('succeed')
    await fleet.turn()
    await stopHealthy()

    await server.kill()
    const stopAlone = fleet.startTraffic('fail')
    for (let round = 0; round < 3; round++) await fleet.turn()
    const opened = await fleet.report()
    await fleet.advance(times.resetTimeout + spread)
    for (let round = 0; round < 3; round++) await fleet.turn()
    const alone = await stopAlone()
    const during = await fleet.report()
    await server.restart()
    const stopBack = fleet.startTraffic('succeed')
    await fleet.turn()
    await fleet.advance(times.resetTimeout + spread)
    await waitFor(
      'all circuits are closed',
      () => fleet.report(),
      ({ states }) => states.every((state) => state === 'CLOSED'),
    )
    // The restored store is in use: failures open the circuit for all, with one event.
    await fleet.turn()
    await fleet.advance(longestPause)
    await fleet.turn()
    await stopBack()
    const { length: before } = (await fleet.report()).events
    const stopAgain = fleet.startTraffic('fail')
    await waitFor(
      'all circuits are open',
      () => fleet.report(),
      ({ states }) => states.every((state) => state === 'OPEN'),
    )
    await stopAgain()
    await fleet.load()
    const { events, unexpected, states } = await fleet.report()
    const record = await storage.getState('stripe')
    console.info(`service and Redis down together: ${alone.ran} calls ran and ${alone.refused} were refused`)
    expect(unexpected).toEqual([])
    // Three failures open it, then it is probed once in resetTimeout.
    expect(new Set(opened.states)).toEqual(new Set(['OPEN']))
    expect(new Set(during.states)).toEqual(new Set(['OPEN']))
    expect(alone.ran).toBe(40 * 4)
    expect(alone.refused).toBeGreaterThan(alone.ran)
    // What an instance decided alone is not pushed onto the fleet.
    expect(before).toBe(0)
    expect(events.map(({ from, to, reason }) => [from, to, reason])).toEqual([['CLOSED', 'OPEN', 'failure-threshold']])
    expect(record).toMatchObject({ state: 'OPEN' })
    expect(new Set(states)).toEqual(new Set(['OPEN']))
  })
})
