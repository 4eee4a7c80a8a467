/**
 * For tests: the conformance suite of storage adapters, and a Lambda context for handlers.
 *
 * @module
 */

export { circuitRecord, type StorageSuiteOptions, type StorageSuiteRunner } from './storage-suite/bench.ts'
export { testCircuitStorage } from './storage-suite/index.ts'
export { createTestContext, type TestContextOptions } from './test-context.ts'
