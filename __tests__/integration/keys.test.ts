/**
 * Keyed services over every store, whose adapters know nothing of keys.
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { ScanCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { SqliteCircuitStorage } from '../../examples/custom-storage/sqlite-storage.ts'
import { CircuitBreaker, type ICircuitStorage, isCircuitOpenError, MemoryCircuitStorage } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { createFakeRuntime } from '../support/fake-runtime.ts'
import { patientDynamoDB, patientStore } from '../support/patience.ts'
import { type RedisCluster, startRedisCluster } from '../support/redis-server.ts'
import { ok, outcomeOf, unavailable } from '../support/virtual-fleet.ts'

let server: DynamoDBServer
let cluster: RedisCluster
let folder: string
let sqlite: SqliteCircuitStorage

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'circuit-keys-'))
  sqlite = new SqliteCircuitStorage({ path: join(folder, 'circuits.db') })
  ;[server, cluster] = await Promise.all([startDynamoDBLocal(), startRedisCluster()])
})
afterAll(async () => {
  await Promise.all([server?.stop(), cluster?.stop(), sqlite?.close()])
  await rm(folder, { recursive: true })
})

/** The hosts of customers, some of them with names that stores or their adapters might take for something else. */
const hosts = ['hooks.example.com', 'a#b', 'a%23b', '{slot}', 'é'.repeat(150), 'long'.repeat(500)]

async function dynamoDB(): Promise<{ tableName: string; client: DynamoDBClient }> {
  return { tableName: await server.createTable(), client: server.client(patientDynamoDB) }
}

const stores: readonly (readonly [name: string, make: () => Promise<ICircuitStorage>])[] = [
  ['DynamoDB', async () => new DynamoDBCircuitStorage(await dynamoDB())],
  ['a Redis Cluster', async () => new RedisCircuitStorage({ client: cluster.client() })],
  ['memory', async () => new MemoryCircuitStorage()],
  ['an adapter of the user', async () => sqlite],
]

describe.each(stores)('keys over %s', (_name, make) => {
  it.each([true, false])('open, are probed and close each for itself (parent: %s)', async (parent) => {
    const storage = await make()
    const clock = createFakeRuntime()
    let time = Date.now()
    const start = () =>
      new CircuitBreaker(
        { namespace: `parent-${parent}`, services: { hooks: { keyed: { parent } } }, storage, ...patientStore },
        { now: () => time, random: clock.random, env: {} },
      )
    const [first, second] = [start(), start()]

    await Promise.all(hosts.map((key) => first.call('hooks', ok, { key })))
    const dead = hosts.filter((_, index) => index % 2 === 0)
    for (const key of dead) {
      for (let call = 0; call < 3; call++) await outcomeOf(first.call('hooks', unavailable, { key }))
      await first.flush()
      // The service as a whole is well.
      for (let call = 0; call < 5; call++) await first.call('hooks', ok, { key: 'fine' })
    }
    await first.flush()

    const outcomes = await Promise.all(hosts.map((key) => outcomeOf(second.call('hooks', ok, { key }))))
    expect(hosts.filter((_, index) => isCircuitOpenError(outcomes[index]?.error))).toEqual(dead)
    expect(hosts.map((key) => second.circuits.hooks.of(key).state === 'OPEN')).toEqual(
      hosts.map((key) => dead.includes(key)),
    )

    time += 12_000
    for (const key of dead) expect(await second.call('hooks', ok, { key })).toBe('ok')
    await second.flush()
    const stored = await first.batchGetState('hooks', hosts)
    expect([...stored].map(([key, { state }]) => [key, state])).toEqual(dead.map((key) => [key, 'CLOSED']))
  })

  it('are forced, reset and deleted by operators', async () => {
    const storage = await make()
    const breaker = new CircuitBreaker(
      { namespace: 'operators', services: { hooks: { keyed: {} } }, storage, ...patientStore },
      { env: {} },
    )
    await breaker.batchSetState('hooks', Object.fromEntries(hosts.map((host) => [host, 'OPEN'])))
    await breaker.forceOpen('hooks', { key: 'a#b' })
    expect((await outcomeOf(breaker.call('hooks', ok, { key: 'a#b' }))).error).toMatchObject({ reason: 'forced' })
    expect((await outcomeOf(breaker.call('hooks', ok, { key: 'a%23b' }))).error).toMatchObject({ reason: 'open' })
    await breaker.reset('hooks', { key: 'a#b' })
    expect(await breaker.call('hooks', ok, { key: 'a#b' })).toBe('ok')
    await breaker.batchClearState('hooks', hosts)
    expect((await breaker.batchGetState('hooks', hosts)).size).toBe(0)
  })
})

describe('keys in DynamoDB', () => {
  const scan = async ({ client, tableName }: { client: DynamoDBClient; tableName: string }) => {
    const { Items = [] } = await client.send(new ScanCommand({ TableName: tableName }))
    return Items
  }

  it('are within the leading keys that the documented policy allows, and expire', async () => {
    const table = await dynamoDB()
    const breaker = new CircuitBreaker(
      { services: { hooks: { keyed: { maxKeys: 2 } } }, storage: new DynamoDBCircuitStorage(table), ...patientStore },
      { env: {} },
    )
    for (const key of hosts) await outcomeOf(breaker.call('hooks', unavailable, { key }))
    await breaker.flush()
    const items = await scan(table)
    expect(items.length).toBeGreaterThan(2)
    for (const { PK, ttl } of items) {
      expect(PK?.S).toMatch(/^CIRCUIT#/)
      expect(Number(ttl?.N)).toBeGreaterThan(Date.now() / 1_000)
    }
  })

  it('that an attacker chooses make no more records than documented', async () => {
    const table = await dynamoDB()
    const maxKeys = 20
    const breaker = new CircuitBreaker(
      { services: { hooks: { keyed: { maxKeys } } }, storage: new DynamoDBCircuitStorage(table), ...patientStore },
      { env: {} },
    )
    for (let batch = 0; batch < 20; batch++) {
      const keys = Array.from({ length: 50 }, (_, index) => `host-${batch}-${index}`)
      await Promise.all(keys.map((key) => outcomeOf(breaker.call('hooks', unavailable, { key }))))
    }
    await breaker.flush()
    const items = (await scan(table)).filter(({ SK }) => SK?.S === 'STATE')
    // Twice `maxKeys`, and the circuit that the rest shares.
    expect(items.length).toBeLessThanOrEqual(2 * maxKeys + 1)
    expect(items.map(({ PK }) => PK?.S)).toContain('CIRCUIT##hooks#%shared')
  })
})
