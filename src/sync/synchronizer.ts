/**
 * Carries out what one circuit wants to do at the store, one request at a time.
 *
 * The circuit decides, this waits: it takes a step out of the circuit, sends it, gives the answer back, and asks for the
 * next one, until there is none. A conflict is answered like everything else; the circuit then decides again. Too many
 * conflicts and reads in one round, or a store that fails, end the round. The next opportunity writes the rest.
 *
 * A reply that comes after `storageTimeout` goes the same way into the circuit as one in time.
 *
 * @module
 */

import type { Exchange } from '../circuit/cached-record.ts'
import type { Circuit } from '../circuit/circuit.ts'
import type { ProbeLease } from '../circuit/probe-claims.ts'
import type { Replacement, Step, Write } from '../circuit/step.ts'
import { type Runtime, within } from '../runtime.ts'
import type { CircuitRecord, CompareAndSet, ICircuitStorage, WriteResult } from '../storage/contract.ts'
import { noOutcomes } from '../storage/record.ts'
import type { OperatorRun, StoreAccess } from '../storage/store-access.ts'

/** The number of conflicts and reads after which a round ends, and the rest waits for the next opportunity. */
const maxConflicts = 20

/** How long a lease lasts that was asked for before there is a call for it, in milliseconds. */
const leaseInAdvance = 5_000

/** How long the store is waited for of the time that there is for a call, in milliseconds: the rest belongs to the call. */
export function storeShareOf(room: number, storageTimeout: number): number {
  return Math.max(0, Math.min(storageTimeout, room / 4))
}

/** Hears what a circuit does at the store. */
export interface SyncObserver {
  /** It has something to do there, or will have. */
  isBusy(): void
  /** It is read: with this read begins, what it is read for is over. */
  readBegan(): void
  /** It is about to create a record. */
  creates(): void
}

export class Synchronizer {
  readonly circuit: Circuit
  readonly storageKey: string
  readonly store: StoreAccess
  /**
   * Whether a read has ended, with whatever result, or was waited for as long as it may be: else calls wait for one. Set by
   * the circuit reader at the end of each read, and by {@link waitForRead}; unset for a key that nobody has called for long.
   */
  loadAttempted = false
  /** The read under way of this circuit together with others. Set by `readBegins`, and unset by the circuit reader at its end. */
  loading: Promise<void> | undefined
  /** Whether that read, or the last one, has failed. Set by the circuit reader, unset by `readBegins`. */
  loadFailed = false
  readonly #runtime: Runtime
  readonly #storageTimeout: number
  readonly #observer: SyncObserver | undefined
  /** The last round. Set by `#startRound`. */
  #round: Promise<void> = Promise.resolve()
  /** Whether a round is under way. Set by `#startRound`, unset by `#run` at its end. */
  #isRunning = false
  /** The claim under way. Set by `#ask`, and unset when it has ended. */
  #claiming: Promise<void> | undefined
  /** When it began, in milliseconds since the epoch. Set by `#ask`. */
  #claimingSince = 0

  constructor(
    circuit: Circuit,
    storageKey: string,
    store: StoreAccess,
    runtime: Runtime,
    storageTimeout: number,
    observer?: SyncObserver,
  ) {
    this.circuit = circuit
    this.storageKey = storageKey
    this.store = store
    this.#runtime = runtime
    this.#storageTimeout = storageTimeout
    this.#observer = observer
  }

  /** Whether nothing is under way at the store, and nothing will be unless a call brings it about. */
  get isAtRest(): boolean {
    return !this.#isRunning && this.#claiming === undefined && this.loading === undefined && this.circuit.isAtRest
  }

  /** It is read together with others from now on. */
  readBegins(reading: Promise<void>): void {
    this.loading = reading
    this.loadFailed = false
    this.#observer?.readBegan()
  }

