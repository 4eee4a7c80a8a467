/**
 * The texts of warnings about the set-up and the use of the breaker. Few processes emit a warning, so the breaker loads this file only
 * when one is due. The file imports nothing, so a bundler shares no code between it and a handler.
 *
 * @module
 */

/** The whole invocation is shorter than the time reserved before its deadline. */
export function shortInvocation(deadlineReserve: number): string {
  return (
    `An invocation had ${deadlineReserve} ms or less, and deadlineReserve reserves ${deadlineReserve} ms. Its calls are refused. ` +
    'Give the function a longer timeout, or set CIRCUIT_BREAKER_DEADLINE_RESERVE lower.'
  )
}

/** If the store does not answer, the invocation has too little time left for its calls. */
export function unfairStore(
  service: string,
  deadlineReserve: number,
  fairTime: number,
  timeLeft: number,
  share: number,
): string {
  return (
    `An invocation had ${Math.round(timeLeft)} ms: ${deadlineReserve} reserved (deadlineReserve), and of the rest up to ` +
    `${Math.round(share)} for a store that does not answer (storageTimeout, at most a quarter). That leaves a call of ` +
    `"${service}" less than the ${fairTime} ms it needs before it counts as a failure. Give the function a longer ` +
    'timeout, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT lower.'
  )
}

/** The invocation is too short for a call to count as a failure. */
export function unfairDeadline(service: string, deadlineReserve: number, fairTime: number): string {
  return (
    `The deadline ended a call of "${service}". The invocation had under ${deadlineReserve + fairTime} ms: ${deadlineReserve} ` +
    `reserved (deadlineReserve) plus the ${fairTime} a call needs before it counts as a failure. A service that hangs cannot ` +
    'open its circuit. Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.'
  )
}

/** A time is so short that it was probably meant in seconds. */
export function meantInSeconds(setting: string, value: number, source: string): string {
  return (
    `${setting} is ${value} ms (${source}): times are in milliseconds. For ${value} s write ${value * 1_000}; ` +
    'silence this warning with node --disable-warning=CIRCUIT_SECONDS.'
  )
}

/** A second breaker was made for the same services. */
export function remade(keys: readonly string[], isShared: boolean): string {
  const which = `A second circuit breaker for ${keys.slice(0, 3).map(quote).join(', ')}${keys.length > 3 ? ' …' : ''} was made`
  const advice = 'Make the breaker, or its middleware, once and outside of the handler'
  return isShared
    ? `${which} after the first one was used. If a handler makes its breaker, each invocation makes a client, connects and ` +
        `reads, and forgets what this instance has seen. ${advice}.`
    : `${which}, with a memory of its own. It knows nothing of what the first one has seen. If each invocation makes a ` +
        `breaker, no circuit ever opens. ${advice}. To use several on purpose, as in tests, give each its own ` +
        'storage: new MemoryCircuitStorage().'
}

/** A listener threw or rejected. */
export function failedListener(role: string, name: string, code: string | undefined): string {
  const what = code === undefined ? name : `${name} (${code})`
  return `A listener of ${role} failed with ${what}, and its event may be lost. Handle errors inside the listener.`
}

/** A listener's promise did not settle before the end of an invocation stopped waiting. */
export function slowListener(): string {
  return (
    'The promise of a listener (onStateChange, onStorageError) did not settle in time. The end of an invocation waits at most ' +
    "storageTimeout, and at most the invocation's remaining time. After that the listener's work may be lost when Lambda " +
    'freezes the process. Give the listener a shorter timeout of its own, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT higher. ' +
    'A listener must not wait for flush() or close(): both wait for the listener.'
  )
}

/** The mistake that a classifier made. */
export type Mistake = 'threw' | 'promise' | 'string'

/** A classifier threw, or returned no valid answer. */
export function unfitClassifier(service: string, setting: string, mistake: Mistake, thrown = ''): string {
  const what = {
    threw: `threw ${thrown}. The default decides whenever a classifier throws`,
    promise: 'returned a promise, and the breaker does not wait for a promise. The default decides',
    string:
      "returned a string other than 'failure', 'success' and 'ignore'. That counts as a failure, like every truthy value",
  }
  return (
    `The classifier ${setting} of ${quote(service)} ${what[mistake]}. A classifier must return at once: true or 'failure', ` +
    "'success', 'ignore', or false for no failure."
  )
}

