/**
 * A process of a fleet: many breakers that share nothing with those of other processes but the table. Driven over IPC by
 * `fleet.ts`.
 *
 * @module
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { CircuitBreaker, type CircuitBreakerOptions, isCircuitOpenError, type StateChange } from '../../src/index.ts'
import { DynamoDBCircuitStorage } from '../../src/storage/dynamodb.ts'

export interface FleetWorkerSetup {
  readonly endpoint: string
  readonly tableName: string
  readonly breakers: number
  readonly options: Omit<CircuitBreakerOptions<'stripe'>, 'storage' | 'services'>
}

export type FleetCommand =
  | { readonly kind: 'load' }
  /** Every breaker makes one call that does this, and flushes. `holds`: how long the operation takes, in milliseconds. */
  | { readonly kind: 'call'; readonly does: 'fail' | 'succeed'; readonly holds?: number; readonly remaining?: number }
  | { readonly kind: 'report' }

export interface CallResults {
  readonly ran: number
  readonly refused: number
}

export interface FleetReport {
  readonly events: readonly StateChange[]
  /** Requests by the name of the command. */
  readonly requests: Readonly<Record<string, number>>
  readonly states: readonly string[]
  readonly storageErrors: readonly string[]
}

const setup = JSON.parse(process.argv[2] ?? '{}') as FleetWorkerSetup
const requests: Record<string, number> = {}
const events: StateChange[] = []
const storageErrors: string[] = []
const client = new DynamoDBClient({
  endpoint: setup.endpoint,
  region: 'eu-west-1',
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
})
client.middlewareStack.add(
  (next, context) => (args) => {
    const name = (context.commandName ?? 'unknown').replace('Command', '')
    requests[name] = (requests[name] ?? 0) + 1
    return next(args)
  },
  { step: 'initialize', name: 'countRequests' },
)
const breakers = Array.from(
  { length: setup.breakers },
  () =>
    new CircuitBreaker(
      {
        ...setup.options,
        services: ['stripe'],
        storage: new DynamoDBCircuitStorage({ tableName: setup.tableName, client }),
        onStateChange: (change) => events.push(change),
        onStorageError: ({ error }) => storageErrors.push(`${error.message} ${error.cause ?? ''}`),
      },
      { env: {} },
    ),
)

async function call(command: Extract<FleetCommand, { kind: 'call' }>): Promise<CallResults> {
  let ran = 0
  let refused = 0
  const { remaining } = command
  await Promise.all(
    breakers.map(async (breaker, index) => {
      const context = {
        awsRequestId: `${process.pid}-${index}`,
        ...(remaining !== undefined && { getRemainingTimeInMillis: () => remaining }),
      }
      try {
        await breaker.callExternalFor(context)('stripe', async () => {
          ran++
          process.send?.({ started: true })
          if (command.holds !== undefined) await sleep(command.holds)
          if (command.does === 'fail') throw Object.assign(new Error('down'), { status: 503 })
        })
      } catch (error) {
        if (isCircuitOpenError(error)) refused++
      }
      await breaker.flush()
    }),
  )
  return { ran, refused }
}

async function answer(command: FleetCommand): Promise<unknown> {
  switch (command.kind) {
    case 'load':
      await Promise.all(breakers.map((breaker) => breaker.load()))
      return undefined
    case 'call':
      return call(command)
    case 'report': {
      const states = breakers.map((breaker) => breaker.circuits.stripe.state)
      return { events, requests, states, storageErrors } satisfies FleetReport
    }
  }
}

process.on('message', ({ id, command }: { id: number; command: FleetCommand }) => {
  answer(command).then((result) => process.send?.({ id, result }))
})
process.on('disconnect', () => process.exit())
process.send?.({ ready: true })
