import { BatchGetItemCommand, type DynamoDBClientConfig, GetItemCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { CircuitBreaker } from '../../../../src/circuit-breaker.ts'
import { DynamoDBCircuitStorage } from '../../../../src/storage/dynamodb/index.ts'
import { patientStore } from '../../../support/patience.ts'
import { unavailable } from '../../../support/virtual-fleet.ts'
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
    [
      'ValidationException',
      'Item size to update has exceeded the maximum allowed size',
      'the circuit\'s item in the table "app" has no room left',
    ],
    ['ProvisionedThroughputExceededException', 'Slow down', 'the table "app" is throttled'],
    [
      'UnrecognizedClientException',
      'The security token is invalid',
      'DynamoDB does not accept the credentials of the client (UnrecognizedClientException)',
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

  it('about the size of the item does not pass by itself', async () => {
    const { storage, aws } = mocked()
    aws
      .on(GetItemCommand)
      .rejects(serviceError('ValidationException', 'Item size has exceeded the maximum allowed size'))
    expect(await rejectionOf(storage.getState('stripe'))).toMatchObject({ kind: 'misconfigured' })
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

  describe('of a client that is not set up', () => {
    // Nothing of the machine that the tests run on.
    const names = ['AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE', 'AWS_EC2_METADATA_DISABLED', 'AWS_REGION'] as const
    const values = ['/dev/null', '/dev/null', 'true', undefined]
    const others = ['AWS_PROFILE', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_DEFAULT_REGION'] as const
    const before = { ...process.env }
    beforeAll(() => {
      for (const name of [...names, ...others]) delete process.env[name]
      for (const [index, name] of names.entries()) if (values[index]) process.env[name] = values[index]
    })
    afterAll(() => {
      for (const name of [...names, ...others]) delete process.env[name]
      Object.assign(process.env, before)
    })
    const secret = 'hunter2'
    const failed = (): never => {
      const cause = Object.assign(new Error(secret), { code: 'ENOENT' })
      throw Object.assign(new Error(secret, { cause }), { name: 'CredentialsProviderError', code: 1 })
    }

    it.each<[string, DynamoDBClientConfig, string]>([
      ['a region', {}, 'the client has no valid region (Region is missing). Set AWS_REGION'],
      ['a region that can be', { region: 'eu central' }, 'the client has no valid region (Region not accepted: '],
      ['credentials', { region: 'eu-central-1' }, 'the client finds no credentials (CredentialsProviderError). Lambda'],
      [
        'credentials that are complete',
        { region: 'eu-central-1', credentials: { accessKeyId: 'a' } as never },
        'the client finds no credentials (Error). Lambda',
      ],
      [
        'credentials because their provider fails',
        { region: 'eu-central-1', credentials: async () => failed() },
        'the client finds no credentials (CredentialsProviderError 1, because of Error ENOENT). Lambda',
      ],
    ])('says so, and that waiting does not help: without %s', async (_, clientConfig, advice) => {
      const config = { ...clientConfig, endpoint: 'http://127.0.0.1:9' }
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig: config })
      const error = await rejectionOf(storage.getState('stripe'))
      await storage.close()
      expect(error).toMatchObject({ kind: 'misconfigured', message: expect.stringContaining(advice) })
      expect(error.message).not.toContain(secret)
    })

    it('is warned of once, though reads and writes fail', async () => {
      const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const storage = new DynamoDBCircuitStorage({ tableName: 'app' })
      const breaker = new CircuitBreaker(
        { services: ['stripe'], storage, failureThreshold: 1, ...patientStore },
        { env: {} },
      )
      await breaker.load()
      await breaker.call('stripe', unavailable).catch(() => {})
      await breaker.flush()
      await storage.close()
      expect(warn.mock.calls.map(([text]) => text)).toEqual([expect.stringContaining('no valid region')])
      warn.mockRestore()
    })
  })
})
