import { CircuitStorageError, isCircuitStorageError, type StorageOperation } from '../errors.ts'
import { notify, type StorageErrorEvent, type StorageErrorListener } from '../events.ts'
import type { Runtime } from '../runtime.ts'
import type { ICircuitStorage } from './circuit-storage.ts'

/** After repeated failures the store is left alone for this long at first, in milliseconds; it doubles each time … */
const firstPause = 250
/** … up to this. */
const longestPause = 30_000
/** Without a listener, one warning per cause in this time, in milliseconds. */
const warningInterval = 60_000

/**
 * The way to the store: no operation takes longer than `storageTimeout`, a store that keeps failing is left alone for
 * a growing, jittered time, and every failure is reported.
 */
export class BoundedStorage {
  readonly storage: ICircuitStorage
  readonly #runtime: Runtime
  readonly #timeout: number
  readonly #listeners = new Set<StorageErrorListener>()
  readonly #warnedAt = new Map<string, number>()
  #failures = 0
  #pausedUntil = 0
  #pausedSince = 0

  constructor(storage: ICircuitStorage, runtime: Runtime, storageTimeout: number) {
    this.storage = storage
    this.#runtime = runtime
    this.#timeout = storageTimeout
  }

  /** `false` while the store is left alone after repeated failures. */
  get available(): boolean {
    if (this.#pausedUntil === 0) return true
    const now = this.#runtime.now()
    // A clock that stepped back must not prolong the pause.
    return now >= this.#pausedUntil || now < this.#pausedSince
  }

  /** Subscribes to the store's failures. */
  onError(listener: StorageErrorListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /**
   * Runs one operation.
   *
   * @param late is given a reply that came after the time was over
   * @throws {CircuitStorageError} when the operation failed or took too long; already reported
   */
  run<T>(
    operation: StorageOperation,
    services: readonly string[],
    action: (storage: ICircuitStorage) => Promise<T>,
    late?: (reply: T) => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let waiting = true
      const fail = (cause: unknown): void => {
        if (!waiting) return
        waiting = false
        this.#runtime.clearTimeout(timer)
        reject(this.#failed(operation, services, cause))
      }
      const timer = this.#runtime.setTimeout(() => {
        const message = `The store did not answer ${operation} within ${this.#timeout} ms.`
        fail(new CircuitStorageError(message, { operation }))
      }, this.#timeout)
      const succeed = (reply: T): void => {
        this.#failures = 0
        this.#pausedUntil = 0
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

  #failed(operation: StorageOperation, services: readonly string[], cause: unknown): CircuitStorageError {
    const error = isCircuitStorageError(cause)
      ? cause
      : new CircuitStorageError(`The store failed at ${operation}.`, { operation, cause })
    // A damaged record is an answer: the store itself is well.
    if (!isDamage(error)) this.#pause()
    this.#report({
      services,
      operation,
      error,
      willRetry: operation !== 'clearState' && operation !== 'batchClearState',
    })
    return error
  }

  /** The first failure may be a connection that died while the process was frozen: it is tried again at once. */
  #pause(): void {
    this.#failures++
    if (this.#failures < 2) return
    const pause = Math.min(longestPause, firstPause * 2 ** (this.#failures - 2))
    this.#pausedSince = this.#runtime.now()
    this.#pausedUntil = this.#pausedSince + pause * (0.5 + this.#runtime.random() / 2)
  }

  #report(event: StorageErrorEvent): void {
    if (this.#listeners.size > 0) {
      for (const listener of this.#listeners) notify(listener, event)
      return
    }
    const { cause } = event.error
    const key = `${event.operation} ${cause instanceof Error ? cause.name : event.error.message}`
    const now = this.#runtime.now()
    if (Math.abs(now - (this.#warnedAt.get(key) ?? Number.NEGATIVE_INFINITY)) < warningInterval) return
    this.#warnedAt.set(key, now)
    process.emitWarning(event.error.message, { type: 'CircuitStorageWarning', code: event.error.code })
  }
}

function isDamage(error: CircuitStorageError): boolean {
  return error.corrupt || (error.errors !== undefined && [...error.errors.values()].every((one) => one.corrupt))
}
