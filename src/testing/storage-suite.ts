import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type CircuitStorageError, isCircuitStorageError, type StorageOperation } from '../errors.ts'
import {
  type CircuitRecord,
  type CompareAndSet,
  type ExpectedVersion,
  emptyRecord,
  expiryOf,
  type FailureIncrement,
  type ICircuitStorage,
  type WriteResult,
} from '../storage/circuit-storage.ts'

/** The two functions of a test runner that the suite needs; those of jest, vitest and `node:test` fit as they are. */
export interface StorageSuiteRunner {
  readonly describe: (name: string, define: () => void) => unknown
  readonly it: (name: string, run: () => Promise<void>) => unknown
}

/** What {@link testCircuitStorage} can be told. What an adapter cannot offer is left out, with its cases. */
export interface StorageSuiteOptions {
  /**
   * The test runner. Default: the global `describe` and `it`, as in jest. Runners without globals are passed in:
   * `import { describe, it } from 'node:test'`, then `runner: { describe, it }`.
   */
  readonly runner?: StorageSuiteRunner | undefined
  /**
   * For a shared store: another adapter over the same store, as a second instance of the function has. Adds the cases
   * in which two instances compete. Called once per case, like `createStorage`.
   */
  readonly createPeer?: (() => ICircuitStorage | Promise<ICircuitStorage>) | undefined
  /**
   * An adapter whose store cannot be reached. Adds the case in which every method must reject. Configure it to give up
   * soon: the case calls seven methods.
   */
  readonly createUnreachable?: (() => ICircuitStorage | Promise<ICircuitStorage>) | undefined
  /**
   * Puts something that is no circuit record where the adapter keeps this circuit, so that reading it must fail. Adds
   * the cases about damaged records.
   */
  readonly damage?: ((serviceKey: string) => unknown) | undefined
  /**
   * For a store that forgets: when it will forget this circuit, in milliseconds since the epoch; `undefined` if never.
   * Adds the cases about expiry.
   */
  readonly expiresAt?: ((serviceKey: string) => number | undefined | Promise<number | undefined>) | undefined
  /** How many circuits the largest batches have; default 250. Lower it where the store cannot hold so many. */
  readonly maxBatch?: number | undefined
  /** How many writes compete for one circuit; default 25. */
  readonly parallelWrites?: number | undefined
  /** Of how many of a circuit's latest increments the adapter knows the ids; default 16, at least 1. */
  readonly rememberedIncrements?: number | undefined
  /** Repeats the random history that a failed run has named; default: a new one every time. */
  readonly seed?: number | undefined
}

/**
 * Defines the test cases that every storage adapter must pass: the whole contract of {@link ICircuitStorage}. The cases
 * about epochs do nothing for an adapter whose `fencesEpochs` is not `true`.
 *
 * It needs no empty store: each case works on new random service keys (one on `__proto__`, `constructor` and `toString`
 * as well) and clears them when it is done. So `createStorage`, called once per case, may return the same adapter
 * every time; the suite never closes it.
 *
 * @param name the adapter's, as the heading of the cases
 * @throws {TypeError} when no `runner` is given and there is no global one
 * @example
 * import { after, describe, it } from 'node:test'
 * import { testCircuitStorage } from 'middy-circuit-breaker/testing'
 *
 * const storage = new MyCircuitStorage(client)
 * testCircuitStorage('MyCircuitStorage', () => storage, {
 *   runner: { describe, it },
 *   createPeer: () => new MyCircuitStorage(anotherClient),
 * })
 */
export function testCircuitStorage(
  name: string,
  createStorage: () => ICircuitStorage | Promise<ICircuitStorage>,
  options: StorageSuiteOptions = {},
): void {
  const { describe, it } = options.runner ?? globalRunner()
  const sizes = {
    maxBatch: options.maxBatch ?? 250,
    parallelWrites: options.parallelWrites ?? 25,
    rememberedIncrements: options.rememberedIncrements ?? 16,
  }
  const groups: [heading: string, cases: Cases][] = [
    ['the adapter', shapeCases],
    ['reading', readingCases],
    ['what is stored', roundTripCases],
    ['incrementFailures', incrementCases],
    ['compareAndSetState', replaceCases],
    ['increments and replaces together', raceCases],
    ['batchSetState', batchCases],
    ['clearing', clearCases],
    ['the epoch', whereFenced(epochCases)],
    ['who owns a record', ownershipCases],
    ['any history', historyCases(options.seed)],
  ]
  if (options.createPeer) groups.push(['two instances', peerCases(options.createPeer)])
  if (options.damage) groups.push(['a damaged record', damageCases(options.damage)])
  if (options.createUnreachable) groups.push(['a store that is down', unreachableCases(options.createUnreachable)])
  if (options.expiresAt) groups.push(['expiry', expiryCases(options.expiresAt)])

  describe(name, () => {
    for (const [heading, cases] of groups) {
      describe(heading, () => {
        for (const [title, run] of Object.entries(cases)) {
          it(title, async () => {
            const bench = new Bench(await createStorage(), sizes)
            try {
              await run(bench)
            } finally {
              await bench.clear()
            }
          })
        }
      })
    }
  })
}

/**
 * A valid record for tests: an empty, closed circuit with a new version and epoch, written now.
 *
 * @example
 * await storage.compareAndSetState('stripe', undefined, circuitRecord({ failureCount: 2 }))
 */
export function circuitRecord(overrides: Partial<CircuitRecord> = {}): CircuitRecord {
  return { ...emptyRecord(randomUUID(), Date.now()), version: randomUUID(), ...overrides }
}

type Cases = Record<string, (bench: Bench) => Promise<void>>

const shapeCases: Cases = {
  'has every method of the contract': async ({ storage }) => {
    for (const method of operations) assert.equal(typeof storage[method], 'function', `${method} is no function`)
    if (storage.close !== undefined) assert.equal(typeof storage.close, 'function', 'close is no function')
    for (const flag of ['shared', 'fencesEpochs'] as const) {
      if (storage[flag] !== undefined) assert.equal(typeof storage[flag], 'boolean', `${flag} is no boolean`)
    }
  },
}

const readingCases: Cases = {
  'knows nothing of a circuit that was never written': async (bench) => {
    await bench.expectStored(bench.key(), undefined, 'nothing was written')
  },

  'reads what was written, one by one and in a batch': async (bench) => {
    const [first, second] = [bench.key(), bench.key()]
    const records = [await bench.create(first), await bench.create(second)]
    await bench.expectStored(first, records[0], 'the first circuit')
    await bench.expectStored(second, records[1], 'the second circuit')
  },

  'leaves absent circuits out of a batch': async (bench) => {
    const [stored, absent] = [bench.key(), bench.key()]
    const record = await bench.create(stored)
    const found = await bench.storage.batchGetState([absent, stored])
    assert.deepEqual([...found.keys()], [stored], 'a batch must hold exactly the circuits that are stored')
    expectSame(found.get(stored), record, 'the circuit that is stored')
  },

  'reads a circuit that is asked for twice once': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const record = await bench.create(key)
    const found = await bench.storage.batchGetState([key, other, key, other, key])
    assert.deepEqual([...found.keys()], [key], 'a batch that names one circuit three times')
    expectSame(found.get(key), record, 'the circuit that was named three times')
  },

  'does nothing when it is given nothing': async ({ storage }) => {
    assert.equal((await storage.batchGetState([])).size, 0, 'batchGetState([]) must resolve to an empty map')
    assert.equal((await storage.batchSetState([])).size, 0, 'batchSetState([]) must resolve to an empty map')
    await storage.batchClearState([])
  },

  'takes batches beyond the limits of its backend': async (bench) => {
    const keys = Array.from({ length: bench.maxBatch }, () => bench.key())
    const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))

    const results = await bench.storage.batchSetState(writes)
    assert.equal(results.size, keys.length, 'batchSetState must answer for every circuit')
    for (const { serviceKey, next } of writes) expectApplied(results.get(serviceKey), next, 'a create in a large batch')

    const found = await bench.storage.batchGetState(keys)
    assert.equal(found.size, keys.length, 'batchGetState must find every circuit')
    for (const { serviceKey, next } of writes) expectSame(found.get(serviceKey), next, 'a read in a large batch')

    await bench.storage.batchClearState(keys)
    assert.equal((await bench.storage.batchGetState(keys)).size, 0, 'batchClearState must delete every circuit')
  },

  'sees every write as soon as it is acknowledged': async (bench) => {
    const key = bench.key()
    let version: ExpectedVersion
    for (let round = 0; round < 10; round += 1) {
      const { current } = await bench.storage.incrementFailures(key, version, increment())
      await bench.expectStored(key, current, 'right after an increment')
      const next = circuitRecord({ generation: round })
      await bench.storage.compareAndSetState(key, version, next)
      await bench.expectStored(key, next, 'right after a replace')
      version = next.version
    }
  },
}

