/** The tables of `docs/evidence/clients.md`, as they were observed. */

import type { Client } from './client.ts'
import { type ClientName, clientNames, clients } from './clients.ts'
import { type FaultName, faultNames, faults } from './faults.ts'
import type { Observation } from './observe.ts'
import { hidingCauses } from './verdicts.ts'

const begin = '<!-- The matrix: `npm run page -- classification` writes what is between these lines. -->'
const end = '<!-- The end of the matrix. -->'

const titles: Readonly<Record<Client['kind'], string>> = {
  http: 'HTTP clients',
  sdk: 'AWS SDK and Stripe',
  api: 'Other APIs',
  grpc: 'gRPC',
  database: 'Databases',
  broker: 'Brokers and mail',
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
  const { client, fault, state, probed, stored, reached, message, judged, opensFor = 0 } = observation
  if (state === 'CLOSED') {
    const { group, limit } = faults[fault]
    const isGap = reached === 'error' && !judged && group === 'transport' && limit !== 'operation'
    return isGap ? `**passes**: “${message}”` : probed === 'CLOSED' ? 'answers' : 'passes'
  }
  if (faults[fault].retryAfter !== undefined) return opensFor > 10_000 ? 'counts, open until then' : 'counts'
  const isTelling = faults[fault].group === 'transport' && !faults[fault].isRaced
  // One that tries again may have seen the failure, or only that its time was up.
  const code = hidingCauses.includes(client) ? undefined : stored?.code
  const evidence = isTelling ? [stored?.name, code].filter((text) => text !== undefined) : []
  return ['counts', ...evidence.map((text) => `\`${text}\``)].join(' ')
}
