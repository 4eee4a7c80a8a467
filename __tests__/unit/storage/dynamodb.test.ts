import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  type AttributeValue,
  BatchGetItemCommand,
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  type DynamoDBClientConfig,
  GetItemCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'
import { describe, expect, it, jest } from '@jest/globals'
import { mockClient } from 'aws-sdk-client-mock'
import { CircuitStorageError, ConfigurationError } from '../../../src/errors.ts'
import { type CircuitRecord, emptyRecord } from '../../../src/storage/circuit-storage.ts'
import { DynamoDBCircuitStorage, type DynamoDBCircuitStorageOptions } from '../../../src/storage/dynamodb.ts'
import { patientDynamoDB } from '../../support/patience.ts'

const at = 1_700_000_000_001
/** 60 s after `at` the record stops to matter, a day later it may go: in whole seconds, rounded up. */
const ttl = { N: '1700086461' }
const key = { PK: { S: 'CIRCUIT#stripe' }, SK: { S: 'STATE' } }
const credentials = { accessKeyId: 'local', secretAccessKey: 'local' }

const slots = Array.from({ length: 16 }, (_, index) => `inc${index}`)
/** The ids of the latest increments move on by one. */
const shifted = slots
  .map((slot, index) => `#${slot} = ${index === 0 ? ':id' : `if_not_exists(#${slots[index - 1]}, :none)`}`)
  .join(', ')
const notCounted = slots.map((slot) => `#${slot} <> :id`).join(' AND ')

const open: CircuitRecord = {
  ...emptyRecord('epoch-1', at),
  version: 'v2',
  generation: 1,
  state: 'OPEN',
  failureCount: 3,
  lastFailureAt: at,
  openedAt: at,
  retryAt: at + 10_000,
  resetTimeout: 10_000,
  trips: 1,
  lastFailure: { at, name: 'TimeoutError', code: undefined, status: 503 },
  transitions: ['t1'],
}

describe('the options', () => {
  it('are all checked at once, each problem with the name, the value and what is allowed', () => {
    const options = {
      tableName: 'no table',
      partitionKeyName: '',
      sortKeyName: 'state',
      sortKeyValue: '',
      ttlAttributeName: 7,
      consistentRead: 'yes',
      client: {},
      clientConfig: 'eu-west-1',
      tabelName: ['x'],
    }
    const error = thrownBy(() => new DynamoDBCircuitStorage(options as never))
    expect(error).toBeInstanceOf(ConfigurationError)
    expect(error.problems.map((problem) => problem.setting).sort()).toEqual([...Object.keys(options), 'client'].sort())
    expect(error.message).toContain(
      'tabelName is not an option of the DynamoDB storage; did you mean tableName? (option)',
    )
    expect(error.message).toContain('but is "no table" (option)')
    expect(error.message).toContain('that no field of a circuit record has, but is "state" (option)')
    expect(error.message).toContain('client and clientConfig exclude each other')
  })

  it('are named in the error, but not repeated where they can hold secrets', () => {
    const clientConfig = { credentials: { secretAccessKey: 'SECRET' } }
    const client = { secretAccessKey: 'SECRET' }
    const error = thrownBy(() => new DynamoDBCircuitStorage({ tableName: 'app', client, clientConfig } as never))
    expect(JSON.stringify(error.problems)).not.toContain('SECRET')
  })

  it.each([undefined, null, 'app', []])('must be an object, not %p', (options) => {
    expect(thrownBy(() => new DynamoDBCircuitStorage(options as never)).problems).toMatchObject([
      { setting: 'options' },
    ])
  })

  it.each([
    ['options', undefined, 'an object with at least tableName'],
    ['tableName', 777, 'the name of a table (3 to 255 letters, digits, "_", "-", ".") or its ARN'],
    ['tableName', 'app!', 'the name of a table (3 to 255 letters, digits, "_", "-", ".") or its ARN'],
    [
      'ttlAttributeName',
      'x'.repeat(256),
      'the name of an attribute, at most 255 bytes, that no field of a circuit record has',
    ],
    ['sortKeyName', 'PK', 'different from the names of the other two attributes'],
    ['sortKeyValue', 'x'.repeat(1_025), expect.stringMatching(/, at most 1024 bytes$/)],
    ['consistentRead', 1, 'true or false'],
    ['client', {}, 'a DynamoDBClient of @aws-sdk/client-dynamodb'],
    ['clientConfig', 1, 'the configuration of a DynamoDBClient'],
  ])('say of %s what is allowed: %p is not', (setting, value, allowed) => {
    const options = setting === 'options' ? value : { tableName: 'app', [setting]: value }
    const { problems } = thrownBy(() => new DynamoDBCircuitStorage(options as never))
    const problem = problems.find((one) => one.setting === setting)
    expect(problem?.source).toBe('option')
    expect(/must be (.*), but is /s.exec(problem?.message ?? '')?.[1]).toEqual(allowed)
  })

  it('say that client and clientConfig exclude each other', () => {
    const options = { tableName: 'app', client: { send: () => {} }, clientConfig: {} }
    expect(thrownBy(() => new DynamoDBCircuitStorage(options as never)).problems).toEqual([
      expect.objectContaining({ setting: 'client', source: 'option' }),
    ])
  })

  it('must name three different attributes', () => {
    const error = thrownBy(() => new DynamoDBCircuitStorage({ tableName: 'app', sortKeyName: 'PK' }))
    expect(error.problems.map((problem) => problem.setting)).toEqual(['partitionKeyName', 'sortKeyName'])
  })

  it.each<DynamoDBCircuitStorageOptions>([
    { tableName: 'app' },
    { tableName: 'arn:aws:dynamodb:eu-central-1:123456789012:table/app', sortKeyName: null },
    { tableName: 'app', clientConfig: { region: 'eu-central-1' }, consistentRead: false, sortKeyValue: 'S' },
    { tableName: 'app', client: undefined, partitionKeyName: undefined },
    { tableName: 'app', ttlAttributeName: 'x'.repeat(255), sortKeyValue: 'x'.repeat(1_024) },
  ])('may be %j', (options) => {
    expect(() => new DynamoDBCircuitStorage(options)).not.toThrow()
  })
})

describe('the requests', () => {
  it('read one item, consistently', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: itemOf(open) })
    await expect(storage.getState('stripe')).resolves.toEqual(open)
    expect(inputs(aws)).toEqual([{ TableName: 'app', Key: key, ConsistentRead: true }])
  })

  it('use the names of the table that is given', async () => {
    const { storage, aws } = mocked({
      partitionKeyName: 'id',
      sortKeyName: null,
      ttlAttributeName: 'expires',
      consistentRead: false,
    })
    aws.on(GetItemCommand).resolves({})
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await expect(storage.getState('stripe')).resolves.toBeUndefined()
    await storage.compareAndSetState('stripe', undefined, open)
    const [read, write] = inputs(aws)
    expect(read).toEqual({ TableName: 'app', Key: { id: { S: 'CIRCUIT#stripe' } }, ConsistentRead: false })
    expect(write).toMatchObject({
      Key: { id: { S: 'CIRCUIT#stripe' } },
      ExpressionAttributeNames: { '#pk': 'id', '#ttl': 'expires' },
    })
  })

  it('increment, and create a closed record, in one update', async () => {
    const { storage, aws } = mocked()
    const created = { ...emptyRecord('i1', at), failureCount: 2, lastFailureAt: at }
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(created) })
    await expect(storage.incrementFailures('stripe', undefined, { count: 2, at, id: 'i1' })).resolves.toEqual({
      applied: true,
      current: created,
    })
    expect(inputs(aws)).toEqual([
      {
        TableName: 'app',
        Key: key,
        UpdateExpression:
          `SET #lastFailureAt = :at, #updatedAt = :at, ${shifted}, #schema = if_not_exists(#schema, :schema), ` +
          '#epoch = if_not_exists(#epoch, :epoch), #generation = if_not_exists(#generation, :generation), ' +
          '#state = if_not_exists(#state, :state), #successCount = if_not_exists(#successCount, :successCount), ' +
          '#leases = if_not_exists(#leases, :leases), #trips = if_not_exists(#trips, :trips), ' +
          '#transitions = if_not_exists(#transitions, :transitions), #ttl = :ttl ADD #failureCount :count',
        ConditionExpression: `attribute_not_exists(#version) AND (attribute_not_exists(#pk) OR #schema = :schema) AND ${notCounted}`,
        ExpressionAttributeNames: {
          '#pk': 'PK',
          '#ttl': 'ttl',
          ...namesOf(...slots, 'failureCount', 'lastFailureAt', 'updatedAt', 'schema', 'epoch', 'generation', 'state'),
          ...namesOf('successCount', 'leases', 'trips', 'transitions', 'version'),
        },
        ExpressionAttributeValues: {
          ':count': { N: '2' },
          ':at': { N: String(at) },
          ':id': { S: 'i1' },
          ':none': { S: '' },
          ':schema': { N: '1' },
          ':epoch': { S: 'i1' },
          ':generation': { N: '0' },
          ':state': { S: 'CLOSED' },
          ':successCount': { N: '0' },
          ':leases': { L: [] },
          ':trips': { N: '0' },
          ':transitions': { L: [] },
          ':ttl': ttl,
        },
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      },
    ])
  })

  it('increment a record of a known version, and only that', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await storage.incrementFailures('stripe', 'v2', { count: 1, at, id: 'i1' })
    expect(inputs(aws)).toEqual([
      {
        TableName: 'app',
        Key: key,
        UpdateExpression: `SET #lastFailureAt = :at, #updatedAt = :at, ${shifted}, #ttl = :ttl ADD #failureCount :count`,
        ConditionExpression: `#version = :expected AND ${notCounted} AND #ttl <= :ttl`,
        ExpressionAttributeNames: {
          '#ttl': 'ttl',
          ...namesOf(...slots, 'failureCount', 'lastFailureAt', 'updatedAt', 'version'),
        },
        ExpressionAttributeValues: {
          ':count': { N: '1' },
          ':at': { N: String(at) },
          ':id': { S: 'i1' },
          ':none': { S: '' },
          ':ttl': ttl,
          ':expected': { S: 'v2' },
        },
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      },
    ])
  })

  it('replace every field, remove what the new record lacks, and forget the increments', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: true, current: open })
    expect(inputs(aws)).toEqual([
      {
        TableName: 'app',
        Key: key,
        UpdateExpression:
          'SET #schema = :schema, #version = :version, #epoch = :epoch, #generation = :generation, #state = :state, ' +
          '#failureCount = :failureCount, #lastFailureAt = :lastFailureAt, #successCount = :successCount, ' +
          '#openedAt = :openedAt, #retryAt = :retryAt, #resetTimeout = :resetTimeout, #leases = :leases, ' +
          '#trips = :trips, #lastFailure = :lastFailure, #transitions = :transitions, #updatedAt = :updatedAt, ' +
          `#ttl = :ttl REMOVE #override, ${slots.map((slot) => `#${slot}`).join(', ')}`,
        ConditionExpression: '#version = :expected',
        ExpressionAttributeNames: { '#ttl': 'ttl', ...namesOf(...Object.keys(emptyRecord('', 0)), ...slots) },
        ExpressionAttributeValues: {
          ':expected': { S: 'v1' },
          ':schema': { N: '1' },
          ':version': { S: 'v2' },
          ':epoch': { S: 'epoch-1' },
          ':generation': { N: '1' },
          ':state': { S: 'OPEN' },
          ':failureCount': { N: '3' },
          ':lastFailureAt': { N: String(at) },
          ':successCount': { N: '0' },
          ':openedAt': { N: String(at) },
          ':retryAt': { N: String(at + 10_000) },
          ':resetTimeout': { N: '10000' },
          ':leases': { L: [] },
          ':trips': { N: '1' },
          ':lastFailure': { M: { at: { N: String(at) }, name: { S: 'TimeoutError' }, status: { N: '503' } } },
          ':transitions': { L: [{ S: 't1' }] },
          ':updatedAt': { N: String(at) },
          ':ttl': ttl,
        },
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      },
    ])
  })

  it('write the first version only where there is none, and never over what is no circuit record', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await storage.compareAndSetState('stripe', undefined, open)
    expect(inputs(aws)).toMatchObject([
      {
        ConditionExpression: 'attribute_not_exists(#version) AND (attribute_not_exists(#pk) OR #schema = :schema)',
        ExpressionAttributeNames: { '#pk': 'PK' },
      },
    ])
  })

  it('take the time to live away while an override is set', async () => {
    const { storage, aws } = mocked()
    const forced: CircuitRecord = { ...open, override: { state: 'OPEN', at } }
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(forced) })
    await storage.compareAndSetState('stripe', 'v1', forced)
    const [input] = inputs(aws)
    expect(input.UpdateExpression).toMatch(/ REMOVE .*#inc15, #ttl$/)
    expect(input.ExpressionAttributeValues).not.toHaveProperty(':ttl')
  })

  it('delete one item', async () => {
    const { storage, aws } = mocked()
    aws.on(DeleteItemCommand).resolves({})
    await expect(storage.clearState('stripe')).resolves.toBeUndefined()
    expect(inputs(aws)).toEqual([{ TableName: 'app', Key: key }])
  })
})