const roundTripCases: Cases = {
  'keeps every field': async (bench) => {
    await bench.expectRoundTrip(fullRecord(), 'a record with every field')
  },

  'keeps a record that has only what it must': async (bench) => {
    await bench.expectRoundTrip(circuitRecord(), 'a record without optional fields')
    await bench.expectRoundTrip(circuitRecord({ version: undefined }), 'a record without a version')
  },

  'keeps what is optional inside a record absent': async (bench) => {
    const now = Date.now()
    const inside = { lastFailure: { at: now, name: 'Error' }, override: { state: 'CLOSED', at: now } } as const
    await bench.expectRoundTrip(circuitRecord(inside), 'a failure and an override without optional fields')
  },

  'tells zero and the empty text from nothing': async (bench) => {
    const zeros = { lastFailureAt: 0, openedAt: 0, retryAt: 0, resetTimeout: 0, successCount: 0 }
    const lastFailure = { at: 0, name: 'Error', code: '', status: 0 }
    await bench.expectRoundTrip(circuitRecord({ ...zeros, lastFailure }), 'a record full of zeros')
  },

  'keeps large numbers exact': async (bench) => {
    const key = bench.key()
    const largest = 8.64e15
    const record = circuitRecord({
      state: 'OPEN',
      generation: Number.MAX_SAFE_INTEGER,
      trips: Number.MAX_SAFE_INTEGER - 1,
      successCount: 2 ** 31,
      failureCount: Number.MAX_SAFE_INTEGER - 10,
      retryAt: largest,
      openedAt: largest - 1,
      resetTimeout: 1_234_567_890_123_457,
    })
    await bench.storage.compareAndSetState(key, undefined, record)
    await bench.expectStored(key, record, 'a record of large numbers')
    const added = increment({ count: 7 })
    const result = await bench.storage.incrementFailures(key, record.version, added)
    expectApplied(result, counted(record, added), 'an increment of a large count')
  },

  'keeps any text': async (bench) => {
    const texts = ['ünïcödé', '💳🔥', '"quoted" \\back\\', 'line\nbreak\ttab', 'null', '{"a":[1]}', '  ', '-1e3']
    const lastFailure = { at: Date.now(), name: texts.slice(0, 4).join(''), code: texts.slice(4).join('') }
    const leases = texts.map((id) => ({ id, expiresAt: Date.now() + 1_000 }))
    await bench.expectRoundTrip(circuitRecord({ transitions: texts, leases, lastFailure }), 'a record of odd texts')
    for (const text of texts) {
      await bench.expectRoundTrip(circuitRecord({ epoch: text, version: `${text}v` }), `the epoch ${text}`)
    }
  },

  'keeps circuits with similar keys apart': async (bench) => {
    const token = randomUUID()
    const keys = oddKeys.map((key) => bench.own(`${token}${key}`))
    keys.push(bench.own(`#${token}`), bench.own(` ${token}`), bench.own(`${token}${'k'.repeat(256 - token.length)}`))
    await expectApart(bench, keys)
  },

  'takes service keys that name members of Object.prototype': async (bench) => {
    const keys = ['__proto__', 'constructor', 'toString'].map((key) => bench.own(key))
    await bench.storage.batchClearState(keys)
    for (const key of keys) await bench.expectStored(key, undefined, 'a key that nothing is stored for')
    await expectApart(bench, keys)
  },
}

const incrementCases: Cases = {
  'creates a closed record without a version': async (bench) => {
    const key = bench.key()
    const first = increment({ count: 2 })
    const created = counted(emptyRecord(first.id, first.at), first)
    const result = await bench.storage.incrementFailures(key, undefined, first)
    expectApplied(result, created, 'the first increment')
    await bench.expectStored(key, created, 'after the first increment')
  },

  'adds to a record that has no version yet': async (bench) => {
    const key = bench.key()
    const [first, second] = [increment(), increment({ count: 3, at: Date.now() + 1 })]
    await bench.storage.incrementFailures(key, undefined, first)
    const sum = counted(counted(emptyRecord(first.id, first.at), first), second)
    expectApplied(await bench.storage.incrementFailures(key, undefined, second), sum, 'the second increment')
    await bench.expectStored(key, sum, 'after the second increment')
  },

  'leaves the version and every other field alone': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const added = increment({ count: 4, at: record.updatedAt + 5 })
    const result = await bench.storage.incrementFailures(key, record.version, added)
    expectApplied(result, counted(record, added), 'an increment of a record with every field')
    await bench.expectStored(key, counted(record, added), 'after an increment of a record with every field')
  },

  'takes the time from the increment, not from its own clock': async (bench) => {
    const key = bench.key()
    const at = Date.now() + 40_000
    const { current } = await bench.storage.incrementFailures(key, undefined, increment({ at }))
    assert.deepEqual([current?.lastFailureAt, current?.updatedAt], [at, at], 'lastFailureAt and updatedAt must be at')
  },

  'adds up exactly when many arrive at once, whether or not the record exists': async (bench) => {
    for (const record of [undefined, circuitRecord({ failureCount: 5 })]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const at = Date.now()
      const increments = Array.from({ length: bench.parallelWrites }, (_, index) => increment({ count: index + 1, at }))
      const results = await Promise.all(
        increments.map((each) => bench.storage.incrementFailures(key, record?.version, each)),
      )
      const total = increments.reduce((sum, { count }) => sum + count, 0)
      const stored = await bench.storage.getState(key)
      for (const [index, { applied, current }] of results.entries()) {
        assert.equal(applied, true, 'increments of one version must never refuse each other')
        const least = index + 1 + (record?.failureCount ?? 0)
        assert.ok((current?.failureCount ?? 0) >= least, 'an increment must be part of what its result says is stored')
      }
      const epoch = record?.epoch ?? stored?.epoch ?? ''
      if (!record) assert.ok(increments.map(({ id }) => id).includes(epoch), 'the epoch must be an increment id')
      const sum = counted(record ?? emptyRecord(epoch, at), { count: total, at, id: '' })
      await bench.expectStored(key, sum, `${increments.length} parallel increments`)
    }
  },

  'refuses a version that is not the stored one': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.incrementFailures(key, randomUUID(), increment())
    expectRefused(result, record, 'an increment with another version')
    await bench.expectStored(key, record, 'after a refused increment')
  },

  'refuses no version where one is stored': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.incrementFailures(key, undefined, increment())
    expectRefused(result, record, 'an increment without a version')
    await bench.expectStored(key, record, 'after a refused increment')
  },

  'refuses a version where none is stored': async (bench) => {
    const [absent, unversioned] = [bench.key(), bench.key()]
    const missed = await bench.storage.incrementFailures(absent, randomUUID(), increment())
    expectRefused(missed, undefined, 'an increment of a circuit that does not exist')
    await bench.expectStored(absent, undefined, 'a refused increment must not create a record')

    const { current } = await bench.storage.incrementFailures(unversioned, undefined, increment())
    const refused = await bench.storage.incrementFailures(unversioned, randomUUID(), increment())
    expectRefused(refused, current, 'an increment with a version of a record without one')
    await bench.expectStored(unversioned, current, 'after a refused increment')
  },

  'counts an increment that is sent twice once': async (bench) => {
    for (const record of [undefined, circuitRecord()]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const sent = increment({ count: 2 })
      await bench.storage.incrementFailures(key, record?.version, sent)
      const once = counted(record ?? emptyRecord(sent.id, sent.at), sent)
      const again = await bench.storage.incrementFailures(key, record?.version, sent)
      expectApplied(again, once, 'an increment that is sent again did happen')
      await bench.expectStored(key, once, 'after an increment that was sent twice')
    }
  },

  'counts an increment that is sent twice at once only once': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const sent = increment({ count: 2 })
    const results = await Promise.all(
      [sent, sent, sent].map((each) => bench.storage.incrementFailures(key, record.version, each)),
    )
    for (const result of results) expectApplied(result, counted(record, sent), 'one of three copies of an increment')
    await bench.expectStored(key, counted(record, sent), 'after three copies of one increment')
  },

  'recognises an increment among later ones': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const increments = Array.from({ length: bench.rememberedIncrements }, () => increment({ at: record.updatedAt }))
    for (const each of increments) await bench.storage.incrementFailures(key, record.version, each)
    const sum = counted(record, increment({ count: increments.length, at: record.updatedAt }))
    for (const each of increments) {
      expectApplied(await bench.storage.incrementFailures(key, record.version, each), sum, 'a late copy')
    }
    await bench.expectStored(key, sum, `after ${increments.length} increments that were sent twice`)
  },

  'counts equal increments with different ids': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const [first, second] = [increment({ at: record.updatedAt }), increment({ at: record.updatedAt })]
    await bench.storage.incrementFailures(key, record.version, first)
    await bench.storage.incrementFailures(key, record.version, second)
    await bench.expectStored(key, counted(counted(record, first), second), 'two increments that differ in their ids')
  },
}