  /**
   * Writes everything that waits. The same round writes everything that comes meanwhile.
   *
   * @returns when everything is stored or the store failed; never rejects; `undefined` if there is nothing to wait for
   */
  drain(): Promise<void> | undefined {
    if (this.#observer !== undefined && !this.circuit.isAtRest) this.#observer.isBusy()
    if (!this.#isRunning && this.circuit.canWork) this.#startRound()
    if (this.#claiming === undefined && this.circuit.asksAgain) {
      this.circuit.asked()
      void this.#ask(leaseInAdvance, undefined)
    }
    return this.#isRunning ? this.#round : undefined
  }

  /**
   * Claims a probe for a call. Waits for the store no longer than `storageTimeout`. A lease that is granted later lies
   * ready for the next call.
   *
   * @param duration how long the lease lasts, in milliseconds
   * @param patience how long the call can wait for the store, in milliseconds
   * @returns `undefined` if it was not granted; ask the circuit again for the reason
   */
  async claim(duration: number, requestId: string | undefined, patience: number): Promise<ProbeLease | undefined> {
    const { circuit } = this
    const giveUpAt = this.#runtime.now() + Math.min(this.#storageTimeout, patience)
    const isFirst = this.#claiming === undefined
    const isOverdue = giveUpAt - this.#claimingSince >= 2 * this.#storageTimeout
    while (this.#claiming !== undefined) {
      const isOver = !(await this.#until(giveUpAt, this.#claiming)) || this.#runtime.now() >= giveUpAt
      if (isOver && isOverdue) {
        // The claim that it has waited for has had its time before, and has now had it again.
        circuit.asked()
        return circuit.mayClaimAlone ? circuit.claimAlone(duration) : undefined
      }
      if (isOver || circuit.admit(this.#runtime.now()) !== 'claim') return undefined
    }
    circuit.dropExpiredLease()
    if (!circuit.hasReadyLease) {
      if (circuit.probesAlone) return circuit.claimAlone(duration)
      // A claim that waited for another has less than its time: that it is not answered says nothing of the store.
      if (isFirst) circuit.asked()
      await this.#until(giveUpAt, this.#ask(duration, requestId))
      if (circuit.mayClaimAlone) return circuit.claimAlone(duration)
    }
    return circuit.takeLease()
  }

  /**
   * Waits for a read as long as a call can that has so much time left, in milliseconds. A circuit that is not known by then
   * is taken for closed, and read behind its calls. Where nothing bounds the call, the store is waited for until it fails.
   */
  async waitForRead(reading: Promise<void>, timeLeft: number): Promise<void> {
    if (timeLeft === Number.POSITIVE_INFINITY) await reading
    else await within(this.#runtime, reading, storeShareOf(timeLeft, this.#storageTimeout))
    this.loadAttempted = true
  }

  /** Gives back a lease that lies ready, unless a call is about to take it. {@link drain} stores that. */
  releaseReadyLease(): void {
    if (this.#claiming === undefined) this.circuit.releaseReadyLease()
  }

  /** Reads this circuit by itself. */
  async read(): Promise<void> {
    const exchange = this.circuit.begin()
    const adopt = (record: CircuitRecord | undefined): void => this.circuit.readAnswered(exchange, record)
    const read = (storage: ICircuitStorage) => storage.getState(this.storageKey)
    try {
      adopt(await this.store.run('getState', [this.circuit], read, adopt))
    } catch (error) {
      this.circuit.readFailed(error)
      throw error
    }
  }

  /** Reads this circuit by a write of nothing, on a condition that never holds: a store that throttles counts writes apart. */
  async readByWriting(): Promise<void> {
    const exchange = this.circuit.begin()
    const outcomes = { ...noOutcomes, at: this.#runtime.now(), id: this.#runtime.id() }
    const adopt = ({ current }: WriteResult): void => this.circuit.readAnswered(exchange, current)
    const write = (storage: ICircuitStorage) => storage.addOutcomes(this.storageKey, `never-${outcomes.id}`, outcomes)
    adopt(await this.store.run('addOutcomes', [this.circuit], write, adopt))
  }

  /** Sends a write. Resolves to whether it is stored. */
  async send(write: Write, operator?: OperatorRun): Promise<boolean> {
    const { circuit } = this
    const take = this.beginWrite(write)
    if (write.kind === 'replace' && write.version === undefined) this.#observer?.creates()
    const late = (reply: WriteResult): void => {
      take(reply)
      void this.drain()
    }
    const operation = write.kind === 'add' ? 'addOutcomes' : 'compareAndSetState'
    const run = (storage: ICircuitStorage): Promise<WriteResult> =>
      write.kind === 'add'
        ? storage.addOutcomes(this.storageKey, write.version, write.outcomes)
        : storage.compareAndSetState(this.storageKey, write.version, write.next)
    return take(await this.store.run(operation, [circuit], run, late, operator))
  }

  /** Tells the circuit that a write leaves. Returns the function that takes the reply. */
  beginWrite(write: Write): (reply: WriteResult) => boolean {
    const exchange: Exchange = this.circuit.begin()
    this.circuit.sent(write)
    return (reply) => this.circuit.answered(write, exchange, reply)
  }

  /** A replacement as the store takes it in a batch. */
  setOf({ version, next }: Replacement): CompareAndSet {
    return { serviceKey: this.storageKey, version, next }
  }

  #startRound(): void {
    this.#isRunning = true
    this.#round = this.#run()
  }

  async #run(): Promise<void> {
    try {
      for (let conflicts = 0; conflicts < maxConflicts; ) {
        const step = this.circuit.next()
        if (step === undefined) break
        try {
          if (!(await this.#carryOut(step))) conflicts++
        } catch (error) {
          if (step.kind !== 'read' || !this.circuit.lookFailed(error)) {
            this.circuit.storeFailed(error)
            break
          }
          conflicts++
        }
      }
    } finally {
      // This is the turn in which `next` was asked last: nothing can come in between.
      this.#isRunning = false
    }
  }

  /** @returns `false` where the next step has to be decided anew */
  async #carryOut(step: Step): Promise<boolean> {
    if (step.kind !== 'read') return this.send(step)
    const { loading } = this
    await (loading ?? this.read())
    // The store was away while this read was waited for.
    if (loading !== undefined && this.loadFailed) throw new Error('The read that was waited for has failed.')
    return false
  }

  #ask(duration: number, requestId: string | undefined): Promise<void> {
    this.#claimingSince = this.#runtime.now()
    this.#claiming = this.#acquire(duration, requestId).finally(() => {
      this.#claiming = undefined
    })
    return this.#claiming
  }

  async #acquire(duration: number, requestId: string | undefined): Promise<void> {
    const { circuit } = this
    await this.drain()
    // A read that is under way need not be repeated.
    if (this.loading !== undefined) await this.loading
    circuit.wish(duration, requestId)
    if (!this.#isRunning) this.#startRound()
    await this.#round
    circuit.withdraw()
  }

  #until(giveUpAt: number, promise: Promise<unknown>): Promise<boolean> {
    return within(this.#runtime, promise, giveUpAt - this.#runtime.now())
  }
}
