import { CircuitBreaker, type CircuitBreakerOptions, type KeyedOptions } from '../../src/index.ts'
import type { RecordingStorage } from './recording-storage.ts'
import { createFleet, type Fleet, outcomeOf, unavailable } from './virtual-fleet.ts'

/** An instance with a keyed service, `crm`, and a plain one, `stripe`. */
export type KeyedBreaker = CircuitBreaker<'crm' | 'stripe', { crm: KeyedOptions }>

export interface KeyedFleet extends Omit<Fleet, 'start'> {
  /** Starts another instance. */
  start(options?: Omit<Partial<CircuitBreakerOptions>, 'services'>): KeyedBreaker
}

/** Instances with a keyed service, over one store and under one clock. */
export function createKeyedFleet(
  keyed: KeyedOptions = {},
  common: Omit<Partial<CircuitBreakerOptions>, 'services'> = {},
): KeyedFleet {
  const fleet = createFleet(common)
  const start: KeyedFleet['start'] = (own = {}) =>
    new CircuitBreaker(
      {
        storage: fleet.storage,
        onStateChange: (change) => fleet.events.push(change),
        onStorageError: (event) => fleet.storageErrors.push(event),
        ...common,
        ...own,
        services: { crm: { keyed }, stripe: {} },
      },
      { ...fleet.runtime, env: {} },
    )
  return { ...fleet, start }
}

/** Calls a key so often that it fails in a row; what the calls come to is ignored. */
export async function failKey(breaker: KeyedBreaker, key: string, times = 3): Promise<void> {
  for (let index = 0; index < times; index++) await outcomeOf(breaker.call('crm', unavailable, { key }))
}

/** Opens the circuit of a key through this instance, and waits until that is stored. */
export async function tripKey(breaker: KeyedBreaker, key: string): Promise<void> {
  await failKey(breaker, key)
  await breaker.flush()
}

/** The keys, as they are stored, of which a store has records: among those that it was ever asked for since it has forgotten. */
export async function storedKeys(storage: RecordingStorage): Promise<string[]> {
  const { requests } = storage
  const asked = requests.flatMap(({ args: [first] }) => (typeof first === 'string' ? [first] : []))
  const inBatches = requests.flatMap(({ args: [first] }) =>
    Array.isArray(first) ? first.map((each) => (typeof each === 'string' ? each : each.serviceKey)) : [],
  )
  const stored: string[] = []
  for (const key of new Set([...asked, ...inBatches])) if ((await storage.peek(key)) !== undefined) stored.push(key)
  return stored
}
