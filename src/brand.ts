/** Every copy of this package knows the breakers of the others by it: two may end up in one bundle or process. */
export const brand: unique symbol = Symbol.for('middy-circuit-breaker')
