/**
 * Finds and reads the circuits of a store, past every cache.
 *
 * @module
 */

import { activeOverride, liveLeases, retryTime } from '../circuit/state-machine.ts'
import { isCircuitStorageError } from '../errors.ts'
import { nearest } from '../settings/problems.ts'
import { storedKey } from '../settings/resolve.ts'
import type { CircuitRecord, ICircuitStorage } from '../storage/contract.ts'
import { parseCircuitRecord } from '../storage/record.ts'
import { UsageError } from './arguments.ts'
import type { Place } from './place.ts'

/** A circuit as it is stored: its record, or the reason why that cannot be read. */
export interface StoredCircuit {
  /** The key that it is stored under. */
  readonly key: string
  readonly record: CircuitRecord | undefined
  /** The store's answer was no record. */
  readonly damage: string | undefined
}

/** The state of a circuit as a call meets it now. */
export type Standing =
  | 'closed'
  | 'suspected'
  | 'open'
  | 'due'
  | 'probing'
  | 'forced-open'
  | 'forced-closed'
  | 'damaged'
  | 'not-stored'

/** A circuit may be open longer than an operator's machine can know: `maxResetTimeout` is a setting of each function. */
const unlimited = { maxResetTimeout: Number.POSITIVE_INFINITY }

/** How a circuit stands at `now`. */
export function standingOf({ record, damage }: StoredCircuit, now: number): Standing {
  if (damage !== undefined) return 'damaged'
  if (record === undefined) return 'not-stored'
  const forced = activeOverride(record, now)
  if (forced !== undefined) return forced.state === 'OPEN' ? 'forced-open' : 'forced-closed'
  if (record.state === 'HALF_OPEN') return liveLeases(record, now).length > 0 ? 'probing' : 'due'
  if (record.state === 'OPEN') return retryTime(record, unlimited) <= now ? 'due' : 'open'
  return record.suspectedAt === undefined ? 'closed' : 'suspected'
}

/** Whether calls are refused, or would be if the service still fails. */
export function isOpen(standing: Standing): boolean {
  return ['open', 'due', 'probing', 'forced-open'].includes(standing)
}

/** The most circuits that are listed: a store may hold the circuits of many fleets. */
export const mostListed = 10_000

/**
 * The keys of all stored circuits, sorted; without those of other namespaces where one is meant.
 *
 * @throws {UsageError} if the store cannot list them
 */
export async function listKeys({ storage, name, namespace }: Place): Promise<string[]> {
  if (storage.listCircuits === undefined) {
    throw new UsageError(
      `The circuits of ${name} cannot be listed: its adapter has no listCircuits. Name each circuit.`,
    )
  }
  const prefix = namespace === undefined ? undefined : storedKey(namespace, '')
  const keys = new Set<string>()
  let cursor: string | undefined
  do {
    const page = await storage.listCircuits({ prefix, cursor })
    for (const key of page.keys) keys.add(key)
    cursor = page.cursor
  } while (cursor !== undefined && keys.size < mostListed)
  return [...keys].sort()
}

/** Reads circuits in as few requests as the store allows. A damaged record hides no other. */
export async function readStored(storage: ICircuitStorage, keys: readonly string[]): Promise<StoredCircuit[]> {
  let answers: ReadonlyMap<string, unknown> = new Map()
  const damages = new Map<string, string>()
  try {
    if (keys.length > 0) answers = await storage.batchGetState(keys)
  } catch (error) {
    if (!isCircuitStorageError(error) || error.errors === undefined) throw error
    for (const [key, own] of error.errors) {
      if (!own.corrupt) throw error
      damages.set(key, own.message)
    }
    answers = error.results ?? answers
  }
  return keys.map((key) => {
    const answer = answers.get(key)
    const damage = damages.get(key)
    if (answer === undefined || damage !== undefined) return { key, record: undefined, damage }
    try {
      return { key, record: parseCircuitRecord(key, answer, 'batchGetState'), damage }
    } catch (error) {
      return { key, record: undefined, damage: (error as Error).message }
    }
  })
}

/**
 * Finds the circuit that an operator names: by its service key in the namespace that is meant, or by its stored key.
 *
 * @param mustExist without a record, its name may be misspelt
 * @throws {UsageError} naming what there is instead
 */
export async function findStored(place: Place, name: string, mustExist: boolean): Promise<StoredCircuit> {
  const own = storedKey(place.namespace, name)
  const keys = [...new Set([own, name])]
  const found = (await readStored(place.storage, keys)).filter(({ record, damage }) => record ?? damage)
  if (found.length === 2) {
    throw new UsageError(
      `${JSON.stringify(name)} may be ${JSON.stringify(own)} or ${JSON.stringify(name)}. Name one of them without --namespace.`,
    )
  }
  if (found[0] !== undefined) return found[0]
  const others = place.storage.listCircuits === undefined ? [] : await listKeys({ ...place, namespace: undefined })
  const namesakes = others.filter((key) => key.endsWith(`#${storedKey(undefined, name)}`))
  if (namesakes.length > 0) {
    const list = namesakes.slice(0, 5).map((key) => JSON.stringify(key))
    throw new UsageError(
      `Nothing is stored under ${JSON.stringify(own)}, but under ${list.join(', ')}. Name that one, or its namespace.`,
    )
  }
  if (!mustExist) return { key: name.includes('#') ? name : own, record: undefined, damage: undefined }
  const near = nearest(own, others)
  const advice =
    near === undefined
      ? 'A fleet that has seen no failure for two days has nothing stored: its circuit is closed. See mcb ls.'
      : `Did you mean ${JSON.stringify(near)}?`
  throw new UsageError(`Nothing is stored under ${JSON.stringify(own)} in ${place.name}. ${advice}`)
}
