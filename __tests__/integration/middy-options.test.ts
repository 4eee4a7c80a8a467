/**
 * The options that Middy's packages have in common, on DynamoDB Local: with the real `@middy/sts`, before a stand-in for AWS STS,
 * and with the real X-Ray SDK.
 *
 * @module
 */

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { DynamoDBClient, type DynamoDBClientConfig } from '@aws-sdk/client-dynamodb'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import middy, { type MiddlewareObj } from '@middy/core'
import sts from '@middy/sts'
import AWSXRay from 'aws-xray-sdk-core'
import { type CircuitStorageError, circuitBreaker, type MiddyOptions } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/index.ts'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientDynamoDB } from '../support/patience.ts'

let dynamodb: DynamoDBServer
let securityTokens: Server
let stsEndpoint: string
/** How often AWS STS was asked for a role. */
let roles = 0

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
  securityTokens = createServer((request, response) => {
    request.resume().on('end', () => {
      roles++
      response.setHeader('content-type', 'text/xml')
      response.end(
        `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ROLE${roles}</AccessKeyId>` +
          '<SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>' +
          '<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>',
      )
    })
  }).listen(0, '127.0.0.1')
  await once(securityTokens, 'listening')
  stsEndpoint = `http://127.0.0.1:${(securityTokens.address() as AddressInfo).port}`
})
afterAll(async () => {
  securityTokens.closeAllConnections()
  securityTokens.close()
  await dynamodb.stop()
})

/** The requests of clients of {@link RecordedClient}: their names, and the access key that signed them. */
const requests: string[] = []
beforeEach(() => {
  requests.length = 0
})

class RecordedClient extends DynamoDBClient {
  constructor(config: DynamoDBClientConfig) {
    super(config)
    this.middlewareStack.add(
      (next, { commandName }) =>
        async (args) => {
          const { headers } = args.request as { headers: Record<string, string> }
          const [, key] = /Credential=(\w+)/.exec(String(headers['authorization'])) ?? []
          requests.push(`${commandName} ${key}`)
          return next(args)
        },
      { step: 'finalizeRequest', priority: 'low', name: 'recordSignature' },
    )
  }
}

/** How the client reaches DynamoDB Local, without credentials. */
function reach(): DynamoDBClientConfig {
  const { endpoint, region } = dynamodb.clientConfig
  return { endpoint, region, ...patientDynamoDB } as DynamoDBClientConfig
}

/** A handler whose call fails if the event says so, with the middlewares before the circuit breaker. */
async function deployed(
  options: MiddyOptions,
  ...before: MiddlewareObj[]
): Promise<{ readonly run: (fails?: boolean) => Promise<unknown>; readonly errors: CircuitStorageError[] }> {
  const errors: CircuitStorageError[] = []
  const breaker = circuitBreaker({
    services: ['stripe'],
    storage: { type: 'dynamodb', tableName: await dynamodb.createTable() },
    storageTimeout: 60_000,
    failureThreshold: 1,
    journal: false,
    onStorageError: ({ error }) => void errors.push(error),
    ...options,
  })
  const handler = middy()
    .use(before)
    .use(breaker)
    .handler(async (fails, { callExternal, circuits }) => {
      const call = () => (fails ? Promise.reject(Object.assign(new Error('down'), { status: 503 })) : 'ok')
      const outcome = await callExternal('stripe', async () => call()).catch(({ name }: Error) => name)
      return `${outcome} ${circuits.stripe.state}`
    })
  return { run: (fails = false) => handler(fails, createTestContext() as never), errors }
}

describe('AwsClient and awsClientOptions', () => {
  it('make the client that reads and writes the circuit', async () => {
    const { credentials } = dynamodb.clientConfig
    const awsClientOptions = { ...reach(), ...(credentials && { credentials }) }
    const { run, errors } = await deployed({ AwsClient: RecordedClient, awsClientOptions, disablePrefetch: true })

    expect(await run(true)).toBe('Error OPEN')
    expect(await run()).toBe('CircuitOpenError OPEN')

    expect(errors).toEqual([])
    expect(new Set(requests)).toEqual(new Set(['BatchGetItemCommand local', 'UpdateItemCommand local']))
  })

  it('report a class that makes no client, and calls flow', async () => {
    class NoClient {}
    const { run, errors } = await deployed({ AwsClient: NoClient as never })

    expect(await run()).toBe('ok CLOSED')

    expect(errors).toMatchObject([{ kind: 'misconfigured', message: expect.stringContaining('made none') }])
  })
})

