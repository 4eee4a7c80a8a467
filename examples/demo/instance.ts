/**
 * One process: what Lambda does around the handlers of a few instances. Each handles one event at a time; events that come
 * meanwhile wait.
 *
 * @module
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { CircuitBreakerContext } from '../../src/index.ts'
import { createTestContext } from '../../src/testing/test-context.ts'
import type { Answer, Payment } from './handler.ts'
import { type Order, tell } from './messages.ts'
import { fleetSize } from './scenario.ts'

/** What one invocation may take, in milliseconds: the time-out of the function. */
const functionTimeout = 3_000
const longestWarmUp = 10_000
const root = new URL('../../', import.meta.url)

const { DEMO_FLEET = '', DEMO_INSTANCES = '' } = process.env

type Handler = (payment: Payment, context: CircuitBreakerContext<'payments'>) => Promise<Answer>
interface Instance {
  readonly number: number
  readonly handler: Handler
}
const instances: Instance[] = []

// Ctrl-C reaches every process of a terminal. The demo ends its instances itself, and without it they end by themselves.
process.on('SIGINT', () => {})
process.on('disconnect', () => process.exit())
process.on('message', (order: Order) => {
  const work = order.type === 'warm' ? warm() : run(order)
  work.catch(fail)
})
process.on('uncaughtException', fail)
await load().catch(fail)

/** What Lambda's init phase is for: the first invocation must not pay for it, nor the store's time limit. */
async function load(): Promise<void> {
  if (process.env['CIRCUIT_BREAKER_STORAGE'] === 'dynamodb') {
    await Promise.all([import('@aws-sdk/client-dynamodb'), import('@aws-sdk/util-dynamodb')])
  }
  const module = DEMO_FLEET === 'none' ? './handler-without-breaker.ts' : './handler.ts'
  for (const number of DEMO_INSTANCES.split(',').map(Number)) {
    const { handler } = (await import(`${module}?instance=${number}`)) as { handler: Handler }
    instances.push({ number, handler })
  }
  // Node loads its HTTP client at the first use.
  await (await fetch(process.env['PAYMENTS_URL'] ?? '')).text()
  tell({ type: 'loaded' })
}

/** Invokes each handler until service and store have answered in time. */
async function warm(): Promise<void> {
  const giveUpAt = Date.now() + longestWarmUp
  for (const { handler } of instances) {
    for (;;) {
      const { statusCode, reason } = await handler({ amount: 1 }, newContext())
      if (statusCode === 200) break
      if (Date.now() > giveUpAt) throw new Error(`the healthy service could not be reached: ${reason}`)
    }
  }
  tell({ type: 'warm' })
}

/** Invokes the handlers at a steady rate. The instances of a fleet take turns. */
async function run({ startAt, interval, invocations }: Extract<Order, { type: 'run' }>): Promise<void> {
  const runs = instances.map(async (instance) => {
    const first = startAt + ((instance.number - 1) * interval) / fleetSize
    for (let n = 0; n < invocations; n++) {
      const wait = first + n * interval - Date.now()
      if (wait > 0) await sleep(wait)
      await invoke(instance)
    }
  })
  await Promise.all(runs)
  tell({ type: 'done' })
}

async function invoke({ number, handler }: Instance): Promise<void> {
  const context = newContext()
  const startedAt = performance.now()
  const { statusCode, reason } = await handler({ amount: 100 }, context)
  const latency = performance.now() - startedAt
  const outcome = statusCode === 200 ? 'served' : reason === 'refused' ? 'refused' : 'failed'
  const error = outcome === 'failed' ? reason : undefined
  // Without a breaker nothing adds circuits to the context.
  const state = DEMO_FLEET === 'none' ? 'CLOSED' : context.circuits.payments.state
  tell({ type: 'call', number, call: { endedAt: Date.now(), latency, outcome, error, state } })
}

/** The middleware adds the rest. */
function newContext(): CircuitBreakerContext<'payments'> {
  return createTestContext({ remainingTime: functionTimeout })
}

function fail(error: unknown): void {
  const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  // Where this machine keeps its files is nobody's business.
  tell({ type: 'failed', reason: reason.replaceAll(root.href, '').replaceAll(root.pathname, '') })
  process.exitCode = 1
  process.disconnect()
}
