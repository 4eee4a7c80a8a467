/**
 * DynamoDB, embedded: dynalite in this process, in memory.
 *
 * @module
 */

import { once } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { CreateTableCommand, DescribeTableCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { CircuitBreaker, type CircuitRecord, type Finding } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb/index.ts'
import type { DatabaseRequest } from './recording.ts'
import { service, settings } from './scenario.ts'

const tableName = 'demo'

/** What any AWS SDK needs to reach the database; the credentials only have to be there. */
const region = 'eu-central-1'
const credentials = { accessKeyId: 'demo', secretAccessKey: 'demo' }
const page = { accessKeyId: 'page', secretAccessKey: 'page' }

export interface Database {
  /** The variables of a process that keeps its circuits here. */
  readonly env: Readonly<Record<string, string>>
  /** What the circuit breaker has found when it checked the empty table. */
  readonly findings: readonly Finding[]
  /** The store for the page. */
  readonly storage: DynamoDBCircuitStorage
  /** The circuit as it is stored. */
  read(storageKey: string): Promise<CircuitRecord | undefined>
  close(): Promise<void>
}

/**
 * Starts the database on a free port of this machine, with an empty table.
 *
 * @param onRequest told of every request, with the instant in milliseconds since the epoch
 */
export async function startDatabase(onRequest: (request: DatabaseRequest) => void): Promise<Database> {
  const dynalite = createRequire(import.meta.url)('dynalite') as (options: { createTableMs: number }) => Server
  const server = dynalite({ createTableMs: 0 })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await createTable(new DynamoDBClient({ endpoint, region, credentials }))
  const connect = (as = credentials) =>
    new DynamoDBCircuitStorage({ tableName, clientConfig: { endpoint, region, credentials: as } })
  const findings = await check(connect())
  const storage = connect(page)
  server.on('request', ({ headers }: IncomingMessage) => {
    // The page is no function: what it reads is not counted.
    if (headers.authorization?.includes(`Credential=${page.accessKeyId}/`)) return
    const operation = String(headers['x-amz-target']).split('.')[1]
    onRequest({ at: Date.now(), operation: operation ?? 'unknown' })
  })
  return {
    findings,
    storage,
    env: {
      CIRCUIT_BREAKER_STORAGE: 'dynamodb',
      CIRCUIT_BREAKER_TABLE_NAME: tableName,
      AWS_ENDPOINT_URL_DYNAMODB: endpoint,
      AWS_REGION: region,
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    },
    read: async (storageKey) => {
      const storage = connect()
      try {
        return await storage.getState(storageKey)
      } finally {
        await storage.close()
      }
    },
    close: async () => {
      await storage.close()
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

async function check(storage: DynamoDBCircuitStorage): Promise<Finding[]> {
  // The demo itself tells what variables say.
  const breaker = new CircuitBreaker({ services: [service], storage, ...settings }, { env: {} })
  try {
    return await breaker.check()
  } finally {
    await storage.close()
  }
}

async function createTable(client: DynamoDBClient): Promise<void> {
  await client.send(
    new CreateTableCommand({
      TableName: tableName,
      BillingMode: 'PAY_PER_REQUEST',
      AttributeDefinitions: [
        { AttributeName: 'PK', AttributeType: 'S' },
        { AttributeName: 'SK', AttributeType: 'S' },
      ],
      KeySchema: [
        { AttributeName: 'PK', KeyType: 'HASH' },
        { AttributeName: 'SK', KeyType: 'RANGE' },
      ],
    }),
  )
  for (;;) {
    const { Table } = await client.send(new DescribeTableCommand({ TableName: tableName }))
    if (Table?.TableStatus === 'ACTIVE') break
    await sleep(10)
  }
  client.destroy()
}
