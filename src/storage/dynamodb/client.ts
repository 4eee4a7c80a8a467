/**
 * The client: loading the AWS SDK, the defaults of a client that is made here, and sending without retries.
 *
 * @module
 */

import type * as DynamoDB from '@aws-sdk/client-dynamodb'
import type { DynamoDBClient, DynamoDBClientConfig } from '@aws-sdk/client-dynamodb'
import type * as Marshalling from '@aws-sdk/util-dynamodb'
import { CircuitStorageError } from '../../errors.ts'
import type { Context } from './errors.ts'
import type { ClientOptions, MakeClient } from './options.ts'

/** The parts of the AWS SDK that the storage needs. */
export type Sdk = typeof DynamoDB & Pick<typeof Marshalling, 'marshall' | 'unmarshall'>

export interface Connection {
  readonly sdk: Sdk
  readonly client: DynamoDBClient
}

export async function connect({ client, clientConfig }: ClientOptions, context: Context): Promise<Connection> {
  const sdk = await loadSdk(context)
  if (typeof client === 'object') return { sdk, client }
  const config = withDefaults(clientConfig)
  return { sdk, client: client ? made(client, sdk, config, context) : new sdk.DynamoDBClient(config) }
}

function made(makeClient: MakeClient, sdk: Sdk, config: DynamoDBClientConfig, context: Context): DynamoDBClient {
  let cause: unknown
  try {
    const client = makeClient(sdk.DynamoDBClient, config)
    if (typeof client.send === 'function') return client
  } catch (error) {
    cause = error
  }
  const message = `The function that makes the client of the DynamoDB storage ${cause ? `has failed: ${cause}` : 'made none'}.`
  throw new CircuitStorageError(message, { ...context, kind: 'misconfigured', cause })
}

/** Loads the AWS SDK. The imports are inside `try`, so that bundlers only warn of a package that is not installed. */
async function loadSdk(context: Context): Promise<Sdk> {
  let name = '@aws-sdk/client-dynamodb'
  try {
    const commands = await import('@aws-sdk/client-dynamodb')
    name = '@aws-sdk/util-dynamodb'
    const { marshall, unmarshall } = await import('@aws-sdk/util-dynamodb')
    return { ...commands, marshall, unmarshall }
  } catch (cause) {
    const { whyNotLoaded } = await import('../load-failures.ts')
    const message = `The DynamoDB storage could not load ${whyNotLoaded(name, cause)}`
    throw new CircuitStorageError(message, { ...context, kind: 'misconfigured', cause })
  }
}

/** The name that every version of the SDK gives to the middleware that retries. */
const retryMiddleware = 'retryMiddleware'

/**
 * The same client, but each request is sent once: an addition that the SDK sent twice could count twice.
 *
 * It is the given object in all but its middleware stack, so that tracing and test doubles that the user attached to the
 * client still work. The retry middleware is not just removed but replaced by one that does nothing, because others,
 * like the one that signs, are placed relative to it.
 */
export function withoutRetries({ client, sdk }: Connection): DynamoDBClient {
  const stack = client.middlewareStack?.clone()
  // A test double that only sends has no middleware, and does not retry.
  if (!stack) return client
  if (!stack.remove(retryMiddleware)) {
    // Shares the HTTP handler of the given client, so there is nothing of it to close.
    const { retryStrategy: _, ...config } = client.config as unknown as DynamoDBClientConfig
    return new sdk.DynamoDBClient({ ...config, maxAttempts: 1 })
  }
  stack.add((next) => next, {
    name: retryMiddleware,
    step: 'finalizeRequest',
    priority: 'high',
    tags: ['RETRY'],
  })
  return Object.create(client, {
    middlewareStack: { value: stack },
    // A client with cacheMiddleware caches resolved handlers. This one must not find those that retry.
    handlers: { value: undefined, writable: true, configurable: true },
  })
}

function withDefaults(config: DynamoDBClientConfig | undefined): DynamoDBClientConfig {
  const requestHandler = config?.requestHandler
  const timeouts = { connectionTimeout: 1_000, requestTimeout: 2_000, throwOnRequestTimeout: true }
  // A handler, or a function that provides its options, is taken as it is; plain options keep our timeouts.
  const isPlain = requestHandler === undefined || (typeof requestHandler === 'object' && !('handle' in requestHandler))
  const { maxAttempts, retryMode, retryStrategy } = config ?? {}
  const leavesRetriesToUs = maxAttempts === undefined && retryMode === undefined && retryStrategy === undefined
  return {
    ...(leavesRetriesToUs ? { maxAttempts: 2, retryStrategy: oneRetry } : { maxAttempts: 2 }),
    ...config,
    requestHandler: isPlain ? { ...timeouts, ...requestHandler } : requestHandler,
  }
}

/**
 * Tries again at once where a connection broke or the service failed. It does not where a table is throttled: the SDK
 * would wait longer than anybody waits for the store, and the table has too many requests already.
 */
const oneRetry = {
  mode: 'standard',
  acquireInitialRetryToken: async () => retryToken(0),
  refreshRetryTokenForRetry: async (token: RetryToken, { errorType }: { readonly errorType: string }) => {
    const isWorthIt = errorType === 'TRANSIENT' || errorType === 'SERVER_ERROR'
    if (!isWorthIt || token.getRetryCount() > 0) throw new Error('There is no other attempt.')
    return retryToken(1)
  },
  recordSuccess: () => {},
} as unknown as NonNullable<DynamoDBClientConfig['retryStrategy']>

interface RetryToken {
  getRetryCount(): number
  /** Milliseconds. */
  getRetryDelay(): number
}

function retryToken(retries: number): RetryToken {
  return { getRetryCount: () => retries, getRetryDelay: () => 0 }
}
