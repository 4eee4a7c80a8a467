/**
 * The circuits that an operator names in a batch.
 *
 * @module
 */

import type { CircuitName } from './errors.ts'
import { describe, Problems } from './settings/problems.ts'
import type { Synchronizer } from './sync/synchronizer.ts'

/** A state that `batchSetState` can set. */
export type StateToSet =
  /** The circuit opens, and recovers by itself after its `resetTimeout`. */
  | 'OPEN'
  /** The circuit closes, and its counts are cleared. */
  | 'CLOSED'

/** The name of a circuit in a batch. Either all names are services, or all are keys of one service. */
export function nameOf({ service, key }: CircuitName): string {
  return key ?? service
}

/**
 * The circuits of a batch, each once.
 *
 * @param keys the elements of `given`; `undefined` if it is not a list
 * @param find the circuit of a service
 */
export function namedCircuits(
  keys: readonly unknown[] | undefined,
  given: unknown,
  method: string,
  find: (service: string) => Synchronizer,
): Synchronizer[] {
  if (keys === undefined) {
    const problems = new Problems()
    problems.mustBe('a list of service keys', 'services', method, given)
    problems.throwIfAny()
  }
  return Array.from(new Set(keys as readonly string[]), find)
}

/**
 * The circuits and states of a `batchSetState`.
 *
 * @param entries the entries of `given`; `undefined` if it is not an object
 * @param find the circuit of a service
 * @throws {ConfigurationError} naming every state that cannot be set
 */
export function statesToSet(
  entries: readonly unknown[] | undefined,
  given: unknown,
  find: (service: string) => Synchronizer,
): Map<Synchronizer, StateToSet> {
  const problems = new Problems()
  const source = 'batchSetState'
  if (entries === undefined) problems.mustBe('an object, a Map or pairs of service and state', 'states', source, given)
  const wanted = new Map<Synchronizer, StateToSet>()
  for (const entry of entries ?? []) {
    if (!Array.isArray(entry)) {
      problems.mustBe('pairs of service and state', 'states', source, given, `${describe(entry)} in a list`)
      continue
    }
    const [service, state] = entry
    wanted.set(find(service), state)
  }
  for (const [{ circuit }, state] of wanted) {
    if (state === 'OPEN' || state === 'CLOSED') continue
    const what = `The state of ${JSON.stringify(nameOf(circuit))} must be OPEN or CLOSED, but is ${describe(state)}`
    problems.add(nameOf(circuit), source, state, what)
  }
  problems.throwIfAny()
  return wanted
}
