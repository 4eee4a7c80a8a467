import { CircuitStorageError, isCircuitStorageError, type StorageOperation } from '../errors.ts'
import { notify, type StorageErrorEvent, type StorageErrorListener } from '../events.ts'
import { graceAfter, type Runtime } from '../runtime.ts'
import { type CircuitRecord, type ICircuitStorage, parseCircuitRecord } from './circuit-storage.ts'

/** After repeated failures the store is left alone for this long at first, in milliseconds; it doubles each time … */
const firstPause = 250
/** … up to this, unless the breaker looks at its store more often anyway. */
const longestPauseOfAll = 30_000
/** No store is asked more often than this when it fails, in milliseconds. */
const shortestLimit = 1_000
/** Where every invocation reads, the pause has no other measure than this, in milliseconds. */
const limitWithoutCache = 10_000
/** An adapter that takes longer to load its library than this is not waited for, in milliseconds. */
const longestPreparation = 10_000
/** Without a listener, one warning per cause in this time, in milliseconds. */
const warningInterval = 60_000

/**
 * The longest pause, in milliseconds. A store that fails need not be asked less often than one that is well: after one
 * `cacheTtl` everybody would look again, and so they find out that it is back.
 *
 * @param cacheTtls of the services that use it
 */
export function pauseLimitFor(cacheTtls: Iterable<number>): number {
  const shortest = Math.min(...Array.from(cacheTtls, (cacheTtl) => cacheTtl || limitWithoutCache))
  return Math.max(shortestLimit, Math.min(longestPauseOfAll, shortest))
}

/** The services that an operation concerns; in a batch by the keys that they are stored under, which its errors name. */
export type Concerned = readonly string[] | ReadonlyMap<string, string>

/** What is different about an operation that an operator asked for: nobody's invocation waits for it. */
export interface OperatorRun {
  /** How many rounds of requests it may take: it gets `storageTimeout` for each. */
  readonly rounds: number
}

/**
 * The way to the store: no operation takes longer than `storageTimeout`, a store that keeps failing is left alone for
 * a growing, jittered time (one that is misconfigured for the longest at once), and every failure is reported.
 */
export class BoundedStorage {
  readonly storage: ICircuitStorage
  readonly #runtime: Runtime
  readonly #timeout: number
  readonly #listeners = new Set<StorageErrorListener>()
  readonly #warnedAt = new Map<string, number>()
  /** What was said of a misconfiguration, by cause: again only when what failed then has been well in between. */
  readonly #said = new Map<string, Pick<StorageErrorEvent, 'operation' | 'services'>>()
  #isPrepared: boolean
  #preparing: Promise<void> | undefined
  readonly #reads: Health
  readonly #writes: Health

  /** @param longestPause how long the store is left alone at most, in milliseconds; default 30 s */
  constructor(
    storage: ICircuitStorage,
    runtime: Runtime,
    storageTimeout: number,
    longestPause: number = longestPauseOfAll,
  ) {
    this.storage = storage
    this.#runtime = runtime
    this.#timeout = storageTimeout
    this.#isPrepared = storage.prepare === undefined
    this.#reads = new Health(runtime, longestPause)
    this.#writes = new Health(runtime, longestPause)
  }

  /** `false` while reading is left alone after repeated failures. */
  get canRead(): boolean {
    return this.#reads.isGood
  }

  /** `false` while writing is left alone after repeated failures. A store can be read and yet not written. */
  get canWrite(): boolean {
    return this.#writes.isGood
  }

  /** Subscribes to the store's failures. */
  onError(listener: StorageErrorListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Lets the adapter load its library; `undefined` if that is done. Never rejects: the operation itself will fail. */
  prepare(): Promise<void> | undefined {
    if (this.#isPrepared) return undefined
    this.#preparing ??= new Promise<void>((resolve) => {
      const done = (): void => {
        this.#isPrepared = true
        resolve()
      }
      const timer = this.#runtime.setTimeout(done, longestPreparation)
      const settle = (isPrepared: boolean): void => {
        this.#runtime.clearTimeout(timer)
        if (isPrepared) done()
        else {
          this.#preparing = undefined
          resolve()
        }
      }
      Promise.resolve()
        .then(() => this.storage.prepare?.())
        .then(
          () => settle(true),
          () => settle(false),
        )
    })
    return this.#preparing
  }

