/**
 * Calls services that fail, through real clients, under the real engine, and tells what happened:
 * `node observe.ts <folder> <client> …`. The folder holds the certificates, whose authority Node must trust.
 *
 * In a process of its own, because the clients are to meet Node's own globals and not those of a test runner.
 */

import { inspect } from 'node:util'
import {
  CircuitBreaker,
  isBreakableError,
  isBreakableResult,
  isCircuitTimeoutError,
  MemoryCircuitStorage,
} from '../../src/index.ts'
import { patience } from '../support/time.ts'
import { type Observed, observeCells } from './cells.ts'
import { type ClientName, clients } from './clients.ts'
import { askedAt, type FaultName, faults } from './faults.ts'
import { stayOnLoopback } from './loopback.ts'
import { faultsOf } from './verdicts.ts'

/** What became of one call. */
export interface Observation {
  readonly client: ClientName
  readonly fault: FaultName
  /** What the caller got: a value or an error of the operation, or what the breaker cut the call with. */
  readonly reached: 'value' | 'error' | 'CircuitTimeoutError' | 'abort reason'
  /** Whether it is the operation's own object, where the call was not cut. */
  readonly untouched: boolean
  /** What `isBreakableError` says of the error, `isBreakableResult` of the value. */
  readonly judged: boolean
  readonly state: string
  /** What a half-open circuit has become when a probe has come to the same. */
  readonly probed: string | undefined
  readonly failureCount: number
  /** How long the circuit opened for, in milliseconds. */
  readonly opensFor: number | undefined
  readonly stored:
    | { readonly name: string; readonly code?: string | undefined; readonly status?: number | undefined }
    | undefined
  /** Of an error: all that can be seen of it. */
  readonly shown: string
  /** Of an error: its message. */
  readonly message: string | undefined
  /** What reading the body after the guard came to. */
  readonly readLater: 'value' | 'error' | undefined
}

export interface Matrix extends Observed<{ readonly client: ClientName; readonly fault: FaultName }, Observation> {
  /** What clients threw to nobody. */
  readonly uncaught: readonly string[]
}

/** The limit that ends a call to a service that says nothing, in milliseconds. */
const limit = 100
/** So many calls at once. */
const atOnce = 32

type Settled = { readonly value: unknown } | { readonly error: unknown }

const settle = (promise: Promise<unknown>): Promise<Settled> =>
  promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )

async function observe(name: ClientName, fault: FaultName, folder: string): Promise<Observation> {
  const client = clients[name]
  await using endpoint = await client.serve(fault, folder)
  const storage = new MemoryCircuitStorage()
  const by = faults[fault].limit
  const timeout = by === 'breaker' ? limit : (false as const)
  const options = { services: ['service'], storage, failureThreshold: 1, timeout } as const
  // A date is exact by a clock that stands still.
  const now = faults[fault].retryAfter === undefined ? Date.now : () => askedAt
  const breaker = new CircuitBreaker(options, { env: {}, now })
  // So that the call's time is the operation's alone.
  await breaker.load()
  const caller = new AbortController()
  if (by === 'caller') setTimeout(() => caller.abort(), limit)
  const own = new AbortController()
  if (by === 'operation') setTimeout(() => own.abort(), limit)
  const readsBody = fault !== 'reset in the answer, read after the guard'
  let came: Settled | undefined
  const operation = async ({ signal }: { readonly signal: AbortSignal }): Promise<unknown> => {
    const ownLimit = by === 'client' ? limit : undefined
    const attempt = { endpoint, timeout: ownLimit, signal: by === 'operation' ? own.signal : signal, readsBody, folder }
    came = await settle(client.call(attempt, fault))
    if ('error' in came) throw came.error
    return came.value
  }
  const got = await settle(breaker.call('service', operation, by === 'caller' ? { signal: caller.signal } : {}))
  await breaker.flush()
  const later = readsBody
    ? undefined
    : await settle((client.readLater as (value: unknown) => Promise<unknown>)((got as { value: unknown }).value))
  const record = await storage.getState('service')
  const { lastFailure } = record ?? {}
  const isError = 'error' in got
  return {
    client: name,
    fault,
    reached: !isError
      ? 'value'
      : isCircuitTimeoutError(got.error)
        ? 'CircuitTimeoutError'
        : by === 'caller' && got.error === caller.signal.reason
          ? 'abort reason'
          : 'error',
    untouched:
      came !== undefined &&
      isError === 'error' in came &&
      Object.is(isError ? got.error : got.value, 'error' in came ? came.error : came.value),
    judged: isError ? isBreakableError(got.error) : isBreakableResult(got.value),
    state: record?.state ?? 'CLOSED',
    probed: await probeWith(got),
    failureCount: record?.failureCount ?? 0,
    opensFor: record?.retryAt === undefined ? undefined : record.retryAt - (record.openedAt ?? 0),
    stored: lastFailure && { name: lastFailure.name, code: lastFailure.code, status: lastFailure.status },
    shown: isError ? inspect(got.error, { depth: 4 }).slice(0, 4_000) : '',
    message: isError && got.error instanceof Error ? got.error.message : undefined,
    readLater: later && ('error' in later ? 'error' : 'value'),
  }
}

/** Lets a probe come to what a call came to. */
async function probeWith(came: Settled): Promise<string | undefined> {
  const storage = new MemoryCircuitStorage()
  let now = 0
  const breaker = new CircuitBreaker(
    { services: ['service'], storage, failureThreshold: 1 },
    { env: {}, now: () => now },
  )
  const comeTo = (end: Settled) => () => ('error' in end ? Promise.reject(end.error) : Promise.resolve(end.value))
  await settle(breaker.execute('service', comeTo({ error: undefined })))
  await breaker.flush()
  now = 60_000
  await settle(breaker.call('service', comeTo(came)))
  await breaker.flush()
  return (await storage.getState('service'))?.state
}

stayOnLoopback()
const uncaught: string[] = []
const note = (error: unknown): void => void uncaught.push(inspect(error))
process.on('uncaughtException', note).on('unhandledRejection', note)
const [folder = '', ...names] = process.argv.slice(2)
const cells = (names as ClientName[]).flatMap((client) => faultsOf(client).map((fault) => ({ client, fault })))
// Those that wait come first, beside all others.
cells.sort(
  (one, other) => Number(faults[other.fault].limit !== undefined) - Number(faults[one.fault].limit !== undefined),
)
const observed = await observeCells(cells, ({ client, fault }) => observe(client, fault, folder), { atOnce, patience })
process.stdout.write(JSON.stringify({ ...observed, uncaught }), () => process.exit())
