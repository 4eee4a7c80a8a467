import { describe, expect, test } from '@jest/globals'
import { displayOn, frameOf, line, plain } from '../../examples/demo/display.ts'
import type { Arrival, Call, Recording, Transition } from '../../examples/demo/recording.ts'
import { phaseAt, phases } from '../../examples/demo/scenario.ts'
import { summaryOf } from '../../examples/demo/summary.ts'
import { databaseFiguresOf, figuresOf, pathOf, problemsOf } from '../../examples/demo/verdict.ts'
import type { CircuitRecord, CircuitState } from '../../src/index.ts'
import { resolveConfig } from '../../src/settings/resolve.ts'
import { emptyRecord } from '../../src/storage/record.ts'

const closedRecord: CircuitRecord = { ...emptyRecord('epoch', 0), generation: 5 }

describe('The verdict of the demo', () => {
  test('passes a run in which the circuit opened, probed and closed', () => {
    const recording = goodRun()
    expect(problemsOf(recording)).toEqual([])
    expect(pathOf(recording)).toBe('CLOSED → OPEN → HALF_OPEN → OPEN → HALF_OPEN → CLOSED')
  })

  test('fails a run in which the circuit never opened', () => {
    const problems = problemsOf({ ...goodRun(), transitions: [] })
    expect(problems[0]).toBe('The shared circuit never opened: no instance made the transition CLOSED → OPEN.')
  })

  test('fails a run in which the circuit did not close again', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, transitions: run.transitions.slice(0, -1) })
    expect(problems).toContain('The shared circuit did not close again: CLOSED → OPEN → HALF_OPEN → OPEN → HALF_OPEN.')
  })

  test('fails a transition that two instances claim to have made', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, transitions: [...run.transitions, { ...change(1, 4_200), number: 2 }] })
    expect(problems).toContain('Generation 1 was reported by instances 1 and 2: a transition has one author.')
  })

  test('fails a transition that nobody made', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, transitions: run.transitions.filter(({ generation }) => generation !== 3) })
    expect(problems.join()).toContain('A transition was made by nobody: generation 4')
  })

  test('fails a circuit that opens while the service is healthy', () => {
    const run = goodRun()
    const transitions = run.transitions.map((made) => (made.generation === 1 ? { ...made, at: 3_999 } : made))
    expect(problemsOf({ ...run, transitions })).toContain('The shared circuit opened before the service failed.')
  })

  test('fails a second probe in one half-open period', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, arrivals: [...run.arrivals, arrival(6_310, 'HALF_OPEN', 2, 2)] })
    expect(problems).toEqual(['2 probes reached the service in generation 2, but 1 permitted.'])
  })

  test('fails a probe that no instance claimed', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, arrivals: [...run.arrivals, arrival(6_100, 'HALF_OPEN', 1, 2)] })
    expect(problems).toEqual(['1 probe reached the service in generation 1, but no instance claimed one.'])
  })

  test('fails a probe that came before it was due', () => {
    const run = goodRun()
    const transitions = run.transitions.map((made) => (made.generation === 2 ? { ...made, at: 6_199 } : made))
    const problems = problemsOf({ ...run, transitions })
    expect(problems).toEqual(['Generation 2 probed 1999 ms after the circuit had opened, not 2000.'])
  })

  test('allows calls of an instance that has not learned of the trip, for cacheTtl and no longer', () => {
    const run = goodRun()
    const allowed = arrival(4_700, 'CLOSED', 0, 2)
    const late = arrival(4_900, 'CLOSED', 0, 2)
    expect(problemsOf({ ...run, arrivals: [...run.arrivals, allowed] })).toEqual([])
    expect(problemsOf({ ...run, arrivals: [...run.arrivals, late] })).toEqual([
      '1 call reached the service after the trip and the 500 ms of cacheTtl that an instance has to learn of it.',
    ])
  })

  test('fails an instance that goes on after as many failures as trip it alone', () => {
    const run = goodRun()
    const more = [4_010, 4_020, 4_030].map((at) => arrival(at, 'CLOSED', 0, 2))
    expect(problemsOf({ ...run, arrivals: [...run.arrivals, ...more] })).toEqual([
      'Instance 2 sent 4 calls to the failing service; it refuses after 3.',
    ])
  })

  test('fails a call that passes an open circuit', () => {
    const run = goodRun()
    const problems = problemsOf({ ...run, arrivals: [...run.arrivals, arrival(5_000, 'OPEN', 1, 1)] })
    expect(problems).toEqual(['1 call passed an open circuit and reached the service.'])
  })

  test('fails an instance that never refuses or is not served in the end', () => {
    const run = goodRun()
    const calls = run.calls.filter(({ number, outcome }) => number === 1 || outcome === 'failed')
    expect(problemsOf({ ...run, calls })).toEqual([
      'Never refused a call: instance 2.',
      'Not served after the recovery: instance 2.',
    ])
  })

  test('fails a write while the service is healthy, the warm-up included', () => {
    const run = goodRun()
    const early = { at: Number.NEGATIVE_INFINITY, operation: 'UpdateItem' }
    expect(problemsOf({ ...run, requests: [...run.requests, early] })).toEqual([
      '1 write went to DynamoDB while the service was healthy: there must be none.',
    ])
  })

  test('fails a breaker that spares the dead service nothing', () => {
    const run = goodRun()
    const arrivals = run.arrivals.filter(({ fleet }) => fleet !== 'none')
    expect(problemsOf({ ...run, arrivals })).toEqual([
      'The dead service was reached 0 times without a breaker, 8 with one each, 3 with one for all.',
    ])
  })

  test('fails a record that does not say what was reported', () => {
    const run = goodRun()
    expect(problemsOf({ ...run, record: undefined })).toEqual([
      'DynamoDB holds nothing, but the last transition reported was to CLOSED, generation 5.',
    ])
    expect(problemsOf({ ...run, record: { ...closedRecord, failureCount: 1 } })).toEqual([
      'The closed record still counts 1 failures and 0 leases.',
    ])
  })
})

