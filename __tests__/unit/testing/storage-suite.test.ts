import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import { CircuitStorageError, type StorageOperation } from '../../../src/errors.ts'
import type {
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  ICircuitStorage,
  JournalEntry,
  JournalQuery,
  ListQuery,
  Outcomes,
  WriteResult,
} from '../../../src/storage/contract.ts'
import { MemoryCircuitStorage } from '../../../src/storage/memory.ts'
import { emptyRecord, parseCircuitRecord } from '../../../src/storage/record.ts'
import { circuitRecord, type StorageSuiteOptions, testCircuitStorage } from '../../../src/testing/index.ts'
import { RemoteStorage, RemoteStore } from '../../support/remote-storage.ts'

testCircuitStorage('a correct adapter', ...fixture(RemoteStorage))

describe('the storage suite rejects an adapter that', () => {
  for (const [fault, [title, adapter]] of Object.entries(faults())) {
    it(`${fault} [${title}]`, async () => {
      const failures = await runOnly(title, ...fixture(adapter))
      expect([...failures.keys()]).toEqual([title])
    })
  }

  it('breaks any of its rules: every case is named by a fault above', () => {
    const named = new Set(Object.values(faults()).map(([title]) => title))
    const idle = collect(...fixture(RemoteStorage)).filter(({ title }) => !named.has(title))
    expect(idle.map(({ title }) => title)).toEqual([])
  })
})

describe('testCircuitStorage', () => {
  it('defines the cases under the name of the adapter', () => {
    const headings: string[] = []
    const runner = { describe: (name: string, define: () => void) => [headings.push(name), define()], it: () => {} }
    testCircuitStorage('MyStorage', () => new MemoryCircuitStorage(), { runner })
    expect(headings[0]).toBe('MyStorage')
  })

  it('leaves out the cases that need what it was not given', () => {
    const headings = (...suite: Parameters<typeof collect>) => new Set(collect(...suite).map(({ heading }) => heading))
    const some = headings(() => new MemoryCircuitStorage(), {})
    const optional = [...headings(...fixture(RemoteStorage))].filter((heading) => !some.has(heading))
    expect(optional).toEqual(['two instances', 'a damaged record', 'a store that is down', 'expiry'])
  })

  it('creates the adapter once per case and not before', async () => {
    let created = 0
    const cases = collect(() => {
      created += 1
      return new MemoryCircuitStorage()
    }, {})
    expect(created).toBe(0)
    for (const each of cases) await each.run()
    expect(created).toBe(cases.length)
  })

  it('passes on one store that keeps its circuits, and leaves nothing behind', async () => {
    const store = new RemoteStore()
    store.records.set('someone-elses', circuitRecord())
    const storage = new RemoteStorage(store)
    expect(await run(async () => storage, {})).toEqual(new Map())
    expect(await run(async () => storage, {})).toEqual(new Map())
    expect([...store.records.keys()]).toEqual(['someone-elses'])
  })

  it('takes an adapter that can be closed, and does not close it', async () => {
    let closed = false
    class Closable extends RemoteStorage {
      async close(): Promise<void> {
        closed = true
      }
    }
    expect(await run(...fixture(Closable))).toEqual(new Map())
    expect(closed).toBe(false)
  })

  it('takes an adapter that does not say whether it is shared', async () => {
    class Silent extends RemoteStorage {
      override readonly shared = undefined as never
    }
    expect(await run(...fixture(Silent))).toEqual(new Map())
  })

  it('takes an adapter that hands out a damaged record as it is', async () => {
    class Unchecked extends RemoteStorage {
      protected override check(operation: StorageOperation, service?: string): void {
        if (!this.store.damaged.has(service ?? '')) super.check(operation, service)
        else if (!this.store.records.has(service ?? '')) {
          this.store.records.set(service ?? '', {
            schema: 2,
            version: 'by hand',
            epoch: 'e',
          } as unknown as CircuitRecord)
        }
      }
    }
    expect(await run(...fixture(Unchecked))).toEqual(new Map())
  })

  it('takes stores with lower limits', async () => {
    class Small extends RemoteStorage {
      protected override isKnown(key: string, { id }: Outcomes): boolean {
        return this.store.additions.get(key)?.at(-1) === id
      }
      override async batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
        if (writes.length > 25) throw new Error('too many')
        return super.batchSetState(writes)
      }
    }
    const [create, options] = fixture(Small)
    const limits = { maxBatch: 25, rememberedAdditions: 1, parallelWrites: 2 }
    expect(await run(create, { ...options, ...limits })).toEqual(new Map())
  })

  it('names the seed of a history that failed, and repeats it', async () => {
    class Forgetful extends RemoteStorage {
      protected override isKnown = () => false
    }
    const title = 'any history › answers as the contract says, whatever happens in whatever order'
    const histories = new Set<string>()
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const [create, options] = fixture(Forgetful)
      const failure = (await runOnly(title, create, { ...options, seed: 7 })).get(title)
      histories.add(/step \d+ of the history with seed 7/.exec(String(failure))?.[0] ?? '')
    }
    expect(histories.size).toBe(1)
    expect([...histories][0]).not.toBe('')
  })

  it('says what differed, with both records', async () => {
    class Doubling extends RemoteStorage {
      protected override plus(record: CircuitRecord, outcomes: Outcomes): CircuitRecord {
        return super.plus(record, { ...outcomes, failures: outcomes.failures * 2 })
      }
    }
    const title = 'addOutcomes › counts outcomes that are sent twice once'
    const failure = (await runOnly(title, ...fixture(Doubling))).get(title)
    expect(failure).toMatchObject({
      name: 'AssertionError',
      actual: { failureCount: 4 },
      expected: { failureCount: 2 },
    })
    expect(String(failure)).toContain('an addition that is sent again did happen: current must be what is stored')
  })

  it('refuses what it cannot take', () => {
    const create = () => new MemoryCircuitStorage()
    expect(() => testCircuitStorage('x', create, { createPear: create } as never)).toThrow(
      'createPear is not an option of testCircuitStorage; did you mean createPeer? (testCircuitStorage)',
    )
    expect(() => testCircuitStorage('x', create, { runner: {}, maxBatch: '5', seed: 0.5 } as never)).toThrow(
      /runner must be an object with describe and it.*maxBatch must be.*seed must be/s,
    )
    expect(() => testCircuitStorage('x', create() as never)).toThrow(
      'createStorage must be a function, but is an object',
    )
  })

  it('asks for a runner where there is none', () => {
    const globals = globalThis as { describe?: unknown; it?: unknown }
    const kept = { describe: globals.describe, it: globals.it }
    try {
      globals.it = undefined
      expect(() => testCircuitStorage('x', () => new MemoryCircuitStorage())).toThrow(/no global describe and it/)
      globals.describe = undefined
      expect(() => testCircuitStorage('x', () => new MemoryCircuitStorage())).toThrow(TypeError)
    } finally {
      Object.assign(globals, kept)
    }
  })

  it('runs under node:test', async () => {
    const file = fileURLToPath(new URL('../../support/storage-suite.node-test.ts', import.meta.url))
    const { NODE_OPTIONS: _, ...env } = process.env
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--experimental-strip-types', '--test', '--test-reporter=tap', file],
      { env },
    )
    expect(stdout).toMatch(/^# fail 0$/m)
    expect(Number(/^# pass (\d+)$/m.exec(stdout)?.[1])).toBe(collect(() => new MemoryCircuitStorage(), {}).length)
  })
})

