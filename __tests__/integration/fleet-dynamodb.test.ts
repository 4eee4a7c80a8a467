import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { Fleet, FleetProcess } from '../support/fleet.ts'
import type { FleetWorkerSetup } from '../support/fleet-worker.ts'

let server: DynamoDBServer
const running: { stop(): Promise<void> }[] = []

beforeAll(async () => {
  server = await startDynamoDBLocal()
})
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()))
})
afterAll(() => server.stop())

/** A fleet on a table of its own, and a look at what it stores. The machine is slow under this load: long timeouts. */
async function startFleet(
  processes: number,
  breakers: number,
  options: FleetWorkerSetup['options'],
): Promise<{ fleet: Fleet; setup: FleetWorkerSetup; storage: DynamoDBCircuitStorage }> {
  const tableName = await server.createTable()
  const store = { type: 'dynamodb', endpoint: server.endpoint, tableName } as const
  const setup = { store, breakers, options: { storageTimeout: 20_000, ...options } }
  const fleet = await Fleet.start(processes, setup)
  running.push(fleet)
  await fleet.load()
  return { fleet, setup, storage: new DynamoDBCircuitStorage({ tableName, client: server.client() }) }
}

describe('a fleet of processes over one table', () => {
  it('opens once, with one event and about one write for each failing invocation, when 200 breakers fail at once', async () => {
    const { fleet, storage } = await startFleet(4, 50, { resetTimeout: 60_000 })

    const { ran } = await fleet.call('fail')

    const record = await storage.getState('stripe')
    const { events, requests, storageErrors } = await fleet.report()
    expect(storageErrors).toEqual([])
    expect(ran).toBe(200)
    expect(record).toMatchObject({ state: 'OPEN', generation: 1, trips: 1 })
    expect(record?.failureCount).toBeGreaterThanOrEqual(3)
    expect(events).toHaveLength(1)
    expect(events[0]).toMatchObject({ from: 'CLOSED', to: 'OPEN', reason: 'failure-threshold', generation: 1 })
    expect(requests['UpdateItem']).toBeLessThanOrEqual(ran + 20)
    console.info(`200 breakers failing at once: ${JSON.stringify(requests)}`)
  })

  it('counts every failure exactly once', async () => {
    const { fleet, storage } = await startFleet(4, 25, { failureThreshold: 10_000 })

    for (let round = 0; round < 5; round++) await fleet.call('fail')

    const { storageErrors } = await fleet.report()
    expect(storageErrors).toEqual([])
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', failureCount: 500 })
  })

  it('sends one probe, has one author for each transition, and serves everywhere after it', async () => {
    const { fleet, storage } = await startFleet(4, 10, { resetTimeout: 1_000, cacheTtl: 200 })
    await fleet.call('fail')
    // A spread of up to 5 % of the reset timeout is part of the protocol.
    await sleep(1_200)
    await fleet.load()

    const probing = await fleet.call('succeed', { holds: 2_000 })
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
    const { fleet, setup, storage } = await startFleet(2, 10, { resetTimeout: 500, cacheTtl: 100, deadlineReserve: 0 })
    await fleet.call('fail')
    await sleep(700)
    await fleet.load()
    const prober = await FleetProcess.start({ ...setup, breakers: 1 })
    running.push({ stop: () => prober.kill() })
    const lease = 3_000
    const claimedAt = Date.now()
    void prober.call('succeed', { holds: 60_000, remaining: lease })
    await prober.operationStarted()
    await prober.kill()

    await fleet.load()
    const before = await fleet.call('succeed')
    const held = await storage.getState('stripe')
    await sleep(Math.max(0, claimedAt + lease + 500 - Date.now()))
    await fleet.load()
    const after = await fleet.call('succeed', { holds: 1_000 })

    expect(held).toMatchObject({ state: 'HALF_OPEN', leases: [{ id: expect.any(String) }] })
    expect(before).toEqual({ ran: 0, refused: 20 })
    expect(after).toEqual({ ran: 1, refused: 19 })
    expect(await storage.getState('stripe')).toMatchObject({ state: 'CLOSED', generation: 3 })
  })
})
