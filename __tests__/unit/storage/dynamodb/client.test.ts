import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  type AttributeValue,
  DynamoDBClient,
  type DynamoDBClientConfig,
  GetItemCommand,
} from '@aws-sdk/client-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'
import { describe, expect, it, jest } from '@jest/globals'
import { CircuitStorageError } from '../../../../src/errors.ts'
import { DynamoDBCircuitStorage } from '../../../../src/storage/dynamodb/index.ts'
import { patientDynamoDB } from '../../../support/patience.ts'
import { credentials, itemOf, mocked, open, outcomes } from './mocked-table.ts'

describe('the retries of the SDK', () => {
  const retrying = { region: 'eu-central-1', credentials, maxAttempts: 3 }

  it('are off for additions and on for everything else, with an injected client', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.addOutcomes('stripe', 'v1', outcomes)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['GetItem', 'GetItem', 'GetItem'])
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      client.destroy()
    })
  })

  it('are off for additions with a client made here, which tries everything else twice', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB }
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
      await expect(storage.addOutcomes('stripe', 'v1', outcomes)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['GetItem', 'GetItem'])
      await storage.close()
    })
  })

  it.each([
    ['ProvisionedThroughputExceededException', 400, 1],
    ['ThrottlingException', 400, 1],
    ['RequestLimitExceeded', 400, 1],
    ['AccessDeniedException', 400, 1],
    ['InternalServerError', 500, 2],
  ])('ask a table that answers %s with %d no more than is of use: %d times', async (name, status, times) => {
    let requests = 0
    await withServer(
      (_, reply) => {
        requests++
        reply(status, { __type: `com.amazonaws.dynamodb.v20120810#${name}`, message: 'No.' })
      },
      async (endpoint) => {
        const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB }
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
        await expect(storage.getState('stripe')).rejects.toMatchObject({ cause: { name } })
        expect(requests).toBe(times)
        await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
        expect(requests).toBe(2 * times)
        await storage.close()
      },
    )
  })

  it.each([{ maxAttempts: 3 }, { retryMode: 'standard' }] as const)(
    'are those that the configuration asks for: %j',
    async (wanted) => {
      await withFailingServer(async (endpoint, requests) => {
        const clientConfig = { ...retrying, endpoint, ...patientDynamoDB, ...wanted }
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
        await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
        expect(requests()).toHaveLength(3)
        await storage.close()
      })
    },
  )

  it('that the configuration brings along are asked', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const asked: string[] = []
      const retryStrategy = {
        acquireInitialRetryToken: async () => ({ getRetryCount: () => 0, getRetryDelay: () => 0 }),
        refreshRetryTokenForRetry: async () => {
          asked.push('again?')
          throw new Error('No.')
        },
        recordSuccess: () => {},
      }
      const clientConfig = { region: 'eu-central-1', credentials, endpoint, ...patientDynamoDB, retryStrategy }
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
      await expect(storage.getState('stripe')).rejects.toBeInstanceOf(CircuitStorageError)
      expect([requests().length, asked]).toEqual([1, ['again?']])
      await storage.close()
    })
  })

  it('are off for additions also where the client caches the handlers that retry', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint, cacheMiddleware: true })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      await expect(storage.addOutcomes('stripe', 'v1', outcomes)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toEqual(['UpdateItem'])
      await expect(storage.compareAndSetState('stripe', 'v1', open)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(requests()).toHaveLength(3)
      client.destroy()
    })
  })

  it('are off for additions also where the middleware that retries is not the one we know', async () => {
    await withFailingServer(async (endpoint, requests) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const clone = client.middlewareStack.clone.bind(client.middlewareStack)
      client.middlewareStack.clone = () => Object.assign(clone(), { remove: () => false })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.addOutcomes('stripe', 'v1', outcomes)).rejects.toMatchObject({
        message: expect.stringContaining('InternalServerError (HTTP 500)'),
      })
      expect(requests()).toEqual(['UpdateItem'])
      client.destroy()
    })
  })

  it('leave what the user attached to the client in place, for additions too', async () => {
    await withFailingServer(async (endpoint) => {
      const client = new DynamoDBClient({ ...retrying, endpoint })
      const seen: (string | undefined)[] = []
      client.middlewareStack.add((next, { commandName }) => (args) => {
        seen.push(commandName)
        return next(args)
      })
      const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
      await expect(storage.addOutcomes('stripe', 'v1', outcomes)).rejects.toBeInstanceOf(CircuitStorageError)
      expect(seen).toEqual(['UpdateItemCommand'])
      expect(client.middlewareStack.identify().some((name) => name.startsWith('retryMiddleware'))).toBe(true)
      client.destroy()
    })
  })

  it('do not matter to a test double that can only send', async () => {
    const client = { send: async () => ({ Attributes: itemOf(open) }) } as unknown as DynamoDBClient
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
    await expect(storage.addOutcomes('stripe', 'v2', outcomes)).resolves.toEqual({
      applied: true,
      current: open,
    })
  })

  it('that found a lost reply make a compare-and-set one success, over a real connection', async () => {
    let stored: Record<string, AttributeValue> | undefined
    await withServer(
      (body, reply) => {
        if (stored)
          return reply(400, {
            __type: 'com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException',
            Item: stored,
          })
        expect(body.ExpressionAttributeValues[':version']).toEqual({ S: 'v2' })
        stored = itemOf(open)
        return reply(500, { __type: 'com.amazonaws.dynamodb.v20120810#InternalServerError' })
      },
      async (endpoint) => {
        const client = new DynamoDBClient({ ...retrying, endpoint })
        const storage = new DynamoDBCircuitStorage({ tableName: 'app', client })
        await expect(storage.compareAndSetState('stripe', 'v1', open)).resolves.toEqual({
          applied: true,
          current: open,
        })
        client.destroy()
      },
    )
  })
})

