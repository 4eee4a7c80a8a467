/**
 * The end of a Lambda environment: what waits to be stored is stored when Lambda says that it is about to end.
 *
 * Lambda sends SIGTERM to the runtime only where an extension is registered, and kills what is left after 500 ms at the
 * earliest: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown
 *
 * @module
 */

/** What may have something to store at the end. */
export interface Flushable {
  /** @param timeLeft in milliseconds */
  flush(timeLeft: number): Promise<void>
}

/** The time until Lambda kills the process, in milliseconds; {@link Flushable.flush} keeps a part of it back. */
const shutdownTime = 500

const waiting = new Set<Flushable>()
let isEnding = false

/**
 * Says whether something waits to be stored at the end of an invocation. Only while anything does, there is a listener for
 * SIGTERM: a process that owes nothing ends as it would without us.
 */
export function storeAtShutdown(breaker: Flushable, isWaiting: boolean): void {
  if (!isWaiting && waiting.size === 0) return
  if (isWaiting) waiting.add(breaker)
  else waiting.delete(breaker)
  if (isEnding) return
  process.off('SIGTERM', storeWhatIsLeft)
  // First, so that others find the listeners that they would find without us.
  if (waiting.size > 0) process.prependOnceListener('SIGTERM', storeWhatIsLeft)
}

async function storeWhatIsLeft(): Promise<void> {
  isEnding = true
  // Whoever else listens decides when the process ends; where nobody does, the signal itself ends it, a moment later.
  const isUpToUs = process.listenerCount('SIGTERM') === 0
  // What came while the process was frozen is delivered first.
  await new Promise((resolve) => setImmediate(resolve))
  await Promise.all([...waiting].map((breaker) => breaker.flush(shutdownTime)))
  isEnding = false
  if (isUpToUs) process.kill(process.pid, 'SIGTERM')
}
