import type { StorageOperation } from '../../src/errors.ts'
import type { Runtime } from '../../src/runtime.ts'
import type {
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  ICircuitStorage,
  Outcomes,
  WriteResult,
} from '../../src/storage/contract.ts'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'

/** One request as it arrived at the store. */
export interface RecordedRequest {
  readonly operation: StorageOperation
  /** The arguments of the method. */
  readonly args: readonly unknown[]
}

/**
 * What happens to a request: it is refused (`fail`), never answered and never carried out (`hang`), carried out and
 * never answered (`lose`), or carried out and answered with an error (`lose-with-error`).
 */
export type Fault = 'fail' | 'hang' | 'lose' | 'lose-with-error'

/** A request that a test keeps waiting. */
export interface HeldRequest {
  /** Resolves when the request is there. */
  readonly arrived: Promise<RecordedRequest>
  /** Lets it go on. */
  release(): void
}

type Match = StorageOperation | 'any' | ((request: RecordedRequest) => boolean)

interface Interception {
  readonly match: Match
  remaining: number
  readonly handle: (request: RecordedRequest, apply: () => Promise<unknown>) => Promise<unknown>
}

const reads: ReadonlySet<StorageOperation> = new Set(['getState', 'batchGetState'])

/** A store shared by the breakers of a test, which notes every request and fails as it is told. */
export class RecordingStorage implements ICircuitStorage {
  shared = true
  /** Every request, in the order of arrival. */
  readonly requests: RecordedRequest[] = []
  /** Happens to every request that nothing else was ordered for. */
  outage: Fault | undefined
  /** Is shown every record that a write has made. */
  onWrite: ((serviceKey: string, record: CircuitRecord) => void) | undefined
  /** How long a request is on its way, in milliseconds of the runtime's clock … */
  requestLatency = 0
  /** … and its answer. */
  replyLatency = 0
  readonly #inner = new MemoryCircuitStorage()
  readonly #runtime: Runtime
  readonly #interceptions: Interception[] = []

  constructor(runtime: Runtime) {
    this.#runtime = runtime
  }

  get reads(): RecordedRequest[] {
    return this.requests.filter(({ operation }) => reads.has(operation))
  }

  get writes(): RecordedRequest[] {
    return this.requests.filter(({ operation }) => !reads.has(operation))
  }

  /** The names of the operations that were requested, in order. */
  get operations(): StorageOperation[] {
    return this.requests.map(({ operation }) => operation)
  }

  /** Forgets what was requested so far. */
  forget(): void {
    this.requests.length = 0
  }

  /** The record as it is stored; not recorded and never disturbed. */
  peek(serviceKey: string): Promise<CircuitRecord | undefined> {
    return this.#inner.getState(serviceKey)
  }

  /** Stores a record behind everyone's back. */
  async put(serviceKey: string, record: CircuitRecord): Promise<void> {
    await this.#inner.clearState(serviceKey)
    await this.#inner.compareAndSetState(serviceKey, undefined, record)
  }

  /** Removes a record behind everyone's back, as an expiry does. */
  async remove(serviceKey: string): Promise<void> {
    await this.#inner.clearState(serviceKey)
  }

