/**
 * The tables of `docs/operate/cost.md`, as they were measured.
 *
 * @module
 */

import { measureKeysAtRest } from '../simulation/keyed-fleet.ts'
import { inMacrotask } from '../simulation/microtasks.ts'
import type { DynamoDBServer } from '../support/dynamodb-local.ts'
import { measureItems, type StoredItem } from './items.ts'
import {
  hoursPerMonth,
  millionInvocations,
  onDemand,
  pricesAsOf,
  provisioned,
  region,
  valkeyServerless,
} from './prices.ts'
import { type Healthy, measureHealthy, measureOutage, type Outage, type Requests } from './requests.ts'

const million = 1_000_000
const daysPerMonth = 30
/** A million invocations in a day: so many a second. */
const rate = million / 86_400
const fleets = [1, 10, 100] as const
const serviceCounts = [1, 10] as const
const cacheTtls = [1_000, 5_000, 15_000, 60_000] as const
const errorRate = 0.01
const seed = 1
const outageSeeds = [1, 2, 3] as const
/** So many invocations are simulated; the figures are per million. */
const simulated = 10_000
/** Errors in a row are rare: they take longer to be seen. */
const simulatedWithErrors = 100_000

interface HealthyRow {
  readonly instances: number
  readonly services: number
  readonly measured: Healthy
}

interface OutageRow {
  readonly instances: number
  readonly services: number
  /** Medians over the seeds, of each figure by itself. */
  readonly measured: Omit<Outage, 'hasRecovered'>
}

/** Everything that the page tells. */
export interface Figures {
  readonly healthy: readonly HealthyRow[]
  readonly everyInvocation: Healthy
  readonly byTtl: readonly { readonly cacheTtl: number; readonly measured: readonly Healthy[] }[]
  readonly withErrors: Healthy
  readonly outages: readonly OutageRow[]
  readonly items: readonly StoredItem[]
  readonly keys: readonly KeysRow[]
}

interface KeysRow {
  readonly keys: number
  readonly measured: ReturnType<typeof measureKeysAtRest>
}

const keyCounts = [1, 10, 100, 1_000, 10_000] as const

/** Ten instances that share a million calls a day, each for one of so many keys. */
function measureWithKeys(keys: number): KeysRow['measured'] {
  const options = { instances: 10, rate: rate / 10, keys, keyed: { maxKeys: 10_000 }, seed }
  return measureKeysAtRest(options, 60_000, 300_000)
}

/** Measures everything anew; the same code gives the same figures. */
export async function measure(server: DynamoDBServer): Promise<Figures> {
  const healthy: HealthyRow[] = []
  const outages: OutageRow[] = []
  for (const services of serviceCounts) {
    for (const instances of fleets) {
      const options = { instances, services, rate }
      healthy.push({ instances, services, measured: await measureHealthy({ ...options, seed }, simulated) })
      const runs: Outage[] = []
      for (const one of outageSeeds) runs.push(await measureOutage({ ...options, seed: one }))
      if (!runs.every(({ hasRecovered }) => hasRecovered)) throw new Error('A circuit did not close after its outage.')
      outages.push({ instances, services, measured: medianOf(runs) })
    }
  }
  const byTtl: { cacheTtl: number; measured: Healthy[] }[] = []
  for (const cacheTtl of cacheTtls) {
    const measured: Healthy[] = []
    for (const instances of fleets) {
      measured.push(await measureHealthy({ instances, rate, seed, settings: { cacheTtl } }, simulated))
    }
    byTtl.push({ cacheTtl, measured })
  }
  const withErrors = await measureHealthy({ instances: 10, rate, seed, errorRate }, simulatedWithErrors)
  const everyInvocation = await measureHealthy({ instances: 10, rate, seed, settings: { cacheTtl: 0 } }, simulated)
  const keys = await inMacrotask(() => keyCounts.map((count) => ({ keys: count, measured: measureWithKeys(count) })))
  return { healthy, everyInvocation, byTtl, withErrors, outages, items: await measureItems(server), keys }
}

// ----------------------------------------------------------------------------------------------------------- page

/** The sections of the page that are measured, by name. */
export function sectionsOf(figures: Figures): Readonly<Record<string, string>> {
  return {
    prices: prices(),
    healthy: healthyTable(figures),
    ttl: ttlTable(figures),
    errors: errorsText(figures),
    outage: outageTable(figures),
    items: itemsTable(figures),
    redis: redis(),
    keys: keysTable(figures),
    provisioned: provisionedText(),
  }
}

/** The page with its measured sections replaced. */
export function withSections(page: string, sections: Readonly<Record<string, string>>): string {
  return Object.entries(sections).reduce((text, [name, section]) => {
    const [begin, end] = [`<!-- ${name}: npm run page -- cost -->`, `<!-- end of ${name} -->`]
    const [before, rest] = text.split(begin)
    const after = rest?.split(end)[1]
    if (before === undefined || after === undefined) throw new Error(`The page has no place for ${name}.`)
    return `${before}${begin}\n\n${section}\n\n${end}${after}`
  }, page)
}

