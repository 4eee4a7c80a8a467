import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import {
  admit,
  claim,
  clockTolerance,
  close,
  effectiveState,
  force,
  liveLeases,
  type MachineSettings,
  maxLease,
  open,
  type ProbeOutcome,
  reset,
  settle,
  type Tokens,
} from '../../src/circuit/state-machine.ts'
import {
  dismiss,
  isAlone,
  longestShare,
  raise,
  raisingChance,
  reportingChance,
  suspicion,
  type VerdictSettings,
} from '../../src/circuit/suspicion.ts'
import type { CircuitRecord, CircuitState, FailureSummary } from '../../src/storage/contract.ts'
import { emptyRecord, parseCircuitRecord } from '../../src/storage/record.ts'

const start = 1_800_000_000_000
const day = 86_400_000
const failure: FailureSummary = { at: start, name: 'Error' }

const settingsArbitrary: fc.Arbitrary<MachineSettings> = fc
  .record({
    resetTimeout: fc.integer({ min: 1, max: 300_000 }),
    halfOpenSuccessThreshold: fc.integer({ min: 1, max: 4 }),
    halfOpenMaxConcurrent: fc.integer({ min: 1, max: 4 }),
    resetBackoff: fc.constantFrom(1, 1.5, 2, 10),
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
  suspectedAt: fc.option(instantArbitrary, { nil: undefined }),
  failureCount: fc.nat(12),
  startedCount: fc.nat(12),
  earlyCount: fc.nat(12),
  reporterCount: fc.nat(12),
  dismissals: fc.double({ min: 0, max: 1e6, noNaN: true }),
  dismissedAt: fc.option(instantArbitrary, { nil: undefined }),
  noise: fc.option(fc.double({ min: 0.005, max: 0.45, noNaN: true }), { nil: undefined }),
  pace: fc.option(fc.nat(100_000), { nil: undefined }),
  othersAt: fc.option(instantArbitrary, { nil: undefined }),
  closedAt: fc.option(instantArbitrary, { nil: undefined }),
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

/** The settings of a verdict. */
const verdictArbitrary: fc.Arbitrary<VerdictSettings> = fc.record({
  failureThreshold: fc.integer({ min: 1, max: 12 }),
  failureRateThreshold: fc.integer({ min: 1, max: 100 }),
  window: fc.integer({ min: 1, max: 120_000 }),
  cacheTtl: fc.constantFrom(0, 1, 1_000, 5_000, 60_000),
})

/** A service under suspicion for at most two windows. */
const suspectedArbitrary: fc.Arbitrary<CircuitRecord> = fc
  .tuple(recordArbitrary, fc.nat(240_000))
  .map(([record, age]) => ({ ...record, state: 'CLOSED', suspectedAt: start - age }))

describe('a suspicion', () => {
  it('always ends, at the latest when its window and what clocks may be apart are over (invariant 14)', () => {
    fc.assert(
      fc.property(recordArbitrary, verdictArbitrary, (record, settings) => {
        const verdicts = [start, start + settings.window + clockTolerance + 1].map((now) =>
          suspicion(record, now, settings),
        )

        expect(verdicts).not.toEqual(['open', 'open'])
      }),
      { numRuns: 2_000 },
    )
  })

  it('is not made less by another failure, nor more by another success', () => {
    const order = { innocent: 0, open: 1, guilty: 2, none: 3 }
    fc.assert(
      fc.property(suspectedArbitrary, verdictArbitrary, (record, settings) => {
        const verdict = (changes: Partial<CircuitRecord>) =>
          order[suspicion({ ...record, ...changes }, start, settings)]

        expect(verdict({ failureCount: record.failureCount + 1 })).toBeGreaterThanOrEqual(verdict({}))
        expect(verdict({ successCount: record.successCount + 1 })).toBeLessThanOrEqual(verdict({}))
      }),
      { numRuns: 2_000 },
    )
  })

  it('is decided against the service by failures alone, at the latest when its first second is over', () => {
    fc.assert(
      fc.property(suspectedArbitrary, verdictArbitrary, (record, settings) => {
        const sample = { failureCount: 100, successCount: 0, suspectedAt: start - 1_000 }

        expect(suspicion({ ...record, ...sample }, start, { ...settings, window: 60_000 })).toBe('guilty')
      }),
    )
  })

  it('is not decided against the service by one instance while others are known (invariant 13)', () => {
    fc.assert(
      fc.property(suspectedArbitrary, verdictArbitrary, (record, settings) => {
        fc.pre(settings.failureThreshold > 1)
        const known = { ...record, othersAt: start, reporterCount: 1, earlyCount: 1, startedCount: 0 }
        fc.pre(!isAlone(known, start, settings))
        const own = { ...known, failureCount: longestShare(known, start, settings) }

        expect(suspicion(own, start, settings)).not.toBe('guilty')
      }),
      { numRuns: 2_000 },
    )
  })

  it('leaves behind a record that a store can hold, whatever it held', () => {
    fc.assert(
      fc.property(suspectedArbitrary, verdictArbitrary, fc.nat(20), (record, settings, failures) => {
        const tokens = tokenSource()()
        const cause = { failures, at: start, lastFailure: failure }

        for (const next of [raise(record, start, cause, settings, tokens), dismiss(record, start, tokens)]) {
          expect(parseCircuitRecord('stripe', next, 'getState')).toEqual(next)
          expect(next).toMatchObject({ state: 'CLOSED', epoch: record.epoch, version: tokens.version })
        }
      }),
    )
  })
})

describe('every transition', () => {
  /** A clock may be far off, and jump from one decision to the next, but it leaves room for the longest duration behind it. */
  const clockArbitrary = instantArbitrary.map((at) => Math.min(at, 8.64e15 - 10_000_000_000))
  const failureArbitrary = fc.record({
    at: instantArbitrary,
    name: fc.constant('Error'),
    retryAfter: fc.option(fc.oneof(fc.nat(8_640_000_000), fc.constant(Number.MAX_VALUE)), { nil: undefined }),
  })
  const overrideArbitrary = fc.option(
    fc.record({
      state: fc.constantFrom('OPEN' as const, 'CLOSED' as const),
      at: clockArbitrary,
      until: fc.option(instantArbitrary, { nil: undefined }),
    }),
    { nil: undefined },
  )

  it('leaves behind a record that a store can hold, whatever it held and whatever the clocks say', () => {
    const scenario = fc.record({
      record: fc.record({ stored: recordArbitrary, override: overrideArbitrary, trips: fc.maxSafeNat() }).map(
        ({ stored, override, trips }): CircuitRecord => ({
          ...stored,
          trips,
          override,
          retryAt: stored.state === 'OPEN' ? (stored.retryAt ?? 0) : stored.retryAt,
        }),
      ),
      settings: settingsArbitrary,
      now: clockArbitrary,
      at: clockArbitrary,
      until: fc.option(fc.oneof(instantArbitrary, clockArbitrary), { nil: undefined }),
      duration: fc.integer({ min: 1, max: maxLease }),
      failed: failureArbitrary,
      outcome: fc.constantFrom<ProbeOutcome>('success', 'failure', 'release'),
    })
    fc.assert(
      fc.property(scenario, ({ record, settings, now, at, until, duration, failed, outcome }) => {
        const tokens = tokenSource()()
        const probing = claim(record, now, { id: 'lease', expiresAt: now + duration }, settings, tokens)
        const written = [
          open(record, now, settings, tokens, failed),
          open(record, now, settings, tokens, undefined),
          close(record, now, tokens),
          reset(record, now, tokens),
          probing,
          settle(probing, 'lease', outcome, at, settings, tokens, failed),
          ...(['OPEN', 'CLOSED'] as const).map((state) => force(record, { state, at, until }, settings, tokens)),
        ]

        for (const next of written) {
          if (next !== undefined) expect(parseCircuitRecord('stripe', next, 'getState')).toMatchObject({ ...next })
        }
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('chances', () => {
  it('are numbers, whatever a record holds', () => {
    fc.assert(
      fc.property(recordArbitrary, fc.integer({ min: 1, max: 50 }), (record, failures) => {
        expect(raisingChance(record, failures, start)).toBeGreaterThan(0)
        expect(reportingChance(record)).toBeGreaterThan(0)
        expect(reportingChance(record)).toBeLessThanOrEqual(1)
      }),
    )
  })
})

describe('trip, recover, trip', () => {
  it('repeats for ever, each time by as many failures and successes as the settings say (invariant 12)', () => {
    fc.assert(
      fc.property(settingsArbitrary, verdictArbitrary, fc.integer({ min: 1, max: 30 }), (settings, verdict, rounds) => {
        const draw = tokenSource()
        let record = emptyRecord('epoch-0', start)
        let now = start
        for (let round = 1; round <= rounds; round++) {
          record = raise(record, now, { failures: 1, at: now, lastFailure: failure }, verdict, draw())
          for (let n = 1; n < verdict.failureThreshold; n++) {
            expect(suspicion(record, now, verdict)).toBe('open')
            record = { ...record, failureCount: record.failureCount + 1 }
          }
          expect(suspicion(record, now, verdict)).toBe('guilty')
          record = open(record, now, settings, draw(), failure)
          expect(record).toMatchObject({ state: 'OPEN', generation: round * 3 - 2 })
          now = record.retryAt as number
          for (let n = 1; n <= settings.halfOpenSuccessThreshold; n++) {
            expect(admit(record, now, settings)).toBe('claim')
            record = claim(record, now, { id: `lease-${n}`, expiresAt: now + 1_000 }, settings, draw())
            record = settle(record, `lease-${n}`, 'success', now, settings, draw(), undefined) as CircuitRecord
          }
          expect(record).toMatchObject({ state: 'CLOSED', failureCount: 0, successCount: 0, leases: [] })
        }
        expect(record.transitions).toHaveLength(Math.min(8, rounds * 3))
      }),
    )
  })
})
