/**
 * Writes an entry of the journal. The engine loads it at its first transition: a function whose circuits stay closed has no
 * need of it. So that it shares no file with what every handler loads, it imports types alone.
 *
 * @module
 */

import type { StateChange } from './events.ts'
import type { Runtime } from './runtime.ts'
import type { JournalEntry } from './storage/contract.ts'
import type { StoreAccess } from './storage/store-access.ts'

/** One store's journal in this process. */
interface Desk {
  /** The kinds of failure that were reported. */
  readonly reported: Set<string>
  /** The entries that wait for their turn: each is told whether it has come. */
  readonly waiting: ((hasCome: boolean) => void)[]
  /** How many entries are on their way. */
  writing: number
}

/** By the way to the store. */
const desks = new WeakMap<StoreAccess, Desk>()

/** An operator's batch leaves room for the function's own calls: the AWS SDK has 50 sockets, and an entry takes two. */
const maxWriting = 8

/**
 * Writes the entry of a transition that this instance has made. Never rejects, and ends within `storageTimeout`
 * (milliseconds) once it is its turn. Where that is not enough, the entries that wait are given up as well. A failure is reported,
 * each kind once, and is none of the circuit's: it pauses nothing.
 */
export async function writeEntry(
  store: StoreAccess,
  runtime: Runtime,
  storageTimeout: number,
  storageKey: string,
  change: StateChange,
): Promise<void> {
  const desk = desks.get(store) ?? { reported: new Set(), waiting: [], writing: 0 }
  desks.set(store, desk)
  const entry = entryOf(change, runtime)
  if (desk.writing < maxWriting) desk.writing++
  else if (!(await new Promise<boolean>((resolve) => desk.waiting.push(resolve)))) return
  await new Promise<void>((resolve) => {
    const timer = runtime.setTimeout(() => {
      for (const giveUp of desk.waiting.splice(0)) giveUp(false)
      resolve()
    }, storageTimeout)
    const append = async () => store.storage.appendJournal?.(storageKey, entry)
    const startedAt = runtime.now()
    append()
      .then(
        () => store.tellOperation('appendJournal', [change.service], startedAt),
        (cause) => report(store, desk, change.service, startedAt, cause),
      )
      .finally(() => {
        runtime.clearTimeout(timer)
        resolve()
      })
  })
  // The place goes to the next one.
  const next = desk.waiting.shift()
  if (next === undefined) desk.writing--
  else next(true)
}

function entryOf(change: StateChange, { env, id }: Runtime): JournalEntry {
  const { observed: _, ...told } = change
  return {
    ...told,
    id: id(),
    functionName: env['AWS_LAMBDA_FUNCTION_NAME'],
    logStream: env['AWS_LAMBDA_LOG_STREAM_NAME'],
    traceId: /\bRoot=([\w-]+)/.exec(env['_X_AMZN_TRACE_ID'] ?? '')?.[1],
  }
}

function report(store: StoreAccess, { reported }: Desk, service: string, startedAt: number, cause: unknown): void {
  const error = store.errorOf('appendJournal', cause)
  store.tellOperation('appendJournal', [service], startedAt, error)
  if (reported.has(error.kind)) return
  reported.add(error.kind)
  if (store.tell({ services: [service], operation: 'appendJournal', error, willRetry: false })) return
  const text = `The journal of the circuits cannot be written. The circuits work without it; journal: false switches it off. ${error.message}`
  process.emitWarning(text, { type: 'CircuitStorageWarning', code: error.code })
}
