import { type AttributeValue, ConditionalCheckFailedException, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { marshall } from '@aws-sdk/util-dynamodb'
import { expect } from '@jest/globals'
import { mockClient } from 'aws-sdk-client-mock'
import { CircuitStorageError } from '../../../../src/errors.ts'
import type { CircuitRecord, Outcomes } from '../../../../src/storage/contract.ts'
import { DynamoDBCircuitStorage, type DynamoDBCircuitStorageOptions } from '../../../../src/storage/dynamodb/index.ts'
import { emptyRecord } from '../../../../src/storage/record.ts'

export const at = 1_700_000_000_001
/** 60 s after `at` the window ends, two days later the record may go: in whole seconds, rounded up. */
export const ttl = { N: '1700172861' }
export const key = { PK: { S: 'CIRCUIT#stripe' }, SK: { S: 'STATE' } }

export const credentials = { accessKeyId: 'local', secretAccessKey: 'local' }

export const slots = Array.from({ length: 16 }, (_, index) => `inc${index}`)
/** The ids of the latest additions move on by one. */
export const shifted = slots
  .map((slot, index) => `#${slot} = ${index === 0 ? ':id' : `if_not_exists(#${slots[index - 1]}, :none)`}`)
  .join(', ')
export const notCounted = slots.map((slot) => `#${slot} <> :id`).join(' AND ')

export const open: CircuitRecord = {
  ...emptyRecord('epoch-1', at),
  version: 'v2',
  generation: 1,
  state: 'OPEN',
  failureCount: 3,
  earlyCount: 1,
  reporterCount: 2,
  dismissals: 1.25,
  dismissedAt: at - 1,
  noise: 0.3,
  lastFailureAt: at,
  openedAt: at,
  retryAt: at + 10_000,
  resetTimeout: 10_000,
  trips: 1,
  lastFailure: { at, name: 'TimeoutError', code: undefined, status: 503 },
  transitions: ['t1'],
}

export const outcomes: Outcomes = { failures: 1, successes: 2, started: 3, early: 0, reporters: 1, at, id: 'i1' }

export function mocked(options: Partial<Omit<DynamoDBCircuitStorageOptions, 'client' | 'clientConfig'>> = {}) {
  const client = new DynamoDBClient({ region: 'eu-central-1', credentials })
  const aws = mockClient(client)
  return { client, aws, storage: new DynamoDBCircuitStorage({ tableName: 'app', ...options, client }) }
}

// biome-ignore lint/suspicious/noExplicitAny: the inputs of all commands, to be compared
export function inputs(aws: ReturnType<typeof mocked>['aws']): any[] {
  return aws.calls().map((call) => call.args[0].input)
}

export function keyOf(service: string): typeof key {
  return { ...key, PK: { S: `CIRCUIT#${service}` } }
}

export function itemOf(record: CircuitRecord): Record<string, AttributeValue> {
  return { ...key, ...marshall(record, { removeUndefinedValues: true }) }
}

export function namesOf(...fields: string[]): Record<string, string> {
  return Object.fromEntries(fields.map((field) => [`#${field}`, field]))
}

export function refusal(Item?: Record<string, AttributeValue>, attempts = 1): ConditionalCheckFailedException {
  return new ConditionalCheckFailedException({
    message: 'The conditional request failed',
    $metadata: { attempts },
    ...(Item && { Item }),
  })
}

export function serviceError(name: string, message: string): Error {
  return Object.assign(new Error(message), { name, $fault: 'client', $metadata: { httpStatusCode: 400 } })
}

export async function rejectionOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error).toBeInstanceOf(CircuitStorageError)
  return error
}
