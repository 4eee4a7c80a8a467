import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { Fleet, FleetProcess } from '../support/fleet.ts'
import type { FleetWorkerSetup } from '../support/fleet-worker.ts'
import { patientDynamoDB } from '../support/patience.ts'
import { waitFor } from '../support/time.ts'
import { testWhoOpens } from './fleet-verdict.ts'

const minute = 60_000
const hour = 60 * minute
/** No stall of the machine lasts so long; the clock of a fleet is set forward. */
const times = { resetTimeout: 10 * minute, cacheTtl: 2 * minute, window: 24 * hour, maxResetTimeout: hour } as const
/** Claims are spread over this time, in milliseconds. */
const spread = 1_000

let server: DynamoDBServer
/** Of four processes: a test gives it its own breakers. */
let fleet: Fleet
const running: { stop(): Promise<void> }[] = []

beforeAll(async () => {
  ;[server, fleet] = await Promise.all([startDynamoDBLocal(), Fleet.start(4)])
})
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()))
})
afterAll(() => Promise.all([server?.stop(), fleet?.stop()]))

/** Gives each process so many breakers, which are cold, on a table of their own. */
async function equipCold(
  breakers: number,
  options: FleetWorkerSetup['options'] = {},
): Promise<{ setup: FleetWorkerSetup; storage: DynamoDBCircuitStorage }> {
  const tableName = await server.createTable()
  const store = { type: 'dynamodb', endpoint: server.endpoint, tableName } as const
  const setup = { store, breakers, options: { ...times, ...options } }
  await fleet.equip(setup)
  return { setup, storage: new DynamoDBCircuitStorage({ tableName, client: server.client(patientDynamoDB) }) }
}

/** The same, and all of them have read that nothing is stored. */
async function equip(...given: Parameters<typeof equipCold>): ReturnType<typeof equipCold> {
  const equipped = await equipCold(...given)
  await fleet.load()
  return equipped
}

describe('a fleet of processes over one table', () => {
  testWhoOpens(() => fleet, equipCold)

  it('opens once, with one event and at most two writes for each failing invocation, when 200 breakers fail at once', async () => {
    const { storage } = await equip(50)

    const { ran } = await fleet.call('fail')
    const { requests } = await fleet.report()
    await fleet.advance(1_000)
    const again = await fleet.call('fail')

    const record = await storage.getState('stripe')
    const { events, storageErrors } = await fleet.report()
    expect(storageErrors).toEqual([])
    expect(ran).toBe(200)
    expect(record).toMatchObject({ state: 'OPEN', generation: 1, trips: 1 })
    // The first ones were told of no more than their own failure: they learn of the others with their next one.
    expect(again.ran).toBeLessThanOrEqual(2)
    expect(events).toHaveLength(1)
    expect(events[0]?.evidence?.failures).toBeGreaterThanOrEqual(3)
    expect(events[0]).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', generation: 1 })
    expect(requests['UpdateItem']).toBeLessThanOrEqual(2 * ran + 60)
    console.info(`200 breakers failing at once: ${JSON.stringify(requests)}`)
  })

  it('counts every failure exactly once', async () => {
    const { storage } = await equip(25, { failureThreshold: 10_000 })

    for (let round = 0; round < 5; round++) await fleet.call('fail')

    const { storageErrors } = await fleet.report()
    expect(storageErrors).toEqual([])
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
    const { storage } = await equip(10)
    await fleet.open()
    await fleet.advance(times.resetTimeout + spread)
    await fleet.load()

    const probing = await fleet.callTogether('succeed', 40)
    await fleet.advance(times.cacheTtl)
    await fleet.load()
    const after = await fleet.call('succeed')

    const { events, storageErrors } = await fleet.report()
    expect(storageErrors).toEqual([])
    expect(probing).toEqual({ ran: 1, refused: 39 })
    expect(after).toEqual({ ran: 40, refused: 0 })
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
