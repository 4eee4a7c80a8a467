import vm from 'node:vm'
import { TestEnvironment } from 'jest-environment-node'

/**
 * For tests that compute: Jest's environment for Node with plain globals. In Jest's own each use of a global, such as
 * `Math` or `Map`, asks an object outside of the context first, which costs a simulation most of its time. A test file
 * chooses it by `@jest-environment`.
 */
export default class PlainGlobals extends TestEnvironment {
  constructor(...args) {
    const { createContext } = vm
    vm.createContext = () => createContext(vm.constants.DONT_CONTEXTIFY)
    try {
      super(...args)
    } finally {
      vm.createContext = createContext
    }
  }
}