const replaceCases: Cases = {
  'creates a record where nothing is stored': async (bench) => {
    const key = bench.key()
    const next = fullRecord()
    expectApplied(await bench.storage.compareAndSetState(key, undefined, next), next, 'a create')
    await bench.expectStored(key, next, 'after a create')
  },

  'refuses a version where nothing is stored': async (bench) => {
    const key = bench.key()
    const result = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(result, undefined, 'a replace of a circuit that does not exist')
    await bench.expectStored(key, undefined, 'a refused replace must not create a record')
  },

  'replaces the stored version': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key)
    const next = fullRecord()
    expectApplied(await bench.storage.compareAndSetState(key, version, next), next, 'a replace')
    await bench.expectStored(key, next, 'after a replace')
  },

  'refuses a version that is not the stored one': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const result = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(result, record, 'a replace of another version')
    await bench.expectStored(key, record, 'after a refused replace')
  },

  'refuses no version where one is stored': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key)
    const result = await bench.storage.compareAndSetState(key, undefined, circuitRecord())
    expectRefused(result, record, 'a create where a record is stored')
    await bench.expectStored(key, record, 'after a refused create')
  },

  'refuses a version where none is stored': async (bench) => {
    const key = bench.key()
    const { current } = await bench.storage.incrementFailures(key, undefined, increment())
    const result = await bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(result, current, 'a replace with a version of a record without one')
    await bench.expectStored(key, current, 'after a refused replace')
  },

  'refuses the version before the last': async (bench) => {
    const key = bench.key()
    const [first, second] = [circuitRecord(), circuitRecord()]
    await bench.create(key, first)
    await bench.storage.compareAndSetState(key, first.version, second)
    const late = await bench.storage.compareAndSetState(key, first.version, circuitRecord())
    expectRefused(late, second, 'a replace of a version that was replaced')
    const next = circuitRecord()
    const result = await bench.storage.compareAndSetState(key, second.version, next)
    expectApplied(result, next, 'a replace of the new version')
  },

  'compares versions as text, for equality only': async (bench) => {
    const versions = ['undefined', 'null', '0', '1', '1.0', 'false', 'v', 'V', 'v ', 'é', 'e\u0301', 'x'.repeat(256)]
    const key = bench.key()
    let current: ExpectedVersion
    for (const version of versions) {
      const record = circuitRecord({ version })
      expectApplied(await bench.storage.compareAndSetState(key, current, record), record, `version ${version}`)
      for (const other of [undefined, ...versions]) {
        if (other === version) continue
        const result = await bench.storage.compareAndSetState(key, other, circuitRecord())
        expectRefused(result, record, `${JSON.stringify(version)} is stored, ${JSON.stringify(other)} was expected`)
      }
      current = version
    }
  },

  'replaces the failure count, and later increments add to the new one': async (bench) => {
    const key = bench.key()
    await bench.storage.incrementFailures(key, undefined, increment({ count: 9 }))
    const cleared = circuitRecord()
    expectApplied(await bench.storage.compareAndSetState(key, undefined, cleared), cleared, 'a replace with count 0')
    await bench.expectStored(key, cleared, 'after a replace with count 0')

    await bench.storage.incrementFailures(key, cleared.version, increment({ count: 4 }))
    const counting = circuitRecord({ failureCount: 2 })
    await bench.storage.compareAndSetState(key, cleared.version, counting)
    const added = increment({ count: 3 })
    const result = await bench.storage.incrementFailures(key, counting.version, added)
    expectApplied(result, counted(counting, added), 'an increment after a replace with count 2')
    await bench.expectStored(key, counted(counting, added), 'an increment after a replace with count 2')
  },

  'forgets what the next record does not have': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key, fullRecord())
    const next = circuitRecord()
    expectApplied(await bench.storage.compareAndSetState(key, version, next), next, 'a replace by an emptier record')
    await bench.expectStored(key, next, 'after a replace by an emptier record')
  },

  'has exactly one winner when many compete': async (bench) => {
    for (const record of [undefined, circuitRecord()]) {
      const key = bench.key()
      if (record) await bench.create(key, record)
      const contenders = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
      const results = await Promise.all(
        contenders.map((next) => bench.storage.compareAndSetState(key, record?.version, next)),
      )
      await expectOneWinner(bench, key, contenders, results)
    }
  },
}

const raceCases: Cases = {
  'refuses an increment of a version that was replaced': async (bench) => {
    const key = bench.key()
    const [first, second] = [circuitRecord(), circuitRecord()]
    await bench.create(key, first)
    await bench.storage.compareAndSetState(key, first.version, second)
    const result = await bench.storage.incrementFailures(key, first.version, increment())
    expectRefused(result, second, 'an increment of a version that was replaced')
    await bench.expectStored(key, second, 'after a late increment')
  },

  'does not count an increment that is sent again after a replace': async (bench) => {
    for (const version of [undefined, randomUUID()]) {
      const key = bench.key()
      if (version) await bench.create(key, circuitRecord({ version }))
      const sent = increment()
      const next = circuitRecord()
      await bench.storage.incrementFailures(key, version, sent)
      await bench.storage.compareAndSetState(key, version, next)
      const result = await bench.storage.incrementFailures(key, version, sent)
      expectRefused(result, next, 'an increment that is sent again after a replace')
      await bench.expectStored(key, next, 'after an increment that was sent again')
    }
  },

  'lets no increment of the old version through to the new one': async (bench) => {
    for (let round = 0; round < 6; round += 1) {
      const key = bench.key()
      const old = round % 2 === 0 ? undefined : await bench.create(key)
      const next = circuitRecord({ state: 'OPEN', retryAt: Date.now() + 10_000, resetTimeout: 10_000 })
      const add = () => bench.storage.incrementFailures(key, old?.version, increment())
      const before = Array.from({ length: 2 * round }, add)
      const replace = bench.storage.compareAndSetState(key, old?.version, next)
      const behind = Array.from({ length: bench.parallelWrites }, add)

      expectApplied(await replace, next, 'a replace that competes with increments only')
      for (const result of await Promise.all([...before, ...behind])) {
        if (!result.applied) expectRefused(result, next, 'an increment that came after the replace')
      }
      await bench.expectStored(key, next, 'an increment was added to the version after the one that it named')
    }
  },

  'keeps the increments that come after a replace': async (bench) => {
    const key = bench.key()
    const next = circuitRecord()
    await bench.storage.compareAndSetState(key, undefined, next)
    const at = Date.now()
    const late = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
    const added = Array.from({ length: bench.parallelWrites }, () => increment({ at }))
    await Promise.all([
      ...late.map((record) => bench.storage.compareAndSetState(key, undefined, record)),
      ...added.map((each) => bench.storage.incrementFailures(key, next.version, each)),
    ])
    const sum = counted(next, increment({ count: added.length, at }))
    await bench.expectStored(key, sum, 'increments among refused replaces')
  },
}