describe('The figures of the demo', () => {
  test('count what reached the failing service, and how long the slowest instance took', () => {
    expect(figuresOf(goodRun(), 'shared')).toMatchObject({
      reached: 3,
      reachedBy: new Map([['503', 3]]),
      failedProbes: 1,
      untilAllRefuse: 250,
      untilAllServe: 2_600,
      trips: 1,
      reopened: 1,
    })
  })

  test('say so when an instance never refused', () => {
    const run = goodRun()
    const calls = run.calls.filter(({ number, outcome }) => number === 1 || outcome !== 'refused')
    expect(figuresOf({ ...run, calls }, 'shared').untilAllRefuse).toBeUndefined()
  })

  test('tell reads from writes', () => {
    const { reads, writes, healthyWrites } = databaseFiguresOf(goodRun())
    expect([...reads]).toEqual([
      ['BatchGetItem', 1],
      ['GetItem', 1],
    ])
    expect([...writes]).toEqual([['UpdateItem', 1]])
    expect(healthyWrites).toBe(0)
  })
})

describe('The display of the demo', () => {
  const { calls, fleetSize } = goodRun()
  const now = 4_950
  const progress = { now, phases, fleetSize, calls: calls.filter(({ endedAt }) => endedAt <= now) }
  const colour = '\x1b[3'

  test('shows the three fleets, and the circuit of each instance as a letter', () => {
    const frame = frameOf(progress, plain)
    const row = frame.findIndex((text) => text.includes('the shared circuit'))
    expect(frame[row]?.trim().split(/\s{2,}/)).toEqual(['the shared circuit (DynamoDB)', '6', '2', '2', '2', '16 ms'])
    expect(frame[row + 1]?.trim()).toBe('OO')
    expect(frame.filter((text) => text.includes('breaker'))).toHaveLength(2)
  })

  test('writes plain lines where there is no terminal', () => {
    const written = writtenTo({}, {})
    expect(written).not.toContain('\x1b')
    expect(written).toContain(line(progress, plain))
  })

  test('writes plain lines on a terminal in CI', () => {
    expect(writtenTo({ isTTY: true }, { CI: 'true', NO_COLOR: '1' })).not.toContain('\x1b')
  })

  test('redraws in place and in colour on a terminal, and gives the cursor back', () => {
    const written = writtenTo({ isTTY: true, columns: 120, rows: 40 }, {})
    expect(written).toContain(colour)
    expect(written).toContain('\r\x1b[12A\x1b[J')
    expect(written.endsWith('\x1b[?25h')).toBe(true)
  })

  test('leaves colours out where they are not wanted', () => {
    expect(writtenTo({ isTTY: true }, { NO_COLOR: '1' })).not.toContain(colour)
  })

  test('never draws more than fits', () => {
    const written = writtenTo({ isTTY: true, columns: 40, rows: 10 }, { NO_COLOR: '1' })
    const [frame = ''] = written.split('\r').slice(0, 1)
    const lines = frame.replaceAll('\x1b[?25l', '').trimEnd().split('\n')
    expect(lines.length).toBeLessThan(10)
    expect(Math.max(...lines.map((text) => text.length))).toBeLessThan(40)
  })

  function writtenTo(
    terminal: { isTTY?: boolean; columns?: number; rows?: number },
    env: Record<string, string>,
  ): string {
    let written = ''
    const display = displayOn({ ...terminal, write: (text) => (written += text) }, env)
    display.update(progress)
    display.update(progress)
    display.close()
    return written
  }
})

