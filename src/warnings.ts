/**
 * Warnings about the configuration, each once in a process.
 *
 * @module
 */

/** The warnings that were emitted. Written by `warnOnce` only. */
const warned = new Set<string>()

/** Emits each warning, unless it was emitted before. */
export function warnOnce(warnings: readonly string[]): void {
  for (const warning of warnings) {
    if (warned.has(warning)) continue
    warned.add(warning)
    process.emitWarning(warning, { type: 'CircuitBreakerWarning', code: 'CIRCUIT_CONFIGURATION' })
  }
}

/** The whole invocation is shorter than the time that is kept back of it. */
export function warnOfReserve({ deadlineReserve }: { readonly deadlineReserve: number }): void {
  warnOnce([
    `An invocation began with no more time than deadlineReserve, ${deadlineReserve} ms, so that its calls are refused. ` +
      'Give the function a longer timeout, or set CIRCUIT_BREAKER_DEADLINE_RESERVE lower.',
  ])
}

/** No call of the invocation can run for so long that its end says something of the service. */
export function warnOfFairTime(
  service: string,
  { deadlineReserve }: { readonly deadlineReserve: number },
  fairTime: number,
): void {
  warnOnce([
    `A call of "${service}" was cut by the deadline of an invocation that began with less than ${deadlineReserve} ms ` +
      `(deadlineReserve) and ${fairTime} ms, which a call must have had to count as a failure, so that its circuit cannot ` +
      'open. Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.',
  ])
}
