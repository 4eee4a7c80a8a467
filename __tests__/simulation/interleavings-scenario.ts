/**
 * The situations that `interleavings.ts` explores, and the steps that they are made of.
 *
 * @module
 */

import type { CircuitBreaker, CircuitBreakerOptions, CircuitRecord } from '../../src/index.ts'
import type { Fleet, Instance } from './interleavings-fleet.ts'

/** The situation to explore. */
export interface Scenario {
  readonly name: string
  /** The settings of all instances, where they differ from {@link defaults}. */
  readonly settings?: Omit<Partial<CircuitBreakerOptions>, 'services' | 'storage'>
  /** What is stored when it begins. Instants are as of {@link start}. */
  readonly stored?: Partial<CircuitRecord>
  /** What happens before, in a fixed order; default: every instance loads. */
  readonly prepare?: (fleet: Fleet) => void
  /**
   * Who does what. A track is named for its instance, `A` or `A2` for the second one of A; `clock` moves the time. A step
   * begins when the one before it in its track has ended.
   */
  readonly tracks: { readonly [track: string]: readonly Step[] }
  /** The first steps of these instances come in this order: for tracks that are the same, so that names do not matter. */
  readonly alike?: readonly string[]
  /** How much may go wrong. */
  readonly faults?: Faults
  /** Two things may reach an instance in the same turn of its event loop. */
  readonly sameTurn?: boolean
  /** Looked at after every move; says what is wrong. */
  readonly check?: (fleet: Fleet) => string | undefined
  /** Looked at when everything that was to happen has happened. */
  readonly end?: (fleet: Fleet) => string | undefined
  /** What it came to, in a word; default: the state that is stored. */
  readonly outcome?: (fleet: Fleet) => string
}

/** How often in a run. */
export interface Faults {
  /** A timer of the engine runs down while other things are still under way. */
  readonly timeouts?: number
  /** The reply to a request that was carried out is never delivered. */
  readonly lostReplies?: number
  /** A request that was sent is never carried out. */
  readonly lostRequests?: number
  /** An instance is killed: one of those that are named in `mortals`. */
  readonly deaths?: number
  readonly mortals?: readonly string[]
  /** The record is deleted. */
  readonly deletions?: number
}

/** Something that an instance, or the clock, does. */
export interface Step {
  readonly does: string
  /** An operator's command: what it writes is bound by other rules. */
  readonly isOperators?: boolean
  /** Not before this holds. */
  readonly when?: ((fleet: Fleet) => boolean) | undefined
  readonly begin: (instance: Instance, fleet: Fleet) => PromiseLike<unknown> | undefined
}

/** How an operation of the service may end: `+` it succeeds, `-` it fails, `0` in an error that does not count. */
export type Ending = '+' | '-' | '0'

/** The service that is guarded. */
export const service = 's'
/** Where the clock starts: 2026-01-01T00:00:00Z. */
export const start = 1_767_225_600_000

/** Small numbers, so that little has to happen for much to happen. */
export const defaults = {
  failureThreshold: 2,
  resetTimeout: 10_000,
  halfOpenMaxConcurrent: 1,
  halfOpenSuccessThreshold: 1,
  maxConcurrent: 3,
  cacheTtl: 5_000,
  storageTimeout: 500,
} as const

/** Failures further apart than this are no streak, in milliseconds. */
export const window = 60_000

/** How long a lease lasts where no Lambda deadline bounds it, in milliseconds. */
export const leaseDuration = 30_000

// --------------------------------------------------------------------------------------------------------------- steps

/** A call whose operation may end in any of these ways. */
export function call(...endings: readonly Ending[]): Step {
  return {
    does: `calls the service (${endings.join(' or ')})`,
    begin: (instance, fleet) => fleet.call(instance, endings),
  }
}

/** A step that waits for a situation. */
export function when(condition: (fleet: Fleet) => boolean, step: Step): Step {
  return { ...step, when: condition }
}

export const load: Step = { does: 'loads', begin: ({ breaker }) => breaker.load() }
export const flush: Step = { does: 'flushes', begin: ({ breaker }) => breaker.flush() }

export const reset: Step = operator('resets', (breaker) => breaker.reset(service))
export const forceClosed: Step = operator('forces it closed', (breaker) => breaker.forceClosed(service))
/** @param duration in milliseconds; default: until a reset */
export function forceOpen(duration?: number): Step {
  const command = duration === undefined ? 'forces it open' : `forces it open for ${duration} ms`
  return operator(command, (breaker, now) =>
    breaker.forceOpen(service, duration === undefined ? {} : { until: now + duration }),
  )
}
export const clear: Step = operator('deletes the record', (breaker) => breaker.batchClearState())
export const setOpen: Step = operator('sets it open', (breaker) => breaker.batchSetState({ [service]: 'OPEN' }))

function operator(does: string, command: (breaker: CircuitBreaker, now: number) => Promise<unknown>): Step {
  return { does, isOperators: true, begin: ({ breaker }, fleet) => command(breaker, fleet.now) }
}

/** Time passes, in milliseconds. Only for the track `clock`. */
export function pass(duration: number, condition?: (fleet: Fleet) => boolean): Step {
  return {
    does: `${duration} ms pass`,
    when: condition,
    begin: (_, fleet) => {
      fleet.pass(duration)
      return undefined
    },
  }
}