describe('a condition that does not hold', () => {
  it('resolves with the item that came with the refusal', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).rejects(refusal(itemOf(open)))
    await expect(storage.compareAndSetState('stripe', 'v1', { ...open, version: 'v3' })).resolves.toEqual({
      applied: false,
      current: open,
    })
    await expect(storage.incrementFailures('stripe', 'v1', { count: 1, at, id: 'i1' })).resolves.toEqual({
      applied: false,
      current: open,
    })
    expect(aws.commandCalls(GetItemCommand)).toHaveLength(0)
  })

  it('reads the item, consistently, when the refusal came without', async () => {
    const { storage, aws } = mocked({ consistentRead: false })
    aws.on(UpdateItemCommand).rejects(refusal())
    aws
      .on(GetItemCommand)
      .resolvesOnce({ Item: itemOf(open) })
      .resolves({})
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: false, current: open })
    await expect(storage.incrementFailures('stripe', 'v1', { count: 1, at, id: 'i1' })).resolves.toEqual({
      applied: false,
      current: undefined,
    })
    expect(aws.commandCalls(GetItemCommand, { ConsistentRead: true })).toHaveLength(2)
  })

  it('is recognised in an increment that was counted before, whether or not the refusal brings the item', async () => {
    const { storage, aws } = mocked()
    const Item = { ...itemOf(open), inc7: { S: 'i1' } }
    aws.on(UpdateItemCommand).rejectsOnce(refusal(Item)).rejects(refusal())
    aws.on(GetItemCommand).resolves({ Item })
    const increment = { count: 1, at, id: 'i1' }
    await expect(storage.incrementFailures('stripe', 'v2', increment)).resolves.toEqual({
      applied: true,
      current: open,
    })
    await expect(storage.incrementFailures('stripe', 'v2', increment)).resolves.toEqual({
      applied: true,
      current: open,
    })
  })

  it('is no success of an increment that another version refused, even if its id is in the item', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).rejects(refusal({ ...itemOf(open), inc7: { S: 'i1' } }))
    await expect(storage.incrementFailures('stripe', undefined, { count: 1, at, id: 'i1' })).resolves.toMatchObject({
      applied: false,
    })
  })

  it('without a version, and without a reason, is refused and not guessed about', async () => {
    const { storage, aws } = mocked()
    const unversioned = { ...open, version: undefined }
    aws.on(UpdateItemCommand).rejects(refusal(itemOf(unversioned)))
    await expect(storage.incrementFailures('stripe', undefined, { count: 1, at, id: 'i1' })).resolves.toEqual({
      applied: false,
      current: unversioned,
    })
    expect(inputs(aws)).toHaveLength(1)
  })

  it('because the record has another time to live, or none, counts and leaves it alone', async () => {
    const { storage, aws } = mocked()
    const forced: CircuitRecord = { ...open, override: { state: 'CLOSED', at, until: at + 1 } }
    const counted = { ...forced, failureCount: 4 }
    aws
      .on(UpdateItemCommand)
      .rejectsOnce(refusal(itemOf(forced)))
      .resolves({ Attributes: itemOf(counted) })
    await expect(storage.incrementFailures('stripe', 'v2', { count: 1, at, id: 'i1' })).resolves.toEqual({
      applied: true,
      current: counted,
    })
    expect(inputs(aws)[1]).toMatchObject({
      UpdateExpression: `SET #lastFailureAt = :at, #updatedAt = :at, ${shifted} ADD #failureCount :count`,
      ConditionExpression: `#version = :expected AND ${notCounted}`,
    })
    expect(inputs(aws)[1].ExpressionAttributeNames).not.toHaveProperty('#ttl')
  })

  it('twice, because a copy of the increment was faster, is still recognised', async () => {
    const { storage, aws } = mocked()
    aws
      .on(UpdateItemCommand)
      .rejectsOnce(refusal(itemOf(open)))
      .rejects(refusal({ ...itemOf(open), inc7: { S: 'i1' } }))
    await expect(storage.incrementFailures('stripe', 'v2', { count: 1, at, id: 'i1' })).resolves.toEqual({
      applied: true,
      current: open,
    })
  })

  it('after the SDK sent the write again is a success if what is stored is what was written', async () => {
    const { storage, aws } = mocked()
    aws
      .on(UpdateItemCommand)
      .rejectsOnce(refusal(itemOf(open), 2))
      .rejects(refusal(itemOf(open), 1))
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: true, current: open })
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: false, current: open })
  })

  it('of something that is no circuit record rejects as damage', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).rejects(refusal({ ...key, schema: { N: '2' } }))
    await expect(storage.compareAndSetState('stripe', undefined, open)).rejects.toMatchObject({
      name: 'CircuitStorageError',
      operation: 'compareAndSetState',
      service: 'stripe',
      corrupt: true,
    })
  })
})

