/** What a guarded call costs on a closed circuit, and a refusal on an open one. */

import { CircuitBreaker, MemoryCircuitStorage } from '../../src/index.ts'
import { type Case, type RoundsOptions, type Timing, timeInRounds } from '../rounds.ts'
import { duration, type Effort, type Section, type Table, type Target, times } from '../section.ts'
import { type Guarding, openSubjects, operation, subjects } from '../subjects.ts'

const scenarios: Readonly<Record<string, Guarding>> = {
  plain: {},
  'limit of 10': { limit: 10 },
  'timeout of 1 s': { timeout: 1_000 },
  both: { timeout: 1_000, limit: 10 },
}

type Timings = ReadonlyMap<string, Timing>

export async function run({ quick }: Effort): Promise<Section> {
  const options: RoundsOptions = quick ? { rounds: 2, slice: 1 } : { rounds: 41, slice: 12 }
  const alone = await timeScenarios(options)
  const together = await timeScenarios({ ...options, atOnce: 10 })
  const waiting = await timeWaiting({ ...options, atOnce: 10 })
  const queue = await timeQueues(quick ? [10, 100] : [10_000, 100_000])
  const refusals = await timeInRounds(await openSubjects(), options)
  const floor = await timeInRounds(floorCases(), options)
  const keyed = await timeInRounds(await keyedCases(1), options)
  const manyKeys = await timeInRounds(await keyedCases(1_000), options)
  return {
    title: 'Per call',
    blocks: [
      `Each package guards an operation that resolves at once. Ours always limits concurrency; in "plain" the limit is never reached. A handler in
Lambda has \`callExternal\` with a deadline. The other packages use their own timeouts (\`TimeoutStrategy.Aggressive\`, which ends the call as
ours does) and their own limits (\`bulkhead\`, \`capacity\`). cockatiel's plain breaker limits nothing. While it is closed and has no
listener, it reads no clock.`,
      'One after the other:',
      scenarioTable(alone),
      'Ten at once, each of the ten:',
      scenarioTable(together),
      `Ten at once, of which five may be in flight while the others wait (opossum refuses them): ${waitingText(waiting)}.`,
      `100,000 calls at once, of which ten may be in flight, with one signal for all: each takes ${times(queue)} as long as each of 10,000.`,
      'Refused, because the circuit is open:',
      table(refusals, 'refusal'),
      `[Keyed services](../use/keys.md), beside as many services that are named up front. With \`parent\` a call passes two circuits:`,
      table(keyed, 'callExternal, Lambda deadline'),
      table(manyKeys, 'callExternal, Lambda deadline, each in turn'),
      `[The profile](#where-the-time-goes) shows where the time goes. Every guard in front of a promise has to look at the promise (one turn) and at
the clock. That alone costs:`,
      table(floor, 'what is done'),
    ],
    targets: [...targetsOf(alone, refusals), queueTarget(queue), ...keyedTargets(keyed, manyKeys)],
  }
}

async function timeScenarios(options: RoundsOptions): Promise<Map<string, Timings>> {
  const timed = new Map<string, Timings>()
  for (const [name, guarding] of Object.entries(scenarios)) {
    timed.set(name, await timeInRounds(await subjects(guarding), options))
  }
  return timed
}

async function timeWaiting(options: RoundsOptions): Promise<Timings> {
  const { 'opossum.fire': _, ...others } = await subjects({ limit: 5 })
  return timeInRounds(others, options)
}

/** How much longer each of many calls takes that wait at once than each of few. */
async function timeQueues([few, many]: readonly [number, number]): Promise<number> {
  const breaker = new CircuitBreaker({ services: ['service'], storage: 'memory' })
  const { signal } = new AbortController()
  const timeEach = async (count: number): Promise<number> => {
    const from = performance.now()
    await Promise.all(Array.from({ length: count }, () => breaker.call('service', operation, { signal })))
    return (performance.now() - from) / count
  }
  const quotients: number[] = []
  for (let round = 0; round < 5; round++) quotients.push((await timeEach(many)) / (await timeEach(few)))
  return Math.min(...quotients)
}

function queueTarget(measured: number): Target {
  const what = 'Each of 100,000 calls that wait at once'
  return { what, wanted: 'at most 3.00 × each of 10,000', measured: times(measured), isMet: measured <= 3 }
}

function waitingText(timings: Timings): string {
  return [...timings]
    .slice(1)
    .map(([name, { ratio }]) => `${name} ${times(ratio)}`)
    .join(', ')
}

