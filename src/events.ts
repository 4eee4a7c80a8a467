import type { CircuitStorageError, StorageOperation } from './errors.ts'
import { describeFailure } from './failures/classification.ts'
import type { CircuitState, Evidence, FailureSummary, StateChangeReason } from './storage/contract.ts'
import { warnOnce } from './warnings.ts'

export type { Evidence, StateChangeReason }

/** A circuit changed its state, or an operator forced or reset it. After an operator, `from` and `to` may be the same. */
export interface StateChange {
  /** The service key. */
  readonly service: string
  /**
   * The key of the circuit; `undefined` for a service that is not keyed, and for the own circuit of a keyed service. A service may
   * have many keys: leave them out of the dimensions of metrics.
   */
  readonly key?: string | undefined
  /** The state before. */
  readonly from: CircuitState
  /** The state after the change. */
  readonly to: CircuitState
  /** The generation that began with this change. */
  readonly generation: number
  /** When the circuit changed, in milliseconds since the epoch. */
  readonly at: number
  /** Why the circuit changed. */
  readonly reason: StateChangeReason
  /** The Lambda request whose call caused the change; `undefined` outside an invocation and for observed changes. */
  readonly requestId: string | undefined
  /** The Lambda function of the instance that reports the change; `undefined` outside Lambda. */
  readonly functionName?: string | undefined
  /** Why the circuit opened; `undefined` for other changes. */
  readonly evidence: Evidence | undefined
  /** The failure that opened the circuit last: its name, code and HTTP status, never its message. */
  readonly lastFailure: FailureSummary | undefined
  /** When the open circuit lets a probe through, in milliseconds since the epoch; `undefined` if it is closed. */
  readonly retryAt: number | undefined
  /** The operator who forced or reset the circuit, as the operator gave the name. */
  readonly by?: string | undefined
  /** The operator's reason. */
  readonly why?: string | undefined
  /** When the operator's override ends by itself, in milliseconds since the epoch; `undefined`: no override, or no end. */
  readonly until?: number | undefined
  /**
   * `false`: this instance's write made the transition. At most one instance of the fleet reports `false`. `true`: the instance
   * learned of the transition by reading, or changed only its own circuit while the store failed.
   */
  readonly observed: boolean
}

/**
 * Called with each transition that this instance made. If the listener returns a promise, the end of the invocation waits for it,
 * up to `storageTimeout`. An error or a rejection of the listener changes nothing; a warning has its name and code.
 */
export type StateChangeListener = (change: StateChange) => unknown

/** The options of a subscription of a {@link StateChangeListener}. */
export interface StateChangeOptions {
  /** Whether to deliver also transitions that this instance did not make for the fleet. Default: `false`. */
  readonly observed?: boolean | undefined
}

/** The store failed. The call that needed the store went on without it. */
export interface StorageErrorEvent {
  /** The services that the failed operation was for. */
  readonly services: readonly string[]
  /** The keys of keyed services that the failed operation was for; absent: none. */
  readonly keys?: readonly string[]
  /** The operation that failed. */
  readonly operation: StorageOperation
  /** The error. Its `kind` says whether the failure passes by itself, its `message` what to do. */
  readonly error: CircuitStorageError
  /** `true` if the breaker keeps the data and tries to store it again at the next opportunity. */
  readonly willRetry: boolean
}

/** Called with each failure of the store. The breaker treats its promises, errors and rejections like those of a {@link StateChangeListener}. */
export type StorageErrorListener = (event: StorageErrorEvent) => unknown

/** Calls listeners and shields the caller from their errors. Keeps their promises until they settle. */
export class Notifier {
  /** Added by {@link notify}; each is removed when it has settled, or when {@link giveUp} is called. */
  readonly #tasks = new Set<Promise<void>>()

  /** Whether a promise of a listener has not settled. */
  get isBusy(): boolean {
    return this.#tasks.size > 0
  }

  /** Calls a listener. Warns if the listener throws or rejects. */
  notify<T>(role: ListenerRole, listener: (event: T) => unknown, event: T): void {
    const failed = (error: unknown): void => {
      const { name, code } = describeFailure(error)
      void warnOnce((texts) => texts.failedListener(role, name, code), 'CIRCUIT_LISTENER')
    }
    try {
      const returned = listener(event) as PromiseLike<unknown> | null | undefined
      if (typeof returned?.then !== 'function') return
      const task: Promise<void> = new Promise((resolve, reject) => void returned.then(resolve, reject))
        .catch(failed)
        .then(() => void this.#tasks.delete(task))
      this.#tasks.add(task)
    } catch (error) {
      failed(error)
    }
  }

  /** The promises that have not settled. None of them rejects. */
  get tasks(): readonly Promise<void>[] {
    return [...this.#tasks]
  }

  /** Drops promises that did not settle in time, so that nothing waits for them again. */
  giveUp(tasks: readonly Promise<void>[]): void {
    const late = tasks.filter((task) => this.#tasks.delete(task))
    if (late.length > 0) void warnOnce(({ slowListener }) => slowListener(), 'CIRCUIT_LISTENER')
  }
}

/** The option that holds the listener, or the journal, which also listens. */
type ListenerRole = 'onStateChange' | 'onStorageError' | 'journal'
