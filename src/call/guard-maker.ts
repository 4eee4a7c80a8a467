/**
 * Makes the guards of a breaker: the guards of services up front, and the guard of a key at its first call.
 *
 * @module
 */

import { Circuit } from '../circuit/circuit.ts'
import type { StateChange } from '../events.ts'
import { KeyedService, sharedName } from '../keys/keyed-service.ts'
import type { Runtime } from '../runtime.ts'
import { storedKey } from '../settings/resolve.ts'
import type { ServiceSettings } from '../settings/table.ts'
import type { StoreAccess } from '../storage/store-access.ts'
import { Synchronizer, type SyncObserver } from '../sync/synchronizer.ts'
import { Guard } from './guard.ts'
import { Semaphore } from './semaphore.ts'

/** The surroundings of all guards of a breaker. */
export interface GuardWorld {
  readonly namespace: string | undefined
  readonly runtime: Runtime
  readonly store: StoreAccess
  /** Milliseconds. */
  readonly storageTimeout: number
  readonly emit: (change: StateChange, storageKey: string) => void
  /** Reads a circuit, together with others that are due; never rejects. */
  readonly load: (sync: Synchronizer) => Promise<void>
}

/** Names the circuit of a key. Without a name it is the circuit of the service. */
interface CircuitOfKey {
  readonly storageKey?: string
  readonly key?: string
  readonly observer?: SyncObserver | undefined
  readonly parent?: Guard | undefined
}

/** Each key has its own permits. The service as a whole, and keys that share a circuit, have no limit. */
export function makeGuard(
  world: GuardWorld,
  service: string,
  settings: ServiceSettings,
  one: CircuitOfKey = {},
): Guard {
  const { namespace, runtime, store, storageTimeout, emit, load } = world
  const { storageKey = storedKey(namespace, service), key, observer, parent } = one
  const isLimited = settings.keyed === undefined || (key !== undefined && key !== sharedName)
  const permits = isLimited
    ? new Semaphore(settings.maxConcurrent, settings.maxQueue)
    : new Semaphore(Number.POSITIVE_INFINITY, false)
  const circuit: Circuit = new Circuit(service, settings, {
    key,
    runtime,
    store,
    storageTimeout,
    isShared: store.storage.shared !== false,
    emit: (change) => emit(key === undefined ? change : { ...change, key }, storageKey),
    onRefusing: (refusal) => permits.rejectAll(refusal),
  })
  const sync = new Synchronizer(circuit, storageKey, store, runtime, storageTimeout, observer)
  return new Guard(circuit, sync, permits, runtime, load, parent)
}

/** @param parent the guard of the service as a whole, if it has one */
export function makeKeyedService(
  world: GuardWorld,
  service: string,
  settings: KeyedService['settings'],
  parent: Guard | undefined,
): KeyedService {
  return new KeyedService(
    service,
    settings,
    world.namespace,
    world.runtime,
    (storageKey, key, observer) => makeGuard(world, service, settings, { storageKey, key, observer, parent }),
    parent,
  )
}
