import { join } from 'node:path'
import { project } from './jest.config.js'

const {
  MUTATION_FILE = 'src/circuit/state-machine.ts',
  MUTATION_TESTS = 'unit/circuit/state-machine.test.ts',
  MUTATION_REPORT = 'reports/mutation/mutation.json',
  MUTATION_TIMEOUT = '2000',
  MUTATION_CONCURRENCY = '1',
} = process.env

/** Mutation testing. `npm run page -- mutation` runs it for one target after the other: see scripts/mutation-targets.ts. */
export default {
  mutate: [MUTATION_FILE],
  plugins: ['@stryker-mutator/jest-runner', './scripts/mutation-runner.js'],
  testRunner: 'bailing-jest',
  testRunnerNodeArgs: ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'],
  // The memory of the modules of ended test files is not given back.
  maxTestRunnerReuse: 150,
  coverageAnalysis: 'perTest',
  jest: {
    config: {
      ...project,
      testEnvironment: join(import.meta.dirname, 'scripts/mutation-environment.js'),
      testMatch: MUTATION_TESTS.split(',').map((pattern) => `<rootDir>/__tests__/${pattern}`),
      testTimeout: Number(MUTATION_TIMEOUT),
      watchman: false,
    },
    enableFindRelatedTests: false,
  },
  // Names no file: Stryker would adapt it by a compiler that is not installed, and nothing here reads it.
  tsconfigFile: 'none.json',
  disableTypeChecks: false,
  concurrency: Number(MUTATION_CONCURRENCY),
  // What never ends is found by counting; the clock is the last resort, so that a busy machine kills no mutant.
  timeoutFactor: 2,
  timeoutMS: 30_000,
  tempDirName: `.cache/stryker/${process.pid}`,
  ignorePatterns: ['.cache', 'dist', 'coverage', 'docs', 'examples', 'bench', 'README.md'],
  reporters: ['progress-append-only', 'json'],
  jsonReporter: { fileName: MUTATION_REPORT },
}
