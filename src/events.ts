import type { CircuitStorageError, StorageOperation } from './errors.ts'
import { describeFailure } from './failures/classification.ts'
import type { CircuitState, Evidence, FailureSummary, StateChangeReason } from './storage/contract.ts'
import { warnOnce } from './warnings.ts'

export type { Evidence, StateChangeReason }

/** A circuit changed its state, or an operator forced or reset it: then `from` and `to` may be the same. */
export interface StateChange {
  /** The service key. */
  readonly service: string
  /**
   * The key whose circuit it is; `undefined` for a service without keys, and for the own circuit of a keyed service. Keys may be
   * many: leave them out of the dimensions of metrics.
   */
  readonly key?: string | undefined
  /** The state before. */
  readonly from: CircuitState
  /** The state from now on. */
  readonly to: CircuitState
  /** The generation that began with this change. */
  readonly generation: number
  /** When, in milliseconds since the epoch. */
  readonly at: number
  /** Why the circuit changed. */
  readonly reason: StateChangeReason
  /** The Lambda request whose call caused it; `undefined` outside an invocation and for observed changes. */
  readonly requestId: string | undefined
  /** The Lambda function of the instance that says so; `undefined` outside Lambda. */
  readonly functionName?: string | undefined
  /** Why the circuit opened; `undefined` for other changes. */
  readonly evidence: Evidence | undefined
  /** The failure that opened the circuit last: its name, code and HTTP status, never its message. */
  readonly lastFailure: FailureSummary | undefined
  /** When the open circuit lets a probe through, in milliseconds since the epoch; `undefined` if it is closed. */
  readonly retryAt: number | undefined
  /** The operator who forced or reset the circuit, in his own words. */
  readonly by?: string | undefined
  /** The operator's reason. */
  readonly why?: string | undefined
  /** When the operator's override ends by itself, in milliseconds since the epoch; `undefined`: there is none, or it has no end. */
  readonly until?: number | undefined
  /**
   * `false`: this instance's write made the transition; at most one instance of the fleet says so. `true`: it learned
   * of the transition by reading, or made it for itself alone while the store was away.
   */
  readonly observed: boolean
}

/**
 * Called with each transition that this instance made. A promise that it returns is awaited at the end of the invocation, up to
 * `storageTimeout`. Its errors and rejections change nothing; a warning names them, by their names and codes.
 */
export type StateChangeListener = (change: StateChange) => unknown

/** How {@link StateChangeListener}s subscribe. */
export interface StateChangeOptions {
  /** Also deliver transitions that this instance did not make for the fleet. Default: `false`. */
  readonly observed?: boolean | undefined
}

/** The store failed; the call that needed it went on without it. */
export interface StorageErrorEvent {
  /** The services that were concerned. */
  readonly services: readonly string[]
  /** The keys of keyed services that were concerned; absent: none was. */
  readonly keys?: readonly string[]
  /** The operation that failed. */
  readonly operation: StorageOperation
  /** What is wrong: its `kind` says whether it passes by itself, its `message` what to do. */
  readonly error: CircuitStorageError
  /** `true` if what was to be stored is kept and tried again at the next opportunity. */
  readonly willRetry: boolean
}

/** Called with each failure of the store. Its promises, errors and rejections are treated like those of a {@link StateChangeListener}. */
export type StorageErrorListener = (event: StorageErrorEvent) => unknown

/** Calls listeners, so that nothing they do can hurt the caller, and knows which of them are still at work. */
export class Notifier {
  /** Added by {@link notify}; each is removed when it has settled, or when {@link giveUp} is called. */
  readonly #tasks = new Set<Promise<void>>()

  /** Whether a promise of a listener has not settled. */
  get isBusy(): boolean {
    return this.#tasks.size > 0
  }

  /** Calls a listener. An error or a rejection of it is warned of. */
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

  /** These were waited for in vain: nobody waits for them again. */
  giveUp(tasks: readonly Promise<void>[]): void {
    const late = tasks.filter((task) => this.#tasks.delete(task))
    if (late.length > 0) void warnOnce(({ slowListener }) => slowListener(), 'CIRCUIT_LISTENER')
  }
}

/** The option that a listener was given as; or the journal, which listens as well. */
type ListenerRole = 'onStateChange' | 'onStorageError' | 'journal'