describe('a damaged item', () => {
  it('rejects a read', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), state: { S: 'AJAR' } } })
    await expect(storage.getState('stripe')).rejects.toMatchObject({ corrupt: true, operation: 'getState' })
  })

  it('rejects also where an attribute cannot be decoded at all', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), trips: { N: '1e300' } } })
    await expect(storage.getState('stripe')).rejects.toMatchObject({ corrupt: true, cause: expect.any(Error) })
  })

  it('is not seen in attributes that are not ours', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), mine: { N: '1e300' } } })
    await expect(storage.getState('stripe')).resolves.toEqual(open)
  })

  it('is found behind an update that DynamoDB finds malformed', async () => {
    const { storage, aws } = mocked()
    const cause = serviceError('ValidationException', 'An operand in the update expression has an incorrect data type')
    aws.on(UpdateItemCommand).rejects(cause)
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), failureCount: { S: '3' } } })
    await expect(storage.incrementFailures('stripe', 'v2', { count: 1, at, id: 'i1' })).rejects.toMatchObject({
      corrupt: true,
      operation: 'incrementFailures',
      service: 'stripe',
      cause,
    })
  })

  it.each([
    ['the record is sound', { Item: itemOf(open) }],
    ['the record cannot be read', new Error('gone')],
  ])('is not assumed when %s', async (_, answer) => {
    const { storage, aws } = mocked()
    const cause = serviceError('ValidationException', 'Item size has exceeded the maximum allowed size')
    aws.on(UpdateItemCommand).rejects(cause)
    if (answer instanceof Error) aws.on(GetItemCommand).rejects(answer)
    else aws.on(GetItemCommand).resolves(answer)
    await expect(storage.incrementFailures('stripe', 'v2', { count: 1, at, id: 'i1' })).rejects.toMatchObject({
      corrupt: false,
      cause,
      message: expect.stringContaining('DynamoDB refused the UpdateItem on the table "app": Item size'),
    })
  })

  it('is never written: a number that DynamoDB cannot hold rejects', async () => {
    const { storage, aws } = mocked()
    await expect(storage.compareAndSetState('stripe', 'v1', { ...open, retryAt: Number.NaN })).rejects.toMatchObject({
      name: 'CircuitStorageError',
      message: expect.stringContaining('NaN'),
    })
    expect(inputs(aws)).toHaveLength(0)
  })
})

