import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { CircuitStorageError } from '../../../src/errors.ts'
import type { CircuitRecord, FailureSummary } from '../../../src/storage/contract.ts'
import { emptyRecord, expiryOf, parseCircuitRecord, plus, retention } from '../../../src/storage/record.ts'

const now = 1_800_000_000_000
const maxInstant = 8.64e15

/** A record in which every field is set. */
function fullRecord(changes: object = {}): CircuitRecord {
  return {
    schema: 1,
    version: 'version-1',
    epoch: 'epoch-1',
    generation: 7,
    state: 'OPEN',
    suspectedAt: now - 3,
    failureCount: 3,
    successCount: 1,
    startedCount: 5,
    earlyCount: 2,
    reporterCount: 4,
    dismissals: 1.25,
    dismissedAt: now - 4,
    noise: 0.0317,
    pace: 12.5,
    othersAt: now - 2,
    lastFailureAt: now - 1,
    openedAt: now,
    closedAt: now - 5,
    retryAt: now + 10_000,
    resetTimeout: 10_000,
    leases: [{ id: 'lease-1', expiresAt: now + 30_000 }],
    trips: 2,
    lastFailure: { at: now - 1, name: 'TimeoutError', code: 'ETIMEDOUT', status: 504 },
    override: { state: 'OPEN', at: now, until: now + 60_000 },
    transitions: ['transition-1'],
    updatedAt: now,
    ...changes,
  }
}

function parse(raw: unknown): CircuitRecord {
  return parseCircuitRecord('stripe', raw, 'getState')
}

/** What parsing reports; anything but a CircuitStorageError is passed on. */
function damageOf(raw: unknown): CircuitStorageError {
  try {
    parse(raw)
  } catch (error) {
    if (error instanceof CircuitStorageError) return error
    throw error
  }
  throw new Error('Expected the record to be refused.')
}

function without(field: string): object {
  return Object.fromEntries(Object.entries(fullRecord()).filter(([name]) => name !== field))
}

const instant = fc.oneof(fc.integer({ min: 0, max: maxInstant }), fc.constantFrom(0, now, maxInstant))
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
const token = fc.string({ maxLength: 256 })
const count = fc.nat(Number.MAX_SAFE_INTEGER)
/** Counts that fade need not be whole. JSON knows no −0. */
const amount = (max: number) => fc.double({ min: 0, max, noNaN: true }).map((value) => value || 0)

const validRecord: fc.Arbitrary<CircuitRecord> = fc
  .record({
    schema: fc.constant(1 as const),
    version: token,
    epoch: token,
    generation: count,
    state: fc.constantFrom('CLOSED', 'OPEN', 'HALF_OPEN'),
    suspectedAt: optional(instant),
    failureCount: count,
    successCount: count,
    startedCount: count,
    earlyCount: count,
    reporterCount: count,
    dismissals: amount(maxInstant),
    dismissedAt: optional(instant),
    noise: optional(amount(1)),
    pace: optional(amount(maxInstant)),
    othersAt: optional(instant),
    lastFailureAt: optional(instant),
    openedAt: optional(instant),
    closedAt: optional(instant),
    retryAt: optional(instant),
    resetTimeout: optional(instant),
    leases: fc.array(fc.record({ id: token, expiresAt: instant }), { maxLength: 5 }),
    trips: count,
    lastFailure: optional(
      fc.record({
        at: instant,
        name: fc.string({ maxLength: 64 }),
        code: optional(fc.string({ maxLength: 64 })),
        status: optional(fc.integer({ min: 100, max: 599 })),
      }) as fc.Arbitrary<FailureSummary>,
    ),
    override: optional(
      fc.record({ state: fc.constantFrom('OPEN', 'CLOSED'), at: instant, until: optional(instant) }),
    ) as fc.Arbitrary<CircuitRecord['override']>,
    transitions: fc.array(token, { maxLength: 8 }),
    updatedAt: instant,
  })
  .filter(({ state, retryAt }) => state !== 'OPEN' || retryAt !== undefined) as fc.Arbitrary<CircuitRecord>

