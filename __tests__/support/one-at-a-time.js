import JestRunner from 'jest-runner'

/**
 * Runs test files one after the other, in a process of their own. Jest starts one runner after the other, so that nothing
 * of the parallel part runs beside them.
 */
export default class OneAtATime extends JestRunner {
  constructor(globalConfig, context) {
    super({ ...globalConfig, maxWorkers: 1 }, context)
  }
}
