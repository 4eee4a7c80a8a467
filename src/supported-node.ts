/**
 * Refuses a Node that is too old when the package is imported. Otherwise the first call would fail with `Promise.withResolvers is
 * not a function`. The main entry imports this file first. `sideEffects` in package.json lists it, because no code uses its exports.
 *
 * The check looks for a function of Node 22 and not for a version: other runtimes have versions of their own.
 *
 * @module
 */

if (typeof Promise.withResolvers !== 'function' || typeof Map.groupBy !== 'function') {
  throw new Error(
    `middy-circuit-breaker needs Node.js 22.12 or later, but runs on ${globalThis.process?.version ?? 'an older runtime'}. Update it; in Lambda, choose nodejs22.x or nodejs24.x.`,
  )
}
