/**
 * Emits warnings about the set-up and the use of the breaker, each once in a process, and makes a warning visible.
 *
 * @module
 */

import type * as Texts from './warning-texts.ts'

/**
 * The `code` of every warning that this package emits through `process.emitWarning`. Codes are stable, messages are not. The `name` of
 * a warning about the store is `CircuitStorageWarning`; the `name` of all others is `CircuitBreakerWarning`.
 *
 * @example
 * process.on('warning', ({ code, message }) => metrics.count(code, message))
 */
export type CircuitBreakerWarningCode =
  /** Settings do not fit each other or the function, a variable names nothing, or calls have no limit. */
  | 'CIRCUIT_CONFIGURATION'
  /** A duration is so short that it was probably meant in seconds. */
  | 'CIRCUIT_SECONDS'
  /** Your classifier threw, or returned no valid answer. */
  | 'CIRCUIT_CLASSIFIER'
  /** A listener threw, rejected, or did not settle in time. */
  | 'CIRCUIT_LISTENER'
  /** A handler makes a breaker in every invocation, so each breaker starts without knowledge. */
  | 'CIRCUIT_REMADE'
  /** Powertools or OpenTelemetry threw while it received an event. */
  | 'CIRCUIT_TELEMETRY'
  /** An operator forced, set or reset a circuit that no function has stored yet. Its name may be wrong. */
  | 'CIRCUIT_NOTHING_STORED'
  /** The store failed: the `code` of the {@link CircuitStorageError}. */
  | 'CIRCUIT_STORAGE'

/** A warning before its text is loaded. */
export type Warning = (texts: typeof Texts) => string

/** All emitted warnings, and the mistakes of classifiers. Written by `warnOnce` and `warnOfClassifier`. */
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
    // The breaker also works in a bundle without the texts.
  }
}

/** Emits a warning about a mistake that must be corrected. Prints it even if Node is told to print no warnings. */
export function warnVisibly(text: string, type: string, code: CircuitBreakerWarningCode): void {
  process.emitWarning(text, { type, code })
  import('./silenced-warnings.ts')
    .then(({ printIfSilenced }) => printIfSilenced(`${type}: ${text}`, process))
    .catch(noop)
}

function noop(): void {}

/** The timeouts that a warning has named. All are below `secondsOfCalls`, so the set stays small. */
const doubted = new Set<number>()

/** The timeout of a call is so short that it was probably meant in seconds. */
export function warnOfSeconds(service: string, timeout: number): void {
  if (doubted.has(timeout)) return
  doubted.add(timeout)
  const source = `call of ${JSON.stringify(service)}`
  void warnOnce(({ meantInSeconds }) => meantInSeconds('timeout', timeout, source), 'CIRCUIT_SECONDS')
}

interface Reserve {
  readonly deadlineReserve: number
}

/** The whole invocation is shorter than the time reserved before its deadline. */
export function warnOfReserve({ deadlineReserve }: Reserve): void {
  void warnOnce((texts) => texts.shortInvocation(deadlineReserve))
}

/** If the store does not answer, the invocation has too little time left for its calls. */
export function warnOfStoreShare(
  service: string,
  { deadlineReserve }: Reserve,
  fairTime: number,
  timeLeft: number,
  share: number,
): void {
  void warnOnce((texts) => texts.unfairStore(service, deadlineReserve, fairTime, timeLeft, share))
}

/** The invocation is too short for a call to count as a failure. */
export function warnOfFairTime(service: string, { deadlineReserve }: Reserve, fairTime: number): void {
  void warnOnce((texts) => texts.unfairDeadline(service, deadlineReserve, fairTime))
}

/**
 * The user's classifier gave no usable answer. Warns once for each service, setting and mistake.
 *
 * @param thrown the name of the thrown error. Its message may hold a secret and is left out
 */
export function warnOfClassifier(service: string, setting: string, mistake: Texts.Mistake, thrown?: string): void {
  const key = `${setting} ${mistake} ${service}`
  if (warned.has(key)) return
  warned.add(key)
  void warnOnce((texts) => texts.unfitClassifier(service, setting, mistake, thrown), 'CIRCUIT_CLASSIFIER')
}

/** With `mode: 'observe'`: more calls are in flight than there are permits. */
export function warnOfCrowd(service: string, maxConcurrent: number): void {
  void warnOnce((texts) => texts.crowd(service, maxConcurrent))
}

/** A call without any limit has run for a minute. */
export function warnOfUnboundCall(service: string): void {
  void warnOnce((texts) => texts.unboundCall(service))
}