  /**
   * Runs one operation.
   *
   * @param late is given a reply that came after the time was over
   * @param operator given for what an operator asked for
   * @throws {CircuitStorageError} when the operation failed or took too long; already reported
   */
  run<T>(
    operation: StorageOperation,
    services: Concerned,
    action: (storage: ICircuitStorage) => Promise<T>,
    late?: (reply: T) => void,
    operator?: OperatorRun,
  ): Promise<T> {
    const preparing = this.prepare()
    return preparing === undefined
      ? this.#run(operation, services, action, late, operator)
      : preparing.then(() => this.#run(operation, services, action, late, operator))
  }

  #run<T>(
    operation: StorageOperation,
    services: Concerned,
    action: (storage: ICircuitStorage) => Promise<T>,
    late?: (reply: T) => void,
    operator?: OperatorRun,
  ): Promise<T> {
    const timeout = this.#timeout * (operator?.rounds ?? 1)
    return new Promise<T>((resolve, reject) => {
      let waiting = true
      const fail = (cause: unknown): void => {
        if (!waiting) return
        waiting = false
        this.#runtime.clearTimeout(timer)
        try {
          reject(this.#failed(operation, services, startedAt, cause, operator === undefined))
        } catch {
          // What an adapter rejects with can be anything, for instance an error whose properties throw.
          reject(new CircuitStorageError(`The store failed at ${operation}.`, { operation }))
        }
      }
      const startedAt = this.#runtime.now()
      const giveUp = (): void => {
        const message = `The store did not answer ${operation} within ${timeout} ms.`
        fail(new CircuitStorageError(message, { operation }))
      }
      let timer = this.#runtime.setTimeout(() => {
        // After a freeze the answer may lie in the socket: it is given the time to arrive.
        const grace = graceAfter(this.#runtime.now() - startedAt - timeout)
        if (grace > 0) timer = this.#runtime.setTimeout(giveUp, grace)
        else giveUp()
      }, timeout)
      const succeed = (reply: T): void => {
        if (!isAllowed(operation, reply)) {
          fail(new TypeError(`The adapter answered ${operation} with something that the contract does not allow.`))
          return
        }
        this.#succeeded(operation, services)
        if (!waiting) {
          late?.(reply)
          return
        }
        waiting = false
        this.#runtime.clearTimeout(timer)
        resolve(reply)
      }
      try {
        action(this.storage).then(succeed, fail)
      } catch (error) {
        fail(error)
      }
    })
  }

