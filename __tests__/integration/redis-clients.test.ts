import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { Redis as Upstash } from '@upstash/redis'
import { CircuitBreaker } from '../../src/index.ts'
import { RedisCircuitStorage } from '../../src/storage/redis/index.ts'
import { circuitRecord, testCircuitStorage } from '../../src/testing/index.ts'
import { patientStore } from '../support/patience.ts'
import { type OpenClient, type Opening, type TestedClient, testedClients } from '../support/redis-clients.ts'
import { type RedisCluster, type RedisServer, startRedis, startRedisCluster } from '../support/redis-server.ts'
import { waitFor } from '../support/time.ts'
import { startUpstash } from '../support/upstash-service.ts'

/** One failure of one instance. */
function outcomes() {
  return { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at: Date.now(), id: randomUUID() }
}

describe.each(testedClients)('a client of $name', ({ name, waits, open }: TestedClient) => {
  const opened: OpenClient[] = []
  let server: RedisServer
  let storage: RedisCircuitStorage

  const storageWith = async (to: RedisServer, how?: Opening) => {
    const client = await open(to.port, how)
    opened.push(client)
    return new RedisCircuitStorage({ client: client.client })
  }
  beforeAll(async () => {
    server = await startRedis()
    storage = await storageWith(server)
  })
  afterAll(async () => {
    await Promise.all(opened.map((each) => each.close()))
    await server?.stop()
  })

  testCircuitStorage('fulfils the contract:', () => storage, {
    runner: { describe, it },
    createPeer: () => storageWith(server),
    damage: (service) => server.client().hset(`circuit:${service}`, { schema: '1', state: 'AJAR' }),
    expiresAt: async (service) => {
      const expiry = await server.client().pexpiretime(`circuit:${service}`)
      return expiry < 0 ? undefined : expiry
    },
  })

  it('hands out texts that look like numbers and objects as they are', async () => {
    const service = randomUUID()
    const next = circuitRecord({ version: '007' })
    await storage.compareAndSetState(service, undefined, next)
    expect(await storage.getState(service)).toEqual(next)
    expect(await storage.batchGetState([service, randomUUID()])).toEqual(new Map([[service, next]]))
  })

  it('sends a server that has forgotten the scripts their sources', async () => {
    const services = [randomUUID(), randomUUID()]
    await server.client().script('FLUSH')
    const results = await storage.batchSetState(
      services.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord({ version: 'v' }) })),
    )
    expect([...results.values()]).toEqual([
      expect.objectContaining({ applied: true }),
      expect.objectContaining({ applied: true }),
    ])
    await server.client().script('FLUSH')
    expect(await storage.addOutcomes(services[0] as string, 'v', outcomes())).toMatchObject({ applied: true })
  })

  it('passes the check of a breaker, and the store can be given through the factory', async () => {
    const { client } = opened[0] as OpenClient
    const breaker = new CircuitBreaker(
      { services: ['stripe'], storage: { type: 'redis', client }, namespace: randomUUID(), ...patientStore },
      { env: {} },
    )
    expect(await breaker.check()).toEqual([expect.objectContaining({ code: 'nothing-stored' })])
    await breaker.forceOpen('stripe')
    expect(await breaker.check()).toEqual([])
  })

  it('lists circuits', async () => {
    const prefix = `${randomUUID()}#`
    const keys = [`${prefix}a`, `${prefix}b`]
    for (const key of keys) await storage.compareAndSetState(key, undefined, circuitRecord())
    const page = await storage.listCircuits({ prefix })
    expect(page.keys.toSorted()).toEqual(keys)
    expect(page.cursor).toBeUndefined()
  })

  it('tells a missing permission from a full server, alone and in a batch', async () => {
    const [user, service] = [{ username: `user-${randomUUID()}`, password: 'secret' }, randomUUID()]
    const admin = server.client()
    await storage.compareAndSetState(service, undefined, circuitRecord({ version: 'v' }))
    await admin.acl('SETUSER', user.username, 'on', '>secret', '~circuit:*', '+evalsha', '+eval', '+info', '+client')
    const lesser = await storageWith(server, { user })
    const misconfigured = { kind: 'misconfigured', message: expect.stringContaining('lacks a permission') }
    await expect(lesser.getState(service)).rejects.toMatchObject(misconfigured)
    await expect(lesser.addOutcomes(service, 'v', outcomes())).rejects.toMatchObject(misconfigured)
    const batch = await lesser.batchGetState([service, randomUUID()]).catch((error) => error)
    expect(batch.errors.get(service)).toMatchObject(misconfigured)
    await admin.config('SET', 'maxmemory', '1')
    try {
      await expect(storage.addOutcomes(service, 'v', outcomes())).rejects.toMatchObject({
        kind: 'throttled',
        message: expect.stringContaining('maxmemory'),
      })
    } finally {
      await admin.config('SET', 'maxmemory', '0')
    }
  })

  it('tells of another value at the key of a circuit', async () => {
    const service = randomUUID()
    await server.client().set(`circuit:${service}`, 'SECRET')
    await expect(storage.getState(service)).rejects.toMatchObject({ corrupt: true, kind: 'misconfigured' })
  })

  it('repeats no argument of a command that failed', async () => {
    const own = await startRedis({ settings: { maxmemory: '1' } })
    try {
      const full = await storageWith(own)
      const next = circuitRecord({ version: 'SECRET' })
      const error = await full.compareAndSetState('stripe', undefined, next).catch((reason) => reason)
      expect(error).toMatchObject({ kind: 'throttled' })
      expect(`${error.stack} ${error.cause.stack} ${JSON.stringify(error.cause)}`).not.toContain('SECRET')
    } finally {
      await own.stop()
    }
  })

  it('tells of a server that is down, and goes on when it is back', async () => {
    const own = await startRedis({ settings: { 'repl-diskless-sync-delay': '0' } })
    try {
      const user = await storageWith(own, { impatient: true })
      expect(await user.getState('stripe')).toBeUndefined()
      await own.kill()
      const asked = user.getState('stripe').catch((error) => error)
      if (!waits) expect(await asked).toMatchObject({ kind: 'unavailable', corrupt: false })
      await own.restart()
      await waitFor(
        `${name} is served again`,
        () => user.compareAndSetState('stripe', undefined, circuitRecord()).catch((error) => error),
        ({ applied }) => applied === true,
      )
    } finally {
      await own.stop()
    }
  })
})