const batchCases: Cases = {
  'writes several circuits with one result each': async (bench) => {
    const [fresh, known] = [bench.key(), bench.key()]
    const { version } = await bench.create(known)
    const [first, second] = [fullRecord(), fullRecord()]
    const results = await bench.storage.batchSetState([
      { serviceKey: fresh, version: undefined, next: first },
      { serviceKey: known, version, next: second },
    ])
    assert.deepEqual([...results.keys()].sort(), [fresh, known].sort(), 'one result per circuit')
    expectApplied(results.get(fresh), first, 'a create in a batch')
    expectApplied(results.get(known), second, 'a replace in a batch')
    await bench.expectStored(fresh, first, 'after a create in a batch')
    await bench.expectStored(known, second, 'after a replace in a batch')
  },

  'checks the condition of each circuit by itself': async (bench) => {
    const [created, replaced, stale] = [bench.key(), bench.key(), bench.key()]
    const [unexpected, absent, unversioned] = [bench.key(), bench.key(), bench.key()]
    const known = await bench.create(replaced)
    const staleRecord = await bench.create(stale, fullRecord())
    const unexpectedRecord = await bench.create(unexpected)
    const { current } = await bench.storage.incrementFailures(unversioned, undefined, increment())
    const write = (serviceKey: string, version: ExpectedVersion): CompareAndSet => ({
      serviceKey,
      version,
      next: circuitRecord(),
    })
    const writes = [
      write(stale, randomUUID()),
      write(created, undefined),
      write(unexpected, undefined),
      write(replaced, known.version),
      write(absent, randomUUID()),
      write(unversioned, randomUUID()),
    ] as const

    const results = await bench.storage.batchSetState(writes)

    assert.equal(results.size, writes.length, 'one result per circuit, refused or not')
    expectApplied(results.get(created), writes[1].next, 'a create among refused writes')
    expectApplied(results.get(replaced), writes[3].next, 'a replace among refused writes')
    expectRefused(results.get(stale), staleRecord, 'a write with another version')
    expectRefused(results.get(unexpected), unexpectedRecord, 'a create where a record is stored')
    expectRefused(results.get(absent), undefined, 'a replace where nothing is stored')
    expectRefused(results.get(unversioned), current, 'a replace with a version of a record without one')
    await bench.expectStored(created, writes[1].next, 'created by the batch')
    await bench.expectStored(replaced, writes[3].next, 'replaced by the batch')
    await bench.expectStored(stale, staleRecord, 'refused by the batch')
    await bench.expectStored(unexpected, unexpectedRecord, 'refused by the batch')
    await bench.expectStored(absent, undefined, 'refused by the batch')
    await bench.expectStored(unversioned, current, 'refused by the batch')
  },

  'replaces the whole record': async (bench) => {
    const [full, counting] = [bench.key(), bench.key()]
    const { version } = await bench.create(full, fullRecord())
    await bench.storage.incrementFailures(counting, undefined, increment({ count: 9 }))
    const [first, second] = [circuitRecord(), circuitRecord()]
    const results = await bench.storage.batchSetState([
      { serviceKey: full, version, next: first },
      { serviceKey: counting, version: undefined, next: second },
    ])
    expectApplied(results.get(full), first, 'a replace by an emptier record in a batch')
    expectApplied(results.get(counting), second, 'a replace of a count in a batch')
    await bench.expectStored(full, first, 'after a replace by an emptier record in a batch')
    await bench.expectStored(counting, second, 'after a replace of a count in a batch')
  },

  'has exactly one winner per circuit when batches compete': async (bench) => {
    const keys = [bench.key(), bench.key(), bench.key()]
    const batches = Array.from({ length: 8 }, () =>
      keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() })),
    )
    const results = await Promise.all(batches.map((batch) => bench.storage.batchSetState(batch)))
    for (const [index, key] of keys.entries()) {
      const contenders = batches.map((batch) => (batch[index] as CompareAndSet).next)
      await expectOneWinner(
        bench,
        key,
        contenders,
        results.map((result) => result.get(key)),
      )
    }
  },
}

const clearCases: Cases = {
  'deletes one circuit and no other': async (bench) => {
    const [cleared, kept] = [bench.key(), bench.key()]
    await bench.create(cleared, fullRecord())
    const record = await bench.create(kept)
    await bench.storage.clearState(cleared)
    await bench.expectStored(cleared, undefined, 'after clearState')
    await bench.expectStored(kept, record, 'clearState of another circuit')
  },

  'deletes several circuits and no other': async (bench) => {
    const [first, second, absent, kept] = [bench.key(), bench.key(), bench.key(), bench.key()]
    await bench.create(first)
    await bench.create(second)
    const record = await bench.create(kept)
    await bench.storage.batchClearState([first, absent, second, first])
    for (const key of [first, second, absent]) await bench.expectStored(key, undefined, 'after batchClearState')
    await bench.expectStored(kept, record, 'batchClearState of other circuits')
  },

  'takes a circuit that does not exist': async (bench) => {
    const key = bench.key()
    await bench.storage.clearState(key)
    await bench.expectStored(key, undefined, 'after clearState of nothing')
  },

  'leaves no version behind': async (bench) => {
    const key = bench.key()
    const { version } = await bench.create(key, fullRecord())
    await bench.storage.clearState(key)
    const late = await bench.storage.incrementFailures(key, version, increment())
    expectRefused(late, undefined, 'an increment of a version that was deleted')
    const replace = await bench.storage.compareAndSetState(key, version, circuitRecord())
    expectRefused(replace, undefined, 'a replace of a version that was deleted')
    await bench.expectStored(key, undefined, 'refused writes must not bring a deleted record back')

    const first = increment()
    const created = counted(emptyRecord(first.id, first.at), first)
    const result = await bench.storage.incrementFailures(key, undefined, first)
    expectApplied(result, created, 'the first increment after clearState')
  },
}