  #failed(
    operation: StorageOperation,
    services: Concerned,
    startedAt: number,
    cause: unknown,
    willRetry: boolean,
  ): CircuitStorageError {
    const error = isUsable(operation, cause)
      ? cause
      : new CircuitStorageError(`The store failed at ${operation}.`, { operation, cause })
    // A damaged record is an answer: the store itself is well.
    if (isDamage(error)) this.#healthOf(operation).succeeded()
    else this.#healthOf(operation).failed(startedAt, error.kind === 'misconfigured')
    this.#report({ services: concernedBy(error, services), operation, error, willRetry })
    return error
  }

  #succeeded(operation: StorageOperation, services: Concerned): void {
    this.#healthOf(operation).succeeded()
    if (this.#said.size === 0) return
    const well = new Set(services.values())
    for (const [cause, said] of this.#said) {
      const isWell = said.operation === operation && said.services.every((service) => well.has(service))
      if (isWell) this.#said.delete(cause)
    }
  }

  #healthOf(operation: StorageOperation): Health {
    return isRead(operation) ? this.#reads : this.#writes
  }

  #report(event: StorageErrorEvent): void {
    const { error, operation } = event
    for (const listener of this.#listeners) notify(listener, event)
    if (error.kind === 'misconfigured') {
      const cause = causeOf(event)
      if (this.#said.has(cause)) return
      this.#said.set(cause, event)
      warn(
        error,
        `The circuit breaker's store is misconfigured; until that is corrected, each instance decides alone. ${error.message}`,
      )
    } else if (this.#listeners.size === 0) {
      const key = `${operation} ${error.kind} ${causeOf(event)}`
      const now = this.#runtime.now()
      if (Math.abs(now - (this.#warnedAt.get(key) ?? Number.NEGATIVE_INFINITY)) < warningInterval) return
      this.#warnedAt.set(key, now)
      warn(error, error.message)
    }
  }
}

function warn({ code }: CircuitStorageError, message: string): void {
  process.emitWarning(message, { type: 'CircuitStorageWarning', code })
}

/** What causes are told apart by: not the message, which may hold something new each time, but what Redis begins it with. */
function causeOf({ error, services }: StorageErrorEvent): string {
  // What is damaged is so by itself, for each service.
  if (error.corrupt) return services.join()
  const { cause } = error
  if (!(cause instanceof Error)) return ''
  return `${cause.name} ${/^[A-Z]{2,}\b/.exec(cause.message)?.[0] ?? ''}`
}

/** In a batch that failed in part, only those that failed. */
function concernedBy({ errors }: CircuitStorageError, services: Concerned): readonly string[] {
  if (!(services instanceof Map)) return services as readonly string[]
  const failed = [...services].filter(([key]) => errors?.has(key)).map(([, service]) => service)
  return failed.length > 0 ? failed : [...services.values()]
}

/** Whether one kind of operation works, and until when it is left alone if it does not. */
class Health {
  readonly #runtime: Runtime
  readonly #longestPause: number
  #failures = 0
  #failedAt = 0
  #pausedUntil = 0
  #pausedSince = 0

  constructor(runtime: Runtime, longestPause: number) {
    this.#runtime = runtime
    this.#longestPause = longestPause
  }

  get isGood(): boolean {
    if (this.#pausedUntil === 0) return true
    const now = this.#runtime.now()
    // A clock that stepped back must not prolong the pause.
    return now >= this.#pausedUntil || now < this.#pausedSince
  }

  succeeded(): void {
    this.#failures = 0
    this.#pausedUntil = 0
  }

  /**
   * The first failure may be a connection that died while the process was frozen: it is tried again at once.
   *
   * @param isFinal what waiting does not help against: then the pause is the longest from the first failure on
   */
  failed(startedAt: number, isFinal: boolean): void {
    // What was under way when the last failure was counted is the same failure.
    if (this.#failures > 0 && startedAt < this.#failedAt && this.#failedAt <= this.#runtime.now()) return
    this.#failures++
    this.#failedAt = this.#runtime.now()
    if (this.#failures < 2 && !isFinal) return
    const pause = isFinal ? this.#longestPause : Math.min(this.#longestPause, firstPause * 2 ** (this.#failures - 2))
    this.#pausedSince = this.#failedAt
    this.#pausedUntil = this.#pausedSince + pause * (0.5 + this.#runtime.random() / 2)
  }
}

function isRead(operation: StorageOperation): boolean {
  return operation === 'getState' || operation === 'batchGetState'
}

/** An error of ours whose parts are what the contract says. */
function isUsable(operation: StorageOperation, error: unknown): error is CircuitStorageError {
  if (!isCircuitStorageError(error)) return false
  const { results, errors } = error
  const hasErrors = errors === undefined || (errors instanceof Map && [...errors.values()].every(isCircuitStorageError))
  return hasErrors && (results === undefined || operation === 'batchClearState' || isAllowed(operation, results))
}

function isAllowed(operation: StorageOperation, reply: unknown): boolean {
  try {
    return isReplyTo(operation, reply)
  } catch {
    return false
  }
}

/** Adapters are written by others too: what is no answer counts as a failure and not as an exception in our code. */
function isReplyTo(operation: StorageOperation, reply: unknown): boolean {
  if (operation === 'batchSetState') return reply instanceof Map && [...reply.values()].every(isWriteResult)
  if (operation === 'batchGetState') return reply instanceof Map && [...reply.values()].every(isRecord)
  if (operation === 'getState') return isRecord(reply)
  const isWrite = operation === 'incrementFailures' || operation === 'compareAndSetState'
  return !isWrite || isWriteResult(reply)
}

function isWriteResult(value: unknown): boolean {
  const { applied, current } = (value ?? {}) as { applied?: unknown; current?: unknown }
  return typeof applied === 'boolean' && isRecord(current)
}

function isRecord(value: unknown): boolean {
  if (value === undefined) return true
  const { override, lastFailure } = parseCircuitRecord('', value, 'getState')
  const { override: ownOverride, lastFailure: ownLastFailure, leases, transitions } = value as CircuitRecord
  if (!Array.isArray(leases) || !Array.isArray(transitions)) return false
  // What databases keep as null stands for `undefined` in a record that is parsed; one that is not says what it means.
  const parts: readonly unknown[] = [value, override && ownOverride, lastFailure && ownLastFailure]
  return parts.every((part) => Object.values(part ?? {}).every((field) => field !== null))
}

function isDamage(error: CircuitStorageError): boolean {
  const { corrupt, errors } = error
  return corrupt || (errors instanceof Map && errors.size > 0 && [...errors.values()].every((one) => one?.corrupt))
}