  /** The next requests that match come to grief. */
  inject(fault: Fault, match: Match = 'any', times = 1): void {
    this.#interceptions.push({
      match,
      remaining: times,
      handle: (request, apply) => this.#suffer(fault, request, apply),
    })
  }

  /** Whatever was ordered to go wrong and has not yet is called off. */
  heal(): void {
    this.outage = undefined
    this.requestLatency = 0
    this.replyLatency = 0
    this.#interceptions.length = 0
  }

  /** The next request that matches is answered by the test. */
  intercept(match: Match, handle: Interception['handle'], times = 1): void {
    this.#interceptions.push({ match, remaining: times, handle })
  }

  /** The next request that matches waits before it is carried out. */
  holdRequest(match: Match = 'any'): HeldRequest {
    return this.#hold(match, async (gate, apply) => {
      await gate
      return apply()
    })
  }

  /** The next request that matches is carried out at once; its answer waits. */
  holdReply(match: Match = 'any'): HeldRequest {
    return this.#hold(match, async (gate, apply) => {
      const reply = await apply()
      await gate
      return reply
    })
  }

  getState(serviceKey: string): Promise<CircuitRecord | undefined> {
    return this.#request('getState', [serviceKey], () => this.#inner.getState(serviceKey))
  }

  batchGetState(serviceKeys: readonly string[]): Promise<Map<string, CircuitRecord>> {
    return this.#request('batchGetState', [serviceKeys], () => this.#inner.batchGetState(serviceKeys))
  }

  addOutcomes(key: string, version: string, outcomes: Outcomes): Promise<WriteResult> {
    const apply = () => this.#shown(key, this.#inner.addOutcomes(key, version, outcomes))
    return this.#request('addOutcomes', [key, version, outcomes], apply)
  }

  compareAndSetState(key: string, version: ExpectedVersion, next: CircuitRecord): Promise<WriteResult> {
    const apply = () => this.#shown(key, this.#inner.compareAndSetState(key, version, next))
    return this.#request('compareAndSetState', [key, version, next], apply)
  }

  batchSetState(writes: readonly CompareAndSet[]): Promise<Map<string, WriteResult>> {
    return this.#request('batchSetState', [writes], () => this.#inner.batchSetState(writes))
  }

  clearState(serviceKey: string): Promise<void> {
    return this.#request('clearState', [serviceKey], () => this.#inner.clearState(serviceKey))
  }

  batchClearState(serviceKeys: readonly string[]): Promise<void> {
    return this.#request('batchClearState', [serviceKeys], () => this.#inner.batchClearState(serviceKeys))
  }

  async #shown(key: string, write: Promise<WriteResult>): Promise<WriteResult> {
    const result = await write
    if (result.applied && result.current !== undefined) this.onWrite?.(key, result.current)
    return result
  }

  async #request<T>(operation: StorageOperation, args: readonly unknown[], apply: () => Promise<T>): Promise<T> {
    const request: RecordedRequest = { operation, args }
    this.requests.push(request)
    const interception = this.#interceptions.find(({ match }) => fits(match, request))
    if (interception !== undefined) {
      interception.remaining--
      if (interception.remaining === 0) this.#interceptions.splice(this.#interceptions.indexOf(interception), 1)
      return interception.handle(request, apply) as Promise<T>
    }
    if (this.outage !== undefined) return this.#suffer(this.outage, request, apply) as Promise<T>
    if (this.requestLatency > 0) await this.#sleep(this.requestLatency)
    const reply = await apply()
    if (this.replyLatency > 0) await this.#sleep(this.replyLatency)
    return reply
  }

  async #suffer(fault: Fault, { operation }: RecordedRequest, apply: () => Promise<unknown>): Promise<unknown> {
    if (fault === 'lose' || fault === 'lose-with-error') await apply()
    if (fault === 'hang' || fault === 'lose') return new Promise(() => {})
    throw new Error(`injected fault at ${operation}`)
  }

  #hold(match: Match, pass: (gate: Promise<void>, apply: () => Promise<unknown>) => Promise<unknown>): HeldRequest {
    const arrival = Promise.withResolvers<RecordedRequest>()
    const gate = Promise.withResolvers<void>()
    this.intercept(match, (request, apply) => {
      arrival.resolve(request)
      return pass(gate.promise, apply)
    })
    return { arrived: arrival.promise, release: gate.resolve }
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      this.#runtime.setTimeout(resolve, milliseconds)
    })
  }
}

function fits(match: Match, request: RecordedRequest): boolean {
  return typeof match === 'function' ? match(request) : match === 'any' || match === request.operation
}