/** A record that was never replaced has no version, so after a deletion only its epoch tells it from the next one. */
const epochCases: Cases = {
  'adds to the record of the epoch that is named': async (bench) => {
    const { key, record } = await bench.unversioned()
    const added = increment({ epoch: record.epoch })
    const result = await bench.storage.incrementFailures(key, undefined, added)
    expectApplied(result, counted(record, added), 'an increment of the stored epoch')
    await bench.expectStored(key, counted(record, added), 'after an increment of the stored epoch')
  },

  'refuses an increment of another epoch': async (bench) => {
    const { key, record } = await bench.unversioned()
    const result = await bench.storage.incrementFailures(key, undefined, increment({ epoch: randomUUID() }))
    expectRefused(result, record, 'an increment of another epoch')
    await bench.expectStored(key, record, 'after an increment of another epoch')
  },

  'creates no record for an increment that names an epoch': async (bench) => {
    const [never, deleted] = [{ key: bench.key(), epoch: randomUUID() }, await bench.deleted()]
    for (const { key, epoch } of [never, deleted]) {
      const result = await bench.storage.incrementFailures(key, undefined, increment({ epoch }))
      expectRefused(result, undefined, 'an increment of an epoch where nothing is stored')
      await bench.expectStored(key, undefined, 'a refused increment must not create a record')
    }
  },

  'refuses an increment of a record that was deleted and grew again': async (bench) => {
    const { key, epoch, record } = await bench.regrown()
    const result = await bench.storage.incrementFailures(key, undefined, increment({ epoch }))
    expectRefused(result, record, 'an increment of the record before')
    await bench.expectStored(key, record, 'after an increment of the record before')
  },

  'counts an increment that names an epoch and is sent twice once': async (bench) => {
    const { key, record } = await bench.unversioned()
    const sent = increment({ count: 2, epoch: record.epoch })
    await bench.storage.incrementFailures(key, undefined, sent)
    const again = await bench.storage.incrementFailures(key, undefined, sent)
    expectApplied(again, counted(record, sent), 'an increment that is sent again did happen')
    await bench.expectStored(key, counted(record, sent), 'after an increment that was sent twice')
  },

  'replaces the record of the epoch that is named': async (bench) => {
    const { key, record } = await bench.unversioned()
    const next = fullRecord()
    const result = await bench.storage.compareAndSetState(key, undefined, next, record.epoch)
    expectApplied(result, next, 'a replace of the stored epoch')
    await bench.expectStored(key, next, 'after a replace of the stored epoch')
  },

  'refuses a replace of another epoch': async (bench) => {
    const { key, record } = await bench.unversioned()
    const next = circuitRecord()
    // Neither the epoch that it leads to nor any other is the one that is stored.
    for (const epoch of [randomUUID(), next.epoch]) {
      const result = await bench.storage.compareAndSetState(key, undefined, next, epoch)
      expectRefused(result, record, 'a replace of another epoch')
      await bench.expectStored(key, record, 'after a replace of another epoch')
    }
  },

  'creates no record for a replace that names an epoch': async (bench) => {
    const [never, deleted] = [{ key: bench.key(), epoch: randomUUID() }, await bench.deleted()]
    for (const { key, epoch } of [never, deleted]) {
      const result = await bench.storage.compareAndSetState(key, undefined, circuitRecord(), epoch)
      expectRefused(result, undefined, 'a replace of an epoch where nothing is stored')
      await bench.expectStored(key, undefined, 'a refused replace must not create a record')
    }
  },

  'refuses a replace of a record that was deleted and grew again': async (bench) => {
    const { key, epoch, record } = await bench.regrown()
    const result = await bench.storage.compareAndSetState(key, undefined, circuitRecord(), epoch)
    expectRefused(result, record, 'a replace of the record before')
    await bench.expectStored(key, record, 'after a replace of the record before')
  },

  'checks the epoch of each circuit of a batch by itself': async (bench) => {
    const [known, mistaken, unfenced] = [
      await bench.unversioned(),
      await bench.unversioned(),
      await bench.unversioned(),
    ]
    const [deleted, regrown, fresh] = [await bench.deleted(), await bench.regrown(), bench.key()]
    const write = (serviceKey: string, epoch: string | undefined): CompareAndSet => ({
      serviceKey,
      version: undefined,
      next: circuitRecord(),
      epoch,
    })
    const writes = [
      write(mistaken.key, randomUUID()),
      write(known.key, known.record.epoch),
      write(deleted.key, deleted.epoch),
      write(unfenced.key, undefined),
      write(regrown.key, regrown.epoch),
      write(fresh, undefined),
    ] as const

    const results = await bench.storage.batchSetState(writes)

    expectApplied(results.get(known.key), writes[1].next, 'a write of the stored epoch')
    expectApplied(results.get(unfenced.key), writes[3].next, 'a write that names no epoch')
    expectApplied(results.get(fresh), writes[5].next, 'a create that names no epoch')
    expectRefused(results.get(mistaken.key), mistaken.record, 'a write of another epoch')
    expectRefused(results.get(deleted.key), undefined, 'a write of a record that was deleted')
    expectRefused(results.get(regrown.key), regrown.record, 'a write of the record before')
    await bench.expectStored(known.key, writes[1].next, 'replaced by the batch')
    await bench.expectStored(mistaken.key, mistaken.record, 'refused by the batch')
    await bench.expectStored(deleted.key, undefined, 'a refused write of a batch must not create a record')
    await bench.expectStored(regrown.key, regrown.record, 'refused by the batch')
  },

  'compares the version as well': async (bench) => {
    const [key, batched] = [bench.key(), bench.key()]
    const record = await bench.create(key)
    const other = await bench.create(batched)
    const added = await bench.storage.incrementFailures(key, undefined, increment({ epoch: record.epoch }))
    expectRefused(added, record, 'an increment without a version, of the stored epoch')
    const replaced = await bench.storage.compareAndSetState(key, undefined, circuitRecord(), record.epoch)
    expectRefused(replaced, record, 'a replace without a version, of the stored epoch')
    const write = { serviceKey: batched, version: undefined, next: circuitRecord(), epoch: other.epoch }
    const results = await bench.storage.batchSetState([write])
    expectRefused(results.get(batched), other, 'a write of a batch without a version, of the stored epoch')
    await bench.expectStored(key, record, 'after refused writes of the stored epoch')
    await bench.expectStored(batched, other, 'after a refused write of the stored epoch')
  },

  'compares epochs as text': async (bench) => {
    const epochs = ['undefined', 'null', '0', '1', '1.0', 'false', 'e', 'E', 'e ', 'é', 'e\u0301', 'x'.repeat(256)]
    const key = bench.key()
    for (const epoch of epochs) {
      const record = await bench.create(key, circuitRecord({ version: undefined, epoch }))
      for (const other of epochs) {
        if (other === epoch) continue
        const what = `${JSON.stringify(epoch)} is stored, ${JSON.stringify(other)} was expected`
        const added = await bench.storage.incrementFailures(key, undefined, increment({ epoch: other }))
        expectRefused(added, record, what)
        expectRefused(await bench.storage.compareAndSetState(key, undefined, circuitRecord(), other), record, what)
      }
      const added = increment({ epoch })
      const result = await bench.storage.incrementFailures(key, undefined, added)
      expectApplied(result, counted(record, added), `epoch ${epoch}`)
      await bench.storage.clearState(key)
    }
  },

  'lets no write of a deleted record through to the one that follows': async (bench) => {
    for (let round = 0; round < 6; round += 1) {
      const { key, record } = await bench.unversioned()
      const { epoch } = record
      const write = (index: number) =>
        (index + round) % 4 === 0
          ? bench.storage.compareAndSetState(key, undefined, circuitRecord({ version: undefined, epoch }), epoch)
          : bench.storage.incrementFailures(key, undefined, increment({ epoch }))
      const before = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))
      await bench.storage.clearState(key)
      const between = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))
      const { current } = await bench.storage.incrementFailures(key, undefined, increment())
      const behind = Array.from({ length: bench.parallelWrites }, (_, index) => write(index))

      for (const result of await Promise.all([...before, ...between, ...behind])) {
        assert.equal(
          result.applied,
          result.current?.epoch === epoch,
          'applied to the record that was seen, and no other',
        )
      }
      await bench.expectStored(key, current, 'a write of a deleted record was applied to the one that followed')
    }
  },
}

/** For a store that does not claim to fence epochs there is nothing to check. */
function whereFenced(cases: Cases): Cases {
  const guarded = Object.entries(cases).map(([title, run]): [string, Cases[string]] => [
    title,
    async (bench) => {
      if (bench.storage.fencesEpochs === true) await run(bench)
    },
  ])
  return Object.fromEntries(guarded)
}

