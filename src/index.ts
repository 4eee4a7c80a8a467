/// <reference types="node" preserve="true" />
/**
 * A circuit breaker for AWS Lambda, as a Middy middleware.
 *
 * @module
 */

import './supported-node.ts'

// Also for declarations that a compiler writes: where `@types/aws-lambda` is not in reach of the code itself, as with pnpm, it names
// the context of a handler by this export.
export type { Context as LambdaContext } from 'aws-lambda'
export type { CallExternal } from './call/call-external.ts'
export type { CallOptions, KeyedCallOptions, Operation } from './call/call-options.ts'
export type { OperationContext } from './call/operation-context.ts'
export type { CheckOptions } from './check.ts'
export type { CircuitSnapshot, Circuits, KeyedCircuits } from './circuit/snapshot.ts'
export { CircuitBreaker } from './circuit-breaker.ts'
export {
  BreakableResultError,
  CircuitBreakerError,
  type CircuitBreakerErrorCode,
  type CircuitName,
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
  type MiddyCause,
  type RefusalReason,
  type StorageErrorKind,
  type StorageOperation,
  type TimeoutReason,
  UnknownServiceError,
} from './errors.ts'
export type {
  Evidence,
  StateChange,
  StateChangeListener,
  StateChangeOptions,
  StateChangeReason,
  StorageErrorEvent,
  StorageErrorListener,
} from './events.ts'
export {
  hasCode,
  hasName,
  hasStatus,
  isBreakableError,
  isBreakableResult,
  type Outcome,
} from './failures/classification.ts'
export {
  type CircuitBreakerContext,
  type CircuitBreakerMiddleware,
  type CircuitBreakerProperties,
  circuitBreaker,
  circuitBreaker as default,
  circuitBreakerValidateOptions,
  type Internal,
  type KeyBy,
  type KeyByOption,
} from './middleware.ts'
export type { ForceOptions, JournalOptions, KeyOption, OperatorOptions, StatesToSet, StateToSet } from './operators.ts'
export type { Runtime } from './runtime.ts'
export type { MiddyOptions } from './settings/middy-options.ts'
export type {
  CircuitBreakerOptions,
  IsBreakableError,
  IsBreakableResult,
  KeyedOptions,
  KeyedServices,
  KeyedSettings,
  Mode,
  NoKeys,
  ServiceOptions,
  ServiceSettings,
  SharedOptions,
} from './settings/table.ts'
export type {
  CircuitOverride,
  CircuitPage,
  CircuitRecord,
  CircuitState,
  CompareAndSet,
  ExpectedVersion,
  FailureSummary,
  Finding,
  FindingCode,
  ICircuitStorage,
  JournalEntry,
  JournalQuery,
  Lease,
  ListQuery,
  OperatorWords,
  Outcomes,
  StorageInspection,
  WriteResult,
} from './storage/contract.ts'
export {
  CircuitBreakerStorageFactory,
  type StorageConfig,
  type StorageFactory,
  type StorageOption,
} from './storage/factory.ts'
export { MemoryCircuitStorage } from './storage/memory.ts'
export { emptyRecord, expiryOf, parseCircuitRecord } from './storage/record.ts'
export type { CallEvent, CircuitChannels, RefusedEvent, StoreEvent } from './telemetry/channels.ts'
export type { CircuitBreakerWarningCode } from './warnings.ts'
