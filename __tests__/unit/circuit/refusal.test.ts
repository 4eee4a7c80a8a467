import { describe, expect, it } from '@jest/globals'
import { refusalOf } from '../../../src/circuit/refusal.ts'
import type { Verdict } from '../../../src/circuit/state-machine.ts'
import { type ServiceSettings, serviceSettings } from '../../../src/settings/table.ts'
import { circuitRecord } from '../../../src/testing/index.ts'

const defaults = Object.fromEntries(
  Object.entries(serviceSettings).map(([name, setting]) => [name, setting.default]),
) as unknown as ServiceSettings
const settings = { ...defaults, resetTimeout: 10_000, cacheTtl: 5_000, rampUp: 8_000 }

const lastFailure = { at: 900, name: 'Error' }
const open = circuitRecord({ state: 'OPEN', openedAt: 1_000, retryAt: 11_000, resetTimeout: 10_000, lastFailure })
const forced = circuitRecord({ state: 'CLOSED', override: { state: 'OPEN', at: 1_000 } })
const closed = circuitRecord({ closedAt: 1_000 })

function halfOpen(...expiries: number[]) {
  return circuitRecord({ state: 'HALF_OPEN', leases: expiries.map((expiresAt, n) => ({ id: `lease${n}`, expiresAt })) })
}

describe('another try can succeed', () => {
  it.each<[string, Exclude<Verdict, 'pass'>, typeof open, number, number, string]>([
    ['when an open circuit is due', 'open', open, 1_000, 10_000, 'open'],
    ['when it is due for this instance', 'open', open, 10_999, 1, 'open'],
    ['when the record is read again, if it is due', 'open', open, 11_000, 4_000, 'open'],
    [
      'when an override ends',
      'forced',
      { ...forced, override: { state: 'OPEN', at: 1, until: 4_000 } },
      1_000,
      3_000,
      'forced',
    ],
    ['after a resetTimeout where an override has no end', 'forced', forced, 1_000, 10_000, 'forced'],
    ['after a resetTimeout where an override has just ended', 'forced', closed, 1_000, 10_000, 'forced'],
    ['after the time of one request where a claim was not granted', 'claim', open, 11_000, 500, 'unclaimed'],
    ['when the ramp ends', 'ramping', closed, 3_000, 6_000, 'ramping'],
    ['when a probe ends', 'probing', halfOpen(4_000, 2_500), 1_000, 1_500, 'probing'],
    [
      'when a probe ends, at the latest when the record was read again',
      'probing',
      halfOpen(40_000),
      1_000,
      5_000,
      'probing',
    ],
    ['when a probe ends, which has not expired', 'probing', halfOpen(1_000, 3_000), 1_000, 2_000, 'probing'],
  ])('%s', (_when, verdict, view, now, retryAfter, reason) => {
    const refusal = { service: 'stripe', settings, view, delay: 0, staleAt: 15_000, storageTimeout: 500 }
    const { lastFailure: failure, openedAt } = view
    expect(refusalOf(refusal, verdict, now)).toMatchObject({
      service: 'stripe',
      retryAfter,
      reason,
      openedAt,
      lastFailure: failure,
    })
  })

  it('in whole milliseconds, which are rounded up, and after none where the time has passed', () => {
    const refusal = { service: 'stripe', settings, view: open, staleAt: 11_500, storageTimeout: 500 }
    expect(refusalOf({ ...refusal, delay: 0.25 }, 'open', 11_000).retryAfter).toBe(1)
    expect(refusalOf({ ...refusal, delay: 0 }, 'open', 12_000).retryAfter).toBe(0)
  })

  it('no sooner than in a second where the record is read at each call, and no later than after a resetTimeout', () => {
    const refusal = { service: 'stripe', view: halfOpen(40_000), delay: 0, staleAt: 0, storageTimeout: 500 }
    const retryAfter = (changes: Partial<ServiceSettings>) =>
      refusalOf({ ...refusal, settings: { ...settings, ...changes } }, 'probing', 1_000).retryAfter
    expect([retryAfter({ cacheTtl: 0 }), retryAfter({ resetTimeout: 700 })]).toEqual([1_000, 700])
  })
})
