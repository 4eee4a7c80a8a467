/** What the store is asked in each phase of a circuit's life, and what that adds to an invocation. */

import middy from '@middy/core'
import { CircuitBreaker, circuitBreaker, type ICircuitStorage, MemoryCircuitStorage } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { median, quantile } from '../rounds.ts'
import { duration, type Effort, type Section, size, type Table } from '../section.ts'
import { type Store, startStores } from '../stores.ts'
import { type Traffic, tapWire } from '../wire-tap.ts'

/** What happens before an invocation, and what its call comes to. `afresh`: in an instance that knows nothing yet. */
interface Phase {
  readonly name: string
  readonly waits?: number
  readonly fails?: true
  readonly afresh?: true
  readonly state: string
}

const cacheTtl = 5_000
const resetTimeout = 10_000

const phases: readonly Phase[] = [
  { name: 'first invocation of an instance, healthy', afresh: true, state: 'CLOSED' },
  { name: 'healthy, fresh cache', state: 'CLOSED' },
  { name: 'healthy, the cache is due', waits: cacheTtl, state: 'CLOSED' },
  { name: 'isolated failure of a busy instance', fails: true, state: 'CLOSED' },
  { name: 'success after it', state: 'CLOSED' },
  { name: 'first failure of a new instance', afresh: true, fails: true, state: 'CLOSED' },
  { name: 'second failure', fails: true, state: 'CLOSED' },
  { name: 'third failure: trip', fails: true, state: 'OPEN' },
  { name: 'open, fresh cache: refused', state: 'OPEN' },
  { name: 'open, the cache is due: refused', waits: cacheTtl, state: 'OPEN' },
  { name: 'probe that fails', waits: resetTimeout, fails: true, state: 'OPEN' },
  { name: 'probe that succeeds: recovery', waits: 3 * resetTimeout, state: 'CLOSED' },
  { name: 'healthy again, fresh cache', state: 'CLOSED' },
]

export async function run({ quick }: Effort): Promise<Section> {
  const [warmUp, cycles] = quick ? [1, 2] : [100, 1_000]
  await using stores = await startStores()
  const blocks: (string | Table)[] = []
  const inMemory = new MemoryCircuitStorage()
  const sites = stores.all.map((store) => ({ store, storage: store.connect(), samples: noSamples() }))
  const memory = { storage: inMemory, samples: noSamples() }
  for (let cycle = 0; cycle < warmUp + cycles; cycle++) {
    for (const { storage, samples } of [memory, ...sites]) {
      for (const [index, { took }] of (await liveThrough(storage, `cycle-${cycle}`)).entries()) {
        if (cycle >= warmUp) samples[index]?.push(took)
      }
    }
  }
  for (const { store, storage, samples } of sites) {
    const traffic = await trafficOf(store)
    await storage.close?.()
    blocks.push(`**${store.name}**`, {
      header: ['invocation', 'round trips', 'sent', 'received', 'p50', 'p99'],
      rows: phases.map(({ name }, index) => {
        const { roundTrips, sent, received } = traffic[index] as Traffic
        const base = median(memory.samples[index] ?? [])
        const added = (share: number) => duration(Math.max(0, quantile(samples[index] ?? [], share) - base))
        return [name, String(roundTrips), size(sent), size(received), added(0.5), added(0.99)]
      }),
    })
  }
  return {
    title: 'What the store is asked',
    blocks: [
      `One service, the defaults, and one call in each invocation of a Middy handler. The clock of the breaker is moved on, so nothing waits. A proxy
in front of the store counts round trips and bytes, with HTTP and its headers, on connections that exist.

p50 and p99 are the time that the store adds to an invocation: of ${cycles.toLocaleString('en')} invocations of each kind without the proxy, less the median of
the same with the state in memory. The table leaves out two things: the random spread of reads over \`cacheTtl\`, and the extra look of an
instance that has not read for a while and wants to raise a suspicion. The stores run on the same machine. Over AWS's network a round trip
takes a millisecond or several, so compare the number of round trips.`,
      ...blocks,
    ],
  }
}

function noSamples(): number[][] {
  return phases.map(() => [])
}

/** The second life is counted: in the first one the connection and what the store prepares are made. */
async function trafficOf(store: Store): Promise<Traffic[]> {
  const tap = await tapWire(store.port)
  const storage = store.connect(tap.port)
  const counted: Traffic[] = []
  await liveThrough(storage, 'tap-warm')
  tap.take()
  await liveThrough(storage, 'tap', () => counted.push(tap.take()))
  await storage.close?.()
  await tap.stop()
  return counted
}

interface Lived {
  /** Nanoseconds. */
  readonly took: number
}

async function liveThrough(storage: ICircuitStorage, service: string, onPhase = () => {}): Promise<Lived[]> {
  let ahead = 0
  let fails = false
  const now = () => Date.now() + ahead
  // Claims and the look before a report are spread over time by chance; here they are made at once.
  const newBreaker = () => new CircuitBreaker({ services: [service], storage }, { env: {}, now, random: () => 0.99 })
  let breaker = newBreaker()
  let handler = handlerOf(breaker)
  const lived: Lived[] = []
  const operation = async () => {
    if (fails) throw Object.assign(new Error('down'), { status: 503 })
    return 1
  }
  function handlerOf(one: CircuitBreaker) {
    return middy()
      .use(circuitBreaker(one))
      .handler(async (_event, { callExternal }) => callExternal(service, operation).catch(() => 0))
  }
  for (const phase of phases) {
    if (phase.afresh) {
      breaker = newBreaker()
      handler = handlerOf(breaker)
    }
    ahead += phase.waits ?? 0
    fails = phase.fails ?? false
    const startedAt = process.hrtime.bigint()
    await handler({}, createTestContext())
    lived.push({ took: Number(process.hrtime.bigint() - startedAt) })
    const state = breaker.circuits[service]?.state
    if (state !== phase.state) throw new Error(`After "${phase.name}" the circuit is ${state}, not ${phase.state}`)
    onPhase()
  }
  return lived
}
