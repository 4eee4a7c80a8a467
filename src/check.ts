/**
 * Finds out before the first outage what only an outage would show: whether the store can be read and written, and whether
 * the settings fit each other and the function. Every write has a condition that cannot hold, so nothing changes.
 *
 * @module
 */

import type { TimeSource } from './call/invocation.ts'
import { type CheckedSettings, keptBack, settingsFindings } from './check-settings.ts'
import { listed, named } from './check-words.ts'
import type { CircuitStorageError, StorageErrorKind, StorageOperation } from './errors.ts'
import type { Runtime } from './runtime.ts'
import { type OptionRules, refuseWrongOptions } from './settings/option-rules.ts'
import { isObject } from './settings/problems.ts'
import type { CircuitRecord, Finding, ICircuitStorage, StorageInspection, WriteResult } from './storage/contract.ts'
import { emptyRecord, noOutcomes } from './storage/record.ts'
import type { OperatorRun, StoreAccess } from './storage/store-access.ts'
import type { Synchronizer } from './sync/synchronizer.ts'

/** The options of a check. */
export interface CheckOptions {
  /**
   * Lambda's context, at the beginning of an invocation: it tells how long the function may run. Default: deadlines are not
   * checked.
   */
  readonly context?: TimeSource | undefined
}

const optionRules: OptionRules = {
  of: 'check',
  allowed: 'an object such as { context }',
  options: { context: { allowed: "Lambda's context", accepts: isObject } },
}

/** @throws {ConfigurationError} naming everything that is wrong with the options */
export function refuseWrongCheck(options: unknown): void {
  refuseWrongOptions(optionRules, options, 'check')
}

/** The parts of a breaker that are checked. */
interface CheckedBreaker extends CheckedSettings {
  readonly store: StoreAccess
  /** How long the next step may wait for the store, in milliseconds. */
  readonly patience: () => number
}

/** One step waits so long for the store, in milliseconds, or `storageTimeout` if that is longer: the first one connects. */
const longestStep = 5_000
/** Clocks further apart than this are told of, in milliseconds: recovery shifts by as much. */
const smallSkew = 5_000
/** From here on the breaker does not believe an instant, in milliseconds. */
const largeSkew = 60_000

/**
 * Checks a breaker. Never rejects for a fault of the store: that is a finding. The gravest findings come first.
 *
 * @param circuits those whose `mode` is not `off`
 * @param storageTimeout milliseconds
 * @param timeLeft what the invocation has left, in milliseconds; `Infinity`: there is no deadline
 * @param keepsJournal whether a journal is wanted
 */
export async function checkBreaker(
  circuits: readonly Synchronizer[],
  store: StoreAccess,
  runtime: Runtime,
  storageTimeout: number,
  timeLeft: number,
  keepsJournal: boolean,
): Promise<Finding[]> {
  const startedAt = runtime.now()
  const patience = (): number =>
    Math.min(Math.max(longestStep, storageTimeout), timeLeft - keptBack - Math.max(0, runtime.now() - startedAt))
  const breaker: CheckedBreaker = { circuits, store, runtime, storageTimeout, timeLeft, patience }
  const findings = [...settingsFindings(breaker), ...(breaker.circuits.length > 0 ? await storeFindings(breaker) : [])]
  const wanted = findings.filter(({ code }) => keepsJournal || code !== 'journal-permission-missing')
  return wanted.sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))
}

const severities: readonly Finding['severity'][] = ['error', 'warning', 'info']

