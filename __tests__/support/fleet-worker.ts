/**
 * A process of a fleet: many breakers that share nothing with those of other processes but the store. Driven over IPC by
 * `fleet.ts`, for one test after another. The clock of the breakers goes on when a test says so, beside real time.
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
import { patientDynamoDB, patientRedis, patientStore } from './patience.ts'

/** The store of a fleet. */
export type FleetStore =
  | { readonly type: 'dynamodb'; readonly endpoint: string; readonly tableName: string }
  | { readonly type: 'redis'; readonly url: string; readonly keyPrefix: string }

export interface FleetWorkerSetup {
  readonly store: FleetStore
  readonly breakers: number
  readonly options: Omit<CircuitBreakerOptions<'stripe'>, 'storage' | 'services'>
}

/** How a call is made. */
export interface CallOptions {
  /** The only breaker that makes one, by its number; `undefined`: all of them do. */
  readonly only?: number
  /** Whether the operation takes until it is released. */
  readonly isHeld?: boolean
  /** The rest of the invocation, in milliseconds. */
  readonly remaining?: number
}

export type FleetCommand =
  /** Makes new breakers, whose clock is this much ahead, and forgets the ones before. */
  | { readonly kind: 'equip'; readonly setup: FleetWorkerSetup; readonly ahead: number }
  /** Sets the clock of the breakers forward. */
  | { readonly kind: 'advance'; readonly by: number }
  | { readonly kind: 'load' }
  /** Every breaker makes one call that does this, and flushes. */
  | ({ readonly kind: 'call'; readonly does: 'fail' | 'succeed' } & CallOptions)
  /** Ends the operations that are held. */
  | { readonly kind: 'release' }
  /** Every breaker has one invocation after another until `stop`: it loads, makes a call and flushes. */
  | { readonly kind: 'traffic'; readonly does: 'fail' | 'succeed' }
  /** Ends when every breaker has had an invocation from beginning to end since. */
  | { readonly kind: 'turn' }
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

let requests: Record<string, number> = {}
let events: StateChange[] = []
let storageErrors: string[] = []
let unexpected: string[] = []
let breakers: CircuitBreaker<'stripe'>[] = []
let closeStores = async (): Promise<unknown> => undefined
let ahead = 0

async function equip(setup: FleetWorkerSetup): Promise<void> {
  await closeStores()
  ;[requests, events, storageErrors, unexpected] = [{}, [], [], []]
  const { make, close } = await storages(setup.store)
  closeStores = close
  breakers = Array.from(
    { length: setup.breakers },
    () =>
      new CircuitBreaker(
        {
          ...patientStore,
          ...setup.options,
          services: ['stripe'],
          storage: make(),
          onStateChange: (change) => events.push(change),
          onStorageError: ({ error }) => storageErrors.push(`${error.message} ${error.cause ?? ''}`),
        },
        { env: {}, now: () => Date.now() + ahead },
      ),
  )
}

function count(name: string): void {
  requests[name] = (requests[name] ?? 0) + 1
}

interface Stores {
  make(): ICircuitStorage
  close(): Promise<unknown>
}

/**
 * Makes the store of each breaker, all of them patient. On DynamoDB they share the sockets of one client; on Redis each
 * has its connection. A killed Redis leaves no timer behind, which `socketTimeout` would.
 */
