/**
 * The rules of one circuit (`docs/understand/how-it-works.md`), told a second time and as plainly as possible: the state machine is
 * compared with it command by command. It shares nothing with the code, not even the shape: failures, trips, successes
 * and changes of state are lists of what happened, from which counts, generation and epoch follow. Where the page is
 * silent a comment here says what is taken for right. Who may open the circuit is not its subject.
 */

export interface Settings {
  readonly resetTimeout: number
  readonly halfOpenSuccessThreshold: number
  readonly halfOpenMaxConcurrent: number
  readonly maxResetTimeout: number
  readonly resetBackoff: number
}

export type State = 'CLOSED' | 'OPEN' | 'HALF_OPEN'

export interface Circuit {
  readonly state: State
  /** The epoch until the first change of state … */
  readonly born: string
  /** … and the changes since: the last of them is the epoch, their number the generation. */
  readonly changes: readonly string[]
  /** The last write, or the first epoch. */
  readonly write: string
  readonly writtenAt: number
  /** When each probe failed since the circuit was closed. */
  readonly failures: readonly number[]
  /** When the last of all did. */
  readonly failedAt: number | undefined
  /** Since when the circuit is not closed, from when on it may be probed, and how long that was meant to take. */
  readonly opened: { readonly at: number; readonly retryAt: number; readonly span: number } | undefined
  /** When a probe closed it. */
  readonly closedAt: number | undefined
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
  const unknown = { failedAt: undefined, opened: undefined, closedAt: undefined, cause: undefined, forced: undefined }
  const none = { changes: [], failures: [], leases: {}, successes: [], trips: [] }
  return { state: 'CLOSED', born, write: born, writtenAt: at, ...unknown, ...none }
}

/** Whether an instant lies ahead, and no further than `span` can explain. */
const isAhead = (instant: number, now: number, span: number): boolean =>
  instant > now && instant <= now + span + tolerance

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
 * The circuit opens: by a verdict, because of a probe that failed, or by an operator (both of these have no `cause`). What
 * the service asked for makes it longer, never shorter, and what is beyond `maxResetTimeout` is not granted.
 */
export function trip(
  circuit: Circuit,
  at: number,
  settings: Settings,
  write: Write,
  cause: Cause | undefined,
): Circuit {
  const { asked = 0 } = cause ?? {}
  const granted = Math.min(asked, settings.maxResetTimeout)
  const usual = backedOff(circuit.trips.length, settings, write)
  const span = Math.max(granted, usual)
  const trips = [...circuit.trips, at]
  const opened = { at, retryAt: at + span, span }
  const next = changeState(circuit, 'OPEN', at, write)
  return { ...next, opened, closedAt: undefined, trips, cause: cause?.name ?? circuit.cause }
}

/** Each trip in a row makes it longer, by a factor that the epoch moves by up to 10 %: see {@link lot}. */
function backedOff(trips: number, { resetTimeout, resetBackoff, maxResetTimeout }: Settings, { epoch }: Write): number {
  if (trips === 0 || resetBackoff === 1) return resetTimeout
  let span = resetTimeout
  for (let trip = 0; trip < trips; trip++) span *= resetBackoff
  // A reset timeout that is longer than allowed is not cut.
  return Math.min(Math.round(span * lot(epoch)), Math.max(resetTimeout, maxResetTimeout))
}

/** The epoch, read as the digits of a number to the base of 31, is the lot that is drawn of 2,001: from 0.9 to 1.1. */
function lot(epoch: string): number {
  const number = [...epoch].reduce((read, letter) => read * 31n + BigInt(letter.charCodeAt(0)), 0n)
  return 0.9 + Number(number % 2_001n) / 10_000
}

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
    return trip({ ...circuit, failures: [...circuit.failures, at], failedAt: at }, at, settings, write, cause)
  }
  const successes = outcome === 'success' ? [...circuit.successes, id] : circuit.successes
  const isDone = outcome === 'success' && successes.length >= settings.halfOpenSuccessThreshold
  return isDone
    ? { ...close(circuit, at, write), closedAt: at }
    : { ...circuit, leases, successes, write: write.version, writtenAt: at }
}

export const close = (circuit: Circuit, at: number, write: Write): Circuit => ({
  ...changeState(circuit, 'CLOSED', at, write),
  failures: [],
  opened: undefined,
  closedAt: undefined,
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
  const closedAt = state === 'OPEN' ? circuit.closedAt : undefined
  return { ...changeState(circuit, state, at, write), failures: [], opened, closedAt, forced }
}

/** An operator's `reset`: closed, with no past. */
export const reset = (circuit: Circuit, at: number, write: Write): Circuit => ({
  ...close(circuit, at, write),
  failedAt: undefined,
  trips: [],
  cause: undefined,
})
