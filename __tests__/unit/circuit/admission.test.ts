import { describe, expect, it } from '@jest/globals'
import { Admission, type AskedMachines } from '../../../src/circuit/admission.ts'
import type { Reachability } from '../../../src/circuit/world.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import type { CircuitRecord } from '../../../src/storage/contract.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings

const now = 20_000
const closed = circuitRecord({ version: 'v1' })
/** Due since ten seconds ago. */
const open = circuitRecord({ state: 'OPEN', version: 'v2', openedAt: 0, retryAt: 10_000, resetTimeout: 10_000 })
const halfOpen = { ...open, state: 'HALF_OPEN' as const }
const probed = { ...halfOpen, leases: [{ id: 'theirs', expiresAt: 30_000 }] }

interface Known {
  readonly view?: CircuitRecord
  readonly cached?: Partial<Omit<AskedMachines['cached'], 'throttle'>>
  readonly throttle?: Partial<AskedMachines['cached']['throttle']>
  readonly claims?: Partial<AskedMachines['claims']>
  readonly streak?: Partial<AskedMachines['streak']>
  readonly store?: Partial<Reachability>
  readonly settings?: Partial<ServiceSettings>
  readonly needsFreshRecord?: boolean
}

/** The questions to machines that answer as they are told; what is not told is as in a circuit that nothing is wrong with. */
function admissionOf({ view = closed, ...told }: Known = {}): Admission {
  const { needsFreshRecord = false } = told
  const throttle = { isCrowded: false, isShut: false, goesOn: false, ...told.throttle }
  const ages = { readAt: 15_000, staleAt: 25_000, isStale: () => false }
  const doubts = { isDamaged: false, isOutOfTouch: false, isHeldBack: () => false }
  const turns = { delayAt: () => 0, yields: () => false, isReady: () => false, leavesToOthers: () => false }
  return new Admission(
    'stripe',
    { ...defaults, ...told.settings },
    {
      runtime: { now: () => now, random: () => 0, id: () => 'id' },
      store: { canRead: true, canWrite: true, throttlesWrites: false, ...told.store },
      isShared: true,
      storageTimeout: 500,
      emit: () => {},
      onRefusing: () => {},
    },
    {
      view: { record: view },
      cached: { current: view, ...ages, ...doubts, ...told.cached, throttle },
      claims: { ...turns, ...told.claims },
      streak: { admit: () => 'pass', openedAt: undefined, retryAt: 0, lastFailure: undefined, ...told.streak },
      outbox: { needsFreshRecord },
    },
  )
}

/** This instance refuses by itself since then, and wants to probe. */
const refusesSince = (openedAt: number): NonNullable<Known['streak']> => ({
  admit: () => 'claim',
  openedAt,
  retryAt: openedAt + 5_000,
})

describe('a call of a closed circuit', () => {
  it.each<[string, Known, string]>([
    ['passes', {}, 'pass'],
    ['is refused by the failures of this instance', { streak: { admit: () => 'open' } }, 'open'],
    ['probes for this instance alone', { streak: refusesSince(10_000) }, 'claim'],
    [
      'waits for a look in a store that has too much to do',
      { streak: refusesSince(16_000), throttle: { isCrowded: true } },
      'open',
    ],
    ['that passes waits for no look', { streak: { openedAt: 16_000 }, throttle: { isCrowded: true } }, 'pass'],
    ['waits for no look in a store that has time', { streak: refusesSince(16_000) }, 'claim'],
    [
      'waits for no look that cannot come',
      { streak: refusesSince(16_000), throttle: { isCrowded: true, isShut: true } },
      'claim',
    ],
    ['waits for no look after one', { streak: refusesSince(15_000), throttle: { isCrowded: true } }, 'claim'],
    [
      'does not trust an instant in the future',
      { streak: refusesSince(now + 1), throttle: { isCrowded: true } },
      'claim',
    ],
    ['waits from the first instant on', { streak: refusesSince(now), throttle: { isCrowded: true } }, 'open'],
    [
      'waits for nothing where this instance does not refuse',
      { streak: { admit: () => 'claim' }, throttle: { isCrowded: true } },
      'claim',
    ],
    ['is judged by an override', { view: { ...closed, override: { state: 'OPEN', at: 1 } } }, 'forced'],
  ])('%s', (_how, told, verdict) => {
    expect(admissionOf(told).admit(now)).toBe(verdict)
  })
})