describe('awsClientAssumeRole', () => {
  const withRole = (cacheExpiry: number) =>
    sts({
      awsClientOptions: {
        endpoint: stsEndpoint,
        region: 'eu-central-1',
        credentials: { accessKeyId: 'own', secretAccessKey: 'own' },
      },
      fetchData: { table: { RoleArn: 'arn:aws:iam::123456789012:role/circuits' } },
      disablePrefetch: true,
      cacheExpiry,
      cacheKey: `${Math.random()}`,
    } as never) as unknown as MiddlewareObj

  it('signs every request with the credentials that @middy/sts has put into request.internal', async () => {
    const options = { AwsClient: RecordedClient, awsClientOptions: reach(), awsClientAssumeRole: 'table' }
    const { run, errors } = await deployed({ ...options, cacheExpiry: 0 }, withRole(-1))

    expect(await run(true)).toBe('Error OPEN')
    const first = `ROLE${roles}`
    expect(await run()).toBe('CircuitOpenError OPEN')

    expect(errors).toEqual([])
    expect(requests).toContain(`BatchGetItemCommand ${first}`)
    expect(requests).toContain(`UpdateItemCommand ${first}`)
    expect(requests.filter((request) => !request.endsWith(first))).toEqual([])
  })

  it('signs with the credentials of the latest invocation: those of a role are over in an hour', async () => {
    const options = { AwsClient: RecordedClient, awsClientOptions: reach(), awsClientAssumeRole: 'table' }
    const { run } = await deployed({ ...options, cacheExpiry: 0 }, withRole(0))

    await run()
    await run()

    const [first, second, ...others] = requests
    expect([first, second, others]).toEqual([
      `BatchGetItemCommand ROLE${roles - 1}`,
      `BatchGetItemCommand ROLE${roles}`,
      [],
    ])
  })

  it.each([
    ['no middleware has put there', {}, 'misconfigured', /no credentials under "table" \(awsClientAssumeRole\)/],
    ['are no credentials', { table: 'text' }, 'misconfigured', /Use @middy\/sts before the circuit breaker/],
    [
      'are not to be had',
      { table: Promise.reject(Object.assign(new Error('secret'), { name: 'AccessDenied' })) },
      'unavailable',
      /the role "table" \(awsClientAssumeRole\) could not be assumed: AccessDenied$/,
    ],
  ])('reports credentials that %s, and calls flow', async (_what, internal, kind, message) => {
    const put = { before: ({ internal: all }: { internal: object }) => void Object.assign(all, internal) }
    const options = { awsClientOptions: reach(), awsClientAssumeRole: 'table' }
    const { run, errors } = await deployed(options, put as MiddlewareObj)

    expect(await run()).toBe('ok CLOSED')

    expect(errors).toMatchObject([{ kind, message: expect.stringMatching(message) }])
  })

  it('may name a part of a value, as getInternal does', async () => {
    const role = { accessKeyId: 'PART', secretAccessKey: 'secret', sessionToken: 'token' }
    const put = {
      before: ({ internal }: { internal: object }) => void Object.assign(internal, { roles: { table: role } }),
    }
    const options = { AwsClient: RecordedClient, awsClientOptions: reach(), awsClientAssumeRole: 'roles.table' }
    const { run } = await deployed(options, put as MiddlewareObj)

    await run()

    expect(requests).toEqual(['BatchGetItemCommand PART'])
  })
})

describe('awsClientCapture', () => {
  it('lets X-Ray have a subsegment for each request of the store', async () => {
    AWSXRay.setContextMissingStrategy('IGNORE_ERROR')
    const awsClientCapture: NonNullable<MiddyOptions['awsClientCapture']> = (client) =>
      AWSXRay.captureAWSv3Client(client)
    const awsClientOptions = { ...reach(), credentials: { accessKeyId: 'local', secretAccessKey: 'local' } }
    const { run, errors } = await deployed({ awsClientCapture, awsClientOptions, disablePrefetch: true })
    const segment = new AWSXRay.Segment('function')
    segment.notTraced = true // else it would be sent

    await AWSXRay.getNamespace().runPromise(async () => {
      AWSXRay.setSegment(segment)
      expect(await run(true)).toBe('Error OPEN')
    })

    expect(errors).toEqual([])
    const subsegments = segment.subsegments as { name: string; aws?: { operation: string } }[]
    expect(subsegments.map(({ name, aws }) => `${name} ${aws?.operation}`)).toEqual(
      expect.arrayContaining(['DynamoDB BatchGetItem', 'DynamoDB UpdateItem']),
    )
  })
})
