import type { StorageOperation } from '../../src/errors.ts'
import type {
  CircuitRecord,
  CompareAndSet,
  ExpectedVersion,
  ICircuitStorage,
  Outcomes,
  WriteResult,
} from '../../src/storage/contract.ts'
import type { Engine } from './engine.ts'
import type { Instance } from './instance.ts'
import type { Observer, StoreRequest } from './observer.ts'
import { type World, worldStart } from './world.ts'

/** How the way to the store is doing. Probabilities and milliseconds. */
export interface StoreCondition {
  /** The median of a request's way … */
  readonly request: number
  /** … and of its answer's. */
  readonly reply: number
  /** How much the two vary; about 0.4 is a quiet network. */
  readonly spread?: number
  /** No answer comes sooner than this after its request. */
  readonly replyAfter?: number
  /** Requests that never arrive. */
  readonly lostRequests?: number
  /** Requests that are carried out and not answered. */
  readonly lostReplies?: number
  /** Requests that are refused at once. */
  readonly refused?: number
  /** Requests that are carried out and answered with an error. */
  readonly falseErrors?: number
  /** Writes that are refused as too many. */
  readonly throttled?: number
  /** Nothing gets through: refused at once, or never answered. */
  readonly outage?: 'refuse' | 'silence'
}

export const quiet: StoreCondition = { request: 2, reply: 2 }

/** What one item of a DynamoDB table serves in a second, each unit a request: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html */
export const hotKeyLimit = { reads: 3_000, writes: 1_000 } as const

/** Requests in one second. */
export interface Load {
  reads: number
  writes: number
  throttledReads: number
  throttledWrites: number
}

/**
 * A shared store behind a network: the real memory adapter, reached through latencies, losses, throttling and partitions.
 * A request lives on its own: that its sender is frozen or dead does not keep it from being carried out.
 */
export class SimulatedStore {
  /** For everyone who is not partitioned. */
  condition: StoreCondition = quiet
  /** The way of some instances, by index. */
  readonly partitions = new Map<number, StoreCondition>()
  /** Is told of each write, before its answer is on its way. */
  afterWrite: ((request: StoreRequest) => void) | undefined
  /** Requests beyond this per second and key are throttled. */
  limit: { readonly reads: number; readonly writes: number } | undefined
  /** The load by second since the start, if it is wanted. */
  readonly loads: Load[] | undefined
  readonly #world: World
  readonly #engine: Engine
  readonly #observer: Observer
  readonly #inner: ICircuitStorage
  readonly #records = new Map<string, CircuitRecord>()
  readonly #startedAt: number

  constructor(world: World, engine: Engine, observer: Observer, options: { readonly countsLoad?: boolean } = {}) {
    this.#world = world
    this.#engine = engine
    this.#observer = observer
    this.#inner = new engine.MemoryCircuitStorage()
    this.#startedAt = world.now
    this.loads = options.countsLoad ? [] : undefined
  }

  /** What is stored. */
  peek(key: string): CircuitRecord | undefined {
    return this.#records.get(key)
  }

  /** Forgets a record behind everyone's back, as an expiry, a restore or `FLUSHALL` does. */
  forget(key: string): void {
    const before = this.#records.get(key)
    void this.#inner.clearState(key)
    this.#records.delete(key)
    this.#world.trace?.(this.#world.now, 'store', `forgets ${key}`)
    this.#observer.written?.(before, undefined, undefined, key)
  }

  /** The way of one instance to the store. `isOperators`: an operator sits at it. */
  storageFor(instance: Instance, isOperators = false): ICircuitStorage {
    const inner = this.#inner
    const send = <T>(
      operation: StorageOperation,
      key: string,
      apply: () => Promise<T>,
      additionId?: string,
    ): Promise<T> =>
      this.#send(
        { instance, operation, key, sentAt: this.#world.now, isOperators, ...(additionId && { additionId }) },
        apply,
      )
    const write = (operation: StorageOperation, key: string, apply: () => Promise<WriteResult>): Promise<WriteResult> =>
      send(operation, key, apply)
    return {
      shared: true,
      getState: (key) => send('getState', key, () => inner.getState(key)),
      batchGetState: (keys) => send('batchGetState', keys[0] as string, () => inner.batchGetState(keys)),
      addOutcomes: (key: string, version: string, outcomes: Outcomes) =>
        send('addOutcomes', key, () => inner.addOutcomes(key, version, outcomes), outcomes.id),
      compareAndSetState: (key: string, version: ExpectedVersion, next: CircuitRecord) =>
        write('compareAndSetState', key, () => inner.compareAndSetState(key, version, next)),
      batchSetState: (writes: readonly CompareAndSet[]) =>
        send('batchSetState', writes[0]?.serviceKey as string, () => inner.batchSetState(writes)),
      clearState: (key) => send('clearState', key, () => inner.clearState(key)),
      batchClearState: (keys) => send('batchClearState', keys[0] as string, () => inner.batchClearState(keys)),
    }
  }

