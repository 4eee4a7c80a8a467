/** The clients that people use, each as their manuals show it, with its own retries off. */

import { readFileSync } from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import https from 'node:https'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { ComprehendClient, DetectSentimentCommand } from '@aws-sdk/client-comprehend'
import { DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { SESv2Client, SendEmailCommand } from '@aws-sdk/client-sesv2'
import grpc from '@grpc/grpc-js'
import axios from 'axios'
import got from 'got'
import ky from 'ky'
import Stripe from 'stripe'
import { Agent, request } from 'undici'
import { patience } from '../support/time.ts'
import {
  azure,
  elasticsearch,
  gaxios,
  graphqlRequest,
  nodeFetchClient,
  octokit,
  openai,
  slack,
  superagent,
} from './apis.ts'
import { amqplib, kafkajs, nodemailerClient } from './brokers.ts'
import { authority } from './certificates.ts'
import { type Client, parse, plain, url, within } from './client.ts'
import { ioredis, knex, mariadbClient, mongodb, mysqlClient, pgClient, redis, sequelize } from './databases.ts'
import type { FaultName } from './faults.ts'
import { grpcPath, grpcService, httpService } from './servers.ts'

export type ClientName = keyof typeof clientsByName

const globalFetch: Client = {
  kind: 'http',
  serve: plain,
  async call(attempt) {
    const response = await fetch(url(attempt.endpoint), { signal: within(attempt) })
    if (attempt.readsBody) parse(response.status, await response.text())
    return response
  },
  readLater: (response: Response) => response.text(),
}

const undici: Client = {
  kind: 'http',
  serve: plain,
  async call({ endpoint, signal, timeout = 0, readsBody }) {
    const dispatcher = new Agent({ connectTimeout: patience, headersTimeout: timeout, bodyTimeout: timeout })
    const response = await request(url(endpoint), { dispatcher, signal })
    if (readsBody) parse(response.statusCode, await response.body.text())
    return response
  },
  readLater: ({ body }: Awaited<ReturnType<typeof request>>) => body.text(),
}

const nodeHttp: Client = {
  kind: 'http',
  serve: plain,
  async call(attempt) {
    const { get } = attempt.endpoint.secure ? https : http
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get(url(attempt.endpoint), { signal: within(attempt), agent: false }, resolve).on('error', reject)
    })
    if (attempt.readsBody) parse(response.statusCode, await text(response))
    return response
  },
  readLater: (response: IncomingMessage) => text(response),
}

const axiosClient: Client = {
  kind: 'http',
  serve: plain,
  call: ({ endpoint, signal, timeout = 0 }) => axios.get(url(endpoint), { signal, timeout, proxy: false }),
}

const gotClient: Client = {
  kind: 'http',
  serve: plain,
  call: ({ endpoint, signal, timeout }) =>
    got(url(endpoint), {
      responseType: 'json',
      signal,
      timeout: timeout === undefined ? {} : { request: timeout },
      retry: { limit: 0 },
    }),
}

const kyClient: Client = {
  kind: 'http',
  serve: plain,
  async call(attempt, fault) {
    // Its timeout ends with the head of the answer.
    const isHalf = fault.startsWith('half')
    const timeout = isHalf ? false : (attempt.timeout ?? false)
    const signal = isHalf ? within(attempt) : attempt.signal
    const response = await ky(url(attempt.endpoint), { signal, timeout, retry: 0 })
    if (attempt.readsBody) parse(response.status, await response.text())
    return response
  },
  readLater: (response: Response) => response.text(),
}

interface AwsSettings {
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  readonly endpoint: string
  readonly maxAttempts: number
  readonly requestHandler: object
}

/** A client of the AWS SDK; `throttling` and `internal` are what its service calls these errors. */
function aws<C>(
  protocol: 'json' | 'xml',
  [throttling, internal]: readonly [throttling: string, internal: string],
  create: (settings: AwsSettings) => {
    send(command: C, options: { readonly abortSignal: AbortSignal }): Promise<unknown>
  },
  makeCommand: () => C,
  read?: (output: never) => Promise<unknown>,
): Client {
  const codes: Partial<Record<FaultName, string>> = {
    'throttling with a 400': throttling,
    'internal fault': internal,
    'HTTP 503': 'ServiceUnavailable',
    'HTTP 400': 'ValidationException',
    'HTTP 403': 'AccessDeniedException',
    'HTTP 404': 'ResourceNotFoundException',
    'HTTP 429': 'TooManyRequestsException',
  }
  const serve = httpService((fault) => {
    const code = codes[fault] ?? 'SomethingElse'
    if (protocol === 'xml') {
      const body = fault === 'none: it answers' ? 'content' : `<Error><Code>${code}</Code><Message>m</Message></Error>`
      return { body, headers: { 'content-type': 'application/xml' } }
    }
    const headers = { 'content-type': 'application/json', 'x-amzn-errortype': code }
    return fault === 'none: it answers'
      ? { body: '{}', headers: { 'content-type': 'application/json' } }
      : { body: JSON.stringify({ __type: code, message: 'm' }), headers }
  })
  return {
    kind: 'sdk',
    serve,
    async call({ endpoint, signal, timeout, readsBody }, fault) {
      const limit = fault.startsWith('half') ? 'socketTimeout' : 'requestTimeout'
      const client = create({
        region: 'eu-central-1',
        credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
        endpoint: url(endpoint),
        maxAttempts: 1,
        requestHandler: {
          httpAgent: { keepAlive: false },
          ...(timeout !== undefined && { [limit]: timeout, throwOnRequestTimeout: true }),
        },
      })
      const output = await client.send(makeCommand(), { abortSignal: signal })
      if (readsBody) await read?.(output as never)
      return output
    },
    ...(read && { readLater: read }),
  }
}