describe('a probe that is due', () => {
  it.each<[string, Known, string]>([
    ['is claimed', { view: open }, 'claim'],
    ['waits for the turn of this instance', { view: open, claims: { delayAt: () => 10_001 } }, 'open'],
    ['is claimed when its turn has come', { view: open, claims: { delayAt: () => 10_000 } }, 'claim'],
    ['is left to others', { view: open, claims: { leavesToOthers: () => true } }, 'open'],
    [
      'is left to others while nothing can be written',
      { view: open, store: { canWrite: false, throttlesWrites: true }, settings: { resetTimeout: 60_000 } },
      'open',
    ],
    [
      'is not left to others where this instance is alone',
      { view: open, store: { canWrite: false }, claims: { leavesToOthers: () => true } },
      'claim',
    ],
    ['in a half-open circuit is claimed', { view: halfOpen }, 'claim'],
    ['in a half-open circuit is left to others', { view: halfOpen, claims: { yields: () => true } }, 'probing'],
    [
      'in a half-open circuit is not left to others where this instance is alone',
      { view: halfOpen, store: { canWrite: false }, claims: { yields: () => true } },
      'claim',
    ],
    ['is probed by another', { view: probed }, 'probing'],
    [
      'is probed with the lease that lies ready',
      { view: probed, claims: { isReady: () => true, yields: () => true } },
      'claim',
    ],
    [
      'is refused while it is not due',
      { view: { ...open, retryAt: 25_000, resetTimeout: 25_000 }, claims: { isReady: () => true } },
      'open',
    ],
  ])('%s', (_how, told, verdict) => {
    expect(admissionOf(told).admit(now)).toBe(verdict)
  })

  it.each<[string, Known, boolean]>([
    ['the record is fresh', {}, false],
    ['the record is stale', { cached: { isStale: () => true } }, true],
    ['the store is not waited for', { throttle: { goesOn: true } }, true],
    ['it is overdue', { settings: { resetTimeout: 2_000 } }, true],
  ])('may be asked for, as the claims are told, where %s: %p', (_where, told, expected) => {
    const seen: unknown[] = []
    const leavesToOthers = (...asked: unknown[]): boolean => {
      seen.push(asked)
      return true
    }
    expect(admissionOf({ view: open, claims: { leavesToOthers }, ...told }).admit(now)).toBe('open')
    expect(seen).toEqual([[open, 15_000, expected]])
  })
})

describe('a probe that is asked for in advance', () => {
  it.each<[string, CircuitRecord | undefined, Known['claims'], boolean]>([
    ['nothing is stored', undefined, {}, true],
    ['others probe', halfOpen, { yields: () => true }, true],
    ['it has not its turn', open, { delayAt: () => 10_001 }, true],
    ['it has its turn', open, { delayAt: () => 10_000 }, false],
    ['the circuit is half-open', halfOpen, { delayAt: () => 10_001 }, false],
  ])('is left to others or not where %s', (_where, record, claims = {}, expected) => {
    expect(admissionOf({ claims }).leavesTurn(record, now)).toBe(expected)
  })
})

describe('the record that this instance acts on', () => {
  const lastFailure = { at: 16_000, name: 'Error' }
  const refuses = { openedAt: 16_000, retryAt: 21_000, lastFailure }

  it('is the view, or its own refusal', () => {
    expect(admissionOf().acting).toBe(closed)
    expect(admissionOf({ streak: refuses }).acting).toEqual({
      ...closed,
      state: 'OPEN',
      openedAt: 16_000,
      retryAt: 21_000,
      resetTimeout: 5_000,
      lastFailure,
    })
  })

  it('keeps the last failure of the fleet where its own is not known', () => {
    const view = { ...closed, lastFailure }
    expect(admissionOf({ view, streak: { ...refuses, lastFailure: undefined } }).acting.lastFailure).toEqual(
      lastFailure,
    )
  })

  it.each([
    ['the fleet’s circuit is open', open],
    ['an operator holds it', { ...closed, override: { state: 'CLOSED' as const, at: 1 } }],
  ])('is the view where %s', (_where, view) => {
    expect(admissionOf({ view, streak: refuses }).acting).toBe(view)
  })

  it.each<[string, Known, number]>([
    ['the fleet’s circuit', { view: { ...open, retryAt: 23_000 } }, 4_000],
    ['its own refusal', { streak: refuses }, 1_000],
  ])('is refused for by %s, with the delay of the claims or without', (_which, told, retryAfter) => {
    expect(admissionOf({ ...told, claims: { delayAt: () => 1_000 } }).refusal('open', now).retryAfter).toBe(retryAfter)
  })
})

