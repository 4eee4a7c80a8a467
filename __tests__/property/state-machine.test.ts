import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  admit,
  claim,
  clockTolerance,
  close,
  decideCount,
  effectiveState,
  force,
  liveFailureCount,
  liveLeases,
  type MachineSettings,
  maxLease,
  open,
  type ProbeOutcome,
  reset,
  retryTime,
  settle,
  type Tokens,
} from '../../src/circuit/state-machine.ts'
import type { CircuitRecord, CircuitState, FailureSummary } from '../../src/storage/contract.ts'
import { emptyRecord } from '../../src/storage/record.ts'

const start = 1_800_000_000_000
const day = 86_400_000
const failure: FailureSummary = { at: start, name: 'Error' }

const settingsArbitrary: fc.Arbitrary<MachineSettings> = fc
  .record({
    failureThreshold: fc.integer({ min: 1, max: 6 }),
    resetTimeout: fc.integer({ min: 1, max: 300_000 }),
    halfOpenSuccessThreshold: fc.integer({ min: 1, max: 4 }),
    halfOpenMaxConcurrent: fc.integer({ min: 1, max: 4 }),
    window: fc.integer({ min: 1, max: 120_000 }),
    slack: fc.integer({ min: 0, max: 600_000 }),
  })
  .map(({ slack, ...settings }) => ({ ...settings, maxResetTimeout: settings.resetTimeout + slack }))

/** Any instant that a record can hold, those around the start more often. */
const instantArbitrary = fc.oneof(
  fc.integer({ min: start - day, max: start + day }),
  fc.integer({ min: start - 1_100_000, max: start + 1_100_000 }),
  fc.integer({ min: 0, max: 8.64e15 }),
  fc.constantFrom(0, start, 8.64e15),
)

/** Any record that a store can hold, as broken as clocks can make it. */
const recordArbitrary: fc.Arbitrary<CircuitRecord> = fc.record({
  schema: fc.constant(1 as const),
  version: fc.constantFrom('v-1', 'v-2', 'e-1', 'e-2'),
  epoch: fc.constantFrom('e-1', 'e-2'),
  generation: fc.nat(1_000),
  state: fc.constantFrom<CircuitState>('CLOSED', 'OPEN', 'HALF_OPEN'),
  failureCount: fc.nat(12),
  lastFailureAt: fc.option(instantArbitrary, { nil: undefined }),
  successCount: fc.nat(6),
  openedAt: fc.option(instantArbitrary, { nil: undefined }),
  retryAt: fc.option(instantArbitrary, { nil: undefined }),
  resetTimeout: fc.option(fc.oneof(fc.integer({ min: 0, max: 600_000 }), fc.constant(8.64e15)), { nil: undefined }),
  leases: fc.uniqueArray(
    fc.record({ id: fc.integer({ min: 1, max: 20 }).map((n) => `lease-${n}`), expiresAt: instantArbitrary }),
    { selector: (lease) => lease.id, maxLength: 6 },
  ),
  trips: fc.nat(10),
  lastFailure: fc.constant(undefined),
  override: fc.constant(undefined),
  transitions: fc.array(fc.constantFrom('t-1', 't-2'), { maxLength: 8 }),
  updatedAt: instantArbitrary,
})

function tokenSource(): () => Tokens {
  let drawn = 0
  return () => {
    drawn++
    return { version: `version-${drawn}`, epoch: `epoch-${drawn}` }
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) deepFreeze(part)
    Object.freeze(value)
  }
  return value
}

/**
 * What DESIGN's table says, for one circuit and one clock, told a second time: periods are numbered, a streak is a list
 * of instants, and nothing is shared with the code.
 */
class Specification {
  period = 0
  state: CircuitState = 'CLOSED'
  streak: number[] = []
  successes = 0
  retryAt = 0
  leases = new Map<string, number>()
  forced: { state: 'OPEN' | 'CLOSED'; until: number } | undefined
  readonly settings: MachineSettings

  constructor(settings: MachineSettings) {
    this.settings = settings
  }

