import { setImmediate } from 'node:timers/promises'

/** Waits until the texts of warnings are loaded and what was to be warned of is. */
export async function warningsEmitted(): Promise<void> {
  await import('../../src/warning-texts.ts')
  await setImmediate()
}
