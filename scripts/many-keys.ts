/**
 * Measures one instance with very many keys, for `docs/use/keys.md`: `npm run page -- many-keys`, in some minutes. `--quick` shows that
 * it works, and writes nothing.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import v8 from 'node:v8'
import { runInNewContext } from 'node:vm'
import { ScanCommand } from '@aws-sdk/client-dynamodb'
import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'
import { patientDynamoDB, patientStore } from '../__tests__/support/patience.ts'
import { CircuitBreaker, type ICircuitStorage, isCircuitOpenError, MemoryCircuitStorage } from '../src/index.ts'
import { DynamoDBCircuitStorage } from '../src/storage/dynamodb/index.ts'
import { count, table } from './fleet-words.ts'

v8.setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const begin = '<!-- many keys: npm run page -- many-keys writes what is between these lines. -->'
const end = '<!-- the end of many keys. -->'
const maxKeys = 1_000
const startedAt = 1_767_225_600_000

const ok = async (): Promise<string> => 'ok'
const down = async (): Promise<never> => {
  throw Object.assign(new Error('503'), { status: 503 })
}

/** A store that counts what is read. */
class CountingStorage extends MemoryCircuitStorage {
  readCircuits = 0

  override async batchGetState(keys: readonly string[]): ReturnType<ICircuitStorage['batchGetState']> {
    this.readCircuits += keys.length
    return super.batchGetState(keys)
  }
}

/** The memory in use, in megabytes. */
function heap(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed / 1_048_576
}

interface Flat {
  readonly at: number
  readonly heap: number
  readonly reads: number
}

/** Many keys through one instance, some of them open all the time, some in use all the time. */
async function throughOneInstance(keys: number) {
  const storage = new CountingStorage()
  let now = startedAt
  const breaker = new CircuitBreaker(
    { services: { hooks: { keyed: { maxKeys } } }, storage, maxResetTimeout: 86_400_000, resetTimeout: 86_400_000 },
    { now: () => now, env: {} },
  )
  const open = Array.from({ length: 50 }, (_, index) => `open-${index}`)
  for (const key of open)
    for (let call = 0; call < 3; call++) await breaker.call('hooks', down, { key }).catch(() => {})
  await breaker.flush()
  const inUse = Array.from({ length: 100 }, (_, index) => `in-use-${index}`)
  const rows: Flat[] = []
  for (let index = 0; index < keys; index++) {
    await breaker.call('hooks', ok, { key: `host-${index}` })
    if ((index + 1) % (keys / 10) === 0) rows.push({ at: index + 1, heap: heap(), reads: storage.readCircuits })
  }
  let refused = 0
  for (const key of open) {
    await breaker.call('hooks', ok, { key }).catch((error) => {
      if (isCircuitOpenError(error)) refused++
    })
  }
  // Ten minutes in which a hundred keys are in use.
  for (const key of inUse) await breaker.call('hooks', ok, { key })
  const before = storage.readCircuits
  for (let second = 0; second < 600; second++) {
    now += 1_000
    if (breaker.needsLoad) await breaker.load()
    for (const key of inUse) await breaker.call('hooks', ok, { key })
  }
  return { rows, open: open.length, refused, inUse: inUse.length, readsInUse: (storage.readCircuits - before) / 600 }
}

/** Hostile keys, each of which fails, within ten minutes of a virtual clock. */
async function hostile(keys: number) {
  const server = await startDynamoDBLocal({ own: true })
  try {
    const tableName = await server.createTable()
    const client = server.client(patientDynamoDB)
    let now = startedAt
    const duration = 600_000
    const breaker = new CircuitBreaker(
      {
        services: { hooks: { keyed: { maxKeys } } },
        storage: new DynamoDBCircuitStorage({ tableName, client }),
        ...patientStore,
      },
      { now: () => Math.floor(now), env: {} },
    )
    const atOnce = 100
    let reached = 0
    const fails = (): Promise<never> => {
      reached++
      return down()
    }
    for (let index = 0; index < keys; index += atOnce) {
      const batch = Array.from({ length: atOnce }, (_, offset) => `host-${index + offset}`)
      await Promise.all(batch.map((key) => breaker.call('hooks', fails, { key }).catch(() => {})))
      if (breaker.needsFlush) await breaker.flush()
      now += (duration * atOnce) / keys
    }
    await breaker.flush()
    let records = 0
    let from: Record<string, never> | undefined
    do {
      const scan = new ScanCommand({ TableName: tableName, Select: 'COUNT', ...(from && { ExclusiveStartKey: from }) })
      const page = await client.send(scan)
      records += page.Count ?? 0
      from = page.LastEvaluatedKey as typeof from
    } while (from !== undefined)
    const windows = duration / 60_000 + 1
    return { keys, reached, records, bound: 2 * maxKeys * windows + 1, heap: heap() }
  } finally {
    await server.stop()
  }
}

function page(
  { rows, open, refused, inUse, readsInUse }: Awaited<ReturnType<typeof throughOneInstance>>,
  attack: Awaited<ReturnType<typeof hostile>>,
): string {
  const last = rows.at(-1) as Flat
  const shown = rows.filter(({ at }) => at === rows[0]?.at || at === last.at / 2 || at === last.at)
  return `\`maxKeys\` ${count(maxKeys)}, one instance, measured by \`npm run page -- many-keys\`.

${count(last.at)} keys, one call each, with ${open} circuits that stay open:

${table(
  ['keys so far', 'memory in use', 'circuits read'],
  shown.map(({ at, heap: megabytes, reads }) => [count(at), `${megabytes.toFixed(1)} MB`, count(reads)]),
)}

Afterwards ${refused} of the ${open} open circuits still refuse. ${inUse} keys that are called once a second make ${readsInUse.toFixed(1)} circuits read a
second, one for each in a \`cacheTtl\` of 5 s, however many others there were.

${count(attack.keys)} keys that an attacker chooses, each of which fails, within ten minutes, on DynamoDB Local: ${count(attack.records)} records. The bound for
ten minutes is ${count(attack.bound)}. ${count(attack.reached)} calls were let through; the circuit that the rest shares refused the others. ${attack.heap.toFixed(1)} MB of memory were in use at the end.`
}

const { quick } = parseArgs({ options: { quick: { type: 'boolean', default: false } } }).values
const one = await throughOneInstance(quick ? 10_000 : 100_000)
console.log(JSON.stringify(one))
const attack = await hostile(quick ? 4_000 : 1_000_000)
console.log(JSON.stringify(attack))
if (one.refused !== one.open) throw new Error(`Only ${one.refused} of ${one.open} open circuits are remembered.`)
if (attack.records > attack.bound)
  throw new Error(`${attack.records} records are more than the bound, ${attack.bound}.`)
if (!quick) {
  const file = fileURLToPath(new URL('../docs/use/keys.md', import.meta.url))
  const [before, rest] = (await readFile(file, 'utf8')).split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error('docs/use/keys.md has no place for many keys.')
  await writeFile(file, `${before}${begin}\n\n${page(one, attack)}\n\n${end}${after}`)
}