describe('a batch of reads', () => {
  it('sends each key once, a hundred at a time', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchGetItemCommand).callsFake(({ RequestItems }) => ({
      Responses: { app: RequestItems.app.Keys.map((k: typeof key) => ({ ...itemOf(open), ...k })) },
    }))
    const keys = Array.from({ length: 201 }, (_, index) => `s${index}`)
    const records = await storage.batchGetState([...keys, ...keys])
    expect([...records.keys()].sort()).toEqual([...keys].sort())
    expect(inputs(aws).map((input) => input.RequestItems.app.Keys.length)).toEqual([100, 100, 1])
    expect(inputs(aws)[2]).toEqual({
      RequestItems: { app: { Keys: [{ PK: { S: 'CIRCUIT#s200' }, SK: { S: 'STATE' } }], ConsistentRead: true } },
    })
  })

  it('sends nothing for no keys', async () => {
    const { storage, aws } = mocked()
    await expect(storage.batchGetState([])).resolves.toEqual(new Map())
    expect(inputs(aws)).toHaveLength(0)
  })

  it('asks again for what was left unprocessed, and leaves out what is not stored', async () => {
    const { storage, aws } = mocked()
    aws
      .on(BatchGetItemCommand)
      .resolvesOnce({ UnprocessedKeys: { app: { Keys: [key] } } })
      .resolvesOnce({ Responses: { app: [itemOf(open)] }, UnprocessedKeys: {} })
    await expect(storage.batchGetState(['stripe', 'paypal'])).resolves.toEqual(new Map([['stripe', open]]))
    expect(inputs(aws)[1].RequestItems.app.Keys).toEqual([key])
  })

  it('gives up after four times, with what it has', async () => {
    const { storage, aws } = mocked()
    const UnprocessedKeys = { app: { Keys: [keyOf('paypal')] } }
    aws
      .on(BatchGetItemCommand)
      .resolvesOnce({ Responses: { app: [itemOf(open)] }, UnprocessedKeys })
      .resolves({ UnprocessedKeys })
    const error = await rejectionOf(storage.batchGetState(['stripe', 'paypal']))
    expect(error).toMatchObject({ operation: 'batchGetState', service: undefined, corrupt: false })
    expect(error.results).toEqual(new Map([['stripe', open]]))
    expect(error.errors?.get('paypal')).toMatchObject({
      service: 'paypal',
      message: expect.stringContaining('throttled'),
      kind: 'throttled',
    })
    expect(error.kind).toBe('throttled')
    expect(inputs(aws)).toHaveLength(4)
  })

  it('pauses before each repetition, twice as long each time, of which half is random', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchGetItemCommand).resolves({ UnprocessedKeys: { app: { Keys: [key] } } })
    const delays: unknown[] = []
    const timers = jest.spyOn(globalThis, 'setTimeout').mockImplementation(((callback: () => void, delay: number) => {
      delays.push(delay)
      queueMicrotask(callback)
    }) as never)
    const random = jest.spyOn(Math, 'random').mockReturnValue(0.5)
    try {
      await rejectionOf(storage.batchGetState(['stripe']))
    } finally {
      timers.mockRestore()
      random.mockRestore()
    }
    expect(delays).toEqual([37.5, 75, 150])
  })

  it('hands out the good records with the error about a damaged one', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchGetItemCommand).resolves({ Responses: { app: [itemOf(open), keyOf('paypal')] } })
    const error = await rejectionOf(storage.batchGetState(['stripe', 'paypal']))
    expect(error.corrupt).toBe(true)
    expect(error.results).toEqual(new Map([['stripe', open]]))
    expect([...(error.errors ?? [])]).toMatchObject([['paypal', { service: 'paypal', corrupt: true }]])
  })

  it('keeps the chunks that arrived when another failed', async () => {
    const { storage, aws } = mocked()
    const cause = serviceError('InternalServerError', 'Oops')
    aws
      .on(BatchGetItemCommand)
      .resolvesOnce({ Responses: { app: [itemOf(open)] } })
      .rejects(cause)
    const keys = ['stripe', ...Array.from({ length: 100 }, (_, index) => `s${index}`)]
    const error = await rejectionOf(storage.batchGetState(keys))
    expect(error.results).toEqual(new Map([['stripe', open]]))
    expect(error.cause).toBe(cause)
    expect([...(error.errors ?? [])]).toMatchObject([
      [
        's99',
        {
          service: 's99',
          cause,
          message: 'batchGetState failed: DynamoDB answered the BatchGetItem with InternalServerError (HTTP 400).',
        },
      ],
    ])
  })

  it('of one key names it', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchGetItemCommand).rejects(serviceError('InternalServerError', 'Oops'))
    await expect(storage.batchGetState(['stripe'])).rejects.toMatchObject({ service: 'stripe' })
  })
})

