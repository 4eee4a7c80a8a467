/**
 * A service with a circuit for each key: a tenant, a host, a region. Keys are not known up front.
 *
 * A key gets a guard of its own with its first call; the call waits until its record is read, together with those of others
 * that are asked for in the same turn. At most `maxKeys` are kept. Those that were not called for the longest time go first,
 * but never one that is pinned, because it is open, half-open or at work. An open circuit that nobody has called for a `window`
 * after its `retryAt` is pinned no longer: its next call would be a probe anyway, and reads its record before.
 *
 * An attacker may choose keys. If no guard can be dropped, or `maxKeys` keys have had a record created within a `window`, the keys
 * without a guard share one circuit. So one instance creates at most `2 × maxKeys` records in a `window`: `maxKeys` before keys
 * share a circuit, and one for each guard that it has then.
 *
 * Three sets keep the cost of an invocation apart from the number of keys: `#entries` is only looked up; `used` has the keys
 * that were called since they were read, which alone are refreshed; `busy` has those that have something to do at the store.
 *
 * @module
 */

import type { CallOptions, KeyedCallOptions, Operation } from '../call/call-options.ts'
import type { Guard } from '../call/guard.ts'
import type { Invocation } from '../call/invocation.ts'
import { type CircuitSnapshot, type KeyedCircuits, snapshotOf } from '../circuit/snapshot.ts'
import { effectiveState, retryTime } from '../circuit/state-machine.ts'
import type { Runtime } from '../runtime.ts'
import { isText, Problems, textAllowed } from '../settings/problems.ts'
import { hashOf, sharedKey, storedKeyOf, storedPrefix } from '../settings/resolve.ts'
import type { KeyedSettings, ServiceSettings } from '../settings/table.ts'
import type { Synchronizer, SyncObserver } from '../sync/synchronizer.ts'
import { warnOnce } from '../warnings.ts'

/** The name of the circuit that keys without a circuit of their own share. Calls and operators can use this name as a key. */
export const sharedName = '(shared)'

/** Makes the guard of a circuit. */
export type MakeGuard = (storedKey: string, key: string, observer?: SyncObserver) => Guard

/** A key longer than this is replaced by its hash, which takes less memory. */
const longestName = 256
/** This part of the keys goes at once, so that room is made seldom. */
const partThatGoes = 0.1
/** Where less than that may go, room is looked for again after this time, in milliseconds. */
const crowdedFor = 1_000

/** One key of this instance. */
class Entry implements SyncObserver {
  readonly guard: Guard
  readonly #service: KeyedService
  /** Under which the service knows it. */
  readonly #id: string
  /** The number of its last call. Written with each call. */
  usedAt = 0
  /** Whether it was called since its last read began. Written with each call, ended by a read. */
  isUsed = false
  /** When its last read began, in milliseconds since the epoch. */
  readAt = Number.NEGATIVE_INFINITY

  constructor(service: KeyedService, id: string, make: (observer: SyncObserver) => Guard) {
    this.#service = service
    this.#id = id
    this.guard = make(this)
  }

  isBusy(): void {
    this.#service.busy.add(this.guard.sync)
  }

  readBegan(): void {
    this.isUsed = false
    this.readAt = this.#service.readBegan(this.guard.sync)
  }

  creates(): void {
    this.#service.creates(this.#id)
  }

  /** Whether it must not be forgotten. */
  isPinned(now: number): boolean {
    const { circuit, sync, permits } = this.guard
    if (!permits.isIdle || !sync.isAtRest) return true
    const { acting, settings } = circuit
    const state = effectiveState(acting, now, settings)
    return state === 'OPEN' || (state === 'HALF_OPEN' && now - retryTime(acting, settings) <= settings.window)
  }
}

export class KeyedService {
  readonly service: string
  readonly settings: ServiceSettings & { readonly keyed: KeyedSettings }
  /** The service's own guard. */
  readonly parent: Guard | undefined
  readonly circuits: KeyedCircuits
  /** The keys that were called since they were read. Written with calls, reads and what goes. */
  readonly used: Set<Synchronizer> = new Set()
  /** Those that have something to do at the store. Written by their circuits; {@link needsFlush} lets go of others. */
  readonly busy: Set<Synchronizer> = new Set()
  readonly #make: MakeGuard
  readonly #runtime: Runtime
  readonly #prefix: string
  readonly #entries = new Map<string, Entry>()
  /** When a record was created for a key, by key, the oldest first. Written by `creates`. */
  readonly #created = new Map<string, number>()
  /** The circuit of the keys without a circuit of their own. */
  readonly #shared: Entry
  /** A guard without calls: it stands for those that are not known. Made when it is first needed. */
  #blank: Guard | undefined
  /** Counts the calls. */
  #calls = 0
  /** Until then no room is looked for, in milliseconds since the epoch. Written by `#hasRoom`. */
  #crowdedUntil = Number.NEGATIVE_INFINITY