describe('the client', () => {
  it('that is made here has short timeouts and two attempts, which its configuration overrides', async () => {
    const made = await clientsMadeBy({ region: 'eu-central-1', credentials })
    expect(await made.config.maxAttempts()).toBe(2)
    expect(await handlerOptionsOf(made)).toMatchObject({
      connectionTimeout: 1_000,
      requestTimeout: 2_000,
      throwOnRequestTimeout: true,
    })

    const tuned = await clientsMadeBy({
      region: 'eu-central-1',
      credentials,
      maxAttempts: 5,
      requestHandler: { requestTimeout: 300 },
    })
    expect(await tuned.config.maxAttempts()).toBe(5)
    expect(await handlerOptionsOf(tuned)).toMatchObject({ connectionTimeout: 1_000, requestTimeout: 300 })
  })

  it('that is made with another retry mode keeps it, and makes two attempts', async () => {
    const made = await clientsMadeBy({ region: 'eu-central-1', credentials, retryMode: 'adaptive' })
    expect(await made.config.maxAttempts()).toBe(2)
    expect(await made.config.retryStrategy()).toMatchObject({ mode: 'adaptive' })
  })

  it('gets a request handler that was configured as it is', async () => {
    const requestHandler = {
      handle: () => Promise.reject(new Error('from my handler')),
      httpHandlerConfigs: () => ({}),
      updateHttpClientConfig() {},
      destroy: jest.fn(),
    }
    const storage = new DynamoDBCircuitStorage({
      tableName: 'app',
      clientConfig: { region: 'eu-central-1', credentials, endpoint: 'http://127.0.0.1:9', requestHandler },
    })
    await expect(storage.getState('stripe')).rejects.toThrow('from my handler')
    await storage.close()
    expect(requestHandler.destroy).toHaveBeenCalledTimes(1)
  })

  it('gets a request handler that is an instance of a class as it is', async () => {
    class Handler {
      handle(): Promise<never> {
        return Promise.reject(new Error('from my class'))
      }
      httpHandlerConfigs(): object {
        return {}
      }
      updateHttpClientConfig(): void {}
      destroy(): void {}
    }
    const clientConfig = {
      region: 'eu-central-1',
      credentials,
      endpoint: 'http://127.0.0.1:9',
      requestHandler: new Handler() as never,
    }
    await expect(new DynamoDBCircuitStorage({ tableName: 'app', clientConfig }).getState('a')).rejects.toThrow(
      'from my class',
    )
  })

  it('that was injected is not closed', async () => {
    const { storage, aws, client } = mocked()
    const destroy = jest.spyOn(client, 'destroy')
    aws.on(GetItemCommand).resolves({})
    await storage.getState('stripe')
    await storage.close()
    expect(destroy).not.toHaveBeenCalled()
  })

  it('is not even made by closing', async () => {
    await expect(new DynamoDBCircuitStorage({ tableName: 'app' }).close()).resolves.toBeUndefined()
  })

  it('that cannot be made rejects the operation, and is tried again at the next one', async () => {
    let broken = true
    const clientConfig = {
      region: 'eu-central-1',
      credentials,
      endpoint: 'http://127.0.0.1:9',
      get requestHandler() {
        if (broken) throw new Error('broken configuration')
        return { handle: () => Promise.reject(new Error('reached')), destroy() {} }
      },
    } as unknown as DynamoDBClientConfig
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
    const operation = storage.getState('stripe')
    const closed = storage.close()
    await expect(operation).rejects.toThrow('broken configuration')
    await expect(closed).resolves.toBeUndefined()
    await expect(storage.getState('stripe')).rejects.toThrow('broken configuration')
    broken = false
    await expect(storage.getState('stripe')).rejects.toThrow('reached')
    await storage.close()
  })
})

