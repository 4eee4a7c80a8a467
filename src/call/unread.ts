/**
 * Loads the code for the bodies of results at its first use: few handlers need it.
 *
 * @module
 */

import type * as Bodies from './bodies.ts'

/** The code for bodies; `undefined`: it is not loaded. Written by {@link loadBodies}. */
export let bodies: typeof Bodies | undefined

export async function loadBodies(): Promise<typeof Bodies> {
  bodies ??= await import('./bodies.ts')
  return bodies
}

/**
 * Cancels the bodies of a value that nobody will read: each would hold a connection. Does not cancel a body that is being read.
 *
 * @param kept a value whose bodies are not cancelled either
 */
export function letGo(value: unknown, kept?: unknown): void {
  if (typeof value !== 'object' || value === null) return
  loadBodies()
    .then(({ cancelBodies }) => cancelBodies(value, kept))
    .catch(() => {})
}