  #become(state: CircuitState): void {
    this.period++
    this.state = state
    this.successes = 0
    this.leases.clear()
    if (state === 'CLOSED') this.streak = []
    this.forced = undefined
  }

  isForced(now: number): boolean {
    return this.forced !== undefined && now < this.forced.until
  }

  liveStreak(now: number): number {
    const last = this.streak.at(-1)
    return last !== undefined && now - last <= this.settings.window ? this.streak.length : 0
  }

  inFlight(now: number): number {
    return [...this.leases.values()].filter((expiresAt) => expiresAt > now).length
  }

  call(now: number): 'pass' | 'claim' | 'open' | 'probing' | 'forced' {
    if (this.isForced(now)) return this.forced?.state === 'OPEN' ? 'forced' : 'pass'
    if (this.state === 'CLOSED') return 'pass'
    if (this.state === 'OPEN') return now < this.retryAt ? 'open' : 'claim'
    return this.inFlight(now) < this.settings.halfOpenMaxConcurrent ? 'claim' : 'probing'
  }

  claim(id: string, now: number, expiresAt: number): void {
    if (this.state === 'OPEN') this.#become('HALF_OPEN')
    if (this.leases.size >= this.settings.halfOpenMaxConcurrent) {
      for (const [other, expiry] of this.leases) if (expiry <= now) this.leases.delete(other)
    }
    this.leases.set(id, expiresAt)
  }

  #trip(now: number): void {
    this.#become('OPEN')
    this.retryAt = now + this.settings.resetTimeout
  }

  callEnded(period: number, isSuccess: boolean, now: number): void {
    if (period !== this.period || this.state !== 'CLOSED' || this.isForced(now)) return
    if (isSuccess || this.liveStreak(now) === 0) this.streak = []
    if (isSuccess) return
    this.streak.push(now)
    if (this.streak.length >= this.settings.failureThreshold) this.#trip(now)
  }

  probeEnded(id: string, outcome: ProbeOutcome, now: number): void {
    if (!this.leases.delete(id)) return
    if (outcome === 'failure') this.#trip(now)
    if (outcome !== 'success') return
    this.successes++
    if (this.successes >= this.settings.halfOpenSuccessThreshold) this.#become('CLOSED')
  }

  observe(now: number): object {
    const isDue = this.state === 'OPEN' && now >= this.retryAt
    return {
      call: this.call(now),
      state: this.state,
      effective: this.isForced(now) ? this.forced?.state : isDue ? 'HALF_OPEN' : this.state,
      generation: this.period,
      transitions: Math.min(8, this.period),
      successes: this.successes,
      leases: [...this.leases.keys()],
      inFlight: this.inFlight(now),
      tooMany: false,
      streak: this.state === 'CLOSED' ? this.liveStreak(now) : 0,
      retryAt: this.state === 'OPEN' && this.forced === undefined ? this.retryAt : 0,
    }
  }

  force(state: 'OPEN' | 'CLOSED', now: number, until: number | undefined): void {
    this.#become(state)
    this.streak = []
    this.retryAt = until ?? now + this.settings.resetTimeout
    this.forced = { state, until: until ?? Number.POSITIVE_INFINITY }
  }

  reset(): void {
    this.#become('CLOSED')
  }
}

interface InFlight {
  readonly epoch: string
  readonly period: number
  readonly lease: string | undefined
}

type Step =
  | { readonly kind: 'wait'; readonly for: number }
  | { readonly kind: 'waitForRetry' }
  | { readonly kind: 'call'; readonly lease: number }
  | { readonly kind: 'end'; readonly which: number; readonly outcome: ProbeOutcome }
  | { readonly kind: 'die'; readonly which: number }
  | { readonly kind: 'force'; readonly state: 'OPEN' | 'CLOSED'; readonly for: number | undefined }
  | { readonly kind: 'reset' }

