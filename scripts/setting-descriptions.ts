import { variableOf } from '../src/settings/environment.ts'
import type { Setting } from '../src/settings/rules.ts'
import { type breakerSettings, keyedSettings, serviceSettings, settings } from '../src/settings/table.ts'

/** One row of the settings table. */
export interface SettingDescription {
  readonly name: string
  /** The environment variable; `undefined`: there is none. */
  readonly variable: string | undefined
  readonly default: unknown
  readonly unit: string
  readonly allowed: string
  readonly meaning: string
  /** Whether a service can have its own. */
  readonly perService: boolean
}

/** Every setting, for documentation. */
export const settingsTable: readonly SettingDescription[] = describeSettings()

/** The settings of the keys of a service, for documentation. */
export const keyedTable: readonly SettingDescription[] = describeKeyed()

function describeKeyed(): SettingDescription[] {
  const meanings: Record<keyof typeof keyedSettings, readonly [unit: string, meaning: string]> = {
    maxKeys: [
      'keys',
      'How many keys of a [keyed service](keys.md) an instance knows at once, and how many may fail within a `window` ' +
        'before all other keys share one circuit.',
    ],
    parent: ['', 'Whether a circuit for the whole service guards the calls of its keys as well.'],
  }
  return Object.entries(meanings).map(([name, [unit, meaning]]) => {
    const { default: fallback, allowed, fromText } = keyedSettings[name as keyof typeof keyedSettings]
    const variable = fromText && variableOf(name)
    return { name: `keyed.${name}`, variable, default: fallback, unit, allowed, meaning, perService: true }
  })
}

function describeSettings(): SettingDescription[] {
  const meanings: Record<
    keyof typeof serviceSettings | keyof typeof breakerSettings,
    readonly [unit: string, meaning: string]
  > = {
    failureThreshold: [
      'failures',
      'An instance refuses its own calls after this many failures in a row. The fleet opens the circuit when failures ' +
        'outnumber successes by this many (see `failureRateThreshold`).',
    ],
    failureRateThreshold: [
      '%',
      'The share of calls that must fail, counted from the first failure on. 100: every one of them.',
    ],
    resetTimeout: ['ms', 'How long a circuit stays open before it allows a probe. At most `maxResetTimeout`.'],
    halfOpenSuccessThreshold: ['successes', 'How many probes must succeed before the circuit closes.'],
    halfOpenMaxConcurrent: ['calls', 'How many probes the fleet may have in flight at once.'],
    maxConcurrent: ['calls', 'Calls in flight at once, for each instance and service. Further calls wait.'],
    maxQueue: ['calls', 'How many calls may wait. Further ones get a `ConcurrencyLimitError`. `false`: no limit.'],
    cacheTtl: ['ms', 'How long an instance trusts the state that it has read. 0: every invocation reads.'],
    timeout: [
      'ms',
      'The longest a call may take. The Lambda deadline bounds every call as well. `false`: only the deadline does.',
    ],
    deadlineReserve: ['ms', 'Time reserved before the Lambda deadline to record a timed-out call and to respond.'],
    window: [
      'ms',
      'Failures that are further apart than this are not counted together. A suspicion lasts no longer than this.',
    ],
    maxResetTimeout: ['ms', 'The longest a circuit may stay open before a probe, even if `Retry-After` asks for more.'],
    resetBackoff: [
      '',
      'Each time the circuit opens again, `resetTimeout` is multiplied by this, give or take 10 %. 1: it stays the same.',
    ],
    slowCallThreshold: [
      'ms',
      'A success that took longer than this counts as a failure. The call is not cut. `false`: none does.',
    ],
    rampUp: [
      'ms',
      'How long after it has closed a circuit admits only a part of the calls: 10 % at first, 100 % at the end. ' +
        '`false`: all at once.',
    ],
    mode: ['', '`observe` counts, stores and reports, but never refuses. `off` lets all calls through.'],
    isBreakableError: ['', 'Says which errors count as failures.'],
    isBreakableResult: ['', 'Says which results count as failures.'],
    namespace: ['', 'A prefix of the stored keys.'],
    journal: ['', 'Whether each transition is also written to a journal in the store. No call waits for that.'],
    storageTimeout: ['ms', 'The longest that one request to the store may delay a call.'],
    preload: [
      '',
      'In Lambda, the client library of the store begins to load as soon as the breaker is made. No request is sent.',
    ],
    prefetch: [
      '',
      'The circuits are read as soon as the breaker is made. `await breaker.load()` reads them, too, and waits for them.',
    ],
    onStateChange: ['', 'Is called when a circuit changes its state.'],
    onStorageError: ['', 'Is called when the store fails.'],
  }
  return Object.entries(meanings).map(([name, [unit, meaning]]) => {
    const { default: fallback, allowed, fromText } = settings[name] as Setting
    const variable = fromText && variableOf(name)
    return { name, variable, default: fallback, unit, allowed, meaning, perService: name in serviceSettings }
  })
}