const ownershipCases: Cases = {
  'is not changed through the records that it returns': async (bench) => {
    const key = bench.key()
    const { storage } = bench
    const record = fullRecord()
    const created = await storage.compareAndSetState(key, undefined, record)
    const refused = await storage.compareAndSetState(key, undefined, fullRecord())
    const refusedIncrement = await storage.incrementFailures(key, undefined, increment())
    const batch = await storage.batchSetState([{ serviceKey: key, version: undefined, next: fullRecord() }])
    const found = await storage.batchGetState([key])
    vandalise(created)
    vandalise(refused)
    vandalise(refusedIncrement)
    vandalise(batch.get(key))
    vandalise(found.get(key))
    vandalise(await storage.getState(key))
    found.clear()
    await bench.expectStored(key, record, 'a record was changed through a reference to it')

    const added = increment({ at: record.updatedAt })
    vandalise(await storage.incrementFailures(key, record.version, added))
    await bench.expectStored(key, counted(record, added), 'the result of an increment was changed by its receiver')
  },

  'is not changed through the records that it was given': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [given, batched] = [fullRecord(), fullRecord()]
    const [original, otherOriginal] = [structuredClone(given), structuredClone(batched)]
    await bench.storage.compareAndSetState(key, undefined, given)
    await bench.storage.batchSetState([{ serviceKey: other, version: undefined, next: batched }])
    vandalise(given)
    vandalise(batched)
    await bench.expectStored(key, original, 'compareAndSetState kept a reference to its argument')
    await bench.expectStored(other, otherOriginal, 'batchSetState kept a reference to its argument')
  },

  'does not change what it is given': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [next, batched, added] = [fullRecord(), fullRecord(), increment()]
    const writes = [{ serviceKey: other, version: undefined, next: batched }]
    const keys = [other, key, other]
    const given = structuredClone({ next, writes, added, keys })
    await bench.storage.compareAndSetState(key, undefined, next)
    await bench.storage.batchSetState(writes)
    await bench.storage.incrementFailures(key, next.version, added)
    await bench.storage.incrementFailures(other, batched.version, added)
    await bench.storage.batchGetState(keys)
    await bench.storage.batchClearState(keys)
    expectSame({ next, writes, added, keys }, given, 'an argument was changed')
  },

  'takes frozen arguments': async (bench) => {
    const [key, other] = [bench.key(), bench.key()]
    const [next, batched] = [deepFreeze(fullRecord()), deepFreeze(fullRecord())]
    const keys = Object.freeze([other, key])
    await bench.storage.compareAndSetState(key, undefined, next)
    await bench.storage.batchSetState(deepFreeze([{ serviceKey: other, version: undefined, next: batched }]))
    await bench.storage.incrementFailures(key, next.version, deepFreeze(increment()))
    assert.equal((await bench.storage.batchGetState(keys)).size, 2)
    await bench.storage.batchClearState(keys)
  },

  'does not change a record that it has returned': async (bench) => {
    const key = bench.key()
    const record = await bench.create(key, fullRecord())
    const snapshot = await bench.storage.getState(key)
    const batch = (await bench.storage.batchGetState([key])).get(key)
    const { current } = await bench.storage.compareAndSetState(key, undefined, circuitRecord())
    await bench.storage.incrementFailures(key, record.version, increment())
    await bench.storage.compareAndSetState(key, record.version, circuitRecord())
    for (const held of [snapshot, batch, current]) expectSame(held, record, 'a record that was read before a write')
  },
}

function historyCases(seed = Math.floor(Math.random() * 2 ** 31)): Cases {
  return {
    'answers as the contract says, whatever happens in whatever order': async (bench) => {
      const random = randomNumbers(seed)
      const keys = [bench.key(), bench.key()]
      const model = new ContractModel()
      for (let step = 0; step < 100; step += 1) {
        const where = `step ${step} of the history with seed ${seed}`
        const serviceKey = keys[random(2)] as string
        const stored = model.get(serviceKey)
        // Three times out of four the version that is stored, else one of the wrong ones.
        const version = [stored?.version, stored?.version, stored?.version, randomUUID(), undefined][random(5)]
        const next = random(2) === 0 ? fullRecord() : circuitRecord({ failureCount: random(9) })
        // Named only where no version is. Two times out of four none, else the one that is stored or a wrong one.
        const epochs = [undefined, undefined, stored?.epoch, randomUUID()]
        const fences = bench.storage.fencesEpochs === true && version === undefined
        const epoch = fences ? epochs[random(4)] : undefined
        const write: CompareAndSet = { serviceKey, version, next, epoch }
        const operation = random(8)
        if (operation < 3) {
          const added = increment({ count: 1 + random(3), epoch })
          const expected = model.increment(serviceKey, version, added)
          expectResult(await bench.storage.incrementFailures(serviceKey, version, added), expected, where)
          if (operation === 0) {
            const again = model.increment(serviceKey, version, added)
            expectResult(await bench.storage.incrementFailures(serviceKey, version, added), again, `${where}, again`)
          }
        } else if (operation < 5) {
          const result = await bench.storage.compareAndSetState(serviceKey, version, next, epoch)
          expectResult(result, model.replace(write), where)
        } else if (operation < 7) {
          const other = keys.find((key) => key !== serviceKey) as string
          const writes = [write, { serviceKey: other, version: model.get(other)?.version, next: circuitRecord() }]
          const results = await bench.storage.batchSetState(writes)
          for (const each of writes) expectResult(results.get(each.serviceKey), model.replace(each), where)
        } else if (random(3) === 0) {
          await bench.storage.clearState(serviceKey)
          model.clear(serviceKey)
        }
        await bench.expectStored(serviceKey, model.get(serviceKey), where)
      }
    },
  }
}

function peerCases(createPeer: () => ICircuitStorage | Promise<ICircuitStorage>): Cases {
  return {
    'does not call itself unshared': async ({ storage }) => {
      assert.notEqual(storage.shared, false, 'a store with peers is shared')
    },

    'reads what the other one wrote': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = fullRecord()
      await peer.compareAndSetState(key, undefined, record)
      await bench.expectStored(key, record, 'written by the other instance')
      const added = increment()
      await bench.storage.incrementFailures(key, record.version, added)
      expectSame(await peer.getState(key), counted(record, added), 'read by the other instance')
      const found = await peer.batchGetState([key])
      expectSame(found.get(key), counted(record, added), 'read in a batch by the other instance')
      await peer.clearState(key)
      await bench.expectStored(key, undefined, 'cleared by the other instance')
    },

    'adds up the increments of both': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const at = Date.now()
      const adapters = Array.from({ length: bench.parallelWrites }, () => [bench.storage, peer]).flat()
      await Promise.all(adapters.map((each) => each.incrementFailures(key, record.version, increment({ at }))))
      const sum = counted(record, increment({ count: adapters.length, at }))
      await bench.expectStored(key, sum, 'parallel increments by two instances')
    },

    'lets one of both win': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const contenders = Array.from({ length: bench.parallelWrites }, () => circuitRecord())
      const results = await Promise.all(
        contenders.map((next, index) =>
          (index % 2 === 0 ? bench.storage : peer).compareAndSetState(key, undefined, next),
        ),
      )
      await expectOneWinner(bench, key, contenders, results)
    },

    'counts an increment that both send once': async (bench) => {
      const peer = await createPeer()
      const key = bench.key()
      const record = await bench.create(key)
      const sent = increment()
      await bench.storage.incrementFailures(key, record.version, sent)
      const result = await peer.incrementFailures(key, record.version, sent)
      expectApplied(result, counted(record, sent), 'an increment that the other instance sends again')
      await bench.expectStored(key, counted(record, sent), 'after an increment that both instances sent')
    },
  }
}

