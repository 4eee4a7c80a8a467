/**
 * What DESIGN's section 4 says of one circuit, told a second time and as plainly as possible: the state machine is
 * compared with it command by command. It shares nothing with the code, not even the shape: failures, trips, successes
 * and changes of state are lists of what happened, from which counts, generation and epoch follow. Where the page is
 * silent a comment here says what is taken for right.
 */

export interface Settings {
  readonly failureThreshold: number
  readonly resetTimeout: number
  readonly halfOpenSuccessThreshold: number
  readonly halfOpenMaxConcurrent: number
  readonly window: number
  readonly maxResetTimeout: number
}

export type State = 'CLOSED' | 'OPEN' | 'HALF_OPEN'

export interface Circuit {
  readonly state: State
  /** The epoch until the first change of state … */
  readonly born: string
  /** … and the changes since: the last of them is the epoch, their number the generation. */
  readonly changes: readonly string[]
  /** The last write that replaced the circuit, or the first epoch; failures that are merely added leave it alone. */
  readonly write: string
  readonly writtenAt: number
  /** When each failure in a row happened. */
  readonly streak: readonly number[]
  /** The last failure, in a row or not. */
  readonly failedAt: number | undefined
  /** Since when the circuit is not closed, from when on it may be probed, and how long that was meant to take. */
  readonly opened: { readonly at: number; readonly retryAt: number; readonly span: number } | undefined
  /** When the lease of each probe expires. */
  readonly leases: Readonly<Record<string, number>>
  /** The leases of the probes that succeeded. */
  readonly successes: readonly string[]
  /** When each of the consecutive trips happened. */
  readonly trips: readonly number[]
  /** The failure that opened the circuit last. */
  readonly cause: string | undefined
  /** An operator's decision. */
  readonly forced: { readonly state: 'OPEN' | 'CLOSED'; readonly until: number } | undefined
}

/** A failure, and for how long the service asked to be left alone with it. */
export interface Cause {
  readonly name: string
  readonly asked: number | undefined
}

/** Names one write, and the epoch that begins with it if it changes the state. */
export interface Write {
  readonly version: string
  readonly epoch: string
}

/** An instant that is further ahead than its own duration and this was written by a broken clock. */
export const tolerance = 60_000

/** A lease is never longer than the longest Lambda invocation: 15 minutes. */
export const longestLease = 900_000

export function nothingKnown(born: string, at: number): Circuit {
  const nothing = { write: born, failedAt: undefined, opened: undefined, cause: undefined, forced: undefined }
  const none = { changes: [], streak: [], leases: {}, successes: [], trips: [] }
  return { state: 'CLOSED', born, writtenAt: at, ...nothing, ...none }
}

/** Whether an instant lies ahead, and no further than `span` can explain. */
const isAhead = (instant: number, now: number, span: number): boolean =>
  instant > now && instant <= now + span + tolerance

/** Whether no more than a window has passed since an instant. */
const isRecent = (instant: number, now: number, { window }: Settings): boolean =>
  now <= instant + window && instant <= now + tolerance

export const override = (circuit: Circuit, now: number): Circuit['forced'] =>
  circuit.forced !== undefined && now < circuit.forced.until ? circuit.forced : undefined

/** No circuit stays open for longer than `maxResetTimeout`, whatever stored it. */
export const retryAt = ({ opened }: Circuit, { maxResetTimeout }: Settings): number | undefined =>
  opened && Math.min(opened.retryAt, opened.at + maxResetTimeout)

/** The state that callers should act on. */
export function effective(circuit: Circuit, now: number, settings: Settings): State {
  const forced = override(circuit, now)
  if (forced !== undefined) return forced.state
  const span = Math.min(circuit.opened?.span ?? 0, settings.maxResetTimeout)
  const isWaiting = isAhead(retryAt(circuit, settings) ?? now, now, span)
  return circuit.state === 'OPEN' && !isWaiting ? 'HALF_OPEN' : circuit.state
}

export const liveLeases = ({ leases }: Circuit, now: number): Circuit['leases'] =>
  Object.fromEntries(Object.entries(leases).filter(([, expiresAt]) => isAhead(expiresAt, now, longestLease)))

/** The failures in a row; after a gap longer than `window` they are none. */
export function liveStreak({ streak }: Circuit, now: number, settings: Settings): readonly number[] {
  const last = streak.at(-1)
  return last !== undefined && isRecent(last, now, settings) ? streak : []
}

/** What a call may do. */
export function verdict(circuit: Circuit, now: number, settings: Settings): string {
  const state = effective(circuit, now, settings)
  if (state === 'CLOSED') return 'pass'
  if (state === 'OPEN') return override(circuit, now) === undefined ? 'open' : 'forced'
  if (circuit.state === 'OPEN') return 'claim'
  return Object.keys(liveLeases(circuit, now)).length < settings.halfOpenMaxConcurrent ? 'claim' : 'probing'
}

function changeState(circuit: Circuit, state: State, at: number, { version, epoch }: Write): Circuit {
  const changes = [...circuit.changes, epoch]
  return { ...circuit, state, changes, write: version, writtenAt: at, leases: {}, successes: [], forced: undefined }
}

