import type { StorageErrorEvent } from '../../src/events.ts'
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  CircuitStorageError,
  type StateChange,
  type StorageOperation,
} from '../../src/index.ts'
import { createFakeRuntime, type FakeRuntime, type FakeRuntimeOptions } from './fake-runtime.ts'
import { type RecordedRequest, RecordingStorage } from './recording-storage.ts'

/** Several instances of a function over one store, under one clock. */
export interface Fleet {
  readonly runtime: FakeRuntime
  readonly storage: RecordingStorage
  /** Starts another instance. The only service is `stripe`, unless the options say otherwise. */
  start(options?: Partial<CircuitBreakerOptions>): CircuitBreaker
  /** What the listeners of all instances were told, without what was merely observed. */
  readonly events: StateChange[]
  readonly storageErrors: StorageErrorEvent[]
}

export function createFleet(common: Partial<CircuitBreakerOptions> = {}, options: FakeRuntimeOptions = {}): Fleet {
  // 0: nobody waits longer than `retryAt` before a claim, unless a test wants to see that.
  const runtime = createFakeRuntime({ random: () => 0, ...options })
  const storage = new RecordingStorage(runtime)
  const events: StateChange[] = []
  const storageErrors: StorageErrorEvent[] = []
  const start = (own: Partial<CircuitBreakerOptions> = {}): CircuitBreaker =>
    new CircuitBreaker(
      {
        services: ['stripe'],
        storage,
        onStateChange: (change) => events.push(change),
        onStorageError: (event) => storageErrors.push(event),
        ...common,
        ...own,
      },
      { ...runtime, env: {} },
    )
  return { runtime, storage, start, events, storageErrors }
}

/** An error that counts as a failure: what axios throws on a 503. */
export class ServiceUnavailable extends Error {
  readonly response = { status: 503 }
}

/** An error that does not: the request was wrong. */
export class BadRequest extends Error {
  readonly response = { status: 400 }
}

export const ok = async (): Promise<string> => 'ok'

export const unavailable = async (): Promise<never> => {
  throw new ServiceUnavailable('503')
}

/** An operation that the test ends when it wants to. */
export interface Controlled<T = string> {
  readonly operation: (context: { readonly signal: AbortSignal }) => Promise<T>
  /** How often it was started. */
  readonly started: number
  /** The signal that the last start was given. */
  readonly signal: AbortSignal | undefined
  succeed(value: T): void
  fail(error?: unknown): void
}

export function controlled<T = string>(): Controlled<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  let started = 0
  let signal: AbortSignal | undefined
  return {
    operation: (context) => {
      started++
      signal = context.signal
      return promise
    },
    get started() {
      return started
    },
    get signal() {
      return signal
    },
    succeed: resolve,
    fail: (error = new ServiceUnavailable('503')) => reject(error),
  }
}

/** What a promise came to, without throwing. */
export function outcomeOf<T>(promise: Promise<T>): Promise<{ readonly value?: T; readonly error?: unknown }> {
  return promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
}

/** Whether a promise has settled by now. */
export async function isSettled(promise: Promise<unknown>, runtime: FakeRuntime): Promise<boolean> {
  let settled = false
  const note = (): void => {
    settled = true
  }
  promise.then(note, note)
  await runtime.settle()
  return settled
}

/** Calls the service so often that it fails in a row; what the calls come to is ignored. */
export async function failTimes(breaker: CircuitBreaker, times: number, service = 'stripe'): Promise<void> {
  for (let index = 0; index < times; index++) await outcomeOf(breaker.call(service, unavailable))
}

/** Opens the circuit through this instance, and waits until that is stored. */
export async function trip(breaker: CircuitBreaker, service = 'stripe'): Promise<void> {
  await breaker.load()
  await failTimes(breaker, 3, service)
  await breaker.flush()
}

/**
 * The breaker of a circuit that may be probed claims the probe for a call, which is refused because the reply comes too late.
 * Then it comes.
 *
 * @returns the refusal
 */
export async function grantLate({ storage, runtime }: Fleet, breaker: CircuitBreaker): Promise<unknown> {
  const held = storage.holdReply('compareAndSetState')
  const call = outcomeOf(breaker.call('stripe', ok))
  await runtime.advance(500)
  const { error } = await call
  held.release()
  await runtime.settle()
  return error
}

/** An operation that never ends. */
export const never = (): Promise<never> => new Promise(() => {})

/** Collects what an observer of this instance is told from now on. */
export function observedBy(breaker: CircuitBreaker): StateChange[] {
  const observed: StateChange[] = []
  breaker.onStateChange((change) => observed.push(change), { observed: true })
  return observed
}

/** The requests of a claim; a cache that is read again in the background is none. */
export const isClaimOrRead = ({ operation }: RecordedRequest): boolean => operation !== 'batchGetState'

/** The error of an adapter that has found a damaged record. */
export function corrupt(operation: StorageOperation): CircuitStorageError {
  return new CircuitStorageError('damaged', { operation, service: 'stripe', corrupt: true })
}