describe('the way to the store', () => {
  it.each<[string, Known, boolean, boolean]>([
    ['is open', { view: open }, false, false],
    ['is closed', { view: open, store: { canWrite: false } }, true, true],
    ['leads to something that is no record', { view: open, cached: { isDamaged: true } }, true, true],
    [
      'leads to something that is no record, and throttles',
      { cached: { isDamaged: true }, store: { throttlesWrites: true } },
      true,
      true,
    ],
    ['throttles', { view: { ...open, retryAt: now }, store: { canWrite: false, throttlesWrites: true } }, true, false],
    [
      'throttles, and a probe is overdue',
      { view: open, settings: { resetTimeout: 2_000 }, store: { canWrite: false, throttlesWrites: true } },
      true,
      true,
    ],
    ['is open, and a probe is overdue', { view: open, settings: { resetTimeout: 2_000 } }, false, false],
  ])('%s: whether this instance is cut off and alone', (_how, told, isCutOff, isAlone) => {
    const admission = admissionOf(told)
    expect([admission.isCutOff, admission.isAlone]).toEqual([isCutOff, isAlone])
  })

  it.each<[string, Known, boolean]>([
    ['for three times resetTimeout', { view: { ...open, retryAt: 14_000 }, settings: { resetTimeout: 2_000 } }, true],
    ['for less', { view: { ...open, retryAt: 14_001 }, settings: { resetTimeout: 2_000 } }, false],
    ['for 20 s', { view: { ...open, retryAt: 0 }, settings: { resetTimeout: 60_000 } }, true],
    ['and somebody probes', { view: { ...probed, retryAt: 0 } }, false],
    [
      'and the record is not read for now',
      { view: { ...open, retryAt: 0 }, cached: { isHeldBack: () => true } },
      false,
    ],
    [
      'and the store is shut',
      { view: { ...open, retryAt: now }, cached: { isHeldBack: () => true }, throttle: { isShut: true } },
      true,
    ],
    ['in a circuit that has closed', { view: { ...closed, retryAt: 0 } }, false],
  ])('is given up where a probe has been due %s, or not', (_how, told, isOverdue) => {
    expect(admissionOf(told).isOverdue).toBe(isOverdue)
  })

  it.each<[string, Known, boolean, boolean]>([
    ['nothing is wrong', { needsFreshRecord: true, cached: { isOutOfTouch: true } }, true, false],
    [
      'reading is left alone',
      { needsFreshRecord: true, cached: { isOutOfTouch: true }, store: { canRead: false } },
      false,
      true,
    ],
    [
      'the record is held back',
      { needsFreshRecord: true, cached: { isOutOfTouch: true, isHeldBack: () => true } },
      false,
      true,
    ],
    ['the record is not in doubt', { needsFreshRecord: true, store: { canRead: false } }, false, false],
    ['nothing needs it', { cached: { isOutOfTouch: true }, store: { canRead: false } }, false, false],
  ])('can be read, or what waits has to wait for that, where %s', (_where, told, canRead, waitsForRead) => {
    const admission = admissionOf(told)
    expect([admission.canRead, admission.waitsForRead]).toEqual([canRead, waitsForRead])
  })

  it.each<[string, Known, boolean]>([
    ['are sent', {}, false],
    ['wait for the record', { cached: { isHeldBack: () => true } }, true],
    ['wait for a look', { streak: refusesSince(16_000), throttle: { isCrowded: true } }, true],
    ['go on now and then', { cached: { isHeldBack: () => true }, throttle: { goesOn: true } }, false],
  ])('lets outcomes through, or not: they %s', (_how, told, isHeldBack) => {
    expect(admissionOf(told).isHeldBack(now)).toBe(isHeldBack)
  })
})
