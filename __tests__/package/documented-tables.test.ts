import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { promisify } from 'node:util'
import { CreateTableCommand, type CreateTableCommandInput, UpdateTimeToLiveCommand } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { parse } from 'yaml'
import { CircuitBreaker } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB, patientStore } from '../support/patience.ts'
import { codeBlocks, modulesUnder, writeModules } from './code-blocks.ts'

const heading = 'The table'
const ways = ['the AWS command line', 'CloudFormation', 'the CDK'] as const

/** A table as its properties in CloudFormation describe it. */
interface Table extends Pick<CreateTableCommandInput, 'BillingMode' | 'AttributeDefinitions' | 'KeySchema'> {
  readonly TimeToLiveSpecification: { readonly Enabled: boolean; readonly AttributeName: string }
}

let server: DynamoDBServer
let tables: Readonly<Record<(typeof ways)[number], Table>>

beforeAll(async () => {
  server = await startDynamoDBLocal()
  const ofTemplate = tableIn(parse(blockIn('yaml')))
  tables = { 'the AWS command line': byCommandLine(), CloudFormation: ofTemplate, 'the CDK': await byCdk() }
})
afterAll(() => server?.stop())

describe('the table that docs/operate/storage.md creates', () => {
  it('is the same in each of the three ways', () => {
    expect(Object.values(tables)).toEqual(ways.map(() => tables.CloudFormation))
  })

  it('is one with which a check finds nothing wrong', async () => {
    const { TimeToLiveSpecification, ...table } = tables.CloudFormation
    const TableName = `circuits-${randomUUID()}`
    const client = server.client(patientDynamoDB)
    await client.send(new CreateTableCommand({ TableName, ...table }))
    await client.send(new UpdateTimeToLiveCommand({ TableName, TimeToLiveSpecification }))
    const storage = new DynamoDBCircuitStorage({ tableName: TableName, client })
    const findings = await new CircuitBreaker({ services: ['stripe'], storage, ...patientStore }, { env: {} }).check()
    expect(findings.map(({ code }) => code)).toEqual(['nothing-stored'])
  })
})

function blockIn(language: string): string {
  const blocks = codeBlocks('docs/operate/storage.md').filter((block) => block.heading === heading)
  return blocks.find((block) => block.language === language)?.code ?? ''
}

/** The options of a command: each with its words. */
function optionsOf(command: string): Readonly<Record<string, readonly string[]>> {
  const [, ...options] = command.split(/\s--/)
  return Object.fromEntries(
    options.map((option) => option.trim().split(/\s+/)).map(([name, ...words]) => [name, words]),
  )
}

/** What the shorthand of the command line says: `A=b,C=d`. */
function objectIn(shorthand: string): Readonly<Record<string, string>> {
  return Object.fromEntries(shorthand.split(',').map((pair) => pair.split('=')))
}

function byCommandLine(): Table {
  const commands = blockIn('sh').replaceAll('\\\n', ' ').trim().split('\n')
  const [create, , expiry] = commands.map(optionsOf)
  const { Enabled, AttributeName } = objectIn(expiry?.['time-to-live-specification']?.[0] ?? '')
  const table = {
    BillingMode: create?.['billing-mode']?.[0],
    AttributeDefinitions: create?.['attribute-definitions']?.map(objectIn),
    KeySchema: create?.['key-schema']?.map(objectIn),
    TimeToLiveSpecification: { Enabled: Enabled === 'true', AttributeName },
  }
  expect(commands.map((command) => command.split(' ').slice(0, 3).join(' '))).toEqual([
    'aws dynamodb create-table',
    'aws dynamodb wait',
    'aws dynamodb update-time-to-live',
  ])
  return table as unknown as Table
}

/** In a process of its own, because jest takes a minute to load the CDK. */
async function byCdk(): Promise<Table> {
  const [table = ''] = modulesUnder('docs/operate/storage.md', heading).filter((one) => one.includes('aws-cdk-lib'))
  const stack = `
    import { App, Stack } from 'aws-cdk-lib'
    import { circuits } from './table.ts'
    const app = new App({ builtinCloudFormationValidation: false, outdir: import.meta.dirname + '/out' })
    circuits(new Stack(app, 'Stack'))
    console.log(JSON.stringify(app.synth().getStackByName('Stack').template.Resources))`
  await using modules = await writeModules({ table, stack })
  const { stdout } = await promisify(execFile)(process.execPath, [modules.path('stack')])
  return tableIn(JSON.parse(stdout))
}

function tableIn(resources: Readonly<Record<string, { readonly Type: string; readonly Properties: Table }>>): Table {
  const tables = Object.values(resources).filter(({ Type }) => Type === 'AWS::DynamoDB::Table')
  expect(tables).toHaveLength(1)
  return tables[0]?.Properties as Table
}