describe('a batch of writes', () => {
  it('gives one result per circuit, with at most 16 requests at once', async () => {
    const { storage, aws } = mocked()
    let inFlight = 0
    let most = 0
    aws.on(UpdateItemCommand).callsFake(async () => {
      most = Math.max(most, ++inFlight)
      await new Promise(setImmediate)
      inFlight--
      return { Attributes: itemOf(open) }
    })
    const writes = Array.from({ length: 40 }, (_, index) => ({ serviceKey: `s${index}`, version: 'v1', next: open }))
    const results = await storage.batchSetState(writes)
    expect(results.size).toBe(40)
    expect(results.get('s39')).toEqual({ applied: true, current: open })
    expect(most).toBe(16)
  })

  it('rejects in part, with the results that there are', async () => {
    const { storage, aws } = mocked()
    const cause = serviceError('InternalServerError', 'Oops')
    aws
      .on(UpdateItemCommand)
      .resolvesOnce({ Attributes: itemOf(open) })
      .rejectsOnce(refusal(itemOf(open)))
      .rejects(cause)
    const error = await rejectionOf(
      storage.batchSetState(['a', 'b', 'c'].map((serviceKey) => ({ serviceKey, version: 'v1', next: open }))),
    )
    expect(error).toMatchObject({ operation: 'batchSetState', service: undefined, corrupt: false, cause })
    expect(error.message).toMatch(/^batchSetState failed for 1 of 3 circuits; "c": batchSetState of "c" failed: /)
    expect(error.results).toEqual(
      new Map([
        ['a', { applied: true, current: open }],
        ['b', { applied: false, current: open }],
      ]),
    )
    expect([...(error.errors?.keys() ?? [])]).toEqual(['c'])
  })

  it('refuses a circuit that occurs twice, and sends nothing', async () => {
    const { storage, aws } = mocked()
    const write = { serviceKey: 'stripe', version: 'v1', next: open }
    await expect(storage.batchSetState([write, write])).rejects.toMatchObject({
      operation: 'batchSetState',
      service: 'stripe',
      message: expect.stringContaining('twice'),
    })
    expect(inputs(aws)).toHaveLength(0)
  })

  it('of nothing sends nothing', async () => {
    const { storage, aws } = mocked()
    await expect(storage.batchSetState([])).resolves.toEqual(new Map())
    await expect(storage.batchClearState([])).resolves.toBeUndefined()
    expect(inputs(aws)).toHaveLength(0)
  })
})

describe('a batch of deletions', () => {
  it('sends 25 at a time, and what was left unprocessed again', async () => {
    const { storage, aws } = mocked()
    const keys = Array.from({ length: 26 }, (_, index) => `s${index}`)
    const left = [{ DeleteRequest: { Key: keyOf('s3') } }]
    aws
      .on(BatchWriteItemCommand)
      .resolvesOnce({ UnprocessedItems: { app: left } })
      .resolves({})
    await expect(storage.batchClearState([...keys, 's0'])).resolves.toBeUndefined()
    expect(inputs(aws).map((input) => input.RequestItems.app.length)).toEqual([25, 1, 1])
    expect(inputs(aws)[2]).toEqual({ RequestItems: { app: left } })
  })

  it('rejects with the circuits that remain', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchWriteItemCommand).resolves({ UnprocessedItems: { app: [{ DeleteRequest: { Key: key } }] } })
    const error = await rejectionOf(storage.batchClearState(['stripe', 'paypal']))
    expect([...(error.errors?.keys() ?? [])]).toEqual(['stripe'])
    expect(error.results).toEqual(new Map([['paypal', true]]))
  })

  it('that DynamoDB refuses names what it was asked and which circuits remain', async () => {
    const { storage, aws } = mocked()
    aws.on(BatchWriteItemCommand).rejects(serviceError('InternalServerError', 'Oops'))
    const error = await rejectionOf(storage.batchClearState(['stripe']))
    expect(error.errors?.get('stripe')).toMatchObject({
      operation: 'batchClearState',
      message: 'batchClearState failed: DynamoDB answered the BatchWriteItem with InternalServerError (HTTP 400).',
    })
  })
})

describe('a deletion', () => {
  it('that DynamoDB refuses names what it was asked', async () => {
    const { storage, aws } = mocked()
    aws.on(DeleteItemCommand).rejects(serviceError('InternalServerError', 'Oops'))
    await expect(storage.clearState('stripe')).rejects.toThrow(
      'clearState of "stripe" failed: DynamoDB answered the DeleteItem with InternalServerError (HTTP 400).',
    )
  })
})

