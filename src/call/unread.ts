/**
 * The way to the bodies of results, whose code is loaded when it is first needed: nearly no handler needs it.
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
 * Cancels the bodies of a value that nobody will read: each would hold a connection. Those that are being read are left alone.
 *
 * @param kept the bodies in here are left alone, too
 */
export function letGo(value: unknown, kept?: unknown): void {
  if (typeof value !== 'object' || value === null) return
  loadBodies()
    .then(({ cancelBodies }) => cancelBodies(value, kept))
    .catch(() => {})
}
