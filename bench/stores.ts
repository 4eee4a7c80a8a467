/**
 * The stores on this machine.
 *
 * @module
 */

import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'
import { startRedis } from '../__tests__/support/redis-server.ts'
import type { ICircuitStorage } from '../src/index.ts'
import { DynamoDBCircuitStorage } from '../src/storage/dynamodb/index.ts'
import { RedisCircuitStorage } from '../src/storage/redis/index.ts'

export interface Store {
  readonly name: string
  readonly port: number
  /** A storage with a client of its own; by another port it goes through a proxy. */
  connect(port?: number): ICircuitStorage
  /** A storage for very many requests at once, which waits longer than the adapters' own clients would. */
  connectCrowd(): ICircuitStorage
}

/** How many connections to DynamoDB a crowd has. */
export const crowd = 100

export interface Stores extends AsyncDisposable {
  readonly all: readonly Store[]
}

export async function startStores(): Promise<Stores> {
  const [database, redis] = await Promise.all([startDynamoDBLocal(), startRedis()])
  const tableName = await database.createTable()
  const databasePort = Number(new URL(database.endpoint).port)
  return {
    all: [
      {
        name: 'DynamoDB Local',
        port: databasePort,
        connect: (port = databasePort) => {
          const endpoint = `http://127.0.0.1:${port}`
          return new DynamoDBCircuitStorage({ tableName, clientConfig: { ...database.clientConfig, endpoint } })
        },
        connectCrowd: () => {
          const httpAgent = { maxSockets: crowd, keepAlive: true }
          const patience = {
            connectionTimeout: 30_000,
            requestTimeout: 60_000,
            socketAcquisitionWarningTimeout: 60_000,
          }
          const client = database.client({ requestHandler: { httpAgent, ...patience } })
          return new DynamoDBCircuitStorage({ tableName, client })
        },
      },
      {
        name: 'Redis',
        port: redis.port,
        connect: (port = redis.port) => new RedisCircuitStorage({ url: `redis://127.0.0.1:${port}` }),
        connectCrowd: () => new RedisCircuitStorage({ url: redis.url, options: { commandTimeout: 60_000 } }),
      },
    ],
    [Symbol.asyncDispose]: async () => {
      await Promise.all([database.stop(), redis.stop()])
    },
  }
}
