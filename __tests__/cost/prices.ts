/**
 * List prices, in US dollars. They change: look them up at their sources before you rely on them.
 *
 * @module
 */

export const region = 'US East (N. Virginia)'
/**
 * When they were read from AWS's price list and pages. In November 2026 nothing that was published said otherwise; the
 * pages themselves were out of reach.
 */
export const pricesAsOf = 'July 2026'

/** DynamoDB, table class Standard, on demand, per million units: https://aws.amazon.com/dynamodb/pricing/on-demand/ */
export const onDemand = { millionReadUnits: 0.125, millionWriteUnits: 0.625 } as const

/** DynamoDB, provisioned, per unit and hour: https://aws.amazon.com/dynamodb/pricing/provisioned/ */
export const provisioned = { readUnitHour: 0.00013, writeUnitHour: 0.00065 } as const

/** ElastiCache Serverless for Valkey: https://aws.amazon.com/elasticache/pricing/ */
export const valkeyServerless = { millionEcpus: 0.0023, gigabyteHour: 0.084, leastGigabytes: 0.1 } as const

/** Lambda, per million requests, without what their duration costs: https://aws.amazon.com/lambda/pricing/ */
export const millionInvocations = 0.2

/** Hours in a month, as AWS reckons. */
export const hoursPerMonth = 730