describe('circuitRecord', () => {
  it('builds a valid record with a new version and epoch', () => {
    const record = circuitRecord()
    expect(parseCircuitRecord('stripe', record, 'getState')).toEqual(record)
    expect(circuitRecord().version).not.toBe(record.version)
    expect(circuitRecord().epoch).not.toBe(record.epoch)
  })

  it('takes any field', () => {
    expect(circuitRecord({ version: 'v1', failureCount: 2 })).toMatchObject({ version: 'v1', failureCount: 2 })
  })
})

type Adapter = new (store: RemoteStore) => ICircuitStorage

/** What `testCircuitStorage` takes, with every capability. */
function fixture(Adapter: Adapter): [create: () => ICircuitStorage, options: StorageSuiteOptions] {
  const [store, down] = [new RemoteStore(), new RemoteStore()]
  down.down = true
  const options = {
    seed: 1,
    maxBatch: 120,
    parallelWrites: 8,
    createPeer: () => new Adapter(store),
    createUnreachable: () => new Adapter(down),
    damage: (key: string) => store.damaged.add(key),
    expiresAt: (key: string) => store.expiries.get(key),
  }
  return [() => new Adapter(store), options]
}

interface CollectedCase {
  readonly heading: string
  readonly title: string
  readonly run: () => Promise<void>
}

/** The smallest test runner. */
function collect(
  create: () => ICircuitStorage | Promise<ICircuitStorage>,
  options: StorageSuiteOptions,
): CollectedCase[] {
  const cases: CollectedCase[] = []
  let heading = ''
  const runner = {
    describe: (name: string, define: () => void) => {
      heading = name
      define()
    },
    it: (title: string, body: () => Promise<void>) => {
      cases.push({ heading, title: `${heading} › ${title}`, run: body })
    },
  }
  testCircuitStorage('suite', create, { ...options, runner })
  return cases
}

/** Runs all cases; resolves to the errors of those that fail, by their titles. */
function run(...suite: Parameters<typeof collect>): Promise<Map<string, unknown>> {
  return failuresOf(collect(...suite))
}

/** Each case has an adapter of its own, so that one can be run without the others. */
function runOnly(title: string, ...suite: Parameters<typeof collect>): Promise<Map<string, unknown>> {
  return failuresOf(collect(...suite).filter((each) => each.title === title))
}

async function failuresOf(cases: readonly CollectedCase[]): Promise<Map<string, unknown>> {
  const failures = new Map<string, unknown>()
  for (const each of cases) {
    try {
      await each.run()
    } catch (error) {
      failures.set(each.title, error)
    }
  }
  return failures
}

