/**
 * The engine: one circuit per service over one store. The middleware is a thin layer on top of it.
 *
 * @module
 */

import { clearCircuits, readCircuits, type StateToSet, setCircuits } from './batch-operations.ts'
import { CallScope, Invocation, type OperationContext, type TimeSource, UnboundContext } from './call-timeout.ts'
import { Circuit, type HeldLease } from './circuit.ts'
import { type CircuitBreakerOptions, longestTimer, resolveConfig, storedKey } from './config.ts'
import { describe, Problems } from './configuration-problems.ts'
import { abortedByCaller, describeFailure, isBreakableError } from './error-classification.ts'
import {
  BreakableResultError,
  type CircuitStorageError,
  ConcurrencyLimitError,
  ConfigurationError,
  type ConfigurationProblem,
  isCircuitStorageError,
  UnknownServiceError,
} from './errors.ts'
import {
  notify,
  type StateChange,
  type StateChangeListener,
  type StateChangeOptions,
  type StorageErrorListener,
} from './events.ts'
import { retryAfterOf } from './retry-after.ts'
import { type Runtime, systemRuntime } from './runtime.ts'
import { storeAtShutdown } from './shutdown.ts'
import { type CircuitSnapshot, snapshotOf } from './snapshot.ts'
import { type Failure, force, reset, type Verdict } from './state-machine.ts'
import { BoundedStorage, pauseLimitFor } from './storage/bounded-storage.ts'
import type { CircuitRecord, ICircuitStorage } from './storage/circuit-storage.ts'
import { CircuitBreakerStorageFactory } from './storage/factory.ts'

/** What a guarded call does. Read a response's body in here: what happens after it has settled is not seen. */
export type Operation<T> = (context: OperationContext) => PromiseLike<T> | T

/** Options of one call; what is given here wins over the service's settings. */
export interface CallOptions<T = unknown, F = never> {
  /** The longest the call may take, in milliseconds, the wait for a permit included; `false`: no limit of its own. */
  readonly timeout?: number | false | undefined
  /** Cancels the call: the operation's signal is aborted, and the call rejects with this signal's reason. */
  readonly signal?: AbortSignal | undefined
  /**
   * Answers instead when the circuit or the concurrency limit refused the call, when it timed out, or when it failed
   * in a way that counts (for a result that counts as a failure the error is a `BreakableResultError` that carries
   * it). Other errors are rethrown. What the fallback throws propagates.
   */
  readonly fallback?: ((error: unknown) => PromiseLike<F> | F) | undefined
  /** Which errors count as failures. */
  readonly isBreakableError?: ((error: unknown) => boolean) | undefined
  /** Which results count as failures. */
  readonly isBreakableResult?: ((result: T) => boolean) | undefined
}

/** `CircuitBreaker.call`, bound to an invocation: to its deadline and its request id. */
export type CallExternal<K extends string = string> = <T, F = never>(
  service: K,
  operation: Operation<T>,
  options?: CallOptions<T, F>,
) => Promise<T | F>

/** The live snapshots of all services, by key. It has no prototype, so that a service may have any name. */
export type Circuits<K extends string = string> = { readonly [Key in K]: CircuitSnapshot }

/** An operator's options. */
export interface ForceOptions {
  /** When the override ends by itself: a `Date` or milliseconds since the epoch. Default: only by `reset`. */
  readonly until?: Date | number | undefined
}

/** What the engine takes from its surroundings; each part defaults to the machine's own. For tests and simulations. */
export interface Surroundings extends Partial<Runtime> {
  /** The environment variables. Default: `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/** How a call ended, as far as the circuit is concerned. */
type Outcome = 'success' | 'failure' | 'ignored'

const settled = Promise.resolve()
/** As `await` does: a promise that has a `then` of its own is listened to all the same. */
const listen = Promise.prototype.then
const noOptions: object = Object.freeze({})
const everyError = (): boolean => true
const warned = new Set<string>()

/**
 * A circuit breaker for a set of services, usable without Middy.
 *
 * @example
 * const breaker = new CircuitBreaker({ services: ['stripe'] })
 * const charge = await breaker.call('stripe', ({ signal }) => createCharge({ signal }), { timeout: 2_000 })
 * await breaker.flush()
 */
export class CircuitBreaker<const K extends string = string> {
  /** The live snapshots of all services, by key. */
  readonly circuits: Circuits<K>
  readonly #circuits = new Map<string, Circuit>()
  /** Those whose `mode` is not `off`. */
  readonly #active: readonly Circuit[]
  readonly #runtime: Runtime
  readonly #store: BoundedStorage
  /** The store, if it was made here. */
  readonly #ownStorage: ICircuitStorage | undefined
  readonly #storageTimeout: number
  /** How many operations run. */
  #underWay = 0
  /** Whether Lambda may end the process. */
  readonly #isInLambda: boolean
  readonly #listeners = new Map<StateChangeListener, StateChangeOptions>()