const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), for: fc.integer({ min: 0, max: 150_000 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), for: fc.integer({ min: 0, max: 50 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('waitForRetry' as const) }) },
  {
    weight: 10,
    arbitrary: fc.record({ kind: fc.constant('call' as const), lease: fc.integer({ min: 1, max: maxLease }) }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('end' as const),
      which: fc.nat(30),
      outcome: fc.constantFrom<ProbeOutcome>('success', 'failure', 'failure', 'release'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('die' as const), which: fc.nat(30) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('force' as const),
      state: fc.constantFrom('OPEN' as const, 'CLOSED' as const),
      for: fc.option(fc.integer({ min: 1, max: 400_000 }), { nil: undefined }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reset' as const) }) },
)

/** One circuit in a store that does what the storage contract says, with the calls that are in flight. */
class Circuit {
  record: CircuitRecord = deepFreeze(emptyRecord('epoch-0', start))
  readonly #settings: MachineSettings
  readonly #tokens = tokenSource()

  constructor(settings: MachineSettings) {
    this.#settings = settings
  }

  #write(next: CircuitRecord): void {
    expect(next.version).not.toBe(this.record.version)
    const isNewState = next.state !== this.record.state
    if (isNewState) {
      expect(next.epoch).not.toBe(this.record.epoch)
      expect(next.generation).toBe(this.record.generation + 1)
    }
    this.record = deepFreeze(next)
  }

  claim(id: string, now: number, expiresAt: number): void {
    this.#write(claim(this.record, now, { id, expiresAt }, this.#settings, this.#tokens()))
  }

  callEnded(epoch: string, isSuccess: boolean, now: number): void {
    if (epoch !== this.record.epoch) return
    const outcomes = { success: isSuccess, failures: isSuccess ? 0 : 1, at: now, lastFailure: failure }
    const decision = decideCount(this.record, outcomes, now, this.#settings, this.#tokens())
    if (decision.kind === 'replace' || decision.kind === 'trip') this.#write(decision.next)
    if (decision.kind === 'increment') {
      const failureCount = this.record.failureCount + 1
      this.record = deepFreeze({ ...this.record, failureCount, lastFailureAt: decision.at, updatedAt: decision.at })
    }
  }

  probeEnded(id: string, outcome: ProbeOutcome, now: number): void {
    const next = settle(this.record, id, outcome, now, this.#settings, this.#tokens(), failure)
    if (next !== undefined) this.#write(next)
  }

  force(state: 'OPEN' | 'CLOSED', now: number, until: number | undefined): void {
    this.#write(force(this.record, { state, at: now, until }, this.#settings, this.#tokens()))
  }

  reset(now: number): void {
    this.#write(reset(this.record, now, this.#tokens()))
  }
}

/** What is compared with {@link Specification.observe}. */
function observe(record: CircuitRecord, now: number, settings: MachineSettings): object {
  return {
    call: admit(record, now, settings),
    state: record.state,
    effective: effectiveState(record, now, settings),
    generation: record.generation,
    transitions: record.transitions.length,
    successes: record.successCount,
    leases: record.leases.map(({ id }) => id),
    inFlight: liveLeases(record, now).length,
    tooMany: liveLeases(record, now).length > settings.halfOpenMaxConcurrent,
    streak: record.state === 'CLOSED' ? liveFailureCount(record, now, settings.window) : 0,
    retryAt: record.state === 'OPEN' && record.override === undefined ? retryTime(record, settings) : 0,
  }
}

function play(settings: MachineSettings, steps: readonly Step[], seen: Map<string, number>): void {
  const specification = new Specification(settings)
  const circuit = new Circuit(settings)
  const calls: InFlight[] = []
  let now = start
  let lease = 0

  for (const step of steps) {
    switch (step.kind) {
      case 'wait':
        now += step.for
        break
      case 'waitForRetry':
        now = Math.max(now, circuit.record.retryAt ?? now)
        break
      case 'call': {
        const verdict = admit(circuit.record, now, settings)
        expect(verdict).toBe(specification.call(now))
        seen.set(verdict, (seen.get(verdict) ?? 0) + 1)
        const id = verdict === 'claim' ? `lease-${lease++}` : undefined
        if (id !== undefined) {
          circuit.claim(id, now, now + step.lease)
          specification.claim(id, now, now + step.lease)
        }
        if (verdict === 'pass' || id !== undefined) {
          calls.push({ epoch: circuit.record.epoch, period: specification.period, lease: id })
        }
        break
      }
      case 'end': {
        const [call] = calls.splice(calls.length === 0 ? 0 : step.which % calls.length, 1)
        if (call === undefined) break
        if (call.lease !== undefined) {
          circuit.probeEnded(call.lease, step.outcome, now)
          specification.probeEnded(call.lease, step.outcome, now)
        } else if (step.outcome !== 'release') {
          circuit.callEnded(call.epoch, step.outcome === 'success', now)
          specification.callEnded(call.period, step.outcome === 'success', now)
        }
        break
      }
      case 'die':
        calls.splice(calls.length === 0 ? 0 : step.which % calls.length, 1)
        break
      case 'force': {
        const until = step.for === undefined ? undefined : now + step.for
        circuit.force(step.state, now, until)
        specification.force(step.state, now, until)
        break
      }
      case 'reset':
        circuit.reset(now)
        specification.reset()
        break
    }

    const { record } = circuit
    expect(observe(record, now, settings)).toEqual(specification.observe(now))
    seen.set(record.state, (seen.get(record.state) ?? 0) + 1)
  }
}

describe('the state machine', () => {
  it('does what the table says under any sequence of calls, outcomes, deaths, waits and operators', () => {
    const seen = new Map<string, number>()

    fc.assert(
      fc.property(settingsArbitrary, fc.array(stepArbitrary, { maxLength: 120, size: 'max' }), (settings, steps) =>
        play(settings, steps, seen),
      ),
      { numRuns: 400 },
    )

    // The sequences reach everything that they are to test.
    expect([...seen.keys()].sort()).toEqual([
      'CLOSED',
      'HALF_OPEN',
      'OPEN',
      'claim',
      'forced',
      'open',
      'pass',
      'probing',
    ])
    expect(Math.min(...seen.values())).toBeGreaterThan(50)
  })
})

describe('an open circuit', () => {
  it('lets nothing pass before retryAt, and a refusal changes nothing (invariant 7)', () => {
    fc.assert(
      fc.property(
        settingsArbitrary,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (settings, part) => {
          const closed = emptyRecord('e-0', start)
          const record = deepFreeze(open(closed, start, settings, tokenSource()(), failure))
          const now = start + Math.floor(part * settings.resetTimeout)

          const before = structuredClone(record)

          expect(admit(record, now, settings)).toBe('open')
          expect(effectiveState(record, now, settings)).toBe('OPEN')
          expect(record).toEqual(before)
          expect(admit(record, start + settings.resetTimeout, settings)).toBe('claim')
        },
      ),
    )
  })

  it('is not changed by outcomes of calls, however many', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.boolean(),
        fc.nat(100),
        (record, settings, success, failures) => {
          fc.pre(record.state !== 'CLOSED')
          const outcomes = { success, failures, at: start, lastFailure: failure }

          expect(decideCount(record, outcomes, start, settings, tokenSource()())).toEqual({ kind: 'nothing' })
        },
      ),
    )
  })
})

describe('a change of state', () => {
  it('draws the given epoch, adds it to the transitions and keeps at most 8', () => {
    const changes: ((record: CircuitRecord, settings: MachineSettings, tokens: Tokens) => CircuitRecord | undefined)[] =
      [
        (record, settings, tokens) => open(record, start, settings, tokens, failure),
        (record, settings, tokens) => force(record, { state: 'OPEN', at: start }, settings, tokens),
        (record, settings, tokens) => force(record, { state: 'CLOSED', at: start }, settings, tokens),
        (record, _settings, tokens) => close(record, start, tokens),
        (record, _settings, tokens) => reset(record, start, tokens),
        (record, settings, tokens) =>
          claim({ ...record, state: 'OPEN' }, start, { id: 'x', expiresAt: start }, settings, tokens),
      ]
    fc.assert(
      fc.property(fc.constantFrom(...changes), recordArbitrary, settingsArbitrary, (change, record, settings) => {
        const tokens = tokenSource()()

        const next = change(deepFreeze(record), settings, tokens)

        expect(next).toMatchObject({
          version: tokens.version,
          epoch: tokens.epoch,
          generation: record.generation + 1,
          transitions: [...record.transitions, tokens.epoch].slice(-8),
          successCount: 0,
          updatedAt: start,
        })
      }),
    )
  })

  it('is the only thing that draws an epoch', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.constantFrom<ProbeOutcome>('success', 'failure', 'release'),
        (record, settings, outcome) => {
          const tokens = tokenSource()()
          const writes = [
            settle(record, record.leases[0]?.id ?? '', outcome, start, settings, tokens, failure),
            claim({ ...record, state: 'HALF_OPEN' }, start, { id: 'x', expiresAt: start }, settings, tokens),
          ]

          for (const next of writes) {
            if (next === undefined) continue
            const isNewState = next.epoch === tokens.epoch
            expect(next.transitions.includes(tokens.epoch)).toBe(isNewState)
            expect(next.generation).toBe(record.generation + (isNewState ? 1 : 0))
            if (!isNewState) expect(next.epoch).toBe(record.epoch)
            expect(next.version).toBe(tokens.version)
          }
        },
      ),
    )
  })
})