function prices(): string {
  return table(
    ['', `price, ${region}, ${pricesAsOf}`],
    [
      ['DynamoDB on demand, a million read request units', `$${onDemand.millionReadUnits}`],
      ['DynamoDB on demand, a million write request units', `$${onDemand.millionWriteUnits}`],
      ['ElastiCache Serverless for Valkey, a million ECPUs', `$${valkeyServerless.millionEcpus}`],
      ['ElastiCache Serverless for Valkey, a GB stored for an hour', `$${valkeyServerless.gigabyteHour}`],
      ['for comparison: a million Lambda requests, without their duration', `$${millionInvocations.toFixed(2)}`],
    ],
  )
}

function healthyTable({ healthy, everyInvocation }: Figures): string {
  const byFleet = fleets.map((instances) => {
    const [one, ten] = serviceCounts.map((services) => {
      const row = healthy.find((each) => each.instances === instances && each.services === services)
      return (row as HealthyRow).measured
    }) as [Healthy, Healthy]
    const pause = instances / rate
    return [
      count(instances),
      pause < 1 ? `${significant(1 / pause)} a second` : `one every ${significant(pause)} s`,
      count(perMillion(one).batchGetItem),
      aMonth(one),
      aMonth(ten),
    ]
  })
  const all = perMillion(everyInvocation)
  const limit = daysPerMonth * onDemand.millionReadUnits
  const measured = table(
    ['instances', 'invocations of each', 'reads per million invocations', 'a month: 1 service', '10 services'],
    [
      ...byFleet,
      [
        'any',
        'with `cacheTtl: 0`, or rarer than once in a `cacheTtl`',
        count(all.batchGetItem),
        `$${limit.toFixed(2)}`,
        `$${(10 * limit).toFixed(2)}`,
      ],
    ],
  )
  const times = significant((10 * onDemand.millionReadUnits) / millionInvocations)
  const text = wrapped(
    'The last row is the most that it can be. It is also the price of cold starts. An invocation reads more than once only if it lasts',
    `longer than \`cacheTtl\`. With ten services the most is ${times} times what Lambda charges for the requests: see [To pay`,
    'less](#to-pay-less).',
  )
  return `${measured}\n\n${text}`
}

function ttlTable({ byTtl }: Figures): string {
  return table(
    ['`cacheTtl`', ...fleets.map((instances) => `${count(instances)} instance${instances === 1 ? '' : 's'}`)],
    byTtl.map(({ cacheTtl, measured }) => [
      `${cacheTtl / 1_000} s`,
      ...measured.map((one) => `${count(perMillion(one).batchGetItem)}, ${readPrice(one)}`),
    ]),
  )
}

function errorsText({ withErrors }: Figures): string {
  const { updateItem } = perMillion(withErrors)
  const price = dollars(priceOf({ readUnits: 0, writeUnits: updateItem }), 1)
  return wrapped(
    `If 1 call in ${count(1 / errorRate)} fails at random, ten instances send about ${rough(updateItem)} writes per million invocations, which cost`,
    `${price}.`,
  )
}

function outageTable({ outages }: Figures): string {
  return table(
    [
      'instances',
      'services',
      'calls that reached it',
      'of these probes',
      'writes until it is open',
      'writes in all',
      'reads',
      'price',
      'price of eleven healthy minutes',
    ],
    outages.map(({ instances, services, measured: { during, onset, before, reached, probes } }) => [
      count(instances),
      count(services),
      count(reached),
      count(probes),
      count(onset.updateItem),
      count(during.updateItem),
      count(during.batchGetItem),
      dollars(priceOfRequests(during)),
      dollars(11 * priceOfRequests(before)),
    ]),
  )
}

function keysTable({ keys }: Figures): string {
  return table(
    ['keys', 'reads per million calls', 'circuits read', 'price'],
    keys.map(({ keys: number, measured: { calls, reads, circuits } }) => {
      const units = (circuits * million) / calls
      return [
        count(number),
        count((reads * million) / calls),
        count(units),
        dollars(priceOf({ readUnits: units, writeUnits: 0 })),
      ]
    }),
  )
}

function itemsTable({ items }: Figures): string {
  return table(
    ['the item of `stripe`', 'bytes', 'write units', 'read units'],
    items.map(({ when, bytes, writeUnits, readUnits }) => [when, count(bytes), count(writeUnits), count(readUnits)]),
  )
}

/** How many times as long as a GET a command keeps Redis 7 busy, at most, by its `INFO commandstats`. */
const ecpus = { hgetall: 10, script: 100 } as const

