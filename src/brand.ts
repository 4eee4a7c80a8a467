/** Marks a breaker, so that every copy of this package recognises it. One bundle or process may hold two copies. */
export const brand: unique symbol = Symbol.for('middy-circuit-breaker')
