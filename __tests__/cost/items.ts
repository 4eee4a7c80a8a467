/**
 * How large the items are that the DynamoDB adapter writes, and what DynamoDB says that each request consumes: a life of
 * a circuit on DynamoDB Local, with the real engine and adapter, under a clock and with ids of its own.
 *
 * @module
 */

import type { AttributeValue, ConsumedCapacity, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { GetItemCommand } from '@aws-sdk/client-dynamodb'
import { CircuitBreaker } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import type { DynamoDBServer } from '../support/dynamodb-local.ts'
import { outcomeOf, unavailable } from '../support/virtual-fleet.ts'

/** An item at one point of its life. */
export interface StoredItem {
  readonly when: string
  readonly bytes: number
  /** What the write that made it consumed. */
  readonly writeUnits: number
  /** What a strongly consistent read of it consumes. */
  readonly readUnits: number
}

/** With as many significant digits as an instant can have: each pair takes a byte. */
const start = 1_795_464_964_617
const resetTimeout = 10_000
/** As long as a key can be. */
const longestKey = 'x'.repeat(256)

/**
 * Not measured here is what a read of a circuit without an item consumes: DynamoDB Local says 0, DynamoDB itself charges
 * the least that a read can consume, see `BatchGetItem`.
 */
export async function measureItems(server: DynamoDBServer): Promise<StoredItem[]> {
  const life = new Life(server.client(), await server.createTable(), 'stripe')
  await life.begin()
  await life.fail()
  await life.note('the first failure has raised a suspicion')
  await life.fail()
  await life.fail()
  await life.note('open')
  await life.probe(false, () => life.note('a probe is under way'))
  // Each probe that fails is two changes of state, of which the last eight are kept.
  for (let probes = 0; probes < 4; probes++) await life.probe(false)
  await life.note('open, after five probes that failed')
  await life.probeAtOnce(12)
  await life.note('twelve probes are under way')
  await life.close()
  await life.note('closed again')
  await life.fail()
  await life.reportAtOnce(16)
  await life.note('sixteen instances have reported under a suspicion')
  await life.succeed()
  await life.note('the suspicion is dismissed')

  const long = new Life(server.client(), await server.createTable(), longestKey)
  await long.begin()
  for (let failures = 0; failures < 3; failures++) await long.fail()
  for (let probes = 0; probes < 5; probes++) await long.probe(false)
  await long.close()
  for (let suspicions = 0; suspicions < 2; suspicions++) {
    await long.fail()
    await long.reportAtOnce(16)
    if (suspicions === 0) await long.succeed()
  }
  await long.note(`sixteen reports again, with a key of ${longestKey.length} bytes`)
  return [...life.items, ...long.items]
}

/** A circuit and the items that it is. */
class Life {
  readonly items: StoredItem[] = []
  readonly #client: DynamoDBClient
  readonly #consumed: { latest(): number }
  readonly #tableName: string
  readonly #service: string
  readonly #storage: DynamoDBCircuitStorage
  readonly #breaker: CircuitBreaker
  #now = start
  #ids = 0

  constructor(client: DynamoDBClient, tableName: string, service: string) {
    this.#client = client
    this.#consumed = meter(client)
    this.#tableName = tableName
    this.#service = service
    this.#storage = new DynamoDBCircuitStorage({ tableName, client })
    this.#breaker = new CircuitBreaker(
      {
        services: [service],
        storage: this.#storage,
        resetTimeout,
        halfOpenMaxConcurrent: 12,
        maxConcurrent: 24,
        storageTimeout: 10_000,
      },
      { now: () => this.#now, random: () => 0, id: () => this.#id(), env: {} },
    )
  }

  begin(): Promise<void> {
    return this.#breaker.load()
  }

  async fail(): Promise<void> {
    await outcomeOf(this.#breaker.call(this.#service, unavailable))
    await this.#breaker.flush()
  }

  async probe(succeeds: boolean, whileItRuns?: () => Promise<void>): Promise<void> {
    this.#waitForProbe()
    const operation = async () => {
      await whileItRuns?.()
      return succeeds ? 'ok' : unavailable()
    }
    await outcomeOf(this.#breaker.call(this.#service, operation))
    await this.#breaker.flush()
  }

  /** Others go first, if there are any. */
  #waitForProbe(): void {
    this.#now = Math.max(this.#now, this.#breaker.circuits[this.#service]?.retryAt ?? 0) + resetTimeout
  }

  /** Probes that nobody answers. */
  async probeAtOnce(probes: number): Promise<void> {
    this.#waitForProbe()
    for (let probe = 0; probe < probes; probe++) {
      const { promise: started, resolve } = Promise.withResolvers<void>()
      void this.#breaker.call(this.#service, () => {
        resolve()
        return new Promise(() => {})
      })
      await started
    }
  }

  async close(): Promise<void> {
    // Leases last no longer than that.
    this.#now += 60_000
    await this.probe(true)
  }

  /** Other instances say that it works for them. */
  async reportAtOnce(instances: number): Promise<void> {
    const version = (await this.#storage.getState(this.#service))?.version ?? ''
    const each = { failures: 0, successes: 1, started: 1, early: 0, reporters: 1, at: this.#now }
    for (let instance = 0; instance < instances; instance++) {
      await this.#storage.addOutcomes(this.#service, version, { ...each, id: this.#id() })
    }
  }

  /** Works: whoever sees that the sample speaks for the service dismisses the suspicion. */
  async succeed(): Promise<void> {
    this.#now += 10_000
    await this.#breaker.load()
    await outcomeOf(this.#breaker.call(this.#service, async () => 'ok'))
    await this.#breaker.flush()
  }

  /** Takes down the item that the latest write has made. */
  async note(when: string): Promise<void> {
    const writeUnits = this.#consumed.latest()
    const Key = { PK: { S: `CIRCUIT#${this.#service}` }, SK: { S: 'STATE' } }
    const request = new GetItemCommand({ TableName: this.#tableName, Key, ConsistentRead: true })
    const { Item = {} } = await this.#client.send(request)
    this.items.push({ when, bytes: sizeOf(Item), writeUnits, readUnits: this.#consumed.latest() })
  }

  /** As long as the real ones. */
  #id(): string {
    return String(++this.#ids).padStart(16, '0')
  }
}

/** Asks for the capacity that each request consumes, and keeps that of the latest. */
function meter(client: DynamoDBClient): { latest(): number } {
  let latest = Number.NaN
  client.middlewareStack.add(
    (next) => async (args) => {
      Object.assign(args.input, { ReturnConsumedCapacity: 'TOTAL' })
      const result = await next(args)
      const { ConsumedCapacity } = result.output as { ConsumedCapacity?: ConsumedCapacity | ConsumedCapacity[] }
      const parts = [ConsumedCapacity ?? []].flat()
      latest = parts.reduce((sum, { CapacityUnits = Number.NaN }) => sum + CapacityUnits, 0)
      return result
    },
    { step: 'initialize', name: 'meter' },
  )
  return { latest: () => latest }
}

/**
 * What DynamoDB takes for the size of an item, in bytes:
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
 */
export function sizeOf(item: Readonly<Record<string, AttributeValue>>): number {
  return Object.entries(item).reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + sizeOfValue(value), 0)
}

function sizeOfValue(value: AttributeValue): number {
  if (value.S !== undefined) return Buffer.byteLength(value.S)
  if (value.N !== undefined) return sizeOfNumber(value.N)
  // A list or a map takes 3 bytes, and one for each of its elements.
  if (value.L !== undefined) return value.L.reduce((sum, element) => sum + 1 + sizeOfValue(element), 3)
  if (value.M !== undefined) return 3 + Object.keys(value.M).length + sizeOf(value.M)
  if (value.BOOL !== undefined || value.NULL !== undefined) return 1
  throw new Error(`The adapter writes no ${Object.keys(value)}.`)
}

/** One byte for two significant digits, and one more. */
function sizeOfNumber(text: string): number {
  const digits = text.replace(/^-|\./g, '').replace(/^0+|0+$/g, '')
  return Math.ceil(digits.length / 2) + 1
}
