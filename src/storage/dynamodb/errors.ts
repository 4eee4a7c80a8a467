/**
 * The errors of DynamoDB and of the AWS SDK: what kind each is, and what to do about it.
 *
 * @module
 */

import type { DynamoDBServiceException } from '@aws-sdk/client-dynamodb'
import { CircuitStorageError, type StorageErrorKind, type StorageOperation } from '../../errors.ts'
import type { Table } from './options.ts'

/** The requests that the storage sends. */
export type Action = 'GetItem' | 'BatchGetItem' | 'UpdateItem' | 'DeleteItem' | 'BatchWriteItem' | 'Query' | 'Scan'

/** The operation that an error is attributed to, and the circuit if it concerns one alone. */
export interface Context {
  readonly operation: StorageOperation
  readonly service?: string
}

export interface KeyContext extends Context {
  readonly service: string
}

/** The error of a request that failed. */
export function requestError(cause: unknown, context: Context, action: Action, table: Table): CircuitStorageError {
  const subject = context.service === undefined ? '' : ` of ${JSON.stringify(context.service)}`
  const message = `${context.operation}${subject} failed: ${adviceOn(cause, action, table)}`
  return new CircuitStorageError(message, { ...context, kind: kindOf(cause), cause })
}

/** The error of a batch that the table was too busy to finish. */
export function unprocessedError(operation: StorageOperation, attempts: number): CircuitStorageError {
  return new CircuitStorageError(
    `${operation} failed: the table is throttled and left circuits unprocessed ${attempts} times. Give it more ` +
      'capacity, or make it on-demand.',
    { operation, kind: 'throttled' },
  )
}

/** The error about an item that cannot be decoded at all. */
export function undecodableError({ operation, service }: KeyContext, cause: unknown): CircuitStorageError {
  return new CircuitStorageError(
    `The record stored for ${JSON.stringify(service)} is damaged: it cannot be decoded. It is left as it is and ` +
      'this instance decides alone; reset() repairs it.',
    { operation, service, corrupt: true, cause },
  )
}

const throttling: ReadonlySet<string> = new Set([
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'ThrottlingException',
])

const wrongCredentials: ReadonlySet<string> = new Set([
  'ExpiredTokenException',
  'IncompleteSignatureException',
  'InvalidSignatureException',
  'MissingAuthenticationTokenException',
  'UnrecognizedClientException',
])

/** The names of errors against which waiting does not help. */
const misconfigured: ReadonlySet<string> = new Set([
  ...wrongCredentials,
  'AccessDeniedException',
  'ResourceNotFoundException',
])

function kindOf(error: unknown): StorageErrorKind {
  const { name, $metadata } = error as Partial<DynamoDBServiceException>
  if (throttling.has(String(name)) || $metadata?.httpStatusCode === 429) return 'throttled'
  if (misconfigured.has(String(name)) || isAboutKeys(error) || isAboutSize(error)) return 'misconfigured'
  return lacksRegion(error) || lacksCredentials(error) ? 'misconfigured' : 'unavailable'
}

/** Whether the SDK, before it sends anything, finds no region or one that cannot be. */
function lacksRegion(error: unknown): boolean {
  const { message, $fault } = error as Partial<DynamoDBServiceException>
  return $fault === undefined && /^Region (is missing|not accepted)/.test(String(message))
}

/** Whether the SDK, before it sends anything, finds no credentials. */
function lacksCredentials(error: unknown): boolean {
  const { name, message, $fault } = error as Partial<DynamoDBServiceException>
  return $fault === undefined && (/ProviderError$/.test(String(name)) || /^Resolved credential/.test(String(message)))
}

/** Whether the item would be larger than DynamoDB takes. A circuit's own attributes never are. */
function isAboutSize(error: unknown): boolean {
  const { name, message } = error as Partial<Error>
  return name === 'ValidationException' && /\bitem size\b/i.test(String(message))
}

/** Whether the table has another key schema than the options say, or an index whose key our attributes do not fit. */
function isAboutKeys(error: unknown): boolean {
  const { name, message } = error as Partial<Error>
  return name === 'ValidationException' && /\bkeys?\b/i.test(String(message))
}

/**
 * Says what happened and what to do about it. It repeats DynamoDB's own words only where they are about the request:
 * those about signatures can hold the session token. `cause` has them all.
 */
function adviceOn(error: unknown, action: Action, table: Table): string {
  const { name, message, code, $fault, $metadata } = error as Partial<DynamoDBServiceException> & {
    code?: string
  }
  const tableName = JSON.stringify(table.tableName)
  if (name === 'ResourceNotFoundException') {
    return `the table ${tableName} does not exist in the client's account and region. Create it, or correct tableName or the region.`
  }
  if (name === 'AccessDeniedException') {
    return `this function's role may not do dynamodb:${action} on the table ${tableName}. Allow it in the role's policy.`
  }
  if (isAboutKeys(error) && /index key/i.test(String(message))) {
    return (
      `an index of the table ${tableName} has a key with the name of an attribute of a circuit's item, but of another type. ` +
      `Use another table for the circuits, or name that key otherwise. DynamoDB: ${message}`
    )
  }
  if (isAboutKeys(error)) {
    const sortKey = table.sortKeyName === null ? 'no sort key' : `the sort key ${JSON.stringify(table.sortKeyName)}`
    return (
      `the key schema of the table ${tableName} does not match partitionKeyName/sortKeyName, which say that it has the ` +
      `partition key ${JSON.stringify(table.partitionKeyName)} and ${sortKey}, strings. DynamoDB: ${message}`
    )
  }
  if (isAboutSize(error)) {
    return (
      `the circuit's item in the table ${tableName} has no room left, of 400 KB at most. Remove the attributes that others ` +
      'have added to it.'
    )
  }
  if (name === 'ValidationException') return `DynamoDB refused the ${action} on the table ${tableName}: ${message}`
  if (throttling.has(String(name))) {
    return `the table ${tableName} is throttled (${name}). Give it more capacity, or make it on-demand.`
  }
  if (wrongCredentials.has(String(name))) {
    return `DynamoDB does not accept the credentials of the client (${name}). Correct or renew them.`
  }
  // The message of these is this package's own.
  if (/^AssumedRole/.test(String(name))) return String(message)
  if (lacksRegion(error)) {
    return `the client has no valid region (${message}). Set AWS_REGION, which Lambda does by itself, or the region of the client.`
  }
  if (lacksCredentials(error)) {
    return (
      `the client finds no credentials (${namesOf(error)}). Lambda gives a function those of its role; elsewhere set ` +
      'AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.'
    )
  }
  if ($fault) return `DynamoDB answered the ${action} with ${name} (HTTP ${$metadata?.httpStatusCode ?? 'unknown'}).`
  return `the ${action} did not succeed: ${name ?? 'Error'}: ${message || code || 'no message'}`
}

/** The names and codes of an error and its causes. Their messages can hold secrets, for instance a command and its output. */
function namesOf(error: unknown): string {
  const names: string[] = []
  for (let each = error; each instanceof Error && names.length < 4; each = each.cause) {
    const { name, code } = each as { readonly name: string; readonly code?: unknown }
    names.push(code === undefined ? name : `${name} ${code}`)
  }
  return names.join(', because of ')
}