describe('the preparation', () => {
  it('makes the client and asks for nothing', async () => {
    const { storage, aws } = mocked()
    await storage.prepare()
    expect(inputs(aws)).toEqual([])
  })
})

describe('an error', () => {
  it.each([
    [
      'ResourceNotFoundException',
      'Requested resource not found',
      'the table "app" does not exist in the client\'s account and region',
    ],
    ['AccessDeniedException', 'arn:… is not authorized', 'may not do dynamodb:GetItem on the table "app"'],
    [
      'ValidationException',
      'The provided key element does not match the schema',
      'does not match partitionKeyName/sortKeyName, which say that it has the partition key "PK" and the sort key "SK"',
    ],
    [
      'ValidationException',
      'The update expression attempted to update the secondary index key to unsupported type',
      'an index of the table "app" has a key with the name of an attribute of a circuit\'s item, but of another type',
    ],
    [
      'ValidationException',
      'One or more parameter values were invalid: Type mismatch for Index Key updatedAt Expected: S Actual: N',
      'Use another table for the circuits, or name that key otherwise. DynamoDB: One or more',
    ],
    ['ProvisionedThroughputExceededException', 'Slow down', 'the table "app" is throttled'],
    [
      'UnrecognizedClientException',
      'The security token is invalid',
      'credentials of the client are missing or not accepted',
    ],
    ['InternalServerError', 'Oops', 'DynamoDB answered the GetItem with InternalServerError (HTTP 400)'],
  ])('%s says what to do', async (name, message, advice) => {
    const { storage, aws } = mocked()
    const cause = serviceError(name, message)
    aws.on(GetItemCommand).rejects(cause)
    const error = await rejectionOf(storage.getState('stripe'))
    expect(error).toMatchObject({ operation: 'getState', service: 'stripe', corrupt: false, cause })
    expect(error.message).toContain(`getState of "stripe" failed: `)
    expect(error.message).toContain(advice)
  })

  it.each([
    ['AccessDeniedException', 'misconfigured'],
    ['CredentialsProviderError', 'misconfigured'],
    ['ResourceNotFoundException', 'misconfigured'],
    ['UnrecognizedClientException', 'misconfigured'],
    ['ValidationException', 'unavailable'],
    ['ProvisionedThroughputExceededException', 'throttled'],
    ['RequestLimitExceeded', 'throttled'],
    ['ThrottlingException', 'throttled'],
    ['InternalServerError', 'unavailable'],
  ])('%s tells whether waiting helps: %s', async (name, kind) => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).rejects(serviceError(name, 'No.'))
    aws.on(BatchGetItemCommand).rejects(serviceError(name, 'No.'))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind })
    const error = await rejectionOf(storage.batchGetState(['stripe', 'paypal']))
    expect([error.kind, error.errors?.get('stripe')?.kind]).toEqual([kind, kind])
  })

  it('about keys does not pass by itself', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).rejects(serviceError('ValidationException', 'Missing the key PK in the item'))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind: 'misconfigured' })
    aws.on(GetItemCommand).rejects(serviceError('InternalServerError', 'Missing the key PK in the item'))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind: 'unavailable' })
  })

  it('of HTTP 429 is a throttled table, whatever its name', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).rejects(Object.assign(serviceError('Odd', 'No.'), { $metadata: { httpStatusCode: 429 } }))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind: 'throttled' })
    aws.on(GetItemCommand).rejects(Object.assign(new Error('No.'), { $metadata: undefined }))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind: 'unavailable' })
  })

  it('about the keys of a table without a sort key says so', async () => {
    const { storage, aws } = mocked({ sortKeyName: null })
    aws.on(GetItemCommand).rejects(serviceError('ValidationException', 'The provided key element does not match'))
    await expect(storage.getState('stripe')).rejects.toThrow('the partition key "PK" and no sort key')
  })

  it('of the network is told as it is', async () => {
    const { storage, aws } = mocked()
    const refused = (message: string, more: object) => Object.assign(new Error(message), more)
    aws
      .on(GetItemCommand)
      .rejectsOnce(refused('', { name: 'AggregateError', code: 'ECONNREFUSED' }))
      .rejectsOnce(refused('', { name: '' }))
      .rejectsOnce(refused('', { name: undefined }))
    await expect(storage.getState('stripe')).rejects.toThrow('did not succeed: AggregateError: ECONNREFUSED')
    await expect(storage.getState('stripe')).rejects.toThrow('no message')
    await expect(storage.getState('stripe')).rejects.toThrow('did not succeed: Error: no message')
  })

  it('never repeats what the service says of a signature, which can hold the session token', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).rejects(serviceError('InvalidSignatureException', 'x-amz-security-token:SECRET'))
    await expect(storage.getState('stripe')).rejects.toThrow(/^((?!SECRET).)*$/)
  })
})

