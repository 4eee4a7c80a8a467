/**
 * What is compared: the same operation, bare and behind each guard.
 *
 * @module
 */

import {
  bulkhead,
  ConsecutiveBreaker,
  circuitBreaker as cockatielBreaker,
  handleAll,
  type IPolicy,
  TimeoutStrategy,
  timeout,
  wrap,
} from 'cockatiel'
import Opossum from 'opossum'
import { CircuitBreaker } from '../src/index.ts'
import type { Case } from './rounds.ts'

export const operation = async (): Promise<number> => 1

export interface Guarding {
  /** The limit of each call, in milliseconds. */
  readonly timeout?: number
  /** How many calls may be in flight at once. */
  readonly limit?: number
}

/** What Lambda's context has, with a deadline that never comes. */
const lambdaContext = { awsRequestId: 'a-request', getRemainingTimeInMillis: () => 900_000 }

/** The bare call first. */
export async function subjects({ timeout: limitOfTime, limit }: Guarding = {}): Promise<Record<string, Case>> {
  const breaker = new CircuitBreaker(
    { services: ['stripe'], storage: 'memory', maxConcurrent: limit ?? Number.MAX_SAFE_INTEGER },
    { env: {} },
  )
  await breaker.load()
  const options = limitOfTime === undefined ? undefined : { timeout: limitOfTime }
  const unbound = breaker.callExternalFor({})
  const bound = breaker.callExternalFor(lambdaContext)
  const policy = cockatielPolicy({ ...(limitOfTime && { timeout: limitOfTime }), ...(limit && { limit }) })
  const opossum = new Opossum(operation, { timeout: limitOfTime ?? false, ...(limit && { capacity: limit }) })
  return {
    'bare call': () => operation(),
    call: () => breaker.call('stripe', operation, options),
    'callExternal, no deadline': () => unbound('stripe', operation, options),
    'callExternal, Lambda deadline': () => bound('stripe', operation, options),
    'cockatiel.execute': () => policy.execute(operation),
    'opossum.fire': () => opossum.fire(),
  }
}

function cockatielPolicy({ timeout: limitOfTime, limit }: Guarding): IPolicy {
  const policies: IPolicy[] = []
  if (limit !== undefined) policies.push(bulkhead(limit, Number.POSITIVE_INFINITY))
  policies.push(cockatielBreaker(handleAll, { halfOpenAfter: 10_000, breaker: new ConsecutiveBreaker(3) }))
  if (limitOfTime !== undefined) policies.push(timeout(limitOfTime, TimeoutStrategy.Aggressive))
  return policies.length === 1 ? (policies[0] as IPolicy) : wrap(...policies)
}

/** Circuits that are open and stay open; a plain rejection first. */
export async function openSubjects(): Promise<Record<string, Case>> {
  const down = (): Promise<number> => Promise.reject(Object.assign(new Error('down'), { status: 503 }))
  const breaker = new CircuitBreaker({ services: ['stripe'], storage: 'memory', resetTimeout: 300_000 }, { env: {} })
  await breaker.load()
  const callExternal = breaker.callExternalFor(lambdaContext)
  const policy = cockatielBreaker(handleAll, { halfOpenAfter: 300_000, breaker: new ConsecutiveBreaker(3) })
  const opossum = new Opossum(operation, { timeout: false, resetTimeout: 300_000 })
  opossum.open()
  for (let n = 0; n < 3; n++) {
    await breaker.call('stripe', down).catch(caught)
    await policy.execute(down).catch(caught)
  }
  await breaker.flush()
  const cases = {
    'a rejection with a new error': () => rejected().catch(caught),
    call: () => breaker.call('stripe', operation).catch(caught),
    'callExternal, Lambda deadline': () => callExternal('stripe', operation).catch(caught),
    'cockatiel.execute': () => policy.execute(operation).catch(caught),
    'opossum.fire': () => opossum.fire().catch(caught),
  }
  for (const [name, run] of Object.entries(cases)) {
    if (!((await run()) instanceof Error)) throw new Error(`${name} was not refused`)
  }
  return cases
}

function caught(error: unknown): unknown {
  return error
}

async function rejected(): Promise<number> {
  throw new Error('refused')
}