function floorCases(): Record<string, Case> {
  const keep = (value: number) => value
  let at = 0
  return {
    'bare call': () => operation(),
    '`.then`': () => operation().then(keep),
    '`.then` and one `Date.now()`': () => {
      at = Date.now()
      return operation().then(keep)
    },
    'an `async` function around it': async () => await operation(),
    '`await Date.now()`, without a call': () => {
      at += Date.now()
      return at
    },
  }
}

/** So many keys in turn, and as many services, each called before. */
async function keyedCases(number: number): Promise<Record<string, Case>> {
  const names = Array.from({ length: number }, (_, index) => `tenant-${index}`)
  const context = { getRemainingTimeInMillis: () => 60_000 }
  const plain = new CircuitBreaker({ services: names, storage: new MemoryCircuitStorage() }).callExternalFor(context)
  const ofKeys = (parent: boolean) =>
    new CircuitBreaker({ services: { crm: { keyed: { parent } } }, storage: new MemoryCircuitStorage() })
  const [keyed, both] = [ofKeys(false).callExternalFor(context), ofKeys(true).callExternalFor(context)]
  for (const key of names) {
    for (let call = 0; call < 2; call++) {
      await Promise.all([plain(key, operation), keyed('crm', operation, { key }), both('crm', operation, { key })])
    }
  }
  const inTurn = (call: (key: string) => Promise<unknown>): Case => {
    let index = 0
    return () => {
      index = index + 1 === number ? 0 : index + 1
      return call(names[index] as string)
    }
  }
  const what = number === 1 ? 'a' : `one of ${number}`
  return {
    [`${what} service${number === 1 ? '' : 's'}`]: inTurn((key) => plain(key, operation)),
    [`${what} key${number === 1 ? '' : 's'}`]: inTurn((key) => keyed('crm', operation, { key })),
    [`${what} key${number === 1 ? '' : 's'}, with parent`]: inTurn((key) => both('crm', operation, { key })),
  }
}

function keyedTargets(...timed: readonly Timings[]): Target[] {
  return timed.map((timings) => {
    const [, [what, { ratio }]] = [...timings] as [unknown, [string, Timing]]
    return {
      what: `Keyed service: ${what}`,
      wanted: 'at most 1.30 × a service',
      measured: times(ratio),
      isMet: ratio <= 1.3,
    }
  })
}

function scenarioTable(timed: ReadonlyMap<string, Timings>): Table {
  const names = [...(timed.values().next().value?.keys() ?? [])]
  return {
    header: ['', ...timed.keys()],
    rows: names.map((name) => [name, ...Array.from(timed.values(), (timings) => cell(timings.get(name) as Timing))]),
  }
}

function table(timings: Timings, what: string): Table {
  return {
    header: [what, 'ratio', 'time'],
    rows: Array.from(timings, ([name, { ratio, best }]) => [name, times(ratio), duration(best)]),
  }
}

function cell({ ratio, best }: Timing): string {
  return `${times(ratio)} (${duration(best)})`
}

function targetsOf(alone: ReadonlyMap<string, Timings>, refusals: Timings): Target[] {
  const ours = 'callExternal, Lambda deadline'
  const ratioOf = (timings: Timings | undefined, name: string) => timings?.get(name)?.ratio ?? Number.NaN
  const target = (what: string, measured: number, limit: number, wanted: string): Target => ({
    what,
    wanted,
    measured: times(measured),
    isMet: measured <= limit,
  })
  const plain = alone.get('plain')
  const limited = alone.get('limit of 10')
  const timed = alone.get('timeout of 1 s')
  const peers = ['cockatiel.execute', 'opossum.fire']
  const faster = (what: string, timings: Timings | undefined, subject: string, rivals: readonly string[]): Target[] =>
    rivals.map((rival) => {
      const limit = ratioOf(timings, rival)
      return target(`${what}: ${subject}`, ratioOf(timings, subject), limit, `faster than ${rival}, ${times(limit)}`)
    })
  return [
    target('Closed circuit, no timeout: call', ratioOf(plain, 'call'), 2.5, 'at most 2.50 × the bare call'),
    target(`Closed circuit, no timeout: ${ours}`, ratioOf(plain, ours), 3.5, 'at most 3.50 × the bare call'),
    target(`With a timeout: ${ours}`, ratioOf(timed, ours), 8, 'at most 8.00 × the bare call'),
    ...faster('Closed circuit, no timeout', plain, 'call', peers),
    ...faster('Closed circuit, no timeout', plain, ours, peers),
    ...faster('With a limit of 10', limited, 'call', peers),
    ...faster('With a limit of 10', limited, ours, peers),
    ...faster('With a timeout', timed, ours, ['opossum.fire']),
    ...faster('Refusal', refusals, ours, peers),
  ]
}