  /**
   * @throws {ConfigurationError} naming every problem of the options and of the environment at once
   */
  constructor(options: CircuitBreakerOptions<K>, surroundings: Surroundings = {}) {
    const { env = process.env } = surroundings
    this.#runtime = runtimeOf(surroundings)
    const config = resolveConfig(options, env)
    warnOnce(config.warnings)
    const storage = CircuitBreakerStorageFactory.create(config.storage, env)
    if (storage !== config.storage) this.#ownStorage = storage
    this.#storageTimeout = config.storageTimeout
    this.#isInLambda = Boolean(env.AWS_LAMBDA_FUNCTION_NAME)
    const cacheTtls = Array.from(config.services.values(), ({ cacheTtl }) => cacheTtl)
    this.#store = new BoundedStorage(storage, this.#runtime, config.storageTimeout, pauseLimitFor(cacheTtls))
    const snapshots: Record<string, CircuitSnapshot> = Object.create(null)
    for (const [service, settings] of config.services) {
      const key = storedKey(config.namespace, service)
      const circuit = new Circuit(
        service,
        key,
        settings,
        this.#store,
        config.storageTimeout,
        this.#runtime,
        this.#emit.bind(this),
      )
      this.#circuits.set(service, circuit)
      snapshots[service] = snapshotOf(circuit)
    }
    this.circuits = Object.freeze(snapshots) as Circuits<K>
    this.#active = [...this.#circuits.values()].filter((circuit) => circuit.settings.mode !== 'off')
    if (config.onStateChange !== undefined) this.onStateChange(config.onStateChange)
    if (config.onStorageError !== undefined) this.onStorageError(config.onStorageError)
    if (config.prefetch && this.#active.length > 0) void this.load()
  }

  /** The keys of the configured services. */
  get services(): K[] {
    return [...this.#circuits.keys()] as K[]
  }

  // -------------------------------------------------------------------------------------------------------- calls

  /**
   * Runs an operation under the circuit of a service.
   *
   * What the operation returns or throws reaches the caller unchanged; the breaker's own errors appear only when it
   * refused or cut the call.
   *
   * @throws {CircuitOpenError} the circuit refused the call
   * @throws {CircuitTimeoutError} it took longer than `timeout`
   * @throws {ConcurrencyLimitError} `maxConcurrent` calls were in flight and `maxQueue` waiting
   * @throws {UnknownServiceError} the key is not configured
   * @throws {ConfigurationError} an option of this call is wrong
   */
  call<T, F = never>(service: K, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F> {
    return this.#call(service, operation, options)
  }

  /** {@link call}, but every thrown error counts as a failure. */
  execute<T, F = never>(service: K, operation: Operation<T>, options?: CallOptions<T, F>): Promise<T | F> {
    return this.call(service, operation, { ...options, isBreakableError: everyError })
  }

  /** {@link call}: only errors that say that the service is unwell count. */
  executeWithErrorClassification<T, F = never>(
    service: K,
    operation: Operation<T>,
    options?: CallOptions<T, F>,
  ): Promise<T | F> {
    return this.call(service, operation, options)
  }

  /** {@link call} with a timeout, in milliseconds. */
  executeWithTimeout<T, F = never>(
    service: K,
    operation: Operation<T>,
    timeout: number,
    options?: CallOptions<T, F>,
  ): Promise<T | F> {
    return this.call(service, operation, { ...options, timeout })
  }

  /** Whether an error counts as a failure of this service, by its settings. */
  isBreakableError(error: unknown, service?: K): boolean {
    if (service === undefined) return isBreakableError(error)
    return this.#circuit(service).settings.isBreakableError(error)
  }

  /**
   * {@link call} for one Lambda invocation: under its deadline, with its request id in the events.
   *
   * @param context Lambda's context, or anything with its `getRemainingTimeInMillis` and `awsRequestId`
   */
  callExternalFor(context: TimeSource | Invocation): CallExternal<K> {
    const invocation = context instanceof Invocation ? context : this.beginInvocation(context)
    return (service, operation, options) => this.#call(service, operation, options, invocation)
  }

  /** @internal The middleware ends what it began. */
  beginInvocation(context: TimeSource): Invocation {
    return new Invocation(context, this.#runtime)
  }

  /** Nothing in here is `async` that need not be: each turn of a promise costs as much as all the rest. */
  #call<T, F>(
    service: K,
    operation: Operation<T>,
    given: CallOptions<T, F> | undefined,
    invocation?: Invocation,
  ): Promise<T | F> {
    const options: CallOptions<T, F> = given ?? noOptions
    const circuit = this.#circuits.get(service)
    if (circuit === undefined) return Promise.reject(new UnknownServiceError(service, this.#circuits.keys()))
    const { settings } = circuit
    const timeout = options.timeout ?? settings.timeout
    // As with fetch, null is none.
    const signal = options.signal ?? undefined
    const fallback = options.fallback ?? undefined
    const isPlain = timeout === settings.timeout && signal === undefined && fallback === undefined
    try {
      if (!isPlain) checkCall(timeout, signal, fallback)
    } catch (error) {
      return Promise.reject(error)
    }
    const now = this.#runtime.now()
    const deadline = invocation === undefined ? Number.POSITIVE_INFINITY : invocation.endsAt - settings.deadlineReserve
    const isOver = deadline <= now || signal?.aborted === true
    const admission = isOver ? undefined : this.#admitAtOnce(circuit, invocation, now)
    if (typeof admission === 'string') {
      // A turn later, when the caller listens: Node keeps books of rejections that nobody listens to.
      const refused = settled.then((): never => {
        throw circuit.refusal(admission, now)
      })
      return fallback === undefined ? refused : refused.catch(fallback)
    }
    const isBound = timeout !== false || signal !== undefined || deadline !== Number.POSITIVE_INFINITY
    if (admission !== undefined && !isBound && fallback === undefined) {
      return this.#run(circuit, operation, options, invocation, admission)
    }
    const scope = new CallScope(service, this.#runtime, timeout, signal, invocation, settings.deadlineReserve, now)
    scope.start()
    const attempt =
      admission === undefined
        ? this.#admit(circuit, invocation, scope).then((later) =>
            this.#runBound(circuit, operation, options, invocation, later, scope),
          )
        : this.#runBound(circuit, operation, options, invocation, admission, scope)
    return fallback === undefined ? attempt : this.#replace(attempt, fallback, scope, service)
  }

  async #replace<T, F>(
    attempt: Promise<T>,
    fallback: (error: unknown) => PromiseLike<F> | F,
    scope: CallScope,
    service: K,
  ): Promise<T | F> {
    let value: T
    try {
      value = await attempt
    } catch (error) {
      if (!scope.isReplaceable) throw error
      return fallback(error)
    }
    return scope.isReplaceable ? fallback(new BreakableResultError(service, value)) : value
  }

  /** Runs the operation of a call that nothing can cut. */
  #run<T, F>(
    circuit: Circuit,
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
  ): Promise<T> {
    const succeeded = (value: T): T => {
      this.#settle(circuit, admission, this.#judgeValue(circuit, options, value), value, invocation, admission.at)
      return value
    }
    const failed = (error: unknown): never => {
      this.#settle(circuit, admission, this.#judgeError(circuit, options, error), error, invocation)
      throw error
    }
    this.#underWay++
    return listen.call(begin(operation, new UnboundContext()), succeeded, failed) as Promise<T>
  }

  /** Runs the operation of a call that ends when it is cut, whatever the operation does then. */
  #runBound<T, F>(
    circuit: Circuit,
    operation: Operation<T>,
    options: CallOptions<T, F>,
    invocation: Invocation | undefined,
    admission: Admission,
    scope: CallScope,
  ): Promise<T> {
    this.#underWay++
    // It may have been cut in the turn in which what it waited for came.
    if (scope.cut !== undefined) {
      scope.isReplaceable = scope.hasTimedOut
      scope.dispose()
      this.#settle(circuit, admission, 'ignored', undefined, invocation)
      return Promise.reject(scope.cut.error)
    }
    return new Promise<T>((resolve, reject) => {
      let isOver = false
      const succeeded = (value: T): void => {
        if (isOver) return
        isOver = true
        const outcome = this.#judgeValue(circuit, options, value)
        scope.isReplaceable = outcome === 'failure'
        scope.dispose()
        this.#settle(circuit, admission, outcome, value, invocation)
        resolve(value)
      }
      const failed = (error: unknown): void => {
        if (isOver) return
        isOver = true
        const outcome = this.#judgeBoundError(circuit, options, error, scope, invocation)
        scope.isReplaceable = outcome === 'failure' || scope.hasTimedOut
        scope.dispose()
        this.#settle(circuit, admission, outcome, error, invocation)
        reject(error)
      }
      scope.markOperationStart(admission.at)
      listen.call(begin(operation, scope), succeeded as (value: unknown) => void, failed)
      scope.onCut(failed)
    })
  }

  /** The way of nearly every call: nothing to wait for. `undefined`: there is. A verdict: it is refused. */
  #admitAtOnce(
    circuit: Circuit,
    invocation: Invocation | undefined,
    now: number,
  ): Admission | Exclude<Verdict, 'pass'> | undefined {
    const { mode } = circuit.settings
    if (!circuit.loadAttempted) return undefined
    if (mode === 'off') return passThrough
    if (this.#isStale(circuit, now, invocation)) void this.#load([circuit])
    const verdict = circuit.admit(now)
    const takesPermit = mode === 'enforce'
    if (verdict !== 'pass') return takesPermit && verdict !== 'claim' ? verdict : undefined
    if (takesPermit && !circuit.permits.tryAcquire()) return undefined
    return { epoch: circuit.view.epoch, at: now, lease: undefined, holdsPermit: takesPermit }
  }

  async #admit(circuit: Circuit, invocation: Invocation | undefined, scope: CallScope): Promise<Admission> {
    const enforces = circuit.settings.mode === 'enforce'
    let holdsPermit = false
    try {
      if (scope.cut !== undefined) {
        if (invocation !== undefined && scope.deadline <= invocation.startedAt) warnOfReserve(circuit)
        throw scope.cut.error
      }
      if (circuit.settings.mode === 'off') return passThrough
      if (!circuit.loadAttempted) await scope.race(this.#load([circuit]))
      if (enforces) {
        const now = this.#runtime.now()
        const verdict = circuit.admit(now)
        // A refusal never queues.
        if (verdict !== 'pass' && verdict !== 'claim') throw circuit.refusal(verdict, now)
        if (!circuit.permits.tryAcquire()) await waitForPermit(circuit, scope)
        holdsPermit = true
        // The permit may come from a call that was cut in this turn, in which this one's time is over too.
        const cut = scope.cutIfOver()
        if (cut !== undefined) throw cut.error
      }
      // A permit may have been waited for: what holds now decides.
      let verdict = circuit.admit(this.#runtime.now())
      let lease: HeldLease | undefined
      if (verdict === 'claim') {
        lease = await this.#claim(circuit, invocation, scope)
        if (lease === undefined) verdict = circuit.admit(this.#runtime.now())
      }
      const isAdmitted = lease !== undefined || verdict === 'pass'
      if (!isAdmitted && enforces) throw circuit.refusal(verdict as Exclude<Verdict, 'pass'>, this.#runtime.now())
      return { epoch: isAdmitted ? circuit.view.epoch : undefined, at: undefined, lease, holdsPermit }
    } catch (error) {
      if (holdsPermit) circuit.permits.release()
      scope.isReplaceable = scope.cut === undefined || scope.hasTimedOut
      scope.dispose()
      throw error
    }
  }

  async #claim(circuit: Circuit, invocation: Invocation | undefined, scope: CallScope): Promise<HeldLease | undefined> {
    const timeLeft = invocation?.timeLeft() ?? Number.POSITIVE_INFINITY
    const duration = Number.isFinite(timeLeft) ? timeLeft : Math.max(defaultLease, scope.timeout || 0)
    const claiming = circuit.claim(duration, invocation?.requestId)
    try {
      return await scope.race(claiming)
    } catch (error) {
      // The call was cut while it waited: the lease, if it comes, is given back.
      const giveBack = (lease: HeldLease | undefined): void => {
        if (lease !== undefined) circuit.settled(lease, 'release', this.#runtime.now(), undefined, undefined)
      }
      claiming.then(giveBack)
      throw error
    }
  }

  #judgeValue<T, F>(circuit: Circuit, options: CallOptions<T, F>, value: T): Outcome {
    return judge(options.isBreakableResult ?? circuit.settings.isBreakableResult, value) ? 'failure' : 'success'
  }

  /** What an error says of the service. */
  #judgeError<T, F>(circuit: Circuit, options: CallOptions<T, F>, error: unknown): Outcome {
    return judge(options.isBreakableError ?? circuit.settings.isBreakableError, error) ? 'failure' : 'ignored'
  }

  /** The same of a call that may have been cut. */
  #judgeBoundError<T, F>(
    circuit: Circuit,
    options: CallOptions<T, F>,
    error: unknown,
    scope: CallScope,
    invocation: Invocation | undefined,
  ): Outcome {
    if (scope.hasTimedOut && scope.cut?.error === error) {
      if (scope.hadFairTime) return 'failure'
      if (invocation !== undefined && scope.deadline - invocation.startedAt < scope.fairTime) {
        warnOfFairTime(circuit, scope.fairTime)
      }
      return 'ignored'
    }
    // A signal of the caller's that aborts when the deadline is due, as Middy's early timeout does, means the deadline.
    const isDeadlineDue = scope.deadline - this.#runtime.now() <= deadlineTolerance
    if (abortedByCaller(error, options.signal)) return isDeadlineDue && scope.hadFairTime ? 'failure' : 'ignored'
    return this.#judgeError(circuit, options, error)
  }

  /** Gives everything back once, and lets the circuit learn. */
  #settle(
    circuit: Circuit,
    { epoch, lease, holdsPermit }: Admission,
    outcome: Outcome,
    evidence: unknown,
    invocation: Invocation | undefined,
    endedAt?: number | undefined,
  ): void {
    this.#underWay--
    if (holdsPermit) circuit.permits.release()
    if (lease === undefined && (epoch === undefined || outcome === 'ignored')) return
    const isSuccess = outcome === 'success' && lease === undefined
    if (isSuccess && endedAt !== undefined && circuit.succeededQuietly(epoch, endedAt)) return
    const now = this.#runtime.now()
    if (isSuccess && circuit.succeededQuietly(epoch, now)) return
    const requestId = invocation?.requestId
    const failure: Failure | undefined =
      outcome === 'failure'
        ? { at: now, ...describeFailure(evidence), retryAfter: retryAfterOf(evidence, now) }
        : undefined
    if (lease !== undefined) {
      circuit.settled(lease, outcome === 'ignored' ? 'release' : outcome, now, failure, requestId)
    } else if (epoch !== undefined) {
      if (failure === undefined) circuit.succeeded(epoch, now, requestId)
      else circuit.failed(epoch, now, failure, requestId)
    }
  }

  // -------------------------------------------------------------------------------------------- loading and storing

  /** Whether {@link load} has anything to do. */
  get needsLoad(): boolean {
    return this.needsLoadAt(this.#runtime.now())
  }

  /** @internal The same at a time that is known already, in milliseconds since the epoch. */
  needsLoadAt(now: number): boolean {
    return this.#active.some((circuit) => circuit.hasWork || circuit.isStale(now))
  }

  /**
   * Reads the circuits whose cache is older than `cacheTtl`, in one batch, and writes what an interrupted invocation
   * left over. Waits no longer than `storageTimeout`, nor than `timeLeft` less 100 ms; never rejects: a store that fails
   * is reported.
   *
   * @param timeLeft what the invocation has left, in milliseconds
   */
  async load(timeLeft: number = Number.POSITIVE_INFINITY): Promise<void> {
    const startedAt = this.#runtime.now()
    // Loading a library takes a cold start on a small Lambda longer than a round trip may take.
    const preparing = this.#store.canRead ? this.#store.prepare() : undefined
    if (preparing !== undefined) await this.#waitFor(preparing, timeLeft - reserve)
    const now = this.#runtime.now()
    const rest = timeLeft - Math.max(0, now - startedAt)
    const leftovers = this.#drain()
    const stale = this.#active.filter((circuit) => circuit.isStale(now))
    await this.#within(rest, [...leftovers, this.#load(stale)])
  }

  /** Whether anything waits to be stored. */
  get needsFlush(): boolean {
    return this.#active.some((circuit) => circuit.hasWork || circuit.hasSpare)
  }

  /**
   * Waits until everything that is queued is stored, no longer than `storageTimeout`, nor than `timeLeft` less 100 ms.
   * Never rejects: what could not be stored is kept and stored at the next opportunity.
   *
   * @param timeLeft what the invocation has left, in milliseconds
   */
  async flush(timeLeft: number = Number.POSITIVE_INFINITY): Promise<void> {
    for (const circuit of this.#active) circuit.releaseSpare()
    await this.#within(timeLeft, this.#drain())
    this.#storeAtShutdown()
  }

  /**
   * Stores what waits, as {@link flush} does, and closes the connections of the store, so that a script can end. A store
   * that was passed in is left open: it may have other users. In Lambda there is no need for it. A later call connects
   * again.
   */
  async close(): Promise<void> {
    await this.flush()
    await this.#ownStorage?.close?.()
  }

  /**
   * Ends an invocation: waits until everything that is queued is stored, as {@link flush} does. What is not stored then,
   * or is still to come of calls that nobody awaited, is stored at the next opportunity, in Lambda also on SIGTERM.
   *
   * @internal
   * @returns `undefined` if there is nothing to wait for
   */
  endInvocation(invocation: Invocation | undefined): Promise<void> | undefined {
    invocation?.end()
    if (this.needsFlush) return this.flush(invocation?.timeLeft())
    this.#storeAtShutdown()
    return undefined
  }

  #storeAtShutdown(): void {
    if (this.#isInLambda) storeAtShutdown(this, this.#underWay > 0 || this.needsFlush)
  }

  #drain(): Promise<void>[] {
    return this.#active.flatMap((circuit) => circuit.drain() ?? [])
  }

  async #within(timeLeft: number, work: readonly Promise<void>[]): Promise<void> {
    if (work.length > 0) await this.#waitFor(Promise.all(work), Math.min(this.#storageTimeout, timeLeft - reserve))
  }

  /** Waits no longer than `limit`, in milliseconds. */
  async #waitFor(work: Promise<unknown>, limit: number): Promise<void> {
    if (limit <= 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = this.#runtime.setTimeout(resolve, Math.min(limit, longestTimer))
    await Promise.race([work, promise])
    this.#runtime.clearTimeout(timer)
  }

  /** Within an invocation `before` has read what was stale; later only what has become so. */
  #isStale(circuit: Circuit, now: number, invocation: Invocation | undefined): boolean {
    if (!circuit.isStale(now) || circuit.loading !== undefined) return false
    return circuit.settings.cacheTtl > 0 || invocation === undefined || now - invocation.startedAt > longInvocation
  }