describe('a probe', () => {
  it('changes nothing if its lease is unknown or the circuit is not half-open (invariant 3)', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom<ProbeOutcome>('success', 'failure', 'release'),
        (record, settings, n, outcome) => {
          const lease = `lease-${n}`
          const counts = record.state === 'HALF_OPEN' && record.leases.some(({ id }) => id === lease)

          const next = settle(deepFreeze(record), lease, outcome, start, settings, tokenSource()(), failure)

          expect(next !== undefined).toBe(counts)
        },
      ),
    )
  })

  it('gives its lease back exactly once', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.constantFrom<ProbeOutcome>('success', 'release'),
        (record, settings, outcome) => {
          const halfOpen: CircuitRecord = { ...record, state: 'HALF_OPEN' }
          const draw = tokenSource()
          for (const { id } of record.leases) {
            const once = settle(halfOpen, id, outcome, start, settings, draw(), undefined)
            expect(once?.leases.some((lease) => lease.id === id)).toBe(false)
            expect(settle(once as CircuitRecord, id, outcome, start, settings, draw(), undefined)).toBeUndefined()
          }
        },
      ),
    )
  })

  it('that closes the circuit leaves the counters empty (invariant 12)', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (record, settings) => {
        fc.pre(record.leases.length > 0)
        const halfOpen: CircuitRecord = {
          ...record,
          state: 'HALF_OPEN',
          successCount: settings.halfOpenSuccessThreshold - 1,
        }

        const next = settle(
          halfOpen,
          record.leases[0]?.id ?? '',
          'success',
          start,
          settings,
          tokenSource()(),
          undefined,
        )

        expect(next).toMatchObject({ state: 'CLOSED', failureCount: 0, successCount: 0, leases: [] })
        expect(liveFailureCount(next as CircuitRecord, start, settings.window)).toBe(0)
      }),
    )
  })
})