/** With `mode: 'observe'`: more calls are in flight than there are permits. */
export function crowd(service: string, maxConcurrent: number): string {
  return (
    `More calls of "${service}" are in flight at once than maxConcurrent allows, ${maxConcurrent}. In mode observe all of them ` +
    'run. In mode enforce the extra calls would wait, and their timeout includes the wait. circuits["…"].queued counts them. ' +
    'Set CIRCUIT_BREAKER_MAX_CONCURRENT higher if the service can take more.'
  )
}

/** A call without any limit has run for a minute. */
export function unboundCall(service: string): string {
  return (
    `A call of "${service}" has run for a minute, and nothing bounds it: it has no timeout, no deadline and no signal. ` +
    'A call that never ends keeps its permit (maxConcurrent), makes other calls wait, and never counts as a failure. ' +
    'Set CIRCUIT_BREAKER_TIMEOUT, or the option timeout, in milliseconds.'
  )
}

/** A variable sets the keys of a service that is not keyed. */
export function notKeyed(variable: string, service: string): string {
  return `${variable} changes nothing: the service ${quote(service)} is not keyed`
}

/** More than `maxKeys` keys of a service fail, or are in use at once. */
export function tooManyKeys(service: string, maxKeys: number): string {
  return (
    `All further keys of "${service}" share one circuit: ${maxKeys} keys (maxKeys) have failed within a window, or cannot ` +
    'be forgotten because they are open or in use. Make sure that clients cannot choose keys freely. If you need more ' +
    'keys than that, set CIRCUIT_BREAKER_MAX_KEYS higher.'
  )
}

/** A variable whose name begins with the prefix of this package. */
export interface OddVariable {
  readonly prefix: string
  /** The name without the suffix. */
  readonly base: string
  /** The part of the name that names the service. */
  readonly suffix: string
  /** All known variables, without suffixes. */
  readonly known: readonly string[]
  /** The services by their suffixes. */
  readonly services: ReadonlyMap<string, readonly string[]>
  /** Finds the known name that is most like a name. */
  readonly nearest: (name: string, known: readonly string[]) => string | undefined
}

/** A variable names no known setting. */
export function unknownVariable({ prefix, base, suffix, known, services, nearest }: OddVariable): string {
  const names = known.map((name) => name.slice(prefix.length))
  // The prefix ends with an underscore, which does not belong to a suffix.
  const [, name = '', ending = ''] = /^(.*?)(__.*)?$/s.exec((base + suffix).slice(prefix.length)) ?? []
  // TIMEOUT_STRIPE, with one underscore, means TIMEOUT__STRIPE.
  const withSuffixes = names.flatMap((each) => [...services.keys()].map((service) => each + service))
  const near = nearest(name, ending === '' ? [...names, ...withSuffixes] : names) ?? onlyOneWith(name.split('_'), names)
  const suggestion = near === undefined ? '' : `; did you mean ${prefix}${near}${ending}?`
  return `${base}${suffix} names no setting of the circuit breaker and changes nothing${suggestion}`
}

/** The one name that has all of these words: `TABLE` means `TABLE_NAME`. */
function onlyOneWith(words: readonly string[], names: readonly string[]): string | undefined {
  const [only, ...others] = names.filter((name) => words.every((word) => name.split('_').includes(word)))
  return others.length === 0 ? only : undefined
}

/** A variable names a service that this breaker does not have. The variable may be meant for another breaker of the process. */
export function unknownService({ base, suffix, services, nearest }: OddVariable): string {
  const near = nearest(suffix, [...services.keys()])
  const suggestion = near === undefined ? 'remove it' : `did you mean ${base}${near}?`
  const keys = [...services.values()].flat().map(quote).join(', ')
  return (
    `${base}${suffix} names no service of this circuit breaker, which has ${keys}, and changes nothing here; ` +
    `unless it is meant for another breaker, ${suggestion}`
  )
}

function quote(key: string): string {
  return JSON.stringify(key.length > 64 ? `${key.slice(0, 64)}…` : key)
}