  #send<T>(request: StoreRequest, apply: () => Promise<T>): Promise<T> {
    const world = this.#world
    const { instance } = request
    this.#observer.sent?.(request)
    const condition = this.partitions.get(instance.index) ?? this.condition
    const {
      spread = 0.4,
      replyAfter = 0,
      outage,
      lostRequests = 0,
      lostReplies = 0,
      refused = 0,
      falseErrors = 0,
    } = condition
    const there = world.latency(condition.request, spread)
    const back = Math.max(world.latency(condition.reply, spread), replyAfter - there)
    const isLost = outage === 'silence' || world.chance(lostRequests)
    const isRefused = outage === 'refuse' || world.chance(refused)
    const isThrottled = world.chance(condition.throttled ?? 0)
    const losesReply = world.chance(lostReplies)
    const endsInError = world.chance(falseErrors)
    return new Promise<T>((resolve, reject) => {
      const answer = (settle: () => void, record: CircuitRecord | undefined, isError: boolean): void => {
        if (losesReply) {
          world.trace?.(world.now, instance.name, `${request.operation}: the reply is lost`)
          return
        }
        instance.deliver(back, () => {
          this.#observer.answered?.(request, record, isError)
          world.trace?.(
            world.now,
            instance.name,
            `${request.operation} answered ${isError ? 'with an error' : show(record)}`,
          )
          settle()
        })
      }
      const fail = (message: string): void => answer(() => reject(this.#error(request, message)), undefined, true)
      if (isLost) {
        world.trace?.(world.now, instance.name, `${request.operation}: the request is lost`)
        return
      }
      if (isRefused) {
        fail('connection refused')
        return
      }
      world.after(there, () => {
        const isBeyondLimit = this.#isBeyondLimit(request.operation)
        this.#observer.arrived?.(request, isThrottled || isBeyondLimit)
        if (isThrottled || isBeyondLimit) {
          fail('ThrottlingException')
          return
        }
        apply().then(
          (result) => {
            const record = this.#noted(request, result)
            if (endsInError) fail('the connection was reset')
            else answer(() => resolve(result), record, false)
          },
          (error: unknown) => answer(() => reject(error), undefined, true),
        )
      })
    })
  }

  /** Keeps account of what is stored; returns what the sender is told of it. */
  #noted(request: StoreRequest, result: unknown): CircuitRecord | undefined {
    const { key, operation } = request
    const before = this.#records.get(key)
    if (operation === 'getState') return result as CircuitRecord | undefined
    if (operation === 'batchGetState') return (result as Map<string, CircuitRecord>).get(key)
    if (operation === 'clearState' || operation === 'batchClearState') {
      this.#records.delete(key)
      this.#observer.written?.(before, undefined, request, key)
      return undefined
    }
    const { applied, current } =
      operation === 'batchSetState'
        ? ((result as Map<string, WriteResult>).get(key) as WriteResult)
        : (result as WriteResult)
    this.#world.trace?.(
      this.#world.now,
      request.instance.name,
      `${operation} ${applied ? 'applied' : 'refused'} ${show(current)}`,
    )
    if (applied && current !== undefined && current !== before) {
      this.#records.set(key, current)
      this.#observer.written?.(before, current, request, key)
      this.afterWrite?.(request)
    }
    return current
  }

  #isBeyondLimit(operation: StorageOperation): boolean {
    const { limit, loads } = this
    if (limit === undefined && loads === undefined) return false
    const second = Math.floor((this.#world.now - this.#startedAt) / 1_000)
    const counted = loads ?? this.#recent
    counted[second] ??= { reads: 0, writes: 0, throttledReads: 0, throttledWrites: 0 }
    const load = counted[second]
    const isRead = operation === 'getState' || operation === 'batchGetState'
    if (isRead) load.reads++
    else load.writes++
    if (limit === undefined) return false
    const isBeyond = isRead ? load.reads > limit.reads : load.writes > limit.writes
    if (isBeyond && isRead) load.throttledReads++
    else if (isBeyond) load.throttledWrites++
    return isBeyond
  }
  readonly #recent: Load[] = []

  #error({ operation, instance }: StoreRequest, message: string): Error {
    const cause = new Error(message)
    cause.name = message
    const kind = message === 'ThrottlingException' ? 'throttled' : 'unavailable'
    return new this.#engine.CircuitStorageError(`The store failed ${instance.name}: ${message}.`, {
      operation,
      kind,
      cause,
    })
  }
}

/** A record in a line. */
export function show(record: CircuitRecord | undefined): string {
  if (record === undefined) return '(nothing)'
  const { state, generation, failureCount, successCount, leases, override, version, epoch, suspectedAt } = record
  const { earlyCount, startedCount, reporterCount, dismissals, othersAt } = record
  const probes = leases.length === 0 ? '' : ` leases ${leases.map(({ id }) => id).join(' ')}`
  const forced = override === undefined ? '' : ` forced ${override.state}`
  const sample = `${earlyCount} early, ${startedCount} started, ${reporterCount} reporters`
  const since = suspectedAt === undefined ? '' : ` suspected since ${suspectedAt - worldStart}, ${sample}`
  const past = `${dismissals} dismissals${othersAt === undefined ? '' : ', others known'}`
  const counts = `${failureCount} failures, ${successCount} successes`
  return `${state} generation ${generation}, ${counts}${since}, ${past}${probes}${forced} (version ${version}, epoch ${epoch})`
}
