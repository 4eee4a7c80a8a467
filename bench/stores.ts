/**
 * The stores on this machine.
 *
 * @module
 */

import { startDynamoDBLocal } from '../__tests__/support/dynamodb-local.ts'
import { startRedis } from '../__tests__/support/redis-server.ts'
import type { ICircuitStorage } from '../src/index.ts'
import { DynamoDBCircuitStorage } from '../src/storage/dynamodb.ts'
import { RedisCircuitStorage } from '../src/storage/redis.ts'

export interface Store {
  readonly name: string
  readonly port: number
  /** A storage with a client of its own; by another port it goes through a proxy. */
  connect(port?: number): ICircuitStorage
}

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
          // As many connections as a fleet would have, as far as one process can.
          const requestHandler = {
            httpAgent: { maxSockets: 200, keepAlive: true },
            socketAcquisitionWarningTimeout: 60_000,
          }
          const clientConfig = { ...database.clientConfig, endpoint, requestHandler }
          return new DynamoDBCircuitStorage({ tableName, clientConfig })
        },
      },
      {
        name: 'Redis',
        port: redis.port,
        connect: (port = redis.port) => new RedisCircuitStorage({ url: `redis://127.0.0.1:${port}` }),
      },
    ],
    [Symbol.asyncDispose]: async () => {
      await Promise.all([database.stop(), redis.stop()])
    },
  }
}