function redis(): string {
  const { millionEcpus, gigabyteHour, leastGigabytes } = valkeyServerless
  const floor = dollars(leastGigabytes * hoursPerMonth * gigabyteHour, 3)
  const million = dollars(ecpus.hgetall * millionEcpus)
  const outage = dollars((20 * ecpus.script * millionEcpus) / 1_000_000)
  return wrapped(
    `A cache is billed for ${leastGigabytes * 1_000} MB at least: ${leastGigabytes} GB × ${hoursPerMonth} h × $${gigabyteHour} = **${floor} a month**.`,
    'Commands cost little: an ECPU for each kilobyte that they move, or for the CPU time of a `GET`, whichever is more. Ours move less than a',
    `kilobyte. An \`HGETALL\` keeps Redis busy up to ${ecpus.hgetall} times as long as a \`GET\`, a script of ours up to ${ecpus.script} times. So a million`,
    `\`HGETALL\` cost ${million} at most, and the 20 or so writes of an outage ${outage}.`,
  )
}

function provisionedText(): string {
  const { readUnitHour, writeUnitHour } = provisioned
  const full = (hourly: number) => (hourly * million) / 3_600
  const breakEven = Math.round((100 * full(readUnitHour)) / onDemand.millionReadUnits)
  return wrapped(
    `A provisioned read unit costs $${readUnitHour} an hour, a write unit $${writeUnitHour}. If every unit is used in every second, a million reads`,
    `cost ${dollars(full(readUnitHour))} and a million writes ${dollars(full(writeUnitHour))}. If less than ${breakEven} % are used, on demand is cheaper.`,
  )
}

// ------------------------------------------------------------------------------------------------------ arithmetic

function perMillion({ invocations, ...requests }: Healthy): Requests {
  const scaled = Object.entries(requests).map(([name, value]) => [name, (value * million) / invocations])
  return Object.fromEntries(scaled) as unknown as Requests
}

interface Units {
  readonly readUnits: number
  readonly writeUnits: number
}

function priceOf({ readUnits, writeUnits }: Units): number {
  return (readUnits * onDemand.millionReadUnits + writeUnits * onDemand.millionWriteUnits) / million
}

/** Each circuit that is read is a unit, whether there is an item or not; so is each write, applied or refused. */
function priceOfRequests({ circuitsRead, getItem, updateItem }: Requests): number {
  return priceOf({ readUnits: circuitsRead + getItem, writeUnits: updateItem })
}

function readPrice(measured: Healthy): string {
  return dollars(priceOfRequests(perMillion(measured)))
}

function medianOf(runs: readonly Outage[]): OutageRow['measured'] {
  const median = (figure: (run: Outage) => number): number => {
    const sorted = runs.map(figure).toSorted((one, other) => one - other)
    return sorted[Math.floor(sorted.length / 2)] as number
  }
  const requests = (part: (run: Outage) => Requests): Requests => ({
    batchGetItem: median((run) => part(run).batchGetItem),
    circuitsRead: median((run) => part(run).circuitsRead),
    getItem: median((run) => part(run).getItem),
    updateItem: median((run) => part(run).updateItem),
  })
  return {
    before: requests(({ before }) => before),
    onset: requests(({ onset }) => onset),
    during: requests(({ during }) => during),
    probes: median(({ probes }) => probes),
    reached: median(({ reached }) => reached),
  }
}

// --------------------------------------------------------------------------------------------------------- wording

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** The price of the reads of a month with a million invocations a day. */
function aMonth(measured: Healthy): string {
  const price = daysPerMonth * priceOfRequests(perMillion(measured))
  return price < 10 ? `$${Number(price.toPrecision(2)).toFixed(2)}` : `$${significant(price)}`
}

/** A paragraph of lines that are no longer than those of the rest of the page. */
function wrapped(...parts: readonly string[]): string {
  const lines: string[] = []
  let line = ''
  for (const word of parts.join(' ').split(' ')) {
    if (line.length + 1 + word.length > 140) lines.push(line)
    line = line === '' || lines.at(-1) === line ? word : `${line} ${word}`
  }
  return [...lines, line].join('\n')
}

/** To two significant digits, where it is no small whole number. */
function count(value: number): string {
  const rounded = value < 1_000 ? Math.round(value) : Number(value.toPrecision(2))
  return String(rounded).replaceAll(/\B(?=(\d{3})+$)/g, ' ')
}

function rough(value: number): string {
  return count(Number(value.toPrecision(1)))
}

function significant(value: number): string {
  return String(Number(value.toPrecision(2)))
}

/** A price with its significant digits; without exponents, however small. */
function dollars(value: number, digits = 2): string {
  if (value === 0) return '$0'
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(value)))
  const text = value.toFixed(decimals)
  return `$${Number(text) === value ? String(value) : text}`
}
