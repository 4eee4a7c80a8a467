/**
 * Describes circuits in words: their state, its reason, and what to do.
 *
 * @module
 */

import { activeOverride, liveLeases, retryTime } from '../circuit/state-machine.ts'
import type { CircuitOverride, CircuitRecord, FailureSummary, JournalEntry } from '../storage/contract.ts'
import { type Paint, safe } from './console.ts'
import { type Standing, type StoredCircuit, standingOf } from './stored-circuits.ts'
import { duration, instant, relative } from './times.ts'

/** The title of each standing, for lists. */
export const titles: Readonly<Record<Standing, string>> = {
  closed: 'closed',
  suspected: 'closed, under suspicion',
  open: 'OPEN',
  due: 'OPEN, probe due',
  probing: 'HALF-OPEN, probing',
  'forced-open': 'FORCED OPEN',
  'forced-closed': 'forced closed',
  damaged: 'DAMAGED',
  'not-stored': 'closed, nothing stored',
}

const colours: Readonly<Record<Standing, Parameters<Paint>[0]>> = {
  closed: 'green',
  suspected: 'yellow',
  open: 'red',
  due: 'yellow',
  probing: 'yellow',
  'forced-open': ['red', 'bold'],
  'forced-closed': ['cyan', 'bold'],
  damaged: ['magenta', 'bold'],
  'not-stored': 'green',
}

/** The title of a standing in its colour. */
export function painted(standing: Standing, paint: Paint): string {
  return paint(colours[standing], titles[standing])
}

/** When the circuit took its state; `undefined`: its record does not tell. */
export function sinceOf(record: CircuitRecord, now: number): number | undefined {
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.at
  return record.state === 'CLOSED' ? (record.suspectedAt ?? record.closedAt) : record.openedAt
}

/** The next event of a circuit, briefly: `probe in 7 s`. */
export function nextOf({ record }: StoredCircuit, standing: Standing, now: number): string {
  if (record === undefined) return standing === 'damaged' ? 'mcb reset repairs it' : ''
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.until === undefined ? 'until reset' : `ends ${relative(forced.until, now)}`
  if (standing === 'open') return `probe ${relative(retryAtOf(record), now)}`
  if (standing === 'due') return 'the next call probes'
  if (standing === 'probing')
    return `lease ends ${relative(Math.max(...record.leases.map(({ expiresAt }) => expiresAt)), now)}`
  return ''
}

function retryAtOf(record: CircuitRecord): number {
  return retryTime(record, { maxResetTimeout: Number.POSITIVE_INFINITY })
}

/** A failure in words: `TimeoutError, code ETIMEDOUT, HTTP 504`. */
export function failureText({ name, code, status }: FailureSummary): string {
  const parts = [
    safe(name),
    code === undefined || code === name ? '' : `code ${safe(code)}`,
    status === undefined ? '' : `HTTP ${status}`,
  ]
  return parts.filter((part) => part !== '').join(', ')
}

/** The operator of an override, and the reason. */
export function ownerText({ by, why }: Pick<CircuitOverride, 'by' | 'why'>): string {
  const who = by === undefined ? 'an unnamed operator' : safe(by)
  return why === undefined ? who : `${who}: ${safe(why)}`
}

/** One line of the journal. */
export function entryText(entry: JournalEntry, now: number, withKey: boolean, key: string): string {
  const { at, from, to, reason, evidence, lastFailure, functionName, requestId, by, why } = entry
  const parts = [
    `${instant(at, now)} `,
    withKey ? `${safe(key)} ` : '',
    `${safe(from)} → ${safe(to)}`,
    reasonWords[reason] ?? safe(reason),
    evidence === undefined ? '' : evidenceText(evidence),
    lastFailure === undefined ? '' : failureText(lastFailure),
    by === undefined && why === undefined ? '' : `by ${ownerText({ by, why })}`,
    functionName === undefined
      ? ''
      : `in ${safe(functionName)}${requestId === undefined ? '' : `, request ${safe(requestId)}`}`,
  ]
  const [time, name, change, ...rest] = parts as [string, string, string, ...string[]]
  return `${time}${name}${change}: ${rest.filter((part) => part !== '').join('; ')}`
}

const reasonWords: Readonly<Record<string, string>> = {
  'failure-threshold': 'the service failed too often',
  'probe-started': 'a probe started',
  'probe-succeeded': 'the probe succeeded',
  'probe-failed': 'the probe failed',
  'forced-open': 'an operator forced it open',
  'forced-closed': 'an operator forced it closed',
  reset: 'an operator reset it',
  set: 'an operator set it',
}