describe('leases', () => {
  type FleetStep =
    | { readonly kind: 'decide'; readonly instance: number; readonly lease: number }
    | { readonly kind: 'end'; readonly instance: number; readonly which: number; readonly outcome: ProbeOutcome }
    | { readonly kind: 'store'; readonly instance: number }
    | { readonly kind: 'wait'; readonly for: number }

  const fleetStep: fc.Arbitrary<FleetStep> = fc.oneof(
    fc.record({ kind: fc.constant('decide' as const), instance: fc.nat(4), lease: fc.integer({ min: 1, max: 2_000 }) }),
    fc.record({
      kind: fc.constant('end' as const),
      instance: fc.nat(4),
      which: fc.nat(9),
      outcome: fc.constantFrom<ProbeOutcome>('success', 'failure', 'release', 'release'),
    }),
    fc.record({ kind: fc.constant('store' as const), instance: fc.nat(4) }),
    fc.record({ kind: fc.constant('store' as const), instance: fc.nat(4) }),
    fc.record({ kind: fc.constant('wait' as const), for: fc.nat(1_500) }),
  )

  it('are never more than halfOpenMaxConcurrent at once, however reads and writes interleave (invariant 1)', () => {
    fc.assert(
      fc.property(settingsArbitrary, fc.array(fleetStep, { maxLength: 150, size: 'max' }), (settings, steps) => {
        const draw = tokenSource()
        let now = start + settings.resetTimeout
        let stored = open(emptyRecord('e-0', start), start, settings, draw(), failure)
        const onTheWay = new Map<number, { expected: string | undefined; next: CircuitRecord }>()

        for (const step of steps) {
          if (step.kind === 'wait') now += step.for
          if (step.kind === 'decide' && admit(stored, now, settings) === 'claim') {
            const tokens = draw()
            const next = claim(stored, now, { id: tokens.version, expiresAt: now + step.lease }, settings, tokens)
            onTheWay.set(step.instance, { expected: stored.version, next })
          }
          if (step.kind === 'end') {
            const lease = stored.leases[step.which % Math.max(1, stored.leases.length)]?.id ?? ''
            const next = settle(stored, lease, step.outcome, now, settings, draw(), failure)
            if (next !== undefined) onTheWay.set(step.instance, { expected: stored.version, next })
          }
          if (step.kind === 'store') {
            const write = onTheWay.get(step.instance)
            onTheWay.delete(step.instance)
            if (write !== undefined && write.expected === stored.version) stored = deepFreeze(write.next)
          }
          expect(liveLeases(stored, now).length).toBeLessThanOrEqual(settings.halfOpenMaxConcurrent)
        }
      }),
      { numRuns: 300 },
    )
  })
})

