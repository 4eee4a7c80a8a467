/**
 * Writes an entry of the journal. The engine loads this file at its first transition: a function whose circuits stay closed does
 * not need it. The file imports only types, so a bundler shares no code between it and a handler.
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
  /** The entries that wait for their turn. Each listener hears whether its entry may be written. */
  readonly waiting: ((hasCome: boolean) => void)[]
  /** How many entries are being written. */
  writing: number
}

/** The journals by their access to the store. */
const desks = new WeakMap<StoreAccess, Desk>()

/** The most entries that are written at once, so that sockets are left for calls: the AWS SDK has 50, and an entry takes two. */
const maxWriting = 8

/**
 * Writes the entry of a transition that this instance has made. Never rejects, and ends within `storageTimeout` (milliseconds)
 * from its turn on. If that time is too short, the waiting entries are dropped as well. A failure is reported, each kind once. A
 * failure of the journal does not pause the circuit's own requests.
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
  // The next entry gets the place.
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
  const text = `The journal of the circuits cannot be written. The circuits work without a journal; journal: false switches it off. ${error.message}`
  process.emitWarning(text, { type: 'CircuitStorageWarning', code: error.code })
}
