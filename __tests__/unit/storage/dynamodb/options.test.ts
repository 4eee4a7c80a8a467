import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from '@jest/globals'
import { ConfigurationError } from '../../../../src/errors.ts'
import { refuseWrongOptions } from '../../../../src/settings/option-rules.ts'
import { type DynamoDBCircuitStorageOptions, dynamoDBOptionRules } from '../../../../src/storage/dynamodb/options.ts'

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
    const error = thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, options))
    expect(error).toBeInstanceOf(ConfigurationError)
    expect(error.problems.map((problem) => problem.setting).sort()).toEqual([...Object.keys(options), 'client'].sort())
    expect(error.message).toContain(
      'tabelName is not an option of the DynamoDB storage; did you mean tableName? (option)',
    )
    expect(error.message).toContain('but is "no table" (option)')
    expect(error.message).toContain('that no field of a circuit record has, or null, but is "state" (option)')
    expect(error.message).toContain('client and clientConfig exclude each other')
  })

  it('are named in the error, but not repeated where they can hold secrets', () => {
    const clientConfig = { credentials: { secretAccessKey: 'SECRET' } }
    const client = { secretAccessKey: 'SECRET' }
    const error = thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, { tableName: 'app', client, clientConfig }))
    expect(JSON.stringify(error.problems)).not.toContain('SECRET')
  })

  it.each([undefined, null, 'app', []])('must be an object, not %p', (options) => {
    expect(thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, options)).problems).toMatchObject([
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
    ['partitionKeyName', 'inc3', 'the name of an attribute, at most 255 bytes, that no field of a circuit record has'],
    ['sortKeyName', 'é'.repeat(128), expect.stringMatching(/, or null$/)],
    ['sortKeyName', '', expect.stringMatching(/, or null$/)],
    ['sortKeyValue', 'x'.repeat(1_025), expect.stringMatching(/, at most 1024 bytes$/)],
    ['consistentRead', 1, 'true or false'],
    ['client', {}, 'a DynamoDBClient of @aws-sdk/client-dynamodb, or a function that makes one'],
    ['client', DynamoDBClient, 'a DynamoDBClient of @aws-sdk/client-dynamodb, or a function that makes one'],
    ['clientConfig', 1, 'the configuration of a DynamoDBClient'],
  ])('say of %s what is allowed: %p is not', (setting, value, allowed) => {
    const options = setting === 'options' ? value : { tableName: 'app', [setting]: value }
    const { problems } = thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, options))
    const problem = problems.find((one) => one.setting === setting)
    expect(problem?.source).toBe('option')
    expect(/must be (.*), but is /s.exec(problem?.message ?? '')?.[1]).toEqual(allowed)
  })

  it('say that client and clientConfig exclude each other', () => {
    const options = { tableName: 'app', client: { send: () => {} }, clientConfig: {} }
    expect(thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, options)).problems).toEqual([
      expect.objectContaining({ setting: 'client', source: 'option' }),
    ])
  })

  it('must name a table', () => {
    expect(thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, {})).problems).toMatchObject([
      { setting: 'tableName', message: 'tableName is missing; give it (option)' },
    ])
  })

  it('must name three different attributes', () => {
    const error = thrownBy(() => refuseWrongOptions(dynamoDBOptionRules, { tableName: 'app', sortKeyName: 'PK' }))
    expect(error.problems).toMatchObject([
      {
        setting: 'partitionKeyName',
        message: expect.stringContaining('must differ from sortKeyName and ttlAttributeName'),
      },
    ])
  })

  it.each<DynamoDBCircuitStorageOptions>([
    { tableName: 'app' },
    { tableName: 'arn:aws:dynamodb:eu-central-1:123456789012:table/app', sortKeyName: null },
    { tableName: 'app', clientConfig: { region: 'eu-central-1' }, consistentRead: false, sortKeyValue: 'S' },
    { tableName: 'app', client: undefined, partitionKeyName: undefined },
    { tableName: 'app', ttlAttributeName: 'x'.repeat(255), sortKeyValue: 'x'.repeat(1_024) },
  ])('may be %j', (options) => {
    expect(() => refuseWrongOptions(dynamoDBOptionRules, options)).not.toThrow()
  })
})

function thrownBy(action: () => unknown): ConfigurationError {
  try {
    action()
  } catch (error) {
    return error as ConfigurationError
  }
  throw new Error('nothing was thrown')
}
