import { availableParallelism } from 'node:os'

/** Jest runs the TypeScript sources as ES modules (Middy is ESM only), compiled by SWC. */
export const project = {
  // Jest's own environment intercepts each use of a global, which costs a quarter of the time.
  testEnvironment: '<rootDir>/__tests__/support/plain-globals.js',
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2023', parser: { syntax: 'typescript' } }, module: { type: 'es6' }, sourceMaps: 'inline' },
    ],
  },
  // The examples import the package by its name, as its users do.
  moduleNameMapper: {
    '^middy-circuit-breaker$': '<rootDir>/src/index.ts',
    '^middy-circuit-breaker/durable$': '<rootDir>/src/durable.ts',
    '^middy-circuit-breaker/(powertools|otel)$': '<rootDir>/src/telemetry/$1/index.ts',
    '^middy-circuit-breaker/testing$': '<rootDir>/src/testing/index.ts',
    '^middy-circuit-breaker/(dynamodb|redis)$': '<rootDir>/src/storage/$1/index.ts',
  },
}

/** Tests with processes of their own, frozen or killed, and with proxies that break connections. */
const alone = [
  '__tests__/lambda/',
  '__tests__/reliability/',
  '__tests__/page/',
  '__tests__/integration/(demo|fleet-[a-z]+|redis-cluster)\\.test',
  '__tests__/examples/billing-deployment\\.test',
]
const every = '<rootDir>/__tests__/**/*.test.ts'
// Lambda's runtime client can be built on Linux only.
const ignored = ['/node_modules/', ...(process.platform === 'linux' ? [] : ['/__tests__/lambda/'])]

/** Two parts, one after the other: what may run side by side, and what gets the machine to itself, a file at a time. */
export default {
  projects: [
    {
      ...project,
      displayName: 'side by side',
      testMatch: [every],
      testPathIgnorePatterns: [...ignored, ...alone],
    },
    {
      ...project,
      displayName: 'one at a time',
      testMatch: [every],
      // All but those whose path has one of the patterns in it.
      testPathIgnorePatterns: [...ignored, `^(?!.*(${alone.join('|')}))`],
      runner: '<rootDir>/__tests__/support/one-at-a-time.js',
    },
  ],
  globalSetup: '<rootDir>/__tests__/support/keeper.js',
  globalTeardown: '<rootDir>/__tests__/support/keeper-teardown.js',
  // Many tests wait for servers and processes of their own, so that two at a time pay also on two processors.
  maxWorkers: Math.max(2, availableParallelism() - 1),
  collectCoverageFrom: ['src/**/*.ts'],
  coverageProvider: 'babel',
  // Longer than a test waits for a few states, one after the other, so that it is the wait that says what was missing.
  testTimeout: 600_000,
}