async function storeFindings(breaker: CheckedBreaker): Promise<Finding[]> {
  const { circuits, store, runtime, storageTimeout } = breaker
  const [first] = circuits as [Synchronizer]
  const failures: Failure[] = []
  let answered = 0
  const run = async <T>(
    operation: StorageOperation,
    concerned: readonly Synchronizer[],
    action: (storage: ICircuitStorage) => Promise<T>,
  ): Promise<T | undefined> => {
    const budget: OperatorRun = { rounds: Math.max(1, Math.floor(breaker.patience() / storageTimeout)) }
    const names = new Map(concerned.map(({ storageKey, circuit }) => [storageKey, circuit.service]))
    const isBatch = operation === 'batchGetState' || operation === 'batchSetState'
    try {
      const reply = await store.run(operation, isBatch ? names : [...names.values()], action, undefined, budget)
      answered++
      return reply
    } catch (error) {
      const failed = error as CircuitStorageError
      const { errors, results } = failed
      // One circuit stands for all, unless it is its own record that is damaged.
      const meant = failed.corrupt ? concerned : circuits
      if (errors === undefined) failures.push({ operation, services: meant.map(serviceOf), error: failed })
      for (const [key, own] of errors ?? []) {
        failures.push({ operation, services: [names.get(key) ?? key], error: own })
        if (own.corrupt) answered++
      }
      if (results !== undefined && results.size > 0) answered++
      return (results as T | undefined) ?? undefined
    }
  }

  await run('getState', [first], (storage) => storage.getState(first.storageKey))
  // Every further step would take as long.
  if (failures.some(({ error }) => error.kind === 'unavailable')) return failureFindings(failures, circuits.length)
  const keys = circuits.map(({ storageKey }) => storageKey)
  const readAt = runtime.now()
  const stored = await run('batchGetState', circuits, (storage) => storage.batchGetState(keys))
  const latency = runtime.now() - readAt
  const ignored = await tryWrites(breaker, stored ?? new Map(), run)

  const found = failureFindings(failures, circuits.length)
  if (ignored) found.push(conditionIgnored)
  if (stored !== undefined && latency > storageTimeout / 2) found.push(slowStore(latency, storageTimeout))
  if (answered === 0) return found
  if (store.storage.shared === false) return [...found, notShared]
  const { findings, place, clockOffset } = await inspect(breaker, keys)
  // An operation may have failed for the same reason.
  const isKnown = ({ message }: Finding): boolean =>
    found.some((known) => known.message.includes(message.slice(message.indexOf(': ') + 2)))
  const news = findings.filter((one) => !isKnown(one))
  found.push(...news, ...clockFindings(clockOffset))
  // Few fleets have ever needed the circuit that stands for the keys of a service.
  const own = circuits.filter(({ circuit }) => circuit.key === undefined)
  const missing = own.filter(({ storageKey }) => stored !== undefined && !stored.has(storageKey))
  const failed = new Set(failures.flatMap(({ operation, services }) => (operation === 'batchGetState' ? services : [])))
  const unknown = missing.filter(({ circuit }) => !failed.has(circuit.service))
  if (unknown.length > 0) found.push(nothingStored(unknown, place))
  return found
}

function serviceOf({ circuit: { service } }: Synchronizer): string {
  return service
}

/** An operation that failed, and the services for which it did. */
interface Failure {
  readonly operation: StorageOperation
  readonly services: readonly string[]
  readonly error: CircuitStorageError
}

type Run = <T>(
  operation: StorageOperation,
  concerned: readonly Synchronizer[],
  action: (storage: ICircuitStorage) => Promise<T>,
) => Promise<T | undefined>

/**
 * Sends every kind of write under a version that no record has. An adapter that ignores the condition would write what is
 * stored already.
 *
 * @returns whether a write was carried out all the same
 */
async function tryWrites(
  { circuits, runtime }: CheckedBreaker,
  stored: ReadonlyMap<string, CircuitRecord>,
  run: Run,
): Promise<boolean> {
  const now = runtime.now()
  const version = `never-${runtime.id()}`
  const nextOf = (key: string): CircuitRecord => ({
    ...(stored.get(key) ?? emptyRecord(runtime.id(), now)),
    version: runtime.id(),
  })
  const [first] = circuits as [Synchronizer]
  const { storageKey } = first
  const at = stored.get(storageKey)?.updatedAt ?? now
  const nothing = { ...noOutcomes, at, id: runtime.id() }
  const writes = circuits.map(({ storageKey: serviceKey }) => ({ serviceKey, version, next: nextOf(serviceKey) }))
  const [added, replaced, set] = await Promise.all([
    run('addOutcomes', [first], (storage) => storage.addOutcomes(storageKey, version, nothing)),
    run('compareAndSetState', [first], (storage) =>
      storage.compareAndSetState(storageKey, version, nextOf(storageKey)),
    ),
    run('batchSetState', circuits, (storage) => storage.batchSetState(writes)),
  ])
  const results: readonly (WriteResult | undefined)[] = [added, replaced, ...(set?.values() ?? [])]
  return results.some((result) => result?.applied === true)
}

/** One finding for each cause, with all of the operations and services that it concerns. */
function failureFindings(failures: readonly Failure[], all: number): Finding[] {
  const causes = new Map<string, Failure[]>()
  for (const failure of failures) {
    const { error } = failure
    const cause = `${error.kind} ${adviceIn(error.message)}`
    causes.set(cause, [...(causes.get(cause) ?? []), failure])
  }
  return [...causes.values()].map((same) => {
    const [{ error }] = same as [Failure]
    const operations = [...new Set(same.map(({ operation }) => operation))]
    const services = [...new Set(same.flatMap((failure) => failure.services))]
    const { code, remedy } = adviceByKind[error.kind]
    const where = services.length < all || error.corrupt ? ` for ${named(services)}` : ''
    return finding({
      code,
      severity: 'error',
      message: `${listed(operations)} failed${where}: ${adviceIn(error.message)}`,
      remedy,
      service: services.length === 1 ? services[0] : undefined,
      cause: error,
    })
  })
}

