/**
 * For tests: the conformance suite of storage adapters, and a Lambda context for handlers.
 *
 * @module
 */

export {
  circuitRecord,
  type StorageSuiteOptions,
  type StorageSuiteRunner,
  testCircuitStorage,
} from './storage-suite.ts'
export { createTestContext, type TestContextOptions } from './test-context.ts'
