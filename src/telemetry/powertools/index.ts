/**
 * Tells Powertools for AWS Lambda of circuits: metrics in the embedded metric format, and structured log lines. It imports
 * nothing of Powertools: it uses the instances that it is given.
 *
 * @module
 */

export { type CircuitLogs, type CircuitLogsOptions, logCircuits, type PowertoolsLogger } from './logs.ts'
export { type CircuitMetrics, type CircuitMetricsOptions, measureCircuits, type PowertoolsMetrics } from './metrics.ts'
