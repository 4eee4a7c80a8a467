import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  DeleteItemCommand,
  GetItemCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { describe, expect, it, jest } from '@jest/globals'
import type { CircuitRecord } from '../../../../src/storage/contract.ts'
import { emptyRecord } from '../../../../src/storage/record.ts'
import {
  at,
  inputs,
  itemOf,
  key,
  keyOf,
  mocked,
  namesOf,
  notCounted,
  open,
  outcomes,
  refusal,
  rejectionOf,
  serviceError,
  shifted,
  slots,
  ttl,
} from './mocked-table.ts'

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

  it('add to each count of a record of a known version, and only that', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).resolves.toEqual({ applied: true, current: open })
    const counts = ['failureCount', 'successCount', 'startedCount', 'earlyCount', 'reporterCount']
    expect(inputs(aws)).toEqual([
      {
        TableName: 'app',
        Key: key,
        UpdateExpression:
          'SET #failureCount = #failureCount + :failureCount, #successCount = #successCount + :successCount, ' +
          '#startedCount = #startedCount + :startedCount, #earlyCount = #earlyCount + :earlyCount, ' +
          `#reporterCount = #reporterCount + :reporterCount, #updatedAt = :at, ${shifted}`,
        ConditionExpression: `#version = :expected AND ${notCounted}`,
        ExpressionAttributeNames: namesOf(...slots, ...counts, 'updatedAt', 'version'),
        ExpressionAttributeValues: {
          ':failureCount': { N: '1' },
          ':successCount': { N: '2' },
          ':startedCount': { N: '3' },
          ':earlyCount': { N: '0' },
          ':reporterCount': { N: '1' },
          ':at': { N: String(at) },
          ':id': { S: 'i1' },
          ':none': { S: '' },
          ':expected': { S: 'v2' },
        },
        ReturnValues: 'ALL_NEW',
        ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
      },
    ])
  })

  it('replace every field, remove what the new record lacks, and forget the additions', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({ applied: true, current: open })
    expect(inputs(aws)).toEqual([
      {
        TableName: 'app',
        Key: key,
        UpdateExpression:
          'SET #schema = :schema, #version = :version, #epoch = :epoch, #generation = :generation, #state = :state, ' +
          '#failureCount = :failureCount, #successCount = :successCount, #startedCount = :startedCount, ' +
          '#earlyCount = :earlyCount, #reporterCount = :reporterCount, #dismissals = :dismissals, ' +
          '#dismissedAt = :dismissedAt, #noise = :noise, #lastFailureAt = :lastFailureAt, ' +
          '#openedAt = :openedAt, #retryAt = :retryAt, #resetTimeout = :resetTimeout, #leases = :leases, ' +
          '#trips = :trips, #lastFailure = :lastFailure, #transitions = :transitions, #updatedAt = :updatedAt, ' +
          `#ttl = :ttl REMOVE #suspectedAt, #pace, #othersAt, #closedAt, #override, ${slots.map((slot) => `#${slot}`).join(', ')}`,
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
          ':successCount': { N: '0' },
          ':startedCount': { N: '0' },
          ':earlyCount': { N: '1' },
          ':reporterCount': { N: '2' },
          ':dismissals': { N: '1.25' },
          ':dismissedAt': { N: String(at - 1) },
          ':noise': { N: '0.3' },
          ':lastFailureAt': { N: String(at) },
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

  it('create a record only where there is no item', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).resolves({ Attributes: itemOf(open) })
    await storage.compareAndSetState('stripe', undefined, open)
    expect(inputs(aws)).toMatchObject([
      {
        ConditionExpression: 'attribute_not_exists(#pk)',
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
    await expect(storage.addOutcomes('stripe', 'v1', outcomes)).resolves.toEqual({
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
    await expect(storage.addOutcomes('stripe', 'v1', outcomes)).resolves.toEqual({
      applied: false,
      current: undefined,
    })
    expect(aws.commandCalls(GetItemCommand, { ConsistentRead: true })).toHaveLength(2)
  })

  it('is recognised in an addition that was counted before, whether or not the refusal brings the item', async () => {
    const { storage, aws } = mocked()
    const Item = { ...itemOf(open), inc7: { S: 'i1' } }
    aws.on(UpdateItemCommand).rejectsOnce(refusal(Item)).rejects(refusal())
    aws.on(GetItemCommand).resolves({ Item })
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).resolves.toEqual({
      applied: true,
      current: open,
    })
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).resolves.toEqual({
      applied: true,
      current: open,
    })
  })

  it('is final for an addition to another version: it is sent once', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).rejects(refusal(itemOf(open)))
    await expect(storage.addOutcomes('stripe', 'v1', outcomes)).resolves.toEqual({
      applied: false,
      current: open,
    })
    expect(inputs(aws)).toHaveLength(1)
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

  it('of something that is no circuit record hands that out, unchecked', async () => {
    const { storage, aws } = mocked()
    aws.on(UpdateItemCommand).rejects(refusal({ ...key, schema: { N: '2' } }))
    const result = await storage.compareAndSetState('stripe', undefined, open)
    expect(result).toEqual({ applied: false, current: { schema: 2 } })
  })
})

describe('a damaged item', () => {
  it('is handed out as it was decoded, unchecked', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), state: { S: 'AJAR' } } })
    await expect(storage.getState('stripe')).resolves.toMatchObject({ state: 'AJAR' })
  })

  it('rejects a read where an attribute cannot be decoded at all', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), trips: { N: '1e300' } } })
    await expect(storage.getState('stripe')).rejects.toMatchObject({ corrupt: true, cause: expect.any(Error) })
  })

  it('is not seen in attributes that are not ours', async () => {
    const { storage, aws } = mocked()
    aws.on(GetItemCommand).resolves({ Item: { ...itemOf(open), mine: { N: '1e300' } } })
    await expect(storage.getState('stripe')).resolves.toEqual(open)
  })

  const { startedCount: _, ...lacking } = itemOf(open)

  it.each([
    ['An operand in the update expression has an incorrect data type', { ...itemOf(open), failureCount: { S: '3' } }],
    ['The provided expression refers to an attribute that does not exist in the item', lacking],
  ])('is found behind an update that DynamoDB finds malformed: %s', async (message, Item) => {
    const { storage, aws } = mocked()
    const cause = serviceError('ValidationException', message)
    aws.on(UpdateItemCommand).rejects(cause)
    aws.on(GetItemCommand).resolves({ Item })
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).rejects.toMatchObject({
      corrupt: true,
      operation: 'addOutcomes',
      service: 'stripe',
      cause,
    })
  })

  it.each([
    ['the record is sound', { Item: itemOf(open) }],
    ['the record cannot be read', new Error('gone')],
  ])('is not assumed when %s', async (_, answer) => {
    const { storage, aws } = mocked()
    const cause = serviceError('ValidationException', 'Invalid UpdateExpression: Syntax error')
    aws.on(UpdateItemCommand).rejects(cause)
    if (answer instanceof Error) aws.on(GetItemCommand).rejects(answer)
    else aws.on(GetItemCommand).resolves(answer)
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).rejects.toMatchObject({
      corrupt: false,
      cause,
      message: expect.stringContaining('DynamoDB refused the UpdateItem on the table "app": Invalid'),
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

  it('hands out the good records with the error about one that cannot be decoded', async () => {
    const { storage, aws } = mocked()
    const undecodable = { ...keyOf('paypal'), trips: { N: '1e300' } }
    aws.on(BatchGetItemCommand).resolves({ Responses: { app: [itemOf(open), undecodable] } })
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
