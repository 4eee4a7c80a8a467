import vm from 'node:vm'
import { TestEnvironment } from 'jest-environment-node'

/**
 * Jest's environment for Node with plain globals. In Jest's own, each use of a global, such as `Math` or `Map`, asks an
 * object outside of the context first, which costs a quarter of the suite's time and most of a simulation's.
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
