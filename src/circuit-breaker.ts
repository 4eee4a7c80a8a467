/**
 * The engine: one guarded circuit per service, or per key of a service, over one store.
 *
 * The file is longer than it should be, because it holds the public methods. Each has its documentation, and two signatures if
 * services may be keyed. Other files do the work.
 *
 * @module
 */

import { brand } from './brand.ts'
import type { AnyOptions, CallExternal, Plain } from './call/call-external.ts'
import { type CallOptions, type KeyedCallOptions, type Operation, withOption } from './call/call-options.ts'
import type { Guard } from './call/guard.ts'
import { type GuardWorld, makeGuard, makeKeyedService } from './call/guard-maker.ts'
import { Invocation, type TimeSource } from './call/invocation.ts'
import { roomForCalls, warnOfLittleRoom } from './call/room-for-calls.ts'
import type { CheckOptions } from './check.ts'
import { type CircuitSnapshot, type Circuits, type KeyedCircuits, snapshotOf } from './circuit/snapshot.ts'
import { force, open, reset } from './circuit/state-machine.ts'
import { ConfigurationError, UnknownServiceError } from './errors.ts'
import {
  Notifier,
  type StateChange,
  type StateChangeListener,
  type StateChangeOptions,
  type StorageErrorListener,
} from './events.ts'
import { isBreakableError } from './failures/classification.ts'
import { KeyedService, sharedName } from './keys/keyed-service.ts'
import type {
  ForceOptions,
  JournalOptions,
  KeyOption,
  OperatorOptions,
  StatesToSet,
  StateToSet,
  Transitions,
} from './operators.ts'
import { warnIfRemade } from './remade.ts'
import { completeRuntime, hasOwnClock, type Runtime, within } from './runtime.ts'
import { entriesOf, listOf, refuseWrongContext, refuseWrongListener, refuseWrongTime } from './settings/arguments.ts'
import { resolveConfig } from './settings/resolve.ts'
import type { CircuitBreakerOptions, KeyedServices, NoKeys } from './settings/table.ts'
import type { CircuitRecord, Finding, ICircuitStorage, JournalEntry } from './storage/contract.ts'
import { makeStorage } from './storage/factory.ts'
import { StoreAccess } from './storage/store-access.ts'
import { pauseLimitFor } from './storage/store-pause.ts'
import { CircuitReader } from './sync/circuit-reader.ts'
import { type Synchronizer, storeShareOf } from './sync/synchronizer.ts'
import { transitionChannel } from './telemetry/channels.ts'
import { warnOnce } from './warnings.ts'

/** The code of the operators is loaded at its first use: a handler does not need it. */
const loadOperators = () => import('./operators.ts')

/** The operators get this as an argument. If they imported it, every handler would load one more file. */
const transitions: Transitions = { force, open, reset }

/** Time reserved at the end of an invocation that waits for the store, in milliseconds. */
const reserve = 100

/**
 * A circuit breaker for a set of services, usable without Middy.
 *
 * @example
 * const breaker = new CircuitBreaker({ services: ['stripe'] })
 * const charge = await breaker.call('stripe', ({ signal }) => createCharge({ signal }), { timeout: 2_000 })
 * await breaker.flush()
 */
export class CircuitBreaker<const K extends string = string, T = NoKeys, D extends string = KeyedServices<K, T>> {
  static {
    Object.defineProperty(CircuitBreaker.prototype, brand, { value: true })
  }

