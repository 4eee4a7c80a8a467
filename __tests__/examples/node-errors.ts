import { types } from 'node:util'

/**
 * Makes `instanceof Error` true for the errors of Node's own modules, as it is everywhere but in Jest, whose tests have an
 * `Error` of their own. The AWS SDK asks that way, and makes another error, with no code and no name, of what a socket says.
 */
export function recogniseErrorsOfNode(): void {
  const isInstance = Function.prototype[Symbol.hasInstance]
  Object.defineProperty(Error, Symbol.hasInstance, {
    configurable: true,
    value(this: unknown, value: unknown) {
      return isInstance.call(this as () => unknown, value) || (this === Error && types.isNativeError(value))
    },
  })
}
