/**
 * Whether what `examples/sqs-consumer` deploys is right, without an account and without a network: see `problemsOf`.
 *
 * @module
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { documentedStatements } from '../support/documented-policy.ts'
import { problemsOf, readTemplate, resolve } from './cloudformation-template.ts'

const folder = join(import.meta.dirname, '..', '..', 'examples', 'sqs-consumer')
const template = readTemplate(join(folder, 'template.yaml'))
const propertyOf = <Value>(resource: string, name: string) => template.Resources[resource]?.Properties?.[name] as Value

describe('the template of the queue and its consumer', () => {
  it('has no problem that can be found without deploying it', () => {
    // SAM has this property, and the CDK's database of SAM's properties does not have it yet.
    const unknown = 'Events.Shipments.Properties: there is no property FunctionResponseTypes'

    expect(problemsOf({ SAM: template }).SAM.filter((problem) => !problem.endsWith(unknown))).toEqual([])
  })

  it('lets the function return single messages', () => {
    const { Shipments } = propertyOf<{ readonly Shipments: unknown }>('ShipmentsFunction', 'Events')

    expect(Shipments).toMatchObject({ Type: 'SQS', Properties: { FunctionResponseTypes: ['ReportBatchItemFailures'] } })
  })

  it('gives messages enough receives for an outage, and hides them six times as long as the function may take', () => {
    expect(propertyOf('Shipments', 'RedrivePolicy')).toEqual({
      deadLetterTargetArn: { 'Fn::GetAtt': 'DeadShipments.Arn' },
      maxReceiveCount: 100,
    })
    expect(propertyOf('Shipments', 'VisibilityTimeout')).toBe(6 * propertyOf<number>('ShipmentsFunction', 'Timeout'))
  })

  it('allows the function what docs/operate/permissions.md says, and what it asks of its two queues', () => {
    const values = {
      TableName: 'app',
      'AWS::Partition': 'aws',
      'AWS::Region': 'eu-west-1',
      'AWS::AccountId': '123456789012',
    }
    const [{ Statement }] = propertyOf<[{ readonly Statement: object[] }]>('ShipmentsFunction', 'Policies')
    const [circuits, ...queues] = Statement

    expect(resolve(circuits, values)).toEqual(documentedStatements()[0])
    expect(queues).toEqual([
      {
        Sid: 'Postpone',
        Effect: 'Allow',
        Action: 'sqs:ChangeMessageVisibility',
        Resource: { 'Fn::GetAtt': 'Shipments.Arn' },
      },
      {
        Sid: 'PutAside',
        Effect: 'Allow',
        Action: 'sqs:SendMessage',
        Resource: { 'Fn::GetAtt': 'DeadShipments.Arn' },
      },
    ])
  })

  it('sets each variable that the function cannot do without', () => {
    const sources = ['queue.ts', 'warehouse.ts'].map((file) => readFileSync(join(folder, file), 'utf8')).join()
    const required = [...sources.matchAll(/required\('(\w+)'\)/g)].map(([, name]) => name as string)
    const { Variables } = propertyOf<{ readonly Variables: object }>('ShipmentsFunction', 'Environment')

    expect(required).toHaveLength(3)
    expect(Object.keys(Variables).sort()).toEqual([...required, 'CIRCUIT_BREAKER_TABLE_NAME'].sort())
  })
})
