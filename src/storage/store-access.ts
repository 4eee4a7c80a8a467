import { type CircuitName, CircuitStorageError, type StorageOperation } from '../errors.ts'
import { Notifier, type StorageErrorEvent, type StorageErrorListener } from '../events.ts'
import { graceAfter, type Runtime } from '../runtime.ts'
import { type StoreEvent, storeChannel } from '../telemetry/channels.ts'
import { warnVisibly } from '../warnings.ts'
import type { ICircuitStorage } from './contract.ts'
import { parseError, parseReply } from './replies.ts'
import { longestPauseOfAll, StorePause } from './store-pause.ts'

/** The longest that operations wait until an adapter has loaded its library, in milliseconds. */
const longestPreparation = 5_000
/** The time between two warnings of one cause where there is no listener, in milliseconds. */
const warningInterval = 60_000
const warningType = 'CircuitStorageWarning'

/** The circuits that an operation concerns. A batch has them by stored key, because its errors name those. */
export type Concerned = readonly Name[] | ReadonlyMap<string, Name>

/** A circuit by its name. For a service without keys, the service key alone will do. */
type Name = string | CircuitName

/** The budget of an operation that an operator asked for. No invocation waits for it. */
export interface OperatorRun {
  /** How many rounds of requests it may take: it gets `storageTimeout` for each. */
  readonly rounds: number
}

/**
 * The way to the store. No operation takes longer than `storageTimeout`. A store that keeps failing is left alone for a
 * growing, jittered time; one that is misconfigured, for the longest time at once. Every failure is reported. Records
 * are parsed here, and nowhere else.
 */
export class StoreAccess {
  readonly storage: ICircuitStorage
  readonly #runtime: Runtime
  readonly #timeout: number
  readonly #notifier: Notifier
  /** Written by {@link onError}, and by the function that it returns. */
  readonly #listeners = new Set<StorageErrorListener>()
  readonly #readPause: StorePause
  readonly #writePause: StorePause
  /** The instant of the last warning, by cause. Written by `#report` where there is no listener. */
  readonly #warnedAt = new Map<string, number>()
  /**
   * Misconfigurations already warned of, by cause: added by `#report`, removed by `#succeeded` once the same operation
   * has succeeded for the same services.
   */
  readonly #misconfigurations = new Map<string, Pick<StorageErrorEvent, 'operation' | 'services'>>()
  /** Set by {@link prepare} when the adapter has loaded its library, or has taken too long. */
  #isPrepared: boolean
  /** The preparation under way: set by {@link prepare}, and unset when it has ended. */
  #preparing: Promise<void> | undefined

  /**
   * @param longestPause how long the store is left alone at most, in milliseconds; default 30 s
   * @param notifier calls the listeners
   */
  constructor(
    storage: ICircuitStorage,
    runtime: Runtime,
    storageTimeout: number,
    longestPause: number = longestPauseOfAll,
    notifier: Notifier = new Notifier(),
  ) {
    this.storage = storage
    this.#notifier = notifier
    this.#runtime = runtime
    this.#timeout = storageTimeout
    this.#isPrepared = storage.prepare === undefined
    this.#readPause = new StorePause(runtime, longestPause)
    this.#writePause = new StorePause(runtime, longestPause)
  }

  /** `false` while reading is left alone after repeated failures. */
  get canRead(): boolean {
    return this.#readPause.isOver
  }

  /** `false` while writing is left alone after repeated failures. A store can be read and yet not written. */
  get canWrite(): boolean {
    return this.#writePause.isOver
  }

  /** Whether writing is left alone because the store throttles it. */
  get throttlesWrites(): boolean {
    return this.#writePause.isThrottled
  }

  /** Subscribes to the store's failures; returns what unsubscribes. */
  onError(listener: StorageErrorListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Lets the adapter load its library; `undefined` if that is done. Never rejects: the operation itself will fail. */
  prepare(): Promise<void> | undefined {
    if (this.#isPrepared) return undefined
    this.#preparing ??= new Promise<void>((resolve) => {
      const end = (isPrepared: boolean): void => {
        this.#runtime.clearTimeout(timer)
        this.#isPrepared ||= isPrepared
        this.#preparing = undefined
        resolve()
      }
      const timer = this.#runtime.setTimeout(() => end(true), longestPreparation)
      Promise.resolve()
        .then(() => this.storage.prepare?.())
        .then(
          () => end(true),
          () => end(false),
        )
    })
    return this.#preparing
  }