const ofClusters = testedClients.filter(({ openCluster }) => openCluster !== undefined)

describe('a cluster of three masters', () => {
  let cluster: RedisCluster
  const opened: OpenClient[] = []

  beforeAll(async () => {
    cluster = await startRedisCluster()
  })
  afterAll(async () => {
    await Promise.all(opened.map((each) => each.close()))
    await cluster?.stop()
  })

  describe.each(ofClusters)('with a client of $name', ({ openCluster }: TestedClient) => {
    let storage: RedisCircuitStorage
    const another = async () => {
      const client = (await openCluster?.(cluster.nodes.map(({ port }) => port))) as OpenClient
      opened.push(client)
      return new RedisCircuitStorage({ client: client.client })
    }
    beforeAll(async () => {
      storage = await another()
    })

    testCircuitStorage('fulfils the contract:', () => storage, {
      runner: { describe, it },
      createPeer: another,
      damage: (service) => cluster.client().hset(`circuit:${service}`, { schema: '1', state: 'AJAR' }),
      expiresAt: async (service) => {
        const expiry = await cluster.client().pexpiretime(`circuit:${service}`)
        return expiry < 0 ? undefined : expiry
      },
    })

    it('writes circuits of all nodes that have forgotten the scripts, lists them page by page and reads them', async () => {
      for (const node of cluster.nodes) await node.client().script('FLUSH')
      const prefix = `${randomUUID()}#`
      const keys = Array.from({ length: 60 }, (_, index) => `${prefix}${index}`)
      await storage.batchSetState(
        keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord({ version: 'v' }) })),
      )
      const found: string[] = []
      let cursor: string | undefined
      do {
        const page = await storage.listCircuits({ prefix, limit: 10, ...(cursor === undefined ? {} : { cursor }) })
        found.push(...page.keys)
        cursor = page.cursor
      } while (cursor !== undefined)
      expect(found.toSorted()).toEqual(keys.toSorted())
      expect((await storage.batchGetState(keys)).size).toBe(60)
    })

    it('passes the check of a breaker', async () => {
      const breaker = new CircuitBreaker(
        { services: ['stripe'], storage, namespace: randomUUID(), ...patientStore },
        { env: {} },
      )
      expect(await breaker.check()).toEqual([expect.objectContaining({ code: 'nothing-stored' })])
    })
  })
})

describe('what only one client does', () => {
  it('a token that Upstash does not know is misconfigured, and not repeated', async () => {
    const server = await startRedis()
    const service = await startUpstash(server, { token: undefined })
    try {
      const client = new Upstash({ url: service.url, token: 'SECRET', retry: false })
      const error = await new RedisCircuitStorage({ client }).getState('stripe').catch((reason) => reason)
      expect(error).toMatchObject({ kind: 'misconfigured' })
      expect(`${error.stack} ${error.cause.stack}`).not.toContain('SECRET')
    } finally {
      await service.stop()
      await server.stop()
    }
  })

  it('a password that the server does not accept is misconfigured with a client that connects late', async () => {
    const { open } = testedClients.find(({ name }) => name === '@valkey/valkey-glide') as TestedClient
    const server = await startRedis()
    const { client, close } = await open(server.port, { user: { username: 'nobody', password: 'no' } })
    try {
      await expect(new RedisCircuitStorage({ client }).getState('stripe')).rejects.toMatchObject({
        kind: 'misconfigured',
        message: expect.stringContaining('does not accept the user or the password'),
      })
    } finally {
      await close()
      await server.stop()
    }
  })
})

it('the table in the documentation lists the clients that are tested, and nothing else', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/operate/storage-clients.md'), 'utf8')
  const [, table = ''] = page.split(/<!-- (?:end of )?redis clients -->\n/)
  const rows = testedClients.map(
    ({ name, made, openCluster }) =>
      `| ${name} | ${made.map((each) => `\`${each}\``).join(', ')} | yes | ${openCluster ? 'yes' : '–'} |`,
  )
  expect(table.trim().split('\n').slice(2)).toEqual(rows)
})
