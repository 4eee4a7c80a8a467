/**
 * Warnings: those about how the breaker is set up and used, each once in a process, and how a warning is made visible.
 *
 * @module
 */

import type * as Texts from './warning-texts.ts'

/**
 * The `code` of every warning that this package emits through `process.emitWarning`: stable, unlike messages. The `name` of a
 * warning is `CircuitStorageWarning` if it is about the store, else `CircuitBreakerWarning`.
 *
 * @example
 * process.on('warning', ({ code, message }) => metrics.count(code, message))
 */
export type CircuitBreakerWarningCode =
  /** Settings do not fit each other or the function, a variable names nothing, or calls have no bound. */
  | 'CIRCUIT_CONFIGURATION'
  /** A duration is so short that somebody probably thought of seconds. */
  | 'CIRCUIT_SECONDS'
  /** A classifier of your own threw, or returned what is no answer. The default has decided. */
  | 'CIRCUIT_CLASSIFIER'
  /** A listener threw or rejected, or was not done in time. */
  | 'CIRCUIT_LISTENER'
  /** A handler makes a breaker in every invocation: no breaker learns from the one before. */
  | 'CIRCUIT_REMADE'
  /** Powertools or OpenTelemetry threw while it was told of an event. */
  | 'CIRCUIT_TELEMETRY'
  /** An operator has forced, set or reset a circuit that no function has stored yet: perhaps its name is wrong. */
  | 'CIRCUIT_NOTHING_STORED'
  /** The store failed: the `code` of the {@link CircuitStorageError}. */
  | 'CIRCUIT_STORAGE'

/** A warning before its text is loaded. */
export type Warning = (texts: typeof Texts) => string

/** The warnings that were emitted, and the mistakes of classifiers. Written by `warnOnce` and `warnOfClassifier`. */
const warned = new Set<string>()

/** Emits a warning as soon as its text is loaded, unless it was emitted before. */
export async function warnOnce(
  warning: Warning,
  code: CircuitBreakerWarningCode = 'CIRCUIT_CONFIGURATION',
): Promise<void> {
  try {
    const text = warning(await import('./warning-texts.ts'))
    if (warned.has(text)) return
    warned.add(text)
    warnVisibly(text, 'CircuitBreakerWarning', code)
  } catch {
    // A bundle without the texts works all the same.
  }
}

/** Emits a warning about a mistake that somebody has to correct. It is printed also where Node is told to print none. */
export function warnVisibly(text: string, type: string, code: CircuitBreakerWarningCode): void {
  process.emitWarning(text, { type, code })
  import('./silenced-warnings.ts')
    .then(({ printIfSilenced }) => printIfSilenced(`${type}: ${text}`, process))
    .catch(noop)
}

function noop(): void {}

/** The timeouts of calls that were warned of: no more than there are numbers of seconds. */
const doubted = new Set<number>()

/** The timeout of a call is so short that somebody probably thought of seconds. */
export function warnOfSeconds(service: string, timeout: number): void {
  if (doubted.has(timeout)) return
  doubted.add(timeout)
  const source = `call of ${JSON.stringify(service)}`
  void warnOnce(({ meantInSeconds }) => meantInSeconds('timeout', timeout, source), 'CIRCUIT_SECONDS')
}

interface Reserve {
  readonly deadlineReserve: number
}

/** The whole invocation is shorter than the time that is kept back of it. */
export function warnOfReserve({ deadlineReserve }: Reserve): void {
  void warnOnce((texts) => texts.shortInvocation(deadlineReserve))
}

/** A store that does not answer leaves calls too little of the invocation. */
export function warnOfStoreShare(
  service: string,
  { deadlineReserve }: Reserve,
  fairTime: number,
  timeLeft: number,
  share: number,
): void {
  void warnOnce((texts) => texts.unfairStore(service, deadlineReserve, fairTime, timeLeft, share))
}

/** No call of the invocation can run for so long that its end says something of the service. */
export function warnOfFairTime(service: string, { deadlineReserve }: Reserve, fairTime: number): void {
  void warnOnce((texts) => texts.unfairDeadline(service, deadlineReserve, fairTime))
}

/**
 * A classifier of the user's has no usable answer. Once for each service, setting and mistake.
 *
 * @param thrown the name of what it threw, without the text, which may hold a secret
 */
export function warnOfClassifier(service: string, setting: string, mistake: Texts.Mistake, thrown?: string): void {
  const key = `${setting} ${mistake} ${service}`
  if (warned.has(key)) return
  warned.add(key)
  void warnOnce((texts) => texts.unfitClassifier(service, setting, mistake, thrown), 'CIRCUIT_CLASSIFIER')
}

/** With `mode: 'observe'`: calls that enforcing would let wait for a permit. */
export function warnOfCrowd(service: string, maxConcurrent: number): void {
  void warnOnce((texts) => texts.crowd(service, maxConcurrent))
}

/** Nothing bounds a call, and it goes on and on. */
export function warnOfUnboundCall(service: string): void {
  void warnOnce((texts) => texts.unboundCall(service))
}
