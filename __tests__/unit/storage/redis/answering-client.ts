import type { CircuitStorageError } from '../../../../src/errors.ts'
import type { CircuitRecord, Outcomes } from '../../../../src/storage/contract.ts'
import { emptyRecord } from '../../../../src/storage/record.ts'
import { RedisCircuitStorage, type RedisClientLike } from '../../../../src/storage/redis/index.ts'

export const at = 1_700_000_000_001
/** A record's window ends 60 s after its last write; it is kept for two days more. */
export const lifetime = '172860000'

export const open: CircuitRecord = {
  ...emptyRecord('epoch-1', at),
  version: 'v2',
  generation: 1,
  state: 'OPEN',
  failureCount: 3,
  earlyCount: 1,
  reporterCount: 2,
  dismissals: 1.25,
  dismissedAt: at - 1,
  noise: 0.3,
  lastFailureAt: at,
  openedAt: at,
  retryAt: at + 10_000,
  resetTimeout: 10_000,
  leases: [{ id: 'l1', expiresAt: at + 0.5 }],
  trips: 1,
  lastFailure: { at, name: 'TimeoutError', code: undefined, status: 503 },
  transitions: ['t1'],
}

/** The hash of {@link open}, as Redis sends it. */
export const stored = Object.entries({
  schema: '1',
  version: 'v2',
  epoch: 'epoch-1',
  generation: '1',
  state: 'OPEN',
  failureCount: '3',
  successCount: '0',
  startedCount: '0',
  earlyCount: '1',
  reporterCount: '2',
  dismissals: '1.25',
  dismissedAt: '1700000000000',
  noise: '0.3',
  lastFailureAt: '1700000000001',
  openedAt: '1700000000001',
  retryAt: '1700000010001',
  resetTimeout: '10000',
  leases: '[{"id":"l1","expiresAt":1700000000001.5}]',
  trips: '1',
  lastFailure: '{"at":1700000000001,"name":"TimeoutError","status":503}',
  transitions: '["t1"]',
  updatedAt: '1700000000001',
}).flat()

export const outcomes: Outcomes = { failures: 1, successes: 2, started: 3, early: 0, reporters: 1, at, id: 'i1' }

export type Reply = unknown | ((command: readonly string[]) => unknown)

/** A client that answers every command with the next reply, the last one again and again; an error is a rejection. */
export function answering(...replies: Reply[]) {
  const commands: string[][] = []
  const answer = (command: string[]): unknown => {
    commands.push(command)
    const reply = replies.length > 1 ? replies.shift() : replies[0]
    return typeof reply === 'function' ? reply(command) : reply
  }
  const client: RedisClientLike = {
    call: async (...command) => {
      const reply = answer(command)
      if (reply instanceof Error) throw reply
      return reply
    },
  }
  return { client, commands, answer, storage: new RedisCircuitStorage({ client }) }
}

/** The same with pipelines, of which it notes the sizes. */
export function pipelining(...replies: Reply[]) {
  const { client, commands, answer } = answering(...replies)
  const pipelines: number[] = []
  const pipeline = (batch: string[][]) => ({
    exec: async () => {
      pipelines.push(batch.length)
      return batch
        .map(answer)
        .map((reply): [Error | null, unknown] => (reply instanceof Error ? [reply, undefined] : [null, reply]))
    },
  })
  const both: RedisClientLike = { ...client, pipeline }
  return { client: both, commands, pipelines, storage: new RedisCircuitStorage({ client: both }) }
}

export function rejectionOf(promise: Promise<unknown>): Promise<CircuitStorageError> {
  return promise.then(
    () => {
      throw new Error('it did not reject')
    },
    (error) => error,
  )
}

export const noScript = new Error('NOSCRIPT No matching script. Please use EVAL.')

export function pairs(list: readonly string[]): [string, string][] {
  return Array.from({ length: list.length / 2 }, (_, index) => [String(list[2 * index]), String(list[2 * index + 1])])
}