async function storages(store: FleetStore): Promise<Stores> {
  if (store.type === 'redis') {
    const { url, keyPrefix } = store
    const { RedisCircuitStorage } = await import('../../src/storage/redis/index.ts')
    await countRedisCommands()
    const options = { ...patientRedis, socketTimeout: undefined }
    const made: InstanceType<typeof RedisCircuitStorage>[] = []
    const make = () => {
      const storage = new RedisCircuitStorage({ url, keyPrefix, options })
      made.push(storage)
      return storage
    }
    return { make, close: () => Promise.all(made.map((storage) => storage.close())) }
  }
  const { endpoint, tableName } = store
  const { DynamoDBClient } = await import('@aws-sdk/client-dynamodb')
  const { DynamoDBCircuitStorage } = await import('../../src/storage/dynamodb/index.ts')
  const client = new DynamoDBClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    ...patientDynamoDB,
  })
  client.middlewareStack.add(
    (next, context) => (args) => {
      count((context.commandName ?? 'unknown').replace('Command', ''))
      return next(args)
    },
    { step: 'initialize', name: 'countRequests' },
  )
  return { make: () => new DynamoDBCircuitStorage({ tableName, client }), close: async () => client.destroy() }
}

let countsRedisCommands = false

/** All clients of this process; a command that waits for the connection first, and so is sent twice, counts once. */
async function countRedisCommands(): Promise<void> {
  if (countsRedisCommands) return
  countsRedisCommands = true
  const { Redis } = await import('ioredis')
  const sent = new WeakSet<object>()
  const send = Redis.prototype.sendCommand
  Redis.prototype.sendCommand = function (command, ...rest) {
    if (!sent.has(command)) count(command.name)
    sent.add(command)
    return send.call(this, command, ...rest)
  }
}

/** A held operation waits for it. */
let released = Promise.withResolvers<void>()

/** One call; whether the operation ran or was refused. */
async function invoke(
  breaker: CircuitBreaker<'stripe'>,
  requestId: string,
  does: 'fail' | 'succeed',
  { isHeld = false, remaining }: CallOptions = {},
): Promise<'ran' | 'refused' | undefined> {
  const context = {
    awsRequestId: requestId,
    ...(remaining !== undefined && { getRemainingTimeInMillis: () => remaining }),
  }
  let ran = false
  try {
    await breaker.callExternalFor(context)('stripe', async () => {
      ran = true
      if (isHeld) {
        process.send?.({ verdict: 'started' })
        await released.promise
      }
      if (does === 'fail') throw new ServiceError('down')
    })
  } catch (error) {
    if (isCircuitOpenError(error)) {
      if (isHeld) process.send?.({ verdict: 'refused' })
      return 'refused'
    }
    if (!(error instanceof ServiceError)) unexpected.push(`call: ${String(error)}`)
  }
  return ran ? 'ran' : undefined
}

async function call(command: Extract<FleetCommand, { kind: 'call' }>): Promise<CallResults> {
  const results = { ran: 0, refused: 0 }
  released = Promise.withResolvers()
  await Promise.all(
    breakers.map(async (breaker, index) => {
      if (command.only !== undefined && command.only !== index) return
      const result = await invoke(breaker, `${process.pid}-${index}`, command.does, command)
      if (result !== undefined) results[result]++
      await breaker.flush()
    }),
  )
  return results
}

let isStopped = true
/** How many invocations of each breaker are over. */
let invocations: number[] = []

async function traffic(command: Extract<FleetCommand, { kind: 'traffic' }>): Promise<TrafficResults> {
  const results = { ran: 0, refused: 0, slowest: 0 }
  isStopped = false
  invocations = breakers.map(() => 0)
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
        invocations[index] = round + 1
        await sleep(pause)
      }
    }),
  )
  return results
}

/** One that is under way has begun before: it is the second one that counts. */
async function turn(): Promise<void> {
  const before = [...invocations]
  while (before.some((count, index) => (invocations[index] ?? 0) < count + 2)) await sleep(5)
}

async function answer(command: FleetCommand): Promise<unknown> {
  switch (command.kind) {
    case 'equip':
      ahead = command.ahead
      return equip(command.setup)
    case 'advance':
      ahead += command.by
      return undefined
    case 'load':
      await Promise.all(breakers.map((breaker) => breaker.load()))
      return undefined
    case 'call':
      return call(command)
    case 'release':
      released.resolve()
      return undefined
    case 'traffic':
      return traffic(command)
    case 'turn':
      return turn()
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
