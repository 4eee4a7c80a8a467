/**
 * One event for each transition of the fleet's circuit, fired by the instance whose write made it.
 *
 * A transition is known by the epoch that it begins. Its author logs it when the write leaves, and its event is due when
 * a record proves that it was stored: by its epoch among the record's `transitions`. The reply may be lost, late, or come
 * twice; any later record proves it just as well. An event is never due twice, and never for a write that lost.
 *
 * Observers also hear of the state that this instance acts on, where others made it or this instance made it for
 * itself alone. `announced` is the state that observers heard of last.
 *
 * `Circuit` alone writes the log: `sent` when a write leaves, `proven` and `arrived` with each record, `observe` when the
 * view changes. It takes the events out when the view is up to date, because listeners may look at it.
 *
 * @module
 */

import type { StateChange, StateChangeReason } from '../events.ts'
import type { CircuitRecord, CircuitState } from '../storage/contract.ts'
import { forgetOldest } from './forget-oldest.ts'
import { activeOverride, keptTransitions } from './state-machine.ts'

/** The state of a circuit, for observers. */
export type Observed = Pick<CircuitRecord, 'state' | 'generation' | 'lastFailure' | 'retryAt' | 'override'>

/** So many transitions are remembered; no more than a few writes are ever on their way. */
const remembered = 16

export class TransitionLog {
  readonly #service: string
  /** Transitions that were sent, by epoch. Ended by the record that proves them, or rules them out. */
  readonly #unconfirmed = new Map<string, readonly StateChange[]>()
  /** The epochs whose events were due last: a reply may come late and twice. */
  readonly #confirmed = new Set<string>()
  /** The state that observers heard of last. Written with each event. */
  #announced: CircuitState = 'CLOSED'
  /** The events to be fired. Emptied by `takeDue`. */
  #due: StateChange[] = []

  constructor(service: string) {
    this.#service = service
  }

  /** A transition leaves for the store, or its reply says that it was stored. */
  sent(epoch: string, change: StateChange): void {
    if (this.#confirmed.has(epoch)) return
    // An operator's decision is made again, under the same epoch, when others have changed the record.
    this.#unconfirmed.set(epoch, [...this.#othersOf(epoch, change), change])
    forgetOldest(this.#unconfirmed, remembered)
  }

  /** The store has refused a transition. */
  refused(epoch: string, change: StateChange): void {
    const others = this.#othersOf(epoch, change)
    if (others.length > 0) this.#unconfirmed.set(epoch, others)
    else this.#unconfirmed.delete(epoch)
  }

  /** The other transitions that were sent under an epoch. */
  #othersOf(epoch: string, change: StateChange): readonly StateChange[] {
    return this.#unconfirmed.get(epoch)?.filter(({ generation }) => generation !== change.generation) ?? []
  }

  /** A record that may be out of date: it still proves the transitions that it lists. */
  proven(record: CircuitRecord | undefined): void {
    if (record === undefined) return
    const { transitions } = record
    for (const [epoch, changes] of this.#unconfirmed) {
      if (!transitions.includes(epoch)) continue
      const made = record.generation - (transitions.length - 1 - transitions.lastIndexOf(epoch))
      const change = changes.find(({ generation }) => generation === made) ?? (changes.at(-1) as StateChange)
      this.#unconfirmed.delete(epoch)
      this.#confirmed.add(epoch)
      forgetOldest(this.#confirmed, remembered)
      this.#announced = change.to
      this.#due.push(change)
    }
  }

  /** The current record: it proves transitions, and rules out those that others have made in their place. */
  arrived(record: CircuitRecord | undefined): void {
    this.proven(record)
    if (record === undefined) return
    for (const [epoch, changes] of this.#unconfirmed) {
      const since = record.generation - Math.max(...changes.map(({ generation }) => generation))
      // A record of an earlier generation may be a stale read. Others may have changed the state so often since that the
      // record no longer lists it: a late reply still may.
      if (since >= 0 && since < keptTransitions) this.#unconfirmed.delete(epoch)
    }
  }

  /** The event of a state that this instance did not make for the fleet. For observers. */
  observe(seen: Observed, at: number): void {
    if (seen.state === this.#announced) return
    const { state, by, why, until } = activeOverride(seen, at) ?? {}
    const reason = state === undefined ? 'observed' : state === 'OPEN' ? 'forced-open' : 'forced-closed'
    this.#due.push({ ...this.#observed(seen, at, reason), by, why, until })
    this.#announced = seen.state
  }

  /** The event of an instance that refuses although the fleet's circuit is closed. */
  unhealthy(seen: Observed, at: number): void {
    this.#due.push(this.#observed(seen, at, 'instance-unhealthy'))
  }

  #observed({ state, generation, lastFailure, retryAt }: Observed, at: number, reason: StateChangeReason): StateChange {
    const change = { service: this.#service, from: this.#announced, to: state, generation, at, reason }
    return { ...change, requestId: undefined, observed: true, evidence: undefined, lastFailure, retryAt }
  }

  /** The events to be fired, in order; each is handed out once. */
  takeDue(): readonly StateChange[] {
    const due = this.#due
    this.#due = []
    return due
  }
}