describe('the SDK', () => {
  it.each(['@aws-sdk/client-dynamodb', '@aws-sdk/util-dynamodb'])(
    'names %s where it is missing, and is looked for again',
    async (name) => {
      const cause = Object.assign(new Error(`Cannot find package '${name}'`), { code: 'ERR_MODULE_NOT_FOUND' })
      await jest.isolateModulesAsync(async () => {
        let missing = true
        jest.unstable_mockModule(name, async () => {
          if (missing) throw cause
          return { marshall, unmarshall, GetItemCommand }
        })
        const fresh = await import('../../../../src/storage/dynamodb/index.ts')
        const client = { send: async () => ({ Item: itemOf(open) }) } as unknown as DynamoDBClient
        const storage = new fresh.DynamoDBCircuitStorage({ tableName: 'app', client })
        await expect(storage.getState('stripe')).rejects.toMatchObject({
          name: 'CircuitStorageError',
          operation: 'getState',
          service: 'stripe',
          kind: 'misconfigured',
          message: expect.stringContaining(`npm install ${name}`),
          cause,
        })
        missing = false
        await expect(storage.getState('stripe')).resolves.toEqual(open)
        jest.unstable_unmockModule(name)
      })
    },
  )
})

/** The client that a storage makes for itself, caught in the act. */
async function clientsMadeBy(clientConfig: DynamoDBClientConfig): Promise<DynamoDBClient> {
  const send = jest.spyOn(DynamoDBClient.prototype, 'send').mockImplementation(async () => ({}))
  try {
    const storage = new DynamoDBCircuitStorage({ tableName: 'app', clientConfig })
    await storage.getState('stripe')
    return send.mock.contexts[0] as DynamoDBClient
  } finally {
    send.mockRestore()
  }
}

async function handlerOptionsOf(client: DynamoDBClient): Promise<object> {
  const handler = client.config.requestHandler as unknown as { configProvider: Promise<object> }
  return handler.configProvider
}

/** A real server that answers 500 to everything; `requests` hands out, and forgets, what was asked. */
async function withFailingServer(test: (endpoint: string, requests: () => string[]) => Promise<void>): Promise<void> {
  let seen: string[] = []
  await withServer(
    (_, reply, action) => {
      seen.push(action)
      reply(500, { __type: 'com.amazonaws.dynamodb.v20120810#InternalServerError', message: 'Oops' })
    },
    (endpoint) =>
      test(endpoint, () => {
        const requests = seen
        seen = []
        return requests
      }),
  )
}

async function withServer(
  // biome-ignore lint/suspicious/noExplicitAny: the body of any request
  answer: (body: any, reply: (status: number, body: object) => void, action: string) => void,
  test: (endpoint: string) => Promise<void>,
): Promise<void> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const action = String(request.headers['x-amz-target']).split('.')[1] ?? ''
    const reply = (status: number, body: object) => {
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(body))
    }
    answer(JSON.parse(Buffer.concat(chunks).toString()), reply, action)
  })
  // Node closes what was idle for 5 s, and a client that uses it at that moment asks again.
  server.keepAliveTimeout = 300_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await test(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}
