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
      'so many keys of a [keyed service](keys.md) an instance knows at once; so many may fail within a `window` before the ' +
        'rest share one circuit',
    ],
    parent: ['', 'whether the calls of a keyed service are guarded by its own circuit, too'],
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
      'so many in a row make an instance refuse by itself; so many more failures than successes, weighed by ' +
        '`failureRateThreshold`, open the circuit of the fleet',
    ],
    failureRateThreshold: [
      '%',
      'part of the calls that must fail, of those that follow the first failure; 100: every one of them',
    ],
    resetTimeout: ['ms', 'how long it stays open before a probe is allowed; at most `maxResetTimeout`'],
    halfOpenSuccessThreshold: ['successes', 'probe successes that close it'],
    halfOpenMaxConcurrent: ['calls', 'probes in flight at once, fleet-wide'],
    maxConcurrent: ['calls', 'calls in flight at once, per instance and service; the rest wait their turn'],
    maxQueue: ['calls', 'how many may wait; beyond it `ConcurrencyLimitError`; `false`: unlimited'],
    cacheTtl: ['ms', 'how long loaded state is trusted before it is read again; 0: every invocation'],
    timeout: ['ms', 'per call; always also bounded by the Lambda deadline; `false`: by that only'],
    deadlineReserve: ['ms', 'kept back from the Lambda deadline to record a cut call and to answer'],
    window: ['ms', 'failures further apart than this do not belong together; no suspicion lasts longer'],
    maxResetTimeout: [
      'ms',
      'no `retryAt` is ever further ahead than this, whatever stored it or `Retry-After` asked for',
    ],
    resetBackoff: [
      '',
      'each trip in a row multiplies `resetTimeout` by it, give or take 10 %, up to `maxResetTimeout`; 1: none does',
    ],
    slowCallThreshold: ['ms', 'a success that took longer counts as a failure; nothing is cut; `false`: none does'],
    rampUp: [
      'ms',
      'so long after the circuit has closed, calls are admitted with a chance that rises from 10 % to 100 %; `false`: all at once',
    ],
    mode: ['', '`observe`: counts, stores and reports, never refuses; `off`: calls pass straight through'],
    isBreakableError: ['', 'which errors count as failures'],
    isBreakableResult: ['', 'which results count as failures'],
    namespace: ['', 'prefix of the stored keys'],
    journal: ['', 'keeps a journal in the store: one entry for each transition, written behind the calls'],
    storageTimeout: ['ms', 'longest a storage round trip may delay anyone'],
    preload: ['', 'in Lambda, begins to load the store’s client library as soon as the breaker is made; sends nothing'],
    prefetch: [
      '',
      'begins to read the circuits as soon as the breaker is made; `await breaker.load()` also waits for them',
    ],
    onStateChange: ['', 'called when a circuit changes its state'],
    onStorageError: ['', 'called when the store fails'],
  }
  return Object.entries(meanings).map(([name, [unit, meaning]]) => {
    const { default: fallback, allowed, fromText } = settings[name] as Setting
    const variable = fromText && variableOf(name)
    return { name, variable, default: fallback, unit, allowed, meaning, perService: name in serviceSettings }
  })
}
