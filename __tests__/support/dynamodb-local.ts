/**
 * DynamoDB in this machine: AWS's own DynamoDB Local (Java), which is what the storage is tested against, and dynalite
 * (in this process), which knows neither `ReturnValuesOnConditionCheckFailure` nor much else and so stands for services
 * that are only nearly DynamoDB.
 *
 * @module
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import {
  CreateTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
  type DynamoDBClientConfig,
  ListTablesCommand,
} from '@aws-sdk/client-dynamodb'
import { dynamoDBLocalFolder, installDynamoDBLocal } from '../../scripts/dynamodb-local.ts'
import { waitFor } from './time.ts'

export interface DynamoDBServer {
  readonly endpoint: string
  /** What a client needs to reach the server. */
  readonly clientConfig: DynamoDBClientConfig
  /** The same as environment variables. */
  readonly variables: Readonly<Record<string, string>>
  /** A new client; `stop` closes it. */
  client(config?: DynamoDBClientConfig): DynamoDBClient
  /** A new table with the keys `PK` and `SK`, or only `PK`; resolves to its name. */
  createTable(options?: { readonly singleKey?: boolean }): Promise<string>
  stop(): Promise<void>
}

/**
 * Starts DynamoDB Local in memory on a free port; installs it if need be. Java takes seconds to start: within a run of
 * Jest its keeper shares one server, where each test makes tables of its own, and where `RUNNING_DYNAMODB_PORT` names
 * one that runs already, that one is used. Neither is stopped by `stop`.
 *
 * @param own starts another one all the same
 */
export async function startDynamoDBLocal({ own = false } = {}): Promise<DynamoDBServer> {
  const running = own ? undefined : (process.env['RUNNING_DYNAMODB_PORT'] ?? (await sharedPort()))
  if (running) return serverAt(Number(running), async () => {})
  await installDynamoDBLocal()
  const port = await freePort()
  const java = startJava(port)
  const server = serverAt(port, java.stop)
  try {
    await Promise.race([java.died, answering(server)])
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}

/** @throws what keeps the keeper from starting it */
async function sharedPort(): Promise<string | undefined> {
  const keeper = process.env['SERVER_KEEPER']
  if (keeper === undefined) return undefined
  const response = await fetch(keeper)
  const text = await response.text()
  if (!response.ok) throw new Error(text)
  return text
}

/** Starts dynalite in this process on a free port. */
export async function startDynalite(): Promise<DynamoDBServer> {
  const dynalite = createRequire(import.meta.url)('dynalite') as (options: Record<string, unknown>) => Server
  const server = dynalite({ createTableMs: 0, updateTableMs: 0, deleteTableMs: 0 })
  // Node closes what was idle for 5 s, and a client that uses it at that moment is reset: AWS waits for longer.
  server.keepAliveTimeout = 300_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return serverAt(port, async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
}

function serverAt(port: number, stop: () => Promise<void>): DynamoDBServer {
  const endpoint = `http://127.0.0.1:${port}`
  const clientConfig: DynamoDBClientConfig = {
    endpoint,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  }
  const variables = {
    AWS_ENDPOINT_URL_DYNAMODB: endpoint,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'local',
    AWS_SECRET_ACCESS_KEY: 'local',
  }
  const clients: DynamoDBClient[] = []
  const client = (config: DynamoDBClientConfig = {}): DynamoDBClient => {
    const created = new DynamoDBClient({ ...clientConfig, ...config })
    clients.push(created)
    return created
  }
  const createTable = async ({ singleKey = false } = {}): Promise<string> => {
    const TableName = `circuits-${randomUUID()}`
    const keys = singleKey ? ['PK'] : ['PK', 'SK']
    const administrator = client()
    await administrator.send(
      new CreateTableCommand({
        TableName,
        BillingMode: 'PAY_PER_REQUEST',
        AttributeDefinitions: keys.map((AttributeName) => ({ AttributeName, AttributeType: 'S' })),
        KeySchema: keys.map((AttributeName, index) => ({ AttributeName, KeyType: index === 0 ? 'HASH' : 'RANGE' })),
      }),
    )
    await waitFor(
      `the table ${TableName} is active`,
      async () => (await administrator.send(new DescribeTableCommand({ TableName }))).Table?.TableStatus,
      (status) => status === 'ACTIVE',
    )
    return TableName
  }
  return {
    endpoint,
    clientConfig,
    variables,
    client,
    createTable,
    stop: async () => {
      for (const created of clients) created.destroy()
      await stop()
    },
  }
}

/** Waits for its first answer. */
async function answering(server: DynamoDBServer): Promise<void> {
  const client = server.client({ maxAttempts: 1 })
  await waitFor(
    'DynamoDB Local answers',
    () => client.send(new ListTablesCommand({})).catch((error: unknown) => error),
    (answer) => !(answer instanceof Error),
  )
}

/**
 * Runs `java "$@"` and kills it when the standard input ends: with the pipe of a process that was itself killed, too.
 * The memory of the database is lost either way, so it is not asked politely.
 */
const killedWithParent = `
exec 3<&0
java "$@" 3<&- &
java=$!
{ cat <&3 >/dev/null; kill -9 "$java"; } 2>/dev/null &
wait "$java"
`

function startJava(port: number): { readonly died: Promise<never>; readonly stop: () => Promise<void> } {
  const memory = ['-Xms16m', '-Xmx192m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']
  const jar = ['-Djava.library.path=./DynamoDBLocal_lib', '-jar', 'DynamoDBLocal.jar']
  const options = ['-inMemory', '-sharedDb', '-disableTelemetry', '-port', String(port)]
  const shell = spawn('sh', ['-c', killedWithParent, 'sh', ...memory, ...jar, ...options], {
    cwd: dynamoDBLocalFolder,
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  let output = ''
  shell.stderr.on('data', (chunk) => {
    output = `${output}${chunk}`.slice(-2_000)
  })
  shell.stdin.on('error', () => {})
  const ended = new Promise<number | null>((resolve) => shell.once('close', resolve))
  const died = ended.then((code): never => {
    throw new Error(`DynamoDB Local ended with code ${code}: ${output}`)
  })
  died.catch(() => {})
  letParentExit(shell)
  return {
    died,
    stop: async () => {
      shell.ref()
      shell.stdin.end()
      await ended
    },
  }
}

/** A test that forgets to stop the server ends all the same, and the server with it. */
function letParentExit(child: ChildProcess): void {
  child.unref()
  for (const stream of [child.stdin, child.stderr]) (stream as Socket | null)?.unref()
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}