describe('the retries of the SDK', () => {
  const increment = { count: 1, at, id: 'i1' }
  const retrying = { region: 'eu-central-1', credentials, maxAttempts: 3 }

  it('are off for increments and on for everything else, with an injected client', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.incrementFailures('stripe', 'v1', increment)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['GetItem', 'GetItem', 'GetItem'])
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      client.destroy()
    })
  })

  it('are off for increments with a client made here, which tries everything else twice', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB }
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
      await expect(storage.incrementFailures('stripe', 'v1', increment)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['GetItem', 'GetItem'])
      await storage.close()
    })
  })

  it.each([
    ['ProvisionedThroughputExceededException', 400, 1],
    ['ThrottlingException', 400, 1],
    ['RequestLimitExceeded', 400, 1],
    ['AccessDeniedException', 400, 1],
    ['InternalServerError', 500, 2],
  ])('ask a table that answers %s with %d no more than is of use: %d times', async (name, status, times) => {
    let requests = 0
    await withServer(
      (_, reply) => {
        requests++
        reply(status, { __type: `com.amazonaws.dynamodb.v20120810#${name}`, message: 'No.' })
      },
      async (endpoint) => {
        const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB }
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
        await expect(storage.getState('stripe')).rejects.toMatchObject({ cause: { name } })
        expect(requests).toBe(times)
        await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
        expect(requests).toBe(2 * times)
        await storage.close()
      },
    )
  })

  it.each([{ maxAttempts: 3 }, { retryMode: 'standard' }] as const)(
    'are those that the configuration asks for: %j',
    async (wanted) => {
      await withFailingServer(async (endpoint, requests) => {
        const clientConfig = { ...retrying, endpoint, ...patientDynamoDB, ...wanted }
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
        await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
        expect(requests()).toHaveLength(3)
        await storage.close()
      })
    },
  )

  it('that the configuration brings along are asked', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const asked: string[] = []
      const retryStrategy = {
        acquireInitialRetryToken: async () => ({ getRetryCount: () => 0, getRetryDelay: () => 0 }),
        refreshRetryTokenForRetry: async () => {
          asked.push('again?')
          throw new Error('No.')
        },
        recordSuccess: () => {},
      }
      const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB, retryStrategy }
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect([requests().length, asked]).toEqual([1, ['again?']])
      await storage.close()
    })
  })

  it('are off for increments also where the client caches the handlers that retry', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint, cacheMiddleware: true })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      await expect(storage.incrementFailures('stripe', 'v1', increment)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      client.destroy()
    })
  })

  it('are off for increments also where the middleware that retries is not the one we know', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const clone = client.middlewareStack.clone.bind(client.middlewareStack)
      client.middlewareStack.clone = () => Object.assign(clone(), { remove: () => false })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.incrementFailures('stripe', 'v1', increment)).rejects.toMatchObject({
        message: expect.stringContaining('InternalServerError (HTTP 500)'),
      })
      expect(requests()).toEqual(['UpdateItem'])
      client.destroy()
    })
  })

  it('leave what the user attached to the client in place, for increments too', async () => {
    await withFailingServer(async (endpoint) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const seen: (string | undefined)[] = []
      client.middlewareStack.add((next, { commandName }) => (args) => {
        seen.push(commandName)
        return next(args)
      })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.incrementFailures('stripe', 'v1', increment)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(seen).toEqual(['UpdateItemCommand'])
      expect(client.middlewareStack.identify().some((name) => name.startsWith('retryMiddleware'))).toBe(true)
      client.destroy()
    })
  })

  it('do not matter to a test double that can only send', async () => {
    const client = { send: async () => ({ Attributes: itemOf(open) }) } as unknown as DynamoDBClient
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
    await expect(storage.incrementFailures('stripe', 'v2', increment)).resolves.toEqual({
      applied: true,
      current: open,
    })
  })

  it('that found a lost reply make a compare-and-set one success, over a real connection', async () => {
    let stored: Record<string, AttributeValue> | undefined
    await withServer(
      (body, reply) => {
        if (stored)
          return reply(400, {
            __type: 'com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException',
            Item: stored,
          })
        expect(body.ExpressionAttributeValues[':version']).toEqual({ S: 'v2' })
        stored = itemOf(open)
        return reply(500, { __type: 'com.amazonaws.dynamodb.v20120810#InternalServerError' })
      },
      async (endpoint) => {
        const client = new DynamoDBClient({ ...retrying, endpoint })
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
        await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({
          applied: true,
          current: open,
        })
        client.destroy()
      },
    )
  })
})

describe('the client', () => {
  it('that is made here has short timeouts and two attempts, which its configuration overrides', async () => {
    const made = await clientsMadeBy({ region: 'eu-central-1', credentials })
    expect(await made.config.maxAttempts()).toBe(2)
    expect(await handlerOptionsOf(made)).toMatchObject({
      connectionTimeout: 1_000,
      requestTimeout: 2_000,
      throwOnRequestTimeout: true,
    })

    const tuned = await clientsMadeBy({
      region: 'eu-central-1',
      credentials,
      maxAttempts: 5,
      requestHandler: { requestTimeout: 300 },
    })
    expect(await tuned.config.maxAttempts()).toBe(5)
    expect(await handlerOptionsOf(tuned)).toMatchObject({ connectionTimeout: 1_000, requestTimeout: 300 })
  })

  it('that is made with another retry mode keeps it, and makes two attempts', async () => {
    const made = await clientsMadeBy({ region: 'eu-central-1', credentials, retryMode: 'adaptive' })
    expect(await made.config.maxAttempts()).toBe(2)
    expect(await made.config.retryStrategy()).toMatchObject({ mode: 'adaptive' })
  })

  it('gets a request handler that was configured as it is', async () => {
    const requestHandler = {
      handle: () => Promise.reject(new Error('from my handler')),
      httpHandlerConfigs: () => ({}),
      updateHttpClientConfig() {},
      destroy: jest.fn(),
    }
    const storage = new DynamoDBCircuitStorage({
      tableName: 'app',
      clientConfig: { region: 'eu-central-1', credentials, endpoint: 'http://127.0.0.1:9', requestHandler },
    })
    await expect(storage.getState('stripe')).rejects.toThrow('from my handler')
    await storage.close()
    expect(requestHandler.destroy).toHaveBeenCalledTimes(1)
  })

  it('gets a request handler that is an instance of a class as it is', async () => {
    class Handler {
      handle(): Promise<never> {
        return Promise.reject(new Error('from my class'))
      }
      httpHandlerConfigs(): object {
        return {}
      }
      updateHttpClientConfig(): void {}
      destroy(): void {}
    }
    const clientConfig = {
      region: 'eu-central-1',
      credentials,
      endpoint: 'http://127.0.0.1:9',
      requestHandler: new Handler() as never,
    }
    await expect(new DynamoDBCircuitStorage({ tableName: 'app', clientConfig }).getState('a')).rejects.toThrow(
      'from my class',
    )
  })

  it('that was injected is not closed', async () => {
    const { storage, aws, client } = mocked()
    const destroy = jest.spyOn(client, 'destroy')
    aws.on(GetItemCommand).resolves({})
    await storage.getState('stripe')
    await storage.close()
    expect(destroy).not.toHaveBeenCalled()
  })

  it('is not even made by closing', async () => {
    await expect(new DynamoDBCircuitStorage({ tableName: 'app' }).close()).resolves.toBeUndefined()
  })

  it('that cannot be made rejects the operation, and is tried again at the next one', async () => {
    let broken = true
    const clientConfig = {
      region: 'eu-central-1',
      credentials,
      endpoint: 'http://127.0.0.1:9',
      get requestHandler() {
        if (broken) throw new Error('broken configuration')
        return { handle: () => Promise.reject(new Error('reached')), destroy() {} }
      },
    } as unknown as DynamoDBClientConfig
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
    const operation = storage.getState('stripe')
    const closed = storage.close()
    await expect(operation).rejects.toThrow('broken configuration')
    await expect(closed).resolves.toBeUndefined()
    await expect(storage.getState('stripe')).rejects.toThrow('broken configuration')
    broken = false
    await expect(storage.getState('stripe')).rejects.toThrow('reached')
    await storage.close()
  })
})