  /**
   * Runs one operation.
   *
   * @param late is given a reply that came after the time was over
   * @param operator given for an operation that an operator asked for
   * @returns the reply, its records parsed
   * @throws {CircuitStorageError} when the operation failed, took too long or found a damaged record; already reported
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
      let isWaiting = true
      const fail = (cause: unknown): void => {
        if (!isWaiting) {
          this.#failedLate(operation, services, cause, operator === undefined)
          return
        }
        isWaiting = false
        this.#runtime.clearTimeout(timer)
        try {
          reject(this.#failed(operation, services, startedAt, cause, operator === undefined))
        } catch {
          // An adapter can reject with anything, for instance with an error whose properties throw.
          reject(new CircuitStorageError(`The store failed at ${operation}.`, { operation }))
        }
      }
      const startedAt = this.#runtime.now()
      const giveUp = (): void => {
        const message = `The store did not answer ${operation} within ${timeout} ms.`
        fail(new CircuitStorageError(message, { operation }))
      }
      let timer = this.#runtime.setTimeout(() => {
        // After a freeze the answer may lie in the socket. Give it the time to arrive.
        const grace = graceAfter(this.#runtime.now() - startedAt - timeout)
        if (grace > 0) timer = this.#runtime.setTimeout(giveUp, grace)
        else giveUp()
      }, timeout)
      const succeed = (raw: T): void => {
        let reply: T
        try {
          const [first = ''] = services.values()
          reply = parseReply(operation, raw, serviceOf(first))
        } catch (error) {
          fail(error)
          return
        }
        this.#succeeded(operation, services)
        if (!isWaiting) {
          late?.(reply)
          return
        }
        isWaiting = false
        this.#runtime.clearTimeout(timer)
        this.tellOperation(operation, services, startedAt)
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
    const error = this.errorOf(operation, cause)
    // A damaged record is an answer: the store itself is well.
    const pause = this.#pauseOf(operation)
    if (isDamage(error)) pause.succeeded()
    // How often a record is read that the store throttles is the circuit's business.
    else if (pause !== this.#readPause || error.kind !== 'throttled') pause.failed(startedAt, error.kind)
    const concerned = concernedBy(error, services)
    this.tellOperation(operation, concerned.services, startedAt, error)
    this.#report({ ...concerned, operation, error, willRetry })
    return error
  }

  /** The error of an operation that failed with anything. */
  errorOf(operation: StorageOperation, cause: unknown): CircuitStorageError {
    return (
      parseError(operation, cause) ?? new CircuitStorageError(`The store failed at ${operation}.`, { operation, cause })
    )
  }

  /** Tells the listeners of a failure. Returns whether there are any, be it on the channel. */
  tell(event: StorageErrorEvent): boolean {
    for (const listener of this.#listeners) this.#notifier.notify('onStorageError', listener, event)
    return this.#listeners.size > 0 || storeChannel.hasSubscribers
  }

  /** Tells the subscribers of the channel how an operation has ended. */
  tellOperation(
    operation: StorageOperation,
    concerned: Concerned,
    startedAt: number,
    error?: CircuitStorageError,
  ): void {
    if (!storeChannel.hasSubscribers) return
    const duration = Math.max(0, this.#runtime.now() - startedAt)
    const services = [...new Set(Array.from(concerned.values(), serviceOf))]
    const event: StoreEvent = { services, operation, duration, error: error?.kind }
    storeChannel.publish(event)
  }

  /** That the store did not answer in time was reported. It is reported as well that it never will, and why. */
  #failedLate(operation: StorageOperation, services: Concerned, cause: unknown, willRetry: boolean): void {
    const error = parseError(operation, cause)
    if (error?.kind !== 'misconfigured') return
    this.#report({ ...concernedBy(error, services), operation, error, willRetry })
  }

  #succeeded(operation: StorageOperation, services: Concerned): void {
    this.#pauseOf(operation).succeeded()
    if (this.#misconfigurations.size === 0) return
    const well = new Set(Array.from(services.values(), serviceOf))
    for (const [cause, warned] of this.#misconfigurations) {
      const isWell = warned.operation === operation && warned.services.every((service) => well.has(service))
      if (isWell) this.#misconfigurations.delete(cause)
    }
  }

  #pauseOf(operation: StorageOperation): StorePause {
    return operation === 'getState' || operation === 'batchGetState' ? this.#readPause : this.#writePause
  }

  #report(event: StorageErrorEvent): void {
    const { error, operation } = event
    const isHeard = this.tell(event)
    if (error.kind === 'misconfigured') {
      const cause = causeOf(event)
      if (this.#misconfigurations.has(cause)) return
      this.#misconfigurations.set(cause, event)
      const text = "The circuit breaker's store is misconfigured; until that is corrected, each instance decides alone."
      warnVisibly(`${text} ${error.message}`, warningType, error.code)
    } else if (!isHeard) {
      const key = `${operation} ${error.kind} ${causeOf(event)}`
      const now = this.#runtime.now()
      const warnedAt = this.#warnedAt.get(key)
      if (warnedAt !== undefined && Math.abs(now - warnedAt) < warningInterval) return
      this.#warnedAt.set(key, now)
      process.emitWarning(error.message, { type: warningType, code: error.code })
    }
  }
}

/** Tells causes apart by their name and the word that Redis begins a message with. The rest may be new each time. */
function causeOf({ error, services, keys = [] }: StorageErrorEvent): string {
  // Each circuit's record is damaged by itself.
  if (error.corrupt) return [...services, ...keys].join()
  const { cause } = error
  if (!(cause instanceof Error)) return ''
  return `${cause.name} ${/^[A-Z]{2,}\b/.exec(cause.message)?.[0] ?? ''}`
}

/** The circuits that failed, each service once. In a batch that failed in part, these are not all. */
function concernedBy(
  { errors }: CircuitStorageError,
  concerned: Concerned,
): Pick<StorageErrorEvent, 'services' | 'keys'> {
  const all: readonly Name[] = [...concerned.values()]
  const failed = concerned instanceof Map ? [...concerned].filter(([key]) => errors?.has(key)) : []
  const names: readonly Name[] = failed.length > 0 ? failed.map(([, name]) => name) : all
  const keys = names.flatMap((name) => (typeof name === 'string' ? [] : (name.key ?? [])))
  const services = [...new Set(names.map(serviceOf))]
  return keys.length === 0 ? { services } : { services, keys }
}

function serviceOf(name: Name): string {
  return typeof name === 'string' ? name : name.service
}

function isDamage(error: CircuitStorageError): boolean {
  const { corrupt, errors } = error
  return corrupt || (errors instanceof Map && errors.size > 0 && [...errors.values()].every((one) => one?.corrupt))
}