const stripeService = httpService((fault) => ({
  body: JSON.stringify(
    fault === 'none: it answers' ? { object: 'balance' } : { error: { type: 'api_error', message: 'm' } },
  ),
  headers: { 'content-type': 'application/json' },
}))

const stripe: Client = {
  kind: 'sdk',
  serve: stripeService,
  async call({ endpoint, timeout }) {
    const { host, port, secure } = endpoint
    const client = new Stripe('sk_test_1', {
      host,
      port,
      protocol: secure ? 'https' : 'http',
      maxNetworkRetries: 0,
      telemetry: false,
      ...(timeout !== undefined && { timeout }),
    })
    return client.balance.retrieve()
  },
}

const grpcClient: Client = {
  kind: 'grpc',
  serve: grpcService,
  async call({ endpoint, signal, timeout, folder }) {
    const credentials = endpoint.secure
      ? grpc.credentials.createSsl(readFileSync(join(folder, authority)))
      : grpc.credentials.createInsecure()
    const client = new grpc.Client(`${endpoint.host}:${endpoint.port}`, credentials, { 'grpc.enable_retries': 0 })
    const asIs = (bytes: Buffer): Buffer => bytes
    const options = timeout === undefined ? {} : { deadline: Date.now() + timeout }
    try {
      return await new Promise((resolve, reject) => {
        const call = client.makeUnaryRequest(grpcPath, asIs, asIs, Buffer.alloc(0), options, (error, answer) =>
          error ? reject(error) : resolve(answer),
        )
        signal.addEventListener('abort', () => call.cancel())
      })
    } finally {
      client.close()
    }
  },
}

const ownCode: Client = {
  kind: 'code',
  serve: httpService(() => ({ body: '' })),
  async call(_attempt, fault) {
    if (fault === 'a TypeError') return (undefined as unknown as { id: string }).id
    if (fault === "a plain Error('HTTP 503')") throw new Error('HTTP 503')
    if (fault === 'a rejected string') return Promise.reject('503')
    if (fault === 'a thrown undefined') throw undefined
    return 'ok'
  },
}

const clientsByName = {
  fetch: globalFetch,
  undici,
  'node:http': nodeHttp,
  axios: axiosClient,
  got: gotClient,
  ky: kyClient,
  'node-fetch': nodeFetchClient,
  superagent,
  gaxios,
  DynamoDB: aws(
    'json',
    ['ThrottlingException', 'InternalServerError'],
    (settings) => new DynamoDBClient(settings),
    () => new GetItemCommand({ TableName: 't', Key: { id: { S: '1' } } }),
  ),
  SESv2: aws(
    'json',
    ['ThrottlingException', 'InternalServiceErrorException'],
    (settings) => new SESv2Client(settings),
    () => new SendEmailCommand({ Content: {} }),
  ),
  Comprehend: aws(
    'json',
    ['ThrottlingException', 'InternalServerException'],
    (settings) => new ComprehendClient(settings),
    () => new DetectSentimentCommand({ Text: 't', LanguageCode: 'en' }),
  ),
  S3: aws(
    'xml',
    ['ThrottlingException', 'InternalError'],
    (settings) => new S3Client({ ...settings, forcePathStyle: true }),
    () => new GetObjectCommand({ Bucket: 'b', Key: 'k' }),
    ({ Body }: { Body: { transformToString(): Promise<string> } }) => Body.transformToString(),
  ),
  stripe,
  Elasticsearch: elasticsearch,
  Slack: slack,
  openai,
  Octokit: octokit,
  'graphql-request': graphqlRequest,
  'Azure’s pipeline': azure,
  'grpc-js': grpcClient,
  pg: pgClient,
  mysql2: mysqlClient,
  ioredis: ioredis({ maxRetriesPerRequest: 1, retryStrategy: () => 1 }),
  'ioredis, no reconnection': ioredis({ retryStrategy: () => null }),
  redis,
  mariadb: mariadbClient,
  'Sequelize, pg': sequelize,
  'knex, mysql2': knex,
  mongodb,
  kafkajs,
  amqplib,
  nodemailer: nodemailerClient,
  'your code': ownCode,
} satisfies Record<string, Client>

export const clients: Readonly<Record<ClientName, Client>> = clientsByName
export const clientNames = Object.keys(clients) as readonly ClientName[]