function damageCases(damage: (serviceKey: string) => unknown): Cases {
  const isCorrupt = (operation: StorageOperation) => (error: unknown) => {
    expectStorageError(error, operation)
    assert.equal(error.corrupt, true, 'a record that does not parse must be reported as corrupt')
    return true
  }
  return {
    'rejects a read': async (bench) => {
      const key = bench.key()
      await damage(key)
      await assert.rejects(bench.storage.getState(key), isCorrupt('getState'))
    },

    'rejects a write, and is left as it is': async (bench) => {
      const key = bench.key()
      await damage(key)
      const replace = bench.storage.compareAndSetState(key, randomUUID(), circuitRecord())
      await assert.rejects(replace, isCorrupt('compareAndSetState'))
      const add = bench.storage.incrementFailures(key, randomUUID(), increment())
      await assert.rejects(add, isCorrupt('incrementFailures'))
      await assert.rejects(bench.storage.getState(key), isCorrupt('getState'), 'the damaged record was overwritten')
    },

    'fails alone in a batch': async (bench) => {
      const [healthy, damaged, absent] = [bench.key(), bench.key(), bench.key()]
      const record = await bench.create(healthy)
      await damage(damaged)
      const read = bench.storage.batchGetState([damaged, healthy, absent])
      await assert.rejects(read, (error) => {
        expectStorageError(error, 'batchGetState')
        assert.deepEqual([...(error.errors?.keys() ?? [])], [damaged], 'errors must hold what failed')
        assert.equal(error.results?.size, 1, 'results must hold what was read, and nothing else')
        expectSame(error.results?.get(healthy), record, 'read in a batch that failed in part')
        return isCorrupt('batchGetState')(error.errors?.get(damaged))
      })

      const next = circuitRecord()
      const write = bench.storage.batchSetState([
        { serviceKey: damaged, version: randomUUID(), next: circuitRecord() },
        { serviceKey: healthy, version: record.version, next },
      ])
      await assert.rejects(write, (error) => {
        expectStorageError(error, 'batchSetState')
        assert.deepEqual([...(error.errors?.keys() ?? [])], [damaged], 'errors must hold what failed')
        expectApplied(error.results?.get(healthy) as WriteResult, next, 'written in a batch that failed in part')
        return isCorrupt('batchSetState')(error.errors?.get(damaged))
      })
    },

    'can be cleared': async (bench) => {
      const [first, second] = [bench.key(), bench.key()]
      await damage(first)
      await damage(second)
      await bench.storage.clearState(first)
      await bench.storage.batchClearState([second])
      await bench.expectStored(first, undefined, 'after clearState of a damaged record')
      await bench.expectStored(second, undefined, 'after batchClearState of a damaged record')
    },
  }
}

function unreachableCases(createUnreachable: () => ICircuitStorage | Promise<ICircuitStorage>): Cases {
  return {
    'makes every method reject with a CircuitStorageError that names it': async (bench) => {
      const storage = await createUnreachable()
      const [serviceKey, version, next] = [bench.key(), undefined, circuitRecord()]
      const calls: Record<StorageOperation, () => Promise<unknown>> = {
        getState: () => storage.getState(serviceKey),
        batchGetState: () => storage.batchGetState([serviceKey]),
        incrementFailures: () => storage.incrementFailures(serviceKey, version, increment()),
        compareAndSetState: () => storage.compareAndSetState(serviceKey, version, next),
        batchSetState: () => storage.batchSetState([{ serviceKey, version, next }]),
        clearState: () => storage.clearState(serviceKey),
        batchClearState: () => storage.batchClearState([serviceKey]),
      }
      for (const operation of operations) {
        await assert.rejects(
          calls[operation],
          (error) => {
            expectStorageError(error, operation)
            assert.equal(error.corrupt, false, 'a store that does not answer is not corrupt')
            return true
          },
          `${operation} must reject`,
        )
      }
    },
  }
}

function expiryCases(readExpiry: NonNullable<StorageSuiteOptions['expiresAt']>): Cases {
  /** Stores count in whole seconds and have clocks of their own. */
  const tolerance = 2_000
  const expectKept = async (bench: Bench, key: string, what: string) => {
    const record = await bench.storage.getState(key)
    assert.ok(record, `${what}: nothing is stored`)
    const needed = expiryOf(record)
    const expiry = await readExpiry(key)
    if (needed === undefined) return assert.equal(expiry, undefined, `${what}: must never expire`)
    if (expiry !== undefined)
      assert.ok(expiry >= needed - tolerance, `${what}: expires ${needed - expiry} ms too early`)
  }
  return {
    'keeps a record as long as it matters, and a day more': async (bench) => {
      const now = Date.now()
      const lasting = {
        'a record': circuitRecord(),
        'a record with a far retryAt': circuitRecord({ state: 'OPEN', retryAt: now + 3_600_000 }),
        'a record with a long lease': circuitRecord({ leases: [{ id: 'lease', expiresAt: now + 900_000 }] }),
      }
      for (const [what, record] of Object.entries(lasting)) {
        const [key, batched, created] = [bench.key(), bench.key(), bench.key()]
        await bench.create(key, record)
        await expectKept(bench, key, what)
        await bench.storage.incrementFailures(key, record.version, increment({ at: now + 30_000 }))
        await expectKept(bench, key, `${what}, after an increment`)
        await bench.storage.incrementFailures(created, undefined, increment())
        await expectKept(bench, created, 'a record that was created by an increment')
        await bench.storage.compareAndSetState(created, undefined, record)
        await expectKept(bench, created, `${what}, after a replace`)
        await bench.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
        await expectKept(bench, batched, `${what}, written in a batch`)
      }
    },

    'never forgets an override': async (bench) => {
      const [key, batched] = [bench.key(), bench.key()]
      const record = circuitRecord({ override: { state: 'OPEN', at: Date.now() } })
      await bench.storage.incrementFailures(key, undefined, increment())
      await bench.storage.compareAndSetState(key, undefined, record)
      await expectKept(bench, key, 'a record with an override')
      await bench.storage.incrementFailures(key, record.version, increment())
      await expectKept(bench, key, 'a record with an override, after an increment')
      await bench.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
      await expectKept(bench, batched, 'a record with an override, written in a batch')
    },
  }
}

/** One case's adapter, its sizes and the service keys that it uses. */
class Bench {
  readonly storage: ICircuitStorage
  readonly maxBatch: number
  readonly parallelWrites: number
  readonly rememberedIncrements: number
  readonly #keys = new Set<string>()

  constructor(storage: ICircuitStorage, sizes: Pick<Bench, 'maxBatch' | 'parallelWrites' | 'rememberedIncrements'>) {
    this.storage = storage
    this.maxBatch = sizes.maxBatch
    this.parallelWrites = sizes.parallelWrites
    this.rememberedIncrements = sizes.rememberedIncrements
  }

  /** A service key that nothing is stored for. */
  key(): string {
    return this.own(`suite-${randomUUID()}`)
  }

  /** Has a service key cleared at the end. */
  own(key: string): string {
    this.#keys.add(key)
    return key
  }

  async create(key: string, record: CircuitRecord = circuitRecord()): Promise<CircuitRecord> {
    const result = await this.storage.compareAndSetState(key, undefined, record)
    expectApplied(result, record, 'a create')
    return record
  }

  /** A circuit that was counted in and never replaced: its record has no version. */
  async unversioned(key: string = this.key()): Promise<{ key: string; record: CircuitRecord }> {
    const first = increment()
    const result = await this.storage.incrementFailures(key, undefined, first)
    const record = counted(emptyRecord(first.id, first.at), first)
    expectApplied(result, record, 'the first increment')
    return { key, record }
  }

  /** A circuit that was deleted, and the epoch that it had. */
  async deleted(): Promise<{ key: string; epoch: string }> {
    const { key, record } = await this.unversioned()
    await this.storage.clearState(key)
    return { key, epoch: record.epoch }
  }

  /** A circuit that was deleted and grew again, and the epoch that it had before. */
  async regrown(): Promise<{ key: string; epoch: string; record: CircuitRecord }> {
    const { key, epoch } = await this.deleted()
    return { ...(await this.unversioned(key)), epoch }
  }

  async expectRoundTrip(record: CircuitRecord, what: string): Promise<void> {
    const [key, batched] = [this.key(), this.key()]
    expectApplied(await this.storage.compareAndSetState(key, undefined, record), record, what)
    await this.expectStored(key, record, what)
    const refused = await this.storage.compareAndSetState(key, randomUUID(), circuitRecord())
    expectRefused(refused, record, `${what}, returned by a refused write`)
    const results = await this.storage.batchSetState([{ serviceKey: batched, version: undefined, next: record }])
    expectApplied(results.get(batched), record, `${what}, written in a batch`)
    await this.expectStored(batched, record, `${what}, written in a batch`)
  }

