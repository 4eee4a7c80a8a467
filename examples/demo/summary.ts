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
  const shared = figuresOf(recording, 'shared')
  const alone = figuresOf(recording, 'alone')
  const database = databaseFiguresOf(recording)
  const { from, to } = outageOf(phases)
  const both = (name: string, value: (figures: FleetFigures) => string | number): string =>
    row(name, value(shared), value(alone))
  const transitions = sharedTransitions(recording)
  const generations = new Set(transitions.map(({ generation }) => generation)).size

  return [
    paint('bold', `Summary: ${fleetSize} processes each way, an outage of ${(to - from) / 1_000} s`),
    '',
    paint('bold', row('', 'shared circuit', 'circuit each')),
    both('invocations during the outage', ({ asked }) => asked),
    paint(
      'bold',
      both('calls that reached the failing service', ({ reached }) => reached),
    ),
    both(
      '  503 / reset / hang',
      ({ reachedBy: by }) => `${by.get('503') ?? 0} / ${by.get('reset') ?? 0} / ${by.get('hang') ?? 0}`,
    ),
    both('  of these, probes of an open circuit', ({ failedProbes }) => failedProbes),
    both('first failure → last instance refuses', ({ untilAllRefuse }) => seconds(untilAllRefuse)),
    both('recovery → last instance is served', ({ untilAllServe }) => seconds(untilAllServe)),
    both('calls refused', ({ refused }) => refused),
    both(
      '  latency, p50 / p99 (reads of the state included)',
      ({ refusalLatency: { p50, p99 } }) => `${milliseconds(p50)} / ${milliseconds(p99)}`,
    ),
    both('answered by the fallback', ({ fallbacks }) => fallbacks),
    both('went to OPEN from CLOSED / from HALF_OPEN', ({ trips, reopened }) => `${trips} / ${reopened}`),
    row('DynamoDB reads', sum(database.reads), '–'),
    row('DynamoDB writes', sum(database.writes), '–'),
    row('  while the service was healthy', database.healthyWrites, '–'),
    '',
    `Failures seen by the callers: ${list(shared.errors)}; with a circuit each: ${list(alone.errors)}.`,
    `DynamoDB requests: ${list(new Map([...database.reads, ...database.writes]))}; failed: ${storageFailures.length}.`,
    '(GetItem: before a probe, and after a write that lost a race, because dynalite does not return what won it.)',
    `The shared circuit: ${pathOf(recording)}`,
    `(${generations} changes of state, ${transitions.length} events: each change has one author.)`,
    '',
    ...verdict(problems, paint),
  ]
}

function verdict(problems: readonly string[], paint: Paint): string[] {
  return problems.length === 0
    ? [paint('green', 'PASSED')]
    : [paint('red', 'FAILED'), ...problems.map((problem) => paint('red', `  - ${problem}`))]
}

function row(name: string, shared: string | number, alone: string | number): string {
  return `  ${name.padEnd(50)}${String(shared).padStart(18)}${String(alone).padStart(18)}`
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
