import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import type { Fault } from '../../support/recording-storage.ts'
import { controlled, createFleet, ok, outcomeOf, ServiceUnavailable } from '../../support/virtual-fleet.ts'

type Step =
  | {
      readonly kind: 'call'
      readonly instance: number
      readonly comesTo: 'ok' | 'failure' | 'ignored'
      readonly takes: number
      readonly abortAfter: number | undefined
      readonly timeout: number | false
    }
  | { readonly kind: 'wait'; readonly milliseconds: number }
  | { readonly kind: 'flush' | 'load'; readonly instance: number }
  | { readonly kind: 'fault'; readonly fault: Fault }
  | { readonly kind: 'clock'; readonly by: number }
  | { readonly kind: 'latency'; readonly request: number; readonly reply: number }

interface Setup {
  readonly instances: number
  readonly halfOpenMaxConcurrent: number
  readonly halfOpenSuccessThreshold: number
  readonly withFaults: boolean
  /** The clock steps back and forth; by a wrong clock more leases than allowed may be live. */
  readonly withClockSteps?: boolean
}

function stepsFor({ instances, withFaults, withClockSteps = false }: Setup): fc.Arbitrary<Step[]> {
  const instance = fc.nat(instances - 1)
  const latency = fc.constantFrom(0, 2, 10, 100)
  const call = fc.record({
    kind: fc.constant('call' as const),
    instance,
    comesTo: fc.constantFrom('ok' as const, 'failure' as const, 'failure' as const, 'ignored' as const),
    takes: fc.constantFrom(0, 0, 5, 50, 400, 4_000),
    abortAfter: fc.constantFrom(undefined, undefined, 0, 3, 20),
    timeout: fc.constantFrom(false as const, 30, 1_000),
  })
  const wait = fc.record({
    kind: fc.constant('wait' as const),
    milliseconds: fc.constantFrom(0, 1, 5, 20, 100, 600, 1_000, 1_500, 5_000, 31_000, 61_000),
  })
  const sync = fc.record({ kind: fc.constantFrom('flush' as const, 'load' as const), instance })
  const fault = fc.record({
    kind: fc.constant('fault' as const),
    fault: fc.constantFrom<Fault>('fail', 'hang', 'lose', 'lose-with-error'),
  })
  const slow = fc.record({ kind: fc.constant('latency' as const), request: latency, reply: latency })
  const clock = fc.record({
    kind: fc.constant('clock' as const),
    by: fc.constantFrom(-3_600_000, -30_000, -5_000, -100, 30_000, 3_600_000),
  })
  const step = fc.oneof(
    { weight: 10, arbitrary: call },
    { weight: 6, arbitrary: wait },
    { weight: 2, arbitrary: sync },
    { weight: 1, arbitrary: slow },
    { weight: withFaults ? 1 : 0, arbitrary: fault },
    { weight: withClockSteps ? 1 : 0, arbitrary: clock },
  )
  return fc.array<Step>(step, { minLength: 5, maxLength: 40 })
}

const transitions = new Set(['CLOSED>OPEN', 'OPEN>HALF_OPEN', 'HALF_OPEN>CLOSED', 'HALF_OPEN>OPEN'])

