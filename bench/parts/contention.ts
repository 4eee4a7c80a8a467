/** Many instances whose calls fail at once on one key: how soon the circuit is open, and what the store is asked for it. */

import {
  CircuitBreaker,
  type CircuitRecord,
  emptyRecord,
  type ICircuitStorage,
  MemoryCircuitStorage,
  type WriteResult,
} from '../../src/index.ts'
import { median } from '../rounds.ts'
import { duration, type Effort, type Section, type Table } from '../section.ts'
import { crowd, startStores } from '../stores.ts'

const failureThreshold = 3

interface Storm {
  /** From the first failing call until the store holds an open circuit, in nanoseconds. */
  readonly untilOpen: number
  /** From the first failing call until all of these invocations have ended, in nanoseconds. */
  readonly untilDone: number
  readonly requests: number
  readonly invocations: number
}

type Strategy = (storage: ICircuitStorage, key: string, size: number) => Promise<Storm>

const strategies: Readonly<Record<string, Strategy>> = { ours: breakers, 'compare and set': compareAndSetLoop }

export async function run({ quick }: Effort): Promise<Section> {
  const [sizes, rounds] = quick ? [[1, 10], 1] : [[1, 10, 100, 1_000], 9]
  await using stores = quick ? undefined : await startStores()
  const storages: [name: string, storage: ICircuitStorage][] = [['memory', new MemoryCircuitStorage()]]
  for (const store of stores?.all ?? []) storages.push([store.name, store.connectCrowd()])
  const rows: string[][] = []
  for (const [name, storage] of storages) {
    for (const size of sizes) {
      const storms = new Map<string, Storm[]>(Object.keys(strategies).map((strategy) => [strategy, []]))
      // The first round opens the connections.
      for (let round = 0; round <= rounds; round++) {
        for (const [strategy, storm] of Object.entries(strategies)) {
          const result = await storm(storage, `${strategy}-${size}-${round}`, size)
          if (round > 0) storms.get(strategy)?.push(result)
        }
      }
      const cells = Array.from(storms.values(), (all) => [
        duration(median(all.map(({ untilOpen }) => untilOpen))),
        duration(median(all.map(({ untilDone }) => untilDone))),
        median(all.map(({ requests, invocations }) => requests / invocations)).toFixed(2),
      ]).flat()
      rows.push([`${name}, ${size.toLocaleString('en')}`, ...cells])
    }
    await storage.close?.()
  }
  const table: Table = {
    header: [
      'store, breakers',
      'ours: OPEN after',
      'all done after',
      'requests per failing invocation',
      'compare and set: OPEN after',
      'all done after',
      'requests per failing invocation',
    ],
    rows,
  }
  return {
    title: 'Contention on one key',
    blocks: [
      `Many breakers of new instances, in one process, with a fresh cache. In each of them one call fails at the same moment, and again until the
circuit is open. The first failures raise a suspicion, the second ones are its evidence. The table has medians of ${rounds} rounds.

"Compare and set" is a naive loop over the same adapter: it reads, adds one to the count, opens at the threshold of ${failureThreshold}, and writes if the
version is still the same. After a conflict it tries again with the stored record, until its failure is counted or the circuit is open.

The clients have ${crowd} connections to DynamoDB and one to Redis, and \`storageTimeout\` is 30 s, so that one process can stand for a fleet. The
times are those of a queue in front of this machine's store. A real fleet would send about as many requests.`,
      table,
    ],
  }
}

/** With the settings' defaults but for the time that the store may take. */
async function breakers(storage: ICircuitStorage, key: string, size: number): Promise<Storm> {
  const watched = new WatchedStorage(storage)
  const fleet = Array.from(
    { length: size },
    () =>
      new CircuitBreaker({ services: [key], storage: watched, storageTimeout: 30_000, failureThreshold }, { env: {} }),
  )
  await Promise.all(fleet.map((breaker) => breaker.load()))
  return watched.storm(async () => {
    await Promise.all(
      fleet.map(async (breaker) => {
        await breaker.call(key, down).catch(() => {})
        await breaker.flush()
      }),
    )
    return size
  })
}

