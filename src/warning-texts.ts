/**
 * The texts of warnings about how the breaker is set up and used. Few processes have anything to warn of: the file is loaded when it is
 * needed, and imports nothing, so that it shares nothing with what a handler loads.
 *
 * @module
 */

/** The whole invocation is shorter than the time that is kept back of it. */
export function shortInvocation(deadlineReserve: number): string {
  return (
    `An invocation began with no more time than deadlineReserve, ${deadlineReserve} ms, so that its calls are refused. ` +
    'Give the function a longer timeout, or set CIRCUIT_BREAKER_DEADLINE_RESERVE lower.'
  )
}

/** A store that does not answer leaves calls too little of the invocation. */
export function unfairStore(
  service: string,
  deadlineReserve: number,
  fairTime: number,
  timeLeft: number,
  share: number,
): string {
  return (
    `An invocation began with ${Math.round(timeLeft)} ms, less ${deadlineReserve} ms (deadlineReserve). A store that does not ` +
    `answer takes ${Math.round(share)} ms of it (storageTimeout, but no more than a quarter), and leaves a call of ` +
    `"${service}" less than the ${fairTime} ms that it must have had to count as a failure. Give the function a longer ` +
    'timeout, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT lower.'
  )
}

/** No call of the invocation can run for so long that its end says something of the service. */
export function unfairDeadline(service: string, deadlineReserve: number, fairTime: number): string {
  return (
    `A call of "${service}" was cut by the deadline of an invocation that began with less than ${deadlineReserve} ms ` +
    `(deadlineReserve) and ${fairTime} ms, which a call must have had to count as a failure, so that its circuit cannot ` +
    'open. Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.'
  )
}

/** A time is so short that somebody probably thought of seconds. */
export function meantInSeconds(setting: string, value: number, source: string): string {
  return (
    `${setting} is ${value} ms (${source}): times are in milliseconds. For ${value} s write ${value * 1_000}; ` +
    'silence this warning with node --disable-warning=CIRCUIT_SECONDS.'
  )
}

/** A breaker was made again for the same services. */
export function remade(keys: readonly string[], isShared: boolean): string {
  const which = `A second circuit breaker for ${keys.slice(0, 3).map(quote).join(', ')}${keys.length > 3 ? ' …' : ''} was made`
  const advice = 'Make the breaker, or its middleware, once and outside of the handler'
  return isShared
    ? `${which} after the first one was used. Inside a handler each invocation makes a client, connects and reads, and forgets ` +
        `what this instance has seen. ${advice}.`
    : `${which}, with a memory of its own: it knows nothing of what the first one has seen, so that the circuits of a breaker ` +
        `that each invocation makes never open. ${advice}. Where several are meant, as in tests, give each its own ` +
        'storage: new MemoryCircuitStorage().'
}

/** A listener threw or rejected. */
export function failedListener(role: string, name: string, code: string | undefined): string {
  const what = code === undefined ? name : `${name} (${code})`
  return `A listener of ${role} failed with ${what}, and its event may be lost. Handle errors inside the listener.`
}

/** A listener's promise took longer than the end of an invocation may. */
export function slowListener(): string {
  return (
    'The promise of a listener (onStateChange, onStorageError) did not settle in time: the end of an invocation waits for it ' +
    'no longer than storageTimeout, nor than what the invocation has left. From then on nobody waits, and the work may be lost ' +
    'when Lambda freezes the process. Give the listener a shorter timeout of its own, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT ' +
    'higher. A listener must not wait for flush() or close(), which wait for it.'
  )
}

/** A mistake of a classifier. */
export type Mistake = 'threw' | 'promise' | 'string'

/** A classifier threw, or returned what is no answer. */
export function unfitClassifier(service: string, setting: string, mistake: Mistake, thrown = ''): string {
  const what = {
    threw: `threw ${thrown}. The default decides whenever it throws`,
    promise: 'returned a promise, and a breaker does not wait for one. The default decides',
    string:
      "returned a string that is none of 'failure', 'success' and 'ignore'. It counts as a failure, as all that is truthy does",
  }
  return (
    `The classifier ${setting} of ${quote(service)} ${what[mistake]}. A classifier returns at once: true or 'failure', 'success', ` +
    "'ignore', or false for no failure."
  )
}

/** With `mode: 'observe'`: calls that enforcing would let wait for a permit. */
export function crowd(service: string, maxConcurrent: number): string {
  return (
    `More calls of "${service}" are in flight at once than maxConcurrent allows, ${maxConcurrent}. In mode observe they run; ` +
    'with enforce the others would wait in line, and the wait is part of their timeout. circuits["…"].queued counts them. ' +
    'Set CIRCUIT_BREAKER_MAX_CONCURRENT higher if the service can take more.'
  )
}

/** Nothing bounds a call, and it goes on and on. */
export function unboundCall(service: string): string {
  return (
    `A call of "${service}" has run for a minute, and nothing bounds it: it has no timeout, no deadline and no signal. ` +
    'Calls that never end keep their permits (maxConcurrent), count for nothing and let others wait. ' +
    'Set CIRCUIT_BREAKER_TIMEOUT, or the option timeout, in milliseconds.'
  )
}

/** A variable for the keys of a service that has none. */
export function notKeyed(variable: string, service: string): string {
  return `${variable} changes nothing: the service ${quote(service)} is not keyed`
}

/** More keys fail, or are in use at once, than the keys of a service may be. */
export function tooManyKeys(service: string, maxKeys: number): string {
  return (
    `The keys of "${service}" without a circuit share one: ${maxKeys} keys (maxKeys) have failed within a window, or cannot ` +
    'be forgotten because they are open or in use. Make sure that nobody can choose keys at will. If so many are right, set ' +
    'CIRCUIT_BREAKER_MAX_KEYS higher.'
  )
}

/** A variable whose name begins as ours do. */
export interface OddVariable {
  readonly prefix: string
  /** The name without the suffix. */
  readonly base: string
  /** The part of the name that says for which service it is. */
  readonly suffix: string
  /** The variables that there are, without suffixes. */
  readonly known: readonly string[]
  /** The services by their suffixes. */
  readonly services: ReadonlyMap<string, readonly string[]>
  /** The known name that a name probably meant. */
  readonly nearest: (name: string, known: readonly string[]) => string | undefined
}

/** A variable that names nothing known. */
export function unknownVariable({ prefix, base, suffix, known, services, nearest }: OddVariable): string {
  const names = known.map((name) => name.slice(prefix.length))
  // The prefix ends with an underscore, which is no part of a suffix.
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

/** A variable of a service that this breaker does not have. Careful: it may be meant for another breaker of the process. */
export function unknownService({ base, suffix, services, nearest }: OddVariable): string {
  const near = nearest(suffix, [...services.keys()])
  const suggestion = near === undefined ? 'remove it' : `did you mean ${base}${near}?`
  const keys = [...services.values()].flat().map(quote).join(', ')
  return (
    `${base}${suffix} fits no service of this circuit breaker, which has ${keys}, and changes nothing here; ` +
    `unless it is meant for another breaker, ${suggestion}`
  )
}

function quote(key: string): string {
  return JSON.stringify(key.length > 64 ? `${key.slice(0, 64)}…` : key)
}
