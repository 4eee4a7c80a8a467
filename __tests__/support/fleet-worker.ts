/**
 * A process of a fleet: many breakers that share nothing with those of other processes but the store. Driven over IPC by
 * `fleet.ts`.
 *
 * @module
 */

import { setTimeout as sleep } from 'node:timers/promises'
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  type ICircuitStorage,
  isCircuitOpenError,
  type StateChange,
} from '../../src/index.ts'

/** The store of a fleet. */
export type FleetStore =
  | { readonly type: 'dynamodb'; readonly endpoint: string; readonly tableName: string }
  | { readonly type: 'redis'; readonly url: string; readonly keyPrefix: string }

export interface FleetWorkerSetup {
  readonly store: FleetStore
  readonly breakers: number
  readonly options: Omit<CircuitBreakerOptions<'stripe'>, 'storage' | 'services'>
}

export type FleetCommand =
  | { readonly kind: 'load' }
  /** Every breaker makes one call that does this, and flushes. `holds`: how long the operation takes, in milliseconds. */
  | { readonly kind: 'call'; readonly does: 'fail' | 'succeed'; readonly holds?: number; readonly remaining?: number }
  /** Every breaker has one invocation after another until `stop`: it loads, makes a call and flushes. */
  | { readonly kind: 'traffic'; readonly does: 'fail' | 'succeed' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'report' }

export interface CallResults {
  readonly ran: number
  readonly refused: number
}

export interface TrafficResults extends CallResults {
  /** The longest invocation, in milliseconds. */
  readonly slowest: number
}

export interface FleetReport {
  readonly events: readonly StateChange[]
  /** Requests by the name of the command. */
  readonly requests: Readonly<Record<string, number>>
  readonly states: readonly string[]
  readonly storageErrors: readonly string[]
  /** What callers were thrown, or nobody caught, other than the service's own errors and refusals. */
  readonly unexpected: readonly string[]
}

/** What the service answers when it is down. */
class ServiceError extends Error {
  readonly status = 503
}

/** Between two invocations of one breaker, in milliseconds. */
const pause = 25

const setup = JSON.parse(process.argv[2] ?? '{}') as FleetWorkerSetup
const requests: Record<string, number> = {}
const events: StateChange[] = []
const storageErrors: string[] = []
const unexpected: string[] = []
const storageOf = await storages(setup.store)
const breakers = Array.from(
  { length: setup.breakers },
  () =>
    new CircuitBreaker(
      {
        ...setup.options,
        services: ['stripe'],
        storage: storageOf(),
        onStateChange: (change) => events.push(change),
        onStorageError: ({ error }) => storageErrors.push(`${error.message} ${error.cause ?? ''}`),
      },
      { env: {} },
    ),
)

function count(name: string): void {
  requests[name] = (requests[name] ?? 0) + 1
}

/** Makes the store of each breaker. On DynamoDB they share the sockets of one client; on Redis each has its connection. */
async function storages(store: FleetStore): Promise<() => ICircuitStorage> {
  if (store.type === 'redis') {
    const { url, keyPrefix } = store
    const { RedisCircuitStorage } = await import('../../src/storage/redis.ts')
    await countRedisCommands()
    return () => new RedisCircuitStorage({ url, keyPrefix })
  }
  const { endpoint, tableName } = store
  const { DynamoDBClient } = await import('@aws-sdk/client-dynamodb')
  const { DynamoDBCircuitStorage } = await import('../../src/storage/dynamodb.ts')
  const client = new DynamoDBClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  })
  client.middlewareStack.add(
    (next, context) => (args) => {
      count((context.commandName ?? 'unknown').replace('Command', ''))
      return next(args)
    },
    { step: 'initialize', name: 'countRequests' },
  )
  return () => new DynamoDBCircuitStorage({ tableName, client })
}

/** All clients of this process; a command that waits for the connection first, and so is sent twice, counts once. */
async function countRedisCommands(): Promise<void> {
  const { Redis } = await import('ioredis')
  const sent = new WeakSet<object>()
  const send = Redis.prototype.sendCommand
  Redis.prototype.sendCommand = function (command, ...rest) {
    if (!sent.has(command)) count(command.name)
    sent.add(command)
    return send.call(this, command, ...rest)
  }
}

/** One call; whether the operation ran or was refused. */
async function invoke(
  breaker: (typeof breakers)[number],
  requestId: string,
  does: 'fail' | 'succeed',
  { holds, remaining }: { readonly holds?: number; readonly remaining?: number } = {},
): Promise<'ran' | 'refused' | undefined> {
  const context = {
    awsRequestId: requestId,
    ...(remaining !== undefined && { getRemainingTimeInMillis: () => remaining }),
  }
  let ran = false
  try {
    await breaker.callExternalFor(context)('stripe', async () => {
      ran = true
      process.send?.({ started: true })
      if (holds !== undefined) await sleep(holds)
      if (does === 'fail') throw new ServiceError('down')
    })
  } catch (error) {
    if (isCircuitOpenError(error)) return 'refused'
    if (!(error instanceof ServiceError)) unexpected.push(`call: ${String(error)}`)
  }
  return ran ? 'ran' : undefined
}

async function call(command: Extract<FleetCommand, { kind: 'call' }>): Promise<CallResults> {
  const results = { ran: 0, refused: 0 }
  await Promise.all(
    breakers.map(async (breaker, index) => {
      const result = await invoke(breaker, `${process.pid}-${index}`, command.does, command)
      if (result !== undefined) results[result]++
      await breaker.flush()
    }),
  )
  return results
}

let isStopped = true

async function traffic(command: Extract<FleetCommand, { kind: 'traffic' }>): Promise<TrafficResults> {
  const results = { ran: 0, refused: 0, slowest: 0 }
  isStopped = false
  await Promise.all(
    breakers.map(async (breaker, index) => {
      // Not all at once: an instance comes when its invocations come.
      await sleep((pause * index) / breakers.length)
      for (let round = 0; !isStopped; round++) {
        const startedAt = performance.now()
        try {
          await breaker.load()
          const result = await invoke(breaker, `${process.pid}-${index}-${round}`, command.does)
          if (result !== undefined) results[result]++
          await breaker.flush()
        } catch (error) {
          unexpected.push(`load or flush: ${String(error)}`)
        }
        results.slowest = Math.max(results.slowest, performance.now() - startedAt)
        await sleep(pause)
      }
    }),
  )
  return results
}

async function answer(command: FleetCommand): Promise<unknown> {
  switch (command.kind) {
    case 'load':
      await Promise.all(breakers.map((breaker) => breaker.load()))
      return undefined
    case 'call':
      return call(command)
    case 'traffic':
      return traffic(command)
    case 'stop':
      isStopped = true
      return undefined
    case 'report': {
      const states = breakers.map((breaker) => breaker.circuits.stripe.state)
      return { events, requests, states, storageErrors, unexpected } satisfies FleetReport
    }
  }
}

for (const event of ['uncaughtException', 'unhandledRejection']) {
  process.on(event, (error: unknown) => unexpected.push(`${event}: ${String(error)}`))
}
process.on('message', ({ id, command }: { id: number; command: FleetCommand }) => {
  answer(command).then((result) => process.send?.({ id, result }))
})
process.on('disconnect', () => process.exit())
process.send?.({ ready: true })
