/**
 * The sustained matrix on all processors. `npm run page -- reliability` runs it, and is told of each cell.
 *
 * @module
 */

import { fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { cells, type Figures, type Result, runCell } from '../__tests__/reliability/sustained.ts'
import type { CircuitBreakerOptions } from '../src/settings/table.ts'

/** So many cells at once are handed to a worker. */
const portion = 20
const role = 'sustained-worker'

interface Order {
  readonly indices: readonly number[]
  readonly settings: Partial<CircuitBreakerOptions>
}

interface Reply {
  readonly index: number
  readonly figures: readonly Figures[]
  readonly problems: readonly string[]
}

if (process.argv[2] === role) {
  // Each breaker says once what is misconfigured.
  process.removeAllListeners('warning')
  process.on('message', (order: Order) => void work(order))
}

async function work({ indices, settings }: Order): Promise<void> {
  const replies: Reply[] = []
  for (const index of indices) {
    const { figures, problems } = await runCell(cells[index] as Result['cell'], { settings })
    replies.push({ index, figures, problems })
  }
  process.send?.(replies)
}

/**
 * Runs cells of the sustained matrix.
 *
 * @param indices of the cells
 * @param take is given each result, in no order
 */
export async function runCells(
  indices: readonly number[],
  take: (result: Result) => void,
  settings: Partial<CircuitBreakerOptions> = {},
): Promise<void> {
  let next = 0
  const ended = Array.from({ length: availableParallelism() }, () => {
    const worker = fork(fileURLToPath(import.meta.url), [role])
    const feed = (): void => {
      const order: Order = { indices: indices.slice(next, next + portion), settings }
      if (order.indices.length === 0) worker.disconnect()
      else worker.send(order)
      next += portion
    }
    worker.on('message', (replies: Reply[]) => {
      for (const { index, ...rest } of replies) take({ cell: cells[index] as Result['cell'], ...rest })
      feed()
    })
    feed()
    return new Promise<void>((resolve, reject) => {
      worker.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`A worker ended with code ${code}.`))))
    })
  })
  await Promise.all(ended)
}