function evidenceText({
  failures,
  successes,
  reporters,
}: {
  failures: number
  successes: number
  reporters: number
}): string {
  return `${counted(failures, 'failure')} and ${counted(successes, 'success', 'successes')}, reported by ${counted(reporters, 'instance')}`
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

/** The whole explanation: a headline, labelled facts, and what to do. */
export interface Explanation {
  readonly headline: string
  readonly facts: readonly (readonly [label: string, text: string])[]
  readonly advice: readonly string[]
}

/**
 * Explains a circuit.
 *
 * @param journal the latest entries, the oldest first; `undefined`: the store keeps no journal, or it cannot be read
 */
export function explain(
  circuit: StoredCircuit,
  journal: readonly JournalEntry[] | undefined,
  now: number,
): Explanation {
  const standing = standingOf(circuit, now)
  const { key, record, damage } = circuit
  const name = safe(key)
  if (record === undefined) {
    return {
      headline: `${name}: ${headlines[standing]}`,
      facts: damage === undefined ? [] : [['The store says', safe(damage)]],
      advice: advices[standing],
    }
  }
  const facts: [string, string][] = []
  const add = (label: string, text: string | undefined) =>
    text !== undefined && text !== '' && facts.push([label, text])
  const at = (time: number) => `${instant(time, now)}, ${relative(time, now)}`
  const since = sinceOf(record, now)
  const override = activeOverride(record, now)
  add(
    'Since',
    since === undefined
      ? undefined
      : at(since) + (record.trips > 1 && isOpened(standing) ? `, trip ${record.trips} in a row` : ''),
  )
  if (override !== undefined) {
    add('Forced by', ownerText(override))
    add('Ends', override.until === undefined ? 'only by mcb reset' : at(override.until))
  }
  // A failed probe opens the circuit again, but its entry has no evidence.
  const outage = journal?.slice(journal.findLastIndex(({ to }) => to === 'CLOSED') + 1)
  const openings = outage?.filter(({ to, reason }) => to === 'OPEN' && reason !== 'forced-open')
  const opening = openings?.findLast(({ evidence }) => evidence !== undefined) ?? openings?.at(-1)
  if (isOpened(standing) && opening !== undefined) {
    add('Evidence', opening.evidence === undefined ? reasonWords[opening.reason] : evidenceText(opening.evidence))
    add('Opened in', authorText(opening))
  } else if (isOpened(standing))
    add('Evidence', `${counted(record.failureCount, 'failure')} (the journal has no more details)`)
  if (standing === 'suspected') {
    add(
      'Evidence',
      `so far ${evidenceText({ failures: record.failureCount, successes: record.successCount, reporters: record.reporterCount })}`,
    )
  }
  if (record.lastFailure !== undefined)
    add('Last failure', `${failureText(record.lastFailure)}, ${at(record.lastFailure.at)}`)
  if (standing === 'open') add('Next probe', `${at(retryAtOf(record))}, by the first call of any instance from then on`)
  if (standing === 'due') add('Next probe', `since ${at(retryAtOf(record))}: by the next call of any instance`)
  if (standing === 'probing') {
    const ends = Math.max(...liveLeases(record, now).map(({ expiresAt }) => expiresAt))
    add('Probe', `under way; its lease ends ${at(ends)}, then another instance may probe`)
    const probe = journal?.findLast(({ reason }) => reason === 'probe-started')
    if (probe !== undefined) add('Probed in', authorText(probe))
  }
  add('A call now', calls[standing])
  return { headline: `${name}: ${headlines[standing]}`, facts, advice: advices[standing] }
}

function isOpened(standing: Standing): boolean {
  return ['open', 'due', 'probing'].includes(standing)
}

function authorText({ functionName, requestId, logStream, traceId }: JournalEntry): string | undefined {
  const parts = [
    functionName === undefined ? '' : `function ${safe(functionName)}`,
    requestId === undefined ? '' : `request ${safe(requestId)}`,
    logStream === undefined ? '' : `log stream ${safe(logStream)}`,
    traceId === undefined ? '' : `trace ${safe(traceId)}`,
  ]
  return parts.filter((part) => part !== '').join(', ') || undefined
}

const headlines: Readonly<Record<Standing, string>> = {
  closed: 'closed. Calls pass.',
  suspected: 'closed, under suspicion. Calls pass, and the fleet counts a sample of them.',
  open: 'OPEN. Calls are refused.',
  due: 'OPEN, and its probe is due. The next call is the probe. All other calls are refused.',
  probing: 'HALF-OPEN. A probe is under way. All other calls are refused.',
  'forced-open': 'FORCED OPEN by an operator. Every call is refused, whatever the service does.',
  'forced-closed': 'FORCED CLOSED by an operator. Every call passes, whatever the service does.',
  damaged: 'DAMAGED. Its record cannot be read, so every instance keeps its own circuit.',
  'not-stored': 'closed. Nothing is stored: the service has not failed for two days.',
}

const calls: Readonly<Record<Standing, string>> = {
  closed: 'reaches the service',
  suspected: 'reaches the service',
  open: 'gets its fallback, or CircuitOpenError with status 503 and Retry-After',
  due: 'becomes the probe if it is the first; all other calls are refused',
  probing: 'gets its fallback, or CircuitOpenError with status 503 and Retry-After',
  'forced-open': 'gets its fallback, or CircuitOpenError with status 503',
  'forced-closed': 'reaches the service',
  damaged: "reaches the service, unless its instance's own circuit is open",
  'not-stored': 'reaches the service',
}

const advices: Readonly<Record<Standing, readonly string[]>> = {
  closed: [],
  suspected: ['Wait some seconds. The next calls of the fleet open the circuit or dismiss the suspicion.'],
  open: [
    'Look at the last failure and at the status page of the service. The circuit closes by itself once a probe succeeds.',
    'If you know that the service works again: mcb reset KEY --why TEXT. If the circuit opened several times: mcb log KEY.',
  ],
  due: [
    'Wait for the next call: a call probes a circuit, not a timer.',
    'As long as nothing calls the service, no call is refused.',
  ],
  probing: ['Wait for the probe. If it succeeds, the circuit closes by itself.'],
  'forced-open': ['When the reason no longer holds: mcb reset KEY --why TEXT.'],
  'forced-closed': [
    'When the reason no longer holds: mcb reset KEY --why TEXT. Until then nothing protects callers from an outage.',
  ],
  damaged: ['Find out what wrote the record. Then repair it: mcb reset KEY --why TEXT.'],
  'not-stored': [],
}

/** The time since a circuit took its state, briefly. */
export function ageText(record: CircuitRecord | undefined, now: number): string {
  const since = record === undefined ? undefined : sinceOf(record, now)
  return since === undefined ? '' : duration(now - since)
}