describe('a record that is well', () => {
  it('is handed back with every field', () => {
    expect(parse(fullRecord())).toEqual(fullRecord())
  })

  it('can be one that nothing has happened to', () => {
    expect(parse(emptyRecord('epoch-1', now))).toEqual(emptyRecord('epoch-1', now))
  })

  it('is handed back as it is, whatever it holds', () => {
    fc.assert(
      fc.property(validRecord, (record) => {
        expect(parse(record)).toEqual(record)
      }),
      { numRuns: 500 },
    )
  })

  it('survives a way through JSON, in which undefined fields vanish', () => {
    fc.assert(
      fc.property(validRecord, (record) => {
        expect(parse(JSON.parse(JSON.stringify(record)))).toEqual(record)
      }),
    )
  })

  it('survives a store that writes null for what is not set', () => {
    fc.assert(
      fc.property(validRecord, (record) => {
        const stored = JSON.parse(
          JSON.stringify(record, (_key, value: unknown) => (value === undefined ? null : value)),
        )

        expect(parse(stored)).toEqual(record)
      }),
    )
  })

  it('is neither handed back as the same object nor changed', () => {
    const raw = Object.freeze(fullRecord())

    const parsed = parse(raw)

    expect(parsed).not.toBe(raw)
    expect(parsed.leases).not.toBe(raw.leases)
    expect(raw).toEqual(fullRecord())
  })

  it('loses what does not belong to it', () => {
    const raw = { ...fullRecord(), PK: 'CIRCUIT#stripe', ttl: 1, leases: [{ id: 'a', expiresAt: 1, more: true }] }

    expect(parse(raw)).toEqual(fullRecord({ leases: [{ id: 'a', expiresAt: 1 }] }))
  })

  const instants = ['suspectedAt', 'dismissedAt', 'othersAt', 'lastFailureAt', 'openedAt', 'closedAt']
  it.each([...instants, 'noise', 'pace', 'resetTimeout', 'leases', 'transitions', 'lastFailure', 'override'])(
    'may lack %s',
    (field) => {
      const parsed = parse(without(field)) as unknown as Record<string, unknown>

      expect(parsed[field]).toEqual(field === 'leases' || field === 'transitions' ? [] : undefined)
    },
  )

  it.each(['CLOSED', 'HALF_OPEN'] as const)('may lack retryAt where it is %s', (state) => {
    expect(parse({ ...without('retryAt'), state }).retryAt).toBeUndefined()
  })

  it('keeps the last 8 of more transition ids', () => {
    const transitions = Array.from({ length: 20 }, (_, n) => `t-${n}`)

    expect(parse(fullRecord({ transitions })).transitions).toEqual(transitions.slice(-8))
  })

  it('is not refused for a summary of a failure that is only for people to read', () => {
    const lastFailure = { at: now, name: 7, code: {}, status: '504' }

    expect(parse(fullRecord({ lastFailure })).lastFailure).toEqual({
      at: now,
      name: 'Error',
      code: undefined,
      status: undefined,
    })
  })

  it('may hold tokens of 256 characters and lists of 1000', () => {
    const token = 'x'.repeat(256)
    const leases = Array.from({ length: 1_000 }, () => ({ id: token, expiresAt: now }))
    const transitions = Array.from({ length: 1_000 }, () => token)

    expect(parse(fullRecord({ version: token, epoch: token, leases, transitions }))).toEqual(
      fullRecord({ version: token, epoch: token, leases, transitions: transitions.slice(-8) }),
    )
  })

  it('is cut to what may be kept of a failure', () => {
    const lastFailure = { at: now, name: 'n'.repeat(1_000), code: 'c'.repeat(1_000), message: 'hunter2', stack: 'x' }

    expect(parse(fullRecord({ lastFailure })).lastFailure).toEqual({
      at: now,
      name: 'n'.repeat(64),
      code: 'c'.repeat(64),
      status: undefined,
    })
  })

  it('may hold a noise from 0 to 1, and amounts that are not whole', () => {
    for (const noise of [0, 1e-9, 1]) {
      const amounts = { noise, dismissals: 2 / 3, pace: 0.1 }
      expect(parse(fullRecord(amounts))).toMatchObject(amounts)
    }
  })

  it('may hold instants from the first to the last that a Date can', () => {
    const edges = { openedAt: 0, retryAt: maxInstant, updatedAt: 0, lastFailureAt: maxInstant }

    expect(parse(fullRecord(edges))).toMatchObject(edges)
  })
})

