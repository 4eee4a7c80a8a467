import { jest } from '@jest/globals'

/**
 * Lets a test wait for a timeout as it is deployed: timers of one to ten seconds fire twenty times as soon, until
 * `jest.restoreAllMocks()`. The clock, and longer timers such as that of an invocation's deadline, are the machine's.
 */
export function hastenTimers(): void {
  const { setTimeout } = globalThis
  jest.spyOn(globalThis, 'setTimeout').mockImplementation((callback, delay = 0) => {
    return setTimeout(callback, delay >= 1_000 && delay <= 10_000 ? delay / 20 : delay)
  })
}