describe('the SDK', () => {
  it.each(['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb'])(
    'names %s where it is missing, and is looked for again',
    async (name) => {
      const cause = Object.assign(new Error(`Cannot find package '${name}'`), { code: 'ERR_MODULE_NOT_FOUND' })
      await jest.isolateModulesAsync(async () => {
        let missing = true
        jest.unstable_mockModule(name, async () => {
          if (missing) throw cause
          return { marshall, unmarshall, GetItemCommand }
        })
        const fresh = await import('../../../src/storage/dynamodb.ts')
        const client = { send: async () => ({ Item: itemOf(open) }) } as unknown as DynamoDBClient
        const storage = new fresh.DynamoDBCircuitStorage({ tableName: 'app', client })
        await expect(storage.getState('stripe')).rejects.toMatchObject({
          name: 'CircuitStorageError',
          operation: 'getState',
          service: 'stripe',
          kind: 'misconfigured',
          message: expect.stringContaining(`npm install ${name}`),
          cause,
        })
        missing = false
        await expect(storage.getState('stripe')).resolves.toEqual(open)
        jest.unstable_unmockModule(name)
      })
    },
  )
})

function mocked(options: Partial<Omit<DynamoDBCircuitStorageOptions, 'client' | 'clientConfig'>> = {}) {
  const client = new DynamoDBClient({ region: 'eu-central-1', credentials })
  const aws = mockClient(client)
  return { client, aws, storage: new DynamoDBCircuitStorage({ tableName: 'app', ...options, client }) }
}

// biome-ignore lint/suspicious/noExplicitAny: the inputs of all commands, to be compared
function inputs(aws: ReturnType<typeof mocked>['aws']): any[] {
  return aws.calls().map((call) => call.args[0].input)
}

function keyOf(service: string): typeof key {
  return { ...key, PK: { S: `CIRCUIT#${service}` } }
}

function itemOf(record: CircuitRecord): Record<string, AttributeValue> {
  return { ...key, ...marshall(record, { removeUndefinedValues: true }) }
}

function namesOf(...fields: string[]): Record<string, string> {
  return Object.fromEntries(fields.map((field) => [`#${field}`, field]))
}

function refusal(Item?: Record<string, AttributeValue>, attempts = 1): ConditionalCheckFailedException {
  return new ConditionalCheckFailedException({
    message: 'The conditional request failed',
    $metadata: { attempts },
    ...(Item && { Item }),
  })
}

function serviceError(name: string, message: string): Error {
  return Object.assign(new Error(message), { name, $fault: 'client', $metadata: { httpStatusCode: 400 } })
}

function thrownBy(action: () => unknown): ConfigurationError {
  try {
    action()
  } catch (error) {
    return error as ConfigurationError
  }
  throw new Error('nothing was thrown')
}

async function rejectionOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error).toBeInstanceOf(CircuitStorageError)
  return error
}

/** The client that a storage makes for itself, caught in the act. */
async function clientsMadeBy(clientConfig: DynamoDBClientConfig): Promise<DynamoDBClient> {
  const send = jest.spyOn(DynamoDBClient.prototype, 'send').mockImplementation(async () => ({}))
  try {
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
    await storage.getState('stripe')
    return send.mock.contexts[0] as DynamoDBClient
  } finally {
    send.mockRestore()
  }
}

async function handlerOptionsOf(client: DynamoDBClient): Promise<object> {
  const handler = client.config.requestHandler as unknown as { configProvider: Promise<object> }
  return handler.configProvider
}

/** A real server that answers 500 to everything; `requests` hands out, and forgets, what was asked. */
async function withFailingServer(test: (endpoint: string, requests: () => string[]) => Promise<void>): Promise<void> {
  let seen: string[] = []
  await withServer(
    (_, reply, action) => {
      seen.push(action)
      reply(500, { __type: 'com.amazonaws.dynamodb.v20120810#InternalServerError', message: 'Oops' })
    },
    (endpoint) =>
      test(endpoint, () => {
        const requests = seen
        seen = []
        return requests
      }),
  )
}

async function withServer(
  // biome-ignore lint/suspicious/noExplicitAny: the body of any request
  answer: (body: any, reply: (status: number, body: object) => void, action: string) => void,
  test: (endpoint: string) => Promise<void>,
): Promise<void> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const action = String(request.headers['x-amz-target']).split('.')[1] ?? ''
    const reply = (status: number, body: object) => {
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(body))
    }
    answer(JSON.parse(Buffer.concat(chunks).toString()), reply, action)
  })
  // Node closes what was idle for 5 s, and a client that uses it at that moment asks again.
  server.keepAliveTimeout = 300_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await test(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}