test('The summary of the demo ends with the verdict, every problem, and what it comes to', () => {
  const lines = summaryOf(goodRun(), ['It did not work.'], plain)
  const sentence =
    '12 calls reached the dead service without a breaker, 8 with one in each instance, 3 with the shared one.'
  expect(lines.slice(-3)).toEqual(['FAILED', '  - It did not work.', sentence])
  expect(summaryOf(goodRun(), [], plain).slice(-2)).toEqual(['PASSED', sentence])
})

/** Two instances: a trip after three failures, a probe that fails, a probe that succeeds. */
function goodRun(): Recording {
  const settings = resolveConfig(
    { services: ['s'], storage: 'memory', resetTimeout: 2_000, cacheTtl: 500, timeout: 400 },
    {},
  ).services.get('s')
  if (settings === undefined) throw new Error('no settings')
  return {
    phases,
    fleetSize: 2,
    settings,
    calls: [
      call(3_000, 1, 'served'),
      call(3_050, 2, 'served'),
      call(4_100, 1, 'failed'),
      call(4_150, 2, 'failed'),
      call(4_250, 2, 'refused', 'OPEN'),
      call(4_300, 1, 'refused', 'OPEN'),
      call(18_100, 1, 'served'),
      call(18_600, 2, 'served'),
    ],
    arrivals: [
      arrival(3_000, 'CLOSED', 0, 1),
      arrival(4_050, 'CLOSED', 0, 1),
      arrival(4_150, 'CLOSED', 0, 2),
      arrival(6_300, 'HALF_OPEN', 2, 1),
      arrival(18_090, 'HALF_OPEN', 4, 1),
      ...Array.from({ length: 12 }, (_, i) => arrival(4_100 + 100 * i, 'CLOSED', 0, 1, 'none')),
      ...Array.from({ length: 8 }, (_, i) => arrival(4_100 + 100 * i, 'CLOSED', 0, 1 + (i % 2), 'alone')),
    ],
    transitions: [change(1, 4_200), change(2, 6_300), change(3, 6_310), change(4, 18_080), change(5, 18_100)],
    requests: [
      { at: 1_000, operation: 'BatchGetItem' },
      { at: 6_290, operation: 'GetItem' },
      { at: 4_190, operation: 'UpdateItem' },
    ],
    storageFailures: [],
    record: closedRecord,
  }
}

function call(endedAt: number, number: number, outcome: Call['outcome'], state: CircuitState = 'CLOSED'): Call {
  return { fleet: 'shared', number, endedAt, latency: 16, outcome, state }
}

function arrival(
  at: number,
  state: CircuitState,
  generation: number,
  number: number,
  fleet: Arrival['fleet'] = 'shared',
): Arrival {
  const { failure } = phaseAt(phases, at)
  return { fleet, number, arrivedAt: at, sentAt: at - 1, state, generation, failure }
}

function change(generation: number, at: number): Transition {
  const path: readonly CircuitState[] = ['CLOSED', 'OPEN', 'HALF_OPEN', 'OPEN', 'HALF_OPEN', 'CLOSED']
  const [from, to] = path.slice(generation - 1) as [CircuitState, CircuitState]
  return { fleet: 'shared', number: 1, from, to, generation, at, reportedAt: at + 5, reason: 'failure-threshold' }
}