  /** Reads circuits in one batch; those that are being read are waited for. Never rejects. */
  #load(circuits: readonly Circuit[]): Promise<void> {
    if (circuits.some((circuit) => circuit.loading === undefined)) {
      // Circuits that are nearly stale come along, so that they are read together from then on.
      const now = this.#runtime.now()
      const isDue = (circuit: Circuit) => !circuit.loadAttempted || circuit.isAging(now)
      const due = this.#active.filter((circuit) => circuit.loading === undefined && isDue(circuit))
      const reading = this.#read(due)
      for (const circuit of due) circuit.loading = reading
    }
    return Promise.all(circuits.map((circuit) => circuit.loading)).then(noop)
  }

  async #read(circuits: readonly Circuit[]): Promise<void> {
    // Also when the store is left alone: then nobody waits for it.
    const takers = circuits.map((circuit) => circuit.beginRead())
    const adopt = (records: ReadonlyMap<string, CircuitRecord>, errors?: StorageErrors): void => {
      circuits.forEach(({ storageKey }, index) => {
        takers[index]?.(errors?.get(storageKey) ?? records.get(storageKey))
      })
    }
    const keys = circuits.map((circuit) => circuit.storageKey)
    const services = new Map(circuits.map(({ storageKey, service }) => [storageKey, service]))
    try {
      await undefined
      if (!this.#store.canRead) return
      adopt(await this.#store.run('batchGetState', services, (storage) => storage.batchGetState(keys), adopt))
    } catch (error) {
      // In a batch that failed in part, what arrived is used.
      const { results, errors } = error as CircuitStorageError
      if (results instanceof Map) adopt(results, errors)
      else if (circuits.length === 1 && isCircuitStorageError(error)) takers[0]?.(error)
    } finally {
      for (const circuit of circuits) {
        circuit.loadAttempted = true
        circuit.loading = undefined
        void circuit.drain()
      }
    }
  }

  // ----------------------------------------------------------------------------------------------------- listeners

  /**
   * Calls a listener with each transition that this instance makes for the fleet: exactly one instance reports each.
   *
   * @param options `observed: true` also delivers the transitions that this instance learns of by reading, and those
   *   that it makes for itself alone while the store is away
   * @returns a function that unsubscribes
   */
  onStateChange(listener: StateChangeListener, options: StateChangeOptions = {}): () => void {
    this.#listeners.set(listener, options)
    return () => void this.#listeners.delete(listener)
  }

  /**
   * Calls a listener with each failure of the store. Without one, a warning is emitted through `process.emitWarning`,
   * at most once a minute per cause. Of a store that is misconfigured a warning is emitted in either case, once, which
   * says what to do.
   *
   * @returns a function that unsubscribes
   */
  onStorageError(listener: StorageErrorListener): () => void {
    return this.#store.onError(listener)
  }

  #emit(change: StateChange): void {
    for (const [listener, { observed }] of this.#listeners) {
      if (observed === true || !change.observed) notify(listener, change)
    }
  }

