/**
 * Checks before the first outage whether the store can be read and written, and whether the settings fit each other and the
 * function. Every write has a condition that cannot hold, so nothing changes.
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
   * Lambda's context at the beginning of an invocation, which tells how long the function may run. Default: the check leaves
   * deadlines out.
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

/** The longest that one step waits for the store, in milliseconds. A longer `storageTimeout` wins. The first step also connects. */
const longestStep = 5_000
/** A clock that differs by more than this is a warning, in milliseconds: recovery shifts by the difference. */
const smallSkew = 5_000
/** The breaker rejects stored instants that are further ahead than this, in milliseconds. A larger skew is an error. */
const largeSkew = 60_000

/**
 * Checks a breaker. A fault of the store is a finding; the promise does not reject for it. The gravest findings come first.
 *
 * @param circuits the circuits whose `mode` is not `off`
 * @param storageTimeout milliseconds
 * @param timeLeft the remaining time of the invocation, in milliseconds; `Infinity`: there is no deadline
 * @param keepsJournal whether the breaker writes a journal
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
      // The failure of one circuit stands for all circuits. A damaged record concerns its own circuit only.
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
  // Every further step would take just as long.
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
  // The inspection may repeat the reason of a failed operation.
  const isKnown = ({ message }: Finding): boolean =>
    found.some((known) => known.message.includes(message.slice(message.indexOf(': ') + 2)))
  const news = findings.filter((one) => !isKnown(one))
  found.push(...news, ...clockFindings(clockOffset))
  // Few fleets have ever stored the circuit that the keys of a service share.
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
 * Sends every kind of write under a version that no record has. If an adapter ignores the condition, it writes the data that
 * is stored already.
 *
 * @returns whether the store carried out a write
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

/** Makes one finding for each cause. A finding names all the operations and services that it concerns. */
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
    remedy: 'Correct what the message names, and check again. Until then every instance keeps its own circuit.',
  },
  throttled: {
    code: 'store-throttled',
    remedy:
      'Correct what the message names, or wait until it has passed, and check again. Until then every instance keeps its own circuit.',
  },
  unavailable: {
    code: 'store-unavailable',
    remedy:
      'Make sure that the store runs, and that this process reaches it: its address and port, TLS, and in a VPC a gateway ' +
      'endpoint or a security group. Until then every instance keeps its own circuit.',
  },
  corrupt: {
    code: 'record-damaged',
    remedy:
      'Find out what wrote the record, and call reset() for the service. Until then every instance keeps its own circuit.',
  },
}

/** The message of an adapter without the operation and the circuit: the finding names them for all failures at once. */
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
  remedy: 'Compare the clocks by hand, or add the method to the adapter.',
}

const conditionIgnored: Finding = {
  code: 'condition-ignored',
  severity: 'error',
  message: 'The store carried out a write whose condition did not hold: instances will overwrite each other.',
  remedy: 'Correct the storage adapter. testCircuitStorage of middy-circuit-breaker/testing shows what is wrong.',
}

const notShared: Finding = {
  code: 'not-shared',
  severity: 'info',
  message: 'The state is in the memory of this process: no other instance and no operator sees it.',
  remedy:
    'To share the state, set CIRCUIT_BREAKER_TABLE_NAME or CIRCUIT_BREAKER_REDIS_URL, also for scripts of operators.',
}

function slowStore(latency: number, storageTimeout: number): Finding {
  return {
    code: 'store-slow',
    severity: 'warning',
    setting: 'storageTimeout',
    message: `A read took ${Math.round(latency)} ms, more than half of storageTimeout, ${storageTimeout} ms.`,
    remedy:
      'Use a store in the same region, give the function more memory, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT higher. The ' +
      'breaker goes on without a store that does not answer in time.',
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
      'A fleet that has seen no failure for two days has nothing stored. If your fleet has seen one, compare its namespace, ' +
      'its service keys and its store with these. If they differ, operators change nothing for the fleet.',
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
        `The clock of this machine is ${Math.round(skew / 1_000)} s ${direction} the store's clock. This instance probes ` +
        `circuits that others opened ${offset > 0 ? 'later' : 'sooner'} by that time${skew >= largeSkew ? ', or at once' : ''}.`,
      remedy: 'Set the clock of this machine, or that of the store.',
    },
  ]
}

/** Hides the cause of a finding from print-outs: the errors of clients can hold credentials. */
function finding({ cause, ...shown }: Finding): Finding {
  return Object.defineProperty(shown, 'cause', { value: cause })
}
