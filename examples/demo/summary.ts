/**
 * What the run came to, for people.
 *
 * @module
 */

import { milliseconds, type Paint } from './display.ts'
import type { Recording } from './recording.ts'
import { outageOf } from './scenario.ts'
import { databaseFiguresOf, type FleetFigures, figuresOf, pathOf, sharedTransitions } from './verdict.ts'

/** The figures, the way of the circuit, and the verdict. */
export function summaryOf(recording: Recording, problems: readonly string[], paint: Paint): string[] {
  const { phases, fleetSize, storageFailures } = recording
  const none = figuresOf(recording, 'none')
  const alone = figuresOf(recording, 'alone')
  const shared = figuresOf(recording, 'shared')
  const database = databaseFiguresOf(recording)
  const { from, to } = outageOf(phases)
  const each = (name: string, value: (figures: FleetFigures) => string | number): string =>
    row(name, value(none), value(alone), value(shared))
  /** What there is only with a breaker. */
  const both = (name: string, value: (figures: FleetFigures) => string | number): string =>
    row(name, '–', value(alone), value(shared))
  const transitions = sharedTransitions(recording)
  const generations = new Set(transitions.map(({ generation }) => generation)).size

  return [
    paint('bold', `Summary: ${fleetSize} instances each way, an outage of ${(to - from) / 1_000} s`),
    '',
    paint('bold', row('', 'no breaker', 'one each', 'shared')),
    each('invocations during the outage', ({ asked }) => asked),
    paint(
      'bold',
      each('calls that reached the failing service', ({ reached }) => reached),
    ),
    each(
      '  503 / reset / hang',
      ({ reachedBy: by }) => `${by.get('503') ?? 0} / ${by.get('reset') ?? 0} / ${by.get('hang') ?? 0}`,
    ),
    both('  of these, probes of an open circuit', ({ failedProbes }) => failedProbes),
    both('first failure → last instance refuses', ({ untilAllRefuse }) => seconds(untilAllRefuse)),
    each('recovery → last instance is served', ({ untilAllServe }) => seconds(untilAllServe)),
    both('calls refused', ({ refused }) => refused),
    both('  latency, p50 / p99', ({ refusalLatency: { p50, p99 } }) => `${milliseconds(p50)} / ${milliseconds(p99)}`),
    each('answered by the fallback', ({ fallbacks }) => fallbacks),
    both('opened from CLOSED / from HALF_OPEN', ({ trips, reopened }) => `${trips} / ${reopened}`),
    row('DynamoDB reads', '–', '–', sum(database.reads)),
    row('DynamoDB writes', '–', '–', sum(database.writes)),
    row('  while the service was healthy', '–', '–', database.healthyWrites),
    '',
    `Failures seen by callers that share the circuit: ${list(shared.errors)}.`,
    `DynamoDB requests: ${list(new Map([...database.reads, ...database.writes]))}; failed: ${storageFailures.length}.`,
    '(GetItem: before a probe, and after a write that lost a race, because dynalite does not return what won it.)',
    `The shared circuit: ${pathOf(recording)}`,
    `(${generations} changes of state, ${transitions.length} events: each change has one author.)`,
    '',
    ...verdict(problems, paint),
    paint('bold', sentenceOf(none.reached, alone.reached, shared.reached)),
  ]
}

function sentenceOf(none: number, alone: number, shared: number): string {
  const calls = (count: number): string => count.toLocaleString('en')
  return `${calls(none)} calls reached the dead service without a breaker, ${calls(alone)} with one in each instance, ${calls(shared)} with the shared one.`
}

function verdict(problems: readonly string[], paint: Paint): string[] {
  return problems.length === 0
    ? [paint('green', 'PASSED')]
    : [paint('red', 'FAILED'), ...problems.map((problem) => paint('red', `  - ${problem}`))]
}

function row(name: string, ...cells: readonly (string | number)[]): string {
  return `  ${name.padEnd(38)}${cells.map((cell) => String(cell).padStart(20)).join('')}`
}

function list(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, n]) => `${n} × ${name}`).join(', ') || 'none'
}

function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((total, n) => total + n, 0)
}

function seconds(value: number | undefined): string {
  return value === undefined ? 'never' : `${(value / 1_000).toFixed(2)} s`
}