  constructor(
    service: string,
    settings: ServiceSettings & { readonly keyed: KeyedSettings },
    namespace: string | undefined,
    runtime: Runtime,
    make: MakeGuard,
    parent: Guard | undefined,
  ) {
    this.service = service
    this.settings = settings
    this.parent = parent
    this.#runtime = runtime
    this.#make = make
    this.#prefix = storedPrefix(namespace, service)
    this.#shared = new Entry(this, sharedName, (observer) => make(this.#prefix + sharedKey, sharedName, observer))
    this.circuits = Object.freeze({
      of: (key: string) => this.snapshot(key),
      parent: parent && snapshotOf(() => parent, runtime, parent.circuit),
    })
  }

  /** Runs an operation under the circuit of a key; see `CircuitBreaker.call`. */
  call<T, F>(
    operation: Operation<T>,
    options: CallOptions<T, F> | KeyedCallOptions<T, F> | undefined,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    const key = options?.key
    const known = key === undefined ? undefined : this.#entries.get(key)
    if (known !== undefined) return this.#call(known, operation, options, invocation)
    try {
      return this.#call(this.#entryFor(key ?? invocation?.key), operation, options, invocation)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #call<T, F>(
    entry: Entry,
    operation: Operation<T>,
    options: CallOptions<T, F> | KeyedCallOptions<T, F> | undefined,
    invocation: Invocation | undefined,
  ): Promise<T | F> {
    entry.usedAt = ++this.#calls
    if (!entry.isUsed) this.#use(entry, invocation)
    const { guard } = entry
    const given = withoutKey(options)
    return this.parent === undefined
      ? guard.call(operation, given, invocation)
      : guard.callBoth(this.parent, operation, given, invocation)
  }

  /** The first call since it was read: a record that is out of date is waited for, because nobody has refreshed it. */
  #use(entry: Entry, invocation: Invocation | undefined): void {
    const { sync, circuit } = entry.guard
    entry.isUsed = true
    this.used.add(sync)
    const isRead = invocation !== undefined && entry.readAt >= invocation.startedAt
    if (!isRead && sync.loading === undefined && circuit.isStale(this.#runtime.now())) sync.loadAttempted = false
  }

  // --------------------------------------------------------------------------------------------------------- keys

  /** @throws {ConfigurationError} if it is no key */
  #entryFor(key: unknown): Entry {
    const id = idOf(this.service, key)
    const isShared = id === sharedName
    return this.#entries.get(id) ?? (isShared ? undefined : this.#open(id)) ?? this.#sharedEntry()
  }

  /** Makes the guard of a key; `undefined`: there is no room for it. */
  #open(id: string): Entry | undefined {
    const now = this.#runtime.now()
    const isCrowded = (this.#isCrowded(now) && !this.#created.has(id)) || !this.#hasRoom(now)
    if (isCrowded) return undefined
    const entry = new Entry(this, id, (observer) => this.#guardOf(id, observer))
    this.#entries.set(id, entry)
    return entry
  }

  #guardOf(id: string, observer?: SyncObserver): Guard {
    const name = nameOf(id)
    const storedKey = name === id ? storedKeyOf(this.#prefix, id) : `${this.#prefix}%${name}`
    return this.#make(storedKey, name, observer)
  }

  #sharedEntry(): Entry {
    const { service, settings } = this
    if (this.#shared.usedAt === 0) void warnOnce(({ tooManyKeys }) => tooManyKeys(service, settings.keyed.maxKeys))
    return this.#shared
  }

  /** Whether `maxKeys` keys have had a record created within a `window`, so that further keys share a circuit. */
  #isCrowded(now: number): boolean {
    for (const [id, at] of this.#created) {
      const isOver = now - at > this.settings.window || now < at
      if (!isOver) break
      this.#created.delete(id)
    }
    return this.#created.size >= this.settings.keyed.maxKeys
  }

  /** Whether there is room for one more key. If not, drops the keys that were not called for the longest time. */
  #hasRoom(now: number): boolean {
    const { maxKeys } = this.settings.keyed
    if (this.#entries.size < maxKeys) return true
    // A clock that has stepped back must not prolong it.
    if (now < this.#crowdedUntil && now >= this.#crowdedUntil - crowdedFor) return false
    const candidates = [...this.#entries].filter(([, entry]) => !entry.isPinned(now))
    candidates.sort(([, a], [, b]) => a.usedAt - b.usedAt)
    const wanted = Math.ceil(maxKeys * partThatGoes)
    for (const [id, { guard }] of candidates.slice(0, wanted)) {
      this.#entries.delete(id)
      this.used.delete(guard.sync)
      this.busy.delete(guard.sync)
    }
    if (candidates.length < wanted) this.#crowdedUntil = now + crowdedFor
    return this.#entries.size < maxKeys
  }

  /** A read of one of its circuits begins. Returns the time, in milliseconds since the epoch. */
  readBegan(sync: Synchronizer): number {
    this.used.delete(sync)
    return this.#runtime.now()
  }

  /** A record is about to be created for a key. */
  creates(id: string): void {
    if (id === sharedName) return
    this.#created.delete(id)
    this.#created.set(id, this.#runtime.now())
  }

  /** Whether a key has something to write, or one in use is to be read again. */
  needsLoadAt(now: number): boolean {
    return some(this.busy, ({ circuit }) => circuit.hasWork) || some(this.used, ({ circuit }) => circuit.isStale(now))
  }

  /** Whether a key has something to write. Lets go of those that have nothing to do any more. */
  get needsFlush(): boolean {
    for (const sync of this.busy) if (sync.isAtRest) this.busy.delete(sync)
    return some(this.busy, ({ circuit }) => circuit.hasWork || circuit.hasReadyLease)
  }

  // ------------------------------------------------------------------------------------- snapshots and operators

  /**
   * The live snapshot of a key's circuit.
   *
   * @throws {ConfigurationError} if it is no key
   */
  snapshot(key: string): CircuitSnapshot {
    const id = idOf(this.service, key)
    const unknown = { service: this.service, settings: this.settings }
    const guardOf = (): Guard => {
      const known = this.#entries.get(id)
      if (known !== undefined) return known.guard
      if (id === sharedName || this.#isCrowded(this.#runtime.now())) return this.#shared.guard
      this.#blank ??= this.#guardOf(id)
      return this.#blank
    }
    return snapshotOf(guardOf, this.#runtime, unknown, nameOf(id))
  }

  /**
   * The circuit of a key for an operator. It is not kept: unless this instance calls the key, it has no use of it.
   *
   * @throws {ConfigurationError} if it is no key
   */
  syncOf(key: string): Synchronizer {
    const id = idOf(this.service, key)
    if (id === sharedName) return this.#shared.guard.sync
    return (this.#entries.get(id)?.guard ?? this.#guardOf(id)).sync
  }

  /** The circuit that keys share: it stands for all of them where settings and the store are checked. */
  get representative(): Guard {
    return this.#shared.guard
  }
}

/** What the hash of a long key begins with: no key has such a character. */
const hashed = '\u0000'

/**
 * Under which this instance knows a key: the key itself, or, where it is long, its hash behind a character that no key has.
 *
 * @throws {ConfigurationError} if it is no key
 */
function idOf(service: string, key: unknown): string {
  if (!isText(key)) {
    const problems = new Problems()
    problems.mustBe(`${textAllowed}, because ${service} is keyed`, 'key', 'call option', key)
    problems.throwIfAny()
  }
  const text = key as string
  return text.length > longestName ? hashed + hashOf(text) : text
}

function some<T>(items: Iterable<T>, holds: (item: T) => boolean): boolean {
  for (const item of items) if (holds(item)) return true
  return false
}

/** A key as people see it. */
function nameOf(id: string): string {
  return id.startsWith(hashed) ? id.slice(1) : id
}

/** The options without the key; `undefined` where there are no others, as for a call of a service without keys. */
function withoutKey<T, F>(
  options: CallOptions<T, F> | KeyedCallOptions<T, F> | undefined,
): CallOptions<T, F> | undefined {
  for (const name in options) if (name !== 'key') return options as CallOptions<T, F>
  return undefined
}