describe('a damaged record', () => {
  const badCounts = [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, '3', null, undefined, true, [3], {}, 3n]
  const badInstants = [-1, Number.NaN, Number.POSITIVE_INFINITY, maxInstant * 2, String(now), true, [], {}, 3n]
  const badTexts = ['x'.repeat(257), 1, true, [], {}, Symbol('x')]
  const wrong: [field: string, values: unknown[]][] = [
    ['schema', [0, 2, '1', null, undefined, true, [1]]],
    ['version', badTexts],
    ['epoch', [...badTexts, null, undefined]],
    ['generation', badCounts],
    ['state', ['open', 'FORCED_OPEN', '', null, undefined, 0, ['OPEN'], {}]],
    ['suspectedAt', badInstants],
    ['failureCount', badCounts],
    ['successCount', badCounts],
    ['startedCount', badCounts],
    ['earlyCount', badCounts],
    ['reporterCount', badCounts],
    ['dismissals', [...badInstants, null, undefined]],
    ['dismissedAt', badInstants],
    ['noise', [...badInstants, 1.0001, 50]],
    ['pace', badInstants],
    ['othersAt', badInstants],
    ['lastFailureAt', badInstants],
    ['openedAt', badInstants],
    ['closedAt', badInstants],
    ['retryAt', [...badInstants, null, undefined]],
    ['resetTimeout', badInstants],
    ['leases', ['', 1, {}, true, Array.from({ length: 1_001 }, () => ({ id: 'x', expiresAt: now }))]],
    ['trips', badCounts],
    ['lastFailure', ['TimeoutError', 1, true, []]],
    ['override', ['OPEN', 1, true, []]],
    ['transitions', ['', 1, {}, [1], [null], ['x'.repeat(257)], Array.from({ length: 1_001 }, () => 'x')]],
    ['updatedAt', [...badInstants, null, undefined]],
  ]
  const cases = wrong.flatMap(([field, values]) => values.map((value): [string, unknown] => [field, value]))

  it('has a case here for each of its fields', () => {
    expect(wrong.map(([field]) => field).sort()).toEqual(Object.keys(fullRecord()).sort())
  })

  it.each(cases)('is refused where %s is %p', (field, value) => {
    const error = damageOf({ ...fullRecord(), [field]: value })

    expect(error).toMatchObject({ corrupt: true, operation: 'getState', service: 'stripe', code: 'CIRCUIT_STORAGE' })
    expect(error.message).toContain(`: ${field} is `)
  })

  it.each([
    ['leases[1]', { leases: [{ id: 'a', expiresAt: now }, null] }],
    ['leases[0]', { leases: [{ expiresAt: now }] }],
    ['leases[0]', { leases: [{ id: 1, expiresAt: now }] }],
    ['leases[0]', { leases: [[]] }],
    ['leases[0]', { leases: [{ id: 'x'.repeat(257), expiresAt: now }] }],
    ['leases[0].expiresAt', { leases: [{ id: 'a' }] }],
    ['leases[0].expiresAt', { leases: [{ id: 'a', expiresAt: null }] }],
    ['leases[0].expiresAt', { leases: [{ id: 'a', expiresAt: 'soon' }] }],
    ['lastFailure.at', { lastFailure: { name: 'Error' } }],
    ['lastFailure.at', { lastFailure: { at: -1, name: 'Error' } }],
    ['override.state', { override: { at: now } }],
    ['override.state', { override: { state: 'HALF_OPEN', at: now } }],
    ['override.at', { override: { state: 'OPEN' } }],
    ['override.until', { override: { state: 'OPEN', at: now, until: 'never' } }],
  ])('is refused where %s is wrong', (path, changes) => {
    expect(damageOf(fullRecord(changes)).message).toContain(`: ${path} is `)
  })

  it.each([
    ['schema is the number 0', { ...fullRecord(), schema: 0 }],
    ['schema is the number 2, of a later version: update this package', { ...fullRecord(), schema: 2 }],
    ['retryAt is null', { ...fullRecord(), state: 'OPEN', retryAt: null }],
  ])('is refused with what is in the place of the field: %s', (description, raw) => {
    expect(damageOf(raw).message).toContain(`: ${description}. `)
  })

  it.each<[string, unknown]>([
    ['null', null],
    ['missing', undefined],
    ['an array of 2', [1, 2]],
    ['a string of 9 characters', '{"a":"b"}'],
    ['the number 1', 1],
    ['the number NaN', Number.NaN],
    ['of type boolean', true],
    ['of type bigint', 1n],
    ['of type symbol', Symbol('x')],
    ['of type function', () => {}],
  ])('can be no record at all: it is %s', (description, raw) => {
    expect(damageOf(raw).message).toBe(
      `The record stored for "stripe" is damaged: it is ${description}. It is left as it is and this instance decides ` +
        'alone; reset() repairs it.',
    )
  })

  it('is described without repeating what is stored, which can be anything', () => {
    const secret = 'hunter2'
    const values = [secret, [secret], { [secret]: secret }, Symbol(secret)]

    const messages = values.flatMap((value) => [
      damageOf(value).message,
      damageOf(fullRecord({ state: value })).message,
      damageOf(fullRecord({ leases: [value] })).message,
      damageOf(fullRecord({ override: { state: value } })).message,
    ])

    expect(messages.join()).not.toContain(secret)
  })

  it('names the operation and the key that it was asked for, whatever the key', () => {
    try {
      parseCircuitRecord('a"\n', null, 'batchGetState')
    } catch (error) {
      expect(error).toMatchObject({ operation: 'batchGetState', service: 'a"\n' })
      expect((error as Error).message).toContain('stored for "a\\"\\n" is')
    }
    expect.assertions(2)
  })

  it('does not get past by what it inherits', () => {
    const raw = JSON.parse('{"__proto__": {"schema": 1, "state": "CLOSED"}, "constructor": {}}') as unknown

    expect(damageOf(raw).message).toContain('schema is missing')
    expect(({} as Record<string, unknown>)['schema']).toBeUndefined()
  })
})

