/**
 * Batches in the sizes that DynamoDB takes.
 *
 * @module
 */

import type { CircuitStorageError, StorageOperation } from '../../errors.ts'
import { unprocessedError } from './errors.ts'

/** How often a key is sent. */
const maxAttempts = 4
/** The pause before the second attempt, in milliseconds. It doubles with each further one. */
const firstPause = 25

/**
 * Sends the keys in chunks, all at once. Sends the keys that were left unprocessed again after a pause.
 *
 * @param keys distinct
 * @param send sends one chunk and returns the keys that were not processed
 * @param failed is given each key that was not processed in the end
 */
export async function sendInChunks(
  operation: StorageOperation,
  keys: readonly string[],
  size: number,
  send: (pending: readonly string[]) => Promise<readonly string[]>,
  failed: (key: string, error: CircuitStorageError) => void,
): Promise<void> {
  const chunks = Array.from({ length: Math.ceil(keys.length / size) }, (_, i) => keys.slice(i * size, (i + 1) * size))
  await Promise.all(
    chunks.map(async (chunk) => {
      let pending: readonly string[] = chunk
      try {
        for (let attempt = 1; pending.length > 0; attempt++) {
          if (attempt > maxAttempts) throw unprocessedError(operation, maxAttempts)
          if (attempt > 1) await pauseBefore(attempt)
          pending = await send(pending)
        }
      } catch (error) {
        for (const key of pending) failed(key, error as CircuitStorageError)
      }
    }),
  )
}

/** Waits for an exponential time. Half of it is random: instances throttled together shall not come back together. */
function pauseBefore(attempt: number): Promise<void> {
  const longest = firstPause * 2 ** (attempt - 1)
  return new Promise((resolve) => setTimeout(resolve, (longest * (1 + Math.random())) / 2))
}

/** Runs `run` for each input, in their order and up to `limit` at the same time. */
export async function concurrently<T>(
  inputs: readonly T[],
  limit: number,
  run: (input: T) => Promise<void>,
): Promise<void> {
  const queue = inputs.values()
  const worker = async () => {
    for (const input of queue) await run(input)
  }
  await Promise.all(Array.from({ length: Math.min(limit, inputs.length) }, worker))
}