describe('a circuit that nobody can get stuck in (invariants 2 and 8)', () => {
  const isOffer = (record: CircuitRecord, now: number, settings: MachineSettings): boolean =>
    ['pass', 'claim'].includes(admit(record, now, settings))

  it('lets a call through at once or when its reset timeout and the tolerance are over, whatever instants it holds', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (record, settings) => {
        fc.pre(record.state !== 'HALF_OPEN')
        const longest = Math.min(record.resetTimeout ?? settings.resetTimeout, settings.maxResetTimeout)

        expect(isOffer(record, start, settings) || isOffer(record, start + longest + clockTolerance, settings)).toBe(
          true,
        )
      }),
      { numRuns: 2_000 },
    )
  })

  it('offers a probe at once or when the longest lease and the tolerance are over, whatever its leases say', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (record, settings) => {
        const leases = record.leases.slice(0, settings.halfOpenMaxConcurrent)
        const halfOpen: CircuitRecord = { ...record, state: 'HALF_OPEN', leases }

        const later = start + maxLease + clockTolerance

        expect(isOffer(halfOpen, start, settings) || isOffer(halfOpen, later, settings)).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })

  it('offers a probe after at most one longest lease per lease, also with more leases than are allowed', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (record, settings) => {
        const halfOpen: CircuitRecord = { ...record, state: 'HALF_OPEN' }
        const bound = start + record.leases.length * (maxLease + clockTolerance)
        const candidates = [start, ...record.leases.map(({ expiresAt }) => expiresAt)]

        const offers = candidates.filter((at) => at >= start && at <= bound && isOffer(halfOpen, at, settings))

        expect(offers).not.toEqual([])
      }),
      { numRuns: 2_000 },
    )
  })

  it('recovers by one prober that asks again and again, whatever instants it begins with', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (broken, settings) => {
        const draw = tokenSource()
        let record = broken
        let now = start
        let probes = 0
        while (record.state !== 'CLOSED' && probes < 100 && now <= start + 8 * (maxLease + clockTolerance)) {
          if (admit(record, now, settings) === 'claim') {
            const id = `probe-${probes++}`
            record = claim(record, now, { id, expiresAt: now + 30_000 }, settings, draw())
            record = settle(record, id, 'success', now, settings, draw(), undefined) as CircuitRecord
          } else now += 10_000
        }

        expect(record.state).toBe('CLOSED')
        expect(probes).toBeLessThanOrEqual(settings.halfOpenSuccessThreshold)
      }),
      { numRuns: 500 },
    )
  })
})