describe('parsing anything', () => {
  function outcomeOf(raw: unknown): 'record' | 'damage' {
    try {
      parse(raw)
      return 'record'
    } catch (error) {
      expect(error).toBeInstanceOf(CircuitStorageError)
      expect(error).toMatchObject({ corrupt: true, service: 'stripe' })
      return 'damage'
    }
  }

  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withNullPrototype: true,
    withSparseArray: true,
    withTypedArray: true,
  })

  it('never throws anything but a CircuitStorageError that says so', () => {
    fc.assert(
      fc.property(anything, (raw) => {
        outcomeOf(raw)
      }),
      { numRuns: 1_000 },
    )
  })

  it('holds also where one or two fields of a good record are replaced', () => {
    const seen = new Set<string>()
    const field = fc.constantFrom(...Object.keys(fullRecord()))
    const replacement = fc.oneof(
      anything,
      fc.double(),
      fc.array(fc.dictionary(fc.constantFrom('id', 'expiresAt', 'at', 'state'), anything)),
    )
    fc.assert(
      fc.property(fc.dictionary(field, replacement, { minKeys: 1, maxKeys: 2 }), (changes) => {
        seen.add(outcomeOf({ ...fullRecord(), ...changes }))
      }),
      { numRuns: 3_000 },
    )
    expect([...seen].sort()).toEqual(['damage', 'record'])
  })

  it('gives a record that is well by its own account', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...Object.keys(fullRecord())), fc.jsonValue()), (changes) => {
        const raw = { ...fullRecord(), ...changes }
        fc.pre(outcomeOf(raw) === 'record')

        expect(parse(parse(raw))).toStrictEqual(parse(raw))
      }),
      { numRuns: 300 },
    )
  })
})

