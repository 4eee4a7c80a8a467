import { describe, expect, it } from '@jest/globals'
import { drawChart, powersOfTen } from './fleet-chart.ts'
import { meanCallsToStreak, measureOpening, measureOutage, measureTrips } from './fleet-measurements.ts'
import { inMacrotask } from './microtasks.ts'

const times = { rest: 10_000, outage: 20_000, recovery: 15_000 }

describe('the measurements of fleets', () => {
  it('gives the same figures for the same seed, and others for another', async () => {
    const measure = (seed: number) =>
      inMacrotask(() => measureOutage({ instances: 20, rate: 1, seed, isLimited: true, skew: 1_000 }, times))

    const [once, again, other] = [await measure(1), await measure(1), await measure(2)]

    expect(again).toEqual(once)
    expect(other).not.toEqual(once)
  })

  it('lets fewer calls reach a dead service with a shared circuit than with one in each, and with that fewer than with none', async () => {
    const measure = (circuit: 'shared' | 'own' | 'none') =>
      inMacrotask(() => measureOutage({ instances: 30, rate: 1, seed: 1, circuit }, times))

    const [shared, own, none] = [await measure('shared'), await measure('own'), await measure('none')]

    expect(shared.reached).toBeLessThan(own.reached)
    expect(shared.probes).toBeLessThan(own.probes)
    // Each instance needs three failures of its own.
    expect(own.reached).toBe(90)
    expect(none.reached).toBeGreaterThan(400)
    expect(none.rest).toEqual({ reads: 0, writes: 0 })
    expect(shared.rest.reads).toBeGreaterThan(0)
    expect(shared.rest.writes).toBe(0)
    expect(shared.toClosed).toBeGreaterThan(0)
  })

  it('counts the false trips of a single instance as the ideal counter does', async () => {
    const options = { instances: 1, rate: 1, seed: 1, errorRate: 0.05, settings: { failureThreshold: 2 } }

    const { trips, idealTrips, duration } = await inMacrotask(() => measureTrips(options, 10_000_000))

    expect(duration).toBe(10_000_000)
    expect(trips).toBeGreaterThan(10)
    expect(idealTrips).toBe(trips)
  })

  it('stops at the first false trip where it is asked to', async () => {
    const options = { instances: 10, rate: 1, seed: 1, errorRate: 0.5 }

    const { trips, duration, firstTripAt } = await inMacrotask(() => measureTrips(options, 600_000, { isOnce: true }))

    expect(trips).toBe(1)
    expect(duration).toBe(firstTripAt)
  })

  it('opens a circuit of one instance at its third failure', async () => {
    const { failures } = await inMacrotask(() => measureOpening({ instances: 1, rate: 1, seed: 1 }, 10_000))

    expect(failures).toBe(3)
  })

  it('knows how long a coin takes to show heads so many times in a row', () => {
    expect([1, 2, 3].map((streak) => meanCallsToStreak(0.5, streak))).toEqual([2, 6, 14])
  })
})

describe('a chart', () => {
  const axis = { label: 'a < b', isLogarithmic: true, ticks: powersOfTen(-1, 2, String) }

  it('breaks a line where a logarithmic axis cannot show it', () => {
    const points = [
      [0.1, 1],
      [1, 0],
      [10, 10],
      [100, 100],
    ] as const

    const svg = drawChart({ title: 'T', x: axis, y: axis, lines: [{ name: 'n', colour: 0, points }] })

    // One in the legend, one for each point that can be shown.
    expect(svg.match(/<circle/g)).toHaveLength(4)
    expect(svg).toMatch(/d="M76 [\d.]+M[\d.]+ [\d.]+L696 [\d.]+"/)
    expect(svg).toContain('a &lt; b')
  })
})