describe('a streak', () => {
  it('trips at a total of the threshold or more, overshoot and orphaned trips included (invariant 6)', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.boolean(),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: -clockTolerance, max: 240_000 }),
        (record, settings, success, count, age) => {
          const closed: CircuitRecord = { ...record, state: 'CLOSED', lastFailureAt: start - age }
          const outcomes = { success, failures: count, at: start, lastFailure: failure }
          const before = success || age > settings.window ? 0 : record.failureCount

          const decision = decideCount(closed, outcomes, start, settings, tokenSource()())

          expect(decision.kind === 'trip').toBe(before + count >= settings.failureThreshold)
          if (decision.kind === 'trip') expect(decision.next.failureCount).toBe(before + count)
          if (decision.kind === 'replace') expect(decision.next.failureCount).toBe(count)
          if (decision.kind === 'increment' && record.failureCount > 0) expect(before).toBe(record.failureCount)
        },
      ),
      { numRuns: 1_000 },
    )
  })

  it('is never taken back in time by outcomes that waited, and what they count is the same', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.boolean(),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: -clockTolerance, max: 240_000 }),
        fc.integer({ min: 0, max: 240_000 }),
        (record, settings, success, count, age, waited) => {
          const closed: CircuitRecord = { ...record, state: 'CLOSED', lastFailureAt: start - age }
          const isLive = record.failureCount > 0 && age <= settings.window
          const decide = (at: number) => {
            const outcomes = { success, failures: count, at, lastFailure: undefined }
            return decideCount(closed, outcomes, start, settings, tokenSource()())
          }

          const late = decide(start - waited)
          const at = late.kind === 'increment' ? late.at : 'next' in late ? late.next.lastFailureAt : undefined

          expect(at).toBe(isLive ? Math.max(start - age, start - waited) : start - waited)
          expect(late.kind === 'trip').toBe(decide(start).kind === 'trip')
          if (late.kind === 'trip') {
            expect(late.next.failureCount).toBe((success || !isLive ? 0 : record.failureCount) + count)
          }
        },
      ),
      { numRuns: 1_000 },
    )
  })

  it('is zero after an idle gap longer than the window', () => {
    fc.assert(
      fc.property(
        recordArbitrary,
        settingsArbitrary,
        fc.integer({ min: 1, max: day }),
        (record, { window }, excess) => {
          const idle: CircuitRecord = { ...record, lastFailureAt: start }

          expect(liveFailureCount(idle, start + window, window)).toBe(record.failureCount)
          expect(liveFailureCount(idle, start + window + excess, window)).toBe(0)
        },
      ),
    )
  })

  it('of a healthy circuit is never written', () => {
    fc.assert(
      fc.property(recordArbitrary, settingsArbitrary, (record, settings) => {
        const healthy: CircuitRecord = { ...record, state: 'CLOSED', failureCount: 0 }
        const outcomes = { success: true, failures: 0, at: start, lastFailure: undefined }

        expect(decideCount(healthy, outcomes, start, settings, tokenSource()())).toEqual({ kind: 'nothing' })
      }),
    )
  })
})

describe('trip, recover, trip', () => {
  it('repeats for ever, each time by as many failures and successes as the settings say (invariant 12)', () => {
    fc.assert(
      fc.property(settingsArbitrary, fc.integer({ min: 1, max: 30 }), (settings, rounds) => {
        const circuit = new Circuit(settings)
        let now = start
        for (let round = 1; round <= rounds; round++) {
          for (let n = 1; n <= settings.failureThreshold; n++) {
            expect(circuit.record.state).toBe('CLOSED')
            circuit.callEnded(circuit.record.epoch, false, now)
          }
          expect(circuit.record).toMatchObject({
            state: 'OPEN',
            generation: round * 3 - 2,
            retryAt: now + settings.resetTimeout,
          })
          now += settings.resetTimeout
          for (let n = 1; n <= settings.halfOpenSuccessThreshold; n++) {
            expect(admit(circuit.record, now, settings)).toBe('claim')
            circuit.claim(`lease-${round}-${n}`, now, now + 1_000)
            circuit.probeEnded(`lease-${round}-${n}`, 'success', now)
          }
          expect(circuit.record).toMatchObject({ state: 'CLOSED', failureCount: 0, successCount: 0, leases: [] })
        }
        expect(circuit.record.transitions).toHaveLength(Math.min(8, rounds * 3))
      }),
    )
  })
})