/** Each adapter breaks one rule; the case that is named beside it must notice. */
function faults(): Record<string, [title: string, adapter: Adapter]> {
  return {
    'lacks a method': [
      'the adapter › has every method of the contract',
      class extends RemoteStorage {
        override batchClearState = undefined as never
      },
    ],
    'has a close that is no method': [
      'the adapter › has every method of the contract',
      class extends RemoteStorage {
        close = true as never
      },
    ],
    'says neither yes nor no to whether it is shared': [
      'the adapter › has every method of the contract',
      class extends RemoteStorage {
        override readonly shared = 'yes' as never
      },
    ],
    'makes up a record for a circuit that nothing is stored for': [
      'reading › knows nothing of a circuit that was never written',
      class extends RemoteStorage {
        override async getState(key: string) {
          return (await super.getState(key)) ?? emptyRecord('', 0)
        }
      },
    ],
    'drops circuits from a batch': [
      'reading › reads what was written, one by one and in a batch',
      class extends RemoteStorage {
        override async batchGetState() {
          return new Map<string, CircuitRecord>()
        }
      },
    ],
    'returns absent circuits of a batch as undefined': [
      'reading › leaves absent circuits out of a batch',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          const found = await super.batchGetState(keys)
          return new Map(keys.map((key) => [key, found.get(key) as CircuitRecord]))
        }
      },
    ],
    'rejects a batch that names a circuit twice': [
      'reading › reads a circuit that is asked for twice once',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          if (new Set(keys).size < keys.length) throw new Error('Provided list of item keys contains duplicates')
          return super.batchGetState(keys)
        }
      },
    ],
    'rejects an empty batch': [
      'reading › does nothing when it is given nothing',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          if (writes.length === 0) throw new Error('Member must have length greater than or equal to 1')
          return super.batchSetState(writes)
        }
      },
    ],
    'reads the first 100 circuits of a batch': [
      'reading › takes batches beyond the limits of its backend',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          return super.batchGetState(keys.slice(0, 100))
        }
      },
    ],
    'writes the first 100 circuits of a batch': [
      'reading › takes batches beyond the limits of its backend',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          return super.batchSetState(writes.slice(0, 100))
        }
      },
    ],
    'deletes the first 100 circuits of a batch': [
      'reading › takes batches beyond the limits of its backend',
      class extends RemoteStorage {
        override async batchClearState(keys: readonly string[]) {
          return super.batchClearState(keys.slice(0, 100))
        }
      },
    ],
    'reads from a replica that lags behind': [
      'reading › sees every write as soon as it is acknowledged',
      class extends RemoteStorage {
        readonly #previous = new Map<string, CircuitRecord | undefined>()
        protected override write(key: string, next: CircuitRecord) {
          this.#previous.set(key, this.store.records.get(key))
          return super.write(key, next)
        }
        override async getState(key: string) {
          return this.#previous.get(key) ?? super.getState(key)
        }
      },
    ],
    'acknowledges a write before it is done': [
      'reading › sees every write as soon as it is acknowledged',
      class extends RemoteStorage {
        protected override write(key: string, next: CircuitRecord) {
          const record = structuredClone(next)
          setImmediate(() => super.write(key, record))
          return { applied: true, current: next }
        }
      },
    ],
    'forgets a field': [
      'what is stored › keeps every field',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return { ...super.takeIn(record), transitions: [] }
        }
      },
    ],
    'returns what is absent as null': [
      'what is stored › keeps a record that has only what it must',
      class extends RemoteStorage {
        protected override handOut(record: CircuitRecord | undefined) {
          const nulls = (_: string, value: unknown) => (value === undefined ? null : value)
          return record && JSON.parse(JSON.stringify(record, nulls))
        }
      },
    ],
    'fills in what is absent inside a record': [
      'what is stored › keeps what is optional inside a record absent',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          const { lastFailure } = record
          return super.takeIn({ ...record, lastFailure: lastFailure && { code: '', ...lastFailure } })
        }
      },
    ],
    'takes zero for nothing': [
      'what is stored › tells zero and the empty text from nothing',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return super.takeIn({ ...record, retryAt: record.retryAt || undefined })
        }
      },
    ],
    'keeps 14 digits of a number, as Lua does': [
      'what is stored › keeps large numbers exact',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return super.takeIn({ ...record, failureCount: Number(record.failureCount.toPrecision(14)) })
        }
      },
    ],
    'keeps fractions as 32-bit floats': [
      'what is stored › keeps fractions exact',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return super.takeIn({ ...record, dismissals: Math.fround(record.dismissals) })
        }
      },
    ],
    'keeps nine decimal places of a number': [
      'what is stored › keeps fractions exact',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return super.takeIn({ ...record, pace: record.pace && Number(record.pace.toFixed(9)) })
        }
      },
    ],
    'keeps text as Latin-1': [
      'what is stored › keeps any text',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return super.takeIn({ ...record, epoch: Buffer.from(record.epoch, 'latin1').toString('latin1') })
        }
      },
    ],
    'folds the case of service keys': [
      'what is stored › keeps circuits with similar keys apart',
      class extends RemoteStorage {
        protected override nameOf(key: string) {
          return key.toLowerCase()
        }
      },
    ],
    'does not escape # in service keys': [
      'what is stored › keeps circuits with similar keys apart',
      class extends RemoteStorage {
        protected override nameOf(key: string) {
          return key.split('#').filter(Boolean).join('#')
        }
      },
    ],
    'cuts long service keys': [
      'what is stored › keeps circuits with similar keys apart',
      class extends RemoteStorage {
        protected override check(operation: StorageOperation, key?: string) {
          super.check(operation, key)
          if (key && key.length > 255) throw new Error('key too long')
        }
      },
    ],
    'collects a batch in a plain object': [
      'what is stored › takes service keys that name members of Object.prototype',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          const found: Record<string, CircuitRecord> = {}
          for (const [key, record] of await super.batchGetState(keys)) found[key] = record
          return new Map(Object.entries(found))
        }
      },
    ],
    'adds one, whatever it is given': [
      'addOutcomes › adds to each count, and leaves the version and every other field alone',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return super.plus(record, { ...outcomes, failures: 1 })
        }
      },
    ],
    'mistakes one count for another': [
      'addOutcomes › adds to each count, and leaves the version and every other field alone',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return super.plus(record, { ...outcomes, early: outcomes.started, started: outcomes.early })
        }
      },
    ],
    'dates the last failure': [
      'addOutcomes › adds to each count, and leaves the version and every other field alone',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return { ...super.plus(record, outcomes), lastFailureAt: outcomes.at }
        }
      },
    ],
    'takes nothing for one': [
      'addOutcomes › adds nothing where it is given 0',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return super.plus(record, { ...outcomes, failures: outcomes.failures || 1 })
        }
      },
    ],
    'skips outcomes without a failure': [
      'addOutcomes › adds nothing where it is given 0',
      class extends RemoteStorage {
        protected override add(key: string, current: CircuitRecord, outcomes: Outcomes) {
          if (outcomes.failures === 0) return { applied: true, current: this.handOut(current) }
          return super.add(key, current, outcomes)
        }
      },
    ],
    'draws a new version for an addition': [
      'addOutcomes › adds to each count, and leaves the version and every other field alone',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return { ...super.plus(record, outcomes), version: outcomes.id }
        }
      },
    ],
    'drops an override at an addition': [
      'addOutcomes › adds to each count, and leaves the version and every other field alone',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return { ...super.plus(record, outcomes), override: undefined }
        }
      },
    ],
    'dates additions by its own clock': [
      'addOutcomes › takes the time from the outcomes, not from its own clock',
      class extends RemoteStorage {
        protected override plus(record: CircuitRecord, outcomes: Outcomes) {
          return super.plus(record, { ...outcomes, at: Date.now() })
        }
      },
    ],
    'loses updates: reads, waits, then writes the sum': [
      'addOutcomes › adds up exactly when many arrive at once',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const current = await this.getState(key)
          return current?.version === version ? this.add(key, current, outcomes) : this.refuse(current)
        }
      },
    ],
    'refuses an addition when another one was faster': [
      'addOutcomes › adds up exactly when many arrive at once',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const before = await this.getState(key)
          const current = this.store.records.get(key)
          if (before?.failureCount !== current?.failureCount) return this.refuse(current)
          return super.addOutcomes(key, version, outcomes)
        }
      },
    ],
    'adds to whatever version is stored': [
      'addOutcomes › refuses a version that is not the stored one',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          return super.addOutcomes(key, this.store.records.get(key)?.version ?? version, outcomes)
        }
      },
    ],
    'creates a record for an addition': [
      'addOutcomes › creates nothing',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          if (this.store.records.has(key)) return super.addOutcomes(key, version, outcomes)
          return this.add(key, emptyRecord(version, outcomes.at), outcomes)
        }
      },
    ],
    'ignores the ids of additions': [
      'addOutcomes › counts outcomes that are sent twice once',
      class extends RemoteStorage {
        protected override isKnown = () => false
      },
    ],
    'answers an addition that is sent again as refused': [
      'addOutcomes › counts outcomes that are sent twice once',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          if (this.isKnown(key, outcomes)) return this.refuse(this.store.records.get(key))
          return super.addOutcomes(key, version, outcomes)
        }
      },
    ],
    'looks an id up, waits, then counts': [
      'addOutcomes › counts outcomes that are sent twice at once only once',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const known = this.isKnown(key, outcomes)
          await undefined
          const current = this.store.records.get(key)
          if (known || current?.version !== version) return super.addOutcomes(key, version, outcomes)
          return this.add(key, current, outcomes)
        }
      },
    ],
    'remembers the latest id only': [
      'addOutcomes › recognises an addition among later ones',
      class extends RemoteStorage {
        protected override isKnown(key: string, { id }: Outcomes) {
          return this.store.additions.get(key)?.at(-1) === id
        }
      },
    ],
    'knows additions by their time, not by their id': [
      'addOutcomes › counts equal outcomes with different ids',
      class extends RemoteStorage {
        protected override isKnown(key: string, { at }: Outcomes) {
          return this.store.records.get(key)?.updatedAt === at
        }
      },
    ],
    'answers a create with nothing': [
      'compareAndSetState › creates a record where nothing is stored',
      class extends RemoteStorage {
        protected override write(key: string, next: CircuitRecord) {
          const existed = this.store.records.has(key)
          const result = super.write(key, next)
          return existed ? result : { applied: true, current: undefined }
        }
      },
    ],
    'creates a record for a replace that names a version': [
      'compareAndSetState › refuses a version where nothing is stored',
      class extends RemoteStorage {
        protected override matches(current: CircuitRecord | undefined, version: ExpectedVersion) {
          return !current || super.matches(current, version)
        }
      },
    ],
    'keeps the version that was stored': [
      'compareAndSetState › replaces the stored version',
      class extends RemoteStorage {
        protected override merged(current: CircuitRecord | undefined, next: CircuitRecord) {
          return { ...next, version: current?.version ?? next.version }
        }
      },
    ],
    'draws versions of its own': [
      'compareAndSetState › replaces the stored version',
      class extends RemoteStorage {
        protected override merged(_: CircuitRecord | undefined, next: CircuitRecord) {
          return { ...next, version: `own ${next.version}` }
        }
      },
    ],
    'answers with the record before the write': [
      'compareAndSetState › replaces the stored version',
      class extends RemoteStorage {
        protected override write(key: string, next: CircuitRecord) {
          const before = this.store.records.get(key)
          return { applied: super.write(key, next).applied, current: this.handOut(before) }
        }
      },
    ],
    'writes without a condition': [
      'compareAndSetState › refuses a version that is not the stored one',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, _: ExpectedVersion, next: CircuitRecord) {
          return super.compareAndSetState(key, this.store.records.get(key)?.version, next)
        }
      },
    ],
    'refuses without the stored record': [
      'compareAndSetState › refuses a version that is not the stored one',
      class extends RemoteStorage {
        protected override refuse() {
          return { applied: false, current: undefined }
        }
      },
    ],
    'says that a refused write was applied': [
      'compareAndSetState › refuses a version that is not the stored one',
      class extends RemoteStorage {
        protected override refuse(current: CircuitRecord | undefined) {
          return { applied: true, current }
        }
      },
    ],
    'takes no version in a replace for any version': [
      'compareAndSetState › creates nothing where a record is stored',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          return super.compareAndSetState(key, version ?? this.store.records.get(key)?.version, next)
        }
      },
    ],
    'accepts the version before the last': [
      'compareAndSetState › refuses the version before the last',
      class extends RemoteStorage {
        readonly #versions = new Map<string, Set<ExpectedVersion>>()
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          const seen = this.#versions.get(key) ?? new Set()
          this.#versions.set(key, seen.add(next.version))
          const known = version !== undefined && seen.has(version)
          return super.compareAndSetState(key, known ? this.store.records.get(key)?.version : version, next)
        }
      },
    ],
    'stores no version as the text undefined': [
      'compareAndSetState › compares versions as text, for equality only',
      class extends RemoteStorage {
        protected override matches(current: CircuitRecord | undefined, version: ExpectedVersion) {
          return String(current?.version) === String(version)
        }
      },
    ],
    'compares versions as numbers': [
      'compareAndSetState › compares versions as text, for equality only',
      class extends RemoteStorage {
        protected override matches(current: CircuitRecord | undefined, version: ExpectedVersion) {
          return super.matches(current, version) || Number(current?.version) === Number(version)
        }
      },
    ],
    'keeps the failure count at a replace': [
      'compareAndSetState › replaces the counts, and later additions add to the new ones',
      class extends RemoteStorage {
        protected override merged(current: CircuitRecord | undefined, next: CircuitRecord) {
          return { ...next, failureCount: Math.max(next.failureCount, current?.failureCount ?? 0) }
        }
      },
    ],
    'merges instead of replacing': [
      'compareAndSetState › forgets what the next record does not have',
      class extends RemoteStorage {
        protected override merged(current: CircuitRecord | undefined, next: CircuitRecord) {
          const given = Object.entries(next).filter(([, value]) => value !== undefined)
          return { ...current, ...(Object.fromEntries(given) as unknown as CircuitRecord) }
        }
      },
    ],
    'compares, waits, then replaces': [
      'compareAndSetState › has exactly one winner when many compete',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          const current = await this.getState(key)
          return this.matches(current, version) ? this.write(key, next) : this.refuse(current)
        }
      },
    ],
    'lets no one win when many compete': [
      'compareAndSetState › has exactly one winner when many compete',
      class extends RemoteStorage {
        readonly #busy = new Map<string, number>()
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          this.#busy.set(key, (this.#busy.get(key) ?? 0) + 1)
          await undefined
          const alone = this.#busy.get(key) === 1
          await undefined
          this.#busy.delete(key)
          return alone ? super.compareAndSetState(key, version, next) : this.refuse(this.store.records.get(key))
        }
      },
    ],
    'adds to a version that was replaced': [
      'additions and replaces together › refuses an addition to a version that was replaced, whether or not it was counted before',
      class extends RemoteStorage {
        readonly #versions = new Map<string, Set<ExpectedVersion>>()
        protected override write(key: string, next: CircuitRecord) {
          this.#versions.set(key, (this.#versions.get(key) ?? new Set()).add(next.version))
          return super.write(key, next)
        }
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const stored = this.store.records.get(key)?.version
          const known = stored !== undefined && this.#versions.get(key)?.has(version)
          return super.addOutcomes(key, known ? stored : version, outcomes)
        }
      },
    ],
    'looks at the id before the version': [
      'additions and replaces together › refuses an addition to a version that was replaced, whether or not it was counted before',
      class extends RemoteStorage {
        readonly #ids = new Set<string>()
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const current = this.handOut(this.store.records.get(key))
          if (this.#ids.has(outcomes.id)) return { applied: true, current }
          const result = await super.addOutcomes(key, version, outcomes)
          if (result.applied) this.#ids.add(outcomes.id)
          return result
        }
      },
    ],
    'checks the version of an addition, waits, then adds to whatever is stored': [
      'additions and replaces together › lets no addition to the old version through to the new one',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const seen = await this.getState(key)
          const current = this.store.records.get(key)
          if (current && seen?.version === version && !this.isKnown(key, outcomes)) {
            return this.add(key, current, outcomes)
          }
          return super.addOutcomes(key, version, outcomes)
        }
      },
    ],
    'refuses a replace when an addition was faster': [
      'additions and replaces together › lets no addition to the old version through to the new one',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          const before = await this.getState(key)
          const current = this.store.records.get(key)
          if (before?.failureCount !== current?.failureCount) return this.refuse(current)
          return super.compareAndSetState(key, version, next)
        }
      },
    ],
    'writes back what it read when it refuses': [
      'additions and replaces together › keeps the additions that come after a replace',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          const current = await this.getState(key)
          if (!current || this.matches(current, version)) return super.compareAndSetState(key, version, next)
          await undefined
          return this.refuse(this.write(key, current).current)
        }
      },
    ],
    'answers for the circuits of a batch that it wrote only': [
      'batchSetState › checks the condition of each circuit by itself',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          return new Map([...(await super.batchSetState(writes))].filter(([, { applied }]) => applied))
        }
      },
    ],
    'answers for the first circuit of a batch only': [
      'batchSetState › writes several circuits with one result each',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          return new Map([...(await super.batchSetState(writes))].slice(0, 1))
        }
      },
    ],
    'writes a batch without conditions': [
      'batchSetState › checks the condition of each circuit by itself',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          return new Map(writes.map(({ serviceKey, next }) => [serviceKey, this.write(serviceKey, next)]))
        }
      },
    ],
    'writes all of a batch or nothing': [
      'batchSetState › checks the condition of each circuit by itself',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          const stored = (key: string) => this.store.records.get(key)
          if (writes.every(({ serviceKey, version }) => this.matches(stored(serviceKey), version))) {
            return super.batchSetState(writes)
          }
          return new Map(writes.map(({ serviceKey }) => [serviceKey, this.refuse(stored(serviceKey))]))
        }
      },
    ],
    'merges what a batch writes': [
      'batchSetState › replaces the whole record',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          return super.batchSetState(
            writes.map(({ serviceKey, version, next }) => {
              const override = next.override ?? this.store.records.get(serviceKey)?.override
              return { serviceKey, version, next: { ...next, override } }
            }),
          )
        }
      },
    ],
    'compares a batch, waits, then writes it': [
      'batchSetState › has exactly one winner per circuit when batches compete',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          const found = await this.batchGetState(writes.map(({ serviceKey }) => serviceKey))
          return this.each(
            'batchSetState',
            writes.map(({ serviceKey }) => serviceKey),
            async (key): Promise<WriteResult> => {
              const { version, next } = writes.find(({ serviceKey }) => serviceKey === key) as CompareAndSet
              return this.matches(found.get(key), version) ? this.write(key, next) : this.refuse(found.get(key))
            },
          )
        }
      },
    ],
    'deletes nothing': [
      'clearing › deletes one circuit and no other',
      class extends RemoteStorage {
        override async clearState() {}
      },
    ],
    'deletes everything': [
      'clearing › deletes several circuits and no other',
      class extends RemoteStorage {
        override async batchClearState() {
          this.store.records.clear()
        }
      },
    ],
    'rejects a batch that clears a circuit twice': [
      'clearing › deletes several circuits and no other',
      class extends RemoteStorage {
        override async batchClearState(keys: readonly string[]) {
          if (new Set(keys).size < keys.length) throw new Error('Provided list of item keys contains duplicates')
          return super.batchClearState(keys)
        }
      },
    ],
    'rejects the deletion of nothing': [
      'clearing › takes a circuit that does not exist',
      class extends RemoteStorage {
        override async clearState(key: string) {
          if (!this.store.records.has(key)) throw new Error('not found')
          return super.clearState(key)
        }
      },
    ],
    'keeps the version of what it deleted': [
      'clearing › leaves no version behind',
      class extends RemoteStorage {
        readonly #deleted = new Map<string, CircuitRecord | undefined>()
        override async clearState(key: string) {
          this.#deleted.set(key, this.store.records.get(key))
          return super.clearState(key)
        }
        protected override matches(current: CircuitRecord | undefined, version: ExpectedVersion) {
          const deleted = [...this.#deleted.values()].map((record) => record?.version)
          return super.matches(current, version) || (!current && deleted.includes(version))
        }
      },
    ],
    'empties a record instead of deleting it': [
      'clearing › deletes one circuit and no other',
      class extends RemoteStorage {
        override async clearState(key: string) {
          this.write(key, emptyRecord('cleared', Date.now()))
        }
      },
    ],
    'looks for the version before it deletes, and adds to what follows': [
      'clearing › lets no write of a deleted record through to the one that follows',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          if (!this.matches(await this.getState(key), version)) return super.addOutcomes(key, version, outcomes)
          await undefined
          return super.addOutcomes(key, this.store.records.get(key)?.version ?? version, outcomes)
        }
      },
    ],
    'compares, waits, then replaces whatever is stored': [
      'clearing › lets no write of a deleted record through to the one that follows',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          if (!this.matches(await this.getState(key), version)) return this.refuse(this.store.records.get(key))
          await undefined
          return super.compareAndSetState(key, this.store.records.get(key)?.version, next)
        }
      },
    ],
    'hands out what it keeps': [
      'who owns a record › is not changed through the records that it returns',
      class extends RemoteStorage {
        protected override handOut(record: CircuitRecord | undefined) {
          return record
        }
      },
    ],
    'hands out a shallow copy of what it keeps': [
      'who owns a record › is not changed through the records that it returns',
      class extends RemoteStorage {
        protected override handOut(record: CircuitRecord | undefined) {
          return record && { ...record }
        }
      },
    ],
    'keeps what it is given': [
      'who owns a record › is not changed through the records that it was given',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return record
        }
      },
    ],
    'sorts the service keys that it is given': [
      'who owns a record › does not change what it is given',
      class extends RemoteStorage {
        override async batchClearState(keys: string[]) {
          return super.batchClearState(keys.sort())
        }
        override async batchGetState(keys: string[]) {
          return super.batchGetState(keys.reverse())
        }
      },
    ],
    'writes into what it is given': [
      'who owns a record › takes frozen arguments',
      class extends RemoteStorage {
        protected override takeIn(record: CircuitRecord) {
          return structuredClone(Object.assign(record, { ttl: undefined }))
        }
      },
    ],
    'adds to a record that it has handed out': [
      'who owns a record › does not change a record that it has returned',
      class extends RemoteStorage {
        protected override handOut(record: CircuitRecord | undefined) {
          return record
        }
        protected override add(key: string, current: CircuitRecord, outcomes: Outcomes) {
          return this.write(key, Object.assign(current, this.plus(current, outcomes)))
        }
      },
    ],
    'loses the count at every fifth write': [
      'any history › answers as the contract says, whatever happens in whatever order',
      class extends RemoteStorage {
        #writes = 0
        protected override takeIn(record: CircuitRecord) {
          this.#writes += 1
          return { ...super.takeIn(record), failureCount: this.#writes % 5 === 0 ? 0 : record.failureCount }
        }
      },
    ],
    'calls itself unshared although it has peers': [
      'two instances › does not call itself unshared',
      class extends RemoteStorage {
        override readonly shared = false
      },
    ],
    'is shared with no one': [
      'two instances › reads what the other one wrote',
      class extends RemoteStorage {
        constructor({ down }: RemoteStore) {
          super(Object.assign(new RemoteStore(), { down }))
        }
      },
    ],
    'guards additions by a lock of its own': [
      'two instances › adds up the outcomes of both',
      class extends RemoteStorage {
        #lock: Promise<unknown> = Promise.resolve()
        override addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const result = this.#lock.then(async (): Promise<WriteResult> => {
            const current = await this.getState(key)
            if (current?.version !== version || this.isKnown(key, outcomes)) {
              return super.addOutcomes(key, version, outcomes)
            }
            await undefined
            return this.add(key, current, outcomes)
          })
          this.#lock = result.catch(() => {})
          return result
        }
      },
    ],
    'guards replaces by a lock of its own': [
      'two instances › lets one of both win',
      class extends RemoteStorage {
        #lock: Promise<unknown> = Promise.resolve()
        override compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          const result = this.#lock.then(async (): Promise<WriteResult> => {
            const current = await this.getState(key)
            return this.matches(current, version) ? this.write(key, next) : this.refuse(current)
          })
          this.#lock = result.catch(() => {})
          return result
        }
      },
    ],
    'remembers ids in the instance': [
      'two instances › counts outcomes that both send once',
      class extends RemoteStorage {
        readonly #ids = new Map<string, Set<string>>()
        protected override isKnown(key: string, { id }: Outcomes) {
          return this.#ids.get(key)?.has(id) ?? false
        }
        protected override add(key: string, current: CircuitRecord, outcomes: Outcomes) {
          this.#ids.set(key, (this.#ids.get(key) ?? new Set()).add(outcomes.id))
          return super.add(key, current, outcomes)
        }
      },
    ],
    'takes a damaged record for none': [
      'a damaged record › is noticed by a read',
      class extends RemoteStorage {
        override async getState(key: string) {
          return this.store.damaged.has(key) ? undefined : super.getState(key)
        }
      },
    ],
    'hands out a sound record where there is a damaged one': [
      'a damaged record › is noticed by a read',
      class extends RemoteStorage {
        override async getState(key: string) {
          return this.store.damaged.has(key) ? emptyRecord('e', 0) : super.getState(key)
        }
      },
    ],
    'does not call damage corrupt': [
      'a damaged record › is noticed by a read',
      class extends RemoteStorage {
        protected override check(operation: StorageOperation, service?: string) {
          if (!this.store.damaged.has(service ?? '')) return super.check(operation, service)
          throw new CircuitStorageError('unreadable', { operation, service })
        }
      },
    ],
    'overwrites a damaged record': [
      'a damaged record › is noticed by a write, and left as it is',
      class extends RemoteStorage {
        override async compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord) {
          if (!this.store.damaged.delete(key)) return super.compareAndSetState(key, version, next)
          return this.write(key, next)
        }
      },
    ],
    'repairs a damaged record and rejects': [
      'a damaged record › is noticed by a write, and left as it is',
      class extends RemoteStorage {
        override async addOutcomes(key: string, version: string, outcomes: Outcomes) {
          const result = super.addOutcomes(key, version, outcomes)
          this.store.damaged.delete(key)
          return result
        }
      },
    ],
    'fails a whole batch for one damaged record': [
      'a damaged record › fails alone in a batch',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          for (const key of keys) this.check('batchGetState', key)
          return super.batchGetState(keys)
        }
      },
    ],
    'keeps the rest of a batch with a damaged record to itself': [
      'a damaged record › fails alone in a batch',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          return super.batchGetState(keys).catch(({ message, errors }: CircuitStorageError) => {
            throw new CircuitStorageError(message, { operation: 'batchGetState', ...(errors && { errors }) })
          })
        }
      },
    ],
    'leaves a damaged record out of a batch': [
      'a damaged record › fails alone in a batch',
      class extends RemoteStorage {
        override async batchGetState(keys: readonly string[]) {
          return super.batchGetState(keys.filter((key) => !this.store.damaged.has(key)))
        }
      },
    ],
    'writes nothing of a batch with a damaged record': [
      'a damaged record › fails alone in a batch',
      class extends RemoteStorage {
        override async batchSetState(writes: readonly CompareAndSet[]) {
          for (const { serviceKey } of writes) this.check('batchSetState', serviceKey)
          return super.batchSetState(writes)
        }
      },
    ],
    'cannot delete a damaged record': [
      'a damaged record › can be cleared',
      class extends RemoteStorage {
        override async clearState(key: string) {
          this.check('clearState', key)
          return super.clearState(key)
        }
      },
    ],
    'lets errors of its client through': [
      'a store that is down › makes every method reject with a CircuitStorageError that names it',
      class extends RemoteStorage {
        protected override check(operation: StorageOperation, service?: string) {
          if (this.store.down) throw new Error('ECONNREFUSED')
          super.check(operation, service)
        }
      },
    ],
    'names another operation in its errors': [
      'a store that is down › makes every method reject with a CircuitStorageError that names it',
      class extends RemoteStorage {
        override async batchClearState(keys: readonly string[]) {
          for (const key of keys) await this.clearState(key)
        }
      },
    ],
    'takes a store that is down for an empty one': [
      'a store that is down › makes every method reject with a CircuitStorageError that names it',
      class extends RemoteStorage {
        override async getState(key: string) {
          return this.store.down ? undefined : super.getState(key)
        }
      },
    ],
    'calls a store that is down corrupt': [
      'a store that is down › makes every method reject with a CircuitStorageError that names it',
      class extends RemoteStorage {
        protected override check(operation: StorageOperation, service?: string) {
          if (this.store.down) throw new CircuitStorageError('no answer', { operation, service, corrupt: true })
          super.check(operation, service)
        }
      },
    ],
    'forgets every record two days after its last write': [
      'expiry › keeps a record for two days after the last instant in it',
      class extends RemoteStorage {
        protected override expiryOf(record: CircuitRecord) {
          return record.override ? undefined : record.updatedAt + 172_800_000
        }
      },
    ],
    'shortens the life of a record at an addition': [
      'expiry › keeps a record for two days after the last instant in it',
      class extends RemoteStorage {
        protected override add(key: string, current: CircuitRecord, outcomes: Outcomes) {
          const result = super.add(key, current, outcomes)
          if (!current.override) this.store.expiries.set(key, outcomes.at + 172_860_000)
          return result
        }
      },
    ],
    'forgets an override': [
      'expiry › never forgets an override',
      class extends RemoteStorage {
        protected override expiryOf(record: CircuitRecord) {
          return super.expiryOf({ ...record, override: undefined })
        }
      },
    ],
    'lets an addition give an overridden record an end': [
      'expiry › never forgets an override',
      class extends RemoteStorage {
        protected override add(key: string, current: CircuitRecord, outcomes: Outcomes) {
          const result = super.add(key, current, outcomes)
          const expiry = this.store.expiries.get(key) ?? 0
          this.store.expiries.set(key, Math.max(expiry, outcomes.at + 172_860_000))
          return result
        }
      },
    ],
    'keeps a journal that nobody can read': [
      'journal and list › has both methods of a journal or neither',
      class extends RemoteStorage {
        override readJournal = undefined as never
      },
    ],
    'drops a field of an entry': [
      'journal and list › keeps every field of an entry',
      class extends RemoteStorage {
        protected override keep(key: string, [{ why: _, ...latest }, ...others]: [JournalEntry, ...JournalEntry[]]) {
          super.keep(key, [latest, ...others])
        }
      },
    ],
    'reads the oldest entries': [
      'journal and list › reads the latest entries first, no more than it is asked for, and none before',
      class extends RemoteStorage {
        override async readJournal(key: string, query: JournalQuery = {}) {
          const entries = await super.readJournal(key, { ...query, limit: 1_000 })
          return entries.slice(-(query.limit ?? 50))
        }
      },
    ],
    'reads entries from before it is asked for': [
      'journal and list › reads the latest entries first, no more than it is asked for, and none before',
      class extends RemoteStorage {
        override async readJournal(key: string, { limit }: JournalQuery = {}) {
          return super.readJournal(key, { limit })
        }
      },
    ],
    'keeps ten entries': [
      'journal and list › keeps the last 50 entries',
      class extends RemoteStorage {
        protected override keep(key: string, entries: readonly JournalEntry[]) {
          super.keep(key, entries.slice(0, 10))
        }
      },
    ],
    'reads a journal and writes it later': [
      'journal and list › loses no entry that comes at the same time as others',
      class extends RemoteStorage {
        override async appendJournal(key: string, entry: JournalEntry) {
          const entries = this.entriesOf(key)
          await null
          this.keep(key, [entry, ...entries].slice(0, 50))
        }
      },
    ],
    'deletes the journal with the record': [
      'journal and list › keeps journals apart from each other and from records',
      class extends RemoteStorage {
        protected override forget(key: string) {
          super.forget(key)
          this.store.journals.delete(key)
        }
      },
    ],
    'has one journal for all circuits': [
      'journal and list › keeps journals apart from each other and from records',
      class extends RemoteStorage {
        protected override entriesOf() {
          return super.entriesOf('all').filter(({ service }) => service === 'suite')
        }
        protected override keep(_key: string, entries: readonly JournalEntry[]) {
          super.keep('all', entries)
        }
      },
    ],
    'lists the first page again and ends': [
      'journal and list › lists circuits page by page, each that has an entry',
      class extends RemoteStorage {
        override async listCircuits(query: ListQuery = {}) {
          const { keys } = await super.listCircuits({ ...query, cursor: '' })
          return { keys }
        }
      },
    ],
    'lists circuits of other namespaces': [
      'journal and list › lists circuits page by page, each that has an entry',
      class extends RemoteStorage {
        override async listCircuits({ prefix: _, ...query }: ListQuery = {}) {
          return super.listCircuits(query)
        }
      },
    ],
    'keeps the journals of a store that is down': [
      'a store that is down › makes every method reject with a CircuitStorageError that names it',
      class extends RemoteStorage {
        override async appendJournal() {}
      },
    ],
  }
}
