/**
 * A circuit breaker for AWS Lambda, as a Middy middleware.
 *
 * @module
 */

export type { StateToSet } from './batch-operations.ts'
export type { OperationContext } from './call-timeout.ts'
export {
  type CallExternal,
  type CallOptions,
  CircuitBreaker,
  type Circuits,
  type ForceOptions,
  type Operation,
  type StatesToSet,
  type Surroundings,
} from './circuit-breaker.ts'
export type { CircuitBreakerOptions, Mode, ServiceOptions, ServiceSettings } from './config.ts'
export { hasCode, hasName, hasStatus, isBreakableError, isBreakableResult } from './error-classification.ts'
export {
  BreakableResultError,
  CircuitBreakerError,
  type CircuitBreakerErrorCode,
  CircuitOpenError,
  CircuitStorageError,
  CircuitTimeoutError,
  ConcurrencyLimitError,
  ConfigurationError,
  type ConfigurationProblem,
  isBreakableResultError,
  isCircuitBreakerError,
  isCircuitOpenError,
  isCircuitStorageError,
  isCircuitTimeoutError,
  isConcurrencyLimitError,
  isConfigurationError,
  isUnknownServiceError,
  type RefusalReason,
  type StorageErrorKind,
  type StorageOperation,
  type TimeoutReason,
  UnknownServiceError,
} from './errors.ts'
export type {
  StateChange,
  StateChangeListener,
  StateChangeOptions,
  StateChangeReason,
  StorageErrorEvent,
  StorageErrorListener,
} from './events.ts'
export {
  type CircuitBreakerContext,
  type CircuitBreakerMiddleware,
  type CircuitBreakerProperties,
  circuitBreaker,
  circuitBreaker as default,
} from './middleware.ts'
export type { Runtime } from './runtime.ts'
export type { CircuitSnapshot } from './snapshot.ts'
export {
  type CircuitOverride,
  type CircuitRecord,
  type CircuitState,
  type CompareAndSet,
  type ExpectedVersion,
  emptyRecord,
  expiryOf,
  type FailureIncrement,
  type FailureSummary,
  type ICircuitStorage,
  type Lease,
  parseCircuitRecord,
  type WriteResult,
} from './storage/circuit-storage.ts'
export {
  CircuitBreakerStorageFactory,
  type StorageConfig,
  type StorageFactory,
  type StorageOption,
} from './storage/factory.ts'
export { MemoryCircuitStorage } from './storage/memory.ts'