  // ----------------------------------------------------------------------------------------------------- operators

  /** The live snapshot of one service, or of all. */
  snapshot(): Circuits<K>
  snapshot(service: K): CircuitSnapshot
  snapshot(service?: K): Circuits<K> | CircuitSnapshot {
    return service === undefined ? this.circuits : this.circuits[this.#circuit(service).service as K]
  }

  /**
   * Opens a circuit for the whole fleet, whatever the service does, until `until` or a {@link reset}. Instances follow
   * within `cacheTtl`.
   *
   * @throws {CircuitStorageError} if the store fails
   */
  async forceOpen(service: K, options: ForceOptions = {}): Promise<void> {
    await this.#force(service, 'OPEN', options)
  }

  /**
   * Keeps a circuit closed for the whole fleet, whatever the service does, until `until` or a {@link reset}.
   *
   * @throws {CircuitStorageError} if the store fails
   */
  async forceClosed(service: K, options: ForceOptions = {}): Promise<void> {
    await this.#force(service, 'CLOSED', options)
  }

  /**
   * Closes a circuit, ends an operator's override and forgets what was counted. Also repairs a damaged record.
   *
   * @throws {CircuitStorageError} if the store fails
   */
  async reset(service: K): Promise<void> {
    const circuit = this.#circuit(service)
    try {
      await circuit.operate('reset', reset)
    } catch (error) {
      if (!isCircuitStorageError(error) || !error.corrupt) throw error
      await circuit.clearDamage()
      await circuit.operate('reset', reset)
    }
  }

  /**
   * Reads what is stored of several circuits, past the cache, in as few requests as the store allows: 250 circuits are 3
   * on DynamoDB and one pipeline on Redis.
   *
   * @param services default: all; a key that is named twice is read once
   * @returns the records by service key; a service that nothing is stored for is absent
   * @throws {UnknownServiceError} before anything is read
   * @throws {CircuitStorageError} if the store fails; `results` and `errors` tell by service key what arrived and what
   *   did not
   */
  async batchGetState(services: Iterable<K> = this.services): Promise<Map<K, CircuitRecord>> {
    return (await readCircuits(this.#store, this.#circuitsOf(services))) as Map<K, CircuitRecord>
  }

  /**
   * Sets several circuits for the whole fleet, in as few requests as the store allows, each on condition that nobody
   * else has changed it meanwhile; where somebody has, it is decided and written again. `OPEN`: the circuit opens and
   * recovers by itself after its `resetTimeout`. `CLOSED`: what {@link reset} does. Neither is an override, and one that was set ends.
   *
   * @param states the states by service key: an object, a `Map` or a list of pairs
   * @returns what is stored then, by service key
   * @throws {UnknownServiceError | ConfigurationError} before anything is written
   * @throws {CircuitStorageError} if the store fails; `results` and `errors` tell by service key what is stored and what
   *   is not
   */
  async batchSetState(states: StatesToSet<K>): Promise<Map<K, CircuitRecord>> {
    return (await setCircuits(this.#store, this.#checkStates(states))) as Map<K, CircuitRecord>
  }

  /**
   * Deletes several circuits from the store: for tests and for decommissioning. A circuit in use begins anew, closed and
   * empty; to close one, {@link reset} it.
   *
   * @param services default: all
   * @throws {UnknownServiceError} before anything is deleted
   * @throws {CircuitStorageError} if the store fails; `errors` tells by service key what was not deleted
   */
  async batchClearState(services: Iterable<K> = this.services): Promise<void> {
    await clearCircuits(this.#store, this.#circuitsOf(services))
  }

  /** Each circuit once. */
  #circuitsOf(services: Iterable<K>): Circuit[] {
    return [...new Set(Array.from(services, (service) => this.#circuit(service)))]
  }

  #checkStates(states: StatesToSet<K>): Map<Circuit, StateToSet> {
    if (typeof states !== 'object' || states === null) {
      const message = `batchSetState takes an object, a Map or pairs of service and state, but got ${String(states)}`
      throw new ConfigurationError([{ setting: 'states', source: 'batchSetState', value: states, message }])
    }
    const entries = (Symbol.iterator in states ? [...states] : Object.entries(states)) as [K, StateToSet][]
    const wanted = new Map(entries.map(([service, state]) => [this.#circuit(service), state]))
    const problems: ConfigurationProblem[] = []
    for (const [{ service }, state] of wanted) {
      if (state === 'OPEN' || state === 'CLOSED') continue
      const message = `The state of ${JSON.stringify(service)} must be OPEN or CLOSED, but is ${describe(state)} (batchSetState)`
      problems.push({ setting: service, source: 'batchSetState', value: state, message })
    }
    if (problems.length > 0) throw new ConfigurationError(problems)
    return wanted
  }

  async #force(service: K, state: 'OPEN' | 'CLOSED', options: ForceOptions): Promise<void> {
    const circuit = this.#circuit(service)
    const until = checkUntil(options.until, this.#runtime.now())
    await circuit.operate(state === 'OPEN' ? 'forced-open' : 'forced-closed', (record, at, tokens) =>
      force(record, { state, at, until }, circuit.settings, tokens),
    )
  }

  #circuit(service: string): Circuit {
    const circuit = this.#circuits.get(service)
    if (circuit === undefined) throw new UnknownServiceError(service, this.#circuits.keys())
    return circuit
  }
}

/** The states of {@link CircuitBreaker.batchSetState}, by service key. */
export type StatesToSet<K extends string = string> =
  | Iterable<readonly [K, StateToSet]>
  | { readonly [Key in K]?: StateToSet }

/** What a call holds while it runs. `epoch` is `undefined` if its outcome counts for nothing. */
interface Admission {
  readonly epoch: string | undefined
  /** When it was admitted, in milliseconds since the epoch, if it had to wait for nothing. */
  readonly at: number | undefined
  readonly lease: HeldLease | undefined
  readonly holdsPermit: boolean
}

type StorageErrors = ReadonlyMap<string, CircuitStorageError>

const passThrough: Admission = { epoch: undefined, at: undefined, lease: undefined, holdsPermit: false }

/** An abort this close to the call's deadline is the deadline, in milliseconds. */
const deadlineTolerance = 50

/** How long a probe's lease lasts where no Lambda deadline bounds it, in milliseconds. */
const defaultLease = 30_000

/** Kept back from the end of the invocation when the store is waited for, in milliseconds. */
const reserve = 100

/** With `cacheTtl: 0` the state is read in every invocation, and in one that is longer than this also within it. */
const longInvocation = 1_000

async function waitForPermit(circuit: Circuit, scope: CallScope): Promise<void> {
  const { maxConcurrent, maxQueue } = circuit.settings
  const waiter = circuit.permits.join()
  if (waiter === undefined) throw new ConcurrencyLimitError(circuit.service, maxConcurrent, maxQueue || 0)
  try {
    await scope.race(waiter.granted)
  } catch (error) {
    waiter.leave()
    throw error
  }
}

/** Starts the operation; what it throws is a rejection. */
function begin<T>(operation: Operation<T>, context: OperationContext): Promise<T> {
  try {
    return Promise.resolve(operation(context))
  } catch (error) {
    return Promise.reject(error)
  }
}

/** A classifier that throws has no opinion: the service's own answer reaches the caller. */
function judge<V>(counts: (value: V) => boolean, value: V): boolean {
  try {
    return counts(value) === true
  } catch (error) {
    process.emitWarning(`A circuit breaker classifier threw: ${textOf(error)}`, { code: 'CIRCUIT_CLASSIFIER' })
    return false
  }
}

/** What is thrown may be anything, and so refuse to be text. */
function textOf(error: unknown): string {
  try {
    return String(error)
  } catch {
    return 'something without a text'
  }
}

/** @throws {ConfigurationError} naming everything that is wrong with the options of one call */
function checkCall(timeout: unknown, signal: unknown, fallback: unknown): void {
  const problems = new Problems()
  const refuse = (setting: string, allowed: string, value: unknown) =>
    problems.mustBe(allowed, setting, 'call option', value)
  const { addEventListener } = (signal ?? {}) as Partial<AbortSignal>
  if (signal !== undefined && typeof addEventListener !== 'function') refuse('signal', 'an AbortSignal', signal)
  if (fallback !== undefined && typeof fallback !== 'function') refuse('fallback', 'a function', fallback)
  const isTime = Number.isInteger(timeout) && Number(timeout) >= 1 && Number(timeout) <= longestTimer
  if (timeout !== false && !isTime) {
    refuse('timeout', `a whole number of milliseconds from 1 to ${longestTimer}, or false`, timeout)
  }
  problems.throwIfAny()
}

function checkUntil(until: Date | number | undefined, now: number): number | undefined {
  const instant = until === undefined ? undefined : Number(until)
  if (instant === undefined || (instant > now && instant <= 8.64e15)) return instant
  const message = `until must be a time that is still to come, but is ${String(until)} (option)`
  throw new ConfigurationError([{ setting: 'until', source: 'option', value: until, message }])
}

/** The whole invocation is shorter than what is kept back of it. */
function warnOfReserve({ settings: { deadlineReserve } }: Circuit): void {
  warnOnce([
    `An invocation began with no more time than deadlineReserve, ${deadlineReserve} ms, so that its calls are refused. ` +
      'Give the function a longer timeout, or set CIRCUIT_BREAKER_DEADLINE_RESERVE lower.',
  ])
}

function warnOfFairTime({ service, settings: { deadlineReserve } }: Circuit, fairTime: number): void {
  warnOnce([
    `A call of "${service}" was cut by the deadline of an invocation that began with less than ${deadlineReserve} ms ` +
      `(deadlineReserve) and ${fairTime} ms, which a call must have had to count as a failure, so that its circuit cannot ` +
      'open. Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.',
  ])
}

/** Bound, because what is handed in may be an instance of a class. */
function runtimeOf(surroundings: Surroundings): Runtime {
  return {
    now: surroundings.now?.bind(surroundings) ?? systemRuntime.now,
    random: surroundings.random?.bind(surroundings) ?? systemRuntime.random,
    id: surroundings.id?.bind(surroundings) ?? systemRuntime.id,
    setTimeout: surroundings.setTimeout?.bind(surroundings) ?? systemRuntime.setTimeout,
    clearTimeout: surroundings.clearTimeout?.bind(surroundings) ?? systemRuntime.clearTimeout,
  }
}

function warnOnce(warnings: readonly string[]): void {
  for (const warning of warnings) {
    if (warned.has(warning)) continue
    warned.add(warning)
    process.emitWarning(warning, { type: 'CircuitBreakerWarning', code: 'CIRCUIT_CONFIGURATION' })
  }
}

function noop(): void {}
