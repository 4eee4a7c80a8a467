import v8 from 'node:v8'

v8.setFlagsFromString('--allow-natives-syntax')

/**
 * Runs every promise reaction that is due, and those that they cause, before it returns: V8's own microtask checkpoint.
 * So a program full of `await` is stepped through by a plain loop, exactly and about a microsecond a step. It does
 * nothing when it is called from within a promise reaction: see {@link inMacrotask}.
 */
export const drainMicrotasks = new Function('%PerformMicrotaskCheckpoint()') as () => void

/** Runs `body` where {@link drainMicrotasks} works: outside of any promise reaction. */
export function inMacrotask<T>(body: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(withoutStacks(body))
      } catch (error) {
        reject(error)
      }
    })
  })
}

/** Stack traces cost more than much of what is simulated. Only an error that ends it gets one. */
function withoutStacks<T>(body: () => T): T {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return body()
  } catch (error) {
    // One for whoever reads the report.
    if (error instanceof Error) {
      Error.stackTraceLimit = stackTraceLimit
      Error.captureStackTrace(error, withoutStacks)
    }
    throw error
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}