async function compareAndSetLoop(storage: ICircuitStorage, key: string, size: number): Promise<Storm> {
  const watched = new WatchedStorage(storage)
  const known = await Promise.all(Array.from({ length: size }, () => storage.getState(key)))
  return watched.storm(async () => {
    const count = async (index: number): Promise<void> => {
      let current = known[index]
      for (;;) {
        if (current?.state === 'OPEN') return
        const result = await watched.compareAndSetState(key, current?.version, counted(current))
        current = result.current
        if (result.applied) break
      }
      known[index] = current
    }
    await Promise.all(known.map((_, index) => count(index)))
    return size
  })
}

function counted(current: CircuitRecord | undefined): CircuitRecord {
  const now = Date.now()
  const record = current ?? emptyRecord(crypto.randomUUID(), now)
  const failureCount = record.failureCount + 1
  const next = { ...record, version: crypto.randomUUID(), failureCount, lastFailureAt: now, updatedAt: now }
  if (failureCount < failureThreshold) return next
  return {
    ...next,
    state: 'OPEN',
    epoch: crypto.randomUUID(),
    openedAt: now,
    retryAt: now + 10_000,
    resetTimeout: 10_000,
  }
}

async function down(): Promise<never> {
  throw Object.assign(new Error('down'), { status: 503 })
}

/** Counts what the store is asked and notes when it first holds an open circuit. */
class WatchedStorage implements ICircuitStorage {
  readonly shared = true
  readonly #inner: ICircuitStorage
  #requests = 0
  #openAt: bigint | undefined

  constructor(inner: ICircuitStorage) {
    this.#inner = inner
  }

  /** Runs invocations, which resolve to their number, until the circuit is open. */
  async storm(invoke: () => Promise<number>): Promise<Storm> {
    this.#requests = 0
    let invocations = 0
    const startedAt = process.hrtime.bigint()
    while (this.#openAt === undefined) {
      if (invocations > 1_000 * failureThreshold) throw new Error('The circuit does not open')
      invocations += await invoke()
    }
    const doneAt = process.hrtime.bigint()
    return {
      untilOpen: Number(this.#openAt - startedAt),
      untilDone: Number(doneAt - startedAt),
      requests: this.#requests,
      invocations,
    }
  }

  async prepare(): Promise<void> {
    await this.#inner.prepare?.()
  }

  getState(...args: Parameters<ICircuitStorage['getState']>): Promise<CircuitRecord | undefined> {
    return this.#asked(this.#inner.getState(...args))
  }

  batchGetState(...args: Parameters<ICircuitStorage['batchGetState']>): Promise<Map<string, CircuitRecord>> {
    return this.#asked(this.#inner.batchGetState(...args))
  }

  addOutcomes(...args: Parameters<ICircuitStorage['addOutcomes']>): Promise<WriteResult> {
    return this.#watched(this.#inner.addOutcomes(...args))
  }

  compareAndSetState(...args: Parameters<ICircuitStorage['compareAndSetState']>): Promise<WriteResult> {
    return this.#watched(this.#inner.compareAndSetState(...args))
  }

  batchSetState(...args: Parameters<ICircuitStorage['batchSetState']>): Promise<Map<string, WriteResult>> {
    return this.#asked(this.#inner.batchSetState(...args))
  }

  clearState(...args: Parameters<ICircuitStorage['clearState']>): Promise<void> {
    return this.#asked(this.#inner.clearState(...args))
  }

  batchClearState(...args: Parameters<ICircuitStorage['batchClearState']>): Promise<void> {
    return this.#asked(this.#inner.batchClearState(...args))
  }

  #asked<T>(answer: Promise<T>): Promise<T> {
    this.#requests += 1
    return answer
  }

  async #watched(write: Promise<WriteResult>): Promise<WriteResult> {
    const result = await this.#asked(write)
    if (result.current?.state === 'OPEN') this.#openAt ??= process.hrtime.bigint()
    return result
  }
}
