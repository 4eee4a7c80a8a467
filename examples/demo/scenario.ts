/**
 * What the demo plays: the settings, the fleet and what becomes of the service. All times are milliseconds.
 *
 * @module
 */

/** The service key. */
export const service = 'payments'

/** Scaled down, so that an outage with several probes fits into half a minute; the defaults suit production better. */
export const settings = { failureThreshold: 3, resetTimeout: 2_000, cacheTtl: 500, timeout: 400 } as const

/** Instances of each fleet. */
export const fleetSize = 24

/** Between two invocations of one instance. */
export const interval = 400

/** How the service fails. */
export type Failure = '503' | 'reset' | 'hang'

/** A part of the scenario; without a `failure` the service is healthy. */
export interface Phase {
  readonly name: string
  readonly duration: number
  readonly failure?: Failure
}

/** It recovers while the circuits still wait for the next probe, the third one, and ends after they have closed. */
export const phases: readonly Phase[] = [
  { name: 'healthy', duration: 4_000 },
  { name: 'answers 503', duration: 4_000, failure: '503' },
  { name: 'resets connections', duration: 4_000, failure: 'reset' },
  { name: 'hangs', duration: 4_000, failure: 'hang' },
  { name: 'recovered', duration: 7_200 },
]

/** How long it all takes. */
export function durationOf(scenario: readonly Phase[]): number {
  return scenario.reduce((sum, { duration }) => sum + duration, 0)
}

/** The phase at a time since the start; before the start the first one, after the end the last one. */
export function phaseAt(scenario: readonly Phase[], time: number): Phase {
  let end = 0
  for (const phase of scenario) {
    end += phase.duration
    if (time < end) return phase
  }
  return scenario.at(-1) as Phase
}

/** When the service begins to fail, and when it is well again. */
export function outageOf(scenario: readonly Phase[]): { readonly from: number; readonly to: number } {
  const first = scenario.findIndex(({ failure }) => failure !== undefined)
  const last = scenario.findLastIndex(({ failure }) => failure !== undefined)
  return { from: durationOf(scenario.slice(0, first)), to: durationOf(scenario.slice(0, last + 1)) }
}