  /** Reads one by one and in a batch. */
  async expectStored(key: string, expected: CircuitRecord | undefined, what: string): Promise<void> {
    expectSame(await this.storage.getState(key), expected, `${what}: getState`)
    const found = await this.storage.batchGetState([key])
    assert.equal(found.has(key), expected !== undefined, `${what}: is the circuit in the map of batchGetState?`)
    expectSame(found.get(key), expected, `${what}: batchGetState`)
  }

  /** Leaves nothing behind; a case that failed has said why, so this does not. */
  async clear(): Promise<void> {
    try {
      await this.storage.batchClearState([...this.#keys])
    } catch {}
  }
}

/** What a store that keeps the contract would answer. */
class ContractModel {
  readonly #records = new Map<string, CircuitRecord>()
  readonly #increments = new Set<string>()

  get(serviceKey: string): CircuitRecord | undefined {
    return this.#records.get(serviceKey)
  }

  increment(serviceKey: string, version: ExpectedVersion, added: FailureIncrement): WriteResult {
    const current = this.#records.get(serviceKey)
    if (!this.#isExpected(current, version, added.epoch)) return { applied: false, current }
    if (this.#increments.has(added.id)) return { applied: true, current }
    this.#increments.add(added.id)
    return this.#store(serviceKey, counted(current ?? emptyRecord(added.id, added.at), added))
  }

  replace({ serviceKey, version, next, epoch }: CompareAndSet): WriteResult {
    const current = this.#records.get(serviceKey)
    return this.#isExpected(current, version, epoch) ? this.#store(serviceKey, next) : { applied: false, current }
  }

  clear(serviceKey: string): void {
    this.#records.delete(serviceKey)
  }

  #isExpected(current: CircuitRecord | undefined, version: ExpectedVersion, epoch: string | undefined): boolean {
    return current?.version === version && (epoch === undefined || current?.epoch === epoch)
  }

  #store(serviceKey: string, current: CircuitRecord): WriteResult {
    this.#records.set(serviceKey, current)
    return { applied: true, current }
  }
}

const operations = [
  'getState',
  'batchGetState',
  'incrementFailures',
  'compareAndSetState',
  'batchSetState',
  'clearState',
  'batchClearState',
] as const satisfies StorageOperation[]

/** Each is appended to one token, so that those which an adapter wrongly takes for the same collide. */
const oddKeys = [
  '',
  ' ',
  '#b',
  '##b',
  '%23b',
  '\\#b',
  ':b',
  '/b',
  '{b}',
  'b*',
  'B',
  'b',
  'é',
  'e\u0301',
  '💳',
  '__proto__',
  'a b',
  "'b'",
  '"b"',
]

function increment(overrides: Partial<FailureIncrement> = {}): FailureIncrement {
  return { count: 1, at: Date.now(), id: randomUUID(), ...overrides }
}

/** What an increment makes of a record. */
function counted(record: CircuitRecord, { count, at }: FailureIncrement): CircuitRecord {
  return { ...record, failureCount: record.failureCount + count, lastFailureAt: at, updatedAt: at }
}

function fullRecord(): CircuitRecord {
  const now = Date.now()
  return circuitRecord({
    state: 'HALF_OPEN',
    generation: 7,
    failureCount: 5,
    lastFailureAt: now - 1_000,
    successCount: 2,
    openedAt: now - 20_000,
    retryAt: now - 10_000,
    resetTimeout: 10_000,
    leases: [
      { id: randomUUID(), expiresAt: now + 30_000 },
      { id: randomUUID(), expiresAt: now + 31_000 },
    ],
    trips: 3,
    lastFailure: { at: now - 1_000, name: 'TimeoutError', code: 'ETIMEDOUT', status: 503 },
    override: { state: 'OPEN', at: now - 500, until: now + 60_000 },
    transitions: Array.from({ length: 8 }, () => randomUUID()),
    updatedAt: now,
  })
}

async function expectApart(bench: Bench, keys: readonly string[]): Promise<void> {
  const records = new Map<string, CircuitRecord>()
  for (const key of keys) records.set(key, await bench.create(key))
  const found = await bench.storage.batchGetState(keys)
  assert.equal(found.size, keys.length, 'batchGetState must find every circuit under its own key')
  for (const [key, record] of records) {
    const what = `the circuit ${JSON.stringify(key)}`
    expectSame(found.get(key), record, what)
    const added = increment()
    expectApplied(await bench.storage.incrementFailures(key, record.version, added), counted(record, added), what)
    await bench.expectStored(key, counted(record, added), what)
  }
  const writes = keys.map((serviceKey) => ({ serviceKey, version: undefined, next: circuitRecord() }))
  assert.deepEqual([...(await bench.storage.batchSetState(writes)).keys()].sort(), [...keys].sort())
}

async function expectOneWinner(
  bench: Bench,
  key: string,
  contenders: readonly CircuitRecord[],
  results: readonly (WriteResult | undefined)[],
): Promise<void> {
  const winners = contenders.filter((_, index) => results[index]?.applied)
  assert.equal(winners.length, 1, `${winners.length} of ${contenders.length} parallel replaces of one version won`)
  const [winner] = winners
  await bench.expectStored(key, winner, 'the winner of parallel replaces')
  for (const [index, result] of results.entries()) {
    if (contenders[index] === winner) expectApplied(result, winner, 'the winner of parallel replaces')
    else expectRefused(result, winner, 'a loser of parallel replaces')
  }
}

function expectApplied(result: WriteResult | undefined, stored: CircuitRecord | undefined, what: string): void {
  expectResult(result, { applied: true, current: stored }, what)
}

function expectRefused(result: WriteResult | undefined, stored: CircuitRecord | undefined, what: string): void {
  expectResult(result, { applied: false, current: stored }, what)
}

function expectResult(result: WriteResult | undefined, expected: WriteResult, what: string): void {
  assert.ok(result, `${what}: there is no result`)
  assert.equal(result.applied, expected.applied, `${what}: must ${expected.applied ? '' : 'not '}be applied`)
  expectSame(result.current, expected.current, `${what}: current must be what is stored`)
}

/** Compares records as their readers see them, to whom an absent field and an undefined one are the same. */
function expectSame(actual: unknown, expected: unknown, what: string): void {
  const [found, wanted] = [plain(actual), plain(expected)]
  try {
    assert.deepEqual(found, wanted)
  } catch (error) {
    const message = `${what}\n${(error as Error).message}`
    throw new assert.AssertionError({ message, actual: found, expected: wanted, operator: 'deepStrictEqual' })
  }
}

/** A copy without undefined fields, made of this realm's objects: in jest `structuredClone` makes foreign ones. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return Array.from(value, plain)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.fromEntries(fields.map(([field, inner]) => [field, plain(inner)]))
}

function expectStorageError(error: unknown, operation: StorageOperation): asserts error is CircuitStorageError {
  assert.ok(isCircuitStorageError(error), `${operation} must reject with a CircuitStorageError, not with ${error}`)
  assert.equal(error.operation, operation, 'the error must name the operation')
}

/** Changes whatever can be changed, as deep as it goes. */
function vandalise(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  for (const inner of Object.values(value)) vandalise(inner)
  for (const field of Object.keys(value)) Reflect.set(value, field, 'vandalised')
  if (Array.isArray(value) && !Object.isFrozen(value)) value.push('vandalised')
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const inner of Object.values(value)) deepFreeze(inner)
  return Object.freeze(value)
}

/** Whole numbers below `limit`, the same for the same seed: mulberry32, https://github.com/bryc/code (PRNGs.md). */
function randomNumbers(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

function globalRunner(): StorageSuiteRunner {
  const { describe, it } = globalThis as Partial<StorageSuiteRunner>
  if (typeof describe === 'function' && typeof it === 'function') return { describe, it }
  throw new TypeError(
    'testCircuitStorage found no global describe and it. Import them from your test runner and pass them on: ' +
      'testCircuitStorage(name, createStorage, { runner: { describe, it } }).',
  )
}