/**
 * The circuit opens: because of failures, of a probe that failed, or of an operator (who has no `cause`). What the service
 * asked for makes it longer, never shorter, and what is beyond `maxResetTimeout` is not granted.
 */
export function trip(
  circuit: Circuit,
  at: number,
  { resetTimeout, maxResetTimeout }: Settings,
  write: Write,
  cause: Cause | undefined,
): Circuit {
  const { asked = 0 } = cause ?? {}
  const granted = asked > maxResetTimeout ? maxResetTimeout : asked
  const span = granted > resetTimeout ? granted : resetTimeout
  const trips = [...circuit.trips, at]
  const opened = { at, retryAt: at + span, span }
  return { ...changeState(circuit, 'OPEN', at, write), opened, trips, cause: cause?.name ?? circuit.cause }
}

/**
 * How calls that were let pass came out: maybe a success, then failures, the last of them at `at`. The result is what is
 * stored instead, or the instant at which the failures are added to what is stored; `undefined`: nothing is written.
 */
export function count(
  circuit: Circuit,
  outcomes: { readonly success: boolean; readonly failures: number; readonly at: number; readonly cause: Cause },
  now: number,
  settings: Settings,
  write: Write,
): Circuit | number | undefined {
  const { success, failures, cause } = outcomes
  const alive = liveStreak(circuit, now, settings)
  const kept = success ? [] : alive
  const isNews = failures > 0 || kept.length < alive.length
  if (circuit.state !== 'CLOSED' || override(circuit, now) !== undefined || !isNews) return undefined
  // Outcomes that waited do not take a streak back in time.
  const at = Math.max(outcomes.at, alive.at(-1) ?? outcomes.at)
  const streak = [...kept, ...Array<number>(failures).fill(at)]
  const isQuiet = !isRecent(Math.max(circuit.writtenAt, circuit.failedAt ?? 0), at, settings)
  const trips = isQuiet ? [] : circuit.trips
  const failedAt = failures > 0 ? at : circuit.failedAt
  const next = { ...circuit, streak, failedAt, trips, write: write.version, writtenAt: at, forced: undefined }
  if (streak.length >= settings.failureThreshold) return trip(next, outcomes.at, settings, write, cause)
  const onlyAdds = failures > 0 && kept.length === circuit.streak.length && trips.length === circuit.trips.length
  return onlyAdds ? at : next
}

/** What the store does to add failures. */
export const add = (circuit: Circuit, failures: number, at: number): Circuit => ({
  ...circuit,
  streak: [...circuit.streak, ...Array<number>(failures).fill(at)],
  failedAt: at,
  writtenAt: at,
})

/** A probe takes a lease. Leases that have expired are taken over where there is no room without. */
export function claim(
  circuit: Circuit,
  now: number,
  id: string,
  expiresAt: number,
  max: number,
  write: Write,
): Circuit {
  if (circuit.state === 'OPEN') return { ...changeState(circuit, 'HALF_OPEN', now, write), leases: { [id]: expiresAt } }
  const hasRoom = Object.keys(circuit.leases).length < max
  const leases = { ...(hasRoom ? circuit.leases : liveLeases(circuit, now)), [id]: expiresAt }
  return { ...circuit, leases, write: write.version, writtenAt: now }
}

/** A probe ends; `undefined`: it holds no lease (any more), and counts for nothing. */
export function settle(
  circuit: Circuit,
  id: string,
  outcome: 'success' | 'failure' | 'release',
  at: number,
  settings: Settings,
  write: Write,
  cause: Cause,
): Circuit | undefined {
  const { [id]: lease, ...leases } = circuit.leases
  if (lease === undefined) return undefined
  if (outcome === 'failure') {
    return trip({ ...circuit, streak: [...circuit.streak, at], failedAt: at }, at, settings, write, cause)
  }
  const successes = outcome === 'success' ? [...circuit.successes, id] : circuit.successes
  const isDone = outcome === 'success' && successes.length >= settings.halfOpenSuccessThreshold
  return isDone ? close(circuit, at, write) : { ...circuit, leases, successes, write: write.version, writtenAt: at }
}

export const close = (circuit: Circuit, at: number, write: Write): Circuit => ({
  ...changeState(circuit, 'CLOSED', at, write),
  streak: [],
  opened: undefined,
})

/** An operator forces a state; when that ends by itself the circuit goes on from there. */
export function force(
  circuit: Circuit,
  state: 'OPEN' | 'CLOSED',
  at: number,
  until: number | undefined,
  { resetTimeout }: Settings,
  write: Write,
): Circuit {
  const end = until ?? at + resetTimeout
  const opened = state === 'OPEN' ? { at, retryAt: end, span: end - at } : undefined
  const forced = { state, until: until ?? Number.POSITIVE_INFINITY }
  return { ...changeState(circuit, state, at, write), streak: [], opened, forced }
}

/** An operator's `reset`: closed, with no past. */
export const reset = (circuit: Circuit, at: number, write: Write): Circuit => ({
  ...close(circuit, at, write),
  failedAt: undefined,
  trips: [],
  cause: undefined,
})
