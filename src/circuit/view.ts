/**
 * The record that calls are judged by, and the numbers of its epochs.
 *
 * The fleet's epoch is the one of the record that is stored; it is made up while nothing is stored. The view has an epoch,
 * too. Normally the two are equal. They differ while a change of ours is on its way, and while we go on alone.
 *
 * A period is a number of this instance. A new one begins with each epoch of the view, and with each suspicion that this
 * instance learns of. A call remembers the period in which it was admitted: its outcome counts only in the view's epoch, and
 * it speaks to a suspicion only if it began after this instance knew of it. `since` is the first period of the fleet's
 * present epoch: an outcome that waits to be written counts as long as its period is not before that. A first record
 * where nothing was stored continues the epoch, because the calls before it began in the same closed circuit.
 *
 * `Circuit` alone writes it: `show` when the view changes, `epochBegan` with the first record of another epoch.
 *
 * @module
 */

import type { CircuitRecord } from '../storage/contract.ts'
import { emptyRecord } from '../storage/record.ts'
import { activeOverride } from './state-machine.ts'

export class View {
  /** The record that calls are judged by. Written by `show`. */
  #record: CircuitRecord
  /** The fleet's epoch. Written by `epochBegan`. */
  #epoch: string
  /** The present period. Written by `show` and `suspect`. */
  #period = 0
  /** The first period of the view's epoch. Written by `show`. */
  #shownSince = 0
  /** The version of the suspicion that is known. Written by `suspect`. */
  #suspicion: string | undefined
  /** Whether this instance reports to it. Written by `suspect`. */
  #isReporter = false
  /** The first period in which it was known. Written by `suspect`. */
  #suspectedSince = 0
  /** The first period of the fleet's epoch. Written by `epochBegan`. */
  #since = 0

  /** @param epoch made up: nothing is known yet */
  constructor(epoch: string) {
    this.#epoch = epoch
    this.#record = emptyRecord(epoch, 0)
  }

  get record(): CircuitRecord {
    return this.#record
  }

  get epoch(): string {
    return this.#epoch
  }

  get period(): number {
    return this.#period
  }

  get since(): number {
    return this.#since
  }

  /** The version of the suspicion that is known; `undefined`: none. */
  get suspicion(): string | undefined {
    return this.#suspicion
  }

  /** Whether this instance leaves it to others to speak to the suspicion that is known. */
  get isSilent(): boolean {
    return this.#suspicion !== undefined && !this.#isReporter
  }

  /** Whether the outcome of a call of `period` speaks to the suspicion: it was known when the call began. */
  knew(period: number): boolean {
    return this.#isReporter && period >= this.#suspectedSince
  }

  /** Another suspicion is known from now on, or none. */
  suspect(version: string | undefined, isReporter: () => boolean): void {
    if (version === this.#suspicion) return
    this.#suspicion = version
    this.#isReporter = version !== undefined && isReporter()
    this.#suspectedSince = ++this.#period
  }

  /** Whether the outcome of a call of `period` counts: only in a closed circuit of the same epoch. */
  counts(period: number, at: number): boolean {
    return (
      period >= this.#shownSince && this.#record.state === 'CLOSED' && activeOverride(this.#record, at) === undefined
    )
  }

  /** Calls are judged by another record from now on; whether its epoch is another one. */
  show(record: CircuitRecord): boolean {
    const isNewEpoch = record.epoch !== this.#record.epoch
    this.#record = record
    if (isNewEpoch) this.#shownSince = ++this.#period
    return isNewEpoch
  }

  /**
   * The fleet is in another epoch.
   *
   * @param isContinued whether it is the first record of a circuit that nothing was stored of
   */
  epochBegan(epoch: string, isContinued: boolean): void {
    const isAhead = this.#record.epoch !== this.#epoch
    this.#epoch = epoch
    if (!isContinued) this.#since = this.#record.epoch === epoch ? this.#shownSince : this.#period + 1
    else if (!isAhead) this.#record = { ...this.#record, epoch }
  }
}