  /** The live snapshots of all services, by service key. A keyed service has `of(key)`. */
  readonly circuits: Circuits<K, D>
  readonly #guards = new Map<string, Guard | KeyedService>()
  /** The circuits of services whose `mode` is not `off`, without those of keys. */
  readonly #active: readonly Synchronizer[]
  /** The keyed services whose `mode` is not `off`. */
  readonly #keyed: readonly KeyedService[]
  /** A circuit of each service whose `mode` is not `off`. */
  readonly #represented: readonly Synchronizer[]
  readonly #runtime: Runtime
  readonly #store: StoreAccess
  readonly #reader: CircuitReader
  /** The store, if this breaker made it. */
  readonly #ownStorage: ICircuitStorage | undefined
  readonly #storageTimeout: number
  /** Whether the settings were compared with an invocation's time. Set by the first `load` that has a deadline. */
  #hasMetDeadline = false
  readonly #listeners = new Map<StateChangeListener, StateChangeOptions>()
  readonly #notifier = new Notifier()
  readonly #keepsJournal: boolean
  /** The entries of the journal that are being written. */
  readonly #journal = new Notifier()

  /**
   * @param options the settings
   * @param runtime the clock, timers, randomness and environment, for tests and simulations. Default: the machine's own
   * @throws {ConfigurationError} naming every problem of the options and of the environment at once
   */
  constructor(options: CircuitBreakerOptions<K, T>, runtime: Partial<Runtime> = {}) {
    this.#runtime = completeRuntime(runtime)
    const { env } = this.#runtime
    const config = resolveConfig(options, env)
    for (const warning of config.warnings) void warnOnce(warning)
    if (hasOwnClock(this.#runtime)) for (const doubt of config.doubts) void warnOnce(doubt, 'CIRCUIT_SECONDS')
    const storage = makeStorage(config.storage, env)
    if (storage !== config.storage) this.#ownStorage = storage
    this.#storageTimeout = config.storageTimeout
    this.#keepsJournal = config.journal && storage.appendJournal !== undefined
    const cacheTtls = Array.from(config.services.values(), ({ cacheTtl }) => cacheTtl)
    const longestPause = pauseLimitFor(cacheTtls)
    this.#store = new StoreAccess(storage, this.#runtime, config.storageTimeout, longestPause, this.#notifier)
    const snapshots: Record<string, CircuitSnapshot | KeyedCircuits> = Object.create(null)
    const active: Synchronizer[] = []
    const world: GuardWorld = {
      namespace: config.namespace,
      runtime: this.#runtime,
      store: this.#store,
      storageTimeout: config.storageTimeout,
      emit: this.#emit.bind(this),
      load: (sync) => this.#reader.load([sync]),
    }
    const keyedServices: KeyedService[] = []
    for (const [service, settings] of config.services) {
      const { mode, keyed } = settings
      const own = keyed?.parent === false ? undefined : makeGuard(world, service, settings)
      if (mode !== 'off' && own !== undefined) active.push(own.sync)
      if (keyed === undefined) {
        const guard = own as Guard
        this.#guards.set(service, guard)
        snapshots[service] = snapshotOf(() => guard, this.#runtime, guard.circuit)
      } else {
        const guard = makeKeyedService(world, service, { ...settings, keyed }, own)
        this.#guards.set(service, guard)
        snapshots[service] = guard.circuits
        if (mode !== 'off') keyedServices.push(guard)
      }
    }
    this.circuits = Object.freeze(snapshots) as Circuits<K, D>
    this.#active = active
    this.#keyed = keyedServices
    this.#represented = [...active, ...keyedServices.map(({ representative }) => representative.sync)]
    const isOn = this.#represented.length > 0
    if (isOn && storage !== config.storage && hasOwnClock(this.#runtime)) {
      warnIfRemade(this.#represented, storage.shared !== false)
    }
    this.#reader = new CircuitReader({ [Symbol.iterator]: () => this.#refreshed() }, this.#store, this.#runtime)
    if (config.onStateChange) this.onStateChange(config.onStateChange)
    if (config.onStorageError) this.onStorageError(config.onStorageError)
    if (isOn && config.prefetch) void this.load()
    else if (isOn && config.preload && env['AWS_LAMBDA_FUNCTION_NAME']) void this.#store.prepare()
  }

  /** The circuits to refresh: all that are known up front, and the keys in use. */
  *#refreshed(): Generator<Synchronizer> {
    yield* this.#active
    for (const { used } of this.#keyed) yield* used
  }

  /** The circuits that may have to read or write the store. */
  *#working(): Generator<Synchronizer> {
    yield* this.#active
    for (const { busy } of this.#keyed) yield* busy
  }

  /** The keys of the configured services. */
  get services(): K[] {
    return [...this.#guards.keys()] as K[]
  }

  // -------------------------------------------------------------------------------------------------------- calls

  /**
   * Runs an operation under the circuit of a service.
   *
   * The caller gets the result or error of the operation unchanged. The breaker throws an error of its own only if it refused
   * the call or ended it early. If the call has a `fallback`, its result replaces that error.
   *
   * @returns the result of the operation, or the result of the fallback
   * @throws {CircuitOpenError} if the circuit refused the call
   * @throws {CircuitTimeoutError} if the call took longer than `timeout`
   * @throws {ConcurrencyLimitError} if `maxConcurrent` calls were in flight and `maxQueue` waiting
   * @throws {UnknownServiceError} if the service key is not configured
   * @throws {ConfigurationError} if an option of this call is wrong
   * @example
   * const rate = await breaker.call('rates', ({ signal }) => fetchRate({ signal }), { timeout: 2_000, fallback: () => lastRate })
   */
  call<T, F = never>(service: Plain<K, D>, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F>
  call<T, F = never>(service: D, operation: Operation<T>, options: KeyedCallOptions<T, F>): Promise<T | F>
  call<T, F>(service: string, operation: Operation<T>, options?: AnyOptions<T, F>): Promise<T | F> {
    return this.#call(service, operation, options)
  }

  /** The same as {@link call}, but every thrown error counts as a failure. */
  execute<T, F = never>(service: Plain<K, D>, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F>
  execute<T, F = never>(service: D, operation: Operation<T>, options: KeyedCallOptions<T, F>): Promise<T | F>
  execute<T, F>(service: string, operation: Operation<T>, options?: AnyOptions<T, F>): Promise<T | F> {
    return this.#call(service, operation, withOption(options, { isBreakableError: () => true }))
  }

  /** The same as {@link call}: an error counts only if it shows that the service fails. */
  executeWithErrorClassification<T, F = never>(
    service: Plain<K, D>,
    operation: Operation<T>,
    options?: CallOptions<T, F>,
  ): Promise<T | F>
  executeWithErrorClassification<T, F = never>(
    service: D,
    operation: Operation<T>,
    options: KeyedCallOptions<T, F>,
  ): Promise<T | F>
  executeWithErrorClassification<T, F>(
    service: string,
    operation: Operation<T>,
    options?: AnyOptions<T, F>,
  ): Promise<T | F> {
    return this.#call(service, operation, options)
  }

  /**
   * The same as {@link call}, with a timeout.
   *
   * @param timeout the longest that the call may take, in milliseconds
   */
  executeWithTimeout<T, F = never>(
    service: Plain<K, D>,
    operation: Operation<T>,
    timeout: number,
    options?: CallOptions<T, F>,
  ): Promise<T | F>
  executeWithTimeout<T, F = never>(
    service: D,
    operation: Operation<T>,
    timeout: number,
    options: KeyedCallOptions<T, F>,
  ): Promise<T | F>
  executeWithTimeout<T, F>(
    service: string,
    operation: Operation<T>,
    timeout: number,
    options?: AnyOptions<T, F>,
  ): Promise<T | F> {
    return this.#call(service, operation, withOption(options, { timeout: timeout ?? Number.NaN }))
  }

  /**
   * Whether an error counts as a failure of this service, by its settings. The method only classifies and counts nothing.
   *
   * @param service default: no service, and the default classifier decides
   * @throws {UnknownServiceError} if the service key is not configured
   */
  isBreakableError(error: unknown, service?: K): boolean {
    if (service === undefined) return isBreakableError(error)
    const guard = this.#guard(service)
    const one = guard instanceof KeyedService ? guard.representative : guard
    return one.judgeError({}, error) === 'failure'
  }

  /**
   * Binds {@link call} to an invocation: calls end before its deadline, and events have its request id. In a durable function a
   * call settles only after its outcome is stored.
   *
   * @param context Lambda's context, or anything with its `getRemainingTimeInMillis` and `awsRequestId`
   * @throws {ConfigurationError} if `context` is not an object
   */
  callExternalFor(context: TimeSource | Invocation): CallExternal<K, D> {
    refuseWrongContext('callExternalFor', context)
    const invocation = context instanceof Invocation ? context : this.beginInvocation(context)
    const call = <T, F>(service: string, operation: Operation<T>, options?: AnyOptions<T, F>) =>
      this.#call(service, operation, options, invocation)
    return call as CallExternal<K, D>
  }

  /** @internal Begins an invocation, which the middleware ends. `keyBy` finds the key of calls that name none. */
  beginInvocation(context: TimeSource, keyBy?: () => unknown): Invocation {
    return new Invocation(context, this.#runtime, keyBy)
  }

  #call<T, F>(
    service: string,
    operation: Operation<T>,
    options: AnyOptions<T, F> | undefined,
    invocation?: Invocation,
  ): Promise<T | F> {
    const guard = this.#guards.get(service)
    if (guard === undefined) return Promise.reject(new UnknownServiceError(service, this.#guards.keys()))
    // Only keyed services look at a key.
    const called = guard.call(operation, options as CallOptions<T, F>, invocation)
    return invocation?.isDurable ? called.finally(() => this.flush(invocation.timeLeft())) : called
  }

  /** Whether {@link load} has anything to do. */
  get needsLoad(): boolean {
    return this.needsLoadAt(this.#runtime.now())
  }

  /** @internal The same at a given time, in milliseconds since the epoch. */
  needsLoadAt(now: number): boolean {
    const isDue = ({ circuit }: Synchronizer): boolean => circuit.hasWork || circuit.isStale(now)
    return this.#active.some(isDue) || this.#keyed.some((keys) => keys.needsLoadAt(now))
  }

  /**
   * Loads the store's library, reads the circuits whose cache is older than `cacheTtl` in one batch, and writes outcomes that an
   * interrupted invocation has left. Outside an invocation it waits for the library, and then for the store up to
   * `storageTimeout`. In an invocation it waits for both together up to `storageTimeout`, and at most a quarter of the time that
   * `deadlineReserve` leaves. Circuits that are still unknown then count as closed, and are read while calls run. The breaker
   * reports a store that fails; the promise does not reject for it.
   *
   * @param timeLeft the remaining time of the invocation, in milliseconds. Default: there is no invocation
   * @throws {ConfigurationError} if `timeLeft` is not a number
   * @example
   * const breaker = new CircuitBreaker({ services: ['stripe'] })
   * await breaker.load() // at the top of the file: Lambda waits for it while it starts the instance
   */
  async load(timeLeft: number = Number.POSITIVE_INFINITY): Promise<void> {
    refuseWrongTime('load', timeLeft)
    const preparing = this.#store.canRead ? this.#store.prepare() : undefined
    const loading = this.#load(preparing)
    if (timeLeft === Number.POSITIVE_INFINITY) {
      await preparing
      await within(this.#runtime, loading, this.#storageTimeout)
    } else {
      if (!this.#hasMetDeadline) warnOfLittleRoom(this.#represented, timeLeft, this.#storageTimeout)
      this.#hasMetDeadline = true
      await within(
        this.#runtime,
        loading,
        storeShareOf(roomForCalls(this.#represented, timeLeft), this.#storageTimeout),
      )
      for (const sync of this.#active) sync.loadAttempted = true
    }
  }

  async #load(preparing: Promise<void> | undefined): Promise<void> {
    if (preparing !== undefined) await preparing
    const now = this.#runtime.now()
    const stale = [...this.#refreshed()].filter(({ circuit }) => circuit.isStale(now))
    await Promise.all([...this.#drain(), this.#reader.load(stale)])
  }

  /** Whether outcomes wait to be stored, or a promise of a listener has not settled. */
  get needsFlush(): boolean {
    const isBusy = ({ circuit }: Synchronizer): boolean => circuit.hasWork || circuit.hasReadyLease
    if (this.#notifier.isBusy || this.#journal.isBusy) return true
    return this.#active.some(isBusy) || this.#keyed.some((keys) => keys.needsFlush)
  }

  /**
   * Waits until all queued outcomes are stored, and then for the promises of listeners. It waits up to `storageTimeout` in all,
   * and ends 100 ms before the invocation does. The breaker keeps outcomes that could not be stored and stores them at the next
   * opportunity; the promise does not reject for them. A listener's promise that did not settle in this time is not awaited again.
   * The middleware calls this method at the end of each invocation.
   *
   * @param timeLeft the remaining time of the invocation, in milliseconds. Default: there is no invocation
   * @throws {ConfigurationError} if `timeLeft` is not a number
   */
  async flush(timeLeft: number = Number.POSITIVE_INFINITY): Promise<void> {
    refuseWrongTime('flush', timeLeft)
    for (const sync of this.#working()) sync.releaseReadyLease()
    const work = this.#drain()
    const notifier = this.#notifier
    const { tasks } = notifier
    if (work.length === 0 && tasks.length === 0 && !this.#journal.isBusy) return
    const limit = Math.min(this.#storageTimeout, timeLeft - reserve)
    // A stored transition may call listeners and add entries to the journal.
    const done = Promise.all(work).then(() => Promise.all([...notifier.tasks, ...this.#journal.tasks]))
    if (!(await within(this.#runtime, done, limit)) && limit > 0) notifier.giveUp(tasks)
  }

  /**
   * Stores all queued outcomes, as {@link flush} does, and closes the connections of the store, so that a script can end. A store
   * that you passed in stays open, because it may have other users. Functions in Lambda do not need this method. A later call
   * connects again.
   */
  async close(): Promise<void> {
    await this.flush()
    await this.#ownStorage?.close?.()
  }

  /**
   * Ends an invocation: waits until all queued outcomes are stored, as {@link flush} does. Outcomes that are not stored by then,
   * and outcomes of calls that nobody awaited, are stored at the next opportunity.
   *
   * @internal
   * @returns `undefined` if there is nothing to wait for
   */
  endInvocation(invocation: Invocation | undefined, response: unknown): Promise<void> | undefined {
    invocation?.end(response)
    return this.needsFlush ? this.flush(invocation?.timeLeft()) : undefined
  }

  #drain(): Promise<void>[] {
    return [...this.#working()].flatMap((sync) => sync.drain() ?? [])
  }

  // ----------------------------------------------------------------------------------------------------- listeners

  /**
   * Calls a listener with each transition that this instance makes for the fleet. At most one instance reports a transition.
   *
   * @param options `observed: true` also delivers the transitions that this instance learns of by reading, and the transitions
   *   of its own circuit while the store fails
   * @returns a function that unsubscribes
   * @throws {ConfigurationError} if the listener is not a function, or an option is wrong
   * @example
   * breaker.onStateChange(({ service, from, to, reason }) => console.warn(service, from, to, reason))
   */
  onStateChange(listener: StateChangeListener, options: StateChangeOptions = {}): () => void {
    refuseWrongListener('onStateChange', listener, options)
    this.#listeners.set(listener, options)
    return () => void this.#listeners.delete(listener)
  }

  /**
   * Calls a listener with each failure of the store. While there is no listener, the breaker emits a warning through
   * `process.emitWarning`, at most once a minute for each cause. For a misconfigured store the breaker emits one warning in either
   * case. The warning says what to do.
   *
   * @returns a function that unsubscribes
   * @throws {ConfigurationError} if the listener is not a function
   */
  onStorageError(listener: StorageErrorListener): () => void {
    refuseWrongListener('onStorageError', listener)
    return this.#store.onError(listener)
  }

  #emit(change: StateChange, storageKey: string): void {
    const functionName = this.#runtime.env['AWS_LAMBDA_FUNCTION_NAME']
    if (transitionChannel.hasSubscribers) transitionChannel.publish({ ...change, functionName })
    for (const [listener, { observed }] of this.#listeners) {
      if (observed === true || !change.observed) {
        this.#notifier.notify('onStateChange', listener, { ...change, functionName })
      }
    }
    if (change.observed || !this.#keepsJournal || (change.key !== undefined && !isJournaled(change))) return
    // The breaker writes the entry after everything else, and loads the file with the first entry.
    const write = () =>
      import('./journal.ts').then(({ writeEntry }) =>
        writeEntry(this.#store, this.#runtime, this.#storageTimeout, storageKey, change),
      )
    this.#journal.notify('journal', write, change)
  }

  /**
   * Reads the journal of a circuit: its transitions, overrides and resets, the latest first. A DynamoDB table with a sort key keeps
   * 30 days; other stores keep the last 50 entries.
   *
   * @throws {CircuitStorageError} if the store fails, or keeps no journal
   * @throws {ConfigurationError} if an option is wrong
   * @throws {UnknownServiceError} if the service key is not configured
   * @example
   * for (const { at, to, reason, by, why } of await breaker.journal('stripe')) console.log(new Date(at), to, reason, by, why)
   */
  async journal<S extends K>(service: S, options: JournalOptions & KeyOption<S, D> = {}): Promise<JournalEntry[]> {
    const sync = this.#sync(service, keyIn(options))
    const { readJournal } = await loadOperators()
    return readJournal(sync, options, this.#runtime, this.#storageTimeout)
  }

  // ----------------------------------------------------------------------------------------------------- operators

  /**
   * The live snapshot of one service, of one key, or of all services. Its properties follow the circuit.
   *
   * @throws {UnknownServiceError} if the service key is not configured
   * @throws {ConfigurationError} if the key is not a text, or the service is not keyed
   * @example
   * if (breaker.snapshot('stripe').state === 'OPEN') return queueForLater(order)
   */
  snapshot(): Circuits<K, D>
  snapshot(service: Plain<K, D>): CircuitSnapshot
  snapshot(service: D, key: string): CircuitSnapshot
  snapshot(service?: string, key?: string): Circuits<K, D> | CircuitSnapshot {
    if (service === undefined) return this.circuits
    const guard = this.#guard(service)
    return guard instanceof KeyedService
      ? guard.snapshot(key as string)
      : ((this.circuits as Circuits)[guard.circuit.service as string] as CircuitSnapshot)
  }

  /**
   * Checks before an outage whether the breaker would work in one: every permission, the table's keys, the store's clock, and
   * whether the settings fit each other and the function's timeout. The check reads, and writes under a condition that cannot
   * hold, so nothing changes in the store. A fault of the store is a finding; the promise does not reject for it.
   *
   * @returns the findings, the gravest first. If no finding has the `severity` `error`, the breaker works in an outage
   * @throws {ConfigurationError} if an option is wrong
   * @example
   * for (const { severity, message, remedy } of await breaker.check({ context })) console.warn(severity, message, remedy)
   */
  async check(options: CheckOptions = {}): Promise<Finding[]> {
    const timeLeft = this.beginInvocation(Object(options?.context)).timeLeft()
    const { checkBreaker, refuseWrongCheck } = await loadOperators()
    refuseWrongCheck(options)
    return checkBreaker(
      this.#represented,
      this.#store,
      this.#runtime,
      this.#storageTimeout,
      timeLeft,
      this.#keepsJournal,
    )
  }

  /**
   * Forces a circuit open for the whole fleet, whatever the service does, until `until` or a {@link reset}. Instances follow
   * within `cacheTtl`.
   *
   * @throws {CircuitStorageError} if the store fails, or is so slow that `until` passes first. Then nothing changes
   * @throws {ConfigurationError} if an option is wrong
   * @throws {UnknownServiceError} if the service key is not configured
   * @example
   * await breaker.forceOpen('stripe', { until: Date.now() + 3_600_000, by: 'on-call', why: 'Stripe asked us to stop' })
   */
  async forceOpen<S extends K>(service: S, options: ForceOptions & KeyOption<S, D> = {}): Promise<void> {
    await this.#force(service, 'OPEN', options)
  }

  /**
   * Forces a circuit closed for the whole fleet, whatever the service does, until `until` or a {@link reset}. Instances follow
   * within `cacheTtl`.
   *
   * @throws {CircuitStorageError} if the store fails, or is so slow that `until` passes first. Then nothing changes
   * @throws {ConfigurationError} if an option is wrong
   * @throws {UnknownServiceError} if the service key is not configured
   * @example
   * await breaker.forceClosed('stripe', { until: Date.now() + 600_000, by: 'on-call', why: 'false alarm' })
   */
  async forceClosed<S extends K>(service: S, options: ForceOptions & KeyOption<S, D> = {}): Promise<void> {
    await this.#force(service, 'CLOSED', options)
  }

  async #force(service: K, state: StateToSet, options: ForceOptions): Promise<void> {
    const [sync, now] = [this.#sync(service, keyIn(options)), this.#runtime.now()]
    const { forceCircuit } = await loadOperators()
    await forceCircuit(sync, state, options, now, transitions)
    await Promise.all(this.#journal.tasks)
  }

  /**
   * Closes a circuit, ends an operator's override and clears the counts. Also repairs a damaged record.
   *
   * @throws {CircuitStorageError} if the store fails
   * @throws {ConfigurationError} if an option is wrong
   * @throws {UnknownServiceError} if the service key is not configured
   * @example
   * await breaker.reset('stripe', { by: 'on-call', why: 'all is well again' })
   */
  async reset<S extends K>(service: S, options: OperatorOptions & KeyOption<S, D> = {}): Promise<void> {
    const sync = this.#sync(service, keyIn(options))
    const { resetCircuit } = await loadOperators()
    await resetCircuit(sync, options, transitions)
    await Promise.all(this.#journal.tasks)
  }

  /**
   * Reads the stored records of several circuits, past the cache, in as few requests as the store allows: 250 circuits take 3
   * requests on DynamoDB, and one pipeline on Redis.
   *
   * @param services default: all services that have a circuit of their own. A key that is named twice is read once. Or a keyed
   *   service, and then the keys of the circuits to read
   * @returns the records by service key, or by key. A circuit without a stored record is absent
   * @throws {UnknownServiceError} if a service key is not configured. Then nothing is read
   * @throws {CircuitStorageError} if the store fails. By service key, `results` has the records that arrived, and `errors` the
   *   failures
   * @example
   * for (const [service, { state }] of await breaker.batchGetState()) console.log(service, state)
   */
  batchGetState(services?: Iterable<K>): Promise<Map<K, CircuitRecord>>
  batchGetState(service: D, keys: Iterable<string>): Promise<Map<string, CircuitRecord>>
  async batchGetState(services?: Iterable<string>, keys?: Iterable<string>): Promise<Map<string, CircuitRecord>> {
    const given = this.#namedIn(services, keys)
    const names = listOf(given)
    const { readCircuits, namedCircuits } = await loadOperators()
    const circuits = namedCircuits(names, given, 'batchGetState', this.#finderOf(services, keys))
    return readCircuits(this.#store, circuits)
  }

  /**
   * Sets several circuits for the whole fleet, in as few requests as the store allows. Each write has the condition that nobody
   * else has changed the circuit meanwhile. After a conflict the breaker decides again and writes again. `OPEN`: the circuit opens
   * and recovers by itself after its `resetTimeout`. `CLOSED`: the same as {@link reset}. Both states end an override, and neither
   * is one.
   *
   * @param states the states by service key: an object, a `Map` or a list of pairs. Or a keyed service, and then the states by
   *   key
   * @returns the stored records, by service key, or by key
   * @throws {UnknownServiceError | ConfigurationError} if a service key or a state is wrong. Then nothing is written
   * @throws {CircuitStorageError} if the store fails. By service key, `results` has the stored records, and `errors` the failures
   * @example
   * await breaker.batchSetState({ stripe: 'OPEN', paypal: 'CLOSED' })
   */
  batchSetState(states: StatesToSet<K>): Promise<Map<K, CircuitRecord>>
  batchSetState(service: D, states: StatesToSet): Promise<Map<string, CircuitRecord>>
  async batchSetState(first: StatesToSet | string, ofKeys?: StatesToSet): Promise<Map<string, CircuitRecord>> {
    const states = ofKeys ?? first
    const entries = entriesOf(states)
    const { setCircuits, statesToSet } = await loadOperators()
    const wanted = statesToSet(entries, states, this.#finderOf(first, ofKeys))
    const stored = await setCircuits(this.#store, wanted, transitions)
    await Promise.all(this.#journal.tasks)
    return stored
  }

  /**
   * Deletes several circuits from the store, for tests and for decommissioning. A circuit in use starts again, closed and empty.
   * To close a circuit, {@link reset} it.
   *
   * @param services default: all services that have a circuit of their own. Or a keyed service, and then the keys of the
   *   circuits to delete
   * @throws {UnknownServiceError} if a service key is not configured. Then nothing is deleted
   * @throws {CircuitStorageError} if the store fails. `errors` has the failures by service key
   */
  batchClearState(services?: Iterable<K>): Promise<void>
  batchClearState(service: D, keys: Iterable<string>): Promise<void>
  async batchClearState(services?: Iterable<string>, keys?: Iterable<string>): Promise<void> {
    const given = this.#namedIn(services, keys)
    const names = listOf(given)
    const { clearCircuits, namedCircuits } = await loadOperators()
    const circuits = namedCircuits(names, given, 'batchClearState', this.#finderOf(services, keys))
    await clearCircuits(this.#store, circuits)
  }

  /** The names in a batch; by default all services that have a circuit of their own. */
  #namedIn(services: unknown, keys: unknown): unknown {
    if (keys !== undefined || services !== undefined) return keys === undefined ? services : keys
    return this.services.filter((service) => {
      const guard = this.#guard(service)
      return !(guard instanceof KeyedService) || guard.parent !== undefined
    })
  }

  /** Finds the circuits of a batch: the circuits of services, or, with keys, the circuits of the keys of one service. */
  #finderOf(service: unknown, keys: unknown): (name: string) => Synchronizer {
    return keys === undefined ? (name) => this.#sync(name) : (name) => this.#sync(service as string, name)
  }

  /** The circuit of a service, or of one of its keys. */
  #sync(service: string, key?: string): Synchronizer {
    const guard = this.#guard(service)
    if (guard instanceof KeyedService) {
      return key === undefined && guard.parent !== undefined ? guard.parent.sync : guard.syncOf(key as string)
    }
    if (key !== undefined) throw noKeyAllowed(service, key)
    return guard.sync
  }

  #guard(service: string): Guard | KeyedService {
    const guard = this.#guards.get(service)
    if (guard === undefined) throw new UnknownServiceError(service, this.#guards.keys())
    return guard
  }
}

/**
 * Whether the journal records a change of a key's circuit. An attacker may choose keys and would fill the journal. So the journal
 * records only what operators do, and the changes of the circuit that keys share.
 */
function isJournaled({ key, reason }: StateChange): boolean {
  return key === sharedName || /^(forced|reset|set)/.test(reason)
}

/** The key in the options of an operator. The options are not checked yet. */
function keyIn(options: unknown): string | undefined {
  return (options as { readonly key?: string } | null)?.key
}

function noKeyAllowed(service: string, key: unknown): ConfigurationError {
  const message = `key must be left out, because ${service} is not keyed (option)`
  return new ConfigurationError([{ setting: 'key', source: 'option', value: key, message }])
}
