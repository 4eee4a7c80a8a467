import { BatchGetItemCommand, GetItemCommand } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from '@jest/globals'
import { mocked, rejectionOf, serviceError } from './mocked-table.ts'

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
