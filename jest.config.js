import { availableParallelism } from 'node:os'

/** Jest runs the TypeScript sources as ES modules (Middy is ESM only), compiled by SWC. */
export default {
  testEnvironment: 'node',
  // Many tests wait for servers and processes of their own, so that two at a time pay also on two processors.
  maxWorkers: Math.max(2, availableParallelism() - 1),
  testMatch: ['<rootDir>/__tests__/**/*.test.ts'],
  // Lambda's runtime client can be built on Linux only.
  testPathIgnorePatterns: ['/node_modules/', ...(process.platform === 'linux' ? [] : ['/__tests__/lambda/'])],
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
    '^middy-circuit-breaker/testing$': '<rootDir>/src/testing/index.ts',
    '^middy-circuit-breaker/(dynamodb|redis)$': '<rootDir>/src/storage/$1.ts',
  },
  collectCoverageFrom: ['src/**/*.ts'],
  coverageProvider: 'babel',
  testTimeout: 30_000,
}