const adviceByKind: Readonly<Record<StorageErrorKind, Pick<Finding, 'code' | 'remedy'>>> = {
  misconfigured: {
    code: 'store-misconfigured',
    remedy: 'Correct what the message names, and check again. Until then each instance decides alone.',
  },
  throttled: {
    code: 'store-throttled',
    remedy:
      'Correct what the message names, or wait until it has passed, and check again. Until then each instance decides alone.',
  },
  unavailable: {
    code: 'store-unavailable',
    remedy:
      'Make sure that the store runs, and that this process reaches it: its address and port, TLS, and in a VPC a gateway ' +
      'endpoint or a security group. Until then each instance decides alone.',
  },
  corrupt: {
    code: 'record-damaged',
    remedy: 'Find out who has written it, and call reset() for the service. Until then each instance decides alone.',
  },
}

/** The message of an adapter without the operation and the circuit, which are told for all of its causes at once. */
function adviceIn(message: string): string {
  return (
    /^\w+( of ("(?:[^"\\]|\\.)*"|\S+))? failed: (?<advice>[\s\S]+)$/.exec(message)?.groups?.['advice'] ??
    message.replace(/answer \w+ within/, 'answer within')
  )
}

async function inspect(
  { store: { storage }, runtime, patience }: CheckedBreaker,
  keys: readonly string[],
): Promise<StorageInspection> {
  if (storage.inspect === undefined) return { findings: [noInspection] }
  const { promise, resolve } = Promise.withResolvers<StorageInspection>()
  const timer = runtime.setTimeout(
    () => {
      const message = 'The inspection of the store did not end in time.'
      resolve({ findings: [finding({ ...notChecked, message })] })
    },
    Math.max(0, patience()),
  )
  try {
    return await Promise.race([storage.inspect(keys), promise])
  } catch (cause) {
    return { findings: [finding({ ...notChecked, message: 'The inspection of the store failed.', cause })] }
  } finally {
    runtime.clearTimeout(timer)
  }
}

const notChecked = {
  code: 'not-checked',
  severity: 'info',
  remedy: 'Check again.',
} as const

const noInspection: Finding = {
  ...notChecked,
  message:
    'The storage adapter has no method inspect: the clock of the store and the expiry of records were not checked.',
  remedy: 'Compare the clocks by hand, or give the adapter that method.',
}

const conditionIgnored: Finding = {
  code: 'condition-ignored',
  severity: 'error',
  message: 'The store carried out a write whose condition did not hold: instances will overwrite each other.',
  remedy: 'Correct the storage adapter; testCircuitStorage of middy-circuit-breaker/testing shows where it errs.',
}

const notShared: Finding = {
  code: 'not-shared',
  severity: 'info',
  message: 'The state is in the memory of this process: no other instance and no operator sees it.',
  remedy:
    'If instances shall share it, set CIRCUIT_BREAKER_TABLE_NAME or CIRCUIT_BREAKER_REDIS_URL, also for scripts of operators.',
}

function slowStore(latency: number, storageTimeout: number): Finding {
  return {
    code: 'store-slow',
    severity: 'warning',
    setting: 'storageTimeout',
    message: `A read took ${Math.round(latency)} ms, which is more than half of storageTimeout, ${storageTimeout} ms.`,
    remedy:
      'Use a store in the same region, give the function more memory, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT higher: a ' +
      'store that does not answer in time is not used.',
  }
}

function nothingStored(circuits: readonly Synchronizer[], place: string | undefined): Finding {
  const keys = circuits.map(({ storageKey }) => storageKey)
  return {
    code: 'nothing-stored',
    severity: 'info',
    service: circuits.length === 1 ? circuits[0]?.circuit.service : undefined,
    setting: 'namespace',
    message: `Nothing is stored under ${named(keys)}${place === undefined ? '' : ` in ${place}`}.`,
    remedy:
      'A fleet that has seen no failure for two days has nothing stored. If yours has, compare its namespace, its service ' +
      'keys and its store with these: an operator who uses others changes nothing for it.',
  }
}

function clockFindings(offset: number | undefined): Finding[] {
  const skew = Math.abs(offset ?? 0)
  if (offset === undefined || skew < smallSkew) return []
  const direction = offset > 0 ? 'behind' : 'ahead of'
  return [
    {
      code: 'clock-skew',
      severity: skew >= largeSkew ? 'error' : 'warning',
      message:
        `The clock of this machine is ${Math.round(skew / 1_000)} s ${direction} that of the store. Circuits that others open ` +
        `are probed here ${offset > 0 ? 'later' : 'sooner'} by as much${skew >= largeSkew ? ', or at once' : ''}.`,
      remedy: 'Set the clock of this machine, or that of the store.',
    },
  ]
}

/** A finding whose cause is not printed with it: the errors of clients can hold credentials. */
function finding({ cause, ...shown }: Finding): Finding {
  return Object.defineProperty(shown, 'cause', { value: cause })
}
