import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { SqliteCircuitStorage } from '../../examples/custom-storage/sqlite-storage.ts'
import {
  CircuitBreaker,
  CircuitBreakerStorageFactory,
  CircuitStorageError,
  ConfigurationError,
  type StateChange,
} from '../../src/index.ts'
import { circuitRecord, testCircuitStorage } from '../../src/testing/index.ts'
import { patientStore, patientVariables } from '../support/patience.ts'

const run = promisify(execFile)
const adapter = new URL('../../examples/custom-storage/sqlite-storage.ts', import.meta.url).href
const example = fileURLToPath(new URL('../../examples/custom-storage/main.ts', import.meta.url))

/** Options of Node for processes whose time goes so much slower that no stall lets their short times pass. */
function slowly(factor: number): string {
  const code = `
    const [start, realNow, realTimeout] = [${Date.now()}, Date.now, setTimeout]
    Date.now = () => Math.round(start + (realNow() - start) / ${factor})
    globalThis.setTimeout = (callback, delay, ...args) => realTimeout(callback, delay * ${factor}, ...args)`
  return `--import=data:text/javascript,${encodeURIComponent(code)}`
}

describe('the storage in SQLite', () => {
  let folder: string
  let path: string
  let storage: SqliteCircuitStorage
  const opened: { close(): unknown }[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'circuit-sqlite-'))
    path = join(folder, 'circuits.db')
    storage = new SqliteCircuitStorage({ path })
  })
  afterEach(() => {
    for (const each of opened.splice(0)) each.close()
  })
  afterAll(async () => {
    await storage.close()
    await rm(folder, { recursive: true })
  })

  const another = (busyTimeout?: number) => {
    const storage = new SqliteCircuitStorage({ path, busyTimeout })
    opened.push(storage)
    return storage
  }
  const database = () => {
    const database = new DatabaseSync(path)
    opened.push(database)
    return database
  }
  /** One failure of one instance. */
  const outcomes = () => {
    return { failures: 1, successes: 0, started: 0, early: 0, reporters: 1, at: Date.now(), id: randomUUID() }
  }

  testCircuitStorage('fulfils the contract:', () => storage, {
    runner: { describe, it },
    createPeer: () => another(),
    createUnreachable: () => new SqliteCircuitStorage({ path: join(folder, 'missing', 'circuits.db') }),
    damage: (service) => {
      database().prepare('INSERT INTO circuits VALUES (?, \'{"state":"AJAR"}\', \'[]\', NULL)').run(service)
    },
    expiresAt: (service) => {
      const row = database().prepare('SELECT expires_at FROM circuits WHERE service_key = ?').get(service)
      return (row?.['expires_at'] as number | null) ?? undefined
    },
  })

  it('adds up the outcomes of several processes, and lets one of their replaces win', async () => {
    const [counted, contended] = [randomUUID(), randomUUID()]
    const keys = [counted, ...Array.from({ length: 50 }, (_, round) => contended + round)]
    const next = circuitRecord({ version: 'v' })
    await storage.batchSetState(keys.map((serviceKey) => ({ serviceKey, version: undefined, next })))
    const script = `
      import { SqliteCircuitStorage } from ${JSON.stringify(adapter)}
      const storage = new SqliteCircuitStorage({ path: process.argv[1], busyTimeout: 60_000 })
      const token = () => crypto.randomUUID()
      for (let round = 0; round < 50; round++) {
        const counts = { failures: 1, successes: 2, started: 0, early: 0, reporters: 0 }
        await storage.addOutcomes(process.argv[2], 'v', { ...counts, at: Date.now(), id: token() })
      }
      let wins = 0
      for (let round = 0; round < 50; round++) {
        const key = process.argv[3] + round
        const record = await storage.getState(key)
        const { applied } = await storage.compareAndSetState(key, 'v', { ...record, version: token() })
        wins += applied ? 1 : 0
      }
      console.log(wins)`
    const args = ['--input-type=module', '--eval', script, path, counted, contended]

    const outputs = await Promise.all(Array.from({ length: 4 }, () => run(process.execPath, args)))

    await expect(storage.getState(counted)).resolves.toMatchObject({ failureCount: 200, successCount: 400 })
    const wins = outputs.map(({ stdout }) => Number(stdout))
    expect(wins.reduce((sum, each) => sum + each, 0)).toBe(50)
    await storage.batchClearState(keys)
  })

  it('waits for the write of another connection, no longer than busyTimeout, and says so', async () => {
    const key = randomUUID()
    const other = database()
    const impatient = another(50)
    await storage.compareAndSetState(key, undefined, circuitRecord({ version: 'v' }))
    await impatient.getState(key)
    other.exec('BEGIN IMMEDIATE')

    const error = await impatient.addOutcomes(key, 'v', outcomes()).catch((error) => error)

    expect(error).toBeInstanceOf(CircuitStorageError)
    expect(error).toMatchObject({ operation: 'addOutcomes', service: key, corrupt: false })
    expect(error.message).toContain('locked')
    await expect(impatient.getState(key)).resolves.toMatchObject({ failureCount: 0 })
    other.exec('ROLLBACK')
    await expect(impatient.addOutcomes(key, 'v', outcomes())).resolves.toMatchObject({ applied: true })
    await storage.clearState(key)
  })

  it('deletes what is due when it is opened, and nothing else', async () => {
    const [due, overridden] = [randomUUID(), randomUUID()]
    await storage.compareAndSetState(due, undefined, circuitRecord({ updatedAt: 1 }))
    const override = { state: 'OPEN', at: 1 } as const
    await storage.compareAndSetState(overridden, undefined, circuitRecord({ updatedAt: 1, override }))

    await expect(another().batchGetState([due, overridden])).resolves.toHaveProperty('size', 1)

    await storage.clearState(overridden)
  })

  it('keeps its circuits when it is closed, and opens again', async () => {
    const key = randomUUID()
    const storage = another()
    const record = circuitRecord()
    await storage.compareAndSetState(key, undefined, record)
    await storage.close()
    await expect(storage.getState(key)).resolves.toMatchObject({ version: record.version })
    await storage.clearState(key)
  })

  it('loads its library before the first operation without touching the file', async () => {
    const storage = new SqliteCircuitStorage({ path: join(folder, 'missing', 'circuits.db') })
    await expect(storage.prepare()).resolves.toBeUndefined()
  })

  it('names every wrong option', () => {
    const make = () => new SqliteCircuitStorage({ path: '', busyTimeout: -1 })
    expect(make).toThrow(ConfigurationError)
    expect(make).toThrow(/path must be .*busyTimeout must be /s)
  })

  it('is chosen by the name that it was registered under, and shares a circuit between breakers', async () => {
    CircuitBreakerStorageFactory.register('sqlite', ({ path }, env) => {
      return new SqliteCircuitStorage({ path: String(path ?? env['CIRCUITS_DATABASE']) })
    })
    try {
      const env = { CIRCUIT_BREAKER_STORAGE: 'sqlite', CIRCUITS_DATABASE: path, ...patientVariables }
      const service = randomUUID()
      const options = { services: [service], resetTimeout: 3_600_000, maxResetTimeout: 3_600_000, ...patientStore }
      const byOption = new CircuitBreaker({ ...options, storage: { type: 'sqlite', path } }, { env: {} })
      const byVariable = new CircuitBreaker({ services: [service] }, { env })
      const changes: StateChange[] = []
      for (const breaker of [byOption, byVariable]) breaker.onStateChange((change) => changes.push(change))
      const failing = () => Promise.reject(Object.assign(new Error('down'), { code: 'ECONNREFUSED' }))

      for (let call = 0; call < 3; call++) await expect(byOption.call(service, failing)).rejects.toThrow('down')
      await byOption.flush()

      await expect(byVariable.call(service, failing)).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
      expect(changes).toMatchObject([{ from: 'CLOSED', to: 'OPEN' }])
      await byOption.batchClearState()
    } finally {
      CircuitBreakerStorageFactory.unregister('sqlite')
    }
  })

  it('is run by the example, in which a second process knows at once that the circuit is open', async () => {
    const env = { ...process.env, NODE_OPTIONS: slowly(60), CIRCUITS_DATABASE: join(folder, 'example.db') }
    const lines = async () => (await run(process.execPath, [example], { env })).stdout.trim().split('\n')
    const first = await lines()
    expect(first).toHaveLength(5)
    expect(first[0]).toContain('TypeError')
    expect(first[4]).toBe('5. OPEN: CircuitOpenError')
    expect((await lines())[0]).toBe('1. OPEN: CircuitOpenError')
  })
})
