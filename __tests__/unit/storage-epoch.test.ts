/**
 * How the adapters put the `epoch` condition into what they send; what it does is checked against real stores by the
 * conformance suite.
 */

import { DynamoDBClient, GetItemCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from '@jest/globals'
import { mockClient } from 'aws-sdk-client-mock'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../src/storage/redis.ts'
import { circuitRecord } from '../../src/testing/index.ts'

const at = 1_700_000_000_001
const increment = { count: 1, at, id: 'i1', epoch: 'e1' }

it('every adapter says that it fences epochs', () => {
  const client: RedisClientLike = { call: async () => [] }
  const storages = [
    new MemoryCircuitStorage(),
    new DynamoDBCircuitStorage({ tableName: 'app' }),
    new RedisCircuitStorage({ client }),
  ]
  expect(storages.map(({ fencesEpochs }) => fencesEpochs)).toEqual([true, true, true])
})

describe('the storage in DynamoDB', () => {
  const mocked = (refused = false) => {
    const client = new DynamoDBClient({ region: 'eu-central-1' })
    const aws = mockClient(client)
    if (refused) {
      aws
        .on(UpdateItemCommand)
        .rejects(Object.assign(new Error('no'), { name: 'ConditionalCheckFailedException', $metadata: {} }))
      aws.on(GetItemCommand).resolves({})
    } else {
      aws.on(UpdateItemCommand).resolves({})
    }
    return { aws, storage: new DynamoDBCircuitStorage({ tableName: 'app', client }) }
  }
  const updates = (aws: ReturnType<typeof mocked>['aws']) =>
    aws.commandCalls(UpdateItemCommand).map(({ args }) => args[0].input)

  it('compares the epoch that an increment names, apart from the one that it would create', async () => {
    const { storage, aws } = mocked()
    await storage.incrementFailures('stripe', undefined, increment)
    expect(updates(aws)).toMatchObject([
      {
        ConditionExpression: expect.stringContaining(
          'attribute_not_exists(#version) AND (attribute_not_exists(#pk) OR #schema = :schema) AND #epoch = :expectedEpoch AND ',
        ),
        ExpressionAttributeNames: { '#epoch': 'epoch' },
        ExpressionAttributeValues: { ':expectedEpoch': { S: 'e1' }, ':epoch': { S: 'i1' } },
      },
    ])
  })

  it('compares the epoch that a replace names, apart from the one that it sets, also in a batch', async () => {
    const { storage, aws } = mocked()
    const next = circuitRecord({ epoch: 'e2' })
    await storage.compareAndSetState('stripe', undefined, next, 'e1')
    await storage.batchSetState([{ serviceKey: 'paypal', version: undefined, next, epoch: 'e1' }])
    const sent = {
      UpdateExpression: expect.stringContaining('#epoch = :epoch'),
      ConditionExpression: expect.stringMatching(/ AND #epoch = :expectedEpoch$/),
      ExpressionAttributeValues: expect.objectContaining({ ':expectedEpoch': { S: 'e1' }, ':epoch': { S: 'e2' } }),
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
    }
    expect(updates(aws)).toMatchObject([sent, sent])
  })

  it('compares no epoch where none is named', async () => {
    const { storage, aws } = mocked()
    await storage.incrementFailures('stripe', undefined, { ...increment, epoch: undefined })
    await storage.compareAndSetState('stripe', undefined, circuitRecord())
    await storage.batchSetState([{ serviceKey: 'paypal', version: undefined, next: circuitRecord() }])
    for (const { ConditionExpression, ExpressionAttributeValues } of updates(aws)) {
      expect(ConditionExpression).not.toContain('#epoch')
      expect(ExpressionAttributeValues).not.toHaveProperty(':expectedEpoch')
    }
    expect(updates(aws)).toHaveLength(3)
  })

  it('sends a refused increment once: no other time to live would help it', async () => {
    const { storage, aws } = mocked(true)
    const result = await storage.incrementFailures('stripe', undefined, increment)
    expect(result).toEqual({ applied: false, current: undefined })
    expect(updates(aws)).toHaveLength(1)
  })
})

describe('the storage in Redis', () => {
  const answering = (...replies: unknown[]) => {
    const commands: string[][] = []
    const client: RedisClientLike = {
      call: async (...command) => {
        commands.push(command)
        const reply = replies.length > 1 ? replies.shift() : replies[0]
        if (reply instanceof Error) throw reply
        return reply
      },
    }
    return { commands, storage: new RedisCircuitStorage({ client }) }
  }
  /** The expected version and the expected epoch, behind the name, the script, the number of keys and the key. */
  const conditions = (commands: readonly string[][]) => commands.map((command) => command.slice(4, 6))

  it('hands the epoch to the scripts, told apart from none', async () => {
    const { storage, commands } = answering([0, []])
    await storage.incrementFailures('stripe', undefined, increment)
    await storage.compareAndSetState('stripe', undefined, circuitRecord(), 'e1')
    await storage.batchSetState([{ serviceKey: 'stripe', version: undefined, next: circuitRecord(), epoch: '' }])
    expect(conditions(commands)).toEqual([
      ['', '=e1'],
      ['', '=e1'],
      ['', '='],
    ])
  })

  it('hands nothing over where none is named', async () => {
    const { storage, commands } = answering([0, []])
    await storage.incrementFailures('stripe', 'v1', { ...increment, epoch: undefined })
    await storage.compareAndSetState('stripe', undefined, circuitRecord())
    await storage.batchSetState([{ serviceKey: 'stripe', version: undefined, next: circuitRecord() }])
    expect(conditions(commands)).toEqual([
      ['=v1', ''],
      ['', ''],
      ['', ''],
    ])
  })

  it('repeats the condition for a server that does not know the script', async () => {
    for (const send of [
      (storage: RedisCircuitStorage) => storage.incrementFailures('stripe', undefined, increment),
      (storage: RedisCircuitStorage) => storage.compareAndSetState('stripe', undefined, circuitRecord(), 'e1'),
    ]) {
      const { storage, commands } = answering(new Error('NOSCRIPT No matching script.'), [0, []])
      await expect(send(storage)).resolves.toEqual({ applied: false, current: undefined })
      expect(commands.map(([name]) => name)).toEqual(['evalsha', 'eval'])
      expect(commands[1]?.slice(2)).toEqual(commands[0]?.slice(2))
      expect(conditions(commands)).toEqual([
        ['', '=e1'],
        ['', '=e1'],
      ])
    }
  })
})