/** Lets a fleet live through the steps and then recover; returns which of the invariants did not hold. */
async function violations(setup: Setup, steps: readonly Step[]): Promise<string[]> {
  const { instances, halfOpenMaxConcurrent, halfOpenSuccessThreshold, withFaults } = setup
  const { start, storage, runtime, events } = createFleet({
    failureThreshold: 2,
    resetTimeout: 1_000,
    maxConcurrent: 3,
    cacheTtl: 500,
    halfOpenMaxConcurrent,
    halfOpenSuccessThreshold,
  })
  const found: string[] = []
  let before: CircuitRecord | undefined
  storage.onWrite = (_service, record) => {
    const live = record.leases.filter(({ expiresAt }) => expiresAt > runtime.now()).length
    if (live > halfOpenMaxConcurrent && !setup.withClockSteps) found.push(`1: ${live} leases`)
    if (live > 0 && record.state !== 'HALF_OPEN') found.push(`1: ${live} leases in ${record.state}`)
    if (before !== undefined && before.state !== record.state) {
      if (!transitions.has(`${before.state}>${record.state}`)) found.push(`${before.state}>${record.state}`)
      if (record.generation !== before.generation + 1) found.push('generation does not grow by 1')
    }
    if ((before?.epoch !== record.epoch) !== (before?.state !== record.state) && before !== undefined)
      found.push('3: epoch')
    before = record
  }
  const fleet = Array.from({ length: instances }, () => start())
  await Promise.all(fleet.map((breaker) => breaker.load()))
  const calls: Promise<unknown>[] = []
  for (const step of steps) {
    if (step.kind === 'wait') await runtime.advance(step.milliseconds)
    else if (step.kind === 'clock') runtime.setClock(runtime.now() + step.by)
    else if (step.kind === 'fault') storage.inject(step.fault)
    else if (step.kind === 'latency') Object.assign(storage, { requestLatency: step.request, replyLatency: step.reply })
    else if (step.kind === 'call') {
      const { comesTo, takes, abortAfter, timeout } = step
      const controller = new AbortController()
      if (abortAfter === 0) controller.abort(new Error('caller'))
      else if (abortAfter !== undefined) runtime.setTimeout(() => controller.abort(new Error('caller')), abortAfter)
      const operation = async (): Promise<string> => {
        if (takes > 0) await runtime.sleep(takes)
        if (comesTo === 'failure') throw new ServiceUnavailable('503')
        if (comesTo === 'ignored') throw new TypeError('a bug')
        return 'ok'
      }
      calls.push(
        outcomeOf((fleet[step.instance] ?? start()).call('stripe', operation, { timeout, signal: controller.signal })),
      )
      await Promise.resolve()
    } else void fleet[step.instance]?.[step.kind]()
  }
  storage.heal()
  await runtime.advance(70_000)
  await Promise.all(calls)
  await Promise.all(fleet.map((breaker) => breaker.flush()))

  // The service is well again, the store too, and nothing is in flight: everyone recovers.
  await runtime.advance(61_000)
  for (let round = 0; round < 4 * halfOpenSuccessThreshold + 4; round++) {
    for (const breaker of fleet) {
      await breaker.load()
      await outcomeOf(breaker.call('stripe', ok))
      await breaker.flush()
    }
    await runtime.advance(1_100)
  }
  for (const breaker of fleet) {
    await breaker.load()
    if (breaker.circuits.stripe?.state !== 'CLOSED') found.push(`2: still ${breaker.circuits.stripe?.state}`)
    if (breaker.needsFlush) found.push('9: something waits for ever')
    const probe = controlled()
    const results = [1, 2, 3, 4].map(() => outcomeOf(breaker.call('stripe', probe.operation)))
    await runtime.settle()
    if (probe.started !== 3) found.push(`5: ${probe.started} of 3 permits`)
    probe.succeed('ok')
    await Promise.all(results)
  }
  const end = await storage.peek('stripe')
  if (end !== undefined && (end.state !== 'CLOSED' || end.leases.length > 0)) found.push(`12: ${JSON.stringify(end)}`)
  const told = events.map(({ generation }) => generation)
  if (new Set(told).size < told.length) found.push(`4: told twice: ${told}`)
  if (!withFaults && told.length < (end?.generation ?? 0)) found.push(`4: not told: ${told} of ${end?.generation}`)
  if (runtime.pendingTimers.length > 0) found.push('timers are left')
  return found
}

const expectNone = (setup: Setup, options: fc.Parameters<[Step[]]>): Promise<void> =>
  fc.assert(
    fc.asyncProperty(stepsFor(setup), async (steps) => {
      expect(await violations(setup, steps)).toEqual([])
    }),
    options,
  )

const call = { kind: 'call', instance: 0, takes: 0, abortAfter: undefined, timeout: false } as const
const failure = { ...call, comesTo: 'failure' } as const
const success = { ...call, comesTo: 'ok' } as const
const wait = (milliseconds: number) => ({ kind: 'wait', milliseconds }) as const

describe('whatever the order of calls, ends, waits, cancellations and store latencies', () => {
  it('the invariants hold for a fleet with one probe', async () => {
    const setup = { instances: 3, halfOpenMaxConcurrent: 1, halfOpenSuccessThreshold: 1, withFaults: false }
    await expectNone(setup, { numRuns: 300 })
  })

  it('the invariants hold for a fleet that wants two successes', async () => {
    const setup = { instances: 3, halfOpenMaxConcurrent: 1, halfOpenSuccessThreshold: 2, withFaults: false }
    await expectNone(setup, { numRuns: 300 })
  })

  it('nothing wedges, fires twice or leaks when the clock steps back and forth', async () => {
    const setup = { instances: 3, halfOpenMaxConcurrent: 1, halfOpenSuccessThreshold: 1, withFaults: false }
    await expectNone({ ...setup, withClockSteps: true }, { numRuns: 300 })
  })

  // The examples are histories that once ended with 21 leases.
  it('the invariants hold for two probes in one instance', async () => {
    const setup = { instances: 1, halfOpenMaxConcurrent: 2, halfOpenSuccessThreshold: 2, withFaults: false }
    const example: Step[] = [
      { ...failure, timeout: 30, takes: 50 },
      failure,
      wait(1_500),
      success,
      success,
      { kind: 'latency', request: 2, reply: 0 },
      wait(0),
      wait(20),
      { kind: 'flush', instance: 0 },
      success,
    ]
    await expectNone(setup, { numRuns: 300, examples: [[example]] })
  })

  it('the invariants hold while requests to the store are refused, lost or never answered', async () => {
    const setup = { instances: 2, halfOpenMaxConcurrent: 1, halfOpenSuccessThreshold: 2, withFaults: true }
    const example: Step[] = [
      { kind: 'fault', fault: 'fail' },
      failure,
      { ...failure, takes: 400 },
      { kind: 'fault', fault: 'lose-with-error' },
      wait(31_000),
      { kind: 'fault', fault: 'fail' },
      wait(0),
      success,
      success,
    ]
    await expectNone(setup, { numRuns: 300, examples: [[example]] })
  })
})
