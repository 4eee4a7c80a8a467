/** The tables of `docs/classification.md`, as they were observed. */

import { type Client, type ClientName, clientNames, clients } from './clients.ts'
import { type FaultName, faultNames, faults } from './faults.ts'
import type { Observation } from './observe.ts'

const begin = '<!-- The matrix: `npm run classification` writes what is between these lines. -->'
const end = '<!-- The end of the matrix. -->'

const titles: Readonly<Record<Client['kind'], string>> = {
  http: 'HTTP clients',
  sdk: 'AWS SDK and Stripe',
  grpc: 'gRPC',
  database: 'Databases',
  code: 'Your own code',
}

/** The page with its tables replaced. */
export function withMatrix(page: string, observations: readonly Observation[]): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error('The page has no place for the matrix.')
  const tables = Object.entries(titles).map(([kind, title]) => `### ${title}\n\n${table(kind, observations)}`)
  return `${before}${begin}\n\n${tables.join('\n\n')}\n\n${end}${after}`
}

function table(kind: string, observations: readonly Observation[]): string {
  const columns = clientNames.filter((client) => clients[client].kind === kind)
  const found = (client: ClientName, fault: FaultName): Observation | undefined =>
    observations.find((observation) => observation.client === client && observation.fault === fault)
  const rows = faultNames.filter((fault) => columns.some((client) => found(client, fault) !== undefined))
  const lines = [
    ['', ...columns],
    ['---', ...columns.map(() => '---')],
    ...rows.map((fault) => [fault, ...columns.map((client) => cell(found(client, fault)))]),
  ]
  return lines.map((cells) => `| ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`).join('\n')
}

function cell(observation: Observation | undefined): string {
  if (observation === undefined) return '–'
  const { fault, state, probed, stored, reached, message, judged, opensFor = 0 } = observation
  if (state === 'CLOSED') {
    const { group, limit } = faults[fault]
    const isGap = reached === 'error' && !judged && group === 'transport' && limit !== 'operation'
    return isGap ? `**passes**: “${message}”` : probed === 'CLOSED' ? 'answers' : 'passes'
  }
  if (faults[fault].retryAfter !== undefined) return opensFor > 10_000 ? 'counts, open until then' : 'counts'
  const isTelling = faults[fault].group === 'transport' && !faults[fault].isRaced
  const evidence = isTelling ? [stored?.name, stored?.code].filter((text) => text !== undefined) : []
  return ['counts', ...evidence.map((text) => `\`${text}\``)].join(' ')
}