describe('a new record', () => {
  it('is closed, empty and of the first epoch', () => {
    expect(emptyRecord('epoch-1', now)).toMatchObject({
      state: 'CLOSED',
      version: 'epoch-1',
      epoch: 'epoch-1',
      generation: 0,
      suspectedAt: undefined,
      failureCount: 0,
      successCount: 0,
      startedCount: 0,
      earlyCount: 0,
      reporterCount: 0,
      dismissals: 0,
      trips: 0,
      leases: [],
      transitions: [],
      updatedAt: now,
    })
  })
})

describe('a record with outcomes added', () => {
  it('has each in its own count, the time of the last, and everything else as it was', () => {
    const outcomes = { failures: 1, successes: 10, started: 100, early: 1_000, reporters: 10_000, at: now + 7, id: 'a' }
    const record = Object.freeze(fullRecord())

    expect(plus(record, outcomes)).toEqual({
      ...record,
      failureCount: 4,
      successCount: 11,
      startedCount: 105,
      earlyCount: 1_002,
      reporterCount: 10_004,
      updatedAt: now + 7,
    })
  })
})

describe('the expiry of a record', () => {
  const plain = { override: undefined, retryAt: undefined, leases: [], updatedAt: now }

  it.each([
    ['the window after its last write', {}, 60_000],
    ['its retryAt, where that is later', { retryAt: now + 300_000 }, 300_000],
    ['the window, where retryAt is earlier', { retryAt: now - 300_000 }, 60_000],
    [
      'its last lease, where that is later',
      { retryAt: now + 1, leases: [60_001, 900_000, 5].map((ahead, n) => ({ id: `${n}`, expiresAt: now + ahead })) },
      900_000,
    ],
  ])('is two days after %s', (_what, changes, ahead) => {
    expect(expiryOf(fullRecord({ ...plain, ...changes }))).toBe(now + ahead + retention)
    expect(retention).toBe(2 * 24 * 60 * 60 * 1_000)
  })

  it('is never while an override is set', () => {
    expect(expiryOf(fullRecord({ ...plain, override: { state: 'OPEN', at: now } }))).toBeUndefined()
  })

  it('is never before anything in it has ceased to matter', () => {
    fc.assert(
      fc.property(validRecord, (record) => {
        const expiry = expiryOf(record) ?? Number.POSITIVE_INFINITY

        for (const at of [record.updatedAt, record.retryAt ?? 0, ...record.leases.map((lease) => lease.expiresAt)]) {
          expect(expiry).toBeGreaterThanOrEqual(at + retention)
        }
      }),
    )
  })

  // Also with an `until`: an operator's decision is never lost to the clock of whoever wrote it or of the table.
  it('is never while an override is set that ends by itself, whether or not it is over', () => {
    for (const until of [now - 1, now, now + 3_600_000]) {
      const override = { state: 'CLOSED', at: now - 3_600_000, until }

      expect(expiryOf(fullRecord({ ...plain, override }))).toBeUndefined()
    }
  })
})
